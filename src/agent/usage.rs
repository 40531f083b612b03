//! Tokens: found where the table says, made disjoint, and never 0 where they are not known.

use std::collections::BTreeMap;

use serde_json::Value;

use super::document::Files;
use super::finding::{MATCHES, matches};
use super::pointer::Pointer;
use super::table::{Cached, Format, ReadingTable, Take, UsageReader};
use crate::attempt::{ProcessEnd, Usage};
use crate::outcome::{Cause, Outcome, Owner};
use crate::process::Exit;

/// No attempt has more tokens than this: a larger figure is none.
const MOST: u64 = 1_000_000_000_000;
/// The most models that are named, and how long a name may be.
const MODELS: usize = 8;

/// One figure of each kind, as an agent says them.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    rounded: bool,
    /// One was there and cannot be a number of tokens.
    refused: bool,
}

/// What a reader found.
#[derive(Default)]
struct Found {
    figures: Vec<Figures>,
    /// Of figures that would have counted, all were refused.
    refused: bool,
    calls: Option<u64>,
}

/// What a shell or a shim complains with where the program is not there, in bytes at most.
const COMPLAINT: usize = 400;

/// Whether an agent cannot have asked its model: a shim could not start it, and nothing is there but the shim's one line. What is
/// said otherwise of a missing module or a wrong config may be a tool's word, of an agent that died before it told its tokens.
fn never_asked(table: &ReadingTable, exit: &Exit, files: &Files<'_>) -> bool {
    let length = |name: &str| files.file(name).map_or(0, |file| file.text().trim().len());
    matches!(exit, Exit::Code(126 | 127))
        && length("stdout") == 0
        && (1..=COMPLAINT).contains(&length("stderr"))
        && files.file("stderr").is_some_and(|file| !file.text().trim().contains('\n'))
        && !left(table, files)
}

