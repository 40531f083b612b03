//! `flow completions`: what a shell needs to complete flow's verbs and options.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use crate::cli::fault::Fault;
use crate::cli::output;

/// Arguments of `flow completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow completions bash > ~/.local/share/bash-completion/completions/flow
  flow completions zsh  > ~/.zfunc/_flow
  flow completions fish > ~/.config/fish/completions/flow.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completions of a command.
///
/// # Errors
/// If they cannot be written.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<ExitCode, Fault> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "flow", &mut script);
    output::data(script)?;
    Ok(ExitCode::SUCCESS)
}
