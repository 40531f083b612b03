//! The promise of rechecking: a step that should be a function of its key and is not is found, named and shown wherever the job
//! is shown, and what spoke for it before speaks on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use support::Flow;

/// A command whose output is what a file says that is no declared input, and one that reads it.
fn leaky() -> Flow {
    let flow = Flow::empty();
    flow.write("hidden", "one\n");
    flow.write("in.txt", "in\n");
    let hidden = flow.path("hidden");
    flow.write(
        "m.kdl",
        &format!(
            r#"flow 1
pipeline leaky {{
    step one uses=command {{ input a "in.txt"; run "sh" "-c" "cat {} > \"$0\"" "{{out.o}}" "{{in.a}}"; output o "one.txt" publish="out.txt" }}
    step two uses=command {{ needs one; run "cp" "{{in.one}}" "{{out.o}}"; output o "two.txt" }}
}}
"#,
            hidden.display()
        ),
    );
    flow.run().settles();
    flow
}

#[test]
fn what_is_a_function_of_its_key_comes_out_the_same() {
    let flow = Flow::sample();
    flow.run().settles();
    let ran = flow.run_with(&["--recheck", "100%"]);
    ran.settles();
    let executed = ran.executed();
    assert!(executed.iter().any(|action| action.ends_with("checkout")), "{executed:?}");
    assert!(executed.iter().any(|action| action.ends_with(" patch")), "{executed:?}");
    assert!(executed.iter().any(|action| action.ends_with("classify")), "{executed:?}");
    // Agents draw and tests measure: nobody pays for them again.
    assert!(!executed.iter().any(|action| action.ends_with("agent") || action.ends_with("patched")), "{executed:?}");
    assert_eq!(ran.finished()["rechecked"], executed.len());
    let why = flow
        .flow(&["why", "pkg/{one}/tidy/1", "--run"])
        .exits(0)
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(why.contains("to see whether it comes out the same: it did;"), "{why}");
    let plan = flow.flow(&["plan", "m.kdl", "--recheck", "100%"]);
    plan.exits(0).says(&format!("--recheck: {} served actions would be executed again", executed.len()));
    plan.says("expected cost: $0: no agent and no test is among them");
    flow.flow(&["run", "m.kdl", "--recheck", "100%"]).settles().says("executed again: all came out the same");
    flow.run().settles().executes_nothing();
}

#[test]
fn a_share_is_drawn_by_a_seed_and_is_at_least_one() {
    let flow = Flow::sample();
    flow.run().settles();
    let drawn = |share: &str, seed: &str| flow.run_with(&["--recheck", share, "--seed", seed]).settles().executed();
    assert_eq!(drawn("1%", "a").len(), 1);
    let (one, again) = (drawn("30%", "a"), drawn("30%", "a"));
    assert_eq!(one, again);
    assert!((1..6).any(|seed| drawn("30%", &seed.to_string()) != one));
    flow.flow(&["run", "m.kdl", "--recheck", "many"]).exits(2);
    for verb in ["run", "plan"] {
        flow.flow(&[verb, "m.kdl", "--recheck", "100.1%"]).exits(2).says("a share is at most 100%");
    }
}

#[test]
fn what_comes_out_otherwise_is_named_everywhere_and_the_earlier_attempt_speaks() {
    let flow = leaky();
    flow.write("hidden", "two\n");
    // Nobody sees it, for nothing of the key changed.
    flow.run().settles().executes_nothing();
    let ran = flow.run_with(&["--recheck", "100%"]);
    ran.exits(3);
    let said = ran.finished()["disagreements"].clone();
    assert_eq!(said.as_array().unwrap().len(), 1, "{said}");
    assert_eq!(
        (&said[0]["step"], &said[0]["outputs"], &said[0]["expected"]),
        (&"one".into(), &serde_json::json!(["o"]), &false.into())
    );
    assert_eq!(std::fs::read_to_string(flow.path("out.txt")).unwrap(), "one\n");
    // The step that reads it saw what the earlier attempt left, and agreed.
    assert_eq!(ran.finished()["rechecked"], 2);
    flow.run().settles().executes_nothing();
    for args in [&["why", "**", "m.kdl"][..], &["why", "**", "--run"], &["show", "*"]] {
        let said = flow.flow(args);
        let text = said.exits(0).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("NONDETERMINISTIC: ") && text.contains("in: o;"), "{args:?}\n{}", said.stdout);
        assert!(text.contains("-one +two"), "what differs is shown: {}", said.stdout);
    }
    let why = flow.flow(&["why", "**", "m.kdl", "--json"]).exits(0).json();
    let told = &why["jobs"][0]["steps"][0]["disagreements"][0];
    assert_eq!((&told["outputs"][0], &told["differs"][0]["ingredient"]), (&"o".into(), &"o".into()), "{told:#}");
    flow.flow(&["why", "**", "m.kdl", "--short"]).exits(0).says("one  hit  NONDETERMINISTIC");
    // The next run serves it, and does not pass over it in silence.
    flow.flow(&["run", "m.kdl"]).settles().says("NONDETERMINISTIC one");
    flow.flow(&["status"]).says("NONDETERMINISTIC one");
    let table = flow.flow(&["run", "m.kdl", "--recheck", "100%"]);
    table.exits(3).says("NONDETERMINISTIC: one came out otherwise in: o;").says("2 served actions executed again");
    flow.flow(&["why", "**", "--run"]).exits(0).says("recheck");
}

#[test]
fn what_was_lost_and_is_made_again_otherwise_is_an_alarm_too() {
    let flow = leaky();
    flow.write("hidden", "two\n");
    let one = flow.ends("one", "succeeded")[0]["outputs"]["o"]["blob"].as_str().unwrap().to_owned();
    std::fs::remove_file(flow.cache().join(format!("cas/v1/{}/{}", &one[..2], &one[2..]))).unwrap();
    flow.edit("m.kdl", |text| text.replace("\"cp\"", "\"cp\" \"-p\""));
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(ran.finished()["disagreements"][0]["outputs"], serde_json::json!(["o"]), "{}", ran.stdout);
}
