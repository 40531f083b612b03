//! What a service prints: the end of it is kept, and looked through for the line by which it says that it is ready.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use regex::bytes::Regex;

/// How much of the end of a service's output is kept, in bytes.
const LOG: usize = 1 << 20;
/// The longest line that is looked at for readiness, in bytes.
const LINE: usize = 16 * 1024;

/// What a service printed.
pub(super) struct Log {
    shared: Arc<Mutex<Printed>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Printed {
    tail: VecDeque<u8>,
    /// Whether there was more before it.
    cut: bool,
    ready: bool,
    over: bool,
}

impl Log {
    /// Reads a pipe to its end, in a thread of its own; ready is whoever prints a line that matches.
    pub(super) fn of(mut pipe: io::PipeReader, pattern: Option<Regex>) -> Self {
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
                printed.cut |= over > 0;
            }
            theirs.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        });
        Self { shared, reader: Some(reader) }
    }

    fn with<T>(&self, look: impl FnOnce(&Printed) -> T) -> T {
        look(&self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether such a line was printed.
    pub(super) fn is_ready(&self) -> bool {
        self.with(|printed| printed.ready)
    }

    /// Waits a little for what the dead have left in the pipe; what they started may hold it open.
    pub(super) fn settle(&mut self) {
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

    /// What is kept of it.
    pub(super) fn text(&self) -> String {
        let (tail, cut) = self.with(|printed| (printed.tail.iter().copied().collect::<Vec<u8>>(), printed.cut));
        // Of a line that is not whole no secret could be told from other text.
        let from = if cut { tail.iter().position(|byte| *byte == b'\n').map_or(tail.len(), |at| at + 1) } else { 0 };
        String::from_utf8_lossy(&tail[from..]).into_owned()
    }

    /// Whether these words are in it.
    pub(super) fn holds(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    /// The last line that is not blank, as it is told behind other words.
    pub(super) fn last(&self) -> String {
        // Whole: it is cut after secrets were taken out of it.
        let text = self.text();
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.map(|line| format!("; its last line: {line}")).unwrap_or_default()
    }
}
