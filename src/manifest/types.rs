//! Checks single values against the grammar's types, with a hint for what trips people.
//!
//! Gives no values: the silent getters of `node` do. Knows nothing of nodes beyond the form that it quotes as an example.

use kdl::KdlValue;

use super::Template;
use super::flaw::{Draft, Report, list, suggest};
use super::grammar::{Form, Ty};
use super::money::parse_date;
use super::node::{Value, parse_money, parse_percent, parse_size, parse_span, parse_times};
use crate::agent::{Pattern, Pointer, readable};
use crate::measure;
use crate::names::check_name;
use crate::outcome::Cause;

/// Checks a value against a type.
pub(super) fn typed(value: Value<'_>, ty: Ty, subject: &str, form: &Form, report: &Report) {
    let wrong = |help: Option<String>| {
        let found = match value.raw() {
            KdlValue::String(_) => "a text",
            KdlValue::Integer(_) | KdlValue::Float(_) => "a number",
            KdlValue::Bool(_) => "a flag",
            KdlValue::Null => "`#null`",
        };
        let code = if ty == Ty::Commit { "commit-as-number" } else { "wrong-type" };
        let code = if matches!(value.raw(), KdlValue::Integer(_) | KdlValue::Float(_)) { code } else { "wrong-type" };
        let message = if code == "commit-as-number" {
            format!("`{}` is a number: a commit id is a text in quotes", value.written())
        } else {
            format!("{subject} must be {}", ty.words())
        };
        report.add(
            Draft::new(code, value.place(), message)
                .label(format!("this is {found}"))
                .help(help.unwrap_or_else(|| format!("it is written: {}", form.example))),
        );
    };
    let bad = |code: &'static str, message: String, help: Option<String>| {
        report.add(
            Draft::new(code, value.place(), message)
                .label(format!("not {}", ty.words()))
                .help(help.unwrap_or_else(|| format!("it is written: {}", form.example))),
        );
    };
    let written = value.written();
    if value.str().is_some() && written.len() > 1 && written.starts_with('\'') && written.ends_with('\'') {
        report.add(
            Draft::new("single-quotes", value.place(), "single quotes are part of the word in KDL")
                .label("the quotes would be kept")
                .help(format!("use double quotes: \"{}\"", written.trim_matches('\''))),
        );
        return;
    }
    if ty == Ty::Scalar {
        return;
    }
    if value.str().is_some_and(|text| text == "~" || text.starts_with("~/")) && is_path(ty, form) {
        let help = match ty {
            Ty::Template => "write \"{var.HOME}/…\", which is filled from the variable HOME",
            _ => "write the path from the root on, or from the folder of this file on",
        };
        report.add(
            Draft::new("home", value.place(), format!("{subject}: `~` is a shell's word, and is not expanded here"))
                .label("a folder of that name is looked for")
                .help(help),
        );
        return;
    }
    if let Ty::Whole(low, high) = ty {
        match value.raw() {
            KdlValue::Integer(n) if (low..=high).contains(n) => {}
            KdlValue::Integer(n) => bad("out-of-range", format!("{subject} is {n}, not {}", ty.words()), None),
            KdlValue::String(text) if text.parse::<i128>().is_ok() => {
                wrong(Some(format!("write it without quotes: {text}")));
            }
            KdlValue::String(text) if text.contains('{') => {
                wrong(Some("a number is written out here; holes are for texts".into()));
            }
            _ => wrong(None),
        }
        return;
    }
    if ty == Ty::Money {
        if let Err(message) = parse_money(value) {
            bad("bad-amount", format!("{subject}: {message}"), Some(format!("it is written: {}", form.example)));
        }
        return;
    }
    if ty == Ty::Number {
        match value.number() {
            Some(_) => {}
            None if value.str().is_some() => wrong(Some("write it without quotes".into())),
            None => bad("out-of-range", format!("{subject} must be {}", ty.words()), None),
        }
        return;
    }
    if ty == Ty::Flag {
        if value.flag().is_none() {
            wrong(Some(match value.str() {
                Some(word @ ("true" | "false")) => format!("write #{word}, without quotes"),
                _ => "write #true or #false".into(),
            }));
        }
        return;
    }
    if ty == Ty::Count
        && let KdlValue::Integer(n) = value.raw()
    {
        if !(1..=1000).contains(n) {
            bad("out-of-range", format!("{subject} is {n}, not a number from 1 to 1000"), None);
        }
        return;
    }
    let Some(text) = value.str() else {
        let quoted = format!("\"{}\"", value.written());
        wrong(match (ty, value.raw()) {
            (Ty::Commit, KdlValue::Integer(_) | KdlValue::Float(_)) => {
                Some(format!("KDL reads digits as a number and loses zeros: put the id in quotes, {quoted}"))
            }
            (Ty::Span | Ty::Size | Ty::Percent | Ty::Times, KdlValue::Integer(_) | KdlValue::Float(_)) => {
                let units: &[&str] = match ty {
                    Ty::Span => &["s", "m", "h"],
                    Ty::Size => &["kB", "MiB"],
                    Ty::Times => &["x"],
                    _ => &["%"],
                };
                let forms: Vec<String> = units.iter().map(|unit| format!("\"{}{unit}\"", value.written())).collect();
                Some(format!("say the unit, in quotes: {}", forms.join(" or ")))
            }
            (_, KdlValue::Integer(_) | KdlValue::Float(_)) => Some(format!("put it in quotes: {quoted}")),
            _ => None,
        });
        return;
    };
    let name_help = |error: &crate::names::BadName| {
        report.add(
            Draft::new("bad-name", value.place(), error.to_string())
                .label("not a name")
                .help("rename it, for example with `-` in place of other characters"),
        );
    };
    match ty {
        Ty::Name => {
            if let Err(error) = check_name(text) {
                name_help(&error);
            }
        }
        Ty::HoleName => match check_name(text) {
            Err(error) => name_help(&error),
            Ok(()) if text.contains(['+', '@', '.']) && form.name != "tool" || text.contains(['+', '@']) => bad(
                "bad-name",
                format!("`{text}` is used in braces, where `+`, `@` and `.` cannot stand"),
                Some("rename it with letters, digits, `-` and `_`".into()),
            ),
            Ok(()) => {}
        },
        Ty::Variable => variable(value, text, report),
        Ty::Template => {
            if let Err(error) = Template::parse(text) {
                bad("bad-template", error.to_string(), Some("a hole is a name in braces: \"{commit.id8}\"".into()));
            } else if text.contains('\0') {
                bad("bad-text", format!("{subject} holds a NUL"), None);
            }
        }
        Ty::Text | Ty::Path => {
            if text.is_empty() {
                bad("bad-text", format!("{subject} is empty"), None);
            } else if text.contains('\0') {
                bad("bad-text", format!("{subject} holds a NUL"), None);
            }
        }
        Ty::Commit => {
            if let Some((message, help)) = commit_flaw(text) {
                bad("bad-commit", message, Some(help));
            }
        }
        Ty::Span => {
            if let Err(message) = parse_span(text) {
                bad("bad-unit", message, None);
            }
        }
        Ty::Size => {
            if let Err(message) = parse_size(text) {
                bad("bad-unit", message, None);
            }
        }
        Ty::Date => {
            if let Err(message) = parse_date(text) {
                bad("bad-date", message, None);
            }
        }
        Ty::Percent => {
            if let Err(message) = parse_percent(text) {
                bad("bad-unit", message, None);
            }
        }
        Ty::Times => {
            if let Err(message) = parse_times(text) {
                bad("bad-unit", message, None);
            }
        }
        Ty::Word(words) => {
            if !words.contains(&text) {
                let help = suggest(text, words.iter().copied(), "word");
                bad("unknown-word", format!("{subject} cannot be `{text}`"), Some(help));
            }
        }
        Ty::Glob => {
            if text.trim_matches('/').trim().is_empty() {
                bad("bad-glob", format!("`{text}` would match every path"), None);
            } else if text.starts_with('!') {
                bad("bad-glob", format!("`{text}` negates, which is not supported"), None);
            } else if let Err(error) = globset::Glob::new(text) {
                bad("bad-glob", error.to_string(), None);
            }
        }
        Ty::Cores => {
            if let Err(message) = parse_cores(text) {
                bad("bad-cores", message, None);
            }
        }
        Ty::Count => match Template::parse(text) {
            Err(error) => bad("bad-template", error.to_string(), None),
            Ok(template) if template.holes().next().is_none() => {
                wrong(text.parse::<u32>().ok().map(|n| format!("write it without quotes: {n}")));
            }
            Ok(_) => {}
        },
        Ty::Dotted => {
            if split_dotted(text).is_none() {
                bad("bad-path", format!("`{text}` is no dotted path"), None);
            }
        }
        Ty::Source => {
            if split_source(text).is_none() {
                bad("bad-source", format!("`{text}` is not `step.output`"), None);
            }
        }
        Ty::Pattern => {
            if let Err(error) = Pattern::new(text) {
                bad("bad-pattern", format!("`{text}` is no regular expression: {error}"), None);
            }
        }
        Ty::Reads => {
            if let Err(error) = measure::Pattern::new(text) {
                let help = match error {
                    measure::pattern::BadPattern::Groups { .. } => {
                        "put the number in brackets, and write other groups as (?:…)"
                    }
                    _ => "in quotes a backslash is written twice; #\"…\"# takes the text as it stands",
                };
                bad("bad-pattern", error.to_string(), Some(help.into()));
            }
        }
        Ty::Pointer => {
            if let Err(error) = Pointer::parse(text) {
                bad("bad-pointer", error.to_string(), Some(format!("write it as \"/{text}\"")));
            }
        }
        Ty::Cause => {
            let known = || Cause::ALL.iter().copied().filter(|cause| readable(*cause));
            if !known().any(|cause| cause.name() == text) {
                let help = if Cause::ALL.iter().any(|cause| cause.name() == text) {
                    format!("flow itself finds {text}; a reading can give {}", list(known().map(Cause::name)))
                } else {
                    suggest(text, known().map(Cause::name), "cause")
                };
                bad("unknown-cause", format!("{subject} cannot be `{text}`"), Some(help));
            }
        }
        Ty::Scalar | Ty::Whole(..) | Ty::Flag | Ty::Number | Ty::Money => {}
    }
}

