//! What the machine tells of itself at an instant: counters of `/proc` and `/sys`, and what `nvidia-smi` says of GPUs.
//!
//! Reads and nothing else: bounded, and what cannot be read or understood is `None`, never 0. What a reading means for a
//! measurement is `measure::guard`'s business, and when to read is the test step's.

mod files;
mod nvidia;

use std::time::Duration;

pub use files::{available_memory, free_disk, oom_kills, read};
pub use nvidia::{Asked, Nvidia};

/// What the machine told at one instant. Each part is `None` where it tells nothing of it. Counters count since some time in
/// the past: only the difference of two readings means something.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When, since an origin that the readings of one session share.
    pub at: Duration,
    /// The load average of the last minute, in tasks.
    pub load: Option<f64>,
    /// Tasks that ran or waited for a processor, without the one that read this.
    pub runnable: Option<u32>,
    /// What the processors did.
    pub time: Option<Time>,
    /// How long the quota of the control group held tasks back.
    pub throttled: Option<Duration>,
    /// How long some task waited for a processor.
    pub pressure: Option<Duration>,
    /// How long heat slowed the core, of those asked for, that it slowed longest.
    pub heat: Option<Duration>,
    /// The hottest sensor of the board, in degrees Celsius.
    pub celsius: Option<f64>,
    /// The mean clock of the cores, in MHz.
    pub mhz: Option<f64>,
    /// The GPUs that were asked for.
    pub gpus: Vec<Gpu>,
}

/// What processors did with their time, summed over cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// They worked.
    pub busy: Duration,
    /// They were idle, and nothing waited for a disk.
    pub idle: Duration,
    /// They were idle while something waited for a disk.
    pub iowait: Duration,
    /// They had work, and the host of this virtual machine gave them to somebody else.
    pub steal: Duration,
}

/// What one GPU told at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gpu {
    /// Its driver's name for it.
    pub uuid: String,
    /// Its temperature, in degrees Celsius.
    pub celsius: Option<f64>,
    /// The clock of its multiprocessors, in MHz.
    pub mhz: Option<f64>,
    /// What slows its clock now, as bits of the driver's `clocks_event_reasons`.
    pub reasons: Option<u64>,
    /// How long heat slowed it.
    pub heat: Option<Duration>,
    /// The processes that compute on it, by the ids that the driver gives.
    pub listed: Option<Vec<i32>>,
    /// Those of them that are known to be none of the attempt's own.
    pub strangers: Vec<i32>,
}

impl Gpu {
    /// The bits of `reasons` that say that it is too hot, or that its board asked it to slow down: software and hardware thermal
    /// slowdown, hardware slowdown, power brake. A cap on power is none of them: many boards run at theirs all the time.
    pub const HOT: u64 = 0x20 | 0x40 | 0x08 | 0x80;
}
