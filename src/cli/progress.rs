//! Progress of a run for people and for programs: plain lines off a terminal, bars on one, JSON where asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use unicode_width::UnicodeWidthStr;

use crate::cli::fault::Fault;
use crate::cli::output;
use crate::event::{Event, Told};
use crate::manifest::Kind;
use crate::measure::analysis::Ratio;
use crate::names::Axes;
use crate::plan::{Plan, point_name};
use crate::run::dispatch::Observer;
use crate::text::{counted, short_digests, shorten};
use crate::units::human_span;
use crate::why::text::cut;

/// How many running actions are shown.
const SHOWN: usize = 8;
/// How often the screen is drawn though nothing happened.
const TICK: Duration = Duration::from_millis(1000);
/// At most so often a second.
const HZ: u8 = 4;

/// Every event as a line of JSON on standard output.
#[derive(Default)]
pub struct Json {
    lost: Lost,
}

/// Why events could not be printed, once they could not.
#[derive(Clone, Default)]
pub struct Lost(Arc<OnceLock<std::io::Error>>);

impl Lost {
    /// The fault to end with when the run is over. A reader that went away is none: it has read what it wanted.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.0.get().filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe).map(output::unwritable)
    }
}

impl Json {
    /// What is known of events that could not be printed: for when the run is over and this is gone.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.lost.clone()
    }
}

impl Observer for Json {
    fn see(&mut self, told: &Told) {
        // The run goes on all the same: what would have been read is in the journal. But nothing is printed after a gap.
        if self.lost.0.get().is_some() {
            return;
        }
        if let Ok(line) = serde_json::to_string(told)
            && let Err(error) = output::write(line + "\n")
        {
            let _ = self.lost.0.set(error);
        }
    }
}

/// What suits standard error: bars on a terminal, else a line for each thing that took time or went wrong.
#[must_use]
pub fn for_terminal(plan: &Arc<Plan>, wanted: &[bool]) -> Box<dyn Observer> {
    if std::io::stderr().is_terminal() {
        Box::new(Bars::new(plan.clone(), wanted))
    } else {
        Box::new(Plain { plan: plan.clone(), told: BTreeSet::new(), builds: Spaced::default() })
    }
}

fn title(axes: &Axes, step: &str) -> String {
    let point = point_name(axes);
    if point.is_empty() { step.to_owned() } else { format!("{point} {step}") }
}

/// Whether executing an action takes time, so that its end is worth a line however it went.
fn takes_time(plan: &Plan, node: usize) -> bool {
    plan.nodes.get(node).is_some_and(|_| matches!(plan.kind(node), Kind::Agent | Kind::Test | Kind::Command))
}

