//! The house: every room of `src` has a floor, and a file imports only from the floors below its own, or from its own room.
//! Below `cli` nothing prints, exits or reads the environment. Files stay short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

/// From the ground up; a room is a file or a folder of `src`. Rooms of one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["digest", "names", "units", "text", "hostile", "redact"],
    &["key", "outcome", "git", "process", "slots"],
    &["host", "container"],
    &["class", "attempt", "event", "measure"],
    &["money"],
    &["agent"],
    &["manifest", "store"],
    &["ledger", "plan"],
    &["step"],
    &["run"],
    &["gc"],
    &["why", "doctor"],
    &["report"],
    &["cli"],
    &["main", "lib"],
];

/// The most lines a file may have, its tests not counted.
const LONGEST: usize = 500;

/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[];

/// What only `cli` and `main` may do.
const FORBIDDEN: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "process::exit", "env::"];
/// What of `env::` reads nothing of the environment.
const ALLOWED: &[&str] = &["env::consts", "env::split_paths"];

#[test]
fn every_file_imports_only_from_below() {
    let faults: Vec<String> = sources().iter().flat_map(|(path, text)| climbs(path, text)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn below_the_command_line_nothing_prints_exits_or_reads_the_environment() {
    let faults: Vec<String> = sources().iter().flat_map(|(path, text)| speaks(path, text)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_file_is_longer_than_it_has_to_be() {
    let sources = sources();
    let length = |path: &str| sources.get(path).map_or(0, |text| without_tests(&code(text)).lines().count());
    let long: Vec<(&String, usize)> =
        sources.keys().map(|path| (path, length(path))).filter(|(_, n)| *n > LONGEST).collect();
    for (path, lines) in &long {
        assert!(LONG.iter().any(|(known, _)| known == path), "{path} has {lines} lines: split it, or say why not");
    }
    for (path, _) in LONG {
        assert!(long.iter().any(|(found, _)| found == path), "{path} is not long any more: take it off the list");
    }
}

#[test]
fn the_checks_catch_what_they_are_for() {
    let caught = |path: &str, text: &str| climbs(path, text).len() + speaks(path, text).len();
    assert_eq!(caught("store/cas.rs", "use crate::cli::Fault;"), 1, "upwards");
    assert_eq!(caught("key.rs", "use crate::outcome::Cause;"), 1, "sideways");
    assert_eq!(caught("key.rs", "use crate::{digest::Digest, run::{state, plan}, outcome};"), 2, "in a list");
    assert_eq!(caught("store/cas.rs", "fn f() { crate::plan::go() }"), 1, "a path in the code");
    assert_eq!(caught("store/cas.rs", "use super::super::plan::Plan;"), 1, "by way of super");
    assert_eq!(caught("store/mod.rs", "use super::plan::Plan;"), 1, "by way of super, from the door");
    assert_eq!(caught("attic/box.rs", ""), 1, "a room without a floor");
    assert_eq!(caught("plan/mod.rs", "fn f() { println!(\"x\"); std::env::var(\"X\"); std::process::exit(1) }"), 3);
    assert_eq!(
        caught("plan/mod.rs", "use crate::key::K; use crate::plan::x; // use crate::cli\nf(env::consts::OS)"),
        0
    );
    assert_eq!(caught("plan/mod.rs", "f(\"crate::cli \\\" {\", '\"', r#\"\"crate::cli\"#); /* crate::cli */"), 0);
    assert_eq!(caught("plan/mod.rs", "#[cfg(test)]\nmod tests { use crate::cli; fn f() { print!(\"{\"); } }"), 0);
    assert_eq!(caught("plan/mod.rs", "#[cfg(test)]\nmod tests;\nuse crate::cli;"), 1, "behind the tests");
}

/// The imports of a file that lead up or aside.
fn climbs(path: &str, text: &str) -> Vec<String> {
    let room = room(path);
    let Some(own) = floor(room) else { return vec![format!("{path}: its room `{room}` has no floor")] };
    let code = without_tests(&code(text));
    let door = !path.contains('/') || path.ends_with("/mod.rs");
    let root = if door { "super::" } else { "super::super::" };
    let ups = [after(&code, "crate::"), after(&code, root)].concat();
    let known = ups.into_iter().filter(|up| up != room && floor(up).is_some_and(|floor| floor >= own));
    known.map(|up| format!("{path}: `{room}` may not know `{up}`")).collect()
}

/// What a file does that only the command line may.
fn speaks(path: &str, text: &str) -> Vec<String> {
    if ["cli", "main"].contains(&room(path)) {
        return Vec::new();
    }
    let code = without_tests(&code(text));
    let said = FORBIDDEN.iter().flat_map(|word| whole(&code, word).map(|at| (*word, at)).collect::<Vec<_>>());
    let bad = said.filter(|(_, at)| !ALLOWED.iter().any(|allowed| code[*at..].starts_with(allowed)));
    bad.map(|(word, _)| format!("{path}: `{word}` belongs into `cli`")).collect()
}

fn room(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap_or(path)
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Where a word stands that is not the end of a longer one.
fn whole<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |at: usize| code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(word).map(|(at, _)| at).filter(move |at| !inside(*at))
}

/// The names that follow a prefix, also those in braces.
fn after(code: &str, prefix: &str) -> Vec<String> {
    let name = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
    let mut names = Vec::new();
    for at in whole(code, prefix) {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in list.char_indices() {
            if depth == 0 && begins && c.is_alphabetic() {
                names.push(name(&list[at..]));
            }
            begins = c == ',' || (begins && c.is_whitespace());
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth < 0 {
                break;
            }
        }
    }
    names
}

/// The text without what stands in comments, in strings and in quotes; lines stay where they are.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    let upto =
        |rest: &str, end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    while let Some(c) = rest.chars().next() {
        let hashes = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
        let is_raw = hashes.is_some_and(|n| rest[1 + n..].starts_with('"'))
            && !code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            upto(rest, "*/", 2)
        } else if is_raw {
            let n = hashes.unwrap_or(0);
            upto(rest, &format!("\"{}", "#".repeat(n)), n + 2)
        } else if c == '"' {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 1)
        } else if rest.starts_with("'\"'") || rest.starts_with("'{'") || rest.starts_with("'}'") {
            3
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..skip].chars().filter(|c| *c == '\n'));
        rest = &rest[skip..];
    }
    code
}

/// Code without the items that only tests see.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, item)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        let mut depth = 0;
        let end = item.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0 && matches!(c, ';' | '}')
        });
        rest = end.map_or("", |(at, _)| &item[at + 1..]);
    }
    kept + rest
}

/// Every file of `src` but those that hold tests only, by path from there.
fn sources() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            let tests_only = name.ends_with("/tests.rs") || name.ends_with("_tests.rs");
            match path.is_dir() {
                true => folders.push(path),
                false if name.ends_with(".rs") && !tests_only => {
                    files.insert(name, std::fs::read_to_string(path).unwrap());
                }
                false => {}
            }
        }
    }
    files
}
