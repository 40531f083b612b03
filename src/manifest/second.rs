//! Second sessions: the steps that measure again what others found, made of the steps that ask for them.
//!
//! Knows nothing of what was measured: whether there is anything to measure again is said when it is run.

use super::flaw::{Draft, Report};
use super::{Body, Spanned, Step, TestBody};
use crate::names::StepName;

/// What the name of a second session ends with.
const AGAIN: &str = "-again";

/// Adds the step that measures again, behind each one that asks for it, and lets the classes that speak of the one speak of both.
pub(super) fn second_sessions(steps: Vec<Step>, report: &Report) -> Vec<Step> {
    let mut all: Vec<Step> = Vec::with_capacity(steps.len());
    let mut added: Vec<(Spanned<StepName>, Spanned<StepName>)> = Vec::new();
    for step in &steps {
        all.push(step.clone());
        let Body::Test(body) = &step.body else { continue };
        let Some(place) = body.second else { continue };
        let name = StepName::new(format!("{}{AGAIN}", step.name.value));
        if let Some(taken) = steps.iter().find(|other| other.name.value == name) {
            report.add(
                Draft::new("taken-name", taken.name.place, format!("the second session is the step `{name}`"))
                    .label("has this name too")
                    .other(place, "asked for here")
                    .help("choose another name"),
            );
            continue;
        }
        let patches = |need: &Spanned<StepName>| {
            steps.iter().any(|up| up.name.value == need.value && matches!(up.body, Body::Patch(_)))
        };
        if body.aa || !step.needs.iter().any(patches) {
            report.add(
                Draft::new("no-second-session", place, format!("`{}` tests no patch", step.name.value))
                    .label("has no verdict to measure again")
                    .help("say it on the step that tests the patched tree"),
            );
            continue;
        }
        let name = Spanned { value: name, place };
        let again = TestBody { second: None, again: Some(step.name.clone()), ..(**body).clone() };
        all.push(Step { name: name.clone(), body: Body::Test(Box::new(again)), ..step.clone() });
        added.push((step.name.clone(), name));
    }
    for step in all.iter_mut().filter(|step| matches!(step.body, Body::Classify(_))) {
        for (first, again) in &added {
            if step.needs.iter().any(|need| need.value == first.value) {
                step.needs.push(again.clone());
            }
        }
    }
    all
}
