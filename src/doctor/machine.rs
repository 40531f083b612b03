//! The machine's own lines: git, Python, the clock, control groups, and the places for locks and for configs with secrets.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use super::ask::{Ask, Found};
use super::{Finding, Level};
use crate::manifest::{Kind, SandboxChoice, Step};
use crate::process;
use crate::step::secrets::private_places;

/// Older versions of git obey the user's configuration whatever flow says.
const GIT: (u32, u32) = (2, 32);
/// No clock that is right shows less: seconds since 1970 at the beginning of 2025.
const PAST: i64 = 1_735_689_600;
/// A file of the store may be this much newer than the clock: seconds.
const AHEAD: i64 = 120;

/// git's version.
pub(super) async fn git(ask: Ask) -> Found {
    let install = "install git, and have it in PATH";
    let argv = ["git", "--version"].map(str::to_owned);
    let said = ask.answer(&argv, &ask.question.machine.variables, Path::new("/")).await;
    Found::line(match said {
        Err(why) => Finding::bad(ask.level(Level::Fail), "git", "", format!("git does not answer: {why}"), install),
        Ok(said) => {
            let said = String::from_utf8_lossy(&said);
            let version = said.trim().strip_prefix("git version ").unwrap_or(said.trim()).to_owned();
            let mut numbers = version.split(['.', ' ', '-']).map_while(|part| part.parse::<u32>().ok());
            match (numbers.next(), numbers.next()) {
                (Some(major), Some(minor)) if (major, minor) < GIT => Finding::bad(
                    Level::Warn,
                    "git",
                    "",
                    format!("{version}: it may obey your own configuration when a repository is fetched"),
                    format!("install {}.{} or newer", GIT.0, GIT.1),
                ),
                (Some(_), Some(_)) => Finding::ok("git", "", version),
                _ => Finding::bad(Level::Unknown, "git", "", format!("it calls itself `{version}`"), install),
            }
        }
    })
}

/// The Python that is first in `PATH`, where no manifest names one.
pub(super) async fn python(ask: Ask) -> Found {
    let argv = ["python3", "--version"].map(str::to_owned);
    let said = ask.answer(&argv, &ask.question.machine.variables, Path::new("/")).await;
    Found::line(match said {
        Ok(said) => Finding::ok("python", "", String::from_utf8_lossy(&said).trim().to_owned()),
        Err(why) => Finding::bad(
            ask.level(Level::Warn),
            "python",
            "",
            format!("python3 does not answer: {why}"),
            "install Python 3 for the tests of most manifests, or name another in `tool python`",
        ),
    })
}

/// Whether the clock can be believed.
pub(super) fn clock(ask: &Ask) -> Found {
    let now = jiff::Timestamp::now();
    let set = "set the clock, `timedatectl set-ntp true` say: signed calls are refused when it is minutes off";
    let seconds = now.as_second();
    let line = if seconds < PAST {
        Finding::bad(Level::Fail, "clock", "", format!("it shows {now:.0}, which is past"), set)
    } else if newest(&ask.question.store.join("records/v1")).is_some_and(|newest| newest > seconds + AHEAD) {
        Finding::bad(Level::Fail, "clock", "", format!("it shows {now:.0}; the store has records from after that"), set)
    } else {
        match synchronised() {
            Some(true) => Finding::ok("clock", "", format!("{now:.0}, synchronised")),
            Some(false) => Finding::bad(Level::Warn, "clock", "", format!("{now:.0}, synchronised with nothing"), set),
            None => Finding::bad(Level::Unknown, "clock", "", format!("{now:.0}; the kernel does not say more"), set),
        }
    };
    Found::line(line)
}

/// When the newest file of a folder was changed.
fn newest(folder: &Path) -> Option<i64> {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(folder).ok()?.flatten().take(100_000);
    files.filter_map(|file| Some(file.metadata().ok()?.mtime())).max()
}

/// Whether the kernel holds its clock for synchronised.
fn synchronised() -> Option<bool> {
    // SAFETY: plain old data; with no modes the call only fills it in.
    let state = unsafe {
        let mut data: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut data)
    };
    // The last of its states: unsynchronised.
    (state >= 0).then_some(state != 5)
}

/// What processes of an attempt can be held by, and where configs with secrets may lie.
pub(super) fn kernel(ask: &Ask) -> Found {
    let mut lines = vec![match process::groups() {
        Ok(()) => Finding::ok("cgroup", "", "version 2, and this user may make groups"),
        Err(why) => Finding::bad(
            Level::Warn,
            "cgroup",
            "",
            format!("{why}: an agent's processes are found by their marks alone"),
            "`systemd-run --user --scope -p Delegate=yes flow run …`, or nothing: flow works without",
        ),
    }];
    lines.push(sandbox(ask));
    lines.extend(network(ask));
    lines.push(private(ask));
    if ask.question.manifest.as_ref().is_some_and(|manifest| !manifest.pipeline.slots.is_empty()) {
        lines.push(locks(&ask.question.slots));
    }
    Found { lines, ..Found::default() }
}

