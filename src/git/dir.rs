//! Directories held by descriptor, so that no name is ever looked up through a symbolic link.
//!
//! A thin layer over the `*at` calls. It decides nothing about content.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

/// An open directory.
pub(super) struct Dir(OwnedFd);

/// What a name is, itself and not what it may point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// Something no tree can hold.
    Odd(&'static str),
}

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC).union(OFlag::O_RDONLY);

/// A name as the system takes it; `*at` calls of a single component stay within the directory.
fn os(name: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(name)
}

impl Dir {
    /// Opens a directory by path. The path is the caller's own and may lead through links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, FOLDER, Mode::empty())?))
    }

    /// Opens a directory that somebody hostile could have replaced, and the one above it: neither may be a link.
    pub(super) fn open_hostile(path: &Path) -> io::Result<Self> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Self::open(path) };
        Self(open(above, FOLDER | OFlag::O_NOFOLLOW, Mode::empty())?).closed_child(name.as_bytes())
    }

    /// Opens a directory within this one; a link is refused.
    pub(super) fn child(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self(openat(&self.0, os(name), FOLDER | OFlag::O_NOFOLLOW, Mode::empty())?))
    }

    /// As [`child`](Self::child), of somebody who has closed it: it is opened up. Nobody else may be at work here.
    pub(super) fn closed_child(&self, name: &[u8]) -> io::Result<Self> {
        self.allow(name, Mode::S_IRUSR | Mode::S_IXUSR)?;
        self.child(name)
    }

    /// Adds permissions of the owner to a name that is no link, where they lack.
    fn allow(&self, name: &[u8], wanted: Mode) -> io::Result<()> {
        let stat = fstatat(&self.0, os(name), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_bits_truncate(stat.st_mode);
        let is_link = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
        if !mode.contains(wanted) && !is_link {
            fchmodat(&self.0, os(name), mode | wanted, FchmodatFlags::FollowSymlink)?;
        }
        Ok(())
    }

    /// Makes a directory within this one and opens it.
    pub(super) fn make(&self, name: &[u8]) -> io::Result<Self> {
        mkdirat(&self.0, os(name), Mode::from_bits_truncate(0o777))?;
        self.child(name)
    }

    /// The names within, sorted, but at most `limit` and one.
    pub(super) fn names(&self, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut listing = nix::dir::Dir::openat(&self.0, ".", FOLDER, Mode::empty())?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            names.push(name);
            if names.len() > limit {
                break;
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What `name` is; nothing if it is not there.
    pub(super) fn kind(&self, name: &[u8]) -> io::Result<Option<Kind>> {
        let stat = match fstatat(&self.0, os(name), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        Ok(Some(match format {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Dir,
            SFlag::S_IFLNK => Kind::Link,
            SFlag::S_IFIFO => Kind::Odd("a fifo"),
            SFlag::S_IFSOCK => Kind::Odd("a socket"),
            _ => Kind::Odd("a device"),
        }))
    }

    /// Where a link points, unresolved.
    pub(super) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.0, os(name))?.into_vec())
    }

    /// Opens a file for reading; a link is refused, and a fifo does not block.
    pub(super) fn read(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.0, os(name), flags, Mode::empty())?))
    }

    /// As [`read`](Self::read), of a file that somebody may have closed. Nobody else may be at work here.
    pub(super) fn read_closed(&self, name: &[u8]) -> io::Result<File> {
        self.read(name)
            .or_else(|error| self.allow(name, Mode::S_IRUSR).and_then(|()| self.read(name)).map_err(|_| error))
    }

    /// Creates a file that is not there yet.
    pub(super) fn create(&self, name: &[u8], executable: bool) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(if executable { 0o755 } else { 0o644 });
        Ok(File::from(openat(&self.0, os(name), flags, mode)?))
    }

    /// Makes a symbolic link.
    pub(super) fn link(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(symlinkat(os(target), &self.0, os(name))?)
    }

    /// Removes a file or link.
    pub(super) fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(unlinkat(&self.0, os(name), UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(unlinkat(&self.0, os(name), UnlinkatFlags::RemoveDir)?)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
