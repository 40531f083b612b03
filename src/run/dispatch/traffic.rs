//! What keeps agents from beginning though they are ready: the lanes of their providers, their candidates' breakers, and the
//! time since they last failed. Holds who waits for what; what that means for the run is in `lanes`, `again` and `pause`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::Rank;
use crate::key::ActionKey;
use crate::manifest::{Kind, Provider};
use crate::names::ProviderName;
use crate::outcome::Cause;
use crate::plan::Plan;
use crate::run::breaker::Breaker;
use crate::run::lane::{Lane, Question};
use crate::run::past::Past;
use crate::step::Stop;

/// A lane and who waits for it.
pub(super) struct OneLane {
    /// The provider's name, or the candidate's.
    pub(super) name: String,
    /// The provider, if it has one.
    pub(super) provider: Option<Provider>,
    /// Whether an agent may be begun.
    pub(super) lane: Lane,
    /// Who waits for room, or for it to open.
    pub(super) queue: BinaryHeap<Rank>,
    /// Who could not be done before the credential expires, at the time told.
    pub(super) parked: Vec<usize>,
    /// The expiry for which they are parked.
    pub(super) parked_for: Option<Timestamp>,
    /// How many were left to a later run.
    pub(super) left: usize,
}

impl OneLane {
    fn new(name: String, provider: Option<Provider>) -> Self {
        let of = provider.as_ref();
        let expires = of.is_some_and(|provider| provider.expires.is_some());
        let asks = expires || of.is_some_and(|provider| provider.probe.is_some());
        let limits = of.map(|provider| provider.per_minute).unwrap_or_default();
        let lane = Lane::new(of.and_then(|provider| provider.lane), limits, asks, expires);
        Self { name, provider, lane, queue: BinaryHeap::new(), parked: Vec::new(), parked_for: None, left: 0 }
    }

    /// Whether anybody waits for it.
    pub(super) fn wanted(&self) -> bool {
        !self.queue.is_empty() || !self.parked.is_empty()
    }
}

/// A candidate, as far as its agents' beginning goes.
pub(super) struct OneCandidate {
    /// The index of its lane.
    pub(super) lane: usize,
    /// Its breaker.
    pub(super) breaker: Breaker,
    /// Who waits for its first jobs.
    pub(super) waiting: Vec<usize>,
    /// What is known of its agents, once that was asked for.
    pub(super) past: Option<Past>,
    /// Whether its pause, or that it goes on all the same, has been told.
    pub(super) told: bool,
    /// Whether it has been told that one of its agents tries for all.
    pub(super) doubted: bool,
    /// How many of its agents were not begun because it is paused.
    pub(super) left: usize,
}

/// An answer of a provider.
pub(super) struct Answer {
    /// The index of its lane.
    pub(super) lane: usize,
    /// What was asked.
    pub(super) question: Question,
    /// What it said.
    pub(super) answer: Result<Option<Timestamp>, String>,
}

/// All of it.
pub(super) struct Traffic {
    /// The lanes: of the providers, then of the candidates whose model has none.
    pub(super) lanes: Vec<OneLane>,
    /// By the index of the candidate.
    pub(super) candidates: Vec<OneCandidate>,
    /// Who is tried again, and when.
    pub(super) delayed: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Why an action was last not settled.
    pub(super) last: HashMap<usize, (Cause, String)>,
    /// By which each agent that is under way can be stopped.
    stops: HashMap<usize, watch::Sender<Stop>>,
    /// Those that were told to stop because their lane closed.
    pub(super) cut: HashSet<usize>,
    /// Keys of agents that had finished when their run died: to read what they left costs nothing.
    pub(super) adoptable: HashSet<ActionKey>,
    /// Where answers come from.
    pub(super) say: mpsc::UnboundedSender<Answer>,
    /// Where they arrive.
    pub(super) heard: mpsc::UnboundedReceiver<Answer>,
    /// Since when nothing goes on but waiting.
    pub(super) idle: Option<Instant>,
}

impl Traffic {
    /// The lanes and breakers of a plan. `go_on` lets breakers trip without a pause.
    pub(super) fn new(plan: &Plan, go_on: bool, adoptable: HashSet<ActionKey>) -> Self {
        let pipeline = &plan.manifest.pipeline;
        let mut lanes = Vec::new();
        let mut of: BTreeMap<&ProviderName, usize> = BTreeMap::new();
        for (name, provider) in &pipeline.providers {
            of.insert(name, lanes.len());
            lanes.push(OneLane::new(name.to_string(), Some(provider.clone())));
        }
        let mut candidates = Vec::new();
        for candidate in &pipeline.candidates {
            let named = candidate.provider.as_ref().and_then(|provider| of.get(&provider.value).copied());
            let lane = named.unwrap_or_else(|| {
                lanes.push(OneLane::new(format!("candidate {}", candidate.name.value), None));
                lanes.len() - 1
            });
            let canary = candidate.canary.as_ref().map(|canary| canary.value);
            candidates.push(OneCandidate {
                lane,
                breaker: Breaker::new(canary, candidate.model.is_some(), go_on),
                waiting: Vec::new(),
                past: None,
                told: false,
                doubted: false,
                left: 0,
            });
        }
        let (say, heard) = mpsc::unbounded_channel();
        Self {
            lanes,
            candidates,
            delayed: BinaryHeap::new(),
            last: HashMap::new(),
            stops: HashMap::new(),
            cut: HashSet::new(),
            adoptable,
            say,
            heard,
            idle: None,
        }
    }

    /// How many actions it keeps from beginning.
    pub(super) fn held(&self) -> usize {
        let lanes = self.lanes.iter().map(|lane| lane.queue.len() + lane.parked.len());
        let canaries = self.candidates.iter().map(|candidate| candidate.waiting.len());
        self.delayed.len() + lanes.sum::<usize>() + canaries.sum::<usize>()
    }

    /// What an agent listens to. It hears what the whole run is told, and what it alone is told.
    pub(super) fn listen(&mut self, node: usize) -> watch::Receiver<Stop> {
        let (say, hear) = watch::channel(Stop::No);
        self.stops.insert(node, say);
        hear
    }

    /// An agent is no longer under way. Says whether it had been stopped because its lane closed.
    pub(super) fn gone(&mut self, node: usize) -> bool {
        self.stops.remove(&node);
        self.cut.remove(&node)
    }

    /// Stops one agent because its lane closed.
    pub(super) fn cut(&mut self, node: usize) -> bool {
        let Some(stop) = self.stops.get(&node) else { return false };
        stop.send_replace(Stop::Polite);
        self.cut.insert(node)
    }

    /// Tells all agents.
    pub(super) fn stop_all(&self, level: Stop) {
        for stop in self.stops.values() {
            stop.send_replace(level);
        }
    }
}

/// The candidate of an agent's action.
pub(super) fn candidate_of(plan: &Plan, node: usize) -> Option<usize> {
    plan.nodes[node].point.candidate.filter(|_| plan.kind(node) == Kind::Agent)
}

/// A number from 0 to 1 that nobody can foretell.
pub(super) fn lot() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish() >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let lot = bits as f64 / (1_u64 << 53) as f64;
    lot
}
