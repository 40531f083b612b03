//! The ledger: every attempt that cost tokens or held a slot with a price, and what it came to at today's prices.
//!
//! Read from the records, of which it keeps nothing: what an attempt used is on record, what that cost is computed. Failed and
//! killed attempts are in it like all others. An attempt is in it once, whoever it serves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::agent::Tables;
use crate::attempt::{Ended, Usage};
use crate::key::{KeyRecord, Value};
use crate::manifest::{Candidate, Pipeline};
use crate::money::{Amount, Cost, Prices, TOO_MUCH, Totals, cost};
use crate::names::RunId;
use crate::outcome::Cause;
use crate::process::Exit;
use crate::store::{Index, Store, StoreError};
use crate::units::Usd;

mod expect;
mod standing;

pub use expect::{Basis, Estimate, Expectation, Reserve, Sum};
pub use standing::{Counted, Standing};

/// The largest key record that is read.
const LARGEST_RECORD: u64 = 16 << 20;
/// Milliseconds of an hour.
const HOUR: u64 = 3_600_000;

/// What a manifest says of costs.
#[derive(Clone, Debug)]
pub struct Rates {
    pipeline: String,
    prices: Prices,
    /// What an hour of a slot costs, by `gpu/0`.
    hourly: BTreeMap<String, Usd>,
    /// The slots without a price.
    unpriced: HashSet<String>,
    /// The model that each candidate asks for.
    models: BTreeMap<String, String>,
    /// The candidates whose agent calls no model.
    free: HashSet<String>,
    /// How the attempts of each candidate are read today.
    tables: BTreeMap<String, Arc<Tables>>,
    /// The candidates that there are.
    candidates: HashSet<String>,
    /// What candidates of other names are called today.
    names: BTreeMap<String, String>,
}

impl Rates {
    /// Those of a pipeline.
    #[must_use]
    pub fn of(pipeline: &Pipeline) -> Self {
        let (mut hourly, mut unpriced) = (BTreeMap::new(), HashSet::new());
        for slot in &pipeline.slots {
            let name = format!("{}/{}", slot.kind.value, slot.name.value);
            match slot.hourly {
                Some(price) => drop(hourly.insert(name, price)),
                None => drop(unpriced.insert(name)),
            }
        }
        let free = |candidate: &&Candidate| pipeline.agents.get(&candidate.agent.value).is_some_and(|agent| agent.free);
        let model =
            |candidate: &Candidate| Some((candidate.name.value.to_string(), candidate.model.as_ref()?.value.clone()));
        let tables = |candidate: &Candidate| {
            let agent = pipeline.agents.get(&candidate.agent.value)?;
            Some((candidate.name.value.to_string(), agent.reading.clone()))
        };
        Self {
            pipeline: pipeline.name.value.clone(),
            prices: pipeline.prices.clone(),
            hourly,
            unpriced,
            models: pipeline.candidates.iter().filter_map(model).collect(),
            free: pipeline.candidates.iter().filter(free).map(|candidate| candidate.name.value.to_string()).collect(),
            tables: pipeline.candidates.iter().filter_map(tables).collect(),
            candidates: pipeline.candidates.iter().map(|candidate| candidate.name.value.to_string()).collect(),
            names: BTreeMap::new(),
        }
    }

