//! How a budget stands: what attempts count as, and whether one more may begin.
//!
//! An attempt of unknown cost counts as what was reserved for it, or would be today if that is more.

use super::expect::Reserve;
use super::{Entry, Ledger};
use crate::attempt::Reserved;
use crate::manifest::{Budget, Pipeline};
use crate::names::RunId;
use crate::units::{Usd, human_usd};

/// What some attempts count as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of it.
    pub amount: Usd,
    /// The part of it that stands for what is not known.
    pub assumed: Usd,
    /// How many attempts that part is for.
    pub unknown: u64,
    /// A candidate of which an attempt cost nobody knows what, with nothing to assume: no amount is sure then.
    pub unbounded: Option<String>,
}

impl Counted {
    /// For people: `$4.80, of which $1.00 is assumed for 1 attempt of unknown cost`.
    #[must_use]
    pub fn text(&self) -> String {
        let attempts = if self.unknown == 1 { "attempt" } else { "attempts" };
        match (&self.unbounded, self.unknown) {
            (Some(candidate), _) => format!("{} and what an attempt of {candidate} cost", human_usd(self.amount)),
            (None, 0) => human_usd(self.amount),
            (None, count) => format!(
                "{}, of which {} is assumed for {count} {attempts} of unknown cost",
                human_usd(self.amount),
                human_usd(self.assumed)
            ),
        }
    }
}

impl Counted {
    /// The same, with why it may be less another time.
    #[must_use]
    pub fn told(&self) -> String {
        match self.unknown {
            0 => self.text(),
            _ => format!("{}; what is assumed changes with what becomes known of an attempt's cost", self.text()),
        }
    }
}

/// What was spent on a pipeline, and what its candidates reserve.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Over all its runs.
    pub total: Counted,
    /// Within one of them.
    pub run: Counted,
    reserves: Vec<(String, Reserve)>,
}

impl Standing {
    /// What an attempt of a candidate reserves. One that the manifest has no longer goes by what its own attempts cost, else it is
    /// taken for the dearest that there is.
    #[must_use]
    pub fn reserve(&self, candidate: &str) -> Reserve {
        let known = self.reserves.iter().find(|(name, _)| name == candidate).map(|(_, reserve)| *reserve);
        let amounts = self.reserves.iter().filter_map(|(_, reserve)| match reserve {
            Reserve::Amount(amount, basis) => Some((*amount, *basis)),
            Reserve::All => None,
        });
        let dearest = amounts.max_by_key(|(amount, _)| *amount).map(|(amount, basis)| Reserve::Amount(amount, basis));
        known.or(dearest).unwrap_or(Reserve::All)
    }

    fn count(&self, counted: &mut Counted, entry: &Entry) {
        let Some(cost) = &entry.cost else { return };
        let candidate = entry.candidate().unwrap_or_default();
        if cost.unknown.is_none() {
            counted.amount += cost.known;
            return;
        }
        counted.unknown += 1;
        // All that was left then says nothing of what one attempt costs.
        let then = entry.ended.reserved.filter(|reserved| !reserved.all).map(Reserved::amount);
        let today = match self.reserve(candidate) {
            Reserve::Amount(reserved, _) => Some(reserved),
            Reserve::All => None,
        };
        match today.max(then) {
            Some(reserved) => {
                let amount = cost.counted(reserved);
                counted.amount += amount;
                counted.assumed += amount.less(cost.known);
            }
            None => {
                counted.amount += cost.known;
                counted.unbounded = Some(candidate.to_owned());
            }
        }
    }

    /// What some attempts of one action count as: of what is unknown that part which is not itself assumed from `per-job`,
    /// for else one attempt that was interrupted would use up its job.
    #[must_use]
    pub fn of_job<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Usd {
        entries
            .map(|entry| {
                let Some(cost) = &entry.cost else { return Usd(0) };
                match self.reserve(entry.candidate().unwrap_or_default()) {
                    Reserve::Amount(reserved, basis) if basis != super::Basis::PerJob => cost.counted(reserved),
                    _ => cost.known,
                }
            })
            .sum()
    }
}

impl Ledger {
    /// How the budget of a pipeline stands, and how a run within it.
    #[must_use]
    pub fn standing(&self, pipeline: &Pipeline, budget: &Budget, run: Option<&RunId>) -> Standing {
        let mut reserves: Vec<(String, Reserve)> = pipeline
            .candidates
            .iter()
            .map(|candidate| (candidate.name.value.to_string(), self.reserve(candidate, budget)))
            .collect();
        // Under another name an attempt counts as it did under its own.
        for name in self.gone() {
            let today =
                reserves.iter().find(|(known, _)| known == self.rates.today(&name)).map(|(_, reserve)| *reserve);
            reserves.extend(today.or_else(|| self.reserve_of_gone(&name)).map(|reserve| (name, reserve)));
        }
        let mut standing = Standing { total: Counted::default(), run: Counted::default(), reserves };
        let (mut total, mut of_run) = (Counted::default(), Counted::default());
        let own = run.map(Self::of_run);
        for entry in &self.entries {
            standing.count(&mut total, entry);
            if own.as_ref().is_some_and(|own| own(entry)) {
                standing.count(&mut of_run, entry);
            }
        }
        (standing.total, standing.run) = (total, of_run);
        standing
    }
}
