//! Finders at work: the last text that a file holds where a table points.

use std::time::{Duration, Instant};

use regex::Captures;
use serde_json::Value;

use super::document::Files;
use super::signature::Pattern;
use super::table::{Condition, Finder, Format};

/// How much of a text's end is looked at where no pattern says what is meant, in bytes.
const TAIL: usize = 4096;
/// The longest text that is found, in bytes: of a longer one, beginning and end.
const LONGEST: usize = 16 * 1024;
/// The most matches of one pattern, and how long it may take to find them.
pub(super) const MATCHES: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);

impl Condition {
    /// Whether a document says what it must.
    fn holds(&self, document: &Value) -> bool {
        let said = self.at.find(document).iter().any(|value| self.values.contains(value));
        said != self.not
    }
}

impl Finder {
    /// The documents that may be looked into, in order. None of a text.
    pub(super) fn documents<R>(&self, files: &Files<'_>, look: impl Fn(&Value) -> R) -> Vec<R> {
        let Some(file) = files.file(&self.file) else { return Vec::new() };
        let may = |document: &&Value| self.conditions.iter().all(|condition| condition.holds(document));
        match &self.format {
            Format::Json => file.json().iter().map(AsRef::as_ref).filter(may).map(look).collect(),
            Format::Jsonl { prefix } => file.lines(prefix).documents.iter().filter(may).map(look).collect(),
            Format::Text { .. } => Vec::new(),
        }
    }

    /// Whether lines of its file were meant as documents and could not be read, or hold one behind something else of which `tells`
    /// says that it would have counted.
    pub(super) fn lost(&self, files: &Files<'_>, tells: impl Fn(&Value) -> bool) -> bool {
        let (Format::Jsonl { prefix }, Some(file)) = (&self.format, files.file(&self.file)) else { return false };
        let lines = file.lines(prefix);
        let may = |document: &&Value| self.conditions.iter().all(|condition| condition.holds(document));
        lines.broken || lines.quoted.iter().filter(may).any(tells)
    }

    /// Whether it looks into documents, which only the agent writes.
    pub(super) fn is_structured(&self) -> bool {
        !matches!(self.format, Format::Text { .. })
    }

    /// Whether what it finds may hold words that are nobody's report: the end of a text, or a part of one over several lines.
    pub(super) fn finds_prose(&self, files: &Files<'_>) -> bool {
        match &self.format {
            Format::Text { pattern: None } => true,
            Format::Text { pattern: Some(_) } => {
                self.matched(files).is_some_and(|found| found.trim().contains(['\n', '\r']))
            }
            Format::Json | Format::Jsonl { .. } => false,
        }
    }

    /// What the pattern of a text finds last, as it stands there; without a pattern, the end of the text.
    fn matched(&self, files: &Files<'_>) -> Option<String> {
        let Format::Text { pattern } = &self.format else { return None };
        let text = files.file(&self.file)?.text();
        let Some(pattern) = pattern else { return Some(tail(&text).to_owned()) };
        let groups = matches(pattern, &text)?.pop()?;
        let group = groups.iter().skip(1).flatten().next().or_else(|| groups.get(0))?;
        Some(group.as_str().to_owned())
    }

    /// The last text that is found, its white space collapsed: of the last document in which there is one, what each pointer
    /// found last. With no pointer, a document that may be looked into is found itself, as an empty text.
    pub(super) fn text(&self, files: &Files<'_>) -> Option<String> {
        if let Format::Text { pattern } = &self.format {
            let found = collapse(&self.matched(files)?);
            return if pattern.is_none() && found.is_empty() { None } else { Some(found) };
        }
        let said = |document: &Value| {
            let parts = self.at.iter().filter_map(|at| at.find(document).into_iter().rev().find_map(words));
            collapse(&parts.collect::<Vec<_>>().join(": "))
        };
        self.documents(files, said).into_iter().rev().find(|text| self.at.is_empty() || !text.is_empty())
    }

    /// Every text that the pointers find in any document, each once, at most `most`.
    pub(super) fn texts(&self, files: &Files<'_>, most: usize) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        if matches!(self.format, Format::Text { .. }) {
            found.extend(self.text(files));
        }
        let said = |document: &Value| {
            self.at.iter().flat_map(|at| at.find(document)).filter_map(words).collect::<Vec<String>>()
        };
        for text in self.documents(files, said).into_iter().flatten() {
            let text = collapse(&text);
            if !text.is_empty() && found.len() < most && !found.contains(&text) {
                found.push(text);
            }
        }
        found
    }
}

/// A value as text; nothing for what says nothing.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        other => Some(other.to_string()),
    }
}

fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// The matches of a pattern; `None` if it takes too long to find them: each look is linear in the text, and there may be as many.
pub(super) fn matches<'t>(pattern: &Pattern, text: &'t str) -> Option<Vec<Captures<'t>>> {
    let began = Instant::now();
    let mut found = Vec::new();
    for groups in pattern.regex().captures_iter(text).take(MATCHES) {
        found.push(groups);
        if began.elapsed() > PATIENCE {
            return None;
        }
    }
    Some(found)
}

/// The text on one line without control characters and colours, and no longer than is matched.
fn collapse(text: &str) -> String {
    let mut line = String::new();
    for word in plain(text).split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.len() <= LONGEST {
        return line;
    }
    let (mut head, mut rest) = (LONGEST / 2, line.len() - LONGEST / 2);
    while !line.is_char_boundary(head) {
        head -= 1;
    }
    while !line.is_char_boundary(rest) {
        rest += 1;
    }
    format!("{} … {}", &line[..head], &line[rest..])
}

/// The text without escape sequences and control characters but white space.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                // `ESC [ parameters letter`; any other sequence has one character.
                if rest.next() == Some('[') {
                    rest.by_ref().find(|c| c.is_ascii_alphabetic() || *c == '~');
                }
            }
            c if c.is_whitespace() => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_without_colours_and_bounded() {
        assert_eq!(collapse("a\n\t b\u{1b}[31;1mred\u{1b}[0m\0 "), "a bred");
        assert_eq!(collapse("\u{1b}"), "");
        assert!(collapse(&"é ".repeat(100_000)).len() < LONGEST + 10);
        assert!(tail(&"é".repeat(10_000)).len() <= TAIL);
    }
}
