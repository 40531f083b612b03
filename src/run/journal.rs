//! The journal of a run: every event as a line of JSON. Progress and reports read it; what happened to an action is said by the
//! records alone.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::event::Told;
use crate::hostile::open_regular;
use crate::names::RunId;

/// The longest line that is read back.
const LONGEST: usize = 16 * 1024 * 1024;

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
}

impl Journal {
    /// Begins the journal of a run whose folder is there.
    #[must_use]
    pub fn create(root: &Path, run: &RunId) -> Self {
        Self { file: File::options().create(true).append(true).open(path_of(root, run)).ok() }
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
    }
}

/// Reads the events of a run, as far as they can be read.
#[must_use]
pub fn read(root: &Path, run: &RunId) -> Vec<Told> {
    let Ok(file) = open_regular(&path_of(root, run)) else { return Vec::new() };
    let mut reader = BufReader::new(file);
    let mut events = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return events,
            Ok(_) if line.len() > LONGEST => {}
            Ok(_) => events.extend(serde_json::from_slice(&line).ok()),
        }
    }
}

/// What of a plan readers of a run need: its manifest, and its wanted actions by number.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct PlanFile {
    /// The pipeline's name.
    pub pipeline: String,
    /// The manifest's absolute path.
    pub manifest: PathBuf,
    /// How many actions of each step are wanted, in the order of the steps.
    pub steps: Vec<(String, usize)>,
    /// The jobs, with the full ids of their commits.
    pub jobs: Vec<(crate::names::JobId, crate::names::Axes)>,
}

/// Keeps what readers need of a run's plan. Derived: without it they say less.
pub fn write_plan(root: &Path, run: &RunId, plan: &crate::plan::Plan, manifest: &Path, wanted: &[bool]) {
    let steps = plan.manifest.pipeline.steps.iter().enumerate().map(|(index, step)| {
        let count = (0..plan.nodes.len()).filter(|node| wanted[*node] && plan.nodes[*node].step == index).count();
        (step.name.value.to_string(), count)
    });
    let file = PlanFile {
        pipeline: plan.manifest.pipeline.name.value.clone(),
        manifest: std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned()),
        steps: steps.collect(),
        jobs: plan.jobs.iter().map(|job| (job.id.clone(), job.axes.clone())).collect(),
    };
    if let Ok(bytes) = serde_json::to_vec(&file) {
        let _ = std::fs::write(root.join("runs").join(run.as_str()).join("plan.json"), bytes);
    }
}

/// Reads what was kept of a run's plan.
#[must_use]
pub fn read_plan(root: &Path, run: &RunId) -> Option<PlanFile> {
    let path = root.join("runs").join(run.as_str()).join("plan.json");
    let bytes = crate::hostile::read_regular(&path, 256 * 1024 * 1024).ok()??;
    serde_json::from_slice(&bytes).ok()
}
