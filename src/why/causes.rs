//! What each cause of a plan would come to: the actions that it sets going, with all that only follow them, and their cost.
//!
//! Groups by what changed and not by how: one prompt that is rendered for a hundred commits is one cause. An action that follows
//! several causes is counted for the first, so that the causes add up to the plan.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde::Serialize;

use crate::manifest::Kind;
use crate::money::Amount;
use crate::plan::{Ask, Plan};
use crate::text::{counted, wrap};
use crate::units::{Usd, human_usd};
use crate::why::estimate::{Estimate, span};
use crate::why::explain::{GONE, is_gone};
use crate::why::forecast::{Forecast, State};

/// How wide a line may be.
const WIDTH: usize = 80;

/// A cause.
#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    /// In words: `config trae.yaml changed`.
    pub cause: String,
    /// Who brought it and where, a line for each commit; empty where nobody is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// The state of the actions that have it as their own.
    pub state: State,
    /// The ingredients that changed, the first to blame.
    pub ingredients: Vec<String>,
    /// How many actions of each kind it sets going, those that only follow counted.
    pub actions: BTreeMap<&'static str, usize>,
    /// How many of them only follow, and may be served after all.
    pub follow: usize,
    /// What they may cost.
    pub cost_usd: Amount,
    /// Where that lies, as far as it can be said.
    pub cost_interval_usd: Option<[f64; 2]>,
    /// How long they may take from begin to end, alone on this machine, in seconds.
    pub wall_s: Option<f64>,
    /// What bounds how many of them go side by side: `4 lanes`, `2 slots`.
    pub on: Option<String>,
    #[serde(skip)]
    paid: bool,
}

/// Some of the actions that a cause touches, and who brought it to them.
#[derive(Clone, Debug)]
pub struct Brought {
    /// Which of the actions that were asked about.
    pub members: Vec<usize>,
    /// A line for each commit; empty where nobody is known.
    pub lines: Vec<String>,
}

/// Who brought what changed of some actions, parted by that.
pub type Who<'a> = &'a dyn Fn(&[&Forecast]) -> Vec<Brought>;

/// The causes of a plan, those that change before those that are new, the dearest first. `estimate` says what some actions may come
/// to, `who` who brought what changed.
#[must_use]
pub fn causes(
    plan: &Plan,
    forecasts: &[Forecast],
    estimate: &dyn Fn(&[Forecast]) -> Estimate,
    who: Who<'_>,
) -> Vec<Cause> {
    let mut named: Vec<(Named, Vec<&Forecast>)> = Vec::new();
    let mut places: HashMap<Named, usize> = HashMap::new();
    for said in forecasts.iter().filter(|said| said.is_root()) {
        let name = Named::of(plan, said);
        let at = *places.entry(name.clone()).or_insert(named.len());
        if at == named.len() {
            named.push((name, Vec::new()));
        }
        named[at].1.push(said);
    }
    let mut groups: Vec<(Named, Vec<String>, Vec<Forecast>)> = Vec::new();
    let mut of: HashMap<usize, usize> = HashMap::new();
    for (name, roots) in named {
        for part in who(&roots) {
            of.extend(part.members.iter().map(|at| (roots[*at].node, groups.len())));
            groups.push((name.clone(), part.lines, Vec::new()));
        }
    }
    for said in forecasts.iter().filter(|said| said.state.executes()) {
        // What it follows comes before it in the plan.
        let above = || said.follows.iter().filter_map(|up| of.get(up)).min().copied();
        let Some(at) = of.get(&said.node).copied().or_else(above) else { continue };
        of.insert(said.node, at);
        groups[at].2.push(said.clone());
    }
    let told =
        groups.into_iter().map(|(named, by, members)| Cause { by, ..named.cause(plan, &members, &estimate(&members)) });
    let mut causes: Vec<Cause> = told.collect();
    causes.sort_by_key(|cause| {
        let state = match cause.state {
            State::Changed => 0,
            State::Retry => 1,
            _ => 2,
        };
        (state, std::cmp::Reverse(cause.cost_usd.known))
    });
    causes
}

/// What tells causes apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Named {
    state: State,
    ingredients: Vec<String>,
    /// The file that holds the first of them, where one does.
    file: Option<String>,
    because: Option<String>,
}

impl Named {
    fn of(plan: &Plan, said: &Forecast) -> Self {
        let ingredients: Vec<String> = said.changes.iter().map(|change| change.ingredient.clone()).collect();
        let config = match &plan.nodes[said.node].ask {
            Ask::Agent(ask) => ask.config.as_ref().filter(|_| ingredients.first().is_some_and(|role| role == "config")),
            _ => None,
        };
        let file = config.and_then(|(_, _, path)| Some(path.file_name()?.to_string_lossy().into_owned()));
        if is_gone(&said.changes) {
            return Self { state: said.state, ingredients: Vec::new(), file: None, because: Some(GONE.to_owned()) };
        }
        Self { state: said.state, ingredients, file, because: said.because.clone() }
    }

