//! The promise that nothing but a faster program scores: `flow selftest cheats` tries the known ways, and none does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

/// Each takes a session of its own: the whole list is for the command, these are for every change of the code.
const TRIED: [&str; 7] = [
    "forged-result",
    "overwritten-result",
    "patched-timer",
    "memo-files",
    "git-history",
    "git-elsewhere",
    "later-release",
];

#[test]
fn no_cheat_scores_and_the_human_does() {
    let mut flow = Flow::empty();
    flow.env("TMPDIR", &flow.path("").display().to_string());
    let only: Vec<&str> = TRIED.iter().flat_map(|name| ["--only", name]).collect();
    let ran = flow.flow(&[&["selftest", "cheats", "--json"], only.as_slice()].concat());
    let told = ran.json();
    for cheat in told["cheats"].as_array().unwrap() {
        assert_eq!(cheat["ok"], true, "{cheat}");
    }
    assert_eq!(told["cheats"].as_array().unwrap().len(), TRIED.len() + 1);
    ran.settles();
    let left: Vec<_> = std::fs::read_dir(flow.path("")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_cheat_that_is_not_there_is_said() {
    Flow::empty().flow(&["selftest", "cheats", "--only", "magic"]).exits(2).says("there is no cheat `magic`");
}
