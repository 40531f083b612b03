//! The manifest as typed, spanned values: what a person wrote, with imports read, amendments applied and names checked.
//!
//! Reads files and nothing else: no environment, no git, no probe. What the values *mean* for a given machine is the plan's
//! business. `read` makes a [`Manifest`] or a report of every flaw at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::Tables;
use crate::measure::{Contract, MetricSpec};
use crate::money::Prices;
use crate::names::{CandidateName, ProviderName, RepoName, SlotKind};
use crate::outcome::Cause;
use crate::process::Host;
use crate::units::Usd;

mod argv;
mod assets;
mod bind;
mod body;
mod build;
mod caches;
mod campaign;
mod check;
mod commits;
mod config;
mod filling;
pub mod flaw;
mod forms;
mod given;
mod goals;
mod grammar;
mod graph;
mod holes;
mod images;
mod literals;
mod locate;
mod measured;
mod money;
mod nearby;
mod network;
mod node;
mod providers;
mod read;
mod readings;
mod recipes;
mod reference;
mod second;
mod services;
mod shape;
mod steps;
mod syntax;
pub mod template;
mod types;
mod version;
mod yaml;

pub use assets::{Asset, AssetSource};
pub use body::{
    AgentBody, Body, Cache, ClassifyBody, CommandBody, EnvironmentBody, Hold, Input, InputFrom, Kind, Output,
    PatchBody, SandboxChoice, SandboxDecl, Service, Step, TestBody,
};
pub use campaign::{Calibrate, DRAW, Purpose, Ruling, Vetted};
pub use config::{Syntax, kept_number, parsed, secret_name, whole_key};
pub use filling::{Unfilled, fill_config};
pub use flaw::{Flaw, Flaws};
pub use goals::{Goal, GoalLevel, GoalRate, goals_line};
pub use images::{Image, ImageSource, PYTHON};
pub use money::{Budget, Expect};
pub(crate) use node::clean;
pub use providers::fill_variables;
pub use read::{read, read_for, read_text, read_version};
pub use recipes::{Case, Recipe};
pub use reference::reference;
pub use template::Template;
pub use version::Version;

/// A stretch of one of the manifest's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index into [`Manifest::files`].
    pub file: usize,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its path as a person would write it, for messages.
    pub name: String,
    /// Its text.
    pub text: Arc<str>,
}

/// A manifest with all that it imports.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The files read; the first is the manifest itself.
    pub files: Vec<SourceFile>,
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// Things worth saying that are no flaws: `protect` was replaced.
    pub notices: Vec<Spanned<String>>,
    /// Where its files were read, and the files that it names are.
    pub version: Version,
}

/// The pipeline: what is evaluated, and the steps that do it.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The identity of history and `why`.
    pub name: Spanned<String>,
    /// Where commits come from.
    pub repos: Vec<Repo>,
    /// What is evaluated.
    pub candidates: Vec<Candidate>,
    /// The adapters that the candidates name, by name.
    pub agents: BTreeMap<String, Agent>,
    /// The providers that the candidates name, by name.
    pub providers: BTreeMap<ProviderName, Provider>,
    /// What is run when something happens.
    pub on: Vec<On>,
    /// The rates that are to be reached.
    pub goals: Vec<Spanned<Goal>>,
    /// The A/A control.
    pub calibrate: Option<Calibrate>,
    /// A person's judgements, by the file's order.
    pub rulings: Vec<Ruling>,
    /// The slots, one node each.
    pub slots: Vec<Slot>,
    /// Lanes that are only a count: `lane build 2`.
    pub lanes: Vec<Lane>,
    /// What processes need beside their tree.
    pub assets: Vec<Asset>,
    /// How environments are built, by name.
    pub recipes: BTreeMap<String, Recipe>,
    /// Declared programs.
    pub tools: Vec<Tool>,
    /// The manifest's own axes.
    pub axes: Vec<Axis>,
    /// What models cost.
    pub prices: Prices,
    /// The most that agents may cost.
    pub budget: Option<Budget>,
    /// The amount above which a run asks before it spends.
    pub confirm: Option<Spanned<Usd>>,
    /// The steps, amendments applied, in an order in which each comes after what it needs.
    pub steps: Vec<Step>,
}

/// A repository and its commits.
#[derive(Clone, Debug)]
pub struct Repo {
    /// Its name.
    pub name: Spanned<RepoName>,
    /// A URL, or a path made absolute: a clone, or a file that is a `git fast-import` stream.
    pub source: Spanned<RepoSource>,
    /// The commits, in the order of the list.
    pub commits: Vec<Commit>,
    /// Where tests are; the first whose `only` holds the commit wins.
    pub tests: Vec<Tests>,
    /// The name by which it is installed.
    pub package: Option<Spanned<String>>,
    /// Which commits were vetted; those that were not are not among `commits`.
    pub vetted: Option<Vetted>,
}

