//! `flow run`: runs what has not been run, and prints the table.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Places;
use crate::cli::begin::Begun;
use crate::cli::confirm::confirm;
use crate::cli::fault::Fault;
use crate::cli::open::{Opened, lacks};
use crate::cli::reused::lacking_runs;
use crate::cli::select::{self, Selected, Selection};
use crate::cli::{closing, hints, output, progress};
use crate::container::Engines;
use crate::event::GitState;
use crate::ledger::Rates;
use crate::manifest::Purpose;
use crate::plan::{Missing, Plan};
use crate::report::campaign::{self, Calibration};
use crate::report::spent::{Spent, several_models_of};
use crate::report::standing::standing;
use crate::report::{composite, jobs, table};
use crate::run::budget::Purse;
use crate::run::decide::{Again, remakes};
use crate::run::dispatch::{Dispatcher, Observer, Options, Order, Parts};
use crate::run::journal::{Journal, write_plan};
use crate::run::leases::Leases;
use crate::run::recheck;
use crate::run::recover::{recover, whole_ledger};
use crate::run::uncommitted::git_state;
use crate::step::Context;
use crate::store::{Index, Store};
use crate::text::{counted, harmless, shell, wrap};
use crate::units::{Percent, Span};

/// Arguments of `flow run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow run pipelines/quickstart.kdl     all that has not been run
  flow run m.kdl --commit 9f47610d      one commit
  flow run m.kdl --only '*/careful/*' --until patch
                                        one candidate; of tests only the gate
  flow run m.kdl --class AGENT_TIMEOUT  jobs whose last class was this
  flow run m.kdl --retry '*/hasty/*'    what had used up its attempts
  flow run m.kdl --recheck 1%           some of what is served again, to compare
  flow run m.kdl --wait=8h              stay if a login expires, go on after it
  flow run m.kdl --json | jq -r .event  events for programs, no table

A run may be stopped at any instant, by Ctrl-C or by kill -9: the same command
goes on where it was. Progress goes to standard error, the table to standard
output.

Exit codes:
  0    all jobs are settled
  2    usage, flaws of the manifest, or something lacks here: nothing ran
  3    jobs are left unsettled (a lane is closed, a candidate paused, attempts
       used up), the store cannot be used, or an action came out otherwise
       than before (NONDETERMINISTIC)
  130  interrupted")]
pub struct RunArgs {
    /// The manifest
    pub manifest: PathBuf,
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
    /// What it is about.
    #[command(flatten)]
    pub selection: Selection,
    /// At most so many actions at once [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Try again what has used up its attempts, for jobs that match a glob
    #[arg(long, value_name = "JOB-GLOB", value_parser = select::not_empty)]
    pub retry: Vec<String>,
    /// Execute a share of what is served again, such as `1%`, to see whether it comes out the same: never agents or tests
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub recheck: Option<Percent>,
    /// What draws that share [default: the run's name, so that each run draws others]
    #[arg(long, value_name = "TEXT", requires = "recheck")]
    seed: Option<String>,
    /// Stay while agents wait for a closed lane, and go on when it opens [default: as long as it takes]
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true)]
    pub wait: Option<Option<Span>>,
    /// Go on with candidates whose agents all fail alike; that is put on record
    #[arg(long = "continue")]
    pub go_on: bool,
    /// How long running actions may go on after Ctrl-C
    #[arg(long, value_name = "SPAN", default_value = "90s")]
    pub drain: Span,
    /// Do not ask before spending more than the manifest's `confirm`
    #[arg(long, short)]
    yes: bool,
    /// Print each event as a line of JSON, and no table
    #[arg(long)]
    pub(super) json: bool,
    /// Do not show progress
    #[arg(long, short)]
    quiet: bool,
    /// Where the locks of this machine's slots lie
    #[arg(long, env = "FLOW_SLOTS", value_name = "DIR", default_value = "/tmp/flow-slots", hide = true)]
    slots: PathBuf,
    /// What the manifest is read for: which verb this is.
    #[arg(skip)]
    pub(super) purpose: Purpose,
}

impl RunArgs {
    /// How long running actions may go on after Ctrl-C where nobody says it.
    pub const DRAIN: Span = Span(Duration::from_secs(90));

    /// A run of a manifest as nobody said more of it.
    pub(super) fn of(manifest: PathBuf, places: Places, slots: PathBuf, json: bool) -> Self {
        Self {
            manifest,
            places,
            selection: Selection::default(),
            jobs: None,
            retry: Vec::new(),
            recheck: None,
            seed: None,
            wait: None,
            go_on: false,
            drain: Self::DRAIN,
            yes: false,
            json,
            quiet: false,
            slots,
            purpose: Purpose::Run,
        }
    }
}

