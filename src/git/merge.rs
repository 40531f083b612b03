//! A base tree with changes laid over it: as a plan that writers follow, and as a git tree id; and two trees as changes.
//!
//! Everything is computed in memory. Where base and changes contradict each other (a file where the base has a directory)
//! the changes win.

use std::collections::BTreeMap;

use git2::{ObjectType, Oid};

use super::changes::{Blobs, Changes, Entry};
use super::error::GitError;
use super::mirror::Mirror;
use super::objects::{
    GITLINK, LINK, Line, TREE, blob_id, check_name, count_file, each_line, private, public, too_deep,
};
use super::path::{DEEPEST, TreePath, escape};
use super::take::TakeLimits;
use crate::digest::Digest;
use crate::names::ObjectId;

/// One name of a merged directory.
pub(super) enum Item<'c> {
    /// As the base has it.
    Keep(Line),
    /// As the changes have it; never [`Entry::Gone`].
    New(&'c Entry),
    /// A directory with changes somewhere below; never empty.
    Dir(Items<'c>),
}

/// A merged directory, sorted by name.
pub(super) type Items<'c> = BTreeMap<Vec<u8>, Item<'c>>;

/// Changes as a tree of names.
#[derive(Default)]
struct Node<'c> {
    here: Option<&'c Entry>,
    below: BTreeMap<&'c [u8], Node<'c>>,
}

/// The base tree with the changes laid over it. Subtrees without a change are kept unread.
pub(super) fn merge<'c>(mirror: &Mirror, base: Oid, changes: &'c Changes) -> Result<Items<'c>, GitError> {
    let mut root = Node::default();
    for (path, entry) in changes.iter() {
        let mut node = &mut root;
        for name in path.names() {
            node = node.below.entry(name).or_default();
        }
        node.here = Some(entry);
    }
    merge_dir(mirror, Some(base), &root)
}

fn merge_dir<'c>(mirror: &Mirror, base: Option<Oid>, node: &Node<'c>) -> Result<Items<'c>, GitError> {
    let mut items: Items<'c> = match base {
        Some(id) => mirror.tree(id)?.into_iter().map(|(name, line)| (name, Item::Keep(line))).collect(),
        None => Items::new(),
    };
    for (name, change) in &node.below {
        let old = match items.get(*name) {
            Some(Item::Keep(line)) => Some(line.clone()),
            _ => None,
        };
        // A submodule stays as it is: nothing within it is this repository's.
        if old.as_ref().is_some_and(|line| line.mode == GITLINK) {
            continue;
        }
        if let Some(entry @ (Entry::File { .. } | Entry::Link { .. })) = change.here {
            items.insert(name.to_vec(), Item::New(entry));
            continue;
        }
        let subtree = old.as_ref().filter(|line| line.is_tree()).map(|line| line.id);
        if change.here.is_some() && subtree.is_none() {
            items.remove(*name);
        }
        if change.below.is_empty() {
            continue;
        }
        let below = merge_dir(mirror, subtree, change)?;
        if !below.is_empty() {
            items.insert(name.to_vec(), Item::Dir(below));
        } else if subtree.is_some() {
            items.remove(*name);
        }
    }
    Ok(items)
}

/// What is done with the bytes of a tree that was computed.
pub(super) type Keep<'a> = dyn FnMut(Oid, &[u8]) -> Result<(), GitError> + 'a;

/// The id of a merged directory. `keep` is given the bytes of each tree that was not in the base, and may store them.
pub(super) fn tree_of(items: &Items<'_>, keep: &mut Keep<'_>) -> Result<Oid, GitError> {
    let mut lines = Vec::with_capacity(items.len());
    for (name, item) in items {
        let line = match item {
            Item::Keep(line) => line.clone(),
            Item::New(Entry::File { oid, executable, .. }) => {
                Line { mode: if *executable { 0o100_755 } else { 0o100_644 }, zero: false, id: private(oid)? }
            }
            Item::New(Entry::Link { target }) => Line { mode: LINK, zero: false, id: blob_id(target)? },
            Item::New(Entry::Gone) => continue,
            Item::Dir(below) => Line { mode: TREE, zero: false, id: tree_of(below, keep)? },
        };
        lines.push((name, line));
    }
    // git sorts a directory as if its name ended in a slash.
    let order = |name: &[u8], line: &Line| {
        let mut key = name.to_vec();
        if line.is_tree() {
            key.push(b'/');
        }
        key
    };
    lines.sort_by_cached_key(|(name, line)| order(name, line));
    let mut raw = Vec::new();
    for (name, line) in lines {
        raw.extend_from_slice(format!("{}{:o} ", if line.zero { "0" } else { "" }, line.mode).as_bytes());
        raw.extend_from_slice(name);
        raw.push(0);
        raw.extend_from_slice(line.id.as_bytes());
    }
    let id = Oid::hash_object(ObjectType::Tree, &raw).map_err(GitError::libgit2("hashing a tree"))?;
    keep(id, &raw)?;
    Ok(id)
}

