//! All that is known of one job: its result in words, and of each step how it stands and every attempt in the ledger.
//!
//! A pure function of the plan and the store. How it looks on screen is `detail_text`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::attempt::{Ended, Started};
use crate::gc;
use crate::key::{ActionKey, Value};
use crate::ledger::{Entry, Rates, usage_of};
use crate::measure::TestResult;
use crate::measure::again::NOT_REPRODUCED;
use crate::measure::analysis::Ratio;
use crate::measure::metric::{Better, Kind as MetricKind, MetricSpec};
use crate::money::{Amount, Cost, Totals};
use crate::names::{AttemptId, JobId, RunId};
use crate::outcome::Cause;
use crate::plan::{Ask, Plan, Role};
use crate::report::explain::{Explained, GuardsTold, explain};
use crate::report::human;
use crate::report::jobs::{self, JobResult};
use crate::report::marks;
use crate::report::standing::standing_as_recorded;
use crate::report::status::runs;
use crate::report::table::meaning;
use crate::run::decide::{Decision, decide, shut_gate};
use crate::run::journal::{PlanFile, read_plan};
use crate::step::End;
use crate::store::{Index, RunLock, Store, StoreError};
use crate::text;
use crate::why::attempts::{Disagreed, disagree};

/// The largest result that is read, in bytes.
const RESULT_BYTES: u64 = crate::measure::result::BLOB_MAX as u64;
/// How many of the newest runs may be at work.
const RUNS: usize = 8;

/// One job.
#[derive(Debug, Serialize)]
pub struct JobDetail {
    /// What came of it.
    #[serde(flatten)]
    pub result: JobResult,
    /// Why it is shown as it was last recorded: what this machine lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// What its class means, in words.
    pub meaning: Option<String>,
    /// What to do.
    pub next_action: Option<String>,
    /// What the speedup means, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speedup_means: Option<String>,
    /// The verdict of speed in three sentences, with its blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
    /// What its marks mean.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub marks_mean: BTreeMap<String, String>,
    /// What all attempts of its agents came to; one that serves other jobs too is in theirs as well.
    pub spent: Totals,
    /// What the slots cost that its steps held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_usd: Option<Amount>,
    /// Why tokens are unknown, where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_unknown_because: Option<String>,
    /// Its steps, upstream first.
    pub steps: Vec<StepDetail>,
}

/// One step of a job.
#[derive(Debug, Serialize)]
pub struct StepDetail {
    /// Its name.
    pub step: String,
    /// Its kind.
    pub kind: &'static str,
    /// `done`, `failed`, `running`, `skipped`, `blocked` or `not settled`.
    pub state: &'static str,
    /// Why, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Its key, if it can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<ActionKey>,
    /// All attempts, the oldest first.
    pub attempts: Vec<AttemptDetail>,
    /// The attempts of its key that came out otherwise than the one that speaks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disagreements: Vec<Disagreed>,
    /// Attempts that began and have not ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<Started>,
}

/// One attempt.
#[derive(Debug, Serialize)]
pub struct AttemptDetail {
    /// Its number within the step, from 1.
    pub number: usize,
    /// Whether it speaks for the step today.
    pub speaks: bool,
    /// Whether its key is today's; another had other ingredients.
    pub same_key: bool,
    /// The outcome on record, where today's tables read another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<&'static str>,
    /// What its tokens cost, for an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Amount>,
    /// What the slots cost that it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_usd: Option<Amount>,
    /// What is on record; outcome and usage as they read today.
    #[serde(flatten)]
    pub ended: Arc<Ended>,
}

impl StepDetail {
    /// The attempt to look at when nobody says which: the one that speaks for the step, else the last.
    #[must_use]
    pub fn chosen(&self) -> Option<&AttemptDetail> {
        self.attempts.iter().find(|attempt| attempt.speaks).or(self.attempts.last())
    }
}

