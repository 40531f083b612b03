//! The promise of order: slots and lanes are never held by too many, a gate that is shut costs nothing, and a selection is
//! what runs.
//!
//! Every process appends a line to one log as it begins and as it ends; the log is then read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::{Flow, title};

/// A manifest of commands alone: `count` values of an axis, each a command that logs, with nodes of the test's own.
fn commands(values: &[&str], slots: &str, steps: &str) -> Flow {
    let flow = Flow::empty();
    flow.write("m.kdl", "");
    let log = flow.beside("log");
    flow.write(
        "bin/step",
        &format!(
            r#"#!/bin/sh
echo "begin $1 ${{FLOW_SLOT:-none}} gpu=[$CUDA_VISIBLE_DEVICES]" >> {log}
while [ "$(grep -c begin {log})" -lt "${{MEET:-1}}" ]; do sleep 0.01; done
while [ -n "$AFTER" ] && ! grep -qs "action-settled.*\"step\":\"$AFTER\"" {journals}; do sleep 0.01; done
echo "$1" > "$2"
echo "end $1 ${{FLOW_SLOT:-none}}" >> {log}
"#,
            log = log.display(),
            journals = flow.cache().join("runs/*/journal.jsonl").display()
        ),
    );
    make_executable(&flow, "bin/step");
    let values: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    flow.write(
        "m.kdl",
        &format!(
            "flow 1\npipeline order {{\n    axis n {}\n    tool step \"bin/step\"\n    {slots}\n    {steps}\n}}\n",
            values.join(" ")
        ),
    );
    flow
}

