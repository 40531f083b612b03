//! Whether an agent is shown the answer before it begins: its prompt, its files, its arguments, its tree, and the installed copies
//! of the package within its reach.
//!
//! What counts as the answer, `leak` says; what an agent looks up while it works, `integrity` sees.

use std::path::Path;

use crate::outcome::{Cause, Failure};
use crate::plan::AgentAsk;
use crate::step::context::{Context, fault};
use crate::step::integrity::AtHand;
use crate::step::leak::{Leak, Telling};

/// What of the human's change an agent would be shown.
///
/// # Errors
/// If it would be, and the manifest does not let it run all the same; or if something of it cannot be read.
pub fn leaked(
    context: &Context,
    ask: &AgentAsk,
    telling: &Telling,
    work: &Path,
    at_hand: &[AtHand],
) -> Result<Option<Leak>, Failure> {
    if telling.is_empty() {
        return Ok(None);
    }
    let prompt = ask.prompt.map(|prompt| context.get(&prompt)).transpose()?;
    let unread = |error: std::io::Error| fault(&format!("{}: {error}", work.display()));
    let in_prompt = prompt.map(|prompt| telling.in_prompt(&prompt, work)).transpose().map_err(unread)?.flatten();
    let mut leak = in_prompt;
    if leak.is_none() {
        leak = leaked_otherwise(context, ask, telling, work)?;
    }
    if leak.is_none() {
        leak = telling.in_tree(work).map_err(unread)?;
    }
    for copy in at_hand {
        if let (None, AtHand::Copy { site, .. }) = (&leak, copy) {
            let found = telling.in_copy(site, work).map_err(unread)?;
            leak = found.map(|leak| Leak { place: format!("{copy}: its {}", leak.place), ..leak });
        }
    }
    match leak {
        Some(leak) if !ask.leaks_recorded => Err(Failure::new(Cause::LeakedAnswer, &leak.to_string())),
        other => Ok(other),
    }
}

/// The same of what else it is given: files, arguments, variables, the config. What calls no model is told nothing by them.
fn leaked_otherwise(
    context: &Context,
    ask: &AgentAsk,
    telling: &Telling,
    work: &Path,
) -> Result<Option<Leak>, Failure> {
    // What flow itself plays is told what to leave, and asks nobody.
    let played = ask.argv.first().is_some_and(|program| program.sole_hole() == Some("flow"));
    if ask.free || played {
        return Ok(None);
    }
    let mut given: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, digest) in &ask.files {
        given.extend(
            digest.map(|digest| context.get(&digest)).transpose()?.map(|bytes| (format!("the file {name}"), bytes)),
        );
    }
    if let Some((_, bytes, _)) = &ask.config {
        given.push(("the config".into(), context.get(bytes)?));
    }
    let words: Vec<String> = ask.argv.iter().map(ToString::to_string).chain(ask.env.hashed.values().cloned()).collect();
    given.push(("an argument or a variable".into(), words.join("\n").into_bytes()));
    for (place, bytes) in given {
        let leak = telling.in_prompt(&bytes, work).map_err(|error| fault(&format!("{}: {error}", work.display())))?;
        if let Some(leak) = leak {
            return Ok(Some(Leak { place, ..leak }));
        }
    }
    Ok(None)
}
