//! Watches the machine beside a session: a reading before and after each block, and of GPUs one a second within it.
//!
//! Knows nothing of runs and samples: what it tells of a block depends on the machine alone.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::host::{self, Asked, Gpu, Nvidia, Reading};
use crate::measure::guard::{self, Pinned, Seen};
use crate::process;
use crate::step::test::Session;

/// How long the files of one reading may take. A machine that is slower is not read again.
const LIMIT: Duration = Duration::from_secs(2);
/// How long it waits between two answers of a driver.
const PAUSE: Duration = Duration::from_secs(1);

/// One who watches.
pub(super) struct Watch {
    origin: Instant,
    cores: Vec<u32>,
    nvidia: Nvidia,
    /// No file is read any more: one of them kept somebody waiting.
    silent: bool,
    /// The reading at the end of the last block, when no process ran.
    last: Option<Reading>,
}

/// A block that is watched. Dropped, it watches no more.
pub(super) struct Watched {
    before: Reading,
    within: Arc<Mutex<Vec<Reading>>>,
    asking: Option<JoinHandle<()>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
    }
}

impl Watch {
    /// Watches the slot of a session.
    pub(super) fn new(session: &Session<'_>) -> Self {
        let (context, place) = (session.context, session.place);
        let uuid = |(kind, name): &(String, String)| match context.plan.facts.devices.get(&format!("{kind}/{name}")) {
            Some(Ok(uuid)) if kind == "gpu" => Some(uuid.clone()),
            _ => None,
        };
        let asked = Asked {
            uuids: place.slots.iter().filter_map(uuid).collect(),
            variables: context.machine.variables.clone(),
            attempt: place.attempt.as_str().to_owned(),
        };
        Self {
            origin: Instant::now(),
            cores: place.cores.clone(),
            nvidia: Nvidia::new(asked),
            silent: false,
            last: None,
        }
    }

    /// To which cores the processes of the session are held; nothing where they may use all.
    pub(super) fn pinned(&self) -> Option<Pinned> {
        let named = self.cores.clone();
        (!named.is_empty()).then(|| Pinned { held: process::held_to(&named), named })
    }

    /// Begins to watch a block: none of its processes runs yet.
    pub(super) async fn begin(&mut self) -> Watched {
        let before = match self.last.take() {
            Some(last) => last,
            None => self.read().await,
        };
        let within = Arc::new(Mutex::new(Vec::new()));
        let asking = (!before.gpus.is_empty()).then(|| {
            let (mut nvidia, origin, into) = (self.nvidia.clone(), self.origin, within.clone());
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(PAUSE).await;
                    let gpus = nvidia.read().await;
                    let reading = Reading { at: origin.elapsed(), gpus, ..Reading::default() };
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
                }
            })
        });
        Watched { before, within, asking }
    }

    /// Ends it: none of its processes runs any more. What was seen.
    pub(super) async fn end(&mut self, block: Watched) -> Seen {
        let within = std::mem::take(&mut *block.within.lock().unwrap_or_else(PoisonError::into_inner));
        let before = block.before.clone();
        drop(block);
        let after = self.read().await;
        self.last = Some(after.clone());
        let all: Vec<Reading> = std::iter::once(before).chain(within).chain([after]).collect();
        guard::seen(&all)
    }

    async fn read(&mut self) -> Reading {
        let at = self.origin.elapsed();
        let mut reading = Reading::default();
        if !self.silent {
            let cores = self.cores.clone();
            let files = tokio::task::spawn_blocking(move || host::read(Path::new("/"), &cores));
            match tokio::time::timeout(LIMIT, files).await {
                Ok(read) => reading = read.unwrap_or_default(),
                Err(_) => self.silent = true,
            }
        }
        let gpus: Vec<Gpu> = self.nvidia.read().await;
        Reading { at, gpus, ..reading }
    }
}
