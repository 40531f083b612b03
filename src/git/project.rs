//! A project's own repository: its commits, what its references name, and the files of its commits.
//!
//! Reads `HEAD`, references, objects and the index, and nothing else: no config, no hooks, no filters. Writes nothing. Says what a
//! commit holds; what the difference of two of them means is for others to tell.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use git2::Oid;
use jiff::Timestamp;

use super::checkout::{Known, Style, read_index};
use super::error::GitError;
use super::mirror::{Mirror, git_dirs};
use super::objects::{GITLINK, LINK, Line, private, public};
use super::references::{REFERENCES, SYMBOLIC};
use super::resolve::Commit;
use crate::digest::Digest;
use crate::hostile::read_regular;
use crate::names::ObjectId;
use crate::text::harmless;

/// Links that are followed on the way to one file.
const LINKS: usize = 40;
/// Trees that are remembered.
const TREES: usize = 20_000;
/// Commits among which an ancestor is looked for.
const ANCESTORS: usize = 20_000;
/// The largest pointer that git-lfs writes in place of a file, in bytes.
const POINTER: u64 = 1024;

/// A project's repository.
#[derive(Debug)]
pub struct Project {
    root: PathBuf,
    pub(super) git_dir: PathBuf,
    pub(super) common: PathBuf,
    pub(super) mirror: Mirror,
    shallow: HashSet<Oid>,
    trees: Mutex<HashMap<Oid, Listing>>,
    index: OnceLock<Known>,
    styles: Mutex<HashMap<PathBuf, Style>>,
}

/// The lines of a tree.
type Listing = Arc<Vec<(Vec<u8>, Line)>>;

/// A commit of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastCommit {
    /// Its id.
    pub id: ObjectId,
    /// Its tree.
    pub tree: ObjectId,
    /// Its parents that are here.
    pub parents: Vec<ObjectId>,
    /// Whether some parent is not here: the clone is shallow, or was damaged.
    pub cut: bool,
    /// The name of its author, harmless on a terminal.
    pub author: String,
    /// When its author made it.
    pub date: Timestamp,
    /// When it was committed.
    pub committed: Timestamp,
    /// The first line of its message, harmless on a terminal.
    pub subject: String,
}

/// What a commit has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// A regular file.
    File(ObjectId),
    /// A folder.
    Folder,
    /// A submodule, or something in one.
    Submodule,
    /// What cannot be read, and why.
    Odd(&'static str),
}

impl Project {
    /// The project that a folder lies in: the nearest at or above it that holds `.git`. `None` if there is no such folder, or what
    /// is called `.git` there is no repository.
    #[must_use]
    pub fn of(folder: &Path) -> Option<Self> {
        Self::open(folder).ok().flatten()
    }

    /// The same, and `None` only where no such folder is.
    ///
    /// # Errors
    /// If what is called `.git` is no repository, with what is wrong with it.
    pub fn open(folder: &Path) -> Result<Option<Self>, GitError> {
        let Some(root) = folder.ancestors().find(|folder| folder.join(".git").exists()) else { return Ok(None) };
        let root = root.canonicalize().map_err(GitError::io(root))?;
        let (git_dir, common) = git_dirs(&root)?;
        let mirror = Mirror::at(&root)?;
        let shallow = read_regular(&common.join("shallow"), REFERENCES).ok().flatten().unwrap_or_default();
        let shallow =
            String::from_utf8_lossy(&shallow).lines().filter_map(|id| Oid::from_str(id.trim()).ok()).collect();
        Ok(Some(Self {
            root,
            git_dir,
            common,
            mirror,
            shallow,
            trees: Mutex::default(),
            index: OnceLock::new(),
            styles: Mutex::default(),
        }))
    }

    /// What the index of the work tree says of its files.
    pub(super) fn index(&self) -> &Known {
        self.index.get_or_init(|| read_index(&self.git_dir.join("index")))
    }

