//! The manifests of `pipelines/`: each is read, checked and planned on a machine that has nothing for it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use support::{Flow, copy};

/// The manifests among the files: those that hold a pipeline.
fn manifests() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "kdl")
            && std::fs::read_to_string(&path).unwrap().lines().any(|line| line.starts_with("pipeline "))
        {
            names.push(format!("pipelines/{}", path.file_name().unwrap().to_str().unwrap()));
        }
    }
    names.sort();
    names
}

#[test]
fn each_is_checked_and_planned_without_key_tool_gpu_network_or_clone() {
    let mut flow = Flow::quickstart();
    for example in ["examples/networkx", "examples/native"] {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(example), &flow.path(example));
    }
    flow.env("PATH", "/nonexistent");
    let names = manifests();
    for wanted in
        ["trae_sonnet45", "trae_gpt5", "sglang_sonnet45_bedrock", "vllm_core", "vllm_serving", "compare_agents"]
    {
        assert!(names.iter().any(|name| name.contains(wanted)), "{wanted} is not in {names:?}");
    }
    for name in &names {
        flow.flow(&["check", name]).settles().says("no flaw");
        let plan = flow.flow(&["plan", name, "--json"]).settles().json();
        assert!(!plan["actions"].as_array().unwrap().is_empty(), "{name} plans nothing");
        assert!(!plan["missing"].as_array().unwrap().is_empty(), "{name} lacks nothing on a machine without programs");
    }
    // Their names are identities: no two may share one.
    let all: Vec<&str> = std::iter::once("check").chain(names.iter().map(String::as_str)).collect();
    flow.flow(&all).settles();
}

#[test]
fn each_that_asks_for_a_key_names_it_in_its_plan_and_states_its_goals() {
    let mut flow = Flow::quickstart();
    flow.env("PATH", "/nonexistent");
    flow.flow(&["plan", "pipelines/trae_gpt5.kdl"])
        .settles()
        .says("the secret OPENAI_API_KEY is not set")
        .says("the variable VLLM_TESTS is not set")
        .says("minimum 58 % improved");
    // What is to be given stands on one line.
    flow.env("COLUMNS", "200");
    flow.flow(&["check", "pipelines/trae_sonnet45.kdl"]).settles().says("vllm in {var.VLLM_TESTS}");
    let plan = flow.flow(&["plan", "pipelines/compare_agents.kdl", "--json"]).settles().json();
    let levels: Vec<&str> =
        plan["goals"].as_array().unwrap().iter().map(|goal| goal["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["minimum", "target", "exceptional"]);
}

#[test]
fn each_list_of_commits_holds_each_commit_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/commits");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let distinct: BTreeSet<&str> = ids.iter().map(|id| &id[..8]).collect();
        assert_eq!(ids.len(), distinct.len(), "{}", path.display());
    }
}
