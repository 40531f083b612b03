//! The entry: reads a manifest and what it imports into nodes, has them checked and built.
//!
//! Reads regular files only, each bounded. Does not look at the environment, at git or at any program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdl::KdlDocument;

use super::flaw::{Draft, Flaws, Report, nearest};
use super::grammar::In;
use super::node::{Node, Scope, clean};
use super::{Manifest, Pipeline, Place, Purpose, Version, build, check, shape, steps, syntax};

/// The largest manifest file, in bytes.
const MANIFEST_BYTES: u64 = 1 << 20;
/// More files than this are no manifest of a person's.
const IMPORTS: usize = 256;

/// A file of the manifest as nodes.
#[derive(Debug)]
struct Loaded {
    document: KdlDocument,
    scope: Scope,
}

/// Reads a manifest.
///
/// # Errors
/// Every flaw of it and of the files that it names.
pub fn read(path: &Path) -> Result<Manifest, Flaws> {
    read_version(path, path, Version::default())
}

/// Reads a manifest and all that it names in a version of its project; `shown` is its path for messages.
///
/// # Errors
/// Every flaw of it and of the files that it names.
pub fn read_version(path: &Path, shown: &Path, version: Version) -> Result<Manifest, Flaws> {
    read_all(path, shown, version, Purpose::Run)
}

/// Reads a manifest for a purpose of its own: as a pipeline that vets, or one with another share of A/A controls.
///
/// # Errors
/// Every flaw of it and of the files that it names.
pub fn read_for(path: &Path, purpose: Purpose) -> Result<Manifest, Flaws> {
    read_all(path, path, Version::default(), purpose)
}

fn read_all(path: &Path, shown: &Path, version: Version, purpose: Purpose) -> Result<Manifest, Flaws> {
    let name = shown.to_string_lossy().into_owned();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = version.real(&absolute);
    let report = Report::of(version, purpose);
    match read_file(&report, &real, MANIFEST_BYTES) {
        Ok(text) => read_root(real, name, &text, report),
        Err(problem) => {
            report.add_file(real, name.clone(), Arc::from(""));
            let place = Place { file: 0, offset: 0, len: 0 };
            report.add(
                Draft::new("missing-file", place, format!("{name}: {problem}")).help("name the file of a manifest"),
            );
            finish(report, None)
        }
    }
}

/// Reads a text as a manifest that lies in `dir`; `name` is for messages.
///
/// # Errors
/// Every flaw of it and of the files that it names.
pub fn read_text(name: &str, text: &str, dir: &Path) -> Result<Manifest, Flaws> {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    read_root(dir.join("manifest.kdl"), name.to_owned(), text, Report::default())
}

fn read_root(path: PathBuf, name: String, text: &str, report: Report) -> Result<Manifest, Flaws> {
    let mut loader = Loader { report: &report, loaded: Vec::new(), indexes: BTreeMap::new(), stack: Vec::new() };
    loader.load(path, name, text);
    let loaded = std::mem::take(&mut loader.loaded);
    // What an unread file would have declared must not be missed aloud.
    let whole = report.is_clean();
    let pipeline = assemble(&loaded, whole, &report);
    finish(report, pipeline)
}

fn finish(report: Report, pipeline: Option<Pipeline>) -> Result<Manifest, Flaws> {
    if pipeline.is_none() && report.is_clean() {
        // A reader gave up without saying why. That must never pass for a manifest.
        let place = Place { file: 0, offset: 0, len: 0 };
        report.add(Draft::new("unread", place, "flow could not read this and does not know why: please report it"));
    }
    let version = report.version.clone();
    let (files, notices) = report.finish()?;
    match pipeline {
        Some(pipeline) => Ok(Manifest { files, pipeline, notices, version }),
        // Unreachable by the lines above, and said without a panic.
        None => Err(Flaws::default()),
    }
}

/// What the top of all files says.
#[derive(Debug, Default)]
pub(super) struct Top<'a> {
    /// `agent`.
    pub(super) agents: Vec<Node<'a>>,
    /// `provider`.
    pub(super) providers: Vec<Node<'a>>,
    /// `tool`, of the files and of the pipeline.
    pub(super) tools: Vec<Node<'a>>,
    /// `asset`, of the files and of the pipeline.
    pub(super) assets: Vec<Node<'a>>,
    /// `recipe`, of the files.
    pub(super) recipes: Vec<Node<'a>>,
    /// `prices`, of the files.
    pub(super) prices: Vec<Node<'a>>,
    /// `step`, of the files.
    pub(super) steps: Vec<Node<'a>>,
}

