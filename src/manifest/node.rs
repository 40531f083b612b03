//! Small typed helpers over `KdlNode`: arguments, properties, children, places.
//!
//! Getters are silent: they give `None` for what is not of the asked type, because `shape` has already reported it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kdl::{KdlEntry, KdlNode, KdlValue};
use miette::SourceSpan;

use super::{Place, Spanned, Template};
use crate::units::{BadUnit, Percent, Size, Span, Usd};

/// A limit beyond this is a slip.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// The file that a node stands in.
#[derive(Debug)]
pub(super) struct Scope {
    /// Index into the manifest's files.
    pub(super) file: usize,
    /// Its folder, absolute: relative paths are relative to it.
    pub(super) dir: PathBuf,
}

impl Scope {
    /// The place of a span.
    pub(super) fn place(&self, span: SourceSpan) -> Place {
        Place { file: self.file, offset: span.offset(), len: span.len() }
    }

    /// A path of the file made absolute.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        clean(&self.dir.join(text))
    }
}

/// A path without `.` and, as far as the text alone tells, without `..`.
pub(crate) fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// A node and the file it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    /// The node.
    pub(super) raw: &'a KdlNode,
    /// Its file.
    pub(super) scope: &'a Scope,
}

impl<'a> Node<'a> {
    /// Its name.
    pub(super) fn name(self) -> &'a str {
        self.raw.name().value()
    }

    /// Where its name is.
    pub(super) fn place(self) -> Place {
        self.scope.place(self.raw.name().span())
    }

    /// Its arguments and properties, in order.
    pub(super) fn entries(self) -> impl Iterator<Item = Value<'a>> {
        self.raw.entries().iter().map(move |entry| Value { entry, scope: self.scope })
    }

    /// Its arguments.
    pub(super) fn args(self) -> impl Iterator<Item = Value<'a>> {
        self.entries().filter(|value| value.entry.name().is_none())
    }

    /// Its n-th argument.
    pub(super) fn arg(self, n: usize) -> Option<Value<'a>> {
        self.args().nth(n)
    }

    /// A property.
    pub(super) fn prop(self, name: &str) -> Option<Value<'a>> {
        self.entries().find(|value| value.key() == Some(name))
    }

    /// A property that may be given more than once.
    pub(super) fn props(self, name: &'a str) -> impl Iterator<Item = Value<'a>> {
        self.entries().filter(move |value| value.key() == Some(name))
    }

    /// Its children.
    pub(super) fn children(self) -> impl Iterator<Item = Node<'a>> {
        let nodes = self.raw.children().map_or(&[][..], |document| document.nodes());
        nodes.iter().map(move |raw| Node { raw, scope: self.scope })
    }

    /// Its children of one name.
    pub(super) fn all(self, name: &'a str) -> impl Iterator<Item = Node<'a>> {
        self.children().filter(move |child| child.name() == name)
    }

    /// Its first child of a name.
    pub(super) fn child(self, name: &str) -> Option<Node<'a>> {
        self.children().find(|child| child.name() == name)
    }

    /// Its first argument as a text.
    pub(super) fn text(self) -> Option<Spanned<String>> {
        self.arg(0)?.text()
    }

    /// Its arguments as texts.
    pub(super) fn texts(self) -> Vec<Spanned<String>> {
        self.args().filter_map(Value::text).collect()
    }

    /// Its arguments as templates.
    pub(super) fn templates(self) -> Vec<Spanned<Template>> {
        self.args().filter_map(Value::template).collect()
    }
}

/// An argument or a property, and the file it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    /// The entry.
    pub(super) entry: &'a KdlEntry,
    /// Its file.
    pub(super) scope: &'a Scope,
}