/// The git tree id of the base with the changes. Nothing is written anywhere.
///
/// # Errors
/// Objects of the base that are missing or damaged.
pub fn tree_id(mirror: &Mirror, base: &ObjectId, changes: &Changes) -> Result<ObjectId, GitError> {
    if changes.is_empty() {
        return Ok(base.clone());
    }
    let items = merge(mirror, private(base)?, changes)?;
    Ok(public(tree_of(&items, &mut |_, _| Ok(()))?))
}

/// The content of a changed file, checked against all that the changes say of it.
pub(super) fn content(blobs: &dyn Blobs, path: &TreePath, entry: &Entry) -> Result<Vec<u8>, GitError> {
    match entry {
        Entry::Gone => Ok(Vec::new()),
        Entry::Link { target } => Ok(target.clone()),
        Entry::File { blob, oid, size, .. } => {
            let bytes = blobs
                .get(blob)
                .map_err(|source| GitError::Blobs { path: path.to_string(), source })?
                .ok_or_else(|| GitError::BlobMissing { path: path.to_string(), digest: *blob })?;
            let differs = |why: &str| GitError::Inconsistent { path: path.to_string(), why: why.to_owned() };
            if bytes.len() as u64 != *size {
                return Err(differs("the blob's length differs"));
            }
            // The git id is in the tree id that keys rest on; one that lies would be found nowhere else.
            if blob_id(&bytes)? != private(oid)? {
                return Err(differs("the blob's git id differs"));
            }
            Ok(bytes)
        }
    }
}

/// The difference of two trees of one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Between {
    /// What differs, submodules aside.
    pub changes: Changes,
    /// Submodules that were added, removed or moved to another commit: changes cannot hold them, so they are named here.
    pub submodules: Vec<TreePath>,
}

/// The difference from one tree to another, contents kept in `blobs`: the human's own change.
///
/// # Errors
/// Missing objects, hostile names, more than `limits` allow.
pub fn changes_between(
    mirror: &Mirror,
    from: &ObjectId,
    to: &ObjectId,
    blobs: &dyn Blobs,
    limits: &TakeLimits,
) -> Result<Between, GitError> {
    let mut walk = Walk { mirror, blobs, limits, entries: BTreeMap::new(), submodules: Vec::new(), bytes: 0, files: 0 };
    walk.trees(Some(private(from)?), Some(private(to)?), &mut Vec::new(), 0)?;
    walk.submodules.sort();
    walk.submodules.dedup();
    let changes =
        Changes::new(walk.entries).map_err(|e| GitError::Inconsistent { path: format!("{from}..{to}"), why: e.why })?;
    Ok(Between { changes, submodules: walk.submodules })
}

struct Walk<'a> {
    mirror: &'a Mirror,
    blobs: &'a dyn Blobs,
    limits: &'a TakeLimits,
    entries: BTreeMap<TreePath, Entry>,
    submodules: Vec<TreePath>,
    bytes: u64,
    files: u64,
}

