//! What a run settled, beside its journal: `index/served/RUN`, so that nobody reads a long journal to ask for one action.
//!
//! Derived: believed only as long as the journal has the length that it had, and it only serves explanations. It may be deleted
//! at any time.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::ActionKey;
use crate::names::RunId;
use crate::store::files::write_derived;
use crate::store::{Settled, read_bounded};

/// The longest file that is read, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;
/// How it begins.
const MAGIC: &[u8; 8] = b"flowsrv2";
/// The length of a row, in bytes.
const ROW: usize = 3 * 8 + 32;

fn path(root: &Path, run: &RunId) -> PathBuf {
    root.join("index/served").join(run.as_str())
}

/// The rows, sorted, if they are those of a journal of this length.
pub(super) fn read(root: &Path, run: &RunId, length: u64) -> Option<Vec<Settled>> {
    let bytes = read_bounded(&path(root, run), LARGEST).ok()??;
    let (head, rows) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    let (rows, rest) = rows.as_chunks::<ROW>();
    if u64::from_le_bytes(*head) != length || !rest.is_empty() {
        return None;
    }
    let number = |row: &[u8; ROW], at: usize| {
        row.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let key = ActionKey(Digest::from_bytes(*row.last_chunk::<32>()?));
        found.push(Settled { axes: number(row, 0), step: number(row, 8), bare: number(row, 16), key });
    }
    found.is_sorted().then_some(found)
}

/// Keeps the sorted rows of a journal of this length. Where they cannot be kept, the journal is read again next time.
pub(super) fn write(root: &Path, run: &RunId, length: u64, rows: &[Settled]) {
    let mut bytes = Vec::with_capacity(16 + rows.len() * ROW);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    for row in rows {
        [row.axes, row.step, row.bare].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.extend_from_slice(row.key.0.as_bytes());
    }
    let path = path(root, run);
    let _ = path.parent().map(std::fs::create_dir_all);
    let _ = write_derived(&path, &bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_believed_for_the_journal_that_it_was_made_of_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunId::from("r");
        let row = |(at, text): (usize, &str)| {
            let at = at as u64;
            Settled { axes: at, step: at + 1, bare: at + 2, key: ActionKey(Digest::of(text.as_bytes())) }
        };
        let mut rows: Vec<Settled> = ["a", "b", "c"].into_iter().enumerate().map(row).collect();
        write(dir.path(), &run, 10, &rows);
        assert_eq!(read(dir.path(), &run, 10), Some(rows.clone()));
        assert_eq!(read(dir.path(), &run, 11), None, "the journal has grown");
        let path = path(dir.path(), &run);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(dir.path(), &run, 10), None, "it is torn");
        rows.reverse();
        write(dir.path(), &run, 10, &rows);
        assert_eq!(read(dir.path(), &run, 10), None, "it is in disorder");
    }
}
