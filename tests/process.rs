//! What a supervised process leaves behind: its end, and nothing else. Real processes, under the built program.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flow::process::{
    By, End, Exit, Extra, Plain, Secret, Source, Spec, SuperviseError, Supervised, kill_marked, marked, read_end,
    spawn_plain,
};

const FLOW: &str = env!("CARGO_BIN_EXE_flow");

/// A daemon by the book: forks twice, leaves the session, ignores what it can, keeps stdout open. The first process tells its id
/// in `$1` when the one between is gone, and ends, or stays if there is a `$2`.
const DAEMON: &str = r#"
import os, signal, sys, time
name = sys.argv[1]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)
        with open(name + ".1", "w") as f: f.write(str(os.getpid()))
        os.rename(name + ".1", name + ".2")
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists(name + ".2"): time.sleep(0.001)
os.rename(name + ".2", name)
if len(sys.argv) > 2: time.sleep(600)
"#;

/// A folder of its own and an attempt that no other test has.
struct Place {
    dir: tempfile::TempDir,
    attempt: String,
}

impl Place {
    fn new(name: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), attempt: format!("{name}-{}", std::process::id()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn pid(&self, name: &str) -> i32 {
        until(name, || self.path(name).exists());
        self.read(name).trim().parse().unwrap()
    }

    fn spec(&self, argv: &[&str]) -> Spec {
        Spec {
            argv: argv.iter().map(|s| (*s).to_owned()).collect(),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            secrets: vec![],
            attempt: self.attempt.clone(),
            cwd: self.dir.path().to_owned(),
            stdin: None,
            stdout: self.path("stdout"),
            stderr: self.path("stderr"),
            output_limit: 1 << 20,
            kill_over_limit: false,
            timeout_ms: None,
            grace_ms: Spec::GRACE_MS,
            cgroup: false,
            end: self.path("end.json"),
            durable: true,
            inherit: vec![],
            extra: vec![],
            cores: vec![],
            private: None,
            aside: None,
            confine: None,
            removal: None,
        }
    }

    fn sh(&self, script: &str) -> Spec {
        self.spec(&["sh", "-c", script])
    }

    /// A child that starts the daemon and ends, or stays.
    fn daemon(&self, stays: bool) -> Spec {
        let mut spec = self.spec(&["python3", "-c", DAEMON, "daemon"]);
        spec.argv.extend(stays.then(|| "stay".to_owned()));
        spec
    }

    fn plain(&self, script: &str) -> Plain {
        let spec = self.sh(script);
        Plain {
            argv: spec.argv,
            env: spec.env,
            attempt: spec.attempt,
            cwd: spec.cwd,
            stdin: None,
            stdout: spec.stdout,
            stderr: spec.stderr,
            timeout: None,
            output_limit: spec.output_limit,
        }
    }
}

/// Waits for a condition, and fails if it does not come.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited 30 s for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn start(spec: Spec) -> Supervised {
    Supervised::start(Path::new(FLOW), spec, &[]).unwrap()
}

/// Runs to the end, which must be the same in the file and on the pipe.
async fn run(spec: Spec) -> End {
    let path = spec.end.clone();
    let end = start(spec).wait().await.unwrap();
    assert_eq!(read_end(&path).as_ref(), Some(&end));
    assert_eq!((end.survivors, &end.fault), (0, &None));
    end
}

fn kill9(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
}

/// Whether the lock is free; taken and let go.
fn lock_is_free(path: &Path) -> bool {
    File::open(path).unwrap().try_lock().is_ok()
}

/// A taken lock, and its number.
fn lock(path: &Path) -> (File, RawFd) {
    let file = File::create(path).unwrap();
    file.try_lock().unwrap();
    let fd = file.as_raw_fd();
    (file, fd)
}

