//! The protocol: in which order the fresh processes of a test run, after how many blocks their results are looked at, and how
//! sure a verdict has to be at each look.
//!
//! A pure schedule. One turn is one fresh process of one arm. Turns come in **blocks**, and a block yields one log ratio for
//! each pair of its arms. A block of `Shape::Mirror`, the usual one, is an order of the arms and its mirror, `A B B A` say (A
//! is the base, B the patched tree, H the human's): within it a linear drift of the machine cancels out exactly (harnesses.md
//! section 2.4, points 4 and 6). A block of `Shape::Pair` is one order alone: half the price, and a drift cancels only over
//! two blocks (base against base with 1 % of noise and 3 % of drift, looked at once at 95 %: of mirrored sessions of five blocks
//! 95 % are shown to be neutral, of those in pairs 64 %; `stats_tests`). With two arms a block's order is the mirror of the order of the block before
//! it, and the seed decides the first. With three the six orders come once each in every six blocks, shuffled by the seed:
//! each arm follows each other one equally often (Williams 1949).
//!
//! `block` gives any block by its number and the arms that are left, so that a later look or an extension continues a schedule
//! and repeats nothing. Starts no process; `course` decides when it is over.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// After how many blocks the results are looked at (design section 8). Beyond the last, which needs a `blocks max` of more,
/// there is a look at each half as many again; the rates of false verdicts that the profiles promise end with the last.
pub const LOOKS: [u32; 5] = [5, 8, 12, 18, 26];
/// The error rate of `screen` at one look, two-sided: constant over the looks (Pocock 1977), so that all five together call
/// at most 5.7 % of equal trees different (harnesses.md section 2.4, point 7; `flow selftest stats`).
pub const SCREEN_ALPHA: f64 = 0.0158;
/// The same of `headline`: at most 0.8 % over all looks.
pub const HEADLINE_ALPHA: f64 = 0.0025;
/// The same of `fixed`, which looks once.
pub const FIXED_ALPHA: f64 = 0.05;
/// The most blocks of a schedule, whatever the manifest says.
pub const BLOCKS_MAX: u32 = 1000;
/// The most warm-up runs of an arm, whatever the manifest says.
pub const WARMUP_MAX: u32 = 20;
/// After so many warm-up runs an arm is measured, though no two agreed.
pub const WARMUP_CAP: u32 = 5;
/// Two warm-up runs agree if the larger is at most so much more than the smaller, as a fraction.
pub const WARMUP_AGREE: f64 = 0.02;

/// What runs in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The base tree: A.
    Base,
    /// The patched tree, or in A/A a second copy of the base tree: B.
    Patched,
    /// The tree that the human's own change makes: H.
    Human,
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Base => "base",
            Self::Patched => "patched",
            Self::Human => "human",
        })
    }
}

impl Arm {
    /// Every arm.
    pub const ALL: [Self; 3] = [Self::Base, Self::Patched, Self::Human];
}

/// How many blocks are run and how sure a verdict has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The usual one.
    Screen,
    /// For figures that are published.
    Headline,
    /// As many blocks as the manifest says, looked at once.
    Fixed,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Screen => "screen",
            Self::Headline => "headline",
            Self::Fixed => "fixed",
        })
    }
}

/// The text names no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no profile: `screen`, `headline` and `fixed` are")]
pub struct BadProfile(String);

impl FromStr for Profile {
    type Err = BadProfile;

    fn from_str(text: &str) -> Result<Self, BadProfile> {
        match text {
            "screen" => Ok(Self::Screen),
            "headline" => Ok(Self::Headline),
            "fixed" => Ok(Self::Fixed),
            _ => Err(BadProfile(text.chars().take(80).collect())),
        }
    }
}

/// What one block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// `A B B A` or `B A A B`.
    #[default]
    Mirror,
    /// `A B` or `B A`.
    Pair,
}

/// How a test is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Protocol {
    /// How many blocks, how sure.
    pub profile: Profile,
    /// What a block is.
    pub shape: Shape,
    /// The most blocks. A limit: in no key, except with `Profile::Fixed`, where it is the number of blocks.
    pub blocks_max: u32,
    /// The most time for all runs, in milliseconds. A limit: in no key. No block is begun that is not expected to end in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time_max_ms: Option<u64>,
    /// Decides which arm begins.
    pub seed: u64,
    /// How many runs of each arm are made and thrown away before the first block, at least: see `cold`. 0 for none at all.
    pub warmup: u32,
}

