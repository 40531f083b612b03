//! What a person sees of a flawed manifest: each flaw underlined, named, with what to do. Snapshots at 80 columns.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "manifest/folder.rs"]
mod folder;

use flow::manifest::{Flaws, Manifest};
use folder::{COMMON, Folder, shown};

fn snapshot(name: &str, read: Result<Manifest, Flaws>) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("manifest/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, shown(read)));
}

#[test]
fn unknown_node() {
    snapshot("unknown-node", Folder::new().pipeline("    step agent { timout \"3m\" }"));
}

#[test]
fn unknown_property() {
    snapshot("unknown-property", Folder::new().pipeline("    candidate x agnet=nop"));
}

#[test]
fn wrong_type() {
    snapshot(
        "wrong-type",
        Folder::new().pipeline("    candidate x agent=scripted { samples \"3\" }\n    step agent { timeout 3 }"),
    );
}

#[test]
fn missing_file() {
    snapshot("missing-file", Folder::new().read("flow 1\nimport \"standart.kdl\" \"steps/x.kdl\"\npipeline p {\n}\n"));
}

#[test]
fn duplicate_name() {
    snapshot(
        "duplicate-name",
        Folder::new().pipeline("    candidate nop agent=trae { model \"m\" }\n    step build uses=checkout"),
    );
}

#[test]
fn cycle() {
    snapshot("cycle", Folder::new().pipeline("    step baseline { after agent }"));
}

#[test]
fn unknown_needs() {
    snapshot("unknown-needs", Folder::new().pipeline("    step patch { needs agents }"));
}

#[test]
fn ambiguous_input() {
    let body = "    step again uses=checkout\n    step agent { needs checkout again }\n    step other like=build\n    step baseline { needs checkout build other }";
    snapshot("ambiguous-input", Folder::new().pipeline(body));
}

#[test]
fn commit_id_as_number() {
    let repo = "    repo other \"x\" {\n        commits { commit 0000012; commit 123e45 }\n        tests dir=\"tests\" name=\"a.py\" { metric n better=lower kind=count }\n    }";
    snapshot("commit-as-number", Folder::new().pipeline(repo));
}

#[test]
fn unmet_require() {
    let config = "models:\n  main:\n    parallel_tool_calls: true\n    temperature: 0.5\n";
    let body = r#"    candidate t agent=trae {
        model "m"
        config "t.yaml" {
            require "models.main.parallel_tool_calls" #false
            require "models.'main'.temperature" 0.5
            require "models.main.top_q" 1
        }
    }"#;
    snapshot("unmet-require", Folder::new().with("t.yaml", config).pipeline(body));
}

fn config(text: &str, name: &str) -> Result<Manifest, Flaws> {
    let body = format!("    candidate t agent=trae {{\n        model \"m\"\n        config \"{name}\"\n    }}");
    Folder::new().with(name, text).pipeline(&body)
}

#[test]
fn duplicate_key_in_yaml() {
    snapshot("duplicate-yaml-key", config("main:\n  steps: 10\n  lake: none\n  steps: 20\n", "t.yaml"));
}

#[test]
fn literal_key_in_a_config() {
    let flaws =
        config("main:\n  max_tokens: 10\n  api_key: hunter2hunter2\n  notes: sk-0123456789abcdef0123\n", "t.yaml");
    let text = shown(flaws.clone());
    assert!(!text.contains("hunter2") && !text.contains("sk-0123"), "a secret is shown: {text}");
    snapshot("literal-key", flaws);
}

#[test]
fn literal_key_in_the_manifest() {
    let flaws = Folder::new().pipeline("    step agent { set API_TOKEN \"hunter2hunter2\" }");
    assert!(!shown(flaws.clone()).contains("hunter2"));
    snapshot("literal-set", flaws);
}

#[test]
fn true_without_hash() {
    snapshot("true", Folder::new().pipeline("    candidate s agent=scripted { file patch \"x\" optional=true }"));
}

#[test]
fn digits_and_slashes_without_quotes() {
    snapshot("unquoted", Folder::new().pipeline("    step agent { timeout 5m }\n    step patch { protect a/b }"));
}

#[test]
fn duplicate_property() {
    snapshot("duplicate-property", Folder::new().pipeline("    candidate c agent=scripted agent=nop"));
}

#[test]
fn single_quotes() {
    snapshot("single-quotes", Folder::new().pipeline("    step agent { set A 'x' }"));
}

#[test]
fn three_flaws_in_one_report() {
    let body = "    slots { gpu \"0\" cores=\"0-3\"; gpu \"1\" cores=\"3-7\" }\n    step agent { needs checkot }\n    tool python \"python3\" { prob \"-VV\" }";
    snapshot("three-flaws", Folder::new().pipeline(body));
}

#[test]
fn flaw_in_an_imported_file() {
    let folder =
        Folder::new().with("mine.kdl", "flow 1\n\n// mine\nagent mine { run \"x\" \"{hum-change}\"; versoin \"1\" }\n");
    snapshot(
        "imported",
        folder.read(&format!("flow 1\nimport \"standard.kdl\" \"mine.kdl\"\npipeline p {{\n{COMMON}}}\n")),
    );
}

#[test]
fn flaw_in_a_list_of_commits() {
    let folder =
        Folder::new().with("c.txt", "# human base\n8aa1485f 0123456789 # fine\n9bb2596a parent=0\nHEAD\n8aa1485f\n");
    let body = "    repo other \"x\" {\n        commits file=\"c.txt\"\n        tests dir=\"tests\" name=\"a\" { metric n better=lower kind=count }\n    }";
    snapshot("commits", folder.pipeline(body));
}

#[test]
fn no_format() {
    snapshot("no-format", Folder::new().read("pipeline p {\n}\n"));
}

#[test]
fn time_without_a_slot() {
    let repo = "    repo other \"x\" {\n        commits { commit \"8aa1485f\" }\n        tests dir=\"tests\" name=\"{commit.id}\"\n    }";
    snapshot("unheld-time", Folder::new().pipeline(repo));
}

#[test]
fn twins() {
    snapshot("twins", Folder::new().pipeline("    candidate again agent=nop { samples 3 }"));
}
