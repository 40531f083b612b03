//! The hosts that a child may reach and no other: doors within a network of its own, behind each of which one host is.
//!
//! Between fork and exec the child opens a listening socket for each host on its own loopback, and one where names are asked
//! for, and passes them to its supervisor: a socket keeps the network in which it was made. What is behind the doors is
//! `relay`. Programs need no settings for it: names lead to the doors, by a `resolv.conf` and a `hosts` of its own.
//!
//! Sockets that lie in files belong to no network: those on which somebody listens when the child starts, and the folders of
//! the usual services, are covered. What is said by an open door is not looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::socket::{self, ControlMessage, ControlMessageOwned, MsgFlags};
use serde::{Deserialize, Serialize};

use super::names::NOWHERE;

/// The port of a host where none is said.
const HTTPS: u16 = 443;
/// Where names are asked for.
pub(super) const NAMES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// A host and a port. In text `name`, which is port 443, or `name:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Host {
    name: String,
    port: u16,
}

/// Why a text names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It stands for many.
    #[error("one name cannot stand for many hosts")]
    Wildcard,
    /// It is more than a host.
    #[error("that is an address of a page, not a host")]
    Page,
    /// It has no such port.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// It is an address of the new kind.
    #[error("an address has to be one of IPv4")]
    Six,
    /// It is an address that nobody has.
    #[error("that address is no host's")]
    Nobody,
    /// It is where names are asked for.
    #[error("names are answered there")]
    Names,
    /// It is no name of a host.
    #[error("that is no name of a host")]
    Name,
}

impl HostError {
    /// What to write instead.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Wildcard => "name each host: network \"api.example.com\" \"files.example.com\"",
            Self::Page => {
                "write the host alone, and its port if that is not 443: \"api.example.com\" or \"127.0.0.1:4000\""
            }
            Self::Port => "write \"api.example.com:8443\"; without a port it is 443",
            Self::Six => "write its name, or its address of IPv4",
            Self::Nobody => "write the address by which it is reached: \"127.0.0.1:4000\"",
            Self::Names => "leave it out: allowed names are known to the agent",
            Self::Name => "write a name such as \"api.example.com\", or an address such as \"127.0.0.1:4000\"",
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text.contains('*') {
            return Err(HostError::Wildcard);
        }
        if text.contains('/') || text.contains('@') {
            return Err(HostError::Page);
        }
        if text.starts_with('[') || text.matches(':').count() > 1 {
            return Err(HostError::Six);
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0).ok_or(HostError::Port)?),
            None => (text, HTTPS),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            if address.octets()[0] == 0 || address.is_multicast() || address.is_broadcast() {
                return Err(HostError::Nobody);
            }
        } else {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            let label = |label: &str| (1..64).contains(&label.len()) && label.chars().all(plain);
            // A last part of digits alone would be read as an address by some.
            let number = name.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
            if name.len() > 253 || number || !name.split('.').all(label) {
                return Err(HostError::Name);
            }
        }
        let host = Self { name, port };
        if host.port == NAMES.port()
            && [host.address(), host.is_localhost().then_some(NAMES.ip())].contains(&Some(NAMES.ip()))
        {
            return Err(HostError::Names);
        }
        Ok(host)
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            HTTPS => f.write_str(&self.name),
            port => write!(f, "{}:{port}", self.name),
        }
    }
}

impl Host {
    /// Its name or its address.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Its address, where it is named by that.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok().map(IpAddr::V4)
    }

    /// Whether it is this machine by name.
    pub(super) fn is_localhost(&self) -> bool {
        self.name == "localhost"
    }
}

/// The only hosts that a child may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Where its `resolv.conf` and `hosts` are written: a folder of its own that the child cannot write to.
    pub dir: PathBuf,
}

/// What an open socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Behind it is a host, by its place in the list.
    Host(usize),
    /// Names are asked for in packets.
    Names,
    /// Names are asked for in a stream.
    NamesByStream,
}

/// A door and its socket, which listens in the child's network.
pub(super) type Opened = (Door, OwnedFd);

/// Sockets in one message: the kernel takes 253.
const AT_ONCE: usize = 128;
/// Numbers for the doors that are no host's.
const BY_PACKET: u16 = u16::MAX;
const BY_STREAM: u16 = u16::MAX - 1;
/// The services of a machine that could reach a network, or start who can, in an agent's place.
const SERVICES: [&str; 12] = [
    "/run/dbus",
    "/run/systemd",
    "/run/user",
    "/run/nscd",
    "/var/run/nscd",
    "/run/avahi-daemon",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/libvirt",
    "/run/lxd",
];
/// Sockets that are covered at most. Beyond them nothing is held.
const SOCKETS: usize = 4096;
/// The largest `hosts` and the largest list of sockets that are read.
const LARGEST: u64 = 16 << 20;

