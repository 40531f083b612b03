//! How the actions of a plan stand by the records alone, and why those that are open are so.
//!
//! What it says of jobs is `jobs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::attempt::Ended;
use crate::event::Held;
use crate::names::RunId;
use crate::plan::{Missing, Plan};
use crate::run::decide::{Decision, decide, shut_gate};
use crate::run::journal::held;
use crate::run::recheck::{disagreements, is_pure};
use crate::step::End;
use crate::store::{Index, RunLock, Store};

/// How the wanted actions stand.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The end of each, by number; pending what is not wanted.
    pub ends: Vec<End>,
    /// Why actions are open of which more is known than that they were not run.
    pub open: BTreeMap<usize, Why>,
    /// Those whose attempt used more than today's limit.
    pub over_limit: BTreeSet<usize>,
    /// Those that should be a function of their key, and came out otherwise when they were executed again.
    pub otherwise: BTreeSet<usize>,
    /// Those whose keys cannot be told here, so that they stand as they were last recorded.
    pub recorded: BTreeSet<usize>,
}

/// Why an action is open.
#[derive(Clone, Debug)]
pub enum Why {
    /// An attempt of it is under way, in a run that lives.
    Running(RunId),
    /// Its attempts are used up.
    UsedUp {
        /// The last of them.
        last: Arc<Ended>,
        /// How many counted.
        counted: u32,
    },
    /// This attempt of it settled it, and by today's tables settles nothing.
    Reopened(Arc<Ended>),
    /// This attempt of it settled nothing, and it is tried again.
    Again(Arc<Ended>),
    /// A run came to it and did not begin it.
    Held(Held),
}

impl Standing {
    /// Why some stand as they were last recorded, if some do: what this machine lacks.
    #[must_use]
    pub fn lacks(&self, plan: &Plan) -> Option<String> {
        let missing = Missing::distinct(self.recorded.iter().flat_map(|node| &plan.nodes[*node].missing));
        let what: Vec<&str> = missing.iter().map(|missing| missing.what.as_str()).collect();
        (!what.is_empty()).then(|| format!("as it was last recorded, for here {}", what.join("; ")))
    }

    /// Notes what a run said of those that it did not begin and that are open still.
    #[must_use]
    pub fn after(mut self, plan: &Plan, root: &Path, run: &RunId) -> Self {
        // What it held it is not at work on, though its process may live yet.
        let stays = |why: Option<&Why>| match why {
            None | Some(Why::Again(_)) => true,
            Some(Why::Running(of)) => of == run,
            _ => false,
        };
        if !self.ends.iter().enumerate().any(|(node, end)| end.is_open() && stays(self.open.get(&node))) {
            return self;
        }
        let mut held = held(root, run);
        for node in 0..self.ends.len() {
            if !matches!(self.ends[node], End::Open(_)) || !stays(self.open.get(&node)) {
                continue;
            }
            let name = (plan.step(node).name.value.to_string(), plan.nodes[node].axes.clone());
            if let Some(held) = held.remove(&name) {
                self.open.insert(node, Why::Held(held));
            }
        }
        self
    }
}

/// Looks at every wanted action.
#[must_use]
pub fn standing(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Standing {
    look(plan, store, index, wanted, false)
}

/// The same for a reader: where the machine lacks what a key is made of, another one's results can be read all the same.
#[must_use]
pub fn standing_as_recorded(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Standing {
    look(plan, store, index, wanted, true)
}

/// The newest attempt that settled a step at a point, under whatever key.
fn last_recorded(plan: &Plan, node: usize, index: &Index) -> Option<Arc<Ended>> {
    let (step, axes) = (plan.step(node).name.value.as_str(), &plan.nodes[node].axes);
    let keys = index.nearest_candidates(plan.kind(node).word(), axes);
    let attempts = keys.iter().flat_map(|key| index.attempts(key).unwrap_or_default());
    attempts
        .filter(|ended| ended.step == step && ended.axes == *axes && ended.outcome.settles())
        .max_by_key(|ended| ended.at)
}

fn look(plan: &Plan, store: &Store, index: &Index, wanted: &[bool], as_recorded: bool) -> Standing {
    let mut all = Standing { ends: vec![End::Pending; plan.nodes.len()], ..Standing::default() };
    for node in (0..plan.nodes.len()).filter(|node| wanted[*node]) {
        let (end, why) = match decide(plan, node, &all.ends, store, index, false) {
            Decision::Served { ended, over_limit, .. } => {
                all.over_limit.extend(over_limit.then_some(node));
                if is_pure(plan.kind(node)) {
                    let attempts = index.attempts(&ended.key).unwrap_or_default();
                    let unlike = attempts.len() > 1 && !disagreements(attempts.iter().map(AsRef::as_ref)).is_empty();
                    all.otherwise.extend(unlike.then_some(node));
                }
                (End::Settled(ended), None)
            }
            Decision::Reused { ended, .. } => (End::Settled(ended), None),
            Decision::Over(end) => (end, None),
            Decision::Execute { record, .. } => match shut_gate(plan, node, &all.ends) {
                Some(by) => (End::Blocked { by }, None),
                None => {
                    let last = index.attempts(&record.key()).unwrap_or_default();
                    let last = last.into_iter().rev().find(|ended| !ended.outcome.settles());
                    let end = last
                        .as_ref()
                        .map_or_else(|| End::open("not settled"), |last| End::open_after("not settled", last));
                    (end, last.map(Why::Again))
                }
            },
            Decision::Exhausted { last, counted } => {
                (End::open_after("its attempts are used up", &last), Some(Why::UsedUp { last, counted }))
            }
            Decision::Reopened { last, .. } => (End::Reopened(last.clone()), Some(Why::Reopened(last))),
            Decision::Lacking if as_recorded => match last_recorded(plan, node, index) {
                Some(ended) => {
                    all.recorded.insert(node);
                    (End::Settled(ended), None)
                }
                None => (End::open("not settled"), None),
            },
            Decision::Wait { .. } | Decision::Lacking => (End::open("not settled"), None),
        };
        all.ends[node] = end;
        all.open.extend(why.map(|why| (node, why)));
    }
    under_way(plan, store, index, wanted, &mut all);
    all
}

/// Notes what runs now. A record that cannot be read is said by whoever reads the index.
fn under_way(plan: &Plan, store: &Store, index: &Index, wanted: &[bool], all: &mut Standing) {
    let started = index.unfinished().unwrap_or_default();
    let mut alive: BTreeMap<RunId, bool> = BTreeMap::new();
    for started in started {
        let run = &started.run;
        if !*alive.entry(run.clone()).or_insert_with(|| RunLock::is_alive(&store.root, run).unwrap_or(false)) {
            continue;
        }
        let is = |node: &usize| {
            wanted[*node]
                && matches!(all.ends[*node], End::Open(_) | End::Pending)
                && plan.kind(*node).word() == started.kind
                && plan.nodes[*node].axes == started.axes
                && plan.step(*node).name.value.as_str() == started.step
        };
        if let Some(node) = (0..plan.nodes.len()).find(is) {
            all.open.insert(node, Why::Running(started.run.clone()));
        }
    }
}
