//! The promise of prompts and configs: an agent is told what the manifest says and not the answer; what it was given is kept
//! with each attempt, without a secret.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use support::Flow;

/// An agent that does what its prompt says on a line `do: …`, and keeps the work small.
fn prompted(prompt: &str) -> Flow {
    let flow = Flow::sample();
    flow.edit("agents.kdl", |text| {
        format!("{text}agent reader {{ run \"python3\" \"{{file.act}}\" \"{{prompt}}\"; version \"1\" }}\n")
    });
    flow.write(
        "act.py",
        "import pathlib, sys\nassert open(sys.argv[1]).read()\nwork = pathlib.Path('pkg/work.py')\nwork.write_text(work.read_text().replace('OPS[0] += 10', 'OPS[0] += 2'))\n",
    );
    flow.write("prompt.md", prompt);
    flow.write(
        "commits.jsonl",
        "{\"human\": \"{one:40}\", \"task\": \"make one() do less\", \"diff\": \"+    return sum(OPERATIONS_OF[number] for number in range(n))\"}\n",
    );
    flow.replace("m.kdl", "commits file=\"commits.txt\"", "commits table=\"commits.jsonl\"");
    flow.edit("m.kdl", |text| {
        let at = text.find("    candidate human").unwrap();
        format!("{}    candidate reader agent=reader {{ file act \"act.py\" }}\n    step agent {{ prompt file=\"prompt.md\"; show task diff }}\n}}\n", &text[..at])
    });
    flow
}

/// A commit whose change has lines that say enough to be recognised.
fn telling(flow: &mut Flow) {
    let base = "OPS = [0]\n\n\ndef one(n):\n    for _ in range(n):\n        OPS[0] += 10\n    return n\n";
    let fast = "OPS = [0]\nOPERATIONS_OF = {number: 1 for number in range(1000)}\nCOUNTED_ONCE = {number: True for number in range(1000)}\nHALVES_OF_ALL = {number: number / 2 for number in range(9)}\nDOUBLES_OF_ALL = {number: number * 2 for number in range(9)}\n\n\ndef one(n):\n    OPS[0] += 1\n    return sum(OPERATIONS_OF[number] for number in range(n))\n";
    flow.commit("plain", &[("pkg/work.py", base)]);
    flow.commit("fast", &[("pkg/work.py", fast)]);
    flow.write("tests/{fast}.py", &std::fs::read_to_string(flow.path("tests/{one}.py")).unwrap());
    let id = flow.id("fast").to_owned();
    flow.edit("commits.jsonl", |text| {
        let at = text.find("\"human\": \"").unwrap() + 10;
        format!("{}{id}{}", &text[..at], &text[at + 40..])
    });
}

#[test]
fn what_else_an_agent_is_given_holds_no_line_of_the_humans_change() {
    const LINE: &str = "    return sum(OPERATIONS_OF[number] for number in range(n))";
    for given in ["file hint \"hint.txt\"", "args \"    return sum(OPERATIONS_OF[number] for number in range(n))\""] {
        let mut flow = prompted("make it fast\n");
        telling(&mut flow);
        flow.write("hint.txt", &format!("somebody said:\n{LINE}\n"));
        flow.replace(
            "agents.kdl",
            "\"{prompt}\"; version \"1\"",
            "\"{prompt}\" \"{file.hint}\" \"{args}\"; version \"1\"",
        );
        flow.replace("m.kdl", "file act \"act.py\"", &format!("file act \"act.py\"; {given}"));
        flow.run().exits(3).says("LEAKED_ANSWER").says("holds 1 of the 5 telling lines");
        assert!(flow.ends("agent", "succeeded").is_empty());
    }
}

#[test]
fn a_prompt_that_holds_a_line_of_the_humans_change_is_refused_before_anything_is_paid() {
    let mut flow = prompted("{commit.task}\n\nA reviewer proposed:\n{commit.diff}\n");
    telling(&mut flow);
    let ran = flow.run();
    ran.exits(3).says("LEAKED_ANSWER").says("the prompt holds 1 of the 5 telling lines");
    assert!(flow.ends("agent", "succeeded").is_empty());
    flow.run().exits(3);
    // Without that column it runs, and no attempt was used up.
    flow.replace("prompt.md", "{commit.diff}", "none");
    flow.run().settles();
}

