//! What a child may reach, held by the kernel: mounts, devices and a network of its own, entered between fork and exec.
//!
//! The disk is read-only to the child but for the folders it is given; what it must not see is an empty folder to it; its
//! `/dev` holds what every program needs, and the accelerators only where it holds one; without a network it has a loopback of
//! its own, and in it the doors to the hosts that it may reach (`egress`). Root loses the capabilities by which all this could
//! be undone. An ordinary user needs user namespaces for it.
//!
//! What cannot be held is said, never silent. Not held at all: other processes can be counted, and memory, processor and disk
//! space are not limited.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::egress::{self, Egress, Host};
use super::mounts::{clone_of, mount, put, read_only, tmpfs};
use super::{apart, families};

/// How it is said that the kernel did not hold what it was asked for.
const REFUSED: &str = "the kernel refused: ";

/// What is asked of the kernel for one child.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confine {
    /// Which files it may reach; all of them if absent.
    pub files: Option<Files>,
    /// Whether it has a network of its own in which nobody else is.
    pub offline: bool,
    /// The hosts that it may reach from a network of its own, in which they alone are. It needs `files`.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Whether it is not to start where one of these cannot be held.
    pub required: bool,
    /// What is not asked for, and why: for the record.
    pub open: BTreeMap<Part, String>,
}

/// The files of a child.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// What it sees though it lies in something hidden.
    pub see: Vec<PathBuf>,
    /// What it may write to, and sees.
    pub write: Vec<PathBuf>,
    /// Folders and files that are empty to it.
    pub hide: Vec<PathBuf>,
    /// Files of this machine, and those that stand for them.
    #[serde(default)]
    pub stands: Vec<(PathBuf, PathBuf)>,
    /// What stands for `/tmp` and `/var/tmp`, where nothing that it needs lies there.
    pub tmp: Option<PathBuf>,
    /// Whether it gets the accelerators of this machine.
    pub devices: bool,
    /// Whether the services of this machine that lie in files are hidden from it, as they are where it has hosts.
    #[serde(default)]
    pub unserved: bool,
}

/// What can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It writes only where it may, and what is hidden it cannot read.
    Files,
    /// It reaches only the devices that it may.
    Devices,
    /// It reaches no network, or only the hosts that it may.
    Network,
    /// It neither reads nor signals the processes of others.
    Processes,
}

impl Part {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Devices => "devices",
            Self::Network => "network",
            Self::Processes => "processes",
        }
    }
}

/// What was held of a child, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// What the kernel held.
    pub held: Vec<Part>,
    /// The container engine that held it, where that was not flow itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The hosts that it could reach all the same, and no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// What it did not, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub open: BTreeMap<Part, String>,
}

impl Sandbox {
    /// Whether a part was held.
    #[must_use]
    pub fn holds(&self, part: Part) -> bool {
        self.held.contains(&part)
    }

    /// Whether a part was asked for, and the kernel refused it.
    #[must_use]
    pub fn refused(&self, part: Part) -> bool {
        self.open.get(&part).is_some_and(|why| why.starts_with(REFUSED))
    }

    /// What holds of this one and of another.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.held.retain(|part| other.holds(*part));
        // One engine runs all of an attempt; where some of it ran without, that is the weaker word.
        self.by = self.by.filter(|by| other.by.as_ref() == Some(by));
        for (part, why) in &other.open {
            self.open.entry(*part).or_insert_with(|| why.clone());
        }
        self
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let held: Vec<&str> = self.held.iter().map(|part| part.word()).collect();
        let by = self.by.as_ref().map(|engine| format!("container:{engine}: ")).unwrap_or_default();
        let held = if held.is_empty() { "nothing held".to_owned() } else { format!("{} held", held.join(", ")) };
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        let hosts = (!hosts.is_empty()).then(|| format!("; network only to {}", hosts.join(", ")));
        let open = self.open.iter().map(|(part, why)| format!("; {} open: {why}", part.word()));
        std::iter::once(format!("{by}{held}")).chain(hosts).chain(open).collect()
    }
}

impl Confine {
    /// What is held where all of this was entered.
    pub(super) fn sandbox(&self) -> Sandbox {
        let mut held = Vec::new();
        if self.files.is_some() {
            held.extend([Part::Files, Part::Devices]);
        }
        if self.has_own_network() {
            held.push(Part::Network);
        }
        let hosts = self.egress.as_ref().map(|egress| egress.hosts.clone()).unwrap_or_default();
        let mut open = self.open.clone();
        // Nobody is refused for it, `require` or not: most kernels in use are older.
        match apart::lacking() {
            _ if self.files.is_none() => {}
            None => held.push(Part::Processes),
            Some(why) => drop(open.insert(Part::Processes, why.to_owned())),
        }
        Sandbox { held, by: None, hosts, open }
    }

