//! What a plan may come to: tokens, cost and time, from the ledger's own attempts or from what the manifest expects, and how many
//! jobs the budget allows.
//!
//! An upper estimate in one respect: what only follows another action may be served after all.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use crate::ledger::{Expectation, Ledger, Reserve, Standing, Sum};
use crate::manifest::{Kind, Pipeline};
use crate::money::Amount;
use crate::plan::{Ask, Plan};
use crate::run::durations::Durations;
use crate::text::{counted, wrap};
use crate::units::{Usd, human_count, human_span, human_usd};
use crate::why::forecast::{Forecast, State};

/// Columns that are written to where nobody asks for less.
const USUAL: usize = 80;

/// What a plan may come to.
#[derive(Debug)]
pub struct Estimate {
    /// By candidate, those whose agents would run and call a model.
    pub candidates: BTreeMap<String, CandidateEstimate>,
    /// All of it; of what has no estimate it is said.
    pub cost: Amount,
    /// The part of it that only comes about if what some agents read comes out otherwise, and of how many agents.
    pub follows: (usize, Amount),
    /// Whether something would run, and no agent that is paid for although there are some.
    pub free: bool,
    /// Where the cost lies at 95 %, if that can be said of all of it.
    pub cost_interval: Option<[f64; 2]>,
    /// Seconds from begin to end; `None` if nothing would run that takes time, or nothing is known of what would.
    pub wall: Option<f64>,
    /// Where they lie.
    pub wall_interval: Option<[f64; 2]>,
    /// Steps of which no attempt is recorded, so that their time is a guess.
    pub guessed: Vec<String>,
    /// The same seconds without what is guessed.
    pub wall_known: Option<f64>,
    /// How the budget stands, if there is one.
    pub budget: Option<BudgetEstimate>,
}

/// What the agents of one candidate may come to.
#[derive(Debug, Serialize)]
pub struct CandidateEstimate {
    /// How many jobs.
    pub jobs: usize,
    /// Dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Sum>,
    /// Tokens of all kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Sum>,
    /// Seconds of agents at work, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_s: Option<Sum>,
}

/// How many jobs the budget allows.
#[derive(Debug, Serialize)]
pub struct BudgetEstimate {
    /// What is spent so far, with what is assumed for attempts of unknown cost.
    pub spent_usd: Usd,
    /// The amount over all runs, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<Usd>,
    /// The amount of one run, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_run_usd: Option<Usd>,
    /// How many jobs it allows.
    pub allows: usize,
    /// Of how many that would have to be paid for.
    pub of: usize,
    /// Whether it may turn out to allow more, because what an attempt costs is not known yet.
    pub at_least: bool,
    /// What is reserved for an attempt of each candidate, and why so much.
    pub reserves: BTreeMap<String, String>,
    #[serde(skip)]
    spent: String,
}