#[tokio::test]
async fn codes_signals_and_output() {
    let place = Place::new("codes");
    let end = run(place.sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!((end.exit, end.stdout_bytes, end.stderr_kept), (Exit::Code(7), 4, 4));
    assert_eq!((place.read("stdout").as_str(), place.read("stderr").as_str()), ("out\n", "err\n"));
    assert_eq!(end.attempt, place.attempt);
    assert!(end.started_at <= end.ended_at && !end.truncated && end.max_rss_kib > 0 && end.killed_descendants == 0);
    assert_eq!(run(place.sh("kill -SEGV $$")).await.exit, Exit::Signal(libc::SIGSEGV));
    assert_eq!(run(place.sh("kill -40 $$")).await.exit, Exit::Signal(40));
    let end = run(place.spec(&["python3", "-c", "import time\nwhile time.process_time() < 0.3: pass"])).await;
    assert!(end.cpu_ms >= 290 && end.wall_ms >= 290, "{end:?}");
}

#[tokio::test]
async fn the_child_has_exactly_its_environment_descriptors_and_a_session() {
    let place = Place::new("exactly");
    let (result, lock_path) = (place.path("result"), place.path("lock"));
    std::fs::write(place.path("in"), "given\n").unwrap();
    let (held, held_fd) = lock(&lock_path);
    let (mark_reader, mark) = std::io::pipe().unwrap();
    let mut spec = place.sh("cat; env; echo to-result >&5; echo to-mark >&9; ls /proc/self/fd | tr '\\n' ' '; ps -o sid= $$ >&2; echo $$ >&2");
    spec.stdin = Some(place.path("in"));
    spec.secrets = vec![Secret { name: "KEY".into(), value: "x9".into() }];
    spec.extra =
        vec![Extra { fd: 5, source: Source::Path(result) }, Extra { fd: 9, source: Source::Fd(mark.as_raw_fd()) }];
    let mut supervised = Supervised::start(Path::new(FLOW), spec, &[held_fd]).unwrap();
    drop((held, mark));
    assert!(matches!(supervised.wait().await.unwrap().exit, Exit::Code(0)));
    assert!(lock_is_free(&lock_path), "the locks are free when the end is told");
    assert_eq!(std::io::read_to_string(mark_reader).unwrap(), "to-mark\n");
    assert_eq!(place.read("result"), "to-result\n");
    let out = place.read("stdout");
    let mut lines: Vec<_> = out.lines().filter(|l| !l.starts_with("PWD=") && !l.starts_with("_=")).collect();
    lines.sort_unstable();
    let mark = format!("FLOW_ATTEMPT={}", place.attempt);
    assert_eq!(lines, ["0 1 2 3 5 9 ", &mark, "KEY=[secret KEY]", "PATH=/usr/local/bin:/usr/bin:/bin", "given"]);
    let err = place.read("stderr");
    let ids: Vec<_> = err.split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "its session is its own");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let place = Place::new("notstarted");
    let why = |end: End| match end.exit {
        Exit::NotStarted { why } => why,
        other => panic!("{other:?}"),
    };
    assert!(why(run(place.spec(&["/no/such/program"])).await).contains("/no/such/program: No such file"));
    assert!(why(run(place.spec(&["no-such"])).await).contains("`no-such` is not in the PATH"));
    let spec = Spec { cwd: "/no/where".into(), ..place.sh("true") };
    assert!(why(run(spec).await).contains("cannot enter /no/where"));
    let spec = Spec { stdin: Some("/no/input".into()), ..place.sh("true") };
    assert!(why(run(spec).await).contains("cannot read /no/input"));
    let spec = Spec { stdout: "/no/output".into(), ..place.sh("true") };
    let end = start(spec).wait().await.unwrap();
    assert!(end.fault.unwrap().contains("/no/output"));
}

#[tokio::test]
async fn a_time_limit_is_met_politely_and_then_not() {
    let place = Place::new("timeout");
    // Polite: it writes its last words within the grace, which is not waited out.
    let mut spec = place.sh("trap 'sleep 0.05; echo last; exit 3' TERM; while :; do sleep 0.01; done");
    (spec.timeout_ms, spec.grace_ms) = (Some(200), 30_000);
    let end = run(spec).await;
    assert_eq!(end.exit, Exit::TimedOut { limit_ms: 200 });
    assert!((200..20_000).contains(&end.wall_ms), "{end:?}");
    assert_eq!(place.read("stdout"), "last\n");
    // Deaf.
    let mut spec = place.sh("trap '' TERM; echo deaf; while :; do sleep 0.01; done");
    (spec.timeout_ms, spec.grace_ms) = (Some(200), 150);
    let end = run(spec).await;
    assert_eq!(end.exit, Exit::TimedOut { limit_ms: 200 });
    assert!((350..20_000).contains(&end.wall_ms), "{end:?}");
    assert_eq!(place.read("stdout"), "deaf\n");
}

