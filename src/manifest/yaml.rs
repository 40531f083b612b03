//! Reads YAML as a value, and refuses what agents read differently.
//!
//! Most agents are written in Python, whose reader follows YAML 1.1; others follow 1.2, and `n`, `1e3` or `2024-01-01` is not the same
//! to both. flow cannot know by which of them an agent reads, so a word on which they disagree has to be written otherwise.

use std::sync::OnceLock;

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use regex::Regex;
use serde_json::Value as Json;

use super::config::{Strict, Unparsed};
use super::literals::{self, Edit, edited, int_key};

/// A longer word is a text to everybody.
const WORD: usize = 64;

/// Parses YAML; a key given twice is an error, and so is what agents read differently.
pub(super) fn parse_yaml(text: &str) -> Result<Json, Unparsed> {
    match serde_saphyr::from_str_with_options::<Strict>(text, options()) {
        Ok(strict) => match examined(text)? {
            kept if kept.is_empty() => Ok(strict.0),
            // Read again with its numbers as texts: nothing else of it is another.
            kept => serde_saphyr::from_str_with_options::<Strict>(&edited(text, &kept), options())
                .map(|strict| strict.0)
                .map_err(|_| Unparsed {
                    message: "a number that is too long: put it in quotes".to_owned(),
                    line: None,
                }),
        },
        Err(error) => {
            let full = error.to_string();
            let message = full.rsplit_once(" at line ").map_or(full.clone(), |(message, _)| message.to_owned());
            let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or_default().to_owned();
            let message = match message.strip_prefix("duplicate mapping key: ") {
                Some(key) => format!("duplicate key `{key}`"),
                None => message,
            };
            let line = error.location().and_then(|at| usize::try_from(at.line()).ok());
            Err(Unparsed { message, line: line.filter(|&line| line > 0) })
        }
    }
}

fn options() -> serde_saphyr::Options {
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::Error;
    options.with_snippet = false;
    options
}

/// What a word without quotes is to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Int,
    Float,
    /// A date, a merge: what only YAML 1.1 knows.
    Other,
    Text,
}

/// What a list or a table is read of.
enum Within {
    List,
    Table { key_is_next: bool, merges: bool },
}

/// Goes through a document that can be read: the numbers of it that have to be kept as texts.
///
/// # Errors
/// The first place that agents read differently.
fn examined(text: &str) -> Result<Vec<Edit>, Unparsed> {
    if let Some((at, found)) = text.char_indices().find(|(_, c)| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')) {
        let message = format!(
            "the character U+{:04X}, which ends a line for some agents and not for others: take it out",
            u32::from(found)
        );
        return Err(Unparsed { message, line: Some(text[..at].matches('\n').count() + 1) });
    }
    let (mut within, mut kept): (Vec<Within>, Vec<Edit>) = (Vec::new(), Vec::new());
    let document = text.trim_start_matches('\u{feff}');
    let mark = text.len() - document.len();
    for event in Parser::new_from_str(document) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(_) => return Err(Unparsed { message: "not every agent can read it".to_owned(), line: None }),
        };
        let refused = match &event {
            Event::Scalar(word, style, _, tag) => {
                let place = match within.last_mut() {
                    Some(Within::Table { key_is_next: true, merges }) => Some(merges),
                    _ => None,
                };
                why_tag(tag.as_deref()).or_else(|| match (place, *style == ScalarStyle::Plain && tag.is_none()) {
                    (Some(merges), plain) if word.as_ref() == "<<" => why_merge(plain, merges),
                    (Some(_), true) => why_key(word),
                    (None, true) => why_value(word),
                    _ => None,
                })
            }
            Event::SequenceStart(_, _, tag) | Event::MappingStart(_, _, tag) => why_tag(tag.as_deref()),
            _ => None,
        };
        if let Some(message) = refused {
            return Err(Unparsed { message, line: Some(span.start.line()).filter(|&line| line > 0) });
        }
        if let Event::Scalar(word, ScalarStyle::Plain, _, None) = &event
            && matches!(kind_1_2(word), Kind::Int | Kind::Float)
        {
            let is_key = matches!(within.last(), Some(Within::Table { key_is_next: true, .. }));
            let from = span.byte_range().map_or(text.len(), |range| range.start + mark);
            let at = from..from + word.len();
            if text.get(at.clone()) != Some(word) {
                let message = "a number that flow does not find in the text: put it in quotes".to_owned();
                return Err(Unparsed { message, line: Some(span.start.line()).filter(|&line| line > 0) });
            }
            match is_key {
                true => kept.push((at, format!("\"{}\"", int_key(word)))),
                false => kept.extend(literals::kept(at, word)),
            }
        }
        match event {
            Event::SequenceStart(..) => within.push(Within::List),
            Event::MappingStart(..) => within.push(Within::Table { key_is_next: true, merges: false }),
            Event::SequenceEnd | Event::MappingEnd => {
                within.pop();
                turn(&mut within);
            }
            Event::Scalar(..) | Event::Alias(_) => turn(&mut within),
            _ => {}
        }
    }
    Ok(kept)
}

