//! What can only be said of all actions together: which make up a job, and which would write over each other.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::manifest::{Kind, Pipeline};
use crate::names::JobId;
use crate::plan::graph::upstream_of;
use crate::plan::points::draw_of;
use crate::plan::{Ask, Job, Missing, Node, Point, point_name};

/// The jobs: one for each point of the classify steps, or where there are none, of the actions that nothing depends on.
pub(super) fn jobs(pipeline: &Pipeline, nodes: &[Node], dependents: &[Vec<usize>]) -> Vec<Job> {
    let classify = |node: usize| pipeline.steps[nodes[node].step].kind() == Kind::Classify;
    let any_classify = pipeline.steps.iter().any(|step| step.kind() == Kind::Classify);
    let mut by_point: BTreeMap<&Point, Vec<usize>> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let ends = if any_classify { classify(index) } else { dependents[index].is_empty() };
        if ends {
            by_point.entry(&node.point).or_default().push(index);
        }
    }
    let mut jobs: Vec<Job> = by_point
        .into_values()
        .map(|ends| {
            let axes = nodes[ends[0]].axes.clone();
            Job {
                id: JobId::new(point_name(&axes)),
                control: draw_of(pipeline, &nodes[ends[0]].point).is_some(),
                axes,
                classify: ends.iter().copied().find(|node| classify(*node)),
                nodes: upstream_of(nodes, &ends),
            }
        })
        .collect();
    jobs.sort_by_key(|job| job.nodes.last().copied());
    jobs
}

/// Two actions that publish to one file would overwrite each other, and who wins would be chance.
pub(super) fn refuse_shared_places(nodes: &mut [Node]) {
    let mut taken: HashMap<PathBuf, usize> = HashMap::new();
    for (index, node) in nodes.iter_mut().enumerate() {
        let Ask::Command(ask) = &node.ask else { continue };
        let twice = ask.publish.values().find(|path| taken.insert((*path).clone(), index).is_some());
        if let Some(path) = twice {
            node.missing.push(Missing {
                what: format!("{} is published by two actions", path.display()),
                hint: "use every axis of the step in the path of `publish`".into(),
                place: None,
                fatal: true,
            });
        }
    }
}
