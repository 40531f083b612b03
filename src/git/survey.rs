//! What trees hold, without writing them: how much, and what a plain checkout cannot give (submodules, files of git LFS).

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use git2::Oid;

use super::error::GitError;
use super::mirror::Mirror;
use super::objects::{GITLINK, check_name, private, too_deep};
use super::path::{DEEPEST, escape};
use crate::names::ObjectId;

/// The largest `.gitattributes` that is read, in bytes.
const ATTRIBUTES: u64 = 1 << 20;
/// Names of submodules and of folders with LFS files that are kept.
const NAMED: usize = 20;

/// What some trees hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Trees that were looked at; fewer than were asked for if time ran out.
    pub trees: usize,
    /// Bytes of the largest one, written out.
    pub largest: u64,
    /// Files of the one with most of them.
    pub most_files: u64,
    /// Bytes of all trees, each written out.
    pub sum: u64,
    /// Bytes of the distinct contents of all trees.
    pub distinct: u64,
    /// Submodules by path, at most twenty.
    pub submodules: Vec<String>,
    /// Files of attributes that name git LFS, by path, at most twenty.
    pub lfs: Vec<String>,
    /// Whether all trees were looked at.
    pub whole: bool,
}

/// What a subtree comes to.
#[derive(Clone, Copy, Default)]
struct Amount {
    files: u64,
    bytes: u64,
}

struct Surveyor<'a> {
    mirror: &'a Mirror,
    until: Instant,
    /// Most of a tree is also in the trees of its neighbours.
    known: HashMap<Oid, Amount>,
    contents: HashSet<Oid>,
    survey: Survey,
}

/// Time ran out.
enum Stop {
    Late,
    Failed(GitError),
}

impl From<GitError> for Stop {
    fn from(error: GitError) -> Self {
        Self::Failed(error)
    }
}

/// Looks through trees until a moment comes. A subtree that several hold is read once.
///
/// # Errors
/// Objects that are missing or damaged, names that no tree may hold.
pub fn survey(mirror: &Mirror, trees: &[ObjectId], until: Instant) -> Result<Survey, GitError> {
    let mut surveyor =
        Surveyor { mirror, until, known: HashMap::new(), contents: HashSet::new(), survey: Survey::default() };
    for tree in trees {
        match surveyor.tree(private(tree)?, &mut Vec::new()) {
            Ok(amount) => {
                let survey = &mut surveyor.survey;
                survey.trees += 1;
                survey.largest = survey.largest.max(amount.bytes);
                survey.most_files = survey.most_files.max(amount.files);
                survey.sum = survey.sum.saturating_add(amount.bytes);
            }
            Err(Stop::Late) => return Ok(surveyor.survey),
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
    surveyor.survey.whole = true;
    Ok(surveyor.survey)
}

impl Surveyor<'_> {
    fn tree(&mut self, id: Oid, path: &mut Vec<u8>) -> Result<Amount, Stop> {
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        if Instant::now() >= self.until {
            return Err(Stop::Late);
        }
        if path.iter().filter(|b| **b == b'/').count() > DEEPEST {
            return Err(too_deep(path).into());
        }
        let mut amount = Amount::default();
        for (name, line) in self.mirror.tree(id)? {
            check_name(&name, path)?;
            let len = path.len();
            path.extend_from_slice(&name);
            if line.is_tree() {
                path.push(b'/');
                let below = self.tree(line.id, path)?;
                amount.files = amount.files.saturating_add(below.files);
                amount.bytes = amount.bytes.saturating_add(below.bytes);
            } else if line.mode == GITLINK {
                keep(&mut self.survey.submodules, path);
            } else {
                let (bytes, _) = self.mirror.header(line.id)?;
                amount.files = amount.files.saturating_add(1);
                amount.bytes = amount.bytes.saturating_add(bytes);
                if self.contents.insert(line.id) {
                    self.survey.distinct = self.survey.distinct.saturating_add(bytes);
                }
                if name == b".gitattributes" && bytes <= ATTRIBUTES && names_lfs(&self.mirror.blob(line.id)?) {
                    keep(&mut self.survey.lfs, path);
                }
            }
            path.truncate(len);
        }
        self.known.insert(id, amount);
        Ok(amount)
    }
}

fn keep(names: &mut Vec<String>, path: &[u8]) {
    let name = escape(path);
    if names.len() < NAMED && !names.contains(&name) {
        names.push(name);
    }
}

fn names_lfs(attributes: &[u8]) -> bool {
    let rule = |line: &[u8]| !line.trim_ascii_start().starts_with(b"#") && line.windows(10).any(|w| w == b"filter=lfs");
    attributes.split(|b| *b == b'\n').any(rule)
}
