//! What an agent wrote, as documents: parsed once, and of each only what some pointer of the table leads to.
//!
//! A hostile file costs no more than its bytes and a bounded number of values: what nobody asks for is skipped unparsed.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::pointer::Pointer;

/// The most values that are kept of one file.
const VALUES: u32 = 1_000_000;
/// How often on one line a document is looked for that does not begin it.
const WITHIN: usize = 4;
/// Of a longer text only the end is read, in bytes.
pub(super) const TEXT: usize = 1 << 20;

/// What is wanted of a document.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    whole: bool,
    each: Option<Box<Shape>>,
    names: BTreeMap<String, Shape>,
}

impl Shape {
    /// Adds what a pointer leads to, the whole of it.
    pub(super) fn want(&mut self, pointers: &[&Pointer]) {
        let mut at = self;
        for part in pointers.iter().flat_map(|pointer| pointer.parts()) {
            at = match part {
                None => at.each.get_or_insert_default(),
                Some(name) => at.names.entry(name.to_owned()).or_default(),
            };
        }
        at.whole = true;
    }

    fn below(&self, name: &str) -> Option<Cow<'_, Self>> {
        if self.whole {
            return Some(Cow::Borrowed(self));
        }
        match (self.names.get(name), &self.each) {
            (Some(named), Some(each)) => Some(Cow::Owned(named.clone().and(each))),
            (Some(named), None) => Some(Cow::Borrowed(named)),
            (None, Some(each)) => Some(Cow::Borrowed(each)),
            (None, None) => None,
        }
    }

    fn and(mut self, other: &Self) -> Self {
        self.whole |= other.whole;
        if let Some(each) = &other.each {
            self.each = Some(Box::new(self.each.map_or_else(|| (**each).clone(), |own| own.and(each))));
        }
        for (name, shape) in &other.names {
            let own = self.names.remove(name).unwrap_or_default();
            self.names.insert(name.clone(), own.and(shape));
        }
        self
    }
}

/// The JSON documents that the lines of a file are.
#[derive(Default)]
pub(super) struct Lines {
    /// In order.
    pub(super) documents: Vec<Value>,
    /// Those that end a line on which something else stands before them. They are not read: anybody may quote a document.
    pub(super) quoted: Vec<Value>,
    /// Whether a line that begins as a document is none, or there were too many values to keep all documents.
    pub(super) broken: bool,
}

/// A file's content.
pub(super) struct File {
    bytes: Vec<u8>,
    shape: Shape,
    json: RefCell<Option<Option<Rc<Value>>>>,
    lines: RefCell<BTreeMap<String, Rc<Lines>>>,
}

impl File {
    /// The JSON document that it is, if it is one.
    pub(super) fn json(&self) -> Option<Rc<Value>> {
        let parsed = || parse(&self.bytes, &self.shape, &Cell::new(VALUES)).map(Rc::new);
        self.json.borrow_mut().get_or_insert_with(parsed).clone()
    }

    /// The JSON documents that its lines are which begin with a prefix. Where they hold more values than are kept, the last ones
    /// are kept: they tell how it ended.
    pub(super) fn lines(&self, prefix: &str) -> Rc<Lines> {
        if let Some(known) = self.lines.borrow().get(prefix) {
            return known.clone();
        }
        let left = Cell::new(VALUES);
        let mut lines = Lines::default();
        for line in self.bytes.rsplit(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            let json =
                line.strip_prefix(prefix.as_bytes()).map(<[u8]>::trim_ascii).filter(|json| json.first() == Some(&b'{'));
            match json {
                Some(json) => match parse(json, &self.shape, &left) {
                    Some(document) => lines.documents.push(document),
                    None => lines.broken |= begins_as_document(json),
                },
                None => lines.quoted.extend(within(line, prefix, &self.shape, &left)),
            }
            if left.get() == 0 {
                lines.broken = true;
                break;
            }
        }
        lines.documents.reverse();
        lines.quoted.reverse();
        let lines = Rc::new(lines);
        self.lines.borrow_mut().insert(prefix.to_owned(), lines.clone());
        lines
    }

    /// Whether it is longer than what is read of it as text.
    pub(super) fn outgrows_text(&self) -> bool {
        self.bytes.len() > TEXT
    }

    /// Its end as text.
    pub(super) fn text(&self) -> String {
        let tail = &self.bytes[self.bytes.len().saturating_sub(TEXT)..];
        String::from_utf8_lossy(tail).into_owned()
    }
}

/// The files of an attempt, each got and parsed at most once.
pub(super) struct Files<'a> {
    get: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    shapes: BTreeMap<&'a str, Shape>,
    read: RefCell<BTreeMap<String, Option<Rc<File>>>>,
}

impl<'a> Files<'a> {
    /// Files of which these shapes are wanted, by name.
    pub(super) fn new(get: &'a dyn Fn(&str) -> Option<Vec<u8>>, shapes: BTreeMap<&'a str, Shape>) -> Self {
        Self { get, shapes, read: RefCell::default() }
    }

    /// A file, if it is there.
    pub(super) fn file(&self, name: &str) -> Option<Rc<File>> {
        if let Some(known) = self.read.borrow().get(name) {
            return known.clone();
        }
        let shape = self.shapes.get(name).cloned().unwrap_or_default();
        let file = (self.get)(name)
            .map(|bytes| Rc::new(File { bytes, shape, json: RefCell::default(), lines: RefCell::default() }));
        self.read.borrow_mut().insert(name.to_owned(), file.clone());
        file
    }
}

/// Whether a text that is no document was meant as one: a brace that opens code, or a table of another language, was not.
fn begins_as_document(text: &[u8]) -> bool {
    text.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().first() == Some(&b'"'))
}

