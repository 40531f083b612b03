//! Two versions of a manifest compared: which actions would have other keys, by the ingredients that are known before anything runs.
//!
//! Needs no run, no store and no tool. What an action reads from others is not known here: it is said to follow them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::key::{Change, Value};
use crate::manifest::Kind;
use crate::names::Axes;
use crate::plan::{Plan, point_name};
use crate::run::decide::{limits, limits_shown};
use crate::run::reuse::may_stand;
use crate::step::known;
use crate::why::action::Action;
use crate::why::change::{Blobs, Shown};
use crate::why::explain::{EXECUTES, Explanation, JobSaid, StepSaid, cause_of, roots};
use crate::why::known;
use crate::why::origin::{Traced, Tracer};
use crate::why::past::PROGRAM;
use crate::why::toolfiles::uses;
use crate::why::wiring::{FILES, Standing, Wire, Wiring, chosen, reading_change};

/// What became of an action from one version to the other.
#[derive(Clone, Debug, Default)]
pub struct Differs {
    /// Its number in the older plan.
    pub old: Option<usize>,
    /// Ingredients of its own, and what it reads from another one than before; the first to blame first.
    pub changes: Vec<Change>,
    /// Limits that are others: they are in no key.
    pub limits: Vec<Change>,
    /// Whether one of them is raised: what had met it runs again.
    pub raised: bool,
    /// The table by which its attempts are read, if that is another: it is in no key either.
    pub reading: Option<Change>,
    /// Whether a gate of it was added or taken away.
    pub gates: bool,
    /// Actions upstream that differ.
    pub follows: Vec<usize>,
    /// The word of what is not run in the newer version.
    pub over: Option<&'static str>,
    /// An action before it with the same key: one of them is executed.
    pub shares: Option<usize>,
    /// Tools of it whose own files differ, and which of them do: what they answer is not known.
    pub tools: Vec<(String, PathBuf)>,
    /// Whether all that differs is how its tools are declared: they may answer the same.
    pub unsure: bool,
    /// Whether a rule of the manifest may let the older version's draw stand.
    pub reusable: bool,
    /// Whether it is not run in one version alone.
    turned: bool,
}

/// Whether a version runs an action again that the one before had run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It has what the older version left.
    No,
    /// Perhaps: it follows, or only what had met a limit does.
    AtMost,
    /// It has a reason of its own.
    Yes,
}

impl Differs {
    /// Whether its key is another or may be, or its end.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        match self.over {
            Some(_) => self.turned,
            None => {
                self.old.is_none()
                    || !self.changes.is_empty()
                    || !self.follows.is_empty()
                    || self.raised
                    || self.reading.is_some()
                    || !self.tools.is_empty()
                    || self.turned
            }
        }
    }

    /// Whether it has a reason of its own.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.is_touched() && (!self.changes.is_empty() || self.old.is_none() && self.follows.is_empty())
    }

    /// Whether it is executed if the older version was run and the newer one is.
    #[must_use]
    pub fn again(&self) -> Again {
        match self {
            Self { over: Some(_), .. } | Self { shares: Some(_), .. } => Again::No,
            _ if !self.is_touched() => Again::No,
            _ if self.is_root() && !self.reusable && !self.unsure => Again::Yes,
            // It is read anew, and not run.
            _ if self.is_only_reread() => Again::No,
            _ => Again::AtMost,
        }
    }

    fn is_only_reread(&self) -> bool {
        let quiet = self.follows.is_empty() && self.changes.is_empty() && self.tools.is_empty();
        self.reading.is_some() && quiet && !self.raised && !self.turned && self.old.is_some()
    }

    /// What it is, in the words of a plan.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self { over: Some(word), turned: true, .. } => word,
            Self { over: Some(_), old: Some(_), .. } => "same",
            Self { old: None, .. } => "new",
            _ if !self.changes.is_empty() => "changed",
            _ if !self.follows.is_empty() || self.turned => "follows",
            _ if !self.tools.is_empty() => "tool",
            _ if self.raised => "limit",
            _ if self.reading.is_some() => "reread",
            _ => "same",
        }
    }
}

