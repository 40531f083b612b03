//! What a test step is asked to measure, and how.
//!
//! Plain data: `expand` fills it from the manifest, `step` keys and runs it.

use std::path::PathBuf;
use std::time::Duration;

use super::EnvAsk;
use crate::digest::Digest;
use crate::manifest::{Cache, SandboxDecl, Template};
use crate::measure::{self, Contract, Equal, Guards, MetricSpec, Protocol};
use crate::process::Ready;

/// Measure.
#[derive(Clone, Debug)]
pub struct TestAsk {
    /// The script; `None` if the commit has none.
    pub script: Option<Digest>,
    /// Where it was looked for, for messages.
    pub script_path: PathBuf,
    /// How it reports.
    pub contract: Contract,
    /// Argv in place of interpreter and script.
    pub argv: Vec<Template>,
    /// The metrics, the first is primary.
    pub metrics: Vec<MetricSpec>,
    /// How results are compared.
    pub equal: Equal,
    /// Commands that must pass in the patched tree where they pass in the base. Of no meaning in a gate.
    pub checks: Vec<Vec<Template>>,
    /// Blocks and time.
    pub protocol: Protocol,
    /// What is borne of a disturbed machine. In no key.
    pub guards: Guards,
    /// Arm B is a second copy of the base.
    pub aa: bool,
    /// Its limits are a person's of today, beyond the manifest's. In no key.
    pub asked: bool,
    /// It is a second session: it measures only if the first came out as faster or slower.
    pub again: bool,
    /// The human's tree is measured beside the patched one.
    pub human: bool,
    /// The interpreter's tool, where the step has no environment step: the only declared one.
    pub tool: Option<String>,
    /// Tools named in the argv.
    pub tools: Vec<String>,
    /// Environment of its processes.
    pub env: EnvAsk,
    /// The time limit of one process.
    pub timeout: Option<Duration>,
    /// What it is measured on, where that can matter.
    pub device: Option<String>,
    /// What holds its processes.
    pub sandbox: SandboxDecl,
    /// The compile caches that its processes keep, by name.
    pub caches: Vec<Cache>,
    /// The servers that each of its processes uses.
    pub services: Vec<ServiceAsk>,
}

/// A server that each process of a test uses.
#[derive(Clone, Debug)]
pub struct ServiceAsk {
    /// Its name.
    pub name: String,
    /// Its argv.
    pub argv: Vec<Template>,
    /// When it is ready.
    pub ready: Ready,
    /// The port that it always has.
    pub port: Option<u16>,
    /// How long it may take to be ready. In no key.
    pub timeout: Duration,
}

impl ServiceAsk {
    /// Its text in a key.
    #[must_use]
    pub fn signature(&self) -> String {
        let port = self.port.map(|port| format!(" port={port}")).unwrap_or_default();
        let argv: Vec<String> = self.argv.iter().map(ToString::to_string).collect();
        format!("{}{port} {}\n{}", self.name, self.ready, argv.join("\n"))
    }
}

impl TestAsk {
    /// Whether it runs the commit's script: a commit without one cannot be tested then.
    #[must_use]
    pub fn runs_script(&self) -> bool {
        let mut words = self.argv.iter().chain(self.services.iter().flat_map(|service| &service.argv));
        self.argv.is_empty() || words.any(|argument| argument.holes().any(|hole| hole == "script"))
    }

    /// Whether every metric is an exact count.
    #[must_use]
    pub fn counts_only(&self) -> bool {
        self.metrics.iter().all(|metric| metric.kind == measure::Kind::Count)
    }
}
