//! Attempts as they are told: each in short, what a step was compared with, and two of one key that came out otherwise.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::attempt::Ended;
use crate::event::{Compared, Disagreement};
use crate::key::{ActionKey, Change, Value};
use crate::manifest::Kind;
use crate::names::{AttemptId, RunId};
use crate::run::recheck::{disagreements, is_pure};
use crate::store::Index;
use crate::why::change::{Blobs, Shown};

/// An attempt in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptSaid {
    /// Its id.
    pub attempt: AttemptId,
    /// The run that recorded its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// When it ended.
    pub at: Timestamp,
    /// How long that is ago, in seconds.
    pub age_s: i64,
    /// How long it took, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// `SUCCEEDED` or the cause.
    pub outcome: String,
    /// The line that shows a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

impl AttemptSaid {
    /// Of a record.
    #[must_use]
    pub fn of(ended: &Ended, now: Timestamp) -> Self {
        Self {
            attempt: ended.attempt.clone(),
            run: Some(ended.run.clone()),
            at: ended.at,
            age_s: age(ended.at, now),
            wall_ms: Some(ended.wall_ms),
            outcome: ended.outcome.word().to_owned(),
            evidence: ended.outcome.failure().map(|failure| failure.evidence.as_str().to_owned()),
        }
    }

    /// Its age as a duration.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_secs(self.age_s.unsigned_abs())
    }
}

/// What a step was compared with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedSaid {
    /// What.
    #[serde(flatten)]
    pub with: Compared,
    /// How long ago that run began, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<i64>,
}

impl ComparedSaid {
    /// As it is told now.
    #[must_use]
    pub fn of(with: Compared, now: Timestamp) -> Self {
        Self { age_s: with.at.map(|at| age(at, now)), with }
    }
}

/// Seconds from one time to another, 0 for one of a clock that runs ahead.
#[must_use]
pub fn age(at: Timestamp, now: Timestamp) -> i64 {
    (now.as_second() - at.as_second()).max(0)
}

/// Two attempts of one key that came out otherwise, and what differs in their outputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Disagreed {
    /// Which, and in what.
    #[serde(flatten)]
    pub said: Disagreement,
    /// What differs in each output, the earlier attempt's as the old.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Shown>,
}

/// Lines of what differs in an output of two attempts.
const DIFFERS: usize = 12;

/// The attempts of a key that came out otherwise than the first that settled it; with what differs, where the outputs are at hand.
#[must_use]
pub fn disagree(key: &ActionKey, index: &Index, blobs: Option<&Blobs<'_>>) -> Vec<Disagreed> {
    let all = index.attempts(key).unwrap_or_default();
    if all.len() < 2 {
        return Vec::new();
    }
    let Some(first) = all.iter().find(|ended| ended.outcome.settles()) else { return Vec::new() };
    let pure = Kind::ALL.iter().any(|kind| kind.word() == first.kind && is_pure(*kind));
    let told = disagreements(all.iter().map(AsRef::as_ref)).into_iter().map(|(later, outputs)| {
        let differs = outputs.iter().zip(blobs.filter(|_| pure).into_iter().cycle()).map(|(name, blobs)| {
            let output = |ended: &Ended| match name.as_str() {
                "outcome" => Some(Value::text(ended.outcome.word())),
                name => ended.outputs.get(name).cloned(),
            };
            let change = Change { ingredient: name.clone(), old: output(first), new: output(later) };
            Shown::of(&change, blobs, DIFFERS)
        });
        let differs = differs.collect();
        let said = Disagreement {
            axes: later.axes.clone(),
            step: later.step.clone(),
            key: *key,
            earlier: first.attempt.clone(),
            later: later.attempt.clone(),
            outputs,
            expected: !pure,
        };
        Disagreed { said, differs }
    });
    told.collect()
}
