//! The reading part of an adapter: where its outcome and its usage stand, and what its errors mean.

use super::*;

/// Where a finder looks.
const WHERE: &[Prop] = &[
    prop("json", Ty::HoleName),
    prop("jsonl", Ty::HoleName),
    prop("text", Ty::HoleName),
    prop("prefix", Ty::Text),
    prop("match", Ty::Pattern),
];
const FINDERS: &[In] = &[In::Finder, In::Usage];

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "keep",
        within: &[In::Agent],
        args: &[one("name", Ty::HoleName), one("glob", Ty::Text)],
        repeat: true,
        meaning: "A file below `{out}` or `{home}` (the agent's own home) that is kept with each attempt, without secrets, for readers to name; of several that match, the newest.",
        example: "keep rollout \"{home}/.codex/sessions/**/rollout-*.jsonl\"",
        ..NODE
    },
    Form {
        name: "reading",
        within: &[In::Agent],
        inner: In::Reading,
        meaning: "How the outcome and the usage of its attempts are read. In no key: a changed reading runs no agent, it reads all attempts anew.",
        example: "reading { finished json=trajectory { where \"/success\" #true }; error json=trajectory { at \"/error\" } }",
        ..NODE
    },
    Form {
        name: "finished",
        within: &[In::Reading],
        props: &[WHERE[0], WHERE[1], WHERE[2], WHERE[3], WHERE[4], prop("exit", Ty::Whole(0, 255))],
        repeat: true,
        inner: In::Finder,
        meaning: "What shows that the agent did what it was to do; one of several is enough. `exit=0`: only with that exit code. Without `finished` and `error` the exit code alone decides.",
        example: "finished jsonl=stdout { where \"/type\" \"turn.completed\" }",
        ..NODE
    },
    Form {
        name: "error",
        within: &[In::Reading],
        props: &[WHERE[0], WHERE[1], WHERE[2], WHERE[3], WHERE[4], prop("cause", Ty::Cause), prop("says", Ty::Text)],
        repeat: true,
        inner: In::Finder,
        meaning: "Where the text of its error is; the first that finds something speaks. `cause=` says what it means, else signatures do; `says=` puts it into words where what is found is no error's text.",
        example: "error jsonl=stdout { where \"/type\" \"turn.failed\"; at \"/error/message\" }",
        ..NODE
    },
    Form {
        name: "stuck",
        within: &[In::Reading],
        props: WHERE,
        repeat: true,
        inner: In::Finder,
        meaning: "Where stands what it waited for when it was stopped at the time limit or killed. If that is a cause of its provider's, the attempt ended for that and not for its time.",
        example: "stuck text=stdout match=\"API call failed: (.*)\\\\. Will sleep.*$\"",
        ..NODE
    },
    Form {
        name: "usage",
        within: &[In::Reading],
        props: &[
            WHERE[0],
            WHERE[1],
            WHERE[2],
            WHERE[3],
            WHERE[4],
            prop("take", Ty::Word(&["last", "sum"])),
            prop("cached", Ty::Word(&["inside", "beside"])),
            prop("none", Ty::Whole(0, 0)),
        ],
        repeat: true,
        inner: In::Usage,
        meaning: "Where its tokens are; the first that finds something speaks. `take=last` (if not said): the last figures are totals; `take=sum`: each is of one reply. `cached=inside`: input holds what was read from the provider's cache or written to it. `none=0`: a file that is there and holds no figures means that no reply was finished. A text's pattern names groups `input`, `output`, `cache_read`, `cache_write`.",
        example: "usage jsonl=stdout cached=inside { where \"/type\" \"turn.completed\"; at \"/usage\"; input \"/input_tokens\"; cache-read \"/cached_input_tokens\"; output \"/output_tokens\" }",
        ..NODE
    },
    Form {
        name: "model",
        within: &[In::Reading],
        props: WHERE,
        repeat: true,
        inner: In::Finder,
        meaning: "Where the ids of the models are that the provider answered with. All are kept.",
        example: "model json=trajectory { at \"/llm_interactions/*/response/model\" }",
        ..NODE
    },
    Form {
        name: "message",
        within: &[In::Reading],
        props: WHERE,
        repeat: true,
        inner: In::Finder,
        meaning: "Where its last words are, for people.",
        example: "message json=trajectory { at \"/final_result\" }",
        ..NODE
    },
    Form {
        name: "signature",
        within: &[In::Reading],
        args: &[one("cause", Ty::Cause), some("pattern", Ty::Pattern)],
        repeat: true,
        meaning: "What the text of an error means. Tried in this order, before flow's own; matched against the text found by `error`, its white space collapsed. Rust's regular expressions.",
        example: "signature QUOTA_EXCEEDED \"monthly allowance is used up\"",
        ..NODE
    },
    Form {
        name: "where",
        within: FINDERS,
        args: &[one("pointer", Ty::Pointer), some("value", Ty::Scalar)],
        repeat: true,
        meaning: "Only documents that say one of these values there. A pointer is one of RFC 6901; `*` stands for every element of an array and every value of an object.",
        example: "where \"/type\" \"result\"",
        ..NODE
    },
    Form {
        name: "unless",
        within: FINDERS,
        args: &[one("pointer", Ty::Pointer), some("value", Ty::Scalar)],
        repeat: true,
        meaning: "Only documents that say none of these values there.",
        example: "unless \"/stop_reason\" \"tool_use\"",
        ..NODE
    },
    Form {
        name: "at",
        within: &[In::Finder],
        args: &[some("pointer", Ty::Pointer)],
        meaning: "What is taken of a document: of each pointer the last text it finds, joined. Without it, that there is such a document is all.",
        example: "at \"/code\" \"/detail\"",
        ..NODE
    },
    Form {
        name: "at",
        within: &[In::Usage],
        args: &[one("pointer", Ty::Pointer)],
        meaning: "Where the figures stand; the document itself if not said.",
        example: "at \"/llm_interactions/*/response/usage\"",
        ..NODE
    },
    Form {
        name: "input",
        within: &[In::Usage],
        args: &[some("pointer", Ty::Pointer)],
        meaning: "Tokens that the model read, within the figures: the first of these that is a number.",
        example: "input \"/input_tokens\"",
        ..NODE
    },
    Form {
        name: "output",
        within: &[In::Usage],
        args: &[some("pointer", Ty::Pointer)],
        meaning: "Tokens that the model wrote.",
        example: "output \"/output_tokens\"",
        ..NODE
    },
    Form {
        name: "cache-read",
        within: &[In::Usage],
        args: &[some("pointer", Ty::Pointer)],
        meaning: "Tokens that the model read from the provider's cache.",
        example: "cache-read \"/cached_input_tokens\"",
        ..NODE
    },
    Form {
        name: "cache-write",
        within: &[In::Usage],
        args: &[some("pointer", Ty::Pointer)],
        meaning: "Tokens that were written into the provider's cache.",
        example: "cache-write \"/cache_creation_input_tokens\"",
        ..NODE
    },
    Form {
        name: "unique",
        within: &[In::Usage],
        args: &[one("pointer", Ty::Pointer)],
        meaning: "What tells one reply from another, within the document: of figures with one value there the last counts.",
        example: "unique \"/message/id\"",
        ..NODE
    },
    Form {
        name: "calls",
        within: &[In::Usage],
        args: &[one("pointer", Ty::Pointer)],
        meaning: "Where a document tells how many replies of the model there were; with `*`, what it finds is counted. Replies without tokens make usage unknown, never 0.",
        example: "calls \"/llm_interactions/*\"",
        ..NODE
    },
    Form {
        name: "misses",
        within: &[In::Usage],
        args: &[some("cause", Ty::Cause)],
        meaning: "Causes after which something that was paid for is not in the figures: usage says so then.",
        example: "misses JSON_PARSE",
        ..NODE
    },
];
