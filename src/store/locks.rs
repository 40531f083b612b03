//! Locks between processes: one per action key, one per run.
//!
//! Both are open-file-description locks: unlike classic fcntl locks they do not vanish when some other descriptor of the file
//! is closed, and they hold for as long as anybody, a supervisor that inherited it for one, keeps *that* open file. They die
//! with their holders, so that nobody ever has to remove one. Slots of the host are locked in `slots`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::StoreError;
use crate::hostile::open_regular;
use crate::key::ActionKey;
use crate::names::RunId;

/// More than a million runs would need.
const MAX_ORDER: u64 = 64 << 20;

/// The file whose bytes stand for action keys.
#[derive(Debug)]
pub struct KeyLocks {
    path: PathBuf,
}

/// That nobody else runs this key. Ends when the last process that holds the descriptor closes it.
#[derive(Debug)]
pub struct KeyLock(OwnedFd);

impl KeyLock {
    /// The descriptor to let a supervisor inherit. It closes on exec unless the child's copy is made otherwise.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl KeyLocks {
    /// The locks of the store at `root`.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let locks = Self::of(root);
        open_lock_file(&locks.path)?;
        Ok(locks)
    }

    /// The same without touching anything: of a store that is only read, nobody takes one.
    pub(super) fn of(root: &Path) -> Self {
        Self { path: root.join("locks/keys") }
    }

    /// Takes the lock of a key, or gives `None` if somebody has it, in this process or another.
    ///
    /// # Errors
    /// If the system refuses to lock at all.
    pub fn try_lock(&self, key: &ActionKey) -> Result<Option<KeyLock>, StoreError> {
        // An open of its own: locks of one open file description never exclude each other.
        let file = open_lock_file(&self.path)?;
        let taken = set_lock(&file, range(offset(key), 1)).map_err(StoreError::io("lock a key in", &self.path))?;
        Ok(taken.then(|| KeyLock(file.into())))
    }

    /// Whether somebody has the lock of a key. Takes nothing.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn is_locked(&self, key: &ActionKey) -> Result<bool, StoreError> {
        let file = open_lock_file(&self.path)?;
        asks_locked(&file, range(offset(key), 1)).map_err(StoreError::io("ask for a lock in", &self.path))
    }
}

/// A key's byte. Two keys share one with a chance of 2^-63; then one merely waits for the other.
fn offset(key: &ActionKey) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key.0.as_bytes()[..8]);
    i64::from_be_bytes(first) & i64::MAX
}

/// That a run is under way. Ends with the process.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Declares a run alive: makes `runs/<run>` and locks the file `lock` in it.
    ///
    /// # Errors
    /// `Exists` if somebody has it.
    pub fn take(root: &Path, run: &RunId) -> Result<Self, StoreError> {
        let path = run_lock_path(root, run);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        }
        let file = open_lock_file(&path)?;
        match set_lock(&file, range(0, 0)) {
            Ok(true) => {
                note_begin(root, run)?;
                Ok(Self { _file: file })
            }
            Ok(false) => Err(StoreError::Exists { path }),
            Err(e) => Err(StoreError::io("lock", &path)(e)),
        }
    }

    /// Whether a process holds the run. Asks without taking the lock, so that two who ask never disturb each other, nor a run
    /// that is about to take it.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn is_alive(root: &Path, run: &RunId) -> Result<bool, StoreError> {
        let path = run_lock_path(root, run);
        match open_regular(&path) {
            Ok(file) => asks_locked(&file, range(0, 0)).map_err(StoreError::io("ask for the lock of", &path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("open", &path)(e)),
        }
    }
}

/// Adds a run to those that have begun. One short line, appended at once: two runs never mix theirs.
fn note_begin(root: &Path, run: &RunId) -> Result<(), StoreError> {
    let path = root.join("runs/order");
    let file = File::options().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(format!("{run}\n").as_bytes())).map_err(StoreError::io("write", &path))
}

