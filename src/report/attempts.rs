//! Attempts as lines of the ledger: number, times, how it ended, tokens by kind and cost.

use std::time::Duration;

use jiff::Timestamp;

use crate::attempt::{Ended, Usage};
use crate::ledger::{no_agent_began, usage_of};
use crate::process::Exit;
use crate::report::detail::{AttemptDetail, StepDetail};
use crate::report::status_text::clock;
use crate::text::{short_digests, wrap};
use crate::units::{human_count, human_span};

/// Every attempt of a step, the oldest first, with what it used and cost where it is an agent's.
#[must_use]
pub fn list(step: &StepDetail, now: Timestamp, width: usize) -> String {
    let mut text = String::new();
    let mut tell = |lead: &str, words: &str| {
        let lines = wrap(&short_digests(words), width.saturating_sub(4));
        text.push_str(&format!("{lead:>2}  {}\n", lines.join("\n    ")));
    };
    for attempt in &step.attempts {
        let ended = &attempt.ended;
        let mut parts = vec![format!("began {}", began(ended, now)), took(ended), exit(ended)];
        parts.push(match ended.outcome.failure() {
            None => "SUCCEEDED".to_owned(),
            Some(failure) => format!("{}: {}", failure.cause, failure.evidence.as_str()),
        });
        parts.retain(|part| !part.is_empty());
        let marks = [
            (attempt.speaks, " (speaks for the step)"),
            (!attempt.same_key, " (of other ingredients)"),
            (!ended.outcome.settles(), " (settles nothing)"),
        ];
        let marks: String = marks.iter().filter(|(holds, _)| *holds).map(|(_, mark)| *mark).collect();
        let was = attempt.was.map_or_else(String::new, |was| format!(" (on record as {was})"));
        tell(&attempt.number.to_string(), &format!("{}{was}{marks}", parts.join(", ")));
        if let Some(used) = used(attempt) {
            tell("", &used);
        }
        tell("", &format!("attempt {}", ended.attempt));
    }
    for started in &step.under_way {
        tell("-", &format!("began {}, no end on record yet; attempt {}", clock(started.at, now), started.attempt));
    }
    if text.is_empty() {
        text.push_str("no attempt has begun\n");
    }
    text
}

fn began(ended: &Ended, now: Timestamp) -> String {
    ended.began.map_or_else(|| format!("before {}", clock(ended.at, now)), |began| clock(began, now))
}

/// How long it took, and how long of that its process was at work.
fn took(ended: &Ended) -> String {
    let span = |ms: u64| human_span(Duration::from_millis(ms));
    match &ended.process {
        // Whoever adopted it saw only its end.
        Some(process) if ended.adopts.is_some() => format!("at work {}", span(process.active_ms)),
        Some(process) => format!("took {} ({} at work)", span(ended.wall_ms), span(process.active_ms)),
        None if ended.adopts.is_some() => "how long is unknown: its run died".to_owned(),
        None => format!("took {}", span(ended.wall_ms)),
    }
}

fn exit(ended: &Ended) -> String {
    let code = ended.outcome.failure().and_then(|failure| failure.exit);
    match ended.process.as_ref().map(|process| &process.exit) {
        Some(Exit::Code(code)) => format!("exit {code}"),
        Some(Exit::Signal(signal)) => format!("signal {signal}"),
        Some(Exit::TimedOut { limit_ms }) => {
            format!("stopped at its limit of {}", human_span(Duration::from_millis(*limit_ms)))
        }
        Some(Exit::OverLimit { .. }) => "stopped at its limit of output".to_owned(),
        Some(Exit::NotStarted { .. }) => "not started".to_owned(),
        Some(Exit::Interrupted { .. }) => "interrupted".to_owned(),
        None => code.map_or_else(String::new, |code| format!("exit {code}")),
    }
}

/// What an agent's attempt used and cost; `None` for what is no agent's and held nothing with a price.
#[must_use]
pub fn used(attempt: &AttemptDetail) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(cost) = &attempt.cost_usd {
        let why = cost.why();
        let why = if why.is_empty() { why } else { format!(" ({why})") };
        if no_agent_began(&attempt.ended) {
            parts.push("no agent began".to_owned());
        }
        parts.push(tokens(usage_of(&attempt.ended)));
        parts.push(match cost.unknown_attempts {
            0 => format!("cost {}", cost.text()),
            _ if cost.known.0 > 0 => format!("cost at least {}{why}", crate::units::human_usd(cost.known)),
            _ => format!("cost unknown{why}"),
        });
    }
    if let Some(machine) = &attempt.machine_usd {
        parts.push(format!("machine {}", machine.text()));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Tokens by kind.
fn tokens(usage: Option<&Usage>) -> String {
    let Some(usage) = usage.filter(|usage| usage.input.is_some() || usage.output.is_some()) else {
        return "tokens unknown".to_owned();
    };
    let count = |count: Option<u64>| count.map_or_else(|| "unknown".to_owned(), human_count);
    let mut parts = vec![format!("{} tokens in", count(usage.input)), format!("{} out", count(usage.output))];
    let cached = [(usage.cache_read, "read from the cache"), (usage.cache_write, "written into it")];
    parts.extend(cached.iter().filter_map(|(n, what)| Some(format!("{} {what}", human_count((*n)?)))));
    parts.extend(usage.calls.map(|calls| if calls == 1 { "1 call".to_owned() } else { format!("{calls} calls") }));
    let about = if usage.approximate { "about " } else { "" };
    format!("{about}{}", parts.join(", "))
}