/// Looks at one job.
///
/// # Errors
/// If a record file cannot be read.
pub fn detail(plan: &Plan, job: usize, store: &Store, index: &Index) -> Result<JobDetail, StoreError> {
    let mut wanted = vec![false; plan.nodes.len()];
    for node in &plan.jobs[job].nodes {
        wanted[*node] = true;
    }
    // What the job is compared with, where the human's change was measured apart.
    let human = plan.jobs[job].classify.and_then(|classify| human::beside(plan, classify));
    for node in human.iter().flat_map(|job| &job.nodes) {
        wanted[*node] = true;
    }
    let mut standing = standing_as_recorded(plan, store, index, &wanted);
    if standing.ends.iter().any(End::is_open)
        && let Some(run) = about(&store.root, &plan.jobs[job].id).next()
    {
        standing = standing.after(plan, &store.root, &run);
    }
    let ends = standing.ends.clone();
    let mut result = jobs::result(plan, job, &standing, &wanted);
    if result.open && result.left.is_none() {
        to_come(&mut result, &store.root);
    }
    let classify = plan.jobs[job].classify;
    let agent = classify.and_then(|node| ends[plan.linked(node, &Role::Agent)?].attempt());
    let marks_mean = result.marks.iter().filter_map(|mark| Some((mark.clone(), marks::meaning(mark)?))).collect();
    let rates = Rates::of(&plan.manifest.pipeline);
    let mut spent = Totals::default();
    let mut machine_usd = rates.machine().then(Amount::default);
    let mut steps = Vec::new();
    for node in &plan.jobs[job].nodes {
        let (detail, entries) = step(plan, job, *node, &ends, store, index, &rates)?;
        for entry in entries {
            if let Some(cost) = &entry.cost {
                spent.add(usage_of(&entry.ended), cost, entry.ended.outcome.settles());
            }
            if let (Some(sum), Some(cost)) = (&mut machine_usd, &entry.machine) {
                sum.add(cost);
            }
        }
        steps.push(detail);
    }
    let worked = steps.iter().any(|step| step.kind == "agent" && !step.attempts.is_empty());
    let unknown = result.tokens.iter().any(Option::is_none);
    let tokens_unknown_because = unknown.then(|| match agent {
        None if worked => "no attempt of its agent settled it".to_owned(),
        None => "no agent of this job has ended".to_owned(),
        Some(ended) => {
            let said = ended.usage.as_ref().and_then(|usage| usage.unknown_because.clone());
            said.unwrap_or_else(|| "the agent reported none".to_owned())
        }
    });
    Ok(JobDetail {
        lacks: standing.lacks(plan),
        spent,
        machine_usd,
        meaning: result.class.map(|class| meaning(class).to_owned()),
        next_action: next_action(&result, store),
        speedup_means: classify.and_then(|node| speedup_means(plan, node, &result)),
        explained: classify.and_then(|node| explained(plan, node, &ends, store)),
        marks_mean,
        tokens_unknown_because,
        steps,
        result,
    })
}

/// The verdict of a job explained, where something was measured.
/// What to do; where the disk is full, how much room can be made, as it is now.
fn next_action(result: &JobResult, store: &Store) -> Option<String> {
    let next = result.next.clone().or(result.class.map(|class| class.next_action().to_owned()))?;
    let full = result.cause.as_deref() == Some(Cause::DiskFull.name());
    Some(if full { format!("{next}; {}", gc::room(store).text()) } else { next })
}

fn explained(plan: &Plan, classify: usize, ends: &[End], store: &Store) -> Option<Explained> {
    let judged = match &plan.nodes[classify].ask {
        Ask::Classify(ask) => ask.judge_min_effect,
        _ => None,
    };
    let mut explained = explain(&measured(plan, classify, ends, store)?, judged)?;
    let marks = ends[classify].settled().and_then(|ended| ended.outputs.get("marks"));
    let marked = |mark: &str| matches!(marks, Some(Value::List(marks)) if marks.iter().any(|own| own == mark));
    let again = result_of(plan, classify, &Role::Again, ends, store).and_then(|result| result.guarded);
    explained.again_guards = again.as_ref().map(GuardsTold::of);
    let second = plan.linked(classify, &Role::Again).and_then(|up| ends[up].settled());
    let on = second.map_or_else(String::new, |ended| format!(" on {}", ended.slots.join(", ")));
    explained.sentences.extend(match () {
        () if marked(NOT_REPRODUCED) => Some(format!("A second session{on} contradicts that: neither is a verdict.")),
        () if marked("CONFIRMED") => Some(format!("A second session{on} came to the same.")),
        () if marked("UNCONFIRMED") => Some("No second session bears that out.".to_owned()),
        () => None,
    });
    Some(explained)
}

