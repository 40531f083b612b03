//! The promise of keys: what changed runs again, what did not is served, wherever the folder lies and whatever things are called.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use support::{Flow, copy, git, until};

/// All that depends on one commit's test.
const MEASURES_OF_ONE: [&str; 5] = [
    "{one} baseline",
    "{one}/human/1 patched",
    "{one}/tidy/1 patched",
    "{one}/human/1 classify",
    "{one}/tidy/1 classify",
];

#[test]
fn a_second_run_does_nothing() {
    let flow = Flow::sample();
    let first = flow.run();
    first.settles();
    assert_eq!(first.class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(first.class("{two}/tidy/1"), "SUCCESS_IMPROVEMENT");
    flow.run().settles().executes_nothing();
}

#[test]
fn one_byte_in_one_patch_runs_that_job_again() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4");
    flow.run().settles().executes(&[
        "{one}/tidy/1 agent",
        "{one}/tidy/1 patch",
        "{one}/tidy/1 patched",
        "{one}/tidy/1 classify",
    ]);
    flow.run().settles().executes_nothing();
    // What was there is there still.
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 4", "+        OPS[0] += 5");
    flow.run().settles().executes_nothing();
}

#[test]
fn a_changed_test_script_measures_that_commit_again_and_pays_no_agent() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    let ran = flow.run();
    // The new samples are other bytes, so that the verdict on them is another action.
    ran.settles().executes(&MEASURES_OF_ONE);
}

#[test]
fn a_comment_in_the_manifest_changes_nothing() {
    let flow = Flow::sample();
    flow.run().settles();
    for file in ["m.kdl", "steps.kdl", "agents.kdl"] {
        flow.edit(file, |text| format!("{text}// a comment\n"));
    }
    flow.edit("commits.txt", |text| format!("# a comment\n{text}"));
    flow.run().settles().executes_nothing();
}

#[test]
fn a_config_counts_by_its_values() {
    let flow = Flow::sample();
    flow.write("tidy.yaml", "steps: 30\nnested: {a: 1, b: 2}\n");
    flow.edit("agents.kdl", |text| {
        text.replace(
            "agent scripted { run ",
            "agent scripted { run \"sh\" \"-c\" \"cat $0; exec \\\"$@\\\"\" \"{config}\" ",
        )
    });
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"tidy.yaml\"");
    flow.run().settles();
    flow.write("tidy.yaml", "# why thirty\nnested:\n  b: 2\n  a: 1\nsteps: 30\n");
    flow.run().settles().executes_nothing();
    flow.write("tidy.yaml", "steps: 31\nnested: {a: 1, b: 2}\n");
    // The same patches come out of it: nothing beyond the agent runs.
    flow.run().settles().executes(&["{one}/tidy/1 agent", "{two}/tidy/1 agent"]);
    // The same value in another notation is another file to the agent, which may not be able to read it.
    flow.write("tidy.json", "{\"steps\": 31, \"nested\": {\"a\": 1, \"b\": 2}}");
    flow.replace("m.kdl", "tidy.yaml", "tidy.json");
    flow.run().settles().executes(&["{one}/tidy/1 agent", "{two}/tidy/1 agent"]);
}

#[test]
fn a_variable_that_is_passed_unhashed_hides_no_result_where_it_is_not_set() {
    let mut flow = Flow::sample();
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        pass GATEWAY hash=#false");
    flow.env("GATEWAY", "http://localhost:1");
    flow.run().settles();
    flow.without("GATEWAY");
    flow.run().settles().executes_nothing();
    flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"]).settles().says("SUCCESS_IMPROVEMENT");
    // What has to be executed needs it, and says so before anything is.
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        set NEW \"1\"");
    flow.run().exits(2).says("the variable GATEWAY is not set");
    flow.flow(&["plan", "m.kdl"]).settles().says("the variable GATEWAY is not set");
}

#[test]
fn where_a_tool_is_not_there_results_are_shown_as_they_were_recorded() {
    let mut flow = Flow::sample();
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        set HERE \"{var.HERE}\"");
    flow.env("HERE", "this machine");
    flow.run().settles();
    flow.without("HERE");
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"]);
    shown.settles().says("SUCCESS_IMPROVEMENT").says("as it was last recorded, for here the variable HERE is not set");
    flow.flow(&["show", "{one}", "m.kdl"]).settles().says("SUCCESS_IMPROVEMENT").says("as it was last recorded");
    flow.run().exits(2);
}

