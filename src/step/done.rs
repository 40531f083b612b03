//! What an attempt reads and what it comes to: the settled attempts upstream, and its own outcome before it is a record.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attempt::{Ended, LimitUse, ProcessEnd, Usage};
use crate::digest::Digest;
use crate::key::Value;
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::Role;
use crate::process::{self, Part, Sandbox};

/// The settled attempts that an action reads.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub Vec<(Role, Arc<Ended>)>);

impl Inputs {
    fn value(&self, role: &Role, output: &str) -> Option<&Value> {
        self.0.iter().find(|(own, _)| own == role).and_then(|(_, ended)| ended.outputs.get(output))
    }

    /// Whether there is such an input.
    #[must_use]
    pub fn has(&self, role: &Role) -> bool {
        self.0.iter().any(|(own, _)| own == role)
    }

    /// A text output of an input.
    ///
    /// # Errors
    /// If it is not there: the key would not have been complete.
    pub fn text(&self, role: &Role, output: &str) -> Result<&str, Failure> {
        self.value(role, output).and_then(Value::as_text).ok_or_else(|| absent(role, output))
    }

    /// A blob output of an input.
    ///
    /// # Errors
    /// If it is not there.
    pub fn blob(&self, role: &Role, output: &str) -> Result<Digest, Failure> {
        self.value(role, output).and_then(Value::as_blob).ok_or_else(|| absent(role, output))
    }
}

fn absent(role: &Role, output: &str) -> Failure {
    Failure::new(Cause::HarnessFault, &format!("the input {role:?} has no output `{output}`"))
}

/// What an attempt came to, before it is a record.
#[derive(Clone, Debug)]
pub struct Done {
    /// What it did.
    pub outcome: Outcome,
    /// What others read.
    pub outputs: BTreeMap<String, Value>,
    /// What people read.
    pub logs: BTreeMap<String, Digest>,
    /// Limits and their use.
    pub limits: BTreeMap<String, LimitUse>,
    /// Facts worth a warning.
    pub notes: Vec<String>,
    /// How an agent's process ended.
    pub process: Option<ProcessEnd>,
    /// The tables by which `outcome` and `usage` were read.
    pub read_by: Option<Digest>,
    /// Tokens.
    pub usage: Option<Usage>,
    /// What the kernel held its processes to, where it was asked to.
    pub sandbox: Option<Sandbox>,
    /// Why what a finished agent left could not be read. It is paid for: its place stays until it can be.
    pub unread: Option<Failure>,
}

impl Done {
    fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            outputs: BTreeMap::new(),
            logs: BTreeMap::new(),
            limits: BTreeMap::new(),
            notes: Vec::new(),
            process: None,
            read_by: None,
            usage: None,
            sandbox: None,
            unread: None,
        }
    }

    /// A success without outputs yet.
    #[must_use]
    pub fn succeeded() -> Self {
        Self::new(Outcome::Succeeded)
    }

    /// A failure without outputs.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self::new(Outcome::Failed(failure))
    }

    /// A failure before an agent could begin: it used nothing, which is known.
    #[must_use]
    pub fn no_agent_began(failure: Failure) -> Self {
        Self { usage: Some(Usage::NOTHING), ..Self::failed(failure) }
    }

    /// What a finished agent left that cannot be read now.
    #[must_use]
    pub fn unread(failure: Failure) -> Self {
        Self { unread: Some(failure.clone()), ..Self::failed(failure) }
    }

    /// Takes in what one of several processes was held to: what was held of all of them stands.
    pub fn held(&mut self, end: &process::End) {
        if let Some(held) = &end.sandbox {
            let all = self.sandbox.take();
            self.sandbox = Some(all.map_or_else(|| held.clone(), |all| all.and(held)));
        }
    }

    /// Says of a failure that its sandbox may have caused what opens it: the words of the system name a path and no reason.
    pub fn tell_of_sandbox(&mut self) {
        let Some(sandbox) = &self.sandbox else { return };
        let says =
            |words: &str| self.outcome.failure().is_some_and(|failure| failure.evidence.as_str().contains(words));
        if sandbox.holds(Part::Files) && says("Read-only file system") {
            self.notes.push(
                "its sandbox lets it write to its own folders alone: `write \"PATH\"` on the step opens another, \
                 `sandbox off` all of them"
                    .to_owned(),
            );
        }
        let unreached = [
            "Network is unreachable",
            "Connection refused",
            "Name or service not known",
            "Temporary failure in name resolution",
        ];
        if sandbox.holds(Part::Network) && unreached.into_iter().any(says) {
            self.notes.push(
                "its sandbox has no network but a loopback of its own, and the hosts that `network` names on an agent's step: a \
                 test needs `sandbox off` to reach others"
                    .to_owned(),
            );
        }
    }

    /// Adds an output.
    pub fn output(&mut self, name: &str, value: Value) {
        self.outputs.insert(name.to_owned(), value);
    }
}
