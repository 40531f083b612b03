//! How a run stands, as text.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::status::Status;
use crate::event::Paused;
use crate::names::Axes;
use crate::plan::point_name;
use crate::text::{Table, counted, shell, short_digests, shorten, wrap};
use crate::units::human_span;

impl Status {
    /// The status for people; `now` is the time that it is read.
    #[must_use]
    pub fn text(&self, now: Timestamp, width: usize) -> String {
        let mut text = String::new();
        let pipeline = if self.pipeline.is_empty() { String::new() } else { format!(" of {}", self.pipeline) };
        let head = format!("run {}{pipeline}: {}", self.run, self.headline());
        text.push_str(&format!("{}\n", wrap(&head, width - 4).join("\n    ")));
        if !self.manifest.as_os_str().is_empty() {
            text.push_str(&format!("  manifest  {}\n", self.manifest.display()));
        }
        if let Some(git) = &self.git {
            let commit = git.commit.as_ref().map_or("no commit yet", |id| id.as_str().get(..8).unwrap_or_default());
            text.push_str(&format!("  commit    {commit}\n"));
            if let Some(warning) = git.warning() {
                text.push_str(&format!("  {}\n", wrap(&warning, width.saturating_sub(2)).join("\n  ")));
            }
        }
        if let Some(began) = self.began {
            let last = self.last.unwrap_or(began);
            let lasted = match self.state {
                "running" => format!("for {}", span(began, now)),
                // When it was killed nobody wrote down.
                "died" => format!("its last word came {} later", span(began, last)),
                _ => format!("took {}", span(began, last)),
            };
            let said = wrap(&format!("{}, {lasted}", clock(began, now)), width - 12);
            text.push_str(&format!("  began     {}\n", said.join(&format!("\n{:12}", ""))));
        }
        if self.state == "died" {
            let died =
                "It ended without saying so: killed, or the machine went down. Nothing that was settled is lost.";
            text.push_str(&format!("  {}\n", wrap(died, width.saturating_sub(2)).join("\n  ")));
        }
        if self.state != "running" && self.exit != Some(0) && !self.manifest.as_os_str().is_empty() {
            let words = ["flow".to_owned(), "run".to_owned(), self.manifest.display().to_string()];
            let options = match self.asks_for_retry {
                true => {
                    without_retry(&self.options).into_iter().chain(["--retry".to_owned(), "*".to_owned()]).collect()
                }
                false => self.options.clone(),
            };
            text.push_str(&format!("  goes on   {}\n", shell(words.into_iter().chain(options))));
        }
        self.table(&mut text, width);
        self.tell_running(&mut text, now, width);
        self.tell_waiting(&mut text, now, width);
        if self.state == "finished" || !self.classes.is_empty() {
            text.push_str(&format!("\n{} of {} settled\n", self.settled, counted(self.jobs, "job")));
        }
        let mut classes: Vec<(&String, &usize)> = self.classes.iter().collect();
        classes.sort_by_key(|(class, count)| (std::cmp::Reverse(**count), (*class).clone()));
        for (class, count) in classes {
            text.push_str(&format!("  {count:>4}  {class}\n"));
        }
        let mut against: BTreeMap<&str, usize> = BTreeMap::new();
        for human in self.human.values() {
            *against.entry(&human.says).or_default() += 1;
        }
        if !against.is_empty() {
            text.push_str("\nagainst the human's change, same session\n");
        }
        for (says, count) in against {
            text.push_str(&format!("  {count:>4}  {says}\n"));
        }
        for (mark, count) in &self.marks {
            text.push_str(&format!("  {count:>4}  marked {mark}\n"));
        }
        if !self.open.is_empty() {
            text.push_str("\nleft open\n");
        }
        let mut open: Vec<(&String, &usize)> = self.open.iter().collect();
        open.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (because, count) in open.iter().take(REASONS) {
            let lines = wrap(&short_digests(because), width.saturating_sub(8));
            text.push_str(&format!("  {count:>4}  {}\n", lines.join("\n        ")));
        }
        if open.len() > REASONS {
            text.push_str(&format!("  and {} other reasons\n", open.len() - REASONS));
        }
        if !self.failures.is_empty() {
            text.push_str("\nlast failures\n");
        }
        for failure in &self.failures {
            let lead = format!("  {}  {}: ", title(&failure.axes, &failure.step), failure.cause);
            let lines = wrap(&short_digests(&format!("{lead}{}", failure.evidence)), width - 4);
            text.push_str(&format!("  {}\n", lines.join("\n    ")));
        }
        text
    }

