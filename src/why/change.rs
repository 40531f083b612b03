//! A change of an ingredient as people and programs read it: old, new, and what of it differs.
//!
//! Blobs are read from the store, or from the files that were just taken and are not in it yet. What they hold may be anything:
//! it is bounded and never printed raw.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value as Json;

use crate::digest::Digest;
use crate::key::{Change, Value};
use crate::plan::Intake;
use crate::redact::Redactor;
use crate::store::Store;
use crate::units::human_size;
use crate::why::inside::{self, Look};
use crate::why::origin::{Origin, Traced};

/// The largest blob that is compared.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Lines of a difference that are shown unless all are asked for.
pub const LINES: usize = 40;
/// The longest line of a difference that is shown whole, in characters.
const LONGEST: usize = 2000;

/// Where the content of blobs is.
pub struct Blobs<'a> {
    /// What is stored.
    pub store: &'a Store,
    /// What was taken for plans and may not be stored.
    pub intakes: Vec<&'a Intake>,
    /// Takes out what is a secret today: an older version may have had it written out.
    pub redactor: Redactor,
}

impl Blobs<'_> {
    fn get(&self, digest: &Digest) -> Content {
        let cleaned = |bytes: &[u8]| Content::Here(self.redactor.shown(bytes));
        match self.intakes.iter().find_map(|intake| intake.get(digest)) {
            Some(bytes) if bytes.len() as u64 > LARGEST => Content::TooLarge,
            Some(bytes) => cleaned(bytes),
            None => match self.store.cas.get(digest, LARGEST) {
                Ok(Some(bytes)) => cleaned(&bytes),
                Ok(None) => Content::Gone,
                Err(_) => Content::TooLarge,
            },
        }
    }
}

impl Blobs<'_> {
    /// A blob as it was used, not to be shown; `None` if it is gone or too large.
    #[must_use]
    pub fn used(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.store.cas.get(digest, LARGEST).ok().flatten()
    }
}

/// What is known of a blob.
enum Content {
    Here(Vec<u8>),
    /// It is not there, or not what it was.
    Gone,
    /// Too large to be compared, or not to be read.
    TooLarge,
}

impl Blobs<'_> {
    fn cleaned(&self, change: &Change) -> Change {
        let clean = |text: &str| self.redactor.shown_text(text);
        let side = |value: &Option<Value>| match value {
            Some(Value::Text(text)) => Some(Value::text(clean(text))),
            Some(Value::List(list)) => Some(Value::List(list.iter().map(|text| clean(text)).collect())),
            other => other.clone(),
        };
        Change { old: side(&change.old), new: side(&change.new), ..change.clone() }
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
        let change = &blobs.cleaned(change);
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
        (Value::Blob(old), Value::Blob(new)) => Some(match (blobs.get(old), blobs.get(new)) {
            (Content::Here(old), Content::Here(new)) => inside::of_bytes(&old, &new, look),
            (Content::Gone, Content::Gone) => "(neither text is in the store any more)".to_owned(),
            (Content::Gone, _) => "(the old text is no longer in the store)".to_owned(),
            (_, Content::Gone) => "(the new text is no longer in the store)".to_owned(),
            _ => format!("(larger than {}, or not to be read: not compared)", human_size(LARGEST)),
        }),
        (Value::List(old), Value::List(new)) => Some(inside::of_lists(old, new)),
        (Value::Text(old), Value::Text(new)) if old.contains('\n') || new.contains('\n') => {
            Some(inside::changed_lines(old, new))
        }
        _ => None,
    }
}

fn bounded(text: &str, lines: usize) -> String {
    let all: Vec<Cow<'_, str>> = text.lines().take(lines).map(cut).collect();
    match text.lines().count().saturating_sub(lines) {
        0 => all.join("\n"),
        more => format!("{}\n… {more} more lines", all.join("\n")),
    }
}

/// A line as far as anybody reads it.
fn cut(line: &str) -> Cow<'_, str> {
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} … {} more characters", &line[..at], line[at..].chars().count()).into(),
        None => line.into(),
    }
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
