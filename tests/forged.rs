//! The promise about what tested code says of itself: under the `flow` contract only the private result file counts, only a
//! whole and sane one, and nothing that a process leaves can make flow fail.
//!
//! What is not promised: the file's name stands in the environment of the tested process, so that code of the patched tree can
//! write a result before the script does, or put another function in the script's place. What flow holds against that is the
//! comparison of results with the base's, and its own clock beside the script's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/wild.rs"]
mod wild;

use wild::{Came, USEFUL, Wild, below};

/// A patch that puts code at the top of the measured module.
fn code(code: &str) -> String {
    format!("with open('pkg/work.py', 'a') as f: f.write({code:?})\n")
}

#[track_caller]
fn tested(patched: &str) -> Came {
    let wild = Wild::new(&code(patched));
    wild.runs(0)
}

/// Writes a result and ends the process at once.
fn reports(python: &str) -> String {
    format!("\nimport os\nwith open(os.environ['FLOW_RESULT'], 'w') as f: f.write({python})\nos._exit(0)\n")
}

#[test]
fn a_result_on_standard_output_is_no_result() {
    let forged = "\nprint('{\"metrics\": {\"ops\": 1}, \"digest\": \"sha256:100\"}', flush=True)\n";
    tested(forged).is("SUCCESS_NEUTRAL");
    let forged_and_gone = format!("{forged}import os\nos._exit(0)\n");
    tested(&forged_and_gone).is("PATCHED_EXCEPTION").because("NO_RESULT", "nothing was written");
}

#[test]
fn other_result_files_do_not_count() {
    let forged = r#"
import os
result = os.environ['FLOW_RESULT']
for name in [result + '.json', result + '.tmp'] + [os.path.join(os.path.dirname(result), f'{n}-0000000000000000.json') for n in range(9)]:
    with open(name, 'w') as f: f.write('{"metrics": {"ops": 1}, "digest": "sha256:100"}')
"#;
    tested(forged).is("SUCCESS_NEUTRAL");
}

#[test]
fn a_result_that_is_no_number_is_none() {
    for (result, evidence) in [
        ("NaN", ""),
        ("Infinity", ""),
        ("-Infinity", ""),
        ("1e999", ""),
        ("-5", "ops"),
        ("1.5", "ops"),
        ("99999999999999999999999", "ops"),
        ("\"10\"", "ops"),
        ("null", "ops"),
        ("[1]", "ops"),
        ("true", "ops"),
    ] {
        let forged = reports(&format!("'{{\"metrics\": {{\"ops\": {result}}}, \"digest\": \"sha256:100\"}}'"));
        let came = tested(&forged);
        came.is("PATCHED_EXCEPTION").because("NO_RESULT", evidence);
    }
}

#[test]
fn a_result_that_is_no_json_is_none() {
    for python in
        ["''", "'{'", "'[' * 100000", "'{\"a\":' * 100000", "'\\0' * 1000", "'null'", "'[]'", "'{\"metrics\": 7}'"]
    {
        tested(&reports(python)).is("PATCHED_EXCEPTION").because("NO_RESULT", "");
    }
}

#[test]
fn a_huge_result_is_not_read() {
    tested(&reports("'{\"metrics\": {\"ops\": 1}, \"x\": \"' + 'x' * (200 << 20) + '\"}'")).is("PATCHED_EXCEPTION");
    let long = reports("'{\"metrics\": {\"ops\": 1}, \"digest\": \"' + 'x' * 100000 + '\"}'");
    tested(&long).is("PATCHED_EXCEPTION").because("NO_RESULT", "digest");
}

#[test]
fn a_result_that_is_a_link_a_pipe_or_a_folder_is_none() {
    for put in [
        "os.symlink('/etc/passwd', result)",
        "os.mkfifo(result)",
        "os.mkdir(result)",
        "import socket; os.chdir(os.path.dirname(result)); socket.socket(socket.AF_UNIX).bind(os.path.basename(result))",
        "import shutil; shutil.rmtree(os.path.dirname(result)); os.symlink('/etc', os.path.dirname(result))",
    ] {
        let came = tested(&format!("\nimport os\nresult = os.environ['FLOW_RESULT']\n{put}\nos._exit(0)\n"));
        assert!(["PATCHED_EXCEPTION", "NOT_RUN"].contains(&&*came.class), "{put}: {}: {}", came.class, came.evidence);
        assert!(!came.evidence.contains("root:"), "{}", came.evidence);
    }
}

#[test]
fn a_forged_result_with_a_wrong_digest_is_a_wrong_result() {
    let forged = reports("'{\"metrics\": {\"ops\": 1}, \"digest\": \"sha256:0\"}'");
    tested(&forged).is("PATCHED_WRONG_RESULT");
}

/// The limit of this contract, said aloud: it is `with human` eyes or a sandbox that must find it.
#[test]
fn a_forged_result_with_the_right_digest_is_believed() {
    let forged = reports("'{\"metrics\": {\"ops\": 1}, \"digest\": \"sha256:100\"}'");
    tested(&forged).is("SUCCESS_IMPROVEMENT");
}

#[test]
fn output_of_tested_code_is_bounded_and_control_characters_stay_out_of_sight() {
    let noisy = "\nimport sys\nfor _ in range(64): sys.stdout.write('x' * (1 << 20))\nsys.stderr.write('\\x1b[2J\\x07evil\\n')\nraise RuntimeError('\\x1b[31mred')\n";
    let came = tested(noisy);
    came.is("PATCHED_RUNTIME_ERROR").because("RUNTIME_ERROR", "red");
    assert!(!came.evidence.contains('\x1b') && !came.ran.stderr.contains('\x1b') && !came.ran.stdout.contains('\x1b'));
}

#[test]
fn tested_code_that_leaves_a_daemon_or_a_full_home_touches_no_later_process() {
    let leaves = r#"
import os, sys, time
home = os.environ['HOME']
if os.listdir(home) or os.listdir(os.environ['TMPDIR']): raise RuntimeError('something was left')
os.makedirs(home + '/a/b'); open(home + '/a/b/c', 'w').close(); os.chmod(home + '/a/b', 0); os.chmod(home + '/a', 0)
try: os.rmdir(os.environ['TMPDIR']); open(os.environ['TMPDIR'], 'w').close()
except OSError: pass  # it is held in its place
if os.fork() == 0:
    os.setsid()
    while True: time.sleep(1000)
"#;
    let wild = Wild::new(&format!("{USEFUL}{}", code(leaves)));
    wild.runs(0).is("SUCCESS_IMPROVEMENT");
}

#[test]
fn tested_code_that_kills_its_supervisor_has_no_result() {
    let kills = "\nimport os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(1000)\n";
    // In a sandbox whose kernel keeps processes apart it is only refused.
    let wild = Wild::new(&code(kills)).step("patched", "attempts 1; sandbox off");
    let came = wild.runs(3);
    came.because("HARNESS_FAULT", "was killed by signal 9");
    assert!(!came.class.starts_with("SUCCESS"), "{}", came.class);
}

#[test]
fn a_test_that_prints_what_is_not_text_is_stored_as_it_is() {
    let prints = "\nimport os\nos.write(2, b'\\xff\\xfe\\x00')\nos._exit(9)\n";
    let wild = Wild::new(&code(prints));
    let came = wild.runs(0);
    came.is("PATCHED_EXCEPTION");
    let raw = below(&wild.flow.cache())
        .iter()
        .filter(|path| path.is_file())
        .any(|path| std::fs::read(path).unwrap() == b"\xff\xfe\x00");
    assert!(raw, "the log is not the bytes that were written");
}
