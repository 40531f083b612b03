//! The promise of the sealed repository: an agent that looks for the future finds nothing of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/wild.rs"]
mod wild;

use std::collections::BTreeSet;

use support::git;
use wild::Wild;

/// An agent that writes all that git can tell it into a file of its work tree.
const LOOKS: &str = r#"
def ask(args):
    return subprocess.run('git ' + args, shell=True, capture_output=True, text=True).stdout
with open('found.txt', 'w') as f:
    for object in ask('cat-file --batch-all-objects --batch-check').splitlines():
        f.write('object ' + object + '\n')
    for name in ['log --all --reflog --format=%H', 'remote -v', 'for-each-ref', 'stash list', 'fsck --unreachable --no-reflogs --lost-found',
                 'rev-parse --git-common-dir', 'config --get-regexp "remote.*"', 'worktree list --porcelain']:
        for line in ask(name).splitlines(): f.write(name.split()[0] + ' ' + line + '\n')
    for name in ['.git/objects/info/alternates', '.git/packed-refs', '.git/FETCH_HEAD', '.git/ORIG_HEAD', '.git/shallow', '.git/commondir']:
        if os.path.exists(name): f.write('file ' + name + '\n')
    f.write('env ' + ' '.join(sorted(os.environ)) + '\n')
"#;

#[test]
fn an_agent_finds_the_base_tree_and_one_commit_and_nothing_newer() {
    let wild = Wild::new(LOOKS);
    let came = wild.runs(0);
    let found: Vec<&str> = came.patch.lines().filter_map(|line| line.strip_prefix('+')).collect();
    let of = |kind: &str| -> BTreeSet<String> {
        let prefix = format!("{kind} ");
        found.iter().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    };

    let repo = wild.flow.path("repo");
    let base = format!("{}^", wild.flow.id("one"));
    let mut wanted: BTreeSet<String> =
        git(&repo, &["ls-tree", "-r", "-t", "--format=%(objectname) %(objecttype)", &base])
            .lines()
            .map(str::to_owned)
            .collect();
    wanted.insert(format!("{} tree", git(&repo, &["rev-parse", &format!("{base}^{{tree}}")]).trim()));
    let objects: BTreeSet<String> =
        of("object").iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
    let (commits, others): (Vec<String>, Vec<String>) = objects.into_iter().partition(|line| line.ends_with(" commit"));
    assert_eq!(others.into_iter().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(commits.len(), 1, "{commits:?}");

    // Not the commit of the real history either: its id would lead to the rest.
    let theirs = git(&repo, &["rev-list", "--all"]);
    let own = commits[0].split(' ').next().unwrap();
    assert!(!theirs.contains(own), "the base commit has its real id");
    assert_eq!(of("log"), [own.to_owned()].into());
    assert!(of("for-each-ref").iter().all(|line| line.contains(own) && line.contains("refs/heads/main")));
    for nothing in ["remote", "stash", "fsck", "config", "file"] {
        assert!(of(nothing).is_empty(), "{nothing}: {:?}", of(nothing));
    }
    assert_eq!(of("rev-parse"), [".git".to_owned()].into());
    assert_eq!(of("worktree").iter().filter(|line| line.starts_with("worktree ")).count(), 1);
}

#[test]
fn nothing_in_an_agents_environment_tells_of_the_commit() {
    let script = "
with open('found.txt', 'w') as f:
    for name in sorted(os.environ): f.write(f'{name}={os.environ[name]}\\n')
    f.write(' '.join(sys.argv) + '\\n')
";
    let wild = Wild::new(script);
    let came = wild.runs(0);
    assert!(came.patch.contains("+HOME="), "{}", came.patch);
    assert!(!came.patch.contains(&wild.flow.id("one")[..8]), "{}", came.patch);
}
