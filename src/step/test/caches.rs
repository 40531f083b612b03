//! The compile caches that the processes of a test keep, where the manifest names some: one set an arm.
//!
//! The warm-ups of an arm fill its own, each going on with what the one before it left. With the first run that is not a warm-up
//! all are sealed: from then on each process begins with a fresh copy, and what it writes there is thrown away. The copies lie at
//! one path whatever the arm; what is kept lies beside it, where no process in a sandbox sees it.
//!
//! Code of the patched tree fills its own, so that it may leave answers there for later: that is why nothing is kept where nobody
//! asked for it. What it leaves is copied as something hostile.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::digest::Hasher;
use crate::hostile::{self, CopyError, Room};
use crate::measure::{Arm, Kept, Note, TestResult, Turn};
use crate::outcome::{Cause, Failure};
use crate::step::context::fault;
use crate::step::done::Done;
use crate::step::secrets::redactor;
use crate::step::test::Session;
use crate::step::test::process::Mode;
use crate::step::test::session::Sitting;
use crate::text::counted;
use crate::units::human_size;

/// The folder in which each process finds its caches.
pub(super) const FOLDER: &str = "caches";
/// The folder of what is kept of each arm.
const KEPT: &str = "kept";
/// The most that is kept of an arm.
const ROOM: Room = Room { bytes: 20 << 30, entries: 200_000 };
/// Characters that are told of a name.
const NAME: usize = 80;

/// What was kept so far.
#[derive(Default)]
pub(super) struct Caches {
    /// Whether anything but a warm-up has run.
    sealed: bool,
    arms: BTreeMap<Arm, Kept>,
    /// Something that was not kept of an arm.
    such_as: BTreeMap<Arm, String>,
}

impl Session<'_> {
    /// What a turn's process is started for. The first that counts seals the caches of every arm.
    pub(super) fn mode(&self, caches: &mut Caches, turn: Turn) -> Mode {
        caches.sealed |= !turn.warmup;
        if caches.sealed || self.ask.caches.is_empty() { Mode::Measure } else { Mode::Fill }
    }

    /// The folders of a process's caches, by the order of their names.
    pub(super) fn cache_folders(&self) -> impl Iterator<Item = PathBuf> {
        self.ask.caches.iter().map(|cache| self.place.dir.join(FOLDER).join(&cache.name))
    }

    /// What tells a process where its caches are.
    pub(super) fn cache_variables(&self) -> impl Iterator<Item = (String, String)> {
        let folders = self.cache_folders().map(|folder| folder.display().to_string());
        self.ask.caches.iter().map(|cache| cache.variable.value.clone()).zip(folders)
    }

    /// What no process may see: what is kept, of its own arm too.
    pub(super) fn hidden_caches(&self) -> Vec<PathBuf> {
        if self.ask.caches.is_empty() { Vec::new() } else { vec![self.place.dir.join(KEPT)] }
    }

    fn kept(&self, arm: Arm) -> PathBuf {
        self.place.dir.join(KEPT).join(arm.to_string())
    }

    /// Lays out what a process of an arm finds; nothing for one that is run before the warm-ups.
    pub(super) fn lay_caches(&self, caches: &Caches, arm: Arm, mode: Mode) -> Result<(), Failure> {
        if self.ask.caches.is_empty() {
            return Ok(());
        }
        self.context.folder(self.place, FOLDER)?;
        self.context.folder(self.place, KEPT)?;
        let filled = mode != Mode::Reference && caches.arms.contains_key(&arm);
        for (cache, folder) in self.ask.caches.iter().zip(self.cache_folders()) {
            if filled {
                let from = self.kept(arm).join(&cache.name);
                hostile::copy_all(&from, &folder, &mut ROOM.clone(), &mut |_| {})
                    .map_err(|error| fault(&error.to_string()))?;
            } else {
                std::fs::create_dir(&folder).map_err(|error| fault(&format!("{}: {error}", folder.display())))?;
            }
        }
        Ok(())
    }

    /// Keeps what a warm-up of an arm left; the inner failure is where that is too much.
    pub(super) fn keep_caches(&self, sitting: &mut Sitting, arm: Arm) -> Result<Result<(), Failure>, Failure> {
        let kept = self.kept(arm);
        let failed = |error: std::io::Error| fault(&format!("{}: {error}", kept.display()));
        hostile::remove_all(&kept).map_err(failed)?;
        std::fs::create_dir_all(&kept).map_err(failed)?;
        let (mut room, mut listing) = (ROOM, Hasher::default());
        let (mut files, mut bytes, mut left_out) = (0, 0, 0);
        sitting.caches.such_as.remove(&arm);
        for (cache, folder) in self.ask.caches.iter().zip(self.cache_folders()) {
            listing.update(format!("cache {}\0", cache.name).as_bytes());
            let copied = hostile::copy_all(&folder, &kept.join(&cache.name), &mut room, &mut |line| {
                listing.update(line);
            });
            let copied = match copied {
                Ok(copied) => copied,
                Err(CopyError::TooManyBytes(most)) => return Ok(Err(too_large(arm, &human_size(most)))),
                Err(CopyError::TooManyEntries(most)) => {
                    return Ok(Err(too_large(arm, &format!("{most} files and folders"))));
                }
                Err(error) => return Err(fault(&error.to_string())),
            };
            (files, bytes) = (files + copied.files, bytes + copied.bytes);
            left_out += copied.left_out;
            if let Some(path) = copied.such_as {
                // Whoever wrote there chose the name.
                let name = PathBuf::from(&cache.name).join(path).display().to_string();
                let name = redactor(&sitting.secrets).clean(name.as_bytes());
                let name = String::from_utf8_lossy(&name).escape_debug().take(NAME).collect();
                sitting.caches.such_as.entry(arm).or_insert(name);
            }
        }
        sitting.caches.arms.insert(arm, Kept { files, bytes, listing: listing.finish(), left_out });
        sitting.pristine.keep(arm, kept.clone()).map_err(failed)?;
        Ok(Ok(()))
    }

    /// Says what was kept, beside the result and for people.
    pub(super) fn note_caches(&self, caches: &Caches, result: &mut TestResult, done: &mut Done) {
        if self.ask.caches.is_empty() {
            return;
        }
        // A session that is extended without another warm-up had those of the one before.
        let before = self.earlier.as_ref().map(|earlier| &earlier.caches);
        result.caches.clone_from(before.filter(|_| caches.arms.is_empty()).unwrap_or(&caches.arms));
        if result.caches.values().any(|kept| kept.files > 0) {
            result.notes.insert(Note::CachesKept);
        }
        let each = result.caches.iter().map(|(arm, kept)| {
            let files = counted(usize::try_from(kept.files).unwrap_or(usize::MAX), "file");
            format!("{arm} {files}, {}", human_size(kept.bytes))
        });
        done.notes.push(format!("caches kept: {}", each.collect::<Vec<_>>().join("; ")));
        for (arm, such_as) in &caches.such_as {
            let left_out = caches.arms.get(arm).map_or(0, |kept| kept.left_out);
            done.notes.push(format!(
                "not kept of the {arm} tree's caches: {left_out}, such as {such_as} (links that lead out, what is no file, what lies too deep)"
            ));
        }
    }
}

fn too_large(arm: Arm, most: &str) -> Failure {
    Failure::new(Cause::CachesTooLarge, &format!("the caches of the {arm} tree hold more than {most}"))
}
