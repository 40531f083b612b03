//! How a process ended, and `end.json`, which says so durably.
//!
//! Does not say whether an end is a success: a code of 0 is just a code here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::confine::Sandbox;
use super::reached::Reached;

/// Longer than any end that flow writes.
const LONGEST: u64 = 1 << 20;

/// Who interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// flow died, or let go of the pipe.
    FlowDied,
    /// flow asked politely.
    Stopped,
    /// flow asked for the end at once.
    Killed,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// With an exit code of its own.
    Code(i32),
    /// By a signal that did not come from flow.
    Signal(i32),
    /// At its time limit.
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// At its output limit, where that ends it (`kill_over_limit`).
    OverLimit {
        /// The limit of one stream.
        limit_bytes: u64,
    },
    /// It never began.
    NotStarted {
        /// Why, in words, with the path.
        why: String,
    },
    /// It was interrupted.
    Interrupted {
        /// By whom.
        by: By,
    },
}

/// The end of a process and of all its descendants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The attempt that ended.
    pub attempt: String,
    /// How.
    pub exit: Exit,
    /// From the start to the exit of the first process or, where flow ended it, to the death of the last one: milliseconds of
    /// the monotonic clock.
    pub wall_ms: u64,
    /// When it started.
    pub started_at: Timestamp,
    /// When all was over.
    pub ended_at: Timestamp,
    /// How much it wrote to its standard output.
    pub stdout_bytes: u64,
    /// How much it wrote to its standard error.
    pub stderr_bytes: u64,
    /// The length of the file that keeps the standard output. A shorter file was torn by a crash of the machine.
    pub stdout_kept: u64,
    /// The length of the file that keeps the standard error.
    pub stderr_kept: u64,
    /// Whether some output was dropped.
    pub truncated: bool,
    /// How many processes it left behind that had to be killed. 0 for a plain command, whose group is killed uncounted.
    pub killed_descendants: u32,
    /// How many processes were still alive when this was written although they had been sent SIGKILL: stuck in the kernel, or
    /// another user's. The supervisor keeps its locks until they are gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub survivors: u32,
    /// The largest resident size that one of its processes had.
    pub max_rss_kib: u64,
    /// Processor time of all its processes, user and system.
    pub cpu_ms: u64,
    /// What flow could not do of its own part, such as to write to a full disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What the kernel held it to, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// What it reached by its network, where it could reach only some hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl End {
    /// The end of what never started.
    #[must_use]
    pub fn not_started(attempt: &str, why: String) -> Self {
        let now = Timestamp::now();
        Self {
            attempt: attempt.to_owned(),
            exit: Exit::NotStarted { why },
            wall_ms: 0,
            started_at: now,
            ended_at: now,
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_kept: 0,
            stderr_kept: 0,
            truncated: false,
            killed_descendants: 0,
            survivors: 0,
            max_rss_kib: 0,
            cpu_ms: 0,
            fault: None,
            sandbox: None,
            reached: None,
        }
    }

    /// The end as one line of JSON, with its line feed.
    pub(super) fn line(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON form; an empty line would read as no end at all.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Writes `end.json` so that after any death of a process there is all of it or none, and if it is to be durable after a
    /// crash of the machine too.
    pub(super) fn write(&self, path: &Path, durable: bool) -> io::Result<()> {
        let mut temp = path.as_os_str().to_owned();
        temp.push(format!(".{}.tmp", std::process::id()));
        let temp = PathBuf::from(temp);
        let mut file = File::create(&temp)?;
        file.write_all(&self.line())?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temp, path)?;
        match path.parent() {
            Some(dir) if durable && !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
            _ => Ok(()),
        }
    }
}

/// The end that a supervisor left at `path`; `None` if there is none that can be read.
#[must_use]
pub fn read_end(path: &Path) -> Option<End> {
    // The place is the attempt's, and its child could have put a pipe or a link there.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_back_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("end.json");
        for exit in [Exit::Code(3), Exit::TimedOut { limit_ms: 9 }, Exit::Interrupted { by: By::FlowDied }] {
            let end = End { exit, ..End::not_started("r-1", String::new()) };
            end.write(&path, true).unwrap();
            assert_eq!(read_end(&path), Some(end));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_an_end_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("end.json");
        assert_eq!(read_end(&path), None);
        std::fs::write(&path, b"{\"exit\":{\"co").unwrap();
        assert_eq!(read_end(&path), None);
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_end(&path), None);
    }
}
