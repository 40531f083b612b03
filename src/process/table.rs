//! The table of processes, read from `/proc`: who descends from whom, and a kill that cannot hit a stranger.
//!
//! A reading is no snapshot: processes come and go while it is taken. Whoever wants all of a tree dead reads again until nothing
//! is left.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

/// The kernel's flag of a thread that has begun to end.
const PF_EXITING: u32 = 4;

/// One process, as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// When it started, in ticks since boot: with the id, unique.
    pub(super) start: u64,
    /// Whether it still has something of its own, such as open devices. A zombie has not, it only waits for its parent; unless
    /// just its first thread is one.
    pub(super) alive: bool,
    /// Whether it is about to end. Its memory, and with it its environment, goes early on that way; its devices go later.
    pub(super) exiting: bool,
    /// Whether a signal stopped it: it does nothing until another lets it go on.
    pub(super) stopped: bool,
}

impl Process {
    /// The process that has this id now.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let mut text = [0; 1024];
        let n = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut text).ok()?;
        Self::parse(pid, text.get(..n)?)
    }

    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        // The name, in brackets, may hold brackets and blanks: what counts is the last bracket.
        let end = stat.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        // Counted as proc(5) does, the state was field 3: flags are 9, threads 20, the start 22.
        let flags: u32 = fields.nth(3)?.parse().ok()?;
        let threads: u32 = fields.nth(10)?.parse().ok()?;
        let start = fields.nth(1)?.parse().ok()?;
        let alive = !matches!(state, "Z" | "X" | "x") || threads > 1;
        let stopped = matches!(state, "T" | "t");
        Some(Self { pid, parent, group, start, alive, exiting: flags & PF_EXITING != 0, stopped })
    }

    /// Whether this very process is still alive.
    pub(super) fn still_alive(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.start == self.start && now.alive)
    }

    /// Sends SIGKILL to this very process; nothing happens if it has gone and its id is another's now.
    pub(super) fn kill(&self) {
        // SAFETY: both calls take numbers only; a new descriptor is closed below.
        let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let Ok(handle) = libc::c_int::try_from(handle) else { return };
        // After the open: from here on the handle means the process that we look at now, or a dead one.
        let same = Self::read(self.pid).is_some_and(|now| now.start == self.start);
        // SAFETY: numbers and a null pointer, which the call allows; the handle is ours to close.
        unsafe {
            if handle >= 0 {
                if same {
                    libc::syscall(libc::SYS_pidfd_send_signal, handle, libc::SIGKILL, 0usize, 0);
                }
                libc::close(handle);
            } else if same {
                // A kernel before 5.3: the check above is all that can be done.
                libc::kill(self.pid, libc::SIGKILL);
            }
        }
    }
}

/// All processes that can be seen.
pub(super) fn scan() -> io::Result<Vec<Process>> {
    let mut table = Vec::with_capacity(256);
    for entry in std::fs::read_dir("/proc")? {
        // One that vanishes meanwhile is no error.
        let Ok(entry) = entry else { continue };
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        table.extend(pid.and_then(Process::read));
    }
    Ok(table)
}

/// The living descendants of `roots`, without the roots themselves; never `except` nor what is below it.
pub(super) fn descendants(table: &[Process], roots: &[i32], except: Option<i32>) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::with_capacity(table.len());
    for process in table {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut open: Vec<i32> = roots.to_vec();
    while let Some(pid) = open.pop() {
        // Removed, so that a table torn by reused ids cannot send us in a circle.
        for child in children.remove(&pid).unwrap_or_default() {
            if Some(child.pid) != except && !roots.contains(&child.pid) {
                open.push(child.pid);
                // A zombie's children, if it still has some, are alive all the same.
                found.extend(child.alive.then_some(*child));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse() {
        let line = b"7 (a) b (c)) S 3 5 5 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3";
        let process = Process::parse(7, line).unwrap();
        assert_eq!(
            process,
            Process { pid: 7, parent: 3, group: 5, start: 4242, alive: true, exiting: false, stopped: false }
        );
        let line = |threads| format!("7 (a) Z 3 5 5 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 1 2 3");
        for (threads, alive) in [(1, false), (2, true)] {
            let process = Process::parse(7, line(threads).as_bytes()).unwrap();
            assert!(process.alive == alive && process.exiting);
        }
        assert!(Process::parse(7, b"7 (a) S 3").is_none());
    }

    #[test]
    fn descendants_are_transitive_and_spare_the_exception() {
        let p = |pid, parent, alive| Process { pid, parent, group: 1, start: 0, alive, exiting: false, stopped: false };
        let table = [p(2, 1, true), p(3, 2, false), p(4, 3, true), p(5, 2, true), p(6, 5, true), p(7, 1, true)];
        let mut pids: Vec<_> = descendants(&table, &[2], Some(5)).iter().map(|p| p.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [4]);
        assert_eq!(descendants(&table, &[2], None).len(), 3);
    }

    #[test]
    fn we_are_in_the_table() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(scan().unwrap().iter().any(|p| p.pid == me && p.alive));
    }
}
