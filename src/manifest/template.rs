//! Texts with holes: `"{commit.id8}.py"`. Substituted once, no expressions; `{{` and `}}` are literal braces.

use std::fmt;

/// A text with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// A name in braces.
    Hole(String),
}

/// The text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// `{` without `}`.
    #[error("`{{` at byte {0} is not closed; write `{{{{` for a brace")]
    Open(usize),
    /// `}` without `{`.
    #[error("`}}` at byte {0} closes nothing; write `}}}}` for a brace")]
    Close(usize),
    /// `{}` or a hole with characters no name has.
    #[error("`{{{0}}}` is not a name")]
    Name(String),
}

impl Template {
    /// Parses a text.
    ///
    /// # Errors
    /// If a brace is not paired or a hole is no name.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        let at = |rest: &str| text.len() - rest.len();
        while let Some(i) = rest.find(['{', '}']) {
            literal.push_str(&rest[..i]);
            let brace = &rest[i..=i];
            let after = &rest[i + 1..];
            if after.starts_with(brace) {
                literal.push_str(brace);
                rest = &after[1..];
            } else if brace == "}" {
                return Err(BadTemplate::Close(at(&rest[i..])));
            } else {
                let end = after.find('}').ok_or(BadTemplate::Open(at(&rest[i..])))?;
                let name = &after[..end];
                let fine =
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
                if !fine {
                    return Err(BadTemplate::Name(name.to_owned()));
                }
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Hole(name.to_owned()));
                rest = &after[end + 1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// A text without holes.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Self { parts: if text.is_empty() { Vec::new() } else { vec![Part::Text(text.to_owned())] } }
    }

    /// The pieces.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The names in the holes, in order.
    pub fn holes(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The name if the template is one hole and nothing else.
    #[must_use]
    pub fn sole_hole(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Hole(name)] => Some(name),
            _ => None,
        }
    }

    /// Fills the holes, once: what is put in is not looked at again.
    ///
    /// # Errors
    /// What `value` says of a name it does not know.
    pub fn fill<E>(&self, mut value: impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Hole(name) => text.push_str(&value(name)?),
            }
        }
        Ok(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Hole(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holes_are_filled_once() {
        let template = Template::parse("a{x}b{{y}}{x.z-1}").unwrap();
        let filled = template.fill(|name| Ok::<_, ()>(format!("<{{{name}}}>"))).unwrap();
        assert_eq!(filled, "a<{x}>b{y}<{x.z-1}>");
    }

    #[test]
    fn braces_must_pair() {
        assert_eq!(Template::parse("a{b"), Err(BadTemplate::Open(1)));
        assert_eq!(Template::parse("a}b"), Err(BadTemplate::Close(1)));
        assert_eq!(Template::parse("{}"), Err(BadTemplate::Name(String::new())));
        assert_eq!(Template::parse("{a b}"), Err(BadTemplate::Name("a b".into())));
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_back(text in "[a{}. é]{0,12}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()).unwrap(), template);
            }
        }
    }
}
