//! A plan's forecasts as text and as JSON: how many actions of each step would run, and for which causes.

use std::collections::BTreeMap;

use serde_json::json;

use crate::manifest::goals_line;
use crate::plan::{Missing, Plan};
use crate::run::prepare::FETCHES;
use crate::text::{Table, counted, wrap};
use crate::why::causes::{Brought, Who};
use crate::why::change::Shown;
use crate::why::estimate::Estimate;
use crate::why::explain::{Group, groups};
use crate::why::forecast::{Forecast, State};
use crate::why::text::{change_lines, printable};

/// Examples of actions that are named for a cause.
const EXAMPLES: usize = 3;
/// Different things that a machine lacks and that are named.
const LACKING: usize = 20;

/// A plan as one JSON document. `lacking` is what the machine lacks beside what the actions say themselves.
#[must_use]
pub fn json(plan: &Plan, forecasts: &[Forecast], lacking: &[Missing], estimate: &Estimate) -> serde_json::Value {
    let actions: Vec<serde_json::Value> = forecasts
        .iter()
        .map(|said| {
            let mut action = json!({
                "axes": plan.nodes[said.node].axes,
                "step": plan.step(said.node).name.value,
                "state": said.state.word(),
                "changes": said.changes.iter().map(Shown::plain).collect::<Vec<_>>(),
                "root": said.is_root(),
            });
            if let Some(key) = said.key {
                action["key"] = json!(key);
            }
            if let Some(because) = &said.because {
                action["because"] = json!(because);
            }
            if let Some(with) = said.shares {
                action["shared_with"] = json!(plan.title(with));
            }
            action
        })
        .collect();
    let lacking = missing(plan, forecasts, lacking);
    let execute = executed(forecasts);
    let goals: Vec<serde_json::Value> = plan
        .manifest
        .pipeline
        .goals
        .iter()
        .map(|goal| {
            let goal = &goal.value;
            json!({"level": goal.level.word(), "rate": goal.rate.word(), "least": goal.least})
        })
        .collect();
    let mut document = json!({
        "pipeline": plan.manifest.pipeline.name.value,
        "actions": actions,
        "execute": execute,
        "reuse": forecasts.iter().filter(|said| said.state == State::Reused).count(),
        "missing": lacking.iter().map(|lacks| json!({"what": lacks.what, "hint": lacks.hint})).collect::<Vec<_>>(),
        "goals": goals,
    });
    estimate.add_to(&mut document);
    document
}

/// A plan as text: how many actions of each step would run, then the causes, of which `who` says who brought them; with `all`, every action.
#[must_use]
pub fn text(
    plan: &Plan,
    forecasts: &[Forecast],
    lacking: &[Missing],
    estimate: &Estimate,
    all: bool,
    who: Who<'_>,
) -> String {
    let mut text = table(plan, forecasts);
    let said: Vec<&Forecast> = forecasts.iter().collect();
    let groups = groups(&said);
    let parts: Vec<Vec<Brought>> = groups.iter().map(|group| who(&group.members)).collect();
    let roots = parts.iter().map(Vec::len).sum();
    if all {
        text.push('\n');
        for said in forecasts {
            text.push_str(&each(plan, said));
        }
    } else {
        for (group, part) in
            groups.iter().zip(&parts).flat_map(|(group, parts)| parts.iter().map(move |part| (group, part)))
        {
            text.push('\n');
            text.push_str(&cause(plan, group, part));
        }
        for (state, because, members) in left_out(&said) {
            text.push('\n');
            let what = format!("{}: {because}", state.word());
            text.push_str(&paragraph(plan, &[what], &members));
        }
    }
    text.push_str(&closing(plan, forecasts, roots, lacking, estimate));
    text
}

