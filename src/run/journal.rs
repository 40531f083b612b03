//! The journal of a run: every event as a line of JSON. Progress and reports read it; what happened to an action is said by the
//! records alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use crate::event::{Event, GitState, Held, Told};
use crate::hostile::open_regular;
use crate::key::ActionKey;
use crate::names::{AttemptId, Axes, RunId};
use crate::run::served_cache;
use crate::store::{Earlier, Settled};

/// The longest line that is read back.
const LONGEST: usize = 16 * 1024 * 1024;
/// What is read of a journal at once, in bytes.
const BUFFER: usize = 256 * 1024;
/// A journal of so many bytes is read in no time: nothing is kept beside it.
const SHORT: u64 = 64 * 1024;
/// What stands before the commit in the axes of an event.
const COMMIT: &str = "\"commit\":\"";
/// The longest plan that is read back, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;
/// Within so many bytes a plan comes to its jobs.
const HEAD: u64 = 64 * 1024;

/// Where a run's journal lies.
#[must_use]
pub fn path_of(root: &Path, run: &RunId) -> PathBuf {
    root.join("runs").join(run.as_str()).join("journal.jsonl")
}

/// Writes a run's journal. A line that cannot be written is lost, which a reader sees as an earlier end: never an error of
/// the run, whose truth lies in the records.
#[derive(Debug)]
pub struct Journal {
    file: Option<File>,
    root: PathBuf,
    run: RunId,
    settled: Vec<Settled>,
}

impl Journal {
    /// Begins the journal of a run whose folder is there.
    #[must_use]
    pub fn create(root: &Path, run: &RunId) -> Self {
        let file = File::options().create(true).append(true).open(path_of(root, run)).ok();
        Self { file, root: root.to_owned(), run: run.clone(), settled: Vec::new() }
    }

    /// Adds an event.
    pub fn see(&mut self, told: &Told) {
        let Some(file) = &mut self.file else { return };
        if let Ok(mut line) = serde_json::to_vec(told) {
            line.push(b'\n');
            if file.write_all(&line).is_err() {
                self.file = None;
            }
        }
        match &told.event {
            Event::ActionSettled { step, axes, key, .. } => self.settled.push(Settled::new(step, axes, *key)),
            Event::RunFinished { .. } => {
                // What readers ask of a long journal is made ready for them.
                let length = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
                if length > SHORT {
                    let rows = sorted(std::mem::take(&mut self.settled));
                    served_cache::write(&self.root, &self.run, length, &rows);
                }
            }
            _ => {}
        }
    }
}

/// Reads the events of a run, as far as they can be read.
#[must_use]
pub fn read(root: &Path, run: &RunId) -> Vec<Told> {
    read_of(root, run, None)
}

/// The same; with a commit, without what happened to others: a journal is as long as its run, and one job is a small part of it.
#[must_use]
pub fn read_of(root: &Path, run: &RunId, commit: Option<&str>) -> Vec<Told> {
    let Ok(file) = open_regular(&path_of(root, run)) else { return Vec::new() };
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let own = commit.map(|commit| format!("{COMMIT}{commit}\""));
    // No text can hold these quotes: within one they are escaped.
    let is_of_another = |line: &[u8]| {
        let (Some(own), Ok(line)) = (&own, std::str::from_utf8(line)) else { return false };
        line.contains(COMMIT) && !line.contains(own.as_str())
    };
    let mut events = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return events,
            Ok(_) if line.len() > LONGEST || is_of_another(&line) => {}
            Ok(_) => events.extend(serde_json::from_slice(&line).ok()),
        }
    }
}

/// The order in which rows are looked up.
fn sorted(mut rows: Vec<Settled>) -> Vec<Settled> {
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// What of a settled action's line is looked up.
#[derive(serde::Deserialize)]
struct Line {
    key: ActionKey,
    axes: Axes,
    step: String,
}

/// What a run settled: executed, shared or served again. Sorted.
#[must_use]
pub fn served(root: &Path, run: &RunId) -> Vec<Settled> {
    let Ok(file) = open_regular(&path_of(root, run)) else { return Vec::new() };
    let length = file.metadata().map_or(0, |meta| meta.len());
    if let Some(rows) = served_cache::read(root, run, length) {
        return rows;
    }
    // A journal is as long as its run: of each line only what is looked up is read.
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let (mut rows, mut line) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if line.starts_with(b"{\"event\":\"action-settled\"")
            && line.len() <= LONGEST
            && let Ok(Line { key, axes, step }) = serde_json::from_slice(&line)
        {
            rows.push(Settled::new(&step, &axes, key));
        }
        line.clear();
    }
    let rows = sorted(rows);
    if length > SHORT {
        served_cache::write(root, run, length, &rows);
    }
    rows
}

