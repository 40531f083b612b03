//! Who uses the store, so that nothing is taken away under anybody's hands.
//!
//! Two files of locks, `locks/use` and `locks/pins`. Whoever may write to the store holds the first shared for as long as it is
//! open; whoever takes things away holds it alone, or knows that somebody is at work. A run that relies on a thing that may be
//! made again, an environment say, holds a byte of the second shared from before it looks at it until it ends; whoever takes that
//! thing away holds the byte alone meanwhile. So a thing is there for as long as it is held, or was seen to be gone. Both kinds of
//! lock die with their process.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::StoreError;
use super::locks::{asks_locked, of_kind, open_lock_file, set_lock};
use crate::digest::Digest;

/// How long a store is waited for that somebody clears.
const CLEARED: Duration = Duration::from_secs(600);
/// How long a thing is waited for that somebody is just taking away: one renaming.
const TAKEN: Duration = Duration::from_secs(10);
/// How often a lock is asked for.
const EVERY: Duration = Duration::from_millis(10);

/// That somebody may write to the store. Ends with the process.
#[derive(Debug)]
pub struct InUse {
    _file: File,
}

/// That nobody else may write to the store.
#[derive(Debug)]
pub struct Alone {
    _file: File,
}

impl InUse {
    /// Takes its part, once nobody has the store alone.
    ///
    /// # Errors
    /// If somebody has it for longer than ten minutes, or the system refuses to lock.
    pub(super) fn take(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("locks/use");
        let file = open_lock_file(&path)?;
        match wait(&file, of_kind(libc::F_RDLCK, 0, 1), CLEARED).map_err(StoreError::io("lock", &path))? {
            true => Ok(Self { _file: file }),
            false => Err(StoreError::Cleared { path: root.to_owned() }),
        }
    }
}

impl Alone {
    /// Takes the store for itself; nothing if somebody is at work in it.
    ///
    /// # Errors
    /// If the system refuses to lock.
    pub fn take(root: &Path) -> Result<Option<Self>, StoreError> {
        let path = root.join("locks/use");
        let file = open_lock_file(&path)?;
        let taken = set_lock(&file, of_kind(libc::F_WRLCK, 0, 1)).map_err(StoreError::io("lock", &path))?;
        Ok(taken.then_some(Self { _file: file }))
    }

    /// Whether it could be taken now. Takes nothing.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn is_free(root: &Path) -> Result<bool, StoreError> {
        let path = root.join("locks/use");
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(StoreError::io("open the lock file", &path)(error)),
        };
        let locked = asks_locked(&file, of_kind(libc::F_WRLCK, 0, 1));
        Ok(!locked.map_err(StoreError::io("ask for the lock of", &path))?)
    }
}

/// What this process relies on. One open file has all its bytes: they end together, with the process.
#[derive(Debug, Default)]
pub(super) struct Pins(OnceLock<File>);

impl Pins {
    /// Holds a thing of that name until this process ends. Says whether it does: otherwise the thing is to be taken for gone.
    pub(super) fn hold(&self, root: &Path, name: &str) -> bool {
        if self.0.get().is_none()
            && let Ok(file) = open_lock_file(&root.join("locks/pins"))
        {
            // Where another thread was faster its file is used; this one has no locks yet.
            let _ = self.0.set(file);
        }
        let Some(file) = self.0.get() else { return false };
        wait(file, of_kind(libc::F_RDLCK, byte(name), 1), TAKEN).unwrap_or(false)
    }
}

/// That nobody relies on a thing of that name.
#[derive(Debug)]
pub struct Unpinned {
    _file: File,
}

impl Unpinned {
    /// Takes it; nothing if somebody relies on it.
    ///
    /// # Errors
    /// If the system refuses to lock.
    pub fn take(root: &Path, name: &str) -> Result<Option<Self>, StoreError> {
        let path = root.join("locks/pins");
        let file = open_lock_file(&path)?;
        let taken = set_lock(&file, of_kind(libc::F_WRLCK, byte(name), 1));
        Ok(taken.map_err(StoreError::io("lock", &path))?.then_some(Self { _file: file }))
    }

    /// Whether somebody relies on it. Takes nothing.
    #[must_use]
    pub fn is_held(root: &Path, name: &str) -> bool {
        let path = root.join("locks/pins");
        let file = File::options().read(true).write(true).open(path);
        file.is_ok_and(|file| asks_locked(&file, of_kind(libc::F_WRLCK, byte(name), 1)).unwrap_or(true))
    }
}

/// A name's byte. Two names share one with a chance of 2^-63; then one is merely kept for the other.
fn byte(name: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(name.as_bytes()).as_bytes()[..8]);
    i64::from_be_bytes(first) & i64::MAX
}

fn wait(file: &File, range: libc::flock, limit: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        if set_lock(file, range)? {
            return Ok(true);
        }
        if began.elapsed() > limit {
            return Ok(false);
        }
        std::thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_held_or_taken_and_never_both() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("locks")).unwrap();
        let pins = Pins::default();
        assert!(pins.hold(dir.path(), "one") && pins.hold(dir.path(), "one"));
        assert!(Unpinned::is_held(dir.path(), "one") && !Unpinned::is_held(dir.path(), "two"));
        assert!(Unpinned::take(dir.path(), "one").unwrap().is_none());
        drop(Unpinned::take(dir.path(), "two").unwrap().unwrap());
        assert!(pins.hold(dir.path(), "two"));
        drop(pins);
        assert!(Unpinned::take(dir.path(), "one").unwrap().is_some());
    }

    #[test]
    fn many_use_a_store_and_one_clears_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("locks")).unwrap();
        assert!(Alone::is_free(dir.path()).unwrap());
        let (one, two) = (InUse::take(dir.path()).unwrap(), InUse::take(dir.path()).unwrap());
        assert!(Alone::take(dir.path()).unwrap().is_none() && !Alone::is_free(dir.path()).unwrap());
        drop((one, two));
        let alone = Alone::take(dir.path()).unwrap().unwrap();
        assert!(Alone::take(dir.path()).unwrap().is_none());
        drop(alone);
        InUse::take(dir.path()).unwrap();
    }
}
