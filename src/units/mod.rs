//! Durations, sizes, percentages and dollars as text: read from a manifest, written back, and shown to people.
//!
//! Each type reads what its `Display` writes and gets the very same value. The `human_*` functions round and are never read
//! back. Numbers are exact: `1.5h` is 5,400 s, and what would need rounding is refused.

mod human;

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::str::FromStr;
use std::time::Duration;

pub use human::{human_count, human_size, human_span, human_usd};

/// The text is not the quantity it should be. Says which forms are taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {why}; write it as {forms}")]
pub struct BadUnit {
    /// The text, shortened.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
    /// The forms that are taken.
    pub forms: &'static str,
}

fn refuse(text: &str, (what, forms): (&'static str, &'static str), why: &'static str) -> BadUnit {
    BadUnit { text: text.chars().take(40).collect(), what, why, forms }
}

const A_SPAN: (&str, &str) = ("a duration", "\"10m\", \"1h30m\", \"90s\", \"2d\" or \"250ms\"");
const A_SIZE: (&str, &str) = ("a size", "\"2MiB\", \"64KiB\", \"1GB\" or \"500\" (bytes)");
const A_PERCENT: (&str, &str) = ("a percentage", "\"2%\" or \"0.5%\"");
const AN_AMOUNT: (&str, &str) = ("an amount of dollars", "\"12.50\" or \"$12.50\"");

const NOT_A_NUMBER: &str = "it has no plain number";
const TOO_LARGE: &str = "it is too large";

/// Splits a plain decimal number off the front: its digits as one integer, how many of them are decimals, and the rest.
fn decimal(text: &str) -> Option<(u128, u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, part) = number.split_once('.').map_or((number, None), |(w, p)| (w, Some(p)));
    if whole.is_empty() || part.is_some_and(|p| p.is_empty() || p.contains('.')) || number.len() > 30 {
        return None;
    }
    let part = part.unwrap_or("");
    let digits = format!("{whole}{part}").parse().ok()?;
    Some((digits, u32::try_from(part.len()).ok()?, rest))
}

/// `digits / 10^decimals * scale` if that is a whole number.
fn scaled(digits: u128, decimals: u32, scale: u128) -> Result<u128, &'static str> {
    let product = digits.checked_mul(scale).ok_or(TOO_LARGE)?;
    let divisor = 10u128.checked_pow(decimals).ok_or(TOO_LARGE)?;
    if product % divisor == 0 { Ok(product / divisor) } else { Err("it has more decimals than can be kept exactly") }
}

/// A duration as a manifest writes it: `"10m"`, `"1h30m"`, `"90s"`, `"250ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

