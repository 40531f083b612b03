//! An action of any version: found again in another plan, with the value of an ingredient there, and where the manifest says that it is.

use crate::key::Value;
use crate::manifest::{Kind, Place};
use crate::names::Axes;
use crate::plan::Plan;
use crate::run::decide::limits_shown;
use crate::step::known;
use crate::why::past::same_commit;
use crate::why::wiring;

/// An action, whatever its number in a plan.
#[derive(Clone, Debug)]
pub struct Action {
    /// The name of its step.
    pub step: String,
    /// The kind of its step.
    pub kind: Kind,
    /// Its point.
    pub axes: Axes,
}

impl Action {
    /// An action of a plan.
    #[must_use]
    pub fn of(plan: &Plan, node: usize) -> Self {
        Self {
            step: plan.step(node).name.value.to_string(),
            kind: plan.kind(node),
            axes: plan.nodes[node].axes.clone(),
        }
    }

    /// Its number in a plan: of several steps of its kind at its point, that of its name.
    #[must_use]
    pub fn within(&self, plan: &Plan) -> Option<usize> {
        let mut only = None;
        let mut several = false;
        for node in 0..plan.nodes.len() {
            if plan.kind(node) == self.kind && same_axes(&plan.nodes[node].axes, &self.axes) {
                if plan.step(node).name.value.as_str() == self.step {
                    return Some(node);
                }
                several |= only.replace(node).is_some();
            }
        }
        only.filter(|_| !several)
    }

    /// Its number in a plan that has a step of its name; another step of its kind is not taken for it.
    #[must_use]
    pub fn exactly(&self, plan: &Plan) -> Option<usize> {
        self.within(plan).filter(|node| plan.step(*node).name.value.as_str() == self.step)
    }

    /// The same action as a plan calls it whose step, candidate, repository or axis was renamed until `later`: what that one has no
    /// longer stands for what this one has not yet.
    #[must_use]
    pub fn in_older(&self, plan: &Plan, later: &Plan) -> Vec<Self> {
        let pipeline = &plan.manifest.pipeline;
        let has =
            |plan: &Plan, name: &str| plan.manifest.pipeline.steps.iter().any(|step| step.name.value.as_str() == name);
        let mut own = vec![self.clone()];
        if !has(plan, &self.step) {
            let gone = pipeline.steps.iter().filter(|step| step.kind() == self.kind);
            let gone = gone.map(|step| step.name.value.to_string()).filter(|name| !has(later, name));
            own = gone.map(|step| Self { step, ..self.clone() }).collect();
        }
        let axis =
            |plan: &Plan, name: &str| plan.manifest.pipeline.axes.iter().any(|axis| axis.name.value.as_str() == name);
        for (name, value) in &self.axes.0 {
            if !axis(later, name) || axis(plan, name) {
                continue;
            }
            let gone = pipeline.axes.iter().map(|axis| axis.name.value.to_string());
            let gone: Vec<String> = gone.filter(|name| !axis(later, name)).collect();
            let called = |action: &Self, old: &String| {
                let mut axes = action.axes.clone();
                axes.0.remove(name);
                axes.0.insert(old.clone(), value.clone());
                Self { axes, ..action.clone() }
            };
            own = own.iter().flat_map(|action| gone.iter().map(move |old| called(action, old))).collect();
        }
        let moved: Vec<Self> = own.iter().flat_map(|action| action.renamed(plan, later)).collect();
        own.extend(moved);
        own.retain(|action| action.exactly(plan).is_some());
        own
    }

    /// The same action of candidates and repositories that `plan` has and `later` has no longer: they may have been renamed.
    fn renamed(&self, plan: &Plan, later: &Plan) -> Vec<Self> {
        let gone = |names: &dyn Fn(&Plan) -> Vec<String>| -> Vec<String> {
            let still = names(later);
            names(plan).into_iter().filter(|name| !still.contains(name)).collect()
        };
        let candidates = gone(&|plan| {
            plan.manifest.pipeline.candidates.iter().map(|candidate| candidate.name.value.to_string()).collect()
        });
        let repos = gone(&|plan| plan.manifest.pipeline.repos.iter().map(|repo| repo.name.value.to_string()).collect());
        let under = |all: &[Self], axis: &str, names: &[String]| -> Vec<Self> {
            let called = |action: &Self, name: &String| {
                let mut axes = action.axes.clone();
                axes.0.insert(axis.to_owned(), name.clone());
                Self { axes, ..action.clone() }
            };
            let on_it = all.iter().filter(|action| action.axes.get(axis).is_some());
            on_it.flat_map(|action| names.iter().map(move |name| called(action, name))).collect()
        };
        let own = [self.clone()];
        let mut all = under(&own, "candidate", &candidates);
        let moved = under(&own, "repo", &repos);
        all.extend(under(&moved, "candidate", &candidates));
        all.extend(moved);
        all
    }
}

fn same_axes(a: &Axes, b: &Axes) -> bool {
    a.0.len() == b.0.len()
        && a.0.iter().all(|(axis, value)| match b.get(axis) {
            Some(other) if axis == "commit" => same_commit(value, other),
            Some(other) => value == other,
            None => false,
        })
}

/// The value of an ingredient or of a limit; of what comes from upstream, how it is declared.
#[must_use]
pub fn value(plan: &Plan, node: usize, role: &str) -> Option<Value> {
    if role.starts_with("limit ") {
        return limits_shown(plan, node).remove(role);
    }
    if role == "format" {
        return None;
    }
    if role == "reading" {
        return plan.tables(node).map(|tables| Value::text(tables.digest().to_string()));
    }
    known(plan, node).get(role).cloned().or_else(|| wiring::declared(plan, node, role))
}

/// What says that an action is: its candidate, its commit's row, its step; those first that the older plan has not.
#[must_use]
pub fn places_of(plan: &Plan, node: usize, old: Option<&Plan>) -> Vec<Place> {
    let pipeline = &plan.manifest.pipeline;
    let point = &plan.nodes[node].point;
    let mut fresh = Vec::new();
    let mut rest = Vec::new();
    let mut put = |place: Place, is_new: bool| if is_new { fresh.push(place) } else { rest.push(place) };
    let old = old.map(|old| &old.manifest.pipeline);
    if let Some(candidate) = point.candidate.map(|at| &pipeline.candidates[at]) {
        let known =
            |name: &str| old.is_some_and(|old| old.candidates.iter().any(|other| other.name.value.as_str() == name));
        put(candidate.name.place, !known(candidate.name.value.as_str()));
    }
    if let Some((repo, at)) = point.commit {
        let commit = &pipeline.repos[repo].commits[at];
        let known = |id: &str| {
            old.is_some_and(|old| {
                old.repos.iter().flat_map(|repo| &repo.commits).any(|other| same_commit(&other.id.value, id))
            })
        };
        put(commit.id.place, !known(&commit.id.value));
    }
    for (axis, _) in &point.own {
        put(pipeline.axes[*axis].name.place, false);
    }
    let step = &pipeline.steps[plan.nodes[node].step];
    let known = old.is_some_and(|old| old.steps.iter().any(|other| other.name.value == step.name.value));
    put(step.name.place, !known);
    fresh.extend(rest);
    fresh
}
