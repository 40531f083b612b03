//! What the steps of some jobs would do and why, each change with what differs in it; roots apart from consequences.
//!
//! The forecast says what; here it is put into words and told per job. Prints nothing.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::event::GitState;
use crate::key::{ActionKey, Change, KeyRecord, Value};
use crate::names::{Axes, JobId, RunId};
use crate::plan::{Ask, Plan, point_name};
use crate::run::journal::read_plan;
use crate::run::nearest::sharing;
use crate::store::Index;
use crate::text::counted;
use crate::units::human_span;
use crate::why::action::Action;
use crate::why::attempts::{AttemptSaid, ComparedSaid, Disagreed, disagree};
use crate::why::change::{Blobs, Shown};
use crate::why::forecast::{Forecast, State};
use crate::why::known::{Known, known};
use crate::why::origin::{Origin, Since, Traced, Tracer};
use crate::why::running::{RunningSaid, under_way};
use crate::why::wiring::FILES;

/// The largest key record that is read.
const RECORD: u64 = 16 * 1024 * 1024;

/// The answer to `why`.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The pipeline's name.
    pub pipeline: String,
    /// The manifest's path.
    pub manifest: String,
    /// The run that is explained; absent where it is what would happen now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The two versions that are compared, the older first; absent where it is about a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between: Option<[String; 2]>,
    /// The jobs.
    pub jobs: Vec<JobSaid>,
    /// How many different causes there are.
    pub roots: usize,
    /// How many actions are executed for a reason of their own: with the consequences, these are all.
    pub root_steps: usize,
    /// How many actions are executed only for what is executed upstream of them.
    pub consequences: usize,
    /// What this machine lacks, so that a run would not start: each with what to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<LacksSaid>,
    /// What executing them may come to, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<serde_json::Value>,
    /// The same for people.
    #[serde(skip)]
    pub comes_to: String,
}

impl Explanation {
    /// Only one step of each job.
    pub fn only(&mut self, step: &str) {
        for job in &mut self.jobs {
            job.steps.retain(|said| said.step == step);
        }
        let mut seen = HashSet::new();
        let steps = self.jobs.iter().flat_map(|job| &job.steps);
        let steps: Vec<&StepSaid> = steps.filter(|said| seen.insert(said.point.clone())).collect();
        (self.roots, self.root_steps) = roots(steps.iter().copied());
        self.consequences = steps.iter().filter(|said| !said.root && EXECUTES.contains(&said.state)).count();
    }
}

/// Something that this machine lacks.
#[derive(Clone, Debug, Serialize)]
pub struct LacksSaid {
    /// What.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// How many different causes some steps have, each of them given once, and how many steps have one of their own.
pub fn roots<'a>(steps: impl Iterator<Item = &'a StepSaid>) -> (usize, usize) {
    let mut begun = 0;
    let causes: HashSet<&str> =
        steps.filter(|said| said.root).inspect(|_| begun += 1).map(|said| said.cause.as_str()).collect();
    (causes.len(), begun)
}

/// What is one cause: a state, what changed, and the words where nothing did. What is gone from the store is one, whatever it was.
#[must_use]
pub fn cause_of(state: &str, changes: &[Change], because: Option<&str>) -> String {
    if is_gone(changes) {
        return format!("{state} {GONE}");
    }
    format!("{state} {changes:?} {because:?}")
}

/// Why actions are executed whose attempts stand, and left what the store no longer has.
pub const GONE: &str = "what it left is gone from the store, and is needed";

/// Whether outputs are gone from the store, which is all that changed.
#[must_use]
pub fn is_gone(changes: &[Change]) -> bool {
    !changes.is_empty() && changes.iter().all(|change| change.ingredient.starts_with("stored output "))
}

/// The words of what is executed.
pub const EXECUTES: [&str; 6] = ["changed", "follows", "new", "retry", "adopted", "recheck"];

/// What is said of a job.
#[derive(Clone, Debug, Serialize)]
pub struct JobSaid {
    /// Its name.
    pub job: JobId,
    /// Its axes.
    pub axes: Axes,
    /// Its steps, upstream first.
    pub steps: Vec<StepSaid>,
}

