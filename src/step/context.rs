//! What every step works with: the plan, the store, the machine, a place of its own, and processes under a supervisor.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tokio::sync::watch;

use crate::attempt::{Ended, LimitUse, Usage};
use crate::digest::Digest;
use crate::git::{self, Mirror};
use crate::hostile;
use crate::key::Value;
use crate::manifest::{Base, SecretFrom, SecretSource, Template};
use crate::names::AttemptId;
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{EnvAsk, Missing, Plan, Role};
use crate::process::{self, Exit, Spec, Supervised};
use crate::redact::{Redactor, Secret};
use crate::store::Store;

/// Blobs larger than this are not read into memory.
pub const LARGEST_BLOB: u64 = 1 << 30;
/// How long a probe of a tool may take.
const PROBE: Duration = Duration::from_secs(60);
/// Bytes kept of each captured stream where the step has no `limit`.
pub const OUTPUT_LIMIT: u64 = 16 * 1024 * 1024;
/// The longest secret that is read from a file.
const LARGEST_SECRET: u64 = 64 * 1024;

/// What of the machine steps need to know.
#[derive(Clone, Debug)]
pub struct Machine {
    /// flow's own program.
    pub flow: PathBuf,
    /// The machine's name.
    pub host: String,
    /// The variables of flow's own environment, for secrets and `PATH`.
    pub variables: BTreeMap<String, String>,
}

/// What all steps share.
pub struct Context {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The store.
    pub store: Arc<Store>,
    /// The machine.
    pub machine: Machine,
    /// Where each repository of the manifest comes from.
    pub sources: Vec<git::Source>,
}

/// How far a run is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It goes on.
    No,
    /// Processes get a polite signal, then die.
    Polite,
    /// Processes die at once.
    Now,
}

/// Where one attempt works.
pub struct Place {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its folder: everything it writes is in it, and it is removed afterwards.
    pub dir: PathBuf,
    /// Locks that a supervisor has to hold on to.
    pub locks: Vec<RawFd>,
    /// The slots it holds, as (kind, name).
    pub slots: Vec<(String, String)>,
    /// Cores of these slots.
    pub cores: Vec<u32>,
    /// Tells when to stop.
    pub stop: watch::Receiver<Stop>,
}

/// The settled attempts that an action reads.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub Vec<(Role, Arc<Ended>)>);

impl Inputs {
    fn value(&self, role: &Role, output: &str) -> Option<&Value> {
        self.0.iter().find(|(own, _)| own == role).and_then(|(_, ended)| ended.outputs.get(output))
    }

    /// Whether there is such an input.
    #[must_use]
    pub fn has(&self, role: &Role) -> bool {
        self.0.iter().any(|(own, _)| own == role)
    }

    /// A text output of an input.
    ///
    /// # Errors
    /// If it is not there: the key would not have been complete.
    pub fn text(&self, role: &Role, output: &str) -> Result<&str, Failure> {
        self.value(role, output).and_then(Value::as_text).ok_or_else(|| absent(role, output))
    }

    /// A blob output of an input.
    ///
    /// # Errors
    /// If it is not there.
    pub fn blob(&self, role: &Role, output: &str) -> Result<Digest, Failure> {
        self.value(role, output).and_then(Value::as_blob).ok_or_else(|| absent(role, output))
    }
}

fn absent(role: &Role, output: &str) -> Failure {
    Failure::new(Cause::HarnessFault, &format!("the input {role:?} has no output `{output}`"))
}

/// What an attempt came to, before it is a record.
#[derive(Clone, Debug)]
pub struct Done {
    /// What it did.
    pub outcome: Outcome,
    /// What others read.
    pub outputs: BTreeMap<String, Value>,
    /// What people read.
    pub logs: BTreeMap<String, Digest>,
    /// Limits and their use.
    pub limits: BTreeMap<String, LimitUse>,
    /// Facts worth a warning.
    pub notes: Vec<String>,
    /// Tokens.
    pub usage: Option<Usage>,
}

