//! What tells that a declared tool is still what it was: the stat of its executable, of the folders it watches, and of its own
//! source tree.
//!
//! Looks at files and never runs any. What a tool *is* (its probes' answers, the content of its source) is asked when the plan
//! is made; this only tells whether it has to be asked again.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::digest::Digest;
use crate::hostile;

/// Entries looked at below a watched folder: of more, no run is planned.
const WATCHED: usize = 300_000;
/// Files of a source tree.
const SOURCES: usize = 50_000;
/// The largest file of a source tree that is read, in bytes; of a larger one the size alone is told.
const LARGEST: u64 = 64 << 20;
/// The largest `.gitignore` of a source tree, in bytes.
const RULES: u64 = 1 << 20;
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

/// What tells that something at or below a watched path changed: inode, size and time of each entry, and of what is behind links.
/// A folder that several links lead to is looked at once, so that a link may lead up.
///
/// # Errors
/// If there are more than 300,000 entries: a change of one that nobody looks at would not be seen.
pub fn stat_below(path: &Path) -> io::Result<String> {
    stats_below(path, WATCHED)
}

fn stats_below(path: &Path, most: usize) -> io::Result<String> {
    let told = |meta: &Metadata| {
        format!("{}:{} {} {}.{:09}", meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec())
    };
    let (mut stats, mut seen) = (Vec::new(), HashSet::new());
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        if stats.len() > most {
            let what =
                format!("it has more than {most} entries, and a change of what is not looked at would not be seen");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            stats.push("gone".to_owned());
            continue;
        };
        let mut stat = told(&meta);
        let behind = if meta.is_symlink() { std::fs::metadata(&path).ok() } else { Some(meta) };
        match &behind {
            Some(behind) => stat.push_str(&told(behind)),
            None => stat.push_str(" to nothing"),
        }
        stats.push(stat);
        let Some(folder) = behind.filter(Metadata::is_dir) else { continue };
        if !seen.insert((folder.dev(), folder.ino())) {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        for entry in entries.flatten().take(most + 2) {
            paths.push(entry.path());
        }
    }
    // By which of two ways a folder was reached first is not told.
    stats.sort_unstable();
    Ok(Digest::of(stats.join("\n").as_bytes()).hex())
}

/// The stat of a source tree's files: changes when one of them changes, not when a program runs out of it.
///
/// # Errors
/// If it is no folder, cannot be read, or has more than 50,000 files.
pub fn source_stat(dir: &Path) -> io::Result<String> {
    let mut text = String::new();
    let stat = |meta: io::Result<Metadata>| match meta {
        Ok(meta) => format!("{} {} {}.{:09}", meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()),
        Err(_) => "gone".into(),
    };
    for file in source_files(dir)? {
        let _ = write!(text, "{}\t{}", file.name, stat(std::fs::symlink_metadata(&file.path)));
        if file.behind {
            let _ = write!(text, " {}", stat(std::fs::metadata(&file.path)));
        }
        text.push('\n');
    }
    Ok(Digest::of(text.as_bytes()).hex())
}

/// A source tree's files, one a line with the digest of its content, sorted by name. Dirty files count like all others; what
/// the tree's own `.gitignore` names does not, nor what interpreters write beside their sources. A link counts by where it leads
/// to, and if that is not in the tree itself, by what is there.
///
/// # Errors
/// As [`source_stat`], or if a file cannot be read.
pub fn source_listing(dir: &Path) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    for SourceEntry { name, path, behind } in source_files(dir)? {
        let content = if path.is_symlink() {
            let link = std::fs::read_link(&path)?;
            let digest =
                if behind { format!(" sha256:{}", Digest::of(&read_behind(&path)?).hex()) } else { String::new() };
            format!("-> {}{digest}", link.display())
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

/// The files of a source tree, without links.
///
/// # Errors
/// As [`source_stat`].
pub fn source_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(source_files(dir)?.into_iter().filter(|file| !file.path.is_symlink()).map(|file| file.path).collect())
}

fn read_behind(link: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    hostile::open_regular(link)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is too large", link.display())));
    }
    Ok(bytes)
}

