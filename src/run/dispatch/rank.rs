//! The order in which ready actions go.

use std::collections::HashMap;

use crate::plan::Plan;

/// The order in which ready actions go: commits in the plan's order, within one the longest way to its end first.
#[derive(Debug, PartialEq)]
pub(super) struct Rank {
    /// The place of its commit in the plan.
    pub(super) commit: usize,
    /// The longest way from it to the end.
    pub(super) height: f64,
    /// The action.
    pub(super) node: usize,
}

impl Eq for Rank {}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The greatest comes out first.
        other.commit.cmp(&self.commit).then(self.height.total_cmp(&other.height)).then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The place of each action's commit in the plan's order.
pub(super) fn commit_ranks(plan: &Plan) -> Vec<usize> {
    let mut first: HashMap<Option<(usize, usize)>, usize> = HashMap::new();
    plan.nodes.iter().enumerate().map(|(index, node)| *first.entry(node.point.commit).or_insert(index)).collect()
}
