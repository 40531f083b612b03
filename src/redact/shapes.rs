//! What looks like a key though nobody declared it as a secret: by how the keys of known providers begin, and by how private keys
//! are framed. Knows no values.

/// How keys of known providers begin.
const BEGINS: [&str; 15] = [
    "sk-",
    "sk_live_",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "hf_",
    "AKIA",
    "ASIA",
    "AIza",
    "gsk_",
    "nvapi-",
];
/// Characters behind that which make it a key.
const REST: usize = 16;
/// What stands around a private key.
const FRAME: &str = "PRIVATE KEY-----";
/// What stands in the place of either.
const MARK: &str = "[what looks like a key]";

fn of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Whether a text holds what looks like a key.
#[must_use]
pub fn holds_key(text: &str) -> bool {
    let token = |word: &str| {
        BEGINS
            .iter()
            .any(|begin| word.strip_prefix(begin).is_some_and(|rest| rest.len() >= REST && rest.bytes().all(of_key)))
    };
    text.split(|c: char| c.is_whitespace() || "\"'=:,;".contains(c)).any(token) || text.contains(FRAME)
}

/// The text without what looks like a key: for what is shown of old versions, where one may have been written out. Of a private
/// key goes all from its first line to its last, or to the end of the text.
#[must_use]
pub fn without_keys(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let begins = at == 0 || !text[at - 1].is_ascii_alphanumeric();
        let length = match rest[0] {
            b'-' => framed(rest),
            _ if begins => token(rest),
            _ => None,
        };
        match length {
            Some(length) => {
                out.extend_from_slice(MARK.as_bytes());
                at += length;
            }
            None => {
                out.push(rest[0]);
                at += 1;
            }
        }
    }
    out
}

/// How long the key is that a text begins with.
fn token(rest: &[u8]) -> Option<usize> {
    let begin = BEGINS.iter().find(|begin| rest.starts_with(begin.as_bytes()))?;
    let more = rest[begin.len()..].iter().take_while(|byte| of_key(**byte)).count();
    (more >= REST).then_some(begin.len() + more)
}

/// How long the private key is that a text begins with, its frame counted.
fn framed(rest: &[u8]) -> Option<usize> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const LINE: usize = 80;
    let head = rest.strip_prefix(BEGIN)?;
    let head = &head[..head.len().min(LINE)];
    let framed = BEGIN.len() + find(head, FRAME.as_bytes())? + FRAME.len();
    let end = find(&rest[framed..], b"-----END ").map(|at| framed + at);
    let Some(end) = end else { return Some(rest.len()) };
    let tail = &rest[end..rest.len().min(end + LINE)];
    Some(find(tail, FRAME.as_bytes()).map_or(rest.len(), |at| end + at + FRAME.len()))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        String::from_utf8(without_keys(text.as_bytes())).unwrap()
    }

    #[test]
    fn what_looks_like_a_key_is_taken_out_wherever_it_stands() {
        let key = format!("sk-ant-api03-{}", "Ab3dE6gH9".repeat(10));
        assert_eq!(shown(&format!("a: \"{key}\"\n({key})")), format!("a: \"{MARK}\"\n({MARK})"));
        assert_eq!(shown(&format!("-k={key},x")), format!("-k={MARK},x"));
        assert!(holds_key(&format!("x={key}")));
        for innocent in ["task-a-long-name-of-a-thing", "sk-learn", "risk-0123456789abcdefgh", "----- BEGIN"] {
            assert_eq!(shown(innocent), innocent);
        }
    }

    #[test]
    fn of_a_private_key_nothing_is_left() {
        let framed = "x\n-----BEGIN RSA PRIVATE KEY-----\nabc\ndef\n-----END RSA PRIVATE KEY-----\ny\n";
        assert_eq!(shown(framed), format!("x\n{MARK}\ny\n"));
        assert_eq!(shown("x -----BEGIN PRIVATE KEY-----\nabc"), format!("x {MARK}"));
    }
}
