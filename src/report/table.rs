//! Tables of results for a terminal: readable without colour, at 80 columns, by somebody who sees one for the first time.
//!
//! Says what is in the results and computes no rates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use unicode_width::UnicodeWidthStr;

use crate::class::Class;
use crate::event::Event;
use crate::measure::analysis::Ratio;
use crate::outcome::Owner;
use crate::report::held;
use crate::report::human::SAME_SESSION;
use crate::report::jobs::{JobResult, Left};
use crate::report::marks;
use crate::text::{Table, counted, short_digests, shorten, wrap};

/// What is left for what happened, however narrow the terminal is.
const LEAST: usize = 24;
/// The most lines of what happened.
const FEW: usize = 3;

/// One line a job, the jobs of a commit together under its subject.
#[must_use]
pub fn results(results: &[JobResult], width: usize) -> String {
    let group_of = |result: &JobResult| {
        let name = result.job.as_str();
        // `repo/commit8/`, which with the row's `candidate/sample` is the job's full name.
        let cut = name.match_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
        if result.axes.get("commit").is_some() { name[..cut].to_owned() } else { String::new() }
    };
    let grouped = results.iter().any(|result| result.axes.get("commit").is_some());
    let mut rows: Vec<(String, [String; 4])> = Vec::new();
    for result in results {
        let group = group_of(result);
        let name = result.job.as_str()[group.len()..].to_owned();
        let name = if group.is_empty() { name } else { format!("  {name}") };
        let mut class = result.class.map_or_else(|| plain_word(result).to_owned(), |class| class.name().to_owned());
        if result.open && result.class.is_some_and(|class| class != Class::NotRun) {
            class.push_str(" (open)");
        }
        let speedup = result.speedup.map_or_else(String::new, |speedup| format!("{}x", Ratio(speedup)));
        rows.push((group, [name, class, speedup, happened(result)]));
    }
    let heading = ["job", "class", "speedup", "what happened"];
    let room = |column: usize| {
        let cells = rows.iter().map(|(_, cells)| cells[column].width());
        cells.chain([heading[column].width()]).max().unwrap_or(0) + 2
    };
    let left = width.saturating_sub(room(0) + room(1) + room(2)).max(LEAST);
    let mut table = Table::new(&heading).right([2]);
    let mut subjects = Vec::new();
    let mut last = None;
    for (result, (group, cells)) in results.iter().zip(rows) {
        if grouped && last.as_ref() != Some(&group) {
            subjects.push(match &result.subject {
                Some(subject) => format!("{group}  {}", shorten(subject, width.saturating_sub(group.width() + 2))),
                None => group.clone(),
            });
            last = Some(group);
        } else {
            subjects.push(String::new());
        }
        let [name, class, speedup, what] = cells;
        let mut what = few_lines(&what, left).into_iter();
        table.row(vec![name, class, speedup, what.next().unwrap_or_default()]);
        for more in what {
            subjects.push(String::new());
            table.row(vec![String::new(), String::new(), String::new(), more]);
        }
    }
    let text = table.text();
    let mut lines = text.lines();
    let mut out = egress(results);
    out.push_str(lines.next().unwrap_or_default());
    out.push('\n');
    for (subject, line) in subjects.iter().zip(lines) {
        if !subject.is_empty() {
            out.push_str(subject);
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// The line above a table that tells of open networks; nothing where there is none.
fn egress(results: &[JobResult]) -> String {
    let open = |result: &&JobResult| result.marks.iter().any(|mark| mark == held::EGRESS_OPEN);
    match results.iter().filter(open).count() {
        0 => String::new(),
        n if n == results.len() => format!("the agents' network was open: {}\n", held::EGRESS_OPEN),
        n => format!("the agents' network was open in {n} of {} jobs: {}\n", results.len(), held::EGRESS_OPEN),
    }
}

/// A text in at most three lines: enough to tell what happened, and `flow show` tells the rest.
fn few_lines(text: &str, width: usize) -> Vec<String> {
    let mut lines = wrap(&short_digests(text), width);
    let rest = lines.split_off(lines.len().min(FEW - 1));
    let mut shown: Vec<String> = lines.iter().map(|line| shorten(line, width)).collect();
    if !rest.is_empty() {
        shown.push(shorten(&rest.join(" "), width));
    }
    shown
}

/// The word for a job without a class.
fn plain_word(result: &JobResult) -> &'static str {
    match (result.open, &result.cause) {
        (true, _) => "not settled",
        (false, Some(_)) => "failed",
        (false, None) => "done",
    }
}

/// What is worth saying of a job in one line: how its agent ended if badly, its marks, then the measurement or the failure.
fn happened(result: &JobResult) -> String {
    let mut parts = Vec::new();
    if let Some(agent) = result.agent.as_deref().filter(|agent| *agent != "finished")
        && result.class.is_some_and(|class| class.stage() != "agent")
    {
        parts.push(format!("agent: {agent}"));
    }
    // The heading says it of all.
    for mark in result.marks.iter().filter(|mark| *mark != held::EGRESS_OPEN) {
        parts.push(if mark == "SAME_AS_HUMAN" { "same as human".to_owned() } else { mark.clone() });
    }
    let mut evidence = result.evidence.clone().unwrap_or_default();
    match (result.left, &result.cause, &result.see) {
        (Some(Left::UsedUp { counted, .. }), Some(cause), Some(step)) => {
            let times = if counted == 1 { "once".to_owned() } else { format!("{counted} times") };
            evidence = format!("{step} ended in {cause} {times}: {evidence}");
        }
        (Some(Left::Again(_) | Left::Reopened(_)), Some(cause), Some(step)) => {
            evidence = format!("{step} ended in {cause}: {evidence}")
        }
        // A class of many causes.
        (None, Some(cause), Some(_)) if result.next.is_some() && result.class.is_some_and(|c| c.name() != cause) => {
            evidence = format!("{cause}: {evidence}");
        }
        _ => {}
    }
    match (result.speedup, result.ci, evidence.split_once(' ')) {
        // The ratio has a column of its own.
        (Some(_), Some(_), Some((_, rest))) => {
            parts.push(format!("{} {rest}", result.level.as_deref().unwrap_or("interval")));
        }
        (Some(_), None, Some((_, "exact"))) => parts.push("exact count".to_owned()),
        // What only repeats the class says nothing.
        _ => parts.push(match (result.class, evidence.split_once(": ")) {
            (Some(class), Some((first, rest))) if first == class.name() => rest.to_owned(),
            _ => evidence,
        }),
    }
    if let Some(human) = result.human.as_ref().filter(|human| human.measured == SAME_SESSION) {
        parts.push(format!("{} the human's", human.says));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// What the legend tells apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line<'a> {
    class: Class,
    open: bool,
    owner: Option<Owner>,
    means: Cow<'a, str>,
}

/// How many jobs improved, and what each class that occurs means: whose doing, and what to do.
#[must_use]
pub fn legend(results: &[JobResult], width: usize) -> String {
    let mut text = String::new();
    // What is settled, what may still change, and what the same command does nothing more for are counted apart.
    let mut classes: BTreeMap<Line<'_>, usize> = BTreeMap::new();
    for result in results {
        let Some(class) = result.class else { continue };
        let open = result.open && class != Class::NotRun;
        let means = match (result.left, &result.next) {
            // Of several causes each has its own remedy, and so its own line.
            (Some(Left::UsedUp { .. }), Some(next)) => {
                Cow::Owned(format!("{}: {next}", result.cause.as_deref().unwrap_or(class.name())))
            }
            (Some(Left::Reopened(_)), _) => {
                "today's tables reopened what had settled: `--retry JOB` draws it again".into()
            }
            (Some(Left::Again(_) | Left::Held(_)), Some(next)) => next.as_str().into(),
            (None, Some(next)) if !open => next.as_str().into(),
            _ if open => "so far; run the same command again".into(),
            _ => meaning(class).into(),
        };
        *classes.entry(Line { class, open, owner: result.owner, means }).or_default() += 1;
    }
    let mut counted: Vec<(Line<'_>, usize)> = classes.into_iter().collect();
    counted.sort_by(|(what, count), (other, more)| more.cmp(count).then_with(|| what.cmp(other)));
    let title = |line: &Line<'_>| format!("{}{}", line.class, if line.open { " (open)" } else { "" });
    let name = counted.iter().map(|(line, _)| title(line).width()).max().unwrap_or(0);
    let owner = counted.iter().map(|(line, _)| owned(line.owner).width()).max().unwrap_or(0);
    if !counted.is_empty() {
        text.push_str("\nclass, jobs, whose doing it is, and what it means or asks for\n");
    }
    let indent = name + owner + 11;
    for (line, count) in counted {
        let words = wrap(&line.means, width.saturating_sub(indent).max(LEAST));
        let lead = format!("  {:name$} {count:>4}  {:owner$}  ", title(&line), owned(line.owner));
        text.push_str(&format!("{lead}{}\n", words.join(&format!("\n{}", " ".repeat(lead.width())))));
    }
    let known: BTreeSet<&str> = results.iter().flat_map(|result| &result.marks).map(String::as_str).collect();
    for mark in known {
        if let Some(meaning) = marks::meaning(mark) {
            let name = if mark == "SAME_AS_HUMAN" { "same as human" } else { mark };
            let lines = wrap(&format!("{name}: {meaning}"), width.saturating_sub(2));
            text.push_str(&format!("  {}\n", lines.join("\n    ")));
        }
    }
    if results.iter().any(|result| result.speedup.is_some()) {
        let words =
            "speedup: base divided by patched, so above 1x is better; `98.42 % [a, b]` is its interval at that level";
        text.push_str(&format!("  {}\n", wrap(words, width.saturating_sub(2)).join("\n    ")));
    }
    text
}

fn owned(owner: Option<Owner>) -> String {
    owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string())
}

/// The next action of a class as the table says it: what a class without one means.
#[must_use]
pub fn meaning(class: Class) -> &'static str {
    let next = class.next_action();
    next.strip_prefix("none for this draw: ").or_else(|| next.strip_prefix("none: ")).unwrap_or(next)
}

/// How many jobs improved, and what the run did.
#[must_use]
pub fn summary(results: &[JobResult], finished: Option<&Event>, width: usize) -> String {
    let of = |class: Class| results.iter().filter(|result| result.class == Some(class) && !result.open).count();
    let open = results.iter().filter(|result| result.open).count();
    let mut parts = Vec::new();
    if results.iter().any(|result| result.class.is_some()) {
        let all = counted(results.len(), "job");
        parts.push(format!("{} of {all} improved", of(Class::SuccessImprovement)));
        let others = [
            (Class::SuccessNeutral, "neutral"),
            (Class::SuccessRegression, "slower"),
            (Class::Inconclusive, "inconclusive"),
            (Class::Mixed, "mixed"),
        ];
        let mut rest = results.len() - of(Class::SuccessImprovement) - open;
        for (class, word) in others {
            rest -= of(class);
            if of(class) > 0 {
                parts.push(format!("{} {word}", of(class)));
            }
        }
        if rest > 0 {
            parts.push(format!("{rest} without a measurement"));
        }
    } else {
        let failed = results.iter().filter(|result| result.cause.is_some() && !result.open).count();
        parts.push(format!("{}, {failed} failed", counted(results.len(), "job")));
    }
    if open > 0 {
        parts.push(format!("{open} not settled"));
    }
    let mut text = format!("\n{}\n", wrap(&parts.join(", "), width).join("\n  "));
    if let Some(Event::RunFinished { run, actions, .. }) = finished {
        let reused = if actions.reused > 0 { format!("{} reused, ", actions.reused) } else { String::new() };
        // An agent that changed nothing and a target that is absent are results: nothing went wrong with the run.
        let by_failure = actions.failed.saturating_sub(actions.unsettled);
        let counts = [(by_failure, "settled by a failure"), (actions.unsettled, "not settled")];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let failed = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
        let lost = match actions.attempts_lost {
            0 => String::new(),
            lost => format!("; {} settled nothing", counted(lost, "attempt")),
        };
        let said = format!(
            "run {run}: {}: {} executed{failed}, {} cached, {reused}{} skipped, {} blocked{lost}",
            counted(actions.total, "action"),
            actions.executed,
            actions.cached,
            actions.skipped,
            actions.blocked
        );
        text.push_str(&format!("{}\n", wrap(&said, width).join("\n  ")));
    }
    text
}
