//! What an action reads from others by how the manifest binds it, and what becomes of it without a run: the part of a version that
//! stands in no ingredient of its own.
//!
//! A `needs` or an `against` that was taken away, a test script that is gone, a table by which agents are read: they change keys
//! downstream although no action has a word of them in its own record.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::key::{Change, Value};
use crate::manifest::{Body, Case, Kind, Place};
use crate::outcome::Cause;
use crate::plan::{Ask, CaseAsk, Plan, Role};
use crate::step::{known, read_as};
use crate::why::whence::Whence;

/// The words that bind one step to another.
const BINDS: [&str; 6] = ["needs", "against", "like", "input", "uses", "second-session"];
/// The words that say which files of a tree an environment is built from.
const CHOOSES: [&str; 2] = ["from", "when"];
/// The ingredient that is those files.
pub const FILES: &str = "files";
/// The words of a reading table.
const READS: [&str; 7] = ["finished", "error", "stuck", "usage", "models", "message", "signature"];

/// An ingredient that is an output or an end of an action upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The ingredient's role.
    pub role: String,
    /// The action.
    pub up: usize,
    /// Which output, where the role does not say.
    pub output: Option<String>,
}

/// The ingredients of an action that come from others. Of several that only one end decides, the first.
#[must_use]
pub fn wires(plan: &Plan, node: usize) -> Vec<Wire> {
    let output = |role: &str| {
        let input = role.strip_prefix("in ")?;
        plan.nodes[node].links.iter().find_map(|link| match &link.role {
            Role::Named { input: named, output } if named == input => Some(output.clone()),
            _ => None,
        })
    };
    let classify = plan.kind(node) == Kind::Classify;
    let mut all = read_as(plan, node);
    all.retain(|(role, _)| !classify || role.starts_with("end of "));
    if plan.kind(node) == Kind::Environment {
        // A patched tree's files are those of the base and of the patch: of the two the latter is its own.
        let last = all.iter().rposition(|(role, _)| role == FILES);
        let mut at = 0..;
        all.retain(|(role, _)| at.next() == last || role != FILES);
    }
    all.into_iter().map(|(role, up)| Wire { output: output(&role), role, up }).collect()
}

/// Which files of a tree an environment is built from, as the manifest says it: no ingredient by itself, for those files are.
#[must_use]
pub fn chosen(plan: &Plan, node: usize) -> Option<String> {
    let Ask::Environment(ask) = &plan.nodes[node].ask else { return None };
    let line = |case: &CaseAsk| {
        let when = case.exists.iter().map(|file| format!("when {file}: ")).collect::<String>();
        format!("{when}from {}\n", case.from.join(" "))
    };
    Some(ask.recipe.as_ref()?.cases.iter().map(line).collect())
}

/// What becomes of an action, as far as the manifest decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may be executed or served.
    Runs,
    /// It is not to be run.
    Skipped(Cause),
    /// It reads what is not to be run.
    Blocked,
}

impl Standing {
    /// The word for what is not run.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Runs => None,
            Self::Skipped(_) => Some("skipped"),
            Self::Blocked => Some("blocked"),
        }
    }
}

/// A plan with what can be said of each action without a run.
#[derive(Debug)]
pub struct Wiring {
    /// What each reads.
    pub wires: Vec<Vec<Wire>>,
    /// What becomes of each, if what it waits for lets it.
    pub standing: Vec<Standing>,
    /// Whether each waits for what is not to be run: it is served, or not run.
    pub shut: Vec<bool>,
    /// Stands for each one's key: two are the same where all of what determines them is, upstream and own.
    pub symbols: Vec<Digest>,
}

impl Wiring {
    /// Of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut wiring = Self { wires: Vec::new(), standing: Vec::new(), shut: Vec::new(), symbols: Vec::new() };
        for node in 0..plan.nodes.len() {
            let wires = wires(plan, node);
            let standing = wiring.stands(plan, node, &wires);
            let mut text = known(plan, node).encode();
            text.extend(chosen(plan, node).unwrap_or_default().bytes());
            for wire in &wires {
                let end = match wiring.standing[wire.up] {
                    Standing::Runs => wiring.symbols[wire.up].to_string(),
                    other => format!("{other:?}"),
                };
                text.extend(format!("\n{}\n{:?}\n{end}", wire.role, wire.output).bytes());
            }
            wiring.shut.push(plan.nodes[node].gates.iter().any(|gate| wiring.standing[*gate] != Standing::Runs));
            wiring.symbols.push(Digest::of(&text));
            wiring.wires.push(wires);
            wiring.standing.push(standing);
        }
        wiring
    }

    /// An action comes after all that it reads.
    fn stands(&self, plan: &Plan, node: usize, wires: &[Wire]) -> Standing {
        let over = |up: usize| self.standing[up] != Standing::Runs;
        if let Some(cause) = skipped(plan, node) {
            return Standing::Skipped(cause);
        }
        let starved = plan.kind(node) != Kind::Classify && wires.iter().any(|wire| over(wire.up));
        if starved { Standing::Blocked } else { Standing::Runs }
    }
}

