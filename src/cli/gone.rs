//! What became of a commit that a manifest lists no longer, and of a manifest that has another name now: by the project's history.
//!
//! Only messages are made of it. Where the history cannot be read, they say less.

use std::path::{Path, PathBuf};

use crate::cli::manifests;
use crate::cli::versions::Within;
use crate::cli::wanted::{Wanted, newest_of};
use crate::git::PastCommit;
use crate::why::past::{Newest, Past, Snapshot, Terms};

/// Commits that are looked through.
const COMMITS: usize = 2_000;

/// Who took a commit out of a manifest's list, and the run that holds it still: each a sentence, as far as that is known.
pub(super) fn dropped(manifest: &Path, root: &Path, wanted: &Wanted) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(within) = Within::of(manifest) {
        said.extend(dropped_by(&within, wanted));
    }
    if let Ok((run, kept)) = newest_of(root, None, wanted) {
        let whose = if same(&kept.manifest, manifest) {
            String::new()
        } else {
            format!(" of {}", kept.manifest.file_name().unwrap_or(kept.manifest.as_os_str()).to_string_lossy())
        };
        said.push(format!("run {run}{whose} holds it: `flow why {} --run`", wanted.text()));
    }
    said
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

fn dropped_by(within: &Within, wanted: &Wanted) -> Option<String> {
    let mut past = Past::new(within.project.clone(), Terms::default());
    let head = within.project.head().ok()??;
    let newest = past.at(&within.manifest, &head);
    if lists(&newest, wanted)? {
        return Some("it was taken out of the list by an edit that is not committed".to_owned());
    }
    let mut line = Newest::new(head, newest);
    for _ in 0..COMMITS {
        let (commit, snapshot) = line.next()?;
        for parent in &commit.parents {
            let parent = within.project.commit(parent).ok()?;
            let older = past.before((&commit, &snapshot), &parent).ok()?;
            // Behind a version that cannot be read nobody knows who did it.
            if lists(&older, wanted)? {
                return Some(format!("dropped by {}", called(within, &commit)));
            }
            line.push(&commit, parent, older);
        }
        if past.is_spent() {
            return None;
        }
    }
    None
}

/// Whether a version lists the commit; `None` if it cannot be read.
fn lists(snapshot: &Snapshot, wanted: &Wanted) -> Option<bool> {
    let plan = snapshot.plan.as_ref().ok()?;
    let mut commits = plan.manifest.pipeline.repos.iter().flat_map(|repo| &repo.commits);
    Some(commits.any(|commit| wanted.begins(&commit.id.value)))
}

fn called(within: &Within, commit: &PastCommit) -> String {
    let id = commit.id.as_str();
    let subject = super::versions::subject(commit, &within.manifest).unwrap_or_default();
    let subject = crate::text::shorten(&subject, 60);
    format!("{}, {}, {}: {subject}", id.get(..8).unwrap_or(id), commit.date.strftime("%Y-%m-%d"), commit.author)
}

/// What a manifest that is not there is called today and who renamed it, and the manifests that there are.
pub(super) fn renamed(manifest: &Path) -> Vec<String> {
    let folder = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    let Some(folder) = folder.parent().and_then(|folder| folder.ancestors().find(|folder| folder.is_dir())) else {
        return Vec::new();
    };
    let there = manifests::all(folder);
    let mut said = Vec::new();
    if let Some(within) = Within::of(manifest) {
        said.extend(renamed_by(&within, &there));
    }
    if !there.is_empty() {
        let shown = there.iter().map(|path| shown(path, folder)).collect::<Vec<_>>();
        said.push(format!("the project has {}", super::wanted::some_of(shown.into_iter())));
    }
    said
}

fn shown(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

fn renamed_by(within: &Within, there: &[PathBuf]) -> Option<String> {
    let project = &within.project;
    let old = within.manifest.strip_prefix(project.root()).ok()?;
    let head = project.head().ok()??;
    let is_in =
        |commit: &PastCommit| project.at(&commit.tree, old, &mut |_| {}).map(|held| held != crate::git::Held::Nothing);
    if is_in(&head).ok()? {
        return Some("the last commit has it: `git status` tells what became of it".to_owned());
    }
    let past = Past::new(project.clone(), Terms::default());
    let mut line = Newest::new(head.clone(), ());
    for _ in 0..COMMITS {
        let (commit, ()) = line.next()?;
        for parent in &commit.parents {
            let parent = project.commit(parent).ok()?;
            if is_in(&parent).ok()? {
                let now = there
                    .iter()
                    .filter_map(|path| path.canonicalize().ok())
                    .find(|path| past.name_at(path, &head, &parent).is_ok_and(|name| name == within.manifest));
                let what = match now {
                    Some(path) => format!("it is {} since", shown(&path, project.root())),
                    None => "it was removed by".to_owned(),
                };
                return Some(format!("{what} {}", called(within, &commit)));
            }
            line.push(&commit, parent, ());
        }
    }
    None
}
