//! Which images a plan is made with: a tag is asked for at an engine, a file is read.
//!
//! A run brings an image that is not here, as it fetches a repository; a plan only looks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::memory::Memory;
use crate::container::{ANSWERS, Engine, Kind, client};
use crate::manifest::{Body, ImageSource, Pipeline, Spanned};
use crate::plan::tools::tool_stat;
use crate::plan::{ImageFact, Missing};
use crate::process::answer;

/// How long bringing an image may take.
const PULL: Duration = Duration::from_secs(2 * 3600);
/// What is to be done where no engine answers.
const INSTALL: &str = "install podman, docker or apptainer; `flow doctor` says what is wrong with each of them";

/// What the images are of all recipes that a step builds by.
pub(super) async fn facts(
    pipeline: &Pipeline,
    variables: &BTreeMap<String, String>,
    memory: &mut Memory,
    fetch: bool,
    notices: &mut Vec<String>,
) -> BTreeMap<ImageSource, Result<ImageFact, Missing>> {
    let used = pipeline.steps.iter().filter_map(|step| match &step.body {
        Body::Environment(body) => pipeline.recipes.get(&body.recipe.as_ref()?.value),
        _ => None,
    });
    let mut facts = BTreeMap::new();
    let mut engine: Option<Result<Engine, String>> = None;
    let mut seen = BTreeSet::new();
    for image in used.flat_map(|recipe| &recipe.cases).filter_map(|case| case.image.as_ref()) {
        let source = &image.source;
        if !seen.insert(&source.value) {
            continue;
        }
        let fact = match &source.value {
            ImageSource::Digest { .. } => ImageFact::written(&source.value).map(Ok),
            ImageSource::File(path) => Some(file(path, source, memory)),
            ImageSource::Tag(name) => {
                if engine.is_none() {
                    engine = Some(Engine::choose(&Kind::ALL, variables, ANSWERS).await);
                }
                let question = format!("image {name}");
                let known = memory.recall(&question).filter(|_| !fetch).map(|known| ImageFact {
                    identity: known.answer().to_owned(),
                    ..ImageFact::untold(&source.value, "it is not here".to_owned())
                });
                let told = match &engine {
                    Some(Ok(engine)) => tag(engine, name, source, variables, fetch, notices).await,
                    Some(Err(why)) => Err(missing(source, why, INSTALL)),
                    None => continue,
                };
                Some(match (told, known) {
                    (Ok(fact), _) if fact.trouble.is_none() => {
                        if memory.recall(&question).is_none_or(|known| known.answer() != fact.identity) {
                            memory.learn(question, fact.identity.clone());
                        }
                        Ok(fact)
                    }
                    // What is only looked at is what it was when it was run.
                    (_, Some(known)) => Ok(known),
                    (told, None) => told,
                })
            }
        };
        facts.extend(fact.map(|fact| (source.value.clone(), fact)));
    }
    facts
}

fn missing(source: &Spanned<ImageSource>, why: &str, hint: &str) -> Missing {
    let what = format!("the digest of the image {}: {why}", source.value);
    Missing { what, hint: hint.to_owned(), place: Some(source.place), fatal: true }
}

/// A file is what its bytes are.
fn file(path: &Path, source: &Spanned<ImageSource>, memory: &mut Memory) -> Result<ImageFact, Missing> {
    let stat = tool_stat(path);
    let digest = memory.bytes_of(path, &stat);
    let (digest, _) = digest.map_err(|error| {
        missing(source, &format!("it cannot be read: {error}"), "build it with `apptainer build`, or correct its path")
    })?;
    let identity = format!("sha256:{digest}");
    Ok(ImageFact { identity, runs: path.display().to_string(), stat: Some(stat), trouble: None })
}

/// A tag is what the engine of this machine has under it.
async fn tag(
    engine: &Engine,
    name: &str,
    source: &Spanned<ImageSource>,
    variables: &BTreeMap<String, String>,
    fetch: bool,
    notices: &mut Vec<String>,
) -> Result<ImageFact, Missing> {
    if engine.kind == Kind::Apptainer {
        let why = "apptainer does not tell it";
        let hint = format!("write it: image \"{name}@sha256:…\", or the path of a `.sif` file");
        return Err(missing(source, why, &hint));
    }
    let mut found = engine.image(name, variables).await;
    if found.is_err() && fetch {
        let argv = engine.pull(name, Path::new(""));
        found = match answer(&argv, &client(variables), Path::new("/"), PULL).await {
            Ok(_) => engine.image(name, variables).await,
            Err(why) => Err(why),
        };
    }
    match found {
        Ok(found) => Ok(ImageFact { identity: found.digest, runs: found.id, stat: None, trouble: None }),
        // The commits whose environment it is fail for it, and no others.
        Err(why) => {
            let word = engine.kind.word();
            if !fetch {
                notices.push(format!("{word} does not have the image {name}; `flow run` brings it"));
            }
            Ok(ImageFact::untold(&source.value, format!("{word} has no image {name}: {why}")))
        }
    }
}
