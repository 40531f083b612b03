//! The `classify` step: a pure function of how every step upstream ended, by kind and role.
//!
//! Its key holds those ends and nothing else, so that a changed rule classifies everything anew in seconds.

use crate::class::{self, Class, Effect, StepEnd, Verdict};
use crate::digest::Digest;
use crate::git;
use crate::key::Value;
use crate::measure::again::Again;
use crate::measure::analysis::{AgainstHuman, Analysis, level, metric_text};
use crate::measure::protocol::Profile;
use crate::measure::stats::Estimate;
use crate::measure::{self, TestResult};
use crate::outcome::{Cause, Failure};
use crate::plan::{Ask, ClassifyAsk, Plan, Role};
use crate::step::checkout::SUBMODULES;
use crate::step::context::Context;
use crate::step::done::Done;
use crate::step::environment;
use crate::step::{Draft, End, Ends};

/// What the attempts of this kind mean.
pub(super) const FORMAT: u16 = 1;

/// The roles whose ends count, and their words in the key.
const ROLES: [(Role, &str); 8] = [
    (Role::Checkout, "end of checkout"),
    (Role::Environment, "end of the base's environment"),
    (Role::Baseline, "end of baseline"),
    (Role::Agent, "end of agent"),
    (Role::Patch, "end of patch"),
    (Role::Rebuilt, "end of the patched tree's environment"),
    (Role::Patched, "end of patched"),
    (Role::Again, "end of the second session"),
];

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: ClassifyAsk) -> Draft<'a> {
    for (role, name) in &ROLES {
        let Some(up) = draft.plan.linked(draft.node, role) else { continue };
        match draft.ends.end(up) {
            End::Pending => {
                draft.waiting.push(((*name).to_owned(), up));
                // These stand in the key only where the end that they come with has them.
                match role {
                    Role::Patched => draft.waiting.push(("result".to_owned(), up)),
                    Role::Again => draft.waiting.push(("second result".to_owned(), up)),
                    Role::Patch => draft.waiting.push(("patch".to_owned(), up)),
                    _ => {}
                }
            }
            End::Open(_) | End::Reopened(_) => draft.stop(End::open(format!("waits for {}", draft.plan.title(up)))),
            End::Skipped(cause) => draft.text(name, format!("skipped {cause}")),
            End::Blocked { .. } => draft.text(name, "not run"),
            End::Settled(ended) => {
                let mut word = ended.outcome.word().to_lowercase();
                if let Some(arm) = ended.outputs.get("failed arm").and_then(Value::as_text) {
                    word.push_str(&format!(" in the {arm} tree"));
                }
                draft.text(name, word);
                if *role == Role::Patched
                    && let Some(result) = ended.outputs.get("result")
                {
                    draft.push("result", result.clone());
                }
                if *role == Role::Again
                    && let Some(result) = ended.outputs.get("result")
                {
                    draft.push("second result", result.clone());
                }
            }
        }
    }
    if same_as_human(draft.plan, draft.node, draft.ends) {
        draft.text("patch", "the human's");
    }
    if published(draft.plan, draft.node) && draft.plan.linked(draft.node, &Role::Again).is_none() {
        draft.text("sessions", "one");
    }
    if let Some(moved) = submodules(draft.plan, draft.node, draft.ends) {
        draft.push(SUBMODULES, moved);
    }
    draft.text("rules", class::RULES.to_string());
    if let Some(effect) = ask.judge_min_effect {
        draft.text("judge", format!("min-effect {effect}"));
    }
    draft
}

/// Whether the patched tree is what the human's change makes of the base, though nobody told the agent that change.
fn same_as_human(plan: &Plan, node: usize, ends: &dyn Ends) -> bool {
    let told = plan.linked(node, &Role::Agent).is_some_and(|agent| match &plan.nodes[agent].ask {
        Ask::Agent(ask) => ask.human_change,
        _ => false,
    });
    !told && is_human_tree(plan, node, ends)
}

/// Whether the patched tree is the one that the human's change makes.
fn is_human_tree(plan: &Plan, node: usize, ends: &dyn Ends) -> bool {
    let output = |role: &Role, name: &str| {
        let up = plan.linked(node, role)?;
        ends.end(up).settled()?.outputs.get(name)?.as_text().map(str::to_owned)
    };
    let patched = output(&Role::Patch, "tree");
    patched.is_some() && patched == output(&Role::Checkout, "human tree")
}

/// The submodules that the human's commit moves, where what is measured is the human's tree or is compared with it.
fn submodules(plan: &Plan, node: usize, ends: &dyn Ends) -> Option<Value> {
    let moved = ends.end(plan.linked(node, &Role::Checkout)?).settled()?.outputs.get(SUBMODULES)?;
    (is_human_tree(plan, node, ends) || with_human(plan, node)).then(|| moved.clone())
}

