//! What somebody hostile may have left: read never through a link, never from a device or a pipe, never without a bound; and
//! removed however deep or unreadable it is.

mod copy;

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

pub use copy::{Copied, CopyError, Room, copy_all, copy_file};

/// Without `O_NONBLOCK` the open of a pipe that nobody writes would wait for ever.
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// How many folders within each other are held open while they are removed; what lies deeper is moved up first.
const HELD: u32 = 64;

/// Reads a regular file of at most `max` bytes; `None` if there is nothing at the path. The folders above it are trusted.
///
/// # Errors
/// If it is a link, no regular file, longer than `max`, or cannot be read.
pub fn read_regular(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    found(open(path, FILE, Mode::empty()))?.map_or(Ok(None), |file| read_open(file, max).map(Some))
}

/// Opens a regular file, also behind a link: for what a person may have put elsewhere, but must not hang on.
///
/// # Errors
/// If it is a pipe, a device or a folder, or cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::from(open(path, FILE.difference(OFlag::O_NOFOLLOW), Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
    }
    Ok(file)
}

/// As [`read_regular`], of a file below a folder: neither the folder nor anything on the way may be a link, and the way does not
/// lead up.
///
/// # Errors
/// As [`read_regular`].
pub fn read_below(folder: &Path, name: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(mut folder) = found(open(folder, FOLDER, Mode::empty()))? else { return Ok(None) };
    let mut rest = name.components().filter(|part| *part != Component::CurDir).peekable();
    while let Some(Component::Normal(part)) = rest.next() {
        if rest.peek().is_none() {
            return found(openat(&folder, part, FILE, Mode::empty()))?
                .map_or(Ok(None), |file| read_open(file, max).map(Some));
        }
        match found(openat(&folder, part, FOLDER, Mode::empty()))? {
            Some(next) => folder = next,
            None => return Ok(None),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` names no file within a folder", name.display())))
}

fn found(opened: Result<OwnedFd, Errno>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ENOENT) => Ok(None),
        Err(Errno::ELOOP) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a link where a file was expected")),
        // What has nobody at its other end, such as a socket.
        Err(Errno::ENXIO) => Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file")),
        Err(error) => Err(error.into()),
    }
}

fn read_open(file: OwnedFd, max: u64) -> io::Result<Vec<u8>> {
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {max} bytes")));
    }
    Ok(bytes)
}

/// Removes whatever is at a path, with all below it: links are removed, never followed; what was made unreadable is made
/// readable; the memory and descriptors that it takes do not grow with the depth. Nothing at the path is fine. Nobody else may
/// be at work there.
///
/// # Errors
/// If something cannot be removed; the rest is.
pub fn remove_all(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(meta) if !meta.is_dir() => return std::fs::remove_file(path),
        Ok(meta) if meta.mode() & 0o700 != 0o700 => {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        Ok(_) => {}
    }
    let root = open(path, FOLDER, Mode::empty())?;
    let mut remover = Remover { root: root.as_fd(), moved: 0, failed: None };
    loop {
        let before = remover.moved;
        remover.empty(root.as_fd(), 0);
        if remover.moved == before || remover.failed.is_some() {
            break;
        }
    }
    if let Some(error) = remover.failed {
        return Err(error);
    }
    std::fs::remove_dir(path)
}

struct Remover<'a> {
    root: std::os::fd::BorrowedFd<'a>,
    /// How many folders were moved up.
    moved: u64,
    failed: Option<io::Error>,
}

impl Remover<'_> {
    /// Removes what is in a folder.
    fn empty(&mut self, folder: std::os::fd::BorrowedFd<'_>, depth: u32) {
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) => {
                self.failed.get_or_insert(error.into());
                return;
            }
        };
        for (name, kind) in names {
            let name = OsStr::from_bytes(name.as_bytes());
            let kind = kind.unwrap_or_else(|| kind_of(folder, name));
            if kind == Type::Directory && depth < HELD {
                match child(folder, name) {
                    Ok(child) => self.empty(child.as_fd(), depth + 1),
                    Err(error) => self.fail(error),
                }
                self.tell(unlinkat(folder, name, UnlinkatFlags::RemoveDir));
            } else if kind == Type::Directory {
                self.move_up(folder, name);
            } else {
                self.tell(unlinkat(folder, name, UnlinkatFlags::NoRemoveDir));
            }
        }
    }

    fn move_up(&mut self, folder: std::os::fd::BorrowedFd<'_>, name: &OsStr) {
        // A folder that is moved gets another parent, and so must be writable itself.
        let _ = fchmodat(folder, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink);
        loop {
            self.moved += 1;
            match renameat(folder, name, self.root, format!("..{}.moved", self.moved).as_str()) {
                // An empty folder may be replaced: that is fine. A name that is taken otherwise is passed over.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                result => return self.tell(result),
            }
        }
    }

    fn tell(&mut self, result: nix::Result<()>) {
        match result {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: Errno) {
        self.failed.get_or_insert(error.into());
    }
}

/// What is in a folder, which is made writable on the way. Names and kinds, where the file system tells them.
fn names(folder: std::os::fd::BorrowedFd<'_>) -> nix::Result<Vec<(CString, Option<Type>)>> {
    if let Ok(stat) = fstat(folder)
        && stat.st_mode & 0o700 != 0o700
    {
        fchmod(folder, Mode::S_IRWXU)?;
    }
    let mut listing = Dir::openat(folder, ".", FOLDER, Mode::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

fn kind_of(folder: std::os::fd::BorrowedFd<'_>, name: &OsStr) -> Type {
    let is_folder = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR);
    if is_folder { Type::Directory } else { Type::File }
}

fn child(folder: std::os::fd::BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    match openat(folder, name, FOLDER, Mode::empty()) {
        Err(Errno::EACCES) => {
            fchmodat(folder, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            openat(folder, name, FOLDER, Mode::empty())
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"12345").unwrap();
        assert_eq!(read_regular(&file, 5).unwrap().unwrap(), b"12345");
        assert!(read_regular(&file, 4).is_err());
        assert!(read_regular(&dir.path().join("absent"), 4).unwrap().is_none());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(read_regular(&link, 5).is_err());
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read_regular(&pipe, 5).is_err());
        assert!(read_regular(dir.path(), 5).is_err());
    }

    #[test]
    fn no_link_on_the_way_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), b"x").unwrap();
        let read = |folder: &Path, name: &str| read_below(folder, Path::new(name), 9);
        assert_eq!(read(&root, "a/b/file").unwrap().unwrap(), b"x");
        assert_eq!(read(&root, "./a/./b/file").unwrap().unwrap(), b"x");
        assert!(read(&root, "a/none/file").unwrap().is_none());
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(&root, dir.path().join("other")).unwrap();
        assert!(read(&root, "link/b/file").is_err());
        assert!(read(&dir.path().join("other"), "a/b/file").is_err());
        for name in ["../root/a/b/file", "/etc/passwd", "", "a/../a/b/file"] {
            assert!(read(&root, name).is_err(), "{name}");
        }
    }

    #[test]
    fn everything_goes_and_nothing_behind_a_link() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (root, kept) = (dir.path().join("root"), dir.path().join("kept"));
        std::fs::create_dir_all(root.join("closed/within")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "").unwrap();
        std::fs::write(root.join("closed/within/file"), "").unwrap();
        std::os::unix::fs::symlink(&kept, root.join("link")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
        for closed in ["closed/within", "closed"] {
            std::fs::set_permissions(root.join(closed), PermissionsExt::from_mode(0o000)).unwrap();
        }
        // Deeper than any path can name, and with more below each folder that is moved up.
        let mut at = open(&root, FOLDER, Mode::empty()).unwrap();
        for _ in 0..5000 {
            nix::sys::stat::mkdirat(&at, "side", Mode::S_IRWXU).unwrap();
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        remove_all(&root).unwrap();
        assert!(!root.exists() && kept.join("file").exists());
        remove_all(&root).unwrap();
        std::os::unix::fs::symlink(&kept, &root).unwrap();
        remove_all(&root).unwrap();
        assert!(!root.is_symlink() && kept.join("file").exists());
    }
}