    /// What a candidate is called today.
    fn today<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }

    fn is_free(&self, candidate: &Candidate) -> bool {
        self.free.contains(candidate.name.value.as_str())
    }

    /// An attempt with what it came to, as it reads today.
    #[must_use]
    pub fn entry(&self, ended: Arc<Ended>, store: &Store) -> Entry {
        let tables = ended.axes.get("candidate").and_then(|candidate| self.tables.get(candidate));
        let ended = store.today_of_any(&ended, tables.map(AsRef::as_ref));
        let agent = ended.kind == "agent";
        let model = if agent { self.asked(&ended, store) } else { None };
        let cost = agent.then(|| self.cost(&ended, model.as_deref()));
        let machine = self.held(&ended);
        Entry { ended, model, cost, machine }
    }

    /// The model that an attempt asked for: its own key record says it, whatever the candidate of that name asks for today.
    fn asked(&self, ended: &Ended, store: &Store) -> Option<String> {
        let record = store.cas.get(&ended.key.0, LARGEST_RECORD).ok().flatten();
        match record.and_then(|bytes| KeyRecord::decode(&bytes).ok()) {
            Some(record) => record.get("model").and_then(Value::as_text).map(str::to_owned),
            None => self.models.get(ended.axes.get("candidate")?).cloned(),
        }
    }

    fn cost(&self, ended: &Ended, asked: Option<&str>) -> Cost {
        let usage = usage_of(ended);
        let began = ended.began.unwrap_or_else(|| {
            let wall = jiff::SignedDuration::from_millis(i64::try_from(ended.wall_ms).unwrap_or(0));
            ended.at.checked_sub(wall).unwrap_or(ended.at)
        });
        cost(usage, asked, &self.prices, began)
    }

    fn held(&self, ended: &Ended) -> Option<Cost> {
        let hourly: Usd = ended.slots.iter().filter_map(|slot| self.hourly.get(slot)).copied().sum();
        // Where no slot has a price nothing is told, and one without a price alone is not meant to cost.
        if !self.machine() || ended.slots.iter().all(|slot| self.unpriced.contains(slot)) {
            return None;
        }
        let lacking = ended.slots.iter().find(|slot| !self.hourly.contains_key(*slot));
        let held = ended.wall_ms.max(ended.process.as_ref().map_or(0, |process| process.active_ms));
        // Of an attempt whose run died nobody saw the end.
        let unseen = ended.adopts.is_some() && held == 0;
        let unknown = unseen.then(|| "how long a slot was held by an attempt whose run died is not known".to_owned());
        let unknown = unknown.or_else(|| Some(format!("the slot {} has no price now", lacking?)));
        let Some(known) = hourly.checked_share(held, HOUR) else { return Some(Cost::unknown(TOO_MUCH)) };
        Some(Cost { known, unknown, approximate: false })
    }

    /// Whether some slot has a price.
    #[must_use]
    pub fn machine(&self) -> bool {
        !self.hourly.is_empty()
    }
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is on record.
    pub ended: Arc<Ended>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// What its tokens cost; `None` for what is no agent.
    pub cost: Option<Cost>,
    /// What the slots cost that it held; `None` where none has a price.
    pub machine: Option<Cost>,
}

impl Entry {
    /// The candidate that it was for.
    #[must_use]
    pub fn candidate(&self) -> Option<&str> {
        self.ended.axes.get("candidate")
    }
}

/// What an attempt used, as far as it is known.
#[must_use]
pub fn usage_of(ended: &Ended) -> Option<&Usage> {
    static NOTHING: Usage = Usage::NOTHING;
    if no_agent_began(ended) { Some(&NOTHING) } else { ended.usage.as_ref() }
}

/// Whether an agent's attempt ended before an agent could begin: what it needs, a secret say, was not to be had.
#[must_use]
pub fn no_agent_began(ended: &Ended) -> bool {
    if ended.kind != "agent" || ended.adopts.is_some() {
        return false;
    }
    match (&ended.process, &ended.usage) {
        (Some(process), _) => matches!(process.exit, Exit::NotStarted { .. }),
        (None, Some(usage)) => *usage == Usage::NOTHING,
        (None, None) => never_began(ended),
    }
}

/// All attempts of a pipeline, over all its runs on a store.
#[derive(Debug)]
pub struct Ledger {
    rates: Rates,
    entries: Vec<Entry>,
    /// How many of them are on record.
    recorded: usize,
    seen: HashSet<String>,
    /// How many lines the index had when it was read last.
    read_to: usize,
}

impl Ledger {
    /// Reads the ledger of a pipeline.
    ///
    /// # Errors
    /// If a record file cannot be read.
    pub fn read(rates: Rates, store: &Store, index: &Index) -> Result<Self, StoreError> {
        let mut ledger = Self { rates, entries: Vec::new(), recorded: 0, seen: HashSet::new(), read_to: 0 };
        ledger.refresh(store, index)?;
        Ok(ledger)
    }

