//! What a miss is compared with: what its own job had last, whoever executed it, whatever it is called today.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use serde_json::Value;
use support::{Flow, Ran, git, title, until};

/// Two jobs of a pipeline of commands whose second step has one key in both.
const CHAIN: &str = r#"flow 1
pipeline chain {
    axis n "alpha" "beta"
    step one uses=command { input a "in/{n}.txt"; run "sh" "-c" "sed s/[12]/0/ $1 > $2" "x" "{in.a}" "{out.o}"; output o "one.txt" }
    step two uses=command { needs one; input cfg "cfg.txt"; set L "1"; run "sh" "-c" "cat $1 $2 > $3" "x" "{in.one}" "{in.cfg}" "{out.o}"; output o "two.txt" }
}
"#;

fn chain() -> Flow {
    let flow = Flow::empty();
    flow.write("m.kdl", CHAIN);
    flow.write("in/alpha.txt", "a1\n");
    flow.write("in/beta.txt", "a2\n");
    flow.write("cfg.txt", "x: 1\n");
    flow
}

/// `state ingredient ingredient`, by action, of what is not served.
fn planned(flow: &Flow, manifest: &str) -> Vec<(String, String)> {
    let plan = flow.flow(&["plan", manifest, "--json"]).exits(0).json();
    let actions = plan["actions"].as_array().unwrap().iter().filter(|action| action["state"] != "hit");
    actions.map(|action| (title(action), sentence(action))).collect()
}

fn sentence(step: &Value) -> String {
    let changes = step["changes"].as_array().unwrap().iter();
    let words = changes.map(|change| change["ingredient"].as_str().unwrap());
    [step["state"].as_str().unwrap()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn step(ran: &Ran, job: usize, step: &str) -> Value {
    let document = ran.exits(0).json();
    let steps = document["jobs"][job]["steps"].as_array().unwrap();
    steps.iter().find(|known| known["step"] == step).unwrap().clone()
}

#[test]
fn a_job_that_shared_the_key_of_another_is_compared_with_what_it_shared() {
    let flow = chain();
    // Beta has a record of its own, of long ago. Since then it shares what alpha executes.
    flow.run_with(&["--only", "beta"]).settles();
    flow.write("cfg.txt", "x: 2\n");
    flow.run_with(&["--only", "alpha"]).settles();
    flow.run().settles();
    flow.replace("m.kdl", "set L \"1\"", "set L \"2\"");
    let said = flow.flow(&["why", "beta", "m.kdl", "--json"]);
    assert_eq!(sentence(&step(&said, 0, "two")), "changed env L");
    assert_eq!(said.json()["roots"], 1);
    flow.run_with(&["--only", "alpha"]).settles();
    flow.run().settles();
    // What beta was served with last has all of these edits: none of them is a reason.
    flow.write("in/beta.txt", "b\n");
    let said = flow.flow(&["why", "beta", "m.kdl", "--json"]);
    assert_eq!(sentence(&step(&said, 0, "one")), "changed in a");
    assert_eq!(sentence(&step(&said, 0, "two")), "follows");
    assert_eq!([&said.json()["roots"], &said.json()["consequences"]], [1, 1]);
    let ran = flow.run();
    ran.settles();
    let after = flow.flow(&["why", "beta", "--run", "--json"]);
    assert_eq!(sentence(&step(&after, 0, "one")), "changed in a");
    assert_eq!(step(&after, 0, "two")["root"], false, "{}", step(&after, 0, "two"));
}

#[test]
fn of_two_that_will_have_one_key_one_is_announced_and_executed() {
    let flow = Flow::sample();
    flow.edit("m.kdl", |text| {
        text.replace("candidate tidy ", "candidate also agent=scripted {\n        file patch \"patches/tidy/{commit.id8}.patch\" optional=#true\n        set X \"1\"\n    }\n    candidate tidy ")
    });
    flow.run().settles();
    flow.add("step patched { set Q \"1\" }");
    let said = planned(&flow, "m.kdl");
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).json();
    let shared = |action: &&Value| action["step"] == "patched" && action["shared_with"].is_string();
    assert!(plan["actions"].as_array().unwrap().iter().any(|action| shared(&action)), "{plan}");
    let ran = flow.run();
    let mut executed = ran.settles().executed();
    let mut announced: Vec<String> =
        said.into_iter().filter(|(_, what)| what.starts_with("changed")).map(|(name, _)| name).collect();
    executed.retain(|name| name.ends_with(" patched") || name.ends_with(" baseline"));
    announced.sort();
    executed.sort();
    assert_eq!(announced, executed);
}

#[test]
fn a_candidate_renamed_with_two_edits_is_compared_with_its_old_self_and_its_costs_follow() {
    let flow = Flow::sample();
    flow.write("tidy.yaml", "steps: 30\n");
    flow.edit("agents.kdl", |text| {
        text.replace(
            "agent scripted { run ",
            "agent scripted { run \"sh\" \"-c\" \"cat $0 >/dev/null; exec \\\"$@\\\"\" \"{config}\" ",
        )
    });
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"tidy.yaml\"");
    flow.run().settles();
    flow.replace("m.kdl", "candidate tidy ", "candidate neat ");
    flow.replace("agents.kdl", "version \"1\"", "version \"2\"");
    flow.write("tidy.yaml", "steps: 31\n");
    let said = flow.flow(&["why", "{one}", "m.kdl", "--json", "--job", "*/*/neat/*"]);
    let agent = step(&said, 0, "agent");
    assert_eq!(sentence(&agent), "changed config version");
    assert!(agent["compared"]["renamed"].as_str().unwrap().starts_with("tidy, which is gone, is taken for"), "{agent}");
    assert_eq!(sentence(&step(&said, 0, "patch")), "follows");
    let said = flow.flow(&["why", "{one}", "m.kdl"]);
    let words = said.says("expected cost: ").stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(" of agents at work from 2 attempts"), "{words}");
    let against = flow.flow(&["why", "pkg/{one}/neat/1", "m.kdl", "--against", "pkg/{one}/tidy/1"]);
    against.exits(0).says("agent     differs").says("version: 1 -> 2");
    flow.run().settles();
    // After the run the words are the same.
    let after = flow.flow(&["why", "{one}", "--run", "--json", "--job", "*/*/neat/*"]);
    assert_eq!(sentence(&step(&after, 0, "agent")), "changed config version");
    // A new one beside it is new, however like it is.
    flow.edit("m.kdl", |text| text.replace("candidate neat ", "candidate more agent=nop\n    candidate neat "));
    assert!(planned(&flow, "m.kdl").iter().all(|(name, what)| name.contains("/more/") && what == "new"));
}

