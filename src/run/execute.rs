//! The executor: does one action once, in a place of its own, and sweeps the place. Decides nothing.

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::attempt::{Ended, Reserved, Started};
use crate::container;
use crate::hostile;
use crate::key::ActionKey;
use crate::names::{AttemptId, RunId};
use crate::outcome::{Cause, Failure};
use crate::plan::Ask;
use crate::process::{self, Exit};
use crate::step::secrets::remove_private;
use crate::step::{
    Context, Done, End, Ends, Inputs, Keyed, Place, Progress, SomeEnds, Stop, agent, checkout, classify, command,
    draft, environment, patch, test,
};
use crate::store::{Index, RunLock, Store, StoreError};

/// How long orphans of an attempt may take to die.
const ORPHANS: Duration = Duration::from_secs(20);

/// What one executor gets.
pub struct Work {
    /// What all share.
    pub context: Arc<Context>,
    /// The action.
    pub node: usize,
    /// The attempt.
    pub attempt: AttemptId,
    /// How what it is linked to ended.
    pub ends: SomeEnds,
    /// What runs that died left of this action.
    pub left: Left,
    /// The measurement that a test continues.
    pub earlier: Option<Arc<Ended>>,
    /// Descriptors for supervisors to hold on to.
    pub locks: Vec<RawFd>,
    /// Slots as (kind, name).
    pub slots: Vec<(String, String)>,
    /// Cores it may use.
    pub cores: Vec<u32>,
    /// Tells when to stop.
    pub stop: watch::Receiver<Stop>,
    /// Hears how far it is.
    pub told: mpsc::UnboundedSender<Progress>,
}

/// What runs that died left of one action.
#[derive(Default)]
pub struct Left {
    /// An agent that had finished, and how.
    pub finished: Option<Finished>,
    /// Attempts without an end.
    pub dead: Vec<Started>,
}

/// An attempt whose process ended though its run did not live to say so.
pub struct Finished {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its run.
    pub run: RunId,
    /// When it began.
    pub at: Timestamp,
    /// The pipeline that it was for.
    pub pipeline: Option<String>,
    /// What was reserved for it.
    pub reserved: Option<Reserved>,
    end: process::End,
}

impl Left {
    /// Looks for what runs before `own` left of an action whose lock the caller holds: nobody else works on it.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn find(store: &Store, index: &Index, key: &ActionKey, own: &RunId) -> Result<Self, StoreError> {
        let mut left = Self::default();
        for started in index.unfinished()?.into_iter().filter(|started| started.key == *key && started.run != *own) {
            match finished_agent(store, &started) {
                Some(end) if left.finished.is_none() => {
                    let Started { attempt, run, at, pipeline, reserved, .. } = started;
                    left.finished = Some(Finished { attempt, run, at, pipeline, reserved, end });
                }
                _ => left.dead.push(started),
            }
        }
        Ok(left)
    }
}

/// How an agent ended by itself though its run had died. What was stopped did not end by itself.
#[must_use]
pub fn finished_agent(store: &Store, started: &Started) -> Option<process::End> {
    if started.kind != "agent" {
        return None;
    }
    let dir = place_of(store, &started.attempt);
    let end = process::read_end(&dir.join("agent.end.json"))?;
    let by_itself = !matches!(end.exit, Exit::Interrupted { .. } | Exit::NotStarted { .. });
    (by_itself && dir.join("work").is_dir()).then_some(end)
}

/// The keys of agents that had finished when their run died. Records that cannot be read hold none.
#[must_use]
pub fn adoptable(store: &Store, index: &Index) -> HashSet<ActionKey> {
    let open = index.unfinished().unwrap_or_default();
    open.iter().filter(|started| finished_agent(store, started).is_some()).map(|started| started.key).collect()
}

/// Where an attempt works.
#[must_use]
pub fn place_of(store: &Store, attempt: &AttemptId) -> PathBuf {
    store.places().join(attempt.as_str())
}

