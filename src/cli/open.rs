//! What every verb begins with: the manifest read, the store opened, this machine looked at, the plan made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};

use crate::cli::Places;
use crate::cli::fault::Fault;
use crate::cli::output;
use crate::container;
use crate::git::{Mirror, Source};
use crate::ledger::Rates;

use crate::manifest::{self, Manifest, SecretFrom};
use crate::plan::{Missing, Plan};
use crate::redact::Redactor;
use crate::report::standing::standing;
use crate::run::durations::Durations;
use crate::run::prepare::{Prepared, Wishes, prepare};
use crate::run::recover::whole_ledger;
use crate::run::renamed::names_today;
use crate::step::context::Machine;
use crate::step::secrets::{at_hand, lacking_secrets, redactor};
use crate::store::{Index, Store, StoreError};
use crate::why::estimate::{Estimate, estimate};
use crate::why::forecast::Forecast;

/// The most actions of one manifest: about what fits into a few gigabytes.
const MOST_ACTIONS: u64 = 2_000_000;

/// A manifest on this machine.
pub struct Opened {
    /// The store.
    pub store: Arc<Store>,
    /// What it knows.
    pub index: Index,
    /// This machine.
    pub machine: Machine,
    /// The plan and what it was made with.
    pub prepared: Prepared,
    /// The manifest's path as it was written.
    pub path: PathBuf,
}

impl Opened {
    /// Reads a manifest and plans it.
    ///
    /// # Errors
    /// If the manifest has flaws or the store cannot be used.
    pub async fn open(path: &Path, places: &Places, fetch: bool) -> Result<Self, Fault> {
        Self::with(Arc::new(read(path)?), path, places, fetch).await
    }

    /// Plans a manifest that was read.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn with(manifest: Arc<Manifest>, path: &Path, places: &Places, fetch: bool) -> Result<Self, Fault> {
        let root = store_root(path, places);
        Self::with_index(manifest, path, places, fetch, || Index::load(&root)).await
    }

    /// The same, where somebody reads what the store knows already.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn with_index(
        manifest: Arc<Manifest>,
        path: &Path,
        places: &Places,
        fetch: bool,
        index: impl FnOnce() -> Result<Index, StoreError>,
    ) -> Result<Self, Fault> {
        let actions = crate::plan::points::count(&manifest.pipeline);
        if actions > MOST_ACTIONS {
            return Err(Fault::hint(
                2,
                format!("the manifest has {actions} actions: more than {MOST_ACTIONS} are refused"),
                "its axes, commits, candidates and samples multiply: use fewer, or several manifests",
            ));
        }
        let root = store_root(path, places);
        let store = Arc::new(if fetch { store(&root)? } else { store_to_read(&root)? });
        let index = index().map_err(|error| Fault::new(3, error.to_string()))?;
        say_damage(&index);
        let machine = machine_of(places)?;
        let known: Vec<&str> = manifest.pipeline.repos.iter().map(|repo| repo.name.value.as_str()).collect();
        if let Some((name, _)) = places.repos.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            return Err(Fault::hint(
                2,
                format!("--repo {name}=…: the manifest has no repository `{name}`"),
                format!("it has: {}", known.join(", ")),
            ));
        }
        let mut repos = BTreeMap::new();
        for (name, path) in &places.repos {
            let full =
                std::path::absolute(path).map_err(|error| Fault::new(2, format!("{}: {error}", path.display())))?;
            // Asked though all may be served and nobody opens it: the next run would meet a path that was mistyped.
            Mirror::open(&full, &Source::Local(full.clone())).map_err(|error| {
                Fault::hint(
                    2,
                    format!("--repo {name}={}: {error}", path.display()),
                    "give the folder of a clone or of a bare repository on this machine",
                )
            })?;
            repos.insert(name.clone(), full);
        }
        let wishes = Wishes { fetch, repos };
        let prepared = prepare(manifest, &machine, &store, &index, &wishes).await;
        for notice in prepared.notices.iter().chain(&unknown_jobs(&prepared.plan.manifest)) {
            output::say(&format!("note: {notice}"));
        }
        Ok(Self { store, index, machine, prepared, path: path.to_owned() })
    }

    /// The secrets that wanted actions need and this machine does not have. What is served needs none.
    #[must_use]
    pub fn lacking_secrets(&self, wanted: &[bool]) -> Vec<Missing> {
        let plan = self.plan();
        let lacking = |node: usize| {
            let env = plan.nodes[node].ask.env().filter(|_| wanted[node]);
            env.map(|env| lacking_secrets(&self.machine, env)).unwrap_or_default()
        };
        let mut found: Vec<(usize, Missing)> = Vec::new();
        for node in 0..plan.nodes.len() {
            found.extend(lacking(node).into_iter().map(|missing| (node, missing)));
        }
        if found.is_empty() {
            return Vec::new();
        }
        let ends = standing(plan, &self.store, &self.index, wanted).ends;
        found.into_iter().filter(|(node, _)| ends[*node].settled().is_none()).map(|(_, missing)| missing).collect()
    }

    /// What forecasts may come to.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn estimate(&self, forecasts: &[Forecast]) -> Result<Estimate, Fault> {
        Ok(self.estimator()?(forecasts))
    }

    /// The same for several sets of forecasts: the records are read once.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn estimator(&self) -> Result<impl Fn(&[Forecast]) -> Estimate, Fault> {
        let rates = Rates::of(&self.plan().manifest.pipeline);
        let ledger = whole_ledger(rates, &self.store, &self.index, None);
        let mut ledger = ledger.map_err(|error| Fault::new(3, error.to_string()))?;
        let names = names_today(self.plan(), &ledger.gone(), &self.store, &self.index);
        let durations = Durations::read(&self.index).known_as(&names);
        ledger.set_names(names);
        let beside = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(move |forecasts: &[Forecast]| estimate(self.plan(), forecasts, &ledger, &durations, beside))
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.prepared.plan
    }
}

