//! The `agent` step: an agent works in a sealed repository, and what it leaves is taken as a tree, however it ended.
//!
//! Runs the adapter's argv, which is data. Never runs git in the agent's repository, never reads a patch it wrote, never
//! trusts its exit code to say whether there is a patch.

use std::path::{Path, PathBuf};

use crate::attempt::{LimitUse, ProcessEnd, Usage};
use crate::digest::Digest;
use crate::git::{self, TakeError, TakeLimits};
use crate::hostile;
use crate::key::Value;
use crate::names::ObjectId;
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{AgentAsk, Role};
use crate::process;
use crate::redact::{Redactor, Secret};
use crate::step::Draft;
use crate::step::context::{Context, OUTPUT_LIMIT, Place, fault};
use crate::step::done::{Done, Inputs};
use crate::step::leak::{self, Leak, Telling};
use crate::step::processes::{Command, failure_of};
use crate::step::secrets::{private_places, redactor};
use crate::step::setup;

/// What the attempts of this kind mean.
pub(super) const FORMAT: u16 = 1;

/// How much of the end of the output is searched for usage.
const USAGE_READ: usize = 8 * 1024 * 1024;

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: &AgentAsk) -> Draft<'a> {
    draft.input("human commit", &Role::Checkout, "human");
    draft.text("sample", ask.sample.to_string());
    draft.input("tree", &Role::Checkout, "tree");
    draft.record.push_some("prompt", ask.prompt.map(Value::Blob));
    draft.record.push_some("config", ask.config.as_ref().map(|(value, _, _)| Value::Blob(*value)));
    draft.record.push_some("model", ask.model.as_ref().map(Value::text));
    draft.push("argv", Value::List(ask.argv.iter().map(ToString::to_string).collect()));
    for (name, digest) in &ask.files {
        draft.record.push_some(format!("file {name}"), digest.map(Value::Blob));
    }
    draft.env(&ask.env);
    let facts = &draft.plan.facts;
    draft.tools(facts, &ask.tools);
    draft.record.push_some("version", ask.version.as_ref().map(Value::text));
    if ask.human_change {
        draft.input("human tree", &Role::Checkout, "human tree");
    }
    draft.input("environment", &Role::Environment, "identity");
    draft
}

/// Runs the agent.
pub async fn run(context: &Context, repo: usize, ask: &AgentAsk, inputs: &Inputs, place: &Place) -> Done {
    match attempt(context, repo, ask, inputs, place).await {
        Ok(done) => done,
        Err(failure) => Done::failed(failure),
    }
}

/// Reads what an agent of a run that died had finished: its process ended by itself, and its supervisor wrote how.
pub async fn adopt(
    context: &Context,
    repo: usize,
    ask: &AgentAsk,
    inputs: &Inputs,
    place: &Place,
    end: &process::End,
) -> Done {
    let secrets = match context.secrets(&ask.env.secrets).await {
        Ok(secrets) => secrets,
        Err(failure) => return Done::failed(failure),
    };
    match read(context, repo, ask, inputs, place, &secrets, end) {
        Ok(done) => done,
        Err(failure) => Done::failed(failure),
    }
}

async fn attempt(
    context: &Context,
    repo: usize,
    ask: &AgentAsk,
    inputs: &Inputs,
    place: &Place,
) -> Result<Done, Failure> {
    let secrets = context.secrets(&ask.env.secrets).await?;
    if let Some(failure) = context.changed_tool(&ask.tools) {
        return Err(failure);
    }
    let private = Private::default();
    let Prepared { argv, setup, leak } =
        tokio::task::block_in_place(|| prepare(context, repo, ask, inputs, place, &secrets, &private))?;
    let end = context
        .supervised(
            place,
            Command {
                argv,
                env: &ask.env,
                extra: committer(),
                secrets: &secrets,
                cwd: place.dir.join("work"),
                label: "agent".into(),
                timeout: ask.timeout,
                limit: ask.limit.unwrap_or(OUTPUT_LIMIT),
                private: private.0.get().cloned(),
                group: true,
                durable: true,
            },
        )
        .await?;
    drop(private);
    if let Some(failure) = context.changed_tool(&ask.tools) {
        return Err(failure);
    }
    let mut done = tokio::task::block_in_place(|| read(context, repo, ask, inputs, place, &secrets, &end))?;
    done.logs.insert("setup".into(), setup);
    done.notes.extend(leak.map(|leak| format!("{}{leak}", leak::NOTE)));
    Ok(done)
}

