//! The promise of versions over all kinds of edits: what `history` and `--between` say of a commit is what a run then executes, or
//! more where they say "at most"; and what changed only by how steps are bound is traced to the commit that bound them so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::{Flow, git, title, until};

/// One edit of a project, in a commit of its own.
struct Edit {
    what: &'static str,
    make: fn(&Flow),
    /// What has a reason of its own and is executed, by step.
    runs: &'static [(&'static str, usize)],
    /// What may be, besides: it follows, or is not known before it is tried.
    at_most: &'static [(&'static str, usize)],
    /// What is executed in all.
    executed: &'static [(&'static str, usize)],
}

const NOTHING: &[(&str, usize)] = &[];

fn project() -> Flow {
    let flow = Flow::sample();
    flow.write("prompts/task.md", "Make it faster.\n");
    flow.write("configs/tidy.yaml", "# how it works\nmodel:\n  temperature: 0.2\n");
    flow.edit("agents.kdl", |text| {
        text.replace("agent scripted { run ", "agent scripted { run \"sh\" \"-c\" \"cat $0 $1 >/dev/null; shift; exec \\\"$@\\\"\" \"{config}\" \"{prompt}\" ")
    });
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"configs/tidy.yaml\"");
    flow.add("step agent { prompt file=\"prompts/task.md\" }");
    flow.add("step patched {\n        set MODE \"plain\"\n    }");
    flow.program("asked.sh", "#!/bin/sh\n[ \"$1\" = --version ] && exec cat \"${0%/*}/answer.txt\"\nexec \"$@\"\n");
    flow.write("answer.txt", "1.0\n");
    flow.write(".gitignore", "/cache/\n/repo/\n");
    git(&flow.path("."), &["init", "-q", "-b", "main"]);
    commit(&flow, "start");
    flow
}

/// In a second of its own: git's clock knows no less, and by it a commit is held against a run.
fn commit(flow: &Flow, subject: &str) {
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = second();
    until("the next second", || second() > now);
    git(&flow.path("."), &["add", "-A"]);
    git(&flow.path("."), &["commit", "-q", "-m", subject]);
    let now = second();
    until("the next second", || second() > now);
}