/// Compares every action of a plan with an older one. `stirred` are the tools whose own files differ.
#[must_use]
pub fn compare(old: &Plan, new: &Plan, stirred: &BTreeMap<String, PathBuf>) -> Vec<Differs> {
    let sides = Sides::of(old, new);
    let mut all: Vec<Differs> = Vec::with_capacity(new.nodes.len());
    let mut first: HashMap<Digest, usize> = HashMap::new();
    for node in 0..new.nodes.len() {
        let mut differs = sides.differs(node, &all);
        if differs.over.is_none() {
            let own = stirred.iter().filter(|(tool, _)| uses(new, node, tool));
            differs.tools = own.map(|(tool, path)| (tool.clone(), path.clone())).collect();
        }
        if differs.is_touched() && differs.over.is_none() {
            let owner = *first.entry(sides.after.symbols[node]).or_insert(node);
            differs.shares = (owner != node).then_some(owner);
        }
        all.push(differs);
    }
    all
}

/// Two plans, with what is known of both.
struct Sides<'a> {
    old: &'a Plan,
    new: &'a Plan,
    before: Wiring,
    after: Wiring,
    /// Actions of the older plan by kind and point.
    at_point: HashMap<(Kind, String), Vec<usize>>,
    /// Those that it runs, by what stands for their keys.
    by_symbol: HashMap<Digest, usize>,
    /// Candidates that the newer plan has no longer.
    gone: Vec<String>,
}

impl<'a> Sides<'a> {
    fn of(old: &'a Plan, new: &'a Plan) -> Self {
        let (before, after) = (Wiring::of(old), Wiring::of(new));
        let mut at_point: HashMap<(Kind, String), Vec<usize>> = HashMap::new();
        let mut by_symbol = HashMap::new();
        for node in 0..old.nodes.len() {
            at_point.entry((old.kind(node), point_name(&old.nodes[node].axes))).or_default().push(node);
            if before.standing[node] == Standing::Runs {
                by_symbol.entry(before.symbols[node]).or_insert(node);
            }
        }
        Self { old, new, before, after, at_point, by_symbol, gone: candidates_only_in(old, new) }
    }

    /// The action of the older plan at a point: that of the same step, else the only one whose step is gone, else the only one.
    fn find(&self, node: usize, axes: &Axes) -> Option<usize> {
        let nodes = self.at_point.get(&(self.new.kind(node), point_name(axes)))?;
        let steps = &self.new.manifest.pipeline.steps;
        let name = |other: usize| &self.old.step(other).name.value;
        let only = |all: Vec<usize>| if let [only] = all[..] { Some(only) } else { None };
        let still = |other: usize| steps.iter().any(|step| step.name.value == *name(other));
        let named = nodes.iter().copied().find(|other| *name(*other) == self.new.step(node).name.value);
        named
            .or_else(|| only(nodes.iter().copied().filter(|other| !still(*other)).collect()))
            .or_else(|| only(nodes.clone()))
    }

    fn differs(&self, node: usize, all: &[Differs]) -> Differs {
        let axes = &self.new.nodes[node].axes;
        let record = known(self.new, node);
        let mut differs = Differs { old: self.find(node, axes), ..Differs::default() };
        if differs.old.is_none() && axes.get("candidate").is_some() {
            // A candidate under another name.
            let renamed = self.gone.iter().filter_map(|name| {
                let mut axes = axes.clone();
                axes.0.insert("candidate".to_owned(), name.clone());
                self.find(node, &axes)
            });
            differs.old = renamed.min_by_key(|other| record.changes_since(&known(self.old, *other)).len());
        }
        let standing = self.after.standing[node];
        differs.over = standing.word();
        // What the older version has under whatever name is there when the newer one is run.
        let there = self.by_symbol.get(&self.after.symbols[node]).copied().filter(|_| standing == Standing::Runs);
        if let Some(there) = there
            && differs.old.is_none_or(|other| self.before.symbols[other] != self.after.symbols[node])
        {
            differs.old = Some(there);
        }
        // What is there is served, whatever its gate says.
        if self.after.shut[node] && there.is_none() {
            differs.over = differs.over.or(Standing::Blocked.word());
        }
        if let Some(other) = differs.old {
            let was = self.before.standing[other] == Standing::Runs;
            // Whether the older version came to what waited for a gate that was shut, is not known.
            let opened = self.before.shut[other] && !self.after.shut[node];
            differs.turned = opened || there.is_none() && was != differs.over.is_none();
            differs.changes = record.changes_since(&known(self.old, other));
            differs.changes.extend(self.rewired(other, node, all));
            differs.reading = reading_change((self.old, other), (self.new, node));
            let gates = |plan: &Plan, node: usize| -> Vec<String> {
                plan.nodes[node].gates.iter().map(|gate| plan.step(*gate).name.value.to_string()).collect()
            };
            differs.gates = gates(self.old, other) != gates(self.new, node);
            self.limits(other, node, &mut differs);
            differs.unsure = !differs.changes.is_empty() && differs.changes.iter().all(is_declared_alone);
            differs.reusable = may_stand(self.new, node, &differs.changes);
        }
        if differs.over.is_some() && !differs.turned {
            // Neither version runs it.
            return Differs { old: differs.old, over: differs.over, ..Differs::default() };
        }
        // Who is linked to an action and has nothing of it in its key, does not follow it.
        let read = self.after.wires[node].iter().map(|wire| wire.up);
        let gates = self.new.nodes[node].gates.iter().copied().filter(|_| differs.turned);
        differs.follows = read.chain(gates).filter(|up| all.get(*up).is_some_and(Differs::is_touched)).collect();
        differs.follows.sort_unstable();
        differs.follows.dedup();
        differs
    }

