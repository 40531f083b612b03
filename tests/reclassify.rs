//! A table that changes reads every stored attempt anew: no agent runs again for it, and what it reopens waits for a person.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

/// An agent that prints a report, leaves a useful change, and always ends with exit code 0.
const AGENT: &str = r#"agent told {
    run "{tool.python}" "{file.program}" "{out}"
    version "1"
    trajectory "report.json"
    reading {
        finished json=trajectory { where "/ok" #true }
        error json=trajectory { at "/error" }
        usage json=trajectory take=sum cached=inside { at "/calls/*"; input "/input"; output "/output"; cache-read "/cached"; calls "/calls/*" }
        model json=trajectory { at "/calls/*/model" }
        message json=trajectory { at "/said" }
        // more
    }
}
"#;

const PROGRAM: &str = r#"import json, os, pathlib, sys, time
report = json.loads(REPORT)
path = pathlib.Path("pkg/work.py")
path.write_text(path.read_text().replace("OPS[0] += 10", "OPS[0] += 5"))
pathlib.Path(sys.argv[1], "report.json").write_text(json.dumps(report))
"#;

const CALLS: &str = r#""calls": [{"input": 100, "output": 5, "cached": 60, "model": "m-1"}, {"input": 50, "output": 1, "model": "m-1"}]"#;

/// A project whose agent reports this.
fn telling(report: &str) -> Flow {
    let flow = Flow::sample();
    flow.write("commits.txt", "{one:40}\n");
    flow.edit("agents.kdl", |text| format!("{text}{AGENT}"));
    flow.replace("m.kdl", "candidate human agent=human", "candidate told agent=told { file program \"agent.py\" }");
    program(&flow, report);
    flow
}

fn program(flow: &Flow, report: &str) {
    // Written as it is: what stands in braces is not filled.
    std::fs::write(flow.path("agent.py"), PROGRAM.replace("REPORT", &format!("{report:?}"))).unwrap();
}

fn agents(flow: &Flow) -> usize {
    flow.lines().iter().filter(|line| line["line"] == "started" && line["step"] == "agent").count()
}

#[test]
fn an_agent_is_read_by_what_it_says_and_not_by_its_exit_code() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"it went home\", {CALLS}}}"));
    flow.run().settles();
    let ended = flow.ends("agent", "UNKNOWN");
    assert_eq!(ended.len(), 1, "{:#?}", flow.lines());
    assert_eq!(ended[0]["outcome"]["failed"]["evidence"], "it went home");
    let usage = &ended[0]["usage"];
    assert_eq!((usage["input"].as_u64(), usage["output"].as_u64()), (Some(90), Some(6)));
    assert_eq!((usage["cache_read"].as_u64(), usage["calls"].as_u64()), (Some(60), Some(2)));
    assert_eq!(usage["models"][0], "m-1");
    assert!(ended[0]["process"].is_object() && ended[0]["read_by"].is_string());
}

#[test]
fn a_signature_that_is_added_runs_no_agent_and_says_what_it_changes() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"it went home\", {CALLS}}}"));
    // Its patch is good, and tested all the same.
    assert_eq!(flow.run().settles().class("{one}/told/1"), "SUCCESS_IMPROVEMENT");
    let before = agents(&flow);
    flow.replace("agents.kdl", "// more", "signature TOOL_OUTPUT_MISSING \"went home\"");
    flow.flow(&["plan", "m.kdl"]).says("hit");
    let said = flow.flow(&["reclassify", "m.kdl", "--dry-run"]);
    said.settles().says("UNKNOWN").says("TOOL_OUTPUT_MISSING").says("agents run again: 0");
    assert_eq!(flow.ends("classify", "succeeded").len(), 2, "a dry run executes nothing");
    let said = flow.flow(&["reclassify", "m.kdl", "--json"]).settles().json();
    assert_eq!(
        (&said["flips"][0]["was"], &said["flips"][0]["now"]),
        (&"UNKNOWN".into(), &"TOOL_OUTPUT_MISSING".into())
    );
    assert_eq!(said["agents_run_again"], 0);
    assert_eq!(agents(&flow), before);
    // The classes were said anew: the cause is an ingredient of them.
    assert_eq!(flow.ends("classify", "succeeded").len(), 3);
    flow.run().settles().executes_nothing();
    assert_eq!(agents(&flow), before);
    let shown = flow.flow(&["show", "pkg/{one}/told/1", "m.kdl", "--json"]).json();
    assert_eq!(shown["agent"], "tool-output-missing", "{shown:#}");
}