/// A file of a source tree, or a link in it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SourceEntry {
    name: String,
    path: PathBuf,
    /// Whether it is a link to a file that is not listed itself.
    behind: bool,
}

fn source_files(dir: &Path) -> io::Result<Vec<SourceEntry>> {
    if !dir.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder"));
    }
    let mut sources = Sources::default();
    sources.gather(dir, "")?;
    // A link is followed where what it leads to would not be seen otherwise. Each folder is gone through once.
    while let Some((name, path)) = sources.links.pop_first() {
        let behind = match std::fs::canonicalize(&path) {
            Ok(real) if real.is_dir() && !sources.folders.contains(&real) => {
                sources.gather(&real, &name)?;
                false
            }
            Ok(real) => real.is_file() && !sources.listed.contains(&real),
            Err(_) => false,
        };
        sources.push(SourceEntry { name, path, behind })?;
    }
    sources.files.sort();
    Ok(sources.files)
}

#[derive(Default)]
struct Sources {
    files: Vec<SourceEntry>,
    /// What was listed, and the folders that were gone through, by their real paths.
    listed: HashSet<PathBuf>,
    folders: HashSet<PathBuf>,
    /// Links that were met, by name.
    links: BTreeMap<String, PathBuf>,
}

impl Sources {
    fn push(&mut self, file: SourceEntry) -> io::Result<()> {
        self.files.push(file);
        if self.files.len() + self.links.len() > SOURCES {
            let what = format!("it has more than {SOURCES} files, with those behind its links");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        Ok(())
    }

    fn gather(&mut self, dir: &Path, named: &str) -> io::Result<()> {
        let real = std::fs::canonicalize(dir)?;
        // Only what lies in the tree itself decides: no rule of the user's, of a parent folder or of a clone's own.
        let mut folders = vec![(PathBuf::new(), Vec::<Arc<Gitignore>>::new())];
        while let Some((folder, mut rules)) = folders.pop() {
            rules.extend(rules_in(&dir.join(&folder))?.map(Arc::new));
            self.folders.insert(real.join(&folder));
            for entry in std::fs::read_dir(dir.join(&folder))? {
                let entry = entry?;
                let (kind, path, within) = (entry.file_type()?, entry.path(), folder.join(entry.file_name()));
                let name = entry.file_name().to_string_lossy().into_owned();
                let written = WRITTEN.contains(&name.as_str()) || name.ends_with(".pyc");
                if written || is_ignored(&rules, &path, kind.is_dir()) {
                    continue;
                }
                let name = Path::new(named).join(&within).to_string_lossy().into_owned();
                if kind.is_dir() {
                    folders.push((within, rules.clone()));
                } else if kind.is_file() {
                    self.listed.insert(real.join(&within));
                    self.push(SourceEntry { name, path, behind: false })?;
                } else if kind.is_symlink() {
                    self.links.insert(name, path);
                }
            }
        }
        Ok(())
    }
}

/// The rules of a folder's own `.gitignore`. As git has it, one that is a link has none.
fn rules_in(folder: &Path) -> io::Result<Option<Gitignore>> {
    let path = folder.join(".gitignore");
    if !std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let Some(bytes) = hostile::read_regular(&path, RULES)? else { return Ok(None) };
    let mut rules = GitignoreBuilder::new(folder);
    let text = String::from_utf8_lossy(&bytes);
    for line in text.strip_prefix('\u{feff}').unwrap_or(&text).lines() {
        // A pattern that git would not understand either names nothing.
        let _ = rules.add_line(None, line);
    }
    rules.build().map(Some).map_err(io::Error::other)
}

/// Whether the nearest rule that speaks of a path names it.
fn is_ignored(rules: &[Arc<Gitignore>], path: &Path, is_dir: bool) -> bool {
    let said = rules.iter().rev().map(|rules| rules.matched(path, is_dir)).find(|said| !said.is_none());
    said.is_some_and(|said| said.is_ignore())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_source_tree_are_those_of_git_and_hang_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for name in ["a.log", "keep.log", "build/x.py", "sub/build/y.py", "sub/b.tmp", "sub/deep/c.tmp", "z.py"] {
            write(name, "");
        }
        write(".gitignore", "*.log\n!keep.log\n/build/\n");
        write("sub/.gitignore", "*.tmp\n!/deep/c.tmp\n");
        let names = || -> Vec<String> {
            let files = source_files(dir.path()).unwrap();
            files.into_iter().map(|file| file.name).filter(|name| !name.ends_with(".gitignore")).collect()
        };
        assert_eq!(names(), ["keep.log", "sub/build/y.py", "sub/deep/c.tmp", "z.py"]);
        let rules = dir.path().join("sub/.gitignore");
        std::fs::remove_file(&rules).unwrap();
        nix::unistd::mkfifo(&rules, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let without = ["keep.log", "sub/b.tmp", "sub/build/y.py", "sub/deep/c.tmp", "z.py"];
        assert_eq!(names(), without);
        std::fs::remove_file(&rules).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &rules).unwrap();
        assert_eq!(names(), without);
    }

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

