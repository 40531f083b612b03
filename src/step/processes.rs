//! How steps run processes: their environment, their supervisors, what they printed, and who a tool says it is.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::container;
use crate::digest::Digest;
use crate::hostile;
use crate::outcome::{Cause, Failure};
use crate::plan::EnvAsk;
use crate::process::{self, Exit, Extra, SERVE_FD, Source, Spec, Supervised};
use crate::redact::{Redactor, Secret};
use crate::step::container::{Contained, Where};
use crate::step::context::{Context, Place, Stop, fault};
use crate::step::sandbox::Holding;

/// The descriptor by which a process marks its timed window.
pub const MARK_FD: i32 = 3;

/// How long what a lost supervisor left may take to die.
const ORPHANS: Duration = Duration::from_secs(20);

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
    /// What it reads as its standard input; nothing if absent.
    pub stdin: Option<PathBuf>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// A pipe of flow's, which the process finds as [`MARK_FD`].
    pub mark: Option<OwnedFd>,
    /// A file in memory with what `flow serve` is to do, which the process finds as [`SERVE_FD`].
    pub serve: Option<std::os::fd::RawFd>,
    /// A name for its captured streams and its end within the place.
    pub label: String,
    /// Its time limit.
    pub timeout: Option<Duration>,
    /// Bytes kept of each stream.
    pub limit: u64,
    /// A folder outside the store that holds secrets, removed when all its processes are dead.
    pub private: Option<PathBuf>,
    /// A folder that is removed at the end unless the process ended by itself.
    pub aside: Option<PathBuf>,
    /// Whether to hold its processes in a cgroup where one can be had. Not what is measured: the move costs time.
    pub group: bool,
    /// What it is held to; nothing if absent.
    pub sandbox: Option<Holding<'a>>,
    /// Where it runs.
    pub inside: Where,
    /// Whether its end outlives a crash of the machine: that of an agent, which a later run adopts.
    pub durable: bool,
}

impl Context {
    /// A child's environment: a fixed base, the slots it holds, and what the manifest gives it. Never flow's own.
    fn environment(&self, place: &Place, command: &Command<'_>) -> Result<BTreeMap<String, String>, Failure> {
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
        let gpus: Vec<String> =
            place.slots.iter().filter(|(kind, _)| kind == "gpu").map(|(_, name)| self.device(name)).collect();
        // Empty means none: a step that holds no GPU must not touch one that another step measures on.
        put("CUDA_VISIBLE_DEVICES", gpus.join(","));
        let slots: Vec<String> = place.slots.iter().map(|(kind, name)| format!("{kind}/{name}")).collect();
        if !slots.is_empty() {
            put("FLOW_SLOT", slots.join(","));
        }
        for (name, value) in command.env.unhashed.iter().chain(&command.env.hashed) {
            put(name, value.clone());
        }
        for (name, template) in &command.env.places {
            let filled = self.fill(std::slice::from_ref(template), &|_| None)?;
            filled.into_iter().for_each(|value| drop(put(name, value)));
        }
        for (name, value) in &command.extra {
            put(name, value.clone());
        }
        Ok(env)
    }

    /// What a GPU's slot is by the driver's own name, where that is known: numbers depend on who asks.
    pub(super) fn device(&self, slot: &str) -> String {
        match self.plan.facts.devices.get(&format!("gpu/{slot}")) {
            Some(Ok(uuid)) => uuid.clone(),
            _ => slot.to_owned(),
        }
    }

    /// The assets that a process is started with: it sees these and no others.
    pub(super) fn assets_of(&self, argv: &[String], env: &[(String, String)]) -> Vec<PathBuf> {
        let paths =
            self.plan.facts.assets.values().filter_map(|fact| Some(fact.as_ref().ok()?.path(&self.store.assets())));
        let given = |path: &PathBuf| {
            let path = path.display().to_string();
            argv.iter().chain(env.iter().map(|(_, value)| value)).any(|word| word.contains(&path))
        };
        paths.filter(given).map(|path| path.canonicalize().unwrap_or(path)).collect()
    }

