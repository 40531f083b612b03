//! Whether what was claimed can be: gains beyond the declared bound, times that do not fit into flow's own clock, and blocks
//! that look picked.
//!
//! A pure reading of a stored result beside its analysis. It never makes a verdict better: what it doubts is SUSPECT, and a person
//! has to look. It says nothing of a patch that is not better than the base.

use std::collections::BTreeSet;

use super::analysis::{Analysis, Ratio, block_ratios};
use super::contract::Sample;
use super::metric::{Better, Kind, MetricSpec};
use super::protocol::Arm;
use super::result::TestResult;
use super::selected;
use super::stats::Effect;

/// How much less than flow's clock a claim may be, as a fraction: 5 % (harnesses.md section 2.2, E10).
const GAP: f64 = 0.05;
/// How late flow may read a mark, in milliseconds: it does so beside other work, and does not hold a core of its own.
const STAMP_MS: f64 = 20.0;
/// The shortest window that anything is divided by, in milliseconds.
const LEAST_MS: f64 = 0.5;
/// How much of a claimed saving flow's clock must at least see over the whole process. Half: a process does other things too, and
/// its wall time is noisier than its timed window.
const SEEN: f64 = 0.5;
/// What no process takes less than, in milliseconds: a nanosecond.
const INSTANT_MS: f64 = 1e-6;
/// The least saving that flow's clock is asked about, in milliseconds, beside three standard errors.
const WALL_MS: f64 = 20.0;

/// Why what was measured cannot be believed, in words; `None` where it can.
#[must_use]
pub fn doubt(result: &TestResult, analysis: &Analysis) -> Option<String> {
    beyond(result, analysis).or_else(|| {
        let primary = result.metrics.first().filter(|metric| metric.kind == Kind::Time)?;
        if analysis.effect != Effect::Improvement {
            return None;
        }
        let clocked = match marked(result) {
            true => stamped(result, primary).or_else(|| windows(result)),
            false => saved(result, primary),
        };
        clocked.or_else(|| selected::picked(result, primary, &block_ratios(result)))
    })
}

/// A gain beyond its bound.
fn beyond(result: &TestResult, analysis: &Analysis) -> Option<String> {
    analysis.metrics.iter().zip(&result.metrics).find_map(|(found, metric)| {
        let (speedup, bound) = (found.speedup?, metric.bound?);
        let text = || format!("{} is {}x, beyond its bound of {}x", metric.name, Ratio(speedup), Ratio(bound));
        (speedup > bound).then(text)
    })
}

/// The claim beside the window that the script marked. How much of its window a script claims is its own: an average over calls
/// is a part of it. It has to be the same part in both trees.
fn stamped(result: &TestResult, metric: &MetricSpec) -> Option<String> {
    if runs(result, Arm::Patched).any(|run| run.window_ms.is_none()) {
        return Some("a process of the patched tree did not mark its timed window, those of the base did".to_owned());
    }
    if let Some(why) = other_windows(result) {
        return Some(why);
    }
    let share = |arm| {
        let shares: Vec<f64> = runs(result, arm)
            .filter_map(|run| Some(as_time(*run.metrics.get(&metric.name)?, metric) / run.window_ms?.max(LEAST_MS)))
            .collect();
        // On a busy machine flow reads a mark late now and then.
        median(shares)
    };
    let (base, patched) = (share(Arm::Base)?, share(Arm::Patched)?);
    let gap = 1.0 - patched / base;
    let missing_ms = gap * median(runs(result, Arm::Patched).filter_map(|run| run.window_ms).collect())?;
    (gap > GAP && missing_ms > STAMP_MS).then(|| {
        format!(
            "by flow's clock the patched tree's timed window is {missing_ms:.0} ms ({:.0} %) longer than claimed",
            100.0 * gap
        )
    })
}

/// Why flow's own clock neither bears an improvement out nor speaks against it, in words; `None` where it could have spoken.
/// What is left then is the word of the script, which runs beside the code of the patched tree.
#[must_use]
pub fn unclocked(result: &TestResult, analysis: &Analysis) -> Option<String> {
    let primary = result.metrics.first().filter(|metric| metric.kind == Kind::Time)?;
    if analysis.effect != Effect::Improvement {
        return None;
    }
    let saving = match marked(result) {
        true => between(result, |run| run.window_ms),
        false => match claims(result, primary) {
            Ok([base, patched]) => Some(base - patched),
            Err(why) => return Some(format!("{}: {why}", primary.name)),
        },
    }?;
    let [seen, error] = clock(result)?;
    let least = (3.0 * error + WALL_MS) / SEEN;
    if saving < least {
        return Some(format!(
            "{saving:.1} ms a process are saved, and flow's clock over whole processes tells {least:.0} ms and more"
        ));
    }
    // Chance may show a part of a saving that is not there.
    (seen - 3.0 * error < SEEN * saving).then(|| {
        format!(
            "{saving:.0} ms a process are saved, and flow's clock over whole processes sees {seen:.0} ms (± {error:.0})"
        )
    })
}