/// Who an agent's commits are by: the sealed repository has no user, and git refuses to commit without one.
fn committer() -> Vec<(String, String)> {
    let names = ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name.to_owned(), "agent".to_owned()));
    let mails = ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name.to_owned(), "agent@localhost".to_owned()));
    names.into_iter().chain(mails).collect()
}

/// A private copy of a config with secrets in it, outside the store, removed when the attempt is over.
#[derive(Default)]
struct Private(std::cell::OnceCell<PathBuf>);

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(dir) = self.0.get() {
            let _ = hostile::remove_all(dir);
        }
    }
}

fn prepare(
    context: &Context,
    repo: usize,
    ask: &AgentAsk,
    inputs: &Inputs,
    place: &Place,
    secrets: &[Secret],
    private: &Private,
) -> Result<Prepared, Failure> {
    let checkout = |error: git::GitError| Failure::new(Cause::CheckoutFailed, &error.to_string());
    let mirror = context.mirror(repo)?;
    let work = context.folder(place, "work")?;
    let files = context.folder(place, "files")?;
    context.folder(place, "out")?;
    let tree = ObjectId::new(inputs.text(&Role::Checkout, "tree")?);
    git::write_tree(&mirror, &tree, &git::Changes::default(), &context.blobs(), &work, Some(&context.store.inflated()))
        .map_err(checkout)?;
    git::seal(&mirror, &tree, &context.store.packs(), &work).map_err(checkout)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = files.join(name);
        std::fs::write(&path, bytes).map_err(|error| fault(&format!("{}: {error}", path.display())))
    };
    for (name, digest) in &ask.files {
        if let Some(digest) = digest {
            write(name, &context.get(digest)?)?;
        }
    }
    if let Some(prompt) = &ask.prompt {
        write("prompt", &context.get(prompt)?)?;
    }
    let changes = context.changes(inputs.blob(&Role::Checkout, "human change")?)?;
    let human = git::diff(&mirror, &tree, &changes, &context.blobs()).map_err(checkout)?;
    let mut leak = None;
    if ask.human_change {
        write("human-change", &human.bytes)?;
    } else {
        leak = leaked(context, ask, &Telling::of(&human.bytes), &work)?;
    }
    let mut written = None;
    let config = match &ask.config {
        Some((_, bytes, source)) => {
            let bytes = context.get(bytes)?;
            written = Some(String::from_utf8_lossy(&bytes).into_owned());
            Some(place_config(context, place, &bytes, source, secrets, private)?)
        }
        None => None,
    };
    let places = |name: &str| match name {
        "work" => Some(work.display().to_string()),
        "out" => Some(place.dir.join("out").display().to_string()),
        "prompt" => Some(files.join("prompt").display().to_string()),
        "config" => config.as_ref().map(|path| path.display().to_string()),
        "human-change" => Some(files.join("human-change").display().to_string()),
        _ => name.strip_prefix("file.").map(|file| files.join(file).display().to_string()),
    };
    let argv = context.fill(&ask.argv, &places)?;
    let setup = context.put(&setup::document(ask, &argv, written.as_deref()))?;
    Ok(Prepared { argv, setup, leak })
}

/// What is ready to be started.
struct Prepared {
    argv: Vec<String>,
    /// What it is given, for people.
    setup: Digest,
    /// What of the human's change it is shown, where the manifest lets it run all the same.
    leak: Option<Leak>,
}

