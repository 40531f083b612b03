//! A step as typed, spanned values: what it does, what it reads and holds, and what only its kind has.
//!
//! What is written is read in `steps`; what it comes to for a commit is the plan's business.

use std::path::PathBuf;
use std::time::Duration;

use super::{Env, Place, Spanned, Template};
use crate::measure::{Equal, Guards, MetricSpec, Protocol};
use crate::names::{SlotKind, StepName};
use crate::process::{Host, Ready};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Resolves commit and base.
    Checkout,
    /// Makes what tests run in.
    Environment,
    /// Lets an agent work.
    Agent,
    /// Takes the patch.
    Patch,
    /// Measures.
    Test,
    /// Says the class.
    Classify,
    /// The user's own.
    Command,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Checkout, Self::Environment, Self::Agent, Self::Patch, Self::Test, Self::Classify, Self::Command];

    /// Its word in `uses=` and in key records.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Environment => "environment",
            Self::Agent => "agent",
            Self::Patch => "patch",
            Self::Test => "test",
            Self::Classify => "classify",
            Self::Command => "command",
        }
    }
}

/// A step with every amendment applied.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: Spanned<StepName>,
    /// What it does, with what only that kind has.
    pub body: Body,
    /// Data: the steps whose outputs it reads.
    pub needs: Vec<Spanned<StepName>>,
    /// Order and gate.
    pub after: Vec<Spanned<StepName>>,
    /// The axes it has though no template names them.
    pub each: Vec<Spanned<String>>,
    /// The axes it is instantiated over: `repo`, `commit`, `candidate`, `sample` and axis names; derived by the reader.
    pub axes: Vec<String>,
    /// What it holds.
    pub holds: Vec<Hold>,
    /// Per process for a test, else for the attempt.
    pub timeout: Option<Spanned<Duration>>,
    /// At most so many counted attempts over all runs.
    pub attempts: Option<Spanned<u32>>,
    /// What a build wants of the machine's memory, in bytes.
    pub memory: Option<Spanned<u64>>,
    /// What a build wants of the store's disk, in bytes.
    pub disk: Option<Spanned<u64>>,
    /// The largest patch, or the most output, in bytes.
    pub limit: Option<Spanned<u64>>,
    /// Environment of its processes.
    pub env: Env,
    /// What holds its processes.
    pub sandbox: SandboxDecl,
}

/// `sandbox`, `write` and `network` of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxDecl {
    /// Whether there is one.
    pub choice: SandboxChoice,
    /// What may be written to besides the attempt's own folders.
    pub write: Vec<PathBuf>,
    /// The only hosts that an agent may reach, of the step and of its provider; all if there are none.
    pub network: Vec<Host>,
}

/// Whether processes are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxChoice {
    /// As far as the machine can: so too if nothing is said.
    #[default]
    Auto,
    /// Or they do not start.
    Require,
    /// Not at all.
    Off,
}

impl Step {
    /// What it does.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.body {
            Body::Checkout => Kind::Checkout,
            Body::Environment(_) => Kind::Environment,
            Body::Agent(_) => Kind::Agent,
            Body::Patch(_) => Kind::Patch,
            Body::Test(_) => Kind::Test,
            Body::Classify(_) => Kind::Classify,
            Body::Command(_) => Kind::Command,
        }
    }
}

/// `holds gpu=1`.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The kind of slot or the lane.
    pub kind: Spanned<SlotKind>,
    /// How many; a number after substitution.
    pub count: Spanned<Template>,
}

/// What only one kind of step has.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing.
    Checkout,
    /// See [`EnvironmentBody`].
    Environment(EnvironmentBody),
    /// See [`AgentBody`].
    Agent(AgentBody),
    /// See [`PatchBody`].
    Patch(PatchBody),
    /// See [`TestBody`].
    Test(Box<TestBody>),
    /// See [`ClassifyBody`].
    Classify(ClassifyBody),
    /// See [`CommandBody`].
    Command(CommandBody),
}

/// How an environment comes about.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentBody {
    /// The interpreter: a declared tool's name, `None` if the manifest declares none.
    pub tool: Option<Spanned<String>>,
    /// The recipe it is built by; none for `recipe interpreter`: a probed interpreter, nothing is built.
    pub recipe: Option<Spanned<String>>,
    /// Of a patched tree's, the step that builds the base's.
    pub base: Option<Spanned<StepName>>,
}

