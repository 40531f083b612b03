//! Processes of a test's runs, found as flow finds them: by the marks in their environment.

use std::collections::HashSet;
use std::path::Path;

/// A living process of some attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub pid: i32,
    pub attempt: String,
    pub supervisor: bool,
}

/// Whether a process lives; one that nobody has reaped yet does not.
pub fn alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Sends a signal; nobody there is fine.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: takes no pointers.
    unsafe { libc::kill(pid, signal) };
}

/// The living processes of all runs of a store.
pub fn marked(cache: &Path) -> Vec<Marked> {
    let runs: HashSet<String> = std::fs::read_dir(cache.join("runs"))
        .map(|runs| runs.flatten().map(|run| run.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else { continue };
        for variable in environ.split(|byte| *byte == 0) {
            let variable = String::from_utf8_lossy(variable);
            let Some((name, attempt)) = variable.split_once('=') else { continue };
            let ours = attempt.rsplit_once('-').is_some_and(|(run, _)| runs.contains(run));
            if ours && ["FLOW_ATTEMPT", "FLOW_SUPERVISES"].contains(&name) && alive(pid) {
                found.push(Marked { pid, attempt: attempt.to_owned(), supervisor: name == "FLOW_SUPERVISES" });
            }
        }
    }
    found
}

/// The supervisors of all runs of a store.
pub fn supervisors(cache: &Path) -> Vec<i32> {
    marked(cache).into_iter().filter(|process| process.supervisor).map(|process| process.pid).collect()
}
