//! `flow serve`: runs the services of one measured process and that process itself, as one child of one supervisor.
//!
//! They so share sandbox, network, cores and limit of life: what ends the child ends them all. In this order: each service is
//! started on a free port and waited for, the process runs, everything is killed. How it went is told through a file in memory
//! that nothing but flow and this program has open; the services' own output is told there too and never touches the disk raw.
//!
//! Knows the words of its order and nothing of tests, arms and metrics.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::bytes::Regex;

use super::order::{Client, Order, PORT_WAIT, Ready, SERVE_FD, Served, Serving, Trouble, hole, read_all};
use super::service_log::Log;
use super::system::{close_on_exec, millis};
use super::table;

/// The descriptor by which the process marks its window. Services do not get it.
const MARK: RawFd = 3;
/// On how many ports a service is tried.
const PORTS: u32 = 3;
/// How long the process may go on without its service.
const ALONE: Duration = Duration::from_secs(5);
/// How long an answer may take that says whether a service is ready.
const ANSWER: Duration = Duration::from_secs(2);
/// How long everything may take to die.
const DEATH: Duration = Duration::from_secs(10);
/// Variables of the process that no service gets: where its result goes is no business of theirs.
const OWN: [&str; 5] = ["FLOW_RESULT", "FLOW_VALUES", "FLOW_MARK", "FLOW_MODE", "FLOW_REFERENCE"];

/// The whole of `flow serve`. Its code is that of the process, 125 where that was not run or did not end by itself.
#[must_use]
pub fn serve_main() -> ExitCode {
    close_on_exec(MARK);
    close_on_exec(SERVE_FD);
    // What a service leaves behind is ours to kill, and none of it may look into what we have open.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let _ = nix::sys::prctl::set_dumpable(false);
    // SAFETY: at the start of this program the descriptor is its own, and nothing else in it uses it.
    let mut slip = File::from(unsafe { OwnedFd::from_raw_fd(SERVE_FD) });
    let Some(order) = read_all(&mut slip).ok().and_then(|bytes| serde_json::from_slice::<Order>(&bytes).ok()) else {
        return ExitCode::from(2);
    };
    let mut all = All { running: Vec::new(), served: Served::default(), ports: BTreeMap::new(), own: Vec::new() };
    all.serve(&order);
    sweep();
    for one in &all.running {
        all.served.logs.insert(one.name.clone(), one.log.text());
    }
    let told = serde_json::to_vec(&all.served).map_err(io::Error::from).and_then(|bytes| {
        slip.set_len(0)?;
        slip.seek(SeekFrom::Start(0))?;
        slip.write_all(&bytes)
    });
    let code = all.served.client.and_then(|client| client.code).and_then(|code| u8::try_from(code).ok());
    ExitCode::from(if told.is_ok() { code.unwrap_or(125) } else { 2 })
}

/// A service that was started.
struct Running {
    name: String,
    child: Child,
    log: Log,
}

impl Running {
    /// How it ended, if it did, with its last line.
    fn ended(&mut self) -> Option<String> {
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.log.settle();
        Some(format!("({status}){}", self.log.last()))
    }
}

struct All {
    running: Vec<Running>,
    served: Served,
    ports: BTreeMap<String, u16>,
    /// The fixed ports that are this attempt's, until it ends.
    own: Vec<UnixListener>,
}

impl All {
    fn serve(&mut self, order: &Order) {
        for service in &order.services {
            // As soon as it is found a port is free for anybody, also for the next service.
            let other = || (0..16).map(|_| free_port()).find(|port| port.as_ref().is_ok_and(|port| !self.has(*port)));
            match service.port.map(Ok).or_else(other) {
                Some(Ok(port)) => drop(self.ports.insert(service.name.clone(), port)),
                _ => return self.fails(Trouble::PortTaken("no port of this machine is free".to_owned())),
            }
        }
        for service in &order.services {
            if let Err(trouble) = self.bring_up(service) {
                return self.fails(trouble);
            }
        }
        if let Err(error) = self.run(order) {
            let program = order.argv.first().map_or("", String::as_str);
            self.fails(Trouble::NotStarted(format!("cannot start {program}: {error}")));
        }
    }

    fn has(&self, port: u16) -> bool {
        self.ports.values().any(|known| *known == port)
    }

    fn fails(&mut self, trouble: Trouble) {
        self.served.trouble = Some(trouble);
    }

    fn filled(&self, argv: &[String]) -> Vec<String> {
        let fill = |word: &String| {
            self.ports.iter().fold(word.clone(), |word, (name, port)| word.replace(&hole(name), &port.to_string()))
        };
        argv.iter().map(fill).collect()
    }

