//! `flow extend`: goes on measuring a job that could not be settled, beyond the manifest's bound.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::class::Class;
use crate::cli::fault::Fault;
use crate::cli::open::Opened;
use crate::cli::run::{RunArgs, run_selected};
use crate::cli::select::Selected;
use crate::cli::{Places, job, output};
use crate::key::Value;
use crate::measure::again::NOT_REPRODUCED;
use crate::measure::protocol::{BLOCKS_MAX, Profile};
use crate::measure::{self, TestResult};
use crate::plan::{Ask, Role};
use crate::report::jobs;
use crate::report::standing::standing;
use crate::text::counted;

/// The largest result that is read, in bytes.
const RESULT_BYTES: u64 = measure::result::BLOB_MAX as u64;

/// Arguments of `flow extend`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow extend vllm/8aa1485f/trae/1               as many blocks more as would
                                                 settle it
  flow extend vllm/8aa1485f/trae/1 --blocks 60   until there are sixty

What was measured stays, and the schedule goes on where it ended. The result is
marked EXTENDED, for its blocks are of more than one session. A manifest whose
`blocks max` or `time max` is raised does the same for every job that met it.

Exit codes: as of `flow run`; 2 where the job is not INCONCLUSIVE.")]
pub struct ExtendArgs {
    /// A job: its name, the beginning of it, or a glob that means one
    job: String,
    /// The manifest [default: that of the newest run that holds the job]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// How many blocks there are to be in all [default: what would settle it, at most twice what there is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(BLOCKS_MAX)))]
    blocks: Option<u32>,
    /// Print each event as a line of JSON, and no table
    #[arg(long)]
    json: bool,
    /// Where the locks of this machine's slots lie
    #[arg(long, env = "FLOW_SLOTS", value_name = "DIR", default_value = "/tmp/flow-slots", hide = true)]
    slots: PathBuf,
}

/// Continues the measurement of a job.
///
/// # Errors
/// If no job is meant, it is settled otherwise, or the machine lacks something.
pub async fn extend(args: ExtendArgs) -> Result<ExitCode, Fault> {
    let found = job::find(&args.job, args.manifest.as_deref(), &args.places).await?;
    let (manifest, id) = (found.opened.path.clone(), found.opened.plan().jobs[found.job].id.clone());
    let places = Places { cache: Some(found.opened.store.root.clone()), ..args.places.clone() };
    let mut opened = Opened::open(&manifest, &places, true).await?;
    let plan = opened.plan();
    let Some(number) = plan.jobs.iter().position(|job| job.id == id) else {
        return Err(Fault::new(2, format!("{} has no job `{id}` any more", manifest.display())));
    };
    let mut wanted = vec![false; plan.nodes.len()];
    for node in &plan.jobs[number].nodes {
        wanted[*node] = true;
    }
    let stands = standing(plan, &opened.store, &opened.index, &wanted);
    let result = jobs::result(plan, number, &stands, &wanted);
    let class = result.class.map_or("no class", Class::name);
    let tested = plan.jobs[number].classify.and_then(|classify| plan.linked(classify, &Role::Patched));
    let stored = tested.and_then(|node| {
        let ended = stands.ends[node].settled()?;
        let digest = ended.outputs.get("result").and_then(Value::as_blob)?;
        let bytes = opened.store.cas.get(&digest, RESULT_BYTES).ok()??;
        Some((node, TestResult::decode(&bytes).ok()?))
    });
    let (Some(Class::Inconclusive), Some((node, stored))) = (result.class.filter(|_| !result.open), stored) else {
        let hint = "only a measurement that a bound ended can go on; `flow show JOB` tells what the job came to";
        return Err(Fault::hint(2, format!("{id} is {class}, and not INCONCLUSIVE"), hint));
    };
    if result.marks.iter().any(|mark| mark == NOT_REPRODUCED) {
        let hint = "each session is settled; more blocks of one make them no more alike: `flow show JOB` tells both";
        return Err(Fault::hint(2, format!("two sessions of {id} contradict each other"), hint));
    }
    let there = stored.runs.iter().filter(|run| run.turn.counts()).map(|run| run.turn.block + 1).max().unwrap_or(0);
    let needed = match measure::analyse(&stored, None).verdict {
        measure::Verdict::Inconclusive { needed_blocks } => needed_blocks,
        _ => None,
    };
    let least = there + there / 2 + 1;
    let usual = needed.map_or(least, |needed| needed.clamp(least, 2 * there.max(1)));
    let blocks = args.blocks.unwrap_or(usual).min(BLOCKS_MAX);
    if blocks <= there {
        let message = format!("{id} has {} already", counted(there as usize, "block"));
        return Err(Fault::hint(2, message, format!("ask for more: --blocks {least}")));
    }
    let nodes = &mut opened.prepared.plan.nodes;
    if let Ask::Test(ask) = &mut nodes[node].ask {
        if ask.protocol.profile == Profile::Fixed {
            let hint = "the number of blocks of a `fixed` protocol is a part of it: change it in the manifest";
            return Err(Fault::hint(2, format!("{id} is measured by a fixed protocol"), hint));
        }
        ask.protocol.blocks_max = blocks;
        ask.protocol.time_max_ms = None;
        ask.asked = true;
    }
    output::say(&format!("note: {id}: {there} blocks are there, going on to {blocks}"));
    let run = RunArgs::of(manifest, args.places, args.slots, args.json);
    Ok(run_selected(run, opened, Selected { jobs: vec![number], nodes: wanted }).await?.code)
}
