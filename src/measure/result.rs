//! What a test step stores: every run in order, how it was scheduled, and how results compared; and what that means.
//!
//! `conclude` makes a result of runs and refuses, in this order, a base that disagrees with itself and a patched tree that
//! computes something else; `encode` and `decode` are the blob. What it means is read by `analysis`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::compare::{self, Agreement, Comparison};
use super::contract::{Contract, Sample};
use super::course::Stop;
use super::equal::Equal;
use super::guard::{DROPPED_MAX, Guarded};
use super::metric::{MetricSpec, check_min_effect};
use super::protocol::{Arm, BLOCKS_MAX, Protocol, Turn, WARMUP_MAX};
use crate::digest::Digest;
use crate::outcome::{Cause, Failure};

/// The number of this format.
pub const FORMAT: u16 = 1;
/// The largest blob that is read, in bytes.
pub const BLOB_MAX: usize = 64 * 1024 * 1024;
/// The most runs of a result.
pub const RUNS_MAX: usize = 6 * (BLOCKS_MAX + DROPPED_MAX) as usize + 3 * WARMUP_MAX as usize;

/// One run of a schedule and what it measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its arm, its block, and whether it is a warm-up.
    #[serde(flatten)]
    pub turn: Turn,
    /// What it measured.
    pub sample: Sample,
}

/// A fact that must stand beside every figure of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Note {
    /// The tested tree could have written the result itself.
    #[serde(rename = "FORGEABLE")]
    Forgeable,
    /// No result was compared: whether the patched tree is right is not known.
    #[serde(rename = "UNCHECKED")]
    Unchecked,
    /// Both arms are the base tree.
    #[serde(rename = "A/A")]
    SameTree,
    /// A check of the repository's own fails in the base already: it was left out.
    #[serde(rename = "CHECK-IGNORED")]
    CheckIgnored,
    /// The human's tree could not be measured, or computes something else than the base: nothing is said against it.
    #[serde(rename = "HUMAN-FAILED")]
    HumanFailed,
    /// It continues an earlier measurement: its blocks are of more than one session.
    #[serde(rename = "EXTENDED")]
    Extended,
    /// Each tree's processes began with what its own warm-ups had left in its compile caches.
    #[serde(rename = "CACHES_KEPT")]
    CachesKept,
}

impl Note {
    /// Its name, as printed and stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forgeable => "FORGEABLE",
            Self::Unchecked => "UNCHECKED",
            Self::SameTree => "A/A",
            Self::CheckIgnored => "CHECK-IGNORED",
            Self::HumanFailed => "HUMAN-FAILED",
            Self::Extended => "EXTENDED",
            Self::CachesKept => "CACHES_KEPT",
        }
    }
}

/// What a test step measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The number of the format, `FORMAT`.
    pub format: u16,
    /// How the script reports.
    pub contract: Contract,
    /// How it was scheduled.
    pub protocol: Protocol,
    /// What was measured, the primary metric first; never empty.
    pub metrics: Vec<MetricSpec>,
    /// By which rule results were compared.
    pub equal: Equal,
    /// Every run, warm-ups and dropped blocks too, in the order in which they ran.
    pub runs: Vec<Run>,
    /// How the patched tree's results compare with the base's; in a gate, the base's with each other.
    pub comparison: Comparison,
    /// What the base's result is, for a later step to hold its own base runs against: the digest, or what stands for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<String>,
    /// Facts that must stand beside every figure.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub notes: BTreeSet<Note>,
    /// Why no more was run; absent of a gate, and of what an older flow stored.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopped: Option<Stop>,
    /// What was seen of the machine in each block; absent of a gate, of exact counts, and of what an older flow stored.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub guarded: Option<Guarded>,
    /// What each arm's warm-ups left in its compile caches; empty where none were kept.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub caches: BTreeMap<Arm, Kept>,
}

/// What the compile caches of an arm held when each of its processes began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of the listing: kind, permissions, size and path of each entry.
    pub listing: Digest,
    /// Entries that were not kept: links that lead out, and what is neither file nor folder.
    #[serde(skip_serializing_if = "is_none", default)]
    pub left_out: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The bytes are not a test result.
