//! Which tools of a manifest have files of their own that differ between two versions of the project: what such a tool answers is
//! not known of the past, so that what uses it may run again, or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::git::{GitError, Held, Project};
use crate::manifest::Version;
use crate::names::ObjectId;
use crate::plan::{Ask, Plan};
use crate::why::past::content_of;
use crate::why::whence::tool_files;

/// Entries of folders that are compared with the work tree at most.
const ENTRIES: usize = 1000;

/// Tools by name, each with the first of its files or folders that differs, relative to the project. What a tool without a probe
/// is stands among the ingredients. The newer version is the work tree's where no tree is given.
///
/// # Errors
/// If the repository cannot be read.
pub fn stirred(
    project: &Project,
    plan: &Plan,
    old: &ObjectId,
    new: Option<&ObjectId>,
) -> Result<BTreeMap<String, PathBuf>, GitError> {
    let mut found = BTreeMap::new();
    for tool in &plan.manifest.pipeline.tools {
        if tool.probes.is_empty() && tool.source.is_none() {
            continue;
        }
        for path in tool_files(tool) {
            let Ok(within) = path.strip_prefix(project.root()) else { continue };
            let other = match new {
                Some(new) => apart(project, old, new, within)?,
                None => edited(project, old, within, &mut 0)?.is_some(),
            };
            if other {
                found.entry(tool.name.value.clone()).or_insert_with(|| within.to_owned());
                break;
            }
        }
    }
    Ok(found)
}

/// Whether an action has something of a tool in its key.
#[must_use]
pub fn uses(plan: &Plan, node: usize, tool: &str) -> bool {
    match &plan.nodes[node].ask {
        Ask::Environment(_) => plan.nodes[node].ask.tools().iter().any(|named| *named == tool),
        Ask::Agent(ask) => ask.tools.iter().any(|named| named == tool),
        Ask::Test(ask) => ask.tools.iter().any(|named| named == tool),
        Ask::Command(ask) => ask.tools.iter().any(|named| named == tool),
        Ask::Checkout(_) | Ask::Patch(_) | Ask::Classify(_) => false,
    }
}

fn apart(project: &Project, old: &ObjectId, new: &ObjectId, path: &Path) -> Result<bool, GitError> {
    let (before, after) = (project.at(old, path, &mut |_| {})?, project.at(new, path, &mut |_| {})?);
    Ok(match (&before, &after) {
        (Held::Folder, Held::Folder) => project.folder(old, path)? != project.folder(new, path)?,
        _ => before != after,
    })
}

/// The first file at a path or below of which the work tree has something else than a commit. Beyond so many entries nothing is
/// looked at.
pub(super) fn edited(
    project: &Project,
    tree: &ObjectId,
    path: &Path,
    seen: &mut usize,
) -> Result<Option<PathBuf>, GitError> {
    *seen += 1;
    if *seen > ENTRIES {
        return Ok(None);
    }
    let full = project.root().join(path);
    let other = match project.at(tree, path, &mut |_| {})? {
        Held::File(id) => match content_of(&Version::default(), &full) {
            Some((_, here)) => !project.has_content(&id, &here) && !project.is_written(path, &id, &here),
            None => !full.exists(),
        },
        Held::Folder => {
            for name in project.names(tree, path) {
                let found = edited(project, tree, &path.join(name), seen)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            false
        }
        // What git does not keep is not looked at.
        Held::Nothing | Held::Submodule | Held::Odd(_) => false,
    };
    Ok(other.then(|| path.to_owned()))
}
