//! The promise of `why`: before a run it says what would happen and which ingredient is to blame, after it what did, and both
//! say the same.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use support::{Flow, Ran, title};

/// `state ingredient ingredient`, by action.
type Said = BTreeMap<String, String>;

fn sentence(step: &Value) -> String {
    let changes = step["changes"].as_array().unwrap().iter();
    let words = changes.map(|change| change["ingredient"].as_str().unwrap());
    [step["state"].as_str().unwrap()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// What `flow plan` says would be executed.
fn planned(flow: &Flow) -> Said {
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).exits(0).json();
    let actions = plan["actions"].as_array().unwrap().iter();
    let said: Said = actions
        .filter(|action| !["hit", "skipped", "blocked"].contains(&action["state"].as_str().unwrap()))
        .map(|action| (title(action), sentence(action)))
        .collect();
    assert_eq!(plan["execute"], said.len());
    said
}

/// What `flow why` says of steps that are not served, of one commit.
fn told(ran: &Ran) -> Said {
    let mut said = Said::new();
    for job in ran.exits(0).json()["jobs"].as_array().unwrap() {
        let name = job["job"].as_str().unwrap().split_once('/').unwrap();
        for step in job["steps"].as_array().unwrap() {
            let shared = ["checkout", "build", "baseline"].contains(&step["step"].as_str().unwrap());
            let point = if shared { name.1.split('/').next().unwrap() } else { name.1 };
            if step["state"] != "hit" && step["state"] != "blocked" {
                said.insert(format!("{point} {}", step["step"].as_str().unwrap()), sentence(step));
            }
        }
    }
    said
}

fn before(flow: &Flow, commit: &str) -> Said {
    told(&flow.flow(&["why", commit, "m.kdl", "--json"]))
}

fn after(flow: &Flow, commit: &str) -> Said {
    told(&flow.flow(&["why", commit, "--run", "--json"]))
}

/// The step of a job in a `why` document.
fn step(ran: &Ran, job: usize, step: &str) -> Value {
    let document = ran.exits(0).json();
    let steps = document["jobs"][job]["steps"].as_array().unwrap();
    steps.iter().find(|known| known["step"] == step).unwrap().clone()
}

fn is(flow: &Flow, said: &Said, wanted: &[(&str, &str)]) {
    let wanted: Said = wanted.iter().map(|(action, what)| (flow.fill(action), (*what).to_owned())).collect();
    assert_eq!(*said, wanted);
}

fn settled() -> Flow {
    let flow = Flow::sample();
    flow.run().settles();
    flow
}

#[test]
fn a_manifest_that_was_never_run_is_all_new_and_one_cause() {
    let flow = Flow::sample();
    assert!(planned(&flow).values().all(|what| what == "new"));
    flow.flow(&["plan", "m.kdl"])
        .exits(0)
        .says("new: nothing like it was run before")
        .says("1 root of 3 actions, 18 consequences: 21 of");
    assert_eq!(before(&flow, "{one}").len(), 11);
    flow.run().settles();
    assert!(planned(&flow).is_empty());
    flow.flow(&["plan", "m.kdl"]).exits(0).says("nothing would be executed");
    let hit = step(&flow.flow(&["why", "{one}", "--json"]), 1, "agent");
    assert_eq!(hit["state"], "hit");
    assert!(hit["served_by"]["attempt"].is_string() && hit["served_by"]["run"].is_string(), "{hit}");
    assert!(hit["served_by"]["age_s"].is_number() && hit["served_by"]["at"].is_string(), "{hit}");
}

#[test]
fn one_byte_in_a_patch_is_blamed_with_its_lines() {
    let flow = settled();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4");
    let wanted = [
        ("{one}/tidy/1 agent", "changed file patch"),
        ("{one}/tidy/1 patch", "follows"),
        ("{one}/tidy/1 patched", "follows"),
        ("{one}/tidy/1 classify", "follows"),
    ];
    let wanted: Vec<_> =
        wanted.into_iter().filter(|(action, _)| planned(&flow).contains_key(&flow.fill(action))).collect();
    is(&flow, &planned(&flow), &wanted);
    is(&flow, &before(&flow, "{one}"), &wanted);
    assert!(before(&flow, "{two}").is_empty());
    let agent = step(&flow.flow(&["why", "{one}", "m.kdl", "--json"]), 1, "agent");
    let diff = agent["changes"][0]["diff"].as_str().unwrap();
    assert!(diff.contains("\n-+        OPS[0] += 5\n") && diff.contains("\n++        OPS[0] += 4"), "{diff}");
    flow.flow(&["why", "{one}", "m.kdl"]).says("++        OPS[0] += 4").says("1 root, 3 consequences");
    flow.run().settles();
    let said = after(&flow, "{one}");
    assert_eq!(said[&flow.fill("{one}/tidy/1 agent")], "changed file patch");
    assert_eq!(said[&flow.fill("{one}/tidy/1 patch")], "follows work tree");
    assert_eq!(said[&flow.fill("{one}/tidy/1 patched")], "follows tree");
    assert!(said[&flow.fill("{one}/tidy/1 classify")].starts_with("follows "));
    flow.flow(&["why", "{one}", "--run"]).exits(0).says("1 root, 3 consequences");
}

#[test]
fn the_text_of_why_reads_well_at_80_columns() {
    let flow = settled();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4");
    let ran = flow.flow(&["why", "{one}", "m.kdl"]);
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
    // What it may come to differs from run to run.
    let (told, comes_to) = ran.stdout.split_once("tidy: 1 job, cost unknown, ").unwrap();
    assert!(comes_to.contains("\nexpected cost: unknown: no attempt of tidy has a known cost"), "{comes_to}");
    insta::assert_snapshot!(steady(told));
}

/// The text without what differs from run to run: keys, attempts and ages.
fn steady(text: &str) -> String {
    let word = |word: &str| match word.trim_end_matches(',') {
        key if key.len() == 12 && key.bytes().all(|b| b.is_ascii_hexdigit()) => "[key]".to_owned(),
        id if id.contains('T') && id.contains("Z-") => "[attempt]".to_owned(),
        digest if digest.starts_with("sha256:") => "sha256:[digest]".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &str| {
        let line = line.split(' ').map(word).collect::<Vec<_>>().join(" ");
        line.split_once("[attempt]").map_or(line.clone(), |(head, _)| format!("{head}[attempt], [age]"))
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_commit_that_no_run_holds_is_found_in_whichever_manifest_of_the_project_does() {
    let flow = Flow::sample();
    let other = std::fs::read_to_string(flow.path("m.kdl")).unwrap();
    flow.write("never.kdl", &other.replace("commits.txt", "two.txt"));
    flow.write("two.txt", "{two:40}\n");
    flow.write("commits.txt", "{one:40}\n");
    flow.write("broken.kdl", "flow 1\npipeline broken {\n");
    flow.run().settles();
    let found = flow.flow(&["why", "{two}"]);
    found.exits(0).says("never.kdl, of which no run holds it").says("nothing like it was run before");
    flow.flow(&["why", "pkg/{two}/tidy/1"]).exits(0).says("never.kdl, of which no run holds it");
    // The manifest of a run comes first, and what is nowhere is still said to be.
    flow.flow(&["why", "{one}"]).exits(0).says("m.kdl, the manifest of run ");
    flow.flow(&["why", "0123456789"]).exits(2).says("no run holds `0123456789`");
}

#[test]
fn the_test_script_of_a_commit_is_one_cause_for_all_that_runs_it() {
    let flow = settled();
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    let wanted = [
        ("{one} baseline", "changed script"),
        ("{one}/human/1 patched", "changed script"),
        ("{one}/tidy/1 patched", "changed script"),
        ("{one}/human/1 classify", "follows"),
        ("{one}/tidy/1 classify", "follows"),
    ];
    is(&flow, &planned(&flow), &wanted);
    is(&flow, &before(&flow, "{one}"), &wanted);
    let plan = flow.flow(&["plan", "m.kdl"]);
    plan.says("1 baseline, 2 patched").says("1 root of 3 actions, 2 consequences: 5 of").says("critical path: ");
    flow.run().settles();
    let said = after(&flow, "{one}");
    assert_eq!(said[&flow.fill("{one} baseline")], "changed script");
    assert!(said[&flow.fill("{one}/tidy/1 patched")].starts_with("changed script"));
    assert!(said[&flow.fill("{one}/tidy/1 classify")].starts_with("follows"));
}

#[test]
fn a_comment_is_no_reason_and_a_config_is_blamed_by_its_path() {
    let flow = Flow::sample();
    flow.write("tidy.yaml", "models: {x: {y: true, z: 1}}\n");
    flow.edit("agents.kdl", |text| {
        text.replace(
            "agent scripted { run ",
            "agent scripted { run \"sh\" \"-c\" \"cat $0; exec \\\"$@\\\"\" \"{config}\" ",
        )
    });
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"tidy.yaml\"");
    flow.run().settles();
    flow.edit("m.kdl", |text| format!("{text}// a comment\n"));
    flow.write("tidy.yaml", "# a comment\nmodels: {x: {z: 1, y: true}}\n");
    assert!(planned(&flow).is_empty());
    assert!(before(&flow, "{one}").is_empty());
    flow.write("tidy.yaml", "models: {x: {y: false, z: 1}}\n");
    let agent = step(&flow.flow(&["why", "{one}", "m.kdl", "--json"]), 1, "agent");
    assert_eq!(sentence(&agent), "changed config");
    assert_eq!(agent["changes"][0]["diff"], "models.x.y: true -> false");
    // The same patch comes out of it: what was said to follow is served after all.
    flow.run().settles().executes(&["{one}/tidy/1 agent", "{two}/tidy/1 agent"]);
    is(&flow, &after(&flow, "{one}"), &[("{one}/tidy/1 agent", "changed config")]);
}

#[test]
fn another_judgement_concerns_classify_alone() {
    let flow = settled();
    flow.add("step classify { judge min-effect=\"1%\" }");
    let wanted = [("{one}/human/1 classify", "changed judge"), ("{one}/tidy/1 classify", "changed judge")];
    is(&flow, &before(&flow, "{one}"), &wanted);
    assert_eq!(planned(&flow).len(), 4);
    flow.flow(&["plan", "m.kdl"])
        .says("judge: (none) -> min-effect 0.01")
        .says("4 classify")
        .says("1 root of 4 actions, 0 consequences");
    flow.run().settles();
    is(&flow, &after(&flow, "{one}"), &wanted);
}

#[test]
fn a_raised_timeout_concerns_only_what_had_met_it() {
    let flow = Flow::sample();
    flow.write("scripts/tidy/{one}.json", r#"{"delay": "60s"}"#);
    flow.add("step agent { timeout \"1s\" }");
    flow.run().settles();
    flow.replace("m.kdl", "timeout \"1s\"", "timeout \"1500ms\"");
    let said = before(&flow, "{one}");
    assert_eq!(said[&flow.fill("{one}/tidy/1 agent")], "changed limit timeout");
    assert!(before(&flow, "{two}").is_empty());
    flow.flow(&["why", "{one}", "m.kdl"])
        .says("limit timeout: 1.0 s -> 1.5 s")
        .says("the attempt had met the old limit")
        .says("1 root, ");
    flow.run().settles().executes(&["{one}/tidy/1 agent"]);
    is(&flow, &after(&flow, "{one}"), &[("{one}/tidy/1 agent", "changed limit timeout")]);
}

#[test]
fn an_agent_that_makes_the_same_patch_again_is_all_that_runs() {
    let flow = settled();
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        args \"--exit\" \"0\"");
    let agent = step(&flow.flow(&["why", "{one}", "m.kdl", "--json"]), 1, "agent");
    assert_eq!(sentence(&agent), "changed argv");
    assert!(agent["changes"][0]["new"].is_array());
    assert_eq!(agent["changes"][0]["diff"], "+--exit\n+0");
    let said = before(&flow, "{one}");
    assert_eq!(said[&flow.fill("{one}/tidy/1 patched")], "follows");
    flow.flow(&["plan", "m.kdl"]).says("what only follows is served after all");
    flow.run().settles().executes(&["{one}/tidy/1 agent", "{two}/tidy/1 agent"]);
    is(&flow, &after(&flow, "{one}"), &[("{one}/tidy/1 agent", "changed argv")]);
}

#[test]
fn a_renamed_candidate_finds_its_old_records_and_a_new_one_is_new() {
    let flow = settled();
    flow.replace("m.kdl", "candidate tidy ", "candidate neat ");
    assert!(planned(&flow).is_empty());
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4");
    let said = planned(&flow);
    assert_eq!(said[&flow.fill("{one}/neat/1 agent")], "changed file patch");
    assert_eq!(said[&flow.fill("{one}/neat/1 patched")], "follows");
    flow.run().settles();
    flow.replace("m.kdl", "candidate neat agent=scripted {", "candidate neat agent=scripted {\n        samples 2");
    flow.add("candidate idle agent=nop");
    let said = planned(&flow);
    assert_eq!(said.len(), 16);
    assert!(said.keys().all(|action| action.contains("/neat/2 ") || action.contains("/idle/1 ")), "{said:?}");
    assert!(said.values().all(|what| what == "new"), "{said:?}");
}

#[test]
fn a_tool_that_answers_otherwise_is_blamed_by_line() {
    let mut flow = Flow::sample();
    let python = "#!/bin/sh\n[ \"$1\" = -VV ] && { echo Python 3; echo build 1; exit; }\nexec python3 \"$@\"\n";
    flow.write("bin/python", python);
    let path = flow.path("bin/python");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    flow.replace("m.kdl", "tool python \"python3\"", "tool python \"./bin/python\"");
    flow.env("UNUSED", "1");
    flow.run().settles();
    flow.replace("bin/python", "build 1", "build 2");
    let build = step(&flow.flow(&["why", "{one}", "m.kdl", "--json"]), 1, "build");
    assert_eq!(sentence(&build), "changed interpreter");
    assert_eq!(build["changes"][0]["diff"], "build 1 -> 2");
    flow.flow(&["why", "{one}", "m.kdl"]).says("        build 1 -> 2\n").says("1 root, ");
}

#[test]
fn a_set_variable_is_blamed_by_name() {
    let flow = Flow::sample();
    flow.add("step patched { set MODE \"a\" }");
    flow.run().settles();
    flow.replace("m.kdl", "MODE \"a\"", "MODE \"b\"");
    let said = before(&flow, "{one}");
    assert_eq!(said[&flow.fill("{one}/tidy/1 patched")], "changed env MODE");
    flow.flow(&["why", "{one}", "m.kdl"]).says("env MODE: a -> b");
}

#[test]
fn an_unknown_commit_is_answered_by_those_there_are() {
    let flow = settled();
    flow.flow(&["why", "dead", "m.kdl"]).exits(2).says("there is no commit `dead`").says("{one}").says("{two}");
    flow.flow(&["why", "deadbeef"]).exits(2).says("no run holds `deadbeef`").says("{one}");
    flow.flow(&["why", "abc"]).exits(2).says("a commit has at least 4 digits");
    flow.flow(&["why", "{one}", "--run", "1999"]).exits(2).says("there is no run `1999`");
    flow.flow(&["why", "{one}"]).exits(0).says("m.kdl, the manifest of run");
    let one = flow.flow(&["why", "pkg/{one}/tidy/1", "--json"]);
    assert_eq!(one.exits(0).json()["jobs"].as_array().unwrap().len(), 1);
    let one = flow.flow(&["why", "{one}", "--job", "*/*/human/*", "--json"]);
    assert_eq!(one.exits(0).json()["jobs"][0]["job"], flow.fill("pkg/{one}/human/1"));
}

#[test]
fn what_the_machine_lacks_is_named_and_no_fault_of_a_plan() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "tool python \"python3\"", "tool python \"python-of-nowhere\"");
    let plan = flow.flow(&["plan", "m.kdl"]);
    plan.exits(0).says("this machine lacks").says("python-of-nowhere");
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).exits(0).json();
    assert!(plan["missing"][0]["what"].as_str().unwrap().contains("python-of-nowhere"));
}

