//! The result of each job: a pure function of the plan and the store.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attempt::Ended;
use crate::class::{Class, Verdict};
use crate::key::Value;
use crate::manifest::Kind;
use crate::names::{Axes, JobId};
use crate::outcome::{Cause, Owner};
use crate::plan::{Job, Plan, Role};
use crate::run::decide::{Decision, decide, shut_gate};
use crate::step::{End, Keyed, classify, draft, leak};
use crate::store::{Index, Store};

/// What came of one job.
#[derive(Clone, Debug, Serialize)]
pub struct JobResult {
    /// Its name.
    pub job: JobId,
    /// Its axes.
    pub axes: Axes,
    /// The first line of its commit's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its class; `None` for a job without a classify step.
    pub class: Option<Class>,
    /// Whether the class may still change.
    pub open: bool,
    /// Whose doing it is.
    pub owner: Option<Owner>,
    /// How the agent ended: `finished`, or the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The cause of the failure that the class speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The exit code of the process that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The line that shows it: the measurement in words, or the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The step whose log tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub see: Option<String>,
    /// Base over patched: above 1 is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speedup: Option<f64>,
    /// Its interval at 95 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<[f64; 2]>,
    /// Marks such as SAME_AS_HUMAN.
    pub marks: Vec<String>,
    /// Tokens of the agent's settled attempt: input and output; `None` is unknown.
    pub tokens: [Option<u64>; 2],
    /// The ids of the models that answered the agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
}

