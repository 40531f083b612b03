//! Quantities as people read them: rounded to the figures that matter, with their unit, and never read back.

use std::time::Duration;

use super::{NANO, Usd};

/// An amount for people: whole cents from a dollar on, below that two figures that matter.
#[must_use]
pub fn human_usd(amount: Usd) -> String {
    let step = match amount.0 {
        ..10_000 => 1,
        10_000..1_000_000_000 => 10u64.pow(amount.0.ilog10().saturating_sub(1)).min(NANO / 100),
        _ => NANO / 100,
    };
    // The largest amount has no room to round up.
    let rounded = (amount.0 / step + u64::from(amount.0 % step >= step.div_ceil(2))).saturating_mul(step);
    Usd(if step == 1 { amount.0 } else { rounded }).to_string()
}

/// A count for people: `12,345,678`.
#[must_use]
pub fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration for people, with two figures that matter: `250 ms`, `1.2 s`, `3 m 20 s`, `2 h 10 m`, `1 d 4 h`.
#[must_use]
pub fn human_span(span: Duration) -> String {
    let millis = span.as_millis();
    let tenths = (millis + 50) / 100;
    let seconds = (millis + 500) / 1000;
    let minutes = (seconds + 30) / 60;
    let hours = (minutes + 30) / 60;
    if millis < 1000 {
        format!("{millis} ms")
    } else if tenths < 600 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else if seconds < 3600 {
        format!("{} m {} s", seconds / 60, seconds % 60)
    } else if minutes < 24 * 60 {
        format!("{} h {} m", minutes / 60, minutes % 60)
    } else {
        format!("{} d {} h", hours / 24, hours % 24)
    }
}

/// A size for people: `500 B`, `12.3 MiB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    for (unit, size) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        let tenths = (u128::from(bytes) * 10 + u128::from(size) / 2) / u128::from(size);
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}
