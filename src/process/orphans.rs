//! Orphans: the processes of an attempt whose supervisor is gone, found by the mark in their environment, and killed.
//!
//! Finds what this user may look at; as root, everybody's. A process that has wiped its own environment and has no marked
//! ancestor left is found by the attempt's control group, where there is one, and otherwise not.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::launch::{ATTEMPT_MARK, SUPERVISOR_MARK};
use super::table::{self, Process};

/// The id of a process.
pub type Pid = i32;

/// More environment than a process can be started with by default.
const LONGEST: u64 = 8 << 20;

/// Why orphans are not known to be dead.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// The table of processes cannot be read.
    #[error("cannot list the processes in {path}: {source}")]
    Table {
        /// Where it should be.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Some do not die.
    #[error("processes of attempt {attempt} do not die within {} ms of SIGKILL: {}", .limit.as_millis(), list(.pids))]
    Alive {
        /// The attempt.
        attempt: String,
        /// Who is left: look at `/proc/PID`.
        pids: Vec<Pid>,
        /// How long they had.
        limit: Duration,
    },
}

fn list(pids: &[Pid]) -> String {
    pids.iter().map(|pid| format!("/proc/{pid}")).collect::<Vec<_>>().join(" ")
}

/// The living processes of an attempt: those whose environment or control group says so and all that descend from them. Neither the caller, nor
/// what only descends from the caller, nor the attempt's supervisor is among them.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn marked(attempt: &str) -> Result<Vec<Pid>, OrphanError> {
    Ok(find(attempt, Cgroup::find(attempt).as_ref(), Supervisor::Spared)?.0.iter().map(|p| p.pid).collect())
}

/// The same, and what the attempt's supervisor has adopted: a process that wiped its environment and left its parent is still the
/// attempt's own.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn own(attempt: &str) -> Result<Vec<Pid>, OrphanError> {
    Ok(find(attempt, Cgroup::find(attempt).as_ref(), Supervisor::Followed)?.0.iter().map(|p| p.pid).collect())
}

/// What is done with an attempt's supervisor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Supervisor {
    /// Neither it nor what only descends from it is found.
    Spared,
    /// It is not found, and what descends from it is.
    Followed,
    /// It is found.
    Found,
}

/// Kills what [`marked`] finds, again and again until nothing is left; with `include_supervisors` the attempt's supervisor too.
/// Returns how many processes were killed. It blocks: at most `limit`, and hardly at all where there is nothing to kill.
///
/// A process that is just ending has lost its mark before it lets go of its devices. So this also waits for every process of
/// this user that was ending when it began: it may be one of them.
///
/// # Errors
/// `/proc` cannot be listed, or something is still alive after `limit`.
pub fn kill_marked(attempt: &str, limit: Duration, include_supervisors: bool) -> Result<u32, OrphanError> {
    let began = Instant::now();
    let group = Cgroup::find(attempt);
    let mut killed = HashSet::new();
    // Those that we wait for.
    let mut going: Vec<Process> = Vec::new();
    let mut first = true;
    let mut pause = Duration::from_micros(500);
    let supervisor = if include_supervisors { Supervisor::Found } else { Supervisor::Spared };
    loop {
        let (found, ending) = find(attempt, group.as_ref(), supervisor)?;
        // Later on an ending one counts only if there were marked ones, whose child it may be: on a busy machine there always
        // is some process that ends.
        if first || !found.is_empty() {
            going.extend(ending);
        }
        first = false;
        for process in &found {
            if killed.insert((process.pid, process.start)) {
                going.push(*process);
            }
            process.kill();
        }
        group.as_ref().inspect(|group| group.kill());
        going.retain(Process::still_alive);
        if found.is_empty() && going.is_empty() {
            group.as_ref().inspect(|group| group.remove());
            return Ok(u32::try_from(killed.len()).unwrap_or(u32::MAX));
        }
        if began.elapsed() >= limit {
            let pids = going.iter().map(|p| p.pid).collect();
            return Err(OrphanError::Alive { attempt: attempt.to_owned(), pids, limit });
        }
        // Nobody tells us of the death of what is not our child.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Whether a signal stopped the attempt's supervisor: it keeps no limit then, and would hold its locks for ever.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn supervisor_is_stopped(attempt: &str) -> Result<bool, OrphanError> {
    let table = table::scan().map_err(|source| OrphanError::Table { path: "/proc", source })?;
    let mark = format!("{SUPERVISOR_MARK}={attempt}").into_bytes();
    let supervises = |pid: Pid| environment(pid).split(|b| *b == 0).any(|variable| variable == mark);
    Ok(table.iter().any(|process| process.stopped && supervises(process.pid)))
}

/// The attempt's processes; and those that are ending and may have been.
fn find(
    attempt: &str,
    group: Option<&Cgroup>,
    supervisor: Supervisor,
) -> Result<(Vec<Process>, Vec<Process>), OrphanError> {
    let table = table::scan().map_err(|source| OrphanError::Table { path: "/proc", source })?;
    let me = Pid::try_from(std::process::id()).unwrap_or(0);
    let mark = format!("{ATTEMPT_MARK}={attempt}").into_bytes();
    let supervises = format!("{SUPERVISOR_MARK}={attempt}").into_bytes();
    let mut found = Vec::new();
    let mut ending = Vec::new();
    let mut spared = HashSet::new();
    let members: HashSet<Pid> = group.map(Cgroup::members).unwrap_or_default().into_iter().collect();
    for process in table.iter().filter(|p| p.alive && p.pid != me) {
        if members.contains(&process.pid) {
            found.push(*process);
            continue;
        }
        let environment = environment(process.pid);
        let has = |mark: &[u8]| environment.split(|b| *b == 0).any(|variable| variable == mark);
        if has(&supervises) && supervisor != Supervisor::Found {
            spared.insert(process.pid);
        } else if has(&mark) || has(&supervises) {
            found.push(*process);
        } else if process.exiting && environment.is_empty() && is_ours(process.pid) {
            ending.push(*process);
        }
    }
    let mut roots: Vec<Pid> = found.iter().map(|p| p.pid).collect();
    if supervisor == Supervisor::Followed {
        roots.extend(&spared);
    }
    let below = table::descendants(&table, &roots, Some(me));
    found.extend(below.into_iter().filter(|p| !spared.contains(&p.pid)));
    Ok((found, ending))
}

/// Whether we could have started it.
fn is_ours(pid: Pid) -> bool {
    let me = nix::unistd::geteuid();
    me.is_root() || std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == me.as_raw())
}

