//! The promise of `plan` and `why` over all kinds of ingredients: what they predict is what is executed, what follows in vain
//! is told as cut off, and the first blamed ingredient is the one that was changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::{Flow, title};

/// One change and all that is to come of it.
struct Case {
    what: &'static str,
    change: fn(&mut Flow),
    /// The actions with a reason of their own, each with its state and the ingredient that is blamed first.
    roots: &'static [(&'static str, &'static str)],
    /// What is announced to follow and is served after all: what it reads came out as before.
    cut: &'static [&'static str],
    /// What is announced to follow and cannot be run: what is upstream left nothing to read.
    left: &'static [&'static str],
}

/// A pipeline with every kind of ingredient: a prompt, a config, a tool with a source tree, a test in counts and one in time.
fn evaluation() -> Flow {
    let mut flow = Flow::sample();
    flow.program("bin/nvidia-smi", "#!/bin/sh\necho '0, GPU-1, Model A'\n");
    flow.program(
        "bin/python",
        "#!/bin/sh\n[ \"$1\" = -VV ] && { echo Python 3; echo numpy 1.0; exit; }\nexec python3 \"$@\"\n",
    );
    flow.program("actor/actor", "#!/bin/sh\n[ \"$1\" = --version ] && { echo actor 1.0; exit; }\ncat \"$1\" \"$2\" >/dev/null; shift 2; exec \"$@\"\n");
    flow.write("actor/lib.txt", "one\n");
    flow.write("prompt.md", "Make it faster.\n");
    flow.write("tidy.yaml", "models: {main: {parallel_tool_calls: true, steps: 30}}\n");
    flow.edit("agents.kdl", |text| {
        text.replace("agent scripted { run ", "agent scripted { run \"{tool.actor}\" \"{prompt}\" \"{config}\" ")
    });
    flow.replace("m.kdl", "tool python \"python3\"", "tool python \"./bin/python\"");
    flow.replace(
        "m.kdl",
        "agent=scripted {",
        "agent=scripted {\n        config \"tidy.yaml\"\n        set LEVEL \"1\"",
    );
    flow.replace(
        "m.kdl",
        "        tests dir",
        "        tests dir=\"tests\" name=\"{commit.id8}.py\" contract=flow { only \"{two:40}\"; metric time_s better=lower min-effect=\"3%\" }\n        tests dir",
    );
    flow.replace("tests/{two}.py", "\"ops\": pkg.work.OPS[0]", "\"time_s\": pkg.work.OPS[0] / 1e6");
    flow.add("tool actor \"actor/actor\" { probe \"--version\"; source \"actor\" }");
    flow.add("slots { gpu \"0\" }");
    flow.add("step build { recipe interpreter tool=python }");
    flow.add("step agent { prompt file=\"prompt.md\" }");
    flow.add(
        "step patched { holds gpu=1; set MODE \"a\"; pass hash=#false NOISE; protocol fixed { blocks max=2; seed 1 } }",
    );
    let path = format!("{}:{}", flow.path("bin").display(), support::search_path());
    flow.env("PATH", &path);
    flow.env("NOISE", "1");
    flow.run().settles();
    flow.run().settles().executes_nothing();
    flow
}

/// Chains of the user's own commands.
fn chain() -> Flow {
    let flow = Flow::empty();
    flow.program("bin/step", "#!/bin/sh\n{ echo went through; cat \"$1\"; } > \"$2\"\n");
    for n in ["a", "b"] {
        flow.write(&format!("in/{n}.txt"), &format!("input {n}\n"));
    }
    flow.write(
        "m.kdl",
        r#"flow 1
pipeline chain {
    axis n "a" "b"
    tool step "bin/step"
    step one uses=command { input a "in/{n}.txt"; run "{tool.step}" "{in.a}" "{out.o}" "-x"; output o "one.txt"; set LEVEL "1" }
    step two uses=command { needs one; run "sort" "-o" "{out.o}" "{in.one}"; output o "two.txt" }
}
"#,
    );
    flow.run().settles();
    flow
}