/// Runs a manifest.
///
/// # Errors
/// If the manifest has flaws, the machine lacks something, or the store cannot be used: nothing was executed then.
pub async fn run(args: RunArgs) -> Result<ExitCode, Fault> {
    let opened = Opened::open(&args.manifest, &args.places, true).await?;
    let last_class = jobs::last_classes(opened.plan(), &opened.index);
    let selected = select::wanted(opened.plan(), &args.selection, &|job| last_class.get(&job).cloned())?;
    Ok(run_selected(args, opened, selected).await?.code)
}

/// What a run left.
pub(super) struct Finished {
    /// Its exit code.
    pub(super) code: ExitCode,
    /// What was run.
    pub(super) plan: Arc<Plan>,
    /// Where it is kept.
    pub(super) store: Arc<Store>,
    /// What is on record.
    pub(super) index: Index,
}

/// A share of a whole.
pub(super) fn share(text: &str) -> Result<Percent, String> {
    let share: Percent = text.parse().map_err(|error: crate::units::BadUnit| error.to_string())?;
    if share.0 > 1.0 { Err("a share is at most 100%".to_owned()) } else { Ok(share) }
}

/// Runs what was selected of a plan, and prints the table.
///
/// # Errors
/// If the machine lacks something, or the store cannot be used: nothing was executed then.
pub(super) async fn run_selected(args: RunArgs, opened: Opened, selected: Selected) -> Result<Finished, Fault> {
    let broken = |error: String| Fault::new(3, error);
    let Selected { jobs: about, nodes: wanted } = selected;
    let retry = select::globs(&args.retry)?;
    let options = hints::options(&args);
    let mut lacking = opened.lacking_secrets(&wanted);
    lacking.extend(opened.lacking_devices(&wanted));
    lacking.extend(lacking_runs(&opened.plan().manifest, &opened.store.root));
    let fatal: Vec<&Missing> = (0..opened.plan().nodes.len())
        .filter(|node| wanted[*node])
        .flat_map(|node| &opened.plan().nodes[node].missing)
        .filter(|missing| missing.fatal)
        .chain(&lacking)
        .collect();
    if let Some(fault) = lacks(&opened.plan().manifest, &fatal) {
        return Err(fault);
    }
    let retried = select::retried(opened.plan(), &about, &args.retry)?;
    let mut standings = None;
    for (glob, text) in retry.iter().zip(&args.retry) {
        let meant = || about.iter().map(|job| &opened.plan().jobs[*job]).filter(|job| glob.is_match(job.id.as_str()));
        let stands = standings.get_or_insert_with(|| standing(opened.plan(), &opened.store, &opened.index, &wanted));
        let over = |node: &usize| stands.ends[*node].is_over() && !stands.ends[*node].is_open();
        if meant().flat_map(|job| &job.nodes).all(|node| over(node) && !stands.over_limit.contains(node)) {
            let note = format!(
                "note: --retry {text}: everything of it is settled, by success or by the agent's own failure; what is settled is \
                 not drawn again: change what it is made of, or raise `samples` of the candidate"
            );
            output::say(&wrap(&note, output::width()).join("\n  "));
        }
    }
    if !args.yes {
        confirm(&opened, &wanted, &retried)?;
    }
    let Opened { store, machine, prepared, path, .. } = opened;
    let leases = Leases::open(&prepared.plan, &args.slots, &store.root).map_err(|error| {
        let hint =
            "the slots of a machine are locked in one folder that all its users can write: name it with FLOW_SLOTS=DIR";
        Fault::hint(2, format!("the slots cannot be locked: {error}"), hint)
    })?;
    let Begun { run, lock: _lock, records, mut index } = Begun::begin(&store, &prepared)?;
    let recovered = recover(&store, &machine, &mut index, &run, &records).map_err(|error| broken(error.to_string()))?;
    if recovered.ended + recovered.finished > 0 {
        output::say(&format!(
            "note: an earlier run died: {} attempts of it were interrupted, {} agents had finished and are read where this run \
             asks for them",
            recovered.ended, recovered.finished
        ));
        index = Index::load(&store.root).map_err(|error| broken(error.to_string()))?;
    }
    index.own(&run);
    let remake = remakes(&prepared.plan, &store, &index, &wanted);
    let again = remake.into_iter().zip(retried).map(|(remake, retry)| Again { retry, remake, recheck: false });
    let mut again: Vec<Again> = again.collect();
    if let Some(share) = args.recheck {
        let seed = args.seed.as_deref().unwrap_or(run.as_str());
        let drawn = recheck::sample(&prepared.plan, &store, &index, &wanted, share, seed);
        let count = drawn.iter().filter(|drawn| **drawn).count();
        let what = format!("{} executed again to see whether they come out the same", counted(count, "served action"));
        output::say(&format!("note: {what} (--seed {})", shell([seed.to_owned()])));
        again.iter_mut().zip(drawn).for_each(|(again, drawn)| again.recheck = drawn && !again.remake && !again.retry);
    }
    let git = git_state(&prepared.plan, &prepared.intake);
    let uncommitted = git.as_ref().and_then(GitState::warning);
    write_plan(&store.root, &run, &prepared.plan, &path, options.clone(), &wanted, git.clone());
    let plan = Arc::new(prepared.plan);
    let context = Arc::new(Context {
        plan: plan.clone(),
        store: store.clone(),
        machine,
        sources: prepared.sources,
        engines: Engines::default(),
    });
    let terms = Options {
        jobs: args
            .jobs
            .map(usize::from)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from))
            .max(1),
        drain: args.drain.0,
        wanted: wanted.clone(),
        about: about.clone(),
        again,
        wait: args.wait.map(|limit| limit.map_or(Duration::MAX, |Span(limit)| limit)),
        go_on: args.go_on,
        pure: false,
    };
    let mut observers: Vec<Box<dyn Observer>> = Vec::new();
    let mut lost = None;
    if args.json {
        let json = progress::Json::default();
        lost = Some(json.lost());
        observers.push(Box::new(json));
    } else if !args.quiet {
        observers.push(progress::for_terminal(&plan, &wanted));
    }
    leases.stand_aside();
    let purse = Purse::open(&plan, &path.display().to_string(), &run, &store, &index);
    let purse = purse.map_err(|error| broken(error.to_string()))?;
    let journal = Journal::create(&store.root, &run);
    let manifest = path.display().to_string();
    let dispatcher = Dispatcher::new(Parts {
        context,
        run: run.clone(),
        manifest,
        git,
        index,
        records,
        journal,
        leases,
        options: terms,
        purse,
        observers,
    });
    let report = dispatcher.run(orders()?).await;
    for damage in store.cas.take_damage() {
        output::say(&format!("warning: {damage}"));
    }
    if let Some(fault) = lost.and_then(|lost| lost.fault()) {
        return Err(fault);
    }
    let index = Index::load(&store.root).map_err(|error| broken(error.to_string()))?;
    if !args.json {
        let standing = standing(&plan, &store, &index, &wanted).after(&plan, &store.root, &run);
        let results = jobs::results(&plan, &standing, &about, &wanted);
        let (controls, results): (Vec<_>, Vec<_>) = results.into_iter().partition(|result| result.control);
        let width = output::width();
        output::data(Calibration::of(&plan, &store, &index).text(width))?;
        if results.is_empty() && !controls.is_empty() {
            output::data(table::results(&controls, width))?;
        } else {
            output::data(table::results(&results, width))?;
            output::data(table::legend(&results, width))?;
        }
        let ruled = campaign::ruled(&plan, &store, &index);
        output::data(harmless(&campaign::rulings(&plan.manifest.pipeline, &ruled, width)))?;
        output::data(composite::text(&composite::composites(&plan, &store, &index, &standing.ends), width))?;
        let ledger = whole_ledger(Rates::of(&plan.manifest.pipeline), &store, &index, Some(&run));
        let ledger = ledger.map_err(|error| broken(error.to_string()))?;
        output::data(Spent::of(&ledger, &plan.manifest.pipeline, Some(&run)).text(width))?;
        for warning in several_models_of(&results) {
            output::data(harmless(&format!("{warning}\n")))?;
        }
        if let Some(uncommitted) = uncommitted {
            output::data(format!("{}\n", wrap(&uncommitted, width).join("\n")))?;
        }
        let vetted = campaign::vetted(&plan.manifest.pipeline);
        output::data(table::summary(&results, Some(&report.finished), vetted.as_deref(), width))?;
        closing::waits(&report.finished, width);
        closing::room(&results, &store);
        closing::disagreements(&report.finished, width);
        if !args.quiet || results.iter().any(|result| result.open) {
            closing::next_steps(&results, &path, &args.places, &options, args.purpose);
        }
    }
    let code = ExitCode::from(u8::try_from(report.exit).unwrap_or(3));
    Ok(Finished { code, plan, store, index })
}

/// Signals as orders: the first of any kind drains, the second kills.
pub(super) fn orders() -> Result<mpsc::UnboundedReceiver<Order>, Fault> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let listen = |kind| signal(kind).map_err(|error| Fault::new(3, format!("cannot listen to signals: {error}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut heard = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            heard += 1;
            if sender.send(if heard == 1 { Order::Drain } else { Order::Kill }).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    Ok(receiver)
}
