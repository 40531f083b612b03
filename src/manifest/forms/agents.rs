//! Agents, and the candidates that use them.

use super::*;

/// The nodes.
pub(super) const FORMS: &[Form] = &[
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
        props: &[prop("provider", Ty::Name)],
        meaning: "The model's id, given to the agent as `{model}`, and the provider that offers it.",
        example: "model \"us.anthropic.claude-sonnet-4-5-20250929-v1:0\" provider=bedrock",
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
        name: "reuse",
        within: &[In::Candidate],
        args: &[maybe("which", Ty::Word(&["usable", "except", "strict"]))],
        props: &[props("cause", Ty::Text), prop("run", Ty::Text)],
        meaning: "Which earlier draws stand when only the agent's version, its tools or its environment changed: `usable`, those whose job came to a measured class; `except cause=A cause=B`, all but those that ended by such a cause; `run=\"ID\"`, those of a run. Without it a changed version draws anew and a changed environment does not; `strict` draws anew for both.",
        example: "reuse except cause=\"TOOL_OUTPUT_MISSING\"",
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
        name: "stdin",
        within: &[In::Agent],
        args: &[one("file", Ty::Template)],
        meaning: "The file that it reads as its standard input, such as `{prompt}`; nothing if not said.",
        example: "stdin \"{prompt}\"",
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
];