/// Whether a text is a path on this machine by what it is for. An argument or a variable's value is its program's to read.
fn is_path(ty: Ty, form: &Form) -> bool {
    match ty {
        Ty::Path => true,
        Ty::Template => {
            ["tool", "source", "watch", "file", "config", "tests", "prompt", "expires"].contains(&form.name)
        }
        Ty::Text => form.name == "repo",
        _ => false,
    }
}

/// What is wrong with a commit id, and what to do.
pub(super) fn commit_flaw(text: &str) -> Option<(String, String)> {
    if (8..=40).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let help = if text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len() < 8 {
        "give at least 8 digits, better all 40".into()
    } else if text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len() <= 40 {
        format!("write it in lower case: {}", text.to_lowercase())
    } else {
        "branches, tags and `HEAD~1` move: name the commit itself, `git rev-parse` tells it".into()
    };
    let shown: String = text.chars().take(60).collect();
    Some((format!("`{shown}` is no commit id: 8 to 40 lower-case hex digits"), help))
}

fn variable(value: Value<'_>, text: &str, report: &Report) {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit());
    let draft = |message: String| Draft::new("bad-variable", value.place(), message);
    if !plain {
        report.add(
            draft(format!("`{text}` is no name of a variable"))
                .label("letters, digits and `_`")
                .help("a name such as HF_HOME"),
        );
    } else if text.starts_with("FLOW_") || matches!(text, "CUDA_VISIBLE_DEVICES" | "CUDA_DEVICE_ORDER") {
        report.add(
            draft(format!("flow sets `{text}` itself"))
                .label("reserved")
                .help("leave it out; a GPU is chosen by `holds`"),
        );
    }
}

