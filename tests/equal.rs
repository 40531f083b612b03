//! The promise of the comparison: no speed is believed of a wrong result, and no agent is blamed for a test that has none.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::{Flow, Ran};

/// The sample with one commit and the candidate `tidy`, whose patch halves the work. The script ends with `ends`, which finds the
/// work done as `ops` (1000 in the base, 500 in the patched tree) and how many processes of this tree ran before as `n`.
fn sample(equal: &str, ends: &str) -> Flow {
    let flow = Flow::sample();
    flow.write("commits.txt", "{one:40}\n");
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow.replace("m.kdl", "    tool python", &format!("    step patched {{ {equal} }}\n    tool python"));
    let seen = flow.signs().join("seen").display().to_string();
    flow.edit("tests/{one}.py", |text| {
        let at = text.find("out = ").unwrap();
        let count = format!(
            r#"ops = pkg.work.OPS[0]
with open({seen:?}, "a+") as f:
    f.seek(0)
    n = f.read().split().count(str(ops))
    f.write(str(ops) + "\n")
out = {{"metrics": {{"ops": ops}}}}
{ends}
with open(os.environ["FLOW_RESULT"], "w") as f:
    json.dump(out, f)
"#
        );
        format!("{}{count}", &text[..at])
    });
    flow
}

/// The same, measured in time on one slot.
fn timed(equal: &str, ends: &str) -> Flow {
    let flow = sample(&format!("holds cpu=1; {equal}"), ends);
    flow.replace("m.kdl", "metric ops better=lower kind=count", "metric time_s better=lower");
    flow.replace("m.kdl", "    tool python", "    slots { cpu \"a\" }\n    tool python");
    flow
}

#[track_caller]
fn comes_to(flow: &Flow, class: &str) -> Ran {
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), class, "{}\n{}", run.stdout, run.stderr);
    run
}

fn show(flow: &Flow) -> serde_json::Value {
    flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).settles().json()
}

#[track_caller]
fn evidence(flow: &Flow, holds: &str) {
    let job = show(flow);
    let evidence = job["evidence"].as_str().unwrap_or_default();
    assert!(evidence.contains(holds), "{job}");
}

/// Wobbles in the last bits, in the base as in the patched tree.
const WOBBLES: &str =
    "import random\nx = 1.0 + random.random() * 1e-12\nout['values'] = [x, [2.0, 3.0]]\nout['digest'] = repr(x)";

#[test]
fn a_test_that_wobbles_in_the_last_bits_is_right_under_close_and_its_own_fault_under_digest() {
    let flow = sample("equal close rtol=1e-6", WOBBLES);
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert_eq!(support::marks(&show(&flow)), serde_json::json!(["WRITE_OPEN"]));

    let flow = sample("equal digest", WOBBLES);
    comes_to(&flow, "BASELINE_NONDETERMINISTIC");
    assert_eq!(show(&flow)["owner"], "test");
    assert!(!flow.lines().iter().any(|line| line["step"] == "agent"), "an agent ran");
}

#[test]
fn a_test_that_is_seldom_another_is_not_the_agents_fault_either() {
    // The base is itself until the fifth process, by when the patched tree's first has had its chance to be blamed.
    let flow = sample(
        "equal digest",
        "out['digest'] = 'odd' if (ops == 500 and n == 1) or (ops == 1000 and n >= 4) else 'even'",
    );
    comes_to(&flow, "BASELINE_NONDETERMINISTIC");
    evidence(&flow, "two runs of the base");
}

#[test]
fn numbers_that_are_farther_apart_are_a_wrong_result_that_says_which() {
    let flow = sample("equal close rtol=1e-3 atol=1e-9", "out['values'] = {'a': [1.0, 2.0, ops / 1e9]}");
    comes_to(&flow, "PATCHED_WRONG_RESULT");
    evidence(&flow, "number 3 is 0.000001 and 0.0000005; 1 of 3");
    assert_eq!(show(&flow)["owner"], "agent");

    let flow = sample("equal close rtol=1e-3 atol=1e-6", "out['values'] = {'a': [1.0, 2.0, ops / 1e9]}");
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
}