impl<'a> Value<'a> {
    /// The name if it is a property.
    pub(super) fn key(self) -> Option<&'a str> {
        self.entry.name().map(kdl::KdlIdentifier::value)
    }

    /// The value.
    pub(super) fn raw(self) -> &'a KdlValue {
        self.entry.value()
    }

    /// The value as it is written.
    pub(super) fn written(self) -> String {
        self.entry.format().map_or_else(|| self.raw().to_string(), |format| format.value_repr.clone())
    }

    /// Where it is; a property with its name.
    pub(super) fn place(self) -> Place {
        self.scope.place(self.entry.span())
    }

    fn spanned<T>(self, value: T) -> Spanned<T> {
        Spanned { value, place: self.place() }
    }

    /// A text.
    pub(super) fn str(self) -> Option<&'a str> {
        self.raw().as_string()
    }

    /// A text and its place.
    pub(super) fn text(self) -> Option<Spanned<String>> {
        Some(self.spanned(self.str()?.to_owned()))
    }

    /// A template and its place.
    pub(super) fn template(self) -> Option<Spanned<Template>> {
        Some(self.spanned(Template::parse(self.str()?).ok()?))
    }

    /// A path made absolute, and its place.
    pub(super) fn path(self) -> Option<Spanned<PathBuf>> {
        Some(self.spanned(self.scope.path(self.str()?)))
    }

    /// A whole number.
    pub(super) fn whole<T: TryFrom<i128>>(self) -> Option<T> {
        T::try_from(self.raw().as_integer()?).ok()
    }

    /// A flag.
    pub(super) fn flag(self) -> Option<bool> {
        self.raw().as_bool()
    }

    /// A length of time.
    pub(super) fn span(self) -> Option<Spanned<Duration>> {
        Some(self.spanned(parse_span(self.str()?).ok()?))
    }

    /// A size in bytes.
    pub(super) fn size(self) -> Option<Spanned<u64>> {
        Some(self.spanned(parse_size(self.str()?).ok()?))
    }

    /// An amount of dollars.
    pub(super) fn money(self) -> Option<Spanned<Usd>> {
        Some(self.spanned(parse_money(self).ok()?))
    }

    /// The first moment of a day in UTC.
    pub(super) fn date(self) -> Option<jiff::Timestamp> {
        super::money::parse_date(self.str()?).ok()
    }

    /// A finite number of at least 0.
    pub(super) fn number(self) -> Option<f64> {
        let number = match self.raw() {
            KdlValue::Float(number) => *number,
            // Nobody's tolerance is beyond what a float holds exactly.
            KdlValue::Integer(number) => f64::from(i32::try_from(*number).ok()?),
            _ => return None,
        };
        (number.is_finite() && number >= 0.0).then_some(number)
    }

    /// A ratio.
    pub(super) fn times(self) -> Option<f64> {
        parse_times(self.str()?).ok()
    }

    /// A percentage as a fraction.
    pub(super) fn percent(self) -> Option<Spanned<f64>> {
        Some(self.spanned(parse_percent(self.str()?).ok()?))
    }
}

/// Reads `"10m"`, `"1h30m"`; nothing shorter than a millisecond and nothing longer than a year.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let Span(span) = text.parse().map_err(|error: BadUnit| error.to_string())?;
    if span.as_millis() == 0 || span > YEAR {
        return Err(format!("`{text}` is not between a millisecond and a year"));
    }
    Ok(span)
}

/// Reads `"2MiB"`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    match text.parse().map_err(|error: BadUnit| error.to_string())? {
        Size(0) => Err("a size of nothing".to_owned()),
        Size(bytes) => Ok(bytes),
    }
}

/// Reads `(usd)12.50` from the digits as they are written: what a float would make of them is not exact.
pub(super) fn parse_money(value: Value<'_>) -> Result<Usd, String> {
    let written = value.written();
    match (value.entry.ty().map(kdl::KdlIdentifier::value), value.raw()) {
        (Some("usd"), KdlValue::Integer(_) | KdlValue::Float(_)) => {
            written.replace('_', "").parse().map_err(|error: BadUnit| error.to_string())
        }
        (Some("usd"), _) => Err(format!("`{written}` is no number")),
        (Some(other), _) => Err(format!("flow counts in dollars, not in `({other})`")),
        (None, _) => Err(format!("an amount says its currency: (usd){}", written.trim_matches('"'))),
    }
}

/// Reads `"10x"` as 10.
pub(super) fn parse_times(text: &str) -> Result<f64, String> {
    let ratio = text.strip_suffix('x').and_then(|number| number.trim_end().parse::<f64>().ok());
    ratio
        .filter(|ratio| ratio.is_finite() && *ratio > 1.0)
        .ok_or_else(|| format!("`{text}` is no ratio above 1 such as \"10x\""))
}

/// Reads `"2%"` as 0.02.
pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let Percent(fraction) = text.parse().map_err(|error: BadUnit| error.to_string())?;
    if fraction > 10.0 { Err(format!("`{text}` is more than 1000%")) } else { Ok(fraction) }
}
