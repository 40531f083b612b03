//! The budget of a run: whether an agent may begin, and what is reserved while it works.
//!
//! What was spent is the ledger's to say, over all runs of the pipeline on this store; an agent of a run that died is spent, as
//! far as its place tells. Agents of other runs that are at work count at what their run reserved for them, or at what this
//! manifest would reserve if that is more. Two runs ask one after the other: whoever asks holds a lock until the
//! line is on disk that says what it began. Nothing of this is in a key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::attempt::{Ended, Reserved, Started};
use crate::digest::Digest;
use crate::event::{Event, Held};
use crate::key::ActionKey;
use crate::ledger::{Ledger, Rates, Reserve, Standing};
use crate::manifest::Budget;
use crate::names::RunId;
use crate::outcome::Owner;
use crate::plan::{Ask, Plan};
use crate::run::execute::alive;
use crate::run::recover::interrupted;
use crate::run::renamed::names_today;
use crate::store::{Index, KeyLock, Store, StoreError};
use crate::units::{Usd, human_usd};

/// Whether an agent may begin.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It may: so much is reserved.
    Pay(Reserved),
    /// Not before agents at work have told what they cost.
    Wait,
    /// Another run asks at this moment.
    Busy,
    /// No: an amount of the manifest is reached. With the event, where nobody was told yet.
    Reached(Held, Option<Box<Event>>),
}

/// The budget of one run.
pub struct Purse {
    budget: Budget,
    manifest: String,
    run: RunId,
    ledger: Ledger,
    /// What is reserved for the agents of this run at work, by action.
    in_flight: HashMap<usize, Usd>,
    lock: Option<KeyLock>,
    /// Agents of this run whose start is not on disk yet.
    undurable: usize,
    /// Agents of this run that have finished and left what it cannot read: a later run writes their ends.
    unread: Vec<Arc<Ended>>,
    told: HashSet<&'static str>,
}

/// One of the amounts that a budget says.
struct Limit {
    word: &'static str,
    amount: Usd,
    spent: crate::ledger::Counted,
    reserved: Usd,
}

