//! Secrets put where a config says `{secret.NAME}`, so that what an agent reads is what was checked and nothing else.
//!
//! A value may hold what ends a string or begins a line. So it is written as the place wants it, the filled text is parsed
//! again, and it must say the same as the config that was checked, but for the texts that hold a secret. Messages name secrets
//! and lines, never values.

use std::path::Path;

use serde_json::Value as Json;

use super::config::parse;
use crate::redact::Secret;

/// Why a config cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum Unfilled {
    /// The config as such cannot be read any more.
    #[error("the config is no text of the kind that its ending says")]
    Unread,
    /// The place takes no text.
    #[error("line {line}: `{{secret.{name}}}` does not stand within a text: put it in quotes")]
    Outside {
        /// The secret.
        name: String,
        /// The line of the config, from 1.
        line: usize,
    },
    /// The value cannot be written where it is wanted.
    #[error(
        "line {line}: the value of the secret {name} would say something else there than a text: put `{{secret.{name}}}` in double quotes, or have the secret without line ends and quotes"
    )]
    Changes {
        /// The secret.
        name: String,
        /// The line of the config, from 1.
        line: usize,
    },
}

/// A `{secret.NAME}` in the text of a config.
struct Hole<'a> {
    at: usize,
    len: usize,
    name: &'a str,
    value: &'a str,
    /// What stands for it while the text around it is looked at.
    token: String,
}

/// The text of a config with its secrets filled in. The ending of `file` says what it is. A `{secret.NAME}` that stands in a
/// comment, or of whose name there is no secret, stays as it is.
///
/// # Errors
/// If a secret cannot be put where it is wanted without changing what else the config says.
pub fn fill_config(text: &str, file: &Path, secrets: &[Secret]) -> Result<String, Unfilled> {
    let parse = |text: &str| parse(file, text).and_then(Result::ok);
    let checked = parse(text).ok_or(Unfilled::Unread)?;
    let holes = holes(text, secrets);
    let line = |hole: &Hole<'_>| 1 + text[..hole.at].matches('\n').count();
    let outside = |hole: &Hole<'_>| Unfilled::Outside { name: hole.name.to_owned(), line: line(hole) };
    let changes = |hole: &Hole<'_>| Unfilled::Changes { name: hole.name.to_owned(), line: line(hole) };

    // With words in their places the holes must be texts, or parts of some.
    let words = parse(&written(text, &holes, |hole| hole.token.clone()));
    let same = |words: &Json| {
        put(words, &|text| holes.iter().fold(text, |text, hole| text.replace(&hole.token, &hole_of(hole.name))))
            == checked
    };
    let Some(words) = words.filter(same) else {
        // The first that alone does not do is told.
        let alone = |hole: &&Hole<'_>| {
            let one = written(text, std::slice::from_ref(*hole), |hole| hole.token.clone());
            parse(&one).is_none_or(|one| put(&one, &|text| text.replace(&hole.token, &hole_of(hole.name))) != checked)
        };
        return Err(holes.iter().find(alone).or(holes.first()).map_or(Unfilled::Unread, outside));
    };
    let wanted = |only: Option<&Hole<'_>>| {
        let filled = |hole: &Hole<'_>| only.is_none_or(|only| only.at == hole.at);
        put(&words, &|text| {
            holes.iter().filter(|hole| filled(hole)).fold(text, |text, hole| text.replace(&hole.token, hole.value))
        })
    };
    let mut spellings = Vec::new();
    for hole in &holes {
        if !says(&words, &hole.token) {
            spellings.push(hole_of(hole.name));
            continue;
        }
        let wanted = wanted(Some(hole));
        let mut ways = ways(hole.value).into_iter();
        let fits = |way: &String| {
            let spelt = |other: &Hole<'_>| if other.at == hole.at { way.clone() } else { other.token.clone() };
            parse(&written(text, &holes, spelt)).as_ref() == Some(&wanted)
        };
        spellings.push(ways.find(fits).ok_or_else(|| changes(hole))?);
    }
    let mut each = spellings.into_iter();
    let filled = written(text, &holes, |_| each.next().unwrap_or_default());
    match holes.first() {
        Some(hole) if parse(&filled).as_ref() != Some(&wanted(None)) => Err(changes(hole)),
        _ => Ok(filled),
    }
}

/// The ways to write a value: as it is, within double quotes, within single quotes.
fn ways(value: &str) -> [String; 3] {
    let quoted = Json::from(value).to_string();
    [value.to_owned(), quoted[1..quoted.len() - 1].to_owned(), value.replace('\'', "''")]
}

fn hole_of(name: &str) -> String {
    format!("{{secret.{name}}}")
}

/// Where the secrets are wanted, in the order of the text.
fn holes<'a>(text: &str, secrets: &'a [Secret]) -> Vec<Hole<'a>> {
    // A word that the text does not hold.
    let word = (0..).map(|n| format!("holeOf{n}x")).find(|word| !text.contains(word.as_str())).unwrap_or_default();
    let mut holes = Vec::new();
    for secret in secrets {
        let Ok(value) = std::str::from_utf8(secret.expose()) else { continue };
        let wanted = hole_of(secret.name());
        for (at, _) in text.match_indices(&wanted) {
            holes.push(Hole { at, len: wanted.len(), name: secret.name(), value, token: String::new() });
        }
    }
    holes.sort_by_key(|hole| hole.at);
    for (n, hole) in holes.iter_mut().enumerate() {
        hole.token = format!("{word}{n}x");
    }
    holes
}