#[derive(Debug, thiserror::Error)]
pub enum BadResult {
    /// More bytes than any result has.
    #[error("{0} bytes are too many for a test result")]
    TooLarge(usize),
    /// Not the JSON of one.
    #[error("it is not the JSON of a test result: {0}")]
    Json(#[from] serde_json::Error),
    /// Another format.
    #[error("its format is {0}, this flow reads {FORMAT}")]
    Format(u16),
    /// Something in it cannot be.
    #[error("{0}")]
    Flaw(String),
}

/// Makes a result of all runs of a schedule, or of a gate where no patched run is among them. `metrics` are the test's, the
/// primary one first; empty stands for the contract's default. `reference` is what an earlier step took of the base's result.
///
/// # Errors
/// NONDETERMINISTIC if base runs disagree with each other, in a count, or with the reference; WRONG_RESULT if a patched run
/// differs from the base, or did other work; HARNESS_FAULT if there is no run of the base.
pub fn conclude(
    contract: Contract,
    protocol: Protocol,
    metrics: &[MetricSpec],
    equal: Equal,
    runs: Vec<Run>,
    reference: Option<&str>,
) -> Result<TestResult, Failure> {
    let metrics = if metrics.is_empty() { vec![contract.default_metric()] } else { metrics.to_vec() };
    let of = |arm: Arm| runs.iter().filter(|r| r.turn.arm == arm).map(|r| r.sample.clone()).collect::<Vec<_>>();
    let (base, patched) = (of(Arm::Base), of(Arm::Patched));
    if base.is_empty() {
        return Err(Failure::new(Cause::HarnessFault, "a test without a run of the base"));
    }
    let compared = compare::check(&base, &patched, reference, equal, &metrics)?;
    let reference = match compare::base_agrees(&base, equal) {
        Agreement::Agree { reference } => Some(reference),
        Agreement::Disagree { .. } | Agreement::Unchecked => None,
    };
    let comparison = if patched.is_empty() && reference.is_some() { Comparison::Same } else { compared };
    let mut notes = BTreeSet::new();
    let human = of(Arm::Human);
    let differs = matches!(compare::compare(&base, &human, equal), Comparison::Differs { .. });
    if differs || compare::same_work(&base, &human, &metrics).is_err() {
        notes.insert(Note::HumanFailed);
    }
    if runs.iter().any(|r| r.sample.forgeable) {
        notes.insert(Note::Forgeable);
    }
    if comparison == Comparison::Unchecked {
        notes.insert(Note::Unchecked);
    }
    Ok(TestResult {
        format: FORMAT,
        contract,
        protocol,
        metrics,
        equal,
        runs,
        comparison,
        reference,
        notes,
        stopped: None,
        guarded: None,
        caches: BTreeMap::new(),
    })
}

impl TestResult {
    /// The blob's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|error| unreachable!("a test result is plain data: {error}"))
    }

    /// Reads a blob back, and checks what `analyse` relies on.
    ///
    /// # Errors
    /// If the bytes are not a test result of this format.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadResult> {
        if bytes.len() > BLOB_MAX {
            return Err(BadResult::TooLarge(bytes.len()));
        }
        let result: Self = serde_json::from_slice(bytes)?;
        if result.format != FORMAT {
            return Err(BadResult::Format(result.format));
        }
        let flaw = |text: String| Err(BadResult::Flaw(text));
        if result.metrics.is_empty() {
            return flaw("it has no metric".to_owned());
        }
        if result.runs.len() > RUNS_MAX {
            return flaw(format!("{} runs are too many for a test result", result.runs.len()));
        }
        for (i, metric) in result.metrics.iter().enumerate() {
            if result.metrics[..i].iter().any(|m| m.name == metric.name) {
                return flaw(format!("it has the metric `{}` twice", metric.name));
            }
            if let Err(error) = check_min_effect(metric.min_effect) {
                return flaw(error.to_string());
            }
            if result.runs.iter().any(|r| !r.sample.metrics.contains_key(&metric.name)) {
                return flaw(format!("a run is without the metric `{}`", metric.name));
            }
        }
        Ok(result)
    }
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
