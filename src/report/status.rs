//! How a run stands: a pure function of what its folder holds, while it works, after its end and after its death.
//!
//! Reads the journal and the plan's digest, never the records: it says what the run told, not what is settled in the store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::class::Class;
use crate::event::{Against, Counts, Event, GitState, Paused};
use crate::names::{AttemptId, Axes, JobId, RunId};
use crate::outcome::Cause;
use crate::report::campaign::differs;
use crate::run::journal::{self, PlanFile};
use crate::store::{RunLock, begun};

/// How many of the last failures are kept.
const FAILURES: usize = 8;

/// How a run stands.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The run.
    pub run: RunId,
    /// The pipeline's name; empty if the run died before it could say so.
    pub pipeline: String,
    /// The manifest.
    pub manifest: PathBuf,
    /// How the manifest stood in git; absent if it lies in no repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitState>,
    /// What followed `flow run MANIFEST`.
    #[serde(skip)]
    pub options: Vec<String>,
    /// `running`, `finished`, or `died`: no end told, and no process holds its lock.
    pub state: &'static str,
    /// Whether its process lives.
    pub alive: bool,
    /// When it began.
    pub began: Option<Timestamp>,
    /// When it said its last word.
    pub last: Option<Timestamp>,
    /// Its exit code, if it has ended.
    pub exit: Option<i32>,
    /// What became of its actions, if it has ended.
    pub actions: Option<Counts>,
    /// How many jobs it is about.
    pub jobs: usize,
    /// How many of them are settled.
    pub settled: usize,
    /// Those by class.
    pub classes: BTreeMap<String, usize>,
    /// What of its A/A controls is settled.
    pub control: ControlStatus,
    /// How those jobs compare with the human's change whose session measured that too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub human: BTreeMap<JobId, Against>,
    /// How many jobs bear each mark.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, usize>,
    /// Its steps in the manifest's order.
    pub steps: Vec<StepStatus>,
    /// What runs; after a death, what ran then.
    pub running: Vec<RunningStatus>,
    /// The lanes that are closed, or whose credential expires too soon.
    pub lanes: Vec<LaneStatus>,
    /// The candidates that are paused.
    pub paused: Vec<Paused>,
    /// What is to be tried again after a while.
    pub retries: Vec<RetryStatus>,
    /// The last failures, the newest last.
    pub failures: Vec<FailureStatus>,
    /// Actions that were left open for a reason of their own, by that reason.
    pub open: BTreeMap<String, usize>,
    /// Whether some of them are tried again only where somebody asks: their attempts are used up, or they were reopened.
    pub asks_for_retry: bool,
}

/// What of a run's A/A controls is settled.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ControlStatus {
    /// How many.
    pub settled: usize,
    /// Those that were measured.
    pub measured: usize,
    /// Those that came out as a difference.
    pub false_verdicts: usize,
}

/// How the actions of a step stand.
#[derive(Debug, Serialize)]
pub struct StepStatus {
    /// Its name.
    pub step: String,
    /// Not begun.
    pub waiting: usize,
    /// Being executed.
    pub running: usize,
    /// Settled, or skipped as there is nothing to do.
    pub done: usize,
    /// Not settled by this run, which is done with them: they wait for another one, or have nothing to go on with.
    pub left: usize,
    /// Of those done or left, executed by this run.
    pub executed: usize,
    /// Of those executed, failed.
    pub failed: usize,
}

/// An attempt under way.
#[derive(Debug, Serialize)]
pub struct RunningStatus {
    /// Its point.
    pub axes: Axes,
    /// Its step.
    pub step: String,
    /// The attempt.
    pub attempt: AttemptId,
    /// What it holds.
    pub slots: Vec<String>,
    /// Since when.
    pub since: Timestamp,
}

/// A lane that lets no agent begin.
#[derive(Debug, Serialize)]
pub struct LaneStatus {
    /// The provider, or `candidate NAME`.
    pub lane: String,
    /// The cause.
    pub cause: String,
    /// The line that shows it.
    pub evidence: String,
    /// What to do.
    pub remedy: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again, if the run still works then.
    pub again: Option<Timestamp>,
}

/// An action that waits to be tried again.
#[derive(Debug, Serialize)]
pub struct RetryStatus {
    /// Its point.
    pub axes: Axes,
    /// Its step.
    pub step: String,
    /// The cause of its last failure.
    pub cause: String,
    /// When it is tried again.
    pub at: Timestamp,
    #[serde(skip)]
    node: usize,
}

/// A failure.
#[derive(Debug, Serialize)]
pub struct FailureStatus {
    /// Its point.
    pub axes: Axes,
    /// Its step.
    pub step: String,
    /// The cause.
    pub cause: String,
    /// The line that shows it.
    pub evidence: String,
    /// When.
    pub at: Timestamp,
}

