//! Applies a unified diff to a plain directory: for the scripted agent.
//!
//! The patch is somebody's file, and the directory may hold anything: hostile paths are refused, no link is written through, and
//! nothing is touched unless the whole patch applies. No `git` program, no repository on disk.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb};

use super::changes::{Blobs, Changes, Entry};
use super::diff::{in_memory, keep};
use super::dir::{Dir, Kind};
use super::error::GitError;
use super::merge::{Item, Items, tree_of, tree_path};
use super::objects::{LINK, Line, blob_id, public};
use super::patch_text::{absolute, with_git_headers};
use super::path::{DEEPEST, TreePath, escape};
use super::write::overlay;
use crate::digest::Digest;

/// The largest file that a patch may change.
const LARGEST: u64 = 64 << 20;

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It is no unified diff.
    #[error("this is no unified diff: {why}")]
    NotAPatch {
        /// What libgit2 says.
        why: String,
    },
    /// It names a path that may not be written.
    #[error("the patch may not touch `{path}`: {why}")]
    Hostile {
        /// The path, escaped.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// It does not fit what the directory holds.
    #[error("the patch does not apply to {dir}: {why}")]
    DoesNotApply {
        /// The directory.
        dir: PathBuf,
        /// What libgit2 says.
        why: String,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The result could not be written.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// Applies `patch` to the files in `dir`, all of it or nothing.
///
/// # Errors
/// See [`ApplyError`]. An error of the file system while the result is written may leave a part of it.
pub fn apply_to_dir(patch: &[u8], dir: &Path) -> Result<(), ApplyError> {
    let repository = in_memory(Odb::new().map_err(GitError::libgit2("making an object database in memory"))?)?;
    if let Some(line) = absolute(patch) {
        return Err(ApplyError::Hostile { path: escape(line.trim_ascii()), why: "it is absolute".to_owned() });
    }
    let patch = with_git_headers(patch);
    let parsed = git2::Diff::from_buffer(&patch).map_err(|e| ApplyError::NotAPatch { why: e.message().to_owned() })?;
    let mut paths = BTreeSet::new();
    let mut written = BTreeSet::new();
    for delta in parsed.deltas() {
        if delta.status() != git2::Delta::Deleted
            && let Some(bytes) = delta.new_file().path_bytes()
        {
            written.insert(bytes.to_vec());
        }
        for bytes in [delta.old_file().path_bytes(), delta.new_file().path_bytes()].into_iter().flatten() {
            let path = TreePath::new(bytes).map_err(|e| ApplyError::Hostile { path: e.path, why: e.why.to_owned() })?;
            paths.insert(path);
        }
    }
    for path in &written {
        let above = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(slash, _)| &path[..slash]);
        if let Some(file) = above.into_iter().find(|above| written.contains(*above)) {
            let why = format!("the same patch makes `{}` a file or a link", escape(file));
            return Err(ApplyError::Hostile { path: escape(path), why });
        }
    }
    if paths.is_empty() {
        return Err(ApplyError::NotAPatch { why: "it changes no file".to_owned() });
    }

    let git = |what: &str| GitError::libgit2(format!("{what} for {}", dir.display()));
    let odb = repository.odb().map_err(git("opening objects in memory"))?;
    let root = Dir::open(dir).map_err(|source| ApplyError::Io { path: dir.to_owned(), source })?;
    let mut before: BTreeMap<TreePath, Line> = BTreeMap::new();
    let mut in_the_way = BTreeMap::new();
    for path in &paths {
        match read(&root, path, dir)? {
            Found::Content(mode, bytes) => {
                let id = blob_id(&bytes)?;
                keep(&odb, id, ObjectType::Blob, &bytes)?;
                before.insert(path.clone(), Line { mode, zero: false, id });
            }
            Found::Blocked(by) => {
                in_the_way.insert(path.clone(), by);
            }
            Found::Nothing => {}
        }
    }
    let tree = tree_of(&nest(&before), &mut |id, raw| keep(&odb, id, ObjectType::Tree, raw))?;
    let tree = repository.find_tree(tree).map_err(git("reading a tree in memory"))?;
    let refuse = |e: git2::Error| ApplyError::DoesNotApply { dir: dir.to_owned(), why: e.message().to_owned() };
    let index = repository.apply_to_tree(&tree, &parsed, None).map_err(refuse)?;

    // Where a patch is silent about the mode, as that of a mere renaming is, libgit2 makes the file an ordinary one.
    let mut silent = BTreeMap::new();
    for delta in parsed.deltas().filter(|d| !matches!(d.status(), git2::Delta::Added | git2::Delta::Deleted)) {
        let (old, new) = (delta.old_file(), delta.new_file());
        if let Some((old, new)) = old.path_bytes().zip(new.path_bytes())
            && delta.new_file().mode() == git2::FileMode::Unreadable
            && let Some(line) = before.get(&tree_path(old)?)
        {
            silent.insert(tree_path(new)?, line.mode);
        }
    }
    let memory = Memory::default();
    let mut after = BTreeMap::new();
    for mut entry in index.iter() {
        let path = TreePath::new(std::mem::take(&mut entry.path))
            .map_err(|e| ApplyError::Hostile { path: e.path, why: e.why.to_owned() })?;
        entry.mode = silent.get(&path).copied().unwrap_or(entry.mode);
        let old = before.remove(&path);
        if old.as_ref().is_some_and(|line| line.id == entry.id && line.mode == entry.mode) {
            continue;
        }
        let object = odb.read(entry.id).map_err(git("reading a patched file"))?;
        let bytes = object.data();
        let new = if entry.mode == LINK {
            if bytes.is_empty() || bytes.len() > 4095 || bytes.contains(&0) {
                return Err(ApplyError::Hostile { path: path.to_string(), why: "no link can point there".to_owned() });
            }
            Entry::Link { target: bytes.to_vec() }
        } else if entry.mode & 0o170_000 == 0o100_000 {
            let blob = memory.put(bytes).map_err(|source| ApplyError::Io { path: dir.to_owned(), source })?;
            Entry::File { blob, oid: public(entry.id), size: bytes.len() as u64, executable: entry.mode & 0o100 != 0 }
        } else {
            let why = format!("mode {:o} is neither a file's nor a link's", entry.mode);
            return Err(ApplyError::Hostile { path: path.to_string(), why });
        };
        after.insert(path, new);
    }
    after.extend(before.into_keys().map(|path| (path, Entry::Gone)));
    for (path, by) in &in_the_way {
        if after.get(by).is_none_or(|entry| *entry != Entry::Gone) {
            let why = format!("`{by}` on the way is no directory, and may be a symbolic link");
            return Err(ApplyError::Hostile { path: path.to_string(), why });
        }
    }
    for (path, _) in after.iter().filter(|(_, entry)| **entry != Entry::Gone) {
        if !makes_room(&root, path, &after).map_err(|source| ApplyError::Io { path: dir.to_owned(), source })? {
            let why = format!("`{path}` is a directory that holds more than the patch removes");
            return Err(ApplyError::DoesNotApply { dir: dir.to_owned(), why });
        }
    }
    let changes = Changes::new(after).map_err(|e| ApplyError::DoesNotApply { dir: dir.to_owned(), why: e.why })?;
    Ok(overlay(&changes, &memory, dir)?)
}

/// What the directory holds at a path.
enum Found {
    /// A file or link: its mode and its content.
    Content(u32, Vec<u8>),
    /// Nothing, because the way there leads through this, which is no directory.
    Blocked(TreePath),
    /// Nothing.
    Nothing,
}

fn read(root: &Dir, path: &TreePath, dir: &Path) -> Result<Found, ApplyError> {
    let io = |source: io::Error| ApplyError::Io { path: dir.join(path.to_string()), source };
    let names: Vec<&[u8]> = path.names().collect();
    let Some((last, above)) = names.split_last() else { return Ok(Found::Nothing) };
    let mut inner: Option<Dir> = None;
    for (i, name) in above.iter().enumerate() {
        let here = inner.as_ref().unwrap_or(root);
        match here.kind(name).map_err(io)? {
            Some(Kind::Dir) => inner = Some(here.child(name).map_err(io)?),
            None => return Ok(Found::Nothing),
            Some(_) => return Ok(Found::Blocked(tree_path(&above[..=i].join(&b'/'))?)),
        }
    }
    let here = inner.as_ref().unwrap_or(root);
    match here.kind(last).map_err(io)? {
        Some(Kind::File) => {
            let file = here.read(last).map_err(io)?;
            let meta = file.metadata().map_err(io)?;
            let mut bytes = Vec::new();
            if !meta.is_file() || file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)? as u64 > LARGEST {
                return Err(io(io::Error::other("it is no regular file of at most 64 MiB")));
            }
            Ok(Found::Content(if meta.mode() & 0o100 != 0 { 0o100_755 } else { 0o100_644 }, bytes))
        }
        Some(Kind::Link) => Ok(Found::Content(LINK, here.read_link(last).map_err(io)?)),
        Some(Kind::Dir | Kind::Odd(_)) | None => Ok(Found::Nothing),
    }
}