#[test]
fn another_judgement_classifies_anew_and_measures_nothing() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.add("step classify { judge min-effect=\"1%\" }");
    let all = ["{one}/human/1 classify", "{one}/tidy/1 classify", "{two}/human/1 classify", "{two}/tidy/1 classify"];
    flow.run().settles().executes(&all);
}

#[test]
fn a_raised_timeout_runs_only_what_had_met_it_and_a_lowered_one_keeps_all() {
    let flow = Flow::sample();
    flow.write("scripts/tidy/{one}.json", r#"{"delay": "60s"}"#);
    flow.add("step agent { timeout \"2s\" }");
    let first = flow.run();
    first.settles();
    assert_eq!(first.events().iter().filter(|event| event["outcome"] == "TIMEOUT").count(), 1);
    // It left a patch all the same, which is measured.
    assert_eq!(first.class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    flow.run().settles().executes_nothing();
    flow.replace("m.kdl", "timeout \"2s\"", "timeout \"2500ms\"");
    flow.run().settles().executes(&["{one}/tidy/1 agent"]);
    flow.replace("m.kdl", "timeout \"2500ms\"", "timeout \"1500ms\"");
    let lowered = flow.run();
    lowered.settles().executes_nothing();
    let marked: Vec<String> =
        lowered.events().iter().filter(|event| event["marks"][0] == "OVER_LIMIT").map(support::title).collect();
    assert_eq!(marked, [flow.fill("{one}/tidy/1 agent")]);
}

#[test]
fn a_folder_copied_elsewhere_is_the_same_project() {
    let flow = Flow::sample();
    flow.run().settles();
    let elsewhere = flow.beside("far/away");
    copy(&flow.path(""), &elsewhere);
    std::fs::rename(flow.path(""), flow.beside("gone")).unwrap();
    let output = flow.command(&["run", "m.kdl", "--json"]).current_dir(&elsewhere).output().unwrap();
    flow.ran(output).settles().executes_nothing();
}

#[test]
fn names_of_steps_candidates_and_pipelines_are_in_no_key() {
    let flow = Flow::sample();
    flow.run().settles();
    for (old, new) in [("baseline", "before"), ("patched", "after_it"), ("checkout", "base"), ("rebuild", "make_again")]
    {
        flow.edit("steps.kdl", |text| {
            let text = text.replace(&format!("step {old} "), &format!("step {new} "));
            let uses = format!("uses={old}");
            text.replace(&uses, "uses=?").replace(&format!(" {old}"), &format!(" {new}")).replace("uses=?", &uses)
        });
    }
    flow.edit("m.kdl", |text| {
        text.replace("candidate human", "candidate oracle")
            .replace("candidate tidy", "candidate neat")
            .replace("pipeline sample", "pipeline other")
    });
    flow.run().settles().executes_nothing();
}

#[test]
fn more_samples_and_another_candidate_run_only_what_is_new() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.replace("m.kdl", "candidate tidy agent=scripted {", "candidate tidy agent=scripted {\n        samples 3");
    let new = ["{one}/tidy/2 agent", "{one}/tidy/3 agent", "{two}/tidy/2 agent", "{two}/tidy/3 agent"];
    // A draw that gives the same patch needs no measurement of its own.
    flow.run().settles().executes(&new);
    flow.add("candidate nop agent=nop");
    let ran = flow.run();
    let (classified, mut executed): (Vec<_>, Vec<_>) =
        ran.settles().executed().into_iter().partition(|action| action.ends_with("classify"));
    executed.sort();
    let mut nops =
        ["{one}/nop/1 agent", "{one}/nop/1 patch", "{two}/nop/1 agent", "{two}/nop/1 patch"].map(|a| flow.fill(a));
    nops.sort();
    assert_eq!(executed, nops);
    // No patch is no patch, whatever the commit: one verdict for both.
    assert_eq!(classified.len(), 1, "{classified:?}");
    flow.run().settles().executes_nothing();
}

#[test]
fn an_agent_that_reproduces_its_patch_under_other_arguments_runs_alone() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.replace(
        "m.kdl",
        "candidate tidy agent=scripted {",
        "candidate tidy agent=scripted {\n        args \"--delay\" \"1ms\"",
    );
    flow.run().settles().executes(&["{one}/tidy/1 agent", "{two}/tidy/1 agent"]);
}

