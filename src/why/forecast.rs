//! What would become of every action if the plan ran now.
//!
//! Uses the very function that a run decides by. An action downstream of one that would be executed is said to follow, unless
//! something of its own has changed too: an upper bound, for an unchanged output upstream will cut the run short.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use crate::attempt::Ended;
use crate::digest::Digest;
use crate::event::{Compared, Reason};
use crate::key::{ActionKey, Change, KeyRecord, Value};
use crate::plan::Plan;
use crate::run::decide::{Again, Decision, decide_again, lost, remakes, shut_gate};
use crate::run::nearest::{is_known, reason_for};
use crate::run::recheck::is_pure;
use crate::run::reuse::declined;
use crate::step::End;
use crate::store::{Index, Store};

/// So many blobs are verified before they are announced to be read.
const BLOBS: usize = 64;
/// And so many bytes of them.
const VERIFIED: u64 = 8 * 1024 * 1024;

/// What would become of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Served.
    Hit,
    /// Served by a draw of another version of the agent, or in another environment.
    Reused,
    /// Executed, because an ingredient of its own changed.
    Changed,
    /// Executed if what is executed upstream of it comes out otherwise.
    Follows,
    /// Executed for the first time.
    New,
    /// Executed again, because no attempt settled it.
    Retry,
    /// Not to be run.
    Skipped,
    /// Cannot be run.
    Blocked,
    /// It was settled, and is not by today's tables: it runs only if a person asks for it.
    Reopened,
    /// Its attempts are used up.
    Exhausted,
}

impl State {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Reused => "reused",
            Self::Changed => "changed",
            Self::Follows => "follows",
            Self::New => "new",
            Self::Retry => "retry",
            Self::Skipped => "skipped",
            Self::Blocked => "blocked",
            Self::Reopened => "reopened",
            Self::Exhausted => "exhausted",
        }
    }

    /// Whether it would be executed.
    #[must_use]
    pub fn executes(self) -> bool {
        matches!(self, Self::Changed | Self::Follows | Self::New | Self::Retry)
    }
}

/// What would become of one action, and why.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// The action's number.
    pub node: usize,
    /// What.
    pub state: State,
    /// Its key, where it can be said.
    pub key: Option<ActionKey>,
    /// What changed, the first to blame.
    pub changes: Vec<Change>,
    /// The stored record that it was compared with.
    pub nearest: Option<ActionKey>,
    /// Whose that is, where it is not simply what the action had in the newest run of its manifest.
    pub compared: Option<Compared>,
    /// The actions upstream whose execution it follows.
    pub follows: Vec<usize>,
    /// The attempt that serves it.
    pub served: Option<Arc<Ended>>,
    /// The action before it that has the same key and is executed in its place.
    pub shares: Option<usize>,
    /// In words, where there is no change to show.
    pub because: Option<String>,
    /// Its key record, where it would be executed: that of what is served is in the store.
    pub record: Option<Box<KeyRecord>>,
}

impl Forecast {
    /// Whether it would be executed for a reason of its own, and not only for what is executed upstream.
    #[must_use]
    pub fn is_root(&self) -> bool {
        match self.state {
            State::Changed | State::Retry => true,
            State::New => self.follows.is_empty(),
            _ => false,
        }
    }
}

