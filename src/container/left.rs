//! Containers that a dead flow left behind. Its supervisor removes them with the tree; where that died too, they are found by
//! their label.
//!
//! Blocks, and not for long.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Kind, LABEL, client};
use crate::hostile;
use crate::process::{OrphanError, ask_shortly, kill_marked};

/// The file in an attempt's place that says which engine was told to run something for it.
const FILE: &str = "engine";
/// How long an engine may take for one answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Notes that an engine is about to run something for an attempt.
///
/// # Errors
/// If the disk refuses.
pub fn note(place: &Path, kind: Kind) -> io::Result<()> {
    std::fs::write(place.join(FILE), kind.word())
}

/// Ends all that is left of an attempt whose supervisor is gone, given its place: its processes and its containers. How many there
/// were.
///
/// # Errors
/// As `kill_marked`.
pub fn end_all(
    place: &Path,
    attempt: &str,
    variables: &BTreeMap<String, String>,
    limit: Duration,
) -> Result<u32, OrphanError> {
    let killed = kill_marked(attempt, limit, true)?;
    Ok(killed + remove_left(place, attempt, variables))
}

/// Removes the containers of an attempt, if an engine ran some for it; their number.
fn remove_left(place: &Path, attempt: &str, variables: &BTreeMap<String, String>) -> u32 {
    let said = hostile::read_below(place, Path::new(FILE), 64).ok().flatten();
    let kind = said.and_then(|word| Kind::of(&String::from_utf8_lossy(&word)));
    let Some(kind) = kind.filter(|kind| *kind != Kind::Apptainer) else { return 0 };
    let Some(program) = kind.program(variables) else { return 0 };
    let env: Vec<(String, String)> = client(variables).into_iter().collect();
    let ask = |arguments: &[&str]| {
        let program = std::iter::once(program.display().to_string());
        let argv: Vec<String> = program.chain(arguments.iter().map(ToString::to_string)).collect();
        ask_shortly(&argv, &env, LIMIT)
    };
    let Some((true, listed)) = ask(&["ps", "--all", "--quiet", "--filter", &format!("label={LABEL}={attempt}")]) else {
        return 0;
    };
    let is_id = |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let removed = listed.split_whitespace().filter(is_id).filter(|id| {
        let _ = ask(&["kill", id]);
        matches!(ask(&["rm", "-f", id]), Some((true, _)))
    });
    u32::try_from(removed.count()).unwrap_or(u32::MAX)
}