/// Whether the kernel can hold agents and tests to their own files and network.
fn sandbox(ask: &Ask) -> Finding {
    let pipeline = ask.question.manifest.as_ref().map(|manifest| &manifest.pipeline);
    let held = |step: &&Step| matches!(step.kind(), Kind::Agent | Kind::Test);
    let steps = || pipeline.into_iter().flat_map(|pipeline| pipeline.steps.iter().filter(held));
    let choices = || steps().map(|step| step.sandbox.choice);
    if pipeline.is_some() && choices().all(|choice| choice == SandboxChoice::Off) {
        return Finding::ok("sandbox", "", "off in the manifest: agents and tests are held to nothing");
    }
    let lacks = process::sandboxed();
    if lacks.is_empty() {
        return Finding::ok(
            "sandbox",
            "",
            "agents and tests are held to their own files, devices, network and processes",
        );
    }
    let (level, then) = match choices().any(|choice| choice == SandboxChoice::Require) {
        true => (Level::Fail, "steps with `sandbox require` do not begin"),
        false => (Level::Warn, "results are marked NO_SANDBOX"),
    };
    let parts: Vec<&str> = lacks.iter().map(|(part, _)| part.word()).collect();
    let why = lacks.first().map_or("", |(_, why)| why.as_str());
    let only_processes = lacks.iter().all(|(part, _)| *part == process::Part::Processes);
    let fix = match only_processes {
        true => "a newer kernel holds them; or nothing: the rest is held",
        false => "allow user namespaces to this user, or run flow as root",
    };
    let then = if only_processes && level == Level::Warn { "the rest is held" } else { then };
    Finding::bad(level, "sandbox", "", format!("{} cannot be held ({why}); {then}", parts.join(", ")), fix)
}

/// Whether agents can be held to the hosts that a manifest names, where it names some.
fn network(ask: &Ask) -> Option<Finding> {
    let pipeline = &ask.question.manifest.as_ref()?.pipeline;
    let agents = || pipeline.steps.iter().filter(|step| step.kind() == Kind::Agent).map(|step| &step.sandbox);
    let of_providers = pipeline.providers.values().filter_map(|provider| provider.network.as_ref());
    let named = of_providers.flat_map(|network| &network.value).chain(agents().flat_map(|sandbox| &sandbox.network));
    let hosts: BTreeSet<String> = named.map(ToString::to_string).collect();
    if hosts.is_empty() {
        return None;
    }
    let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
    let required = agents().any(|sandbox| sandbox.choice == SandboxChoice::Require);
    Some(match process::own_networks() {
        Ok(()) => Finding::ok("network", "", format!("agents can be held to {hosts}")),
        Err(why) => {
            let (level, then) = match required {
                true => (Level::Fail, "agents do not begin"),
                false => (Level::Warn, "the agents' network stays open: EGRESS_OPEN"),
            };
            let what = format!("agents cannot be held to {hosts}: the kernel refuses ({why}); {then}");
            Finding::bad(level, "network", "", what, "allow user namespaces to this user, or run flow as root")
        }
    })
}

fn private(ask: &Ask) -> Finding {
    let needs = ask.question.manifest.as_ref().is_some_and(|manifest| {
        let configs = manifest.pipeline.candidates.iter().filter_map(|candidate| candidate.config.as_ref());
        configs.into_iter().any(|config| String::from_utf8_lossy(&config.bytes).contains("{secret."))
    });
    let places = private_places(&ask.question.machine, "doctor");
    let mut roots = places.iter().filter_map(|place| place.parent());
    let fix = "give flow a folder in memory: XDG_RUNTIME_DIR, or /dev/shm of more than nothing";
    match roots.find(|root| writable(root).is_ok()) {
        None => {
            let level = if needs { Level::Fail } else { Level::Warn };
            Finding::bad(level, "private place", "", "there is none for configs with secrets filled in", fix)
        }
        Some(root) if in_memory(root) => Finding::ok("private place", "", format!("{}, in memory", root.display())),
        Some(root) => {
            let what = format!("{} is not in memory: configs with secrets would be on a disk", root.display());
            Finding::bad(Level::Warn, "private place", "", what, fix)
        }
    }
}

fn in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
}

fn locks(dir: &Path) -> Finding {
    let there = if dir.exists() { dir } else { dir.parent().unwrap_or(Path::new("/")) };
    let (what, fix) = if !there.is_dir() {
        (format!("{} is no folder", there.display()), "move it away, or name another with FLOW_SLOTS".to_owned())
    } else if let Err(error) = writable(there) {
        let what = format!("{} cannot be written: {error}", there.display());
        (what, format!("`chmod 1777 {}` as its owner, or name another for all users with FLOW_SLOTS", there.display()))
    } else {
        return Finding::ok("slot locks", "", dir.display().to_string());
    };
    Finding::bad(Level::Fail, "slot locks", "", what, fix)
}

/// Whether files can be made in a folder; nothing is.
pub(super) fn writable(folder: &Path) -> io::Result<()> {
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
}

/// The nearest folder at or above a path that is there.
pub(super) fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}
