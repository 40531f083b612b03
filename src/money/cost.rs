//! The cost of one attempt.

use jiff::Timestamp;

use super::price::{Prices, Rate};
use crate::attempt::Usage;
use crate::units::Usd;

/// Why a sum of money is unknown that no figure can hold.
pub const TOO_MUCH: &str = "it is more than flow can count ($18,446,744,073)";
/// Prices are for so many tokens.
const PER: u64 = 1_000_000;

/// What an attempt cost: at least `known`, and exactly that if nothing is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// What is known of it.
    pub known: Usd,
    /// Why it may be more, if it may.
    pub unknown: Option<String>,
    /// Whether the agent rounds the tokens that it tells.
    pub approximate: bool,
}

impl Cost {
    /// A cost of which nothing is known.
    #[must_use]
    pub fn unknown(because: impl Into<String>) -> Self {
        Self { unknown: Some(because.into()), ..Self::default() }
    }

    /// The whole cost, if it is known.
    #[must_use]
    pub fn exact(&self) -> Option<Usd> {
        self.unknown.is_none().then_some(self.known)
    }

    /// What it counts as where an amount is needed: all of it, or, while a part is unknown, at least `reserved`.
    #[must_use]
    pub fn counted(&self, reserved: Usd) -> Usd {
        if self.unknown.is_some() { self.known.max(reserved) } else { self.known }
    }
}

/// The cost of an attempt that began at a time, by its tokens. The model is the one that the provider said it answered with; if
/// it said none, or one whose id is that of the candidate's without the way by which it was reached (`us.anthropic.claude-x-v1:0`
/// answers as `claude-x`), it is the one that the candidate asks for. An id without a price may be a dated one of that
/// (`gpt-x-2026-01-01`); of any other it is not known what it costs.
#[must_use]
pub fn cost(usage: Option<&Usage>, asked: Option<&str>, prices: &Prices, at: Timestamp) -> Cost {
    let Some(usage) = usage else { return Cost::unknown("its usage was not read") };
    let counts = [usage.input, usage.output, usage.cache_read, usage.cache_write];
    let told = usage.unknown_because.clone();
    if counts.iter().all(|count| count.is_none_or(|count| count == 0)) {
        // Nothing was used, or nothing is known: no price is needed for either.
        let complete = usage.input.is_some() && usage.output.is_some() && told.is_none();
        let because = || told.unwrap_or_else(|| "the agent reported no tokens".to_owned());
        return Cost { unknown: (!complete).then(because), approximate: usage.approximate, known: Usd(0) };
    }
    let (rate, unsure) = match rate(usage, asked, prices, at) {
        Ok(found) => found,
        Err(because) => return Cost { approximate: usage.approximate, ..Cost::unknown(because) },
    };
    let mut unknown = told;
    let mut because = |why: String| {
        unknown.get_or_insert(why);
    };
    let mut known = Usd(0);
    let parts = [
        ("input tokens", usage.input, Some(rate.input)),
        ("output tokens", usage.output, Some(rate.output)),
        ("tokens read from the cache", usage.cache_read, rate.cache_read),
        ("tokens written into the cache", usage.cache_write, rate.cache_write),
    ];
    for (what, count, price) in parts {
        match (count.unwrap_or(0), price) {
            (0, _) => {}
            (count, Some(price)) => match price.checked_share(count, PER).and_then(|part| known.checked_add(part)) {
                Some(sum) => known = sum,
                None => because(TOO_MUCH.to_owned()),
            },
            (_, None) => because(format!("no price for {what}")),
        }
    }
    if usage.input.is_none() || usage.output.is_none() {
        because("the agent reported only a part of its tokens".to_owned());
    }
    if let Some(why) = unsure {
        because(why);
    }
    Cost { known, unknown, approximate: usage.approximate }
}

/// Whether the id that was asked for is one that answered, with the way by which it is reached before it (`openai/`, `us.anthropic.`)
/// or a revision after it (`-v1:0`, `:latest`, `@20260101`).
fn reached(asked: &str, one: &str) -> bool {
    asked.match_indices(one).any(|(at, _)| {
        let (before, after) = (&asked[..at], &asked[at + one.len()..]);
        let revision = after.strip_prefix("-v").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        (before.is_empty() || before.ends_with(['/', '.', ':', '@']))
            && (after.is_empty() || after.starts_with([':', '@']) || revision)
    })
}

