//! What an agent was given, for people: the document that its attempt keeps, in a few lines.
//!
//! Reads a stored document, which may be of another version of flow: what is not there is left out.

use serde_json::Value as Json;

use crate::attempt::Ended;
use crate::process::Reached;
use crate::step::integrity::LOG;
use crate::step::sandbox::REACHED;
use crate::store::Store;

/// The largest document.
const LARGEST: u64 = 4 << 20;
/// Lines of a configuration that are shown.
const LINES: usize = 24;

/// What was found of an agent's knowing the answer, a line each; nothing where none was looked for.
#[must_use]
pub fn integrity(ended: &Ended, store: &Store) -> Vec<String> {
    let document = ended.logs.get(LOG).and_then(|digest| store.cas.get(digest, LARGEST).ok()?);
    let text = document.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    text.lines().take(LINES).map(str::to_owned).collect()
}

/// Which hosts an agent reached and which names were refused; nothing where it was not held to some.
#[must_use]
pub fn network(ended: &Ended, store: &Store) -> Option<String> {
    let document = ended.logs.get(REACHED).and_then(|digest| store.cas.get(digest, LARGEST).ok()?)?;
    let reached = serde_json::from_slice::<Reached>(&document).ok()?;
    Some(format!("network: {}", reached.text()))
}

/// Model, configuration and environment of an agent's attempt, a line each; nothing where none is kept.
#[must_use]
pub fn lines(ended: &Ended, store: &Store) -> Vec<String> {
    let document = ended.logs.get("setup").and_then(|digest| store.cas.get(digest, LARGEST).ok()?);
    let Some(told) = document.and_then(|bytes| serde_json::from_slice::<Json>(&bytes).ok()) else { return Vec::new() };
    let mut lines = Vec::new();
    if let Some(model) = told["model"].as_str() {
        lines.push(format!("model: {model}"));
    }
    let environment = &told["environment"];
    let set = environment["set"].as_object().into_iter().flatten();
    let set: Vec<String> = set.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    if !set.is_empty() {
        lines.push(format!("set: {}", set.join(" ")));
    }
    for (field, word) in [("passed", "passed on"), ("secrets", "secrets")] {
        let names = environment[field].as_array().into_iter().flatten().filter_map(Json::as_str);
        let names: Vec<&str> = names.collect();
        if !names.is_empty() {
            lines.push(format!("{word}: {}", names.join(", ")));
        }
    }
    if let Some(text) = told["config"]["text"].as_str() {
        lines.push(format!("config {}:", told["config"]["file"].as_str().unwrap_or("file")));
        let all: Vec<&str> = text.lines().collect();
        lines.extend(all.iter().take(LINES).map(|line| format!("  {line}")));
        if all.len() > LINES {
            lines.push(format!("  … {} more lines: see the stream `setup`", all.len() - LINES));
        }
    }
    lines
}
