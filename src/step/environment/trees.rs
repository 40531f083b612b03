//! Which files of a tree an environment is built from, told from the repositories' objects; remembered, for the same is asked each
//! time that a plan is made.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::git::{self, Mirror, TreePath};
use crate::hostile;
use crate::names::ObjectId;
use crate::plan::{CaseAsk, Found, TreeOf, Trees};
use crate::step::context::{FETCH, LARGEST_BLOB, glob_set};
use crate::store::files::write_derived;
use crate::store::{Cas, Store};

/// The largest listing, in bytes.
const LISTING_BYTES: u64 = 64 << 20;

/// The trees of a plan's repositories.
#[derive(Debug)]
pub struct StoreTrees {
    root: PathBuf,
    mirrors: PathBuf,
    cas: Arc<Cas>,
    sources: Vec<git::Source>,
    /// Whether a mirror that is not there is made.
    fetches: bool,
    found: Mutex<HashMap<Digest, Found>>,
}

impl StoreTrees {
    /// For repositories in the plan's order; `fetches` is whether one that is not here is fetched.
    #[must_use]
    pub fn new(store: &Store, sources: Vec<git::Source>, fetches: bool) -> Self {
        let (root, mirrors, cas) = (store.root.clone(), store.mirrors(), store.cas.clone());
        Self { root, mirrors, cas, sources, fetches, found: Mutex::default() }
    }

    /// The listing of the files that a case of a recipe is built from, and the files.
    ///
    /// # Errors
    /// In words, if the repository or the changes cannot be read.
    pub(super) fn listing(&self, tree: TreeOf<'_>, case: &CaseAsk) -> Result<(Vec<u8>, Vec<TreePath>), String> {
        let globs = glob_set(&case.from).map_err(|error| error.to_string())?;
        self.select(tree, &|path| globs.is_match(path.as_path()))
    }

    /// A file of a tree that a case is not built from, and that one of these names may mean: its path, its end, or a folder that it
    /// lies in.
    ///
    /// # Errors
    /// In words, if the repository or the changes cannot be read.
    pub(super) fn outside(
        &self,
        tree: TreeOf<'_>,
        case: &CaseAsk,
        names: &[String],
    ) -> Result<Option<TreePath>, String> {
        if names.is_empty() {
            return Ok(None);
        }
        let globs = glob_set(&case.from).map_err(|error| error.to_string())?;
        let means = |path: &[u8]| {
            names.iter().map(String::as_bytes).any(|name| {
                let end = path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with(b"/"));
                end || path.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"/"))
            })
        };
        let (_, found) = self.select(tree, &|path| means(path.as_bytes()) && !globs.is_match(path.as_path()))?;
        Ok(found.into_iter().min_by_key(|path| path.as_bytes().len()))
    }

    fn select(&self, tree: TreeOf<'_>, wanted: &dyn Fn(&TreePath) -> bool) -> Result<(Vec<u8>, Vec<TreePath>), String> {
        let source = self.sources.get(tree.repo).ok_or("there is no such repository in the plan")?;
        let mirror = Mirror::open(&self.mirrors, source).map_err(|error| error.to_string())?;
        let mirror = match mirror {
            Some(mirror) => mirror,
            None if self.fetches => Mirror::prepare(&self.mirrors, source, FETCH).map_err(|error| error.to_string())?,
            None => return Err("the repository is not here; `flow run` fetches it".to_owned()),
        };
        let changes = match tree.changes {
            None => git::Changes::default(),
            Some(digest) => {
                let bytes = self.cas.get(&digest, LARGEST_BLOB);
                let bytes = bytes.map_err(|error| error.to_string())?;
                let bytes = bytes.ok_or_else(|| format!("the patch, blob {digest}, is gone from the store"))?;
                git::Changes::decode(&bytes).map_err(|error| error.to_string())?
            }
        };
        let files =
            git::select(&mirror, &ObjectId::new(tree.base), &changes, wanted).map_err(|error| error.to_string())?;
        let mut text = String::new();
        for (path, file) in &files {
            let _ = writeln!(text, "{:o} {} {path}", file.mode, file.id);
        }
        let own = files.into_iter().filter(|(_, file)| !file.is_submodule()).map(|(path, _)| path);
        Ok((text.into_bytes(), own.collect()))
    }

    /// Where an answer is written down.
    fn place(&self, question: &Digest) -> PathBuf {
        self.root.join("index/trees").join(question.to_string())
    }

    fn written(&self, question: &Digest) -> Option<Found> {
        let bytes = hostile::read_regular(&self.place(question), 200).ok()??;
        let text = String::from_utf8(bytes).ok()?;
        if text == "none\n" {
            return Some(Found::NoCase);
        }
        let (case, listing) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Found::Case { case: case.parse().ok()?, listing: listing.parse().ok()? })
    }

    fn write_down(&self, question: &Digest, found: &Found) {
        let text = match found {
            Found::NoCase => "none\n".to_owned(),
            Found::Case { case, listing } => format!("{case} {listing}\n"),
        };
        let path = self.place(question);
        // Derived: one that is not written down is asked for again.
        if let Some(dir) = path.parent()
            && std::fs::create_dir_all(dir).is_ok()
        {
            let _ = write_derived(&path, text.as_bytes());
        }
    }
}

impl Trees for StoreTrees {
    fn find(&self, tree: TreeOf<'_>, cases: &[CaseAsk]) -> Result<Found, String> {
        let asked =
            cases.iter().map(|case| format!("{:?} {:?}", case.exists, case.from)).collect::<Vec<_>>().join("\n");
        let question = Digest::of(format!("2 {} {:?}\n{asked}", tree.base, tree.changes).as_bytes());
        let memory = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = memory().get(&question) {
            return Ok(found.clone());
        }
        // Whoever asks why wants to see the listing: without it the answer is made anew.
        let shown = |found: &Found| match found {
            Found::Case { listing, .. } => self.cas.has(listing),
            Found::NoCase => true,
        };
        if let Some(found) = self.written(&question).filter(shown) {
            memory().insert(question, found.clone());
            return Ok(found);
        }
        let fits = |case: &CaseAsk| match &case.exists {
            None => Ok(true),
            Some(file) => Ok::<bool, String>(
                !self.select(tree, &|path| path.as_bytes() == file.trim_start_matches("./").as_bytes())?.1.is_empty(),
            ),
        };
        let mut found = Found::NoCase;
        for (number, case) in cases.iter().enumerate() {
            if fits(case)? {
                let (listing, _) = self.listing(tree, case)?;
                let too_long = u64::try_from(listing.len()).is_ok_and(|len| len > LISTING_BYTES);
                if too_long {
                    return Err(format!("`from` matches too many files: their listing has {} bytes", listing.len()));
                }
                // One that cannot be kept is not shown, and is none the worse.
                let kept = self.cas.put(&listing);
                found = Found::Case { case: number, listing: kept.unwrap_or_else(|_| Digest::of(&listing)) };
                break;
            }
        }
        memory().insert(question, found.clone());
        self.write_down(&question, &found);
        Ok(found)
    }
}
