//! Statistics: from log ratios of blocks to an estimate with an interval, and from that to an effect.
//!
//! The source of the method is harnesses.md section 2.4, points 6 and 8, as design section 8 decides it. A log ratio is
//! positive where the patched tree is the better one, so that a speed-up above 1 is better for every metric. Knows nothing
//! of samples, files or several metrics, trims no outlier, and corrects for one look only.

use serde::{Deserialize, Serialize};

use super::metric::{Better, MetricSpec};

/// The two-sided error rate of the intervals: 5 %, for the one look that is taken so far.
pub const ALPHA: f64 = 0.05;
/// Up to how many blocks are tried when it is estimated how many would settle a verdict: about ten times the last look.
pub const NEEDED_MAX: u32 = 256;
/// The most blocks for which the permutation test is made; it is exact.
pub const PERMUTE_MAX: usize = 32;

/// What the blocks of one metric say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// How many blocks.
    pub n: u32,
    /// The geometric mean of the blocks' speed-ups, `exp(log_mean)`; above 1 is better. A ratio.
    pub speedup: f64,
    /// The lower end of its 95 % interval, `exp(log_mean - t · log_sd / √n)`.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The mean of the blocks' log ratios.
    pub log_mean: f64,
    /// Their standard deviation, with n - 1.
    pub log_sd: f64,
    /// The two-sided p of the sign-flip permutation test; absent for more than `PERMUTE_MAX` blocks. It cannot be below
    /// 2^(1-n), 0.0625 at five blocks: a cross-check, in no verdict.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p_signflip: Option<f64>,
}

/// What an estimate means, given the least effect that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Effect {
    /// Better: the interval lies above 1 and the estimate is at least the least effect.
    Improvement,
    /// Worse: the mirror of it.
    Regression,
    /// As good: the interval lies inside the least effect, on both sides.
    Neutral,
    /// None of these can be said.
    Inconclusive {
        /// How many blocks in all would settle it if mean and deviation stayed as they are; `None` if more than
        /// `NEEDED_MAX`, or where nothing can be said of it.
        needed_blocks: Option<u32>,
    },
}

/// The log ratio of one block: the mean of the base's logarithms less that of the patched tree's, the sign turned where
/// more is better (harnesses.md 2.4 point 6). `None` unless both have values and all are finite and positive.
#[must_use]
pub fn block_log_ratio(base: &[f64], patched: &[f64], better: Better) -> Option<f64> {
    let mean_ln = |values: &[f64]| {
        let fine = !values.is_empty() && values.iter().all(|v| v.is_finite() && *v > 0.0);
        fine.then(|| values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64)
    };
    let ratio = mean_ln(base)? - mean_ln(patched)?;
    Some(match better {
        Better::Lower => ratio,
        Better::Higher => -ratio,
    })
}

