//! Agents as others see them: what an attempt of one came to, read from what it left by tables that are data.
//!
//! A reading is pure: the end of a process and some bytes go in, an outcome and usage come out, today or in a year. All that is
//! read here was written by an agent, so every size is bounded and nothing in it can make flow fail. Runs nothing, stores
//! nothing, and never judges by the exit code alone.

mod document;
mod finding;
mod pointer;
mod read;
mod signature;
mod table;
mod usage;

pub use pointer::{BadPointer, Pointer};
pub use read::{Reading, read};
pub use signature::{BadPattern, Pattern, Signature, no_login, readable, refusal};
pub use table::{Cached, Condition, ErrorReader, Finder, Finished, Format, ReadingTable, Tables, Take, UsageReader};
