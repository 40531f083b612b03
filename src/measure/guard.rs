//! Guards of a block: whether the machine was disturbed while its processes ran, so that what they measured says nothing.
//!
//! Blind to what was measured: everything here is told by readings of the machine alone, and no function takes a run, a sample
//! or an arm. A block is dropped as a whole, never one arm of it. Reads no clock and no file: `host` reads, the test step says
//! when, and `session` there drops.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::{Gpu, Reading};
use crate::text::counted;

/// How many blocks may be dropped, where the manifest does not say.
pub const DROPPED: u32 = 5;
/// The most blocks that a manifest may let be dropped.
pub const DROPPED_MAX: u32 = 1000;
/// The share of a block above which a disturbance breaks a guard that is on though the manifest says nothing.
pub const SHARE: f64 = 0.10;
/// A disturbance shorter than this in a block breaks no guard: the kernel counts in hundredths of a second, and mirrored blocks
/// bear what is short.
pub const LEAST: Duration = Duration::from_millis(250);
/// What slows the clock of a GPU, by the driver's bits; that it is idle is none.
const SLOWED: [(u64, &str); 8] = [
    (0x02, "the clocks that are set"),
    (0x04, "its cap on power"),
    (0x08, "the board"),
    (0x10, "other GPUs"),
    (0x20, "its temperature"),
    (0x40, "its temperature"),
    (0x80, "the power supply"),
    (0x100, "the display"),
];

/// What is borne in a block. Shares are fractions; `None` bears everything. A limit: in no key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guards {
    /// Time that the host of a virtual machine took away, by what the processors had to do.
    pub steal: Option<f64>,
    /// Time in which the quota of the control group held tasks back, by the block's.
    pub throttle: Option<f64>,
    /// Time in which heat slowed a core or the GPU, by the block's.
    pub heat: Option<f64>,
    /// Time in which processors waited for a disk, by all of theirs.
    pub iowait: Option<f64>,
    /// Time in which some task waited for a processor, by the block's.
    pub pressure: Option<f64>,
    /// Nobody else computes on the GPU.
    pub alone: bool,
    /// The most blocks that may be dropped of one session.
    pub dropped: u32,
}

impl Default for Guards {
    fn default() -> Self {
        let share = Some(SHARE);
        Self { steal: share, throttle: share, heat: share, iowait: None, pressure: None, alone: true, dropped: DROPPED }
    }
}

impl Guards {
    /// Bears everything; what the machine tells is noted all the same.
    pub const OFF: Self =
        Self { steal: None, throttle: None, heat: None, iowait: None, pressure: None, alone: false, dropped: DROPPED };
}

/// A length of time within a block, and by what it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// As a fraction.
    pub share: f64,
    /// In milliseconds.
    pub ms: u64,
}

impl Share {
    fn of(part: Duration, whole: Duration) -> Self {
        let share = if whole.is_zero() { 0.0 } else { (part.as_secs_f64() / whole.as_secs_f64()).min(1.0) };
        Self { share, ms: u64::try_from(part.as_millis()).unwrap_or(u64::MAX) }
    }

    fn over(self, limit: Option<f64>) -> bool {
        u128::from(self.ms) >= LEAST.as_millis() && limit.is_some_and(|limit| self.share > limit)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\u{a0}%", (100.0 * self.share).round())
    }
}

/// What was seen of the machine while a block ran. What is absent, the machine does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// How long the block took, in milliseconds.
    pub wall_ms: u64,
    /// The higher load average of the last minute, in tasks: before the block and after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// The most tasks that ran or waited before the block and after it, when none of the block's did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<u32>,
    /// Time that the host took away, by what the processors had to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steal: Option<Share>,
    /// Time in which processors waited for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iowait: Option<Share>,
    /// Time in which the quota of the control group held tasks back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Share>,
    /// Time in which some task waited for a processor, the block's own too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Share>,
    /// Time in which heat slowed a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heat: Option<Share>,
    /// The least and the most degrees Celsius of the hottest sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub celsius: Option<[f64; 2]>,
    /// The least and the most MHz of the cores' mean clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mhz: Option<[f64; 2]>,
    /// The GPUs of the slot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuSeen>,
}