/// The environment a process was started with; empty if it may not be seen.
fn environment(pid: Pid) -> Vec<u8> {
    let read = |path: PathBuf| {
        let mut bytes = Vec::new();
        if let Ok(file) = File::open(path) {
            // What was read before an error counts: the process is just ending.
            let _ = file.take(LONGEST).read_to_end(&mut bytes);
        }
        bytes
    };
    let bytes = read(format!("/proc/{pid}/environ").into());
    if !bytes.is_empty() {
        return bytes;
    }
    // Its first thread may have ended before the others.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| read(thread.path().join("environ"))).find(|bytes| !bytes.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    fn sleeper(mark: &str) -> std::process::Child {
        let mut child = Command::new("sh")
            .args(["-c", "env -i sleep 600 & echo; wait"])
            .env(ATTEMPT_MARK, mark)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    #[test]
    fn the_mark_is_matched_exactly_and_descendants_count() {
        let name = format!("orphan-test-{}", std::process::id());
        let mut child = sleeper(&format!("{name}-17"));
        assert!(marked(&name).unwrap().is_empty());
        assert!(marked(&format!("{name}-1")).unwrap().is_empty());
        assert_eq!(kill_marked(&name, Duration::from_secs(9), true).unwrap(), 0);
        // The sleeper below has an empty environment.
        assert_eq!(marked(&format!("{name}-17")).unwrap().len(), 2);
        assert_eq!(kill_marked(&format!("{name}-17"), Duration::from_secs(9), false).unwrap(), 2);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(marked(&format!("{name}-17")).unwrap().is_empty());
    }

    #[test]
    fn what_a_supervisor_adopted_is_the_attempts_own_though_nothing_marks_it() {
        let name = format!("adopted-test-{}", std::process::id());
        let mut supervisor = Command::new("sh")
            .args(["-c", "env -i sleep 600 & echo; wait"])
            .env(SUPERVISOR_MARK, &name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        supervisor.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        assert!(marked(&name).unwrap().is_empty());
        assert_eq!(own(&name).unwrap().len(), 1, "the sleeper, and not the supervisor");
        kill_marked(&name, Duration::from_secs(9), true).unwrap();
        supervisor.wait().unwrap();
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_found() {
        let name = format!("headless-test-{}", std::process::id());
        let script = "
import ctypes, threading, time
def rest():
    print(flush=True)
    time.sleep(600)
threading.Thread(target=rest).start()
ctypes.CDLL(None).pthread_exit(None)
";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .env(ATTEMPT_MARK, &name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        assert_eq!(kill_marked(&name, Duration::from_secs(9), false).unwrap(), 1);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
