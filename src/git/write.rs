//! Writes trees into directories: a whole tree into an empty one, or changes over a work tree that is at the base.
//!
//! A writer of flow's own over git's objects: no index, no filters, no trace in the mirror. Every name is looked up relative to
//! an open directory and never through a link, so that nothing is written outside the destination.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::changes::{Blobs, Changes, Entry};
use super::dir::{Dir, Kind};
use super::error::GitError;
use super::merge::{Count, Item, check_target, content, merge, tree_path};
use super::mirror::Mirror;
use super::objects::{GITLINK, LINK, Line, check_name, private, too_deep};
use super::path::{DEEPEST, TreePath, escape};
use crate::names::ObjectId;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files and links.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Submodules: left as empty directories.
    pub submodules: Vec<TreePath>,
    /// Files that are pointers of git LFS: written as pointers.
    pub lfs: Vec<TreePath>,
}

/// Writes the files of base and changes into `dest`, an empty directory or one that is not there yet.
///
/// `cache` is a directory of inflated blobs that later calls copy from; it is filled on the way and may be deleted at any time.
///
/// # Errors
/// Missing objects, names or links that no tree may hold, a destination that is not empty, a full disk.
pub fn write_tree(
    mirror: &Mirror,
    base: &ObjectId,
    changes: &Changes,
    blobs: &dyn Blobs,
    dest: &Path,
    cache: Option<&Path>,
) -> Result<Written, GitError> {
    write(mirror, base, changes, blobs, dest, cache, None)
}

/// The same of some files alone, those that are named; there are no folders but theirs.
///
/// # Errors
/// As of [`write_tree`].
pub fn write_files(
    mirror: &Mirror,
    base: &ObjectId,
    changes: &Changes,
    blobs: &dyn Blobs,
    dest: &Path,
    cache: Option<&Path>,
    files: &BTreeSet<TreePath>,
) -> Result<Written, GitError> {
    write(mirror, base, changes, blobs, dest, cache, Some(files))
}

fn write(
    mirror: &Mirror,
    base: &ObjectId,
    changes: &Changes,
    blobs: &dyn Blobs,
    dest: &Path,
    cache: Option<&Path>,
    only: Option<&BTreeSet<TreePath>>,
) -> Result<Written, GitError> {
    let items = merge(mirror, private(base)?, changes)?;
    fs::create_dir_all(dest).map_err(GitError::io(dest))?;
    let dir = Dir::open(dest).map_err(GitError::io(dest))?;
    if !dir.names(0).map_err(GitError::io(dest))?.is_empty() {
        return Err(GitError::NotEmpty { path: dest.to_owned() });
    }
    let cache = cache.map(Cache::open).transpose()?;
    let mut writer = Writer { mirror, blobs, dest, only, cache, count: Count::default(), written: Written::default() };
    for (name, item) in &items {
        writer.item(&dir, name, item, &mut Vec::new(), 0)?;
    }
    Ok(writer.written)
}

struct Writer<'a> {
    mirror: &'a Mirror,
    blobs: &'a dyn Blobs,
    dest: &'a Path,
    /// The files to write; all if absent.
    only: Option<&'a BTreeSet<TreePath>>,
    cache: Option<Cache>,
    count: Count,
    written: Written,
}

