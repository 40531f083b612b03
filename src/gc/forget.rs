//! Forgetting a run: its records and files go, and with them what nobody else names.

use serde::Serialize;

use crate::attempt::Line;
use crate::hostile;
use crate::names::RunId;
use crate::store::records::path_of;
use crate::store::{Index, RunLock, Store, StoreError, read_records};

/// What is lost with a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Attempts on record.
    pub attempts: usize,
    /// Of these, of agents: draws that were paid for.
    pub draws: usize,
    /// Tokens that these read and wrote, as far as they told.
    pub tokens: u64,
    /// How many of them did not tell.
    pub unknown: usize,
    /// Actions that no other run settled: they run again.
    pub alone: usize,
    /// Of these, of agents: to be paid for again.
    pub paid_again: usize,
}

/// What would be lost with a run; nothing where the store has no such run.
///
/// # Errors
/// If the records cannot be read.
pub fn loss(store: &Store, run: &RunId) -> Result<Option<Loss>, StoreError> {
    // A name that leads elsewhere is none of a run.
    let plain = !run.as_str().is_empty() && !run.as_str().contains(['/', '\0']) && !run.as_str().starts_with('.');
    let path = path_of(&store.root, run);
    if !plain || !(path.is_file() || store.root.join("runs").join(run.as_str()).is_dir()) {
        return Ok(None);
    }
    let index = Index::load(&store.root)?;
    let mut loss = Loss::default();
    let mut keys = std::collections::HashSet::new();
    for line in read_records(&path)?.lines {
        let Line::Ended(ended) = line else { continue };
        let agent = ended.kind == "agent";
        loss.attempts += 1;
        if agent {
            loss.draws += 1;
            let told = ended.usage.as_ref().and_then(|usage| Some(usage.input? + usage.output?));
            loss.tokens += told.unwrap_or(0);
            loss.unknown += usize::from(told.is_none());
        }
        let others = || {
            let attempts = index.attempts(&ended.key).unwrap_or_default();
            attempts.iter().any(|other| other.run != *run && other.outcome.settles())
        };
        if ended.outcome.settles() && keys.insert(ended.key) && !others() {
            loss.alone += 1;
            loss.paid_again += usize::from(agent);
        }
    }
    Ok(Some(loss))
}

/// Removes the records and files of a run. The caller has the store alone.
pub(super) fn forget(store: &Store, run: &RunId) -> Result<(), StoreError> {
    if RunLock::is_alive(&store.root, run)? {
        return Ok(());
    }
    let path = path_of(&store.root, run);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &path)(error));
        }
        _ => {}
    }
    let dir = store.root.join("runs").join(run.as_str());
    hostile::remove_all(&dir).map_err(StoreError::io("remove", &dir))
}
