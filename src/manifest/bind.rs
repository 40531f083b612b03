//! Binds inputs by kind and role: what each kind of step reads, and that `needs` names exactly that.
//!
//! Assumes steps whose names are known and which form no cycle. Says only whether the inputs fit; the plan takes them.

use super::flaw::{Draft, Report};
use super::{Body, Kind, Spanned, Step};
use crate::names::StepName;

type Need<'a> = (&'a Spanned<StepName>, &'a Step);

/// Checks the inputs of all steps.
pub(super) fn all(steps: &[Step], report: &Report) {
    for step in steps {
        let needs: Vec<Need<'_>> = step.needs.iter().filter_map(|need| Some((need, find(steps, need)?))).collect();
        Binder { steps, step, needs, report }.bind();
    }
}

fn find<'a>(steps: &'a [Step], name: &Spanned<StepName>) -> Option<&'a Step> {
    steps.iter().find(|step| step.name.value == name.value)
}

struct Binder<'a> {
    steps: &'a [Step],
    step: &'a Step,
    needs: Vec<Need<'a>>,
    report: &'a Report,
}

impl<'a> Binder<'a> {
    fn bind(&self) {
        use Kind::{Agent, Checkout, Classify, Command, Environment, Patch, Test};
        match self.step.kind() {
            Checkout => self.only(&[], "it reads nothing"),
            Environment => {
                self.only(&[Checkout, Patch], "it reads one tree: of a checkout or a patch");
                self.at_most_one(&[Checkout, Patch], "tree");
            }
            Agent => {
                self.only(&[Checkout, Environment], "it reads one checkout, and maybe an environment");
                self.exactly_one(&[Checkout], "tree", "checkout");
                self.at_most_one(&[Environment], "environment");
            }
            Patch => {
                self.only(&[Agent], "it reads the work of one agent");
                self.exactly_one(&[Agent], "work", "agent");
            }
            Test => {
                self.third_arm();
                self.only(
                    &[Checkout, Patch, Environment],
                    "it reads one tree, of a checkout or a patch, and environments",
                );
                if let Some(tree) = self.exactly_one(&[Checkout, Patch], "tree", "checkout or patch") {
                    self.environments(tree);
                }
            }
            Classify => {
                if self.step.needs.is_empty() {
                    self.report.add(
                        Draft::new(
                            "missing-input",
                            self.step.name.place,
                            format!("`{}` needs nothing", self.step.name.value),
                        )
                        .label("has nothing to classify")
                        .help("name the tests and the patch: needs baseline patch patched"),
                    );
                }
                self.one_of_each_upstream();
            }
            Command => self.only(&[Command], "it reads files of commands"),
        }
    }

    /// A class speaks of one checkout, agent, patch, gate and measurement: with two of a kind upstream it would silently be
    /// about one of them.
    fn one_of_each_upstream(&self) {
        let mut upstream: Vec<&Step> = Vec::new();
        let mut next: Vec<&Step> = self.needs.iter().map(|(_, step)| *step).collect();
        while let Some(step) = next.pop() {
            if !upstream.iter().any(|known| known.name.value == step.name.value) {
                upstream.push(step);
                next.extend(step.needs.iter().filter_map(|need| find(self.steps, need)));
            }
        }
        upstream.sort_by_key(|step| step.name.place.offset);
        let compares = |step: &&Step| match &step.body {
            // A second session speaks of what the first does.
            Body::Test(test) if test.again.is_some() => false,
            Body::Test(test) => {
                test.aa
                    || step.needs.iter().any(|need| find(self.steps, need).is_some_and(|up| up.kind() == Kind::Patch))
            }
            _ => false,
        };
        let again = |step: &&Step| matches!(&step.body, Body::Test(test) if test.again.is_some());
        let gate = |step: &&Step| step.kind() == Kind::Test && !compares(step) && !again(step);
        let of = |kind: Kind| move |step: &&Step| step.kind() == kind;
        let roles: [(&str, Vec<&Step>); 5] = [
            ("checkout", upstream.iter().copied().filter(|step| of(Kind::Checkout)(step)).collect()),
            ("agent", upstream.iter().copied().filter(|step| of(Kind::Agent)(step)).collect()),
            ("patch", upstream.iter().copied().filter(|step| of(Kind::Patch)(step)).collect()),
            ("gate", upstream.iter().copied().filter(|step| gate(step)).collect()),
            ("measurement", upstream.iter().copied().filter(|step| compares(step)).collect()),
        ];
        for (what, steps) in roles {
            if let [first, second, ..] = steps.as_slice() {
                self.report.add(
                    Draft::new(
                        "ambiguous-input",
                        self.step.name.place,
                        format!("which {what} does `{}` speak of?", self.step.name.value),
                    )
                    .label(format!("`{}` and `{}` are both upstream", first.name.value, second.name.value))
                    .help("a classify step of its own for each"),
                );
            }
        }
    }

