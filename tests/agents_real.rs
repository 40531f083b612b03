//! The promise of adapters: the agents that people really use work under flow, and each token that the provider billed is in the
//! ledger, once.
//!
//! They talk to a scripted model on loopback whose log is the truth. An agent that is not installed is skipped, and said to be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/llm.rs"]
mod llm;
mod support;

use std::path::Path;

use llm::{KEY, Llm, Real, Tokens, ends, ledger};
use support::{Flow, until};

const COMMITS: [&str; 2] = ["9f47610d", "b5fe2aeb"];

/// Runs an agent on two commits at once, each with a conversation of its own.
fn improves(real: Real) {
    let Some(program) = real.found() else { return };
    let flow = Flow::quickstart();
    let llm = Llm::start(&flow);
    let way = llm.url("script={commit.id8}/job={commit.id8}");
    real.writes(&flow, &program, &[("real".to_owned(), way)], &COMMITS, "3m");

    let ran = flow.run();
    let ends = ends(&flow);
    for commit in COMMITS {
        let line = ends.get(&format!("{commit}/real")).unwrap_or_else(|| panic!("no agent ran\n{}", ran.stderr));
        let served = llm.served(commit);
        println!("{} {commit}: served {served:?}, ledger {}", real.title(), line["usage"]);
        assert_eq!(ran.class(&format!("{commit}/real/1")), "SUCCESS_IMPROVEMENT", "{line:#}\n{}", ran.stderr);
        assert_eq!(ledger(line), Some(served), "{line:#}");
        // Its model might else read the human's change on the web.
        for asked in llm.asked(commit) {
            let tools = asked["tools"].to_string().to_lowercase();
            assert!(!tools.contains("web"), "it offers its model {tools}");
        }
    }
    ran.settles();
    flow.run().settles().executes_nothing();
    holds_no_key(&flow);
}

/// No file of the store has the key, as it stands or as git or the store packs it.
fn holds_no_key(flow: &Flow) {
    for entry in walkdir(&flow.cache()) {
        let bytes = std::fs::read(&entry).unwrap_or_default();
        let found = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!found, "the key is in {}", entry.display());
    }
}

