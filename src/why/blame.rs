//! Whom to blame for a change: the commit that brought what stands there now, and those before it of which something is left.
//!
//! The history is followed by `origin`. Here it is seen to that nobody is named who did not bring it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value as Json;
use similar::TextDiff;

use crate::git::{GitError, Held, PastCommit};
use crate::key::{Change, Value};
use crate::manifest::{Syntax, parsed};
use crate::names::ObjectId;
use crate::plan::Plan;
use crate::step::known;
use crate::why::action::{Action, value};
use crate::why::gap::{self, Found, Mark};
use crate::why::origin::{Origin, Said, Since, Traced, Tracer};
use crate::why::past::{Snapshot, content_of};
use crate::why::spot::{Spot, spot};
use crate::why::toolfiles::edited;
use crate::why::whence::{Whence, whence};

/// Commits that are looked through for what is left of them in one change.
const LINKS: usize = 20;
/// Commits that are named beside the first.
const NAMED: usize = 2;

pub(super) enum Followed {
    /// The newest commit says something else.
    Uncommitted,
    /// No commit can be named, and why.
    Never(String),
    /// This commit says it first.
    To(Box<Brought>),
}

/// The commit that says something first.
pub(super) struct Brought {
    pub(super) commit: PastCommit,
    pub(super) snapshot: Arc<Snapshot>,
    /// What its first parent that can be planned says otherwise, and the action there.
    pub(super) before: Option<(Arc<Snapshot>, Action)>,
    /// The commit of that version.
    pub(super) parent: Option<PastCommit>,
    /// The action as it was called then.
    pub(super) action: Action,
    /// Whether the action itself is as old.
    pub(super) first: bool,
    /// The commits before it that say otherwise.
    pub(super) stops: HashSet<ObjectId>,
    /// Whether between them and it lie commits that say nothing: it may have been one of these.
    pub(super) loose: bool,
}

/// Whether a commit is of a later second than a record.
pub(super) fn is_younger(commit: &PastCommit, since: &Since) -> bool {
    commit.committed.as_second() > since.at.as_second()
}

impl Brought {
    /// That what is said lay there before this commit, the first that can be told to have the action.
    fn older_than(&self, path: &Path) -> String {
        let id = self.commit.id.as_str();
        let id = id.get(..8).unwrap_or(id);
        let path = crate::text::harmless(&path.to_string_lossy());
        format!("not known: {path} had it already before {id}, beyond which the manifest does not tell")
    }

    /// That it is one of several commits, which cannot be told apart.
    pub(super) fn between(&self) -> String {
        let id = self.commit.id.as_str();
        let id = id.get(..8).unwrap_or(id);
        format!("not known: by {id}, or by a commit before it whose manifest cannot be planned")
    }
}

impl Tracer {
    /// Who brought what a commit says first of all that can be planned: it, unless what changed is in an older commit already.
    pub(super) fn brought(&self, brought: &Brought, change: &Change, since: Option<&Since>) -> Traced {
        let role = &change.ingredient;
        let Ok(plan) = &brought.snapshot.plan else { return Traced::To(self.origin(Some(&brought.commit), None)) };
        let node = brought.action.within(plan);
        let old = brought.before.as_ref().filter(|_| !brought.first).and_then(|(snapshot, action)| {
            let old = snapshot.plan.as_ref().ok()?;
            Some((old, action.exactly(old)))
        });
        let whence = node.and_then(|node| whence(plan, node, role)).unwrap_or_default();
        let before = old.and_then(|(old, node)| value(old, node?, role));
        let later = since.is_none_or(|since| since.at.as_second() < brought.commit.committed.as_second());
        if let Some(file) = self.foreign(plan, &whence).filter(|_| !later || before != change.old) {
            return Traced::No(file);
        }
        let found = spot((plan, node), old, role);
        let mark = match &found {
            Some(Spot { line: None, .. }) => Mark::Gone,
            Some(spot) if whence.files.contains(&spot.path) || whence.programs.contains(&spot.path) => {
                Mark::Content { comments: role != "config" }
            }
            Some(Spot { said: Some(line), .. }) => Mark::Line(line.clone()),
            _ if brought.loose => return Traced::No(brought.between()),
            _ => return Traced::To(self.origin(Some(&brought.commit), found)),
        };
        self.settled(brought, found, &mark, since)
    }

