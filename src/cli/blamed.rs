//! Who brought the causes of a plan: one of the actions that a cause touches is followed back in the project's history.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::open::{Opened, todays_secrets};
use crate::cli::versions::Within;
use crate::event::GitState;
use crate::key::Change;
use crate::names::RunId;
use crate::why::action::Action;
use crate::why::change::Blobs;
use crate::why::explain::Sources;
use crate::why::forecast::{Forecast, State};
use crate::why::origin::{Origin, Tracer};
use crate::why::past::{Past, Terms};
use crate::why::text::{origin_in_short, printable};

/// Changes of one action that are followed, and actions of one cause.
const CHANGES: usize = 8;
const ACTIONS: usize = 8;

/// Who is asked.
pub(super) struct Blamed<'a> {
    opened: &'a Opened,
    within: Option<Within>,
    began: Instant,
    /// After so long no further cause is followed.
    patience: Duration,
    runs: RefCell<HashMap<RunId, Option<GitState>>>,
    gave_up: Cell<bool>,
}

impl<'a> Blamed<'a> {
    pub(super) fn new(opened: &'a Opened, patience: Duration) -> Self {
        let within = Within::of(&opened.path);
        Self { opened, within, began: Instant::now(), patience, runs: RefCell::default(), gave_up: Cell::new(false) }
    }

    /// Who brought what changed of some actions with one cause, a line for each commit; nothing where no commit and no edit is known for
    /// it, or time is up.
    pub(super) fn of(&self, members: &[&Forecast]) -> Vec<String> {
        let Some(within) = &self.within else { return Vec::new() };
        let plan = self.opened.plan();
        // What differs in the same way, for one candidate and in one step, is brought by the same.
        let mut seen: Vec<(usize, Option<usize>, &[Change])> = Vec::new();
        let (mut origins, mut all) = (Vec::new(), true);
        for said in members.iter().filter(|said| said.state == State::Changed && !said.changes.is_empty()) {
            let node = &plan.nodes[said.node];
            let kind = (node.step, node.point.candidate, said.changes.as_slice());
            if seen.contains(&kind) {
                continue;
            }
            if seen.len() == ACTIONS || self.began.elapsed() > self.patience {
                all = false;
                break;
            }
            seen.push(kind);
            origins.extend(self.origins(within, said).unwrap_or_default());
        }
        let mut lines = lines(&origins);
        if !all && lines.is_empty() {
            self.gave_up.set(true);
        } else if !all {
            lines.push("who brought the rest of it was not looked for".to_owned());
        }
        lines
    }

    /// Whether some cause was not followed.
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.get()
    }

    fn origins(&self, within: &Within, said: &Forecast) -> Result<Vec<Origin>, Fault> {
        let (plan, prepared) = (self.opened.plan(), &self.opened.prepared);
        // The other commits have nothing to do with it: they need not be planned.
        let only = plan.nodes[said.node].point.commit;
        let only = only.map(|(repo, at)| plan.manifest.pipeline.repos[repo].commits[at].id.value.clone());
        let past = Past::new(within.project.clone(), Terms::of(plan, only));
        let tracer = match plan.manifest.version.commit() {
            Some(commit) => {
                let path = within.name_at(&past, commit)?;
                Tracer::of_commit(past, &path, commit.clone())
            }
            None => Tracer::of_work_tree(past, &within.manifest),
        };
        let redactor = todays_secrets(Some(&plan.manifest))?;
        let sources = Sources {
            blobs: Blobs { store: &self.opened.store, intakes: vec![&prepared.intake], redactor },
            index: &self.opened.index,
            lines: 0,
            keys: false,
            now: Timestamp::now(),
            tracer: Some(RefCell::new(tracer)),
            runs: RefCell::new(self.runs.take()),
        };
        let action = Action::of(plan, said.node);
        let shown = said.changes.iter().take(CHANGES);
        let origins = shown.filter_map(|change| sources.shown(change, Some(&action), said.nearest).origin).collect();
        self.runs.replace(sources.runs.take());
        Ok(origins)
    }
}

/// Each commit once, with the first place of it.
fn lines(origins: &[Origin]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut told: Vec<Option<&str>> = Vec::new();
    for origin in origins.iter().flat_map(|origin| std::iter::once(origin).chain(&origin.also)) {
        if !told.contains(&origin.commit.as_deref()) {
            told.push(origin.commit.as_deref());
            lines.push(printable(&origin_in_short(origin)));
        }
    }
    lines
}