/// What was measured for a verdict, where something was.
pub(super) fn measured(plan: &Plan, classify: usize, ends: &[End], store: &Store) -> Option<TestResult> {
    result_of(plan, classify, &Role::Patched, ends, store)
}

fn result_of(plan: &Plan, classify: usize, role: &Role, ends: &[End], store: &Store) -> Option<TestResult> {
    let ended = ends[plan.linked(classify, role)?].settled()?;
    let digest = ended.outputs.get("result").and_then(Value::as_blob)?;
    let bytes = store.cas.get(&digest, RESULT_BYTES).ok()??;
    TestResult::decode(&bytes).ok()
}

/// Those of the newest runs that are about a job, the newest first.
pub fn about<'a>(root: &'a Path, job: &'a JobId) -> impl Iterator<Item = RunId> + 'a {
    let holds = move |plan: &PlanFile| plan.jobs.iter().any(|(name, _)| name == job);
    runs(root).into_iter().take(RUNS).filter(move |run| read_plan(root, run).is_some_and(|plan| holds(&plan)))
}

/// Says of an open job that a run which lives will come to it.
fn to_come(result: &mut JobResult, root: &Path) {
    let alive = |run: &RunId| RunLock::is_alive(root, run).unwrap_or(false);
    let run = about(root, &result.job).find(alive);
    if let Some(run) = run {
        result.evidence = Some(format!("run {run} is under way and has not come to it"));
        result.next = Some("wait: `flow status` tells how far the run is".to_owned());
    }
}

fn step(
    plan: &Plan,
    job: usize,
    node: usize,
    ends: &Vec<End>,
    store: &Store,
    index: &Index,
    rates: &Rates,
) -> Result<(StepDetail, Vec<Entry>), StoreError> {
    let name = plan.step(node).name.value.to_string();
    let (mut state, mut because, key) = stands(plan, node, ends, store, index);
    let kind = plan.kind(node).word();
    let speaks = ends[node].settled().map(|ended| &ended.attempt);
    let mut all: Vec<(bool, Arc<Ended>)> = Vec::new();
    let mut was: HashMap<AttemptId, &'static str> = HashMap::new();
    let mut note = |recorded: &Ended, today: &Ended| {
        if recorded.outcome.word() != today.outcome.word() {
            was.insert(recorded.attempt.clone(), recorded.outcome.word());
        }
    };
    for attempt in key.map(|key| index.attempts(&key)).transpose()?.unwrap_or_default() {
        let today = store.today(&attempt, plan.tables(node));
        note(&attempt, &today);
        all.push((true, today));
    }
    // Of other ingredients: two steps of one kind and point are told apart by name, one alone may have been renamed.
    let axes = &plan.nodes[node].axes;
    let twin = |other: &usize| *other != node && plan.kind(*other).word() == kind && plan.nodes[*other].axes == *axes;
    let alone = !plan.jobs[job].nodes.iter().any(twin);
    // A job of the same name may be another pipeline's on this store: what it came to is not this one's.
    let of = |pipeline: Option<&str>| pipeline.is_none_or(|other| other == plan.manifest.pipeline.name.value.as_str());
    for other in index.nearest_candidates(kind, axes).into_iter().filter(|other| Some(*other) != key) {
        let own = |ended: &Arc<Ended>| (alone || ended.step == name) && of(ended.pipeline.as_deref());
        for attempt in index.attempts(&other)?.into_iter().filter(own) {
            let today = store.today_of_any(&attempt, plan.tables(node));
            note(&attempt, &today);
            all.push((false, today));
        }
    }
    let mut seen = HashSet::new();
    all.retain(|(_, ended)| seen.insert(ended.attempt.clone()));
    all.sort_by(|(_, a), (_, b)| (a.at, &a.attempt).cmp(&(b.at, &b.attempt)));
    let entries: Vec<Entry> = all.iter().map(|(_, ended)| rates.entry(ended.clone(), store)).collect();
    let amount = |cost: &Option<Cost>| {
        cost.as_ref().map(|cost| {
            let mut amount = Amount::default();
            amount.add(cost);
            amount
        })
    };
    let attempts = (1..).zip(all.into_iter().zip(&entries)).map(|(number, ((same_key, ended), entry))| AttemptDetail {
        number,
        speaks: speaks == Some(&ended.attempt),
        same_key,
        was: was.get(&ended.attempt).copied(),
        cost_usd: amount(&entry.cost),
        machine_usd: amount(&entry.machine),
        ended,
    });
    let attempts = attempts.collect();
    let mut under_way = Vec::new();
    for started in index.unfinished()? {
        let own = of(started.pipeline.as_deref());
        if own && started.kind == kind && started.axes == *axes && started.step == name {
            if RunLock::is_alive(&store.root, &started.run)? && !matches!(ends[node], End::Settled(_)) {
                (state, because) = ("running", Some(format!("in run {}", started.run)));
            }
            under_way.push(started);
        }
    }
    let disagreements = key.map(|key| disagree(&key, index, None)).unwrap_or_default();
    Ok((StepDetail { step: name, kind, state, because, key, attempts, disagreements, under_way }, entries))
}