    /// The commit that brought a mark, where that one which says it first may have found it there.
    pub(super) fn settled(&self, brought: &Brought, found: Option<Spot>, mark: &Mark, since: Option<&Since>) -> Traced {
        let project = self.past.project();
        let path = found.as_ref().and_then(|spot| spot.path.strip_prefix(project.root()).ok());
        let Some(path) = path.filter(|_| brought.loose || brought.first) else {
            return Traced::To(self.origin(Some(&brought.commit), found));
        };
        match gap::follow(project, &brought.commit, path, mark, &brought.stops) {
            Err(error) => Traced::No(format!("not known: the history cannot be read: {error}")),
            Ok(Found::Unknown(why)) => Traced::No(why),
            Ok(Found::Older) => Traced::No(brought.between()),
            Ok(Found::By(commit, _)) if commit.id == brought.commit.id => Traced::To(self.origin(Some(&commit), found)),
            // Whoever brings an action did not bring what lay there before, and what lay there before the record is no change.
            Ok(Found::By(commit, path)) if brought.first && since.is_none_or(|since| !is_younger(&commit, since)) => {
                Traced::No(brought.older_than(&path))
            }
            Ok(Found::By(commit, path)) => {
                let line = gap::line(project, &commit, &path, mark);
                let spot = Spot { path: project.root().join(path), line, said: None };
                Traced::To(self.origin(Some(&commit), Some(spot)))
            }
        }
    }

    /// That a file from which something comes is in no commit of the project's: it lies elsewhere.
    pub(super) fn foreign(&self, plan: &Plan, whence: &Whence) -> Option<String> {
        let project = self.past.project();
        let files = &plan.manifest.files;
        let places = whence.places.iter().filter_map(|place| Some(&files.get(place.file)?.path));
        let all: Vec<&PathBuf> = whence.files.iter().chain(places).collect();
        let mut own = false;
        let mut found = None;
        for path in all {
            let elsewhere = match path.strip_prefix(project.root()) {
                Err(_) => Some("lies outside of the repository"),
                Ok(within) => {
                    let head = self.head.as_ref().map(|(head, _)| project.at(&head.tree, within, &mut |_| {}));
                    matches!(head, Some(Ok(Held::Submodule))).then_some("lies in a submodule")
                }
            };
            own |= elsewhere.is_none() && whence.files.is_empty();
            if let Some(why) = elsewhere {
                found.get_or_insert((path, why));
            }
        }
        let (path, why) = found?;
        let path = path.strip_prefix(project.root()).unwrap_or(path).display().to_string();
        let path = crate::text::harmless(&path);
        Some(match own {
            true => format!("not known: {path} has a part in it and {why}"),
            false => format!("not in git: {path} {why}"),
        })
    }

