//! One file per kind of step: which ingredients its key has, and how it is done once.
//!
//! A step here knows nothing of scheduling, of slots or of other steps: it gets the ends of what it is linked to, and a place
//! to work in. `draft` turns an action into its key record as far as its inputs are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attempt::Ended;
use crate::event::Held;
use crate::key::{KeyRecord, Value};
use crate::outcome::Cause;
use crate::plan::{Ask, EnvAsk, Facts, Plan, Role};

pub mod agent;
pub mod assets;
pub mod checkout;
pub mod classify;
pub mod command;
pub mod container;
pub mod context;
pub mod done;
pub mod environment;
pub mod integrity;
pub mod leak;
pub mod leavings;
pub mod patch;
mod pristine;
pub mod processes;
pub mod sandbox;
pub mod secrets;
pub mod setup;
pub mod shown;
pub mod test;

pub use context::{Context, Place, Progress, Stop};
pub use done::{Done, Inputs};

/// How an action stands, as those downstream see it.
#[derive(Clone, Debug)]
pub enum End {
    /// It has not ended.
    Pending,
    /// An attempt speaks for it.
    Settled(Arc<Ended>),
    /// It is not to be run, for a cause that lies in the manifest.
    Skipped(Cause),
    /// It cannot be run because this action upstream left nothing to read, or closed its gate.
    Blocked {
        /// The action that is to blame.
        by: usize,
    },
    /// It ended in this run without being settled, and why.
    Open(Open),
    /// This attempt spoke for it by the tables of its day, and does not by today's.
    Reopened(Arc<Ended>),
}

/// Why an action was left open.
#[derive(Clone, Debug)]
pub struct Open {
    /// In words.
    pub because: String,
    /// What keeps it from beginning, where that is nothing of its own.
    pub held: Option<Box<Held>>,
    /// How its last attempt failed, where one did.
    pub cause: Option<Cause>,
}

impl From<String> for Open {
    fn from(because: String) -> Self {
        Self { because, held: None, cause: None }
    }
}

impl From<&str> for Open {
    fn from(because: &str) -> Self {
        because.to_owned().into()
    }
}

impl From<Held> for Open {
    fn from(held: Held) -> Self {
        Self { because: held.text(), held: Some(Box::new(held)), cause: None }
    }
}

impl End {
    /// Left open, for this reason.
    #[must_use]
    pub fn open(why: impl Into<Open>) -> Self {
        Self::Open(why.into())
    }

    /// The same after an attempt that settled nothing.
    #[must_use]
    pub fn open_after(why: impl Into<Open>, last: &Ended) -> Self {
        Self::Open(Open { cause: last.outcome.failure().map(|failure| failure.cause), ..why.into() })
    }

    /// Whether it is over for this run.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Pending)
    }

    /// Whether it may still be settled by a later run.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Reopened(_))
    }

    /// The attempt that tells most of it: the one that speaks for it, or did by the tables of its day.
    #[must_use]
    pub fn attempt(&self) -> Option<&Arc<Ended>> {
        match self {
            Self::Settled(ended) | Self::Reopened(ended) => Some(ended),
            _ => None,
        }
    }

    /// The attempt, if it is settled.
    #[must_use]
    pub fn settled(&self) -> Option<&Arc<Ended>> {
        match self {
            Self::Settled(ended) => Some(ended),
            _ => None,
        }
    }
}

/// How actions ended, by their number in the plan.
pub trait Ends {
    /// The end of an action.
    fn end(&self, node: usize) -> &End;
}

impl Ends for Vec<End> {
    fn end(&self, node: usize) -> &End {
        self.get(node).unwrap_or(&End::Pending)
    }
}

/// The ends of a few actions, for a task of its own.
#[derive(Clone, Debug, Default)]
pub struct SomeEnds(pub BTreeMap<usize, End>);

impl Ends for SomeEnds {
    fn end(&self, node: usize) -> &End {
        self.0.get(&node).unwrap_or(&End::Pending)
    }
}

/// The key record of an action, as far as it can be said.
#[derive(Clone, Debug)]
pub enum Keyed {
    /// All of it.
    Ready(KeyRecord),
    /// Some inputs have not ended: the record without the ingredients `waiting` names, and the actions waited for.
    Waiting {
        /// What is known.
        partial: KeyRecord,
        /// Role of the ingredient and the action it comes from.
        waiting: Vec<(String, usize)>,
    },
    /// Never in this run: the end it has instead.
    Never(End),
    /// The machine lacks something that the key needs.
    Lacking,
}

/// Builds a key record from an action's inputs.
pub struct Draft<'a> {
    plan: &'a Plan,
    node: usize,
    ends: &'a dyn Ends,
    record: KeyRecord,
    waiting: Vec<(String, usize)>,
    never: Option<End>,
}

