//! What the next attempt or the next job of a candidate may come to, by what the ones before it came to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Ledger, usage_of};
use crate::manifest::{Budget, Candidate};
use crate::measure::stats::t_quantile;
use crate::units::{Usd, human_usd};

/// From how many attempts on the ledger tells better than a guess.
const ENOUGH: usize = 3;
/// From how many attempts on it tells better than the manifest's own guess where that is higher; and so many of the last ones
/// are never reserved for at less than their dearest.
const MANY: usize = 20;
/// The newest so many are looked at.
const NEWEST: usize = 200;

/// What an amount was expected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// From so many attempts.
    Attempts(usize),
    /// From the candidate's `expect`.
    Expect,
    /// From the budget's `per-job`.
    PerJob,
    /// It calls no model.
    Free,
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attempts(1) => f.write_str("from 1 attempt"),
            Self::Attempts(count) => write!(f, "from {count} attempts"),
            Self::Expect => f.write_str("from `expect`"),
            Self::PerJob => f.write_str("from `per-job`"),
            Self::Free => f.write_str("it calls no model"),
        }
    }
}

/// What is reserved before an agent starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// An amount that most attempts stay below, and where it is from.
    Amount(Usd, Basis),
    /// Nothing tells: all that the budget has left, so that one attempt goes alone and tells.
    All,
}

impl Reserve {
    /// The amount where all that is left is so much.
    #[must_use]
    pub fn within(self, left: Usd) -> Usd {
        match self {
            Self::Amount(amount, _) => amount,
            Self::All => left,
        }
    }
}

/// What one of several alike may come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    mean: f64,
    sd: f64,
    least: f64,
    samples: u32,
}

impl Estimate {
    fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let least = values.iter().copied().reduce(f64::min)?;
        let mean = values.iter().sum::<f64>() / count;
        let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = if values.len() > 1 { (square / (count - 1.0)).sqrt() } else { f64::INFINITY };
        Some(Self { mean, sd, least, samples: u32::try_from(values.len()).unwrap_or(u32::MAX) })
    }

    fn said(value: f64) -> Self {
        Self { mean: value, sd: f64::INFINITY, least: 0.0, samples: 0 }
    }

    /// What one is expected to come to.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Where the sum of so many lies at 95 %, as far as they vary like those before; `None` if too few were seen. Never below
    /// what the least of those before would sum up to.
    #[must_use]
    pub fn interval(&self, count: usize) -> Option<[f64; 2]> {
        if self.samples < 2 || count == 0 {
            return None;
        }
        let n = count as f64;
        let width = t_quantile(0.05, self.samples - 1) * self.sd * (n + n * n / f64::from(self.samples)).sqrt();
        let sum = n * self.mean;
        Some([(sum - width).max(n * self.least), sum + width])
    }
}

/// What the agent of one job of a candidate may come to, all its attempts together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectation {
    /// Dollars.
    pub cost: Option<(Estimate, Basis)>,
    /// Tokens of all kinds.
    pub tokens: Option<(Estimate, Basis)>,
    /// Seconds.
    pub seconds: Option<(Estimate, Basis)>,
}

/// What is known of the jobs of a candidate whose agents settled.
#[derive(Default)]
struct Job {
    settled: bool,
    attempts: usize,
    cost: Option<Usd>,
    tokens: Option<u64>,
    millis: u64,
}