impl Purse {
    /// The budget of a plan's manifest, if it has one.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn open(
        plan: &Plan,
        manifest: &str,
        run: &RunId,
        store: &Store,
        index: &Index,
    ) -> Result<Option<Self>, StoreError> {
        let pipeline = &plan.manifest.pipeline;
        let Some(budget) = pipeline.budget.clone() else { return Ok(None) };
        let mut ledger = Ledger::read(Rates::of(pipeline), store, index)?;
        ledger.set_names(names_today(plan, &ledger.gone(), store, index));
        Ok(Some(Self {
            budget,
            manifest: manifest.to_owned(),
            run: run.clone(),
            ledger,
            in_flight: HashMap::new(),
            lock: None,
            undurable: 0,
            unread: Vec::new(),
            told: HashSet::new(),
        }))
    }

    /// Asks for what an agent may cost. `open` are the actions that are not settled: what they need is told where it is too much.
    ///
    /// # Errors
    /// If locks or records cannot be used.
    pub fn ask(
        &mut self,
        plan: &Plan,
        node: usize,
        key: &ActionKey,
        store: &Store,
        index: &mut Index,
        open: &dyn Fn() -> Vec<usize>,
    ) -> Result<Verdict, StoreError> {
        let (Some(_), Ask::Agent(ask)) = (plan.nodes[node].point.candidate, &plan.nodes[node].ask) else {
            return Ok(Verdict::Pay(Reserved::default()));
        };
        if ask.free {
            return Ok(Verdict::Pay(Reserved::default()));
        }
        let pipeline = &plan.manifest.pipeline;
        if self.lock.is_none() {
            let name = format!("budget of {}", pipeline.name.value);
            let Some(lock) = store.locks.try_lock(&ActionKey(Digest::of(name.as_bytes())))? else {
                return Ok(Verdict::Busy);
            };
            self.lock = Some(lock);
            // What another run wrote before it let go.
            index.refresh()?;
        }
        let verdict = self.judge(plan, node, key, store, index, open);
        if self.undurable == 0 && !matches!(verdict, Ok(Verdict::Pay(_))) {
            self.lock = None;
        }
        verdict
    }

    fn judge(
        &mut self,
        plan: &Plan,
        node: usize,
        key: &ActionKey,
        store: &Store,
        index: &Index,
        open: &dyn Fn() -> Vec<usize>,
    ) -> Result<Verdict, StoreError> {
        let Some(candidate) = plan.nodes[node].point.candidate else { return Ok(Verdict::Pay(Reserved::default())) };
        let candidate = plan.manifest.pipeline.candidates[candidate].name.value.as_str();
        self.ledger.refresh(store, index)?;
        let working = self.sort_unfinished(store, index)?;
        let standing = self.ledger.standing(&plan.manifest.pipeline, &self.budget, Some(&self.run));
        if let Some(reached) = self.job_limit(plan, node, key, &standing, store, index)? {
            return Ok(reached);
        }
        let own: Usd = self.in_flight.values().copied().sum();
        let others = self.others(plan, &standing, working);
        let mut limits = Vec::new();
        if let Some(amount) = &self.budget.total {
            let reserved = own + others;
            limits.push(Limit { word: "budget", amount: amount.value, spent: standing.total.clone(), reserved });
        }
        if let Some(amount) = &self.budget.per_run {
            limits.push(Limit { word: "per-run", amount: amount.value, spent: standing.run.clone(), reserved: own });
        }
        let reserve = standing.reserve(candidate);
        let left = limits.iter().map(|limit| limit.amount.less(limit.spent.amount + limit.reserved)).min();
        let needed = reserve.within(left.unwrap_or_default());
        let alone = reserve == Reserve::All;
        let mut wait = false;
        for limit in &limits {
            let nothing_left = limit.spent.amount >= limit.amount && needed == Usd(0) && alone;
            let never = limit.spent.unbounded.is_some()
                || limit.spent.amount + if alone { Usd(0) } else { needed } > limit.amount
                || nothing_left;
            if never {
                let left = self.all_of(plan, &standing, &open());
                return Ok(self.reached(limit, candidate, reserve, needed, &left));
            }
            let crowded = alone && limit.reserved > Usd(0);
            wait |= crowded || limit.spent.amount + limit.reserved + needed > limit.amount;
        }
        if wait {
            return Ok(Verdict::Wait);
        }
        Ok(Verdict::Pay(Reserved { nano_usd: needed.0, all: alone }))
    }

    /// Whether the attempts of an action came to `per-job`.
    fn job_limit(
        &mut self,
        plan: &Plan,
        node: usize,
        key: &ActionKey,
        standing: &Standing,
        store: &Store,
        index: &Index,
    ) -> Result<Option<Verdict>, StoreError> {
        let Some(limit) = self.budget.per_job.as_ref().map(|limit| limit.value) else { return Ok(None) };
        let rates = self.ledger.rates();
        let entries: Vec<_> = index.attempts(key)?.into_iter().map(|ended| rates.entry(ended, store)).collect();
        let spent = standing.of_job(entries.iter());
        if spent < limit || entries.is_empty() {
            return Ok(None);
        }
        let evidence = format!(
            "budget: its {} attempts came to {}, and `per-job` is {}: it is not tried again",
            entries.len(),
            human_usd(spent),
            human_usd(limit),
        );
        let held = budget(evidence, format!("raise `per-job` in {}", self.manifest));
        let event = Event::BudgetReached {
            limit: "per-job".into(),
            job: Some(plan.title(node)),
            limit_usd: limit.dollars(),
            spent_usd: spent.dollars(),
            reserved_usd: 0.0,
            needed_usd: 0.0,
            because: held.text(),
        };
        Ok(Some(Verdict::Reached(held, Some(Box::new(event)))))
    }

    /// The agents that are at work. Those of runs that died never tell more than they have: nobody waits for them, and the
    /// ledger counts them.
    fn sort_unfinished(&mut self, store: &Store, index: &Index) -> Result<Vec<Started>, StoreError> {
        let (mut working, mut left) = (Vec::new(), self.unread.clone());
        for started in index.unfinished()?.into_iter().filter(|started| started.kind == "agent") {
            if started.run != self.run && !alive(store, &started.run)? {
                left.push(Arc::new(interrupted(store, &started, &started.run)));
            } else {
                working.push(started);
            }
        }
        self.ledger.set_left(left, store);
        Ok(working)
    }

    /// What agents of other runs that are at work may cost.
    fn others(&self, plan: &Plan, standing: &Standing, working: Vec<Started>) -> Usd {
        let pipeline = &plan.manifest.pipeline.name.value;
        let pays = |started: &Started| {
            started.run != self.run && started.pipeline.as_ref().is_none_or(|other| other == pipeline)
        };
        let amount = |started: Started| {
            let candidate = started.axes.get("candidate").unwrap_or_default();
            // Nothing tells what it may cost: at least something, so that what needs to be alone waits for its end.
            let today = standing.reserve(candidate).within(Usd(1));
            today.max(started.reserved.unwrap_or_default().amount())
        };
        working.into_iter().filter(pays).map(amount).sum()
    }

    /// How many of some agents would have to be paid for that are not at work, and what they may cost; `None` where that is not
    /// known of one of them.
    fn all_of(&self, plan: &Plan, standing: &Standing, open: &[usize]) -> (usize, Option<Usd>) {
        let pays = |node: &&usize| matches!(&plan.nodes[**node].ask, Ask::Agent(ask) if !ask.free);
        let open: Vec<usize> = open.iter().filter(pays).copied().filter(|n| !self.in_flight.contains_key(n)).collect();
        let reserve = |node: &usize| {
            let candidate = plan.nodes[*node].point.candidate?;
            match standing.reserve(plan.manifest.pipeline.candidates[candidate].name.value.as_str()) {
                Reserve::Amount(amount, _) => Some(amount),
                Reserve::All => None,
            }
        };
        (open.len(), open.iter().map(reserve).collect::<Option<Vec<Usd>>>().map(|all| all.into_iter().sum()))
    }

    fn reached(
        &mut self,
        limit: &Limit,
        candidate: &str,
        reserve: Reserve,
        needed: Usd,
        left: &(usize, Option<Usd>),
    ) -> Verdict {
        let raise = |to: &str| match limit.word {
            "budget" => format!("raise `budget` in {}{to}", self.manifest),
            word => format!("raise `{word}` of `budget` in {}{to}, or start another run", self.manifest),
        };
        let next = match (&limit.spent.unbounded, reserve) {
            (Some(other), _) => {
                format!("what an attempt of {other} may cost is not known: say `expect cost=` in the candidate")
            }
            (None, Reserve::All) => raise(""),
            (None, Reserve::Amount(_, basis)) => {
                let least = limit.spent.amount + limit.reserved + needed;
                let all = match left {
                    (more, Some(sum)) if *more > 1 => {
                        format!(
                            ", to {} for all {more} that are left",
                            human_usd(limit.spent.amount + limit.reserved + *sum)
                        )
                    }
                    _ => String::new(),
                };
                let raise = raise(&format!(" to {} or more for one attempt more{all}", human_usd(least)));
                format!("an attempt of {candidate} may cost {} ({basis}); {raise}", human_usd(needed))
            }
        };
        let evidence = format!(
            "budget: `{}` is {}: reserved for agents at work {}, spent {}",
            limit.word,
            human_usd(limit.amount),
            human_usd(limit.reserved),
            limit.spent.text(),
        );
        let held = budget(evidence, next);
        let event = self.told.insert(limit.word).then(|| Event::BudgetReached {
            limit: limit.word.into(),
            job: None,
            limit_usd: limit.amount.dollars(),
            spent_usd: limit.spent.amount.dollars(),
            reserved_usd: limit.reserved.dollars(),
            needed_usd: needed.dollars(),
            because: held.text(),
        });
        Verdict::Reached(held, event.map(Box::new))
    }

    /// An agent begins: what it may cost is reserved until it ends.
    pub fn reserve(&mut self, node: usize, amount: Usd) {
        self.in_flight.insert(node, amount);
        self.undurable += 1;
    }

    /// The start of an agent is on disk, or never will be: other runs see it.
    pub fn durable(&mut self) {
        self.undurable = self.undurable.saturating_sub(1);
        if self.undurable == 0 {
            self.lock = None;
        }
    }

    /// The agent of an action asked and does not begin after all.
    pub fn gave_up(&mut self) {
        if self.undurable == 0 {
            self.lock = None;
        }
    }

    /// An agent of this run has finished, and a later run writes its end: what it used counts from here on.
    pub fn leave(&mut self, ended: Arc<Ended>) {
        self.unread.push(ended);
    }

    /// An agent ended: the ledger says what it cost.
    pub fn release(&mut self, node: usize) {
        self.in_flight.remove(&node);
    }
}

/// An amount of the manifest stops an agent: whoever set it has to act.
fn budget(evidence: String, next: String) -> Held {
    Held { cause: None, owner: Owner::Person, evidence, next }
}
