//! Recipes: how environments are built.

use super::*;

/// Where the lines of a build stand.
const BUILDS: &[In] = &[In::Recipe, In::When];

/// The nodes.
pub(super) const FORMS: &[Form] = &[
    Form {
        name: "recipe",
        within: &[In::File],
        args: &[one("name", Ty::Name)],
        repeat: true,
        inner: In::Recipe,
        meaning: "How an environment is built. Its commands run on exactly the files of the tree that `from` matches, and build into `{out}`, a folder of the store that is sealed when they are done: `{out}` is its path for good. What decides the key: the commands, their variables, those files, the tools they name and the platform.",
        example: "recipe venv { from \"requirements.txt\"; fetch \"{interpreter}\" \"-m\" \"pip\" \"download\" \"-d\" \"{downloads}\" \"-r\" \"requirements.txt\"; run \"{interpreter}\" \"-m\" \"venv\" \"{out}\"; run \"{out}/bin/pip\" \"install\" \"--no-index\" \"--find-links\" \"{downloads}\" \"-r\" \"requirements.txt\" }",
        ..NODE
    },
    Form {
        name: "when",
        within: &[In::Recipe],
        props: &[prop("exists", Ty::Text)],
        repeat: true,
        inner: In::When,
        meaning: "A case: what is done if the tree holds the file that `exists` names, or for any tree without it. The first that fits is taken; lines of the recipe itself come before its own. A tree that no case fits is ENVIRONMENT_FAILED.",
        example: "when exists=\"requirements/cuda.txt\" { from \"requirements/*.txt\"; run \"{out}/bin/pip\" \"install\" \"-r\" \"requirements/cuda.txt\" }",
        ..NODE
    },
    Form {
        name: "image",
        within: BUILDS,
        args: &[one("image", Ty::Text)],
        props: &[prop("interpreter", Ty::Text)],
        meaning: "The container image that the environment is, or in which it is built where there are `run` lines: `name@sha256:…`, a tag, which is resolved to its digest when a run is planned, or a file that ends in `.sif`. Its digest is in the key. Tests run inside it, test scripts by the program `interpreter` of the image, `python3` if it is not said. Run by podman, docker or apptainer.",
        example: "image \"docker.io/library/python:3.12-slim\"",
        ..NODE
    },
    Form {
        name: "from",
        within: BUILDS,
        args: &[some("glob", Ty::Glob)],
        repeat: true,
        meaning: "The files of the tree that it is built from, in gitignore's manner. No other file is there: one that is forgotten fails the build, instead of hitting wrongly later.",
        example: "from \"pyproject.toml\" \"csrc/**\"",
        ..NODE
    },
    Form {
        name: "fetch",
        within: BUILDS,
        args: &[some("argument", Ty::Template)],
        repeat: true,
        meaning: "A command that brings what the build needs into `{downloads}`, with a network, before any `run`. It is not run for a patched tree, which finds the downloads of the base's build.",
        example: "fetch \"{interpreter}\" \"-m\" \"pip\" \"download\" \"-d\" \"{downloads}\" \"-r\" \"requirements.txt\"",
        ..NODE
    },
    Form {
        name: "run",
        within: BUILDS,
        args: &[some("argument", Ty::Template)],
        repeat: true,
        meaning: "A command of the build, in the folder with the tree's files; never a shell. `{out}` is where it builds into, `{downloads}` what `fetch` brought, `{interpreter}` the step's tool. The base's build has a network unless the recipe says `offline`; a patched tree's never has one, nor secrets.",
        example: "run \"{out}/bin/pip\" \"install\" \"--no-index\" \"--find-links\" \"{downloads}\" \".\"",
        ..NODE
    },
    Form {
        name: "offline",
        within: &[In::Recipe],
        meaning: "Its `run` lines have no network for the base either: only `fetch` has.",
        example: "offline",
        ..NODE
    },
    Form {
        name: "file",
        within: &[In::Recipe],
        args: &[one("name", Ty::HoleName), one("path", Ty::Template)],
        repeat: true,
        meaning: "A file of yours that the commands are given as `{file.NAME}`, such as the requirements that all commits share. Its content is an ingredient of each build.",
        example: "file base \"requirements/base.txt\"",
        ..NODE
    },
    Form {
        name: "overlay",
        within: &[In::Recipe],
        args: &[some("glob", Ty::Glob)],
        props: &[prop("root", Ty::Text)],
        meaning: "Built files that are laid over a tested tree where it has none, or a compiled one that it brings; the tree is then first on Python's path. They are looked for below `root` in `{out}`; if that is not said, among the packages of its Python, or in `{out}` itself where there is none.",
        example: "overlay \"vllm/**/*.so\" \"vllm/_version.py\"",
        ..NODE
    },
    Form {
        name: "provides",
        within: &[In::Recipe],
        args: &[one("variable", Ty::Variable), one("value", Ty::Template)],
        repeat: true,
        meaning: "A variable for whoever uses the environment. `{out}` is its folder, `{tree}` the tree that is tested or worked on. Its `bin` is first in PATH in any case, and VIRTUAL_ENV names it where it is one.",
        example: "provides PYTHONPATH \"{tree}/python\"",
        ..NODE
    },
    Form {
        name: "identity",
        within: &[In::Recipe],
        args: &[some("argument", Ty::Template)],
        meaning: "A command that prints which environment it is. If it prints another text after a rebuild, what was measured in it is measured again. If not said: the installed Python distributions with their versions.",
        example: "identity \"{out}/bin/python\" \"-m\" \"pip\" \"freeze\"",
        ..NODE
    },
];
