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

/// A file's content.
pub(super) struct File {
    bytes: Vec<u8>,
    shape: Shape,
    json: RefCell<Option<Option<Rc<Value>>>>,
    lines: RefCell<BTreeMap<String, Rc<Vec<Value>>>>,
}

impl File {
    /// The JSON document that it is, if it is one.
    pub(super) fn json(&self) -> Option<Rc<Value>> {
        let parsed = || parse(&self.bytes, &self.shape, &Cell::new(VALUES)).map(Rc::new);
        self.json.borrow_mut().get_or_insert_with(parsed).clone()
    }

    /// The JSON documents that its lines are which begin with a prefix.
    pub(super) fn lines(&self, prefix: &str) -> Rc<Vec<Value>> {
        if let Some(known) = self.lines.borrow().get(prefix) {
            return known.clone();
        }
        let left = Cell::new(VALUES);
        let lines = self.bytes.split(|byte| *byte == b'\n').filter_map(|line| {
            let line = line.trim_ascii_start();
            let json = line.strip_prefix(prefix.as_bytes())?.trim_ascii();
            if json.first() == Some(&b'{') { parse(json, &self.shape, &left) } else { None }
        });
        let lines = Rc::new(lines.collect::<Vec<_>>());
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
}
