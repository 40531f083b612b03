//! A control group around one child, where this user may make one: its `cgroup.kill` ends even a tree that forks faster than
//! anybody can read `/proc`, and its list finds what has wiped its environment and outlived its supervisor.
//!
//! Version 2 only, beside whatever the system uses; no limit is ever set. Where it cannot be had, nothing is lost but the above.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where version 2 is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A group made for one attempt.
pub(super) struct Cgroup {
    folder: PathBuf,
}

fn name_for(attempt: &str) -> Option<String> {
    let plain = !attempt.is_empty() && attempt.len() < 200 && !attempt.contains(['/', '\0', '\n']);
    plain.then(|| format!("flow-{attempt}"))
}

/// The mounted hierarchy of version 2.
fn mount() -> Option<&'static Path> {
    MOUNTS.map(Path::new).into_iter().find(|mount| mount.join("cgroup.controllers").exists())
}

/// Whether attempts can be held in groups here: one is made and removed.
///
/// # Errors
/// Why not, in words.
pub fn groups() -> Result<(), &'static str> {
    if mount().is_none() {
        return Err("no control groups of version 2 are mounted");
    }
    let group = Cgroup::create(&format!("doctor-{}", std::process::id()));
    let group = group.ok_or("this user may make no control group here, or the kernel is older than 5.14")?;
    group.remove();
    Ok(())
}

impl Cgroup {
    /// A new group below our own. `None` if that is not allowed here.
    pub(super) fn create(attempt: &str) -> Option<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let folder = mount()?.join(own).join(name_for(attempt)?);
        std::fs::create_dir(&folder).ok()?;
        let group = Self { folder };
        // Before Linux 5.14 there is no such file, and so no use for a group.
        if group.folder.join("cgroup.kill").exists() {
            return Some(group);
        }
        group.remove();
        None
    }

    /// The group that a supervisor of this attempt left behind, wherever it was.
    pub(super) fn find(attempt: &str) -> Option<Self> {
        let name = name_for(attempt)?;
        let mut open = vec![mount()?.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if entry.file_name().to_str() == Some(&name) {
                        return Some(Self { folder: entry.path() });
                    }
                    open.push(entry.path());
                }
            }
        }
        None
    }

    /// The file by which a process enters: it writes `0`.
    pub(super) fn door(&self) -> Option<File> {
        OpenOptions::new().write(true).open(self.folder.join("cgroup.procs")).ok()
    }

    /// Who is in it.
    pub(super) fn members(&self) -> Vec<i32> {
        let list = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Kills all in it at once, those being forked included.
    pub(super) fn kill(&self) {
        let _ = std::fs::write(self.folder.join("cgroup.kill"), "1");
    }

    /// Removes it when it is empty. What cannot be removed stays, and hurts nobody.
    pub(super) fn remove(&self) {
        let began = Instant::now();
        // Busy for a moment after the last one's death.
        while std::fs::remove_dir(&self.folder).is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY))
            && began.elapsed() < Duration::from_millis(100)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
