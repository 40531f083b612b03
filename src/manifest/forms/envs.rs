//! What processes are given, wherever they are declared.

use super::*;

/// The nodes.
pub(super) const FORMS: &[Form] = &[
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
        props: &[prop("hash", Ty::Flag), prop("optional", Ty::Flag)],
        repeat: true,
        meaning: "Passes a variable of flow's own environment on. Hashed, unless `hash=#false`. One that is not set is a flaw, unless `optional=#true`.",
        example: "pass HTTPS_PROXY hash=#false",
        ..NODE
    },
    Form {
        name: "secret",
        within: WITH_SECRETS,
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
];
