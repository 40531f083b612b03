//! `flow calibrate`: measures base against base, and says how often this machine calls equal trees different.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::cli::fault::Fault;
use crate::cli::open::{Opened, read_for};
use crate::cli::output;
use crate::cli::run::{RunArgs, run_selected};
use crate::cli::select::{self, Selected};
use crate::manifest::Purpose;
use crate::plan::graph::upstream_of;
use crate::report::campaign::{self, Calibration};
use crate::units::Percent;

/// Arguments of `flow calibrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow calibrate m.kdl                the share that the manifest's `calibrate`
                                      says, else 10 % of its jobs
  flow calibrate m.kdl --share 100%   one for every job

Each control is a second copy of the base, measured as if it were a patch:
whatever is found there is false. Run it while the machine does what it does in
a campaign. `calibrate \"10%\"` in the pipeline measures them with everything
else, and what is measured here is served there.

Exit codes: as of `flow run`; 1 where the observed rate is above what is promised.")]
pub struct CalibrateArgs {
    #[command(flatten)]
    run: RunArgs,
    /// For which share of the jobs: `100%`
    #[arg(long, value_name = "SHARE", value_parser = share)]
    share: Option<Percent>,
}

fn share(text: &str) -> Result<Percent, String> {
    let share: Percent = text.parse().map_err(|error: crate::units::BadUnit| error.to_string())?;
    if share.0 > 0.0 && share.0 <= 1.0 { Ok(share) } else { Err("it is more than 0% and at most 100%".into()) }
}

/// Measures A/A controls.
///
/// # Errors
/// If the manifest has flaws, or nothing of time is measured by it.
pub async fn calibrate(args: CalibrateArgs) -> Result<ExitCode, Fault> {
    let CalibrateArgs { mut run, share } = args;
    run.purpose = Purpose::Calibrate(share.map(|share| share.0));
    let manifest = Arc::new(read_for(&run.manifest, run.purpose)?);
    let opened = Opened::with(manifest, &run.manifest, &run.places, true).await?;
    let plan = opened.plan();
    if !plan.jobs.iter().any(|job| job.control) {
        return Err(Fault::hint(
            2,
            "there is nothing to calibrate: the manifest measures no time",
            "exact counts are the same on every machine, and need no control",
        ));
    }
    let last_class = crate::report::jobs::last_classes(plan, &opened.index);
    let jobs = select::jobs(plan, &run.selection, &|job| last_class.get(&job).cloned())?;
    let jobs: Vec<usize> = jobs.into_iter().filter(|job| plan.jobs[*job].control).collect();
    let ends: Vec<usize> = jobs.iter().flat_map(|job| plan.jobs[*job].nodes.iter().copied()).collect();
    let mut nodes = vec![false; plan.nodes.len()];
    for node in upstream_of(&plan.nodes, &ends) {
        nodes[node] = true;
    }
    let json = run.json;
    let finished = run_selected(run, opened, Selected { jobs, nodes }).await?;
    let calibration = Calibration::of(&finished.plan, &finished.store, &finished.index);
    let others = campaign::others(&finished.plan, &finished.store, &finished.index);
    if json {
        output::json(&serde_json::json!({"event": "calibration", "calibration": calibration, "others": others}))?;
    } else {
        output::data(campaign::others_text(&others, output::width()))?;
    }
    let above = calibration.state == "UNCALIBRATED" && calibration.measured > 0;
    Ok(if above && finished.code == ExitCode::SUCCESS { ExitCode::from(1) } else { finished.code })
}
