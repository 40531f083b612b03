//! The reading of one attempt: outcome first, then what it cost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::{Files, Shape};
use super::signature;
use super::table::{Finder, ReadingTable};
use super::usage::{began, left, told, usage};
use crate::attempt::{ProcessEnd, Usage};
use crate::outcome::{Cause, Failure, Outcome, Owner};
use crate::process::Exit;

/// How much of a long error stands before the words that tell its cause, in bytes.
const BEFORE: usize = 120;
/// How much of the end of an error is shown that nothing explains, in bytes.
const SHOWN: usize = 400;
/// How much of its last words an agent's message keeps, in characters.
const MESSAGE: usize = 2000;

/// What an attempt comes to by a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it did.
    pub outcome: Outcome,
    /// What it spent.
    pub usage: Usage,
    /// What it said last.
    pub message: Option<String>,
    /// What about it is worth a warning.
    pub notes: Vec<String>,
}

/// Reads an attempt. `files` gives what is kept of it by name: `stdout`, `stderr`, `trajectory` and what the adapter keeps.
#[must_use]
pub fn read(table: &ReadingTable, end: &ProcessEnd, files: &dyn Fn(&str) -> Option<Vec<u8>>) -> Reading {
    let files = Files::new(files, table.shapes());
    let mut notes = Vec::new();
    let outcome = table.outcome(end, &files, &mut notes);
    let usage = usage(table, end, &outcome, &files);
    let message = table.message.iter().find_map(|finder| finder.text(&files)).filter(|text| !text.is_empty());
    let message = message.map(|text| text.chars().take(MESSAGE).collect());
    Reading { outcome, usage, message, notes }
}

impl ReadingTable {
    /// What is wanted of each file.
    fn shapes(&self) -> BTreeMap<&str, Shape> {
        let mut shapes: BTreeMap<&str, Shape> = BTreeMap::new();
        let finders = self.finished.iter().map(|finished| &finished.finder);
        let finders = finders.chain(self.errors.iter().map(|error| &error.finder));
        let finders = finders.chain(&self.stuck).chain(&self.models).chain(&self.message);
        for finder in finders.clone().chain(self.usage.iter().map(|usage| &usage.finder)) {
            let shape = shapes.entry(&finder.file).or_default();
            finder.conditions.iter().for_each(|condition| shape.want(&[&condition.at]));
        }
        for finder in finders {
            let shape = shapes.entry(&finder.file).or_default();
            finder.at.iter().for_each(|at| shape.want(&[at]));
        }
        for usage in &self.usage {
            let shape = shapes.entry(&usage.finder.file).or_default();
            let kinds = [&usage.input, &usage.output, &usage.cache_read, &usage.cache_write];
            for figure in kinds.into_iter().flatten() {
                let path: Vec<_> = usage.finder.at.first().into_iter().chain([figure]).collect();
                shape.want(&path);
            }
            usage.unique.iter().chain(&usage.calls).for_each(|pointer| shape.want(&[pointer]));
        }
        shapes
    }

    fn outcome(&self, end: &ProcessEnd, files: &Files<'_>, notes: &mut Vec<String>) -> Outcome {
        let by_exit = failure_of(end);
        if !self.reads_outcomes() {
            return match by_exit {
                Some(failure) if failure.cause == Cause::Crashed => {
                    let line = ["stderr", "stdout"].iter().find_map(|name| last_line(&files.file(name)?.text()));
                    let shown = line.unwrap_or_else(|| failure.evidence.as_str().to_owned());
                    Outcome::Failed(Failure::new(Cause::Crashed, &shown).exit(failure.exit))
                }
                Some(failure) => Outcome::Failed(failure),
                None => Outcome::Succeeded,
            };
        }
        let code = match &end.exit {
            Exit::Code(code) => *code,
            Exit::NotStarted { why } => {
                let (cause, shown) = self.cause_of(why).unwrap_or_else(|| (Cause::NotStarted, why.clone()));
                return Outcome::Failed(Failure::new(cause, &shown));
            }
            Exit::OverLimit { .. } | Exit::Interrupted { .. } => {
                return by_exit.map_or(Outcome::Succeeded, Outcome::Failed);
            }
            Exit::TimedOut { .. } | Exit::Signal(_) => {
                return Outcome::Failed(
                    self.waited_for(files)
                        .or(by_exit)
                        .unwrap_or_else(|| Failure::new(Cause::Killed, "stopped before its end")),
                );
            }
        };
        let shows = |finished: &&super::table::Finished| {
            finished.exit.is_none_or(|wanted| wanted == code) && finished.finder.text(files).is_some()
        };
        if self.finished.iter().find(shows).is_some() {
            if code != 0 {
                notes.push(format!("it ended with exit code {code} although it had finished"));
            }
            return Outcome::Succeeded;
        }
        let mut failure = self.error(code, files);
        if let Some(gone) = self.gone(end).filter(|_| failure.cause == Cause::Unknown) {
            failure = Failure::new(Cause::OverLimit, &gone);
        }
        Outcome::Failed(failure.exit(Some(code)))
    }

