//! How the files of a run stood in their project's repository when it began. Reads none of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::ObjectId;
use crate::text::harmless;

/// How a manifest and the files that it names stood in their project's repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The commit that was checked out; `None` before the first one.
    pub commit: Option<ObjectId>,
    /// The files that were not as the commit has them, relative to the project, at most 50.
    pub dirty: Vec<String>,
    /// The content of each of them as it was used, or none of one that was gone: so that a later commit of it is known. Runs of an
    /// older flow have nothing here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub as_used: BTreeMap<String, Option<Digest>>,
    /// The files that no commit of the project can hold, at most 50: they lie elsewhere, or git ignores them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
}

impl GitState {
    /// What of it a reader of the run's results has to know: that some files are in no commit. `None` if all are.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let listed = |files: &[String]| match files {
            [] => None,
            [first] => Some(first.clone()),
            [first, rest @ ..] => Some(format!("{first} and {} more", rest.len())),
        };
        let dirty = listed(&self.dirty).map(|files| match &self.commit {
            Some(commit) => format!("{files}: not as commit {} has it", commit.as_str().get(..8).unwrap_or_default()),
            None => format!("{files}: in no commit"),
        });
        let outside = listed(&self.outside).map(|files| format!("not in git: {files}"));
        let said = match (dirty, outside) {
            (None, None) => return None,
            (Some(dirty), None) => {
                format!("{dirty}; until that is committed as it was, nobody else can make this run again")
            }
            (None, Some(outside)) => format!("{outside}; nobody else can make this run again"),
            (Some(dirty), Some(outside)) => format!("{dirty}; {outside}; nobody else can make this run again"),
        };
        Some(harmless(&format!("UNCOMMITTED: {said}")))
    }

    /// The same where a later commit is known to have all that was not committed then; `by` says which.
    #[must_use]
    pub fn committed_since(&self, by: &str) -> Option<String> {
        let first = self.dirty.first().filter(|_| self.outside.is_empty())?;
        let more = match self.dirty.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        Some(harmless(&format!("UNCOMMITTED then: {first}{more}; committed since as it was, {by}")))
    }
}
