//! The graph of steps: what refers to what, its order, its cycles, and the axes that follow from it.
//!
//! Assumes nothing but steps that were built; whether inputs fit is `bind`'s.

use std::collections::{BTreeMap, BTreeSet};

use super::flaw::{Draft, Report};
use super::{Body, InputFrom, Kind, Pipeline, Place, Spanned, Step, holes};
use crate::names::StepName;

/// The steps that a step refers to, and how.
pub(super) fn edges(step: &Step) -> Vec<(&Spanned<StepName>, &'static str)> {
    let mut edges: Vec<(&Spanned<StepName>, &'static str)> = step.needs.iter().map(|name| (name, "needs")).collect();
    edges.extend(step.after.iter().map(|name| (name, "runs after")));
    match &step.body {
        Body::Test(test) => {
            edges.extend(test.against.iter().map(|name| (name, "is held against")));
            edges.extend(test.again.iter().map(|name| (name, "measures again")));
            edges.extend(test.human_build.iter().map(|name| (name, "runs the human's tree in")));
        }
        Body::Environment(body) => edges.extend(body.base.iter().map(|name| (name, "is rebuilt like"))),
        Body::Command(command) => edges.extend(command.inputs.iter().filter_map(|input| match &input.from {
            InputFrom::Output { step, .. } => Some((step, "reads")),
            InputFrom::File(..) => None,
        })),
        _ => {}
    }
    edges
}

/// Sorts the steps, each after what it refers to, else as declared. Reports cycles and says whether there were none.
pub(super) fn order(pipeline: &mut Pipeline, report: &Report) -> bool {
    let index: BTreeMap<StepName, usize> =
        pipeline.steps.iter().enumerate().map(|(i, step)| (step.name.value.clone(), i)).collect();
    let graph: Vec<Vec<(usize, Place)>> = pipeline
        .steps
        .iter()
        .map(|step| {
            edges(step).into_iter().filter_map(|(name, _)| Some((*index.get(&name.value)?, name.place))).collect()
        })
        .collect();
    let mut sorted: Vec<usize> = Vec::new();
    let mut placed: BTreeSet<usize> = BTreeSet::new();
    while sorted.len() < graph.len() {
        let ready = |i: &usize| {
            !placed.contains(i) && graph.get(*i).is_some_and(|edges| edges.iter().all(|(to, _)| placed.contains(to)))
        };
        let Some(next) = (0..graph.len()).find(ready) else { break };
        sorted.push(next);
        placed.insert(next);
    }
    if sorted.len() < graph.len() {
        cycles(pipeline, &graph, &placed, report);
        return false;
    }
    let mut steps: Vec<Option<Step>> = std::mem::take(&mut pipeline.steps).into_iter().map(Some).collect();
    pipeline.steps = sorted.into_iter().filter_map(|i| steps.get_mut(i)?.take()).collect();
    true
}

/// Reports each cycle among the steps that could not be placed, once.
fn cycles(pipeline: &Pipeline, graph: &[Vec<(usize, Place)>], placed: &BTreeSet<usize>, report: &Report) {
    let mut told: BTreeSet<usize> = placed.clone();
    for start in 0..graph.len() {
        if told.contains(&start) {
            continue;
        }
        // Every step left refers to a step left, so walking on must come back to one seen.
        let mut path: Vec<(usize, Place)> = Vec::new();
        let mut at = start;
        loop {
            if let Some(first) = path.iter().position(|(i, _)| *i == at) {
                let cycle = path.get(first..).unwrap_or_default();
                let name = |i: usize| pipeline.steps.get(i).map_or("", |step| step.name.value.as_str());
                let mut names: Vec<&str> = cycle.iter().map(|(i, _)| name(*i)).collect();
                names.push(name(at));
                if let Some((_, place)) = cycle.last() {
                    report.add(
                        Draft::new("cycle", *place, format!("these steps wait for each other: {}", names.join(" -> ")))
                            .label("closes the cycle")
                            .help("leave one of these `needs`, `after` or `against` out"),
                    );
                }
                break;
            }
            let next = graph.get(at).and_then(|edges| edges.iter().find(|(to, _)| !placed.contains(to)));
            let Some((to, place)) = next else { break };
            path.push((at, *place));
            at = *to;
            if told.contains(&at) {
                break;
            }
        }
        told.extend(path.iter().map(|(i, _)| *i));
    }
}

/// Derives the axes of the steps, which are in order.
pub(super) fn axes(pipeline: &mut Pipeline, report: &Report) {
    let own: Vec<String> = pipeline.axes.iter().map(|axis| axis.name.value.clone()).collect();
    let mut derived: BTreeMap<StepName, BTreeSet<String>> = BTreeMap::new();
    for step in &pipeline.steps {
        let mut set: BTreeSet<String> = BTreeSet::new();
        let mut words: Vec<String> = holes::of_step(step);
        words.extend(step.each.iter().map(|each| each.value.clone()));
        words.push(match step.kind() {
            Kind::Checkout | Kind::Test | Kind::Patch | Kind::Classify => "commit".into(),
            Kind::Agent => "candidate".into(),
            Kind::Environment | Kind::Command => String::new(),
        });
        if step.kind() == Kind::Agent {
            words.push("commit".into());
        }
        for word in words {
            let head = word.split('.').next().unwrap_or_default();
            match head {
                "commit" | "repo" => set.extend(["repo".into(), "commit".into()]),
                "candidate" | "sample" => set.extend(["candidate".into(), "sample".into()]),
                axis if own.iter().any(|own| own == axis) => drop(set.insert(axis.to_owned())),
                _ => {}
            }
        }
        for need in &step.needs {
            set.extend(derived.get(&need.value).into_iter().flatten().cloned());
        }
        derived.insert(step.name.value.clone(), set);
    }
    let order = ["repo", "commit", "candidate", "sample"].map(str::to_owned);
    let order: Vec<String> = order.into_iter().chain(own).collect();
    for step in &mut pipeline.steps {
        let set = derived.get(&step.name.value).cloned().unwrap_or_default();
        for (target, relation) in edges(step) {
            let more = derived.get(&target.value).into_iter().flatten();
            let more: Vec<&str> = more.filter(|axis| !set.contains(*axis)).map(String::as_str).collect();
            if !more.is_empty() {
                let (name, other) = (&step.name.value, &target.value);
                report.add(
                    Draft::new(
                        "fewer-axes",
                        target.place,
                        format!("`{name}` {relation} `{other}`, which has more axes"),
                    )
                    .label(format!("there is one for each {}, but only one `{name}`", more.join(" and ")))
                    .help(format!("let `{name}` go over them too: each {}", more.first().copied().unwrap_or("NAME"))),
                );
            }
        }
        step.axes = order.iter().filter(|axis| set.contains(*axis)).cloned().collect();
    }
    let lacks = |axis: &str, there: bool, what: &str, help: &str| {
        let first = pipeline.steps.iter().find(|step| step.axes.iter().any(|has| has == axis));
        if let Some(step) = first.filter(|_| !there) {
            report.add(
                Draft::new("no-values", step.name.place, format!("the pipeline has no {what}"))
                    .label(format!("goes over each {axis}"))
                    .help(help),
            );
        }
    };
    lacks("commit", !pipeline.repos.is_empty(), "`repo`", "add one: repo NAME \"url or path\" { commits … }");
    lacks("candidate", !pipeline.candidates.is_empty(), "`candidate`", "add one: candidate nop agent=nop");
}
