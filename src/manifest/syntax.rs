//! KDL's own errors as flaws: with the file's name, mended spans, and hints for what trips people.
//!
//! Guards the parser against texts that would exhaust the stack. Knows nothing of the grammar.

use kdl::{KdlDiagnostic, KdlDocument};

use super::Place;
use super::flaw::{Draft, Report};

/// Deeper than this nobody writes; the parser recurses.
const DEPTH: usize = 64;

/// Parses a text, or reports what is wrong with it.
pub(super) fn parse(text: &str, file: usize, report: &Report) -> Option<KdlDocument> {
    if let Some(offset) = too_deep(text) {
        let place = Place { file, offset, len: 1 };
        report.add(
            Draft::new("too-deep", place, format!("braces or comments are nested more than {DEPTH} deep"))
                .help("a manifest needs five levels"),
        );
        return None;
    }
    let error = match KdlDocument::parse_v2(text) {
        Ok(document) => return Some(document),
        Err(error) => error,
    };
    // After a first error the parser often says what only follows from it.
    let follows = |d: &KdlDiagnostic| {
        let message = d.message.as_deref().unwrap_or_default();
        message.contains("end of document") || message.contains("Closing '}'")
    };
    let firm: Vec<&KdlDiagnostic> = error.diagnostics.iter().filter(|d| !follows(d)).collect();
    let shown = if firm.is_empty() { error.diagnostics.iter().collect() } else { firm };
    for diagnostic in shown {
        report.add(draft(diagnostic, text, file));
    }
    if report.is_clean() {
        let place = Place { file, offset: 0, len: 0 };
        report.add(Draft::new("syntax", place, "this is not KDL"));
    }
    None
}

fn draft(diagnostic: &KdlDiagnostic, text: &str, file: usize) -> Draft {
    let place = place(diagnostic, text, file);
    let word = text.get(place.offset..place.offset + place.len).unwrap_or_default();
    let bare = word.rsplit('=').next().unwrap_or(word).trim();
    let said = diagnostic.message.clone().unwrap_or_else(|| "this is not KDL".into());
    let (message, help) = if let "true" | "false" | "null" = bare {
        (format!("`{bare}` is written `#{bare}` in KDL"), Some(format!("write #{bare}, or \"{bare}\" for the text")))
    } else if bare.starts_with(|c: char| c.is_ascii_digit()) && !bare.contains(char::is_whitespace) {
        (
            format!("`{bare}` begins like a number and is none"),
            Some(format!("what begins with a digit stands in quotes: \"{bare}\"")),
        )
    } else if bare.contains('/') && !bare.contains(['"', '\n', '{']) {
        (format!("`{bare}` cannot stand without quotes"), Some(format!("put it in quotes: \"{bare}\"")))
    } else if said.starts_with("No closing '}'") {
        (
            "this `{` is never closed, or something in it cannot be read".into(),
            Some("close it with `}`; a word with `/` or a leading digit inside it must be in quotes".into()),
        )
    } else {
        (said, diagnostic.help.clone())
    };
    let draft = Draft::new("syntax", place, message).label(diagnostic.label.clone().unwrap_or_else(|| "here".into()));
    match help {
        Some(help) => draft.help(help),
        None => draft,
    }
}

/// The parser blames a bad property's value from byte 0 on: keep the last line of such a span.
fn place(diagnostic: &KdlDiagnostic, text: &str, file: usize) -> Place {
    let start = diagnostic.span.offset().min(text.len());
    let end = (start + diagnostic.span.len()).min(text.len());
    let covered = text.as_bytes().get(start..end).unwrap_or_default();
    let from = match covered.iter().rposition(|&b| b == b'\n') {
        Some(newline) if start == 0 && newline + 1 < covered.len() => newline + 1,
        _ => start,
    };
    // Without the indentation and without what follows on other lines.
    let kept = text.as_bytes().get(from..end).unwrap_or_default();
    let blank = kept.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let from = if blank < kept.len() { from + blank } else { from };
    let kept = text.as_bytes().get(from..end).unwrap_or_default();
    let len = kept.iter().position(|&b| b == b'\n').unwrap_or(kept.len());
    Place { file, offset: from, len }
}

/// Where braces or block comments nest too deeply. It counts those in strings too: harmless, since they pair there.
fn too_deep(text: &str) -> Option<usize> {
    let (mut braces, mut comments) = (0_usize, 0_usize);
    let bytes = text.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        match (b, bytes.get(i + 1)) {
            (b'{', _) => braces += 1,
            (b'}', _) => braces = braces.saturating_sub(1),
            (b'/', Some(b'*')) => comments += 1,
            (b'*', Some(b'/')) => comments = comments.saturating_sub(1),
            _ => {}
        }
        if braces > DEPTH || comments > DEPTH {
            return Some(i);
        }
    }
    None
}
