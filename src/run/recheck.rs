//! Whether an action comes out the same when it is executed again under one key: which served ones are drawn to be tried, and
//! what two attempts disagree in.
//!
//! An agent draws, and a test measures: of them another outcome is no surprise. Every other kind is a function of its key. The
//! earlier attempt speaks on, whatever a later one says.

use std::collections::HashSet;

use crate::attempt::Ended;
use crate::digest::Digest;
use crate::key::ActionKey;
use crate::manifest::Kind;
use crate::plan::Plan;
use crate::run::decide::{Decision, decide};
use crate::step::End;
use crate::store::{Index, Store};
use crate::units::Percent;

/// Whether the outputs of a kind are a function of its key.
#[must_use]
pub fn is_pure(kind: Kind) -> bool {
    match kind {
        Kind::Checkout | Kind::Patch | Kind::Classify | Kind::Command => true,
        // What an index has is another thing tomorrow: a build that comes out otherwise is a change, and is told as one.
        Kind::Agent | Kind::Test | Kind::Environment => false,
    }
}

/// The outputs that two attempts of one key disagree in, `outcome` first where they ended otherwise. Empty if they agree, or if
/// one of them settles nothing.
#[must_use]
pub fn disagreement(earlier: &Ended, later: &Ended) -> Vec<String> {
    if !earlier.outcome.settles() || !later.outcome.settles() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if earlier.outcome.word() != later.outcome.word() {
        found.push("outcome".to_owned());
    }
    let names = earlier.outputs.keys().chain(later.outputs.keys().filter(|name| !earlier.outputs.contains_key(*name)));
    found.extend(names.filter(|name| earlier.outputs.get(*name) != later.outputs.get(*name)).cloned());
    found
}

/// The attempts of one key in their order: what the later ones that settle disagree in with the first that does.
#[must_use]
pub fn disagreements<'a>(attempts: impl IntoIterator<Item = &'a Ended>) -> Vec<(&'a Ended, Vec<String>)> {
    let mut settled = attempts.into_iter().filter(|ended| ended.outcome.settles());
    let Some(first) = settled.next() else { return Vec::new() };
    let found = settled.map(|later| (later, disagreement(first, later)));
    found.filter(|(_, outputs)| !outputs.is_empty()).collect()
}

/// The sample of served pure actions that is executed again: a share of them, at least one, drawn by `seed`. One action a key.
#[must_use]
pub fn sample(plan: &Plan, store: &Store, index: &Index, wanted: &[bool], share: Percent, seed: &str) -> Vec<bool> {
    let mut ends = vec![End::Pending; plan.nodes.len()];
    let mut seen: HashSet<ActionKey> = HashSet::new();
    let mut hits: Vec<(Digest, usize)> = Vec::new();
    for node in (0..plan.nodes.len()).filter(|node| wanted[*node]) {
        match decide(plan, node, &ends, store, index, false) {
            Decision::Served { ended, lost, .. } => {
                if is_pure(plan.kind(node)) && !lost && seen.insert(ended.key) {
                    hits.push((Digest::of(format!("{seed} {}", ended.key).as_bytes()), node));
                }
                ends[node] = End::Settled(ended);
            }
            Decision::Reused { ended, .. } => ends[node] = End::Settled(ended),
            Decision::Over(end) => ends[node] = end,
            _ => {}
        }
    }
    hits.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count, rounded up")]
    let count = if share.0 > 0.0 { (hits.len() as f64 * share.0.min(1.0)).ceil() as usize } else { 0 };
    let mut drawn = vec![false; plan.nodes.len()];
    for (_, node) in hits.into_iter().take(count) {
        drawn[node] = true;
    }
    drawn
}
