//! What a run did with the actions of some jobs, and why, by its journal.
//!
//! Needs no manifest: the journal names every action by its point, and a job's actions are those whose points lie on it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use jiff::Timestamp;

use crate::event::{Event, Reason, Told};
use crate::key::{ActionKey, Change};
use crate::names::{Axes, JobId, RunId};
use crate::plan::point_name;
use crate::run::journal::{PlanFile, read_of};
use crate::why::attempts::{AttemptSaid, ComparedSaid, age, disagree};
use crate::why::explain::{Explanation, JobSaid, Sources, StepSaid, about_limits, cause_of, roots};
use crate::why::known::{Known, held};

/// What the journal tells of one action.
#[derive(Default)]
struct Action {
    step: String,
    axes: Axes,
    key: Option<ActionKey>,
    why: Option<Reason>,
    failed: Vec<AttemptSaid>,
    end: Option<End>,
}

enum End {
    Settled { by: AttemptSaid, cached: bool, shared_with: Option<usize>, because: Vec<String>, follows: Vec<usize> },
    Over { word: String, because: String, follows: Vec<usize> },
}

/// What a run did, by action.
pub struct Ran {
    actions: BTreeMap<usize, Action>,
    finished: bool,
}

impl Ran {
    /// Reads a run's journal; with a commit, only what it tells of that one and of what has none.
    #[must_use]
    pub fn read(root: &Path, run: &RunId, commit: Option<&str>, now: Timestamp) -> Self {
        let mut ran = Self { actions: BTreeMap::new(), finished: false };
        for told in read_of(root, run, commit) {
            ran.see(told, now);
        }
        ran
    }

    /// The steps of a job and the keys that they had, in the order of the plan.
    #[must_use]
    pub fn keys(&self, axes: &Axes) -> Vec<(String, Option<ActionKey>)> {
        let own = |action: &&Action| action.axes.0.iter().all(|(axis, value)| axes.get(axis) == Some(value));
        self.actions.values().filter(own).map(|action| (action.step.clone(), action.key)).collect()
    }

