//! Blobs, kept under the sha256 of their content in `cas/v1/ab/cdef…`.
//!
//! A blob lies under its final name only when its content is durable. `put` therefore writes a temporary and remembers it;
//! `sync` makes all of a group durable at once and only then renames. Until then this process, and no other, reads the blob
//! from its temporary. A blob that reads back with another digest is moved aside and is absent from then on.
//!
//! Does not know what is in a blob, nor which may be removed.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Damage, StoreError, files};
use crate::digest::{Digest, Hasher};

/// Blobs above this are made durable by whoever puts them, so that the group commit does not wait for them.
const LARGE: u64 = 1 << 20;

/// For so long after a blob appeared, another process may not have synced its folder yet.
const FRESH_SECONDS: u64 = 120;

/// The content-addressed blobs of a store.
#[derive(Debug)]
pub struct Cas {
    root: PathBuf,
    state: Mutex<State>,
    /// Held for a whole `sync`: one that finds nothing to do still waits for what another has under way.
    syncing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<Digest, Pending>,
    /// Folders that hold blobs of other processes which may not be durable yet.
    folders: BTreeSet<PathBuf>,
    damage: Vec<Damage>,
    broken: Option<String>,
}

#[derive(Debug, Clone)]
struct Pending {
    temp: PathBuf,
    synced: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is guarded here is left half-changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cas {
    /// The blobs of the store at `root`. Touches nothing: readers use it on a store they cannot write.
    #[must_use]
    pub fn open(root: &Path) -> Self {
        Self { root: root.to_owned(), state: Mutex::default(), syncing: Mutex::default() }
    }

    /// Where a blob lies once it is durable.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (head, tail) = hex.split_at(2);
        let mut path = self.root.join("cas/v1");
        path.push(head);
        path.push(tail);
        path
    }

