//! The plan: the manifest's steps made concrete for every point of their axes, bound to each other, in an order to run.
//!
//! An action here has no key yet: keys need the outputs of what runs upstream, which `step` and `run` know. Expanding reads
//! the files that the manifest names (through an [`Intake`]) and nothing else of the machine.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::agent::Tables;
use crate::digest::Digest;
use crate::git::Described;
use crate::manifest::{Base, ImageSource, Keep, Kind, Manifest, Place, SandboxDecl, SecretFrom, Step, Template};
use crate::names::{Axes, JobId, SlotKind};
use crate::store::near_hash;
use crate::store::points::axes_number;

mod assets;
pub mod binding;
mod environment;
pub mod expand;
pub mod graph;
mod images;
pub mod intake;
mod measured;
pub mod points;
pub mod scope;
pub mod tools;
mod whole;

pub use assets::{AssetAt, AssetFact, HOLE};
pub use environment::{CaseAsk, EnvironmentAsk, Found, RecipeAsk, TreeOf, Trees};
pub use images::{ImageAsk, ImageFact};
pub use intake::Intake;
pub use measured::{ServiceAsk, TestAsk};
pub use tools::SourceFact;

/// Something that the machine lacks: an unset variable, an absent tool, a commit that no repository here holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Missing {
    /// What, as the object of a sentence: `the variable BENCH_PYTHON is not set`.
    pub what: String,
    /// What to do.
    pub hint: String,
    /// Where the manifest asks for it.
    pub place: Option<Place>,
    /// Whether a run must not start without it. A commit that asks for more slots than there are only blocks itself.
    pub fatal: bool,
}

impl Missing {
    /// What a base is called by the tags behind it cannot be told.
    #[must_use]
    pub fn undescribed(why: &str, place: Place) -> Self {
        Self {
            what: format!("`{{commit.describe}}` cannot be told: {why}"),
            hint: "it needs the tags and the whole history: `git fetch --unshallow --tags` in a clone that lacks them"
                .into(),
            place: Some(place),
            fatal: true,
        }
    }

    /// Each once, in their order: one lacking thing is often missed by every action of a commit, or of all.
    #[must_use]
    pub fn distinct<'a>(all: impl IntoIterator<Item = &'a Self>) -> Vec<&'a Self> {
        let mut seen = HashSet::new();
        all.into_iter().filter(|missing| seen.insert(*missing)).collect()
    }
}

/// What a declared tool turned out to be.
#[derive(Clone, Debug)]
pub struct ToolFact {
    /// Where it is.
    pub path: PathBuf,
    /// What its probes answered, or the digest of its bytes: the ingredient.
    pub identity: String,
    /// When it answered so, where that is known: an unchanged tool is not asked again.
    pub asked: Option<Timestamp>,
    /// Its stat, to tell whether it changed during an attempt.
    pub stat: String,
    /// The arguments of its probes.
    pub probes: Vec<Vec<String>>,
    /// Its own source tree, where the manifest names it.
    pub source: Option<SourceFact>,
    /// Whether it is a script, such as a version manager's shim: what it starts may depend on the folder it is started in.
    pub script: bool,
}

/// What resolving a commit gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFact {
    /// The human's commit, 40 digits.
    pub human: String,
    /// Its base.
    pub base: String,
    /// The base's tree, 40 digits; absent if nobody looked it up.
    pub base_tree: Option<String>,
    /// The first line of its message.
    pub subject: String,
}

/// What is known of this machine when the plan is made.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Variables of flow's own environment.
    pub variables: BTreeMap<String, String>,
    /// Tools by name.
    pub tools: BTreeMap<String, Result<ToolFact, Missing>>,
    /// Assets by name.
    pub assets: BTreeMap<String, Result<AssetFact, Missing>>,
    /// Images by what the manifest says of them.
    pub images: BTreeMap<ImageSource, Result<ImageFact, Missing>>,
    /// Operating system and processor architecture.
    pub platform: String,
    /// What the slots of a kind are.
    pub devices: BTreeMap<String, Result<String, Missing>>,
    /// What bases are called by the tags behind them, where a recipe asks for that, by the same.
    pub described: BTreeMap<(usize, usize), Result<Described, Missing>>,
    /// Commits by (index of repository, index of commit).
    pub commits: BTreeMap<(usize, usize), Result<CommitFact, Missing>>,
}

