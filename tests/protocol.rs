//! The promise of the protocol: it runs no more processes than the verdict needs and no fewer, says which bound it reached, and
//! measures nothing again that still holds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

/// The sample with one commit and the candidate `tidy`, whose patch halves what the function costs. The script notes each of
/// its processes in a file of its own, and reports the time that `time` makes of `ops`, the work done, and `n`, how many
/// processes of this tree ran before.
fn timed(time: &str) -> Flow {
    let flow = Flow::sample();
    flow.write("commits.txt", "{one:40}\n");
    flow.replace("m.kdl", "metric ops better=lower kind=count", "metric time_s better=lower");
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow.replace("m.kdl", "tool python", "slots { cpu \"a\" }\n    step patched { holds cpu=1 }\n    tool python");
    let seen = flow.signs().join("seen").display().to_string();
    flow.edit("tests/{one}.py", |text| {
        let count = format!(
            r#"ops = pkg.work.OPS[0]
with open({seen:?}, "a+") as f:
    f.seek(0)
    n = f.read().split().count(str(ops))
    f.write(str(ops) + "\n")
"#
        );
        let text = text.replace("\"ops\": pkg.work.OPS[0]", &format!("\"time_s\": {time}"));
        text.replacen("out = ", &format!("{count}out = "), 1)
    });
    flow
}

/// How many processes ran, by the work that they did: 1000 in the base, 500 in the patched tree, 100 in the human's. The two
/// of the gate are not counted.
fn processes(flow: &Flow) -> [usize; 3] {
    let seen = std::fs::read_to_string(flow.signs().join("seen")).unwrap();
    let count = |ops| seen.lines().filter(|line| *line == ops).count();
    [count("1000") - 2, count("500"), count("100")]
}

fn show(flow: &Flow) -> serde_json::Value {
    flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).settles().json()
}

/// What `flow show` says, on one line.
fn told(flow: &Flow) -> String {
    let said = flow.flow(&["show", "pkg/{one}/tidy/1"]).settles().stdout.clone();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_gain_that_flows_clock_cannot_bear_out_says_so() {
    // The script claims a second, and its process lasts a part of that.
    let flow = timed("ops / 1000");
    flow.run().settles();
    let job = show(&flow);
    assert!(job["marks"].as_array().unwrap().contains(&"UNCLOCKED".into()), "{}", job["marks"]);
    let said = told(&flow);
    let why = "not borne out by flow's clock: time_s: the base's processes did not last as long as they claim";
    assert!(said.contains(why), "{said}");
}

/// Wobbles so that neither five blocks nor twelve settle it.
const WOBBLING: &str = "(1 + ops / 20000) * [1, 1.12, 0.92, 1.05, 0.95][n * 7 % 5]";

#[test]
fn a_clear_difference_is_settled_at_the_first_look() {
    let flow = timed("ops / 1000");
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    // Two warm-ups, for one alone agrees with nothing, and five blocks of two.
    assert_eq!(processes(&flow), [12, 12, 0]);
    let job = show(&flow);
    assert_eq!(job["level"], "98.42 %");
    assert_eq!(job["evidence"], "2.00x [2.00, 2.00] 5 blocks");
    flow.run().executes_nothing();
}

#[test]
fn what_is_not_settled_goes_on_until_the_bound_and_says_what_would_settle_it() {
    let flow = timed(WOBBLING);
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; protocol screen { blocks max=10 }");
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), "INCONCLUSIVE");
    // No two warm-ups in a row agree: five.
    assert_eq!(processes(&flow), [25, 25, 0]);
    let evidence = show(&flow)["evidence"].as_str().unwrap().to_owned();
    assert!(evidence.contains("10 blocks, `blocks max` reached; about "), "{evidence}");
    assert!(evidence.ends_with("blocks would settle it"), "{evidence}");
    assert!(told(&flow).contains("at 98.42 % between"), "{}", told(&flow));

    // The bound is a limit: what met it is measured again when it is raised, and for nothing else.
    flow.run().executes_nothing();
    flow.replace("m.kdl", "blocks max=10", "blocks max=11");
    let again = flow.run();
    again.settles().executes(&["{one}/tidy/1 patched", "{one}/tidy/1 classify"]);
    flow.replace("m.kdl", "blocks max=11", "blocks max=6");
    flow.run().executes_nothing();
    assert!(show(&flow)["marks"].as_array().unwrap().contains(&"OVER_LIMIT".into()));
}

#[test]
fn what_was_settled_before_the_bound_is_not_measured_again_when_that_is_moved() {
    let flow = timed("ops / 1000");
    flow.run().settles();
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; protocol screen { blocks max=40; time max=\"2h\" }");
    flow.run().settles().executes_nothing();
    // Another profile is surer, and another measurement.
    flow.replace("m.kdl", "protocol screen", "protocol headline");
    let run = flow.run();
    run.settles().executes(&["{one}/tidy/1 patched", "{one}/tidy/1 classify"]);
    assert_eq!(show(&flow)["level"], "99.75 %");
}

