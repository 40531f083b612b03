//! `flow act`: the programs that the adapters `human`, `nop` and `scripted` run in a work tree. For demonstrations and tests.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::cli::fault::Fault;
use crate::cli::output;
use crate::git;
use crate::hostile::read_regular;
use crate::units::Span;

/// The largest patch or script that is read.
const LARGEST: u64 = 64 * 1024 * 1024;

/// What to play.
#[derive(Debug, Subcommand)]
pub enum Act {
    /// Change nothing
    Nothing,
    /// Apply a patch to the current folder
    Apply {
        /// The patch
        patch: PathBuf,
    },
    /// Apply a patch and follow a script, as far as they are there
    Scripted(Scripted),
}

/// Arguments of `flow act scripted`.
#[derive(Debug, Args)]
pub struct Scripted {
    /// A patch; nothing is applied if the file is not there
    #[arg(long)]
    patch: Option<PathBuf>,
    /// A script; default behaviour if the file is not there
    #[arg(long)]
    script: Option<PathBuf>,
    /// How long to sit there
    #[arg(long)]
    delay: Option<Span>,
    /// The exit code
    #[arg(long)]
    exit: Option<u8>,
    /// A program to run in the work tree
    #[arg(last = true)]
    argv: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Script {
    argv: Vec<String>,
    usage: Option<serde_json::Value>,
    delay: Option<String>,
    exit: Option<u8>,
}

/// Plays an agent.
///
/// # Errors
/// If a file cannot be read or a patch does not apply: nothing is changed then.
pub fn act(act: Act) -> Result<ExitCode, Fault> {
    match act {
        Act::Nothing => Ok(ExitCode::SUCCESS),
        Act::Apply { patch } => {
            apply(&patch)?;
            Ok(ExitCode::SUCCESS)
        }
        Act::Scripted(args) => scripted(args),
    }
}

fn apply(patch: &Path) -> Result<bool, Fault> {
    let bytes = read_regular(patch, LARGEST).map_err(|error| Fault::new(1, format!("{}: {error}", patch.display())))?;
    let Some(bytes) = bytes else { return Ok(false) };
    if bytes.is_empty() {
        return Ok(true);
    }
    git::apply_to_dir(&bytes, Path::new("."))
        .map_err(|error| Fault::new(1, format!("{}: {error}", patch.display())))?;
    Ok(true)
}

fn scripted(args: Scripted) -> Result<ExitCode, Fault> {
    if let Some(patch) = &args.patch
        && apply(patch)?
    {
        output::data(format!("applied {}\n", patch.display()))?;
    }
    let mut script = Script::default();
    if let Some(path) = &args.script {
        let bytes =
            read_regular(path, LARGEST).map_err(|error| Fault::new(1, format!("{}: {error}", path.display())))?;
        if let Some(bytes) = bytes {
            script = serde_json::from_slice(&bytes)
                .map_err(|error| Fault::new(1, format!("{}: {error}", path.display())))?;
        }
    }
    let argv = if args.argv.is_empty() { &script.argv } else { &args.argv };
    let mut code = None;
    if let [program, arguments @ ..] = argv.as_slice() {
        let status = Command::new(program).args(arguments).status();
        let status = status.map_err(|error| Fault::new(1, format!("{program}: {error}")))?;
        code = status.code().and_then(|code| u8::try_from(code).ok()).or(Some(1));
    }
    if let Some(usage) = &script.usage {
        output::data(format!("flow-usage {usage}\n"))?;
    }
    let delay = match (args.delay, &script.delay) {
        (Some(delay), _) => Some(delay.0),
        (None, Some(text)) => Some(text.parse::<Span>().map_err(|error| Fault::new(1, error.to_string()))?.0),
        (None, None) => None,
    };
    std::thread::sleep(delay.unwrap_or(Duration::ZERO));
    Ok(ExitCode::from(args.exit.or(script.exit).or(code).unwrap_or(0)))
}
