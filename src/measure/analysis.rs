//! What a stored result means: a pure function of samples, protocol and least effect.
//!
//! Done anew whenever somebody asks, so that a changed rule re-runs nothing. Does not name classes: the classifier does.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::course::{Pair, Stop};
use super::crosscheck::Checks;
use super::metric::{Kind, MetricSpec};
use super::protocol::Arm;
use super::result::{Note, TestResult};
use super::stats::{self, Effect, Estimate, NEEDED_MAX};

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
    /// Two other looks at the same blocks; in no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
    /// The two-sided p of the estimate; of a metric other than the primary one, corrected for their number by Holm's rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
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
    /// Its interval.
    pub ci: Option<[f64; 2]>,
    /// The two-sided error rate of the interval, of one look: 0.0158 for one at 98.42 %.
    pub alpha: Option<f64>,
    /// Both for people: `1.34x [1.30, 1.38] 5 blocks`, or `2.00x exact`; and of what is inconclusive, which bound was reached
    /// and how many blocks would settle it.
    pub text: String,
    /// How the patched tree compares with the human's, measured in the same session; absent where that was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<AgainstHuman>,
    /// Words that must stand beside the figure: FORGEABLE, UNCHECKED, A/A, POST-HOC, HUMAN-FAILED, SIGN-FLIP-DISAGREES,
    /// BOOTSTRAP-DISAGREES, and with a metric behind them NOT-EXACT, GUARD-REGRESSED and GUARD-UNDECIDED.
    pub marks: Vec<String>,
}

/// How the patched tree compares with the human's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Standing {
    /// Better, beyond the least effect.
    Beats,
    /// As good within it.
    Matches,
    /// Better than the base and worse than the human's.
    Partial,
    /// Worse than the human's, and no improvement.
    Below,
    /// Cannot be said.
    Unsettled,
}

impl Standing {
    /// Its name, as printed and stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Beats => "BEATS",
            Self::Matches => "MATCHES",
            Self::Partial => "PARTIAL",
            Self::Below => "BELOW",
            Self::Unsettled => "UNSETTLED",
        }
    }

    /// From how the patched tree does by the human's, and whether it improves on the base.
    #[must_use]
    pub fn of(effect: Effect, improves: bool) -> Self {
        match effect {
            Effect::Improvement => Self::Beats,
            Effect::Neutral => Self::Matches,
            Effect::Regression if improves => Self::Partial,
            Effect::Regression => Self::Below,
            Effect::Inconclusive { .. } => Self::Unsettled,
        }
    }
}

/// The patched tree against the human's, by the primary metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AgainstHuman {
    /// What it comes to.
    pub says: Standing,
    /// How much better the patched tree is than the human's, a ratio; above 1 is better.
    pub ratio: Option<f64>,
    /// Its interval; absent for a count.
    pub ci: Option<[f64; 2]>,
    /// The error rate of that interval.
    pub alpha: Option<f64>,
    /// How much better the human's tree is than the base, a ratio: what there was to gain here.
    pub gain: Option<f64>,
}

impl AgainstHuman {
    /// Of a patched tree that is the human's, given what it gains: nothing has to be measured.
    #[must_use]
    pub fn same(gain: Option<f64>) -> Self {
        Self { says: Standing::Matches, ratio: Some(1.0), ci: None, alpha: None, gain }
    }
}

