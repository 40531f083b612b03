//! Breakers in a run: what the ends of a candidate's jobs say of it, and its pause.

use super::traffic::candidate_of;
use super::*;
use crate::event::{Held, Paused};
use crate::outcome::{Owner, Shuts};
use crate::plan::Role;
use crate::run::breaker::{May, Trip};

/// What to do about a candidate that is paused.
const REMEDY: &str = "read `flow log JOB agent` of one of its jobs and mend the agent, its config or the prompt; `--continue` goes on all the same";

impl Dispatcher {
    /// Leaves an action open if its candidate is paused. Says whether it is.
    pub(super) fn paused(&mut self, node: usize, candidate: usize) -> bool {
        let one = &self.traffic.candidates[candidate];
        if one.breaker.may_begin(node) != May::Paused {
            return false;
        }
        self.tell_breaker(candidate, false);
        let Some(paused) = self.pause(candidate) else { return false };
        self.traffic.candidates[candidate].left += 1;
        self.records.remove(&node);
        let owner = self.traffic.candidates[candidate].breaker.trip().map_or(Owner::Agent, |trip| trip.cause.owner());
        let evidence = format!("{} is paused: {}: {}", paused.candidate, paused.cause, paused.evidence);
        self.over(node, End::open(Held { cause: Some(paused.cause), owner, evidence, next: paused.remedy }));
        true
    }

    /// Puts on record that a candidate goes on though it would be paused.
    pub(super) fn goes_on_all_the_same(&mut self, candidate: usize) {
        if self.traffic.candidates[candidate].breaker.goes_on() {
            self.tell_breaker(candidate, true);
        }
    }

    fn tell_breaker(&mut self, candidate: usize, overridden: bool) {
        let one = &mut self.traffic.candidates[candidate];
        let Some(trip) = one.breaker.trip().cloned() else { return };
        if std::mem::replace(&mut one.told, true) {
            return;
        }
        let Trip { cause, count, of, canary, evidence } = trip;
        self.tell(Event::Breaker {
            candidate: self.plan().manifest.pipeline.candidates[candidate].name.value.to_string(),
            cause: cause.name().into(),
            count,
            of,
            canary,
            evidence,
            remedy: remedy(cause),
            overridden,
        });
    }

    /// Why a candidate is paused and how many of its agents are not begun; `None` if it is not paused.
    fn pause(&self, candidate: usize) -> Option<Paused> {
        let one = &self.traffic.candidates[candidate];
        let trip = one.breaker.trip().filter(|_| !one.breaker.goes_on())?;
        Some(Paused {
            candidate: self.plan().manifest.pipeline.candidates[candidate].name.value.to_string(),
            cause: trip.cause.name().into(),
            // It stands within a sentence.
            evidence: trip.evidence.trim_end_matches('.').to_owned(),
            remedy: remedy(trip.cause),
            waiting: one.left,
        })
    }

    /// The candidates of which agents were not begun.
    pub(super) fn pauses(&self) -> Vec<Paused> {
        let all = (0..self.traffic.candidates.len()).filter_map(|candidate| self.pause(candidate));
        all.filter(|paused| paused.waiting > 0).collect()
    }

    /// Says, once, that agents of a candidate wait for the one that tries for all.
    pub(super) fn tell_doubt(&mut self, candidate: usize) {
        let one = &mut self.traffic.candidates[candidate];
        let Some((cause, count, of)) = one.breaker.doubt() else { return };
        if std::mem::replace(&mut one.doubted, true) {
            return;
        }
        let name = &self.context.plan.manifest.pipeline.candidates[candidate].name.value;
        let text = format!(
            "{name}: the last run ended with {cause}, {count} of its last {of} attempts: one agent tries before the others begin"
        );
        self.tell(Event::Notice { text });
    }

    /// What earlier runs tried of an agent's action in vain is told to its candidate's breaker.
    pub(super) fn remember(&mut self, node: usize, key: &ActionKey) {
        let Some(candidate) = candidate_of(&self.context.plan, node) else { return };
        // Whoever says `--retry` knows of them.
        if self.options.again[node].retry {
            return;
        }
        let Ok(attempts) = self.index.attempts(key) else { return };
        let tables = self.context.plan.tables(node);
        for ended in attempts {
            let today = self.context.store.today(&ended, tables);
            if let Some(failure) = today.outcome.failure()
                && failure.cause.counts()
                && !failure.cause.settles()
            {
                let breaker = &mut self.traffic.candidates[candidate].breaker;
                breaker.failed_before(today.at, node, failure.cause);
            }
        }
    }

