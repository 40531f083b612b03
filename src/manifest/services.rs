//! Builds the services of a test.

use std::time::Duration;

use super::build::unique;
use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::{Service, argv};
use crate::process::Ready;

/// How long a service may take to be ready, where it is not said.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Builds services, in the order of their start.
pub(super) fn services<'a>(nodes: impl Iterator<Item = Node<'a>>, report: &Report) -> Vec<Service> {
    let nodes: Vec<Node<'a>> = nodes.collect();
    unique(nodes.iter().copied(), "service", report);
    nodes.into_iter().filter_map(|node| service(node, report)).collect()
}

fn service(node: Node<'_>, report: &Report) -> Option<Service> {
    Some(Service {
        name: node.text()?,
        run: node.child("run").map(|run| argv::run(run, report)).unwrap_or_default(),
        ready: ready(node.child("ready")?, report)?,
        port: node.child("port").and_then(|port| port.arg(0)?.whole()),
        timeout: node.child("timeout").and_then(|limit| limit.arg(0)?.span()).map_or(TIMEOUT, |span| span.value),
    })
}

fn ready(node: Node<'_>, report: &Report) -> Option<Ready> {
    let text = |name: &str| node.prop(name).and_then(Value::str);
    match (node.arg(0).is_some(), text("url"), text("line")) {
        (true, None, None) => Some(Ready::Port),
        (false, Some(path), None) => {
            let plain = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
            if !plain {
                let place = node.prop("url").map_or(node.place(), Value::place);
                report.add(
                    Draft::new("bad-path", place, format!("`{path}` is no path of a server"))
                        .label("begins with `/` and holds no blank")
                        .help("leave out host and port: ready url=\"/health\""),
                );
            }
            plain.then(|| Ready::Url(path.to_owned()))
        }
        (false, None, Some(line)) => Some(Ready::Line(line.to_owned())),
        _ => {
            report.add(
                Draft::new("two-sources", node.place(), "`ready` says one thing by which the service is ready")
                    .label("says none, or more than one")
                    .help("write `ready port`, `ready url=\"/health\"` or `ready line=\"listening\"`"),
            );
            None
        }
    }
}