#[tokio::test]
async fn stop_and_kill_end_it() {
    let place = Place::new("stop");
    let script = "trap 'echo stopped; exit' TERM; echo > ready; while :; do sleep 0.01; done";
    for (by, says) in [(By::Stopped, "stopped\n"), (By::Killed, "")] {
        let mut supervised = start(place.sh(script));
        until("the child", || place.path("ready").exists());
        if by == By::Stopped {
            supervised.stop()
        } else {
            supervised.kill()
        }
        assert_eq!(supervised.wait().await.unwrap().exit, Exit::Interrupted { by });
        assert_eq!(place.read("stdout"), says);
        std::fs::remove_file(place.path("ready")).unwrap();
    }
}

#[tokio::test]
async fn the_supervisor_is_deaf_to_polite_signals() {
    let place = Place::new("deaf");
    let mut supervised = start(place.sh("echo > ready; while [ ! -e go ]; do sleep 0.01; done"));
    for signal in ["INT", "TERM", "HUP", "QUIT", "PIPE"] {
        let pid = supervised.pid().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }
    std::fs::write(place.path("go"), "").unwrap();
    assert_eq!(supervised.wait().await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn a_daemon_dies_with_its_attempt_and_a_neighbour_lives() {
    let (place, beside) = (Place::new("daemon"), Place::new("neighbour"));
    let mut neighbour = start(beside.daemon(true));
    let neighbours = beside.pid("daemon");
    // The daemon holds stdout open: the end must not wait for that.
    let end = run(place.daemon(false)).await;
    assert_eq!((end.exit, end.killed_descendants), (Exit::Code(0), 1));
    assert!(end.wall_ms < 20_000);
    assert!(!alive(place.pid("daemon")));
    assert!(alive(neighbours));
    neighbour.kill();
    assert_eq!(neighbour.wait().await.unwrap().exit, Exit::Interrupted { by: By::Killed });
    assert!(!alive(neighbours));
}

#[tokio::test]
async fn two_hundred_children_in_groups_of_their_own_die() {
    let place = Place::new("bomb");
    let script = "
import os, time
for i in range(200):
    if os.fork() == 0:
        if i % 2: os.setsid()
        if i % 3 == 0: os.fork()
        time.sleep(600)
";
    let end = run(place.spec(&["python3", "-c", script])).await;
    assert_eq!(end.exit, Exit::Code(0));
    // Some may not have come to their second fork.
    assert!((200..=267).contains(&end.killed_descendants), "{end:?}");
    assert!(marked(&place.attempt).unwrap().is_empty());
}

#[tokio::test]
async fn a_gigabyte_of_output_is_bounded_and_quick() {
    let place = Place::new("flood");
    let mut spec = place.sh("head -c 1073741824 /dev/zero; echo end >&2");
    spec.secrets = vec![Secret { name: "KEY".into(), value: "hunter2".into() }];
    let end = run(spec).await;
    assert_eq!((end.exit.clone(), end.stdout_bytes, end.stdout_kept), (Exit::Code(0), 1 << 30, 1 << 20));
    assert!(end.truncated && end.wall_ms < 20_000, "{end:?}");
    assert_eq!(std::fs::metadata(place.path("stdout")).unwrap().len(), 1 << 20);
    assert_eq!(place.read("stderr"), "end\n");

    let spec = Spec { kill_over_limit: true, ..place.sh("yes") };
    let end = run(spec).await;
    assert_eq!(end.exit, Exit::OverLimit { limit_bytes: 1 << 20 });
    assert_eq!(end.stdout_kept, 1 << 20);
}

#[tokio::test]
async fn secrets_reach_no_disk_even_across_pieces() {
    let place = Place::new("secret");
    let script = "
import os, sys, time
key = os.environ['KEY'].encode()
for fd in (1, 2):
    os.write(fd, b'<' + key[:3]); time.sleep(0.03); os.write(fd, key[3:] + b'>')
    os.write(fd, b'x' * 65535 + key + key[:4])
";
    let mut spec = place.spec(&["python3", "-c", script]);
    spec.secrets = vec![Secret { name: "KEY".into(), value: "sk-very-secret".into() }];
    assert_eq!(run(spec).await.exit, Exit::Code(0));
    for name in ["stdout", "stderr"] {
        assert_eq!(place.read(name), format!("<[secret KEY]>{}[secret KEY]sk-v", "x".repeat(65535)));
    }
    for file in std::fs::read_dir(place.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(14).any(|w| w == b"sk-very-secret"));
    }
}

#[tokio::test]
async fn letting_go_kills_the_tree_and_then_frees_the_locks() {
    let place = Place::new("drop");
    let (held, fd) = lock(&place.path("lock"));
    let supervised = Supervised::start(Path::new(FLOW), place.daemon(true), &[fd]).unwrap();
    drop(held);
    let daemon = place.pid("daemon");
    assert!(!lock_is_free(&place.path("lock")));
    drop(supervised);
    until("the lock", || lock_is_free(&place.path("lock")));
    assert!(!alive(daemon));
    let end = read_end(&place.path("end.json")).unwrap();
    assert_eq!((end.exit, end.killed_descendants), (Exit::Interrupted { by: By::FlowDied }, 1));
}

#[test]
fn the_death_of_whoever_started_the_supervisor_ends_it() {
    let place = Place::new("middle");
    // Another process in flow's part: takes the lock, starts a supervisor as the protocol says, and waits.
    let middle = r"
import fcntl, struct, subprocess, sys, time
lock = open(sys.argv[3], 'w'); fcntl.flock(lock, fcntl.LOCK_EX)
spec = sys.argv[2].replace('4242', str(lock.fileno())).encode()
p = subprocess.Popen([sys.argv[1], 'supervise'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lock.fileno()])
p.stdin.write(struct.pack('<I', len(spec)) + spec); p.stdin.flush()
p.wait()
";
    let spec = serde_json::to_string(&Spec { inherit: vec![4242], ..place.daemon(true) }).unwrap();
    let lock = place.path("lock");
    let mut flow = Command::new("python3").args(["-c", middle, FLOW, &spec]).arg(&lock).spawn().unwrap();
    let daemon = place.pid("daemon");
    assert!(!lock_is_free(&lock));
    flow.kill().unwrap();
    flow.wait().unwrap();
    until("the lock", || lock_is_free(&lock));
    assert!(!alive(daemon));
    assert!(marked(&place.attempt).unwrap().is_empty());
    let end = read_end(&place.path("end.json")).unwrap();
    assert_eq!((end.exit, end.attempt), (Exit::Interrupted { by: By::FlowDied }, place.attempt.clone()));
}

#[tokio::test]
async fn a_lost_supervisor_takes_its_child_along_and_the_mark_finds_the_rest() {
    let place = Place::new("lost");
    let mut supervised = start(place.daemon(true));
    let daemon = place.pid("daemon");
    let found = marked(&place.attempt).unwrap();
    assert!(found.contains(&daemon) && found.len() == 2 && !found.contains(&supervised.pid()), "{found:?}");
    kill9(supervised.pid());
    until("the child's death", || marked(&place.attempt).unwrap() == [daemon]);
    match supervised.wait().await {
        Err(SuperviseError::Lost { how, killed, .. }) => {
            assert_eq!((how.as_str(), killed), ("was killed by signal 9", 1));
        }
        other => panic!("{other:?}"),
    }
    assert!(!alive(daemon));
}

#[tokio::test]
async fn a_control_group_finds_even_what_wiped_its_environment() {
    let place = Place::new("cgroup");
    let end = run(Spec { cgroup: true, ..place.sh("cat /proc/self/cgroup; setsid sleep 600 & exit 6") }).await;
    assert_eq!(end.exit, Exit::Code(6));
    let name = format!("/flow-{}", place.attempt);
    if !place.read("stdout").contains(&name) {
        eprintln!("no control group can be made here: the rest is not tested");
        return;
    }
    let mut wiped = place.spec(&["env", "-i", "PATH=/usr/bin:/bin", "python3", "-c", DAEMON, "daemon", "stay"]);
    wiped.cgroup = true;
    let mut supervised = start(wiped);
    let daemon = place.pid("daemon");
    std::fs::remove_file(place.path("end.json")).unwrap();
    kill9(supervised.pid());
    assert!(matches!(supervised.wait().await, Err(SuperviseError::Lost { killed: 1 | 2, .. })));
    assert!(!alive(daemon));
    // Both groups are gone; a second one of this name can be made.
    run(Spec { cgroup: true, ..place.sh("cat /proc/self/cgroup") }).await;
    assert!(place.read("stdout").contains(&name));
}

#[tokio::test]
async fn the_mark_spares_a_living_supervisor_unless_told() {
    let place = Place::new("spare");
    let mut supervised = start(place.daemon(true));
    let daemon = place.pid("daemon");
    assert_eq!(kill_marked(&place.attempt, Duration::from_secs(20), false).unwrap(), 2);
    assert!(!alive(daemon));
    assert_eq!(supervised.wait().await.unwrap().exit, Exit::Signal(libc::SIGKILL));

    std::fs::remove_file(place.path("daemon")).unwrap();
    std::fs::remove_file(place.path("end.json")).unwrap();
    let mut supervised = start(place.daemon(true));
    place.pid("daemon");
    assert_eq!(kill_marked(&place.attempt, Duration::from_secs(20), true).unwrap(), 3);
    assert!(matches!(supervised.wait().await, Err(SuperviseError::Lost { .. })));
}

#[tokio::test]
async fn an_end_that_a_lost_supervisor_did_not_tell_is_not_believed() {
    let place = Place::new("adopt");
    // Its child could have written the file and killed it.
    run(place.sh("exit 4")).await;
    let mut supervised = start(place.daemon(true));
    let daemon = place.pid("daemon");
    kill9(supervised.pid());
    assert!(matches!(supervised.wait().await, Err(SuperviseError::Lost { .. })));
    assert!(!alive(daemon));
}

#[test]
fn a_supervisor_without_a_spec_ends() {
    for input in [&b""[..], b"\x05\0\0\0{", b"\x02\0\0\0{}"] {
        let mut child =
            Command::new(FLOW).arg("supervise").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(2));
    }
}

