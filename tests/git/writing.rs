//! Trees as files, and sealed repositories.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use flow::git::*;
use flow::names::ObjectId;

use crate::world::*;

#[test]
fn a_tree_is_written_as_git_has_it_and_again_from_the_cache() {
    let w = world();
    let cache = w.path("blobs");
    fs::write(w.path("origin/large"), vec![b'z'; 5000]).unwrap();
    git(&w.path("origin"), &["add", "large"]);
    let tree = ObjectId::new(git(&w.path("origin"), &["write-tree"]));
    let none = Changes::default();
    let mut said = Vec::new();
    for name in ["one", "two", "three"] {
        let dest = w.path(name);
        said.push(write_tree(&w.mirror, &tree, &none, &w.blobs, &dest, Some(&cache)).unwrap());
        assert_eq!(w.git_tree(&dest), tree.as_str());
        if name == "two" {
            // A torn file of the cache is a miss.
            let hex = git(&w.path("origin"), &["rev-parse", ":large"]);
            fs::write(cache.join(&hex[..2]).join(&hex[2..]), "torn").unwrap();
        }
    }
    assert!(said[0].files > 10 && said.iter().all(|s| *s == said[0]));
    let full = write_tree(&w.mirror, &tree, &none, &w.blobs, &w.path("one"), None).unwrap_err();
    assert!(matches!(full, GitError::NotEmpty { .. }), "{full}");
}

#[test]
fn pointers_of_lfs_are_named() {
    let w = world();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    fs::write(w.path("origin/big.bin"), pointer).unwrap();
    git(&w.path("origin"), &["add", "big.bin"]);
    let tree = ObjectId::new(git(&w.path("origin"), &["write-tree"]));
    for name in ["one", "two"] {
        let cache = w.path("cache");
        let said = write_tree(&w.mirror, &tree, &Changes::default(), &w.blobs, &w.path(name), Some(&cache)).unwrap();
        assert_eq!(said.lfs, [path("big.bin")]);
    }
}

#[test]
fn hostile_trees_are_not_written() {
    let w = world();
    let repo = w.path("origin");
    let blob = git(&repo, &["hash-object", "-w", "a.txt"]);
    let raw = |mode: &str, name: &str, id: &str| {
        let mut bytes = format!("{mode} {name}\0").into_bytes();
        bytes.extend((0..20).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()));
        bytes
    };
    let store = |bytes: &[u8]| {
        let file = w.path("raw");
        fs::write(&file, bytes).unwrap();
        git(&repo, &["hash-object", "-t", "tree", "-w", "--literally", file.to_str().unwrap()])
    };
    for name in ["..", ".git", ".GIT", "a/../../x", "git~1"] {
        let tree = ObjectId::new(store(&raw("100644", name, &blob)));
        let dest = w.path("h");
        let end = write_tree(&w.mirror, &tree, &Changes::default(), &w.blobs, &dest, None).unwrap_err();
        assert!(matches!(end, GitError::Hostile { .. }), "{name}: {end}");
        assert!(!w.path("x").exists());
    }
    // A link and, under the same name, a directory: what would write through the link.
    let link = git(&repo, &["rev-parse", "HEAD:link"]);
    let inner = store(&raw("100644", "x", &blob));
    let both = [raw("120000", "d", &link), raw("40000", "d", &inner)].concat();
    let _ = write_tree(&w.mirror, &ObjectId::new(store(&both)), &Changes::default(), &w.blobs, &w.path("d"), None);
    assert!(!w.path("d/d").symlink_metadata().unwrap().is_symlink());
    // A tree of trees of trees: a billion files out of ten objects.
    let mut id = inner;
    for _ in 0..9 {
        let lines: Vec<u8> = (0..10).flat_map(|i| raw("40000", &i.to_string(), &id)).collect();
        id = store(&lines);
    }
    assert_eq!(objects_of_tree(&w.mirror, &ObjectId::new(id)).unwrap().len(), 11);
    let torn = ObjectId::new(store(b"100644 x"));
    let end = write_tree(&w.mirror, &torn, &Changes::default(), &w.blobs, &w.path("e"), None).unwrap_err();
    assert!(matches!(end, GitError::Damaged { .. }), "{end}");
}

#[test]
fn an_overlay_writes_through_no_link() {
    let w = world();
    let dir = w.tree("t");
    let outside = w.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(dir.join("sub")).unwrap();
    symlink(&outside, dir.join("sub")).unwrap();
    for entry in [Entry::Link { target: b"/etc".to_vec() }, Entry::Gone] {
        fs::write(outside.join("x"), "precious").unwrap();
        let end = overlay(&Changes::new([(path("sub/x"), entry)].into()).unwrap(), &w.blobs, &dir).unwrap_err();
        assert!(matches!(end, GitError::Io { .. }), "{end}");
        assert_eq!(fs::read(outside.join("x")).unwrap(), b"precious");
    }
}

