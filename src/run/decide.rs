//! What is to become of an action: served, executed (and why), waited for, or left.
//!
//! One function for `run`, `plan` and `why`, so that what is announced, done and explained cannot differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attempt::Ended;
use crate::event::Reason;
use crate::key::{ActionKey, Change, KeyRecord, Value};
use crate::manifest::Kind;
use crate::measure::protocol::Profile;
use crate::outcome::Outcome;
use crate::plan::{Ask, Plan, ServiceAsk};
use crate::run::nearest::reason_for;
use crate::run::reuse::{self, Reused, reusable};
use crate::step::environment::{FOLDER, kept};
use crate::step::test::{ASKED, CONTINUES};
use crate::step::{End, Ends, Keyed, draft};
use crate::store::{Index, Store};
use crate::units::human_span;

/// Attempts that count, over all runs, where the step says nothing.
pub const ATTEMPTS: u32 = 3;

/// What becomes of an action.
#[derive(Clone, Debug)]
pub enum Decision {
    /// An attempt speaks for it.
    Served {
        /// The attempt.
        ended: Arc<Ended>,
        /// It used more than a limit that was lowered since.
        over_limit: bool,
        /// The store no longer has all it left.
        lost: bool,
    },
    /// A draw of another version of the agent, or in another environment, stands for it.
    Reused {
        /// Its own key.
        key: ActionKey,
        /// The attempt that stands for it.
        ended: Arc<Ended>,
        /// What is otherwise today.
        changes: Vec<Change>,
        /// Which rule of the manifest lets it stand, and where that is written.
        rule: String,
    },
    /// It is to be executed.
    Execute {
        /// Its key record.
        record: KeyRecord,
        /// Why it is not served.
        reason: Reason,
        /// How many attempts of it count already.
        counted: u32,
    },
    /// Actions upstream have not ended.
    Wait {
        /// What of its key is known.
        partial: KeyRecord,
        /// The ingredients not known, and where they come from.
        waiting: Vec<(String, usize)>,
    },
    /// It will not be executed; this is its end.
    Over(End),
    /// The machine lacks something.
    Lacking,
    /// An attempt spoke for it by the tables of its day, and does not by today's. It is left until a person asks for it.
    Reopened {
        /// That attempt as it reads today.
        last: Arc<Ended>,
        /// The outcome on record.
        was: Outcome,
    },
    /// Its attempts are used up.
    Exhausted {
        /// The last of them.
        last: Arc<Ended>,
        /// How many counted.
        counted: u32,
    },
}

/// Why an action may be executed though an attempt is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Again {
    /// A person asked for it though its attempts are used up.
    pub retry: bool,
    /// What it left is gone from the store, and somebody needs it.
    pub remake: bool,
    /// A person asked whether it comes out the same again. What is there speaks for it all the same.
    pub recheck: bool,
}

/// Decides on one action; what is gone from the store is served as long as nobody has to read it.
pub fn decide(plan: &Plan, node: usize, ends: &dyn Ends, store: &Store, index: &Index, retry: bool) -> Decision {
    decide_again(plan, node, ends, store, index, Again { retry, ..Again::default() })
}

