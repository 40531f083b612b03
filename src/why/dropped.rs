//! Which version of a manifest dropped a commit from its lists. What of it was run is in the store still.

use std::path::Path;

use crate::git::{GitError, PastCommit};
use crate::why::past::{Newest, Past, Snapshot, same_commit};

/// Commits that are looked through at most.
const COMMITS: usize = 2_000;

/// The newest commit at or before `from` that dropped a commit of this id, of which the first digits are enough. `None` if none did
/// among so many, or it cannot be told: a merge drops nothing by itself.
///
/// # Errors
/// If the repository cannot be read.
pub fn dropped_by(
    past: &mut Past,
    manifest: &Path,
    from: &PastCommit,
    id: &str,
) -> Result<Option<PastCommit>, GitError> {
    let first = past.at(manifest, from);
    let mut line = Newest::new(from.clone(), first);
    for _ in 0..COMMITS {
        let Some((commit, snapshot)) = line.next() else { break };
        if past.is_spent() {
            break;
        }
        for parent in &commit.parents {
            let parent = past.project().commit(parent)?;
            let older = past.before((&commit, &snapshot), &parent)?;
            if let ([_], Some(false), Some(true)) = (commit.parents.as_slice(), has(&snapshot, id), has(&older, id)) {
                return Ok(Some(commit));
            }
            line.push(&commit, parent, older);
        }
    }
    Ok(None)
}

/// Whether a version has a commit; `None` of one that cannot be planned.
fn has(snapshot: &Snapshot, id: &str) -> Option<bool> {
    let pipeline = &snapshot.plan.as_ref().ok()?.manifest.pipeline;
    Some(pipeline.repos.iter().flat_map(|repo| &repo.commits).any(|commit| same_commit(&commit.id.value, id)))
}