    fn headline(&self) -> String {
        match (self.state, self.exit) {
            ("running", _) if self.began.is_none() => "is making its plan".to_owned(),
            ("running", _) => "running".to_owned(),
            ("died", _) => "died".to_owned(),
            (_, Some(0)) => "finished, exit 0: all jobs are settled".to_owned(),
            (_, Some(130)) => "stopped by somebody, exit 130: the same command goes on".to_owned(),
            (_, Some(exit)) => format!("finished, exit {exit}: some jobs are not settled"),
            (_, None) => "finished".to_owned(),
        }
    }

    fn table(&self, text: &mut String, width: usize) {
        if self.steps.is_empty() {
            return;
        }
        let heads = ["step", "waiting", "running", "done", "left", "of these executed", "no success"];
        let name = self.steps.iter().map(|step| step.step.len()).max().unwrap_or(0);
        let short = ["step", "wait", "run", "done", "left", "exec", "fail"];
        let wide = name.max(4) + heads[1..].iter().map(|head| head.len() + 2).sum::<usize>();
        let mut table = Table::new(if wide <= width { &heads } else { &short }).right(1..7);
        let figure = |count: usize| if count == 0 { ".".to_owned() } else { count.to_string() };
        for step in &self.steps {
            let figures = [step.waiting, step.running, step.done, step.left, step.executed, step.failed].map(figure);
            table.row(std::iter::once(step.step.clone()).chain(figures).collect());
        }
        text.push_str(&format!("\n{}", table.text()));
    }

    /// The lanes that are closed, the candidates that are paused, and what is tried again later.
    fn tell_waiting(&self, text: &mut String, now: Timestamp, width: usize) {
        let mut lines = Vec::new();
        for lane in &self.lanes {
            let again = lane.again.filter(|again| self.state == "running" && *again > now);
            let again = again.map_or_else(String::new, |again| format!("; tried again in {}", span(now, again)));
            lines.push(format!(
                "lane {} is closed since {}: {}: {}; {}{again}",
                lane.lane,
                clock(lane.since, now),
                lane.cause,
                lane.evidence,
                lane.remedy
            ));
        }
        for paused in &self.paused {
            let Paused { candidate, cause, evidence, remedy, .. } = paused;
            lines.push(format!("candidate {candidate} is paused: {cause}: {evidence}; {remedy}"));
        }
        for retry in self.retries.iter().filter(|_| self.state == "running") {
            let when = if retry.at > now { format!("in {}", span(now, retry.at)) } else { "soon".to_owned() };
            lines.push(format!("{}: tried again {when}, after {}", title(&retry.axes, &retry.step), retry.cause));
        }
        if !lines.is_empty() {
            text.push_str("\nwaits\n");
        }
        for line in lines {
            text.push_str(&format!("  {}\n", wrap(&short_digests(&line), width - 4).join("\n    ")));
        }
    }

    fn tell_running(&self, text: &mut String, now: Timestamp, width: usize) {
        if self.running.is_empty() {
            return;
        }
        text.push_str(if self.state == "running" { "\nrunning now\n" } else { "\nunder way when it ended\n" });
        for running in &self.running {
            let on =
                if running.slots.is_empty() { String::new() } else { format!("on {}, ", running.slots.join(", ")) };
            let since = format!("{on}since {}", clock(running.since, now));
            let lasts = if self.state == "running" { format!(", {}", span(running.since, now)) } else { String::new() };
            let room = width.saturating_sub(since.len() + lasts.len() + 4);
            text.push_str(&format!("  {}  {since}{lasts}\n", shorten(&title(&running.axes, &running.step), room)));
        }
    }
}

/// How many reasons are shown for which actions were left open.
const REASONS: usize = 8;

/// The options of a run without what it tried again: what is to be tried the next time is named anew.
#[must_use]
pub fn without_retry(options: &[String]) -> Vec<String> {
    let mut options = options.to_vec();
    while let Some(at) = options.iter().position(|option| option == "--retry") {
        options.drain(at..(at + 2).min(options.len()));
    }
    options
}

/// What a message calls an action.
#[must_use]
pub fn title(axes: &Axes, step: &str) -> String {
    let point = point_name(axes);
    if point.is_empty() { step.to_owned() } else { format!("{point} {step}") }
}

/// How long it was from one time to another.
#[must_use]
pub fn span(from: Timestamp, to: Timestamp) -> String {
    human_span(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

/// A time of this machine's clock on the wall: only the time of day if it is today.
#[must_use]
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let zone = jiff::tz::TimeZone::system();
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let today = at.date() == now.date();
    at.strftime(if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}