    /// What is read from another action than before, or no longer.
    fn rewired(&self, other: usize, node: usize, all: &[Differs]) -> Vec<Change> {
        let (was, is) = (&self.before.wires[other], &self.after.wires[node]);
        let step = |plan: &Plan, wire: &Wire| plan.step(wire.up).name.value.to_string();
        let say = |plan: &Plan, wire: &Wire, whole: bool| {
            let output = wire.output.iter().map(|output| format!("{output} ")).collect::<String>();
            let up = if whole { plan.title(wire.up) } else { step(plan, wire) };
            Some(Value::text(format!("{output}of {up}")))
        };
        let mut changes = Vec::new();
        let (before, after) = (chosen(self.old, other), chosen(self.new, node));
        if before.is_some() && after.is_some() && before != after {
            let text = |text: Option<String>| text.map(|text| Value::text(text.trim_end()));
            changes.push(Change { ingredient: FILES.to_owned(), old: text(before), new: text(after) });
        }
        for wire in is {
            let before = was.iter().find(|before| before.role == wire.role);
            let same = before.is_some_and(|before| {
                let one = all.get(wire.up).and_then(|up| up.old) == Some(before.up)
                    || self.after.symbols[wire.up] == self.before.symbols[before.up];
                one && before.output == wire.output
            });
            if !same {
                let whole = before.is_some_and(|before| {
                    before.output == wire.output && step(self.old, before) == step(self.new, wire)
                });
                let old = before.and_then(|before| say(self.old, before, whole));
                changes.push(Change { ingredient: wire.role.clone(), old, new: say(self.new, wire, whole) });
            }
        }
        for wire in was.iter().filter(|wire| is.iter().all(|after| after.role != wire.role)) {
            // What is a file now stands among what is the action's own.
            if known(self.new, node).get(&wire.role).is_none() {
                changes.push(Change { ingredient: wire.role.clone(), old: say(self.old, wire, false), new: None });
            }
        }
        changes
    }

    fn limits(&self, other: usize, node: usize, differs: &mut Differs) {
        let (was, is) = (limits_shown(self.old, other), limits_shown(self.new, node));
        let mut names: Vec<&String> = was.keys().chain(is.keys()).collect();
        names.sort();
        names.dedup();
        for name in names.into_iter().filter(|name| was.get(*name) != is.get(*name)) {
            let (old, new) = (was.get(name).cloned(), is.get(name).cloned());
            differs.limits.push(Change { ingredient: name.clone(), old, new });
        }
        let (was, is) = (limits(self.old, other), limits(self.new, node));
        differs.raised = was.iter().any(|(name, old)| is.get(name).is_none_or(|new| new > old));
    }
}

/// Whether a change is one of how a tool is declared, and not of what it is.
fn is_declared_alone(change: &Change) -> bool {
    let role = change.ingredient.as_str();
    let program = |value: &Option<Value>| {
        let text = value.as_ref().and_then(Value::as_text).unwrap_or_default();
        text.lines().find(|line| line.starts_with(PROGRAM)).map(str::to_owned)
    };
    role.starts_with("source ")
        || (role.starts_with("tool ") || role == "interpreter")
            && (change.old.is_some() && change.new.is_some())
            && (program(&change.old).is_none()
                || program(&change.new).is_none()
                || program(&change.old) == program(&change.new))
}

fn candidates_only_in(plan: &Plan, other: &Plan) -> Vec<String> {
    let names = |plan: &Plan| -> Vec<String> {
        plan.manifest.pipeline.candidates.iter().map(|candidate| candidate.name.value.to_string()).collect()
    };
    let still = names(other);
    names(plan).into_iter().filter(|name| !still.contains(name)).collect()
}

/// Lines of a difference that are told at most; and the time from which ages are counted, if it is told what keys hold.
type Terms = (usize, Option<Timestamp>);

