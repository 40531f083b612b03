//! Tests of `result`: concluding and storing results.

use super::super::analysis::analyse;
use super::super::metric::Kind;
use super::super::protocol::{Profile, gate};
use super::super::testing::{TWO, conclude_flow, sample, schedule, times};
use super::*;

#[test]
fn results_come_before_speed() {
    let protocol = Protocol::new(Profile::Screen);
    let make = |base: Option<&str>, patched: Option<&str>, reference| {
        let turns = schedule(&protocol, Kind::Time, &TWO).into_iter();
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
        let turns = gate(false).into_iter().zip(digests);
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
