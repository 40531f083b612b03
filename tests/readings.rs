//! Readings: what an agent's attempt came to is read from what it left, by tables that are data. Its exit code alone says nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flow::agent::{Reading, ReadingTable, read};
use flow::attempt::{ProcessEnd, Usage};
use flow::outcome::Cause;
use flow::process::Exit;
use serde_json::Value;

/// The reading parts of flow's own adapters, by name.
fn adapters() -> BTreeMap<String, Arc<ReadingTable>> {
    let agents = [
        ("trae", "trae"),
        ("codex", "codex"),
        ("claude-code", "claude"),
        ("mini-swe-agent", "mini"),
        ("openhands", "openhands"),
        ("aider", "aider"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for file in ["prompt.md", "config.yaml"] {
        std::fs::write(dir.path().join(file), "a: 1\n").unwrap();
    }
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut text = format!("flow 1\nimport \"{}/steps/standard.kdl\"\n", pipelines.display());
    let mut candidates = String::new();
    for (name, tool) in agents {
        text += &format!("import \"{}/agents/{name}.kdl\"\ntool {tool} \"{tool}\"\n", pipelines.display());
        let config = if name == "trae" { "; config \"config.yaml\"" } else { "" };
        candidates += &format!("candidate {name} agent={name} {{ model \"m\"{config} }}\n");
    }
    text += &format!(
        "tool python \"python3\"\npipeline p {{\nrepo r \"repo\" {{ commits {{ commit \"0123abcd\" }}; tests dir=\".\" name=\"t.py\" contract=flow {{ metric ops better=lower kind=count }} }}\n{candidates}step build {{ recipe interpreter tool=python }}\nstep agent {{ prompt file=\"prompt.md\" }}\n}}\n"
    );
    let manifest = flow::manifest::read_text("m.kdl", &text, dir.path()).unwrap();
    manifest
        .pipeline
        .agents
        .into_iter()
        .map(|(name, agent)| (name, Arc::new(agent.reading.reading().clone())))
        .collect()
}

fn ended(exit: Exit) -> ProcessEnd {
    ProcessEnd { exit, active_ms: 40_000, cpu_ms: 0, cut: false, unkept: Vec::new() }
}

fn read_files(table: &ReadingTable, exit: Exit, files: &BTreeMap<String, Vec<u8>>) -> Reading {
    read(table, &ended(exit), &|name| files.get(name).cloned())
}

/// A sample of a real agent: how it ended, and its files under the names that its adapter gives them.
struct Sample {
    name: String,
    adapter: &'static str,
    exit: Exit,
    files: BTreeMap<String, Vec<u8>>,
}

fn samples() -> Option<Vec<Sample>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/agent-samples");
    if !root.is_dir() {
        println!("skipped: {} is not there", root.display());
        return None;
    }
    let kinds = [
        ("trae", "trae"),
        ("codex", "codex"),
        ("claude", "claude-code"),
        ("mini", "mini-swe-agent"),
        ("openhands", "openhands"),
        ("aider", "aider"),
    ];
    let called = |file: &str| {
        Some(match file {
            "trajectory.json" | "mini.traj.json" => "trajectory",
            "stdout.txt" | "stdout.jsonl" | "events.jsonl" => "stdout",
            "stderr.txt" | "stderr.tail.txt" => "stderr",
            "rollout.token-lines.jsonl" => "rollout",
            "base_state.trimmed.json" => "state",
            _ => return None,
        })
    };
    let mut samples = Vec::new();
    for (folder, adapter) in kinds {
        for dir in list(&root.join(folder)).into_iter().filter(|path| path.is_dir()) {
            let name = format!("{folder}/{}", dir.file_name().unwrap().to_str().unwrap());
            if name == "trae/misuse" {
                samples.extend(misuses(&dir));
                continue;
            }
            let files = list(&dir).into_iter().filter_map(|path| {
                let called = called(path.file_name().unwrap().to_str().unwrap())?;
                Some((called.to_owned(), std::fs::read(&path).unwrap()))
            });
            let said = std::fs::read_to_string(dir.join("rc.txt")).unwrap_or_else(|_| "rc=1".into());
            let code = said.split("rc=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
            // `timeout` gives 124: there flow's own clock would have ended it.
            let exit = if code == 124 { Exit::TimedOut { limit_ms: 40_000 } } else { Exit::Code(code) };
            samples.push(Sample { name, adapter, exit, files: files.collect() });
        }
    }
    Some(samples)
}

/// What trae says when it is used wrongly: two files each.
fn misuses(dir: &Path) -> Vec<Sample> {
    let names = list(dir)
        .into_iter()
        .filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".err.txt").map(str::to_owned));
    let sample = |name: String| {
        let file = |end: &str| std::fs::read(dir.join(format!("{name}.{end}.txt"))).unwrap_or_default();
        let files = [("stdout".to_owned(), file("out")), ("stderr".to_owned(), file("err"))].into();
        let code = if name == "badflag" { 2 } else { i32::from(name != "reltraj") };
        Sample { name: format!("trae/misuse/{name}"), adapter: "trae", exit: Exit::Code(code), files }
    };
    names.map(sample).collect()
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// What each sample came to, as the person who took it wrote down.
fn expected(name: &str) -> Option<Cause> {
    let (_, what) = name.split_once('/').unwrap();
    Some(match (name, what) {
        ("claude/ctx" | "claude/maxturns", _) => Cause::MaxSteps,
        ("claude/body", _) => Cause::Connection,
        ("codex/body" | "mini/body", _) => Cause::Connection,
        ("trae/openai-body", _) => Cause::JsonParse,
        ("codex/trunc" | "claude/trunc", _) => Cause::OutputLimit,
        ("trae/anthropic-trunc", _) => Cause::ToolResultMissing,
        ("codex/500" | "aider/500", _) if name.starts_with("codex") => Cause::Overloaded,
        ("aider/500", _) => return None,
        ("aider/quota-exceeded", _) => Cause::QuotaExceeded,
        ("claude/noresult" | "mini/a-noresult" | "trae/anthropic-noresult" | "trae/anthropic-mustpatch", _) => {
            Cause::ToolResultMissing
        }
        ("trae/openai-commit" | "trae/openai-newfile" | "trae/openai-mustpatch" | "trae/openrouter-mustpatch", _) => {
            Cause::ToolOutputMissing
        }
        ("trae/openrouter-notool", _) => Cause::ToolOutputMissing,
        ("mini/nocost", _) => Cause::AgentConfig,
        ("mini/crash-missing-mcp", _) => Cause::MissingModule,
        ("mini/limits", _) => Cause::MaxSteps,
        ("trae/openai-key-retry2", _) => Cause::InvalidApiKey,
        ("trae/misuse/reltraj", _) => Cause::Connection,
        ("trae/misuse/pipe", _) => Cause::Crashed,
        _ if name.starts_with("trae/misuse/") => Cause::AgentConfig,
        _ if name.starts_with("trae/ok-") || name.ends_with("-nomp") || name == "trae/trae-lakeview" => return None,
        _ => match what.trim_start_matches("openai-").trim_start_matches("anthropic-").trim_start_matches("a-") {
            "ok" | "rate" | "stream" | "anthropic" => return None,
            "404" => Cause::ModelNotFound,
            "500" => Cause::ServerError,
            "503" | "529" => Cause::Overloaded,
            "ctx" | "context-length" => Cause::ContextLength,
            "drop" => Cause::Connection,
            "empty" => Cause::EmptyErrorContent,
            "expired" => Cause::CredentialsExpired,
            "hang" => Cause::Timeout,
            "key" | "invalid-key" => Cause::InvalidApiKey,
            "maxsteps" => Cause::MaxSteps,
            "notool" => Cause::ToolOutputMissing,
            "quota" => Cause::QuotaExceeded,
            "ratehard" => Cause::RateLimited,
            "trunc" => Cause::JsonParse,
            other => panic!("{name}: nobody said what {other} comes to"),
        },
    })
}

#[test]
fn every_sample_of_a_real_agent_comes_to_what_it_was() {
    let Some(samples) = samples() else { return };
    let adapters = adapters();
    assert!(samples.len() > 80, "{} samples", samples.len());
    let mut wrong = Vec::new();
    for sample in &samples {
        let reading = read_files(&adapters[sample.adapter], sample.exit.clone(), &sample.files);
        let cause = reading.outcome.failure().map(|failure| failure.cause);
        if cause != expected(&sample.name) || cause == Some(Cause::Unknown) {
            let evidence = reading.outcome.failure().map(|failure| failure.evidence.as_str().to_owned());
            wrong.push(format!("{}: {cause:?}, not {:?}: {evidence:?}", sample.name, expected(&sample.name)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The figures of a sample, found by looking for them wherever they are: input with all that was cached, cached, output.
fn truth(sample: &Sample) -> Option<(u64, u64, u64)> {
    let json = |name: &str| -> Option<Value> { serde_json::from_slice(sample.files.get(name)?).ok() };
    let lines = |name: &str| -> Vec<Value> {
        let text = sample.files.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
    let mut sum = None;
    let mut add = |input: u64, cached: u64, output: u64| {
        let (a, b, c) = sum.unwrap_or((0, 0, 0));
        sum = Some((a + input, b + cached, c + output));
    };
    match sample.adapter {
        "trae" => {
            let document = json("trajectory")?;
            for call in document["llm_interactions"].as_array()? {
                let usage = &call["response"]["usage"];
                let cached = number(usage, "cache_read_input_tokens");
                let beside = if document["provider"] == "anthropic" { cached } else { 0 };
                add(number(usage, "input_tokens") + beside, cached, number(usage, "output_tokens"));
            }
        }
        "codex" => {
            let last = lines("stdout").into_iter().rfind(|line| line["type"] == "turn.completed");
            let counted = |line: &Value| line["payload"]["info"]["total_token_usage"].is_object();
            let usage = match last {
                Some(line) => line["usage"].clone(),
                None => lines("rollout").into_iter().rfind(counted)?["payload"]["info"]["total_token_usage"].clone(),
            };
            add(number(&usage, "input_tokens"), number(&usage, "cached_input_tokens"), number(&usage, "output_tokens"));
        }
        "claude-code" => {
            let result = lines("stdout").into_iter().rfind(|line| line["type"] == "result")?;
            for usage in result["modelUsage"].as_object()?.values() {
                let cached = number(usage, "cacheReadInputTokens");
                let input = number(usage, "inputTokens") + cached + number(usage, "cacheCreationInputTokens");
                add(input, cached, number(usage, "outputTokens"));
            }
        }
        "mini-swe-agent" => {
            let document = json("trajectory")?;
            for message in document["messages"].as_array()? {
                let usage = &message["extra"]["response"]["usage"];
                if usage.is_object() {
                    let cached = number(&usage["prompt_tokens_details"], "cached_tokens");
                    add(number(usage, "prompt_tokens"), cached, number(usage, "completion_tokens"));
                }
            }
        }
        "openhands" => {
            for metrics in json("state")?["stats"]["usage_to_metrics"].as_object()?.values() {
                let usage = &metrics["accumulated_token_usage"];
                let cached = number(usage, "cache_read_tokens");
                add(number(usage, "prompt_tokens"), cached, number(usage, "completion_tokens"));
            }
        }
        _ => {
            let text = String::from_utf8_lossy(sample.files.get("stdout")?).into_owned();
            for line in text.lines().filter(|line| line.starts_with("Tokens: ")) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let amount = |word: &str| match word.strip_suffix('k') {
                    Some(thousands) => (thousands.parse::<f64>().unwrap() * 1000.0) as u64,
                    None => word.parse().unwrap(),
                };
                add(amount(words[1]), 0, amount(words[3]));
            }
        }
    }
    sum
}

fn all_input(usage: &Usage) -> Option<u64> {
    Some(usage.input? + usage.cache_read.unwrap_or(0) + usage.cache_write.unwrap_or(0))
}

#[test]
fn usage_is_read_from_every_sample_that_has_it_and_is_never_zero_where_it_is_not_known() {
    let Some(samples) = samples() else { return };
    let adapters = adapters();
    let mut told = 0;
    for sample in &samples {
        let usage = read_files(&adapters[sample.adapter], sample.exit.clone(), &sample.files).usage;
        match truth(sample) {
            Some((input, cached, output)) if input > 0 => {
                told += 1;
                assert_eq!(all_input(&usage), Some(input), "{}: {usage:?}", sample.name);
                assert_eq!(usage.cache_read.unwrap_or(0), cached, "{}", sample.name);
                assert_eq!(usage.output, Some(output), "{}", sample.name);
            }
            _ => {
                let nothing = usage.input == Some(0) && usage.output == Some(0);
                let cause = expected(&sample.name);
                assert!(
                    nothing || (usage.input.is_none() && usage.unknown_because.is_some()),
                    "{}: {usage:?}",
                    sample.name
                );
                let refused = cause.is_some_and(|cause| cause.owner() != flow::outcome::Owner::Agent);
                assert!(!nothing || refused, "{}: {cause:?} with 0 tokens", sample.name);
            }
        }
        assert_eq!(usage.approximate, sample.adapter == "aider" && usage.input.is_some(), "{}", sample.name);
    }
    assert!(told >= 30, "{told} samples with usage");
}

/// A table with readers of every kind.
fn every_reader() -> ReadingTable {
    let text = r#"flow 1
agent a {
    run "true"
    trajectory "t.json"
    keep rollout "{home}/a/**/r.jsonl"
    usage lines="flow-usage"
    reading {
        finished json=trajectory { where "/ok" #true }
        finished text=stdout match="(?s)all( is)? done\\s*$"
        error jsonl=stdout { where "/type" "failed"; at "/error" "/errors/*" }
        error text=stdout match="ERROR: (.*)"
        error text=stderr
        stuck text=stdout match="waiting: ([^\\n]*)\\s*$"
        usage json=trajectory take=sum cached=inside { at "/calls/*/usage"; input "/in" "/prompt"; output "/out"; cache-read "/cached"; calls "/calls/*" }
        usage jsonl=rollout take=sum cached=beside { at "/u"; unique "/id"; input "/in"; output "/out"; cache-write "/w" }
        usage text=stdout take=sum cached=inside match="(?<input>[0-9.]+k?) in, (?<output>[0-9.]+k?) out"
        model json=trajectory { at "/calls/*/model" }
        message json=trajectory { at "/message" }
        signature TOOL_OUTPUT_MISSING "no (tool )?output"
    }
}
pipeline p { candidate a agent=a; axis n "1"; step s uses=command { each n; run "true" } }
"#;
    let manifest = flow::manifest::read_text("m.kdl", text, Path::new("/")).unwrap();
    manifest.pipeline.agents["a"].reading.reading().clone()
}

fn by(files: &[(&str, &str)], exit: Exit) -> Reading {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    read_files(&every_reader(), exit, &files)
}

fn cause(files: &[(&str, &str)], exit: Exit) -> Option<Cause> {
    by(files, exit).outcome.failure().map(|failure| failure.cause)
}

#[test]
fn the_exit_code_alone_makes_no_success_and_no_failure() {
    assert_eq!(cause(&[("stdout", "bye\n")], Exit::Code(0)), Some(Cause::Unknown));
    assert_eq!(cause(&[("trajectory", "{\"ok\": true}")], Exit::Code(1)), None);
    assert_eq!(by(&[("trajectory", "{\"ok\": true}")], Exit::Code(1)).notes.len(), 1, "and that is said");
    assert_eq!(cause(&[("stdout", "so all is done\n")], Exit::Code(0)), None);
    assert_eq!(
        cause(&[("stdout", "so all is done\nERROR: no tool output\n")], Exit::Code(0)),
        Some(Cause::ToolOutputMissing)
    );
    assert_eq!(cause(&[], Exit::Code(127)), Some(Cause::MissingModule));
    assert_eq!(cause(&[], Exit::Code(1)), Some(Cause::Crashed));
}

#[test]
fn the_first_reader_that_finds_something_speaks_and_white_space_does_not_matter() {
    let lines = "{\"type\": \"failed\", \"error\": \"Error code: 401\"}\n{\"type\": \"failed\", \"error\": \"no tool\\n   output\", \"errors\": [\"x\", \"y\"]}\nERROR: Error code: 500\n";
    let reading = by(&[("stdout", lines), ("stderr", "Error code: 429")], Exit::Code(0));
    let failure = reading.outcome.failure().unwrap();
    assert_eq!((failure.cause, failure.evidence.as_str()), (Cause::ToolOutputMissing, "no tool output: y"));
    let reading = by(&[("stdout", "ERROR: it went home\n")], Exit::Code(3));
    let failure = reading.outcome.failure().unwrap();
    assert_eq!((failure.cause, failure.evidence.as_str(), failure.exit), (Cause::Unknown, "it went home", Some(3)));
}

#[test]
fn an_agent_that_was_stopped_while_it_waited_for_its_provider_did_not_use_up_its_own_time() {
    let late = || Exit::TimedOut { limit_ms: 1000 };
    assert_eq!(cause(&[("stdout", "waiting: Error code: 429\n")], late()), Some(Cause::RateLimited));
    assert_eq!(cause(&[("stdout", "waiting: Error code: 429\nworking\n")], late()), Some(Cause::Timeout));
    assert_eq!(cause(&[("stdout", "waiting: no tool output\n")], late()), Some(Cause::Timeout), "its own doing");
    assert_eq!(cause(&[("trajectory", "{\"ok\": true}")], late()), Some(Cause::Timeout));
    assert_eq!(cause(&[("stdout", "ERROR: Error code: 401\n")], Exit::Signal(9)), Some(Cause::Killed));
}

#[test]
fn tokens_are_disjoint_summed_and_unknown_rather_than_zero() {
    let done = |calls: &str| {
        let document = format!("{{\"ok\": true, \"calls\": {calls}}}");
        by(&[("trajectory", &document)], Exit::Code(0)).usage
    };
    let usage = done(
        r#"[{"usage": {"in": 100, "out": 5, "cached": 80}, "model": "m-1"}, {"usage": {"prompt": 50, "out": 1}, "model": "m-2"}]"#,
    );
    assert_eq!((usage.input, usage.output, usage.cache_read, usage.calls), (Some(70), Some(6), Some(80), Some(2)));
    assert_eq!(usage.models, ["m-1", "m-2"]);
    assert_eq!(usage.unknown_because, None);
    for (calls, why) in [
        ("[]", "the agent reported no tokens"),
        (r#"[{"usage": {"in": 0, "out": 0}}]"#, "no tokens for 1 replies"),
        (r#"[{"usage": {"in": 5, "out": 1, "cached": 6}}]"#, "more cached tokens than it read"),
        (r#"[{"usage": {"in": 5, "out": 1}}, {"usage": {"out": 1}}]"#, "only a part"),
        (r#"[{"usage": {"in": 5e300, "out": 1}}]"#, "only a part"),
        ("null", "the agent reported none"),
    ] {
        let usage = done(calls);
        assert_eq!(usage.input, None, "{calls}");
        assert!(usage.unknown_because.as_ref().unwrap().contains(why), "{calls}: {usage:?}");
    }
    let refused = [("trajectory", r#"{"calls": []}"#), ("stderr", "Error code: 401")];
    assert_eq!(by(&refused, Exit::Code(0)).usage.input, Some(0), "no reply was had, and nothing spent");
    let rollout = "{\"id\": \"a\", \"u\": {\"in\": 5, \"out\": 1, \"w\": 2}}\n{\"id\": \"a\", \"u\": {\"in\": 5, \"out\": 3, \"w\": 2}}\nno json\n{\"id\": \"b\", \"u\": {\"in\": 7, \"out\": 1}}\n";
    let usage = by(&[("rollout", rollout)], Exit::TimedOut { limit_ms: 1 }).usage;
    assert_eq!((usage.input, usage.output, usage.cache_write, usage.calls), (Some(12), Some(4), Some(2), Some(2)));
    assert!(usage.unknown_because.unwrap().contains("it was stopped"));
    let usage = by(&[("stdout", "3.1k in, 120 out\n2 in, 1 out\n")], Exit::Code(0)).usage;
    assert_eq!((usage.input, usage.output, usage.approximate), (Some(3102), Some(121), true));
    let usage = by(&[("stdout", "flow-usage {\"input\": 7, \"output\": 2, \"cache_read\": 3}\n")], Exit::Code(0)).usage;
    assert_eq!((usage.input, usage.output, usage.cache_read), (Some(7), Some(2), Some(3)));
}

#[test]
fn a_table_has_another_digest_when_it_says_something_else() {
    let table = every_reader();
    assert_eq!(table.digest(), every_reader().digest());
    let mut other = table.clone();
    other.signatures.clear();
    assert_ne!(table.digest(), other.digest());
    let text = serde_json::to_string(&table).unwrap();
    let same: ReadingTable = serde_json::from_str(&text).unwrap();
    assert_eq!((same.digest(), &same), (table.digest(), &table));
}

#[test]
fn hostile_files_cost_little_and_break_nothing() {
    let deep = "[".repeat(2_000_000);
    let wide = format!("{{\"calls\": [{}0]}}", "0,".repeat(3_000_000));
    let long = format!("ERROR: {}", "é".repeat(8_000_000));
    let many = "{\"type\":\"failed\"}\n".repeat(300_000);
    for text in [deep.as_str(), &wide, &long, &many, "\0\0\0", "\u{1b}[", "{\"calls\": [{\"usage\": {\"in\": 1e999}}]}"]
    {
        let files: Vec<(&str, &str)> =
            ["stdout", "stderr", "trajectory", "rollout"].iter().map(|name| (*name, text)).collect();
        let reading = by(&files, Exit::Code(0));
        let evidence = reading.outcome.failure().unwrap().evidence.as_str().to_owned();
        assert!(evidence.len() < 520 && !evidence.contains('\u{1b}'), "{}", evidence.len());
        assert!(reading.usage.input.is_none(), "{:?}", reading.usage);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_that_an_agent_writes_makes_a_reading_fail(
        files in proptest::collection::vec(proptest::prelude::any::<Vec<u8>>(), 4),
        documents in proptest::collection::vec(json(), 3),
        code in 0..3i32,
    ) {
        let table = every_reader();
        let names = ["stdout", "stderr", "trajectory", "rollout"];
        let raw: BTreeMap<String, Vec<u8>> = names.iter().map(ToString::to_string).zip(files).collect();
        let mut said = raw.clone();
        for (name, document) in ["stdout", "trajectory", "rollout"].iter().zip(documents) {
            said.insert((*name).to_owned(), document.into_bytes());
        }
        for files in [raw, said] {
            for exit in [Exit::Code(code), Exit::TimedOut { limit_ms: 1 }, Exit::Signal(9)] {
                let reading = read_files(&table, exit.clone(), &files);
                let usage = &reading.usage;
                let known = usage.input.is_some() && usage.output.is_some();
                proptest::prop_assert!(known || usage.unknown_because.is_some());
                proptest::prop_assert!(usage.input.unwrap_or(0) <= 1_000_000_000_000);
                proptest::prop_assert_eq!(&reading, &read_files(&table, exit, &files));
            }
        }
    }
}

/// JSON that uses the words that the table looks for.
fn json() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let leaf = proptest::sample::select(vec![
        "0",
        "1",
        "-1",
        "18446744073709551615",
        "1e400",
        "0.5",
        "null",
        "true",
        "\"failed\"",
        "\"\\u0000\"",
        "[]",
        "{}",
    ]);
    let name = proptest::sample::select(vec![
        "calls", "usage", "in", "out", "cached", "type", "error", "errors", "ok", "u", "id",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            proptest::collection::vec((name.clone(), inner), 0..4).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

#[test]
fn a_reading_that_cannot_mean_anything_is_a_flaw_that_says_what_to_do() {
    let flaws = |nodes: &str| {
        let text = format!(
            "flow 1\nagent a {{\n run \"true\"\n{nodes}\n}}\npipeline p {{ candidate a agent=a; axis n \"1\"; step s uses=command {{ each n; run \"true\" }} }}\n"
        );
        match flow::manifest::read_text("m.kdl", &text, Path::new("/")) {
            Ok(_) => String::new(),
            Err(flaws) => format!("{flaws:?}"),
        }
    };
    assert_eq!(flaws("trajectory \"t.json\"\nreading { finished json=trajectory }"), "");
    for (nodes, code) in [
        ("reading { finished }", "missing-property"),
        ("reading { finished json=stdout text=stdout }", "two-sources"),
        ("reading { finished json=trajectory }", "unknown-file"),
        ("reading { finished json=sdtout }", "unknown-file"),
        ("reading { finished json=stdout match=\"x\" }", "wrong-format"),
        ("reading { finished text=stdout { where \"/a\" 1 } }", "wrong-format"),
        ("reading { finished text=stdout match=\"(\" }", "bad-pattern"),
        ("reading { error json=stdout { at \"error\" } }", "bad-pointer"),
        ("reading { signature QUOTA \"x\" }", "unknown-cause"),
        ("reading { signature HOLDS_SECRET \"x\" }", "unknown-cause"),
        ("reading { usage json=stdout { at \"/u\" } }", "no-figures"),
        ("reading { usage text=stdout match=\"([0-9]+)\" }", "no-figures"),
        ("reading { usage json=stdout { input \"/i\"; output \"/o\"; cache-read \"/c\" } }", "missing-property"),
        ("reading { usage json=stdout { wher \"/i\" 1 } }", "unknown-node"),
        ("keep stdout \"{out}/x\"", "taken-name"),
        ("keep log \"x\"", "bad-glob"),
        ("keep log \"{home}/../x\"", "bad-glob"),
        ("keep log \"{out}//etc\"", "bad-glob"),
    ] {
        let said = flaws(nodes);
        assert!(said.contains(code), "{nodes}: {said}");
    }
}

#[test]
fn figures_that_cannot_be_or_cannot_be_read_make_tokens_a_floor_and_never_a_total() {
    let good = r#"{"id": "a", "u": {"in": 100, "out": 10}}"#;
    let usage = |line: &str| by(&[("rollout", &format!("{good}\n{line}\n"))], Exit::Code(0)).usage;
    for line in [
        r#"{"id": "b", "u": {"in": 2e12, "out": -5}}"#,
        r#"{"id": "b", "u": {"in": "5000", "out": "700"}}"#,
        r#"{"id": "b", "u": {"in": 1.5, "out": 2.5}}"#,
        r#"{"id": "b", "u": {"in": NaN, "out": 5}}"#,
        r#"{"id": "b", "u": {"in": 1e400, "out": 5}}"#,
        r#"a tool that ends no line{"id": "b", "u": {"in": 9, "out": 5}}"#,
    ] {
        let usage = usage(line);
        assert_eq!((usage.input, usage.output), (Some(100), Some(10)), "{line}");
        assert!(usage.unknown_because.is_some(), "{line}");
    }
    for line in ["int main() {", r#"it said {"id": "b"}"#, r#"{"id": "b"}"#] {
        assert_eq!(usage(line).unknown_because, None, "{line}");
    }
    for id in ["null", "\"\"", "\" \""] {
        let line = format!("{{\"id\": {id}, \"u\": {{\"in\": 1000, \"out\": 10}}}}\n");
        let usage = by(&[("rollout", &line.repeat(5))], Exit::Code(0)).usage;
        assert_eq!((usage.input, usage.calls), (Some(5000), Some(5)), "{id}");
    }
    // A later total that cannot be is not passed over for the one before it.
    let last =
        |line: &str| by(&[("stdout", &format!("flow-usage {{\"input\": 7, \"output\": 2}}\n{line}\n"))], Exit::Code(0));
    let usage = last("flow-usage {\"input\": -1, \"output\": -1}").usage;
    assert!(usage.unknown_because.unwrap().contains("cannot be a number of tokens"));
    let usage = last("words without an end: flow-usage {\"input\": 900, \"output\": 90}").usage;
    assert!(usage.unknown_because.unwrap().contains("could not be read"));
    let text = by(&[("stdout", "100 in, 10 out\n99999999999999 in, 99999999999999 out\n")], Exit::Code(0)).usage;
    assert_eq!((text.input, text.output), (Some(100), Some(10)));
    assert!(text.unknown_because.is_some());
}

#[test]
fn what_a_model_or_a_tool_says_closes_no_lane_and_blocks_no_candidate() {
    let adapters = adapters();
    let read = |adapter: &str, code: i32, files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        read_files(&adapters[adapter], Exit::Code(code), &files).outcome.failure().unwrap().cause
    };
    let told = "Added pkg/work.py to the chat.\n\nI will make the client raise AuthenticationError, as users asked.\n";
    let prose = format!(
        "{told}\nlitellm.AuthenticationError: that is what it is called\n\nTokens: 12k sent, 1.1k received.\n\nThe LLM did not conform to the edit format.\nOnly 3 reflections allowed, stopping.\n"
    );
    assert_eq!(read("aider", 0, &[("stdout", &prose)]), Cause::Unknown);
    let refused = format!(
        "{prose}litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit reached\nThe API provider has rate limited you. Try again later or check your quotas.\n"
    );
    assert_eq!(read("aider", 0, &[("stdout", &refused)]), Cause::RateLimited, "litellm's own line");
    let rollout = "{\"payload\":{\"type\":\"token_count\",\"info\":{\"total_token_usage\":{\"input_tokens\":100000,\"output_tokens\":10000}}}}\n";
    let events = "{\"type\":\"thread.started\"}\n";
    for said in
        ["exec failed: ModuleNotFoundError: No module named 'torch'", "error: unexpected argument", "Broken pipe"]
    {
        let files = [("stdout", events), ("stderr", said), ("rollout", rollout)];
        assert_eq!(read("codex", 101, &files), Cause::Unknown, "{said}");
        assert_ne!(read("codex", 101, &files[..2]), Cause::Unknown, "before the model answered: {said}");
    }
}
