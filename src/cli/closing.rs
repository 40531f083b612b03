//! What is said after the table: what keeps jobs from being settled, what to do about it, and where to read on.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::{Places, hints, output};
use crate::event::Event;
use crate::gc;
use crate::manifest::Purpose;
use crate::outcome::Cause;
use crate::plan::point_name;
use crate::report::jobs::{JobResult, Left};
use crate::report::status_text::without_retry;
use crate::store::Store;
use crate::text::{counted, harmless, shell, wrap};

/// How many jobs a command names.
const NAMED: usize = 3;

/// How the advice ends that needs no more than the command below it.
const SAME_COMMAND: &str = "; then run the same command again";

/// What keeps jobs from being settled and what to do about it, in words.
pub fn waits(finished: &Event, width: usize) {
    let Event::RunFinished { lanes, paused, .. } = finished else { return };
    let jobs = |n: usize| if n == 1 { "1 agent waits".to_owned() } else { format!("{n} agents wait") };
    let say = |text: String| output::say(&wrap(&text, width).join("\n  "));
    for lane in lanes {
        say(format!(
            "{} for lane {}: {}: {}. To do: {}, then run the same command again; no attempt was counted",
            jobs(lane.waiting),
            lane.lane,
            lane.cause,
            lane.evidence,
            lane.remedy
        ));
    }
    for paused in paused {
        say(format!(
            "candidate {} is paused, {}: {}: {}. To do: {}",
            paused.candidate,
            jobs(paused.waiting),
            paused.cause,
            paused.evidence,
            paused.remedy
        ));
    }
}

/// What came out otherwise than before though its key is the same.
pub fn disagreements(finished: &Event, width: usize) {
    let Event::RunFinished { disagreements, rechecked, .. } = finished else { return };
    for said in disagreements {
        let name = format!("{} {}", point_name(&said.axes), said.step);
        let text = format!(
            "NONDETERMINISTIC: {} came out otherwise in: {}; attempt {} speaks, {} does not. To do: make the step a function \
             of what it reads, or declare what else it reads; `flow why` and `flow show` tell more",
            name.trim(),
            said.outputs.join(", "),
            said.earlier,
            said.later
        );
        output::say(&wrap(&harmless(&text), width).join("\n  "));
    }
    if *rechecked > 0 {
        let came = if disagreements.is_empty() { ": all came out the same" } else { "" };
        output::say(&format!("{} executed again{came}", counted(*rechecked, "served action")));
    }
}

/// How much room can be made where the disk was full, as it is now.
pub fn room(results: &[JobResult], store: &Store) {
    if results.iter().any(|result| result.cause.as_deref() == Some(Cause::DiskFull.name())) {
        output::say(&wrap(&format!("the disk was full: {}", gc::room(store).text()), output::width()).join("\n  "));
    }
}

/// What to do about jobs that are not settled, and where to read on.
pub fn next_steps(results: &[JobResult], manifest: &Path, places: &Places, options: &[String], purpose: Purpose) {
    // One job stands for all that an action holds up.
    let mut used_up: BTreeMap<usize, &JobResult> = BTreeMap::new();
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    let mut open = 0;
    for result in results.iter().filter(|result| result.open) {
        match result.left {
            Some(Left::UsedUp { node, .. } | Left::Reopened(node)) => drop(used_up.entry(node).or_insert(result)),
            Some(Left::Held(_)) => *held.entry(result.next.as_deref().unwrap_or_default()).or_default() += 1,
            _ => open += 1,
        }
    }
    for (next, jobs) in &held {
        // The command stands below, once for all of them.
        let next = next.strip_suffix(SAME_COMMAND).unwrap_or(next);
        let text = format!("{} not begun: {next}", counted(*jobs, "job"));
        output::say(&wrap(&text, output::width()).join("\n  "));
    }
    if open > 0 || !held.is_empty() {
        let again = hints::verb(purpose, manifest, options);
        output::say(&format!("some jobs are not settled; this takes up the rest:\n  {again}"));
    }
    let goes_on = "--continue".to_owned();
    if held.keys().any(|next| next.contains("`--continue`")) && !options.contains(&goes_on) {
        let all: Vec<String> = options.iter().cloned().chain([goes_on]).collect();
        output::say(&format!(
            "or, without mending what paused a candidate:\n  {}",
            hints::verb(purpose, manifest, &all)
        ));
    }
    if !used_up.is_empty() {
        // Named anew below.
        let options = without_retry(options);
        let jobs = used_up.values().map(|result| result.job.to_string());
        let names: Vec<String> = if used_up.len() > NAMED { vec!["*".to_owned()] } else { jobs.collect() };
        let retry = shell(names.iter().flat_map(|name| ["--retry".to_owned(), name.clone()]));
        let what = "some jobs are tried again only on request: mend what the table says, then\n  ";
        output::say(&format!("{what}{} {retry}", hints::verb(purpose, manifest, &options)));
    }
    // What failed as the manifest meant it to puzzles nobody.
    let puzzling = results.iter().find(|result| result.open && result.see.is_some());
    let puzzling = puzzling.or_else(|| {
        let odd = |result: &&JobResult| {
            result.see.is_some() && result.class.is_some_and(|class| !class.next_action().starts_with("none"))
        };
        results.iter().find(odd)
    });
    // What a pipeline that vets names its jobs the manifest itself may not.
    if let Some(job) = puzzling.or(results.first()).map(|result| &result.job).filter(|_| purpose != Purpose::Vet) {
        output::say(&format!("`flow show {job}{}` tells all about one job", hints::reader(manifest, places)));
    }
}
