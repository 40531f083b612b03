//! flow's side of a supervisor: start it, wait for its end, stop it, or let go of it.
//!
//! Dropping a [`Supervised`] closes the life line, so that no cancelled future leaves a process behind.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::end::End;
use super::launch::{Launch, SUPERVISOR_MARK, launch};
use super::orphans::{OrphanError, kill_marked};
use super::spec::{Source, Spec};
use super::system::wait_for;
use super::table::Process;

/// How long the orphans of a lost supervisor may take to die.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);

/// How often a supervisor is looked after, and how often it is let go on after it was stopped.
const LOOK: Duration = Duration::from_secs(1);
const WAKES: u32 = 3;

/// Why the end of a supervised process is not known.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The pipe from the supervisor cannot be read.
    #[error("cannot hear the supervisor that is to write {}: {source}", .end.display())]
    Pipe {
        /// Where it was to write its end.
        end: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The supervisor died, and left no end. Its processes are dead now.
    #[error("the supervisor {how} and left no {}; {killed} of its processes were killed", .end.display())]
    Lost {
        /// Where its end should be.
        end: PathBuf,
        /// How it ended, in words.
        how: String,
        /// How many processes had survived it.
        killed: u32,
    },
    /// The supervisor died, left no end, and its processes are not known to be dead: its slots must not be leased.
    #[error("the supervisor that was to write {} {how}, and its processes may live on: {source}", .end.display())]
    Orphans {
        /// Where its end should be.
        end: PathBuf,
        /// How it ended, in words.
        how: String,
        /// What is left.
        source: OrphanError,
    },
}

/// A process under a supervisor.
#[derive(Debug)]
pub struct Supervised {
    pid: libc::pid_t,
    attempt: String,
    end: PathBuf,
    /// The life line.
    control: File,
    answer: Answer,
    heard: Vec<u8>,
    reaped: bool,
    /// How often it was found stopped.
    stopped: u32,
}

/// The pipe from the supervisor: joined to the runtime by the first `wait`, so that `start` needs none.
#[derive(Debug)]
enum Answer {
    Fresh(OwnedFd),
    Joined(Receiver),
    Over,
}

