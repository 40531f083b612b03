//! Whether an agent is shown the answer: lines of the human's change in its prompt or in the tree it works in.
//!
//! Looks for whole lines that the human's change adds and that say enough to be recognised. It cannot find an answer told in
//! other words; it finds what a table's column, a wrong base or a patch lying about gives away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::hostile;
use crate::text::shorten;

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
/// How much of a line is shown, in columns.
const EXAMPLE: usize = 100;
/// Lines that are looked for at most.
const LINES: usize = 10_000;

/// The lines that a unified diff adds and that would give it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// As they stand there, without their indentation, by what is looked for.
    lines: BTreeMap<String, String>,
    /// How the names of the changed files end.
    endings: BTreeSet<String>,
    /// The changed files, from the root of the tree.
    files: BTreeSet<PathBuf>,
}

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
        let (mut lines, mut endings, mut removed) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let mut files = BTreeSet::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("+++ ") {
                let name = name.trim_end_matches(['"', '\t']);
                endings.insert(ending(Path::new(name)));
                files.extend(name.trim_start_matches('"').strip_prefix("b/").map(PathBuf::from));
            } else if let Some(line) = line.strip_prefix('+') {
                if says_enough(line) && !is_idiom(line) && lines.len() < LINES {
                    lines.insert(bare(line), line.split_whitespace().collect::<Vec<_>>().join(" "));
                }
            } else if let Some(line) = line.strip_prefix('-').filter(|_| !line.starts_with("--- ")) {
                removed.insert(bare(line));
            }
        }
        lines.retain(|line, _| !removed.contains(line));
        Self { lines, endings, files }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What of it a prompt gives away: one line is enough, because nobody writes code into a prompt by chance. A line that the
    /// tree holds as code of its own tells nothing: the human copied it too.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn in_prompt(&self, prompt: &[u8], tree: &Path) -> std::io::Result<Option<Leak>> {
        let text: String = String::from_utf8_lossy(prompt).lines().map(bare).collect();
        let mut found: BTreeSet<&String> = self.lines.keys().filter(|line| text.contains(line.as_str())).collect();
        if !found.is_empty() {
            walk(tree, |path, bytes| {
                if self.may_be_copied_from(path) {
                    let held = self.in_file(bytes, |line| !is_marked(line));
                    found.retain(|line| !held.contains(line));
                }
            })?;
        }
        Ok(self.leak("the prompt", &found))
    }

    /// The file of a tree that gives most of it away, if one does. Links are not followed.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn in_tree(&self, tree: &Path) -> std::io::Result<Option<Leak>> {
        if self.lines.is_empty() {
            return Ok(None);
        }
        // Of a small change all lines have to be there, and as those of a patch or a quotation: few lines may be anybody's.
        let small = self.lines.len() < IN_A_FILE;
        let mut most: Option<Leak> = None;
        walk(tree, |path, bytes| {
            let copied = small || self.may_be_copied_from(path);
            let found = self.in_file(bytes, |line| !copied || is_marked(line));
            #[expect(clippy::cast_precision_loss, reason = "at most LINES")]
            let share = found.len() as f64 / self.lines.len() as f64;
            let more = most.as_ref().is_none_or(|leak| found.len() > leak.lines);
            let enough =
                if small { found.len() == self.lines.len() } else { found.len() >= IN_A_FILE && share >= SHARE };
            if enough && more {
                most = self.leak(&path.display().to_string(), &found);
            }
        })?;
        Ok(most)
    }

    /// What of an installed copy gives the answer away, if it does: the changed files hold half of the telling lines that the tree
    /// has not, and at least five, or all of them. A copy of the base, or of an older release, holds none. Links are followed: it
    /// is the user's own installation.
    ///
    /// # Errors
    /// If the tree cannot be read.
    pub fn in_copy(&self, site: &Path, tree: &Path) -> std::io::Result<Option<Leak>> {
        let mut held: Vec<(PathBuf, BTreeSet<&String>)> = Vec::new();
        for file in &self.files {
            // Where a tree keeps its package below `src` or `python`, an installation does not.
            let tails = (0..file.components().count()).map(|skip| file.components().skip(skip).collect::<PathBuf>());
            // A name alone may be any module's.
            let tails = tails.filter(|tail| tail.components().count() > 1);
            let read = |tail: PathBuf| Some((installed(&site.join(&tail))?, tail));
            let there = tails.into_iter().find_map(read);
            held.extend(there.map(|(bytes, tail)| (tail, self.in_file(&bytes, |_| true))));
        }
        if held.iter().all(|(_, lines)| lines.is_empty()) {
            return Ok(None);
        }
        let mut own: BTreeSet<&String> = self.lines.keys().collect();
        walk(tree, |path, bytes| {
            if self.may_be_copied_from(path) {
                let there = self.in_file(bytes, |line| !is_marked(line));
                own.retain(|line| !there.contains(line));
            }
        })?;
        held.iter_mut().for_each(|(_, lines)| lines.retain(|line| own.contains(line)));
        let found: BTreeSet<&String> = held.iter().flat_map(|(_, lines)| lines).copied().collect();
        let enough = found.len() >= IN_A_FILE && 2 * found.len() >= own.len() || found.len() == own.len();
        let most = held.iter().max_by_key(|(_, lines)| lines.len());
        Ok(most.filter(|_| enough).and_then(|(path, _)| self.leak(&path.display().to_string(), &found)))
    }

    /// Whether a file of the base tree is of the kind that the change is made of, so that a line in both is only a copy.
    fn may_be_copied_from(&self, path: &Path) -> bool {
        self.endings.contains(&ending(path))
    }

    fn in_file(&self, bytes: &[u8], counts: impl Fn(&str) -> bool) -> BTreeSet<&String> {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.split(['\n', '\r']).filter(|line| says_enough(line) && counts(line));
        lines.filter_map(|line| Some(self.lines.get_key_value(&bare(line))?.0)).collect()
    }

    fn leak(&self, place: &str, found: &BTreeSet<&String>) -> Option<Leak> {
        let example = found.iter().filter_map(|line| self.lines.get(*line)).max_by_key(|line| line.len())?;
        let example = shorten(example, EXAMPLE);
        Some(Leak { place: place.to_owned(), lines: found.len(), of: self.lines.len(), example })
    }
}

