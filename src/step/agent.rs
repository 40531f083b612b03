//! The `agent` step: an agent works in a sealed repository, and what it leaves is taken as a tree, however it ended.
//!
//! Runs the adapter's argv, which is data. Never runs git in the agent's repository, never reads a patch it wrote, never
//! trusts its exit code to say whether there is a patch.

use std::path::{Path, PathBuf};

use crate::agent as readings;
use crate::attempt::{LimitUse, ProcessEnd};
use crate::digest::Digest;
use crate::git::{self, TakeError, TakeLimits};
use crate::hostile;
use crate::key::Value;
use crate::manifest::fill_config;
use crate::names::ObjectId;
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{AgentAsk, Role};
use crate::process::{self, By, Exit};
use crate::redact::{Redactor, Secret};
use crate::step::Draft;
use crate::step::container::Where;
use crate::step::context::{Context, OUTPUT_LIMIT, Place, fault};
use crate::step::done::{Done, Inputs};
use crate::step::environment::Built;
use crate::step::integrity;
use crate::step::leak::{self, Leak, Telling};
use crate::step::leavings::Wanted;
use crate::step::processes::Command;
use crate::step::sandbox::{self, Holding, Network, REACHED};
use crate::step::secrets::{Aside, make_private, private_places, redactor};
use crate::step::setup;
use crate::step::shown;
use crate::units::human_size;

/// What the attempts of this kind mean.
pub(super) const FORMAT: u16 = 1;

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: &AgentAsk) -> Draft<'a> {
    draft.input("human commit", &Role::Checkout, "human");
    draft.text("sample", ask.sample.to_string());
    draft.input("tree", &Role::Checkout, "tree");
    draft.record.push_some("prompt", ask.prompt.map(Value::Blob));
    draft.record.push_some("config", ask.config.as_ref().map(|(value, _, _)| Value::Blob(*value)));
    // The same value in another notation is another file to the agent.
    let notation = ask.config.as_ref().and_then(|(_, _, path)| path.extension()?.to_str()).map(str::to_lowercase);
    let notation = notation.filter(|ending| !matches!(ending.as_str(), "yaml" | "yml"));
    draft.record.push_some("config notation", notation.map(Value::text));
    draft.record.push_some("model", ask.model.as_ref().map(Value::text));
    draft.push("argv", Value::List(ask.argv.iter().map(ToString::to_string).collect()));
    draft.record.push_some("stdin", ask.stdin.as_ref().map(|file| Value::text(file.to_string())));
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
    sandbox::draft(&mut draft, &ask.sandbox);
    draft
}

/// Runs the agent.
pub async fn run(context: &Context, node: usize, ask: &AgentAsk, inputs: &Inputs, place: &Place) -> Done {
    let secrets = match context.secrets(&ask.env.secrets).await {
        Ok(secrets) => secrets,
        Err(failure) => return Done::no_agent_began(failure),
    };
    let built = match Built::of(context, node, inputs, &Role::Environment) {
        Ok(built) => built,
        Err(failure) => return Done::no_agent_began(failure),
    };
    let repo = context.plan.nodes[node].point.commit.map_or(0, |(repo, _)| repo);
    attempt(context, repo, ask, inputs, place, (&secrets, built.as_ref())).await
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
    match context.secrets(&ask.env.secrets).await {
        Ok(mut secrets) => {
            // Those that it had may have been renewed since, and what it left holds the old ones.
            secrets.extend(Aside::of(&context.machine, place.attempt.as_str()));
            let at_hand = integrity::at_hand(context, repo, &ask.tools, &place.dir).await;
            let mut done = read(context, repo, ask, inputs, place, &secrets, end);
            look(context, repo, ask, inputs, place, &redactor(&secrets), &at_hand, &mut done);
            done
        }
        Err(failure) => Done::unread(failure),
    }
}