    /// Whether the run came to its end.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    fn see(&mut self, told: Told, now: Timestamp) {
        let at = told.at;
        let attempt = |attempt, outcome, evidence, wall_ms| AttemptSaid {
            attempt,
            run: None,
            at,
            age_s: age(at, now),
            wall_ms,
            outcome,
            evidence,
        };
        match told.event {
            Event::ActionStarted { node, key, axes, step, why, .. } => {
                let action = self.action(node, axes, step);
                action.key = Some(key);
                // A second attempt of the run is there because of the first: why the first was begun is what is asked.
                action.why.get_or_insert(why);
            }
            Event::ActionSettled {
                node,
                key,
                axes,
                step,
                attempt: id,
                cached,
                shared_with,
                outcome,
                evidence,
                wall_ms,
                marks,
                because,
                follows,
            } => {
                let action = self.action(node, axes, step);
                action.key = Some(key);
                let by = attempt(id, outcome, evidence, Some(wall_ms));
                action.end = Some(End::Settled {
                    by,
                    cached,
                    shared_with,
                    // What came out otherwise is told in words of its own.
                    because: marks
                        .into_iter()
                        .filter(|mark| !mark.starts_with("NONDETERMINISTIC"))
                        .chain(because)
                        .collect(),
                    follows,
                });
            }
            Event::AttemptFailed { node, axes, step, attempt: id, outcome, evidence, .. } => {
                self.action(node, axes, step).failed.push(attempt(id, outcome, Some(evidence), None));
            }
            Event::ActionOver { node, axes, step, end, because, follows, .. } => {
                self.action(node, axes, step).end = Some(End::Over { word: end, because, follows });
            }
            Event::RunFinished { .. } => self.finished = true,
            _ => {}
        }
    }

    fn action(&mut self, node: usize, axes: Axes, step: String) -> &mut Action {
        let action = self.actions.entry(node).or_default();
        (action.axes, action.step) = (axes, step);
        action
    }

    fn executed(&self, node: usize) -> bool {
        self.actions.get(&node).is_some_and(|action| action.why.is_some())
    }

    /// Whether the run executed an action, or something upstream of what it left as it was.
    fn stirred(&self, node: usize) -> bool {
        self.executed(node)
            || self.actions.get(&node).is_some_and(|action| match &action.end {
                Some(End::Settled { follows, shared_with, .. }) => !follows.is_empty() || shared_with.is_some(),
                Some(End::Over { follows, .. }) => !follows.is_empty(),
                None => false,
            })
    }

    fn title(&self, node: usize) -> String {
        self.actions.get(&node).map_or_else(
            || format!("action {node}"),
            |action| format!("{} {}", point_name(&action.axes), action.step).trim_start().to_owned(),
        )
    }

    /// The changes of an executed action that do not come from what this run executed upstream of it.
    fn own_changes(&self, why: &Reason) -> usize {
        let follows = |ingredient: &str| why.from.iter().any(|(role, up)| role == ingredient && self.stirred(*up));
        why.changes.iter().filter(|change| !follows(&change.ingredient)).count()
    }

    /// Whether something that it reads changed, or, where it cannot be said what changed, was executed.
    fn moved(&self, why: &Reason) -> bool {
        !why.changes.is_empty() || why.from.iter().any(|(_, up)| self.stirred(*up))
    }

    /// Explains what the run did with some jobs of its plan.
    #[must_use]
    pub fn explain(&self, run: &RunId, plan: &PlanFile, jobs: &[&(JobId, Axes)], sources: &Sources<'_>) -> Explanation {
        let order: HashMap<&str, usize> =
            plan.steps.iter().enumerate().map(|(at, (step, _))| (step.as_str(), at)).collect();
        let mut said_of: HashMap<usize, StepSaid> = HashMap::new();
        let mut said = Vec::new();
        for (job, axes) in jobs {
            let on_it = |action: &Action| action.axes.0.iter().all(|(axis, value)| axes.get(axis) == Some(value));
            let mut nodes: Vec<usize> =
                self.actions.iter().filter(|(_, action)| on_it(action)).map(|(node, _)| *node).collect();
            nodes.sort_by_key(|node| (order.get(self.actions[node].step.as_str()).copied(), *node));
            let steps =
                nodes.into_iter().map(|node| said_of.entry(node).or_insert_with(|| self.step(node, sources)).clone());
            said.push(JobSaid { job: job.clone(), axes: axes.clone(), steps: steps.collect() });
        }
        let executed = |node: &&usize| self.executed(**node);
        let consequences = said_of.keys().filter(executed).filter(|node| !said_of[*node].root).count();
        let (roots, root_steps) = roots(said_of.values());
        Explanation {
            pipeline: plan.pipeline.clone(),
            manifest: plan.manifest.display().to_string(),
            run: Some(run.clone()),
            between: None,
            jobs: said,
            roots,
            root_steps,
            consequences,
            missing: Vec::new(),
            estimate: None,
            comes_to: String::new(),
        }
    }

    fn step(&self, node: usize, sources: &Sources<'_>) -> StepSaid {
        let action = &self.actions[&node];
        let mut said = StepSaid::new(&action.step, &action.axes, "blocked");
        said.key = action.key;
        match &action.end {
            Some(End::Settled { by, cached, shared_with, because, follows }) => {
                said.state = match because.first().map(String::as_str) {
                    Some("REUSED") => "reused",
                    _ if *cached => "hit",
                    _ => "new",
                };
                said.shared_with = shared_with.map(|with| self.title(with));
                said.served_by = Some(if *cached { recorded(action.key, by, sources) } else { by.clone() });
                said.because = (!because.is_empty()).then(|| because.join(", "));
                if let [first, ..] = follows.as_slice() {
                    said.cut_off = true;
                    said.follows = follows.iter().map(|up| self.title(*up)).collect();
                    let step = self.actions.get(first).map_or("what is upstream", |up| up.step.as_str());
                    let more = if follows.len() > 1 { " and others were" } else { " was" };
                    said.because =
                        Some(format!("cut off: {step}{more} executed, and what this reads came out as before"));
                }
            }
            Some(End::Over { word, because, .. }) => {
                said.state = if word == "skipped" { "skipped" } else { "blocked" };
                said.because = Some(because.clone());
            }
            None => said.because = Some("it was not settled".into()),
        }
        said.attempts.clone_from(&action.failed);
        said.disagreements =
            action.key.map(|key| disagree(&key, sources.index, Some(&sources.blobs))).unwrap_or_default();
        if let Some(record) = action.key.filter(|_| sources.keys).and_then(|key| sources.record(&key)) {
            // What else there was on that machine on that day nobody noted.
            said.known = Some(Known { ingredients: held(&record), not_in_key: Vec::new(), probes: Vec::new() });
        }
        if let Some(why) = &action.why {
            self.reason(&mut said, node, why, sources);
        }
        said
    }

    /// What came of executing an action again.
    fn rechecked(&self, said: &StepSaid) -> String {
        let came = match (&said.served_by, said.attempts.is_empty()) {
            _ if !said.disagreements.is_empty() => "it did not",
            (Some(_), true) => "it did",
            _ => "that could not be told",
        };
        format!("executed again to see whether it comes out the same: {came}; the earlier attempt speaks")
    }

    fn reason(&self, said: &mut StepSaid, node: usize, why: &Reason, sources: &Sources<'_>) {
        // Of a retry there is one entry that names the attempt before, unless what that one had left is gone.
        let changed = why.changes.iter().any(|change| change.ingredient != "attempt");
        said.state = match why.state.as_str() {
            "changed" if self.own_changes(why) == 0 && self.moved(why) => "follows",
            "changed" => "changed",
            "retry" => "retry",
            "adopted" => "adopted",
            "recheck" => "recheck",
            _ => "new",
        };
        said.root = match said.state {
            "follows" => false,
            "new" => !why.from.iter().any(|(_, up)| self.executed(*up)),
            _ => true,
        };
        if changed {
            let tracer = sources.tracer.as_ref().filter(|_| said.root);
            let action = &self.actions[&node];
            let action = tracer.and_then(|tracer| tracer.borrow().action_of(&action.step, &action.axes));
            let of_run =
                |(role, up): &(String, usize), change: &Change| *role == change.ingredient && self.stirred(*up);
            let own = |change: &&Change| !why.from.iter().any(|from| of_run(from, change));
            let shown = |change| sources.shown(change, action.as_ref().filter(|_| own(&change)), why.nearest);
            // What came from upstream is no cause of its own: it stands behind what is.
            let (mut changes, followed): (Vec<&Change>, Vec<&Change>) = why.changes.iter().partition(own);
            let causes: Vec<Change> = changes.iter().copied().cloned().collect();
            said.cause = cause_of(said.state, &causes, why.because.as_deref());
            changes.extend(followed);
            said.changes = changes.into_iter().map(shown).collect();
            said.part_by_origin();
        }
        let mut follows: Vec<usize> =
            why.from.iter().map(|(_, up)| *up).filter(|up| *up != node && self.executed(*up)).collect();
        follows.dedup();
        said.follows = follows.into_iter().map(|up| self.title(up)).collect();
        said.compared = why.compared.clone().map(|compared| ComparedSaid::of(compared, sources.now));
        let because = match why.state.as_str() {
            _ if why.because.is_some() => why.because.clone(),
            "retry" if !changed => {
                why.changes.first().and_then(|change| change.old.as_ref()).map(|last| format!("after {last}"))
            }
            "recheck" => Some(self.rechecked(said)),
            "adopted" => Some("the run that began it had died; what it left was taken over".to_owned()),
            "new" if said.root => Some("nothing like it was run before".to_owned()),
            _ => about_limits(&why.changes),
        };
        said.because = because.or_else(|| said.because.take());
        if said.cause.is_empty() {
            // An attempt's id tells no causes apart.
            let because = said.because.as_deref().unwrap_or_default();
            let because = if said.state == "retry" { because.rsplit(' ').next().unwrap_or_default() } else { because };
            said.cause = cause_of(said.state, &[], Some(because));
        }
    }
}

/// The attempt that served, as the records say it: the journal only knows when it was served.
fn recorded(key: Option<ActionKey>, by: &AttemptSaid, sources: &Sources<'_>) -> AttemptSaid {
    let all = key.and_then(|key| sources.index.attempts(&key).ok()).unwrap_or_default();
    all.iter()
        .find(|ended| ended.attempt == by.attempt)
        .map_or_else(|| by.clone(), |ended| AttemptSaid::of(ended, sources.now))
}