/// A file of an installation that is not too large.
fn installed(path: &Path) -> Option<Vec<u8>> {
    let file = hostile::open_regular(path).ok()?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Looks into each file of a tree that is not too large. Links are not followed.
fn walk(tree: &Path, mut look: impl FnMut(&Path, &[u8])) -> std::io::Result<()> {
    let mut folders = vec![PathBuf::new()];
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
            if let Some(bytes) = hostile::read_below(tree, &path, LARGEST)? {
                look(&path, &bytes);
            }
        }
    }
    Ok(())
}

fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn says_enough(line: &str) -> bool {
    line.trim().len() >= TELLING && line.chars().filter(|c| c.is_alphanumeric()).count() >= SUBSTANCE
}

/// Whether many a file has a line, whatever it does.
fn is_idiom(line: &str) -> bool {
    let line = line.trim_start();
    let idioms = ["from __future__ import ", "if __name__ ==", "#!", "# -*-", "# SPDX-", "// SPDX-"];
    idioms.iter().any(|idiom| line.starts_with(idiom))
}

/// What stands before a line that is quoted, or that a patch adds.
const MARKS: [char; 3] = ['+', '>', '|'];
/// What makes a comment of a line, or a string of a list.
const WRAPS: [char; 5] = ['#', '/', '*', ';', '"'];

fn is_marked(line: &str) -> bool {
    let line = uncoloured(line);
    unnumbered(line.trim_start_matches(|c| is_blank(c) || WRAPS.contains(&c))).starts_with(MARKS)
}

/// A line without the number that stands before it, as in `12: x` or `12 | x`.
fn unnumbered(line: &str) -> &str {
    let line = line.trim_start_matches(is_blank);
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == line.len() { line } else { rest.trim_start_matches(|c| is_blank(c) || c == ':') }
}

