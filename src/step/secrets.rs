//! Secrets of steps: read anew at each attempt, and the private folders in which configs hold them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hostile;
use crate::manifest::{SecretFrom, SecretSource, secret_name};
use crate::outcome::{Cause, Failure};
use crate::plan::{EnvAsk, Missing};
use crate::process;
use crate::redact::{Redactor, Secret};
use crate::step::context::{Context, Machine};

/// The longest secret that is read from a file.
const LARGEST_SECRET: u64 = 64 * 1024;

impl Context {
    /// Reads secrets anew, so that renewing one helps a run that is under way.
    ///
    /// # Errors
    /// If one is not to be had; never with its value.
    pub async fn secrets(&self, from: &[SecretFrom]) -> Result<Vec<Secret>, Failure> {
        let mut secrets = Vec::new();
        for secret in from {
            // Without its provider's credential no agent can work: a login that ran out looks like this.
            let cause = if secret.of_provider { Cause::CredentialsExpired } else { Cause::SecretMissing };
            // What its command complains of may hold another one, also one that is not read yet.
            let secret =
                read_secret(&self.machine, secret, process::ANSWER_LIMIT, &at_hand(&self.machine, from, &secrets))
                    .await
                    .map_err(|why| Failure::new(cause, &format!("the secret {} {why}", secret.name.value)))?;
            // Of a name that adapter and candidate both give, the candidate's holds.
            secrets.retain(|other: &Secret| other.name() != secret.name());
            secrets.push(secret);
        }
        Ok(secrets)
    }
}

/// The secrets that can be told without asking anybody: those read already, those of variables and of files, and what the
/// variables that every command gets hold under the name of a secret.
#[must_use]
pub fn at_hand(machine: &Machine, from: &[SecretFrom], read: &[Secret]) -> Vec<Secret> {
    let value = |secret: &SecretFrom| match &secret.source {
        SecretSource::Variable => Some(machine.variables.get(&secret.name.value)?.clone().into_bytes()),
        SecretSource::File(path) => crate::store::read_bounded(path, LARGEST_SECRET).ok().flatten(),
        SecretSource::Command(_) => None,
    };
    let declared = from.iter().filter_map(|secret| Some(Secret::new(&secret.name.value, value(secret)?)));
    let named = machine.variables.iter().filter(|(name, _)| secret_name(name));
    // That a short one is a secret only its name says: it would mangle what has nothing to do with it.
    let named =
        named.map(|(name, value)| Secret::new(name, value.clone().into_bytes())).filter(|named| !named.too_short());
    let read = read.iter().map(|secret| Secret::new(secret.name(), secret.expose().to_vec()));
    read.chain(declared).chain(named).filter(|secret| !secret.expose().is_empty()).collect()
}

/// Reads a secret. A command may take so long; `known` are secrets that it may not tell when it complains.
///
/// # Errors
/// Why it is not to be had, as the end of a sentence that begins with its name; never with its value. What a command complained
/// of is in it.
pub async fn read_secret(
    machine: &Machine,
    from: &SecretFrom,
    limit: Duration,
    known: &[Secret],
) -> Result<Secret, String> {
    let name = &from.name.value;
    let value = match &from.source {
        SecretSource::Variable => {
            machine.variables.get(name).map(|value| value.clone().into_bytes()).ok_or("is not set")?
        }
        SecretSource::File(path) => crate::store::read_bounded(path, LARGEST_SECRET)
            .ok()
            .flatten()
            .ok_or_else(|| format!("cannot be read from {}", path.display()))?,
        SecretSource::Command(argv) => {
            let said = process::answer_in_confidence(argv, &machine.variables, Path::new("."), limit, known).await;
            said.map_err(|why| format!("was not given by `{}`: {why}", argv.join(" ")))?
        }
    };
    let secret = Secret::new(name, value);
    if secret.expose().is_empty() {
        return Err("is empty".into());
    }
    if std::str::from_utf8(secret.expose()).is_err() || secret.expose().contains(&0) {
        return Err("is no text".into());
    }
    Ok(secret)
}

/// Where the private copies of an attempt may lie: configs with secrets in them. In memory, outside the store; the first of the
/// two where there is a folder for this user's run time.
#[must_use]
pub fn private_places(machine: &Machine, attempt: &str) -> Vec<PathBuf> {
    let roots = machine.variables.get("XDG_RUNTIME_DIR").filter(|dir| dir.starts_with('/')).map(PathBuf::from);
    roots.into_iter().chain([PathBuf::from("/dev/shm")]).map(|root| root.join(format!("flow-{attempt}"))).collect()
}

/// Removes the private copies of an attempt that is over.
pub fn remove_private(machine: &Machine, attempt: &str) {
    for dir in private_places(machine, attempt) {
        // Only its owner could have made it; what somebody else put there under this name stays theirs.
        let _ = hostile::remove_all(&dir);
    }
}

/// What of an action's secrets this machine does not have. In no key: an action that is served needs none of them. What a
/// command would answer is not asked before the attempt.
#[must_use]
pub fn lacking_secrets(machine: &Machine, env: &EnvAsk) -> Vec<Missing> {
    let lacking = |secret: &SecretFrom| {
        let name = &secret.name.value;
        let (what, hint) = match &secret.source {
            SecretSource::Variable => match machine.variables.get(name).map(|value| value.trim_end()) {
                None => (format!("the secret {name} is not set"), format!("export {name}=… before `flow run`")),
                Some("") => (format!("the secret {name} is empty"), format!("export {name}=… before `flow run`")),
                Some(_) => return None,
            },
            SecretSource::File(path) => match crate::store::read_bounded(path, LARGEST_SECRET) {
                Ok(Some(bytes)) if !bytes.trim_ascii_end().is_empty() => return None,
                found => {
                    let why = match found {
                        Ok(Some(_)) => "it is empty".to_owned(),
                        Ok(None) => "it is not there".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    (
                        format!("the secret {name} cannot be read from {}: {why}", path.display()),
                        "write it there".into(),
                    )
                }
            },
            SecretSource::Command(_) => return None,
        };
        Some(Missing { what, hint, place: Some(secret.name.place), fatal: true })
    };
    env.secrets.iter().filter_map(lacking).collect()
}

/// A redactor of some secrets.
#[must_use]
pub fn redactor(secrets: &[Secret]) -> Redactor {
    Redactor::new(secrets)
}
