//! The shapes that programs read: fields may be added, none may be renamed.

mod support;

use serde_json::Value;
use support::{Flow, until};

fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "no `{field}` in {value}");
    }
}

#[test]
fn a_run_is_one_event_a_line_and_ends_with_its_counts() {
    let flow = Flow::sample();
    let ran = flow.run();
    ran.settles();
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for event in &lines {
        has(event, &["event", "at"]);
    }
    assert_eq!(lines[0]["event"], "run-started");
    for event in lines.iter().filter(|event| event["event"] == "action-settled") {
        has(event, &["key", "axes", "step", "cached", "outcome"]);
        assert!(event["cached"].is_boolean() && event["axes"]["commit"].is_string());
        assert_eq!(event["key"].as_str().map(str::len), Some(64));
    }
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "run-finished");
    has(last, &["run", "jobs", "actions", "classes", "exit"]);
    let count = |name: &str| last["actions"][name].as_u64().unwrap_or_else(|| panic!("no actions.{name} in {last}"));
    let parts = ["executed", "cached", "reused", "skipped", "blocked"].map(count);
    assert_eq!(count("total"), parts.iter().sum::<u64>());
    assert!(count("failed") <= count("executed"));
    assert_eq!((last["jobs"].as_u64(), last["exit"].as_i64()), (Some(4), Some(0)));
    assert_eq!(last["classes"]["SUCCESS_IMPROVEMENT"], 4);
}

#[test]
fn causes_are_told_before_effects() {
    let flow = Flow::sample();
    let events = flow.run().events();
    let mut settled: Vec<(String, String)> = Vec::new();
    for event in &events {
        let point = |axis: &str| event["axes"][axis].as_str().unwrap_or_default().to_owned();
        let name = format!("{}/{}", &point("commit").get(..8).unwrap_or_default(), point("candidate"));
        match event["event"].as_str().unwrap() {
            "action-settled" => settled.push((name, event["step"].as_str().unwrap().to_owned())),
            "action-started" if event["step"] == "patched" => {
                assert!(
                    settled.contains(&(name.clone(), "patch".into())),
                    "{name} patched began before its patch was told"
                );
            }
            "job-settled" => {
                let job = event["job"].as_str().unwrap().split('/').collect::<Vec<_>>();
                let name = format!("{}/{}", job[1], job[2]);
                assert!(settled.contains(&(name.clone(), "classify".into())), "{name} was told before its classify");
            }
            _ => {}
        }
    }
}

#[test]
fn readers_print_one_document_on_one_line() {
    let flow = Flow::sample();
    flow.run().settles();
    let status = flow.flow(&["status", "--json"]);
    assert_eq!(status.settles().stdout.lines().count(), 1);
    let status = status.json();
    has(
        &status,
        &["run", "pipeline", "manifest", "state", "alive", "began", "exit", "jobs", "settled", "classes", "steps"],
    );
    assert_eq!((&status["state"], &status["exit"], &status["settled"]), (&"finished".into(), &0.into(), &4.into()));
    for step in status["steps"].as_array().unwrap() {
        has(step, &["step", "waiting", "running", "done", "left", "executed", "failed"]);
        assert_eq!((&step["waiting"], &step["running"]), (&0.into(), &0.into()), "{step}");
    }
    let show = flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]);
    assert_eq!(show.settles().stdout.lines().count(), 1);
    let show = show.json();
    has(
        &show,
        &["job", "axes", "class", "owner", "agent", "speedup", "marks", "tokens", "steps", "meaning", "next_action"],
    );
    assert_eq!(show["class"], "SUCCESS_IMPROVEMENT");
    for step in show["steps"].as_array().unwrap() {
        has(step, &["step", "kind", "state", "key", "attempts"]);
        has(&step["attempts"][0], &["number", "speaks", "attempt", "run", "at", "wall_ms", "outcome"]);
    }
}

#[test]
fn check_prints_one_document_with_each_flaw_and_its_line() {
    let flow = Flow::sample();
    let good = flow.flow(&["check", "m.kdl", "agents.kdl", "--json"]);
    assert_eq!(good.settles().stdout.lines().count(), 1);
    let good = good.json();
    assert_eq!((&good["manifests"][0]["pipeline"], &good["manifests"][0]["commits"]), (&"sample".into(), &2.into()));
    assert_eq!(good["manifests"][1]["flaws"], serde_json::json!([]));
    flow.replace("steps.kdl", "timeout \"1m\"; attempts 3", "timeout 2; attempts 3");
    let bad = flow.flow(&["check", "m.kdl", "--json"]);
    let flaw = bad.exits(2).json()["manifests"][0]["flaws"][0].clone();
    has(&flaw, &["kind", "message", "help", "file", "line"]);
    assert_eq!((flaw["file"].as_str(), flaw["line"].as_u64()), (Some("steps.kdl"), Some(5)), "{flaw}");
}

#[test]
fn what_waits_for_a_closed_lane_is_left_and_not_done() {
    let flow = Flow::sample();
    flow.replace(
        "m.kdl",
        "candidate tidy agent=scripted {",
        "candidate tidy agent=scripted {\n        secret OWN { command \"false\" }",
    );
    flow.run().exits(3);
    let status = flow.flow(&["status", "--json"]).json();
    let step =
        |name: &str| status["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap().clone();
    let counts = |step: &Value| ["waiting", "done", "left"].map(|field| step[field].as_u64().unwrap());
    assert_eq!(counts(&step("agent")), [0, 2, 2], "{status}");
    assert_eq!(counts(&step("patched")), [0, 2, 2], "{status}");
    assert_eq!(counts(&step("baseline")), [0, 2, 0], "{status}");
    flow.flow(&["status"]).settles().says("left");
}

#[test]
fn status_tells_of_a_run_at_work_and_of_one_that_was_killed() {
    let flow = Flow::sample();
    flow.write("scripts/tidy/{one}.json", r#"{"delay": "30s"}"#);
    let mut run = flow.start();
    let status = || flow.flow(&["status", "--json"]);
    until("the agent runs", || {
        let status = status();
        status.code == Some(0)
            && status.json()["running"].as_array().is_some_and(|all| {
                all.iter().any(|one| {
                    one["step"] == "agent"
                        && one["axes"]["candidate"] == "tidy"
                        && one["axes"]["commit"] == flow.id("one")
                })
            })
    });
    let at_work = status().json();
    assert_eq!((&at_work["state"], &at_work["alive"]), (&"running".into(), &true.into()));
    flow.flow(&["status"]).settles().says("running now").says("{one}/tidy/1 agent");
    flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"]).settles().says("running");
    run.kill().unwrap();
    run.wait().unwrap();
    // A kill may tear the last line: what is whole is told.
    let run_id = at_work["run"].as_str().unwrap();
    let journal = flow.cache().join("runs").join(run_id).join("journal.jsonl");
    let mut torn = std::fs::read(&journal).unwrap();
    torn.truncate(torn.len() - 20);
    std::fs::write(&journal, torn).unwrap();
    // A child that was just being spawned has the run's lock until it executes.
    until("the run is dead", || status().json()["alive"] == false);
    let killed = status().json();
    assert_eq!((&killed["state"], &killed["alive"], &killed["exit"]), (&"died".into(), &false.into(), &Value::Null));
    flow.flow(&["status"]).settles().says("died").says("flow run").says("killed, or the machine went down");
}
