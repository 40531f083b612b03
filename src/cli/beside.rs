//! What `why --against` compares with: another job of the same plan, or the same jobs in a run.

use std::path::Path;

use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::open::Opened;
use crate::cli::select;
use crate::cli::versions::Within;
use crate::cli::wanted::{named, some_of};
use crate::names::{Axes, JobId, RunId};
use crate::plan::Plan;
use crate::report::status::runs;
use crate::run::journal::{PlanFile, read_plan};
use crate::run::renamed::old_name;
use crate::why::against::{Compared, OfSide, Side, compare};
use crate::why::explain::Sources;
use crate::why::forecast::forecast;
use crate::why::ran::Ran;

/// Runs that are looked through for a job that the manifest has no longer.
const RUNS: usize = 64;

/// Compares jobs of a plan as it is now.
///
/// # Errors
/// If neither a run nor one other job is meant.
pub(super) fn planned(
    opened: &Opened,
    jobs: &[usize],
    text: &str,
    sources: &Sources<'_>,
) -> Result<Vec<Compared>, Fault> {
    let plan = opened.plan();
    let root = &opened.store.root;
    if is_run(root, text) {
        let (_, kept) = named(root, text)?;
        let axes = jobs.iter().map(|job| (plan.jobs[*job].axes.clone(), called_then(opened, *job, &kept)));
        let axes: Vec<(Axes, Option<String>)> = axes.collect();
        let sides = jobs.iter().map(|job| of_plan(opened, *job));
        return of_run(root, text, sides, &axes, sources);
    }
    let all: Vec<(&JobId, &Axes)> = plan.jobs.iter().map(|job| (&job.id, &job.axes)).collect();
    if !all.iter().any(|(id, _)| is_job(id, text))
        && let Some(compared) = of_old_job(opened, jobs, text, sources)
    {
        return Ok(compared);
    }
    let mut compared = Vec::new();
    for job in jobs {
        let Some(other) = other(&all, *job, jobs, text)? else { continue };
        compared.push(compare(&of_plan(opened, *job), &of_plan(opened, other), None, sources));
    }
    some(compared, text)
}

/// Compares jobs as they were in a run.
///
/// # Errors
/// If neither a run nor one other job is meant.
pub(super) fn ran(
    root: &Path,
    ran: &Ran,
    (run, plan): (&RunId, &PlanFile),
    jobs: &[&(JobId, Axes)],
    text: &str,
    sources: &Sources<'_>,
) -> Result<Vec<Compared>, Fault> {
    let axes: Vec<(Axes, Option<String>)> = jobs.iter().map(|(_, axes)| (axes.clone(), None)).collect();
    let name = |id: &JobId| format!("{id} in run {run}");
    if is_run(root, text) {
        let sides = jobs.iter().map(|(id, axes)| of_ran(ran, name(id), axes));
        return of_run(root, text, sides, &axes, sources);
    }
    let all: Vec<(&JobId, &Axes)> = plan.jobs.iter().map(|(id, axes)| (id, axes)).collect();
    if !all.iter().any(|(id, _)| is_job(id, text))
        && Within::of(&plan.manifest).is_some_and(|within| within.project.revision(text).is_ok())
    {
        let hint = "leave --run out: a revision is compared with the manifest of today, or two of them with --between";
        return Err(Fault::hint(2, format!("--against {text}: that is a git revision, and {run} is a run"), hint));
    }
    let places: Vec<usize> = jobs.iter().filter_map(|(id, _)| all.iter().position(|(known, _)| *known == id)).collect();
    let mut compared = Vec::new();
    for place in &places {
        let Some(other) = other(&all, *place, &places, text)? else { continue };
        let side = |at: usize| of_ran(ran, name(all[at].0), all[at].1);
        compared.push(compare(&side(*place), &side(other), None, sources));
    }
    some(compared, text)
}

fn some(compared: Vec<Compared>, text: &str) -> Result<Vec<Compared>, Fault> {
    if compared.is_empty() {
        let hint = "name another job than those that are asked for";
        return Err(Fault::hint(2, format!("--against {text}: that is the job itself"), hint));
    }
    Ok(compared)
}

/// Whether a run's id begins so.
pub(super) fn is_run(root: &Path, text: &str) -> bool {
    runs(root).iter().any(|run| run.as_str().starts_with(text))
}

/// Whether a job is called so, or matches.
pub(super) fn is_job(id: &JobId, text: &str) -> bool {
    let globs = select::globs(&[text.to_owned()]).unwrap_or_default();
    globs.iter().any(|glob| glob.is_match(id.as_str()))
}

fn of_run(
    root: &Path,
    text: &str,
    sides: impl Iterator<Item = Side>,
    axes: &[(Axes, Option<String>)],
    sources: &Sources<'_>,
) -> Result<Vec<Compared>, Fault> {
    let (run, _) = named(root, text)?;
    let other = Ran::read(root, &run, None, Timestamp::now());
    let compared = sides.zip(axes).map(|(side, (axes, old))| {
        let mut then = axes.clone();
        let mut name = format!("what it was in run {run}");
        if let Some(old) = old {
            name.push_str(&format!(", taken to be called {old} then"));
            then.0.insert("candidate".to_owned(), old.clone());
        }
        compare(&side, &of_ran(&other, name, &then), Some(axes), sources)
    });
    Ok(compared.collect())
}

