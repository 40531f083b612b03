//! Copies a folder that somebody hostile may have filled: files and folders as they are, no link that leads out, nothing else.
//!
//! What is copied is nobody else's: each file has bytes of its own, so that who writes to the copy writes to no other. Nobody
//! may be at work in either folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek, symlinkat};

use super::{FILE, FOLDER, child};

/// Folders within each other. What lies deeper is left out.
const DEEPEST: usize = 48;
/// A new file, and nobody's link.
const NEW: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// How much may be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What could not be copied: devices, pipes, sockets, links that lead out, what cannot be read, what lies too deep.
    pub left_out: u64,
    /// One of these, below the folder.
    pub such_as: Option<PathBuf>,
}

/// Why a folder was not copied. A part of it may have been.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Its files are larger than there is room.
    #[error("more than {0} bytes")]
    TooManyBytes(u64),
    /// It has more entries than there is room.
    #[error("more than {0} files and folders")]
    TooManyEntries(u64),
    /// The disk refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// What could not be written or read.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Copies a folder with all below it to a folder that is not there yet. Permissions and times of change are kept, but no more
/// than `rwx`; so are links that stay within the folder. What there is room for becomes less by what was copied. `listed` is given a
/// line of each entry in an order of its own: its kind, its permissions, its size and its path.
///
/// A folder that is none is left out: the copy is then empty.
///
/// # Errors
/// If there is more than there is room for, or the disk refuses.
pub fn copy_all(from: &Path, to: &Path, room: &mut Room, listed: &mut dyn FnMut(&[u8])) -> Result<Copied, CopyError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |error: Errno| CopyError::Io { path, error: error.into() }
    };
    std::fs::create_dir(to).map_err(|error| CopyError::Io { path: to.to_owned(), error })?;
    let target = open(to, FOLDER, Mode::empty()).map_err(refused(to))?;
    let whole = *room;
    let mut copier = Copier { to, room, whole, listed, copied: Copied::default() };
    match open(from, FOLDER, Mode::empty()) {
        Ok(source) => copier.folder(source.as_fd(), target.as_fd(), Path::new(""), 0)?,
        Err(Errno::ENOENT) => {}
        Err(_) => copier.leave_out(Path::new("")),
    }
    Ok(copier.copied)
}

/// Copies a regular file with its permissions to where nothing is. Where it has holes the copy has them too: it takes no more of the
/// disk than what it is a copy of.
///
/// # Errors
/// If either cannot be opened, or the disk refuses.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let meta = source.metadata()?;
    if meta.blocks().saturating_mul(512) >= meta.len() {
        return std::fs::copy(from, to).map(drop);
    }
    let mut target = File::create_new(to)?;
    let mut at = 0;
    loop {
        let begin = match lseek(&source, at, Whence::SeekData) {
            // No more data: the rest is a hole.
            Err(Errno::ENXIO) => break,
            begin => begin?,
        };
        at = lseek(&source, begin, Whence::SeekHole)?;
        let [first, len] = [begin, at - begin].map(|n| u64::try_from(n).unwrap_or_default());
        source.seek(SeekFrom::Start(first))?;
        target.seek(SeekFrom::Start(first))?;
        io::copy(&mut (&source).take(len), &mut target)?;
    }
    target.set_len(meta.len())?;
    target.set_permissions(meta.permissions())
}

struct Copier<'a> {
    to: &'a Path,
    room: &'a mut Room,
    /// What room there was.
    whole: Room,
    listed: &'a mut dyn FnMut(&[u8]),
    copied: Copied,
}