#[tokio::test]
async fn plain_commands_end_as_they_do() {
    let place = Place::new("plain");
    let end = spawn_plain(place.plain("echo a; echo b >&2; echo $FLOW_ATTEMPT; exit 5")).await;
    assert_eq!((end.exit, &end.fault, end.truncated), (Exit::Code(5), &None, false));
    assert_eq!((place.read("stdout"), place.read("stderr").as_str()), (format!("a\n{}\n", place.attempt), "b\n"));
    assert_eq!(spawn_plain(place.plain("kill -9 $$")).await.exit, Exit::Signal(9));
    let end = spawn_plain(Plain { output_limit: 10, ..place.plain("head -c 100 /dev/zero") }).await;
    assert_eq!((end.stdout_bytes, end.stdout_kept, end.truncated), (100, 10, true));
    assert_eq!(std::fs::metadata(place.path("stdout")).unwrap().len(), 10);
    let end = spawn_plain(Plain { argv: vec!["no-such".into()], ..place.plain("") }).await;
    assert!(matches!(&end.exit, Exit::NotStarted { why } if why.contains("no-such")), "{end:?}");
    let all: Vec<_> = (0..50).map(|i| (i, Place::new(&format!("plain{i}")))).collect();
    let tasks: Vec<_> = all.iter().map(|(i, p)| tokio::spawn(spawn_plain(p.plain(&format!("exit {i}"))))).collect();
    for (task, (i, _)) in tasks.into_iter().zip(&all) {
        assert_eq!(task.await.unwrap().exit, Exit::Code(*i));
    }
}