/// The rulings of jobs that the manifest does not have, in words: nobody would see them.
#[must_use]
pub fn unknown_jobs(manifest: &Manifest) -> Vec<String> {
    let pipeline = &manifest.pipeline;
    if pipeline.rulings.is_empty() {
        return Vec::new();
    }
    let names = crate::plan::points::job_names(pipeline);
    let unknown = pipeline.rulings.iter().filter(|ruling| !names.contains(&ruling.job.value));
    let say = |ruling: &manifest::Ruling| {
        let (file, line) = manifest.line_of(ruling.job.place);
        let job = &ruling.job.value;
        let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, job));
        let near = near.map_or_else(String::new, |near| format!("; the nearest is `{near}`"));
        let what = if ruling.verdict.is_some() { "ruling" } else { "skip" };
        format!("{file}:{line}: a {what} of `{job}`, which is no job of the manifest{near}")
    };
    unknown.map(say).collect()
}

/// Reads a manifest for a purpose of its own.
///
/// # Errors
/// Every flaw in it, in one report.
pub fn read_for(path: &Path, purpose: manifest::Purpose) -> Result<Manifest, Fault> {
    there(path)?;
    manifest::read_for(path, purpose).map_err(|flaws| Fault::drawn(2, flaws))
}

/// Reads a manifest.
///
/// # Errors
/// Every flaw in it, in one report.
pub fn read(path: &Path) -> Result<Manifest, Fault> {
    there(path)?;
    manifest::read(path).map_err(|flaws| Fault::drawn(2, flaws))
}

/// Refuses a path where nothing is.
///
/// # Errors
/// If nothing is there: a mistake of the command line, not of a manifest.
pub fn there(path: &Path) -> Result<(), Fault> {
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        let here = std::env::current_dir().map(|here| format!("you are in {}: ", here.display())).unwrap_or_default();
        let hint = format!("{here}go to the project's folder, or give the path of a manifest from here");
        return Err(Fault::hint(2, format!("there is no file {}", path.display()), hint));
    }
    Ok(())
}

/// The folder of the store: as said, else `cache` in the nearest folder at or above the manifest that holds `.git`, else beside
/// the manifest.
#[must_use]
pub fn store_root(manifest: &Path, places: &Places) -> PathBuf {
    let full = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    store_from(full.parent().unwrap_or(Path::new(".")), places)
}

