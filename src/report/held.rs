//! What the kernel did not hold of a job's processes, and what its agent may have known, as marks.

use crate::attempt::Ended;
use crate::plan::{Ask, Plan, Role};
use crate::process::Part;
use crate::step::test::SHARED;
use crate::step::{End, integrity, leak};

/// The mark of an agent whose network was open.
pub const EGRESS_OPEN: &str = "EGRESS_OPEN";

/// The marks of a job, given its classify step.
#[must_use]
pub fn marks(plan: &Plan, classify: usize, ends: &[End]) -> Vec<String> {
    let of = |role: &Role| {
        let node = plan.linked(classify, role)?;
        Some((node, ends[node].attempt()?))
    };
    let mut marks = Vec::new();
    if let Some((node, agent)) = of(&Role::Agent) {
        for (note, mark) in [
            (leak::NOTE, "LEAK"),
            (integrity::HISTORY, "HISTORY"),
            (integrity::LOOKED_UP, "LOOKED_UP"),
            (integrity::PACKAGE, "PACKAGE_AT_HAND"),
        ] {
            if agent.notes.iter().any(|said| said.starts_with(note)) {
                marks.push(mark.to_owned());
            }
        }
        let Ask::Agent(ask) = &plan.nodes[node].ask else { return marks };
        // What never began reached nothing.
        let began = agent.process.is_some();
        if began && ask.calls_out() && !holds(agent, Part::Network) {
            marks.push(EGRESS_OPEN.to_owned());
        }
        if began && !holds(agent, Part::Files) {
            marks.push(format!("NO_SANDBOX {}", agent.step));
        }
    }
    // A patch outside of what environments are built from was built by nobody.
    let base = of(&Role::Environment).map(|(_, base)| base.key);
    if let Some((_, built)) = of(&Role::Rebuilt)
        && base.is_none_or(|base| base != built.key)
        && built.sandbox.as_ref().is_some_and(|held| !held.holds(Part::Files) || held.refused(Part::Network))
    {
        marks.push(format!("NO_SANDBOX {}", built.step));
    }
    if let Some((_, test)) = of(&Role::Patched)
        && test.outputs.contains_key("result")
        && !(holds(test, Part::Files) && holds(test, Part::Network))
    {
        marks.push(format!("NO_SANDBOX {}", test.step));
    }
    if let Some((_, test)) = of(&Role::Patched)
        && test.outputs.contains_key("result")
        && test.notes.iter().any(|note| note.starts_with(SHARED))
    {
        marks.push("WRITE_OPEN".to_owned());
    }
    marks
}

fn holds(ended: &Ended, part: Part) -> bool {
    ended.sandbox.as_ref().is_some_and(|sandbox| sandbox.holds(part))
}
