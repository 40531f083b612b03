//! What every verb does that writes a run: its files are taken, it has a name and its lock, and what is recorded is read.

use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::names::RunId;
use crate::run::prepare::Prepared;
use crate::store::{Index, RecordWriter, RunLock, Store};

/// A run that has begun and executed nothing yet.
pub(super) struct Begun {
    /// Its name.
    pub(super) run: RunId,
    /// Held as long as it works.
    pub(super) lock: RunLock,
    /// Where its records go.
    pub(super) records: RecordWriter,
    /// What is recorded of all runs.
    pub(super) index: Index,
}

impl Begun {
    /// Begins a run of a plan.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(super) fn begin(store: &Store, prepared: &Prepared) -> Result<Self, Fault> {
        let broken = |error: String| Fault::new(3, error);
        for (_, bytes) in prepared.intake.blobs() {
            store.cas.put(bytes).map_err(|error| broken(error.to_string()))?;
        }
        let run = new_run();
        let lock = RunLock::take(&store.root, &run).map_err(|error| broken(error.to_string()))?;
        let records = RecordWriter::create(&store.root, &run, store.cas.clone());
        let records = records.map_err(|error| broken(error.to_string()))?;
        let index = Index::load(&store.root).map_err(|error| broken(error.to_string()))?;
        Ok(Self { run, lock, records, index })
    }
}

/// A new run: the time of its start and a number nobody else has.
fn new_run() -> RunId {
    use std::hash::{BuildHasher, Hasher};
    let tail = std::collections::hash_map::RandomState::new().build_hasher().finish() & 0xffff;
    RunId::new(format!("{}-{tail:04x}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")))
}
