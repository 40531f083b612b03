//! What a test step stores: every run in order, how it was scheduled, and how results compared; and what that means.
//!
//! `conclude` makes a result of runs and refuses, in this order, a base that disagrees with itself and a patched tree that
//! computes something else; `encode` and `decode` are the blob; `analyse` is the pure reading of it, done anew whenever
//! somebody asks, so that a changed rule re-runs nothing. Does not name classes: the classifier does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::compare::{self, Agreement, Comparison, Equal};
use super::contract::{Contract, Sample};
use super::metric::{Kind, MetricSpec, check_min_effect};
use super::protocol::{Arm, BLOCKS_MAX, Protocol, Turn, WARMUP_MAX};
use super::stats::{self, ALPHA, Effect, Estimate};
use crate::outcome::{Cause, Failure};

/// The number of this format.
pub const FORMAT: u16 = 1;
/// The largest blob that is read, in bytes.
pub const BLOB_MAX: usize = 64 * 1024 * 1024;
/// The most runs of a result.
pub const RUNS_MAX: usize = 4 * BLOCKS_MAX as usize + 2 * WARMUP_MAX as usize;

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
}

impl Note {
    /// Its name, as printed and stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forgeable => "FORGEABLE",
            Self::Unchecked => "UNCHECKED",
            Self::SameTree => "A/A",
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
    /// Every run, warm-ups too, in the order in which they ran.
    pub runs: Vec<Run>,
    /// How the patched tree's results compare with the base's; in a gate, the base's with each other.
    pub comparison: Comparison,
    /// The digest of the base's result, where its script reports one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<String>,
    /// Facts that must stand beside every figure.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub notes: BTreeSet<Note>,
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
/// primary one first; empty stands for the contract's default. `reference` is the digest that an earlier step took of the
/// base's result.
///
/// # Errors
/// NONDETERMINISTIC if base runs disagree with each other, in a count, or with the reference; WRONG_RESULT if a patched run
/// differs from the base; HARNESS_FAULT if there is no run of the base.
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
    let compared = compare::check(&base, &patched, reference, equal)?;
    if let Agreement::Disagree { evidence } = compare::counts_agree(&base, &metrics) {
        return Err(Failure::new(Cause::Nondeterministic, &evidence));
    }
    let reference = base.iter().find_map(|s| s.digest.clone());
    let comparison = if patched.is_empty() && reference.is_some() { Comparison::Same } else { compared };
    let mut notes = BTreeSet::new();
    if runs.iter().any(|r| r.sample.forgeable) {
        notes.insert(Note::Forgeable);
    }
    if comparison == Comparison::Unchecked {
        notes.insert(Note::Unchecked);
    }
    Ok(TestResult { format: FORMAT, contract, protocol, metrics, equal, runs, comparison, reference, notes })
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

/// What one metric's runs mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricAnalysis {
    /// Its name.
    pub name: String,
    /// Whether it is a guard.
    pub guard: bool,
    /// The base's value: the count, or the geometric mean over the blocks' runs, in the script's unit.
    pub base: Option<f64>,
    /// The patched tree's.
    pub patched: Option<f64>,
    /// How much better the patched tree is, a ratio; above 1 is better. Absent where there is none.
    pub speedup: Option<f64>,
    /// The statistics; absent for a count, or for fewer than two whole blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// What that means under the metric's least effect.
    pub effect: Effect,
}

/// What all metrics together mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Verdict {
    /// The primary metric is better, and no guard is worse.
    Improvement,
    /// The primary metric is as good.
    Neutral,
    /// The primary metric is worse.
    Regression,
    /// The primary metric is better, but a guard is worse.
    Mixed,
    /// Of the primary metric none of these can be said.
    Inconclusive {
        /// How many blocks in all would settle it, as far as that can be told.
        needed_blocks: Option<u32>,
    },
}

/// What a test result means.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// Each metric, the primary one first.
    pub metrics: Vec<MetricAnalysis>,
    /// The primary metric's effect.
    pub effect: Effect,
    /// All metrics together.
    pub verdict: Verdict,
    /// The primary metric's speed-up, a ratio; above 1 is better.
    pub speedup: Option<f64>,
    /// Its 95 % interval.
    pub ci: Option<[f64; 2]>,
    /// Both for people: `1.34x [1.30, 1.38] 5 blocks`, or `2.00x exact`.
    pub text: String,
    /// Words that must stand beside the figure: FORGEABLE, UNCHECKED, A/A, POST-HOC, SIGN-FLIP-DISAGREES, and with a metric
    /// behind them NOT-EXACT and GUARD-REGRESSED.
    pub marks: Vec<String>,
}