/// The tokens of an attempt that ended so, and the models that answered.
pub(super) fn usage(table: &ReadingTable, end: &ProcessEnd, outcome: &Outcome, files: &Files<'_>) -> Usage {
    let (exit, cut) = (&end.exit, end.cut);
    let models = || {
        let texts = table.models.iter().flat_map(|finder| finder.texts(files, MODELS));
        let mut models: Vec<String> = texts.filter(|name| name.len() <= 200).collect();
        models.sort();
        models.dedup();
        models.truncate(MODELS);
        models
    };
    let unknown = |why: &str| Usage { unknown_because: Some(why.to_owned()), models: models(), ..Usage::default() };
    if table.free || matches!(exit, Exit::NotStarted { .. }) {
        return Usage::NOTHING;
    }
    if table.usage.is_empty() {
        return unknown("the adapter says nothing of usage");
    }
    let is_unkept = |file: &&String| end.unkept.contains(*file);
    let mut passed = table.usage.iter().map(|reader| &reader.finder.file).filter(is_unkept);
    let Some((reader, found)) = table.usage.iter().find_map(|reader| Some((reader, reader.find(files)?))) else {
        return match passed.next() {
            Some(file) => unknown(&format!("its {file}, which tells, was too long to be kept")),
            None if !cut && never_asked(table, exit, files) => Usage::NOTHING,
            None if cut => unknown("what is kept of its output tells none, and a part was left out"),
            None => unknown("the agent reported none"),
        };
    };
    // One that comes before: it would have told more, or better.
    let before = table.usage.iter().take_while(|other| !std::ptr::eq(*other, reader));
    let better = before.map(|other| &other.finder.file).find(is_unkept);
    let outgrows = |file: &str| files.file(file).is_some_and(|file| file.outgrows_text());
    let total =
        found.figures.iter().fold(None, |sum: Option<Figures>, next| Some(sum.map_or(*next, |sum| sum.plus(next))));
    let mut total = total.unwrap_or(Figures { input: Some(0), output: Some(0), ..Figures::default() });
    total.refused |= found.refused;
    let told = found.figures.len() as u64;
    let up_to = table.usage.iter().take_while(|other| !std::ptr::eq(*other, reader)).chain([reader]);
    let lost = up_to.into_iter().any(|reader| reader.lost(files));
    let cause = outcome.failure().map(|failure| failure.cause);
    let missed = cause.is_some_and(|cause| reader.misses.contains(&cause));
    let nothing = total.input.unwrap_or(0) == 0 && total.output.unwrap_or(0) == 0;
    if nothing
        && total.input.or(total.output).is_some()
        && (missed || lost || total.refused || !may_be_nothing(cause, found.calls))
    {
        return match found.calls.filter(|calls| *calls > 0) {
            Some(calls) => unknown(&format!("the agent reported no tokens for {calls} replies of the model")),
            None => unknown("the agent reported no tokens"),
        };
    }
    let mut usage = Usage {
        output: total.output,
        cache_read: total.cache_read,
        cache_write: total.cache_write,
        calls: found.calls,
        approximate: total.rounded,
        models: models(),
        ..Usage::default()
    };
    usage.input = match reader.cached {
        Cached::Beside => total.input,
        // Of each reply: in the sum one that cannot be would hide behind another.
        Cached::Inside => {
            total.input.filter(|_| found.figures.iter().all(Figures::holds_its_cached)).and_then(|input| {
                let cached = total.cache_read.unwrap_or(0).checked_add(total.cache_write.unwrap_or(0))?;
                // Rounded figures may differ by their last digit.
                input.checked_sub(cached).or(total.rounded.then_some(0))
            })
        }
    };
    usage.unknown_because = if usage.input.is_none() && total.input.is_some() {
        Some("the agent reported more cached tokens than it read in all".to_owned())
    } else if found.figures.iter().all(Figures::is_empty) && total.refused {
        Some("the agent reported figures that cannot be numbers of tokens".to_owned())
    } else if usage.input.is_none() || usage.output.is_none() {
        Some("the agent reported only a part".to_owned())
    } else if total.refused {
        Some("a figure that cannot be a number of tokens was left out".to_owned())
    } else if lost {
        Some(format!("a line of its {} that may tell more could not be read", reader.finder.file))
    } else if let Some(calls) = found.calls.filter(|calls| reader.take == Take::Sum && *calls > told) {
        Some(format!("of {calls} replies of the model only {told} told their tokens"))
    } else if cut && matches!(reader.finder.file.as_str(), "stdout" | "stderr") {
        Some("its output was cut: what it told in the part that was left out is not in it".to_owned())
    } else if let Some(file) = better {
        Some(format!("its {file}, which tells more, was too long to be kept"))
    } else if matches!(reader.finder.format, Format::Text { .. })
        && reader.take == Take::Sum
        && outgrows(&reader.finder.file)
    {
        Some("only the end of its output was read".to_owned())
    } else if found.figures.len() >= MATCHES {
        Some("there were more figures than are read".to_owned())
    } else if missed {
        let cause = cause.map_or("", Cause::name);
        Some(format!("what was paid for before {cause} may not be in it"))
    } else if !matches!(exit, Exit::Code(_)) {
        Some("it was stopped: what was paid for last may not be in it".to_owned())
    } else {
        None
    };
    usage
}

/// Whether the model answered at all, as far as the agent tells.
pub(super) fn began(table: &ReadingTable, files: &Files<'_>) -> bool {
    let some = |found: Found| {
        found.calls.unwrap_or(0) > 0 || found.figures.iter().any(|figures| figures.output.unwrap_or(0) > 0)
    };
    table.usage.iter().filter_map(|reader| reader.find(files)).any(some)
}

/// Whether the agent tells how many replies of the model it had, or what they cost.
pub(super) fn told(table: &ReadingTable, files: &Files<'_>) -> bool {
    table.usage.iter().any(|reader| reader.find(files).is_some())
}

/// Whether there is a file of the agent's own that tells what it used, though it may be torn.
pub(super) fn left(table: &ReadingTable, files: &Files<'_>) -> bool {
    let own = table.usage.iter().map(|reader| reader.finder.file.as_str());
    own.filter(|name| !matches!(*name, "stdout" | "stderr")).any(|name| files.file(name).is_some())
}

/// Whether no tokens at all can be true: no reply was finished, because the provider or the installation did not let it.
fn may_be_nothing(cause: Option<Cause>, calls: Option<u64>) -> bool {
    let outside = |cause: Cause| matches!(cause.owner(), Owner::Provider | Owner::Environment);
    calls.unwrap_or(0) == 0 && cause.is_some_and(outside)
}

