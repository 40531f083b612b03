//! The `test` step: runs a script in fresh processes, base and patched tree in turn on one leased slot, compares results
//! before speed, and keeps the samples. What they mean is said by `classify`.
//!
//! Scripts come from the manifest, never from the tested tree. Results are read from a private file whose name is made after
//! the patch was frozen, or from stdout where the contract says so.

mod arms;
mod caches;
mod checks;
mod looks;
mod process;
mod served;
mod session;
mod watch;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use crate::attempt::Ended;
use crate::key::Value;
use crate::measure;
use crate::measure::TestResult;
use crate::outcome::{Cause, Failure};
use crate::plan::{Ask, Plan, Role, ServiceAsk, TestAsk};
use crate::step::context::{Context, Place, fault};
use crate::step::done::{Done, Inputs};
use crate::step::environment::FOLDER;
use crate::step::sandbox;
use crate::step::{Draft, End};

/// How a note begins that says what the manifest let processes write to besides their own.
pub const SHARED: &str = "its processes could write to";

/// The output that names the attempt whose measurement one continues.
/// No output of a command can be called so.
pub const CONTINUES: &str = "continues attempt";
/// The output of one that goes beyond the manifest's limits because a person asked for it.
pub const ASKED: &str = "asked for";

/// The output of a second session that measured nothing: why not.
pub const NOT_ASKED: &str = "not asked";

/// What the attempts of this kind mean. From 2 on a result is one of trees, script and results that no other process of the
/// attempt had changed.
pub(super) const FORMAT: u16 = 2;

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: &TestAsk) -> Draft<'a> {
    match ask.script {
        Some(script) => draft.push("script", Value::Blob(script)),
        None if ask.runs_script() => draft.stop(End::Skipped(Cause::NoTestScript)),
        None => {}
    }
    draft.text("contract", ask.contract.to_string());
    if !ask.argv.is_empty() {
        draft.push("argv", Value::List(ask.argv.iter().map(ToString::to_string).collect()));
    }
    draft.env(&ask.env);
    let facts = &draft.plan.facts;
    draft.tools(facts, &ask.tools);
    draft.input("base tree", &Role::Checkout, "tree");
    if ask.aa {
        draft.text("arms", "base and base");
    } else {
        draft.input("tree", &Role::Patch, "tree");
    }
    let human = ask.human && !ask.aa && draft.plan.linked(draft.node, &Role::Patch).is_some();
    if ask.again {
        draft.input("first session", &Role::Again, "result");
    }
    draft.input("base build", &Role::Environment, "identity");
    draft.input("build", &Role::Rebuilt, "identity");
    // What a recipe makes of other files is another build, though it calls itself the same.
    for (role, link) in [("base build", Role::Environment), ("build", Role::Rebuilt)] {
        if draft.plan.linked(draft.node, &link).is_some_and(|up| builds(draft.plan, up)) {
            draft.input(&format!("{role} key"), &link, FOLDER);
            let used = draft.plan.linked(draft.node, &link).map(|up| used_as(draft.plan, up)).unwrap_or_default();
            draft.record.push_some(format!("{role} use"), (!used.is_empty()).then_some(Value::List(used)));
        }
    }
    if human {
        draft.input("human tree", &Role::Checkout, "human tree");
        human_build(&mut draft);
    }
    draft.input("reference", &Role::Baseline, "reference");
    if ask.equal != measure::Equal::default() {
        draft.text("comparison", ask.equal.to_string());
    }
    if !ask.checks.is_empty() && draft.plan.compares(draft.node) && !ask.aa {
        let checks =
            ask.checks.iter().map(|check| check.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        draft.push("checks", Value::List(checks.collect()));
    }
    if !ask.caches.is_empty() {
        let caches = ask.caches.iter().map(|cache| format!("{}={}", cache.name, cache.variable.value));
        draft.push("caches", Value::List(caches.collect()));
    }
    if !ask.services.is_empty() {
        draft.push("services", Value::List(ask.services.iter().map(ServiceAsk::signature).collect()));
    }
    draft.push("metrics", Value::List(ask.metrics.iter().map(ToString::to_string).collect()));
    if draft.plan.compares(draft.node) && !ask.counts_only() {
        draft.text("profile", ask.protocol.profile.to_string());
        draft.text("block", format!("{:?}", ask.protocol.shape).to_lowercase());
        draft.text("seed", ask.protocol.seed.to_string());
        if ask.protocol.profile != measure::protocol::Profile::Fixed {
            draft.text("looks", looks(&ask.protocol));
        }
        // Elsewhere a limit; there it says what is measured.
        let fixed = ask.protocol.profile == measure::protocol::Profile::Fixed;
        if fixed && ask.protocol.blocks_max != measure::Protocol::new(ask.protocol.profile).blocks_max {
            draft.text("blocks", ask.protocol.blocks_max.to_string());
        }
    }
    sandbox::draft(&mut draft, &ask.sandbox);
    draft.record.push_some("device", ask.device.as_ref().map(Value::text));
    draft
}

/// What the human's tree runs in. One that cannot be built is given up, and the others are measured without it.
fn human_build(draft: &mut Draft<'_>) {
    let Some(up) = draft.plan.linked(draft.node, &Role::HumanBuilt) else { return };
    if matches!(draft.ends.end(up), End::Settled(ended) if ended.outcome.failure().is_some()) {
        draft.text("human build", "failed");
        return;
    }
    draft.input("human build", &Role::HumanBuilt, "identity");
    draft.input("human build key", &Role::HumanBuilt, FOLDER);
}