/// After a key its value comes, and after a value the next key.
fn turn(within: &mut [Within]) {
    if let Some(Within::Table { key_is_next, .. }) = within.last_mut() {
        *key_is_next = !*key_is_next;
    }
}

fn why_tag(tag: Option<&Tag>) -> Option<String> {
    let tag = tag?;
    let full = format!("{}{}", tag.handle(), tag.suffix());
    let plain = full.strip_prefix("tag:yaml.org,2002:").is_some_and(|kind| matches!(kind, "str" | "seq" | "map"));
    (!plain).then(|| "a tag (`!…`) that agents read in their own ways: write the value without it".to_owned())
}

fn why_merge(plain: bool, merges: &mut bool) -> Option<String> {
    if !plain {
        return Some("a key `<<` in quotes, which some agents merge and others do not".to_owned());
    }
    std::mem::replace(merges, true).then(|| "duplicate key `<<`: merge a list, as in `<<: [*a, *b]`".to_owned())
}

fn why_key(word: &str) -> Option<String> {
    match (kind_1_1(word), kind_1_2(word)) {
        (Kind::Text, Kind::Text) => None,
        (Kind::Int, Kind::Int) if !leads_with_zero(word) => None,
        // Never the word of a value: nothing here can be a secret but by a very odd name.
        _ => Some(format!("a key `{}` without quotes, which is no text to every agent: quote it", short(word))),
    }
}

fn why_value(word: &str) -> Option<String> {
    let (old, new) = (kind_1_1(word), kind_1_2(word));
    let says = |words: &[&str]| words.iter().any(|other| word.eq_ignore_ascii_case(other));
    if says(&["y", "n", "yes", "no", "on", "off", "true", "false", "null"]) {
        let same = old == new && old != Kind::Text;
        return (!same).then(|| {
            format!(
                "a value `{word}` without quotes, which agents read differently: quote it, or write true, false or null"
            )
        });
    }
    let same = old == new && !(old == Kind::Int && leads_with_zero(word)) && reads_as(word, old);
    (!same).then(|| {
        "a value without quotes that is a number or a date to some agents and a text to others: quote it, or write the number \
         in full"
            .to_owned()
    })
}

