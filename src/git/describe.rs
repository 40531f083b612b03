//! What a commit is called by the nearest tag behind it, as `git describe --tags --long --match '*[0-9]*'` does, and the version of
//! a package that follows from that, as setuptools_scm guesses it.
//!
//! Reads tags and commits only; no repository's config is obeyed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs;
use std::path::Path;
use std::str::FromStr as _;

use git2::{ObjectType, Oid};
use pep440_rs::Version;
use serde::{Deserialize, Serialize};

use super::error::GitError;
use super::mirror::{Mirror, git_dirs};
use super::objects::private;
use super::references::REFERENCES;
use crate::digest::Digest;
use crate::hostile::read_regular;
use crate::names::ObjectId;

/// The most commits that are walked back.
const MOST_COMMITS: usize = 2_000_000;
/// The most tags that are read.
const MOST_TAGS: usize = 200_000;
/// Of so many tags on the way back the nearest is taken, as git does.
const CANDIDATES: usize = 10;
/// Digits of an id in a name.
const DIGITS: usize = 8;

/// What a commit is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The nearest tag with a digit in its name, if there is one behind it.
    pub tag: Option<String>,
    /// The commits since that tag; all of them without one.
    pub distance: u64,
    /// The commit's first eight digits.
    pub id8: String,
}

impl Described {
    /// As `git describe --long` says it; without a tag the digits alone.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{tag}-{}-g{}", self.distance, self.id8),
            None => self.id8.clone(),
        }
    }

    /// The version that setuptools_scm would guess: of the tag itself on it, else the one after it as a development version. `None` if
    /// the tag is no version.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        let (distance, id8) = (self.distance, &self.id8);
        let Some(tag) = &self.tag else { return Some(format!("0.1.dev{distance}+g{id8}")) };
        let version = version_of(tag)?;
        if distance == 0 {
            return Some(version.to_string());
        }
        Some(format!("{}.dev{distance}+g{id8}", next(version)))
    }
}

/// The version that a tag names: `v1.2.3`, `release-1.2.3`, `1.2.3rc1`.
fn version_of(tag: &str) -> Option<Version> {
    let tag = tag.split('+').next().unwrap_or(tag);
    let starts = tag.char_indices().filter(|(at, c)| {
        let begins = c.is_ascii_digit() || matches!(c, 'v' | 'V');
        begins && (*at == 0 || tag[..*at].ends_with('-'))
    });
    starts.map(|(at, _)| &tag[at..]).find_map(|text| Version::from_str(text).ok())
}

/// The version after one: its last number is one more.
fn next(version: Version) -> String {
    let public = version.without_local().to_string();
    if let Some((before, _)) = public.split_once(".dev") {
        return before.to_owned();
    }
    let at = public.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    let (before, number) = public.split_at(at);
    let number = number.parse::<u64>().unwrap_or(0).saturating_add(1);
    format!("{before}{number}")
}

/// A tag that may name a commit.
#[derive(Clone, Debug)]
struct Tag {
    name: String,
    annotated: bool,
}

/// The tags of a repository that hold a digit, read once for many commits.
#[derive(Debug)]
pub struct Tags {
    of: HashMap<Oid, Tag>,
    /// What tells whether they are still the same.
    pub digest: Digest,
}