/// An attempt that a run has begun, as its journal tells.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The attempt.
    pub attempt: AttemptId,
    /// When it began.
    pub at: Timestamp,
}

/// The attempts that a run has under way, by key; with a commit, only those of that one and of what has none. Of a run that is
/// dead they are those that it left.
#[must_use]
pub fn under_way(root: &Path, run: &RunId, commit: Option<&str>) -> HashMap<ActionKey, Begun> {
    let mut open: HashMap<ActionKey, Begun> = HashMap::new();
    for told in read_of(root, run, commit) {
        match told.event {
            Event::ActionStarted { key, attempt, .. } => drop(open.insert(key, Begun { attempt, at: told.at })),
            Event::ActionSettled { key, .. } => drop(open.remove(&key)),
            Event::AttemptFailed { attempt, .. } => open.retain(|_, begun| begun.attempt != attempt),
            _ => {}
        }
    }
    open
}

/// An earlier run of a store.
#[must_use]
pub fn earlier(root: &Path, run: &RunId) -> Earlier {
    let manifest = manifest_of(root, run).and_then(|path| path.canonicalize().ok());
    Earlier::new(run.clone(), manifest, served(root, run))
}

/// What kept actions of a run from beginning though nothing of their own did, by step and point.
#[must_use]
pub fn held(root: &Path, run: &RunId) -> HashMap<(String, Axes), Held> {
    let Ok(file) = open_regular(&path_of(root, run)) else { return HashMap::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok).filter(|line| line.contains("\"held\":{"));
    let held = |line: String| match serde_json::from_str::<Told>(&line).ok()?.event {
        Event::ActionOver { step, axes, held: Some(held), .. } => Some(((step, axes), held)),
        _ => None,
    };
    lines.filter_map(held).collect()
}

/// What of a plan readers of a run need: its manifest, and its wanted actions by number.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct PlanFile {
    /// The pipeline's name.
    pub pipeline: String,
    /// The manifest's path: absolute, and in a file read back where it lies today.
    pub manifest: PathBuf,
    /// The same, relative to the store: it holds in a copy of the project, and after a move.
    #[serde(default)]
    pub from_store: Option<PathBuf>,
    /// What followed `flow run MANIFEST`, so that the same command can be named.
    #[serde(default)]
    pub options: Vec<String>,
    /// How many actions of each step are wanted, in the order of the steps.
    pub steps: Vec<(String, usize)>,
    /// How the manifest stood in its project's repository; absent if it lies in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitState>,
    /// The jobs, with the full ids of their commits.
    pub jobs: Vec<(crate::names::JobId, crate::names::Axes)>,
}

/// Keeps what readers need of a run's plan. Derived: without it they say less.
pub fn write_plan(
    root: &Path,
    run: &RunId,
    plan: &crate::plan::Plan,
    manifest: &Path,
    options: Vec<String>,
    wanted: &[bool],
    git: Option<GitState>,
) {
    let steps = plan.manifest.pipeline.steps.iter().enumerate().map(|(index, step)| {
        let count = (0..plan.nodes.len()).filter(|node| wanted[*node] && plan.nodes[*node].step == index).count();
        (step.name.value.to_string(), count)
    });
    let manifest = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    let file = PlanFile {
        pipeline: plan.manifest.pipeline.name.value.clone(),
        from_store: relative(&manifest, root),
        manifest,
        options,
        git,
        steps: steps.collect(),
        jobs: plan.jobs.iter().map(|job| (job.id.clone(), job.axes.clone())).collect(),
    };
    if let Ok(bytes) = serde_json::to_vec(&file) {
        let _ = std::fs::write(plan_path(root, run), bytes);
    }
}

/// Reads what was kept of a run's plan.
#[must_use]
pub fn read_plan(root: &Path, run: &RunId) -> Option<PlanFile> {
    Kept::read(root, run)?.plan()
}

/// What was kept of a run's plan, as far as it is read yet: that of a large run is long, and most readers need one job of it.
pub struct Kept {
    /// Where the manifest lies today.
    pub manifest: PathBuf,
    text: String,
}

/// What stands before the jobs.
#[derive(serde::Deserialize)]
struct Head {
    manifest: PathBuf,
    #[serde(default)]
    from_store: Option<PathBuf>,
}

impl Head {
    /// Of the text of a plan, or of its beginning. No text within it can hold these quotes: there they are escaped.
    fn of(text: &str, root: &Path) -> Option<PathBuf> {
        let head = match text.split_once(",\"jobs\":[") {
            Some((head, _)) => serde_json::from_str::<Self>(&format!("{head}}}")).ok(),
            None => None,
        };
        let head = head.or_else(|| serde_json::from_str(text).ok())?;
        // A copy of a project is about its own manifest, though the one that it was copied from is still there.
        let moved = head.from_store.map(|from_store| plain(&root.join(from_store)));
        Some(moved.filter(|moved| moved.is_file() || !head.manifest.is_file()).unwrap_or(head.manifest))
    }
}

