//! Processes that run in an image: what of this machine they see, how the engine is told, and what their end is then.
//!
//! The container is their sandbox: nothing is put round the engine's client, which needs its daemon and its own files. Its first
//! word comes through a pipe of flow's: a process that was never begun there says nothing of what it was to run.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::stat::Mode;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use crate::container::{self, Engine, Gpu, Inside, Kind, Mount, Told};
use crate::hostile;
use crate::manifest::SandboxChoice;
use crate::measure::signature::last_line;
use crate::outcome::{Cause, Failure};
use crate::plan::tools::tool_stat;
use crate::process::{self, ATTEMPT_MARK, Part, Removal, Sandbox};
use crate::step::context::{Context, Place, fault};
use crate::step::processes::{Command, MARK_FD};
use crate::step::sandbox::Network;

/// Where the pipes lie within a place.
const FOLDER: &str = "box";
/// The most marks that are handed on.
const MARKS: usize = 8192;
/// How much of the end of what an engine complained of is looked at, in bytes.
const COMPLAINT: u64 = 1 << 20;

/// Where a process runs.
#[derive(Clone, Debug, Default)]
pub enum Where {
    /// On this machine.
    #[default]
    Here,
    /// It is the client of an engine, which needs its own environment.
    Client,
    /// In an image.
    Image(Boxed),
}

/// An image that processes run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boxed {
    /// What the engine is told to run.
    pub image: String,
    /// Whether that is a file of the manifest's.
    pub file: bool,
    /// Its stat when the run was planned.
    pub stat: Option<String>,
    /// Where apptainer has put it, for an image that is no file.
    pub pulled: PathBuf,
    /// The program that runs test scripts.
    pub interpreter: String,
    /// A built folder whose programs come first.
    pub programs: Option<PathBuf>,
}

impl Boxed {
    /// That its file is another one than when the run was planned; nothing where it is the same, or is no file.
    #[must_use]
    pub fn changed(&self) -> Option<String> {
        let was = self.stat.as_ref()?;
        (tool_stat(Path::new(&self.image)) != *was).then(|| format!("{} changed since the run was planned", self.image))
    }

    /// What this engine is told to run.
    fn run_by(&self, engine: &Engine) -> String {
        match engine.kind {
            Kind::Apptainer if !self.file => self.pulled.display().to_string(),
            _ => self.image.clone(),
        }
    }
}

/// A process that an engine is about to run.
pub(super) struct Contained {
    /// How the engine is started.
    pub(super) told: Told,
    /// What is removed at its end.
    pub(super) removal: Option<Removal>,
    engine: Kind,
    sandbox: Sandbox,
    pipe: Receiver,
    started: Instant,
    began: Option<Instant>,
    room: usize,
}

impl Context {
    /// The engine for an image.
    ///
    /// # Errors
    /// That none answers: the environment's fault.
    pub async fn engine(&self, file: bool) -> Result<&Engine, Failure> {
        let engine = self.engines.of(file, &self.machine.variables).await;
        engine.map_err(|why| Failure::new(Cause::EnvironmentFailed, &why))
    }

    /// Puts a process into its image. `env` is all that it is to have.
    pub(super) async fn contain(
        &self,
        place: &Place,
        command: &Command<'_>,
        boxed: &Boxed,
        mut env: BTreeMap<String, String>,
    ) -> Result<Contained, Failure> {
        let engine = self.engine(boxed.file).await?;
        let failed = |path: &Path, error: io::Error| fault(&format!("{}: {error}", path.display()));
        let folder = place.dir.join(FOLDER).join(&command.label);
        hostile::remove_all(&folder).map_err(|error| failed(&folder, error))?;
        std::fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        let pipe = folder.join("began");
        nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|error| failed(&pipe, error.into()))?;
        // Both ends: a reader alone would find it at its end before the process comes, and after each that leaves.
        let reader = OpenOptions::new().read_write(true).open_receiver(&pipe).map_err(|error| failed(&pipe, error))?;
        container::note(&place.dir, engine.kind).map_err(|error| failed(&place.dir, error))?;