    /// An attempt of an agent failed and its action is not over: that is looked at all the same.
    pub(super) fn observe_attempt(&mut self, node: usize, ended: &Ended, again: bool) {
        let Some(candidate) = candidate_of(&self.context.plan, node) else { return };
        let Some(failure) = ended.outcome.failure() else { return };
        let shuts = self.shuts(candidate, failure.cause);
        let breaker = &mut self.traffic.candidates[candidate].breaker;
        let evidence = failure.evidence.as_str();
        let tripped = match shuts {
            Shuts::Candidate => breaker.broken(failure.cause, evidence),
            _ if again && failure.cause.counts() && !failure.cause.settles() => breaker.failed(failure.cause, evidence),
            _ => false,
        };
        if tripped {
            self.look_again(candidate);
        }
    }

    /// An action is over: if that is the end of a job's agent and of its patch, the candidate's breaker learns of it.
    pub(super) fn observe_end(&mut self, node: usize) {
        let plan = self.context.plan.clone();
        let agent = match plan.kind(node) {
            Kind::Agent => node,
            Kind::Patch => match plan.linked(node, &Role::Agent) {
                Some(agent) => agent,
                None => return,
            },
            _ => return,
        };
        let Some(candidate) = candidate_of(&plan, agent) else { return };
        let patched = |end: &Ended| end.outputs.contains_key("tree");
        let is_patch = |other: &&usize| plan.kind(**other) == Kind::Patch && self.options.wanted[**other];
        let patch = plan.dependents[agent].iter().find(is_patch).copied();
        let worked = self.states.end(agent).settled().cloned();
        let at = worked.as_ref().map(|ended| ended.at);
        let end: Option<(Option<Cause>, String)> = match (worked, patch) {
            // The patch says more than its agent: it is waited for.
            (Some(worked), Some(patch)) if patched(&worked) => {
                if node != patch {
                    return;
                }
                let patch = self.states.end(patch).settled();
                patch.map(|patch| verdict(worked.outcome.failure(), patch.outcome.failure()))
            }
            _ if node != agent => return,
            (Some(worked), _) => Some(verdict(worked.outcome.failure(), None)),
            (None, _) => {
                let last = self.traffic.last.get(&agent).filter(|(cause, _)| cause.counts());
                last.map(|(cause, evidence)| (Some(*cause), evidence.clone()))
            }
        };
        let breaker = &mut self.traffic.candidates[candidate].breaker;
        match end {
            Some((cause, evidence)) => {
                if let (None, Some(at)) = (cause, at) {
                    breaker.worked(at);
                }
                breaker.ended(agent, cause, &evidence);
            }
            None => breaker.left(agent),
        }
        self.look_again(candidate);
    }

    /// Those who wait for a candidate's first jobs are looked at again; if it is paused, those who wait for its lane too.
    fn look_again(&mut self, candidate: usize) {
        let one = &mut self.traffic.candidates[candidate];
        let mut awake = std::mem::take(&mut one.waiting);
        if one.breaker.trip().is_some() {
            let plan = self.context.plan.clone();
            let lane = &mut self.traffic.lanes[one.lane];
            let own = |node: usize| candidate_of(&plan, node) == Some(candidate);
            let (of_it, others): (Vec<Rank>, Vec<Rank>) =
                std::mem::take(&mut lane.queue).into_iter().partition(|rank| own(rank.node));
            lane.queue.extend(others);
            awake.extend(of_it.into_iter().map(|rank| rank.node));
        }
        awake.into_iter().for_each(|node| self.wake(node));
    }
}

/// What a job's agent and patch say of the candidate: the first cause of a failure. A good patch of an agent that met a limit is
/// work well done.
fn verdict(agent: Option<&Failure>, patch: Option<&Failure>) -> (Option<Cause>, String) {
    let limits = [Cause::Timeout, Cause::MaxSteps, Cause::CostLimit];
    let failure = match (agent, patch) {
        (Some(agent), None) if limits.contains(&agent.cause) => None,
        (agent, patch) => agent.or(patch),
    };
    (
        failure.map(|failure| failure.cause),
        failure.map(|failure| failure.evidence.as_str().to_owned()).unwrap_or_default(),
    )
}

fn remedy(cause: Cause) -> String {
    match cause.owner() {
        _ if cause.shuts() != Shuts::Nothing => cause.next_action().to_owned(),
        Owner::Agent => REMEDY.to_owned(),
        // Nothing in the agent's log tells more than the cause does.
        _ => format!("{}; `--continue` goes on all the same", cause.next_action()),
    }
}
