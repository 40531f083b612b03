//! What only the plan tells: test scripts that commits lack, and whatever else a run would not begin without.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ask::{Ask, Facts, Found};
use super::{Finding, Level};
use crate::manifest::{Asset, AssetSource, Manifest};
use crate::plan::expand::expand;
use crate::plan::{self, Ask as Asks, AssetFact, Intake, Missing, Plan, points};
use crate::step::assets::{is_there, stat};
use crate::step::secrets::unset;
use crate::store::Store;

/// Of larger manifests the actions are not looked at one by one.
const ACTIONS: u64 = 500_000;
/// Lacking things that have lines of their own.
const LINES: usize = 20;

/// Plans the manifest with what is known, and tells what is lacking and has not been told.
pub(super) fn examine(ask: &Ask, manifest: &Arc<Manifest>, facts: Facts) -> Found {
    let actions = points::count(&manifest.pipeline);
    if actions > ACTIONS {
        let what = format!("its {actions} actions are too many to look at each");
        return Found::line(Finding::bad(Level::Unknown, "plan", "", what, "`flow plan` tells, and takes its time"));
    }
    let mut intake = Intake::of(manifest.version.clone());
    let Facts { tools, devices, commits, described, said } = facts;
    let variables = ask.question.machine.variables.clone();
    let facts = plan::Facts { variables, tools, devices, commits, described, ..plan::Facts::default() };
    let plan = expand(manifest.clone(), facts, &mut intake);
    let mut found = Found::default();
    let unset: Vec<Missing> =
        plan.nodes.iter().filter_map(|node| node.ask.env()).flat_map(|env| unset(env).collect::<Vec<_>>()).collect();
    let all = plan.nodes.iter().flat_map(|node| &node.missing).chain(&unset);
    let all = all.filter(|missing| !said.contains(&missing.what));
    let lacking = Missing::distinct(all);
    for missing in lacking.iter().take(LINES) {
        let level = if missing.fatal { Level::Fail } else { Level::Warn };
        let line = Finding::bad(level, "manifest", "", missing.what.clone(), missing.hint.clone());
        found.lines.push(match missing.place {
            Some(place) => line.at(manifest, place),
            None => line,
        });
    }
    if lacking.len() > LINES {
        let what = format!("{} more things are lacking", lacking.len() - LINES);
        found.lines.push(Finding::bad(Level::Fail, "manifest", "", what, "`flow plan` lists them"));
    }
    found.lines.extend(assets(ask, manifest));
    found.lines.extend(scripts(&plan));
    found
}

/// A line for each asset: whether it is here. Nobody is asked for one that is not.
fn assets(ask: &Ask, manifest: &Manifest) -> Vec<Finding> {
    let store = Store::to_read(&ask.question.store);
    let path = ask.question.machine.variables.get("PATH").cloned().unwrap_or_default();
    let curl = std::env::split_paths(&path).any(|folder| folder.join("curl").is_file());
    let line = |asset: &Asset| {
        let name = asset.name.value.as_str();
        let line = match (&asset.source.value, AssetFact::fetched(asset)) {
            (AssetSource::Path(path), _) => match stat(path) {
                Ok(_) => Finding::ok("asset", name, format!("{}, read in place", path.display())),
                Err(error) => {
                    let what = format!("{} cannot be read: {error}", path.display());
                    Finding::bad(Level::Fail, "asset", name, what, "put it there, or correct its path")
                }
            },
            (_, Some(fact)) if is_there(&store, &fact) => Finding::ok("asset", name, "it is in the store"),
            _ if curl => Finding::ok("asset", name, "not fetched yet: the first run that needs it fetches it"),
            _ => Finding::bad(Level::Fail, "asset", name, "curl, which fetches it, is not there", "install curl"),
        };
        line.at(manifest, asset.source.place)
    };
    manifest.pipeline.assets.iter().map(line).collect()
}

/// A line for each repository: how many of its commits have a test script.
fn scripts(plan: &Plan) -> Vec<Finding> {
    let mut with: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut without: Vec<((usize, usize), String)> = Vec::new();
    for node in &plan.nodes {
        let (Asks::Test(test), Some(commit)) = (&node.ask, node.point.commit) else { continue };
        // A test that runs something else needs none; where the folder is not known, that has been said.
        if !test.runs_script() || test.script_path.as_os_str().is_empty() {
            continue;
        }
        match test.script {
            Some(_) => {
                with.insert(commit);
            }
            None if without.iter().any(|(known, _)| *known == commit) => {}
            None => without.push((commit, test.script_path.display().to_string())),
        }
    }
    let line = |(index, repo): (usize, &crate::manifest::Repo)| {
        let name = repo.name.value.as_str();
        let have = with.iter().filter(|(repo, _)| *repo == index).count();
        let lack: Vec<&((usize, usize), String)> = without.iter().filter(|((repo, _), _)| *repo == index).collect();
        let Some((_, path)) = lack.first() else {
            let all =
                if have == 1 { "the one commit has its".into() } else { format!("all {have} commits have their") };
            return (have > 0).then(|| Finding::ok("tests", name, format!("{all} script")));
        };
        let what = format!("{} of {} commits have no script: no {path}", lack.len(), have + lack.len());
        let level = if have == 0 { Level::Fail } else { Level::Warn };
        let fix =
            "write the scripts, or correct `tests`; without one a job ends as NO_TEST_SCRIPT, and no agent is paid";
        Some(Finding::bad(level, "tests", name, what, fix).at(&plan.manifest, repo.name.place))
    };
    plan.manifest.pipeline.repos.iter().enumerate().filter_map(line).collect()
}
