//! Lanes in a run: agents that wait for theirs, questions to providers, and what a closed lane does to those under way.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::traffic::{Answer, candidate_of, lot};
use super::*;
use crate::attempt::ProcessEnd;
use crate::event::{Held, ShutLane};
use crate::outcome::{Owner, Shuts};
use crate::process::Exit;
use crate::run::asking::ask;
use crate::run::breaker::May;
use crate::run::lane::{Gate, Rate, Turn, Word};
use crate::run::past::Past;
use crate::units::human_span;

impl Dispatcher {
    /// Keeps an action that is ready from beginning, if its lane or its candidate's breaker do not let it. Says whether it did.
    pub(super) fn hold(&mut self, node: usize) -> bool {
        let Some(candidate) = candidate_of(&self.context.plan, node) else { return false };
        // What an agent of a run that died had finished is only read.
        if self.states.key(node).is_some_and(|key| self.traffic.adoptable.contains(&key)) {
            return false;
        }
        if self.paused(node, candidate) {
            return true;
        }
        let one = &mut self.traffic.candidates[candidate];
        if one.breaker.may_begin(node) == May::Wait {
            one.waiting.push(node);
            self.states.set(node, State::Held);
            self.tell_doubt(candidate);
            return true;
        }
        let (rate, expected) = self.expected(node, candidate);
        let rank = self.rank(node);
        let one = &mut self.traffic.lanes[self.traffic.candidates[candidate].lane];
        match one.lane.gate(rate, expected, Instant::now(), Timestamp::now()) {
            Gate::Go => false,
            Gate::Full | Gate::Ask | Gate::Shut => {
                one.queue.push(rank);
                self.states.set(node, State::Held);
                true
            }
            Gate::Expires(until) => {
                one.parked.push(node);
                let told = one.parked_for.replace(until) == Some(until);
                let lane = one.name.clone();
                self.states.set(node, State::Held);
                if !told {
                    self.tell(Event::LaneExpires { lane, until, expected_ms: expected.map(millis) });
                }
                true
            }
        }
    }

    /// What an agent uses a minute and how long it may take, where its provider asks for that.
    fn expected(&mut self, node: usize, candidate: usize) -> (Rate, Option<Duration>) {
        let plan = self.context.plan.clone();
        let Some(provider) = plan.manifest.pipeline.provider_of(candidate) else { return (Rate::default(), None) };
        if provider.expires.is_none() && provider.per_minute == crate::manifest::PerMinute::default() {
            return (Rate::default(), None);
        }
        let index = &self.index;
        let one = &mut self.traffic.candidates[candidate];
        let past = one.past.get_or_insert_with(|| Past::read(&plan, index, candidate));
        let limit = plan.step(node).timeout.as_ref().map(|timeout| timeout.value);
        // No attempt takes longer than its limit, whatever others took under another one.
        let expected = past.expected().map(|expected| limit.map_or(expected, |limit| expected.min(limit)));
        (past.rate(), expected.or(limit))
    }

    /// An agent begins. Gives what it listens to.
    pub(super) fn enter(&mut self, node: usize) -> Option<watch::Receiver<Stop>> {
        let candidate = candidate_of(&self.context.plan, node)?;
        let (rate, _) = self.expected(node, candidate);
        self.goes_on_all_the_same(candidate);
        let one = &mut self.traffic.candidates[candidate];
        one.breaker.begin(node);
        self.traffic.lanes[one.lane].lane.begin(node, rate, Instant::now());
        self.traffic.idle = None;
        Some(self.traffic.listen(node))
    }

    /// What an agent that was stopped because its lane closed has come to: its end is not its own.
    pub(super) fn uncharged(&self, node: usize, done: &mut Done) {
        let stopped = matches!(&done.process, Some(ProcessEnd { exit: Exit::Interrupted { .. }, .. }));
        let failure = done.outcome.failure();
        let shuts = failure.is_some_and(|failure| failure.cause.shuts() == Shuts::Lane);
        let interrupted = failure.is_some_and(|failure| failure.cause == Cause::Interrupted);
        if shuts || !(stopped || interrupted) {
            return;
        }
        let Some(candidate) = candidate_of(&self.context.plan, node) else { return };
        let one = &self.traffic.lanes[self.traffic.candidates[candidate].lane];
        let why = one.lane.shut().map_or("", |shut| shut.cause.name());
        let failure = Failure::new(Cause::LaneClosed, &format!("stopped: the lane {} closed, {why}", one.name));
        let log = done.outcome.failure().and_then(|failure| failure.log);
        done.outcome = Outcome::Failed(failure.log(log));
    }

