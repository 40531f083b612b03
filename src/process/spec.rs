//! What a supervisor is told: one `Spec`, sent over its stdin as a length and JSON, and never written to a disk.
//!
//! Does not check that the program exists or that the paths can be opened: the supervisor finds that out and says so in its end.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::confine::Confine;

/// The longest spec that a supervisor accepts; argv and environment of an `execve` are far below.
const LONGEST: u32 = 64 << 20;

/// A secret variable of the child: in its environment, and redacted from what is captured of its output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The variable.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// Where a descriptor that the child is to inherit comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A file, made empty and opened for appending by the supervisor.
    Path(PathBuf),
    /// An open descriptor of flow's.
    Fd(RawFd),
}

/// A descriptor that the child gets besides the usual three. What is written to it is neither bounded nor redacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// Its number in the child, 3 to 255.
    pub fd: RawFd,
    /// What it is.
    pub source: Source,
}

/// What a daemon starts for a child, and how it is ended: it is nobody's descendant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// The argv that kills it.
    pub kill: Vec<String>,
    /// The argv that removes it, whether it runs or not.
    pub remove: Vec<String>,
    /// The argv that ends well while it is there.
    pub look: Vec<String>,
}

/// All that a supervisor has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The program and its arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The child's environment, complete but for `secrets` and `FLOW_ATTEMPT`. Of a name given twice the last one holds.
    pub env: Vec<(String, String)>,
    /// What comes on top of `env` and is redacted from the output.
    pub secrets: Vec<Secret>,
    /// The attempt, exported as `FLOW_ATTEMPT`: the mark by which orphans are found.
    pub attempt: String,
    /// Where the child starts.
    pub cwd: PathBuf,
    /// What it reads; nothing if absent.
    pub stdin: Option<PathBuf>,
    /// Where its standard output is kept.
    pub stdout: PathBuf,
    /// Where its standard error is kept.
    pub stderr: PathBuf,
    /// How many bytes of each of the two are kept, counted after redaction. What follows is read, counted and dropped.
    pub output_limit: u64,
    /// Whether a stream beyond the limit ends the child too.
    #[serde(default)]
    pub kill_over_limit: bool,
    /// The time limit.
    pub timeout_ms: Option<u64>,
    /// How long the child may go on between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// Whether to put the child into a control group of its own where that is allowed. It makes killing surer, and may delay the
    /// start by some 10 ms: for agents rather than for measured processes.
    #[serde(default)]
    pub cgroup: bool,
    /// Where the end is written.
    pub end: PathBuf,
    /// Whether the end outlives a crash of the machine. Only one that a later run adopts has to: a flush keeps the disk busy
    /// while the next sample is measured.
    #[serde(default)]
    pub durable: bool,
    /// The locks that the supervisor holds until its own exit, as descriptors. [`Supervised::start`] fills this in.
    ///
    /// [`Supervised::start`]: super::Supervised::start
    #[serde(default)]
    pub inherit: Vec<RawFd>,
    /// Descriptors for the child.
    #[serde(default)]
    pub extra: Vec<Extra>,
    /// The cores that the child and all it starts may use; empty for any.
    #[serde(default)]
    pub cores: Vec<u32>,
    /// A folder that holds secrets: removed when all processes are dead, whether flow lives or not.
    #[serde(default)]
    pub private: Option<PathBuf>,
    /// A folder that is removed before the end is told unless the process ended by itself: whoever reads what it left needs it.
    #[serde(default)]
    pub aside: Option<PathBuf>,
    /// What the child may reach; everything if absent.
    #[serde(default)]
    pub confine: Option<Confine>,
    /// What is removed when the child and all that descends from it are dead, before the end is told.
    #[serde(default)]
    pub removal: Option<Removal>,
}

impl Spec {
    /// The usual grace, in milliseconds.
    pub const GRACE_MS: u64 = 5_000;

    /// Writes the spec as its length in four bytes, little end first, and its JSON.
    ///
    /// # Errors
    /// Writing fails, or the spec is too long or holds a path that is not UTF-8.
    pub fn send(&self, mut to: impl Write) -> io::Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let length = u32::try_from(json.len()).ok().filter(|n| *n <= LONGEST);
        let Some(length) = length else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "argv and environment are larger than 64 MiB"));
        };
        // One write for both: a supervisor that has read the length need not wait for us to be scheduled again.
        let mut frame = Vec::with_capacity(json.len() + 4);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&json);
        to.write_all(&frame)
    }

    /// Reads what [`send`](Self::send) wrote and not one byte more: what follows are commands.
    ///
    /// # Errors
    /// Reading fails, or it is not a spec.
    pub fn receive(mut from: impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the spec is longer than 64 MiB"));
        }
        let mut json = vec![0; length as usize];
        from.read_exact(&mut json)?;
        serde_json::from_slice(&json).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            argv: vec!["true".into()],
            env: vec![("A".into(), "b\n\"".into())],
            secrets: vec![Secret { name: "KEY".into(), value: "hunter2".into() }],
            attempt: "r-1".into(),
            cwd: "/".into(),
            stdin: None,
            stdout: "/o".into(),
            stderr: "/e".into(),
            output_limit: 1,
            kill_over_limit: false,
            timeout_ms: None,
            grace_ms: Spec::GRACE_MS,
            cgroup: true,
            end: "/end.json".into(),
            durable: true,
            inherit: vec![7],
            extra: vec![Extra { fd: 3, source: Source::Path("/x".into()) }],
            cores: vec![0],
            private: None,
            aside: None,
            confine: None,
            removal: None,
        }
    }

    #[test]
    fn a_spec_is_read_back_and_what_follows_stays() {
        let mut wire = Vec::new();
        spec().send(&mut wire).unwrap();
        wire.push(b't');
        let mut from = wire.as_slice();
        assert_eq!(Spec::receive(&mut from).unwrap(), spec());
        assert_eq!(from, b"t");
    }

    #[test]
    fn a_torn_or_absurd_spec_is_an_error() {
        let mut wire = Vec::new();
        spec().send(&mut wire).unwrap();
        for cut in [0, 3, 4, wire.len() - 1] {
            assert!(Spec::receive(&wire[..cut]).is_err());
        }
        assert!(Spec::receive(&[0xff; 16][..]).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", spec());
        assert!(text.contains("KEY") && !text.contains("hunter2"), "{text}");
    }
}