/// What a `repo` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoSource {
    /// Fetched with the `git` program.
    Url(String),
    /// A path on this machine.
    Path(PathBuf),
}

/// One commit of the list.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The human's commit: 8 to 40 lower-case hex digits.
    pub id: Spanned<String>,
    /// Which commit is its base.
    pub base: Base,
    /// The columns of a table's row, as text.
    pub columns: BTreeMap<String, String>,
}

/// How the base of a human commit is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Its n-th parent, from 1.
    Parent(u32),
    /// A commit named outright.
    Id(String),
}

/// Where the test scripts of some commits are.
#[derive(Clone, Debug)]
pub struct Tests {
    /// The folder, relative to `base`. Only `{var.NAME}` may stand in it.
    pub dir: Spanned<Template>,
    /// The folder of the file that says it.
    pub base: PathBuf,
    /// The file's name within it.
    pub name: Spanned<Template>,
    /// How they report.
    pub contract: Contract,
    /// The commits these are for; all if empty.
    pub only: Vec<Spanned<String>>,
    /// The metrics, where the contract's default is not meant. The first is primary.
    pub metrics: Vec<MetricSpec>,
    /// Where they say what.
    pub metric_places: Vec<Place>,
}

/// What is evaluated: an agent with a model and a configuration.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: Spanned<CandidateName>,
    /// The adapter.
    pub agent: Spanned<String>,
    /// The model's id.
    pub model: Option<Spanned<String>>,
    /// Who offers the model.
    pub provider: Option<Spanned<ProviderName>>,
    /// How many of its jobs go first; 0 for none and no breaker.
    pub canary: Option<Spanned<u32>>,
    /// Its configuration file.
    pub config: Option<Config>,
    /// How many independent draws, at least 1.
    pub samples: u32,
    /// Which earlier draws stand although the agent's version or environment changed.
    pub reuse: Reuse,
    /// Where it says so.
    pub reuse_place: Option<Place>,
    /// Files given to the agent, by role.
    pub files: Vec<GivenFile>,
    /// What stands for `{args}` in the adapter's argv.
    pub args: Vec<Spanned<Template>>,
    /// What one attempt is expected to take.
    pub expect: Option<Expect>,
    /// Its environment.
    pub env: Env,
}

/// Which earlier draws of an agent stand when nothing but its version or its environment changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// Those whose environment alone changed.
    #[default]
    Environment,
    /// None.
    Strict,
    /// Those whose job came to a measured class, or to none yet.
    Usable,
    /// Those that did not end by one of these causes.
    Except(Vec<Cause>),
    /// Those of a run.
    Run(String),
}

/// A configuration file: YAML, TOML or JSON by its ending, keyed by its parsed value. Read and checked by the reader.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, absolute.
    pub file: Spanned<PathBuf>,
    /// The parsed value with sorted keys.
    pub value: serde_json::Value,
    /// The bytes as they stand, for the agent.
    pub bytes: Arc<[u8]>,
}

/// A file given to an agent.
#[derive(Clone, Debug)]
pub struct GivenFile {
    /// Its role: `{file.NAME}` in argv.
    pub name: Spanned<String>,
    /// Its path; relative to `dir`.
    pub path: Spanned<Template>,
    /// The folder of the file that says it.
    pub dir: PathBuf,
    /// Whether it may be missing.
    pub optional: bool,
}

/// What a child's environment gets beyond the fixed base.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `set NAME "value"`: hashed.
    pub set: Vec<(Spanned<String>, Spanned<Template>)>,
    /// `pass NAME`: the variable of flow's own environment; hashed unless `hash=#false`.
    pub pass: Vec<Pass>,
    /// `secret NAME`: never hashed, stored, logged or shown.
    pub secret: Vec<SecretFrom>,
}

/// A variable passed on.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Its name.
    pub name: Spanned<String>,
    /// Whether its value is an ingredient.
    pub hash: bool,
    /// Whether it may be unset: it is then not passed.
    pub optional: bool,
}

/// Where a secret comes from.
#[derive(Clone, Debug)]
pub struct SecretFrom {
    /// The variable that the child gets.
    pub name: Spanned<String>,
    /// Where flow reads it, again at each attempt.
    pub source: SecretSource,
    /// Whether a provider declares it: where it cannot be had, no agent of that provider can work.
    pub of_provider: bool,
}

