//! Starting one process with exactly the environment, the descriptors and the signals it is to have.
//!
//! Not `std::process::Command`: what has to happen between fork and exec (session, death signal, descriptors at given numbers)
//! makes that fork, and a fork copies the page tables of flow, which costs milliseconds once a large plan is in memory. Here the
//! child borrows our memory until it execs, as `posix_spawn` does; so it also needs no pipe to say why it failed.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use super::confine::{Confine, Part};

/// The variable that marks every process of an attempt.
pub const ATTEMPT_MARK: &str = "FLOW_ATTEMPT";
/// The variable that marks the supervisor of an attempt.
pub const SUPERVISOR_MARK: &str = "FLOW_SUPERVISES";

/// What supervisors ignore: the signals by which a person or the system ends flow, and that of a pipe without a reader, which
/// flow's death makes of theirs.
pub(super) const IGNORED: [c_int; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE];

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("there is no program to start")]
    Nothing,
    #[error("`{}` holds a NUL character", .text.escape_default())]
    Nul { text: String },
    #[error("descriptor {fd} cannot be passed on: only 3 to 255 can")]
    Number { fd: RawFd },
    #[error("`{program}` is not in the PATH of its environment")]
    NotFound { program: String },
    #[error("cannot enter {}: {source}", .path.display())]
    Enter { path: PathBuf, source: io::Error },
    #[error("cannot execute {}: {source}{hint}", .path.display())]
    Execute { path: PathBuf, hint: &'static str, source: io::Error },
    #[error("cannot start {}: {source}", .path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("the sandbox cannot be held ({}): {source}", .part.word())]
    Confine { part: Part, source: io::Error },
}

/// One process to start.
#[derive(Clone, Copy)]
pub(super) struct Launch<'a> {
    /// Program and arguments.
    pub(super) argv: &'a [String],
    /// The whole environment; of a name given twice the last one holds.
    pub(super) env: &'a [(String, String)],
    pub(super) cwd: &'a Path,
    pub(super) stdin: BorrowedFd<'a>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
    /// More descriptors, and their numbers in the child.
    pub(super) extra: &'a [(RawFd, RawFd)],
    /// A session of its own, or only a process group.
    pub(super) session: bool,
    /// Killed when the thread that starts it ends.
    pub(super) dies_with_us: bool,
    /// Where it writes `0` to enter a control group.
    pub(super) door: Option<BorrowedFd<'a>>,
    /// Ignores what supervisors ignore, from its first instruction on.
    pub(super) as_supervisor: bool,
    /// What it enters before it executes. Only a process with one thread may ask for it.
    pub(super) confine: Option<&'a Confine>,
    /// Where it passes on the doors to the hosts that it may reach.
    pub(super) doors: Option<BorrowedFd<'a>>,
}

/// What the child needs between clone and exec, all made before.
struct Child {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    cwd: *const c_char,
    /// (ours, the child's, where ours is kept meanwhile)
    descriptors: *mut (RawFd, RawFd, RawFd),
    count: usize,
    above: RawFd,
    session: bool,
    dies_with_us: bool,
    as_supervisor: bool,
    /// -1 for none.
    door: RawFd,
    parent: libc::pid_t,
    confine: *const Confine,
    /// -1 for none.
    doors: RawFd,
    failed: Step,
    errno: c_int,
    /// Why a sandbox could not be entered, in words.
    why: [u8; WHY],
}

/// The longest reason, in bytes.
const WHY: usize = 200;

#[derive(Clone, Copy)]
enum Step {
    Prepare,
    Enter,
    Execute,
    Confine(Part),
}

