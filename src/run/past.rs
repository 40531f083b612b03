//! What earlier attempts of a candidate's agent tell: how long one takes, and what it uses a minute.

use std::time::Duration;

use super::lane::Rate;
use crate::attempt::Ended;
use crate::manifest::Kind;
use crate::plan::Plan;
use crate::store::Index;

/// Jobs whose attempts are read at most.
const READ: usize = 200;

/// What is known of the agents of one candidate.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// In milliseconds.
    walls: Vec<u64>,
    /// Calls and the minutes in which they were made.
    requests: (f64, f64),
    /// Tokens and the minutes in which they were used.
    tokens: (f64, f64),
}

impl Past {
    /// What the records hold of a candidate's jobs. Records that cannot be read tell nothing.
    #[must_use]
    pub fn read(plan: &Plan, index: &Index, candidate: usize) -> Self {
        let mut past = Self::default();
        let own =
            |node: &usize| plan.nodes[*node].point.candidate == Some(candidate) && plan.kind(*node) == Kind::Agent;
        for node in (0..plan.nodes.len()).filter(own).take(READ) {
            let keys = index.nearest_candidates(Kind::Agent.word(), &plan.nodes[node].axes);
            let Some(attempts) = keys.first().and_then(|key| index.attempts(key).ok()) else { continue };
            attempts.iter().for_each(|ended| past.add(ended));
        }
        past
    }

    /// Takes one more attempt. What did not settle ended before its time and tells nothing of it.
    pub fn add(&mut self, ended: &Ended) {
        if ended.kind != Kind::Agent.word() || !ended.outcome.settles() {
            return;
        }
        let wall = ended.process.as_ref().map_or(ended.wall_ms, |process| process.active_ms);
        self.walls.push(wall);
        let minutes = Duration::from_millis(wall).as_secs_f64() / 60.0;
        let Some(usage) = ended.usage.as_ref().filter(|_| minutes > 0.0) else { return };
        #[expect(clippy::cast_precision_loss, reason = "no attempt makes 2^52 calls")]
        let add = |sum: &mut (f64, f64), count: u64| *sum = (sum.0 + count as f64, sum.1 + minutes);
        if let Some(calls) = usage.calls {
            add(&mut self.requests, calls);
        }
        if let (Some(input), Some(output)) = (usage.input, usage.output) {
            let cached = usage.cache_read.unwrap_or(0).saturating_add(usage.cache_write.unwrap_or(0));
            add(&mut self.tokens, input.saturating_add(output).saturating_add(cached));
        }
    }

    /// The time within which nine of ten were done, if any is known.
    #[must_use]
    pub fn expected(&self) -> Option<Duration> {
        let mut walls = self.walls.clone();
        walls.sort_unstable();
        let at = (walls.len() * 9).div_ceil(10).checked_sub(1)?;
        walls.get(at).copied().map(Duration::from_millis)
    }

    /// What one uses a minute on the average.
    #[must_use]
    pub fn rate(&self) -> Rate {
        let mean = |(count, minutes): (f64, f64)| (minutes > 0.0).then(|| count / minutes);
        Rate { requests: mean(self.requests), tokens: mean(self.tokens) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_are_done_within_the_expected_time() {
        let of = |walls: Vec<u64>| Past { walls, ..Past::default() }.expected().map(|span| span.as_millis());
        assert_eq!(of(Vec::new()), None);
        assert_eq!(of(vec![7]), Some(7));
        assert_eq!(of((1..=10).rev().collect()), Some(9));
        assert_eq!(of((1..=11).collect()), Some(10));
    }

    #[test]
    fn what_is_not_known_is_no_rate() {
        assert_eq!(Past::default().rate(), Rate::default());
        let past = Past { requests: (60.0, 2.0), ..Past::default() };
        assert_eq!(past.rate(), Rate { requests: Some(30.0), tokens: None });
    }
}