fn make_executable(flow: &Flow, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(flow.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The lines of the log, in words.
fn log(flow: &Flow) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(flow.beside("log")).unwrap_or_default();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Calls back with what runs, each time something begins: who, and on which slots.
fn at_each_start(flow: &Flow, mut see: impl FnMut(&BTreeMap<String, Vec<String>>)) {
    let mut running = BTreeMap::new();
    for line in log(flow) {
        if line[0] == "begin" {
            running.insert(line[1].clone(), line[2].split(',').map(str::to_owned).collect());
            see(&running);
        } else {
            running.remove(&line[1]);
        }
    }
    assert!(running.is_empty());
}

const STEP: &str = r#"run "{tool.step}" "{n}" "{out.o}"; output o "o.txt""#;

#[test]
fn two_slots_are_held_by_two_at_most_each_by_one() {
    let slots = "slots { cpu \"a\"; cpu \"b\" }";
    let flow = commands(
        &["1", "2", "3", "4", "5", "6"],
        slots,
        &format!("step s uses=command {{ holds cpu=1; set MEET \"2\"; {STEP} }}"),
    );
    flow.run_with(&["--jobs", "6"]).settles();
    let mut together = 0;
    let mut used = BTreeSet::new();
    at_each_start(&flow, |running| {
        let held: Vec<&String> = running.values().flatten().collect();
        let distinct: BTreeSet<&&String> = held.iter().collect();
        assert_eq!(held.len(), distinct.len(), "one slot for two: {running:?}");
        assert!(running.len() <= 2, "{running:?}");
        together = together.max(running.len());
        used.extend(running.values().flatten().cloned());
    });
    assert_eq!(used, BTreeSet::from(["cpu/a".to_owned(), "cpu/b".to_owned()]));
    assert_eq!(together, 2, "both slots work at once");
}

#[test]
fn whoever_holds_two_has_both_or_waits_and_is_not_left_for_last() {
    let slots = "slots { cpu \"a\"; cpu \"b\" }";
    let steps = format!(
        "step wide uses=command {{ holds cpu=2; run \"{{tool.step}}\" \"wide-{{n}}\" \"{{out.o}}\"; output o \"o.txt\" }}\n    step s uses=command {{ holds cpu=1; {STEP} }}"
    );
    let flow = commands(&["1", "2", "3", "4", "5", "6"], slots, &steps);
    flow.run_with(&["--jobs", "8"]).settles();
    let mut order = Vec::new();
    at_each_start(&flow, |running| {
        if running.keys().any(|name| name.starts_with("wide")) {
            assert_eq!(running.len(), 1, "{running:?}");
            assert_eq!(running.values().next().unwrap(), &["cpu/a", "cpu/b"]);
        }
        order.push(running.clone());
    });
    assert_eq!(order.len(), 12);
}

#[test]
fn a_wide_action_is_not_starved_by_narrow_ones() {
    // Both slots are held by narrow ones until the wide one is ready.
    let slots = "slots { cpu \"a\"; cpu \"b\" }";
    let steps = "step first uses=command { run \"{tool.step}\" \"first-{n}\" \"{out.o}\"; output o \"o.txt\" }
    step wide uses=command { needs first; holds cpu=2; run \"{tool.step}\" \"wide-{n}\" \"{out.o}\"; output o \"o.txt\" }
    step tail uses=command { needs wide; run \"{tool.step}\" \"tail-{n}\" \"{out.o}\"; output o \"o.txt\" }
    step narrow uses=command { each m; holds cpu=1; set AFTER \"first\"; run \"{tool.step}\" \"narrow-{n}-{m}\" \"{out.o}\"; output o \"o.txt\" }
    axis m \"1\" \"2\" \"3\" \"4\" \"5\" \"6\" \"7\" \"8\" \"9\"";
    let flow = commands(&["x"], slots, steps);
    flow.run_with(&["--jobs", "4"]).settles();
    let begun: Vec<String> =
        log(&flow).into_iter().filter(|line| line[0] == "begin").map(|line| line[1].clone()).collect();
    let at = begun.iter().position(|name| name == "wide-x").unwrap();
    assert!(at <= 3, "the wide action waited for the narrow ones: {begun:?}");
}

#[test]
fn a_lane_is_as_wide_as_it_says() {
    let flow = commands(
        &["1", "2", "3", "4", "5", "6"],
        "slots { lane api 2 }",
        &format!("step s uses=command {{ holds api=1; {STEP} }}"),
    );
    flow.run_with(&["--jobs", "6"]).settles();
    at_each_start(&flow, |running| assert!(running.len() <= 2, "{running:?}"));
}

#[test]
fn one_job_at_a_time_is_one_process_at_a_time() {
    let flow = commands(&["1", "2", "3", "4"], "", &format!("step s uses=command {{ {STEP} }}"));
    flow.run_with(&["--jobs", "1"]).settles();
    at_each_start(&flow, |running| assert_eq!(running.len(), 1));
}

#[test]
fn a_step_without_a_gpu_sees_none() {
    let flow = commands(&["1"], "", &format!("step s uses=command {{ {STEP} }}"));
    flow.run().settles();
    assert_eq!(log(&flow)[0][3], "gpu=[]");
}

#[test]
fn what_holds_a_gpu_that_is_not_there_does_not_begin_and_what_is_stored_is_served() {
    use std::fmt::Write;
    let mut flow =
        commands(&["1", "2"], "slots { gpu \"7\" }", &format!("step s uses=command {{ {STEP}; holds gpu=1 }}"));
    flow.write("bin/nvidia-smi", "#!/bin/sh\necho 0, GPU-a, H100\n");
    make_executable(&flow, "bin/nvidia-smi");
    let mut path = flow.path("bin").display().to_string();
    let _ = write!(path, ":{}", std::env::var("PATH").unwrap());
    flow.env("PATH", &path);
    flow.run().exits(2).says("there is no GPU 7 on this machine").says("with the devices that `slots` declares");
    flow.flow(&["plan", "m.kdl"]).settles().says("there is no GPU 7 on this machine");
    assert!(log(&flow).is_empty());
    flow.write("bin/nvidia-smi", "#!/bin/sh\necho 7, GPU-a, H100\n");
    flow.run().settles();
    flow.write("bin/nvidia-smi", "#!/bin/sh\necho no driver >&2; exit 9\n");
    flow.run().settles().executes_nothing();
}

#[test]
fn a_test_that_counts_does_not_begin_without_the_gpu_that_it_holds() {
    let flow = Flow::sample();
    flow.add("slots { gpu \"7\" }\nstep patched { holds gpu=1 }");
    flow.run().exits(2).says("no GPU");
    assert!(flow.lines().is_empty());
    flow.run_with(&["--until", "build"]).settles();
}

#[test]
fn an_agent_is_not_paid_for_a_commit_whose_baseline_fails_but_served_if_it_was() {
    let flow = Flow::sample();
    flow.run_with(&["--commit", flow.id("two")]).settles();
    for name in ["one", "two"] {
        flow.edit(&format!("tests/{{{name}}}.py"), |text| format!("import no_such_module\n{text}"));
    }
    let ran = flow.run();
    ran.settles();
    for job in ["{one}/human/1", "{one}/tidy/1", "{two}/tidy/1"] {
        assert_eq!(ran.class(job), "BASELINE_IMPORT_ERROR");
    }
    assert!(!ran.executed().iter().any(|action| action.ends_with("agent")), "{:?}", ran.executed());
    let served: Vec<String> = ran
        .events()
        .iter()
        .filter(|event| event["event"] == "action-settled" && event["step"] == "agent")
        .map(title)
        .collect();
    assert_eq!(served.len(), 2, "what is there is served: {served:?}");
    assert!(served.iter().all(|action| action.starts_with(&flow.fill("{two}"))), "{served:?}");
}

#[test]
fn the_candidates_of_a_commit_go_together() {
    let flow = Flow::sample();
    flow.add("candidate nop agent=nop");
    let ran = flow.run_with(&["--jobs", "1"]);
    ran.settles();
    let started = ran.events().into_iter().filter(|event| event["event"] == "action-started");
    let mut commits: Vec<String> =
        started.filter(|event| event["step"] == "agent").map(|event| event["axes"]["commit"].to_string()).collect();
    assert_eq!(commits.len(), 6);
    commits.dedup();
    assert_eq!(commits.len(), 2, "{commits:?}");
}

#[test]
fn a_selection_is_what_runs() {
    let flow = Flow::sample();
    let ran = flow.run_with(&["--only", "*/*/tidy/*", "--until", "patch"]);
    ran.settles();
    // The gate before the agent belongs to it.
    let steps: BTreeSet<String> =
        ran.executed().iter().map(|action| action.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(
        steps.iter().map(String::as_str).collect::<Vec<_>>(),
        ["agent", "baseline", "build", "checkout", "patch"]
    );
    assert!(!ran.executed().iter().any(|action| action.contains("human")), "{:?}", ran.executed());
    let one = flow.run_with(&["--commit", &flow.fill("{one}")]);
    one.settles().executes(&[
        "{one}/human/1 agent",
        "{one}/human/1 classify",
        "{one}/human/1 patch",
        "{one}/human/1 patched",
        "{one}/tidy/1 classify",
        "{one}/tidy/1 patched",
    ]);
    assert_eq!(one.classes().len(), 2);
    flow.run().settles();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 20");
    let slower = flow.run();
    assert_eq!(slower.settles().class("{one}/tidy/1"), "SUCCESS_REGRESSION");
    flow.edit("agents.kdl", |text| text.replace("version \"1\"; usage", "version \"2\"; usage"));
    flow.run_with(&["--class", "SUCCESS_REGRESSION"]).settles().executes(&["{one}/tidy/1 agent"]);
    flow.run_with(&["--class", "NO_SUCH_CLASS"]).exits(2);
    flow.run_with(&["--only", "nothing/*"]).exits(2);
    flow.run_with(&["--until", "nothing"]).exits(2);
}
