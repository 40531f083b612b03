//! What was spent: totals of attempts by candidate, of one run and of all runs of a pipeline, for people and for programs.
//!
//! Sums of the ledger; what of them is unknown is said. An attempt that serves several jobs counts once.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::ledger::{Entry, Ledger, usage_of};
use crate::manifest::Pipeline;
use crate::money::{Amount, Totals};
use crate::names::RunId;
use crate::report::jobs::JobResult;
use crate::text::{Table, wrap};
use crate::units::{Usd, human_count, human_usd};

/// What was spent on a pipeline.
#[derive(Debug, Serialize)]
pub struct Spent {
    /// By one run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Part>,
    /// By all runs on this store.
    pub all: Part,
    /// What of it counts against the budget, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Against>,
}

/// How a budget stands.
#[derive(Debug, Serialize)]
pub struct Against {
    /// The amount over all runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<Usd>,
    /// What all runs spent, with what is assumed for attempts of unknown cost.
    pub spent_usd: Usd,
    /// The part of it that is assumed.
    pub assumed_usd: Usd,
    #[serde(skip)]
    spent: String,
}

/// What some attempts came to.
#[derive(Debug, Serialize)]
pub struct Part {
    /// All of them.
    #[serde(flatten)]
    pub totals: Totals,
    /// What the slots cost that they and other steps held: beside the cost of the agents, never within it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_usd: Option<Amount>,
    /// By candidate.
    pub candidates: BTreeMap<String, Totals>,
}

impl Part {
    fn of(ledger: &Ledger, wanted: impl Fn(&Entry) -> bool) -> Self {
        Self {
            totals: ledger.totals(&wanted),
            machine_usd: ledger.machine_totals(&wanted),
            candidates: ledger.by_candidate(&wanted),
        }
    }

    fn is_nothing(&self) -> bool {
        nothing(&self.totals) && self.machine_usd.as_ref().is_none_or(|amount| *amount == Amount::default())
    }
}

/// Whether attempts used nothing, and that is known.
fn nothing(totals: &Totals) -> bool {
    totals.tokens.sum() == 0 && totals.tokens.unknown_attempts == 0 && totals.cost_usd == Amount::default()
}

impl Spent {
    /// Sums up a ledger.
    #[must_use]
    pub fn of(ledger: &Ledger, pipeline: &Pipeline, run: Option<&RunId>) -> Self {
        let budget = pipeline.budget.as_ref().map(|budget| {
            let standing = ledger.standing(pipeline, budget, None);
            Against {
                limit_usd: budget.total.as_ref().map(|amount| amount.value),
                spent_usd: standing.total.amount,
                assumed_usd: standing.total.assumed,
                spent: standing.total.told(),
            }
        });
        let run = run.map(|run| Part::of(ledger, Ledger::of_run(run)));
        Self { run, all: Part::of(ledger, |_| true), budget }
    }

    /// A table for people; empty if nothing was used.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        if self.all.is_nothing() {
            return String::new();
        }
        let parts = [self.run.as_ref().map(|part| ("this run", part)), Some(("all runs", &self.all))];
        let parts: Vec<(&str, &Part)> = parts.into_iter().flatten().collect();
        let cached = self.all.totals.tokens.cache_read + self.all.totals.tokens.cache_write > 0;
        let mut heading = vec!["spent", "attempts", "tokens in"];
        heading.extend(cached.then_some("cached"));
        heading.extend(["out", "cost", "wasted"]);
        heading.extend(self.all.machine_usd.as_ref().map(|_| "machine"));
        let columns = heading.len();
        let mut table = Table::new(&heading).right(1..columns);
        let mut because: BTreeSet<&str> = BTreeSet::new();
        for (name, part) in parts {
            table.row(row(name, &part.totals, cached, part.machine_usd.as_ref()));
            let used: Vec<_> = part.candidates.iter().filter(|(_, totals)| !nothing(totals)).collect();
            for (candidate, totals) in &used {
                table.row(row(&format!("  {candidate}"), totals, cached, None));
            }
            because.extend(part.totals.cost_usd.because.iter().map(String::as_str));
        }
        let mut text = format!("\n{}", table.text());
        if !because.is_empty() {
            let why = because.into_iter().collect::<Vec<_>>().join("; ");
            let note = format!("+ or unknown: some attempts cost more, or may: {why}");
            text.push_str(&format!("  {}\n", wrap(&note, width.saturating_sub(2)).join("\n    ")));
        }
        if let Some(budget) = &self.budget {
            let limit = budget.limit_usd.map_or_else(String::new, |limit| format!(" of {}", human_usd(limit)));
            let line = format!("budget{limit}: spent {}", budget.spent);
            text.push_str(&format!("  {}\n", wrap(&line, width.saturating_sub(2)).join("\n    ")));
        }
        text
    }
}

fn row(name: &str, totals: &Totals, cached: bool, machine: Option<&Amount>) -> Vec<String> {
    let tokens = &totals.tokens;
    let mut row = vec![name.to_owned(), human_count(totals.attempts), tokens.text(tokens.input)];
    if cached {
        row.push(tokens.text(tokens.cache_read.saturating_add(tokens.cache_write)));
    }
    row.extend([tokens.text(tokens.output), short(&totals.cost_usd), short(&totals.wasted_usd)]);
    row.extend(machine.map(short));
    row
}

/// An amount in a column: `$1.20+` where more was spent than is known.
fn short(amount: &Amount) -> String {
    let about = if amount.approximate { "~" } else { "" };
    match (amount.known.0, amount.unknown_attempts) {
        (0, 0) => ".".to_owned(),
        (0, _) => "unknown".to_owned(),
        (_, 0) => format!("{about}{}", human_usd(amount.known)),
        (_, _) => format!("{about}{}+", human_usd(amount.known)),
    }
}

/// The candidates that several models answered, each with their ids: their results are of no single model.
#[must_use]
pub fn several_models<'a>(answers: impl Iterator<Item = (&'a str, &'a [String])>) -> Vec<String> {
    let mut by: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (candidate, models) in answers {
        by.entry(candidate).or_default().extend(models.iter().map(String::as_str));
    }
    let several = by.into_iter().filter(|(_, models)| models.len() > 1);
    let said = several.map(|(candidate, models)| {
        let models: Vec<&str> = models.into_iter().collect();
        format!("warning: {candidate} was answered by {} models: {}", models.len(), models.join(", "))
    });
    said.collect()
}

/// The same of results.
#[must_use]
pub fn several_models_of(results: &[JobResult]) -> Vec<String> {
    several_models(
        results.iter().map(|result| (result.axes.get("candidate").unwrap_or_default(), result.models.as_slice())),
    )
}

/// The same of the attempts of a run.
#[must_use]
pub fn several_models_in(ledger: &Ledger, run: &RunId) -> Vec<String> {
    let own = Ledger::of_run(run);
    let entries = ledger.entries().iter().filter(|entry| own(entry) && entry.ended.outcome.settles());
    several_models(entries.map(|entry| {
        let models = usage_of(&entry.ended).map(|usage| usage.models.as_slice()).unwrap_or_default();
        (entry.candidate().unwrap_or_default(), models)
    }))
}
