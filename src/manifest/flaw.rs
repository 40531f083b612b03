//! Flaws: what is wrong with a manifest, where, and what to do about it.
//!
//! Readers collect `Draft`s in a `Report` and go on, so that one report holds every flaw of every file. Nothing here
//! decides what is a flaw, and nothing prints: a [`Flaws`] is a `miette::Diagnostic` that the command line renders.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::{Place, Purpose, SourceFile, Spanned, Version};
use crate::text::harmless;

/// More flaws than this are counted, not shown: nobody reads a thousand, and a bad table has one a row.
const SHOWN: usize = 100;

/// One flaw, with the file that holds it.
#[derive(Clone)]
pub struct Flaw {
    message: String,
    code: &'static str,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
    source: NamedSource<Arc<str>>,
    place: Place,
}

impl Flaw {
    /// What is wrong, in one sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The last part of its code: `unknown-node`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.code
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The name of the file that holds it.
    #[must_use]
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The line of that file, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        let before = self.source.inner().get(..self.place.offset).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }
}

impl fmt::Debug for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}: {}", self.code, self.file(), self.place.offset, self.message)
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Flaw {}

impl Diagnostic for Flaw {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("flow::manifest::{}", self.code)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        (!self.labels.is_empty()).then_some(&self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// Every flaw of a manifest, by file and offset. Never empty.
#[derive(Clone, Debug, Default)]
pub struct Flaws {
    manifest: String,
    flaws: Vec<Flaw>,
    unseen: usize,
}

impl Flaws {
    /// The flaws, by file and offset.
    #[must_use]
    pub fn flaws(&self) -> &[Flaw] {
        &self.flaws
    }
}

impl fmt::Display for Flaws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flaws.len() + self.unseen {
            1 => write!(f, "{} has a flaw", self.manifest)?,
            n => write!(f, "{} has {n} flaws", self.manifest)?,
        }
        if self.unseen > 0 {
            write!(f, ", of which the first {SHOWN} are shown")?;
        }
        Ok(())
    }
}

impl std::error::Error for Flaws {}

impl Diagnostic for Flaws {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new("flow::manifest"))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.flaws.iter().map(|flaw| flaw as &dyn Diagnostic)))
    }
}

/// A flaw before its file is looked up.
#[derive(Debug)]
pub(super) struct Draft {
    code: &'static str,
    place: Place,
    message: String,
    label: String,
    help: Option<String>,
    other: Option<(Place, String)>,
}

impl Draft {
    /// A flaw at a place.
    pub(super) fn new(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self { code, place, message: message.into(), label: "here".into(), help: None, other: None }
    }

    /// What stands under the underlined text.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A second place that belongs to it: `first here`.
    pub(super) fn other(mut self, place: Place, label: impl Into<String>) -> Self {
        self.other = Some((place, label.into()));
        self
    }
}

/// Collects flaws, notices and the files that were read.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Where files are read.
    pub(super) version: Version,
    /// What for.
    pub(super) purpose: Purpose,
    drafts: RefCell<Vec<Draft>>,
    unseen: Cell<usize>,
    files: RefCell<Vec<SourceFile>>,
    hidden: RefCell<Vec<Place>>,
    notices: RefCell<Vec<Spanned<String>>>,
}

impl Report {
    /// An empty one of a version of the project's files.
    pub(super) fn of(version: Version, purpose: Purpose) -> Self {
        Self { version, purpose, ..Self::default() }
    }

    /// Takes a flaw.
    pub(super) fn add(&self, draft: Draft) {
        let mut drafts = self.drafts.borrow_mut();
        // Twice the bound, so that sorting by place can still choose what is shown.
        if drafts.len() < 2 * SHOWN {
            drafts.push(draft);
        } else {
            self.unseen.set(self.unseen.get() + 1);
        }
    }

    /// Takes a notice.
    pub(super) fn notice(&self, place: Place, text: String) {
        self.notices.borrow_mut().push(Spanned { value: text, place });
    }

    /// A stretch that no report may show: it looks like a secret.
    pub(super) fn hide(&self, place: Place) {
        self.hidden.borrow_mut().push(place);
    }

    /// Whether there is a flaw of a code so far.
    pub(super) fn has(&self, code: &str) -> bool {
        self.drafts.borrow().iter().any(|draft| draft.code == code)
    }