#[test]
fn an_overlay_leaves_other_names_of_a_file_alone() {
    let w = world();
    let dir = w.tree("t");
    fs::hard_link(dir.join("a.txt"), w.path("other")).unwrap();
    overlay(&w.with(&[("a.txt", "new\n")]), &w.blobs, &dir).unwrap();
    assert_eq!(fs::read_to_string(dir.join("a.txt")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(w.path("other")).unwrap(), LINES);
}

#[test]
fn changes_that_lie_about_their_content_are_refused() {
    use Blobs as _;
    let w = world();
    let blob = w.blobs.put(b"evil").unwrap();
    let oid = ObjectId::new(git(&w.path("origin"), &["hash-object", "a.txt"]));
    let lie = Entry::File { blob, oid, size: 4, executable: false };
    let changes = Changes::new([(path("sub/x"), lie)].into()).unwrap();
    let end = overlay(&changes, &w.blobs, &w.tree("t")).unwrap_err();
    assert!(matches!(end, GitError::Inconsistent { .. }), "{end}");
    let end = diff(&w.mirror, &w.at.base_tree, &w.with(&[("a.txt", "other\n")]), &Memory::default()).unwrap_err();
    assert!(matches!(&end, GitError::BlobMissing { path, .. } if path == "a.txt"), "{end}");
}

#[test]
fn a_sealed_repository_holds_the_tree_and_one_commit_and_no_more() {
    let w = world();
    let dir = w.sealed("t");
    let sealed = git(&dir, &["rev-parse", "HEAD"]);
    let mut expected = objects_of_tree(&w.mirror, &w.at.base_tree).unwrap();
    assert!(expected.insert(ObjectId::new(sealed.clone())));
    let inside = objects_in(&dir.join(".git")).unwrap();
    assert_eq!(inside, expected);
    assert!(!inside.contains(&w.at.human) && !inside.contains(&w.at.base));

    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    assert_eq!(git(&dir, &["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(git(&dir, &["rev-parse", "HEAD^{tree}"]), w.at.base_tree.as_str());
    assert_eq!(git(&dir, &["log", "--format=%an <%ae> %at %cn %ct %P|%B"]), "flow <flow@localhost> 0 flow 0 |base");
    assert_eq!(git(&dir, &["ls-files", "-m", "-d", "-o"]), "");
    assert_eq!(git(&dir, &["diff-index", "--cached", "HEAD"]), "");
    git(&dir, &["fsck", "--full", "--strict"]);
    assert_eq!(git(&dir, &["remote"]), "");
    for absent in ["objects/info/alternates", "packed-refs", "logs", "ORIG_HEAD", "FETCH_HEAD", "shallow"] {
        assert!(!dir.join(".git").join(absent).exists(), "{absent}");
    }
    assert_eq!(fs::read_dir(dir.join(".git/hooks")).unwrap().count(), 0);

    // The same tree gives the same commit, from the cached pack, which stays its own file.
    let again = w.tree("u");
    let packs = w.path("packs");
    let commit = seal(&w.mirror, &w.at.base_tree, &packs, &again).unwrap();
    assert_eq!(commit.as_str(), sealed);
    for entry in fs::read_dir(again.join(".git/objects/pack")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().nlink(), 1);
    }
    // A torn pack is made anew.
    let pack = packs.join(format!("{}.pack", w.at.base_tree));
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, "torn").unwrap();
    let third = w.sealed("v");
    git(&third, &["fsck", "--full", "--strict"]);
    assert_eq!(fs::read_dir(&packs).unwrap().count(), 2);
    // There is no second repository in one place.
    assert!(matches!(seal(&w.mirror, &w.at.base_tree, &packs, &third), Err(GitError::Io { .. })));
}

#[test]
fn submodules_stay_and_are_named() {
    let w = world();
    let repo = w.path("origin");
    let link = |commit: &str| {
        git(&repo, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},third")]);
        ObjectId::new(git(&repo, &["write-tree"]))
    };
    let (one, two) = (link(&"1".repeat(40)), link(&"2".repeat(40)));
    let between = changes_between(&w.mirror, &one, &two, &w.blobs, &TakeLimits::default()).unwrap();
    assert!(between.changes.is_empty());
    assert_eq!(between.submodules, [path("third")]);

    let dir = w.path("t");
    let written = write_tree(&w.mirror, &one, &Changes::default(), &w.blobs, &dir, None).unwrap();
    assert_eq!(written.submodules, [path("third")]);
    seal(&w.mirror, &one, &w.path("packs"), &dir).unwrap();
    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    let take = || take(&w.mirror, &one, &dir, &w.blobs, &TakeLimits::default(), &|_| false).unwrap();
    fs::write(dir.join("third/file"), "x").unwrap();
    let taken = take();
    assert!(taken.changes.is_empty() && taken.tree == one);
    assert!(taken.notes[0].contains("submodule"), "{:?}", taken.notes);
    fs::remove_dir_all(dir.join("third")).unwrap();
    assert!(take().changes.is_empty());
}