async fn attempt(
    context: &Context,
    repo: usize,
    ask: &AgentAsk,
    inputs: &Inputs,
    place: &Place,
    (secrets, built): (&[Secret], Option<&Built<'_>>),
) -> Done {
    let private = Private::default();
    // The interpreters are asked from within the place, which is made here.
    if let Err(failure) = context.folder(place, "out") {
        return Done::no_agent_began(failure);
    }
    let at_hand = integrity::at_hand(context, repo, &ask.tools, &place.dir).await;
    let ready = match context.changed_tool(&ask.tools) {
        Some(failure) => Err(failure),
        None => {
            tokio::task::block_in_place(|| prepare(context, repo, ask, inputs, place, &at_hand, (secrets, &private)))
        }
    };
    let Prepared { argv, stdin, setup, leak } = match ready {
        Ok(ready) => ready,
        Err(failure) => return Done::no_agent_began(failure),
    };
    let variables = built.map(|built| built.variables(context, &place.dir.join("work"), false)).transpose();
    let variables = match variables {
        Ok(variables) => committer().into_iter().chain(variables.unwrap_or_default()).collect(),
        Err(failure) => return Done::no_agent_began(failure),
    };
    let aside = match Aside::put(&context.machine, place.attempt.as_str(), secrets) {
        Ok(aside) => aside,
        Err(why) => return Done::no_agent_began(fault(&format!("no private place for the secrets: {why}"))),
    };
    let end = context
        .supervised(
            place,
            Command {
                argv,
                env: &ask.env,
                extra: variables,
                secrets,
                stdin,
                cwd: place.dir.join("work"),
                mark: None,
                serve: None,
                label: "agent".into(),
                timeout: ask.timeout,
                limit: ask.limit.unwrap_or(OUTPUT_LIMIT),
                private: private.0.get().cloned(),
                aside: aside.folder(),
                group: true,
                inside: Where::Here,
                durable: true,
                sandbox: Some(Holding {
                    decl: &ask.sandbox,
                    see: built.map(|built| built.out.clone()).into_iter().collect(),
                    hidden: Vec::new(),
                    own: ["work", "out"].map(|name| place.dir.join(name)).to_vec(),
                    unseen_tests: true,
                    network: match ask.sandbox.network.as_slice() {
                        [] if !ask.calls_out() => Network::None,
                        _ if ask.of_flow() => Network::None,
                        [] => Network::Open("it may call a model, and no `network` names its hosts"),
                        hosts => Network::Only(hosts),
                    },
                }),
            },
        )
        .await;
    drop(private);
    let secrets = &context.secrets_since(&ask.env.secrets, secrets).await;
    let changed = context.changed_tool(&ask.tools);
    let at_hand = integrity::at_hand(context, repo, &ask.tools, &place.dir).await;
    let mut done = tokio::task::block_in_place(|| match end {
        Ok(end) => {
            let mut done = read(context, repo, ask, inputs, place, secrets, &end);
            look(context, repo, ask, inputs, place, &redactor(secrets), &at_hand, &mut done);
            if let Some(failure) = changed {
                // Paid for all the same.
                done.outcome = Outcome::Failed(failure);
                done.outputs.clear();
                done.unread = None;
            }
            done
        }
        // What it had spent is known though nobody saw its end.
        Err(failure) => {
            let exit = Exit::Interrupted { by: By::FlowDied };
            let unseen = ProcessEnd { exit, active_ms: 0, cpu_ms: 0, cut: false, unkept: Vec::new() };
            let mut done = collect(context, ask, place, &redactor(secrets), unseen);
            done.process = None;
            done.outcome = Outcome::Failed(failure);
            done.unread = None;
            done
        }
    });
    if done.unread.is_some() {
        aside.leave();
    }
    done.logs.insert("setup".into(), setup);
    done.notes.extend(leak.map(|leak| format!("{}{leak}", leak::NOTE)));
    done
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
    at_hand: &[integrity::AtHand],
    (secrets, private): (&[Secret], &Private),
) -> Result<Prepared, Failure> {
    let checkout = |error: git::GitError| Failure::new(Cause::CheckoutFailed, &error.to_string());
    let mirror = context.mirror(repo)?;
    let work = context.folder(place, "work")?;
    let files = context.folder(place, "files")?;
    Wanted::of(ask).note(&place.dir).map_err(|error| fault(&format!("{}: {error}", place.dir.display())))?;
    let tree = ObjectId::new(inputs.text(&Role::Checkout, "tree")?);
    git::write_tree(&mirror, &tree, &git::Changes::default(), &context.blobs(), &work, Some(&context.store.inflated()))
        .map_err(checkout)?;
    git::seal(&mirror, &tree, &context.store.packs(), &work).map_err(checkout)?;
    integrity::sealed(&mirror, &tree, &work)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = files.join(name);
        std::fs::write(&path, bytes).map_err(|error| fault(&format!("{}: {error}", path.display())))
    };
    for (name, digest) in &ask.files {
        if let Some(digest) = digest {
            write(name, &context.get(digest)?)?;
        }
    }
    let prompt = ask.prompt.as_ref().map(|prompt| context.get(prompt)).transpose()?;
    if let Some(prompt) = &prompt {
        write("prompt", prompt)?;
    }
    let changes = context.changes(inputs.blob(&Role::Checkout, "human change")?)?;
    let human = git::diff(&mirror, &tree, &changes, &context.blobs()).map_err(checkout)?;
    let mut leak = None;
    if ask.human_change {
        write("human-change", &human.bytes)?;
    } else {
        leak = shown::leaked(context, ask, &Telling::of(&human.bytes), &work, at_hand)?;
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
        "out" | "home" => Some(place.dir.join(name).display().to_string()),
        "prompt" => Some(files.join("prompt").display().to_string()),
        "prompt-text" => prompt.as_ref().map(|text| String::from_utf8_lossy(text).into_owned()),
        "config" => config.as_ref().map(|path| path.display().to_string()),
        "human-change" => Some(files.join("human-change").display().to_string()),
        _ => name.strip_prefix("file.").map(|file| files.join(file).display().to_string()),
    };
    let stdin = context.fill(ask.stdin.as_slice(), &places)?.pop().map(PathBuf::from);
    let argv = context.fill(&ask.argv, &places)?;
    let setup = context.put(&setup::document(ask, &argv, written.as_deref()))?;
    Ok(Prepared { argv, stdin, setup, leak })
}

