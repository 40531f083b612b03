//! What is known of where a change comes from, as it is told. Follows nothing.

use jiff::Timestamp;
use serde::Serialize;

/// Who brought a change, when and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    /// The commit's id; null while it is not committed.
    pub commit: Option<String>,
    /// Its author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// When it was made; of what is not committed, when the file was last written.
    pub date: Option<Timestamp>,
    /// The first line of its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The file, relative to the project.
    pub path: Option<String>,
    /// The line in it, from 1.
    pub line: Option<usize>,
    /// How long ago a file that is not committed was last written, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<i64>,
    /// It was committed only after the run that is explained had used it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uncommitted_then: bool,
    /// It was edited for the run that is explained, and no commit has it so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never_committed: bool,
    /// Commits before it that brought a part of the same change, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Origin>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub and_more: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "it is what serde calls")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What is known of where a change comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Traced {
    /// This brought it.
    To(Origin),
    /// No commit is named, and why.
    No(String),
    /// It is an output of an action upstream.
    Upstream,
}
