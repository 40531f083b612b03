//! Where a value stands in the text of a configuration, so that a flaw can point at it.
//!
//! The parsers keep no places. This follows the keys of a dotted path from line to line, which is right for files as people
//! write them; where it is not sure it says nothing. No decision rests on it.

use super::{Manifest, Place};

impl Manifest {
    /// The file's name and the line, from 1, of a place.
    #[must_use]
    pub fn line_of(&self, place: Place) -> (&str, usize) {
        let Some(file) = self.files.get(place.file) else { return ("", 0) };
        let before = file.text.as_bytes().get(..place.offset).unwrap_or_default();
        (&file.name, 1 + before.iter().filter(|byte| **byte == b'\n').count())
    }
}

/// The stretch of the line that holds the value of a path: its first byte and its length.
#[must_use]
pub(super) fn locate(text: &str, path: &[String]) -> Option<(usize, usize)> {
    let mut from = 0;
    let mut found = None;
    for segment in path {
        // An element of a list has no key to look for.
        if segment.parse::<usize>().is_ok() {
            return None;
        }
        let (line, at) =
            lines(&text[from..]).find(|(line, _)| key_of(line).is_some_and(|key| key.ends_with_key(segment)))?;
        found = Some((from + at, line));
        from += at + line.len();
    }
    let (at, line) = found?;
    let indent = line.len() - line.trim_start().len();
    Some((at + indent, line.trim().len()))
}

fn lines(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        let start = at;
        at += line.len();
        (line.trim_end_matches(['\n', '\r']), start)
    })
}

/// The key that a line gives a value or begins a table with.
struct Key<'a>(&'a str);

impl Key<'_> {
    fn ends_with_key(&self, segment: &str) -> bool {
        let bare = |text: &str| text.trim().trim_matches(['"', '\'']) == segment;
        // `[models.main]` begins the table of its last word.
        bare(self.0) || self.0.rsplit('.').next().is_some_and(bare)
    }
}

fn key_of(line: &str) -> Option<Key<'_>> {
    let line = line.trim_start().trim_start_matches(['{', '-', ' ']);
    if line.starts_with('#') || line.starts_with("//") {
        return None;
    }
    if let Some(table) = line.strip_prefix('[') {
        return Some(Key(table.trim_start_matches('[').split(']').next()?));
    }
    let end = line.find([':', '='])?;
    Some(Key(&line[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &[&str]) -> Option<String> {
        let path: Vec<String> = path.iter().map(ToString::to_string).collect();
        locate(text, &path).map(|(at, len)| text[at..at + len].to_owned())
    }

    #[test]
    fn a_value_is_found_below_its_keys_in_each_format() {
        let yaml = "a:\n  on: 1\nmodels:\n  # on: 3\n  m:\n    on: true\n";
        assert_eq!(at(yaml, &["models", "m", "on"]).as_deref(), Some("on: true"));
        assert_eq!(at("[models.m]\non = true\n", &["models", "m", "on"]), None, "the table names both at once");
        assert_eq!(at("[models]\non = true\n", &["models", "on"]).as_deref(), Some("on = true"));
        assert_eq!(at("{\"a\": {\n  \"b\": 1\n}}", &["a", "b"]).as_deref(), Some("\"b\": 1"));
        assert_eq!(at("a: [1, 2]\n", &["a", "1"]), None);
        assert_eq!(at("", &["a"]), None);
    }
}