#[test]
fn what_a_table_reopens_waits_until_somebody_asks() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"it went home\", {CALLS}}}"));
    flow.run().settles();
    let before = agents(&flow);
    flow.replace("agents.kdl", "// more", "signature RATE_LIMITED \"went home\"");
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).json();
    let agent = |plan: &serde_json::Value| {
        let actions = plan["actions"].as_array().unwrap().clone();
        actions.into_iter().find(|action| action["step"] == "agent" && action["axes"]["candidate"] == "told").unwrap()
    };
    assert_eq!(agent(&plan)["state"], "reopened", "{plan:#}");
    let said = flow.flow(&["reclassify", "m.kdl"]);
    said.exits(3).says("reopened").says("RATE_LIMITED");
    let ran = flow.run();
    ran.exits(3).executes_nothing();
    assert_eq!(ran.finished()["classes"]["AGENT_ERROR"], 1, "{:#}", ran.finished());
    flow.flow(&["why", "{one}", "m.kdl"]).says("reopened");
    let shown = flow.flow(&["show", "pkg/{one}/told/1", "m.kdl", "--json"]).json();
    assert_eq!(
        (&shown["class"], &shown["cause"], &shown["open"]),
        (&"AGENT_ERROR".into(), &"RATE_LIMITED".into(), &true.into())
    );
    assert_eq!(agents(&flow), before, "a table never spends");
    program(&flow, &format!("{{\"ok\": false, \"error\": \"it went home\", {CALLS}}} "));
    // The program is an ingredient: written anew as it was, the key is that of the reopened attempt.
    program(&flow, &format!("{{\"ok\": false, \"error\": \"it went home\", {CALLS}}}"));
    flow.replace("agents.kdl", "signature RATE_LIMITED \"went home\"", "// more");
    flow.run().settles().executes_nothing();
    flow.replace("agents.kdl", "// more", "signature JSON_PARSE \"went home\"");
    flow.run().settles();
    assert_eq!(agents(&flow), before);
}

#[test]
fn what_is_reopened_runs_again_with_retry() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"it went home\", {CALLS}}}"));
    flow.replace("steps.kdl", "attempts 3", "attempts 1");
    flow.run().settles();
    let before = agents(&flow);
    flow.replace("agents.kdl", "// more", "signature RATE_LIMITED \"went home\"");
    flow.run_with(&["--retry", "*/told/*"]).exits(3);
    assert_eq!(agents(&flow), before + 1);
    let shown = flow.flow(&["log", "pkg/{one}/told/1", "agent", "m.kdl", "--list"]);
    shown.settles().says("RATE_LIMITED");
}

#[test]
fn an_attempt_that_did_not_settle_is_a_hit_once_a_table_reads_it_otherwise() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"Error code: 500\", {CALLS}}}"));
    flow.replace("steps.kdl", "attempts 3", "attempts 1");
    flow.run().exits(3);
    let before = agents(&flow);
    assert_eq!(flow.ends("agent", "SERVER_ERROR").len(), 1);
    flow.replace("agents.kdl", "// more", "signature JSON_PARSE \"Error code: 500\"");
    // The work tree was kept: the patch is taken and tested, and the agent not asked again.
    assert_eq!(flow.run().settles().class("{one}/told/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(agents(&flow), before);
}

#[test]
fn what_is_exhausted_stays_so_whatever_a_table_reads_in_it() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"odd thing\", {CALLS}}}"));
    flow.replace("steps.kdl", "attempts 3", "attempts 1");
    flow.replace("agents.kdl", "// more", "signature RATE_LIMITED \"odd thing\"\n        // more");
    flow.run().exits(3);
    let before = agents(&flow);
    // Of a cause that does not count: read so, no attempt would have been used up.
    flow.replace("agents.kdl", "signature RATE_LIMITED", "signature CREDENTIALS_EXPIRED");
    flow.flow(&["reclassify", "m.kdl"]).exits(3);
    flow.run().exits(3).says("--retry");
    assert_eq!(agents(&flow), before, "a table change spends nothing");
    flow.run_with(&["--retry", "*/told/*"]).exits(3);
    assert_eq!(agents(&flow), before + 1);
}

