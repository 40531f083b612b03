//! The manifest reference, written from the grammar's own table, so that it cannot say what the reader does not do.
//!
//! Gives Markdown. Writes no file: a test compares it with `docs/manifest.md`.

use std::fmt::Write as _;

use super::Kind;
use super::grammar::{Arg, Form, In, Many, Prop};

const INTRO: &str = "# The manifest

<!-- Written from the reader's own table: UPDATE_DOCS=1 cargo test --test manifest_reference -->

A manifest is a KDL 2 file. It begins with `flow 1` (a line `/- kdl-version 2` may stand before) and holds one `pipeline`.
Imported files hold `agent`, `provider`, `prices`, `recipe`, `tool`, `asset` and `step` only; the file with the pipeline may hold them
too.

- Arguments are the thing itself, properties (`name=value`) are modifiers of it, children (`{ … }`) are its parts.
- What begins with a digit, holds a `/` or a brace stands in double quotes; commit ids always do. Flags are `#true`, `#false`.
- Money says its currency, in front of the amount: `(usd)12.50`, `per-run=(usd)20.00`.
- Units are texts: `\"90s\"`, `\"10m\"`, `\"1h30m\"`; `\"500kB\"`, `\"2MiB\"`; `\"2%\"`.
- Relative paths are relative to the file that says them.
- An unknown node or property, a property given twice and a node that may stand once standing twice are flaws. All flaws of
  all files are reported at once.
- `\"{name}\"` is filled in once; `{{` and `}}` are plain braces. There are no expressions.

## Names in braces

| name | where | what |
|---|---|---|
| `{commit.id}` `{commit.id8}` `{commit.base}` `{commit.subject}` | steps, candidates, agents, `tests name=` | the human commit, its first eight digits, its base, its subject |
| `{commit.describe}` `{commit.version}` | the commands, `set`s and files of a `recipe` | what `git describe --tags --long` says of the base, and the version that setuptools_scm makes of it |
| `{commit.COLUMN}` | the same as the first | a column of the commit's row; every commit must have it where it is used |
| `{repo.name}` `{candidate.name}` `{candidate.model}` `{sample}` | steps, candidates, agents | |
| `{var.NAME}` | everywhere but in prompts | a variable of flow's own environment |
| `{tool.NAME}` | steps, candidates, agents | a declared tool |
| `{AXIS}` | steps | an axis of the manifest |
| `{flow}` `{work}` `{out}` `{prompt}` `{prompt-text}` `{config}` `{model}` `{human-change}` `{file.NAME}` `{args}` | `run` and `stdin` of an agent, `args` of a candidate (but `{args}`) | flow itself, the work tree, a folder for what the agent tells, the prompt's file and its text, the files and the model given to the agent; `{args}` is an argument of its own |
| `{interpreter}` `{script}` `{result}` | `run` of a test | |
| `{service.port}` `{service.NAME.port}` | `run` of a test with services, and of its services | the port of the service, or of one by its name |
| `{in.NAME}` `{out.NAME}` | `run` of a command | its inputs and outputs |
| `{prefix}` | `probe` and `watch` of a tool | the executable's parent of `bin` |

A prompt's text knows `{repo.name}`, `{candidate.name}`, `{candidate.model}` and the columns that the agent step shows.

## Steps and their inputs

`needs` names data. Inputs are bound by kind, and it is a flaw if two would do:

