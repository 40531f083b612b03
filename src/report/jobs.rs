//! The result of each job: a pure function of the plan and the store.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attempt::Ended;
use crate::class::{Class, Verdict};
use crate::key::Value;
use crate::manifest::Kind;
use crate::measure::again::NOT_REPRODUCED;
use crate::names::{Axes, JobId};
use crate::outcome::{Cause, Owner};
use crate::plan::{Job, Plan, Role};
use crate::report::held;
use crate::report::human::{self, HumanResult};
use crate::report::standing::{Standing, Why};
use crate::step::{End, Keyed, classify, draft};
use crate::store::Index;

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
    /// Its interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<[f64; 2]>,
    /// How sure the interval is, at one look: `98.42 %`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// How it compares with the human's change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<HumanResult>,
    /// Every metric in words, where the test has several; the primary one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
    /// Whether it is an A/A control, and no candidate's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub control: bool,
    /// What a person said of it; the class stays beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ruling: Option<RulingResult>,
    /// Marks such as SAME_AS_HUMAN.
    pub marks: Vec<String>,
    /// Tokens of the agent's settled attempt: input and output; `None` is unknown.
    pub tokens: [Option<u64>; 2],
    /// The ids of the models that answered the agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Why it is open, where an action says it.
    #[serde(skip)]
    pub left: Option<Left>,
    /// What to do about that.
    #[serde(skip)]
    pub next: Option<String>,
}

/// What a person said of a job.
#[derive(Clone, Debug, Serialize)]
pub struct RulingResult {
    /// The class that counts in place of flow's; `None` takes the job out of every rate.
    pub verdict: Option<Class>,
    /// Why.
    pub because: String,
}

impl JobResult {
    /// The class that counts: a person's, where one said it; `None` for a job that was taken out.
    #[must_use]
    pub fn counts_as(&self) -> Option<Class> {
        self.ruling.as_ref().map_or(self.class, |ruling| ruling.verdict)
    }
}

/// Why a job is open, as far as one of its actions says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// An attempt of this action is under way.
    Running(usize),
    /// The attempts of this action are used up: the same command does nothing more for it.
    UsedUp {
        /// The action.
        node: usize,
        /// How many attempts counted.
        counted: u32,
    },
    /// The attempt of this action settles nothing by today's tables; it is drawn again only where somebody asks.
    Reopened(usize),
    /// An attempt of this action settled nothing; the same command tries again.
    Again(usize),
    /// Something else keeps this action from beginning.
    Held(usize),
}

/// The results of jobs, in the plan's order. Of a job whose classify step is not wanted, what its wanted actions came to.
#[must_use]
pub fn results(plan: &Plan, standing: &Standing, jobs: &[usize], wanted: &[bool]) -> Vec<JobResult> {
    jobs.iter().map(|job| result(plan, *job, standing, wanted)).collect()
}

/// The result of one job, given how its wanted actions stand.
#[must_use]
pub fn result(plan: &Plan, job: usize, standing: &Standing, wanted: &[bool]) -> JobResult {
    let job = &plan.jobs[job];
    let ends = &standing.ends;
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
        level: None,
        human: None,
        metrics: Vec::new(),
        control: job.control,
        ruling: ruling(plan, job),
        marks: Vec::new(),
        tokens: [None, None],
        models: Vec::new(),
        left: None,
        next: None,
    };
    let nodes: Vec<usize> = job.nodes.iter().copied().filter(|node| wanted[*node]).collect();
    let Some(classify) = job.classify.filter(|classify| wanted[*classify]) else {
        plain(&mut result, plan, &nodes, standing);
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
        result.level = text("level").map(str::to_owned);
        if let Some(Value::List(metrics)) = ended.outputs.get("metrics") {
            result.metrics.clone_from(metrics);
        }
        result.human = human::of(plan, classify, ended, ends);
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
        if reused(plan, classify, ends) {
            result.marks.push("REUSED".to_owned());
        }
        if let Some(usage) = &agent.usage {
            result.tokens = [usage.input, usage.output];
            result.models.clone_from(&usage.models);
        }
    }
    result.marks.extend(held::marks(plan, classify, ends));
    if nodes.iter().any(|node| standing.over_limit.contains(node)) {
        result.marks.push("OVER_LIMIT".to_owned());
    }
    result.marks.extend(otherwise(plan, &nodes, standing));
    if !verdict.class.usable()
        && let Some(ended) = to_blame(plan, classify, ends, verdict.class)
    {
        blame(&mut result, &ended);
        // What only says where to read on is said better by the cause.
        if let Some(cause) = ended.outcome.failure().map(|failure| failure.cause)
            && verdict.class.next_action().starts_with("read ")
        {
            result.next = Some(format!("{}; `flow log JOB {}` tells more", cause.next_action(), ended.step));
        }
    }
    if result.marks.iter().any(|mark| mark == NOT_REPRODUCED) {
        result.next = Some(
            "look at what differs between the two sessions, which `flow show JOB` tells: slot, machine, layout; \
             neither is a verdict alone"
                .to_owned(),
        );
    }
    if result.open {
        say_open(&mut result, plan, &nodes, standing);
    }
    if result.evidence.is_none() {
        result.evidence = Some(verdict.class.next_action().to_owned());
    }
    result
}