fn edits() -> Vec<Edit> {
    const CHAIN: &[(&str, usize)] = &[("patch", 2), ("patched", 2), ("classify", 2)];
    let edit = |what, make, runs, at_most, executed| Edit { what, make, runs, at_most, executed };
    vec![
        edit("a prompt", |f| f.write("prompts/task.md", "Be fast.\n"), &[("agent", 2)], CHAIN, &[("agent", 2)]),
        edit(
            "a config's value",
            |f| f.replace("configs/tidy.yaml", "0.2", "0.7"),
            &[("agent", 2)],
            CHAIN,
            &[("agent", 2)],
        ),
        edit("its comment", |f| f.replace("configs/tidy.yaml", "# how", "# why"), NOTHING, NOTHING, NOTHING),
        edit(
            "an adapter's version",
            |f| f.replace("agents.kdl", "\"{args}\"; version \"1\"", "\"{args}\"; version \"2\""),
            &[("agent", 2)],
            CHAIN,
            &[("agent", 2)],
        ),
        edit(
            "a variable of the test",
            |f| f.replace("m.kdl", "MODE \"plain\"", "MODE \"fancy\""),
            &[("baseline", 2), ("patched", 4)],
            &[("classify", 4)],
            &[("baseline", 2), ("patched", 4), ("classify", 4)],
        ),
        edit(
            "a test script",
            |f| f.edit("tests/{one}.py", |text| format!("{text}\n# a thought\n")),
            &[("baseline", 1), ("patched", 2)],
            &[("classify", 2)],
            &[("baseline", 1), ("patched", 2), ("classify", 2)],
        ),
        edit(
            "a given file",
            |f| f.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4"),
            &[("agent", 1)],
            &[("patch", 1), ("patched", 1), ("classify", 1)],
            &[("agent", 1), ("patch", 1), ("patched", 1), ("classify", 1)],
        ),
        edit(
            "a limit raised",
            |f| f.replace("steps.kdl", "after baseline; timeout \"1m\"", "after baseline; timeout \"2m\""),
            NOTHING,
            &[("agent", 4), ("patch", 4), ("patched", 4), ("classify", 4)],
            NOTHING,
        ),
        edit(
            "a limit lowered",
            |f| f.replace("steps.kdl", "after baseline; timeout \"2m\"", "after baseline; timeout \"90s\""),
            NOTHING,
            NOTHING,
            NOTHING,
        ),
        edit(
            "more is ignored",
            |f| f.replace("steps.kdl", "ignore \"*.log\"", "ignore \"*.log\" \"*.tmp\""),
            &[("patch", 4)],
            &[("patched", 4), ("classify", 4)],
            &[("patch", 4)],
        ),
        edit(
            "a test against nothing",
            |f| f.replace("steps.kdl", " against baseline;", ""),
            // The baseline is no longer measured like it.
            &[("baseline", 2), ("patched", 4)],
            &[("classify", 4)],
            &[("baseline", 2), ("patched", 4), ("classify", 4)],
        ),
        edit(
            "a test that needs no rebuild",
            |f| f.replace("steps.kdl", "needs patch rebuild;", "needs patch;"),
            &[("patched", 4), ("classify", 4)],
            NOTHING,
            &[("patched", 4), ("classify", 4)],
        ),
        edit(
            "a class that reads no baseline",
            |f| f.replace("steps.kdl", "needs baseline patch patched", "needs patch patched"),
            &[("classify", 4)],
            NOTHING,
            &[("classify", 4)],
        ),
        edit(
            "another table",
            |f| {
                f.replace(
                    "agents.kdl",
                    "usage lines=\"flow-usage\"",
                    "usage lines=\"flow-usage\"; reading { finished text=stdout match=\"(?m)^done$\" }",
                );
            },
            NOTHING,
            &[("patch", 2), ("patched", 2), ("classify", 2)],
            &[("classify", 2)],
        ),
        edit(
            "a step's other name",
            |f| {
                f.edit("steps.kdl", |text| text.replace("patched", "measured"));
                f.edit("m.kdl", |text| text.replace("step patched", "step measured"));
            },
            NOTHING,
            NOTHING,
            NOTHING,
        ),
        edit(
            "a candidate's other name",
            |f| f.replace("m.kdl", "candidate tidy ", "candidate neat "),
            NOTHING,
            NOTHING,
            NOTHING,
        ),
        edit(
            "one more candidate",
            |f| f.replace("m.kdl", "    candidate human", "    candidate idle agent=nop\n    candidate human"),
            &[("agent", 2)],
            &[("patch", 2), ("measured", 2), ("classify", 2)],
            &[("agent", 2), ("patch", 2), ("classify", 1)],
        ),
        edit(
            "one more sample",
            |f| f.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        samples 2"),
            &[("agent", 2)],
            &[("patch", 2), ("measured", 2), ("classify", 2)],
            &[("agent", 2)],
        ),
        edit(
            "a judgement",
            |f| {
                f.replace(
                    "m.kdl",
                    "    step agent {",
                    "    step classify { judge min-effect=\"1%\"; }\n    step agent {",
                )
            },
            &[("classify", 8)],
            NOTHING,
            &[("classify", 5)],
        ),
        edit(
            "a test script that is gone",
            |f| std::fs::remove_file(f.path(&f.fill("tests/{one}.py"))).unwrap(),
            NOTHING,
            &[("classify", 4)],
            &[("classify", 3)],
        ),
        edit(
            "another one in its place",
            |f| {
                let text = std::fs::read_to_string(f.path(&f.fill("tests/{two}.py"))).unwrap();
                f.write("tests/{one}.py", &text.replace("pkg.work.two", "pkg.work.one"));
            },
            &[("baseline", 1), ("measured", 4)],
            &[("agent", 4), ("patch", 4), ("classify", 4)],
            &[("baseline", 1), ("measured", 2), ("classify", 2)],
        ),
        edit("another gate", |f| f.replace("steps.kdl", " after baseline;", ""), NOTHING, NOTHING, NOTHING),
        edit(
            "another question to a tool",
            |f| f.replace("m.kdl", "probe \"-VV\"", "probe \"--version\" \"--version\""),
            NOTHING,
            // No job needs the build any more either.
            NOTHING,
            NOTHING,
        ),
        edit(
            "a stricter metric",
            |f| f.replace("m.kdl", "min-effect=\"2%\"", "min-effect=\"3%\""),
            // No job needs the baseline any more.
            &[("measured", 8)],
            &[("classify", 8)],
            &[("measured", 4), ("classify", 4)],
        ),
        edit(
            "a rule of reuse and another version",
            |f| {
                f.replace("m.kdl", "samples 2", "samples 2; reuse usable");
                f.replace("agents.kdl", "\"{args}\"; version \"2\"", "\"{args}\"; version \"3\"");
            },
            NOTHING,
            &[("agent", 4), ("patch", 4), ("measured", 4), ("classify", 4)],
            NOTHING,
        ),
        edit("one commit less", |f| f.write("commits.txt", "{two:40}\n"), NOTHING, NOTHING, NOTHING),
        edit(
            "prices, attempts and a comment",
            |f| {
                f.replace("steps.kdl", "attempts 3", "attempts 4");
                f.replace("m.kdl", "flow 1\n", "flow 1\n// the sample\n");
            },
            NOTHING,
            NOTHING,
            NOTHING,
        ),
    ]
}

