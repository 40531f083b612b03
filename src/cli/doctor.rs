//! `flow doctor`: what a run would miss on this machine, and how to mend it. Changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::cli::Places;
use crate::cli::fault::Fault;
use crate::cli::{open, output};
use crate::doctor::{self, Question};
use crate::units::Span;

/// Arguments of `flow doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow doctor                           this machine
  flow doctor pipelines/quickstart.kdl  and all that the manifest asks of it
  flow doctor m.kdl --limit 60s         more time for slow servers
  flow doctor m.kdl --json | jq -r '.lines[] | select(.level==\"fail\").fix'

Each line is ok, warn (a run begins, and something may go other than meant),
fail (a run does not begin, or jobs of it cannot be done) or unknown (it could
not be told here and now), and says how to mend it. Commands of the manifest
that give secrets are run; what they give is not shown.

Exit codes: 0 no line says fail; 1 one does; 2 usage, or flaws of the manifest.")]
pub struct DoctorArgs {
    /// A manifest [default: none, only the machine is looked at]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// As for `flow run`: for the estimate of the disk it needs [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How long one question may take; all are put at once
    #[arg(long, value_name = "SPAN", default_value = "20s")]
    limit: Span,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Where the locks of this machine's slots lie
    #[arg(long, env = "FLOW_SLOTS", value_name = "DIR", default_value = "/tmp/flow-slots", hide = true)]
    slots: PathBuf,
}

/// Looks at the machine.
///
/// # Errors
/// If the manifest has flaws.
pub async fn doctor(args: DoctorArgs) -> Result<ExitCode, Fault> {
    let manifest = args.manifest.as_deref().map(open::read).transpose()?.map(Arc::new);
    let known = manifest.iter().flat_map(|manifest| &manifest.pipeline.repos);
    let known: Vec<&str> = known.map(|repo| repo.name.value.as_str()).collect();
    if let Some((name, _)) = args.places.repos.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        let has = if known.is_empty() { "it has none".into() } else { format!("it has: {}", known.join(", ")) };
        return Err(Fault::hint(2, format!("--repo {name}=…: the manifest has no repository `{name}`"), has));
    }
    let mut repos = BTreeMap::new();
    for (name, path) in &args.places.repos {
        let full = std::path::absolute(path).map_err(|error| Fault::new(2, format!("{}: {error}", path.display())))?;
        repos.insert(name.clone(), full);
    }
    let processors = || std::thread::available_parallelism().map_or(2, usize::from);
    let report = doctor::examine(Question {
        machine: open::machine_of(&args.places)?,
        store: open::store_root_of(args.manifest.as_deref(), &args.places),
        manifest,
        slots: args.slots,
        repos,
        jobs: args.jobs.map_or_else(processors, usize::from),
        limit: args.limit.0,
    })
    .await;
    if args.json {
        output::json(&report)?;
    } else {
        output::data(doctor::text(&report, output::width()))?;
    }
    Ok(if report.fails() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