/// What a plan comes to as a whole, and what stands in its way: the same however its actions are grouped. `roots` is how many causes
/// there are.
#[must_use]
pub fn closing(plan: &Plan, forecasts: &[Forecast], roots: usize, lacking: &[Missing], estimate: &Estimate) -> String {
    let mut text = String::new();
    let (done, lacking): (Vec<&Missing>, _) =
        missing(plan, forecasts, lacking).into_iter().partition(|lacks| lacks.hint.starts_with(FETCHES));
    if !done.is_empty() {
        text.push_str("\nnot here yet, so that what needs it cannot be told; a run begins with that:\n");
        for lacks in done {
            text.push_str(&format!("    {}\n", printable(&lacks.what)));
            for line in wrap(&printable(&lacks.hint), 72) {
                text.push_str(&format!("        {line}\n"));
            }
        }
    }
    if !lacking.is_empty() {
        text.push_str("\nthis machine lacks, and a run would not start without:\n");
        for lacks in lacking.iter().take(LACKING) {
            // On one line however long it is: it names a path, which a person copies.
            text.push_str(&format!("    {}\n", printable(&lacks.what)));
            for line in wrap(&printable(&lacks.hint), 72) {
                text.push_str(&format!("        {line}\n"));
            }
        }
        if lacking.len() > LACKING {
            text.push_str(&format!("    and {} more\n", lacking.len() - LACKING));
        }
    }
    text.push('\n');
    if let Some(goals) = goals_line(&plan.manifest.pipeline) {
        for line in wrap(&goals, 78) {
            text.push_str(&format!("{line}\n"));
        }
    }
    text.push_str(&summary(plan, forecasts, roots));
    text.push_str(&estimate.text());
    text
}

fn table(plan: &Plan, forecasts: &[Forecast]) -> String {
    let states = [
        State::Hit,
        State::Reused,
        State::New,
        State::Changed,
        State::Follows,
        State::Retry,
        State::Skipped,
        State::Blocked,
        State::Reopened,
        State::Exhausted,
    ];
    let mut counts: BTreeMap<usize, BTreeMap<State, usize>> = BTreeMap::new();
    for said in forecasts {
        *counts.entry(plan.nodes[said.node].step).or_default().entry(said.state).or_default() += 1;
    }
    let shown: Vec<State> =
        states.into_iter().filter(|state| counts.values().any(|by_state| by_state.contains_key(state))).collect();
    let mut heading = vec!["step"];
    heading.extend(shown.iter().map(|state| state.word()));
    let mut table = Table::new(&heading);
    for (step, by_state) in &counts {
        let mut row = vec![plan.manifest.pipeline.steps[*step].name.value.to_string()];
        row.extend(shown.iter().map(|state| by_state.get(state).map_or_else(|| ".".to_owned(), ToString::to_string)));
        table.row(row);
    }
    table.text()
}

/// A cause and the actions it touches, the first change to blame first.
fn cause(plan: &Plan, group: &Group<'_>, part: &Brought) -> String {
    let mut lines: Vec<String> =
        group.changes.iter().flat_map(|change| change_lines(&Shown::plain(change), 78)).collect();
    match (&group.because, group.state) {
        (Some(because), _) => lines.push(format!("{}: {because}", group.state.word())),
        (None, State::New) => lines.push("new: nothing like it was run before".to_owned()),
        (None, _) => {}
    }
    if group.changes.iter().any(|change| change.ingredient.starts_with("limit ")) {
        lines.push("(the attempt had met the old limit)".to_owned());
    }
    lines.extend(part.lines.iter().cloned());
    let members: Vec<&Forecast> = part.members.iter().map(|at| group.members[*at]).collect();
    paragraph(plan, &lines, &members)
}

