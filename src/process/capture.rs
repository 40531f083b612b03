//! Captured output: what of a child's stream reaches its file, through a filter and up to a limit.
//!
//! Of a stream that is longer than its limit the two ends are kept, with a line between them that says how much is missing:
//! programs say at their end why they ended. Knows no pipe: the supervisor reads, this keeps. `Filter` is all that it knows of
//! secrets; what else counts as one is `redact`'s business.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::spec::Secret;
use crate::redact::{self, Redactor};

/// Under a smaller limit, in bytes, only the head is kept: there would be no room to say what is missing.
const SMALLEST: u64 = 1024;

/// How many bytes of the head are kept under a limit; of a longer stream the rest of the limit is its tail's.
pub(super) fn head_of(limit: u64) -> u64 {
    if limit < SMALLEST { limit } else { limit / 2 }
}

/// The line between head and tail of a stream of `seen` bytes of which `kept` stand before it, so that with the tail behind it
/// `room` bytes are filled. It takes at most 100 bytes.
pub(super) fn gap(seen: u64, kept: u64, room: u64) -> Vec<u8> {
    let line = |left_out: u64| {
        format!("\n[flow: {left_out} bytes of the output were left out here, it is longer than its limit]\n")
            .into_bytes()
    };
    // The longer the line, the shorter the tail, and the more is left out: from the longest line on this comes to rest.
    let mut said = line(seen);
    loop {
        let next = line(seen.saturating_sub(kept).saturating_sub(room.saturating_sub(said.len() as u64)));
        if next.len() >= said.len() {
            return next;
        }
        said = next;
    }
}

/// What takes the secrets out of one stream before its first byte is written.
pub(super) struct Filter(Redactor);

impl Filter {
    /// A filter for these secrets.
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let secrets: Vec<redact::Secret> =
            secrets.iter().map(|s| redact::Secret::new(s.name.clone(), s.value.clone().into_bytes())).collect();
        Self(Redactor::new(&secrets))
    }
}

/// One stream of a child on its way into a file.
pub(super) struct Capture {
    path: PathBuf,
    file: File,
    filter: Option<Redactor>,
    limit: u64,
    passed: Vec<u8>,
    /// What passed the filter and found no room in the head.
    spill: Vec<u8>,
    /// The end of what came once the head was full. It has not been through the filter, which costs more than reading: a flood
    /// is dropped unfiltered, and what is left of it is filtered at its end.
    tail: VecDeque<u8>,
    /// How much of it is held, in bytes: with a filter also what may be the end of a secret whose beginning was dropped.
    hold: usize,
    /// Bytes that left the tail.
    dropped: u64,
    /// Bytes that the child wrote.
    pub(super) seen: u64,
    /// Bytes in the file.
    pub(super) kept: u64,
    /// Whether bytes were left out, once it is finished.
    pub(super) truncated: bool,
    /// What went wrong on our side.
    pub(super) fault: Option<String>,
}

impl Capture {
    /// Makes the file empty. Without a filter the bytes go as they are.
    pub(super) fn create(path: &Path, limit: u64, filter: Option<Filter>) -> Result<Self, String> {
        let file = File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let filter = filter.map(|Filter(redactor)| redactor);
        let margin = filter.as_ref().map_or(0, Redactor::margin);
        let tail = usize::try_from(limit - head_of(limit)).unwrap_or(usize::MAX);
        Ok(Self {
            path: path.to_owned(),
            file,
            filter,
            limit,
            passed: Vec::new(),
            spill: Vec::new(),
            tail: VecDeque::new(),
            hold: if tail == 0 { 0 } else { tail.saturating_add(margin) },
            dropped: 0,
            seen: 0,
            kept: 0,
            truncated: false,
            fault: None,
        })
    }