/// Whether the id that answered is the one that was asked for, with a date or a number behind it.
fn dated(asked: &str, one: &str) -> bool {
    let asked = asked.rsplit('/').next().unwrap_or(asked).trim_end_matches("-latest");
    one.match_indices(asked).any(|(at, _)| {
        let after = &one[at + asked.len()..];
        (at == 0 || one[..at].ends_with(['/', '.', ':']))
            && after.chars().all(|c| c.is_ascii_digit() || "-@:_".contains(c))
    })
}

/// What a million tokens of an attempt cost, at least; and why it may be more, if it may.
fn rate(usage: &Usage, asked: Option<&str>, prices: &Prices, at: Timestamp) -> Result<(Rate, Option<String>), String> {
    let price = match usage.models.as_slice() {
        [] => prices.of(asked.ok_or("the model is not known")?, at)?,
        // One model by two names, of which the longer also says by which way it was reached: that way has its own price.
        [one] if asked.is_some_and(|asked| reached(asked, one) && prices.knows(asked)) => {
            prices.of(asked.unwrap_or_default(), at)?
        }
        [one] => match (prices.of(one, at), asked) {
            (Ok(price), _) => price,
            // A provider may answer with another name than the one that its price list and the candidate use.
            (Err(why), Some(asked)) if dated(asked, one) => prices.of(asked, at).map_err(|_| why)?,
            (Err(why), _) => return Err(why),
        },
        [first, others @ ..] => {
            let price = prices.of(first, at)?;
            for other in others {
                let other = prices.of(other, at)?;
                if (other.rate, other.above) != (price.rate, price.above) {
                    return Err("several models of different prices answered".to_owned());
                }
            }
            price
        }
    };
    let Some((above, dear)) = price.above else { return Ok((price.rate, None)) };
    let read: u64 = [usage.input, usage.cache_read, usage.cache_write]
        .iter()
        .fold(0, |sum, count| sum.saturating_add(count.unwrap_or(0)));
    match usage.calls {
        // Together they read no more than that, so that no single one did.
        _ if read <= above => Ok((price.rate, None)),
        Some(1) => Ok((dear, None)),
        _ => Ok((
            price.rate,
            Some(format!("which calls read more than {above} tokens, and have another price, is not known")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::price::{Pattern, Price};
    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn rate(input: &str, output: &str, read: &str, write: &str) -> Rate {
        Rate { input: usd(input), output: usd(output), cache_read: Some(usd(read)), cache_write: Some(usd(write)) }
    }

    fn prices() -> Prices {
        let price = |model: &str, since: &str, rate: Rate| Price {
            model: Pattern::new(model),
            since: since.parse().unwrap(),
            rate,
            above: None,
        };
        let mut tiered = price("long", "2025-01-01T00:00:00Z", rate("1", "10", "0.1", "1"));
        tiered.above = Some((200_000, rate("2", "15", "0.2", "2")));
        Prices(vec![
            price("m-*", "2025-01-01T00:00:00Z", rate("3.00", "15.00", "0.30", "3.75")),
            price("m-*", "2026-01-01T00:00:00Z", rate("1.50", "7.50", "0.15", "1.875")),
            Price {
                rate: Rate { cache_read: None, cache_write: None, ..rate("2", "2", "0", "0") },
                ..price("bare", "2025-01-01T00:00:00Z", rate("0", "0", "0", "0"))
            },
            tiered,
        ])
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input: Some(input), output: Some(output), ..Usage::default() }
    }

    fn at(usage: &Usage, model: &str, time: &str) -> Cost {
        cost(Some(usage), Some(model), &prices(), time.parse().unwrap())
    }

    const THEN: &str = "2025-06-01T12:00:00Z";

    #[test]
    fn every_kind_of_token_has_its_price_and_the_sum_is_exact() {
        let all = Usage { cache_read: Some(7_424), cache_write: Some(11), ..usage(3_426, 301) };
        // 3426 * 3.00 + 301 * 15.00 + 7424 * 0.30 + 11 * 3.75 millionths.
        assert_eq!(at(&all, "m-1", THEN).exact(), Some(usd("0.01706145")));
    }

    #[test]
    fn the_price_in_force_when_the_attempt_began_counts() {
        let million = usage(1_000_000, 0);
        assert_eq!(at(&million, "m-1", "2025-12-31T23:59:59.999Z").exact(), Some(usd("3")));
        assert_eq!(at(&million, "m-1", "2026-01-01T00:00:00Z").exact(), Some(usd("1.5")));
        let early = at(&million, "m-1", "2024-12-31T23:59:59Z");
        assert_eq!(early.unknown.as_deref(), Some("the prices of m-1 begin on 2025-01-01"));
    }

    #[test]
    fn the_model_that_answered_is_priced_before_the_one_that_was_asked() {
        let answered = |models: &[&str]| Usage {
            models: models.iter().map(|id| (*id).to_owned()).collect(),
            ..usage(1_000_000, 0)
        };
        assert_eq!(at(&answered(&["bare"]), "m-1", THEN).exact(), Some(usd("2")));
        assert_eq!(at(&answered(&["m-1-2026-02-01"]), "m-1", THEN).exact(), Some(usd("3")), "a dated name of it");
        for (another, why) in [("nobody", "no price for nobody"), ("1", "no price for 1")] {
            assert_eq!(at(&answered(&[another]), "m-1", THEN).unknown.as_deref(), Some(why), "another model answered");
        }
        let larger = prices().0.into_iter().chain([Price { model: Pattern::new("m-1-mini"), ..prices().0[2].clone() }]);
        let larger = Prices(larger.collect());
        let larger = cost(Some(&answered(&["m-1"])), Some("m-1-mini"), &larger, THEN.parse().unwrap());
        assert_eq!(larger.exact(), Some(usd("3")), "what answered has a price of its own");
        let routed =
            prices().0.into_iter().chain([Price { model: Pattern::new("us.m-1-v1"), ..prices().0[2].clone() }]);
        let routed = Prices(routed.collect());
        let by_route = cost(Some(&answered(&["m-1"])), Some("us.m-1-v1"), &routed, THEN.parse().unwrap());
        assert_eq!(by_route.exact(), Some(usd("2")));
        assert_eq!(at(&answered(&["m-1", "m-2"]), "m-1", THEN).exact(), Some(usd("3")));
        let mixed = at(&answered(&["m-1", "bare"]), "m-1", THEN);
        assert_eq!(mixed.unknown.as_deref(), Some("several models of different prices answered"));
        assert_eq!(at(&usage(1, 1), "other", THEN).unknown.as_deref(), Some("no price for other"));
    }

    #[test]
    fn what_is_unknown_is_said_and_what_is_known_of_it_is_a_lower_bound() {
        let half = Usage { output: None, ..usage(1_000_000, 0) };
        let said = at(&half, "m-1", THEN);
        assert_eq!((said.known, said.unknown.is_some()), (usd("3"), true));
        let cut = Usage { unknown_because: Some("it was killed".into()), ..usage(1_000_000, 0) };
        let said = at(&cut, "m-1", THEN);
        assert_eq!((said.known, said.unknown.as_deref()), (usd("3"), Some("it was killed")));
        let cached = Usage { cache_read: Some(5), ..usage(1_000_000, 0) };
        let said = at(&cached, "bare", THEN);
        assert_eq!((said.known, said.unknown.as_deref()), (usd("2"), Some("no price for tokens read from the cache")));
        assert!(cost(None, Some("m-1"), &prices(), Timestamp::UNIX_EPOCH).exact().is_none());
        assert!(at(&Usage::default(), "m-1", THEN).exact().is_none(), "unknown tokens are not 0");
        assert_eq!(cost(Some(&usage(0, 0)), None, &Prices::default(), Timestamp::UNIX_EPOCH).exact(), Some(Usd(0)));
    }

    #[test]
    fn a_tier_counts_where_it_is_sure_and_is_said_where_not() {
        assert_eq!(at(&usage(200_000, 0), "long", THEN).exact(), Some(usd("0.2")));
        let one = Usage { calls: Some(1), ..usage(300_000, 0) };
        assert_eq!(at(&one, "long", THEN).exact(), Some(usd("0.6")));
        let many = at(&Usage { calls: Some(9), ..usage(300_000, 0) }, "long", THEN);
        assert_eq!((many.known, many.unknown.is_some()), (usd("0.3"), true));
    }

    proptest! {
        #[test]
        fn costs_add_up_as_tokens_do(a in 0u64..1 << 40, b in 0u64..1 << 40, out in 0u64..1 << 40) {
            let one = at(&usage(a, out), "m-1", THEN).known;
            let two = at(&usage(b, out), "m-1", THEN).known;
            prop_assert_eq!((one + two).0, at(&usage(a + b, 2 * out), "m-1", THEN).known.0);
        }
    }
}
