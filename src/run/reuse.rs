//! Which earlier draw of an agent stands for today's, although the agent's version or its environment is another.
//!
//! An agent costs money: one missing module in an environment, or a new release, must not draw a whole campaign again unless
//! somebody wants that. What stands is said to be reused, never that it is today's; a set that was chosen by its outcomes is
//! told apart where it is reported. Nothing is written here.

use std::sync::Arc;

use crate::attempt::Ended;
use crate::class::Class;
use crate::key::{ActionKey, Change, KeyRecord, Value};
use crate::manifest::{Kind, Reuse};
use crate::outcome::Cause;
use crate::plan::{Job, Plan};
use crate::run::decide::{Decision, decide};
use crate::step::{End, Ends, SomeEnds};
use crate::store::{Index, Store};

/// Old records that are looked at for one action at most.
const COMPARED: usize = 256;
/// The largest key record.
const RECORD_BYTES: u64 = 16 * 1024 * 1024;

/// A draw that stands for another.
#[derive(Clone, Debug)]
pub struct Reused {
    /// The attempt.
    pub ended: Arc<Ended>,
    /// What is otherwise today.
    pub changes: Vec<Change>,
    /// Which rule of the manifest lets it stand, and where that is written.
    pub rule: String,
}

/// A draw of the family: the same action but for the agent's version and environment.
#[derive(Clone, Debug)]
pub struct Relative {
    /// The attempt that settled.
    pub ended: Arc<Ended>,
    /// Its key record.
    pub record: KeyRecord,
    /// What is otherwise today.
    pub changes: Vec<Change>,
}

/// Whether an ingredient belongs to the agent's version.
#[must_use]
pub fn is_version(role: &str) -> bool {
    role == "version" || role.starts_with("tool ") || role.starts_with("source ")
}

fn is_environment(role: &str) -> bool {
    role == "environment"
}

/// What the manifest says of an agent's action; `None` for others.
fn policy(plan: &Plan, node: usize) -> Option<&Reuse> {
    if plan.kind(node) != Kind::Agent {
        return None;
    }
    plan.manifest.pipeline.candidates.get(plan.nodes[node].point.candidate?).map(|candidate| &candidate.reuse)
}

/// What the manifest says, in words, with its line; `None` where it says nothing.
fn said(plan: &Plan, node: usize) -> Option<String> {
    let candidate = plan.manifest.pipeline.candidates.get(plan.nodes[node].point.candidate?)?;
    let said = match &candidate.reuse {
        Reuse::Environment => return None,
        Reuse::Strict => "strict".to_owned(),
        Reuse::Usable => "usable".to_owned(),
        Reuse::Except(causes) => {
            let causes: Vec<String> = causes.iter().map(|cause| format!("cause=\"{cause}\"")).collect();
            format!("except {}", causes.join(" "))
        }
        Reuse::Run(run) => format!("run=\"{run}\""),
    };
    let place = candidate.reuse_place.map(|place| plan.manifest.line_of(place));
    let place = place.map(|(file, line)| format!(" ({file}:{line})")).unwrap_or_default();
    Some(format!("`reuse {said}`{place}"))
}

/// The rule that lets an earlier draw stand, in words.
fn rule(plan: &Plan, node: usize) -> String {
    match said(plan, node) {
        Some(said) => format!("an earlier draw stands for it by {said}"),
        None => "an earlier draw stands for it: its environment alone changed, and the candidate does not say \
                 `reuse strict`"
            .to_owned(),
    }
}

impl Reuse {
    /// Whether draws that differ from today's by these ingredients may stand at all.
    fn bridges(&self, changes: &[Change]) -> bool {
        let bridged = |change: &Change| match self {
            Self::Strict => false,
            Self::Environment => is_environment(&change.ingredient),
            _ => is_environment(&change.ingredient) || is_version(&change.ingredient),
        };
        changes.iter().all(bridged)
    }
}

/// Whether the manifest may let an earlier draw stand that differs from today's by these ingredients.
#[must_use]
pub fn may_stand(plan: &Plan, node: usize, changes: &[Change]) -> bool {
    policy(plan, node).is_some_and(|policy| *policy != Reuse::Strict && policy.bridges(changes))
}

