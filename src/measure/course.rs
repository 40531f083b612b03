//! The course of a session: which block is run next, what the looks settle, and when it is over.
//!
//! The one place where it is decided whether measuring goes on. The test step drives it with real processes, and
//! `simulate` with made-up ones, so that the rates of false verdicts that flow states are those of the code that judges.
//! Reads no clock: that the time is up is told to it by who has one.

use serde::{Deserialize, Serialize};

use super::metric::{Kind, MetricSpec};
use super::protocol::{Arm, LOOKS, Profile, Protocol, Turn, block};
use super::stats::{self, Effect};

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// All that was asked was settled; of a `fixed` protocol or of exact counts, all was run.
    Settled,
    /// `blocks max` was reached.
    BlocksMax,
    /// `time max` left no room for another block.
    TimeMax,
}

/// Two arms that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The arm that is judged.
    pub of: Arm,
    /// The arm that it is judged by.
    pub against: Arm,
}

impl Pair {
    /// The patched tree by the base: what the class rests on.
    pub const VERDICT: Self = Self { of: Arm::Patched, against: Arm::Base };
    /// The patched tree by the human's.
    pub const HUMAN: Self = Self { of: Arm::Patched, against: Arm::Human };
    /// The human's tree by the base: what there was to gain. Never waited for.
    pub const GAIN: Self = Self { of: Arm::Human, against: Arm::Base };

    fn has(self, arm: Arm) -> bool {
        self.of == arm || self.against == arm
    }
}

/// A session under way.
#[derive(Clone, Debug)]
pub struct Course {
    protocol: Protocol,
    metric: MetricSpec,
    looks: Vec<u32>,
    asked: Vec<Asked>,
    blocks: u32,
}

/// A pair that was to be settled.
#[derive(Clone, Debug)]
struct Asked {
    pair: Pair,
    ratios: Vec<f64>,
    /// What it is: settled, or given up.
    effect: Option<Effect>,
}

impl Course {
    /// A session that settles how the patched tree compares with the base by this metric, the primary one; with `human`, also
    /// how it compares with the human's tree.
    #[must_use]
    pub fn new(protocol: Protocol, metric: &MetricSpec, human: bool) -> Self {
        let pairs = [Some(Pair::VERDICT), human.then_some(Pair::HUMAN)];
        let asked = |pair| Asked { pair, ratios: Vec::new(), effect: None };
        let mut looks = protocol.looks();
        if metric.kind == Kind::Count && protocol.profile != Profile::Fixed {
            // An exact count needs no second look: the blocks are for the others.
            looks = vec![protocol.most().min(LOOKS[0])];
        }
        Self {
            protocol,
            metric: metric.clone(),
            looks,
            asked: pairs.into_iter().flatten().map(asked).collect(),
            blocks: 0,
        }
    }

    /// The arms that are still needed: those of the pairs that are not settled.
    #[must_use]
    pub fn arms(&self) -> Vec<Arm> {
        let needed = |arm: &Arm| self.asked.iter().any(|asked| asked.effect.is_none() && asked.pair.has(*arm));
        Arm::ALL.into_iter().filter(needed).collect()
    }

    /// The turns of the next block.
    ///
    /// # Errors
    /// Why there is none.
    pub fn next(&self) -> Result<Vec<Turn>, Stop> {
        let arms = self.arms();
        match self.looks.last() {
            _ if arms.is_empty() => Err(Stop::Settled),
            Some(last) if self.blocks >= *last => Err(match (self.protocol.profile, self.metric.kind) {
                (Profile::Fixed, _) | (_, Kind::Count) => Stop::Settled,
                _ => Stop::BlocksMax,
            }),
            _ => Ok(block(&self.protocol, self.blocks, &arms)),
        }
    }

    /// Takes in what the runs of the block that `next` gave measured, by the primary metric, and looks if it is time to.
    pub fn took(&mut self, values: &[(Arm, f64)]) {
        self.blocks += 1;
        let look = self.looks.contains(&self.blocks) && self.protocol.profile != Profile::Fixed;
        let of = |arm: Arm| values.iter().filter(|(of, _)| *of == arm).map(|(_, value)| *value).collect::<Vec<f64>>();
        for asked in self.asked.iter_mut().filter(|asked| asked.effect.is_none()) {
            let (arm, by) = (of(asked.pair.of), of(asked.pair.against));
            asked.ratios.extend(stats::block_log_ratio(&by, &arm, self.metric.better));
            if look && self.metric.kind == Kind::Time {
                let estimate = stats::estimate(&asked.ratios, self.protocol.alpha());
                asked.effect = estimate.and_then(|estimate| stats::settles(&estimate, self.metric.min_effect));
            }
        }
    }

    /// Gives up an arm that cannot be measured: what is asked of it stays unsettled.
    pub fn give_up(&mut self, arm: Arm) {
        self.asked.retain(|asked| !asked.pair.has(arm));
    }

    /// How many whole blocks were run.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The log ratios of the patched tree by the base, block by block.
    #[must_use]
    pub fn ratios(&self) -> &[f64] {
        self.asked.iter().find(|asked| asked.pair == Pair::VERDICT).map_or(&[], |asked| &asked.ratios)
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
