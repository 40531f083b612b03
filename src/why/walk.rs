//! The walk back through the history: from a commit to the last one whose parents all say something else of an action.
//!
//! Says which commit that is, and nothing of why: what is said of it is `origin`, and what a flawed stretch hides is `gap`.

use std::collections::HashSet;
use std::sync::Arc;

use crate::git::{GitError, PastCommit};
use crate::names::ObjectId;
use crate::why::action::Action;
use crate::why::blame::{Brought, Followed, asking};
use crate::why::origin::{Said, Tracer, is_there};
use crate::why::past::Snapshot;

/// Commits that are looked at for one change.
const COMMITS: usize = 10_000;

/// Commits without an action that are looked at for an older one which has it.
const ABSENT: usize = 2_000;

/// Asks a version what it says of what a later one has as this action, and how it calls the action.
type Ask<'a> = &'a mut dyn FnMut(&Snapshot, &Snapshot, &Action) -> (Said, Action);

/// A version before, what it says, and how it calls the action.
type Older = (PastCommit, Arc<Snapshot>, Said, Action);

impl Tracer {
    pub(super) fn follow(&mut self, action: &Action, role: &str, now: &Said) -> Result<Followed, GitError> {
        self.walk(action, &mut asking(role, now), now, true)
    }

    /// The same from a version on that says so.
    pub(super) fn follow_from(
        &mut self,
        from: (PastCommit, Arc<Snapshot>, Action),
        role: &str,
        now: &Said,
    ) -> Result<Followed, GitError> {
        self.walk_from(from, &mut asking(role, now), now, true)
    }

    /// From the newest commit back, as long as a parent says the same; `across` versions too that do not have the action.
    pub(super) fn walk(
        &mut self,
        action: &Action,
        ask: Ask<'_>,
        now: &Said,
        across: bool,
    ) -> Result<Followed, GitError> {
        let Some((commit, snapshot)) = self.head.clone() else { return Ok(Followed::Uncommitted) };
        let (said, action) = ask(&snapshot, &self.top, action);
        if said != *now {
            return Ok(Followed::Uncommitted);
        }
        self.walk_from((commit, snapshot, action), ask, now, across)
    }

    fn walk_from(
        &mut self,
        (mut commit, mut snapshot, mut action): (PastCommit, Arc<Snapshot>, Action),
        ask: Ask<'_>,
        now: &Said,
        across: bool,
    ) -> Result<Followed, GitError> {
        let mut looked = 0;
        while looked < COMMITS && !self.past.is_spent() {
            let (last, passed) = self.stretch(&commit, &snapshot)?;
            commit = last;
            looked += passed + 1;
            if looked >= COMMITS {
                break;
            }
            let mut before = None;
            let mut next = None;
            let mut cut = commit.cut;
            let mut stops = HashSet::new();
            let mut loose = false;
            let mut first = false;
            let mut absent = Vec::new();
            let parents = self.readable_parents(&commit, &snapshot, &mut cut)?;
            for (parent, older) in parents {
                let (said, then) = ask(&older, &snapshot, &action);
                if said == *now {
                    next = Some((parent, older, then));
                    break;
                }
                match said {
                    // What cannot be read is not known to say otherwise.
                    Said::Unread => loose = true,
                    Said::NoAction if across => absent.push((older, then, parent)),
                    Said::NoAction | Said::Is(_) => {
                        stops.insert(parent.id.clone());
                        first |= said == Said::NoAction;
                        before.get_or_insert((older, then, parent));
                    }
                }
            }
            if next.is_none() && before.is_none() && !absent.is_empty() {
                // It may have been there before: who brings it back did not bring what it says.
                for (parent, older, said, then) in self.before_absence(&absent, (&snapshot, &action), ask)? {
                    if said == *now {
                        next = Some((parent, older, then));
                        break;
                    }
                    stops.insert(parent.id.clone());
                    loose = true;
                    before.get_or_insert((older, then, parent));
                }
                first = before.is_none();
                before = before.or_else(|| absent.into_iter().next());
            }
            match next {
                Some(next) => (commit, snapshot, action) = next,
                None if before.is_none() && cut => {
                    let id = commit.id.as_str().get(..8).unwrap_or_default().to_owned();
                    let why = format!("not known: the history here begins with {id}, which has it already");
                    return Ok(Followed::Never(why));
                }
                None => {
                    let (before, parent) = before.map(|(older, then, parent)| ((older, then), parent)).unzip();
                    first |= before.is_none();
                    loose |= commit.parents.iter().any(|parent| !stops.contains(parent));
                    return Ok(Followed::To(Box::new(Brought {
                        commit,
                        snapshot,
                        before,
                        parent,
                        action,
                        first,
                        stops,
                        loose,
                    })));
                }
            }
        }
        let id = commit.id.as_str().get(..8).unwrap_or_default();
        Ok(Followed::Never(format!("not known: it is older than {id}, beyond which nothing was looked at")))
    }

