//! The manifests of a project that hold what `flow why` is asked about, where no run does.
//!
//! Looks through the project's files within bounds. What cannot be read as a manifest is passed over: it is not what was asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

use crate::cli::wanted::Wanted;
use crate::hostile::read_regular;
use crate::manifest::{self, Manifest};
use crate::plan::expand::expand;
use crate::plan::points::count;
use crate::plan::{Facts, Intake};

/// Files and folders of the project that are looked at.
const ENTRIES: usize = 50_000;
/// How deep folders are looked into.
const DEPTH: usize = 8;
/// Manifests that are read.
const MANIFESTS: usize = 200;
/// The largest file that is taken for a manifest, in bytes.
const LARGEST: u64 = 1 << 20;
/// Actions of a manifest whose jobs are looked through.
const ACTIONS: u64 = 200_000;

/// The project's manifests that hold what is asked for, by their paths. Hidden files, ignored ones and what links lead to are left
/// out.
pub(super) fn holding(folder: &Path, wanted: &Wanted) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| manifest::read(path).is_ok_and(|read| holds(read, wanted));
    all(folder).into_iter().filter(holds).collect()
}

/// The project's manifests.
pub(super) fn all(folder: &Path) -> Vec<PathBuf> {
    let project = folder.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(folder);
    let mut walk = WalkBuilder::new(project);
    walk.max_depth(Some(DEPTH)).git_global(false).require_git(false).follow_links(false);
    let files = walk.build().take(ENTRIES).flatten().map(ignore::DirEntry::into_path);
    let mut paths: Vec<PathBuf> = files.filter(|path| is_manifest(path)).take(MANIFESTS).collect();
    paths.sort_unstable();
    paths
}

/// Whether a file says a pipeline: others are imported, and hold no commit of their own.
fn is_manifest(path: &Path) -> bool {
    let is_kdl = path.extension().is_some_and(|extension| extension == "kdl");
    let text = || read_regular(path, LARGEST).ok().flatten();
    is_kdl && text().is_some_and(|text| String::from_utf8_lossy(&text).lines().any(|line| line.starts_with("pipeline")))
}

fn holds(manifest: Manifest, wanted: &Wanted) -> bool {
    if wanted.is_digits() {
        let mut commits = manifest.pipeline.repos.iter().flat_map(|repo| &repo.commits);
        return commits.any(|commit| wanted.begins(&commit.id.value));
    }
    if count(&manifest.pipeline) > ACTIONS {
        return false;
    }
    // Jobs have the same names whatever this machine has.
    let mut intake = Intake::of(manifest.version.clone());
    let plan = expand(Arc::new(manifest), Facts::default(), &mut intake);
    plan.jobs.iter().any(|job| wanted.holds(&job.id))
}
