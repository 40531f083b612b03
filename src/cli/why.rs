//! `flow why`: what each step of a commit's jobs would do and why, or what a run did with them. Executes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use globset::GlobMatcher;
use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::open::{self, Opened};
use crate::cli::{Places, beside, output, select};
use crate::names::{Axes, JobId, RunId};
use crate::plan::Job;
use crate::report::status::runs;
use crate::run::journal::{PlanFile, read_plan};
use crate::store::{Index, Store};
use crate::why::against::{self, Compared};
use crate::why::change::{Blobs, LINES};
use crate::why::explain::{Explanation, Sources, explain};
use crate::why::forecast::forecast;
use crate::why::ran::Ran;
use crate::why::text;

/// Commits that are named where one is not found.
const NAMED: usize = 12;
/// Runs that are looked at for other manifests.
const RUNS: usize = 8;
/// Digits that a commit needs at least.
const DIGITS: usize = 4;

/// Arguments of `flow why`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow why 9f47610d m.kdl               what would run again, and why
  flow why 9f47610d                     by the manifest of its newest run
  flow why 'shop/9f47610d/careful/*'    only these jobs
  flow why 9f47610d --run               what the newest run did, and why
  flow why 9f47610d --run 20261121T0401 what a certain run did
  flow why 9f47610d --key --step agent  what its key holds, and what not
  flow why 9f47610d --against '*/*/human/*'
                                        what makes it another than its sibling