/// How one upstream action ended, in the words of the rules.
fn step_end(plan: &Plan, node: usize, role: &Role, ends: &dyn Ends) -> StepEnd {
    let Some(up) = plan.linked(node, role) else { return StepEnd::Absent };
    match ends.end(up) {
        End::Pending | End::Open(_) => StepEnd::Open,
        End::Skipped(cause) => StepEnd::Skipped(*cause),
        End::Blocked { .. } => StepEnd::Blocked,
        End::Settled(ended) | End::Reopened(ended) => match ended.outcome.failure() {
            None => StepEnd::Succeeded,
            Some(failure) => StepEnd::Failed {
                cause: failure.cause,
                base_arm: ended.outputs.get("failed arm").and_then(Value::as_text) == Some("base"),
            },
        },
    }
}

/// The ends that the rules read.
fn ends_of(plan: &Plan, node: usize, ends: &dyn Ends, effect: Option<Effect>) -> class::Ends {
    let end = |role: &Role| step_end(plan, node, role, ends);
    let environment = match (end(&Role::Environment), end(&Role::Rebuilt)) {
        (base @ (StepEnd::Failed { .. } | StepEnd::Open), _) => base,
        (_, rebuilt @ (StepEnd::Failed { .. } | StepEnd::Open)) => rebuilt,
        (base, _) => base,
    };
    class::Ends {
        checkout: end(&Role::Checkout),
        environment,
        baseline: end(&Role::Baseline),
        agent: end(&Role::Agent),
        patch: end(&Role::Patch),
        patched: end(&Role::Patched),
        effect,
    }
}

/// The class that can be said while something upstream is open; never a settled one.
#[must_use]
pub fn provisional(plan: &Plan, node: usize, ends: &dyn Ends) -> Verdict {
    let mut upstream = ends_of(plan, node, ends, None);
    // Nothing downstream can be said while these are open; how they failed last can.
    let failed = |role: &Role| match ends.end(plan.linked(node, role)?) {
        End::Open(open) => open
            .cause
            .filter(|cause| *cause != Cause::Interrupted)
            .map(|cause| StepEnd::Failed { cause, base_arm: false }),
        _ => None,
    };
    if let Some(failed) = failed(&Role::Checkout) {
        upstream.checkout = failed;
    }
    if let Some(failed) = failed(&Role::Environment).or_else(|| failed(&Role::Rebuilt)) {
        upstream.environment = failed;
    }
    if let Some(failed @ StepEnd::Failed { cause: Cause::EnvironmentFailed, .. }) = failed(&Role::Baseline) {
        upstream.baseline = failed;
    }
    if plan.linked(node, &Role::Agent).is_some_and(|up| matches!(ends.end(up), End::Reopened(_))) {
        // What was made of an attempt that does not speak any more says nothing; how that attempt reads today does.
        (upstream.patch, upstream.patched) = (StepEnd::Blocked, StepEnd::Blocked);
    }
    Verdict { open: true, ..class::classify(&upstream) }
}

/// Says the class; blocking, for it reads the stored result.
pub fn run(context: &Context, node: usize, ask: ClassifyAsk, ends: &dyn Ends) -> Done {
    match say(context, node, ask, ends) {
        Ok(done) => done,
        Err(failure) => Done::failed(failure),
    }
}