fn leads_with_zero(word: &str) -> bool {
    let digits = word.trim_start_matches(['-', '+']);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn short(word: &str) -> &str {
    word.char_indices().nth(20).map_or(word, |(at, _)| &word[..at])
}

/// Whether flow's own reader takes a word for that.
fn reads_as(word: &str, kind: Kind) -> bool {
    if word.is_empty() || word.len() > WORD || word.contains(char::is_whitespace) {
        return true;
    }
    // A word that is no document of its own is a text.
    let Ok(Strict(value)) = serde_saphyr::from_str_with_options::<Strict>(word, options()) else { return true };
    match value {
        Json::Null => kind == Kind::Null,
        Json::Bool(_) => kind == Kind::Bool,
        Json::Number(_) => matches!(kind, Kind::Int | Kind::Float),
        Json::String(text) if text.starts_with("$float:") => matches!(kind, Kind::Float | Kind::Text),
        Json::String(_) => kind == Kind::Text,
        Json::Array(_) | Json::Object(_) => true,
    }
}

/// What a word is by YAML 1.1, as Python's reader has it.
fn kind_1_1(word: &str) -> Kind {
    static TABLE: OnceLock<Vec<(Kind, Regex)>> = OnceLock::new();
    kind(word, TABLE.get_or_init(|| compiled(YAML_1_1)))
}

/// What a word is by the core schema of YAML 1.2.
fn kind_1_2(word: &str) -> Kind {
    static TABLE: OnceLock<Vec<(Kind, Regex)>> = OnceLock::new();
    kind(word, TABLE.get_or_init(|| compiled(YAML_1_2)))
}

fn kind(word: &str, table: &[(Kind, Regex)]) -> Kind {
    if word.len() > WORD {
        return Kind::Text;
    }
    table.iter().find(|(_, pattern)| pattern.is_match(word)).map_or(Kind::Text, |(kind, _)| *kind)
}

fn compiled(table: &[(Kind, &str)]) -> Vec<(Kind, Regex)> {
    // Whether each can be compiled is tested below.
    table.iter().filter_map(|(kind, text)| Some((*kind, Regex::new(&format!("^(?:{text})$")).ok()?))).collect()
}

const YAML_1_1: &[(Kind, &str)] = &[
    (Kind::Null, "~|null|Null|NULL|"),
    (Kind::Bool, "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"),
    (
        Kind::Int,
        "[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
    ),
    (
        Kind::Float,
        "[-+]?[0-9][0-9_]*\\.[0-9_]*(?:[eE][-+][0-9]+)?|\\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\\.[0-9_]*|[-+]?\\.(?:inf|Inf|INF)|\\.(?:nan|NaN|NAN)",
    ),
    (
        Kind::Other,
        "<<|=|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \\t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\\.[0-9]*)?(?:[ \\t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?",
    ),
];

const YAML_1_2: &[(Kind, &str)] = &[
    (Kind::Null, "~|null|Null|NULL|"),
    (Kind::Bool, "true|True|TRUE|false|False|FALSE"),
    (Kind::Int, "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    (
        Kind::Float,
        "[-+]?(?:\\.[0-9]+|[0-9]+(?:\\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\\.(?:inf|Inf|INF)|\\.(?:nan|NaN|NAN)",
    ),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(compiled(YAML_1_1).len(), YAML_1_1.len());
        assert_eq!(compiled(YAML_1_2).len(), YAML_1_2.len());
    }

    #[test]
    fn what_agents_read_differently_is_refused_with_its_line_and_never_its_value() {
        for value in [
            "n",
            "y",
            "no",
            "Yes",
            "on",
            "OFF",
            "nUll",
            "tRue",
            "1e3",
            "1.5e3",
            "1e-3",
            "0o10",
            "010",
            "089",
            "0b11",
            "1_000",
            "1:30",
            "2024-01-01",
            "=",
            "-0x1F",
            "! false",
            "!foo false",
            "!!binary aGk=",
            "!!bool \"true\"",
            "!!float 3",
        ] {
            let problem = parse_yaml(&format!("# one\nm: {{p: {value}}}\n")).unwrap_err();
            assert_eq!(problem.line, Some(2), "{value}");
            assert!(!problem.message.contains("1_000"), "{problem:?}");
        }
        for text in [
            "m: !!set {a, b}\n",
            "m: !!omap [a: 1]\n",
            "yes: 1\n",
            "true: 1\n",
            "~: 1\n",
            "1.5: 1\n",
            "? [n]\n: 1\n",
            "a: &a {p: true}\nm:\n  \"<<\": *a\n",
        ] {
            assert!(parse_yaml(text).is_err(), "{text}");
        }
        let twice = parse_yaml("a: &a {p: true}\nb: &b {p: false}\nm:\n  <<: *b\n  <<: *a\n").unwrap_err();
        assert!(twice.message.contains("duplicate key `<<`"), "{twice:?}");
    }

    #[test]
    fn what_all_read_alike_is_read() {
        for value in [
            "true",
            "False",
            "null",
            "~",
            "\"n\"",
            "'1e3'",
            "-5",
            "+5",
            "0",
            "0x1F",
            "1.5",
            ".5",
            "1.",
            "1.0e-5",
            "claude-2024-01-01",
            "1.2.3",
            "gpt-5",
            "http://localhost:8080/v1",
            "!!str no",
            "2024-01-01x",
            "e3",
            "a b",
            "|\n  no\n",
        ] {
            let read = parse_yaml(&format!("p: {value}\n"));
            assert!(read.is_ok(), "{value}: {read:?}");
        }
        assert!(parse_yaml("\u{feff}p: false\r\nq: 1\r\n").is_ok());
        let merged = parse_yaml("b: &b {p: true}\nm:\n  <<: *b\n  q: [1, {x: 2, y: true}]\n  50256: -100\n").unwrap();
        assert_eq!(merged["m"]["p"], Json::Bool(true));
        assert_eq!(merged["m"]["$int:50256"], Json::from(-100));
    }

    #[test]
    fn numbers_that_no_float_holds_and_keys_that_are_numbers_are_told_apart() {
        for (one, other) in [
            ("a: 123456789012345678901", "a: 123456789012345678902"),
            ("a: [1, 0.1]", "a: [1, 0.1000000000000000055]"),
            ("9: a", "\"9\": a"),
            ("é: {9: a}", "é: {\"9\": a}"),
            ("\u{feff}? 9\n: a", "? '9'\n: a"),
            ("a: &x 123456789012345678901 # é\nb: *x", "a: &x 123456789012345678902 # é\nb: *x"),
        ] {
            let read = |text: &str| parse_yaml(&format!("{text}\n")).unwrap();
            assert_ne!(read(one), read(other), "{one}");
        }
        assert_eq!(parse_yaml("0x1F: a\n").unwrap(), parse_yaml("31: a\n").unwrap());
        assert_eq!(parse_yaml("a: 18446744073709551615\n").unwrap()["a"], Json::from(u64::MAX));
    }
}