/// A plan.
#[derive(Debug)]
pub struct Plan {
    /// What it was made from.
    pub manifest: Arc<Manifest>,
    /// What was known.
    pub facts: Facts,
    /// The actions; each comes after all it is linked to.
    pub nodes: Vec<Node>,
    /// The jobs.
    pub jobs: Vec<Job>,
    /// For each action those that are linked to it or gated by it.
    pub dependents: Vec<Vec<usize>>,
    /// The points of its actions, by number, once somebody asks.
    points: OnceLock<HashSet<u64>>,
    /// The axes of its actions alone.
    axes: OnceLock<HashSet<u64>>,
    /// Who knows which files a tree has, once somebody does.
    pub trees: OnceLock<Arc<dyn Trees>>,
}

/// A job: one commit, candidate and sample, or one point of the manifest's own axes.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Its axes.
    pub axes: Axes,
    /// All its actions, upstream first.
    pub nodes: Vec<usize>,
    /// The one that says its class.
    pub classify: Option<usize>,
    /// Whether it is an A/A control: no candidate's, and in no rate but that of false verdicts.
    pub control: bool,
}

/// An action, not yet keyed.
#[derive(Clone, Debug)]
pub struct Node {
    /// Index of its step in the pipeline.
    pub step: usize,
    /// Its point.
    pub point: Point,
    /// The same for people and records.
    pub axes: Axes,
    /// The actions whose outputs or ends it reads.
    pub links: Vec<Link>,
    /// The actions that must have ended well before it may be executed.
    pub gates: Vec<usize>,
    /// What it asks for.
    pub ask: Ask,
    /// Slots to hold.
    pub holds: Vec<(SlotKind, u32)>,
    /// What it lacks on this machine: it has no key then.
    pub missing: Vec<Missing>,
    /// How long the longest way from here to the end is, in expected seconds.
    pub height: f64,
}

/// A point of the axes, as indices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// Repository and commit.
    pub commit: Option<(usize, usize)>,
    /// Candidate.
    pub candidate: Option<usize>,
    /// Sample, from 1.
    pub sample: Option<u32>,
    /// The manifest's own axes: index of axis and of value.
    pub own: Vec<(usize, usize)>,
}

/// A binding to an action upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// As what.
    pub role: Role,
    /// Which.
    pub node: usize,
}

/// As what an action reads another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The base tree.
    Checkout,
    /// The environment of the base tree.
    Environment,
    /// The environment of the patched tree.
    Rebuilt,
    /// The environment of the human's tree.
    HumanBuilt,
    /// The agent's work tree.
    Agent,
    /// The patch and the patched tree.
    Patch,
    /// The gate's reference result; for classify, the end of the test of the base.
    Baseline,
    /// For classify, the end of the test of the patched tree.
    Patched,
    /// For a second session, the first; for classify, the end of the second.
    Again,
    /// A command's named input.
    Named {
        /// The input's name.
        input: String,
        /// The upstream's output.
        output: String,
    },
}

/// What an action asks for: everything of it that is known when the plan is made.
#[derive(Clone, Debug)]
pub enum Ask {
    /// See [`CheckoutAsk`].
    Checkout(CheckoutAsk),
    /// See [`EnvironmentAsk`].
    Environment(Box<EnvironmentAsk>),
    /// See [`AgentAsk`].
    Agent(Box<AgentAsk>),
    /// See [`PatchAsk`].
    Patch(PatchAsk),
    /// See [`TestAsk`].
    Test(Box<TestAsk>),
    /// See [`ClassifyAsk`].
    Classify(ClassifyAsk),
    /// See [`CommandAsk`].
    Command(Box<CommandAsk>),
}

