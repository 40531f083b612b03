//! What the rules of others make of the runs that flow measured: for comparison with published tables, and in no verdict.
//!
//! The rules look at one run or at means and have no rate of error (harnesses.md section 2.3); flow's own rule is `analysis`.

use serde::Serialize;

use super::metric::Better;
use super::{Arm, TestResult};

/// What each rule says of one patch. Absent where there are not the runs for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PointRules {
    /// One run each, faster at all: the first of base and patched tree.
    pub first_faster: Option<bool>,
    /// One run each, by 5 %: 1 faster, 0 as fast, -1 slower.
    pub first_by_5_percent: Option<i8>,
    /// The means of five runs each, by 5 %.
    pub means_by_5_percent: Option<i8>,
    /// GSO's `opt_base`: the mean of five runs at least 1.2 times as good as the base's.
    pub gso_opt_base: Option<bool>,
    /// GSO's `opt_commit`: the mean of five runs above 0.95 of the human's.
    pub gso_opt_commit: Option<bool>,
}

/// Runs of an arm that rules about means take.
const RUNS: usize = 5;

impl PointRules {
    /// What the rules make of a result: of the runs in the order in which they were made, warm-ups left out.
    #[must_use]
    pub fn of(result: &TestResult) -> Self {
        let Some(metric) = result.metrics.first() else { return Self::default() };
        let values = |arm: Arm| -> Vec<f64> {
            let own = result.runs.iter().filter(|run| run.turn.arm == arm && run.turn.counts());
            own.filter_map(|run| run.sample.metrics.get(&metric.name).copied()).collect()
        };
        let [base, patched, human] = [Arm::Base, Arm::Patched, Arm::Human].map(values);
        let gain = |from: f64, to: f64| {
            let ratio = if metric.better == Better::Lower { from / to } else { to / from };
            ratio.is_finite().then_some(ratio)
        };
        let by_5_percent = |ratio: f64| i8::from(ratio > 1.05) - i8::from(ratio < 0.95);
        let first = base.first().zip(patched.first()).and_then(|(base, patched)| gain(*base, *patched));
        let mean = |values: &[f64]| {
            let few = values.get(..RUNS)?;
            Some(few.iter().sum::<f64>() / RUNS as f64)
        };
        let means = |from: &[f64]| mean(from).zip(mean(&patched)).and_then(|(from, to)| gain(from, to));
        Self {
            first_faster: first.map(|ratio| ratio > 1.0),
            first_by_5_percent: first.map(by_5_percent),
            means_by_5_percent: means(&base).map(by_5_percent),
            gso_opt_base: means(&base).map(|ratio| (10.0 * ratio).round() >= 12.0),
            gso_opt_commit: means(&human).map(|ratio| ratio > 0.95),
        }
    }
}

impl PointRules {
    /// In a line for people; `None` where there are not the runs for any of them.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let sign = |says: i8| match says {
            1 => "faster",
            -1 => "slower",
            _ => "as fast",
        };
        let yes = |says: bool| if says { "yes" } else { "no" };
        let said = [
            self.first_faster.map(|faster| format!("one run each, {}", if faster { "faster" } else { "not faster" })),
            self.first_by_5_percent.map(|says| format!("one run each by 5\u{a0}%, {}", sign(says))),
            self.means_by_5_percent.map(|says| format!("means of five by 5\u{a0}%, {}", sign(says))),
            self.gso_opt_base.map(|says| format!("GSO opt_base {}", yes(says))),
            self.gso_opt_commit.map(|says| format!("GSO opt_commit {}", yes(says))),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// How often a rule calls equal trees different.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarms {
    /// The rule, in words.
    pub rule: &'static str,
    /// Of so many pairs of equal trees that had the runs for it.
    pub pairs: usize,
    /// So many came out as a difference.
    pub alarms: usize,
}

/// What each rule makes of pairs of equal trees, where every difference is false.
#[must_use]
pub fn alarms(pairs: &[PointRules]) -> Vec<Alarms> {
    let tally = |rule, says: fn(&PointRules) -> Option<bool>| {
        let said: Vec<bool> = pairs.iter().filter_map(says).collect();
        Alarms { rule, pairs: said.len(), alarms: said.iter().filter(|alarm| **alarm).count() }
    };
    vec![
        tally("one run each, improved if faster at all", |rules| rules.first_faster),
        tally("one run each, a difference beyond 5 %", |rules| rules.first_by_5_percent.map(|says| says != 0)),
        tally("means of five runs each, a difference beyond 5 %", |rules| {
            rules.means_by_5_percent.map(|says| says != 0)
        }),
        tally("means of five runs each, improved from 1.2 times", |rules| rules.gso_opt_base),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_only_the_pairs_that_had_the_runs_for_it() {
        let one = PointRules { first_faster: Some(true), first_by_5_percent: Some(-1), ..PointRules::default() };
        let five = PointRules { first_faster: Some(false), means_by_5_percent: Some(0), ..PointRules::default() };
        let said = alarms(&[one, five, PointRules::default()]);
        assert_eq!(PointRules::default().text(), None);
        assert_eq!(five.text().unwrap(), "one run each, not faster; means of five by 5\u{a0}%, as fast");
        let counts: Vec<(usize, usize)> = said.iter().map(|said| (said.pairs, said.alarms)).collect();
        assert_eq!(counts, [(2, 1), (1, 1), (1, 0), (0, 0)]);
    }
}