    /// Runs a process without a supervisor, in a process group of its own: for cheap commands that hold nothing.
    ///
    /// # Errors
    /// If flow cannot do its own part.
    pub async fn plain(&self, place: &Place, command: Command<'_>) -> Result<process::End, Failure> {
        let env = self.environment(place, &command)?;
        let file = |end: &str| place.dir.join(format!("{}.{end}", command.label));
        let plain = process::Plain {
            env: env.into_iter().collect(),
            attempt: place.attempt.as_str().to_owned(),
            stdin: command.stdin,
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
    pub async fn supervised(&self, place: &Place, mut command: Command<'_>) -> Result<process::End, Failure> {
        let env = self.environment(place, &command)?;
        let mut contained = None;
        let env: Vec<(String, String)> = match &command.inside {
            Where::Here => env.into_iter().collect(),
            Where::Client => container::client(&self.machine.variables).into_iter().collect(),
            Where::Image(boxed) => {
                let mut within = self.contain(place, &command, boxed, env).await?;
                command.argv = std::mem::take(&mut within.told.argv);
                let env = std::mem::take(&mut within.told.env);
                contained = Some(within);
                env.into_iter().collect()
            }
        };
        let mark = command.mark.take();
        let complaint = format!("{}.err", command.label);
        let spec = self.spec(place, command, mark.as_ref(), env, contained.as_mut());
        let mark = mark.as_ref().map(AsFd::as_fd);
        let fault = |error: String| Failure::of_flow(Cause::HarnessFault, &format!("supervisor: {error}"));
        let mut child =
            Supervised::start(&self.machine.flow, spec, &place.locks).map_err(|error| fault(error.to_string()))?;
        let mut stop = place.stop.clone();
        let end = loop {
            tokio::select! {
                end = child.wait() => break end,
                changed = stop.changed() => {
                    let level = *stop.borrow_and_update();
                    match level {
                        _ if changed.is_err() => child.kill(),
                        Stop::Now => child.kill(),
                        Stop::Polite => child.stop(),
                        Stop::No => {}
                    }
                    if changed.is_err() {
                        break child.wait().await;
                    }
                }
                () = heard(contained.as_mut(), mark) => {}
            }
        };
        if end.is_err() && contained.is_some() {
            // Nobody else is left who knows of its container.
            let (dir, attempt, variables) = (&place.dir, place.attempt.as_str(), &self.machine.variables);
            let ended = tokio::task::block_in_place(|| container::end_all(dir, attempt, variables, ORPHANS));
            ended.map_err(|error| fault(error.to_string()))?;
        }
        let end = end.map_err(|error| fault(error.to_string())).and_then(checked)?;
        match contained {
            Some(within) => within.end(end, mark, &place.dir, &complaint),
            None => Ok(end),
        }
    }

    /// What the supervisor is told. Round the client of an engine there is no sandbox: the container is one.
    fn spec(
        &self,
        place: &Place,
        command: Command<'_>,
        mark: Option<&OwnedFd>,
        env: Vec<(String, String)>,
        contained: Option<&mut Contained>,
    ) -> Spec {
        let file = |end: &str| place.dir.join(format!("{}.{end}", command.label));
        let (here, prefix) = (contained.is_none(), contained.as_ref().map_or("", |within| within.told.prefix));
        let secrets = command.secrets.iter().map(|secret| process::Secret {
            name: format!("{prefix}{}", secret.name()),
            value: String::from_utf8_lossy(secret.expose()).into_owned(),
        });
        let confine = command.sandbox.as_ref().filter(|_| here);
        let mut confine =
            confine.map(|holding| self.confine(place, holding, &command.argv, command.private.as_deref()));
        if let Some(files) = confine.as_mut().and_then(|confine| confine.files.as_mut()) {
            files.see.extend(self.assets_of(&command.argv, &env));
        }
        let descriptors = [(MARK_FD, mark.map(AsRawFd::as_raw_fd)), (SERVE_FD, command.serve)];
        let extra = descriptors.into_iter().filter(|_| here);
        Spec {
            confine,
            secrets: secrets.collect(),
            argv: command.argv,
            env,
            attempt: place.attempt.as_str().to_owned(),
            cwd: if here { command.cwd } else { place.dir.clone() },
            stdin: command.stdin,
            stdout: file("out"),
            stderr: file("err"),
            output_limit: command.limit,
            kill_over_limit: false,
            timeout_ms: command.timeout.map(millis),
            grace_ms: Spec::GRACE_MS,
            end: file("end.json"),
            durable: command.durable,
            cgroup: command.group && here,
            inherit: Vec::new(),
            extra: extra.filter_map(|(fd, ours)| Some(Extra { fd, source: Source::Fd(ours?) })).collect(),
            cores: place.cores.clone(),
            private: command.private,
            aside: command.aside,
            removal: contained.and_then(|within| within.removal.take()),
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
}

/// Waits for what a container says, for ever where there is none.
async fn heard(contained: Option<&mut Contained>, mark: Option<BorrowedFd<'_>>) {
    match contained {
        Some(within) => within.listen(mark).await,
        None => std::future::pending().await,
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
        let bytes = process::answer(&argv, &asked_in(variables), cwd, process::ANSWER_LIMIT)
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
