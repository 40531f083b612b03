//! Prices, budgets and what a candidate is expected to take.

use super::*;

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "prices",
        within: &[In::File],
        repeat: true,
        inner: In::Prices,
        meaning: "What models cost. All `prices` of all files make one list; it is in no key, and a corrected price corrects the figures of the past.",
        example: "prices { model \"claude-*\" since=\"2025-09-29\" input=(usd)3.00 output=(usd)15.00 }",
        ..NODE
    },
    Form {
        name: "model",
        within: &[In::Prices],
        args: &[one("model id", Ty::Text)],
        props: &[
            must("since", Ty::Date),
            must("input", Ty::Money),
            must("output", Ty::Money),
            prop("cache-read", Ty::Money),
            prop("cache-write", Ty::Money),
        ],
        repeat: true,
        inner: In::Price,
        meaning: "The price of a million tokens from a date on (the first moment of that day in UTC), until a later date of the same id. `*` stands for any run of characters. An attempt is priced by the date on which it began, and by the id that the provider answered with; by the candidate's where the provider told none, one without a price, or one that is a part of the candidate's. Two that mean the same id are a flaw, unless they are written alike and differ in `since`.",
        example: "model \"us.anthropic.claude-sonnet-4-5-*\" since=\"2025-09-29\" input=(usd)3.00 output=(usd)15.00 cache-read=(usd)0.30 cache-write=(usd)3.75",
        ..NODE
    },
    Form {
        name: "above",
        within: &[In::Price],
        args: &[one("tokens", Ty::Whole(1, u64::MAX as i128))],
        props: &[
            must("input", Ty::Money),
            must("output", Ty::Money),
            prop("cache-read", Ty::Money),
            prop("cache-write", Ty::Money),
        ],
        meaning: "The price of a call that reads more tokens than this. Where it cannot be told whether a call of an attempt did, the cost of that attempt is known in part only, and that is said.",
        example: "above 200000 input=(usd)2.50 output=(usd)15.00",
        ..NODE
    },
    Form {
        name: "budget",
        within: &[In::Pipeline],
        args: &[maybe("amount", Ty::Money)],
        props: &[prop("per-run", Ty::Money), prop("per-job", Ty::Money)],
        meaning: "The most that agents may cost: over all runs of the pipeline on this store, within one run (`per-run`), and the amount from which an agent is not tried again (`per-job`). Checked before an agent starts, with what it may cost reserved. In no key.",
        example: "budget (usd)125.00 per-run=(usd)20.00 per-job=(usd)2.00",
        ..NODE
    },
    Form {
        name: "confirm",
        within: &[In::Pipeline],
        args: &[one("amount", Ty::Money)],
        meaning: "`flow run` asks before it may spend more than this. Where nobody can answer, it refuses without `--yes`.",
        example: "confirm (usd)20",
        ..NODE
    },
    Form {
        name: "expect",
        within: &[In::Candidate],
        props: &[prop("cost", Ty::Money), prop("tokens", Ty::Whole(1, u64::MAX as i128)), prop("time", Ty::Span)],
        meaning: "What one attempt of the agent takes, at a cautious guess: for the estimates of `flow plan` and the reservations of `budget`, until enough attempts are in the ledger to tell. In no key.",
        example: "expect cost=(usd)0.50 tokens=1200000 time=\"10m\"",
        ..NODE
    },
    Form {
        name: "free",
        within: &[In::Agent],
        meaning: "The agent calls no model: its tokens and its cost are 0, and known.",
        example: "free",
        ..NODE
    },
];