impl Writer<'_> {
    fn io(&self, path: &[u8]) -> impl FnOnce(io::Error) -> GitError + use<> {
        let path = self.dest.join(escape(path));
        move |source| GitError::Io { path, source }
    }

    fn item(
        &mut self,
        dir: &Dir,
        name: &[u8],
        item: &Item<'_>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), GitError> {
        check_name(name, path)?;
        let len = path.len();
        path.extend_from_slice(name);
        let folder = match item {
            Item::Keep(line) => line.is_tree(),
            Item::Dir(_) => true,
            Item::New(_) => false,
        };
        if !self.wants(path, folder) {
            path.truncate(len);
            return Ok(());
        }
        match item {
            Item::Keep(line) => self.keep(dir, name, line, path, depth)?,
            Item::Dir(below) => {
                let child = dir.make(name).map_err(self.io(path))?;
                path.push(b'/');
                for (name, item) in below {
                    self.item(&child, name, item, path, depth + 1)?;
                }
            }
            Item::New(entry) => {
                let at = tree_path(path)?;
                let bytes = content(self.blobs, &at, entry)?;
                place(dir, name, entry, &bytes).map_err(self.io(path))?;
                self.tally(path, &bytes)?;
            }
        }
        path.truncate(len);
        Ok(())
    }

    /// Whether a file is to be written, or some file below a folder.
    fn wants(&self, path: &[u8], folder: bool) -> bool {
        let Some(only) = self.only else { return true };
        let Ok(path) = TreePath::new(path) else { return false };
        if !folder {
            return only.contains(&path);
        }
        let below = |file: &TreePath| file.as_bytes().get(path.as_bytes().len()) == Some(&b'/');
        // Names that sort between a folder and what is below it (`a-b` between `a` and `a/b`) are passed over.
        let from = only.range(path.clone()..).take_while(|file| file.as_bytes().starts_with(path.as_bytes()));
        from.into_iter().any(below)
    }

    fn keep(&mut self, dir: &Dir, name: &[u8], line: &Line, path: &mut Vec<u8>, depth: usize) -> Result<(), GitError> {
        if line.is_tree() {
            if depth >= DEEPEST {
                return Err(too_deep(path));
            }
            let child = dir.make(name).map_err(self.io(path))?;
            path.push(b'/');
            for (name, line) in self.mirror.tree(line.id)? {
                self.item(&child, &name, &Item::Keep(line), path, depth + 1)?;
            }
            return Ok(());
        }
        match line.mode {
            GITLINK => {
                dir.make(name).map_err(self.io(path))?;
                self.written.submodules.push(tree_path(path)?);
                self.count.one()
            }
            LINK => {
                let target = check_target(&tree_path(path)?, self.mirror.blob(line.id)?)?;
                dir.link(&target, name).map_err(self.io(path))?;
                self.written.files += 1;
                self.count.one()
            }
            _ if line.is_file() => self.file(dir, name, line, path),
            mode => Err(GitError::Hostile { path: escape(path), why: format!("mode {mode:o} is not a file's") }),
        }
    }

    fn file(&mut self, dir: &Dir, name: &[u8], line: &Line, path: &[u8]) -> Result<(), GitError> {
        let size = self.mirror.blob_size(line.id)?;
        // Small ones are read in any case: one of them may be a pointer of LFS.
        if size > 1024
            && let Some(cache) = &self.cache
            && let Some(mut kept) = cache.get(line, size)
        {
            let mut out = dir.create(name, line.executable()).map_err(self.io(path))?;
            let copied = io::copy(&mut kept, &mut out).map_err(self.io(path))?;
            if copied != size {
                let why = format!("{copied} of {size} bytes could be copied from the blob cache");
                return Err(self.io(path)(io::Error::other(why)));
            }
            self.written.files += 1;
            self.written.bytes += size;
            return self.count.one();
        }
        let bytes = match self.cache.as_ref().and_then(|cache| cache.small(line, size)) {
            Some(bytes) => bytes,
            None => {
                let bytes = self.mirror.blob(line.id)?;
                if let Some(cache) = &self.cache {
                    cache.put(line, &bytes);
                }
                bytes
            }
        };
        let mut out = dir.create(name, line.executable()).map_err(self.io(path))?;
        out.write_all(&bytes).map_err(self.io(path))?;
        self.tally(path, &bytes)
    }

    fn tally(&mut self, path: &[u8], bytes: &[u8]) -> Result<(), GitError> {
        self.written.files += 1;
        self.written.bytes += bytes.len() as u64;
        if bytes.len() <= 1024 && bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
            self.written.lfs.push(tree_path(path)?);
        }
        self.count.one()
    }
}

/// Makes a new file or link with this content.
fn place(dir: &Dir, name: &[u8], entry: &Entry, bytes: &[u8]) -> io::Result<()> {
    match entry {
        Entry::Gone => Ok(()),
        Entry::Link { target } => dir.link(target, name),
        Entry::File { executable, .. } => dir.create(name, *executable)?.write_all(bytes),
    }
}

/// Inflated blobs by git id. A failure to fill it costs time only, and is not an error: whoever fills the disk hears of it
/// from the destination.
struct Cache(PathBuf);

impl Cache {
    fn open(path: &Path) -> Result<Self, GitError> {
        fs::create_dir_all(path).map_err(GitError::io(path))?;
        Ok(Self(path.to_owned()))
    }