/// Does one action once.
pub async fn execute(work: Work) -> Done {
    let Work { context, node, attempt, ends, left, earlier, locks, slots, cores, stop, told } = work;
    for started in &left.dead {
        let left = place_of(&context.store, &started.attempt);
        if let Err(error) = container::end_all(&left, started.attempt.as_str(), &context.machine.variables, ORPHANS) {
            return Done::failed(Failure::new(Cause::HarnessFault, &error.to_string()));
        }
        remove_private(&context.machine, started.attempt.as_str());
        discard(&context.store, &left);
    }
    let place = Place { dir: place_of(&context.store, &attempt), attempt, locks, slots, cores, stop, told };
    let inputs = inputs(&context, node, &ends);
    let plan = context.plan.clone();
    let repo = plan.nodes[node].point.commit.map_or(0, |(repo, _)| repo);
    let assets = if left.finished.is_none() { context.have_assets(node, &place).await } else { Ok(Vec::new()) };
    let fetched = match assets {
        Ok(notes) => notes,
        Err(failure) => {
            let agent = matches!(plan.nodes[node].ask, Ask::Agent(_));
            return if agent { Done::no_agent_began(failure) } else { Done::failed(failure) };
        }
    };
    let blocking = |done: &dyn Fn() -> Done| tokio::task::block_in_place(done);
    let mut done = match (&plan.nodes[node].ask, &left.finished) {
        (Ask::Checkout(ask), _) => blocking(&|| checkout::run(&context, repo, ask)),
        (Ask::Environment(ask), _) => {
            let key = match draft(&plan, node, &ends) {
                Keyed::Ready(record) => Some(record.key()),
                _ => None,
            };
            environment::run(&context, node, ask, key, &inputs, &place).await
        }
        (Ask::Agent(ask), Some(left)) => agent::adopt(&context, repo, ask, &inputs, &place, &left.end).await,
        (Ask::Agent(ask), None) => agent::run(&context, node, ask, &inputs, &place).await,
        (Ask::Patch(ask), _) => blocking(&|| patch::run(&context, repo, ask, &inputs)),
        (Ask::Test(_), _) => test::run(&context, node, &inputs, &place, earlier.as_deref()).await,
        (Ask::Classify(ask), _) => blocking(&|| classify::run(&context, node, *ask, &ends)),
        (Ask::Command(ask), _) => command::run(&context, ask, &inputs, &place).await,
    };
    // What an agent made is paid for, and stands with a word.
    match context.changed_asset(node) {
        Some(changed) if matches!(plan.nodes[node].ask, Ask::Agent(_)) => {
            done.notes.push(changed.evidence.as_str().into())
        }
        Some(changed) => done = Done::failed(changed),
        None => {}
    }
    done.notes.extend(fetched);
    done.tell_of_sandbox();
    // What a finished agent left stays until it can be read: it is paid for.
    if done.unread.is_none() {
        if left.finished.is_some() {
            remove_private(&context.machine, place.attempt.as_str());
        }
        tokio::task::block_in_place(|| discard(&context.store, &place.dir));
    }
    done
}

/// What an executor did, if only to panic: the run goes on without it, and what it held is given back.
pub async fn caught(work: impl Future<Output = Done> + Send + 'static) -> Done {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        let panic = error.try_into_panic().ok();
        let text = panic.as_ref().and_then(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied())
        });
        Done::failed(Failure::new(
            Cause::HarnessFault,
            &format!("an executor panicked: {}", text.unwrap_or("without a word")),
        ))
    })
}

fn inputs(context: &Context, node: usize, ends: &dyn Ends) -> Inputs {
    let links = &context.plan.nodes[node].links;
    let settled = links.iter().filter_map(|link| match ends.end(link.node) {
        End::Settled(ended) => Some((link.role.clone(), ended.clone())),
        _ => None,
    });
    Inputs(settled.collect())
}

/// Removes a place. It is renamed first, so that what is left after a kill is never taken for a place.
pub fn discard(store: &Store, dir: &Path) {
    let trash = store.trash(dir);
    let gone = if std::fs::rename(dir, &trash).is_ok() { trash } else { dir.to_owned() };
    // What cannot be removed stays under the store's `tmp`, where the next one tries again.
    let _ = hostile::remove_all(&gone);
}

/// Whether the run of an attempt is alive.
///
/// # Errors
/// If the system does not say.
pub fn alive(store: &Store, run: &RunId) -> Result<bool, StoreError> {
    RunLock::is_alive(&store.root, run)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_executor_that_panics_is_a_fault_of_flow_and_ends_nothing_else() {
        let done = caught(async { panic!("bad luck {}", 7) }).await;
        let failure = done.outcome.failure().unwrap();
        assert_eq!(failure.cause, Cause::HarnessFault);
        assert_eq!(failure.evidence.as_str(), "an executor panicked: bad luck 7");
        assert!(caught(async { Done::succeeded() }).await.outcome.failure().is_none());
    }
}
