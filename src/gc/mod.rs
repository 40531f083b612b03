//! Making room in a store: what may be taken away, in which order, and taking it away.
//!
//! Records, and the contents that they name, are never taken away but with the run that is forgotten. All the rest is made again
//! when somebody needs it: environments, assets, packs, inflated files, mirrors. Contents that no record names and temporaries
//! are of no use to anybody.
//!
//! Nothing goes that somebody needs. Every process that may write to a store holds its lock `use` shared; who clears takes it alone,
//! and keeps it until all is decided and out of the way: whoever opens the store meanwhile waits. Where it cannot be had a run is at
//! work. Contents that no record names yet, mirrors and packs may be that run's own, so they stay; an environment or an asset goes
//! only while this process has its byte of the lock `pins` alone, which every run takes shared for what it relies on before it looks
//! whether that is there, and the lock of the key under which it is built. What goes is renamed first: a thing is there whole, or not
//! at all.
//!
//! Prints nothing, asks nobody, and follows no link.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use crate::names::RunId;
use crate::step::context::Machine;
use crate::store::{Alone, Store, StoreError};

mod forget;
mod named;
mod room;
mod survey;
mod take;

pub use forget::{Loss, loss};
pub use room::{Room, ago, free, room};
pub use survey::{Survey, environment_sizes, survey};

/// What kind of thing lies in a store and may be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What attempts that are over left behind, and half-written files.
    Temporary,
    /// A content that no record names.
    Unnamed,
    /// Files of trees, ready to be copied.
    Inflated,
    /// The packed files of a base tree.
    Pack,
    /// A built environment, whole or half.
    Environment,
    /// A fetched asset, whole or half.
    Asset,
    /// A bare copy of a repository.
    Mirror,
}

impl Kind {
    /// Whether a thing of the kind is made again by whoever needs it.
    fn is_made_again(self) -> bool {
        !matches!(self, Self::Temporary | Self::Unnamed)
    }

    /// Whether it may go while a run is at work that does not rely on it.
    fn goes_beside_runs(self) -> bool {
        matches!(self, Self::Environment | Self::Asset)
    }

    /// What one of them is called.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Temporary => "temporary",
            Self::Unnamed => "unnamed content",
            Self::Inflated => "inflated files",
            Self::Pack => "packed tree",
            Self::Environment => "environment",
            Self::Asset => "asset",
            Self::Mirror => "mirror",
        }
    }
}

/// A thing that may be taken away.
#[derive(Clone, Debug, Serialize)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// Its name, where it lies.
    pub name: String,
    /// What it is, and of whom, where that is known: of an environment the step and the commit that it was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// How long it took to make, where that is known, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_ms: Option<u64>,
    /// What it takes of the disk, in bytes.
    pub bytes: u64,
    /// When it was used last, as far as that is noted.
    #[serde(serialize_with = "seconds")]
    pub used: Option<SystemTime>,
    /// Why it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stays: Option<String>,
    /// Its files or folders.
    #[serde(skip)]
    paths: Vec<PathBuf>,
}

fn seconds<S: serde::Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map(|since| since.as_secs()).serialize(to)
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// What the store may take, in bytes: no more goes than has to. Without it all goes that may.
    pub budget: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
    /// A run whose records go; then, without a budget, nothing goes that is merely made again.
    pub forget: Option<RunId>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Cleared {
    /// Whether it was only said.
    pub dry_run: bool,
    /// Whether somebody was at work in the store: most of it had to stay.
    pub at_work: bool,
    /// What the store took before, in bytes.
    pub before: u64,
    /// What it takes now.
    pub after: u64,
    /// The budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
    /// The run that was forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<RunId>,
    /// What went, the first to go first.
    pub gone: Vec<Thing>,
    /// What might have gone and stayed, with why.
    pub stayed: Vec<Thing>,
    /// What could not be taken away, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// Makes room.
///
/// # Errors
/// If the store cannot be looked through or locked. What cannot be taken away is told and no error.
pub fn clear(store: &Store, machine: &Machine, wish: &Wish) -> Result<Cleared, StoreError> {
    if !wish.dry_run {
        let locks = store.root.join("locks");
        std::fs::create_dir_all(&locks).map_err(StoreError::io("create", &locks))?;
    }
    let alone = match wish.dry_run {
        true => None,
        false => Alone::take(&store.root)?,
    };
    let free = alone.is_some() || (wish.dry_run && Alone::is_free(&store.root)?);
    let mut failed = Vec::new();
    match &wish.forget {
        Some(run) if !free => failed.push(format!("run {run} is not forgotten: somebody is at work in the store")),
        Some(run) if !wish.dry_run => forget::forget(store, run)?,
        _ => {}
    }
    let without = wish.forget.as_ref().filter(|_| wish.dry_run && free);
    let Survey { things, total } = survey::survey_without(store, without)?;
    let mut cleared = Cleared {
        dry_run: wish.dry_run,
        at_work: !free,
        before: total,
        after: total,
        budget: wish.budget,
        forgotten: wish.forget.clone().filter(|_| free),
        gone: Vec::new(),
        stayed: Vec::new(),
        failed,
    };
    let mut later = Vec::new();
    for mut thing in things {
        let enough = wish.budget.is_some_and(|budget| cleared.after <= budget);
        let only_forget = wish.forget.is_some() && wish.budget.is_none();
        thing.stays = if enough && thing.kind.is_made_again() || only_forget && thing.kind.is_made_again() {
            Some("there is room".to_owned())
        } else if !free && !thing.kind.goes_beside_runs() {
            Some("a run is at work".to_owned())
        } else {
            match take::take(store, machine, &thing, wish.dry_run) {
                Ok(take::Taken::Gone(left)) => {
                    later.extend(left);
                    None
                }
                Ok(take::Taken::Held) => Some("a run relies on it".to_owned()),
                Err(error) => {
                    cleared.failed.push(error.to_string());
                    Some("it could not be taken away".to_owned())
                }
            }
        };
        if thing.stays.is_some() {
            cleared.stayed.push(thing);
        } else {
            cleared.after = cleared.after.saturating_sub(thing.bytes);
            cleared.gone.push(thing);
        }
    }
    // Out of the way already: whoever waits for the store need not wait for this.
    drop(alone);
    for path in later {
        if let Err(error) = crate::hostile::remove_all(&path) {
            cleared.failed.push(format!("{}: {error}", path.display()));
        }
    }
    Ok(cleared)
}