/// What of the human's change an agent would be shown.
fn leaked(context: &Context, ask: &AgentAsk, telling: &Telling, work: &Path) -> Result<Option<Leak>, Failure> {
    if telling.is_empty() {
        return Ok(None);
    }
    let prompt = ask.prompt.map(|prompt| context.get(&prompt)).transpose()?;
    let in_tree = || telling.in_tree(work).map_err(|error| fault(&format!("{}: {error}", work.display())));
    let leak = match prompt.and_then(|prompt| telling.in_prompt(&prompt)) {
        Some(leak) => Some(leak),
        None => in_tree()?,
    };
    match leak {
        Some(leak) if !ask.leaks_recorded => Err(Failure::new(Cause::LeakedAnswer, &leak.to_string())),
        other => Ok(other),
    }
}

/// Puts the config where the agent reads it: within the place, or outside the store if a secret is filled into it.
fn place_config(
    context: &Context,
    place: &Place,
    bytes: &[u8],
    source: &Path,
    secrets: &[Secret],
    private: &Private,
) -> Result<PathBuf, Failure> {
    let name = source.file_name().map_or_else(|| "config".into(), std::ffi::OsStr::to_os_string);
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let mut dir = place.dir.join("files");
    if text.contains("{secret.") {
        for secret in secrets {
            let hole = format!("{{secret.{}}}", secret.name());
            text = text.replace(&hole, &String::from_utf8_lossy(secret.expose()));
        }
        dir = make_private(&private_places(&context.machine, place.attempt.as_str()))?;
        let _ = private.0.set(dir.clone());
    }
    let path = dir.join(name);
    std::fs::write(&path, text).map_err(|error| fault(&format!("{}: {error}", path.display())))?;
    Ok(path)
}

/// Makes the first of some folders that can be made, readable for this user alone from its first moment on. It must be new:
/// somebody else could have put one there and wait for what is written.
fn make_private(places: &[PathBuf]) -> Result<PathBuf, Failure> {
    let mut refused = String::new();
    for dir in places {
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(dir) {
            Ok(()) => return Ok(dir.clone()),
            Err(error) => refused = format!("no private place for the config: {}: {error}", dir.display()),
        }
    }
    Err(fault(&refused))
}

