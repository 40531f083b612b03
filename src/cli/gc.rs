//! `flow gc`: makes room in the store.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use crate::cli::Places;
use crate::cli::fault::Fault;
use crate::cli::{open, output};
use crate::gc::{self, Cleared, Kind, Loss, Thing, Wish};
use crate::names::RunId;
use crate::store::{Alone, RunLock};
use crate::text::{Table, counted, harmless, wrap};
use crate::units::{Size, human_count, human_size, human_span};

/// Arguments of `flow gc`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow gc --dry-run                   what would go, and how much that is
  flow gc --budget 200GiB             what was not used for longest goes, until
                                      the store takes no more than that
  flow gc                             all goes that can be made again
  flow gc --forget RUN                a run's records go, after a question

What goes: temporaries of attempts that are over, contents that no record names,
and what is made again when somebody needs it: environments, assets, packed
trees, inflated files, mirrors. Never what a run at work relies on. Records and
what they name stay: a run after a gc executes nothing.

Exit codes: 0 done, or a dry run; 2 usage, or a run that cannot be forgotten;
3 the budget does not hold, or something could not be taken away.")]
pub struct GcArgs {
    /// The manifest, whose project's store is meant [default: that of the current folder]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// What the store may take of the disk: 200GiB
    #[arg(long, value_name = "SIZE")]
    budget: Option<Size>,
    /// Forget a run: its records, and what nothing else names. Its draws are to be paid for again
    #[arg(long, value_name = "RUN")]
    forget: Option<String>,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before a run is forgotten
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Makes room.
///
/// # Errors
/// If the store cannot be looked through, or the run not be forgotten: nothing was taken away then.
pub fn gc(args: &GcArgs) -> Result<ExitCode, Fault> {
    let root = open::store_root_of(args.manifest.as_deref(), &args.places);
    if !root.join("records/v1").is_dir() {
        return Err(Fault::hint(
            2,
            format!("{} is no store", root.display()),
            "name its folder with --cache DIR or FLOW_CACHE, or a manifest of its project",
        ));
    }
    let store = open::store_to_read(&root)?;
    let broken = |error: crate::store::StoreError| Fault::new(3, error.to_string());
    let forget = args.forget.as_deref().map(RunId::new);
    let mut lost = None;
    if let Some(run) = &forget {
        let Some(loss) = gc::loss(&store, run).map_err(broken)? else {
            return Err(Fault::hint(2, format!("the store has no run {run}"), "`flow status --all` lists its runs"));
        };
        if RunLock::is_alive(&root, run).map_err(broken)? {
            return Err(Fault::hint(2, format!("run {run} is at work"), "end it with Ctrl-C, or wait until it ended"));
        }
        if !Alone::is_free(&root).map_err(broken)? {
            let what = format!("run {run} cannot be forgotten while another is at work: it may be served by it");
            return Err(Fault::hint(2, what, "wait until that has ended"));
        }
        if !args.dry_run && !args.yes {
            ask(run, &loss)?;
        }
        lost = Some(loss);
    }
    let wish = Wish { budget: args.budget.map(|Size(bytes)| bytes), dry_run: args.dry_run, forget };
    let cleared = gc::clear(&store, &open::machine()?, &wish).map_err(broken)?;
    if args.json {
        let mut document = serde_json::to_value(&cleared).unwrap_or_default();
        document["loss"] = json!(lost);
        output::json(&document)?;
    } else {
        tell(&cleared, lost.as_ref())?;
    }
    let over = cleared.budget.is_some_and(|budget| cleared.after > budget);
    Ok(if over || !cleared.failed.is_empty() { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

/// What is lost with a run, in words.
fn loses(loss: &Loss) -> String {
    let mut text = counted(loss.attempts, "attempt");
    if loss.draws > 0 {
        let tokens = match loss.unknown {
            0 => format!("{} tokens", human_count(loss.tokens)),
            _ => {
                format!("{} tokens and what is unknown of {}", human_count(loss.tokens), counted(loss.unknown, "draw"))
            }
        };
        text.push_str(&format!(", {} of agents ({tokens})", loss.draws));
    }
    text.push_str(&format!("; {} settled by no other run would run again", counted(loss.alone, "action")));
    if loss.paid_again > 0 {
        text.push_str(&format!(", {} of them to be paid for again", loss.paid_again));
    }
    text.push_str("; what was spent is counted by no budget any more");
    text
}

fn ask(run: &RunId, loss: &Loss) -> Result<(), Fault> {
    let what = format!("run {run} would be forgotten: {}", loses(loss));
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Fault::hint(2, what, "nothing was taken away: --yes says that this is meant"));
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{what}. Go on? [y/N] ").and_then(|()| err.flush());
    drop(err);
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Fault::new(2, "not confirmed: nothing was taken away")),
    }
}

fn tell(cleared: &Cleared, lost: Option<&Loss>) -> Result<(), Fault> {
    let verb = if cleared.dry_run { "would go" } else { "gone" };
    if let (Some(run), Some(loss)) = (&cleared.forgotten, lost) {
        let what = if cleared.dry_run { "would be forgotten" } else { "forgotten" };
        output::data(format!(
            "{}\n",
            wrap(&format!("run {run} {what}: {}", loses(loss)), output::width()).join("\n  ")
        ))?;
    }
    let text = table(&cleared.gone, verb);
    if !text.is_empty() {
        output::data(harmless(&text))?;
    }
    let freed: u64 = cleared.gone.iter().map(|thing| thing.bytes).sum();
    let mut sum = format!("{verb}: {}; the store ", human_size(freed));
    sum.push_str(&match cleared.dry_run {
        true => format!("takes {}, and {} after that\n", human_size(cleared.before), human_size(cleared.after)),
        false => format!("takes {}\n", human_size(cleared.after)),
    });
    output::data(sum)?;
    let mut stays: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for thing in &cleared.stayed {
        let (count, bytes) = stays.entry(thing.stays.as_deref().unwrap_or_default()).or_default();
        (*count, *bytes) = (*count + 1, *bytes + thing.bytes);
    }
    for (why, (count, bytes)) in stays {
        output::data(format!("kept, {why}: {}, {}\n", counted(count, "thing"), human_size(bytes)))?;
    }
    for failed in &cleared.failed {
        output::say(&harmless(&format!("warning: {failed}")));
    }
    if let Some(budget) = cleared.budget.filter(|budget| cleared.after > *budget) {
        output::say(&format!(
            "note: the budget of {} does not hold: what is left are records, what they name, and what is kept; \
             `flow gc --forget RUN` gives a run's up",
            human_size(budget)
        ));
    }
    Ok(())
}

/// The things, each by its name; of those of which there are many, their number.
fn table(things: &[Thing], verb: &str) -> String {
    let mut table = Table::new(&["", verb, "of", "size", "used", "took"]).right([3]);
    let now = SystemTime::now();
    let many = |kind: Kind| matches!(kind, Kind::Temporary | Kind::Unnamed | Kind::Pack);
    for kind in [Kind::Temporary, Kind::Unnamed, Kind::Pack] {
        let of: Vec<&Thing> = things.iter().filter(|thing| thing.kind == kind).collect();
        if let Some(first) = of.first() {
            let name = if of.len() == 1 { shown(first) } else { counted(of.len(), "of them").replace("thems", "them") };
            let newest = of.iter().map(|thing| thing.used).max().flatten();
            let bytes = of.iter().map(|thing| thing.bytes).sum();
            let [of, took] = [String::new(), String::new()];
            table.row(vec![kind.word().to_owned(), name, of, human_size(bytes), gc::ago(newest, now), took]);
        }
    }
    for thing in things.iter().filter(|thing| !many(thing.kind)) {
        // Whose an environment is, and what making it again takes, helps who decides; of the others nobody asks.
        let is_built = thing.kind == Kind::Environment;
        let unknown = || if is_built { "unknown".to_owned() } else { String::new() };
        let of = thing.of.clone().unwrap_or_else(unknown);
        let took = thing.made_ms.map_or_else(unknown, |ms| human_span(Duration::from_millis(ms)));
        let used = gc::ago(thing.used, now);
        table.row(vec![thing.kind.word().to_owned(), shown(thing), of, human_size(thing.bytes), used, took]);
    }
    if table.is_empty() { String::new() } else { table.text() }
}

/// A thing's name: of one that is a digest, its beginning.
fn shown(thing: &Thing) -> String {
    let digits = thing.name.len() >= 40 && thing.name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { thing.name.chars().take(12).collect() } else { thing.name.clone() }
}
