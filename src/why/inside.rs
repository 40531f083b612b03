//! What differs inside an ingredient: a structured file by its paths, a source tree by its files, an answer of a probe by its
//! lines, a list by its elements, everything else as a unified difference.
//!
//! Knows the two versions and nothing of where they are kept. They may hold anything: what is parsed is bounded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use similar::{ChangeTag, DiffOp, TextDiff};

use crate::manifest::{Syntax, kept_number, parsed, secret_name, whole_key};
use crate::units::human_size;

/// Changed paths of a structured value that are listed; beyond that it is compared as text.
const PATHS: usize = 40;
/// The largest text that is parsed to be compared by its paths, in bytes.
const PARSED: usize = 256 * 1024;
/// So many lines of a probe's answer are looked through for two that differ in a version alone.
const PAIRED: usize = 400;
/// How long a comparison of lines may take before it settles for a longer answer.
const LONG: Duration = Duration::from_millis(500);

/// What may be known of an ingredient's content by its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The listing of a source tree: a name and a digest a line.
    Tree,
    /// The files that an environment is built from: mode, git id and path a line.
    Files,
    /// A file of the user's, which may be YAML, TOML or JSON.
    File,
    /// JSON at most.
    Text,
}

impl Look {
    /// By the role of an ingredient.
    #[must_use]
    pub fn at(role: &str) -> Self {
        match role.split_once(' ') {
            Some(("source", _)) => Self::Tree,
            None if role == "files" => Self::Files,
            Some(("file" | "in", _)) => Self::File,
            _ => Self::Text,
        }
    }
}

