//! How a run stands: a pure function of what its folder holds, while it works, after its end and after its death.
//!
//! Reads the journal and the plan's digest, never the records: it says what the run told, not what is settled in the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::event::{Counts, Event};
use crate::names::{AttemptId, Axes, RunId};
use crate::plan::point_name;
use crate::run::journal::{self, PlanFile};
use crate::store::RunLock;
use crate::text::{Table, short_digests, shorten, wrap};
use crate::units::human_span;

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
    /// Its steps in the manifest's order.
    pub steps: Vec<StepStatus>,
    /// What runs; after a death, what ran then.
    pub running: Vec<RunningStatus>,
    /// The last failures, the newest last.
    pub failures: Vec<FailureStatus>,
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
    /// Over, one way or another.
    pub done: usize,
    /// Of those over, executed by this run.
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

/// The runs of a store, the newest first.
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
    found.into_iter().map(|(_, _, run)| run).collect()
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
        state: if alive { "running" } else { "died" },
        alive,
        began: events.first().map(|told| told.at),
        last: events.last().map(|told| told.at),
        exit: None,
        actions: None,
        jobs: 0,
        settled: 0,
        classes: BTreeMap::new(),
        steps: steps(plan.as_ref()),
        running: Vec::new(),
        failures: Vec::new(),
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
                running.insert(node, RunningStatus { axes, step, attempt, slots, since: at });
            }
            Event::ActionSettled { node, axes, step, cached, outcome, evidence, .. } => {
                running.remove(&node);
                self.over(&step, !cached, !cached && evidence.is_some());
                if let (false, Some(evidence)) = (cached, evidence) {
                    self.failures.push(FailureStatus { axes, step, cause: outcome, evidence, at });
                }
            }
            Event::AttemptFailed { node, axes, step, outcome, evidence, again, .. } => {
                running.remove(&node);
                if !again {
                    self.over(&step, true, true);
                }
                self.failures.push(FailureStatus { axes, step, cause: outcome, evidence, at });
            }
            Event::ActionOver { step, .. } => self.over(&step, false, false),
            Event::JobSettled { class, .. } => {
                self.settled += 1;
                *self.classes.entry(class).or_default() += 1;
            }
            Event::RunFinished { actions, exit, .. } => {
                (self.actions, self.exit, self.state) = (Some(actions), Some(exit), "finished");
            }
            Event::Notice { .. } | Event::BudgetReached { .. } | Event::Draining { .. } => {}
        }
    }

    fn over(&mut self, step: &str, executed: bool, failed: bool) {
        if let Some(step) = self.steps.iter_mut().find(|known| known.step == step) {
            step.waiting = step.waiting.saturating_sub(1);
            step.done += 1;
            step.executed += usize::from(executed);
            step.failed += usize::from(failed);
        }
    }

    /// The status for people; `now` is the time that it is read.
    #[must_use]
    pub fn text(&self, now: Timestamp, width: usize) -> String {
        let mut text = String::new();
        let pipeline = if self.pipeline.is_empty() { String::new() } else { format!(" of {}", self.pipeline) };
        text.push_str(&format!("run {}{pipeline}: {}\n", self.run, self.headline()));
        if !self.manifest.as_os_str().is_empty() {
            text.push_str(&format!("  manifest  {}\n", self.manifest.display()));
        }
        if let Some(began) = self.began {
            let end = if self.state == "running" { now } else { self.last.unwrap_or(began) };
            let word = if self.state == "running" { "for" } else { "took" };
            text.push_str(&format!("  began     {}, {word} {}\n", clock(began, now), span(began, end)));
        }
        if self.state == "died" {
            let again = format!(
                "  It ended without saying so: killed, or the machine went down. Nothing that was settled is lost. Run \
                 `flow run {}` again: it goes on where this one was.",
                self.manifest.display()
            );
            text.push_str(&format!("{}\n", wrap(&again, width - 2).join("\n  ").replacen("It", "  It", 1)));
        }
        self.table(&mut text);
        self.tell_running(&mut text, now, width);
        text.push_str(&format!("\n{} of {} jobs settled\n", self.settled, self.jobs));
        let mut classes: Vec<(&String, &usize)> = self.classes.iter().collect();
        classes.sort_by_key(|(class, count)| (std::cmp::Reverse(**count), (*class).clone()));
        for (class, count) in classes {
            text.push_str(&format!("  {count:>4}  {class}\n"));
        }
        if !self.failures.is_empty() {
            text.push_str("\nlast failures\n");
        }
        for failure in &self.failures {
            let lead = format!("  {}  {}: ", title(&failure.axes, &failure.step), failure.cause);
            let lines = wrap(&short_digests(&format!("{lead}{}", failure.evidence)), width - 4);
            text.push_str(&format!("  {}\n", lines.join("\n    ")));
        }
        text
    }

    fn headline(&self) -> String {
        match (self.state, self.exit) {
            ("running", _) if self.began.is_none() => "is making its plan".to_owned(),
            ("running", _) => "running".to_owned(),
            ("died", _) => "died".to_owned(),
            (_, Some(0)) => "finished, exit 0: all jobs are settled".to_owned(),
            (_, Some(130)) => "stopped by somebody, exit 130: the same command goes on".to_owned(),
            (_, Some(exit)) => format!("finished, exit {exit}: some jobs are not settled"),
            (_, None) => "finished".to_owned(),
        }
    }

    fn table(&self, text: &mut String) {
        if self.steps.is_empty() {
            return;
        }
        let mut table = Table::new(&["step", "waiting", "running", "done", "of them executed", "failed"]).right(1..6);
        let figure = |count: usize| if count == 0 { ".".to_owned() } else { count.to_string() };
        for step in &self.steps {
            let figures = [step.waiting, step.running, step.done, step.executed, step.failed].map(figure);
            table.row(std::iter::once(step.step.clone()).chain(figures).collect());
        }
        text.push_str(&format!("\n{}", table.text()));
    }

    fn tell_running(&self, text: &mut String, now: Timestamp, width: usize) {
        if self.running.is_empty() {
            return;
        }
        text.push_str(if self.state == "running" { "\nrunning now\n" } else { "\nunder way when it ended\n" });
        for running in &self.running {
            let on =
                if running.slots.is_empty() { String::new() } else { format!("on {}, ", running.slots.join(", ")) };
            let since = format!("{on}since {}", clock(running.since, now));
            let lasts = if self.state == "running" { format!(", {}", span(running.since, now)) } else { String::new() };
            let room = width.saturating_sub(since.len() + lasts.len() + 4);
            text.push_str(&format!("  {}  {since}{lasts}\n", shorten(&title(&running.axes, &running.step), room)));
        }
    }
}

/// What a message calls an action.
#[must_use]
pub fn title(axes: &Axes, step: &str) -> String {
    let point = point_name(axes);
    if point.is_empty() { step.to_owned() } else { format!("{point} {step}") }
}

/// How long it was from one time to another.
#[must_use]
pub fn span(from: Timestamp, to: Timestamp) -> String {
    human_span(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

/// A time of this machine's clock on the wall: only the time of day if it is today.
#[must_use]
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let zone = jiff::tz::TimeZone::system();
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let today = at.date() == now.date();
    at.strftime(if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}