#[test]
fn the_time_ends_it_between_two_blocks() {
    let flow = timed(WOBBLING);
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; protocol screen { time max=\"1ms\" }");
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), "INCONCLUSIVE");
    assert_eq!(show(&flow)["evidence"], "no ratio, `time max` reached; an interval needs two blocks at least");
    let [base, patched, _] = processes(&flow);
    assert_eq!((base, patched), (5, 5), "no block was begun after the warm-ups");
    flow.replace("m.kdl", "time max=\"1ms\"", "time max=\"2h\"");
    flow.run().settles().executes(&["{one}/tidy/1 patched", "{one}/tidy/1 classify"]);
}

#[test]
fn a_fixed_protocol_looks_once() {
    let flow = timed("ops / 1000");
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; protocol fixed { blocks max=7 }");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(processes(&flow), [16, 16, 0]);
    assert_eq!(show(&flow)["level"], "95 %");
}

#[test]
fn the_human_is_measured_in_the_same_session() {
    let flow = timed("ops / 1000 * [1, 1.003, 0.998][n % 3]");
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; with human");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(processes(&flow), [12, 12, 12]);
    let human = show(&flow)["human"].clone();
    assert_eq!((human["says"].as_str(), human["measured"].as_str()), (Some("PARTIAL"), Some("same session")));
    assert!((human["ratio"].as_f64().unwrap() - 0.2).abs() < 0.01, "{human}");
    assert!((human["gain"].as_f64().unwrap() - 10.0).abs() < 0.5, "{human}");
    assert!(told(&flow).contains("PARTIAL the human's change: 0.20x ["), "{}", told(&flow));
    assert!(told(&flow).contains("at 98.42 %, same session; the human's gains 10.0x"), "{}", told(&flow));
    let status = flow.flow(&["status", "--json"]).json();
    let against = &status["human"][flow.fill("pkg/{one}/tidy/1")];
    assert_eq!((against["says"].as_str(), against["measured"].as_str()), (Some("PARTIAL"), Some("same session")));
    flow.flow(&["status"]).settles().says("against the human's change, same session");
    flow.flow(&["why", "{one}", "m.kdl", "--key"]).settles().says("human tree");
}

#[test]
fn counts_are_compared_with_the_humans_exactly() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "tool python", "step patched { with human }\n    tool python");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let human = show(&flow)["human"].clone();
    let said = (human["says"].as_str(), human["ratio"].as_f64(), human["gain"].as_f64());
    assert_eq!(said, (Some("PARTIAL"), Some(0.2), Some(10.0)));
    let own = flow.flow(&["show", "pkg/{one}/human/1", "--json"]).settles().json();
    assert_eq!(own["human"]["says"], "MATCHES");
}

#[test]
fn a_humans_tree_that_cannot_run_is_given_up_and_the_patch_is_judged() {
    let flow = timed("ops / 1000");
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; with human");
    flow.replace("tests/{one}.py", "out = {", "assert ops != 100\nout = {");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(processes(&flow), [12, 12, 1]);
    let job = show(&flow);
    assert_eq!(support::marks(&job), serde_json::json!(["HUMAN-FAILED", "WRITE_OPEN"]));
    assert!(job["human"].is_null());
}

#[test]
fn without_that_two_sessions_are_compared_and_that_is_said() {
    let flow = timed("ops / 1000 * [1, 1.003, 0.998][n % 3]");
    flow.replace("m.kdl", "    candidate tidy", "    candidate human agent=human\n    candidate tidy");
    flow.run().settles();
    let human = show(&flow)["human"].clone();
    assert_eq!((human["says"].as_str(), human["measured"].as_str()), (Some("PARTIAL"), Some("two sessions")));
    let [low, high] = [&human["ci"][0], &human["ci"][1]].map(|end| end.as_f64().unwrap());
    assert!(low < 0.2 && 0.2 < high && high < 0.21, "{human}");
}

#[test]
fn a_guard_that_gets_worse_makes_it_mixed() {
    let flow = timed("ops / 1000, \"memory\": 1000 / ops");
    flow.replace("m.kdl", "min-effect=\"2%\" }", "min-effect=\"2%\"; metric memory better=lower guard=#true }");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "MIXED");
    let job = show(&flow);
    assert_eq!(support::marks(&job), serde_json::json!(["GUARD-REGRESSED memory", "WRITE_OPEN"]));
    assert_eq!(job["metrics"].as_array().unwrap().len(), 2, "{job}");
    assert!(told(&flow).contains("memory: 0.50x [0.50, 0.50], guard, worse"), "{}", told(&flow));
}

#[test]
fn a_known_slow_down_in_milliseconds_is_found() {
    // The base sleeps 40 ms, the patched tree 20: whatever the machine does beside, that is no noise.
    let flow = timed("took");
    flow.replace(
        "tests/{one}.py",
        "out = {",
        "import time\nbegan = time.monotonic()\ntime.sleep(ops / 25000)\ntook = time.monotonic() - began\nout = {",
    );
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let speedup = show(&flow)["speedup"].as_f64().unwrap();
    assert!((1.5..2.5).contains(&speedup), "{speedup}");
}
