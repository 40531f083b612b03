//! The promise about classes: each way in which a test or an agent can end gets the class that fits, through the whole program,
//! and no end is without a cause, a line of evidence and its log.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/wild.rs"]
mod wild;

use std::path::PathBuf;

use support::Flow;
use wild::{Came, USEFUL, Wild};

/// Python that ends a process, and what it is called behind BASELINE_ and PATCHED_, with the cause and its evidence.
const ENDS: [(&str, &str, &str, &str); 11] = [
    ("import no_such_module", "IMPORT_ERROR", "IMPORT_ERROR", "No module named 'no_such_module'"),
    ("def f(:", "IMPORT_ERROR", "IMPORT_ERROR", "SyntaxError"),
    ("len(5)", "TYPE_ERROR", "TYPE_ERROR", "TypeError: object of type 'int' has no len()"),
    ("import os; os.nothing", "ATTRIBUTE_ERROR", "ATTRIBUTE_ERROR", "has no attribute 'nothing'"),
    ("raise RuntimeError('it broke')", "RUNTIME_ERROR", "RUNTIME_ERROR", "RuntimeError: it broke"),
    ("assert 1 == 2, 'not equal'", "ASSERTION", "ASSERTION", "AssertionError: not equal"),
    ("raise MemoryError('too much')", "OOM", "OOM", "MemoryError: too much"),
    (
        "raise RuntimeError('CUDA error: an illegal memory access was encountered')",
        "CUDA_ERROR",
        "CUDA_ERROR",
        "illegal memory access",
    ),
    ("raise KeyError('k')", "EXCEPTION", "EXCEPTION", "KeyError: 'k'"),
    ("import os; os._exit(9)", "EXCEPTION", "EXCEPTION", ""),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "EXCEPTION", "EXCEPTION", "killed by signal 11"),
];

/// Every failed attempt says why, shows it, and names its log where its process said anything.
#[track_caller]
fn all_say_why(wild: &Wild) {
    for line in wild.records() {
        let failed = &line["outcome"]["failed"];
        if line["line"] != "ended" || failed.is_null() {
            continue;
        }
        assert!(failed["cause"].is_string(), "{line}");
        assert!(failed["evidence"].as_str().is_some_and(|evidence| !evidence.trim().is_empty()), "{line}");
        let printed = line["logs"].as_object().is_some_and(|logs| logs.keys().any(|name| name.ends_with("stderr")));
        let by_process = matches!(line["kind"].as_str(), Some("agent" | "test"));
        if printed && by_process && failed["cause"] != "HOLDS_SECRET" {
            assert!(failed["log"].is_string(), "no log is named: {line}");
            assert!(wild.blob(failed["log"].as_str().unwrap()).is_some(), "the log is not there: {line}");
        }
    }
    let job = wild.flow.fill("pkg/{one}/wild/1");
    let shown = wild.flow.flow(&["show", &job, "--json"]);
    if shown.code == Some(0) {
        let shown = shown.json();
        let class = shown["class"].as_str().unwrap_or_default();
        if !class.starts_with("SUCCESS") {
            assert!(shown["evidence"].is_string(), "{shown}");
        }
    }
}

fn baseline(test: &str) -> (Wild, String, String) {
    let wild = Wild::new(USEFUL);
    wild.flow.edit("tests/{one}.py", |_| test.to_owned());
    let ran = wild.flow.run();
    ran.settles();
    wild.left_nothing();
    let class = ran.class("{one}/wild/1");
    assert_eq!(class, ran.class("{one}/human/1"), "the candidates of one commit differ");
    let paid = wild.records().iter().filter(|line| line["kind"] == "agent").count();
    assert_eq!(paid, 0, "an agent was paid for a commit whose baseline cannot run");
    let ended = wild.records().into_iter().rfind(|line| line["line"] == "ended" && line["step"] == "baseline").unwrap();
    all_say_why(&wild);
    let failed = &ended["outcome"]["failed"];
    let text = format!("{} {}", failed["cause"].as_str().unwrap(), failed["evidence"].as_str().unwrap());
    (wild, class, text)
}

#[test]
fn a_base_that_cannot_run_has_the_class_of_its_error() {
    for (code, class, cause, evidence) in ENDS {
        let (_, said, why) = baseline(&format!("{code}\n"));
        assert_eq!(said, format!("BASELINE_{class}"), "{why}");
        assert!(why.starts_with(cause) && why.contains(evidence), "{why}");
    }
}

#[test]
fn a_patch_that_cannot_run_has_the_class_of_its_error() {
    for (code, class, cause, evidence) in ENDS {
        let wild = Wild::new(&format!("with open('pkg/work.py', 'a') as f: f.write({:?})", format!("\n{code}\n")));
        wild.runs(0).is(&format!("PATCHED_{class}")).because(cause, evidence);
        all_say_why(&wild);
    }
}