/// Whether the patch removes all that lies where it puts a file.
fn makes_room(root: &Dir, path: &TreePath, after: &BTreeMap<TreePath, Entry>) -> io::Result<bool> {
    let mut inner: Option<Dir> = None;
    for name in path.names() {
        let here = inner.as_ref().unwrap_or(root);
        match here.kind(name)? {
            Some(Kind::Dir) => inner = Some(here.child(name)?),
            _ => return Ok(true),
        }
    }
    inner.map_or(Ok(true), |dir| emptied(&dir, path.as_bytes(), after, 0))
}

fn emptied(dir: &Dir, path: &[u8], after: &BTreeMap<TreePath, Entry>, depth: usize) -> io::Result<bool> {
    let names = dir.names(after.len())?;
    // More names than changes: one of them stays. An empty directory within would stay as well.
    if names.len() > after.len() || depth > DEEPEST || (names.is_empty() && depth > 0) {
        return Ok(false);
    }
    for name in names {
        let path = [path, b"/", &name[..]].concat();
        let goes = match dir.kind(&name)? {
            Some(Kind::Dir) => emptied(&dir.child(&name)?, &path, after, depth + 1)?,
            _ => TreePath::new(path).is_ok_and(|path| after.get(&path) == Some(&Entry::Gone)),
        };
        if !goes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Files by path as a tree of names. No path lies within another: a file system held them all at once.
fn nest(files: &BTreeMap<TreePath, Line>) -> Items<'static> {
    let mut root = Items::new();
    for (path, line) in files {
        let names: Vec<&[u8]> = path.names().collect();
        nest_one(&mut root, &names, line);
    }
    root
}

fn nest_one(items: &mut Items<'static>, names: &[&[u8]], line: &Line) {
    match names {
        [] => {}
        [last] => {
            items.insert(last.to_vec(), Item::Keep(line.clone()));
        }
        [first, rest @ ..] => {
            if let Item::Dir(below) = items.entry(first.to_vec()).or_insert_with(|| Item::Dir(Items::new())) {
                nest_one(below, rest, line);
            }
        }
    }
}

/// Contents for as long as one call lasts.
#[derive(Default)]
struct Memory(RefCell<HashMap<Digest, Vec<u8>>>);

impl Blobs for Memory {
    fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        self.0.borrow_mut().insert(digest, bytes.to_vec());
        Ok(digest)
    }

    fn get(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().get(digest).cloned())
    }
}