#[test]
fn a_hit_on_a_failure_says_what_failed() {
    let flow = Flow::sample();
    flow.write("scripts/tidy/{one}.json", r#"{"argv": ["sh", "-c", "echo boom >&2; exit 1"]}"#);
    flow.run();
    let step = step(&flow.flow(&["why", "{one}", "m.kdl", "--json"]), 1, "agent");
    assert_eq!(step["state"], "hit");
    assert!(step["served_by"]["evidence"].as_str().unwrap().contains("boom"), "{step}");
    flow.flow(&["why", "{one}"]).says("CRASHED: boom");
}

#[test]
fn attempts_that_settled_nothing_are_told_each_with_its_cause() {
    let flow = Flow::sample();
    flow.edit("agents.kdl", |text| {
        text.replace("agent nop      { run \"{flow}\"", "agent nop { run \"/nowhere/program\"")
    });
    flow.add("candidate idle agent=nop");
    flow.add("step agent { attempts 1 }");
    flow.run().exits(3);
    let document = || flow.flow(&["why", "pkg/{one}/idle/1", "m.kdl", "--json"]);
    let exhausted = step(&document(), 0, "agent");
    assert_eq!(
        (exhausted["state"].as_str(), exhausted["attempts"][0]["outcome"].as_str()),
        (Some("exhausted"), Some("NOT_STARTED"))
    );
    flow.replace("m.kdl", "attempts 1", "attempts 2");
    let retry = step(&document(), 0, "agent");
    assert_eq!(retry["state"], "retry");
    assert_eq!(retry["attempts"].as_array().unwrap().len(), 1);
    assert!(retry["attempts"][0]["evidence"].as_str().unwrap().contains("/nowhere/program"), "{retry}");
    flow.flow(&["plan", "m.kdl"]).says("the last attempt ended in NOT_STARTED").says("1 root of 2 actions, ");
    flow.run().exits(3);
    flow.flow(&["why", "pkg/{one}/idle/1", "--run"]).exits(0).says("retry").says("NOT_STARTED");
}

#[test]
fn a_change_is_told_from_what_the_newest_run_used() {
    let flow = Flow::sample();
    flow.add("step agent { set LEVEL \"a\" }");
    flow.run().settles();
    for (old, new) in [("a", "b"), ("b", "a")] {
        flow.replace("m.kdl", &format!("LEVEL \"{old}\""), &format!("LEVEL \"{new}\""));
        flow.run().settles();
    }
    flow.replace("m.kdl", "LEVEL \"a\"", "LEVEL \"c\"");
    let why = flow.flow(&["why", "{one}", "m.kdl", "--json"]).settles().json();
    let agent = why["jobs"][0]["steps"].as_array().unwrap().iter().find(|step| step["step"] == "agent").unwrap();
    assert_eq!(agent["changes"][0]["old"], "a", "{agent}");
}

#[test]
fn what_never_came_to_run_is_new_and_blames_no_change() {
    let flow = Flow::sample();
    flow.run_with(&["--only", "*/human/*"]).settles();
    // As it is after a run that was killed between the agent and its patch.
    flow.run_with(&["--only", "*/tidy/*", "--until", "agent"]).settles();
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).settles().json();
    for action in plan["actions"].as_array().unwrap() {
        assert!(action["state"] != "changed", "{action}");
    }
    assert!(
        plan["actions"].as_array().unwrap().iter().any(|action| action["step"] == "patch" && action["state"] == "new")
    );
}