    fn of(&self, kinds: &[Kind]) -> Vec<Need<'a>> {
        self.needs.iter().copied().filter(|(_, step)| kinds.contains(&step.kind())).collect()
    }

    fn only(&self, kinds: &[Kind], reads: &str) {
        for (need, other) in self.needs.iter().filter(|(_, other)| !kinds.contains(&other.kind())) {
            self.report.add(
                Draft::new(
                    "wrong-input",
                    need.place,
                    format!(
                        "`{}`, which uses `{}`, cannot read `{}`",
                        self.step.name.value,
                        self.step.kind().word(),
                        need.value
                    ),
                )
                .label(format!("uses `{}`", other.kind().word()))
                .help(format!("{reads}; for order alone write `after {}`", need.value)),
            );
        }
    }

    fn at_most_one(&self, kinds: &[Kind], what: &str) -> Option<Need<'a>> {
        let found = self.of(kinds);
        if let [first, second, ..] = found.as_slice() {
            self.report.add(
                Draft::new(
                    "ambiguous-input",
                    second.0.place,
                    format!("which {what} does `{}` read?", self.step.name.value),
                )
                .label(format!("`{}` gives one", second.0.value))
                .other(first.0.place, format!("`{}` gives one too", first.0.value))
                .help(format!("need one of the two; for order alone write `after {}`", second.0.value)),
            );
            return None;
        }
        found.first().copied()
    }

    fn exactly_one(&self, kinds: &[Kind], what: &str, word: &str) -> Option<Need<'a>> {
        if self.of(kinds).is_empty() {
            let there: Vec<&str> = self
                .steps
                .iter()
                .filter(|step| kinds.contains(&step.kind()))
                .map(|step| step.name.value.as_str())
                .collect();
            let help = match there.as_slice() {
                [] => format!("define one: step NAME uses={}", kinds.first().map_or("", |kind| kind.word())),
                [one] => format!("add `needs {one}`"),
                several => format!("need one of {}", super::flaw::list(several.iter().copied())),
            };
            self.report.add(
                Draft::new(
                    "missing-input",
                    self.step.name.place,
                    format!("`{}` needs no {word}", self.step.name.value),
                )
                .label(format!("has no {what}"))
                .help(help),
            );
            return None;
        }
        self.at_most_one(kinds, what)
    }

    /// A third arm stands beside two others.
    fn third_arm(&self) {
        let Body::Test(test) = &self.step.body else { return };
        let Some(place) = test.human else { return };
        let (label, help) = if test.aa {
            ("both arms are the base tree here", "drop `with human`, or `aa`")
        } else if self.of(&[Kind::Patch]).is_empty() {
            ("measures one tree alone", "say it on the step that tests the patched tree")
        } else {
            return;
        };
        let what = format!("`{}` compares nothing that the human's tree could stand beside", self.step.name.value);
        self.report.add(Draft::new("no-third-arm", place, what).label(label).help(help));
    }

    /// At most one environment of each tree that the test runs.
    fn environments(&self, tree: Need<'a>) {
        let base = base_of(self.steps, tree.1);
        let mut patched: Option<&'a Spanned<StepName>> = None;
        let mut plain: Option<&'a Spanned<StepName>> = None;
        for (need, environment) in self.of(&[Kind::Environment]) {
            let of = tree_of(self.steps, environment);
            let name = of.map(|step| &step.name.value);
            let is = |other: Option<&Step>| other.is_some_and(|other| Some(&other.name.value) == name);
            let (for_tree, for_base) = match of {
                // One that reads no tree would do for both.
                None => (true, true),
                Some(_) => (is(Some(tree.1)), is(base)),
            };
            if !for_tree && !for_base {
                self.report.add(
                    Draft::new(
                        "wrong-input",
                        need.place,
                        format!("`{}` is the environment of another tree", need.value),
                    )
                    .label(format!("made for `{}`", name.map_or("", StepName::as_str)))
                    .help(format!("need one that is made for `{}`", tree.0.value)),
                );
                continue;
            }
            for (fits, place) in [(for_tree, &mut patched), (for_base && tree.1.kind() == Kind::Patch, &mut plain)] {
                if let Some(first) = place.filter(|_| fits) {
                    self.report.add(
                        Draft::new(
                            "ambiguous-input",
                            need.place,
                            format!("which environment does `{}` use?", self.step.name.value),
                        )
                        .label(format!("`{}` is one", need.value))
                        .other(first.place, format!("`{}` is another for the same tree", first.value))
                        .help("need one of the two"),
                    );
                    return;
                }
                if fits {
                    *place = Some(need);
                }
            }
        }
    }
}

/// The step whose tree an environment is made for.
fn tree_of<'a>(steps: &'a [Step], environment: &Step) -> Option<&'a Step> {
    let mut trees = environment.needs.iter().filter_map(|need| find(steps, need));
    trees.find(|step| matches!(step.kind(), Kind::Checkout | Kind::Patch))
}

/// The checkout under a tree: itself, or that of the patch's agent.
fn base_of<'a>(steps: &'a [Step], tree: &'a Step) -> Option<&'a Step> {
    if tree.kind() == Kind::Checkout {
        return Some(tree);
    }
    let find_kind = |of: &'a Step, kind: Kind| {
        of.needs.iter().filter_map(|need| find(steps, need)).find(|step| step.kind() == kind)
    };
    find_kind(find_kind(tree, Kind::Agent)?, Kind::Checkout)
}
