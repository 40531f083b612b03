//! What tells that a declared tool is still what it was: the stat of its executable, of the folders it watches, and of its own
//! source tree.
//!
//! Looks at files and never runs any. What a tool *is* (its probes' answers, the content of its source) is asked when the plan
//! is made; this only tells whether it has to be asked again.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::digest::Digest;
use crate::hostile;

/// Entries looked at below a watched folder.
const WATCHED: usize = 100_000;
/// Files of a source tree.
const SOURCES: usize = 50_000;
/// The largest file of a source tree that is read, in bytes; of a larger one the size alone is told.
const LARGEST: u64 = 64 << 20;
/// What an interpreter writes beside its sources while it runs.
const WRITTEN: &[&str] = &[".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"];

/// A tool's own source tree, as it was when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFact {
    /// Where it is.
    pub dir: PathBuf,
    /// The listing of its files, each with the digest of its content: the ingredient, as a blob.
    pub listing: Digest,
    /// The stat of its files.
    pub stat: String,
}

/// What tells that a program is no longer what it was: device, inode, size and times of the file behind its links.
#[must_use]
pub fn tool_stat(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(meta) => format!(
            "{}:{} {} {}.{:09} {}.{:09}",
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        ),
        Err(_) => "gone".to_owned(),
    }
}

/// The folders in which the packages of a Python interpreter are: one that is installed, removed or replaced changes them. Nothing
/// for another program.
#[must_use]
pub fn packages(program: &Path) -> Vec<PathBuf> {
    let is_python = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    if !is_python {
        return Vec::new();
    }
    // Of a virtual environment its own, and those of the interpreter behind it.
    let real = std::fs::canonicalize(program).ok();
    let mut prefixes: Vec<&Path> =
        [Some(program), real.as_deref()].into_iter().flatten().filter_map(|path| path.parent()?.parent()).collect();
    prefixes.dedup();
    let mut found = Vec::new();
    for lib in prefixes.iter().flat_map(|prefix| ["lib", "lib64"].map(|lib| prefix.join(lib))) {
        let Ok(entries) = std::fs::read_dir(lib) else { continue };
        let versions = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("python"));
        for version in versions.map(|entry| entry.path()) {
            found.extend(
                ["site-packages", "dist-packages"]
                    .map(|name| version.join(name))
                    .into_iter()
                    .filter(|dir| dir.is_dir()),
            );
        }
    }
    found.sort();
    found
}

/// The newest change below a folder, and how many entries there are: changes when something in it changes.
#[must_use]
pub fn newest_within(folder: &Path) -> String {
    let mut newest = 0;
    let mut seen = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > WATCHED {
                return format!("{newest} more than {WATCHED}");
            }
            let Ok(meta) = entry.metadata() else { continue };
            newest = newest.max(meta.ctime() * 1_000_000_000 + meta.ctime_nsec());
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    format!("{newest} {seen}")
}

/// The stat of a source tree's files: changes when one of them changes, not when a program runs out of it.
///
/// # Errors
/// If it is no folder, cannot be read, or has more than 50,000 files.
pub fn source_stat(dir: &Path) -> io::Result<String> {
    let mut text = String::new();
    for (name, path) in source_files(dir)? {
        let stat = match std::fs::symlink_metadata(&path) {
            Ok(meta) => format!("{} {} {}.{:09}", meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()),
            Err(_) => "gone".into(),
        };
        let _ = writeln!(text, "{name}\t{stat}");
    }
    Ok(Digest::of(text.as_bytes()).hex())
}

/// A source tree's files, one a line with the digest of its content, sorted by name. Dirty files count like all others; what
/// the tree's own `.gitignore` names does not, nor what interpreters write beside their sources.
///
/// # Errors
/// As [`source_stat`], or if a file cannot be read.
pub fn source_listing(dir: &Path) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    for (name, path) in source_files(dir)? {
        let content = if path.is_symlink() {
            format!("-> {}", std::fs::read_link(&path)?.display())
        } else {
            match hostile::read_regular(&path, LARGEST)? {
                Some(bytes) => format!("sha256:{}", Digest::of(&bytes).hex()),
                None => "gone".into(),
            }
        };
        let _ = writeln!(text, "{name}\t{content}");
    }
    Ok(text.into_bytes())
}

fn source_files(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    if !dir.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder"));
    }
    // Only what lies in the tree itself decides: no rule of the user's, of a parent folder or of a clone's own.
    let walk = WalkBuilder::new(dir)
        .hidden(false)
        .ignore(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .follow_links(false)
        .filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            !WRITTEN.contains(&name.as_ref()) && !name.ends_with(".pyc")
        })
        .build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.map_err(io::Error::other)?;
        if entry.file_type().is_some_and(|kind| kind.is_file() || kind.is_symlink()) {
            let name = entry.path().strip_prefix(dir).unwrap_or(entry.path()).to_string_lossy().into_owned();
            files.push((name, entry.into_path()));
        }
        if files.len() > SOURCES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {SOURCES} files")));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_tree_is_its_files_and_not_what_running_it_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pkg/a.py", "1");
        write(".gitignore", "*.log\n");
        let (listing, stat) = (source_listing(dir.path()).unwrap(), source_stat(dir.path()).unwrap());
        write("pkg/__pycache__/a.pyc", "x");
        write("run.log", "x");
        write(".git/index", "x");
        assert_eq!(source_listing(dir.path()).unwrap(), listing);
        assert_eq!(source_stat(dir.path()).unwrap(), stat);
        write("pkg/b.py", "dirty");
        let changed = String::from_utf8(source_listing(dir.path()).unwrap()).unwrap();
        assert!(changed.contains("pkg/b.py\tsha256:"), "{changed}");
        assert_ne!(source_stat(dir.path()).unwrap(), stat);
        assert!(source_listing(&dir.path().join("none")).is_err());
    }
}
