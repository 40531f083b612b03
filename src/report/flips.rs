//! What today's tables read otherwise than the records: every attempt under today's keys, and every earlier
//! draw that `reuse` lets stand for one of them, whose outcome or tokens differ.

use std::sync::Arc;

use serde::Serialize;

use crate::attempt::Ended;
use crate::names::{AttemptId, JobId};
use crate::plan::Plan;
use crate::report::standing::standing;
use crate::run::reuse::bridged;
use crate::step::{Keyed, draft};
use crate::store::{Index, Store, StoreError};
use crate::text::Table;

/// An attempt that reads otherwise today.
#[derive(Clone, Debug, Serialize)]
pub struct Flip {
    /// The job it was for.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The outcome on record: `SUCCEEDED` or a cause.
    pub was: &'static str,
    /// The outcome as it reads today.
    pub now: &'static str,
    /// Whether it settled its action as recorded.
    pub settled: bool,
    /// Whether it does today.
    pub settles: bool,
    /// Whether it was drawn for another version of the agent or in another environment, and stands or stood for today's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reused: bool,
    /// The line that shows today's cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// What was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Flips {
    /// How many attempts were looked at.
    pub attempts: usize,
    /// Those whose outcome differs.
    pub flips: Vec<Flip>,
    /// How many have other tokens.
    pub tokens: usize,
}

impl Flip {
    /// What it means for the action.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match (self.settled, self.settles) {
            (true, false) => "reopened",
            (false, true) => "settles now",
            (true, true) => "settled",
            (false, false) => "not settled",
        }
    }
}

/// Looks for them in the jobs that are wanted.
///
/// # Errors
/// If a record file cannot be read.
pub fn flips(plan: &Plan, store: &Store, index: &Index, wanted: &[bool]) -> Result<Flips, StoreError> {
    let ends = standing(plan, store, index, wanted).ends;
    let mut found = Flips::default();
    for job in &plan.jobs {
        for node in job.nodes.iter().copied().filter(|node| wanted[*node]) {
            let Some(tables) = plan.tables(node) else { continue };
            let Keyed::Ready(record) = draft(plan, node, &ends) else { continue };
            let own = index.attempts(&record.key())?;
            let mut looked: Vec<(Arc<Ended>, bool)> = Vec::new();
            if !own.iter().any(|ended| ended.outcome.settles()) {
                let kin = bridged(plan, node, &record, store, index);
                looked.extend(kin.into_iter().map(|ended| (ended, true)));
            }
            looked.extend(own.into_iter().map(|ended| (ended, false)));
            for (ended, reused) in looked {
                let today = store.today(&ended, Some(tables));
                found.attempts += 1;
                found.tokens += usize::from(today.usage != ended.usage);
                if today.outcome.word() != ended.outcome.word() {
                    found.flips.push(Flip {
                        job: job.id.clone(),
                        attempt: ended.attempt.clone(),
                        was: ended.outcome.word(),
                        now: today.outcome.word(),
                        settled: ended.outcome.settles(),
                        settles: today.outcome.settles(),
                        reused,
                        evidence: today.outcome.failure().map(|failure| failure.evidence.as_str().to_owned()),
                    });
                }
            }
        }
    }
    Ok(found)
}

impl Flips {
    /// How many actions were settled and are not any more.
    #[must_use]
    pub fn reopened(&self) -> usize {
        self.flips.iter().filter(|flip| flip.settled && !flip.settles).count()
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.flips.is_empty() {
            let mut table = Table::new(&["job", "attempt", "on record", "today", ""]);
            for flip in &self.flips {
                table.row(vec![
                    flip.job.to_string(),
                    flip.attempt.to_string(),
                    flip.was.to_owned(),
                    flip.now.to_owned(),
                    format!("{}{}", flip.meaning(), if flip.reused { ", reused" } else { "" }),
                ]);
            }
            text.push_str(&table.text());
            text.push('\n');
        }
        text.push_str(&format!(
            "{} attempts read: {} have another outcome today, {} other tokens, {} are reopened\nagents run again: 0\n",
            self.attempts,
            self.flips.len(),
            self.tokens,
            self.reopened()
        ));
        if self.reopened() > 0 {
            text.push_str("what is reopened waits: `flow run --retry JOB` draws it again\n");
        }
        text
    }
}