impl Figures {
    fn plus(&self, other: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => a.checked_add(b).filter(|sum| *sum <= MOST),
            (one, other) => one.or(other),
        };
        let over = |a: Option<u64>, b: Option<u64>| a.is_some() && b.is_some() && sum(a, b).is_none();
        // A kind of which one reply says nothing is not known of all; what was cached is 0 where nothing is said.
        let all = |a: Option<u64>, b: Option<u64>| sum(Some(a?), Some(b?));
        Self {
            input: all(self.input, other.input),
            output: all(self.output, other.output),
            cache_read: sum(self.cache_read, other.cache_read),
            cache_write: sum(self.cache_write, other.cache_write),
            rounded: self.rounded || other.rounded,
            refused: self.refused || other.refused || over(self.cache_read, other.cache_read),
        }
    }

    /// Whether its input is as large as what of it was cached; rounded figures may differ by their last digit.
    fn holds_its_cached(&self) -> bool {
        let cached = self.cache_read.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0));
        self.rounded || self.input.is_none_or(|input| input >= cached)
    }

    /// Whether nothing is known by it.
    fn is_empty(&self) -> bool {
        self.input.is_none() && self.output.is_none() && self.cache_read.is_none() && self.cache_write.is_none()
    }

    /// Whether nothing was said at all.
    fn is_silent(&self) -> bool {
        self.is_empty() && !self.refused
    }
}

impl UsageReader {
    /// The figures that count; `None` if the file is not there or says nothing of any.
    fn find(&self, files: &Files<'_>) -> Option<Found> {
        if let Format::Text { pattern } = &self.finder.format {
            let text = files.file(&self.finder.file)?.text();
            let names = |groups: &regex::Captures<'_>| {
                let (mut rounded, mut refused) = (false, false);
                let mut figure = |name: &str| {
                    let said = written(groups.name(name)?.as_str());
                    refused |= said.is_none();
                    let (count, is_rounded) = said?;
                    rounded |= is_rounded;
                    Some(count)
                };
                let mut figures = Figures {
                    input: figure("input"),
                    output: figure("output"),
                    cache_read: figure("cache_read"),
                    cache_write: figure("cache_write"),
                    rounded: false,
                    refused: false,
                };
                (figures.rounded, figures.refused) = (rounded, refused);
                figures
            };
            let matches = matches(pattern.as_ref()?, &text)?;
            let figures: Vec<Figures> = matches.iter().map(&names).filter(|f| !f.is_silent()).collect();
            let calls = u64::try_from(figures.len()).ok().filter(|_| self.take == Take::Sum);
            return self.counted(figures.into_iter().map(|figures| (None, figures)).collect(), false, calls);
        }
        files.file(&self.finder.file)?;
        let at = self.finder.at.first();
        let look = |document: &Value| {
            let key = self.unique.as_ref().and_then(|unique| unique.find(document).into_iter().find_map(id));
            let found = at.map_or_else(|| vec![document], |at| at.find(document));
            let figures: Vec<_> = found
                .into_iter()
                .map(|value| (key.clone(), self.figures(value)))
                .filter(|(_, figures)| !figures.is_silent())
                .collect();
            let empty = at.is_some_and(|at| at.opens(document));
            (figures, empty, self.calls(document))
        };
        let looked = self.finder.documents(files, look);
        let empty = self.none_is_zero || looked.iter().any(|(_, empty, _)| *empty);
        let calls = looked.iter().filter_map(|(_, _, calls)| *calls).reduce(|last, next| match self.take {
            Take::Sum => last.saturating_add(next),
            Take::Last => next,
        });
        self.counted(looked.into_iter().flat_map(|(figures, _, _)| figures).collect(), empty, calls)
    }

    /// Of all figures those that count. `empty`: that there are none means that there was no reply.
    fn counted(&self, all: Vec<(Option<String>, Figures)>, empty: bool, calls: Option<u64>) -> Option<Found> {
        if all.is_empty() {
            return empty.then(|| Found { calls, ..Found::default() });
        }
        // What was refused as a whole adds nothing to what is known, and is told.
        let refused = match self.take {
            Take::Last => all.last().is_some_and(|(_, figures)| figures.is_empty()),
            Take::Sum => all.iter().any(|(_, figures)| figures.is_empty()),
        };
        if all.iter().all(|(_, figures)| figures.is_empty()) {
            let figures = all.into_iter().map(|(_, figures)| figures).collect();
            return Some(Found { figures, refused, calls });
        }
        let mut all = all.into_iter().filter(|(_, figures)| !figures.is_empty());
        let figures = match (self.take, &self.unique) {
            (Take::Last, _) => all.next_back().map(|(_, figures)| figures).into_iter().collect(),
            (Take::Sum, None) => all.map(|(_, figures)| figures).collect(),
            (Take::Sum, Some(_)) => {
                let mut by_key: BTreeMap<String, Figures> = BTreeMap::new();
                let mut apart = Vec::new();
                for (key, figures) in all {
                    match key {
                        Some(key) => drop(by_key.insert(key, figures)),
                        None => apart.push(figures),
                    }
                }
                apart.extend(by_key.into_values());
                let calls = calls.or_else(|| u64::try_from(apart.len()).ok());
                return Some(Found { figures: apart, refused, calls });
            }
        };
        Some(Found { figures, refused, calls })
    }

    /// Whether figures may have been in lines that could not be read.
    fn lost(&self, files: &Files<'_>) -> bool {
        let at = self.finder.at.first();
        self.finder.lost(files, |document| {
            let found = at.map_or_else(|| vec![document], |at| at.find(document));
            found.into_iter().any(|value| !self.figures(value).is_silent())
        })
    }

    fn figures(&self, value: &Value) -> Figures {
        let first =
            |pointers: &[Pointer]| pointers.iter().find_map(|pointer| pointer.find(value).into_iter().find_map(count));
        let said = |pointer: &Pointer| pointer.find(value).into_iter().any(|found| !found.is_null());
        let kinds = [&self.input, &self.output, &self.cache_read, &self.cache_write];
        Figures {
            input: first(&self.input),
            output: first(&self.output),
            cache_read: first(&self.cache_read),
            cache_write: first(&self.cache_write),
            rounded: false,
            refused: kinds.into_iter().any(|kind| first(kind).is_none() && kind.iter().any(said)),
        }
    }

    fn calls(&self, document: &Value) -> Option<u64> {
        let pointer = self.calls.as_ref()?;
        if pointer.is_wide() {
            return pointer.opens(document).then(|| pointer.find(document).len() as u64);
        }
        pointer.find(document).into_iter().find_map(count)
    }
}

