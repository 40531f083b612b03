//! The promise of keys: what changed runs again, what did not is served, wherever the folder lies and whatever things are called.

mod support;

use support::Flow;

#[test]
fn a_second_run_does_nothing() {
    let flow = Flow::sample();
    let first = flow.run();
    first.settles();
    assert_eq!(first.class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(first.class("{two}/tidy/1"), "SUCCESS_IMPROVEMENT");
    flow.run().settles().executes_nothing();
}

#[test]
fn one_byte_in_one_patch_runs_that_job_again() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4");
    flow.run().settles().executes(&[
        "{one}/tidy/1 agent",
        "{one}/tidy/1 patch",
        "{one}/tidy/1 patched",
        "{one}/tidy/1 classify",
    ]);
}
