//! `flow status`: how the newest run stands, while it works or after.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::cli::Places;
use crate::cli::fault::Fault;
use crate::cli::{open, output};
use crate::report::status;

/// Arguments of `flow status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow status                           the newest run of this project
  flow status pipelines/quickstart.kdl  of the project of that manifest
  watch flow status                     while `flow run` works elsewhere
  flow status --json                    one JSON document

Exit codes: 0 told, however the run stands; 2 there is no run.")]
pub struct StatusArgs {
    /// A manifest, to find its store [default: the store of the current folder]
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
    let places = Places { cache: args.cache.clone(), repos: Vec::new() };
    let root = open::store_root_of(args.manifest.as_deref(), &places);
    let Some(run) = status::runs(&root).into_iter().next() else { return Err(no_run(&root)) };
    let status = status::status(&root, &run);
    if args.json {
        output::json(&status)?;
    } else {
        output::data(status.text(Timestamp::now(), output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
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
