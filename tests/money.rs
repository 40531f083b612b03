//! Every token and dollar is accounted for or said to be unknown, and no budget is exceeded unseen.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::{Flow, Ran};

/// The sample with one paid candidate of 12 jobs: each attempt uses 100,000 tokens in and 10,000 out, which is $1.00.
fn paid() -> Flow {
    let flow = Flow::sample();
    flow.write("prices.kdl", PRICES);
    flow.replace("m.kdl", "import \"agents.kdl\"", "import \"prices.kdl\" \"agents.kdl\"");
    flow.edit("m.kdl", |text| {
        let at = text.find("    candidate human").unwrap();
        format!("{}{CANDIDATE}}}\n", &text[..at])
    });
    for commit in ["one", "two"] {
        usage(&flow, commit, r#"{"usage": {"input": 100000, "output": 10000}}"#);
    }
    flow
}

const PRICES: &str = "flow 1
prices { model \"m-*\" since=\"2020-01-01\" input=(usd)5.00 output=(usd)50.00 }
";

const CANDIDATE: &str = r#"    candidate tidy agent=scripted {
        model "m-1"
        samples 6
        expect cost=(usd)1.00
        file patch "patches/tidy/{commit.id8}.patch" optional=#true
        file script "scripts/tidy/{commit.id8}.json" optional=#true
    }
"#;

fn usage(flow: &Flow, commit: &str, script: &str) {
    flow.write(&format!("scripts/tidy/{{{commit}}}.json"), script);
}

/// Ended lines of agents.
fn agents(flow: &Flow) -> usize {
    flow.lines().iter().filter(|line| line["line"] == "ended" && line["step"] == "agent").count()
}

fn events(ran: &Ran, event: &str) -> Vec<Value> {
    ran.events().into_iter().filter(|told| told["event"] == event).collect()
}

#[test]
fn a_budget_that_allows_5_of_12_pays_for_5_and_the_plan_said_so_and_a_raised_one_goes_on() {
    let flow = paid();
    flow.add("budget (usd)5.00");
    flow.flow(&["plan", "m.kdl"]).settles().says("the budget allows 5 of 12 jobs");
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(agents(&flow), 5);
    let reached = events(&ran, "budget-reached");
    assert_eq!(reached.len(), 1, "told once");
    assert_eq!((&reached[0]["limit"], &reached[0]["spent_usd"]), (&"budget".into(), &5.0.into()));
    assert_eq!(ran.finished()["open"], 7);
    let open = events(&ran, "action-over").into_iter().find(|over| over["step"] == "agent").unwrap();
    assert!(open["because"].as_str().unwrap().starts_with("budget: "), "{open}");
    // Nothing more is paid for by trying again.
    flow.run().exits(3).says("raise `budget`");
    assert_eq!(agents(&flow), 5);
    flow.replace("m.kdl", "budget (usd)5.00", "budget (usd)12.00");
    flow.run().settles();
    assert_eq!(agents(&flow), 12);
    flow.settled_each_action_once();
}
