//! The promise of rulings: a person's judgement is a line in git, shown beside what flow says and never in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

fn ruled(line: &str) -> Flow {
    let mut flow = Flow::sample();
    flow.env("COLUMNS", "300");
    flow.run().settles();
    flow.add("rulings \"rulings.kdl\"");
    flow.write("rulings.kdl", &format!("flow 1\n{line}\n"));
    flow
}

#[test]
fn a_ruling_stands_beside_the_class_runs_nothing_and_counts() {
    let flow = ruled("ruling \"pkg/{one}/tidy/1\" verdict=SUCCESS_NEUTRAL because=\"it is a cache\"");
    let run = flow.flow(&["run", "m.kdl"]);
    run.settles().says("SUCCESS_IMPROVEMENT").says("ruled SUCCESS_NEUTRAL: it is a cache");
    run.says("pkg/{one}/tidy/1: SUCCESS_NEUTRAL by a person, SUCCESS_IMPROVEMENT by flow");
    run.says("3 of 4 jobs improved, 1 neutral, 1 of these by a person's ruling");
    flow.run().settles().executes_nothing();
    let job = flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).settles().json();
    assert_eq!(
        (job["class"].as_str(), job["ruling"]["verdict"].as_str()),
        (Some("SUCCESS_IMPROVEMENT"), Some("SUCCESS_NEUTRAL"))
    );
    flow.flow(&["show", "pkg/{one}/tidy/1"]).settles().says("SUCCESS_NEUTRAL by a person: it is a cache");
    flow.flow(&["status"]).settles().says("ruling: pkg/{one}/tidy/1: SUCCESS_NEUTRAL: it is a cache");
}

#[test]
fn a_job_that_is_taken_out_is_in_no_rate_is_not_begun_and_is_listed() {
    let flow = ruled("skip \"pkg/{one}/tidy/1\" because=\"stopped by hand\"");
    let run = flow.flow(&["run", "m.kdl"]);
    run.settles()
        .says("3 of 3 jobs improved")
        .says("pkg/{one}/tidy/1: taken out by a person, SUCCESS_IMPROVEMENT by flow")
        .says("stopped by hand");
    flow.edit("patches/tidy/{one}.patch", |text| text.replace("+        OPS[0] += 5", "+        OPS[0] += 4"));
    flow.run().settles().executes_nothing();
}

#[test]
fn a_ruling_of_a_job_that_is_not_there_is_said() {
    let flow = ruled("ruling \"pkg/{one}/tidi/1\" verdict=SUSPECT because=\"odd\"");
    let said = flow.flow(&["check", "m.kdl"]);
    said.settles().says("is no job").says("the nearest is").says("rulings.kdl:2");
    let said = flow.flow(&["run", "m.kdl"]);
    assert!(said.settles().stderr.contains("is no job of the manifest"), "{}", said.stderr);
}

#[test]
fn flaws_of_the_file_are_told_with_the_others() {
    let flow = ruled(
        "ruling \"a\" verdict=FINE because=\"x\"\nskip \"b\"\nskip \"c\" because=\" \"\nskip \"c\" because=\"d\"",
    );
    flow.flow(&["check", "m.kdl"]).exits(2).says("FINE").says("because").says("says why").says("judged twice");
}