#[test]
fn a_base_that_is_too_slow_is_a_timeout() {
    let wild = Wild::new(USEFUL).step("baseline", "timeout \"1s\"");
    wild.flow.edit("tests/{one}.py", |test| format!("import time\ntime.sleep(1000)\n{test}"));
    let ran = wild.flow.run();
    ran.settles();
    assert_eq!(ran.class("{one}/wild/1"), "BASELINE_TIMEOUT");
    wild.left_nothing();
}

#[test]
fn a_patch_that_is_too_slow_is_a_timeout() {
    let script = "with open('pkg/work.py', 'a') as f: f.write('\\nimport time\\ntime.sleep(1000)\\n')";
    let wild = Wild::new(script).step("patched", "timeout \"1s\"");
    let came = wild.flow.run();
    came.settles();
    assert_eq!(came.class("{one}/wild/1"), "PATCHED_TIMEOUT");
    wild.left_nothing();
}

#[test]
fn a_commit_without_a_test_script_is_not_measured() {
    let wild = Wild::new(USEFUL);
    std::fs::remove_file(wild.flow.path("tests/{one}.py")).unwrap();
    let ran = wild.flow.run();
    ran.settles();
    assert_eq!(ran.class("{one}/wild/1"), "NO_TEST_SCRIPT");
    assert!(!wild.records().iter().any(|line| line["kind"] == "agent" || line["kind"] == "test"));
}

#[test]
fn exits_of_the_contract_are_the_tests_own_classes() {
    for (code, class) in
        [("import sys; sys.exit(4)", "TARGET_NOT_RESOLVED"), ("import sys; sys.exit(3)", "TEST_IMPORT_ERROR")]
    {
        let (_, said, why) = baseline(code);
        assert_eq!(said, class, "{why}");
    }
}

#[test]
fn a_base_that_disagrees_with_itself_is_the_tests_fault() {
    let (_, class, why) = {
        let test = Flow::sample();
        let text = std::fs::read_to_string(test.path("tests/{one}.py")).unwrap();
        baseline(&text.replace("str(result)", "os.urandom(8).hex()"))
    };
    assert_eq!(class, "BASELINE_NONDETERMINISTIC", "{why}");
}

#[test]
fn a_test_that_reports_nothing_is_told() {
    let (_, class, why) = baseline("pass\n");
    assert_eq!(class, "BASELINE_EXCEPTION");
    assert!(why.contains("NO_RESULT") && why.contains("$FLOW_RESULT"), "{why}");
}

#[test]
fn patches_that_cannot_be_tested_say_why() {
    let cases: [(&str, &str, &str); 6] = [
        ("pass", "AGENT_NO_PATCH", "NO_PATCH"),
        ("open('pkg/work.py', 'a').write('\\n\\n   \\n')", "PATCH_EMPTY_EDIT", "EMPTY_EDIT"),
        ("open('tests/test_work.py', 'a').write('# easier\\n')", "PATCH_PROTECTED", "PROTECTED"),
        ("open('pkg/large.py', 'w').write('x = 1\\n' * 600000)", "PATCH_INVALID", "PATCH_TOO_LARGE"),
        ("open('x.log', 'w').write('ignored\\n')", "AGENT_NO_PATCH", "NO_PATCH"),
        ("os.symlink('work.py', 'pkg/work.pyx'); raise SystemExit(0)", "SUCCESS_NEUTRAL", ""),
    ];
    for (script, class, cause) in cases {
        let wild = Wild::new(script);
        let came = wild.runs(0);
        came.is(class);
        assert_eq!(came.cause, cause, "{}", came.evidence);
        all_say_why(&wild);
    }
}

#[test]
fn agents_that_end_badly_are_judged_by_what_they_left() {
    let crash = "print('out'); sys.stderr.write('first\\nlast words\\n'); sys.exit(7)";
    let wild = Wild::new(crash);
    let came = wild.runs(0);
    came.is("AGENT_ERROR").because("CRASHED", "last words");
    let ended = wild
        .records()
        .into_iter()
        .rfind(|line| line["line"] == "ended" && line["step"] == "agent" && line["axes"]["candidate"] == "wild");
    assert_eq!(ended.unwrap()["outcome"]["failed"]["exit"], 7);
    all_say_why(&wild);

    let came = Wild::new(&format!("{USEFUL}{crash}")).runs(0);
    came.is("SUCCESS_IMPROVEMENT");
}

