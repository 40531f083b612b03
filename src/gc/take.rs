//! Taking one thing away: out of the way at once, removed afterwards.

use std::path::PathBuf;
use std::time::Duration;

use super::{Kind, Thing};
use crate::container;
use crate::digest::Digest;
use crate::key::ActionKey;
use crate::step::context::Machine;
use crate::step::secrets::remove_private;
use crate::store::{Store, StoreError, Unpinned};

/// How long processes that outlived their run may take to die.
const ORPHANS: Duration = Duration::from_secs(5);

/// What became of it.
pub(super) enum Taken {
    /// It is gone; what it was lies here, to be removed.
    Gone(Vec<PathBuf>),
    /// Somebody relies on it.
    Held,
}

/// Takes a thing away, or says whether it could be.
pub(super) fn take(store: &Store, machine: &Machine, thing: &Thing, dry_run: bool) -> Result<Taken, StoreError> {
    match thing.kind {
        Kind::Environment | Kind::Asset => held(store, thing, dry_run),
        _ if dry_run => Ok(Taken::Gone(Vec::new())),
        Kind::Unnamed => {
            for path in &thing.paths {
                std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
            }
            Ok(Taken::Gone(Vec::new()))
        }
        Kind::Temporary => {
            if let Some(attempt) = thing.name.strip_prefix("tmp/places/") {
                let _ = container::end_all(&store.places().join(attempt), attempt, &machine.variables, ORPHANS);
                remove_private(machine, attempt);
            }
            aside(store, thing)
        }
        Kind::Inflated | Kind::Pack | Kind::Mirror => aside(store, thing),
    }
}

/// One that a run beside this may rely on, or be building.
fn held(store: &Store, thing: &Thing, dry_run: bool) -> Result<Taken, StoreError> {
    let key = key_of(&thing.name);
    if dry_run {
        let built = key.is_some_and(|key| store.locks.is_locked(&key).unwrap_or(false));
        let held = built || Unpinned::is_held(&store.root, &thing.name);
        return Ok(if held { Taken::Held } else { Taken::Gone(Vec::new()) });
    }
    let Some(_unpinned) = Unpinned::take(&store.root, &thing.name)? else { return Ok(Taken::Held) };
    let building = key.map(|key| store.locks.try_lock(&key)).transpose()?;
    if building.is_some_and(|lock| lock.is_none()) {
        return Ok(Taken::Held);
    }
    aside(store, thing)
}

/// The key under which an environment is built, as far as its folder tells: as far as its lock asks.
fn key_of(folder: &str) -> Option<ActionKey> {
    let digest: Digest = format!("{:0<64}", folder.get(..40)?).parse().ok()?;
    Some(ActionKey(digest))
}

/// Renames all of a thing to where temporaries lie.
fn aside(store: &Store, thing: &Thing) -> Result<Taken, StoreError> {
    let tmp = store.root.join("tmp");
    std::fs::create_dir_all(&tmp).map_err(StoreError::io("create", &tmp))?;
    let mut later = Vec::new();
    for path in &thing.paths {
        let to = store.trash(path);
        std::fs::rename(path, &to).map_err(StoreError::io("rename", path))?;
        later.push(to);
    }
    Ok(Taken::Gone(later))
}
