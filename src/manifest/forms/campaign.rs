//! What makes a set of verdicts one that can be published: vetted commits, the A/A control, a person's rulings.

use super::*;

/// The classes that a person may give a job.
const RULED: &[&str] = &[
    "SUCCESS_IMPROVEMENT",
    "SUCCESS_NEUTRAL",
    "SUCCESS_REGRESSION",
    "MIXED",
    "INCONCLUSIVE",
    "SUSPECT",
    "PATCHED_WRONG_RESULT",
    "PATCH_PROTECTED",
    "PATCH_INVALID",
];
/// Why a commit is no good for an evaluation.
pub(in crate::manifest) const REASONS: &[&str] =
    &["revert", "no-source", "no-test", "test-fails", "noisy", "not-faster", "undecided"];

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "vetted",
        within: &[In::Repo],
        args: &[one("file", Ty::Path)],
        meaning: "The file that `flow vet` writes (vetting.md): only the commits that are vetted there are evaluated, no agent is paid for another, and reports say of how many. A commit of the list that the file does not name is left out, and that is said. In no key.",
        example: "vetted \"vetted.kdl\"",
        ..NODE
    },
    Form {
        name: "calibrate",
        within: &[In::Pipeline],
        args: &[maybe("share", Ty::Percent)],
        meaning: "The A/A control: for this share of the jobs, 10% if not said, a second copy of the base is measured as if it were a patch. Whatever is found there is false; how often that happened heads every report. Without it verdicts of time are UNCALIBRATED. Exact counts need none.",
        example: "calibrate \"10%\"",
        ..NODE
    },
    Form {
        name: "rulings",
        within: &[In::Pipeline],
        args: &[one("file", Ty::Path)],
        meaning: "A file of a person's judgements, for git: it begins with `flow 1` and holds `ruling` and `skip`. Each is shown beside what flow says, which stays. In no key.",
        example: "rulings \"rulings.kdl\"",
        ..NODE
    },
    Form {
        name: "ruling",
        within: &[In::Rulings],
        args: &[one("job", Ty::Text)],
        props: &[must("verdict", Ty::Word(RULED)), must("because", Ty::Text)],
        repeat: true,
        meaning: "What a person says that a job came to, and why. Rates count it in place of the class; both are shown. A SUSPECT waits for one.",
        example: "ruling \"vllm/8aa1485f/trae/1\" verdict=SUCCESS_NEUTRAL because=\"the gain is a cache that outlives the process\"",
        ..NODE
    },
    Form {
        name: "skip",
        within: &[In::Rulings],
        args: &[one("job", Ty::Text)],
        props: &[must("because", Ty::Text)],
        repeat: true,
        meaning: "A job that a person takes out: it is not begun any more, is in no rate, and is listed with the reason.",
        example: "skip \"vllm/8aa1485f/trae/1\" because=\"the agent was stopped by hand\"",
        ..NODE
    },
    Form {
        name: "commit",
        within: &[In::Vetted],
        args: &[one("commit id", Ty::Commit)],
        props: &[
            must("effect", Ty::Text),
            must("interval", Ty::Text),
            prop("level", Ty::Text),
            prop("device", Ty::Text),
        ],
        repeat: true,
        meaning: "A commit whose human change is faster here: how much, between what at which level, and on what it was measured.",
        example: "commit \"8aa1485f\" effect=\"1.34x\" interval=\"[1.30, 1.38]\" level=\"98.42 %\" device=\"cpu\"",
        ..NODE
    },
    Form {
        name: "out",
        within: &[In::Vetted],
        args: &[one("commit id", Ty::Commit)],
        props: &[must("because", Ty::Word(REASONS)), prop("evidence", Ty::Text)],
        repeat: true,
        meaning: "A commit that is not evaluated, and why: it is a revert; it touches no source file; it has no test; its test does not work on the base; base against base came out as different; the human change is not faster here; or whether it is cannot be said.",
        example: "out \"8aa1485f\" because=not-faster evidence=\"SUCCESS_NEUTRAL: 1.00x [0.99, 1.01] 8 blocks\"",
        ..NODE
    },
];