        let home = self.folder(place, "home")?;
        env.remove("HOME");
        // By this mark flow knows its own on a device, and finds what is left of a run that died.
        env.insert(ATTEMPT_MARK.to_owned(), place.attempt.as_str().to_owned());
        if !command.env.hashed.contains_key("PATH") && !command.env.unhashed.contains_key("PATH") {
            env.remove("PATH");
        }
        if command.mark.is_some() {
            env.insert("FLOW_MARK".to_owned(), MARK_FD.to_string());
        }
        let mounts = self.mounts(place, command, &folder, &env);
        let open = match command.sandbox.as_ref() {
            Some(holding) if holding.decl.choice == SandboxChoice::Off => Some("the manifest says `sandbox off`"),
            Some(holding) => match holding.network {
                Network::Open(why) => Some(why),
                Network::None | Network::Sealed | Network::Only(_) => None,
            },
            None => None,
        };
        let gpus: Vec<Gpu> = place
            .slots
            .iter()
            .filter(|(kind, _)| kind == "gpu")
            .map(|(_, name)| Gpu { name: name.clone(), uuid: self.device(name) })
            .collect();
        let name = format!("flow-{}-{}", place.attempt.as_str(), command.label);
        let secrets: Vec<String> = command.secrets.iter().map(|secret| secret.name().to_owned()).collect();
        let inside = Inside {
            name: &name,
            attempt: place.attempt.as_str(),
            image: &boxed.run_by(engine),
            argv: &command.argv,
            env: &env,
            secrets: &secrets,
            cwd: &command.cwd,
            home: &home,
            pipe: &pipe,
            programs: boxed.programs.as_deref(),
            mounts: &mounts,
            network: open.is_some(),
            gpus: &gpus,
            cores: &place.cores,
        };
        let told = engine.run(&inside, &self.machine.variables);
        let told = told.map_err(|why| Failure::new(Cause::EnvironmentFailed, &why))?;
        let program = engine.program.display().to_string();
        let argv = |words: &[&str]| {
            std::iter::once(program.clone()).chain(words.iter().map(ToString::to_string)).collect::<Vec<_>>()
        };
        // Apptainer's processes are children of whoever starts it.
        let removal = (engine.kind != Kind::Apptainer).then(|| Removal {
            kill: argv(&["kill", &name]),
            remove: argv(&["rm", "-f", &name]),
            look: argv(&["container", "inspect", "--format", "{{.Id}}", &name]),
            name: name.clone(),
        });
        Ok(Contained {
            told,
            removal,
            engine: engine.kind,
            sandbox: held(engine.kind, open, !gpus.is_empty()),
            pipe: reader,
            started: Instant::now(),
            began: None,
            room: MARKS,
        })
    }

    /// What of this machine it sees: its own folders, what it runs, the environment that was built for it, and assets. Never the
    /// store, and of the place nothing else.
    fn mounts(&self, place: &Place, command: &Command<'_>, pipe: &Path, env: &BTreeMap<String, String>) -> Vec<Mount> {
        let own = ["home", "tmp"].map(|name| place.dir.join(name));
        let (mut write, mut see) = (own.to_vec(), Vec::new());
        write.push(pipe.to_owned());
        if let Some(holding) = &command.sandbox {
            write.extend(holding.own.iter().chain(&holding.decl.write).cloned());
            see.extend(holding.see.iter().cloned());
        }
        see.extend(["script", "files"].map(|name| place.dir.join(name)));
        let env: Vec<(String, String)> = env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        see.extend(self.assets_of(&command.argv, &env));
        see.retain(|path| !write.contains(path));
        let writable = write.into_iter().map(|path| Mount { path, writable: true });
        let mut mounts: Vec<Mount> =
            writable.chain(see.into_iter().map(|path| Mount { path, writable: false })).collect();
        mounts.retain(|mount| mount.path.exists());
        mounts.sort_by(|one, two| one.path.cmp(&two.path));
        mounts.dedup_by(|one, two| one.path == two.path);
        mounts
    }
}

/// What an engine holds a process to.
fn held(engine: Kind, open: Option<&str>, gpus: bool) -> Sandbox {
    let mut sandbox = Sandbox { by: Some(engine.word().to_owned()), ..Sandbox::default() };
    sandbox.held.extend([Part::Files, Part::Processes]);
    if engine == Kind::Apptainer && gpus {
        sandbox.open.insert(Part::Devices, "apptainer shows all GPUs or none".to_owned());
    } else {
        sandbox.held.push(Part::Devices);
    }
    match open {
        Some(why) => drop(sandbox.open.insert(Part::Network, why.to_owned())),
        None => sandbox.held.push(Part::Network),
    }
    sandbox.held.sort_unstable();
    sandbox
}

impl Contained {
    /// Waits for the next that comes through the pipe and hands it on.
    pub(super) async fn listen(&mut self, mark: Option<BorrowedFd<'_>>) {
        let mut bytes = [0; 256];
        match self.pipe.read(&mut bytes).await {
            Ok(n) if n > 0 => self.take(&bytes[..n], mark),
            // There is nothing more to be had from it.
            _ => std::future::pending().await,
        }
    }

    fn take(&mut self, mut bytes: &[u8], mark: Option<BorrowedFd<'_>>) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            bytes = bytes.get(1..).unwrap_or_default();
        }
        let marks = &bytes[..bytes.len().min(self.room)];
        self.room -= marks.len();
        if let Some(mark) = mark.filter(|_| !marks.is_empty()) {
            // One that does not take them has no window then.
            let _ = nix::unistd::write(mark, marks);
        }
    }

    /// The end of the process, given that of the engine's client, whose stderr is at `complaint`. Its time begins where it did.
    ///
    /// # Errors
    /// If it never began: what the engine said last.
    pub(super) fn end(
        mut self,
        mut end: process::End,
        mark: Option<BorrowedFd<'_>>,
        place: &Path,
        complaint: &str,
    ) -> Result<process::End, Failure> {
        let mut bytes = [0; 256];
        while let Ok(n @ 1..) = self.pipe.try_read(&mut bytes) {
            self.take(&bytes[..n], mark);
        }
        end.sandbox = Some(std::mem::take(&mut self.sandbox));
        let stopped = matches!(end.exit, process::Exit::Interrupted { .. });
        match self.began {
            Some(began) => {
                let up = u64::try_from((began - self.started).as_millis()).unwrap_or(u64::MAX);
                end.wall_ms = end.wall_ms.saturating_sub(up);
                Ok(end)
            }
            None if stopped => Ok(end),
            None => {
                let said = hostile::read_below(place, Path::new(complaint), COMPLAINT).ok().flatten();
                let line = said.as_deref().and_then(last_line).map(|line| format!(": {line}")).unwrap_or_default();
                let evidence = format!("{} did not begin in the image{line}", self.engine.word());
                Err(Failure::new(Cause::EnvironmentFailed, &evidence))
            }
        }
    }
}
