//! `flow history`: the versions of a manifest in its project's history, and what each would run again.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::fault::Fault;
use crate::cli::output;
use crate::cli::versions::{Within, unreadable};
use crate::why::history;
use crate::why::past::{Past, Terms};

/// Arguments of `flow history`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow history m.kdl          the last 20 versions, the newest first
  flow history m.kdl -n 100   more of them
  flow history m.kdl --json   for programs

A version is a commit that changed the manifest, a file that it imports or a
file that it names. Nothing is run for it, and no tool is asked.

Exit codes: 0 told; 2 the manifest lies in no git repository.")]
pub struct HistoryArgs {
    /// The manifest
    manifest: PathBuf,
    /// At most so many versions
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Lists the versions of a manifest.
///
/// # Errors
/// If it lies in no repository, or that cannot be read.
pub fn history(args: &HistoryArgs) -> Result<ExitCode, Fault> {
    let within = Within::needed(&args.manifest)?;
    let terms = Terms { variables: crate::cli::open::machine()?.variables, ..Terms::default() };
    let mut past = Past::new(within.project.clone(), terms);
    let said = history::history(&mut past, &within.manifest, args.number as usize).map_err(unreadable)?;
    let manifest = crate::cli::versions::read(&args.manifest, None).ok();
    let redactor = crate::cli::open::todays_secrets(manifest.as_ref())?;
    if args.json {
        let text = serde_json::to_string(&said).map_err(|error| Fault::new(3, error.to_string()))?;
        output::cleaned(&redactor, format!("{text}\n"))?;
    } else {
        output::cleaned(&redactor, said.text(output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}
