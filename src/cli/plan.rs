//! `flow plan`: what would run, and why. Executes nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::cli::Places;
use crate::cli::confirm::asks;
use crate::cli::fault::Fault;
use crate::cli::open::Opened;
use crate::cli::output;
use crate::cli::select::{self, Selection};
use crate::cli::versions;
use crate::report::jobs;
use crate::text::wrap;
use crate::why::causes::causes;
use crate::why::slot_hours::slot_hours;
use crate::why::{self, forecast::forecast_with};

/// Arguments of `flow plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow plan pipelines/quickstart.kdl          what would run, grouped by why
  flow plan m.kdl --explain                   what each cause would cost
  flow plan m.kdl --commit 9f47610d --all     every action of one commit
  flow plan m.kdl --at HEAD~3                 as the manifest and its files were
                                              in a commit; nothing is checked out
  flow plan m.kdl --json                      for programs")]
pub struct PlanArgs {
    /// The manifest
    manifest: PathBuf,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    selection: Selection,
    /// Plan the manifest and its files as they were in a commit: an id, a branch, a tag, HEAD~2
    #[arg(long, value_name = "REV", value_parser = select::not_empty)]
    at: Option<String>,
    /// As if `flow run` were told to try these jobs again though their attempts are used up: what it would cost
    #[arg(long, value_name = "JOB-GLOB", value_parser = select::not_empty)]
    retry: Vec<String>,
    /// Group by cause: what each sets going, for how much and how long
    #[arg(long, conflicts_with = "all")]
    explain: bool,
    /// List every action, also those that would be served
    #[arg(long)]
    all: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Plans a manifest.
///
/// # Errors
/// If it has flaws or the store cannot be used. What the machine lacks is said, and no error.
pub async fn plan(args: PlanArgs) -> Result<ExitCode, Fault> {
    let manifest = Arc::new(versions::read(&args.manifest, args.at.as_deref())?);
    if let Some(commit) = manifest.version.commit() {
        output::say(&format!("note: as of {}; tools and variables are those of today", versions::called(commit)));
    }
    let opened = Opened::with(manifest, &args.manifest, &args.places, false).await?;
    let last_class = jobs::last_classes(opened.plan(), &opened.index);
    let selected = select::wanted(opened.plan(), &args.selection, &|job| last_class.get(&job).cloned())?;
    let wanted = selected.nodes;
    let mut lacking = opened.lacking_secrets(&wanted);
    lacking.extend(opened.lacking_devices(&wanted));
    let retried = select::retried(opened.plan(), &selected.jobs, &args.retry)?;
    let forecasts = forecast_with(opened.plan(), &opened.store, &opened.index, &wanted, &retried);
    let estimate = opened.estimate(&forecasts)?;
    let slots = slot_hours(opened.plan(), &forecasts, &opened.index);
    let asks = asks(&opened.plan().manifest.pipeline, &estimate);
    let causes = match args.explain {
        true => Some(causes(opened.plan(), &forecasts, &opened.estimator()?)),
        false => None,
    };
    if args.json {
        let mut document = why::plan::json(opened.plan(), &forecasts, &lacking, &estimate);
        if let Some(commit) = opened.plan().manifest.version.commit() {
            document["at"] = commit.id.as_str().into();
        }
        document["asks"] = asks.into();
        document["slot_hours"] = serde_json::json!(slots);
        if let Some(causes) = causes {
            document["causes"] = serde_json::json!(causes);
        }
        output::json(&document)?;
    } else if let Some(causes) = causes {
        let none = if causes.is_empty() {
            "nothing would be executed
"
        } else {
            ""
        };
        output::data(format!("{}{none}{}", why::causes::text(&causes), estimate.text()))?;
    } else {
        output::data(why::plan::text(opened.plan(), &forecasts, &lacking, &estimate, args.all))?;
        if let Some(slots) = slots {
            output::data(slots.text(80))?;
        }
        if let Some(asks) = asks {
            output::data(format!(
                "{}\n",
                wrap(&format!("`flow run` asks first, or wants --yes: {asks}"), 80).join("\n    ")
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
