//! What can go wrong with repositories, each with the id or the path that it is about.
//!
//! Reading an agent's work tree and applying a patch have errors of their own beside this one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::Digest;
use crate::names::ObjectId;

/// Something is wrong with a repository, or with what was to be done with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The path is no repository.
    #[error("{path} is not a git repository: {why}")]
    NotARepository {
        /// What was to be opened.
        path: PathBuf,
        /// What is missing there.
        why: String,
    },
    /// The text is not a commit id.
    #[error("`{id}` is not a commit id: 8 to 40 hex digits are")]
    NotAnId {
        /// The text.
        id: String,
    },
    /// The text names no commit of the repository.
    #[error("`{text}` names no commit of {repository}")]
    NoRevision {
        /// The text.
        text: String,
        /// Where.
        repository: PathBuf,
    },
    /// The object is not in the repository.
    #[error("{id} is not in {repository}")]
    Missing {
        /// The id that was looked for.
        id: String,
        /// Where.
        repository: PathBuf,
    },
    /// More than one commit begins with these digits.
    #[error("{id} is ambiguous in {repository}: {candidates} commits begin with it; write more digits")]
    Ambiguous {
        /// The digits.
        id: String,
        /// Where.
        repository: PathBuf,
        /// How many commits begin with them.
        candidates: usize,
    },
    /// The id names an object that is not what is needed.
    #[error("{id} is a {found}, where a {wanted} is needed")]
    WrongKind {
        /// The id.
        id: ObjectId,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The commit has no such parent.
    #[error("{id} has {has} parent(s): there is no parent {parent}")]
    NoParent {
        /// The commit.
        id: ObjectId,
        /// The parent asked for, counted from 1.
        parent: u32,
        /// How many it has.
        has: usize,
    },
    /// The object is damaged.
    #[error("{id} cannot be read: {why}")]
    Damaged {
        /// The object.
        id: ObjectId,
        /// What is wrong.
        why: String,
    },
    /// libgit2 refused.
    #[error("{what}: {source}")]
    Libgit2 {
        /// What was being done, and to what.
        what: String,
        /// Its words.
        #[source]
        source: git2::Error,
    },
    /// A path that may not be written.
    #[error("`{path}` may not be written: {why}")]
    Hostile {
        /// The path, escaped.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A bound was reached.
    #[error("{what}: {found}, where at most {limit} are allowed")]
    TooMuch {
        /// What there is too much of, with the path or id.
        what: String,
        /// The bound.
        limit: u64,
        /// What was found, at least.
        found: u64,
    },
    /// Changes that contradict themselves or the blobs they name.
    #[error("the changes are not consistent at `{path}`: {why}")]
    Inconsistent {
        /// The path, escaped.
        path: String,
        /// What does not fit.
        why: String,
    },
    /// A blob that changes refer to is gone.
    #[error("the content of `{path}` ({digest}) is not in the store")]
    BlobMissing {
        /// The path, escaped.
        path: String,
        /// The blob.
        digest: Digest,
    },
    /// The store of blobs failed.
    #[error("the content of `{path}` cannot be stored or read: {source}")]
    Blobs {
        /// The path, escaped.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or directory of flow's own failed.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory to write into holds something.
    #[error("{path} is not empty")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The `git` program cannot be started.
    #[error("`git` cannot be started: {source}")]
    NoProgram {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The `git` program failed.
    #[error("`git {verb}` failed for {of}: {said}")]
    Program {
        /// Which command.
        verb: &'static str,
        /// The repository or stream.
        of: String,
        /// The end of what it wrote to stderr.
        said: String,
    },
    /// The `git` program, or waiting for another process's, took too long.
    #[error("`git {verb}` for {of} was stopped after {} s", limit.as_secs())]
    TimedOut {
        /// Which command.
        verb: &'static str,
        /// The repository or stream.
        of: String,
        /// The time it had.
        limit: Duration,
    },
    /// The stream file changed while it was read.
    #[error("{path} changed while it was imported")]
    StreamChanged {
        /// The stream.
        path: PathBuf,
    },
}

impl GitError {
    /// An error of the file system at `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// An error of libgit2 while doing `what`.
    pub(super) fn libgit2(what: impl Into<String>) -> impl FnOnce(git2::Error) -> Self {
        let what = what.into();
        move |source| Self::Libgit2 { what, source }
    }
}
