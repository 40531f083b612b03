//! Prices of models by the date from which they hold, and which of them is meant.

use jiff::Timestamp;

use crate::units::Usd;

/// Which models a price is for: an id in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern of a text; every text is one.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a model's id is meant.
    #[must_use]
    pub fn matches(&self, id: &str) -> bool {
        walk(self.0.as_bytes(), id.as_bytes(), false)
    }

    /// Whether there may be an id that both mean.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        walk(self.0.as_bytes(), other.0.as_bytes(), true)
    }
}

/// Whether a pattern and a text can be read as one, in time of the product of their lengths; with `both`, a `*` of the text
/// stands for any run of characters too.
fn walk(pattern: &[u8], text: &[u8], both: bool) -> bool {
    let star = |byte: Option<&u8>| byte == Some(&b'*');
    // `row[j]`: what is left of the pattern from here can be read as what is left of the text from `j`.
    let mut row = vec![false; text.len() + 1];
    for i in (0..=pattern.len()).rev() {
        let below = row.clone();
        for j in (0..=text.len()).rev() {
            let next = |row: &[bool], j: usize| row.get(j).copied().unwrap_or(false);
            row[j] = match (pattern.get(i), text.get(j)) {
                (None, None) => true,
                (own, other) if star(own) || both && star(other) => {
                    // A star ends here, or takes one character more of the other side.
                    (star(own) && (next(&below, j) || other.is_some() && next(&row, j + 1)))
                        || (both && star(other) && (next(&row, j + 1) || own.is_some() && next(&below, j)))
                }
                (Some(own), Some(other)) => own == other && next(&below, j + 1),
                _ => false,
            };
        }
    }
    row.first().copied().unwrap_or(false)
}

/// What a million tokens cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Read by the model, without those of its cache.
    pub input: Usd,
    /// Written by the model.
    pub output: Usd,
    /// Read from the provider's cache; `None` if nobody said.
    pub cache_read: Option<Usd>,
    /// Written into the provider's cache; `None` if nobody said.
    pub cache_write: Option<Usd>,
}

/// The price of some models from a date on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Which models.
    pub model: Pattern,
    /// From when, the first moment of that day in UTC.
    pub since: Timestamp,
    /// What a million tokens cost.
    pub rate: Rate,
    /// What they cost in a call that reads more tokens than this, those of the cache included.
    pub above: Option<(u64, Rate)>,
}

/// The price list. No two prices of it are for one id from one date: the manifest's reader refuses that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices(pub Vec<Price>);

impl Prices {
    /// The price of a model at a time.
    ///
    /// # Errors
    /// Says that there is none: for the model, or not yet at that time.
    pub fn of(&self, model: &str, at: Timestamp) -> Result<&Price, String> {
        let own = || self.0.iter().filter(|price| price.model.matches(model));
        if let Some(price) = own().filter(|price| price.since <= at).max_by_key(|price| price.since) {
            return Ok(price);
        }
        Err(match own().map(|price| price.since).min() {
            Some(first) => format!("the prices of {model} begin on {}", first.strftime("%Y-%m-%d")),
            None => format!("no price for {model}"),
        })
    }

    /// Whether there is a price for a model at any time.
    #[must_use]
    pub fn knows(&self, model: &str) -> bool {
        self.0.iter().any(|price| price.model.matches(model))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, id: &str) -> bool {
        Pattern::new(pattern).matches(id)
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        assert!(matches("claude-*", "claude-4") && matches("claude-*", "claude-") && matches("*", ""));
        assert!(matches("a*b*c", "a--b--b--c") && !matches("a*b*c", "a--b--"));
        assert!(!matches("gpt-5", "gpt-5.1") && !matches("", "x") && matches("gpt-5", "gpt-5"));
        let overlap = |a: &str, b: &str| Pattern::new(a).overlaps(&Pattern::new(b));
        assert!(overlap("a*", "*b") && overlap("gpt-5", "gpt-*") && overlap("a*", "a*") && overlap("*", ""));
        assert!(!overlap("a*", "b*") && !overlap("gpt-5", "gpt-5.*") && !overlap("*x", "*y"));
    }

    #[test]
    fn a_long_pattern_of_many_stars_takes_no_time() {
        let pattern = Pattern::new("*a".repeat(500));
        assert!(!pattern.matches(&"a".repeat(499)) && pattern.matches(&"a".repeat(500)));
    }

    proptest! {
        #[test]
        fn patterns_that_mean_one_id_overlap(a in "[ab*]{0,6}", b in "[ab*]{0,6}", id in "[ab]{0,6}") {
            let (a, b) = (Pattern::new(a), Pattern::new(b));
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            prop_assert!(a.overlaps(&b) || !(a.matches(&id) && b.matches(&id)));
            // What a star stands for at most is the other pattern itself.
            let plain = |pattern: &Pattern| pattern.as_str().replace('*', "");
            if !a.as_str().contains('*') {
                prop_assert_eq!(a.overlaps(&b), b.matches(&plain(&a)));
            }
        }
    }
}
