//! Slots of this host: named things such as a GPU that one process holds at a time, across stores and users.
//!
//! Each slot is a file of one folder, locked by `flock` on an open of its own; the file also says who holds it. A lock dies
//! with the last process that has the descriptor, the text stays: who finds a text in a file that is free knows that its
//! writer was not released in order and may have left processes behind. Killing those is the caller's business, and so is
//! which slots there are.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::names::{AttemptId, BadName, check_name};

/// A holder's line is shorter than this; of a longer text the rest is not read.
const MAX_HOLDER: u64 = 16 * 1024;

/// What went wrong with a slot. Every variant says where.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The lock of a slot is not a plain file.
    #[error("{} is not a plain file; somebody else made it, remove it if that is safe", path.display())]
    NotAFile {
        /// The lock file.
        path: PathBuf,
    },
}

impl SlotError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// The name of a slot on this host, the same for every store and user: `gpu-<UUID>`, `core-3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotName(String);

impl SlotName {
    /// A name from the kind and what tells slots of it apart.
    ///
    /// # Errors
    /// If it cannot be the name of a file.
    pub fn new(kind: &str, id: &str) -> Result<Self, BadName> {
        let name = format!("{kind}-{id}");
        check_name(&name).map(|()| Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who holds a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The attempt.
    pub attempt: AttemptId,
    /// The process that leads it, the supervisor.
    pub pid: u32,
    /// The root of the store that the attempt belongs to.
    pub store: PathBuf,
    /// The attempt's own folder, where its `end.json` would lie.
    pub place: PathBuf,
}

/// A slot whose last holder was not released in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclean {
    /// The slot.
    pub slot: SlotName,
    /// Who it was; `None` if the text cannot be read.
    pub holder: Option<Holder>,
}

/// The folder that holds the locks of this host.
#[derive(Debug)]
pub struct SlotDir {
    path: PathBuf,
    dir: File,
}

impl SlotDir {
    /// Opens the folder, making it for all users if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or is no folder.
    pub fn open(path: &Path) -> Result<Self, SlotError> {
        match std::fs::create_dir(path) {
            // Only what was made here is opened to others, whatever the umask.
            Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1777))
                .map_err(SlotError::io("open to all users", path))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(SlotError::io("create", path)(e)),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty()).map_err(|e| SlotError::io("open", path)(e.into()))?;
        Ok(Self { path: path.to_owned(), dir: dir.into() })
    }

    fn open_slot(&self, slot: &SlotName) -> Result<File, SlotError> {
        let path = self.path.join(&slot.0);
        let refused = |e: Errno| SlotError::io("open the slot", &path)(e.into());
        let name = OsStr::new(&slot.0);
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        // First without O_CREAT: in a sticky folder the kernel (protected_regular) refuses it on the files of others.
        for tries in 0..16 {
            let made = match openat(&self.dir, name, flags, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    openat(&self.dir, name, flags | OFlag::O_CREAT | OFlag::O_EXCL, Mode::from_bits_truncate(0o666))
                        .map(|fd| (fd, true))
                }
                opened => opened.map(|fd| (fd, false)),
            };
            let (file, new) = match made {
                Ok((fd, new)) => (File::from(fd), new),
                // Somebody made it in between, and may not yet have opened it to all users.
                Err(Errno::EEXIST) => continue,
                Err(Errno::EACCES) if tries < 15 => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(e) => return Err(refused(e)),
            };
            let meta = file.metadata().map_err(SlotError::io("look at", &path))?;
            if !meta.is_file() {
                return Err(SlotError::NotAFile { path });
            }
            if new {
                let all = std::fs::Permissions::from_mode(0o666);
                file.set_permissions(all).map_err(SlotError::io("open to all users", &path))?;
            }
            return Ok(file);
        }
        Err(refused(Errno::EEXIST))
    }

    /// Makes sure that these slots can be locked, without locking one: to be said before work begins, not after.
    ///
    /// # Errors
    /// If a lock file cannot be made or opened.
    pub fn probe(&self, slots: &[SlotName]) -> Result<(), SlotError> {
        slots.iter().try_for_each(|slot| self.open_slot(slot).map(drop))
    }

    /// Locks a slot, or gives `None` if somebody has it.
    fn lock_slot(&self, slot: &SlotName) -> Result<Option<File>, SlotError> {
        let path = self.path.join(&slot.0);
        for _ in 0..16 {
            let file = self.open_slot(slot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(SlotError::io("lock the slot", &path)(e)),
            }
            // Whoever clears the folder between the open and the lock leaves us with a file that nobody else will open.
            let mine = file.metadata().map_err(SlotError::io("look at", &path))?;
            if std::fs::symlink_metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (mine.dev(), mine.ino())) {
                return Ok(Some(file));
            }
        }
        Err(SlotError::io("lock the slot", &path)(io::Error::other("it is removed again and again")))
    }

    /// Takes all these slots or none: `None` if somebody has one of them. What was unclean stays so until `occupy`.
    ///
    /// # Errors
    /// If a lock file cannot be opened or locked at all.
    pub fn try_lease(&self, slots: &[SlotName]) -> Result<Option<Lease>, SlotError> {
        let mut names = slots.to_vec();
        // In one order for everybody, so that of two who want the same ones, one gets all.
        names.sort();
        names.dedup();
        let mut lease = Lease { held: Vec::with_capacity(names.len()), unclean: Vec::new() };
        for slot in names {
            let path = self.path.join(&slot.0);
            let Some(file) = self.lock_slot(&slot)? else { return Ok(None) };
            let mut text = Vec::new();
            (&file).take(MAX_HOLDER).read_to_end(&mut text).map_err(SlotError::io("read", &path))?;
            if !text.is_empty() {
                // A crash while it was written leaves the remainder of an older, longer line behind the new one.
                let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
                lease.unclean.push(Unclean { slot: slot.clone(), holder: serde_json::from_slice(line).ok() });
            }
            lease.held.push(HeldSlot { slot, path, file });
        }
        Ok(Some(lease))
    }
}

