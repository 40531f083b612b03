//! The documents are true: every `sh` block of the README and the manual runs, tables are those of the program, links lead somewhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flow::class::Class;
use flow::outcome::Cause;
use flow::report::marks::MARKS;
use support::Flow;

/// The README and the manual in the order in which a reader may follow them.
fn documents() -> Vec<String> {
    let mut pages: Vec<String> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    // `false` sorts first.
    pages.sort_by_key(|name| (name != "docs/tutorial.md", name.clone()));
    pages.insert(0, "README.md".to_owned());
    pages
}

#[test]
fn every_command_does_what_the_document_says() {
    let flow = Flow::quickstart();
    support::copy(&root().join("tests/llm"), &flow.path("tests/llm"));
    for document in documents() {
        follow(&flow, &document);
    }
}

/// Runs the `sh` blocks of a document in a project.
#[track_caller]
fn follow(flow: &Flow, document: &str) {
    let program = Path::new(env!("CARGO_BIN_EXE_flow")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for block in blocks(&read(document), "sh") {
        let script = script(&block);
        let given = flow.command(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-euc", &script]).current_dir(given.get_current_dir().unwrap()).stdin(Stdio::null());
        shell.env_clear().envs(given.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", &path);
        let ran = flow.ran(shell.output().unwrap());
        assert_eq!(ran.code, Some(0), "{document}:\n{block}\n--- stdout\n{}\n--- stderr\n{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn the_test_script_of_the_manual_measures_and_is_compared() {
    let flow = Flow::quickstart();
    follow(&flow, "docs/tests.md");
    let human = || flow.flow(&["show", "shop/820ae55e/human/1", "pipelines/slug.kdl", "--json"]).json();
    let run = || {
        flow.flow(&["run", "pipelines/slug.kdl", "--quiet"]).settles();
    };
    let named = human();
    assert!(named["speedup"].is_f64() && support::marks(&named) == serde_json::json!([]), "{named}");

    let line = "result = {";
    let said = "print(json.dumps({\"avg_ms\": 1000 * result[\"metrics\"][\"time_s\"]}))\n";
    flow.edit("mine/820ae55e.py", |text| text.replace("open(os.environ", &format!("{said}#")));
    flow.replace("pipelines/slug.kdl", "name=\"{commit.id8}.py\"", "name=\"{commit.id8}.py\" contract=isobench");
    run();
    assert_eq!(
        support::marks(&human()),
        serde_json::json!(["FORGEABLE", "UNCHECKED"]),
        "what is printed can be forged"
    );

    flow.replace("pipelines/slug.kdl", " contract=isobench", "");
    run();
    assert_eq!(human()["cause"], "NO_RESULT", "what is printed is no result");

    flow.edit("mine/820ae55e.py", |text| text.replace(line, &format!("sys.exit(4)\n{line}")));
    run();
    assert_eq!(human()["class"], "TARGET_NOT_RESOLVED");
    flow.edit("mine/820ae55e.py", |text| text.replace("sys.exit(4)\nresult", "sys.exit(3)\nresult"));
    run();
    assert_eq!(human()["cause"], "WRONG_PACKAGE");
}

/// A block as a script: `cargo run --` is flow, other lines of cargo are for people, `# exit N` is what a line must end with. An
/// edit that changes nothing is an error: what follows it would show nothing.
fn script(block: &str) -> String {
    let mut script = String::new();
    for line in block.lines() {
        let line = line.strip_prefix("cargo run -- ").map_or_else(|| line.to_owned(), |rest| format!("flow {rest}"));
        if line.starts_with("cargo ") {
            continue;
        }
        if let Some(file) = line.starts_with("sed -i ").then(|| line.rsplit(' ').next()).flatten() {
            let unchanged = "echo this edit changes nothing >&2; exit 1";
            script.push_str(&format!("cp {file} .before\n{line}\nif cmp -s .before {file}; then {unchanged}; fi\n"));
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
fn every_mark_is_in_the_table() {
    let text = read("docs/verdicts.md");
    let table = text.split("## Marks").nth(1).unwrap().split("\n## ").next().unwrap();
    let first = |line: &str| line.strip_prefix("| ")?.split(' ').next().map(str::to_owned);
    let told: BTreeSet<String> = table.lines().filter_map(first).filter(|word| word != "mark").collect();
    let known = MARKS.iter().map(|(name, _)| *name).chain(["COMPOSITE"]);
    assert_eq!(told, known.map(str::to_owned).collect());
}

#[test]
fn the_readme_names_every_page() {
    let text = read("README.md");
    for document in documents() {
        assert!(document == "README.md" || text.contains(&format!("]({document})")), "{document} is not in the README");
    }
}

/// A budget refuses a model without a price: who copies a manifest of the manual and sets one must not meet that.
#[test]
fn every_model_that_the_manual_and_the_manifests_name_has_a_price() {
    let quoted = |line: &str| line.split_once("model \"")?.1.split_once('"').map(|(id, _)| id.to_owned());
    let prices: Vec<flow::money::Pattern> =
        read("pipelines/prices.kdl").lines().filter_map(quoted).map(flow::money::Pattern::new).collect();
    assert!(prices.len() > 10);
    let mut named: BTreeSet<String> = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "kdl") && !path.ends_with("prices.kdl") {
            named.extend(std::fs::read_to_string(path).unwrap().lines().filter_map(quoted));
        }
    }
    let providers = ["provider=anthropic", "provider=openai", "provider=bedrock"];
    let real = |line: &&str| providers.iter().any(|provider| line.contains(provider));
    for page in documents() {
        named.extend(read(&page).lines().filter(real).filter_map(quoted));
    }
    assert!(named.contains("claude-sonnet-4-5") && named.contains("openai/gpt-5"), "{named:?}");
    for id in named {
        assert!(prices.iter().any(|price| price.matches(&id)), "pipelines/prices.kdl has no price of {id}");
    }
}

#[test]
fn every_link_leads_to_a_file() {
    let others = [
        "CONTRIBUTING.md",
        "examples/quickstart/README.md",
        "examples/networkx/README.md",
        "examples/native/README.md",
    ];
    for document in documents().into_iter().chain(others.map(str::to_owned)) {
        let folder = root().join(&document).parent().unwrap().to_owned();
        for target in read(&document).split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
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
