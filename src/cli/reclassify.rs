//! `flow reclassify`: reads all attempts by today's tables, says what comes out otherwise, and says the classes anew.
//!
//! Runs patch and classify steps, which cost seconds, and nothing else: no agent, no test, no command.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::begin::Begun;
use crate::cli::fault::Fault;
use crate::cli::open::Opened;
use crate::cli::output;
use crate::cli::run::orders;
use crate::cli::{Places, hints};
use crate::container::Engines;
use crate::event::Event;
use crate::plan::Job;
use crate::report::flips::flips;
use crate::run::decide::Again;
use crate::run::dispatch::{Dispatcher, Options, Parts};
use crate::run::journal::{Journal, write_plan};
use crate::run::leases::Leases;
use crate::run::uncommitted::git_state;
use crate::step::Context;

/// Arguments of `flow reclassify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow reclassify m.kdl --dry-run   what an adapter's new signature changes
  flow reclassify m.kdl             the same, and the classes said anew

An agent's attempts are read by its adapter's tables and by flow's own. When
these change, what is stored is read anew, and no agent runs again for it. What
had settled and does not any more is reopened: it waits for `flow run --retry`.

Exit codes: 0 all jobs are settled, or a dry run; 2 flaws of the manifest;
3 jobs are left unsettled.")]
pub struct ReclassifyArgs {
    /// The manifest
    manifest: PathBuf,
    #[command(flatten)]
    places: Places,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Where the locks of this machine's slots lie
    #[arg(long, env = "FLOW_SLOTS", value_name = "DIR", default_value = "/tmp/flow-slots", hide = true)]
    slots: PathBuf,
}

/// Reads all attempts anew.
///
/// # Errors
/// If the manifest has flaws or the store cannot be used.
pub async fn reclassify(args: ReclassifyArgs) -> Result<ExitCode, Fault> {
    let broken = |error: String| Fault::new(3, error);
    let opened = Opened::open(&args.manifest, &args.places, false).await?;
    let wanted = vec![true; opened.plan().nodes.len()];
    let found =
        flips(opened.plan(), &opened.store, &opened.index, &wanted).map_err(|error| broken(error.to_string()))?;
    if !args.json {
        output::data(found.text())?;
    }
    let finished = if args.dry_run { None } else { Some(say_anew(opened, &args, wanted).await?) };
    let (executed, classes, exit) = match &finished {
        Some(Event::RunFinished { actions, classes, exit, .. }) => (actions.executed, classes.clone(), *exit),
        _ => (0, std::collections::BTreeMap::new(), 0),
    };
    if args.json {
        let mut document = json!(found);
        document["reopened"] = json!(found.reopened());
        document["agents_run_again"] = json!(0);
        document["dry_run"] = json!(args.dry_run);
        document["executed"] = json!(executed);
        document["classes"] = json!(classes);
        document["exit"] = json!(exit);
        output::json(&document)?;
    } else if !args.dry_run {
        let classes: Vec<String> = classes.iter().map(|(class, count)| format!("{count} {class}")).collect();
        output::data(format!("{executed} patch and classify steps were executed\n{}\n", classes.join(", ")))?;
    }
    Ok(ExitCode::from(u8::try_from(exit).unwrap_or(3)))
}

/// Runs what is pure.
async fn say_anew(opened: Opened, args: &ReclassifyArgs, wanted: Vec<bool>) -> Result<Event, Fault> {
    let broken = |error: String| Fault::new(3, error);
    let Opened { store, machine, prepared, path, .. } = opened;
    let leases = Leases::open(&prepared.plan, &args.slots, &store.root).map_err(broken)?;
    let Begun { run, lock: _lock, records, mut index } = Begun::begin(&store, &prepared)?;
    index.own(&run);
    let git = git_state(&prepared.plan, &prepared.intake);
    write_plan(&store.root, &run, &prepared.plan, &path, hints::places(&path, &args.places), &wanted, git.clone());
    let is_wanted = |job: &Job| job.classify.or(job.nodes.last().copied()).is_some_and(|node| wanted[node]);
    let about = prepared.plan.jobs.iter().enumerate().filter(|(_, job)| is_wanted(job)).map(|(job, _)| job).collect();
    let context = Arc::new(Context {
        plan: Arc::new(prepared.plan),
        store: store.clone(),
        machine,
        sources: prepared.sources,
        engines: Engines::default(),
    });
    let options = Options {
        jobs: std::thread::available_parallelism().map_or(2, usize::from),
        drain: Duration::from_secs(90),
        about,
        again: vec![Again::default(); wanted.len()],
        wanted,
        wait: None,
        go_on: false,
        pure: true,
    };
    let dispatcher = Dispatcher::new(Parts {
        context,
        manifest: path.display().to_string(),
        git,
        index,
        records,
        journal: Journal::create(&store.root, &run),
        run,
        leases,
        options,
        purse: None,
        observers: Vec::new(),
    });
    let report = dispatcher.run(orders()?).await;
    for damage in store.cas.take_damage() {
        output::say(&format!("warning: {damage}"));
    }
    Ok(report.finished)
}
