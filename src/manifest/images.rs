//! Container images: which one an environment is, and what does not go together with one.
//!
//! Reads their names; asks no engine and no registry.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::{Body, Pipeline, Spanned, Step, Template};
use crate::digest::Digest;

/// The program that runs test scripts where an image does not say another.
pub const PYTHON: &str = "python3";
/// How a file that is an image ends.
const FILE: &str = ".sif";
/// The longest name of an image, in bytes.
const LONGEST: usize = 500;

/// A container image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Which.
    pub source: Spanned<ImageSource>,
    /// The program within it that runs test scripts.
    pub interpreter: String,
}

/// Which image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageSource {
    /// One and no other.
    Digest {
        /// Its name, without the digest.
        name: String,
        /// 64 hex digits.
        sha256: Digest,
    },
    /// Whatever has this name when a run is planned.
    Tag(String),
    /// A file of this machine, for apptainer.
    File(PathBuf),
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest { name, sha256 } => write!(f, "{name}@sha256:{}", sha256.hex()),
            Self::Tag(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Builds an image.
pub(super) fn image(node: Node<'_>, report: &Report) -> Option<Image> {
    let written = node.text()?;
    let bad = |what: &str, help: &str| {
        report.add(
            Draft::new("bad-image", written.place, format!("`{}` {what}", written.value))
                .label("cannot be an image")
                .help(help.to_owned()),
        );
    };
    let text = written.value.as_str();
    let value = if text.ends_with(FILE) {
        ImageSource::File(node.arg(0).and_then(Value::path)?.value)
    } else {
        // A name that begins otherwise could be read as an option by whoever is given it.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
        let is_name = |name: &str| {
            name.len() <= LONGEST && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
        };
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        if !is_name(name) || name.contains("://") {
            bad("is no name of an image", "write it as `podman pull` takes it: \"docker.io/library/python:3.12-slim\"");
            return None;
        }
        match digest {
            None => ImageSource::Tag(name.to_owned()),
            Some(digest) => match digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok()) {
                Some(sha256) => ImageSource::Digest { name: name.to_owned(), sha256 },
                None => {
                    bad("has no digest after its `@`", "a digest is `sha256:` and 64 lower-case hex digits");
                    return None;
                }
            },
        }
    };
    let interpreter = node.prop("interpreter").and_then(Value::text);
    if let Some(program) = interpreter.as_ref().filter(|program| program.value.is_empty()) {
        report.add(
            Draft::new("bad-program", program.place, "the interpreter is a program of the image, and this is none")
                .label("empty")
                .help("write its name or its path: interpreter=\"/opt/venv/bin/python\""),
        );
    }
    Some(Image {
        source: Spanned { value, place: written.place },
        interpreter: interpreter.map_or_else(|| PYTHON.to_owned(), |program| program.value),
    })
}

/// Whether a recipe names an image.
pub(super) fn is_boxed(recipe: Node<'_>) -> bool {
    recipe.child("image").is_some() || recipe.all("when").any(|when| when.child("image").is_some())
}

/// Reports what does not go together with an image.
pub(super) fn check(pipeline: &Pipeline, report: &Report) {
    let boxed = |step: &Step| match &step.body {
        Body::Environment(body) => body.recipe.as_ref().is_some_and(|recipe| {
            let recipe = pipeline.recipes.get(&recipe.value);
            recipe.is_some_and(|recipe| recipe.cases.iter().any(|case| case.image.is_some()))
        }),
        _ => false,
    };
    let images: BTreeSet<&str> =
        pipeline.steps.iter().filter(|step| boxed(step)).map(|step| step.name.value.as_str()).collect();
    for step in &pipeline.steps {
        let Some(need) = step.needs.iter().find(|need| images.contains(need.value.as_str())) else { continue };
        let flaw = |place, what: &str, label: &str, help: &str| {
            report.add(
                Draft::new("not-in-image", place, format!("{what} in an image"))
                    .label(label.to_owned())
                    .other(need.place, "the environment is an image")
                    .help(help.to_owned()),
            );
        };
        match &step.body {
            Body::Agent(_) => flaw(
                step.name.place,
                "an agent does not run",
                "an agent",
                "take the environment from its `needs`: the tests run in the image all the same",
            ),
            Body::Test(body) => {
                if let Some(service) = body.services.first() {
                    flaw(
                        service.name.place,
                        "a test with a `service` does not run",
                        "flow starts it beside the test",
                        "let the test's own script start the server, or give this step an environment without an image",
                    );
                }
                let of_machine =
                    |template: &&Spanned<Template>| template.value.holes().any(|hole| hole.starts_with("tool."));
                if let Some(word) = body.run.iter().chain(body.checks.iter().flatten()).find(of_machine) {
                    flaw(
                        word.place,
                        "a declared tool is a program of this machine, and not of what runs",
                        "is not in the image",
                        "write the program's name as the image has it, or `{interpreter}`",
                    );
                }
            }
            _ => {}
        }
    }
}