fn assemble(loaded: &[Loaded], whole: bool, report: &Report) -> Option<Pipeline> {
    let mut top = Top::default();
    let mut pipeline: Option<Node<'_>> = None;
    for file in loaded {
        let nodes = || file.document.nodes().iter().map(|raw| Node { raw, scope: &file.scope });
        shape::check(nodes(), In::File, report);
        for node in nodes() {
            match node.name() {
                "agent" => top.agents.push(node),
                "asset" => top.assets.push(node),
                "prices" => top.prices.push(node),
                "provider" => top.providers.push(node),
                "recipe" => top.recipes.push(node),
                "tool" => top.tools.push(node),
                "step" => top.steps.push(node),
                "pipeline" if file.scope.file == 0 => pipeline = pipeline.or(Some(node)),
                "pipeline" => report.add(
                    Draft::new("imported-pipeline", node.place(), "an imported file holds no pipeline")
                        .label("belongs in the file that is run")
                        .help(
                            "move what is shared into `agent`, `provider`, `tool`, `recipe` and `step` at the top of this file",
                        ),
                ),
                _ => {}
            }
        }
    }
    let Some(pipeline) = pipeline else {
        if report.is_clean() {
            let place = Place { file: 0, offset: 0, len: 0 };
            report.add(
                Draft::new("no-pipeline", place, "this file holds no pipeline")
                    .help("a manifest is `flow 1` and `pipeline NAME { … }`; a file without one can only be imported"),
            );
        }
        return None;
    };
    top.tools.extend(pipeline.all("tool"));
    top.assets.extend(pipeline.all("asset"));
    let steps = steps::read(&top.steps, pipeline, &steps::Tools::of(&top.tools, &top.agents, &top.recipes), report);
    let mut built = build::pipeline(pipeline, &top, report)?;
    built.steps = steps;
    if whole {
        check::all(&mut built, report);
    }
    Some(built)
}

struct Loader<'r> {
    report: &'r Report,
    loaded: Vec<Loaded>,
    indexes: BTreeMap<PathBuf, usize>,
    /// The files being read, each with the place of the import that led on.
    stack: Vec<(PathBuf, String)>,
}

impl Loader<'_> {
    fn load(&mut self, path: PathBuf, name: String, text: &str) {
        let file = self.report.add_file(path.clone(), name.clone(), Arc::from(text));
        self.indexes.insert(path.clone(), file);
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        let scope = Scope { file, dir };
        let Some(document) = syntax::parse(text, file, self.report) else { return };
        begins(&document, &scope, self.report);
        self.stack.push((path, name));
        // Imports come after the file itself, so that the manifest stays the first file.
        let mut wanted = Vec::new();
        for raw in document.nodes().iter().filter(|raw| raw.name().value() == "import") {
            for value in (Node { raw, scope: &scope }).args() {
                if let Some(text) = value.str().filter(|text| !text.is_empty()) {
                    wanted.push((text.to_owned(), value.place()));
                }
            }
        }
        let dir = scope.dir.clone();
        self.loaded.push(Loaded { document, scope });
        for (text, place) in wanted {
            self.import(&text, place, &dir);
        }
        self.stack.pop();
    }

    fn import(&mut self, text: &str, place: Place, dir: &Path) {
        let real = self.report.version.real(&clean(&dir.join(text)));
        let name = self.report.shown(place.file, text);
        if let Some(at) = self.stack.iter().position(|(open, _)| *open == real) {
            let mut names: Vec<&str> = self.stack.iter().skip(at).map(|(_, name)| name.as_str()).collect();
            names.push(&name);
            self.report.add(
                Draft::new("import-cycle", place, format!("these files import each other: {}", names.join(" -> ")))
                    .label("closes the cycle")
                    .help("move what both need into a third file"),
            );
            return;
        }
        if self.indexes.contains_key(&real) {
            return;
        }
        if self.indexes.len() >= IMPORTS {
            self.report.add(Draft::new("too-many-imports", place, format!("more than {IMPORTS} files are imported")));
            return;
        }
        match read_file(self.report, &real, MANIFEST_BYTES) {
            Ok(content) => self.load(real, name, &content),
            Err(problem) => missing(self.report, place, text, &real, &problem),
        }
    }
}

/// Checks that a file begins with its format.
pub(super) fn begins(document: &KdlDocument, scope: &Scope, report: &Report) {
    let Some(first) = document.nodes().first() else {
        let place = Place { file: scope.file, offset: 0, len: 0 };
        report.add(Draft::new("no-format", place, "the file is empty").help("begin it with `flow 1`"));
        return;
    };
    let node = Node { raw: first, scope };
    if node.name() != "flow" {
        report.add(
            Draft::new("no-format", node.place(), "a file begins with `flow 1`, the manifest's format")
                .label("stands where `flow 1` should")
                .help("write `flow 1` on a line before this one"),
        );
    }
}

/// Reports a file that cannot be read, with the nearest name of its folder.
pub(super) fn missing(report: &Report, place: Place, written: &str, path: &Path, problem: &str) {
    let wanted = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let names = path.parent().map(|dir| report.version.names(dir)).unwrap_or_default();
    let help = match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`? It lies in the same folder"),
        None => "relative paths are relative to the file that says them".to_owned(),
    };
    let shown = report.shown(place.file, written);
    report.add(Draft::new("missing-file", place, format!("{shown}: {problem}")).label("cannot be read").help(help));
}

/// Reads a regular file of at most so many bytes as text.
pub(super) fn read_file(report: &Report, path: &Path, limit: u64) -> Result<String, String> {
    String::from_utf8(read_bytes(report, path, limit)?).map_err(|_| "it is not text (UTF-8)".to_owned())
}

/// Reads a regular file of at most so many bytes.
pub(super) fn read_bytes(report: &Report, path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    report.version.read(path, limit).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "flow may not read it".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    })
}
