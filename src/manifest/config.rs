//! Reads an agent's configuration: YAML, TOML or JSON by its ending, as one value with sorted keys; checks `require`.
//!
//! Refuses a file that says something twice or holds a secret. Messages never quote a value that may be one: they name
//! its path and line, and point into the manifest, whose text holds no secret.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};

use super::Config;
use super::filling::{Unfilled, fill_config};
use super::flaw::{Draft, Report, nearest};
use super::literals::{INT_KEY, NUMBER, edited, in_json, in_toml};
use super::locate::locate;
use super::node::{Node, Value};
use super::read::{missing, read_bytes};
use super::types::split_dotted;
use super::yaml::parse_yaml;
use crate::redact::Secret;

/// The largest configuration, in bytes.
const CONFIG_BYTES: u64 = 4 << 20;

/// A number of so many digits under a secret's name is one.
const DIGITS: usize = 6;

/// Why a text could not be parsed; never with a value, which may be a secret.
#[derive(Debug)]
pub(super) struct Unparsed {
    /// What is wrong, without the place.
    pub(super) message: String,
    /// The line, from 1.
    pub(super) line: Option<usize>,
}

/// Reads what a `config` node names.
pub(super) fn read(node: Node<'_>, report: &Report) -> Option<Config> {
    let source = node.arg(0)?;
    let written = source.str().filter(|text| !text.is_empty())?;
    let file = source.path()?;
    let bytes = match read_bytes(report, &file.value, CONFIG_BYTES) {
        Ok(bytes) => bytes,
        Err(problem) => {
            missing(report, file.place, written, &file.value, &problem);
            return None;
        }
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        missing(report, file.place, written, &file.value, "it is not text (UTF-8)");
        return None;
    };
    let Some(parsed) = parse(&file.value, text) else {
        report.add(
            Draft::new("unknown-ending", file.place, format!("flow cannot tell what `{written}` is"))
                .label("what is it?")
                .help("a config ends in .yaml, .yml, .toml or .json; any other file is given with `file`"),
        );
        return None;
    };
    let value = match parsed {
        Ok(value) => sorted(value),
        Err(problem) => {
            let line = problem.line.map(|line| format!(", line {line}")).unwrap_or_default();
            let duplicate = problem.message.contains("uplicate");
            let code = if duplicate { "duplicate-key" } else { "bad-config" };
            let help = if duplicate {
                "keep one of the two: which of them an agent would read depends on its parser"
            } else {
                "mend the file, then run `flow check` again"
            };
            report.add(
                Draft::new(code, file.place, format!("{written}{line}: {}", problem.message))
                    .label("cannot be read")
                    .help(help),
            );
            return None;
        }
    };
    if let Some(mark) = [NUMBER, INT_KEY].into_iter().find(|mark| text.contains(mark)) {
        report.add(
            Draft::new("bad-config", file.place, format!("{written}: it holds the text `{mark}`"))
                .label("cannot be told from a number")
                .help("flow keeps a number that is too long for 64 bits as such a text: write another one"),
        );
        return None;
    }
    for (path, why) in secrets(&value) {
        let line = line_of(text, path.rsplit('.').next().unwrap_or(&path));
        report.add(
            Draft::new("literal-secret", file.place, format!("{written}{line}: `{path}` holds {why}"))
                .label("written out in this file")
                .help("write \"{secret.NAME}\" there and `secret NAME` in the candidate; and renew the key if the file was shared"),
        );
    }
    if let Err(problem @ Unfilled::Outside { .. }) = fill_config(text, &file.value, &stand_ins(text)) {
        report.add(
            Draft::new("secret-outside-text", file.place, format!("{written}, {problem}"))
                .label("would not be a text")
                .help("write \"{secret.NAME}\", with the quotes"),
        );
    }
    for required in node.all("require") {
        require(required, &value, &Text { written, text }, report);
    }
    Some(Config { file, value, bytes: bytes.into() })
}

/// Something in place of each secret that a config asks for.
fn stand_ins(text: &str) -> Vec<Secret> {
    let names = text.split("{secret.").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let names: BTreeSet<&str> = names.filter(|name| name.len() <= 200).take(64).collect();
    names.into_iter().map(|name| Secret::new(name, b"stands-in".to_vec())).collect()
}

/// Parses a text as the ending of its file's name says; `None` if that says nothing.
pub(super) fn parse(file: &Path, text: &str) -> Option<Result<Json, Unparsed>> {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    Some(match ending.as_str() {
        "yaml" | "yml" => parse_yaml(text),
        "toml" => parse_toml(text),
        "json" => parse_json(text),
        _ => return None,
    })
}

fn line_of(text: &str, key: &str) -> String {
    let mut lines = text.lines().enumerate().filter(|(_, line)| line.contains(key));
    match (lines.next(), lines.next()) {
        (Some((n, _)), None) => format!(", line {}", n + 1),
        // Several lines hold the word; the dotted path tells which is meant.
        _ => String::new(),
    }
}

