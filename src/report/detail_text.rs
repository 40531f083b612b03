//! One job for people, at the width of their terminal.

use std::time::Duration;

use jiff::Timestamp;

use crate::key::Value;
use crate::measure::analysis::Ratio;
use crate::report::attempts::used;
use crate::report::detail::{AttemptDetail, JobDetail, StepDetail};
use crate::report::given;
use crate::report::status_text::clock;
use crate::store::Store;
use crate::text::{harmless, short_digests, shorten, wrap};
use crate::units::{human_size, human_span};
use crate::why::text::disagreed;

/// The text of a job. `now` is the time that it is read; the store says how large logs are.
#[must_use]
pub fn text(detail: &JobDetail, store: &Store, now: Timestamp, width: usize) -> String {
    let result = &detail.result;
    let class = result.class.map_or("no class", |class| class.name());
    let open = if result.open { " (open: it may still change)" } else { "" };
    let mut text = format!("{}  {class}{open}\n", result.job);
    let mut fact = |name: &str, value: &str| {
        let lines = wrap(&short_digests(value), width.saturating_sub(12));
        text.push_str(&format!("  {name:9} {}\n", lines.join(&format!("\n{}", " ".repeat(12)))));
    };
    if let Some(ruling) = &result.ruling {
        let verdict = ruling.verdict.map_or("taken out", crate::class::Class::name);
        fact("ruling", &format!("{verdict} by a person: {}", ruling.because));
    }
    if let Some(subject) = &result.subject {
        fact("commit", subject);
    }
    if let Some(lacks) = &detail.lacks {
        fact("shown", lacks);
    }
    let idle = detail.next_action.as_ref().is_some_and(|next| next.starts_with("none"));
    if let Some(meaning) = detail.meaning.as_ref().filter(|_| idle) {
        fact("meaning", meaning);
    }
    if let Some(speedup) = result.speedup {
        let means = detail.speedup_means.as_ref().map_or_else(String::new, |means| format!(": {means}"));
        fact("speedup", &format!("{}x{means}", Ratio(speedup)));
    }
    for metric in &result.metrics {
        fact("metric", metric);
    }
    if let Some(human) = &result.human {
        fact("human", &human.text());
    }
    if let Some(owner) = result.owner {
        fact("owner", &owner.to_string());
    }
    if let Some(stage) = result.class.filter(|class| !class.usable()).map(|class| class.stage()) {
        fact("stage", stage);
    }
    if let Some(agent) = &result.agent {
        fact("agent", agent);
    }
    if let Some(cause) = &result.cause {
        let exit = result.exit.map_or_else(String::new, |exit| format!(", exit {exit}"));
        fact("cause", &format!("{cause}{exit}"));
    }
    if let Some(evidence) = &result.evidence {
        fact("evidence", evidence);
    }
    for mark in &result.marks {
        let means = detail.marks_mean.get(mark).map_or_else(String::new, |means| format!(": {means}"));
        fact("mark", &format!("{mark}{means}"));
    }
    if let Some(next) = detail.next_action.as_ref().filter(|_| !idle) {
        fact("next", &next.replace("JOB", result.job.as_str()));
    }
    if detail.steps.iter().any(|step| step.kind == "agent") {
        let because = detail.tokens_unknown_because.as_deref().unwrap_or_default();
        fact("tokens", &tokens(result.tokens, because));
        fact("spent", &spent(detail));
    }
    if let Some(explained) = &detail.explained {
        text.push('\n');
        for sentence in &explained.sentences {
            text.push_str(&format!("{}\n", wrap(sentence, width).join("\n")));
        }
        let sessions = [("Machine", &explained.guards), ("Machine of the second session", &explained.again_guards)];
        for (what, guards) in sessions {
            if let Some(guards) = guards {
                text.push_str(&format!("{}\n", wrap(&format!("{what}: {}.", guards.text), width).join("\n")));
            }
        }
        // Of a count the rules would say no more than the ratio does.
        if let Some(rules) = explained.point_rules.text().filter(|_| !explained.blocks.is_empty()) {
            let line = format!("The rules of others, in no verdict: {rules}.");
            text.push_str(&format!("{}\n", wrap(&line, width).join("\n")));
        }
        for row in explained.plot(width) {
            text.push_str(&format!("{row}\n"));
        }
    }
    let name = detail.steps.iter().map(|step| step.step.len()).max().unwrap_or(0);
    for step in &detail.steps {
        text.push('\n');
        tell_step(&mut text, step, result.job.as_str(), store, now, width, name);
    }
    harmless(&text)
}

fn tokens([input, output]: [Option<u64>; 2], because: &str) -> String {
    let side = |count: Option<u64>| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    match (input, output) {
        (None, None) => format!("unknown ({because})"),
        (Some(_), Some(_)) => format!("{} in, {} out", side(input), side(output)),
        _ => format!("{} in, {} out ({because})", side(input), side(output)),
    }
}

