//! The six typical cases of docs/why.md: what the manual shows is what the program says, at 80 columns. `UPDATE_DOCS=1` writes it there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::process::Command;

use regex::Regex;
use support::Flow;

const MANIFEST: &str = r#"flow 1
import "agents/replay.kdl" "steps/standard.kdl"
pipeline speed {
    repo shop "../examples/quickstart/history.fi" {
        commits { commit "9db3419a"; commit "9f47610d" }
        tests dir="../tests" name="{commit.id8}.py" contract=flow { metric ops better=lower kind=count min-effect="2%" }
    }
    tool python "../bin/python" { probe "-VV"; probe "-m" "pip" "freeze" }
    candidate careful agent=replay {
        config "configs/careful.yaml"
        file patch  "../examples/quickstart/patches/careful/{commit.id8}.patch" optional=#true
        file script "../scripts/{commit.id8}.json" optional=#true
    }
    step agent { timeout "2s"; prompt file="prompts/optimise.md" }
}
"#;

const ADAPTER: &str = r#"flow 1
agent replay {
    run "sh" "-c" "cat $0 $1 >/dev/null; shift; exec \"$@\"" "{prompt}" "{config}" "{flow}" "act" "scripted" "--patch" "{file.patch}" "--script" "{file.script}"
    version "1"
    usage lines="flow-usage"
}
"#;

/// A project in git, whose pipeline has run.
fn project() -> Flow {
    let flow = Flow::quickstart();
    std::fs::remove_dir(flow.path(".git")).unwrap();
    flow.write(".gitignore", "/bin/\n/cache/\n");
    flow.write("pipelines/speed.kdl", MANIFEST);
    flow.write("pipelines/agents/replay.kdl", ADAPTER);
    flow.write("pipelines/prompts/optimise.md", "Make the function faster.\n\nDo not change its result.\n");
    flow.write("pipelines/configs/careful.yaml", "model:\n  name: sonnet\n  temperature: 0.2\nmax_steps: 50\n");
    for commit in ["9db3419a", "9f47610d"] {
        let script = std::fs::read_to_string(flow.path(&format!("examples/quickstart/tests/{commit}.py"))).unwrap();
        flow.write(&format!("tests/{commit}.py"), &script);
    }
    python(&flow, "1.26.4");
    git(&flow, &["init", "-q", "-b", "main"]);
    commit(&flow, "Ben", "The first version");
    flow.flow(&["run", "pipelines/speed.kdl", "--quiet"]).exits(0);
    flow
}

/// A Python that says which packages it has.
fn python(flow: &Flow, numpy: &str) {
    flow.program(
        "bin/python",
        &format!(
            "#!/bin/sh\n[ \"$1\" = -VV ] && {{ echo Python 3.11.7; exit; }}\n\
             [ \"$2\" = pip ] && {{ echo numpy=={numpy}; echo pandas==2.1.0; exit; }}\nexec python3 \"$@\"\n"
        ),
    );
}

fn git(flow: &Flow, args: &[&str]) {
    let mut git = Command::new("git");
    git.args(args).current_dir(flow.path(".")).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_DATE"), "2026-11-20T12:00:00Z").env(format!("GIT_{role}_EMAIL"), "x@localhost");
    }
    assert!(git.status().unwrap().success(), "git {args:?}");
}

fn commit(flow: &Flow, author: &str, subject: &str) {
    git(flow, &["add", "-A"]);
    let (name, by) = (format!("user.name={author}"), format!("{author} <x@localhost>"));
    git(flow, &["-c", &name, "-c", "commit.gpgsign=false", "commit", "-q", "-m", subject, "--author", &by]);
}

/// What a command prints at 80 columns, below the command itself.
fn shown(flow: &Flow, args: &[&str]) -> String {
    let output = flow.command(args).env("COLUMNS", "80").output().unwrap();
    let ran = flow.ran(output);
    ran.exits(0);
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
    format!("$ flow {}\n{}", args.join(" "), ran.stdout)
}

/// The six cases, each with the heading under which docs/why.md shows it.
fn cases() -> Vec<(&'static str, String)> {
    let flow = project();
    let manifest = "pipelines/speed.kdl";
    let run = || {
        flow.flow(&["run", manifest, "--quiet"]).exits(0);
    };
    let ask = |more: &[&str]| shown(&flow, &[&["why", "9db3419a", manifest], more].concat());
    let mut cases = Vec::new();

    flow.replace("pipelines/prompts/optimise.md", "Do not change its result.", "Keep its result, and its signature.");
    cases.push(("You edited the prompt", ask(&[])));
    commit(&flow, "Ada", "Say what must stay");
    run();

    flow.replace("pipelines/configs/careful.yaml", "temperature: 0.2", "temperature: 0.7");
    commit(&flow, "Ada", "Warmer");
    cases.push(("Somebody else changed the agent's config", ask(&[])));
    run();

    flow.replace("tests/9db3419a.py", "ROUNDS = 3", "ROUNDS = 4");
    commit(&flow, "Ben", "One more round");
    cases.push(("The test of one commit changed", ask(&[])));
    run();

    python(&flow, "2.0.0");
    cases.push(("A package of the machine was upgraded", ask(&[])));
    run();

    flow.write("scripts/9db3419a.json", "{\"delay\": \"60s\"}\n");
    commit(&flow, "Ada", "A slower agent");
    run();
    flow.replace(manifest, "timeout \"2s\"", "timeout \"3s\"");
    cases.push(("A time limit was raised", ask(&[])));
    flow.replace(manifest, "timeout \"3s\"", "timeout \"2s\"");

    cases.push(("Nothing changed, and you wonder whether it should have", ask(&["--key", "--step", "patched"])));
    cases
}

/// The text without what differs from run to run: ids, times and ages.
fn steady(text: &str) -> String {
    let mut text = text.to_owned();
    for (what, with) in [
        (r"\d{8}T\d{6}Z-[0-9a-f]+-\d+", "ATTEMPT"),
        (r"\b[0-9a-f]{12}\b", "KEY"),
        (r"\b[0-9a-f]{8}\b", "ID"),
        (r"\d+ (s|min|h|days) ago", "AGO"),
        // Told only from a second on, which a quiet machine may not need.
        (r"\n\s*expected time: .*", ""),
        // How long the agents worked, on one line or two.
        (r"(?s)cost unknown, .*?\n\s*expected cost", "cost unknown, TIME\n    expected cost"),
    ] {
        text = Regex::new(what).unwrap().replace_all(&text, with).into_owned();
    }
    text
}

#[test]
fn the_manual_shows_what_the_program_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/why.md");
    let mut page = std::fs::read_to_string(path).unwrap();
    for (heading, said) in cases() {
        let block: String =
            said.trim_end().lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect();
        let head = format!("### {heading}\n");
        let at = page.find(&head).unwrap_or_else(|| panic!("docs/why.md has no section `{heading}`")) + head.len();
        let begin = at + page[at..].find("\n    ").unwrap() + 1;
        let end = page[begin..].lines().take_while(|line| line.is_empty() || line.starts_with("    "));
        let end = begin + end.map(|line| line.len() + 1).sum::<usize>();
        let in_manual = page[begin..end].trim_end().to_owned() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            page.replace_range(begin..begin + in_manual.len(), &block);
        } else {
            assert_eq!(steady(&in_manual), steady(&block), "docs/why.md, {heading}: UPDATE_DOCS=1 writes it anew");
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page).unwrap();
    }
}