/// Why an action is not to be run, whatever happens upstream.
fn skipped(plan: &Plan, node: usize) -> Option<Cause> {
    match &plan.nodes[node].ask {
        Ask::Test(ask) if ask.script.is_none() && ask.runs_script() => Some(Cause::NoTestScript),
        _ => None,
    }
}

/// What it has in place of its table, where two agents are read by other ones.
#[must_use]
pub fn reading_change(old: (&Plan, usize), new: (&Plan, usize)) -> Option<Change> {
    let (before, after) = (old.0.tables(old.1)?.reading(), new.0.tables(new.1)?.reading());
    let say = |table| serde_json::to_string_pretty(table).ok().map(Value::text);
    (before != after).then(|| Change { ingredient: "reading".into(), old: say(before), new: say(after) })
}

/// All that an action's end hangs on, itself first.
fn upstream(plan: &Plan, node: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([node]);
    let mut next = vec![node];
    while let Some(node) = next.pop() {
        let gates = plan.nodes[node].gates.iter().copied();
        for up in plan.nodes[node].links.iter().map(|link| link.node).chain(gates) {
            if found.insert(up) {
                next.push(up);
            }
        }
    }
    found
}

/// What the manifest says of an ingredient that comes from upstream: which action it is of, and for an end what it hangs on. The
/// same in two versions that differ in names alone. `None` if no such ingredient comes from upstream.
#[must_use]
pub fn declared(plan: &Plan, node: usize, role: &str) -> Option<Value> {
    let wire = wires(plan, node).into_iter().find(|wire| wire.role == role)?;
    let mut text = format!("{} {}", class(plan, wire.up), wire.output.unwrap_or_default());
    if role == FILES {
        text.extend(chosen(plan, node));
    }
    if role.starts_with("end of ") {
        for up in upstream(plan, wire.up) {
            if let Some(cause) = skipped(plan, up) {
                text.push_str(&format!("\n{} {cause}", class(plan, up)));
            }
            text.extend(plan.tables(up).map(|tables| format!("\n{}", tables.digest())));
        }
    }
    Some(Value::text(text))
}

/// What a step is called that tells it from others of its pipeline, by its name only where nothing else does.
fn class(plan: &Plan, node: usize) -> String {
    let steps = &plan.manifest.pipeline.steps;
    let step = plan.step(node);
    let kind_of = |name: &str| steps.iter().find(|step| step.name.value.as_str() == name).map(|step| step.kind());
    let patched = |at: usize| steps[at].needs.iter().any(|need| kind_of(need.value.as_str()) == Some(Kind::Patch));
    let compares = |at: usize| match &steps[at].body {
        Body::Test(test) => test.aa || patched(at),
        _ => patched(at),
    };
    let again = |at: usize| matches!(&steps[at].body, Body::Test(test) if test.again.is_some());
    let shape = |at: usize| (steps[at].kind(), compares(at), again(at));
    let own = plan.nodes[node].step;
    let like = (0..steps.len()).filter(|at| shape(*at) == shape(own)).count();
    let name = if like > 1 { step.name.value.as_str() } else { "" };
    let again = if again(own) { " again" } else { "" };
    format!("{} {}{again} {name}", step.kind().word(), compares(own))
}

/// Where the manifest says what an action reads as a role, or by which table an agent is read.
#[must_use]
pub fn whence(plan: &Plan, node: usize, role: &str) -> Whence {
    let step = plan.step(node);
    let mut found = Whence::default();
    if role == "reading" {
        reads(plan, node, &mut found);
        return found;
    }
    if role.starts_with("end of ")
        && let Some(wire) = wires(plan, node).into_iter().find(|wire| wire.role == role)
    {
        for up in upstream(plan, wire.up) {
            match &plan.nodes[up].ask {
                Ask::Test(ask) if ask.runs_script() => found.files.push(ask.script_path.clone()),
                Ask::Agent(_) => reads(plan, up, &mut found),
                _ => {}
            }
        }
    }
    if role == FILES
        && let Body::Environment(body) = &step.body
        && let Some(recipe) = body.recipe.as_ref().and_then(|name| plan.manifest.pipeline.recipes.get(&name.value))
    {
        let files =
            |case: &Case| -> Vec<Place> { case.exists.iter().chain(&case.from).map(|glob| glob.place).collect() };
        found.places.extend(recipe.cases.iter().flat_map(files));
        found.words = &CHOOSES;
    }
    if let Body::Test(test) = &step.body {
        found.places.extend(test.against.as_ref().map(|name| name.place));
    }
    found.places.extend(step.needs.iter().map(|name| name.place));
    if found.words.is_empty() {
        found.words = &BINDS;
    }
    found
}

fn reads(plan: &Plan, agent: usize, found: &mut Whence) {
    let pipeline = &plan.manifest.pipeline;
    let candidate = plan.nodes[agent].point.candidate.and_then(|at| pipeline.candidates.get(at));
    let adapter = candidate.and_then(|candidate| pipeline.agents.get(&candidate.agent.value));
    found.places.extend(adapter.map(|adapter| adapter.name.place));
    found.words = &READS;
}
