//! Finding the job that somebody means, and the manifest it belongs to.

use std::path::{Path, PathBuf};

use globset::Glob;

use crate::cli::Places;
use crate::cli::fault::Fault;
use crate::cli::open::{Opened, store_root_of};
use crate::cli::output;
use crate::cli::status::no_run;
use crate::names::{Axes, JobId};
use crate::report::status::runs;
use crate::run::journal::read_plan;

/// How many jobs a message lists.
const LISTED: usize = 24;

/// A manifest and one job of it.
pub struct Found {
    /// The manifest on this machine.
    pub opened: Opened,
    /// The job's number in its plan.
    pub job: usize,
}

/// A manifest and the jobs of it that were meant.
pub struct Several {
    /// The manifest on this machine.
    pub opened: Opened,
    /// The jobs' numbers in its plan; at least one.
    pub jobs: Vec<usize>,
}

/// Digits of a commit's id that are enough to mean it.
const DIGITS: usize = 4;

/// Finds the one job that a name, a prefix, a glob or the beginning of a commit's id means.
///
/// # Errors
/// If there is none, or more than one: then they are listed.
pub async fn find(wanted: &str, manifest: Option<&Path>, places: &Places) -> Result<Found, Fault> {
    let Several { opened, jobs: found } = several(wanted, manifest, places).await?;
    if let [job] = found.as_slice() {
        return Ok(Found { job: *job, opened });
    }
    let jobs = &opened.plan().jobs;
    let mut names: Vec<&str> = found.iter().take(LISTED).map(|job| jobs[*job].id.as_str()).collect();
    if found.len() > LISTED {
        names.push("…");
    }
    let message = format!("`{wanted}` means {} jobs", found.len());
    Err(Fault::hint(2, message, format!("name one of them:\n{}", names.join("\n"))))
}

/// Finds the jobs that a name, a prefix, a glob or the beginning of a commit's id means.
///
/// # Errors
/// If there is none.
pub async fn several(wanted: &str, manifest: Option<&Path>, places: &Places) -> Result<Several, Fault> {
    let glob = Glob::new(wanted).map_err(|error| Fault::new(2, error.to_string()))?.compile_matcher();
    let means = |job: &JobId, axes: &Axes| {
        let name = job.as_str();
        (name.starts_with(wanted) && !wanted.is_empty())
            || glob.is_match(name)
            || (wanted.len() >= DIGITS && axes.get("commit").is_some_and(|commit| commit.starts_with(wanted)))
    };
    let (manifest, places) = match manifest {
        Some(manifest) => (manifest.to_owned(), places.clone()),
        None => {
            let root = store_root_of(None, places);
            let manifest = newest_with(&root, wanted, &means)?;
            // The jobs were looked for in this store, wherever their manifest's own may be.
            (manifest, Places { cache: Some(root), ..places.clone() })
        }
    };
    let opened = Opened::open(&manifest, &places, false).await?;
    let jobs = &opened.plan().jobs;
    let mut found: Vec<usize> = (0..jobs.len()).filter(|job| means(&jobs[*job].id, &jobs[*job].axes)).collect();
    if let Some(exact) = jobs.iter().position(|job| job.id.as_str() == wanted) {
        found = vec![exact];
    }
    if found.is_empty() {
        let names: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        let message = format!("{} has no job `{wanted}`", manifest.display());
        return Err(Fault::hint(2, message, nearest(wanted, &names)));
    }
    Ok(Several { jobs: found, opened })
}

/// The manifest of the newest run that holds a job which is meant.
fn newest_with(root: &Path, wanted: &str, means: &dyn Fn(&JobId, &Axes) -> bool) -> Result<PathBuf, Fault> {
    let runs = runs(root);
    if runs.is_empty() {
        return Err(no_run(root));
    }
    let mut newest = None;
    for run in &runs {
        let Some(plan) = read_plan(root, run) else { continue };
        if plan.jobs.iter().any(|(job, axes)| means(job, axes)) {
            output::say(&format!("note: manifest {}, of run {run}", plan.manifest.display()));
            return Ok(plan.manifest);
        }
        newest.get_or_insert(plan);
    }
    let names: Vec<&str> = newest.iter().flat_map(|plan| &plan.jobs).map(|(job, _)| job.as_str()).collect();
    Err(Fault::hint(2, format!("no run in {} has a job `{wanted}`", root.display()), nearest(wanted, &names)))
}

fn nearest(wanted: &str, names: &[&str]) -> String {
    if !wanted.is_empty() && wanted.len() < DIGITS && wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
        return format!("if it is a commit, give at least {DIGITS} digits of its id");
    }
    let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, wanted));
    near.map_or_else(
        || "there are no jobs".to_owned(),
        |near| format!("there are {} jobs, such as {near}", names.len()),
    )
}
