//! The supervisor: a process of its own with one thread that runs one child and outlives flow.
//!
//! Its stdin is the life line: a [`Spec`], then `t` (stop politely) or `k` (kill now), and its end means that flow is dead. Its
//! stdout takes one line, the [`End`], when all is over. In this order: the tree is dead, the output is in its files, `end.json`
//! is durable, the line is sent, the locks are freed. Every descendant is found, since as a subreaper it adopts those whose
//! parents die; it is done when the kernel says that it has no child left.
//!
//! It does as little as it can before the child runs, and has no idea what the child is for.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::capture::{Capture, Filter};
use super::end::{By, End, Exit};
use super::launch::{ATTEMPT_MARK, Launch, POLITE, launch};
use super::spec::{Source, Spec};
use super::table;

/// How long SIGKILL may take before the end is told with `survivors`.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the output is read after the last descendant's death, should a stranger hold the pipe and write on and on.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The whole of `flow supervise`: reads the spec from descriptor 0, runs it, and answers on descriptor 1.
///
/// The code says whether the supervisor did its part, not how the child ended: 0 after an end was told, 2 if there was no spec.
#[must_use]
pub fn supervise_main() -> ExitCode {
    // SAFETY: at the start of a process these two are its own, and nothing else in it uses them; nobody answers by printing.
    let (control, answer) = unsafe { (File::from_raw_fd(0), File::from_raw_fd(1)) };
    stand_apart();
    let Ok(spec) = Spec::receive(&control) else { return ExitCode::from(2) };
    for lock in &spec.inherit {
        close_on_exec(*lock);
    }

    match Supervisor::start(&spec, control) {
        Err(end) => tell(*end, &spec, answer),
        Ok(mut supervisor) => {
            let end = supervisor.run();
            let all_dead = end.survivors == 0;
            tell(end, &spec, answer);
            // What does not die may still use what the locks stand for: a second run must not measure beside it.
            while !all_dead && supervisor.reap() {
                supervisor.kill_tree();
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
    ExitCode::SUCCESS
}

/// Out of reach of the terminal and of polite signals: only flow's pipe, or SIGKILL, ends a supervisor.
fn stand_apart() {
    // It is the leader of a session already if flow's client started it.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // SAFETY: sets dispositions and blocks a signal, before there is any thread or child. SIGCHLD may have been inherited as
    // ignored, which would make the kernel forget our children's ends.
    unsafe {
        for signal in POLITE.into_iter().chain([libc::SIGPIPE]) {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Makes the end durable, tells flow, and frees the locks.
fn tell(mut end: End, spec: &Spec, mut answer: File) {
    if let Err(e) = end.write(&spec.end) {
        let fault = format!("cannot write {}: {e}", spec.end.display());
        end.fault = Some(end.fault.map_or(fault.clone(), |first| format!("{first}; {fault}")));
    }
    // flow may be dead: then this fails, and the file speaks.
    let _ = answer.write_all(&end.line());
    if end.survivors == 0 {
        for lock in &spec.inherit {
            let _ = nix::unistd::close(*lock);
        }
    }
    // `answer` closes here: flow, which reads until then, finds the locks free.
}

fn close_on_exec(fd: RawFd) {
    // SAFETY: sets a flag; a number that is no descriptor is an error we do not mind.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Where the end is decided, and so what happens next.
enum Phase {
    /// The child runs.
    Running,
    /// It was asked to end.
    Grace { until: Instant },
    /// Everything is killed.
    Killing { since: Instant, next: Instant, pause: Duration },
}

impl Phase {
    fn killing() -> Self {
        let now = Instant::now();
        Self::Killing { since: now, next: now, pause: Duration::from_millis(1) }
    }
}

struct Stream {
    pipe: Option<File>,
    capture: Capture,
}

struct Supervisor<'a> {
    spec: &'a Spec,
    /// Closed is `None`: flow is dead.
    control: Option<File>,
    children: File,
    streams: [Stream; 2],
    buffer: Vec<u8>,
    leader: libc::pid_t,
    /// Of the leader, once it has been reaped, with the time of that.
    status: Option<(libc::c_int, Instant)>,
    /// Why we ended it, if we did.
    cause: Option<Exit>,
    phase: Phase,
    killed: HashSet<(i32, u64)>,
    fault: Option<String>,
    started_at: Timestamp,
    started: Instant,
}

/// The cores this process had, to go back to.
struct Cores(Option<CpuSet>);

impl Cores {
    /// Takes only some cores; none named, or none that this machine has, changes nothing.
    fn narrow(cores: &[u32]) -> Self {
        let us = Pid::from_raw(0);
        let mut wanted = CpuSet::new();
        let any = cores.iter().filter(|core| wanted.set(**core as usize).is_ok()).count() > 0;
        let before = sched_getaffinity(us).ok().filter(|_| any);
        Self(before.filter(|_| sched_setaffinity(us, &wanted).is_ok()))
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // At worst the supervisor goes on where its child runs.
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}

impl<'a> Supervisor<'a> {
    /// Opens all that the child needs, and starts it.
    fn start(spec: &'a Spec, control: File) -> Result<Self, Box<End>> {
        let not = |why: String| Box::new(End::not_started(&spec.attempt, why));
        let faulty = |why: String| Box::new(End { fault: Some(why.clone()), ..End::not_started(&spec.attempt, why) });

        let input = spec.stdin.as_deref().unwrap_or("/dev/null".as_ref());
        let input = File::open(input).map_err(|e| not(format!("cannot read {}: {e}", input.display())))?;
        let filter = || (!spec.secrets.is_empty()).then(|| Filter::new(&spec.secrets));
        let capture = |path| Capture::create(path, spec.output_limit, filter()).map_err(faulty);
        let (stdout, stderr) = (capture(&spec.stdout)?, capture(&spec.stderr)?);
        let no_pipe = |e: nix::Error| faulty(format!("cannot make a pipe: {e}"));
        let (out, out_child) = pipe().map_err(no_pipe)?;
        let (err, err_child) = pipe().map_err(no_pipe)?;
        let children = child_events().map_err(|e| faulty(format!("cannot watch children: {e}")))?;

        let mut opened = Vec::new();
        let mut extra = Vec::with_capacity(spec.extra.len());
        for one in &spec.extra {
            let ours = match &one.source {
                Source::Fd(fd) => {
                    close_on_exec(*fd);
                    *fd
                }
                Source::Path(path) => {
                    std::fs::write(path, b"")
                        .and_then(|()| OpenOptions::new().append(true).open(path))
                        .map(|file| opened.push(file))
                        .map_err(|e| faulty(format!("cannot write {}: {e}", path.display())))?;
                    opened.last().map_or(-1, AsRawFd::as_raw_fd)
                }
            };
            extra.push((ours, one.fd));
        }

        let mut env = spec.env.clone();
        env.extend(spec.secrets.iter().map(|s| (s.name.clone(), s.value.clone())));
        env.push((ATTEMPT_MARK.to_owned(), spec.attempt.clone()));
        // The child inherits these cores; what captures its output goes back to where it was, so as not to be measured with it.
        let own = Cores::narrow(&spec.cores);
        let (started_at, started) = (Timestamp::now(), Instant::now());
        let leader = launch(&Launch {
            argv: &spec.argv,
            env: &env,
            cwd: &spec.cwd,
            stdin: input.as_fd(),
            stdout: out_child.as_fd(),
            stderr: err_child.as_fd(),
            extra: &extra,
            session: true,
            dies_with_us: true,
            ignores_polite: false,
        })
        .map_err(|e| not(e.to_string()))?;
        drop(own);
        for one in &spec.extra {
            // The child has its copy; a reader at the other end must see its end when the child is gone.
            if let Source::Fd(fd) = one.source {
                let _ = nix::unistd::close(fd);
            }
        }
        Ok(Self {
            spec,
            control: Some(control),
            children,
            streams: [Stream { pipe: Some(out), capture: stdout }, Stream { pipe: Some(err), capture: stderr }],
            buffer: vec![0; 64 * 1024],
            leader,
            status: None,
            cause: None,
            phase: Phase::Running,
            killed: HashSet::new(),
            fault: None,
            started_at,
            started,
        })
    }

    /// Until no descendant is left, or those that are do not die.
    fn run(&mut self) -> End {
        let mut survivors = 0;
        while self.reap() {
            let now = Instant::now();
            let limit = self.spec.timeout_ms.map(Duration::from_millis);
            match self.phase {
                Phase::Running => {
                    if self.status.is_some() {
                        self.phase = Phase::killing();
                    } else if limit.is_some_and(|limit| now - self.started >= limit) {
                        self.ask(Exit::TimedOut { limit_ms: self.spec.timeout_ms.unwrap_or_default() });
                    }
                }
                Phase::Grace { until } => {
                    let group_is_gone = || killpg(Pid::from_raw(self.leader), None) == Err(nix::Error::ESRCH);
                    if now >= until || (self.status.is_some() && group_is_gone()) {
                        self.phase = Phase::killing();
                    }
                }
                Phase::Killing { .. } => {}
            }
            if let Phase::Killing { since, next, pause } = self.phase
                && now >= next
            {
                let alive = self.kill_tree();
                if now - since >= KILL_LIMIT {
                    survivors = alive;
                    break;
                }
                let pause = (pause * 2).min(Duration::from_millis(50));
                self.phase = Phase::Killing { since, next: Instant::now() + pause, pause };
            }
            let wake = match self.phase {
                Phase::Running => limit.map(|limit| self.started + limit),
                Phase::Grace { until } => Some(until),
                Phase::Killing { next, .. } => Some(next),
            };
            self.wait(wake.map(|at| at.saturating_duration_since(Instant::now())));
        }
        let over = Instant::now();
        self.drain();
        self.end(over, survivors)
    }

    /// Takes in the ends of children. False once there is none any more.
    fn reap(&mut self) -> bool {
        loop {
            let mut status = 0;
            // SAFETY: writes to a local.
            match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
                0 => return true,
                pid if pid == self.leader => self.status = Some((status, Instant::now())),
                pid if pid > 0 => {}
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
    }

    /// Asks the child's group to end, and notes why.
    fn ask(&mut self, cause: Exit) {
        self.cause = Some(cause);
        let _ = killpg(Pid::from_raw(self.leader), Signal::SIGTERM);
        self.phase = Phase::Grace { until: Instant::now() + Duration::from_millis(self.spec.grace_ms) };
    }

    /// One round of killing, for when there still is a child; says how many were alive.
    fn kill_tree(&mut self) -> u32 {
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        let found = match table::scan() {
            Ok(table) => table::descendants(&table, &[me], None),
            Err(e) => {
                self.fault = Some(format!("cannot list /proc: {e}"));
                let _ = killpg(Pid::from_raw(self.leader), Signal::SIGKILL);
                return 1;
            }
        };
        let mut groups = HashSet::new();
        for process in &found {
            if process.pid != self.leader {
                self.killed.insert((process.pid, process.start));
            }
            // A group dies at once, so that none of it can fork on while we go through the list. All groups of descendants were
            // made by descendants, for the child has a session of its own.
            if process.group > 1 && process.group != me {
                if groups.insert(process.group) {
                    let _ = killpg(Pid::from_raw(process.group), Signal::SIGKILL);
                }
            } else {
                process.kill();
            }
        }
        if found.is_empty() && self.status.is_none() {
            // A child there is, and not in this /proc: it may be another namespace's.
            let _ = killpg(Pid::from_raw(self.leader), Signal::SIGKILL);
        }
        u32::try_from(found.len().max(1)).unwrap_or(u32::MAX)
    }

    /// Waits for an event and deals with it.
    fn wait(&mut self, timeout: Option<Duration>) {
        let entry = |fd: Option<RawFd>| libc::pollfd { fd: fd.unwrap_or(-1), events: libc::POLLIN, revents: 0 };
        let [out, err] = self.streams.each_ref().map(|s| entry(s.pipe.as_ref().map(AsRawFd::as_raw_fd)));
        let control = entry(self.control.as_ref().map(AsRawFd::as_raw_fd));
        let mut entries = [entry(Some(self.children.as_raw_fd())), control, out, err];
        let timeout = timeout.map(|t| libc::timespec {
            tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array and the time are locals of the stated size; a null mask means none.
        if unsafe { libc::ppoll(entries.as_mut_ptr(), 4, timeout, std::ptr::null()) } <= 0 {
            return;
        }
        if entries[0].revents != 0 {
            let _ = io::Read::read(&mut &self.children, &mut [0; 2048]);
            // Before flow is listened to: a child that has ended on its own was not interrupted.
            self.reap();
        }
        if entries[1].revents != 0 {
            self.listen();
        }
        for (i, entry) in entries[2..].iter().enumerate() {
            if entry.revents != 0 {
                // A few pieces at a time, so that a flood cannot keep us from the clock and from flow.
                for _ in 0..16 {
                    if !self.read(i) {
                        break;
                    }
                }
            }
        }
    }

    /// A command of flow's, or its death.
    fn listen(&mut self) {
        let mut byte = [0];
        let command = match self.control.as_ref().map(|mut control| io::Read::read(&mut control, &mut byte)) {
            Some(Ok(1)) => Some(byte[0]),
            Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => return,
            _ => None,
        };
        let by = match command {
            Some(b't') => By::Stopped,
            Some(b'k') => By::Killed,
            Some(_) => return,
            None => {
                self.control = None;
                By::FlowDied
            }
        };
        match (&self.phase, by) {
            // All is being killed, or will be at once: it ended before we were asked.
            (Phase::Killing { .. }, _) => {}
            (Phase::Running, _) if self.status.is_some() => {}
            (Phase::Running, By::Stopped) => self.ask(Exit::Interrupted { by }),
            (Phase::Grace { .. }, By::Stopped) => {}
            (Phase::Running | Phase::Grace { .. }, By::Killed | By::FlowDied) => {
                // A limit that was met stays met, however short the grace was.
                if !matches!(self.cause, Some(Exit::TimedOut { .. } | Exit::OverLimit { .. })) {
                    self.cause = Some(Exit::Interrupted { by });
                }
                self.phase = Phase::killing();
            }
        }
    }

    /// Reads one piece of a stream. False if there is nothing now.
    fn read(&mut self, i: usize) -> bool {
        let stream = &mut self.streams[i];
        let Some(pipe) = stream.pipe.as_mut() else { return false };
        match io::Read::read(pipe, &mut self.buffer) {
            Ok(n) if n > 0 => {
                stream.capture.take(&self.buffer[..n]);
                if self.spec.kill_over_limit
                    && self.status.is_none()
                    && self.cause.is_none()
                    && self.streams[i].capture.truncated
                {
                    self.ask(Exit::OverLimit { limit_bytes: self.spec.output_limit });
                }
                true
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            _ => {
                stream.pipe = None;
                false
            }
        }
    }

    /// What the dead have left in the pipes. All writers are dead, so that an empty pipe is at its end.
    fn drain(&mut self) {
        let until = Instant::now() + DRAIN_LIMIT;
        for i in 0..self.streams.len() {
            while Instant::now() < until && self.read(i) {}
            self.streams[i].capture.finish();
        }
    }

    fn end(&mut self, over: Instant, survivors: u32) -> End {
        let left = self.status;
        if left.is_none() && survivors == 0 {
            self.fault = Some("the kernel did not tell how the child ended".to_owned());
        }
        let exit = self.cause.take().unwrap_or_else(|| left.map_or(Exit::Signal(libc::SIGKILL), |(s, _)| exit_of(s)));
        let last = match (&exit, left) {
            (Exit::Code(_) | Exit::Signal(_), Some((_, at))) => at,
            _ => over,
        };
        let [out, err] = self.streams.each_ref().map(|s| &s.capture);
        let faults: Vec<_> = [&self.fault, &out.fault, &err.fault].into_iter().flatten().cloned().collect();
        let (max_rss_kib, cpu_ms) = usage_of_children();
        End {
            attempt: self.spec.attempt.clone(),
            exit,
            wall_ms: millis(last - self.started),
            started_at: self.started_at,
            ended_at: Timestamp::now(),
            stdout_bytes: out.seen,
            stderr_bytes: err.seen,
            stdout_kept: out.kept,
            stderr_kept: err.kept,
            truncated: out.truncated || err.truncated,
            killed_descendants: u32::try_from(self.killed.len()).unwrap_or(u32::MAX),
            survivors,
            max_rss_kib,
            cpu_ms,
            fault: (!faults.is_empty()).then(|| faults.join("; ")),
        }
    }
}

/// What a status of `wait` says.
pub(super) fn exit_of(status: libc::c_int) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Largest resident size in KiB, and processor time in milliseconds.
pub(super) fn usage(usage: &libc::rusage) -> (u64, u64) {
    let ms = |t: libc::timeval| u64::try_from(t.tv_sec * 1000 + t.tv_usec / 1000).unwrap_or(0);
    (u64::try_from(usage.ru_maxrss).unwrap_or(0), ms(usage.ru_utime) + ms(usage.ru_stime))
}

fn usage_of_children() -> (u64, u64) {
    // SAFETY: plain old data, filled in by the call.
    unsafe {
        let mut all: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut all);
        usage(&all)
    }
}

/// A pipe whose reading end does not block; neither end is inherited.
fn pipe() -> nix::Result<(File, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok((File::from(read), write))
}

/// A descriptor that is readable when a child has ended. SIGCHLD is blocked.
fn child_events() -> io::Result<File> {
    // SAFETY: plain old data filled in by the calls; the new descriptor is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        match libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(File::from_raw_fd(fd)),
        }
    }
}
