//! Whether an agent is shown the answer: lines of the human's change in its prompt or in the tree it works in.
//!
//! Looks for whole lines that the human's change adds and that say enough to be recognised. It cannot find an answer told in
//! other words; it finds what a table's column, a wrong base or a patch lying about gives away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::hostile;

/// How the note of an attempt begins that was shown lines of the human's change.
pub const NOTE: &str = "LEAK: ";
/// A line shorter than this, without its indentation, may be anybody's.
const TELLING: usize = 24;
/// Letters and digits that it must hold.
const SUBSTANCE: usize = 12;
/// A file of the tree gives the answer away if it holds so many of the telling lines, and such a share of them.
const IN_A_FILE: usize = 5;
const SHARE: f64 = 0.8;
/// Files of the tree larger than this are not looked into, in bytes.
const LARGEST: u64 = 4 << 20;
/// Lines that are looked for at most.
const LINES: usize = 10_000;

/// The lines that a unified diff adds and that would give it away, without their indentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling(BTreeSet<String>);

/// What gives the answer away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Where: `the prompt`, or a path of the tree.
    pub place: String,
    /// How many lines of the human's change stand there.
    pub lines: usize,
    /// Of how many.
    pub of: usize,
    /// One of them.
    pub example: String,
}

impl std::fmt::Display for Leak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, lines, of, example } = self;
        write!(f, "{place} holds {lines} of the {of} telling lines of the human's change, such as `{example}`")
    }
}

impl Telling {
    /// Those of a diff. A line that the diff also takes away is only moved, and tells nothing.
    #[must_use]
    pub fn of(diff: &[u8]) -> Self {
        let text = String::from_utf8_lossy(diff);
        let mut added = BTreeSet::new();
        let mut removed = BTreeSet::new();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix('+').filter(|_| !line.starts_with("+++ ")) {
                if says_enough(line) && added.len() < LINES {
                    added.insert(one_line(line));
                }
            } else if let Some(line) = line.strip_prefix('-').filter(|_| !line.starts_with("--- ")) {
                removed.insert(one_line(line));
            }
        }
        added.retain(|line| !removed.contains(line));
        Self(added)
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of it a prompt gives away: one line is enough, because nobody writes code into a prompt by chance.
    #[must_use]
    pub fn in_prompt(&self, prompt: &[u8]) -> Option<Leak> {
        let text = one_line(&String::from_utf8_lossy(prompt));
        let found: Vec<&String> = self.0.iter().filter(|line| text.contains(line.as_str())).collect();
        self.leak("the prompt", &found)
    }

    /// The file of a tree that gives most of it away, if one does. Links are not followed.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn in_tree(&self, tree: &Path) -> std::io::Result<Option<Leak>> {
        if self.0.len() < IN_A_FILE {
            return Ok(None);
        }
        let mut folders = vec![PathBuf::new()];
        let mut most: Option<Leak> = None;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(tree.join(&folder))? {
                let entry = entry?;
                let kind = entry.file_type()?;
                let path = folder.join(entry.file_name());
                if kind.is_dir() {
                    if path != Path::new(".git") {
                        folders.push(path);
                    }
                    continue;
                }
                if !kind.is_file() || entry.metadata()?.len() > LARGEST {
                    continue;
                }
                let Some(bytes) = hostile::read_below(tree, &path, LARGEST)? else { continue };
                let found = self.in_file(&bytes);
                #[expect(clippy::cast_precision_loss, reason = "at most LINES")]
                let share = found.len() as f64 / self.0.len() as f64;
                let more = most.as_ref().is_none_or(|leak| found.len() > leak.lines);
                if found.len() >= IN_A_FILE && share >= SHARE && more {
                    most = self.leak(&path.display().to_string(), &found);
                }
            }
        }
        Ok(most)
    }

    fn in_file(&self, bytes: &[u8]) -> Vec<&String> {
        let text = String::from_utf8_lossy(bytes);
        let mut found = BTreeSet::new();
        for line in text.lines() {
            // A patch that lies in the tree has a sign before each line.
            let line = line.strip_prefix('+').unwrap_or(line);
            if says_enough(line)
                && let Some(known) = self.0.get(&one_line(line))
            {
                found.insert(known);
            }
        }
        found.into_iter().collect()
    }

    fn leak(&self, place: &str, found: &[&String]) -> Option<Leak> {
        let example = found.iter().max_by_key(|line| line.len())?;
        let example: String = example.chars().take(60).collect();
        Some(Leak { place: place.to_owned(), lines: found.len(), of: self.0.len(), example })
    }
}

fn says_enough(line: &str) -> bool {
    line.trim().len() >= TELLING && line.chars().filter(|c| c.is_alphanumeric()).count() >= SUBSTANCE
}

/// A text with every run of blanks as one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,8 @@\n-    moved = compute_the_thing(alpha, beta)\n+        moved = compute_the_thing(alpha, beta)\n+    cache = {key: heavy(key) for key in wanted}\n+    return [cache[key] for key in wanted_keys]\n+    pass\n+    first_table = build_first_table(rows, width)\n+    second_table = build_second_table(rows, width)\n+    merged = merge_sorted(first_table, second_table)\n";

    #[test]
    fn lines_that_are_moved_or_short_tell_nothing() {
        let telling = Telling::of(DIFF.as_bytes());
        assert_eq!(telling.0.len(), 5);
        assert!(!telling.0.iter().any(|line| line.contains("moved") || line == "pass"));
        assert!(Telling::of(b"+}\n+\n+    return x\n").is_empty());
    }

    #[test]
    fn one_line_in_a_prompt_is_a_leak_however_it_is_wrapped() {
        let telling = Telling::of(DIFF.as_bytes());
        assert_eq!(telling.in_prompt(b"Make build_first_table faster."), None);
        let leak = telling.in_prompt(b"Use cache = {key: heavy(key)\n   for key in wanted} please").unwrap();
        assert_eq!((leak.place.as_str(), leak.lines, leak.of), ("the prompt", 1, 5));
    }

    #[test]
    fn a_patch_lying_in_the_tree_is_a_leak_and_a_shared_idiom_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let telling = Telling::of(DIFF.as_bytes());
        std::fs::write(dir.path().join("y.py"), "cache = {key: heavy(key) for key in wanted}\n").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        assert_eq!(telling.in_tree(dir.path()).unwrap(), None);
        std::fs::create_dir(dir.path().join("notes")).unwrap();
        std::fs::write(dir.path().join("notes/fix.patch"), DIFF).unwrap();
        let leak = telling.in_tree(dir.path()).unwrap().unwrap();
        assert_eq!((leak.place.as_str(), leak.lines), ("notes/fix.patch", 5));
    }
}
