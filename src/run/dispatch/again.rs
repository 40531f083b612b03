//! What becomes of an action whose attempt did not settle it: tried again after a while, once its lane opens, or not in this run.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::lanes::millis;
use super::traffic::{candidate_of, lot};
use super::*;
use crate::outcome::{Owner, Shuts};
use crate::run::backoff::{Wait, left, wait};
use crate::units::human_span;

/// What is to become of it.
pub(super) enum Next {
    /// It is tried again after so long.
    After(Duration),
    /// It waits for its lane.
    Lane,
    /// It stays open, for this reason.
    Open(String),
    /// The same, and it is not tried again before somebody asks: that was its last attempt.
    UsedUp(String),
}

impl Next {
    /// Whether this run is done with the action.
    pub(super) fn ends(&self) -> bool {
        matches!(self, Self::Open(_) | Self::UsedUp(_))
    }
}

impl Dispatcher {
    /// What is to become of an action after an attempt that did not settle it.
    pub(super) fn next(&self, node: usize, ended: &Ended) -> Next {
        let Some(failure) = ended.outcome.failure() else { return Next::Open("it did not end".into()) };
        let because = || format!("{}: {}; {}", failure.cause, failure.evidence.as_str(), failure.cause.next_action());
        let candidate = candidate_of(&self.context.plan, node);
        let shuts = candidate.is_some_and(|candidate| self.shuts(candidate, failure.cause) == Shuts::Lane);
        let waits = candidate.is_some() && (shuts || failure.cause == Cause::LaneClosed);
        if self.draining.is_some() || self.broken.is_some() {
            return Next::Open(because());
        }
        if waits {
            return Next::Lane;
        }
        let cap = self.plan().step(node).attempts.as_ref().map_or(ATTEMPTS, |attempts| attempts.value);
        let tried = self.tried.get(&node).copied().unwrap_or(0) + 1;
        if !failure.cause.counts() {
            return Next::Open(because());
        }
        if tried >= cap {
            return Next::UsedUp(because());
        }
        match wait(failure.cause.owner(), tried, failure.evidence.as_str(), lot()) {
            Wait::For(span) => Next::After(span),
            Wait::TooLong(span) => {
                Next::Open(format!("{}; the provider asks for a wait of {}", because(), human_span(span)))
            }
        }
    }

    /// Holds an agent back that a provider refused in an earlier run, as long as this run would after the same attempt. Says whether it is
    /// held or over. A person who asks for it with `--retry` need not wait, nor does what only has to be read.
    pub(super) fn backs_off(&mut self, node: usize) -> bool {
        let Some(key) = self.states.key(node).filter(|_| candidate_of(&self.context.plan, node).is_some()) else {
            return false;
        };
        if self.options.again[node].retry || self.traffic.adoptable.contains(&key) {
            return false;
        }
        let Ok(attempts) = self.index.attempts(&key) else { return false };
        let tables = self.context.plan.tables(node);
        let now = Timestamp::now();
        let (mut failed, mut held) = (0, None);
        for recorded in &attempts {
            let ended = self.context.store.today(recorded, tables);
            let Some(failure) = ended.outcome.failure().filter(|failure| failure.cause.counts()) else { continue };
            failed += 1;
            if failure.cause.owner() == Owner::Provider && failure.cause.shuts() == Shuts::Nothing {
                // Of a clock that runs ahead: as if it had ended just now.
                let ago = Duration::try_from(now.duration_since(ended.at)).unwrap_or_default();
                held = left(Owner::Provider, failed, failure.evidence.as_str(), ago).map(|wait| (ended.clone(), wait));
            }
        }
        let Some((ended, wait)) = held else { return false };
        let evidence = ended.outcome.failure().map(|failure| failure.evidence.as_str().to_owned()).unwrap_or_default();
        match wait {
            Wait::TooLong(span) => {
                let because = format!(
                    "{}: {evidence}; the provider asked for a wait, of which {} are left; --retry does not wait",
                    ended.outcome.word(),
                    human_span(span)
                );
                self.records.remove(&node);
                self.over(node, End::Open(because.into()));
            }
            Wait::For(span) => {
                self.states.set(node, State::Held);
                self.traffic.delayed.push(Reverse((Instant::now() + span, node)));
                self.tell(Event::AttemptDelayed {
                    node,
                    axes: self.context.plan.nodes[node].axes.clone(),
                    step: self.context.plan.step(node).name.value.to_string(),
                    attempt: ended.attempt.clone(),
                    outcome: ended.outcome.word().into(),
                    evidence,
                    retry_in_ms: millis(span),
                });
            }
        }
        true
    }

    /// What is to become of an action, as an event.
    pub(super) fn unsettled_event(node: usize, ended: &Ended, next: &Next) -> Event {
        Event::AttemptFailed {
            node,
            axes: ended.axes.clone(),
            step: ended.step.clone(),
            attempt: ended.attempt.clone(),
            outcome: ended.outcome.word().into(),
            evidence: ended.outcome.failure().map(|failure| failure.evidence.as_str().to_owned()).unwrap_or_default(),
            again: !next.ends(),
            used_up: matches!(next, Next::UsedUp(_)),
            retry_in_ms: match next {
                Next::After(span) => Some(millis(*span)),
                Next::Lane | Next::Open(_) | Next::UsedUp(_) => None,
            },
        }
    }

    /// Brings it about.
    pub(super) fn unsettled(&mut self, node: usize, ended: &Ended, next: Next) {
        self.states.lost_attempt();
        if let Some(failure) = ended.outcome.failure() {
            if failure.cause.counts() {
                *self.tried.entry(node).or_insert(0) += 1;
            }
            self.traffic.last.insert(node, (failure.cause, failure.evidence.as_str().to_owned()));
        }
        match next {
            Next::After(span) => {
                self.states.set(node, State::Held);
                self.traffic.delayed.push(Reverse((Instant::now() + span, node)));
            }
            Next::Lane => {
                self.states.set(node, State::Held);
                let rank = self.rank(node);
                if let Some(candidate) = candidate_of(&self.context.plan, node) {
                    let lane = self.traffic.candidates[candidate].lane;
                    self.traffic.lanes[lane].queue.push(rank);
                }
            }
            Next::Open(because) | Next::UsedUp(because) => {
                self.records.remove(&node);
                self.states.set(node, State::Over { end: End::open_after(because, ended), by: By::Executed });
                self.fresh.push(Reverse(node));
            }
        }
    }

    /// Wakes those whose time has come.
    pub(super) fn wake_delayed(&mut self, now: Instant) {
        while let Some(Reverse((at, node))) = self.traffic.delayed.peek().copied() {
            if at > now {
                return;
            }
            self.traffic.delayed.pop();
            self.wake(node);
        }
    }
}
