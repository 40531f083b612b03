//! Progress of a run for people and for programs: plain lines off a terminal, bars on one, JSON where asked.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::event::{Event, Told};
use crate::names::Axes;
use crate::plan::{Plan, point_name};
use crate::report::jobs::JobResult;
use crate::run::dispatch::Observer;
use crate::units::human_span;

/// Every event as a line of JSON on standard output.
pub struct Json;

impl Observer for Json {
    fn see(&mut self, told: &Told) {
        if let Ok(line) = serde_json::to_string(told) {
            let mut out = std::io::stdout().lock();
            // A reader that went away does not end the run: what it would have read is in the journal.
            let _ = writeln!(out, "{line}");
            let _ = out.flush();
        }
    }
}

/// What suits standard error: bars on a terminal, else a line for each executed action.
#[must_use]
pub fn for_terminal(plan: &Plan, wanted: &[bool]) -> Box<dyn Observer> {
    if std::io::stderr().is_terminal() { Box::new(Bars::new(plan, wanted)) } else { Box::new(Plain) }
}

fn title(axes: &Axes, step: &str) -> String {
    let point = point_name(axes);
    if point.is_empty() { step.to_owned() } else { format!("{point} {step}") }
}

/// A line for each thing that took time or went wrong.
fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { run, pipeline, jobs, actions, .. } => {
            format!("run {run} of {pipeline}: {jobs} jobs, {actions} actions")
        }
        Event::Notice { text } => format!("note: {text}"),
        Event::ActionSettled { axes, step, cached: false, outcome, evidence, wall_ms, .. } => {
            let took = human_span(Duration::from_millis(*wall_ms));
            let evidence = evidence.as_ref().map_or_else(String::new, |evidence| format!(": {evidence}"));
            format!("{}  {outcome} in {took}{evidence}", title(axes, step))
        }
        Event::AttemptFailed { axes, step, outcome, evidence, again, .. } => {
            let then = if *again { "; it is tried again" } else { "" };
            format!("{}  {outcome}, not settled: {evidence}{then}", title(axes, step))
        }
        Event::ActionOver { axes, step, end, because, .. } if end == "open" => {
            format!("{}  not settled: {because}", title(axes, step))
        }
        Event::JobSettled { job, class } => format!("{job}  {class}"),
        Event::Draining { running } => {
            format!("stopping: nothing more is begun, {running} actions may finish; once more kills them")
        }
        _ => return None,
    })
}

/// Off a terminal: plain lines.
struct Plain;

impl Observer for Plain {
    fn see(&mut self, told: &Told) {
        if let Some(line) = line(&told.event) {
            eprintln!("{line}");
        }
    }
}

/// On a terminal: a bar for each step, and a line for what runs where since when.
struct Bars {
    all: MultiProgress,
    steps: BTreeMap<String, ProgressBar>,
    now: ProgressBar,
    running: BTreeMap<usize, (String, Instant)>,
    seconds: BTreeMap<String, (f64, u32)>,
    left: BTreeMap<String, u64>,
}

impl Bars {
    fn new(plan: &Plan, wanted: &[bool]) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix:12} {bar:24} {pos:>5}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let mut steps = BTreeMap::new();
        let mut left = BTreeMap::new();
        for (index, step) in plan.manifest.pipeline.steps.iter().enumerate() {
            let count = (0..plan.nodes.len()).filter(|node| wanted[*node] && plan.nodes[*node].step == index).count();
            let name = step.name.value.to_string();
            let bar = all.add(ProgressBar::new(count as u64).with_style(style.clone()));
            bar.set_prefix(name.clone());
            left.insert(name.clone(), count as u64);
            steps.insert(name, bar);
        }
        let spinner = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let now = all.add(ProgressBar::new_spinner().with_style(spinner));
        now.enable_steady_tick(Duration::from_secs(1));
        Self { all, steps, now, running: BTreeMap::new(), seconds: BTreeMap::new(), left }
    }

    fn say(&self, line: &str) {
        // `println` of a bar prints nothing where the terminal went away; `suspend` always runs.
        self.all.suspend(|| eprintln!("{line}"));
    }

    fn over(&mut self, node: usize, step: &str) {
        self.running.remove(&node);
        if let Some(bar) = self.steps.get(step) {
            bar.inc(1);
        }
        if let Some(left) = self.left.get_mut(step) {
            *left = left.saturating_sub(1);
        }
        self.show();
    }

    fn show(&self) {
        let mut lines: Vec<String> = self
            .running
            .values()
            .take(8)
            .map(|(what, since)| format!("  {what}, {}", human_span(since.elapsed())))
            .collect();
        if self.running.len() > 8 {
            lines.push(format!("  and {} more", self.running.len() - 8));
        }
        lines.push(self.time_left());
        self.now.set_message(lines.join("\n"));
    }

    /// From what this run's own actions of each step took; nothing is said of steps of which none has ended.
    fn time_left(&self) -> String {
        let mut seconds = 0.0;
        let mut blind = Vec::new();
        for (step, left) in self.left.iter().filter(|(_, left)| **left > 0) {
            match self.seconds.get(step) {
                Some((sum, count)) if *count > 0 => seconds += sum / f64::from(*count) * (*left as f64),
                _ => blind.push(step.as_str()),
            }
        }
        let width = self.running.len().max(1) as f64;
        let about = human_span(Duration::from_secs_f64((seconds / width).min(1e9)));
        match blind.as_slice() {
            [] if seconds == 0.0 => String::new(),
            [] => format!("about {about} left, if the rest takes what the executed ones took"),
            _ => format!("at least {about} left; unknown for {}", blind.join(", ")),
        }
    }
}

impl Observer for Bars {
    fn see(&mut self, told: &Told) {
        match &told.event {
            Event::ActionStarted { node, axes, step, slots, .. } => {
                let on = if slots.is_empty() { String::new() } else { format!(" on {}", slots.join(", ")) };
                self.running.insert(*node, (format!("{}{on}", title(axes, step)), Instant::now()));
                self.show();
            }
            Event::ActionSettled { node, step, cached, wall_ms, .. } => {
                if !cached {
                    let known = self.seconds.entry(step.clone()).or_default();
                    known.0 += Duration::from_millis(*wall_ms).as_secs_f64();
                    known.1 += 1;
                }
                self.over(*node, step);
            }
            Event::ActionOver { node, step, .. } => self.over(*node, step),
            Event::RunFinished { .. } => {
                self.now.finish_and_clear();
                for bar in self.steps.values() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        if !matches!(told.event, Event::ActionSettled { .. })
            && let Some(line) = line(&told.event)
        {
            self.say(&line);
        }
    }
}

/// After the table: what to do about jobs that are not settled.
pub fn next_steps(results: &[JobResult], manifest: &Path) {
    if results.iter().any(|result| result.open) {
        eprintln!("some jobs are not settled: `flow run {}` takes up the rest", manifest.display());
    }
}
