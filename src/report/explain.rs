//! A verdict of speed in three sentences and a small plot of its blocks, for people who do not want statistics.
//!
//! A pure function of a stored result. What the verdict is, `measure` says.

use serde::Serialize;

use crate::measure::analysis::{Ratio, block_ratios, level};
use crate::measure::compare::Comparison;
use crate::measure::metric::Better;
use crate::measure::others::PointRules;
use crate::measure::{self, Arm, Guarded, Kind, Stop, TestResult, Verdict};
use crate::text::counted;

/// The most rows of a plot; of more blocks the first and the last are shown.
const ROWS: usize = 40;
/// The least and the most columns of the scale.
const SCALE: (usize, usize) = (21, 61);

/// A verdict explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// What was measured, what that means, and how far it is to be believed.
    pub sentences: Vec<String>,
    /// The ratio of each whole block, above 1 is better; empty for counts.
    pub blocks: Vec<f64>,
    /// The mean ratio and the ends of its interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f64; 3]>,
    /// The smallest effect that matters, a fraction.
    pub min_effect: f64,
    /// What others' rules make of the same runs, to compare with published tables. In no verdict.
    pub point_rules: PointRules,
    /// How quiet the machine was, and what of each block was seen of it. Absent of counts, and of what an older flow measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guards: Option<GuardsTold>,
    /// The same of the second session, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again_guards: Option<GuardsTold>,
}

/// The guards of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuardsTold {
    /// In a line.
    pub text: String,
    /// How many blocks were dropped.
    pub dropped: usize,
    /// All that is stored.
    #[serde(flatten)]
    pub guarded: Guarded,
}

impl GuardsTold {
    /// Of what is stored.
    #[must_use]
    pub fn of(guarded: &Guarded) -> Self {
        Self { text: guarded.text(), dropped: guarded.dropped(), guarded: guarded.clone() }
    }
}

/// Explains a result; `judge_min_effect` as the classify step judges it. Nothing of a gate.
#[must_use]
pub fn explain(result: &TestResult, judge_min_effect: Option<f64>) -> Option<Explained> {
    let metric = result.metrics.first()?;
    result.runs.iter().find(|run| run.turn.arm == Arm::Patched)?;
    let analysis = measure::analyse(result, judge_min_effect);
    let min_effect = judge_min_effect.unwrap_or(metric.min_effect);
    let percent = format!("{}\u{a0}%", number(100.0 * min_effect));
    let same_tree = result.notes.contains(&measure::Note::SameTree);
    let other = if same_tree { "second copy of the base" } else { "patched tree" };
    let mut sentences = Vec::new();
    let mut mean = None;
    let primary = analysis.metrics.first();
    let estimate = primary.and_then(|primary| primary.estimate);
    match (metric.kind, estimate) {
        (Kind::Count, _) => {
            let of = |value: Option<f64>| value.map_or_else(|| "an unknown number of".to_owned(), number);
            let (base, patched) = primary.map_or((None, None), |primary| (primary.base, primary.patched));
            let name = &metric.name;
            sentences.push(format!(
                "The base needs {} {name} and the {other} {}: both are exact.",
                of(base),
                of(patched)
            ));
        }
        (Kind::Time, Some(estimate)) => {
            mean = Some([estimate.speedup, estimate.low, estimate.high]);
            let unit = if metric.better == Better::Lower { "as fast as" } else { "as good as" };
            sentences.push(format!(
                "In {}, base and {other} in turn, the {other} was {} times {unit} the base by {}; with {} certainty between {} and {}.",
                counted(estimate.n as usize, "block"),
                Ratio(estimate.speedup),
                metric.name,
                level(estimate.alpha).replace(' ', "\u{a0}"),
                Ratio(estimate.low),
                Ratio(estimate.high)
            ));
        }
        (Kind::Time, None) => {
            sentences.push("There are not two whole blocks, so nothing can be said of speed.".to_owned())
        }
    }
    sentences.push(match analysis.verdict {
        Verdict::Improvement => {
            format!("All of that is above 1, and the middle at least the {percent} that matter: faster.")
        }
        Verdict::Regression => {
            format!("All of that is below 1, and the middle at least the {percent} that matter: slower.")
        }
        Verdict::Neutral => {
            format!("Whatever difference there is, is smaller than the {percent} that matter: as fast.")
        }
        Verdict::Mixed => "It is faster, but a metric that must not get worse did: mixed.".to_owned(),
        Verdict::Inconclusive { needed_blocks } => {
            let bound = match result.stopped {
                Some(Stop::BlocksMax) => "`blocks max` ended it",
                Some(Stop::TimeMax) => "`time max` ended it",
                Some(Stop::Settled) | None => "no more was to be run",
            };
            let more = needed_blocks.map_or_else(
                || "how many blocks would settle it is not known".to_owned(),
                |blocks| format!("about {blocks} blocks would settle it"),
            );
            format!("That is too wide to tell faster, slower or as fast by {percent}: {bound}, and {more}.")
        }
    });
    let compared = match &result.comparison {
        Comparison::Same => "In every process the results were compared first, and they agree",
        Comparison::Unchecked => "No result was compared: that both compute the same is not known",
        Comparison::Differs { .. } => "The results differ",
    };
    let warm = result.runs.iter().filter(|run| run.turn.warmup).count();
    let thrown = match warm {
        0 => String::new(),
        1 => "; 1 warm-up was thrown away before".to_owned(),
        warm => format!("; {warm} warm-ups were thrown away before"),
    };
    sentences.push(format!("{compared}{thrown}."));
    let blocks = if metric.kind == Kind::Count { Vec::new() } else { block_ratios(result) };
    Some(Explained {
        sentences,
        blocks: blocks.into_iter().map(f64::exp).collect(),
        mean,
        min_effect,
        point_rules: PointRules::of(result),
        guards: result.guarded.as_ref().map(GuardsTold::of),
        again_guards: None,
    })
}

