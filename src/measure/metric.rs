//! What is measured: a metric's name, its direction, the least effect that counts, and its kind.
//!
//! Says what a metric is and how it is written into keys; reads no result and judges nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::pattern::{BadPattern, Pattern};
use crate::names::check_name;

/// The least relative effect that counts where the manifest does not say: 2 % (harnesses.md section 2.4, point 8).
pub const MIN_EFFECT: f64 = 0.02;

/// Which direction of a metric is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Less is better: a time.
    Lower,
    /// More is better: a throughput.
    Higher,
}

impl fmt::Display for Better {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        })
    }
}

/// How a metric behaves from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A positive quantity with noise: a time, a rate. Judged by statistics over blocks.
    Time,
    /// A whole number that is the same in every run of one tree. Judged exactly.
    Count,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Time => "time",
            Self::Count => "count",
        })
    }
}

/// One metric of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Its name in the result; its unit is the script's own and cancels out of every ratio.
    pub name: String,
    /// Which direction is the good one.
    pub better: Better,
    /// The least effect that counts, as a fraction: 0.02 is 2 %.
    pub min_effect: f64,
    /// Whether it has noise.
    pub kind: Kind,
    /// Whether it must not get worse while the primary metric gets better.
    pub guard: bool,
    /// Whether it is a counter of work: a count that must be the same in both trees.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub equal: bool,
    /// The largest gain that can be believed, a ratio: 10 is ten times as good. What is beyond it is SUSPECT.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bound: Option<f64>,
    /// How it is read from what the test prints; from its result where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pattern: Option<Pattern>,
}

impl MetricSpec {
    /// A metric of which less is better, with noise, with the usual least effect, and no guard.
    pub fn time(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            better: Better::Lower,
            min_effect: MIN_EFFECT,
            kind: Kind::Time,
            guard: false,
            equal: false,
            bound: None,
            pattern: None,
        }
    }

    /// An exact metric of which less is better, with the usual least effect, and no guard.
    pub fn count(name: impl Into<String>) -> Self {
        Self { kind: Kind::Count, ..Self::time(name) }
    }
}

/// The canonical text, for keys: `time_s better=lower min-effect=0.02 kind=time`, and behind it ` guard` for a guard, ` equal`
/// for a counter, ` bound=10` for a bound and ` pattern=REGEX`, always last, for a pattern.
/// Equal specs have equal texts, and `parse` gives the spec back.
impl fmt::Display for MetricSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Adding 0.0 makes -0 and 0 one text.
        let min = self.min_effect + 0.0;
        write!(f, "{} better={} min-effect={min} kind={}", self.name, self.better, self.kind)?;
        if self.guard {
            f.write_str(" guard")?;
        }
        if self.equal {
            f.write_str(" equal")?;
        }
        if let Some(bound) = self.bound {
            write!(f, " bound={bound}")?;
        }
        if let Some(pattern) = &self.pattern {
            write!(f, " pattern={pattern}")?;
        }
        Ok(())
    }
}

/// The text is not a metric's canonical text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMetric {
    /// Its name cannot be a name.
    #[error(transparent)]
    Name(#[from] crate::names::BadName),
    /// A part that is missing or not understood.
    #[error(
        "a metric is `NAME better=lower|higher min-effect=FRACTION kind=time|count [guard] [equal] [bound=RATIO] [pattern=REGEX]`, this has `{0}`"
    )]
    Part(String),
    /// Its pattern is none.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A least effect out of range.
    #[error("min-effect must be at least 0 and below 1 (100 %), not {0}")]
    MinEffect(String),
}

/// Checks that a least effect can be one: finite, at least 0 and below 1.
///
/// # Errors
/// If it is not.
pub fn check_min_effect(fraction: f64) -> Result<f64, BadMetric> {
    if fraction.is_finite() && (0.0..1.0).contains(&fraction) {
        Ok(fraction)
    } else {
        Err(BadMetric::MinEffect(fraction.to_string()))
    }
}

impl FromStr for MetricSpec {
    type Err = BadMetric;

    fn from_str(text: &str) -> Result<Self, BadMetric> {
        // No other part holds a blank.
        let (text, pattern) = match text.split_once(" pattern=") {
            Some((text, pattern)) => (text, Some(Pattern::new(pattern)?)),
            None => (text, None),
        };
        let mut parts = text.split(' ');
        let mut next = || parts.next().unwrap_or("");
        let refuse = |part: &str| BadMetric::Part(part.chars().take(80).collect());
        let name = next();
        check_name(name)?;
        let better = match next() {
            "better=lower" => Better::Lower,
            "better=higher" => Better::Higher,
            other => return Err(refuse(other)),
        };
        let min = next();
        let min_effect = match min.strip_prefix("min-effect=").map(str::parse::<f64>) {
            Some(Ok(fraction)) => check_min_effect(fraction)?,
            _ => return Err(refuse(min)),
        };
        let kind = match next() {
            "kind=time" => Kind::Time,
            "kind=count" => Kind::Count,
            other => return Err(refuse(other)),
        };
        let mut parts = parts.peekable();
        let guard = parts.next_if_eq(&"guard").is_some();
        let equal = parts.next_if_eq(&"equal").is_some();
        let bound = match parts.next() {
            None => None,
            Some(part) => match part.strip_prefix("bound=").map(str::parse::<f64>) {
                Some(Ok(bound)) if bound.is_finite() && bound > 1.0 => Some(bound),
                _ => return Err(refuse(part)),
            },
        };
        if let Some(more) = parts.next() {
            return Err(refuse(more));
        }
        Ok(Self { name: name.to_owned(), better, min_effect, kind, guard, equal, bound, pattern })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_is_stable() {
        assert_eq!(MetricSpec::time("time_s").to_string(), "time_s better=lower min-effect=0.02 kind=time");
        let ops = MetricSpec { better: Better::Higher, guard: true, min_effect: 0.0, ..MetricSpec::count("ops") };
        assert_eq!(ops.to_string(), "ops better=higher min-effect=0 kind=count guard");
    }

    #[test]
    fn refuses_what_is_no_metric() {
        for text in [
            "",
            "time_s",
            "a b better=lower min-effect=0.02 kind=time",
            "../x better=lower min-effect=0.02 kind=time",
            "x better=down min-effect=0.02 kind=time",
            "x better=lower min-effect=nan kind=time",
            "x better=lower min-effect=-0.1 kind=time",
            "x better=lower min-effect=1 kind=time",
            "x better=lower min-effect=0.02 kind=time guard guard",
            "x better=lower min-effect=0.02 kind=time ",
        ] {
            assert!(text.parse::<MetricSpec>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_text_reads_back(name in "[a-z][a-z0-9_.]{0,10}", lower: bool, min in 0.0f64..1.0, time: bool, guard: bool, equal: bool, bound in proptest::option::of(1.5f64..1e6), read: bool) {
            let spec = MetricSpec {
                name,
                better: if lower { Better::Lower } else { Better::Higher },
                min_effect: min,
                kind: if time { Kind::Time } else { Kind::Count },
                guard,
                equal,
                bound,
                pattern: read.then(|| Pattern::new(r"a pattern=b guard: +([0-9.]+) s").unwrap()),
            };
            prop_assert_eq!(spec.to_string().parse::<MetricSpec>().unwrap(), spec);
        }
    }
}
