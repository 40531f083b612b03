//! The promise of the A/A control: how often equal trees are called different is measured beside the verdicts, and heads every
//! report; where it was not, that is said.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

/// A test that gives the second copy of the base away: it claims half the time there, so that every A/A is false.
const FALSE: &str =
    "ops / (2000 if ops == 1000 and \"tree-b\" in __import__(\"os\").getcwd() + str(pkg.__file__) else 1000)";

#[test]
fn without_a_control_every_report_says_that_nothing_is_known() {
    let flow = Flow::timed("ops / 1000");
    flow.flow(&["run", "m.kdl"]).settles().says("UNCALIBRATED");
    flow.flow(&["status"]).settles().says("UNCALIBRATED");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).settles().says("UNCALIBRATED");
    let status = flow.flow(&["status", "--json"]).settles().json();
    assert_eq!(status["calibration"]["state"], "UNCALIBRATED");
}

#[test]
fn exact_counts_need_none_and_say_nothing() {
    let flow = Flow::sample();
    flow.add("calibrate");
    let run = flow.flow(&["run", "m.kdl"]);
    assert!(!run.settles().stdout.contains("CALIBRATED"), "{}", run.stdout);
    flow.flow(&["calibrate", "m.kdl"]).exits(2).says("measures no time");
}

#[test]
fn a_share_of_the_jobs_is_measured_as_if_it_were_a_patch_and_the_rate_heads_the_report() {
    let flow = Flow::timed("ops / 1000");
    flow.add("calibrate \"50%\"");
    let run = flow.run();
    run.settles();
    let controls: Vec<String> = run.executed().into_iter().filter(|what| what.ends_with(" control")).collect();
    assert_eq!(controls.len(), 2, "half of four jobs: {controls:?}");
    // They are no jobs of a candidate.
    let finished = run.finished();
    assert_eq!((finished["jobs"].as_u64(), finished["controls"].as_u64()), (Some(4), Some(2)));
    assert_eq!(finished["classes"], serde_json::json!({"SUCCESS_IMPROVEMENT": 4}));
    let again = flow.flow(&["run", "m.kdl"]);
    again
        .settles()
        .says("A/A control: 0 of 2 pairs of equal trees came out as a difference")
        .says("4 of 4 jobs improved");
    assert!(again.stdout.starts_with("A/A control"), "{}", again.stdout);
    let status = flow.flow(&["status", "--json"]).settles().json();
    assert_eq!(status["calibration"]["measured"], 2);
    assert_eq!(status["calibration"]["state"], "calibrated");
    // The same manifest has the same controls everywhere.
    let twin = flow.twin();
    twin.run().settles().executes_nothing();
}

#[test]
fn calibrate_measures_that_alone_and_is_served_to_the_campaign() {
    let flow = Flow::timed("ops / 1000");
    let calibrated = flow.flow(&["calibrate", "m.kdl", "--share", "100%", "--json"]);
    calibrated.settles();
    let executed = calibrated.executed();
    assert!(executed.iter().all(|what| !what.ends_with(" agent")), "{executed:?}");
    assert_eq!(executed.iter().filter(|what| what.ends_with(" control")).count(), 4, "{executed:?}");
    flow.add("calibrate \"100%\"");
    let run = flow.run();
    assert!(run.settles().executed().iter().all(|what| !what.ends_with(" control")));
    flow.flow(&["status"]).settles().says("0 of 4 pairs of equal trees");
}

#[test]
fn a_machine_that_finds_differences_between_equal_trees_is_uncalibrated() {
    let flow = Flow::timed(FALSE);
    let calibrated = flow.flow(&["calibrate", "m.kdl", "--share", "100%"]);
    calibrated.exits(1).says("UNCALIBRATED: A/A control: 4 of 4").says("which is above what is promised");
    flow.flow(&["vet", "m.kdl"]).settles().says("noisy").says("0 of 2 commits vetted");
}

#[test]
fn a_share_that_is_none_is_a_flaw() {
    let flow = Flow::timed("ops / 1000");
    flow.add("calibrate \"0%\"");
    flow.flow(&["check", "m.kdl"]).exits(2).says("at most 100 %");
    flow.flow(&["calibrate", "m.kdl", "--share", "200%"]).exits(2).says("at most 100%");
}

#[test]
fn plan_says_for_how_long_the_slots_are_held_from_one_measured_sample() {
    let flow = Flow::timed("ops / 1000");
    flow.flow(&["plan", "m.kdl"]).settles().says("is unknown: no process of these commits");
    flow.flow(&["run", "m.kdl", "--until", "baseline"]).settles();
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).settles().json();
    let hours = &plan["slot_hours"];
    assert_eq!((hours["measurements"].as_u64(), hours["sampled"].as_u64()), (Some(4), Some(4)));
    let of = |profile: usize, what: &str| hours["profiles"][profile][what].as_f64().unwrap();
    assert!(of(0, "least_h") > 0.0 && of(0, "most_h") > 3.0 * of(0, "least_h"), "{hours}");
    assert!(of(2, "most_h") < of(0, "most_h"), "{hours}");
    flow.flow(&["plan", "m.kdl"]).settles().says("slots: 4 measurements hold them for, in all, screen");
}