/// Forecasts every wanted action.
#[must_use]
pub fn forecast(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Vec<Forecast> {
    forecast_with(plan, store, index, wanted, &vec![false; plan.nodes.len()])
}

/// The same, where some actions are tried again though their attempts are used up.
#[must_use]
pub fn forecast_with(plan: &Plan, store: &Store, index: &Index, wanted: &[bool], retry: &[bool]) -> Vec<Forecast> {
    let again: Vec<Again> = retry.iter().map(|retry| Again { retry: *retry, ..Again::default() }).collect();
    let (said, lost) = see_all(plan, store, index, wanted, again, HashMap::new());
    if !lost && !damaged(plan, store, &said) {
        return said;
    }
    let stored = said.into_iter().filter_map(|said| Some((said.node, said.served?))).collect();
    // What is gone from the store is made again where it is read: which that is can only be said of the whole.
    let remakes = remakes(plan, store, index, wanted);
    let again = retry.iter().zip(remakes).map(|(retry, remake)| Again { retry: *retry, remake, ..Again::default() });
    see_all(plan, store, index, wanted, again.collect(), stored).0
}

/// Whether something is damaged that an action reads which is sure to be executed. What is found so is set aside by the store, and
/// is gone then. A run would find it as it reads, and could not go on.
fn damaged(plan: &Plan, store: &Store, all: &[Forecast]) -> bool {
    let served: HashMap<usize, &Arc<Ended>> =
        all.iter().filter_map(|said| Some((said.node, said.served.as_ref()?))).collect();
    let executed = all.iter().filter(|said| said.state.executes());
    let read = executed.flat_map(|said| plan.nodes[said.node].links.iter()).filter_map(|link| served.get(&link.node));
    let blobs = read.flat_map(|ended| ended.outputs.values().filter_map(Value::as_blob));
    let (mut seen, mut left) = (HashSet::new(), VERIFIED);
    let mut found = false;
    for blob in blobs.filter(|blob| seen.insert(*blob)).take(BLOBS) {
        match store.cas.get(&blob, left) {
            Ok(Some(bytes)) => left = left.saturating_sub(bytes.len() as u64),
            Ok(None) => found = true,
            // Too large for today, or not to be read: a run will say it.
            Err(_) => {}
        }
    }
    found
}

fn see_all(
    plan: &Plan,
    store: &Store,
    index: &Index,
    wanted: &[bool],
    again: Vec<Again>,
    stored: HashMap<usize, Arc<Ended>>,
) -> (Vec<Forecast>, bool) {
    let mut seer = Seer {
        plan,
        store,
        index,
        again,
        stored,
        coming: HashSet::new(),
        ends: vec![End::Pending; plan.nodes.len()],
        lacking: vec![false; plan.nodes.len()],
        new: vec![false; plan.nodes.len()],
        owners: HashMap::new(),
        alike: HashMap::new(),
        stands_for: HashMap::new(),
        lost: false,
    };
    let mut all = Vec::new();
    for node in (0..plan.nodes.len()).filter(|node| wanted[*node]) {
        let said = seer.see(node);
        seer.new[node] = said.state == State::New;
        all.push(said);
    }
    (all, seer.lost)
}

struct Seer<'a> {
    plan: &'a Plan,
    store: &'a Store,
    index: &'a Index,
    /// What is made again, because it is gone from the store or somebody asked.
    again: Vec<Again>,
    /// The attempts that would serve if nothing were gone.
    stored: HashMap<usize, Arc<Ended>>,
    /// The blobs that what is made again puts back.
    coming: HashSet<Digest>,
    ends: Vec<End>,
    /// Actions that this machine cannot key, and what reads them.
    lacking: Vec<bool>,
    /// Actions of which nothing is recorded.
    new: Vec<bool>,
    /// Who executes each key.
    owners: HashMap<ActionKey, usize>,
    /// Who executes what has no key yet, by what of it is known and what it waits for.
    alike: HashMap<(KeyRecord, Vec<(String, usize)>), usize>,
    /// In whose place each shared action stands.
    stands_for: HashMap<usize, usize>,
    /// Whether something served is gone from the store.
    lost: bool,
}