/// What was seen of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuSeen {
    /// Its driver's name for it.
    pub uuid: String,
    /// The least and the most degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub celsius: Option<[f64; 2]>,
    /// The least and the most MHz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mhz: Option<[f64; 2]>,
    /// All that slowed its clock at some reading: bits of the driver's `clocks_event_reasons`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasons: Option<u64>,
    /// Time in which heat slowed it: by its own counters, or else by the readings that said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heat: Option<Share>,
    /// The processes of others that computed on it, by the ids that the driver gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<BTreeSet<i32>>,
    /// How many processes were on it before or after the block of which it cannot be told whose they are.
    #[serde(skip_serializing_if = "is_zero")]
    pub untold: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A guard that was broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Broken {
    /// Too much time was taken away by the host.
    Steal(Share),
    /// The quota held back for too long.
    Throttle(Share),
    /// Heat slowed a core for too long.
    Heat(Share),
    /// Heat slowed the GPU for too long.
    GpuHeat(Share),
    /// Processors waited for a disk for too long.
    Iowait(Share),
    /// Tasks waited for a processor for too long.
    Pressure(Share),
    /// Others computed on the GPU.
    Shared {
        /// Its driver's name for it.
        gpu: String,
        /// The ids of their processes, as the driver gives them.
        processes: BTreeSet<i32>,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steal(share) => write!(f, "steal {share}"),
            Self::Throttle(share) => write!(f, "throttled {share}"),
            Self::Heat(share) => write!(f, "slowed by heat {share}"),
            Self::GpuHeat(share) => write!(f, "GPU slowed by heat {share}"),
            Self::Iowait(share) => write!(f, "iowait {share}"),
            Self::Pressure(share) => write!(f, "pressure {share}"),
            Self::Shared { gpu, processes } => {
                let ids: Vec<String> = processes.iter().take(3).map(ToString::to_string).collect();
                write!(f, "another process on {gpu}: {}", ids.join(", "))
            }
        }
    }
}

/// What a block's guards came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The block's number, from 0. A dropped one is run again under its number.
    pub block: u32,
    /// What was seen.
    pub seen: Seen,
    /// The guards that were broken: with one of them the block was dropped.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub broken: Vec<Broken>,
}

/// The guards of a session, stored with its samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guarded {
    /// What was borne.
    pub limits: Guards,
    /// The cores that the slot names, and those of them that its processes were held to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pinned: Option<Pinned>,
    /// Every block in the order in which they ran, dropped ones too.
    pub blocks: Vec<Block>,
}

/// To which cores the processes of a session were held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Those that the slot names.
    pub named: Vec<u32>,
    /// Those that the kernel held them to; none if it refused.
    pub held: Vec<u32>,
}

/// What readings of the machine say of the time between the first and the last of them. At the first and the last no process of
/// the block ran.
#[must_use]
pub fn seen(readings: &[Reading]) -> Seen {
    let ([first, ..], [.., last]) = (readings, readings) else { return Seen::default() };
    let wall = last.at.saturating_sub(first.at);
    let since = |of: &dyn Fn(&Reading) -> Option<Duration>| of(last)?.checked_sub(of(first)?);
    let share = |of: &dyn Fn(&Reading) -> Option<Duration>| since(of).map(|part| Share::of(part, wall));
    let time = |of: fn(&crate::host::Time) -> Duration| since(&|reading| reading.time.as_ref().map(of));
    let (busy, idle) = (time(|time| time.busy), time(|time| time.idle));
    let (steal, iowait) = (time(|time| time.steal), time(|time| time.iowait));
    let all = [busy, idle, steal, iowait].into_iter().sum::<Option<Duration>>();
    let edges = [first, last];
    let uuids = first.gpus.iter().map(|gpu| gpu.uuid.as_str());
    Seen {
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        load: edges.iter().filter_map(|reading| reading.load).reduce(f64::max),
        others: edges.iter().filter_map(|reading| reading.runnable).max(),
        steal: steal.zip(busy).map(|(steal, busy)| Share::of(steal, steal + busy)),
        iowait: iowait.zip(all).map(|(iowait, all)| Share::of(iowait, all)),
        throttle: share(&|reading| reading.throttled),
        pressure: share(&|reading| reading.pressure),
        heat: share(&|reading| reading.heat),
        celsius: range(readings.iter().filter_map(|reading| reading.celsius)),
        mhz: range(readings.iter().filter_map(|reading| reading.mhz)),
        gpus: uuids.map(|uuid| gpu_seen(uuid, readings, wall)).collect(),
    }
}