    fn has_own_network(&self) -> bool {
        self.offline || self.egress.is_some()
    }

    /// The same with all that its hosts ask of its files. For who starts it: a network of its own shows less.
    pub(super) fn ready(&self) -> Result<Self, (Part, io::Error)> {
        let mut ready = self.clone();
        if let (Some(egress), Some(files)) = (&self.egress, &mut ready.files) {
            let of = |error| (Part::Network, error);
            files.stands.extend(egress.files().map_err(of)?);
            files.hide.extend(egress::services().map_err(of)?);
        } else if let Some(files) = ready.files.as_mut().filter(|files| files.unserved) {
            // Where they cannot be told, its network is none the less its own.
            files.hide.extend(egress::services().unwrap_or_default());
        }
        Ok(ready)
    }

    /// The same without what the kernel refused.
    pub(super) fn without(mut self, part: Part, why: &io::Error) -> Self {
        let why = format!("{REFUSED}{why}");
        if part == Part::Network {
            self.offline = false;
            self.egress = None;
        } else {
            self.files = None;
            self.open.insert(Part::Devices, why.clone());
            if self.egress.take().is_some() {
                self.open.insert(Part::Network, why.clone());
            }
        }
        self.open.insert(part, why);
        self
    }

    /// Whether nothing is asked of the kernel.
    pub(super) fn is_idle(&self) -> bool {
        self.files.is_none() && !self.has_own_network()
    }

    /// Enters it: to be called by a process that has one thread and memory of its own, before it executes its program. The
    /// doors to its hosts are passed on over `doors`.
    ///
    /// # Errors
    /// What could not be entered, and why. The process is of no use then: it may have entered a part.
    pub(super) fn enter(&self, doors: RawFd) -> Result<(), (Part, io::Error)> {
        let of = |part: Part| move |error: io::Error| (part, error);
        let mut flags = 0;
        if self.files.is_some() {
            flags |= libc::CLONE_NEWNS;
        }
        let first = if self.files.is_some() { Part::Files } else { Part::Network };
        if self.has_own_network() && self.files.is_none() {
            flags |= libc::CLONE_NEWNET;
        }
        namespaces(flags).map_err(of(first))?;
        if self.has_own_network() && self.files.is_some() {
            namespaces(libc::CLONE_NEWNET).map_err(of(Part::Network))?;
        }
        if self.has_own_network() {
            loopback().map_err(of(Part::Network))?;
        }
        if let Some(egress) = &self.egress {
            egress.open(doors).map_err(of(Part::Network))?;
        }
        // Shared memory by number, by which one process could leave an answer for the next. Where refused, it is as before.
        let _ = namespaces(libc::CLONE_NEWIPC);
        if let Some(files) = &self.files {
            files.enter().map_err(of(Part::Files))?;
        }
        renounce().map_err(of(first))?;
        if self.files.is_some() {
            apart::enter().map_err(of(Part::Files))?;
        }
        match self.egress {
            Some(_) => families::only_held().map_err(of(Part::Network)),
            None => Ok(()),
        }
    }
}