/// From the largest, in nanoseconds.
const SPAN_UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl FromStr for Span {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = |why| refuse(text, A_SPAN, why);
        let mut rest = text;
        let mut nanos = 0u128;
        let mut units = &SPAN_UNITS[..];
        while !rest.is_empty() || nanos == 0 && units.len() == SPAN_UNITS.len() {
            let (digits, decimals, after) = decimal(rest).ok_or_else(|| bad(NOT_A_NUMBER))?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
                let known = SPAN_UNITS.iter().any(|(name, _)| *name == unit);
                return Err(bad(match (unit, known) {
                    ("", _) => "a number has no unit",
                    (_, true) => "its units do not fall from the largest to the smallest",
                    _ => "it has an unknown unit",
                }));
            };
            let part = scaled(digits, decimals, units[at].1).map_err(bad)?;
            nanos = nanos.checked_add(part).ok_or_else(|| bad(TOO_LARGE))?;
            units = &units[at + 1..];
            rest = after;
        }
        let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| bad(TOO_LARGE))?;
        Ok(Self(Duration::new(seconds, (nanos % 1_000_000_000) as u32)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, size) in SPAN_UNITS {
            if rest >= size {
                write!(f, "{}{name}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl Span {
    /// Whole milliseconds, as limits are stored; at most `u64::MAX`.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A size in bytes as a manifest writes it: `"2MiB"`, `"64KiB"`, `"1GB"`, `"500"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 11] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

impl FromStr for Size {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = |why| refuse(text, A_SIZE, why);
        let (digits, decimals, unit) = decimal(text).ok_or_else(|| bad(NOT_A_NUMBER))?;
        let (_, scale) =
            SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| bad("it has an unknown unit"))?;
        let bytes = scaled(digits, decimals, u128::from(*scale)).map_err(bad)?;
        u64::try_from(bytes).map(Self).map_err(|_| bad(TOO_LARGE))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The decimal units are for reading only, but for what is whole in them and not in KiB.
        for (name, size) in SIZE_UNITS {
            if self.0 >= size && self.0.is_multiple_of(size) && name != "B" {
                return write!(f, "{}{name}", self.0 / size);
            }
        }
        f.write_str("0")
    }
}

/// A percentage, kept as a fraction: `"2%"` is 0.02. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = |why| refuse(text, A_PERCENT, why);
        let number = text.strip_suffix('%').ok_or_else(|| bad("it does not end with `%`"))?;
        if number.len() > 400 || number.find(|c: char| !c.is_ascii_digit() && c != '.').is_some() {
            return Err(bad(NOT_A_NUMBER));
        }
        if number.starts_with('.') || number.ends_with('.') {
            return Err(bad(NOT_A_NUMBER));
        }
        // Shifted as text, so that "2%" is exactly what the literal 0.02 is.
        let fraction: f64 = format!("{number}e-2").parse().map_err(|_| bad(NOT_A_NUMBER))?;
        if fraction.is_finite() { Ok(Self(fraction)) } else { Err(bad(TOO_LARGE)) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shortest = format!("{:e}", self.0);
        let Some((mantissa, exponent)) = shortest.split_once('e') else {
            return write!(f, "{shortest}%");
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{part}");
        let point = whole.len() as i64 + exponent.parse::<i64>().unwrap_or(0) + 2;
        let width = digits.len() as i64;
        if point <= 0 {
            let digits = digits.trim_end_matches('0');
            match digits {
                "" => f.write_str("0%"),
                _ => write!(f, "0.{}{digits}%", "0".repeat((-point) as usize)),
            }
        } else if point >= width {
            let text = format!("{digits}{}", "0".repeat((point - width) as usize));
            let text = text.trim_start_matches('0');
            write!(f, "{}%", if text.is_empty() { "0" } else { text })
        } else {
            let (whole, part) = digits.split_at(point as usize);
            write!(f, "{whole}.{part}%")
        }
    }
}

/// An amount of dollars in whole nano-dollars, so that sums are exact and do not depend on their order. What is reserved and
/// compared with a limit stays at the largest amount (18 thousand million dollars) rather than wrap; what was spent is summed with
/// [`checked_add`](Self::checked_add), and is unknown beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Usd(pub u64);

/// Nano-dollars in a dollar.
const NANO: u64 = 1_000_000_000;

impl Usd {
    /// The amount as a number of dollars, for JSON and statistics.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / NANO as f64
    }

    /// The amount nearest to a number that was computed, such as a mean; what is no amount is 0 or the largest.
    #[must_use]
    pub fn nearest(dollars: f64) -> Self {
        // A cast of a float stays within the bounds of the integer.
        Self((dollars * NANO as f64).round() as u64)
    }

    /// What is left of it after another amount; nothing if that is more.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// So many times the amount.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The sum of two amounts; `None` if it is more than can be counted.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `count / per` of the amount, to the nearest nano-dollar: 1,500 of a price for 1,000,000 tokens. `None` if it is more than
    /// can be counted.
    #[must_use]
    pub fn checked_share(self, count: u64, per: u64) -> Option<Self> {
        let product = (u128::from(self.0) * u128::from(count)).checked_add(u128::from(per) / 2)?;
        u64::try_from(product.checked_div(u128::from(per)).unwrap_or(0)).ok().map(Self)
    }
}

impl FromStr for Usd {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = |why| refuse(text, AN_AMOUNT, why);
        let number = text.strip_prefix('$').unwrap_or(text);
        let (digits, decimals, rest) = decimal(number).ok_or_else(|| bad(NOT_A_NUMBER))?;
        if !rest.is_empty() {
            return Err(bad("something follows the number"));
        }
        let nanos = scaled(digits, decimals, u128::from(NANO)).map_err(bad)?;
        u64::try_from(nanos).map(Self).map_err(|_| bad(TOO_LARGE))
    }
}

impl fmt::Display for Usd {
    /// `$12.50`; more decimals only where there are some.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = format!("{:09}", self.0 % NANO);
        let (cents, fine) = part.split_at(2);
        f.pad(&format!("${}.{cents}{}", self.0 / NANO, fine.trim_end_matches('0')))
    }
}

impl serde::Serialize for Usd {
    /// A number of dollars.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.dollars())
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(text: &str) -> Option<Duration> {
        text.parse::<Span>().ok().map(|s| s.0)
    }