/// Reads a result. `judge_min_effect`, a fraction, judges the primary metric by another least effect than the one declared
/// before it was measured, and marks that POST-HOC; guards keep their own.
///
/// MIXED is said only of a primary metric that improves; a guard that gets worse beside a neutral primary metric is marked.
#[must_use]
pub fn analyse(result: &TestResult, judge_min_effect: Option<f64>) -> Analysis {
    let mut marks: Vec<String> = result.notes.iter().map(|n| n.name().to_owned()).collect();
    let counted = result.metrics.first().is_some_and(|m| m.kind == Kind::Count);
    let mut metrics = Vec::with_capacity(result.metrics.len());
    for (i, spec) in result.metrics.iter().enumerate() {
        let min_effect = judge_min_effect.filter(|_| i == 0).unwrap_or(spec.min_effect);
        if i == 0 && min_effect.total_cmp(&spec.min_effect).is_ne() {
            marks.push("POST-HOC".to_owned());
        }
        let spec = MetricSpec { min_effect, ..spec.clone() };
        let analysis = match spec.kind {
            Kind::Count => count(result, &spec),
            Kind::Time => time(result, &spec, counted),
        };
        if spec.kind == Kind::Count && matches!(analysis.effect, Effect::Inconclusive { .. }) {
            marks.push(format!("NOT-EXACT {}", spec.name));
        }
        if i == 0 && flips_disagree(&analysis) {
            marks.push("SIGN-FLIP-DISAGREES".to_owned());
        }
        if i > 0 && spec.guard && analysis.effect == Effect::Regression {
            marks.push(format!("GUARD-REGRESSED {}", spec.name));
        }
        metrics.push(analysis);
    }
    let guard_worse = metrics.iter().skip(1).any(|m| m.guard && m.effect == Effect::Regression);
    let primary = metrics.first();
    let effect = primary.map_or(Effect::Inconclusive { needed_blocks: None }, |m| m.effect);
    let verdict = match effect {
        Effect::Improvement if guard_worse => Verdict::Mixed,
        Effect::Improvement => Verdict::Improvement,
        Effect::Regression => Verdict::Regression,
        Effect::Neutral => Verdict::Neutral,
        Effect::Inconclusive { needed_blocks } => Verdict::Inconclusive { needed_blocks },
    };
    let estimate = primary.and_then(|m| m.estimate);
    let speedup = primary.and_then(|m| m.speedup);
    let text = speedup_text(speedup, estimate.as_ref(), counted);
    Analysis { effect, verdict, speedup, ci: estimate.map(|e| [e.low, e.high]), text, marks, metrics }
}

/// The values of a metric by block, base and patched, without warm-ups.
fn blocks(result: &TestResult, name: &str) -> BTreeMap<u32, (Vec<f64>, Vec<f64>)> {
    let mut blocks: BTreeMap<u32, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for run in result.runs.iter().filter(|r| !r.turn.warmup) {
        let Some(&value) = run.sample.metrics.get(name) else { continue };
        let block = blocks.entry(run.turn.block).or_default();
        match run.turn.arm {
            Arm::Base => block.0.push(value),
            Arm::Patched => block.1.push(value),
        }
    }
    blocks
}

fn count(result: &TestResult, spec: &MetricSpec) -> MetricAnalysis {
    let (base, patched): (Vec<_>, Vec<_>) = blocks(result, &spec.name).into_values().unzip();
    let (base, patched) = (base.concat(), patched.concat());
    let (effect, speedup) = stats::judge_count(&base, &patched, spec);
    let (base, patched) = (base.first().copied(), patched.first().copied());
    MetricAnalysis { name: spec.name.clone(), guard: spec.guard, base, patched, speedup, estimate: None, effect }
}

/// Only whole blocks count: half of a mirrored block is not mirrored.
fn time(result: &TestResult, spec: &MetricSpec, counted: bool) -> MetricAnalysis {
    let whole = if counted { 2 } else { result.protocol.runs_per_arm() };
    let mut blocks = blocks(result, &spec.name);
    blocks.retain(|_, (base, patched)| base.len() == whole && patched.len() == whole);
    let ratios: Vec<f64> =
        blocks.values().filter_map(|(base, patched)| stats::block_log_ratio(base, patched, spec.better)).collect();
    let (base, patched): (Vec<_>, Vec<_>) = blocks.into_values().unzip();
    let estimate = stats::estimate(&ratios);
    let effect =
        estimate.as_ref().map_or(Effect::Inconclusive { needed_blocks: None }, |e| stats::judge(e, spec.min_effect));
    MetricAnalysis {
        name: spec.name.clone(),
        guard: spec.guard,
        base: geometric_mean(&base.concat()),
        patched: geometric_mean(&patched.concat()),
        speedup: estimate.map(|e| e.speedup),
        estimate,
        effect,
    }
}

fn geometric_mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp())
}

/// Whether the interval says that there is an effect and the permutation test, as far as so few blocks let it, says that
/// there is none (harnesses.md 2.4 point 6: a flag, not a choice).
fn flips_disagree(analysis: &MetricAnalysis) -> bool {
    let Some(Estimate { n, p_signflip: Some(p), .. }) = analysis.estimate else { return false };
    let least = 0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX) - 1);
    let says = matches!(analysis.effect, Effect::Improvement | Effect::Regression);
    says && p > ALPHA.max(least) + 1e-9
}

fn speedup_text(speedup: Option<f64>, estimate: Option<&Estimate>, counted: bool) -> String {
    match (speedup, estimate) {
        (Some(_), Some(e)) => {
            format!("{}x [{}, {}] {} blocks", Ratio(e.speedup), Ratio(e.low), Ratio(e.high), e.n)
        }
        (Some(ratio), None) if counted => format!("{}x exact", Ratio(ratio)),
        _ => "no ratio".to_owned(),
    }
}

/// A ratio with about three digits: `0.049`, `1.34`, `12.3`, `850`.
#[derive(Clone, Copy, Debug)]
pub struct Ratio(pub f64);

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.0;
        let text = match ratio {
            r if !(0.0005..1e6).contains(&r) => format!("{r:.1e}"),
            r if r >= 99.95 => format!("{r:.0}"),
            r if r >= 9.995 => format!("{r:.1}"),
            r if r >= 0.0995 => format!("{r:.2}"),
            r => format!("{r:.3}"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
