//! Paths within a tree: bytes, checked, and printed without loss.
//!
//! Knows which names no tree of flow's may hold; touches no file system.

use std::fmt;
use std::str::FromStr;

/// The longest path of a tree, as Linux allows it.
const LONGEST: usize = 4096;
/// The most components of a path: every recursion over paths is bounded by it.
pub(super) const DEEPEST: usize = 256;

/// A path within a tree, relative and normal: no empty, `.` or `..` component, nothing that is `.git` on any file system.
///
/// Printed with `%XX` for what is not printable UTF-8 and for `%` itself, which reads back without loss.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreePath(Vec<u8>);

/// The bytes may not be a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path of a tree: {why}")]
pub struct BadPath {
    /// The path, escaped.
    pub path: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl TreePath {
    /// A path from its bytes.
    ///
    /// # Errors
    /// Refuses what could be written outside a tree or into a repository.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let bytes = bytes.into();
        let refuse = |why| BadPath { path: escape(&bytes[..bytes.len().min(200)]), why };
        if bytes.len() > LONGEST {
            return Err(refuse("it is longer than 4096 bytes"));
        }
        let mut depth = 0;
        for name in bytes.split(|b| *b == b'/') {
            if let Some(why) = refused_name(name) {
                return Err(refuse(why));
            }
            depth += 1;
        }
        if depth > DEEPEST {
            return Err(refuse("it has more than 256 components"));
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its components, of which there is at least one.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The path as the operating system takes it.
    #[must_use]
    pub fn as_path(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt as _;
        std::path::Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escape(&self.0))
    }
}

impl FromStr for TreePath {
    type Err = BadPath;

    /// Reads the escaped form.
    fn from_str(text: &str) -> Result<Self, BadPath> {
        let bytes = unescape(text).ok_or_else(|| BadPath {
            path: text.chars().take(200).collect(),
            why: "a `%` is not followed by two upper-case hex digits",
        })?;
        Self::new(bytes)
    }
}

/// Why a single name may stand in no tree, or nothing if it may.
pub(super) fn refused_name(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("a component is empty"),
        b"." | b".." => Some("a component is `.` or `..`"),
        _ if name.len() > 255 => Some("a component is longer than 255 bytes"),
        _ if name.iter().any(|b| matches!(b, 0 | b'/')) => Some("a component holds a NUL or a slash"),
        _ if is_dot_git(name) => Some("a component is `.git`, or would be on some file system"),
        _ => None,
    }
}

/// Whether a name is `.git` on some file system: any case; trailing dots, spaces and streams (NTFS); its short name there; and
/// code points that HFS+ leaves out. Trees travel, and what wrote `.GIT` here could have meant another machine.
pub(super) fn is_dot_git(name: &[u8]) -> bool {
    if name.eq_ignore_ascii_case(b".git") {
        return true;
    }
    let plain = match std::str::from_utf8(name) {
        Ok(text) if !text.is_ascii() => text
            .chars()
            .filter(|c| {
                !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
            })
            .collect::<String>()
            .into_bytes(),
        _ => name.to_vec(),
    };
    let stem = plain.split(|b| *b == b':').next().unwrap_or_default();
    let end = stem.iter().rposition(|b| !matches!(b, b'.' | b' ')).map_or(0, |i| i + 1);
    let stem = &stem[..end];
    stem.eq_ignore_ascii_case(b".git") || stem.eq_ignore_ascii_case(b"git~1")
}

/// Bytes as text without loss: `%XX` for `%`, control characters and what is not UTF-8.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let hex = |text: &mut String, raw: &[u8]| {
        use fmt::Write as _;
        for b in raw {
            let _ = write!(text, "%{b:02X}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

/// The bytes of an escaped text; nothing if a `%` is not followed by two upper-case hex digits.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            bytes.push(digit(rest.next()?)? << 4 | digit(rest.next()?)?);
        } else {
            bytes.push(b);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/.",
            ".git",
            "a/.GIT/b",
            ".Git",
            ".git.",
            ".git ",
            "git~1",
            "GIT~1",
            ".git::$INDEX_ALLOCATION",
            ".g\u{200c}it",
            "a\0b",
        ] {
            assert!(TreePath::new(bad).is_err(), "{bad:?}");
        }
        for good in [".gitignore", "a", "a/b", ".github/x", "...", "git", "a b", "x:y", "ü", "-rf"] {
            assert!(TreePath::new(good).is_ok(), "{good:?}");
        }
        assert!(TreePath::new("a/".repeat(300) + "a").is_err());
    }

    #[test]
    fn escapes_read_back() {
        for raw in [&b"a%b"[..], b"a\nb", b"\xff\xfe", "ü\u{85}".as_bytes(), b"a\x7f"] {
            let path = TreePath::new(raw).unwrap();
            assert_eq!(path.to_string().parse::<TreePath>().unwrap(), path);
            assert!(!path.to_string().contains('\n'));
        }
    }
}