#[test]
fn what_another_manifest_had_is_named_and_speaks_only_where_this_one_was_never_run() {
    let flow = chain();
    flow.write("other.kdl", &CHAIN.replace("set L \"1\"", "set L \"9\""));
    flow.flow(&["run", "other.kdl", "--yes"]).exits(0);
    let said = flow.flow(&["why", "alpha", "m.kdl"]);
    said.exits(0).says("env L: 9 -> 1").says(" of other.kdl had, ");
    flow.run().settles();
    flow.flow(&["run", "other.kdl", "--yes"]).exits(0);
    // Its own last has three things less in common than the other's, and yet it is what this manifest said.
    flow.replace("m.kdl", "set L \"1\"", "set L \"8\"");
    let two = step(&flow.flow(&["why", "alpha", "m.kdl", "--json"]), 0, "two");
    assert_eq!(two["changes"][0]["old"], "1", "{two}");
    assert!(two.get("compared").is_none(), "{two}");
}

#[test]
fn a_damaged_record_is_said_to_be_damaged_and_not_new() {
    let flow = chain();
    flow.run_with(&["--only", "alpha"]).settles();
    let two = flow.lines().into_iter().rfind(|line| line["line"] == "ended" && line["step"] == "two").unwrap();
    let key = two["key"].as_str().unwrap();
    let blob = flow.cache().join(format!("cas/v1/{}/{}", &key[..2], &key[2..]));
    std::fs::remove_file(&blob).unwrap();
    flow.write("cfg.txt", "x: 3\n");
    let said = step(&flow.flow(&["why", "alpha", "m.kdl", "--json"]), 0, "two");
    assert!(said["because"].as_str().unwrap().contains("damaged or gone"), "{said}");
    assert!(said["changes"].as_array().unwrap().is_empty(), "{said}");
    flow.run_with(&["--only", "alpha"]).settles();
    let after = step(&flow.flow(&["why", "alpha", "--run", "--json"]), 0, "two");
    assert_eq!([&after["state"], &after["because"]], [&said["state"], &said["because"]]);
}

#[test]
fn blobs_cut_to_nothing_are_made_again_as_was_announced() {
    let flow = Flow::sample();
    flow.run().settles();
    let mut folders = vec![flow.cache().join("cas")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, "").unwrap();
            }
        }
    }
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    let announced = planned(&flow, "m.kdl");
    let before = flow.flow(&["why", "{one}", "m.kdl", "--json"]).exits(0).json();
    let executed = flow.run().settles().executed();
    // What only follows is served after all where what it reads, and what it had left itself, comes back.
    assert!(executed.iter().all(|name| announced.iter().any(|(known, _)| known == name)), "{executed:?}");
    let sure = announced.iter().filter(|(_, what)| what != "follows");
    assert!(sure.clone().count() > 3 && sure.clone().all(|(name, _)| executed.contains(name)), "{announced:?}");
    let after = flow.flow(&["why", "{one}", "--run", "--json"]).exits(0).json();
    assert_eq!(before["root_steps"], after["root_steps"]);
    assert_eq!(before["roots"], after["roots"]);
    flow.run().settles().executes_nothing();
}

