//! The older name of a file: git keeps none, so it is told from what is gone and what is alike.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use git2::Oid;

use super::error::GitError;
use super::objects::{private, public};
use super::project::{Held, Project};
use crate::names::ObjectId;

/// Files that may have been the old name of one.
const RENAMES: usize = 200;
/// The largest file that is compared to find its old name, in bytes.
const COMPARED: u64 = 1 << 20;
/// How much of a renamed file must be the same.
const SIMILAR: f32 = 0.5;
/// Folders within each other that are looked into.
const DEEP: usize = 40;

impl Project {
    /// The name that a file of `new`, which `old` does not have, had in `old`: that of a file which is gone in `new` and has the
    /// same content, or else the most similar one of the same ending.
    ///
    /// # Errors
    /// If an object cannot be read.
    pub fn old_name(&self, old: &ObjectId, new: &ObjectId, path: &Path) -> Result<Option<PathBuf>, GitError> {
        let Held::File(file) = self.at(new, path, &mut |_| {})? else { return Ok(None) };
        let mut gone = Vec::new();
        self.gone(private(old)?, Some(private(new)?), Path::new(""), &mut gone)?;
        let wanted = private(&file)?;
        if let Some((same, _)) = gone.iter().find(|(_, id)| *id == wanted) {
            return Ok(Some(same.clone()));
        }
        gone.retain(|(name, _)| name.extension() == path.extension());
        gone.truncate(RENAMES);
        let text = String::from_utf8_lossy(&self.content(&file, COMPARED)?).into_owned();
        let mut best: Option<(f32, PathBuf)> = None;
        for (name, id) in gone {
            let Ok(bytes) = self.content(&public(id), COMPARED) else { continue };
            let other = String::from_utf8_lossy(&bytes).into_owned();
            let ratio = similar::TextDiff::from_lines(other.as_str(), text.as_str()).ratio();
            if ratio >= SIMILAR && best.as_ref().is_none_or(|(most, _)| ratio > *most) {
                best = Some((ratio, name));
            }
        }
        Ok(best.map(|(_, name)| name))
    }

    /// The files of a tree that another one has not, or only as something else.
    fn gone(&self, old: Oid, new: Option<Oid>, at: &Path, out: &mut Vec<(PathBuf, Oid)>) -> Result<(), GitError> {
        if Some(old) == new || out.len() >= 50 * RENAMES || at.components().count() > DEEP {
            return Ok(());
        }
        let there = new.map(|new| self.tree(new)).transpose()?;
        for (name, line) in self.tree(old)?.iter() {
            let other = there.as_ref().and_then(|there| there.iter().find(|(known, _)| known == name));
            let path = at.join(OsStr::from_bytes(name));
            if line.is_tree() {
                let other = other.filter(|(_, other)| other.is_tree()).map(|(_, other)| other.id);
                self.gone(line.id, other, &path, out)?;
            } else if line.is_file() && other.is_none() {
                out.push((path, line.id));
            }
        }
        Ok(())
    }
}