impl Egress {
    /// The address within the child's network of each name that has none by itself.
    pub(super) fn addresses(&self) -> BTreeMap<String, Ipv4Addr> {
        let named = self.hosts.iter().filter(|host| host.address().is_none() && !host.is_localhost());
        let names: BTreeSet<&String> = named.map(|host| &host.name).collect();
        let address = |n: usize| {
            let part = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
            Ipv4Addr::new(127, 83, part(n / 250), part(n % 250 + 1))
        };
        names.into_iter().enumerate().map(|(n, name)| (name.clone(), address(n))).collect()
    }

    /// Where each host is listened for.
    fn doors(&self) -> BTreeMap<SocketAddr, usize> {
        let addresses = self.addresses();
        let mut doors = BTreeMap::new();
        for (n, host) in self.hosts.iter().enumerate() {
            let known = host.address().or_else(|| addresses.get(&host.name).map(|address| IpAddr::V4(*address)));
            let at = match known {
                Some(address) => vec![address],
                None => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
            };
            for address in at {
                doors.entry(SocketAddr::new(address, host.port)).or_insert(n);
            }
        }
        doors
    }

    /// Opens the doors in this process's network, which is its own, and passes them on. For a child before it executes.
    pub(super) fn open(&self, to: RawFd) -> io::Result<()> {
        let mut opened: Vec<(u16, OwnedFd)> =
            vec![(BY_PACKET, UdpSocket::bind(NAMES)?.into()), (BY_STREAM, TcpListener::bind(NAMES)?.into())];
        let mut own = 0;
        for (address, host) in self.doors() {
            if let IpAddr::V4(ip) = address.ip()
                && !ip.is_loopback()
            {
                own += 1;
                take_address(own, ip)?;
            }
            match TcpListener::bind(address) {
                Ok(socket) => opened.push((u16::try_from(host).unwrap_or(BY_STREAM - 1), socket.into())),
                // A kernel without IPv6: nobody can ask for it there either.
                Err(_) if address.is_ipv6() => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{address}: {error}"))),
            }
        }
        for some in opened.chunks(AT_ONCE) {
            let numbers: Vec<u8> = some.iter().flat_map(|(number, _)| number.to_le_bytes()).collect();
            let sockets: Vec<RawFd> = some.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
            let passed = [ControlMessage::ScmRights(&sockets)];
            socket::sendmsg::<()>(to, &[io::IoSlice::new(&numbers)], &passed, MsgFlags::MSG_DONTWAIT, None)?;
        }
        Ok(())
    }

    /// Writes what tells the child where names are asked for; which files of the machine it stands for, with what does.
    pub(super) fn files(&self) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        fs::create_dir_all(&self.dir)?;
        let write = |name: &str, text: String| {
            let path = self.dir.join(name);
            fs::write(&path, text).map(|()| path)
        };
        // The word behind `search` keeps resolvers from trying a name once more in the machine's own domain.
        let resolver = write("resolv.conf", format!("nameserver {}\nsearch {NOWHERE}\n", NAMES.ip()))?;
        let hosts = write("hosts", self.hosts_file(&text_of("/etc/hosts").unwrap_or_default()))?;
        let stands = [("/etc/resolv.conf", resolver), ("/etc/hosts", hosts)];
        Ok(stands.into_iter().filter_map(|(file, ours)| Some((Path::new(file).canonicalize().ok()?, ours))).collect())
    }

    /// A machine's `hosts` with the allowed names, and without others that are elsewhere.
    fn hosts_file(&self, machines: &str) -> String {
        let addresses = self.addresses();
        let mut text: String = addresses.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        for line in machines.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|address| address.parse::<IpAddr>().ok()) else { continue };
            let names: Vec<&str> = words.filter(|name| !addresses.contains_key(&name.to_ascii_lowercase())).collect();
            if address.is_loopback() && !names.is_empty() {
                text.push_str(&format!("{address} {}\n", names.join(" ")));
            }
        }
        if !text.lines().any(|line| line.split(' ').any(|word| word == "localhost")) {
            text.push_str("127.0.0.1 localhost\n");
        }
        text
    }
}

/// What of this machine's services lies in files, to be covered.
pub(super) fn services() -> io::Result<Vec<PathBuf>> {
    let mut found: BTreeSet<PathBuf> =
        SERVICES.iter().filter_map(|path| Path::new(path).canonicalize().ok()).filter(|path| path.is_dir()).collect();
    let list = text_of("/proc/net/unix")?;
    let is_socket = |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket());
    let sockets: BTreeSet<PathBuf> = list
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]))
        .filter_map(|path| Path::new(path).canonicalize().ok())
        .filter(is_socket)
        .collect();
    if sockets.len() > SOCKETS {
        let why = format!("more than {SOCKETS} sockets lie in files of this machine");
        return Err(io::Error::other(why));
    }
    found.extend(sockets);
    Ok(found.into_iter().collect())
}