/// Starts the process; it has executed its program when this returns its id.
pub(super) fn launch(launch: &Launch<'_>) -> Result<libc::pid_t, LaunchError> {
    let name = launch.argv.first().filter(|name| !name.is_empty()).ok_or(LaunchError::Nothing)?;
    let path = resolve(name, launch.env, launch.cwd)?;
    let program = c_string(path.as_os_str().as_bytes())?;
    let cwd = c_string(launch.cwd.as_os_str().as_bytes())?;
    let argv = launch.argv.iter().map(|a| c_string(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let mut env: Vec<CString> = Vec::with_capacity(launch.env.len());
    for (i, (name, value)) in launch.env.iter().enumerate() {
        if !launch.env[i + 1..].iter().any(|(later, _)| later == name) {
            env.push(c_string(format!("{name}={value}").as_bytes())?);
        }
    }
    let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (argv_pointers, env_pointers) = (pointers(&argv), pointers(&env));

    let mut descriptors =
        vec![(launch.stdin.as_raw_fd(), 0, -1), (launch.stdout.as_raw_fd(), 1, -1), (launch.stderr.as_raw_fd(), 2, -1)];
    for &(ours, theirs) in launch.extra {
        if !(3..=255).contains(&theirs) {
            return Err(LaunchError::Number { fd: theirs });
        }
        descriptors.push((ours, theirs, -1));
    }
    let above = descriptors.iter().map(|d| d.1).max().unwrap_or(2) + 1;

    let mut child = Child {
        program: program.as_ptr(),
        argv: argv_pointers.as_ptr(),
        envp: env_pointers.as_ptr(),
        cwd: cwd.as_ptr(),
        descriptors: descriptors.as_mut_ptr(),
        count: descriptors.len(),
        above,
        session: launch.session,
        dies_with_us: launch.dies_with_us,
        as_supervisor: launch.as_supervisor,
        door: launch.door.map_or(-1, |door| door.as_raw_fd()),
        parent: libc::pid_t::try_from(std::process::id()).unwrap_or(0),
        confine: launch.confine.map_or(ptr::null(), ptr::from_ref),
        doors: launch.doors.map_or(-1, |doors| doors.as_raw_fd()),
        failed: Step::Prepare,
        errno: 0,
        why: [0; WHY],
    };
    let start = |source| LaunchError::Start { path: path.clone(), source };
    let shared = launch.confine.map(|_| Shared::new(&child)).transpose().map_err(start)?;
    let structure = shared.as_ref().map_or(&raw mut child, |shared| shared.0);
    let pid = clone(structure, shared.is_some()).map_err(start)?;
    // SAFETY: the child has executed or exited, nobody else knows the structure; volatile, since it wrote behind the compiler's
    // back.
    let (errno, failed) = unsafe {
        (ptr::read_volatile(&raw const (*structure).errno), ptr::read_volatile(&raw const (*structure).failed))
    };
    if errno == 0 {
        return Ok(pid);
    }
    // SAFETY: our own child, which has exited; a null status is allowed.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    let source = io::Error::from_raw_os_error(errno);
    Err(match failed {
        Step::Prepare => LaunchError::Start { path, source },
        Step::Confine(part) => {
            // SAFETY: as above.
            let why = unsafe { ptr::read_volatile(&raw const (*structure).why) };
            let why = why.split(|byte| *byte == 0).next().unwrap_or_default();
            LaunchError::Confine { part, source: io::Error::other(String::from_utf8_lossy(why).into_owned()) }
        }
        Step::Enter => LaunchError::Enter { path: launch.cwd.to_owned(), source },
        Step::Execute => {
            let there = launch.cwd.join(&path).exists();
            let hint = match errno {
                libc::ENOENT if there => " (the interpreter that its first line names is missing)",
                libc::ENOEXEC => " (neither a program of this machine nor a script with a `#!` line)",
                _ => "",
            };
            LaunchError::Execute { path, hint, source }
        }
    })
}

fn c_string(bytes: &[u8]) -> Result<CString, LaunchError> {
    // Only the part before the NUL is told: a variable may be a secret.
    CString::new(bytes).map_err(|_| LaunchError::Nul {
        text: String::from_utf8_lossy(bytes.split(|b| *b == b'=' || *b == 0).next().unwrap_or_default()).into_owned(),
    })
}

/// The file to execute: a name without a slash is looked up in the child's own `PATH`, never in ours.
fn resolve(name: &str, env: &[(String, String)], cwd: &Path) -> Result<PathBuf, LaunchError> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let path = env.iter().rev().find(|(variable, _)| variable == "PATH").map_or("", |(_, value)| value.as_str());
    let is_program = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    let mut folders = path.split(':').filter(|_| !path.is_empty()).map(|folder| cwd.join(folder).join(name));
    folders.find(is_program).ok_or_else(|| LaunchError::NotFound { program: name.to_owned() })
}

/// A [`Child`] in memory that a process of its own shares with us, so that it can tell why it failed.
struct Shared(*mut Child);

impl Shared {
    fn new(child: &Child) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping of our own, aligned to a page, into which the structure is copied whole; it has no destructor.
        unsafe {
            let page = libc::mmap(ptr::null_mut(), size_of::<Child>(), protection, flags, -1, 0);
            if page == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let page = page.cast::<Child>();
            ptr::copy_nonoverlapping(child, page, 1);
            Ok(Self(page))
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more.
        unsafe { libc::munmap(self.0.cast(), size_of::<Child>()) };
    }
}

/// Runs [`begin`] in a new process; returns when it has executed or exited. It shares our memory unless it needs its own: a
/// sandbox is entered by code that allocates.
fn clone(child: *mut Child, own_memory: bool) -> io::Result<libc::pid_t> {
    // 1 MiB of 16-byte words, of which only what is used is ever there: `begin` uses a few hundred bytes, a sandbox some more.
    let mut stack = Vec::<u128>::with_capacity(65_536);
    let memory = if own_memory { 0 } else { libc::CLONE_VM };
    // SAFETY: plain old data filled in by the calls; all pointers are to locals. The child runs on a stack of its own, whose end
    // is within the allocation, and this thread does not go on (CLONE_VFORK) until the child has let go of the memory, so that
    // `child`, `stack` and all they point to outlive it. No signal handler can run in the child: all signals are blocked across
    // the clone, and it resets them before it unblocks them.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        let pid = libc::clone(begin, top, memory | libc::CLONE_VFORK | libc::SIGCHLD, child.cast());
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(pid) }
    }
}

