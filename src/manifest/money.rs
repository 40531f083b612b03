//! Prices, budget and expectations: built from their nodes, and checked.
//!
//! Whether a budget can hold is checked here as far as the manifest alone tells; what was spent is the ledger's to say.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::{Pipeline, Spanned};
use crate::money::{Pattern, Price, Prices, Rate};
use crate::units::Usd;

/// A longer id is a slip, and two of them would take long to compare.
const LONGEST_ID: usize = 200;

/// The most that agents may cost.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Over all runs of the pipeline on a store.
    pub total: Option<Spanned<Usd>>,
    /// Within one run.
    pub per_run: Option<Spanned<Usd>>,
    /// An action whose attempts cost so much is not tried again.
    pub per_job: Option<Spanned<Usd>>,
}

/// What one attempt of a candidate's agent is expected to take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expect {
    /// Its cost.
    pub cost: Option<Usd>,
    /// All its tokens.
    pub tokens: Option<u64>,
    /// How long it takes.
    pub time: Option<std::time::Duration>,
}

/// Reads the first moment of a day in UTC.
pub(super) fn parse_date(text: &str) -> Result<Timestamp, String> {
    let bad = |why: &str| format!("`{text}` is no date: {why}");
    if text.len() != 10 {
        return Err(bad("it is written \"2025-09-29\""));
    }
    let date: jiff::civil::Date = text.parse().map_err(|_| bad("it is written \"2025-09-29\""))?;
    date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|error| bad(&error.to_string()))
}

/// Builds the price list of all files.
pub(super) fn prices(nodes: &[Node<'_>], report: &Report) -> Prices {
    let models = nodes.iter().flat_map(|node| node.all("model"));
    let mut list: Vec<(Price, Node<'_>)> = Vec::new();
    for node in models {
        let Some(price) = price(node) else { continue };
        if price.model.as_str().len() > LONGEST_ID {
            let message = format!("the id of a model is longer than {LONGEST_ID} characters");
            report.add(Draft::new("bad-text", node.place(), message).help("write a part of it, and `*` for the rest"));
            continue;
        }
        if let Some((other, first)) = list.iter().find(|(other, _)| clash(other, &price)) {
            let same = other.model == price.model;
            let message = match same {
                true => format!("`{}` has two prices from one date", price.model.as_str()),
                false => format!("`{}` and `{}` mean the same models", other.model.as_str(), price.model.as_str()),
            };
            let help = match same {
                true => "leave one out, or correct its `since`",
                false => "which of the two would hold? Write ids of which each model matches one only",
            };
            report.add(
                Draft::new("overlapping-prices", node.place(), message)
                    .label("again here")
                    .other(first.place(), "first here")
                    .help(help),
            );
            continue;
        }
        list.push((price, node));
    }
    Prices(list.into_iter().map(|(price, _)| price).collect())
}

/// Whether two prices may be meant at once.
fn clash(one: &Price, other: &Price) -> bool {
    if one.model == other.model { one.since == other.since } else { one.model.overlaps(&other.model) }
}

fn price(node: Node<'_>) -> Option<Price> {
    let above = node.child("above");
    Some(Price {
        model: Pattern::new(node.text()?.value),
        since: node.prop("since").and_then(Value::date)?,
        rate: rate(node)?,
        above: match above {
            Some(above) => Some((above.arg(0)?.whole()?, rate(above)?)),
            None => None,
        },
    })
}

fn rate(node: Node<'_>) -> Option<Rate> {
    let money = |name: &str| Some(node.prop(name)?.money()?.value);
    Some(Rate {
        input: money("input")?,
        output: money("output")?,
        cache_read: money("cache-read"),
        cache_write: money("cache-write"),
    })
}

/// Builds the budget of a pipeline.
pub(super) fn budget(node: Node<'_>, report: &Report) -> Option<Budget> {
    let budget = Budget {
        total: node.arg(0).and_then(Value::money),
        per_run: node.prop("per-run").and_then(Value::money),
        per_job: node.prop("per-job").and_then(Value::money),
    };
    if node.entries().next().is_none() {
        report.add(
            Draft::new("missing-argument", node.place(), "`budget` says no amount")
                .label("incomplete")
                .help("write `budget (usd)125.00`, or `budget per-run=(usd)20.00`"),
        );
    }
    Some(budget)
}

/// Builds what a candidate is expected to take.
pub(super) fn expect(node: Node<'_>, report: &Report) -> Expect {
    if node.entries().next().is_none() {
        report.add(
            Draft::new("missing-property", node.place(), "`expect` says nothing")
                .label("incomplete")
                .help("write `expect cost=(usd)0.50 tokens=1200000 time=\"10m\"`, or a part of it"),
        );
    }
    Expect {
        cost: node.prop("cost").and_then(Value::money).map(|cost| cost.value),
        tokens: node.prop("tokens").and_then(Value::whole),
        time: node.prop("time").and_then(Value::span).map(|time| time.value),
    }
}

/// A budget can only hold where the cost of an attempt is known after it, or a cautious guess is there to stand for it.
pub(super) fn check(pipeline: &Pipeline, report: &Report) {
    if pipeline.budget.is_none() {
        return;
    }
    for candidate in &pipeline.candidates {
        let free = pipeline.agents.get(&candidate.agent.value).is_none_or(|agent| agent.free);
        let expected = candidate.expect.and_then(|expect| expect.cost);
        if !free && expected == Some(Usd(0)) {
            let message = format!(
                "`{}` is expected to cost nothing, and so the budget would bound nothing",
                candidate.name.value
            );
            report.add(
                Draft::new("budget-without-price", candidate.name.place, message).label("`expect cost=(usd)0`").help(
                    "write what an attempt may cost, `expect cost=(usd)0.50`; an agent that calls no model says `free`",
                ),
            );
        }
        let priced = candidate.model.as_ref().is_some_and(|model| pipeline.prices.knows(&model.value));
        if let (Some(model), true, false, None) = (&candidate.model, priced, free, expected)
            && let Err(why) = pipeline.prices.of(&model.value, jiff::Timestamp::now())
        {
            report.notice(model.place, format!("{why}: what is spent before is unknown to the budget"));
        }
        if free || expected.is_some() || priced {
            continue;
        }
        let why = match &candidate.model {
            Some(model) => format!("there is no price for `{}`", model.value),
            None => "it names no `model`".to_owned(),
        };
        let message = format!("the budget cannot hold: what `{}` costs would not be known", candidate.name.value);
        report.add(
            Draft::new("budget-without-price", candidate.name.place, message).label(why).help(
                "import `prices` that name its model; or say what an attempt may cost, `expect cost=(usd)0.50`, which then counts for each",
            ),
        );
    }
}