    fn words(&self) -> String {
        let Some((first, more)) = self.ingredients.split_first() else {
            return match (&self.because, self.state) {
                (Some(because), _) => because.clone(),
                (None, State::New) => "nothing like it was run before".to_owned(),
                (None, _) => self.state.word().to_owned(),
            };
        };
        let file = self.file.as_ref().map(|file| format!(" {file}")).unwrap_or_default();
        let more = match more {
            [] => String::new(),
            [other] => format!(" and {other}"),
            [others @ .., last] => format!(", {} and {last}", others.join(", ")),
        };
        let verb = if first.starts_with("limit ") { "raised" } else { "changed" };
        format!("{first}{file}{more} {verb}")
    }

    fn cause(self, plan: &Plan, members: &[Forecast], estimate: &Estimate) -> Cause {
        let mut actions: BTreeMap<&'static str, usize> = BTreeMap::new();
        for said in members {
            *actions.entry(plan.kind(said.node).word()).or_default() += 1;
        }
        Cause {
            cause: self.words(),
            by: Vec::new(),
            state: self.state,
            ingredients: self.ingredients,
            actions,
            follow: members.iter().filter(|said| !said.is_root()).count(),
            cost_usd: estimate.cost.clone(),
            cost_interval_usd: estimate.cost_interval,
            wall_s: estimate.wall,
            on: width(plan, members),
            paid: !estimate.candidates.is_empty(),
        }
    }
}

/// What bounds how many of some actions go side by side: the lanes of their providers, else the slots that they hold.
fn width(plan: &Plan, members: &[Forecast]) -> Option<String> {
    let pipeline = &plan.manifest.pipeline;
    let mut lanes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut kinds: Vec<&str> = Vec::new();
    for said in members {
        let node = &plan.nodes[said.node];
        if let (Kind::Agent, Some(candidate)) = (plan.kind(said.node), node.point.candidate) {
            let provider = pipeline.candidates[candidate].provider.as_ref().map(|name| &name.value);
            if let Some(lane) = provider.and_then(|name| pipeline.providers.get(name)?.lane) {
                lanes.insert(provider.map_or("", |name| name.as_str()), lane);
            }
        }
        kinds.extend(node.holds.iter().map(|(kind, _)| kind.as_str()));
    }
    if !lanes.is_empty() {
        return Some(counted(lanes.values().sum::<u32>() as usize, "lane"));
    }
    let slots = pipeline.slots.iter().filter(|slot| kinds.contains(&slot.kind.value.as_str())).count();
    (slots > 0).then(|| counted(slots, "slot"))
}

/// Causes for people, a paragraph each; empty without any.
#[must_use]
pub fn text(causes: &[Cause]) -> String {
    let mut text = String::new();
    for cause in causes {
        let mut line = format!("{}: ", cause.cause);
        let kinds: Vec<String> =
            Kind::ALL.iter().filter_map(|kind| Some(of_kind(*kind, *cause.actions.get(kind.word())?))).collect();
        line.push_str(&kinds.join(", "));
        if cause.follow > 0 {
            let _ = write!(line, " ({} only follow)", cause.follow);
        }
        if cause.paid {
            let _ = write!(line, ", {}", money(cause));
        }
        if let Some(wall) = cause.wall_s {
            let on = cause.on.as_ref().map(|on| format!(" on {on}")).unwrap_or_default();
            let _ = write!(line, ", {}{on}", span(wall));
        }
        let _ = writeln!(text, "{}", wrap(&crate::why::text::printable(&line), WIDTH).join("\n    "));
        for by in &cause.by {
            let _ = writeln!(text, "    {}", wrap(by, WIDTH - 4).join("\n    "));
        }
    }
    text
}

fn money(cause: &Cause) -> String {
    let say = |value: f64| human_usd(Usd::nearest(value));
    match cause.cost_interval_usd {
        Some([low, high]) if say(low) != say(high) => format!("about {} to {}", say(low), say(high)),
        _ if cause.cost_usd.unknown_attempts > 0 && cause.cost_usd.known == Usd(0) => "cost unknown".to_owned(),
        _ => format!("about {}", cause.cost_usd.text()),
    }
}

fn of_kind(kind: Kind, count: usize) -> String {
    match (kind, count) {
        (Kind::Classify, 1) => "1 class".to_owned(),
        (Kind::Classify, _) => format!("{count} classes"),
        (Kind::Patch, 2..) => format!("{count} patches"),
        _ => counted(count, kind.word()),
    }
}