    /// What cannot go on once an agent of a candidate failed so. A secret of its own says nothing of the provider's lane, which others
    /// share: there only the candidate is paused.
    pub(super) fn shuts(&self, candidate: usize, cause: Cause) -> Shuts {
        let shared = self.traffic.lanes[self.traffic.candidates[candidate].lane].provider.is_some();
        if cause == Cause::SecretMissing && shared { Shuts::Candidate } else { cause.shuts() }
    }

    /// An agent is no longer under way, and its lane learns nothing from it.
    pub(super) fn leave_silent(&mut self, node: usize) {
        let Some(candidate) = candidate_of(&self.context.plan, node) else { return };
        let lane = self.traffic.candidates[candidate].lane;
        let turn = self.traffic.lanes[lane].lane.end(node, Word::Nothing, Instant::now(), lot());
        self.turned(lane, turn, false);
    }

    /// An agent ended: its lane learns from it.
    pub(super) fn leave(&mut self, node: usize, ended: &Ended) {
        let Some(candidate) = candidate_of(&self.context.plan, node) else { return };
        if let Some(past) = &mut self.traffic.candidates[candidate].past {
            past.add(ended);
        }
        let word = match ended.outcome.failure() {
            None => Word::Good,
            Some(failure) if self.shuts(candidate, failure.cause) == Shuts::Lane => {
                Word::Shut(failure.cause, failure.evidence.as_str().to_owned())
            }
            Some(failure) if failure.cause == Cause::RateLimited => Word::Patience,
            Some(failure) if failure.cause.owner() == Owner::Agent => Word::Good,
            Some(_) => Word::Nothing,
        };
        let lane = self.traffic.candidates[candidate].lane;
        let turn = self.traffic.lanes[lane].lane.end(node, word, Instant::now(), lot());
        self.turned(lane, turn, true);
    }

    /// A lane turned: it is told, and if it closed on agents under way they are stopped.
    fn turned(&mut self, lane: usize, turn: Option<Turn>, stop: bool) {
        let Some(turn) = turn else { return };
        let one = &self.traffic.lanes[lane];
        let name = one.name.clone();
        let closed_for = |shut: &crate::run::lane::Shut| millis(shut.since.elapsed());
        match turn {
            Turn::Closed => {
                let Some(shut) = one.lane.shut().cloned() else { return };
                let running: Vec<usize> = if stop { one.lane.running().collect() } else { Vec::new() };
                let stopped = running.into_iter().filter(|node| self.traffic.cut(*node)).count();
                self.tell(Event::LaneClosed {
                    lane: name,
                    cause: shut.cause.name().into(),
                    evidence: shut.evidence,
                    remedy: shut.cause.next_action().into(),
                    stopped,
                    tries: shut.tries,
                    again_in_ms: millis(shut.next.saturating_duration_since(Instant::now())),
                });
            }
            Turn::HalfOpened => {
                let after_ms = one.lane.shut().map_or(0, closed_for);
                self.tell(Event::LaneOpened { lane: name, trial: true, after_ms });
            }
            Turn::Opened => self.tell(Event::LaneOpened { lane: name, trial: false, after_ms: 0 }),
            Turn::Narrowed(width) => self.tell(Event::LaneNarrowed { lane: name, width }),
        }
    }

    /// Lets go on who can: those whose time has come, and as many as each lane has room for. Asks providers what is to be asked.
    pub(super) fn pump(&mut self) {
        let now = Instant::now();
        self.wake_delayed(now);
        for lane in 0..self.traffic.lanes.len() {
            let turn = self.traffic.lanes[lane].lane.pass(now);
            self.turned(lane, turn, false);
            let one = &mut self.traffic.lanes[lane];
            if let Some(question) = one.lane.question(one.wanted(), now)
                && let Some(provider) = one.provider.clone()
            {
                let (context, say) = (self.context.clone(), self.traffic.say.clone());
                tokio::spawn(async move {
                    let answer = ask(context, provider, question).await;
                    // Nobody listens once the run is over.
                    let _ = say.send(Answer { lane, question, answer });
                });
            }
            let room = one.lane.room(now).unwrap_or(usize::MAX);
            for _ in 0..room.min(one.queue.len()) {
                if let Some(Rank { node, .. }) = self.traffic.lanes[lane].queue.pop() {
                    self.wake(node);
                }
            }
        }
    }

    /// A provider answered.
    pub(super) fn hear(&mut self, Answer { lane, question, answer }: Answer) {
        let one = &mut self.traffic.lanes[lane];
        let until = answer.as_ref().ok().copied().flatten();
        // What was parked for the old time may be done before the new one; a job of another length may fit in any case.
        let parked =
            if answer.is_ok() && until != one.parked_for { std::mem::take(&mut one.parked) } else { Vec::new() };
        let turn = one.lane.told(question, answer, Instant::now(), lot());
        self.turned(lane, turn, false);
        parked.into_iter().for_each(|node| self.wake(node));
    }