/// Reads a result. `judge_min_effect`, a fraction, judges the primary metric by another least effect than the one declared
/// before it was measured, and marks that POST-HOC; guards keep their own.
///
/// MIXED is said only of a primary metric that improves; a guard that gets worse beside a neutral primary metric is marked.
/// Metrics that are neither primary nor a guard have an effect only where it stands with Holm's correction; a guard's is not
/// corrected, for it is there to object.
#[must_use]
pub fn analyse(result: &TestResult, judge_min_effect: Option<f64>) -> Analysis {
    let mut marks: Vec<String> = result.notes.iter().map(|n| n.name().to_owned()).collect();
    let mut metrics = Vec::with_capacity(result.metrics.len());
    for (i, spec) in result.metrics.iter().enumerate() {
        let min_effect = judge_min_effect.filter(|_| i == 0).unwrap_or(spec.min_effect);
        if i == 0 && min_effect.total_cmp(&spec.min_effect).is_ne() {
            marks.push("POST-HOC".to_owned());
        }
        let spec = MetricSpec { min_effect, ..spec.clone() };
        let analysis = one(result, &spec);
        if i == 0 {
            marks.extend(doubts(&analysis, min_effect));
        }
        metrics.push(analysis);
    }
    correct(&mut metrics, result.protocol.alpha());
    for (metric, spec) in metrics.iter().zip(&result.metrics) {
        if spec.kind == Kind::Count && matches!(metric.effect, Effect::Inconclusive { .. }) {
            marks.push(format!("NOT-EXACT {}", spec.name));
        }
    }
    let primary = metrics.first();
    let effect = primary.map_or(Effect::Inconclusive { needed_blocks: None }, |m| m.effect);
    let guards = || metrics.iter().skip(1).filter(|m| m.guard);
    for guard in guards().filter(|m| m.effect == Effect::Regression) {
        marks.push(format!("GUARD-REGRESSED {}", guard.name));
    }
    if effect == Effect::Improvement {
        let open = guards().filter(|m| m.estimate.is_some() && matches!(m.effect, Effect::Inconclusive { .. }));
        marks.extend(open.map(|m| format!("GUARD-UNDECIDED {}", m.name)));
    }
    let verdict = match effect {
        Effect::Improvement if guards().any(|m| m.effect == Effect::Regression) => Verdict::Mixed,
        Effect::Improvement => Verdict::Improvement,
        Effect::Regression => Verdict::Regression,
        Effect::Neutral => Verdict::Neutral,
        Effect::Inconclusive { needed_blocks } => Verdict::Inconclusive { needed_blocks },
    };
    let estimate = primary.and_then(|m| m.estimate);
    let speedup = primary.and_then(|m| m.speedup);
    let mut text = speedup_text(speedup, estimate.as_ref(), result.metrics.first());
    if let (Effect::Inconclusive { needed_blocks }, Some(Kind::Time)) = (effect, result.metrics.first().map(|m| m.kind))
    {
        text.push_str(&unsettled_text(result.stopped, needed_blocks, estimate.map(|e| e.n)));
    }
    let human = against_human(result, judge_min_effect, effect == Effect::Improvement);
    let ci = estimate.map(|e| [e.low, e.high]);
    Analysis { effect, verdict, speedup, ci, alpha: estimate.map(|e| e.alpha), text, human, marks, metrics }
}

/// The values of a metric by block and arm, without warm-ups and dropped blocks.
fn blocks(result: &TestResult, name: &str) -> BTreeMap<u32, BTreeMap<Arm, Vec<f64>>> {
    let mut blocks: BTreeMap<u32, BTreeMap<Arm, Vec<f64>>> = BTreeMap::new();
    for run in result.runs.iter().filter(|r| r.turn.counts()) {
        let Some(&value) = run.sample.metrics.get(name) else { continue };
        blocks.entry(run.turn.block).or_default().entry(run.turn.arm).or_default().push(value);
    }
    blocks
}

/// Of all whole blocks that hold both arms of a pair, the values of each: half of a mirrored block is not mirrored.
fn whole(result: &TestResult, name: &str, pair: Pair) -> Vec<[Vec<f64>; 2]> {
    let counted = result.metrics.first().is_some_and(|m| m.kind == Kind::Count);
    let runs = if counted { 2 } else { result.protocol.runs_per_arm() };
    let both = |mut block: BTreeMap<Arm, Vec<f64>>| {
        let both = [block.remove(&pair.against)?, block.remove(&pair.of)?];
        both.iter().all(|values| values.len() == runs).then_some(both)
    };
    blocks(result, name).into_values().filter_map(both).collect()
}

