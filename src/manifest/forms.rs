//! The grammar: one table of every node, where it may stand and what it takes. Longer than a file should be, because it is
//! one table.
//!
//! It drives the errors (`shape`) and the reference (`reference`), so that neither can know a node that the other does not.
//! It does not say how nodes fit together: that is `check`.

use super::Kind;
use super::grammar::{Arg, Form, In, Many, Prop, Ty};

const NODE: Form = Form {
    name: "",
    within: &[],
    args: &[],
    props: &[],
    open: None,
    repeat: false,
    inner: In::Nowhere,
    must: &[],
    meaning: "",
    example: "",
};

const fn one(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::One }
}
const fn maybe(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::Maybe }
}
const fn some(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::Some }
}
const fn any(what: &'static str, ty: Ty) -> Arg {
    Arg { what, ty, many: Many::Any }
}
const fn prop(name: &'static str, ty: Ty) -> Prop {
    Prop { name, ty, must: false }
}
const fn must(name: &'static str, ty: Ty) -> Prop {
    Prop { name, ty, must: true }
}

/// The words of `uses=`.
pub(super) const KINDS: &[&str] = &["checkout", "environment", "agent", "patch", "test", "classify", "command"];

const STEPS: &[In] = &[
    In::Step(Kind::Checkout),
    In::Step(Kind::Environment),
    In::Step(Kind::Agent),
    In::Step(Kind::Patch),
    In::Step(Kind::Test),
    In::Step(Kind::Classify),
    In::Step(Kind::Command),
];
/// The kinds that run processes.
const RUNNING: &[In] =
    &[In::Step(Kind::Environment), In::Step(Kind::Agent), In::Step(Kind::Test), In::Step(Kind::Command)];
const WITH_ENV: &[In] = &[
    In::Step(Kind::Environment),
    In::Step(Kind::Agent),
    In::Step(Kind::Test),
    In::Step(Kind::Command),
    In::Candidate,
    In::Agent,
];
const TEST: In = In::Step(Kind::Test);
const COMMAND: In = In::Step(Kind::Command);