    /// An action that was held is ready again: it is looked at as any other.
    pub(super) fn wake(&mut self, node: usize) {
        if matches!(self.states.get(node), State::Held) {
            self.states.set(node, State::Ready);
            self.make_ready(node);
        }
    }

    /// Whether a lane has room for one of those who wait for it, or has to be asked for them, while nobody works whose end would
    /// bring that about.
    pub(super) fn could_pump(&self) -> bool {
        let now = Instant::now();
        let waits = |one: &super::traffic::OneLane| {
            (!one.queue.is_empty() && one.lane.room(now) != Some(0)) || (one.wanted() && one.lane.must_ask(now))
        };
        self.states.running() == 0
            && self.ready.iter().all(BinaryHeap::is_empty)
            && self.traffic.lanes.iter().any(waits)
    }

    /// Whether nothing goes on but waiting for lanes.
    fn only_waits(&self) -> bool {
        self.states.running() == 0
            && self.unwritten == 0
            && self.ready.iter().all(BinaryHeap::is_empty)
            && self.aside.is_empty()
            && self.contended.is_empty()
            && self.traffic.delayed.is_empty()
            && self.traffic.held() > 0
            && !self.traffic.lanes.iter().any(|one| one.lane.asking())
    }

    /// Gives up on what nobody works at any more, unless a person said to wait for it.
    pub(super) fn give_up(&mut self) {
        if !self.only_waits() {
            return;
        }
        let first = self.traffic.idle.is_none();
        let since = *self.traffic.idle.get_or_insert_with(Instant::now);
        if self.options.wait.is_some_and(|limit| since.elapsed() < limit) {
            if first {
                let lanes: Vec<&str> =
                    self.traffic.lanes.iter().filter(|one| one.wanted()).map(|one| one.name.as_str()).collect();
                let text = format!("waits for {}; Ctrl-C ends the run, and loses nothing", lanes.join(" and "));
                self.tell(Event::Notice { text });
            }
            return;
        }
        for lane in 0..self.traffic.lanes.len() {
            let Some(shut) = self.shut(lane) else { continue };
            let held = Held {
                owner: Cause::ALL
                    .iter()
                    .find(|cause| cause.name() == shut.cause)
                    .map_or(Owner::Provider, |cause| cause.owner()),
                evidence: format!("waits for lane {}: {}: {}", shut.lane, shut.cause, shut.evidence),
                cause: Some(shut.cause),
                next: shut.remedy,
            };
            let one = &mut self.traffic.lanes[lane];
            let mut left = std::mem::take(&mut one.parked);
            left.extend(std::mem::take(&mut one.queue).into_iter().map(|rank| rank.node));
            one.left += left.len();
            for node in left {
                self.records.remove(&node);
                self.over(node, End::open(held.clone()));
            }
        }
    }

    /// Why the actions of a lane wait, in words; `None` if none does.
    fn shut(&self, lane: usize) -> Option<ShutLane> {
        let one = self.traffic.lanes.get(lane)?;
        let waiting = one.queue.len() + one.parked.len() + one.left;
        if waiting == 0 {
            return None;
        }
        let expired = Cause::CredentialsExpired;
        let (cause, evidence) = match (one.lane.shut(), one.parked_for) {
            (Some(shut), _) => (shut.cause, shut.evidence.clone()),
            (None, Some(until)) => {
                let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
                let when =
                    if left.is_zero() { "expired".to_owned() } else { format!("expires in {}", human_span(left)) };
                (expired, format!("its credential {when}, before an agent could be done"))
            }
            // Its queue is only what a run that was stopped did not come to.
            (None, None) if self.draining.is_some() || self.broken.is_some() => return None,
            (None, None) => (expired, "the provider was not asked".to_owned()),
        };
        let remedy = cause.next_action().to_owned();
        // It stands within a sentence.
        let evidence = evidence.trim_end_matches('.').to_owned();
        Some(ShutLane { lane: one.name.clone(), cause: cause.name().into(), evidence, remedy, waiting })
    }

    /// The lanes for which actions still wait.
    pub(super) fn shut_lanes(&self) -> Vec<ShutLane> {
        (0..self.traffic.lanes.len()).filter_map(|lane| self.shut(lane)).collect()
    }

    /// When something changes though nothing ends.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        let delayed = self.traffic.delayed.peek().map(|std::cmp::Reverse((at, _))| *at);
        let lanes = self.traffic.lanes.iter().filter_map(|one| one.lane.next(one.wanted()));
        let limit = self.options.wait.and_then(|limit| self.traffic.idle?.checked_add(limit));
        lanes.chain(delayed).chain(limit).min()
    }
}

/// Milliseconds, for an event.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
