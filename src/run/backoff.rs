//! How long to wait before something is tried again: what the provider asks for, or ever longer, with jitter, within bounds.
//!
//! Knows no clock and draws no lots: the caller gives a number between 0 and 1.

use std::time::Duration;

use crate::outcome::{Owner, WAIT_WORDS};

/// The first wait after a failure of the provider.
const PROVIDER: Duration = Duration::from_secs(10);
/// The first wait after any other failure.
const OTHER: Duration = Duration::from_secs(1);
/// No wait of flow's own making is longer, its jitter not counted.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// A provider that asks for more than this is not waited for in this run: the action stays open.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// When a failed action is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// After so long.
    For(Duration),
    /// Not in this run: the provider asks for so long.
    TooLong(Duration),
}

/// How long to wait after the `failed`-th counted failure of an action in a row, from 1. What the text of the failure asks for
/// is honoured; else each wait is twice the one before. `lot` is a number from 0 to 1.
#[must_use]
pub fn wait(owner: Owner, failed: u32, text: &str, lot: f64) -> Wait {
    if let Some(asked) = retry_after(text) {
        // Never sooner than asked for, and not all at once.
        return if asked > PATIENCE {
            Wait::TooLong(asked)
        } else {
            Wait::For(asked.mul_f64(1.0 + 0.1 * bounded(lot)))
        };
    }
    let first = if owner == Owner::Provider { PROVIDER } else { OTHER };
    Wait::For(spread(doubled(first, failed.saturating_sub(1), LONGEST), lot))
}

/// What is left of that wait where the failure was so long ago: in an earlier run, say. `None` once it is over.
#[must_use]
pub fn left(owner: Owner, failed: u32, text: &str, ago: Duration) -> Option<Wait> {
    let (Wait::For(whole) | Wait::TooLong(whole)) = wait(owner, failed, text, 0.5);
    let left = whole.checked_sub(ago).filter(|left| !left.is_zero())?;
    Some(if left > PATIENCE { Wait::TooLong(left) } else { Wait::For(left) })
}

/// `first` doubled so many times, at most `longest`.
#[must_use]
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// A span with jitter: between four and six fifths of it.
#[must_use]
pub fn spread(span: Duration, lot: f64) -> Duration {
    span.mul_f64(0.8 + 0.4 * bounded(lot))
}

fn bounded(lot: f64) -> f64 {
    if lot.is_finite() { lot.clamp(0.0, 1.0) } else { 0.5 }
}

/// What a provider's words ask for: `retry after 20s`, `try again in 1m30.5s`, `Retry-After: 20`, `"retryDelay": "34s"`.
/// A number without a unit is in seconds; of several, the last holds.
#[must_use]
pub fn retry_after(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let found = WAIT_WORDS.iter().flat_map(|lead| text.match_indices(lead).map(|(at, lead)| at + lead.len()));
    let mut spans: Vec<(usize, Duration)> = found.filter_map(|at| Some((at, leading_span(&text[at..])?))).collect();
    spans.sort_by_key(|(at, _)| *at);
    spans.pop().map(|(_, span)| span)
}

