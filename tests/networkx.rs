//! The promise of real input: on real commits of networkx the classes are those that are known in advance.
//!
//! What needs no clone always runs. The rest takes twenty minutes and a clone of networkx with its full history; it is
//! skipped, and says so, unless `FLOW_NETWORKX` names one:
//!
//! ```text
//! FLOW_NETWORKX=/path/to/clone cargo test --test networkx -- --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Flow, copy};

/// So many of the 12 timed A/A controls may come out as different. `screen` promises at most 5.7 % for each: more than three of
/// 12 come about by chance once in 300 times, one of them in every second run.
const MOST_DIFFERENT: usize = 3;

const MANIFESTS: [&str; 3] = ["pipelines/networkx.kdl", "pipelines/networkx_edits.kdl", "pipelines/networkx_aa.kdl"];
/// The commits that have edits.
const EDITED: [&str; 5] = ["28b3014d", "4d062047", "544c3248", "72d1f680", "7c0a9987"];
/// An effect that is not there, or too small for five blocks on a machine that is not quiet.
const SMALL: [&str; 3] = ["adfde01e", "2573bd3b", "4714bb5c"];

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/networkx").join(name)
}

fn commits() -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(here("commits.json")).unwrap()).unwrap()
}

fn project() -> Flow {
    let flow = Flow::empty();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["pipelines", "examples/networkx"] {
        copy(&root.join(folder), &flow.path(folder));
    }
    flow
}

#[test]
fn the_manifests_have_no_flaw() {
    let mut project = project();
    project.env("COLUMNS", "200");
    let checked = project.flow(&["check", MANIFESTS[0], MANIFESTS[1], MANIFESTS[2]]);
    checked.exits(0).says("pipeline networkx, 13 commits, 5 candidates");
    checked.says("pipeline networkx_edits, 1 commit, 6 candidates").says("pipeline networkx_aa, 13 commits");
}

#[test]
fn the_list_of_commits_and_what_is_known_of_them_agree() {
    let text = std::fs::read_to_string(here("commits.txt")).unwrap();
    let listed: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.next().unwrap())
        })
        .collect();
    let commits = commits();
    let known: Vec<(&str, &str)> =
        commits.iter().map(|c| (c["human"].as_str().unwrap(), c["base"].as_str().unwrap())).collect();
    assert_eq!(listed, known);
    for commit in &commits {
        assert_eq!(commit["id"].as_str().unwrap(), &commit["human"].as_str().unwrap()[..8]);
        for file in ["test", "task"] {
            assert!(here(commit[file].as_str().unwrap()).is_file(), "{}", commit[file]);
        }
    }
}

