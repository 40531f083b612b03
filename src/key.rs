//! Key records: the ordered, named, printable ingredients that determine an action, and the key that is their digest.
//!
//! The canonical encoding of a record is its JSON on one line with the fields in this order, ingredients in blame order; the
//! action key is the sha256 of these bytes, and the bytes are kept as a blob of the content-addressed store *under that very
//! digest*. So an explanation can never drift from the key: both are the one record. JSON strings are quoted and escaped,
//! arrays are bracketed, so that two different records never have one encoding.
//!
//! Which ingredients an action has is decided by the module of its step's kind, not here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// What identifies an action: the sha256 of its key record's canonical encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionKey(pub Digest);

impl fmt::Display for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActionKey({})", self.0.short())
    }
}

/// The value of one ingredient or of one output.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// A short text, as a person would read it.
    Text(String),
    /// An ordered list: an argv, a list of globs.
    List(Vec<String>),
    /// The content of a blob of the store.
    Blob(Digest),
}

impl Value {
    /// A text value.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The blob's digest, if it is one.
    #[must_use]
    pub fn as_blob(&self) -> Option<Digest> {
        match self {
            Self::Blob(digest) => Some(*digest),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(list) => write!(f, "{}", list.join(" ")),
            Self::Blob(digest) => write!(f, "sha256:{}", digest.short()),
        }
    }
}

/// One named ingredient. The name is a role (`script`, `env LANG`, `file patch`), never the name of a step, a candidate or a
/// pipeline, so that renaming those hits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ingredient {
    /// The role.
    #[serde(rename = "is")]
    pub role: String,
    /// Its value.
    #[serde(rename = "value")]
    pub value: Value,
}

/// Everything that determines an action.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The kind of the step.
    pub kind: String,
    /// The number of the kind's format: raised when what its attempts mean changes.
    pub format: u16,
    /// The ingredients, the most blameworthy first. A role at its default is absent.
    pub ingredients: Vec<Ingredient>,
}

impl KeyRecord {
    /// An empty record of a kind.
    pub fn new(kind: impl Into<String>, format: u16) -> Self {
        Self { kind: kind.into(), format, ingredients: Vec::new() }
    }

    /// Adds an ingredient behind those that are there.
    pub fn push(&mut self, role: impl Into<String>, value: Value) {
        let role = role.into();
        debug_assert!(self.get(&role).is_none(), "role {role} twice");
        self.ingredients.push(Ingredient { role, value });
    }

    /// Adds a text unless it is `None`: a role at its default is omitted, so that a new role re-keys nothing.
    pub fn push_some(&mut self, role: impl Into<String>, value: Option<Value>) {
        if let Some(value) = value {
            self.push(role, value);
        }
    }

    /// The value of a role.
    #[must_use]
    pub fn get(&self, role: &str) -> Option<&Value> {
        self.ingredients.iter().find(|i| i.role == role).map(|i| &i.value)
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|error| unreachable!("a key record is plain data: {error}"))
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// If the bytes are not a key record.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// The key: the digest of the encoding.
    #[must_use]
    pub fn key(&self) -> ActionKey {
        ActionKey(Digest::of(&self.encode()))
    }

    /// All differences against an older record: those of this record's roles in blame order, then what is gone.
    #[must_use]
    pub fn changes_since(&self, old: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if (&old.kind, old.format) != (&self.kind, self.format) {
            let say = |r: &Self| Some(Value::text(format!("{} {}", r.kind, r.format)));
            changes.push(Change { ingredient: "format".into(), old: say(old), new: say(self) });
        }
        for ingredient in &self.ingredients {
            let before = old.get(&ingredient.role);
            if before != Some(&ingredient.value) {
                changes.push(Change {
                    ingredient: ingredient.role.clone(),
                    old: before.cloned(),
                    new: Some(ingredient.value.clone()),
                });
            }
        }
        for ingredient in &old.ingredients {
            if self.get(&ingredient.role).is_none() {
                changes.push(Change {
                    ingredient: ingredient.role.clone(),
                    old: Some(ingredient.value.clone()),
                    new: None,
                });
            }
        }
        if changes.is_empty() && self != old {
            let say = |r: &Self| Some(Value::List(r.ingredients.iter().map(|i| i.role.clone()).collect()));
            changes.push(Change { ingredient: "order of ingredients".into(), old: say(old), new: say(self) });
        }
        changes
    }
}

/// One difference between two key records: old and new, `None` where the role was or is absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// The role.
    pub ingredient: String,
    /// What it was.
    pub old: Option<Value>,
    /// What it is.
    pub new: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,12}".prop_map(Value::Text),
            prop::collection::vec(".{0,6}", 0..4).prop_map(Value::List),
            any::<[u8; 32]>().prop_map(|b| Value::Blob(Digest::from_bytes(b))),
        ]
    }

    fn record() -> impl Strategy<Value = KeyRecord> {
        ("[a-c]", 1u16..3, prop::collection::btree_map("[a-e]{1,2}", value(), 0..5), any::<bool>()).prop_map(
            |(kind, format, map, turned)| {
                let mut record = KeyRecord::new(kind, format);
                for (role, value) in map {
                    record.push(role, value);
                }
                if turned {
                    record.ingredients.reverse();
                }
                record
            },
        )
    }

    proptest! {
        #[test]
        fn the_encoding_reads_back(r in record()) {
            prop_assert_eq!(KeyRecord::decode(&r.encode()).unwrap(), r);
        }

        #[test]
        fn equal_records_have_equal_keys_and_unequal_ones_a_visible_change(a in record(), b in record()) {
            if a == b {
                prop_assert_eq!(a.key(), b.key());
                prop_assert!(a.changes_since(&b).is_empty());
            } else {
                prop_assert_ne!(a.key(), b.key());
                prop_assert!(!a.changes_since(&b).is_empty());
            }
        }
    }
}
