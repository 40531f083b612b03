//! What turns a pipeline into a campaign: which commits were vetted, the A/A control, a person's rulings; and the two pipelines
//! that are made of a manifest for `flow vet` and `flow calibrate`.
//!
//! Reads the files of `vetted` and `rulings`. Draws which jobs have a control from the commits' ids, so that the same manifest
//! has the same ones everywhere. Measures nothing and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::flaw::{Draft, Report};
use super::grammar::In;
use super::node::{Node, Scope, Value};
use super::read::{begins, missing, read_file};
use super::{
    Agent, Axis, Body, Candidate, Commit, Env, Kind, Pipeline, Place, Reuse, Spanned, Step, Template, TestBody, shape,
    syntax,
};
use crate::agent::{ReadingTable, Tables};
use crate::class::Class;
use crate::digest::Digest;
use crate::measure::{Kind as MetricKind, MetricSpec};

/// The axis that tells the A/A controls of a commit apart.
pub const DRAW: &str = "aa";
/// The step that measures a control, and the one that says what came of it.
const CONTROL: [&str; 2] = ["control", "control-verdict"];
/// The share of jobs that have a control where nobody says it.
const SHARE: f64 = 0.10;
/// The most controls of a commit.
const DRAWS: usize = 1000;
/// The largest file of rulings or of vetted commits, in bytes.
const FILE_BYTES: u64 = 16 << 20;

/// What a manifest is read for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Purpose {
    /// To be run as it stands.
    #[default]
    Run,
    /// Gate, the human's change and one A/A control for every commit of the list.
    Vet,
    /// As it stands, with A/A controls for this share of its jobs, a fraction; that of the manifest where none is said.
    Calibrate(Option<f64>),
}

/// The A/A control of a pipeline.
#[derive(Clone, Debug)]
pub struct Calibrate {
    /// The share of jobs, a fraction.
    pub share: f64,
    /// Which draws there are: repository, commit, and value of the axis `DRAW`. Empty where nothing of time is measured.
    pub drawn: BTreeSet<(usize, usize, usize)>,
    place: Place,
}

/// What a file of vetted commits says of a repository's list.
#[derive(Clone, Debug)]
pub struct Vetted {
    /// The file.
    pub file: PathBuf,
    /// How many commits the list has.
    pub listed: usize,
    /// How many of them are vetted.
    pub vetted: usize,
    /// How many are out.
    pub out: usize,
}

impl Vetted {
    /// How many the file says nothing of.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.listed.saturating_sub(self.vetted + self.out)
    }
}

/// What a person said of a job.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// The job's name, and where it stands.
    pub job: Spanned<String>,
    /// The class in place of flow's; `None` takes the job out.
    pub verdict: Option<Class>,
    /// Why.
    pub because: String,
}

