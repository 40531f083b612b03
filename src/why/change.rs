//! A change of an ingredient as people and programs read it: old, new, and what of it differs.
//!
//! Blobs are read from the store, or from the files that were just taken and are not in it yet. What they hold may be anything:
//! it is bounded and never printed raw.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};

use crate::digest::Digest;
use crate::key::{Change, Value};
use crate::plan::Intake;
use crate::store::Store;
use crate::units::human_size;
use crate::why::origin::{Origin, Traced};

/// The largest blob that is compared.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Changed paths of a JSON value that are listed; beyond that it is compared as text.
const PATHS: usize = 20;
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
fn json(value: &Value) -> Json {
    match value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::List(list) => Json::from(list.clone()),
        Value::Blob(digest) => Json::from(format!("sha256:{digest}")),
    }
}

fn difference(change: &Change, blobs: &Blobs<'_>) -> Option<String> {
    match (change.old.as_ref()?, change.new.as_ref()?) {
        (Value::Blob(old), Value::Blob(new)) => {
            let (Some(old), Some(new)) = (blobs.get(old), blobs.get(new)) else {
                return Some("(the content of one of them is no longer stored, or too large to compare)".into());
            };
            Some(of_bytes(&old, &new))
        }
        (Value::List(old), Value::List(new)) => Some(of_lists(old, new)),
        (Value::Text(old), Value::Text(new)) if old.contains('\n') || new.contains('\n') => {
            Some(changed_lines(old, new))
        }
        _ => None,
    }
}

fn of_bytes(old: &[u8], new: &[u8]) -> String {
    let binary = |bytes: &[u8]| bytes.contains(&0);
    let (Ok(old_text), Ok(new_text)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return of_binary(old, new);
    };
    if binary(old) || binary(new) {
        return of_binary(old, new);
    }
    let structured = |text: &str| {
        let value: Json = serde_json::from_str(text).ok()?;
        (value.is_object() || value.is_array()).then_some(value)
    };
    let (Some(old_json), Some(new_json)) = (structured(old_text), structured(new_text)) else {
        return unified(old_text, new_text);
    };
    let mut paths = Vec::new();
    changed_paths("", &old_json, &new_json, &mut paths);
    if (1..=PATHS).contains(&paths.len()) {
        return paths.join("\n");
    }
    let pretty = |value: &Json| serde_json::to_string_pretty(value).unwrap_or_default();
    unified(&pretty(&old_json), &pretty(&new_json))
}

fn of_binary(old: &[u8], new: &[u8]) -> String {
    format!("(binary, {} -> {})", human_size(old.len() as u64), human_size(new.len() as u64))
}

fn unified(old: &str, new: &str) -> String {
    let diff = TextDiff::configure().timeout(Duration::from_millis(500)).diff_lines(old, new);
    let text = diff.unified_diff().context_radius(2).to_string();
    text.trim_end().to_owned()
}

/// Only the lines that differ: for answers of probes, where what stands around tells nothing.
fn changed_lines(old: &str, new: &str) -> String {
    let diff = TextDiff::configure().timeout(Duration::from_millis(500)).diff_lines(old, new);
    let mut lines = Vec::new();
    for change in diff.iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => continue,
        };
        lines.push(format!("{sign}{}", change.value().trim_end_matches('\n')));
    }
    lines.join("\n")
}

/// Element by element, each with its place.
fn of_lists(old: &[String], new: &[String]) -> String {
    if old.len() == new.len() {
        let pairs = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
        return pairs.map(|(at, (old, new))| format!("[{at}] {old} -> {new}")).collect::<Vec<_>>().join("\n");
    }
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
    let mut lines = Vec::new();
    for op in similar::capture_diff_slices(similar::Algorithm::Myers, &old, &new) {
        for change in op.iter_changes(&old, &new) {
            match change.tag() {
                ChangeTag::Delete => lines.push(format!("-{}", change.value())),
                ChangeTag::Insert => lines.push(format!("+{}", change.value())),
                ChangeTag::Equal => {}
            }
        }
    }
    lines.join("\n")
}

/// `models.a.temperature: 0.2 -> 0.7`, for each value that differs.
fn changed_paths(path: &str, old: &Json, new: &Json, out: &mut Vec<String>) {
    if old == new || out.len() > PATHS {
        return;
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            for (name, before) in old {
                match new.get(name) {
                    Some(after) => changed_paths(&below(name), before, after, out),
                    None => out.push(format!("{}: {before} -> (none)", below(name))),
                }
            }
            for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                out.push(format!("{}: (none) -> {after}", below(name)));
            }
        }
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() => {
            for (at, (before, after)) in old.iter().zip(new).enumerate() {
                changed_paths(&format!("{path}[{at}]"), before, after, out);
            }
        }
        _ => out.push(format!("{path}: {old} -> {new}")),
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
    fn json_differs_by_path() {
        let said = of_bytes(br#"{"a":{"b":[1,2],"c":"x"},"z":1}"#, br#"{"a":{"b":[1,3],"c":"x"},"y":null}"#);
        assert_eq!(said, "a.b[1]: 2 -> 3\nz: 1 -> (none)\ny: (none) -> null");
    }

    #[test]
    fn text_differs_by_line_binary_by_size_lists_by_element() {
        assert_eq!(of_bytes(b"a\nb\n", b"a\nc\n"), "@@ -1,2 +1,2 @@\n a\n-b\n+c");
        assert_eq!(of_bytes(b"a\0", b"a\0b"), "(binary, 2 B -> 3 B)");
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of_lists(&list("a b c"), &list("a x c")), "[1] b -> x");
        assert_eq!(of_lists(&list("a b c"), &list("a c")), "-b");
        assert_eq!(changed_lines("3.11\nnumpy 1\n", "3.11\nnumpy 2\n"), "-numpy 1\n+numpy 2");
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let text = (0..50).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        assert!(bounded(&text, 40).ends_with("\n39\n… 10 more lines"));
    }
}
