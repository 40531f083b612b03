//! `flow log`: what a step of a job printed and left for people.
//!
//! What it prints may come from a hostile program: on a terminal control characters are spelled out.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::{Places, job, output};
use crate::digest::Digest;
use crate::report::attempts;
use crate::report::detail::{self, AttemptDetail, StepDetail};
use crate::store::Store;
use crate::text::harmless;
use crate::units::human_size;

/// The largest log that is printed.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Arguments of `flow log`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow log shop/9f47610d/hasty/1 agent                attempts, costs, and log
  flow log shop/9f47610d/hasty/1 patch > hasty.patch  its patch
  flow log shop/9f47610d/hasty/1 patched --stream 'base stdout'
  flow log shop/9f47610d/hasty/1 agent --list         attempts and streams
  flow log shop/9f47610d/hasty/1 agent --attempt 1    an earlier attempt

Logs go to standard output, headings to standard error.
Exit codes: 0 printed; 2 no such job, step, attempt or stream.")]
pub struct LogArgs {
    /// A job: its name, the beginning of it, a glob, or the beginning of its commit's id
    job: String,
    /// The step
    step: String,
    /// The manifest [default: that of the newest run that holds the job]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// An attempt by number or id [default: the one that speaks for the step, else the last]
    #[arg(long, value_name = "N|ID")]
    attempt: Option<String>,
    /// Only this stream
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// List attempts and streams
    #[arg(long)]
    list: bool,
    /// Print the attempts as one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints logs.
///
/// # Errors
/// If job, step, attempt or stream are not there: the message names those that are.
pub async fn log(args: LogArgs) -> Result<ExitCode, Fault> {
    let found = job::find(&args.job, args.manifest.as_deref(), &args.places).await?;
    let store = &found.opened.store;
    let detail = detail::detail(found.opened.plan(), found.job, store, &found.opened.index)
        .map_err(|error| Fault::new(3, error.to_string()))?;
    let job = &detail.result.job;
    let Some(step) = detail.steps.iter().find(|step| step.step == args.step) else {
        let names: Vec<&str> = detail.steps.iter().map(|step| step.step.as_str()).collect();
        let message = format!("{job} has no step `{}`", args.step);
        return Err(Fault::hint(2, message, format!("its steps are: {}", names.join(", "))));
    };
    if args.json {
        output::json(&serde_json::json!({"job": job, "step": step}))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.list {
        output::data(list(step, store))?;
        return Ok(ExitCode::SUCCESS);
    }
    if step.kind == "agent" && args.stream.is_none() && args.attempt.is_none() {
        let list = attempts::list(step, Timestamp::now(), output::width_of_messages());
        output::say(harmless(&list).trim_end());
    }
    let attempt = choose(step, args.attempt.as_deref())?;
    if step.kind == "agent" && args.stream.is_none() {
        say_reading(&found, &args.step, attempt);
    }
    let logs = &attempt.ended.logs;
    let names: Vec<&str> = logs.keys().map(String::as_str).collect();
    if let Some(stream) = &args.stream
        && !logs.contains_key(stream)
    {
        let message = format!("attempt {} of {} has no stream `{stream}`", attempt.number, step.step);
        let hint =
            if names.is_empty() { "it left no logs".to_owned() } else { format!("it has: {}", names.join(", ")) };
        return Err(Fault::hint(2, message, hint));
    }
    if names.is_empty() {
        let said = step.because.as_ref().map_or_else(String::new, |because| format!(": {because}"));
        output::say(&format!("{} of {job} printed nothing; it is {}{said}", step.step, step.state));
    }
    let wanted = logs.iter().filter(|(name, _)| args.stream.as_ref().is_none_or(|stream| stream == *name));
    let several = args.stream.is_none() && names.len() > 1;
    for (name, digest) in wanted {
        print(name, digest, attempt, several, store)?;
    }
    for damage in store.cas.take_damage() {
        output::say(&format!("warning: {damage}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What an agent said last, and the models that answered it.
fn say_reading(found: &job::Found, step: &str, attempt: &AttemptDetail) {
    let plan = found.opened.plan();
    let node = plan.jobs[found.job].nodes.iter().find(|node| plan.step(**node).name.value.as_str() == step);
    let tables = node.and_then(|node| plan.tables(*node)).filter(|_| attempt.same_key);
    let reading = tables.and_then(|tables| found.opened.store.reading(&attempt.ended, tables));
    if let Some(message) = reading.and_then(|reading| reading.message) {
        output::say(&harmless(&format!("attempt {} said last: {message}", attempt.number)));
    }
    if let Some(usage) = attempt.ended.usage.as_ref().filter(|usage| !usage.models.is_empty()) {
        output::say(&harmless(&format!("answered by: {}", usage.models.join(", "))));
    }
}

fn choose<'a>(step: &'a StepDetail, wanted: Option<&str>) -> Result<&'a AttemptDetail, Fault> {
    let because = step.because.as_ref().map_or_else(String::new, |because| format!(", {because}"));
    let Some(chosen) = step.chosen() else {
        let hint = format!("it is {}{because}", step.state);
        return Err(Fault::hint(2, format!("{} has no attempt that ended", step.step), hint));
    };
    let Some(wanted) = wanted else { return Ok(chosen) };
    let number = wanted.parse::<usize>().ok();
    let means = |attempt: &&AttemptDetail| number == Some(attempt.number) || attempt.ended.attempt.as_str() == wanted;
    step.attempts.iter().find(means).ok_or_else(|| {
        let known: Vec<String> =
            step.attempts.iter().map(|attempt| format!("{} ({})", attempt.number, attempt.ended.attempt)).collect();
        Fault::hint(2, format!("{} has no attempt `{wanted}`", step.step), format!("it has: {}", known.join(", ")))
    })
}

fn print(name: &str, digest: &Digest, attempt: &AttemptDetail, several: bool, store: &Store) -> Result<(), Fault> {
    let bytes = store.cas.get(digest, LARGEST).map_err(|error| {
        let hint = format!("it lies in {}", store.cas.path(digest).display());
        Fault::hint(3, error.to_string(), hint)
    })?;
    let Some(bytes) = bytes else {
        output::say(&format!("{name}: the store has it no longer"));
        return Ok(());
    };
    let terminal = std::io::stdout().is_terminal();
    if several || terminal {
        let size = human_size(bytes.len() as u64);
        output::say(&format!("--- {name}, {size}, attempt {} ({})", attempt.number, attempt.ended.attempt));
    }
    if !terminal {
        // What one stream holds is given as it is; of several the next begins on a line of its own.
        let open = several && bytes.last().is_some_and(|last| *last != b'\n');
        output::data(bytes)?;
        return if open { output::data("\n") } else { Ok(()) };
    }
    let text = harmless(&String::from_utf8_lossy(&bytes));
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    output::data(text + end)
}

fn list(step: &StepDetail, store: &Store) -> String {
    let mut text = attempts::list(step, Timestamp::now(), output::width());
    for attempt in &step.attempts {
        for (name, digest) in &attempt.ended.logs {
            let size = std::fs::metadata(store.cas.path(digest))
                .map_or_else(|_| "no longer in the store".to_owned(), |meta| human_size(meta.len()));
            text.push_str(&format!("{:>2}  {name}, {size}\n", attempt.number));
        }
    }
    harmless(&text)
}
