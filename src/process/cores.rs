//! The cores that flow's own threads use.
//!
//! Which cores a supervised child gets is said in its spec; what it is started from here is what it goes back to.

use std::collections::HashSet;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Looks at the list of threads: one that was being started at the first may have the cores of before.
const LOOKS: usize = 8;

/// The cores that the calling thread may use; none if the system does not say.
#[must_use]
pub fn own_cores() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    let is_set = |core: &u32| set.is_set(*core as usize).unwrap_or(false);
    (0..u32::try_from(CpuSet::count()).unwrap_or(0)).filter(is_set).collect()
}

/// Which of some cores the kernel holds a process to that asks for them: none if it refuses. Asked by a thread that then ends.
#[must_use]
pub fn held_to(cores: &[u32]) -> Vec<u32> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| {
        let _ = set.set(*core as usize);
    });
    let ask = move || match sched_setaffinity(Pid::from_raw(0), &set) {
        Ok(()) => own_cores(),
        Err(_) => Vec::new(),
    };
    std::thread::spawn(ask).join().unwrap_or_default()
}

/// Keeps every thread of this process to some cores, and with them all that they start. None named changes nothing; nor does
/// what the system refuses: then measuring is a little less quiet, and no more.
pub fn keep_to(cores: &[u32]) {
    let mut set = CpuSet::new();
    if cores.iter().filter(|core| set.set(**core as usize).is_ok()).count() == 0 {
        return;
    }
    let mut done = HashSet::new();
    for _ in 0..LOOKS {
        let before = done.len();
        for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let id = thread.file_name().to_str().and_then(|id| id.parse().ok());
            if let Some(id) = id.filter(|id| done.insert(*id)) {
                let _ = sched_setaffinity(Pid::from_raw(id), &set);
            }
        }
        if done.len() == before {
            return;
        }
    }
}