impl Draft<'_> {
    fn push(&mut self, role: &str, value: Value) {
        self.record.push(role, value);
    }

    fn text(&mut self, role: &str, text: impl Into<String>) {
        self.push(role, Value::text(text));
    }

    /// The output `output` of the action that is linked as `link`, as ingredient `role`. Nothing where there is no such link.
    fn input(&mut self, role: &str, link: &Role, output: &str) {
        if let Some(value) = self.read(role, link, output) {
            self.record.push(role, value);
        }
    }

    /// The same output for what ingredient `role` is made of; nothing where it is not known, which is then on record.
    fn read(&mut self, role: &str, link: &Role, output: &str) -> Option<Value> {
        let up = self.plan.linked(self.node, link)?;
        match self.ends.end(up) {
            End::Pending => self.waiting.push((role.to_owned(), up)),
            End::Settled(ended) => match ended.outputs.get(output) {
                Some(value) => return Some(value.clone()),
                None => self.stop(End::Blocked { by: up }),
            },
            End::Skipped(_) => self.stop(End::Blocked { by: up }),
            End::Blocked { by } => self.stop(End::Blocked { by: *by }),
            End::Open(_) | End::Reopened(_) => self.stop(End::open(format!("waits for {}", self.plan.title(up)))),
        }
        None
    }

    fn stop(&mut self, end: End) {
        // What is open may still change; what is blocked will not, so it is the stronger word.
        let stronger = matches!((&self.never, &end), (None, _) | (Some(End::Open(_)), End::Blocked { .. }));
        if stronger {
            self.never = Some(end);
        }
    }

    fn env(&mut self, env: &EnvAsk) {
        for (name, value) in &env.hashed {
            self.text(&format!("env {name}"), value);
        }
    }

    fn tools(&mut self, facts: &Facts, tools: &[String]) {
        for tool in tools {
            if let Some(Ok(fact)) = facts.tools.get(tool) {
                self.text(&format!("tool {tool}"), &fact.identity);
                if let Some(source) = &fact.source {
                    self.push(&format!("source {tool}"), Value::Blob(source.listing));
                }
            }
        }
    }
}

/// The ingredients of an action's key that are outputs or ends of others, and of which.
#[must_use]
pub fn inputs_of(plan: &Plan, node: usize) -> Vec<(String, usize)> {
    match draft(plan, node, &SomeEnds::default()) {
        Keyed::Waiting { waiting, .. } => waiting,
        _ => Vec::new(),
    }
}

/// The ingredients of an action's key that will be outputs or ends of others, and of which, before anything ran, whatever the
/// machine lacks.
#[must_use]
pub fn read_as(plan: &Plan, node: usize) -> Vec<(String, usize)> {
    drafted(plan, node, &SomeEnds::default()).map_or_else(|_| Vec::new(), |draft| draft.waiting)
}

/// The ingredients of an action's key that are known before anything ran, whatever the machine lacks.
#[must_use]
pub fn known(plan: &Plan, node: usize) -> KeyRecord {
    match drafted(plan, node, &SomeEnds::default()) {
        Ok(draft) => draft.record,
        Err(record) => record,
    }
}

/// The key record of an action, given how the actions before it ended.
#[must_use]
pub fn draft(plan: &Plan, node: usize, ends: &dyn Ends) -> Keyed {
    if !plan.nodes[node].missing.is_empty() {
        return Keyed::Lacking;
    }
    match drafted(plan, node, ends) {
        Err(record) => Keyed::Ready(record),
        Ok(Draft { never: Some(end @ End::Blocked { .. } | end @ End::Skipped(_)), .. }) => Keyed::Never(end),
        Ok(Draft { record, waiting, .. }) if !waiting.is_empty() => Keyed::Waiting { partial: record, waiting },
        Ok(Draft { never: Some(end), .. }) => Keyed::Never(end),
        Ok(Draft { record, .. }) => Keyed::Ready(record),
    }
}

/// As far as it goes; a record that waits for nothing is an error here, for it is no draft.
fn drafted<'a>(plan: &'a Plan, node: usize, ends: &'a dyn Ends) -> Result<Draft<'a>, KeyRecord> {
    let kind = plan.kind(node).word();
    let new =
        |format| Draft { plan, node, ends, record: KeyRecord::new(kind, format), waiting: Vec::new(), never: None };
    let mut draft = match &plan.nodes[node].ask {
        Ask::Checkout(ask) => return Err(checkout::record(ask)),
        Ask::Environment(ask) => environment::draft(new(environment::FORMAT), ask),
        Ask::Agent(ask) => agent::draft(new(agent::FORMAT), ask),
        Ask::Patch(ask) => patch::draft(new(patch::FORMAT), ask),
        Ask::Test(ask) => test::draft(new(test::FORMAT), ask),
        Ask::Classify(ask) => classify::draft(new(classify::FORMAT), *ask),
        Ask::Command(ask) => command::draft(new(command::FORMAT), ask),
    };
    let used = (!plan.facts.assets.is_empty()).then(|| plan.nodes[node].ask.assets());
    for name in used.into_iter().flatten() {
        if let Some(Ok(fact)) = plan.facts.assets.get(name) {
            draft.text(&format!("asset {name}"), &fact.identity);
        }
    }
    Ok(draft)
}
