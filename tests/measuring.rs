//! The promise of measuring: results are compared before any speed is believed, and no time is spent on what is decided.

mod support;

use support::Flow;

/// The sample, measured in time on one slot; the digest is what the function returns.
fn timed() -> Flow {
    let flow = Flow::sample();
    flow.replace("m.kdl", "metric ops better=lower kind=count", "metric time_s better=lower");
    flow.replace("m.kdl", "tool python", "slots { cpu \"a\" }\n    step patched { holds cpu=1 }\n    tool python");
    for test in ["tests/{one}.py", "tests/{two}.py"] {
        flow.replace(test, "\"ops\": pkg.work.OPS[0]", "\"time_s\": 1.0");
    }
    flow
}

#[test]
fn a_wrong_result_costs_one_block() {
    let flow = timed();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        n += 5");
    let run = flow.run();
    run.settles();
    assert_eq!(run.class("{one}/tidy/1"), "PATCHED_WRONG_RESULT");
    assert_eq!(run.class("{one}/human/1"), "SUCCESS_NEUTRAL");
    let records = std::fs::read_dir(flow.cache().join("records/v1")).unwrap();
    let lines: String = records.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let stopped = lines.lines().filter(|line| line.contains("stopped after 1 of 5 blocks: the results differ"));
    assert_eq!(stopped.count(), 1, "{lines}");
}