/// What is said of one action.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSaid {
    /// The step's name.
    pub step: String,
    /// What became or would become of it.
    pub state: &'static str,
    /// Its key, where it is known.
    pub key: Option<ActionKey>,
    /// The run that executes it at this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningSaid>,
    /// What changed, the first to blame.
    pub changes: Vec<Shown>,
    /// What it was compared with, where that is not simply what it had in the newest run of its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<ComparedSaid>,
    /// Whether it has a reason of its own, and does not only follow.
    pub root: bool,
    /// Why, where no change says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// The attempt that serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_by: Option<AttemptSaid>,
    /// The action that has the same key and is executed in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<String>,
    /// The actions upstream that it follows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub follows: Vec<String>,
    /// The attempts before, or those of the run: where none of them settled it, each with its cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptSaid>,
    /// What brought the action into the manifest, where it is new in one that was run before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Its key has attempts that came out otherwise than the one that speaks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disagreements: Vec<Disagreed>,
    /// It was to follow, and was served after all: what it reads came out as an earlier attempt had it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut_off: bool,
    /// What its key holds and what not, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
    /// The action's axes.
    pub axes: Axes,
    /// The action's point, for people: jobs of a commit share some of their actions.
    #[serde(skip)]
    pub point: String,
    /// What is the same for steps of one cause.
    #[serde(skip)]
    pub cause: String,
}

impl StepSaid {
    /// Tells causes apart that read the same and were brought by different commits, or at different places.
    pub fn part_by_origin(&mut self) {
        if self.cause.ends_with(GONE) {
            return;
        }
        for origin in self.changes.iter().filter_map(|change| change.origin.as_ref()) {
            let place = (&origin.commit, &origin.path, origin.line);
            self.cause.push_str(&format!(" {place:?}"));
        }
    }

    /// A step of which only this is known.
    #[must_use]
    pub fn new(step: &str, axes: &Axes, state: &'static str) -> Self {
        Self {
            step: step.to_owned(),
            state,
            key: None,
            running: None,
            changes: Vec::new(),
            compared: None,
            root: false,
            because: None,
            served_by: None,
            shared_with: None,
            follows: Vec::new(),
            attempts: Vec::new(),
            origin: None,
            disagreements: Vec::new(),
            cut_off: false,
            known: None,
            axes: axes.clone(),
            point: point_name(axes),
            cause: String::new(),
        }
    }
}

/// What a limit change means, beside its figures.
#[must_use]
pub fn about_limits(changes: &[Change]) -> Option<String> {
    changes
        .iter()
        .any(|change| change.ingredient.starts_with("limit "))
        .then(|| "the attempt had met the old limit".to_owned())
}

/// What an explanation is told from.
pub struct Sources<'a> {
    /// The content of what changed.
    pub blobs: Blobs<'a>,
    /// The attempts.
    pub index: &'a Index,
    /// Lines of a difference that are told at most.
    pub lines: usize,
    /// Whether it is told what keys hold and what not.
    pub keys: bool,
    /// The time from which ages are counted.
    pub now: Timestamp,
    /// Who follows changes back in the project's history.
    pub tracer: Option<RefCell<Tracer>>,
    /// How the files of runs stood in git, as far as they were read.
    pub runs: RefCell<HashMap<RunId, Option<GitState>>>,
}

impl Sources<'_> {
    /// A change as it is shown, with what brought it. `nearest` is the record that was compared with.
    #[must_use]
    pub fn shown(&self, change: &Change, action: Option<&Action>, nearest: Option<ActionKey>) -> Shown {
        let shown = Shown::of(change, &self.blobs, self.lines);
        let (Some(tracer), Some(action)) = (&self.tracer, action) else { return shown };
        let attempts = nearest.and_then(|key| self.index.attempts(&key).ok()).unwrap_or_default();
        let last = attempts.iter().max_by_key(|ended| ended.at);
        let since = last.map(|ended| {
            let root = &self.blobs.store.root;
            let mut runs = self.runs.borrow_mut();
            let git =
                runs.entry(ended.run.clone()).or_insert_with(|| read_plan(root, &ended.run).and_then(|plan| plan.git));
            Since { at: ended.at, git: git.clone() }
        });
        let mut tracer = tracer.borrow_mut();
        if let (true, Some(Value::Blob(digest))) = (tracer.is_of_run(), &change.new)
            && let Some(content) = self.blobs.used(digest)
        {
            tracer.note_used(*digest, content);
        }
        shown.traced(tracer.change(action, change, since.as_ref()))
    }

    /// The key record of an action of which something is recorded.
    #[must_use]
    pub fn record(&self, key: &ActionKey) -> Option<KeyRecord> {
        KeyRecord::decode(&self.blobs.store.cas.get(&key.0, RECORD).ok()??).ok()
    }
}