/// What is ready to be started.
struct Prepared {
    argv: Vec<String>,
    /// What it reads as its standard input.
    stdin: Option<PathBuf>,
    /// What it is given, for people.
    setup: Digest,
    /// What of the human's change it is shown, where the manifest lets it run all the same.
    leak: Option<Leak>,
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
        let refused = |error| Failure::new(Cause::AgentConfig, &format!("{}: {error}", Path::new(&name).display()));
        text = fill_config(&text, source, secrets).map_err(refused)?;
        let places = private_places(&context.machine, place.attempt.as_str());
        dir = make_private(&places).map_err(|why| fault(&format!("no private place for the config: {why}")))?;
        let _ = private.0.set(dir.clone());
    }
    let path = dir.join(name);
    std::fs::write(&path, text).map_err(|error| fault(&format!("{}: {error}", path.display())))?;
    Ok(path)
}

/// Keeps what the agent left and reads it: outcome and usage, by the adapter's table. Takes no tree. What the disk refuses to
/// keep leaves the attempt unread; what it used is known all the same.
fn collect(context: &Context, ask: &AgentAsk, place: &Place, redactor: &Redactor, mut end: ProcessEnd) -> Done {
    let mut done = Done::succeeded();
    let limit = ask.limit.unwrap_or(OUTPUT_LIMIT);
    let mut left = Wanted::of(ask).find(&place.dir);
    for bytes in left.files.values_mut().filter(|_| !redactor.is_idle()) {
        *bytes = redactor.clean(bytes);
    }
    for (name, file) in [("stdout", "agent.out"), ("stderr", "agent.err")] {
        left.files.insert(name.into(), context.stream(place, file, limit, redactor));
    }
    for (name, bytes) in &left.files {
        match context.keep(bytes) {
            Ok(digest) => drop(digest.map(|digest| done.logs.insert(name.clone(), digest))),
            Err(failure) => done.unread = Some(failure),
        }
    }
    end.unkept = left.unkept;
    let reading = readings::read(ask.reading.reading(), &end, &|name| left.files.get(name).cloned());
    done.notes = left.notes;
    done.notes.extend(reading.notes);
    done.outcome = reading.outcome.with_log(&done.logs);
    done.usage = Some(reading.usage);
    done.process = Some(end);
    done.read_by = Some(ask.reading.digest());
    done
}

