//! Goals: the rates that a pipeline is to reach. Stated here, held against the results by reports; in no key.

use std::fmt;

use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::{Pipeline, Spanned};

/// A rate that is to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// How much reaching it says.
    pub level: GoalLevel,
    /// Of what.
    pub rate: GoalRate,
    /// The least share that reaches it, as a fraction of a candidate's planned jobs: of first draws.
    pub least: f64,
}

/// How much reaching a goal says, from little to much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoalLevel {
    /// Less is a failure.
    Minimum,
    /// What is hoped for.
    Target,
    /// More than was hoped for.
    Exceptional,
}

/// The rates of a report that a goal may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoalRate {
    /// Jobs with a patch.
    Patched,
    /// Jobs whose patch was measured.
    Measured,
    /// Jobs whose patch is faster.
    Improved,
    /// Jobs whose patch is at least as fast as the human's.
    AtLeastHuman,
}

impl GoalLevel {
    /// Every level, in order.
    pub const ALL: [Self; 3] = [Self::Minimum, Self::Target, Self::Exceptional];

    /// Its word in the manifest.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Minimum => "minimum",
            Self::Target => "target",
            Self::Exceptional => "exceptional",
        }
    }
}

impl GoalRate {
    /// Every rate.
    pub const ALL: [Self; 4] = [Self::Patched, Self::Measured, Self::Improved, Self::AtLeastHuman];

    /// Its word in the manifest and in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Measured => "measured",
            Self::Improved => "improved",
            Self::AtLeastHuman => "at-least-human",
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.least * 10_000.0).round() / 100.0;
        write!(f, "{} {percent} % {}", self.level.word(), self.rate.word())
    }
}

/// The goals of a pipeline as a line; nothing if it states none.
#[must_use]
pub fn goals_line(pipeline: &Pipeline) -> Option<String> {
    let goals: Vec<String> = pipeline.goals.iter().map(|goal| goal.value.to_string()).collect();
    (!goals.is_empty()).then(|| format!("goals, of each candidate's planned jobs: {}", goals.join(", ")))
}

/// Builds `goals`.
pub(super) fn goals(node: Node<'_>, report: &Report) -> Vec<Spanned<Goal>> {
    let mut goals: Vec<Spanned<Goal>> = Vec::new();
    if node.children().next().is_none() {
        report.add(
            Draft::new("missing-child", node.place(), "`goals` says nothing")
                .label("incomplete")
                .help("write `goals { minimum improved=\"58%\"; target improved=\"72%\" }`"),
        );
    }
    for level in GoalLevel::ALL {
        let Some(said) = node.child(level.word()) else { continue };
        if said.entries().next().is_none() {
            report.add(
                Draft::new("missing-property", said.place(), format!("`{}` says nothing", level.word()))
                    .label("incomplete")
                    .help(format!("write the rate and its least share: {} improved=\"58%\"", level.word())),
            );
        }
        for rate in GoalRate::ALL {
            let Some(least) = said.prop(rate.word()).and_then(Value::percent) else { continue };
            if least.value > 1.0 {
                report.add(
                    Draft::new("bad-goal", least.place, "a rate is a share of all jobs, at most 100 %")
                        .label("cannot be reached")
                        .help("write a share between 0% and 100%"),
                );
            }
            goals.push(Spanned { value: Goal { level, rate, least: least.value }, place: least.place });
        }
    }
    falling(&goals, report);
    goals
}

/// Reports a higher level that asks for less than a lower one.
fn falling(goals: &[Spanned<Goal>], report: &Report) {
    for (at, goal) in goals.iter().enumerate() {
        let above =
            |before: &&Spanned<Goal>| before.value.rate == goal.value.rate && before.value.least > goal.value.least;
        if let Some(before) = goals[..at].iter().find(above) {
            let (low, high) = (before.value.level.word(), goal.value.level.word());
            report.add(
                Draft::new("bad-goal", goal.place, format!("`{high}` asks for less than `{low}`"))
                    .label("less")
                    .other(before.place, "more")
                    .help("goals rise from `minimum` by `target` to `exceptional`"),
            );
        }
    }
}
