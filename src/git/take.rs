//! Reads the work tree that an agent left, as changes from the base tree.
//!
//! The directory is hostile. Whatever lies in `.git` is ignored; no link is followed; every read is bounded; and which new files
//! are ignored is decided by the base tree's `.gitignore` files, not by those that the agent wrote. Content decides what
//! changed, never a time stamp.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use git2::Oid;

use super::changes::{Blobs, Changes, Entry};
use super::dir::{Dir, Kind};
use super::error::GitError;
use super::ignore::{Rules, ignored};
use super::merge::{gone_below, tree_id};
use super::mirror::Mirror;
use super::objects::{GITLINK, LINK, Line, blob_id, private, public};
use super::path::{DEEPEST, TreePath, escape, is_dot_git};
use crate::names::ObjectId;

/// How much an agent may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeLimits {
    /// New, changed and removed files.
    pub files: u64,
    /// Bytes of one new or changed file.
    pub file_bytes: u64,
    /// Bytes of all new and changed files.
    pub bytes: u64,
    /// Directories within each other; never more than 255 are taken.
    pub depth: u64,
    /// Names looked at, unchanged ones included; what lies in ignored directories is not looked at.
    pub names: u64,
}

impl Default for TakeLimits {
    /// Generous for a source tree, and small enough for the memory of any machine.
    fn default() -> Self {
        Self { files: 20_000, file_bytes: 64 << 20, bytes: 256 << 20, depth: 100, names: 1_000_000 }
    }
}

/// What an agent left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The difference from the base tree.
    pub changes: Changes,
    /// The git tree id of the work tree.
    pub tree: ObjectId,
    /// New files and directories (these with a slash at the end) that the base's rules ignore: the first hundred, escaped.
    pub ignored: Vec<String>,
    /// How many there are.
    pub ignored_count: u64,
    /// What was left out and why, in words: nested repositories, fifos, files within submodules. At most a hundred.
    pub notes: Vec<String>,
}

