//! `flow status`: how the newest run stands, while it works or after.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::cli::Places;
use crate::cli::fault::Fault;
use crate::cli::{open, output};
use crate::ledger::{Ledger, Rates};
use crate::manifest::{self, Manifest};
use crate::names::RunId;
use crate::report::campaign::{self, Calibration};
use crate::report::spent::{Spent, several_models_in};
use crate::report::status;
use crate::run::journal::read_plan;
use crate::run::recover::whole_ledger;
use crate::store::{Index, RunLock, Store};
use crate::text::{harmless, wrap};

/// Arguments of `flow status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow status                           the newest run of this project
  flow status pipelines/quickstart.kdl  the newest run of that manifest
  watch flow status                     while `flow run` works elsewhere
  flow status --json                    one JSON document

Exit codes: 0 told, however the run stands; 2 there is no run.")]
pub struct StatusArgs {
    /// A manifest: the newest run of it [default: the newest run in the store of the current folder]
    manifest: Option<PathBuf>,
    /// The folder of the store [default: `cache` in the project]
    #[arg(long, env = "FLOW_CACHE", value_name = "DIR", hide_env_values = true)]
    cache: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Tells how the newest run stands.
///
/// # Errors
/// If the store holds no run.
pub fn status(args: &StatusArgs) -> Result<ExitCode, Fault> {
    let places = Places { cache: args.cache.clone(), repos: Vec::new(), engine: None };
    let root = open::store_root_of(args.manifest.as_deref(), &places);
    let runs = status::runs(&root);
    if runs.is_empty() {
        return Err(no_run(&root));
    }
    let run = match &args.manifest {
        None => runs.into_iter().next(),
        Some(manifest) => {
            open::there(manifest)?;
            newest_of(&root, runs, manifest)
        }
    };
    let Some(run) = run else { return Err(none_of(args.manifest.as_deref(), &root)) };
    let status = status::status(&root, &run);
    let ledger = ledger_of(&root, &status);
    let width = output::width();
    match (args.json, ledger) {
        (true, Some((ledger, manifest))) => {
            let mut document = serde_json::to_value(&status).unwrap_or_default();
            document["spent"] =
                serde_json::to_value(Spent::of(&ledger, &manifest.pipeline, Some(&run))).unwrap_or_default();
            let calibration = calibration(&status, &manifest);
            document["calibration"] = serde_json::to_value(calibration).unwrap_or_default();
            document["vetted"] = campaign::vetted(&manifest.pipeline).into();
            document["warnings"] = several_models_in(&ledger, &run).into();
            output::json(&document)?;
        }
        (true, None) => output::json(&status)?,
        (false, ledger) => {
            if let Some((_, manifest)) = &ledger {
                output::data(calibration(&status, manifest).text(width))?;
                if let Some(vetted) = campaign::vetted(&manifest.pipeline) {
                    output::data(format!("rates are {vetted}\n"))?;
                }
            }
            output::data(status.text(Timestamp::now(), width))?;
            if let Some((ledger, manifest)) = ledger {
                output::data(Spent::of(&ledger, &manifest.pipeline, Some(&run)).text(width))?;
                output::data(harmless(&ruled(&manifest, width)))?;
                for warning in several_models_in(&ledger, &run) {
                    output::data(harmless(&format!("{warning}\n")))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the A/A controls that this run is about came to, by its journal.
fn calibration(status: &status::Status, manifest: &Manifest) -> Calibration {
    let control = &status.control;
    let timed = campaign::timed(&manifest.pipeline);
    let planned = manifest.pipeline.calibrate.as_ref().map_or(0, |calibrate| calibrate.drawn.len());
    let promised = campaign::promised_by(&manifest.pipeline);
    Calibration::new(timed, planned.max(control.settled), control.measured, control.false_verdicts, promised)
}

/// What a person ruled.
fn ruled(manifest: &Manifest, width: usize) -> String {
    let mut text = String::new();
    for ruling in &manifest.pipeline.rulings {
        let verdict = ruling.verdict.map_or("taken out", |class| class.name());
        let said = format!("ruling: {}: {verdict}: {}", ruling.job.value, ruling.because);
        text.push_str(&format!("{}\n", wrap(&said, width).join("\n  ")));
    }
    text
}

/// The newest run of a manifest: of that file, else of a file that held the pipeline which it holds.
fn newest_of(root: &Path, runs: Vec<RunId>, manifest: &Path) -> Option<RunId> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let here = real(manifest);
    let mut plans = Vec::new();
    for run in runs {
        match read_plan(root, &run) {
            Some(plan) if here.is_some() && real(&plan.manifest) == here => return Some(run),
            Some(plan) => plans.push((run, plan.pipeline)),
            // It has not said of what it is.
            None if RunLock::is_alive(root, &run).unwrap_or(false) => return Some(run),
            None => {}
        }
    }
    let name = manifest::read(manifest).ok()?.pipeline.name.value.to_string();
    plans.into_iter().find(|(_, pipeline)| *pipeline == name).map(|(run, _)| run)
}

/// That a store holds no run of a manifest.
fn none_of(manifest: Option<&Path>, root: &Path) -> Fault {
    let manifest = manifest.map(|manifest| manifest.display().to_string()).unwrap_or_default();
    Fault::hint(
        2,
        format!("no run of {manifest} in {}", root.display()),
        format!(
            "`flow run {manifest}` makes the first; `flow status` without a manifest tells of the newest run of all"
        ),
    )
}

/// The ledger of a run's pipeline at the prices of its manifest; `None`, and said, if one of the two cannot be read.
fn ledger_of(root: &Path, status: &status::Status) -> Option<(Ledger, Manifest)> {
    let unread = |why: &str| output::say(&format!("note: what was spent is not told: {why}"));
    if status.manifest.as_os_str().is_empty() {
        return None;
    }
    let manifest = match manifest::read(&status.manifest) {
        Ok(manifest) => manifest,
        Err(flaws) => {
            unread(&flaws.to_string());
            return None;
        }
    };
    let read = || {
        let store = Store::to_read(root);
        let index = Index::load(root)?;
        whole_ledger(Rates::of(&manifest.pipeline), &store, &index, None)
    };
    let ledger = read().map_err(|error| unread(&error.to_string())).ok()?;
    Some((ledger, manifest))
}

/// That a store holds no run.
#[must_use]
pub fn no_run(root: &std::path::Path) -> Fault {
    Fault::hint(
        2,
        format!("no run in {}", root.display()),
        "name the manifest, or the store with --cache DIR; `flow run MANIFEST` makes the first run",
    )
}
