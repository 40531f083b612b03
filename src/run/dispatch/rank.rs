//! The order in which ready actions go.

use std::collections::HashMap;

use super::Dispatcher;
use super::traffic::candidate_of;
use crate::plan::{Ask, Plan};

/// The order in which ready actions go: builds first, that which most jobs wait for before the others; then commits in the plan's
/// order, within one the longest way to its end first.
#[derive(Debug, PartialEq)]
pub(super) struct Rank {
    /// How many jobs wait for it, of a build; 0 for all else.
    pub(super) gates: usize,
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
        let gates = self.gates.cmp(&other.gates);
        gates
            .then(other.commit.cmp(&self.commit))
            .then(self.height.total_cmp(&other.height))
            .then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Dispatcher {
    pub(super) fn make_ready(&mut self, node: usize) {
        let rank = self.rank(node);
        self.ready[usize::from(!self.bounded(node))].push(rank);
    }

    /// Gives a build its new place among what is ready, now that more wait for it.
    pub(super) fn rank_again(&mut self, owner: usize) {
        if self.gated_jobs[owner] > 0 {
            let heap = usize::from(!self.bounded(owner));
            if self.ready[heap].iter().any(|rank| rank.node == owner) {
                self.ready[heap].retain(|rank| rank.node != owner);
                self.make_ready(owner);
            }
        }
    }

    /// Whether what an action holds, or its lane's width, bounds how many of its like run, so that `--jobs` does not.
    pub(super) fn bounded(&self, node: usize) -> bool {
        let lane = |candidate: usize| &self.traffic.lanes[self.traffic.candidates[candidate].lane].lane;
        !self.plan().nodes[node].holds.is_empty()
            || candidate_of(self.plan(), node).is_some_and(|candidate| lane(candidate).has_width())
    }

    pub(super) fn rank(&self, node: usize) -> Rank {
        // Who shares a build's key waits for it too.
        let sharing = self.sharing.get(&node).into_iter().flatten().chain([&node]);
        let gates = sharing.map(|node| self.gated_jobs[*node]).sum();
        Rank { gates, commit: self.commit_ranks[node], height: self.plan().nodes[node].height, node }
    }
}

/// The place of each action's commit in the plan's order.
pub(super) fn commit_ranks(plan: &Plan) -> Vec<usize> {
    let mut first: HashMap<Option<(usize, usize)>, usize> = HashMap::new();
    plan.nodes.iter().enumerate().map(|(index, node)| *first.entry(node.point.commit).or_insert(index)).collect()
}

/// How many jobs each build is for; 0 for what builds nothing.
pub(super) fn gated_jobs(plan: &Plan) -> Vec<usize> {
    let mut jobs = vec![0; plan.nodes.len()];
    let builds = |node: &usize| matches!(&plan.nodes[*node].ask, Ask::Environment(ask) if ask.recipe.is_some());
    for node in plan.jobs.iter().flat_map(|job| &job.nodes).copied().filter(builds) {
        jobs[node] += 1;
    }
    jobs
}