#[test]
fn large_arrays_go_through_a_file_and_nan_and_infinity_are_themselves() {
    let file = "with open(os.environ['FLOW_VALUES'], 'w') as f: json.dump([float('nan'), float('inf')] + list(range(300000)), f)";
    let flow = sample("equal close rtol=1e-9", file);
    comes_to(&flow, "SUCCESS_IMPROVEMENT");

    let flow = sample("equal close rtol=1e-9", &file.replace("300000", "300000 + (ops == 500)"));
    comes_to(&flow, "PATCHED_WRONG_RESULT");
    evidence(&flow, "300002 numbers and 300003");

    let flow = sample(
        "equal close rtol=1e-9",
        &format!("{file}\nif ops == 500: open(os.environ['FLOW_VALUES'], 'w').write('[1, x]')"),
    );
    comes_to(&flow, "PATCHED_EXCEPTION");
    evidence(&flow, "no JSON of numbers");

    let flow = sample("equal close rtol=1e-9", &format!("{file}\nif ops == 500: os.remove(os.environ['FLOW_VALUES'])"));
    comes_to(&flow, "PATCHED_WRONG_RESULT");
}

#[test]
fn a_score_may_move_within_its_band_and_not_beyond() {
    let score = "out['score'] = 0.9 if ops == 1000 else ";
    for (rule, patched, class) in [
        ("equal score band=\"1%\"", "0.893", "SUCCESS_IMPROVEMENT"),
        ("equal score band=\"1%\"", "0.88", "PATCHED_WRONG_RESULT"),
        ("equal score band=\"1%\"", "0.92", "PATCHED_WRONG_RESULT"),
        ("equal score band=\"1%\" better=higher", "0.92", "SUCCESS_IMPROVEMENT"),
        ("equal score band=\"1%\" better=lower", "0.92", "PATCHED_WRONG_RESULT"),
    ] {
        let flow = sample(rule, &format!("{score}{patched}"));
        comes_to(&flow, class);
    }
    let flow = sample("equal score band=\"1%\"", "import random\nout['score'] = 1 + n % 2");
    comes_to(&flow, "BASELINE_NONDETERMINISTIC");
}

/// Keeps what it computes in the base, and compares itself with it.
const CHECKS: &str = "
answer = WHAT
kept = os.environ['FLOW_REFERENCE']
if os.environ['FLOW_MODE'] == 'reference':
    with open(kept, 'w') as f: f.write(str(answer))
    sys.exit(0)
if open(kept).read() != str(answer):
    sys.stderr.write('another answer\\n')
    sys.exit(5)
";

#[test]
fn a_script_may_compare_its_results_itself() {
    let with = |what: &str| sample("equal script", &CHECKS.replace("WHAT", what));
    let flow = with("result");
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert_eq!(support::marks(&show(&flow)), serde_json::json!(["WRITE_OPEN"]));
    flow.run().executes_nothing();

    let flow = with("ops");
    comes_to(&flow, "PATCHED_WRONG_RESULT");
    evidence(&flow, "another answer");

    let flow = with("os.getpid()");
    comes_to(&flow, "BASELINE_NONDETERMINISTIC");

    let flow = sample("equal script", "");
    comes_to(&flow, "BASELINE_EXCEPTION");
    evidence(&flow, "FLOW_MODE=reference");
}

#[test]
fn what_a_script_kept_of_the_base_is_out_of_the_patched_trees_reach() {
    let spoils = CHECKS.replace("WHAT", "ops if ops == 1000 else open(kept_at).read()").replacen(
        "answer =",
        "kept_at = os.environ['FLOW_REFERENCE']\nif ops == 500 and n == 0: open(kept_at, 'w').write('500')\nanswer =",
        1,
    );
    // Its own copy it may spoil: the next process has the base's again.
    let flow = sample("equal script", &spoils);
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
}

