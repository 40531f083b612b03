//! Numbers of a config that a parsed value cannot hold: an integer beyond 64 bits, a decimal with more digits than a float has, and
//! in YAML a key that is a number and not the text of its digits. Agents in Python read each as it is written, so that two of them
//! must not be one ingredient.
//!
//! Such a number is made a text with a mark before the text is parsed. All others stay what they are.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Stands before the text of such a number.
pub(super) const NUMBER: &str = "$number:";
/// Stands before a key that is a whole number.
pub(super) const INT_KEY: &str = "$int:";

/// A stretch of a text, and what is to stand there.
pub(super) type Edit = (Range<usize>, String);

/// The edit that keeps a number, if it has to be kept as text.
pub(super) fn kept(at: Range<usize>, word: &str) -> Option<Edit> {
    loses(word).then(|| (at, format!("\"{NUMBER}{word}\"")))
}

/// A key that is a whole number, as it is told in a parsed value.
pub(super) fn int_key(word: &str) -> String {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    number.map_or_else(|_| format!("{INT_KEY}{word}"), |number| format!("{INT_KEY}{}", sign * number))
}

/// A text with its edits made, in their order.
pub(super) fn edited<'t>(text: &'t str, edits: &[Edit]) -> Cow<'t, str> {
    if edits.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut out, mut from) = (String::with_capacity(text.len() + 16 * edits.len()), 0);
    for (at, with) in edits {
        out.push_str(text.get(from..at.start).unwrap_or_default());
        out.push_str(with);
        from = at.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(out)
}

/// The numbers of a JSON text, which has been parsed without an error, that have to be kept.
pub(super) fn in_json(text: &str) -> Vec<Edit> {
    let bytes = text.as_bytes();
    let (mut edits, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let from = at;
        match byte {
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                at += bytes[from..].iter().take_while(part).count();
                edits.extend(kept(from..at, &text[from..at]));
            }
            _ => at += 1,
        }
    }
    edits
}

/// As [`in_json`], of TOML: its integers have 64 bits.
pub(super) fn in_toml(text: &str) -> Vec<Edit> {
    fn walk(value: &DeValue<'_>, at: Range<usize>, edits: &mut Vec<Edit>) {
        match value {
            DeValue::Float(float) => edits.extend(kept(at, float.as_str())),
            DeValue::Array(list) => list.iter().for_each(|item| walk(item.get_ref(), item.span(), edits)),
            DeValue::Table(table) => table.values().for_each(|item| walk(item.get_ref(), item.span(), edits)),
            _ => {}
        }
    }
    let mut edits = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        table.get_ref().values().for_each(|item| walk(item.get_ref(), item.span(), &mut edits));
    }
    edits.sort_by_key(|(at, _)| at.start);
    edits
}

/// Whether a number says more than 64 bits hold.
fn loses(word: &str) -> bool {
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).is_err();
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return word.parse::<i64>().is_err() && word.parse::<u64>().is_err();
    }
    match word.parse::<f64>() {
        Ok(float) if float.is_finite() => decimal(word) != decimal(&format!("{float:e}")),
        _ => false,
    }
}

/// The digits of a decimal without zeros around them, and the power of ten that the last one counts by.
fn decimal(word: &str) -> Option<(String, i64)> {
    let word = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (digits, power) = word.split_once(['e', 'E']).unwrap_or((word, "0"));
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{rest}");
    let shown = all.trim_start_matches('0').trim_end_matches('0');
    if shown.is_empty() {
        return Some((String::new(), 0));
    }
    let zeros = all.len() - all.trim_end_matches('0').len();
    let power: i64 = power.parse().ok()?;
    Some((shown.to_owned(), power - i64::try_from(rest.len()).ok()? + i64::try_from(zeros).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_that_says_more_than_64_bits_hold_is_kept_as_text() {
        for word in [
            "0",
            "-7",
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "1.10",
            "3.141592653589793",
            "1e22",
            "-0.0",
            "5e-324",
            "1.0e-5",
            "0x1F",
            ".5",
            "1.",
            "100000.0",
            "0.30000000000000004",
        ] {
            assert!(!loses(word), "{word}");
        }
        for word in [
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901",
            "0.1000000000000000055",
            "1e-400",
            "0x1FFFFFFFFFFFFFFFF",
            "3.14159265358979323846",
        ] {
            assert!(loses(word), "{word}");
        }
        assert_eq!(int_key("0x1F"), "$int:31");
        assert_eq!(int_key("+5"), "$int:5");
        assert_eq!(int_key("-9"), "$int:-9");
    }
}
