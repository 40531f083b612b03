//! How the files of a run stand in the project's repository: which commit is checked out, and which of them are not as it has them.
//!
//! Kept with a run, so that its readers know whether somebody else can make it again. In no key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::event::GitState;
use crate::git::{Held, PastCommit, Project};
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
            Some(commit) => project.at(&commit.tree, within, &mut |_| {}).ok()?,
            None => Held::Nothing,
        };
        let same = match (&here, &there) {
            (Some(here), Held::File(there)) => {
                project.has_content(there, here) || project.is_written(within, there, here)
            }
            (Some(here), Held::Submodule) => {
                head.as_ref().is_some_and(|head| in_submodule(&project, head, &path, here))
            }
            (None, Held::File(_)) => false,
            (here, _) => here.is_none(),
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

/// Whether a file of a submodule is as the project's commit means it: the commit that it names is checked out there and has it so.
fn in_submodule(project: &Project, head: &PastCommit, path: &Path, here: &[u8]) -> bool {
    let sub = path.parent().and_then(Project::of).filter(|sub| sub.root() != project.root());
    let Some((sub, Ok(Some(commit)))) = sub.map(|sub| {
        let head = sub.head();
        (sub, head)
    }) else {
        return false;
    };
    let (Ok(at), Ok(within)) = (sub.root().strip_prefix(project.root()), path.strip_prefix(sub.root())) else {
        return false;
    };
    let meant = project.submodule(&head.tree, at).ok().flatten();
    meant.is_some_and(|meant| meant == commit.id)
        && matches!(sub.at(&commit.tree, within, &mut |_| {}), Ok(Held::File(id)) if sub.has_content(&id, here))
}
