//! The promise of the stated rates: `flow selftest stats` finds what was published, through the code that judges, and says so
//! when it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use flow::measure::published::{FALSE, OTHERS, POWER};
use serde_json::Value;
use support::Flow;

/// Fewer sessions than the command makes by itself: it runs without optimisation here.
const TRIALS: &str = "400";

#[test]
fn the_published_rates_come_out_of_the_code_that_judges() {
    let flow = Flow::empty();
    let ran = flow.flow(&["selftest", "stats", "--trials", TRIALS, "--json"]);
    let told = ran.settles().json();
    assert_eq!(
        (told["trials"].as_u64(), told["seed"].as_u64(), told["agree"].as_bool()),
        (Some(400), Some(1), Some(true))
    );
    let figures: Vec<Value> = told["figures"].as_array().unwrap().clone();
    let of = |table: &str, case: &str| {
        let is = |figure: &&Value| figure["table"] == table && figure["case"] == case;
        figures.iter().filter(is).cloned().collect::<Vec<Value>>()
    };
    // All eight rates that are promised, each within three standard errors.
    for (profile, published) in [("screen", [0.0, 0.009, 0.010, 0.045]), ("headline", [0.0, 0.002, 0.003, 0.006])] {
        let rates = of(FALSE, profile);
        assert_eq!(rates.len(), 4);
        for (rate, published) in rates.iter().zip(published) {
            assert_eq!(rate["published"][0], published, "{rate}");
            assert!(rate["off"].as_f64().unwrap() <= 3.0, "{rate}");
        }
    }
    // True effects of 3, 6 and 12 %, and the rules of others beside.
    for effect in ["screen 3 %", "screen 6 %", "screen 12 %"] {
        assert_eq!(of(POWER, effect).len(), 16, "{effect}");
    }
    let usual = of(OTHERS, "1 against 1, above 1.0");
    assert!(usual.iter().all(|rate| rate["flow"].as_f64().unwrap() > 0.4), "{usual:?}");
}

#[test]
fn the_same_seed_says_the_same_and_another_one_something_else() {
    let flow = Flow::empty();
    let with = |seed: &str| flow.flow(&["selftest", "stats", "--trials", "100", "--seed", seed]).stdout;
    assert_eq!(with("7"), with("7"));
    assert_ne!(with("7"), with("8"));
}

#[test]
fn what_it_prints_fits_on_a_terminal() {
    let flow = Flow::empty();
    let said = flow.flow(&["selftest", "stats", "--trials", TRIALS]).settles().stdout.clone();
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(said.contains("all 109 figures agree within 3 standard errors"), "{said}");
}