impl Supervised {
    /// Starts a supervisor and sends it the spec. `flow_exe` is called as `flow_exe supervise`. The supervisor inherits `locks`
    /// and holds them until the whole tree is dead; the caller may close its own copies at once.
    ///
    /// # Errors
    /// The supervisor cannot be started, or the spec cannot be sent. Whether the child could be started is in its end.
    pub fn start(flow_exe: &Path, mut spec: Spec, locks: &[RawFd]) -> io::Result<Self> {
        let (control_far, control) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (answer, answer_far) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let program =
            flow_exe.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "flow's path is not UTF-8"))?;
        // From 3 on, whatever their numbers here are: these may be as large as flow has files open.
        let mut extra = Vec::with_capacity(locks.len());
        let mut pass = |ours: RawFd| {
            let theirs = RawFd::try_from(extra.len()).map_or(RawFd::MAX, |n| n + 3);
            extra.push((ours, theirs));
            theirs
        };
        spec.inherit = locks.iter().map(|lock| pass(*lock)).collect();
        for one in &mut spec.extra {
            if let Source::Fd(fd) = &mut one.source {
                *fd = pass(*fd);
            }
        }
        let pid = launch(&Launch {
            argv: &[program.to_owned(), "supervise".to_owned()],
            // Not flow's own environment: a child can read that of its parents.
            env: &[(SUPERVISOR_MARK.to_owned(), spec.attempt.clone())],
            cwd: Path::new("/"),
            stdin: control_far.as_fd(),
            stdout: answer_far.as_fd(),
            stderr: null.as_fd(),
            extra: &extra,
            session: true,
            dies_with_us: false,
            door: None,
            as_supervisor: true,
            confine: None,
            doors: None,
        })
        .map_err(io::Error::other)?;
        let started = Self {
            pid,
            attempt: spec.attempt.clone(),
            end: spec.end.clone(),
            control: File::from(control),
            answer: Answer::Fresh(answer),
            heard: Vec::new(),
            reaped: false,
            stopped: 0,
        };
        // Otherwise a supervisor that died would leave us writing into a pipe that only we can still read.
        drop((control_far, answer_far));
        spec.send(&started.control)?;
        Ok(started)
    }

    /// The supervisor's own process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end. When it is told, every process is dead and the locks that only the supervisor held are free, unless
    /// `survivors` says otherwise. May be cancelled and called again.
    ///
    /// # Errors
    /// The supervisor died without an end; see [`SuperviseError`].
    pub async fn wait(&mut self) -> Result<End, SuperviseError> {
        self.hear().await.map_err(|source| SuperviseError::Pipe { end: self.end.clone(), source })?;
        if let Some(end) = self.told() {
            if end.survivors == 0 {
                self.reap();
            }
            return Ok(end);
        }
        let how = self.reap();
        // Whatever `end.json` says now: the place is the child's too, which could have killed its supervisor and written that.
        let attempt = self.attempt.clone();
        let killed = tokio::task::spawn_blocking(move || kill_marked(&attempt, ORPHAN_LIMIT, true)).await;
        let end = self.end.clone();
        match killed {
            Ok(Ok(killed)) => Err(SuperviseError::Lost { end, how, killed }),
            Ok(Err(source)) => Err(SuperviseError::Orphans { end, how, source }),
            Err(e) => Err(SuperviseError::Pipe { end, source: io::Error::other(e) }),
        }
    }

    /// Asks for a polite end: SIGTERM, the grace, SIGKILL. Does not wait.
    pub fn stop(&self) {
        self.command(b"t");
    }

    /// Asks for the end at once. Does not wait.
    pub fn kill(&self) {
        self.command(b"k");
    }

    fn command(&self, byte: &[u8]) {
        // It fails if the supervisor is gone, and then there is nothing to ask for.
        let _ = (&self.control).write_all(byte);
    }

    /// Reads up to the end of the pipe, or up to an end that tells of survivors: that supervisor stays.
    async fn hear(&mut self) -> io::Result<()> {
        if let Answer::Fresh(_) = self.answer
            && let Answer::Fresh(pipe) = std::mem::replace(&mut self.answer, Answer::Over)
        {
            self.answer = Answer::Joined(Receiver::from_owned_fd(pipe)?);
        }
        while let Answer::Joined(pipe) = &mut self.answer {
            let read = tokio::select! {
                read = pipe.read_buf(&mut self.heard) => Some(read?),
                () = tokio::time::sleep(LOOK) => None,
            };
            match read {
                None => self.keep_awake(),
                Some(read) if read == 0 || self.told().is_some_and(|end| end.survivors > 0) => {
                    self.answer = Answer::Over;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A supervisor that a signal stopped keeps no limit and answers nobody: what it watches over may have done that. It is let
    /// go on, and killed where that does not help for long.
    fn keep_awake(&mut self) {
        if self.reaped || !Process::read(self.pid).is_some_and(|process| process.stopped) {
            return;
        }
        self.stopped += 1;
        let signal = if self.stopped > WAKES { libc::SIGKILL } else { libc::SIGCONT };
        // SAFETY: it takes numbers only. The process is a child that was not waited for: its id is nobody else's.
        unsafe { libc::kill(self.pid, signal) };
    }

    fn told(&self) -> Option<End> {
        let line = self.heard.strip_suffix(b"\n")?;
        serde_json::from_slice(line).ok()
    }

    /// Takes in the supervisor's own end, and says in words what it was. It is just ending: this does not block for long.
    fn reap(&mut self) -> String {
        if std::mem::replace(&mut self.reaped, true) {
            return "is gone".to_owned();
        }
        match wait_for(self.pid) {
            Some(status) if libc::WIFSIGNALED(status) => format!("was killed by signal {}", libc::WTERMSIG(status)),
            Some(status) => format!("ended with code {}", libc::WEXITSTATUS(status)),
            None => "is gone".to_owned(),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if !self.reaped {
            let pid = self.pid;
            // The life line closes with our fields, after this. The thread only spares us a zombie; without one it is init's
            // when flow ends.
            let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || wait_for(pid));
        }
    }
}
