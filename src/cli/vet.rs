//! `flow vet`: which commits are worth paying agents for. Runs the gate, the human's change and one A/A control a commit.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::cli::fault::Fault;
use crate::cli::open::{Opened, read_for};
use crate::cli::output;
use crate::cli::run::{RunArgs, run_selected};
use crate::cli::select::{self, Selected};
use crate::manifest::Purpose;
use crate::plan::Plan;
use crate::plan::graph::upstream_of;
use crate::report::jobs;
use crate::report::vetting::{Found, Vetting, reverts, vet as find};
use crate::store::files::write_durable;
use crate::text::{counted, harmless, wrap};

/// Arguments of `flow vet`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow vet pipelines/vllm.kdl             every commit of the list; no agent is
                                          paid
  flow vet m.kdl --out vetted/vllm.kdl    write it there

Of each commit the gate, the human's change and one A/A control are run. The
file has the vetted commits, with the effect that the human's change has here,
and the others with the reason why they are out; it is for git. In the
manifest's `repo`, `vetted \"vetted.kdl\"` then pays agents for vetted commits
alone. What is measured here is served when the manifest is run.

Exit codes: as of `flow run`; 3 too where a commit is not settled: then nothing
is written.")]
pub struct VetArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Where to write it [default: the file that `vetted` names, else `vetted.kdl` beside the manifest]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Vets the commits of a manifest.
///
/// # Errors
/// If the manifest has flaws, the machine lacks something, or the file cannot be written.
pub async fn vet(args: VetArgs) -> Result<ExitCode, Fault> {
    let VetArgs { mut run, out } = args;
    run.purpose = Purpose::Vet;
    let manifest = Arc::new(read_for(&run.manifest, Purpose::Vet)?);
    let path = run.manifest.clone();
    let repos = manifest.pipeline.repos.len();
    if out.is_some() && repos != 1 {
        let hint = "say `vetted \"FILE\"` in each `repo` of the manifest";
        return Err(Fault::hint(2, format!("--out names one file, and the manifest has {repos} repositories"), hint));
    }
    let opened = Opened::with(manifest, &run.manifest, &run.places, true).await?;
    let last_class = jobs::last_classes(opened.plan(), &opened.index);
    let selected = select::wanted(opened.plan(), &run.selection, &|job| last_class.get(&job).cloned())?;
    let selected = without_reverts(opened.plan(), selected);
    let json = run.json;
    let finished = run_selected(run, opened, selected).await?;
    let mut code = finished.code;
    for vetting in find(&finished.plan, &finished.store, &finished.index) {
        let file = out.clone().unwrap_or_else(|| place(&finished.plan, &vetting, &path));
        let [vetted, out, open] = vetting.counts();
        let name = &finished.plan.manifest.pipeline.repos[vetting.repo].name.value;
        let say = |text: String| match json {
            true => output::say(&text),
            false => output::data(format!("{text}\n")).unwrap_or_default(),
        };
        for (id, found) in &vetting.commits {
            let id = id.get(..8).unwrap_or(id);
            let line = match found {
                Found::Vetted { effect, interval, .. } => format!("  {id}  vetted      {effect} {interval}"),
                Found::Out { because, evidence } => format!("  {id}  {because:10}  {evidence}"),
                Found::Open(why) => format!("  {id}  {:10}  {why}", "open"),
            };
            say(harmless(&wrap(&line, output::width()).join("\n                        ")));
        }
        if json {
            let found = serde_json::json!({"vetted": vetted, "out": out, "open": open});
            output::json(&serde_json::json!({"event": "vetted", "repo": name, "file": file, "found": found}))?;
        }
        if open > 0 {
            say(format!("{}: {} not settled: {} is not written", name, counted(open, "commit"), file.display()));
            code = ExitCode::from(3);
            continue;
        }
        write_durable(&file, vetting.text().as_bytes())
            .map_err(|error| Fault::hint(3, error.to_string(), "name a folder that can be written with --out FILE"))?;
        say(format!("{name}: {vetted} of {} vetted, {out} out: {}", counted(vetted + out, "commit"), file.display()));
        if finished.plan.manifest.pipeline.repos[vetting.repo].vetted.is_none() {
            let named = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            say(format!("pay agents for these alone: say `vetted \"{named}\"` in `repo {name}`"));
        }
    }
    Ok(code)
}

/// Where the file of a repository lies.
fn place(plan: &Plan, vetting: &Vetting, manifest: &Path) -> PathBuf {
    let repo = &plan.manifest.pipeline.repos[vetting.repo];
    let name = match plan.manifest.pipeline.repos.len() {
        1 => "vetted.kdl".to_owned(),
        _ => format!("vetted-{}.kdl", repo.name.value),
    };
    repo.vetted.as_ref().map_or_else(|| manifest.with_file_name(name), |vetted| vetted.file.clone())
}

/// Reverts are out whatever they gain: nothing is measured of them.
fn without_reverts(plan: &Plan, selected: Selected) -> Selected {
    let is = |job: &usize| {
        let classify = plan.jobs[*job].classify;
        classify.and_then(|classify| plan.nodes[classify].point.commit).is_some_and(|commit| reverts(plan, commit))
    };
    let jobs: Vec<usize> = selected.jobs.into_iter().filter(|job| !is(job)).collect();
    let ends: Vec<usize> = jobs.iter().flat_map(|job| plan.jobs[*job].nodes.iter().copied()).collect();
    let mut nodes = vec![false; plan.nodes.len()];
    for node in upstream_of(&plan.nodes, &ends) {
        nodes[node] = selected.nodes[node];
    }
    Selected { jobs, nodes }
}
