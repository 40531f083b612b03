//! Captured output: what of a child's stream reaches its file, through a filter and up to a limit.
//!
//! Knows no pipe: the supervisor reads, this keeps. `Substrings` is the plain filter; what else counts as a secret is `redact`'s
//! business.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::spec::Secret;
use crate::redact::{self, Redactor};

/// What takes the secrets out of one stream before its first byte is written.
pub(super) struct Filter(Option<Redactor>);

impl Filter {
    /// A filter for these secrets.
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let secrets: Vec<redact::Secret> =
            secrets.iter().map(|s| redact::Secret::new(s.name.clone(), s.value.clone().into_bytes())).collect();
        Self(Some(Redactor::new(&secrets)))
    }

    /// Takes the next piece; what may be written is appended to `out`. A piece may end in the middle of a secret.
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if let Some(redactor) = &mut self.0 {
            redactor.push(chunk, out);
        }
    }

    /// The stream is over: appends what was held back.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(redactor) = self.0.take() {
            redactor.finish(out);
        }
    }
}

/// One stream of a child on its way into a file.
pub(super) struct Capture {
    path: PathBuf,
    file: File,
    filter: Option<Filter>,
    limit: u64,
    passed: Vec<u8>,
    /// Bytes that the child wrote.
    pub(super) seen: u64,
    /// Bytes in the file.
    pub(super) kept: u64,
    /// Whether bytes were dropped.
    pub(super) truncated: bool,
    /// What went wrong on our side.
    pub(super) fault: Option<String>,
}

impl Capture {
    /// Makes the file empty. Without a filter the bytes go as they are.
    pub(super) fn create(path: &Path, limit: u64, filter: Option<Filter>) -> Result<Self, String> {
        let file = File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let path = path.to_owned();
        Ok(Self { path, file, filter, limit, passed: Vec::new(), seen: 0, kept: 0, truncated: false, fault: None })
    }

    /// Takes the next bytes of the stream.
    pub(super) fn take(&mut self, chunk: &[u8]) {
        self.seen += chunk.len() as u64;
        // Beyond the limit nothing is looked at any more: a flood must cost no more than its reading.
        if self.kept >= self.limit || self.fault.is_some() {
            self.truncated |= !chunk.is_empty();
            return;
        }
        if let Some(mut filter) = self.filter.take() {
            let mut passed = std::mem::take(&mut self.passed);
            passed.clear();
            filter.push(chunk, &mut passed);
            self.keep(&passed);
            self.passed = passed;
            self.filter = Some(filter);
        } else {
            self.keep(chunk);
        }
    }

    /// The stream is over.
    pub(super) fn finish(&mut self) {
        if let Some(mut filter) = self.filter.take() {
            let mut rest = Vec::new();
            filter.finish(&mut rest);
            self.keep(&rest);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.limit - self.kept).unwrap_or(usize::MAX);
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.truncated |= kept.len() < bytes.len();
        if kept.is_empty() || self.fault.is_some() {
            return;
        }
        match self.file.write_all(kept) {
            Ok(()) => self.kept += kept.len() as u64,
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

    #[test]
    fn a_file_never_grows_beyond_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        for limit in [0, 1, 9, 10, 11] {
            let path = dir.path().join("out");
            let mut capture = Capture::create(&path, limit, None).unwrap();
            (0..5).for_each(|_| capture.take(b"ab"));
            capture.finish();
            assert_eq!(std::fs::read(&path).unwrap().len() as u64, limit.min(10));
            assert_eq!((capture.seen, capture.kept, capture.truncated), (10, limit.min(10), limit < 10));
        }
    }
}
