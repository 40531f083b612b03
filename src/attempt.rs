//! Attempts: the immutable facts of which the records consist, one line when an attempt starts and one when it ends.
//!
//! Whether an attempt settles its action is not stored: it is read from the outcome's cause and today's limits.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::{ActionKey, Value};
use crate::names::{AttemptId, Axes, RunId};
use crate::outcome::Outcome;
use crate::process::{Exit, Sandbox};
use crate::units::Usd;

/// One line of a run's record file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "lines are built, written and dropped one at a time")]
pub enum Line {
    /// An attempt began.
    Started(Started),
    /// An attempt ended.
    Ended(Ended),
}

/// That an attempt began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The attempt.
    pub attempt: AttemptId,
    /// The run that started it.
    pub run: RunId,
    /// The action.
    pub key: ActionKey,
    /// The kind of the step.
    pub kind: String,
    /// The step's name in that run's manifest: for people only.
    pub step: String,
    /// What the action was for in that run: for people, and to find the nearest record.
    pub axes: Axes,
    /// When.
    pub at: Timestamp,
    /// The slots it held, as `gpu/0`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub slots: Vec<String>,
    /// The machine.
    pub host: String,
    /// The pipeline that it was for, if it costs money: its budget counts it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pipeline: Option<String>,
    /// What its run reserved for it: what other runs, whose manifests may expect less, have to leave it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reserved: Option<Reserved>,
}

/// What a budget reserves for an attempt before it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The amount, in nano-dollars.
    pub nano_usd: u64,
    /// Whether that is all that was left, because nothing told what it may cost.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub all: bool,
}

impl Reserved {
    /// The amount.
    #[must_use]
    pub fn amount(self) -> Usd {
        Usd(self.nano_usd)
    }

    /// Itself where there is something to record.
    #[must_use]
    pub fn on_record(self) -> Option<Self> {
        (self.nano_usd > 0 || self.all).then_some(self)
    }
}

/// A limit and what of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUse {
    /// The limit that was in force.
    pub limit: u64,
    /// What was used, in the same unit.
    pub used: u64,
    /// Whether the attempt ended because of it.
    pub met: bool,
}

/// How the process of an attempt ended, before anybody reads a meaning into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// How.
    pub exit: Exit,
    /// How long it ran, in milliseconds of the monotonic clock: the attempt without what flow did before and after.
    pub active_ms: u64,
    /// Processor time of all its processes, in milliseconds.
    pub cpu_ms: u64,
    /// Whether it printed more than was kept: a part of what it said is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cut: bool,
    /// The files that it left and that were too long to be kept, by name: `trajectory`, and what the adapter keeps.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unkept: Vec<String>,
}

/// Tokens of an attempt, each counted once: what was read from the provider's cache is not in `input`. `None` is unknown,
/// never 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens that the model read, cached ones apart.
    pub input: Option<u64>,
    /// Tokens that the model wrote, its reasoning among them.
    pub output: Option<u64>,
    /// Tokens that the model read from the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache_read: Option<u64>,
    /// Tokens that were written into the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache_write: Option<u64>,
    /// How many replies of the model they come from, where the agent tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calls: Option<u64>,
    /// Whether the agent rounds what it tells.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub approximate: bool,
    /// Why a figure is unknown, or may be less than was paid for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unknown_because: Option<String>,
    /// The ids of the models that the provider said it answered with, each once.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub models: Vec<String>,
}

impl Usage {
    /// That of an attempt for which no agent began.
    pub const NOTHING: Self = Self {
        input: Some(0),
        output: Some(0),
        cache_read: None,
        cache_write: None,
        calls: None,
        approximate: false,
        unknown_because: None,
        models: Vec::new(),
    };
}

/// That an attempt ended, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The attempt.
    pub attempt: AttemptId,
    /// The run that writes this line.
    pub run: RunId,
    /// The run that had started the attempt, where that is another: it died, and this one adopted what it left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub adopts: Option<RunId>,
    /// The action.
    pub key: ActionKey,
    /// The kind of the step.
    pub kind: String,
    /// The step's name in that run's manifest: for people only.
    pub step: String,
    /// What the action was for in that run: for people, and to find the nearest record.
    pub axes: Axes,
    /// When.
    pub at: Timestamp,
    /// When it began, where a line said so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub began: Option<Timestamp>,
    /// The pipeline that it was for, if it costs money: its budget counts it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pipeline: Option<String>,
    /// What was reserved for it: at the least so much counts what is not known of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reserved: Option<Reserved>,
    /// How long it took, in milliseconds of the monotonic clock.
    pub wall_ms: u64,
    /// What it did.
    pub outcome: Outcome,
    /// What it left for others to read, by role. What is in here can become an ingredient downstream.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub outputs: BTreeMap<String, Value>,
    /// What it left for people: stdout, stderr, trajectories. Never an ingredient.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub logs: BTreeMap<String, Digest>,
    /// The limits that were in force and what of them was used; time in milliseconds, sizes in bytes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub limits: BTreeMap<String, LimitUse>,
    /// Facts worth a warning: `skipped-ignored=3`, `killed-descendants=2`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// How the process of an agent ended: from this, its logs and today's tables its outcome and usage can be read anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<ProcessEnd>,
    /// The tables by which `outcome` and `usage` were read, where they were read by any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_by: Option<Digest>,
    /// Tokens, for an agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The slots it held.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub slots: Vec<String>,
    /// What the kernel held its processes to; nothing was, or nothing was asked for, where it is absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sandbox: Option<Sandbox>,
}
