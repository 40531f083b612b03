//! flow evaluates coding agents on real performance commits, from one manifest, and never runs the same thing twice.
//!
//! The library is the product; the program is a thin command line over it. Nothing below `cli` prints, exits or reads the
//! environment. Each file imports only from the floors below its own; `tests/floors.rs` holds the table.

pub mod agent;
pub mod attempt;
pub mod class;
pub mod cli;
pub mod container;
pub mod digest;
pub mod doctor;
pub mod event;
pub mod gc;
pub mod git;
pub mod host;
pub mod hostile;
pub mod key;
pub mod ledger;
pub mod manifest;
pub mod measure;
pub mod money;
pub mod names;
pub mod outcome;
pub mod plan;
pub mod process;
pub mod redact;
pub mod report;
pub mod run;
pub mod slots;
pub mod step;
pub mod store;
pub mod text;
pub mod units;
pub mod why;
