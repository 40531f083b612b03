//! Attempts of agents as today's tables read them.
//!
//! A record says what the tables of its day made of an attempt. When they are others today, the attempt is read anew from what
//! is stored of it, and the outcome kept in `index/readings`, one file a table: derived, and may be deleted at any time. What
//! flow itself found, a secret in the work tree say, no table changes.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Store, records};
use crate::agent::{self, Reading, Tables};
use crate::attempt::{Ended, Usage};
use crate::digest::Digest;
use crate::hostile;
use crate::key::KeyRecord;
use crate::names::AttemptId;
use crate::outcome::Outcome;

/// A file of readings that is longer is begun anew, in bytes.
const LARGEST: u64 = 64 << 20;
/// For so many tables readings are kept.
const TABLES: usize = 16;
/// The largest log that is read anew, in bytes.
const LARGEST_LOG: u64 = 64 << 20;

/// What is known of readings by other tables than those of the records.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<HashMap<Digest, HashMap<AttemptId, Arc<Kept>>>>);

/// One line of a file of readings.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    attempt: AttemptId,
    outcome: Outcome,
    usage: Usage,
}

impl Store {
    /// An attempt as it reads today. `tables` are those of the action that it is looked at for; without them, or if it was read
    /// by them, it is as recorded.
    #[must_use]
    pub fn today(&self, ended: &Arc<Ended>, tables: Option<&Tables>) -> Arc<Ended> {
        let Some(tables) = tables.filter(|tables| ended.read_by != Some(tables.digest())) else { return ended.clone() };
        let Some(kept) = self.kept(ended, tables) else { return ended.clone() };
        let mut today = (**ended).clone();
        today.usage = Some(kept.usage.clone());
        today.read_by = Some(tables.digest());
        let by_table = ended.outcome.failure().is_none_or(|failure| agent::readable(failure.cause));
        // Without its work tree an attempt cannot speak for its action, whatever it says of itself.
        let whole = !kept.outcome.settles() || ended.outcome.settles() || ended.outputs.contains_key("tree");
        if by_table && whole {
            today.outcome = kept.outcome.clone();
        }
        Arc::new(today)
    }

    /// The same of an attempt that may be of another action: only one that ran the same program is read by the tables.
    #[must_use]
    pub fn today_of_any(&self, ended: &Arc<Ended>, tables: Option<&Tables>) -> Arc<Ended> {
        let other = |tables: &&Tables| ended.process.is_some() && ended.read_by != Some(tables.digest());
        let Some(tables) = tables.filter(other) else { return ended.clone() };
        let record = self.cas.get(&ended.key.0, LARGEST_LOG).ok().flatten();
        let reads = record.and_then(|bytes| KeyRecord::decode(&bytes).ok()).is_some_and(|record| tables.reads(&record));
        if reads { self.today(ended, Some(tables)) } else { ended.clone() }
    }

    /// Reads an attempt from what is stored of it; `None` if it is none of an agent's, or something of it is gone.
    #[must_use]
    pub fn reading(&self, ended: &Ended, tables: &Tables) -> Option<Reading> {
        let process = ended.process.as_ref()?;
        let lost = Cell::new(false);
        let get = |name: &str| {
            let bytes = self.cas.get(ended.logs.get(name)?, LARGEST_LOG).ok().flatten();
            lost.set(lost.get() || bytes.is_none());
            bytes
        };
        let mut reading = agent::read(tables.reading(), process, &get);
        reading.outcome = reading.outcome.with_log(&ended.logs);
        (!lost.get()).then_some(reading)
    }

    fn kept(&self, ended: &Ended, tables: &Tables) -> Option<Arc<Kept>> {
        let path = self.root.join("index/readings").join(format!("{}.jsonl", tables.digest().hex()));
        let mut all = self.readings.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(tables.digest()).or_insert_with(|| load(&path));
        if let Some(kept) = known.get(&ended.attempt) {
            return Some(kept.clone());
        }
        drop(all);
        let Reading { outcome, usage, .. } = self.reading(ended, tables)?;
        let kept = Arc::new(Kept { attempt: ended.attempt.clone(), outcome, usage });
        // Derived: what cannot be written is read anew next time.
        let _ = append(&path, &records::encode(&*kept));
        let mut all = self.readings.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(tables.digest()).or_default().insert(ended.attempt.clone(), kept.clone());
        Some(kept)
    }
}

fn load(path: &Path) -> HashMap<AttemptId, Arc<Kept>> {
    let bytes = match hostile::read_regular(path, LARGEST) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(_) => {
            let _ = std::fs::remove_file(path);
            Vec::new()
        }
    };
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| records::is_whole(line));
    let kept = lines.filter_map(|line| serde_json::from_slice::<Kept>(line).ok());
    kept.map(|kept| (kept.attempt.clone(), Arc::new(kept))).collect()
}

/// Adds a line. Others may add to the file at the same time: a line is written at once, and one that is torn is passed over.
fn append(path: &Path, line: &[u8]) -> std::io::Result<()> {
    let mut options = File::options();
    let mut file = match options.append(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            forget_oldest(folder);
            options.create(true).open(path)?
        }
        opened => opened?,
    };
    file.write_all(line)
}

fn forget_oldest(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let age = |entry: std::fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut files: Vec<(SystemTime, PathBuf)> = entries.flatten().filter_map(age).collect();
    files.sort();
    let beyond = (files.len() + 1).saturating_sub(TABLES);
    for (_, path) in files.into_iter().take(beyond) {
        let _ = std::fs::remove_file(path);
    }
}