    /// What of that which tells how an agent ended was too long to be kept: what is left explains nothing, and that is why.
    fn gone(&self, end: &ProcessEnd) -> Option<String> {
        let mut telling = self.finished.iter().map(|finished| &finished.finder.file);
        match telling.clone().find(|file| end.unkept.contains(file)) {
            Some(file) => Some(format!("its {file}, which tells how it ended, was too long to be kept")),
            None if end.cut && telling.any(|file| matches!(file.as_str(), "stdout" | "stderr")) => Some(
                "its output was longer than its limit, and what is kept of it does not tell how it ended".to_owned(),
            ),
            None => None,
        }
    }

    /// Why an agent that ended by itself did not finish.
    fn error(&self, code: i32, files: &Files<'_>) -> Failure {
        let found = self.errors.iter().find_map(|error| Some((error, error.finder.text(files)?)));
        let Some((reader, text)) = found else {
            let said = format!("exit code {code}, and nothing that says how it ended");
            return Failure::new(if code == 0 { Cause::Unknown } else { silent(code) }, &said);
        };
        let text = reader.says.clone().unwrap_or(text);
        if let Some(cause) = reader.cause {
            return Failure::new(cause, end_of(&text));
        }
        // The end of a whole log holds what tools printed and what the model said, and so may a match over several lines. Once the
        // model has answered, such words are believed only of the agent itself: else they would close a lane, block a candidate,
        // and draw a paid attempt again. Of an agent that tells its errors elsewhere, they close no lane even if it died before it
        // told anything; that no reply was had it would have told.
        let prose = reader.finder.finds_prose(files);
        let answered = prose && began(self, files);
        let elsewhere = prose && self.errors.iter().any(|error| error.finder.is_structured()) && !told(self, files);
        // It died at work where there is a file of it, though a torn one, that would tell what it used.
        let worked = elsewhere && left(self, files);
        let believed = |cause: Cause| match cause.owner() {
            Owner::Provider => !answered && !elsewhere,
            Owner::Environment | Owner::Harness => !answered && !worked,
            _ => true,
        };
        match self.cause_among(&text, believed) {
            Some((cause, shown)) => Failure::new(cause, &shown),
            // Shells and shims say by their code what happened to the program that they started.
            None if code >= 126 => Failure::new(silent(code), &format!("exit code {code}: {}", end_of(&text))),
            None => Failure::new(Cause::Unknown, end_of(&text)),
        }
    }

    /// What an agent that was stopped had been waiting for, where that is its provider: then the time was not its own.
    fn waited_for(&self, files: &Files<'_>) -> Option<Failure> {
        let texts = self.stuck.iter().filter_map(|finder: &Finder| finder.text(files));
        let causes = texts.filter_map(|text| self.cause_of(&text));
        let mut theirs = causes.filter(|(cause, _)| cause.owner() == Owner::Provider);
        theirs.next().map(|(cause, shown)| Failure::new(cause, &format!("stopped while it waited: {shown}")))
    }

    /// What a text means, and the words that say so.
    fn cause_of(&self, text: &str) -> Option<(Cause, String)> {
        self.cause_among(text, |_| true)
    }

    /// The same of the causes that may be.
    fn cause_among(&self, text: &str, may_be: impl Fn(Cause) -> bool) -> Option<(Cause, String)> {
        let own = self
            .signatures
            .iter()
            .filter(|signature| may_be(signature.cause))
            .find_map(|signature| Some((signature.cause, signature.pattern.regex().find(text)?.range())));
        let (cause, range) = own.or_else(|| signature::built_in_among(text, &may_be))?;
        let mut from = range.start.saturating_sub(BEFORE);
        if text.len() <= SHOWN {
            from = 0;
        }
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let cut = if from > 0 { "… " } else { "" };
        Some((cause, format!("{cut}{}", &text[from..])))
    }
}

/// What an exit code other than 0 says where nothing else does.
fn silent(code: i32) -> Cause {
    if matches!(code, 126 | 127) { Cause::MissingModule } else { Cause::Crashed }
}

fn last_line(text: &str) -> Option<String> {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

fn end_of(text: &str) -> &str {
    let mut from = text.len().saturating_sub(SHOWN);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// What the end of a process means where nothing else is known of it; `None` for exit code 0.
fn failure_of(end: &ProcessEnd) -> Option<Failure> {
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    Some(match &end.exit {
        Exit::Code(0) => return None,
        Exit::Code(code) => Failure::new(Cause::Crashed, &format!("exit code {code}")).exit(Some(*code)),
        Exit::Signal(signal) => Failure::new(Cause::Killed, &format!("killed by signal {signal}, not by flow")),
        Exit::TimedOut { limit_ms } => {
            let said =
                format!("stopped after {:.1} s, the limit is {:.1} s", seconds(end.active_ms), seconds(*limit_ms));
            Failure::new(Cause::Timeout, &said)
        }
        Exit::OverLimit { limit_bytes } => {
            Failure::new(Cause::OverLimit, &format!("more than {limit_bytes} bytes of output"))
        }
        Exit::NotStarted { why } => Failure::new(Cause::NotStarted, why),
        Exit::Interrupted { .. } => Failure::new(Cause::Interrupted, "stopped before its end"),
    })
}