| a step that uses | reads |
|---|---|
| `checkout` | nothing |
| `environment` | at most one tree, of a `checkout` or a `patch` |
| `agent` | one `checkout`, at most one `environment` |
| `patch` | one `agent` |
| `test` | one `checkout` or `patch` (the base is then that of the patch's agent), at most one `environment` of each tree |
| `classify` | anything, at least one step |
| `command` | outputs of commands |

A step has the axes of what it needs. `checkout`, `test`, `patch`, `classify` and whatever uses `{commit.…}` or `{repo.name}` go
over repositories and commits; `agent` and whatever uses `{candidate.…}` or `{sample}` over candidates and samples as well.
Steps run in the order of the file where nothing else decides. A variable that a definition sets and an amendment passes is
passed: the two replace each other. A test that measures time must hold a slot, not only a lane.
";

/// The reference of all nodes as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = INTRO.to_owned();
    let sections = [
        ("In a file", In::File),
        ("In `pipeline`", In::Pipeline),
        ("In `repo`", In::Repo),
        ("In `commits`", In::Commits),
        ("In `tests`", In::Tests),
        ("In `candidate`", In::Candidate),
        ("In `config`", In::Config),
        ("In `agent`", In::Agent),
        ("In `reading`", In::Reading),
        ("In what finds text in `reading`", In::Finder),
        ("In `usage` of `reading`", In::Usage),
        ("In `provider`", In::Provider),
        ("In `tool`", In::Tool),
        ("In `recipe`", In::Recipe),
        ("In `when` of `recipe`", In::When),
        ("In `slots`", In::Slots),
        ("In `goals`", In::Goals),
        ("In `prices`", In::Prices),
        ("In `model` of `prices`", In::Price),
        ("In `step`", In::AnyStep),
        ("In `protocol`", In::Protocol),
        ("In `service`", In::Service),
        ("In a file of `rulings`", In::Rulings),
        ("In a file of `vetted` commits", In::Vetted),
        ("In `on`", In::On),
        ("In `asset`", In::Asset),
        ("In `secret`", In::Secret),
    ];
    let mut told: Vec<&Form> = Vec::new();
    for (title, at) in sections {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {title}\n");
        for form in at.forms() {
            // One name may be two things in two places.
            let known = told.iter().any(|other| other.name == form.name && other.meaning == form.meaning);
            describe(&mut text, form, at, known);
            if !known {
                told.push(form);
            }
        }
    }
    text
}

fn describe(text: &mut String, form: &Form, at: In, known: bool) {
    if known {
        let _ = write!(text, "\n`{}`: as above.\n", form.name);
        return;
    }
    let _ = write!(text, "\n### `{}`\n\n{}\n\n```kdl\n{}\n```\n", form.name, form.meaning, form.example);
    let mut facts: Vec<String> = form.args.iter().map(argument).collect();
    facts.extend(form.props.iter().map(property));
    if let Some(ty) = form.open {
        facts.push(format!("property `NAME=`: {}", ty.words()));
    }
    if at == In::AnyStep {
        let has = |kind: &Kind| form.within.contains(&In::Step(*kind));
        if !Kind::ALL.iter().all(has) {
            let kinds: Vec<String> =
                Kind::ALL.iter().filter(|kind| has(kind)).map(|kind| format!("`{}`", kind.word())).collect();
            facts.push(format!("in steps that use {}", kinds.join(", ")));
        }
    }
    facts.extend(form.must.iter().map(|name| format!("must hold `{name}`")));
    if form.repeat {
        facts.push("may stand more than once".into());
    }
    if !facts.is_empty() {
        text.push('\n');
    }
    for fact in facts {
        let _ = writeln!(text, "- {fact}");
    }
}

fn argument(arg: &Arg) -> String {
    let many = match arg.many {
        Many::One => "",
        Many::Maybe => ", may be left out",
        Many::Some => ", one or more",
        Many::Any => ", any number",
    };
    format!("argument: {} ({}{many})", arg.what, arg.ty.words())
}

fn property(prop: &Prop) -> String {
    format!("property `{}=`: {}{}", prop.name, prop.ty.words(), if prop.must { "; must be there" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::super::forms::forms;
    use super::*;

    #[test]
    fn every_node_is_in_the_reference_with_a_meaning() {
        let text = reference();
        for form in forms() {
            assert!(text.contains(&format!("### `{}`", form.name)), "{}", form.name);
            assert!(!form.meaning.is_empty() && !form.example.is_empty(), "{}", form.name);
            assert!(form.example.starts_with(form.name) || form.name == "remove", "{}", form.name);
        }
    }
}