    /// Keeps bytes. Nothing is written if they are there.
    ///
    /// # Errors
    /// If they cannot be written; nothing is left behind then.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        self.keep(&digest, bytes)?;
        Ok(digest)
    }

    /// Keeps bytes whose digest the caller has computed, as for a key record.
    ///
    /// # Errors
    /// If the digest is not theirs, or they cannot be written.
    pub fn put_as(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let found = Digest::of(bytes);
        if found == *digest {
            self.keep(digest, bytes)
        } else {
            Err(StoreError::OtherDigest { path: self.path(digest), found })
        }
    }

    fn keep(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.present(digest, bytes.len() as u64)? {
            return Ok(());
        }
        let (temp, file, ()) = files::fill_temp(&self.root, "blob", 0o444, |file| {
            file.write_all(bytes).map_err(StoreError::io("write a blob into", &self.root))
        })?;
        self.queue(digest, temp, &file, bytes.len() as u64)
    }

    /// Keeps a copy of a file, read in pieces.
    ///
    /// # Errors
    /// If it cannot be read, or the copy not be written.
    pub fn put_file(&self, path: &Path) -> Result<Digest, StoreError> {
        let mut source = File::open(path).map_err(StoreError::io("open", path))?;
        // What is there already is most often all there is to do: hashed first, copied only if new.
        let meta = source.metadata().map_err(StoreError::io("look at", path))?;
        if !meta.is_file() {
            return Err(StoreError::io("keep", path)(io::Error::other("it is not a regular file")));
        }
        // Up to the length it has now: a file that somebody is still writing must not keep this going for ever.
        let len = meta.len();
        let digest = hash(&mut source, path, len, None)?.0;
        if self.present(&digest, len)? {
            return Ok(digest);
        }
        io::Seek::rewind(&mut source).map_err(StoreError::io("read", path))?;
        // The file may have changed since: what was copied is what counts.
        let (temp, file, (digest, len)) =
            files::fill_temp(&self.root, "blob", 0o444, |copy| hash(&mut source, path, len, Some((copy, &self.root))))?;
        self.queue(&digest, temp, &file, len)?;
        Ok(digest)
    }

    fn queue(&self, digest: &Digest, temp: PathBuf, file: &File, len: u64) -> Result<(), StoreError> {
        let synced = len > LARGE;
        if synced {
            file.sync_data().map_err(StoreError::io("sync", &temp)).inspect_err(|_| drop(fs::remove_file(&temp)))?;
        }
        let mut state = lock(&self.state);
        if state.pending.contains_key(digest) {
            // Another thread was faster.
            let _ = fs::remove_file(&temp);
        } else {
            state.pending.insert(*digest, Pending { temp, synced });
        }
        Ok(())
    }

    /// Whether the blob is there with this length. One of another length is moved aside.
    fn present(&self, digest: &Digest, len: u64) -> Result<bool, StoreError> {
        let path = self.path(digest);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(lock(&self.state).pending.contains_key(digest));
            }
            Err(e) => return Err(StoreError::io("look at", &path)(e)),
        };
        if !meta.is_file() || meta.len() != len {
            self.set_aside(digest, &path, &meta, &format!("has {} bytes instead of {len}", meta.len()));
            return Ok(false);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let since = u64::try_from(meta.ctime()).unwrap_or(0);
        if now.saturating_sub(since) < FRESH_SECONDS
            && let Some(folder) = path.parent()
        {
            lock(&self.state).folders.insert(folder.to_owned());
        }
        Ok(true)
    }

    /// Whether the blob is there. Its content is not looked at; a file that was cut to nothing is none.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        // In this order: a blob leaves the pending ones only after it has its place.
        lock(&self.state).pending.contains_key(digest)
            || fs::metadata(self.path(digest))
                .is_ok_and(|meta| meta.is_file() && (meta.len() > 0 || *digest == Digest::of(b"")))
    }

    /// Opens a blob, wherever it lies now.
    fn find(&self, digest: &Digest) -> Result<Option<(File, PathBuf)>, StoreError> {
        // A blob goes from its temporary to its place while it is `pending`, so that one of three looks meets it.
        let place = self.path(digest);
        let temp = lock(&self.state).pending.get(digest).map(|p| p.temp.clone());
        for path in [Some(place.clone()), temp, Some(place)].into_iter().flatten() {
            match File::open(&path) {
                Ok(file) => return Ok(Some((file, path))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("open", &path)(e)),
            }
        }
        Ok(None)
    }

    /// The content of a blob of at most `max` bytes, verified. `None` if it is not there, or was damaged: see `take_damage`.
    ///
    /// # Errors
    /// If it is larger, or cannot be read.
    pub fn get(&self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((file, path)) = self.find(digest)? else { return Ok(None) };
        let bytes = files::read_open(&file, &path, max)?;
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        let meta = file.metadata().map_err(StoreError::io("look at", &path))?;
        self.set_aside(digest, &path, &meta, "its content is not what its name says");
        Ok(None)
    }

    /// How a blob begins, not verified: to tell what kind of file it is. Nothing if it is not there.
    #[must_use]
    pub fn begin(&self, digest: &Digest, most: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(Some((file, _))) = self.find(digest) {
            let _ = file.take(most).read_to_end(&mut bytes);
        }
        bytes
    }

    /// Copies a blob to `dest`, which must not exist, verified on the way. Never a hard link: whoever gets the copy may write
    /// to it. `false` if there is no such blob, or it was damaged.
    ///
    /// # Errors
    /// If the copy cannot be written.
    pub fn copy_to(&self, digest: &Digest, dest: &Path) -> Result<bool, StoreError> {
        let Some((mut file, path)) = self.find(digest)? else { return Ok(false) };
        let mut copy =
            File::options().write(true).create_new(true).open(dest).map_err(StoreError::io("create", dest))?;
        let (found, _) =
            hash(&mut file, &path, u64::MAX, Some((&mut copy, dest))).inspect_err(|_| drop(fs::remove_file(dest)))?;
        if found == *digest {
            return Ok(true);
        }
        let _ = fs::remove_file(dest);
        let meta = file.metadata().map_err(StoreError::io("look at", &path))?;
        self.set_aside(digest, &path, &meta, "its content is not what its name says");
        Ok(false)
    }

    /// Moves a blob that cannot be believed out of the way, unless another file has taken its place since.
    fn set_aside(&self, digest: &Digest, path: &Path, read: &fs::Metadata, why: &str) {
        let mut state = lock(&self.state);
        if let Some(pending) = state.pending.get(digest)
            && pending.temp == path
        {
            // Lines that name it may be waiting for the next commit, which must not happen now.
            state.broken = Some(format!("{} changed before it was durable", path.display()));
            state.pending.remove(digest);
        }
        let same = fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (read.dev(), read.ino()));
        let aside = self.root.join("corrupt").join(format!("{digest}-{}", read.ino()));
        let moved = same
            && fs::create_dir_all(self.root.join("corrupt")).is_ok()
            && (fs::rename(path, &aside).is_ok() || fs::remove_file(path).is_ok());
        let done = match (moved, same) {
            (true, _) => format!("moved to {}", aside.display()),
            (false, true) => "it could not be moved away".to_owned(),
            (false, false) => "it has been replaced since".to_owned(),
        };
        state.damage.push(Damage { path: path.to_owned(), line: None, why: format!("{why}; {done}") });
    }

    /// What was found damaged since the last call: to be said aloud.
    #[must_use]
    pub fn take_damage(&self) -> Vec<Damage> {
        std::mem::take(&mut lock(&self.state).damage)
    }

    /// How many blobs wait for `sync`.
    #[must_use]
    pub fn pending(&self) -> usize {
        lock(&self.state).pending.len()
    }

    /// Makes every blob durable that was put before this call, and gives it its final name.
    ///
    /// # Errors
    /// If any of them is lost. From then on each call fails: a kernel that lost a write reports it once and says yes the next
    /// time, and lines that name the blob may be waiting.
    pub fn sync(&self) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.syncing);
        let (group, folders) = {
            let mut state = lock(&self.state);
            if let Some(why) = &state.broken {
                return Err(StoreError::Broken { path: self.root.join("cas"), why: why.clone() });
            }
            let group: Vec<_> = state.pending.iter().map(|(d, p)| (*d, p.clone())).collect();
            (group, std::mem::take(&mut state.folders))
        };
        self.sync_group(&group, folders).inspect_err(|e| {
            lock(&self.state).broken = Some(e.to_string());
        })?;
        let mut state = lock(&self.state);
        for (digest, _) in &group {
            state.pending.remove(digest);
        }
        Ok(())
    }

    fn sync_group(&self, group: &[(Digest, Pending)], mut folders: BTreeSet<PathBuf>) -> Result<(), StoreError> {
        // In pieces, as each file of a piece is held open.
        for piece in group.chunks(128) {
            let mut open = Vec::with_capacity(piece.len());
            for (_, pending) in piece.iter().filter(|(_, p)| !p.synced) {
                let file = File::open(&pending.temp).map_err(StoreError::io("open", &pending.temp))?;
                files::begin_writeback(&file);
                open.push((file, &pending.temp));
            }
            for (file, temp) in open {
                file.sync_data().map_err(StoreError::io("sync", temp))?;
            }
        }
        let top = self.root.join("cas/v1");
        for (digest, pending) in group {
            let path = self.path(digest);
            let folder = path.parent().unwrap_or(&top);
            if let Err(first) = fs::rename(&pending.temp, &path) {
                if first.kind() != io::ErrorKind::NotFound {
                    return Err(StoreError::io("rename to", &path)(first));
                }
                fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
                folders.insert(top.clone());
                fs::rename(&pending.temp, &path).map_err(StoreError::io("rename to", &path))?;
            }
            folders.insert(folder.to_owned());
        }
        folders.iter().try_for_each(|folder| files::sync_dir(folder))
    }
}

impl Drop for Cas {
    fn drop(&mut self) {
        // Nothing durable names them.
        for pending in lock(&self.state).pending.values() {
            let _ = fs::remove_file(&pending.temp);
        }
    }
}

/// Hashes at most `max` bytes of a stream, copying them where asked. Gives the digest and the length.
fn hash(
    source: &mut File,
    from: &Path,
    max: u64,
    copy: Option<(&mut File, &Path)>,
) -> Result<(Digest, u64), StoreError> {
    let mut source = source.take(max);
    let mut hasher = Hasher::default();
    let mut piece = vec![0; 128 * 1024];
    let mut copy = copy;
    let mut len = 0;
    loop {
        let n = match source.read(&mut piece) {
            Ok(0) => return Ok((hasher.finish(), len)),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(StoreError::io("read", from)(e)),
        };
        hasher.update(&piece[..n]);
        len += n as u64;
        if let Some((file, to)) = &mut copy {
            file.write_all(&piece[..n]).map_err(StoreError::io("write", to))?;
        }
    }
}
