//! Which commit brought a change: the last one from which on an action's ingredient is what it is now, and where in the files.
//!
//! Follows the history backwards from the work tree, or from a commit, as long as some parent's manifest gives the ingredient the
//! same value. What no version of the files explains, because a tool answered otherwise or a variable had another value, is said
//! to be so and no commit is named.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::event::GitState;
use crate::git::{Held, PastCommit};
use crate::key::{Change, Value};
use crate::names::{Axes, ObjectId};
use crate::plan::Plan;
use crate::why::action::{Action, places_of, value};
use crate::why::blame::Followed;
use crate::why::clean::is_of_a_tool;
use crate::why::gap::Mark;
use crate::why::past::{Past, Snapshot};
use crate::why::spot::{Spot, spot, spot_of_places};
pub use crate::why::traced::{Origin, Traced};
use crate::why::whence::{Whence, whence};

/// What a version says of an ingredient.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// The version cannot be planned.
    Unread,
    /// There is no such action.
    NoAction,
    /// The value, `None` where it has no such ingredient.
    Is(Option<Value>),
}

/// When the record was made that a change is counted from.
#[derive(Clone, Debug)]
pub struct Since {
    /// The time.
    pub at: Timestamp,
    /// How its run's files stood in git, if that was kept.
    pub git: Option<GitState>,
}

/// Follows changes back.
pub struct Tracer {
    pub(super) past: Past,
    /// The newest version: of the work tree, or of the commit that is asked about.
    pub(super) top: Arc<Snapshot>,
    /// Where the manifest of a commit that is asked about lies today.
    pub(super) today: Option<PathBuf>,
    /// The commit from which on is looked; `None` where nothing is committed.
    pub(super) head: Option<(PastCommit, Arc<Snapshot>)>,
    /// The action whose changes are followed.
    pub(super) asked: Option<Action>,
    /// Why no commit can be named, whatever is asked.
    pub(super) hopeless: Option<String>,
    /// What a run used, by its digest, where no version may have it.
    pub(super) used: HashMap<Digest, Vec<u8>>,
    /// The parts of what is followed as a run used it, where that is not what the newest version says.
    pub(super) used_parts: Option<Vec<String>>,
    /// For commits that were come by, how far back their version reaches, and over how many commits.
    pub(super) stretches: HashMap<ObjectId, (PastCommit, usize)>,
}

impl Tracer {
    /// From the work tree on.
    #[must_use]
    pub fn of_work_tree(mut past: Past, manifest: &Path) -> Self {
        let top = past.work_tree(manifest);
        let head = past.project().head();
        let (mut found, mut hopeless) = (None, None);
        match head {
            Ok(Some(commit)) => {
                let snapshot = past.at(manifest, &commit);
                if snapshot.plan.is_err() && !is_there(&past, manifest, &commit) {
                    let shown = manifest.strip_prefix(past.project().root()).unwrap_or(manifest);
                    hopeless = Some(format!("{} was never committed", shown.display()));
                }
                found = Some((commit, snapshot));
            }
            Ok(None) => hopeless = Some("the project has no commit yet".to_owned()),
            Err(error) => hopeless = Some(format!("the history cannot be read: {error}")),
        }
        Self {
            past,
            top,
            today: None,
            asked: None,
            head: found,
            hopeless,
            used: HashMap::new(),
            used_parts: None,
            stretches: HashMap::new(),
        }
    }

    /// From a commit on, in which the manifest lies at this path.
    #[must_use]
    pub fn of_commit(mut past: Past, manifest: &Path, commit: PastCommit) -> Self {
        let top = past.at(manifest, &commit);
        let head = Some((commit, top.clone()));
        Self {
            past,
            top,
            today: None,
            asked: None,
            head,
            hopeless: None,
            used: HashMap::new(),
            used_parts: None,
            stretches: HashMap::new(),
        }
    }

    /// The action of a step by its name, at a point; `None` if the newest version has no such step.
    #[must_use]
    pub fn action_of(&self, step: &str, axes: &Axes) -> Option<Action> {
        let plan = self.top.plan.as_ref().ok()?;
        let kind = plan.manifest.pipeline.steps.iter().find(|known| known.name.value.as_str() == step)?.kind();
        let action = Action { step: step.to_owned(), kind, axes: axes.clone() };
        // What that version does not have was in no commit then: nobody else is to blame for it.
        action.within(plan).is_some().then_some(action)
    }

    /// What brought a change of an action. `since` is when the record before it was made: what this machine decides cannot have
    /// been changed by an older commit.
    pub fn change(&mut self, action: &Action, change: &Change, since: Option<&Since>) -> Traced {
        let traced = self.by_manifest(action, change, since);
        match (&traced, since) {
            (Traced::No(_), Some(since)) if self.hopeless.is_none() && !self.asks_today(&change.ingredient) => {
                self.program(action, &change.ingredient, since).unwrap_or(traced)
            }
            _ => traced,
        }
    }

