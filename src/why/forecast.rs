//! What would become of every action if the plan ran now.
//!
//! Uses the very function that a run decides by. An action downstream of one that would be executed is said to follow, unless
//! something of its own has changed too: an upper bound, for an unchanged output upstream will cut the run short.

use serde::Serialize;

use crate::event::Reason;
use crate::key::{ActionKey, Change};
use crate::plan::Plan;
use crate::run::decide::{Decision, decide, gate_is_shut, reason_for};
use crate::step::End;
use crate::store::{Index, Store};

/// What would become of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Served.
    Hit,
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
    /// Its attempts are used up.
    Exhausted,
}

impl State {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Changed => "changed",
            Self::Follows => "follows",
            Self::New => "new",
            Self::Retry => "retry",
            Self::Skipped => "skipped",
            Self::Blocked => "blocked",
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
    /// The nearest record, where there is one.
    pub nearest: Option<ActionKey>,
    /// What changed, the first to blame.
    pub changes: Vec<Change>,
    /// The actions upstream whose execution it follows.
    pub follows: Vec<usize>,
    /// In words, where there is no change to show.
    pub because: Option<String>,
}

/// Forecasts every wanted action.
#[must_use]
pub fn forecast(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Vec<Forecast> {
    let mut ends = vec![End::Pending; plan.nodes.len()];
    let mut forecasts = Vec::new();
    let mut keys = std::collections::HashSet::new();
    for node in (0..plan.nodes.len()).filter(|node| wanted[*node]) {
        let mut said = Forecast {
            node,
            state: State::New,
            key: None,
            nearest: None,
            changes: Vec::new(),
            follows: Vec::new(),
            because: None,
        };
        let explain = |said: &mut Forecast, reason: Reason| {
            said.state = match reason.state.as_str() {
                "changed" => State::Changed,
                "retry" => State::Retry,
                _ => State::New,
            };
            said.nearest = reason.nearest;
            said.changes = reason.changes;
        };
        match decide(plan, node, &ends, store, index, false) {
            Decision::Served { ended, over_limit, .. } => {
                said.state = State::Hit;
                said.key = Some(ended.key);
                said.because = over_limit.then(|| "OVER_LIMIT: it used more than today's limit".to_owned());
                ends[node] = End::Settled(ended);
            }
            Decision::Over(end) => {
                (said.state, said.because) = match &end {
                    End::Skipped(cause) => (State::Skipped, Some(format!("{cause}: {}", cause.next_action()))),
                    End::Blocked { by } => {
                        (State::Blocked, Some(format!("{} left nothing to go on with", plan.title(*by))))
                    }
                    End::Open(why) => (State::Blocked, Some(why.clone())),
                    End::Pending | End::Settled(_) => (State::Blocked, None),
                };
                ends[node] = end;
            }
            Decision::Exhausted { last, counted } => {
                said.state = State::Exhausted;
                said.because =
                    Some(format!("{counted} attempts ended in {}; --retry tries again", last.outcome.word()));
                ends[node] = End::Open("exhausted".into());
            }
            Decision::Lacking => {
                let what: Vec<&str> = plan.nodes[node].missing.iter().map(|missing| missing.what.as_str()).collect();
                said.because = Some(what.join("; "));
            }
            Decision::Wait { partial, waiting } => {
                let reason = reason_for(plan, node, &partial, &waiting, store, index);
                let new = reason.nearest.is_none();
                explain(&mut said, reason);
                said.follows = waiting.iter().map(|(_, up)| *up).collect();
                said.follows.dedup();
                if said.changes.is_empty() && !new {
                    said.state = State::Follows;
                }
            }
            Decision::Execute { record, reason, .. } => {
                said.key = Some(record.key());
                if gate_is_shut(plan, node, &ends) {
                    let by = plan.nodes[node].gates.first().copied().unwrap_or(node);
                    said.state = State::Blocked;
                    said.because = Some(format!("{} did not end well", plan.title(by)));
                    ends[node] = End::Blocked { by };
                } else if !keys.insert(record.key()) {
                    said.state = State::Hit;
                    said.because = Some("shares the key of an action before it".into());
                } else {
                    explain(&mut said, reason);
                }
            }
        }
        forecasts.push(said);
    }
    forecasts
}
