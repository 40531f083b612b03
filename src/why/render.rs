//! Forecasts as text and as JSON.

use std::collections::BTreeMap;

use serde_json::json;

use crate::key::{Change, Value};
use crate::plan::Plan;
use crate::text::Table;
use crate::why::forecast::{Forecast, State};

/// A plan as one JSON document on one line.
#[must_use]
pub fn plan_json(plan: &Plan, forecasts: &[Forecast]) -> String {
    let actions: Vec<serde_json::Value> = forecasts
        .iter()
        .map(|said| {
            let mut action = json!({
                "axes": plan.nodes[said.node].axes,
                "step": plan.step(said.node).name.value,
                "state": said.state.word(),
                "changes": said.changes,
            });
            if let Some(key) = said.key {
                action["key"] = json!(key);
            }
            if let Some(because) = &said.because {
                action["because"] = json!(because);
            }
            action
        })
        .collect();
    let execute = forecasts.iter().filter(|said| said.state.executes()).count();
    json!({
        "pipeline": plan.manifest.pipeline.name.value,
        "actions": actions,
        "execute": execute,
        "reuse": 0,
        "cost_usd": {"known": 0.0, "unknown_attempts": execute, "because": ["flow keeps no prices yet"]},
        "wall_s": null,
    })
    .to_string()
}

/// A plan as text: how many actions of each step would run, then each that has a reason of its own.
#[must_use]
pub fn plan_text(plan: &Plan, forecasts: &[Forecast], all: bool) -> String {
    let mut text = String::new();
    let states = [
        State::Hit,
        State::New,
        State::Changed,
        State::Follows,
        State::Retry,
        State::Skipped,
        State::Blocked,
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
    text.push_str(&table.text());
    let listed: Vec<&Forecast> = forecasts
        .iter()
        .filter(|said| {
            all || matches!(said.state, State::Changed | State::Retry | State::Exhausted)
                || said.because.as_ref().is_some_and(|_| said.state == State::New)
        })
        .collect();
    if !listed.is_empty() {
        text.push('\n');
    }
    for said in &listed {
        text.push_str(&format!("{}  {}\n", plan.title(said.node), said.state.word()));
        for change in &said.changes {
            text.push_str(&format!("    {}\n", change_text(change)));
        }
        if let Some(because) = &said.because {
            text.push_str(&format!("    {because}\n"));
        }
        if said.state == State::Follows {
            let ups: Vec<&str> = said.follows.iter().map(|up| plan.step(*up).name.value.as_str()).collect();
            text.push_str(&format!("    follows {}\n", ups.join(", ")));
        }
    }
    let execute = forecasts.iter().filter(|said| said.state.executes()).count();
    let follows = forecasts.iter().filter(|said| said.state == State::Follows).count();
    text.push_str(&match (execute, follows) {
        (0, _) => "\nnothing would be executed\n".to_owned(),
        (_, 0) => format!("\n{execute} of {} actions would be executed\n", forecasts.len()),
        _ => format!(
            "\n{execute} of {} actions would be executed; {follows} of them only follow, and are served after all if what \
             they read comes out the same\n",
            forecasts.len()
        ),
    });
    text
}

/// A change on one line: `script: sha256:1a2b… -> sha256:3c4d…`.
#[must_use]
pub fn change_text(change: &Change) -> String {
    let side = |value: &Option<Value>| value.as_ref().map_or_else(|| "(none)".to_owned(), one_line);
    format!("{}: {} -> {}", change.ingredient, side(&change.old), side(&change.new))
}

fn one_line(value: &Value) -> String {
    let text = value.to_string().replace('\n', " | ");
    if text.chars().count() <= 100 {
        return text;
    }
    let mut cut: String = text.chars().take(99).collect();
    cut.push('…');
    cut
}