/// What a job's candidate was called in a run that does not know its name of today.
fn called_then(opened: &Opened, job: usize, kept: &PlanFile) -> Option<String> {
    let plan = opened.plan();
    let name = plan.jobs[job].axes.get("candidate")?;
    let there = |name: &str| kept.jobs.iter().any(|(_, axes)| axes.get("candidate") == Some(name));
    if there(name) {
        return None;
    }
    let node = plan.jobs[job].nodes.iter().copied().find(|node| plan.nodes[*node].axes.get("candidate").is_some())?;
    old_name(plan, node, &opened.store, &opened.index).filter(|old| there(old))
}

/// Compares with a job that the manifest has no longer, as it was in the newest run that holds it. `None` if none does, or it
/// is of no commit that is asked about.
fn of_old_job(opened: &Opened, jobs: &[usize], text: &str, sources: &Sources<'_>) -> Option<Vec<Compared>> {
    let plan = opened.plan();
    let root = &opened.store.root;
    let mut compared = Vec::new();
    for run in runs(root).into_iter().take(RUNS) {
        let Some(kept) = read_plan(root, &run) else { continue };
        let old: Vec<&(JobId, Axes)> = kept.jobs.iter().filter(|(id, _)| is_job(id, text)).collect();
        if old.is_empty() {
            continue;
        }
        let ran = Ran::read(root, &run, None, Timestamp::now());
        for job in jobs {
            let axes = &plan.jobs[*job].axes;
            let alike = |names: &[&str]| -> Vec<&(JobId, Axes)> {
                let same = |(_, old): &(JobId, Axes)| names.iter().all(|name| old.get(name) == axes.get(name));
                old.iter().copied().filter(|old| same(old)).collect()
            };
            let found = [alike(&["commit"]), alike(&["commit", "sample"])];
            let Some([(id, old)]) = found.iter().map(Vec::as_slice).find(|found| found.len() == 1) else { continue };
            let theirs = of_ran(&ran, format!("{id} as it was in run {run}"), old);
            compared.push(compare(&of_plan(opened, *job), &theirs, None, sources));
        }
        break;
    }
    (!compared.is_empty()).then_some(compared)
}

/// The other job that is meant for one: the only one that matches, or the only one of those with the same commit and sample.
/// `None` for a job that is meant itself.
fn other(all: &[(&JobId, &Axes)], job: usize, asked: &[usize], text: &str) -> Result<Option<usize>, Fault> {
    let globs = select::globs(&[text.to_owned()])?;
    let meant: Vec<usize> =
        (0..all.len()).filter(|at| globs.iter().all(|glob| glob.is_match(all[*at].0.as_str()))).collect();
    let fault = |what: String| {
        let names = all.iter().map(|(id, _)| id.to_string());
        let others =
            "a run is named by the beginning of its id, a revision by a commit's id, a branch, a tag or HEAD~2";
        Fault::hint(2, what, format!("the jobs are {}; {others}", some_of(names)))
    };
    if meant.is_empty() {
        return Err(fault(format!("--against {text}: it is no run, no job and no git revision")));
    }
    if meant.contains(&job) && (meant.len() == 1 || asked.len() > 1) {
        return Ok(None);
    }
    let others: Vec<usize> = meant.into_iter().filter(|at| *at != job).collect();
    let like = |names: &[&str]| -> Vec<usize> {
        let same = |at: &&usize| names.iter().all(|name| all[**at].1.get(name) == all[job].1.get(name));
        others.iter().filter(same).copied().collect()
    };
    for found in [others.clone(), like(&["repo", "commit"]), like(&["repo", "commit", "sample"])] {
        if let [one] = found.as_slice() {
            return Ok(Some(*one));
        }
    }
    Err(fault(format!("--against {text}: {} jobs match, and one can be compared with", others.len())))
}

fn of_plan(opened: &Opened, job: usize) -> Side {
    let plan: &Plan = opened.plan();
    let job = &plan.jobs[job];
    let mut wanted = vec![false; plan.nodes.len()];
    for node in &job.nodes {
        wanted[*node] = true;
    }
    let forecasts = forecast(plan, &opened.store, &opened.index, &wanted);
    let steps = forecasts.into_iter().map(|said| OfSide {
        step: plan.step(said.node).name.value.to_string(),
        key: said.key,
        record: said.record.map(|record| *record),
    });
    Side { name: job.id.to_string(), steps: steps.collect() }
}

fn of_ran(ran: &Ran, name: String, axes: &Axes) -> Side {
    let steps = ran.keys(axes).into_iter().map(|(step, key)| OfSide { step, key, record: None });
    Side { name, steps: steps.collect() }
}
