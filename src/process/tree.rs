//! One child and all that descends from it, from its start until nothing of it is left: the supervisor's event loop.
//!
//! Decides how it ended, never what that means. Everything happens on one thread, since the kernel ties "die with your parent"
//! to the thread that starts a child, and since nothing here takes long.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::capture::{Capture, Filter};
use super::cgroup::Cgroup;
use super::confine::Sandbox;
use super::end::{By, End, Exit};
use super::hold::launch_held;
use super::launch::{ATTEMPT_MARK, Launch};
use super::relay::Relay;
use super::spec::{Source, Spec};
use super::system::{child_events, close_on_exec, exit_of, millis, pipe, usage_of_children};
use super::table;

/// How long SIGKILL may take before the end is told with `survivors`.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the output is read after the last descendant's death, should a stranger hold the pipe and write on and on.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

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

/// The child, its descendants, and what is known of them.
pub(super) struct Tree<'a> {
    spec: &'a Spec,
    /// Closed is `None`: flow is dead.
    control: Option<File>,
    group: Option<Cgroup>,
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
    sandbox: Option<Sandbox>,
    relay: Option<Relay>,
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

impl<'a> Tree<'a> {
    /// Opens all that the child needs, and starts it.
    pub(super) fn start(spec: &'a Spec, control: File) -> Result<Self, Box<End>> {
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
        let group = spec.cgroup.then(|| Cgroup::create(&spec.attempt)).flatten();
        let door = group.as_ref().and_then(Cgroup::door);
        // The child inherits these cores; what captures its output goes back to where it was, so as not to be measured with it.
        let own = Cores::narrow(&spec.cores);
        let (started_at, clock) = (Timestamp::now(), Instant::now());
        let what = Launch {
            argv: &spec.argv,
            env: &env,
            cwd: &spec.cwd,
            stdin: input.as_fd(),
            stdout: out_child.as_fd(),
            stderr: err_child.as_fd(),
            extra: &extra,
            session: true,
            dies_with_us: true,
            door: door.as_ref().map(AsFd::as_fd),
            as_supervisor: false,
            confine: None,
            doors: None,
        };
        let no_group = || group.as_ref().inspect(|group| group.remove());
        let mut held = launch_held(what, spec.confine.clone()).map_err(|e| {
            no_group();
            not(e.to_string())
        })?;
        drop(own);
        let relay = held.serve(&spec.secrets).map_err(|e| {
            no_group();
            faulty(format!("cannot serve its hosts: {e}"))
        })?;
        for one in &spec.extra {
            // The child has its copy; a reader at the other end must see its end when the child is gone.
            if let Source::Fd(fd) = one.source {
                let _ = nix::unistd::close(fd);
            }
        }
        Ok(Self {
            spec,
            control: Some(control),
            group,
            children,
            streams: [Stream { pipe: Some(out), capture: stdout }, Stream { pipe: Some(err), capture: stderr }],
            buffer: vec![0; 64 * 1024],
            leader: held.leader,
            status: None,
            cause: None,
            phase: Phase::Running,
            killed: HashSet::new(),
            fault: None,
            started_at,
            started: clock,
            sandbox: held.confine.map(|confine| confine.sandbox()),
            relay,
        })
    }

    /// Until no descendant is left, or those that are do not die.
    pub(super) fn run(&mut self) -> End {
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
                let alive = self.kill();
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
        if survivors == 0 {
            self.group.as_ref().inspect(|group| group.remove());
        }
        self.end(over, survivors)
    }

    /// Takes in the ends of children. False once there is none any more.
    pub(super) fn reap(&mut self) -> bool {
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
        // Whoever was suspended could not hear it otherwise.
        for signal in [Signal::SIGTERM, Signal::SIGCONT] {
            let _ = killpg(Pid::from_raw(self.leader), signal);
        }
        self.phase = Phase::Grace { until: Instant::now() + Duration::from_millis(self.spec.grace_ms) };
    }

    /// One round of killing, for when there still is a child; says how many were alive.
    pub(super) fn kill(&mut self) -> u32 {
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
        self.group.as_ref().inspect(|group| group.kill());
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
                    && self.streams[i].capture.is_over()
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
            sandbox: self.sandbox.take(),
            reached: self.relay.take().map(Relay::finish),
        }
    }
}