/// Reads `0-3,8`.
pub(super) fn parse_cores(text: &str) -> Result<Vec<u32>, String> {
    let bad = || format!("`{text}` is no list of cores such as \"0-3,8\"");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (low.trim().parse::<u32>(), high.trim().parse::<u32>());
        let (Ok(low), Ok(high)) = (low, high) else { return Err(bad()) };
        if low > high || high > 65_535 {
            return Err(bad());
        }
        for core in low..=high {
            if cores.contains(&core) {
                return Err(format!("core {core} stands in \"{text}\" twice"));
            }
            cores.push(core);
        }
    }
    Ok(cores)
}

/// Splits `a.'b.c'.d`.
pub(super) fn split_dotted(text: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    let mut rest = text;
    loop {
        let (segment, after) = if let Some(quoted) = rest.strip_prefix('\'') {
            quoted.split_once('\'')?
        } else {
            rest.split_at(rest.find('.').unwrap_or(rest.len()))
        };
        if segment.is_empty() {
            return None;
        }
        segments.push(segment.to_owned());
        if after.is_empty() {
            return Some(segments);
        }
        rest = after.strip_prefix('.')?;
    }
}

/// Splits `step.output`; the output is what follows the last dot.
pub(super) fn split_source(text: &str) -> Option<(&str, &str)> {
    let (step, output) = text.rsplit_once('.')?;
    (check_name(step).is_ok() && check_name(output).is_ok()).then_some((step, output))
}