#[test]
fn a_script_of_iso_bench_is_told_by_its_own_options() {
    let flow = sample("equal script", "");
    flow.replace("m.kdl", "contract=flow", "contract=isobench");
    flow.edit("tests/{one}.py", |text| {
        let at = text.find("out = ").unwrap();
        let ends = "import argparse
p = argparse.ArgumentParser()
p.add_argument('--eqcheck', action='store_true'); p.add_argument('--reference', action='store_true'); p.add_argument('--prefix')
args = p.parse_args()
file = f'{args.prefix}_child_reference.json'
if args.reference: json.dump(result, open(file, 'w'))
if args.eqcheck: assert json.load(open(file)) == (result if FINE else ops), 'not equivalent'
print(json.dumps({'ops': ops}))
";
        format!("{}{ends}", &text[..at])
    });
    let wrong = flow.twin();
    flow.replace("tests/{one}.py", "FINE", "True");
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert_eq!(support::marks(&show(&flow)), serde_json::json!(["FORGEABLE", "WRITE_OPEN"]));

    wrong.replace("tests/{one}.py", "result if FINE else ops", "result if ops == 1000 else ops");
    comes_to(&wrong, "PATCHED_WRONG_RESULT");
    evidence(&wrong, "not equivalent");
}

#[test]
fn a_result_that_nothing_is_compared_of_is_marked_wherever_it_is_shown() {
    for rule in ["equal digest", "equal close rtol=1e-3", "equal score band=\"1%\""] {
        let flow = sample(rule, "");
        comes_to(&flow, "SUCCESS_IMPROVEMENT");
        assert_eq!(support::marks(&show(&flow)), serde_json::json!(["UNCHECKED", "WRITE_OPEN"]), "{rule}");
        flow.flow(&["show", "pkg/{one}/tidy/1"]).settles().says("UNCHECKED");
        flow.flow(&["run", "m.kdl"]).settles().says("UNCHECKED");
        flow.flow(&["status"]).settles().says("marked UNCHECKED");
        assert_eq!(flow.flow(&["status", "--json"]).settles().json()["marks"]["UNCHECKED"], 1);
    }
}

#[test]
fn other_work_is_a_wrong_result_however_right_it_looks() {
    let counted = |tokens: &str| {
        let flow = sample("equal digest", &format!("out['digest'] = 'same'; out['metrics']['tokens'] = {tokens}"));
        let both =
            "metric ops better=lower kind=count min-effect=\"2%\"; metric tokens better=lower kind=count equal=#true";
        flow.replace("m.kdl", "metric ops better=lower kind=count min-effect=\"2%\"", both);
        flow
    };
    comes_to(&counted("1000"), "SUCCESS_IMPROVEMENT");
    let fewer = counted("1000 if ops == 1000 else 900");
    comes_to(&fewer, "PATCHED_WRONG_RESULT");
    evidence(&fewer, "the counter `tokens` is 1000 in the base and 900 in the patched tree");
    comes_to(&counted("1000 + n"), "BASELINE_NONDETERMINISTIC");
}

#[test]
fn the_repositorys_own_tests_count_where_they_pass_in_the_base() {
    let checked = |python: &str| {
        let check = format!("check \"python3\" \"-c\" \"import pkg.work as w; w.one(1); {python}\"");
        sample(&check, "out['digest'] = 'same'")
    };
    comes_to(&checked("assert w.OPS[0] in (5, 10)"), "SUCCESS_IMPROVEMENT");

    let flow = checked("assert w.OPS[0] == 10, 'the work is less'");
    comes_to(&flow, "PATCHED_WRONG_RESULT");
    evidence(&flow, "AssertionError: the work is less");

    let flow = checked("assert w.OPS[0] == 5, 'the base fails'");
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert_eq!(support::marks(&show(&flow)), serde_json::json!(["CHECK-IGNORED", "WRITE_OPEN"]));
}

