//! Taking the files that a manifest names: each is read once when the plan is made, so that an edit during a run belongs to
//! the next one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::manifest::Version;

/// Files larger than this are refused: the manifest's files are scripts, prompts and patches.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Everything that was read, by path and by digest.
#[derive(Debug, Default)]
pub struct Intake {
    version: Version,
    paths: BTreeMap<PathBuf, Option<Digest>>,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Intake {
    /// Nothing yet, to be taken from a version of the project's files.
    #[must_use]
    pub fn of(version: Version) -> Self {
        Self { version, ..Self::default() }
    }

    /// Whether the version has a folder at a path.
    #[must_use]
    pub fn is_dir(&self, path: &Path) -> bool {
        self.version.is_dir(path)
    }

    /// The files that were taken, by the path that was asked for.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.paths.iter().filter_map(|(path, digest)| Some((path.as_path(), self.get(digest.as_ref()?)?)))
    }

    /// Takes the file at `path`; `None` if there is none.
    ///
    /// # Errors
    /// If it is there but is no regular file, cannot be read, or is larger than 256 MiB.
    pub fn file(&mut self, path: &Path) -> io::Result<Option<Digest>> {
        if let Some(known) = self.paths.get(path) {
            return Ok(*known);
        }
        let digest = match self.version.read(path, LARGEST) {
            Ok(bytes) => Some(self.bytes(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
            Err(error) => return Err(error),
        };
        self.paths.insert(path.to_owned(), digest);
        Ok(digest)
    }

    /// Takes bytes that come from no file of their own: a rendered prompt.
    pub fn bytes(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// What was taken.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&[u8]> {
        self.blobs.get(digest).map(Vec::as_slice)
    }

    /// All that was taken.
    pub fn blobs(&self) -> impl Iterator<Item = (&Digest, &[u8])> {
        self.blobs.iter().map(|(digest, bytes)| (digest, bytes.as_slice()))
    }
}
