//! A second session: whether it bears out what the first one found.
//!
//! Within one session nothing shows what only that session had: the layout of the code in memory, the clock of that night. A
//! verdict that is published is therefore asked for twice (harnesses.md section 2.4, point 10). Pure: two analyses in, a word out.

use super::analysis::{Analysis, Verdict};

/// The mark of two sessions that contradict each other.
pub const NOT_REPRODUCED: &str = "NOT_REPRODUCED";

/// What the second session makes of the first one's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// It comes to the same, and the intervals overlap.
    Confirmed,
    /// It neither bears it out nor speaks against it, and why.
    Unconfirmed(String),
    /// It comes to the opposite, or to no difference.
    Contradicted,
}

impl Again {
    /// The mark that stands beside the verdict.
    #[must_use]
    pub fn mark(&self) -> &'static str {
        match self {
            Self::Confirmed => "CONFIRMED",
            Self::Unconfirmed(_) => "UNCONFIRMED",
            Self::Contradicted => NOT_REPRODUCED,
        }
    }
}

/// Whether a verdict is one that a second session is asked about: faster or slower, in time. Exact counts need none.
#[must_use]
pub fn asks(analysis: &Analysis) -> bool {
    matches!(analysis.verdict, Verdict::Improvement | Verdict::Regression) && analysis.ci.is_some()
}

/// Holds a second session against the first.
#[must_use]
pub fn again(first: &Analysis, second: &Analysis) -> Again {
    match (first.verdict, second.verdict) {
        (_, Verdict::Inconclusive { .. }) => Again::Unconfirmed("the second session is INCONCLUSIVE".to_owned()),
        (Verdict::Improvement, Verdict::Improvement | Verdict::Mixed) | (Verdict::Regression, Verdict::Regression) => {
            match (first.ci, second.ci) {
                (Some([low, high]), Some([from, to])) if low <= to && from <= high => match second.verdict {
                    Verdict::Mixed => Again::Unconfirmed("in the second session a guard got worse".to_owned()),
                    _ => Again::Confirmed,
                },
                _ => Again::Unconfirmed("both sessions find it, but their intervals do not overlap".to_owned()),
            }
        }
        _ => Again::Contradicted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::analyse;
    use crate::measure::testing::times;

    #[test]
    fn the_same_is_confirmed_and_the_opposite_contradicted() {
        let of = |patched: f64| analyse(&times(1.0, patched), None);
        let faster = of(0.5);
        assert!(asks(&faster) && asks(&of(2.0)) && !asks(&of(1.0)));
        assert_eq!(again(&faster, &of(0.5)), Again::Confirmed);
        assert_eq!(again(&of(2.0), &of(2.0)), Again::Confirmed);
        for other in [1.0, 2.0] {
            assert_eq!(again(&faster, &of(other)), Again::Contradicted, "{other}");
        }
        let Again::Unconfirmed(why) = again(&faster, &of(0.7)) else { panic!("another size is no confirmation") };
        assert!(why.contains("do not overlap"), "{why}");
        let mut open = of(0.5);
        open.verdict = Verdict::Inconclusive { needed_blocks: None };
        assert!(matches!(again(&faster, &open), Again::Unconfirmed(_)));
    }
}