    /// Whether there is no flaw so far.
    pub(super) fn is_clean(&self) -> bool {
        self.drafts.borrow().is_empty()
    }

    /// Adds a file and gives its index.
    pub(super) fn add_file(&self, path: PathBuf, name: String, text: Arc<str>) -> usize {
        let mut files = self.files.borrow_mut();
        files.push(SourceFile { path, name, text });
        files.len() - 1
    }

    /// The folder of the manifest itself.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        Some(self.files.borrow().first()?.path.parent()?.to_owned())
    }

    /// A path that a file says, as the person who named the manifest would write it.
    pub(super) fn shown(&self, file: usize, written: &str) -> String {
        let files = self.files.borrow();
        let dir = files.get(file).and_then(|file| Path::new(&file.name).parent()).unwrap_or(Path::new(""));
        super::node::clean(&dir.join(written)).to_string_lossy().into_owned()
    }

    /// `steps/standard.kdl:12`.
    pub(super) fn position(&self, place: Place) -> String {
        let files = self.files.borrow();
        let Some(file) = files.get(place.file) else { return String::new() };
        let before = file.text.as_bytes().get(..place.offset).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        format!("{}:{line}", file.name)
    }

    /// The files and notices, if there is no flaw; else all flaws.
    pub(super) fn finish(self) -> Result<(Vec<SourceFile>, Vec<Spanned<String>>), Flaws> {
        if self.is_clean() {
            return Ok((self.files.into_inner(), self.notices.into_inner()));
        }
        let mut drafts = std::mem::take(&mut *self.drafts.borrow_mut());
        drafts.sort_by_key(|draft| (draft.place.file, draft.place.offset));
        let unseen = self.unseen.get() + drafts.len().saturating_sub(SHOWN);
        drafts.truncate(SHOWN);
        let sources = self.sources();
        let flaws = drafts.into_iter().map(|draft| self.resolve(draft, &sources)).collect();
        let manifest = self.files.borrow().first().map(|file| file.name.clone()).unwrap_or_default();
        Err(Flaws { manifest, flaws, unseen })
    }

    fn sources(&self) -> Vec<NamedSource<Arc<str>>> {
        let hidden = self.hidden.borrow();
        let files = self.files.borrow();
        let masked = files.iter().enumerate().map(|(index, file)| {
            let mut text = file.text.clone();
            for place in hidden.iter().filter(|place| place.file == index) {
                let range = place.offset..place.offset + place.len;
                if text.get(range.clone()).is_some() {
                    let mut owned = text.to_string();
                    owned.replace_range(range, &"*".repeat(place.len));
                    text = owned.into();
                }
            }
            if text.chars().any(is_raw) {
                // As long as before, for the marks' sake.
                let tame = |c: char| if is_raw(c) { "?".repeat(c.len_utf8()) } else { c.to_string() };
                text = text.chars().map(tame).collect::<String>().into();
            }
            NamedSource::new(&file.name, text)
        });
        masked.collect()
    }

    fn resolve(&self, draft: Draft, sources: &[NamedSource<Arc<str>>]) -> Flaw {
        let mut source = sources.get(draft.place.file).cloned().unwrap_or_else(|| NamedSource::new("", Arc::from("")));
        let text = source.inner().clone();
        let span = |place: Place| {
            let start = floor(&text, place.offset.min(text.len()));
            start..floor(&text, (start + place.len).min(text.len())).max(start)
        };
        let mut help = draft.help.map(|help| tamed(&help, LONG_EXAMPLE));
        // An empty file has nothing to underline.
        let mut marked = Vec::new();
        if !text.is_empty() {
            marked.push((tamed(&draft.label, LONG_VALUE), span(draft.place)));
        }
        if let Some((place, label)) = draft.other {
            if place.file == draft.place.file {
                marked.push((tamed(&label, LONG_VALUE), span(place)));
            } else {
                // A snippet shows one file only, so the other place is said in words.
                let said = format!("{label}: {}", self.position(place));
                help = Some(help.map_or(said.clone(), |help| format!("{help}\n{said}")));
            }
        }
        if let Some(short) = without_long_lines(&text, &mut marked) {
            source = NamedSource::new(source.name(), short.into());
        }
        let labels = marked.into_iter().enumerate().map(|(number, (label, range))| {
            let span = SourceSpan::new(range.start.into(), range.len());
            if number == 0 {
                LabeledSpan::new_primary_with_span(Some(label), span)
            } else {
                LabeledSpan::new_with_span(Some(label), span)
            }
        });
        let labels = labels.collect();
        let message = tamed(&draft.message, LONG_VALUE);
        Flaw { message, code: draft.code, labels, help, source, place: draft.place }
    }
}