/// All of a file of the machine's.
fn text_of(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("{path} is too long")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Gives the loopback of this process's network one more address.
fn take_address(number: usize, address: Ipv4Addr) -> io::Result<()> {
    // SAFETY: the requests are locals of the stated type, zeroed and filled in as the kernel wants them.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let set = |what: libc::c_ulong, address: Ipv4Addr| {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(format!("lo:{number}").bytes()) {
                *to = from.cast_signed();
            }
            let mut inner: libc::sockaddr_in = std::mem::zeroed();
            inner.sin_family = libc::AF_INET as libc::sa_family_t;
            inner.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            request.ifr_ifru.ifru_addr = std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(inner);
            match libc::ioctl(socket.as_raw_fd(), what as _, &raw const request) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        set(libc::SIOCSIFADDR, address)?;
        set(libc::SIOCSIFNETMASK, Ipv4Addr::BROADCAST)
    }
}

/// Takes what a child that has executed had passed on.
///
/// # Errors
/// If nothing came.
pub(super) fn receive(from: BorrowedFd<'_>) -> io::Result<Vec<Opened>> {
    let mut opened = Vec::new();
    loop {
        let mut numbers = [0; AT_ONCE * 2];
        let mut space = nix::cmsg_space!([RawFd; AT_ONCE]);
        let mut parts = [io::IoSliceMut::new(&mut numbers)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match socket::recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) if message.bytes > 0 => message,
            Ok(_) | Err(nix::Error::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        };
        let mut sockets: Vec<OwnedFd> = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(passed) = part {
                // SAFETY: just received, and nobody else's.
                sockets.extend(passed.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let doors = numbers.chunks_exact(2).map(|pair| match u16::from_le_bytes([pair[0], pair[1]]) {
            BY_PACKET => Door::Names,
            BY_STREAM => Door::NamesByStream,
            number => Door::Host(number.into()),
        });
        opened.extend(doors.zip(sockets));
    }
    if opened.is_empty() {
        return Err(io::Error::other("the child passed no socket on"));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Egress {
        Egress { hosts: texts.iter().map(|text| text.parse().unwrap()).collect(), dir: PathBuf::new() }
    }

    #[test]
    fn a_host_is_read_and_written_as_people_do() {
        for (text, written) in [
            ("API.example.com.", "api.example.com"),
            ("api.example.com:443", "api.example.com"),
            ("api.example.com:80", "api.example.com:80"),
            ("localhost:4000", "localhost:4000"),
            ("10.0.0.5:8000", "10.0.0.5:8000"),
            ("vllm", "vllm"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), written);
        }
        for (text, error) in [
            ("*.example.com", HostError::Wildcard),
            ("https://api.example.com", HostError::Page),
            ("api.example.com/v1", HostError::Page),
            ("api.example.com:https", HostError::Port),
            ("api.example.com:0", HostError::Port),
            ("[::1]:80", HostError::Six),
            ("0.0.0.0:80", HostError::Nobody),
            ("localhost:53", HostError::Names),
            ("127.0.0.1:53", HostError::Names),
            ("127.1:80", HostError::Name),
            ("", HostError::Name),
            ("a b", HostError::Name),
        ] {
            assert_eq!(text.parse::<Host>(), Err(error), "{text}");
        }
    }

    #[test]
    fn each_name_has_one_address_and_each_port_one_door() {
        let egress =
            hosts(&["b.example", "a.example", "a.example:80", "127.0.0.1:4000", "localhost:4000", "10.0.0.5:1"]);
        let doors: Vec<String> = egress.doors().keys().map(ToString::to_string).collect();
        assert_eq!(
            doors,
            ["10.0.0.5:1", "127.0.0.1:4000", "127.83.0.1:80", "127.83.0.1:443", "127.83.0.2:443", "[::1]:4000",]
        );
    }

    #[test]
    fn a_hosts_file_keeps_what_is_this_machine_and_nothing_else() {
        let machines = "127.0.0.1 localhost vm # me\n10.0.0.9 a.example db\n127.0.1.1 A.example box\n# x\n";
        assert_eq!(
            hosts(&["a.example"]).hosts_file(machines),
            "127.83.0.1 a.example\n127.0.0.1 localhost vm\n127.0.1.1 box\n"
        );
        assert_eq!(hosts(&[]).hosts_file(""), "127.0.0.1 localhost\n");
    }
}
