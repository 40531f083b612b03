//! How a job compares with the human's change: in one session where the test measured both, else by the sessions of two jobs.

use serde::Serialize;

use crate::attempt::Ended;
use crate::class::Class;
use crate::key::Value;
use crate::measure::analysis::{Ratio, Standing, level};
use crate::measure::metric::{Better, MetricSpec};
use crate::measure::stats;
use crate::plan::{Ask, Job, Plan, Role};
use crate::step::End;

/// Said of what one session measured.
pub const SAME_SESSION: &str = "same session";

/// How a job compares with the human's change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HumanResult {
    /// BEATS, MATCHES, PARTIAL, BELOW or UNSETTLED.
    pub says: String,
    /// How much better it is than the human's, a ratio; above 1 is better.
    pub ratio: Option<f64>,
    /// Its interval; absent for a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<[f64; 2]>,
    /// How sure the interval is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// How much better the human's tree is than the base, a ratio, where it was measured in the same session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// `same session` or `two sessions`.
    pub measured: &'static str,
}

impl HumanResult {
    /// For people: `BEATS the human's change: 1.20x [1.10, 1.31] at 98.42 %, same session`.
    #[must_use]
    pub fn text(&self) -> String {
        let figure = match (self.ratio, self.ci) {
            (Some(ratio), Some([low, high])) => {
                let level = self.level.as_deref().unwrap_or("its level");
                format!("{}x [{}, {}] at {level}", Ratio(ratio), Ratio(low), Ratio(high))
            }
            (Some(ratio), None) => format!("{}x exact", Ratio(ratio)),
            (None, _) => "no ratio".to_owned(),
        };
        let gain = self.gain.map_or_else(String::new, |gain| format!("; the human's gains {}x", Ratio(gain)));
        format!("{} the human's change: {figure}, {}{gain}", self.says, self.measured)
    }
}

/// How the job of a classify action compares, if that can be said of what has ended.
pub(super) fn of(plan: &Plan, classify: usize, said: &Ended, ends: &[End]) -> Option<HumanResult> {
    match said.outputs.get("human") {
        Some(Value::List(stored)) => same_session(stored),
        _ => two_sessions(plan, classify, said, ends),
    }
}

fn same_session(stored: &[String]) -> Option<HumanResult> {
    let [says, ratio, low, high, level, gain] = stored else { return None };
    let number = |text: &str| text.parse::<f64>().ok();
    Some(HumanResult {
        says: says.clone(),
        ratio: number(ratio),
        ci: number(low).zip(number(high)).map(|(low, high)| [low, high]),
        level: (!level.is_empty()).then(|| level.clone()),
        gain: number(gain),
        measured: SAME_SESSION,
    })
}

/// The job whose candidate is the human's change, of the same commit; `None` of that job itself. Its first sample, if it has
/// several.
pub(super) fn beside(plan: &Plan, classify: usize) -> Option<&Job> {
    let own = &plan.nodes[classify].point;
    let commit = own.commit?;
    if told(plan, classify) {
        return None;
    }
    plan.jobs.iter().find(|job| {
        job.classify.is_some_and(|other| {
            let point = &plan.nodes[other].point;
            point.commit == Some(commit) && point.own == own.own && told(plan, other)
        })
    })
}

/// The difference of two sessions' mean log ratios: this job's, and that of the human's. The machine may have changed in
/// between, and no interval knows of that. Of exact counts it is the ratio of two speed-ups.
fn two_sessions(plan: &Plan, classify: usize, said: &Ended, ends: &[End]) -> Option<HumanResult> {
    let speedup = |said: &Ended| said.outputs.get("speedup")?.as_text()?.parse::<f64>().ok();
    let (own_speedup, own) = (speedup(said)?, estimate(said));
    let other = ends.get(beside(plan, classify)?.classify?)?.settled()?;
    let (alpha, least) = (alpha(plan, classify)?, min_effect(plan, classify)?);
    let improves = said.outputs.get("class").and_then(Value::as_text) == Some(Class::SuccessImprovement.name());
    let result = |effect, ratio, interval: Option<[f64; 2]>| HumanResult {
        says: Standing::of(effect, improves).name().to_owned(),
        ratio: Some(ratio),
        ci: interval,
        level: interval.map(|_| level(alpha)),
        gain: None,
        measured: "two sessions",
    };
    match (own, estimate(other)) {
        (Some(own), Some(other)) => {
            let difference = stats::difference(own, other, alpha);
            let interval = [difference.low, difference.high];
            Some(result(stats::judge(&difference, least), difference.speedup, Some(interval)))
        }
        (None, None) => {
            let spec = MetricSpec { min_effect: least, better: Better::Higher, ..MetricSpec::count("speedup") };
            let (effect, ratio) = stats::judge_count(&[speedup(other)?], &[own_speedup], &spec);
            Some(result(effect, ratio?, None))
        }
        _ => None,
    }
}

/// The mean, the deviation and the number of a session's log ratios, as `classify` stores them.
fn estimate(said: &Ended) -> Option<[f64; 3]> {
    let Some(Value::List(stored)) = said.outputs.get("blocks") else { return None };
    let numbers: Vec<f64> = stored.iter().filter_map(|text| text.parse().ok()).collect();
    <[f64; 3]>::try_from(numbers).ok()
}

/// Whether the job's agent is told the human's change.
fn told(plan: &Plan, classify: usize) -> bool {
    plan.linked(classify, &Role::Agent).is_some_and(|agent| match &plan.nodes[agent].ask {
        Ask::Agent(ask) => ask.human_change,
        _ => false,
    })
}

fn alpha(plan: &Plan, classify: usize) -> Option<f64> {
    match &plan.nodes[plan.linked(classify, &Role::Patched)?].ask {
        Ask::Test(ask) => Some(ask.protocol.alpha()),
        _ => None,
    }
}

fn min_effect(plan: &Plan, classify: usize) -> Option<f64> {
    let judged = match &plan.nodes[classify].ask {
        Ask::Classify(ask) => ask.judge_min_effect,
        _ => None,
    };
    let declared = match &plan.nodes[plan.linked(classify, &Role::Patched)?].ask {
        Ask::Test(ask) => ask.metrics.first().cloned().unwrap_or_else(|| ask.contract.default_metric()).min_effect,
        _ => return None,
    };
    Some(judged.unwrap_or(declared))
}
