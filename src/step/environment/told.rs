//! What of a build's output is told: its last line to who watches it, its first error to who asks why it failed.
//! A stranger's text: bounded, without secrets, without control characters.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use crate::hostile;
use crate::redact::Redactor;

/// So much of the end of a stream is looked at, in bytes.
const TAIL: u64 = 16 * 1024;
/// The longest line that is told, in characters.
const LONGEST: usize = 200;

/// The last line of the one of some streams that was written last; nothing where none holds a whole one.
pub(super) fn last_line(streams: &[&Path], redactor: &Redactor) -> Option<String> {
    let mut found: Vec<(SystemTime, String)> = streams.iter().filter_map(|path| tail(path, redactor)).collect();
    found.sort();
    found.pop().map(|(_, line)| line)
}

fn tail(path: &Path, redactor: &Redactor) -> Option<(SystemTime, String)> {
    let mut file = hostile::open_regular(path).ok()?;
    let meta = file.metadata().ok()?;
    let from = meta.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    if from > 0 {
        // What begins before the window may be the rest of a secret.
        let whole = bytes.iter().position(|byte| *byte == b'\n')?;
        bytes.drain(..=whole);
    }
    // What is still being written may be the first half of one.
    let end = bytes.iter().rposition(|byte| matches!(byte, b'\n' | b'\r'))?;
    bytes.truncate(end);
    let clean = redactor.clean(&bytes);
    let text = String::from_utf8_lossy(&clean);
    let line = text.rsplit(['\n', '\r']).map(plain).find(|line| !line.is_empty())?;
    Some((meta.modified().ok()?, line))
}

/// A line without what steers a terminal, not longer than is told.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut characters = line.trim().chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
            // Up to the letter that says what is to be done.
            while characters.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
            let _ = characters.next();
        } else if !c.is_control() {
            plain.push(c);
        } else if c == '\t' {
            plain.push(' ');
        }
        if plain.len() >= LONGEST {
            break;
        }
    }
    crate::text::harmless(plain.trim())
}

/// What pip says of the process whose error stands below.
const WRAPPERS: [&str; 4] = [
    "error: subprocess-exited-with-error",
    "error: metadata-generation-failed",
    "error: failed-wheel-build-for-install",
    "error: legacy-install-failure",
];

/// The line of a build's output that tells first what is wrong: a compiler's first error; else the last line that says anything.
pub(super) fn first_error(printed: &str) -> Option<&str> {
    let lines = || printed.lines().map(str::trim).filter(|line| !line.is_empty());
    let compiler = |line: &&str| {
        let at = line.find("error: ").or_else(|| line.find("error["));
        // `x.c:3:5: error: …`, `fatal error: …`: with the file before it.
        at.is_some_and(|at| line[..at].contains(':'))
    };
    let wraps = |line: &str| WRAPPERS.iter().any(|wrapper| line.ends_with(wrapper));
    lines()
        .find(compiler)
        .or_else(|| lines().find(|line| line.to_lowercase().contains("error:") && !wraps(line)))
        .or_else(|| lines().next_back())
}

/// How it is said that a file is not there, in small letters.
const ABSENT: [&str; 4] = ["no such file", "file not found", "does not exist", "cannot find"];
/// So many of such names are looked for.
const NAMES: usize = 8;

/// The names of files and folders that a build says it does not find, without the folder that it ran in.
pub(super) fn missing(printed: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in printed.lines().filter(|line| line.len() < 4096) {
        let lower = line.to_lowercase();
        if !ABSENT.iter().any(|words| lower.contains(words)) {
            continue;
        }
        let is_quote = |c: char| matches!(c, '\'' | '"' | '`' | '‘' | '’' | '“' | '”');
        let quoted = line.split(is_quote).skip(1).step_by(2).map(|name| (name, true));
        let bare = line.split(|c: char| c.is_whitespace() || is_quote(c) || "()[],;:".contains(c));
        for (name, is_quoted) in quoted.chain(bare.map(|name| (name, false))) {
            let name = name.trim_start_matches("./").trim_end_matches(['.', '/']);
            let plain = |c: char| c.is_alphanumeric() || "._-+/".contains(c);
            // A word of a sentence is no file.
            let is_name = name.len() > 1 && name.chars().all(plain) && (is_quoted || name.contains('.'));
            if is_name && !name.starts_with('/') && !names.iter().any(|known| known == name) && names.len() < NAMES {
                names.push(name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::redact::Secret;

    #[test]
    fn the_error_of_what_pip_started_is_told_and_not_pips_own() {
        let pip = "  error: subprocess-exited-with-error\n  \n  x Preparing metadata did not run successfully.\n      error: package directory 'fastbits' does not exist\nerror: metadata-generation-failed\n";
        assert_eq!(first_error(pip), Some("error: package directory 'fastbits' does not exist"));
        assert_eq!(first_error("error: subprocess-exited-with-error\nKilled\n"), Some("Killed"));
        assert_eq!(first_error("ERROR: a\nx.c:1:2: error: b\n"), Some("x.c:1:2: error: b"));
    }

    #[test]
    fn files_that_a_build_does_not_find_are_named() {
        for (line, name) in [
            ("core.c:1:10: fatal error: core.h: No such file or directory", "core.h"),
            ("core.c:1:10: fatal error: 'include/core.h' file not found", "include/core.h"),
            ("cp: cannot stat 'pkg/work.py': No such file or directory", "pkg/work.py"),
            ("error: package directory 'fastbits' does not exist", "fastbits"),
            ("FileNotFoundError: [Errno 2] No such file or directory: 'README.md'", "README.md"),
            ("cp: cannot stat ‘./a/LICENSE’: No such file or directory", "a/LICENSE"),
        ] {
            assert!(missing(line).contains(&name.to_owned()), "{line}: {:?}", missing(line));
        }
        assert!(missing("core.c:1:10: error: expected ';' before 'x.y'").is_empty());
        assert!(missing("ld: cannot find -lz: no such file or directory").is_empty());
        assert!(missing(&"a.b c.d e.f does not exist\n".repeat(10_000)).len() <= NAMES);
    }

    #[test]
    fn the_last_whole_line_is_told_without_secrets_and_colours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("build.out");
        let secrets = [Secret::new("TOKEN", b"s3cr3t-value".to_vec())];
        let redactor = Redactor::new(&secrets);
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            last_line(&[&path, &dir.path().join("none")], &redactor)
        };
        assert_eq!(said(""), None);
        assert_eq!(said("no end yet"), None);
        assert_eq!(said("one\ntwo\n\n").unwrap(), "two");
        assert_eq!(said("one\n\u{1b}[1;32mgreen\u{1b}[0m\u{7}\nhal").unwrap(), "green");
        assert_eq!(said("10 %\r20 %\r").unwrap(), "20 %");
        assert!(!said("fetch https://u:s3cr3t-value@index/\n").unwrap().contains("s3cr3t-value"));
        assert!(said(&format!("{}\n", "x".repeat(5000))).unwrap().len() <= LONGEST);
        // A secret that the window cuts is not told.
        let long = format!("{}s3cr3t-value{}\n", "a".repeat(20_000), "b".repeat(16 * 1024 - 8));
        assert_eq!(said(&long), None);
    }
}