    /// How the file at a path is written, found out once.
    pub(super) fn styled(&self, path: &Path, find: impl FnOnce() -> Style) -> Style {
        let known = self.styles.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        known.unwrap_or_else(|| {
            let style = find();
            self.styles.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), style);
            style
        })
    }

    /// Its folder, without links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that is checked out; `None` before the first one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn head(&self) -> Result<Option<PastCommit>, GitError> {
        self.reference("HEAD", SYMBOLIC)?.map(|id| self.past(id)).transpose()
    }

    /// The commit that a text names: `HEAD`, a branch, a tag, at least 4 digits of an id, each with `~2` and `^2` behind it.
    ///
    /// # Errors
    /// If it names none, or several.
    pub fn revision(&self, text: &str) -> Result<PastCommit, GitError> {
        let unknown = || GitError::NoRevision { text: text.chars().take(80).collect(), repository: self.root.clone() };
        let end = text.find(['~', '^']).unwrap_or(text.len());
        let (name, mut steps) = text.split_at(end);
        let mut commit = self.past(self.named(name)?.ok_or_else(unknown)?)?;
        while let Some(kind) = steps.chars().next() {
            let rest = &steps[1..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number: usize = if digits == 0 { 1 } else { rest[..digits].parse().map_err(|_| unknown())? };
            steps = &rest[digits..];
            let (times, which) = match kind {
                '~' => (number, 0),
                '^' if number > 0 => (1, number - 1),
                '^' => (0, 0),
                _ => return Err(unknown()),
            };
            for _ in 0..times {
                let parent = commit.parents.get(which).ok_or_else(unknown)?;
                commit = self.commit(parent)?;
            }
        }
        Ok(commit)
    }

    pub(super) fn unknown(&self, why: &str) -> GitError {
        GitError::NotARepository { path: self.root.clone(), why: why.to_owned() }
    }

    /// A commit by its id.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn commit(&self, id: &ObjectId) -> Result<PastCommit, GitError> {
        self.past(private(id)?)
    }

    /// Whether a commit comes before another one in its history.
    #[must_use]
    pub fn is_before(&self, older: &PastCommit, newer: &PastCommit) -> bool {
        let mut next = vec![newer.clone()];
        let mut seen: HashSet<ObjectId> = HashSet::new();
        while let Some(commit) = next.pop() {
            for id in commit.parents.iter().filter(|id| !seen.contains(*id)).cloned().collect::<Vec<_>>() {
                if id == older.id {
                    return true;
                }
                seen.insert(id.clone());
                // A clock that was a little wrong is allowed for.
                let near = |parent: &PastCommit| parent.committed.as_second() + 86_400 >= older.committed.as_second();
                next.extend(self.commit(&id).ok().filter(near).filter(|_| seen.len() < ANCESTORS));
            }
        }
        false
    }

    fn past(&self, id: Oid) -> Result<PastCommit, GitError> {
        let Commit { id, tree, mut parents, subject, author, authored, committed } = self.mirror.commit(id)?;
        let all = parents.len();
        if self.shallow.contains(&id) {
            parents.clear();
        }
        parents.retain(|parent| self.mirror.odb.exists(*parent));
        let time = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(PastCommit {
            id: public(id),
            tree: public(tree),
            cut: parents.len() < all,
            parents: parents.into_iter().map(public).collect(),
            author: harmless(&author),
            date: time(authored),
            committed: time(committed),
            subject: harmless(&subject),
        })
    }

    pub(super) fn tree(&self, id: Oid) -> Result<Listing, GitError> {
        let known = |trees: &HashMap<Oid, Listing>| trees.get(&id).cloned();
        if let Some(listing) = known(&self.trees.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(listing);
        }
        let listing: Listing = Arc::new(self.mirror.tree(id)?);
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if trees.len() >= TREES {
            trees.clear();
        }
        trees.insert(id, listing.clone());
        Ok(listing)
    }

    fn line(&self, tree: Oid, name: &[u8]) -> Result<Option<Line>, GitError> {
        Ok(self.tree(tree)?.iter().find(|(known, _)| known == name).map(|(_, line)| line.clone()))
    }

    /// What a commit's tree has at a path, which is relative to the project; links are followed as long as they stay in the
    /// project. `visit` hears of every path on the way that decides it: the path itself, and what links lead to.
    ///
    /// # Errors
    /// If an object cannot be read.
    pub fn at(&self, tree: &ObjectId, path: &Path, visit: &mut dyn FnMut(&Path)) -> Result<Held, GitError> {
        let root = private(tree)?;
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            visit(&path);
            match self.step(root, &path)? {
                Ok(held) => return Ok(held),
                Err(Some(next)) => path = next,
                Err(None) => return Ok(Held::Odd("a link there leads out of the project")),
            }
        }
        Ok(Held::Odd("links there lead in a circle"))
    }

    /// What is at a path, or where the first link on the way leads to: `None` is out of the project.
    fn step(&self, root: Oid, path: &Path) -> Result<Result<Held, Option<PathBuf>>, GitError> {
        let mut at = root;
        let mut above = PathBuf::new();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else { continue };
            let Some(line) = self.line(at, name.as_bytes())? else { return Ok(Ok(Held::Nothing)) };
            if line.mode == LINK {
                let target = self.mirror.blob(line.id)?;
                let target = Path::new(OsStr::from_bytes(&target));
                return Ok(Err(self.leads(&above, target).map(|to| to.join(parts.collect::<PathBuf>()))));
            }
            if line.mode == GITLINK {
                return Ok(Ok(Held::Submodule));
            }
            if !line.is_tree() {
                let last = parts.peek().is_none();
                return Ok(Ok(if last { Held::File(public(line.id)) } else { Held::Nothing }));
            }
            at = line.id;
            above.push(name);
        }
        Ok(Ok(Held::Folder))
    }

    /// The commit that a tree names for the submodule at a path; `None` if there is none.
    ///
    /// # Errors
    /// If an object cannot be read.
    pub fn submodule(&self, tree: &ObjectId, path: &Path) -> Result<Option<ObjectId>, GitError> {
        let mut at = private(tree)?;
        for part in path.components() {
            let Some(line) = self.line(at, part.as_os_str().as_bytes())? else { return Ok(None) };
            match line.mode {
                GITLINK => return Ok(Some(public(line.id))),
                _ if line.is_tree() => at = line.id,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The tree of a folder; `None` if there is none, or links lead to it.
    ///
    /// # Errors
    /// If an object cannot be read.
    pub fn folder(&self, tree: &ObjectId, path: &Path) -> Result<Option<ObjectId>, GitError> {
        let mut at = private(tree)?;
        for part in path.components() {
            match self.line(at, part.as_os_str().as_bytes())? {
                Some(line) if line.is_tree() => at = line.id,
                _ => return Ok(None),
            }
        }
        Ok(Some(public(at)))
    }

    /// Where a link in a folder leads to, relative to the project; `None` if that is out of it.
    fn leads(&self, folder: &Path, target: &Path) -> Option<PathBuf> {
        let mut to = if target.is_absolute() { PathBuf::new() } else { folder.to_owned() };
        let target = if target.is_absolute() { target.strip_prefix(&self.root).ok()? } else { target };
        for part in target.components() {
            match part {
                Component::Normal(name) => to.push(name),
                Component::ParentDir if !to.pop() => return None,
                _ => {}
            }
        }
        Some(to)
    }

    /// The content of a file. Of one that git-lfs keeps, that which it stands for, if it is here.
    ///
    /// # Errors
    /// If it is not there, or longer than `most` bytes.
    pub fn content(&self, file: &ObjectId, most: u64) -> Result<Vec<u8>, GitError> {
        let id = private(file)?;
        let size = self.mirror.blob_size(id)?;
        let too_much = |found| GitError::TooMuch { what: format!("bytes of {file}"), limit: most, found };
        if size > most {
            return Err(too_much(size));
        }
        let bytes = self.mirror.blob(id)?;
        let Some(kept) = kept_by_lfs(&bytes) else { return Ok(bytes) };
        let (a, b) = (&kept[..2], &kept[2..4]);
        let path = self.common.join("lfs/objects").join(a).join(b).join(&kept);
        let missing =
            || GitError::Missing { id: format!("what git-lfs keeps as {kept}"), repository: self.root.clone() };
        let kept_bytes = read_regular(&path, most).map_err(GitError::io(&path))?.ok_or_else(missing)?;
        if Digest::of(&kept_bytes).hex() == kept { Ok(kept_bytes) } else { Err(missing()) }
    }

    /// Whether a file of a commit has this content, also where git-lfs keeps it.
    #[must_use]
    pub fn has_content(&self, file: &ObjectId, bytes: &[u8]) -> bool {
        if id_of_file(bytes).is_some_and(|id| id == *file) {
            return true;
        }
        let pointer = private(file).ok().filter(|id| matches!(self.mirror.blob_size(*id), Ok(..POINTER)));
        let pointer = pointer.and_then(|id| self.mirror.blob(id).ok());
        pointer.and_then(|pointer| kept_by_lfs(&pointer)).is_some_and(|kept| kept == Digest::of(bytes).hex())
    }

    /// The names in a folder of a tree; nothing if there is no such folder.
    #[must_use]
    pub fn names(&self, tree: &ObjectId, folder: &Path) -> Vec<String> {
        let mut at = private(tree).ok();
        for part in folder.components() {
            let line = at.and_then(|at| self.line(at, part.as_os_str().as_bytes()).ok().flatten());
            at = line.filter(Line::is_tree).map(|line| line.id);
        }
        let listing = at.and_then(|at| self.tree(at).ok());
        listing.iter().flat_map(|all| all.iter()).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// Which of some paths two trees have different things at. Only what differs is looked into.
    ///
    /// # Errors
    /// If an object cannot be read.
    pub fn changed(&self, old: &ObjectId, new: &ObjectId, paths: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, GitError> {
        let (old, new) = (private(old)?, private(new)?);
        let mut changed = Vec::new();
        if old == new {
            return Ok(changed);
        }
        // Most commits touch no folder that a manifest names anything in.
        let (before, after) = (self.tree(old)?, self.tree(new)?);
        let apart = |a: &Listing, b: &Listing| -> Vec<Vec<u8>> {
            let known: HashMap<&[u8], &Line> = b.iter().map(|(name, line)| (name.as_slice(), line)).collect();
            let other = a.iter().filter(|(name, line)| known.get(name.as_slice()) != Some(&line));
            other.map(|(name, _)| name.clone()).collect()
        };
        let touched: HashSet<Vec<u8>> = apart(&before, &after).into_iter().chain(apart(&after, &before)).collect();
        let first = |path: &Path| path.components().next().map(|part| part.as_os_str().as_bytes().to_vec());
        for path in paths.iter().filter(|path| first(path).is_none_or(|first| touched.contains(&first))) {
            if self.differs(old, new, path)? {
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }

    fn differs(&self, mut old: Oid, mut new: Oid, path: &Path) -> Result<bool, GitError> {
        for part in path.components() {
            if old == new {
                return Ok(false);
            }
            let name = part.as_os_str().as_bytes();
            match (self.line(old, name)?, self.line(new, name)?) {
                (None, None) => return Ok(false),
                (Some(a), Some(b)) if a.mode == b.mode && a.id == b.id => return Ok(false),
                (Some(a), Some(b)) if a.is_tree() && b.is_tree() => (old, new) = (a.id, b.id),
                _ => return Ok(true),
            }
        }
        // A folder itself is asked for only to know whether it is there.
        Ok(false)
    }
}

/// The sha256 of what a pointer of git-lfs stands for; `None` if these bytes are no such pointer.
fn kept_by_lfs(bytes: &[u8]) -> Option<String> {
    if bytes.len() as u64 >= POINTER || !bytes.starts_with(b"version https://git-lfs.github.com/spec/v1\n") {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let digits = text.lines().find_map(|line| line.strip_prefix("oid sha256:"))?;
    (digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| digits.to_ascii_lowercase())
}

/// The id that git would give a file of this content.
#[must_use]
fn id_of_file(bytes: &[u8]) -> Option<ObjectId> {
    super::objects::blob_id(bytes).ok().map(public)
}
