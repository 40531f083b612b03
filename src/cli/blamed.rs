//! Who brought the causes of a plan: one of the actions that a cause touches is followed back in the project's history.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::cli::fault::Fault;
use crate::cli::open::{Opened, todays_secrets};
use crate::cli::versions::Within;
use crate::event::GitState;
use crate::key::Change;
use crate::names::RunId;
use crate::plan::Plan;
use crate::why::action::Action;
use crate::why::causes::Brought;
use crate::why::change::Blobs;
use crate::why::explain::Sources;
use crate::why::forecast::{Forecast, State};
use crate::why::origin::{Origin, Tracer};
use crate::why::past::{Past, Terms};
use crate::why::text::{origin_in_short, printable};
use crate::why::whence::whence;

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

    /// Some actions with what changed of them in one way, parted by who brought it: for each part a line for each commit, and none where
    /// no commit and no edit is known for it, or time is up.
    pub(super) fn of(&self, members: &[&Forecast]) -> Vec<Brought> {
        let all = || (0..members.len()).collect();
        let Some(within) = &self.within else { return vec![Brought { members: all(), lines: Vec::new() }] };
        let plan = self.opened.plan();
        // What differs in the same way, for one candidate and in one step, by what stands at the same places, is brought by the same.
        let mut alike: Vec<(Alike<'_>, Vec<usize>)> = Vec::new();
        for (at, said) in members.iter().enumerate() {
            let kind = Alike::of(plan, said);
            match alike.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, places)) => places.push(at),
                None => alike.push((kind, vec![at])),
            }
        }
        let mut parts: Vec<Brought> = Vec::new();
        let (mut rest, mut looked): (Vec<usize>, usize) = (Vec::new(), 0);
        // What stands at one place of the manifest was brought by one, also where it was not looked for.
        let one = alike.windows(2).all(|pair| pair[0].0.metrics == pair[1].0.metrics);
        for (_, places) in alike {
            let said = members[places[0]];
            let traced = said.state == State::Changed && !said.changes.is_empty();
            if traced && (looked == ACTIONS || self.began.elapsed() > self.patience) {
                rest.extend(places);
                continue;
            }
            looked += usize::from(traced);
            let origins = if traced { self.origins(within, said).unwrap_or_default() } else { Vec::new() };
            let lines = lines(&origins);
            match parts.iter_mut().find(|part| part.lines == lines) {
                Some(part) => part.members.extend(places),
                None => parts.push(Brought { members: places, lines }),
            }
        }
        if !rest.is_empty() {
            match parts.as_mut_slice() {
                [part] if one => {
                    part.members.extend(rest);
                    if part.lines.is_empty() {
                        self.gave_up.set(true);
                    } else {
                        part.lines.push("who brought the rest of it was not looked for".to_owned());
                    }
                }
                parts_known => {
                    self.gave_up.set(parts_known.is_empty() || self.gave_up.get());
                    let lines = match parts_known.is_empty() {
                        true => Vec::new(),
                        false => vec!["who brought it was not looked for".to_owned()],
                    };
                    parts.push(Brought { members: rest, lines });
                }
            }
        }
        parts.iter_mut().for_each(|part| part.members.sort_unstable());
        parts
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

/// What makes it likely that two actions were changed by the same.
#[derive(PartialEq)]
struct Alike<'a> {
    step: Option<usize>,
    candidate: Option<usize>,
    changes: &'a [Change],
    /// The files that what changed comes from.
    files: Vec<PathBuf>,
    /// Where their metrics are stated.
    metrics: Vec<(usize, usize)>,
}

impl<'a> Alike<'a> {
    fn of(plan: &Plan, said: &'a Forecast) -> Self {
        let node = &plan.nodes[said.node];
        let (mut files, mut metrics) = (Vec::new(), Vec::new());
        for change in &said.changes {
            let Some(whence) = whence(plan, said.node, &change.ingredient) else { continue };
            files.extend(whence.files);
            if change.ingredient == "metrics" {
                metrics.extend(whence.places.iter().map(|place| (place.file, place.offset)));
            }
        }
        // Where metrics are stated says it all, whoever is measured by them.
        let stated = said.changes.len() == 1 && !metrics.is_empty();
        let step = (!stated).then_some(node.step);
        let candidate = node.point.candidate.filter(|_| !stated);
        Self { step, candidate, changes: &said.changes, files, metrics }
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