/// The length of time with which a text begins, quotes, colons and blanks not counted.
fn leading_span(text: &str) -> Option<Duration> {
    let (text, millis) = match text.strip_prefix("-ms").or_else(|| text.strip_prefix("_ms")) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut rest = text.trim_start_matches([' ', '"', '\'', ':', '=', '\\']);
    let mut seconds = None;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].trim_end_matches('.').parse::<f64>() else { break };
        // The beginning of a date, a time of day or a number with marks between its digits: no length of time.
        let mut behind = rest[digits..].chars();
        if behind.next().is_some_and(|c| matches!(c, '-' | ':' | '/' | ','))
            && behind.next().is_some_and(|c| c.is_ascii_digit())
        {
            return None;
        }
        let after = rest[digits..].trim_start();
        let word = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let scale = match &after[..word] {
            "ms" | "milliseconds" => 0.001,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            // A bare number; the word after it is another sentence's.
            _ if millis => return Duration::try_from_secs_f64(number / 1000.0).ok(),
            _ => return Duration::try_from_secs_f64(seconds.unwrap_or(0.0) + number).ok(),
        };
        seconds = Some(seconds.unwrap_or(0.0) + number * scale);
        rest = &after[word..];
    }
    Duration::try_from_secs_f64(seconds?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(text: &str) -> Option<f64> {
        retry_after(text).map(|span| span.as_secs_f64())
    }

    #[test]
    fn what_providers_ask_for_is_read() {
        for (text, seconds) in [
            ("Rate limit reached for gpt-5. Please try again in 1.5s. Visit", 1.5),
            ("Please try again in 20ms.", 0.02),
            ("try again in 6m0s", 360.0),
            ("Please retry after 20 seconds", 20.0),
            ("429: retry after 20s", 20.0),
            ("Retry-After: 20", 20.0),
            ("{'retry-after': '7'}", 7.0),
            ("retry-after-ms: 1500", 1.5),
            (r#""retryDelay": "34s""#, 34.0),
            ("Try again in 1h2m3.5s", 3723.5),
            ("retry after 5s; later: retry after 9s", 9.0),
            ("please retry after 3. Thank you", 3.0),
        ] {
            assert_eq!(asked(text), Some(seconds), "{text}");
        }
        for text in
            ["retry after 2026-11-21T10:00:00Z", "try again after 12:30", "retry after 21/11/2026", "retry after 1,200"]
        {
            assert_eq!(asked(text), None, "{text}");
        }
        for text in ["", "try again in a while", "retry later", "retry after", "try again in 5e9999s9", "429"] {
            assert!(asked(text).is_none_or(|seconds| seconds < 10.0), "{text}: {:?}", asked(text));
        }
    }

    #[test]
    fn what_is_asked_for_is_never_cut_short_and_never_waited_for_without_end() {
        for lot in [0.0, 0.5, 1.0, f64::NAN] {
            let Wait::For(span) = wait(Owner::Provider, 1, "retry after 20s", lot) else { panic!() };
            assert!(span >= Duration::from_secs(20) && span <= Duration::from_secs(22));
        }
        let hours = Duration::from_secs(5 * 3600);
        assert_eq!(wait(Owner::Provider, 1, "try again in 5h", 0.5), Wait::TooLong(hours));
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        let seconds = |owner, failed| match wait(owner, failed, "", 0.5) {
            Wait::For(span) => span.as_secs(),
            Wait::TooLong(_) => panic!(),
        };
        assert_eq!([1, 2, 3, 6, 7, 99].map(|n| seconds(Owner::Provider, n)), [10, 20, 40, 300, 300, 300]);
        assert_eq!([1, 2, 3].map(|n| seconds(Owner::Environment, n)), [1, 2, 4]);
    }

    #[test]
    fn what_is_left_of_a_wait_shrinks_with_the_time_that_has_passed() {
        let at = |text, ago| left(Owner::Provider, 1, text, Duration::from_secs(ago));
        assert_eq!(at("", 4), Some(Wait::For(Duration::from_secs(6))));
        assert_eq!(at("", 10), None);
        assert_eq!(at("try again in 5h", 3600), Some(Wait::TooLong(Duration::from_secs(4 * 3600))));
        assert_eq!(at("try again in 5h", 5 * 3600 - 60), Some(Wait::For(Duration::from_secs(60))));
        assert_eq!(at("try again in 5h", 5 * 3600), None);
    }

    proptest! {
        #[test]
        fn any_text_gives_a_wait_within_bounds(text in "(retry after|try again in|[ -~é])*[0-9.smh ]{0,9}", failed: u32, lot in 0.0..=1.0) {
            if let Wait::For(span) = wait(Owner::Provider, failed, &text, lot) {
                prop_assert!(span <= PATIENCE.mul_f64(1.1));
            }
        }
    }
}
