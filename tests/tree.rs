//! The promise of the process tree: what an attempt started dies with it, and with nothing else; and as long as anything of it
//! lives, nobody measures on its slot.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::process::{Child, Stdio};

use support::processes::{alive, kill, supervisors};
use support::{Flow, until};

/// Forks twice with a session of its own each time, says its process id, and stays.
const ESCAPE: &str = "
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for fd in (0, 1, 2):
            os.close(fd)
        with open(sys.argv[1] + '.tmp', 'w') as f:
            f.write(str(os.getpid()))
        os.rename(sys.argv[1] + '.tmp', sys.argv[1])
        time.sleep(600)
    os._exit(0)
os.wait()
";

fn pid(file: &Path) -> i32 {
    until("a process says its number", || file.exists());
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

#[test]
fn a_child_that_escapes_dies_with_its_attempt_and_the_agent_beside_it_lives() {
    let flow = Flow::sample();
    let escape = flow.beside("escape.py");
    std::fs::write(&escape, ESCAPE).unwrap();
    let (ones, twos, go) = (flow.signs().join("one.pid"), flow.signs().join("two.pid"), flow.signs().join("go"));
    let wait = |file: &Path| format!("while [ ! -e {} ]; do sleep 0.01; done", file.display());
    // The first ends once the second is at work; the second goes on until it is told.
    for (commit, says, until) in [("one", &ones, &twos), ("two", &twos, &go)] {
        let shell = format!("python3 {} {}; {}", escape.display(), says.display(), wait(until));
        let script = serde_json::json!({"argv": ["sh", "-c", shell]});
        flow.write(&format!("scripts/tidy/{{{commit}}}.json"), &script.to_string());
    }
    let mut command = flow.command(&["run", "m.kdl", "--json", "--jobs", "3", "--only", "*/*/tidy/*"]);
    let running = command.stdout(Stdio::piped()).spawn().unwrap();
    let (one, two) = (pid(&ones), pid(&twos));
    until("what the agent that ended had started is dead", || !alive(one));
    assert!(alive(two), "what the other agent started");
    std::fs::write(&go, "").unwrap();
    flow.ran(running.wait_with_output().unwrap()).settles();
    assert!(!alive(two));
    let agents = flow.ends("agent", "succeeded");
    assert_eq!(agents.len(), 2);
    assert!(agents.iter().all(|line| line["notes"].to_string().contains("left behind were killed")), "{agents:#?}");
}

/// A project whose tests hold the one slot `a` and may write to the folder of `file`.
fn with_one_slot(file: &Path) -> Flow {
    let flow = Flow::sample();
    flow.add("slots { cpu \"a\" }");
    flow.add(&format!("step patched {{ holds cpu=1; write \"{}\" }}", file.parent().unwrap().display()));
    flow.write("commits.txt", "{one:40}\n");
    flow
}

/// Its first test leaves a child in a session of its own behind and goes on until it is told.
fn with_a_test_that_waits(says: &Path, go: &Path) -> Flow {
    let flow = with_one_slot(says);
    let python = format!(
        r#"
import os, subprocess, time
if not os.path.exists("{says}"):
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open("{says}.tmp", "w") as f:
        f.write(str(child.pid))
    os.rename("{says}.tmp", "{says}")
    while not os.path.exists("{go}"):
        time.sleep(0.01)
"#,
        says = says.display(),
        go = go.display()
    );
    flow.edit("tests/{one}.py", |text| format!("{python}{text}"));
    flow
}

/// Each of its tests says whether a process is alive as it begins.
fn with_a_test_that_looks(slots_of: &Flow, orphan: i32, log: &Path) -> Flow {
    let mut flow = with_one_slot(log);
    flow.env("FLOW_SLOTS", &slots_of.beside("slots").display().to_string());
    let python = format!(
        r#"
try:
    state = open("/proc/{orphan}/stat").read().rsplit(") ", 1)[1][0]
except OSError:
    state = "gone"
with open("{log}", "a") as f:
    f.write("dead\n" if state in ("gone", "Z", "X") else "alive\n")
"#,
        log = log.display()
    );
    flow.edit("tests/{one}.py", |text| format!("{python}{text}"));
    flow
}

fn start(flow: &Flow) -> Child {
    let mut command = flow.command(&["run", "m.kdl", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_slot_stays_leased_until_the_orphans_of_a_killed_flow_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (says, go, log) = (dir.path().join("says"), dir.path().join("go"), dir.path().join("log"));
    let first = with_a_test_that_waits(&says, &go);
    let mut running = start(&first);
    let orphan = pid(&says);
    let supervisor = supervisors(&first.cache());
    assert_eq!(supervisor.len(), 1, "{supervisor:?}");
    // Stopped, the supervisor cannot kill what it watches over: its processes outlive flow for as long as we like.
    kill(supervisor[0], libc::SIGSTOP);
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(alive(orphan));

    let second = with_a_test_that_looks(&first, orphan, &log);
    let waiting = start(&second);
    until("the second run has come to its test", || !second.ends("build", "succeeded").is_empty());
    let slot = std::fs::File::open(first.beside("slots/cpu-a")).unwrap();
    assert!(matches!(slot.try_lock(), Err(std::fs::TryLockError::WouldBlock)), "somebody holds the slot");
    assert!(second.ends("baseline", "succeeded").is_empty());
    kill(supervisor[0], libc::SIGCONT);
    second.ran(waiting.wait_with_output().unwrap()).settles();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.is_empty() && !log.contains("alive"), "a test ran beside an orphan: {log}");

    // The killed run goes on as if nothing had been.
    std::fs::write(&go, "").unwrap();
    first.run().settles();
    first.settled_each_action_once();
}

#[test]
fn orphans_whose_supervisor_died_too_are_killed_before_their_slot_is_leased() {
    let dir = tempfile::tempdir().unwrap();
    let (says, go, log) = (dir.path().join("says"), dir.path().join("go"), dir.path().join("log"));
    let first = with_a_test_that_waits(&says, &go);
    let mut running = start(&first);
    let orphan = pid(&says);
    let supervisor = supervisors(&first.cache());
    assert_eq!(supervisor.len(), 1, "{supervisor:?}");
    kill(supervisor[0], libc::SIGSTOP);
    running.kill().unwrap();
    running.wait().unwrap();
    kill(supervisor[0], libc::SIGKILL);
    until("the supervisor is dead", || !alive(supervisor[0]));
    assert!(alive(orphan), "nobody is there to kill it");

    // Another store on the same slots: of the attempt it knows only what is written in the slot.
    let second = with_a_test_that_looks(&first, orphan, &log);
    second.run().settles();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.is_empty() && !log.contains("alive"), "a test ran beside an orphan: {log}");

    std::fs::write(&go, "").unwrap();
    first.run().settles();
    first.settled_each_action_once();
    assert_eq!(first.ends("baseline", "INTERRUPTED").len(), 1);
}