/// `state ingredient`, by action, of what is not served; and those that are roots.
struct Said {
    states: BTreeMap<String, String>,
    roots: BTreeMap<String, String>,
}

impl Said {
    fn of<'a>(actions: impl Iterator<Item = (String, &'a Value)>) -> Self {
        let mut said = Self { states: BTreeMap::new(), roots: BTreeMap::new() };
        for (name, action) in actions {
            let state = action["state"].as_str().unwrap();
            if ["hit", "skipped", "blocked"].contains(&state) {
                continue;
            }
            if action["root"] == true {
                let first = action["changes"][0]["ingredient"].as_str().unwrap_or("");
                said.roots.insert(name.clone(), format!("{state} {first}").trim_end().to_owned());
            }
            said.states.insert(name, state.to_owned());
        }
        said
    }
}

fn plan(flow: &Flow) -> Said {
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).exits(0).json();
    Said::of(plan["actions"].as_array().unwrap().iter().map(|action| (title(action), action)))
}

/// What `why` says of all jobs, and the steps that it calls cut off.
fn why(flow: &Flow, run: &[&str]) -> (Said, BTreeSet<String>) {
    let document = flow.flow(&[&["why", "**", "m.kdl", "--json"], run].concat()).exits(0).json();
    let mut steps = Vec::new();
    for job in document["jobs"].as_array().unwrap() {
        for step in job["steps"].as_array().unwrap() {
            steps.push((title(step), step));
        }
    }
    let cut = steps.iter().filter(|(_, step)| step["cut_off"] == true).map(|(name, _)| name.clone()).collect();
    (Said::of(steps.into_iter()), cut)
}

const OF_TIDY: [&str; 1] = ["[{one} {two}]/tidy/1 [patch patched classify]"];

/// The names that a name with alternatives stands for: `[a b]/1` is `a/1` and `b/1`.
fn spread(name: &str) -> Vec<String> {
    let Some((head, rest)) = name.split_once('[') else { return vec![name.to_owned()] };
    let (all, tail) = rest.split_once(']').expect("each `[` has its `]`");
    all.split(' ').flat_map(|one| spread(&format!("{head}{one}{tail}"))).collect()
}