fn gpu_seen(uuid: &str, readings: &[Reading], wall: Duration) -> GpuSeen {
    let all: Vec<&Gpu> =
        readings.iter().filter_map(|reading| reading.gpus.iter().find(|gpu| gpu.uuid == uuid)).collect();
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return GpuSeen::default() };
    let told: Vec<u64> = all.iter().filter_map(|gpu| gpu.reasons).collect();
    let counted = first.heat.zip(last.heat).and_then(|(before, after)| after.checked_sub(before));
    let by_readings = || {
        let hot = told.iter().filter(|reasons| **reasons & Gpu::HOT != 0).count();
        (!told.is_empty()).then(|| wall.mul_f64(hot as f64 / told.len() as f64))
    };
    // Whoever is on it both before and after the block outlived all of the block's own processes.
    let stay = |before: &Vec<i32>, after: &Vec<i32>| before.iter().filter(|pid| after.contains(pid)).copied().collect();
    let others = first.listed.as_ref().zip(last.listed.as_ref()).map(|(before, after)| {
        let stay: BTreeSet<i32> = stay(before, after);
        all.iter().flat_map(|gpu| gpu.strangers.iter().copied()).chain(stay).collect::<BTreeSet<i32>>()
    });
    let at_edges = [first, last].into_iter().flat_map(|gpu| gpu.listed.iter().flatten().copied());
    let at_edges: BTreeSet<i32> = at_edges.collect();
    GpuSeen {
        uuid: uuid.to_owned(),
        celsius: range(all.iter().filter_map(|gpu| gpu.celsius)),
        mhz: range(all.iter().filter_map(|gpu| gpu.mhz)),
        reasons: told.iter().copied().reduce(|all, more| all | more),
        heat: counted.or_else(by_readings).map(|hot| Share::of(hot, wall)),
        untold: others.as_ref().map_or(0, |others| at_edges.difference(others).count()),
        others,
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |range, value| {
        Some(range.map_or([value; 2], |[low, high]: [f64; 2]| [low.min(value), high.max(value)]))
    })
}

/// The guards that were broken. What the machine does not tell breaks none.
#[must_use]
pub fn broken(limits: &Guards, seen: &Seen) -> Vec<Broken> {
    let over = |share: Option<Share>, limit: Option<f64>| share.filter(|share| share.over(limit));
    let mut broken: Vec<Broken> = [
        over(seen.steal, limits.steal).map(Broken::Steal),
        over(seen.throttle, limits.throttle).map(Broken::Throttle),
        over(seen.heat, limits.heat).map(Broken::Heat),
        over(seen.iowait, limits.iowait).map(Broken::Iowait),
        over(seen.pressure, limits.pressure).map(Broken::Pressure),
    ]
    .into_iter()
    .flatten()
    .collect();
    for gpu in &seen.gpus {
        broken.extend(over(gpu.heat, limits.heat).map(Broken::GpuHeat));
        if let Some(others) = gpu.others.as_ref().filter(|others| limits.alone && !others.is_empty()) {
            broken.push(Broken::Shared { gpu: gpu.uuid.clone(), processes: others.clone() });
        }
    }
    broken
}

impl Guarded {
    /// How many blocks were dropped.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.blocks.iter().filter(|block| !block.broken.is_empty()).count()
    }

    /// Why blocks were dropped, each reason once, that of most blocks first, with how many it dropped.
    #[must_use]
    pub fn reasons(&self) -> String {
        let mut kinds: Vec<(String, &Broken, usize)> = Vec::new();
        for broken in self.blocks.iter().flat_map(|block| &block.broken) {
            let kind = match broken {
                Broken::Shared { gpu, .. } => gpu.clone(),
                other => format!("{:?}", std::mem::discriminant(other)),
            };
            match kinds.iter_mut().find(|(own, ..)| *own == kind) {
                Some((.., count)) => *count += 1,
                None => kinds.push((kind, broken, 1)),
            }
        }
        kinds.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        let said = kinds.iter().map(|(_, broken, count)| match count {
            1 => broken.to_string(),
            _ => format!("{broken} ({})", counted(*count, "block")),
        });
        said.collect::<Vec<_>>().join("; ")
    }

    /// A line for each block.
    #[must_use]
    pub fn log(&self) -> String {
        let line = |block: &Block| serde_json::to_string(block).unwrap_or_default() + "\n";
        self.blocks.iter().map(line).collect()
    }

    /// A line for people: what was dropped and why, what was seen in the blocks that were kept, and what the machine does not
    /// tell.
    #[must_use]
    pub fn text(&self) -> String {
        let kept: Vec<&Seen> =
            self.blocks.iter().filter(|block| block.broken.is_empty()).map(|block| &block.seen).collect();
        let mut said = vec![match self.dropped() {
            0 => format!("{}, none dropped", counted(kept.len(), "block")),
            dropped => format!("{} kept, {dropped} dropped ({})", counted(kept.len(), "block"), self.reasons()),
        }];
        said.push(match &self.pinned {
            Some(pinned) => pinned.text(),
            None => "not pinned: the slot names no cores".to_owned(),
        });
        if kept.is_empty() {
            return said.join("; ");
        }
        let mut unknown: Vec<&str> = Vec::new();
        let mut most = |name: &'static str, of: &dyn Fn(&Seen) -> Option<Share>| {
            let told: Option<Vec<Share>> = kept.iter().map(|seen| of(seen)).collect();
            let most = told.and_then(|told| told.into_iter().reduce(|a, b| if b.share > a.share { b } else { a }));
            if most.is_none() {
                unknown.push(name);
            }
            most.map(|most| format!("{name} {most}"))
        };
        let shares = [
            most("steal", &|seen| seen.steal),
            most("throttled", &|seen| seen.throttle),
            most("heat", &|seen| seen.heat),
            most("iowait", &|seen| seen.iowait),
            most("pressure", &|seen| seen.pressure),
        ];
        let shares: Vec<String> = shares.into_iter().flatten().collect();
        if !shares.is_empty() {
            said.push(format!("at most {}", shares.join(", ")));
        }
        let load = kept.iter().filter_map(|seen| seen.load).reduce(f64::max);
        match load {
            Some(load) => said.push(format!("load {load:.1}")),
            None => unknown.push("load"),
        }
        let ends = |of: &dyn Fn(&Seen) -> Option<[f64; 2]>| range(kept.iter().filter_map(|seen| of(seen)).flatten());
        match ends(&|seen| seen.celsius) {
            Some(ends) => said.push(format!("{} °C", span(ends))),
            None => unknown.push("temperature"),
        }
        match ends(&|seen| seen.mhz) {
            Some(ends) => said.push(format!("{} MHz", span(ends))),
            None => unknown.push("clock"),
        }
        if !unknown.is_empty() {
            said.push(format!("unknown: {}", unknown.join(", ")));
        }
        for number in 0..kept.iter().map(|seen| seen.gpus.len()).max().unwrap_or(0) {
            let gpu: Vec<&GpuSeen> = kept.iter().filter_map(|seen| seen.gpus.get(number)).collect();
            said.extend(gpu_text(&gpu));
        }
        said.join("; ")
    }
}