/// A line without escape sequences for colours.
fn uncoloured(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').get(1..).unwrap_or_default());
    }
    out
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// A line without what does not change its words: blanks, characters that nobody sees, signs of a patch or a quotation before
/// it, and the case of its letters.
/// Of a line that is a comment or a string of a list, only what is in it.
fn bare(line: &str) -> String {
    let line = uncoloured(line);
    let before = |c: char| is_blank(c) || MARKS.contains(&c) || WRAPS.contains(&c);
    let line = unnumbered(line.trim_start_matches(before)).trim_start_matches(before);
    // The end of a string of a list, as a notebook has them.
    let line = line.trim_end_matches(is_blank).trim_end_matches([',', '"']).trim_end_matches("\\n");
    line.chars().filter(|c| !is_blank(*c)).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,8 @@\n-    moved = compute_the_thing(alpha, beta)\n+        moved = compute_the_thing(alpha, beta)\n+    cache = {key: heavy(key) for key in wanted}\n+    return [cache[key] for key in wanted_keys]\n+    pass\n+    first_table = build_first_table(rows, width)\n+    second_table = build_second_table(rows, width)\n+    merged = merge_sorted(first_table, second_table)\n";

    #[test]
    fn lines_that_are_moved_or_short_tell_nothing() {
        let telling = Telling::of(DIFF.as_bytes());
        assert_eq!(telling.lines.len(), 5);
        assert!(!telling.lines.values().any(|line| line.contains("moved") || line == "pass"));
        assert!(Telling::of(b"+}\n+\n+    return x\n+from __future__ import annotations\n").is_empty());
    }

    #[test]
    fn one_line_in_a_prompt_is_a_leak_however_it_is_written() {
        let telling = Telling::of(DIFF.as_bytes());
        let dir = tempfile::tempdir().unwrap();
        let found = |prompt: &str| telling.in_prompt(prompt.as_bytes(), dir.path()).unwrap();
        assert_eq!(found("Make build_first_table faster."), None);
        for prompt in [
            "Use cache = {key: heavy(key)\n   for key in wanted} please",
            "CACHE = {KEY: HEAVY(KEY) FOR KEY IN WANTED}",
            "cache={key:heavy(key) for key in wanted}",
            "> cache = {key: heavy(key)\n> for key in wanted}",
            "cache = {key: he\u{200b}avy(key) for key in wanted}",
        ] {
            let leak = found(prompt).unwrap();
            assert_eq!((leak.place.as_str(), leak.lines, leak.of), ("the prompt", 1, 5), "{prompt}");
        }
        std::fs::write(dir.path().join("y.py"), "cache = {key: heavy(key) for key in wanted}\n").unwrap();
        assert_eq!(found("cache = {key: heavy(key) for key in wanted}"), None, "the tree has it already");
    }

    #[test]
    fn a_patch_lying_in_the_tree_is_a_leak_and_code_that_the_human_copied_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let telling = Telling::of(DIFF.as_bytes());
        let code: String =
            DIFF.lines().filter_map(|line| line.strip_prefix("+    ")).map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.path().join("y.py"), &code).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        assert_eq!(telling.in_tree(dir.path()).unwrap(), None);
        std::fs::create_dir(dir.path().join("notes")).unwrap();
        let quoted: String = code.lines().map(|line| format!(" > {line}\n")).collect();
        let indented: String = DIFF.lines().map(|line| format!("    {line}\n")).collect();
        let commented: String = DIFF.lines().map(|line| format!("# {line}\r")).collect();
        let numbered: String = code.lines().enumerate().map(|(n, line)| format!("{n:>4}: {line}\n")).collect();
        let coloured: String = DIFF.lines().map(|line| format!("\u{1b}[32m{line}\u{1b}[m\n")).collect();
        let notebook: String = code.lines().map(|line| format!("    \"{line}\\n\",\n")).collect();
        for (name, text) in [
            ("fix.patch", DIFF),
            ("a.txt", &code),
            ("b.py", &quoted),
            ("c.py", &indented),
            ("d.py", &commented),
            ("e.txt", &numbered),
            ("f.py", &coloured),
            ("g.ipynb", &notebook),
        ] {
            let path = dir.path().join("notes").join(name);
            std::fs::write(&path, text).unwrap();
            let leak = telling.in_tree(dir.path()).unwrap().unwrap();
            assert_eq!((leak.place, leak.lines), (format!("notes/{name}"), 5));
            std::fs::remove_file(path).unwrap();
        }
        let small = Telling::of(
            b"+    cache = {key: heavy(key) for key in wanted}\n+    return [cache[key] for key in wanted_keys]\n",
        );
        std::fs::write(dir.path().join("notes/x.py"), "    cache = {key: heavy(key) for key in wanted}\n").unwrap();
        assert_eq!(small.in_tree(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join("notes/fix.patch"), DIFF).unwrap();
        assert_eq!(small.in_tree(dir.path()).unwrap().unwrap().lines, 2, "a small change whole");
    }

    #[test]
    fn an_installed_copy_is_a_leak_if_it_is_later_than_the_base() {
        let (tree, site) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let diff = DIFF.replace("b/x.py", "b/src/pkg/x.py");
        let telling = Telling::of(diff.as_bytes());
        let code: Vec<&str> = DIFF.lines().filter_map(|line| line.strip_prefix("+  ")).collect();
        let write = |dir: &tempfile::TempDir, name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let found = || telling.in_copy(site.path(), tree.path()).unwrap();
        assert_eq!(found(), None, "nothing is installed");
        write(&site, "pkg/x.py", "def f(rows):\n    return slow_and_plain_way(rows)\n".into());
        assert_eq!(found(), None, "a copy of the base");
        write(&site, "x.py", code.join("\n"));
        assert_eq!(found(), None, "a module that is only called so");
        write(&site, "pkg/x.py", code.join("\n"));
        let leak = found().unwrap();
        assert_eq!((leak.place.as_str(), leak.lines), ("pkg/x.py", 5));
        write(&tree, "src/pkg/y.py", code.join("\n"));
        assert_eq!(found(), None, "the base has these lines as well");
    }
}
