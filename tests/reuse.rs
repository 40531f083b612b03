//! The promise of reuse: a new version of an agent, or another environment, draws again only what the manifest wants, says
//! which draws are old, and never passes a set that was chosen by outcome off as one agent's rate.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;

use support::Flow;

/// An agent installed from a folder, whose version string never changes: it fails on commit `two` until `lib.txt` says `fixed`.
const ACTOR: &str = r#"#!/usr/bin/env python3
import pathlib, sys
if sys.argv[1:] == ["--version"]:
    print("actor 1.0"); sys.exit()
lib = (pathlib.Path(__file__).parent / "lib.txt").read_text().strip()
if lib != "fixed" and sys.argv[1] == "two":
    print("a bug of this version", file=sys.stderr); sys.exit(3)
work = pathlib.Path("pkg/work.py")
work.write_text(work.read_text().replace("OPS[0] += 10", "OPS[0] += 2"))
"#;

fn actor() -> Flow {
    let flow = Flow::sample();
    flow.write("actor/actor.py", ACTOR);
    flow.write("actor/lib.txt", "broken\n");
    let path = flow.path("actor/actor.py");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    flow.edit("agents.kdl", |text| {
        format!("{text}agent actor {{ run \"{{tool.actor}}\" \"{{commit.which}}\"; version \"1\" }}\n")
    });
    flow.write(
        "commits.jsonl",
        "{\"human\": \"{one:40}\", \"which\": \"one\"}\n{\"human\": \"{two:40}\", \"which\": \"two\"}\n",
    );
    flow.replace("m.kdl", "commits file=\"commits.txt\"", "commits table=\"commits.jsonl\"");
    flow.add("tool actor \"actor/actor.py\" { probe \"--version\"; source \"actor\" }");
    flow.add("candidate actor agent=actor {\n        // reuse\n    }");
    flow
}

/// Without `replace`, which wants a change.
fn with(flow: &Flow, reuse: &str) {
    flow.edit("m.kdl", |text| {
        let at = text.find("candidate actor").unwrap();
        let (head, tail) = text.split_at(at);
        let end = tail.find("\n    }").unwrap();
        format!("{head}candidate actor agent=actor {{\n        {reuse}{}", &tail[end..])
    });
}