fn say(context: &Context, node: usize, ask: ClassifyAsk, ends: &dyn Ends) -> Result<Done, Failure> {
    let plan = &context.plan;
    let result = result_of(context, node, &Role::Patched, ends)?;
    let analysis = result.as_ref().map(|result| measure::analyse(result, ask.judge_min_effect));
    let doubt = result
        .as_ref()
        .zip(analysis.as_ref())
        .and_then(|(result, analysis)| measure::plausible::doubt(result, analysis));
    let second = match &analysis {
        Some(analysis) if doubt.is_none() && measure::again::asks(analysis) => {
            second_session(context, node, ask, analysis, ends)?
        }
        _ => None,
    };
    let contradicted = matches!(second, Some((Again::Contradicted, _)));
    let found = match &doubt {
        Some(_) => Some(Effect::Doubted),
        None if contradicted => Some(Effect::Inconclusive),
        None => analysis.as_ref().map(|analysis| effect(analysis.verdict)),
    };
    let verdict = class::classify(&ends_of(plan, node, ends, found));
    let mut done = Done::succeeded();
    done.output("class", Value::text(verdict.class.name()));
    let mut marks = Vec::new();
    if same_as_human(plan, node, ends) {
        marks.push("SAME_AS_HUMAN".to_owned());
    }
    if let Some(moved) = submodules(plan, node, ends) {
        marks.push("SUBMODULES".to_owned());
        let first = if let Value::List(paths) = moved { paths.into_iter().next() } else { None }.unwrap_or_default();
        done.notes.push(format!("the human's commit moves submodules, which are not measured, such as {first}"));
    }
    let unbuilt = unbuilt(context, node, ends);
    if let Some(first) = unbuilt.first().filter(|_| result.is_some()) {
        marks.push("NOT_BUILT".to_owned());
        let count = crate::text::counted(unbuilt.len(), "file");
        let what = "of a compiled build that no `from` covers";
        done.notes.push(format!("not built: the patch changes {count} {what}, such as {first}"));
    }
    let binaries = binaries(context, node, ends);
    if let Some(first) = binaries.first().filter(|_| result.is_some()) {
        marks.push("BINARY".to_owned());
        let count = crate::text::counted(binaries.len(), "compiled file");
        done.notes.push(format!("the patch brings {count}, such as {first}: what that is made of cannot be told"));
    }
    if let Some(doubt) = doubt.filter(|_| verdict.class == Class::Suspect) {
        // No speed is told of what cannot be believed.
        marks.extend(analysis.iter().flat_map(|analysis| analysis.marks.iter().cloned()));
        done.output("evidence", Value::text(doubt));
    }
    if let Some(analysis) = analysis.filter(|_| verdict.class.usable() || verdict.class == Class::Mixed) {
        let unclocked = result.as_ref().and_then(|result| measure::plausible::unclocked(result, &analysis));
        marks.extend(analysis.marks);
        let mut text = analysis.text;
        if let Some(why) = unclocked {
            marks.push("UNCLOCKED".to_owned());
            done.notes.push(format!("not borne out by flow's clock: {why}"));
        }
        if let Some((again, said)) = second {
            marks.push(again.mark().to_owned());
            text.push_str(&said);
        }
        // Of two sessions that contradict each other neither's ratio stands.
        let stands = !contradicted;
        if let Some(speedup) = analysis.speedup.filter(|_| stands) {
            done.output("speedup", Value::text(format!("{speedup:.6}")));
        }
        if let Some([low, high]) = analysis.ci.filter(|_| stands) {
            done.output("interval", Value::List(vec![format!("{low:.6}"), format!("{high:.6}")]));
        }
        if let Some(alpha) = analysis.alpha.filter(|_| stands) {
            done.output("level", Value::text(level(alpha)));
        }
        if let Some(estimate) = analysis.metrics.first().and_then(|metric| metric.estimate).filter(|_| stands) {
            // What another session is compared with.
            let Estimate { log_mean, log_sd, n, .. } = estimate;
            done.output("blocks", Value::List(vec![format!("{log_mean:.9}"), format!("{log_sd:.9}"), n.to_string()]));
        }
        // One tree is not measured against itself.
        let same = || {
            (with_human(plan, node) && is_human_tree(plan, node, ends)).then(|| AgainstHuman::same(analysis.speedup))
        };
        if let Some(human) = analysis.human.or_else(same).filter(|_| stands) {
            done.output("human", Value::List(against(&human)));
        }
        if analysis.metrics.len() > 1 {
            done.output("metrics", Value::List(analysis.metrics.iter().map(metric_text).collect()));
        }
        done.output("evidence", Value::text(text));
    }
    if !marks.is_empty() {
        done.output("marks", Value::List(marks));
    }
    Ok(done)
}

/// The files of the patch that decide what is compiled and that nothing was built from; none where the patch is not known.
fn unbuilt(context: &Context, node: usize, ends: &dyn Ends) -> Vec<String> {
    let of_patch = patch_of(context, node, ends);
    let Some((digest, changes)) = of_patch.and_then(|digest| Some((digest, context.changes(digest).ok()?))) else {
        return Vec::new();
    };
    let checkout = context.plan.linked(node, &Role::Checkout).and_then(|up| ends.end(up).settled());
    let base = checkout.and_then(|ended| ended.outputs.get("tree")?.as_text());
    let paths: Vec<String> = changes.paths().map(ToString::to_string).collect();
    environment::unbuilt(context, node, base.unwrap_or_default(), digest, &paths)
}

