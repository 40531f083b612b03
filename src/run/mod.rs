//! Running a plan: facts about the machine, decisions, the dispatcher with its executors, locks and slots, records and journal.

pub mod asking;
pub mod assets;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod decide;
pub mod dispatch;
pub mod durations;
pub mod execute;
pub mod hooks;
mod images;
pub mod journal;
pub mod lane;
pub mod leases;
mod memory;
pub mod nearest;
pub mod outbox;
pub mod past;
pub mod prepare;
pub mod recheck;
pub mod recover;
pub mod renamed;
pub mod reuse;
mod served_cache;
pub mod state;
pub mod uncommitted;
pub mod writer;
