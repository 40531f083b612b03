//! What `flow serve` is told and what it tells: an order and its answer, in a file in memory that only the two have open.
//!
//! Starts nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The descriptor of the file in memory.
pub const SERVE_FD: RawFd = 4;
/// The largest order and the largest answer, in bytes.
const LARGEST: u64 = 64 << 20;

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

/// How long a fixed port is waited for that another attempt's service has.
pub const PORT_WAIT: Duration = Duration::from_secs(600);

/// Why the process was not run, or what it lacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// A service could not be started, or ended before it was ready.
    Startup(String),
    /// A service was not ready in time.
    Late(String),
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
    /// Whether it was stopped because a service had ended.
    pub stopped: bool,
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
        self.0.as_raw_fd()
    }

    /// What was told; nothing where the program died before.
    #[must_use]
    pub fn answer(&mut self) -> Option<Served> {
        serde_json::from_slice(&read_all(&mut self.0).ok()?).ok()
    }
}

/// All that is in the file.
pub(super) fn read_all(file: &mut File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