/// The log ratio of each whole block, patched tree by base, by the primary metric; above 0 is better.
#[must_use]
pub fn block_ratios(result: &TestResult) -> Vec<f64> {
    result.metrics.first().map_or_else(Vec::new, |metric| pair(result, metric, Pair::VERDICT).1)
}

/// All values of an arm, torn blocks too: for counts.
fn all(result: &TestResult, name: &str, arm: Arm) -> Vec<f64> {
    blocks(result, name).into_values().filter_map(|mut block| block.remove(&arm)).flatten().collect()
}

/// What a pair of arms comes to by a metric of time: the estimate, the blocks' log ratios, and the effect.
fn pair(result: &TestResult, spec: &MetricSpec, pair: Pair) -> (Option<Estimate>, Vec<f64>, Effect) {
    let ratios: Vec<f64> = whole(result, &spec.name, pair)
        .iter()
        .filter_map(|[against, of]| stats::block_log_ratio(against, of, spec.better))
        .collect();
    let estimate = stats::estimate(&ratios, result.protocol.alpha());
    let none = Effect::Inconclusive { needed_blocks: None };
    (estimate, ratios, estimate.as_ref().map_or(none, |e| stats::judge(e, spec.min_effect)))
}

fn one(result: &TestResult, spec: &MetricSpec) -> MetricAnalysis {
    let (name, guard) = (spec.name.clone(), spec.guard);
    if spec.kind == Kind::Count {
        let (base, patched) = (all(result, &name, Arm::Base), all(result, &name, Arm::Patched));
        let (effect, speedup) = stats::judge_count(&base, &patched, spec);
        let (base, patched) = (base.first().copied(), patched.first().copied());
        return MetricAnalysis { name, guard, base, patched, speedup, estimate: None, checks: None, p: None, effect };
    }
    let (estimate, ratios, effect) = pair(result, spec, Pair::VERDICT);
    let blocks = whole(result, &name, Pair::VERDICT);
    let values = |at: usize| blocks.iter().flat_map(|both| both[at].iter().copied()).collect::<Vec<f64>>();
    MetricAnalysis {
        base: geometric_mean(&values(0)),
        patched: geometric_mean(&values(1)),
        speedup: estimate.map(|e| e.speedup),
        checks: estimate.map(|e| Checks::of(&ratios, &e, result.protocol.seed)),
        p: estimate.as_ref().map(stats::p_value),
        name,
        guard,
        estimate,
        effect,
    }
}

/// Corrects all metrics but the primary one for their number.
fn correct(metrics: &mut [MetricAnalysis], alpha: f64) {
    let Some((_, others)) = metrics.split_first_mut() else { return };
    let mut tested: Vec<&mut MetricAnalysis> = others.iter_mut().filter(|m| m.p.is_some()).collect();
    let p: Vec<f64> = tested.iter().filter_map(|m| m.p).collect();
    for (metric, p) in tested.iter_mut().zip(stats::holm(&p)) {
        metric.p = Some(p);
        let effect = matches!(metric.effect, Effect::Improvement | Effect::Regression);
        if !metric.guard && effect && p > alpha {
            metric.effect = Effect::Inconclusive { needed_blocks: None };
        }
    }
}

/// The marks of a verdict that another look at the same blocks does not bear out.
fn doubts(analysis: &MetricAnalysis, min_effect: f64) -> Vec<String> {
    let (Some(estimate), Some(checks)) = (&analysis.estimate, &analysis.checks) else { return Vec::new() };
    let flips = checks.flips_disagree(estimate, analysis.effect).then_some("SIGN-FLIP-DISAGREES");
    let bootstrap = checks.bootstrap_disagrees(analysis.effect, min_effect).then_some("BOOTSTRAP-DISAGREES");
    flips.into_iter().chain(bootstrap).map(str::to_owned).collect()
}

