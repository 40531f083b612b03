//! What `flow why` of one commit costs in a large project: a store that knows 60,000 steps, beside `ninja -d explain` on the same
//! shape.
//!
//!     cargo bench --bench why               10,000 commits of 6 steps
//!     cargo bench --bench why -- 1000       another number of commits
//!
//! Prints milliseconds of wall clock and of processor, and the ratio to ninja. Nothing is asserted: compare ratios of one run
//! only. Where there is no ninja that is said, and flow is measured alone.
#![allow(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{fastest, flow, git, number_or, row, time};

/// The steps of one commit.
const STEPS: usize = 6;
/// How often it is asked; the fastest counts.
const TIMES: usize = 9;

fn main() {
    let commits = number_or(10_000);
    let dir = tempfile::tempdir().unwrap();
    let (one, dir) = (write(dir.path(), commits), dir.path());
    println!("{} steps, {commits} commits of {STEPS}; the fastest of {TIMES}", commits * STEPS);
    let ask = |more: &[&str]| fastest(TIMES, || flow(dir, &[&["why", &one], more].concat()));
    let run = &["run", "m.kdl", "--quiet"];
    let first = time(|| flow(dir, run));
    let again = fastest(2, || flow(dir, run));
    let (served, unnamed, ran) = (ask(&["m.kdl"]), ask(&[]), ask(&["--run"]));
    // An input of every step that comes first, so that the one that is asked for is a miss.
    std::fs::write(dir.join("in"), "another\n").unwrap();
    let changed = ask(&["m.kdl"]);

    let ninja = dir.join("ninja");
    let explained = write_ninja(&ninja, commits).then(|| {
        let target = format!("o{}_{}", commits / 2, STEPS - 1);
        std::fs::write(ninja.join("in"), "another\n").unwrap();
        fastest(TIMES, || assert!(run_ninja(&ninja, &["-n", "-d", "explain", &target])))
    });
    let row = |what, cost| row(what, cost, explained.map(|explained| (explained, "ninja")));
    row("flow run, for the store to be warm", first);
    row("flow run, all served", again);
    row("flow why, all served", served);
    row("flow why, no manifest named", unnamed);
    row("flow why --run", ran);
    row("flow why, one ingredient changed", changed);
    match explained {
        Some(explained) => row("ninja -n -d explain, one target", explained),
        None => println!("skipped: `ninja` is not in PATH, or did not build: there is nothing to compare with"),
    }
}

/// Commits of a repository, each with a chain of steps that copy a file. Gives the commit in the middle.
fn write(dir: &Path, commits: usize) -> String {
    let repo = dir.join("repo");
    std::fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q", "-b", "main"], None);
    let mut stream = String::new();
    for n in 0..=commits {
        let (message, time) = (format!("commit {n}"), 1_600_000_000 + n);
        let _ = writeln!(stream, "commit refs/heads/main\nmark :{}\ncommitter a <a@localhost> {time} +0000", n + 1);
        let _ = writeln!(stream, "data {}\n{message}", message.len());
        if n > 0 {
            let _ = writeln!(stream, "from :{n}");
        }
        let _ = writeln!(stream, "M 100644 inline n\ndata {}\n{n}\n", n.to_string().len());
    }
    git(&repo, &["fast-import", "--quiet", "--force"], Some(&stream));
    let listed = git(&repo, &["rev-list", "--reverse", "main"], None);
    let ids: Vec<&str> = listed.lines().skip(1).collect();
    std::fs::write(dir.join("commits.txt"), ids.iter().fold(String::new(), |text, id| text + id + "\n")).unwrap();
    std::fs::write(dir.join("in"), "in\n").unwrap();
    let mut steps = String::from(
        "    step s0 uses=command { input a \"in\"; set ID \"{commit.id8}\"; run \"cp\" \"{in.a}\" \"{out.o}\"; output o \"o\" }\n",
    );
    for step in 1..STEPS {
        let up = step - 1;
        let _ = writeln!(
            steps,
            "    step s{step} uses=command {{ needs s{up}; set ID \"{{commit.id8}}\"; run \"cp\" \"{{in.s{up}}}\" \"{{out.o}}\"; output o \"o\" }}"
        );
    }
    let manifest =
        format!("flow 1\npipeline chains {{\n    repo r \"repo\" {{ commits file=\"commits.txt\" }}\n{steps}}}\n");
    std::fs::write(dir.join("m.kdl"), manifest).unwrap();
    ids[commits / 2].to_owned()
}

/// The same shape for ninja, built once. `false` if there is none.
fn write_ninja(dir: &Path, chains: usize) -> bool {
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("in"), "in\n").unwrap();
    let mut text = String::from("rule cp\n  command = cp $in $out\n");
    for n in 0..chains {
        for step in 0..STEPS {
            let from = if step == 0 { "in".to_owned() } else { format!("o{n}_{}", step - 1) };
            let _ = writeln!(text, "build o{n}_{step}: cp {from}");
        }
    }
    std::fs::write(dir.join("build.ninja"), text).unwrap();
    run_ninja(dir, &["--version"]) && run_ninja(dir, &[])
}

fn run_ninja(dir: &Path, args: &[&str]) -> bool {
    let mut command = Command::new("ninja");
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
