//! The promise of extending: more blocks for what could not be settled continue what is there, and repeat nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

/// Wobbles so that neither five blocks nor twelve settle it.
const WOBBLING: &str = "(1 + ops / 20000) * [1, 1.12, 0.92, 1.05, 0.95][n * 7 % 5]";

/// One job that ends INCONCLUSIVE after six blocks.
fn unsettled() -> Flow {
    let mut flow = Flow::timed(WOBBLING);
    flow.env("COLUMNS", "300");
    flow.write("commits.txt", "{one:40}\n");
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow.replace("m.kdl", "holds cpu=1", "holds cpu=1; protocol screen { blocks max=6 }");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "INCONCLUSIVE");
    flow
}

/// How many processes of the patched tree ran.
fn processes(flow: &Flow) -> usize {
    std::fs::read_to_string(flow.signs().join("seen")).unwrap().lines().filter(|line| line.ends_with("-500")).count()
}

fn show(flow: &Flow) -> serde_json::Value {
    flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).settles().json()
}

#[test]
fn an_extension_goes_on_where_the_bound_was_and_runs_no_block_twice() {
    let flow = unsettled();
    let before = processes(&flow);
    let extended = flow.flow(&["extend", "pkg/{one}/tidy/1", "--blocks", "9", "--json"]);
    extended
        .settles()
        .executes(&["{one}/tidy/1 patched", "{one}/tidy/1 classify"])
        .says("6 blocks are there, going on to 9");
    // Five warm-ups, for no two agree, and three blocks of two.
    assert_eq!(processes(&flow) - before, 5 + 6);
    let job = show(&flow);
    assert!(job["evidence"].as_str().unwrap().contains(" 9 blocks"), "{}", job["evidence"]);
    assert_eq!(
        support::marks(&job),
        serde_json::json!(["EXTENDED", "WRITE_OPEN"]),
        "what a person asked for is not over a limit"
    );
    assert_eq!(job["explained"]["blocks"].as_array().unwrap().len(), 9);
    // It stands, though the manifest says six.
    flow.run().settles().executes_nothing();
    assert!(show(&flow)["evidence"].as_str().unwrap().contains(" 9 blocks"));
    // And can be extended again.
    flow.flow(&["extend", "pkg/{one}/tidy/1", "--blocks", "10"]).settles();
    assert!(show(&flow)["evidence"].as_str().unwrap().contains(" 10 blocks"));
}

#[test]
fn a_raised_bound_continues_too() {
    let flow = unsettled();
    let before = processes(&flow);
    flow.replace("m.kdl", "blocks max=6", "blocks max=8");
    flow.run().settles().executes(&["{one}/tidy/1 patched", "{one}/tidy/1 classify"]);
    assert_eq!(processes(&flow) - before, 5 + 4);
    assert!(show(&flow)["evidence"].as_str().unwrap().contains(" 8 blocks"));
    // A raised timeout is no reason to measure more.
    flow.replace("steps.kdl", "timeout \"1m\" }\nstep classify", "timeout \"2m\" }\nstep classify");
    flow.run().settles().executes_nothing();
}

#[test]
fn what_is_settled_has_nothing_to_go_on_with() {
    let flow = Flow::timed("ops / 1000");
    flow.write("commits.txt", "{one:40}\n");
    flow.run().settles();
    flow.flow(&["extend", "pkg/{one}/tidy/1"]).exits(2).says("is SUCCESS_IMPROVEMENT, and not INCONCLUSIVE");
}

#[test]
fn show_explains_the_verdict_in_three_sentences_and_plots_its_blocks() {
    let flow = unsettled();
    let told = flow.flow(&["show", "pkg/{one}/tidy/1"]);
    told.settles().says("In 6 blocks, base and patched tree in turn, the patched tree was");
    told.says("`blocks max` ended it, and about").says("the results were compared first, and they agree");
    let rows =
        told.stdout.lines().filter(|line| line.contains("x  ") && line.contains('o') && line.contains('|')).count();
    assert!(rows >= 6, "{}", told.stdout);
    assert_eq!(show(&flow)["explained"]["sentences"].as_array().unwrap().len(), 3);
    let rules = show(&flow)["explained"]["point_rules"].clone();
    assert!(
        rules["first_faster"].is_boolean() && rules["gso_opt_base"].is_boolean() && rules["gso_opt_commit"].is_null(),
        "{rules}"
    );
}