#[test]
fn every_edit_is_there() {
    let mut folders: Vec<String> = std::fs::read_dir(here("patches"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, EDITED);
    for edit in EDITED.iter().flat_map(|id| ["good", "wrong", "slow"].map(|kind| format!("patches/{id}/{kind}.edit"))) {
        assert!(here(&edit).is_file(), "{edit}");
    }
}

#[test]
fn the_classes_are_those_known_in_advance() {
    let Ok(clone) = std::env::var("FLOW_NETWORKX") else {
        println!("skipped: FLOW_NETWORKX names no clone of networkx");
        return;
    };
    let flow = project();
    let repo = format!("networkx={clone}");
    let run = |manifest: &str| {
        let ran = flow.flow(&["run", manifest, "--repo", &repo, "--json"]);
        ran.settles();
        for (job, class) in ran.classes() {
            println!("{job} {class}");
        }
        ran
    };
    let mut wrong = Vec::new();
    let mut expect = |classes: &BTreeMap<String, String>, job: String, allowed: &[&str]| {
        let class = classes[&job].as_str();
        if !allowed.contains(&class) {
            wrong.push(format!("{job}: {class}, and not {}", allowed.join(" or ")));
        }
    };

    let first = run(MANIFESTS[0]).classes();
    for commit in commits() {
        let id = commit["id"].as_str().unwrap();
        let job = |candidate: &str| format!("{id}/{candidate}/1");
        if commit["expected"] == "baseline_fails" {
            for candidate in ["human", "nop", "good", "wrong", "slow"] {
                expect(&first, job(candidate), &["TARGET_NOT_RESOLVED"]);
            }
            continue;
        }
        let class = match commit["expected"].as_str().unwrap() {
            "improved" => "SUCCESS_IMPROVEMENT",
            "regressed" => "SUCCESS_REGRESSION",
            _ => "SUCCESS_NEUTRAL",
        };
        let unsure = if SMALL.contains(&id) { "INCONCLUSIVE" } else { class };
        expect(&first, job("human"), &[class, unsure]);
        expect(&first, job("nop"), &["AGENT_NO_PATCH"]);
        let edits =
            [("good", "SUCCESS_IMPROVEMENT"), ("wrong", "PATCHED_WRONG_RESULT"), ("slow", "SUCCESS_REGRESSION")];
        for (candidate, class) in edits {
            expect(&first, job(candidate), &[if EDITED.contains(&id) { class } else { "AGENT_NO_PATCH" }]);
        }
    }

    // What `flow vet` writes of the same measurements is what one would write by hand from the classes.
    flow.flow(&["vet", MANIFESTS[0], "--repo", &repo, "--yes"]).settles();
    let vetted = std::fs::read_to_string(flow.path("pipelines/vetted.kdl")).unwrap();
    println!("{vetted}");
    let line = |id: &str| vetted.lines().find(|line| line.contains(&format!(" \"{id}"))).unwrap_or("none").to_owned();
    for commit in commits() {
        let id = commit["id"].as_str().unwrap();
        let line = line(id);
        let (begins, because) = match first[&format!("{id}/human/1")].as_str() {
            // A control of the commit that finds a difference where there is none puts it out too.
            "SUCCESS_IMPROVEMENT" if line.contains("because=noisy") => ("out", "because=noisy"),
            "SUCCESS_IMPROVEMENT" => ("commit", "effect="),
            "INCONCLUSIVE" => ("out", "because=undecided"),
            "TARGET_NOT_RESOLVED" => ("out", "because=test-fails"),
            _ => ("out", "because=not-faster"),
        };
        assert!(line.starts_with(&format!("{begins} \"{id}")) && line.contains(because), "{id}: {line}");
    }

    let strange = run(MANIFESTS[1]).classes();
    let strange_ones: [(&str, &[&str]); 6] = [
        ("clock", &["SUSPECT"]),
        ("noop", &["SUCCESS_NEUTRAL", "INCONCLUSIVE"]),
        ("empty", &["AGENT_NO_PATCH"]),
        ("tests-only", &["PATCH_PROTECTED"]),
        ("broken", &["PATCHED_IMPORT_ERROR"]),
        ("malformed", &["AGENT_ERROR"]),
    ];
    for (candidate, allowed) in strange_ones {
        expect(&strange, format!("7c0a9987/{candidate}/1"), allowed);
    }

    let control = run(MANIFESTS[2]).classes();
    let same = ["SUCCESS_NEUTRAL", "INCONCLUSIVE"];
    let mut different = Vec::new();
    for commit in commits() {
        let id = commit["id"].as_str().unwrap();
        if commit["expected"] == "baseline_fails" {
            expect(&control, id.to_owned(), &["TARGET_NOT_RESOLVED"]);
        } else if !same.contains(&control[id].as_str()) {
            different.push(format!("{id} {}", control[id]));
        }
    }
    println!("of the A/A controls came out as different: {different:?}");
    assert!(different.len() <= MOST_DIFFERENT, "{different:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for manifest in MANIFESTS {
        flow.flow(&["run", manifest, "--repo", &repo, "--json"]).settles().executes_nothing();
    }
}
