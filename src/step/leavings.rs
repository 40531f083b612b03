//! What an agent leaves for its reading: its streams, its trajectory, and the files that its adapter keeps.
//!
//! All of it is the agent's: no link is followed, every size and every search is bounded, and nothing here is stored before
//! secrets are taken out of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use globset::GlobBuilder;
use serde::{Deserialize, Serialize};

use crate::agent::{self, ReadingTable};
use crate::attempt::{ProcessEnd, Usage};
use crate::digest::Digest;
use crate::hostile;
use crate::manifest::Keep;
use crate::plan::AgentAsk;
use crate::process::{By, End, Exit};

/// The largest file that is kept, in bytes.
const LARGEST: u64 = 64 << 20;
/// How deep files to keep are looked for, and among how many entries.
const DEPTH: usize = 16;
const ENTRIES: usize = 50_000;
/// The file within a place that says what to keep of it.
const NOTE: &str = "reading.json";
/// Longer than any such note.
const NOTE_BYTES: u64 = 4 << 20;

/// What to look for in the place of an attempt, and how to read it: written there, so that a later run can read what an agent
/// had spent when this one died.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// A file within `{out}`.
    trajectory: Option<String>,
    /// Other files.
    keep: Vec<Keep>,
    /// How they are read.
    reading: ReadingTable,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Leavings {
    /// Bytes by name, as the agent wrote them.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What could not be kept.
    pub notes: Vec<String>,
    /// The names of those that are too long to be kept.
    pub unkept: Vec<String>,
}

impl Wanted {
    /// What an adapter keeps.
    #[must_use]
    pub fn of(ask: &AgentAsk) -> Self {
        Self { trajectory: ask.trajectory.clone(), keep: ask.keep.clone(), reading: ask.reading.reading().clone() }
    }

    /// Writes it into a place.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn note(&self, place: &Path) -> std::io::Result<()> {
        std::fs::write(place.join(NOTE), serde_json::to_vec(self)?)
    }

    /// What the adapter keeps of a place beside the streams.
    #[must_use]
    pub fn find(&self, place: &Path) -> Leavings {
        let mut left = Leavings::default();
        if let Some(name) = &self.trajectory {
            left.take("trajectory", place, &Path::new("out").join(name));
        }
        for keep in &self.keep {
            let root = Path::new(if keep.home { "home" } else { "out" });
            if let Some(name) = newest(&place.join(root), &keep.glob) {
                left.take(&keep.name, place, &root.join(name));
            }
        }
        left
    }
}

impl Leavings {
    fn take(&mut self, name: &str, place: &Path, file: &Path) {
        match hostile::read_below(place, file, LARGEST) {
            Ok(Some(bytes)) => drop(self.files.insert(name.to_owned(), bytes)),
            Ok(None) => {}
            Err(error) => {
                if error.kind() == std::io::ErrorKind::FileTooLarge {
                    self.unkept.push(name.to_owned());
                }
                self.notes.push(format!("the {name} was not kept: {error}"));
            }
        }
    }
}

/// The newest regular file below a folder whose path there matches.
fn newest(root: &Path, glob: &str) -> Option<PathBuf> {
    let matcher = GlobBuilder::new(glob).literal_separator(true).build().ok()?.compile_matcher();
    let mut best: Option<(SystemTime, PathBuf)> = None;
    let mut folders = vec![(PathBuf::new(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > ENTRIES {
                return best.map(|(_, path)| path);
            }
            let path = folder.join(entry.file_name());
            // Of the entry itself, not of what a link points to.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() && depth < DEPTH {
                folders.push((path, depth + 1));
            } else if meta.is_file() && matcher.is_match(&path) {
                let found = (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), path);
                best = best.max(Some(found));
            }
        }
    }
    best.map(|(_, path)| path)
}

/// What an agent had spent whose run died, as far as its place tells, and by which tables; `end` is how it ended, if it did by
/// itself. Nothing of it is stored but these figures: its secrets may be others by now and could not be taken out.
#[must_use]
pub fn spent(place: &Path, end: Option<&End>) -> Option<(Usage, Digest)> {
    let note = hostile::read_regular(&place.join(NOTE), NOTE_BYTES).ok().flatten()?;
    let wanted: Wanted = serde_json::from_slice(&note).ok()?;
    let Leavings { mut files, unkept, .. } = wanted.find(place);
    for (name, stream) in [("stdout", "agent.out"), ("stderr", "agent.err")] {
        if let Ok(Some(bytes)) = hostile::read_regular(&place.join(stream), LARGEST) {
            files.insert(name.to_owned(), bytes);
        }
    }
    let exit = end.map_or(Exit::Interrupted { by: By::FlowDied }, |end| end.exit.clone());
    let cut = end.is_some_and(|end| end.truncated);
    let end = ProcessEnd { exit, active_ms: 0, cpu_ms: 0, cut, unkept };
    let reading = agent::read(&wanted.reading, &end, &|name| files.get(name).cloned());
    Some((reading.usage, wanted.reading.digest()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_newest_match_is_kept_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        for (name, age) in [("a/2026/rollout-1.jsonl", 50), ("a/2026/rollout-2.jsonl", 10), ("a/other.jsonl", 1)] {
            let path = home.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, name).unwrap();
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        }
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), home.join("a/2026/rollout-3.jsonl")).unwrap();
        std::os::unix::fs::symlink(dir.path(), home.join("a/up")).unwrap();
        let keep = |name: &str, glob: &str| Keep { name: name.into(), home: true, glob: glob.into() };
        let wanted = Wanted {
            trajectory: Some("t.json".into()),
            keep: vec![keep("rollout", "a/**/rollout-*.jsonl"), keep("none", "b/*")],
            reading: ReadingTable::default(),
        };
        let left = wanted.find(dir.path());
        assert_eq!(left.files.keys().collect::<Vec<_>>(), ["rollout"]);
        assert_eq!(left.files["rollout"], b"a/2026/rollout-2.jsonl");
        assert_eq!(spent(dir.path(), None), None, "a place without a note tells nothing");
        wanted.note(dir.path()).unwrap();
        let (usage, _) = spent(dir.path(), None).unwrap();
        assert_eq!(usage.unknown_because.as_deref(), Some("the adapter says nothing of usage"));
    }
}