/// The document with which a line ends that begins with something else.
fn within(line: &[u8], prefix: &str, shape: &Shape, left: &Cell<u32>) -> Option<Value> {
    if line.last() != Some(&b'}') {
        return None;
    }
    let begin = if prefix.is_empty() { "{\"" } else { prefix };
    let starts = line.windows(begin.len()).enumerate().filter(|(_, window)| *window == begin.as_bytes());
    starts.take(WITHIN).find_map(|(at, _)| {
        let json = line.get(at..)?.strip_prefix(prefix.as_bytes())?.trim_ascii_start();
        begins_as_document(json).then(|| parse(json, shape, left))?
    })
}

/// Parses what is wanted of a document. Bytes that are no UTF-8 are replaced.
fn parse(bytes: &[u8], shape: &Shape, left: &Cell<u32>) -> Option<Value> {
    let parsed = |text: &[u8]| {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = Wanted { shape, left }.deserialize(&mut reader).ok()?;
        reader.end().ok().map(|()| value)
    };
    parsed(bytes).or_else(|| match std::str::from_utf8(bytes) {
        Ok(_) => None,
        Err(_) => parsed(String::from_utf8_lossy(bytes).as_bytes()),
    })
}

struct Wanted<'a> {
    shape: &'a Shape,
    left: &'a Cell<u32>,
}

impl Wanted<'_> {
    fn spend<E: Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        self.left.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.spend()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        let numbered = !self.shape.whole && !self.shape.names.is_empty();
        let every = if self.shape.whole { Some(self.shape) } else { self.shape.each.as_deref() };
        loop {
            let own = if numbered { self.shape.below(&values.len().to_string()) } else { None };
            match own.as_deref().or(every) {
                Some(shape) => match list.next_element_seed(Wanted { shape, left: self.left })? {
                    Some(value) => values.push(value),
                    None => return Ok(values.into()),
                },
                // What stands between keeps its number.
                None if numbered => match list.next_element::<IgnoredAny>()? {
                    Some(_) => {
                        self.spend()?;
                        values.push(Value::Null);
                    }
                    None => return Ok(values.into()),
                },
                None => {
                    if list.next_element::<IgnoredAny>()?.is_none() {
                        return Ok(values.into());
                    }
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            match self.shape.below(&name) {
                Some(shape) => {
                    let value = map.next_value_seed(Wanted { shape: &shape, left: self.left })?;
                    values.insert(name, value);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(pointers: &[&str], text: &str) -> Option<Value> {
        let mut shape = Shape::default();
        for pointer in pointers {
            shape.want(&[&Pointer::parse(pointer).unwrap()]);
        }
        parse(text.as_bytes(), &shape, &Cell::new(1000))
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let text = r#"{"a": [{"b": {"n": 1}, "c": "long"}, {"b": null}], "d": "x", "e": [5, 6, 7]}"#;
        assert_eq!(kept(&["/a/*/b"], text), Some(json!({"a": [{"b": {"n": 1}}, {"b": null}]})));
        assert_eq!(kept(&["/d", "/e/1"], text), Some(json!({"d": "x", "e": [null, 6, null]})));
        assert_eq!(kept(&["/a/1/b", "/a/*/c"], text), Some(json!({"a": [{"c": "long"}, {"b": null}]})));
        assert_eq!(kept(&[""], text), Some(serde_json::from_str(text).unwrap()));
        assert_eq!(kept(&[], text), Some(json!({})));
    }

    #[test]
    fn what_is_no_json_is_no_document() {
        for text in ["", "{", "{}{}", "nul", "[1,]", &"[".repeat(100_000), &format!("{{\"a\":{}", "[".repeat(5000))] {
            assert_eq!(kept(&["/a"], text), None, "{text:.20}");
        }
        let deep = format!("{{\"a\": 1, \"b\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(kept(&["/a"], &deep), Some(json!({"a": 1})), "what is skipped may be as deep as it likes");
        assert_eq!(kept(&["/b"], &deep), None);
        let wide = format!("[{}0]", "0,".repeat(2000));
        assert_eq!(kept(&["/*"], &wide), None, "more values than are kept");
        assert_eq!(kept(&["/a/b"], &format!("{{\"a\": {wide}}}")), None);
    }

    fn lines(text: &str) -> Rc<Lines> {
        let mut shape = Shape::default();
        shape.want(&[&Pointer::parse("/a").unwrap()]);
        let file = File { bytes: text.into(), shape, json: RefCell::default(), lines: RefCell::default() };
        file.lines("")
    }

    #[test]
    fn a_line_that_was_meant_as_a_document_and_is_none_is_told() {
        for text in ["{\"a\": NaN}", "{\"a\": 1e400}", "{ \"a\": 1", "{\"a\": 1}\r{}"] {
            let lines = lines(&format!("{{\"a\": 1}}\n{text}\nno json\n"));
            assert!(lines.broken && lines.documents.len() == 1, "{text}");
        }
        for text in ["int main() {", "{", "{'a': 1}", "{\"a\": 2}"] {
            assert!(!lines(text).broken, "{text}");
        }
        assert_eq!(lines("the tool said{\"a\": 1}\n").quoted, [json!({"a": 1})]);
    }

    #[test]
    fn of_too_many_documents_the_last_are_kept_and_that_is_told() {
        let flood = lines(&format!("{{\"a\": 1}}\n{}{{\"a\": 2}}\n", "{}\n".repeat(VALUES as usize)));
        assert!(flood.broken);
        assert_eq!(flood.documents.last(), Some(&json!({"a": 2})));
    }
}
