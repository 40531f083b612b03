//! Which jobs `flow why` is asked about, and which of the recorded runs hold them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use globset::GlobMatcher;

use crate::cli::fault::Fault;
use crate::cli::select;
use crate::names::{Axes, JobId, RunId};
use crate::report::status::runs;
use crate::run::journal::{Kept, PlanFile, manifest_of, read_plan};

/// Commits that are named where one is not found.
const NAMED: usize = 12;
/// Runs that are looked at for other manifests.
const RUNS: usize = 8;
/// Digits that a commit needs at least.
const DIGITS: usize = 4;

/// Which jobs are asked for.
pub(super) struct Wanted {
    text: String,
    /// The text is the beginning of a commit's id.
    digits: bool,
    globs: Vec<GlobMatcher>,
    /// What `--job` said.
    only: Vec<String>,
}

impl Wanted {
    pub(super) fn new(text: &str, jobs: &[String]) -> Result<Self, Fault> {
        // What is too short for a commit may be the name of a job.
        let digits = text.bytes().all(|b| b.is_ascii_hexdigit()) && (DIGITS..=40).contains(&text.len());
        let mut globs = select::globs(jobs)?;
        if !digits {
            globs.extend(select::globs(&[text.to_owned()])?);
        }
        let text = if digits { text.to_lowercase() } else { text.to_owned() };
        Ok(Self { text, digits, globs, only: jobs.to_vec() })
    }

    /// What was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn holds(&self, job: &JobId) -> bool {
        self.globs.iter().all(|glob| glob.is_match(job.as_str()))
    }

    /// Whether a job of a run's plan is meant.
    fn is_for(&self, (id, axes): &(JobId, Axes)) -> bool {
        match axes.get("commit") {
            Some(commit) if self.digits => self.begins(commit),
            _ => !self.digits && self.holds(id),
        }
    }

    /// What to say of a text that may be meant as a commit and is too short for one.
    fn too_short(&self) -> String {
        let hex = !self.text.is_empty() && self.text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex && !self.digits { format!("a commit has at least {DIGITS} digits; ") } else { String::new() }
    }

    pub(super) fn is_digits(&self) -> bool {
        self.digits
    }

    /// Whether what is kept of a run's plan has a job that is meant. Of a long plan only the text is looked at if that will do.
    fn is_in(&self, kept: &Kept) -> bool {
        let has = |digits: &str| kept.has(&format!("\"commit\":\"{digits}"));
        if self.digits && !has(self.text.get(..DIGITS).unwrap_or(&self.text)) {
            return false;
        }
        self.digits && has(&self.text) || kept.plan().is_some_and(|plan| plan.jobs.iter().any(|job| self.is_for(job)))
    }

    pub(super) fn begins(&self, commit: &str) -> bool {
        // A manifest may say fewer digits than are asked for.
        commit.starts_with(&self.text) || commit.len() >= DIGITS && self.text.starts_with(commit)
    }

    /// The one commit that is meant; `None` where jobs are asked for.
    pub(super) fn commit<'a>(&self, known: impl Iterator<Item = &'a str> + Clone) -> Result<Option<String>, Fault> {
        if !self.digits {
            return Ok(None);
        }
        let meant: BTreeSet<&str> = known.clone().filter(|commit| self.begins(commit)).collect();
        match meant.len() {
            1 => Ok(meant.first().map(|commit| (*commit).to_owned())),
            0 => {
                let all: BTreeSet<&str> = known.collect();
                let what = format!("there is no commit `{}`", self.text);
                Err(Fault::hint(2, what, format!("there are {}", some_of(all.into_iter().map(short)))))
            }
            several => Err(Fault::hint(
                2,
                format!("`{}` is the beginning of {several} commits", self.text),
                format!("give more digits of one: {}", some_of(meant.into_iter())),
            )),
        }
    }

    pub(super) fn nothing(&self, jobs: impl Iterator<Item = String>) -> Fault {
        let what = match (self.digits, self.only.as_slice()) {
            (false, []) => format!("no job is called `{}`", self.text),
            (true, []) => format!("commit `{}` has no job", self.text),
            (false, only) => format!("no job called `{}` matches --job {}", self.text, only.join(" --job ")),
            (true, only) => format!("no job of commit `{}` matches --job {}", self.text, only.join(" --job ")),
        };
        let jobs: Vec<String> = jobs.collect();
        let meant = self.only.first().unwrap_or(&self.text);
        let near = did_you_mean(meant, &jobs);
        Fault::hint(2, what, format!("{near}{}there are {}", self.too_short(), some_of(jobs.into_iter())))
    }
}

