//! The file and the line that brought an ingredient, given the versions before and after.
//!
//! That something changed between the two is known by now; this finds the line to show for it. No decision rests on it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use similar::{ChangeTag, TextDiff};

use crate::manifest::{Manifest, Place, SourceFile, Version};
use crate::plan::Plan;
use crate::why::gap::comment;
use crate::why::past::content_of;
use crate::why::whence::{Whence, whence};
use crate::why::wiring;

/// A file of the project and a line in it, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file, absolute.
    pub path: PathBuf,
    /// The line; `None` of a file that is gone.
    pub line: Option<usize>,
    /// What is said there, where something was added.
    pub said: Option<String>,
}

/// One side: a plan and the action in it, if it is there.
pub type Side<'a> = (&'a Plan, Option<usize>);

/// Where an ingredient was changed. `old` is absent where there was no manifest before.
#[must_use]
pub fn spot(new: Side<'_>, old: Option<Side<'_>>, role: &str) -> Option<Spot> {
    let of = |side: Side<'_>| {
        let (plan, node) = (side.0, side.1?);
        let own = if role == "reading" { None } else { whence(plan, node, role) };
        Some(own.unwrap_or_else(|| wiring::whence(plan, node, role)))
    };
    let (after, before) = (of(new).unwrap_or_default(), old.and_then(of).unwrap_or_default());
    let finder = Finder { new: &new.0.manifest, old: old.map(|(plan, _)| plan.manifest.as_ref()) };
    finder
        .in_files(&after, &before, role)
        .or_else(|| finder.in_places(&after, &before))
        .or_else(|| finder.removed(&before))
        .or_else(|| finder.anywhere(after.words))
}

/// Where something first stands that was not in the manifest before: the first of some places whose line is new.
#[must_use]
pub fn spot_of_places(new: &Manifest, old: Option<&Manifest>, places: &[Place]) -> Option<Spot> {
    let finder = Finder { new, old };
    let after = Whence { places: places.to_vec(), ..Whence::default() };
    finder.in_places(&after, &Whence::default()).or_else(|| finder.anywhere(&[])).or_else(|| {
        let place = places.first()?;
        let file = new.files.get(place.file)?;
        Some(Finder::line(file, lines_of(&file.text, *place).0))
    })
}

struct Finder<'a> {
    new: &'a Manifest,
    old: Option<&'a Manifest>,
}

