//! How long actions take, by what those of the same step took. Where nothing is recorded, a guess by kind, and that is said.

use std::collections::{BTreeMap, HashMap};

use crate::manifest::Kind;
use crate::plan::{Ask, Plan};
use crate::store::Index;

/// The newest attempts of a kind that are looked at: enough for a mean, and read in no time.
const NEWEST: usize = 64;
/// What an agent that calls no model may take, in seconds.
const FREE: f64 = 1.0;

/// Mean durations in seconds.
#[derive(Debug, Default)]
pub struct Durations {
    means: HashMap<Alike, f64>,
    /// What candidates were called before, by their names of today.
    names: HashMap<String, String>,
}

/// What takes about as long: the kind, the step, of an agent the candidate, and the repository. One repository's tests say
/// nothing of another's.
type Alike = (String, String, String, String);

impl Durations {
    /// Reads them from the newest attempts that settled. Without records it knows nothing.
    #[must_use]
    pub fn read(index: &Index) -> Self {
        if index.is_empty() {
            return Self::default();
        }
        let kinds = [Kind::Agent, Kind::Test, Kind::Environment, Kind::Command].map(Kind::word);
        // What cannot be read is a guess less: the records themselves say what is wrong with them.
        let found = index.of_kinds(&kinds, false, NEWEST, &|_| false).unwrap_or_default();
        let mut sums: HashMap<Alike, (f64, f64)> = HashMap::new();
        for ended in found.iter().filter(|ended| ended.outcome.settles() && ended.adopts.is_none()) {
            let candidate = ended.axes.get("candidate").filter(|_| ended.kind == Kind::Agent.word());
            let text = |axis: Option<&str>| axis.unwrap_or_default().to_owned();
            let at = (ended.kind.clone(), ended.step.clone(), text(candidate), text(ended.axes.get("repo")));
            let (sum, count) = sums.entry(at).or_default();
            *sum += ended.wall_ms as f64 / 1000.0;
            *count += 1.0;
        }
        let means = sums.into_iter().map(|(at, (sum, count))| (at, sum / count)).collect();
        Self { means, names: HashMap::new() }
    }

    /// The same, with what candidates are called today by their old names.
    #[must_use]
    pub fn known_as(mut self, names: &BTreeMap<String, String>) -> Self {
        self.names = names.iter().map(|(old, today)| (today.clone(), old.clone())).collect();
        self
    }

    /// What an action is known to take.
    #[must_use]
    pub fn known(&self, plan: &Plan, node: usize) -> Option<f64> {
        if self.means.is_empty() {
            return None;
        }
        let kind = plan.kind(node);
        let axes = &plan.nodes[node].axes;
        let text = |axis: Option<&str>| axis.unwrap_or_default().to_owned();
        let candidate = axes.get("candidate").filter(|_| kind == Kind::Agent);
        let step = plan.step(node).name.value.to_string();
        let old = candidate.and_then(|name| self.names.get(name)).map(String::as_str);
        let mut names = [Some(text(candidate)), old.map(str::to_owned)].into_iter().flatten();
        let repo = text(axes.get("repo"));
        names.find_map(|candidate| {
            let at = (kind.word().to_owned(), step.clone(), candidate, repo.clone());
            self.means.get(&at).copied().or_else(|| self.of_old_step(plan, &at))
        })
    }

    /// What the only step of the kind took that the plan has no longer: this one may have had its name.
    fn of_old_step(&self, plan: &Plan, (kind, _, candidate, repo): &Alike) -> Option<f64> {
        let is_gone = |name: &str| plan.manifest.pipeline.steps.iter().all(|step| step.name.value.as_str() != name);
        let mut gone = self
            .means
            .iter()
            .filter(|((of, step, by, at), _)| (of, by, at) == (kind, candidate, repo) && is_gone(step));
        let only = gone.next().map(|(_, mean)| *mean);
        only.filter(|_| gone.next().is_none())
    }

    /// What each action of a plan takes. Those of one step, candidate and repository take the same: each is looked up once.
    #[must_use]
    pub fn of_all(&self, plan: &Plan) -> Vec<f64> {
        let mut known: HashMap<(usize, Option<usize>, Option<usize>), f64> = HashMap::new();
        let mut of = |node: usize| {
            let point = &plan.nodes[node].point;
            let at = (plan.nodes[node].step, point.candidate, point.commit.map(|(repo, _)| repo));
            *known.entry(at).or_insert_with(|| self.typical(plan, node))
        };
        (0..plan.nodes.len()).map(&mut of).collect()
    }

    /// What an action takes, by records, by what the manifest expects, or by a guess of which only proportions matter.
    #[must_use]
    pub fn typical(&self, plan: &Plan, node: usize) -> f64 {
        let expected = || {
            let candidate = plan.nodes[node].point.candidate.filter(|_| plan.kind(node) == Kind::Agent)?;
            Some(plan.manifest.pipeline.candidates.get(candidate)?.expect?.time?.as_secs_f64())
        };
        let free = matches!(&plan.nodes[node].ask, Ask::Agent(ask) if ask.free);
        let guess = if free { FREE } else { guess(plan.kind(node)) };
        self.known(plan, node).or_else(expected).unwrap_or(guess)
    }
}

/// What an action of a kind may take, in seconds.
#[must_use]
pub fn guess(kind: Kind) -> f64 {
    match kind {
        Kind::Agent => 600.0,
        Kind::Test => 60.0,
        _ => 0.1,
    }
}