fn paragraph(plan: &Plan, lines: &[String], members: &[&Forecast]) -> String {
    let mut text = String::new();
    for line in lines.iter().flat_map(|line| wrap(&printable(line), 80)) {
        text.push_str(&format!("{line}\n"));
    }
    let mut by_step: BTreeMap<usize, usize> = BTreeMap::new();
    for said in members {
        *by_step.entry(plan.nodes[said.node].step).or_default() += 1;
    }
    let steps = &plan.manifest.pipeline.steps;
    let counted: Vec<String> =
        by_step.iter().map(|(step, count)| format!("{count} {}", steps[*step].name.value)).collect();
    let mut examples: Vec<String> = members.iter().take(EXAMPLES).map(|said| plan.title(said.node)).collect();
    if members.len() > EXAMPLES {
        examples.push("…".into());
    }
    for line in wrap(&format!("{}: {}", counted.join(", "), examples.join(", ")), 76) {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// What is not executed and not served, by why.
fn left_out<'a>(forecasts: &[&'a Forecast]) -> Vec<(State, String, Vec<&'a Forecast>)> {
    let mut found: Vec<(State, String, Vec<&'a Forecast>)> = Vec::new();
    for said in forecasts.iter().filter(|said| matches!(said.state, State::Reopened | State::Exhausted | State::Reused))
    {
        let because = said.because.clone().unwrap_or_default();
        match found.iter_mut().find(|(state, known, _)| *state == said.state && *known == because) {
            Some((.., members)) => members.push(said),
            None => found.push((said.state, because, vec![said])),
        }
    }
    found
}

fn each(plan: &Plan, said: &Forecast) -> String {
    let mut text = format!("{}  {}\n", plan.title(said.node), said.state.word());
    let mut line = |line: &str| text.push_str(&format!("    {line}\n"));
    for change in &said.changes {
        change_lines(&Shown::plain(change), 76).iter().for_each(|said| line(said));
    }
    if let Some(because) = &said.because {
        wrap(&printable(because), 76).iter().for_each(|said| line(said));
    }
    if let Some(with) = said.shares {
        line(&format!("has the key of {}", plan.title(with)));
    }
    if !said.is_root() && !said.follows.is_empty() {
        let ups: Vec<&str> = said.follows.iter().map(|up| plan.step(*up).name.value.as_str()).collect();
        line(&format!("follows {}", ups.join(", ")));
    }
    text
}

fn summary(plan: &Plan, forecasts: &[Forecast], roots: usize) -> String {
    let execute = executed(forecasts);
    if execute == 0 {
        return "nothing would be executed\n".to_owned();
    }
    let said: Vec<&Forecast> = forecasts.iter().collect();
    let consequences = said.iter().filter(|said| said.state.executes() && !said.is_root()).count();
    let roots = counted(roots, "root");
    // A root is a cause; how many actions it sets going by itself is said where that is not one.
    let roots = match execute - consequences {
        1 => roots,
        begun => format!("{roots} of {begun} actions"),
    };
    let mut text = format!(
        "{roots}, {}: {execute} of {} actions would be executed\n",
        counted(consequences, "consequence"),
        forecasts.len()
    );
    if said.iter().any(|said| said.state == State::Follows) {
        text.push_str("what only follows is served after all if what it reads comes out the same\n");
    }
    let path = critical_path(plan, forecasts);
    if path.len() > 1 {
        let path = format!("critical path: {}", path.join(" -> "));
        text.push_str(&format!("{}\n", wrap(&path, 76).join("\n    ")));
    }
    text
}

fn executed(forecasts: &[Forecast]) -> usize {
    forecasts.iter().filter(|said| said.state.executes()).count()
}

/// The steps of the longest chain of actions that would be executed, by expected seconds.
fn critical_path(plan: &Plan, forecasts: &[Forecast]) -> Vec<String> {
    let mut heights: Vec<Option<f64>> = vec![None; plan.nodes.len()];
    let tallest = |heights: &[Option<f64>], nodes: &[usize]| {
        let known = nodes.iter().filter_map(|node| heights[*node].map(|height| (*node, height)));
        known.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    };
    // An action comes after all that it reads, so that backwards those that read it are known.
    for said in forecasts.iter().rev().filter(|said| said.state.executes()) {
        let dependents = &plan.dependents[said.node];
        let beyond = dependents.iter().map(|node| plan.nodes[*node].height).fold(0.0, f64::max);
        let own = plan.nodes[said.node].height - beyond;
        heights[said.node] = Some(own + tallest(&heights, dependents).map_or(0.0, |(_, height)| height));
    }
    let all: Vec<usize> = forecasts.iter().map(|said| said.node).collect();
    let mut path = Vec::new();
    let mut next = tallest(&heights, &all);
    while let Some((node, _)) = next {
        path.push(plan.step(node).name.value.to_string());
        next = tallest(&heights, &plan.dependents[node]);
    }
    path
}

/// What the machine lacks and a run does not fetch itself, each once: a run would not start without.
#[must_use]
pub fn refusals<'a>(plan: &'a Plan, forecasts: &[Forecast], beside: &'a [Missing]) -> Vec<&'a Missing> {
    let mut lacking = missing(plan, forecasts, beside);
    lacking.retain(|lacks| !lacks.hint.starts_with(FETCHES));
    lacking
}

/// What the machine lacks, each once.
fn missing<'a>(plan: &'a Plan, forecasts: &[Forecast], beside: &'a [Missing]) -> Vec<&'a Missing> {
    let own = forecasts.iter().flat_map(|said| &plan.nodes[said.node].missing);
    Missing::distinct(own.filter(|lacks| lacks.fatal).chain(beside))
}
