//! A repository with a base commit and a human commit, and what must hold of whatever is taken from it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use flow::digest::Digest;
use flow::git::*;

/// Contents in memory.
#[derive(Default)]
pub struct Memory(pub Mutex<HashMap<Digest, Vec<u8>>>);

impl Blobs for Memory {
    fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        self.0.lock().unwrap().insert(Digest::of(bytes), bytes.to_vec());
        Ok(Digest::of(bytes))
    }

    fn get(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(digest).cloned())
    }
}

/// Runs git in `dir` with a fixed identity and nobody's config.
pub fn git(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(git_bytes(dir, args)).unwrap().trim().to_owned()
}

/// The same, for output that is no text.
pub fn git_bytes(dir: &Path, args: &[&str]) -> Vec<u8> {
    let out = Command::new("git")
        .args(args)
        .current_dir(dir)
        .envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_AUTHOR_DATE", "1700000000 +0000"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
            ("GIT_COMMITTER_DATE", "1700000000 +0000"),
        ])
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

pub struct World {
    pub root: tempfile::TempDir,
    pub mirror: Mirror,
    pub at: Resolved,
    pub blobs: Memory,
}

pub const LINES: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";
pub const PYTHON: &str = "def f(x):\n    for i in x:\n        g(i)\n    return x\n";

fn base_files(repo: &Path) {
    for dir in ["src/deep", "sub", "lib"] {
        fs::create_dir_all(repo.join(dir)).unwrap();
    }
    let files: &[(&str, &[u8])] = &[
        ("a.txt", LINES.as_bytes()),
        ("src/m.py", PYTHON.as_bytes()),
        ("src/deep/b.bin", &[0, 1, 2, 255, 0]),
        ("run.sh", b"#!/bin/sh\necho\n"),
        ("sub/x", b"x\n"),
        ("sub/y", b"y\n"),
        ("lib.rs", b"fn a() {}\n"),
        ("lib/z", b""),
        ("no-eol", b"tail"),
        (".gitignore", b"*.log\n/out/\n"),
        ("kept.log", b"tracked although ignored\n"),
    ];
    for (name, bytes) in files {
        fs::write(repo.join(name), bytes).unwrap();
    }
    fs::set_permissions(repo.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a.txt", repo.join("link")).unwrap();
}

pub fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let repo = root.path().join("origin");
    fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q", "-b", "main"]);
    base_files(&repo);
    git(&repo, &["add", "-A", "-f"]);
    git(&repo, &["commit", "-q", "-m", "base of all"]);
    fs::write(repo.join("a.txt"), LINES.replace("five", "FIVE")).unwrap();
    fs::remove_file(repo.join("sub/x")).unwrap();
    fs::write(repo.join("src/new.py"), "print()\n").unwrap();
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "Make it fast\n\nand more"]);
    let human = git(&repo, &["rev-parse", "HEAD"]);
    let mirror = Mirror::open(root.path(), &Source::Local(repo)).unwrap().unwrap();
    let at = mirror.resolve(&human[..8], &BaseRule::Parent(1)).unwrap();
    World { root, mirror, at, blobs: Memory::default() }
}

impl World {
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The base's files with changes in a directory.
    pub fn write(&self, changes: &Changes, dest: &Path) -> Written {
        write_tree(&self.mirror, &self.at.base_tree, changes, &self.blobs, dest, None).unwrap()
    }

    /// The base's files in a fresh directory.
    pub fn tree(&self, name: &str) -> PathBuf {
        let dest = self.path(name);
        self.write(&Changes::default(), &dest);
        dest
    }

    /// The same with a sealed repository in it.
    pub fn sealed(&self, name: &str) -> PathBuf {
        let dest = self.tree(name);
        seal(&self.mirror, &self.at.base_tree, &self.path("packs"), &dest).unwrap();
        dest
    }

    pub fn take(&self, dir: &Path) -> Taken {
        self.try_take(dir, &TakeLimits::default()).unwrap()
    }

    pub fn try_take(&self, dir: &Path, limits: &TakeLimits) -> Result<Taken, TakeError> {
        take(&self.mirror, &self.at.base_tree, dir, &self.blobs, limits, &|_| false)
    }

    pub fn diff(&self, changes: &Changes) -> Diff {
        diff(&self.mirror, &self.at.base_tree, changes, &self.blobs).unwrap()
    }

    /// Changes made by writing some files over the base.
    pub fn with(&self, edits: &[(&str, &str)]) -> Changes {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("t");
        self.write(&Changes::default(), &tree);
        for (name, text) in edits {
            fs::write(tree.join(name), text).unwrap();
        }
        self.take(&tree).changes
    }

    /// What git itself says the tree of a directory is, with every file forced in.
    pub fn git_tree(&self, dir: &Path) -> String {
        let scratch = tempfile::tempdir().unwrap();
        git(scratch.path(), &["init", "-q"]);
        let work = format!("--work-tree={}", dir.display());
        let dot = format!("--git-dir={}/.git", scratch.path().display());
        git(dir, &[&dot, &work, "add", "-A", "-f", "."]);
        git(dir, &[&dot, &work, "write-tree"])
    }

    /// Diff, `git apply --index` in a real clone at the base, and the tree that comes out.
    pub fn applied(&self, changes: &Changes) -> String {
        let made = self.diff(changes);
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["clone", "-q", self.path("origin").to_str().unwrap(), "c"]);
        let clone = dir.path().join("c");
        git(&clone, &["checkout", "-q", self.at.base.as_str()]);
        if !made.bytes.is_empty() {
            let patch = dir.path().join("p");
            fs::write(&patch, &made.bytes).unwrap();
            git(&clone, &["apply", "--index", "--whitespace=nowarn", patch.to_str().unwrap()]);
        }
        git(&clone, &["write-tree"])
    }

    /// All that must hold of whatever was taken: ids agree, the blob reads back, and writing, overlaying, `git apply` and
    /// flow's own apply reproduce the tree.
    pub fn consistent(&self, taken: &Taken) {
        let changes = &taken.changes;
        let tree = taken.tree.as_str();
        assert_eq!(Changes::decode(&changes.encode()).unwrap(), *changes);
        assert_eq!(tree_id(&self.mirror, &self.at.base_tree, changes).unwrap(), taken.tree);
        let dir = tempfile::tempdir().unwrap();
        let [whole, over, patched] = ["whole", "over", "patched"].map(|name| dir.path().join(name));
        self.write(changes, &whole);
        assert_eq!(self.git_tree(&whole), tree, "written");
        self.write(&Changes::default(), &over);
        overlay(changes, &self.blobs, &over).unwrap();
        assert_eq!(self.git_tree(&over), tree, "overlaid");
        assert_eq!(self.take(&over).changes, *changes);
        assert_eq!(self.applied(changes), tree, "applied by git");
        if !changes.is_empty() {
            self.write(&Changes::default(), &patched);
            apply_to_dir(&self.diff(changes).bytes, &patched).unwrap();
            assert_eq!(self.git_tree(&patched), tree, "applied by flow");
        }
    }
}

/// Files below, their lengths and times.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        all.insert(entry.path(), (meta.len(), meta.modified().unwrap()));
        if meta.is_dir() {
            all.extend(snapshot(&entry.path()));
        }
    }
    all
}

pub fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub fn paths(changes: &Changes) -> Vec<String> {
    changes.paths().map(ToString::to_string).collect()
}
