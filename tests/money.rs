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
    let plan = flow.flow(&["plan", "m.kdl"]);
    plan.settles().says("the budget allows 5 of 12 jobs").says("that is for all 12, not for the 5");
    assert!(plan.stdout.find("the budget allows") < plan.stdout.find("expected cost"), "{}", plan.stdout);
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(agents(&flow), 5);
    let reached = events(&ran, "budget-reached");
    assert_eq!(reached.len(), 1, "told once");
    assert_eq!((&reached[0]["limit"], &reached[0]["spent_usd"]), (&"budget".into(), &5.0.into()));
    let jobs = flow.flow(&["show", "pkg/*", "m.kdl", "--json"]).json();
    let left: Vec<&Value> = jobs["jobs"].as_array().unwrap().iter().filter(|job| job["class"] == "NOT_RUN").collect();
    assert_eq!(left.len(), 7);
    for job in left {
        assert_eq!(job["owner"], "person", "whoever set the amount");
        assert!(
            job["evidence"]
                .as_str()
                .unwrap()
                .starts_with("budget: `budget` is $5.00: reserved for agents at work $0.00, spent $5.00"),
            "{job}"
        );
    }
    assert_eq!(ran.finished()["open"], 7);
    let open = events(&ran, "action-over").into_iter().find(|over| over["step"] == "agent").unwrap();
    let because = open["because"].as_str().unwrap();
    assert!(because.starts_with("budget: "), "{open}");
    assert!(because.contains("to $6.00 or more for one attempt more, to $12.00 for all 7 that are left"), "{open}");
    // Nothing more is paid for by trying again.
    flow.run().exits(3).says("raise `budget`");
    flow.flow(&["plan", "m.kdl"]).settles().says("of that the budget allows $0");
    // What keeps several is told at length once.
    let told = flow.flow(&["run", "m.kdl"]);
    let lines: Vec<&str> = told.stderr.lines().filter(|line| line.contains("not settled: budget")).collect();
    assert_eq!(lines.len(), 7, "{}", told.stderr);
    assert!(lines.iter().all(|line| line.chars().count() <= 160), "{lines:#?}");
    assert!(lines[1..].iter().all(|line| line.chars().count() <= 100), "{lines:#?}");
    assert_eq!(agents(&flow), 5);
    flow.replace("m.kdl", "budget (usd)5.00", "budget (usd)12.00");
    flow.run().settles();
    assert_eq!(agents(&flow), 12);
    flow.settled_each_action_once();
}

#[test]
fn an_attempt_of_unknown_cost_counts_at_its_reservation_and_that_is_said() {
    let flow = paid();
    for commit in ["one", "two"] {
        usage(&flow, commit, "{}");
    }
    flow.add("budget (usd)3.50");
    let ran = flow.run();
    ran.exits(3).says("$3.00 is assumed for 3 attempts of unknown cost").says("from `expect`");
    assert_eq!(agents(&flow), 3);
    let spent = flow.flow(&["status", "--json"]).json()["spent"].clone();
    assert_eq!((&spent["budget"]["spent_usd"], &spent["budget"]["assumed_usd"]), (&3.0.into(), &3.0.into()));
    // Unknown is told as unknown, not as what the budget takes it for.
    let cost = &spent["all"]["cost_usd"];
    assert_eq!((&cost["known"], &cost["unknown_attempts"]), (&0.0.into(), &3.into()));
    assert_eq!(cost["because"][0], "the agent reported none");
    flow.flow(&["status"]).settles().says("unknown");
}

#[test]
fn without_a_guess_one_attempt_goes_alone_and_tells_what_the_next_may_cost() {
    let flow = paid();
    flow.replace("m.kdl", "        expect cost=(usd)1.00\n", "");
    flow.add("budget (usd)5.00");
    flow.flow(&["plan", "m.kdl"]).settles().says("the budget allows at least 1 of 12 jobs");
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(agents(&flow), 5);
    flow.flow(&["plan", "m.kdl"]).settles().says("from 5 attempts").says("the budget allows 0 of 7 jobs");
}