impl Ledger {
    /// What to reserve for an attempt of a candidate. Until many were seen the most of what was seen and of its `expect`, for the
    /// first ones may be cheap because they failed; then what nine of ten stayed within, and all of the last ones. Where neither
    /// tells, the budget's `per-job`.
    #[must_use]
    pub fn reserve(&self, candidate: &Candidate, budget: &Budget) -> Reserve {
        if self.rates.is_free(candidate) {
            return Reserve::Amount(Usd(0), Basis::Free);
        }
        let known = telling(self.of(candidate));
        let expected = candidate.expect.and_then(|expect| expect.cost);
        let per_job = budget.per_job.as_ref().map(|amount| amount.value);
        let Some(seen) = high(&known) else {
            return match (expected, per_job) {
                (Some(expected), _) => Reserve::Amount(expected, Basis::Expect),
                (None, Some(per_job)) => Reserve::Amount(per_job, Basis::PerJob),
                (None, None) => Reserve::All,
            };
        };
        match (expected, per_job) {
            (Some(expected), _) if known.len() < MANY && expected > seen => Reserve::Amount(expected, Basis::Expect),
            (None, Some(per_job)) if known.len() < ENOUGH => Reserve::Amount(per_job, Basis::PerJob),
            _ => Reserve::Amount(seen, Basis::Attempts(known.len())),
        }
    }

    /// What an attempt of a candidate that the pipeline has no longer may have cost, by its own that are known.
    pub(super) fn reserve_of_gone(&self, name: &str) -> Option<Reserve> {
        let own = |entry: &&super::Entry| entry.cost.is_some() && entry.candidate() == Some(name);
        let known = telling(self.entries.iter().rev().filter(own));
        Some(Reserve::Amount(high(&known)?, Basis::Attempts(known.len())))
    }

    /// What the agent of one job of a candidate may come to.
    #[must_use]
    pub fn expect(&self, candidate: &Candidate) -> Expectation {
        let mut jobs: BTreeMap<_, Job> = BTreeMap::new();
        for entry in self.of(candidate) {
            let fresh = Job { cost: Some(Usd(0)), tokens: Some(0), ..Job::default() };
            let job = jobs.entry(entry.ended.key).or_insert(fresh);
            job.attempts += 1;
            job.settled |= entry.ended.outcome.settles();
            job.millis = job.millis.saturating_add(entry.ended.wall_ms);
            let cost = entry.cost.as_ref().and_then(crate::money::Cost::exact);
            job.cost = job.cost.zip(cost).map(|(sum, cost)| sum + cost);
            let tokens = usage_of(&entry.ended).filter(|usage| usage.unknown_because.is_none()).and_then(|usage| {
                let cached = usage.cache_read.unwrap_or(0).saturating_add(usage.cache_write.unwrap_or(0));
                Some(usage.input?.saturating_add(usage.output?).saturating_add(cached))
            });
            job.tokens = job.tokens.zip(tokens).map(|(sum, tokens)| sum.saturating_add(tokens));
        }
        let mut settled: Vec<&Job> = jobs.values().filter(|job| job.settled).collect();
        if settled.is_empty() {
            // Nothing settles today, as after a change of the tables: what was paid tells more than nothing.
            settled = jobs.values().filter(|job| job.cost.is_some_and(|cost| cost > Usd(0))).collect();
        }
        let from = |value: &dyn Fn(&Job) -> Option<f64>, said: Option<f64>| {
            let known: Vec<(f64, usize)> = settled.iter().filter_map(|job| Some((value(job)?, job.attempts))).collect();
            let values: Vec<f64> = known.iter().map(|(value, _)| *value).collect();
            let attempts = known.iter().map(|(_, attempts)| attempts).sum();
            let seen = Estimate::of(&values).map(|estimate| (estimate, Basis::Attempts(attempts)));
            let said = said.map(|value| (Estimate::said(value), Basis::Expect));
            if values.len() >= ENOUGH { seen } else { said.or(seen) }
        };
        let expect = candidate.expect.unwrap_or_default();
        let nothing = (Estimate::said(0.0), Basis::Free);
        let cost = match self.rates.is_free(candidate) {
            true => Some(nothing),
            false => from(&|job| job.cost.map(Usd::dollars), expect.cost.map(Usd::dollars)),
        };
        Expectation {
            cost,
            tokens: from(&|job| job.tokens.map(|tokens| tokens as f64), expect.tokens.map(|tokens| tokens as f64)),
            seconds: from(&|job| Some(job.millis as f64 / 1000.0), expect.time.map(|time| time.as_secs_f64())),
        }
    }