fn counts(of: &Value) -> BTreeMap<String, usize> {
    let pairs = of.as_array().unwrap().iter();
    pairs.map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].as_u64().unwrap() as usize)).collect()
}

fn wanted(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(step, count)| ((*step).to_owned(), *count)).collect()
}

/// How many actions of each step.
fn by_step<'a>(actions: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for action in actions {
        *counts.entry(action.rsplit(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn what_history_and_between_say_of_a_commit_is_what_is_executed_then() {
    let flow = project();
    flow.run().settles();
    let mut faults = Vec::new();
    for edit in edits() {
        (edit.make)(&flow);
        commit(&flow, edit.what);
        let history = flow.flow(&["history", "m.kdl", "-n", "1", "--json"]).exits(0).json();
        let again = &history["versions"][0]["again"];
        assert!(again.is_object(), "{}: {history:#}\n{}", edit.what, faults.join("\n"));
        assert_eq!(history["versions"][0]["subject"], edit.what);
        let mut wrong = |what: &str, got: String, wanted: String| {
            if got != wanted {
                faults.push(format!("{}: {what}\n  got    {got}\n  wanted {wanted}", edit.what));
            }
        };
        let (runs, at_most) = (counts(&again["steps"]), counts(&again["at_most"]));
        wrong("what history says runs", format!("{runs:?}"), format!("{:?}", wanted(edit.runs)));
        wrong("what it says may run besides", format!("{at_most:?}"), format!("{:?}", wanted(edit.at_most)));
        let between = flow.flow(&["why", "**", "m.kdl", "--between", "HEAD~1", "HEAD", "--json"]).exits(0).json();
        let ran = flow.run();
        ran.settles();
        let executed: BTreeSet<String> = ran.executed().into_iter().collect();
        let by_step = by_step(executed.iter());
        wrong("what is executed", format!("{by_step:?}"), format!("{:?}", wanted(edit.executed)));
        let of = |counts: &BTreeMap<String, usize>, step: &str| counts.get(step).copied().unwrap_or(0);
        for (step, count) in &by_step {
            if *count > of(&runs, step) + of(&at_most, step) {
                wrong("more is executed than history says", format!("{count} {step}"), String::new());
            }
        }
        let fewer = again["may_share"].as_array().cloned().unwrap_or_default();
        for (step, count) in runs.iter().filter(|(step, _)| !fewer.contains(&Value::from(step.as_str()))) {
            if *count > of(&by_step, step) {
                wrong("less is executed than history says for certain", format!("{count} {step}"), String::new());
            }
        }
        // The other way of telling two versions apart says the same, action by action.
        let mut other = BTreeSet::new();
        for job in between["jobs"].as_array().unwrap() {
            let steps = job["steps"].as_array().unwrap().iter();
            other.extend(steps.filter(|step| step["state"] != "same").map(title));
        }
        let untold: Vec<_> = executed.difference(&other).collect();
        wrong("executed, and the same to --between", format!("{untold:?}"), "[]".into());
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
