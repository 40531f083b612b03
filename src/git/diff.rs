//! flow's own unified diff of a base tree and changes, in git's format, and what can be read off two trees without one.
//!
//! Made in memory: neither the mirror nor an agent's repository is written or asked. Applying a diff is `apply`.

use git2::{Delta, DiffFindOptions, DiffFormat, DiffOptions, ObjectType, Odb, Oid, Repository};

use super::changes::{Blobs, Changes, Entry};
use super::error::GitError;
use super::merge::{content, merge, tree_of};
use super::mirror::{Mirror, forget_user_config};
use super::objects::{Line, private};
use super::path::escape;
use crate::names::ObjectId;

/// A unified diff with full ids, renames and binary hunks, which `git apply` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The diff itself; empty if nothing changed.
    pub bytes: Vec<u8>,
    /// What it does to each file, in its own order.
    pub files: Vec<FileStat>,
}

/// What a diff does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// The file's path after the change, or before it if it is gone; escaped.
    pub path: String,
    /// Lines added; 0 for a binary file.
    pub added: u64,
    /// Lines removed; 0 for a binary file.
    pub removed: u64,
    /// What became of it.
    pub status: FileStatus,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileStatus {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// Its content or its mode changed.
    Modified,
    /// It has another name, and perhaps another content.
    Renamed {
        /// The name it had, escaped.
        from: String,
    },
}

/// A repository that holds nothing on disk but what it reads from `odb`, and keeps in memory what is written to it.
pub(super) fn in_memory(odb: Odb<'static>) -> Result<Repository, GitError> {
    forget_user_config();
    let make = || {
        odb.add_new_mempack_backend(1000)?;
        Repository::from_odb(odb)
    };
    make().map_err(GitError::libgit2("opening a repository in memory"))
}

/// Writes an object unless the database has it: writing one that is there would touch the file that holds it.
pub(super) fn keep(odb: &Odb<'_>, id: Oid, kind: ObjectType, bytes: &[u8]) -> Result<(), GitError> {
    if odb.exists(id) {
        return Ok(());
    }
    odb.write(kind, bytes).map(drop).map_err(GitError::libgit2(format!("keeping {id} in memory")))
}

/// The diff from the tree `base` to base and changes.
///
/// # Errors
/// Missing objects or contents.
pub fn diff(mirror: &Mirror, base: &ObjectId, changes: &Changes, blobs: &dyn Blobs) -> Result<Diff, GitError> {
    if changes.is_empty() {
        return Ok(Diff::default());
    }
    let of = |e: git2::Error| GitError::libgit2(format!("comparing with tree {base}"))(e);
    let old = private(base)?;
    let repository = in_memory(mirror.database()?)?;
    let odb = repository.odb().map_err(of)?;
    for (path, entry) in changes.iter().filter(|(_, entry)| **entry != Entry::Gone) {
        let bytes = content(blobs, path, entry)?;
        keep(&odb, super::objects::blob_id(&bytes)?, ObjectType::Blob, &bytes)?;
    }
    let items = merge(mirror, old, changes)?;
    let new = tree_of(&items, &mut |id, raw| keep(&odb, id, ObjectType::Tree, raw))?;

    let (old, new) = (repository.find_tree(old).map_err(of)?, repository.find_tree(new).map_err(of)?);
    let mut options = DiffOptions::new();
    options.context_lines(3).interhunk_lines(0).id_abbrev(40).show_binary(true).indent_heuristic(true);
    let mut diff = repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options)).map_err(of)?;
    // Renames only: a copy says nothing of who wrote what, and is dear to find. Beyond the limit only equal contents pair.
    let mut find = DiffFindOptions::new();
    find.renames(true).rename_limit(400);
    diff.find_similar(Some(&mut find)).map_err(of)?;

    let mut parts: Vec<(FileStat, Vec<u8>)> = Vec::new();
    let print = diff.print(DiffFormat::Patch, |delta, _, line| {
        let mark = line.origin();
        if mark == 'F' {
            parts.push((stat_of(&delta), Vec::new()));
        }
        let Some((file, bytes)) = parts.last_mut() else { return true };
        match mark {
            // Of a binary file that was only renamed libgit2 prints an empty patch, which `git apply` refuses.
            'B' if delta.old_file().id() == delta.new_file().id() => return true,
            '+' | '-' | ' ' => {
                bytes.push(mark as u8);
                file.added += u64::from(mark == '+');
                file.removed += u64::from(mark == '-');
            }
            _ => {}
        }
        bytes.extend_from_slice(line.content());
        true
    });
    print.map_err(of)?;
    // A file that became a link is one removed and one new: `git apply` wants them in this order, libgit2 gives either.
    parts.sort_by_key(|(file, _)| file.status != FileStatus::Deleted);
    let mut made = Diff::default();
    for (file, bytes) in parts {
        made.bytes.extend_from_slice(&bytes);
        made.files.push(file);
    }
    Ok(made)
}