impl Copier<'_> {
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<(), CopyError> {
        let Ok(names) = self.names(from)? else {
            self.leave_out(path);
            return Ok(());
        };
        for name in names {
            let path = path.join(&name);
            let Ok(stat) = fstatat(from, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
                self.leave_out(&path);
                continue;
            };
            let done = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFREG => self.file(from, to, &name, &path)?,
                SFlag::S_IFLNK => self.link(from, to, &name, &path, depth)?,
                SFlag::S_IFDIR if depth < DEEPEST => match child(from, &name) {
                    Ok(within) => {
                        mkdirat(to, name.as_os_str(), Mode::S_IRWXU).map_err(self.refused(&path))?;
                        let copy = openat(to, name.as_os_str(), FOLDER, Mode::empty()).map_err(self.refused(&path))?;
                        self.list('d', &stat, 0, &path);
                        self.folder(within.as_fd(), copy.as_fd(), &path, depth + 1)?;
                        self.like(&copy, &stat, &path)?;
                        true
                    }
                    Err(_) => false,
                },
                _ => false,
            };
            if !done {
                self.leave_out(&path);
            }
        }
        Ok(())
    }

    /// What is in a folder, in order; nothing where it cannot be read.
    fn names(&mut self, folder: BorrowedFd<'_>) -> Result<Result<Vec<OsString>, Errno>, CopyError> {
        let mut listing = match Dir::openat(folder, ".", FOLDER, Mode::empty()) {
            Ok(listing) => listing,
            Err(error) => return Ok(Err(error)),
        };
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Ok(Err(error)),
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let Some(left) = self.room.entries.checked_sub(1) else {
                return Err(CopyError::TooManyEntries(self.whole.entries));
            };
            self.room.entries = left;
            names.push(OsStr::from_bytes(name).to_owned());
        }
        names.sort_unstable();
        Ok(Ok(names))
    }

    /// Copies a file; false where it cannot be read.
    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<bool, CopyError> {
        let Ok(source) = openat(from, name, FILE, Mode::empty()) else { return Ok(false) };
        let Ok(stat) = fstat(&source) else { return Ok(false) };
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Ok(false);
        }
        // Counted before it is read: what is sparse would fill the disk.
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let Some(left) = self.room.bytes.checked_sub(size) else {
            return Err(CopyError::TooManyBytes(self.whole.bytes));
        };
        self.room.bytes = left;
        let target = openat(to, name, NEW, Mode::S_IRUSR | Mode::S_IWUSR).map_err(self.refused(path))?;
        let mut target = File::from(target);
        // By the kernel, which shares the blocks of both until one is written to where the file system can.
        let copied = io::copy(&mut File::from(source).take(size), &mut target);
        let copied = copied.map_err(|error| CopyError::Io { path: self.to.join(path), error })?;
        self.like(&target, &stat, path)?;
        self.copied.files += 1;
        self.copied.bytes += copied;
        self.list('f', &stat, copied, path);
        Ok(true)
    }

    /// Copies a link; false where it leads out.
    fn link(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<bool, CopyError> {
        let Ok(target) = readlinkat(from, name) else { return Ok(false) };
        if !stays(Path::new(&target), depth) {
            return Ok(false);
        }
        symlinkat(target.as_os_str(), to, name).map_err(self.refused(path))?;
        (self.listed)(format!("l 0 0 {} ", target.display()).as_bytes());
        (self.listed)(path.as_os_str().as_bytes());
        (self.listed)(b"\0");
        Ok(true)
    }

    /// Gives a copy the permissions and the time of what it is a copy of. Its owner may always write to it.
    fn like<F: AsFd>(&self, copy: &F, stat: &FileStat, path: &Path) -> Result<(), CopyError> {
        let own = if SFlag::from_bits_truncate(stat.st_mode).contains(SFlag::S_IFDIR) { 0o700 } else { 0o600 };
        fchmod(copy, Mode::from_bits_truncate(stat.st_mode & 0o777 | own)).map_err(self.refused(path))?;
        // Builders compare times of change.
        let changed = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
        futimens(copy, &changed, &changed).map_err(self.refused(path))
    }

    fn list(&mut self, kind: char, stat: &FileStat, size: u64, path: &Path) {
        (self.listed)(format!("{kind} {:o} {size} ", stat.st_mode & 0o777).as_bytes());
        (self.listed)(path.as_os_str().as_bytes());
        (self.listed)(b"\0");
    }

    fn leave_out(&mut self, path: &Path) {
        self.copied.left_out += 1;
        self.copied.such_as.get_or_insert_with(|| path.to_owned());
    }

    fn refused(&self, path: &Path) -> impl FnOnce(Errno) -> CopyError + use<> {
        let path = self.to.join(path);
        move |error| CopyError::Io { path, error: error.into() }
    }
}