    #[test]
    fn reads_what_manifests_say() {
        assert_eq!(span("10m"), Some(Duration::from_secs(600)));
        assert_eq!(span("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(span("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(span("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(span("0s"), Some(Duration::ZERO));
        assert_eq!("2MiB".parse(), Ok(Size(2 << 20)));
        assert_eq!("1GB".parse(), Ok(Size(1_000_000_000)));
        assert_eq!("500".parse(), Ok(Size(500)));
        assert_eq!("2%".parse(), Ok(Percent(0.02)));
        assert_eq!("58%".parse(), Ok(Percent(0.58)));
        assert_eq!("12.50".parse(), Ok(Usd(12_500_000_000)));
        assert_eq!("0.0375".parse(), Ok(Usd(37_500_000)));
    }

    #[test]
    fn refuses_the_rest_and_says_what_is_taken() {
        for bad in ["", "10", "m", "30m1h", "1h30", "1x", "-1s", "1m1m", "1.2.3s", " 1s", "1e3s", "0.0000000001s"] {
            let error = bad.parse::<Span>().unwrap_err();
            assert!(error.to_string().contains("\"1h30m\""), "{error}");
        }
        for bad in ["", "MiB", "1 MiB", "1mib", "0.3B", "99999999999TiB", ".5KiB", "5.KiB"] {
            assert!(bad.parse::<Size>().unwrap_err().to_string().contains("\"2MiB\""), "{bad}");
        }
        for bad in ["", "%", "2", "-2%", "nan%", "inf%", "1e3%", ".5%", "1..2%"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad}");
        }
        for bad in ["", "$", "-1", "1.0000000001", "1 USD", "99999999999999999999"] {
            assert!(bad.parse::<Usd>().is_err(), "{bad}");
        }
    }

    #[test]
    fn people_read() {
        let say = |ms| human_span(Duration::from_millis(ms));
        assert_eq!(
            [say(250), say(1_234), say(59_960), say(200_000), say(7_800_000), say(100_800_000)],
            ["250 ms", "1.2 s", "1 m 0 s", "3 m 20 s", "2 h 10 m", "1 d 4 h"]
        );
        assert_eq!([human_size(500), human_size(12_897_485)], ["500 B", "12.3 MiB"]);
        assert_eq!([Usd(12_500_000_000).to_string(), Usd(1).to_string()], ["$12.50", "$0.000000001"]);
        let say = |nanos| human_usd(Usd(nanos));
        assert_eq!(
            [say(0), say(12_345_678_901), say(999_999_999), say(123_456_789), say(1_234_567), say(1_234)],
            ["$0.00", "$12.35", "$1.00", "$0.12", "$0.0012", "$0.000001234"]
        );
        assert_eq!([human_count(7), human_count(1_234), human_count(12_345_678)], ["7", "1,234", "12,345,678"]);
        assert_eq!(
            [Percent(0.02).to_string(), Percent(0.005).to_string(), Percent(1.5).to_string()],
            ["2%", "0.5%", "150%"]
        );
        assert_eq!([Size(2 << 20).to_string(), Size(0).to_string()], ["2MiB", "0"]);
    }

    proptest! {
        #[test]
        fn spans_return(secs in any::<u64>(), nanos in 0u32..1_000_000_000) {
            let span = Span(Duration::new(secs, nanos));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }

        #[test]
        fn sizes_and_amounts_return(n in any::<u64>(), shift in 0u32..64) {
            for n in [n, n >> shift << shift] {
                prop_assert_eq!(Size(n).to_string().parse::<Size>().unwrap(), Size(n));
                prop_assert_eq!(Usd(n).to_string().parse::<Usd>().unwrap(), Usd(n));
            }
        }

        #[test]
        fn sums_of_money_are_exact_in_any_order(amounts in proptest::collection::vec(any::<u32>(), 0..50), turn in any::<u8>()) {
            let exact: u64 = amounts.iter().map(|amount| u64::from(*amount)).sum();
            let mut turned = amounts.clone();
            turned.rotate_left(if amounts.is_empty() { 0 } else { usize::from(turn) % amounts.len() });
            prop_assert_eq!(amounts.iter().map(|amount| Usd(u64::from(*amount))).sum::<Usd>(), Usd(exact));
            prop_assert_eq!(turned.iter().map(|amount| Usd(u64::from(*amount))).sum::<Usd>(), Usd(exact));
        }

        #[test]
        fn shares_are_the_nearest_nano_dollar(price in any::<u64>(), count in any::<u32>(), per in 1u64..1 << 40) {
            let exact = u128::from(price) * u128::from(count);
            match Usd(price).checked_share(u64::from(count), per) {
                Some(Usd(share)) => {
                    let error = (u128::from(share) * u128::from(per)).abs_diff(exact);
                    prop_assert!(2 * error <= u128::from(per));
                }
                None => prop_assert!(exact / u128::from(per) >= u128::from(u64::MAX)),
            }
        }

        #[test]
        fn what_people_read_of_money_is_within_a_cent_or_a_twentieth(n in any::<u64>(), shift in 0u32..64) {
            let shown = human_usd(Usd(n >> shift)).parse::<Usd>().unwrap().0;
            let error = shown.abs_diff(n >> shift);
            prop_assert!(error <= NANO / 200 || error <= (n >> shift) / 20, "{shown}");
            prop_assert!(error <= (n >> shift) / 10);
        }

        #[test]
        fn percentages_return(x in 0.0f64..1e6, y in any::<f64>()) {
            for x in [x, x / 1e9, y.abs()] {
                if x.is_finite() && x < 1e300 {
                    prop_assert_eq!(Percent(x).to_string().parse::<Percent>().unwrap().0, x);
                }
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (text.parse::<Span>(), text.parse::<Size>(), text.parse::<Percent>(), text.parse::<Usd>());
        }
    }
}
