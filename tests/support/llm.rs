//! A model on loopback and the real agents that talk to it.
//!
//! The model is `tests/llm/server.py`. Agents are looked for in `target/agents`, or where `FLOW_AGENTS` says; `.ci/agents` installs
//! them there. A test that lacks its agent says so and passes.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Flow, until};

/// The key that every agent is given. It must never be found in a store.
pub const KEY: &str = "sk-tests-4f1d8a7c93b2";

/// A model that serves scripted conversations.
pub struct Llm {
    child: Child,
    port: u16,
    log: PathBuf,
    /// Whether it is the one beside the repository and not the repository's own.
    other: bool,
}

/// Tokens, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub output: u64,
}

impl Llm {
    /// Starts one. It ends when this is dropped, and when the test dies.
    pub fn start(flow: &Flow) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llm");
        Self::started(
            flow,
            Command::new("python3").arg(here.join("server.py")).arg("--scripts").arg(here.join("scripts")),
            false,
        )
    }

    /// Starts the one that lies beside the repository, written by others, with the same conversation; prints why not where it
    /// is not there.
    pub fn other(flow: &Flow) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = root.parent().unwrap().join("shared/fake_llm/fake_llm.py");
        if !program.exists() {
            let _ = writeln!(std::io::stderr(), "skipped: ../shared/fake_llm is not there");
            return None;
        }
        let ours = std::fs::read_to_string(root.join("tests/llm/scripts/9f47610d.json")).unwrap();
        let turns: Vec<Value> = serde_json::from_str::<Vec<Value>>(&ours).unwrap().iter().map(in_other_words).collect();
        let script = flow.beside("9f47610d.json");
        std::fs::write(&script, json!({ "turns": turns }).to_string()).unwrap();
        Some(Self::started(flow, Command::new("python3").arg(program).arg("--script").arg(script), true))
    }

    fn started(flow: &Flow, command: &mut Command, other: bool) -> Self {
        let (port, log) = (flow.beside("llm.port"), flow.beside("llm.jsonl"));
        command.arg("--port-file").arg(&port).arg("--log").arg(&log).stdin(Stdio::piped());
        let child = command.spawn().unwrap();
        until("the model's server has a port", || port.exists());
        let port = std::fs::read_to_string(port).unwrap().trim().parse().unwrap();
        Self { child, port, log, other }
    }

    /// The base URL of clients that take this way: `script=…/fault=…/job=…`.
    pub fn url(&self, way: &str) -> String {
        let mut way = way.to_owned();
        if self.other {
            for (ours, theirs) in [("job=", "lane="), ("from=", "at="), ("times=", "count=")] {
                way = way.replace(ours, theirs);
            }
        }
        format!("http://127.0.0.1:{}/{way}", self.port)
    }

    /// What it was asked by a job, in order.
    pub fn asked(&self, job: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line[if self.other { "lane" } else { "job" }] == job).collect()
    }

    /// What it served to a job: what its provider would bill.
    pub fn served(&self, job: &str) -> Tokens {
        self.asked(job).iter().filter(|line| line["usage"].is_object()).fold(Tokens::default(), |sum, line| {
            let of = |kind: &str| line["usage"][kind].as_u64().unwrap();
            // The other one tells input as its wire does.
            let inside = if self.other && line["api"] != "messages" { of("cache_read") } else { 0 };
            Tokens {
                input: sum.input + of("input") - inside,
                cache_read: sum.cache_read + of("cache_read"),
                cache_write: sum.cache_write + of("cache_write"),
                output: sum.output + of("output"),
            }
        })
    }
}

impl Drop for Llm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A turn of ours as the other server says it.
fn in_other_words(turn: &Value) -> Value {
    let mut ops = Vec::new();
    if let Some(command) = turn["run"].as_str() {
        ops.push(json!({ "op": "shell", "command": format!("cd ${{cwd}} && {command}") }));
    }
    if let Some([path, old, new]) = turn["edit"].as_array().map(Vec::as_slice) {
        ops.push(json!({ "op": "edit", "path": path, "old": old, "new": new }));
    }
    if turn["done"].is_string() {
        ops.push(json!({ "op": "done", "text": turn["done"] }));
    }
    json!({ "text": turn["say"].as_str().unwrap_or_default(), "ops": ops })
}