    /// The attempts of a candidate with the model that it asks for today, the newest first.
    fn of(&self, candidate: &Candidate) -> impl Iterator<Item = &super::Entry> {
        let model = candidate.model.as_ref().map(|model| model.value.as_str());
        let name = candidate.name.value.as_str();
        let own = move |entry: &&super::Entry| {
            entry.cost.is_some()
                && entry.candidate().map(|old| self.rates.today(old)) == Some(name)
                && entry.model.as_deref() == model
        };
        self.entries.iter().rev().filter(own)
    }
}

/// What the newest attempts of some cost, as far as they tell what another may.
fn telling<'a>(entries: impl Iterator<Item = &'a super::Entry>) -> Vec<Usd> {
    let known = entries.filter_map(|entry| Some((entry, entry.cost.as_ref()?.exact()?)));
    // An attempt that broke off before it used anything tells nothing of one that does not.
    let telling = known.filter(|(entry, cost)| *cost > Usd(0) || entry.ended.outcome.settles());
    telling.map(|(_, cost)| cost).take(NEWEST).collect()
}

/// What an attempt may well cost where the ones before it, the newest first, cost this: what nine of ten stayed within (by the
/// nearest rank), but no less than any of the last ones.
fn high(newest_first: &[Usd]) -> Option<Usd> {
    let mut sorted = newest_first.to_vec();
    sorted.sort_unstable();
    let most = sorted.get((sorted.len() * 9).div_ceil(10).saturating_sub(1)).copied();
    let recent = newest_first.iter().take(MANY).max().copied();
    most.max(recent)
}

/// An expected sum for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Sum {
    /// What it is expected to be.
    pub expected: f64,
    /// Where it lies at 95 %, as far as that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// What that rests on.
    pub basis: String,
}

impl Sum {
    /// The sum of so many alike.
    #[must_use]
    pub fn of((estimate, basis): (Estimate, Basis), count: usize) -> Self {
        let expected = estimate.mean() * count as f64;
        Self { expected, interval: estimate.interval(count), basis: basis.to_string() }
    }

    /// As money, for people: `$1.20 ($0.90 to $1.50)`.
    #[must_use]
    pub fn dollars(&self) -> String {
        self.text(&|value| human_usd(Usd::nearest(value)))
    }

    /// For people.
    #[must_use]
    pub fn text(&self, say: &dyn Fn(f64) -> String) -> String {
        match self.interval {
            Some([low, high]) if say(low) != say(high) => {
                format!("{} ({} to {})", say(self.expected), say(low), say(high))
            }
            _ => say(self.expected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dearest_of_the_last_attempts_is_reserved_and_a_dear_one_of_long_ago_is_forgotten() {
        assert_eq!(high(&[]), None);
        assert_eq!(high(&[Usd(1), Usd(9), Usd(2)]), Some(Usd(9)));
        let mut costs = vec![Usd(1); 60];
        costs[MANY - 1] = Usd(9);
        assert_eq!(high(&costs), Some(Usd(9)));
        costs.swap(MANY - 1, MANY);
        assert_eq!(high(&costs), Some(Usd(1)));
    }

    #[test]
    fn the_interval_of_a_sum_holds_what_the_samples_promise_and_no_less_than_their_least() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert!((estimate.mean() - 2.0).abs() < 1e-12);
        // t(2) = 4.303, sd = 1, sqrt(1 + 1/3).
        let [low, high] = estimate.interval(1).unwrap();
        assert!((low - 1.0).abs() < 1e-12 && (high - (2.0 + 4.302_653 * (4.0f64 / 3.0).sqrt())).abs() < 1e-4, "{high}");
        assert!(Estimate::of(&[]).is_none());
        assert!(Estimate::of(&[1.0]).unwrap().interval(5).is_none() && Estimate::said(1.0).interval(5).is_none());
        assert_eq!(Estimate::of(&[2.0, 2.0]).unwrap().interval(10), Some([20.0, 20.0]));
    }
}