/// Every case on a copy of its own.
fn hold(base: &Flow, cases: &[Case]) {
    let mut faults = Vec::new();
    for case in cases {
        let mut flow = base.twin();
        (case.change)(&mut flow);
        let filled = |names: &[&str]| {
            names.iter().flat_map(|name| spread(name)).map(|name| flow.fill(&name)).collect::<BTreeSet<String>>()
        };
        let root = |(name, what): &(&str, &str)| {
            let what = (*what).to_owned();
            spread(name).into_iter().map(|name| (flow.fill(&name), what.clone())).collect::<Vec<_>>()
        };
        let roots: BTreeMap<String, String> = case.roots.iter().flat_map(root).collect();
        let mut wrong = |what: &str, got: String, wanted: String| {
            if got != wanted {
                faults.push(format!("{}: {what}\n  got    {got}\n  wanted {wanted}", case.what));
            }
        };
        let planned = plan(&flow);
        wrong("the roots of plan", format!("{:?}", planned.roots), format!("{roots:?}"));
        let (before, _) = why(&flow, &[]);
        wrong("why says what plan says", format!("{:?}", before.states), format!("{:?}", planned.states));
        wrong("why has the roots of plan", format!("{:?}", before.roots), format!("{roots:?}"));
        let ran = flow.run();
        ran.settles();
        let executed: BTreeSet<String> = ran.executed().into_iter().collect();
        let announced: BTreeSet<String> = planned.states.keys().cloned().collect();
        let unannounced: Vec<_> = executed.difference(&announced).collect();
        wrong("executed though not announced", format!("{unannounced:?}"), "[]".into());
        let spared: BTreeSet<String> = announced.difference(&executed).cloned().collect();
        let (cut, left) = (filled(case.cut), filled(case.left));
        wrong("announced and not executed", format!("{spared:?}"), format!("{:?}", &cut | &left));
        let firm: Vec<_> = spared.iter().filter(|name| planned.roots.contains_key(*name)).collect();
        wrong("what has a reason of its own is executed", format!("{firm:?}"), "[]".into());
        let (after, said) = why(&flow, &["--run"]);
        let told: BTreeSet<String> = after.states.keys().cloned().collect();
        wrong("why --run says what was executed", format!("{told:?}"), format!("{executed:?}"));
        wrong("why --run has the roots of plan", format!("{:?}", after.roots), format!("{roots:?}"));
        wrong("why --run says what was cut off", format!("{said:?}"), format!("{cut:?}"));
        println!(
            "{}: predicted {} actions, executed {}, spared {}, blamed {:?}",
            case.what,
            announced.len(),
            executed.len(),
            spared.len(),
            roots.values().collect::<BTreeSet<_>>()
        );
        flow.run().settles().executes_nothing();
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn what_determines_an_agent() {
    let cases = [
        Case {
            what: "a prompt",
            change: |flow| flow.write("prompt.md", "Make it much faster.\n"),
            // It is no ingredient of the human's, whose adapter asks for none.
            roots: &[("[{one} {two}]/tidy/1 agent", "changed prompt")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "a value of a config",
            change: |flow| flow.replace("tidy.yaml", "true", "false"),
            roots: &[("[{one} {two}]/tidy/1 agent", "changed config")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "an argument of the adapter",
            change: |flow| flow.replace("agents.kdl", "\"--patch\"", "\"--exit\" \"0\" \"--patch\""),
            roots: &[("[{one} {two}]/tidy/1 agent", "changed argv")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "a file of the agent, that gives another patch",
            change: |flow| flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4"),
            roots: &[("{one}/tidy/1 agent", "changed file patch")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "a file of the agent, that gives none any more",
            change: |flow| std::fs::remove_file(flow.path("patches/tidy/{one}.patch")).unwrap(),
            roots: &[("{one}/tidy/1 agent", "changed file patch")],
            cut: &[],
            left: &["{one}/tidy/1 patched"],
        },
        Case {
            what: "a variable of the candidate",
            change: |flow| flow.replace("m.kdl", "LEVEL \"1\"", "LEVEL \"2\""),
            roots: &[("[{one} {two}]/tidy/1 agent", "changed env LEVEL")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "the version of the adapter",
            change: |flow| flow.replace("agents.kdl", "\"{args}\"; version \"1\"", "\"{args}\"; version \"2\""),
            roots: &[("[{one} {two}]/tidy/1 agent", "changed version")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "the answer of the agent's tool",
            change: |flow| flow.replace("actor/actor", "actor 1.0", "actor 1.1"),
            roots: &[("[{one} {two}]/tidy/1 agent", "changed tool actor")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "a file of the source tree of the agent's tool",
            change: |flow| flow.write("actor/lib.txt", "two\n"),
            roots: &[("[{one} {two}]/tidy/1 agent", "changed source actor")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "the model",
            change: |flow| flow.replace("m.kdl", "config \"tidy.yaml\"", "config \"tidy.yaml\"\n        model \"m-1\""),
            roots: &[("[{one} {two}]/tidy/1 agent", "changed model")],
            cut: &OF_TIDY,
            left: &[],
        },
        Case {
            what: "one more sample",
            change: |flow| flow.replace("m.kdl", "config \"tidy.yaml\"", "config \"tidy.yaml\"\n        samples 2"),
            roots: &[("[{one} {two}]/tidy/2 agent", "new")],
            cut: &["[{one} {two}]/tidy/2 [patch patched classify]"],
            left: &[],
        },
        Case {
            what: "one more candidate",
            change: |flow| {
                let (head, tail) =
                    ("candidate twice agent=scripted { config \"tidy.yaml\"; file patch \"patches/twice/", "}");
                flow.add(&format!("{head}{{commit.id8}}.patch\" optional=#true {tail}"));
                flow.patch("twice", "one", "pkg/work.py", |text| text.replacen("+= 10", "+= 3", 1));
            },
            roots: &[("[{one} {two}]/twice/1 agent", "new")],
            cut: &[],
            left: &["{two}/twice/1 patched"],
        },
    ];
    hold(&evaluation(), &cases);
}

#[test]
fn what_determines_a_commit_a_patch_and_a_measurement() {
    let cases = [
        Case {
            what: "the base of a commit",
            change: |flow| flow.write("commits.txt", "{one:40}\n{two:40} {start:40}\n"),
            roots: &[("{two} checkout", "changed base rule")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "one more protected path",
            change: |flow| flow.add("step patch { protect \"tests/**\" \"docs/**\" }"),
            roots: &[
                ("[{one} {two}] checkout", "changed protect"),
                ("[{one} {two}]/[human tidy]/1 patch", "changed protect"),
            ],
            cut: &["[{one} {two}] baseline", "[{one} {two}]/[human tidy]/1 [agent patched classify]"],
            left: &[],
        },
        Case {
            what: "one more ignored path",
            change: |flow| flow.add("step patch { ignore \"*.log\" \"*.tmp\" }"),
            roots: &[("[{one} {two}]/[human tidy]/1 patch", "changed ignore")],
            cut: &["[{one} {two}]/[human tidy]/1 [patched classify]"],
            left: &[],
        },
        Case {
            what: "the script of a test",
            change: |flow| flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n")),
            roots: &[("{one} baseline", "changed script"), ("{one}/[human tidy]/1 patched", "changed script")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the arguments of a test",
            change: |flow| flow.replace("m.kdl", "set MODE", "run \"{interpreter}\" \"-B\" \"{script}\"; set MODE"),
            roots: &[
                ("[{one} {two}] baseline", "changed argv"),
                ("[{one} {two}]/[human tidy]/1 patched", "changed argv"),
            ],
            cut: &[],
            left: &[],
        },
        Case {
            what: "a variable of a test",
            change: |flow| flow.replace("m.kdl", "MODE \"a\"", "MODE \"b\""),
            roots: &[
                ("[{one} {two}] baseline", "changed env MODE"),
                ("[{one} {two}]/[human tidy]/1 patched", "changed env MODE"),
            ],
            cut: &[],
            left: &[],
        },
        Case {
            what: "a variable that is passed to a test and in no key",
            change: |flow| flow.env("NOISE", "2"),
            roots: &[],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the smallest effect of a metric",
            change: |flow| flow.replace("m.kdl", "min-effect=\"3%\"", "min-effect=\"4%\""),
            roots: &[("{two} baseline", "changed metrics"), ("{two}/[human tidy]/1 patched", "changed metrics")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the profile of the protocol",
            change: |flow| flow.replace("m.kdl", "protocol fixed", "protocol screen"),
            roots: &[("{two}/[human tidy]/1 patched", "changed profile")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the number of blocks of a fixed protocol",
            change: |flow| flow.replace("m.kdl", "blocks max=2", "blocks max=3"),
            roots: &[("{two}/[human tidy]/1 patched", "changed blocks")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the seed of the protocol",
            change: |flow| flow.replace("m.kdl", "seed 1", "seed 2"),
            roots: &[("{two}/[human tidy]/1 patched", "changed seed")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the device",
            change: |flow| {
                flow.program("bin2/nvidia-smi", "#!/bin/sh\necho '0, GPU-1, Model B'\n");
                let path = format!("{}:{}", flow.path("bin2").display(), support::search_path());
                flow.env("PATH", &path);
            },
            roots: &[("{two} baseline", "changed device"), ("{two}/[human tidy]/1 patched", "changed device")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the answer of the interpreter",
            change: |flow| flow.replace("bin/python", "numpy 1.0", "numpy 1.1"),
            // The build is one for all commits: the first in the plan is blamed, the others share its key.
            roots: &[("{two} build", "changed interpreter")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the judgement of the classes",
            change: |flow| flow.add("step classify { judge min-effect=\"1%\" }"),
            roots: &[("[{one} {two}]/[human tidy]/1 classify", "changed judge")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "names, limits, comments and what else is in no key",
            change: |flow| {
                flow.replace("m.kdl", "candidate tidy", "// neat\n    candidate neat");
                flow.replace("steps.kdl", "timeout \"1m\"", "timeout \"2m\"");
                flow.write("tidy.yaml", "# why\nmodels: {main: {steps: 30, parallel_tool_calls: true}}\n");
            },
            roots: &[],
            cut: &[],
            left: &[],
        },
        Case {
            what: "several at once",
            change: |flow| {
                flow.replace("tidy.yaml", "steps: 30", "steps: 31");
                flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
                flow.add("step patch { ignore \"*.log\" \"*.tmp\" }");
                flow.replace("m.kdl", "seed 1", "seed 2");
            },
            roots: &[
                ("{one} baseline", "changed script"),
                ("{one}/[human tidy]/1 patched", "changed script"),
                ("{two}/[human tidy]/1 patched", "changed seed"),
                ("[{one} {two}]/[human tidy]/1 patch", "changed ignore"),
                ("[{one} {two}]/tidy/1 agent", "changed config"),
            ],
            cut: &[],
            left: &[],
        },
    ];
    hold(&evaluation(), &cases);
}

#[test]
fn what_determines_a_command() {
    let cases = [
        Case {
            what: "an argument",
            change: |flow| flow.replace("m.kdl", "\"-x\"", "\"-y\""),
            roots: &[("a one", "changed argv"), ("b one", "changed argv")],
            cut: &["a two", "b two"],
            left: &[],
        },
        Case {
            what: "a variable",
            change: |flow| flow.replace("m.kdl", "LEVEL \"1\"", "LEVEL \"2\""),
            roots: &[("a one", "changed env LEVEL"), ("b one", "changed env LEVEL")],
            cut: &["a two", "b two"],
            left: &[],
        },
        Case {
            what: "an input",
            change: |flow| flow.write("in/a.txt", "another\n"),
            roots: &[("a one", "changed in a")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "an input whose lines are in another order in the end",
            change: |flow| flow.replace("m.kdl", "\"sort\" \"-o\"", "\"sort\" \"-u\" \"-o\""),
            roots: &[("a two", "changed argv"), ("b two", "changed argv")],
            cut: &[],
            left: &[],
        },
        Case {
            what: "the bytes of a tool, which does the same",
            change: |flow| flow.edit("bin/step", |text| format!("{text}# a comment\n")),
            roots: &[("a one", "changed tool step"), ("b one", "changed tool step")],
            cut: &["a two", "b two"],
            left: &[],
        },
        Case {
            what: "the outputs",
            change: |flow| flow.replace("m.kdl", "output o \"one.txt\"", "output o \"uno.txt\""),
            roots: &[("a one", "changed outputs"), ("b one", "changed outputs")],
            cut: &["a two", "b two"],
            left: &[],
        },
        Case {
            what: "one more value of an axis",
            change: |flow| {
                flow.write("in/c.txt", "input c\n");
                flow.replace("m.kdl", "\"a\" \"b\"\n", "\"a\" \"b\" \"c\"\n");
            },
            roots: &[("c one", "new")],
            cut: &[],
            left: &[],
        },
    ];
    hold(&chain(), &cases);
}
