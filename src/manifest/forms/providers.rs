//! Providers of models, what a candidate takes of one, and what is run when something happens.

use super::*;

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "provider",
        within: &[In::File],
        args: &[one("name", Ty::Name)],
        repeat: true,
        inner: In::Provider,
        meaning: "A provider of models: what its agents are given, and how many calls it bears. Its variables and secrets reach the agents of those candidates alone whose `model` names it. Its lane closes by itself when nothing can come of another call: see providers.md.",
        example: "provider bedrock { lane 4; secret AWS_BEARER_TOKEN_BEDROCK file=\"token\" }",
        ..NODE
    },
    Form {
        name: "lane",
        within: &[In::Provider],
        args: &[one("width", Ty::Whole(1, 10_000))],
        meaning: "How many of its agents work at once, whatever `--jobs` says. If not said, `--jobs` bounds them.",
        example: "lane 4",
        ..NODE
    },
    Form {
        name: "probe",
        within: &[In::Provider],
        args: &[some("argument", Ty::Text)],
        meaning: "A command that ends with 0 if the provider would take a call now. It gets flow's own environment with the provider's variables and secrets. It is asked before the first agent of a run, and again and again while the lane is closed. Without it an agent has to try.",
        example: "probe \"aws\" \"sts\" \"get-caller-identity\"",
        ..NODE
    },
    Form {
        name: "expires",
        within: &[In::Provider],
        args: &[any("argument", Ty::Text)],
        props: &[prop("file", Ty::Template), prop("pointer", Ty::Text)],
        meaning: "Until when the credential is good: what a command prints or a file holds, as a time (`2025-06-01T12:00:00Z`), as seconds since 1970, or as the seconds that are left. `pointer` is the JSON pointer of it where that is JSON. Agents that cannot be done by then are not begun.",
        example: "expires \"aws\" \"configure\" \"export-credentials\" pointer=\"/Expiration\"",
        ..NODE
    },
    Form {
        name: "per-minute",
        within: &[In::Provider],
        props: &[prop("requests", Ty::Whole(1, 1_000_000_000)), prop("tokens", Ty::Whole(1, 1_000_000_000_000))],
        meaning: "What the provider allows a minute. No agent is begun while those at work, by what earlier attempts of their candidates used a minute, would go beyond it; one may always work. What is not known yet counts as nothing.",
        example: "per-minute requests=50 tokens=400000",
        ..NODE
    },
    Form {
        name: "canary",
        within: &[In::Candidate],
        args: &[one("number", Ty::Whole(0, 1000))],
        meaning: "So many of its jobs go first; if they all end in the same failure, the others are not begun. 5 if not said, for a candidate that has a `model`; else none. With 0 nothing pauses the candidate but an agent that cannot work at all.",
        example: "canary 5",
        ..NODE
    },
    Form {
        name: "on",
        within: &[In::Pipeline],
        args: &[some("moment", Ty::Word(&["lane-closed", "breaker", "run-finished"]))],
        repeat: true,
        inner: In::On,
        must: &["command"],
        meaning: "Tells somebody: runs a command with the event as JSON on its standard input, for half a minute at most. Whatever becomes of it, the run goes on.",
        example: "on lane-closed breaker run-finished { command \"notify-send\" \"flow\" }",
        ..NODE
    },
    Form {
        name: "command",
        within: &[In::On],
        args: &[some("argument", Ty::Text)],
        meaning: "The command. It gets flow's own environment.",
        example: "command \"mail\" \"-s\" \"flow\" \"me@example.org\"",
        ..NODE
    },
];
