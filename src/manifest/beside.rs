//! The builds of human trees: steps that are made for the tests that measure the human's tree beside the patched one, where patched
//! trees are built by a recipe. In the base's build the human's change to native code would not be there.

use super::flaw::{Draft, Report};
use super::{Body, EnvironmentBody, Spanned, Step};
use crate::names::StepName;

/// What the name of such a step ends with.
const HUMAN: &str = "-human";

/// Adds the step that builds the human's tree behind each one that builds patched trees for a test that says `with human`.
pub(super) fn human_builds(mut steps: Vec<Step>, report: &Report) -> Vec<Step> {
    let mut added: Vec<(StepName, Step)> = Vec::new();
    let mut wanted: Vec<(usize, Spanned<StepName>)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let Body::Test(test) = &step.body else { continue };
        let Some(place) = test.human.filter(|_| !test.aa) else { continue };
        let needs = |other: &&Step| step.needs.iter().any(|need| need.value == other.name.value);
        let built = steps.iter().filter(needs).find_map(|other| match &other.body {
            Body::Environment(body) if body.recipe.is_some() => Some((other, body, body.base.as_ref()?)),
            _ => None,
        });
        let Some((like, body, base)) = built else { continue };
        let Some(base) = steps.iter().find(|other| other.name.value == base.value) else { continue };
        let name = StepName::new(format!("{}{HUMAN}", like.name.value));
        if let Some(taken) = steps.iter().find(|other| other.name.value == name) {
            report.add(
                Draft::new("taken-name", taken.name.place, format!("the human's tree is built by the step `{name}`"))
                    .label("has this name too")
                    .other(place, "asked for here")
                    .help("choose another name"),
            );
            continue;
        }
        let name = Spanned { value: name, place };
        wanted.push((index, name.clone()));
        if !added.iter().any(|(_, step)| step.name.value == name.value) {
            let body = Body::Environment(EnvironmentBody { human: true, ..body.clone() });
            let (needs, after) = (base.needs.clone(), base.after.clone());
            added.push((like.name.value.clone(), Step { name, body, needs, after, ..like.clone() }));
        }
    }
    for (index, name) in wanted {
        if let Some(Body::Test(test)) = steps.get_mut(index).map(|step| &mut step.body) {
            test.human_build = Some(name);
        }
    }
    for (like, step) in added {
        let at = steps.iter().position(|other| other.name.value == like).map_or(steps.len(), |at| at + 1);
        steps.insert(at, step);
    }
    steps
}