/// The runs of a store, the newest first: by their names, which begin with the time, but in the order that they noted when
/// they began. A clock that was set back must not hide the newest.
#[must_use]
pub fn runs(root: &Path) -> Vec<RunId> {
    let Ok(entries) = std::fs::read_dir(root.join("runs")) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // Two of one second are told apart by when they took their locks.
            let locked = std::fs::metadata(entry.path().join("lock")).and_then(|meta| meta.modified()).ok()?;
            Some((name.split('-').next().unwrap_or_default().to_owned(), locked, RunId::new(name)))
        })
        .collect();
    found.sort_by(|a, b| (&b.0, b.1, &b.2).cmp(&(&a.0, a.1, &a.2)));
    let mut runs: Vec<RunId> = found.into_iter().map(|(_, _, run)| run).collect();
    let there: HashMap<&RunId, usize> = runs.iter().enumerate().map(|(at, run)| (run, at)).collect();
    // Those that are noted share the places they have among the others.
    let mut noted: Vec<usize> = begun(root).iter().rev().filter_map(|run| there.get(run).copied()).collect();
    let mut seen = HashSet::new();
    noted.retain(|at| seen.insert(*at));
    let mut places = noted.clone();
    places.sort_unstable();
    let in_order: Vec<RunId> = noted.iter().map(|at| runs[*at].clone()).collect();
    for (place, run) in places.into_iter().zip(in_order) {
        runs[place] = run;
    }
    runs
}

/// Reads how a run stands.
#[must_use]
pub fn status(root: &Path, run: &RunId) -> Status {
    // Asked first: a run that ends while its journal is read has then told its end.
    let alive = RunLock::is_alive(root, run).unwrap_or(false);
    let plan = journal::read_plan(root, run);
    let events = journal::read(root, run);
    let mut status = Status {
        run: run.clone(),
        pipeline: plan.as_ref().map(|plan| plan.pipeline.clone()).unwrap_or_default(),
        manifest: plan.as_ref().map(|plan| plan.manifest.clone()).unwrap_or_default(),
        git: plan.as_ref().and_then(|plan| plan.git.clone()),
        options: plan.as_ref().map(|plan| plan.options.clone()).unwrap_or_default(),
        state: if alive { "running" } else { "died" },
        alive,
        began: events.first().map(|told| told.at),
        last: events.last().map(|told| told.at),
        exit: None,
        actions: None,
        jobs: 0,
        settled: 0,
        classes: BTreeMap::new(),
        control: ControlStatus::default(),
        human: BTreeMap::new(),
        marks: BTreeMap::new(),
        steps: steps(plan.as_ref()),
        running: Vec::new(),
        lanes: Vec::new(),
        paused: Vec::new(),
        retries: Vec::new(),
        failures: Vec::new(),
        open: BTreeMap::new(),
        asks_for_retry: false,
    };
    let mut running: BTreeMap<usize, RunningStatus> = BTreeMap::new();
    for told in events {
        status.take(told.event, told.at, &mut running);
    }
    for now in running.values() {
        if let Some(step) = status.steps.iter_mut().find(|step| step.step == now.step) {
            step.running += 1;
            step.waiting = step.waiting.saturating_sub(1);
        }
    }
    status.running = running.into_values().collect();
    status.running.sort_by_key(|running| running.since);
    let cut = status.failures.len().saturating_sub(FAILURES);
    status.failures.drain(..cut);
    status
}

fn steps(plan: Option<&PlanFile>) -> Vec<StepStatus> {
    let steps = plan.map(|plan| plan.steps.as_slice()).unwrap_or_default();
    let step = |(name, count): &(String, usize)| StepStatus {
        step: name.clone(),
        waiting: *count,
        running: 0,
        done: 0,
        left: 0,
        executed: 0,
        failed: 0,
    };
    steps.iter().filter(|(_, count)| *count > 0).map(step).collect()
}