/// What tells one reply from another; nothing and an empty text tell none from any.
fn id(value: &Value) -> Option<String> {
    let says = match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        _ => true,
    };
    says.then(|| value.to_string())
}

/// A number of tokens; a fraction, a negative or an absurd one is none.
fn count(value: &Value) -> Option<u64> {
    let whole =
        |number: f64| (number >= 0.0 && number.fract() == 0.0 && number <= MOST as f64).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole)).filter(|count| *count <= MOST)
}

/// A number as people write it, such as `120`, `3.1k` or `1.2M`, and whether it is rounded.
fn written(text: &str) -> Option<(u64, bool)> {
    let text = text.trim().replace(',', "");
    let (digits, scale) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'm' | 'M') => (&text[..at], 1e6),
        _ => (text.as_str(), 1.0),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let number = digits.parse::<f64>().ok()? * scale;
    let rounded = scale > 1.0 || digits.contains('.');
    (number.is_finite() && number <= MOST as f64).then(|| (number.round() as u64, rounded))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_as_people_and_programs_write_them() {
        assert_eq!(written("120"), Some((120, false)));
        assert_eq!(written("3.1k"), Some((3100, true)));
        assert_eq!(written("1,234"), Some((1234, false)));
        assert_eq!(written("1.2M"), Some((1_200_000, true)));
        for text in ["", "k", "1e9", "-1", "inf", "9999999999999999999999", "1.2.3", "é"] {
            assert_eq!(written(text), None, "{text}");
        }
        assert_eq!(count(&json!(7)), Some(7));
        assert_eq!(count(&json!(7.0)), Some(7));
        for value in [json!(-1), json!(0.5), json!(1e300), json!(u64::MAX), json!("7"), json!(null)] {
            assert_eq!(count(&value), None, "{value}");
        }
    }
}
