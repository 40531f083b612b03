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