/// The jobs that were most likely meant by a name that none has: those that begin or go on so, else the one that is spelt most
/// like it. Empty, or a question with what goes behind it.
fn did_you_mean(text: &str, jobs: &[String]) -> String {
    if text.contains(['*', '?', '[', '{']) || text.is_empty() {
        return String::new();
    }
    let mut near: Vec<&String> = jobs.iter().filter(|job| job.contains(text)).take(3).collect();
    if near.is_empty() {
        let distance = |job: &&String| strsim::damerau_levenshtein(job, text);
        near.extend(jobs.iter().min_by_key(distance).filter(|job| distance(job) <= 1 + text.len() / 8));
    }
    match near.as_slice() {
        [] => String::new(),
        near => format!("did you mean {}? ", near.iter().map(|job| job.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

pub(super) fn some_of<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    match names.len() {
        0 => "none".to_owned(),
        all if all <= NAMED => names.join(", "),
        all => format!("{} and {} more", names[..NAMED].join(", "), all - NAMED),
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The newest run that holds what is asked for, of a manifest or of any, and its manifest.
pub(super) fn newest_of(root: &Path, manifest: Option<&Path>, wanted: &Wanted) -> Result<(RunId, Kept), Fault> {
    let is_of = |kept: &Kept| manifest.is_none_or(|manifest| real(&kept.manifest) == real(manifest));
    let runs = runs(root);
    for run in &runs {
        if let Some(kept) = Kept::read(root, run).filter(|kept| is_of(kept) && wanted.is_in(kept)) {
            return Ok((run.clone(), kept));
        }
    }
    let (mut commits, mut others) = (BTreeSet::new(), BTreeSet::new());
    let mut jobs: Vec<String> = Vec::new();
    for plan in runs.iter().filter_map(|run| Kept::read(root, run)).filter(is_of).filter_map(|kept| kept.plan()) {
        for (id, axes) in &plan.jobs {
            jobs.push(id.to_string());
            match axes.get("commit") {
                Some(commit) => commits.insert(short(commit).to_owned()),
                None => others.insert(id.to_string()),
            };
        }
    }
    let damaged = runs.iter().filter(|run| Kept::read(root, run).is_none_or(|kept| kept.plan().is_none())).count();
    let damaged = match damaged {
        0 => String::new(),
        count => format!(
            "what is kept of {} cannot be read (plan.json in {}); ",
            crate::text::counted(count, "run"),
            root.join("runs").display()
        ),
    };
    jobs.sort_unstable();
    jobs.dedup();
    let hint = if !commits.is_empty() || !others.is_empty() {
        let near = if wanted.digits { String::new() } else { did_you_mean(&wanted.text, &jobs) };
        format!(
            "{damaged}{near}{}the recorded runs hold {}",
            wanted.too_short(),
            some_of(commits.iter().chain(&others))
        )
    } else if damaged.is_empty() {
        format!("no run is recorded under {}; name the manifest: flow why {} MANIFEST", root.display(), wanted.text)
    } else {
        format!("{damaged}without --run, `flow why {} MANIFEST` tells what would happen now", wanted.text)
    };
    Err(Fault::hint(2, format!("no run holds `{}`", wanted.text), hint))
}

/// The same, with its plan.
pub(super) fn newest(root: &Path, manifest: Option<&Path>, wanted: &Wanted) -> Result<(RunId, PlanFile), Fault> {
    let (run, kept) = newest_of(root, manifest, wanted)?;
    let plan = kept.plan().ok_or_else(|| unreadable(&run))?;
    Ok((run, plan))
}

fn unreadable(run: &RunId) -> Fault {
    Fault::new(2, format!("what is kept of run {run} cannot be read"))
}

/// Other manifests whose newest runs, as far as they are looked at, hold what is asked for.
pub(super) fn others(root: &Path, newest: &RunId, manifest: &Path, wanted: &Wanted) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut seen = vec![real(manifest)];
    for run in runs(root).into_iter().filter(|run| run != newest).take(RUNS) {
        let Some(path) = manifest_of(root, &run).filter(|path| !seen.contains(&real(path))) else { continue };
        seen.push(real(&path));
        if Kept::read(root, &run).is_some_and(|kept| wanted.is_in(&kept)) {
            found.push(path);
        }
    }
    found
}

/// The run by that name, or by a beginning that only one has.
pub(super) fn named(root: &Path, name: &str) -> Result<(RunId, PlanFile), Fault> {
    let all = runs(root);
    let meant: Vec<&RunId> = all.iter().filter(|run| run.as_str().starts_with(name)).collect();
    let fault = |what: String, runs: &mut dyn Iterator<Item = &RunId>| {
        Fault::hint(2, what, format!("there are {}", some_of(runs)))
    };
    match meant.as_slice() {
        [] => Err(fault(format!("there is no run `{name}`"), &mut all.iter())),
        [run] => match read_plan(root, run) {
            Some(plan) => Ok(((*run).clone(), plan)),
            None => Err(unreadable(run)),
        },
        several => Err(fault(format!("several runs begin with `{name}`"), &mut several.iter().copied())),
    }
}
