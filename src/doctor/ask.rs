//! Putting questions: all at once, each within the limit, and what each gave put together.
//!
//! A question that waits on a program is a future; one that waits on a disk or a far server is a thread, which is left behind
//! when it takes too long.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::repos::Size;
use super::{Finding, Level, Question};
use crate::git::Described;
use crate::plan::{CommitFact, Missing, ToolFact};
use crate::process;
use crate::redact::Secret;
use crate::units::human_span;

/// How many questions may follow each other in one: a provider is asked after its secrets.
const ROUNDS: u32 = 2;
/// How much longer a question as a whole may take: it has to say itself that it was cut off.
const GRACE: Duration = Duration::from_secs(2);

/// What a question gave.
#[derive(Default)]
pub(super) struct Found {
    /// Lines.
    pub(super) lines: Vec<Finding>,
    /// Secrets that were read, so that no line shows them.
    pub(super) secrets: Vec<Secret>,
    /// What the plan needs to know.
    pub(super) facts: Facts,
    /// How much the base trees of all repositories hold.
    pub(super) size: Option<Size>,
    /// Bytes that are free where the store lies or would lie.
    pub(super) free: Option<u64>,
}

/// What of the machine a plan needs to know.
#[derive(Default)]
pub(super) struct Facts {
    /// Tools by name.
    pub(super) tools: BTreeMap<String, Result<ToolFact, Missing>>,
    /// What the slots of a kind are.
    pub(super) devices: BTreeMap<String, Result<String, Missing>>,
    /// Commits by (index of repository, index of commit).
    pub(super) commits: BTreeMap<(usize, usize), Result<CommitFact, Missing>>,
    /// What the bases of commits are called by the tags behind them, where a recipe asks for that.
    pub(super) described: BTreeMap<(usize, usize), Result<Described, Missing>>,
    /// What has a line of its own already.
    pub(super) said: HashSet<String>,
}

impl Found {
    /// One line.
    pub(super) fn line(line: Finding) -> Self {
        Self { lines: vec![line], ..Self::default() }
    }

    /// Adds what another question gave.
    pub(super) fn add(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.secrets.extend(other.secrets);
        self.facts.tools.extend(other.facts.tools);
        self.facts.devices.extend(other.facts.devices);
        self.facts.commits.extend(other.facts.commits);
        self.facts.described.extend(other.facts.described);
        self.facts.said.extend(other.facts.said);
        self.size = match (self.size.take(), other.size) {
            (Some(one), Some(two)) => Some(one.and(&two)),
            (one, two) => one.or(two),
        };
        self.free = self.free.or(other.free);
    }
}

/// One who asks, and how long it may yet take.
#[derive(Clone)]
pub(super) struct Ask {
    /// What is asked.
    pub(super) question: Arc<Question>,
    /// When it must have ended.
    pub(super) until: Instant,
}

impl Ask {
    /// One who asks the next question, with all the time that a question may take.
    pub(super) fn next(&self) -> Self {
        Self { question: self.question.clone(), until: Instant::now() + self.question.limit }
    }

    /// The time that is left.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether there is none.
    pub(super) fn late(&self) -> bool {
        self.left().is_zero()
    }

    /// What a program says, within the time that is left.
    pub(super) async fn answer(
        &self,
        argv: &[String],
        env: &BTreeMap<String, String>,
        cwd: &Path,
    ) -> Result<Vec<u8>, String> {
        let said = process::answer(argv, env, cwd, self.left()).await;
        // What it had left when it was asked is not what a reader knows.
        said.map_err(|why| if self.late() { self.silent() } else { why })
    }

    /// The same of a program that deals with secrets: these, and what it printed, are not in its complaint.
    pub(super) async fn answer_in_confidence(
        &self,
        argv: &[String],
        env: &BTreeMap<String, String>,
        cwd: &Path,
        known: &[Secret],
    ) -> Result<Vec<u8>, String> {
        let said = process::answer_in_confidence(argv, env, cwd, self.left(), known).await;
        said.map_err(|why| if self.late() { self.silent() } else { why })
    }

    /// That nothing was said in time.
    pub(super) fn silent(&self) -> String {
        format!("no answer within {}", human_span(self.question.limit))
    }

    /// The level of what a program did not do: of one that was cut off nothing is known.
    pub(super) fn level(&self, otherwise: Level) -> Level {
        if self.late() { Level::Unknown } else { otherwise }
    }
}

/// A question under way.
pub(super) struct Asked {
    check: &'static str,
    subject: String,
    silent: String,
    limit: Duration,
    task: JoinHandle<Found>,
}

/// Who puts questions.
pub(super) struct Asking {
    /// What is asked.
    pub(super) question: Arc<Question>,
}

impl Asking {
    pub(super) fn new(question: Question) -> Self {
        Self { question: Arc::new(question) }
    }

    fn one(&self) -> Ask {
        Ask { question: self.question.clone(), until: Instant::now() + self.question.limit }
    }

    fn asked(&self, check: &'static str, subject: &str, task: JoinHandle<Found>) -> Asked {
        let limit = self.question.limit.saturating_mul(ROUNDS).saturating_add(GRACE);
        Asked { check, subject: subject.to_owned(), silent: self.one().silent(), limit, task }
    }

    /// Puts a question to programs.
    pub(super) fn ask<F>(&self, check: &'static str, subject: &str, how: impl FnOnce(Ask) -> F) -> Asked
    where
        F: Future<Output = Found> + Send + 'static,
    {
        self.asked(check, subject, tokio::spawn(how(self.one())))
    }

    /// Puts a question that blocks a thread.
    pub(super) fn look(
        &self,
        check: &'static str,
        subject: &str,
        how: impl FnOnce(&Ask) -> Found + Send + 'static,
    ) -> Asked {
        let ask = self.one();
        self.asked(check, subject, tokio::task::spawn_blocking(move || how(&ask)))
    }
}

/// What all of some questions gave, in their order.
pub(super) async fn all(asked: impl IntoIterator<Item = Asked>) -> Found {
    let mut found = Found::default();
    for Asked { check, subject, silent, limit, mut task } in asked {
        // Each began with all the others: the time they took is no more than the longest of them.
        match tokio::time::timeout(limit, &mut task).await {
            Ok(Ok(part)) => found.add(part),
            Ok(Err(error)) => {
                let what = format!("flow itself failed to look: {error}");
                found.lines.push(Finding::bad(Level::Unknown, check, subject, what, "please report it"));
            }
            Err(_) => {
                task.abort();
                let fix = "look at it by hand, or give it more time with --limit";
                found.lines.push(Finding::bad(Level::Unknown, check, subject, silent, fix));
            }
        }
    }
    found
}