impl Mirror {
    /// Reads its tags.
    ///
    /// # Errors
    /// If its references cannot be read, or there are more than 200,000.
    pub fn tags(&self) -> Result<Tags, GitError> {
        let (_, common) = git_dirs(self.path())?;
        if common.join("reftable").is_dir() {
            let why = "its references are kept in a reftable, which flow does not read".to_owned();
            return Err(GitError::NotARepository { path: self.path().to_owned(), why });
        }
        let packed = common.join("packed-refs");
        let bytes = read_regular(&packed, REFERENCES).map_err(GitError::io(&packed))?.unwrap_or_default();
        let mut found: HashMap<String, Oid> = HashMap::new();
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Some((id, name)) = line.split_once(' ') else { continue };
            if let (Ok(id), Some(name)) = (Oid::from_str(id), name.trim().strip_prefix("refs/tags/")) {
                found.insert(name.to_owned(), id);
            }
        }
        // Loose ones are newer than packed ones.
        loose(&common.join("refs/tags"), "", 0, &mut found)?;
        found.retain(|name, _| name.contains(|c: char| c.is_ascii_digit()));
        let mut sorted: Vec<(String, Oid)> = found.into_iter().collect();
        sorted.sort_unstable();
        let listed: Vec<String> = sorted.iter().map(|(name, id)| format!("{id} {name}")).collect();
        let mut of: HashMap<Oid, Tag> = HashMap::new();
        for (name, id) in sorted {
            // A tag whose object is not here names nothing; nor does one of a tree or a blob.
            let Ok((_, kind)) = self.header(id) else { continue };
            let Ok(commit) = self.peel(id) else { continue };
            let tag = Tag { name, annotated: kind == ObjectType::Tag };
            let rank = |tag: &Tag| (tag.annotated, version_of(&tag.name));
            match of.get(&commit) {
                Some(other) if rank(other) >= rank(&tag) => {}
                _ => drop(of.insert(commit, tag)),
            }
        }
        Ok(Tags { of, digest: Digest::of(listed.join("\n").as_bytes()) })
    }

    /// What a commit is called by the nearest of some tags.
    ///
    /// # Errors
    /// If a commit behind it is not here, as in a shallow clone, or there are more than two million.
    pub fn describe(&self, commit: &ObjectId, tags: &Tags) -> Result<Described, GitError> {
        let start = private(commit)?;
        let id8 = commit.as_str().chars().take(DIGITS).collect();
        let mut flags: HashMap<Oid, u32> = HashMap::from([(start, 0)]);
        // By the time of the commit, the newest first; in the order of their finding where that is the same.
        let mut heap = BinaryHeap::from([(self.commit(start)?.committed, Reverse(0_usize), start)]);
        let mut candidates: Vec<(u64, &Tag, u32)> = Vec::new();
        let mut walked = 0_u64;
        while let Some((_, _, id)) = heap.pop() {
            if flags.len() > MOST_COMMITS {
                let what = format!("the history of {commit}");
                return Err(GitError::TooMuch { what, limit: MOST_COMMITS as u64, found: flags.len() as u64 });
            }
            let mut own = flags.get(&id).copied().unwrap_or(0);
            for (distance, _, flag) in &mut candidates {
                *distance += u64::from(own & *flag == 0);
            }
            if let Some(tag) = tags.of.get(&id).filter(|_| candidates.len() < CANDIDATES) {
                let flag = 1 << candidates.len();
                own |= flag;
                candidates.push((walked, tag, flag));
            }
            walked += 1;
            for parent in self.commit(id)?.parents {
                let known = flags.len();
                match flags.entry(parent) {
                    std::collections::hash_map::Entry::Occupied(mut there) => *there.get_mut() |= own,
                    std::collections::hash_map::Entry::Vacant(free) => {
                        free.insert(own);
                        heap.push((self.commit(parent)?.committed, Reverse(known), parent));
                    }
                }
            }
            let all = candidates.iter().fold(0, |all, (_, _, flag)| all | flag);
            // Behind what every candidate reaches no distance grows.
            if all != 0 && heap.iter().all(|(_, _, id)| flags.get(id).is_some_and(|own| own & all == all)) {
                break;
            }
        }
        Ok(match candidates.iter().min_by_key(|(distance, _, _)| *distance) {
            Some((distance, tag, _)) => Described { tag: Some(tag.name.clone()), distance: *distance, id8 },
            None => Described { tag: None, distance: walked, id8 },
        })
    }
}

/// Tags that are files of their own.
fn loose(folder: &Path, prefix: &str, depth: usize, found: &mut HashMap<String, Oid>) -> Result<(), GitError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < 10 {
            loose(&path, &format!("{name}/"), depth + 1, found)?;
        } else if kind.is_file() {
            let bytes = read_regular(&path, 4096).map_err(GitError::io(&path))?.unwrap_or_default();
            let id = std::str::from_utf8(&bytes).ok().and_then(|text| Oid::from_str(text.trim()).ok());
            found.extend(id.map(|id| (name, id)));
        }
        if found.len() > MOST_TAGS {
            let what = format!("the tags of {}", folder.display());
            return Err(GitError::TooMuch { what, limit: MOST_TAGS as u64, found: found.len() as u64 });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_setuptools_scm_guesses() {
        let version = |tag: &str, distance: u64| {
            Described { tag: Some(tag.to_owned()), distance, id8: "0123abcd".into() }.version()
        };
        let is = |tag: &str, distance: u64, wanted: &str| assert_eq!(version(tag, distance).as_deref(), Some(wanted));
        is("v1.2.3", 0, "1.2.3");
        is("v1.2.3", 4, "1.2.4.dev4+g0123abcd");
        is("1.9", 1, "1.10.dev1+g0123abcd");
        is("release-2.0", 2, "2.1.dev2+g0123abcd");
        is("v0.6.0-rc1", 0, "0.6.0rc1");
        is("v0.6.0rc1", 3, "0.6.0rc2.dev3+g0123abcd");
        is("v0.6.0.post1", 3, "0.6.0.post2.dev3+g0123abcd");
        is("v0.6.0.dev0", 3, "0.6.0.dev3+g0123abcd");
        is("gateway-v0.2.1", 0, "0.2.1");
        assert_eq!(version("gateway/v0.2.1", 0), None);
        assert_eq!(version("nightly-2024", 1).as_deref(), Some("2025.dev1+g0123abcd"));
        assert_eq!(version("build_7x", 1), None);
        let none = Described { tag: None, distance: 12, id8: "0123abcd".into() };
        assert_eq!((none.text(), none.version().unwrap()), ("0123abcd".into(), "0.1.dev12+g0123abcd".into()));
    }
}
