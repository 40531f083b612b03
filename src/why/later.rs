//! What became of an edit that a run used before anybody had committed it: the later commit that has it, or the work tree that still
//! has it.
//!
//! Looks only at what came after the commit that was checked out then. What was committed before is `origin`'s.

use std::path::Path;
use std::sync::Arc;

use crate::digest::Digest;
use crate::event::GitState;
use crate::git::{GitError, PastCommit, Project};
use crate::key::{Change, Value};
use crate::manifest::Version;
use crate::why::action::{Action, value};
use crate::why::blame::{parts, telling};
use crate::why::origin::{Origin, Since, Traced, Tracer};
use crate::why::past::{Newest, Snapshot, content_of};
use crate::why::spot::spot;
use crate::why::whence::Whence;

/// Commits that are looked at for one change.
const COMMITS: usize = 10_000;

impl Tracer {
    /// What is known of a value that the version of a run does not have: its files were edited and not committed then.
    ///
    /// What of the change was committed before the run is the earlier commits', which are named behind it.
    pub(super) fn edited(
        &mut self,
        action: &Action,
        change: &Change,
        whence: &Whence,
        since: Option<&Since>,
    ) -> Traced {
        let known = self.committed_since(action, change).ok().flatten();
        let root = self.past.project().root();
        let file = whence.files.first().map(|file| file.strip_prefix(root).unwrap_or(file).to_owned());
        let never = || {
            let path = file.as_ref().map(|file| crate::text::harmless(&file.to_string_lossy()));
            Origin { path, never_committed: true, ..self.origin(None, None) }
        };
        let never = never();
        let (origin, parts) = known.or_else(|| self.in_work_tree(action, change)).unwrap_or((never, None));
        let head = self.head.clone().map(|(commit, snapshot)| {
            let then = self.called_in(&snapshot, action);
            (commit, snapshot, then)
        });
        self.used_parts = parts.or_else(|| self.parts_used(change));
        let origin = match self.used_parts {
            Some(_) => self.and_before(origin, change, head, since),
            None => origin,
        };
        self.used_parts = None;
        if !origin.never_committed || !origin.also.is_empty() {
            return Traced::To(origin);
        }
        Traced::No(match file {
            Some(file) => format!("not in git: {} was edited for the run, and never committed so", file.display()),
            None => "not in git: it was edited for the run, and never committed so".to_owned(),
        })
    }

    /// The parts of what a run used, as far as the store still has it.
    fn parts_used(&self, change: &Change) -> Option<Vec<String>> {
        match change.new.as_ref()? {
            Value::List(list) => Some(list.clone()),
            Value::Blob(digest) => Some(telling(&change.ingredient, &String::from_utf8_lossy(self.used.get(digest)?))),
            Value::Text(_) => None,
        }
    }

    /// Whether it is told what a run used whose files were edited for it.
    #[must_use]
    pub fn is_of_run(&self) -> bool {
        self.today.is_some()
    }

    /// Takes note of what a run used, for `edited`.
    pub fn note_used(&mut self, digest: Digest, content: Vec<u8>) {
        self.used.insert(digest, content);
    }

    /// The first later commit that has it.
    fn committed_since(&mut self, action: &Action, change: &Change) -> Result<Option<WithParts>, GitError> {
        let (Some(then), Some(today)) = (self.top.commit.clone(), self.today.clone()) else { return Ok(None) };
        let Some(head) = self.past.project().head()? else { return Ok(None) };
        let newest = self.past.at(&today, &head);
        let mut line = Newest::new(head, newest);
        let mut found: Option<(PastCommit, Arc<Snapshot>, Option<Arc<Snapshot>>)> = None;
        for _ in 0..COMMITS {
            let Some((commit, snapshot)) = line.next().filter(|(commit, _)| commit.id != then.id) else { break };
            let mut before = None;
            for parent in &commit.parents {
                let parent = self.past.project().commit(parent)?;
                let older = self.past.before((&commit, &snapshot), &parent)?;
                before.get_or_insert_with(|| older.clone());
                line.push(&commit, parent, older);
            }
            if has(&snapshot, action, change) {
                found = Some((commit, snapshot, before));
            }
            if self.past.is_spent() {
                break;
            }
        }
        Ok(found.map(|(commit, snapshot, before)| {
            let spot = spot_between(&snapshot, before.as_deref(), action, change);
            let origin = Origin { uncommitted_then: true, ..self.origin(Some(&commit), spot) };
            (origin, parts_in(&snapshot, action, change))
        }))
    }

    /// The work tree, if that still has it.
    fn in_work_tree(&mut self, action: &Action, change: &Change) -> Option<WithParts> {
        let today = self.today.clone()?;
        let now = self.past.work_tree(&today);
        let spot = has(&now, action, change).then(|| spot_between(&now, Some(&*self.top), action, change))?;
        Some((self.origin(None, spot), parts_in(&now, action, change)))
    }

    /// Where the manifest lies today: with it, what a run used before it was committed is looked for in what came later.
    #[must_use]
    pub fn known_today_as(mut self, manifest: &Path) -> Self {
        self.today = Some(manifest.to_owned());
        self
    }
}

/// Commits that are looked through for the files of a run.
const SINCE: usize = 1_000;

/// The first commit after a run that has every file of it which was in no commit then, as the run used it. `None` if there is none,
/// or it is not known: by an older flow, of very many files, in a long history.
#[must_use]
pub fn all_committed(project: &Arc<Project>, git: &GitState) -> Option<PastCommit> {
    if git.dirty.is_empty() || !git.outside.is_empty() || git.dirty.iter().any(|file| !git.as_used.contains_key(file)) {
        return None;
    }
    let has = |commit: &PastCommit| {
        let version = Version::of_commit(project.clone(), commit.clone());
        let mut files = git.as_used.iter();
        files.all(|(file, used)| content_of(&version, &project.root().join(file)).map(|(digest, _)| digest) == *used)
    };
    let mut line = Newest::new(project.head().ok()??, ());
    let mut found = None;
    for _ in 0..SINCE {
        let Some((commit, ())) = line.next().filter(|(commit, ())| Some(&commit.id) != git.commit.as_ref()) else {
            return found;
        };
        for parent in &commit.parents {
            line.push(&commit, project.commit(parent).ok()?, ());
        }
        if has(&commit) {
            found = Some(commit);
        }
    }
    found
}

/// Who brought something, with the parts of it as they brought it.
type WithParts = (Origin, Option<Vec<String>>);

fn parts_in(snapshot: &Snapshot, action: &Action, change: &Change) -> Option<Vec<String>> {
    let plan = snapshot.plan.as_ref().ok()?;
    parts(plan, action.within(plan)?, &change.ingredient)
}

fn has(snapshot: &Snapshot, action: &Action, change: &Change) -> bool {
    let Ok(plan) = &snapshot.plan else { return false };
    action.within(plan).is_some_and(|node| value(plan, node, &change.ingredient) == change.new)
}

fn spot_between(
    new: &Snapshot,
    old: Option<&Snapshot>,
    action: &Action,
    change: &Change,
) -> Option<crate::why::spot::Spot> {
    let plan = new.plan.as_ref().ok()?;
    let old = old.and_then(|old| old.plan.as_ref().ok());
    spot((plan, action.within(plan)), old.map(|old| (old, action.within(old))), &change.ingredient)
}
