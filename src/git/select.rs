//! The files of a tree, as they are or with changes laid over them, that somebody asks for: by name, mode and content.
//!
//! Reads trees alone, no content. What it lists `write_files` writes.

use std::collections::BTreeMap;

use super::changes::{Changes, Entry};
use super::error::GitError;
use super::merge::{Item, Items, merge, tree_path};
use super::mirror::Mirror;
use super::objects::{GITLINK, LINK, Line, MOST_FILES, blob_id, check_name, private, public, too_deep};
use super::path::{DEEPEST, TreePath};
use crate::names::ObjectId;

/// A file of a tree: what it is, and the git id of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The mode, as git writes it: `100644`, `100755`, `120000`, or `160000` of a submodule.
    pub mode: u32,
    /// The content; of a submodule its commit, which is in another repository.
    pub id: ObjectId,
}

/// The files of base and changes that `wanted` wants, by path. A submodule is one line: its own path, or something below
/// it, is asked for.
///
/// # Errors
/// Missing or damaged objects, names that no tree may hold, too many files.
pub fn select(
    mirror: &Mirror,
    base: &ObjectId,
    changes: &Changes,
    wanted: &dyn Fn(&TreePath) -> bool,
) -> Result<BTreeMap<TreePath, Selected>, GitError> {
    let items = merge(mirror, private(base)?, changes)?;
    let mut walk = Walk { mirror, wanted, seen: 0, found: BTreeMap::new() };
    walk.items(&items, &mut Vec::new(), 0)?;
    Ok(walk.found)
}

struct Walk<'a> {
    mirror: &'a Mirror,
    wanted: &'a dyn Fn(&TreePath) -> bool,
    seen: u64,
    found: BTreeMap<TreePath, Selected>,
}

impl Selected {
    /// Whether it is a submodule, of which nothing is written.
    #[must_use]
    pub fn is_submodule(&self) -> bool {
        self.mode == GITLINK
    }
}

impl Walk<'_> {
    fn items(&mut self, items: &Items<'_>, path: &mut Vec<u8>, depth: usize) -> Result<(), GitError> {
        for (name, item) in items {
            match item {
                Item::Keep(line) => self.line(name, line, path, depth)?,
                Item::Dir(below) => self.within(name, path, |walk, path| {
                    path.push(b'/');
                    walk.items(below, path, depth + 1)
                })?,
                Item::New(Entry::Gone) => {}
                Item::New(Entry::File { oid, executable, .. }) => {
                    let mode = if *executable { 0o100_755 } else { 0o100_644 };
                    self.within(name, path, |walk, path| walk.file(path, mode, oid.clone()))?;
                }
                Item::New(Entry::Link { target }) => {
                    let id = public(blob_id(target)?);
                    self.within(name, path, |walk, path| walk.file(path, LINK, id))?;
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, name: &[u8], line: &Line, path: &mut Vec<u8>, depth: usize) -> Result<(), GitError> {
        self.within(name, path, |walk, path| {
            if line.is_tree() {
                if depth >= DEEPEST {
                    return Err(too_deep(path));
                }
                path.push(b'/');
                for (name, line) in walk.mirror.tree(line.id)? {
                    walk.line(&name, &line, path, depth + 1)?;
                }
                return Ok(());
            }
            match line.mode {
                GITLINK => walk.submodule(path, public(line.id)),
                LINK => walk.file(path, LINK, public(line.id)),
                // 100664 of old repositories means what 100644 means.
                _ => walk.file(path, if line.executable() { 0o100_755 } else { 0o100_644 }, public(line.id)),
            }
        })
    }

    fn within(
        &mut self,
        name: &[u8],
        path: &mut Vec<u8>,
        run: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), GitError>,
    ) -> Result<(), GitError> {
        check_name(name, path)?;
        let len = path.len();
        path.extend_from_slice(name);
        let end = run(self, path);
        path.truncate(len);
        end
    }

    fn submodule(&mut self, path: &[u8], id: ObjectId) -> Result<(), GitError> {
        // Which files it holds is not known here: a glob may name one of them, or the whole.
        let within = tree_path(&[path, b"/_"].concat())?;
        let path = tree_path(path)?;
        if (self.wanted)(&path) || (self.wanted)(&within) {
            self.found.insert(path, Selected { mode: GITLINK, id });
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], mode: u32, id: ObjectId) -> Result<(), GitError> {
        self.seen += 1;
        if self.seen > MOST_FILES {
            return Err(GitError::TooMuch { what: "files".into(), limit: MOST_FILES, found: self.seen });
        }
        let path = tree_path(path)?;
        if (self.wanted)(&path) {
            self.found.insert(path, Selected { mode, id });
        }
        Ok(())
    }
}