#[test]
fn a_gain_beyond_its_bound_is_never_an_improvement() {
    let flow = sample("equal digest", "out['digest'] = 'same'");
    flow.replace("m.kdl", "min-effect=\"2%\" }", "min-effect=\"2%\" bound=\"1.5x\" }");
    comes_to(&flow, "SUSPECT");
    evidence(&flow, "ops is 2.00x, beyond its bound of 1.50x");
    assert!(show(&flow)["speedup"].is_null());

    let flow = sample("equal digest", "out['digest'] = 'same'");
    flow.replace("m.kdl", "min-effect=\"2%\" }", "min-effect=\"2%\" bound=\"2.5x\" }");
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
}

/// Sleeps as long as the work says, which is `took`, and claims that `CLAIM` seconds were needed.
const SLEEPS: &str = "
import time
out['digest'] = 'same'
MARK
began = time.monotonic()
time.sleep(ops / 5000)
took = time.monotonic() - began
MARK
out['metrics'] = {'time_s': CLAIM}
";

#[test]
fn a_claim_is_held_against_the_window_that_the_script_marks() {
    let marked = SLEEPS.replace("MARK", "os.write(int(os.environ['FLOW_MARK']), b'x')");
    let honest = timed("equal digest", &marked.replace("CLAIM", "took"));
    comes_to(&honest, "SUCCESS_IMPROVEMENT");

    let flow = timed("equal digest", &marked.replace("CLAIM", "took if ops == 1000 else took / 2"));
    comes_to(&flow, "SUSPECT");
    evidence(&flow, "longer than claimed");

    let silent = marked.replace("CLAIM", "took").replace("os.write(", "if ops == 1000: os.write(");
    let flow = timed("equal digest", &silent);
    comes_to(&flow, "SUSPECT");
    evidence(&flow, "did not mark its timed window");
}

#[test]
fn without_marks_a_saving_that_flows_clock_cannot_see_is_suspect() {
    let unmarked = SLEEPS.replace("MARK\n", "").replace("ops / 5000", "0.4");
    let flow = timed("equal digest", &unmarked.replace("CLAIM", "took if ops == 1000 else took / 10"));
    comes_to(&flow, "SUSPECT");
    evidence(&flow, "ms a process are claimed to be saved");
}

#[test]
fn the_rule_is_in_the_key_and_the_usual_one_is_not() {
    let flow = sample("", "out['digest'] = 'same'; out['values'] = 1");
    flow.run().settles();
    flow.replace("m.kdl", "step patched {  }", "step patched { equal digest }");
    flow.run().settles().executes_nothing();
    flow.replace("m.kdl", "equal digest", "equal close rtol=1e-3");
    let again = flow.run();
    again.settles().executes(&["{one} baseline", "{one}/tidy/1 patched", "{one}/tidy/1 classify"]);
    flow.flow(&["why", "{one}", "m.kdl", "--key"]).settles().says("close rtol=0.001 atol=0");
}

#[test]
fn a_rule_that_cannot_be_is_a_flaw() {
    for (rule, says) in [
        ("equal close", "says not how close"),
        ("equal score", "needs a `band`"),
        ("equal digest rtol=1e-3", "`equal digest` has no `rtol`"),
        ("equal close rtol=-1", "a number of at least 0"),
        ("equal closely rtol=1", "cannot be `closely`"),
        ("metric a better=lower; metric b better=lower equal=#true", "only a `count` can be equal"),
        ("metric a better=lower bound=\"half\"", "no ratio above 1"),
        ("check \"pytest -q tests\"", "takes a program here"),
    ] {
        sample(rule, "").flow(&["check", "m.kdl"]).exits(2).says(says);
    }
}