#[test]
fn a_patch_equal_to_the_humans_is_measured_once_and_marked() {
    let flow = Flow::sample();
    for (name, at) in [("one", 0), ("two", 1)] {
        flow.patch("tidy", name, "pkg/work.py", |text| {
            let places: Vec<usize> = text.match_indices("OPS[0] += 10").map(|(at, _)| at).collect();
            // Within the second commit's base the first function is changed already.
            let at = places[at.min(places.len() - 1)];
            format!("{}OPS[0] += 1{}", &text[..at], &text[at + 12..])
        });
    }
    let ran = flow.run();
    ran.settles();
    let patched: Vec<_> = ran
        .events()
        .into_iter()
        .filter(|event| event["event"] == "action-settled" && event["step"] == "patched")
        .collect();
    assert_eq!(patched.len(), 4);
    let shared: Vec<_> = patched.iter().filter(|event| event["cached"] == true).collect();
    assert_eq!(shared.len(), 2, "{patched:#?}");
    assert!(shared.iter().all(|event| event["shared_with"].is_number()), "{shared:#?}");
    // The agent's jobs are marked; the human's own are not the same as anything.
    let classified = flow.ends("classify", "succeeded");
    assert_eq!(classified.len(), 4);
    for line in classified {
        let marked = line["outputs"]["marks"].to_string().contains("SAME_AS_HUMAN");
        assert_eq!(marked, line["axes"]["candidate"] == "tidy", "{line:#?}");
    }
    flow.flow(&["run", "m.kdl"]).settles().says("same as human");
}

#[test]
fn a_variable_set_on_a_step_is_an_ingredient_of_it() {
    let flow = Flow::sample();
    flow.add("step patched { set THREADS \"1\" }");
    flow.run().settles();
    flow.replace("m.kdl", "THREADS \"1\"", "THREADS \"2\"");
    let ran = flow.run();
    ran.settles();
    let executed = ran.executed();
    assert!(executed.contains(&flow.fill("{one} baseline")), "{executed:?}");
    assert!(!executed.iter().any(|action| action.ends_with("agent") || action.ends_with(" patch")), "{executed:?}");
}

#[test]
fn a_tools_answer_to_its_probe_is_an_ingredient() {
    let flow = Flow::sample();
    flow.write(
        "bin/py",
        "#!/bin/sh\n[ \"$1\" = -VV ] && { cat \"$(dirname \"$0\")/version\"; exit; }\nexec python3 \"$@\"\n",
    );
    flow.write("bin/version", "one\n");
    make_executable(&flow, "bin/py");
    flow.replace(
        "m.kdl",
        "tool python \"python3\" { probe \"-VV\" }",
        "tool python \"bin/py\" { probe \"-VV\"; watch \"bin\" }",
    );
    flow.run().settles();
    flow.edit("bin/py", |text| format!("{text}# a comment, and the answer is the same\n"));
    flow.run().settles().executes_nothing();
    flow.write("bin/version", "two\n");
    let ran = flow.run();
    ran.settles();
    let agents: Vec<_> = ran.executed().into_iter().filter(|action| action.ends_with("agent")).collect();
    assert!(agents.is_empty(), "{agents:?}");
    assert!(ran.executed().contains(&flow.fill("{two} baseline")), "{:?}", ran.executed());
}

