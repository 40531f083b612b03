//! The promise of `why` beyond the change: what a key holds and what not, what a cause costs, how a job differs from another,
//! and which rule lets an old draw stand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use serde_json::Value;
use support::Flow;

/// The sample whose agent has a config, a secret, a variable in no key and an expected cost.
fn rich() -> Flow {
    let mut flow = Flow::sample();
    flow.write("tidy.yaml", "steps: 30\n");
    flow.edit("agents.kdl", |text| {
        text.replace(
            "agent scripted { run ",
            "agent scripted { run \"sh\" \"-c\" \"cat $0 >/dev/null; exec \\\"$@\\\"\" \"{config}\" ",
        )
    });
    flow.replace(
        "m.kdl",
        "agent=scripted {",
        "agent=scripted {\n        config \"tidy.yaml\"\n        expect cost=(usd)2.00 time=\"10m\"\n        secret API_KEY\n        pass hash=#false NOISE",
    );
    flow.env("API_KEY", "sk-very-secret-0123456789");
    flow.env("NOISE", "loud");
    flow.run().settles();
    flow
}

fn step(document: &Value, job: usize, step: &str) -> Value {
    let steps = document["jobs"][job]["steps"].as_array().unwrap();
    steps.iter().find(|known| known["step"] == step).unwrap().clone()
}

#[test]
fn a_hit_tells_what_its_key_holds_and_what_it_does_not() {
    let flow = rich();
    let said = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--key", "--step", "agent"]);
    said.exits(0).says("in its key:").says("human commit").says("argv").says("not in its key:");
    said.says("secret API_KEY: read anew at each attempt, never stored")
        .says("variable NOISE: passed with `hash=#false`");
    said.says("timeout 1 m 0 s: raised, it runs again only what had met it").says("failure tables").says("prices");
    said.says("the program sh: no declared `tool`");
    assert!(!said.stdout.contains("very-secret") && !said.stdout.contains("loud"), "{}", said.stdout);
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 80), "{}", said.stdout);
    let document = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--key", "--json"]).exits(0).json();
    let agent = step(&document, 0, "agent");
    assert_eq!(agent["known"]["ingredients"][0]["ingredient"], "human commit", "{agent}");
    assert_eq!(agent["known"]["ingredients"][0]["value"], flow.id("one"));
    let beside = agent["known"]["not_in_key"].as_array().unwrap();
    assert!(beside.iter().any(|beside| beside["what"] == "secret API_KEY"), "{agent}");
    // After a run the record alone is known.
    let document = flow.flow(&["why", "pkg/{one}/tidy/1", "--run", "--key", "--json"]).exits(0).json();
    assert_eq!(step(&document, 0, "agent")["known"]["ingredients"], agent["known"]["ingredients"]);
}

#[test]
fn an_answer_of_a_tool_has_its_age_and_one_of_an_older_flow_none() {
    let flow = rich();
    let build = || step(&flow.flow(&["why", "{one}", "m.kdl", "--key", "--json"]).exits(0).json(), 0, "build");
    assert!(build()["known"]["probes"][0]["age_s"].is_number(), "{}", build());
    flow.flow(&["why", "{one}", "m.kdl", "--key"])
        .says("tool python: asked ")
        .says("again when its program or packages change");
    let path = flow.cache().join("index/probes.json");
    let known: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let undated =
        known.as_object().unwrap().iter().map(|(question, known)| (question.clone(), known["answer"].clone()));
    std::fs::write(&path, Value::Object(undated.collect()).to_string()).unwrap();
    assert_eq!(build()["known"]["probes"][0]["age_s"], Value::Null);
    flow.flow(&["why", "{one}", "m.kdl", "--key"]).says("tool python: asked at an unknown time");
    flow.run().settles().executes_nothing();
}

#[test]
fn each_cause_of_a_plan_has_its_price() {
    let flow = rich();
    flow.flow(&["plan", "m.kdl", "--explain"]).exits(0).says("nothing would be executed");
    flow.write("tidy.yaml", "steps: 31\n");
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    flow.edit("tests/{two}.py", |text| format!("{text}# a comment\n"));
    let said = flow.flow(&["plan", "m.kdl", "--explain"]);
    said.exits(0);
    let text = said.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    // What the tests of a changed script read anew is counted once, though a new patch would have them run too.
    assert!(text.contains("config tidy.yaml changed: 2 agents, 2 patches"), "{}", said.stdout);
    assert!(text.contains("about $4.00"), "{}", said.stdout);
    assert!(text.contains("script changed: 6 tests"), "{}", said.stdout);
    let plan = flow.flow(&["plan", "m.kdl", "--explain", "--json"]).exits(0).json();
    let causes = plan["causes"].as_array().unwrap();
    let all: u64 = causes
        .iter()
        .flat_map(|cause| cause["actions"].as_object().unwrap().values())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(Value::from(all), plan["execute"], "{plan}");
    assert_eq!(
        (&causes[0]["cause"], &causes[0]["cost_usd"]["known"]),
        (&"config tidy.yaml changed".into(), &4.0.into())
    );
    flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says("expected cost: $2.00");
    let why = flow.flow(&["why", "{one}", "m.kdl", "--json"]).exits(0).json();
    assert_eq!(why["estimate"]["cost_usd"]["known"], 2.0, "{why}");
}

