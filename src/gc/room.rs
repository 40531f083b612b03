//! How much `flow gc` would free, told quickly: what is made again is looked through, up to so many files, and no record is read.

use std::path::Path;
use std::time::SystemTime;

use super::survey::{Size, entries, name_of};
use crate::step::environment::kept;
use crate::store::Store;
use crate::text::counted;
use crate::units::human_size;

/// So many files are looked at.
const LOOKED_AT: usize = 100_000;

/// What would be freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// In bytes; at the least so many where not all was looked at.
    pub bytes: u64,
    /// Environments among it.
    pub environments: usize,
    /// Whether all was looked at.
    pub whole: bool,
}

/// Looks what `flow gc` would free in a store.
#[must_use]
pub fn room(store: &Store) -> Room {
    let mut left = LOOKED_AT;
    let mut room = Room { whole: true, ..Room::default() };
    for path in entries(&store.envs()) {
        room.environments += 1;
        room.bytes += match kept::complete(store, &name_of(&path)) {
            Some(complete) => complete.bytes,
            None => Size::within(&path, None, &mut left).bytes,
        };
    }
    for folder in [store.assets(), store.mirrors(), store.packs(), store.inflated()] {
        room.bytes += Size::within(&folder, None, &mut left).bytes;
    }
    room.whole = left > 0;
    room
}

impl Room {
    /// In words.
    #[must_use]
    pub fn text(self) -> String {
        let least = if self.whole { "about" } else { "at least" };
        let environments = match self.environments {
            0 => String::new(),
            n => format!(", with {}", counted(n, "environment")),
        };
        format!("`flow gc` would free {least} {} here{environments}", human_size(self.bytes))
    }
}

/// What is free where a folder lies or would lie, in bytes; nothing where the system does not tell.
#[must_use]
pub fn free(folder: &Path) -> Option<u64> {
    crate::host::free_disk(folder)
}

/// A time in words: how long ago that was.
#[must_use]
pub fn ago(used: Option<SystemTime>, now: SystemTime) -> String {
    let since = used.map(|used| now.duration_since(used).unwrap_or_default());
    since.map_or("unknown".to_owned(), |since| format!("{} ago", crate::units::human_span(since)))
}
