//! Checks how the parts of a pipeline fit together.
//!
//! Everything here can be told from the manifest alone. Order and axes are `graph`'s, inputs are `bind`'s, holes in templates
//! `holes`'s.

use std::collections::{BTreeMap, BTreeSet};

use super::flaw::{Draft, Report, list, nearest, suggest};
use super::graph::{axes, edges, order};
use super::{
    Body, Input, InputFrom, Pipeline, Place, Spanned, Step, bind, campaign, holes, images, money, nearby, providers,
};
use crate::measure::{Kind as MetricKind, MetricSpec};
use crate::names::StepName;

/// Checks a pipeline and completes it: order, axes, inputs that `needs` alone says, what a gate takes over.
pub(super) fn all(pipeline: &mut Pipeline, report: &Report) {
    campaign::candidates(pipeline, report);
    slots(pipeline, report);
    candidates(pipeline, report);
    providers::check(pipeline, report);
    money::check(pipeline, report);
    let known = names(pipeline, report);
    if pipeline.steps.is_empty() {
        report.add(
            Draft::new("no-steps", pipeline.name.place, "the pipeline has no steps")
                .label("does nothing")
                .help("import the standard ones, `import \"steps/standard.kdl\"`, or write `step NAME uses=KIND`"),
        );
    }
    gates(pipeline, report);
    implied(pipeline, report);
    if known {
        campaign::control(pipeline, report);
    }
    if known && order(pipeline, report) {
        axes(pipeline, report);
        bind::all(&pipeline.steps, report);
    }
    held(pipeline, report);
    images::check(pipeline, report);
    holes::all(pipeline, report);
    // Only after the checks: an adapter that nobody uses is checked too.
    let used: BTreeSet<String> = pipeline.candidates.iter().map(|candidate| candidate.agent.value.clone()).collect();
    pipeline.agents.retain(|name, _| used.contains(name));
    providers::keep_used(pipeline);
}

fn slots(pipeline: &Pipeline, report: &Report) {
    let mut owners: BTreeMap<u32, &Spanned<String>> = BTreeMap::new();
    for slot in &pipeline.slots {
        let taken = slot.cores.iter().find_map(|core| owners.get(core).map(|owner| (core, *owner)));
        if let Some((core, owner)) = taken {
            report.add(
                Draft::new("overlapping-cores", slot.name.place, format!("core {core} belongs to two slots"))
                    .label("also here")
                    .other(owner.place, "first here")
                    .help(
                        "give each slot cores of its own, so that what is measured on one does not disturb the other",
                    ),
            );
        }
        for core in &slot.cores {
            owners.entry(*core).or_insert(&slot.name);
        }
    }
    for lane in &pipeline.lanes {
        if let Some(slot) = pipeline.slots.iter().find(|slot| slot.kind.value == lane.name.value) {
            report.add(
                Draft::new(
                    "duplicate-name",
                    lane.name.place,
                    format!("`{}` is a kind of slot already", lane.name.value),
                )
                .label("again here")
                .other(slot.kind.place, "first here")
                .help("rename the lane"),
            );
        }
    }
    let mut capacity: BTreeMap<&str, u32> = BTreeMap::new();
    for slot in &pipeline.slots {
        *capacity.entry(slot.kind.value.as_str()).or_default() += 1;
    }
    capacity.extend(pipeline.lanes.iter().map(|lane| (lane.name.value.as_str(), lane.width)));
    for step in &pipeline.steps {
        for hold in &step.holds {
            let kind = hold.kind.value.as_str();
            let Some(&there) = capacity.get(kind) else {
                let help = if capacity.is_empty() {
                    format!("declare it in the pipeline: slots {{ {kind} \"0\" }}")
                } else {
                    suggest(kind, capacity.keys().copied(), "slot")
                };
                report.add(
                    Draft::new("unknown-slot", hold.kind.place, format!("no slot of kind `{kind}` is declared"))
                        .label("not in `slots`")
                        .help(help),
                );
                continue;
            };
            let count = hold.count.value.fill(|_| Err::<String, ()>(())).ok().and_then(|n| n.parse::<u32>().ok());
            if let Some(count) = count.filter(|&count| count > there) {
                report.add(
                    Draft::new(
                        "too-few-slots",
                        hold.count.place,
                        format!("`{}` holds {count} of {there}", step.name.value),
                    )
                    .label(format!("only {there} of `{kind}` declared"))
                    .help("hold fewer, or declare more in `slots`"),
                );
            }
        }
    }
}