#[derive(Debug)]
struct HeldSlot {
    slot: SlotName,
    path: PathBuf,
    file: File,
}

/// Slots held by this process, or by whoever inherits their descriptors. Dropping it gives up this process's share only and
/// leaves the holder's text: `release` is the orderly end.
#[derive(Debug)]
pub struct Lease {
    held: Vec<HeldSlot>,
    /// Slots whose last holder was not released in order: its processes have to be dead before `occupy`.
    pub unclean: Vec<Unclean>,
}

impl Lease {
    /// The slots, in order.
    pub fn slots(&self) -> impl Iterator<Item = &SlotName> {
        self.held.iter().map(|h| &h.slot)
    }

    /// The descriptors to let a supervisor inherit, in the order of `slots`. They close on exec unless the child's copies are
    /// made otherwise.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.held.iter().map(|h| h.file.as_fd())
    }

    /// Writes into each slot who holds it. From then on the former holder is forgotten, so that its processes must be gone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn occupy(&mut self, holder: &Holder) -> Result<(), SlotError> {
        let mut line = serde_json::to_vec(holder).unwrap_or_else(|e| unreachable!("a holder is plain data: {e}"));
        line.push(b'\n');
        for held in &self.held {
            // Written over the old text and cut after: at no instant is the file empty.
            let written = held.file.write_all_at(&line, 0).and_then(|()| held.file.set_len(line.len() as u64));
            written.map_err(SlotError::io("write", &held.path))?;
        }
        self.unclean.clear();
        Ok(())
    }

    /// The orderly end: nobody is left in the slots.
    ///
    /// # Errors
    /// If a slot's text cannot be cleared; the locks are given up all the same.
    pub fn release(self) -> Result<(), SlotError> {
        // All of them, whatever becomes of the first.
        let cleared = self.held.iter().map(|h| h.file.set_len(0).map_err(SlotError::io("clear", &h.path)));
        cleared.fold(Ok(()), Result::and)
    }
}