#[test]
fn what_is_paid_for_certain_is_told_from_what_may_be_served_after_all() {
    let flow = rich();
    let plan = |flow: &support::Flow| {
        flow.flow(&["plan", "m.kdl"]).exits(0).stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    assert!(plan(&flow).contains("expected cost: $0: no agent that is paid for would run"), "{}", plan(&flow));
    flow.edit("steps.kdl", |text| text.replace("protect \"tests/**\"", "protect \"tests/**\" \"docs/**\""));
    let said = plan(&flow);
    let words = "expected cost: certain $0.00; at most $4.00 + 2 unknown, of which $4.00 + 2 unknown is for 4 agents that only \
                 follow:";
    assert!(said.contains(words), "{said}");
    flow.write("tidy.yaml", "steps: 31\n");
    let words =
        "expected cost: certain $4.00; at most $4.00 + 2 unknown, of which unknown is for 2 agents that only follow:";
    assert!(plan(&flow).contains(words), "{}", plan(&flow));
    // A budget that would stop it is no matter of the plan alone.
    flow.replace("m.kdl", "candidate human agent=human", "candidate human agent=human { expect cost=(usd)0.01 }");
    flow.add("budget (usd)0.50");
    let why = flow.flow(&["why", "{one}", "m.kdl"]).exits(0).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(why.contains("the budget allows 0 of 2 jobs"), "{why}");
}

#[test]
fn a_line_a_step_and_one_step_alone() {
    let flow = rich();
    flow.write("tidy.yaml", "steps: 31\n");
    let said = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--short"]);
    said.exits(0)
        .says("pkg/{one}/tidy/1 agent  changed  config\n")
        .says("pkg/{one}/tidy/1 patch  follows  after agent\n");
    assert_eq!(said.stdout.lines().count(), 8, "{}", said.stdout);
    let one = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--step", "agent", "--json"]).exits(0).json();
    assert_eq!(one["jobs"][0]["steps"].as_array().unwrap().len(), 1);
    assert_eq!((&one["roots"], &one["consequences"]), (&1.into(), &0.into()));
    flow.flow(&["why", "{one}", "m.kdl", "--step", "nothing"])
        .exits(2)
        .says("there is no step `nothing`")
        .says("patched");
}

#[test]
fn a_job_is_compared_with_its_sibling_and_with_a_run() {
    let flow = rich();
    let run = flow.run().settles().finished()["run"].as_str().unwrap().to_owned();
    let said = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--against", "pkg/*/human/1"]);
    said.exits(0)
        .says("pkg/{one}/tidy/1\n  against pkg/{one}/human/1, which is the old side\n")
        .says("  checkout  same ")
        .says("  agent     differs ");
    said.says("      config: (none) -> sha256:").says("      tree: ");
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 80), "{}", said.stdout);
    let before = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--against", &run, "--json"]).exits(0).json();
    assert!(before["jobs"][0]["steps"].as_array().unwrap().iter().all(|step| step["state"] == "same"), "{before}");
    flow.write("tidy.yaml", "steps: 31\n");
    let after = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--against", &run, "--json"]).exits(0).json();
    let agent = step(&after, 0, "agent");
    assert_eq!(
        (agent["state"].as_str(), agent["changes"][0]["diff"].as_str()),
        (Some("differs"), Some("steps: 30 -> 31"))
    );
    assert_eq!(step(&after, 0, "patch")["state"], "unknown");
    flow.run().settles();
    let ran = flow.flow(&["why", "pkg/{one}/tidy/1", "--run", "--against", &run, "--json"]).exits(0).json();
    assert_eq!(
        (&step(&ran, 0, "agent")["state"], &step(&ran, 0, "patch")["state"]),
        (&"differs".into(), &"same".into())
    );
    flow.flow(&["why", "{one}", "m.kdl", "--against", "nobody"])
        .exits(2)
        .says("it is no run, no job and no git revision");
    flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--against", "pkg/{one}/tidy/1"]).exits(2).says("the job itself");
}

#[test]
fn a_commit_is_found_in_the_newest_manifest_and_the_others_are_named() {
    let flow = Flow::sample();
    flow.run().settles();
    std::fs::copy(flow.path("m.kdl"), flow.path("n.kdl")).unwrap();
    flow.flow(&["run", "n.kdl", "--json"]).settles();
    flow.flow(&["why", "{one}"]).exits(0).says("n.kdl, the manifest of run").says("m.kdl holds it too");
}
