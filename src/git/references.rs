//! What a project's references name. A reference that cannot be read is said to be that, and not to be none.

use std::path::{Component, Path};

use git2::Oid;

use super::error::GitError;
use super::project::Project;
use crate::hostile::read_regular;
use crate::text::harmless;

/// The largest file of references that is read, in bytes.
pub(super) const REFERENCES: u64 = 64 << 20;
/// References that name each other.
pub(super) const SYMBOLIC: usize = 5;

impl Project {
    pub(super) fn named(&self, name: &str) -> Result<Option<Oid>, GitError> {
        if matches!(name, "" | "@" | "HEAD") {
            return self.reference("HEAD", SYMBOLIC);
        }
        for folder in ["", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"] {
            let full = format!("{folder}{name}");
            if full.starts_with("refs/")
                && let Some(id) = self.reference(&full, SYMBOLIC)?
            {
                return Ok(Some(id));
            }
        }
        let digits = (4..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit());
        if digits { self.mirror.find_commit(name).map(Some) } else { Ok(None) }
    }

    /// What a reference names, with what is wrong where it cannot be told; `None` if there is none of that name.
    pub(super) fn reference(&self, name: &str, depth: usize) -> Result<Option<Oid>, GitError> {
        if depth == 0 {
            return Err(self.unknown("its references name each other in a circle"));
        }
        if !is_plain(name) {
            return Ok(None);
        }
        for folder in [&self.git_dir, &self.common] {
            let path = folder.join(name);
            let bytes = match read_regular(&path, 4096) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                // A folder of other references, or below a reference, which is none.
                Err(_) if name != "HEAD" && path.is_dir() => continue,
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => continue,
                Err(error) => return Err(self.unknown(&format!("{} cannot be read: {error}", harmless(name)))),
            };
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim();
            let Some(target) = text.strip_prefix("ref:") else {
                // An id of another kind of repository must not pass for none.
                let id = Oid::from_str(text).ok().filter(|_| text.len() == 40);
                let id = id.ok_or_else(|| self.unknown("the ids of its commits are not sha1"))?;
                return self.mirror.peel(id).map(Some);
            };
            let target = target.trim();
            if !is_plain(target) {
                return Err(self.unknown(&format!("{} names no reference: {}", harmless(name), harmless(target))));
            }
            return self.reference(target, depth - 1);
        }
        if self.common.join("reftable").is_dir() {
            return Err(self.unknown("its references are kept in a reftable, which flow does not read"));
        }
        let packed = self.common.join("packed-refs");
        let bytes = read_regular(&packed, REFERENCES).map_err(GitError::io(&packed))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let id = text.lines().find_map(|line| {
            let (id, named) = line.split_once(' ')?;
            (named.trim() == name).then(|| Oid::from_str(id).ok())?
        });
        id.map(|id| self.mirror.peel(id)).transpose()
    }
}

/// Whether a name leads nowhere but down.
fn is_plain(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}
