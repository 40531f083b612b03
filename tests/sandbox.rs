//! The promise of the sandbox: processes of agents and of tests write to their own folders alone, see neither the store nor the
//! repositories nor the tests, a test has no network, and what this machine cannot hold is said.
//!
//! A machine whose kernel refuses all of it skips what cannot be shown there, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::Flow;

/// A project whose agent is a shell script. What it prints is in the agent's log.
fn with_agent(script: &str, more: &str) -> Flow {
    let flow = Flow::sample();
    flow.write("probe.sh", script);
    for step in ["agent    uses=agent       {", "patched  uses=test        {"] {
        flow.replace("steps.kdl", step, &format!("{step} sandbox auto;"));
    }
    flow.edit("agents.kdl", |text| {
        format!("{text}agent probe {{ run \"sh\" \"{{file.probe}}\" \"{{work}}\"; version \"1\"; {more} }}\n")
    });
    flow.replace(
        "m.kdl",
        "candidate human agent=human",
        "candidate human agent=human\n    candidate probe agent=probe { file probe \"probe.sh\" }",
    );
    flow.write("commits.txt", "{one:40}\n");
    flow
}

/// What the agent of a project printed and left, whether the kernel held it, and its job.
fn probed(flow: &Flow) -> Option<(String, Value, Value)> {
    flow.run().settles();
    let ended = flow
        .lines()
        .into_iter()
        .find(|line| line["line"] == "ended" && line["axes"]["candidate"] == "probe" && line["kind"] == "agent")
        .unwrap();
    if !holds(&ended, "files") {
        eprintln!("skipped: this kernel holds no files: {}", ended["sandbox"]);
        return None;
    }
    let job = flow.flow(&["show", "pkg/{one}/probe/1", "--json"]).json();
    let said = flow.flow(&["log", "pkg/{one}/probe/1", "agent"]).stdout;
    Some((said, ended, job))
}

fn holds(ended: &Value, part: &str) -> bool {
    ended["sandbox"]["held"].as_array().is_some_and(|held| held.iter().any(|word| word == part))
}

