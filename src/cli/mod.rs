//! The command line: one file a verb. The only room that prints, reads the environment, and decides exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::units::Span;

pub mod act;
mod begin;
mod beside;
mod blamed;
pub mod calibrate;
pub mod cheats;
pub mod check;
pub mod closing;
pub mod completions;
pub mod confirm;
mod devices;
pub mod doctor;
pub mod extend;
pub mod fault;
pub mod gc;
mod gone;
pub mod hints;
pub mod history;
pub mod job;
pub mod log;
mod manifests;
pub mod open;
pub mod output;
pub mod plan;
pub mod progress;
pub mod reclassify;
mod reused;
pub mod run;
pub mod select;
pub mod selftest;
pub mod show;
pub mod status;
pub mod versions;
pub mod vet;
mod wanted;
pub mod why;

pub use fault::Fault;

/// Evaluates coding agents on real performance commits, from one manifest, and never runs the same thing twice.
#[derive(Debug, Parser)]
#[command(name = "flow", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  flow check pipelines/quickstart.kdl   every flaw of a manifest
  flow doctor pipelines/quickstart.kdl  what this machine lacks for it
  flow plan pipelines/quickstart.kdl    what would run, and why
  flow run pipelines/quickstart.kdl     run what has not been run
  flow status                           the newest run, at work or ended
  flow show shop/9f47610d/hasty/1       one job: class, evidence, attempts
  flow log shop/9f47610d/hasty/1 agent  what a step printed
  flow why 9f47610d                     why its steps ran again, or did not
  flow gc --budget 200GiB               make room in the store
  flow history pipelines/quickstart.kdl its versions, and what each re-runs

A run may be stopped at any instant: the same command goes on where it was.

Exit codes:
  0    all jobs are settled, or what was asked for was told
  1    `doctor` found what a run would fail on, or `selftest` a figure that is off
  2    usage, or flaws of the manifest: nothing was executed
  3    jobs are left unsettled, or the store cannot be used
  130  interrupted")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run what has not been run
    Run(run::RunArgs),
    /// Find the commits whose human change is faster here, before any agent is paid
    Vet(vet::VetArgs),
    /// Measure base against base: how often equal trees are called different here
    Calibrate(calibrate::CalibrateArgs),
    /// Go on measuring a job that could not be settled
    Extend(extend::ExtendArgs),
    /// Say what would run, and why
    Plan(plan::PlanArgs),
    /// Say why each step of a commit would run or did run again
    Why(why::WhyArgs),
    /// List the versions of a manifest in git, and what each would run again
    History(history::HistoryArgs),
    /// Read a manifest and report every flaw in it
    Check(check::CheckArgs),
    /// Say what a run would miss on this machine, and how to mend it
    Doctor(doctor::DoctorArgs),
    /// Read all attempts of agents by today's tables, and say the classes anew
    Reclassify(reclassify::ReclassifyArgs),
    /// Say how the newest run stands
    Status(status::StatusArgs),
    /// Show all that is known of one job
    Show(show::ShowArgs),
    /// Print what a step of a job printed
    Log(log::LogArgs),
    /// Make room in the store: drop what can be made again
    Gc(gc::GcArgs),
    /// Try out what flow promises of itself
    #[command(subcommand)]
    Selftest(selftest::Selftest),
    /// Print what a shell needs to complete flow's commands
    Completions(completions::CompletionsArgs),
    /// Play an agent of the `human`, `nop` or `scripted` adapter
    #[command(hide = true, subcommand)]
    Act(act::Act),
}

/// Where things are; understood by every verb.
#[derive(Clone, Debug, Default, Args)]
pub struct Places {
    /// The folder of the store [default: `cache` in the manifest's project]
    #[arg(long, env = "FLOW_CACHE", value_name = "DIR", hide_env_values = true)]
    pub cache: Option<PathBuf>,
    /// Use a local clone in place of a repository of the manifest; in no key
    #[arg(long = "repo", value_name = "NAME=PATH", value_parser = name_and_path)]
    pub repos: Vec<(String, PathBuf)>,
    /// The container engine of recipes with an `image`; in no key [default: `FLOW_ENGINE`, or the first that answers]
    #[arg(long, value_name = "NAME", value_parser = ["podman", "docker", "apptainer"])]
    pub engine: Option<String>,
}

fn name_and_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("write it as NAME=PATH".into()),
    }
}

/// What was probably meant by `--wait 8h`: its time is optional, so that a word after a space is another argument.
fn wait_tip(words: impl Iterator<Item = String>) -> Option<String> {
    let words: Vec<String> = words.collect();
    let after = words.iter().position(|word| word == "--wait").and_then(|at| words.get(at + 1))?;
    let span: Span = after.parse().ok()?;
    Some(format!("  tip: the time stands after `=`: --wait={span}"))
}

/// The whole program but for the supervisor.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() {
                let _ = error.print();
                if let Some(tip) = wait_tip(std::env::args()) {
                    output::say(&tip);
                }
                return ExitCode::from(2);
            }
            let printed = output::data(error.render().to_string());
            return printed.map_or_else(|fault| fault::report(&fault), |()| ExitCode::SUCCESS);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fault::report(&Fault::new(3, format!("cannot start threads: {error}"))),
    };
    let result = runtime.block_on(async {
        match cli.verb {
            Verb::Run(args) => run::run(args).await,
            Verb::Vet(args) => vet::vet(args).await,
            Verb::Calibrate(args) => calibrate::calibrate(args).await,
            Verb::Extend(args) => extend::extend(args).await,
            Verb::Plan(args) => plan::plan(args).await,
            Verb::Why(args) => why::why(args).await,
            Verb::History(args) => history::history(&args),
            Verb::Check(args) => check::check(&args),
            Verb::Doctor(args) => doctor::doctor(args).await,
            Verb::Reclassify(args) => reclassify::reclassify(args).await,
            Verb::Status(args) => status::status(&args),
            Verb::Show(args) => show::show(args).await,
            Verb::Log(args) => log::log(args).await,
            Verb::Gc(args) => gc::gc(&args),
            Verb::Selftest(what) => selftest::selftest(&what),
            Verb::Completions(args) => completions::completions(&args, Cli::command()),
            // What an agent prints last is the evidence of its failure.
            Verb::Act(act) => Ok(act::act(act).unwrap_or_else(|fault| fault::report_plainly(&fault))),
        }
    });
    // Tasks that are still blocked in a read must not keep a finished program alive.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(fault) => fault::report(&fault),
    }
}