#[test]
fn a_first_attempt_of_unknown_cost_and_no_guess_stops_the_budget() {
    let flow = paid();
    flow.replace("m.kdl", "        expect cost=(usd)1.00\n", "");
    for commit in ["one", "two"] {
        usage(&flow, commit, "{}");
    }
    flow.add("budget (usd)5.00");
    flow.run().exits(3).says("what an attempt of tidy may cost is not known: say `expect cost=`");
    assert_eq!(agents(&flow), 1);
}

#[test]
fn the_attempts_of_all_runs_add_up_whoever_they_serve_and_failed_ones_count() {
    let flow = paid();
    flow.add("budget (usd)100.00");
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles();
    // Another script is another key: the first attempt serves nobody any more, and was paid for all the same.
    usage(&flow, "one", r#"{"usage": {"input": 100000, "output": 10000}, "exit": 1}"#);
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles();
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl", "--json"]).json();
    assert_eq!(shown["spent"]["attempts"], 2);
    assert_eq!(shown["spent"]["cost_usd"]["known"], 2.0);
    let spent = flow.flow(&["status", "--json"]).json()["spent"].clone();
    assert_eq!((&spent["run"]["cost_usd"]["known"], &spent["all"]["cost_usd"]["known"]), (&1.0.into(), &2.0.into()));
    assert_eq!(spent["all"]["tokens"]["input"], 200_000);
    assert_eq!(spent["budget"]["spent_usd"], 2.0);
    let log = flow.flow(&["log", "pkg/{one}/tidy/1", "agent", "m.kdl"]);
    log.settles()
        .says(" 1  began ")
        .says(" 2  began ")
        .says("CRASHED")
        .says("100,000 tokens in, 10,000 out; cost $1.00");
}

#[test]
fn killed_attempts_stay_in_the_ledger_with_what_they_used_and_what_they_wasted() {
    let flow = paid();
    let killed = r#"{"argv": ["sh", "-c", "echo 'flow-usage {\"input\": 100000, \"output\": 10000}'; kill -9 $PPID"]}"#;
    usage(&flow, "one", killed);
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).exits(3);
    let log = flow.flow(&["log", "pkg/{one}/tidy/1", "agent", "m.kdl", "--json"]).json();
    let attempts = log["step"]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3);
    for (attempt, number) in attempts.iter().zip(1..) {
        assert_eq!(attempt["number"], number);
        assert_eq!(attempt["cost_usd"]["known"], 1.0);
        assert_eq!(attempt["cost_usd"]["unknown_attempts"], 1, "it was killed: it may have used more");
        assert!(attempt["began"].is_string() && attempt["process"]["active_ms"].is_u64(), "{attempt}");
    }
    let wasted = &flow.flow(&["status", "--json"]).json()["spent"]["all"]["wasted_usd"];
    assert_eq!((&wasted["known"], &wasted["unknown_attempts"]), (&3.0.into(), &3.into()));
    flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"]).settles().says("spent     $3.00 + 3 unknown by 3 attempts");
}

#[test]
fn an_action_whose_attempts_reached_per_job_is_not_tried_again() {
    let flow = paid();
    let killed = r#"{"argv": ["sh", "-c", "echo 'flow-usage {\"input\": 100000, \"output\": 10000}'; kill -9 $PPID"]}"#;
    usage(&flow, "one", killed);
    flow.add("budget per-job=(usd)1.50");
    let ran = flow.run_with(&["--only", "pkg/{one}/tidy/1"]);
    ran.exits(3).says("`per-job` is $1.50: it is not tried again");
    assert_eq!(agents(&flow), 2, "attempts 3 would allow a third");
    assert_eq!(events(&ran, "budget-reached")[0]["limit"], "per-job");
    flow.run_with(&["--only", "pkg/{one}/tidy/1", "--retry", "*/*/*/*"]).exits(3);
    assert_eq!(agents(&flow), 2);
}

#[test]
fn per_run_is_spent_anew_in_each_run() {
    let flow = paid();
    flow.add("budget per-run=(usd)2.00");
    flow.flow(&["plan", "m.kdl"]).settles().says("the budget allows 2 of 12 jobs");
    flow.run().exits(3).says("start another run");
    assert_eq!(agents(&flow), 2);
    flow.run().exits(3);
    assert_eq!(agents(&flow), 4);
}