    /// Starts a service and waits until it is ready; on another port where it ended because somebody else took its own.
    fn bring_up(&mut self, service: &Serving) -> Result<(), Trouble> {
        let name = &service.name;
        if let Some(port) = service.port {
            self.own.extend(alone_on(port).map_err(|why| Trouble::PortTaken(format!("service `{name}`: {why}")))?);
        }
        let until = Instant::now() + Duration::from_millis(service.limit_ms);
        for tried in 1.. {
            let port = self.ports.get(name).copied().unwrap_or_default();
            if taken(port) {
                if service.port.is_some() || tried >= PORTS {
                    return Err(self.held(name, port, ""));
                }
                self.ports.extend(free_port().map(|port| (name.clone(), port)));
                continue;
            }
            let mut running = self.start(service, port)?;
            let ready = wait_until_ready(&mut running, service, port, until);
            let complains = running.log.holds("ddress already in use");
            self.running.retain(|other| other.name != *name);
            self.running.push(running);
            let Err(why) = ready else { return Ok(()) };
            // What listens there now is no service of ours only after that is dead, and all that it started.
            if let Some(running) = self.running.last_mut() {
                stop(&mut running.child);
                running.log.settle();
            }
            if complains && service.port.is_none() && tried < PORTS {
                self.ports.extend(free_port().map(|port| (name.clone(), port)));
                continue;
            }
            let last = self.running.last().map(|running| running.log.last()).unwrap_or_default();
            return Err(match why {
                NotReady::Ended(how) if complains && taken(port) => self.held(name, port, &how),
                NotReady::Ended(how) => Trouble::Startup(format!("service `{name}` ended before it was ready {how}")),
                NotReady::Late => Trouble::Late(format!(
                    "service `{name}` was not ready ({}) within {:.1} s{last}",
                    service.ready,
                    Duration::from_millis(service.limit_ms).as_secs_f64()
                )),
            });
        }
        Ok(())
    }

    /// What it means that a port is taken of which a service is to be had no more: what the services themselves left listening there
    /// is no stranger, whoever it was given to.
    fn held(&self, name: &str, port: u16, how: &str) -> Trouble {
        sweep();
        let how = if how.is_empty() { String::new() } else { format!(" {how}") };
        match taken(port) {
            true => Trouble::PortTaken(format!("service `{name}`: somebody else listens on port {port}{how}")),
            false => Trouble::Startup(format!(
                "service `{name}` ended before it was ready: what listened on port {port} was a process of a service{how}"
            )),
        }
    }

    fn start(&self, service: &Serving, port: u16) -> Result<Running, Trouble> {
        let argv = self.filled(&service.argv);
        let name = service.name.clone();
        let fails = |error: &dyn std::fmt::Display| {
            let program = argv.first().map_or("", String::as_str);
            Trouble::Startup(format!("service `{}`: cannot start {program}: {error}", service.name))
        };
        let pattern = match &service.ready {
            Ready::Line(pattern) => Some(Regex::new(pattern).map_err(|error| fails(&error))?),
            Ready::Port | Ready::Url(_) => None,
        };
        let [program, arguments @ ..] = argv.as_slice() else { return Err(fails(&"there is no program")) };
        let (reader, writer) = io::pipe().map_err(|error| fails(&error))?;
        let second = writer.try_clone().map_err(|error| fails(&error))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
        command.env("FLOW_SERVICE_PORT", port.to_string());
        for own in OWN {
            command.env_remove(own);
        }
        let child = command.spawn().map_err(|error| fails(&error))?;
        // With the command its copies of the pipe's other end are gone.
        drop(command);
        Ok(Running { name, child, log: Log::of(reader, pattern) })
    }