    /// Whether what a tool answers today is held against a version of the past.
    fn asks_today(&self, role: &str) -> bool {
        self.top.commit.is_some() && self.today.is_none() && is_of_a_tool(role)
    }

    fn by_manifest(&mut self, action: &Action, change: &Change, since: Option<&Since>) -> Traced {
        let Some((whence, now)) = self.now(action, &change.ingredient) else {
            return self.wired(action, change, since);
        };
        let role = change.ingredient.as_str();
        if since.is_some() && self.asks_today(role) {
            return Traced::No(
                "not known: tools are asked as they are today, not as they were in that commit".to_owned(),
            );
        }
        self.asked = Some(action.clone());
        if let Some(why) = self.hopeless.clone() {
            if let Some(traced) = self.by_clean_file(&whence, role, since, &why) {
                return traced;
            }
            return Traced::No(match &whence.machine {
                Some(machine) => format!("not in git: {machine}, or {why}"),
                None => format!("not in git: {why}"),
            });
        }
        if let (Said::Is(now), None) = (&now, &whence.machine)
            && *now != change.new
            && self.top.commit.is_some()
        {
            return self.edited(action, change, &whence, since);
        }
        match self.follow(action, &change.ingredient, &now) {
            Err(error) => Traced::No(format!("not known: the history cannot be read: {error}")),
            Ok(Followed::Uncommitted) if self.top.commit.is_some() => self.edited(action, change, &whence, since),
            Ok(Followed::Uncommitted) => match self.uncommitted(action, &change.ingredient, since) {
                Traced::To(origin) if origin.commit.is_some() => Traced::To(origin),
                Traced::To(origin) => {
                    let head = self.head.clone().map(|(commit, snapshot)| {
                        let then = self.called_in(&snapshot, action);
                        (commit, snapshot, then)
                    });
                    Traced::To(self.and_before(origin, change, head, since))
                }
                other => other,
            },
            Ok(Followed::Never(why)) => match whence.machine {
                Some(machine) => Traced::No(format!("not in git: {machine}")),
                None => Traced::No(why),
            },
            Ok(Followed::To(_))
                if let Some(why) = since
                    .filter(|_| whence.machine.is_none())
                    .and_then(|since| self.taken_back(since, action, change, (&whence, &now))) =>
            {
                Traced::No(why)
            }
            Ok(Followed::To(brought)) => {
                let old = |tracer: &mut Self| {
                    let since = since?;
                    let then = tracer.said_then(since, action, &change.ingredient);
                    let order = brought.commit.committed.as_second().cmp(&since.at.as_second());
                    match then {
                        Some(then) if then == now => Some(Ordering::Less),
                        Some(_) => Some(Ordering::Greater),
                        None => Some(order),
                    }
                };
                let order = whence.machine.as_ref().and_then(|_| old(self));
                match whence.machine {
                    Some(machine) if !brought.first && order == Some(Ordering::Equal) => {
                        let id = brought.commit.id.as_str().get(..8).unwrap_or_default();
                        Traced::No(format!(
                            "not known: {id} is of the very second in which the record was made; or {machine}"
                        ))
                    }
                    Some(machine) if brought.first || order == Some(Ordering::Less) => {
                        Traced::No(format!("not in git: {machine}"))
                    }
                    _ => match self.brought(&brought, change, since) {
                        Traced::To(origin) => Traced::To(self.and_before(origin, change, brought.link(), since)),
                        other => other,
                    },
                }
            }
        }
    }

    /// What the manifest said of an ingredient when a run began; `None` if that run's files were in no commit, or it is not known.
    pub(super) fn said_then(&mut self, since: &Since, action: &Action, role: &str) -> Option<Said> {
        let git = since.git.as_ref().filter(|git| git.dirty.is_empty())?;
        let commit = self.past.project().commit(git.commit.as_ref()?).ok()?;
        let (head, _) = self.head.as_ref()?;
        let path = self.past.name_at(&self.top.manifest, head, &commit).ok()?;
        let snapshot = self.past.at(&path, &commit);
        let then = self.called_in(&snapshot, action);
        let plan = snapshot.plan.as_ref().ok()?;
        Some(Said::Is(value(plan, then.within(plan)?, role)))
    }