    /// The newest versions before some that do not have an action which do: with what each says, and how it is called there.
    fn before_absence(
        &mut self,
        absent: &[(Arc<Snapshot>, Action, PastCommit)],
        (later, action): (&Arc<Snapshot>, &Action),
        ask: Ask<'_>,
    ) -> Result<Vec<Older>, GitError> {
        let mut found = Vec::new();
        let mut next: Vec<(PastCommit, Arc<Snapshot>)> =
            absent.iter().map(|(snapshot, _, commit)| (commit.clone(), snapshot.clone())).collect();
        let mut seen: HashSet<ObjectId> = next.iter().map(|(commit, _)| commit.id.clone()).collect();
        while let Some((child, of_child)) = next.pop() {
            for id in child.parents.iter().rev() {
                if seen.len() > ABSENT || self.past.is_spent() || !seen.insert(id.clone()) {
                    continue;
                }
                let parent = self.past.project().commit(id)?;
                let older = self.past.before((&child, &of_child), &parent)?;
                if !Arc::ptr_eq(&older, &of_child) {
                    let (said, then) = ask(&older, later, action);
                    if matches!(said, Said::Is(_)) {
                        found.push((parent, older, said, then));
                        continue;
                    }
                    if older.plan.is_err() && !is_there(&self.past, &older.manifest, &parent) {
                        continue;
                    }
                }
                next.push((parent, older));
            }
        }
        Ok(found)
    }

    /// The oldest commit that is reached through parents of the very same version, and how many were passed on the way.
    fn stretch(&mut self, from: &PastCommit, snapshot: &Arc<Snapshot>) -> Result<(PastCommit, usize), GitError> {
        if let Some((last, passed)) = self.stretches.get(&from.id) {
            return Ok((last.clone(), *passed));
        }
        let (mut last, mut passed) = (from.clone(), 0);
        'back: while passed < COMMITS {
            for parent in &last.parents {
                let parent = self.past.project().commit(parent)?;
                if Arc::ptr_eq(&self.past.before((&last, snapshot), &parent)?, snapshot) {
                    last = parent;
                    passed += 1;
                    continue 'back;
                }
            }
            break;
        }
        self.stretches.insert(from.id.clone(), (last.clone(), passed));
        Ok((last, passed))
    }

    /// The parents of a commit; of one whose manifest has flaws, its own parents.
    fn readable_parents(
        &mut self,
        commit: &PastCommit,
        snapshot: &Arc<Snapshot>,
        cut: &mut bool,
    ) -> Result<Vec<(PastCommit, Arc<Snapshot>)>, GitError> {
        let mut found = Vec::new();
        let mut next: Vec<_> = commit.parents.iter().map(|id| (id.clone(), commit.clone(), snapshot.clone())).collect();
        next.reverse();
        let mut seen = HashSet::new();
        while let Some((id, child, of_child)) = next.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let parent = self.past.project().commit(&id)?;
            let older = self.past.before((&child, &of_child), &parent)?;
            if older.plan.is_ok() || seen.len() > COMMITS || self.past.is_spent() {
                found.push((parent, older));
                continue;
            }
            *cut |= parent.cut;
            if !is_there(&self.past, &older.manifest, &parent) {
                // Before the manifest there is nothing to look for.
                continue;
            }
            for id in parent.parents.iter().rev() {
                next.push((id.clone(), parent.clone(), older.clone()));
            }
        }
        Ok(found)
    }
}
