//! What a plan's environments and assets take of the disk: how many there are, how many are there, and what the others may take.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::gc;
use crate::plan::{Ask, AssetAt, Plan};
use crate::step::assets::is_there;
use crate::step::environment::kept;
use crate::store::Store;
use crate::text::counted;
use crate::units::human_size;
use crate::why::forecast::{Forecast, State};

/// What is expected.
#[derive(Clone, Debug, Serialize)]
pub struct Room {
    /// Environments whose key is known.
    pub environments: usize,
    /// Of these, those that are in the store.
    pub there: usize,
    /// Of these, those that would be built.
    pub to_build: usize,
    /// Environments of patched trees whose key is not known before the patch is: at the most so many are built.
    pub unknown: usize,
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
    let (mut known, mut build, mut unknown) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut any = false;
    for said in forecasts {
        let Ask::Environment(ask) = &plan.nodes[said.node].ask else { continue };
        if ask.recipe.is_none() || matches!(said.state, State::Skipped | State::Blocked) {
            continue;
        }
        any = true;
        match said.key {
            Some(key) => {
                let folder = kept::folder_of(&key);
                if said.state.executes() {
                    build.insert(folder.clone());
                }
                known.insert(folder);
            }
            None => unknown += 1,
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
        environments: known.len(),
        there,
        to_build: build.len(),
        unknown,
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

impl Room {
    /// What is to be built may take so many bytes at the most, where one of them is known.
    fn expected(&self) -> Option<u64> {
        let count = u64::try_from(self.to_build + self.unknown).unwrap_or(u64::MAX);
        if count == 0 { Some(0) } else { self.each.map(|each| each.saturating_mul(count)) }
    }

    /// In one line.
    #[must_use]
    pub fn text(&self) -> String {
        let most = match self.unknown {
            0 => String::new(),
            n => format!(", and at most {n} more once the patches are known"),
        };
        let expected = match self.expected() {
            Some(bytes) => format!("about {}", human_size(bytes)),
            None => "unknown: none is there to tell by".to_owned(),
        };
        let mut parts = Vec::new();
        if self.environments + self.unknown > 0 {
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
