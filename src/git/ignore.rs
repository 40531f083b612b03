//! The ignore rules of a base tree: its `.gitignore` files as they are committed, whatever an agent made of them.
//!
//! Global excludes and `.git/info/exclude` are nobody's in a sealed tree, and are not read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The rules of one directory's `.gitignore`.
pub(super) struct Rules {
    /// The length of the directory's path, its slash included.
    prefix: usize,
    rules: Gitignore,
}

impl Rules {
    /// The rules in `text`, the `.gitignore` of the directory whose path, with its slash, is `prefix` long. Lines that are
    /// no patterns are skipped, as git skips them.
    pub(super) fn new(prefix: usize, text: &[u8]) -> Option<Self> {
        // A root of `.` means that paths are relative to the directory already.
        let mut builder = GitignoreBuilder::new(".");
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for line in text.split(|b| *b == b'\n') {
            if let Ok(line) = std::str::from_utf8(line) {
                let _ = builder.add_line(None, line);
            }
        }
        let rules = builder.build().ok()?;
        (!rules.is_empty()).then_some(Self { prefix, rules })
    }
}

/// Whether the rules of the directories above `path`, the outermost first, ignore it. The innermost that has a say decides.
pub(super) fn ignored(rules: &[Rules], path: &[u8], is_dir: bool) -> bool {
    for one in rules.iter().rev() {
        let relative = path.get(one.prefix..).unwrap_or_default();
        let said = one.rules.matched(Path::new(OsStr::from_bytes(relative)), is_dir);
        if said.is_whitelist() {
            return false;
        }
        if said.is_ignore() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_rule_decides() {
        let outer = Rules::new(0, b"*.log\n/build\ncache/\n!keep.log\n").unwrap();
        let inner = Rules::new(4, b"!*.log\n/x\n").unwrap();
        let rules = [outer, inner];
        let outer = &rules[..1];
        assert!(ignored(outer, b"a.log", false));
        assert!(ignored(outer, b"sub/a.log", false));
        assert!(!ignored(outer, b"keep.log", false));
        assert!(ignored(outer, b"build", true));
        assert!(!ignored(outer, b"sub/build", true));
        assert!(ignored(outer, b"sub/cache", true));
        assert!(!ignored(outer, b"sub/cache", false));
        assert!(!ignored(&rules, b"sub/a.log", false));
        assert!(ignored(&rules, b"sub/x", false));
        assert!(!ignored(&rules, b"sub/y/x", false));
        assert!(Rules::new(0, b"# nothing\n\n").is_none());
    }
}