/// Which of a job's steps came out otherwise under the same key, as marks.
fn otherwise(plan: &Plan, nodes: &[usize], standing: &Standing) -> Vec<String> {
    let unlike = nodes.iter().filter(|node| standing.otherwise.contains(node));
    unlike.map(|node| format!("NONDETERMINISTIC {}", plan.step(*node).name.value)).collect()
}

/// The result of a job without a classify step: its first failure, or that something is open.
fn plain(result: &mut JobResult, plan: &Plan, nodes: &[usize], standing: &Standing) {
    let ends = &standing.ends;
    result.open = nodes.iter().any(|node| ends[*node].is_open() || !ends[*node].is_over());
    if nodes.iter().any(|node| standing.over_limit.contains(node)) {
        result.marks.push("OVER_LIMIT".to_owned());
    }
    result.marks.extend(otherwise(plan, nodes, standing));
    let failed = nodes.iter().find_map(|node| ends[*node].settled().filter(|e| e.outcome.failure().is_some()));
    let skipped = nodes.iter().find_map(|node| match ends[*node] {
        End::Skipped(cause) => Some((cause, plan.step(*node).name.value.to_string())),
        _ => None,
    });
    match (failed, skipped) {
        (Some(ended), _) => blame(result, ended),
        (None, Some((cause, step))) => {
            result.cause = Some(cause.name().to_owned());
            result.evidence = Some(cause.next_action().to_owned());
            result.see = Some(step);
        }
        (None, None) => {}
    }
    if result.open {
        say_open(result, plan, nodes, standing);
    }
}

/// Why a job is open and what to do, where an action says more than that it was not run: first what runs, then what the same
/// command would not run.
fn say_open(result: &mut JobResult, plan: &Plan, nodes: &[usize], standing: &Standing) {
    let whys = || nodes.iter().filter_map(|node| Some((*node, standing.open.get(node)?)));
    let is = |wanted: fn(&Why) -> bool| whys().find(|(_, why)| wanted(why));
    let first = is(|why| matches!(why, Why::Running(_)))
        .or_else(|| is(|why| matches!(why, Why::UsedUp { .. } | Why::Reopened(_))))
        .or_else(|| is(|why| matches!(why, Why::Held(_))))
        .or_else(|| whys().next());
    let Some((node, why)) = first else { return };
    let step = &plan.step(node).name.value;
    let remedy = |ended: &Ended| ended.outcome.failure().map_or("", |failure| failure.cause.next_action());
    let owner = |ended: &Ended| ended.outcome.failure().map(|failure| failure.cause.owner());
    match why {
        Why::Running(run) => {
            result.left = Some(Left::Running(node));
            result.evidence = Some(format!("{step} is running, in run {run}"));
            result.next = Some(format!("wait for {step}; `flow status` tells how far the run is"));
        }
        Why::UsedUp { last, counted } => {
            blame(result, last);
            result.owner = owner(last);
            result.left = Some(Left::UsedUp { node, counted: *counted });
            // The same command alone does nothing more for it.
            let mend = remedy(last);
            let mend = if mend.starts_with(Class::NotRun.next_action()) { "wait until that has passed" } else { mend };
            result.next = Some(format!("{mend}; then add `--retry JOB`: its attempts are used up"));
        }
        Why::Reopened(last) => {
            blame(result, last);
            result.owner = owner(last);
            result.left = Some(Left::Reopened(node));
            result.next = Some(format!("{}; then add `--retry JOB`: today's tables reopened it", remedy(last)));
        }
        Why::Again(last) => {
            blame(result, last);
            result.owner = owner(last);
            result.left = Some(Left::Again(node));
            result.next = Some(match last.outcome.failure().map(|failure| failure.cause) {
                Some(Cause::Interrupted) | None => Class::NotRun.next_action().to_owned(),
                Some(_) => format!("{}; then {}", remedy(last), Class::NotRun.next_action()),
            });
        }
        Why::Held(held) => {
            result.cause.clone_from(&held.cause);
            result.evidence = Some(held.evidence.clone());
            result.owner = Some(held.owner);
            result.left = Some(Left::Held(node));
            result.next = Some(format!("{}; then {}", held.next, Class::NotRun.next_action()));
        }
    }
}

/// Whether the draw that stands for a job's agent was made under another key.
fn reused(plan: &Plan, classify: usize, ends: &Vec<End>) -> bool {
    let Some(node) = plan.linked(classify, &Role::Agent) else { return false };
    match (ends[node].settled(), draft(plan, node, ends)) {
        (Some(ended), Keyed::Ready(record)) => record.key() != ended.key,
        _ => false,
    }
}

/// What a person said of a job.
fn ruling(plan: &Plan, job: &Job) -> Option<RulingResult> {
    let said = plan.manifest.pipeline.rulings.iter().find(|ruling| ruling.job.value == job.id.as_str())?;
    Some(RulingResult { verdict: said.verdict, because: said.because.clone() })
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
        let order = [
            Role::Checkout,
            Role::Environment,
            Role::Baseline,
            Role::Agent,
            Role::Patch,
            Role::Rebuilt,
            Role::Patched,
            Role::Again,
        ];
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