impl Finder<'_> {
    fn old_text(&self, path: &Path) -> Option<Vec<u8>> {
        self.old.and_then(|old| content_of(&old.version, path)).map(|(_, bytes)| bytes)
    }

    /// The first changed line of a file whose content the ingredient is.
    fn in_files(&self, after: &Whence, before: &Whence, role: &str) -> Option<Spot> {
        for (at, path) in after.files.iter().chain(&after.programs).enumerate() {
            let Some((digest, new)) = content_of(&self.new.version, path) else {
                // What is there and cannot be read is not gone.
                let nothing = self.new.version.read(path, 0).is_err_and(|error| error.kind() == ErrorKind::NotFound);
                let gone = before.files.get(at).filter(|old| nothing && *old == path && self.old_text(old).is_some());
                if let Some(gone) = gone {
                    return Some(Spot { path: gone.clone(), line: None, said: None });
                }
                continue;
            };
            let same_name = self.old.and_then(|old| content_of(&old.version, path));
            if same_name.is_some_and(|(old, _)| old == digest) {
                continue;
            }
            let old_path = before.files.get(at).unwrap_or(path);
            let old = self.old_text(old_path).unwrap_or_default();
            let new = String::from_utf8_lossy(&new).into_owned();
            let lines = Lines::of(&String::from_utf8_lossy(&old), &new);
            let text: Vec<&str> = new.lines().collect();
            let comment = |line: &&usize| role == "config" && comment(text.get(**line - 1).unwrap_or(&""));
            let added = lines.added.iter().find(|line| !comment(line)).copied();
            let line = added.or(lines.removed_at.first().copied()).unwrap_or(1);
            let said = added.and_then(|line| text.get(line - 1)).map(|&line| line.to_owned());
            return Some(Spot { path: path.clone(), line: Some(line), said });
        }
        None
    }

    /// A line of a file of the manifest.
    fn line(file: &SourceFile, line: usize) -> Spot {
        let said = file.text.lines().nth(line - 1).map(str::to_owned);
        Spot { path: file.path.clone(), line: Some(line), said }
    }

    /// The first place that lies on a line which is new, and that says something new.
    fn in_places(&self, after: &Whence, before: &Whence) -> Option<Spot> {
        let said = |manifest: &Manifest, place: &Place| {
            let file = manifest.files.get(place.file)?;
            file.text.get(place.offset..place.offset + place.len).map(str::to_owned)
        };
        let old: BTreeSet<String> = match self.old {
            Some(manifest) => before.places.iter().filter_map(|place| said(manifest, place)).collect(),
            None => BTreeSet::new(),
        };
        let mut second = None;
        for place in &after.places {
            let Some(file) = self.new.files.get(place.file) else { continue };
            let (first, last) = lines_of(&file.text, *place);
            let lines = self.lines(&file.path, &file.text);
            let Some(line) = (first..=last).find(|line| lines.added.contains(line)) else { continue };
            let found = Self::line(file, line);
            if said(self.new, place).is_some_and(|text| !old.contains(&text)) {
                return Some(found);
            }
            second.get_or_insert(found);
        }
        second
    }

    /// Where the line that said it before was taken away.
    fn removed(&self, before: &Whence) -> Option<Spot> {
        let old = self.old?;
        for place in &before.places {
            let Some(file) = old.files.get(place.file) else { continue };
            let Some((_, new)) = content_of(&self.new.version, &file.path) else { continue };
            let new = String::from_utf8_lossy(&new).into_owned();
            let (first, last) = lines_of(&file.text, *place);
            let lines = Lines::of(&file.text, &new);
            let gone = lines.removed.iter().position(|line| (first..=last).contains(line));
            if let Some(line) = gone.and_then(|at| lines.removed_at.get(at)) {
                let most = new.lines().count().max(1);
                return Some(Spot { path: file.path.clone(), line: Some((*line).min(most)), said: None });
            }
        }
        None
    }

    /// The first changed line of any file of the manifest: one that holds one of some words, if there is one.
    fn anywhere(&self, words: &[&str]) -> Option<Spot> {
        let mut first = None;
        for file in &self.new.files {
            let lines = self.lines(&file.path, &file.text);
            let text: Vec<&str> = file.text.lines().collect();
            for line in &lines.added {
                let said = text.get(line - 1).copied().unwrap_or_default();
                let found = || Self::line(file, *line);
                let mut parts = said.split(|c: char| !(c.is_alphanumeric() || c == '-'));
                if parts.any(|part| words.contains(&part)) {
                    return Some(found());
                }
                if !said.trim().is_empty() {
                    first.get_or_insert_with(found);
                }
            }
            if let (None, Some(line)) = (&first, lines.removed_at.first()) {
                let line = Some((*line).clamp(1, text.len().max(1)));
                first = Some(Spot { path: file.path.clone(), line, said: None });
            }
        }
        first
    }

    fn lines(&self, path: &Path, text: &str) -> Lines {
        let old = self.old_text(path).unwrap_or_default();
        Lines::of(&String::from_utf8_lossy(&old), text)
    }
}

/// The lines that a place begins and ends on, from 1.
fn lines_of(text: &str, place: Place) -> (usize, usize) {
    let line = |offset: usize| {
        1 + text.as_bytes().get(..offset.min(text.len())).unwrap_or_default().iter().filter(|b| **b == b'\n').count()
    };
    (line(place.offset), line(place.offset + place.len.saturating_sub(1)))
}

/// What two texts differ in, by line, from 1.
#[derive(Debug, Default)]
struct Lines {
    /// Lines of the new text that are not in the old one.
    added: BTreeSet<usize>,
    /// Lines of the old text that are not in the new one.
    removed: Vec<usize>,
    /// For each of them the line of the new text that stands there now.
    removed_at: Vec<usize>,
}

impl Lines {
    fn of(old: &str, new: &str) -> Self {
        if old == new {
            return Self::default();
        }
        let diff = TextDiff::configure().timeout(Duration::from_millis(200)).diff_lines(old, new);
        let mut lines = Self::default();
        let mut next = 1;
        for change in diff.iter_all_changes() {
            match change.tag() {
                ChangeTag::Equal => next += 1,
                ChangeTag::Insert => {
                    lines.added.insert(next);
                    next += 1;
                }
                ChangeTag::Delete => {
                    lines.removed.push(change.old_index().map_or(1, |index| index + 1));
                    lines.removed_at.push(next);
                }
            }
        }
        lines
    }
}

/// Whether two versions have the same content at a path.
#[must_use]
pub fn same_content(a: &Version, b: &Version, path: &Path) -> bool {
    let digest = |version| content_of(version, path).map(|(digest, _)| digest);
    digest(a) == digest(b)
}
