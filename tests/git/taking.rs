//! Work trees that agents leave.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use flow::git::*;
use proptest::prelude::*;

use crate::world::*;

#[test]
fn an_untouched_tree_is_no_change() {
    let w = world();
    let taken = w.take(&w.sealed("t"));
    assert!(taken.changes.is_empty(), "{:?}", taken.changes);
    assert_eq!(taken.tree, w.at.base_tree);
    assert!(w.diff(&taken.changes).bytes.is_empty());
    w.consistent(&taken);
}

#[test]
fn all_kinds_of_edits_make_the_round_trip() {
    let w = world();
    let dir = w.sealed("t");
    fs::write(dir.join("a.txt"), LINES.replace("two", "2")).unwrap();
    fs::rename(dir.join("src/m.py"), dir.join("src/renamed.py")).unwrap();
    fs::write(dir.join("src/deep/b.bin"), [0_u8, 9, 9, 9, 255]).unwrap();
    fs::write(dir.join("src/deep/new.bin"), [0_u8; 300]).unwrap();
    fs::set_permissions(dir.join("lib.rs"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(dir.join("sub/x")).unwrap();
    fs::write(dir.join("no-eol"), "tail\n").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::remove_file(dir.join("lib/z")).unwrap();
    fs::remove_file(dir.join("link")).unwrap();
    symlink("/etc", dir.join("link")).unwrap();
    fs::create_dir_all(dir.join("new/dir")).unwrap();
    fs::write(dir.join("new/dir/f"), "no end").unwrap();
    git(&dir, &["add", "sub", "a.txt"]);
    let taken = w.take(&dir);
    fs::remove_dir_all(dir.join(".git")).unwrap();
    assert_eq!(w.git_tree(&dir), taken.tree.as_str());
    w.consistent(&taken);
    assert_eq!(taken.changes.get(&path("link")), Some(&Entry::Link { target: b"/etc".to_vec() }));

    let made = w.diff(&taken.changes);
    let text = String::from_utf8_lossy(&made.bytes);
    let parts =
        ["rename from src/m.py", "GIT binary patch", "old mode 100755", "deleted file mode", "new file mode 100644"];
    for part in parts {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let stat = |name: &str| made.files.iter().find(|f| f.path == name).unwrap();
    assert_eq!(stat("src/renamed.py").status, FileStatus::Renamed { from: "src/m.py".into() });
    assert_eq!((stat("a.txt").added, stat("a.txt").removed, &stat("a.txt").status), (1, 1, &FileStatus::Modified));
    let mut ids = text.lines().filter_map(|l| l.strip_prefix("index "));
    assert!(ids.all(|l| l.split_whitespace().next().unwrap().len() == 82), "{text}");
}

#[test]
fn what_an_agent_does_with_git_changes_nothing() {
    let w = world();
    let edit = |dir: &Path| {
        fs::write(dir.join("a.txt"), LINES.replace("ten", "10")).unwrap();
        fs::write(dir.join("fresh"), "f\n").unwrap();
    };
    let plain = w.sealed("plain");
    edit(&plain);
    let expected = w.take(&plain);
    assert_eq!(paths(&expected.changes), ["a.txt", "fresh"]);
    w.consistent(&expected);
    type Deed = fn(&Path);
    let deeds: &[(&str, Deed)] = &[
        ("commits", |d| {
            git(d, &["add", "-A"]);
            git(d, &["commit", "-q", "-m", "mine"]);
        }),
        ("detaches", |d| {
            git(d, &["checkout", "-q", "--detach"]);
            git(d, &["commit", "-q", "-a", "-m", "mine"]);
        }),
        ("stages half", |d| {
            git(d, &["add", "a.txt"]);
        }),
        ("removes .git", |d| fs::remove_dir_all(d.join(".git")).unwrap()),
        ("replaces .git by a link", |d| {
            fs::remove_dir_all(d.join(".git")).unwrap();
            symlink("/", d.join(".git")).unwrap();
        }),
        ("replaces .git by a file", |d| {
            fs::remove_dir_all(d.join(".git")).unwrap();
            fs::write(d.join(".git"), "gitdir: /nowhere").unwrap();
        }),
        ("sets hooks, filters and excludes", |d| {
            let dot = d.join(".git");
            fs::write(dot.join("hooks/post-index-change"), "#!/bin/sh\nexit 1\n").unwrap();
            fs::write(dot.join("info/exclude"), "fresh\n").unwrap();
            fs::write(dot.join("info/attributes"), "* filter=evil text eol=crlf diff=evil\n").unwrap();
            let evil = "[filter \"evil\"]\n clean = cat /dev/zero\n[core]\n autocrlf = true\n excludesFile = /x\n";
            fs::write(dot.join("config"), evil).unwrap();
        }),
        ("spoils the index", |d| fs::write(d.join(".git/index"), "rubbish").unwrap()),
    ];
    for (i, (name, deed)) in deeds.iter().enumerate() {
        let dir = w.sealed(&format!("d{i}"));
        edit(&dir);
        deed(&dir);
        assert_eq!(w.take(&dir), expected, "{name}");
    }
}

#[test]
fn the_base_decides_what_is_ignored() {
    let w = world();
    let dir = w.sealed("t");
    fs::write(dir.join(".gitignore"), "*\n").unwrap();
    fs::create_dir_all(dir.join("src/.hidden")).unwrap();
    fs::write(dir.join("src/.gitignore"), "*.py\n").unwrap();
    fs::write(dir.join("src/sneaky.py"), "1\n").unwrap();
    fs::write(dir.join("src/.hidden/f"), "1\n").unwrap();
    fs::write(dir.join("kept.log"), "edited\n").unwrap();
    fs::write(dir.join("other.log"), "ignored\n").unwrap();
    fs::create_dir_all(dir.join("out/deep")).unwrap();
    fs::write(dir.join("out/deep/f"), "ignored\n").unwrap();
    let taken = w.take(&dir);
    assert_eq!(paths(&taken.changes), [".gitignore", "kept.log", "src/.gitignore", "src/.hidden/f", "src/sneaky.py"]);
    assert_eq!((taken.ignored.as_slice(), taken.ignored_count), (&["other.log".to_owned(), "out/".to_owned()][..], 2));
    fs::remove_file(dir.join(".gitignore")).unwrap();
    assert_eq!(w.take(&dir).ignored_count, 2, "nor does removing the file uncover what the base ignores");
}

#[test]
fn files_directories_and_links_take_each_others_place() {
    let w = world();
    let dir = w.sealed("t");
    fs::remove_dir_all(dir.join("sub")).unwrap();
    symlink("/etc", dir.join("sub")).unwrap();
    fs::remove_file(dir.join("a.txt")).unwrap();
    fs::create_dir(dir.join("a.txt")).unwrap();
    fs::write(dir.join("a.txt/inner"), LINES).unwrap();
    fs::remove_dir_all(dir.join("lib")).unwrap();
    fs::write(dir.join("lib"), "now a file\n").unwrap();
    fs::remove_file(dir.join("link")).unwrap();
    fs::create_dir(dir.join("link")).unwrap();
    fs::write(dir.join("link/f"), "f\n").unwrap();
    fs::remove_file(dir.join("no-eol")).unwrap();
    fs::create_dir(dir.join("no-eol")).unwrap();
    let taken = w.take(&dir);
    let expected = ["a.txt", "a.txt/inner", "lib", "lib/z", "link", "link/f", "no-eol", "sub", "sub/x", "sub/y"];
    assert_eq!(paths(&taken.changes), expected);
    assert_eq!(taken.changes.get(&path("sub/x")), Some(&Entry::Gone));
    fs::remove_dir_all(dir.join(".git")).unwrap();
    assert_eq!(w.git_tree(&dir), taken.tree.as_str());
    w.consistent(&taken);
}

#[test]
fn names_of_any_bytes_make_the_round_trip() {
    let w = world();
    let dir = w.sealed("t");
    let names: &[&[u8]] = &[
        b"new\nline",
        b"\xff\xfe bytes",
        b"tab\there",
        b"quote\"d",
        b"back\\slash",
        b" lead",
        b"trail ",
        b"100%",
        "ümlaut".as_bytes(),
        b"-rf",
        b"a b/c d",
    ];
    fs::create_dir(dir.join("a b")).unwrap();
    fs::rename(dir.join("src/m.py"), dir.join("a b/m n.py")).unwrap();
    for name in names {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let taken = w.take(&dir);
    assert_eq!(taken.changes.len(), names.len() + 2);
    w.consistent(&taken);
}

#[test]
fn odd_things_are_left_out_and_said() {
    let w = world();
    let dir = w.sealed("t");
    let fifo = |name: &str| nix::unistd::mkfifo(&dir.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fifo("pipe");
    fs::remove_file(dir.join("sub/x")).unwrap();
    fifo("sub/x");
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("sock")).unwrap();
    fs::create_dir_all(dir.join("vendor/.git")).unwrap();
    fs::write(dir.join("vendor/.git/HEAD"), "x").unwrap();
    fs::write(dir.join("vendor/code"), "x").unwrap();
    fs::create_dir_all(dir.join(".GIT")).unwrap();
    fs::write(dir.join(".GIT/config"), "x").unwrap();
    let taken = w.take(&dir);
    assert_eq!(paths(&taken.changes), ["sub/x", "vendor/code"]);
    assert_eq!(taken.notes.len(), 5, "{:?}", taken.notes);
    for part in ["`pipe`: it is a fifo", "`sock`: it is a socket", "`sub/x`", "`vendor/.git`", "`.GIT`"] {
        assert!(taken.notes.iter().any(|n| n.contains(part)), "{part}: {:?}", taken.notes);
    }
    w.consistent(&taken);
}

#[test]
fn limits_hold() {
    let w = world();
    let all = TakeLimits::default();
    let over = |dir: &Path, limits: &TakeLimits, word: &str| match w.try_take(dir, limits) {
        Err(TakeError::TooMuch { what, limit, found }) => assert!(what.contains(word) && found > limit, "{what}"),
        other => panic!("{word}: {other:?}"),
    };
    let dir = w.sealed("t");
    let deep = dir.join("d/".repeat(150));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), "x").unwrap();
    over(&dir, &all, "directories within each other");
    fs::remove_dir_all(dir.join("d")).unwrap();
    fs::write(dir.join("one"), vec![b'x'; 1000]).unwrap();
    fs::write(dir.join("two"), vec![b'y'; 1000]).unwrap();
    over(&dir, &TakeLimits { files: 1, ..all }, "changed files");
    over(&dir, &TakeLimits { bytes: 1500, ..all }, "bytes of changed files");
    over(&dir, &TakeLimits { file_bytes: 999, ..all }, "bytes of a changed file");
    over(&dir, &TakeLimits { names: 5, ..all }, "names");
    // An unchanged file of the base may be longer than a changed one.
    fs::remove_file(dir.join("one")).unwrap();
    fs::remove_file(dir.join("two")).unwrap();
    assert!(w.try_take(&dir, &TakeLimits { file_bytes: 1, ..all }).unwrap().changes.is_empty());
    // Removing everything is counted as well.
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    over(&dir, &TakeLimits { files: 3, ..all }, "changed files");
    assert_eq!(w.take(&dir).tree.as_str(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
    fs::remove_dir(&dir).unwrap();
    assert!(matches!(w.try_take(&dir, &all), Err(TakeError::NoDirectory { .. })));
}

#[test]
fn a_secret_is_never_stored_nor_shown() {
    let w = world();
    let secret = b"sk-live-123";
    let refuse = |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
    let ask = |dir: &Path| take(&w.mirror, &w.at.base_tree, dir, &w.blobs, &TakeLimits::default(), &refuse);
    let dir = w.sealed("t");
    fs::write(dir.join("sub/conf"), "key = sk-live-123\n").unwrap();
    assert!(matches!(ask(&dir), Err(TakeError::Secret { path }) if path == "sub/conf"));
    fs::remove_file(dir.join("sub/conf")).unwrap();
    fs::write(dir.join("sub/sk-live-123"), "").unwrap();
    assert!(matches!(ask(&dir), Err(TakeError::Secret { path }) if path == "sub/(a name)"));
    fs::remove_file(dir.join("sub/sk-live-123")).unwrap();
    symlink("/sk-live-123", dir.join("l")).unwrap();
    assert!(matches!(ask(&dir), Err(TakeError::Secret { path }) if path == "l"));
    fs::remove_file(dir.join("l")).unwrap();
    fs::write(dir.join("sk-live-123.log"), "ignored").unwrap();
    let taken = ask(&dir).unwrap();
    assert!(taken.changes.is_empty());
    assert_eq!(taken.ignored, ["(a name)"]);
    assert!(w.blobs.0.lock().unwrap().values().all(|bytes| !refuse(bytes)));
}

/// One thing that an agent may do to a work tree; what cannot be done is not.
#[derive(Clone, Debug)]
enum Deed {
    Write(String, String),
    Append(String, String),
    Link(String, String),
    Chmod(String),
    Remove(String),
    Rename(String, String),
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let path = || {
        prop_oneof![
            prop::sample::select(vec![
                "a.txt",
                "src/m.py",
                "src/deep/b.bin",
                "run.sh",
                "sub/x",
                "sub",
                "lib.rs",
                "lib/z",
                "no-eol",
                "link",
                "src"
            ])
            .prop_map(str::to_owned),
            "[a c]{1,2}(/[a b]{1,2}){0,2}",
        ]
    };
    let text = || {
        prop_oneof![
            "[xy\n ]{0,12}",
            "[xy\n]{0,60}",
            "[\\x00-\\x03]{1,4}",
            Just(LINES.to_owned()),
            Just(PYTHON.to_owned())
        ]
    };
    prop_oneof![
        3 => (path(), text()).prop_map(|(p, t)| Deed::Write(p, t)),
        2 => (path(), text()).prop_map(|(p, t)| Deed::Append(p, t)),
        1 => (path(), "[a-z/.]{1,8}").prop_map(|(p, t)| Deed::Link(p, t)),
        1 => path().prop_map(Deed::Chmod),
        2 => path().prop_map(Deed::Remove),
        3 => (path(), path()).prop_map(|(p, q)| Deed::Rename(p, q)),
    ]
}

fn remove(at: &Path) {
    let _ = if at.symlink_metadata().is_ok_and(|m| m.is_dir()) { fs::remove_dir_all(at) } else { fs::remove_file(at) };
}

/// Does it, without ever following a link out of `dir`.
fn perform(dir: &Path, deed: &Deed) {
    let at = |name: &str| {
        let path = dir.join(name);
        let real = path.parent().and_then(|above| {
            let _ = fs::create_dir_all(above);
            above.canonicalize().ok()
        })?;
        real.starts_with(dir.canonicalize().ok()?).then_some(path)
    };
    match deed {
        Deed::Write(name, text) => at(name).into_iter().for_each(|p| {
            remove(&p);
            let _ = fs::write(p, text);
        }),
        Deed::Append(name, text) => {
            at(name).filter(|p| p.symlink_metadata().is_ok_and(|m| m.is_file())).into_iter().for_each(|p| {
                let old = fs::read(&p).unwrap();
                let _ = fs::write(&p, [&old[..], text.as_bytes()].concat());
            })
        }
        Deed::Link(name, target) => at(name).into_iter().for_each(|p| {
            remove(&p);
            let _ = symlink(target, p);
        }),
        Deed::Chmod(name) => {
            at(name).filter(|p| p.symlink_metadata().is_ok_and(|m| m.is_file())).into_iter().for_each(|p| {
                let mode = p.metadata().unwrap().permissions().mode() ^ 0o111;
                fs::set_permissions(&p, fs::Permissions::from_mode(mode)).unwrap();
            })
        }
        Deed::Remove(name) => at(name).into_iter().for_each(|p| remove(&p)),
        Deed::Rename(from, to) => at(from).zip(at(to)).into_iter().for_each(|(p, q)| {
            let _ = fs::rename(p, q);
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_deeds_make_the_round_trip(deeds in prop::collection::vec(any_deed(), 1..10)) {
        let w = world();
        let dir = w.tree("t");
        for deed in &deeds {
            perform(&dir, deed);
        }
        let taken = w.take(&dir);
        prop_assert_eq!(w.git_tree(&dir), taken.tree.as_str());
        w.consistent(&taken);
    }
}
