//! Credentials and providers: whether each secret is to be had, from where, and whether the provider takes calls with it.
//!
//! A value is read, kept for the cleaning of lines, and dropped. What a command that gives a secret complained of is never shown:
//! it may have printed the secret there.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::ask::{Ask, Found};
use super::{Finding, Level};
use crate::manifest::{
    Env, Expires, ExpiresSource, Kind, Manifest, SecretFrom, SecretSource, fill_variables, secret_name,
};
use crate::names::ProviderName;
use crate::outcome::Evidence;
use crate::redact::Secret;
use crate::run::asking::expiry;
use crate::step::context::Machine;
use crate::step::secrets::{NoSecret, at_hand, read_secret};
use crate::units::human_span;

/// Values shorter than this stand in innocent text.
const SHORT: usize = 6;
/// The largest file that says when a credential expires, in bytes.
const LARGEST: u64 = 1 << 20;

/// A secret that steps, candidates or agents ask for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    secret: SecretFrom,
    of: String,
}

impl Wanted {
    /// The variable that the child gets.
    pub(super) fn name(&self) -> &str {
        &self.secret.name.value
    }
}

/// What of flow's own environment is a secret by its name: shown by no line, whoever prints it.
pub(super) fn of_variables(machine: &Machine) -> Vec<Secret> {
    let secret = |(name, value): (&String, &String)| {
        (secret_name(name) && value.len() >= SHORT).then(|| Secret::new(name.clone(), value.clone().into_bytes()))
    };
    machine.variables.iter().filter_map(secret).collect()
}

/// The secrets of a manifest that belong to no provider, each source once.
pub(super) fn wanted(manifest: &Manifest) -> Vec<Wanted> {
    let pipeline = &manifest.pipeline;
    let agents = pipeline.agents.values().map(|agent| (&agent.env, format!("the agent {}", agent.name.value)));
    let candidates =
        pipeline.candidates.iter().map(|candidate| (&candidate.env, format!("the candidate {}", candidate.name.value)));
    let steps = pipeline.steps.iter().map(|step| (&step.env, format!("the step {}", step.name.value)));
    let mut found: Vec<Wanted> = Vec::new();
    let all: Vec<(&Env, String)> = agents.chain(candidates).chain(steps).collect();
    for (secret, of) in all.iter().flat_map(|(env, of)| env.secret.iter().map(move |secret| (secret, of))) {
        let known = |wanted: &Wanted| {
            wanted.name() == secret.name.value
                && format!("{:?}", wanted.secret.source) == format!("{:?}", secret.source)
        };
        if !found.iter().any(known) {
            found.push(Wanted { secret: secret.clone(), of: of.clone() });
        }
    }
    found
}

/// Looks for one secret.
pub(super) async fn examine(ask: Ask, wanted: Wanted) -> Found {
    look(&ask, &wanted.secret, &wanted.of).await
}

