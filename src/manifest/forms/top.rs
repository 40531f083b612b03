//! What stands at the top of a file, and tools.

use super::*;

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "flow",
        within: &[In::File, In::Rulings, In::Vetted],
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
        meaning: "Brings the agents, providers, prices, recipes, tools, assets and steps of other files. Their order means nothing; a file imported twice is read once; a cycle is a flaw.",
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
        name: "asset",
        within: &[In::File, In::Pipeline],
        args: &[one("name", Ty::HoleName), maybe("path", Ty::Path)],
        props: &[prop("url", Ty::Text), prop("sha256", Ty::Text), prop("hf", Ty::Text), prop("revision", Ty::Text)],
        repeat: true,
        inner: In::Asset,
        meaning: "What processes need and no tree holds: a model, a data set. A file or folder of this machine, a file by its URL and digest, or a repository of Hugging Face at a commit. Fetched once, before what needs it begins; used as `{asset.NAME}` in arguments and in `set`, read-only. Its content is an ingredient, where it lies is not.",
        example: "asset sharegpt url=\"https://host/sharegpt.json\" sha256=\"35f1…\"",
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
        name: "probe",
        within: &[In::Tool],
        args: &[some("argument", Ty::Template)],
        repeat: true,
        meaning: "The arguments with which the tool is asked what it is; the answer is an ingredient.",
        example: "probe \"-m\" \"pip\" \"freeze\"",
        ..NODE
    },
    Form {
        name: "source",
        within: &[In::Tool],
        args: &[one("folder", Ty::Template)],
        meaning: "The tool's own source tree, for one that is installed from a folder: its files are an ingredient, uncommitted ones too, because a version string does not change with them. What the tree's `.gitignore` names does not count. A link that leads out of the tree counts by what is there.",
        example: "source \"third-party/trae-agent\"",
        ..NODE
    },
    Form {
        name: "watch",
        within: &[In::Tool],
        args: &[some("path", Ty::Template)],
        repeat: true,
        meaning: "Files and folders, from the file's own folder, whose change makes the probes be asked again, behind links too. A folder of more than 300,000 entries is refused. `{prefix}` is the executable's parent of `bin`.",
        example: "watch \"{prefix}/lib\"",
        ..NODE
    },
];