/// A line for each thing that took time or went wrong, and for the class of each job that is new.
fn line(plan: &Plan, event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { run, pipeline, jobs, actions, .. } => {
            format!("run {run} of {pipeline}: {}, {}", counted(*jobs, "job"), counted(*actions, "action"))
        }
        Event::Notice { text } => format!("note: {text}"),
        Event::ActionSettled { node, axes, step, cached: false, outcome, evidence, wall_ms, .. }
            if evidence.is_some() || takes_time(plan, *node) =>
        {
            let took = human_span(Duration::from_millis(*wall_ms));
            let word = if evidence.is_none() { "done" } else { outcome };
            let evidence = evidence.as_ref().map_or_else(String::new, |evidence| {
                format!(": {}", evidence.strip_prefix(&format!("{outcome}: ")).unwrap_or(evidence))
            });
            format!("{}  {word} in {took}{}", title(axes, step), short_digests(&evidence))
        }
        Event::AttemptFailed { axes, step, outcome, evidence, again, retry_in_ms, .. } => {
            let then = match retry_in_ms {
                Some(ms) => format!("; it retries in {}", human_span(Duration::from_millis(*ms))),
                None if *again => "; it waits for its lane; the attempt is not counted".to_owned(),
                None => String::new(),
            };
            let evidence = short_digests(evidence);
            format!("{}  {outcome}, not settled: {}{then}", title(axes, step), sentence(&evidence))
        }
        Event::AttemptDelayed { axes, step, outcome, evidence, retry_in_ms, .. } => {
            let then = human_span(Duration::from_millis(*retry_in_ms));
            let evidence = short_digests(evidence);
            format!(
                "{}  {outcome} a while ago: {}; it retries in {then}, with --retry at once",
                title(axes, step),
                sentence(&evidence)
            )
        }
        // What waits is told by what it waits for.
        Event::ActionOver { axes, step, end, because, .. } if end == "open" && !because.starts_with("waits for ") => {
            format!("{}  not settled: {because}", title(axes, step))
        }
        Event::JobSettled { job, class, speedup, marks, cached: false, .. } => {
            let speedup = speedup.map_or_else(String::new, |speedup| format!(" {}x", Ratio(speedup)));
            let marks: String = marks.iter().map(|mark| format!(" {mark}")).collect();
            format!("{job}  {class}{speedup}{marks}")
        }
        Event::LaneClosed { lane, cause, evidence, remedy, stopped, tries, again_in_ms } => {
            let again = human_span(Duration::from_millis(*again_in_ms));
            if *tries > 0 {
                format!(
                    "lane {lane} is still closed: {cause}: {}; the next try is in {again} at the earliest",
                    sentence(evidence)
                )
            } else {
                let stopped = match stopped {
                    0 => String::new(),
                    1 => "; 1 agent under way is stopped, not counted".to_owned(),
                    n => format!("; {n} agents under way are stopped, not counted"),
                };
                let evidence = sentence(evidence);
                format!(
                    "lane {lane} closed: {cause}: {evidence}; {remedy}{stopped}. Its jobs wait unharmed; the next try is in {again} at \
                     the earliest, if the run is at work then: `--wait` makes it stay"
                )
            }
        }
        Event::LaneOpened { lane, trial: true, .. } => format!("lane {lane}: one agent goes first, to try"),
        Event::LaneOpened { lane, trial: false, .. } => format!("lane {lane} is open again"),
        Event::LaneNarrowed { lane, width } => {
            format!("lane {lane}: the provider asks for patience; {width} at once for a while")
        }
        Event::LaneExpires { lane, until, expected_ms } => {
            let needs = expected_ms.map_or_else(String::new, |ms| {
                format!(", and an agent may take {}", human_span(Duration::from_millis(ms)))
            });
            format!("lane {lane}: its credential expires at {until}{needs}: jobs wait until it is renewed")
        }
        Event::Breaker { candidate, cause, count, of, canary, evidence, remedy, overridden } => {
            let which = match (*of, *canary) {
                (1, _) => String::new(),
                (of, true) => format!(" in all of its first {of} jobs"),
                (of, false) => format!(" in {count} of the last {of} ends"),
            };
            let then = if *overridden { "it goes on, as --continue says".to_owned() } else { remedy.clone() };
            let word = if *overridden { "would be" } else { "is" };
            format!("candidate {candidate} {word} paused: {cause}{which}: {evidence}; {then}")
        }
        Event::BudgetReached { limit, because, .. } if limit != "per-job" => because.clone(),
        Event::Draining { running } => {
            format!("stopping: nothing more is begun, {running} actions may finish; once more kills them")
        }
        _ => return None,
    })
}

/// The widest a line of an action's end is off a terminal, in columns; `flow show` has all of it.
const WIDEST: usize = 160;
/// Off a terminal a build is told of no more often, in milliseconds.
const SPACE_MS: u64 = 30_000;
/// So much is told again of what was told before, in columns.
const AGAIN: usize = 48;

/// Off a terminal: plain lines.
struct Plain {
    plan: Arc<Plan>,
    told: BTreeSet<String>,
    builds: Spaced,
}

/// When each build was told of last, by how long it had been at work.
#[derive(Default)]
struct Spaced(BTreeMap<usize, u64>);

impl Spaced {
    /// Whether it is time to tell of one again; notes that it is told.
    fn due(&mut self, node: usize, wall_ms: u64) -> bool {
        let last = self.0.entry(node).or_insert(0);
        // A later attempt begins anew.
        *last = if wall_ms < *last { 0 } else { *last };
        let due = wall_ms - *last >= SPACE_MS;
        *last = if due { wall_ms } else { *last };
        due
    }
}

impl Observer for Plain {
    fn see(&mut self, told: &Told) {
        if let Event::ActionProgress { node, axes, step, line, wall_ms } = &told.event {
            if self.builds.due(*node, *wall_ms) {
                let since = human_span(Duration::from_millis(*wall_ms));
                output::say(&cut(&format!("{}  {since}: {line}", title(axes, step)), WIDEST));
            }
            return;
        }
        let Some(line) = line(&self.plan, &told.event) else { return };
        match &told.event {
            // Of the others that one thing keeps it is not told at length again.
            Event::ActionOver { axes, step, because, .. } if !self.told.insert(because.clone()) => {
                output::say(&format!("{}  not settled: {}", title(axes, step), shorten(because, AGAIN)));
            }
            Event::ActionOver { .. } | Event::ActionSettled { .. } => output::say(&cut(&line, WIDEST)),
            _ => output::say(&line),
        }
    }
}

