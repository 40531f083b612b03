//! The system calls by which a process changes what it sees of the disk, with the path in each error.
//!
//! For a process in a mount namespace of its own: nothing here asks whether it is.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// What a call came to, with its path.
fn named(path: &Path, done: i64) -> io::Result<i64> {
    if done >= 0 {
        return Ok(done);
    }
    let error = io::Error::last_os_error();
    Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Mounts: a source if there is one, a kind with its options if that is new.
pub(super) fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<(&str, &str)>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let source = source.map(c_path).transpose()?;
    let to = c_path(target)?;
    let text = |text: &str| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let kind = kind.map(|(kind, data)| Ok::<_, io::Error>((text(kind)?, text(data)?))).transpose()?;
    let source = source.as_ref().map_or(ptr::null(), |source| source.as_ptr());
    let (kind, data) =
        kind.as_ref().map_or((ptr::null(), ptr::null()), |(kind, data)| (kind.as_ptr(), data.as_ptr().cast()));
    // SAFETY: the strings live until the call returns.
    named(target, unsafe { libc::mount(source, to.as_ptr(), kind, flags, data) }.into()).map(drop)
}

/// An empty folder in memory.
pub(super) fn tmpfs(target: &Path, options: &str) -> io::Result<()> {
    mount(Some(Path::new("none")), target, Some(("tmpfs", options)), libc::MS_NOSUID | libc::MS_NODEV)
}

const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_int = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// A copy of the mount at a path, with all that is mounted beneath it.
pub(super) fn clone_of(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let flags = OPEN_TREE_CLONE | (libc::O_CLOEXEC | AT_RECURSIVE | libc::AT_SYMLINK_NOFOLLOW).cast_unsigned();
    // SAFETY: the string lives until the call returns; the descriptor is ours.
    let fd = named(path, unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) })?;
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

/// Puts such a copy at a path.
pub(super) fn put(fd: &OwnedFd, path: &Path) -> io::Result<()> {
    let name = c_path(path)?;
    // SAFETY: the strings live until the call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    named(path, done).map(drop)
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Makes everything that is mounted read-only.
pub(super) fn read_only() -> io::Result<()> {
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    // SAFETY: the structure is a local of the layout that the kernel documents, with its size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    named(Path::new("/"), done).map(drop)
}