/// How every wanted action stands by the records alone.
#[must_use]
pub fn ends(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Vec<End> {
    let mut ends = vec![End::Pending; plan.nodes.len()];
    for node in (0..plan.nodes.len()).filter(|node| wanted[*node]) {
        ends[node] = match decide(plan, node, &ends, store, index, false) {
            Decision::Served { ended, .. } | Decision::Reused { ended, .. } => End::Settled(ended),
            Decision::Over(end) => end,
            Decision::Execute { .. } => match shut_gate(plan, node, &ends) {
                Some(by) => End::Blocked { by },
                None => End::Open("not settled".into()),
            },
            Decision::Reopened { last, .. } => End::Reopened(last),
            _ => End::Open("not settled".into()),
        };
    }
    ends
}

/// The results of the jobs whose last action is wanted, in the plan's order.
#[must_use]
pub fn results(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Vec<JobResult> {
    let ends = ends(plan, store, index, wanted);
    let is_wanted = |job: &usize| {
        let job = &plan.jobs[*job];
        job.classify.or(job.nodes.last().copied()).is_some_and(|node| wanted[node])
    };
    (0..plan.jobs.len()).filter(is_wanted).map(|job| result(plan, job, &ends)).collect()
}

/// The result of one job, given how its actions ended.
#[must_use]
pub fn result(plan: &Plan, job: usize, ends: &Vec<End>) -> JobResult {
    let job = &plan.jobs[job];
    let mut result = JobResult {
        job: job.id.clone(),
        axes: job.axes.clone(),
        subject: subject(plan, job),
        class: None,
        open: false,
        owner: None,
        agent: None,
        cause: None,
        exit: None,
        evidence: None,
        see: None,
        speedup: None,
        ci: None,
        marks: Vec::new(),
        tokens: [None, None],
        models: Vec::new(),
    };
    let Some(classify) = job.classify else {
        let failed = job.nodes.iter().find_map(|node| ends[*node].settled().filter(|e| e.outcome.failure().is_some()));
        result.open = job.nodes.iter().any(|node| ends[*node].is_open() || !ends[*node].is_over());
        if let Some(ended) = failed {
            blame(&mut result, ended);
        }
        return result;
    };
    let said = ends[classify].settled();
    let class = said.and_then(|ended| {
        let name = ended.outputs.get("class")?.as_text()?;
        Class::ALL.iter().copied().find(|class| class.name() == name)
    });
    let verdict = match class {
        Some(class) => Verdict { class, open: false },
        None => classify::provisional(plan, classify, ends),
    };
    result.class = Some(verdict.class);
    result.open = verdict.open;
    result.owner = verdict.class.owner();
    if let Some(ended) = said {
        let text = |name: &str| ended.outputs.get(name).and_then(Value::as_text);
        result.evidence = text("evidence").map(str::to_owned);
        result.speedup = text("speedup").and_then(|text| text.parse().ok());
        if let Some(Value::List(marks)) = ended.outputs.get("marks") {
            result.marks.clone_from(marks);
        }
        if let Some(Value::List(interval)) = ended.outputs.get("interval") {
            let ends: Vec<f64> = interval.iter().filter_map(|text| text.parse().ok()).collect();
            result.ci = <[f64; 2]>::try_from(ends).ok();
        }
    }
    if let Some(agent) = plan.linked(classify, &Role::Agent).and_then(|node| ends[node].attempt()) {
        result.agent = Some(match agent.outcome.failure() {
            None => "finished".to_owned(),
            Some(failure) if failure.cause == Cause::Timeout => "timed-out".to_owned(),
            Some(failure) => failure.cause.name().to_lowercase().replace('_', "-"),
        });
        if agent.notes.iter().any(|note| note.starts_with(leak::NOTE)) {
            result.marks.push("LEAK".to_owned());
        }
        if reused(plan, classify, ends) {
            result.marks.push("REUSED".to_owned());
        }
        if let Some(usage) = &agent.usage {
            result.tokens = [usage.input, usage.output];
            result.models.clone_from(&usage.models);
        }
    }
    if !verdict.class.usable()
        && let Some(ended) = to_blame(plan, classify, ends, verdict.class)
    {
        blame(&mut result, &ended);
    }
    if result.evidence.is_none() {
        result.evidence = Some(verdict.class.next_action().to_owned());
    }
    result
}

/// Whether the draw that stands for a job's agent was made under another key.
fn reused(plan: &Plan, classify: usize, ends: &Vec<End>) -> bool {
    let Some(node) = plan.linked(classify, &Role::Agent) else { return false };
    match (ends[node].settled(), draft(plan, node, ends)) {
        (Some(ended), Keyed::Ready(record)) => record.key() != ended.key,
        _ => false,
    }
}

/// What the commit of a job is about, if it could be resolved.
fn subject(plan: &Plan, job: &Job) -> Option<String> {
    let commit = job.nodes.iter().find_map(|node| plan.nodes[*node].point.commit)?;
    plan.facts.commits.get(&commit)?.as_ref().ok().map(|fact| crate::text::harmless(&fact.subject))
}

fn blame(result: &mut JobResult, ended: &Ended) {
    if let Some(failure) = ended.outcome.failure() {
        result.cause = Some(failure.cause.name().to_owned());
        result.exit = failure.exit;
        result.evidence = Some(failure.evidence.as_str().to_owned());
        result.see = Some(ended.step.clone());
    }
}

/// The failure that a class speaks of: that of its stage, else the first upstream. A job without a patch is explained by how
/// its agent ended, where that was badly.
fn to_blame(plan: &Plan, classify: usize, ends: &[End], class: Class) -> Option<std::sync::Arc<Ended>> {
    let failed = |role: &Role| {
        let ended = ends[plan.linked(classify, role)?].attempt()?;
        ended.outcome.failure().map(|_| ended.clone())
    };
    let by_stage = match class.stage() {
        "agent" => failed(&Role::Agent).or_else(|| failed(&Role::Patch)),
        "patch" => failed(&Role::Patch).or_else(|| failed(&Role::Agent)),
        "patched" => failed(&Role::Patched),
        "baseline" => failed(&Role::Baseline).or_else(|| failed(&Role::Patched)),
        _ => None,
    };
    by_stage.or_else(|| {
        let order =
            [Role::Checkout, Role::Environment, Role::Baseline, Role::Agent, Role::Patch, Role::Rebuilt, Role::Patched];
        order.iter().find_map(failed)
    })
}

/// The class that each job had when it was last said, by any run: for `--class`.
#[must_use]
pub fn last_classes(plan: &Plan, index: &Index) -> BTreeMap<usize, String> {
    let mut last = BTreeMap::new();
    for (number, job) in plan.jobs.iter().enumerate() {
        let Some(classify) = job.classify else { continue };
        let newest = index
            .nearest_candidates(Kind::Classify.word(), &plan.nodes[classify].axes)
            .into_iter()
            .next()
            .and_then(|key| index.attempts(&key).ok()?.last().cloned());
        if let Some(class) = newest.and_then(|ended| ended.outputs.get("class")?.as_text().map(str::to_owned)) {
            last.insert(number, class);
        }
    }
    last
}