/// Explains jobs of the newer plan by what differs, and by tools whose own files do. `names` are those of the two versions, the older first.
#[must_use]
pub fn explain(
    (old, new, stirred): (&Plan, &Plan, &BTreeMap<String, PathBuf>),
    names: [String; 2],
    jobs: &[usize],
    blobs: &Blobs<'_>,
    terms: Terms,
    tracer: Option<&RefCell<Tracer>>,
) -> Explanation {
    let mut all = compare(old, new, stirred);
    share_among(&mut all, jobs.iter().flat_map(|job| new.jobs[*job].nodes.iter().copied()));
    let mut said_of: HashMap<usize, StepSaid> = HashMap::new();
    let mut jobs_said = Vec::new();
    for job in jobs {
        let job = &new.jobs[*job];
        let steps = job.nodes.iter().map(|node| {
            let said = said_of.entry(*node).or_insert_with(|| step((old, new), *node, &all, blobs, terms, tracer));
            said.clone()
        });
        jobs_said.push(JobSaid { job: job.id.clone(), axes: job.axes.clone(), steps: steps.collect() });
    }
    let (roots, root_steps) = roots(said_of.values());
    Explanation {
        pipeline: new.manifest.pipeline.name.value.clone(),
        manifest: new.manifest.files.first().map_or_else(String::new, |file| file.name.clone()),
        run: None,
        between: Some(names),
        jobs: jobs_said,
        roots,
        root_steps,
        consequences: said_of.values().filter(|said| !said.root && EXECUTES.contains(&said.state)).count(),
        missing: Vec::new(),
        estimate: None,
        comes_to: String::new(),
    }
}

/// Of the actions that are told and will have one key with one that is not, the first takes its place.
fn share_among(all: &mut [Differs], told: impl Iterator<Item = usize> + Clone) {
    let here: HashSet<usize> = told.clone().collect();
    let mut first: HashMap<usize, usize> = HashMap::new();
    for node in told {
        let Some(owner) = all[node].shares.filter(|owner| !here.contains(owner)) else { continue };
        let stands_for = *first.entry(owner).or_insert(node);
        all[node].shares = (stands_for != node).then_some(stands_for);
    }
}

fn step(
    (_, new): (&Plan, &Plan),
    node: usize,
    all: &[Differs],
    blobs: &Blobs<'_>,
    terms: Terms,
    tracer: Option<&RefCell<Tracer>>,
) -> StepSaid {
    let differs = &all[node];
    let mut said = StepSaid::new(new.step(node).name.value.as_str(), &new.nodes[node].axes, differs.state());
    said.root = differs.is_root() && differs.shares.is_none();
    said.cause = cause_of(differs.state(), &differs.changes, None);
    if said.state == "limit" {
        said.root = true;
        said.cause = cause_of(said.state, &differs.limits, None);
    }
    said.follows = differs.follows.iter().map(|up| new.title(*up)).collect();
    let action = Action::of(new, node);
    let trace = |change: &Change| {
        let shown = Shown::of(change, blobs, terms.0);
        match tracer {
            Some(tracer) => shown.traced(tracer.borrow_mut().change(&action, change, None)),
            None => shown,
        }
    };
    said.changes = differs.changes.iter().map(trace).collect();
    if !differs.limits.is_empty() {
        said.changes.extend(differs.limits.iter().map(trace));
        let what = if differs.raised {
            "only what had met it would run again"
        } else {
            "what used more is served all the same"
        };
        said.because = Some(format!("a limit is in no key: {what}"));
    }
    if let Some(reading) = &differs.reading {
        said.changes.push(trace(reading));
        said.because = Some(
            "its attempts are read by another table: none runs again for that, and its end may be another".to_owned(),
        );
    }
    if differs.reusable && !differs.changes.is_empty() {
        said.because = Some("an earlier draw may stand for it by a rule of `reuse`".to_owned());
    }
    if let Some((tool, path)) = differs.tools.first() {
        let path = crate::text::harmless(&path.to_string_lossy());
        said.because =
            Some(format!("{path} of tool {tool} differs: whether it answers otherwise is known only when it is asked"));
    }
    if differs.gates {
        said.because.get_or_insert_with(|| "it waits for other gates: what one had held up may run".to_owned());
    }
    said.shared_with = differs.shares.map(|with| new.title(with));
    said.known = terms.1.map(|now| known::known(new, node, Some(&known(new, node)), now));
    if differs.old.is_none() && said.root {
        if let Some(Traced::To(origin)) = tracer.map(|tracer| tracer.borrow_mut().action(&action)) {
            said.origin = Some(origin);
        }
        said.because = Some("it is not in the older version".to_owned());
    }
    said
}
