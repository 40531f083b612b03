//! What a pipeline is made of but for its steps and candidates: repositories, tests, slots, axes.

use super::*;
use crate::measure::presets::NAMES as PRESETS;

/// The rates that goals name.
const RATES: &[Prop] = &[
    prop("patched", Ty::Percent),
    prop("measured", Ty::Percent),
    prop("improved", Ty::Percent),
    prop("at-least-human", Ty::Percent),
];

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "repo",
        within: &[In::Pipeline],
        args: &[one("name", Ty::Name), one("URL or path", Ty::Text)],
        repeat: true,
        inner: In::Repo,
        must: &["commits"],
        meaning: "A repository. What holds `://` or looks like `user@host:path` is a URL; anything else is a path relative to the file: a clone, or a `git fast-import` stream.",
        example: "repo vllm \"https://github.com/vllm-project/vllm.git\" { … }",
        ..NODE
    },
    Form {
        name: "commits",
        within: &[In::Repo],
        props: &[prop("file", Ty::Path), prop("table", Ty::Path)],
        inner: In::Commits,
        meaning: "The human commits, said in one of three ways: `file`, with `human [base | parent=N]` a line and `#` comments; `table`, JSONL or CSV by its ending, with the columns `human` and `base` or `parent` and any others, which become `{commit.COLUMN}`; or children. Without a base it is the first parent.",
        example: "commits file=\"commits/vllm.txt\"",
        ..NODE
    },
    Form {
        name: "package",
        within: &[In::Repo],
        args: &[one("distribution", Ty::Text)],
        meaning: "The name by which the repository is installed. An agent within whose reach an interpreter has a copy is marked PACKAGE_AT_HAND; if the copy holds the human's change, it is not begun. A trajectory that fetches one is marked LOOKED_UP. In no key.",
        example: "package \"networkx\"",
        ..NODE
    },
    Form {
        name: "commit",
        within: &[In::Commits],
        args: &[one("commit id", Ty::Commit)],
        props: &[prop("base", Ty::Commit), prop("parent", Ty::Whole(1, 100))],
        repeat: true,
        meaning: "A human commit: 8 to 40 hex digits, in quotes.",
        example: "commit \"8aa1485f\" parent=1",
        ..NODE
    },
    Form {
        name: "tests",
        within: &[In::Repo],
        props: &[
            must("dir", Ty::Template),
            must("name", Ty::Template),
            prop("contract", Ty::Word(&["flow", "isobench"])),
        ],
        repeat: true,
        inner: In::Tests,
        meaning: "Where test scripts are and how they report (tests.md says more); `contract` is `flow` if not said. In `dir` may stand `{var.NAME}`: for scripts that lie elsewhere on each machine. The first whose `only` holds the commit wins; one without `only` takes all others.",
        example: "tests dir=\"tests/vllm\" name=\"{commit.id8}.py\" contract=flow",
        ..NODE
    },
    Form {
        name: "only",
        within: &[In::Tests],
        args: &[some("commit id", Ty::Commit)],
        meaning: "The commits that these tests are for.",
        example: "only \"8aa1485f\"",
        ..NODE
    },
    Form {
        name: "metric",
        within: &[In::Tests, TEST],
        args: &[one("name", Ty::Name)],
        props: &[
            must("better", Ty::Word(&["lower", "higher"])),
            prop("min-effect", Ty::Percent),
            prop("kind", Ty::Word(&["time", "count"])),
            prop("guard", Ty::Flag),
            prop("equal", Ty::Flag),
            prop("bound", Ty::Times),
            prop("pattern", Ty::Reads),
        ],
        repeat: true,
        meaning: "A metric of the test's result, in place of the contract's default. With a `pattern` it is read from what the test prints, its standard output, else its standard error: the one group of the regular expression holds the number, each line is tried by itself, and the last match counts. Either all metrics of a test have patterns or none. The first is primary; a `guard` must not get worse. `kind` is `time` if not said, `min-effect` is 2%. A `count` is exact and needs no statistics; with `equal=#true` it counts work and must be the same in both trees: another count is PATCHED_WRONG_RESULT. A gain beyond `bound` is SUSPECT.",
        example: "metric ops better=lower kind=count min-effect=\"2%\"",
        ..NODE
    },
    Form {
        name: "metrics",
        within: &[In::Tests, TEST],
        args: &[one("preset", Ty::Word(&PRESETS))],
        props: &[prop("primary", Ty::Name), prop("min-effect", Ty::Percent)],
        meaning: "The metrics of a known benchmark, with their patterns: servers.md lists them. `primary` names the one that the verdict is about, the first if not said. A `metric` beside it is one more, or takes the place of the one of its name.",
        example: "metrics vllm-serving primary=mean_ttft_ms",
        ..NODE
    },
    Form {
        name: "slots",
        within: &[In::Pipeline],
        inner: In::Slots,
        meaning: "The things that a step may hold while it runs.",
        example: "slots { gpu \"0\" cores=\"0-7\"; cpu \"a\"; lane build 2 }",
        ..NODE
    },
    Form {
        name: "gpu",
        within: &[In::Slots],
        args: &[one("name", Ty::Text)],
        props: &[prop("cores", Ty::Cores), prop("hourly", Ty::Money)],
        repeat: true,
        meaning: "A GPU by number or UUID, the cores kept for it, and what an hour of it costs: that is told beside the cost of the agents, never within it.",
        example: "gpu \"0\" cores=\"0-7\"",
        ..NODE
    },
    Form {
        name: "cpu",
        within: &[In::Slots],
        args: &[one("name", Ty::Text)],
        props: &[prop("cores", Ty::Cores), prop("hourly", Ty::Money)],
        repeat: true,
        meaning: "A share of the processor, its cores, and what an hour of it costs.",
        example: "cpu \"a\" cores=\"0-3,8\"",
        ..NODE
    },
    Form {
        name: "lane",
        within: &[In::Slots],
        args: &[one("name", Ty::Name), one("width", Ty::Whole(1, 10_000))],
        repeat: true,
        meaning: "How many may hold it at once; no device.",
        example: "lane build 2",
        ..NODE
    },
    Form {
        name: "axis",
        within: &[In::Pipeline],
        args: &[one("name", Ty::HoleName), any("value", Ty::Text)],
        props: &[prop("file", Ty::Path)],
        repeat: true,
        meaning: "An axis of the manifest's own, with its values as arguments or one a line of a file (`#` begins a comment line). A step takes it by using `{NAME}` or `each NAME`.",
        example: "axis n \"1\" \"2\" \"3\"",
        ..NODE
    },
    Form {
        name: "goals",
        within: &[In::Pipeline],
        inner: In::Goals,
        meaning: "The rates that are to be reached, as shares of a candidate's planned jobs, by their first draws: `patched`, `measured`, `improved` and `at-least-human`. `plan` and `check` state them. In no key.",
        example: "goals { minimum improved=\"58%\"; target improved=\"72%\"; exceptional improved=\"82%\" }",
        ..NODE
    },
    Form {
        name: "minimum",
        within: &[In::Goals],
        props: RATES,
        meaning: "Less than this is a failure.",
        example: "minimum improved=\"58%\"",
        ..NODE
    },
    Form {
        name: "target",
        within: &[In::Goals],
        props: RATES,
        meaning: "What is hoped for: at least the minimum.",
        example: "target improved=\"72%\"",
        ..NODE
    },
    Form {
        name: "exceptional",
        within: &[In::Goals],
        props: RATES,
        meaning: "More than was hoped for: at least the target.",
        example: "exceptional improved=\"82%\"",
        ..NODE
    },
];