/// On a terminal: a bar for each step, and a line for what runs where since when.
struct Bars {
    plan: Arc<Plan>,
    all: MultiProgress,
    steps: BTreeMap<String, ProgressBar>,
    now: ProgressBar,
    view: Arc<Mutex<View>>,
}

/// What the lines below the bars are made of. Shared with whoever draws them, since time passes between events too.
struct View {
    began: Instant,
    running: BTreeMap<usize, Running>,
    /// For each step that takes time, in order.
    steps: Vec<Stage>,
}

struct Running {
    what: String,
    slots: String,
    step: String,
    since: Instant,
    /// What it printed last.
    said: String,
}

struct Stage {
    name: String,
    left: u32,
    executed: u32,
    seconds: f64,
    failed: u32,
    slow: bool,
}

impl Bars {
    fn new(plan: Arc<Plan>, wanted: &[bool]) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(HZ));
        let names = plan.manifest.pipeline.steps.iter().map(|step| step.name.value.as_str().len());
        let template =
            format!("{{prefix:{}}} {{bar:20}} {{pos:>5}}/{{len:<5}} {{msg}}", names.max().unwrap_or(8).min(24));
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let mut steps = BTreeMap::new();
        let mut stages = Vec::new();
        for (index, step) in plan.manifest.pipeline.steps.iter().enumerate() {
            let of_step = |node: &usize| wanted[*node] && plan.nodes[*node].step == index;
            let count = (0..plan.nodes.len()).filter(of_step).count();
            if count == 0 {
                continue;
            }
            let name = step.name.value.to_string();
            let bar = all.add(ProgressBar::new(count as u64).with_style(style.clone()));
            bar.set_prefix(name.clone());
            // A bar that changes too fast is drawn late, and without a tick perhaps never.
            bar.enable_steady_tick(TICK);
            let slow = (0..plan.nodes.len()).find(of_step).is_some_and(|node| takes_time(&plan, node));
            let left = u32::try_from(count).unwrap_or(u32::MAX);
            stages.push(Stage { name: name.clone(), left, executed: 0, seconds: 0.0, failed: 0, slow });
            steps.insert(name, bar);
        }
        let view = Arc::new(Mutex::new(View { began: Instant::now(), running: BTreeMap::new(), steps: stages }));
        let seen = view.clone();
        let drawn = ProgressStyle::with_template("{now}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .with_key("now", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&lock(&seen).lines(output::width_of_messages()).join("\n"));
            });
        let now = all.add(ProgressBar::new_spinner().with_style(drawn));
        now.enable_steady_tick(TICK);
        Self { plan, all, steps, now, view }
    }

    fn over(&mut self, node: usize, step: &str, failed: bool, wall: Option<Duration>) {
        let mut view = lock(&self.view);
        view.running.remove(&node);
        let Some(stage) = view.steps.iter_mut().find(|stage| stage.name == step) else { return };
        stage.left = stage.left.saturating_sub(1);
        stage.failed += u32::from(failed);
        if let Some(wall) = wall {
            stage.executed += 1;
            stage.seconds += wall.as_secs_f64();
        }
        let failed = stage.failed;
        drop(view);
        if let Some(bar) = self.steps.get(step) {
            bar.inc(1);
            if failed > 0 {
                bar.set_message(format!("{failed} without success"));
            }
        }
    }
}

fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    fn lines(&self, width: usize) -> Vec<String> {
        let mut running: Vec<&Running> = self.running.values().collect();
        running.sort_by_key(|running| running.since);
        let mut lines: Vec<String> = running
            .iter()
            .take(SHOWN)
            .map(|running| {
                let end = format!("{}  {}", running.slots, whole(running.since.elapsed()));
                let room = width.saturating_sub(end.width() + 5);
                let what = shorten(&running.what, room);
                let said = match room.saturating_sub(what.width() + 2) {
                    left if left >= 10 && !running.said.is_empty() => format!("  {}", shorten(&running.said, left)),
                    _ => String::new(),
                };
                format!("  {what}  {end}{said}")
            })
            .collect();
        if running.len() > SHOWN {
            lines.push(format!("  and {} more", running.len() - SHOWN));
        }
        lines.push(shorten(&self.time_left(), width - 1));
        lines
    }

    /// From what this run's own actions took and how many went side by side. Of a step of which none has ended nothing is
    /// known, and that is said.
    fn time_left(&self) -> String {
        let elapsed = self.began.elapsed().as_secs_f64().max(0.001);
        let (mut work, mut done) = (0.0, 0.0);
        let mut blind = Vec::new();
        for stage in self.steps.iter() {
            done += stage.seconds;
            if stage.left == 0 {
                continue;
            }
            let running = self.running.values().filter(|running| running.step == stage.name);
            let spent: Vec<f64> = running.map(|running| running.since.elapsed().as_secs_f64()).collect();
            done += spent.iter().sum::<f64>();
            if stage.executed == 0 {
                if stage.slow {
                    blind.push(stage.name.as_str());
                }
                continue;
            }
            let mean = stage.seconds / f64::from(stage.executed);
            work += mean * f64::from(stage.left) - spent.iter().map(|spent| spent.min(mean)).sum::<f64>();
        }
        let beside = (done / elapsed).max(1.0);
        let about = whole(Duration::from_secs_f64((work / beside).clamp(0.0, 1e9)));
        let ran = whole(self.began.elapsed());
        match (blind.as_slice(), work > 0.0) {
            ([], false) => format!("{ran} so far"),
            ([], true) => format!("{ran} so far, about {about} left at the pace until now"),
            (blind, false) => format!("{ran} so far; time left unknown: no {} has ended yet", blind.join(", ")),
            (blind, true) => format!("{ran} so far, at least {about} left; no {} has ended yet", blind.join(", ")),
        }
    }
}

/// Whole seconds: tenths would flicker.
fn whole(span: Duration) -> String {
    if span.as_secs() < 60 { format!("{} s", span.as_secs()) } else { human_span(span) }
}

impl Observer for Bars {
    fn see(&mut self, told: &Told) {
        match &told.event {
            Event::ActionStarted { node, axes, step, slots, .. } => {
                let slots = if slots.is_empty() { String::new() } else { format!("on {}", slots.join(", ")) };
                let what = title(axes, step);
                let running = Running { what, slots, step: step.clone(), since: Instant::now(), said: String::new() };
                lock(&self.view).running.insert(*node, running);
            }
            Event::ActionProgress { node, line, .. } => {
                if let Some(running) = lock(&self.view).running.get_mut(node) {
                    running.said.clone_from(line);
                }
            }
            Event::ActionSettled { node, step, cached, wall_ms, evidence, .. } => {
                let wall = (!cached).then(|| Duration::from_millis(*wall_ms));
                self.over(*node, step, !cached && evidence.is_some(), wall);
            }
            Event::ActionOver { node, step, .. } => self.over(*node, step, false, None),
            Event::AttemptFailed { node, step, again: false, .. } => self.over(*node, step, true, None),
            Event::AttemptFailed { node, .. } => drop(lock(&self.view).running.remove(node)),
            Event::RunFinished { .. } => {
                self.now.finish_and_clear();
                for bar in self.steps.values() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        // What went well is in the bars.
        if !matches!(told.event, Event::ActionSettled { .. })
            && let Some(line) = line(&self.plan, &told.event)
        {
            // `println` of a bar prints nothing where the terminal went away; `suspend` always runs.
            self.all.suspend(|| output::say(&line));
        }
    }
}
/// A line of evidence within a sentence: without the stop that it may end in.
fn sentence(evidence: &str) -> &str {
    evidence.trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_a_terminal_a_build_is_told_of_each_half_minute_at_most() {
        let mut spaced = Spaced::default();
        let told: Vec<u64> = [1_000, 29_000, 31_000, 40_000, 62_000, 2_000, 31_000, 33_000]
            .into_iter()
            .filter(|wall_ms| spaced.due(1, *wall_ms))
            .collect();
        assert_eq!(told, [31_000, 62_000, 31_000]);
        assert!(!spaced.due(2, 5_000) && spaced.due(2, 30_000), "each for itself");
    }

    #[test]
    fn on_a_terminal_the_line_that_a_build_printed_last_stands_beside_it() {
        let running = |said: &str| Running {
            what: "pkg/0123abcd build".into(),
            slots: String::new(),
            step: "build".into(),
            since: Instant::now(),
            said: said.into(),
        };
        let view =
            |said: &str| View { began: Instant::now(), running: BTreeMap::from([(0, running(said))]), steps: vec![] };
        assert_eq!(view("[3/900] compiling").lines(80)[0], "  pkg/0123abcd build    0 s  [3/900] compiling");
        let narrow = &view(&"compiling ".repeat(50)).lines(60)[0];
        assert!(narrow.width() < 60 && narrow.contains("compiling"), "{narrow}");
        assert_eq!(view("[3/900] compiling").lines(30)[0], "  pkg/0123abcd build    0 s");
    }
}