impl Kept {
    /// Reads it.
    #[must_use]
    pub fn read(root: &Path, run: &RunId) -> Option<Self> {
        let bytes = crate::hostile::read_regular(&plan_path(root, run), LARGEST).ok()??;
        let text = String::from_utf8(bytes).ok()?;
        Some(Self { manifest: Head::of(&text, root)?, text })
    }

    /// Whether its text has some words.
    #[must_use]
    pub fn has(&self, words: &str) -> bool {
        self.text.contains(words)
    }

    /// All of it.
    #[must_use]
    pub fn plan(&self) -> Option<PlanFile> {
        let plan: PlanFile = serde_json::from_str(&self.text).ok()?;
        Some(PlanFile { manifest: self.manifest.clone(), ..plan })
    }
}

/// Where the manifest of a run lies today. Of a large run much faster than all that was kept of it.
#[must_use]
pub fn manifest_of(root: &Path, run: &RunId) -> Option<PathBuf> {
    let mut head = Vec::new();
    open_regular(&plan_path(root, run)).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    // The end of it may be half a letter.
    let known = Head::of(&String::from_utf8_lossy(&head), root);
    known.or_else(|| Some(Kept::read(root, run)?.manifest))
}

fn plan_path(root: &Path, run: &RunId) -> PathBuf {
    root.join("runs").join(run.as_str()).join("plan.json")
}

/// The path of a file as seen from a folder; `None` where both have only the root in common, or one is not absolute.
fn relative(file: &Path, folder: &Path) -> Option<PathBuf> {
    let (file, folder) = (plain(file), plain(folder));
    let common = file.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    (common > 1).then(|| up.chain(file.components().skip(common)).collect())
}

/// The path without `..` and `.`, by its text alone: what it leads to need not be there.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_of_a_long_plan_is_known_by_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let (root, run) = (dir.path(), RunId::from("r"));
        std::fs::create_dir_all(root.join("runs/r")).unwrap();
        let job = r#"["r/a/c/1",{"commit":"aa"}]"#;
        let jobs = vec![job; 10_000].join(",");
        // What looks like the jobs stands within a text.
        let head = r#"{"pipeline":",\"jobs\":[","manifest":"/gone/m.kdl","steps":[["s",1]]"#;
        std::fs::write(root.join("runs/r/plan.json"), format!("{head},\"jobs\":[{jobs}]}}")).unwrap();
        assert_eq!(manifest_of(root, &run).as_deref(), Some(Path::new("/gone/m.kdl")));
        let kept = Kept::read(root, &run).unwrap();
        assert!(kept.has("\"commit\":\"aa\"") && !kept.has("\"commit\":\"bb"));
        assert_eq!(kept.plan().unwrap().jobs.len(), 10_000);
        std::fs::write(root.join("runs/r/plan.json"), head).unwrap();
        assert!(Kept::read(root, &run).is_none() && manifest_of(root, &run).is_none(), "a torn one");
    }

    #[test]
    fn a_journal_is_read_for_one_commit_and_for_what_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let (root, run) = (dir.path(), RunId::from("r"));
        std::fs::create_dir_all(root.join("runs/r")).unwrap();
        let mut journal = Journal::create(root, &run);
        let key = ActionKey(crate::digest::Digest::of(b"x"));
        for commit in [Some("aa"), Some("bb"), None] {
            let axes = Axes(commit.map(|commit| ("commit".to_owned(), commit.to_owned())).into_iter().collect());
            let event = Event::ActionSettled {
                node: 0,
                key,
                axes,
                step: "s".into(),
                attempt: crate::names::AttemptId::from("r-1"),
                cached: true,
                shared_with: None,
                outcome: "SUCCEEDED".into(),
                evidence: None,
                wall_ms: 1,
                marks: Vec::new(),
                because: None,
                follows: Vec::new(),
            };
            journal.see(&Told { event, at: jiff::Timestamp::now() });
        }
        assert_eq!([read(root, &run).len(), read_of(root, &run, Some("bb")).len()], [3, 2]);
        assert!(served(root, &run).len() == 3 && served(root, &run).iter().all(|row| row.key == key));
    }

    #[test]
    fn a_path_is_said_from_a_folder_and_found_from_it() {
        let from = relative(Path::new("/a/p/x/../m.kdl"), Path::new("/a/p/cache"));
        assert_eq!(from.as_deref(), Some(Path::new("../m.kdl")));
        assert_eq!(plain(&Path::new("/b/cache").join("../m.kdl")), Path::new("/b/m.kdl"));
        assert_eq!(relative(Path::new("/a/m.kdl"), Path::new("/b/cache")), None);
    }
}
