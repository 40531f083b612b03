//! The commands that messages tell people to type: whole, so that they work where they are typed.

use std::path::Path;

use crate::cli::Places;
use crate::cli::open::{store_root, store_root_of};
use crate::cli::run::RunArgs;
use crate::manifest::Purpose;
use crate::text::shell;
use crate::units::Percent;

/// What followed `flow run MANIFEST`, but for how the run was to be shown and the consent to its cost.
#[must_use]
pub fn options(args: &RunArgs) -> Vec<String> {
    let mut words = places(&args.manifest, &args.places);
    let selection = &args.selection;
    let mut all = |option: &str, values: &[String]| {
        words.extend(values.iter().flat_map(|value| [option.to_owned(), value.clone()]));
    };
    all("--only", &selection.only);
    all("--commit", &selection.commit);
    all("--class", &selection.class);
    all("--until", selection.until.as_slice());
    all("--retry", &args.retry);
    all("--jobs", args.jobs.map(|jobs| jobs.to_string()).as_slice());
    match args.wait {
        Some(Some(span)) => words.push(format!("--wait={span}")),
        Some(None) => words.push("--wait".to_owned()),
        None => {}
    }
    if args.go_on {
        words.push("--continue".to_owned());
    }
    if args.drain != RunArgs::DRAIN {
        words.extend(["--drain".to_owned(), args.drain.to_string()]);
    }
    words
}

/// `flow run MANIFEST` and what followed.
#[must_use]
pub fn run(manifest: &Path, options: &[String]) -> String {
    let words = ["flow".to_owned(), "run".to_owned(), manifest.display().to_string()];
    shell(words.into_iter().chain(options.iter().cloned()))
}

/// The same of the verb that a manifest was read for.
#[must_use]
pub fn verb(purpose: Purpose, manifest: &Path, options: &[String]) -> String {
    let verb = match purpose {
        Purpose::Run => return run(manifest, options),
        Purpose::Vet => "vet",
        Purpose::Calibrate(_) => "calibrate",
    };
    let share = match purpose {
        Purpose::Calibrate(Some(share)) => vec!["--share".to_owned(), Percent(share).to_string()],
        _ => Vec::new(),
    };
    let words = ["flow".to_owned(), verb.to_owned(), manifest.display().to_string()];
    shell(words.into_iter().chain(options.iter().cloned()).chain(share))
}

/// What a verb that reads needs after a job's name to look where this run was: nothing where it looks there anyway.
#[must_use]
pub fn reader(manifest: &Path, given: &Places) -> String {
    let mut words = places(manifest, given);
    let here = store_root_of(None, &Places::default());
    if given.cache.is_none() && store_root(manifest, &Places::default()) != here {
        words.insert(0, manifest.display().to_string());
    }
    if words.is_empty() { String::new() } else { format!(" {}", shell(words)) }
}

/// The options that say where things are.
#[must_use]
pub fn places(manifest: &Path, given: &Places) -> Vec<String> {
    let mut words = Vec::new();
    let root = store_root(manifest, given);
    if given.cache.is_some() && root != store_root(manifest, &Places::default()) {
        words.extend(["--cache".to_owned(), root.display().to_string()]);
    }
    for (name, path) in &given.repos {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        words.extend(["--repo".to_owned(), format!("{name}={}", path.display())]);
    }
    words
}