/// Whether a link in a folder so deep below the top stays below it: it goes up first, no farther than to the top, and then down
/// only. Where it goes on through other links, these stay too.
fn stays(target: &Path, depth: usize) -> bool {
    let mut ups = 0;
    let mut down = false;
    for part in target.components() {
        match part {
            Component::ParentDir if !down => ups += 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    ups <= depth
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    const ROOM: Room = Room { bytes: 1000, entries: 100 };

    fn copied(from: &Path, to: &Path, mut room: Room) -> Result<Copied, CopyError> {
        copy_all(from, to, &mut room, &mut |_| {})
    }

    #[test]
    fn a_copy_is_like_what_it_is_of_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::write(from.join("a/b/lib.so"), "code").unwrap();
        std::fs::set_permissions(from.join("a/b/lib.so"), PermissionsExt::from_mode(0o4755)).unwrap();
        std::fs::hard_link(from.join("a/b/lib.so"), from.join("same")).unwrap();
        symlink("../a/b/lib.so", from.join("a/near")).unwrap();
        let all = copied(&from, &to, ROOM).unwrap();
        assert_eq!((all.files, all.bytes, all.left_out), (2, 8, 0));
        let (was, is) = (from.join("same").metadata().unwrap(), to.join("same").metadata().unwrap());
        assert_eq!((is.nlink(), is.mode() & 0o7777), (1, 0o755), "no hard link, and nothing is run as its owner");
        assert_eq!(is.modified().unwrap(), was.modified().unwrap());
        std::fs::write(to.join("a/near"), "other").unwrap();
        assert_eq!(std::fs::read_to_string(from.join("a/b/lib.so")).unwrap(), "code");
        assert_eq!(std::fs::read_to_string(to.join("a/b/lib.so")).unwrap(), "other");
    }

    #[test]
    fn what_leads_out_or_is_no_file_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        for (name, target) in
            [("abs", "/etc/passwd"), ("up", "../secret"), ("a/up", "../../secret"), ("round", "a/../../secret")]
        {
            symlink(target, from.join(name)).unwrap();
        }
        nix::unistd::mkfifo(&from.join("a/pipe"), Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        let all = copied(&from, &to, ROOM).unwrap();
        assert_eq!((all.files, all.left_out), (0, 6), "{all:?}");
        assert_eq!(all.such_as.as_deref(), Some(Path::new("a/pipe")));
        assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
        // The folder itself is a link, or a pipe.
        for name in ["abs", "a/pipe"] {
            let all = copied(&from.join(name), &dir.path().join(name.replace('/', "-")), ROOM).unwrap();
            assert_eq!((all.files, all.left_out), (0, 1));
        }
        assert_eq!(copied(&from.join("absent"), &dir.path().join("none"), ROOM).unwrap(), Copied::default());
    }

    #[test]
    fn no_more_is_copied_than_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::create_dir_all(&from).unwrap();
        // Takes no room on the disk as it is.
        std::fs::File::create(from.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let too_large = |to: &str, room| copied(&from, &dir.path().join(to), room).unwrap_err().to_string();
        assert_eq!(too_large("1", ROOM), "more than 1000 bytes");
        for n in 0..8 {
            std::fs::write(from.join(n.to_string()), "").unwrap();
        }
        assert_eq!(too_large("2", Room { bytes: 1 << 50, entries: 8 }), "more than 8 files and folders");
    }

    #[test]
    fn what_lies_too_deep_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::create_dir(&from).unwrap();
        let mut at = open(&from, FOLDER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        let all = copied(&from, &dir.path().join("to"), ROOM).unwrap();
        assert_eq!(all.left_out, 1);
        super::super::remove_all(&from).unwrap();
    }

    #[test]
    fn the_same_entries_are_listed_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let listing = |from: &str, to: &str| {
            let mut bytes = Vec::new();
            let (from, to) = (dir.path().join(from), dir.path().join(to));
            copy_all(&from, &to, &mut ROOM.clone(), &mut |line| bytes.extend_from_slice(line)).unwrap();
            bytes
        };
        std::fs::create_dir(dir.path().join("0")).unwrap();
        for n in ["z", "a", "m"] {
            std::fs::write(dir.path().join("0").join(n), n).unwrap();
        }
        let one = listing("0", "1");
        assert_eq!(one, listing("1", "2"));
        std::fs::write(dir.path().join("2/a"), "longer").unwrap();
        assert_ne!(one, listing("2", "3"));
    }
}