/// The runs in the order in which they began, as they noted it themselves: a clock that was set back does not change it. Runs
/// of other stores, copied in, are not among them.
#[must_use]
pub fn begun(root: &Path) -> Vec<RunId> {
    let text = super::read_bounded(&root.join("runs/order"), MAX_ORDER).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(RunId::from).collect()
}

fn run_lock_path(root: &Path, run: &RunId) -> PathBuf {
    root.join("runs").join(run.as_str()).join("lock")
}

pub(super) fn open_lock_file(path: &Path) -> Result<File, StoreError> {
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(path);
    open().map_err(StoreError::io("open the lock file", path))
}

/// `len` 0 is the whole file.
fn range(start: i64, len: i64) -> libc::flock {
    of_kind(libc::F_WRLCK, start, len)
}

/// The same of a kind: `F_WRLCK` is held alone, `F_RDLCK` shared.
pub(super) fn of_kind(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    // `l_pid` has to be 0 for locks of open file descriptions.
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

/// Whether the lock was taken.
pub(super) fn set_lock(file: &File, range: libc::flock) -> io::Result<bool> {
    loop {
        return match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(Errno::EINTR) => continue,
            Err(e) => Err(e.into()),
        };
    }
}

pub(super) fn asks_locked(file: &File, mut range: libc::flock) -> io::Result<bool> {
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut range))?;
    Ok(range.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::digest::Digest;

    fn key(n: u8) -> ActionKey {
        ActionKey(Digest::from_bytes([n; 32]))
    }

    /// Not a test of its own: what the child of the next test does.
    #[test]
    fn child_holds_a_key() {
        let Some(root) = std::env::var_os("FLOW_TEST_LOCK_ROOT") else { return };
        let root = Path::new(&root);
        let _key = KeyLocks::open(root).unwrap().try_lock(&key(1)).unwrap().unwrap();
        let _run = RunLock::take(root, &RunId::from("child")).unwrap();
        let mut out = std::io::stderr();
        out.write_all(b"locked\n").unwrap();
        let _ = std::io::stdin().read_line(&mut String::new());
        // As in a kill: nothing is released in order.
        std::process::abort();
    }

    #[test]
    fn two_processes_exclude_each_other_and_death_releases() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("locks")).unwrap();
        let locks = KeyLocks::open(dir.path()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "store::locks::tests::child_holds_a_key"])
            .env("FLOW_TEST_LOCK_ROOT", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n");
        let run = RunId::from("child");
        assert!(locks.try_lock(&key(1)).unwrap().is_none());
        assert!(locks.is_locked(&key(1)).unwrap());
        let other = locks.try_lock(&key(2)).unwrap();
        assert!(other.is_some() && RunLock::is_alive(dir.path(), &run).unwrap());
        assert!(matches!(RunLock::take(dir.path(), &run), Err(StoreError::Exists { .. })));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!RunLock::is_alive(dir.path(), &run).unwrap());
        assert!(locks.try_lock(&key(1)).unwrap().is_some());
    }

    #[test]
    fn a_lock_excludes_its_own_process_and_survives_in_a_heir() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("locks")).unwrap();
        let locks = KeyLocks::open(dir.path()).unwrap();
        for edge in [key(0), key(0x7f), key(0xff)] {
            let held = locks.try_lock(&edge).unwrap().unwrap();
            assert!(locks.try_lock(&edge).unwrap().is_none());
            // Closing another descriptor of the file, which would drop a classic lock.
            drop(File::open(dir.path().join("locks/keys")).unwrap());
            let heir = held.fd().try_clone_to_owned().unwrap();
            drop(held);
            assert!(locks.try_lock(&edge).unwrap().is_none());
            drop(heir);
            assert!(locks.try_lock(&edge).unwrap().is_some());
        }
        assert!(!RunLock::is_alive(dir.path(), &RunId::from("never")).unwrap());
    }
}
