//! A candidate's breaker: whether its agents fail so much alike that beginning more of them would be a waste.
//!
//! Its first jobs go first, as canaries, and a window looks at the last ends. Pure: fed with ends in order, those of earlier runs
//! that stand today among them, so that a candidate that was paused is paused in the next run too. What settled nothing does not
//! stand, a provider's bad hour say: if an earlier run saw enough of it for a pause, one agent tries for all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use crate::outcome::Cause;

/// Jobs that go first where the manifest does not say, for a candidate that has a model.
pub const CANARY: u32 = 5;
/// How many of the last ends are looked at.
pub const WINDOW: usize = 10;
/// So many of one cause among them are too many.
pub const TOO_MANY: usize = 8;

/// Why a candidate is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// The cause.
    pub cause: Cause,
    /// So many ends were of it …
    pub count: usize,
    /// … of so many looked at.
    pub of: usize,
    /// Whether they were the first ones.
    pub canary: bool,
    /// The line that shows the last of them.
    pub evidence: String,
}

/// Whether an agent of the candidate may be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum May {
    /// Yes.
    Begin,
    /// Once the canaries have shown something.
    Wait,
    /// No: the candidate is paused.
    Paused,
}

/// The breaker of one candidate.
#[derive(Debug)]
pub struct Breaker {
    canary: usize,
    watches: bool,
    /// Whether a person said to go on.
    overridden: bool,
    first: Vec<Option<Cause>>,
    window: VecDeque<Option<Cause>>,
    begun: BTreeSet<usize>,
    /// Attempts of earlier runs that settled nothing: when they ended, of which action, and why.
    past: BTreeSet<(Timestamp, usize, Cause)>,
    /// When its agent last did well.
    worked: Option<Timestamp>,
    trip: Option<Trip>,
    /// The agent cannot work at all: nobody's word helps.
    broken: bool,
}

impl Breaker {
    /// A breaker. `canary` is what the manifest says, `model` whether the candidate has a model: one without costs nothing as far
    /// as flow knows, and is not watched unless the manifest says so. `go_on` lets it trip without a pause.
    #[must_use]
    pub fn new(canary: Option<u32>, model: bool, go_on: bool) -> Self {
        let canary = canary.unwrap_or(if model { CANARY } else { 0 });
        Self {
            canary: canary as usize,
            watches: canary > 0,
            overridden: go_on,
            first: Vec::new(),
            window: VecDeque::new(),
            begun: BTreeSet::new(),
            past: BTreeSet::new(),
            worked: None,
            trip: None,
            broken: false,
        }
    }

    /// Why the candidate is paused, or would be if nobody had said to go on.
    #[must_use]
    pub fn trip(&self) -> Option<&Trip> {
        self.trip.as_ref()
    }

