//! Runs whose draws a manifest wants to stand: whether the store has them.

use std::path::Path;

use crate::manifest::{Manifest, Reuse};
use crate::plan::Missing;
use crate::report::status::runs;

/// The runs that `reuse run=` names and the store does not have: no draw of theirs could stand, and each would be paid for anew. Of a
/// store without any run, as of a fresh clone, nothing is said.
#[must_use]
pub(super) fn lacking_runs(manifest: &Manifest, root: &Path) -> Vec<Missing> {
    let wanted = |candidate: &crate::manifest::Candidate| match &candidate.reuse {
        Reuse::Run(run) => Some((run.clone(), candidate.reuse_place)),
        _ => None,
    };
    let mut wanted = manifest.pipeline.candidates.iter().filter_map(wanted).peekable();
    if wanted.peek().is_none() {
        return Vec::new();
    }
    let known = runs(root);
    if known.is_empty() {
        return Vec::new();
    }
    // The records of a run stay where its folder was deleted.
    let there = |run: &str| {
        let name = format!("{run}.jsonl");
        known.iter().any(|known| known.as_str() == run)
            || !run.contains('/') && root.join("records").join("v1").join(name).exists()
    };
    let near = |run: &str| {
        let begun: Vec<&str> =
            known.iter().map(|known| known.as_str()).filter(|known| known.starts_with(run)).collect();
        match begun.as_slice() {
            [one] => format!("write the whole id: {one}"),
            _ => {
                let newest: Vec<&str> = known.iter().take(3).map(|known| known.as_str()).collect();
                format!("its newest runs are {}; without `reuse` no draw of an older version stands", newest.join(", "))
            }
        }
    };
    let lacking = wanted.filter(|(run, _)| !there(run)).map(|(run, place)| Missing {
        what: format!("the store has no run {run}, whose draws `reuse run=` wants"),
        hint: near(&run),
        place,
        fatal: true,
    });
    lacking.collect()
}