/// What docs/why.md sets beside the words of other programs.
#[test]
fn a_change_of_one_value_is_told_by_its_path_and_a_touch_is_none() {
    let flow = Flow::empty();
    flow.write("config.yaml", "model: m-1\ntemperature: 0.2\n");
    flow.write("prompt.md", "Make it faster.\n");
    flow.write("test.py", "print(1)\n");
    flow.write(
        "m.kdl",
        r#"flow 1
pipeline same {
    axis n "1"
    step patch    uses=command { each n; input config "config.yaml"; input prompt "prompt.md"; run "sh" "-c" "cat {in.config} {in.prompt} > {out.o}"; output o "patch" }
    step measured uses=command { needs patch; input test "test.py"; run "sh" "-c" "cat {in.patch} {in.test} > {out.o}"; output o "measured" }
    step verdict  uses=command { needs measured; run "sh" "-c" "cat {in.measured} > {out.o}"; output o "verdict" }
}
"#,
    );
    flow.run().settles();
    flow.replace("config.yaml", "0.2", "0.7");
    let said = flow.flow(&["why", "*", "m.kdl"]);
    said.settles().says("in config: sha256:7a613a76aa9f -> sha256:6a80761085aa").says("temperature: 0.2 -> 0.7");
    said.says("1 root, 2 consequences: 3 of 3 steps would be executed");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/why.md")).unwrap();
    let (_, page) = page.split_once("## The same change elsewhere").unwrap();
    // Who brought it is another one here.
    for line in said.stdout.lines().filter(|line| !line.trim().is_empty() && !line.contains("not in git")) {
        assert!(page.contains(line), "not in docs/why.md: {line}");
    }
    flow.run().settles();
    let file = std::fs::File::options().append(true).open(flow.path("config.yaml")).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    flow.flow(&["why", "*", "m.kdl"]).settles().says("nothing would be executed");
}