/// The earlier draw that stands for an action of which nothing is recorded under its own key.
#[must_use]
pub fn reusable(
    plan: &Plan,
    node: usize,
    record: &KeyRecord,
    ends: &dyn Ends,
    store: &Store,
    index: &Index,
) -> Option<Reused> {
    let policy = policy(plan, node)?;
    if *policy == Reuse::Strict {
        return None;
    }
    let newest_first = relatives(plan, node, record, store, index);
    newest_first.into_iter().filter(|relative| policy.bridges(&relative.changes)).find_map(|relative| {
        let stands = stands(policy, &relative, &|| job_with(plan, node, &relative.ended, ends, store, index));
        stands.is_ok().then(|| Reused { ended: relative.ended, changes: relative.changes, rule: rule(plan, node) })
    })
}

/// Whether a draw of another version stands, and if not, why.
fn stands<'a>(
    policy: &Reuse,
    relative: &Relative,
    job: &dyn Fn() -> Option<(&'a Job, Overlay<'a>)>,
) -> Result<(), String> {
    match policy {
        Reuse::Strict => Err("no other version stands".to_owned()),
        Reuse::Environment => Ok(()),
        Reuse::Run(run) if relative.ended.run.as_str() == run => Ok(()),
        Reuse::Run(_) => Err(format!("it is of run {}", relative.ended.run)),
        Reuse::Usable => match job().and_then(|(job, over)| class_of(job, &over)) {
            Some(class) if !class.usable() => Err(format!("its job ended {}", class.name())),
            _ => Ok(()),
        },
        Reuse::Except(causes) => {
            let own = relative.ended.outcome.failure().map(|failure| failure.cause);
            // A cause that no draw has may be that of what was made of it.
            let of_job = || job().into_iter().flat_map(|(_, over)| over.causes()).find(|cause| causes.contains(cause));
            match own.filter(|cause| causes.contains(cause)).or_else(of_job) {
                Some(cause) => Err(format!("its job ended in {cause}")),
                None => Ok(()),
            }
        }
    }
}

/// Why no draw of another version stands for an agent's action, where there is one and the manifest says that some do.
#[must_use]
pub fn declined(
    plan: &Plan,
    node: usize,
    record: &KeyRecord,
    ends: &dyn Ends,
    store: &Store,
    index: &Index,
) -> Option<String> {
    let policy = policy(plan, node)?;
    if matches!(policy, Reuse::Strict | Reuse::Environment) {
        return None;
    }
    let newest_first = relatives(plan, node, record, store, index);
    let relative = newest_first.into_iter().find(|relative| policy.bridges(&relative.changes))?;
    let why = stands(policy, &relative, &|| job_with(plan, node, &relative.ended, ends, store, index)).err()?;
    Some(format!("{} does not hold for the draw there is: {why}", said(plan, node)?))
}

/// The earlier draws at an action's point that differ from it by the agent's version and environment alone, of each key the
/// attempt that settled it; the newest first.
#[must_use]
pub fn relatives(plan: &Plan, node: usize, record: &KeyRecord, store: &Store, index: &Index) -> Vec<Relative> {
    let settled = |Kin { record, changes, attempts }| {
        let mut read = attempts.iter().map(|ended| store.today(ended, plan.tables(node)));
        let ended = read.find(|ended| ended.outcome.settles())?;
        Some(Relative { ended, record, changes })
    };
    let mut found: Vec<Relative> = kin(plan, node, record, store, index).into_iter().filter_map(settled).collect();
    found.sort_by_key(|relative| std::cmp::Reverse(relative.ended.at));
    found
}

/// The draws of the family that the manifest lets stand, or let stand before tables changed, as recorded: the newest first.
/// What it says of outcomes is not looked at.
#[must_use]
pub fn bridged(plan: &Plan, node: usize, record: &KeyRecord, store: &Store, index: &Index) -> Vec<Arc<Ended>> {
    let Some(policy) = policy(plan, node) else { return Vec::new() };
    let of_run = |ended: &Arc<Ended>| match policy {
        Reuse::Run(run) => ended.run.as_str() == run,
        _ => true,
    };
    let kin = kin(plan, node, record, store, index).into_iter().filter(|kin| policy.bridges(&kin.changes));
    let mut found: Vec<Arc<Ended>> = kin.flat_map(|kin| kin.attempts).filter(of_run).collect();
    found.sort_by_key(|ended| std::cmp::Reverse(ended.at));
    found
}

