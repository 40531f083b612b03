//! Names and ids, each a type of its own, and the characters they may have.
//!
//! Does not say what a name refers to: the plan and the store do.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The text may not be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing at all.
    #[error("a name may not be empty")]
    Empty,
    /// Longer than 80 bytes.
    #[error("`{0}…` is longer than 80 characters")]
    Long(String),
    /// A character that would not survive in a path, a job name or a template.
    #[error(
        "`{name}` holds `{found}`: letters, digits, `-`, `_`, `.`, `+` and `@` may stand in a name, and it begins with a letter or a digit"
    )]
    Character {
        /// The whole text.
        name: String,
        /// The first character refused.
        found: char,
    },
}

/// Checks that `text` can be a name: it appears in job names, globs and file names.
///
/// # Errors
/// Says which character is refused.
pub fn check_name(text: &str) -> Result<(), BadName> {
    if text.is_empty() {
        return Err(BadName::Empty);
    }
    if text.len() > 80 {
        return Err(BadName::Long(text.chars().take(40).collect()));
    }
    for (i, c) in text.chars().enumerate() {
        let fine = c.is_ascii_alphanumeric() || (i > 0 && matches!(c, '-' | '_' | '.' | '+' | '@'));
        if !fine {
            return Err(BadName::Character { name: text.to_owned(), found: c });
        }
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is; readers of hostile text call `check_name` first.
            #[must_use]
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

name_type!(
    /// The name of a step of the manifest.
    StepName
);
name_type!(
    /// The name of a candidate.
    CandidateName
);
name_type!(
    /// The name of a provider of models.
    ProviderName
);
name_type!(
    /// The name of a repository in the manifest.
    RepoName
);
name_type!(
    /// What one `flow run` is called: the UTC time of its start and a random tail, so that names sort by time.
    RunId
);
name_type!(
    /// One attempt of one action: its run and a number within it, `20261121T030405Z-1a2b-17`.
    AttemptId
);
name_type!(
    /// A kind of slot (`gpu`, `cpu`), as `holds` names it.
    SlotKind
);
name_type!(
    /// A git object id as 40 hex digits: a commit, a tree or a blob.
    ObjectId
);
name_type!(
    /// The name of a job: `repo/commit8/candidate/sample`.
    JobId
);

impl ObjectId {
    /// The first eight digits, for people and for file names.
    #[must_use]
    pub fn id8(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

/// What distinguishes the actions of one step from each other, in printing order: `repo`, `commit`, `candidate`, `sample`
/// and the manifest's own axes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Axes(pub std::collections::BTreeMap<String, String>);

impl Axes {
    /// The value on one axis.
    #[must_use]
    pub fn get(&self, axis: &str) -> Option<&str> {
        self.0.get(axis).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert!(check_name("trae-sonnet4.5_x").is_ok());
        assert_eq!(check_name(""), Err(BadName::Empty));
        for bad in ["../x", "a/b", "-x", "a b", "ä", ".x"] {
            assert!(matches!(check_name(bad), Err(BadName::Character { .. })), "{bad}");
        }
        assert!(matches!(check_name(&"x".repeat(81)), Err(BadName::Long(_))));
    }
}