/// The folder of the store where there may be no manifest: then it is looked for from the current folder.
#[must_use]
pub fn store_root_of(manifest: Option<&Path>, places: &Places) -> PathBuf {
    match manifest {
        Some(manifest) => store_root(manifest, places),
        None => store_from(&std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")), places),
    }
}

fn store_from(folder: &Path, places: &Places) -> PathBuf {
    if let Some(cache) = &places.cache {
        let cache = std::path::absolute(cache).unwrap_or_else(|_| cache.clone());
        return real(&cache);
    }
    let project = folder.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(folder);
    real(&project.join("cache"))
}

/// A path without `..`, as far as it is there: agents are told paths below it, and not all of them take such.
fn real(path: &Path) -> PathBuf {
    if !path.components().any(|part| part == std::path::Component::ParentDir) {
        return path.to_owned();
    }
    let (mut there, mut rest) = (path.to_owned(), Vec::new());
    loop {
        if let Ok(real) = there.canonicalize() {
            return rest.iter().rev().fold(real, |path, name: &std::ffi::OsString| path.join(name));
        }
        let (Some(name), Some(above)) = (there.file_name(), there.parent()) else { return path.to_owned() };
        rest.push(name.to_owned());
        there = above.to_owned();
    }
}

/// Opens a store.
///
/// # Errors
/// If it cannot be made or written, or its path cannot be told to other programs, with what to do.
pub fn store(root: &Path) -> Result<Store, Fault> {
    utf8(root)?;
    Store::open(root).map_err(|error| {
        Fault::hint(3, error.to_string(), "make the folder writable, or name another with --cache DIR or FLOW_CACHE")
    })
}

fn utf8(root: &Path) -> Result<(), Fault> {
    match root.to_str() {
        Some(_) => Ok(()),
        None => Err(Fault::hint(
            2,
            format!("the path of the store is not UTF-8: {}", root.display()),
            "name another folder with --cache DIR or FLOW_CACHE: programs are told their paths in it as text",
        )),
    }
}

/// Opens a store for what only reads: one that is not there is not made, and is empty.
///
/// # Errors
/// If its path cannot be told to other programs.
pub fn store_to_read(root: &Path) -> Result<Store, Fault> {
    utf8(root)?;
    Ok(Store::to_read(root))
}

/// Says what of the store cannot be believed: each is a miss, never silent.
pub fn say_damage(index: &Index) {
    for damage in index.take_damage() {
        output::say(&format!("warning: {damage}"));
    }
}

/// This machine.
///
/// # Errors
/// If flow cannot find its own program.
pub fn machine() -> Result<Machine, Fault> {
    let flow = std::env::current_exe().map_err(|error| Fault::new(3, format!("flow cannot find itself: {error}")))?;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Machine { flow, host, variables: variables.collect() })
}

/// The same, with the container engine that is asked for.
///
/// # Errors
/// As `machine`.
pub fn machine_of(places: &Places) -> Result<Machine, Fault> {
    let mut machine = machine()?;
    machine.variables.extend(places.engine.iter().map(|engine| (container::VARIABLE.to_owned(), engine.clone())));
    Ok(machine)
}

/// Takes out of what is told what is a secret today, of a manifest or by the name of a variable: an older version may have had it
/// written out.
///
/// # Errors
/// If the machine cannot be asked who it is.
pub fn todays_secrets(manifest: Option<&Manifest>) -> Result<Redactor, Fault> {
    let declared: Vec<SecretFrom> =
        manifest.map(|manifest| manifest.pipeline.secrets().cloned().collect()).unwrap_or_default();
    Ok(redactor(&at_hand(&machine()?, &declared, &[])))
}

/// What the machine lacks, each underlined where the manifest asks for it.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{summary}")]
#[diagnostic(code(flow::missing))]
struct Lacks {
    summary: String,
    #[related]
    each: Vec<Lacking>,
}

#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{what}")]
struct Lacking {
    what: String,
    #[help]
    hint: String,
    #[source_code]
    source_code: NamedSource<Arc<str>>,
    #[label("asked for here")]
    place: Option<SourceSpan>,
}

/// How many lacking things are drawn: one broken path may be missed by hundreds of actions.
const SHOWN: usize = 20;

/// The fault that a run cannot start for what this machine lacks; `None` if it lacks nothing.
#[must_use]
pub fn lacks(manifest: &Manifest, missing: &[&Missing]) -> Option<Fault> {
    let distinct = Missing::distinct(missing.iter().copied());
    let first = distinct.first()?;
    let more = distinct.len() - 1;
    let summary = match more {
        0 => format!("the run cannot start: {}", first.what),
        _ => format!("the run cannot start: {}, and {more} more", first.what),
    };
    let each = distinct.iter().take(SHOWN).map(|lacking| {
        let file = lacking.place.map_or(0, |place| place.file);
        let source = manifest.files.get(file);
        let name = source.map_or_else(String::new, |file| file.name.clone());
        let text: Arc<str> = source.map_or_else(|| Arc::from(""), |file| file.text.clone());
        Lacking {
            what: lacking.what.clone(),
            hint: lacking.hint.clone(),
            source_code: NamedSource::new(name, text),
            place: lacking.place.map(|place| (place.offset, place.len).into()),
        }
    });
    Some(Fault::drawn(2, Lacks { summary, each: each.collect() }))
}