/// The prompt.
#[derive(Clone, Debug)]
pub struct AgentBody {
    /// The prompt's file, as a template of its path; relative to `dir`. Its text is a template too.
    pub prompt: Option<(Spanned<Template>, PathBuf)>,
    /// The commit's columns that the prompt may use.
    pub show: Vec<Spanned<String>>,
    /// Whether an agent that would be shown lines of the human's change runs all the same, on record.
    pub leaks_recorded: bool,
}

/// What a patch may not hold.
#[derive(Clone, Debug)]
pub struct PatchBody {
    /// Globs of paths that a patch may not touch.
    pub protect: Vec<Spanned<String>>,
    /// Globs of paths that are dropped.
    pub ignore: Vec<Spanned<String>>,
}

/// How a test measures.
#[derive(Clone, Debug)]
pub struct TestBody {
    /// The gate whose reference this step's results are compared with.
    pub against: Option<Spanned<StepName>>,
    /// Metrics that replace those of `tests`.
    pub metrics: Vec<MetricSpec>,
    /// Where they say what.
    pub metric_places: Vec<Place>,
    /// How many blocks and how long.
    pub protocol: Protocol,
    /// Arm B is a second copy of the base tree.
    pub aa: bool,
    /// The human's tree is a third arm of the same session; where that is said.
    pub human: Option<Place>,
    /// A second session is asked for; where that is said.
    pub second: Option<Place>,
    /// The step whose verdict this one, a second session, measures again.
    pub again: Option<Spanned<StepName>>,
    /// Argv in place of `{interpreter} {script}`.
    pub run: Vec<Spanned<Template>>,
    /// How results are compared, where it is said.
    pub equal: Option<Spanned<Equal>>,
    /// Commands that must pass in the patched tree where they pass in the base.
    pub checks: Vec<Vec<Spanned<Template>>>,
    /// What is borne of a disturbed machine.
    pub guards: Guards,
    /// The compile caches that its processes keep, by name.
    pub caches: Vec<Cache>,
    /// The servers that each of its processes uses.
    pub services: Vec<Service>,
}

/// A server that each process of a test uses.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: Spanned<String>,
    /// Its argv.
    pub run: Vec<Spanned<Template>>,
    /// When it is ready.
    pub ready: Ready,
    /// The port that it always has.
    pub port: Option<u16>,
    /// How long it may take to be ready.
    pub timeout: Duration,
}

impl Service {
    /// What of it makes a measurement another one; its places and its limit do not.
    #[must_use]
    pub fn signature(&self) -> String {
        let port = self.port.map(|port| format!(" port={port}")).unwrap_or_default();
        let run: Vec<String> = self.run.iter().map(|word| word.value.to_string()).collect();
        format!("{}{port} {}\n{}", self.name.value, self.ready, run.join("\n"))
    }
}

/// A compile cache that a test's processes keep.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Its name, which is that of its folder.
    pub name: String,
    /// The variable that says where it is.
    pub variable: Spanned<String>,
}

/// Judging stored samples anew.
#[derive(Clone, Debug)]
pub struct ClassifyBody {
    /// `judge min-effect="1%"`, as a fraction.
    pub judge_min_effect: Option<Spanned<f64>>,
}

/// The user's own command.
#[derive(Clone, Debug)]
pub struct CommandBody {
    /// The argv.
    pub run: Vec<Spanned<Template>>,
    /// Named inputs.
    pub inputs: Vec<Input>,
    /// Named output files.
    pub outputs: Vec<Output>,
}

/// An input of a command.
#[derive(Clone, Debug)]
pub struct Input {
    /// `{in.NAME}`.
    pub name: Spanned<String>,
    /// Where it comes from.
    pub from: InputFrom,
}

/// Where an input comes from.
#[derive(Clone, Debug)]
pub enum InputFrom {
    /// A file of the user's: its path, and the folder of the file that says it.
    File(Spanned<Template>, PathBuf),
    /// An output of another command step.
    Output {
        /// The step.
        step: Spanned<StepName>,
        /// The output's name.
        output: String,
    },
}

/// An output of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// `{out.NAME}`.
    pub name: Spanned<String>,
    /// Its file name in the attempt's place.
    pub file: Spanned<String>,
    /// Where a copy goes: a path and the folder it is relative to. In no key.
    pub publish: Option<(Spanned<Template>, PathBuf)>,
}
