//! Sums over attempts. A part that is unknown stays unknown in every sum, with the reason.

use std::collections::BTreeSet;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::cost::{Cost, TOO_MUCH};
use crate::attempt::Usage;
use crate::units::{Usd, human_count, human_usd};

/// How many different reasons a sum keeps.
const REASONS: usize = 20;

/// An amount of money of which a part may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// What is known of it.
    pub known: Usd,
    /// How many attempts cost more than that, or may have.
    pub unknown_attempts: u64,
    /// Why.
    pub because: BTreeSet<String>,
    /// Whether an agent rounds the tokens that it tells.
    pub approximate: bool,
}

impl Amount {
    /// Adds the cost of an attempt.
    pub fn add(&mut self, cost: &Cost) {
        let sum = self.known.checked_add(cost.known);
        // A sum that would have to stop at the largest figure is no sum: what stands is a part of it.
        self.known = sum.unwrap_or(self.known);
        self.approximate |= cost.approximate;
        let too_much = sum.is_none().then_some(TOO_MUCH);
        if let Some(because) = too_much.or(cost.unknown.as_deref()) {
            self.unknown_attempts += 1;
            if self.because.len() < REASONS {
                self.because.insert(because.to_owned());
            }
        }
    }

    /// For people: `$1.20`, `$1.20 + 2 unknown`, `unknown`.
    #[must_use]
    pub fn text(&self) -> String {
        let about = if self.approximate { "~" } else { "" };
        match (self.known, self.unknown_attempts) {
            (known, 0) => format!("{about}{}", human_usd(known)),
            (Usd(0), _) => "unknown".to_owned(),
            (known, unknown) => format!("{about}{} + {unknown} unknown", human_usd(known)),
        }
    }

    /// Why a part is unknown, on one line; empty if none is.
    #[must_use]
    pub fn why(&self) -> String {
        self.because.iter().cloned().collect::<Vec<_>>().join("; ")
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut amount = serializer.serialize_struct("Amount", 4)?;
        amount.serialize_field("known", &self.known)?;
        amount.serialize_field("unknown_attempts", &self.unknown_attempts)?;
        amount.serialize_field("because", &self.because)?;
        if self.approximate {
            amount.serialize_field("approximate", &true)?;
        }
        amount.end()
    }
}

/// Tokens of several attempts, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tokens {
    /// Read by the model, without those of its cache.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
    /// Read from the provider's cache.
    pub cache_read: u64,
    /// Written into the provider's cache.
    pub cache_write: u64,
    /// How many attempts used more than that, or may have.
    pub unknown_attempts: u64,
}

impl Tokens {
    /// Adds those of an attempt.
    pub fn add(&mut self, usage: Option<&Usage>) {
        let Some(usage) = usage else {
            self.unknown_attempts += 1;
            return;
        };
        let counts = [usage.input, usage.output, usage.cache_read, usage.cache_write];
        let all = counts.iter().try_fold(self.sum(), |sum, count| sum.checked_add(count.unwrap_or(0)));
        if all.is_none() {
            // More than can be counted: a sum that stops at the largest figure would be a wrong one.
            self.unknown_attempts += 1;
            return;
        }
        let sums = [&mut self.input, &mut self.output, &mut self.cache_read, &mut self.cache_write];
        sums.into_iter().zip(counts).for_each(|(sum, count)| *sum += count.unwrap_or(0));
        let whole = usage.input.is_some() && usage.output.is_some() && usage.unknown_because.is_none();
        self.unknown_attempts += u64::from(!whole);
    }

    /// All of them. `add` sees to it that it can be counted.
    #[must_use]
    pub fn sum(&self) -> u64 {
        [self.input, self.output, self.cache_read, self.cache_write].iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// A count for people, where a count of 0 with an unknown part is unknown.
    #[must_use]
    pub fn text(&self, count: u64) -> String {
        match (count, self.unknown_attempts) {
            (0, 0) => ".".to_owned(),
            (0, _) => "?".to_owned(),
            (count, 0) => human_count(count),
            (count, _) => format!("{}+", human_count(count)),
        }
    }
}

/// What some attempts came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// How many attempts.
    pub attempts: u64,
    /// How many of them settled nothing.
    pub unsettled: u64,
    /// Their tokens.
    pub tokens: Tokens,
    /// What they cost.
    pub cost_usd: Amount,
    /// The part of it that attempts cost which settled nothing.
    pub wasted_usd: Amount,
}

impl Totals {
    /// Adds an attempt.
    pub fn add(&mut self, usage: Option<&Usage>, cost: &Cost, settles: bool) {
        self.attempts += 1;
        self.tokens.add(usage);
        self.cost_usd.add(cost);
        if !settles {
            self.unsettled += 1;
            self.wasted_usd.add(cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_says_what_of_it_is_unknown_and_never_0_for_it() {
        let mut totals = Totals::default();
        assert_eq!(totals.cost_usd.text(), "$0.00");
        totals.add(None, &Cost::unknown("no price for m"), false);
        assert_eq!((totals.cost_usd.text().as_str(), totals.tokens.text(0).as_str()), ("unknown", "?"));
        let known = Cost { known: "1.2".parse().unwrap(), ..Cost::default() };
        let usage = Usage { input: Some(1_500), output: Some(5), ..Usage::default() };
        totals.add(Some(&usage), &known, true);
        assert_eq!(totals.cost_usd.text(), "$1.20 + 1 unknown");
        assert_eq!(totals.tokens.text(totals.tokens.input), "1,500+");
        assert_eq!((totals.wasted_usd.text().as_str(), totals.unsettled), ("unknown", 1));
        let json = serde_json::to_value(&totals.cost_usd).unwrap();
        assert_eq!(json, serde_json::json!({"known": 1.2, "unknown_attempts": 1, "because": ["no price for m"]}));
    }

    #[test]
    fn a_sum_that_no_figure_holds_is_unknown_and_not_the_largest_figure() {
        let mut totals = Totals::default();
        let usage = Usage { input: Some(u64::MAX - 10), output: Some(5), ..Usage::default() };
        for dollars in ["18000000000", "1000000000"] {
            totals.add(Some(&usage), &Cost { known: dollars.parse().unwrap(), ..Cost::default() }, true);
        }
        assert_eq!(totals.cost_usd.text(), "$18000000000.00 + 1 unknown");
        assert!(totals.cost_usd.why().starts_with("it is more than flow can count"), "{}", totals.cost_usd.why());
        assert_eq!((totals.tokens.input, totals.tokens.unknown_attempts), (u64::MAX - 10, 1));
    }
}