#[test]
fn a_file_edited_while_the_run_goes_on_belongs_to_the_next_run() {
    let flow = Flow::sample();
    let (waits, go) = (flow.signs().join("waits"), flow.signs().join("go"));
    let argv = format!(
        r#"{{"argv": ["sh", "-c", "echo > {}; while [ ! -e {} ]; do read -t 0.01 x </dev/null; sleep 0.01; done"]}}"#,
        waits.display(),
        go.display()
    );
    flow.write("scripts/tidy/{one}.json", &argv);
    flow.write("scripts/tidy/{two}.json", &argv);
    let running =
        flow.command(&["run", "m.kdl", "--json", "--jobs", "1"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("an agent is at work", || waits.exists());
    // One agent waits, the other has not begun; tests have not begun.
    for name in ["one", "two"] {
        flow.replace(&format!("patches/tidy/{{{name}}}.patch"), "+        OPS[0] += 5", "+        OPS[0] += 20");
    }
    flow.edit("commits.txt", |text| text.lines().take(1).map(|line| format!("{line}\n")).collect());
    std::fs::write(&go, "").unwrap();
    let ran = flow.ran(running.wait_with_output().unwrap());
    ran.settles();
    for job in ["{one}/tidy/1", "{two}/tidy/1"] {
        assert_eq!(ran.class(job), "SUCCESS_IMPROVEMENT");
    }
    let next = flow.run();
    next.settles().executes(&[
        "{one}/tidy/1 agent",
        "{one}/tidy/1 patch",
        "{one}/tidy/1 patched",
        "{one}/tidy/1 classify",
    ]);
    assert_eq!(next.class("{one}/tidy/1"), "SUCCESS_REGRESSION");
}

#[test]
fn where_a_repository_comes_from_is_in_no_key() {
    let flow = Flow::sample();
    flow.run().settles();
    std::fs::rename(flow.path("repo"), flow.beside("clone")).unwrap();
    let url = format!("file://{}", flow.beside("clone").display());
    flow.replace("m.kdl", "repo pkg \"repo\"", &format!("repo pkg \"{url}\""));
    flow.run().settles().executes_nothing();
    let local = format!("pkg={}", flow.beside("clone").display());
    flow.replace("m.kdl", &url, "https://nowhere.invalid/pkg.git");
    flow.run_with(&["--repo", &local]).settles().executes_nothing();
    // A test that changed needs the trees: it gets them from the local clone.
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    flow.run_with(&["--repo", &local]).settles().executes(&MEASURES_OF_ONE);
}

#[test]
fn the_store_lies_where_it_is_told_to() {
    let mut flow = Flow::sample();
    let (one, two) = (flow.beside("store-1"), flow.beside("store-2"));
    flow.run_with(&["--cache", &one.display().to_string()]).settles();
    assert!(one.join("records/v1").is_dir() && !flow.cache().exists());
    flow.env("FLOW_CACHE", &one.display().to_string());
    flow.run().settles().executes_nothing();
    copy(&one, &two);
    flow.env("FLOW_CACHE", &two.display().to_string());
    flow.run().settles().executes_nothing();
}

#[test]
fn a_commit_by_a_shorter_id_is_the_same_commit() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.write("commits.txt", "{one}\n{two}\n");
    let ran = flow.run();
    ran.settles();
    let beyond: Vec<_> = ran.executed().into_iter().filter(|action| !action.ends_with("checkout")).collect();
    assert!(beyond.is_empty(), "{beyond:?}");
}

#[test]
fn what_is_derived_may_be_deleted() {
    let flow = Flow::sample();
    flow.run().settles();
    std::fs::remove_dir_all(flow.cache().join("index")).unwrap();
    flow.run().settles().executes_nothing();
    flow.edit("tests/{one}.py", |text| format!("{text}# a comment\n"));
    flow.run().settles().executes(&MEASURES_OF_ONE);
}

#[test]
fn a_pipeline_of_commands_runs_exactly_the_chain_of_what_changed() {
    let flow = Flow::empty();
    flow.write("bin/step", "#!/bin/sh\n{ echo went through; cat \"$1\"; } > \"$2\"\n");
    make_executable(&flow, "bin/step");
    flow.write("n.txt", "a\nb\nc\n");
    for n in ["a", "b", "c"] {
        flow.write(&format!("in/{n}.txt"), &format!("input {n}\n"));
    }
    flow.write(
        "m.kdl",
        r#"flow 1
pipeline chain {
    axis n file="n.txt"
    tool step "bin/step"
    step one uses=command { input a "in/{n}.txt"; run "{tool.step}" "{in.a}" "{out.o}"; output o "one.txt" }
    step two uses=command { needs one; run "{tool.step}" "{in.one}" "{out.o}"; output o "two.txt" publish="out/{n}.txt" }
}
"#,
    );
    let published = |n: &str| std::fs::read_to_string(flow.path(&format!("out/{n}.txt"))).unwrap();
    flow.run().settles().executes(&["a one", "a two", "b one", "b two", "c one", "c two"]);
    assert_eq!(published("b"), "went through\nwent through\ninput b\n");
    flow.write("in/b.txt", "another b\n");
    flow.run().settles().executes(&["b one", "b two"]);
    assert_eq!(published("b"), "went through\nwent through\nanother b\n");
    // A touch is no change.
    flow.write("in/b.txt", "another b\n");
    flow.run().settles().executes_nothing();
    // What was published is put there again without being made again.
    std::fs::remove_file(flow.path("out/b.txt")).unwrap();
    flow.run().settles().executes_nothing();
    assert_eq!(published("b"), "went through\nwent through\nanother b\n");
    // Two inputs that are alike are one action, and each has its copy.
    flow.write("in/c.txt", "another b\n");
    flow.run().settles().executes_nothing();
    assert_eq!(published("c"), published("b"));
    flow.write("in/a.txt", "new\n");
    flow.write("in/c.txt", "new\n");
    let ran = flow.run();
    ran.settles();
    assert_eq!(ran.executed().len(), 2, "{:?}", ran.executed());
    assert_eq!(published("a"), published("c"));
    // The tool is known by its bytes.
    flow.edit("bin/step", |text| text.replace("went through", "passed"));
    assert_eq!(flow.run().settles().executed().len(), 4);
    assert_eq!(published("a"), "passed\npassed\nnew\n");
}

#[test]
fn a_repository_that_gets_new_commits_is_the_same_for_the_old_ones() {
    let mut flow = Flow::sample();
    flow.run().settles();
    flow.commit("three", &[("README", "news\n")]);
    git(&flow.path("repo"), &["gc", "-q", "--prune=now"]);
    flow.run().settles().executes_nothing();
}

#[test]
fn numbers_that_no_float_holds_and_keys_that_are_numbers_are_told_apart() {
    let flow = Flow::sample();
    flow.replace("agents.kdl", "agent scripted { run ", "agent scripted { run \"env\" \"SEEN={config}\" ");
    flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"c.yaml\"");
    flow.write("c.yaml", "a: 123456789012345678901\nb: 0.1\nbias: {9: -100}\n");
    flow.run().settles();
    flow.run().settles().executes_nothing();
    let why = |old: &str, new: &str| {
        flow.replace("c.yaml", old, new);
        let said = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--step", "agent"]);
        flow.replace("c.yaml", new, old);
        said.exits(0).stdout.clone()
    };
    let said = why("345678901\n", "345678902\n");
    assert!(said.contains("a: 123456789012345678901 -> 123456789012345678902"), "{said}");
    let said = why("b: 0.1", "b: 0.1000000000000000055");
    assert!(said.contains("b: 0.1 -> 0.1000000000000000055"), "{said}");
    let said = why("{9: -100}", "{\"9\": -100}");
    assert!(said.contains("bias.9: -100 -> (none)") && said.contains("bias.\"9\": (none) -> -100"), "{said}");
    let said = why("{9: -100}", "{0x9: -100}");
    assert!(said.contains("hit"), "the same number: {said}");
    flow.replace("c.yaml", "b: 0.1", "b: \"$number:0.1\"");
    flow.flow(&["check", "m.kdl"]).exits(2).says("it holds the text `$number:`");
}