#[test]
fn a_changed_source_tree_draws_again_and_why_says_so_though_the_version_string_is_the_same() {
    let flow = actor();
    let first = flow.run();
    first.settles();
    assert_eq!(first.class("{one}/actor/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(first.class("{two}/actor/1"), "AGENT_ERROR");
    flow.write("actor/__pycache__/x.pyc", "what running it leaves");
    flow.run().settles().executes_nothing();
    flow.write("actor/lib.txt", "fixed\n");
    let why = flow.flow(&["why", "{two}", "m.kdl"]);
    why.exits(0).says("source actor").says("changed lib.txt");
    let again = flow.run();
    again.settles();
    assert_eq!(again.class("{two}/actor/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(flow.ends("agent", "succeeded").len() + flow.ends("agent", "CRASHED").len(), 2 * 2 + 2 + 2);
}

#[test]
fn only_what_ended_by_a_cause_is_drawn_again_and_the_set_is_called_composite() {
    let flow = actor();
    flow.run().settles();
    with(&flow, "reuse except cause=\"CRASHED\"");
    flow.run().settles().executes_nothing();
    flow.write("actor/lib.txt", "fixed\n");
    flow.flow(&["plan", "m.kdl"]).exits(0).says("reused");
    let line = 1 + std::fs::read_to_string(flow.path("m.kdl"))
        .unwrap()
        .split("reuse except")
        .next()
        .unwrap()
        .matches('\n')
        .count();
    let rule = format!("`reuse except cause=\"CRASHED\"` (m.kdl:{line})");
    let why = |more: &[&str]| {
        let said = flow.flow(&[&["why", "pkg/{one}/actor/1"], more].concat());
        said.exits(0).says("reused");
        said.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(why(&["m.kdl"]).contains(&rule), "{}", why(&["m.kdl"]));
    let again = flow.run();
    again.settles().executes(&[
        "{two}/actor/1 agent",
        "{two}/actor/1 patch",
        "{two}/actor/1 patched",
        "{two}/actor/1 classify",
    ]);
    assert_eq!(again.finished()["actions"]["reused"], 1);
    assert!(why(&["--run"]).contains(&rule), "{}", why(&["--run"]));
    let table = flow.flow(&["run", "m.kdl"]);
    let said = table.settles().stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in
        ["is COMPOSITE", "2 of 2 improved", "alone: 1 of 2 improved", "alone: 1 of 1 improved", "REUSED", "1 reused"]
    {
        assert!(said.contains(words), "{words} is not in {said}");
    }
}

#[test]
fn draws_of_a_usable_job_of_a_run_or_none_stand_as_the_manifest_says() {
    let flow = actor();
    let first = flow.run();
    let run = first.settles().finished()["run"].as_str().unwrap().to_owned();
    flow.write("actor/lib.txt", "fixed\n");
    let drawn = |reuse: &str| {
        with(&flow, reuse);
        let plan = flow.flow(&["plan", "m.kdl", "--json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan.exits(0).stdout).unwrap();
        let state = |name: &str| {
            let own = |action: &&serde_json::Value| {
                let axes = &action["axes"];
                action["step"] == "agent" && axes["candidate"] == "actor" && axes["commit"] == flow.id(name)
            };
            plan["actions"].as_array().unwrap().iter().find(own).unwrap()["state"].as_str().unwrap().to_owned()
        };
        [state("one"), state("two")]
    };
    assert_eq!(drawn("reuse usable"), ["reused", "changed"]);
    assert_eq!(drawn(&format!("reuse run=\"{run}\"")), ["reused", "reused"]);
    // What is paid for anew says why no draw that is there stands.
    let why = |reuse: &str| {
        with(&flow, reuse);
        let said = flow.flow(&["why", "pkg/{two}/actor/1", "m.kdl", "--step", "agent"]).exits(0).stdout.clone();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let said = why("reuse usable");
    assert!(said.contains("does not hold for the draw there is: its job ended AGENT_ERROR"), "{said}");
    let said = why("reuse except cause=\"CRASHED\"");
    assert!(said.contains("does not hold for the draw there is: its job ended in CRASHED"), "{said}");
    // A run that is not there has no draws, and nobody wants to pay for a typing error.
    assert_eq!(drawn("reuse run=\"20000101T000000Z-0000\""), ["changed", "changed"]);
    let plan = flow.flow(&["plan", "m.kdl"]);
    plan.exits(0).says("the store has no run 20000101T000000Z-0000").says("a run would not start without");
    for verb in ["check", "run"] {
        flow.flow(&[verb, "m.kdl"]).exits(2).says("the store has no run 20000101T000000Z-0000");
    }
    with(&flow, &format!("reuse run=\"{}\"", &run[..16]));
    flow.flow(&["check", "m.kdl"]).exits(2).says(&format!("write the whole id: {run}"));
    assert_eq!(drawn("reuse strict"), ["changed", "changed"]);
    assert_eq!(drawn("samples 1"), ["changed", "changed"]);
}

#[test]
fn a_cause_that_only_the_job_can_end_by_is_no_reason_to_keep_its_draw() {
    let flow = actor();
    flow.edit("actor/actor.py", |text| text.replace("\"OPS[0] += 2\"", "\"OPS[0] += 10\""));
    flow.run().settles();
    flow.write("actor/lib.txt", "fixed\n");
    let reused = |reuse: &str| {
        with(&flow, reuse);
        flow.flow(&["plan", "m.kdl", "--json"]).exits(0).json()["reuse"].clone()
    };
    assert_eq!(reused("reuse except cause=\"CRASHED\""), 1, "one crashed, and one left no patch");
    assert_eq!(reused("reuse except cause=\"NO_PATCH\""), 0);
}

#[test]
fn what_is_reused_tells_who_brought_the_version_that_it_stands_for() {
    let flow = actor();
    flow.write(".gitignore", "/cache/\n/repo/\n");
    let git = |author: &str, args: &[&str]| {
        let name = format!("user.name={author}");
        let output = std::process::Command::new("git")
            .args(["-c", &name, "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(flow.path("."))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    git("Ann", &["init", "-q", "."]);
    with(&flow, "reuse except cause=\"CRASHED\"");
    git("Ann", &["add", "-A"]);
    git("Ann", &["commit", "-q", "-m", "start"]);
    flow.run().settles();
    flow.edit("agents.kdl", |text| {
        text.replace("\"{commit.which}\"; version \"1\"", "\"{commit.which}\"; version \"2\"")
    });
    git("Quin", &["commit", "-q", "-a", "-m", "another version"]);
    let why = flow.flow(&["why", "pkg/{one}/actor/1", "m.kdl", "--step", "agent"]);
    why.exits(0).says("reused").says("version: 1 -> 2").says("Quin: another version").says("agents.kdl:");
}

#[test]
fn another_environment_draws_again_only_where_the_manifest_is_strict() {
    let flow = actor();
    flow.write("env/env.sh", "#!/bin/sh\ncat \"$(dirname \"$0\")/list\"\n");
    std::fs::set_permissions(flow.path("env/env.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    flow.write("env/list", "numpy 1\n");
    flow.add("tool tools \"env/env.sh\" { probe \"x\"; watch \"env\" }");
    flow.add("step agentenv uses=environment { needs checkout; recipe interpreter tool=tools }");
    flow.add("step agent { needs checkout agentenv }");
    flow.replace("steps.kdl", "recipe interpreter", "recipe interpreter tool=python");
    flow.run().settles();
    flow.write("env/list", "numpy 2\n");
    let ran = flow.run();
    ran.settles();
    assert_eq!(ran.finished()["actions"]["reused"], 6);
    assert!(ran.executed().iter().all(|action| action.ends_with("agentenv")), "{:?}", ran.executed());
    with(&flow, "reuse strict");
    flow.run().settles();
    assert_eq!(flow.ends("agent", "succeeded").len() + flow.ends("agent", "CRASHED").len(), 6 + 2);
}

#[test]
fn a_reuse_that_says_nothing_or_too_much_is_a_flaw() {
    let flow = actor();
    for reuse in ["reuse", "reuse except", "reuse usable cause=\"CRASHED\"", "reuse usable run=\"x\""] {
        with(&flow, reuse);
        flow.flow(&["check", "m.kdl"]).exits(2).says("in one of four ways");
    }
    with(&flow, "reuse except cause=\"TOOL_OUTPUT_MISING\"");
    flow.flow(&["check", "m.kdl"]).exits(2).says("TOOL_OUTPUT_MISSING");
}
