//! `flow show`: all that is known of one job.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::{Places, job, output};
use crate::report::spent::several_models;
use crate::report::{detail, detail_text};
use crate::text::harmless;

/// Arguments of `flow show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow show shop/9f47610d/hasty/1           a job by its name
  flow show 'shop/9f47610d/h*'              by a glob that means one job
  flow show 9f47610d                        lists the jobs of a commit
  flow show shop/9f47610d/hasty/1 --json    one JSON document

Exit codes: 0 shown; 2 no such job, or several.")]
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
/// If no job or several are meant, or the manifest has flaws.
pub async fn show(args: ShowArgs) -> Result<ExitCode, Fault> {
    let found = job::find(&args.job, args.manifest.as_deref(), &args.places).await?;
    let (store, index) = (&found.opened.store, &found.opened.index);
    let detail = detail::detail(found.opened.plan(), found.job, store, index)
        .map_err(|error| Fault::new(3, error.to_string()))?;
    if args.json {
        output::json(&detail)?;
    } else {
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