    /// Takes what was recorded since.
    ///
    /// # Errors
    /// If a record file cannot be read.
    pub fn refresh(&mut self, store: &Store, index: &Index) -> Result<(), StoreError> {
        if self.read_to == index.len() {
            return Ok(());
        }
        self.entries.truncate(self.recorded);
        let known = |attempt: &str| self.seen.contains(attempt);
        let found = index.of_kinds(&["agent"], self.rates.machine(), usize::MAX, &known)?;
        for ended in found {
            self.seen.insert(ended.attempt.as_str().to_owned());
            if self.is_own(&ended) {
                self.entries.push(self.rates.entry(ended, store));
            }
        }
        self.recorded = self.entries.len();
        self.read_to = index.len();
        Ok(())
    }

    /// Takes what attempts have come to so far whose ends nobody has written yet, in place of those that it took before.
    pub fn set_left(&mut self, left: Vec<Arc<Ended>>, store: &Store) {
        self.entries.truncate(self.recorded);
        for ended in left {
            if self.is_own(&ended) && !self.seen.contains(ended.attempt.as_str()) {
                self.entries.push(self.rates.entry(ended, store));
            }
        }
    }

    /// An attempt of which no pipeline is recorded counts for each: rather once too often than never.
    fn is_own(&self, ended: &Ended) -> bool {
        ended.pipeline.as_ref().is_none_or(|pipeline| *pipeline == self.rates.pipeline)
    }

    /// What its figures are made with.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// The candidates of whose agents there are attempts, and that the pipeline has no longer.
    #[must_use]
    pub fn gone(&self) -> BTreeSet<String> {
        let agents = self.entries.iter().filter(|entry| entry.cost.is_some()).filter_map(Entry::candidate);
        agents.filter(|name| !self.rates.candidates.contains(*name)).map(str::to_owned).collect()
    }

    /// From now on the attempts of some old names count for the candidates that are called so today.
    pub fn set_names(&mut self, names: BTreeMap<String, String>) {
        self.rates.names = names;
    }

    /// All attempts, in the order of their ends; at last those without one.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What some of the agents' attempts came to.
    #[must_use]
    pub fn totals(&self, wanted: impl Fn(&Entry) -> bool) -> Totals {
        let mut totals = Totals::default();
        for entry in self.entries.iter().filter(|entry| wanted(entry)) {
            if let Some(cost) = &entry.cost {
                totals.add(usage_of(&entry.ended), cost, entry.ended.outcome.settles());
            }
        }
        totals
    }

    /// The same by candidate.
    #[must_use]
    pub fn by_candidate(&self, wanted: impl Fn(&Entry) -> bool) -> BTreeMap<String, Totals> {
        let mut by: BTreeMap<String, Totals> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| wanted(entry)) {
            if let Some(cost) = &entry.cost {
                let totals = by.entry(entry.candidate().unwrap_or("-").to_owned()).or_default();
                totals.add(usage_of(&entry.ended), cost, entry.ended.outcome.settles());
            }
        }
        by
    }

    /// What the slots cost that some attempts held; `None` where no slot has a price.
    #[must_use]
    pub fn machine_totals(&self, wanted: impl Fn(&Entry) -> bool) -> Option<Amount> {
        let mut amount = self.rates.machine().then(Amount::default)?;
        for cost in self.entries.iter().filter(|entry| wanted(entry)).filter_map(|entry| entry.machine.as_ref()) {
            amount.add(cost);
        }
        Some(amount)
    }

    /// The attempts of one run: those that it started, wherever their ends were written.
    pub fn of_run(run: &RunId) -> impl Fn(&Entry) -> bool {
        let run = run.clone();
        move |entry| *entry.ended.adopts.as_ref().unwrap_or(&entry.ended.run) == run
    }
}

/// Whether an attempt without a process ended before an agent could begin. Not so sure of a cause that may also be met when it
/// had ended: then nothing is known of what it used.
fn never_began(ended: &Ended) -> bool {
    let causes = [
        Cause::NotStarted,
        Cause::CommitMissing,
        Cause::EnvironmentFailed,
        Cause::AssetFailed,
        Cause::CredentialsExpired,
        Cause::SecretMissing,
        Cause::CredentialsMissing,
    ];
    ended.outcome.failure().is_some_and(|failure| causes.contains(&failure.cause))
}