/// What differs between two contents.
#[must_use]
pub fn of_bytes(old: &[u8], new: &[u8], look: Look) -> String {
    let text = |bytes| std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let (Some(old_text), Some(new_text)) = (text(old), text(new)) else {
        return format!("(binary, {} -> {})", human_size(old.len() as u64), human_size(new.len() as u64));
    };
    if look == Look::Tree {
        return of_trees(old_text, new_text, |line| line.rsplit_once('\t'));
    }
    if look == Look::Files {
        return of_trees(old_text, new_text, name_last);
    }
    let syntaxes = match look {
        Look::File if old.len().max(new.len()) <= PARSED => &[Syntax::Json, Syntax::Toml, Syntax::Yaml][..],
        _ => &[Syntax::Json],
    };
    let structured = |text: &str, syntax| {
        let value: Json = parsed(text, syntax)?;
        (value.is_object() || value.is_array()).then_some(value)
    };
    let both = syntaxes.iter().find_map(|syntax| structured(old_text, *syntax).zip(structured(new_text, *syntax)));
    let Some((old_value, new_value)) = both else { return unified(old_text, new_text) };
    let mut paths = Vec::new();
    changed_paths("", &old_value, &new_value, &mut paths);
    match paths.len() {
        // They say the same, and are written otherwise.
        0 => return unified(old_text, new_text),
        1..=PATHS => return paths.join("\n"),
        _ => {}
    }
    // A canonical value is one line long: as text it is compared laid out.
    let pretty = |text: &str, value: &Json| match text.lines().nth(1) {
        Some(_) => text.to_owned(),
        None => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    unified(&pretty(old_text, &old_value), &pretty(new_text, &new_value))
}

fn unified(old: &str, new: &str) -> String {
    let diff = TextDiff::configure().timeout(LONG).diff_lines(old, new);
    let text = diff.unified_diff().context_radius(2).to_string();
    text.trim_end().to_owned()
}

/// The name and what it has, of a line that has its mode and git id first.
fn name_last(line: &str) -> Option<(&str, &str)> {
    let (at, _) = line.match_indices(' ').nth(1)?;
    Some((&line[at + 1..], &line[..at]))
}

/// The files that were added, removed and changed. Of what is in them only digests are kept.
fn of_trees(old: &str, new: &str, split: fn(&str) -> Option<(&str, &str)>) -> String {
    let (old, new): (BTreeMap<&str, &str>, BTreeMap<&str, &str>) =
        (old.lines().filter_map(split).collect(), new.lines().filter_map(split).collect());
    let mut names: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let lines = names.into_iter().filter_map(|name| match (old.get(name), new.get(name)) {
        (Some(before), Some(after)) => (before != after).then(|| format!("changed {name}")),
        (None, _) => Some(format!("added {name}")),
        (_, None) => Some(format!("removed {name}")),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Only the lines that differ, without what stands around them: for answers of probes. Two lines that differ in a version alone
/// are one: `openai 1.86.0 -> 1.90.0`.
#[must_use]
pub fn changed_lines(old: &str, new: &str) -> String {
    // Without the end of its last line that one is the same all the same.
    let ended =
        |text: &str| if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let (old, new) = (&ended(old), &ended(new));
    let diff = TextDiff::configure().timeout(LONG).diff_lines(old, new);
    let of = |tag| {
        let changes = diff.iter_all_changes().filter(move |change| change.tag() == tag);
        changes.map(|change| change.value().trim_end_matches(['\n', '\r'])).collect::<Vec<_>>()
    };
    let (gone, mut come) = (of(ChangeTag::Delete), of(ChangeTag::Insert));
    let mut lines = Vec::new();
    // Of very many each would be held against each.
    let paired = gone.len().max(come.len()) <= PAIRED;
    for old in gone {
        let pair = come
            .iter()
            .take(if paired { PAIRED } else { 0 })
            .enumerate()
            .find_map(|(at, new)| Some((at, another_version(old, new)?)));
        match pair {
            Some((at, line)) => {
                come.remove(at);
                lines.push(line);
            }
            None => lines.push(format!("-{old}")),
        }
    }
    lines.extend(come.into_iter().map(|new| format!("+{new}")));
    lines.join("\n")
}

/// `name old -> new`, if two lines have one name and differ in one version alone.
fn another_version(old: &str, new: &str) -> Option<String> {
    let words = |line: &str| -> Vec<String> { line.replace("==", " ").split_whitespace().map(str::to_owned).collect() };
    let (old, new) = (words(old), words(new));
    let mut others = old.iter().zip(&new).enumerate().filter(|(_, (old, new))| old != new);
    let (at, (before, after)) = others.next().filter(|_| old.len() == new.len())?;
    let version = |word: &str| {
        let digits = word.strip_prefix('v').unwrap_or(word);
        digits.starts_with(|first: char| first.is_ascii_digit()) && word.len() <= 80
    };
    if at == 0 || others.next().is_some() || !version(before) || !version(after) {
        return None;
    }
    let rest = old[at + 1..].join(" ");
    Some(format!("{} {before} -> {after} {rest}", old[..at].join(" ")).trim_end().to_owned())
}

/// Element by element, each with its place where both have one.
#[must_use]
pub fn of_lists(old: &[String], new: &[String]) -> String {
    if old.len() == new.len() {
        let pairs = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
        let told = pairs.map(|(at, (old, new))| {
            let (old, new) = around(old, new);
            format!("[{at}] {old} -> {new}")
        });
        return told.collect::<Vec<_>>().join("\n");
    }
    let mut lines = Vec::new();
    for op in differ(old, new) {
        for change in op.iter_changes(old, new) {
            match change.tag() {
                ChangeTag::Delete => lines.push(format!("-{}", change.value())),
                ChangeTag::Insert => lines.push(format!("+{}", change.value())),
                ChangeTag::Equal => {}
            }
        }
    }
    lines.join("\n")
}

/// Characters of two elements that are told whole.
const WHOLE: usize = 60;
/// Characters that are told of what is alike on each side of a difference.
const ALIKE: usize = 16;

/// Two texts, of long ones only the stretch that differs with a little of what is around it.
fn around(old: &str, new: &str) -> (String, String) {
    let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    let whole = |text: &[char]| text.iter().collect::<String>();
    if old.len() + new.len() <= WHOLE {
        return (whole(&old), whole(&new));
    }
    let alike = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - alike;
    let after = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    // As far as a word goes, so that what is told can be read.
    let begin = old[..alike].iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1);
    let begin = if alike - begin > ALIKE { alike - ALIKE } else { begin };
    let part = |text: &[char]| {
        let past = text.len() - after;
        let end = text[past..].iter().position(|c| c.is_whitespace()).map_or(text.len(), |at| past + at);
        let end = if end - past > ALIKE { past + ALIKE } else { end };
        let (before, behind) = (if begin > 0 { "… " } else { "" }, if end < text.len() { " …" } else { "" });
        format!("{before}{}{behind}", whole(&text[begin..end]))
    };
    (part(&old), part(&new))
}

/// Where two lists differ; a longer answer than the shortest where that takes too long to find.
fn differ(old: &[String], new: &[String]) -> Vec<DiffOp> {
    similar::capture_diff_slices_deadline(similar::Algorithm::Myers, old, new, Some(Instant::now() + LONG))
}

/// `models.a.temperature: 0.2 -> 0.7`, for each value that differs. An element of a list that came or went is told by its place.
fn changed_paths(path: &str, old: &Json, new: &Json, out: &mut Vec<String>) {
    if old == new || out.len() > PATHS {
        return;
    }
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            let below = |name: &str| {
                // The text of some digits, beside the key that is their number.
                let quoted = [old, new].iter().any(|object| object.keys().any(|key| whole_key(key) == Some(name)));
                let name =
                    if quoted { Json::from(name).to_string() } else { whole_key(name).unwrap_or(name).to_owned() };
                if path.is_empty() { name } else { format!("{path}.{name}") }
            };
            for (name, before) in old {
                match new.get(name) {
                    Some(after) => changed_paths(&below(name), before, after, out),
                    None => out.push(format!("{}: {} -> (none)", below(name), told(name, before))),
                }
            }
            for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                out.push(format!("{}: (none) -> {}", below(name), told(name, after)));
            }
        }
        (Json::Array(old), Json::Array(new)) => {
            let texts = |list: &[Json]| list.iter().map(Json::to_string).collect::<Vec<_>>();
            for op in differ(&texts(old), &texts(new)) {
                let (DiffOp::Delete { .. } | DiffOp::Insert { .. } | DiffOp::Replace { .. }) = op else { continue };
                let (was, is) = (op.old_range(), op.new_range());
                let both = was.len().min(is.len());
                for at in 0..both {
                    let place = format!("{path}[{}]", is.start + at);
                    changed_paths(&place, &old[was.start + at], &new[is.start + at], out);
                }
                for at in was.skip(both) {
                    out.push(format!("{path}[{at}]: {} -> (none)", written(&old[at])));
                }
                for at in is.skip(both) {
                    out.push(format!("{path}[{at}]: (none) -> {}", written(&new[at])));
                }
            }
        }
        _ => {
            let name = path.rsplit('.').next().unwrap_or(path);
            let (old, new) = (told(name, old), told(name, new));
            out.push(format!("{}: {old} -> {new}", if path.is_empty() { "(all)" } else { path }));
        }
    }
}

