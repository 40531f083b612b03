//! What runs that died left behind: their orphans are killed, their attempts get an end, their places are swept.
//!
//! An agent that had finished by itself is left as it is: the action that needs it adopts it, and until then what it used is
//! known from its place. Asks nothing, of nobody.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::attempt::{Ended, Line, Started};
use crate::container;
use crate::hostile;
use crate::ledger::{Ledger, Rates};
use crate::names::{AttemptId, RunId};
use crate::outcome::{Cause, Failure, Outcome};
use crate::process;
use crate::run::execute::{alive, discard, finished_agent, place_of};
use crate::step::context::Machine;
use crate::step::leavings::spent;
use crate::step::secrets::{remove_private, remove_private_configs};
use crate::store::{Index, RecordWriter, Store, StoreError};

/// How long orphans may take to die.
const ORPHANS: Duration = Duration::from_secs(20);
/// How long supervisors that outlived their flow are waited for, all together. They need milliseconds; whoever still has a key
/// after that is another run at that very action, and the cleaning is left to it.
const SUPERVISORS: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Attempts that got their end.
    pub ended: usize,
    /// Agents that had finished and wait for the action that asks for them.
    pub finished: usize,
    /// Processes killed.
    pub killed: u32,
}

/// Cleans up after runs that died. The caller's own run is alive.
///
/// # Errors
/// If the records cannot be written.
pub fn recover(
    store: &Store,
    machine: &Machine,
    index: &mut Index,
    run: &RunId,
    records: &RecordWriter,
) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    let began = Instant::now();
    for started in index.unfinished()? {
        if alive(store, &started.run)? {
            continue;
        }
        // A supervisor that is still ending its processes holds the key: wait for it rather than race it.
        let lock = loop {
            match store.locks.try_lock(&started.key)? {
                Some(lock) => break Some(lock),
                None if began.elapsed() > SUPERVISORS => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        // One that was stopped ends nothing by itself: its processes are killed with it.
        let lock = match lock {
            None if process::supervisor_is_stopped(started.attempt.as_str()).unwrap_or(false) => {
                recovered.killed += end_all(store, machine, started.attempt.as_str());
                store.locks.try_lock(&started.key)?
            }
            lock => lock,
        };
        let Some(lock) = lock else { continue };
        // Another run may have ended or adopted it since this one looked.
        index.refresh()?;
        if !index.unfinished()?.iter().any(|open| open.attempt == started.attempt) {
            continue;
        }
        if finished_agent(store, &started).is_some() {
            recovered.finished += 1;
            remove_private_configs(machine, started.attempt.as_str());
            continue;
        }
        recovered.killed += end_all(store, machine, started.attempt.as_str());
        records.append(&Line::Ended(interrupted(store, &started, run)))?;
        recovered.ended += 1;
        remove_private(machine, started.attempt.as_str());
        discard(store, &place_of(store, &started.attempt));
        drop(lock);
    }
    records.commit()?;
    sweep(store, machine, index, run)?;
    Ok(recovered)
}

/// Ends what is left of an attempt: its processes and its containers.
fn end_all(store: &Store, machine: &Machine, attempt: &str) -> u32 {
    let place = store.places().join(attempt);
    container::end_all(&place, attempt, &machine.variables, ORPHANS).unwrap_or(0)
}

/// The ledger, with the agents of runs that are over whose ends nobody has written yet. `over` is a run that is over though its
/// process lives.
///
/// # Errors
/// If the records cannot be read.
pub fn whole_ledger(rates: Rates, store: &Store, index: &Index, over: Option<&RunId>) -> Result<Ledger, StoreError> {
    let mut ledger = Ledger::read(rates, store, index)?;
    let mut left = Vec::new();
    for started in index.unfinished()?.iter().filter(|started| started.kind == "agent") {
        if over == Some(&started.run) || !alive(store, &started.run)? {
            left.push(Arc::new(interrupted(store, started, &started.run)));
        }
    }
    ledger.set_left(left, store);
    Ok(ledger)
}

/// The end of an attempt whose run died: nobody's fault, and not counted. What an agent had spent is read from its place, which
/// must still be there.
#[must_use]
pub fn interrupted(store: &Store, started: &Started, run: &RunId) -> Ended {
    let end = finished_agent(store, started);
    let place = place_of(store, &started.attempt);
    let spent = if started.kind == "agent" { spent(&place, end.as_ref()) } else { None };
    let evidence = match end {
        Some(_) => "its run died before it read what the agent had left",
        None => "its run died before it ended",
    };
    let (usage, read_by) = spent.unzip();
    Ended {
        attempt: started.attempt.clone(),
        run: run.clone(),
        adopts: Some(started.run.clone()),
        key: started.key,
        kind: started.kind.clone(),
        step: started.step.clone(),
        axes: started.axes.clone(),
        at: Timestamp::now(),
        began: Some(started.at),
        pipeline: started.pipeline.clone(),
        reserved: started.reserved,
        wall_ms: end.map_or(0, |end| end.wall_ms),
        outcome: Outcome::Failed(Failure::new(Cause::Interrupted, evidence)),
        outputs: std::collections::BTreeMap::new(),
        logs: std::collections::BTreeMap::new(),
        limits: std::collections::BTreeMap::new(),
        notes: Vec::new(),
        process: None,
        read_by,
        usage,
        slots: started.slots.clone(),
        sandbox: None,
    }
}

/// Removes places that no living run and no adoption needs.
fn sweep(store: &Store, machine: &Machine, index: &Index, run: &RunId) -> Result<(), StoreError> {
    let open: Vec<AttemptId> = index.unfinished()?.iter().map(|started| started.attempt.clone()).collect();
    let Ok(places) = std::fs::read_dir(store.places()) else { return Ok(()) };
    for place in places.flatten() {
        let name = place.file_name().to_string_lossy().into_owned();
        let Some((owner, _)) = name.rsplit_once('-') else { continue };
        let owner = RunId::new(owner);
        let needed = open.iter().any(|attempt| attempt.as_str() == name);
        if owner != *run && !needed && !alive(store, &owner)? {
            // An in-process step or a plain command has no line of its own in the records, but its orphans have the mark.
            let _ = end_all(store, machine, &name);
            remove_private(machine, &name);
            discard(store, Path::new(&place.path()));
        }
    }
    sweep_trash(store, run)
}

/// Removes what runs that died did not come to remove.
fn sweep_trash(store: &Store, run: &RunId) -> Result<(), StoreError> {
    let Ok(left) = std::fs::read_dir(store.root.join("tmp")) else { return Ok(()) };
    for left in left.flatten() {
        let name = left.file_name().to_string_lossy().into_owned();
        // `trash-RUN-ATTEMPT-PROCESS-NUMBER`
        let owner = name.strip_prefix("trash-").and_then(|rest| rest.rsplitn(4, '-').nth(3)).map(RunId::new);
        let over = match &owner {
            Some(owner) => owner != run && !alive(store, owner)?,
            None => name != "places" && is_old(&left),
        };
        if over {
            let _ = hostile::remove_all(&left.path());
        }
    }
    Ok(())
}

/// Whether a temporary is so old that whoever wrote it is gone.
fn is_old(entry: &std::fs::DirEntry) -> bool {
    let changed = entry.metadata().ok().and_then(|meta| meta.modified().ok());
    changed.and_then(|changed| changed.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(24 * 3600))
}
