//! Finding commits, and where their objects come from.

use std::fs;
use std::time::Duration;

use flow::git::*;

use crate::world::*;

#[test]
fn a_commit_is_resolved_with_its_base() {
    let w = world();
    let repo = w.path("origin");
    assert_eq!(w.at.human.as_str(), git(&repo, &["rev-parse", "HEAD"]));
    assert_eq!(w.at.base.as_str(), git(&repo, &["rev-parse", "HEAD~"]));
    assert_eq!(w.at.base_tree.as_str(), git(&repo, &["rev-parse", "HEAD~^{tree}"]));
    assert_eq!(w.at.human_tree.as_str(), git(&repo, &["rev-parse", "HEAD^{tree}"]));
    assert_eq!(w.at.subject, "Make it fast");
    let named = BaseRule::Commit(w.at.base.id8().to_uppercase());
    assert_eq!(w.mirror.reopen().unwrap().resolve(w.at.human.as_str(), &named).unwrap(), w.at);

    let missing = w.mirror.resolve("0123456789", &BaseRule::Parent(1)).unwrap_err();
    assert!(matches!(&missing, GitError::Missing { id, .. } if id == "0123456789"), "{missing}");
    let parent = w.mirror.resolve(w.at.human.as_str(), &BaseRule::Parent(2)).unwrap_err();
    assert!(matches!(parent, GitError::NoParent { has: 1, parent: 2, .. }), "{parent}");
    let zero = w.mirror.resolve(w.at.human.as_str(), &BaseRule::Parent(0)).unwrap_err();
    assert!(matches!(zero, GitError::NoParent { .. }), "{zero}");
    for bad in ["", "1234567", "main", "HEAD~1234", &"a".repeat(41), "zzzzzzzzz"] {
        assert!(matches!(w.mirror.resolve(bad, &BaseRule::Parent(1)), Err(GitError::NotAnId { .. })), "{bad}");
    }
    let tree = w.mirror.resolve(w.at.base_tree.as_str(), &BaseRule::Parent(1)).unwrap_err();
    assert!(matches!(tree, GitError::WrongKind { .. }), "{tree}");
    git(&repo, &["tag", "-a", "-m", "t", "v1"]);
    let tag = git(&repo, &["rev-parse", "v1"]);
    assert_eq!(w.mirror.resolve(&tag, &BaseRule::Parent(1)).unwrap().human, w.at.human);
}

/// Commits whose ids share eight digits are dear to find; the names of loose objects are not checked when they are listed.
#[test]
fn an_ambiguous_id_is_an_error_of_its_own() {
    let w = world();
    let repo = w.path("origin");
    let human = w.at.human.as_str();
    let loose = |id: &str| repo.join(".git/objects").join(&id[..2]).join(&id[2..]);
    let twin = format!("{}{}", &human[..8], "0".repeat(32));
    // A blob under a commit's digits is not meant; another commit is.
    let blob = git(&repo, &["hash-object", "-w", "a.txt"]);
    fs::copy(loose(&blob), loose(&twin)).unwrap();
    let mirror = w.mirror.reopen().unwrap();
    assert_eq!(mirror.resolve(&human[..8], &BaseRule::Parent(1)).unwrap(), w.at);
    fs::remove_file(loose(&twin)).unwrap();
    fs::copy(loose(human), loose(&twin)).unwrap();
    let mirror = w.mirror.reopen().unwrap();
    let end = mirror.resolve(&human[..8], &BaseRule::Parent(1)).unwrap_err();
    assert!(matches!(end, GitError::Ambiguous { candidates: 2, .. }), "{end}");
}

