//! The points of the axes: where each step is instantiated, and in which order.

use std::collections::{BTreeSet, HashMap};

use crate::digest::Digest;
use crate::manifest::{Axis, DRAW, Kind, Pipeline, Step};
use crate::names::Axes;
use crate::plan::{Point, point_name};

/// Every step at every point: commits in an order that their ids shuffle, so that a run stopped half-way is an honest sample
/// and a commit added to the list moves no other; all candidates of a commit together; each after what it needs.
pub(super) fn ordered_points(pipeline: &Pipeline) -> Vec<(usize, Point)> {
    let mut commits: Vec<(Digest, usize, usize)> = Vec::new();
    for (repo, decl) in pipeline.repos.iter().enumerate() {
        for (index, commit) in decl.commits.iter().enumerate() {
            let seed = format!("{} {}", pipeline.name.value, commit.id.value);
            commits.push((Digest::of(seed.as_bytes()), repo, index));
        }
    }
    commits.sort_unstable();
    let rank: HashMap<(usize, usize), usize> =
        commits.iter().enumerate().map(|(rank, (_, repo, index))| ((*repo, *index), rank + 1)).collect();
    let mut points = Vec::new();
    for (step, decl) in pipeline.steps.iter().enumerate() {
        for point in points_of(pipeline, decl) {
            points.push((step, point));
        }
    }
    let rank_of = |point: &Point| point.commit.map_or(0, |commit| rank[&commit]);
    // Fewer axes of the manifest's own first: a step never needs one of more axes.
    // A control goes with its commit: a run that is stopped half-way has its share of them.
    let axes = pipeline.axes.iter().filter(|axis| pipeline.calibrate.is_none() || axis.name.value != DRAW).count();
    points.sort_by_cached_key(|(step, point)| {
        let shared = point.own.is_empty() || point.own.len() == 1 && draw_of(pipeline, point).is_some();
        (!shared, rank_of(point), if shared { Vec::new() } else { point.own.clone() }, *step, point.clone())
    });
    if axes > 1 {
        points.sort_by_key(|(step, _)| *step);
    }
    points
}

fn points_of(pipeline: &Pipeline, step: &Step) -> Vec<Point> {
    let has = |axis: &str| step.axes.iter().any(|own| own == axis);
    let mut points = vec![Point::default()];
    if has("commit") || has("repo") {
        points = pipeline
            .repos
            .iter()
            .enumerate()
            .flat_map(|(repo, decl)| (0..decl.commits.len()).map(move |commit| (repo, commit)))
            .map(|commit| Point { commit: Some(commit), ..Point::default() })
            .collect();
    }
    if has("candidate") {
        let mut wider = Vec::new();
        for point in points {
            for (candidate, decl) in pipeline.candidates.iter().enumerate() {
                for sample in 1..=decl.samples {
                    wider.push(Point { candidate: Some(candidate), sample: Some(sample), ..point.clone() });
                }
            }
        }
        points = wider;
    }
    for (index, axis) in pipeline.axes.iter().enumerate().filter(|(_, axis)| has(&axis.name.value)) {
        points = points
            .into_iter()
            .flat_map(|point| {
                (0..axis.values.len()).map(move |value| {
                    let mut wider = point.clone();
                    wider.own.push((index, value));
                    wider
                })
            })
            .collect();
        if axis.name.value == DRAW
            && let Some(calibrate) = &pipeline.calibrate
        {
            let drawn = |(repo, commit): (usize, usize), draw: usize| calibrate.drawn.contains(&(repo, commit, draw));
            points.retain(|point| {
                let draw = point.own.iter().find(|(own, _)| *own == index);
                draw.is_some_and(|(_, draw)| point.commit.is_some_and(|commit| drawn(commit, *draw)))
            });
        }
    }
    points
}

/// Whether a point is of an A/A control, and which draw of its commit it is, from 1.
#[must_use]
pub fn draw_of(pipeline: &Pipeline, point: &Point) -> Option<u64> {
    pipeline.calibrate.as_ref()?;
    let is = |axis: usize| pipeline.axes.get(axis).is_some_and(|axis| axis.name.value == DRAW);
    point.own.iter().find(|(axis, _)| is(*axis)).map(|(_, draw)| *draw as u64 + 1)
}

/// The names of all jobs, where the pipeline says classes: known before anything of the machine is.
#[must_use]
pub fn job_names(pipeline: &Pipeline) -> BTreeSet<String> {
    let classify = pipeline.steps.iter().filter(|step| step.kind() == Kind::Classify);
    let points = classify.flat_map(|step| points_of(pipeline, step));
    points.map(|point| point_name(&axes_of(pipeline, &point))).collect()
}

/// The axes of a point, for people and records.
pub(super) fn axes_of(pipeline: &Pipeline, point: &Point) -> Axes {
    let mut axes = Axes::default();
    let mut put = |axis: &str, value: String| axes.0.insert(axis.to_owned(), value);
    if let Some((repo, commit)) = point.commit {
        put("repo", pipeline.repos[repo].name.value.to_string());
        put("commit", pipeline.repos[repo].commits[commit].id.value.clone());
    }
    if let Some(candidate) = point.candidate {
        put("candidate", pipeline.candidates[candidate].name.value.to_string());
    }
    if let Some(sample) = point.sample {
        put("sample", sample.to_string());
    }
    for (axis, value) in &point.own {
        let Axis { name, values } = &pipeline.axes[*axis];
        put(&name.value, values[*value].clone());
    }
    axes
}

/// How many actions a pipeline has: counted before any is made, for the axes multiply.
#[must_use]
pub fn count(pipeline: &Pipeline) -> u64 {
    let commits: u64 = pipeline.repos.iter().map(|repo| repo.commits.len() as u64).sum();
    let samples: u64 = pipeline.candidates.iter().map(|candidate| u64::from(candidate.samples)).sum();
    let of_step = |step: &Step| {
        let own = pipeline.axes.iter().filter(|axis| step.axes.contains(&axis.name.value));
        let own = own.fold(1_u64, |product, axis| product.saturating_mul(axis.values.len() as u64));
        let has = |axis: &str| step.axes.iter().any(|known| known == axis);
        let commits = if has("commit") || has("repo") { commits } else { 1 };
        let samples = if has("candidate") { samples } else { 1 };
        own.saturating_mul(commits).saturating_mul(samples)
    };
    pipeline.steps.iter().map(of_step).fold(0, u64::saturating_add)
}