/// The orderly end of one slot in a supervisor that inherited its descriptor.
///
/// # Errors
/// If the slot's text cannot be cleared; the descriptor is closed all the same.
pub fn release_inherited(fd: OwnedFd) -> io::Result<()> {
    File::from(fd).set_len(0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn names(ids: &[&str]) -> Vec<SlotName> {
        ids.iter().map(|id| SlotName::new("gpu", id).unwrap()).collect()
    }

    fn holder(n: u32) -> Holder {
        Holder { attempt: AttemptId::new(format!("r-{n}")), pid: n, store: "/s".into(), place: "/s/p".into() }
    }

    #[test]
    fn all_or_none_and_orderly_ends_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let slots = SlotDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1777);
        let mut one = slots.try_lease(&names(&["1"])).unwrap().unwrap();
        one.occupy(&holder(1)).unwrap();
        assert!(slots.try_lease(&names(&["2", "1", "0"])).unwrap().is_none());
        // The ones before it in order were given back.
        let rest = slots.try_lease(&names(&["2", "0", "2"])).unwrap().unwrap();
        assert_eq!(rest.slots().map(SlotName::as_str).collect::<Vec<_>>(), ["gpu-0", "gpu-2"]);
        assert_eq!(std::fs::metadata(path.join("gpu-0")).unwrap().permissions().mode() & 0o777, 0o666);
        one.release().unwrap();
        assert!(slots.try_lease(&names(&["1"])).unwrap().unwrap().unclean.is_empty());
        assert!(SlotName::new("gpu", "../x").is_err());
    }

    #[test]
    fn a_disorderly_end_is_told_until_somebody_occupies() {
        let dir = tempfile::tempdir().unwrap();
        let slots = SlotDir::open(dir.path()).unwrap();
        let mut lease = slots.try_lease(&names(&["0"])).unwrap().unwrap();
        lease.occupy(&Holder { place: "/a/much/longer/place".into(), ..holder(7) }).unwrap();
        let heir = lease.fds().next().unwrap().try_clone_to_owned().unwrap();
        drop(lease);
        assert!(slots.try_lease(&names(&["0"])).unwrap().is_none(), "the heir holds it");
        drop(heir);
        for _ in 0..2 {
            let lease = slots.try_lease(&names(&["0"])).unwrap().unwrap();
            assert_eq!(lease.unclean[0].holder.as_ref().unwrap().pid, 7);
        }
        let mut lease = slots.try_lease(&names(&["0"])).unwrap().unwrap();
        lease.occupy(&holder(8)).unwrap();
        let heir = lease.fds().next().unwrap().try_clone_to_owned().unwrap();
        drop(lease);
        release_inherited(heir).unwrap();
        assert!(slots.try_lease(&names(&["0"])).unwrap().unwrap().unclean.is_empty());
        std::fs::write(dir.path().join("gpu-0"), "rubbish").unwrap();
        let lease = slots.try_lease(&names(&["0"])).unwrap().unwrap();
        assert_eq!(lease.unclean[0].holder, None);
    }

    #[test]
    fn links_and_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let slots = SlotDir::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("victim"), "text").unwrap();
        std::os::unix::fs::symlink("victim", dir.path().join("gpu-0")).unwrap();
        let error = slots.try_lease(&names(&["0"])).unwrap_err().to_string();
        assert!(error.contains("gpu-0"), "{error}");
        assert_eq!(std::fs::read(dir.path().join("victim")).unwrap(), b"text");
        std::fs::create_dir(dir.path().join("gpu-1")).unwrap();
        assert!(slots.try_lease(&names(&["1"])).is_err());
    }

    #[test]
    fn threads_never_share_a_slot() {
        let dir = tempfile::tempdir().unwrap();
        let slots = SlotDir::open(dir.path()).unwrap();
        let (inside, leases) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for wanted in [names(&["0", "1"]), names(&["1", "0"])] {
                let (slots, inside, leases) = (&slots, &inside, &leases);
                scope.spawn(move || {
                    let mut got = 0;
                    while got < 50 {
                        let Some(lease) = slots.try_lease(&wanted).unwrap() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        lease.release().unwrap();
                        got += 1;
                    }
                    leases.fetch_add(got, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(leases.into_inner(), 100);
    }

    /// Not a test of its own: what the child of the next test does.
    #[test]
    fn child_holds_a_slot() {
        let Some(dir) = std::env::var_os("FLOW_TEST_SLOT_DIR") else { return };
        let mut lease = SlotDir::open(Path::new(&dir)).unwrap().try_lease(&names(&["0"])).unwrap().unwrap();
        lease.occupy(&holder(std::process::id())).unwrap();
        std::io::stderr().write_all(b"leased\n").unwrap();
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::abort();
    }

    #[test]
    fn a_slot_of_a_process_that_died_is_free_and_unclean() {
        let dir = tempfile::tempdir().unwrap();
        let slots = SlotDir::open(dir.path()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "slots::tests::child_holds_a_slot"])
            .env("FLOW_TEST_SLOT_DIR", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "leased\n");
        assert!(slots.try_lease(&names(&["0"])).unwrap().is_none());
        drop(child.stdin.take());
        child.wait().unwrap();
        let lease = slots.try_lease(&names(&["0"])).unwrap().unwrap();
        assert_eq!(lease.unclean[0].holder.as_ref().unwrap().pid, child.id());
    }
}