/// A file beside the manifest, its nodes checked by the forms that may stand in it.
fn nodes_of<T>(
    path: &Spanned<PathBuf>,
    written: &str,
    at: In,
    report: &Report,
    read: impl Fn(Node<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let text = match read_file(report, &path.value, FILE_BYTES) {
        Ok(text) => text,
        Err(problem) => {
            missing(report, path.place, written, &path.value, &problem);
            return None;
        }
    };
    let shown = report.shown(path.place.file, written);
    let file = report.add_file(path.value.clone(), shown, text.as_str().into());
    let dir = path.value.parent().map(Path::to_owned).unwrap_or_default();
    let scope = Scope { file, dir };
    let document = syntax::parse(&text, file, report)?;
    begins(&document, &scope, report);
    let nodes = || document.nodes().iter().map(|raw| Node { raw, scope: &scope });
    shape::check(nodes(), at, report);
    Some(nodes().filter_map(read).collect())
}

/// What `vetted` says: keeps of the commits those that are. A pipeline that vets keeps all.
pub(super) fn vetted(node: Node<'_>, commits: &mut Vec<Commit>, report: &Report) -> Option<Vetted> {
    let (path, written) = (node.arg(0)?.path()?, node.arg(0)?.str()?);
    let listed = commits.len();
    if report.purpose == Purpose::Vet {
        return Some(Vetted { file: path.value, listed, vetted: 0, out: 0 });
    }
    let said = nodes_of(&path, written, In::Vetted, report, |node| {
        let id = node.text().filter(|_| matches!(node.name(), "commit" | "out"))?;
        Some((id, node.name() == "commit"))
    })?;
    let same = |id: &str, other: &str| id.starts_with(other) || other.starts_with(id);
    let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
    for (id, _) in &said {
        if let Some(first) = seen.insert(id.value.as_str(), id) {
            report.add(
                Draft::new("duplicate-commit", id.place, format!("the commit `{}` stands here twice", id.value))
                    .label("again here")
                    .other(first.place, "first here")
                    .help("a commit is vetted or out: keep one, or run `flow vet` again"),
            );
        }
        if !commits.iter().any(|commit| same(&commit.id.value, &id.value)) {
            report.notice(id.place, format!("`{}` is not in the list of commits any more", id.value));
        }
    }
    let of = |commit: &Commit| said.iter().find(|(id, _)| same(&commit.id.value, &id.value)).map(|(_, vetted)| *vetted);
    let out = commits.iter().filter(|commit| of(commit) == Some(false)).count();
    commits.retain(|commit| of(commit) == Some(true));
    let vetted = Vetted { file: path.value, listed, vetted: commits.len(), out };
    if vetted.unknown() > 0 {
        let text = format!("{} of {listed} commits are not vetted yet, and left out: run `flow vet`", vetted.unknown());
        report.notice(path.place, text);
    }
    Some(vetted)
}

/// The A/A control that the pipeline asks for, or that what it is read for does.
pub(super) fn calibrate(pipeline: Node<'_>, report: &Report) -> Option<Calibrate> {
    let node = pipeline.child("calibrate");
    let said = node.map(|node| node.arg(0).and_then(Value::percent));
    if let Some(Some(share)) = &said
        && !(share.value > 0.0 && share.value <= 1.0)
    {
        report.add(
            Draft::new("bad-share", share.place, "a share of the jobs is more than 0 % and at most 100 %")
                .label("no share")
                .help("write `calibrate \"10%\"`, or leave the node out for no control"),
        );
    }
    let share = said.map(|said| said.map_or(SHARE, |share| share.value));
    let share = match report.purpose {
        Purpose::Run => share?,
        Purpose::Vet => 1.0,
        Purpose::Calibrate(asked) => asked.or(share).unwrap_or(SHARE),
    };
    let place = node.map_or_else(|| pipeline.place(), Node::place);
    Some(Calibrate { share, drawn: BTreeSet::new(), place })
}

/// What a person said of jobs.
pub(super) fn rulings(node: Node<'_>, report: &Report) -> Vec<Ruling> {
    let Some((path, written)) = node.arg(0).and_then(|arg| Some((arg.path()?, arg.str()?))) else { return Vec::new() };
    let read = |node: Node<'_>| {
        let verdict = match node.name() {
            "skip" => None,
            "ruling" => {
                let name = node.prop("verdict")?.str()?;
                Some(Class::ALL.iter().copied().find(|class| class.name() == name)?)
            }
            _ => return None,
        };
        Some(Ruling { job: node.text()?, verdict, because: node.prop("because")?.str()?.to_owned() })
    };
    let rulings = nodes_of(&path, written, In::Rulings, report, read).unwrap_or_default();
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    for ruling in &rulings {
        if ruling.because.trim().is_empty() {
            report.add(
                Draft::new("no-reason", ruling.job.place, "a judgement says why")
                    .label("without a reason")
                    .help("write because=\"…\": it is shown in every report"),
            );
        }
        if let Some(first) = seen.insert(ruling.job.value.as_str(), ruling.job.place) {
            report.add(
                Draft::new("duplicate-name", ruling.job.place, format!("`{}` is judged twice", ruling.job.value))
                    .label("again here")
                    .other(first, "first here")
                    .help("keep one of the two"),
            );
        }
    }
    rulings
}

/// For a pipeline that vets: the human's change is the only candidate, and nothing is paid.
pub(super) fn candidates(pipeline: &mut Pipeline, report: &Report) {
    if report.purpose != Purpose::Vet {
        return;
    }
    let applies = |agent: &Agent| agent.run.iter().any(|word| word.value.holes().any(|hole| hole == "human-change"));
    let known =
        pipeline.candidates.iter().find(|candidate| pipeline.agents.get(&candidate.agent.value).is_some_and(applies));
    let place = pipeline.name.place;
    let spanned = |value: &str| Spanned { value: value.to_owned(), place };
    let human = match known {
        Some(known) => Candidate { samples: 1, ..known.clone() },
        None => {
            let adapter = human(place);
            let name = adapter.name.value.clone();
            pipeline.agents.insert(name.clone(), adapter);
            Candidate {
                name: Spanned { value: "human".into(), place },
                agent: spanned(&name),
                model: None,
                provider: None,
                canary: None,
                config: None,
                samples: 1,
                reuse: Reuse::Environment,
                reuse_place: None,
                files: Vec::new(),
                args: Vec::new(),
                expect: None,
                env: Env::default(),
            }
        }
    };
    pipeline.candidates = vec![human];
    pipeline.budget = None;
    pipeline.confirm = None;
}

/// The adapter that applies the human's change: that of `agents/human.kdl`, so that both have one key.
fn human(place: Place) -> Agent {
    let word = |text: &str| Spanned { value: Template::parse(text).unwrap_or_else(|_| Template::literal(text)), place };
    let argv = ["{flow}", "act", "apply", "{human-change}"];
    Agent {
        name: Spanned { value: "human".into(), place },
        run: argv.into_iter().map(word).collect(),
        stdin: None,
        version: Some(Spanned { value: "1".into(), place }),
        env: Env::default(),
        trajectory: None,
        free: true,
        keep: Vec::new(),
        reading: Arc::new(Tables::new(ReadingTable::default(), argv.into_iter().map(str::to_owned))),
    }
}

