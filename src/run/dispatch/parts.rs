//! What a dispatcher is made of, what it is told, and what it gives back.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Event, GitState, Told};
use crate::names::RunId;
use crate::run::budget::Purse;
use crate::run::decide::Again;
use crate::run::journal::Journal;
use crate::run::leases::Leases;
use crate::step::Context;
use crate::store::{Index, RecordWriter};

/// What a person may tell a run while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin nothing more; what runs may end within the grace.
    Drain,
    /// End now.
    Kill,
}

/// Someone who watches. Cannot answer back.
pub trait Observer: Send {
    /// Sees an event.
    fn see(&mut self, told: &Told);
}

/// How a run is to go.
pub struct Options {
    /// At most so many actions at once.
    pub jobs: usize,
    /// How long running actions may go on after a drain was asked for.
    pub drain: Duration,
    /// Which actions are wanted; the others are not part of this run.
    pub wanted: Vec<bool>,
    /// The jobs that the run is about, by number.
    pub about: Vec<usize>,
    /// Which actions are executed though an attempt is there, and why.
    pub again: Vec<Again>,
    /// How long the run stays when nothing goes on but waiting for lanes; `None` for not at all.
    pub wait: Option<Duration>,
    /// Whether candidates whose breaker trips go on all the same.
    pub go_on: bool,
    /// Whether only patches are taken and classes said: what costs more than seconds is left.
    pub pure: bool,
}

/// What a run is made of.
pub struct Parts {
    /// The plan, the store and this machine.
    pub context: Arc<Context>,
    /// The run's name.
    pub run: RunId,
    /// The manifest's path as it was written.
    pub manifest: String,
    /// How its files stood in its project's repository.
    pub git: Option<GitState>,
    /// What the store knows.
    pub index: Index,
    /// Where this run writes its attempts.
    pub records: RecordWriter,
    /// Where this run writes its events.
    pub journal: Journal,
    /// The slots of this machine.
    pub leases: Leases,
    /// How it is to go.
    pub options: Options,
    /// What agents may cost, if the manifest says an amount.
    pub purse: Option<Purse>,
    /// Who watches.
    pub observers: Vec<Box<dyn Observer>>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// The last event.
    pub finished: Event,
    /// The exit code.
    pub exit: i32,
}
