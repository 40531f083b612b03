//! Measuring: what a test process said, in which order processes run, and what the numbers of all of them mean.
//!
//! Everything here is a pure function of bytes and numbers. It starts no process, reads no clock and no file, and knows
//! nothing of slots, of the store or of classes: the test step runs what `protocol` says and hands what came out to
//! `contract`; the classifier reads `result`.

pub mod compare;
pub mod contract;
pub mod metric;
pub mod protocol;
pub mod result;
pub mod signature;
pub mod stats;

pub use compare::Equal;
pub use contract::{Contract, ProcessEnd, Sample, read};
pub use metric::{Kind, MetricSpec};
pub use protocol::{Arm, Protocol, Turn, gate, schedule};
pub use result::{Note, Run, TestResult, Verdict, analyse, conclude};

#[cfg(test)]
mod contract_tests;
