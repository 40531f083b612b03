//! What a candidate was called before: by its agent's records, beside those of the candidates that the plan has no longer.
//!
//! A guess that is told with what it rests on, and made only where nothing else comes near. It serves explanations alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::key::{ActionKey, KeyRecord};
use crate::manifest::Kind;
use crate::plan::Plan;
use crate::run::journal::read_plan;
use crate::run::nearest::{record, runs};
use crate::step::{inputs_of, known};
use crate::store::points::{axes_number, bare_number, name_number};
use crate::store::{Earlier, Index, Settled, Store};

/// What differs and what does not between a candidate of today and one that is gone.
#[derive(Clone, Debug, Default)]
struct Likeness {
    same: Vec<String>,
    changed: Vec<String>,
}

impl Likeness {
    /// Near enough to be called the same candidate: its agent is called the same way, and more of it is the same than is not;
    /// where nobody else is gone or new, as much.
    fn will_do(&self, alone: bool) -> bool {
        let called = self.same.iter().any(|role| role == "argv");
        let (same, changed) = (self.same.len(), self.changed.len());
        changed < 2 || called && (same > changed || alone && same == changed)
    }
}

/// What an action's candidate had in a run under another name, that run, and in words why that is taken for true.
pub(super) fn had(
    plan: &Plan,
    node: usize,
    store: &Store,
    index: &Index,
    runs: impl Iterator<Item = Arc<Earlier>>,
) -> Option<(Arc<Earlier>, ActionKey, String)> {
    let axes = &plan.nodes[node].axes;
    let bare = bare_number(axes);
    let name = axes.get("candidate")?;
    let mut runs = runs.filter_map(|earlier| {
        let rows = gone(plan, &earlier, bare);
        (!rows.is_empty()).then_some((earlier, rows))
    });
    let (earlier, rows) = runs.next()?;
    let names = names(store, &earlier);
    let called = |rows: &[Settled]| names.get(&rows.first()?.axes).cloned();
    let (old, words) = index.old_name(name, || Some(find(plan, bare, store, &earlier, &rows, name, &called)))?;
    let own = rows.values().find(|rows| called(rows).as_ref() == Some(&old))?;
    let step = name_number(plan.step(node).name.value.as_str());
    let key = own.iter().find(|row| row.step == step)?.key;
    Some((earlier, key, words))
}

/// What an action's candidate was called in an earlier run, as far as that can be said.
#[must_use]
pub fn old_name(plan: &Plan, node: usize, store: &Store, index: &Index) -> Option<String> {
    let (earlier, key, _) = had(plan, node, store, index, runs(store, index))?;
    let axes = &plan.nodes[node].axes;
    let row = earlier.beside(bare_number(axes)).find(|row| row.key == key && !plan.has_axes(row.axes))?;
    names(store, &earlier).get(&row.axes).cloned()
}

/// What some candidates that are gone are called today, by their old names, as far as that can be said.
#[must_use]
pub fn names_today(plan: &Plan, gone: &BTreeSet<String>, store: &Store, index: &Index) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    if gone.is_empty() {
        return names;
    }
    let mut seen = BTreeSet::new();
    for node in 0..plan.nodes.len() {
        if let Some(candidate) = plan.nodes[node].axes.get("candidate")
            && plan.kind(node) == Kind::Agent
            && seen.insert(candidate.to_owned())
            && let Some(old) = old_name(plan, node, store, index).filter(|old| gone.contains(old))
        {
            names.insert(old, candidate.to_owned());
        }
    }
    names
}

/// What candidates that the plan has no longer settled in a run, where a candidate stands at this point but for its name.
fn gone(plan: &Plan, earlier: &Earlier, bare: u64) -> BTreeMap<u64, Vec<Settled>> {
    let mut rows: BTreeMap<u64, Vec<Settled>> = BTreeMap::new();
    for row in earlier.beside(bare).filter(|row| !plan.has_axes(row.axes)) {
        rows.entry(row.axes).or_default().push(*row);
    }
    rows
}

/// The candidates of a run by the numbers of their jobs' axes.
fn names(store: &Store, earlier: &Earlier) -> BTreeMap<u64, String> {
    let jobs = read_plan(&store.root, &earlier.run).map(|plan| plan.jobs).unwrap_or_default();
    jobs.into_iter().filter_map(|(_, axes)| Some((axes_number(&axes), axes.get("candidate")?.to_owned()))).collect()
}

fn find(
    plan: &Plan,
    bare: u64,
    store: &Store,
    earlier: &Earlier,
    rows: &BTreeMap<u64, Vec<Settled>>,
    name: &str,
    called: &dyn Fn(&[Settled]) -> Option<String>,
) -> Option<(String, String)> {
    // The agents, or where there are none all steps, of the candidates that the run did not have.
    let mut fresh: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for node in 0..plan.nodes.len() {
        let axes = &plan.nodes[node].axes;
        if bare_number(axes) == bare
            && let Some(candidate) = axes.get("candidate")
            && earlier.at(axes_number(axes)).is_empty()
        {
            fresh.entry(candidate).or_default().push(node);
        }
    }
    for nodes in fresh.values_mut() {
        if nodes.iter().any(|node| plan.kind(*node) == Kind::Agent) {
            nodes.retain(|node| plan.kind(*node) == Kind::Agent);
        }
    }
    let mut near: Vec<(&str, u64, Likeness)> = Vec::new();
    for (candidate, nodes) in &fresh {
        for (axes, rows) in rows {
            near.extend(likeness(plan, nodes, store, rows).map(|likeness| (*candidate, *axes, likeness)));
        }
    }
    let (_, old, best) =
        near.iter().filter(|(candidate, ..)| *candidate == name).min_by_key(|(.., like)| like.changed.len())?;
    // Nobody else may come as near: neither another old one to this, nor another new one to that.
    let rival = |(candidate, axes, like): &&(&str, u64, Likeness)| {
        (*candidate == name) != (axes == old) && like.changed.len() <= best.changed.len()
    };
    if !best.will_do(fresh.len() == 1 && rows.len() == 1) || near.iter().any(|pair| rival(&pair)) {
        return None;
    }
    let old = called(rows.get(old)?)?;
    let same = match best.same.as_slice() {
        [] => "nothing of it differs".to_owned(),
        same => format!("its {} are the same", same.join(", ")),
    };
    Some((old.clone(), format!("{old}, which is gone, is taken for the old name of {name}: {same}")))
}

/// How like some actions of a candidate are to what another had; `None` where that cannot be said.
fn likeness(plan: &Plan, nodes: &[usize], store: &Store, rows: &[Settled]) -> Option<Likeness> {
    let mut like = Likeness::default();
    let mut compared = false;
    for node in nodes {
        let step = name_number(plan.step(*node).name.value.as_str());
        let Some(row) = rows.iter().find(|row| row.step == step) else { continue };
        let old = record(store, &row.key)?;
        let new = known(plan, *node);
        let read = inputs_of(plan, *node);
        let waits = |role: &str| read.iter().any(|(input, _)| input == role);
        compared = true;
        let mut put = |record: &KeyRecord, missing: bool| {
            for ingredient in &record.ingredients {
                let role = &ingredient.role;
                let theirs = if missing { new.get(role) } else { old.get(role) };
                // A draw has no say in who it is of.
                if waits(role) || role == "sample" || missing && theirs.is_some() {
                    continue;
                }
                let list = if theirs == Some(&ingredient.value) { &mut like.same } else { &mut like.changed };
                if !list.contains(role) {
                    list.push(role.clone());
                }
            }
        };
        put(&new, false);
        put(&old, true);
    }
    compared.then_some(like)
}