    #[test]
    fn a_change_behind_a_link_of_a_source_tree_is_seen_and_loops_end() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("pkg")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(tree.join("pkg/a.py"), "1").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, tree.join(name)).unwrap();
        link("pkg/a.py", "within");
        link("pkg", "folder");
        link("nowhere", "dangling");
        let plain = "dangling\t-> nowhere\nfolder\t-> pkg\n";
        let listing = |tree: &Path| String::from_utf8(source_listing(tree).unwrap()).unwrap();
        assert!(listing(&tree).starts_with(plain), "{}", listing(&tree));
        assert!(listing(&tree).ends_with("within\t-> pkg/a.py\n"), "what is listed anyway is told once");
        std::fs::write(outside.join("x.py"), "1").unwrap();
        std::fs::write(dir.path().join("one"), "1").unwrap();
        std::os::unix::fs::symlink("../tree", outside.join("back")).unwrap();
        link("../outside", "lib");
        link("../one", "file");
        let (said, stat) = (listing(&tree), source_stat(&tree).unwrap());
        assert!(said.contains("lib/x.py\tsha256:") && said.contains("file\t-> ../one sha256:"), "{said}");
        std::fs::write(outside.join("x.py"), "2").unwrap();
        assert_ne!(listing(&tree), said);
        assert_ne!(source_stat(&tree).unwrap(), stat);
        let said = listing(&tree);
        std::fs::write(dir.path().join("one"), "2").unwrap();
        assert_ne!(listing(&tree), said);
    }

    #[test]
    fn a_watched_path_tells_each_change_below_it_or_that_it_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("w"), dir.path().join("outside"));
        std::fs::create_dir_all(folder.join("a")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        for n in 0..20 {
            std::fs::write(folder.join(format!("a/{n}")), "1").unwrap();
        }
        let seen = || stats_below(&folder, 100).unwrap();
        let mut before = seen();
        let mut changed = |what: &str| {
            assert_ne!(std::mem::replace(&mut before, seen()), seen(), "{what}");
            assert_eq!(seen(), before);
        };
        std::fs::write(folder.join("a/7"), "22").unwrap();
        changed("a file");
        std::fs::remove_file(folder.join("a/7")).unwrap();
        changed("a file that is gone");
        std::fs::write(outside.join("x"), "1").unwrap();
        std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("a/up")).unwrap();
        changed("links");
        std::fs::write(outside.join("x"), "22").unwrap();
        changed("behind a link");
        assert!(stats_below(&folder, 20).unwrap_err().to_string().contains("more than 20 entries"));
        let file = stats_below(&folder.join("a/3"), 1).unwrap();
        std::fs::write(folder.join("a/3"), "22").unwrap();
        assert_ne!(stats_below(&folder.join("a/3"), 1).unwrap(), file, "a watched file");
    }
}