    /// The commit or the edit of a tool's own files that is younger than the record which is compared with. What a probe answers
    /// is not known of the past: that its files changed since stands for it.
    pub(super) fn program(&self, action: &Action, role: &str, since: &Since) -> Option<Traced> {
        let plan = self.top.plan.as_ref().ok()?;
        let whence = whence(plan, action.within(plan)?, role).filter(|whence| whence.machine.is_some())?;
        let project = self.past.project();
        let (head, _) = self.head.as_ref()?;
        for path in &whence.programs {
            let Ok(within) = path.strip_prefix(project.root()) else { continue };
            let held = project.at(&head.tree, within, &mut |_| {}).ok()?;
            if self.top.commit.is_none()
                && let Ok(Some(within)) = edited(project, &head.tree, within, &mut 0)
            {
                let path = project.root().join(within);
                let here = content_of(&plan.manifest.version, &path).map_or_else(Vec::new, |(_, here)| here);
                let there = self.head.as_ref().and_then(|(_, head)| head.plan.as_ref().ok());
                let old = there.and_then(|head| content_of(&head.manifest.version, &path));
                let line = old.and_then(|(_, old)| first_new_line(&old, &here));
                let origin = self.origin(None, Some(Spot { path, line, said: None }));
                if origin.date.is_some_and(|edited| edited >= since.at) {
                    return Some(Traced::To(origin));
                }
            }
            if !matches!(held, Held::File(_) | Held::Folder) {
                continue;
            }
            let mark = Mark::Content { comments: true };
            if let Ok(Found::By(commit, at)) = gap::follow(project, head, within, &mark, &HashSet::new())
                // Of the same second it may be either.
                && commit.committed.as_second() > since.at.as_second()
            {
                let line = gap::line(project, &commit, &at, &mark);
                let spot = Spot { path: project.root().join(at), line, said: None };
                return Some(Traced::To(self.origin(Some(&commit), Some(spot))));
            }
        }
        None
    }

    /// What brought that an ingredient comes from elsewhere: another binding, a step that is not to be run, another table. `since`
    /// is when the record was made that is compared with; without it two versions are, and differ in that.
    pub(super) fn wired(&mut self, action: &Action, change: &Change, since: Option<&Since>) -> Traced {
        let role = &change.ingredient;
        if self.hopeless.is_some() {
            return Traced::Upstream;
        }
        let Ok(plan) = &self.top.plan else { return Traced::Upstream };
        let Some(node) = action.within(plan) else { return Traced::Upstream };
        let now = Said::Is(value(plan, node, role));
        // What is read is bound as it was then: it came out otherwise, or is another attempt's.
        let handed = Traced::No("not of itself: what it reads of another step is other than then".to_owned());
        let then = since.and_then(|since| self.said_then(since, action, role));
        if then.as_ref() == Some(&now) {
            return handed;
        }
        let young = |at: Timestamp| then.is_some() || since.is_none_or(|since| at.as_second() > since.at.as_second());
        match self.follow(action, role, &now) {
            Err(error) => Traced::No(format!("not known: the history cannot be read: {error}")),
            Ok(Followed::Never(why)) => Traced::No(why),
            Ok(Followed::Uncommitted) if self.top.commit.is_some() => Traced::Upstream,
            Ok(Followed::Uncommitted) => match self.uncommitted(action, role, since) {
                // Of a file that is gone there is no time.
                Traced::To(origin) if origin.date.is_none_or(young) => Traced::To(origin),
                Traced::To(_) => handed,
                other => other,
            },
            Ok(Followed::To(brought)) if !young(brought.commit.committed) => handed,
            Ok(Followed::To(brought)) if brought.loose => Traced::No(brought.between()),
            Ok(Followed::To(brought)) => {
                let node = |side: &Snapshot, action: &Action| Some(action.within(side.plan.as_ref().ok()?));
                let new = node(&brought.snapshot, &brought.action);
                let old = brought
                    .before
                    .as_ref()
                    .and_then(|(side, action)| Some((side.plan.as_ref().ok()?, node(side, action)?)));
                let plan = brought.snapshot.plan.as_ref().ok();
                let found = plan.zip(new).and_then(|new| spot(new, old, role));
                Traced::To(self.origin(Some(&brought.commit), found))
            }
        }
    }

    /// Names those before the first, back to the version that is compared with, of which something is left in the change. If
    /// that version is not come by, nobody else is named.
    pub(super) fn and_before(&mut self, origin: Origin, change: &Change, from: Link, since: Option<&Since>) -> Origin {
        let newest = self.newest(&change.ingredient, change);
        self.earlier((newest, &origin), change, from, since).ok().flatten().map_or(origin.clone(), |all| {
            let more = all.len().saturating_sub(NAMED);
            Origin { also: all.into_iter().take(NAMED).collect(), and_more: more, ..origin }
        })
    }

