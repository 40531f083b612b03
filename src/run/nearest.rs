//! Why an action is not served: the stored record that is nearest to its own, and what differs.
//!
//! Explains and decides nothing.

use std::collections::HashSet;

use crate::event::Reason;
use crate::key::{ActionKey, Change, KeyRecord, Value};
use crate::manifest::Kind;
use crate::plan::Plan;
use crate::run::journal::served;
use crate::step::inputs_of;
use crate::store::{Index, Store, begun};

/// The largest key record that is read.
const RECORD: u64 = 16 * 1024 * 1024;
/// How many of the newest runs say what was used last.
const RUNS: usize = 2;

/// Old records that a miss is compared with at most.
const COMPARED: usize = 256;

/// Why a record has no attempt: the nearest stored record of the same kind and point, and what differs from it. Where there is
/// none, the records of points that are no longer in the plan are looked at: a candidate may have been renamed. Ingredients that
/// are `waiting` are not compared.
#[must_use]
pub fn reason_for(
    plan: &Plan,
    node: usize,
    record: &KeyRecord,
    waiting: &[(String, usize)],
    store: &Store,
    index: &Index,
) -> Reason {
    let axes = &plan.nodes[node].axes;
    let nearest = |keys: Vec<ActionKey>, waiting: &[(String, usize)]| {
        let mut best: Vec<(ActionKey, Vec<Change>)> = Vec::new();
        for key in keys.into_iter().take(COMPARED) {
            let Ok(Some(bytes)) = store.cas.get(&key.0, RECORD) else { continue };
            let Ok(old) = KeyRecord::decode(&bytes) else { continue };
            let mut changes = record.changes_since(&old);
            changes.retain(|change| !waiting.iter().any(|(role, _)| *role == change.ingredient));
            let least = best.first().map_or(usize::MAX, |(_, least)| least.len());
            if changes.len() < least {
                best.clear();
            }
            if changes.len() <= least {
                best.push((key, changes));
            }
        }
        last_used(best, store, index)
    };
    let anywhere = |_| false;
    let elsewhere = |near| plan.has_point(near);
    let best = nearest(own_candidates(plan, node, index), waiting).or_else(|| {
        // Of an action that only ever shared the key of another there is no record at its own point, but at others of the
        // commit. A point of which nothing at all is recorded is new, or that of a candidate which had another name.
        let known = Kind::ALL.iter().any(|kind| !index.nearest_candidates(kind.word(), axes).is_empty());
        if !known {
            // A new draw is no old one, and what differs in more than one thing is no old candidate under a new name.
            return nearest(index.strays(&record.kind, axes, &elsewhere), waiting).filter(|(_, changes)| {
                changes.len() < 2 && changes.iter().all(|change| change.ingredient != "sample")
            });
        }
        // What others read tells nothing of what this one read, as long as that is open anyway.
        let inputs = if waiting.is_empty() { Vec::new() } else { inputs_of(plan, node) };
        let mut strays = index.strays(&record.kind, axes, &anywhere);
        strays.truncate(COMPARED);
        strays.retain(|key| may_be_own(plan, node, key, store, index));
        nearest(strays, &inputs).or_else(|| {
            // Its key was shared with an action of another commit.
            (!waiting.is_empty()).then(|| (record.key(), Vec::new()))
        })
    });
    match best {
        None => Reason { state: "new".into(), nearest: None, changes: Vec::new(), from: inputs_of(plan, node) },
        Some((key, changes)) => {
            let mut from = inputs_of(plan, node);
            from.retain(|(role, _)| changes.iter().any(|change| change.ingredient == *role));
            Reason { state: "changed".into(), nearest: Some(key), changes, from }
        }
    }
}

/// The keys of old records at an action's own point, the newest first. Where the plan has several steps of the kind at that
/// point, only those that no other of these steps left: a record has no step's name in it, but its attempts have.
#[must_use]
pub fn own_candidates(plan: &Plan, node: usize, index: &Index) -> Vec<ActionKey> {
    let (kind, step) = (plan.kind(node), plan.nodes[node].step);
    let mut keys = index.nearest_candidates(kind.word(), &plan.nodes[node].axes);
    let steps = plan.manifest.pipeline.steps.iter().enumerate();
    let others: HashSet<&str> = steps
        .filter(|(other, known)| *other != step && known.kind() == kind)
        .map(|(_, known)| known.name.value.as_str())
        .collect();
    if !others.is_empty() {
        keys.truncate(COMPARED);
        let own = |key: &ActionKey| match index.attempts(key) {
            Ok(attempts) if !attempts.is_empty() => attempts.iter().any(|ended| !others.contains(ended.step.as_str())),
            _ => true,
        };
        keys.retain(own);
    }
    keys
}

/// Of equally near records, the newest first, the one that the newest runs used: what was served again is what people had
/// before their change, however old it is. Else the newest.
fn last_used(
    mut best: Vec<(ActionKey, Vec<Change>)>,
    store: &Store,
    index: &Index,
) -> Option<(ActionKey, Vec<Change>)> {
    if best.len() > 1 {
        let newest = || begun(&store.root).into_iter().rev().take(RUNS).map(|run| served(&store.root, &run)).collect();
        let used = index.used(newest);
        let at = used.iter().find_map(|used| best.iter().position(|(key, _)| used.binary_search(key).is_ok()));
        best.swap(0, at.unwrap_or(0));
    }
    best.into_iter().next()
}

/// Whether the record of another point may have been this action's own, shared with that one: what it read must have come from
/// this action's own upstream. An action that never came to run, because its run was killed, has no old record.
fn may_be_own(plan: &Plan, node: usize, key: &ActionKey, store: &Store, index: &Index) -> bool {
    let Ok(Some(bytes)) = store.cas.get(&key.0, RECORD) else { return false };
    let Ok(old) = KeyRecord::decode(&bytes) else { return false };
    inputs_of(plan, node).into_iter().all(|(role, up)| match outputs_ever(plan, up, store, index) {
        Outputs::Unknown => true,
        Outputs::Known(values) if values.is_empty() => false,
        // The classifier reads ends, which are no outputs.
        Outputs::Known(_) if role.starts_with("end of") => true,
        // Without such an input it is the record of another step: that of a gate, which has no patch. What a classifier reads
        // may be absent.
        Outputs::Known(values) => {
            old.get(&role).map_or(plan.kind(node) == Kind::Classify, |value| values.contains(value))
        }
    })
}

/// All that an action ever left.
enum Outputs {
    /// These, by its own attempts or by those that it may have shared.
    Known(HashSet<Value>),
    /// Nothing at its commit tells.
    Unknown,
}

fn outputs_ever(plan: &Plan, node: usize, store: &Store, index: &Index) -> Outputs {
    let kind = plan.kind(node).word();
    let axes = &plan.nodes[node].axes;
    let mut keys = index.nearest_candidates(kind, axes);
    if keys.is_empty() {
        keys = index.strays(kind, axes, &|_| false);
        keys.truncate(COMPARED);
        if keys.is_empty() {
            return Outputs::Unknown;
        }
        // Upstream has fewer steps each time: this ends.
        keys.retain(|key| may_be_own(plan, node, key, store, index));
    }
    let attempts = keys.iter().take(COMPARED).filter_map(|key| index.attempts(key).ok()).flatten();
    Outputs::Known(attempts.flat_map(|ended| ended.outputs.values().cloned().collect::<Vec<_>>()).collect())
}