fn read(
    context: &Context,
    repo: usize,
    ask: &AgentAsk,
    inputs: &Inputs,
    place: &Place,
    secrets: &[Secret],
    end: &process::End,
) -> Done {
    let redactor = redactor(secrets);
    let (active_ms, cpu_ms) = (end.wall_ms, end.cpu_ms);
    let process = ProcessEnd { exit: end.exit.clone(), active_ms, cpu_ms, cut: end.truncated, unkept: Vec::new() };
    let mut done = collect(context, ask, place, &redactor, process);
    done.sandbox.clone_from(&end.sandbox);
    if let Some(reached) = &end.reached
        && let Ok(json) = serde_json::to_vec_pretty(reached)
    {
        match context.put(&redactor.clean(&json)) {
            Ok(digest) => drop(done.logs.insert(REACHED.into(), digest)),
            Err(failure) => done.notes.push(format!("what it reached was not kept: {}", failure.evidence.as_str())),
        }
    }
    if end.killed_descendants > 0 {
        done.notes.push(format!("{} processes that it left behind were killed", end.killed_descendants));
    }
    if end.truncated {
        let limit = ask.limit.unwrap_or(OUTPUT_LIMIT);
        let met = done.outcome.failure().is_some_and(|failure| failure.cause == Cause::OverLimit);
        done.limits.insert("limit".into(), LimitUse { limit, used: end.stdout_bytes.max(end.stderr_bytes), met });
        let limit = human_size(limit);
        done.notes.push(format!("its output was longer than {limit} and was cut: its two ends are kept"));
    }
    if let Some(timeout) = ask.timeout {
        let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let met = matches!(end.exit, Exit::TimedOut { .. });
        done.limits.insert("timeout".into(), LimitUse { limit, used: end.wall_ms, met });
    }
    // Also of an end that does not settle: a later table may read it otherwise, and then the tree is there.
    if matches!(end.exit, Exit::NotStarted { .. } | Exit::Interrupted { .. }) {
        // Nobody adopts what was stopped: its figures are put down now, as those that no table reads anew.
        if let Some(failure) = done.unread.take() {
            done.notes.push(format!("what it said was not kept: {}", failure.evidence.as_str()));
            done.process = None;
        }
    } else if let Err(failure) = take(context, repo, inputs, place, &redactor, &mut done) {
        done.unread = Some(failure);
    }
    done
}

/// Looks whether it had the answer, and keeps what was found. What cannot be looked at is said in it, and spoils nothing.
#[expect(clippy::too_many_arguments, reason = "all that an attempt is about")]
fn look(
    context: &Context,
    repo: usize,
    ask: &AgentAsk,
    inputs: &Inputs,
    place: &Place,
    redactor: &Redactor,
    at_hand: &[integrity::AtHand],
    done: &mut Done,
) {
    let (Ok(mirror), Ok(tree)) = (context.mirror(repo), inputs.text(&Role::Checkout, "tree")) else { return };
    let objects = integrity::Objects::of(&mirror, &ObjectId::new(tree), &place.dir.join("work"));
    let human = inputs.text(&Role::Checkout, "human").unwrap_or_default();
    let prompt = ask.prompt.and_then(|prompt| context.get(&prompt).ok()).unwrap_or_default();
    let said = done.logs.iter().filter(|(name, _)| !["setup", REACHED].contains(&name.as_str()));
    let files = said.filter_map(|(name, digest)| Some((name.clone(), context.get(digest).ok()?))).collect();
    // What is given the human's change looks nothing up.
    let wanted = integrity::Wanted::of(context, repo, human);
    let looked = if ask.human_change { Vec::new() } else { integrity::looked_up(&wanted, &prompt, &files) };
    let declared = context.plan.manifest.pipeline.repos.get(repo).is_some_and(|repo| repo.package.is_some());
    let (text, notes) = integrity::told(&objects, &looked, at_hand, declared);
    if let Ok(digest) = context.put(&redactor.clean(text.as_bytes())) {
        done.logs.insert(integrity::LOG.into(), digest);
    }
    let clean = |note: String| String::from_utf8_lossy(&redactor.clean(note.as_bytes())).into_owned();
    done.notes.extend(notes.into_iter().map(clean));
}

/// Takes the work tree. What is wrong with it speaks for the attempt only if the attempt speaks for its action.
///
/// # Errors
/// If the repository or the store cannot be used, of which the agent is innocent: another time it may be done.
fn take(
    context: &Context,
    repo: usize,
    inputs: &Inputs,
    place: &Place,
    redactor: &Redactor,
    done: &mut Done,
) -> Result<(), Failure> {
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
                done.notes.push(match taken.ignored_count {
                    1 => format!("1 ignored file was left out: {listed}"),
                    count => format!("{count} ignored files were left out: {listed}"),
                });
            }
            done.notes.extend(taken.notes);
        }
        Err(error) => {
            let (cause, what) = match &error {
                TakeError::Secret { path } => (Cause::HoldsSecret, format!("the value of a secret is in {path}")),
                TakeError::TooMuch { .. } => (Cause::OverLimit, error.to_string()),
                TakeError::Git(_) => return Err(Failure::new(Cause::CheckoutFailed, &error.to_string())),
                TakeError::Blobs { .. } => return Err(fault(&error.to_string())),
                TakeError::Io { .. } => (Cause::HarnessFault, error.to_string()),
                _ => (Cause::BadTree, error.to_string()),
            };
            let what = String::from_utf8_lossy(&redactor.clean(what.as_bytes())).into_owned();
            if done.outcome.settles() {
                done.outcome = Outcome::Failed(Failure::new(cause, &what));
            } else {
                done.notes.push(format!("its work tree was not taken: {what}"));
            }
        }
    }
    Ok(())
}
