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
    fault("drop", "fault=drop", "the connection is closed without an answer", &["CONNECTION"]),
    fault("server-error", "fault=server-error", "500", &["SERVER_ERROR", "OVERLOADED"]),
    fault("overloaded", "fault=overloaded", "503 or 529", &["OVERLOADED"]),
];

/// Meets all faults at once, each as a candidate of its own, and holds the table of docs/agents.md against what came out.
fn meets_every_fault(real: Real) {
    let Some(program) = real.found() else { return };
    let flow = Flow::quickstart();
    let llm = Llm::start(&flow);
    let candidates: Vec<(String, String)> = FAULTS
        .iter()
        .map(|fault| (fault.name.to_owned(), llm.url(&format!("script=9f47610d/job={}/{}", fault.name, fault.way))))
        .collect();
    real.writes(&flow, &program, &candidates, &["9f47610d"], "3m");

    let ran = flow.run_with(&["--jobs", "6"]);
    let ends = ends(&flow);
    let mut table =
        String::from("| fault | what the agent meets | comes to | owner | what flow does |\n|---|---|---|---|---|\n");
    let mut wrong = Vec::new();
    for fault in FAULTS {
        let line = ends.get(&format!("9f47610d/{}", fault.name)).unwrap_or_else(|| panic!("no agent\n{}", ran.stderr));
        let came = outcome_of(line);
        println!("{} {}: {came}: {} {}", real.title(), fault.name, line["outcome"], line["usage"]);
        let expected = if fault.causes.is_empty() { &["succeeded"] } else { fault.causes };
        let served = llm.served(fault.name);
        if !expected.contains(&came.as_str()) || !tells_what_was_served(line, served) {
            wrong.push(format!("{}: expected {expected:?}, served {served:?}: {line}", fault.name));
        }
        writeln!(table, "| {} | {} | {} |", fault.name, fault.what, row(&came)).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    holds_in_docs(real.title(), &table);
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

/// The cells of a cause: what flow's own table says of it.
fn row(came: &str) -> String {
    let Some(cause) = Cause::ALL.iter().find(|cause| cause.name() == came) else {
        return "gets over it | – | takes the patch".to_owned();
    };
    let does = match cause.shuts() {
        Shuts::Lane => "closes the provider's lane; nothing is charged",
        Shuts::Candidate => "pauses the candidate; nothing is charged",
        Shuts::Nothing if cause.settles() => "takes what patch there is; the job is settled",
        Shuts::Nothing => "runs it again, up to `attempts`",
    };
    format!("{came} | {} | {does}", cause.owner())
}

/// A table of docs/agents.md stands between two comments.
fn holds_in_docs(title: &str, table: &str) {
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
