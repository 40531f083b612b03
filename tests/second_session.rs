//! The promise of a second session: what is published was found twice, in sessions that share nothing but the trees; and what
//! was found once is said to be so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::Flow;

/// One commit and the candidate `tidy`, whose patch halves the work, measured twice on two slots. `time` is what the script makes
/// of `ops` and of `slot`, the slot that it is measured on.
fn twice(time: &str) -> Flow {
    let flow = once(time);
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; second-session");
    flow
}

fn once(time: &str) -> Flow {
    let flow = Flow::timed(&time.replace("slot", "os.environ['FLOW_SLOT']"));
    flow.write("commits.txt", "{one:40}\n");
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow.replace("m.kdl", "cpu \"a\"", "cpu \"a\"; cpu \"b\"");
    flow
}

fn show(flow: &Flow) -> Value {
    flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).json()
}

fn marks(job: &Value) -> Vec<&str> {
    let known = ["CONFIRMED", "UNCONFIRMED", "NOT_REPRODUCED"];
    job["marks"].as_array().unwrap().iter().filter_map(Value::as_str).filter(|mark| known.contains(mark)).collect()
}

/// The slots of the first and of the second session.
fn slots(flow: &Flow) -> [String; 2] {
    ["patched", "patched-again"].map(|step| {
        let ends = flow.ends(step, "succeeded");
        assert_eq!(ends.len(), 1, "{step}");
        ends[0]["slots"][0].as_str().unwrap().to_owned()
    })
}

fn processes(flow: &Flow) -> usize {
    std::fs::read_to_string(flow.signs().join("seen")).unwrap().lines().count()
}

/// Two of the gate; of each tree two to warm up and two in each of five blocks.
const GATE: usize = 2;
const SESSION: usize = 24;

#[test]
fn what_is_found_twice_is_confirmed_on_another_slot() {
    let flow = twice("ops / 1000");
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(processes(&flow), GATE + 2 * SESSION);
    let [first, second] = slots(&flow);
    assert_ne!(first, second);
    let job = show(&flow);
    assert_eq!(marks(&job), ["CONFIRMED"]);
    let said = format!("2.00x [2.00, 2.00] 5 blocks on {first}; again 2.00x [2.00, 2.00] 5 blocks on {second}");
    assert_eq!(job["evidence"], said.as_str());
    assert_eq!(job["speedup"], 2.0);
    assert!(job["explained"]["again_guards"]["text"].as_str().unwrap().starts_with("5 blocks"), "{job}");
    let sentences = job["explained"]["sentences"].as_array().unwrap();
    assert_eq!(*sentences.last().unwrap(), format!("A second session on {second} came to the same.").as_str());
    flow.run().executes_nothing();
    // It is an action of its own: another first session asks for another second one, and a second one for no first.
    flow.replace("m.kdl", "holds cpu=1; second-session", "holds cpu=1");
    flow.run().settles().executes(&["{one}/tidy/1 classify"]);
    assert_eq!(marks(&show(&flow)), [""; 0], "nobody said that it is to be published");
}

#[test]
fn what_only_one_session_finds_is_not_reproduced() {
    // On the second slot the patch gains nothing, or is slower.
    for other in ["1000", "(1000 if ops == 1000 else 2000)"] {
        let flow = twice(&format!("(ops if slot == 'cpu/a' else {other}) / 1000"));
        let run = flow.run();
        assert_eq!(run.settles().class("{one}/tidy/1"), "INCONCLUSIVE");
        assert_eq!(slots(&flow), ["cpu/a", "cpu/b"]);
        let job = show(&flow);
        assert_eq!(marks(&job), ["NOT_REPRODUCED"]);
        let evidence = job["evidence"].as_str().unwrap();
        assert!(evidence.starts_with("2.00x [2.00, 2.00] 5 blocks on cpu/a; again "), "{evidence}");
        assert!(evidence.ends_with(" on cpu/b: contradicted"), "{evidence}");
        let sentences = job["explained"]["sentences"].as_array().unwrap();
        assert_eq!(*sentences.last().unwrap(), "A second session on cpu/b contradicts that: neither is a verdict.");
        assert!(job["speedup"].is_null() && job["ci"].is_null(), "neither ratio stands: {job}");
        assert!(job["next_action"].as_str().unwrap().contains("the two sessions"), "{job}");
        flow.flow(&["extend", "pkg/{one}/tidy/1"]).exits(2).says("contradict each other");
        flow.run().executes_nothing();
    }
}

