//! The protocol: in which order the fresh processes of a test run, and how many.
//!
//! A pure schedule. One turn is one fresh process of one arm. Turns come in **blocks**, and a block yields one log ratio.
//! A block of `Shape::Mirror`, the usual one, is `A B B A` or its mirror `B A A B` (A is the base, B the patched tree): within
//! it a linear drift of the machine cancels out exactly (harnesses.md section 2.4, points 4 and 6). A block of `Shape::Pair`
//! is `A B` or `B A`: half the price, and a drift cancels only over two blocks (base against base with 1 % of noise and 3 %
//! of drift: 82 % of mirrored sessions of five blocks are shown to be neutral, 40 % of those in pairs; `stats_tests`). Either way a block's order is the mirror of
//! the order of the block before it, and the seed decides the first.
//!
//! `block` gives any block by its number alone, so that a later look (`LOOKS`) or an extension continues a schedule and
//! repeats nothing. Does not start processes, and does not decide when to stop beyond the first look.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::metric::Kind;

/// After how many blocks the results are looked at (design section 8). So far only the first look is taken.
pub const LOOKS: [u32; 5] = [5, 8, 12, 18, 26];
/// The most blocks of a schedule, whatever the manifest says.
pub const BLOCKS_MAX: u32 = 1000;
/// The most warm-up runs of an arm, whatever the manifest says.
pub const WARMUP_MAX: u32 = 20;

/// What runs in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The base tree: A.
    Base,
    /// The patched tree, or in A/A a second copy of the base tree: B.
    Patched,
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Base => "base",
            Self::Patched => "patched",
        })
    }
}

impl Arm {
    /// The other arm.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Base => Self::Patched,
            Self::Patched => Self::Base,
        }
    }
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
    /// How many runs of each arm are made and thrown away before the first block.
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

    /// How many blocks are run before the results are looked at: all with `Fixed`, else the first look.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        match self.profile {
            Profile::Fixed => self.blocks_max.clamp(1, BLOCKS_MAX),
            Profile::Screen | Profile::Headline => self.blocks_max.clamp(1, LOOKS[0]),
        }
    }

    /// The arm that begins block 0, by the seed alone.
    #[must_use]
    pub fn first(&self) -> Arm {
        if splitmix64(self.seed) & 1 == 0 { Arm::Base } else { Arm::Patched }
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
    /// Whether its result is thrown away.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub warmup: bool,
}

/// The turns of one block, whatever came before it.
#[must_use]
pub fn block(protocol: &Protocol, number: u32) -> Vec<Turn> {
    let first = if number.is_multiple_of(2) { protocol.first() } else { protocol.first().other() };
    let other = first.other();
    let arms: &[Arm] = match protocol.shape {
        Shape::Mirror => &[first, other, other, first],
        Shape::Pair => &[first, other],
    };
    arms.iter().map(|&arm| Turn { arm, block: number, warmup: false }).collect()
}

/// All turns up to the first look: for noisy metrics the warm-ups and then the blocks; for exact counts `A B B A`, one pair
/// and a repeat, without a warm-up and whatever the seed, for nothing drifts.
#[must_use]
pub fn schedule(protocol: &Protocol, kind: Kind) -> Vec<Turn> {
    if kind == Kind::Count {
        let arms = [Arm::Base, Arm::Patched, Arm::Patched, Arm::Base];
        return arms.map(|arm| Turn { arm, block: 0, warmup: false }).into();
    }
    let pair = [protocol.first(), protocol.first().other()];
    let warm = (0..protocol.warmup.min(WARMUP_MAX)).flat_map(|_| pair).map(|arm| Turn { arm, block: 0, warmup: true });
    warm.chain((0..protocol.blocks()).flat_map(|number| block(protocol, number))).collect()
}

/// The turns of a gate: two runs of the base, which show that it runs, how long it takes, and whether its results agree.
/// Their times are in no ratio, so no warm-up is made.
#[must_use]
pub fn gate() -> Vec<Turn> {
    vec![Turn { arm: Arm::Base, block: 0, warmup: false }; 2]
}

/// SplitMix64's output function (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(turns: &[Turn]) -> String {
        turns
            .iter()
            .map(|t| match (t.arm, t.warmup) {
                (Arm::Base, false) => 'A',
                (Arm::Patched, false) => 'B',
                (Arm::Base, true) => 'a',
                (Arm::Patched, true) => 'b',
            })
            .collect()
    }

    #[test]
    fn schedules_read_as_they_should() {
        let seed = (0..).find(|&seed| Protocol { seed, ..Protocol::new(Profile::Screen) }.first() == Arm::Base);
        let screen = Protocol { seed: seed.unwrap(), ..Protocol::new(Profile::Screen) };
        assert_eq!(word(&schedule(&screen, Kind::Time)), "abABBABAABABBABAABABBA");
        let pairs = Protocol { shape: Shape::Pair, warmup: 0, ..screen };
        assert_eq!(word(&schedule(&pairs, Kind::Time)), "ABBAABBAAB");
        assert_eq!(word(&schedule(&screen, Kind::Count)), "ABBA");
        assert_eq!(word(&gate()), "AA");
    }

    #[test]
    fn limits_hold() {
        let huge = Protocol { blocks_max: u32::MAX, warmup: u32::MAX, ..Protocol::new(Profile::Fixed) };
        assert_eq!(schedule(&huge, Kind::Time).len(), 2 * WARMUP_MAX as usize + 4 * BLOCKS_MAX as usize);
        let none = Protocol { blocks_max: 0, warmup: 0, ..Protocol::new(Profile::Screen) };
        assert_eq!(schedule(&none, Kind::Time).len(), 4);
        assert_eq!(Protocol::new(Profile::Headline).blocks(), 5);
        assert!(LOOKS.is_sorted());
    }

    #[test]
    fn seeds_decide_and_neither_arm_is_favoured() {
        let begins = |seed| Protocol { seed, ..Protocol::new(Profile::Screen) }.first();
        let base = (0..1000).filter(|&seed| begins(seed) == Arm::Base).count();
        assert!((430..570).contains(&base), "{base}");
    }

    proptest! {
        #[test]
        fn blocks_are_balanced_and_cancel_a_linear_drift(seed: u64, number in 0u32..2000, pair: bool) {
            let shape = if pair { Shape::Pair } else { Shape::Mirror };
            let protocol = Protocol { seed, shape, ..Protocol::new(Profile::Screen) };
            // The sum of the places of A less that of B, over two blocks of pairs or one mirrored block.
            let turns: Vec<Turn> = match shape {
                Shape::Mirror => block(&protocol, number),
                Shape::Pair => [block(&protocol, number), block(&protocol, number + 1)].concat(),
            };
            let moment: i64 = turns
                .iter()
                .enumerate()
                .map(|(i, t)| if t.arm == Arm::Base { i as i64 } else { -(i as i64) })
                .sum();
            prop_assert_eq!(moment, 0);
            prop_assert_eq!(turns.iter().filter(|t| t.arm == Arm::Base).count(), turns.len() / 2);
        }

        #[test]
        fn a_longer_schedule_continues_a_shorter_one(seed: u64, a in 1u32..30, more in 1u32..30) {
            let run = |n| schedule(&Protocol { seed, blocks_max: n, ..Protocol::new(Profile::Fixed) }, Kind::Time);
            let (short, long) = (run(a), run(a + more));
            prop_assert_eq!(&long[..short.len()], &short[..]);
        }
    }
}
