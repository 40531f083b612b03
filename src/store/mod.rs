//! The store: blobs by content, records of attempts, what is derived from them, and the locks on both.
//!
//! Plain files are the truth: `cas/v1` and `records/v1`. All that is in `index` is derived and may be deleted at any time.
//! What an attempt means, and what may be collected, is not decided here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod cas;
pub mod files;
pub mod index;
mod index_cache;
mod index_lookup;
pub mod locks;
pub mod pins;
pub mod points;
mod readings;
pub mod records;
#[cfg(test)]
mod tests;

pub use cas::Cas;
pub use files::{read_bounded, write_durable};
pub use index::{Index, near_hash};
pub use locks::{KeyLock, KeyLocks, RunLock, begun};
pub use pins::{Alone, InUse, Unpinned};
pub use points::{Earlier, Settled};
pub use records::{RecordWriter, Records, read_records};

/// What went wrong with the store. Every variant says where.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be written to.
    #[error("the store {} cannot be written: {source}; point --cache at a folder that can, or change its permissions", path.display())]
    ReadOnly {
        /// The store's root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// More than the reader was ready to take.
    #[error("{} has {len} bytes, more than the {max} allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// Bytes that were to be kept under a digest have another.
    #[error("{} was to be written with content of another digest, {found}", path.display())]
    OtherDigest {
        /// Where the blob would have lain.
        path: PathBuf,
        /// What the bytes have.
        found: crate::digest::Digest,
    },
    /// A file of a run that is there already.
    #[error("{} exists: two runs have one name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Somebody takes things away from it.
    #[error("`flow gc` has been clearing the store {} for ten minutes; wait until it has ended", path.display())]
    Cleared {
        /// The store's root.
        path: PathBuf,
    },
    /// An earlier write failed in a way after which nothing more can be promised.
    #[error("{} takes no more, because an earlier write of it was lost: {why}", path.display())]
    Broken {
        /// What is broken.
        path: PathBuf,
        /// The first failure.
        why: String,
    },
}

impl StoreError {
    /// For `map_err`: adds what was tried and on what.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    /// Whether the disk or the quota is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let (Self::Io { source, .. } | Self::ReadOnly { source, .. }) = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A part of the store that cannot be believed: it is treated as absent and has to be said aloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The line of it, from 1, where it has lines.
    pub line: Option<u64>,
    /// What is wrong with it, and what was done about it.
    pub why: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// Whether the system lets nothing be written there.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    /// The folder it lies in.
    pub root: PathBuf,
    /// Its blobs.
    pub cas: Arc<Cas>,
    /// Its locks on action keys.
    pub locks: KeyLocks,
    readings: readings::Readings,
    pins: pins::Pins,
    /// Of a store that is only read, nobody is kept from taking things away.
    in_use: Option<InUse>,
}

const FOLDERS: [&str; 6] = ["cas/v1", "records/v1", "runs", "index", "locks", "tmp"];

const CACHEDIR_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# This folder holds results of flow; backups may leave it out.\n";

impl Store {
    /// Opens the store, making the folders it lacks.
    ///
    /// # Errors
    /// If it cannot be made or written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let refused = |source: io::Error| StoreError::ReadOnly { path: root.to_owned(), source };
        let new = !root.join("records/v1").is_dir();
        for folder in FOLDERS {
            std::fs::create_dir_all(root.join(folder)).map_err(refused)?;
        }
        for (name, text) in [(".gitignore", "*\n"), ("CACHEDIR.TAG", CACHEDIR_TAG)] {
            if let Err(error) = files::create_new(&root.join(name), text.as_bytes(), 0o644)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(refused(error));
            }
        }
        if new {
            // What is synced within them later is worth nothing if their own names are lost.
            let above = root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            for folder in [above, root, &root.join("cas"), &root.join("records")] {
                files::sync_dir(folder)?;
            }
        }
        // Before anything lies in it that somebody could take for left behind.
        let in_use = InUse::take(root).map_err(|error| match error {
            StoreError::Io { source, .. } if is_refusal(&source) => refused(source),
            other => other,
        })?;
        // Folders may be there and yet refuse: said now, not after an hour of an agent's work.
        let probe = files::temp_path(root, "probe");
        files::create_new(&probe, b"", 0o600).map_err(refused)?;
        std::fs::remove_file(&probe).map_err(refused)?;
        let locks = KeyLocks::open(root)?;
        Ok(Self { locks, in_use: Some(in_use), ..Self::to_read(root) })
    }

    /// Opens the store to read what it holds. Touches nothing, so that one on a disk that cannot be written serves, and one
    /// that is not there is empty. What needs to write finds out when it does.
    #[must_use]
    pub fn to_read(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            cas: Arc::new(Cas::open(root)),
            locks: KeyLocks::of(root),
            readings: readings::Readings::default(),
            pins: pins::Pins::default(),
            in_use: None,
        }
    }

    /// Holds a thing that may be made again, an environment by the name of its folder, until this process ends: nobody takes it
    /// away meanwhile. To be done before it is looked at whether it is there. Says whether it is held.
    pub fn hold(&self, name: &str) -> bool {
        // Who only reads executes nothing that could miss it.
        self.in_use.is_none() || self.pins.hold(&self.root, name)
    }

    /// Where bare mirrors of repositories lie.
    #[must_use]
    pub fn mirrors(&self) -> PathBuf {
        self.root.join("mirrors")
    }

    /// Where sealed packs lie, one a base tree. Derived.
    #[must_use]
    pub fn packs(&self) -> PathBuf {
        self.root.join("index/packs")
    }

    /// Where inflated git blobs lie, so that a tree is written faster the second time. Derived.
    #[must_use]
    pub fn inflated(&self) -> PathBuf {
        self.root.join("index/inflated")
    }

    /// Where built environments lie.
    #[must_use]
    pub fn envs(&self) -> PathBuf {
        self.root.join("envs")
    }

    /// Where fetched assets lie.
    #[must_use]
    pub fn assets(&self) -> PathBuf {
        self.root.join("assets")
    }

    /// Where attempts work.
    #[must_use]
    pub fn places(&self) -> PathBuf {
        self.root.join("tmp/places")
    }

    /// What a folder within `tmp` is renamed to before it is removed.
    #[must_use]
    pub fn trash(&self, dir: &Path) -> PathBuf {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files::temp_path(&self.root, &format!("trash-{name}"))
    }
}

#[cfg(test)]
mod opening {
    use super::*;

    #[test]
    fn a_fresh_store_is_ignored_by_git_and_by_backups_and_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/cache");
        Store::open(&root).unwrap();
        assert_eq!(std::fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
        assert!(std::fs::read_to_string(root.join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f59"));
        std::fs::write(root.join(".gitignore"), "*\n!.gitignore\n").unwrap();
        Store::open(&root).unwrap();
        assert_eq!(std::fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n!.gitignore\n");
        assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_store_that_cannot_be_written_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        // A file in the way refuses root too.
        let text = Store::open(&file.join("cache")).unwrap_err().to_string();
        assert!(text.contains("file/cache") && text.contains("cannot be written"), "{text}");
        let text = Store::open(Path::new("/proc/flow-store")).unwrap_err().to_string();
        assert!(text.contains("/proc/flow-store"), "{text}");
    }
}
