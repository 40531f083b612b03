//! The promise of crashes: `kill -9` at any instant and the same command again, and nothing settled is done twice, nothing is
//! lost, nothing counts against anybody, and no process is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::processes::{alive, kill, marked, supervisors};
use support::{Flow, Ran, until};

/// A generator of which the seed is all: the same kills at the same moments, as far as a machine has the same moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A sample whose agents leave a process behind each, and have one attempt: an interruption that counted would end them.
fn sample() -> Flow {
    let flow = Flow::sample();
    flow.add("step agent { attempts 1 }");
    for name in ["one", "two"] {
        let argv = r#"{"argv": ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & true"]}"#;
        flow.write(&format!("scripts/tidy/{{{name}}}.json"), argv);
    }
    flow
}

fn start(flow: &Flow, more: &[&str]) -> Child {
    let mut command = flow.command(&[&["run", flow.manifest(), "--json"], more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a run came to, apart from who did it.
fn sums(ran: &Ran) -> (Value, Value) {
    let finished = ran.finished();
    let actions = &finished["actions"];
    let done = actions["executed"].as_u64().unwrap() + actions["cached"].as_u64().unwrap();
    (finished["classes"].clone(), serde_json::json!([actions["total"], done, actions["skipped"], actions["blocked"]]))
}

/// The last run ends as one that nobody disturbed, nothing was done twice, and nothing is left of all that was killed.
#[track_caller]
fn ends_well(flow: &Flow, undisturbed: &Ran) {
    let last = flow.run();
    last.settles();
    assert_eq!(last.classes(), undisturbed.classes());
    assert_eq!(sums(&last), sums(undisturbed));
    flow.settled_each_action_once();
    until("no process is left", || marked(&flow.cache()).is_empty());
    let places: Vec<_> =
        std::fs::read_dir(flow.cache().join("tmp/places")).map(|dir| dir.flatten().collect()).unwrap_or_default();
    assert!(places.is_empty(), "{places:?}");
    let open = |line: &&Value| {
        let ended = |other: &Value| other["line"] == "ended" && other["attempt"] == line["attempt"];
        line["line"] == "started" && !flow.lines().iter().any(ended)
    };
    assert_eq!(flow.lines().iter().filter(open).count(), 0, "attempts without an end");
    flow.run().settles().executes_nothing();
}

/// flow alone.
fn kill_flow(child: &mut Child, _: &Path) {
    child.kill().unwrap();
}

/// flow and all supervisors, so that none of them sees another die.
fn kill_all(child: &mut Child, cache: &Path) {
    let flow = i32::try_from(child.id()).unwrap();
    kill(flow, libc::SIGSTOP);
    let supervisors = supervisors(cache);
    for pid in &supervisors {
        kill(*pid, libc::SIGSTOP);
    }
    for pid in supervisors.into_iter().chain([flow]) {
        kill(pid, libc::SIGKILL);
    }
}

/// Kills again and again, in stores of their own, each until a run came to its end before it was killed.
fn kills(flow: &mut Flow, undisturbed: &Ran, wanted: u32, longest_ms: u64, seed: u64, how: fn(&mut Child, &Path)) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let (mut killed, mut stores) = (0, 0);
    while killed < wanted {
        stores += 1;
        let store = flow.beside(&format!("store-{stores}"));
        flow.env("FLOW_CACHE", &store.display().to_string());
        let mut longest = longest_ms;
        loop {
            let moment = Instant::now() + Duration::from_millis(random.below(longest));
            // Nobody reads what it says, so that it must not go into a pipe.
            let mut command = flow.command(&["run", flow.manifest(), "--json"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while Instant::now() < moment && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            how(&mut child, &store);
            child.wait().unwrap();
            killed += 1;
            // Slower machines get further too.
            longest += longest_ms / 8;
        }
        ends_well(flow, undisturbed);
    }
    println!("{killed} kills in {stores} stores");
}

#[test]
fn killing_flow_at_random_moments_loses_and_repeats_nothing() {
    let mut flow = sample();
    let undisturbed = flow.run();
    undisturbed.settles();
    kills(&mut flow, &undisturbed, 30, 600, 20_260_801, kill_flow);
}

#[test]
fn killing_flow_and_its_supervisors_at_random_moments_loses_and_repeats_nothing() {
    let mut flow = sample();
    let undisturbed = flow.run();
    undisturbed.settles();
    kills(&mut flow, &undisturbed, 30, 600, 20_260_802, kill_all);
}

#[test]
fn killing_the_quickstart_at_random_moments_loses_and_repeats_nothing() {
    let mut flow = Flow::quickstart();
    // A commit measured in seconds may come out either way.
    flow.edit("examples/quickstart/commits.txt", |text| {
        text.lines().filter(|line| !line.starts_with("fcc96cce")).map(|line| format!("{line}\n")).collect()
    });
    flow.edit("pipelines/quickstart.kdl", |text| {
        let from = text.find("        tests dir=").unwrap();
        let to = text[from..].find("        }\n").unwrap() + from + 10;
        format!("{}{}", &text[..from], &text[to..])
    });
    let undisturbed = flow.run();
    undisturbed.settles();
    kills(&mut flow, &undisturbed, 6, 6000, 20_260_803, kill_flow);
}

/// Compiles the library that kills its process, or fails a call, at the nth call that makes something durable.
fn shim(dir: &Path) -> Option<PathBuf> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let gcc = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output();
    match gcc {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => {
            println!("skipped: gcc: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("skipped: gcc: {error}");
            None
        }
    }
}

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static long calls;
static long number(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }
/* Whether this call is to fail; before or after it the process may die. */
static int step(void) {
    long now = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (now == number("DIE_BEFORE")) kill(getpid(), SIGKILL);
    return number("FULL_FROM") && now >= number("FULL_FROM");
}
static void done(void) {
    if (__atomic_load_n(&calls, __ATOMIC_SEQ_CST) == number("DIE_AFTER")) kill(getpid(), SIGKILL);
}
#define WRAP(name, full, params, args) \
    int name params { \
        static int (*real) params; \
        if (!real) real = (int (*) params)dlsym(RTLD_NEXT, #name); \
        if (step() || full) { errno = ENOSPC; return -1; } \
        int result = real args; int error = errno; \
        done(); errno = error; \
        return result; \
    }
/* Whether the file is to lie where the disk is full. */
static int there(const char *path) {
    const char *full = getenv("FULL_AT");
    return full && strstr(path, full) != NULL;
}
WRAP(fsync, 0, (int fd), (fd))
WRAP(fdatasync, 0, (int fd), (fd))
WRAP(rename, there(b), (const char *a, const char *b), (a, b))
WRAP(renameat, there(b), (int x, const char *a, int y, const char *b), (x, a, y, b))
WRAP(renameat2, there(b), (int x, const char *a, int y, const char *b, unsigned f), (x, a, y, b, f))
"#;

#[test]
fn dying_at_each_call_that_makes_something_durable_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(shim) = shim(dir.path()) else { return };
    let mut flow = sample();
    flow.write("commits.txt", "{one:40}\n");
    let undisturbed = flow.run();
    undisturbed.settles();
    for when in ["DIE_BEFORE", "DIE_AFTER"] {
        let store = flow.beside(when);
        flow.env("FLOW_CACHE", &store.display().to_string());
        let mut call = 1;
        loop {
            let mut command = flow.command(&["run", "m.kdl", "--json"]);
            let output = command.env("LD_PRELOAD", &shim).env(when, call.to_string()).output().unwrap();
            if output.status.code().is_some() {
                flow.ran(output).settles();
                break;
            }
            call += 1;
            assert!(call < 500, "it never came to its end");
        }
        println!("{when}: {call} calls");
        // Each run that dies leaves less for the next, so that how many there are depends on the disk.
        assert!(call > 2, "no call was met");
        ends_well(&flow, &undisturbed);
    }
}

#[test]
fn a_full_disk_ends_the_run_with_a_word_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(shim) = shim(dir.path()) else { return };
    let mut flow = sample();
    let undisturbed = flow.run();
    undisturbed.settles();
    let mut met = 0;
    // The squares: close together where the run begins, and yet soon at its end.
    for call in (1..30).map(|n| n * n) {
        let store = flow.beside(&format!("full-{call}"));
        flow.env("FLOW_CACHE", &store.display().to_string());
        let mut command = flow.command(&["run", "m.kdl"]);
        let ran = flow.ran(command.env("LD_PRELOAD", &shim).env("FULL_FROM", call.to_string()).output().unwrap());
        if ran.code == Some(0) {
            break;
        }
        met += 1;
        ran.exits(3);
        let words: Vec<&str> =
            ran.stderr.split(|c: char| c.is_whitespace() || c == '│').filter(|w| !w.is_empty()).collect();
        assert!(words.join(" ").contains("No space left on device"), "{}", ran.stderr);
        ends_well(&flow, &undisturbed);
    }
    println!("full at {met} calls");
    assert!(met > 5, "hardly any call was met: {met}");
}

#[test]
fn a_disk_that_is_full_where_an_agent_is_to_work_uses_no_attempt_up() {
    let dir = tempfile::tempdir().unwrap();
    let Some(shim) = shim(dir.path()) else { return };
    let mut flow = sample();
    let undisturbed = flow.run();
    undisturbed.settles();
    let store = flow.beside("full");
    flow.env("FLOW_CACHE", &store.display().to_string());
    for _ in 0..2 {
        let mut command = flow.command(&["run", "m.kdl"]);
        let ran = flow.ran(command.env("LD_PRELOAD", &shim).env("FULL_AT", "/index/packs/").output().unwrap());
        ran.exits(3).says("No space left on device").says("the disk was full: `flow gc` would free");
        let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]);
        let next = shown.settles().json()["next_action"].to_string();
        assert!(next.contains("by `flow gc` say") && next.contains("`flow gc` would free about"), "{next}");
        assert_eq!(ran.stderr.matches("agent  DISK_FULL, not settled").count(), 4, "{}", ran.stderr);
    }
    ends_well(&flow, &undisturbed);
}

/// A sample whose agent `tidy` at commit `one` says that it is at work and goes on until it is told.
fn that_waits() -> (Flow, PathBuf, PathBuf) {
    let flow = sample();
    let (at_work, go) = (flow.signs().join("at-work"), flow.signs().join("go"));
    let shell = format!("echo > {}; while [ ! -e {} ]; do sleep 0.01; done", at_work.display(), go.display());
    let script = serde_json::json!({"argv": ["sh", "-c", shell], "usage": {"input": 1200, "output": 300}});
    flow.write("scripts/tidy/{one}.json", &script.to_string());
    (flow, at_work, go)
}

/// How often the agent that waits was interrupted. Others may have been at work beside it.
fn interrupted(flow: &Flow) -> usize {
    let ends = flow.ends("agent", "INTERRUPTED");
    let waits = |line: &&Value| line["axes"]["candidate"] == "tidy" && line["axes"]["commit"] == flow.id("one");
    ends.iter().filter(waits).count()
}

/// A run that dies between the end of its agent and its reading: stopped, flow cannot read it.
fn dies_before_it_reads_its_agent(flow: &Flow, at_work: &Path, go: &Path) {
    let mut child = start(flow, &[]);
    until("the agent is at work", || at_work.exists());
    signal(&child, libc::SIGSTOP);
    std::fs::write(go, "").unwrap();
    // Others may be at work beside it, and be over before it.
    let is = |line: &Value| {
        let of = |axis: &str| &line["axes"][axis];
        line["line"] == "started"
            && line["kind"] == "agent"
            && of("candidate") == "tidy"
            && of("commit") == flow.id("one")
    };
    let lines = flow.lines();
    let attempt = lines.iter().find(|line| is(line)).unwrap()["attempt"].as_str().unwrap();
    let end = flow.cache().join("tmp/places").join(attempt).join("agent.end.json");
    until("the agent's end is written", || end.exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

fn signal(child: &Child, signal: i32) {
    kill(i32::try_from(child.id()).unwrap(), signal);
}

fn is_draining(flow: &Flow) -> bool {
    flow.journal().iter().any(|event| event["event"] == "draining")
}

#[test]
fn a_signal_drains_what_runs_may_end_and_nothing_begins() {
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let (flow, at_work, go) = that_waits();
        let child = start(&flow, &["--only", "*/*/tidy/*"]);
        until("the agent is at work", || at_work.exists());
        signal(&child, number);
        until("it drains", || is_draining(&flow));
        std::fs::write(&go, "").unwrap();
        let ran = flow.ran(child.wait_with_output().unwrap());
        ran.exits(130);
        let one = flow.fill("{one}");
        let agents = flow.ends("agent", "succeeded");
        assert!(agents.iter().any(|line| line["axes"]["commit"].as_str().unwrap().starts_with(&one)), "it was let end");
        let events = ran.events();
        let at = events.iter().position(|event| event["event"] == "draining").unwrap();
        assert!(!events[at..].iter().any(|event| event["event"] == "action-started"), "{events:#?}");
        flow.run().settles();
        flow.settled_each_action_once();
        until("no process is left", || marked(&flow.cache()).is_empty());
    }
}

#[test]
fn what_does_not_end_in_the_time_of_a_drain_is_stopped_and_counts_for_nothing() {
    let (flow, at_work, go) = that_waits();
    let child = start(&flow, &["--drain", "0s"]);
    until("the agent is at work", || at_work.exists());
    signal(&child, libc::SIGINT);
    flow.ran(child.wait_with_output().unwrap()).exits(130);
    until("no process is left", || marked(&flow.cache()).is_empty());
    assert_eq!(interrupted(&flow), 1);
    std::fs::write(&go, "").unwrap();
    flow.run().settles();
    flow.settled_each_action_once();
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let (flow, at_work, go) = that_waits();
    let child = start(&flow, &["--drain", "1h"]);
    until("the agent is at work", || at_work.exists());
    signal(&child, libc::SIGTERM);
    until("it drains", || is_draining(&flow));
    signal(&child, libc::SIGINT);
    flow.ran(child.wait_with_output().unwrap()).exits(130);
    until("no process is left", || marked(&flow.cache()).is_empty());
    std::fs::write(&go, "").unwrap();
    flow.run().settles();
    flow.settled_each_action_once();
}

#[test]
fn an_agent_that_ended_while_flow_was_dying_is_adopted_and_not_paid_twice() {
    let (flow, at_work, go) = that_waits();
    let mut child = start(&flow, &[]);
    until("the agent is at work", || at_work.exists());
    // Stopped, flow cannot read the end of its agent.
    signal(&child, libc::SIGSTOP);
    std::fs::write(&go, "").unwrap();
    let attempt = |kind: &str| {
        let is = |line: &&Value| line["line"] == kind && line["kind"] == "agent" && line["axes"]["candidate"] == "tidy";
        let of_one = |line: &&Value| line["axes"]["commit"] == flow.id("one");
        flow.lines().iter().filter(is).filter(of_one).cloned().collect::<Vec<_>>()
    };
    let started = attempt("started");
    assert_eq!(started.len(), 1);
    let place = flow.cache().join("tmp/places").join(started[0]["attempt"].as_str().unwrap());
    until("the agent's end is written", || place.join("agent.end.json").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(attempt("ended").is_empty());
    let ran = flow.run();
    ran.settles();
    assert_eq!(ran.class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(attempt("started"), started, "it was not begun again");
    let ended = attempt("ended");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["attempt"], started[0]["attempt"]);
    assert_eq!(ended[0]["adopts"], started[0]["run"]);
    assert_eq!(ended[0]["usage"], serde_json::json!({"input": 1200, "output": 300}));
    assert!(!place.exists());
    flow.settled_each_action_once();
}

#[test]
fn what_a_finished_agent_left_is_searched_for_the_secret_that_it_had_and_not_only_for_todays() {
    let (flow, at_work, go) = that_waits();
    flow.edit("scripts/tidy/{one}.json", |text| {
        text.replace("sh\",\"-c\",\"", "sh\",\"-c\",\"echo $TOKEN > pkg/notes.py; ")
    });
    flow.write("login", "a-long-secret-1");
    flow.edit("m.kdl", |text| {
        let text = text.replace("\npipeline", "\nprovider acme { secret TOKEN file=\"login\" }\npipeline");
        let own = "candidate tidy agent=scripted {\n        model \"m\" provider=acme; canary 0";
        text.replace("candidate tidy agent=scripted {", own)
    });
    dies_before_it_reads_its_agent(&flow, &at_work, &go);
    // It is renewed before anybody reads what the agent left.
    flow.write("login", "a-long-secret-2");
    flow.run().settles();
    let held = flow.ends("agent", "HOLDS_SECRET");
    assert!(held.iter().any(|line| line["adopts"].is_string()), "{:#?}", flow.lines());
    let attempt = held[0]["attempt"].as_str().unwrap();
    assert!(!Path::new("/dev/shm").join(format!("flow-{attempt}.secrets")).exists());
}

#[test]
fn a_supervisor_that_was_stopped_is_let_go_on_and_one_of_a_dead_run_keeps_nobody_waiting() {
    let (flow, at_work, go) = that_waits();
    let child = start(
        &flow,
        &["--only", "*/{one}/tidy/*"].map(|text| flow.fill(text)).iter().map(String::as_str).collect::<Vec<_>>(),
    );
    until("the agent is at work", || at_work.exists());
    let stop_all = || supervisors(&flow.cache()).into_iter().for_each(|pid| kill(pid, libc::SIGSTOP));
    stop_all();
    std::fs::write(&go, "").unwrap();
    flow.ran(child.wait_with_output().unwrap()).settles();

    let (flow, at_work, go) = that_waits();
    let mut child = start(&flow, &[]);
    until("the agent is at work", || at_work.exists());
    let supervisors_then = supervisors(&flow.cache());
    supervisors_then.iter().for_each(|pid| kill(*pid, libc::SIGSTOP));
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::write(&go, "").unwrap();
    flow.run().settles();
    assert!(supervisors_then.iter().all(|pid| !supervisors(&flow.cache()).contains(pid)), "none of them lives");
    assert_eq!(interrupted(&flow), 1, "{:#?}", flow.lines());
}

#[test]
fn what_a_finished_agent_left_waits_for_the_secret_that_may_be_in_it() {
    let (flow, at_work, go) = that_waits();
    flow.write("login.sh", "#!/bin/sh\ncat \"$(dirname \"$0\")/login\"\n");
    flow.write("login", "a-long-secret-1");
    flow.edit("m.kdl", |text| {
        let text =
            text.replace("\npipeline", "\nprovider acme { secret TOKEN { command \"sh\" \"login.sh\" } }\npipeline");
        text.replace(
            "candidate tidy agent=scripted {",
            "candidate tidy agent=scripted {\n        model \"m\" provider=acme; canary 0",
        )
    });
    dies_before_it_reads_its_agent(&flow, &at_work, &go);
    std::fs::remove_file(flow.path("login")).unwrap();
    let ran = flow.run();
    ran.exits(3).says("its agent has finished, but the secret TOKEN");
    flow.write("login", "a-long-secret-2");
    flow.run().settles();
    assert!(flow.ends("agent", "succeeded").iter().any(|line| line["adopts"].is_string()), "it was read");
    flow.settled_each_action_once();
}

#[test]
fn processes_of_the_dead_are_found_when_nothing_else_is_to_be_done() {
    let (flow, at_work, go) = that_waits();
    let mut child = start(&flow, &[]);
    until("the agent is at work", || at_work.exists());
    kill_all(&mut child, &flow.cache());
    child.wait().unwrap();
    let left: Vec<i32> = marked(&flow.cache()).iter().map(|process| process.pid).collect();
    assert!(!left.is_empty(), "the agent outlives both");
    std::fs::write(&go, "").unwrap();
    // Neither the agent nor anything after it is asked for.
    flow.run_with(&["--until", "build"]).settles();
    until("they are dead", || !left.iter().any(|pid| alive(*pid)));
}