/// Explains jobs of a plan by its forecasts.
#[must_use]
pub fn explain(plan: &Plan, jobs: &[usize], forecasts: &[Forecast], sources: &Sources<'_>) -> Explanation {
    let by_node: HashMap<usize, &Forecast> = forecasts.iter().map(|said| (said.node, said)).collect();
    let mut said_of: HashMap<usize, StepSaid> = HashMap::new();
    let running = under_way(plan, forecasts, &sources.blobs.store.root, sources.now);
    let mut told = HashSet::new();
    let mut jobs_said = Vec::new();
    for job in jobs {
        let job = &plan.jobs[*job];
        let mut steps = Vec::new();
        for node in &job.nodes {
            let Some(forecast) = by_node.get(node) else { continue };
            told.insert(*node);
            let said = said_of.entry(*node).or_insert_with(|| {
                let mut said = step(plan, forecast, sources);
                said.running =
                    said.key.filter(|_| forecast.state.executes()).and_then(|key| running.get(&key).cloned());
                if said.running.is_some() && forecast.state == State::New && forecast.because.is_none() {
                    said.because = None;
                }
                said
            });
            steps.push(said.clone());
        }
        jobs_said.push(JobSaid { job: job.id.clone(), axes: job.axes.clone(), steps });
    }
    let told: Vec<&Forecast> = forecasts.iter().filter(|said| told.contains(&said.node)).collect();
    // Of what was never run at all every step is new, and no commit is to blame.
    if let Some(tracer) = sources.tracer.as_ref().filter(|_| told.iter().any(|said| said.state != State::New)) {
        for forecast in told.iter().filter(|said| said.state == State::New && said.is_root() && said.because.is_none())
        {
            let traced = tracer.borrow_mut().action(&Action::of(plan, forecast.node));
            let place = (plan.step(forecast.node).name.value.as_str(), point_name(&plan.nodes[forecast.node].axes));
            for step in jobs_said.iter_mut().flat_map(|job| &mut job.steps) {
                if let Traced::To(origin) = &traced
                    && (step.step.as_str(), step.point.as_str()) == (place.0, place.1.as_str())
                {
                    step.origin = Some(origin.clone());
                }
            }
        }
    }
    let (roots, root_steps) = roots(said_of.values());
    Explanation {
        pipeline: plan.manifest.pipeline.name.value.clone(),
        manifest: plan.manifest.files.first().map_or_else(String::new, |file| file.name.clone()),
        run: None,
        between: None,
        jobs: jobs_said,
        roots,
        root_steps,
        consequences: told.iter().filter(|said| said.state.executes() && !said.is_root()).count(),
        missing: Vec::new(),
        estimate: None,
        comes_to: String::new(),
    }
}