/// The estimate from the blocks' log ratios, in any order; `None` for fewer than two blocks or where one is not finite.
#[must_use]
pub fn estimate(log_ratios: &[f64]) -> Option<Estimate> {
    if log_ratios.len() < 2 || log_ratios.iter().any(|d| !d.is_finite()) {
        return None;
    }
    // Summed in one order, so that the order of blocks cannot change a bit of the result.
    let mut sorted = log_ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / n;
    let sd = (sorted.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let count = u32::try_from(sorted.len()).ok()?;
    let half = half_width(sd, count, ALPHA);
    // A ratio must be a number in JSON too: absurd logarithms end at e^±700.
    let ratio = |log: f64| log.clamp(-700.0, 700.0).exp();
    Some(Estimate {
        n: count,
        speedup: ratio(mean),
        low: ratio(mean - half),
        high: ratio(mean + half),
        log_mean: mean,
        log_sd: sd,
        p_signflip: sign_flip(&sorted),
    })
}

/// What an estimate means; `min_effect` is a fraction, 0.02 for 2 %. On the log scale, with d = ln(1 + min_effect):
///
/// - `Improvement` if the interval lies above 0 and the estimate is at least d; `Regression` if it lies below 0 and the
///   estimate is at most -d;
/// - `Neutral` if the interval lies strictly between -d and d: equivalence, not the lack of a difference;
/// - `Inconclusive` otherwise.
///
/// The three exclude each other: an estimate lies in its interval.
#[must_use]
pub fn judge(estimate: &Estimate, min_effect: f64) -> Effect {
    let half = half_width(estimate.log_sd, estimate.n, ALPHA);
    if let Some(effect) = settled(estimate.log_mean, half, min_effect.ln_1p()) {
        return effect;
    }
    let (mean, sd, least) = (estimate.log_mean, estimate.log_sd, min_effect.ln_1p());
    let settles = |n: u32| settled(mean, half_width(sd, n, ALPHA), least).is_some();
    // The interval only narrows with n, so the least n that settles can be found by halving.
    let (mut low, mut high) = (estimate.n, NEEDED_MAX);
    if high <= low || !settles(high) {
        return Effect::Inconclusive { needed_blocks: None };
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if settles(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Effect::Inconclusive { needed_blocks: Some(high) }
}

fn settled(mean: f64, half: f64, least: f64) -> Option<Effect> {
    let (low, high) = (mean - half, mean + half);
    if low > 0.0 && mean >= least {
        Some(Effect::Improvement)
    } else if high < 0.0 && mean <= -least {
        Some(Effect::Regression)
    } else if low > -least && high < least {
        Some(Effect::Neutral)
    } else {
        None
    }
}

/// What two trees' exact counts mean, and the speed-up. Equal counts within a tree are required, else nothing can be said;
/// then a change of at least the least effect is an effect, and a smaller one is neutral. No statistics.
///
/// The speed-up is absent where a count is 0 and the ratio has no value; the effect is right all the same.
#[must_use]
pub fn judge_count(base: &[f64], patched: &[f64], spec: &MetricSpec) -> (Effect, Option<f64>) {
    let one = |values: &[f64]| {
        let first = *values.first()?;
        values.iter().all(|v| v.is_finite() && *v == first).then_some(first)
    };
    let (Some(base), Some(patched)) = (one(base), one(patched)) else {
        return (Effect::Inconclusive { needed_blocks: None }, None);
    };
    let (better, worse) = match spec.better {
        Better::Lower => (base, patched),
        Better::Higher => (patched, base),
    };
    if better == worse {
        return (Effect::Neutral, Some(1.0));
    }
    // Compared by products, so that 102 against 100 is exactly 2 % and a count of 0 needs no case of its own.
    let beyond = |more: f64, less: f64| more >= less * (1.0 + spec.min_effect) * (1.0 - 4.0 * f64::EPSILON);
    let effect = if better > worse && beyond(better, worse) {
        Effect::Improvement
    } else if better < worse && beyond(worse, better) {
        Effect::Regression
    } else {
        Effect::Neutral
    };
    (effect, (better > 0.0 && worse > 0.0).then(|| better / worse))
}

/// Half the width of Student's interval for the mean of `n` values, at the two-sided error rate `alpha`.
fn half_width(sd: f64, n: u32, alpha: f64) -> f64 {
    if n < 2 {
        return f64::INFINITY;
    }
    t_quantile(alpha, n - 1) * sd / f64::from(n).sqrt()
}

/// The t for which Student's distribution with `freedom` degrees lies within ±t with the probability 1 - `alpha`; infinite
/// where `freedom` is 0 or `alpha` is not above 0. Found by halving on `t_within`, to the last bits.
#[must_use]
pub fn t_quantile(alpha: f64, freedom: u32) -> f64 {
    if freedom == 0 || alpha.is_nan() || alpha <= 0.0 {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (0.0, 2.0);
    while t_within(high, freedom) < 1.0 - alpha && high < 1e15 {
        low = high;
        high *= 2.0;
    }
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if t_within(middle, freedom) < 1.0 - alpha {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The probability that Student's t with `freedom` degrees lies within ±`t`: A(t|ν) of Abramowitz and Stegun, Handbook of
/// Mathematical Functions, 26.7.3 (odd ν) and 26.7.4 (even ν), which are finite sums for whole ν.
fn t_within(t: f64, freedom: u32) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let square = cos * cos;
    let odd = freedom % 2 == 1;
    // Odd: cos + 2/3 cos^3 + 2·4/(3·5) cos^5 … to cos^(ν-2); even: 1 + 1/2 cos^2 + 1·3/(2·4) cos^4 … to cos^(ν-2).
    let mut term = if odd { cos } else { 1.0 };
    let mut power = u32::from(odd);
    let mut sum = 0.0;
    while power + 2 <= freedom {
        sum += term;
        power += 2;
        term *= square * f64::from(power - 1) / f64::from(power);
    }
    if odd { (angle + sin * sum) * std::f64::consts::FRAC_2_PI } else { sin * sum }
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
#[path = "stats_tests.rs"]
mod tests;