async fn look(ask: &Ask, secret: &SecretFrom, of: &str) -> Found {
    let question = ask.question.clone();
    let Some(manifest) = &question.manifest else { return Found::default() };
    let name = &secret.name.value;
    let read = read_secret(
        &question.machine,
        secret,
        ask.left(),
        &at_hand(&question.machine, std::slice::from_ref(secret), &[]),
    )
    .await;
    let (from, fix) = match &secret.source {
        SecretSource::Variable => (format!("the variable {name}"), format!("export {name}=… before `flow run`")),
        SecretSource::File(path) => (format!("the file {}", path.display()), format!("write it to {}", path.display())),
        SecretSource::Command(argv) => {
            let program = argv.first().map_or("", String::as_str);
            (
                format!("the command `{program} …`"),
                "run the manifest's command by hand, and mend what it complains of: a login, a name, a path".to_owned(),
            )
        }
    };
    let gone = match &secret.source {
        SecretSource::Command(argv) => not_there(argv, &question.machine),
        _ => None,
    };
    let mut found = Found::default();
    let line = match &read {
        Ok(_) => match &secret.source {
            SecretSource::File(path) if open_to_others(path) => {
                let what = format!("present, for {of}, from {from}, which others may read");
                Finding::bad(Level::Warn, "credential", name, what, format!("chmod 600 {}", path.display()))
            }
            _ => Finding::ok("credential", name, format!("present, for {of}, from {from}")),
        },
        Err(NoSecret::Absent(_) | NoSecret::Empty) if gone.is_some() => {
            let gone = gone.unwrap_or_default();
            let what = format!("absent: {of} asks for it, and its command starts `{gone}`, which is not there");
            Finding::bad(Level::Fail, "credential", name, what, format!("install {gone}, or add its folder to PATH"))
        }
        Err(_) if ask.late() => {
            let what = format!("{from} gave {}", ask.silent());
            Finding::bad(Level::Unknown, "credential", name, what, fix)
        }
        Err(NoSecret::Empty) => {
            let gives = if matches!(secret.source, SecretSource::Command(_)) { "prints" } else { "holds" };
            let what = format!("empty: {of} asks for it, and {from} {gives} nothing");
            Finding::bad(Level::Fail, "credential", name, what, fix)
        }
        Err(NoSecret::Unfit(why)) => {
            let what = format!("unfit: {of} asks for it, and what {from} gives {why}");
            Finding::bad(Level::Fail, "credential", name, what, fix)
        }
        Err(NoSecret::Absent(_)) => {
            let what = format!("absent: {of} asks for it, and {from} does not give it");
            Finding::bad(Level::Fail, "credential", name, what, fix)
        }
    };
    found.lines.push(line.at(manifest, secret.name.place));
    found.secrets.extend(read.ok());
    found
}

/// The program that a command starts, where it is not there: a shell's own complaint may be lost in a pipe.
fn not_there(argv: &[String], machine: &Machine) -> Option<String> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let program = match words.as_slice() {
        ["sh" | "bash" | "/bin/sh" | "/bin/bash", "-c", script, ..] => script.split_whitespace().next()?,
        [program, ..] => program,
        [] => return None,
    };
    // What else a script may begin with is the shell's to read.
    let plain = program.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c));
    if !plain || BUILT_IN.contains(&program) {
        return None;
    }
    let path = machine.variables.get("PATH")?;
    let there = std::env::split_paths(path).any(|dir| dir.join(program).is_file());
    (!there).then(|| program.to_owned())
}

/// Words that a script may begin with and that are no programs.
const BUILT_IN: &[&str] = &[
    "test", "printf", "echo", "set", "export", "cd", "if", "for", "while", "until", "case", "exec", "eval", "read",
    "trap", "true", "false", "umask", "command", "unset", "local", "return", "exit", "source", ".", "type", "time",
    "wait",
];

/// Lines that say the same of several secrets become one.
fn together(lines: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for line in lines {
        let same = |other: &&mut Finding| line.level == Level::Fail && other.what == line.what && other.fix == line.fix;
        match all.iter_mut().find(same) {
            Some(first) => first.subject = format!("{}, {}", first.subject, line.subject),
            None => all.push(line),
        }
    }
    all
}

fn open_to_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.mode() & 0o077 != 0)
}

/// Looks for the secrets of a provider, and asks it whether it would take a call.
pub(super) async fn provider(ask: Ask, name: ProviderName) -> Found {
    let question = ask.question.clone();
    let Some((manifest, provider)) =
        question.manifest.as_ref().and_then(|manifest| Some((manifest, manifest.pipeline.providers.get(&name)?)))
    else {
        return Found::default();
    };
    let of = format!("the provider {name}");
    let mut found = Found::default();
    let mut secrets = Vec::new();
    for secret in provider.env.secret.clone() {
        let (ask, of) = (ask.clone(), of.clone());
        secrets.push(tokio::spawn(async move { look(&ask, &secret, &of).await }));
    }
    for secret in secrets {
        found.add(secret.await.unwrap_or_default());
    }
    found.lines = together(found.lines);
    let at = provider.name.place;
    let bad = found.lines.iter().find(|line| line.level != Level::Ok && line.level != Level::Warn);
    if let Some(bad) = bad {
        let what = format!("not asked: the credential {} is not at hand", bad.subject);
        let line = Finding::bad(Level::Unknown, "provider", name.as_str(), what, "mend the credential first");
        found.lines.push(line.at(manifest, at));
        return found;
    }
    let mut env = question.machine.variables.clone();
    for (name, value) in &provider.env.set {
        if let Ok(value) = fill_variables(&value.value, &question.machine.variables) {
            env.insert(name.value.clone(), value);
        }
    }
    for secret in &found.secrets {
        env.insert(secret.name().to_owned(), String::from_utf8_lossy(secret.expose()).into_owned());
    }
    let ask = ask.next();
    let expiry = async {
        let expires = provider.expires.as_ref()?;
        let steps = manifest.pipeline.steps.iter().filter(|step| step.kind() == Kind::Agent);
        let longest = steps.filter_map(|step| step.timeout.as_ref()).map(|limit| limit.value).max();
        Some(of_expiry(&ask, name.as_str(), until(&ask, expires, &env).await, longest))
    };
    let known = at_hand(&question.machine, &provider.env.secret, &found.secrets);
    let probe = probed(&ask, name.as_str(), provider.probe.as_deref(), &env, &known);
    let (expiry, probe) = tokio::join!(expiry, probe);
    for line in expiry.into_iter().chain([probe]) {
        found.lines.push(if line.level == Level::Ok { line } else { line.at(manifest, at) });
    }
    found
}