/// Every node.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "flow",
        within: &[In::File],
        args: &[one("format", Ty::Whole(1, 1))],
        meaning: "The manifest format. The first node of every file.",
        example: "flow 1",
        ..NODE
    },
    Form {
        name: "import",
        within: &[In::File],
        args: &[some("file", Ty::Path)],
        repeat: true,
        meaning: "Brings the agents, tools and steps of other files. Their order means nothing; a file imported twice is read once; a cycle is a flaw.",
        example: "import \"agents/nop.kdl\" \"steps/standard.kdl\"",
        ..NODE
    },
    Form {
        name: "pipeline",
        within: &[In::File],
        args: &[one("name", Ty::Name)],
        inner: In::Pipeline,
        meaning: "What is evaluated, and how. One in the file that is run, none in an imported one. The name is the identity of history and `why`; the file's name is free.",
        example: "pipeline quickstart { … }",
        ..NODE
    },
    Form {
        name: "agent",
        within: &[In::File],
        args: &[one("name", Ty::Name)],
        repeat: true,
        inner: In::Agent,
        must: &["run"],
        meaning: "An agent adapter: how an agent is run.",
        example: "agent nop { run \"{flow}\" \"act\" \"nothing\"; version \"1\" }",
        ..NODE
    },
    Form {
        name: "tool",
        within: &[In::File, In::Pipeline],
        args: &[one("name", Ty::HoleName), one("path", Ty::Template)],
        repeat: true,
        inner: In::Tool,
        meaning: "A program that decides a result. A path with a `/` is relative to the file, other names are looked up in `PATH`. Run in place, used as `{tool.NAME}`; without a probe it is hashed by its bytes.",
        example: "tool python \"python3\" { probe \"-VV\" }",
        ..NODE
    },
    Form {
        name: "step",
        within: &[In::File, In::Pipeline],
        args: &[one("name", Ty::Name)],
        props: &[prop("uses", Ty::Word(KINDS)), prop("like", Ty::Name)],
        repeat: true,
        inner: In::AnyStep,
        meaning: "With `uses` a definition; with `like` a copy of another step, whose own children replace the copied ones; with neither, in a pipeline, an amendment: its children replace those of the step as a group by node name (`set`, `pass` and `secret` by the variable), the others are kept.",
        example: "step baseline uses=test { needs checkout build; timeout \"10m\" }",
        ..NODE
    },
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
        props: &[must("dir", Ty::Path), must("name", Ty::Template), prop("contract", Ty::Word(&["flow", "isobench"]))],
        repeat: true,
        inner: In::Tests,
        meaning: "Where test scripts are and how they report; `contract` is `flow` if not said. The first whose `only` holds the commit wins; one without `only` takes all others.",
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
        ],
        repeat: true,
        meaning: "A metric of the test's result, in place of the contract's default. The first is primary; a `guard` must not get worse. `kind` is `time` if not said, `min-effect` is 2%. A `count` is exact and needs no statistics.",
        example: "metric ops better=lower kind=count min-effect=\"2%\"",
        ..NODE
    },
    Form {
        name: "candidate",
        within: &[In::Pipeline],
        args: &[one("name", Ty::Name)],
        props: &[must("agent", Ty::Name)],
        repeat: true,
        inner: In::Candidate,
        meaning: "What is evaluated: an agent with a model and a configuration.",
        example: "candidate human agent=human",
        ..NODE
    },
    Form {
        name: "model",
        within: &[In::Candidate],
        args: &[one("model id", Ty::Text)],
        meaning: "The model's id, given to the agent as `{model}`.",
        example: "model \"us.anthropic.claude-sonnet-4-5-20250929-v1:0\"",
        ..NODE
    },
    Form {
        name: "config",
        within: &[In::Candidate],
        args: &[one("file", Ty::Path)],
        inner: In::Config,
        meaning: "The agent's configuration: YAML, TOML or JSON by its ending, keyed by its parsed value. `{secret.NAME}` is filled in for the agent; a key, token, secret or password written out is refused, `\"${NAME}\"` is not.",
        example: "config \"trae.yaml\" { require \"models.main.parallel_tool_calls\" #false }",
        ..NODE
    },
    Form {
        name: "require",
        within: &[In::Config],
        args: &[one("dotted path", Ty::Dotted), one("value", Ty::Scalar)],
        repeat: true,
        meaning: "What the configuration must say, checked before anything runs. A segment with a dot stands in `'…'`, an element of a list is its number from 0; a missing path is unmet.",
        example: "require \"models.'gpt-5.1'.temperature\" 0",
        ..NODE
    },
    Form {
        name: "samples",
        within: &[In::Candidate],
        args: &[one("number", Ty::Whole(1, 1000))],
        meaning: "How many independent draws; 1 if not said.",
        example: "samples 3",
        ..NODE
    },
    Form {
        name: "file",
        within: &[In::Candidate],
        args: &[one("name", Ty::HoleName), one("path", Ty::Template)],
        props: &[prop("optional", Ty::Flag)],
        repeat: true,
        meaning: "A file given to the agent as `{file.NAME}`. Its content is an ingredient of the agent's key.",
        example: "file patch \"patches/{commit.id8}.patch\" optional=#true",
        ..NODE
    },
    Form {
        name: "args",
        within: &[In::Candidate],
        args: &[some("argument", Ty::Template)],
        meaning: "What stands for `{args}` in the adapter's argv.",
        example: "args \"--max-steps\" \"100\"",
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
        props: &[prop("cores", Ty::Cores)],
        repeat: true,
        meaning: "A GPU by number or UUID, and the cores kept for it.",
        example: "gpu \"0\" cores=\"0-7\"",
        ..NODE
    },
    Form {
        name: "cpu",
        within: &[In::Slots],
        args: &[one("name", Ty::Text)],
        props: &[prop("cores", Ty::Cores)],
        repeat: true,
        meaning: "A share of the processor, and its cores.",
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
        name: "probe",
        within: &[In::Tool],
        args: &[some("argument", Ty::Template)],
        repeat: true,
        meaning: "The arguments with which the tool is asked what it is; the answer is an ingredient.",
        example: "probe \"-m\" \"pip\" \"freeze\"",
        ..NODE
    },
    Form {
        name: "watch",
        within: &[In::Tool],
        args: &[some("path", Ty::Template)],
        repeat: true,
        meaning: "Paths whose change makes the probes be asked again. `{prefix}` is the executable's parent of `bin`.",
        example: "watch \"{prefix}/lib\"",
        ..NODE
    },
    Form {
        name: "version",
        within: &[In::Agent],
        args: &[one("version", Ty::Text)],
        meaning: "Changed by whoever changes what the adapter does.",
        example: "version \"1\"",
        ..NODE
    },
    Form {
        name: "usage",
        within: &[In::Agent],
        props: &[must("lines", Ty::Text)],
        meaning: "How the agent's tokens are read: lines of its output that begin with the marker hold usage as JSON.",
        example: "usage lines=\"flow-usage\"",
        ..NODE
    },
    Form {
        name: "trajectory",
        within: &[In::Agent],
        args: &[one("file", Ty::Text)],
        meaning: "A file that the agent writes into `{out}` and that tells what it did: kept for people, without secrets.",
        example: "trajectory \"trajectory.json\"",
        ..NODE
    },
    Form {
        name: "run",
        within: &[In::Agent, TEST, COMMAND],
        args: &[some("argument", Ty::Template)],
        meaning: "The argv; never a shell. In a test it stands in place of `{interpreter} {script}`.",
        example: "run \"{tool.sort}\" \"{in.a}\" \"{out.b}\"",
        ..NODE
    },
    Form {
        name: "set",
        within: WITH_ENV,
        args: &[one("variable", Ty::Variable), one("value", Ty::Template)],
        repeat: true,
        meaning: "Sets a variable of the child's environment, which else is empty but for a fixed base. Hashed.",
        example: "set HF_HUB_OFFLINE \"1\"",
        ..NODE
    },
    Form {
        name: "pass",
        within: WITH_ENV,
        args: &[one("variable", Ty::Variable)],
        props: &[prop("hash", Ty::Flag)],
        repeat: true,
        meaning: "Passes a variable of flow's own environment on. Hashed, unless `hash=#false`.",
        example: "pass HTTPS_PROXY hash=#false",
        ..NODE
    },
    Form {
        name: "secret",
        within: WITH_ENV,
        args: &[one("variable", Ty::Variable)],
        props: &[prop("file", Ty::Path)],
        repeat: true,
        inner: In::Secret,
        meaning: "A secret from the variable of that name, a file or a command, read again at each attempt. Never hashed, stored, logged or shown.",
        example: "secret API_KEY file=\"key.txt\"",
        ..NODE
    },
    Form {
        name: "command",
        within: &[In::Secret],
        args: &[some("argument", Ty::Text)],
        meaning: "The command whose output is the secret.",
        example: "command \"pass\" \"show\" \"api-key\"",
        ..NODE
    },
    Form {
        name: "needs",
        within: STEPS,
        args: &[some("step", Ty::Name)],
        meaning: "Data: the steps whose outputs this one reads, bound by kind and role. An ambiguity is a flaw.",
        example: "needs checkout build",
        ..NODE
    },
    Form {
        name: "after",
        within: STEPS,
        args: &[some("step", Ty::Name)],
        meaning: "Order, and a gate that opens when those steps ended well. It is in no key.",
        example: "after baseline",
        ..NODE
    },
    Form {
        name: "each",
        within: STEPS,
        args: &[some("axis", Ty::Name)],
        meaning: "Axes that the step has though it does not use them in braces: an axis of the manifest, `commit` or `candidate`.",
        example: "each n",
        ..NODE
    },
    Form {
        name: "holds",
        within: RUNNING,
        open: Some(Ty::Count),
        meaning: "What it holds while it runs: slots and lanes by kind, each with a number.",
        example: "holds gpu=1 cpu=\"{commit.cpus}\"",
        ..NODE
    },
    Form {
        name: "timeout",
        within: RUNNING,
        args: &[one("time", Ty::Span)],
        meaning: "For a test of each process, else of the attempt.",
        example: "timeout \"10m\"",
        ..NODE
    },
    Form {
        name: "attempts",
        within: RUNNING,
        args: &[one("number", Ty::Whole(1, 100))],
        meaning: "At most so many counted attempts of one action, over all runs.",
        example: "attempts 3",
        ..NODE
    },
    Form {
        name: "limit",
        within: &[In::Step(Kind::Agent), In::Step(Kind::Patch), TEST, COMMAND],
        args: &[one("size", Ty::Size)],
        meaning: "The largest patch, or the most output.",
        example: "limit \"2MiB\"",
        ..NODE
    },
    Form {
        name: "recipe",
        within: &[In::Step(Kind::Environment)],
        args: &[one("recipe", Ty::Word(&["interpreter"]))],
        props: &[prop("tool", Ty::Name)],
        meaning: "How the environment is made. `interpreter` builds nothing: it is a tool's probe. The tool is the only declared one, if not said.",
        example: "recipe interpreter tool=python",
        ..NODE
    },
    Form {
        name: "prompt",
        within: &[In::Step(Kind::Agent)],
        props: &[must("file", Ty::Template)],
        meaning: "The prompt. Its text is a template too.",
        example: "prompt file=\"prompts/optimise.md\"",
        ..NODE
    },
    Form {
        name: "show",
        within: &[In::Step(Kind::Agent)],
        args: &[some("column", Ty::Name)],
        meaning: "The columns of the commit that the prompt may use. Nothing of the commit reaches a prompt otherwise.",
        example: "show task gpus",
        ..NODE
    },
    Form {
        name: "protect",
        within: &[In::Step(Kind::Patch)],
        args: &[some("glob", Ty::Glob)],
        meaning: "Paths that a patch may not touch: gitignore globs, anchored at the tree's root when they hold a `/` other than at the end.",
        example: "protect \"tests/**\" \"benchmarks/**\"",
        ..NODE
    },
    Form {
        name: "ignore",
        within: &[In::Step(Kind::Patch)],
        args: &[some("glob", Ty::Glob)],
        meaning: "Paths whose changes are dropped and listed.",
        example: "ignore \"*.log\"",
        ..NODE
    },
    Form {
        name: "against",
        within: &[TEST],
        args: &[one("step", Ty::Name)],
        meaning: "The gate whose result is the reference. That step takes slots, metrics, argv and environment from this one, so that gate and measurement cannot drift apart.",
        example: "against baseline",
        ..NODE
    },
    Form {
        name: "protocol",
        within: &[TEST],
        args: &[one("profile", Ty::Word(&["screen", "headline", "fixed"]))],
        inner: In::Protocol,
        meaning: "How it is measured.",
        example: "protocol screen { blocks max=12; time max=\"45m\"; seed 1 }",
        ..NODE
    },
    Form {
        name: "blocks",
        within: &[In::Protocol],
        props: &[must("max", Ty::Whole(1, 1000))],
        meaning: "At most so many blocks; the profile's own number if not said.",
        example: "blocks max=12",
        ..NODE
    },
    Form {
        name: "time",
        within: &[In::Protocol],
        props: &[must("max", Ty::Span)],
        meaning: "No new block after so long.",
        example: "time max=\"45m\"",
        ..NODE
    },
    Form {
        name: "seed",
        within: &[In::Protocol],
        args: &[one("number", Ty::Whole(0, i64::MAX as i128))],
        meaning: "Of the order of the arms; 0 if not said.",
        example: "seed 1",
        ..NODE
    },
    Form {
        name: "aa",
        within: &[TEST],
        meaning: "Arm B is a second copy of the base tree: a test of the measurement.",
        example: "aa",
        ..NODE
    },
    Form {
        name: "equal",
        within: &[TEST],
        args: &[one("comparison", Ty::Word(&["digest"]))],
        meaning: "How results are compared before speed is believed: by the digest that the script prints. The only way for now.",
        example: "equal digest",
        ..NODE
    },
    Form {
        name: "judge",
        within: &[In::Step(Kind::Classify)],
        props: &[must("min-effect", Ty::Percent)],
        meaning: "Judges the stored samples by another smallest effect; marked POST-HOC.",
        example: "judge min-effect=\"1%\"",
        ..NODE
    },
    Form {
        name: "input",
        within: &[COMMAND],
        args: &[one("name", Ty::HoleName), maybe("path", Ty::Template)],
        props: &[prop("from", Ty::Source)],
        repeat: true,
        meaning: "A named input, `{in.NAME}`: a file of the user's, or an output of another command. A bare `needs s` of a step with one output is the input `s`.",
        example: "input a \"src/{n}.txt\"",
        ..NODE
    },
    Form {
        name: "output",
        within: &[COMMAND],
        args: &[one("name", Ty::HoleName), one("file", Ty::Text)],
        props: &[prop("publish", Ty::Template)],
        repeat: true,
        meaning: "A named output file, `{out.NAME}`. `publish` puts a copy where the user wants it and is in no key.",
        example: "output b \"b.txt\" publish=\"out/{n}.txt\"",
        ..NODE
    },
    Form {
        name: "remove",
        within: STEPS,
        meaning: "In an amendment: drops the step.",
        example: "step rebuild { remove }",
        ..NODE
    },
];

/// Words of the design that this version does not read, so that a flaw can say that instead of guessing.
pub(super) const LATER: &[&str] = &[
    "provider",
    "prices",
    "asset",
    "budget",
    "confirm",
    "goals",
    "on",
    "reuse",
    "canary",
    "expect",
    "with",
    "second-session",
    "source",
    "pattern",
    "exclusive",
    "from",
    "overlay",
    "per-minute",
    "expires",
];
