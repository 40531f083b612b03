//! The `command` step: the user's own program with declared input and output files. Argv, never a shell.

use std::path::Path;

use crate::attempt::LimitUse;
use crate::hostile;
use crate::key::Value;
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{CommandAsk, Role};
use crate::process;
use crate::redact::Redactor;
use crate::step::Draft;
use crate::step::container::Where;
use crate::step::context::{Context, LARGEST_BLOB, OUTPUT_LIMIT, Place, blob_lost, fault};
use crate::step::done::{Done, Inputs};
use crate::step::processes::{Command, failure_of};
use crate::step::secrets::redactor;

/// What the attempts of this kind mean.
pub(super) const FORMAT: u16 = 1;

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: &CommandAsk) -> Draft<'a> {
    draft.push("argv", Value::List(ask.argv.iter().map(ToString::to_string).collect()));
    draft.env(&ask.env);
    for (name, digest) in &ask.files {
        draft.push(&format!("in {name}"), Value::Blob(*digest));
    }
    let roles: Vec<Role> = draft.plan.nodes[draft.node].links.iter().map(|link| link.role.clone()).collect();
    for role in roles {
        if let Role::Named { input, output } = &role {
            draft.input(&format!("in {input}"), &role, output);
        }
    }
    draft.push("outputs", Value::List(ask.outputs.iter().map(|(name, file)| format!("{name} {file}")).collect()));
    let facts = &draft.plan.facts;
    draft.tools(facts, &ask.tools);
    draft
}

/// Runs the command.
pub async fn run(context: &Context, ask: &CommandAsk, inputs: &Inputs, place: &Place) -> Done {
    match attempt(context, ask, inputs, place).await {
        Ok(done) => done,
        Err(failure) => Done::failed(failure),
    }
}

async fn attempt(context: &Context, ask: &CommandAsk, inputs: &Inputs, place: &Place) -> Result<Done, Failure> {
    if let Some(failure) = context.changed_tool(&ask.tools) {
        return Err(failure);
    }
    let secrets = context.secrets(&ask.env.secrets).await?;
    let argv = tokio::task::block_in_place(|| prepare(context, ask, inputs, place))?;
    let command = Command {
        argv,
        env: &ask.env,
        extra: Vec::new(),
        stdin: None,
        secrets: &secrets,
        cwd: place.dir.join("out"),
        mark: None,
        serve: None,
        label: "command".into(),
        timeout: ask.timeout,
        limit: OUTPUT_LIMIT,
        private: None,
        aside: None,
        group: false,
        inside: Where::Here,
        durable: false,
        sandbox: None,
    };
    // Only a supervisor keeps a command off the cores that others measure on.
    let end = if place.slots.is_empty() && place.cores.is_empty() && secrets.is_empty() {
        context.plain(place, command).await?
    } else {
        context.supervised(place, command).await?
    };
    if let Some(failure) = context.changed_tool(&ask.tools) {
        return Err(failure);
    }
    tokio::task::block_in_place(|| read(context, ask, place, &redactor(&secrets), &end))
}

fn prepare(context: &Context, ask: &CommandAsk, inputs: &Inputs, place: &Place) -> Result<Vec<String>, Failure> {
    let dir = context.folder(place, "in")?;
    let out = context.folder(place, "out")?;
    let give = |name: &str, digest| {
        let path = dir.join(name);
        match context.store.cas.copy_to(&digest, &path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(blob_lost(&digest)),
            Err(error) => Err(fault(&error.to_string())),
        }
    };
    for (name, digest) in &ask.files {
        give(name, *digest)?;
    }
    for (role, _) in &inputs.0 {
        if let Role::Named { input, output } = role {
            give(input, inputs.blob(role, output)?)?;
        }
    }
    let places = |name: &str| {
        if let Some(input) = name.strip_prefix("in.") {
            return Some(dir.join(input).display().to_string());
        }
        let output = name.strip_prefix("out.")?;
        ask.outputs.get(output).map(|file| out.join(file).display().to_string())
    };
    context.fill(&ask.argv, &places)
}

