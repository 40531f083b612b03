//! A change of an ingredient as people and programs read it: old, new, and what of it differs.
//!
//! Blobs are read from the store, or from the files that were just taken and are not in it yet. What they hold may be anything:
//! it is bounded and never printed raw.

use serde::Serialize;
use serde_json::Value as Json;

use crate::digest::Digest;
use crate::key::{Change, Value};
use crate::plan::Intake;
use crate::store::Store;
use crate::why::inside::{self, Look};
use crate::why::origin::{Origin, Traced};

/// The largest blob that is compared.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Lines of a difference that are shown unless all are asked for.
pub const LINES: usize = 40;

/// Where the content of blobs is.
pub struct Blobs<'a> {
    /// What is stored.
    pub store: &'a Store,
    /// What was taken for plans and may not be stored.
    pub intakes: Vec<&'a Intake>,
}

impl Blobs<'_> {
    fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        if let Some(bytes) = self.intakes.iter().find_map(|intake| intake.get(digest)) {
            return Some(bytes.to_vec());
        }
        self.store.cas.get(digest, LARGEST).ok()?
    }
}

/// A change as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// The role.
    pub ingredient: String,
    /// What it was: a text, a list, `sha256:…`, or null.
    pub old: Json,
    /// What it is.
    pub new: Json,
    /// What differs, in lines that begin with `-` and `+`, or `path: old -> new`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// What brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Why no commit is named for it, where one was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unexplained: Option<String>,
}

impl Shown {
    /// Without a look into blobs.
    #[must_use]
    pub fn plain(change: &Change) -> Self {
        let side = |value: &Option<Value>| value.as_ref().map_or(Json::Null, json);
        Self {
            ingredient: change.ingredient.clone(),
            old: side(&change.old),
            new: side(&change.new),
            diff: None,
            origin: None,
            unexplained: None,
        }
    }

    /// With what differs, in at most so many lines.
    #[must_use]
    pub fn of(change: &Change, blobs: &Blobs<'_>, lines: usize) -> Self {
        let diff = difference(change, blobs).filter(|diff| !diff.is_empty()).map(|diff| bounded(&diff, lines));
        Self { diff, ..Self::plain(change) }
    }

    /// With what brought it.
    #[must_use]
    pub fn traced(mut self, traced: Traced) -> Self {
        match traced {
            Traced::To(origin) => self.origin = Some(origin),
            Traced::No(why) => self.unexplained = Some(why),
            Traced::Upstream => {}
        }
        self
    }
}

/// A value as a program reads it.
#[must_use]
pub fn json(value: &Value) -> Json {
    match value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::List(list) => Json::from(list.clone()),
        Value::Blob(digest) => Json::from(format!("sha256:{digest}")),
    }
}

fn difference(change: &Change, blobs: &Blobs<'_>) -> Option<String> {
    let look = Look::at(&change.ingredient);
    match (change.old.as_ref()?, change.new.as_ref()?) {
        (Value::Blob(old), Value::Blob(new)) => {
            let (Some(old), Some(new)) = (blobs.get(old), blobs.get(new)) else {
                return Some("(the content of one of them is no longer stored, or too large to compare)".into());
            };
            Some(inside::of_bytes(&old, &new, look))
        }
        (Value::List(old), Value::List(new)) => Some(inside::of_lists(old, new)),
        (Value::Text(old), Value::Text(new)) if old.contains('\n') || new.contains('\n') => {
            Some(inside::changed_lines(old, new))
        }
        _ => None,
    }
}

fn bounded(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    if all.len() <= lines {
        return text.to_owned();
    }
    format!("{}\n… {} more lines", all[..lines].join("\n"), all.len() - lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let text = (0..50).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        assert!(bounded(&text, 40).ends_with("\n39\n… 10 more lines"));
    }
}