/// Why a work tree could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// There is no directory any more.
    #[error("{path} is not there any more, or is no directory: {source}")]
    NoDirectory {
        /// Where it was.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// More than the limits allow.
    #[error("{what}: {found}, where at most {limit} are allowed")]
    TooMuch {
        /// Of what, with the path where it was noticed.
        what: String,
        /// The limit.
        limit: u64,
        /// What was found, at least.
        found: u64,
    },
    /// A file's content, a link's target or a name holds a secret. Its content was not stored.
    #[error("`{path}` holds a secret")]
    Secret {
        /// The path, escaped; only its directory if the name itself holds the secret.
        path: String,
    },
    /// Something in the work tree that no git tree can hold.
    #[error("`{path}` cannot be in a tree: {why}")]
    Odd {
        /// The path, escaped.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A file or directory could not be read.
    #[error("`{path}` of the work tree cannot be read: {source}")]
    Io {
        /// The path, escaped.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The store of blobs failed.
    #[error("the content of `{path}` cannot be stored: {source}")]
    Blobs {
        /// The path, escaped.
        path: String,
        /// What the store says.
        #[source]
        source: io::Error,
    },
    /// The base tree could not be read.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// How many ignored names and notes are kept.
const LISTED: usize = 100;
/// The largest `.gitignore` of a base tree that is obeyed.
const LARGEST_RULES: u64 = 1 << 20;

/// Takes the work tree in `dir` as changes from the tree `base`. `refuse` is asked about the path and the content of each changed
/// file before it is put into `blobs`; if it says yes, nothing of that file is stored and the whole take fails.
///
/// # Errors
/// See [`TakeError`]; those but `Git` and `Blobs` are the agent's doing.
pub fn take(
    mirror: &Mirror,
    base: &ObjectId,
    dir: &Path,
    blobs: &dyn Blobs,
    limits: &TakeLimits,
    refuse: &dyn Fn(&[u8]) -> bool,
) -> Result<Taken, TakeError> {
    let root = Dir::open_hostile(dir).map_err(|source| TakeError::NoDirectory { path: dir.to_owned(), source })?;
    let mut taker = Taker {
        mirror,
        blobs,
        limits,
        refuse,
        rules: Vec::new(),
        path: Vec::new(),
        entries: BTreeMap::new(),
        bytes: 0,
        names: 0,
        ignored: Vec::new(),
        ignored_count: 0,
        notes: Vec::new(),
    };
    taker.folder(&root, Some(private(base)?), 0, false)?;
    taker.check_files()?;
    let changes = Changes::new(taker.entries).map_err(|e| TakeError::Odd { path: String::new(), why: e.why })?;
    let tree = tree_id(mirror, base, &changes)?;
    let Taker { ignored, ignored_count, notes, .. } = taker;
    Ok(Taken { changes, tree, ignored, ignored_count, notes })
}

struct Taker<'a> {
    mirror: &'a Mirror,
    blobs: &'a dyn Blobs,
    limits: &'a TakeLimits,
    refuse: &'a dyn Fn(&[u8]) -> bool,
    rules: Vec<Rules>,
    /// Where the walk is; a directory's ends in a slash.
    path: Vec<u8>,
    entries: BTreeMap<TreePath, Entry>,
    bytes: u64,
    names: u64,
    ignored: Vec<String>,
    ignored_count: u64,
    notes: Vec<String>,
}

impl Taker<'_> {
    /// One directory, with the base's tree at the same path; `hidden` if a rule ignores it or one above it.
    fn folder(&mut self, dir: &Dir, base: Option<Oid>, depth: u64, hidden: bool) -> Result<(), TakeError> {
        let limit = self.limits.depth.min(DEEPEST as u64 - 1);
        self.bound("directories within each other", limit, depth)?;
        let mut old: BTreeMap<Vec<u8>, Line> = match base {
            Some(id) => self.mirror.tree(id)?.into_iter().collect(),
            None => BTreeMap::new(),
        };
        let rules = self.rules.len();
        if let Some(line) = old.get(b".gitignore".as_slice()).filter(|line| line.is_file()) {
            self.add_rules(line.id)?;
        }
        let room = usize::try_from(self.limits.names.saturating_sub(self.names)).unwrap_or(usize::MAX);
        let names = dir.names(room).map_err(self.io())?;
        self.names += names.len() as u64;
        self.bound("names", self.limits.names, self.names)?;
        let len = self.path.len();
        for name in names {
            self.path.extend_from_slice(&name);
            let kind = dir.kind(&name).map_err(self.io())?;
            if is_dot_git(&name) {
                if name != b".git" || depth > 0 {
                    self.note("a repository's own directory or file is left out");
                }
            } else if let Some(kind) = kind {
                let before = old.remove(&name);
                self.name(dir, &name, kind, before, depth, hidden)?;
            }
            self.path.truncate(len);
        }
        // What the base has and the listing has not.
        for (name, line) in old {
            self.path.extend_from_slice(&name);
            self.gone(&line)?;
            self.path.truncate(len);
        }
        self.rules.truncate(rules);
        Ok(())
    }

    fn name(
        &mut self,
        dir: &Dir,
        name: &[u8],
        kind: Kind,
        old: Option<Line>,
        depth: u64,
        hidden: bool,
    ) -> Result<(), TakeError> {
        if old.as_ref().is_some_and(|line| line.mode == GITLINK) {
            let empty =
                kind == Kind::Dir && dir.closed_child(name).and_then(|d| d.names(0)).map_err(self.io())?.is_empty();
            if !empty {
                self.note("it is a submodule: what lies there is left out");
            }
            return Ok(());
        }
        let subtree = old.as_ref().filter(|line| line.is_tree()).map(|line| line.id);
        let tracked = old.as_ref().is_some_and(|line| !line.is_tree());
        // Of a file that the base has, ignore rules have nothing to say; of a directory in its place they have.
        let asked = kind == Kind::Dir || !tracked;
        let hidden = hidden || (asked && ignored(&self.rules, &self.path, kind == Kind::Dir));
        match kind {
            Kind::Dir => {
                if let Some(line) = old.as_ref().filter(|_| tracked) {
                    self.gone(line)?;
                }
                if hidden && subtree.is_none() {
                    self.hide(true);
                    return Ok(());
                }
                let child = dir.closed_child(name).map_err(self.io())?;
                self.path.push(b'/');
                self.folder(&child, subtree, depth + 1, hidden)
            }
            Kind::Odd(what) => {
                self.note(&format!("it is {what} and is left out"));
                old.map_or(Ok(()), |line| self.gone(&line))
            }
            Kind::File | Kind::Link => {
                if let Some(line) = old.as_ref().filter(|line| line.is_tree()) {
                    self.gone(line)?;
                }
                if hidden && !tracked {
                    self.hide(false);
                    return Ok(());
                }
                if kind == Kind::Link { self.link(dir, name, old.as_ref()) } else { self.file(dir, name, old.as_ref()) }
            }
        }
    }

    fn file(&mut self, dir: &Dir, name: &[u8], old: Option<&Line>) -> Result<(), TakeError> {
        let file = dir.read_closed(name).map_err(self.io())?;
        let meta = file.metadata().map_err(self.io())?;
        if !meta.is_file() {
            return Err(TakeError::Odd { path: escape(&self.path), why: "it changed while it was read".to_owned() });
        }
        let executable = meta.mode() & 0o100 != 0;
        let limit = self.limits.file_bytes;
        let old = old.filter(|line| line.is_file());
        // A file that the base has at this length may be unchanged, however long it is.
        let allowed = match old {
            Some(line) if meta.len() > limit && self.mirror.blob_size(line.id)? == meta.len() => meta.len(),
            _ => limit,
        };
        self.bound("bytes of a changed file", allowed, meta.len())?;
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        file.take(allowed + 1).read_to_end(&mut bytes).map_err(self.io())?;
        let size = bytes.len() as u64;
        self.bound("bytes of a changed file", allowed, size)?;
        let oid = blob_id(&bytes)?;
        if old.is_some_and(|line| line.id == oid && line.executable() == executable) {
            return Ok(());
        }
        self.bound("bytes of a changed file", limit, size)?;
        self.count(size)?;
        let path = self.checked(&bytes)?;
        let blob = self.blobs.put(&bytes).map_err(|source| TakeError::Blobs { path: path.to_string(), source })?;
        self.entries.insert(path, Entry::File { blob, oid: public(oid), size, executable });
        Ok(())
    }

    fn link(&mut self, dir: &Dir, name: &[u8], old: Option<&Line>) -> Result<(), TakeError> {
        let target = dir.read_link(name).map_err(self.io())?;
        if let Some(line) = old
            && line.mode == LINK
            && line.id == blob_id(&target)?
        {
            return Ok(());
        }
        self.count(target.len() as u64)?;
        let path = self.checked(&target)?;
        self.entries.insert(path, Entry::Link { target });
        Ok(())
    }

    /// The path where the walk is, once neither it nor the content holds a secret.
    fn checked(&self, content: &[u8]) -> Result<TreePath, TakeError> {
        if (self.refuse)(&self.path) {
            return Err(TakeError::Secret { path: self.nameless() });
        }
        if (self.refuse)(content) {
            return Err(TakeError::Secret { path: escape(&self.path) });
        }
        TreePath::new(self.path.clone()).map_err(|e| TakeError::Odd { path: e.path, why: e.why.to_owned() })
    }

    /// A path that may be shown although a name in it holds a secret.
    fn nameless(&self) -> String {
        let mut shown = &self.path[..];
        while (self.refuse)(shown) {
            let trimmed = shown.strip_suffix(b"/").unwrap_or(shown);
            shown = trimmed.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &shown[..=slash]);
            if shown.is_empty() {
                break;
            }
        }
        format!("{}(a name)", escape(shown))
    }

    /// Marks what the base has at this path as gone.
    fn gone(&mut self, line: &Line) -> Result<(), TakeError> {
        if line.is_tree() {
            gone_below(self.mirror, line.id, &self.path, &mut self.entries)?;
        } else if line.mode != GITLINK {
            let path = TreePath::new(self.path.clone())
                .map_err(|e| GitError::Hostile { path: e.path, why: e.why.to_owned() })?;
            self.entries.insert(path, Entry::Gone);
        }
        Ok(())
    }

    fn add_rules(&mut self, id: Oid) -> Result<(), TakeError> {
        if self.mirror.blob_size(id)? > LARGEST_RULES {
            self.note("the base's .gitignore here is larger than 1 MiB and is not obeyed");
            return Ok(());
        }
        self.rules.extend(Rules::new(self.path.len(), &self.mirror.blob(id)?));
        Ok(())
    }

    fn hide(&mut self, is_dir: bool) {
        self.ignored_count += 1;
        if self.ignored.len() < LISTED {
            let shown = if (self.refuse)(&self.path) { self.nameless() } else { escape(&self.path) };
            self.ignored.push(if is_dir { shown + "/" } else { shown });
        }
    }

    fn note(&mut self, what: &str) {
        if self.notes.len() < LISTED {
            let shown = if (self.refuse)(&self.path) { self.nameless() } else { escape(&self.path) };
            self.notes.push(format!("`{shown}`: {what}"));
        }
    }

    fn count(&mut self, size: u64) -> Result<(), TakeError> {
        self.bytes += size;
        self.bound("bytes of changed files", self.limits.bytes, self.bytes)?;
        self.check_files()
    }

    fn check_files(&self) -> Result<(), TakeError> {
        // Of removed files there can be no more than the base has: they cost nothing to hold, and are counted at the end.
        self.bound("changed files", self.limits.files, self.entries.len() as u64)
    }

    fn bound(&self, what: &str, limit: u64, found: u64) -> Result<(), TakeError> {
        if found <= limit {
            return Ok(());
        }
        let shown =
            if (self.refuse)(&self.path) { self.nameless() } else { escape(&self.path[..self.path.len().min(200)]) };
        Err(TakeError::TooMuch { what: format!("{what} at `{shown}`"), limit, found })
    }

    fn io(&self) -> impl FnOnce(io::Error) -> TakeError + use<> {
        let path = escape(&self.path);
        move |source| TakeError::Io { path, source }
    }
}
