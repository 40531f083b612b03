//! Which commits are worth paying agents for: those whose human change is faster here. The text of `vetted.kdl`.
//!
//! A pure function of the plan and the store. Writes no file.

use crate::class::Class;
use crate::digest::Digest;
use crate::git::Changes;
use crate::key::Value;
use crate::measure::analysis::Ratio;
use crate::outcome::Owner;
use crate::plan::{Ask, Plan, Role};
use crate::report::campaign::{controls, differs};
use crate::report::jobs::{self, JobResult};
use crate::report::standing::{Standing, standing};
use crate::store::{Index, Store};
use crate::text::{harmless, shorten};

/// The largest change that is looked through, in bytes.
const CHANGE_BYTES: u64 = 64 << 20;
/// How long an evidence may be.
const EVIDENCE: usize = 160;
/// Endings of files that no program runs.
const PROSE: &[&str] = &["md", "rst", "txt", "adoc", "markdown"];

/// What was found of one commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Its human change is faster.
    Vetted {
        /// The speed-up: `1.34x`.
        effect: String,
        /// Its interval, or `exact`.
        interval: String,
        /// How sure that is.
        level: Option<String>,
        /// What it was measured on.
        device: Option<String>,
    },
    /// It is not evaluated.
    Out {
        /// The word of the manifest's grammar.
        because: &'static str,
        /// What shows it.
        evidence: String,
    },
    /// Not settled yet.
    Open(String),
}

/// What was found of the commits of one repository, in the order of its list.
#[derive(Clone, Debug)]
pub struct Vetting {
    /// The index of the repository.
    pub repo: usize,
    /// Each commit as it is written in the list.
    pub commits: Vec<(String, Found)>,
}

impl Vetting {
    /// How many are vetted, out and open.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let of = |is: fn(&Found) -> bool| self.commits.iter().filter(|(_, found)| is(found)).count();
        [
            of(|found| matches!(found, Found::Vetted { .. })),
            of(|found| matches!(found, Found::Out { .. })),
            of(|found| matches!(found, Found::Open(_))),
        ]
    }

    /// The file: the same for the same findings, in the order of the list.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from(
            "flow 1\n\n// Written by `flow vet`, which writes it anew: the commits whose human change is faster on this machine.\n",
        );
        for (id, found) in &self.commits {
            match found {
                Found::Vetted { effect, interval, level, device } => {
                    text.push_str(&format!(
                        "commit {} effect={} interval={}",
                        quoted(id),
                        quoted(effect),
                        quoted(interval)
                    ));
                    for (name, value) in [("level", level), ("device", device)] {
                        if let Some(value) = value {
                            text.push_str(&format!(" {name}={}", quoted(value)));
                        }
                    }
                    text.push('\n');
                }
                Found::Out { because, evidence } => {
                    text.push_str(&format!("out {} because={because} evidence={}\n", quoted(id), quoted(evidence)));
                }
                Found::Open(_) => {}
            }
        }
        text
    }
}

