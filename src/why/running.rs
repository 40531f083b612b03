//! What living runs execute at this moment.
//!
//! Their journals tell: records of what is under way come later. Stops nothing and waits for nothing.

use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::key::ActionKey;
use crate::names::{AttemptId, RunId};
use crate::plan::Plan;
use crate::run::journal;
use crate::store::{RunLock, begun};
use crate::why::attempts::age;
use crate::why::forecast::Forecast;

/// The newest so many runs are asked whether they live.
const RUNS: usize = 8;

/// An attempt that is under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunningSaid {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: AttemptId,
    /// How long ago it began, in seconds.
    pub since_s: i64,
}

/// The attempts that living runs have under way, by key. Their records come later: their journals tell.
#[must_use]
pub fn under_way(plan: &Plan, forecasts: &[Forecast], root: &Path, now: Timestamp) -> HashMap<ActionKey, RunningSaid> {
    let mut running = HashMap::new();
    if !forecasts.iter().any(|said| said.state.executes()) {
        return running;
    }
    let mut commits = forecasts.iter().filter_map(|said| plan.nodes[said.node].axes.get("commit"));
    let first = commits.next();
    let only = first.filter(|first| commits.all(|commit| commit == *first));
    let newest = begun(root).into_iter().rev().take(RUNS);
    for run in newest.filter(|run| RunLock::is_alive(root, run).unwrap_or(false)) {
        for (key, begun) in journal::under_way(root, &run, only) {
            let since_s = age(begun.at, now);
            running.insert(key, RunningSaid { run: run.clone(), attempt: begun.attempt, since_s });
        }
    }
    running
}