fn walkdir(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(walkdir(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

#[test]
fn codex_improves_two_commits_and_its_tokens_are_those_that_were_served() {
    improves(Real::Codex);
}

#[test]
fn claude_code_improves_two_commits_and_its_tokens_are_those_that_were_served() {
    improves(Real::Claude);
}

#[test]
fn trae_improves_two_commits_and_its_tokens_are_those_that_were_served() {
    improves(Real::Trae);
}

#[test]
fn trae_on_the_other_wire_counts_its_input_otherwise_and_the_ledger_the_same() {
    improves(Real::TraeAnthropic);
}

#[test]
fn mini_swe_agent_improves_two_commits_and_its_tokens_are_those_that_were_served() {
    improves(Real::Mini);
}

#[test]
fn mini_swe_agent_on_the_other_wire_counts_its_input_otherwise_and_the_ledger_the_same() {
    improves(Real::MiniAnthropic);
}

#[test]
fn openhands_improves_two_commits_and_its_tokens_are_those_that_were_served() {
    improves(Real::OpenHands);
}

/// Nothing is set for it: the model's address leads there within the agent's own network, and nothing else does.
#[test]
fn agents_work_where_they_reach_their_model_and_nothing_else() {
    for real in [Real::Claude, Real::Mini, Real::Codex] {
        let Some(program) = real.found() else { continue };
        let flow = Flow::quickstart();
        let llm = Llm::start(&flow);
        let way = llm.url("script=9f47610d/job=held");
        let host = way.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        real.writes(&flow, &program, &[("real".to_owned(), way)], &["9f47610d"], "3m");
        let held = format!("step agent {{ sandbox require; network \"{host}\";");
        flow.replace("m.kdl", "step agent {", &held);
        let ran = flow.run();
        let line = &ends(&flow)["9f47610d/real"];
        if line.to_string().contains("the sandbox cannot be held") {
            eprintln!("skipped: this kernel holds too little");
            return;
        }
        assert_eq!(ran.class("9f47610d/real/1"), "SUCCESS_IMPROVEMENT", "{line:#}\n{}", ran.stderr);
        assert_eq!(ledger(line), Some(llm.served("held")), "{line:#}");
        let shown = flow.flow(&["show", "shop/9f47610d/real/1"]).stdout;
        let reached = flow.flow(&["log", "shop/9f47610d/real/1", "agent", "--stream", "network"]).json();
        println!("{}: reached {}, refused {}", real.title(), reached["hosts"], reached["refused"]);
        assert!(shown.contains("files, devices, network") && !shown.contains("EGRESS_OPEN"), "{shown}");
    }
}

/// It prints its figures rounded, and finds no files by itself.
#[test]
fn aider_improves_a_commit_and_its_tokens_are_those_that_were_served_as_far_as_it_tells() {
    let Some(program) = Real::Aider.found() else { return };
    let flow = Flow::quickstart();
    let llm = Llm::start(&flow);
    let candidates = [("real".to_owned(), llm.url("script=9f47610d/job=aider"))];
    Real::Aider.writes(&flow, &program, &candidates, &["9f47610d"], "3m");
    let ran = flow.run();
    let line = &ends(&flow)["9f47610d/real"];
    assert_eq!(ran.class("9f47610d/real/1"), "SUCCESS_IMPROVEMENT", "{line:#}\n{}", ran.stderr);
    let (served, said) = (llm.served("aider"), ledger(line).unwrap_or_else(|| panic!("{line:#}")));
    println!("aider: served {served:?}, ledger {}", line["usage"]);
    let near = |said: u64, served: u64| said.abs_diff(served) <= 50.max(served / 20);
    assert!(near(said.input + said.cache_read, served.input + served.cache_read), "{said:?} {served:?}");
    assert!(near(said.output, served.output), "{said:?} {served:?}");
    holds_no_key(&flow);
}

/// Its `usage` has only what its own conversation took, which is a sixth of it here.
#[test]
fn what_helpers_of_claude_code_used_is_counted_too() {
    let Some(program) = Real::Claude.found() else { return };
    let flow = Flow::quickstart();
    let llm = Llm::start(&flow);
    let candidates = [("real".to_owned(), llm.url("script=helper/job=helper"))];
    Real::Claude.writes(&flow, &program, &candidates, &["9f47610d"], "3m");

    let ran = flow.run();
    let line = &ends(&flow)["9f47610d/real"];
    assert!(llm.asked("helper").len() > 2, "no helper was called: {line:#}");
    assert_eq!(ledger(line), Some(llm.served("helper")), "{line:#}");
    assert_eq!(ran.class("9f47610d/real/1"), "AGENT_NO_PATCH");
}

/// flow dies with its agents at work: what they had used is in the ledger of the next run, and nothing of them lives.
fn outlives_flow(real: Real) {
    let Some(program) = real.found() else { return };
    let flow = Flow::quickstart();
    let llm = Llm::start(&flow);
    let candidates = [("real".to_owned(), llm.url("script=9f47610d/fault=hang/from=2/times=1/job=hangs"))];
    real.writes(&flow, &program, &candidates, &["9f47610d"], "3m");

    let mut dies = flow.start();
    until("the agent has asked for its third turn", || llm.asked("hangs").iter().any(|asked| asked["fault"] == "hang"));
    let before = llm.served("hangs");
    assert_ne!(before, Tokens::default());
    dies.kill().unwrap();
    dies.wait().unwrap();

    // The model answers the next time.
    let ran = flow.run();
    assert_eq!(ran.class("9f47610d/real/1"), "SUCCESS_IMPROVEMENT", "{}", ran.stderr);
    let agents = flow.lines().into_iter().filter(|line| line["line"] == "ended" && line["kind"] == "agent");
    let agents: Vec<_> = agents.collect();
    let [died, came] = agents.as_slice() else { panic!("not two attempts: {agents:#?}") };
    println!("{}: served {before:?}, ledger {}", real.title(), died["usage"]);
    assert_eq!(support::outcome_of(died), "INTERRUPTED", "{died:#}");
    assert!(died["adopts"].is_string(), "{died:#}");
    assert!(died["usage"]["unknown_because"].is_string(), "a stopped agent cannot know all: {died:#}");
    let of = |kind: &str| died["usage"][kind].as_u64().unwrap_or(0);
    assert!((2100..=before.input).contains(&of("input")), "served {before:?}: {died:#}");
    assert!(of("output") <= before.output, "served {before:?}: {died:#}");
    assert_eq!(support::outcome_of(came), "succeeded");
}

#[test]
fn codex_killed_with_flow_leaves_what_it_had_used_in_the_ledger() {
    outlives_flow(Real::Codex);
}

#[test]
fn claude_code_killed_with_flow_leaves_what_it_had_used_in_the_ledger() {
    outlives_flow(Real::Claude);
}

#[test]
fn trae_killed_with_flow_leaves_what_it_had_used_in_the_ledger() {
    outlives_flow(Real::Trae);
}

#[test]
fn every_manifest_of_the_manual_can_be_checked_without_an_agent_or_a_key() {
    let flow = Flow::quickstart();
    flow.write("prompt.md", "Make {repo.name} faster.\n");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/agents.md")).unwrap();
    let blocks = |kind: &str| -> Vec<String> {
        let begin = format!("```{kind}\n");
        text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
    };
    flow.write("trae.yaml", &blocks("yaml")[0]);
    let mut manifests = blocks("kdl");
    // Others show a part of one.
    manifests.retain(|text| text.starts_with("flow 1"));
    assert_eq!(manifests.len(), 6, "one for each agent");
    for manifest in manifests {
        flow.write("m.kdl", &manifest);
        let ran = flow.flow(&["check", "m.kdl"]);
        assert_eq!(ran.code, Some(0), "{manifest}\n{}\n{}", ran.stdout, ran.stderr);
    }
}
