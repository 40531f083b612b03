//! What a test declares of the services that its processes use.

use super::*;

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "service",
        within: &[TEST],
        args: &[one("name", Ty::Name)],
        repeat: true,
        inner: In::Service,
        must: &["run", "ready"],
        meaning: "A server that each process of the test uses. It is started anew for each of them, in the same tree, sandbox and slot, on a free port; the process begins when it is ready, and at its end the service is killed with all that it started. `{service.port}` and the variable FLOW_SERVICE_PORT are its port, `{service.NAME.port}` that of one of several. Its output is a stream of the step's log. The gate takes it over.",
        example: "service api { run \"{interpreter}\" \"-m\" \"pkg.serve\" \"--port\" \"{service.port}\"; ready url=\"/health\"; timeout \"5m\" }",
        ..NODE
    },
    Form {
        name: "run",
        within: &[In::Service],
        args: &[some("argument", Ty::Template)],
        meaning: "The service's argv; never a shell. `{service.port}` is its own port.",
        example: "run \"{interpreter}\" \"-m\" \"pkg.serve\" \"--port\" \"{service.port}\"",
        ..NODE
    },
    Form {
        name: "ready",
        within: &[In::Service],
        args: &[maybe("choice", Ty::Word(&["port"]))],
        props: &[prop("url", Ty::Text), prop("line", Ty::Pattern)],
        meaning: "When it is ready, one of three: its port can be connected to; a path of it answers HTTP with 200 to 299; a line of its output matches a regular expression.",
        example: "ready url=\"/health\"",
        ..NODE
    },
    Form {
        name: "port",
        within: &[In::Service],
        args: &[one("number", Ty::Whole(1, 65_535))],
        meaning: "The port that it always has, for a server that cannot be told one. If not said, a free one is found for each process.",
        example: "port 8000",
        ..NODE
    },
    Form {
        name: "timeout",
        within: &[In::Service],
        args: &[one("time", Ty::Span)],
        meaning: "How long it may take to be ready: 5 minutes if not said. A limit: in no key.",
        example: "timeout \"5m\"",
        ..NODE
    },
];