impl Walk<'_> {
    fn trees(
        &mut self,
        from: Option<Oid>,
        to: Option<Oid>,
        prefix: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), GitError> {
        if depth > DEEPEST {
            return Err(too_deep(prefix));
        }
        let read = |id: Option<Oid>| -> Result<BTreeMap<Vec<u8>, Line>, GitError> {
            id.map_or_else(|| Ok(BTreeMap::new()), |id| Ok(self.mirror.tree(id)?.into_iter().collect()))
        };
        let (mut old, new) = (read(from)?, read(to)?);
        for (name, line) in new {
            let before = old.remove(&name);
            if before.as_ref() == Some(&line) {
                continue;
            }
            self.within(&name, prefix, |walk, prefix| walk.pair(before.as_ref(), Some(&line), prefix, depth))?;
        }
        for (name, line) in old {
            self.within(&name, prefix, |walk, prefix| walk.pair(Some(&line), None, prefix, depth))?;
        }
        Ok(())
    }

    fn within(
        &mut self,
        name: &[u8],
        prefix: &mut Vec<u8>,
        run: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), GitError>,
    ) -> Result<(), GitError> {
        check_name(name, prefix)?;
        let len = prefix.len();
        prefix.extend_from_slice(name);
        let end = run(self, prefix);
        prefix.truncate(len);
        end
    }

    fn pair(
        &mut self,
        old: Option<&Line>,
        new: Option<&Line>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), GitError> {
        let subtree = |line: Option<&Line>| line.filter(|l| l.is_tree()).map(|l| l.id);
        if [old, new].into_iter().flatten().any(|line| line.mode == GITLINK) {
            self.submodules.push(tree_path(path)?);
        }
        let is_leaf = |line: &&Line| !line.is_tree() && line.mode != GITLINK;
        match (old.filter(is_leaf), new.filter(is_leaf)) {
            // 100664 of old repositories means what 100644 means.
            (Some(a), Some(b)) if a.id == b.id && a.is_file() && b.is_file() && a.executable() == b.executable() => {}
            (_, Some(line)) => self.put(path, line)?,
            (Some(_), None) => {
                self.entries.insert(tree_path(path)?, Entry::Gone);
            }
            (None, None) => {}
        }
        let (from, to) = (subtree(old), subtree(new));
        if (from.is_some() || to.is_some()) && from != to {
            path.push(b'/');
            self.trees(from, to, path, depth + 1)?;
        }
        Ok(())
    }

    fn put(&mut self, path: &[u8], line: &Line) -> Result<(), GitError> {
        self.files += 1;
        let size = self.mirror.blob_size(line.id)?;
        self.bytes += size;
        let over = |what: &str, limit: u64, found: u64| {
            let what = format!("{what} at `{}`", escape(path));
            if found > limit { Err(GitError::TooMuch { what, limit, found }) } else { Ok(()) }
        };
        over("changed files", self.limits.files, self.files)?;
        over("bytes of a changed file", self.limits.file_bytes, size)?;
        over("bytes of changed files", self.limits.bytes, self.bytes)?;
        let bytes = self.mirror.blob(line.id)?;
        let path = tree_path(path)?;
        let entry = if line.mode == LINK {
            Entry::Link { target: check_target(&path, bytes)? }
        } else {
            let blob: Digest =
                self.blobs.put(&bytes).map_err(|source| GitError::Blobs { path: path.to_string(), source })?;
            Entry::File { blob, oid: public(line.id), size, executable: line.executable() }
        };
        self.entries.insert(path, entry);
        Ok(())
    }
}

/// A link's target, which the system could make.
pub(super) fn check_target(path: &TreePath, target: Vec<u8>) -> Result<Vec<u8>, GitError> {
    if target.is_empty() || target.len() > 4095 || target.contains(&0) {
        let why = "the link's target is empty, too long, or holds a NUL".to_owned();
        return Err(GitError::Hostile { path: path.to_string(), why });
    }
    Ok(target)
}

/// A path within a repository's tree, checked.
pub(super) fn tree_path(bytes: &[u8]) -> Result<TreePath, GitError> {
    TreePath::new(bytes).map_err(|e| GitError::Hostile { path: e.path, why: e.why.to_owned() })
}

/// All paths of a tree but submodules, for those that become [`Entry::Gone`].
pub(super) fn gone_below(
    mirror: &Mirror,
    tree: Oid,
    prefix: &[u8],
    entries: &mut BTreeMap<TreePath, Entry>,
) -> Result<(), GitError> {
    let mut prefix = [prefix, b"/"].concat();
    each_line(mirror, tree, &mut prefix, &mut 0, &mut |path, line| {
        if line.mode != GITLINK {
            entries.insert(tree_path(path)?, Entry::Gone);
        }
        Ok(())
    })
}

/// Counts the files of one walk, so that a tree that names itself over and over ends.
#[derive(Default)]
pub(super) struct Count(u64);

impl Count {
    /// One more.
    pub(super) fn one(&mut self) -> Result<(), GitError> {
        count_file(&mut self.0)
    }
}
