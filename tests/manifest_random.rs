//! No text makes the reader panic, hang or overflow its stack, and what it says can be rendered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "manifest/folder.rs"]
mod folder;

use folder::{COMMON, Folder, STANDARD};
use proptest::prelude::*;

fn whole() -> String {
    let extra = r#"
    tool python "python3" { probe "-VV"; watch "{prefix}/lib" }
    axis n "1" "2"
    slots { cpu "a" cores="0-3"; gpu "0"; lane build 2 }
    candidate s agent=scripted { samples 2; file patch "p/{commit.id8}.patch" optional=#true; args "--x" "é" }
    step patched { holds cpu=1; protocol screen { blocks max=3; time max="1m" }; equal digest }
    step classify { judge min-effect="1%" }
    step one uses=command { input a "in/{n}.txt" ; run "{in.a}" "{out.o}"; output o "one.txt" }
    step two uses=command { needs one; run "{in.one}"; set A "{var.X}"; pass B hash=#false; secret C { command "x" } }
"#;
    let top = STANDARD.trim_start_matches("flow 1\n");
    format!("flow 1\n{top}pipeline p {{\n{COMMON}{extra}}}\n")
}

fn survive(folder: &Folder, text: &str) {
    if let Err(flaws) = folder.read(text) {
        assert!(!flaws.flaws().is_empty());
        let mut shown = String::new();
        miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
            .with_width(80)
            .render_report(&mut shown, &flaws)
            .unwrap();
    }
}

#[test]
fn the_whole_is_fine() {
    let folder = Folder::new();
    let read = folder.read(&whole());
    assert!(read.is_ok(), "{:?}", read.err());
}

#[test]
fn deep_and_odd_texts() {
    let folder = Folder::new();
    for text in [
        "",
        "\u{feff}flow 1",
        "flow",
        "flow 2",
        "flow \"1\"",
        "flow 1.0",
        "é",
        "\0",
        "{",
        "}",
        "\"",
        "#",
        "flow 1\npipeline",
        "flow 1\npipeline p",
        "flow 1\npipeline \"\" {}",
        "(x)flow 1",
        "flow 1\npipeline p { slots { gpu; cpu 1; lane x; lane 1 1 } }",
    ] {
        survive(&folder, text);
    }
    for unit in [
        "a {",
        "/*",
        "(",
        "a \"{",
        "/-",
        "a {\n",
        "#\"",
        "\"\"\"\n",
        "a { b \"}\"\n",
        "a { // }\n",
        "a { #\" \" } \"#\n",
        "a { /* } */ ",
        "a { \"\\\"}\" ",
    ] {
        survive(&folder, &unit.repeat(5000));
    }
    survive(&folder, &format!("flow 1\n{}{}", "a {\n".repeat(64), "}\n".repeat(64)));
    survive(&folder, &format!("{}{}", "(".repeat(64), ")".repeat(64)));
    survive(&folder, &"a (b".repeat(64));
    survive(&folder, &"/*".repeat(64));
    survive(&folder, &"/-{".repeat(64));
    survive(&folder, &format!("flow 1\n{}", "step a { needs b }\n".repeat(300)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn mutations_of_a_manifest(cuts in prop::collection::vec((0.0..1.0f64, 0usize..12, "[a-z{}\"'=#()/* \n0-9é.-]{0,6}"), 1..5)) {
        let mut text: Vec<char> = whole().chars().collect();
        for (at, len, new) in cuts {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let start = ((text.len() as f64) * at) as usize;
            let end = (start + len).min(text.len());
            text.splice(start..end, new.chars());
        }
        survive(&Folder::new(), &text.into_iter().collect::<String>());
    }

    #[test]
    fn words_in_other_places(swaps in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 1..6)) {
        let text = whole();
        let mut words: Vec<&str> = text.split(' ').collect();
        for (a, b) in swaps {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let (a, b) = (((words.len() as f64) * a) as usize, ((words.len() as f64) * b) as usize);
            words.swap(a, b);
        }
        survive(&Folder::new(), &words.join(" "));
    }
}
