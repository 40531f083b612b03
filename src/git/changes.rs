//! A tree as its difference from another tree, and that difference as one canonical blob.
//!
//! Holds paths and the digests of contents, never contents: those are [`Blobs`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::Deserialize;

use super::path::{TreePath, escape, unescape};
use crate::digest::Digest;
use crate::names::ObjectId;

/// Where the contents of changed files live. The store's CAS implements it.
pub trait Blobs {
    /// Keeps these bytes and says their sha256.
    ///
    /// # Errors
    /// What the file system gives.
    fn put(&self, bytes: &[u8]) -> io::Result<Digest>;

    /// The bytes of a digest, if they are there.
    ///
    /// # Errors
    /// What the file system gives.
    fn get(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>>;
}

/// What became of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is not there any more.
    Gone,
    /// It is a regular file.
    File {
        /// Its content in [`Blobs`].
        blob: Digest,
        /// Its content's id in git.
        oid: ObjectId,
        /// Its length in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// It is a symbolic link to these bytes, wherever they point.
    Link {
        /// Where it points, unresolved.
        target: Vec<u8>,
    },
}

/// The difference of a tree from a base tree: what is new, changed or gone, by path.
///
/// Submodule entries are never part of it: they stay as the base has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<TreePath, Entry>);

/// The bytes are not the canonical form of changes.
#[derive(Debug, thiserror::Error)]
#[error("these bytes are no list of changes: {why}")]
pub struct BadChanges {
    /// What is wrong.
    pub why: String,
}

const FORMAT: u32 = 1;

impl Changes {
    /// Changes from their entries.
    ///
    /// # Errors
    /// If a file or link lies at a path within which another one lies.
    pub fn new(entries: BTreeMap<TreePath, Entry>) -> Result<Self, BadChanges> {
        for (path, entry) in &entries {
            if *entry == Entry::Gone {
                continue;
            }
            let bytes = path.as_bytes();
            for (slash, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'/') {
                let above = TreePath::new(&bytes[..slash]).map_err(|e| BadChanges { why: e.to_string() })?;
                if entries.get(&above).is_some_and(|e| *e != Entry::Gone) {
                    return Err(BadChanges { why: format!("`{path}` lies within `{above}`, which is a file") });
                }
            }
        }
        Ok(Self(entries))
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many paths changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The changed paths, sorted by bytes.
    pub fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.0.keys()
    }

    /// The changed paths with what became of each.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Entry)> {
        self.0.iter()
    }

    /// What became of one path, if it changed.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.0.get(path)
    }

    /// The blobs that hold the contents.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.0.values().filter_map(|entry| match entry {
            Entry::File { blob, .. } => Some(blob),
            Entry::Gone | Entry::Link { .. } => None,
        })
    }

    /// A link that is absolute or leads above the tree's root.
    #[must_use]
    pub fn leaving_link(&self) -> Option<&TreePath> {
        let leaves = |path: &TreePath, target: &[u8]| {
            let mut depth = path.names().count() - 1;
            if target.starts_with(b"/") {
                return true;
            }
            target.split(|byte| *byte == b'/').any(|part| match part {
                b"" | b"." => false,
                b".." if depth == 0 => true,
                b".." => {
                    depth -= 1;
                    false
                }
                _ => {
                    depth += 1;
                    false
                }
            })
        };
        self.0.iter().find_map(|(path, entry)| match entry {
            Entry::Link { target } if leaves(path, target) => Some(path),
            _ => None,
        })
    }

    /// The changes but those whose path `drop` names, and the paths that were dropped, escaped.
    #[must_use]
    pub fn without(&self, drop: &dyn Fn(&TreePath) -> bool) -> (Self, Vec<String>) {
        let mut kept = BTreeMap::new();
        let mut dropped = Vec::new();
        for (path, entry) in &self.0 {
            if drop(path) {
                dropped.push(path.to_string());
            } else {
                kept.insert(path.clone(), entry.clone());
            }
        }
        (Self(kept), dropped)
    }

    /// The canonical form: JSON, sorted by path, the same bytes for the same changes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Canonical(self).to_string().into_bytes()
    }

    /// Reads the canonical form, and nothing else.
    ///
    /// # Errors
    /// Says what is wrong: no JSON, another format, a hostile path, or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadChanges> {
        let bad = |why: String| BadChanges { why };
        let file: Document = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if file.changes != FORMAT {
            return Err(bad(format!("format {} is not known: {FORMAT} is", file.changes)));
        }
        let mut entries = BTreeMap::new();
        for row in file.paths {
            let path: TreePath = row.path.parse().map_err(|e: super::path::BadPath| bad(e.to_string()))?;
            let entry = row.what.read().map_err(|why| bad(format!("at `{path}`: {why}")))?;
            entries.insert(path, entry);
        }
        let changes = Self::new(entries)?;
        // Order, duplicates, spelling and blank space in one comparison: equal changes have equal bytes.
        if changes.encode() == bytes { Ok(changes) } else { Err(bad("it is not in canonical form".to_owned())) }
    }
}

/// Writes the canonical form, by hand: its bytes must not depend on the version of a library.
struct Canonical<'a>(&'a Changes);

impl fmt::Display for Canonical<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"changes\":{FORMAT},\"paths\":[")?;
        for (i, (path, entry)) in self.0.0.iter().enumerate() {
            f.write_str(if i == 0 { "\n" } else { ",\n" })?;
            write!(f, "{{\"path\":{},", Quoted(&path.to_string()))?;
            match entry {
                Entry::Gone => f.write_str("\"is\":\"gone\"")?,
                Entry::File { blob, oid, size, executable } => write!(
                    f,
                    "\"is\":\"{}\",\"blob\":\"{blob}\",\"oid\":\"{oid}\",\"size\":{size}",
                    if *executable { "executable" } else { "file" },
                )?,
                Entry::Link { target } => write!(f, "\"is\":\"link\",\"target\":{}", Quoted(&escape(target)))?,
            }
            f.write_str("}")?;
        }
        f.write_str("\n]}\n")
    }
}

/// A JSON string of text that holds no control characters, as escaped text does not.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    changes: u32,
    paths: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    path: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
enum What {
    Gone,
    File { blob: Digest, oid: ObjectId, size: u64 },
    Executable { blob: Digest, oid: ObjectId, size: u64 },
    Link { target: String },
}

impl What {
    fn read(self) -> Result<Entry, &'static str> {
        let file = |blob, oid: ObjectId, size, executable| {
            let fine = oid.as_str().len() == 40 && oid.as_str().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if fine { Ok(Entry::File { blob, oid, size, executable }) } else { Err("the id is not 40 hex digits") }
        };
        match self {
            Self::Gone => Ok(Entry::Gone),
            Self::File { blob, oid, size } => file(blob, oid, size, false),
            Self::Executable { blob, oid, size } => file(blob, oid, size, true),
            Self::Link { target } => {
                let target = unescape(&target).ok_or("the link's target is not well escaped")?;
                if target.is_empty() || target.contains(&0) || target.len() > 4095 {
                    return Err("the link's target is empty, too long, or holds a NUL");
                }
                Ok(Entry::Link { target })
            }
        }
    }
}