#[test]
fn an_agent_that_is_stopped_is_tested_if_it_left_a_patch() {
    let sits = "\ntime.sleep(1000)";
    let late = |script: &str| -> Came { Wild::new(script).step("agent", "timeout \"3s\"").runs(0) };
    late(&format!("{USEFUL}{sits}")).is("SUCCESS_IMPROVEMENT").because("TIMEOUT", "the limit is 3.0 s");
    late(sits).is("AGENT_TIMEOUT").because("TIMEOUT", "");
    late(&format!("open('pkg/work.py', 'a').write('\\n\\n'){sits}")).is("AGENT_TIMEOUT");
}

/// The folder of real outputs, where this machine has it.
fn real() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("FLOW_SHARED").map_or(beside, PathBuf::from).join("data/iso-bench");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there is no {} (FLOW_SHARED names another place)", folder.display());
    None
}

/// A test script that says what a real one said: on the base one thing, on the patched tree another.
fn replays(base: &str, patched: &str, stderr: &str, exit: i32) -> Flow {
    let flow = Flow::sample();
    flow.write("commits.txt", "{one:40}\n");
    flow.replace(
        "m.kdl",
        "contract=flow { metric ops better=lower kind=count min-effect=\"2%\" }",
        "contract=isobench",
    );
    flow.replace(
        "m.kdl",
        "tool python",
        "slots { cpu \"a\" }\n    step baseline { holds cpu=1 }\n    step patched { holds cpu=1 }\n    tool python",
    );
    let script = format!(
        "import sys\nslow = open('pkg/work.py').read().count('OPS[0] += 10') == 2\nsys.stdout.write({base:?} if slow else {patched:?})\nsys.stderr.write({stderr:?})\nsys.exit({exit})\n"
    );
    std::fs::write(flow.path("tests/{one}.py"), script).unwrap();
    flow
}

#[test]
fn real_outputs_of_iso_bench_get_the_class_that_fits() {
    let Some(folder) = real() else { return };
    for (name, exit, class) in [
        ("sglang_001_09deb20d_success_neutral", 0, None),
        ("vllm_core-0048_success_neutral", 0, None),
        ("sglang_core-0001_baseline_failed_ipython", 1, Some("TARGET_NOT_RESOLVED")),
        ("vllm_core-0000_baseline_failed_nopatch", 1, Some("TARGET_NOT_RESOLVED")),
        ("vllm_core-0023_baseline_failed_cbor2", 1, Some("TARGET_NOT_RESOLVED")),
        ("vllm_core-0062_baseline_failed_target", 1, Some("TARGET_NOT_RESOLVED")),
    ] {
        let path = folder.join("test_results").join(format!("{name}.test_results.json"));
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let outputs: Vec<&str> =
            json["result"]["stdout"].as_str().unwrap().split("\n\n").filter(|part| !part.trim().is_empty()).collect();
        let flow = replays(outputs[0], outputs.last().unwrap(), json["result"]["stderr"].as_str().unwrap(), exit);
        let ran = flow.run();
        ran.settles();
        let said = ran.class("{one}/human/1");
        match class {
            Some(class) => assert_eq!(said, class, "{name}"),
            // Constant samples: whatever the ratio says, it was measured.
            None => assert!(said.starts_with("SUCCESS_"), "{name}: {said}"),
        }
    }
    let oom = std::fs::read_to_string(folder.join("test_output/sglang_023_564a898a_OOM.test_stderr.txt")).unwrap();
    let flow = replays("", "", &oom, 1);
    assert_eq!(flow.run().settles().class("{one}/human/1"), "BASELINE_OOM");
}

#[test]
fn the_exits_of_iso_bench_are_classes_of_the_test() {
    let unresolved = "{\"target_resolved\": false, \"error\": \"no module\"}\n";
    let not_hit = "{\"target_resolved\": true, \"opt_path_hit\": false, \"error_name\": \"OPT_PATH_NOT_TRIGGERED\"}\n";
    for (stdout, exit, class) in [
        (unresolved, 1, "TARGET_NOT_RESOLVED"),
        (not_hit, 3, "OPT_PATH_NOT_HIT"),
        ("", 3, "OPT_PATH_NOT_HIT"),
        ("", 1, "BASELINE_EXCEPTION"),
        ("no json\n", 0, "BASELINE_EXCEPTION"),
        ("{\"avg_ms\": -1}\n", 0, "BASELINE_EXCEPTION"),
    ] {
        let flow = replays(stdout, stdout, "", exit);
        assert_eq!(flow.run().settles().class("{one}/human/1"), class, "{stdout} {exit}");
    }
}

#[test]
fn results_that_tested_code_can_forge_are_marked() {
    let line = "{\"avg_ms\": 1.5}\n";
    let flow = replays(line, line, "", 0);
    flow.run().settles();
    flow.flow(&["run", "m.kdl"]).says("FORGEABLE");
}
