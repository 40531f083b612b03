//! Statistics: from log ratios of blocks to an estimate with an interval, and from that to an effect.
//!
//! The source of the method is harnesses.md section 2.4, points 6 and 8, as design section 8 decides it. A log ratio is
//! positive where the patched tree is the better one, so that a speed-up above 1 is better for every metric. Knows nothing
//! of samples, files or several metrics, trims no outlier, and knows nothing of looks: the error rate that it is given is that of
//! one look (`protocol`).

use serde::{Deserialize, Serialize};

use super::metric::{Better, MetricSpec};

/// Up to how many blocks are tried when it is estimated how many would settle a verdict: about ten times the last look.
pub const NEEDED_MAX: u32 = 256;
/// What the blocks of one metric say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// How many blocks.
    pub n: u32,
    /// The geometric mean of the blocks' speed-ups, `exp(log_mean)`; above 1 is better. A ratio.
    pub speedup: f64,
    /// The lower end of its interval, `exp(log_mean - t · log_sd / √n)`.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The two-sided error rate of that interval: 0.05 for one at 95 %.
    pub alpha: f64,
    /// The mean of the blocks' log ratios.
    pub log_mean: f64,
    /// Their standard deviation, with n - 1.
    pub log_sd: f64,
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

/// The estimate from the blocks' log ratios, in any order, with an interval of the two-sided error rate `alpha`; `None` for
/// fewer than two blocks or where one is not finite.
#[must_use]
pub fn estimate(log_ratios: &[f64], alpha: f64) -> Option<Estimate> {
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
    let half = half_width(sd, count, alpha);
    Some(Estimate {
        n: count,
        speedup: ratio(mean),
        low: ratio(mean - half),
        high: ratio(mean + half),
        alpha,
        log_mean: mean,
        log_sd: sd,
    })
}

/// The ratio of a logarithm. It must be a number in JSON too: absurd ones end at e^±700.
pub(super) fn ratio(log: f64) -> f64 {
    log.clamp(-700.0, 700.0).exp()
}

/// What an estimate means; `min_effect` is a fraction, 0.02 for 2 %. On the log scale, with d = ln(1 + min_effect):
///
/// - `Improvement` if the interval lies above 0 and the estimate is at least d; `Regression` if it lies below 0 and the
///   estimate is at most -d;
/// - `Neutral` if the interval at twice the error rate lies strictly between -d and d: equivalence by two one-sided tests
///   (Schuirmann 1987), each at the error rate of one look, and not the lack of a difference;
/// - `Inconclusive` otherwise.
///
/// The three exclude each other: an estimate lies in its interval.
#[must_use]
pub fn judge(estimate: &Estimate, min_effect: f64) -> Effect {
    settles(estimate, min_effect)
        .unwrap_or_else(|| Effect::Inconclusive { needed_blocks: needed_blocks(estimate, min_effect) })
}

/// What an estimate settles, as `judge` says it; `None` where it settles nothing.
#[must_use]
pub fn settles(estimate: &Estimate, min_effect: f64) -> Option<Effect> {
    settled_by(estimate, estimate.n, min_effect.ln_1p())
}

/// How many blocks in all would settle it if mean and deviation stayed as they are.
fn needed_blocks(estimate: &Estimate, min_effect: f64) -> Option<u32> {
    let least = min_effect.ln_1p();
    let settles = |n: u32| settled_by(estimate, n, least).is_some();
    // The interval only narrows with n, so the least n that settles can be found by halving.
    let (mut low, mut high) = (estimate.n, NEEDED_MAX);
    if high <= low || !settles(high) {
        return None;
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if settles(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// What `n` blocks of this mean and deviation settle; `least` is the least effect on the log scale.
fn settled_by(estimate: &Estimate, n: u32, least: f64) -> Option<Effect> {
    let (mean, sd) = (estimate.log_mean, estimate.log_sd);
    if mean.abs() >= least {
        // Beyond the least effect there is no equivalence, whatever the interval.
        let half = half_width(sd, n, estimate.alpha);
        return match () {
            () if mean - half > 0.0 => Some(Effect::Improvement),
            () if mean + half < 0.0 => Some(Effect::Regression),
            () => None,
        };
    }
    (mean.abs() + half_width(sd, n, 2.0 * estimate.alpha) < least).then_some(Effect::Neutral)
}

/// The difference of two sessions' means, each given as mean, deviation and number of its log ratios: Welch's interval, with
/// the degrees of freedom of Satterthwaite, rounded down. Its deviation and number are those with which `judge` finds that
/// interval again.
#[must_use]
pub fn difference(own: [f64; 3], other: [f64; 3], alpha: f64) -> Estimate {
    let ([a, a_sd, a_n], [b, b_sd, b_n]) = (own, other);
    let (va, vb) = (a_sd * a_sd / a_n.max(1.0), b_sd * b_sd / b_n.max(1.0));
    let error = (va + vb).sqrt();
    let below = va * va / (a_n - 1.0).max(1.0) + vb * vb / (b_n - 1.0).max(1.0);
    let freedom = if below > 0.0 { ((va + vb).powi(2) / below).clamp(1.0, 1e6) } else { (a_n + b_n - 2.0).max(1.0) };
    let n = freedom as u32 + 1;
    let (mean, sd) = (a - b, error * f64::from(n).sqrt());
    let half = half_width(sd, n, alpha);
    Estimate {
        n,
        speedup: ratio(mean),
        low: ratio(mean - half),
        high: ratio(mean + half),
        alpha,
        log_mean: mean,
        log_sd: sd,
    }
}

/// The two-sided p of an estimate by Student's t: how probable blocks so far from 0 are where there is no effect.
#[must_use]
pub fn p_value(estimate: &Estimate) -> f64 {
    if estimate.n < 2 || estimate.log_mean == 0.0 {
        return 1.0;
    }
    let error = estimate.log_sd / f64::from(estimate.n).sqrt();
    (1.0 - t_within((estimate.log_mean / error).abs(), estimate.n - 1)).clamp(0.0, 1.0)
}

/// The p of several tests made together, by Holm's step-down rule (1979): each may be held against the error rate that one
/// test alone would be.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut corrected = vec![1.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        least = least.max(p[at] * (p.len() - rank) as f64).min(1.0);
        corrected[at] = least;
    }
    corrected
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

/// The Wilson interval at 95 % of a share that was seen `of` times in `n` (Wilson 1927); nothing where `n` is 0. It is right for
/// few trials and for shares near 0, where the usual one is not.
#[must_use]
pub fn wilson(of: usize, n: usize) -> Option<[f64; 2]> {
    const Z: f64 = 1.959_963_984_540_054;
    if n == 0 {
        return None;
    }
    let (n, p) = (n as f64, of as f64 / n as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Some([((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)])
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
