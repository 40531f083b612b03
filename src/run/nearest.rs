//! Why an action is not served: the stored record that is nearest to its own, and what differs.
//!
//! Records do not say all: an action that shared the key of another left none at its own point. What each action had in earlier
//! runs, whoever executed it, the journals say. Explains and decides nothing.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::event::{Compared, Reason};
use crate::key::{ActionKey, Change, KeyRecord};
use crate::manifest::Kind;
use crate::names::RunId;
use crate::plan::Plan;
use crate::run::journal::earlier;
use crate::run::renamed;
use crate::step::inputs_of;
use crate::store::points::{axes_number, name_number};
use crate::store::{Earlier, Index, Settled, Store, begun};

/// The largest key record that is read.
const RECORD: u64 = 16 * 1024 * 1024;
/// Old records that a miss is compared with at most.
const COMPARED: usize = 256;

/// Why a record has no attempt: what differs from what the action had in the newest run of its manifest that settled it. Where none
/// did, the nearest of the stored records of the same kind and point, of equally near ones the newest; else those of candidates
/// that are no longer in the plan: one may have been renamed. Ingredients that are `waiting` are not compared.
#[must_use]
pub fn reason_for(
    plan: &Plan,
    node: usize,
    record: &KeyRecord,
    waiting: &[(String, usize)],
    store: &Store,
    index: &Index,
) -> Reason {
    let past = Past { plan, store, index };
    let new = || Reason { from: inputs_of(plan, node), ..Reason::new("new") };
    let mut last = past.last(node);
    let mut own = own_candidates(plan, node, index);
    let mut name = None;
    if last.is_none() && own.is_empty() {
        match past.unknown(node, record, waiting) {
            Unknown::New => return new(),
            Unknown::Unsaid(because) => return Reason { because: Some(because), ..new() },
            Unknown::Renamed(had, words) => (last, name) = (Some(had), Some(words)),
            Unknown::Stray(keys) => own = keys,
        }
    }
    // What it had last is what people had before their change. What another manifest had says nothing of this one as long as this
    // one was run itself.
    let before = last.iter().filter(|had| past.is_own(&had.earlier)).map(|had| had.key);
    let mut near = past.compare(record, before, waiting);
    if near.is_empty() {
        let keys = last.iter().map(|had| had.key).chain(own.iter().copied().take(COMPARED));
        near = past.compare(record, keys, waiting);
    }
    let Some(Near { key, changes }) = near.into_iter().next() else {
        let key = last.map(|had| had.key).or(own.first().copied());
        let because =
            "the key record of its last attempt is damaged or gone from the store: what changed since cannot be said";
        return Reason {
            nearest: key,
            because: Some(because.to_owned()),
            ..Reason { state: "changed".into(), ..new() }
        };
    };
    if changes.is_empty() && waiting.is_empty() {
        // Nothing changed: what is lacking is the attempt.
        let because = "an attempt under this very key was begun, and no end of it is recorded, or its line is damaged";
        return Reason { nearest: Some(key), because: Some(because.to_owned()), ..Reason::new("retry") };
    }
    let mut from = inputs_of(plan, node);
    from.retain(|(role, _)| changes.iter().any(|change| change.ingredient == *role));
    let compared = past.named(node, &key, last.as_ref(), name);
    Reason { nearest: Some(key), changes, from, compared, ..Reason::new("changed") }
}

/// The keys of old records at an action's own point, the newest first. Where the plan has several steps of the kind at that
/// point, only those that no other of these steps left: a record has no step's name in it, but its attempts have.
#[must_use]
pub fn own_candidates(plan: &Plan, node: usize, index: &Index) -> Vec<ActionKey> {
    let (kind, step) = (plan.kind(node), plan.nodes[node].step);
    let mut keys = index.nearest_candidates(kind.word(), &plan.nodes[node].axes);
    let steps = plan.manifest.pipeline.steps.iter().enumerate();
    let others: HashSet<&str> = steps
        .filter(|(other, known)| *other != step && known.kind() == kind)
        .map(|(_, known)| known.name.value.as_str())
        .collect();
    if !others.is_empty() {
        keys.truncate(COMPARED);
        let own = |key: &ActionKey| match index.attempts(key) {
            Ok(attempts) if !attempts.is_empty() => attempts.iter().any(|ended| !others.contains(ended.step.as_str())),
            _ => true,
        };
        keys.retain(own);
    }
    keys
}