fn step(plan: &Plan, forecast: &Forecast, sources: &Sources<'_>) -> StepSaid {
    let node = forecast.node;
    let mut said = StepSaid::new(plan.step(node).name.value.as_str(), &plan.nodes[node].axes, forecast.state.word());
    said.key = forecast.key;
    said.root = forecast.is_root();
    said.cause = cause(forecast);
    said.compared = forecast.compared.clone().map(|compared| ComparedSaid::of(compared, sources.now));
    said.because.clone_from(&forecast.because);
    said.served_by = forecast.served.as_ref().map(|ended| AttemptSaid::of(ended, sources.now));
    said.shared_with = forecast.shares.map(|with| plan.title(with));
    said.follows = forecast.follows.iter().map(|up| plan.title(*up)).collect();
    match forecast.state {
        State::Retry | State::Reopened | State::Exhausted if forecast.changes.is_empty() => {
            said.attempts = attempts(plan, forecast, sources);
        }
        _ => {
            let told = forecast.is_root() || forecast.state == State::Reused;
            let action = told.then(|| Action::of(plan, node));
            let shown = |change| sources.shown(change, action.as_ref(), forecast.nearest);
            said.changes = forecast.changes.iter().map(shown).collect();
        }
    }
    said.part_by_origin();
    if said.because.is_none() {
        said.because = about_limits(&forecast.changes).or_else(|| shared_build(plan, forecast, sources));
    }
    if let Some(key) = forecast.key {
        said.disagreements = disagree(&key, sources.index, Some(&sources.blobs));
    }
    if sources.keys {
        let stored = || forecast.key.and_then(|key| sources.record(&key));
        let record = forecast.record.as_deref().cloned().or_else(stored);
        said.known = Some(known(plan, node, record.as_ref(), sources.now));
    }
    if forecast.state == State::New && said.because.is_none() && forecast.follows.is_empty() {
        said.because = Some("nothing like it was run before".into());
    }
    said
}

/// How many commits share a build that would be made again, and how long it took.
fn shared_build(plan: &Plan, forecast: &Forecast, sources: &Sources<'_>) -> Option<String> {
    let Ask::Environment(ask) = &plan.nodes[forecast.node].ask else { return None };
    let key = forecast.nearest.filter(|_| ask.recipe.is_some() && forecast.state == State::Changed)?;
    let attempts = sources.index.attempts(&key).unwrap_or_default();
    let took = attempts.iter().filter(|ended| ended.outcome.settles()).max_by_key(|ended| ended.at)?.wall_ms;
    let all = match sharing(plan, forecast.node, &key, sources.blobs.store, sources.index) {
        0 | 1 => String::new(),
        many => {
            let of = if plan.nodes[forecast.node].point.candidate.is_none() { "commit" } else { "patched tree" };
            format!(" for {}", counted(many, of))
        }
    };
    Some(format!("one build{all}; the last one took {}", human_span(Duration::from_millis(took))))
}

fn attempts(plan: &Plan, forecast: &Forecast, sources: &Sources<'_>) -> Vec<AttemptSaid> {
    let all = forecast.key.and_then(|key| sources.index.attempts(&key).ok()).unwrap_or_default();
    let today = |ended| sources.blobs.store.today(ended, plan.tables(forecast.node));
    all.iter().map(|ended| AttemptSaid::of(&today(ended), sources.now)).collect()
}

fn cause(said: &Forecast) -> String {
    cause_of(said.state.word(), &alike(&said.changes), said.because.as_deref())
}

/// The changes as they are the same for all commits: of a tree, which is another for each, other files are matched.
fn alike(changes: &[Change]) -> Vec<Change> {
    let text = |text: &str| Some(Value::text(text));
    let matched = |change: &Change| match (&change.old, &change.new) {
        (Some(Value::Blob(_)), Some(Value::Blob(_))) if change.ingredient == FILES => {
            Change { old: text("what `from` matched"), new: text("others that it matches"), ..change.clone() }
        }
        _ => change.clone(),
    };
    changes.iter().map(matched).collect()
}

/// Actions with one and the same cause of their own.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// What becomes of them.
    pub state: State,
    /// What changed.
    pub changes: Vec<Change>,
    /// Why, where no change says it.
    pub because: Option<String>,
    /// The actions.
    pub members: Vec<&'a Forecast>,
}

/// The actions that are executed for reasons of their own, by reason; what is new is one group, what changed comes first.
#[must_use]
pub fn groups<'a>(forecasts: &[&'a Forecast]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for said in forecasts.iter().filter(|said| said.is_root()) {
        let at = *places.entry(cause(said)).or_insert_with(|| {
            let gone = is_gone(&said.changes);
            let changes = if gone { Vec::new() } else { alike(&said.changes) };
            let because = if gone { Some(GONE.to_owned()) } else { said.because.clone() };
            groups.push(Group { state: said.state, changes, because, members: Vec::new() });
            groups.len() - 1
        });
        groups[at].members.push(said);
    }
    let order = |state: State| match state {
        State::Changed => 0,
        State::Retry => 1,
        _ => 2,
    };
    groups.sort_by_key(|group| order(group.state));
    groups
}
