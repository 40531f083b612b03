//! Reads single objects, with bounds: a repository may be made to exhaust memory.
//!
//! Trees are parsed here and not by libgit2, so that the raw mode survives and hostile names are seen.

use std::collections::BTreeSet;
use std::path::Path;

use git2::{ErrorCode, ObjectType, Oid};

use super::error::GitError;
use super::mirror::Mirror;
use super::path::{DEEPEST, escape};
use crate::names::ObjectId;

/// The largest object that is read.
const LARGEST: u64 = 1 << 30;
/// The most files or objects of one tree: a tree of trees may name billions with a few objects.
pub(super) const MOST_FILES: u64 = 2_000_000;

/// The mode of a directory.
pub(super) const TREE: u32 = 0o040_000;
/// The mode of a symbolic link.
pub(super) const LINK: u32 = 0o120_000;
/// The mode of a submodule.
pub(super) const GITLINK: u32 = 0o160_000;

/// One line of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The mode's number.
    pub(super) mode: u32,
    /// Whether the mode was written with a leading zero, as old tools did: the tree's id depends on it.
    pub(super) zero: bool,
    /// The object.
    pub(super) id: Oid,
}

impl Line {
    /// Whether it is a directory.
    pub(super) fn is_tree(&self) -> bool {
        self.mode == TREE
    }

    /// Whether it is a regular file.
    pub(super) fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// Whether it is a file that may be executed.
    pub(super) fn executable(&self) -> bool {
        self.is_file() && self.mode & 0o100 != 0
    }
}

/// The id as the rest of flow has it.
pub(super) fn public(id: Oid) -> ObjectId {
    ObjectId::new(id.to_string())
}

/// The id as libgit2 has it.
pub(super) fn private(id: &ObjectId) -> Result<Oid, GitError> {
    let text = id.as_str();
    let refuse = || GitError::NotAnId { id: text.chars().take(80).collect() };
    if text.len() != 40 {
        return Err(refuse());
    }
    Oid::from_str(text).map_err(|_| refuse())
}

/// The id of a blob with this content.
pub(super) fn blob_id(bytes: &[u8]) -> Result<Oid, GitError> {
    Oid::hash_object(ObjectType::Blob, bytes).map_err(GitError::libgit2("hashing a blob"))
}

impl Mirror {
    /// The error for an object that could not be read.
    pub(super) fn unread(&self, id: Oid, error: &git2::Error) -> GitError {
        if error.code() == ErrorCode::NotFound {
            GitError::Missing { id: id.to_string(), repository: self.path().to_owned() }
        } else {
            GitError::Damaged { id: public(id), why: error.message().to_owned() }
        }
    }

    /// Size and kind of an object.
    pub(super) fn header(&self, id: Oid) -> Result<(u64, ObjectType), GitError> {
        let (size, kind) = self.odb.read_header(id).map_err(|e| self.unread(id, &e))?;
        Ok((size as u64, kind))
    }

    /// The size of a blob, which is one that may be read.
    pub(super) fn blob_size(&self, id: Oid) -> Result<u64, GitError> {
        let (size, kind) = self.header(id)?;
        expect_kind(id, kind, ObjectType::Blob, "blob")?;
        if size > LARGEST {
            return Err(GitError::TooMuch { what: format!("bytes of blob {id}"), limit: LARGEST, found: size });
        }
        Ok(size)
    }

    /// The content of a blob.
    pub(super) fn blob(&self, id: Oid) -> Result<Vec<u8>, GitError> {
        self.blob_size(id)?;
        let object = self.odb.read(id).map_err(|e| self.unread(id, &e))?;
        Ok(object.data().to_vec())
    }

    /// The raw bytes of an object that is not a blob.
    pub(super) fn raw(&self, id: Oid, kind: ObjectType, word: &'static str) -> Result<Vec<u8>, GitError> {
        const LARGEST_TREE: u64 = 64 << 20;
        let (size, found) = self.header(id)?;
        expect_kind(id, found, kind, word)?;
        if size > LARGEST_TREE {
            return Err(GitError::TooMuch { what: format!("bytes of {word} {id}"), limit: LARGEST_TREE, found: size });
        }
        let object = self.odb.read(id).map_err(|e| self.unread(id, &e))?;
        Ok(object.data().to_vec())
    }

    /// The lines of a tree, in its own order.
    pub(super) fn tree(&self, id: Oid) -> Result<Vec<(Vec<u8>, Line)>, GitError> {
        let raw = self.raw(id, ObjectType::Tree, "tree")?;
        parse_tree(&raw)
            .ok_or_else(|| GitError::Damaged { id: public(id), why: "the tree cannot be parsed".to_owned() })
    }
}

fn expect_kind(id: Oid, found: ObjectType, wanted: ObjectType, word: &'static str) -> Result<(), GitError> {
    if found == wanted {
        Ok(())
    } else {
        Err(GitError::WrongKind { id: public(id), found: found.to_string(), wanted: word })
    }
}