#[test]
fn an_agent_that_dies_before_it_tells_costs_an_unknown_amount_and_closes_nothing() {
    for (report, stderr, cause) in [
        (
            Some("{\"calls\": [{\"input\": 900000, \"output\": 5"),
            "ModuleNotFoundError: No module named 'docker'",
            "UNKNOWN",
        ),
        (
            Some("{\"calls\": [{\"input\": 900000, \"output\": 5"),
            "An error occurred (ExpiredToken): the token has expired",
            "UNKNOWN",
        ),
        (None, "FAILED test_aws: An error occurred (ExpiredToken): the token has expired", "UNKNOWN"),
    ] {
        let flow = telling("{}");
        let write = report
            .map(|text| format!("pathlib.Path(sys.argv[1], \"report.json\").write_text({text:?})\n"))
            .unwrap_or_default();
        flow.replace("agents.kdl", "// more", "error text=stderr");
        std::fs::write(
            flow.path("agent.py"),
            format!("import pathlib, sys\n{write}print({stderr:?}, file=sys.stderr)\nsys.exit(1)\n"),
        )
        .unwrap();
        let ran = flow.run();
        assert!(!ran.stdout.contains("waits for lane") && !ran.stderr.contains("waits for lane"), "{}", ran.stdout);
        let ended = flow.ends("agent", cause);
        assert_eq!(ended.len(), 1, "{stderr}: {:#?}", flow.lines());
        assert!(
            ended[0]["usage"]["input"].is_null() && ended[0]["usage"]["unknown_because"].is_string(),
            "{:#}",
            ended[0]
        );
    }
}

#[test]
fn draws_that_stand_by_reuse_are_listed_and_what_a_table_reopens_of_them_is_not_drawn_again() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"it went home\", {CALLS}}}"));
    flow.replace("m.kdl", "file program \"agent.py\"", "file program \"agent.py\"; reuse except cause=\"CRASHED\"");
    flow.replace("steps.kdl", "attempts 3", "attempts 1");
    flow.run().settles();
    let before = agents(&flow);
    let drawn = flow.ends("agent", "UNKNOWN")[0]["attempt"].clone();
    flow.replace(
        "agents.kdl",
        "    version \"1\"\n    trajectory \"report.json\"",
        "    version \"2\"\n    trajectory \"report.json\"",
    );
    assert_eq!(flow.run().settles().finished()["actions"]["reused"], 1);
    flow.replace("agents.kdl", "// more", "signature TOOL_OUTPUT_MISSING \"went home\"");
    let said = flow.flow(&["reclassify", "m.kdl", "--dry-run", "--json"]).settles().json();
    let flip = &said["flips"][0];
    assert_eq!(
        (&flip["attempt"], &flip["now"], &flip["reused"]),
        (&drawn, &"TOOL_OUTPUT_MISSING".into(), &true.into())
    );
    flow.replace("agents.kdl", "signature TOOL_OUTPUT_MISSING", "signature RATE_LIMITED");
    let said = flow.flow(&["reclassify", "m.kdl", "--dry-run"]);
    said.settles().says("RATE_LIMITED").says("reopened, reused").says("1 are reopened");
    let ran = flow.run();
    ran.exits(3).executes_nothing();
    assert_eq!(agents(&flow), before, "a table never spends");
    flow.run_with(&["--retry", "*/told/*"]).exits(3);
    assert!(agents(&flow) > before);
}