/// Whether an environment is one that a recipe builds.
fn builds(plan: &Plan, node: usize) -> bool {
    matches!(&plan.nodes[node].ask, Ask::Environment(ask) if ask.recipe.is_some())
}

/// How a built environment is used: what is laid over trees, and the variables that it gives.
fn used_as(plan: &Plan, node: usize) -> Vec<String> {
    let Ask::Environment(ask) = &plan.nodes[node].ask else { return Vec::new() };
    let Some(recipe) = &ask.recipe else { return Vec::new() };
    let overlay = recipe.overlay.iter().map(|glob| format!("overlay {glob}"));
    let root = recipe.overlay_root.iter().map(|root| format!("overlay root {root}"));
    let provides = recipe.provides.iter().map(|(name, value)| format!("provides {name} {value}"));
    overlay.chain(root).chain(provides).collect()
}

/// When results are looked at, and how sure a verdict has to be there; whatever `blocks max` is, which is a limit.
fn looks(protocol: &measure::Protocol) -> String {
    let looks: Vec<String> = measure::protocol::LOOKS.iter().map(ToString::to_string).collect();
    format!("after {} blocks, each at {}", looks.join(" "), measure::analysis::level(protocol.alpha()))
}

/// Measures.
pub async fn run(context: &Context, node: usize, inputs: &Inputs, place: &Place, earlier: Option<&Ended>) -> Done {
    let (Ask::Test(ask), Some((repo, _))) = (&context.plan.nodes[node].ask, context.plan.nodes[node].point.commit)
    else {
        return Done::failed(fault("a test step without a commit"));
    };
    match not_asked(context, ask, inputs) {
        Ok(None) => {}
        Ok(Some(why)) => {
            let mut done = Done::succeeded();
            done.output(NOT_ASKED, Value::text(why));
            return done;
        }
        Err(failure) => return Done::failed(failure),
    }
    let earlier = earlier.and_then(|ended| Earlier::read(context, ask, ended));
    let (imported, late) = (Mutex::default(), AtomicBool::default());
    let session = Session { node, context, ask, inputs, place, repo, earlier, imported, late };
    match session.measure().await {
        Ok(mut done) => {
            let opened: Vec<String> = ask.sandbox.write.iter().map(|path| path.display().to_string()).collect();
            if !opened.is_empty() {
                let opened = opened.join(", ");
                done.notes.push(format!("{SHARED} {opened} too: what one left there the next one found"));
            }
            done
        }
        Err(failure) => Done::failed(failure),
    }
}

/// Why a second session measures nothing; nothing where it does.
fn not_asked(context: &Context, ask: &TestAsk, inputs: &Inputs) -> Result<Option<String>, Failure> {
    if !ask.again {
        return Ok(None);
    }
    let result = TestResult::decode(&context.get(&inputs.blob(&Role::Again, "result")?)?);
    let result = result.map_err(|error| fault(&error.to_string()))?;
    let analysis = measure::analyse(&result, None);
    let why = match measure::plausible::doubt(&result, &analysis) {
        Some(_) => "the first session cannot be believed",
        None if !measure::again::asks(&analysis) => "the first session came out as neither faster nor slower",
        None => return Ok(None),
    };
    Ok(Some(why.to_owned()))
}

/// One attempt that measures.
struct Session<'a> {
    node: usize,
    context: &'a Context,
    ask: &'a TestAsk,
    inputs: &'a Inputs,
    place: &'a Place,
    repo: usize,
    earlier: Option<Earlier>,
    /// What processes of the base tree said that they imported, by name.
    imported: Mutex<BTreeSet<String>>,
    /// Whether a service was not ready in time.
    late: AtomicBool,
}

/// A measurement that is continued: its runs stay, and the schedule goes on where it ended.
struct Earlier {
    attempt: String,
    runs: Vec<measure::Run>,
    guarded: Option<measure::Guarded>,
    caches: BTreeMap<measure::Arm, measure::Kept>,
    spent_ms: u64,
    blocks: u64,
}

impl Earlier {
    /// Reads what an attempt measured; nothing where that was another measurement, or is gone from the store.
    fn read(context: &Context, ask: &TestAsk, ended: &Ended) -> Option<Self> {
        let digest = ended.outputs.get("result").and_then(Value::as_blob)?;
        let result = TestResult::decode(&context.get(&digest).ok()?).ok()?;
        let same = |protocol: &measure::Protocol| {
            (protocol.profile, protocol.shape, protocol.seed)
                == (ask.protocol.profile, ask.protocol.shape, ask.protocol.seed)
        };
        let blocks = result.runs.iter().filter(|run| run.turn.counts()).map(|run| u64::from(run.turn.block) + 1).max();
        let blocks = blocks.filter(|_| same(&result.protocol))?;
        let spent_ms = ended.limits.get("time max").map_or(ended.wall_ms, |limit| limit.used);
        let (runs, guarded, caches) = (result.runs, result.guarded, result.caches);
        Some(Self { attempt: ended.attempt.to_string(), runs, guarded, caches, spent_ms, blocks })
    }
}