/// `mode SP name NUL id` as often as it comes.
fn parse_tree(mut raw: &[u8]) -> Option<Vec<(Vec<u8>, Line)>> {
    let mut lines = Vec::new();
    while !raw.is_empty() {
        let space = raw.iter().take(8).position(|b| *b == b' ')?;
        let mode = std::str::from_utf8(&raw[..space]).ok()?;
        let zero = mode.starts_with('0');
        let mode = u32::from_str_radix(mode, 8).ok()?;
        raw = &raw[space + 1..];
        let nul = raw.iter().position(|b| *b == 0)?;
        let name = raw[..nul].to_vec();
        let id = Oid::from_bytes(raw.get(nul + 1..nul + 21)?).ok()?;
        raw = &raw[nul + 21..];
        lines.push((name, Line { mode, zero, id }));
    }
    Some(lines)
}

/// The ids of a tree and of all that it holds; submodules are not objects of this repository and are left out.
///
/// # Errors
/// Objects that are missing, damaged, or too many.
pub fn objects_of_tree(mirror: &Mirror, tree: &ObjectId) -> Result<BTreeSet<ObjectId>, GitError> {
    Ok(ids_of_tree(mirror, private(tree)?)?.into_iter().map(|(id, _)| public(id)).collect())
}

/// The same with each one's kind: trees before what they hold.
pub(super) fn ids_of_tree(mirror: &Mirror, tree: Oid) -> Result<Vec<(Oid, ObjectType)>, GitError> {
    let mut seen = BTreeSet::from([tree]);
    let mut ids = vec![(tree, ObjectType::Tree)];
    let mut at = 0;
    while let Some((id, kind)) = ids.get(at).copied() {
        at += 1;
        if kind != ObjectType::Tree {
            continue;
        }
        for (_, line) in mirror.tree(id)? {
            if line.mode != GITLINK && seen.insert(line.id) {
                ids.push((line.id, if line.is_tree() { ObjectType::Tree } else { ObjectType::Blob }));
            }
        }
        if ids.len() as u64 > MOST_FILES {
            return Err(GitError::TooMuch {
                what: format!("objects of tree {tree}"),
                limit: MOST_FILES,
                found: ids.len() as u64,
            });
        }
    }
    Ok(ids)
}

/// All ids in a repository's object database, alternates included: the proof that a sealed repository holds nothing else.
///
/// # Errors
/// A directory that is no repository, or a database that cannot be read.
pub fn objects_in(git_dir: &Path) -> Result<BTreeSet<ObjectId>, GitError> {
    let mirror = Mirror::at(git_dir)?;
    let mut ids = BTreeSet::new();
    mirror
        .odb
        .foreach(|id| {
            ids.insert(public(*id));
            true
        })
        .map_err(GitError::libgit2(format!("listing the objects of {}", git_dir.display())))?;
    Ok(ids)
}

impl Mirror {
    /// Those of some objects that this repository holds, and which of them are commits.
    #[must_use]
    pub fn holds(&self, ids: &BTreeSet<ObjectId>) -> (Vec<ObjectId>, Vec<ObjectId>) {
        let (mut held, mut commits) = (Vec::new(), Vec::new());
        for id in ids {
            let Ok((_, kind)) = private(id).and_then(|id| self.header(id)) else { continue };
            held.push(id.clone());
            if kind == ObjectType::Commit {
                commits.push(id.clone());
            }
        }
        (held, commits)
    }
}

/// What is done with each file, link and submodule of a tree, by path.
pub(super) type Each<'a> = dyn FnMut(&[u8], &Line) -> Result<(), GitError> + 'a;

/// Calls `each` for every file, link and submodule of a tree, with its path; refuses hostile names.
pub(super) fn each_line(
    mirror: &Mirror,
    tree: Oid,
    prefix: &mut Vec<u8>,
    count: &mut u64,
    each: &mut Each<'_>,
) -> Result<(), GitError> {
    let depth = prefix.iter().filter(|b| **b == b'/').count();
    if depth > DEEPEST {
        return Err(too_deep(prefix));
    }
    for (name, line) in mirror.tree(tree)? {
        let len = prefix.len();
        check_name(&name, prefix)?;
        prefix.extend_from_slice(&name);
        if line.is_tree() {
            prefix.push(b'/');
            each_line(mirror, line.id, prefix, count, each)?;
        } else {
            count_file(count)?;
            each(prefix, &line)?;
        }
        prefix.truncate(len);
    }
    Ok(())
}

/// One more file of a tree.
pub(super) fn count_file(count: &mut u64) -> Result<(), GitError> {
    *count += 1;
    if *count > MOST_FILES {
        return Err(GitError::TooMuch { what: "files of a tree".to_owned(), limit: MOST_FILES, found: *count });
    }
    Ok(())
}

/// The error for a tree that nests without end.
pub(super) fn too_deep(path: &[u8]) -> GitError {
    GitError::TooMuch {
        what: format!("directories within each other at `{}`", escape(&path[..path.len().min(80)])),
        limit: DEEPEST as u64,
        found: DEEPEST as u64 + 1,
    }
}

/// Refuses a name that a tree of a hostile repository holds.
pub(super) fn check_name(name: &[u8], prefix: &[u8]) -> Result<(), GitError> {
    match super::path::refused_name(name) {
        None => Ok(()),
        Some(why) => Err(GitError::Hostile { path: escape(&[prefix, name].concat()), why: why.to_owned() }),
    }
}
