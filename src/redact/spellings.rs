//! The ways in which programs write a value down: as it is, escaped, percent-encoded, in base64, in hex.
//!
//! Matching them against text is `redact`'s business.

use super::{SHORT, Secret};

/// The shortest line that gives away a secret of several, in bytes.
const LINE: usize = 12;
/// The shortest text within a secret that is a secret of its own, in bytes, and how many of them are looked for.
const FIELD: usize = 8;
const FIELDS: usize = 64;

/// The texts within a value that is JSON, such as the credentials that a cloud's tool prints.
pub(super) fn fields(secret: &Secret) -> Vec<Secret> {
    let mut found = Vec::new();
    let value = secret.expose();
    if matches!(value.trim_ascii_start().first(), Some(b'{' | b'['))
        && let Ok(parsed) = serde_json::from_slice(value)
    {
        gather(secret.name(), parsed, &mut found);
    }
    found
}

fn gather(name: &str, value: serde_json::Value, found: &mut Vec<Secret>) {
    match value {
        serde_json::Value::String(text) if text.len() >= FIELD && found.len() < FIELDS => {
            found.push(Secret::new(name, text.into_bytes()));
        }
        serde_json::Value::Array(list) => list.into_iter().for_each(|value| gather(name, value, found)),
        serde_json::Value::Object(map) => map.into_iter().for_each(|(_, value)| gather(name, value, found)),
        _ => {}
    }
}

/// Every way in which a value is looked for; none is empty.
pub(super) fn spellings(secret: &Secret) -> Vec<Vec<u8>> {
    let value = secret.expose();
    let mut all = vec![value.to_vec()];
    if secret.too_short() {
        // Encodings of so little would match by chance.
        return all.into_iter().filter(|v| !v.is_empty()).collect();
    }
    if let Ok(text) = std::str::from_utf8(value) {
        let mut escaped = vec![json_inside(text), ascii_only(&json_inside(text))];
        escaped.extend(escaped.clone().iter().map(|once| json_inside(once)));
        escaped.extend(escaped.clone().iter().map(|e| e.replace('/', "\\/")));
        all.extend(escaped.into_iter().map(String::into_bytes));
        // Within the single quotes of YAML.
        all.push(text.replace('\'', "''").into_bytes());
    }
    for kept in [&b"-_.~"[..], b"-_.~/", b"-_.~!'()*"] {
        let upper = percent(value, kept);
        all.push(upper.replace("%20", "+").into_bytes());
        all.push(lower_escapes(&upper).into_bytes());
        all.push(upper.into_bytes());
    }
    for skip in 0..3 {
        for alphabet in [STANDARD, URL_SAFE] {
            all.push(base64_inside(value, skip, alphabet));
        }
    }
    let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
    all.push(hex.to_uppercase().into_bytes());
    all.push(hex.into_bytes());
    // A key over many lines is also given away by one of them, as in an indented log.
    if value.contains(&b'\n') {
        let lines = value.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        all.extend(lines.filter(|l| l.len() >= LINE && !l.contains(&b' ')).map(<[u8]>::to_vec));
    }
    all.retain(|form| form.len() >= SHORT);
    all
}

/// The text as it stands between the quotes of a JSON string.
fn json_inside(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// With `\uXXXX` for all that is not ASCII, as Python's `json.dumps` writes.
fn ascii_only(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

fn percent(value: &[u8], kept: &[u8]) -> String {
    let one = |&b: &u8| match b {
        b if b.is_ascii_alphanumeric() || kept.contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    value.iter().map(one).collect()
}

/// The same with lower-case digits behind each `%`.
fn lower_escapes(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut out = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2.min(piece.len()));
        out.push('%');
        out.push_str(&digits.to_lowercase());
        out.push_str(rest);
    }
    out
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The base64 digits that `value` alone determines when `skip` bytes stand before it.
fn base64_inside(value: &[u8], skip: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bits = |i: usize| if i < skip { 0 } else { value.get(i - skip).copied().unwrap_or(0) };
    let end = (skip + value.len()) * 8 / 6;
    let digit = |n: usize| {
        let pair = u16::from(bits(n * 6 / 8)) << 8 | u16::from(bits(n * 6 / 8 + 1));
        alphabet[usize::from(pair >> (10 - n * 6 % 8) & 63)]
    };
    ((skip * 8).div_ceil(6)..end).map(digit).collect()
}