#[test]
fn a_damaged_output_that_would_be_read_is_made_again_as_was_announced() {
    let flow = chain();
    flow.run_with(&["--only", "alpha"]).settles();
    let one = flow.lines().into_iter().rfind(|line| line["line"] == "ended" && line["step"] == "one").unwrap();
    let blob = one["outputs"]["one"]["blob"].as_str().or(one["outputs"]["o"]["blob"].as_str()).unwrap();
    let path = flow.cache().join(format!("cas/v1/{}/{}", &blob[..2], &blob[2..]));
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "z".repeat(length)).unwrap();
    flow.write("cfg.txt", "x: 5\n");
    let said = flow.flow(&["why", "alpha", "m.kdl", "--json"]);
    assert_eq!(sentence(&step(&said, 0, "one")).split(' ').next(), Some("retry"));
    let ran = flow.run_with(&["--only", "alpha"]);
    assert_eq!(ran.settles().executed().len(), 2, "{}", ran.stdout);
}

#[test]
fn roots_and_consequences_are_all_that_is_executed() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    let said = flow.flow(&["why", "{one}", "m.kdl", "--json"]).exits(0).json();
    let count = |field: &str| said[field].as_u64().unwrap();
    let mut points: Vec<(String, Value)> = Vec::new();
    for step in said["jobs"].as_array().unwrap().iter().flat_map(|job| job["steps"].as_array().unwrap()) {
        let name = (title(step), step["root"].clone());
        if ["changed", "follows"].contains(&step["state"].as_str().unwrap()) && !points.contains(&name) {
            points.push(name);
        }
    }
    assert_eq!(count("root_steps") + count("consequences"), points.len() as u64);
    assert_eq!(count("root_steps"), points.iter().filter(|(_, root)| *root == true).count() as u64);
    assert_eq!(count("roots"), 1, "{said}");
}

#[test]
fn a_commit_that_was_dropped_and_a_manifest_that_was_renamed_are_told() {
    let flow = Flow::sample();
    flow.write(".gitignore", "/cache/\n/repo/\n");
    let project = flow.path("");
    git(&project, &["init", "-q"]);
    git(&project, &["add", "-A"]);
    git(&project, &["commit", "-q", "-m", "the benchmark"]);
    flow.run().settles();
    let list = flow.fill("{one}");
    flow.edit("commits.txt", |text| {
        text.lines().filter(|line| !line.starts_with(&list)).map(|line| format!("{line}\n")).collect()
    });
    flow.flow(&["why", "{one}", "m.kdl"]).exits(2).says("lists no commit").says("not committed").says("--run");
    git(&project, &["commit", "-q", "-a", "-m", "drop a commit"]);
    let id = git(&project, &["rev-parse", "--short=8", "HEAD"]);
    flow.flow(&["why", "{one}", "m.kdl"]).exits(2).says(&format!("dropped by {}", id.trim()));
    git(&project, &["mv", "m.kdl", "speed.kdl"]);
    git(&project, &["commit", "-q", "-m", "another name"]);
    flow.flow(&["why", "{two}", "m.kdl"]).exits(2).says("it is speed.kdl since");
    flow.flow(&["why", "pkg/{two}/tidyy/1", "speed.kdl"]).exits(2).says("did you mean pkg/").says("/tidy/1?");
    flow.flow(&["why", "pkg/{two}/tidyy/1"]).exits(2).says("did you mean pkg/");
}

#[test]
fn plans_of_runs_that_cannot_be_read_are_said() {
    let flow = chain();
    flow.run().settles();
    for entry in std::fs::read_dir(flow.cache().join("runs")).unwrap().flatten() {
        if entry.path().is_dir() {
            std::fs::write(entry.path().join("plan.json"), "{\"a\":").unwrap();
        }
    }
    flow.flow(&["why", "alpha", "--run"]).exits(2).says("of 1 run cannot be read");
}

#[test]
fn a_step_that_a_run_executes_at_this_moment_is_said_to_run() {
    let flow = chain();
    flow.replace("m.kdl", "sed s/[12]/0/ $1 > $2", "sed s/[12]/0/ $1 > $2; while test ! -e $3; do sleep 0.05; done");
    let stop = flow.path("stop");
    flow.replace("m.kdl", "\"{in.a}\" \"{out.o}\"", &format!("\"{{in.a}}\" \"{{out.o}}\" \"{}\"", stop.display()));
    let mut child = flow.start();
    let running = || step(&flow.flow(&["why", "alpha", "m.kdl", "--json"]), 0, "one")["running"].is_object();
    until("the step runs", running);
    flow.flow(&["why", "alpha", "m.kdl"]).exits(0).says("executes it now, begun ");
    std::fs::write(&stop, "").unwrap();
    child.wait().unwrap();
    assert!(!running());
}