    fn earlier(
        &mut self,
        (newest, first): (Option<Vec<String>>, &Origin),
        change: &Change,
        mut from: Link,
        since: Option<&Since>,
    ) -> Result<Option<Vec<Origin>>, GitError> {
        let role = change.ingredient.clone();
        let mut links = Vec::new();
        loop {
            let Some((_, snapshot, action)) = &from else { return Ok(None) };
            let Ok(plan) = &snapshot.plan else { return Ok(None) };
            let Some(node) = action.within(plan) else { return Ok(None) };
            let now = value(plan, node, &role);
            if now == change.old {
                break;
            }
            if links.len() >= LINKS || now == change.new {
                return Ok(None);
            }
            let Some((commit, snapshot, action)) = from else { return Ok(None) };
            let Followed::To(brought) = self.follow_from((commit, snapshot, action), &role, &Said::Is(now.clone()))?
            else {
                return Ok(None);
            };
            from = brought.link();
            links.push((brought, now));
        }
        let oldest = from;
        let Some((_, oldest, oldest_action)) = oldest else { return Ok(None) };
        let side = |snapshot: &Snapshot, action: &Action| {
            let plan = snapshot.plan.as_ref().ok()?;
            parts(plan, action.within(plan)?, &role)
        };
        let (Some(old), Some(new)) = (side(&oldest, &oldest_action), newest.filter(|_| !links.is_empty())) else {
            return Ok(None);
        };
        let net = Parts::apart(&old, &new);
        let mut claimed: HashSet<String> = HashSet::new();
        // What the newest brought is its own.
        if let Some(after_first) = links.first().and_then(|(brought, _)| side(&brought.snapshot, &brought.action)) {
            claimed.extend(Parts::apart(&after_first, &new).added);
        }
        let mut all: Vec<Origin> = Vec::new();
        for (brought, now) in links {
            let Some((before, then)) = &brought.before else { continue };
            let (Some(was), Some(is)) = (side(before, then), side(&brought.snapshot, &brought.action)) else {
                continue;
            };
            let own = Parts::apart(&was, &is);
            let left = match own.added.is_empty() {
                true => own.removed.iter().any(|part| net.removed.contains(part)),
                false => own.added.iter().any(|part| net.added.contains(part) && !claimed.contains(part)),
            };
            claimed.extend(own.added.iter().cloned());
            if !left {
                continue;
            }
            let old = before.plan.as_ref().ok().and_then(|plan| value(plan, then.within(plan)?, &role));
            let change = Change { ingredient: role.clone(), old, new: now };
            if let Traced::To(origin) = self.brought(&brought, &change, since)
                && origin.commit != first.commit
                && !all.iter().any(|known| known.commit == origin.commit)
            {
                all.push(origin);
            }
        }
        Ok(Some(all))
    }

    /// The parts of an ingredient in the newest version.
    fn newest(&self, role: &str, change: &Change) -> Option<Vec<String>> {
        if let Some(used) = &self.used_parts {
            return Some(used.clone());
        }
        let (plan, action) = (self.top.plan.as_ref().ok()?, self.asked.as_ref()?);
        let node = action.within(plan)?;
        (value(plan, node, role) == change.new).then(|| parts(plan, node, role)).flatten()
    }
}

