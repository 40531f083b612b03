//! What one process of a measurement may not change for the next: the trees, the script, and the caches that are kept.
//!
//! Tested code runs as the user that flow runs as, and could reach the other tree, the script, or leave in its own tree an
//! answer for the next process. Every process of a test is dead before this looks, so that what it sees stays so. It does not
//! hinder: it notices. What it cannot notice is an answer hidden in the byte-code caches that a tree's first process leaves.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::measure::Arm;

/// The most entries of a tree that are looked at.
const MOST: usize = 2_000_000;

/// Length, mode, inode and both times of an entry. The change time cannot be set by its owner.
type Stat = (u64, u32, u64, (i64, i64), (i64, i64));

/// What there is in a folder.
type Print = BTreeMap<PathBuf, Stat>;

/// What a process changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// Nothing that the next one could notice.
    Nothing,
    /// Its own tree: it has to be written anew.
    OwnTree,
    /// What is not its own: in words.
    Others(String),
}

/// How everything stood after it was written, or after a tree's own first process.
pub(super) struct Pristine {
    trees: Vec<Tree>,
    script: Option<(PathBuf, Option<Stat>)>,
    /// The caches that are kept of each arm.
    kept: BTreeMap<Arm, (PathBuf, Print)>,
}

struct Tree {
    arm: Arm,
    dir: PathBuf,
    print: Print,
    used: bool,
}

impl Pristine {
    /// Looks at what has just been written.
    pub(super) fn of(trees: &[(Arm, PathBuf)], script: Option<&Path>) -> io::Result<Self> {
        let trees =
            trees.iter().map(|(arm, dir)| Ok(Tree { arm: *arm, dir: dir.clone(), print: print(dir)?, used: false }));
        Ok(Self {
            trees: trees.collect::<io::Result<_>>()?,
            script: script.map(|path| (path.to_owned(), path.symlink_metadata().ok().map(|meta| stat(&meta)))),
            kept: BTreeMap::new(),
        })
    }

    /// Looks at the caches that have just been kept of an arm.
    pub(super) fn keep(&mut self, arm: Arm, dir: PathBuf) -> io::Result<()> {
        let print = print(&dir)?;
        self.kept.insert(arm, (dir, print));
        Ok(())
    }

    /// Looks at what a process of an arm left.
    pub(super) fn after(&mut self, arm: Arm) -> io::Result<Touched> {
        if let Some((path, before)) = &self.script
            && path.symlink_metadata().ok().map(|meta| stat(&meta)) != *before
        {
            return Ok(Touched::Others("the test script".into()));
        }
        for tree in self.trees.iter().filter(|tree| tree.arm != arm) {
            if print(&tree.dir).ok().as_ref() != Some(&tree.print) {
                return Ok(Touched::Others(format!("the {} tree", tree.arm)));
            }
        }
        for (of, (dir, kept)) in &self.kept {
            if print(dir).ok().as_ref() != Some(kept) {
                return Ok(Touched::Others(format!("the caches that are kept of the {of} tree")));
            }
        }
        let Some(tree) = self.trees.iter_mut().find(|tree| tree.arm == arm) else { return Ok(Touched::Nothing) };
        // A tree that cannot be looked at any more was taken away by its own process.
        let Ok(now) = print(&tree.dir) else { return Ok(Touched::OwnTree) };
        let caches_only = only_caches(&tree.print, &now);
        let first = !std::mem::replace(&mut tree.used, true);
        if now == tree.print {
            return Ok(Touched::Nothing);
        }
        if first && caches_only {
            // Byte code of the tree's own sources, written by its own process: as good as the sources.
            tree.print = now;
            return Ok(Touched::Nothing);
        }
        Ok(Touched::OwnTree)
    }

    /// A tree was written anew.
    pub(super) fn renew(&mut self, arm: Arm) -> io::Result<()> {
        for tree in self.trees.iter_mut().filter(|tree| tree.arm == arm) {
            tree.print = print(&tree.dir)?;
            tree.used = false;
        }
        Ok(())
    }
}

/// Whether two prints differ in byte-code caches alone, and in the folders that hold them.
fn only_caches(before: &Print, now: &Print) -> bool {
    let cache = |path: &Path| path.components().any(|part| part.as_os_str() == "__pycache__");
    let differs = before.keys().chain(now.keys()).filter(|path| before.get(*path) != now.get(*path));
    differs.into_iter().all(|path| {
        let folder =
            before.contains_key(path) && now.get(path).is_some_and(|stat| stat.1 & libc::S_IFMT == libc::S_IFDIR);
        cache(path) || folder
    })
}

fn stat(meta: &std::fs::Metadata) -> Stat {
    (meta.len(), meta.mode(), meta.ino(), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()))
}

fn print(dir: &Path) -> io::Result<Print> {
    let mut print = Print::new();
    let mut folders = vec![dir.to_owned()];
    print.insert(PathBuf::new(), stat(&dir.symlink_metadata()?));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            }
            let path = entry.path();
            print.insert(path.strip_prefix(dir).unwrap_or(&path).to_owned(), stat(&meta));
            if print.len() > MOST {
                return Err(io::Error::other(format!("more than {MOST} files in {}", dir.display())));
            }
        }
    }
    Ok(print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_processs_own_caches_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for tree in [&a, &b] {
            std::fs::create_dir_all(tree.join("pkg")).unwrap();
            std::fs::write(tree.join("pkg/x.py"), "1").unwrap();
        }
        let script = dir.path().join("t.py");
        std::fs::write(&script, "").unwrap();
        let trees = [(Arm::Base, a.clone()), (Arm::Patched, b.clone())];
        let mut pristine = Pristine::of(&trees, Some(&script)).unwrap();
        std::fs::create_dir(b.join("pkg/__pycache__")).unwrap();
        std::fs::write(b.join("pkg/__pycache__/x.pyc"), "2").unwrap();
        assert_eq!(pristine.after(Arm::Patched).unwrap(), Touched::Nothing);
        std::fs::write(b.join("memo"), "3").unwrap();
        assert_eq!(pristine.after(Arm::Patched).unwrap(), Touched::OwnTree);
        std::fs::remove_file(b.join("memo")).unwrap();
        pristine.renew(Arm::Patched).unwrap();
        std::fs::write(a.join("pkg/x.py"), "4").unwrap();
        assert!(matches!(pristine.after(Arm::Patched).unwrap(), Touched::Others(_)));
        pristine.renew(Arm::Base).unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        pristine.keep(Arm::Base, kept.clone()).unwrap();
        assert_eq!(pristine.after(Arm::Patched).unwrap(), Touched::Nothing);
        std::fs::write(kept.join("memo"), "5").unwrap();
        assert!(matches!(pristine.after(Arm::Patched).unwrap(), Touched::Others(_)));
        pristine.keep(Arm::Base, kept).unwrap();
        std::fs::write(&script, "5").unwrap();
        assert!(matches!(pristine.after(Arm::Base).unwrap(), Touched::Others(_)));
    }
}