/// The actions whose stored outputs are gone and are needed: some action that reads them is not served. An agent's draw is
/// not paid for again while everything that was made of it stands.
#[must_use]
pub fn remakes(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Vec<bool> {
    let mut ends = vec![End::Pending; plan.nodes.len()];
    let mut gone = Vec::new();
    for node in (0..plan.nodes.len()).filter(|node| wanted[*node]) {
        match decide(plan, node, &ends, store, index, false) {
            Decision::Served { ended, lost: gone_now, .. } => {
                // What is relied on is held first, and only then believed to be there.
                if gone_now || held(&ended, store) && lost(&ended, store).is_some() {
                    gone.push(node);
                }
                ends[node] = End::Settled(ended);
            }
            Decision::Reused { ended, .. } => {
                held(&ended, store);
                if lost(&ended, store).is_some() {
                    gone.push(node);
                }
                ends[node] = End::Settled(ended);
            }
            Decision::Over(end) => ends[node] = end,
            _ => {}
        }
    }
    let mut remake = vec![false; plan.nodes.len()];
    for node in gone.into_iter().rev() {
        // Who classifies reads how a build ended, and does not work in it.
        let works = |other: usize| plan.kind(node) != Kind::Environment || plan.kind(other) != Kind::Classify;
        let reads = |other: &usize| works(*other) && plan.nodes[*other].links.iter().any(|link| link.node == node);
        remake[node] = plan.dependents[node]
            .iter()
            .filter(|other| wanted[**other] && reads(other))
            .any(|other| remake[*other] || !ends[*other].is_over());
    }
    remake
}

/// Decides on one action.
pub fn decide_again(plan: &Plan, node: usize, ends: &dyn Ends, store: &Store, index: &Index, again: Again) -> Decision {
    let record = match draft(plan, node, ends) {
        Keyed::Ready(record) => record,
        Keyed::Waiting { partial, waiting } => return Decision::Wait { partial, waiting },
        Keyed::Never(end) => return Decision::Over(end),
        Keyed::Lacking => return Decision::Lacking,
    };
    let key = record.key();
    let recorded = match index.attempts(&key) {
        Ok(attempts) => attempts,
        Err(error) => return Decision::Over(End::open(error.to_string())),
    };
    let attempts: Vec<Arc<Ended>> = recorded.iter().map(|ended| store.today(ended, plan.tables(node))).collect();
    let today = limits(plan, node);
    let (mut raised, mut gone) = (Vec::new(), Vec::new());
    // What continues a measurement holds all that was measured before it, and speaks in its place.
    let continues = |ended: &&Arc<Ended>| ended.outputs.contains_key(CONTINUES);
    let mut in_order: Vec<&Arc<Ended>> =
        attempts.iter().rev().filter(continues).chain(attempts.iter().filter(|ended| !continues(ended))).collect();
    if plan.kind(node) == Kind::Environment {
        // What was built last is what lies there.
        in_order.reverse();
    }
    for ended in in_order.into_iter().filter(|ended| ended.outcome.settles()) {
        match serves(ended, &today) {
            Serves::Yes { over_limit } => match lost(ended, store) {
                Some(change) if again.remake => gone.push(change),
                _ if again.recheck => {
                    let nearest = Some(key);
                    let reason = Reason { nearest, ..Reason::new("recheck") };
                    return Decision::Execute { record, reason, counted: 0 };
                }
                lost => return Decision::Served { ended: ended.clone(), over_limit, lost: lost.is_some() },
            },
            Serves::Raised(changes) => raised = changes,
        }
    }
    if raised.is_empty()
        && gone.is_empty()
        && !again.retry
        && let Some(Reused { ended, changes, rule }) = reusable(plan, node, &record, ends, store, index)
        && (!again.remake || lost(&ended, store).is_none())
    {
        return Decision::Reused { key, ended, changes, rule };
    }
    let unsettled = || attempts.iter().filter(|ended| !ended.outcome.settles());
    let reopened =
        recorded.iter().zip(&attempts).rfind(|(was, ended)| was.outcome.settles() && !ended.outcome.settles());
    if let Some((was, ended)) = reopened.filter(|_| raised.is_empty() && gone.is_empty() && !again.retry) {
        return Decision::Reopened { last: ended.clone(), was: was.outcome.clone() };
    }
    if raised.is_empty()
        && gone.is_empty()
        && !again.retry
        && let Some((was, last)) = reuse::reopened(plan, node, &record, store, index)
    {
        return Decision::Reopened { last, was: was.outcome.clone() };
    }
    // A table that reads one otherwise now must not open what had been tried often enough: that would spend.
    let counts = |ended: &Ended| ended.outcome.failure().is_some_and(|failure| failure.cause.counts());
    let unsettling = recorded.iter().zip(&attempts).filter(|(_, ended)| !ended.outcome.settles());
    let counted = unsettling.filter(|(was, ended)| counts(ended) || counts(was)).count();
    let counted = u32::try_from(counted).unwrap_or(u32::MAX);
    let cap = plan.step(node).attempts.as_ref().map_or(ATTEMPTS, |attempts| attempts.value);
    if counted >= cap
        && !again.retry
        && let Some(last) = unsettled().next_back()
    {
        return Decision::Exhausted { last: last.clone(), counted };
    }
    let reason = if !raised.is_empty() {
        Reason { nearest: Some(key), changes: raised, ..Reason::new("changed") }
    } else if !gone.is_empty() {
        Reason { nearest: Some(key), changes: gone, ..Reason::new("retry") }
    } else if let Some(last) = unsettled().next_back() {
        let change = Change {
            ingredient: "attempt".into(),
            old: Some(Value::text(format!("{} {}", last.attempt, last.outcome.word()))),
            new: None,
        };
        Reason { nearest: Some(key), changes: vec![change], ..Reason::new("retry") }
    } else {
        reason_for(plan, node, &record, &[], store, index)
    };
    Decision::Execute { record, reason, counted }
}

/// The attempt whose measurement one that is executed for this reason continues: the newest that a limit of the protocol ended.
#[must_use]
pub fn continued(reason: &Reason, key: &ActionKey, index: &Index) -> Option<Arc<Ended>> {
    const LIMITS: [&str; 2] = ["limit blocks max", "limit time max"];
    let raised = reason.state == "changed" && reason.changes.iter().all(|c| LIMITS.contains(&c.ingredient.as_str()));
    if !raised || reason.changes.is_empty() {
        return None;
    }
    let measured = |ended: &Arc<Ended>| ended.outcome.settles() && ended.outputs.contains_key("result");
    index.attempts(key).ok()?.iter().rev().find(|ended| measured(ended)).cloned()
}

/// The limits of an action, by name, as they are shown.
#[must_use]
pub fn limits_shown(plan: &Plan, node: usize) -> BTreeMap<String, Value> {
    limits(plan, node).into_iter().map(|(name, limit)| (format!("limit {name}"), shown_limit(&name, limit))).collect()
}

/// The limits that are in force today, by name, in milliseconds, blocks or bytes.
#[must_use]
pub fn limits(plan: &Plan, node: usize) -> BTreeMap<String, u64> {
    let step = plan.step(node);
    let mut today = BTreeMap::new();
    if let Some(timeout) = &step.timeout {
        today.insert("timeout".to_owned(), u64::try_from(timeout.value.as_millis()).unwrap_or(u64::MAX));
    }
    if let Some(limit) = &step.limit {
        today.insert("limit".to_owned(), limit.value);
    }
    if let Ask::Patch(ask) = &plan.nodes[node].ask {
        today.insert("limit".to_owned(), ask.limit.unwrap_or(crate::step::patch::LIMIT));
    }
    if let Ask::Test(ask) = &plan.nodes[node].ask {
        let limit = |service: &ServiceAsk| {
            let limit = u64::try_from(service.timeout.as_millis()).unwrap_or(u64::MAX);
            (format!("service {}", service.name), limit)
        };
        today.extend(ask.services.iter().map(limit));
    }
    if let Ask::Test(ask) = &plan.nodes[node].ask
        && !ask.counts_only()
        && plan.compares(node)
    {
        let protocol = &ask.protocol;
        if protocol.profile != Profile::Fixed {
            today.insert("blocks max".to_owned(), u64::from(protocol.most()));
        }
        today.extend(protocol.time_max_ms.map(|limit| ("time max".to_owned(), limit)));
    }
    today
}

/// Holds the environment that an attempt left, if it left one. Says whether it did: whether it is there may be looked at then.
pub fn held(ended: &Ended, store: &Store) -> bool {
    let folder = ended.outputs.get(FOLDER).and_then(Value::as_text);
    folder.is_some_and(|folder| {
        store.hold(folder);
        true
    })
}

/// The first output of an attempt that the store has no longer: such an attempt serves nobody.
#[must_use]
pub fn lost(ended: &Ended, store: &Store) -> Option<Change> {
    let gone = |name: &str, value: &Value| match value.as_text() {
        Some(folder) if name == FOLDER => kept::complete(store, folder).is_none(),
        _ => value.as_blob().is_some_and(|blob| !store.cas.has(&blob)),
    };
    let (name, value) = ended.outputs.iter().find(|(name, value)| gone(name, value))?;
    Some(Change { ingredient: format!("stored output {name}"), old: Some(value.clone()), new: None })
}

enum Serves {
    Yes { over_limit: bool },
    Raised(Vec<Change>),
}

/// An attempt serves unless a limit that it met is raised. One that used more than today's limit serves, and says so.
fn serves(ended: &Ended, today: &BTreeMap<String, u64>) -> Serves {
    let mut over_limit = false;
    let mut raised = Vec::new();
    for (name, limit) in &ended.limits {
        let now = today.get(name).copied();
        match now {
            Some(now) if limit.met && now > limit.limit => raised.push(limit_change(name, limit.limit, Some(now))),
            None if limit.met => raised.push(limit_change(name, limit.limit, None)),
            // What a person asked for by `flow extend` is no excess.
            Some(_) if ended.outputs.contains_key(ASKED) => {}
            Some(now) if limit.used.min(limit.limit) > now => over_limit = true,
            _ => {}
        }
    }
    if raised.is_empty() { Serves::Yes { over_limit } } else { Serves::Raised(raised) }
}

fn limit_change(name: &str, old: u64, new: Option<u64>) -> Change {
    let say = |value| shown_limit(name, value);
    Change { ingredient: format!("limit {name}"), old: Some(say(old)), new: new.map(say) }
}

fn shown_limit(name: &str, value: u64) -> Value {
    match name {
        time if matches!(time, "timeout" | "time max") || time.starts_with("service ") => {
            Value::text(human_span(std::time::Duration::from_millis(value)))
        }
        "blocks max" => Value::text(format!("{value} blocks")),
        _ => Value::text(format!("{value} bytes")),
    }
}

/// The gate of an action that ended badly, if one did.
#[must_use]
pub fn shut_gate(plan: &Plan, node: usize, ends: &dyn Ends) -> Option<usize> {
    plan.nodes[node].gates.iter().copied().find(|gate| match ends.end(*gate) {
        End::Settled(ended) => ended.outcome.failure().is_some(),
        End::Skipped(_) | End::Blocked { .. } => true,
        End::Pending | End::Open(_) | End::Reopened(_) => false,
    })
}
