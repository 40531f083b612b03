//! Tests of `plausible`: what is doubted, and what is not.

use super::super::analysis::analyse;
use super::super::testing::times;
use super::*;

fn doubted(result: &TestResult) -> Option<String> {
    doubt(result, &analyse(result, None))
}

/// A result whose processes ran so long, in milliseconds, and marked such windows.
fn clocked(base: f64, patched: f64, wall: impl Fn(Arm) -> u64, window: impl Fn(Arm) -> Option<f64>) -> TestResult {
    let mut result = times(base, patched);
    for run in &mut result.runs {
        run.sample.wall_ms = wall(run.turn.arm);
        run.sample.window_ms = window(run.turn.arm);
    }
    result
}

#[test]
fn a_gain_beyond_its_bound_is_doubted() {
    let mut result = times(1.0, 0.05);
    result.metrics[0].bound = Some(10.0);
    assert!(doubted(&result).unwrap().contains("beyond its bound of 10.0x"));
    result.metrics[0].bound = Some(30.0);
    assert_eq!(doubted(&result), None);
}

#[test]
fn a_claim_is_held_against_the_marked_window() {
    let window = |ms: f64| move |arm| Some(if arm == Arm::Base { 200.0 } else { ms });
    let wall = |arm| if arm == Arm::Base { 500 } else { 400 };
    assert_eq!(doubted(&clocked(0.2, 0.1, wall, window(100.0))), None);
    assert_eq!(doubted(&clocked(0.2, 0.1, wall, window(104.0))), None, "four per cent");
    assert_eq!(doubted(&clocked(0.2, 0.1, wall, window(118.0))), None, "flow may be late");
    assert!(doubted(&clocked(0.2, 0.1, wall, window(140.0))).unwrap().contains("longer than claimed"));
    // An average of ten calls is a tenth of its window in both trees.
    assert_eq!(doubted(&clocked(0.02, 0.01, wall, window(100.0))), None);
    let silent = clocked(0.2, 0.1, wall, |arm| (arm == Arm::Base).then_some(200.0));
    assert!(doubted(&silent).unwrap().contains("did not mark"));
}

#[test]
fn windows_that_were_opened_twice_are_doubted() {
    let window = |ms: f64| move |arm| Some(if arm == Arm::Base { 200.0 } else { ms });
    let mut result = clocked(0.2, 0.1, |arm| if arm == Arm::Base { 500 } else { 400 }, window(100.0));
    let mut count = |base: usize, patched: usize| {
        for run in &mut result.runs {
            run.sample.windows = Some(if run.turn.arm == Arm::Base { base } else { patched });
        }
        doubted(&result)
    };
    assert_eq!(count(1, 1), None);
    assert_eq!(count(3, 3), None);
    assert!(count(1, 2).unwrap().contains("marked 2 timed windows, those of the base 1"));
}

#[test]
fn windows_that_the_whole_process_does_not_bear_out_are_doubted() {
    // Marks of the patched tree's own, or work done before the window opens: the process takes as long as ever.
    let window = |arm| Some(if arm == Arm::Base { 400.0 } else { 2.0 });
    let told = doubted(&clocked(0.4, 0.002, |_| 500, window)).unwrap();
    assert!(
        told.contains("398 ms a process are saved within the marked windows, by flow's clock it is 0 ms"),
        "{told}"
    );
    assert_eq!(doubted(&clocked(0.4, 0.002, |arm| if arm == Arm::Base { 500 } else { 110 }, window)), None);
}

#[test]
fn no_process_is_done_in_no_time() {
    let told = doubted(&clocked(0.4, 1e-320, |arm| if arm == Arm::Base { 500 } else { 100 }, |_| None)).unwrap();
    assert!(told.contains("less than a nanosecond"), "{told}");
}

#[test]
fn a_saving_that_flows_clock_does_not_see_is_doubted() {
    let wall = |ms: u64| move |arm| if arm == Arm::Base { 1200 } else { ms };
    let told = doubted(&clocked(1.0, 0.1, wall(1190), |_| None)).unwrap();
    assert!(told.contains(" ms a process are claimed to be saved, by flow's clock it is 10 ms"), "{told}");
    assert_eq!(doubted(&clocked(1.0, 0.1, wall(300), |_| None)), None);
    // A claim longer than the process is no time in seconds.
    assert_eq!(doubted(&clocked(10.0, 1.0, wall(1190), |_| None)), None);
    // A patch that is no better claims nothing.
    assert_eq!(doubted(&clocked(1.0, 1.5, wall(1190), |_| None)), None);
}

#[test]
fn an_improvement_that_no_clock_of_flows_can_see_is_said_to_be_so() {
    let told = |result: &TestResult| unclocked(result, &analyse(result, None));
    let wall = |ms: u64| move |arm| if arm == Arm::Base { 1200 } else { ms };
    assert_eq!(told(&clocked(1.0, 0.1, wall(300), |_| None)), None, "900 ms are seen");
    let short = told(&clocked(0.02, 0.01, |arm| if arm == Arm::Base { 120 } else { 110 }, |_| None)).unwrap();
    assert!(short.contains("10.0 ms a process are saved") && short.contains("40 ms and more"), "{short}");
    let window = |arm| Some(if arm == Arm::Base { 20.0 } else { 10.0 });
    assert!(told(&clocked(0.02, 0.01, |_| 120, window)).unwrap().contains("10.0 ms a process"));
    let mut rate = clocked(1.0, 10.0, wall(300), |_| None);
    rate.metrics[0].name = "calls_per_s".into();
    rate.metrics[0].better = Better::Higher;
    for run in &mut rate.runs {
        let value = run.sample.metrics.values().copied().next().unwrap();
        run.sample.metrics = [("calls_per_s".to_owned(), value)].into();
    }
    assert!(told(&rate).unwrap().contains("a rate"));
    assert_eq!(told(&clocked(1.0, 1.0, wall(1200), |_| None)), None, "no improvement");
    // Not refuted, and not borne out.
    let half = told(&clocked(1.0, 0.1, wall(760), |_| None)).unwrap();
    assert!(half.contains("flow's clock over whole processes sees 440 ms"), "{half}");
}