/// More characters of a value that a message quotes are not shown.
const LONG_VALUE: usize = 80;
/// The same of what a help quotes, which may be something to be copied.
const LONG_EXAMPLE: usize = 400;
/// The most characters of a message.
const LONG_TEXT: usize = 4000;

/// A text that may quote a manifest's values, for a terminal: without their control characters, and each cut to a length.
fn tamed(text: &str, longest: usize) -> String {
    let mut tame = String::with_capacity(text.len().min(LONG_TEXT));
    for (number, part) in text.split('`').enumerate() {
        if number > 0 {
            tame.push('`');
        }
        // What stands between a first and a second tick is quoted.
        let quoted = number % 2 == 1;
        if quoted && part.chars().nth(longest).is_some() {
            tame.extend(part.chars().take(longest));
            tame.push('…');
        } else {
            tame.push_str(part);
        }
    }
    if tame.chars().nth(LONG_TEXT).is_some() {
        tame = tame.chars().take(LONG_TEXT).chain(['…']).collect();
    }
    harmless(&tame)
}

/// Whether a character of a file would do something to a terminal.
fn is_raw(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

/// More bytes of one line than this are not shown.
const LONG_LINE: usize = 1000;

/// The text with its very long lines cut to what is around the first mark in them, and the marks moved along; `None` if no line
/// is long. A line that nobody could read would fill the screen.
fn without_long_lines(text: &str, marked: &mut [(String, std::ops::Range<usize>)]) -> Option<String> {
    if text.split('\n').all(|line| line.len() <= LONG_LINE) {
        return None;
    }
    let mut short = String::with_capacity(text.len().min(1 << 16));
    let mut moved: Vec<std::ops::Range<usize>> = marked.iter().map(|(_, range)| range.clone()).collect();
    let mut begin = 0;
    for line in text.split_inclusive('\n') {
        let end = begin + line.len();
        let (mut from, mut to) = (begin, end);
        if line.len() > LONG_LINE {
            let first = marked.iter().map(|(_, range)| range.start).find(|start| (begin..end).contains(start));
            from = floor(text, first.unwrap_or(begin).saturating_sub(LONG_LINE / 10).max(begin));
            to = floor(text, (from + LONG_LINE / 2).min(end));
        }
        let at = |offset: usize| short.len() + offset.clamp(from, to) - from;
        for ((_, old), new) in marked.iter().zip(&mut moved) {
            if (begin..end).contains(&old.start) {
                new.start = at(old.start);
            }
            if (begin..=end).contains(&old.end) {
                new.end = at(old.end);
            }
        }
        short.push_str(&text[from..to]);
        if to < end && line.ends_with('\n') {
            short.push('\n');
        }
        begin = end;
    }
    for ((_, range), new) in marked.iter_mut().zip(moved) {
        let start = new.start.min(short.len());
        *range = start..new.end.clamp(start, short.len());
    }
    Some(short)
}

fn floor(text: &str, mut at: usize) -> usize {
    while at > 0 && !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The known name that was most likely meant.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let scored = known.into_iter().filter(|other| *other != name).map(|other| {
        let distance = strsim::damerau_levenshtein(&lower, &other.to_lowercase());
        (distance, strsim::jaro_winkler(&lower, other), other)
    });
    let close = scored.filter(|(distance, likeness, other)| {
        *distance <= (name.len().max(other.len()) / 3).max(1) || (*likeness > 0.9 && *distance <= 4)
    });
    close.min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1))).map(|(_, _, other)| other)
}

/// Help for an unknown name: the nearest, or all there are.
pub(super) fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, what: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    match known.as_slice() {
        [] => format!("there is no {what} here at all"),
        some if some.len() <= 30 => format!("there is {}", list(some.iter().copied())),
        some => format!("there are {} of them, none like `{name}`", some.len()),
    }
}

/// `` `a`, `b` and `c` ``.
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
