//! Events: what a run tells. One enum; the journal, the progress on screen and `--json` are readers of it.
//!
//! Only the record files say what happened to an action. An event is news, never the truth.

mod files;
mod reason;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::ActionKey;
use crate::names::{AttemptId, Axes, JobId, RunId};
use crate::outcome::Owner;

pub use files::GitState;
pub use reason::{Compared, Reason};

/// An event and when it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// What.
    #[serde(flatten)]
    pub event: Event,
    /// When.
    pub at: Timestamp,
}

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The plan is made and the run begins.
    RunStarted {
        /// The run.
        run: RunId,
        /// The pipeline's name.
        pipeline: String,
        /// The manifest's path.
        manifest: String,
        /// How many jobs.
        jobs: usize,
        /// How many actions.
        actions: usize,
        /// How the manifest stood in its project's repository; absent if it lies in none.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        git: Option<GitState>,
    },
    /// Something worth saying to a person.
    Notice {
        /// What.
        text: String,
    },
    /// An attempt begins.
    ActionStarted {
        /// The action's number in the plan.
        node: usize,
        /// Its key.
        key: ActionKey,
        /// Its point.
        axes: Axes,
        /// Its step.
        step: String,
        /// The attempt.
        attempt: AttemptId,
        /// What it holds.
        slots: Vec<String>,
        /// Why it is executed.
        why: Reason,
    },
    /// A build is under way, and what it printed last. Told to who watches and not kept.
    ActionProgress {
        /// The action's number in the plan.
        node: usize,
        /// Its point.
        axes: Axes,
        /// Its step.
        step: String,
        /// The last line, without secrets and control characters.
        line: String,
        /// How long it has been at work, in milliseconds.
        wall_ms: u64,
    },
    /// An action is settled; its record is durable.
    ActionSettled {
        /// The action's number in the plan.
        node: usize,
        /// Its key.
        key: ActionKey,
        /// Its point.
        axes: Axes,
        /// Its step.
        step: String,
        /// The attempt that speaks for it.
        attempt: AttemptId,
        /// Whether that attempt was there before.
        cached: bool,
        /// The action of this run that executed it, where two have one key.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        shared_with: Option<usize>,
        /// `SUCCEEDED` or the cause.
        outcome: String,
        /// The line that shows a failure.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        evidence: Option<String>,
        /// How long the attempt took.
        wall_ms: u64,
        /// Facts worth a warning, such as `OVER_LIMIT`.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        marks: Vec<String>,
        /// Why an attempt of another key serves it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        because: Option<String>,
        /// The nearest actions upstream that this run executed, where the action was served all the same: what it reads came out
        /// as an earlier attempt had it.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        follows: Vec<usize>,
    },
    /// An attempt ended without settling its action.
    AttemptFailed {
        /// The action's number in the plan.
        node: usize,
        /// Its point.
        axes: Axes,
        /// Its step.
        step: String,
        /// The attempt.
        attempt: AttemptId,
        /// The cause.
        outcome: String,
        /// The line that shows it.
        evidence: String,
        /// Whether it is tried again in this run, as far as its lane lets it.
        again: bool,
        /// Whether that was the last attempt that its step allows: another is made only where somebody asks.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        used_up: bool,
        /// After how long, where it waits a while before.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        retry_in_ms: Option<u64>,
    },
    /// An agent does not begin yet: an attempt of an earlier run was asked for patience, or what flow waits after it is not over.
    AttemptDelayed {
        /// The action's number in the plan.
        node: usize,
        /// Its point.
        axes: Axes,
        /// Its step.
        step: String,
        /// That attempt.
        attempt: AttemptId,
        /// Its cause.
        outcome: String,
        /// The line that shows it.
        evidence: String,
        /// After how long it is tried again.
        retry_in_ms: u64,
    },
    /// Nothing can come of another call: no agent of this lane begins until it opens.
    LaneClosed {
        /// The provider, or `candidate NAME` for one whose model has none.
        lane: String,
        /// The cause.
        cause: String,
        /// The line that shows it.
        evidence: String,
        /// What to do, in words.
        remedy: String,
        /// How many agents that were under way are stopped. Their attempts are not counted; what they used stays in the ledger.
        stopped: usize,
        /// How often it was tried in vain since the lane closed.
        tries: u32,
        /// When it is tried again, if the run still works then.
        again_in_ms: u64,
    },
    /// A closed lane lets agents begin again.
    LaneOpened {
        /// The lane.
        lane: String,
        /// Whether one agent goes first, to try.
        trial: bool,
        /// How long it was closed.
        after_ms: u64,
    },
    /// The provider asked for patience: fewer agents at once for a while.
    LaneNarrowed {
        /// The lane.
        lane: String,
        /// So many at once.
        width: usize,
    },
    /// A job is not begun: it could not be done before the credential expires.
    LaneExpires {
        /// The lane.
        lane: String,
        /// When the credential expires.
        until: Timestamp,
        /// How long an agent of this candidate may take.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        expected_ms: Option<u64>,
    },
    /// A candidate's agents fail alike: no more of them begin, unless a person said to go on.
    Breaker {
        /// The candidate.
        candidate: String,
        /// The cause.
        cause: String,
        /// So many ends were of it …
        count: usize,
        /// … of so many looked at.
        of: usize,
        /// Whether these were its first jobs.
        canary: bool,
        /// The line that shows the last of them.
        evidence: String,
        /// What to do, in words.
        remedy: String,
        /// Whether `--continue` lets it go on.
        overridden: bool,
    },
    /// An action is over without an attempt that speaks for it.
    ActionOver {
        /// The action's number in the plan.
        node: usize,
        /// Its point.
        axes: Axes,
        /// Its step.
        step: String,
        /// `skipped`, `blocked` or `open`.
        end: String,
        /// Why.
        because: String,
        /// The nearest actions upstream that this run executed.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        follows: Vec<usize>,
        /// Whose doing that is and what to do, where something other than the action's own attempts keeps it from beginning.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        held: Option<Held>,
    },
    /// The class of a job is known.
    JobSettled {
        /// The job.
        job: JobId,
        /// Its class.
        class: String,
        /// Base over patched, where it was measured.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        speedup: Option<f64>,
        /// What has to stand beside it, such as UNCHECKED.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        marks: Vec<String>,
        /// Whether an earlier run had said so.
        #[serde(default)]
        cached: bool,
        /// Whether it is an A/A control.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        control: bool,
        /// How it compares with the human's change, where the same session measured that.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        human: Option<Against>,
    },
    /// An amount of the manifest's `budget` keeps an agent from beginning. Told once for each amount, and once for each job that
    /// came to `per-job`.
    BudgetReached {
        /// `budget`, `per-run` or `per-job`.
        limit: String,
        /// The action, where it is one action's amount.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        job: Option<String>,
        /// The amount, in dollars.
        limit_usd: f64,
        /// What is spent of it.
        spent_usd: f64,
        /// What is reserved for agents at work.
        reserved_usd: f64,
        /// What the next attempt may cost.
        needed_usd: f64,
        /// All of that in words, and what to raise.
        because: String,
    },
    /// An action was executed twice under one key and came out otherwise. The earlier attempt speaks for it.
    Disagrees(Disagreement),
    /// Somebody asked the run to stop.
    Draining {
        /// What is still running.
        running: usize,
    },
    /// The run is over.
    RunFinished {
        /// The run.
        run: RunId,
        /// How many jobs, the A/A controls not counted.
        jobs: usize,
        /// How many A/A controls.
        #[serde(skip_serializing_if = "is_zero", default)]
        controls: usize,
        /// How many actions, by what became of them.
        actions: Counts,
        /// How many jobs of each class; those not settled are `NOT_RUN` or provisional and counted in `open`.
        classes: std::collections::BTreeMap<String, usize>,
        /// How many jobs are not settled.
        open: usize,
        /// The lanes that are closed, or whose credential expires too soon, with actions that wait for them.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        lanes: Vec<ShutLane>,
        /// The candidates that are paused.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        paused: Vec<Paused>,
        /// The actions that came out otherwise than before, though they should not: NONDETERMINISTIC.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        disagreements: Vec<Disagreement>,
        /// How many actions were executed again to see whether they come out the same.
        #[serde(skip_serializing_if = "is_zero", default)]
        rechecked: usize,
        /// The exit code.
        exit: i32,
    },
}

