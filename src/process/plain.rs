//! Plain commands: started directly, each in a process group of its own, without a supervisor.
//!
//! For cheap steps only: no secret is redacted, nobody adopts what leaves the group, and the output may grow beyond its limit
//! while the command runs. It dies with flow.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::capture::{gap, head_of};
use super::end::{End, Exit};
use super::launch::{ATTEMPT_MARK, Launch, launch};
use super::system::{exit_of, millis, usage, wait_for};

/// A plain command.
#[derive(Clone, Debug)]
pub struct Plain {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The child's environment, complete but for `FLOW_ATTEMPT`.
    pub env: Vec<(String, String)>,
    /// The attempt, exported as `FLOW_ATTEMPT`.
    pub attempt: String,
    /// Where it starts.
    pub cwd: PathBuf,
    /// What it reads; nothing if absent.
    pub stdin: Option<PathBuf>,
    /// The file its standard output goes to.
    pub stdout: PathBuf,
    /// The file its standard error goes to.
    pub stderr: PathBuf,
    /// The time limit, at which its group is killed.
    pub timeout: Option<Duration>,
    /// How many bytes of each file are kept.
    pub output_limit: u64,
}

/// Runs a command to its end. Dropping the future kills its group. Needs tokio's signal driver.
pub async fn spawn_plain(plain: Plain) -> End {
    let attempt = plain.attempt.clone();
    match run(plain).await {
        Ok(end) => end,
        Err(Fail { why, ours }) => End { fault: ours.then(|| why.clone()), ..End::not_started(&attempt, why) },
    }
}

/// Why it was not started, and whether that is flow's own doing.
struct Fail {
    why: String,
    ours: bool,
}

async fn run(plain: Plain) -> Result<End, Fail> {
    let ours = |why: String| Fail { why, ours: true };
    // Before the start, so that no end can be missed.
    let mut ends = signal(SignalKind::child()).map_err(|e| ours(format!("cannot watch children: {e}")))?;
    let (tell, told) = oneshot::channel();
    let spawner = spawner().ok_or_else(|| ours("cannot start a thread".to_owned()))?;
    let (timeout, limit) = (plain.timeout, plain.output_limit);
    let attempt = plain.attempt.clone();
    let files = [plain.stdout.clone(), plain.stderr.clone()];
    let gone = |_| ours("the thread that starts commands is gone".to_owned());
    spawner.send(Request { plain: Box::new(plain), tell }).map_err(|_| gone(()))?;
    let Started { mut group, at: started_at, began: started } = told.await.map_err(|_| gone(()))??;

    let mut timed_out = None;
    let ended = loop {
        if let Some(end) = group.ended() {
            break end;
        }
        let left = timeout.filter(|_| timed_out.is_none()).map(|limit| limit.saturating_sub(started.elapsed()));
        match left {
            Some(left) if left.is_zero() => {
                timed_out = timeout;
                group.kill();
            }
            Some(left) => {
                let _ = tokio::time::timeout(left, ends.recv()).await;
            }
            None => {
                ends.recv().await;
            }
        }
    };
    let wall_ms = millis(started.elapsed());
    let (max_rss_kib, cpu_ms) = ended.as_ref().map_or((0, 0), |(_, used)| usage(used));
    let exit = ended.as_ref().map_or(Exit::Signal(libc::SIGKILL), |(status, _)| exit_of(*status));
    let mut end = End {
        exit: timed_out.map_or(exit, |limit| Exit::TimedOut { limit_ms: millis(limit) }),
        fault: ended.err().map(|e| format!("the kernel did not tell how the command ended: {e}")),
        sandbox: None,
        reached: None,
        wall_ms,
        started_at,
        ended_at: Timestamp::now(),
        max_rss_kib,
        cpu_ms,
        ..End::not_started(&attempt, String::new())
    };
    let [out, err] = files.each_ref().map(|path| cut(path, limit));
    for length in [&out, &err] {
        match length {
            Ok(length) => end.truncated |= *length > limit,
            Err(why) => end.fault = Some(why.clone()),
        }
    }
    (end.stdout_bytes, end.stderr_bytes) = (out.unwrap_or(0), err.unwrap_or(0));
    (end.stdout_kept, end.stderr_kept) = (end.stdout_bytes.min(limit), end.stderr_bytes.min(limit));
    Ok(end)
}