#[test]
fn a_price_of_a_later_date_applies_only_later_and_a_corrected_one_corrects_the_past() {
    let flow = paid();
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles();
    let known = || flow.flow(&["status", "--json"]).json()["spent"]["all"]["cost_usd"].clone();
    assert_eq!(known()["known"], 1.0);
    let second = "model \"m-*\" since=\"2100-01-01\" input=(usd)10.00 output=(usd)100.00 }";
    flow.edit("prices.kdl", |text| text.replace(" }", &format!("\n    {second}")));
    assert_eq!(known()["known"], 1.0, "that date is not today");
    flow.replace("prices.kdl", "2100-01-01", "2021-01-01");
    assert_eq!(known()["known"], 2.0, "in force when the attempt began");
    flow.replace("prices.kdl", "2021-01-01", "2099-01-01");
    flow.replace("prices.kdl", "2020-01-01", "2098-01-01");
    let early = known();
    assert_eq!((&early["known"], &early["unknown_attempts"]), (&0.0.into(), &1.into()));
    assert_eq!(early["because"][0], "the prices of m-1 begin on 2098-01-01");
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles().executes_nothing();
}

#[test]
fn an_attempt_that_serves_several_jobs_costs_once() {
    let flow = paid();
    // The same repository by two names: every agent of the second has the key of one of the first.
    flow.edit("m.kdl", |text| {
        let (from, to) = (text.find("    repo pkg").unwrap(), text.find("    tool python").unwrap());
        format!("{}{}{}", &text[..to], text[from..to].replace("repo pkg", "repo twin"), &text[to..])
    });
    flow.add("budget (usd)12.00");
    let ran = flow.run();
    ran.settles();
    assert_eq!((ran.finished()["jobs"].as_u64(), agents(&flow)), (Some(24), 12));
    let spent = flow.flow(&["status", "--json"]).json()["spent"].clone();
    assert_eq!(spent["all"]["cost_usd"]["known"], 12.0);
    assert_eq!(spent["all"]["candidates"]["tidy"]["attempts"], 12);
    flow.run().settles().executes_nothing();
    let again = flow.flow(&["status", "--json"]).json()["spent"].clone();
    assert_eq!((&again["run"]["attempts"], &again["all"]["cost_usd"]["known"]), (&0.into(), &12.0.into()));
}

#[test]
fn prices_budgets_and_expectations_are_in_no_key() {
    let flow = paid();
    flow.replace("m.kdl", "import \"prices.kdl\" ", "import ");
    flow.replace("m.kdl", "        expect cost=(usd)1.00\n", "");
    flow.run().settles();
    flow.replace("m.kdl", "import ", "import \"prices.kdl\" ");
    flow.replace(
        "m.kdl",
        "        samples 6\n",
        "        samples 6\n        expect cost=(usd)9.00 tokens=5 time=\"1h\"\n",
    );
    flow.add("budget (usd)0 per-run=(usd)0 per-job=(usd)0");
    flow.add("confirm (usd)0");
    // A budget of nothing pays for nothing, and keeps nothing from being served.
    flow.run().settles().executes_nothing();
}

#[test]
fn above_confirm_a_run_asks_and_where_nobody_answers_it_refuses() {
    let flow = paid();
    flow.add("confirm (usd)3.00");
    let refused = flow.run();
    refused.exits(2).says("this run may spend $12.00").says("--yes");
    flow.flow(&["plan", "m.kdl"]).settles().says("asks first").says("this run may spend $12.00");
    assert!(flow.flow(&["plan", "m.kdl", "--json"]).json()["asks"].as_str().unwrap().contains("$12.00"));
    assert!(flow.lines().is_empty() && flow.journal().is_empty(), "nothing was run");
    flow.run_with(&["--only", "pkg/*/tidy/1"]).settles();
    flow.run_with(&["--yes"]).settles();
    // Nothing is left to pay for.
    flow.run().settles();
}

#[test]
fn what_cannot_be_estimated_is_confirmed_too() {
    let flow = paid();
    flow.replace("m.kdl", "        expect cost=(usd)1.00\n", "");
    flow.add("confirm (usd)1000");
    flow.run().exits(2).says("is not known").says("expect cost=");
    flow.add("budget (usd)2.00");
    // The budget bounds it.
    flow.run().exits(3);
    assert_eq!(agents(&flow), 2);
}