fn against_human(result: &TestResult, judge_min_effect: Option<f64>, improves: bool) -> Option<AgainstHuman> {
    let measured = result.runs.iter().any(|run| run.turn.arm == Arm::Human && run.turn.counts());
    if !measured || result.notes.contains(&Note::HumanFailed) {
        return None;
    }
    let declared = result.metrics.first()?;
    let spec = MetricSpec { min_effect: judge_min_effect.unwrap_or(declared.min_effect), ..declared.clone() };
    if spec.kind == Kind::Count {
        let of = |arm| all(result, &spec.name, arm);
        let (effect, ratio) = stats::judge_count(&of(Arm::Human), &of(Arm::Patched), &spec);
        let (_, gain) = stats::judge_count(&of(Arm::Base), &of(Arm::Human), &spec);
        return Some(AgainstHuman { says: Standing::of(effect, improves), ratio, ci: None, alpha: None, gain });
    }
    let (estimate, _, effect) = pair(result, &spec, Pair::HUMAN);
    let (gain, _, _) = pair(result, &spec, Pair::GAIN);
    Some(AgainstHuman {
        says: Standing::of(effect, improves),
        ratio: estimate.map(|e| e.speedup),
        ci: estimate.map(|e| [e.low, e.high]),
        alpha: estimate.map(|e| e.alpha),
        gain: gain.map(|e| e.speedup),
    })
}

fn geometric_mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp())
}

fn speedup_text(speedup: Option<f64>, estimate: Option<&Estimate>, primary: Option<&MetricSpec>) -> String {
    match (speedup, estimate) {
        (Some(_), Some(e)) => {
            format!("{}x [{}, {}] {} blocks", Ratio(e.speedup), Ratio(e.low), Ratio(e.high), e.n)
        }
        (Some(ratio), None) if primary.is_some_and(|m| m.kind == Kind::Count) => format!("{}x exact", Ratio(ratio)),
        _ => "no ratio".to_owned(),
    }
}

/// One metric for people: `memory: 1.02x [0.99, 1.05], guard, neutral`.
#[must_use]
pub fn metric_text(metric: &MetricAnalysis) -> String {
    let figure = match (metric.speedup, &metric.estimate) {
        (Some(ratio), Some(e)) => format!("{}x [{}, {}]", Ratio(ratio), Ratio(e.low), Ratio(e.high)),
        (Some(ratio), None) => format!("{}x exact", Ratio(ratio)),
        (None, _) => "no ratio".to_owned(),
    };
    let guard = if metric.guard { ", guard" } else { "" };
    let effect = match metric.effect {
        Effect::Improvement => "better",
        Effect::Regression => "worse",
        Effect::Neutral => "as good",
        Effect::Inconclusive { .. } => "inconclusive",
    };
    format!("{}: {figure}{guard}, {effect}", metric.name)
}

/// Which bound was reached before anything was settled, and what would settle it.
fn unsettled_text(stopped: Option<Stop>, needed: Option<u32>, n: Option<u32>) -> String {
    let bound = match stopped {
        Some(Stop::BlocksMax) => ", `blocks max` reached",
        Some(Stop::TimeMax) => ", `time max` reached",
        Some(Stop::Settled) | None => "",
    };
    let more = match (needed, n) {
        (_, None) => "an interval needs two blocks at least".to_owned(),
        (Some(blocks), _) => format!("about {blocks} blocks would settle it"),
        (None, Some(n)) if n < NEEDED_MAX => format!("more than {NEEDED_MAX} blocks would be needed"),
        (None, _) => "how many blocks would settle it is not known".to_owned(),
    };
    format!("{bound}; {more}")
}

/// How sure an interval of the two-sided error rate is, in percent: `98.42 %`, or `95 %`.
#[must_use]
pub fn level(alpha: f64) -> String {
    let text = format!("{:.2}", 100.0 * (1.0 - alpha));
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
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
#[path = "analysis_tests.rs"]
mod tests;
