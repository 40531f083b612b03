//! The promise that a patch is measured by nothing it can change: the base tree, the script, an answer left for the next process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use support::Flow;

/// The class of a patch that puts some code before `pkg/work.py` of the commit `one`.
fn class_of(code: &str, change: impl FnOnce(&str) -> String) -> String {
    let flow = Flow::sample();
    // Where the kernel holds a test to its own tree, nothing of this can even be tried.
    flow.replace("steps.kdl", "step patched  uses=test        {", "step patched  uses=test        { sandbox off;");
    flow.patch("tidy", "one", "pkg/work.py", |text| format!("{code}{}", change(text)));
    let ran = flow.run();
    ran.settles();
    assert_eq!(ran.class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
    ran.class("{one}/tidy/1")
}

#[test]
fn a_patch_that_slows_the_base_down_is_suspect() {
    let code = "import os\nwith open(os.path.join(os.getcwd(), '..', 'tree-a', 'pkg', 'work.py'), 'a') as f:\n    f.write('\\nOPS[0] = 99999\\n')\n";
    assert_eq!(class_of(code, str::to_owned), "SUSPECT");
}

#[test]
fn a_patch_that_takes_the_base_away_is_suspect() {
    let code = "import os, shutil\nshutil.rmtree(os.path.join(os.getcwd(), '..', 'tree-a'), ignore_errors=True)\n";
    assert_eq!(class_of(code, str::to_owned), "SUSPECT");
}

#[test]
fn a_patch_that_rewrites_the_script_is_suspect() {
    let code = "import sys\nwith open(sys.argv[0], 'a') as f:\n    f.write('# faster')\n";
    assert_eq!(class_of(code, str::to_owned), "SUSPECT");
}

#[test]
fn an_answer_left_in_the_tree_is_gone_for_the_next_process() {
    let class = class_of("import os\n", |text| {
        text.replacen(
            "    for _ in range(n):\n        OPS[0] += 10\n    return n\n",
            "    if os.path.exists('memo'):\n        return n\n    open('memo', 'w').close()\n    for _ in range(n):\n        OPS[0] += 10\n    return n\n",
            1,
        )
    });
    assert_eq!(class, "SUCCESS_NEUTRAL");
}