/// The text with something in place of each hole.
fn written<'a>(text: &str, holes: &[Hole<'a>], mut with: impl FnMut(&Hole<'a>) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for hole in holes {
        out.push_str(&text[from..hole.at]);
        out.push_str(&with(hole));
        from = hole.at + hole.len;
    }
    out.push_str(&text[from..]);
    out
}

/// A value with each of its texts, its names too, made another.
fn put(value: &Json, make: &dyn Fn(String) -> String) -> Json {
    match value {
        Json::String(text) => Json::String(make(text.clone())),
        Json::Array(list) => Json::Array(list.iter().map(|value| put(value, make)).collect()),
        Json::Object(object) => {
            Json::Object(object.iter().map(|(name, value)| (make(name.clone()), put(value, make))).collect())
        }
        other => other.clone(),
    }
}

/// Whether some text of a value holds a word.
fn says(value: &Json, word: &str) -> bool {
    match value {
        Json::String(text) => text.contains(word),
        Json::Array(list) => list.iter().any(|value| says(value, word)),
        Json::Object(object) => object.iter().any(|(name, value)| name.contains(word) || says(value, word)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filled(file: &str, text: &str, value: &str) -> Result<Json, String> {
        let secrets = [Secret::new("K", value.into()), Secret::new("OTHER", b"other".to_vec())];
        let filled = fill_config(text, Path::new(file), &secrets).map_err(|error| error.to_string())?;
        Ok(parse(Path::new(file), &filled).unwrap().unwrap())
    }

    const AWKWARD: [&str; 8] = [
        "plain",
        "with \"quotes\"",
        "two\nlines: \"b\"\nsafe: true",
        "a: b # c",
        "it's",
        "back\\slash",
        "x\", \"safe\": true, \"y\": \"",
        "x\"\nsafe: true\ny: \"",
    ];

    #[test]
    fn within_double_quotes_any_value_is_a_text() {
        for value in AWKWARD {
            for (file, text) in [
                ("c.json", r#"{"key": "Bearer {secret.K}", "safe": false, "o": "{secret.OTHER}"}"#),
                ("c.yaml", "key: \"Bearer {secret.K}\"\nsafe: false\no: '{secret.OTHER}' # {secret.OTHER}\n"),
                ("c.toml", "key = \"Bearer {secret.K}\"\nsafe = false\no = \"{secret.OTHER}\"\n"),
            ] {
                let wanted = json!({"key": format!("Bearer {value}"), "safe": false, "o": "other"});
                assert_eq!(filled(file, text, value), Ok(wanted), "{file}: {value}");
            }
        }
    }

    #[test]
    fn elsewhere_a_value_is_written_so_that_it_is_a_text_or_not_at_all() {
        let single = |value| filled("c.yml", "key: '{secret.K}'\nsafe: false\n", value);
        assert_eq!(single("it's # a \"b\": c"), Ok(json!({"key": "it's # a \"b\": c", "safe": false})));
        let bare = |value| filled("c.yml", "key: Bearer {secret.K}\nsafe: false\n", value);
        assert_eq!(bare("sk-1234"), Ok(json!({"key": "Bearer sk-1234", "safe": false})));
        for value in ["a # b", "a: b", "a\nsafe: true", "a\n  b"] {
            let why = bare(value).unwrap_err();
            assert!(why.starts_with("line 1: the value of the secret K would say something else"), "{why}");
            assert!(!why.contains(value));
        }
        assert!(filled("c.toml", "key = '{secret.K}'\nsafe = false\n", "it's").is_err());
    }

    #[test]
    fn a_comment_is_not_filled_and_what_is_no_text_is_refused() {
        let secrets = [Secret::new("K", b"a\nsafe: true".to_vec())];
        let text = "safe: false # {secret.K}\nother: \"{secret.NOBODY}\"\n";
        assert_eq!(fill_config(text, Path::new("c.yaml"), &secrets).unwrap(), text);
        let why = filled("c.yaml", "a: 1\nkey: {secret.K}\n", "sk-1").unwrap_err();
        assert_eq!(why, "line 2: `{secret.K}` does not stand within a text: put it in quotes");
    }

    proptest! {
        #[test]
        fn a_filled_config_says_what_was_checked_or_is_refused(
            value in "[a-z:#{}\\[\\]\"'\\\\\n ,=&*!|>%@-]{1,12}",
            text in prop::sample::select(vec![
                "key: {secret.K}x\nsafe: false\n", "key: x{secret.K}\nsafe: false\n", "safe: false\nkey: x {secret.K}\n",
                "key: '{secret.K}'\nsafe: false\n", "key: \"{secret.K}\"\nsafe: false\n",
                "key: |\n  {secret.K}\nsafe: false\n", "safe: false\nlist: [x{secret.K}, y]\n", "x{secret.K}: 1\nsafe: false\n",
            ]),
        ) {
            if let Ok(said) = filled("c.yaml", text, &value) {
                prop_assert_eq!(&said["safe"], &json!(false));
                prop_assert_eq!(said.as_object().unwrap().len(), 2);
                let secret = Secret::new("K", value.into_bytes());
                prop_assert!(says(&said, std::str::from_utf8(secret.expose()).unwrap()));
            }
        }
    }
}