impl Protocol {
    /// A profile with its own limits: mirrored blocks, at most as many as the last look has (five with `Fixed`), no limit of
    /// time, seed 0, one warm-up an arm.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let blocks_max = match profile {
            Profile::Screen | Profile::Headline => LOOKS[LOOKS.len() - 1],
            Profile::Fixed => LOOKS[0],
        };
        Self { profile, shape: Shape::Mirror, blocks_max, time_max_ms: None, seed: 0, warmup: 1 }
    }

    /// The most blocks: what the manifest says, within what can be.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.blocks_max.clamp(1, BLOCKS_MAX)
    }

    /// After how many blocks the results are looked at, in order. The last is the most blocks: whatever is not settled then is
    /// not settled.
    #[must_use]
    pub fn looks(&self) -> Vec<u32> {
        let last = self.most();
        let mut looks: Vec<u32> = match self.profile {
            Profile::Fixed => Vec::new(),
            Profile::Screen | Profile::Headline => LOOKS.to_vec(),
        };
        while let Some(look) = looks.last().filter(|look| **look < last) {
            looks.push(look + look / 2);
        }
        looks.retain(|look| *look < last);
        looks.push(last);
        looks
    }

    /// The two-sided error rate of the interval at each look.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        match self.profile {
            Profile::Screen => SCREEN_ALPHA,
            Profile::Headline => HEADLINE_ALPHA,
            Profile::Fixed => FIXED_ALPHA,
        }
    }

    /// How many runs of each arm a whole block has.
    #[must_use]
    pub fn runs_per_arm(&self) -> usize {
        match self.shape {
            Shape::Mirror => 2,
            Shape::Pair => 1,
        }
    }
}

/// One fresh process of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// What runs.
    pub arm: Arm,
    /// Its block, from 0. A warm-up belongs to none and says 0.
    pub block: u32,
    /// Whether it ran before the first block, to be thrown away.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub warmup: bool,
    /// Whether it is of a block that was dropped, as the machine was disturbed: thrown away too.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dropped: bool,
}

impl Turn {
    /// Whether what it measured counts. Its results are compared either way.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.warmup && !self.dropped
    }
}

/// The turns of one block of these arms, whatever came before it.
#[must_use]
pub fn block(protocol: &Protocol, number: u32, arms: &[Arm]) -> Vec<Turn> {
    // In blocks that are not mirrored, every second is the mirror of the one before it.
    let (order, turned) = match protocol.shape {
        Shape::Mirror => (order(protocol.seed, number, arms), false),
        Shape::Pair if arms.len() == 2 => (order(protocol.seed, number, arms), false),
        Shape::Pair => (order(protocol.seed, number / 2, arms), number % 2 == 1),
    };
    let back = order.iter().rev().copied();
    let arms: Vec<Arm> = match protocol.shape {
        Shape::Mirror => order.iter().copied().chain(back).collect(),
        Shape::Pair if turned => back.collect(),
        Shape::Pair => order,
    };
    arms.into_iter().map(|arm| Turn { arm, block: number, warmup: false, dropped: false }).collect()
}

/// The order of the arms in a block's first half.
fn order(seed: u64, number: u32, arms: &[Arm]) -> Vec<Arm> {
    match *arms {
        [a, b] => {
            let turned = (splitmix64(seed) & 1 == 1) ^ (number % 2 == 1);
            if turned { vec![b, a] } else { vec![a, b] }
        }
        [a, b, c] => {
            let mut orders = [[a, b, c], [b, c, a], [c, a, b], [c, b, a], [a, c, b], [b, a, c]];
            // Fisher and Yates, with a generator for each six blocks.
            let mut state = splitmix64(seed ^ splitmix64(u64::from(number / 6) + 1));
            for last in (1..orders.len()).rev() {
                state = splitmix64(state);
                orders.swap(last, (state % (last as u64 + 1)) as usize);
            }
            orders[(number % 6) as usize].to_vec()
        }
        _ => arms.to_vec(),
    }
}

/// The order of the arms in a round of warm-ups.
#[must_use]
pub fn warm_ups(protocol: &Protocol, arms: &[Arm]) -> Vec<Turn> {
    let order = order(protocol.seed, 0, arms);
    order.into_iter().map(|arm| Turn { arm, block: 0, warmup: true, dropped: false }).collect()
}

/// Whether an arm needs one more warm-up, given what its warm-ups measured so far: at least `warmup` of them, more until two in
/// a row agree within `WARMUP_AGREE`, and no more than `WARMUP_CAP` for want of that (harnesses.md section 2.4, point 3).
#[must_use]
pub fn cold(protocol: &Protocol, values: &[f64]) -> bool {
    let least = protocol.warmup.min(WARMUP_MAX) as usize;
    if least == 0 || values.len() < least {
        return least > 0;
    }
    let agree = match values {
        [.., a, b] => a.max(*b) <= a.min(*b) * (1.0 + WARMUP_AGREE),
        _ => false,
    };
    !agree && values.len() < WARMUP_CAP as usize
}

/// All turns for exact counts: each arm and a repeat, mirrored, without a warm-up and whatever the seed, for nothing drifts.
#[must_use]
pub fn exact(arms: &[Arm]) -> Vec<Turn> {
    let mirrored = arms.iter().chain(arms.iter().rev());
    mirrored.map(|&arm| Turn { arm, block: 0, warmup: false, dropped: false }).collect()
}

/// The turns of a gate: two runs of the base, which show that it runs, how long it takes, and whether its results agree.
/// Their times are in no ratio, so no warm-up is made; unless there are `caches`, which the first one fills for the second.
#[must_use]
pub fn gate(caches: bool) -> Vec<Turn> {
    let turn = |warmup| Turn { arm: Arm::Base, block: 0, warmup, dropped: false };
    vec![turn(caches), turn(false)]
}

/// SplitMix64's output function (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(super) fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