/// Estimates a plan. `beside` is how many actions that hold nothing go side by side.
#[must_use]
pub fn estimate(
    plan: &Plan,
    forecasts: &[Forecast],
    ledger: &Ledger,
    durations: &Durations,
    beside: usize,
) -> Estimate {
    let pipeline = &plan.manifest.pipeline;
    let paid: Vec<(usize, usize)> = forecasts.iter().filter_map(|said| Some((said.node, payer(plan, said)?))).collect();
    let mut jobs: BTreeMap<usize, usize> = BTreeMap::new();
    for (_, candidate) in &paid {
        *jobs.entry(*candidate).or_default() += 1;
    }
    let expected: BTreeMap<usize, Expectation> =
        jobs.keys().map(|candidate| (*candidate, ledger.expect(&pipeline.candidates[*candidate]))).collect();
    let certain: Vec<(usize, usize)> = {
        let sure = forecasts.iter().filter(|said| !may_be_served(said));
        sure.filter_map(|said| Some((said.node, payer(plan, said)?))).collect()
    };
    let costs = |candidate: usize, count: usize| match expected.get(&candidate).and_then(|expectation| expectation.cost)
    {
        Some(part) => Amount { known: Usd::nearest(Sum::of(part, count).expected), ..Amount::default() },
        None => Amount { unknown_attempts: count as u64, ..Amount::default() },
    };
    let mut follows = Amount::default();
    let mut cost = Amount::default();
    let mut bounds = Some([0.0, 0.0]);
    let mut candidates = BTreeMap::new();
    for (candidate, count) in &jobs {
        let name = pipeline.candidates[*candidate].name.value.to_string();
        let expectation = &expected[candidate];
        let sum = |part: Option<_>| part.map(|part| Sum::of(part, *count));
        let said = CandidateEstimate {
            jobs: *count,
            cost_usd: sum(expectation.cost),
            tokens: sum(expectation.tokens),
            agent_s: sum(expectation.seconds),
        };
        let sure = certain.iter().filter(|(_, payer)| payer == candidate).count();
        if *count > sure {
            let part = costs(*candidate, count - sure);
            follows.known += part.known;
            follows.unknown_attempts += part.unknown_attempts;
        }
        match &said.cost_usd {
            Some(sum) => {
                cost.known += Usd::nearest(sum.expected);
                bounds = bounds.zip(sum.interval).map(|([low, high], [l, h])| [low + l, high + h]);
            }
            None => {
                bounds = None;
                cost.unknown_attempts += *count as u64;
                cost.because.insert(format!("no attempt of {name} has a known cost, and it says no `expect cost=`"));
            }
        }
        candidates.insert(name, said);
    }
    let budget = pipeline.budget.as_ref().map(|budget| {
        let standing = ledger.standing(pipeline, budget, None);
        allowed(pipeline, budget, &standing, &paid, &expected)
    });
    let time = Time { plan, forecasts, durations, beside, expected: &expected, jobs: &jobs, guesses: true };
    let wall = time.wall(|mean, _| mean);
    let wall_interval = wall.and_then(|_| {
        let varies = expected
            .values()
            .all(|expectation| expectation.seconds.is_some_and(|(estimate, _)| estimate.interval(1).is_some()));
        let ends = [time.wall(|_, [low, _]| low)?, time.wall(|_, [_, high]| high)?];
        (varies && !expected.is_empty()).then_some(ends)
    });
    Estimate {
        candidates,
        cost,
        follows: (paid.len() - certain.len(), follows),
        free: paid.is_empty()
            && forecasts.iter().any(|said| said.state.executes())
            && plan.nodes.iter().any(|node| matches!(&node.ask, Ask::Agent(ask) if !ask.free)),
        cost_interval: bounds.filter(|_| !jobs.is_empty()),
        wall,
        wall_interval,
        guessed: time.guessed(),
        wall_known: Time { guesses: false, ..time }.wall(|mean, _| mean),
        budget,
    }
}

/// Whether an action that would be executed may be served after all, or not begun.
fn may_be_served(said: &Forecast) -> bool {
    let gated = said.state == State::New && said.because.is_some() && !said.follows.is_empty();
    said.state == State::Follows || gated
}

/// The candidate that pays for an action, if it would be executed and calls a model.
fn payer(plan: &Plan, said: &Forecast) -> Option<usize> {
    let pays = matches!(&plan.nodes[said.node].ask, Ask::Agent(ask) if !ask.free);
    plan.nodes[said.node].point.candidate.filter(|_| pays && said.state.executes())
}

/// Goes through the agents in the order of the plan, as a run would: each reserves, and then costs what is expected.
fn allowed(
    pipeline: &Pipeline,
    budget: &crate::manifest::Budget,
    standing: &Standing,
    paid: &[(usize, usize)],
    expected: &BTreeMap<usize, Expectation>,
) -> BudgetEstimate {
    let total = budget.total.as_ref().map(|amount| amount.value);
    let per_run = budget.per_run.as_ref().map(|amount| amount.value);
    let mut left = total.map(|amount| amount.less(standing.total.amount)).into_iter().chain(per_run).min();
    let unbounded = standing.total.unbounded.is_some();
    let (mut allows, mut at_least) = (0, false);
    let mut reserves = BTreeMap::new();
    for (_, candidate) in paid {
        let name = pipeline.candidates[*candidate].name.value.as_str();
        let reserve = standing.reserve(name);
        reserves.entry(name.to_owned()).or_insert_with(|| match reserve {
            Reserve::Amount(amount, basis) => format!("{} ({basis})", human_usd(amount)),
            Reserve::All => "all that is left (nothing tells what an attempt costs)".to_owned(),
        });
        let Some(left) = &mut left else {
            allows += 1;
            continue;
        };
        let needed = reserve.within(*left);
        if unbounded || needed > *left || reserve == Reserve::All && *left == Usd(0) {
            continue;
        }
        allows += 1;
        at_least |= reserve == Reserve::All;
        let mean = expected.get(candidate).and_then(|expectation| expectation.cost);
        *left = left.less(mean.map_or(needed, |(estimate, _)| Usd::nearest(estimate.mean())));
    }
    BudgetEstimate {
        spent_usd: standing.total.amount,
        limit_usd: total,
        per_run_usd: per_run,
        allows,
        of: paid.len(),
        at_least: at_least && allows < paid.len(),
        reserves,
        spent: standing.total.told(),
    }
}