#[test]
fn what_both_find_of_other_sizes_is_unconfirmed() {
    let flow = twice("(ops if slot == 'cpu/a' else ops / 2 + 500) / 1000");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let job = show(&flow);
    assert_eq!(marks(&job), ["UNCONFIRMED"]);
    let evidence = job["evidence"].as_str().unwrap();
    assert!(evidence.ends_with(": both sessions find it, but their intervals do not overlap"), "{evidence}");
}

#[test]
fn what_is_as_fast_is_not_asked_again() {
    let flow = twice("1");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_NEUTRAL");
    assert_eq!(processes(&flow), GATE + SESSION);
    assert_eq!(marks(&show(&flow)), [""; 0]);
}

#[test]
fn a_number_for_a_headline_that_was_found_once_is_unconfirmed() {
    let flow = once("ops / 1000");
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; protocol headline");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let job = show(&flow);
    assert_eq!(marks(&job), ["UNCONFIRMED"]);
    assert_eq!(job["evidence"], "2.00x [2.00, 2.00] 5 blocks");
}

#[test]
fn a_second_session_that_fails_confirms_nothing() {
    let flow = twice("ops / 1000");
    let first = flow.signs().join("first").display().to_string();
    flow.edit("tests/{one}.py", |text| {
        let slot = "os.environ.get('FLOW_SLOT')";
        let fails = format!(
            "if ops == 500 and n == 0:\n    open({first:?}, 'w').write({slot})\nif ops == 500 and open({first:?}).read() != \
             {slot}:\n    raise RuntimeError('only once')\n"
        );
        text.replacen("out = ", &format!("{fails}out = "), 1)
    });
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let job = show(&flow);
    assert_eq!(marks(&job), ["UNCONFIRMED"]);
    assert!(job["evidence"].as_str().unwrap().ends_with("; the second session failed: RUNTIME_ERROR"), "{job}");
}

#[test]
fn on_the_only_slot_it_is_another_lease_of_it() {
    let flow = twice("ops / 1000");
    flow.replace("m.kdl", "; cpu \"b\"", "");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(slots(&flow), ["cpu/a", "cpu/a"]);
    assert_eq!(marks(&show(&flow)), ["CONFIRMED"]);
}

#[test]
fn a_control_is_of_one_session() {
    let flow = twice("ops / 1000");
    flow.add("calibrate \"100%\"");
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let again: Vec<String> = run.executed().into_iter().filter(|action| action.contains("-again")).collect();
    assert_eq!(again, [flow.fill("{one}/tidy/1 patched-again")]);
    assert_eq!(processes(&flow), GATE + 3 * SESSION);
}

#[test]
fn it_is_asked_for_where_a_patch_is_tested() {
    let flow = once("ops / 1000");
    flow.replace("steps.kdl", "step baseline uses=test        { ", "step baseline uses=test        { second-session; ");
    flow.flow(&["check", "m.kdl"]).exits(2).says("tests no patch");
    let flow = twice("ops / 1000");
    flow.add("step patched-again like=baseline { }");
    flow.flow(&["check", "m.kdl"]).exits(2).says("the second session is the step `patched-again`");
}

#[test]
fn why_says_what_a_second_session_changes_and_nothing_else() {
    let flow = once("ops / 1000");
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; protocol headline");
    flow.run().settles();
    flow.replace("m.kdl", "protocol headline", "protocol headline; second-session");
    let why = flow.flow(&["why", "{one}", "m.kdl", "--json"]).json();
    let job = why["jobs"].as_array().unwrap().iter().find(|job| job["job"].as_str().unwrap().contains("tidy")).unwrap();
    let states: Vec<(&str, &str)> = job["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["step"].as_str().unwrap(), step["state"].as_str().unwrap()))
        .filter(|(_, state)| *state != "hit")
        .collect();
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(states.contains(&("patched-again", "new")), "{states:?}");
    flow.run().settles().executes(&["{one}/tidy/1 patched-again", "{one}/tidy/1 classify"]);
    assert_eq!(marks(&show(&flow)), ["CONFIRMED"]);
}