impl Ask {
    /// The environment of its processes, where it is the manifest's.
    #[must_use]
    pub fn env(&self) -> Option<&EnvAsk> {
        match self {
            Self::Agent(ask) => Some(&ask.env),
            Self::Test(ask) => Some(&ask.env),
            Self::Command(ask) => Some(&ask.env),
            Self::Environment(ask) => ask.recipe.as_ref().map(|recipe| &recipe.env),
            Self::Checkout(_) | Self::Patch(_) | Self::Classify(_) => None,
        }
    }

    /// The declared tools that it uses.
    #[must_use]
    pub fn tools(&self) -> Vec<&String> {
        match self {
            Self::Environment(ask) => {
                ask.tool.iter().chain(ask.recipe.iter().flat_map(|recipe| &recipe.tools)).collect()
            }
            Self::Agent(ask) => ask.tools.iter().collect(),
            Self::Test(ask) => ask.tools.iter().chain(&ask.tool).collect(),
            Self::Command(ask) => ask.tools.iter().collect(),
            Self::Checkout(_) | Self::Patch(_) | Self::Classify(_) => Vec::new(),
        }
    }
}

/// Resolve this commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutAsk {
    /// The human's commit as written.
    pub human: String,
    /// Its base.
    pub base: Base,
    /// Paths that do not belong to the human's change.
    pub protect: Vec<String>,
}

/// A child's environment with every template filled.
#[derive(Clone, Debug, Default)]
pub struct EnvAsk {
    /// Hashed: set and passed.
    pub hashed: BTreeMap<String, String>,
    /// Of the hashed ones those that name an asset: where that lies is known when a process begins, and in no key.
    pub places: BTreeMap<String, Template>,
    /// Passed on, in no key.
    pub unhashed: BTreeMap<String, String>,
    /// To be passed on in no key, and not set here. What is served needs none of them.
    pub unset: Vec<(String, Place)>,
    /// Read again at each attempt.
    pub secrets: Vec<SecretFrom>,
}

/// Run this agent.
#[derive(Clone, Debug, Default)]
pub struct AgentAsk {
    /// The independent draw.
    pub sample: u32,
    /// The rendered prompt, as a blob, if the step has one.
    pub prompt: Option<Digest>,
    /// The config's parsed value as canonical JSON (the ingredient), and its bytes (for the agent).
    pub config: Option<(Digest, Digest, PathBuf)>,
    /// The model.
    pub model: Option<String>,
    /// The argv; holes that are left are places of the attempt.
    pub argv: Vec<Template>,
    /// The file that it reads as its standard input.
    pub stdin: Option<Template>,
    /// Given files by role; `None` for an optional one that is not there.
    pub files: BTreeMap<String, Option<Digest>>,
    /// The adapter's version.
    pub version: Option<String>,
    /// Whether the argv uses the human's change.
    pub human_change: bool,
    /// Whether it runs although it would be shown lines of the human's change.
    pub leaks_recorded: bool,
    /// What holds its processes.
    pub sandbox: SandboxDecl,
    /// Its environment.
    pub env: EnvAsk,
    /// Tools named in the argv.
    pub tools: Vec<String>,
    /// The time limit.
    pub timeout: Option<Duration>,
    /// Bytes of output kept of each stream.
    pub limit: Option<u64>,
    /// A file in the attempt's `{out}` that tells what the agent did.
    pub trajectory: Option<String>,
    /// Whether it calls no model.
    pub free: bool,
    /// Other files that are kept for its reading. In no key.
    pub keep: Vec<Keep>,
    /// How its outcome and its usage are read. In no key.
    pub reading: Arc<Tables>,
}

impl AgentAsk {
    /// Whether it may need a network: an adapter that says `free`, or that is flow's own, calls no model.
    #[must_use]
    pub fn calls_out(&self) -> bool {
        !self.free && !self.of_flow()
    }

    /// Whether it is flow itself that runs.
    #[must_use]
    pub fn of_flow(&self) -> bool {
        self.argv.first().is_some_and(|program| program.sole_hole() == Some("flow"))
    }
}

