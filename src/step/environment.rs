//! The `environment` step. So far one recipe, `interpreter`: the environment is a declared tool that was probed when the plan
//! was made; nothing is built.

use crate::key::Value;
use crate::outcome::{Cause, Failure};
use crate::step::Draft;
use crate::step::context::Context;
use crate::step::done::Done;

/// What the attempts of this kind mean.
pub(super) const FORMAT: u16 = 1;

pub(super) fn draft<'a>(mut draft: Draft<'a>, tool: Option<&str>) -> Draft<'a> {
    let facts = &draft.plan.facts;
    if let Some(Ok(fact)) = tool.and_then(|tool| facts.tools.get(tool)) {
        let identity = fact.identity.clone();
        draft.text("interpreter", identity);
    }
    let platform = facts.platform.clone();
    draft.text("platform", platform);
    draft
}

/// Says what the interpreter is.
pub fn run(context: &Context, tool: Option<&str>) -> Done {
    let mut done = Done::succeeded();
    let identity = match tool.map(|tool| context.plan.facts.tools.get(tool)) {
        None => "none".to_owned(),
        Some(Some(Ok(fact))) => fact.identity.clone(),
        Some(_) => return Done::failed(Failure::new(Cause::EnvironmentFailed, "the interpreter is not there")),
    };
    done.output("identity", Value::text(identity));
    done
}