/// The files of the patch that are compiled code; none where the patch is not known.
fn binaries(context: &Context, node: usize, ends: &dyn Ends) -> Vec<String> {
    let brings = |(path, entry): (&git::TreePath, &git::Entry)| {
        let git::Entry::File { blob, .. } = entry else { return None };
        let path = path.to_string();
        environment::is_binary(&path, &context.begin_of(blob)).then_some(path)
    };
    changes(context, node, ends).map(|changes| changes.iter().filter_map(brings).collect()).unwrap_or_default()
}

fn changes(context: &Context, node: usize, ends: &dyn Ends) -> Option<git::Changes> {
    context.changes(patch_of(context, node, ends)?).ok()
}

fn patch_of(context: &Context, node: usize, ends: &dyn Ends) -> Option<Digest> {
    let patch = context.plan.linked(node, &Role::Patch).and_then(|up| ends.end(up).settled());
    patch.and_then(|ended| ended.outputs.get("changes")).and_then(Value::as_blob)
}

/// What the test of a role measured; nothing where that was nothing.
fn result_of(context: &Context, node: usize, role: &Role, ends: &dyn Ends) -> Result<Option<TestResult>, Failure> {
    let ended = context.plan.linked(node, role).and_then(|up| ends.end(up).settled());
    let digest = ended.and_then(|ended| ended.outputs.get("result")).and_then(Value::as_blob);
    let decode = |digest| {
        let bytes = context.get(&digest)?;
        TestResult::decode(&bytes).map_err(|error| Failure::new(Cause::HarnessFault, &error.to_string()))
    };
    digest.map(decode).transpose()
}

/// Whether the human's tree is asked about in the same session.
fn with_human(plan: &Plan, node: usize) -> bool {
    plan.linked(node, &Role::Patched)
        .is_some_and(|up| matches!(&plan.nodes[up].ask, Ask::Test(ask) if ask.human && !ask.aa))
}

/// Whether a verdict is measured by the profile for numbers that are published.
fn published(plan: &Plan, node: usize) -> bool {
    plan.linked(node, &Role::Patched).is_some_and(|up| match &plan.nodes[up].ask {
        Ask::Test(ask) => ask.protocol.profile == Profile::Headline && !ask.aa && !ask.counts_only(),
        _ => false,
    })
}

/// What a second session makes of a verdict, and what the evidence says of it; nothing where none was asked for and the verdict
/// is not one to be published.
fn second_session(
    context: &Context,
    node: usize,
    ask: ClassifyAsk,
    first: &Analysis,
    ends: &dyn Ends,
) -> Result<Option<(Again, String)>, Failure> {
    let plan = &context.plan;
    let Some(up) = plan.linked(node, &Role::Again) else {
        let none = Again::Unconfirmed("no second session was asked for".to_owned());
        return Ok(published(plan, node).then_some((none, String::new())));
    };
    let on = |up: usize| ends.end(up).settled().map(|ended| ended.slots.join(", ")).unwrap_or_default();
    let Some(result) = result_of(context, node, &Role::Again, ends)? else {
        let why = match ends.end(up).settled().and_then(|ended| ended.outcome.failure()) {
            Some(failure) => format!("the second session failed: {}", failure.cause),
            None => "the second session measured nothing".to_owned(),
        };
        return Ok(Some((Again::Unconfirmed(why.clone()), format!("; {why}"))));
    };
    let second = measure::analyse(&result, ask.judge_min_effect);
    let again = match measure::plausible::doubt(&result, &second) {
        Some(_) => Again::Unconfirmed("the second session cannot be believed".to_owned()),
        None => measure::again::again(first, &second),
    };
    let why = match &again {
        Again::Confirmed => String::new(),
        Again::Unconfirmed(why) => format!(": {why}"),
        Again::Contradicted => ": contradicted".to_owned(),
    };
    let on_first = plan.linked(node, &Role::Patched).map(on).unwrap_or_default();
    Ok(Some((again, format!(" on {on_first}; again {} on {}{why}", second.text, on(up)))))
}

/// The human's comparison as it is stored: what it comes to, the ratio, the ends of its interval and its level, and what the
/// human's tree gains; what there is not is empty.
fn against(human: &AgainstHuman) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
    let [low, high] = human.ci.map_or([None, None], |ci| ci.map(Some));
    let level = human.alpha.map(level).unwrap_or_default();
    vec![human.says.name().to_owned(), number(human.ratio), number(low), number(high), level, number(human.gain)]
}

fn effect(verdict: measure::Verdict) -> Effect {
    match verdict {
        measure::Verdict::Improvement => Effect::Improvement,
        measure::Verdict::Neutral => Effect::Neutral,
        measure::Verdict::Regression => Effect::Regression,
        measure::Verdict::Mixed => Effect::Mixed,
        measure::Verdict::Inconclusive { .. } => Effect::Inconclusive,
    }
}
