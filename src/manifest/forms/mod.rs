//! The grammar: one table of every node, where it may stand and what it takes, by subject.
//!
//! It drives the errors (`shape`) and the reference (`reference`), so that neither can know a node that the other does not.
//! It does not say how nodes fit together: that is `check`.

mod agents;
mod campaign;
mod envs;
mod money;
mod pipeline;
mod providers;
mod readings;
mod recipes;
mod services;
mod steps;
mod top;

use super::Kind;
use super::grammar::{Arg, Form, In, Many, Prop, Ty};

const NODE: Form = Form {
    name: "",
    within: &[],
    args: &[],
    props: &[],
    open: None,
    repeat: false,
    inner: In::Nowhere,
    must: &[],
    meaning: "",
    example: "",
};

const fn one(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::One }
}
const fn maybe(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::Maybe }
}
const fn some(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::Some }
}
const fn any(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::Any }
}
const fn prop(name: &'static str, ty: Ty) -> Prop {
    Prop { name, ty, must: false, repeat: false }
}
const fn props(name: &'static str, ty: Ty) -> Prop {
    Prop { name, ty, must: false, repeat: true }
}
const fn must(name: &'static str, ty: Ty) -> Prop {
    Prop { name, ty, must: true, repeat: false }
}

/// The words of `uses=`.
pub(super) const KINDS: &[&str] = &["checkout", "environment", "agent", "patch", "test", "classify", "command"];

const STEPS: &[In] = &[
    In::Step(Kind::Checkout),
    In::Step(Kind::Environment),
    In::Step(Kind::Agent),
    In::Step(Kind::Patch),
    In::Step(Kind::Test),
    In::Step(Kind::Classify),
    In::Step(Kind::Command),
];
/// The kinds that run processes.
const RUNNING: &[In] =
    &[In::Step(Kind::Environment), In::Step(Kind::Agent), In::Step(Kind::Test), In::Step(Kind::Command)];
const WITH_ENV: &[In] = &[
    In::Step(Kind::Environment),
    In::Step(Kind::Agent),
    In::Step(Kind::Test),
    In::Step(Kind::Command),
    In::Candidate,
    In::Agent,
    In::Recipe,
    In::Provider,
];
/// The same, and assets: their server may ask who wants them.
const WITH_SECRETS: &[In] = &[
    In::Step(Kind::Environment),
    In::Step(Kind::Agent),
    In::Step(Kind::Test),
    In::Step(Kind::Command),
    In::Candidate,
    In::Agent,
    In::Recipe,
    In::Provider,
    In::Asset,
];
const TEST: In = In::Step(Kind::Test);
const COMMAND: In = In::Step(Kind::Command);

/// Every node, in the order of the reference.
pub(super) fn forms() -> impl Iterator<Item = &'static Form> {
    let subjects = [
        top::FORMS,
        pipeline::FORMS,
        campaign::FORMS,
        agents::FORMS,
        readings::FORMS,
        recipes::FORMS,
        providers::FORMS,
        money::FORMS,
        envs::FORMS,
        steps::FORMS,
        services::FORMS,
    ];
    subjects.into_iter().flatten()
}

/// Words of the design that this version does not read, so that a flaw can say that instead of guessing.
pub(super) const LATER: &[&str] = &["exclusive"];
