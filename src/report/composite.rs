//! Sets of draws that were chosen by their outcomes: what is one agent's rate and what is the better of two.
//!
//! Redrawing only what failed turns a rate of 0.3 into 0.51, whatever the new version is worth. So a candidate whose manifest
//! keeps earlier draws by outcome is told as COMPOSITE, with the rate of each version's own first draws beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::attempt::Ended;
use crate::class::Class;
use crate::digest::Digest;
use crate::key::{KeyRecord, Value};
use crate::manifest::{Kind, Reuse};
use crate::plan::Plan;
use crate::run::reuse::{class_with, is_version, relatives};
use crate::step::{End, Keyed, draft};
use crate::store::{Index, Store};
use crate::text::wrap;

/// A candidate whose draws are of more than one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Composite {
    /// The candidate.
    pub candidate: String,
    /// Its jobs, and how many of them improved by the draw that stands.
    pub jobs: Rate,
    /// Each version's own first draws, the oldest version first.
    pub versions: Vec<Version>,
}

/// How many of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// How many improved.
    pub improved: usize,
    /// Of how many.
    pub of: usize,
    /// How many of them have no class yet.
    pub unclassed: usize,
}

/// A version's first draws.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// What tells it from the others.
    pub name: String,
    /// Its rate over the jobs that it drew first.
    pub first_draws: Rate,
}

/// The candidates whose draws were chosen by their outcomes and are of more than one version.
#[must_use]
pub fn composites(plan: &Plan, store: &Store, index: &Index, ends: &Vec<End>) -> Vec<Composite> {
    let candidates = plan.manifest.pipeline.candidates.iter().enumerate();
    let chosen = candidates.filter(|(_, candidate)| matches!(candidate.reuse, Reuse::Usable | Reuse::Except(_)));
    chosen
        .filter_map(|(number, candidate)| of(plan, store, index, ends, number, candidate.name.value.as_str()))
        .collect()
}

fn of(plan: &Plan, store: &Store, index: &Index, ends: &Vec<End>, number: usize, name: &str) -> Option<Composite> {
    let mut whole = Rate::default();
    let mut standing: BTreeMap<Digest, ()> = BTreeMap::new();
    let mut versions: BTreeMap<Digest, (Timestamp, String, Rate)> = BTreeMap::new();
    let of_candidate =
        |node: &usize| plan.kind(*node) == Kind::Agent && plan.nodes[*node].point.candidate == Some(number);
    for node in (0..plan.nodes.len()).filter(of_candidate) {
        let Keyed::Ready(record) = draft(plan, node, ends) else { continue };
        let class = |ended: &Arc<Ended>| class_with(plan, node, ended, ends, store, index);
        let attempts = index.attempts(&record.key()).unwrap_or_default();
        let mut own = attempts.iter().map(|ended| store.today(ended, plan.tables(node)));
        let own = own.find(|ended| ended.outcome.settles());
        let mut draws: Vec<(KeyRecord, Arc<Ended>)> = own.map(|ended| (record.clone(), ended)).into_iter().collect();
        let relatives = relatives(plan, node, &record, store, index);
        draws.extend(relatives.into_iter().map(|relative| (relative.record, relative.ended)));
        draws.sort_by_key(|(_, ended)| ended.at);
        if let Some(stands) = ends[node].settled() {
            whole.count(class(stands));
            if let Some((record, _)) = draws.iter().find(|(_, ended)| ended.attempt == stands.attempt) {
                standing.insert(version(record).0, ());
            }
        }
        let mut seen = Vec::new();
        for (record, ended) in &draws {
            let (digest, words) = version(record);
            // An environment of another kind is no other version: its first draw was the one before.
            if seen.contains(&digest) {
                continue;
            }
            seen.push(digest);
            let entry = versions.entry(digest).or_insert_with(|| (ended.at, words, Rate::default()));
            entry.0 = entry.0.min(ended.at);
            entry.2.count(class(ended));
        }
    }
    if standing.len() < 2 {
        return None;
    }
    let mut versions: Vec<(Timestamp, String, Rate)> = versions.into_values().collect();
    versions.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let versions = versions
        .into_iter()
        .map(|(since, words, first_draws)| Version {
            name: format!("{words}, drawn since {}", since.strftime("%Y-%m-%d %H:%M:%S")),
            first_draws,
        })
        .collect();
    Some(Composite { candidate: name.to_owned(), jobs: whole, versions })
}

impl Rate {
    fn count(&mut self, class: Option<Class>) {
        self.of += 1;
        self.improved += usize::from(class == Some(Class::SuccessImprovement));
        self.unclassed += usize::from(class.is_none());
    }

    fn words(&self) -> String {
        let open = if self.unclassed > 0 { format!(", {} not classed", self.unclassed) } else { String::new() };
        format!("{} of {} improved{open}", self.improved, self.of)
    }
}

/// What tells a version from another: its digest, and in words.
fn version(record: &KeyRecord) -> (Digest, String) {
    let own: Vec<_> = record.ingredients.iter().filter(|ingredient| is_version(&ingredient.role)).collect();
    let bytes = serde_json::to_vec(&own).unwrap_or_default();
    let words = own.iter().map(|ingredient| match &ingredient.value {
        Value::Text(text) => {
            let first = text.lines().next().unwrap_or_default();
            let first: String = first.chars().take(40).collect();
            format!("{} {first}", ingredient.role)
        }
        other => format!("{} {other}", ingredient.role),
    });
    (Digest::of(&bytes), words.collect::<Vec<_>>().join(", "))
}

/// Sets that were chosen by their outcomes, in words; nothing where there is none.
#[must_use]
pub fn text(composites: &[Composite], width: usize) -> String {
    let mut out = String::new();
    let mut say = |line: &str, indent: &str| {
        for line in wrap(line, width.saturating_sub(indent.len())) {
            out.push_str(&format!("{indent}{line}\n"));
        }
    };
    for set in composites {
        let versions = set.versions.len();
        say("", "");
        say(
            &format!(
                "{} is COMPOSITE: its {} draws are of {versions} versions and were chosen by outcome, {}",
                set.candidate,
                set.jobs.of,
                set.jobs.words()
            ),
            "",
        );
        for version in &set.versions {
            say(&format!("first draws alone: {} ({})", version.first_draws.words(), version.name), "  ");
        }
    }
    out
}
