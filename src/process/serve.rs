//! `flow serve`: runs the services of one measured process and that process itself, as one child of one supervisor.
//!
//! They so share sandbox, network, cores and limit of life: what ends the child ends them all. In this order: each service is
//! started on a free port and waited for, the process runs, everything is killed. How it went is told through a file in memory
//! that nothing but flow and this program has open; the services' own output is told there too and never touches the disk raw.
//!
//! Knows the words of its order and nothing of tests, arms and metrics.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use super::system::{close_on_exec, millis};
use super::table;

/// The descriptor of the file in memory.
pub const SERVE_FD: RawFd = 4;
/// The descriptor by which the process marks its window. Services do not get it.
const MARK: RawFd = 3;
/// How much of the end of a service's output is kept, in bytes.
const LOG: usize = 1 << 20;
/// The longest line that is looked at for readiness, in bytes.
const LINE: usize = 16 * 1024;
/// The largest order and the largest answer, in bytes.
const LARGEST: u64 = 64 << 20;
/// On how many ports a service is tried.
const PORTS: u32 = 3;
/// How long the process may go on without its service.
const ALONE: Duration = Duration::from_secs(5);
/// How long everything may take to die.
const DEATH: Duration = Duration::from_secs(10);
/// Variables of the process that no service gets: where its result goes is no business of theirs.
const OWN: [&str; 5] = ["FLOW_RESULT", "FLOW_VALUES", "FLOW_MARK", "FLOW_MODE", "FLOW_REFERENCE"];

/// By what a service shows that it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// Its port can be connected to.
    Port,
    /// This path answers an HTTP request with 200 to 299.
    Url(String),
    /// A line of its output matches this regular expression.
    Line(String),
}

impl std::fmt::Display for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port => f.write_str("port"),
            Self::Url(path) => write!(f, "url={path}"),
            Self::Line(pattern) => write!(f, "line={pattern}"),
        }
    }
}

/// A service to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Serving {
    /// Its name.
    pub name: String,
    /// Its program and arguments, with [`hole`]s for ports.
    pub argv: Vec<String>,
    /// The port that it has; a free one is chosen where there is none.
    pub port: Option<u16>,
    /// When it is ready.
    pub ready: Ready,
    /// How long that may take, in milliseconds.
    pub limit_ms: u64,
}

/// What `flow serve` is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The services, in the order of their start.
    pub services: Vec<Serving>,
    /// The process that uses them: its program and arguments, with [`hole`]s for ports.
    pub argv: Vec<String>,
    /// How long that may run, in milliseconds.
    pub limit_ms: Option<u64>,
}

/// Why the process was not run, or what it lacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// A service could not be started, was not ready in time, or ended before it was.
    Startup(String),
    /// Somebody else has the port.
    PortTaken(String),
    /// The process could not be started.
    NotStarted(String),
    /// A service ended while the process ran.
    Died(String),
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it reached its limit.
    pub timed_out: bool,
    /// How long it ran, in milliseconds.
    pub wall_ms: u64,
}

/// What `flow serve` tells.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Served {
    /// How the process ended, if it was started.
    pub client: Option<Client>,
    /// What went wrong with the services.
    pub trouble: Option<Trouble>,
    /// The end of each service's output, not redacted.
    pub logs: BTreeMap<String, String>,
}

/// What stands in an argument for the port of a service.
#[must_use]
pub fn hole(service: &str) -> String {
    format!("\u{1}{service}\u{1}")
}

/// The file in memory through which an order goes and its answer comes.
#[derive(Debug)]
pub struct Slip(File);

impl Slip {
    /// With an order in it.
    ///
    /// # Errors
    /// If the system has no room for it.
    pub fn new(order: &Order) -> io::Result<Self> {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let mut file = File::from(nix::sys::memfd::memfd_create(c"flow-serve", flags)?);
        file.write_all(&serde_json::to_vec(order)?)?;
        Ok(Self(file))
    }

    /// The descriptor to pass as [`SERVE_FD`].
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        use std::os::fd::AsRawFd;
        self.0.as_raw_fd()
    }

    /// What was told; nothing where the program died before.
    #[must_use]
    pub fn answer(&mut self) -> Option<Served> {
        serde_json::from_slice(&read_all(&mut self.0).ok()?).ok()
    }
}

