//! Why one job differs from another, or from what it was in a run: their key records compared step by step.
//!
//! Says what differs, and judges nothing: two candidates differ because they are meant to.

use serde::Serialize;

use crate::key::{ActionKey, KeyRecord};
use crate::names::Axes;
use crate::text::wrap;
use crate::why::change::Shown;
use crate::why::explain::Sources;
use crate::why::text::{change_lines, cut, origin_lines, printable};

/// One side of a comparison: a job's steps, each with its key as far as that is known.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is called.
    pub name: String,
    /// The steps, upstream first.
    pub steps: Vec<OfSide>,
}

/// A step of one side.
#[derive(Clone, Debug)]
pub struct OfSide {
    /// Its name.
    pub step: String,
    /// Its key.
    pub key: Option<ActionKey>,
    /// Its key record, where it is not in the store.
    pub record: Option<KeyRecord>,
}

/// Two jobs compared.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The one.
    pub job: String,
    /// The other.
    pub against: String,
    /// The steps of both.
    pub steps: Vec<StepCompared>,
}

/// A step of two jobs.
#[derive(Clone, Debug, Serialize)]
pub struct StepCompared {
    /// Its name.
    pub step: String,
    /// What the other calls it, where that is another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_step: Option<String>,
    /// `same`, `differs`, `unknown`, or that only one of them has it.
    pub state: &'static str,
    /// The key of the one.
    pub key: Option<ActionKey>,
    /// The key of the other.
    pub other_key: Option<ActionKey>,
    /// What differs: old is of the other, new of the one.
    pub changes: Vec<Shown>,
}

/// Compares two jobs. A step whose key is not known yet, as it reads what is still to be made, is said to be unknown. Where it is one
/// job now and in a run, its `axes` let each change be followed back.
#[must_use]
pub fn compare(one: &Side, other: &Side, axes: Option<&Axes>, sources: &Sources<'_>) -> Compared {
    let mut steps: Vec<StepCompared> = Vec::new();
    let pairs = pairs(one, other, sources);
    for (own, theirs) in one.steps.iter().zip(&pairs) {
        let mut said = StepCompared {
            step: own.step.clone(),
            other_step: None,
            state: "only here",
            key: own.key,
            other_key: None,
            changes: Vec::new(),
        };
        if let Some(theirs) = theirs.map(|at| &other.steps[at]) {
            said.other_step = (theirs.step != own.step).then(|| theirs.step.clone());
            said.other_key = theirs.key;
            said.state = match (own.key, theirs.key) {
                (Some(own), Some(theirs)) if own == theirs => "same",
                (Some(_), Some(_)) => "differs",
                _ => "unknown",
            };
            if said.state == "differs"
                && let (Some(new), Some(old)) = (record(own, sources), record(theirs, sources))
            {
                let tracer = sources.tracer.as_ref();
                let action = axes.and_then(|axes| tracer?.borrow().action_of(&own.step, axes));
                let changes = new.changes_since(&old);
                said.changes =
                    changes.iter().map(|change| sources.shown(change, action.as_ref(), theirs.key)).collect();
            }
        }
        steps.push(said);
    }
    let alone = (0..other.steps.len()).filter(|at| !pairs.contains(&Some(*at)));
    steps.extend(alone.map(|at| &other.steps[at]).map(|theirs| StepCompared {
        step: theirs.step.clone(),
        other_step: None,
        state: "only there",
        key: None,
        other_key: theirs.key,
        changes: Vec::new(),
    }));
    Compared { job: one.name.clone(), against: other.name.clone(), steps }
}

/// The other side's step for each of one side: that of its name; of what is left that of its key, else the only one of its kind.
fn pairs(one: &Side, other: &Side, sources: &Sources<'_>) -> Vec<Option<usize>> {
    let named = |own: &OfSide| other.steps.iter().position(|theirs| theirs.step == own.step);
    let mut pairs: Vec<Option<usize>> = one.steps.iter().map(named).collect();
    let kind = |step: &OfSide| record(step, sources).map(|record| record.kind);
    for by_kind in [false, true] {
        let left = |pairs: &[Option<usize>]| -> Vec<usize> {
            (0..other.steps.len()).filter(|at| !pairs.contains(&Some(*at))).collect()
        };
        let alone: Vec<usize> = (0..one.steps.len()).filter(|at| pairs[*at].is_none()).collect();
        for at in &alone {
            let own = &one.steps[*at];
            let alike = |a: &OfSide, b: &OfSide| match by_kind {
                false => a.key.is_some() && a.key == b.key,
                true => kind(a).is_some() && kind(a) == kind(b),
            };
            let mut meant = left(&pairs).into_iter().filter(|theirs| alike(own, &other.steps[*theirs]));
            let only = meant.next().filter(|_| meant.next().is_none());
            let rivals = alone.iter().filter(|rival| by_kind && alike(own, &one.steps[**rival])).count();
            pairs[*at] = only.filter(|_| rivals < 2);
        }
    }
    pairs
}

fn record(step: &OfSide, sources: &Sources<'_>) -> Option<KeyRecord> {
    step.record.clone().or_else(|| sources.record(&step.key?))
}

/// A comparison in one line a step: its state, and the first thing that differs.
#[must_use]
pub fn short(all: &[Compared], columns: usize) -> String {
    let mut text = String::new();
    for said in all {
        for step in &said.steps {
            let first = step.changes.first().map(|change| printable(&change.ingredient)).unwrap_or_default();
            let more = match step.changes.len() {
                0 | 1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let line = format!("{} {}  {}  {first}{more}", printable(&said.job), step.step, step.state);
            text.push_str(&cut(line.trim_end(), columns));
            text.push('\n');
        }
    }
    text
}

/// A comparison for people, in so many columns.
#[must_use]
pub fn text(all: &[Compared], columns: usize) -> String {
    let mut text = String::new();
    for said in all {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}\n", printable(&said.job)));
        let against = format!("against {}, which is the old side", printable(&said.against));
        for line in wrap(&against, columns - 4) {
            text.push_str(&format!("  {line}\n"));
        }
        let width = said.steps.iter().map(|step| step.step.len()).max().unwrap_or(0);
        for step in &said.steps {
            let key = step.key.or(step.other_key).map(|key| key.0.short()).unwrap_or_default();
            text.push_str(format!("  {:width$}  {:9}  {key}", step.step, step.state).trim_end());
            text.push('\n');
            if let Some(other) = &step.other_step {
                text.push_str(&format!("      called {} there\n", printable(other)));
            }
            for change in &step.changes {
                for line in change_lines(change, columns - 6) {
                    text.push_str(&format!("      {line}\n"));
                }
                for line in origin_lines(change.origin.as_ref(), change.unexplained.as_deref(), columns) {
                    text.push_str(&format!("        {}\n", cut(&line, columns - 8)));
                }
                for line in change.diff.iter().flat_map(|diff| diff.lines()) {
                    text.push_str(&format!("        {}\n", cut(&printable(line), columns - 8)));
                }
            }
            if step.state == "differs" && step.changes.is_empty() {
                text.push_str("      (a key record of one of them is no longer stored)\n");
            }
        }
        let count = |state: &str| said.steps.iter().filter(|step| step.state == state).count();
        text.push_str(&format!("{} of {} steps are the same\n", count("same"), said.steps.len()));
        if count("unknown") > 0 {
            text.push_str("what is unknown has no key yet: it reads what is still to be made\n");
        }
    }
    text
}