/// What the child does before it becomes its program. Only system calls: no allocation, no lock, no panic; but for a sandbox,
/// for which it has memory of its own.
extern "C" fn begin(child: *mut c_void) -> c_int {
    // SAFETY: `clone` passes the structure, which lives until we execute or exit; the parent's thread is suspended meanwhile.
    // The calls are plain system calls on numbers and on memory prepared by the parent.
    unsafe {
        let child = &mut *child.cast::<Child>();
        for signal in 1..=libc::SIGRTMAX() {
            let ignore = child.as_supervisor && IGNORED.contains(&signal);
            libc::signal(signal, if ignore { libc::SIG_IGN } else { libc::SIG_DFL });
        }
        if child.session {
            libc::setsid();
        } else {
            libc::setpgid(0, 0);
        }
        if child.door >= 0 {
            // Refused means no group, as where none can be made.
            libc::write(child.door, c"0".as_ptr().cast(), 1);
        }
        if let Some(confine) = child.confine.as_ref()
            && let Err((part, error)) = confine.enter(child.doors)
        {
            for (to, from) in child.why.iter_mut().zip(error.to_string().bytes().take(WHY - 1)) {
                *to = from;
            }
            return child.fail(Step::Confine(part));
        }
        // After the sandbox: a change of credentials takes it away.
        if child.dies_with_us {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // Had the parent died before, nobody would tell us any more.
            if libc::getppid() != child.parent {
                libc::_exit(127);
            }
        }
        if libc::chdir(child.cwd) != 0 {
            return child.fail(Step::Enter);
        }
        // First all out of the way, then each to its number: one's number may be another's place.
        for i in 0..child.count {
            let entry = &mut *child.descriptors.add(i);
            entry.2 = libc::fcntl(entry.0, libc::F_DUPFD_CLOEXEC, child.above);
            if entry.2 < 0 {
                return child.fail(Step::Prepare);
            }
        }
        // What flow itself inherited from whoever started it is not the child's either. Older kernels lack the call.
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for i in 0..child.count {
            let entry = &*child.descriptors.add(i);
            if libc::dup2(entry.2, entry.1) < 0 {
                return child.fail(Step::Prepare);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execve(child.program, child.argv, child.envp);
        child.fail(Step::Execute)
    }
}

impl Child {
    /// Leaves the reason for the parent, and ends.
    fn fail(&mut self, step: Step) -> c_int {
        // SAFETY: the address of this thread's errno is always valid; `_exit` runs nothing of the parent's.
        unsafe {
            self.failed = step;
            self.errno = (*libc::__errno_location()).max(1);
            libc::_exit(127)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    fn run(
        argv: &[&str],
        env: &[(&str, &str)],
        cwd: &str,
        out: &File,
        extra: &[(RawFd, RawFd)],
    ) -> Result<i32, String> {
        let argv: Vec<String> = argv.iter().map(|s| (*s).to_owned()).collect();
        let env: Vec<_> = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let null = File::open("/dev/null").unwrap();
        let pid = launch(&Launch {
            argv: &argv,
            env: &env,
            cwd: Path::new(cwd),
            stdin: null.as_fd(),
            stdout: out.as_fd(),
            stderr: out.as_fd(),
            extra,
            session: true,
            dies_with_us: true,
            door: None,
            as_supervisor: false,
            confine: None,
            doors: None,
        })
        .map_err(|e| e.to_string())?;
        let mut status = 0;
        // SAFETY: our own child and a local.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        Ok(if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) })
    }

    #[test]
    fn the_child_gets_what_it_was_given_and_nothing_else() {
        let out = tempfile::NamedTempFile::new().unwrap();
        let extra = tempfile::NamedTempFile::new().unwrap();
        let script = "echo $A $HOME; pwd; echo fd >&9; ls /proc/self/fd | tr '\\n' ' '; kill -TERM $$";
        let env = [("A", "1"), ("PATH", "/usr/bin:/bin"), ("A", "2")];
        let leaked = File::open("/dev/null").unwrap();
        // SAFETY: clears a flag of a descriptor of our own.
        unsafe { libc::fcntl(leaked.as_raw_fd(), libc::F_SETFD, 0) };
        let code = run(&["sh", "-c", script], &env, "/usr", out.as_file(), &[(extra.as_raw_fd(), 9)]).unwrap();
        assert_eq!(code, libc::SIGTERM);
        let text = std::fs::read_to_string(out.path()).unwrap();
        assert_eq!(text, "2\n/usr\n0 1 2 3 9 ");
        assert_eq!(std::fs::read_to_string(extra.path()).unwrap(), "fd\n");
    }

    #[test]
    fn descriptors_may_change_places() {
        let (a, b) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let (x, y) = (a.as_raw_fd(), b.as_raw_fd());
        let script = format!("echo x >&{y}; echo y >&{x}");
        run(&["/bin/bash", "-c", &script], &[], "/", a.as_file(), &[(x, y), (y, x)]).unwrap();
        assert_eq!(std::fs::read_to_string(a.path()).unwrap(), "x\n");
        assert_eq!(std::fs::read_to_string(b.path()).unwrap(), "y\n");
    }

    #[test]
    fn what_cannot_start_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let (orphan, bare) = (file("orphan", "#!/no/such/shell\n"), file("bare", "echo\n"));
        let out = File::create("/dev/null").unwrap();
        let path = [("PATH", "/usr/bin:/bin")];
        let fails = |argv: &[&str], env: &[(&str, &str)], cwd: &str| run(argv, env, cwd, &out, &[]).unwrap_err();
        assert_eq!(fails(&[], &path, "/"), "there is no program to start");
        assert_eq!(fails(&["no-such"], &path, "/"), "`no-such` is not in the PATH of its environment");
        assert_eq!(fails(&["sh"], &[], "/"), "`sh` is not in the PATH of its environment");
        assert!(fails(&["sh"], &path, "/no/where").starts_with("cannot enter /no/where: No such file"));
        assert!(fails(&["/no/where"], &path, "/").starts_with("cannot execute /no/where: No such file"));
        assert!(fails(&[&orphan], &path, "/").contains("interpreter that its first line names"));
        assert!(fails(&[&bare], &path, "/").contains("`#!` line"));
        assert_eq!(fails(&["sh"], &[("PATH", "/bin"), ("KEY", "s\0t")], "/"), "`KEY` holds a NUL character");
        assert!(run(&["sh"], &path, "/", &out, &[(1, 256)]).unwrap_err().contains("256"));
    }
}