/// Shortens a file to its two ends where it is longer than the limit; says how long it was.
fn cut(path: &Path, limit: u64) -> Result<u64, String> {
    let shorten = || {
        let length = std::fs::metadata(path)?.len();
        if length <= limit {
            return Ok(length);
        }
        let file = File::options().read(true).write(true).open(path)?;
        let head = head_of(limit);
        if head < limit {
            let mut rest = gap(length, head, limit - head);
            let mut tail = vec![0; usize::try_from(limit - head).unwrap_or(usize::MAX).saturating_sub(rest.len())];
            let from = length - tail.len() as u64;
            file.read_exact_at(&mut tail, from)?;
            rest.append(&mut tail);
            file.write_all_at(&rest, head)?;
        }
        file.set_len(limit)?;
        Ok(length)
    };
    shorten().map_err(|e: std::io::Error| format!("cannot shorten {}: {e}", path.display()))
}

/// A process group whose leader has not been reaped, so that its id is nobody else's. Killed and reaped when dropped.
struct Group {
    pid: libc::pid_t,
    reaped: bool,
}

impl Group {
    fn kill(&self) {
        let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    /// The leader's status and usage if it has ended; what it left in its group is dead then.
    fn ended(&mut self) -> Option<std::io::Result<(libc::c_int, libc::rusage)>> {
        // SAFETY: plain old data, filled in by the calls.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let id = libc::id_t::try_from(self.pid).unwrap_or(0);
            // Looked at but not reaped: only as long as the leader has its id is the group's id safe to signal.
            if libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) != 0 {
                // Somebody else has reaped it: an unknown end must not read as a code of 0.
                self.reaped = true;
                return Some(Err(std::io::Error::last_os_error()));
            }
            if info.si_pid() == 0 {
                return None;
            }
            self.kill();
            self.reaped = true;
            let (mut status, mut used) = (0, std::mem::zeroed());
            if libc::wait4(self.pid, &raw mut status, 0, &raw mut used) != self.pid {
                return Some(Err(std::io::Error::last_os_error()));
            }
            Some(Ok((status, used)))
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let pid = self.pid;
            let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || wait_for(pid));
        }
    }
}

struct Started {
    group: Group,
    at: Timestamp,
    began: Instant,
}

struct Request {
    plain: Box<Plain>,
    tell: oneshot::Sender<Result<Started, Fail>>,
}

/// The thread that starts plain commands. The kernel's "die with your parent" means the parent's *thread*, and threads of
/// tokio's come and go; this one lives as long as flow.
fn spawner() -> Option<&'static Sender<Request>> {
    static SPAWNER: OnceLock<Option<Sender<Request>>> = OnceLock::new();
    SPAWNER
        .get_or_init(|| {
            let (send, receive) = channel::<Request>();
            let work = move || {
                for Request { plain, tell } in receive {
                    // A future that was dropped meanwhile gives the group back, and so kills it.
                    let _ = tell.send(start(&plain));
                }
            };
            std::thread::Builder::new().name("flow-spawn".to_owned()).spawn(work).ok().map(|_| send)
        })
        .as_ref()
}

fn start(plain: &Plain) -> Result<Started, Fail> {
    let input = plain.stdin.as_deref().unwrap_or("/dev/null".as_ref());
    let input =
        File::open(input).map_err(|e| Fail { why: format!("cannot read {}: {e}", input.display()), ours: false })?;
    let create = |path: &Path| {
        File::create(path).map_err(|e| Fail { why: format!("cannot write {}: {e}", path.display()), ours: true })
    };
    let stdout = create(&plain.stdout)?;
    let stderr = if plain.stderr == plain.stdout { None } else { Some(create(&plain.stderr)?) };
    let mut env = plain.env.clone();
    env.push((ATTEMPT_MARK.to_owned(), plain.attempt.clone()));
    let (at, began) = (Timestamp::now(), Instant::now());
    let pid = launch(&Launch {
        argv: &plain.argv,
        env: &env,
        cwd: &plain.cwd,
        stdin: input.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_ref().map_or(stdout.as_fd(), |file| -> BorrowedFd<'_> { file.as_fd() }),
        extra: &[],
        session: false,
        dies_with_us: true,
        door: None,
        as_supervisor: false,
        confine: None,
        doors: None,
    })
    .map_err(|e| Fail { why: e.to_string(), ours: false })?;
    Ok(Started { group: Group { pid, reaped: false }, at, began })
}
