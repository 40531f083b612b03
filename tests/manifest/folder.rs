//! A folder with a manifest in it, for tests that read as prose.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::path::Path;

use flow::manifest::{Flaws, Manifest, read_text};

/// Agents and steps like those that flow ships.
pub const STANDARD: &str = r#"flow 1
agent nop { run "{flow}" "act" "nothing"; version "1" }
agent scripted { run "{flow}" "--patch" "{file.patch}" "{args}"; version "1" }
agent trae { run "trae" "{config}" "{model}" }
step checkout uses=checkout
step build    uses=environment { needs checkout; recipe interpreter }
step baseline uses=test        { needs checkout build; timeout "10m" }
step agent    uses=agent       { needs checkout; after baseline; timeout "60m"; attempts 3 }
step patch    uses=patch       { needs agent; protect "tests/**"; ignore "*.log"; limit "2MiB" }
step rebuild  like=build       { needs patch }
step patched  uses=test        { needs patch rebuild; against baseline; timeout "10m" }
step classify uses=classify    { needs baseline patch patched }
"#;

/// What most pipelines say, beside what a test adds.
pub const COMMON: &str = r#"    repo shop "shop.git" {
        commits { commit "8aa1485f"; commit "9bb2596a" base="0123456789abcdef" }
        tests dir="tests" name="{commit.id8}.py" { metric ops better=lower kind=count }
    }
    candidate nop agent=nop
"#;

/// A folder to read in.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// One with `standard.kdl` and a folder of tests.
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path().join("tests")).unwrap();
        folder.with("standard.kdl", STANDARD)
    }

    /// Adds a file.
    pub fn with(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path().join(name), text).unwrap();
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reads a text as `p.kdl` in it.
    pub fn read(&self, text: &str) -> Result<Manifest, Flaws> {
        read_text("p.kdl", text, self.path())
    }

    /// Reads a pipeline with the standard steps.
    pub fn pipeline(&self, body: &str) -> Result<Manifest, Flaws> {
        self.read(&format!("flow 1\nimport \"standard.kdl\"\npipeline p {{\n{COMMON}{body}\n}}\n"))
    }

    /// The flaws of a pipeline with the standard steps.
    pub fn kinds(&self, body: &str) -> Vec<String> {
        kinds(self.pipeline(body))
    }
}

/// The codes of all flaws; none if there are none.
pub fn kinds(read: Result<Manifest, Flaws>) -> Vec<String> {
    read.err().map(|flaws| flaws.flaws().iter().map(|flaw| flaw.kind().to_owned()).collect()).unwrap_or_default()
}

/// What a person sees of the flaws at 80 columns without colour.
pub fn shown(read: Result<Manifest, Flaws>) -> String {
    let flaws = read.expect_err("flaws");
    let mut text = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .with_width(80)
        .render_report(&mut text, &flaws)
        .unwrap();
    text
}