    fn place(&self, line: &Line) -> PathBuf {
        let hex = line.id.to_string();
        self.0.join(&hex[..2]).join(&hex[2..])
    }

    /// The cached file, if it has the length that the blob has: a torn one counts as absent.
    fn get(&self, line: &Line, size: u64) -> Option<File> {
        let file = File::open(self.place(line)).ok()?;
        (file.metadata().ok()?.len() == size).then_some(file)
    }

    fn small(&self, line: &Line, size: u64) -> Option<Vec<u8>> {
        if size > 1024 {
            return None;
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.get(line, size)?, &mut bytes).ok()?;
        (bytes.len() as u64 == size).then_some(bytes)
    }

    fn put(&self, line: &Line, bytes: &[u8]) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let temp = self.0.join(format!("tmp-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let place = self.place(line);
        let write = || -> io::Result<()> {
            fs::write(&temp, bytes)?;
            fs::rename(&temp, &place).or_else(|_| {
                place.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::rename(&temp, &place)
            })
        };
        if write().is_err() {
            let _ = fs::remove_file(&temp);
        }
    }
}

/// Makes `dir`, a work tree at the base, be base and changes. What is not named by a change is left alone.
///
/// # Errors
/// A path that leads through a link or a file, a directory that would have to go but holds more, missing content.
pub fn overlay(changes: &Changes, blobs: &dyn Blobs, dir: &Path) -> Result<(), GitError> {
    // All content is looked up before the first file is touched.
    let mut contents = Vec::new();
    for (path, entry) in changes.iter() {
        contents.push((path, entry, content(blobs, path, entry)?));
    }
    let root = Dir::open(dir).map_err(GitError::io(dir))?;
    let at = |path: &TreePath| dir.join(path.to_string());
    // The deepest first, so that a directory is empty when its turn comes.
    for (path, _, _) in contents.iter().rev().filter(|(_, entry, _)| **entry == Entry::Gone) {
        remove(&root, path).map_err(GitError::io(&at(path)))?;
    }
    for (path, entry, bytes) in contents.iter().filter(|(_, entry, _)| **entry != Entry::Gone) {
        put_over(&root, path, entry, bytes).map_err(GitError::io(&at(path)))?;
    }
    Ok(())
}

/// Removes a file or link and the directories that it leaves empty. One that is not there is gone already.
fn remove(root: &Dir, path: &TreePath) -> io::Result<()> {
    let names: Vec<&[u8]> = path.names().collect();
    let Some((last, above)) = names.split_last() else { return Ok(()) };
    let mut dirs: Vec<Dir> = Vec::with_capacity(above.len());
    for name in above {
        let dir = dirs.last().unwrap_or(root);
        match dir.kind(name)? {
            Some(Kind::Dir) => {}
            None => return Ok(()),
            Some(_) => return Err(io::Error::other("a directory on the way is a link or a file")),
        }
        let child = dir.child(name)?;
        dirs.push(child);
    }
    match dirs.last().unwrap_or(root).kind(last)? {
        None => return Ok(()),
        Some(Kind::Dir) => return Err(io::Error::other("it is a directory")),
        Some(_) => dirs.last().unwrap_or(root).remove(last)?,
    }
    while dirs.pop().is_some() {
        let name = above[dirs.len()];
        // Not empty: it stays, and so does all above it.
        if dirs.last().unwrap_or(root).remove_dir(name).is_err() {
            break;
        }
    }
    Ok(())
}

/// Puts a file or link in place of whatever file or link is there. A file is replaced and not written into: it may be
/// linked from elsewhere.
fn put_over(root: &Dir, path: &TreePath, entry: &Entry, bytes: &[u8]) -> io::Result<()> {
    let names: Vec<&[u8]> = path.names().collect();
    let Some((last, above)) = names.split_last() else { return Ok(()) };
    let mut inner: Option<Dir> = None;
    for name in above {
        let dir = inner.as_ref().unwrap_or(root);
        inner = Some(match dir.kind(name)? {
            Some(Kind::Dir) => dir.child(name)?,
            None => dir.make(name)?,
            Some(_) => return Err(io::Error::other("a directory on the way is a link or a file")),
        });
    }
    let dir = inner.as_ref().unwrap_or(root);
    match dir.kind(last)? {
        None => {}
        Some(Kind::Dir) => dir.remove_dir(last)?,
        Some(_) => dir.remove(last)?,
    }
    place(dir, last, entry, bytes)
}