/// A configuration's file, to point into.
struct Text<'a> {
    written: &'a str,
    text: &'a str,
}

fn require(node: Node<'_>, value: &Json, file: &Text<'_>, report: &Report) -> Option<()> {
    let written = file.written;
    let path = node.arg(0)?;
    let wanted = node.arg(1)?;
    let text = path.str()?;
    let segments = split_dotted(text)?;
    let mut at = value;
    for (depth, segment) in segments.iter().enumerate() {
        let next = match at {
            Json::Object(object) => object.get(segment).or_else(|| object.get(&format!("{INT_KEY}{segment}"))),
            Json::Array(list) => segment.parse::<usize>().ok().and_then(|n| list.get(n)),
            _ => None,
        };
        let Some(next) = next else {
            let keys: Vec<&str> = match at {
                Json::Object(object) => object.keys().map(|key| whole_key(key).unwrap_or(key)).collect(),
                _ => Vec::new(),
            };
            let help = match nearest(segment, keys.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if depth == 0 => format!("add it to {written}, or mend the path"),
                None => format!("add it to {written} below `{}`, or mend the path", segments[..depth].join(".")),
            };
            report.add(
                Draft::new("unmet-require", path.place(), format!("{written} has no `{text}`"))
                    .label(format!("`{segment}` is not there"))
                    .help(format!("wanted {}; {help}", wanted.written())),
            );
            return None;
        };
        at = next;
    }
    if !same(at, wanted) {
        let found = match at {
            Json::Object(_) => "a table".to_owned(),
            Json::Array(_) => "a list".to_owned(),
            // What may be a secret is not shown.
            Json::String(text) if literal_secret(segments.last()?, text).is_some() => "another text".to_owned(),
            other => other.to_string().chars().take(80).collect(),
        };
        let mut draft = Draft::new(
            "unmet-require",
            wanted.place(),
            format!("{written}: `{text}` is {found}, not {}", wanted.written()),
        )
        .label("wanted")
        .help(format!("change {written}, or what is required of it"));
        if let Some((offset, _)) = locate(Path::new(written), file.text, &segments) {
            let line = 1 + file.text[..offset].matches('\n').count();
            let text = file.text[offset..].lines().next().unwrap_or_default();
            // The line may hold more than what is asked about.
            let hides = literal_secret(segments.last()?, text).is_some() || !secrets(value).is_empty();
            let text = if hides { "…" } else { text.trim_end() };
            draft = draft.help(format!("{written}:{line} says `{text}`: change it there, or what is required of it"));
        }
        report.add(draft);
    }
    Some(())
}

fn same(found: &Json, wanted: Value<'_>) -> bool {
    match (found, wanted.raw()) {
        (Json::Null, kdl::KdlValue::Null) => true,
        (Json::Bool(a), kdl::KdlValue::Bool(b)) => a == b,
        (Json::String(a), kdl::KdlValue::String(b)) => a == b,
        (Json::String(a), kdl::KdlValue::Integer(b)) => kept_number(a).and_then(|a| a.parse().ok()) == Some(*b),
        #[allow(clippy::float_cmp)]
        (Json::String(a), kdl::KdlValue::Float(b)) => kept_number(a).and_then(|a| a.parse().ok()) == Some(*b),
        (Json::Number(a), kdl::KdlValue::Integer(b)) => match (a.as_i64(), a.as_u64()) {
            (Some(a), _) => i128::from(a) == *b,
            (None, Some(a)) => i128::from(a) == *b,
            // 1.0 in the file is the 1 of the manifest.
            #[allow(clippy::cast_precision_loss, clippy::float_cmp)]
            (None, None) => a.as_f64() == Some(*b as f64),
        },
        #[allow(clippy::float_cmp)]
        (Json::Number(a), kdl::KdlValue::Float(b)) => a.as_f64() == Some(*b),
        _ => false,
    }
}

/// The number that a text stands for because no value of JSON could.
#[must_use]
pub fn kept_number(text: &str) -> Option<&str> {
    text.strip_prefix(NUMBER)
}

/// The whole number that a key was in YAML, which is not the text of its digits.
#[must_use]
pub fn whole_key(key: &str) -> Option<&str> {
    key.strip_prefix(INT_KEY)
}