fn read_all(file: &mut File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

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
    let mut all = All { running: Vec::new(), served: Served::default(), ports: BTreeMap::new() };
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
}

impl All {
    fn serve(&mut self, order: &Order) {
        for service in &order.services {
            match service.port.map_or_else(free_port, Ok) {
                Ok(port) => drop(self.ports.insert(service.name.clone(), port)),
                Err(error) => {
                    return self.fails(Trouble::PortTaken(format!("no port of this machine is free: {error}")));
                }
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
        let until = Instant::now() + Duration::from_millis(service.limit_ms);
        let name = &service.name;
        for tried in 1.. {
            let port = self.ports.get(name).copied().unwrap_or_default();
            if taken(port) {
                if service.port.is_some() || tried >= PORTS {
                    let text = format!("service `{name}`: somebody else listens on port {port}");
                    return Err(Trouble::PortTaken(text));
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
                NotReady::Ended(how) if complains && taken(port) => {
                    Trouble::PortTaken(format!("service `{name}`: somebody else listens on port {port} {how}"))
                }
                NotReady::Ended(how) => Trouble::Startup(format!("service `{name}` ended before it was ready {how}")),
                NotReady::Late => Trouble::Startup(format!(
                    "service `{name}` was not ready ({}) within {:.1} s{last}",
                    service.ready,
                    Duration::from_millis(service.limit_ms).as_secs_f64()
                )),
            });
        }
        Ok(())
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
        let (mut timed_out, mut alone) = (false, None);
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
            if timed_out || alone.is_some_and(|until| now >= until) {
                kill_one(pid);
            }
        };
        if alone.is_none()
            && let Some(trouble) = self.died()
        {
            self.fails(trouble);
        }
        let status = status?;
        self.served.client =
            Some(Client { code: status.code(), signal: status.signal(), timed_out, wall_ms: millis(over - started) });
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
            Ready::Url(path) => answers(port, path).unwrap_or(false),
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

/// Whether a path answers with 200 to 299.
fn answers(port: u16, path: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&local(port), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.starts_with(b"HTTP/1.") && head[8] == b' ' && head[9] == b'2')
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(local(0))?.local_addr()?.port())
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

/// What a service printed.
struct Log {
    shared: Arc<Mutex<Printed>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Printed {
    tail: VecDeque<u8>,
    ready: bool,
    over: bool,
}

impl Log {
    fn of(mut pipe: io::PipeReader, pattern: Option<Regex>) -> Self {
        let shared = Arc::new(Mutex::new(Printed::default()));
        let theirs = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            let (mut buffer, mut line) = (vec![0; 64 * 1024], Vec::new());
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let mut found = false;
                if let Some(pattern) = &pattern {
                    for byte in &buffer[..n] {
                        match byte {
                            b'\n' | b'\r' => {
                                found |= pattern.is_match(&line);
                                line.clear();
                            }
                            byte if line.len() < LINE => line.push(*byte),
                            _ => {}
                        }
                    }
                    // A prompt has no end of line.
                    found |= pattern.is_match(&line);
                }
                let mut printed = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                printed.ready |= found;
                printed.tail.extend(&buffer[..n]);
                let over = printed.tail.len().saturating_sub(LOG);
                printed.tail.drain(..over);
            }
            theirs.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        });
        Self { shared, reader: Some(reader) }
    }

    fn with<T>(&self, look: impl FnOnce(&Printed) -> T) -> T {
        look(&self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_ready(&self) -> bool {
        self.with(|printed| printed.ready)
    }

    /// Waits a little for what the dead have left in the pipe; what they started may hold it open.
    fn settle(&mut self) {
        let until = Instant::now() + Duration::from_millis(200);
        while !self.with(|printed| printed.over) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.with(|printed| printed.over)
            && let Some(reader) = self.reader.take()
        {
            let _ = reader.join();
        }
    }

    fn text(&self) -> String {
        self.with(|printed| String::from_utf8_lossy(&printed.tail.iter().copied().collect::<Vec<u8>>()).into_owned())
    }

    fn holds(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    /// The last line that is not blank, as it is told behind other words.
    fn last(&self) -> String {
        let text = self.text();
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.map(|line| format!("; its last line: {}", line.chars().take(300).collect::<String>())).unwrap_or_default()
    }
}