#[test]
fn the_plan_says_what_another_try_would_cost() {
    let flow = paid();
    flow.add("step agent { attempts 1 }");
    flow.replace("agents.kdl", "agent scripted { run \"{flow}\"", "agent scripted { run \"/nowhere/program\"");
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).exits(3);
    let plan = |more: &[&str]| {
        let args: Vec<&str> =
            ["plan", "m.kdl", "--only", "pkg/{one}/tidy/1", "--json"].iter().chain(more).copied().collect();
        flow.flow(&args).json()["cost_usd"]["known"].clone()
    };
    assert_eq!((plan(&[]), plan(&["--retry", "*/*/tidy/*"])), (0.0.into(), 1.0.into()));
    flow.flow(&["plan", "m.kdl", "--retry", "zzz"]).exits(2).says("--retry zzz: no job");
}

#[test]
fn the_plan_says_what_to_expect_and_from_what() {
    let flow = paid();
    let plan = || flow.flow(&["plan", "m.kdl", "--json"]).json();
    let first = plan();
    assert_eq!((&first["cost_usd"]["known"], &first["cost_usd"]["unknown_attempts"]), (&12.0.into(), &0.into()));
    assert_eq!(first["estimate"]["candidates"]["tidy"]["cost_usd"]["basis"], "from `expect`");
    assert!(first["wall_s"].as_f64().unwrap() > 0.0);
    usage(&flow, "two", r#"{"usage": {"input": 200000, "output": 20000}}"#);
    flow.run_with(&["--only", "pkg/*/tidy/[123]"]).settles();
    let then = plan();
    let cost = &then["estimate"]["candidates"]["tidy"]["cost_usd"];
    assert_eq!((&cost["expected"], &cost["basis"]), (&9.0.into(), &"from 6 attempts".into()));
    let [low, high] = [0, 1].map(|end| cost["interval"][end].as_f64().unwrap());
    assert!((6.0..9.0).contains(&low) && high > 9.0, "{low} to {high}: three of each were seen");
    assert_eq!(then["estimate"]["candidates"]["tidy"]["tokens"]["expected"], 990_000.0);
    flow.flow(&["plan", "m.kdl"]).settles().says("tidy: 6 jobs, about $9.00 (").says("from 6 attempts");
    flow.run().settles();
    let last = plan();
    assert_eq!((&last["cost_usd"]["known"], &last["wall_s"]), (&0.0.into(), &Value::Null));
}

#[test]
fn a_model_without_a_price_costs_an_unknown_amount_and_a_plan_says_so() {
    let flow = paid();
    flow.replace("m.kdl", "        expect cost=(usd)1.00\n", "");
    flow.replace("m.kdl", "model \"m-1\"", "model \"other\"");
    let plan = flow.flow(&["plan", "m.kdl", "--json"]).json();
    assert_eq!((&plan["cost_usd"]["known"], &plan["cost_usd"]["unknown_attempts"]), (&0.0.into(), &12.into()));
    flow.flow(&["run", "m.kdl", "--only", "pkg/{one}/tidy/1"]).settles().says("no price for other");
    let tokens = flow.flow(&["status", "--json"]).json()["spent"]["all"]["tokens"].clone();
    assert_eq!((&tokens["input"], &tokens["unknown_attempts"]), (&100_000.into(), &0.into()), "the tokens are known");
}

#[test]
fn two_models_that_answered_one_candidate_are_a_warning_on_every_table() {
    let flow = paid();
    flow.edit("agents.kdl", |text| {
        text.replace(
            "usage lines=\"flow-usage\" }",
            "usage lines=\"flow-usage\"; reading { model jsonl=stdout prefix=\"flow-usage\" { at \"/model\" } } }",
        )
    });
    usage(&flow, "one", r#"{"usage": {"input": 100000, "output": 10000, "model": "m-1"}}"#);
    usage(&flow, "two", r#"{"usage": {"input": 100000, "output": 10000, "model": "m-2"}}"#);
    let warning = "warning: tidy was answered by 2 models: m-1, m-2";
    flow.flow(&["run", "m.kdl", "--only", "pkg/*/tidy/1"]).settles().says(warning);
    flow.flow(&["status"]).settles().says(warning);
    // Served, they are mixed all the same.
    flow.flow(&["run", "m.kdl", "--only", "pkg/*/tidy/1"]).settles().says(warning);
    let one = flow.flow(&["run", "m.kdl", "--only", "pkg/{one}/tidy/*"]);
    assert!(!one.settles().stdout.contains("warning"), "{}", one.stdout);
}

#[test]
fn machine_cost_is_told_beside_the_cost_of_the_agents() {
    let flow = paid();
    flow.add("slots { cpu \"a\" hourly=(usd)3600000.00 }");
    flow.add("step patched { holds cpu=1 }");
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles();
    let held: u64 = flow
        .lines()
        .iter()
        .filter(|line| line["line"] == "ended" && line["slots"].as_array().is_some_and(|slots| !slots.is_empty()))
        .map(|line| line["wall_ms"].as_u64().unwrap())
        .sum();
    let spent = flow.flow(&["status", "--json"]).json()["spent"]["all"].clone();
    // A dollar a millisecond.
    assert_eq!(spent["machine_usd"]["known"].as_f64(), Some(held as f64));
    assert_eq!(spent["cost_usd"]["known"], 1.0);
    flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"]).settles().says("; machine $");
}

#[test]
fn two_runs_at_once_share_one_budget() {
    let flow = paid();
    for commit in ["one", "two"] {
        usage(&flow, commit, r#"{"usage": {"input": 100000, "output": 10000}, "delay": "200ms"}"#);
    }
    flow.add("budget (usd)5.00");
    let start = |only: &str| {
        let mut command = flow.command(&["run", "m.kdl", "--json", "--quiet", "--only", only]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut both = [start("pkg/*/tidy/[123]"), start("pkg/*/tidy/[456]")];
    let codes: Vec<_> = both.iter_mut().map(|run| run.wait().unwrap().code()).collect();
    assert!(codes.contains(&Some(3)), "{codes:?}");
    assert_eq!(agents(&flow), 5);
    flow.settled_each_action_once();
}

#[test]
fn a_run_that_expects_less_leaves_another_what_that_one_reserved() {
    let flow = paid();
    usage(&flow, "one", r#"{"usage": {"input": 400000, "output": 40000}, "delay": "2s"}"#);
    flow.add("budget (usd)5.00");
    flow.replace("m.kdl", "expect cost=(usd)1.00", "expect cost=(usd)4.00");
    let mut dear = flow.command(&["run", "m.kdl", "--json", "--quiet", "--only", "pkg/{one}/tidy/1"]);
    let mut dear = dear.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    support::until("the dear one works", || flow.lines().iter().any(|line| line["step"] == "agent"));
    flow.replace("m.kdl", "expect cost=(usd)4.00", "expect cost=(usd)1.00");
    flow.run_with(&["--only", "pkg/{two}/tidy/*"]).exits(3);
    assert_eq!(dear.wait().unwrap().code(), Some(0));
    assert_eq!(agents(&flow), 2, "four dollars and one");
    assert_eq!(flow.flow(&["status", "--json"]).json()["spent"]["all"]["cost_usd"]["known"], 5.0);
}

#[test]
fn what_is_not_known_of_an_attempt_counts_at_what_was_reserved_for_it_whatever_is_expected_later() {
    let flow = paid();
    usage(&flow, "one", "{}");
    flow.add("budget (usd)5.00");
    flow.replace("m.kdl", "expect cost=(usd)1.00", "expect cost=(usd)4.00");
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles();
    flow.replace("m.kdl", "expect cost=(usd)4.00", "expect cost=(usd)1.00");
    flow.run_with(&["--only", "pkg/{two}/tidy/*"]).exits(3).says("$4.00 is assumed for 1 attempt of unknown cost");
    assert_eq!(agents(&flow), 2);
}

#[test]
fn an_agent_whose_run_was_killed_counts_at_its_reservation() {
    let flow = paid();
    usage(&flow, "one", r#"{"delay": "60s"}"#);
    flow.add("budget (usd)2.00");
    let only = ["run", "m.kdl", "--json", "--only", "pkg/{one}/tidy/1"];
    let mut run =
        flow.command(&only).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    support::until("an agent works", || {
        let begun = flow.lines().iter().any(|line| line["line"] == "started" && line["step"] == "agent");
        begun && !support::processes::supervisors(&flow.cache()).is_empty()
    });
    support::processes::kill(run.id().cast_signed(), 9);
    run.wait().unwrap();
    usage(&flow, "one", r#"{"usage": {"input": 100000, "output": 10000}}"#);
    let ran = flow.run_with(&["--only", "pkg/{one}/tidy/*"]);
    ran.exits(3).says("is assumed for 1 attempt of unknown cost");
    assert_eq!(flow.ends("agent", "INTERRUPTED").len(), 1);
    assert_eq!(flow.ends("agent", "succeeded").len(), 1, "one dollar of two was left");
}

#[test]
fn an_agent_that_calls_no_model_is_free_and_needs_no_price() {
    let flow = paid();
    flow.replace("agents.kdl", "\"{human-change}\"; version \"1\"", "\"{human-change}\"; version \"1\"; free");
    flow.add("budget (usd)0");
    flow.add("confirm (usd)0");
    flow.add("candidate human agent=human");
    flow.run_with(&["--only", "pkg/*/human/1"]).settles();
    let spent = flow.flow(&["status", "--json"]).json()["spent"]["all"].clone();
    assert_eq!((&spent["attempts"], &spent["cost_usd"]["unknown_attempts"]), (&2.into(), &0.into()));
}

#[test]
fn flaws_of_prices_and_budgets_say_what_to_write() {
    let flow = paid();
    let original = std::fs::read_to_string(flow.path("m.kdl")).unwrap();
    let check = |nodes: &str| {
        std::fs::write(flow.path("m.kdl"), &original).unwrap();
        flow.add(nodes);
        flow.flow(&["check", "m.kdl"])
    };
    check("budget 5").exits(2).says("(usd)5");
    check("budget (eur)5").exits(2).says("not in `(eur)`");
    check("budget (usd)-5").exits(2);
    check("budget (usd)1e3").exits(2);
    check("budget (usd)\"5\"").exits(2).says("is no number");
    check("budget").exits(2).says("says no amount");
    check("budget per-run=5").exits(2).says("(usd)5");
    check("budget (usd)1 per-yob=(usd)2").exits(2).says("did you mean `per-job`?");
    check("budget (usd)5\n    budget (usd)6").exits(2).says("twice");
    check("confirm").exits(2);
    check("candidate x agent=scripted { model \"m-1\"; expect; file script \"x\" optional=#true }")
        .exits(2)
        .says("says nothing");
    let unpriced = "candidate x agent=scripted { model \"z\"; file script \"x\" optional=#true }";
    check(&format!("budget (usd)5\n    {unpriced}")).exits(2).says("the budget cannot hold").says("expect cost=(usd)");
    check(unpriced).settles();
    let prices = |text: &str| {
        std::fs::write(flow.path("m.kdl"), &original).unwrap();
        flow.write("prices.kdl", &format!("flow 1\nprices {{ {text} }}\n"));
        flow.flow(&["check", "m.kdl"])
    };
    let price = |model: &str, since: &str| format!("model \"{model}\" since=\"{since}\" input=(usd)1 output=(usd)2");
    prices(&format!("{}\n{}", price("a", "2025-01-01"), price("a", "2025-02-01"))).settles();
    prices(&format!("{}\n{}", price("a", "2025-01-01"), price("a", "2025-01-01")))
        .exits(2)
        .says("two prices from one date");
    prices(&format!("{}\n{}", price("a*", "2025-01-01"), price("*b", "2025-02-01")))
        .exits(2)
        .says("mean the same models");
    prices(&price("a", "2025-1-1")).exits(2).says("2025-09-29");
    prices(&price("a", "2025-02-30")).exits(2);
    prices("model \"a\" since=\"2025-01-01\" input=(usd)1").exits(2).says("output=");
    prices(&format!("{} {{ above 200000 input=(usd)2 output=(usd)4 }}", price("a", "2025-01-01"))).settles();
}

#[test]
fn the_price_list_that_flow_ships_can_be_imported() {
    let flow = paid();
    let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/prices.kdl")).unwrap();
    std::fs::write(flow.path("prices.kdl"), list).unwrap();
    flow.replace("m.kdl", "model \"m-1\"", "model \"us.anthropic.claude-sonnet-4-5-20250929-v1:0\"");
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles();
    let cost = flow.flow(&["status", "--json"]).json()["spent"]["all"]["cost_usd"].clone();
    assert_eq!(cost["known"], 0.495, "100,000 x $3.30 + 10,000 x $16.50 a million");
}

#[test]
fn an_attempt_for_which_no_agent_began_used_nothing_and_says_so() {
    let flow = paid();
    flow.replace("m.kdl", "        samples 6\n", "        secret KEY { command \"sh\" \"-c\" \"exit 5\" }\n");
    flow.replace("steps.kdl", "attempts 3", "attempts 1");
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).exits(3);
    let spent = flow.flow(&["status", "--json"]).json()["spent"]["all"].clone();
    assert_eq!((&spent["attempts"], &spent["tokens"]["unknown_attempts"]), (&1.into(), &0.into()), "{spent:#}");
    assert_eq!((&spent["cost_usd"]["known"], &spent["cost_usd"]["unknown_attempts"]), (&0.0.into(), &0.into()));
    let listed = flow.flow(&["log", "pkg/{one}/tidy/1", "agent", "m.kdl", "--list"]);
    listed.settles().says("no agent began").says("0 tokens in, 0 out; cost $0.00");
}

/// What is spent over all, by `flow status`.
fn spent(flow: &Flow) -> Value {
    flow.flow(&["status", "--json"]).json()["spent"].clone()
}

/// The places of attempts.
fn places(flow: &Flow) -> usize {
    std::fs::read_dir(flow.cache().join("tmp/places")).map_or(0, Iterator::count)
}

/// How many agents began.
fn begun(flow: &Flow) -> usize {
    flow.lines().iter().filter(|line| line["line"] == "started" && line["step"] == "agent").count()
}

/// A paid sample whose one wanted agent has finished, but whose run died before it saw that.
fn died_after_its_agent(budget: &str) -> Flow {
    let flow = paid();
    let (at_work, go) = (flow.signs().join("at-work"), flow.signs().join("go"));
    let shell = format!("echo > {}; while [ ! -e {} ]; do sleep 0.01; done", at_work.display(), go.display());
    let script = serde_json::json!({"argv": ["sh", "-c", shell], "usage": {"input": 100_000, "output": 10_000}});
    usage(&flow, "one", &script.to_string());
    flow.add(budget);
    let only = ["run", "m.kdl", "--json", "--only", "pkg/{one}/tidy/1"];
    let mut run =
        flow.command(&only).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    support::until("the agent is at work", || at_work.exists());
    let pid = run.id().cast_signed();
    support::processes::kill(pid, 19);
    std::fs::write(&go, "").unwrap();
    let ended = |place: std::io::Result<std::fs::DirEntry>| place.unwrap().path().join("agent.end.json").exists();
    let all = flow.cache().join("tmp/places");
    support::until("its end is written", || std::fs::read_dir(&all).unwrap().any(ended));
    support::processes::kill(pid, 9);
    run.wait().unwrap();
    flow
}

#[test]
fn a_repository_that_is_away_when_an_agent_ends_costs_neither_its_figures_nor_its_work() {
    let flow = paid();
    flow.replace("steps.kdl", "step agent    uses=agent       {", "step agent    uses=agent       { sandbox off;");
    let (repo, away) = (flow.path("repo"), flow.path("repo.away"));
    let shell = format!("mv {} {}", repo.display(), away.display());
    let script = serde_json::json!({"argv": ["sh", "-c", shell], "usage": {"input": 100_000, "output": 10_000}});
    usage(&flow, "one", &script.to_string());
    flow.add("budget (usd)5.00");
    let only = ["--only", "pkg/{one}/tidy/1"];
    flow.run_with(&only).exits(3).says("its agent has finished, but ").says("pays for no other");
    flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"])
        .settles()
        .says("CHECKOUT_FAILED")
        .says("make the repository readable");
    // Neither then nor by a run that adopts it in vain.
    for _ in 0..2 {
        let told = spent(&flow);
        assert_eq!((&told["all"]["cost_usd"]["known"], &told["all"]["attempts"]), (&1.0.into(), &1.into()), "{told}");
        assert_eq!((&told["all"]["tokens"]["input"], &told["budget"]["spent_usd"]), (&100_000.into(), &1.0.into()));
        assert_eq!((begun(&flow), agents(&flow), places(&flow)), (1, 0, 1));
        flow.run_with(&only).exits(3).says("its agent has finished, but ");
    }
    std::fs::rename(&away, &repo).unwrap();
    let ran = flow.run_with(&only);
    ran.settles();
    assert_eq!(ran.class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!((begun(&flow), agents(&flow), places(&flow)), (1, 1, 0), "read, and not paid for again");
    let told = spent(&flow);
    assert_eq!((&told["all"]["cost_usd"]["known"], &told["all"]["attempts"]), (&1.0.into(), &1.into()));
}

#[test]
fn what_a_run_could_not_read_is_spent_for_its_own_budget_too() {
    let flow = paid();
    let shell = format!("mv {} {}", flow.path("repo").display(), flow.path("repo.away").display());
    let script = serde_json::json!({"argv": ["sh", "-c", shell], "usage": {"input": 100_000, "output": 10_000}});
    usage(&flow, "one", &script.to_string());
    flow.add("budget (usd)1.50");
    let ran = flow.run_with(&["--only", "pkg/{one}/tidy/*"]);
    ran.exits(3).says("spent $1.00; an attempt of tidy may cost $1.00");
    assert_eq!(begun(&flow), 1);
}

#[test]
fn an_agent_of_a_dead_run_is_on_the_ledger_before_anybody_reads_it_and_when_nobody_asks_for_it_any_more() {
    let flow = died_after_its_agent("budget (usd)5.00");
    assert_eq!(spent(&flow)["all"]["cost_usd"]["known"], 1.0, "nobody has adopted it");
    // A run that is about others leaves it to one that is about it.
    flow.run_with(&["--only", "pkg/{two}/tidy/1"]).settles();
    assert_eq!((agents(&flow), places(&flow)), (1, 1));
    assert_eq!(spent(&flow)["all"]["cost_usd"]["known"], 2.0);
    usage(&flow, "one", r#"{"usage": {"input": 100000, "output": 10000}}"#);
    let ran = flow.run_with(&["--only", "pkg/{one}/tidy/1"]);
    ran.settles().says("what it was given has changed since");
    assert_eq!((agents(&flow), places(&flow)), (3, 0));
    let orphan = flow.ends("agent", "INTERRUPTED");
    assert_eq!(orphan.len(), 1);
    assert_eq!(orphan[0]["usage"], serde_json::json!({"input": 100_000, "output": 10_000}));
    let told = spent(&flow);
    assert_eq!(
        (&told["all"]["cost_usd"]["known"], &told["all"]["cost_usd"]["unknown_attempts"]),
        (&3.0.into(), &0.into())
    );
    assert_eq!(told["budget"]["spent_usd"], 3.0);
}

#[test]
fn nobody_waits_for_a_run_that_died() {
    let flow = died_after_its_agent("budget (usd)1.50");
    flow.run_with(&["--only", "pkg/{two}/tidy/1"]).exits(3).says("spent $1.00; an attempt of tidy may cost $1.00");
    assert_eq!(begun(&flow), 1);
    // What is paid for is read all the same.
    flow.run_with(&["--only", "pkg/{one}/tidy/1"]).settles();
    assert_eq!((begun(&flow), agents(&flow)), (1, 1));
}

#[test]
fn three_cheap_attempts_do_not_outweigh_what_the_manifest_expects() {
    let flow = paid();
    usage(&flow, "one", r#"{"usage": {"input": 2000, "output": 0}}"#);
    flow.replace("m.kdl", "expect cost=(usd)1.00", "expect cost=(usd)5.00");
    flow.add("budget (usd)10.00");
    flow.run_with(&["--only", "pkg/{one}/tidy/*"]).exits(0);
    assert_eq!(agents(&flow), 6, "a cent each");
    usage(&flow, "two", r#"{"usage": {"input": 1000000, "output": 0}}"#);
    flow.run_with(&["--only", "pkg/{two}/tidy/*"]).exits(3).says("an attempt of tidy may cost $5.00");
    let told = spent(&flow);
    assert!(told["budget"]["spent_usd"].as_f64().unwrap() <= 10.0, "{told}");
    assert_eq!(agents(&flow), 7, "one of five dollars, and another one might be too much");
}

#[test]
fn a_paid_candidate_that_is_expected_to_cost_nothing_is_refused() {
    let flow = paid();
    flow.replace("m.kdl", "expect cost=(usd)1.00", "expect cost=(usd)0");
    flow.add("budget (usd)5.00");
    flow.flow(&["check", "m.kdl"]).exits(2).says("would bound nothing");
}