#[test]
fn usage_is_read_anew_too() {
    let flow = telling(&format!("{{\"ok\": true, {CALLS}}}"));
    flow.run().settles();
    flow.replace("agents.kdl", "cached=inside", "cached=beside");
    let shown = flow.flow(&["show", "pkg/{one}/told/1", "m.kdl", "--json"]).json();
    assert_eq!(shown["tokens"][0], 150, "{shown:#}");
    // The derived file may be spoilt or gone: it is read again from what is stored.
    let folder = flow.cache().join("index/readings");
    for file in std::fs::read_dir(&folder).unwrap() {
        std::fs::write(file.unwrap().path(), b"{\"attempt\":\"x\"}\n\0\xff").unwrap();
    }
    let again = flow.flow(&["show", "pkg/{one}/told/1", "m.kdl", "--json"]).json();
    assert_eq!(again["tokens"], shown["tokens"]);
}

#[test]
fn an_agent_that_is_late_with_a_good_patch_is_tested_and_marked() {
    let flow = telling(&format!("{{\"ok\": true, {CALLS}}}"));
    flow.edit("agent.py", |text| format!("{text}time.sleep(1000)\n"));
    flow.add("step agent { timeout \"3s\" }");
    let ran = flow.run();
    assert_eq!(ran.settles().class("{one}/told/1"), "SUCCESS_IMPROVEMENT");
    let shown = flow.flow(&["show", "pkg/{one}/told/1", "m.kdl", "--json"]).json();
    assert_eq!(shown["agent"], "timed-out", "{shown:#}");
    let usage = &flow.ends("agent", "TIMEOUT")[0]["usage"];
    assert_eq!(usage["input"], 90);
    assert!(usage["unknown_because"].as_str().unwrap().contains("stopped"), "{usage}");
}

#[test]
fn the_log_tells_what_an_attempt_reads_as_and_what_it_was() {
    let flow = telling(&format!("{{\"ok\": false, \"error\": \"it went home\", \"said\": \"good bye\", {CALLS}}}"));
    flow.run().settles();
    flow.replace("agents.kdl", "// more", "signature JSON_PARSE \"went home\"");
    let said = flow.flow(&["log", "pkg/{one}/told/1", "agent", "m.kdl"]);
    said.settles().says("JSON_PARSE: it went").says("on record as UNKNOWN").says("said last: good bye");
    said.says("answered by: m-1").says("90 tokens in").says("60 read from the cache");
}

#[test]
fn what_a_killed_agent_had_spent_is_in_the_ledger() {
    let flow = telling(&format!("{{\"ok\": true, {CALLS}}}"));
    flow.edit("agent.py", |text| {
        let wait = "import subprocess\nif os.path.exists(os.environ['MARK']):\n    pathlib.Path(os.environ['MARK'] + '.there').write_text('')\n    time.sleep(1000)\n";
        format!("{text}{wait}")
    });
    let mark = flow.signs().join("mark");
    std::fs::write(&mark, "").unwrap();
    flow.replace(
        "agents.kdl",
        "trajectory \"report.json\"",
        &format!("trajectory \"report.json\"\n    set MARK {mark:?}"),
    );
    let mut child = flow.start();
    let there = flow.signs().join("mark.there");
    support::until("the agent is at work", || there.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&mark).unwrap();
    assert_eq!(flow.run().settles().class("{one}/told/1"), "SUCCESS_IMPROVEMENT");
    // The other candidate's agent may have been at work too: it had told nothing yet.
    let mut killed = flow.ends("agent", "INTERRUPTED");
    killed.retain(|end| end["axes"]["candidate"] == "told");
    assert_eq!(killed.len(), 1, "{:#?}", flow.lines());
    let usage = &killed[0]["usage"];
    assert_eq!((&usage["input"], &usage["output"], &usage["cache_read"]), (&90.into(), &6.into(), &60.into()));
    assert!(usage["unknown_because"].as_str().unwrap().contains("may not be in it"), "{usage}");
    assert_eq!(flow.ends("agent", "succeeded").len(), 2, "and the next attempt stands, beside the other candidate's");
}
