//! KDL's own errors as flaws: with the file's name, mended spans, and hints for what trips people.
//!
//! Guards the parser against texts that would exhaust the stack. Knows nothing of the grammar.

use kdl::{KdlDiagnostic, KdlDocument};

use super::Place;
use super::flaw::{Draft, Report};

/// Deeper than this nobody writes; the parser recurses.
const DEPTH: usize = 64;
/// More `/-` in a row than this nobody writes; the parser takes ever longer for each.
const DASHES: usize = 4;
/// More characters of a word than this are not quoted in a message.
const SHOWN_WORD: usize = 60;

/// Parses a text, or reports what is wrong with it.
pub(super) fn parse(text: &str, file: usize, report: &Report) -> Option<KdlDocument> {
    if let Some(offset) = too_deep(text) {
        let place = Place { file, offset, len: 1 };
        report.add(
            Draft::new("too-deep", place, format!("braces, parentheses or comments are nested more than {DEPTH} deep"))
                .help("a manifest needs five levels, and no `/-` behind another"),
        );
        return None;
    }
    let error = match parse_safely(text) {
        Some(Ok(document)) => return Some(document),
        Some(Err(error)) => error,
        None => {
            let place = Place { file, offset: 0, len: 1 };
            let draft = Draft::new("too-large", place, "there is not enough memory to parse a file of this size");
            report.add(draft.help("put lists of commits into files of their own: `commits file=\"commits.txt\"`"));
            return None;
        }
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

/// The parser begins anew, one call deeper, behind each byte with which it can do nothing. Its stack is as large as a text of
/// such bytes would need, of which a sane text touches next to nothing. `None` if there is no such stack to be had.
fn parse_safely(text: &str) -> Option<Result<KdlDocument, kdl::KdlError>> {
    const PER_BYTE: usize = 4096;
    const LEAST: usize = 8 << 20;
    let stack = LEAST + text.len() * PER_BYTE;
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(stack);
        parser.spawn_scoped(scope, || KdlDocument::parse_v2(text)).ok()?.join().ok()
    })
}

fn draft(diagnostic: &KdlDiagnostic, text: &str, file: usize) -> Draft {
    let place = place(diagnostic, text, file);
    let word = text.get(place.offset..place.offset + place.len).unwrap_or_default();
    let bare = word.split_whitespace().last().unwrap_or(word);
    let bare = bare.rsplit('=').next().unwrap_or(bare);
    let short: String = bare.chars().take(SHOWN_WORD).collect();
    let bare = if short.len() < bare.len() { format!("{short}…") } else { short };
    let bare = bare.as_str();
    let said = diagnostic.message.clone().unwrap_or_else(|| "this is not KDL".into());
    let mut label = diagnostic.label.clone().unwrap_or_else(|| "here".into());
    let (message, help) = if let "true" | "false" | "null" = bare {
        label = "a bare word".into();
        (format!("`{bare}` is written `#{bare}` in KDL"), Some(format!("write #{bare}, or \"{bare}\" for the text")))
    } else if bare.starts_with(|c: char| c.is_ascii_digit()) && !bare.contains(char::is_whitespace) {
        label = "needs quotes".into();
        (
            format!("`{bare}` begins like a number and is none"),
            Some(format!("what begins with a digit stands in quotes: \"{bare}\"")),
        )
    } else if bare.contains('/') && !bare.contains(['"', '\n', '{']) {
        label = "needs quotes".into();
        (format!("`{bare}` cannot stand without quotes"), Some(format!("put it in quotes: \"{bare}\"")))
    } else if said.starts_with("No closing '}'") {
        (
            "this `{` is never closed, or something in it cannot be read".into(),
            Some("close it with `}`; a word with `/` or a leading digit inside it must be in quotes".into()),
        )
    } else {
        (said, diagnostic.help.clone())
    };
    let draft = Draft::new("syntax", place, message).label(label);
    match help {
        Some(help) => draft.help(help),
        None => draft.help("a manifest is KDL 2: `node \"text\" 3 property=#true { child }`, one node a line"),
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
    let mut len = kept.iter().position(|&b| b == b'\n').unwrap_or(kept.len());
    // `x=1m` is blamed without its last letters; to a person the word is one.
    let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'%' | b'/');
    if kept.get(len.wrapping_sub(1)).is_some_and(word) {
        len += text.as_bytes().get(from + len..).unwrap_or_default().iter().take_while(|b| word(b)).count();
    }
    Place { file, offset: from, len }
}

/// Where braces, parentheses or block comments nest too deeply. A `}` in a string or comment closes nothing outside it; a
/// `{` there counts if nothing in it closes it, since the parser may read on inside after an error.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0_usize, 0_usize);
    // What a `/-` comments out may begin with another one.
    let mut dashes = 0_usize;
    while let Some(&b) = bytes.get(i) {
        if bytes.get(i..i + 2) == Some(b"/-") {
            dashes += 1;
            i += 1;
        } else if !matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'\\')
            && !matches!(bytes.get(i..i + 2), Some(b"//" | b"/*"))
        {
            dashes = 0;
        }
        if dashes > DASHES {
            return Some(i.saturating_sub(1));
        }
        if let Some(end) = literal_end(text, i) {
            let region = bytes.get(i..end).unwrap_or_default();
            depth += region.iter().fold(0, |within, &b| step(within, b));
            // The parser recurses into comments in comments.
            depth +=
                if b == b'/' { region.windows(2).filter(|pair| pair == b"/*").count().saturating_sub(1) } else { 0 };
            i = end;
        } else {
            depth = step(depth, b);
            i += 1;
        }
        if depth > DEPTH {
            return Some(i.saturating_sub(1));
        }
    }
    None
}

fn step(depth: usize, byte: u8) -> usize {
    match byte {
        b'{' | b'(' => depth + 1,
        b'}' | b')' => depth.saturating_sub(1),
        _ => depth,
    }
}

/// Where the string or comment that begins at a byte ends.
fn literal_end(text: &str, start: usize) -> Option<usize> {
    let rest = text.as_bytes().get(start..)?;
    let after = |skip: usize, what: &str| {
        let found = rest.get(skip..)?.windows(what.len()).position(|window| window == what.as_bytes());
        Some(found.map_or(text.len(), |at| start + skip + at + what.len()))
    };
    let hashes = rest.iter().take_while(|&&b| b == b'#').count();
    if rest.starts_with(b"//") {
        return after(2, "\n");
    } else if rest.starts_with(b"/*") {
        return Some(start + comment(rest));
    } else if hashes > 0 && rest.get(hashes) == Some(&b'"') {
        return after(hashes + 1, &format!("\"{}", "#".repeat(hashes)));
    } else if rest.first() != Some(&b'"') {
        return None;
    }
    let triple = rest.starts_with(b"\"\"\"");
    let mut at = if triple { 3 } else { 1 };
    while let Some(&b) = rest.get(at) {
        match b {
            b'\\' => at += 1,
            b'"' if !triple => return Some(start + at + 1),
            b'"' if rest.get(at..)?.starts_with(b"\"\"\"") => return Some(start + at + 3),
            // A plain string ends with its line, well or not.
            b'\n' if !triple => return Some(start + at),
            _ => {}
        }
        at += 1;
    }
    Some(text.len())
}

/// The length of a block comment, which may hold others.
fn comment(rest: &[u8]) -> usize {
    let (mut open, mut at) = (0_usize, 0_usize);
    while let Some(pair) = rest.get(at..at + 2) {
        match pair {
            b"/*" => open += 1,
            b"*/" => open -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if open == 0 {
            return at;
        }
    }
    rest.len()
}