    /// Takes the next bytes of the stream.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        self.seen += chunk.len() as u64;
        if self.fault.is_some() {
            self.dropped += chunk.len() as u64;
        } else if self.kept >= head_of(self.limit) {
            self.keep_end(chunk);
        } else if let Some(mut filter) = self.filter.take() {
            let mut passed = std::mem::take(&mut self.passed);
            passed.clear();
            filter.push(chunk, &mut passed);
            self.keep_head(&passed);
            self.passed = passed;
            self.filter = Some(filter);
        } else {
            self.keep_head(chunk);
        }
    }

    /// Whether the stream has grown beyond its limit, as far as can be told while it runs.
    pub(super) fn is_over(&self) -> bool {
        self.dropped > 0 || self.kept + self.spill.len() as u64 + self.tail.len() as u64 > self.limit
    }

    /// The stream is over.
    pub(super) fn finish(&mut self) {
        let filter = self.filter.take();
        let tail = Vec::from(std::mem::take(&mut self.tail));
        let mut rest = std::mem::take(&mut self.spill);
        if self.dropped > 0 || self.fault.is_some() {
            rest = match filter {
                Some(filter) => filter.clean_tail(&tail),
                None => tail,
            };
            self.truncated = true;
        } else if let Some(mut filter) = filter {
            filter.push(&tail, &mut rest);
            filter.finish(&mut rest);
        } else {
            rest.extend_from_slice(&tail);
        }
        let room = self.limit - self.kept;
        self.truncated |= rest.len() as u64 > room;
        if !self.truncated {
            self.write(&rest);
        } else if self.limit < SMALLEST {
            self.write(&rest[..rest.len().min(usize::try_from(room).unwrap_or(usize::MAX))]);
        } else {
            let gap = gap(self.seen, self.kept, room);
            let tail = usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(gap.len());
            self.write(&gap);
            self.write(&rest[rest.len().saturating_sub(tail)..]);
        }
    }

    /// Keeps what passed the filter, up to the head's end.
    fn keep_head(&mut self, passed: &[u8]) {
        let room = usize::try_from(head_of(self.limit) - self.kept).unwrap_or(usize::MAX);
        let (head, more) = passed.split_at(room.min(passed.len()));
        self.write(head);
        if self.hold > 0 {
            self.spill.extend_from_slice(more);
        } else {
            self.dropped += more.len() as u64;
        }
    }

    /// Keeps the end of what comes after the head.
    fn keep_end(&mut self, chunk: &[u8]) {
        let over = (self.tail.len() + chunk.len()).saturating_sub(self.hold);
        let old = over.min(self.tail.len());
        self.tail.drain(..old);
        self.tail.extend(&chunk[over - old..]);
        self.dropped += over as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.fault.is_some() {
            return;
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.kept += bytes.len() as u64,
            Err(e) => {
                self.fault = Some(format!("cannot write {}: {e}", self.path.display()));
                self.truncated = true;
                // A failed `write_all` may have written a part.
                self.kept = self.file.metadata().map_or(self.kept, |m| m.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(limit: u64, secret: Option<&str>, pieces: &[&[u8]]) -> (Vec<u8>, Capture) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let filter = secret.map(|value| Filter::new(&[Secret { name: "KEY".into(), value: value.into() }]));
        let mut capture = Capture::create(&path, limit, filter).unwrap();
        pieces.iter().for_each(|piece| capture.take(piece));
        capture.finish();
        (std::fs::read(&path).unwrap(), capture)
    }

    #[test]
    fn a_file_never_grows_beyond_its_limit() {
        for limit in [0, 1, 9, 10, 11] {
            let (bytes, capture) = captured(limit, None, &[b"ab".as_slice(); 5]);
            assert_eq!(bytes.len() as u64, limit.min(10));
            assert_eq!((capture.seen, capture.kept, capture.truncated), (10, limit.min(10), limit < 10));
        }
    }

    #[test]
    fn of_a_long_stream_the_two_ends_are_kept_and_what_is_missing_is_said() {
        let whole: Vec<u8> = (0..100_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        for limit in [1024, 5000, whole.len() as u64 - 1] {
            for size in [1, 700, 64 * 1024] {
                let pieces: Vec<&[u8]> = whole.chunks(size).collect();
                let (bytes, capture) = captured(limit, None, &pieces);
                assert_eq!((bytes.len() as u64, capture.kept, capture.truncated), (limit, limit, true));
                let text = String::from_utf8(bytes).unwrap();
                let (head, rest) = text.split_once("\n[flow: ").unwrap();
                let (said, tail) =
                    rest.split_once(" bytes of the output were left out here, it is longer than its limit]\n").unwrap();
                assert!(whole.starts_with(head.as_bytes()) && whole.ends_with(tail.as_bytes()));
                assert_eq!(head.len() as u64, limit / 2);
                assert_eq!(said.parse::<usize>().unwrap(), whole.len() - head.len() - tail.len());
            }
        }
        let pieces: Vec<&[u8]> = whole.chunks(999).collect();
        let (bytes, capture) = captured(whole.len() as u64, None, &pieces);
        assert!(bytes == whole && !capture.truncated, "what fits is kept as it is");
    }

    #[test]
    fn no_cut_leaves_a_part_of_a_secret() {
        let secret = "hunter2-hunter3-hunter4";
        for shift in 0..60 {
            let whole = format!("{}{}", "x".repeat(shift), secret.repeat(400));
            for size in [1, 7, 1 << 16] {
                let pieces: Vec<&[u8]> = whole.as_bytes().chunks(size).collect();
                for limit in [100, 1024, 2000] {
                    let (bytes, _) = captured(limit, Some(secret), &pieces);
                    let text = String::from_utf8(bytes).unwrap();
                    assert!(
                        !text.contains("unt") && !text.contains("er2") && !text.contains("r4"),
                        "{shift} {size} {text}"
                    );
                }
            }
        }
        let fits = format!("a{secret}b").repeat(90);
        let pieces: Vec<&[u8]> = fits.as_bytes().chunks(5).collect();
        let (bytes, capture) = captured(2000, Some(secret), &pieces);
        assert_eq!(String::from_utf8(bytes).unwrap(), "a[secret KEY]b".repeat(90), "redacted, it fits");
        assert!(!capture.truncated && capture.seen > 2000);
    }
}
