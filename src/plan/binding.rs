//! Which step reads which, and as what: the `needs` of the manifest bound by kind and role.
//!
//! The reader has refused what is ambiguous, so that here the first match is the only one.

use crate::manifest::{Body, InputFrom, Kind, Pipeline};
use crate::names::StepName;
use crate::plan::Role;

/// What one step is bound to, by index of step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Data: whose outputs or ends it reads.
    pub links: Vec<(Role, usize)>,
    /// Order and gate.
    pub gates: Vec<usize>,
    /// For a gate, the step that it is measured like: the one whose `against` names it.
    pub like: Option<usize>,
}

/// The bindings of every step, in the order of the steps.
#[must_use]
pub fn bind(pipeline: &Pipeline) -> Vec<Bound> {
    let binder = Binder { pipeline };
    (0..pipeline.steps.len()).map(|step| binder.step(step)).collect()
}

struct Binder<'a> {
    pipeline: &'a Pipeline,
}

impl Binder<'_> {
    fn index(&self, name: &StepName) -> Option<usize> {
        self.pipeline.steps.iter().position(|step| step.name.value == *name)
    }

    fn needs(&self, step: usize) -> impl Iterator<Item = usize> + '_ {
        self.pipeline.steps[step].needs.iter().filter_map(|name| self.index(&name.value))
    }

    fn kind(&self, step: usize) -> Kind {
        self.pipeline.steps[step].kind()
    }

    fn needed(&self, step: usize, kind: Kind) -> Option<usize> {
        self.needs(step).find(|need| self.kind(*need) == kind)
    }

    /// The nearest checkout upstream.
    fn checkout(&self, step: usize) -> Option<usize> {
        self.upstream(step).into_iter().find(|up| self.kind(*up) == Kind::Checkout)
    }

    /// Everything upstream by `needs`, nearest first, each once.
    fn upstream(&self, step: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut next: Vec<usize> = self.needs(step).collect();
        while !next.is_empty() {
            let mut after = Vec::new();
            for up in next {
                if !found.contains(&up) {
                    found.push(up);
                    after.extend(self.needs(up));
                }
            }
            next = after;
        }
        found
    }

    fn of_patched_tree(&self, step: usize) -> bool {
        self.needed(step, Kind::Patch).is_some()
    }

    fn environment(&self, step: usize, patched: bool) -> Option<usize> {
        self.needs(step).find(|need| self.kind(*need) == Kind::Environment && self.of_patched_tree(*need) == patched)
    }

    fn against(&self, step: usize) -> Option<usize> {
        match &self.pipeline.steps[step].body {
            Body::Test(test) => test.against.as_ref().and_then(|name| self.index(&name.value)),
            _ => None,
        }
    }

    /// The first session of a second one.
    fn again(&self, step: usize) -> Option<usize> {
        match &self.pipeline.steps[step].body {
            Body::Test(test) => test.again.as_ref().and_then(|name| self.index(&name.value)),
            _ => None,
        }
    }

    /// What builds the human's tree for a test that measures it too.
    fn human_build(&self, step: usize) -> Option<usize> {
        match &self.pipeline.steps[step].body {
            Body::Test(test) => test.human_build.as_ref().and_then(|name| self.index(&name.value)),
            _ => None,
        }
    }

    /// A test that compares two trees, as opposed to a gate.
    fn compares(&self, step: usize) -> bool {
        match &self.pipeline.steps[step].body {
            Body::Test(test) => test.aa || self.of_patched_tree(step),
            _ => false,
        }
    }

    fn step(&self, step: usize) -> Bound {
        let mut bound = Bound {
            gates: self.pipeline.steps[step].after.iter().filter_map(|name| self.index(&name.value)).collect(),
            ..Bound::default()
        };
        let mut link = |role: Role, target: Option<usize>| {
            if let Some(target) = target {
                bound.links.push((role, target));
            }
        };
        match &self.pipeline.steps[step].body {
            Body::Checkout => {}
            Body::Environment(body) => {
                link(Role::Checkout, self.checkout(step));
                link(Role::Patch, self.needed(step, Kind::Patch));
                // Its downloads, and the control when a build fails.
                let base = body.base.as_ref().and_then(|base| self.index(&base.value));
                link(Role::Environment, base);
                bound.gates.extend(base);
            }
            Body::Agent(_) => {
                link(Role::Checkout, self.checkout(step));
                link(Role::Environment, self.environment(step, false));
            }
            Body::Patch(_) => {
                link(Role::Checkout, self.checkout(step));
                link(Role::Agent, self.needed(step, Kind::Agent));
            }
            Body::Test(_) => {
                let against = self.against(step);
                let base_build =
                    self.environment(step, false).or_else(|| against.and_then(|gate| self.environment(gate, false)));
                link(Role::Checkout, self.checkout(step));
                link(Role::Patch, self.needed(step, Kind::Patch));
                link(Role::Environment, base_build);
                link(Role::Rebuilt, self.environment(step, true));
                link(Role::HumanBuilt, self.human_build(step));
                link(Role::Baseline, against);
                link(Role::Again, self.again(step));
            }
            Body::Classify(_) => {
                let upstream = self.upstream(step);
                let first = |test: &dyn Fn(usize) -> bool| upstream.iter().copied().find(|up| test(*up));
                link(Role::Checkout, first(&|up| self.kind(up) == Kind::Checkout));
                link(Role::Environment, first(&|up| self.kind(up) == Kind::Environment && !self.of_patched_tree(up)));
                link(Role::Rebuilt, first(&|up| self.kind(up) == Kind::Environment && self.of_patched_tree(up)));
                link(Role::Baseline, first(&|up| self.kind(up) == Kind::Test && !self.compares(up)));
                link(Role::Agent, first(&|up| self.kind(up) == Kind::Agent));
                link(Role::Patch, first(&|up| self.kind(up) == Kind::Patch));
                link(Role::Patched, first(&|up| self.compares(up) && self.again(up).is_none()));
                link(Role::Again, first(&|up| self.again(up).is_some()));
            }
            Body::Command(command) => {
                for input in &command.inputs {
                    if let InputFrom::Output { step: from, output } = &input.from {
                        let role = Role::Named { input: input.name.value.clone(), output: output.clone() };
                        link(role, self.index(&from.value));
                    }
                }
                for need in self.needs(step).collect::<Vec<_>>() {
                    let bound_by_name = command.inputs.iter().any(|input| {
                        matches!(&input.from, InputFrom::Output { step: from, .. } if self.index(&from.value) == Some(need))
                    });
                    if let (false, Body::Command(upstream)) = (bound_by_name, &self.pipeline.steps[need].body)
                        && let [output] = upstream.outputs.as_slice()
                    {
                        let input = self.pipeline.steps[need].name.value.to_string();
                        link(Role::Named { input, output: output.name.value.clone() }, Some(need));
                    }
                }
            }
        }
        bound.like = (0..self.pipeline.steps.len()).find(|other| self.against(*other) == Some(step));
        bound
    }
}
