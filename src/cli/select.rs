//! Which jobs and steps a command is about.

use clap::Args;
use globset::Glob;

use crate::class::Class;
use crate::cli::fault::Fault;
use crate::manifest::Ruling;
use crate::plan::graph::upstream_of;
use crate::plan::{Job, Plan};
use crate::text::counted;

/// Reads a selector: one that is empty, as an unset variable of a script leaves it, would select what nobody meant.
///
/// # Errors
/// If it is empty.
pub fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty: say what is meant, or leave the option out to mean all".into());
    }
    Ok(text.to_owned())
}

/// Selection of jobs and steps.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only jobs that match a glob: `shop/*/careful/1`, `*/hasty/*`
    #[arg(long, value_name = "JOB-GLOB", value_parser = not_empty)]
    pub only: Vec<String>,
    /// Only jobs of commits that begin so
    #[arg(long, value_name = "ID", value_parser = not_empty)]
    pub commit: Vec<String>,
    /// Only jobs whose last class was this
    #[arg(long, value_name = "CLASS", value_parser = not_empty)]
    pub class: Vec<String>,
    /// Nothing beyond this step
    #[arg(long, value_name = "STEP", value_parser = not_empty)]
    pub until: Option<String>,
}

/// What a command is about.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The jobs, by number.
    pub jobs: Vec<usize>,
    /// Whether each action is wanted.
    pub nodes: Vec<bool>,
}

/// The jobs and actions that are wanted.
///
/// # Errors
/// If a glob is none, or nothing is selected.
pub fn wanted(
    plan: &Plan,
    selection: &Selection,
    last_class: &dyn Fn(usize) -> Option<String>,
) -> Result<Selected, Fault> {
    let jobs = jobs(plan, selection, last_class)?;
    let steps = &plan.manifest.pipeline.steps;
    let mut nodes: Vec<usize> = jobs.iter().flat_map(|job| plan.jobs[*job].nodes.iter().copied()).collect();
    if let Some(until) = &selection.until {
        let Some(step) = steps.iter().position(|step| step.name.value.as_str() == until) else {
            let names: Vec<&str> = steps.iter().map(|step| step.name.value.as_str()).collect();
            return Err(Fault::hint(
                2,
                format!("there is no step `{until}`"),
                format!("the steps are: {}", names.join(", ")),
            ));
        };
        nodes.retain(|node| plan.nodes[*node].step == step);
        nodes = upstream_of(&plan.nodes, &nodes);
    }
    let mut wanted = vec![false; plan.nodes.len()];
    for node in nodes {
        wanted[node] = true;
    }
    let mut jobs = jobs;
    // A job of which nothing is wanted is not what this is about.
    jobs.retain(|job| plan.jobs[*job].nodes.iter().any(|node| wanted[*node]));
    Ok(Selected { jobs, nodes: wanted })
}

/// The jobs that are selected.
///
/// # Errors
/// If a glob is none, a class is unknown, or nothing is selected.
pub fn jobs(
    plan: &Plan,
    selection: &Selection,
    last_class: &dyn Fn(usize) -> Option<String>,
) -> Result<Vec<usize>, Fault> {
    let only = globs(&selection.only)?;
    for class in &selection.class {
        if !Class::ALL.iter().any(|known| known.name() == class) {
            let known = Class::ALL.iter().map(|known| known.name());
            return Err(Fault::hint(2, format!("there is no class `{class}`"), class_like(class, known)));
        }
    }
    let selected = |index: &usize| {
        let job = &plan.jobs[*index];
        let by_glob = only.is_empty() || only.iter().any(|glob| glob.is_match(job.id.as_str()));
        let commit = job.axes.get("commit");
        let by_commit = selection.commit.is_empty()
            || commit.is_some_and(|id| selection.commit.iter().any(|wanted| id.starts_with(wanted.as_str())));
        let by_class =
            selection.class.is_empty() || last_class(*index).is_some_and(|last| selection.class.contains(&last));
        // What a person took out is not begun any more.
        let taken_out = |ruling: &Ruling| ruling.verdict.is_none() && ruling.job.value == job.id.as_str();
        by_glob && by_commit && by_class && !plan.manifest.pipeline.rulings.iter().any(taken_out)
    };
    let jobs: Vec<usize> = (0..plan.jobs.len()).filter(selected).collect();
    let asked = !(selection.only.is_empty() && selection.commit.is_empty() && selection.class.is_empty());
    if jobs.is_empty() && asked {
        let example = plan.jobs.first().map_or("", |job| job.id.as_str());
        return Err(Fault::hint(
            2,
            "no job is selected",
            format!("there are {} jobs, such as {example}", plan.jobs.len()),
        ));
    }
    Ok(jobs)
}

/// The actions that `--retry` means, by number; with the globs as they were written. `about` are the jobs that are selected.
///
/// # Errors
/// If a glob is none, or matches no job of them.
pub fn retried(plan: &Plan, about: &[usize], texts: &[String]) -> Result<Vec<bool>, Fault> {
    let mut retried = vec![false; plan.nodes.len()];
    for (glob, text) in globs(texts)?.iter().zip(texts) {
        let meant: Vec<&Job> =
            about.iter().map(|job| &plan.jobs[*job]).filter(|job| glob.is_match(job.id.as_str())).collect();
        if meant.is_empty() {
            let example = about.first().map_or("", |job| plan.jobs[*job].id.as_str());
            let message = format!("--retry {text}: no job of this run matches");
            let hint = format!("it is about {}, such as {example}", counted(about.len(), "job"));
            return Err(Fault::hint(2, message, hint));
        }
        for node in meant.iter().flat_map(|job| &job.nodes) {
            retried[*node] = true;
        }
    }
    Ok(retried)
}

/// The class that was most likely meant, or all there are.
fn class_like<'a>(class: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let upper = class.to_uppercase();
    let near = known.clone().map(|name| (strsim::damerau_levenshtein(name, &upper), name)).min();
    match near {
        Some((distance, near)) if distance <= near.len() / 4 => format!("did you mean {near}?"),
        _ => format!("the classes are: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Compiles globs of jobs: a `*` does not cross a `/`.
///
/// # Errors
/// If one is no glob.
pub fn globs(texts: &[String]) -> Result<Vec<globset::GlobMatcher>, Fault> {
    let compile = |text: &String| {
        Glob::new(text).map(|glob| glob.compile_matcher()).map_err(|error| Fault::new(2, error.to_string()))
    };
    texts.iter().map(compile).collect()
}
