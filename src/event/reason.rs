//! Why a run executes an action, as its journal keeps it. Does not find it out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::{ActionKey, Change};
use crate::names::RunId;

/// Why an action is executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// `new`, `changed`, `retry`, `adopted`.
    pub state: String,
    /// The key of the nearest earlier record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nearest: Option<ActionKey>,
    /// What differs from it, blame first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub changes: Vec<Change>,
    /// The changed ingredients (where nothing like it was run before, all) that are outputs of other actions, and the numbers of those in the plan.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub from: Vec<(String, usize)>,
    /// What was compared with, where that is not simply what the action had in the newest run of its manifest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compared: Option<Compared>,
    /// Why nothing or less can be said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub because: Option<String>,
}

impl Reason {
    /// One of which only the state is said.
    #[must_use]
    pub fn new(state: &str) -> Self {
        Self {
            state: state.to_owned(),
            nearest: None,
            changes: Vec::new(),
            from: Vec::new(),
            compared: None,
            because: None,
        }
    }
}

/// What a miss is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The run that had it.
    pub run: RunId,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<Timestamp>,
    /// That run's manifest, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<String>,
    /// What the candidate was called there, where it had another name, and why that is taken for true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub renamed: Option<String>,
}
