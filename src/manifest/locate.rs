//! Where a value stands in the text of a configuration, so that a flaw can point at it.
//!
//! Of TOML the parser tells the place, in JSON the text is gone through. In YAML this follows the keys of a dotted path from line
//! to line, which is right for files as people write them; where it is not sure it says nothing. No decision rests on it.

use std::path::Path;

use toml::de::{DeTable, DeValue};

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
pub(super) fn locate(file: &Path, text: &str, path: &[String]) -> Option<(usize, usize)> {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    let at = match ending.as_str() {
        "toml" => in_toml(text, path)?,
        "json" => in_json(text.as_bytes(), 0, path)?,
        _ => return by_keys(text, path),
    };
    let start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next()?;
    Some((start + line.len() - line.trim_start().len(), line.trim().len()))
}

/// Where a value begins in TOML.
fn in_toml(text: &str, path: &[String]) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let (first, rest) = path.split_first()?;
    let mut at = table.get_ref().get(first.as_str())?;
    for segment in rest {
        at = match at.get_ref() {
            DeValue::Table(table) => table.get(segment.as_str())?,
            DeValue::Array(list) => list.get(segment.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(at.span().start)
}

/// Where a value begins in JSON that has been parsed without an error, looked for from a byte on.
fn in_json(text: &[u8], from: usize, path: &[String]) -> Option<usize> {
    let mut at = blank(text, from);
    let Some((segment, rest)) = path.split_first() else { return Some(at) };
    let object = match text.get(at)? {
        b'{' => true,
        b'[' => false,
        _ => return None,
    };
    for element in 0.. {
        at = blank(text, at + 1);
        let here = if object {
            let end = past(text, at)?;
            let key: String = serde_json::from_slice(text.get(at..end)?).ok()?;
            at = blank(text, blank(text, end) + 1);
            key == *segment
        } else {
            segment.parse() == Ok(element)
        };
        if here {
            return in_json(text, at, rest);
        }
        at = blank(text, past(text, at)?);
        if text.get(at) != Some(&b',') {
            return None;
        }
    }
    None
}

/// The first byte that is no blank.
fn blank(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The byte behind a value of JSON.
fn past(text: &[u8], from: usize) -> Option<usize> {
    let (mut depth, mut at) = (0usize, from);
    loop {
        match text.get(at)? {
            b'"' => {
                at += 1;
                while *text.get(at)? != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return Some(at),
            byte if depth == 0 && byte.is_ascii_whitespace() => return Some(at),
            _ => {}
        }
        at += 1;
        // A text or what is in brackets has its own end.
        if depth == 0 && matches!(text[at - 1], b'"' | b'}' | b']') {
            return Some(at);
        }
    }
}

fn by_keys(text: &str, path: &[String]) -> Option<(usize, usize)> {
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

    fn at(file: &str, text: &str, path: &[&str]) -> Option<String> {
        let path: Vec<String> = path.iter().map(ToString::to_string).collect();
        locate(Path::new(file), text, &path).map(|(at, len)| text[at..at + len].to_owned())
    }

    #[test]
    fn a_value_is_found_below_its_keys_in_each_format() {
        let yaml = "a:\n  on: 1\nmodels:\n  # on: 3\n  m:\n    on: true\n";
        assert_eq!(at("c.yaml", yaml, &["models", "m", "on"]).as_deref(), Some("on: true"));
        assert_eq!(at("c.yaml", "a: [1, 2]\n", &["a", "1"]), None);
        let toml = "on = 1\n# on = 2\n[models.m]\non = true\nlist = [\n  1,\n  2,\n]\n";
        assert_eq!(at("c.toml", toml, &["models", "m", "on"]).as_deref(), Some("on = true"));
        assert_eq!(at("c.toml", toml, &["models", "m", "list", "1"]).as_deref(), Some("2,"));
        assert_eq!(at("c.toml", toml, &["models", "on"]), None);
        let json = "{\"on\": \"models {\\\"\", \"models\": {\n  \"l\": [1, {\"x\": 2}],\n  \"on\":\n    true }\n}";
        assert_eq!(at("c.json", json, &["models", "on"]).as_deref(), Some("true }"));
        assert_eq!(at("c.json", json, &["models", "l", "1", "x"]).as_deref(), Some("\"l\": [1, {\"x\": 2}],"));
        for path in [["models", "off"], ["on", "models"]] {
            assert_eq!(at("c.json", json, &path), None);
        }
        for (file, text) in [("c.yaml", ""), ("c.toml", ""), ("c.json", ""), ("c.json", "{\"a"), ("c.json", "[1]")] {
            assert_eq!(at(file, text, &["a"]), None);
        }
    }
}