/// Take the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchAsk {
    /// Paths that it may not touch.
    pub protect: Vec<String>,
    /// Paths that are dropped.
    pub ignore: Vec<String>,
    /// Its largest size in bytes.
    pub limit: Option<u64>,
}

/// Say the class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifyAsk {
    /// Judge stored samples by another smallest effect.
    pub judge_min_effect: Option<f64>,
}

/// Run the user's own command.
#[derive(Clone, Debug)]
pub struct CommandAsk {
    /// The argv.
    pub argv: Vec<Template>,
    /// Files of the user's by input name.
    pub files: BTreeMap<String, Digest>,
    /// Output names and the files they are.
    pub outputs: BTreeMap<String, String>,
    /// Where copies go, by output name.
    pub publish: BTreeMap<String, PathBuf>,
    /// Tools named in the argv.
    pub tools: Vec<String>,
    /// Its environment.
    pub env: EnvAsk,
    /// The time limit.
    pub timeout: Option<Duration>,
}

impl Plan {
    /// The step of an action.
    #[must_use]
    pub fn step(&self, node: usize) -> &Step {
        &self.manifest.pipeline.steps[self.nodes[node].step]
    }

    /// The kind of an action's step.
    #[must_use]
    pub fn kind(&self, node: usize) -> Kind {
        self.step(node).kind()
    }

    /// The action that `node` reads as `role`.
    #[must_use]
    pub fn linked(&self, node: usize, role: &Role) -> Option<usize> {
        self.nodes[node].links.iter().find(|link| link.role == *role).map(|link| link.node)
    }

    /// Whether an action is a test that compares two trees, as opposed to a gate.
    #[must_use]
    pub fn compares(&self, node: usize) -> bool {
        match &self.nodes[node].ask {
            Ask::Test(ask) => ask.aa || self.linked(node, &Role::Patch).is_some(),
            _ => false,
        }
    }

    /// Whether some action has the kind and the axes of this `near_hash`.
    #[must_use]
    pub fn has_point(&self, near: u64) -> bool {
        let points = self.points.get_or_init(|| {
            (0..self.nodes.len()).map(|node| near_hash(self.kind(node).word(), &self.nodes[node].axes)).collect()
        });
        points.contains(&near)
    }

    /// Whether some action has the axes of this `axes_number`.
    #[must_use]
    pub fn has_axes(&self, number: u64) -> bool {
        let axes = self.axes.get_or_init(|| self.nodes.iter().map(|node| axes_number(&node.axes)).collect());
        axes.contains(&number)
    }

    /// By which tables an agent's attempts are read today; `None` for other actions.
    #[must_use]
    pub fn tables(&self, node: usize) -> Option<&Tables> {
        match &self.nodes[node].ask {
            Ask::Agent(ask) => Some(&ask.reading),
            _ => None,
        }
    }

    /// What a message calls an action: its step and its point.
    #[must_use]
    pub fn title(&self, node: usize) -> String {
        let point = point_name(&self.nodes[node].axes);
        let step = &self.step(node).name.value;
        if point.is_empty() { step.to_string() } else { format!("{point} {step}") }
    }

    /// What a run must not start without.
    pub fn fatal(&self) -> impl Iterator<Item = &Missing> {
        self.nodes.iter().flat_map(|node| &node.missing).filter(|missing| missing.fatal)
    }
}

/// The values of a point joined by `/`, the commit by its first eight digits.
#[must_use]
pub fn point_name(axes: &Axes) -> String {
    let known = ["repo", "commit", "candidate", "sample"];
    let mut parts: Vec<&str> = Vec::new();
    for axis in known {
        if let Some(value) = axes.get(axis) {
            parts.push(if axis == "commit" { value.get(..8).unwrap_or(value) } else { value });
        }
    }
    parts.extend(axes.0.iter().filter(|(axis, _)| !known.contains(&axis.as_str())).map(|(_, value)| value.as_str()));
    parts.join("/")
}