/// Whether anything is known of what an action had before.
#[must_use]
pub fn is_known(plan: &Plan, node: usize, store: &Store, index: &Index) -> bool {
    !own_candidates(plan, node, index).is_empty() || Past { plan, store, index }.last(node).is_some()
}

/// How many actions of an action's step shared a key in the newest run in which the action had it; 0 if no run is known.
#[must_use]
pub fn sharing(plan: &Plan, node: usize, key: &ActionKey, store: &Store, index: &Index) -> usize {
    let had = Past { plan, store, index }.last(node).filter(|had| had.key == *key);
    let step = name_number(plan.step(node).name.value.as_str());
    had.map_or(0, |had| had.earlier.sharing(step, key))
}

/// When a run began, by its id.
#[must_use]
pub fn begun_at(run: &RunId) -> Option<Timestamp> {
    let text = run.as_str().split('-').next()?;
    DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// What an action had in a run.
#[derive(Clone)]
struct Had {
    earlier: Arc<Earlier>,
    key: ActionKey,
}

/// An old record and what differs from it.
#[derive(Clone)]
struct Near {
    key: ActionKey,
    changes: Vec<Change>,
}

/// What is known of an action that no journal and no record knows by its point.
enum Unknown {
    /// It was never run.
    New,
    /// Whether it was run cannot be said, and why.
    Unsaid(String),
    /// Its candidate had another name: what that had, and the words for it.
    Renamed(Had, String),
    /// Keys of a candidate that is no longer in the plan, and that differs in no more than one thing.
    Stray(Vec<ActionKey>),
}

/// Whether anything was executed at a point.
enum Executed {
    Never,
    /// By runs of which the journals tell.
    Told,
    /// By a run of which none tells.
    Untold,
}

struct Past<'a> {
    plan: &'a Plan,
    store: &'a Store,
    index: &'a Index,
}

