//! The promise of causes: whatever a provider does to a real agent, flow says what it was, whose it is and what comes next.
//!
//! Each fault of the scripted model meets each agent that is installed, through flow. What comes out is the tables of
//! docs/agents.md: `UPDATE_DOCS=1` writes them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/llm.rs"]
mod llm;
mod support;

use std::fmt::Write as _;
use std::path::Path;

use flow::outcome::{Cause, Shuts};
use llm::{Llm, Real, Tokens, ends, ledger};
use serde_json::Value;
use support::{Flow, outcome_of};

/// A fault: its name, what it is on the way to the model, the causes it may come to (none: the agent gets over it).
struct Fault {
    name: &'static str,
    way: &'static str,
    what: &'static str,
    causes: &'static [&'static str],
}

const fn fault(name: &'static str, way: &'static str, what: &'static str, causes: &'static [&'static str]) -> Fault {
    Fault { name, way, what, causes }
}

const FAULTS: &[Fault] = &[
    fault("quota", "fault=quota-exceeded", "the account has nothing left", &["QUOTA_EXCEEDED"]),
    fault("rate-limit-once", "fault=rate-limit", "429 once, with `retry-after`", &[]),
    fault("rate-limit", "fault=rate-limit/times=1000", "429 without end", &["RATE_LIMITED"]),
    fault("invalid-key", "fault=invalid-key", "401", &["INVALID_API_KEY"]),
    fault("expired-token", "fault=expired-token", "403, the token has expired", &["CREDENTIALS_EXPIRED"]),
    fault(
        "no-tool-output",
        "fault=no-tool-output",
        "400, the output of a tool call is missing",
        &["TOOL_OUTPUT_MISSING", "TOOL_RESULT_MISSING"],
    ),
    fault(
        "tool-result-missing",
        "fault=tool-result-missing",
        "400, the same in Anthropic's words",
        &["TOOL_RESULT_MISSING"],
    ),
    fault("empty-error", "fault=empty-error-content", "400, a tool's error without a word", &["EMPTY_ERROR_CONTENT"]),
    // Claude Code sums the conversation up and begins anew, until it meets its own limit.
    fault(
        "context-length",
        "fault=context-length/from=1",
        "400, the conversation is too long",
        &["CONTEXT_LENGTH", "MAX_STEPS"],
    ),
    fault("model-not-found", "fault=model-not-found", "404", &["MODEL_NOT_FOUND"]),
    fault(
        "truncated-json",
        "fault=truncated-json/from=1",
        "the reply ends within a tool call: the model's own limit",
        &["OUTPUT_LIMIT", "JSON_PARSE"],
    ),
    fault("truncated-body", "fault=truncated-body/from=1", "the answer ends half way", &["CONNECTION", "JSON_PARSE"]),
    fault("truncated-first", "fault=truncated-body", "the same at its first answer", &["CONNECTION", "JSON_PARSE"]),
    fault("truncated-last", "fault=truncated-body/from=3", "the same at its last", &["CONNECTION", "JSON_PARSE"]),
    fault("drop", "fault=drop", "the connection is closed without an answer", &["CONNECTION"]),
    fault("server-error", "fault=server-error", "500", &["SERVER_ERROR", "OVERLOADED"]),
    fault("overloaded", "fault=overloaded", "503 or 529", &["OVERLOADED"]),
];

/// Meets all faults at once, each as a candidate of its own, and holds the table of docs/agents.md against what came out.
fn meets_every_fault(real: Real) {
    let Some(program) = real.found() else { return };
    let flow = Flow::quickstart();
    let llm = Llm::start(&flow);
    let table = table(real, &program, &flow, &llm);
    holds_in_docs(real, &table);
}

/// The same against a model that others wrote: the causes must not hang on the words of our own.
fn meets_every_fault_of_the_other(real: Real) {
    let Some(program) = real.found() else { return };
    let flow = Flow::quickstart();
    let Some(llm) = Llm::other(&flow) else { return };
    table(real, &program, &flow, &llm);
}

fn table(real: Real, program: &Path, flow: &Flow, llm: &Llm) -> String {
    let candidates: Vec<(String, String)> = FAULTS
        .iter()
        .map(|fault| (fault.name.to_owned(), llm.url(&format!("script=9f47610d/job={}/{}", fault.name, fault.way))))
        .collect();
    real.writes(flow, program, &candidates, &["9f47610d"], "3m");

    let ran = flow.run_with(&["--jobs", "8"]);
    let ends = ends(flow);
    let mut table =
        String::from("| fault | what the agent meets | comes to | owner | what flow does |\n|---|---|---|---|---|\n");
    let mut wrong = Vec::new();
    for fault in FAULTS {
        let line = ends.get(&format!("9f47610d/{}", fault.name)).unwrap_or_else(|| panic!("no agent\n{}", ran.stderr));
        let came = outcome_of(line);
        println!("{} {}: {came}: {} {}", real.title(), fault.name, line["outcome"], line["usage"]);
        // On this wire a tool call that was cut has no arguments: trae answers that one is lacking, and goes on.
        let goes_on = fault.causes.is_empty() || (real, fault.name) == (Real::TraeAnthropic, "truncated-json");
        let expected = if goes_on { &["succeeded"] } else { fault.causes };
        let served = llm.served(fault.name);
        if !expected.contains(&came.as_str()) || !tells_what_was_served(line, served) {
            wrong.push(format!("{}: expected {expected:?}, served {served:?}: {line}", fault.name));
        }
        let class = ran.classes().remove(&format!("9f47610d/{}/1", fault.name));
        writeln!(
            table,
            "| {} | {} | {} |",
            fault.way.trim_start_matches("fault="),
            fault.what,
            row(&came, class.as_deref())
        )
        .unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    table
}

/// Every token that is known is one that was served; where one is missing, that is said.
fn tells_what_was_served(line: &Value, served: Tokens) -> bool {
    let usage = &line["usage"];
    let most = [("input", served.input), ("cache_read", served.cache_read), ("output", served.output)];
    match ledger(line) {
        Some(tokens) => tokens == served,
        None => {
            usage["unknown_because"].is_string()
                && most.iter().all(|(kind, most)| usage[kind].as_u64().unwrap_or(0) <= *most)
        }
    }
}

/// The cells of a cause: what flow's own table says of it. Of an agent that finished, the class of its job.
fn row(came: &str, class: Option<&str>) -> String {
    let Some(cause) = Cause::ALL.iter().find(|cause| cause.name() == came) else {
        return format!("finished | – | takes the patch: {}", class.unwrap_or("no class yet"));
    };
    let does = match cause.shuts() {
        Shuts::Lane => "closes the provider's lane; the attempt is not counted",
        Shuts::Candidate => "pauses the candidate; the attempt is not counted",
        Shuts::Nothing if cause.settles() => "takes what patch there is",
        Shuts::Nothing => "runs it again, up to `attempts`",
    };
    format!("{came} | {} | {does}", cause.owner())
}

/// A table of docs/agents.md stands between two comments.
fn holds_in_docs(real: Real, table: &str) {
    let title = real.title();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/agents.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- faults of {title} -->\n"), "<!-- end -->\n");
    let at = text.find(&begin).unwrap_or_else(|| panic!("docs/agents.md has no `{begin}`")) + begin.len();
    let after = at + text[at..].find(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{}\n{table}\n{}", &text[..at], &text[after..])).unwrap();
    } else {
        assert_eq!(text[at..after].trim(), table.trim(), "run it with UPDATE_DOCS=1 and look at what changed");
    }
}

#[test]
fn codex_meets_every_fault_and_none_is_unknown() {
    meets_every_fault(Real::Codex);
}

#[test]
fn claude_code_meets_every_fault_and_none_is_unknown() {
    meets_every_fault(Real::Claude);
}

#[test]
fn trae_meets_every_fault_and_none_is_unknown() {
    meets_every_fault(Real::Trae);
}

#[test]
fn trae_on_the_other_wire_meets_every_fault_and_none_is_unknown() {
    meets_every_fault(Real::TraeAnthropic);
}

#[test]
fn mini_swe_agent_meets_every_fault_and_none_is_unknown() {
    meets_every_fault(Real::Mini);
}

/// An agent whose tool sleeps for an hour, in a session of its own, and whose provider never answers: both are over at the
/// step's timeout, nothing of them lives, and what they had used is in the ledger.
fn is_stopped_with_all_it_started(real: Real) {
    let Some(program) = real.found() else { return };
    let flow = Flow::quickstart();
    let llm = Llm::start(&flow);
    let url = |job: &str, way: &str| (job.to_owned(), llm.url(&format!("{way}/job={job}")));
    let candidates = [url("sleeps", "script=sleep"), url("hangs", "script=9f47610d/fault=hang/from=1")];
    real.writes(&flow, &program, &candidates, &["9f47610d"], "25s");

    let ran = flow.run();
    let ends = ends(&flow);
    for (job, _) in &candidates {
        let line = ends.get(&format!("9f47610d/{job}")).unwrap_or_else(|| panic!("no agent\n{}", ran.stderr));
        let served = llm.served(job);
        println!(
            "{} {job}: {} {}, served {served:?}, {}",
            real.title(),
            outcome_of(line),
            line["usage"],
            line["notes"]
        );
        assert_eq!(outcome_of(line), "TIMEOUT", "{line:#}");
        assert_ne!(served, Tokens::default(), "it never came to its second turn");
        assert!(tells_what_was_served(line, served), "served {served:?}: {line:#}");
        // At least what its first turn took: what it was told last it may not have written down.
        assert!(line["usage"]["input"].as_u64() >= Some(2100), "{line:#}");
        assert_eq!(ran.class(&format!("9f47610d/{job}/1")), "AGENT_TIMEOUT");
    }
    assert_eq!(living_in(&flow.path(".")), Vec::<String>::new(), "processes of a stopped agent live on");
}

/// What runs in a folder: whatever the work trees there became, the kernel tells where a process was started.
fn living_in(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let there = processes.filter(|process| process.join("cwd").read_link().is_ok_and(|cwd| cwd.starts_with(&folder)));
    there.filter_map(|process| std::fs::read_to_string(process.join("cmdline")).ok()).collect()
}

#[test]
fn a_real_agent_that_hangs_is_stopped_with_the_children_that_left_its_session() {
    // One after the other: each looks at all the machine's processes.
    for real in [Real::Codex, Real::Claude, Real::Trae, Real::Mini] {
        is_stopped_with_all_it_started(real);
    }
}

#[test]
fn codex_meets_the_faults_of_a_model_that_others_wrote() {
    meets_every_fault_of_the_other(Real::Codex);
}

#[test]
fn claude_code_meets_the_faults_of_a_model_that_others_wrote() {
    meets_every_fault_of_the_other(Real::Claude);
}

#[test]
fn trae_meets_the_faults_of_a_model_that_others_wrote() {
    meets_every_fault_of_the_other(Real::Trae);
}
