//! The container engines: which is there, whether it answers, and whether GPUs pass.

use std::path::Path;

use super::ask::{Ask, Found};
use super::{Finding, Level};
use crate::container::{self, ANSWERS, Engine, Kind};
use crate::hostile;
use crate::manifest::Manifest;

/// Where descriptions of devices for containers lie.
const CDI: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// The largest of them that is looked at, in bytes.
const SPEC: u64 = 1 << 20;

/// Whether a manifest has recipes with images.
pub(super) fn wanted(manifest: &Manifest) -> bool {
    manifest.pipeline.recipes.values().flat_map(|recipe| &recipe.cases).any(|case| case.image.is_some())
}

/// A line an engine, and which is used.
pub(super) async fn examine(ask: Ask, needed: bool) -> Found {
    let variables = &ask.question.machine.variables;
    let named = variables.get(container::VARIABLE).map(String::as_str);
    let mut lines = Vec::new();
    let mut used: Option<Kind> = None;
    for kind in Kind::ALL {
        let word = kind.word();
        let Some(program) = kind.program(variables) else {
            if named == Some(word) {
                let fix = format!("install {word}, or name another engine");
                lines.push(Finding::bad(Level::Fail, "engine", word, "asked for, and not installed", fix));
            }
            continue;
        };
        match Engine::ask(kind, variables, ask.left().min(ANSWERS)).await {
            Err(why) => {
                let level = if named == Some(word) { Level::Fail } else { Level::Warn };
                let what = format!("{} is there and does not answer: {why}", program.display());
                lines.push(Finding::bad(ask.level(level), "engine", word, what, mend(kind)));
            }
            Ok(engine) => {
                let gpus = gpus(&ask, &engine).await;
                let used_now = used.is_none() && named.is_none_or(|named| named == word);
                if used_now {
                    used = Some(kind);
                }
                let mut what = engine.version.clone();
                if engine.rootless {
                    what.push_str(", as this user");
                }
                what.push_str(if used_now { ", used for images" } else { ", not used" });
                match gpus {
                    Gpus::None => lines.push(Finding::ok("engine", word, what)),
                    Gpus::Pass => lines.push(Finding::ok("engine", word, format!("{what}; GPUs pass"))),
                    Gpus::Stay(fix) => {
                        let what = format!("{what}; GPUs do not pass");
                        lines.push(Finding::bad(Level::Warn, "engine", word, what, fix));
                    }
                }
                if !engine.holds_cores {
                    let what = "it cannot hold a container to the cores of a slot";
                    let fix = "delegate the controller `cpuset` to this user, as its manual says of rootless cgroups";
                    lines.push(Finding::bad(Level::Warn, "engine", word, what, fix));
                }
            }
        }
    }
    if used.is_none() && needed {
        let what = "none answers, and the manifest's recipes name images";
        let fix = "install podman, docker or apptainer";
        lines.push(Finding::bad(ask.level(Level::Fail), "engine", "", what, fix));
    } else if lines.is_empty() {
        lines.push(Finding::ok("engine", "", "none; needed only for recipes with an `image`"));
    }
    Found { lines, ..Found::default() }
}

/// What to do about an engine that does not answer.
fn mend(kind: Kind) -> String {
    match kind {
        Kind::Podman => "run `podman info` by hand: mostly /etc/subuid has no line of this user".to_owned(),
        Kind::Docker => {
            "start its daemon, or join the group `docker`; flow uses another engine, if one answers".to_owned()
        }
        Kind::Apptainer => "run `apptainer --version` by hand".to_owned(),
    }
}

/// Whether GPUs can be used within.
enum Gpus {
    /// This machine has none.
    None,
    Pass,
    /// They are not passed on, and what to do.
    Stay(String),
}

async fn gpus(ask: &Ask, engine: &Engine) -> Gpus {
    let devices = ["/dev/nvidiactl", "/dev/nvidia0"].into_iter().any(|path| Path::new(path).exists());
    if !devices {
        return Gpus::None;
    }
    let passes = match engine.kind {
        Kind::Podman => described(),
        Kind::Docker => {
            let argv = [&engine.program.display().to_string(), "info", "--format", "{{json .Runtimes}}"];
            let env = container::client(&ask.question.machine.variables);
            let said = ask.answer(&argv.map(str::to_owned), &env, Path::new("/")).await;
            said.is_ok_and(|said| String::from_utf8_lossy(&said).contains("nvidia"))
        }
        // `--nv` takes what lies in /dev.
        Kind::Apptainer => true,
    };
    match (passes, engine.kind) {
        (true, _) => Gpus::Pass,
        (false, Kind::Docker) => Gpus::Stay(
            "install nvidia-container-toolkit, then `nvidia-ctk runtime configure --runtime=docker` and restart docker"
                .to_owned(),
        ),
        (false, _) => Gpus::Stay(
            "install nvidia-container-toolkit, then `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`".to_owned(),
        ),
    }
}

/// Whether some description tells of the GPUs.
fn described() -> bool {
    let files = CDI.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten().take(100);
    files.filter_map(|file| hostile::read_regular(&file.path(), SPEC).ok().flatten()).any(|bytes| {
        let text = String::from_utf8_lossy(&bytes);
        text.contains("nvidia.com/gpu")
    })
}
