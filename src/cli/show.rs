//! `flow show`: all that is known of one job.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::job::Found;
use crate::cli::open::{Opened, todays_secrets};
use crate::cli::{Places, job, output};
use crate::report::campaign::Calibration;
use crate::report::spent::several_models;
use crate::report::standing::standing_as_recorded;
use crate::report::{detail, detail_text, jobs, table};
use crate::text::harmless;
use crate::why::attempts::disagree;
use crate::why::change::Blobs;

/// Arguments of `flow show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow show shop/9f47610d/hasty/1           a job by its name
  flow show 'shop/9f47610d/h*'              by a glob that means one job
  flow show 9f47610d                        the table of a commit's jobs
  flow show shop/9f47610d/hasty/1 --json    one JSON document

Exit codes: 0 shown; 2 no such job.")]
pub struct ShowArgs {
    /// A job: its name, the beginning of it, a glob, or the beginning of its commit's id
    job: String,
    /// The manifest [default: that of the newest run that holds the job]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Shows a job.
///
/// # Errors
/// If no job is meant, or the manifest has flaws.
pub async fn show(args: ShowArgs) -> Result<ExitCode, Fault> {
    let job::Several { opened, jobs } = job::several(&args.job, args.manifest.as_deref(), &args.places).await?;
    let [job] = jobs.as_slice() else { return list(&opened, &jobs, args.json) };
    let found = Found { job: *job, opened };
    let (store, index) = (&found.opened.store, &found.opened.index);
    let mut detail = detail::detail(found.opened.plan(), found.job, store, index)
        .map_err(|error| Fault::new(3, error.to_string()))?;
    if detail.steps.iter().any(|step| !step.disagreements.is_empty()) {
        let redactor = todays_secrets(Some(&found.opened.plan().manifest))?;
        let blobs = Blobs { store, intakes: Vec::new(), redactor };
        for step in &mut detail.steps {
            step.disagreements = step.key.map(|key| disagree(&key, index, Some(&blobs))).unwrap_or_default();
        }
    }
    if args.json {
        let mut document = serde_json::to_value(&detail).unwrap_or_default();
        let calibration = Calibration::of(found.opened.plan(), store, index);
        document["calibration"] = serde_json::to_value(calibration).unwrap_or_default();
        output::json(&document)?;
    } else {
        output::data(Calibration::of(found.opened.plan(), store, index).text(output::width()))?;
        output::data(detail_text::text(&detail, store, Timestamp::now(), output::width()))?;
        let answered = detail.steps.iter().flat_map(|step| &step.attempts).filter(|attempt| attempt.same_key);
        let answered = answered.filter_map(|attempt| attempt.ended.usage.as_ref());
        let candidate = detail.result.axes.get("candidate").unwrap_or_default();
        for warning in several_models(answered.map(|usage| (candidate, usage.models.as_slice()))) {
            output::data(harmless(&format!("{warning}\n")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Several jobs: the table of them.
fn list(opened: &Opened, meant: &[usize], json: bool) -> Result<ExitCode, Fault> {
    let plan = opened.plan();
    let mut wanted = vec![false; plan.nodes.len()];
    for node in meant.iter().flat_map(|job| &plan.jobs[*job].nodes) {
        wanted[*node] = true;
    }
    let mut standing = standing_as_recorded(plan, &opened.store, &opened.index, &wanted);
    if let Some(run) = meant.first().and_then(|job| detail::about(&opened.store.root, &plan.jobs[*job].id).next()) {
        standing = standing.after(plan, &opened.store.root, &run);
    }
    let results = jobs::results(plan, &standing, meant, &wanted);
    let calibration = Calibration::of(plan, &opened.store, &opened.index);
    let width = output::width();
    if json {
        output::json(&serde_json::json!({"jobs": results, "calibration": calibration}))?;
    } else {
        output::data(calibration.text(width))?;
        output::data(harmless(&table::results(&results, width)))?;
        if let Some(lacks) = standing.lacks(plan) {
            output::say(&harmless(&format!("note: {lacks}")));
        }
        output::say("name one of them to see all of it: flow show JOB");
    }
    Ok(ExitCode::SUCCESS)
}
