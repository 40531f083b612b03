//! What a run of a manifest would miss on this machine, told before anything is paid for: each line with the fix.
//!
//! Looks and asks, and changes nothing: not the store, not a mirror, not a slot. All questions are put at once, and none may take
//! longer than the limit. No value of a secret leaves this room: [`examine`] cleans every line. It decides nothing for a run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::manifest::{Manifest, Place};
use crate::redact::Redactor;
use crate::run::prepare::sources;
use crate::step::context::Machine;
use crate::text::harmless;

mod ask;
mod credentials;
mod devices;
mod disk;
mod engines;
mod machine;
mod planned;
mod python;
mod repos;
mod text;
mod tools;

use ask::Asking;
pub use text::text;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The machine.
    pub machine: Machine,
    /// The manifest; without one only the machine's own lines are told.
    pub manifest: Option<Arc<Manifest>>,
    /// The folder of the store, which need not be there.
    pub store: PathBuf,
    /// Where the locks of slots lie.
    pub slots: PathBuf,
    /// Local clones in place of what the manifest names.
    pub repos: BTreeMap<String, PathBuf>,
    /// How many actions a run would have at work at once.
    pub jobs: usize,
    /// How long one question may take.
    pub limit: Duration,
}

/// How a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// A run begins, and something may go other than meant.
    Warn,
    /// A run does not begin, or jobs of it cannot be done.
    Fail,
    /// It could not be told here and now.
    Unknown,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warn, Self::Fail, Self::Unknown];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How it stands.
    pub level: Level,
    /// What was looked at: `git`, `tool`, `credential`.
    pub check: &'static str,
    /// Which of them: `python`. Empty where there is one only.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// What to do; always there but for what is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Where the manifest asks for it, as `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, subject: subject.into(), what: what.into(), fix: None, at: None }
    }

    /// A line that is not well says what to do.
    fn bad(
        level: Level,
        check: &'static str,
        subject: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level, check, subject: subject.into(), what: what.into(), fix: Some(fix.into()), at: None }
    }

    fn at(mut self, manifest: &Manifest, place: Place) -> Self {
        self.at = manifest.files.get(place.file).and_then(|file| {
            let line = file.text.get(..place.offset)?.matches('\n').count() + 1;
            Some(format!("{}:{line}", file.name))
        });
        self
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The manifest's pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The machine's name.
    pub host: String,
    /// The lines, in the order in which they are read.
    pub lines: Vec<Finding>,
    /// How many lines stand how.
    pub counts: BTreeMap<&'static str, usize>,
}

impl Report {
    /// Whether a line says that something fails.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.lines.iter().any(|line| line.level == Level::Fail)
    }
}

/// Looks at a machine, and at what a manifest asks of it. Needs tokio's timers and threads.
pub async fn examine(question: Question) -> Report {
    let asking = Asking::new(question);
    let question = asking.question.clone();
    let manifest = question.manifest.clone();
    // In the order of the lines; all are under way before the first is waited for.
    let mut asked = vec![asking.ask("git", "", machine::git)];
    match &manifest {
        None => asked.push(asking.ask("python", "", machine::python)),
        Some(manifest) => {
            for (index, tool) in manifest.pipeline.tools.iter().enumerate() {
                asked.push(asking.ask("tool", &tool.name.value, move |ask| tools::examine(ask, index)));
            }
            for wanted in credentials::wanted(manifest) {
                let name = wanted.name().to_owned();
                asked.push(asking.ask("credential", &name, move |ask| credentials::examine(ask, wanted)));
            }
            for name in manifest.pipeline.providers.keys().cloned() {
                let subject = name.to_string();
                asked.push(asking.ask("provider", &subject, move |ask| credentials::provider(ask, name)));
            }
            for (index, source) in sources(&manifest.pipeline, &question.repos).into_iter().enumerate() {
                let name = manifest.pipeline.repos[index].name.value.to_string();
                let far = source.clone();
                asked.push(asking.look("repository", &name, move |look| repos::reach(look, index, &far)));
                asked.push(asking.look("commits", &name, move |look| repos::commits(look, index, &source)));
            }
        }
    }
    asked.push(asking.ask("devices", "", devices::examine));
    let boxed = manifest.as_ref().is_some_and(|manifest| engines::wanted(manifest));
    // A manifest without images has nothing to do with them.
    if boxed || manifest.is_none() {
        asked.push(asking.ask("engine", "", move |ask| engines::examine(ask, boxed)));
    }
    let after = [
        asking.look("store", "", disk::place),
        asking.look("clock", "", machine::clock),
        asking.look("processes", "", machine::kernel),
    ];
    let mut found = ask::all(asked).await;
    if let Some(manifest) = manifest {
        let facts = std::mem::take(&mut found.facts);
        let planned = asking.look("plan", "", move |look| planned::examine(look, &manifest, facts));
        found.add(ask::all([planned]).await);
    }
    found.add(ask::all(after).await);
    found.lines.extend(disk::room(&question, found.free, found.size.as_ref()));

    let secrets = credentials::of_variables(&question.machine);
    let redactor = Redactor::new(secrets.iter().chain(&found.secrets));
    let clean = |text: &str| harmless(&String::from_utf8_lossy(&redactor.clean(text.as_bytes())));
    for line in &mut found.lines {
        line.subject = clean(&line.subject);
        line.what = clean(&line.what);
        line.fix = line.fix.as_deref().map(clean);
    }
    let count = |level: Level| (level.word(), found.lines.iter().filter(|line| line.level == level).count());
    Report {
        pipeline: question.manifest.as_ref().map(|manifest| manifest.pipeline.name.value.clone()),
        host: question.machine.host.clone(),
        counts: Level::ALL.map(count).into(),
        lines: found.lines,
    }
}
