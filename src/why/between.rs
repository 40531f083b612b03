//! Two versions of a manifest compared: which actions would have other keys, by the ingredients that are known before anything runs.
//!
//! Needs no run, no store and no tool. What an action reads from others is not known here: it is said to follow them.

use std::cell::RefCell;
use std::collections::HashMap;

use jiff::Timestamp;

use crate::key::Change;
use crate::manifest::Kind;
use crate::plan::{Plan, point_name};
use crate::run::decide::limits_shown;
use crate::step::{known, read_by};
use crate::why::action::Action;
use crate::why::change::{Blobs, Shown};
use crate::why::explain::{Explanation, JobSaid, StepSaid, cause_of, roots};
use crate::why::known;
use crate::why::origin::{Traced, Tracer};

/// What became of an action from one version to the other.
#[derive(Clone, Debug, Default)]
pub struct Differs {
    /// Its number in the older plan.
    pub old: Option<usize>,
    /// Ingredients of its own, the first to blame first.
    pub changes: Vec<Change>,
    /// Limits that are others: they are in no key.
    pub limits: Vec<Change>,
    /// Actions upstream that differ.
    pub follows: Vec<usize>,
}

impl Differs {
    /// Whether its key is another, or may be.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.old.is_none() || !self.changes.is_empty() || !self.follows.is_empty()
    }

    /// Whether it has a reason of its own.
    #[must_use]
    pub fn is_root(&self) -> bool {
        !self.changes.is_empty() || self.old.is_none() && self.follows.is_empty()
    }

    /// What it is, in the words of a plan.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self { old: None, .. } => "new",
            _ if !self.changes.is_empty() => "changed",
            _ if !self.follows.is_empty() => "follows",
            _ => "same",
        }
    }
}

/// Compares every action of a plan with an older one.
#[must_use]
pub fn compare(old: &Plan, new: &Plan) -> Vec<Differs> {
    let mut at_point: HashMap<(Kind, String), Vec<usize>> = HashMap::new();
    for node in 0..old.nodes.len() {
        at_point.entry((old.kind(node), point_name(&old.nodes[node].axes))).or_default().push(node);
    }
    let gone = candidates_only_in(old, new);
    let mut all: Vec<Differs> = Vec::with_capacity(new.nodes.len());
    for node in 0..new.nodes.len() {
        let find = |axes: &crate::names::Axes| {
            let nodes = at_point.get(&(new.kind(node), point_name(axes)))?;
            let named = nodes.iter().find(|other| old.step(**other).name.value == new.step(node).name.value);
            named.or(nodes.first().filter(|_| nodes.len() == 1)).copied()
        };
        let axes = &new.nodes[node].axes;
        let record = known(new, node);
        let mut differs = Differs { old: find(axes), ..Differs::default() };
        if differs.old.is_none() && axes.get("candidate").is_some() {
            // A candidate under another name.
            let renamed = gone.iter().filter_map(|name| {
                let mut axes = axes.clone();
                axes.0.insert("candidate".to_owned(), name.clone());
                find(&axes)
            });
            differs.old = renamed.min_by_key(|other| record.changes_since(&known(old, *other)).len());
        }
        if let Some(other) = differs.old {
            differs.changes = record.changes_since(&known(old, other));
            let (was, is) = (limits_shown(old, other), limits_shown(new, node));
            let mut names: Vec<&String> = was.keys().chain(is.keys()).collect();
            names.sort();
            names.dedup();
            for name in names.into_iter().filter(|name| was.get(*name) != is.get(*name)) {
                let (old, new) = (was.get(name).cloned(), is.get(name).cloned());
                differs.limits.push(Change { ingredient: name.clone(), old, new });
            }
        }
        // Who is linked to an action and has nothing of it in its key, does not follow it.
        let read = read_by(new, node).into_iter();
        differs.follows = read.filter(|up| all.get(*up).is_some_and(Differs::is_touched)).collect();
        differs.follows.sort_unstable();
        differs.follows.dedup();
        all.push(differs);
    }
    all
}

fn candidates_only_in(plan: &Plan, other: &Plan) -> Vec<String> {
    let names = |plan: &Plan| -> Vec<String> {
        plan.manifest.pipeline.candidates.iter().map(|candidate| candidate.name.value.to_string()).collect()
    };
    let still = names(other);
    names(plan).into_iter().filter(|name| !still.contains(name)).collect()
}

/// Lines of a difference that are told at most; and the time from which ages are counted, if it is told what keys hold.
type Terms = (usize, Option<Timestamp>);

/// Explains jobs of the newer plan by what differs. `names` are those of the two versions, the older first.
#[must_use]
pub fn explain(
    (old, new): (&Plan, &Plan),
    names: [String; 2],
    jobs: &[usize],
    blobs: &Blobs<'_>,
    terms: Terms,
    tracer: Option<&RefCell<Tracer>>,
) -> Explanation {
    let all = compare(old, new);
    let mut said_of: HashMap<usize, StepSaid> = HashMap::new();
    let mut jobs_said = Vec::new();
    for job in jobs {
        let job = &new.jobs[*job];
        let steps = job.nodes.iter().map(|node| {
            let said = said_of.entry(*node).or_insert_with(|| step((old, new), *node, &all, blobs, terms, tracer));
            said.clone()
        });
        jobs_said.push(JobSaid { job: job.id.clone(), axes: job.axes.clone(), steps: steps.collect() });
    }
    let (roots, root_steps) = roots(said_of.values());
    Explanation {
        pipeline: new.manifest.pipeline.name.value.clone(),
        manifest: new.manifest.files.first().map_or_else(String::new, |file| file.name.clone()),
        run: None,
        between: Some(names),
        jobs: jobs_said,
        roots,
        root_steps,
        consequences: said_of.keys().filter(|node| all[**node].is_touched() && !all[**node].is_root()).count(),
        estimate: None,
        comes_to: String::new(),
    }
}

fn step(
    (_, new): (&Plan, &Plan),
    node: usize,
    all: &[Differs],
    blobs: &Blobs<'_>,
    terms: Terms,
    tracer: Option<&RefCell<Tracer>>,
) -> StepSaid {
    let differs = &all[node];
    let mut said = StepSaid::new(new.step(node).name.value.as_str(), &new.nodes[node].axes, differs.state());
    said.root = differs.is_root();
    said.cause = cause_of(differs.state(), &differs.changes, None);
    said.follows = differs.follows.iter().map(|up| new.title(*up)).collect();
    let action = Action::of(new, node);
    let trace = |change: &Change| {
        let shown = Shown::of(change, blobs, terms.0);
        match tracer {
            Some(tracer) => shown.traced(tracer.borrow_mut().change(&action, change, None)),
            None => shown,
        }
    };
    said.changes = differs.changes.iter().map(trace).collect();
    if !differs.limits.is_empty() {
        said.changes.extend(differs.limits.iter().map(trace));
        said.because = Some("a limit is in no key: only what had met it would run again".to_owned());
    }
    said.known = terms.1.map(|now| known::known(new, node, Some(&known(new, node)), now));
    if differs.old.is_none() && said.root {
        if let Some(Traced::To(origin)) = tracer.map(|tracer| tracer.borrow_mut().action(&action)) {
            said.origin = Some(origin);
        }
        said.because = Some("it is not in the older version".to_owned());
    }
    said
}
