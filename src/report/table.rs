//! Tables of results for a terminal: readable without colour, at 80 columns, by somebody who sees one for the first time.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::report::jobs::JobResult;
use crate::text::Table;

/// The longest evidence in a row.
const EVIDENCE: usize = 60;

/// One line a job.
#[must_use]
pub fn results(results: &[JobResult]) -> String {
    let mut table = Table::new(&["job", "class", "speedup", "what happened"]);
    for result in results {
        let mut class = result.class.map_or_else(|| "-".to_owned(), |class| class.name().to_owned());
        if result.open {
            class.push_str(" (open)");
        }
        let speedup = result.speedup.map_or_else(String::new, |speedup| format!("{speedup:.2}x"));
        let mut evidence = result.evidence.clone().unwrap_or_default();
        for mark in &result.marks {
            evidence = format!("{mark}; {evidence}");
        }
        table.row(vec![result.job.to_string(), class, speedup, short(&evidence)]);
    }
    table.text()
}

/// How many jobs of each class, and what the run did.
#[must_use]
pub fn summary(results: &[JobResult], finished: Option<&Event>) -> String {
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    for result in results {
        *classes.entry(result.class.map_or("no class", |class| class.name())).or_default() += 1;
    }
    let mut counted: Vec<(&str, usize)> = classes.into_iter().collect();
    counted.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let mut text = format!("\n{} jobs", results.len());
    let open = results.iter().filter(|result| result.open).count();
    if open > 0 {
        text.push_str(&format!(", {open} of them not settled"));
    }
    text.push_str(":\n");
    for (name, count) in counted {
        text.push_str(&format!("  {count:>4}  {name}\n"));
    }
    if let Some(Event::RunFinished { run, actions, .. }) = finished {
        text.push_str(&format!(
            "run {run}: {} actions: {} executed ({} of them failed), {} cached, {} skipped, {} blocked\n",
            actions.total, actions.executed, actions.failed, actions.cached, actions.skipped, actions.blocked
        ));
    }
    text
}

fn short(text: &str) -> String {
    if text.chars().count() <= EVIDENCE {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(EVIDENCE - 1).collect();
    cut.push('…');
    cut
}
