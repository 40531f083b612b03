//! Secrets of steps: read anew at each attempt, and the private folders in which configs hold them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::agent::no_login;
use crate::hostile;
use crate::manifest::{SecretFrom, SecretSource, secret_name};
use crate::outcome::{Cause, Failure};
use crate::plan::{EnvAsk, Missing};
use crate::process;
use crate::redact::{Redactor, Secret};
use crate::step::context::{Context, Machine};
use crate::text::called;
use crate::units::human_size;

/// The longest secret that is read, in bytes.
const LARGEST_SECRET: u64 = 64 * 1024;

impl Context {
    /// Reads secrets anew, so that renewing one helps a run that is under way.
    ///
    /// # Errors
    /// If one is not to be had; never with its value.
    pub async fn secrets(&self, from: &[SecretFrom]) -> Result<Vec<Secret>, Failure> {
        let mut secrets = Vec::new();
        for secret in from {
            // Without its provider's credential no agent can work: that closes the lane, as a login that ran out does.
            let cause = |why: &NoSecret| match why {
                _ if !secret.of_provider => Cause::SecretMissing,
                NoSecret::Absent(why) if no_login(why) => Cause::CredentialsExpired,
                _ => Cause::CredentialsMissing,
            };
            // What its command complains of may hold another one, also one that is not read yet.
            let secret =
                read_secret(&self.machine, secret, process::ANSWER_LIMIT, &at_hand(&self.machine, from, &secrets))
                    .await
                    .map_err(|why| Failure::new(cause(&why), &format!("the secret {} {why}", secret.name.value)))?;
            // Of a name that adapter and candidate both give, the candidate's holds.
            secrets.retain(|other: &Secret| other.name() != secret.name());
            secrets.push(secret);
        }
        Ok(secrets)
    }

    /// The secrets that an attempt began with, and those that have taken their place while it ran: an agent that reads its
    /// credential anew may have written either. One that is not to be had any more has no new value to be found.
    pub async fn secrets_since(&self, from: &[SecretFrom], began: &[Secret]) -> Vec<Secret> {
        let mut all: Vec<Secret> = began.iter().map(|s| Secret::new(s.name(), s.expose().to_vec())).collect();
        for secret in from {
            let read = read_secret(&self.machine, secret, process::ANSWER_LIMIT, &all).await;
            all.extend(read.ok().filter(|new| began.iter().all(|old| old.expose() != new.expose())));
        }
        all
    }
}

/// What was read in this process. A login that ran out is often complained of with the value that it had.
static READ: Mutex<Vec<Secret>> = Mutex::new(Vec::new());
/// What to do where a value is no credential.
const PLACEHOLDER: &str = "what stands in for a key where none is asked is written with `set`, or made long enough to be found in what is kept";
/// How many values are remembered; the oldest are forgotten.
const REMEMBERED: usize = 64;

fn remember(secret: &Secret) {
    // Of a thread that panicked, the list is whole all the same.
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    read.retain(|other| other.expose() != secret.expose());
    if !secret.too_short() {
        read.push(Secret::new(secret.name(), secret.expose().to_vec()));
    }
    if read.len() > REMEMBERED {
        read.remove(0);
    }
}

fn remembered() -> Vec<Secret> {
    let read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    read.iter().map(|secret| Secret::new(secret.name(), secret.expose().to_vec())).collect()
}

/// The secrets that can be told without asking anybody: those read already, also earlier in this process, those of variables and of files, and what the
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
    // What can be no credential is refused before it is used, and would take innocent words with it.
    let found = read.chain(declared).chain(named).chain(remembered());
    found.filter(|secret| secret.too_plain().is_none()).collect()
}

/// Why a secret is not to be had: the end of a sentence that begins with its name, and never its value. What a command complained
/// of is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// Nobody gives it.
    #[error("{0}")]
    Absent(String),
    /// It is given, and holds nothing.
    #[error("is empty")]
    Empty,
    /// It is given, and can be none.
    #[error("{0}")]
    Unfit(String),
}

