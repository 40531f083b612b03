//! Two other looks at the same blocks, which rest on less than Student's t does: a permutation test and a bootstrap.
//!
//! They are in no verdict. Where they contradict one, the result says so (harnesses.md section 2.4, point 6: a flag, not a
//! choice). Both are exact functions of the blocks and the seed.

use serde::{Deserialize, Serialize};

use super::protocol::splitmix64;
use super::stats::{Effect, Estimate, ratio};

/// How many samples of blocks the bootstrap draws.
pub const RESAMPLES: usize = 10_000;
/// The most blocks for which the permutation test is made; it is exact.
pub const PERMUTE_MAX: usize = 32;

/// What the two say of the blocks of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// The two-sided p of the sign-flip permutation test; absent for more than `PERMUTE_MAX` blocks. It cannot be below
    /// 2^(1-n), 0.0625 at five blocks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p_signflip: Option<f64>,
    /// The percentile interval of the speed-up over `RESAMPLES` samples of the blocks, at the level of the estimate's own. With
    /// few blocks it is too narrow by its nature.
    pub bootstrap: [f64; 2],
    /// The same at twice the error rate, which is what equivalence is judged by.
    pub bootstrap_twice: [f64; 2],
}

impl Checks {
    /// Makes both for the blocks' log ratios that `estimate` is of; `seed` is the protocol's.
    #[must_use]
    pub fn of(log_ratios: &[f64], estimate: &Estimate, seed: u64) -> Self {
        let mut sorted = log_ratios.to_vec();
        sorted.sort_by(f64::total_cmp);
        let means = bootstrap(&sorted, seed);
        let [bootstrap, bootstrap_twice] = [1.0, 2.0].map(|times| cut(&means, times * estimate.alpha).map(ratio));
        Self { p_signflip: sign_flip(&sorted), bootstrap, bootstrap_twice }
    }

    /// Whether the permutation test, as far as so few blocks let it, sees no effect where the verdict is one.
    #[must_use]
    pub fn flips_disagree(&self, estimate: &Estimate, effect: Effect) -> bool {
        let Some(p) = self.p_signflip else { return false };
        let least = 0.5f64.powi(i32::try_from(estimate.n).unwrap_or(i32::MAX) - 1);
        matches!(effect, Effect::Improvement | Effect::Regression) && p > estimate.alpha.max(least) + 1e-9
    }

    /// Whether the bootstrap's interval contradicts the verdict: it holds 1 where the verdict is an effect, or reaches beyond
    /// the least effect where the verdict is that there is none.
    #[must_use]
    pub fn bootstrap_disagrees(&self, effect: Effect, min_effect: f64) -> bool {
        let [low, high] = self.bootstrap;
        match effect {
            Effect::Improvement => low <= 1.0,
            Effect::Regression => high >= 1.0,
            Effect::Neutral => {
                let [low, high] = self.bootstrap_twice;
                low <= 1.0 / (1.0 + min_effect) || high >= 1.0 + min_effect
            }
            Effect::Inconclusive { .. } => false,
        }
    }
}

/// The means of `RESAMPLES` samples of the blocks, sorted (Efron's bootstrap, 1979), from a generator that the seed begins.
fn bootstrap(ratios: &[f64], seed: u64) -> Vec<f64> {
    let n = ratios.len();
    let mut state = splitmix64(seed);
    let mut draw = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // Multiplied into the range: no bias that so few values could show.
        ((u128::from(splitmix64(state)) * n as u128) >> 64) as usize
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| (0..n).map(|_| ratios[draw()]).sum::<f64>() / n as f64).collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The percentile interval of sorted means at the two-sided error rate `alpha`.
fn cut(means: &[f64], alpha: f64) -> [f64; 2] {
    let last = means.len() - 1;
    let cut = ((alpha / 2.0 * means.len() as f64) as usize).min(last / 2);
    [means[cut], means[last - cut]]
}

/// The sign-flip permutation test: the share of all 2^n choices of signs under which the sum of the log ratios is at least
/// as far from 0 as it is (Fisher's randomisation test for pairs, 1935). Exact: the sums of both halves are listed, one list
/// is sorted, and pairs are counted by bisection (Horowitz and Sahni's way for subset sums, 1974).
fn sign_flip(ratios: &[f64]) -> Option<f64> {
    if ratios.is_empty() || ratios.len() > PERMUTE_MAX {
        return None;
    }
    let sums = |half: &[f64]| {
        half.iter().fold(vec![0.0], |sums, d| sums.iter().flat_map(|s| [s + d, s - d]).collect::<Vec<f64>>())
    };
    let (left, right) = ratios.split_at(ratios.len() / 2);
    let (left, mut right) = (sums(left), sums(right));
    right.sort_by(f64::total_cmp);
    // Sums that differ only by rounding count as equal.
    let scale: f64 = ratios.iter().map(|d| d.abs()).sum();
    let bound = ratios.iter().sum::<f64>().abs() - scale * 1e-12;
    if bound <= 0.0 {
        return Some(1.0);
    }
    let far: usize = left
        .iter()
        .map(|l| {
            let above = right.len() - right.partition_point(|r| l + r < bound);
            let below = right.partition_point(|r| l + r <= -bound);
            above + below
        })
        .sum();
    Some(far as f64 / (left.len() as f64 * right.len() as f64))
}

#[cfg(test)]
#[path = "crosscheck_tests.rs"]
mod tests;