/// What versions say of an ingredient, where what is gone in the later one may be the same under its older name.
pub(super) fn asking(role: &str, now: &Said) -> impl FnMut(&Snapshot, &Snapshot, &Action) -> (Said, Action) {
    move |snapshot: &Snapshot, later: &Snapshot, action: &Action| {
        let Ok(plan) = &snapshot.plan else { return (Said::Unread, action.clone()) };
        if let Some(node) = action.exactly(plan) {
            return (Said::Is(value(plan, node, role)), action.clone());
        }
        let Ok(later) = &later.plan else { return (Said::NoAction, action.clone()) };
        let mut all: Vec<(Action, usize)> = Vec::new();
        for older in action.in_older(plan, later) {
            all.extend(older.exactly(plan).map(|node| (older, node)));
        }
        let record = action.exactly(later).map(|node| known(later, node));
        let apart = |node: usize| record.as_ref().map_or(0, |new| new.changes_since(&known(plan, node)).len());
        let says = |node: usize| Said::Is(value(plan, node, role));
        let same = all.iter().filter(|(_, node)| says(*node) == *now).min_by_key(|(_, node)| apart(*node));
        match (same, &all[..]) {
            (Some((older, node)), _) => (says(*node), older.clone()),
            // Of its kind it is the only step that was renamed.
            (None, [(older, node)]) if older.step != action.step => (says(*node), older.clone()),
            _ => (Said::NoAction, action.clone()),
        }
    }
}

/// A commit, its version, and the action as it is called there.
pub(super) type Link = Option<(PastCommit, Arc<Snapshot>, Action)>;

impl Brought {
    /// The version before.
    pub(super) fn link(&self) -> Link {
        let (snapshot, action) = self.before.clone()?;
        Some((self.parent.clone()?, snapshot, action))
    }
}

/// The first line that is not in an older text, from 1.
fn first_new_line(old: &[u8], new: &[u8]) -> Option<usize> {
    let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
    let known: HashSet<&str> = old.lines().collect();
    new.lines().position(|line| !known.contains(line)).map(|at| at + 1)
}

/// What of an ingredient can be told apart: the words of a list, the lines of a file.
pub(super) fn parts(plan: &Plan, node: usize, role: &str) -> Option<Vec<String>> {
    match value(plan, node, role)? {
        Value::List(list) => Some(list),
        Value::Text(_) => None,
        Value::Blob(_) => {
            let file = whence(plan, node, role)?.files.into_iter().next()?;
            let (_, bytes) = content_of(&plan.manifest.version, &file)?;
            Some(telling(role, &String::from_utf8_lossy(&bytes)))
        }
    }
}

/// What of a text can be told apart: the values of a config, each with its path, however it is written; else its lines.
pub(super) fn telling(role: &str, text: &str) -> Vec<String> {
    let syntaxes = [Syntax::Json, Syntax::Toml, Syntax::Yaml];
    let structured = |syntax| parsed(text, syntax).filter(|value| value.is_object() || value.is_array());
    match syntaxes.into_iter().filter(|_| role == "config").find_map(structured) {
        Some(value) => {
            let mut all = Vec::new();
            leaves("", &value, &mut all);
            all
        }
        None => text.lines().filter(|line| role != "config" || !gap::comment(line)).map(str::to_owned).collect(),
    }
}

/// The values in a structured one, each with its path.
fn leaves(path: &str, value: &Json, all: &mut Vec<String>) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| leaves(&format!("{path}.{key}"), value, all));
        }
        Json::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(at, value)| leaves(&format!("{path}[{at}]"), value, all));
        }
        value => all.push(format!("{path}: {value}")),
    }
}

/// What two versions differ in.
struct Parts {
    added: Vec<String>,
    removed: Vec<String>,
}

impl Parts {
    fn apart(old: &[String], new: &[String]) -> Self {
        let (old, new): (Vec<&str>, Vec<&str>) =
            (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
        let diff = TextDiff::configure().timeout(std::time::Duration::from_millis(200)).diff_slices(&old, &new);
        let mut parts = Self { added: Vec::new(), removed: Vec::new() };
        for change in diff.iter_all_changes() {
            match change.tag() {
                similar::ChangeTag::Insert => parts.added.push(change.value().to_owned()),
                similar::ChangeTag::Delete => parts.removed.push(change.value().to_owned()),
                similar::ChangeTag::Equal => {}
            }
        }
        parts
    }
}
