//! By which rule two results are equal: by their digest, number by number, by a score, or by the script's own word.
//!
//! Says what a rule is and how it is written into keys. `compare` applies it to runs, `values` to arrays of numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::metric::Better;

/// By which rule two results are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equal {
    /// The digests that the script reports are the same text.
    #[default]
    Digest,
    /// The numbers that the script reports are close, one by one: `|a-b| <= atol + rtol*|b|`, where b is the base's.
    Close {
        /// The relative part, a fraction.
        rtol: f64,
        /// The absolute part, in the numbers' own unit.
        atol: f64,
    },
    /// The score that the script reports is within a band of the base's.
    Score {
        /// How wide the band is to each side, as a fraction of the base's score.
        band: f64,
        /// Which direction is better: a patched score beyond the band on that side is no fault. Absent: neither.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        better: Option<Better>,
    },
    /// The script compares its results itself with those that it kept of the base.
    Script,
}

impl Equal {
    /// How two scores differ, in words; `None` if the second is good enough beside the first, the base's.
    #[must_use]
    pub fn scores_differ(self, base: f64, other: f64) -> Option<String> {
        let Self::Score { band, better } = self else { return None };
        let room = band * base.abs();
        let worse = match better {
            Some(Better::Higher) => base - other,
            Some(Better::Lower) => other - base,
            None => (base - other).abs(),
        };
        (worse > room).then(|| format!("the scores {base} and {other}, more than {} % apart", 100.0 * band))
    }
}

/// The canonical text, for keys.
impl fmt::Display for Equal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest => f.write_str("digest"),
            // Adding 0.0 makes -0 and 0 one text.
            Self::Close { rtol, atol } => write!(f, "close rtol={} atol={}", rtol + 0.0, atol + 0.0),
            Self::Score { band, better: None } => write!(f, "score band={}", band + 0.0),
            Self::Score { band, better: Some(better) } => write!(f, "score band={} better={better}", band + 0.0),
            Self::Script => f.write_str("script"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_may_move_within_its_band() {
        let both = Equal::Score { band: 0.01, better: None };
        assert_eq!(both.scores_differ(0.9, 0.892), None);
        assert!(both.scores_differ(0.9, 0.88).is_some() && both.scores_differ(0.9, 0.92).is_some());
        let accuracy = Equal::Score { band: 0.01, better: Some(Better::Higher) };
        assert!(accuracy.scores_differ(0.9, 0.88).is_some() && accuracy.scores_differ(0.9, 0.99).is_none());
        let loss = Equal::Score { band: 0.01, better: Some(Better::Lower) };
        assert!(loss.scores_differ(2.0, 2.1).is_some() && loss.scores_differ(2.0, 1.0).is_none());
        assert!(loss.scores_differ(-2.0, -1.9).is_some(), "a negative score has a band too");
    }

    #[test]
    fn the_text_is_stable() {
        for (rule, text) in [
            (Equal::Digest, "digest"),
            (Equal::Script, "script"),
            (Equal::Close { rtol: 1e-3, atol: -0.0 }, "close rtol=0.001 atol=0"),
            (Equal::Score { band: 0.01, better: None }, "score band=0.01"),
        ] {
            assert_eq!(rule.to_string(), text);
        }
    }
}