fn read(
    context: &Context,
    repo: usize,
    ask: &AgentAsk,
    inputs: &Inputs,
    place: &Place,
    secrets: &[Secret],
    end: &process::End,
) -> Result<Done, Failure> {
    let redactor = redactor(secrets);
    let mut done = Done::succeeded();
    let limit = ask.limit.unwrap_or(OUTPUT_LIMIT);
    let stdout = context.stream(place, "agent.out", limit, &redactor);
    let stderr = context.stream(place, "agent.err", limit, &redactor);
    for (name, bytes) in [("stdout", &stdout), ("stderr", &stderr)] {
        if let Some(digest) = context.keep(bytes)? {
            done.logs.insert(name.into(), digest);
        }
    }
    if let Some(name) = &ask.trajectory {
        keep_trajectory(context, place, name, &redactor, &mut done)?;
    }
    if end.killed_descendants > 0 {
        done.notes.push(format!("{} processes that it left behind were killed", end.killed_descendants));
    }
    if end.truncated {
        done.notes.push("its output was longer than the limit and was cut".into());
    }
    if let Some(timeout) = ask.timeout {
        let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let met = matches!(end.exit, process::Exit::TimedOut { .. });
        done.limits.insert("timeout".into(), LimitUse { limit, used: end.wall_ms, met });
    }
    done.process = Some(ProcessEnd { exit: end.exit.clone(), active_ms: end.wall_ms, cpu_ms: end.cpu_ms });
    done.usage = Some(usage(ask, &stdout));
    if let Some(failure) = failure_of(end, Cause::Crashed, Cause::Timeout) {
        let evidence = last_line(&stderr).or_else(|| last_line(&stdout));
        let failure = match (failure.cause, evidence) {
            (Cause::Crashed, Some(line)) => Failure::new(Cause::Crashed, &line).exit(failure.exit),
            _ => failure,
        };
        let log = done.logs.get("stderr").or_else(|| done.logs.get("stdout")).copied();
        done.outcome = Outcome::Failed(failure.log(log));
    }
    let unsettled = done.outcome.failure().is_some_and(|failure| !failure.cause.settles());
    if unsettled {
        return Ok(done);
    }
    let mirror = context.mirror(repo)?;
    let base = ObjectId::new(inputs.text(&Role::Checkout, "tree")?);
    let refuse = |bytes: &[u8]| redactor.found_in(bytes).is_some();
    let taken = git::take(&mirror, &base, &place.dir.join("work"), &context.blobs(), &TakeLimits::default(), &refuse);
    match taken {
        Ok(taken) => {
            done.output("tree", Value::text(taken.tree.as_str()));
            done.output("changes", Value::Blob(context.put(&taken.changes.encode())?));
            if taken.ignored_count > 0 {
                let listed = taken.ignored.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
                done.notes.push(format!("{} ignored files were left out: {listed}", taken.ignored_count));
            }
            done.notes.extend(taken.notes);
        }
        Err(error) => {
            let (cause, what) = match &error {
                TakeError::Secret { path } => (Cause::HoldsSecret, format!("the value of a secret is in {path}")),
                TakeError::TooMuch { .. } => (Cause::OverLimit, error.to_string()),
                TakeError::Git(_) | TakeError::Io { .. } | TakeError::Blobs { .. } => {
                    (Cause::HarnessFault, error.to_string())
                }
                _ => (Cause::BadTree, error.to_string()),
            };
            let what = String::from_utf8_lossy(&redactor.clean(what.as_bytes())).into_owned();
            done.outcome = Outcome::Failed(Failure::new(cause, &what));
        }
    }
    Ok(done)
}

/// Keeps the file that tells what the agent did. It is the agent's: a link is not followed, its size is bounded, and secrets
/// are taken out before its first byte is stored.
fn keep_trajectory(
    context: &Context,
    place: &Place,
    name: &str,
    redactor: &Redactor,
    done: &mut Done,
) -> Result<(), Failure> {
    match hostile::read_below(&place.dir, &Path::new("out").join(name), OUTPUT_LIMIT) {
        Ok(Some(bytes)) => {
            done.logs.insert("trajectory".into(), context.put(&redactor.clean(&bytes))?);
        }
        Ok(None) => {}
        Err(error) => done.notes.push(format!("the trajectory was not kept: {error}")),
    }
    Ok(())
}

fn usage(ask: &AgentAsk, stdout: &[u8]) -> Usage {
    if ask.free {
        return Usage { input: Some(0), output: Some(0), ..Usage::default() };
    }
    let unknown = |why: &str| Usage { unknown_because: Some(why.to_owned()), ..Usage::default() };
    let Some(marker) = &ask.usage_lines else { return unknown("the adapter says nothing of usage") };
    let text = String::from_utf8_lossy(&stdout[stdout.len().saturating_sub(USAGE_READ)..]);
    let last = text.lines().rev().find_map(|line| line.strip_prefix(marker.as_str()));
    let Some(value) = last.and_then(|json| serde_json::from_str::<serde_json::Value>(json.trim()).ok()) else {
        return unknown("the agent reported none");
    };
    let count = |name: &str| value.get(name).and_then(serde_json::Value::as_u64);
    let (input, output) = (count("input"), count("output"));
    let unknown_because = (input.is_none() || output.is_none()).then(|| "the agent reported only a part".to_owned());
    Usage { input, output, unknown_because, ..Usage::default() }
}

fn last_line(stream: &[u8]) -> Option<String> {
    let tail = &stream[stream.len().saturating_sub(8192)..];
    String::from_utf8_lossy(tail).lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