/// A value, unless its name says that it is a secret: one that was written out once is told to nobody.
fn told(name: &str, value: &Json) -> String {
    let hole = |text: &str| text.contains("{secret.") || text.starts_with("${") || text.is_empty();
    match value {
        Json::Null | Json::Bool(_) => value.to_string(),
        Json::String(text) if hole(text) => value.to_string(),
        _ if secret_name(name) => "(not shown: a secret by its name)".to_owned(),
        _ => written(value),
    }
}

/// A value as it was written: a number that no value of JSON holds stands in it as a marked text.
fn written(value: &Json) -> String {
    match value {
        Json::String(text) => kept_number(text).map_or_else(|| value.to_string(), str::to_owned),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(old: &str, new: &str, look: Look) -> String {
        of_bytes(old.as_bytes(), new.as_bytes(), look)
    }

    #[test]
    fn what_is_structured_differs_by_path() {
        let said = bytes(r#"{"a":{"b":[1,2],"c":"x"},"z":1}"#, r#"{"a":{"b":[1,3],"c":"x"},"y":null}"#, Look::Text);
        assert_eq!(said, "a.b[1]: 2 -> 3\nz: 1 -> (none)\ny: (none) -> null");
        let said = bytes("models:\n  a: {x: true}\n", "models:\n  a: {x: false}\n", Look::File);
        assert_eq!(said, "models.a.x: true -> false");
        let said = bytes("[models.a]\nx = 1\n", "[models.a]\nx = 2\n", Look::File);
        assert_eq!(said, "models.a.x: 1 -> 2");
        let said = bytes("a:\n  api_key: hunter2\n", "a:\n  api_key: \"{secret.KEY}\"\n", Look::File);
        assert_eq!(said, "a.api_key: (not shown: a secret by its name) -> \"{secret.KEY}\"");
        let said = bytes(r#"{"l":["a","b","c"]}"#, r#"{"l":["n","a","b"]}"#, Look::File);
        assert_eq!(said, "l[0]: (none) -> \"n\"\nl[2]: \"c\" -> (none)");
        let said = bytes("a: {9: 123456789012345678901}\n", "a: {\"9\": 123456789012345678902}\n", Look::File);
        assert_eq!(said, "a.9: 123456789012345678901 -> (none)\na.\"9\": (none) -> 123456789012345678902");
        // A comment is no value: then the text is what differs.
        assert_eq!(bytes("a: 1\n", "a: 1 # why\n", Look::File), "@@ -1 +1 @@\n-a: 1\n+a: 1 # why");
        // A prompt that happens to look like YAML is text.
        assert_eq!(bytes("Note: a\n", "Note: b\n", Look::Text), "@@ -1 +1 @@\n-Note: a\n+Note: b");
    }

    #[test]
    fn text_differs_by_line_binary_by_size_lists_by_element() {
        assert_eq!(bytes("a\nb\n", "a\nc\n", Look::Text), "@@ -1,2 +1,2 @@\n a\n-b\n+c");
        assert_eq!(of_bytes(b"a\0", b"a\0b", Look::Text), "(binary, 2 B -> 3 B)");
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of_lists(&list("a b c"), &list("a x c")), "[1] b -> x");
        assert_eq!(of_lists(&list("a b c"), &list("a c")), "-b");
        let metric = |least: &str| vec![format!("ops better=lower min-effect={least} kind=count")];
        assert_eq!(of_lists(&metric("0.02"), &metric("0.03")), "[0] … min-effect=0.02 … -> … min-effect=0.03 …");
        assert_eq!(around(&"x".repeat(50), &"x".repeat(40)).1.chars().count(), 18);
    }

    #[test]
    fn an_answer_of_a_probe_differs_by_versions() {
        assert_eq!(changed_lines("3.11\nnumpy 1\n", "3.11\nnumpy 2\n"), "numpy 1 -> 2");
        let old = "httpx==0.27.0\nopenai==1.86.0\nold-one==1.0\n";
        let new = "httpx==0.28.1\nnew-one==0.1\nopenai==1.90.0\n";
        assert_eq!(
            changed_lines(old, new),
            "httpx 0.27.0 -> 0.28.1\nopenai 1.86.0 -> 1.90.0\n-old-one==1.0\n+new-one==0.1"
        );
        assert_eq!(
            changed_lines("Python 3.11.4 (main)\nx", "Python 3.12.0 (main)\nx"),
            "Python 3.11.4 -> 3.12.0 (main)"
        );
        assert_eq!(changed_lines("a\nb", "a\nc"), "-b\n+c");
        assert_eq!(changed_lines("1.0\nx", "2.0\nx"), "-1.0\n+2.0");
        assert_eq!(changed_lines("numpy==2.0.0", "numpy==2.0.0\npandas==2.0.0\n"), "+pandas==2.0.0");
    }

    #[test]
    fn a_source_tree_differs_by_files() {
        let old = "a.py\tsha256:1\nb.py\tsha256:2\nwith a\ttab\tsha256:4\n";
        let new = "a.py\tsha256:3\nc.py\tsha256:2\nwith a\ttab\tsha256:4\n";
        assert_eq!(bytes(old, new, Look::Tree), "changed a.py\nremoved b.py\nadded c.py");
    }
}
