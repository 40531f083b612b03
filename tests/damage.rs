//! The promise of the store: what is damaged or gone is made anew, said aloud, and never served.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use support::Flow;

/// Where the blob of an output lies: of the first ended attempt of a step whose axes hold a candidate.
fn blob(flow: &Flow, step: &str, candidate: &str, output: &str) -> PathBuf {
    for file in std::fs::read_dir(flow.cache().join("records/v1")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["line"] == "ended" && line["step"] == step && line["axes"]["candidate"] == candidate {
                let hex = line["outputs"][output]["blob"].as_str().unwrap();
                return flow.cache().join("cas/v1").join(&hex[..2]).join(&hex[2..]);
            }
        }
    }
    panic!("no attempt of {step} has the output {output}");
}

#[test]
fn an_output_that_is_gone_is_made_anew() {
    let flow = Flow::sample();
    let first = flow.run();
    first.settles();
    std::fs::remove_file(blob(&flow, "agent", "tidy", "changes")).unwrap();
    // Nobody has to read it: an agent is not paid again for a file.
    flow.run().settles().executes_nothing();
    // Now its patch is taken anew, and needs it.
    flow.replace("steps.kdl", "ignore \"*.log\"", "ignore \"*.txt\"");
    let again = flow.run();
    again.settles();
    let agents = again.executed().into_iter().filter(|action| action.ends_with(" agent")).count();
    assert_eq!(agents, 1, "{:?}", again.executed());
    flow.run().settles().executes_nothing();
}

#[test]
fn a_flipped_byte_is_said_and_never_served() {
    let flow = Flow::sample();
    flow.run().settles();
    let path = blob(&flow, "agent", "tidy", "changes");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, bytes).unwrap();
    // Something that has to read it: another list of ignored paths takes every patch anew.
    flow.replace("steps.kdl", "ignore \"*.log\"", "ignore \"*.txt\"");
    let hurt = flow.run();
    hurt.exits(3).says("BLOB_LOST").says("moved to");
    flow.run().settles();
    flow.run().settles().executes_nothing();
}

#[test]
fn an_index_may_be_deleted_at_any_time() {
    let flow = Flow::sample();
    flow.run().settles();
    std::fs::remove_dir_all(flow.cache().join("index")).unwrap();
    flow.run().settles().executes_nothing();
}

#[test]
fn a_torn_last_line_is_one_miss() {
    let flow = Flow::sample();
    flow.run().settles();
    let file = std::fs::read_dir(flow.cache().join("records/v1")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 40]).unwrap();
    let again = flow.run();
    again.settles();
    assert_eq!(again.executed().len(), 1, "{:?}", again.executed());
    again.says("warning");
}

#[test]
fn what_lies_among_the_records_and_is_no_file_is_said_and_never_read() {
    let flow = Flow::sample();
    flow.run().settles();
    let records = flow.cache().join("records/v1");
    std::os::unix::fs::symlink("/dev/zero", records.join("zero.jsonl")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(records.join("pipe.jsonl")).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(records.join("folder.jsonl")).unwrap();
    for args in [&["run", "m.kdl", "--json"][..], &["plan", "m.kdl"]] {
        let ran = flow.flow(args);
        ran.settles().says("zero.jsonl: it is no regular file").says("pipe.jsonl").says("folder.jsonl");
        assert_eq!(ran.stderr.matches("zero.jsonl").count(), 1, "{}", ran.stderr);
    }
    flow.run().settles().executes_nothing();
}

#[test]
fn what_only_reads_works_on_a_store_that_cannot_be_written() {
    let mut flow = Flow::sample();
    flow.run().settles();
    flow.env("FLOW_CACHE", &flow.cache().display().to_string());
    let modes = |args: &[&str]| assert!(std::process::Command::new("chmod").args(args).status().unwrap().success());
    let (all, cache) = (flow.beside("").display().to_string(), flow.cache().display().to_string());
    modes(&["-R", "a+rX", &all]);
    modes(&["-R", "a-w", &cache]);
    let ran = |args: &[&str]| {
        let mut command = flow.command(args);
        // Nothing is forbidden to root: then as somebody else.
        if nix::unistd::geteuid().is_root() {
            std::os::unix::process::CommandExt::uid(&mut command, 65534);
        }
        command.output().map(|output| flow.ran(output))
    };
    match ran(&["plan", "m.kdl"]) {
        Err(error) => println!("skipped: nobody may start {}: {error}", env!("CARGO_BIN_EXE_flow")),
        Ok(plan) => {
            // Who else it is may find another interpreter: what was run before is known all the same.
            plan.settles().says("hit");
            for args in [
                &["status"][..],
                &["show", "pkg/{one}/tidy/1"],
                &["show", "pkg/{one}/tidy/1", "m.kdl"],
                &["log", "pkg/{one}/tidy/1", "patch"],
                &["why", "{one}"],
                &["why", "{one}", "--run"],
                &["check", "m.kdl"],
            ] {
                ran(args).unwrap().settles();
            }
            ran(&["run", "m.kdl"]).unwrap().exits(3).says("cannot be written").says("--cache");
            ran(&["plan", "m.kdl", "--cache", "/proc/none"]).unwrap().settles().says("would be executed");
        }
    }
    modes(&["-R", "u+w", &cache]);
}