impl Status {
    fn take(&mut self, event: Event, at: Timestamp, running: &mut BTreeMap<usize, RunningStatus>) {
        match event {
            Event::RunStarted { pipeline, jobs, .. } => (self.pipeline, self.jobs) = (pipeline, jobs),
            Event::ActionStarted { node, axes, step, attempt, slots, .. } => {
                self.retries.retain(|retry| retry.node != node);
                running.insert(node, RunningStatus { axes, step, attempt, slots, since: at });
            }
            Event::Disagrees(said) if !said.expected => {
                *self.marks.entry(format!("NONDETERMINISTIC {}", said.step)).or_default() += 1;
            }
            Event::ActionSettled { node, axes, step, cached, outcome, evidence, marks, .. } => {
                running.remove(&node);
                for mark in marks.into_iter().filter(|mark| mark.starts_with("NONDETERMINISTIC ")) {
                    *self.marks.entry(mark).or_default() += 1;
                }
                self.over(&step, false, !cached, !cached && evidence.is_some());
                // What is a result like any other is told by the classes.
                let result = [Cause::NoPatch, Cause::EmptyEdit, Cause::Protected, Cause::TargetNotResolved];
                let failed = !result.iter().any(|cause| cause.name() == outcome);
                if let (true, false, Some(evidence)) = (failed, cached, evidence) {
                    self.failures.push(FailureStatus { axes, step, cause: outcome, evidence, at });
                }
            }
            Event::AttemptFailed { node, axes, step, outcome, evidence, again, used_up, retry_in_ms, .. } => {
                running.remove(&node);
                self.asks_for_retry |= used_up;
                if let Some(at) = retry_in_ms.and_then(|ms| later(at, ms)) {
                    let (axes, step, cause) = (axes.clone(), step.clone(), outcome.clone());
                    self.retries.push(RetryStatus { axes, step, cause, at, node });
                }
                if !again {
                    self.over(&step, true, true, true);
                    let more = if used_up { ", its attempts are used up" } else { "" };
                    *self.open.entry(format!("{step}: {outcome}{more}")).or_default() += 1;
                }
                self.failures.push(FailureStatus { axes, step, cause: outcome, evidence, at });
            }
            Event::AttemptDelayed { node, axes, step, outcome, retry_in_ms, .. } => {
                let retry = |at| RetryStatus { axes, step, cause: outcome, at, node };
                self.retries.extend(later(at, retry_in_ms).map(retry));
            }
            Event::ActionOver { node, step, end, because, held, .. } => {
                running.remove(&node);
                self.over(&step, end != "skipped", false, false);
                // What waits for another action, a lane or a candidate is told by those.
                if end == "open" && held.is_none_or(|held| held.cause.is_none()) && !because.starts_with("waits for ") {
                    self.asks_for_retry |= because.contains("--retry");
                    *self.open.entry(format!("{step}: {because}")).or_default() += 1;
                }
            }
            Event::JobSettled { class, control: true, .. } => {
                let class = Class::ALL.iter().copied().find(|known| known.name() == class);
                self.control.settled += 1;
                self.control.measured += usize::from(class.is_some_and(|class| class.usable() || differs(class)));
                self.control.false_verdicts += usize::from(class.is_some_and(differs));
            }
            Event::JobSettled { job, class, human, marks, .. } => {
                for mark in marks {
                    *self.marks.entry(mark).or_default() += 1;
                }
                self.settled += 1;
                self.human.extend(human.map(|human| (job, human)));
                *self.classes.entry(class).or_default() += 1;
            }
            Event::LaneClosed { lane, cause, evidence, remedy, again_in_ms, .. } => {
                let before =
                    self.lanes.iter().position(|known| known.lane == lane).map(|known| self.lanes.remove(known));
                let since = before.map_or(at, |before| before.since);
                let again = later(at, again_in_ms);
                self.lanes.push(LaneStatus { lane, cause, evidence, remedy, since, again });
            }
            Event::LaneOpened { lane, trial: false, .. } => self.lanes.retain(|known| known.lane != lane),
            Event::Breaker { candidate, cause, evidence, remedy, overridden: false, .. } => {
                self.paused.push(Paused { candidate, cause, evidence, remedy, waiting: 0 });
            }
            Event::RunFinished { actions, exit, lanes, paused, jobs, open, .. } => {
                // Jobs without a class are told by nothing else.
                self.settled = jobs.saturating_sub(open);
                (self.actions, self.exit, self.state) = (Some(actions), Some(exit), "finished");
                self.retries.clear();
                self.paused = paused;
                self.lanes.retain(|known| lanes.iter().any(|left| left.lane == known.lane));
                for left in lanes
                    .into_iter()
                    .filter(|left| !self.lanes.iter().any(|known| known.lane == left.lane))
                    .collect::<Vec<_>>()
                {
                    let (lane, cause, evidence, remedy) = (left.lane, left.cause, left.evidence, left.remedy);
                    self.lanes.push(LaneStatus { lane, cause, evidence, remedy, since: at, again: None });
                }
            }
            Event::Notice { .. }
            | Event::ActionProgress { .. }
            | Event::Disagrees(_)
            | Event::BudgetReached { .. }
            | Event::Draining { .. }
            | Event::LaneOpened { .. }
            | Event::LaneNarrowed { .. }
            | Event::LaneExpires { .. }
            | Event::Breaker { .. } => {}
        }
    }

    fn over(&mut self, step: &str, left: bool, executed: bool, failed: bool) {
        if let Some(step) = self.steps.iter_mut().find(|known| known.step == step) {
            step.waiting = step.waiting.saturating_sub(1);
            step.done += usize::from(!left);
            step.left += usize::from(left);
            step.executed += usize::from(executed);
            step.failed += usize::from(failed);
        }
    }
}

/// A time so many milliseconds after another.
fn later(at: Timestamp, ms: u64) -> Option<Timestamp> {
    at.checked_add(jiff::SignedDuration::from_millis(i64::try_from(ms).ok()?)).ok()
}
