//! `flow why`: what each step of a commit's jobs would do and why, or what a run did with them. Executes nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use globset::GlobMatcher;
use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::open::{self, Opened};
use crate::cli::versions::{Within, called};
use crate::cli::{Places, output, select};
use crate::names::{Axes, JobId, RunId};
use crate::report::status::runs;
use crate::run::journal::{PlanFile, read_plan};
use crate::run::uncommitted::GitState;
use crate::store::{Index, Store};
use crate::why::between;
use crate::why::change::{Blobs, LINES};
use crate::why::explain::{Explanation, Sources, explain};
use crate::why::forecast::{Forecast, State, forecast};
use crate::why::origin::Tracer;
use crate::why::past::{Past, Terms};
use crate::why::ran::Ran;
use crate::why::text;

/// Commits that are named where one is not found.
const NAMED: usize = 12;
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
    /// Compare the manifest and its files with what they were in a commit
    #[arg(long, value_name = "REV", conflicts_with = "run", value_parser = select::not_empty)]
    against: Option<String>,
    /// Compare the manifest and its files in two commits, the older first
    #[arg(long, num_args = 2, value_names = ["REV1", "REV2"], conflicts_with_all = ["run", "against"], value_parser = select::not_empty)]
    between: Option<Vec<String>>,
    /// Only jobs that match a glob
    #[arg(long, value_name = "GLOB", value_parser = select::not_empty)]
    job: Vec<String>,
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
    let said = match (&args.run, &args.against, args.between.as_deref()) {
        (Some(run), ..) => after(&args, run, &wanted, lines)?,
        (None, Some(old), _) => versions(&args, old, None, &wanted, lines)?,
        (None, None, Some([old, new])) => versions(&args, old, Some(new), &wanted, lines)?,
        _ => before(&args, &wanted, lines).await?,
    };
    if args.json {
        output::json(&said)?;
    } else {
        output::data(text::why(&said, args.all, output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What would happen if the manifest were run now.
async fn before(args: &WhyArgs, wanted: &Wanted, lines: usize) -> Result<Explanation, Fault> {
    let (manifest, places) = which(args, wanted)?;
    let mut read = open::read(&manifest)?;
    let known = read.pipeline.repos.iter().flat_map(|repo| &repo.commits).map(|commit| commit.id.value.clone());
    let only = wanted.commit(known)?;
    if let Some(commit) = &only {
        // The other commits have nothing to do with it: they need not be resolved, planned and looked up.
        for repo in &mut read.pipeline.repos {
            repo.commits.retain(|known| known.id.value == *commit);
        }
    }
    let opened = Opened::with(Arc::new(read), &manifest, &places, false).await?;
    let plan = opened.plan();
    let jobs: Vec<usize> = (0..plan.jobs.len()).filter(|job| wanted.holds(&plan.jobs[*job].id)).collect();
    if jobs.is_empty() {
        return Err(wanted.nothing(plan.jobs.iter().map(|job| job.id.to_string())));
    }
    let mut of_interest = vec![false; plan.nodes.len()];
    for node in jobs.iter().flat_map(|job| &plan.jobs[*job].nodes) {
        of_interest[*node] = true;
    }
    let forecasts = forecast(plan, &opened.store, &opened.index, &of_interest);
    let blobs = Blobs { store: &opened.store, intakes: vec![&opened.prepared.intake] };
    // Where nothing changed, the project's history has nothing to tell.
    let told = forecasts.iter().any(Forecast::is_root) && forecasts.iter().any(|said| said.state != State::New);
    let tracer = Within::of(&manifest).filter(|_| told).map(|within| {
        let past = Past::new(within.project, Terms::of(plan, only));
        RefCell::new(Tracer::of_work_tree(past, &within.manifest))
    });
    let sources =
        Sources { blobs, index: &opened.index, lines, now: Timestamp::now(), tracer, runs: RefCell::default() };
    Ok(explain(plan, &jobs, &forecasts, &sources))
}

/// The manifest that is meant, and where its store is.
fn which(args: &WhyArgs, wanted: &Wanted) -> Result<(PathBuf, Places), Fault> {
    if let Some(manifest) = &args.manifest {
        return Ok((manifest.clone(), args.places.clone()));
    }
    let root = open::store_root_of(None, &args.places);
    let (run, plan) = newest(&root, None, wanted)?;
    output::say(&format!("note: by {}, the manifest of run {run}", plan.manifest.display()));
    Ok((plan.manifest, Places { cache: Some(root), ..args.places.clone() }))
}

/// What differs between two versions; the newer one is that of the work tree if no revision is given.
fn versions(args: &WhyArgs, old: &str, new: Option<&str>, wanted: &Wanted, lines: usize) -> Result<Explanation, Fault> {
    let (manifest, places) = which(args, wanted)?;
    let within = Within::needed(&manifest)?;
    let (old, new) = (within.revision(old)?, new.map(|new| within.revision(new)).transpose()?);
    // The newer version says which commits there are.
    let read = match &new {
        Some(new) => within.read_at(new)?,
        None => open::read(&manifest)?,
    };
    let known = read.pipeline.repos.iter().flat_map(|repo| &repo.commits).map(|commit| commit.id.value.clone());
    let terms = Terms { variables: open::machine()?.variables, only: wanted.commit(known)?, ..Terms::default() };
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
    let name_of_new = new.as_ref().map_or_else(|| "the work tree".to_owned(), called);
    let older = before.plan.as_ref().map_err(|flaw| unread(&called(&old), flaw))?;
    let newer = after.plan.as_ref().map_err(|flaw| unread(&name_of_new, flaw))?;
    let jobs: Vec<usize> = (0..newer.jobs.len()).filter(|job| wanted.holds(&newer.jobs[*job].id)).collect();
    if jobs.is_empty() {
        return Err(wanted.nothing(newer.jobs.iter().map(|job| job.id.to_string())));
    }
    let store: Store = open::store_to_read(&open::store_root(&manifest, &places))?;
    let tracer = match new {
        Some(new) => Tracer::of_commit(past, &new_name, new),
        None => Tracer::of_work_tree(past, &new_name),
    };
    let blobs = Blobs { store: &store, intakes: vec![&after.intake, &before.intake] };
    output::say(&format!("note: from {} to {name_of_new}", called(&old)));
    let names = [called(&old), name_of_new];
    Ok(between::explain((older, newer), names, &jobs, &blobs, lines, Some(&RefCell::new(tracer))))
}

/// What a run did.
fn after(args: &WhyArgs, run: &str, wanted: &Wanted, lines: usize) -> Result<Explanation, Fault> {
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
    if let Some(warning) = plan.git.as_ref().and_then(GitState::warning) {
        output::say(&format!("note: {warning}"));
    }
    if !ran.finished() {
        output::say("note: the run has not finished; this is how far it came");
    }
    let blobs = Blobs { store: &store, intakes: Vec::new() };
    let sources = Sources { blobs, index: &index, lines, now, tracer: of_run(&plan, commit), runs: RefCell::default() };
    Ok(ran.explain(&run, &plan, &jobs, &sources))
}

/// Who follows the changes of a run back, from the commit that its manifest had.
fn of_run(plan: &PlanFile, only: Option<String>) -> Option<RefCell<Tracer>> {
    let git = plan.git.as_ref()?;
    let within = Within::of(&plan.manifest)?;
    let commit = within.project.revision(git.commit.as_ref()?.as_str()).ok()?;
    let terms = Terms { variables: open::machine().ok()?.variables, only, ..Terms::default() };
    let past = Past::new(within.project.clone(), terms);
    let path = within.name_at(&past, &commit).ok()?;
    Some(RefCell::new(Tracer::of_commit(past, &path, commit)))
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

fn some_of<T: ToString>(names: impl Iterator<Item = T>) -> String {
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
        let holds = |(id, axes): &(JobId, Axes)| match axes.get("commit") {
            Some(commit) if wanted.digits => wanted.begins(commit),
            _ => !wanted.digits && wanted.holds(id),
        };
        if plan.jobs.iter().any(holds) {
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

/// The run by that name, or by a beginning that only one has.
fn named(root: &Path, name: &str) -> Result<(RunId, PlanFile), Fault> {
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