impl Seer<'_> {
    fn see(&mut self, node: usize) -> Forecast {
        let mut said = Forecast {
            node,
            state: State::New,
            key: None,
            changes: Vec::new(),
            nearest: None,
            compared: None,
            follows: Vec::new(),
            served: None,
            shares: None,
            because: None,
            record: None,
        };
        let again = self.again[node];
        match decide_again(self.plan, node, &self.ends, self.store, self.index, again) {
            Decision::Served { ended, over_limit, lost } => {
                self.lost |= lost;
                said.state = State::Hit;
                said.key = Some(ended.key);
                said.because = match (over_limit, lost) {
                    (true, _) => Some("OVER_LIMIT: it used more than today's limit".to_owned()),
                    (_, true) => Some("the store no longer has what it left; nothing needs it".to_owned()),
                    _ => None,
                };
                said.served = Some(ended.clone());
                self.ends[node] = End::Settled(ended);
            }
            Decision::Reused { key, ended, changes, rule } => {
                said.state = State::Reused;
                said.key = Some(key);
                said.changes = changes;
                said.nearest = Some(ended.key);
                said.because = Some(rule);
                said.served = Some(ended.clone());
                self.ends[node] = End::Settled(ended);
            }
            Decision::Over(end) => self.over(&mut said, end),
            Decision::Reopened { last, was } => {
                said.state = State::Reopened;
                said.key = Some(last.key);
                let (was, now) = (was.word(), last.outcome.word());
                said.because = Some(format!(
                    "today's tables read its attempt as {now}, not {was}, which settles nothing; --retry draws again"
                ));
                self.ends[node] = End::Reopened(last);
            }
            Decision::Exhausted { last, counted } => {
                said.state = State::Exhausted;
                said.key = Some(last.key);
                said.because =
                    Some(format!("{counted} attempts ended in {}; --retry tries again", last.outcome.word()));
                self.ends[node] = End::open("exhausted");
            }
            Decision::Lacking => self.lacks(&mut said),
            Decision::Wait { partial, waiting } => {
                // Several ingredients may come from one action.
                for (_, up) in &waiting {
                    if !said.follows.contains(up) {
                        said.follows.push(*up);
                    }
                }
                if let Some(up) = said.follows.iter().find(|up| self.lacking[**up]) {
                    self.lacking[node] = true;
                    said.because = Some(format!("waits for {}", self.plan.title(*up)));
                    return said;
                }
                if let Some(owner) = self.shares(node, &partial, &waiting) {
                    // The two keys will be one: both read the same of the same actions.
                    said.state = State::Hit;
                    said.shares = Some(owner);
                    said.follows.clear();
                    return said;
                }
                if let Some((ended, change)) = self.gone(node) {
                    // What it reads comes out as before or does not: it is made again either way.
                    (said.state, said.nearest, said.changes) = (State::Retry, Some(ended.key), vec![change]);
                    self.comes_back(node);
                    return said;
                }
                let reason = reason_for(self.plan, node, &partial, &waiting, self.store, self.index);
                let after_new = said.follows.iter().any(|up| self.new[*up]);
                let unknown = || !is_known(self.plan, node, self.store, self.index);
                if reason.state == "new" || after_new && unknown() {
                    return said;
                }
                explain(&mut said, reason);
                if said.changes.is_empty() {
                    (said.state, said.compared) = (State::Follows, None);
                }
            }
            Decision::Execute { record, reason, .. } => {
                said.key = Some(record.key());
                let open = |gate: &&usize| self.ends[**gate].is_open();
                if let Some(by) = shut_gate(self.plan, node, &self.ends) {
                    self.over(&mut said, End::Blocked { by });
                } else if let Some(gate) = self.plan.nodes[node].gates.iter().find(open) {
                    let why = format!("waits for {}", self.plan.title(*gate));
                    self.over(&mut said, End::open(why));
                } else {
                    let owner = *self.owners.entry(record.key()).or_insert(node);
                    if owner == node {
                        explain(&mut said, reason);
                        if said.state == State::New {
                            self.gated(&mut said);
                        } else if self.again[node].remake {
                            self.comes_back(node);
                        } else if said.because.is_none() {
                            said.because = declined(self.plan, node, &record, &self.ends, self.store, self.index);
                        }
                        said.record = Some(Box::new(record));
                    } else {
                        said.state = State::Hit;
                        said.shares = Some(owner);
                        self.stands_for.insert(node, owner);
                    }
                }
            }
        }
        said
    }

    /// What an action that is made again left and the store has no longer, unless what is made again before it brings it back.
    fn gone(&self, node: usize) -> Option<(Arc<Ended>, Change)> {
        let ended = self.stored.get(&node).filter(|_| self.again[node].remake)?;
        let change = lost(ended, self.store)?;
        let mut blobs = ended.outputs.values().filter_map(Value::as_blob);
        let comes = |blob: &Digest| self.store.cas.has(blob) || self.coming.contains(blob);
        (!blobs.all(|blob| comes(&blob))).then(|| (ended.clone(), change))
    }

    /// An action that is made again puts back what it had left, if that is a function of its key.
    fn comes_back(&mut self, node: usize) {
        let stored = self.stored.get(&node).filter(|_| is_pure(self.plan.kind(node)));
        self.coming.extend(stored.into_iter().flat_map(|ended| ended.outputs.values().filter_map(Value::as_blob)));
    }

    /// The action that will have the same key as this one, whose key is open: all that is known of both is the same, and so is
    /// what they wait for. It is executed in its place.
    fn shares(&mut self, node: usize, partial: &KeyRecord, waiting: &[(String, usize)]) -> Option<usize> {
        let for_itself = |up: &usize| *self.stands_for.get(up).unwrap_or(up);
        let waiting = waiting.iter().map(|(role, up)| (role.clone(), for_itself(up))).collect();
        let owner = *self.alike.entry((partial.clone(), waiting)).or_insert(node);
        if owner == node {
            return None;
        }
        self.stands_for.insert(node, owner);
        Some(owner)
    }

    /// Of what was never begun, because its gate ended badly: it follows the gate, which is run again and may end so again.
    fn gated(&self, said: &mut Forecast) {
        let again = |gate: &&usize| matches!(self.ends[**gate], End::Pending);
        let Some(gate) = self.plan.nodes[said.node].gates.iter().find(again).copied() else { return };
        let axes = &self.plan.nodes[gate].axes;
        let keys = self.index.nearest_candidates(self.plan.kind(gate).word(), axes);
        let step = self.plan.step(gate).name.value.as_str();
        let attempts = keys.iter().flat_map(|key| self.index.attempts(key).unwrap_or_default());
        let of_gate = attempts.filter(|ended| ended.axes == *axes && ended.step == step && ended.outcome.settles());
        let last = of_gate.max_by_key(|ended| ended.at);
        if let Some(failure) = last.as_ref().and_then(|ended| ended.outcome.failure()) {
            said.because = Some(format!(
                "not begun so far, for {} ended in {}; that is run again, and may end so again",
                self.plan.title(gate),
                failure.cause
            ));
            said.follows = vec![gate];
        }
    }

    /// An action that will not be executed.
    fn over(&mut self, said: &mut Forecast, end: End) {
        (said.state, said.because) = match &end {
            End::Skipped(cause) => (State::Skipped, Some(format!("{cause}: {}", cause.next_action()))),
            End::Blocked { by } => (State::Blocked, Some(self.blocked(*by))),
            End::Open(why) => (State::Blocked, Some(why.because.clone())),
            End::Pending | End::Settled(_) | End::Reopened(_) => (State::Blocked, None),
        };
        self.ends[said.node] = end;
    }

    /// What an action upstream left undone, and how it ended.
    fn blocked(&self, by: usize) -> String {
        let title = self.plan.title(by);
        match self.ends[by].settled().and_then(|ended| ended.outcome.failure()) {
            Some(failure) => format!("{title} ended in {}: {}", failure.cause, failure.evidence.as_str()),
            None => format!("{title} left nothing to go on with"),
        }
    }

    fn lacks(&mut self, said: &mut Forecast) {
        let missing = &self.plan.nodes[said.node].missing;
        let what: Vec<&str> = missing.iter().map(|missing| missing.what.as_str()).collect();
        let what = what.join("; ");
        if missing.iter().any(|missing| missing.fatal) {
            said.because = Some(what);
            self.lacking[said.node] = true;
        } else {
            // A run begins without it, and leaves this action out.
            self.over(said, End::open(what));
        }
    }
}

fn explain(said: &mut Forecast, reason: Reason) {
    said.state = match reason.state.as_str() {
        "changed" => State::Changed,
        "retry" => State::Retry,
        _ => State::New,
    };
    said.nearest = reason.nearest;
    said.compared = reason.compared;
    said.changes = reason.changes;
    said.because = reason.because;
    if said.state == State::Retry {
        // Of a retry there is one entry that names the attempt before, unless what that one had left is gone.
        let last = said.changes.extract_if(.., |change| change.ingredient == "attempt").next();
        let word = last.and_then(|change| Some(change.old?.as_text()?.rsplit(' ').next()?.to_owned()));
        let ended = |word| format!("the last attempt ended in {word}, which settles nothing");
        said.because = word.map(ended).or(said.because.take());
    }
}
