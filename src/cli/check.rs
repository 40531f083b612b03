//! `flow check`: reads manifests and files for import, and reports every flaw in them. Needs no tool, no variable and no
//! repository.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::fault::Fault;
use crate::cli::open::lacks;
use crate::cli::reused::lacking_runs;
use crate::cli::{Places, open, output};
use crate::manifest::{self, Manifest, Pipeline, Repo, RepoSource, goals_line};
use crate::plan::Missing;
use crate::text::{counted, wrap};

/// Arguments of `flow check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow check pipelines/quickstart.kdl   asks for no tool and no repository
  flow check pipelines/*.kdl            each alone, and their names together;
                                        those without a pipeline as imports
  flow check m.kdl --json               for programs

Exit codes: 0 no flaw; 2 flaws, each underlined with a hint.")]
pub struct CheckArgs {
    /// The manifests
    #[arg(required = true, value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Checks manifests, each on its own, and the names of all of them together.
///
/// # Errors
/// Of the last manifest with flaws; those before it are printed.
pub fn check(args: &CheckArgs) -> Result<ExitCode, Fault> {
    if args.json {
        return for_programs(args);
    }
    let mut last = None;
    // Lines that go on are set in by four.
    let width = output::width() - 4;
    let mut names: Vec<(String, PathBuf)> = Vec::new();
    for path in &args.manifests {
        open::there(path)?;
        match manifest::read(path) {
            Ok(manifest) => {
                let pipeline = &manifest.pipeline;
                let commits: usize = pipeline.repos.iter().map(|repo| repo.commits.len()).sum();
                let found = format!(
                    "{}: pipeline {}, {}, {}, {}: no\u{a0}flaw",
                    path.display(),
                    pipeline.name.value,
                    counted(commits, "commit"),
                    counted(pipeline.candidates.len(), "candidate"),
                    counted(pipeline.steps.len(), "step")
                );
                output::data(format!("{}\n", wrap(&found, width).join("\n    ")))?;
                for said in [goals_line(pipeline), elsewhere(pipeline), away(pipeline)].into_iter().flatten() {
                    output::data(format!("    {}\n", wrap(&said.replace(" %", "\u{a0}%"), width).join("\n    ")))?;
                }
                for notice in &manifest.notices {
                    let (file, line) = manifest.line_of(notice.place);
                    let said = format!("note: {file}:{line}: {}", notice.value);
                    output::data(format!("    {}\n", wrap(&said, width).join("\n    ")))?;
                }
                for said in open::unknown_jobs(&manifest) {
                    output::data(format!("    {}\n", wrap(&format!("note: {said}"), width).join("\n    ")))?;
                }
                if let Some(fault) = lacks(&manifest, &runs_lacking(path, &manifest).iter().collect::<Vec<_>>()) {
                    last.replace(fault).map(|before| super::fault::report(&before));
                }
                if let Some(message) = shared(&names, path, pipeline) {
                    last.replace(Fault::hint(2, message, ONE_NAME)).map(|before| super::fault::report(&before));
                }
                names.push((pipeline.name.value.clone(), path.clone()));
            }
            Err(flaws) if flaws.flaws().iter().all(|flaw| flaw.kind() == "no-pipeline") => {
                let found = format!("{}: no pipeline, to be imported: no\u{a0}flaw", path.display());
                output::data(format!("{}\n", wrap(&found, width).join("\n    ")))?;
            }
            Err(flaws) => {
                let fault = Fault::drawn(2, flaws);
                if let Some(before) = last.replace(fault) {
                    super::fault::report(&before);
                }
            }
        }
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Why two manifests may not share the name of their pipelines.
const ONE_NAME: &str = "a pipeline's name is its identity in budget, history and `why`: rename one";

/// That a manifest before holds a pipeline of the same name.
fn shared(names: &[(String, PathBuf)], path: &Path, pipeline: &Pipeline) -> Option<String> {
    let (_, other) = names.iter().find(|(name, _)| *name == pipeline.name.value.as_str())?;
    let same = std::fs::canonicalize(other).ok() == std::fs::canonicalize(path).ok();
    let said = || format!("{} and {} both hold a pipeline `{}`", other.display(), path.display(), pipeline.name.value);
    (!same).then(said)
}

/// Checks manifests and prints what was found as one document.
fn for_programs(args: &CheckArgs) -> Result<ExitCode, Fault> {
    let mut names: Vec<(String, PathBuf)> = Vec::new();
    let (mut found, mut bad) = (Vec::new(), false);
    for path in &args.manifests {
        open::there(path)?;
        found.push(match manifest::read(path) {
            Ok(manifest) => {
                let pipeline = &manifest.pipeline;
                let shared = shared(&names, path, pipeline);
                bad |= shared.is_some();
                names.push((pipeline.name.value.to_string(), path.clone()));
                let shared = shared.map(|message| json!({"kind": "shared-name", "message": message, "help": ONE_NAME}));
                let lacking = runs_lacking(path, &manifest);
                bad |= !lacking.is_empty();
                let lacking = lacking.into_iter().map(|lacks| {
                    let (file, line) = lacks.place.map(|place| manifest.line_of(place)).unzip();
                    json!({"kind": "no-such-run", "message": lacks.what, "help": lacks.hint, "file": file, "line": line})
                });
                json!({
                    "manifest": path,
                    "pipeline": pipeline.name.value,
                    "commits": pipeline.repos.iter().map(|repo| repo.commits.len()).sum::<usize>(),
                    "candidates": pipeline.candidates.len(),
                    "steps": pipeline.steps.len(),
                    "flaws": shared.into_iter().chain(lacking).collect::<Vec<_>>(),
                    "notices": manifest.notices.iter().map(|notice| {
                        let (file, line) = manifest.line_of(notice.place);
                        json!({"message": notice.value, "file": file, "line": line})
                    }).chain(open::unknown_jobs(&manifest).into_iter().map(|said| json!({"message": said})))
                    .collect::<Vec<_>>(),
                })
            }
            Err(flaws) => {
                let imported = flaws.flaws().iter().all(|flaw| flaw.kind() == "no-pipeline");
                bad |= !imported;
                let flaws = flaws.flaws().iter().filter(|_| !imported).map(|flaw| {
                    json!({
                        "kind": flaw.kind(),
                        "message": flaw.message(),
                        "help": flaw.advice(),
                        "file": flaw.file(),
                        "line": flaw.line(),
                    })
                });
                json!({"manifest": path, "pipeline": null, "flaws": flaws.collect::<Vec<_>>()})
            }
        });
    }
    output::json(&json!({"manifests": found}))?;
    Ok(ExitCode::from(if bad { 2 } else { 0 }))
}

/// The runs that a manifest names and its store does not have.
fn runs_lacking(path: &Path, manifest: &Manifest) -> Vec<Missing> {
    let places = Places { cache: std::env::var_os("FLOW_CACHE").map(PathBuf::from), repos: Vec::new(), engine: None };
    lacking_runs(manifest, &open::store_root(path, &places))
}

/// That repositories are not where the manifest says: no flaw, since another machine or `--repo` may have them.
fn away(pipeline: &Pipeline) -> Option<String> {
    let path = |repo: &Repo| match &repo.source.value {
        RepoSource::Path(path) if !path.exists() => Some(format!("{} at {}", repo.name.value, path.display())),
        _ => None,
    };
    let away: Vec<String> = pipeline.repos.iter().filter_map(path).collect();
    (!away.is_empty()).then(|| format!("repositories that are not there: {}", away.join(", ")))
}

/// That scripts of tests lie in a folder that only a variable names: no flaw, and not looked at here.
fn elsewhere(pipeline: &Pipeline) -> Option<String> {
    let tests = pipeline.repos.iter().flat_map(|repo| repo.tests.iter().map(move |tests| (repo, tests)));
    let dirs: Vec<String> = tests
        .filter(|(_, tests)| tests.dir.value.holes().next().is_some())
        .map(|(repo, tests)| format!("{} in {}", repo.name.value, tests.dir.value))
        .collect();
    (!dirs.is_empty()).then(|| format!("test scripts that are yours to give, not looked at here: {}", dirs.join(", ")))
}
