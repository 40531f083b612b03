//! Tests of `result`: concluding, storing and reading results.

use super::super::metric::Better;
use super::super::protocol::{Profile, gate, schedule};
use super::*;

fn sample(values: &[(&str, f64)], digest: Option<&str>) -> Sample {
    Sample {
        metrics: values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        samples: vec![0.1],
        digest: digest.map(str::to_owned),
        wall_ms: 500,
        exit: 0,
        forgeable: false,
    }
}

/// Runs of a whole schedule; `value` gives each turn's metrics.
fn runs(protocol: &Protocol, kind: Kind, value: impl Fn(usize, Turn) -> Vec<(&'static str, f64)>) -> Vec<Run> {
    let turns = schedule(protocol, kind).into_iter().enumerate();
    turns.map(|(i, turn)| Run { turn, sample: sample(&value(i, turn), Some("d")) }).collect()
}

fn conclude_flow(metrics: &[MetricSpec], runs: Vec<Run>) -> Result<TestResult, Failure> {
    conclude(Contract::Flow, Protocol::new(Profile::Screen), metrics, Equal::Digest, runs, None)
}

/// A time that is `base` or `patched`, and a little more in every other run.
fn times(base: f64, patched: f64) -> TestResult {
    let protocol = Protocol::new(Profile::Screen);
    let runs = runs(&protocol, Kind::Time, |i, turn| {
        // A warm-up that would spoil everything, were it counted.
        let value = if turn.warmup { 99.0 } else { if turn.arm == Arm::Base { base } else { patched } };
        vec![("time_s", value * (1.0 + 0.001 * (i % 3) as f64))]
    });
    conclude_flow(&[], runs).unwrap()
}

#[test]
fn times_are_read() {
    let faster = analyse(&times(0.4, 0.3), None);
    assert_eq!(faster.verdict, Verdict::Improvement);
    assert!(faster.text.starts_with("1.33x [1.33, 1.34] 5 blocks"), "{}", faster.text);
    assert!(faster.marks.is_empty(), "{:?}", faster.marks);
    let [low, high] = faster.ci.unwrap();
    assert!(low < faster.speedup.unwrap() && faster.speedup.unwrap() < high);
    let m = &faster.metrics[0];
    assert!((m.base.unwrap() / m.patched.unwrap() - m.speedup.unwrap()).abs() < 1e-9);
    assert_eq!(analyse(&times(0.3, 0.4), None).verdict, Verdict::Regression);
    assert_eq!(analyse(&times(0.3, 0.3), None).verdict, Verdict::Neutral);
    // 3 %: an improvement by the declared 2 %, and post hoc none by 10 %.
    let small = times(0.309, 0.3);
    assert_eq!(analyse(&small, None).verdict, Verdict::Improvement);
    let post = analyse(&small, Some(0.1));
    assert_eq!((post.verdict, post.marks), (Verdict::Neutral, vec!["POST-HOC".to_owned()]));
    assert!(analyse(&small, Some(0.02)).marks.is_empty());
}

#[test]
fn a_torn_block_does_not_count_and_one_block_says_nothing() {
    let mut result = times(0.4, 0.3);
    result.runs.pop();
    assert_eq!(analyse(&result, None).metrics[0].estimate.unwrap().n, 4);
    result.runs.truncate(6);
    let one = analyse(&result, None);
    assert_eq!(one.verdict, Verdict::Inconclusive { needed_blocks: None });
    assert_eq!((one.speedup, one.text.as_str()), (None, "no ratio"));
}

#[test]
fn counts_are_read() {
    let protocol = Protocol::new(Profile::Screen);
    let ops = [MetricSpec::count("ops")];
    let of = |base: f64, patched: f64| {
        runs(&protocol, Kind::Count, |_, turn| vec![("ops", if turn.arm == Arm::Base { base } else { patched })])
    };
    let twice = analyse(&conclude_flow(&ops, of(1000.0, 500.0)).unwrap(), None);
    assert_eq!((twice.verdict, twice.text.as_str()), (Verdict::Improvement, "2.00x exact"));
    assert_eq!(analyse(&conclude_flow(&ops, of(500.0, 500.0)).unwrap(), None).verdict, Verdict::Neutral);
    // A base whose count moves is the test's fault; a patched one that moves proves nothing.
    let mut moving = of(1000.0, 500.0);
    moving[0].sample.metrics.insert("ops".into(), 1001.0);
    assert_eq!(conclude_flow(&ops, moving).unwrap_err().cause, Cause::Nondeterministic);
    let mut moving = of(1000.0, 500.0);
    moving[1].sample.metrics.insert("ops".into(), 501.0);
    let unsure = analyse(&conclude_flow(&ops, moving).unwrap(), None);
    assert_eq!(unsure.verdict, Verdict::Inconclusive { needed_blocks: None });
    assert_eq!(unsure.marks, ["NOT-EXACT ops"]);
}

#[test]
fn a_guard_makes_it_mixed() {
    let guard = MetricSpec { better: Better::Higher, guard: true, ..MetricSpec::time("rate") };
    let result = |patched: f64, rate: f64, guard: &MetricSpec| {
        let runs = runs(&Protocol::new(Profile::Screen), Kind::Time, |i, turn| {
            let wobble = 1.0 + 0.001 * (i % 3) as f64;
            let base = turn.arm == Arm::Base;
            vec![
                ("time_s", if base { 1.0 } else { patched } * wobble),
                ("rate", if base { 10.0 } else { rate } * wobble),
            ]
        });
        analyse(&conclude_flow(&[MetricSpec::time("time_s"), guard.clone()], runs).unwrap(), None)
    };
    assert_eq!(result(0.5, 10.0, &guard).verdict, Verdict::Improvement);
    let mixed = result(0.5, 5.0, &guard);
    assert_eq!((mixed.verdict, mixed.effect), (Verdict::Mixed, Effect::Improvement));
    assert_eq!(mixed.marks, ["GUARD-REGRESSED rate"]);
    assert!((mixed.metrics[1].speedup.unwrap() - 0.5).abs() < 1e-3);
    assert_eq!(result(1.0, 5.0, &guard).verdict, Verdict::Neutral);
    assert_eq!(result(2.0, 20.0, &guard).verdict, Verdict::Regression);
    assert_eq!(result(0.5, 5.0, &MetricSpec { guard: false, ..guard.clone() }).verdict, Verdict::Improvement);
}

#[test]
fn results_come_before_speed() {
    let protocol = Protocol::new(Profile::Screen);
    let make = |base: Option<&str>, patched: Option<&str>, reference| {
        let turns = schedule(&protocol, Kind::Time).into_iter();
        let digest = |arm| if arm == Arm::Base { base } else { patched };
        let runs = turns.map(|turn| Run { turn, sample: sample(&[("time_s", 1.0)], digest(turn.arm)) }).collect();
        conclude(Contract::Flow, protocol, &[], Equal::Digest, runs, reference)
    };
    assert_eq!(make(Some("a"), Some("a"), Some("a")).unwrap().comparison, Comparison::Same);
    assert_eq!(make(Some("a"), Some("b"), None).unwrap_err().cause, Cause::WrongResult);
    assert_eq!(make(Some("a"), None, None).unwrap_err().cause, Cause::WrongResult);
    assert_eq!(make(Some("a"), Some("b"), Some("b")).unwrap_err().cause, Cause::Nondeterministic);
    let unchecked = make(None, None, None).unwrap();
    assert_eq!(unchecked.notes, BTreeSet::from([Note::Unchecked]));
    assert_eq!(analyse(&unchecked, None).marks, ["UNCHECKED"]);
    assert_eq!(
        conclude(Contract::Flow, protocol, &[], Equal::Digest, vec![], None).unwrap_err().cause,
        Cause::HarnessFault
    );
}

#[test]
fn a_gate_gives_the_reference() {
    let runs = |digests: [Option<&str>; 2]| {
        let turns = gate().into_iter().zip(digests);
        turns.map(|(turn, d)| Run { turn, sample: sample(&[("time_s", 1.0)], d) }).collect::<Vec<_>>()
    };
    let fine = conclude_flow(&[], runs([Some("a"), Some("a")])).unwrap();
    assert_eq!((fine.comparison, fine.reference.as_deref()), (Comparison::Same, Some("a")));
    assert_eq!(conclude_flow(&[], runs([None, None])).unwrap().notes, BTreeSet::from([Note::Unchecked]));
    assert_eq!(conclude_flow(&[], runs([Some("a"), Some("b")])).unwrap_err().cause, Cause::Nondeterministic);
}

#[test]
fn a_blob_reads_back_and_a_broken_one_is_refused() {
    let mut result = times(0.1 + 0.2, 1.0 / 3.0);
    result.notes.insert(Note::SameTree);
    let bytes = result.encode();
    assert_eq!(TestResult::decode(&bytes).unwrap(), result);
    assert_eq!(TestResult::decode(&bytes).unwrap().encode(), bytes);
    assert_eq!(analyse(&result, None).marks, ["A/A"]);

    for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(TestResult::decode(&bytes[..end]), Err(BadResult::Json(_))), "{end}");
    }
    let with = |change: &dyn Fn(&mut TestResult)| {
        let mut other = result.clone();
        change(&mut other);
        TestResult::decode(&other.encode()).unwrap_err()
    };
    assert!(matches!(with(&|r| r.format = 9), BadResult::Format(9)));
    assert!(matches!(with(&|r| r.metrics.clear()), BadResult::Flaw(_)));
    assert!(matches!(with(&|r| r.metrics.push(r.metrics[0].clone())), BadResult::Flaw(_)));
    assert!(matches!(with(&|r| r.metrics[0].name = "gone".into()), BadResult::Flaw(_)));
    assert!(matches!(with(&|r| r.metrics[0].min_effect = -1.0), BadResult::Flaw(_)));
    assert!(matches!(with(&|r| r.runs = vec![r.runs[0].clone(); RUNS_MAX + 1]), BadResult::Flaw(_)));
    assert!(matches!(TestResult::decode(&vec![b' '; BLOB_MAX + 1]), Err(BadResult::TooLarge(_))));
}

#[test]
fn ratios_have_three_digits() {
    let texts = [0.0493, 0.39, 1.0, 1.3351, 9.999, 12.34, 99.99, 850.4, 1e9, 1e-9].map(|r| Ratio(r).to_string());
    assert_eq!(texts, ["0.049", "0.39", "1.00", "1.34", "10.0", "12.3", "100", "850", "1.0e9", "1.0e-9"]);
}