fn candidates(pipeline: &Pipeline, report: &Report) {
    for candidate in &pipeline.candidates {
        if !pipeline.agents.contains_key(&candidate.agent.value) {
            let name = &candidate.agent.value;
            let known = || pipeline.agents.keys().map(String::as_str);
            let help = match (nearby::defining("agent", name, report), nearest(name, known())) {
                (Some(file), _) => format!("its file is not imported: add `import \"{file}\"`"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => {
                    let there = if pipeline.agents.is_empty() { "" } else { &format!("; there is {}", list(known())) };
                    format!("an agent's file has to be imported, such as `import \"agents/{name}.kdl\"`{there}")
                }
            };
            report.add(
                Draft::new(
                    "unknown-agent",
                    candidate.agent.place,
                    format!("there is no agent `{}`", candidate.agent.value),
                )
                .label("not declared")
                .help(help),
            );
        }
    }
}

/// Reports unknown steps and axes; says whether there were none.
fn names(pipeline: &Pipeline, report: &Report) -> bool {
    let steps: Vec<&str> = pipeline.steps.iter().map(|step| step.name.value.as_str()).collect();
    let mut known = true;
    for step in &pipeline.steps {
        for (target, relation) in edges(step) {
            if !steps.contains(&target.value.as_str()) {
                known = false;
                report.add(
                    Draft::new("unknown-step", target.place, format!("there is no step `{}`", target.value))
                        .label(format!("`{}` {relation} it", step.name.value))
                        .help(suggest(target.value.as_str(), steps.iter().copied(), "step")),
                );
            }
        }
        let axes = || pipeline.axes.iter().map(|axis| axis.name.value.as_str()).chain(["commit", "candidate"]);
        for each in &step.each {
            if !axes().any(|axis| axis == each.value) {
                report.add(
                    Draft::new("unknown-axis", each.place, format!("there is no axis `{}`", each.value))
                        .label("not declared")
                        .help(suggest(&each.value, axes(), "axis")),
                );
            }
        }
    }
    known
}

/// What a gate takes from the step that is held against it.
fn gates(pipeline: &mut Pipeline, report: &Report) {
    for i in 0..pipeline.steps.len() {
        let Some(step) = pipeline.steps.get(i).cloned() else { continue };
        let Body::Test(measured) = &step.body else { continue };
        let Some(against) = &measured.against else { continue };
        let Some(gate) = pipeline.steps.iter_mut().find(|other| other.name.value == against.value) else { continue };
        if gate.name.value == step.name.value {
            continue;
        }
        let Body::Test(body) = &mut gate.body else {
            report.add(
                Draft::new("wrong-gate", against.place, format!("`{}` is no test", against.value))
                    .label(format!("uses `{}`", gate.kind().word()))
                    .help("`against` names the test of the base tree"),
            );
            continue;
        };
        let drift = |what: &str, place: Place| {
            report.add(
                Draft::new(
                    "drift",
                    place,
                    format!("`{}` and `{}` differ in their {what}", against.value, step.name.value),
                )
                .label(format!("of `{}`", against.value))
                .other(against.place, format!("`{}` is held against it here", step.name.value))
                .help(format!("say it in `{}` alone: the gate takes it over", step.name.value)),
            );
        };
        let holds = |step: &Step| -> Vec<String> {
            step.holds.iter().map(|hold| format!("{}={}", hold.kind.value, hold.count.value)).collect()
        };
        if let Some(first) = gate.holds.first() {
            if holds_of(&gate.holds) != holds(&step) {
                drift("slots", first.kind.place);
            }
        } else {
            gate.holds.clone_from(&step.holds);
        }
        if body.metrics.is_empty() {
            body.metrics.clone_from(&measured.metrics);
            body.metric_places.clone_from(&measured.metric_places);
        } else if body.metrics != measured.metrics {
            drift("metrics", gate.name.place);
        }
        match (&body.equal, &measured.equal) {
            (None, _) => body.equal.clone_from(&measured.equal),
            (Some(own), said) if said.as_ref().map(|said| said.value).unwrap_or_default() != own.value => {
                drift("comparison", own.place);
            }
            _ => {}
        }
        let caches = |caches: &[super::Cache]| -> Vec<(String, String)> {
            caches.iter().map(|cache| (cache.name.clone(), cache.variable.value.clone())).collect()
        };
        if let Some(first) = body.caches.first() {
            if caches(&body.caches) != caches(&measured.caches) {
                drift("caches", first.variable.place);
            }
        } else {
            body.caches.clone_from(&measured.caches);
        }
        let services = |all: &[super::Service]| all.iter().map(super::Service::signature).collect::<Vec<_>>();
        if let Some(first) = body.services.first() {
            if services(&body.services) != services(&measured.services) {
                drift("services", first.name.place);
            }
        } else {
            body.services.clone_from(&measured.services);
        }
        let argv = |run: &[Spanned<super::Template>]| run.iter().map(|arg| arg.value.clone()).collect::<Vec<_>>();
        if let Some(first) = body.run.first() {
            if argv(&body.run) != argv(&measured.run) {
                drift("argv", first.place);
            }
        } else {
            body.run.clone_from(&measured.run);
        }
        let empty = gate.env.set.is_empty() && gate.env.pass.is_empty() && gate.env.secret.is_empty();
        if empty {
            gate.env.clone_from(&step.env);
        } else if holes::env_signature(&gate.env) != holes::env_signature(&step.env) {
            drift("environment", gate.name.place);
        }
    }
}

fn holds_of(holds: &[super::Hold]) -> Vec<String> {
    holds.iter().map(|hold| format!("{}={}", hold.kind.value, hold.count.value)).collect()
}

/// A bare `needs s` of a command with one output is the input `s`; an input from a step needs that step.
fn implied(pipeline: &mut Pipeline, report: &Report) {
    let outputs: BTreeMap<StepName, Vec<String>> = pipeline
        .steps
        .iter()
        .filter_map(|step| match &step.body {
            Body::Command(command) => {
                let names = command.outputs.iter().map(|output| output.name.value.clone()).collect();
                Some((step.name.value.clone(), names))
            }
            _ => None,
        })
        .collect();
    for step in &mut pipeline.steps {
        let Body::Command(command) = &mut step.body else { continue };
        let mut read: Vec<Spanned<StepName>> = Vec::new();
        for input in &command.inputs {
            let InputFrom::Output { step: from, output } = &input.from else { continue };
            read.push(from.clone());
            let names = outputs.get(&from.value).map(Vec::as_slice).unwrap_or_default();
            if !names.iter().any(|name| name == output) {
                report.add(
                    Draft::new("unknown-output", from.place, format!("step `{}` has no output `{output}`", from.value))
                        .label("not one of its outputs")
                        .help(suggest(output, names.iter().map(String::as_str), "output of a command")),
                );
            }
        }
        for need in &step.needs {
            // Steps that are no commands are `bind`'s to refuse.
            let Some(names) = outputs.get(&need.value) else { continue };
            if read.iter().any(|from| from.value == need.value) {
                continue;
            }
            let name = need.value.as_str();
            match names.as_slice() {
                [one] if command.inputs.iter().any(|input| input.name.value == name) => report.add(
                    Draft::new("ambiguous-input", need.place, format!("`{{in.{name}}}` would be two things"))
                        .label(format!("output `{one}` of the step, and an input of that name"))
                        .help(format!("write `input other from={name}.{one}`")),
                ),
                [one] => command.inputs.push(Input {
                    name: Spanned { value: name.to_owned(), place: need.place },
                    from: InputFrom::Output { step: need.clone(), output: one.clone() },
                }),
                [] => report.add(
                    Draft::new("no-output", need.place, format!("step `{name}` has no output to read"))
                        .label("nothing to need")
                        .help("for order alone write `after`"),
                ),
                several => report.add(
                    Draft::new("ambiguous-input", need.place, format!("which output of `{name}` is needed?"))
                        .label(format!("it has {}", list(several.iter().map(String::as_str))))
                        .help(format!("say it: input x from={name}.{}", several.first().map_or("", String::as_str))),
                ),
            }
        }
        for from in read {
            if !step.needs.iter().any(|need| need.value == from.value) {
                step.needs.push(from);
            }
        }
    }
}

/// A test that measures time must hold a slot.
fn held(pipeline: &Pipeline, report: &Report) {
    let timed =
        |metrics: &[MetricSpec]| metrics.is_empty() || metrics.iter().any(|metric| metric.kind == MetricKind::Time);
    let tests = || pipeline.repos.iter().flat_map(|repo| &repo.tests);
    let gates: BTreeSet<&StepName> = pipeline
        .steps
        .iter()
        .filter_map(|step| match &step.body {
            Body::Test(test) => test.against.as_ref().map(|against| &against.value),
            _ => None,
        })
        .collect();
    for step in &pipeline.steps {
        let Body::Test(test) = &step.body else { continue };
        let measures =
            if test.metrics.is_empty() { tests().any(|tests| timed(&tests.metrics)) } else { timed(&test.metrics) };
        let slot = |kind: &str| pipeline.slots.iter().any(|slot| slot.kind.value.as_str() == kind);
        let holds = step.holds.iter().any(|hold| slot(hold.kind.value.as_str()));
        // A gate takes its slots from the step that names it: one flaw is enough.
        if measures && !holds && !gates.contains(&step.name.value) {
            let kind = pipeline.slots.first().map_or("cpu", |slot| slot.kind.value.as_str());
            let declare = if pipeline.slots.is_empty() { "declare `slots { cpu \"a\" }` and add" } else { "add" };
            let name = &step.name.value;
            report.add(
                Draft::new("unheld-time", step.name.place, format!("`{name}` measures time and holds no slot"))
                    .label("would run beside anything")
                    .help(format!("{declare} `step {name} {{ holds {kind}=1 }}` to the pipeline")),
            );
        }
    }
    let scripted = |step: &&Step| matches!(&step.body, Body::Test(test) if test.run.is_empty());
    if let Some(step) = pipeline.steps.iter().find(scripted) {
        for repo in pipeline.repos.iter().filter(|repo| repo.tests.is_empty()) {
            report.add(
                Draft::new("no-tests", repo.name.place, format!("`{}` has no `tests`", repo.name.value))
                    .label(format!("step `{}` has nothing to run", step.name.value))
                    .help("add one: tests dir=\"tests\" name=\"{commit.id8}.py\""),
            );
        }
    }
}
