//! The promise of vetting: no agent is paid for a commit whose human change is not faster here, and what was found is a file
//! that one would have written by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

/// Five commits more than the sample: one that only a README changes, one of tests alone, one that changes nothing that costs,
/// one without a test, and a revert.
fn of_all_kinds() -> Flow {
    let mut flow = Flow::timed("ops / 1000");
    let work = std::fs::read_to_string(flow.path("repo/pkg/work.py")).unwrap();
    flow.commit("prose", &[("README.md", "Fast now.\n")]);
    flow.commit("tests", &[("tests/test_more.py", "# more\n")]);
    flow.commit("same", &[("pkg/work.py", &work.replace("def one(n):", "def one(n):\n    # as before"))]);
    flow.commit("bare", &[("pkg/work.py", &work.replace("def one(n):", "def one(n):\n    # once more"))]);
    flow.commit("Revert nothing", &[("pkg/work.py", &work)]);
    let one = std::fs::read_to_string(flow.path("tests/{one}.py")).unwrap();
    for name in ["prose", "tests", "same"] {
        flow.write(&format!("tests/{{{name}}}.py"), &one);
    }
    let last = flow.id("Revert nothing").to_owned();
    flow.write(
        "commits.txt",
        &format!("{{one:40}}\n{last}\n{{prose:40}}\n{{tests:40}}\n{{same:40}}\n{{bare:40}}\n{{two:40}}\n"),
    );
    flow.write("scripts/tidy/{one}.json", "{}");
    flow
}

#[test]
fn the_file_says_of_each_commit_what_a_person_would_have_written() {
    let flow = of_all_kinds();
    let vetted = flow.flow(&["vet", "m.kdl", "--yes"]);
    vetted.settles().says("2 of 7 commits vetted, 5 out").says("say `vetted \"vetted.kdl\"`");
    let text = std::fs::read_to_string(flow.path("vetted.kdl")).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("commit ") || line.starts_with("out ")).collect();
    let begins = |line: usize, text: &str| {
        let text = flow.fill(text);
        assert!(lines[line].starts_with(&text), "{} does not begin with {text}", lines[line]);
    };
    begins(0, "commit \"{one:40}\" effect=\"10.0x\" interval=\"[10.0, 10.0]\" level=\"98.42 %\" device=\"");
    assert!(lines[1].ends_with("because=revert evidence=\"Revert nothing\""), "{}", lines[1]);
    begins(2, "out \"{prose:40}\" because=no-source evidence=\"it changes README.md alone\"");
    begins(3, "out \"{tests:40}\" because=no-source");
    begins(4, "out \"{same:40}\" because=not-faster evidence=\"SUCCESS_NEUTRAL: 1.00x [1.00, 1.00] 5 blocks\"");
    begins(5, "out \"{bare:40}\" because=no-test");
    begins(6, "commit \"{two:40}\"");
    // The same again is the same file, and measures nothing.
    let again = flow.flow(&["vet", "m.kdl", "--json"]);
    again.settles().executes_nothing();
    assert_eq!(std::fs::read_to_string(flow.path("vetted.kdl")).unwrap(), text);
}

#[test]
fn no_agent_is_paid_to_vet_and_what_was_measured_serves_the_campaign() {
    let flow = Flow::timed("ops / 1000");
    let vetted = flow.flow(&["vet", "m.kdl", "--json"]);
    vetted.settles();
    let agents: Vec<String> = vetted.executed().into_iter().filter(|what| what.contains("tidy")).collect();
    assert!(agents.is_empty(), "{agents:?}");
    let run = flow.run();
    let again: Vec<String> = run.settles().executed().into_iter().filter(|what| !what.contains("/tidy/")).collect();
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn the_human_is_applied_though_the_manifest_has_no_such_candidate() {
    let flow = Flow::timed("ops / 1000");
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow.replace("agents.kdl", "agent human ", "agent somebody ");
    flow.flow(&["vet", "m.kdl"]).settles().says("2 of 2 commits vetted");
}

#[test]
fn a_manifest_that_names_the_file_pays_for_vetted_commits_alone_and_says_so() {
    let flow = of_all_kinds();
    flow.flow(&["vet", "m.kdl"]).settles();
    flow.replace("m.kdl", "commits file=\"commits.txt\"", "commits file=\"commits.txt\"; vetted \"vetted.kdl\"");
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).settles().json();
    let agents = plan["actions"].as_array().unwrap().iter().filter(|action| action["step"] == "agent");
    assert!(
        agents
            .clone()
            .all(|action| [flow.id("one"), flow.id("two")].contains(&action["axes"]["commit"].as_str().unwrap()))
    );
    let run = flow.flow(&["run", "m.kdl"]);
    run.settles().says("4 of 4 jobs improved (of 2 vetted commits; 5 of the list are out)");
    flow.flow(&["status"]).settles().says("rates are of 2 vetted commits; 5 of the list are out");
    // A commit that comes to the list later is not paid for before it is vetted.
    flow.edit("vetted.kdl", |text| {
        text.lines().filter(|line| !line.contains(flow.id("two"))).map(|l| format!("{l}\n")).collect()
    });
    flow.flow(&["check", "m.kdl"]).settles().says("1 of 7 commits are not vetted yet");
    flow.flow(&["run", "m.kdl"]).settles().says("of 1 vetted commit;").says("1 not vetted yet");
}

#[test]
fn a_file_that_is_not_there_or_not_right_is_a_flaw_but_not_for_who_writes_it() {
    let flow = Flow::timed("ops / 1000");
    flow.replace("m.kdl", "commits file=\"commits.txt\"", "commits file=\"commits.txt\"; vetted \"good.kdl\"");
    flow.flow(&["check", "m.kdl"]).exits(2).says("good.kdl");
    flow.flow(&["vet", "m.kdl"]).settles();
    assert!(flow.path("good.kdl").is_file());
    flow.flow(&["check", "m.kdl"]).settles();
    flow.replace("good.kdl", "effect=", "affect=");
    flow.flow(&["check", "m.kdl"]).exits(2).says("effect");
}

#[test]
fn a_commit_that_is_not_settled_is_not_guessed() {
    let flow = Flow::timed("ops / 1000");
    flow.flow(&["vet", "m.kdl", "--commit", "{one}"]).exits(3).says("1 commit not settled: vetted.kdl is not written");
    assert!(!flow.path("vetted.kdl").exists());
    flow.flow(&["vet", "m.kdl"]).settles();
    assert!(flow.path("vetted.kdl").exists());
}
