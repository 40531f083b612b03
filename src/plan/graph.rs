//! The graph of a plan's actions: an order in which each comes after what it reads, and the critical path.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::plan::Node;

/// The actions as a graph; an edge leads from an action to one that depends on it.
#[derive(Debug)]
pub struct Graph {
    graph: DiGraph<(), ()>,
    order: Vec<NodeIndex>,
}

impl Graph {
    /// The graph of some actions by their links and gates. `None` if there is a cycle, which the reader refuses.
    #[must_use]
    pub fn of(nodes: &[Node]) -> Option<Self> {
        let edges: usize = nodes.iter().map(|node| node.links.len() + node.gates.len()).sum();
        let mut graph = DiGraph::with_capacity(nodes.len(), edges);
        for _ in nodes {
            graph.add_node(());
        }
        for (index, node) in nodes.iter().enumerate() {
            for up in node.links.iter().map(|link| link.node).chain(node.gates.iter().copied()) {
                graph.add_edge(NodeIndex::new(up), NodeIndex::new(index), ());
            }
        }
        let order = toposort(&graph, None).ok()?;
        Some(Self { graph, order })
    }

    /// For each action those that depend on it directly, each once.
    #[must_use]
    pub fn dependents(&self) -> Vec<Vec<usize>> {
        let list = |node| {
            let mut found: Vec<usize> =
                self.graph.neighbors_directed(node, Direction::Outgoing).map(NodeIndex::index).collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        self.graph.node_indices().map(list).collect()
    }

    /// For each action the length of the longest way from its start to the end of the plan.
    #[must_use]
    pub fn heights(&self, length: &dyn Fn(usize) -> f64) -> Vec<f64> {
        let mut heights = vec![0.0; self.order.len()];
        for node in self.order.iter().rev() {
            let below = self
                .graph
                .neighbors_directed(*node, Direction::Outgoing)
                .map(|next| heights[next.index()])
                .fold(0.0, f64::max);
            heights[node.index()] = below + length(node.index());
        }
        heights
    }
}

/// All actions that some actions depend on, directly or not, and these themselves; ascending.
#[must_use]
pub fn upstream_of(nodes: &[Node], from: &[usize]) -> Vec<usize> {
    let mut found = BTreeSet::new();
    let mut next = from.to_vec();
    while let Some(index) = next.pop() {
        if found.insert(index) {
            next.extend(nodes[index].links.iter().map(|link| link.node));
            next.extend(nodes[index].gates.iter().copied());
        }
    }
    found.into_iter().collect()
}
