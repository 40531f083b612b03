//! How a checkout writes the files of a project where that is not as the commit holds them: with other ends of lines, with ids.
//!
//! Runs no filter and reads no config. A file of the work tree that git's index says is untouched shows how its path is written,
//! and so every version of it is taken to be.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use git2::{Index, Oid};

use super::objects::private;
use super::project::Project;
use crate::hostile::read_regular;
use crate::names::ObjectId;

/// The largest index that is read, in bytes.
const INDEX: u64 = 256 << 20;
/// The largest file that is looked at, in bytes.
const LARGEST: u64 = 16 << 20;

/// How a checkout changes a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// Lines end in two characters.
    crlf: bool,
    /// `$Id$` is followed by the file's id.
    ident: bool,
}

/// What an index says of files.
pub(super) type Known = HashMap<PathBuf, Entry>;

/// An index's word on a file: what it holds if it was not written since.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    id: Oid,
    size: u32,
    mtime: (i64, u32),
}

/// Reads an index; empty if it cannot be.
pub(super) fn read_index(path: &Path) -> Known {
    let plain = path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= INDEX);
    let Some(index) = plain.then(|| Index::open(path).ok()).flatten() else { return Known::new() };
    let name = |path: Vec<u8>| PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(path));
    let known = index.iter().map(|entry| {
        let mtime = (i64::from(entry.mtime.seconds()), entry.mtime.nanoseconds());
        (name(entry.path), Entry { id: entry.id, size: entry.file_size, mtime })
    });
    known.collect()
}

impl Style {
    /// A file's content as a checkout writes it.
    fn write(self, id: Oid, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((first, more)) = rest.split_first() {
            if self.ident && rest.starts_with(b"$Id$") {
                out.extend(format!("$Id: {id} $").into_bytes());
                rest = &rest[4..];
                continue;
            }
            if self.crlf && *first == b'\n' && out.last() != Some(&b'\r') {
                out.push(b'\r');
            }
            out.push(*first);
            rest = more;
        }
        out
    }
}

impl Project {
    /// A file of a commit as a checkout would write it at a path, which is relative to the project.
    #[must_use]
    pub fn written(&self, path: &Path, file: &ObjectId, bytes: Vec<u8>) -> Vec<u8> {
        match (self.style(path), private(file)) {
            (style, Ok(id)) if style != Style::default() => style.write(id, &bytes),
            _ => bytes,
        }
    }

    /// Whether a file of a commit, written to a path, has this content.
    #[must_use]
    pub fn is_written(&self, path: &Path, file: &ObjectId, here: &[u8]) -> bool {
        let most = here.len() as u64;
        self.style(path) != Style::default()
            && self.content(file, most).is_ok_and(|bytes| self.written(path, file, bytes) == here)
    }

    fn style(&self, path: &Path) -> Style {
        self.styled(path, || self.seen(path).unwrap_or_default())
    }

    /// How the work tree's file is written, if the index says that nobody touched it.
    fn seen(&self, path: &Path) -> Option<Style> {
        let full = self.root().join(path);
        let here = read_regular(&full, LARGEST).ok()??;
        let crlf = here.windows(2).any(|pair| pair == b"\r\n");
        let ident = here.windows(5).any(|part| part == b"$Id: ");
        if !crlf && !ident {
            return None;
        }
        let meta = full.symlink_metadata().ok()?;
        let entry = self.index().get(path)?;
        let untouched = u64::from(entry.size) == meta.len() & u64::from(u32::MAX)
            && entry.mtime.0 == meta.mtime() & i64::from(u32::MAX)
            && (entry.mtime.1 == 0 || i64::from(entry.mtime.1) == meta.mtime_nsec());
        let held = untouched.then(|| self.content(&super::objects::public(entry.id), LARGEST).ok()).flatten()?;
        let styles = [(true, false), (false, true), (true, true)].map(|(crlf, ident)| Style { crlf, ident });
        styles.into_iter().find(|style| held != here && style.write(entry.id, &held) == here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_lines_and_ids_are_written_as_git_writes_them() {
        let id = Oid::from_str("0123456789012345678901234567890123456789").unwrap();
        let both = Style { crlf: true, ident: true };
        assert_eq!(
            both.write(id, b"$Id$\na\r\n"),
            b"$Id: 0123456789012345678901234567890123456789 $\r\na\r\n".to_vec()
        );
        assert_eq!(Style::default().write(id, b"$Id$\n"), b"$Id$\n".to_vec());
    }
}
