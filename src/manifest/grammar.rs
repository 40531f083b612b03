//! The grammar's own words: places, types, arguments, properties; what a form of the table is made of.
//!
//! The table itself is `forms`. Nothing here looks at a manifest.

use super::Kind;
pub(super) use super::forms::{LATER, forms};

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum In {
    /// At the top of a file.
    File,
    /// In `pipeline`.
    Pipeline,
    /// In `repo`.
    Repo,
    /// In `commits`.
    Commits,
    /// In `tests`.
    Tests,
    /// In `candidate`.
    Candidate,
    /// In `config`.
    Config,
    /// In `slots`.
    Slots,
    /// In `goals`.
    Goals,
    /// In `tool`.
    Tool,
    /// In `agent` at the top of a file.
    Agent,
    /// In `reading`.
    Reading,
    /// In a node of `reading` that finds text.
    Finder,
    /// In `usage` in `reading`.
    Usage,
    /// In `recipe` at the top of a file.
    Recipe,
    /// In `when` of a recipe.
    When,
    /// In `provider`.
    Provider,
    /// In `on`.
    On,
    /// In `asset`.
    Asset,
    /// In `secret`.
    Secret,
    /// In `prices`.
    Prices,
    /// In `model` of `prices`.
    Price,
    /// In `protocol`.
    Protocol,
    /// In `service`.
    Service,
    /// In a file of rulings.
    Rulings,
    /// In a file of vetted commits.
    Vetted,
    /// In a step of a kind.
    Step(Kind),
    /// In a step whose kind is not known.
    AnyStep,
    /// In a node that has no children.
    Nowhere,
}

/// What an argument or a property may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ty {
    /// A name.
    Name,
    /// A name that stands in braces.
    HoleName,
    /// The name of an environment variable.
    Variable,
    /// A text.
    Text,
    /// A text with holes.
    Template,
    /// A path without holes.
    Path,
    /// A commit id.
    Commit,
    /// A whole number within bounds.
    Whole(i128, i128),
    /// `#true` or `#false`.
    Flag,
    /// A length of time.
    Span,
    /// A size in bytes.
    Size,
    /// A percentage.
    Percent,
    /// A number of at least 0.
    Number,
    /// A ratio above 1.
    Times,
    /// An amount of dollars.
    Money,
    /// A day.
    Date,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A glob.
    Glob,
    /// Any value.
    Scalar,
    /// `0-3,8`.
    Cores,
    /// A number, or a text with holes that becomes one.
    Count,
    /// `a.b.'c.d'`.
    Dotted,
    /// `step.output`.
    Source,
    /// A regular expression.
    Pattern,
    /// A regular expression with one group, which holds a number.
    Reads,
    /// A pointer into JSON.
    Pointer,
    /// A cause that a reading can give.
    Cause,
}

/// How many of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    /// Exactly one.
    One,
    /// None or one.
    Maybe,
    /// One or more.
    Some,
    /// Any number.
    Any,
}

/// An argument. Only the last of a node may be more than one.
#[derive(Debug)]
pub(super) struct Arg {
    /// What it is called in messages.
    pub(super) what: &'static str,
    /// Its type.
    pub(super) ty: Ty,
    /// How many.
    pub(super) many: Many,
}

/// A property.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prop {
    /// Its name.
    pub(super) name: &'static str,
    /// Its type.
    pub(super) ty: Ty,
    /// Whether it must be there.
    pub(super) must: bool,
    /// Whether it may be given more than once.
    pub(super) repeat: bool,
}

/// A node of the grammar.
#[derive(Debug)]
pub(super) struct Form {
    /// Its name.
    pub(super) name: &'static str,
    /// Where it may stand.
    pub(super) within: &'static [In],
    /// Its arguments.
    pub(super) args: &'static [Arg],
    /// Its properties.
    pub(super) props: &'static [Prop],
    /// The type of properties with names of the user's own.
    pub(super) open: Option<Ty>,
    /// Whether it may stand more than once beside itself.
    pub(super) repeat: bool,
    /// What its children are.
    pub(super) inner: In,
    /// The children it must have.
    pub(super) must: &'static [&'static str],
    /// What it means, in a line.
    pub(super) meaning: &'static str,
    /// How it looks.
    pub(super) example: &'static str,
}