/// How an action stands, why, and its key.
fn stands(
    plan: &Plan,
    node: usize,
    ends: &Vec<End>,
    store: &Store,
    index: &Index,
) -> (&'static str, Option<String>, Option<ActionKey>) {
    match &ends[node] {
        End::Settled(ended) => match ended.outcome.failure() {
            None => ("done", None, Some(ended.key)),
            Some(failure) => {
                let why = format!("{}: {}", failure.cause, failure.evidence.as_str());
                ("failed", Some(why), Some(ended.key))
            }
        },
        End::Skipped(cause) => ("skipped", Some(format!("{cause}: {}", cause.next_action())), None),
        End::Blocked { by } if shut_gate(plan, node, ends) == Some(*by) => {
            ("blocked", Some(format!("waits for {} to end well", plan.title(*by))), None)
        }
        End::Blocked { by } => ("blocked", Some(format!("{} left nothing to go on with", plan.title(*by))), None),
        End::Reopened(ended) => {
            let why = format!(
                "reopened: by today's tables it ended in {}; `flow run --retry JOB` draws again",
                ended.outcome.word()
            );
            ("not settled", Some(why), Some(ended.key))
        }
        End::Open(_) | End::Pending => match decide(plan, node, ends, store, index, false) {
            Decision::Exhausted { last, counted } => {
                let failure = last.outcome.failure();
                let evidence = failure.map_or("", |failure| failure.evidence.as_str());
                let why = format!(
                    "its {} are used up, the last by {}: {evidence}; `--retry JOB` tries again",
                    text::counted(counted as usize, "attempt"),
                    last.outcome.word()
                );
                ("not settled", Some(why), Some(last.key))
            }
            Decision::Execute { record, reason, .. } => {
                let why = match reason.state.as_str() {
                    "changed" => {
                        let what: Vec<&str> = reason.changes.iter().map(|change| change.ingredient.as_str()).collect();
                        format!("changed since it last ran: {}", what.join(", "))
                    }
                    "retry" => "it ended without settling anything, and is tried again".to_owned(),
                    _ => "it has not been run".to_owned(),
                };
                ("not settled", Some(why), Some(record.key()))
            }
            Decision::Lacking => {
                let what: Vec<&str> = plan.nodes[node].missing.iter().map(|missing| missing.what.as_str()).collect();
                ("not settled", Some(what.join("; ")), None)
            }
            _ => ("not settled", Some("waits for a step before it".to_owned()), None),
        },
    }
}

/// What the ratio says, by the primary metric of the test.
fn speedup_means(plan: &Plan, classify: usize, result: &JobResult) -> Option<String> {
    let speedup = Ratio(result.speedup?);
    let test = plan.linked(classify, &Role::Patched)?;
    let Ask::Test(ask) = &plan.nodes[test].ask else { return None };
    let default = ask.contract.default_metric();
    let metric: &MetricSpec = ask.metrics.first().unwrap_or(&default);
    let means = match metric.better {
        Better::Lower => format!("the base needs {speedup} times the {} of the patched tree", metric.name),
        Better::Higher => format!("the patched tree reaches {speedup} times the {} of the base", metric.name),
    };
    let sure = match result.ci {
        Some([low, high]) => {
            let one = if low <= 1.0 && high >= 1.0 { "; 1 lies within, so a difference is not shown" } else { "" };
            let level = result.level.as_deref().unwrap_or("its level");
            format!("at {level} between {} and {}{one}", Ratio(low), Ratio(high))
        }
        None if metric.kind == MetricKind::Count => "an exact count, which needs no interval".to_owned(),
        None => "without an interval".to_owned(),
    };
    Some(format!("{means}; {sure}"))
}