/// A text as KDL writes it, in one line.
fn quoted(text: &str) -> String {
    let line: String = harmless(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("\"{}\"", line.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether a commit undoes another: what it gains is what was lost before.
#[must_use]
pub fn reverts(plan: &Plan, commit: (usize, usize)) -> bool {
    let fact = plan.facts.commits.get(&commit).and_then(|fact| fact.as_ref().ok());
    fact.is_some_and(|fact| fact.subject.starts_with("Revert ") || fact.subject.starts_with("revert:"))
}

/// Looks at every commit of a plan that vets.
#[must_use]
pub fn vet(plan: &Plan, store: &Store, index: &Index) -> Vec<Vetting> {
    let wanted = vec![true; plan.nodes.len()];
    let standing = standing(plan, store, index, &wanted);
    let controls = controls(plan, store, index);
    let pipeline = &plan.manifest.pipeline;
    let of_repo = |(repo, decl): (usize, &crate::manifest::Repo)| Vetting {
        repo,
        commits: decl
            .commits
            .iter()
            .enumerate()
            .map(|(at, commit)| {
                let found = one(plan, store, &standing, &wanted, &controls, (repo, at));
                (commit.id.value.clone(), found)
            })
            .collect(),
    };
    pipeline.repos.iter().enumerate().map(of_repo).collect()
}

fn one(
    plan: &Plan,
    store: &Store,
    standing: &Standing,
    wanted: &[bool],
    controls: &[JobResult],
    commit: (usize, usize),
) -> Found {
    let out = |because, evidence: &str| Found::Out { because, evidence: shorten(evidence, EVIDENCE) };
    if reverts(plan, commit) {
        let fact = plan.facts.commits.get(&commit).and_then(|fact| fact.as_ref().ok());
        return out("revert", fact.map_or("", |fact| fact.subject.as_str()));
    }
    let of_commit = |job: &&crate::plan::Job| {
        job.classify.is_some_and(|classify| plan.nodes[classify].point.commit == Some(commit))
    };
    let Some(job) = (0..plan.jobs.len()).find(|job| !plan.jobs[*job].control && of_commit(&&plan.jobs[*job])) else {
        return Found::Open("no job".to_owned());
    };
    let result = jobs::result(plan, job, standing, wanted);
    let Some(class) = result.class.filter(|_| !result.open) else {
        return Found::Open(result.evidence.unwrap_or_default());
    };
    let classify = plan.jobs[job].classify.unwrap_or_default();
    if let Some(paths) = prose_only(plan, store, standing, classify) {
        return out("no-source", &format!("it changes {paths} alone"));
    }
    let evidence = result.evidence.clone().unwrap_or_default();
    let said = if evidence.starts_with(class.name()) { evidence } else { format!("{}: {evidence}", class.name()) };
    match class {
        Class::NoTestScript => out("no-test", &said),
        Class::AgentNoPatch | Class::PatchEmptyEdit => out("no-source", &said),
        Class::Inconclusive | Class::Suspect => out("undecided", &said),
        Class::SuccessNeutral | Class::SuccessRegression | Class::Mixed => out("not-faster", &said),
        Class::SuccessImprovement => {
            let own = |control: &&JobResult| {
                ["repo", "commit"].iter().all(|axis| control.axes.get(axis) == result.axes.get(axis))
            };
            if controls.iter().filter(own).any(|control| control.open) {
                return Found::Open("its A/A control is not settled".to_owned());
            }
            if let Some(control) = controls.iter().filter(own).find(|control| control.class.is_some_and(differs)) {
                let class = control.class.map_or("", Class::name);
                let said =
                    format!("base against base came out as {class}: {}", control.evidence.as_deref().unwrap_or(""));
                return out("noisy", &said);
            }
            let ratio = result.speedup.map_or_else(|| "unknown".to_owned(), |ratio| format!("{}x", Ratio(ratio)));
            let interval = result.ci.map(|[low, high]| format!("[{}, {}]", Ratio(low), Ratio(high)));
            Found::Vetted {
                effect: ratio,
                interval: interval.unwrap_or_else(|| "exact".to_owned()),
                level: result.level.clone(),
                device: device(plan, classify),
            }
        }
        _ if class.owner() == Some(Owner::Harness) => Found::Open(said),
        _ => out("test-fails", &said),
    }
}

fn device(plan: &Plan, classify: usize) -> Option<String> {
    match &plan.nodes[plan.linked(classify, &Role::Patched)?].ask {
        Ask::Test(ask) => ask.device.clone(),
        _ => None,
    }
}

/// The paths of a human change that is of prose alone, a few of them.
fn prose_only(plan: &Plan, store: &Store, standing: &Standing, classify: usize) -> Option<String> {
    let checkout = plan.linked(classify, &Role::Checkout)?;
    let digest: Digest = standing.ends[checkout].settled()?.outputs.get("human change").and_then(Value::as_blob)?;
    let changes = Changes::decode(&store.cas.get(&digest, CHANGE_BYTES).ok()??).ok()?;
    let paths: Vec<String> = changes.paths().map(ToString::to_string).collect();
    let prose = |path: &String| {
        let ending = path.rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
        ending.is_some_and(|ending| PROSE.contains(&ending.as_str()))
    };
    (!paths.is_empty() && paths.iter().all(prose)).then(|| paths.iter().take(3).cloned().collect::<Vec<_>>().join(", "))
}