/// Where each process of the base marks so many windows, those of the patched tree do too: the script is the same.
fn other_windows(result: &TestResult) -> Option<String> {
    let counts = |arm| runs(result, arm).map(|run| run.windows).collect::<BTreeSet<_>>();
    let (base, patched) = (counts(Arm::Base), counts(Arm::Patched));
    let one = base.first().copied().flatten().filter(|_| base.len() == 1)?;
    let other = patched.into_iter().flatten().find(|count| *count != one)?;
    Some(format!("a process of the patched tree marked {other} timed windows, those of the base {one}"))
}

/// The claimed saving beside that of whole processes, where flow's clock can be asked.
fn saved(result: &TestResult, metric: &MetricSpec) -> Option<String> {
    let [base, patched] = claims(result, metric).ok()?;
    if patched < INSTANT_MS {
        return Some(format!(
            "the patched tree claims {patched:.1e} ms: no process does anything in less than a nanosecond"
        ));
    }
    unseen(result, base - patched, "claimed to be saved")
}

/// What base and patched processes claim to take, in milliseconds, on average; an error says why that is not known: the metric's
/// name says no unit, or the base's claims do not fit into the wall time of its processes.
fn claims(result: &TestResult, metric: &MetricSpec) -> Result<[f64; 2], &'static str> {
    let unit_ms = match metric.name.as_str() {
        name if metric.better == Better::Higher || name.ends_with("per_s") || name.ends_with("per_ms") => {
            return Err("a rate, and the script marks no window of time");
        }
        name if name.ends_with("_ms") => 1.0,
        name if name.ends_with("_s") => 1000.0,
        _ => return Err("its name ends in neither _s nor _ms, and the script marks no window of time"),
    };
    let claim = |run: &Sample| Some(unit_ms * run.metrics.get(&metric.name)?);
    if runs(result, Arm::Base).any(|run| claim(run).is_some_and(|ms| ms > run.wall_ms as f64 + 1.0)) {
        return Err("the base's processes did not last as long as they claim");
    }
    let average = |arm| mean(&runs(result, arm).filter_map(claim).collect::<Vec<f64>>());
    average(Arm::Base).zip(average(Arm::Patched)).map(Into::into).ok_or("not every process reports it")
}

/// The saving within the marked windows beside that of whole processes: code of the patched tree could mark other windows than the
/// script does, or do its work before they open.
fn windows(result: &TestResult) -> Option<String> {
    unseen(result, between(result, |run| run.window_ms)?, "saved within the marked windows")
}

/// Whether the test's script marks its timed window.
fn marked(result: &TestResult) -> bool {
    runs(result, Arm::Base).any(|run| run.window_ms.is_some())
}

/// By how much a figure of the base's processes is above that of the patched ones, on average.
fn between(result: &TestResult, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    let average = |arm| mean(&runs(result, arm).filter_map(&figure).collect::<Vec<f64>>());
    Some(average(Arm::Base)? - average(Arm::Patched)?)
}

/// Why a saving in milliseconds is not believed, where flow's clock does not see its share of it in whole processes.
fn unseen(result: &TestResult, claimed: f64, how: &str) -> Option<String> {
    let [seen, error] = clock(result)?;
    (seen + 3.0 * error + WALL_MS < SEEN * claimed)
        .then(|| format!("{claimed:.0} ms a process are {how}, by flow's clock it is {seen:.0} ms (± {error:.0})"))
}

/// What a whole process takes less in the patched tree than in the base, by flow's clock, and the standard error of that; both in
/// milliseconds.
fn clock(result: &TestResult) -> Option<[f64; 2]> {
    let walls = |arm| runs(result, arm).map(|run| run.wall_ms as f64).collect::<Vec<f64>>();
    let (base, patched) = (walls(Arm::Base), walls(Arm::Patched));
    let error = (error_squared(&base)? + error_squared(&patched)?).sqrt();
    Some([mean(&base)? - mean(&patched)?, error])
}

fn runs(result: &TestResult, arm: Arm) -> impl Iterator<Item = &Sample> {
    result.runs.iter().filter(move |run| run.turn.arm == arm && run.turn.counts()).map(|run| &run.sample)
}

/// A rate is as a time what one unit of it takes.
fn as_time(value: f64, metric: &MetricSpec) -> f64 {
    if metric.better == Better::Lower { value } else { 1.0 / value }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The square of the standard error of the mean.
fn error_squared(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let n = values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    Some(variance / n)
}

#[cfg(test)]
#[path = "plausible_tests.rs"]
mod tests;