Exit codes: 0 explained; 2 no such commit, run or manifest.")]
pub struct WhyArgs {
    /// A commit by its first digits (at least 4), or jobs by name or glob
    commit: String,
    /// The manifest [default: that of the newest run that holds the commit]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// Explain what a run did [default: the newest that holds the commit]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "")]
    run: Option<String>,
    /// Only jobs that match a glob
    #[arg(long, value_name = "GLOB", value_parser = select::not_empty)]
    job: Vec<String>,
    /// Only this step of each job
    #[arg(long, value_name = "STEP", value_parser = select::not_empty)]
    step: Option<String>,
    /// Compare with another job, or with what a run did with the same jobs
    #[arg(long, value_name = "JOB|RUN", value_parser = select::not_empty)]
    against: Option<String>,
    /// What each key holds, what is known to matter and is in none, and how old the answers of tools are
    #[arg(long)]
    key: bool,
    /// One line a step
    #[arg(long, conflicts_with_all = ["all", "key", "json"])]
    short: bool,
    /// Every step and every line
    #[arg(long)]
    all: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Explains a commit.
///
/// # Errors
/// If nothing by that name is known, or it is ambiguous; with what there is.
pub async fn why(args: WhyArgs) -> Result<ExitCode, Fault> {
    let wanted = Wanted::new(&args.commit, &args.job)?;
    let lines = if args.all { usize::MAX } else { LINES };
    let said = match &args.run {
        Some(run) => after(&args, run, &wanted, lines)?,
        None => before(&args, &wanted, lines).await?,
    };
    let mut said = match said {
        Said::Explained(said) => *said,
        Said::Compared(said) if args.json => {
            output::json(&serde_json::json!({ "jobs": said }))?;
            return Ok(ExitCode::SUCCESS);
        }
        Said::Compared(said) => {
            output::data(against::text(&said, output::width()))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Some(step) = &args.step {
        only(&mut said, step)?;
    }
    if args.json {
        output::json(&said)?;
    } else if args.short {
        output::data(text::short(&said, output::width()))?;
    } else {
        output::data(text::why(&said, args.all, output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to say.
enum Said {
    Explained(Box<Explanation>),
    Compared(Vec<Compared>),
}

/// Only one step of what is said.
fn only(said: &mut Explanation, step: &str) -> Result<(), Fault> {
    let steps = said.jobs.iter().flat_map(|job| &job.steps).map(|said| said.step.as_str());
    let mut names: Vec<&str> = Vec::new();
    for name in steps {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if !names.contains(&step) {
        let hint = format!("the steps are: {}", names.join(", "));
        return Err(Fault::hint(2, format!("there is no step `{step}`"), hint));
    }
    said.only(step);
    Ok(())
}

/// What would happen if the manifest were run now.
async fn before(args: &WhyArgs, wanted: &Wanted, lines: usize) -> Result<Said, Fault> {
    let (manifest, places) = match &args.manifest {
        Some(manifest) => (manifest.clone(), args.places.clone()),
        None => {
            let root = open::store_root_of(None, &args.places);
            let (run, plan) = newest(&root, None, wanted)?;
            output::say(&format!("note: by {}, the manifest of run {run}", plan.manifest.display()));
            for other in others(&root, &run, &plan.manifest, wanted) {
                output::say(&format!("note: {} holds it too", other.display()));
            }
            (plan.manifest, Places { cache: Some(root), ..args.places.clone() })
        }
    };
    let mut read = open::read(&manifest)?;
    // Another job of another commit has to be in the plan too.
    let narrow = args.against.is_none();
    let known = read.pipeline.repos.iter().flat_map(|repo| &repo.commits).map(|commit| commit.id.value.clone());
    let commit = wanted.commit(known)?;
    if let Some(commit) = commit.as_ref().filter(|_| narrow) {
        // The other commits have nothing to do with it: they need not be resolved, planned and looked up.
        for repo in &mut read.pipeline.repos {
            repo.commits.retain(|known| known.id.value == *commit);
        }
    }
    let opened = Opened::with(Arc::new(read), &manifest, &places, false).await?;
    let plan = opened.plan();
    let own = |job: &Job| {
        let begins = |id: &str| commit.as_ref().is_none_or(|commit| id.starts_with(commit.as_str()));
        wanted.holds(&job.id) && (narrow || job.axes.get("commit").is_none_or(begins))
    };
    let jobs: Vec<usize> = (0..plan.jobs.len()).filter(|job| own(&plan.jobs[*job])).collect();
    if jobs.is_empty() {
        return Err(wanted.nothing(plan.jobs.iter().map(|job| job.id.to_string())));
    }
    let mut of_interest = vec![false; plan.nodes.len()];
    for node in jobs.iter().flat_map(|job| &plan.jobs[*job].nodes) {
        of_interest[*node] = true;
    }
    let blobs = Blobs { store: &opened.store, intake: Some(&opened.prepared.intake) };
    let sources = Sources { blobs, index: &opened.index, lines, keys: args.key, now: Timestamp::now() };
    if let Some(text) = &args.against {
        return Ok(Said::Compared(beside::planned(&opened, &jobs, text, &sources)?));
    }
    let forecasts = forecast(plan, &opened.store, &opened.index, &of_interest);
    let mut said = explain(plan, &jobs, &forecasts, &sources);
    if forecasts.iter().any(|said| said.state.executes()) {
        let estimate = opened.estimate(&forecasts)?;
        let mut amounts = serde_json::json!({});
        estimate.add_to(&mut amounts);
        said.estimate = Some(amounts);
        said.comes_to = estimate.comes_to();
    }
    Ok(Said::Explained(Box::new(said)))
}

/// What a run did.
fn after(args: &WhyArgs, run: &str, wanted: &Wanted, lines: usize) -> Result<Said, Fault> {
    let root = open::store_root_of(args.manifest.as_deref(), &args.places);
    let manifest = args.manifest.as_deref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let (run, plan) = if run.is_empty() { newest(&root, manifest.as_deref(), wanted)? } else { named(&root, run)? };
    let commits = plan.jobs.iter().filter_map(|(_, axes)| axes.get("commit").map(str::to_owned));
    let commit = wanted.commit(commits)?;
    let jobs: Vec<&(JobId, Axes)> = plan
        .jobs
        .iter()
        .filter(|(id, axes)| wanted.holds(id) && commit.as_deref().is_none_or(|id| axes.get("commit") == Some(id)))
        .collect();
    if jobs.is_empty() {
        return Err(wanted.nothing(plan.jobs.iter().map(|(id, _)| id.to_string())));
    }
    if args.run.as_deref() == Some("") {
        output::say(&format!("note: run {run} of {}", plan.manifest.display()));
    }
    let store: Store = open::store_to_read(&root)?;
    let index = Index::load(&root).map_err(|error| Fault::new(3, error.to_string()))?;
    open::say_damage(&index);
    let now = Timestamp::now();
    let ran = Ran::read(&root, &run, now);
    if !ran.finished() {
        output::say("note: the run has not finished; this is how far it came");
    }
    let sources = Sources { blobs: Blobs { store: &store, intake: None }, index: &index, lines, keys: args.key, now };
    if let Some(text) = &args.against {
        return Ok(Said::Compared(beside::ran(&root, &ran, (&run, &plan), &jobs, text, &sources)?));
    }
    Ok(Said::Explained(Box::new(ran.explain(&run, &plan, &jobs, &sources))))
}

/// Which jobs are asked for.
struct Wanted {
    text: String,
    /// The text is the beginning of a commit's id.
    digits: bool,
    globs: Vec<GlobMatcher>,
    /// What `--job` said.
    only: Vec<String>,
}

impl Wanted {
    fn new(text: &str, jobs: &[String]) -> Result<Self, Fault> {
        let digits = text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len() <= 40;
        if digits && text.len() < DIGITS {
            return Err(Fault::hint(
                2,
                format!("`{text}` is too short for a commit"),
                format!("give at least {DIGITS} digits of its id, or a job: 'repo/commit/candidate/sample' with `*`"),
            ));
        }
        let mut globs = select::globs(jobs)?;
        if !digits {
            globs.extend(select::globs(&[text.to_owned()])?);
        }
        let text = if digits { text.to_lowercase() } else { text.to_owned() };
        Ok(Self { text, digits, globs, only: jobs.to_vec() })
    }

    fn holds(&self, job: &JobId) -> bool {
        self.globs.iter().all(|glob| glob.is_match(job.as_str()))
    }

    /// Whether a job of a run's plan is meant.
    fn is_for(&self, (id, axes): &(JobId, Axes)) -> bool {
        match axes.get("commit") {
            Some(commit) if self.digits => self.begins(commit),
            _ => !self.digits && self.holds(id),
        }
    }

    fn begins(&self, commit: &str) -> bool {
        // A manifest may say fewer digits than are asked for.
        commit.starts_with(&self.text) || commit.len() >= DIGITS && self.text.starts_with(commit)
    }

    /// The one commit that is meant; `None` where jobs are asked for.
    fn commit(&self, known: impl Iterator<Item = String>) -> Result<Option<String>, Fault> {
        if !self.digits {
            return Ok(None);
        }
        let mut all: Vec<String> = known.collect();
        all.sort_unstable();
        all.dedup();
        let meant: Vec<&String> = all.iter().filter(|commit| self.begins(commit)).collect();
        match meant.as_slice() {
            [commit] => Ok(Some((*commit).clone())),
            [] => Err(Fault::hint(
                2,
                format!("there is no commit `{}`", self.text),
                format!("there are {}", some_of(all.iter().map(|commit| short(commit)))),
            )),
            several => Err(Fault::hint(
                2,
                format!("`{}` is the beginning of {} commits", self.text, several.len()),
                format!("give more digits of one: {}", some_of(several.iter().map(|commit| commit.as_str()))),
            )),
        }
    }

    fn nothing(&self, jobs: impl Iterator<Item = String>) -> Fault {
        let what = match (self.digits, self.only.as_slice()) {
            (false, []) => format!("no job is called `{}`", self.text),
            (true, []) => format!("commit `{}` has no job", self.text),
            (false, only) => format!("no job called `{}` matches --job {}", self.text, only.join(" --job ")),
            (true, only) => format!("no job of commit `{}` matches --job {}", self.text, only.join(" --job ")),
        };
        Fault::hint(2, what, format!("there are {}", some_of(jobs)))
    }
}

fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

pub(super) fn some_of<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    match names.len() {
        0 => "none".to_owned(),
        all if all <= NAMED => names.join(", "),
        all => format!("{} and {} more", names[..NAMED].join(", "), all - NAMED),
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The newest run that holds what is asked for, of a manifest or of any.
fn newest(root: &Path, manifest: Option<&Path>, wanted: &Wanted) -> Result<(RunId, PlanFile), Fault> {
    let (mut commits, mut others) = (Vec::new(), BTreeSet::new());
    for run in runs(root) {
        let Some(plan) = read_plan(root, &run) else { continue };
        if manifest.is_some_and(|manifest| real(&plan.manifest) != real(manifest)) {
            continue;
        }
        if plan.jobs.iter().any(|job| wanted.is_for(job)) {
            return Ok((run, plan));
        }
        commits.extend(plan.jobs.iter().filter_map(|(_, axes)| axes.get("commit").map(|id| short(id).to_owned())));
        others.extend(plan.jobs.iter().filter(|(_, axes)| axes.get("commit").is_none()).map(|(id, _)| id.to_string()));
    }
    commits.sort_unstable();
    commits.dedup();
    commits.extend(others);
    let hint = if commits.is_empty() {
        format!("no run is recorded under {}; name the manifest: flow why {} MANIFEST", root.display(), wanted.text)
    } else {
        format!("the recorded runs hold {}", some_of(commits.iter()))
    };
    Err(Fault::hint(2, format!("no run holds `{}`", wanted.text), hint))
}

/// Other manifests whose newest runs, as far as they are looked at, hold what is asked for.
fn others(root: &Path, newest: &RunId, manifest: &Path, wanted: &Wanted) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut seen = vec![real(manifest)];
    for run in runs(root).into_iter().filter(|run| run != newest).take(RUNS) {
        let Some(plan) = read_plan(root, &run) else { continue };
        let path = real(&plan.manifest);
        if seen.contains(&path) {
            continue;
        }
        if plan.jobs.iter().any(|job| wanted.is_for(job)) {
            found.push(plan.manifest);
        }
        seen.push(path);
    }
    found
}

/// The run by that name, or by a beginning that only one has.
pub(super) fn named(root: &Path, name: &str) -> Result<(RunId, PlanFile), Fault> {
    let all = runs(root);
    let meant: Vec<&RunId> = all.iter().filter(|run| run.as_str().starts_with(name)).collect();
    let fault = |what: String, runs: &mut dyn Iterator<Item = &RunId>| {
        Fault::hint(2, what, format!("there are {}", some_of(runs)))
    };
    match meant.as_slice() {
        [] => Err(fault(format!("there is no run `{name}`"), &mut all.iter())),
        [run] => match read_plan(root, run) {
            Some(plan) => Ok(((*run).clone(), plan)),
            None => Err(Fault::new(2, format!("what is kept of run {run} cannot be read"))),
        },
        several => Err(fault(format!("several runs begin with `{name}`"), &mut several.iter().copied())),
    }
}
