//! `flow selftest`: what flow promises of itself, tried out.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::cheats::{CheatsArgs, cheats};
use crate::cli::fault::Fault;
use crate::cli::output;
use crate::measure::published::{Figure, OFF_MAX, TRIALS, figures, text};

/// What can be tried out.
#[derive(Debug, Subcommand)]
pub enum Selftest {
    /// How often verdicts are false, and how often true effects are found, by simulation
    Stats(StatsArgs),
    /// Known ways to a verdict that was not earned, each tried by the same run as any other job
    Cheats(CheatsArgs),
}

/// Arguments of `flow selftest stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow selftest stats                   the whole table, in seconds
  flow selftest stats --trials 50000    the same, surer
  flow selftest stats --json            one document for programs

Simulated sessions go through the code that schedules and judges real ones, with
four kinds of noise: Q quiet, T drifting with outliers, R wandering, N noisy.
Both what flow finds and what was published are draws: of so many figures one in
a few tables is further off than three standard errors by chance. Those of the
seed that is taken if none is given are not.

Exit codes: 0 every figure agrees with the published one; 1 one does not.")]
pub struct StatsArgs {
    /// How many sessions of each kind are simulated
    #[arg(long, value_name = "N", default_value_t = TRIALS, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    trials: u32,
    /// Where the random numbers begin
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Tries it out.
///
/// # Errors
/// If the answer cannot be written.
pub fn selftest(what: &Selftest) -> Result<ExitCode, Fault> {
    let args = match what {
        Selftest::Stats(args) => args,
        Selftest::Cheats(args) => return cheats(args),
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)).min(64);
    let figures = figures(args.trials, args.seed, threads);
    let agree = figures.iter().all(Figure::agrees);
    if args.json {
        output::json(&json!({
            "selftest": "stats",
            "trials": args.trials,
            "seed": args.seed,
            "off_max": OFF_MAX,
            "agree": agree,
            "figures": figures,
        }))?;
    } else {
        output::data(text(&figures, args.trials, args.seed))?;
    }
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