#[test]
fn a_change_behind_a_link_of_a_source_tree_or_of_a_watched_folder_is_seen() {
    let flow = Flow::empty();
    flow.write("outside/lib/x", "1\n");
    flow.write("tool/run", "#!/bin/sh\n[ \"$1\" = -v ] && { echo 1; exit; }\necho made > \"$1\"\n");
    flow.write("asked", "#!/bin/sh\n[ \"$1\" = -v ] && exec cat \"${0%/*}/watched/lib/x\"\necho made > \"$1\"\n");
    make_executable(&flow, "tool/run");
    make_executable(&flow, "asked");
    std::fs::create_dir(flow.path("watched")).unwrap();
    for link in ["tool/lib", "watched/lib"] {
        std::os::unix::fs::symlink("../outside/lib", flow.path(link)).unwrap();
    }
    std::os::unix::fs::symlink("..", flow.path("outside/lib/up")).unwrap();
    flow.write(
        "sub/m.kdl",
        r#"flow 1
pipeline chain {
    axis n "1"
    tool run "../tool/run" { probe "-v"; source "../tool" }
    tool asked "../asked" { probe "-v"; watch "../watched" }
    step one uses=command { each n; run "{tool.run}" "{out.o}"; output o "o" }
    step two uses=command { each n; run "{tool.asked}" "{out.o}"; output o "o" }
}
"#,
    );
    let run = || flow.flow(&["run", "sub/m.kdl", "--json"]);
    assert_eq!(run().settles().executed().len(), 2);
    run().settles().executes_nothing();
    flow.write("outside/lib/x", "22\n");
    let why = flow.flow(&["why", "*", "sub/m.kdl"]);
    why.exits(0).says("source run:").says("changed lib/x").says("tool asked: 1 -> 22");
    assert_eq!(run().settles().executed().len(), 2);
    run().settles().executes_nothing();
}

fn make_executable(flow: &Flow, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(flow.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}