    /// What brought an action into the manifest.
    pub fn action(&mut self, action: &Action) -> Traced {
        if let Some(why) = &self.hopeless {
            return Traced::No(format!("not in git: {why}"));
        }
        let there = |snapshot: &Snapshot| match &snapshot.plan {
            Ok(plan) => action.within(plan).map(|_| ()).map_or(Said::NoAction, |()| Said::Is(None)),
            Err(_) => Said::Unread,
        };
        let places = |plan: &Plan, old: Option<&Plan>| {
            let node = action.within(plan)?;
            spot_of_places(&plan.manifest, old.map(|old| old.manifest.as_ref()), &places_of(plan, node, old))
        };
        match self.walk(action, &mut |snapshot, _, _| (there(snapshot), action.clone()), &Said::Is(None), false) {
            Err(error) => Traced::No(format!("not known: the history cannot be read: {error}")),
            Ok(Followed::Never(why)) => Traced::No(why),
            Ok(Followed::Uncommitted) => {
                let old = self.head.as_ref().and_then(|(_, snapshot)| snapshot.plan.as_ref().ok());
                let spot = self.top.plan.as_ref().ok().and_then(|plan| places(plan, old));
                Traced::To(self.origin(None, spot))
            }
            Ok(Followed::To(brought)) => {
                let old = brought.before.as_ref().and_then(|(snapshot, _)| snapshot.plan.as_ref().ok());
                let spot = brought.snapshot.plan.as_ref().ok().and_then(|plan| places(plan, old));
                match (&spot, old) {
                    (Some(Spot { said: Some(line), .. }), Some(_)) => {
                        let mark = Mark::Line(line.clone());
                        self.settled(&brought, spot, &mark, None)
                    }
                    _ => Traced::To(self.origin(Some(&brought.commit), spot)),
                }
            }
        }
    }

    /// What the top version says of an ingredient, and where it has it from.
    fn now(&self, action: &Action, role: &str) -> Option<(Whence, Said)> {
        let Ok(plan) = &self.top.plan else { return Some((Whence::default(), Said::Unread)) };
        let Some(node) = action.within(plan) else { return Some((Whence::default(), Said::NoAction)) };
        if role == "reading" {
            return None;
        }
        Some((whence(plan, node, role)?, Said::Is(value(plan, node, role))))
    }

    /// An action as a version calls it, whose candidate may have been renamed since.
    pub(super) fn called_in(&self, snapshot: &Snapshot, action: &Action) -> Action {
        let (Ok(plan), Ok(top)) = (&snapshot.plan, &self.top.plan) else { return action.clone() };
        if action.exactly(plan).is_some() {
            return action.clone();
        }
        let mut renamed = action.in_older(plan, top);
        if renamed.len() == 1 { renamed.remove(0) } else { action.clone() }
    }

    pub(super) fn uncommitted(&self, action: &Action, role: &str, since: Option<&Since>) -> Traced {
        let spot = self.top.plan.as_ref().ok().and_then(|plan| {
            let old = self.head.as_ref().and_then(|(_, snapshot)| snapshot.plan.as_ref().ok());
            spot((plan, action.within(plan)), old.map(|old| (old, action.within(old))), role)
        });
        let project = self.past.project();
        if let (Some((head, _)), Some(Ok(within))) =
            (&self.head, spot.as_ref().map(|spot| spot.path.strip_prefix(project.root())))
            && let Ok(Held::Odd(why)) = project.at(&head.tree, within, &mut |_| {})
        {
            return Traced::No(format!("not in git: {}: {why}", crate::text::harmless(&within.to_string_lossy())));
        }
        if let (Some((_, snapshot)), Ok(plan), Some(spot)) = (&self.head, &self.top.plan, &spot)
            && snapshot.plan.is_err()
        {
            // Of what cannot be planned it is not known what it said: only its files tell.
            let whence = action.within(plan).and_then(|node| whence(plan, node, role)).unwrap_or_default();
            let why = "the manifest as it was committed cannot be planned";
            let mark = match (&spot.said, whence.files.contains(&spot.path)) {
                (_, true) => Some(Mark::Content { comments: role != "config" }),
                (Some(line), false) => Some(Mark::Line(line.clone())),
                (None, false) => None,
            };
            if let Some(traced) = mark.and_then(|mark| self.by_file(&spot.path, &mark, since, why)) {
                return traced;
            }
        }
        Traced::To(self.origin(None, spot))
    }

    pub(super) fn origin(&self, commit: Option<&PastCommit>, spot: Option<Spot>) -> Origin {
        let root = self.past.project().root();
        let edited = || {
            let modified = std::fs::metadata(&spot.as_ref()?.path).ok()?.modified().ok()?;
            Timestamp::try_from(modified).ok()
        };
        let age = || Some((Timestamp::now().as_second() - edited()?.as_second()).max(0));
        Origin {
            age_s: if commit.is_none() { age() } else { None },
            date: commit.map_or_else(edited, |commit| Some(commit.date)),
            commit: commit.map(|commit| commit.id.to_string()),
            author: commit.map(|commit| commit.author.clone()),
            subject: commit.map(|commit| commit.subject.clone()),
            path: spot.as_ref().map(|spot| {
                crate::text::harmless(&spot.path.strip_prefix(root).unwrap_or(&spot.path).to_string_lossy())
            }),
            line: spot.as_ref().and_then(|spot| spot.line),
            uncommitted_then: false,
            never_committed: false,
            also: Vec::new(),
            and_more: 0,
        }
    }
}

/// Whether a commit has a manifest at a path.
pub(super) fn is_there(past: &Past, manifest: &Path, commit: &PastCommit) -> bool {
    let root = past.project().root();
    let within = manifest.strip_prefix(root).unwrap_or(manifest);
    let held = past.project().at(&commit.tree, within, &mut |_| {});
    !matches!(held, Ok(crate::git::Held::Nothing))
}
