//! flow evaluates coding agents on real performance commits, from one manifest, and never runs the same thing twice.
//!
//! The library is the product; the program is a thin command line over it. Nothing below `cli` prints, exits or reads the
//! environment. Each file imports only from the floors below its own; `tests/floors.rs` holds the table.

pub mod attempt;
pub mod digest;
pub mod git;
pub mod key;
pub mod names;
pub mod outcome;
