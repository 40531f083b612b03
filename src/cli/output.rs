//! Printing: a reader that went away ends the printing and nothing else, and lines are as wide as who reads them.

use std::io::{self, Write};

use serde::Serialize;
use terminal_size::{Height, Width, terminal_size_of};

use crate::cli::fault::Fault;
use crate::redact::Redactor;

/// The widest a table gets.
const WIDEST: usize = 120;
/// The width where nobody says one.
const USUAL: usize = 100;

/// Prints data to standard output.
///
/// # Errors
/// If it cannot be written for another reason than that the reader went away.
pub fn data(bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
    match write(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
        _ => Ok(()),
    }
}

/// Prints data of which nothing may be a secret, nor look like a key.
///
/// # Errors
/// As [`data`].
pub fn cleaned(redactor: &Redactor, text: String) -> Result<(), Fault> {
    data(redactor.shown(text.as_bytes()))
}

/// Writes to standard output, to its end.
///
/// # Errors
/// Whatever the system says, also that the reader went away.
pub fn write(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.as_ref()).and_then(|()| out.flush())
}

/// That standard output takes nothing more.
#[must_use]
pub fn unwritable(error: &io::Error) -> Fault {
    Fault::hint(
        3,
        format!("cannot write to standard output: {error}"),
        "what was printed is not whole; what the store holds is: the same command prints it again",
    )
}

/// Prints a line to standard error. That nobody reads it must not end a run, as `eprintln` would.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// How many columns standard output has: `COLUMNS`, else those of its terminal up to 120, else 100.
#[must_use]
pub fn width() -> usize {
    width_of(terminal_size_of(io::stdout()))
}

/// The same for standard error.
#[must_use]
pub fn width_of_messages() -> usize {
    width_of(terminal_size_of(io::stderr()))
}

fn width_of(terminal: Option<(Width, Height)>) -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = said.or(terminal.map(|(Width(columns), _)| usize::from(columns))).unwrap_or(USUAL);
    width.clamp(40, WIDEST)
}

/// Prints a document as one line of JSON.
///
/// # Errors
/// If it cannot be written.
pub fn json(document: &impl Serialize) -> Result<(), Fault> {
    let mut line = serde_json::to_string(document).map_err(|error| Fault::new(3, error.to_string()))?;
    line.push('\n');
    data(line)
}
