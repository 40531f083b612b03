//! How the files of a run stand in the project's repository: which commit is checked out, and which of them are not as it has them.
//!
//! Kept with a run, so that its readers know whether somebody else can make it again. In no key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use crate::event::GitState;
use crate::git::{Held, Project};
use crate::manifest::clean;
use crate::plan::{Intake, Plan};

/// Dirty files that are named.
const DIRTY: usize = 50;

/// How a plan's manifest and files stand in their project's repository. `None` if the manifest lies in none, or that cannot be read.
#[must_use]
pub fn git_state(plan: &Plan, intake: &Intake) -> Option<GitState> {
    let manifest = &plan.manifest;
    let project = Project::of(manifest.files.first()?.path.parent()?)?;
    let head = project.head().ok()?;
    // What was taken is what the run uses, whatever a file holds by now.
    let mut taken: HashMap<PathBuf, &[u8]> = intake.files().map(|(path, bytes)| (clean(path), bytes)).collect();
    taken.extend(manifest.files.iter().map(|file| (file.path.clone(), file.text.as_bytes())));
    let mut dirty = Vec::new();
    for path in manifest.version.asked() {
        let Ok(within) = path.strip_prefix(project.root()) else { continue };
        let here: Option<Cow<'_, [u8]>> = match taken.get(&path) {
            Some(bytes) => Some(Cow::Borrowed(*bytes)),
            None => manifest.version.read(&path, 256 << 20).ok().map(Cow::Owned),
        };
        let there = match &head {
            Some(commit) => match project.at(&commit.tree, within, &mut |_| {}).ok()? {
                Held::File(id) => Some(id),
                _ => None,
            },
            None => None,
        };
        let same = match (&here, &there) {
            (Some(here), Some(there)) => project.has_content(there, here),
            (here, there) => here.is_none() && there.is_none(),
        };
        if !same {
            dirty.push(within.display().to_string());
        }
        if dirty.len() >= DIRTY {
            break;
        }
    }
    Some(GitState { commit: head.map(|commit| commit.id), dirty })
}
