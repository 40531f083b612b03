//! `flow why`: what each step of a commit's jobs would do and why, or what a run did with them. Executes nothing.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::open::{self, Opened};
use crate::cli::reused::lacking_runs;
use crate::cli::versions::{Within, unreadable};
use crate::cli::wanted::{Wanted, named, newest, newest_of, others};
use crate::cli::{Places, beside, gone, manifests, output, select};
use crate::event::GitState;
use crate::git::PastCommit;
use crate::names::{Axes, JobId};
use crate::plan::Job;
use crate::redact::Redactor;
use crate::run::journal::PlanFile;
use crate::store::{Index, Store};
use crate::why::against::{self, Compared};
use crate::why::between;
use crate::why::change::{Blobs, LINES};
use crate::why::explain::{Explanation, LacksSaid, Sources, explain};
use crate::why::forecast::{Forecast, State, forecast};
use crate::why::later::all_committed;
use crate::why::origin::Tracer;
use crate::why::past::{Past, Terms};
use crate::why::plan::refusals;
use crate::why::ran::Ran;
use crate::why::text;
use crate::why::toolfiles;

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
  flow why 9f47610d --against HEAD~3    what differs from an older version
  flow why 9f47610d --between v1 v2     what differs between two versions

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
    /// Compare with a run by the beginning of its id, else with another job or a glob of them, else with the manifest and its
    /// files as they were in a git revision
    #[arg(long, value_name = "RUN|JOB|REV", value_parser = select::not_empty)]
    against: Option<String>,
    /// Compare the manifest and its files in two git revisions, the older first
    #[arg(long, num_args = 2, value_names = ["REV1", "REV2"], conflicts_with_all = ["run", "against", "key"], value_parser = select::not_empty)]
    between: Option<Vec<String>>,
    /// Only jobs that match a glob
    #[arg(long, value_name = "GLOB", value_parser = select::not_empty)]
    job: Vec<String>,
    /// Only this step of each job
    #[arg(long, value_name = "STEP", value_parser = select::not_empty)]
    step: Option<String>,
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
    let said = match (&args.run, args.between.as_deref()) {
        (Some(run), _) => after(&args, run, &wanted, lines)?,
        (None, Some([old, new])) => {
            let which = which(&args, &wanted)?;
            let within = Within::needed(&which.0)?;
            let (old, new) = (within.revision(old)?, within.revision(new)?);
            if within.project.is_before(&new, &old) {
                let (old, new) = (within.called(&old), within.called(&new));
                output::say(&format!(
                    "note: {old} is newer than {new}: what is told is the way back; give the older first"
                ));
            }
            versions(&args, which, (old, Some(new)), &wanted, lines)?
        }
        _ => {
            let which = which(&args, &wanted)?;
            match args.against.as_deref().and_then(|text| older(&which, text)) {
                Some(old) => versions(&args, which, (old, None), &wanted, lines)?,
                None => before(&args, which, &wanted, lines).await?,
            }
        }
    };
    let (said, redactor) = said;
    match said {
        Said::Explained(said) => {
            let mut said = *said;
            if let Some(step) = &args.step {
                let steps = said.jobs.iter().flat_map(|job| &job.steps);
                there_is(step, steps.map(|said| said.step.as_str()))?;
                said.only(step);
            }
            let text = if args.json {
                json(&said)?
            } else if args.short {
                text::short(&said, output::width())
            } else {
                text::why(&said, args.all, output::width())
            };
            output::cleaned(&redactor, text)?;
        }
        Said::Compared(mut said) => {
            if let Some(step) = &args.step {
                let steps = said.iter().flat_map(|job| &job.steps);
                there_is(step, steps.map(|said| said.step.as_str()))?;
                said.iter_mut().for_each(|job| job.steps.retain(|said| said.step == *step));
            }
            let text = if args.json {
                json(&serde_json::json!({ "jobs": said }))?
            } else if args.short {
                against::short(&said, output::width())
            } else {
                against::text(&said, output::width())
            };
            output::cleaned(&redactor, text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A document as one line of JSON.
fn json(document: &impl serde::Serialize) -> Result<String, Fault> {
    let text = serde_json::to_string(document).map_err(|error| Fault::new(3, error.to_string()))?;
    Ok(text + "\n")
}

/// What there is to say, and what takes out of it what is a secret.
type Clean = (Said, Redactor);

/// What there is to say.
enum Said {
    Explained(Box<Explanation>),
    Compared(Vec<Compared>),
}

/// That one of the steps has that name.
fn there_is<'a>(step: &str, steps: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    let mut names: Vec<&str> = Vec::new();
    for name in steps {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.contains(&step) {
        return Ok(());
    }
    let hint = format!("the steps are: {}", names.join(", "));
    Err(Fault::hint(2, format!("there is no step `{step}`"), hint))
}

/// A manifest, and where its store is.
type Which = (PathBuf, Places);

/// The manifest that is meant, and where its store is.
fn which(args: &WhyArgs, wanted: &Wanted) -> Result<Which, Fault> {
    if let Some(manifest) = &args.manifest {
        return Ok((manifest.clone(), args.places.clone()));
    }
    let root = open::store_root_of(None, &args.places);
    let (manifest, others) = match newest_of(&root, None, wanted) {
        Ok((run, kept)) => {
            output::say(&format!("note: by {}, the manifest of run {run}", kept.manifest.display()));
            let others = others(&root, &run, &kept.manifest, wanted);
            (kept.manifest, others)
        }
        Err(fault) => {
            let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
            let mut never_run = manifests::holding(&here, wanted).into_iter();
            let Some(manifest) = never_run.next() else { return Err(fault) };
            output::say(&format!("note: by {}, of which no run holds it", manifest.display()));
            (manifest, never_run.collect())
        }
    };
    // Of one that was renamed since, an older run still tells.
    for other in others.into_iter().filter(|other| other.exists()) {
        output::say(&format!("note: {} holds it too", other.display()));
    }
    Ok((manifest, Places { cache: Some(root), ..args.places.clone() }))
}

/// The commit that `--against` names, if that is neither a run nor a job. No tool is asked for it.
fn older((manifest, places): &Which, text: &str) -> Option<PastCommit> {
    if beside::is_run(&open::store_root(manifest, places), text) {
        return None;
    }
    let within = Within::of(manifest)?;
    let commit = within.project.revision(text).ok()?;
    let terms = Terms { variables: open::machine().ok()?.variables, ..Terms::default() };
    let today = Past::new(within.project.clone(), terms).work_tree(&within.manifest);
    let jobs = today.plan.as_ref().map(|plan| plan.jobs.as_slice()).unwrap_or_default();
    (!jobs.iter().any(|job| beside::is_job(&job.id, text))).then_some(commit)
}

/// That the manifest is there; what it is called now if it is not.
fn there(manifest: &Path) -> Result<(), Fault> {
    open::there(manifest).map_err(|fault| match gone::renamed(manifest).as_slice() {
        [] => fault,
        said => Fault::hint(2, format!("there is no file {}", manifest.display()), said.join("; ")),
    })
}

/// The commit that is meant of those that a manifest lists; what became of it where it lists it no longer.
fn listed<'a>(
    wanted: &Wanted,
    known: impl Iterator<Item = &'a str> + Clone,
    manifest: &Path,
    root: &Path,
) -> Result<Option<String>, Fault> {
    let none = wanted.is_digits() && !known.clone().any(|commit| wanted.begins(commit));
    wanted.commit(known).map_err(|fault| match gone::dropped(manifest, root, wanted).as_slice() {
        said @ [_, ..] if none => {
            let what = format!("{} lists no commit `{}`", manifest.display(), wanted.text());
            Fault::hint(2, what, said.join("; "))
        }
        _ => fault,
    })
}

/// What would happen if the manifest were run now.
async fn before(args: &WhyArgs, (manifest, places): Which, wanted: &Wanted, lines: usize) -> Result<Clean, Fault> {
    there(&manifest)?;
    // What the store knows takes as long to read as a long manifest: both at once.
    let root = open::store_root(&manifest, &places);
    let loading = std::thread::spawn(move || Index::load(&root));
    let mut read = open::read(&manifest)?;
    // Another job of another commit has to be in the plan too.
    let narrow = args.against.is_none();
    let known = read.pipeline.repos.iter().flat_map(|repo| &repo.commits).map(|commit| commit.id.value.as_str());
    let commit = listed(wanted, known, &manifest, &open::store_root(&manifest, &places))?;
    if let Some(commit) = commit.as_ref().filter(|_| narrow) {
        // The other commits have nothing to do with it: they need not be resolved, planned and looked up.
        for repo in &mut read.pipeline.repos {
            repo.commits.retain(|known| known.id.value == *commit);
        }
    }
    let index = || loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let opened = Opened::with_index(Arc::new(read), &manifest, &places, false, index).await?;
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
    let redactor = open::todays_secrets(Some(&plan.manifest))?;
    let blobs = Blobs { store: &opened.store, intakes: vec![&opened.prepared.intake], redactor };
    let (now, runs) = (Timestamp::now(), RefCell::default());
    let mut sources = Sources { blobs, index: &opened.index, lines, keys: args.key, now, tracer: None, runs };
    let tracer = || {
        Within::of(&manifest).map(|within| {
            let past = Past::new(within.project, Terms::of(plan, commit.clone()));
            RefCell::new(Tracer::of_work_tree(past, &within.manifest))
        })
    };
    if let Some(text) = &args.against {
        if beside::is_run(&opened.store.root, text) {
            sources.tracer = tracer();
        }
        return Ok((Said::Compared(beside::planned(&opened, &jobs, text, &sources)?), sources.blobs.redactor.fresh()));
    }
    let forecasts = forecast(plan, &opened.store, &opened.index, &of_interest);
    // Where nothing changed, the project's history has nothing to tell.
    let told = |said: &Forecast| said.is_root() || said.state == State::Reused;
    if forecasts.iter().any(told) && forecasts.iter().any(|said| said.state != State::New) {
        sources.tracer = tracer();
        if sources.tracer.is_none() {
            output::say("note: the manifest lies in no git repository: who changed what, and when, is not known");
        }
    }
    let mut said = explain(plan, &jobs, &forecasts, &sources);
    let mut lacking = opened.lacking_secrets(&of_interest);
    lacking.extend(opened.lacking_devices(&of_interest));
    lacking.extend(lacking_runs(&plan.manifest, &opened.store.root));
    let refusals = refusals(plan, &forecasts, &lacking).into_iter();
    said.missing = refusals.map(|lacks| LacksSaid { what: lacks.what.clone(), hint: lacks.hint.clone() }).collect();
    if forecasts.iter().any(|said| said.state.executes()) {
        let estimate = opened.estimate(&forecasts)?;
        let mut amounts = serde_json::json!({});
        estimate.add_to(&mut amounts);
        said.estimate = Some(amounts);
        said.comes_to = estimate.comes_to(output::width());
    }
    Ok((Said::Explained(Box::new(said)), sources.blobs.redactor.fresh()))
}

/// What differs between two versions; the newer one is that of the work tree if no revision is given.
fn versions(
    args: &WhyArgs,
    (manifest, places): Which,
    (old, new): (PastCommit, Option<PastCommit>),
    wanted: &Wanted,
    lines: usize,
) -> Result<Clean, Fault> {
    let within = Within::needed(&manifest)?;
    // The newer version says which commits there are.
    let read = match &new {
        Some(new) => within.read_at(new)?,
        None => open::read(&manifest)?,
    };
    let known = read.pipeline.repos.iter().flat_map(|repo| &repo.commits).map(|commit| commit.id.value.as_str());
    let only = listed(wanted, known, &manifest, &open::store_root(&manifest, &places))?;
    let terms = Terms { variables: open::machine()?.variables, only, ..Terms::default() };
    let mut past = Past::new(within.project.clone(), terms.clone());
    let (old_name, new_name) = match &new {
        Some(new) => (within.name_at(&past, &old)?, within.name_at(&past, new)?),
        None => (within.name_at(&past, &old)?, within.manifest.clone()),
    };
    let before = past.at(&old_name, &old);
    let after = match &new {
        Some(new) => past.at(&new_name, new),
        None => past.work_tree(&new_name),
    };
    let unread = |which: &str, flaw: &String| {
        let hint = "name versions that `flow history` lists without a flaw";
        Fault::hint(2, format!("the manifest of {which} cannot be planned: {flaw}"), hint)
    };
    let name_of_new = new.as_ref().map_or_else(|| "the work tree".to_owned(), |new| within.called(new));
    let older = before.plan.as_ref().map_err(|flaw| unread(&within.called(&old), flaw))?;
    let newer = after.plan.as_ref().map_err(|flaw| unread(&name_of_new, flaw))?;
    let jobs: Vec<usize> = (0..newer.jobs.len()).filter(|job| wanted.holds(&newer.jobs[*job].id)).collect();
    if jobs.is_empty() {
        return Err(wanted.nothing(newer.jobs.iter().map(|job| job.id.to_string())));
    }
    let store: Store = open::store_to_read(&open::store_root(&manifest, &places))?;
    let trees = (&old.tree, new.as_ref().map(|new| &new.tree));
    let stirred = toolfiles::stirred(&within.project, newer, trees.0, trees.1).map_err(unreadable)?;
    let tracer = match new {
        Some(new) => Tracer::of_commit(past, &new_name, new),
        None => Tracer::of_work_tree(past, &new_name),
    };
    let redactor = open::todays_secrets(Some(&newer.manifest))?;
    let blobs = Blobs { store: &store, intakes: vec![&after.intake, &before.intake], redactor };
    output::say(&format!("note: from {} to {name_of_new}", within.called(&old)));
    output::say("note: no tool is asked; variables are those of today");
    let names = [within.called(&old), name_of_new];
    let keys = args.key.then(Timestamp::now);
    let tracer = RefCell::new(tracer);
    let said = between::explain((older, newer, &stirred), names, &jobs, &blobs, (lines, keys), Some(&tracer));
    Ok((Said::Explained(Box::new(said)), blobs.redactor.fresh()))
}

/// What a run did.
fn after(args: &WhyArgs, run: &str, wanted: &Wanted, lines: usize) -> Result<Clean, Fault> {
    let root = open::store_root_of(args.manifest.as_deref(), &args.places);
    let manifest = args.manifest.as_deref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let (run, plan) = if run.is_empty() { newest(&root, manifest.as_deref(), wanted)? } else { named(&root, run)? };
    if let Some(given) = manifest.as_deref().filter(|given| given.is_file() && plan.manifest.is_file())
        && given.canonicalize().ok() != plan.manifest.canonicalize().ok()
    {
        let what = format!("run {run} is of {}, not of {}", plan.manifest.display(), given.display());
        let hint = "leave the manifest out, or the run: `--run` alone is the newest of that manifest";
        return Err(Fault::hint(2, what, hint));
    }
    let commits = plan.jobs.iter().filter_map(|(_, axes)| axes.get("commit"));
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
    let ran = Ran::read(&root, &run, commit.as_deref().filter(|_| args.against.is_none()), now);
    if let Some(warning) = plan.git.as_ref().and_then(|git| uncommitted(&plan, git)) {
        output::say(&format!("note: {warning}"));
    }
    if !ran.finished() {
        output::say("note: the run has not finished; this is how far it came");
    }
    let manifest = crate::cli::versions::read(&plan.manifest, None).ok();
    let redactor = open::todays_secrets(manifest.as_ref())?;
    let blobs = Blobs { store: &store, intakes: Vec::new(), redactor };
    let (tracer, runs) = (None, RefCell::default());
    let mut sources = Sources { blobs, index: &index, lines, keys: args.key, now, tracer, runs };
    if let Some(text) = &args.against {
        let said = beside::ran(&root, &ran, (&run, &plan), &jobs, text, &sources)?;
        return Ok((Said::Compared(said), sources.blobs.redactor.fresh()));
    }
    sources.tracer = of_run(&plan, commit);
    let said = ran.explain(&run, &plan, &jobs, &sources);
    Ok((Said::Explained(Box::new(said)), sources.blobs.redactor.fresh()))
}

/// What is to be known of files that were in no commit when a run began.
fn uncommitted(plan: &PlanFile, git: &GitState) -> Option<String> {
    let warning = git.warning()?;
    let since = Within::of(&plan.manifest).and_then(|within| all_committed(&within.project, git));
    let by = |commit: PastCommit| format!("by {}, {}", commit.id.as_str().get(..8).unwrap_or_default(), commit.author);
    Some(since.and_then(|commit| git.committed_since(&by(commit))).unwrap_or(warning))
}

/// Who follows the changes of a run back, from the commit that its manifest had.
fn of_run(plan: &PlanFile, only: Option<String>) -> Option<RefCell<Tracer>> {
    let git = plan.git.as_ref()?;
    let within = Within::of(&plan.manifest)?;
    let commit = within.project.revision(git.commit.as_ref()?.as_str()).ok()?;
    let terms = Terms { variables: open::machine().ok()?.variables, only, ..Terms::default() };
    let past = Past::new(within.project.clone(), terms);
    let path = within.name_at(&past, &commit).ok()?;
    Some(RefCell::new(Tracer::of_commit(past, &path, commit).known_today_as(&within.manifest)))
}