fn stat_of(delta: &git2::DiffDelta<'_>) -> FileStat {
    let name = |file: git2::DiffFile<'_>| escape(file.path_bytes().unwrap_or_default());
    let (old, new) = (name(delta.old_file()), name(delta.new_file()));
    let (path, status) = match delta.status() {
        Delta::Added => (new, FileStatus::Added),
        Delta::Deleted => (old, FileStatus::Deleted),
        Delta::Renamed => (new, FileStatus::Renamed { from: old }),
        _ => (new, FileStatus::Modified),
    };
    FileStat { path, added: 0, removed: 0, status }
}

/// Whether base and changes differ from the base in nothing but blank space: blank space within lines, and blank lines.
///
/// New, removed and binary files, links and changes of mode are real changes. So is another nesting of lines in a language where
/// indentation is meaning (Python and its kin, YAML, make), for it changes what runs; indenting by another width is not.
/// No change at all is not a change of blank space: the answer is no.
///
/// # Errors
/// Missing objects or contents.
pub fn only_blank_space(
    mirror: &Mirror,
    base: &ObjectId,
    changes: &Changes,
    blobs: &dyn Blobs,
) -> Result<bool, GitError> {
    for (path, entry) in changes.iter() {
        let Entry::File { executable, .. } = entry else { return Ok(false) };
        let Some(line) = find(mirror, private(base)?, path.names())? else { return Ok(false) };
        if !line.is_file() || line.executable() != *executable {
            return Ok(false);
        }
        let (old, new) = (mirror.blob(line.id)?, content(blobs, path, entry)?);
        if is_binary(&old) || is_binary(&new) || !words(&old).eq(words(&new)) {
            return Ok(false);
        }
        let last = path.names().last().unwrap_or_default();
        if indentation_matters(last) && levels(&old) != levels(&new) {
            return Ok(false);
        }
    }
    Ok(!changes.is_empty())
}

/// What a tree has at a path.
pub(super) fn find<'p>(
    mirror: &Mirror,
    root: Oid,
    names: impl Iterator<Item = &'p [u8]>,
) -> Result<Option<Line>, GitError> {
    let mut line = Line { mode: super::objects::TREE, zero: false, id: root };
    for name in names {
        if !line.is_tree() {
            return Ok(None);
        }
        match mirror.tree(line.id)?.into_iter().find(|(n, _)| n == name) {
            Some((_, next)) => line = next,
            None => return Ok(None),
        }
    }
    Ok(Some(line))
}

/// As git decides it: a NUL near the beginning.
fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(8000).any(|b| *b == 0)
}

/// The lines without any blank space, blank ones left out.
fn words(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    bytes
        .split(|b| *b == b'\n')
        .map(|line| line.iter().copied().filter(|b| !is_blank(*b)).collect::<Vec<u8>>())
        .filter(|line| !line.is_empty())
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn indentation_matters(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let dot = name.iter().rposition(|b| *b == b'.').map_or(0, |i| i + 1);
    let end = &name[dot..];
    [&b"py"[..], b"pyi", b"pyx", b"pxd", b"pxi", b"yaml", b"yml", b"mk", b"nim", b"makefile", b"hs", b"coffee"]
        .contains(&end)
}

/// How deep each line that is not blank is nested by its indentation. Tabs reach to the next multiple of eight, as in Python.
fn levels(bytes: &[u8]) -> Vec<usize> {
    let mut open: Vec<usize> = Vec::new();
    let mut levels = Vec::new();
    for line in bytes.split(|b| *b == b'\n').filter(|line| !line.iter().all(|b| is_blank(*b))) {
        let mut width = 0;
        for byte in line {
            match byte {
                b' ' => width += 1,
                b'\t' => width = (width / 8 + 1) * 8,
                0x0c => width = 0,
                _ => break,
            }
        }
        while open.last().is_some_and(|last| *last > width) {
            open.pop();
        }
        if open.last().is_none_or(|last| *last < width) {
            open.push(width);
        }
        levels.push(open.len());
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_width_is_the_same_nesting() {
        assert_eq!(levels(b"a\n  b\n    c\nd\n"), levels(b"a\n\n\tb\n\t\tc\n\nd"));
        assert_ne!(levels(b"for x:\n  b\n  return c\n"), levels(b"for x:\n  b\nreturn c\n"));
        assert!(indentation_matters(b"A.PY") && indentation_matters(b"Makefile") && !indentation_matters(b"a.rs"));
        assert!(words(b"a  b\n\n c\r\n").eq(words(b"ab\nc")));
        assert!(!words(b"ab").eq(words(b"a\nb")));
    }
}