/// Reads a secret. A command may take so long; `known` are secrets that it may not tell when it complains.
///
/// # Errors
/// If it is not to be had.
pub async fn read_secret(
    machine: &Machine,
    from: &SecretFrom,
    limit: Duration,
    known: &[Secret],
) -> Result<Secret, NoSecret> {
    let name = &from.name.value;
    let absent = NoSecret::Absent;
    let value = match &from.source {
        SecretSource::Variable => machine
            .variables
            .get(name)
            .map(|value| value.clone().into_bytes())
            .ok_or_else(|| absent("is not set".into()))?,
        SecretSource::File(path) => crate::store::read_bounded(path, LARGEST_SECRET)
            .ok()
            .flatten()
            .ok_or_else(|| absent(format!("cannot be read from {}", path.display())))?,
        SecretSource::Command(argv) => {
            let said = process::answer_in_confidence(argv, &machine.variables, Path::new("."), limit, known).await;
            said.map_err(|why| absent(format!("was not given by `{}`: {why}", called(argv))))?
        }
    };
    if value.len() as u64 > LARGEST_SECRET {
        return Err(NoSecret::Unfit(format!("is longer than {}", human_size(LARGEST_SECRET))));
    }
    let secret = Secret::new(name, value);
    if secret.expose().is_empty() {
        return Err(NoSecret::Empty);
    }
    if std::str::from_utf8(secret.expose()).is_err() || secret.expose().contains(&0) {
        return Err(NoSecret::Unfit("is no text".into()));
    }
    if let Some(why) = secret.too_plain() {
        return Err(NoSecret::Unfit(format!("{why}: {PLACEHOLDER}")));
    }
    remember(&secret);
    Ok(secret)
}

/// Where the private copies of an attempt may lie: configs with secrets in them. In memory, outside the store; the first of the
/// two where there is a folder for this user's run time.
#[must_use]
pub fn private_places(machine: &Machine, attempt: &str) -> Vec<PathBuf> {
    let roots = machine.variables.get("XDG_RUNTIME_DIR").filter(|dir| dir.starts_with('/')).map(PathBuf::from);
    roots.into_iter().chain([PathBuf::from("/dev/shm")]).map(|root| root.join(format!("flow-{attempt}"))).collect()
}

/// Removes the private copies of an attempt that is over, and its secrets aside.
pub fn remove_private(machine: &Machine, attempt: &str) {
    remove_private_configs(machine, attempt);
    remove_private_configs(machine, &aside(attempt));
}

/// Removes the private copies of an attempt whose process is over and that is still to be read.
pub fn remove_private_configs(machine: &Machine, attempt: &str) {
    for dir in private_places(machine, attempt) {
        // Only its owner could have made it; what somebody else put there under this name stays theirs.
        let _ = hostile::remove_all(&dir);
    }
}

/// Makes the first of some folders that can be made, readable for this user alone from its first moment on. It must be new:
/// somebody else could have put one there and wait for what is written.
///
/// # Errors
/// Which of them cannot be made, and why.
pub fn make_private(places: &[PathBuf]) -> Result<PathBuf, String> {
    let mut refused = String::new();
    for dir in places {
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(dir) {
            Ok(()) => return Ok(dir.clone()),
            Err(error) => refused = format!("{}: {error}", dir.display()),
        }
    }
    Err(refused)
}

/// The secrets of an attempt that is under way, in memory and outside the store. If its run dies, another takes them out of what it
/// left: by then they may be others. Gone when this is dropped.
pub struct Aside(Option<PathBuf>);

/// The file in a folder aside.
const ASIDE: &str = "secrets.json";

fn aside(attempt: &str) -> String {
    format!("{attempt}.secrets")
}

impl Aside {
    /// Puts secrets aside.
    ///
    /// # Errors
    /// If there is no place for them.
    pub fn put(machine: &Machine, attempt: &str, secrets: &[Secret]) -> Result<Self, String> {
        if secrets.is_empty() {
            return Ok(Self(None));
        }
        let dir = make_private(&private_places(machine, &aside(attempt)))?;
        let put = Self(Some(dir.clone()));
        let values: Vec<_> =
            secrets.iter().map(|secret| (secret.name(), String::from_utf8_lossy(secret.expose()))).collect();
        let text = serde_json::to_vec(&values).map_err(|error| error.to_string())?;
        std::fs::write(dir.join(ASIDE), text).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(put)
    }

