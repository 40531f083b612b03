//! What a plan's environments and assets take of the disk: how many there are, how many are there, and what the others may take.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::gc;
use crate::plan::{Ask, AssetAt, Found, Plan, Role, TreeOf};
use crate::step::assets::is_there;
use crate::step::environment::kept;
use crate::store::Store;
use crate::text::counted;
use crate::units::human_size;
use crate::why::forecast::{Forecast, State};

/// What is expected.
#[derive(Clone, Debug, Serialize)]
pub struct Room {
    /// Environments of which it is known what they are built from.
    pub environments: usize,
    /// Of these, those that are in the store.
    pub there: usize,
    /// Of these, those that would be built.
    pub to_build: usize,
    /// Environments of patched trees, which are built from what a patch makes of them: at the most so many are built.
    pub unknown: usize,
    /// Environments of base trees whose repository is not here yet: at the most so many are built.
    pub unseen: usize,
    /// What one takes, in bytes: the median of those that are in the store; `None` is unknown.
    pub each: Option<u64>,
    /// What is free where the store lies, in bytes.
    pub free: Option<u64>,
    /// Assets that are fetched.
    pub assets: usize,
    /// Of these, those that are in the store.
    pub fetched: usize,
    /// Of these, those that an action needs that would be executed.
    pub to_fetch: usize,
    /// What `flow gc` would free, where what is expected is more than is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc: Option<String>,
}

/// What a plan's environments take; nothing where it builds and fetches none.
#[must_use]
pub fn room(plan: &Plan, forecasts: &[Forecast], store: &Store) -> Option<Room> {
    let (mut known, mut build) = (BTreeSet::new(), BTreeSet::new());
    let (mut bases, mut unknown, mut unseen) = (BTreeSet::new(), 0, 0);
    let mut any = false;
    for said in forecasts {
        let Ask::Environment(ask) = &plan.nodes[said.node].ask else { continue };
        if ask.recipe.is_none() || matches!(said.state, State::Skipped | State::Blocked) {
            continue;
        }
        any = true;
        // What a patch breaks for good leaves no environment.
        if said.served.as_ref().is_some_and(|ended| ended.outcome.failure().is_some()) {
            continue;
        }
        match said.key {
            Some(key) => {
                let folder = kept::folder_of(&key);
                if said.state.executes() {
                    build.insert(folder.clone());
                }
                known.insert(folder);
            }
            None if plan.nodes[said.node].links.iter().any(|link| link.role == Role::Patch) => unknown += 1,
            // Its key waits for the checkout; what it is built from is told by the tree that the checkout will name.
            None => match foreseen(plan, said.node) {
                // A tree that no case fits is not built.
                Some((_, Found::NoCase)) => {}
                Some(set) => drop(bases.insert(set)),
                None => unseen += 1,
            },
        }
    }
    let (mut assets, mut fetch) = (BTreeSet::new(), BTreeSet::new());
    for said in forecasts {
        for name in plan.nodes[said.node].ask.assets() {
            assets.insert(name);
            if said.state.executes() {
                fetch.insert(name);
            }
        }
    }
    let in_store = |name: &&str| match plan.facts.assets.get(*name) {
        Some(Ok(fact)) if matches!(fact.at, AssetAt::Store { .. }) => Some(is_there(store, fact)),
        _ => None,
    };
    assets.retain(|name| in_store(name).is_some());
    fetch.retain(|name| in_store(name) == Some(false));
    if !any && assets.is_empty() {
        return None;
    }
    let there = known.iter().filter(|folder| kept::complete(store, folder).is_some()).count();
    let mut sizes = gc::environment_sizes(store);
    sizes.sort_unstable();
    let mut room = Room {
        environments: known.len() + bases.len(),
        there,
        to_build: build.len() + bases.len(),
        unknown,
        unseen,
        each: sizes.get(sizes.len() / 2).copied(),
        free: gc::free(&store.root),
        assets: assets.len(),
        fetched: assets.iter().filter(|name| in_store(name) == Some(true)).count(),
        to_fetch: fetch.len(),
        gc: None,
    };
    if let (Some(expected), Some(free)) = (room.expected(), room.free)
        && expected > free
    {
        room.gc = Some(gc::room(store).text());
    }
    Some(room)
}

/// What tells one build of a base tree from another before there is a key: its step, its case, and the files that it is built from.
fn foreseen(plan: &Plan, node: usize) -> Option<(usize, Found)> {
    let one = &plan.nodes[node];
    let Ask::Environment(ask) = &one.ask else { return None };
    let (repo, commit) = one.point.commit?;
    let Ok(fact) = plan.facts.commits.get(&(repo, commit))? else { return None };
    let tree = TreeOf { repo, base: fact.base_tree.as_deref()?, changes: None };
    let found = plan.trees.get()?.find(tree, &ask.recipe.as_ref()?.cases).ok()?;
    Some((one.step, found))
}

impl Room {
    /// What is to be built may take so many bytes at the most, where one of them is known.
    fn expected(&self) -> Option<u64> {
        let count = u64::try_from(self.to_build + self.unknown + self.unseen).unwrap_or(u64::MAX);
        if count == 0 { Some(0) } else { self.each.map(|each| each.saturating_mul(count)) }
    }

    /// In one line.
    #[must_use]
    pub fn text(&self) -> String {
        let more = |count: usize, once: &str| match count {
            0 => String::new(),
            n => format!(", and at most {n} more once {once}"),
        };
        let most = more(self.unseen, "the repositories are here") + &more(self.unknown, "the patches are known");
        let expected = match self.expected() {
            Some(bytes) => format!("about {}", human_size(bytes)),
            None => "unknown: none is there to tell by".to_owned(),
        };
        let mut parts = Vec::new();
        if self.environments + self.unknown + self.unseen > 0 {
            let environments = counted(self.environments, "environment");
            parts.push(format!("{environments}, {} there, {} to build{most}: {expected}", self.there, self.to_build));
        }
        if self.assets > 0 {
            let how_much = if self.to_fetch > 0 { ": unknown how much" } else { "" };
            let assets = counted(self.assets, "asset");
            parts.push(format!("{assets}, {} there, {} to fetch{how_much}", self.fetched, self.to_fetch));
        }
        let free = self.free.map_or("unknown".to_owned(), human_size);
        let gc = self.gc.as_ref().map_or(String::new(), |gc| format!("; that is too little: {gc}"));
        format!("disk: {}; free: {free}{gc}", parts.join("; "))
    }
}