/// How long a plan takes: at least as long as its longest chain, and as what waits for one thing takes shared by its number.
struct Time<'a> {
    plan: &'a Plan,
    forecasts: &'a [Forecast],
    durations: &'a Durations,
    beside: usize,
    expected: &'a BTreeMap<usize, Expectation>,
    jobs: &'a BTreeMap<usize, usize>,
    /// Whether what is not known is guessed; else it takes no time.
    guesses: bool,
}

impl Time<'_> {
    /// What an action takes; for an agent `choose` has its mean, and where the mean of all its jobs lies.
    fn seconds(&self, node: usize, choose: &impl Fn(f64, [f64; 2]) -> f64) -> f64 {
        let point = &self.plan.nodes[node].point;
        let agent = point.candidate.filter(|_| self.plan.kind(node) == Kind::Agent);
        let seconds = agent.and_then(|candidate| {
            let (estimate, _) = self.expected.get(&candidate)?.seconds?;
            let count = self.jobs.get(&candidate).copied().unwrap_or(1).max(1);
            let each = |end: f64| end / count as f64;
            let bounds = estimate.interval(count).map_or([estimate.mean(); 2], |[low, high]| [each(low), each(high)]);
            Some(choose(estimate.mean(), bounds))
        });
        match seconds {
            Some(seconds) => seconds,
            None if !self.guesses && self.is_guess(node) => 0.0,
            None => self.durations.typical(self.plan, node),
        }
    }

    /// Whether an action takes long and nothing is recorded or expected of it.
    fn is_guess(&self, node: usize) -> bool {
        let kind = self.plan.kind(node);
        let free = matches!(&self.plan.nodes[node].ask, Ask::Agent(ask) if ask.free);
        let expected = self.plan.nodes[node].point.candidate.and_then(|at| self.expected.get(&at)?.seconds);
        let told = kind == Kind::Agent && expected.is_some() || self.durations.known(self.plan, node).is_some();
        matches!(kind, Kind::Agent | Kind::Test) && !free && !told
    }

    fn wall(&self, choose: impl Fn(f64, [f64; 2]) -> f64) -> Option<f64> {
        let plan = self.plan;
        let pipeline = &plan.manifest.pipeline;
        let mut ends = vec![0.0f64; plan.nodes.len()];
        let mut load: BTreeMap<&str, f64> = BTreeMap::new();
        let mut lanes: BTreeMap<&str, (f64, u32)> = BTreeMap::new();
        let (mut free, mut any) = (0.0, false);
        for said in self.forecasts {
            let node = &plan.nodes[said.node];
            let ups = node.links.iter().map(|link| link.node).chain(node.gates.iter().copied());
            let begin = ups.map(|up| ends[up]).fold(0.0, f64::max);
            ends[said.node] = begin;
            if !said.state.executes() {
                continue;
            }
            any = true;
            let seconds = self.seconds(said.node, &choose);
            ends[said.node] += seconds;
            for (kind, count) in &node.holds {
                *load.entry(kind.as_str()).or_default() += seconds * f64::from(*count);
            }
            match self.lane(said.node) {
                Some((provider, width)) => {
                    let (sum, _) = lanes.entry(provider).or_insert((0.0, width));
                    *sum += seconds;
                }
                None if node.holds.is_empty() => free += seconds,
                None => {}
            }
        }
        let width = |kind: &str| {
            let slots = pipeline.slots.iter().filter(|slot| slot.kind.value.as_str() == kind).count();
            let lane = pipeline.lanes.iter().find(|lane| lane.name.value.as_str() == kind);
            lane.map_or(slots as f64, |lane| f64::from(lane.width)).max(1.0)
        };
        let shared = load.iter().map(|(kind, seconds)| seconds / width(kind)).fold(0.0, f64::max);
        let asked = lanes.values().map(|(sum, width)| sum / f64::from((*width).max(1))).fold(0.0, f64::max);
        let longest = ends.iter().copied().fold(0.0, f64::max);
        any.then(|| longest.max(shared).max(asked).max(free / self.beside.max(1) as f64))
    }

    /// The provider whose lane an agent waits for, and how many that lets go side by side.
    fn lane(&self, node: usize) -> Option<(&str, u32)> {
        let pipeline = &self.plan.manifest.pipeline;
        let candidate = self.plan.nodes[node].point.candidate.filter(|_| self.plan.kind(node) == Kind::Agent)?;
        let name = &pipeline.candidates.get(candidate)?.provider.as_ref()?.value;
        Some((name.as_str(), pipeline.providers.get(name)?.lane?))
    }

    /// The steps that take long and of which nothing is recorded or expected.
    fn guessed(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for said in self.forecasts.iter().filter(|said| said.state.executes()) {
            let name = self.plan.step(said.node).name.value.as_str();
            if self.is_guess(said.node) && !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

impl Estimate {
    /// The most that it may cost, as far as that is known: the upper end where there is one. Never more than the budget has left.
    #[must_use]
    pub fn most(&self) -> Usd {
        let expected = self.cost.known;
        let most = self.cost_interval.map_or(expected, |[_, high]| Usd::nearest(high).max(expected));
        self.left().map_or(most, |left| most.min(left))
    }

    /// What is spent whatever comes out.
    #[must_use]
    pub fn certain(&self) -> Amount {
        let (_, follow) = &self.follows;
        let unknown = self.cost.unknown_attempts.saturating_sub(follow.unknown_attempts);
        Amount { known: self.cost.known.less(follow.known), unknown_attempts: unknown, ..self.cost.clone() }
    }

    /// What the budget has left.
    #[must_use]
    pub fn left(&self) -> Option<Usd> {
        let budget = self.budget.as_ref()?;
        budget.limit_usd.map(|limit| limit.less(budget.spent_usd)).into_iter().chain(budget.per_run_usd).min()
    }

    /// For people; empty if no agent would be paid for and nothing is known of the time.
    #[must_use]
    pub fn text(&self) -> String {
        // What stops a part of it comes before what all of it would cost.
        let (first, then) = match self.is_stopped() {
            true => (self.within_budget(), self.amounts()),
            false => (self.amounts(), self.within_budget()),
        };
        Self::wrapped(first.into_iter().chain(then), USUAL)
    }

    /// The same in so many columns, with the budget only where it would stop something.
    #[must_use]
    pub fn comes_to(&self, columns: usize) -> String {
        let budget = if self.is_stopped() { self.within_budget() } else { Vec::new() };
        Self::wrapped(budget.into_iter().chain(self.amounts()), columns.min(USUAL))
    }

    /// Whether the budget allows only some of it.
    fn is_stopped(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.allows < budget.of)
    }

    fn wrapped(lines: impl IntoIterator<Item = String>, columns: usize) -> String {
        lines.into_iter().map(|line| format!("{}\n", wrap(&line, columns - 4).join("\n    "))).collect()
    }

    fn amounts(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, said) in &self.candidates {
            let jobs = if said.jobs == 1 { "1 job".to_owned() } else { format!("{} jobs", said.jobs) };
            let mut parts = vec![match &said.cost_usd {
                Some(sum) => format!("about {} {}", sum.dollars(), sum.basis),
                None => "cost unknown".to_owned(),
            }];
            parts.extend(said.tokens.as_ref().map(|sum| {
                let tokens = sum.text(&|count| human_count(count.round() as u64));
                format!("{tokens} tokens {}", sum.basis)
            }));
            parts.extend(
                said.agent_s.as_ref().map(|sum| format!("{} of agents at work {}", sum.text(&span), sum.basis)),
            );
            lines.push(format!("{name}: {jobs}, {}", parts.join(", ")));
        }
        if !self.candidates.is_empty() {
            let dollars = |value: f64| human_usd(Usd::nearest(value));
            let between = between(self.cost_interval, &dollars);
            let why = self.cost.why();
            let mut why = if why.is_empty() { why } else { format!(": {why}") };
            if let Some(budget) = self.budget.as_ref().filter(|_| self.is_stopped()) {
                why.push_str(&match (budget.allows, budget.at_least) {
                    (_, true) => String::new(),
                    (0, false) => "; of that the budget allows $0".to_owned(),
                    (allows, false) => {
                        format!("; that is for all {}, not for the {allows} that the budget allows", budget.of)
                    }
                });
            }
            let (only, follow) = &self.follows;
            lines.push(match *only {
                0 => format!("expected cost: {}{}{why}", self.cost.text(), between),
                only => format!(
                    "expected cost: certain {}; at most {}{}, of which {} is for {} that only {}{why}",
                    self.certain().text(),
                    self.cost.text(),
                    between,
                    follow.text(),
                    counted(only, "agent"),
                    if only == 1 { "follows" } else { "follow" },
                ),
            });
        } else if self.free {
            lines.push("expected cost: $0: no agent that is paid for would run".to_owned());
        }
        if let Some(wall) = self.wall.filter(|wall| *wall >= 1.0) {
            let between = between(self.wall_interval, &span);
            let known = self.wall_known.filter(|known| *known >= 1.0);
            // A sum of guesses would be read as an estimate.
            lines.push(match (self.guessed.as_slice(), known) {
                ([], _) => format!("expected time: {}{}", span(wall), between),
                (steps, None) => format!("expected time: unknown: no {} is recorded yet", steps.join(", ")),
                (steps, Some(known)) => {
                    format!("expected time: at least {}; no {} is recorded yet", span(known), steps.join(", "))
                }
            });
        }
        lines
    }

    fn within_budget(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(budget) = &self.budget {
            let limit = |word: &str, amount: Option<Usd>| amount.map(|amount| format!("{word}{}", human_usd(amount)));
            let limits = [limit("", budget.limit_usd), limit("per run ", budget.per_run_usd)];
            let limits: Vec<String> = limits.into_iter().flatten().collect();
            lines.push(format!("budget: {}; spent so far: {}", limits.join(", "), budget.spent));
            let reserves = budget.reserves.iter().map(|(name, reserve)| format!("{name} {reserve}"));
            let reserves: Vec<String> = reserves.collect();
            if budget.of > 0 {
                let least = if budget.at_least { "at least " } else { "" };
                lines.push(format!(
                    "the budget allows {least}{} of {}; reserved for an attempt: {}",
                    budget.allows,
                    counted(budget.of, "job"),
                    reserves.join(", ")
                ));
            }
        }
        lines
    }

    /// For programs: what `plan --json` says of it.
    pub fn add_to(&self, document: &mut serde_json::Value) {
        document["cost_usd"] = json!(self.cost);
        document["wall_s"] = json!(self.wall);
        document["estimate"] = json!({
            "candidates": self.candidates,
            "cost_interval_usd": self.cost_interval,
            "cost_certain_usd": self.certain(),
            "agents_that_only_follow": self.follows.0,
            "wall_interval_s": self.wall_interval,
            "guessed": self.guessed,
        });
        document["budget"] = json!(self.budget);
    }
}

/// ` ($0.90 to $1.50)`, where both ends read otherwise.
fn between(interval: Option<[f64; 2]>, say: &dyn Fn(f64) -> String) -> String {
    let ends = interval.map(|[low, high]| [say(low), say(high)]).filter(|[low, high]| low != high);
    ends.map(|[low, high]| format!(" ({low} to {high})")).unwrap_or_default()
}

/// Seconds for people.
#[must_use]
pub fn span(seconds: f64) -> String {
    human_span(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e10)))
}