/// New namespaces, in a new user namespace where this user may not make them otherwise.
fn namespaces(flags: i32) -> io::Result<()> {
    // SAFETY: a plain system call.
    if unsafe { libc::unshare(flags) } == 0 {
        return Ok(());
    }
    let refused = io::Error::last_os_error();
    if refused.raw_os_error() != Some(libc::EPERM) {
        return Err(refused);
    }
    // SAFETY: plain system calls.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: a plain system call.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Sets the loopback of a new network up.
fn loopback() -> io::Result<()> {
    // SAFETY: the request is a local of the stated type, zeroed and named as the kernel wants it.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The capabilities by which root could undo a mount, trace others, load code into the kernel or read past permissions.
const RENOUNCED: [u32; 18] = [2, 9, 12, 13, 16, 17, 18, 19, 21, 22, 25, 27, 32, 33, 34, 38, 39, 40];

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives these up for good, for itself and for all it executes.
fn renounce() -> io::Result<()> {
    // Version 3: two words of 32 capabilities each.
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: plain system calls on locals of the layout that the kernel documents.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) != 0
        {
            return Err(io::Error::last_os_error());
        }
        for cap in RENOUNCED {
            // Refused to who has none to lose.
            libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0);
            let (word, bit) = ((cap / 32) as usize, 1_u32 << (cap % 32));
            data[word].effective &= !bit;
            data[word].permitted &= !bit;
            data[word].inheritable &= !bit;
        }
        match libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// What every program may need of `/dev`.
const DEVICES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts"];
/// How the names of accelerators begin there.
const ACCELERATORS: [&str; 5] = ["nvidia", "dri", "kfd", "infiniband", "accel"];
/// Links that programs expect there.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

impl Files {
    fn enter(&self) -> io::Result<()> {
        let none = None::<&Path>;
        mount(none, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)?;
        // All is held by descriptors before anything is covered.
        let (see, write) = (clones_of(&self.see)?, clones_of(&self.write)?);
        let tmp = self.tmp.as_deref().map(clone_of).transpose()?;
        let var_tmp = self.tmp.as_deref().map(clone_of).transpose()?;
        let devices = self.devices()?;
        let stands = self.stands.iter().map(|(file, ours)| Ok((file, clone_of(ours)?)));
        let stands = stands.collect::<io::Result<Vec<_>>>()?;
        for path in &self.hide {
            match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => {
                    tmpfs(path, "mode=0755,size=1m")?;
                    let hidden = |inner: &&(&PathBuf, OwnedFd)| inner.0.starts_with(path);
                    for (inner, fd) in see.iter().filter(hidden) {
                        place_for(inner, fd)?;
                        put(fd, inner)?;
                    }
                    let shown = |inner: &Path| self.see.iter().any(|seen| inner.starts_with(seen));
                    for (inner, fd) in write.iter().filter(hidden).filter(|(inner, _)| !shown(inner)) {
                        place_for(inner, fd)?;
                    }
                }
                // A socket, too: who connects to what lies there now hears that nobody listens.
                Ok(meta) if meta.is_file() || meta.file_type().is_socket() => {
                    mount(Some(Path::new("/dev/null")), path, None, libc::MS_BIND)?
                }
                _ => {}
            }
        }
        for (file, ours) in &stands {
            if !file.exists() {
                place_for(file, ours)?;
            }
            put(ours, file)?;
        }
        read_only()?;
        if let (Some(tmp), Some(var_tmp)) = (tmp, var_tmp) {
            put(&tmp, Path::new("/tmp"))?;
            // Absent on some machines.
            let _ = put(&var_tmp, Path::new("/var/tmp"));
        }
        let dev = Path::new("/dev");
        tmpfs(dev, "mode=0755,size=50%")?;
        for (name, fd) in &devices {
            let path = dev.join(name);
            place_for(&path, fd)?;
            put(fd, &path)?;
        }
        for (name, target) in LINKS {
            symlink(target, dev.join(name))?;
        }
        if !devices.iter().any(|(name, _)| name == "ptmx") {
            symlink("pts/ptmx", dev.join("ptmx"))?;
        }
        let shm = dev.join("shm");
        fs::create_dir(&shm)?;
        fs::set_permissions(&shm, fs::Permissions::from_mode(0o1777))?;
        for (path, fd) in &write {
            if path.starts_with(dev) {
                place_for(path, fd)?;
            }
            put(fd, path)?;
        }
        Ok(())
    }

    /// What its `/dev` has, each held.
    fn devices(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let mut names: Vec<String> = DEVICES.iter().map(ToString::to_string).collect();
        if self.devices {
            for entry in fs::read_dir("/dev")? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if ACCELERATORS.iter().any(|start| name.starts_with(start)) {
                    names.push(name);
                }
            }
        }
        let held = names.into_iter().filter_map(|name| {
            let path = Path::new("/dev").join(&name);
            let meta = path.symlink_metadata().ok()?;
            let usable = meta.is_dir() || meta.file_type().is_char_device();
            Some((name, clone_of(&path).ok().filter(|_| usable)?))
        });
        Ok(held.collect())
    }
}

/// Those of some paths; what is not there is left out.
fn clones_of(paths: &[PathBuf]) -> io::Result<Vec<(&PathBuf, OwnedFd)>> {
    let held = paths.iter().map(|path| clone_of(path).map(|fd| (path, fd)));
    held.filter(|held| !matches!(held, Err(error) if error.kind() == io::ErrorKind::NotFound)).collect()
}

/// Makes a file or a folder on which a mount can be put.
fn place_for(path: &Path, fd: &OwnedFd) -> io::Result<()> {
    let of = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if fs::metadata(of)?.is_dir() {
        return fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(path).map(drop)
}