/// What keeps an action from beginning though nothing of its own does: a budget, a closed lane, the pause of its candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The name of the cause, where it is one of the table's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<String>,
    /// Who has to act.
    pub owner: Owner,
    /// What keeps it.
    pub evidence: String,
    /// What to do, in words.
    pub next: String,
}

impl Held {
    /// Both in one line.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}; {}", self.evidence, self.next)
    }
}

/// How a job compares with the human's change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// BEATS, MATCHES, PARTIAL, BELOW or UNSETTLED.
    pub says: String,
    /// How much better it is than the human's, a ratio; above 1 is better.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ratio: Option<f64>,
    /// `same session`: no other is told here.
    pub measured: String,
}

/// Two attempts of one key that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// The action's point.
    pub axes: Axes,
    /// Its step.
    pub step: String,
    /// Its key.
    pub key: ActionKey,
    /// The attempt that speaks for it.
    pub earlier: AttemptId,
    /// The one that does not.
    pub later: AttemptId,
    /// In what they disagree: outputs by name, or `outcome`.
    pub outputs: Vec<String>,
    /// Whether that is no surprise: an agent draws, a test measures.
    pub expected: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A lane for which actions still wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutLane {
    /// The provider, or `candidate NAME` for one whose model has none.
    pub lane: String,
    /// The cause.
    pub cause: String,
    /// The line that shows it.
    pub evidence: String,
    /// What to do, in words.
    pub remedy: String,
    /// How many agents wait for it.
    pub waiting: usize,
}

/// A candidate of which no more is begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The candidate.
    pub candidate: String,
    /// The cause.
    pub cause: String,
    /// The line that shows it.
    pub evidence: String,
    /// What to do, in words.
    pub remedy: String,
    /// How many of its agents are not begun.
    pub waiting: usize,
}

/// How many actions came to what. `total` is the sum of the five after it; `failed` is counted within `executed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub total: usize,
    /// Executed in this run.
    pub executed: usize,
    /// Served by an attempt that was there, or by another action of this run with the same key.
    pub cached: usize,
    /// Served across versions.
    pub reused: usize,
    /// Not to be run.
    pub skipped: usize,
    /// Could not be run.
    pub blocked: usize,
    /// Executed and failed.
    pub failed: usize,
    /// Of those, how many settled nothing.
    #[serde(default)]
    pub unsettled: usize,
    /// Attempts that settled nothing: also of actions that another attempt settled, or that were left for a later run.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub attempts_lost: usize,
}