fn read(
    context: &Context,
    ask: &CommandAsk,
    place: &Place,
    redactor: &Redactor,
    end: &process::End,
) -> Result<Done, Failure> {
    let mut done = Done::succeeded();
    for (name, file) in [("stdout", "command.out"), ("stderr", "command.err")] {
        if let Some(digest) = context.keep(&context.stream(place, file, OUTPUT_LIMIT, redactor))? {
            done.logs.insert(name.into(), digest);
        }
    }
    if let Some(timeout) = ask.timeout {
        let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let met = matches!(end.exit, process::Exit::TimedOut { .. });
        done.limits.insert("timeout".into(), LimitUse { limit, used: end.wall_ms, met });
    }
    if let Some(mut failure) = failure_of(end, Cause::CommandFailed, Cause::TestTimeout) {
        let log = done.logs.get("stderr").copied();
        if let process::Exit::Code(code) = end.exit
            && let Some(line) = telling(&context.stream(place, "command.err", OUTPUT_LIMIT, redactor))
        {
            failure = Failure::new(failure.cause, &format!("exit code {code}: {line}")).exit(Some(code));
        }
        done.outcome = Outcome::Failed(failure.log(log));
        return Ok(done);
    }
    for (name, file) in &ask.outputs {
        match hostile::read_below(&place.dir, &Path::new("out").join(file), LARGEST_BLOB) {
            Ok(Some(bytes)) if redactor.found_in(&bytes).is_some() => {
                let evidence = format!("the output {name} ({file}) holds the value of a secret");
                done.outcome = Outcome::Failed(Failure::new(Cause::HoldsSecret, &evidence));
            }
            Ok(Some(bytes)) => done.output(name, Value::Blob(context.put(&bytes)?)),
            Ok(None) => {
                let evidence = format!("the output {name} ({file}) was not written");
                done.outcome = Outcome::Failed(Failure::new(Cause::OutputMissing, &evidence));
            }
            Err(error) => {
                let evidence = format!("the output {name} ({file}): {error}");
                done.outcome = Outcome::Failed(Failure::new(Cause::OutputMissing, &evidence));
            }
        }
    }
    Ok(done)
}

/// The end of standard error that is looked at for the line that tells most, in bytes.
const TAIL: usize = 16 * 1024;

/// The line of what a program complained of that says most: the last, but for advice where to read on.
fn telling(stderr: &[u8]) -> Option<String> {
    let tail = &stderr[stderr.len().saturating_sub(TAIL)..];
    let text = String::from_utf8_lossy(tail);
    let said = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let advice =
        |line: &&str| ["Try '", "Try `", "See '", "Usage:", "usage:"].iter().any(|lead| line.starts_with(lead));
    said().rev().find(|line| !advice(line)).or(said().next_back()).map(str::to_owned)
}

/// Puts copies of a served or executed command's outputs where the user wants them, if they are not there already.
///
/// # Errors
/// If one cannot be written.
pub fn publish(
    context: &Context,
    ask: &CommandAsk,
    outputs: &std::collections::BTreeMap<String, Value>,
) -> Result<(), Failure> {
    for (name, path) in &ask.publish {
        let Some(digest) = outputs.get(name).and_then(Value::as_blob) else { continue };
        if is_already(path, &digest) {
            continue;
        }
        let failed = |error: std::io::Error| fault(&format!("{}: {error}", path.display()));
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let bytes = context.get(&digest)?;
        crate::store::write_durable(path, &bytes).map_err(|error| fault(&error.to_string()))?;
    }
    Ok(())
}

fn is_already(path: &Path, digest: &crate::digest::Digest) -> bool {
    crate::digest::Digest::of_file(path).is_ok_and(|there| there == *digest)
}