/// A secret's source.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The variable of the same name.
    Variable,
    /// A file's content without its last newline.
    File(PathBuf),
    /// A command's output without its last newline.
    Command(Vec<String>),
}

/// A provider of models. What it gives its agents is `env`; the rest says when an agent may be begun, and is in no key.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name.
    pub name: Spanned<ProviderName>,
    /// How many agents at once; `None` leaves it to `--jobs`.
    pub lane: Option<u32>,
    /// What its agents get.
    pub env: Env,
    /// The argv that tells whether a call would be taken.
    pub probe: Option<Vec<String>>,
    /// Until when its credential is good.
    pub expires: Option<Expires>,
    /// What it allows a minute.
    pub per_minute: PerMinute,
    /// The hosts that its agents may reach.
    pub network: Option<Spanned<Vec<Host>>>,
}

/// Where a provider's credential says until when it is good.
#[derive(Clone, Debug)]
pub struct Expires {
    /// Who says it.
    pub source: ExpiresSource,
    /// The JSON pointer of the time; without one all that is said is the time.
    pub pointer: Option<String>,
}

/// Who says until when a credential is good.
#[derive(Clone, Debug)]
pub enum ExpiresSource {
    /// A file: its path, in which only `{var.NAME}` may stand, and the folder it is relative to.
    File(Spanned<Template>, PathBuf),
    /// A command's output.
    Command(Vec<String>),
}

/// What a provider allows a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerMinute {
    /// Calls.
    pub requests: Option<u64>,
    /// Tokens, read and written.
    pub tokens: Option<u64>,
}

/// `on lane-closed { command … }`.
#[derive(Clone, Debug)]
pub struct On {
    /// When.
    pub moments: Vec<Moment>,
    /// The argv.
    pub command: Vec<String>,
}

/// When a command of `on` is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A lane closed.
    LaneClosed,
    /// A candidate is paused.
    Breaker,
    /// The run is over.
    RunFinished,
}

/// An agent adapter: how one is run. Data, not code.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its name.
    pub name: Spanned<String>,
    /// The argv. `{flow}` is flow itself, `{args}` the candidate's, `{file.NAME}` a given file, `{prompt}` and `{config}` files,
    /// `{prompt-text}` the prompt itself, `{human-change}` the human's change, `{model}`, `{work}` the work tree.
    pub run: Vec<Spanned<Template>>,
    /// The file that it reads as its standard input.
    pub stdin: Option<Spanned<Template>>,
    /// What tells that the adapter's behaviour changed.
    pub version: Option<Spanned<String>>,
    /// Its environment.
    pub env: Env,
    /// A file within `{out}` that tells what the agent did: kept for people, redacted.
    pub trajectory: Option<Spanned<String>>,
    /// Whether it calls no model, so that it costs nothing.
    pub free: bool,
    /// Other files that are kept for its reading.
    pub keep: Vec<Keep>,
    /// How its outcome and its usage are read. In no key.
    pub reading: Arc<Tables>,
}

/// A file that is kept with each attempt of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// What readers and `flow log` call it.
    pub name: String,
    /// Whether it lies in the agent's home, rather than in `{out}`.
    pub home: bool,
    /// Its path there, as a glob.
    pub glob: String,
}

/// A thing held while a step runs.
#[derive(Clone, Debug)]
pub struct Slot {
    /// `gpu`, `cpu`.
    pub kind: Spanned<SlotKind>,
    /// `0`, `a`, a UUID.
    pub name: Spanned<String>,
    /// The cores that belong to it.
    pub cores: Vec<u32>,
    /// What an hour of it costs.
    pub hourly: Option<Usd>,
}

/// A share of concurrency without a device.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its name.
    pub name: Spanned<SlotKind>,
    /// How many at once.
    pub width: u32,
}

/// A program that decides a result.
#[derive(Clone, Debug)]
pub struct Tool {
    /// `{tool.NAME}`.
    pub name: Spanned<String>,
    /// Its path or its name in `PATH`; relative paths with a `/` are made absolute against the file that says them.
    pub path: Spanned<Template>,
    /// The folder of the file that says it.
    pub dir: PathBuf,
    /// Arguments of each probe.
    pub probes: Vec<Spanned<Vec<Template>>>,
    /// Folders whose change makes the probes be asked again.
    pub watch: Vec<Spanned<Template>>,
    /// The folder of its own source tree, relative to `dir`.
    pub source: Option<Spanned<Template>>,
}

/// An axis of the manifest's own.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Its name.
    pub name: Spanned<String>,
    /// Its values, in order.
    pub values: Vec<String>,
}