    /// Whether it goes on though it tripped.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.trip.is_some() && self.overridden && !self.broken
    }

    /// Whether an agent may be begun.
    #[must_use]
    pub fn may_begin(&self, node: usize) -> May {
        if self.trip.is_some() && (self.broken || !self.overridden) {
            return May::Paused;
        }
        if self.doubt().is_some() && !self.overridden && !self.begun.contains(&node) {
            return if self.begun.is_empty() { May::Begin } else { May::Wait };
        }
        let shown = self.first.len() >= self.canary
            || self.first.iter().any(Option::is_none)
            || self.first.iter().collect::<BTreeSet<_>>().len() > 1;
        let place = self.begun.len() + self.first.len() < self.canary;
        if shown || self.overridden || place || self.begun.contains(&node) { May::Begin } else { May::Wait }
    }

    /// An attempt of an earlier run failed for a cause that settles nothing.
    pub fn failed_before(&mut self, at: Timestamp, node: usize, cause: Cause) {
        self.past.insert((at, node, cause));
    }

    /// An attempt that ended then, in this run or before, came to something.
    pub fn worked(&mut self, at: Timestamp) {
        self.worked = self.worked.max(Some(at));
    }

    /// The cause for which an earlier run would have paused it, with how many of how many last attempts were of it, where
    /// nothing has gone well since.
    #[must_use]
    pub fn doubt(&self) -> Option<(Cause, usize, usize)> {
        if !self.watches {
            return None;
        }
        let since = |(at, ..): &&(Timestamp, usize, Cause)| self.worked.is_none_or(|worked| *at > worked);
        let last: Vec<&(Timestamp, usize, Cause)> = self.past.iter().rev().take_while(since).take(WINDOW).collect();
        let (_, _, cause) = last.first()?;
        let alike = last.iter().filter(|(.., other)| other == cause).count();
        let actions: BTreeSet<usize> = last.iter().map(|(_, node, _)| *node).collect();
        let canaries = self.canary > 0 && actions.len() >= self.canary && alike == last.len();
        (alike >= TOO_MANY || canaries).then_some((*cause, alike, last.len()))
    }

    /// An agent begins.
    pub fn begin(&mut self, node: usize) {
        self.begun.insert(node);
    }

    /// An action ended without a word on the candidate: another may take its place.
    pub fn left(&mut self, node: usize) {
        self.begun.remove(&node);
    }

    /// An action of the candidate ended well, or for a cause. Says whether that trips the breaker.
    pub fn ended(&mut self, node: usize, cause: Option<Cause>, evidence: &str) -> bool {
        self.begun.remove(&node);
        if self.first.len() < self.canary {
            self.first.push(cause);
        }
        self.look(cause, evidence)
    }

    /// An attempt failed and is tried again: it is looked at, and is no end.
    pub fn failed(&mut self, cause: Cause, evidence: &str) -> bool {
        self.look(Some(cause), evidence)
    }

    /// The agent cannot work at all.
    pub fn broken(&mut self, cause: Cause, evidence: &str) -> bool {
        self.broken = true;
        self.trip.get_or_insert(Trip { cause, count: 1, of: 1, canary: false, evidence: evidence.to_owned() });
        true
    }

    fn look(&mut self, cause: Option<Cause>, evidence: &str) -> bool {
        if !self.watches || self.trip.is_some() {
            return false;
        }
        self.window.push_back(cause);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        let Some(cause) = cause else { return false };
        let alike = self.first.len() == self.canary && self.first.iter().all(|first| *first == Some(cause));
        let mut counts: BTreeMap<Cause, usize> = BTreeMap::new();
        for cause in self.window.iter().flatten() {
            *counts.entry(*cause).or_default() += 1;
        }
        let count = counts.get(&cause).copied().unwrap_or(0);
        let evidence = evidence.to_owned();
        if let Some((_, count, of)) = self.doubt().filter(|(doubted, ..)| *doubted == cause) {
            self.trip = Some(Trip { cause, count: count + 1, of: of + 1, canary: false, evidence });
        } else if alike {
            let of = self.first.len();
            self.trip = Some(Trip { cause, count: of, of, canary: true, evidence });
        } else if count >= TOO_MANY {
            self.trip = Some(Trip { cause, count, of: self.window.len(), canary: false, evidence });
        }
        self.trip.is_some()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(breaker: &mut Breaker, ends: &[Option<Cause>]) -> Option<Trip> {
        for (node, cause) in ends.iter().enumerate() {
            breaker.begin(node);
            breaker.ended(node, *cause, "line");
        }
        breaker.trip().cloned()
    }

    #[test]
    fn five_first_ends_alike_pause_the_candidate() {
        let mut breaker = Breaker::new(None, true, false);
        let trip = fed(&mut breaker, &[Some(Cause::NoPatch); 5]);
        assert_eq!(trip, Some(Trip { cause: Cause::NoPatch, count: 5, of: 5, canary: true, evidence: "line".into() }));
        assert_eq!(breaker.may_begin(9), May::Paused);
    }

    #[test]
    fn the_others_wait_only_until_the_canaries_differ() {
        let mut breaker = Breaker::new(Some(3), false, false);
        for node in 0..3 {
            assert_eq!(breaker.may_begin(node), May::Begin);
            breaker.begin(node);
        }
        assert_eq!(breaker.may_begin(3), May::Wait);
        assert_eq!(breaker.may_begin(1), May::Begin, "a canary that is tried again");
        breaker.ended(0, Some(Cause::NoPatch), "");
        assert_eq!(breaker.may_begin(3), May::Wait);
        breaker.left(1);
        assert_eq!(breaker.may_begin(3), May::Begin, "in place of one that said nothing");
        breaker.begin(3);
        assert_eq!(breaker.may_begin(4), May::Wait);
        breaker.ended(2, Some(Cause::Crashed), "");
        assert_eq!(breaker.may_begin(4), May::Begin);
    }

    #[test]
    fn eight_of_the_last_ten_pause_it_and_seven_do_not() {
        let bad = Some(Cause::ToolOutputMissing);
        let mut breaker = Breaker::new(None, true, false);
        assert_eq!(fed(&mut breaker, &[None, bad, bad, bad, bad, None, bad, bad, bad, None, None]), None);
        let mut breaker = Breaker::new(None, true, false);
        let trip = fed(&mut breaker, &[None, bad, bad, bad, bad, None, bad, bad, bad, bad]);
        assert_eq!(trip.map(|trip| (trip.count, trip.of, trip.canary)), Some((8, 10, false)));
    }

    #[test]
    fn an_agent_without_a_model_is_not_watched_unless_the_manifest_says_so() {
        assert_eq!(fed(&mut Breaker::new(None, false, false), &[Some(Cause::NoPatch); 50]), None);
        assert_eq!(fed(&mut Breaker::new(Some(0), true, false), &[Some(Cause::NoPatch); 50]), None);
        assert!(fed(&mut Breaker::new(Some(2), false, false), &[Some(Cause::NoPatch); 2]).is_some());
    }

    #[test]
    fn after_a_run_that_ended_in_a_pause_for_what_settles_nothing_one_tries_for_all() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let before = |failures: i64| {
            let mut breaker = Breaker::new(Some(2), true, false);
            (0..failures).for_each(|n| breaker.failed_before(at(n), usize::from(n % 2 == 0), Cause::ServerError));
            breaker
        };
        assert_eq!(before(1).doubt(), None, "one action is less than the canaries");
        let mut breaker = before(9);
        assert_eq!(breaker.doubt(), Some((Cause::ServerError, 9, 9)));
        assert_eq!(breaker.may_begin(0), May::Begin);
        breaker.begin(0);
        assert_eq!((breaker.may_begin(0), breaker.may_begin(5)), (May::Begin, May::Wait));
        assert!(breaker.failed(Cause::ServerError, "503"), "the first failure of the same cause");
        assert_eq!(breaker.may_begin(5), May::Paused);
        let mut breaker = before(9);
        breaker.begin(0);
        breaker.worked(at(100));
        breaker.ended(0, None, "");
        assert_eq!((breaker.doubt(), breaker.may_begin(5)), (None, May::Begin));
    }

    #[test]
    fn a_person_may_say_to_go_on_but_not_with_an_agent_that_cannot_work() {
        let mut breaker = Breaker::new(None, true, true);
        assert!(fed(&mut breaker, &[Some(Cause::NoPatch); 5]).is_some());
        assert_eq!(breaker.may_begin(9), May::Begin);
        assert!(breaker.goes_on());
        breaker.broken(Cause::MissingModule, "No module named 'mcp'");
        assert_eq!(breaker.may_begin(9), May::Paused);
    }

    proptest! {
        /// Whatever ends come, whoever waits waits for somebody, and a mixed lot pauses nobody.
        #[test]
        fn nobody_waits_for_nobody(canary in 0_u32..7, ends in proptest::collection::vec(0_u8..4, 0..40)) {
            let mut breaker = Breaker::new(Some(canary), true, false);
            let mut next = 0;
            for end in ends {
                while breaker.may_begin(next) == May::Begin && next < 1000 && breaker.begun.len() < 8 {
                    breaker.begin(next);
                    next += 1;
                }
                if breaker.may_begin(next) == May::Wait {
                    prop_assert!(!breaker.begun.is_empty());
                }
                let Some(node) = breaker.begun.iter().next().copied() else { break };
                match end {
                    0 => breaker.left(node),
                    1 => drop(breaker.ended(node, None, "")),
                    2 => drop(breaker.ended(node, Some(Cause::NoPatch), "")),
                    _ => drop(breaker.ended(node, Some(Cause::Crashed), "")),
                }
            }
        }
    }
}
