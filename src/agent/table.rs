//! The reading part of an adapter as typed values: which files say what.
//!
//! It is in no key. Its digest says by what an attempt was read, so that a changed table is seen.

use serde::{Deserialize, Serialize};

use super::pointer::Pointer;
use super::signature::{BUILT_IN, Pattern, Signature};
use crate::digest::Digest;
use crate::key::{KeyRecord, Value};
use crate::outcome::Cause;

/// Raised when the same table reads the same bytes otherwise.
const FORMAT: u32 = 3;
/// How many words of an argv tell one program from another: `flow act` plays several.
const PROGRAM: usize = 3;

/// How the outcome and the usage of an agent's attempts are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingTable {
    /// What shows that it did what it was to do; one is enough.
    pub finished: Vec<Finished>,
    /// Where the text of its error is: the first that finds something speaks.
    pub errors: Vec<ErrorReader>,
    /// Where stands what it waited for when it was stopped.
    pub stuck: Vec<Finder>,
    /// Where its tokens are: the first that finds something speaks.
    pub usage: Vec<UsageReader>,
    /// Where the ids are of the models that the provider answered with: all that are found.
    pub models: Vec<Finder>,
    /// Where its last words are.
    pub message: Vec<Finder>,
    /// Whether the agent calls no model: its tokens are 0, and known.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub free: bool,
    /// What its error's text means, before flow's own signatures are asked.
    pub signatures: Vec<Signature>,
}

impl ReadingTable {
    /// Whether it says how the outcome is read. Where it does not, only the exit code can tell.
    #[must_use]
    pub fn reads_outcomes(&self) -> bool {
        !self.finished.is_empty() || !self.errors.is_empty()
    }

    /// The digest of this table and of flow's own signatures.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // Texts, numbers and lists always have a JSON form.
        Digest::of(&serde_json::to_vec(&(FORMAT, BUILT_IN, self)).unwrap_or_default())
    }
}

/// A table and its digest, which is looked at far more often than it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    reading: ReadingTable,
    digest: Digest,
    /// The first words of the adapter's argv, as they stand in key records.
    program: Vec<String>,
}

impl Tables {
    /// The table of an adapter with this argv, with its digest.
    #[must_use]
    pub fn new(reading: ReadingTable, argv: impl Iterator<Item = String>) -> Self {
        let digest = reading.digest();
        Self { reading, digest, program: argv.take(PROGRAM).collect() }
    }

    /// Whether an action with this key record ran the adapter's program, so that its attempts can be read by the table.
    #[must_use]
    pub fn reads(&self, record: &KeyRecord) -> bool {
        matches!(record.get("argv"), Some(Value::List(argv)) if argv.iter().take(PROGRAM).eq(&self.program))
    }

    /// The table.
    #[must_use]
    pub fn reading(&self) -> &ReadingTable {
        &self.reading
    }

    /// By what is read.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new(ReadingTable::default(), std::iter::empty())
    }
}

/// How a file is looked into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON document.
    Json,
    /// A JSON document a line; what else stands in the file is passed over.
    Jsonl {
        /// What a line begins with before its JSON.
        prefix: String,
    },
    /// Plain text.
    Text {
        /// The last match of this, and of it the first group that took part; without it, the end of the text.
        pattern: Option<Pattern>,
    },
}

/// What a document must say to be looked into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Where.
    pub at: Pointer,
    /// One of these must stand there.
    pub values: Vec<serde_json::Value>,
    /// None of them may stand there.
    pub not: bool,
}

/// Finds text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finder {
    /// The file's name: `stdout`, `stderr`, or one that is kept.
    pub file: String,
    /// How it is looked into.
    pub format: Format,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// What is taken of a document: of each the last that says something, joined.
    pub at: Vec<Pointer>,
}

/// Shows that an agent did what it was to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// What must be found.
    pub finder: Finder,
    /// The exit code that it must have ended with, where that matters too.
    pub exit: Option<i32>,
}

/// Finds the text of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReader {
    /// Where.
    pub finder: Finder,
    /// What it means, whatever it says.
    pub cause: Option<Cause>,
    /// What it means in words, where what is found there is no error's text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub says: Option<String>,
}

/// Whether an agent's figure of input holds what was read from the cache and written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cached {
    /// It does.
    Inside,
    /// It does not.
    Beside,
}

/// Which of several figures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// The last: they are totals.
    Last,
    /// All: each is of one reply.
    Sum,
}

/// Finds tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReader {
    /// Where the figures stand. Of text, groups of its pattern are named as the figures are.
    pub finder: Finder,
    /// Which of them count.
    pub take: Take,
    /// What tells one reply from another: of figures with one value here the last counts.
    pub unique: Option<Pointer>,
    /// Whether input holds what was cached.
    pub cached: Cached,
    /// Within the figures: the first of these that is a number.
    pub input: Vec<Pointer>,
    /// The same.
    pub output: Vec<Pointer>,
    /// The same.
    pub cache_read: Vec<Pointer>,
    /// The same.
    pub cache_write: Vec<Pointer>,
    /// Where a document tells how many replies of the model there were; with `*` what it finds is counted.
    pub calls: Option<Pointer>,
    /// Whether a file that is there and holds no figures means that no reply was finished.
    pub none_is_zero: bool,
    /// Causes after which something paid for is not in the figures.
    pub misses: Vec<Cause>,
}