/// The newest draw that stood for an action by the tables of its day and settles nothing by today's, with how it reads today.
#[must_use]
pub fn reopened(
    plan: &Plan,
    node: usize,
    record: &KeyRecord,
    store: &Store,
    index: &Index,
) -> Option<(Arc<Ended>, Arc<Ended>)> {
    let stood = |ended: &Arc<Ended>| match (policy(plan, node), ended.outcome.failure()) {
        (Some(Reuse::Except(causes)), Some(failure)) => !causes.contains(&failure.cause),
        _ => true,
    };
    let settled = bridged(plan, node, record, store, index).into_iter().filter(|ended| ended.outcome.settles());
    settled.filter(stood).find_map(|ended| {
        let today = store.today(&ended, plan.tables(node));
        (!today.outcome.settles()).then_some((ended, today))
    })
}

/// All attempts under a key of the family.
struct Kin {
    record: KeyRecord,
    changes: Vec<Change>,
    attempts: Vec<Arc<Ended>>,
}

fn kin(plan: &Plan, node: usize, record: &KeyRecord, store: &Store, index: &Index) -> Vec<Kin> {
    let axes = &plan.nodes[node].axes;
    let today = |near| plan.has_point(near);
    let mut keys = index.nearest_candidates(Kind::Agent.word(), axes);
    // What a candidate of another name drew that is none of today's.
    keys.extend(index.strays(Kind::Agent.word(), axes, &today));
    let own = record.key();
    let related = |key: ActionKey| {
        let old = KeyRecord::decode(&store.cas.get(&key.0, RECORD_BYTES).ok()??).ok()?;
        let changes = record.changes_since(&old);
        let family = |change: &Change| is_environment(&change.ingredient) || is_version(&change.ingredient);
        if changes.is_empty() || !changes.iter().all(family) {
            return None;
        }
        Some(Kin { record: old, changes, attempts: index.attempts(&key).ok()? })
    };
    keys.into_iter().filter(|key| *key != own).take(COMPARED).filter_map(related).collect()
}

/// The class that the job of an agent's action has if this attempt speaks for it, as far as all that takes is recorded.
#[must_use]
pub fn class_with(
    plan: &Plan,
    node: usize,
    ended: &Arc<Ended>,
    ends: &dyn Ends,
    store: &Store,
    index: &Index,
) -> Option<Class> {
    let (job, over) = job_with(plan, node, ended, ends, store, index)?;
    class_of(job, &over)
}

fn class_of(job: &Job, ends: &dyn Ends) -> Option<Class> {
    let settled = ends.end(job.classify?).settled()?;
    let name = settled.outputs.get("class").and_then(Value::as_text)?;
    Class::ALL.iter().copied().find(|class| class.name() == name)
}

/// The job of an agent's action, and how it ends if this attempt speaks for it.
fn job_with<'a>(
    plan: &'a Plan,
    node: usize,
    ended: &Arc<Ended>,
    ends: &'a dyn Ends,
    store: &Store,
    index: &Index,
) -> Option<(&'a Job, Overlay<'a>)> {
    let job = plan.jobs.iter().find(|job| job.nodes.contains(&node))?;
    let mut over = Overlay { under: ends, over: SomeEnds::default() };
    over.over.0.insert(node, End::Settled(ended.clone()));
    for other in &job.nodes {
        // What was made of today's draw does not count, so all that follows the agent is looked up anew.
        let follows = plan.nodes[*other].links.iter().any(|link| over.over.0.contains_key(&link.node));
        if *other == node || !follows && over.end(*other).is_over() {
            continue;
        }
        let end = match decide(plan, *other, &over, store, index, false) {
            Decision::Served { ended, .. } | Decision::Reused { ended, .. } => End::Settled(ended),
            Decision::Over(end) => end,
            _ => End::Pending,
        };
        over.over.0.insert(*other, end);
    }
    Some((job, over))
}

/// Ends as they would be.
struct Overlay<'a> {
    under: &'a dyn Ends,
    over: SomeEnds,
}

impl Overlay<'_> {
    /// By what causes those ended that were looked up anew.
    fn causes(&self) -> Vec<Cause> {
        let cause = |end: &End| match end {
            End::Settled(ended) => ended.outcome.failure().map(|failure| failure.cause),
            End::Skipped(cause) => Some(*cause),
            _ => None,
        };
        self.over.0.values().filter_map(cause).collect()
    }
}

impl Ends for Overlay<'_> {
    fn end(&self, node: usize) -> &End {
        self.over.0.get(&node).unwrap_or_else(|| self.under.end(node))
    }
}
