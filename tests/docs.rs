//! The documents are true: every `sh` block of the README and the manual runs, tables are those of the program, links lead somewhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flow::class::Class;
use flow::outcome::Cause;
use support::Flow;

/// In the order in which a reader may follow them; all in one copy of the project.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "docs/tutorial.md",
    "docs/adapters.md",
    "docs/agents.md",
    "docs/providers.md",
    "docs/doctor.md",
    "docs/slots.md",
    "docs/costs.md",
    "docs/keys.md",
    "docs/verdicts.md",
    "docs/store.md",
    "docs/decisions.md",
];

#[test]
fn every_command_does_what_the_document_says() {
    let flow = Flow::quickstart();
    let program = Path::new(env!("CARGO_BIN_EXE_flow")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for document in DOCUMENTS {
        for block in blocks(&read(document), "sh") {
            let script = script(&block);
            let given = flow.command(&[]);
            let mut shell = Command::new("sh");
            shell.args(["-euc", &script]).current_dir(given.get_current_dir().unwrap()).stdin(Stdio::null());
            shell
                .env_clear()
                .envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))))
                .env("PATH", &path);
            let ran = flow.ran(shell.output().unwrap());
            assert_eq!(
                ran.code,
                Some(0),
                "{document}:\n{block}\n--- stdout\n{}\n--- stderr\n{}",
                ran.stdout,
                ran.stderr
            );
        }
    }
}

/// A block as a script: `cargo run --` is flow, other lines of cargo are for people, `# exit N` is what a line must end with.
fn script(block: &str) -> String {
    let mut script = String::new();
    for line in block.lines() {
        let line = line.strip_prefix("cargo run -- ").map_or_else(|| line.to_owned(), |rest| format!("flow {rest}"));
        if line.starts_with("cargo ") {
            continue;
        }
        match line.rsplit_once("# exit ") {
            Some((command, code)) => script.push_str(&format!("code=0; {command} || code=$?; test $code = {code}\n")),
            None => script.push_str(&format!("{line}\n")),
        }
    }
    script
}

#[test]
fn the_readmes_first_commands_are_those_that_ci_runs() {
    let block = blocks(&read("README.md"), "sh").remove(0);
    let ci = read(".ci/run");
    for command in block.lines() {
        let called = |line: &str| line == command || line.starts_with(&format!("{command} "));
        assert!(ci.lines().any(called), ".ci/run does not call `{command}`");
    }
    assert_eq!(block.lines().count(), 2);
}

#[test]
fn the_tables_of_verdicts_are_current() {
    let text = read("docs/verdicts.md");
    let with_classes = filled(&text, "<!-- classes:", &classes());
    let wanted = filled(&with_classes, "<!-- causes:", &causes());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join("docs/verdicts.md"), &wanted).unwrap();
    }
    assert!(
        read("docs/verdicts.md") == wanted,
        "docs/verdicts.md is not current: UPDATE_DOCS=1 cargo test --test docs"
    );
}

#[test]
fn every_link_leads_to_a_file() {
    for document in
        DOCUMENTS.iter().copied().chain(["CONTRIBUTING.md", "docs/manifest.md", "examples/quickstart/README.md"])
    {
        let folder = root().join(document).parent().unwrap().to_owned();
        for target in read(document).split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            assert!(target.contains("://") || folder.join(target).exists(), "{document}: {target} is not there");
        }
    }
}

fn classes() -> String {
    let mut table = String::from("| class | stage | owner | may change | what to do |\n|---|---|---|---|---|\n");
    for class in Class::ALL {
        let owner = class.owner().map_or_else(String::new, |owner| owner.to_string());
        let retries = if class.retries() { "yes" } else { "" };
        table.push_str(&format!(
            "| {} | {} | {owner} | {retries} | {} |\n",
            class.name(),
            class.stage(),
            class.next_action()
        ));
    }
    table
}

fn causes() -> String {
    let mut table = String::from("| cause | owner | settles | counts | what to do |\n|---|---|---|---|---|\n");
    for cause in Cause::ALL {
        let word = |yes| if yes { "yes" } else { "" };
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            cause.name(),
            cause.owner(),
            word(cause.settles()),
            word(cause.counts()),
            cause.next_action()
        ));
    }
    table
}

/// The text with a table between the line that begins with a mark and the next `<!-- end -->`.
fn filled(text: &str, mark: &str, table: &str) -> String {
    let begin = text.find(mark).unwrap();
    let begin = begin + text[begin..].find('\n').unwrap() + 1;
    let end = begin + text[begin..].find("<!-- end -->").unwrap();
    format!("{}{table}{}", &text[..begin], &text[end..])
}

/// The contents of the fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).filter_map(|rest| rest.split("```").next().map(str::to_owned)).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
