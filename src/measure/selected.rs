//! Whether the blocks that were dropped look picked: a patch that can disturb the machine could choose which of its blocks count.
//!
//! Guards are blind to what is measured, and what disturbs a machine is as a rule blind to it too: then dropped blocks are worse
//! for the patched tree as often as they are better. Here the dropped ones are held against the kept ones by ranks. Pure, and
//! only ever a doubt: no value enters a verdict by it, and none is dropped by it.

use super::metric::MetricSpec;
use super::protocol::Arm;
use super::result::TestResult;
use super::stats;

/// The p below which the dropped blocks are said to be picked. Three of eleven reach it, two of any five do not.
const PICKED: f64 = 0.01;
/// Dropped blocks that are looked at, at most: the first ones.
const MOST: usize = 40;

/// Why the dropped blocks look picked, in words; `None` where they do not, or are too few to tell.
#[must_use]
pub(super) fn picked(result: &TestResult, metric: &MetricSpec, kept: &[f64]) -> Option<String> {
    let dropped = dropped(result, metric);
    let p = worse(&dropped, kept)?;
    (p <= PICKED).then(|| {
        format!(
            "its {} dropped blocks are worse for it than the {} kept ones (p = {p:.4}): what disturbed the machine may have \
             picked them",
            dropped.len(),
            kept.len()
        )
    })
}

/// The log ratio of each whole block that was dropped, patched tree by base; above 0 is better.
fn dropped(result: &TestResult, metric: &MetricSpec) -> Vec<f64> {
    let runs = result.protocol.runs_per_arm();
    let (mut ratios, mut at) = (Vec::new(), None);
    let mut arms: [Vec<f64>; 2] = Default::default();
    // A block that is dropped again has the same number: it is another one as soon as the first is whole.
    for run in result.runs.iter().filter(|run| run.turn.dropped && !run.turn.warmup) {
        if at.replace(run.turn.block) != Some(run.turn.block) {
            arms = Default::default();
        }
        let Some(&value) = run.sample.metrics.get(&metric.name) else { continue };
        match run.turn.arm {
            Arm::Base => arms[0].push(value),
            Arm::Patched => arms[1].push(value),
            Arm::Human => {}
        }
        if arms.iter().all(|values| values.len() == runs) {
            let [base, patched] = std::mem::take(&mut arms);
            ratios.extend(stats::block_log_ratio(&base, &patched, metric.better));
        }
    }
    ratios.truncate(MOST);
    ratios
}

/// The exact one-sided p of the rank-sum test (Mann and Whitney 1947) that `few` lie below `many`; equal values speak against it.
fn worse(few: &[f64], many: &[f64]) -> Option<f64> {
    if few.is_empty() || many.is_empty() {
        return None;
    }
    let above = few.iter().map(|one| many.iter().filter(|other| *other <= one).count()).sum::<usize>();
    // How many of the ways to lay `i` among `j` others have `u` pairs in which one of the `i` is above: f(i, j, u) =
    // f(i - 1, j, u - j) + f(i, j - 1, u), as shares.
    let (m, n) = (few.len(), many.len());
    let mut shares = vec![vec![0.0; above + 1]; n + 1];
    for share in &mut shares {
        share[0] = 1.0;
    }
    for i in 1..=m {
        let mut next = vec![vec![0.0; above + 1]; n + 1];
        next[0][0] = 1.0;
        for j in 1..=n {
            for u in 0..=above {
                let with = if u >= j { shares[j][u - j] } else { 0.0 };
                next[j][u] = (i as f64 * with + j as f64 * next[j - 1][u]) / (i + j) as f64;
            }
        }
        shares = next;
    }
    Some(shares[n].iter().sum::<f64>().min(1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::measure::analyse;
    use crate::measure::plausible::doubt;
    use crate::measure::protocol::Turn;
    use crate::measure::result::Run;
    use crate::measure::testing::{sample, times};

    /// The same by trying every way.
    fn naive(few: &[f64], many: &[f64]) -> f64 {
        let (all, m) = (few.len() + many.len(), few.len());
        let seen = few.iter().map(|one| many.iter().filter(|other| *other <= one).count()).sum::<usize>();
        let (mut as_low, mut ways) = (0u32, 0u32);
        for set in 0u32..1 << all {
            if set.count_ones() as usize == m {
                let above: usize = (0..all)
                    .filter(|at| set >> at & 1 == 1)
                    .map(|at| (!set & ((1 << at) - 1)).count_ones() as usize)
                    .sum();
                ways += 1;
                as_low += u32::from(above <= seen);
            }
        }
        f64::from(as_low) / f64::from(ways)
    }

    proptest! {
        #[test]
        fn the_rank_test_is_exact(few in prop::collection::vec(0..1000u32, 1..6), many in prop::collection::vec(0..1000u32, 1..8)) {
            let of = |values: &[u32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let (few, many) = (of(&few), of(&many));
            prop_assert!((worse(&few, &many).unwrap() - naive(&few, &many)).abs() < 1e-12);
        }
    }

    /// Five kept blocks that are twice as fast, and dropped ones whose patched tree takes `patched`.
    fn with_dropped(count: u32, patched: f64) -> TestResult {
        let mut result = times(1.0, 0.5);
        for block in 0..count {
            for arm in [Arm::Base, Arm::Patched, Arm::Patched, Arm::Base] {
                let turn = Turn { arm, block: block / 2, warmup: false, dropped: true };
                let value = if arm == Arm::Base { 1.0 } else { patched };
                result.runs.push(Run { turn, sample: sample(&[("time_s", value)], Some("d")) });
            }
        }
        result
    }

    #[test]
    fn blocks_that_look_picked_are_doubted_and_others_are_not() {
        let told = |result: &TestResult| doubt(result, &analyse(result, None));
        assert!(told(&with_dropped(4, 0.9)).unwrap().contains("4 dropped blocks are worse"));
        assert_eq!(told(&with_dropped(2, 0.9)), None, "two are too few to tell");
        assert_eq!(told(&with_dropped(5, 0.4)), None, "dropped to its loss");
        assert_eq!(told(&times(1.0, 0.5)), None);
    }
}