impl In {
    /// Whether a form may stand here.
    pub(super) fn holds(self, form: &Form) -> bool {
        form.within.iter().any(|&at| at == self || (self == Self::AnyStep && matches!(at, Self::Step(_))))
    }

    /// The form of a name here.
    pub(super) fn form(self, name: &str) -> Option<&'static Form> {
        forms().find(|form| form.name == name && self.holds(form))
    }

    /// The forms that may stand here.
    pub(super) fn forms(self) -> impl Iterator<Item = &'static Form> {
        forms().filter(move |form| self.holds(form))
    }

    /// Where it is, in words.
    pub(super) fn words(self) -> String {
        match self {
            Self::File => "at the top of a file".into(),
            Self::Pipeline => "in a pipeline".into(),
            Self::Repo => "in `repo`".into(),
            Self::Rulings => "in a file of rulings".into(),
            Self::Vetted => "in a file of vetted commits".into(),
            Self::Commits => "in `commits`".into(),
            Self::Tests => "in `tests`".into(),
            Self::Candidate => "in a candidate".into(),
            Self::Config => "in `config`".into(),
            Self::Slots => "in `slots`".into(),
            Self::Goals => "in `goals`".into(),
            Self::Tool => "in a tool".into(),
            Self::Agent => "in an agent".into(),
            Self::Reading => "in `reading`".into(),
            Self::Finder => "in a reader".into(),
            Self::Usage => "in `usage`".into(),
            Self::Recipe => "in a recipe".into(),
            Self::When => "in `when`".into(),
            Self::Provider => "in a provider".into(),
            Self::On => "in `on`".into(),
            Self::Asset => "in an asset".into(),
            Self::Secret => "in `secret`".into(),
            Self::Prices => "in `prices`".into(),
            Self::Price => "in a `model` of `prices`".into(),
            Self::Protocol => "in `protocol`".into(),
            Self::Service => "in `service`".into(),
            Self::Step(kind) => format!("in a step that uses `{}`", kind.word()),
            Self::AnyStep => "in a step".into(),
            Self::Nowhere => "here".into(),
        }
    }
}

impl Ty {
    /// What it is, in words.
    pub(super) fn words(self) -> String {
        match self {
            Self::Name | Self::HoleName => "a name".into(),
            Self::Variable => "the name of a variable".into(),
            Self::Text => "a text".into(),
            Self::Template => "a text, maybe with `{holes}`".into(),
            Self::Path => "a path".into(),
            Self::Commit => "a commit id: 8 to 40 hex digits in quotes".into(),
            Self::Whole(low, high) if low == high => format!("the number {low}"),
            Self::Whole(low, i128::MAX) => format!("a whole number from {low}"),
            Self::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Self::Flag => "`#true` or `#false`".into(),
            Self::Span => "a length of time such as \"10m\"".into(),
            Self::Size => "a size such as \"2MiB\"".into(),
            Self::Money => "an amount such as (usd)12.50".into(),
            Self::Date => "a date such as \"2025-09-29\"".into(),
            Self::Percent => "a percentage such as \"2%\"".into(),
            Self::Number => "a number of at least 0 such as 1e-3".into(),
            Self::Times => "a ratio above 1 such as \"10x\"".into(),
            Self::Word(words) => super::flaw::list(words.iter().copied()).replace(" and ", " or "),
            Self::Glob => "a glob".into(),
            Self::Scalar => "a value".into(),
            Self::Cores => "cores such as \"0-3,8\"".into(),
            Self::Count => "a number, or a text such as \"{commit.gpus}\"".into(),
            Self::Dotted => "a dotted path".into(),
            Self::Source => "`step.output`".into(),
            Self::Pattern => "a regular expression".into(),
            Self::Reads => "a regular expression with one group for the number".into(),
            Self::Pointer => "a pointer such as \"/usage/input\"".into(),
            Self::Cause => "a cause such as QUOTA_EXCEEDED".into(),
        }
    }
}