/// A way to run a real agent: one of them, on one wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Real {
    Codex,
    Claude,
    Trae,
    TraeAnthropic,
    Mini,
    MiniAnthropic,
    OpenHands,
    Aider,
}

impl Real {
    pub const ALL: [Self; 6] =
        [Self::Codex, Self::Claude, Self::Trae, Self::TraeAnthropic, Self::Mini, Self::MiniAnthropic];

    /// The adapter's name, which is that of its folder below `target/agents` too.
    pub fn adapter(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::Claude => "claude-code",
            Self::Trae | Self::TraeAnthropic => "trae",
            Self::Mini | Self::MiniAnthropic => "mini-swe-agent",
            Self::OpenHands => "openhands",
            Self::Aider => "aider",
        }
    }

    /// As a table calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::TraeAnthropic => "trae, Anthropic",
            Self::MiniAnthropic => "mini-swe-agent, Anthropic",
            _ => self.adapter(),
        }
    }

    /// Its program, or why there is none.
    pub fn program(self) -> Result<PathBuf, String> {
        let folder = std::env::var_os("FLOW_AGENTS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/agents"),
            |folder| std::path::absolute(folder).unwrap(),
        );
        let program = folder.join(self.adapter()).join(match self {
            Self::Codex => "node_modules/.bin/codex",
            Self::Claude => "node_modules/.bin/claude",
            Self::OpenHands => "bin/openhands",
            Self::Aider => "bin/aider",
            _ => "bin/python",
        });
        let install = format!("`.ci/agents target/agents {}` installs it", self.adapter());
        program.exists().then_some(program.clone()).ok_or(format!("{} is not there; {install}", program.display()))
    }

    /// Its program; prints why not where there is none, and the test is over.
    pub fn found(self) -> Option<PathBuf> {
        // Not by `eprintln!`, which the test harness keeps to itself where a test passes.
        self.program().map_err(|why| writeln!(std::io::stderr(), "skipped: {why}")).ok()
    }

    /// The tool of its manifest.
    fn tool(self, program: &Path) -> String {
        let (name, probes) = match self {
            Self::Codex => ("codex", r#"probe "--version""#),
            Self::Claude => ("claude", r#"probe "--version""#),
            Self::Trae | Self::TraeAnthropic => ("trae", r#"probe "-m" "pip" "freeze""#),
            Self::Mini | Self::MiniAnthropic => ("mini", r#"probe "-m" "pip" "freeze""#),
            Self::OpenHands => ("openhands", r#"probe "--version""#),
            Self::Aider => ("aider", r#"probe "--version""#),
        };
        format!("tool {name} \"{}\" {{ {probes} }}", program.display())
    }

    /// A candidate that talks to a model at a URL.
    fn candidate(self, name: &str, url: &str) -> String {
        let rest = match self {
            Self::Codex => {
                format!(r#"model "gpt-5"; secret CODEX_API_KEY file="key"; args "-c" "openai_base_url=\"{url}/v1\"""#)
            }
            Self::Claude => format!(
                r#"model "claude-sonnet-4-5"; secret ANTHROPIC_API_KEY file="key"; set ANTHROPIC_BASE_URL "{url}"; args "--max-turns" "12""#
            ),
            Self::Trae => format!(
                r#"model "gpt-5"; secret OPENAI_API_KEY file="key"; set OPENAI_BASE_URL "{url}/v1"; config "trae-openai.yaml""#
            ),
            Self::TraeAnthropic => format!(
                r#"model "claude-sonnet-4-5"; secret ANTHROPIC_API_KEY file="key"; set ANTHROPIC_BASE_URL "{url}"; config "trae-anthropic.yaml""#
            ),
            Self::Mini => format!(
                r#"model "openai/gpt-5"; secret OPENAI_API_KEY file="key"; set OPENAI_API_BASE "{url}/v1"; args "-c" "agent.step_limit=12""#
            ),
            Self::OpenHands => {
                format!(r#"model "openai/gpt-5"; secret LLM_API_KEY file="key"; set LLM_BASE_URL "{url}/v1""#)
            }
            Self::Aider => format!(
                r#"model "openai/gpt-5"; secret OPENAI_API_KEY file="key"; set OPENAI_API_BASE "{url}/v1"; args "shop/report.py""#
            ),
            Self::MiniAnthropic => format!(
                r#"model "anthropic/claude-sonnet-4-5"; secret ANTHROPIC_API_KEY file="key"; set ANTHROPIC_API_BASE "{url}"; args "-c" "agent.step_limit=12""#
            ),
        };
        format!("candidate {name} agent={} {{ {rest} }}", self.adapter())
    }

    /// Writes the files of a project that runs it on commits of the quickstart: a candidate for each name and URL.
    pub fn writes(self, flow: &Flow, program: &Path, candidates: &[(String, String)], commits: &[&str], timeout: &str) {
        let mut nodes = String::new();
        for (name, url) in candidates {
            writeln!(nodes, "    {}", self.candidate(name, url)).unwrap();
        }
        let commits: String = commits.iter().fold(String::new(), |text, id| text + &format!("commit \"{id}\"; "));
        flow.write("key", &format!("{KEY}\n"));
        flow.write("prompt.md", "Make this package faster. Do not change what it computes.\n");
        for wire in ["openai", "anthropic"] {
            flow.write(
                &format!("trae-{wire}.yaml"),
                &format!(
                    "agents: {{trae_agent: {{enable_lakeview: false, model: main, max_steps: 12, tools: [bash, str_replace_based_edit_tool, sequentialthinking, task_done]}}}}\n\
                     model_providers: {{it: {{api_key: \"${{KEY}}\", provider: {wire}}}}}\n\
                     models: {{main: {{model_provider: it, model: none, max_tokens: 4096, temperature: 0.5, top_p: 1, top_k: 0, max_retries: 0, parallel_tool_calls: false}}}}\n"
                ),
            );
        }
        flow.write(
            "m.kdl",
            &format!(
                r#"flow 1
import "pipelines/agents/{adapter}.kdl" "pipelines/steps/standard.kdl"
pipeline real {{
    repo shop "examples/quickstart/history.fi" {{
        commits {{ {commits} }}
        tests dir="examples/quickstart/tests" name="{{commit.id8}}.py" contract=flow {{
            metric ops better=lower kind=count min-effect="2%"
        }}
    }}
    tool python "python3" {{ probe "-VV" }}
    {tool}
{nodes}    step agent {{ timeout "{timeout}"; attempts 1; prompt file="prompt.md" }}
}}
"#,
                adapter = self.adapter(),
                tool = self.tool(program),
            ),
        );
    }
}

/// The end of each agent's attempt of a store, by `commit8/candidate`; the last counts.
pub fn ends(flow: &Flow) -> BTreeMap<String, Value> {
    let agents = flow.lines().into_iter().filter(|line| line["line"] == "ended" && line["kind"] == "agent");
    agents
        .map(|line| {
            let of = |axis: &str| line["axes"][axis].as_str().unwrap().to_owned();
            (format!("{}/{}", &of("commit")[..8], of("candidate")), line)
        })
        .collect()
}

/// The tokens of an attempt as the ledger has them; `None` where one of them is unknown, or may be less than was paid for. Not
/// every agent and wire has a word for what was cached: left out, it is none.
pub fn ledger(line: &Value) -> Option<Tokens> {
    let usage = &line["usage"];
    let of = |kind: &str| usage[kind].as_u64();
    usage["unknown_because"].is_null().then_some(())?;
    Some(Tokens {
        input: of("input")?,
        cache_read: of("cache_read").unwrap_or(0),
        cache_write: of("cache_write").unwrap_or(0),
        output: of("output")?,
    })
}
