//! The promise of two at once: on one store nothing is done twice, on one slot nobody measures beside another.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use support::{Flow, Ran};

/// Starts all, then waits for all.
fn together(flows: &[&Flow]) -> Vec<Ran> {
    let start = |flow: &&Flow| {
        let mut command = flow.command(&["run", flow.manifest(), "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = flows.iter().map(start).collect();
    running.into_iter().zip(flows).map(|(child, flow)| flow.ran(child.wait_with_output().unwrap())).collect()
}

#[test]
fn two_runs_on_one_store_do_each_action_once_and_both_end_well() {
    let flow = Flow::sample();
    let ran = together(&[&flow, &flow]);
    for ran in &ran {
        ran.settles();
    }
    assert_eq!(ran[0].classes(), ran[1].classes());
    assert_eq!(ran[0].classes().len(), 4);
    flow.settled_each_action_once();
    let keys: BTreeSet<String> = flow.lines().iter().map(|line| line["key"].to_string()).collect();
    let executed = |ran: &Ran| ran.finished()["actions"]["executed"].as_u64().unwrap();
    assert_eq!(executed(&ran[0]) + executed(&ran[1]), keys.len() as u64);
    for ran in &ran {
        let actions = &ran.finished()["actions"];
        assert_eq!(
            actions["executed"].as_u64().unwrap() + actions["cached"].as_u64().unwrap(),
            actions["total"].as_u64().unwrap()
        );
    }
    flow.run().settles().executes_nothing();
}

#[test]
fn five_runs_on_one_store_that_was_killed_share_the_rest() {
    let flow = Flow::sample();
    let mut first = flow.start();
    support::until("something is settled", || !flow.ends("baseline", "succeeded").is_empty());
    first.kill().unwrap();
    first.wait().unwrap();
    let ran = together(&[&flow, &flow, &flow, &flow, &flow]);
    for ran in &ran {
        assert_eq!(ran.settles().classes().len(), 4);
    }
    flow.settled_each_action_once();
}

/// A project whose tests hold the slot `a` and log when they begin and end.
fn that_logs(log: &Path, slots: &Path) -> Flow {
    let mut flow = Flow::sample();
    flow.env("FLOW_SLOTS", &slots.display().to_string());
    flow.add("slots { cpu \"a\" }");
    let folder = log.parent().unwrap().display();
    flow.add(&format!("step patched {{ holds cpu=1; write \"{folder}\" }}"));
    let python = format!(
        r#"
import atexit, os
def say(what):
    with open("{log}", "a") as f:
        f.write(what + " " + os.environ["FLOW_SLOT"] + "\n")
say("begin")
atexit.register(say, "end")
"#,
        log = log.display()
    );
    for name in ["one", "two"] {
        flow.edit(&format!("tests/{{{name}}}.py"), |text| format!("{python}{text}"));
    }
    flow
}

#[test]
fn two_stores_with_one_slot_never_hold_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, slots) = (dir.path().join("log"), dir.path().join("slots"));
    let (one, two) = (that_logs(&log, &slots), that_logs(&log, &slots));
    for ran in together(&[&one, &two]) {
        ran.settles();
    }
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    // Two baselines and four comparisons a store, each of several processes.
    assert!(lines.len() >= 2 * 2 * 12, "{log}");
    for pair in lines.chunks(2) {
        assert_eq!(pair, ["begin cpu/a", "end cpu/a"], "{log}");
    }
}
