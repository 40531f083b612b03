//! Container engines: podman, docker and apptainer, whichever is there and answers.
//!
//! Says what each of them is told, asks them what they are and what images they have, and removes containers that nobody waits
//! for any more. What runs in a container and why is `step`'s business; that its client runs under a supervisor, `process`'s.

mod argv;
mod images;
mod left;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::OnceCell;

pub use argv::{Gpu, Inside, Mount, Told};
pub use images::Found;
pub use left::{end_all, note};

use crate::process::answer;

/// The variable of flow's own environment that names the engine to be used.
pub const VARIABLE: &str = "FLOW_ENGINE";
/// How long an engine may take to say what it is.
pub const ANSWERS: Duration = Duration::from_secs(10);
/// The label by which the containers of an attempt are found.
const LABEL: &str = "flow.attempt";
/// Variables that an engine's client needs for itself, beside those that begin as `CLIENTS` says.
const CLIENT: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "REGISTRY_AUTH_FILE", "DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE"];
const CLIENTS: &[&str] = &["XDG_", "DOCKER_", "CONTAINER", "APPTAINER_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// A kind of engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// podman.
    Podman,
    /// docker.
    Docker,
    /// apptainer.
    Apptainer,
}

impl Kind {
    /// All of them, the first that answers is used.
    pub const ALL: [Self; 3] = [Self::Podman, Self::Docker, Self::Apptainer];

    /// Its word, which is its program's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Apptainer => "apptainer",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Its program, where it is installed.
    #[must_use]
    pub fn program(self, variables: &BTreeMap<String, String>) -> Option<PathBuf> {
        let is_program =
            |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        std::env::split_paths(variables.get("PATH")?).map(|folder| folder.join(self.word())).find(is_program)
    }
}

/// An engine that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its kind.
    pub kind: Kind,
    /// Its client.
    pub program: PathBuf,
    /// What it calls its version.
    pub version: String,
    /// Whether it runs as an ordinary user, who is root within.
    pub rootless: bool,
    /// Whether it can hold a container to some cores.
    pub holds_cores: bool,
}

/// What the client of an engine is started with: nothing of flow's own environment but what it needs to find its daemon, its
/// images and its credentials.
#[must_use]
pub fn client(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let needs = |name: &String| {
        CLIENT.contains(&name.as_str()) || CLIENTS.iter().any(|begin| name.to_uppercase().starts_with(begin))
    };
    variables.iter().filter(|(name, _)| needs(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Engine {
    /// Asks an engine what it is.
    ///
    /// # Errors
    /// That it is not installed, or what it said instead of an answer.
    pub async fn ask(kind: Kind, variables: &BTreeMap<String, String>, limit: Duration) -> Result<Self, String> {
        let program = kind.program(variables).ok_or("it is not installed")?;
        let arguments: &[&str] = match kind {
            Kind::Podman => {
                &["info", "--format", "{{.Host.Security.Rootless}} {{.Host.CgroupControllers}} {{.Version.Version}}"]
            }
            Kind::Docker => &["info", "--format", "{{.CPUSet}} {{.ServerVersion}}"],
            Kind::Apptainer => &["--version"],
        };
        let argv: Vec<String> =
            std::iter::once(program.display().to_string()).chain(arguments.iter().map(ToString::to_string)).collect();
        let said = answer(&argv, &client(variables), Path::new("/"), limit).await?;
        let said = String::from_utf8_lossy(&said);
        let words: Vec<&str> = said.split_whitespace().collect();
        let (Some(first), Some(last)) = (words.first(), words.last()) else {
            return Err("it answers nothing".to_owned());
        };
        let has_cpuset = said.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "cpuset");
        Ok(Self {
            kind,
            version: (*last).to_owned(),
            rootless: kind == Kind::Podman && *first == "true",
            holds_cores: match kind {
                Kind::Podman => has_cpuset,
                Kind::Docker => *first == "true",
                // Its processes are children of whoever starts it, and stay on the cores of those.
                Kind::Apptainer => true,
            },
            program,
        })
    }

    /// The first of some kinds that answers; the one that `FLOW_ENGINE` names, where it names one.
    ///
    /// # Errors
    /// What each of them said.
    pub async fn choose(kinds: &[Kind], variables: &BTreeMap<String, String>, limit: Duration) -> Result<Self, String> {
        let words = |kinds: &[Kind]| kinds.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", ");
        let named = variables.get(VARIABLE).filter(|word| !word.is_empty());
        let kinds = match named.map(|word| (word, Kind::of(word))) {
            None => kinds.to_vec(),
            Some((_, Some(kind))) if kinds.contains(&kind) => vec![kind],
            Some((word, Some(_))) => return Err(format!("{VARIABLE} is {word}, and this takes {}", words(kinds))),
            Some((word, None)) => return Err(format!("{VARIABLE} is `{word}`, and flow knows {}", words(&Kind::ALL))),
        };
        let mut why = Vec::new();
        for kind in kinds {
            match Self::ask(kind, variables, limit).await {
                Ok(engine) => return Ok(engine),
                Err(said) => why.push(format!("{}: {said}", kind.word())),
            }
        }
        Err(format!("no container engine answers ({})", why.join("; ")))
    }

    /// Its argv.
    fn argv(&self, arguments: &[&str]) -> Vec<String> {
        std::iter::once(self.program.display().to_string()).chain(arguments.iter().map(ToString::to_string)).collect()
    }
}

/// The engine of a run, asked once it is needed.
#[derive(Debug, Default)]
pub struct Engines {
    any: OnceCell<Engine>,
    files: OnceCell<Engine>,
}

impl Engines {
    /// The engine for an image, by whether that is a file.
    ///
    /// # Errors
    /// That none answers; it is asked again the next time.
    pub async fn of(&self, file: bool, variables: &BTreeMap<String, String>) -> Result<&Engine, String> {
        let (cell, kinds) = if file { (&self.files, &Kind::ALL[2..]) } else { (&self.any, &Kind::ALL[..]) };
        cell.get_or_try_init(|| Engine::choose(kinds, variables, ANSWERS)).await
    }
}