impl Done {
    fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            outputs: BTreeMap::new(),
            logs: BTreeMap::new(),
            limits: BTreeMap::new(),
            notes: Vec::new(),
            usage: None,
        }
    }

    /// A success without outputs yet.
    #[must_use]
    pub fn succeeded() -> Self {
        Self::new(Outcome::Succeeded)
    }

    /// A failure without outputs.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self::new(Outcome::Failed(failure))
    }

    /// Adds an output.
    pub fn output(&mut self, name: &str, value: Value) {
        self.outputs.insert(name.to_owned(), value);
    }
}

/// A process to run under a supervisor.
pub struct Command<'a> {
    /// Its argv.
    pub argv: Vec<String>,
    /// Variables beyond the base: hashed and unhashed.
    pub env: &'a EnvAsk,
    /// Variables of flow's making.
    pub extra: Vec<(String, String)>,
    /// The secrets that `env` names, read.
    pub secrets: &'a [Secret],
    /// Where it starts.
    pub cwd: PathBuf,
    /// A name for its captured streams and its end within the place.
    pub label: String,
    /// Its time limit.
    pub timeout: Option<Duration>,
    /// Bytes kept of each stream.
    pub limit: u64,
    /// A folder outside the store that holds secrets, removed when all its processes are dead.
    pub private: Option<PathBuf>,
    /// Whether to hold its processes in a cgroup where one can be had. Not what is measured: the move costs time.
    pub group: bool,
    /// Whether its end outlives a crash of the machine: that of an agent, which a later run adopts.
    pub durable: bool,
}

impl Context {
    /// Opens the repository of an index.
    ///
    /// # Errors
    /// If it is not there (it was when the run was planned) or cannot be read.
    pub fn mirror(&self, repo: usize) -> Result<Mirror, Failure> {
        let source = self.sources.get(repo).ok_or_else(|| fault("no such repository in the plan"))?;
        let opened = Mirror::open(&self.store.mirrors(), source);
        opened
            .map_err(|error| Failure::new(Cause::CheckoutFailed, &error.to_string()))?
            .ok_or_else(|| Failure::new(Cause::CheckoutFailed, "the repository is gone since the run was planned"))
    }

    /// The manifest's base rule in git's terms.
    #[must_use]
    pub fn base_rule(&self, base: &Base) -> git::BaseRule {
        match base {
            Base::Parent(n) => git::BaseRule::Parent(*n),
            Base::Id(id) => git::BaseRule::Commit(id.clone()),
        }
    }

    /// The store's blobs as git's room wants them.
    #[must_use]
    pub fn blobs(&self) -> StoreBlobs<'_> {
        StoreBlobs(&self.store)
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Failure> {
        self.store.cas.put(bytes).map_err(|error| fault(&error.to_string()))
    }