/// What was seen of one GPU in some blocks.
fn gpu_text(blocks: &[&GpuSeen]) -> Option<String> {
    let first = blocks.first()?;
    let ends = |of: &dyn Fn(&GpuSeen) -> Option<[f64; 2]>| range(blocks.iter().filter_map(|gpu| of(gpu)).flatten());
    let said = |ends: Option<[f64; 2]>, unit: &str, name: &str| {
        ends.map_or_else(|| format!("{name} unknown"), |ends| format!("{} {unit}", span(ends)))
    };
    let heat: Option<Vec<f64>> = blocks.iter().map(|gpu| gpu.heat.map(|heat| heat.share)).collect();
    let heat = heat.and_then(|all| all.into_iter().reduce(f64::max));
    let others: Option<Vec<usize>> = blocks.iter().map(|gpu| gpu.others.as_ref().map(BTreeSet::len)).collect();
    let untold: usize = blocks.iter().map(|gpu| gpu.untold).sum();
    let company = match others.map(|others| others.into_iter().max().unwrap_or(0)) {
        None => "whether alone unknown".to_owned(),
        Some(0) if untold > 0 => "whether alone not known of all blocks".to_owned(),
        Some(0) => "alone".to_owned(),
        Some(1) => "with a process of others".to_owned(),
        Some(others) => format!("with {others} processes of others"),
    };
    let reasons = blocks.iter().filter_map(|gpu| gpu.reasons).fold(0, |all, more| all | more);
    let mut slowed: Vec<&str> = SLOWED.iter().filter(|(bit, _)| reasons & bit != 0).map(|(_, word)| *word).collect();
    slowed.dedup();
    let slowed = if slowed.is_empty() { String::new() } else { format!("held back by {}, ", slowed.join(" and ")) };
    Some(format!(
        "{}: {}, {}, {}, {slowed}{company}",
        first.uuid,
        said(ends(&|gpu| gpu.celsius), "°C", "temperature"),
        said(ends(&|gpu| gpu.mhz), "MHz", "clock"),
        heat.map_or_else(
            || "heat unknown".to_owned(),
            |share| format!("heat at most {}\u{a0}%", (100.0 * share).round())
        ),
    ))
}

fn span([low, high]: [f64; 2]) -> String {
    let (low, high) = (low.round(), high.round());
    if low == high { format!("{high}") } else { format!("{low}-{high}") }
}

impl Pinned {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let list = |cores: &[u32]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match () {
            () if self.held == self.named => format!("pinned to cores {}", list(&self.held)),
            () if self.held.is_empty() => format!("not pinned: the kernel refuses cores {}", list(&self.named)),
            () => format!("pinned to cores {} of {}, the others are not there", list(&self.held), list(&self.named)),
        }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