    /// The folder that they are in, if there are any.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        self.0.clone()
    }

    /// Leaves them there for whoever reads what the attempt left.
    pub fn leave(mut self) {
        self.0 = None;
    }

    /// What was put aside for an attempt; nothing after the machine was started anew.
    #[must_use]
    pub fn of(machine: &Machine, attempt: &str) -> Vec<Secret> {
        let read = |dir: PathBuf| hostile::read_below(&dir, Path::new(ASIDE), LARGEST_SECRET * 64).ok().flatten();
        let found = private_places(machine, &aside(attempt)).into_iter().find_map(read);
        let values: Vec<(String, String)> =
            found.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        values.into_iter().map(|(name, value)| Secret::new(name, value.into_bytes())).collect()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            let _ = hostile::remove_all(dir);
        }
    }
}

/// What of an action's secrets, and of the variables that no key holds, this machine does not have. In no key: an action that is served needs none of them. What a
/// command would answer is not asked before the attempt.
#[must_use]
pub fn lacking_secrets(machine: &Machine, env: &EnvAsk) -> Vec<Missing> {
    let lacking = |secret: &SecretFrom| {
        let name = &secret.name.value;
        let (what, hint) = match &secret.source {
            SecretSource::Variable => match machine.variables.get(name).map(|value| value.trim_end()) {
                None => (format!("the secret {name} is not set"), format!("export {name}=… before `flow run`")),
                Some("") => (format!("the secret {name} is empty"), format!("export {name}=… before `flow run`")),
                Some(value) => {
                    (format!("the secret {name} {}", too_plain(name, value.as_bytes())?), PLACEHOLDER.into())
                }
            },
            SecretSource::File(path) => match crate::store::read_bounded(path, LARGEST_SECRET) {
                Ok(Some(bytes)) if !bytes.trim_ascii_end().is_empty() => (
                    format!("the secret {name} in {} {}", path.display(), too_plain(name, &bytes)?),
                    PLACEHOLDER.into(),
                ),
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
    env.secrets.iter().filter_map(lacking).chain(unset(env)).collect()
}

/// The variables that are to be passed on in no key, and are not set.
pub fn unset(env: &EnvAsk) -> impl Iterator<Item = Missing> + '_ {
    env.unset.iter().map(|(name, place)| Missing {
        what: format!("the variable {name} is not set"),
        hint: format!("export {name}=… before `flow run`"),
        place: Some(*place),
        fatal: true,
    })
}

fn too_plain(name: &str, value: &[u8]) -> Option<String> {
    Secret::new(name, value.to_vec()).too_plain()
}

/// A redactor of some secrets.
#[must_use]
pub fn redactor(secrets: &[Secret]) -> Redactor {
    Redactor::new(secrets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::manifest::{Place, Spanned};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_that_complains_with_the_value_that_it_gave_before_does_not_tell_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = "test -e $DIR/given && { echo st.SESSIONVALUE.88776655 ran out >&2; exit 1; }; : > $DIR/given; echo st.SESSIONVALUE.88776655";
        let secret = SecretFrom {
            name: Spanned { value: "TOKEN".into(), place: Place { file: 0, offset: 0, len: 0 } },
            source: SecretSource::Command(["/bin/sh", "-c", script].map(String::from).into()),
            of_provider: true,
        };
        let variables = [("DIR".to_owned(), dir.path().display().to_string())].into();
        let machine = Machine { flow: PathBuf::new(), host: String::new(), variables };
        let limit = Duration::from_secs(60);
        let first = read_secret(&machine, &secret, limit, &[]).await.unwrap();
        assert_eq!(first.expose(), b"st.SESSIONVALUE.88776655");
        let known = at_hand(&machine, std::slice::from_ref(&secret), &[]);
        let why = read_secret(&machine, &secret, limit, &known).await.unwrap_err().to_string();
        assert!(why.contains("[secret TOKEN] ran out"), "{why}");
    }
}