/// What all attempts of the job came to.
fn spent(detail: &JobDetail) -> String {
    let totals = &detail.spent;
    let attempts = if totals.attempts == 1 { "attempt" } else { "attempts" };
    let mut said = format!("{} by {} {attempts}", totals.cost_usd.text(), totals.attempts);
    if totals.unsettled > 0 {
        said.push_str(&format!(", {} of it by {} that settled nothing", totals.wasted_usd.text(), totals.unsettled));
    }
    let why = totals.cost_usd.why();
    if !why.is_empty() {
        said.push_str(&format!(" ({why})"));
    }
    if let Some(machine) = &detail.machine_usd {
        said.push_str(&format!("; machine {}", machine.text()));
    }
    said
}

fn tell_step(
    text: &mut String,
    step: &StepDetail,
    job: &str,
    store: &Store,
    now: Timestamp,
    width: usize,
    name: usize,
) {
    let because = step.because.as_ref().map_or_else(String::new, |because| format!(": {because}"));
    let lines = wrap(&short_digests(&format!("{}{because}", step.state)), width.saturating_sub(name + 2));
    let indent = format!("\n{}", " ".repeat(name + 2));
    text.push_str(&format!("{:name$}  {}\n", step.step, lines.join(&indent)));
    let several = step.attempts.len() > 1;
    for attempt in &step.attempts {
        tell_attempt(text, attempt, several, now, width);
    }
    for said in &step.disagreements {
        text.push_str(&format!("  {}\n", disagreed(said, width - 4).join("\n    ")));
    }
    for started in &step.under_way {
        text.push_str(&format!("  began {}  {}\n", clock(started.at, now), started.attempt));
    }
    let Some(chosen) = step.chosen() else { return };
    if let Some(size) = chosen.ended.outputs.get("size").and_then(Value::as_text) {
        let one = size.strip_prefix("1 files").map(|rest| format!("1 file{rest}"));
        text.push_str(&format!("  patch: {}\n", one.as_deref().unwrap_or(size)));
    } else if !chosen.ended.outputs.is_empty() && step.kind != "classify" {
        let left: Vec<&str> = chosen.ended.outputs.keys().map(String::as_str).collect();
        text.push_str(&format!("  {}\n", wrap(&format!("left: {}", left.join(", ")), width - 4).join("\n    ")));
    }
    for line in given::lines(&chosen.ended, store) {
        // What a configuration means may lie in how its lines are set in.
        let indent = line.len() - line.trim_start_matches(' ').len();
        let indent = &line[..indent.min(width / 2)];
        text.push_str(&format!("  {indent}{}\n", shorten(&line, width - 2 - indent.len())));
    }
    if let Some(sandbox) = &chosen.ended.sandbox {
        text.push_str(&format!("  {}\n", wrap(&format!("sandbox: {}", sandbox.text()), width - 4).join("\n    ")));
    }
    if let Some(network) = given::network(&chosen.ended, store) {
        text.push_str(&format!("  {}\n", wrap(&network, width - 4).join("\n    ")));
    }
    for line in given::integrity(&chosen.ended, store) {
        text.push_str(&format!("  {}\n", wrap(&line, width - 4).join("\n    ")));
    }
    for note in &chosen.ended.notes {
        text.push_str(&format!("  {}\n", wrap(&format!("note: {note}"), width - 4).join("\n    ")));
    }
    if !chosen.ended.logs.is_empty() {
        let logs: Vec<String> = chosen
            .ended
            .logs
            .iter()
            .map(|(stream, digest)| {
                let size = std::fs::metadata(store.cas.path(digest))
                    .map_or_else(|_| "gone".to_owned(), |meta| human_size(meta.len()));
                format!("{stream} ({size})")
            })
            .collect();
        text.push_str(&format!("  {}\n", wrap(&format!("logs: {}", logs.join(", ")), width - 4).join("\n    ")));
        text.push_str(&format!("    flow log {job} {}\n", step.step));
    }
}

fn tell_attempt(text: &mut String, attempt: &AttemptDetail, several: bool, now: Timestamp, width: usize) {
    let ended = &attempt.ended;
    let mut parts = vec![
        format!("{:>2}", attempt.number),
        format!("ended {}", clock(ended.at, now)),
        format!("took {}", human_span(Duration::from_millis(ended.wall_ms))),
        ended.outcome.word().to_owned(),
    ];
    if !ended.slots.is_empty() {
        parts.push(format!("on {}", ended.slots.join(", ")));
    }
    parts.push(format!("attempt {}", ended.attempt));
    if several && attempt.speaks {
        parts.push("(speaks for the step)".to_owned());
    }
    if !attempt.same_key {
        parts.push("(of other ingredients)".to_owned());
    }
    parts.extend(used(attempt));
    let mut line = String::new();
    for part in parts {
        if line.len() + part.len() + 4 > width && !line.is_empty() {
            text.push_str(&format!("  {line}\n"));
            line = " ".repeat(4);
        } else if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(&part);
    }
    text.push_str(&format!("  {line}\n"));
}
