//! `flow plan`: what would run, and why. Executes nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::cli::Places;
use crate::cli::blamed::Blamed;
use crate::cli::confirm::asks;
use crate::cli::fault::Fault;
use crate::cli::open::{Opened, todays_secrets};
use crate::cli::output;
use crate::cli::reused::lacking_runs;
use crate::cli::select::{self, Selection};
use crate::cli::versions;
use crate::event::{Event, Paused};
use crate::manifest::Kind;
use crate::plan::Missing;
use crate::report::{jobs, status};
use crate::run::durations::Durations;
use crate::run::journal;
use crate::run::recheck;
use crate::text::{counted, wrap};
use crate::units::Percent;
use crate::why;
use crate::why::causes::{Cause, causes};
use crate::why::estimate::{Estimate, span};
use crate::why::explain::groups;
use crate::why::forecast::{Forecast, forecast_with};
use crate::why::slot_hours::slot_hours;

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
    /// As if `flow run` were told to execute a share of what is served again: how much that is, and what it would take
    #[arg(long, value_name = "SHARE", value_parser = crate::cli::run::share, conflicts_with = "at")]
    recheck: Option<Percent>,
    /// What draws that share, as for `flow run`
    #[arg(long, value_name = "TEXT", requires = "recheck")]
    seed: Option<String>,
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

/// How long it is looked for who brought the causes of a plan, and of one that is explained.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