/// The dotted paths of literal secrets, and what each looks like.
fn secrets(value: &Json) -> Vec<(String, &'static str)> {
    fn walk(value: &Json, path: &str, name: &str, found: &mut Vec<(String, &'static str)>) {
        let below = |key: &str| {
            let key = whole_key(key).unwrap_or(key);
            if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
        };
        match value {
            Json::Object(object) => object.iter().for_each(|(key, value)| walk(value, &below(key), key, found)),
            Json::Array(list) => {
                list.iter().enumerate().for_each(|(n, value)| walk(value, &below(&n.to_string()), name, found));
            }
            Json::String(text) => found.extend(literal_secret(name, text).map(|why| (path.to_owned(), why))),
            // A password of digits is one too.
            Json::Number(number) if secret_name(name) && number.to_string().len() >= DIGITS => {
                found.push((path.to_owned(), "a secret, by its name"));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", "", &mut found);
    found
}

/// Whether a text under a name is a secret written out, and why it seems so.
pub(super) fn literal_secret(name: &str, text: &str) -> Option<&'static str> {
    let refers = |text: &str, open: &str| {
        let inner = text.strip_prefix(open).and_then(|rest| rest.strip_suffix('}'));
        inner.is_some_and(|name| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        })
    };
    let text = text.trim();
    if text.is_empty() || refers(text, "{secret.") || refers(text, "${") {
        return None;
    }
    // As in `Bearer {secret.NAME}`: what stands around the hole is judged by what it looks like, not by the name it stands under.
    let within = text
        .split_once("{secret.")
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(name, _)| refers(&format!("{{secret.{name}}}"), "{secret."));
    if crate::redact::holds_key(text) {
        return Some("what looks like a key");
    }
    (secret_name(name) && !within).then_some("a secret, by its name")
}

/// Whether a name is one of a secret: its last word says so.
#[must_use]
pub fn secret_name(name: &str) -> bool {
    matches!(last_word(name).as_str(), "key" | "token" | "secret" | "password" | "apikey")
}

/// The last word of `apiKey`, `api_key`, `API-KEY`.
fn last_word(name: &str) -> String {
    let tail = name.rsplit(['_', '-', '.', ' ', '/']).next().unwrap_or(name);
    let camel = tail.char_indices().rev().find(|&(i, c)| {
        let before = tail[..i].chars().next_back();
        c.is_ascii_uppercase() && before.is_some_and(|before| before.is_ascii_lowercase() || before.is_ascii_digit())
    });
    camel.map_or(tail, |(i, _)| &tail[i..]).to_lowercase()
}

/// How a structured file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// JSON.
    Json,
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

/// The value that a text says, if it is written so.
#[must_use]
pub fn parsed(text: &str, syntax: Syntax) -> Option<Json> {
    match syntax {
        Syntax::Json => parse_json(text).ok(),
        Syntax::Toml => parse_toml(text).ok(),
        Syntax::Yaml => parse_yaml(text).ok(),
    }
}

/// Parses JSON; a key given twice is an error.
pub(super) fn parse_json(text: &str) -> Result<Json, Unparsed> {
    let unparsed = |error: serde_json::Error| {
        let full = error.to_string();
        let message = full.rsplit_once(" at line ").map_or(full.clone(), |(message, _)| message.to_owned());
        Unparsed { message, line: Some(error.line()).filter(|&line| line > 0) }
    };
    let strict: Strict = serde_json::from_str(text).map_err(unparsed)?;
    match in_json(text) {
        kept if kept.is_empty() => Ok(strict.0),
        kept => serde_json::from_str::<Strict>(&edited(text, &kept)).map(|strict| strict.0).map_err(unparsed),
    }
}

fn parse_toml(text: &str) -> Result<Json, Unparsed> {
    match toml::from_str::<toml::Value>(&edited(text, &in_toml(text))) {
        Ok(value) => Ok(from_toml(value)),
        Err(error) => {
            let line = error
                .span()
                .map(|span| 1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|&&b| b == b'\n').count());
            Err(Unparsed { message: error.message().to_owned(), line })
        }
    }
}

fn from_toml(value: toml::Value) -> Json {
    match value {
        toml::Value::String(text) => Json::String(text),
        toml::Value::Integer(n) => Json::Number(n.into()),
        toml::Value::Float(x) => number(x),
        toml::Value::Boolean(b) => Json::Bool(b),
        // Kept apart from the text of the same letters: an agent reads another type.
        toml::Value::Datetime(at) => {
            Json::Object([("$datetime".to_owned(), Json::String(at.to_string()))].into_iter().collect())
        }
        toml::Value::Array(list) => Json::Array(list.into_iter().map(from_toml).collect()),
        toml::Value::Table(table) => {
            Json::Object(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect())
        }
    }
}

/// JSON has no infinity and no NaN; they become texts that no config holds by accident.
fn number(x: f64) -> Json {
    Number::from_f64(x).map_or_else(|| Json::String(format!("$float:{x}")), Json::Number)
}

fn sorted(value: Json) -> Json {
    match value {
        Json::Object(object) => {
            let mut pairs: Vec<(String, Json)> = object.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(pairs.into_iter().collect())
        }
        Json::Array(list) => Json::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// A value in which no object has a key twice.
pub(super) struct Strict(pub(super) Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_none<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("duplicate key `{key}`")));
            }
            let Strict(value) = access.next_value()?;
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }
}
