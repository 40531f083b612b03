//! The few system calls that several files of this room share, and what their answers mean.
//!
//! Nothing here keeps a state.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::end::Exit;

/// What a status of `wait` says.
pub(super) fn exit_of(status: libc::c_int) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Largest resident size in KiB, and processor time in milliseconds.
pub(super) fn usage(usage: &libc::rusage) -> (u64, u64) {
    let ms = |t: libc::timeval| u64::try_from(t.tv_sec * 1000 + t.tv_usec / 1000).unwrap_or(0);
    (u64::try_from(usage.ru_maxrss).unwrap_or(0), ms(usage.ru_utime) + ms(usage.ru_stime))
}

/// The same of all children that have been reaped, and theirs.
pub(super) fn usage_of_children() -> (u64, u64) {
    // SAFETY: plain old data, filled in by the call.
    unsafe {
        let mut all: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut all);
        usage(&all)
    }
}

/// A pipe whose reading end does not block; neither end is inherited.
pub(super) fn pipe() -> nix::Result<(File, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok((File::from(read), write))
}

/// A descriptor that is readable when a child has ended. SIGCHLD is blocked.
pub(super) fn child_events() -> io::Result<File> {
    // SAFETY: plain old data filled in by the calls; the new descriptor is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        match libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(File::from_raw_fd(fd)),
        }
    }
}

/// The status of a child, when it has ended.
pub(super) fn wait_for(pid: libc::pid_t) -> Option<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: writes to a local.
        match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
            done if done == pid => return Some(status),
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

/// Keeps a descriptor from the programs that we start.
pub(super) fn close_on_exec(fd: RawFd) {
    // SAFETY: sets a flag; a number that is no descriptor is an error we do not mind.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}