async fn probed(
    ask: &Ask,
    name: &str,
    probe: Option<&[String]>,
    env: &BTreeMap<String, String>,
    known: &[Secret],
) -> Finding {
    let Some(probe) = probe else {
        return Finding::ok("provider", name, "it has no probe: its first agent has to try");
    };
    let program = probe.first().map_or("", String::as_str);
    match ask.answer_in_confidence(probe, env, Path::new("."), known).await {
        Ok(_) => Finding::ok("provider", name, format!("`{program} …` says that it takes calls")),
        Err(why) => {
            let what = format!("the probe `{program} …`: {}", Evidence::new(&why).as_str());
            let fix = "mend what the probe names: the credential, the account or the network";
            Finding::bad(ask.level(Level::Fail), "provider", name, what, fix)
        }
    }
}

/// Until when the credential is good.
async fn until(ask: &Ask, expires: &Expires, env: &BTreeMap<String, String>) -> Result<Timestamp, String> {
    let (said, whose) = match &expires.source {
        ExpiresSource::Command(argv) => {
            let program = argv.first().map_or("", String::as_str);
            // As with a secret: what it complained of stays unsaid.
            let said =
                ask.answer(argv, env, Path::new(".")).await.map_err(|_| format!("`{program} …` does not say"))?;
            (said, format!("what `{program} …` said"))
        }
        ExpiresSource::File(path, dir) => {
            let path = dir.join(fill_variables(&path.value, &ask.question.machine.variables)?);
            let shown = path.display().to_string();
            match crate::store::read_bounded(&path, LARGEST) {
                Ok(Some(said)) => (said, shown),
                Ok(None) => return Err(format!("{shown} is not there")),
                Err(error) => return Err(format!("{shown}: {error}")),
            }
        }
    };
    let pointer = expires.pointer.as_deref();
    expiry(&String::from_utf8_lossy(&said), pointer, Timestamp::now()).map_err(|why| format!("{whose} {why}"))
}

fn of_expiry(ask: &Ask, name: &str, until: Result<Timestamp, String>, agent: Option<Duration>) -> Finding {
    let renew = "log in anew; agents that cannot be done by then are not begun";
    let until = match until {
        Ok(until) => until,
        Err(why) => {
            let what = format!("until when the credential is good is not told: {why}");
            let level = ask.level(Level::Fail);
            return Finding::bad(level, "expiry", name, what, "log in, or correct `expires` of the provider");
        }
    };
    let Ok(left) = Duration::try_from(until.duration_since(Timestamp::now())) else {
        return Finding::bad(Level::Fail, "expiry", name, format!("the credential expired at {until:.0}"), renew);
    };
    let what = format!("the credential is good until {until:.0}, for {} more", human_span(left));
    match agent.filter(|agent| *agent > left) {
        Some(agent) => {
            let what = format!("{what}; an agent may take {}", human_span(agent));
            Finding::bad(Level::Warn, "expiry", name, what, renew)
        }
        None => Finding::ok("expiry", name, what),
    }
}
