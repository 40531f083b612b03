//! What the steps take.

use super::*;
use crate::manifest::caches::NAMES;

/// The nodes.
pub(super) const FORMS: &[Form] = &[
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
        name: "memory",
        within: &[In::Step(Kind::Environment)],
        args: &[one("size", Ty::Size)],
        meaning: "What a build needs of this machine's memory. It does not begin while less is available beside what the builds under way claim; where nothing else runs and that is still too little, it is ENVIRONMENT_FAILED. In no key, and no limit of what it may use.",
        example: "memory \"8GiB\"",
        ..NODE
    },
    Form {
        name: "disk",
        within: &[In::Step(Kind::Environment)],
        args: &[one("size", Ty::Size)],
        meaning: "What a build needs of the disk where the store lies: as `memory`, but that too little is DISK_FULL.",
        example: "disk \"20GiB\"",
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
        args: &[one("recipe", Ty::Name)],
        props: &[prop("tool", Ty::Name)],
        meaning: "How the environment is made: the name of a `recipe`, or `interpreter`, which builds nothing: it is a tool's probe. `tool` is the interpreter, `{interpreter}` in a recipe; if not said, the only declared one that no agent runs, or the only declared one at all. Without a declared tool, test scripts are executed themselves.",
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
        name: "leaks",
        within: &[In::Step(Kind::Agent)],
        args: &[one("choice", Ty::Word(&["refuse", "record"]))],
        meaning: "What becomes of an agent whose prompt or tree holds lines of the human's change: `refuse` does not start it, which is so if nothing is said; `record` starts it and marks the job LEAK. An adapter that uses `{human-change}` is not looked at.",
        example: "leaks record",
        ..NODE
    },
    Form {
        name: "sandbox",
        within: &[In::Step(Kind::Agent), TEST],
        args: &[one("choice", Ty::Word(&["auto", "require", "off"]))],
        meaning: "Whether the kernel holds its processes to their own folders, to the devices that they hold and, for a test, to no network: `auto`, as far as this machine can, which is so if nothing is said; `require`, or it does not start; `off`, not at all. What is not held is a mark on the job. A gate has that of the step whose `against` names it.",
        example: "sandbox require",
        ..NODE
    },
    Form {
        name: "write",
        within: &[In::Step(Kind::Agent), TEST],
        args: &[some("path", Ty::Path)],
        meaning: "Files and folders, which must be there, that its processes may write to in their sandbox besides their own; a flaw beside `sandbox off`. What one process leaves there the next one finds. In no key.",
        example: "write \"/var/cache/models\"",
        ..NODE
    },
    Form {
        name: "network",
        within: &[In::Step(Kind::Agent), In::Provider],
        args: &[some("host", Ty::Text)],
        meaning: "The only hosts that its agents may reach, each with its port; port 443 if none is said. Those of the step and those of the provider that the candidate's `model` names are one list; where neither names any, the network is open. Held by the sandbox, so a flaw with `sandbox off`; what was reached and what was refused is on record. An address of this machine (`127.0.0.1:4000`) leads to what listens there. A name that leads to an address that is not public is refused unless that address is named as well. In no key.",
        example: "network \"api.anthropic.com\" \"127.0.0.1:4000\"",
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
        meaning: "How times are measured. `screen`, the usual one, and `headline`, for numbers that are published, look at the results after 5, 8, 12, 18 and 26 blocks and end as soon as the verdict is settled, each look being at 98.42 % or 99.75 %. `fixed` runs all its blocks and looks once, at 95 %. A block is four runs: base, patched, patched, base, or the other way round; counts need one.",
        example: "protocol screen { blocks max=12; time max=\"45m\"; seed 1 }",
        ..NODE
    },
    Form {
        name: "blocks",
        within: &[In::Protocol],
        props: &[must("max", Ty::Whole(1, 1000))],
        meaning: "At most so many blocks; 26 if not said, and 5 with `fixed`. A limit: raised, what had ended by it is measured again.",
        example: "blocks max=12",
        ..NODE
    },
    Form {
        name: "time",
        within: &[In::Protocol],
        props: &[must("max", Ty::Span)],
        meaning: "No block is begun that would probably end after so long. A limit like `blocks max`; none if not said.",
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
        name: "with",
        within: &[TEST],
        args: &[one("arm", Ty::Word(&["human"]))],
        meaning: "`with human`: the tree that the human's own change makes is a third arm of the same session, so that the patched tree is compared with it too: BEATS, MATCHES, PARTIAL or BELOW. Its processes cost what those of the other arms do. A tree of the human's that cannot be run is given up, and the mark HUMAN-FAILED says so. Of no meaning in a gate.",
        example: "with human",
        ..NODE
    },
    Form {
        name: "second-session",
        within: &[TEST],
        meaning: "What comes out as faster or slower is measured a second time: later, under a lease of its own, on another slot of the kind where there is one, in another order. The step `NAME-again`, which the manifest has then, does so; it measures nothing if the first came to anything else. Agreement is marked CONFIRMED; what does not agree is UNCONFIRMED; a second session that finds the opposite, or no difference, makes the class INCONCLUSIVE: NOT_REPRODUCED. Without it a verdict by the profile `headline` is UNCONFIRMED. Exact counts need none.",
        example: "second-session",
        ..NODE
    },
    Form {
        name: "equal",
        within: &[TEST],
        args: &[one("comparison", Ty::Word(&["digest", "close", "score", "script"]))],
        props: &[
            prop("rtol", Ty::Number),
            prop("atol", Ty::Number),
            prop("band", Ty::Percent),
            prop("better", Ty::Word(&["lower", "higher"])),
        ],
        meaning: "How results are compared before speed is believed; in every process, and those of the base with each other first. `digest`, if nothing is said: the digests are the same text. `close`: the `values` are, one by one, not farther from the base's than `atol` + `rtol` x the base's. `score`: the `score` is within a `band` of the base's; with `better` only the worse side counts. `script`: the script compares them itself. The gate takes it over.",
        example: "equal close rtol=1e-3 atol=1e-6",
        ..NODE
    },
    Form {
        name: "check",
        within: &[TEST],
        args: &[some("argument", Ty::Template)],
        repeat: true,
        meaning: "A command, such as the repository's own tests, that is run in the base and in the patched tree before anything is measured. What passes in the base and fails twice in the patched tree is PATCHED_WRONG_RESULT. What fails in the base is left out, and the mark CHECK-IGNORED says so. `{interpreter}` is that of the test. Of no meaning in a gate.",
        example: "check \"{interpreter}\" \"-m\" \"pytest\" \"-q\" \"tests/test_slug.py\"",
        ..NODE
    },
    Form {
        name: "guard",
        within: &[TEST],
        args: &[maybe("choice", Ty::Word(&["off"]))],
        props: &[
            prop("steal", Ty::Percent),
            prop("throttle", Ty::Percent),
            prop("heat", Ty::Percent),
            prop("iowait", Ty::Percent),
            prop("pressure", Ty::Percent),
            prop("alone", Ty::Flag),
            prop("dropped", Ty::Whole(0, 1000)),
        ],
        meaning: "What of a disturbed machine is borne in a block. A block with more is dropped, whatever was measured in it, and run again. `steal`, what the host of a virtual machine takes away; `throttle`, what the quota of the control group holds back; `heat`, how long it slowed a core or the GPU: 10% each if not said. `iowait`, how long processors waited for a disk, and `pressure`, how long some task waited for a processor: any, if not said. `alone`: nobody else computes on the GPU, so if not said. After more than `dropped` blocks, 5 if not said, the measurement fails: MACHINE_DISTURBED. `off` bears all but what stands beside it. What the machine does not tell breaks nothing. A limit: in no key.",
        example: "guard steal=\"5%\" pressure=\"50%\" dropped=3",
        ..NODE
    },
    Form {
        name: "caches",
        within: &[TEST],
        args: &[any("cache", Ty::Word(&NAMES))],
        open: Some(Ty::Variable),
        meaning: "Compile caches that an arm's processes keep; every other process finds none. Each arm has its own: its warm-ups, which are thrown away, fill it, and each later process begins with a fresh copy of it. A cache that has no name here has one of your own, and the variable that moves it. A patch could leave itself answers so: the mark CACHES_KEPT says it. The gate takes it over, and its first process is a warm-up.",
        example: "caches triton inductor vllm mine=MY_CACHE_DIR",
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