#[test]
fn a_url_is_mirrored_once_and_brought_up_to_date() {
    let w = world();
    let repo = w.path("origin");
    let mirrors = w.path("mirrors");
    let source = Source::Url(format!("file://{}", repo.display()));
    let limit = Duration::from_secs(60);
    assert!(Mirror::open(&mirrors, &source).unwrap().is_none());
    let first = Mirror::prepare(&mirrors, &source, limit).unwrap();
    assert_eq!(first.resolve(w.at.human.as_str(), &BaseRule::Parent(1)).unwrap(), w.at);
    assert!(!first.path().join("hooks").exists());

    git(&repo, &["commit", "-q", "--allow-empty", "-m", "later"]);
    git(&repo, &["update-ref", "refs/pull/7/head", "HEAD"]);
    let later = git(&repo, &["rev-parse", "HEAD"]);
    let opened = Mirror::open(&mirrors, &source).unwrap().unwrap();
    assert!(matches!(opened.resolve(&later, &BaseRule::Parent(1)), Err(GitError::Missing { .. })));
    let again = Mirror::prepare(&mirrors, &source, limit).unwrap();
    assert!(again.resolve(&later, &BaseRule::Parent(1)).is_ok());
    assert_eq!(git(again.path(), &["rev-parse", "refs/pull/7/head"]), later);

    let bad = Source::Url(format!("file://{}/nothing", w.path("x").display()));
    let end = Mirror::prepare(&mirrors, &bad, limit).unwrap_err();
    assert!(matches!(&end, GitError::Program { verb: "fetch", .. }), "{end}");
    assert!(Mirror::open(&mirrors, &bad).unwrap().is_none());
    let left: Vec<_> = fs::read_dir(&mirrors).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn a_stream_becomes_a_mirror_and_many_may_ask_at_once() {
    let w = world();
    let stream = w.path("s.fi");
    fs::write(&stream, git_bytes(&w.path("origin"), &["fast-export", "--all"])).unwrap();
    let mirrors = w.path("mirrors");
    let source = Source::Stream(stream);
    assert!(Mirror::open(&mirrors, &source).unwrap().is_none());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mirror = Mirror::prepare(&mirrors, &source, Duration::from_secs(60)).unwrap();
                assert_eq!(mirror.resolve(w.at.human.as_str(), &BaseRule::Parent(1)).unwrap(), w.at);
            });
        }
    });
    assert!(Mirror::open(&mirrors, &source).unwrap().is_some());
}

#[test]
fn a_local_repository_is_read_in_place_whatever_its_kind() {
    let w = world();
    let repo = w.path("origin");
    git(&repo, &["worktree", "add", "-q", w.path("linked").to_str().unwrap()]);
    git(w.root.path(), &["clone", "-q", "--bare", "origin", "bare.git"]);
    git(w.root.path(), &["clone", "-q", "--shared", "origin", "shared"]);
    for name in ["origin", "linked", "bare.git", "shared", "origin/.git"] {
        let mirror = Mirror::open(w.root.path(), &Source::Local(w.path(name))).unwrap().unwrap();
        assert_eq!(mirror.resolve(w.at.human.as_str(), &BaseRule::Parent(1)).unwrap(), w.at, "{name}");
    }
    let end = Mirror::open(w.root.path(), &Source::Local(w.path("origin/src"))).unwrap_err();
    assert!(matches!(end, GitError::NotARepository { .. }), "{end}");
}

#[test]
fn nothing_is_written_to_a_mirror() {
    let w = world();
    git(&w.path("origin"), &["gc", "-q"]);
    let mirror = w.mirror.reopen().unwrap();
    let before = snapshot(&w.path("origin"));
    let limits = TakeLimits::default();
    let human = changes_between(&mirror, &w.at.base_tree, &w.at.human_tree, &w.blobs, &limits).unwrap().changes;
    assert_eq!(tree_id(&mirror, &w.at.base_tree, &human).unwrap(), w.at.human_tree);
    diff(&mirror, &w.at.base_tree, &human, &w.blobs).unwrap();
    let dir = w.sealed("t");
    w.take(&dir);
    assert_eq!(snapshot(&w.path("origin")), before);
}

#[test]
fn mirrors_travel_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Mirror>();
    is_send::<GitError>();
    is_send::<TakeError>();
}
