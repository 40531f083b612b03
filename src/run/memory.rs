//! What was asked of programs and files and need not be asked again: answers by the question, with the stat of whom in it.
//!
//! Derived: what is lost is asked again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::store::Store;

/// What probes answered, by what they were asked and the stat of whom.
pub(super) struct Memory {
    known: BTreeMap<String, Known>,
    changed: bool,
}

/// An answer, and when it was given.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Known {
    Dated {
        answer: String,
        at: Timestamp,
    },
    /// As flow once remembered them.
    Undated(String),
}

impl Known {
    fn now(answer: String) -> Self {
        Self::Dated { answer, at: Timestamp::now() }
    }

    pub(super) fn answer(&self) -> &str {
        match self {
            Self::Dated { answer, .. } | Self::Undated(answer) => answer,
        }
    }

    pub(super) fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Dated { at, .. } => Some(*at),
            Self::Undated(_) => None,
        }
    }
}

impl Memory {
    /// What was answered to a question.
    pub(super) fn recall(&self, question: &str) -> Option<Known> {
        self.known.get(question).cloned()
    }

    fn path(store: &Store) -> PathBuf {
        store.root.join("index").join("probes.json")
    }

    pub(super) fn load(store: &Store) -> Self {
        let bytes = crate::hostile::read_regular(&Self::path(store), 64 * 1024 * 1024).ok().flatten();
        let known = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { known, changed: false }
    }

    /// The digest of a file's bytes, which are read again only if its stat changed, and when they were.
    pub(super) fn bytes_of(&mut self, path: &Path, stat: &str) -> std::io::Result<(String, Option<Timestamp>)> {
        let question = Digest::of(format!("{}\n{stat}\nbytes", path.display()).as_bytes()).hex();
        let known = match self.known.get(&question) {
            Some(known) => known.clone(),
            None => self.learn(question, Digest::of_file(path)?.hex()),
        };
        Ok((known.answer().to_owned(), known.at()))
    }

    /// Remembers an answer.
    pub(super) fn learn(&mut self, question: String, answer: String) -> Known {
        let known = Known::now(answer);
        self.known.insert(question, known.clone());
        self.changed = true;
        known
    }

    /// Derived: if it cannot be written, probes are asked again next time.
    pub(super) fn save(&self, store: &Store) {
        if self.changed
            && let Ok(bytes) = serde_json::to_vec(&self.known)
        {
            let _ = crate::store::write_durable(&Self::path(store), &bytes);
        }
    }
}