#[test]
fn a_leak_that_the_manifest_wants_recorded_runs_and_its_job_is_marked() {
    let mut flow = prompted("{commit.task}\n{commit.diff}\n");
    telling(&mut flow);
    flow.replace("m.kdl", "show task diff", "show task diff; leaks record");
    flow.run().settles();
    flow.flow(&["run", "m.kdl"]).settles().says("LEAK").says("the agent was shown lines of the human's change");
    // It is in no key.
    flow.replace("m.kdl", "; leaks record", "");
    flow.run().settles().executes_nothing();
}

#[test]
fn a_patch_of_the_answer_that_lies_in_the_tree_is_found() {
    let mut flow = prompted("{commit.task}\n");
    let slow = "OPS = [0]\n\n\ndef one(n):\n    for _ in range(n):\n        OPS[0] += 10\n    return n\n";
    let fast: String =
        (0..9).map(|n| format!("TABLE_NUMBER_{n} = [number * {n} for number in range(100)]\n")).collect();
    flow.commit("plain", &[("pkg/work.py", slow), ("notes/fix.txt", &fast)]);
    flow.commit("fast", &[("pkg/work.py", &format!("{slow}{fast}"))]);
    flow.write("commits.jsonl", "{\"human\": \"{fast:40}\", \"task\": \"t\", \"diff\": \"\"}\n");
    flow.write("tests/{fast}.py", &std::fs::read_to_string(flow.path("tests/{one}.py")).unwrap());
    flow.run().exits(3).says("LEAKED_ANSWER").says("notes/fix.txt holds 9 of the 9 telling lines");
}

#[test]
fn a_column_that_the_step_does_not_show_never_reaches_a_prompt() {
    let flow = prompted("{commit.task} {commit.diff}\n");
    flow.replace("m.kdl", "show task diff", "show task");
    flow.flow(&["run", "m.kdl"]).exits(2).says("diff");
}

#[test]
fn what_an_agent_was_given_is_kept_with_its_attempt_and_holds_no_secret() {
    let mut flow = prompted("{commit.task}\n");
    flow.write("config.yaml", "model: {name: m, api_key: \"{secret.MODEL_KEY}\"}\nlimits:\n  steps: 7\n");
    flow.edit("act.py", |text| format!("print('at work')\n{text}"));
    flow.replace("agents.kdl", "\"{prompt}\"; version", "\"{prompt}\" \"{config}\"; version");
    flow.replace(
        "m.kdl",
        "file act \"act.py\"",
        "file act \"act.py\"; config \"config.yaml\" { require \"limits.steps\" 7 }; secret MODEL_KEY; set LEVEL \"high\"; model \"m-1\"",
    );
    flow.env("MODEL_KEY", "sentinel-5c1f0e");
    flow.run().settles();
    let said = flow.flow(&["log", "{one}", "agent", "--stream", "setup"]);
    said.settles()
        .says("MODEL_KEY")
        .says("steps: 7")
        .says("{secret.MODEL_KEY}")
        .says("\"LEVEL\": \"high\"")
        .says("m-1");
    assert!(!said.stdout.contains("sentinel-5c1f0e"));
    flow.flow(&["show", "{one}"]).settles().says("setup").says("config config.yaml:").says("\n      steps: 7\n");
    // Each stream begins on a line of its own.
    let all = flow.flow(&["log", "{one}", "agent"]);
    assert!(all.settles().stdout.contains(&format!("{}\nat work\n", said.stdout.trim_end())), "{}", all.stdout);
    // A rotated key draws nothing again.
    flow.env("MODEL_KEY", "sentinel-77aa31");
    flow.run().settles().executes_nothing();
}

#[test]
fn a_config_that_is_not_as_required_is_refused_and_both_files_are_pointed_at() {
    let mut flow = prompted("{commit.task}\n");
    flow.write("config.yaml", "# models\nmodels:\n  main:\n    parallel_tool_calls: true\n");
    flow.replace("agents.kdl", "\"{prompt}\"; version", "\"{prompt}\" \"{config}\"; version");
    let config = "file act \"act.py\"; config \"config.yaml\" { require \"models.main.parallel_tool_calls\" #false }";
    flow.replace("m.kdl", "file act \"act.py\"", config);
    flow.env("COLUMNS", "200");
    let ran = flow.run();
    ran.exits(2).says("`models.main.parallel_tool_calls` is true, not #false").says("m.kdl:");
    ran.says("config.yaml:4 says `parallel_tool_calls: true`");
    assert!(flow.lines().is_empty());
}