    /// Runs the process to its end or its limit.
    fn run(&mut self, order: &Order) -> io::Result<()> {
        let argv = self.filled(&order.argv);
        let [program, arguments @ ..] = argv.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(port) = order.services.first().and_then(|first| self.ports.get(&first.name)) {
            command.env("FLOW_SERVICE_PORT", port.to_string());
        }
        // SAFETY: clears a flag; a number that is no descriptor is an error we do not mind.
        unsafe { libc::fcntl(MARK, libc::F_SETFD, 0) };
        let mut client = command.spawn()?;
        let started = Instant::now();
        let pid = client.id();
        let (tell, told) = channel();
        // The end is waited for, not looked for: whoever looks often is measured too.
        std::thread::spawn(move || {
            let status = client.wait();
            tell.send((status, Instant::now()))
        });
        let limit = order.limit_ms.map(|limit| started + Duration::from_millis(limit));
        let (mut timed_out, mut stopped, mut alone) = (false, false, None);
        let (status, over) = loop {
            match told.recv_timeout(Duration::from_millis(100)) {
                Ok(ended) => break ended,
                Err(RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if alone.is_none()
                && let Some(trouble) = self.died()
            {
                self.fails(trouble);
                alone = Some(now + ALONE);
            }
            timed_out |= limit.is_some_and(|limit| now >= limit);
            stopped |= alone.is_some_and(|until| now >= until);
            if timed_out || stopped {
                kill_one(pid);
            }
        };
        if alone.is_none()
            && let Some(trouble) = self.died()
        {
            self.fails(trouble);
        }
        let status = status?;
        self.served.client = Some(Client {
            code: status.code(),
            signal: status.signal(),
            timed_out,
            stopped,
            wall_ms: millis(over - started),
        });
        Ok(())
    }

    /// The first service that has ended.
    fn died(&mut self) -> Option<Trouble> {
        self.running.iter_mut().find_map(|one| {
            let how = one.ended()?;
            Some(Trouble::Died(format!("service `{}` ended while the test ran {how}", one.name)))
        })
    }
}

enum NotReady {
    Ended(String),
    Late,
}

fn wait_until_ready(running: &mut Running, service: &Serving, port: u16, until: Instant) -> Result<(), NotReady> {
    let mut pause = Duration::from_millis(5);
    loop {
        let ready = match &service.ready {
            Ready::Port => TcpStream::connect_timeout(&local(port), Duration::from_secs(1)).is_ok(),
            Ready::Url(path) => answers(port, path, until).unwrap_or(false),
            Ready::Line(_) => running.log.is_ready(),
        };
        // Looked at last: what answered may have been somebody else, and this one dead of that.
        if let Some(how) = running.ended() {
            return Err(NotReady::Ended(how));
        }
        if ready {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(NotReady::Late);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Whether a path answers with 200 to 299, before a point in time and within [`ANSWER`], however slowly its words come.
fn answers(port: u16, path: &str, until: Instant) -> io::Result<bool> {
    let until = until.min(Instant::now() + ANSWER);
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&local(port), left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0; 12];
    let mut there = 0;
    while there < head.len() {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut head[there..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => there += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    left()?;
    Ok(head.starts_with(b"HTTP/1.") && head[8] == b' ' && head[9] == b'2')
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(local(0))?.local_addr()?.port())
}

/// Waits until no other attempt has a service on a fixed port, and keeps others from it. Where attempts share a network two servers
/// may listen on one port at once, and each be asked what is the other's. The name is one of this network alone, as the port is, and
/// goes with its process. Nothing where the system has no such names.
fn alone_on(port: u16) -> Result<Option<UnixListener>, String> {
    let Ok(name) = std::os::unix::net::SocketAddr::from_abstract_name(format!("flow-port-{port}")) else {
        return Ok(None);
    };
    let until = Instant::now() + PORT_WAIT;
    loop {
        match UnixListener::bind_addr(&name) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(format!("another attempt has had a service on port {port} for ten minutes"));
            }
            // A kernel that refuses it holds attempts apart by other means, or by none.
            Err(_) => return Ok(None),
        }
    }
}

/// Whether somebody listens on a port.
fn taken(port: u16) -> bool {
    matches!(TcpListener::bind(local(port)), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

fn kill_one(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Kills a service, with its group and all that descends from it.
fn stop(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let below = table::scan().map(|table| table::descendants(&table, &[pid], None)).unwrap_or_default();
        let _ = nix::sys::signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
        below.iter().for_each(table::Process::kill);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Kills all that is left, and waits until it is gone. What does not die is the supervisor's.
fn sweep() {
    let Ok(me) = i32::try_from(std::process::id()) else { return };
    let until = Instant::now() + DEATH;
    while Instant::now() < until {
        let Ok(table) = table::scan() else { return };
        table::descendants(&table, &[me], None).iter().for_each(table::Process::kill);
        let mut status = 0;
        loop {
            // SAFETY: writes to a local.
            match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
                0 => break,
                pid if pid > 0 => {}
                _ => return,
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_port_is_one_attempts_at_a_time() {
        let port = free_port().unwrap();
        let first = alone_on(port).unwrap();
        let (told, hears) = channel();
        let second = std::thread::spawn(move || {
            let own = alone_on(port).unwrap();
            told.send(()).unwrap();
            own.is_some()
        });
        assert!(hears.recv_timeout(Duration::from_millis(300)).is_err(), "the first has it");
        drop(first);
        hears.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(second.join().unwrap());
    }
}
