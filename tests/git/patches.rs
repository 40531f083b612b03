//! Diffs, and patches that somebody else wrote.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use flow::git::*;

use crate::world::*;

#[test]
fn the_human_change_is_the_difference_of_two_trees() {
    let w = world();
    let limits = TakeLimits::default();
    let between = changes_between(&w.mirror, &w.at.base_tree, &w.at.human_tree, &w.blobs, &limits).unwrap();
    assert_eq!(paths(&between.changes), ["a.txt", "src/new.py", "sub/x"]);
    assert!(between.submodules.is_empty());
    assert_eq!(tree_id(&w.mirror, &w.at.base_tree, &between.changes).unwrap(), w.at.human_tree);
    assert_eq!(w.applied(&between.changes), w.at.human_tree.as_str());
    let (less, dropped) = between.changes.without(&|p| p.as_bytes().starts_with(b"src/"));
    assert_eq!((paths(&less), dropped), (vec!["a.txt".to_owned(), "sub/x".to_owned()], vec!["src/new.py".to_owned()]));
    let tight = TakeLimits { bytes: 10, ..limits };
    let end = changes_between(&w.mirror, &w.at.base_tree, &w.at.human_tree, &w.blobs, &tight).unwrap_err();
    assert!(matches!(end, GitError::TooMuch { .. }), "{end}");
}

#[test]
fn blank_space_is_told_from_change() {
    let w = world();
    let only = |changes: &Changes| only_blank_space(&w.mirror, &w.at.base_tree, changes, &w.blobs).unwrap();
    let blank = |edits: &[(&str, &str)]| only(&w.with(edits));
    assert!(!blank(&[]));
    assert!(blank(&[("a.txt", &LINES.replace('\n', " \n\n"))]));
    assert!(blank(&[("no-eol", "tail\n")]));
    assert!(blank(&[("src/m.py", &PYTHON.replace("    ", "  "))]));
    assert!(blank(&[("src/m.py", &PYTHON.replace("f(x)", "f( x )"))]));
    assert!(!blank(&[("src/m.py", &PYTHON.replace("    return", "        return"))]), "it returns within the loop");
    assert!(blank(&[("a.txt", &LINES.replace("two", "  two"))]));
    assert!(!blank(&[("a.txt", &LINES.replace("two\n", "two"))]));
    assert!(!blank(&[("a.txt", &LINES.replace("two", "2"))]));
    assert!(!blank(&[("new", "")]));
    assert!(!blank(&[("src/deep/b.bin", "\0\x01\x02 ")]));
    assert!(!blank(&[("a.txt", &LINES.replace('\n', "\n\n")), ("lib.rs", "fn b() {}\n")]));
    let mode = w.tree("m");
    fs::set_permissions(mode.join("a.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!only(&w.take(&mode).changes));
}

#[test]
fn a_diff_obeys_nobodys_config_or_attributes() {
    let w = world();
    let changes = w.with(&[("a.txt", &LINES.replace("two", "2"))]);
    let before = w.diff(&changes);
    fs::write(w.path("origin/.git/info/attributes"), "* -diff\n").unwrap();
    git(&w.path("origin"), &["config", "diff.noprefix", "true"]);
    git(&w.path("origin"), &["config", "diff.context", "0"]);
    let after = diff(&w.mirror.reopen().unwrap(), &w.at.base_tree, &changes, &w.blobs).unwrap();
    assert_eq!(before, after);
    // Nor do the tree's own attributes turn text into binary.
    let changes = w.with(&[("a.txt", &LINES.replace("two", "2")), (".gitattributes", "*.txt binary -diff\n")]);
    assert!(String::from_utf8_lossy(&w.diff(&changes).bytes).contains("\n-two\n+2\n"));
}

#[test]
fn a_patch_is_applied_whole_or_not_at_all() {
    let w = world();
    let dir = w.tree("t");
    let patch = "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n";
    let bad = "diff --git a/lib.rs b/lib.rs\n--- a/lib.rs\n+++ b/lib.rs\n@@ -1 +1 @@\n-fn other() {}\n+fn b() {}\n";
    let end = apply_to_dir(format!("{patch}{bad}").as_bytes(), &dir).unwrap_err();
    assert!(matches!(end, ApplyError::DoesNotApply { .. }), "{end}");
    assert!(w.take(&dir).changes.is_empty());
    apply_to_dir(patch.as_bytes(), &dir).unwrap();
    assert_eq!(fs::read_to_string(dir.join("a.txt")).unwrap(), LINES.replace("two", "2"));
    for text in ["", "rubbish\n"] {
        let end = apply_to_dir(text.as_bytes(), &dir).unwrap_err();
        assert!(matches!(end, ApplyError::NotAPatch { .. }), "{end}");
    }
}

#[test]
fn a_patch_of_plain_diff_is_as_good() {
    let w = world();
    let dir = w.tree("t");
    let plain = "--- a/a.txt\t2024-01-01 00:00:00\n+++ b/a.txt\t2024-01-02 00:00:00\n@@ -1,3 +1,3 @@\n one\n-two\n+-- deux\n three\n\
        --- a/run.sh\n+++ b/run.sh\n@@ -1,2 +1,2 @@\n #!/bin/sh\n-echo\n+true\n\
        --- /dev/null\n+++ b/new/f\n@@ -0,0 +1,2 @@\n+x\n+y\n--- a/sub/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
    apply_to_dir(plain.as_bytes(), &dir).unwrap();
    assert_eq!(fs::read_to_string(dir.join("a.txt")).unwrap(), LINES.replace("two", "-- deux"));
    assert_eq!(fs::read_to_string(dir.join("new/f")).unwrap(), "x\ny\n");
    assert!(!dir.join("sub/x").exists());
    assert_eq!(dir.join("run.sh").metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_hostile_patch_is_refused() {
    let w = world();
    let dir = w.tree("t");
    let outside = w.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(dir.join("sub")).unwrap();
    symlink(&outside, dir.join("sub")).unwrap();
    let new = |mode: &str, name: &str, line: &str| {
        format!(
            "diff --git a/{name} b/{name}\nnew file mode {mode}\nindex 0000000..e69de29\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{line}\n"
        )
    };
    for name in ["../evil", "/tmp/flow-evil", ".git/hooks/x", ".GIT/x", "a/../../evil", "sub/evil"] {
        assert!(apply_to_dir(new("100755", name, "x").as_bytes(), &dir).is_err(), "{name}");
    }
    // A link made by the patch itself, and a file through it.
    let end = "\\ No newline at end of file\n";
    let patch = new("120000", "l", outside.to_str().unwrap()) + end + &new("100644", "l/x", "x");
    assert!(apply_to_dir(patch.as_bytes(), &dir).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!w.path("evil").exists() && !Path::new("/tmp/flow-evil").exists() && !dir.join(".git").exists());
}