#[tokio::test]
async fn a_plain_command_takes_its_group_along() {
    let place = Place::new("group");
    let script = "sleep 600 & echo $! > child.new; mv child.new child; trap '' TERM; ";
    let end = spawn_plain(place.plain(script)).await;
    assert_eq!(end.exit, Exit::Code(0));
    until("death after the end", || !alive(place.pid("child")));

    let plain = Plain { timeout: Some(Duration::from_millis(300)), ..place.plain(&format!("{script} wait")) };
    let end = spawn_plain(plain).await;
    assert_eq!(end.exit, Exit::TimedOut { limit_ms: 300 });
    assert!(end.wall_ms >= 300);
    until("death at the limit", || !alive(place.pid("child")));

    std::fs::remove_file(place.path("child")).unwrap();
    let task = tokio::spawn(spawn_plain(place.plain(&format!("{script} wait"))));
    while !place.path("child").exists() {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    until("death when cancelled", || !alive(place.pid("child")));
}

/// Not a test: the process that the next one kills.
#[tokio::test]
#[ignore = "started by plain_commands_die_with_flow"]
async fn runs_a_plain_command_for_ever() {
    let pid = std::env::var("PLAIN_PID_FILE").unwrap();
    // Within the other's folder, which is still there to be removed when this process is not.
    let dir = tempfile::tempdir_in(Path::new(&pid).parent().unwrap()).unwrap();
    let place = Place { dir, attempt: "plain-forever".into() };
    // A runtime thread may end; only the process must count.
    spawn_plain(place.plain(&format!("echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"))).await;
}

#[test]
fn plain_commands_die_with_flow() {
    let place = Place::new("forever");
    let mut flow = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "runs_a_plain_command_for_ever"])
        .env("PLAIN_PID_FILE", place.path("pid"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = place.pid("pid");
    assert!(alive(pid));
    flow.kill().unwrap();
    assert_eq!(flow.wait().unwrap().signal(), Some(9));
    until("the command's death", || !alive(pid));
}
