//! Measuring: what a test process said, in which order processes run, and what the numbers of all of them mean.
//!
//! Everything here is a pure function of bytes and numbers. It starts no process, reads no clock and no file, and knows
//! nothing of slots, of the store or of classes: the test step runs what `protocol` says and hands what came out to
//! `contract`; the classifier reads `analysis`.

pub mod again;
pub mod analysis;
pub mod compare;
pub mod contract;
pub mod course;
pub mod crosscheck;
pub mod equal;
pub mod guard;
pub mod metric;
pub mod others;
pub mod pattern;
pub mod plausible;
pub mod presets;
mod printed;
pub mod protocol;
pub mod published;
pub mod result;
mod selected;
pub mod signature;
pub mod simulate;
pub mod stats;
pub mod values;

pub use analysis::{Verdict, analyse};
pub use contract::{Contract, ProcessEnd, Sample, read};
pub use course::{Course, Stop};
pub use equal::Equal;
pub use guard::{Guarded, Guards};
pub use metric::{Kind, MetricSpec};
pub use pattern::Pattern;
pub use presets::Preset;
pub use protocol::{Arm, Protocol, Turn, gate};
pub use result::{Kept, Note, Run, TestResult, conclude};
pub use values::Values;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod testing;
