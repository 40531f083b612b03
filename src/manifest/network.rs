//! The hosts that agents may reach: `network` of a step and of a provider.
//!
//! Looks no name up: where it leads is asked for when an agent calls.

use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::{Body, Pipeline, SandboxChoice, Spanned};
use crate::process::Host;

/// Hosts that one node names at most.
const HOSTS: usize = 100;

/// The hosts that a node names, each once.
pub(super) fn hosts(node: Node<'_>, report: &Report) -> Spanned<Vec<Host>> {
    let mut hosts: Vec<Host> = Vec::new();
    for value in node.args() {
        let Some(text) = value.str() else { continue };
        match text.parse::<Host>() {
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(error) => report.add(
                Draft::new("bad-host", value.place(), format!("`{text}` cannot be allowed: {error}"))
                    .label("no host")
                    .help(error.hint()),
            ),
        }
    }
    if let Some(beyond) = node.args().nth(HOSTS).filter(|_| hosts.len() > HOSTS) {
        report.add(
            Draft::new("too-many", Value::place(beyond), format!("`network` names more than {HOSTS} hosts"))
                .label("one too many")
                .help("name fewer: what an agent needs is its model and perhaps a package index"),
        );
    }
    Spanned { value: hosts, place: node.place() }
}

/// Checks that the agents of providers with `network` are held at all.
pub(super) fn check(pipeline: &Pipeline, report: &Report) {
    let mut agents = pipeline.steps.iter().filter(|step| matches!(step.body, Body::Agent(_)));
    let Some(open) = agents.find(|step| step.sandbox.choice == SandboxChoice::Off) else { return };
    for provider in pipeline.providers.values() {
        let Some(network) = &provider.network else { continue };
        report.add(
            Draft::new(
                "network-without-sandbox",
                network.place,
                format!("`network` is held by a sandbox, and step `{}` has none", open.name.value),
            )
            .label("would not be held")
            .help(format!("in your pipeline: step {} {{ sandbox auto }}", open.name.value)),
        );
    }
}