/// Adds the steps that measure the control, where the pipeline asks for one and measures time.
pub(super) fn control(pipeline: &mut Pipeline, report: &Report) {
    let Some(calibrate) = pipeline.calibrate.clone() else { return };
    let Some((measured, against)) = measurement(pipeline) else {
        report.add(
            Draft::new("nothing-measured", calibrate.place, "no test of a patch is held against a gate")
                .label("has no measurement to check")
                .help("an A/A control is measured as a step like `patched` is: step patched { against baseline }"),
        );
        return;
    };
    let Some(gate) = pipeline.steps.iter().find(|step| step.name.value == against.value) else { return };
    let (needs, place) = (gate.needs.clone(), calibrate.place);
    let verdict = pipeline
        .steps
        .iter()
        .find(|step| step.kind() == Kind::Classify && step.needs.iter().any(|need| need.value == measured.name.value));
    let Some(verdict) = verdict.cloned() else { return };
    let drawn = draws(pipeline, &measured, calibrate.share, report.purpose);
    let most = drawn.iter().map(|(_, _, draw)| draw + 1).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    let taken = |name: &str| pipeline.steps.iter().find(|step| step.name.value.as_str() == name).map(|s| s.name.place);
    let axis = pipeline.axes.iter().find(|axis| axis.name.value == DRAW).map(|axis| axis.name.place);
    if let Some(other) = axis.or_else(|| CONTROL.iter().find_map(|name| taken(name))) {
        report.add(
            Draft::new("taken-name", other, "the A/A control uses this name")
                .label("has a meaning of its own beside `calibrate`")
                .other(place, "asked for here")
                .help("choose another name"),
        );
        return;
    }
    let named = |name: &str| Spanned { value: name.into(), place };
    let each = Spanned { value: DRAW.to_owned(), place };
    let Body::Test(body) = &measured.body else { return };
    let body =
        Body::Test(Box::new(TestBody { aa: true, human: None, human_build: None, second: None, ..(**body).clone() }));
    let control = Step {
        name: named(CONTROL[0]),
        needs,
        after: Vec::new(),
        each: vec![each],
        axes: Vec::new(),
        body,
        ..measured
    };
    let verdict = Step {
        name: named(CONTROL[1]),
        needs: vec![Spanned { value: against.value, place }, named(CONTROL[0])],
        after: Vec::new(),
        each: Vec::new(),
        axes: Vec::new(),
        ..verdict
    };
    pipeline.steps.extend([control, verdict]);
    let values = (1..=most).map(|draw| format!("{DRAW}{draw}")).collect();
    pipeline.axes.push(Axis { name: Spanned { value: DRAW.to_owned(), place }, values });
    pipeline.calibrate = Some(Calibrate { drawn, ..calibrate });
}

/// The test of a patch, and the gate that it is held against.
fn measurement(pipeline: &Pipeline) -> Option<(Step, Spanned<crate::names::StepName>)> {
    let patches = |step: &Step| {
        let of = |need: &Spanned<crate::names::StepName>| {
            pipeline.steps.iter().any(|up| up.name.value == need.value && up.kind() == Kind::Patch)
        };
        step.needs.iter().any(of)
    };
    pipeline.steps.iter().filter(|step| patches(step)).find_map(|step| match &step.body {
        Body::Test(test) => Some((step.clone(), test.against.clone()?)),
        _ => None,
    })
}

/// Which controls there are: of all jobs that measure time the share whose digests are the lowest, at least one.
fn draws(pipeline: &Pipeline, measured: &Step, share: f64, purpose: Purpose) -> BTreeSet<(usize, usize, usize)> {
    let own: &[MetricSpec] = match &measured.body {
        Body::Test(test) => &test.metrics,
        _ => &[],
    };
    let timed = |repo: usize, commit: usize| {
        let tests = pipeline.tests_of(repo, commit).map(|tests| tests.metrics.as_slice()).unwrap_or_default();
        let metrics = if own.is_empty() { tests } else { own };
        metrics.is_empty() || metrics.iter().any(|metric| metric.kind == MetricKind::Time)
    };
    let jobs: usize = pipeline.candidates.iter().map(|candidate| candidate.samples as usize).sum();
    let jobs = if purpose == Purpose::Vet { 1 } else { jobs.clamp(1, DRAWS) };
    let mut all: Vec<(Digest, (usize, usize, usize))> = Vec::new();
    for (repo, decl) in pipeline.repos.iter().enumerate() {
        for (index, commit) in decl.commits.iter().enumerate().filter(|(index, _)| timed(repo, *index)) {
            for draw in 0..jobs {
                let seed = format!("A/A {} {} {draw}", pipeline.name.value, commit.id.value);
                all.push((Digest::of(seed.as_bytes()), (repo, index, draw)));
            }
        }
    }
    all.sort_unstable();
    let many = (share * all.len() as f64).ceil() as usize;
    all.into_iter().take(many).map(|(_, draw)| draw).collect()
}