/// Plans a manifest.
///
/// # Errors
/// If it has flaws or the store cannot be used. What the machine lacks is said, and no error.
pub async fn plan(args: PlanArgs) -> Result<ExitCode, Fault> {
    let manifest = Arc::new(versions::read(&args.manifest, args.at.as_deref())?);
    if let Some(commit) = manifest.version.commit() {
        output::say(&format!(
            "note: as of {}; tools and variables are those of today",
            versions::called(commit, &args.manifest)
        ));
    }
    let opened = Opened::with(manifest, &args.manifest, &args.places, false).await?;
    let last_class = jobs::last_classes(opened.plan(), &opened.index);
    let selected = select::wanted(opened.plan(), &args.selection, &|job| last_class.get(&job).cloned())?;
    let wanted = selected.nodes;
    let mut lacking = opened.lacking_secrets(&wanted);
    lacking.extend(opened.lacking_devices(&wanted));
    lacking.extend(lacking_runs(&opened.plan().manifest, &opened.store.root));
    let retried = select::retried(opened.plan(), &selected.jobs, &args.retry)?;
    let forecasts = forecast_with(opened.plan(), &opened.store, &opened.index, &wanted, &retried);
    let estimate = opened.estimate(&forecasts)?;
    let rechecked = args.recheck.map(|share| rechecked(&opened, &wanted, share, args.seed.as_deref()));
    let slots = slot_hours(opened.plan(), &forecasts, &opened.index);
    let room = why::room::room(opened.plan(), &forecasts, &opened.store);
    let asks = asks(&opened.plan().manifest.pipeline, &estimate);
    let paused = paused(&opened, &forecasts);
    let blamed = Blamed::new(&opened, if args.explain { LONG } else { SHORT });
    let causes = match args.explain {
        true => Some(causes(opened.plan(), &forecasts, &opened.estimator()?, &|said| blamed.of(said))),
        false => None,
    };
    if args.json {
        let mut document = why::plan::json(opened.plan(), &forecasts, &lacking, &estimate);
        if let Some(commit) = opened.plan().manifest.version.commit() {
            document["at"] = commit.id.as_str().into();
        }
        document["asks"] = asks.into();
        document["slot_hours"] = serde_json::json!(slots);
        document["disk"] = serde_json::json!(room);
        document["paused"] = serde_json::json!(paused);
        if let Some((actions, seconds)) = rechecked {
            document["recheck"] = serde_json::json!({"actions": actions, "seconds": seconds});
        }
        if let Some(causes) = causes {
            document["causes"] = serde_json::json!(causes);
        }
        output::cleaned(&todays_secrets(Some(&opened.plan().manifest))?, format!("{document}\n"))?;
    } else {
        let grouped = causes.is_some();
        tell(causes, (&opened, &blamed), &forecasts, &lacking, &estimate, args.all)?;
        if blamed.gave_up() {
            output::say(
                "note: not every cause was followed back in the project's history: `flow why` follows those of a commit",
            );
        }
        if let Some(room) = room {
            output::data(format!("{}\n", wrap(&room.text(), 76).join("\n    ")))?;
        }
        if let Some(slots) = slots.filter(|_| !grouped) {
            output::data(slots.text(80))?;
        }
        if let Some((actions, seconds)) = rechecked {
            let what = counted(actions, "served action");
            let text = format!(
                "--recheck: {what} would be executed again, {} of work; expected cost: $0: no agent and no test is among them",
                span(seconds)
            );
            output::data(format!("{}\n", wrap(&text, 76).join("\n    ")))?;
        }
        if let Some(asks) = asks {
            let asks = format!("`flow run` asks first, or wants --yes: {asks}");
            output::data(format!("{}\n", wrap(&asks, 80).join("\n    ")))?;
        }
        for Paused { candidate, cause, evidence, .. } in paused {
            let said = format!(
                "{candidate} was paused by the last run, {cause}: {evidence}. Unless that is mended, `flow run` begins none of its \
                 agents without --continue"
            );
            output::data(format!("{}\n", wrap(&said, 80).join("\n    ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How many served actions a run would execute again, and for how many seconds, one after the other.
fn rechecked(opened: &Opened, wanted: &[bool], share: Percent, seed: Option<&str>) -> (usize, f64) {
    let (plan, durations) = (opened.plan(), Durations::read(&opened.index));
    let drawn = recheck::sample(plan, &opened.store, &opened.index, wanted, share, seed.unwrap_or_default());
    let drawn: Vec<usize> = (0..drawn.len()).filter(|node| drawn[*node]).collect();
    (drawn.len(), drawn.iter().map(|node| durations.typical(plan, *node)).sum())
}

/// The candidates that the manifest's last run left paused, of those that have agents to begin.
fn paused(opened: &Opened, forecasts: &[Forecast]) -> Vec<Paused> {
    let (plan, root) = (opened.plan(), &opened.store.root);
    let candidates = &plan.manifest.pipeline.candidates;
    let of = |said: &Forecast| Some(candidates.get(plan.nodes[said.node].point.candidate?)?.name.value.as_str());
    let begins = |name: &str| {
        let agents = forecasts.iter().filter(|said| said.state.executes() && plan.kind(said.node) == Kind::Agent);
        agents.into_iter().any(|said| of(said) == Some(name))
    };
    let Ok(path) = std::path::absolute(&opened.path) else { return Vec::new() };
    let last = status::runs(root).into_iter().find(|run| journal::manifest_of(root, run).is_some_and(|of| of == path));
    // What happened to commits is not asked: that is nearly all of a journal.
    let events = last.map(|run| journal::read_of(root, &run, Some("no commit"))).unwrap_or_default();
    let paused = events.into_iter().rev().find_map(|told| match told.event {
        Event::RunFinished { paused, .. } => Some(paused),
        _ => None,
    });
    paused.unwrap_or_default().into_iter().filter(|paused| begins(&paused.candidate)).collect()
}

fn tell(
    causes: Option<Vec<Cause>>,
    (opened, blamed): (&Opened, &Blamed<'_>),
    forecasts: &[Forecast],
    lacking: &[Missing],
    estimate: &Estimate,
    all: bool,
) -> Result<(), Fault> {
    let redactor = todays_secrets(Some(&opened.plan().manifest))?;
    if let Some(causes) = causes {
        let said: Vec<&Forecast> = forecasts.iter().collect();
        let roots = groups(&said).len().max(causes.len());
        let closing = why::plan::closing(opened.plan(), forecasts, roots, lacking, estimate);
        let text = format!("{}{closing}", why::causes::text(&causes));
        output::cleaned(&redactor, text.trim_start_matches('\n').to_owned())?;
        return Ok(());
    }
    output::cleaned(
        &redactor,
        why::plan::text(opened.plan(), forecasts, lacking, estimate, all, &|said| blamed.of(said)),
    )?;
    Ok(())
}
