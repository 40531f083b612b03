//! Pointers into JSON: those of RFC 6901, where `*` stands for every element of an array and every value of an object.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most values that one pointer finds.
const MOST: usize = 1_000_000;

/// A pointer such as `/messages/*/usage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pointer {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Name(String),
    Each,
}

/// A text that is no pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no pointer: each of its parts begins with `/`")]
pub struct BadPointer(pub String);

impl Pointer {
    /// Reads a pointer. The empty one is the whole document.
    ///
    /// # Errors
    /// If it does not begin with `/`.
    pub fn parse(text: &str) -> Result<Self, BadPointer> {
        let bad = || BadPointer(text.to_owned());
        let parts = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => return Err(bad()),
            Some(rest) => rest.split('/').map(Part::of).collect(),
        };
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Its parts in order; `None` is `*`.
    pub(super) fn parts(&self) -> impl Iterator<Item = Option<&str>> {
        self.parts.iter().map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Each => None,
        })
    }

    /// Whether it may find several values.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.parts.contains(&Part::Each)
    }

    /// What it finds, in the document's order.
    #[must_use]
    pub fn find<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        follow(&self.parts, document)
    }

    /// Whether there is a list that its first `*` could go over, be it empty.
    #[must_use]
    pub fn opens(&self, document: &Value) -> bool {
        let before: Vec<Part> = self.parts.iter().take_while(|part| **part != Part::Each).cloned().collect();
        before.len() < self.parts.len()
            && follow(&before, document).iter().any(|value| value.is_array() || value.is_object())
    }
}

fn follow<'a>(parts: &[Part], document: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![document];
    for part in parts {
        let mut next: Vec<&Value> = Vec::new();
        for value in found {
            match (part, value) {
                (Part::Each, Value::Array(list)) => next.extend(list.iter().take(MOST - next.len().min(MOST))),
                (Part::Each, Value::Object(map)) => next.extend(map.values().take(MOST - next.len().min(MOST))),
                (Part::Name(name), Value::Object(map)) => next.extend(map.get(name)),
                (Part::Name(name), Value::Array(list)) => {
                    next.extend(name.parse::<usize>().ok().and_then(|index| list.get(index)));
                }
                _ => {}
            }
        }
        found = next;
    }
    found
}

impl Part {
    fn of(text: &str) -> Self {
        match text {
            "*" => Self::Each,
            name => Self::Name(name.replace("~1", "/").replace("~0", "~")),
        }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.text
    }
}

impl TryFrom<String> for Pointer {
    type Error = BadPointer;

    fn try_from(text: String) -> Result<Self, BadPointer> {
        Self::parse(&text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(pointer: &str, document: &Value) -> Vec<String> {
        Pointer::parse(pointer).unwrap().find(document).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pointer_finds_values_through_arrays_and_objects() {
        let document = json!({"a": [{"b": 1}, {"c": 2}, {"b": 3}], "o": {"x": {"n": 4}, "y": {"n": 5}}, "a/b": 6});
        assert_eq!(found("/a/*/b", &document), ["1", "3"]);
        assert_eq!(found("/o/*/n", &document), ["4", "5"]);
        assert_eq!(found("/a/2/b", &document), ["3"]);
        assert_eq!(found("/a~1b", &document), ["6"]);
        assert_eq!(found("/nothing/*/b", &document), [""; 0]);
        assert_eq!(found("", &json!(7)), ["7"]);
        assert!(Pointer::parse("a/b").is_err());
    }

    #[test]
    fn an_empty_list_is_not_an_absent_one() {
        let pointer = Pointer::parse("/calls/*/usage").unwrap();
        assert!(pointer.opens(&json!({"calls": []})));
        assert!(!pointer.opens(&json!({"calls": null})) && !pointer.opens(&json!({})));
    }
}