    /// Reads a blob that a record names.
    ///
    /// # Errors
    /// If it is gone or damaged.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        self.store
            .cas
            .get(digest, LARGEST_BLOB)
            .map_err(|error| fault(&error.to_string()))?
            .ok_or_else(|| blob_lost(digest))
    }

    /// Reads changes that a record names.
    ///
    /// # Errors
    /// If they are gone or damaged.
    pub fn changes(&self, digest: Digest) -> Result<git::Changes, Failure> {
        git::Changes::decode(&self.get(&digest)?).map_err(|error| fault(&error.to_string()))
    }

    /// Globs in gitignore's manner: one with a `/` other than at its end is anchored at the tree's root, another matches at
    /// any depth; one that names a folder holds all within it.
    ///
    /// # Errors
    /// If one is no glob; the reader has refused those.
    pub fn globs(&self, globs: &[String]) -> Result<GlobSet, Failure> {
        glob_set(globs).map_err(|error| fault(&error.to_string()))
    }

    /// A folder within a place, made if it is not there.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn folder(&self, place: &Place, name: &str) -> Result<PathBuf, Failure> {
        let path = place.dir.join(name);
        std::fs::create_dir_all(&path).map_err(|error| fault(&format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// Reads secrets anew, so that renewing one helps a run that is under way.
    ///
    /// # Errors
    /// If one is not to be had; never with its value.
    pub async fn secrets(&self, from: &[SecretFrom]) -> Result<Vec<Secret>, Failure> {
        let mut secrets = Vec::new();
        for secret in from {
            let name = &secret.name.value;
            let lacking = |why: String| Failure::new(Cause::NotStarted, &format!("the secret {name} {why}"));
            let value = match &secret.source {
                SecretSource::Variable => self
                    .machine
                    .variables
                    .get(name)
                    .map(|value| value.clone().into_bytes())
                    .ok_or_else(|| lacking("is not set".into()))?,
                SecretSource::File(path) => crate::store::read_bounded(path, LARGEST_SECRET)
                    .ok()
                    .flatten()
                    .ok_or_else(|| lacking(format!("cannot be read from {}", path.display())))?,
                SecretSource::Command(argv) => {
                    process::answer(argv, &self.machine.variables, Path::new("."), Duration::from_secs(60))
                        .await
                        .map_err(|why| lacking(format!("was not given by `{}`: {why}", argv.join(" "))))?
                }
            };
            let secret = Secret::new(name, value);
            if secret.expose().is_empty() {
                return Err(lacking("is empty".into()));
            }
            if std::str::from_utf8(secret.expose()).is_err() || secret.expose().contains(&0) {
                return Err(lacking("is no text".into()));
            }
            // Of a name that adapter and candidate both give, the candidate's holds.
            secrets.retain(|other: &Secret| other.name() != name);
            secrets.push(secret);
        }
        Ok(secrets)
    }

    /// A child's environment: a fixed base, the slots it holds, and what the manifest gives it. Never flow's own.
    fn environment(&self, place: &Place, command: &Command<'_>) -> Result<Vec<(String, String)>, Failure> {
        let home = self.folder(place, "home")?;
        let tmp = self.folder(place, "tmp")?;
        let path = self.machine.variables.get("PATH").cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |name: &str, value: String| env.insert(name.to_owned(), value);
        put("PATH", path);
        put("HOME", home.display().to_string());
        put("TMPDIR", tmp.display().to_string());
        put("LANG", "C.UTF-8".into());
        put("TZ", "UTC".into());
        put("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into());
        // By the driver's own name where it is known: numbers depend on who asks.
        let device = |name: &String| match self.plan.facts.devices.get(&format!("gpu/{name}")) {
            Some(Ok(uuid)) => uuid.clone(),
            _ => name.clone(),
        };
        let gpus: Vec<String> =
            place.slots.iter().filter(|(kind, _)| kind == "gpu").map(|(_, name)| device(name)).collect();
        // Empty means none: a step that holds no GPU must not touch one that another step measures on.
        put("CUDA_VISIBLE_DEVICES", gpus.join(","));
        let slots: Vec<String> = place.slots.iter().map(|(kind, name)| format!("{kind}/{name}")).collect();
        if !slots.is_empty() {
            put("FLOW_SLOT", slots.join(","));
        }
        for (name, value) in command.env.unhashed.iter().chain(&command.env.hashed) {
            put(name, value.clone());
        }
        for (name, value) in &command.extra {
            put(name, value.clone());
        }
        Ok(env.into_iter().collect())
    }

    /// Runs a process without a supervisor, in a process group of its own: for cheap commands that hold nothing.
    ///
    /// # Errors
    /// If flow cannot do its own part.
    pub async fn plain(&self, place: &Place, command: Command<'_>) -> Result<process::End, Failure> {
        let env = self.environment(place, &command)?;
        let file = |end: &str| place.dir.join(format!("{}.{end}", command.label));
        let plain = process::Plain {
            env,
            attempt: place.attempt.as_str().to_owned(),
            stdin: None,
            stdout: file("out"),
            stderr: file("err"),
            timeout: command.timeout,
            output_limit: command.limit,
            argv: command.argv,
            cwd: command.cwd,
        };
        let mut stop = place.stop.clone();
        let mut running = std::pin::pin!(process::spawn_plain(plain));
        loop {
            tokio::select! {
                end = &mut running => return checked(end),
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow_and_update() != Stop::No {
                        // Dropping the future kills the group.
                        return Err(Failure::new(Cause::Interrupted, "stopped before its end"));
                    }
                }
            }
        }
    }

    /// Runs a process under a supervisor of its own and waits for its end. Its streams are captured, bounded and redacted
    /// into `<label>.out` and `<label>.err` of the place.
    ///
    /// # Errors
    /// If no supervisor can be started, or it was killed.
    pub async fn supervised(&self, place: &Place, command: Command<'_>) -> Result<process::End, Failure> {
        let env = self.environment(place, &command)?;
        let file = |end: &str| place.dir.join(format!("{}.{end}", command.label));
        let secrets = command.secrets.iter().map(|secret| process::Secret {
            name: secret.name().to_owned(),
            value: String::from_utf8_lossy(secret.expose()).into_owned(),
        });
        let spec = Spec {
            argv: command.argv,
            env,
            secrets: secrets.collect(),
            attempt: place.attempt.as_str().to_owned(),
            cwd: command.cwd,
            stdin: None,
            stdout: file("out"),
            stderr: file("err"),
            output_limit: command.limit,
            kill_over_limit: false,
            timeout_ms: command.timeout.map(millis),
            grace_ms: Spec::GRACE_MS,
            end: file("end.json"),
            durable: command.durable,
            cgroup: command.group,
            inherit: Vec::new(),
            extra: Vec::new(),
            cores: place.cores.clone(),
            private: command.private,
        };
        let fault = |error: String| Failure::new(Cause::HarnessFault, &format!("supervisor: {error}"));
        let mut child =
            Supervised::start(&self.machine.flow, spec, &place.locks).map_err(|error| fault(error.to_string()))?;
        let mut stop = place.stop.clone();
        loop {
            tokio::select! {
                end = child.wait() => return end.map_err(|error| fault(error.to_string())).and_then(checked),
                changed = stop.changed() => {
                    let level = *stop.borrow_and_update();
                    match level {
                        _ if changed.is_err() => child.kill(),
                        Stop::Now => child.kill(),
                        Stop::Polite => child.stop(),
                        Stop::No => {}
                    }
                    if changed.is_err() {
                        return child.wait().await.map_err(|error| fault(error.to_string())).and_then(checked);
                    }
                }
            }
        }
    }

    /// The bytes of a captured stream as they may be stored and shown; empty if there is none. The supervisor has bounded and
    /// redacted it, but its file lies where the child could write too: what is no regular file or too long is not taken, and
    /// secrets are taken out again.
    #[must_use]
    pub fn stream(&self, place: &Place, file: &str, limit: u64, redactor: &Redactor) -> Vec<u8> {
        match hostile::read_below(&place.dir, Path::new(file), limit) {
            Ok(Some(bytes)) if redactor.is_idle() => bytes,
            Ok(Some(bytes)) => redactor.clean(&bytes),
            Ok(None) => Vec::new(),
            Err(error) => format!("(the captured output was tampered with: {error})").into_bytes(),
        }
    }

    /// Stores what a stream held; `None` if that is nothing.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn keep(&self, stream: &[u8]) -> Result<Option<Digest>, Failure> {
        if stream.is_empty() { Ok(None) } else { self.put(stream).map(Some) }
    }

    /// Fills the holes that stand for places of the attempt; tools by their paths on this machine.
    ///
    /// # Errors
    /// If a name is not known.
    pub fn fill(&self, argv: &[Template], places: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>, Failure> {
        let value = |name: &str| {
            if let Some(tool) = name.strip_prefix("tool.")
                && let Some(Ok(fact)) = self.plan.facts.tools.get(tool)
            {
                return Ok(fact.path.display().to_string());
            }
            if name == "flow" {
                return Ok(self.machine.flow.display().to_string());
            }
            places(name).ok_or_else(|| fault(&format!("`{{{name}}}` stands for nothing here")))
        };
        argv.iter().map(|template| template.fill(value)).collect()
    }

    /// The tools whose stat is no longer what it was when the plan was made.
    #[must_use]
    pub fn changed_tool(&self, tools: &[String]) -> Option<Failure> {
        tools.iter().find_map(|tool| match self.plan.facts.tools.get(tool) {
            Some(Ok(fact)) if crate::plan::tool_stat(&fact.path) != fact.stat => Some(Failure::new(
                Cause::ToolChanged,
                &format!("{} changed since the run was planned", fact.path.display()),
            )),
            _ => None,
        })
    }
}

/// The environment in which a tool is asked who it is: nothing of flow's own but where programs are.
#[must_use]
pub fn asked_in(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    variables.iter().filter(|(name, _)| *name == "PATH").map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What a tool answers to its probes when it is started in `cwd`: its identity.
///
/// # Errors
/// Which probe failed, and why.
pub async fn identity(
    path: &Path,
    probes: &[Vec<String>],
    variables: &BTreeMap<String, String>,
    cwd: &Path,
) -> Result<String, String> {
    let mut answers = Vec::new();
    for arguments in probes {
        let argv: Vec<String> = std::iter::once(path.display().to_string()).chain(arguments.iter().cloned()).collect();
        let bytes = process::answer(&argv, &asked_in(variables), cwd, PROBE)
            .await
            .map_err(|why| format!("`{}`: {why}", argv.join(" ")))?;
        answers.push(String::from_utf8_lossy(&bytes).trim_end().to_owned());
    }
    Ok(answers.join("\n"))
}

/// An end that flow itself spoilt, by a full disk say, is no end of the process.
fn checked(end: process::End) -> Result<process::End, Failure> {
    match &end.fault {
        Some(why) => Err(fault(why)),
        None => Ok(end),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What the end of a supervised process means where only exit 0 is good; `None` for exit 0.
#[must_use]
pub fn failure_of(end: &process::End, crashed: Cause, timeout: Cause) -> Option<Failure> {
    let seconds = Duration::from_millis(end.wall_ms).as_secs_f64();
    Some(match &end.exit {
        Exit::Code(0) => return None,
        Exit::Code(code) => Failure::new(crashed, &format!("exit code {code}")).exit(Some(*code)),
        Exit::Signal(signal) => Failure::new(Cause::Killed, &format!("killed by signal {signal}, not by flow")),
        Exit::TimedOut { limit_ms } => Failure::new(
            timeout,
            &format!(
                "stopped after {seconds:.1} s, the limit is {:.1} s",
                Duration::from_millis(*limit_ms).as_secs_f64()
            ),
        ),
        Exit::OverLimit { limit_bytes } => {
            Failure::new(Cause::OverLimit, &format!("more than {limit_bytes} bytes of output"))
        }
        Exit::NotStarted { why } => Failure::new(Cause::NotStarted, why),
        Exit::Interrupted { .. } => Failure::new(Cause::Interrupted, "stopped before its end"),
    })
}

/// The store no longer has what a record names.
#[must_use]
pub fn blob_lost(digest: &Digest) -> Failure {
    Failure::new(Cause::BlobLost, &format!("blob {digest} is gone from the store, or was damaged"))
}

/// A fault of flow's own, or of the disk.
#[must_use]
pub fn fault(evidence: &str) -> Failure {
    Failure::new(Cause::HarnessFault, evidence)
}

/// See [`Context::globs`].
///
/// # Errors
/// If one is no glob.
pub fn glob_set(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let body = glob.trim_start_matches('/').trim_end_matches('/');
        let anchored = glob.trim_end_matches('/').contains('/');
        let root = if anchored { body.to_owned() } else { format!("**/{body}") };
        for pattern in [root.clone(), format!("{root}/**")] {
            set.add(GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build()?);
        }
    }
    set.build()
}

/// The store as a place for blobs of changes.
pub struct StoreBlobs<'a>(&'a Store);

impl git::Blobs for StoreBlobs<'_> {
    fn put(&self, bytes: &[u8]) -> std::io::Result<Digest> {
        self.0.cas.put(bytes).map_err(std::io::Error::other)
    }

    fn get(&self, digest: &Digest) -> std::io::Result<Option<Vec<u8>>> {
        self.0.cas.get(digest, LARGEST_BLOB).map_err(std::io::Error::other)
    }
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
