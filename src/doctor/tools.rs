//! The manifest's tools: where they are, what they answer to their probes, and whether their code is what their version says.

use std::path::{Path, PathBuf};

use super::ask::{Ask, Found};
use super::python::{Editable, editables, environments, interpreter};
use super::{Finding, Level};
use crate::manifest::{Manifest, Tool};
use crate::plan::{Missing, ToolFact};
use crate::run::prepare::{Located, is_script, locate};
use crate::step::processes::asked_in;
use crate::text::shorten;

/// Columns of an answer that are shown.
const SHOWN: usize = 120;

/// Looks at one tool.
pub(super) async fn examine(ask: Ask, index: usize) -> Found {
    let question = ask.question.clone();
    let Some((manifest, tool)) = question.manifest.as_ref().and_then(|m| Some((m, m.pipeline.tools.get(index)?)))
    else {
        return Found::default();
    };
    let name = &tool.name.value;
    let mut found = Found::default();
    let located = match locate(tool, &question.machine) {
        Ok(located) => located,
        Err(missing) => return lacks(manifest, tool, missing),
    };
    let (path, script) = (located.path.clone(), is_script(&located.path));
    if let Some(gone) = interpreter(&path).filter(|interpreter| !interpreter.exists()) {
        let what = format!("the first line of {} names {}, which is not there", path.display(), gone.display());
        let hint = "make its environment anew, or correct the tool's path";
        return lacks(manifest, tool, missing(tool, what, hint));
    }
    let identity = match answers(&ask, &located).await {
        Ok(identity) => identity,
        Err(why) => {
            let what = format!("the probe {why}");
            let mut found = lacks(manifest, tool, missing(tool, what, "run it by hand, in the folder /"));
            for line in &mut found.lines {
                line.level = ask.level(line.level);
            }
            return found;
        }
    };
    let mut answers = identity.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = match (answers.next(), answers.count()) {
        (None, _) => path.display().to_string(),
        (Some(first), 0) => format!("{}, {}", shorten(first, SHOWN), path.display()),
        (Some(first), more) => format!("{} and {more} more lines, {}", shorten(first, SHOWN), path.display()),
    };
    found.lines.push(if located.probes.is_empty() && script {
        let what = format!("{} is a script without a probe: what it starts may change unseen", path.display());
        Finding::bad(Level::Warn, "tool", name, what, "add a probe: probe \"--version\"").at(manifest, tool.name.place)
    } else {
        Finding::ok("tool", name, said)
    });
    for folder in located.watch.iter().filter(|folder| !folder.exists()) {
        let what = format!("{}, which it watches, is not there", folder.display());
        let line = Finding::bad(Level::Warn, "tool", name, what, "correct the tool's `watch`");
        found.lines.push(line.at(manifest, tool.name.place));
    }
    if let Some(folder) = located.source.as_ref().filter(|folder| !folder.is_dir()) {
        let what = format!("the source tree {} cannot be read: it is no folder", folder.display());
        found.add(lacks(
            manifest,
            tool,
            missing(tool, what, "correct the path of the tool's `source`, or leave it out"),
        ));
        return found;
    }
    let sought = path.clone();
    let seen = tokio::task::spawn_blocking(move || {
        environments(&sought).iter().flat_map(|prefix| editables(prefix)).collect::<Vec<Editable>>()
    });
    for editable in seen.await.unwrap_or_default() {
        found.lines.push(of_editable(manifest, tool, located.source.as_deref(), &editable));
    }
    let fact =
        ToolFact { path, identity, asked: None, stat: String::new(), probes: located.probes, source: None, script };
    found.facts.tools.insert(name.clone(), Ok(fact));
    found
}

fn missing(tool: &Tool, what: String, hint: &str) -> Missing {
    Missing { what, hint: hint.to_owned(), place: Some(tool.path.place), fatal: true }
}

/// A tool that a run would not begin without.
fn lacks(manifest: &Manifest, tool: &Tool, missing: Missing) -> Found {
    let line = Finding::bad(Level::Fail, "tool", &tool.name.value, missing.what.clone(), missing.hint.clone());
    let mut found = Found::line(line.at(manifest, missing.place.unwrap_or(tool.name.place)));
    found.facts.said.insert(missing.what.clone());
    found.facts.tools.insert(tool.name.value.clone(), Err(missing));
    found
}

/// What it answers to all its probes, as the plan asks it.
async fn answers(ask: &Ask, tool: &Located) -> Result<String, String> {
    let mut answers: Vec<String> = Vec::new();
    for arguments in &tool.probes {
        let argv: Vec<String> =
            std::iter::once(tool.path.display().to_string()).chain(arguments.iter().cloned()).collect();
        let said = ask.answer(&argv, &asked_in(&ask.question.machine.variables), Path::new("/")).await;
        let said = said.map_err(|why| format!("`{}`: {why}", argv.join(" ")))?;
        answers.push(String::from_utf8_lossy(&said).trim_end().to_owned());
    }
    Ok(answers.join("\n"))
}

fn of_editable(manifest: &Manifest, tool: &Tool, source: Option<&Path>, editable: &Editable) -> Finding {
    let name = &tool.name.value;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let covered = match (source, &editable.from) {
        (Some(source), Some(from)) => {
            let (source, from): (PathBuf, PathBuf) = (real(source), real(from));
            from.starts_with(&source) || source.starts_with(&from)
        }
        _ => false,
    };
    let from = editable.from.as_ref().map_or_else(|| "a folder elsewhere".into(), |from| from.display().to_string());
    if covered {
        return Finding::ok("editable", name, format!("{} runs out of {from}, which `source` names", editable.name));
    }
    let what = format!(
        "{} is installed editable: it runs out of {from}, whose changes no version tells and no key holds",
        editable.name
    );
    let path = editable.from.as_ref().map_or_else(|| "…".into(), |from| from.display().to_string());
    let fix = format!("add `source \"{path}\"` to the tool, or install the package without -e");
    Finding::bad(Level::Warn, "editable", name, what, fix).at(manifest, tool.name.place)
}