fn marks(job: &Value) -> Vec<String> {
    job["marks"].as_array().unwrap().iter().map(|mark| mark.as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_agent_writes_to_its_own_folders_and_nowhere_else() {
    let flow = with_agent(
        "for place in \"$1\" \"$HOME\" \"$TMPDIR\" \"$1/../out\" \"$1/..\" \"$OUTSIDE\" /dev/shm; do echo x > \"$place/probe-71\" && echo \"wrote $place\"; done\ncp -r \"$HOME\" \"$TMPDIR\" \"$1/..\" 2>/dev/null; exit 0\n",
        "set OUTSIDE \"{var.OUTSIDE}\"; free",
    );
    let outside = flow.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    let mut flow = flow;
    flow.env("OUTSIDE", &outside.display().to_string());
    let Some((said, ..)) = probed(&flow) else { return };
    let wrote: Vec<&str> = said.lines().filter(|line| line.starts_with("wrote ")).collect();
    assert_eq!(wrote.len(), 5, "work, home, tmp, out and a /dev/shm of its own: {said}");
    assert!(!outside.join("probe-71").exists() && !std::path::Path::new("/dev/shm/probe-71").exists());
}

#[test]
fn what_others_run_is_neither_read_nor_stopped_and_nothing_is_left_in_keyrings() {
    let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let script = "for pid in $PPID \"$OTHER\"; do\n  cat /proc/$pid/environ >/dev/null 2>&1 && echo \"read environ\"\n  ls /proc/$pid/cwd/ >/dev/null 2>&1 && echo \"read cwd\"\n  kill -0 $pid 2>/dev/null && echo \"signalled\"\ndone\n\
                  python3 -c 'import ctypes; c = ctypes.CDLL(None, use_errno=True); print(\"key\", c.syscall(248, b\"user\", b\"flow-probe\", b\"x\", 1, -4))'\n\
                  sleep 300 & kill $! && echo own\n";
    let mut flow = with_agent(script, "set OTHER \"{var.OTHER}\"; free");
    flow.env("OTHER", &other.id().to_string());
    let came = probed(&flow);
    other.kill().unwrap();
    other.wait().unwrap();
    let Some((said, ended, _)) = came else { return };
    if !holds(&ended, "processes") {
        eprintln!("skipped: this kernel keeps no processes apart: {}", ended["sandbox"]);
        return;
    }
    assert!(!said.contains("read ") && !said.contains("signalled"), "{said}");
    assert!(said.contains("own"), "its own it may: {said}");
    if cfg!(target_arch = "x86_64") {
        assert!(said.contains("key -1"), "{said}");
    }
}

#[test]
fn a_test_that_fails_by_its_sandbox_is_told_what_opens_it() {
    let mut flow = Flow::sample();
    flow.env("COLUMNS", "300");
    let outside = flow.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    let fails = |flow: &Flow, line: &str, says: &str| {
        flow.edit("tests/{one}.py", |text| format!("{line}\n{text}"));
        flow.write("commits.txt", "{one:40}\n");
        flow.run().settles();
        let held =
            flow.lines().into_iter().rfind(|line| line["line"] == "ended" && line["step"] == "baseline").unwrap();
        if !holds(&held, "files") || !holds(&held, "network") {
            eprintln!("skipped: this kernel holds too little: {}", held["sandbox"]);
            return;
        }
        flow.flow(&["show", "pkg/{one}/human/1"]).says("BASELINE_EXCEPTION").says(says);
    };
    fails(&flow, &format!("open('{}/x', 'w')", outside.display()), "`write \"PATH\"` on the step opens another");
    fails(
        &flow,
        "import socket; socket.create_connection(('192.0.2.1', 80), 5)",
        "no network but a loopback of its own",
    );
}

#[test]
fn what_the_manifest_says_may_be_written_to_is() {
    let mut flow = with_agent("echo x > \"$OUTSIDE/probe-71\"\n", "set OUTSIDE \"{var.OUTSIDE}\"; free");
    let outside = flow.path("outside");
    std::fs::create_dir(&outside).unwrap();
    flow.env("OUTSIDE", &outside.display().to_string());
    flow.replace(
        "steps.kdl",
        "step agent    uses=agent       {",
        "step agent    uses=agent       { write \"outside\";",
    );
    let Some(_) = probed(&flow) else { return };
    assert!(outside.join("probe-71").exists());
}

#[test]
fn an_agent_sees_neither_store_nor_repository_nor_tests() {
    let mut flow = with_agent(
        "cd \"$PROJECT\"; find cache repo tests -type f 2>/dev/null | grep -v /places/\nls cache/tmp/places | wc -l\n",
        "set PROJECT \"{var.PROJECT}\"; free",
    );
    let project = flow.path("").display().to_string();
    flow.env("PROJECT", &project);
    let Some((said, ended, _)) = probed(&flow) else { return };
    assert!(holds(&ended, "devices"), "{ended}");
    assert!(said.lines().any(|line| line == "1"), "{said}");
    for hidden in ["cas/v1", "records", "repo/.git", "tests/", "work.py"] {
        assert!(
            !said.lines().any(|line| line.contains(hidden) && line.starts_with(['c', 'r', 't'])),
            "{hidden}: {said}"
        );
    }
}

#[test]
fn an_agent_cannot_undo_what_holds_it() {
    let script = "umount \"$PROJECT/cache\"; mount -o remount,rw /; nsenter -t 1 -m true && echo escaped\nls /proc/1/root/ && echo escaped\nls \"$PROJECT/cache/cas\" && echo escaped\ntouch \"$PROJECT/x\" && echo escaped\nexit 0\n";
    let mut flow = with_agent(script, "set PROJECT \"{var.PROJECT}\"; free");
    let project = flow.path("").display().to_string();
    flow.env("PROJECT", &project);
    let Some((said, ..)) = probed(&flow) else { return };
    assert!(!said.lines().any(|line| line == "escaped"), "{said}");
}

#[test]
fn a_test_has_a_loopback_of_its_own_and_an_agent_that_calls_a_model_an_open_network() {
    let flow = with_agent("wc -l < /proc/net/dev\n", "");
    flow.edit("tests/{one}.py", |text| format!("import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); socket.create_connection(s.getsockname())\nassert len(open('/proc/net/dev').readlines()) == 3, 'more than a loopback'\n{text}"));
    let Some((_, ended, job)) = probed(&flow) else { return };
    assert!(!holds(&ended, "network"), "{ended}");
    assert_eq!(ended["sandbox"]["open"]["network"], "it may call a model, and no `network` names its hosts");
    assert_eq!(marks(&job), ["EGRESS_OPEN"]);
    let test = flow.ends("patched", "succeeded");
    assert!(!test.is_empty() && test.iter().all(|end| holds(end, "network")), "{test:?}");
    flow.flow(&["show", "{one}"]).says("the agents' network was open in 1 of 3 jobs: EGRESS_OPEN");
    flow.flow(&["show", "pkg/{one}/probe/1"])
        .says("sandbox: files, devices, network")
        .says("network open: it may call a model");
}

#[test]
fn a_sandbox_that_is_switched_off_is_a_mark_and_another_key() {
    let flow = with_agent("exit 0\n", "free");
    flow.run().settles();
    let held = flow.ends("patched", "succeeded").first().cloned().unwrap();
    if !holds(&held, "files") || !holds(&held, "network") {
        eprintln!("skipped: this kernel holds too little: {}", held["sandbox"]);
        return;
    }
    assert!(marks(&flow.flow(&["show", "pkg/{one}/human/1", "--json"]).json()).is_empty());
    flow.replace(
        "steps.kdl",
        "step patched  uses=test        { sandbox auto;",
        "step patched  uses=test        { sandbox off;",
    );
    let ran = flow.run();
    ran.settles();
    assert!(ran.executed().iter().any(|action| action.ends_with(" patched")), "{:?}", ran.executed());
    let job = flow.flow(&["show", "pkg/{one}/human/1", "--json"]).json();
    assert_eq!(marks(&job), ["NO_SANDBOX patched"]);
    flow.flow(&["show", "pkg/{one}/human/1"]).says("the manifest says `sandbox off`");
}

#[test]
fn requiring_what_is_held_changes_nothing() {
    let flow = with_agent("exit 0\n", "free");
    flow.run().settles();
    flow.replace(
        "steps.kdl",
        "step patched  uses=test        { sandbox auto;",
        "step patched  uses=test        { sandbox require;",
    );
    flow.run().settles().executes_nothing();
}

#[test]
fn what_an_agent_had_and_looked_up_is_on_record() {
    let flow = with_agent("echo '$ git log --all --oneline'; git log --all --oneline\n", "free");
    flow.run().settles();
    let job = flow.flow(&["show", "pkg/{one}/probe/1", "--json"]).json();
    assert_eq!(marks(&job), ["LOOKED_UP"]);
    let shown = flow.flow(&["show", "pkg/{one}/probe/1"]);
    shown.says("trajectory: looked for all of the history");
    shown.says("objects: at the start those of the base tree and one commit");
}

#[test]
fn a_commit_that_an_agent_brought_in_is_told() {
    let mut flow = with_agent("git fetch -q \"$ELSEWHERE\" main\n", "set ELSEWHERE \"{var.ELSEWHERE}\"; free");
    let elsewhere = flow.beside("elsewhere");
    support::copy(&flow.path("repo"), &elsewhere);
    flow.env("ELSEWHERE", &elsewhere.display().to_string());
    flow.run().settles();
    let job = flow.flow(&["show", "pkg/{one}/probe/1", "--json"]).json();
    assert!(marks(&job).contains(&"HISTORY".to_owned()), "{}", job["marks"]);
}
