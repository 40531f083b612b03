//! What the tests of results share: made-up runs of a whole schedule.

use super::contract::{Contract, Sample};
use super::equal::Equal;
use super::metric::{Kind, MetricSpec};
use super::protocol::{Arm, LOOKS, Profile, Protocol, Turn, block, exact, warm_ups};
use super::result::{Run, TestResult, conclude};
use crate::outcome::Failure;

pub(super) const TWO: [Arm; 2] = [Arm::Base, Arm::Patched];

/// A warm-up of each arm and five blocks; of counts a pair and a repeat.
pub(super) fn schedule(protocol: &Protocol, kind: Kind, arms: &[Arm]) -> Vec<Turn> {
    if kind == Kind::Count {
        return exact(arms);
    }
    warm_ups(protocol, arms).into_iter().chain((0..LOOKS[0]).flat_map(|number| block(protocol, number, arms))).collect()
}

pub(super) fn sample(values: &[(&str, f64)], digest: Option<&str>) -> Sample {
    Sample {
        metrics: values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        samples: vec![0.1],
        digest: digest.map(str::to_owned),
        wall_ms: 500,
        ..Sample::default()
    }
}

/// Runs of a whole schedule; `value` gives each turn's metrics.
pub(super) fn runs(
    protocol: &Protocol,
    kind: Kind,
    value: impl Fn(usize, Turn) -> Vec<(&'static str, f64)>,
) -> Vec<Run> {
    let turns = schedule(protocol, kind, &TWO).into_iter().enumerate();
    turns.map(|(i, turn)| Run { turn, sample: sample(&value(i, turn), Some("d")) }).collect()
}

pub(super) fn conclude_flow(metrics: &[MetricSpec], runs: Vec<Run>) -> Result<TestResult, Failure> {
    conclude(Contract::Flow, Protocol::new(Profile::Screen), metrics, Equal::Digest, runs, None)
}

/// A time that is `base` or `patched`, and a little more in every other run.
pub(super) fn times(base: f64, patched: f64) -> TestResult {
    let protocol = Protocol::new(Profile::Screen);
    let runs = runs(&protocol, Kind::Time, |i, turn| {
        // A warm-up that would spoil everything, were it counted.
        let value = if turn.warmup { 99.0 } else { if turn.arm == Arm::Base { base } else { patched } };
        vec![("time_s", value * (1.0 + 0.001 * (i % 3) as f64))]
    });
    conclude_flow(&[], runs).unwrap()
}
