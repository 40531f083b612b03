//! Patterns: how a number is read from what a tool prints for people, line by line.
//!
//! A pattern is a regular expression with one group, which holds the number. It is tried on each line by itself, so that a line
//! without its number never borrows that of the next one. The last match counts. Runs in time linear in the text, whatever the
//! pattern; guesses no unit.

use std::fmt;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// The longest pattern, in bytes.
const LONGEST: usize = 1000;
/// How large a compiled pattern may become, in bytes.
const COMPILED: usize = 1 << 20;

/// A regular expression with one group, which holds a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// The text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It is no regular expression.
    #[error("`{pattern}` is no regular expression: {why}")]
    Syntax {
        /// The text.
        pattern: String,
        /// What is wrong, in a line.
        why: String,
    },
    /// It does not have exactly one group.
    #[error("`{pattern}` has {groups} groups, and a metric is one number: it needs exactly one")]
    Groups {
        /// The text.
        pattern: String,
        /// How many it has.
        groups: usize,
    },
    /// It is longer than a pattern may be.
    #[error("a pattern has at most {LONGEST} bytes, this has {0}")]
    Long(usize),
}

impl Pattern {
    /// The pattern of a text.
    ///
    /// # Errors
    /// If the text does not compile, is too long, or has not exactly one group.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        if text.len() > LONGEST {
            return Err(BadPattern::Long(text.len()));
        }
        let short = || text.chars().take(120).collect::<String>();
        let regex = compile(text).map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            BadPattern::Syntax { pattern: short(), why }
        })?;
        match regex.captures_len() - 1 {
            1 => Ok(Self(text.to_owned())),
            groups => Err(BadPattern::Groups { pattern: short(), groups }),
        }
    }

    /// What the group holds in the last line that matches; of several matches in it the last.
    #[must_use]
    pub fn last<'t>(&self, text: &'t str) -> Option<&'t str> {
        // Checked when it was made: it compiles.
        let regex = compile(&self.0).ok()?;
        let in_line = |line: &'t str| regex.captures_iter(line).last()?.get(1).map(|group| group.as_str());
        // A progress bar goes back to the start of its line.
        text.rsplit(['\n', '\r']).find_map(in_line)
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(COMPILED).build()
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Self, BadPattern> {
        Self::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_counts_and_no_line_borrows_the_next_ones_number() {
        let ttft = Pattern::new(r"^Mean TTFT \(ms\):\s+([0-9.]+)").unwrap();
        assert_eq!(ttft.last("Mean TTFT (ms):   1.5\nMean TTFT (ms):   2.5\r\nother"), Some("2.5"));
        assert_eq!(ttft.last("Mean TTFT (ms):\n  7.5"), None);
        assert_eq!(ttft.last("10% done\rMean TTFT (ms): 3\r"), Some("3"));
        assert_eq!(Pattern::new("([0-9]+)x").unwrap().last("1x 2x 3y"), Some("2"));
    }

    #[test]
    fn a_pattern_has_exactly_one_group() {
        for (text, groups) in [("a", 0), ("(a)(b)", 2), ("(?:a)", 0)] {
            assert!(matches!(Pattern::new(text), Err(BadPattern::Groups { groups: n, .. }) if n == groups), "{text}");
        }
        assert!(matches!(Pattern::new("(a"), Err(BadPattern::Syntax { .. })));
        assert!(matches!(Pattern::new(&format!("({})", "a".repeat(2000))), Err(BadPattern::Long(2002))));
        assert!(matches!(Pattern::new("((?:a{1000}){1000}){1000}"), Err(BadPattern::Syntax { .. })));
        assert!(Pattern::new("(?:a)(b)").is_ok());
    }
}
