//! Which keys a run used, beside its journal: `index/served/RUN`, so that nobody reads a long journal to ask for one of them.
//!
//! Derived: believed only as long as the journal has the length that it had, and it only breaks ties in explanations. It may be
//! deleted at any time.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::ActionKey;
use crate::names::RunId;
use crate::store::files::write_derived;
use crate::store::read_bounded;

/// The longest file that is read, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

fn path(root: &Path, run: &RunId) -> PathBuf {
    root.join("index/served").join(run.as_str())
}

/// The keys, sorted, if they are those of a journal of this length.
pub(super) fn read(root: &Path, run: &RunId, length: u64) -> Option<Vec<ActionKey>> {
    let bytes = read_bounded(&path(root, run), LARGEST).ok()??;
    let (head, keys) = bytes.split_first_chunk::<8>()?;
    let (keys, rest) = keys.as_chunks::<32>();
    (u64::from_le_bytes(*head) == length && rest.is_empty() && keys.is_sorted())
        .then(|| keys.iter().map(|key| ActionKey(Digest::from_bytes(*key))).collect())
}

/// Keeps the sorted keys of a journal of this length. Where they cannot be kept, the journal is read again next time.
pub(super) fn write(root: &Path, run: &RunId, length: u64, keys: &[ActionKey]) {
    let mut bytes = Vec::with_capacity(8 + keys.len() * 32);
    bytes.extend_from_slice(&length.to_le_bytes());
    keys.iter().for_each(|key| bytes.extend_from_slice(key.0.as_bytes()));
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
        let mut keys: Vec<ActionKey> = ["a", "b", "c"].map(|text| ActionKey(Digest::of(text.as_bytes()))).to_vec();
        keys.sort_unstable();
        write(dir.path(), &run, 10, &keys);
        assert_eq!(read(dir.path(), &run, 10), Some(keys.clone()));
        assert_eq!(read(dir.path(), &run, 11), None, "the journal has grown");
        let path = path(dir.path(), &run);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(dir.path(), &run, 10), None, "it is torn");
        keys.reverse();
        write(dir.path(), &run, 10, &keys);
        assert_eq!(read(dir.path(), &run, 10), None, "it is in disorder");
    }
}
