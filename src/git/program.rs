//! Runs the `git` program, with a time limit and nothing of the user's configuration.
//!
//! Used to fill mirrors only, never within a repository that somebody else can write.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::GitError;

/// What of stderr is kept.
const SAID: usize = 4096;

/// Variables that would make git read or write another repository, or run a program of somebody's.
const UNSET: [&str; 22] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_NAMESPACE",
    "GIT_TEMPLATE_DIR",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_DEFAULT_HASH",
    "GIT_TRACE",
    "GIT_TRACE2",
    "GIT_TRACE2_EVENT",
    "GIT_TRACE_PACKET",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
];

/// One call of the program.
pub(super) struct Git<'a> {
    /// The command, for messages.
    pub(super) verb: &'static str,
    /// The repository or stream, for messages.
    pub(super) of: &'a str,
    /// Where it runs.
    pub(super) cwd: &'a Path,
    /// When it must have ended.
    pub(super) deadline: Instant,
    /// The time it had from the beginning, for messages.
    pub(super) limit: Duration,
}

impl Git<'_> {
    /// Runs `git` with these arguments and waits.
    pub(super) fn run(&self, args: &[&str], stdin: Option<File>) -> Result<(), GitError> {
        let mut command = Command::new("git");
        command
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.hooksPath=/dev/null"])
            .args(["-c", "protocol.ext.allow=never"])
            .args(args)
            .current_dir(self.cwd)
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        for name in UNSET {
            command.env_remove(name);
        }
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Neither ssh nor an askpass helper may wait for somebody at a terminal.
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .env("LC_ALL", "C");
        let mut child = command.spawn().map_err(|source| GitError::NoProgram { source })?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|mut pipe| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = pipe.read(&mut piece) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.extend_from_slice(&piece[..n]);
                    let over = said.len().saturating_sub(SAID);
                    said.drain(..over);
                }
            })
        });
        let group = Pid::from_raw(child.id().cast_signed());
        let mut nap = Duration::from_millis(1);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(source) => return Err(GitError::NoProgram { source }),
            }
            if Instant::now() >= self.deadline {
                // The leader is not reaped yet, so that the group's number is still its own.
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
                return Err(self.timed_out());
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(40));
        };
        if status.success() {
            return Ok(());
        }
        // A helper that outlives git may hold the pipe: what it says later is not waited for.
        let patience = Instant::now() + Duration::from_millis(300);
        while reader.as_ref().is_some_and(|r| !r.is_finished()) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = without_userinfo(String::from_utf8_lossy(&said).trim());
        let said = if said.is_empty() { status.to_string() } else { said };
        Err(GitError::Program { verb: self.verb, of: self.of.to_owned(), said })
    }

    /// The error of a reached time limit.
    pub(super) fn timed_out(&self) -> GitError {
        GitError::TimedOut { verb: self.verb, of: self.of.to_owned(), limit: self.limit }
    }
}

/// The text with `user:password@` taken out of every URL: git repeats the URL it was given.
pub(super) fn without_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"').unwrap_or(tail.len());
        rest = tail[..end].rfind('@').map_or(tail, |i| &tail[i + 1..]);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_leave_urls() {
        let text = "unable to access 'https://me:s3cr@t@host/x.git/': 403; ssh://git@h/y and http://plain/z";
        let clean = "unable to access 'https://host/x.git/': 403; ssh://h/y and http://plain/z";
        assert_eq!(without_userinfo(text), clean);
    }

    #[test]
    fn a_hanging_program_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Duration::from_millis(200);
        let start = Instant::now();
        let git = Git { verb: "x", of: "y", cwd: dir.path(), deadline: start + limit, limit };
        let end = git.run(&["-c", "alias.x=!sleep 60", "x"], None);
        assert!(matches!(end, Err(GitError::TimedOut { .. })), "{end:?}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