impl Past<'_> {
    /// The earlier runs, the newest first.
    fn runs(&self) -> impl Iterator<Item = Arc<Earlier>> + '_ {
        runs(self.store, self.index)
    }

    /// Whether a run was of the plan's manifest, or of one that is there no longer and may have been it.
    fn is_own(&self, earlier: &Earlier) -> bool {
        let Some(theirs) = &earlier.manifest else { return true };
        let Some(own) = self.plan.manifest.files.first() else { return true };
        same_file(theirs, &own.path)
    }

    /// What an action had in the newest run of its manifest that settled it, else in the newest of any. A step that the plan
    /// has no longer, of the same kind at the same point, may have been this one under another name.
    fn last(&self, node: usize) -> Option<Had> {
        let axes = axes_number(&self.plan.nodes[node].axes);
        let name = name_number(self.plan.step(node).name.value.as_str());
        let mut foreign = None;
        for earlier in self.runs() {
            let rows = earlier.at(axes);
            let row = rows.iter().find(|row| row.step == name).or_else(|| self.of_old_step(node, rows));
            let Some(key) = row.map(|row| row.key) else { continue };
            let own = self.is_own(&earlier);
            let had = Had { earlier, key };
            if own {
                return Some(had);
            }
            foreign.get_or_insert(had);
        }
        foreign
    }

    /// The only row that a step of the action's kind left which the plan does not have.
    fn of_old_step<'r>(&self, node: usize, rows: &'r [Settled]) -> Option<&'r Settled> {
        let steps = &self.plan.manifest.pipeline.steps;
        let gone = |row: &&Settled| steps.iter().all(|step| name_number(step.name.value.as_str()) != row.step);
        let kind = self.plan.kind(node).word();
        let mut alike =
            rows.iter().filter(gone).filter(|row| self.record(&row.key).is_some_and(|record| record.kind == kind));
        let only = alike.next()?;
        alike.next().is_none().then_some(only)
    }

    fn record(&self, key: &ActionKey) -> Option<KeyRecord> {
        record(self.store, key)
    }

    /// The nearest of some records; those that are equally near in the order of their keys.
    fn compare(
        &self,
        record: &KeyRecord,
        keys: impl IntoIterator<Item = ActionKey>,
        waiting: &[(String, usize)],
    ) -> Vec<Near> {
        let mut best: Vec<Near> = Vec::new();
        for key in keys {
            let Some(old) = self.record(&key) else { continue };
            let mut changes = record.changes_since(&old);
            changes.retain(|change| !waiting.iter().any(|(role, _)| *role == change.ingredient));
            let least = best.first().map_or(usize::MAX, |least| least.changes.len());
            if changes.len() < least {
                best.clear();
            }
            if changes.len() <= least {
                best.push(Near { key, changes });
            }
        }
        best
    }

    /// Of an action that is known by nothing at its own point.
    fn unknown(&self, node: usize, record: &KeyRecord, waiting: &[(String, usize)]) -> Unknown {
        let axes = &self.plan.nodes[node].axes;
        let number = axes_number(axes);
        if self.runs().any(|earlier| !earlier.at(number).is_empty()) {
            return Unknown::New;
        }
        if let Some((earlier, key, words)) = renamed::had(self.plan, node, self.store, self.index, self.runs()) {
            return Unknown::Renamed(Had { earlier, key }, words);
        }
        match self.executed(node) {
            Executed::Untold if !self.index.strays(&record.kind, axes, &|_| false).is_empty() => {
                return Unknown::Unsaid("no journal says what it had before".to_owned());
            }
            Executed::Told | Executed::Untold => return Unknown::New,
            Executed::Never => {}
        }
        // A new draw is no old one, and what differs in more than one thing is no old candidate under a new name.
        let strays = self.index.strays(&record.kind, axes, &|near| self.plan.has_point(near));
        let near = self.compare(record, strays.into_iter().take(COMPARED), waiting);
        let alike =
            |near: &Near| near.changes.len() < 2 && near.changes.iter().all(|change| change.ingredient != "sample");
        let keys: Vec<ActionKey> = near.iter().filter(|near| alike(near)).map(|near| near.key).collect();
        if keys.is_empty() { Unknown::New } else { Unknown::Stray(keys) }
    }

    /// Whether steps at an action's point were executed, and by runs of which the journals tell.
    fn executed(&self, node: usize) -> Executed {
        let axes = &self.plan.nodes[node].axes;
        let keys = Kind::ALL.iter().flat_map(|kind| self.index.nearest_candidates(kind.word(), axes));
        let attempts = keys.filter_map(|key| self.index.attempts(&key).ok()).flatten();
        let runs: HashSet<RunId> = attempts.map(|ended| ended.run.clone()).collect();
        if runs.is_empty() {
            return Executed::Never;
        }
        let told = |run: &RunId| self.index.is_own(run) || self.runs().any(|earlier| earlier.run == *run);
        if runs.iter().all(told) { Executed::Told } else { Executed::Untold }
    }

    /// What was compared with, where that is not what the action had last in its own manifest.
    fn named(&self, node: usize, key: &ActionKey, last: Option<&Had>, renamed: Option<String>) -> Option<Compared> {
        let simply = last.is_some_and(|had| had.key == *key && self.is_own(&had.earlier));
        if simply && renamed.is_none() {
            return None;
        }
        let axes = axes_number(&self.plan.nodes[node].axes);
        let had = last.filter(|had| had.key == *key).map(|had| had.earlier.clone());
        let had = had.or_else(|| self.runs().find(|earlier| earlier.at(axes).iter().any(|row| row.key == *key)));
        let earlier = had.or_else(|| {
            let attempts = self.index.attempts(key).ok()?;
            Some(earlier_of(&self.store.root, &attempts.last()?.run))
        })?;
        let theirs = earlier.manifest.as_ref().filter(|_| !self.is_own(&earlier));
        let manifest = theirs.map(|path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned());
        Some(Compared { at: begun_at(&earlier.run), run: earlier.run.clone(), manifest, renamed })
    }
}

/// The earlier runs of a store, the newest first, as far as is looked back.
pub(super) fn runs<'a>(store: &'a Store, index: &'a Index) -> impl Iterator<Item = Arc<Earlier>> + 'a {
    let root = &store.root;
    (0..).map_while(move |back| index.earlier(back, || begun(root), |run| earlier(root, run)))
}

/// A key record of the store.
pub(super) fn record(store: &Store, key: &ActionKey) -> Option<KeyRecord> {
    KeyRecord::decode(&store.cas.get(&key.0, RECORD).ok()??).ok()
}

/// A run of which only the manifest is asked.
fn earlier_of(root: &Path, run: &RunId) -> Arc<Earlier> {
    let manifest = crate::run::journal::manifest_of(root, run).and_then(|path| path.canonicalize().ok());
    Arc::new(Earlier::new(run.clone(), manifest, Vec::new()))
}

fn same_file(real: &Path, path: &Path) -> bool {
    real == path || path.canonicalize().is_ok_and(|path| real == path)
}