/// A number without needless digits.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Explained {
    /// The plot, a row for each block: where its ratio lies around 1.00x, with what does not matter dotted. Empty for counts.
    #[must_use]
    pub fn plot(&self, width: usize) -> Vec<String> {
        let Some([mean, low, high]) = self.mean.filter(|_| !self.blocks.is_empty()) else { return Vec::new() };
        let finite = |ratio: &f64| ratio.is_finite() && *ratio > 0.0;
        let all = self.blocks.iter().copied().chain([mean, low, high]).filter(finite);
        let least = 3.0 * (1.0 + self.min_effect).ln();
        let reach = all.map(|ratio| ratio.ln().abs()).fold(least, f64::max).min(20.0);
        let columns = width.saturating_sub(18).clamp(SCALE.0, SCALE.1) | 1;
        let half = (columns / 2) as f64;
        let at = |ratio: f64| {
            let log = if finite(&ratio) { ratio.ln().clamp(-reach, reach) } else { reach };
            (half + (log / reach * half).round()) as usize
        };
        let (from, to) = (at(1.0 / (1.0 + self.min_effect)), at(1.0 + self.min_effect));
        let line = || -> Vec<char> {
            let cell = |column: usize| match column {
                _ if column == columns / 2 => '|',
                _ if (from..=to).contains(&column) => '.',
                _ => ' ',
            };
            (0..columns).map(cell).collect()
        };
        let row = |name: String, ratio: f64, cells: Vec<char>| {
            let cells: String = cells.into_iter().collect();
            format!("{name:>5} {:>7}  {}", format!("{}x", Ratio(ratio)), cells.trim_end())
        };
        let ends = [(-reach).exp(), reach.exp()].map(|end| format!("{}x", Ratio(end)));
        let room = columns.saturating_sub(ends[0].len() + ends[1].len());
        let mut rows = vec![format!("{:15}{}{:^room$}{}", "block", ends[0], "1.00x", ends[1])];
        for (number, ratio) in self.blocks.iter().enumerate() {
            if self.blocks.len() > ROWS && (ROWS / 2..self.blocks.len() - ROWS / 2).contains(&number) {
                if number == ROWS / 2 {
                    rows.push(format!("    … {} more", self.blocks.len() - ROWS));
                }
                continue;
            }
            let mut cells = line();
            cells[at(*ratio)] = 'o';
            rows.push(row((number + 1).to_string(), *ratio, cells));
        }
        let mut cells = line();
        for cell in &mut cells[at(low)..=at(high)] {
            *cell = '-';
        }
        (cells[at(low)], cells[at(high)], cells[at(mean)]) = ('[', ']', 'o');
        rows.push(row("mean".to_owned(), mean, cells));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plot_shows_each_block_around_one() {
        let explained = Explained {
            sentences: Vec::new(),
            blocks: vec![1.1, 0.98, 1.0],
            mean: Some([1.02, 0.95, 1.1]),
            min_effect: 0.02,
            point_rules: PointRules::default(),
            guards: None,
            again_guards: None,
        };
        let plot = explained.plot(39);
        assert_eq!(plot.len(), 5);
        assert!(plot[0].contains("1.00x"), "{plot:#?}");
        let column = |row: usize, what: char| plot[row].find(what).unwrap_or(0);
        assert!(column(1, 'o') > column(1, '|') && column(2, 'o') < column(2, '|'), "{plot:#?}");
        assert_eq!(column(3, 'o'), column(1, '|'), "a block of 1.00x lies on the line: {plot:#?}");
        assert!(column(4, '[') < column(4, 'o') && column(4, 'o') < column(4, ']'), "{plot:#?}");
        assert!(plot.iter().all(|row| row.len() <= 39), "{plot:#?}");
    }

    #[test]
    fn what_is_far_off_or_no_number_stays_on_the_scale() {
        let blocks: Vec<f64> = (0..100).map(|n| if n == 50 { f64::INFINITY } else { 850.0 }).collect();
        let explained = Explained {
            sentences: Vec::new(),
            blocks,
            mean: Some([850.0, 0.0, f64::INFINITY]),
            min_effect: 0.02,
            point_rules: PointRules::default(),
            guards: None,
            again_guards: None,
        };
        let plot = explained.plot(80);
        assert_eq!(plot.len(), ROWS + 3);
        assert!(plot.iter().all(|row| row.chars().count() <= 80), "{plot:#?}");
    }
}
