//! Whether an agent had the answer: what its repository held, what it is seen to have looked up, and whether the package under
//! test was at hand. One document for each attempt, and a note for what a person has to look at.
//!
//! Finds what is said in the open: a command in the trajectory, an object in the repository, an installed distribution. It
//! cannot find what an agent did without saying so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::{Match, Regex};

use crate::git::{self, Mirror};
use crate::manifest::RepoSource;
use crate::names::ObjectId;
use crate::outcome::{Cause, Failure};
use crate::process;
use crate::step::context::Context;
use crate::step::processes::asked_in;
use crate::text::{harmless, shorten};

/// How the note of an attempt begins whose repository held commits that it had not been given.
pub const HISTORY: &str = "HISTORY: ";
/// How the note of an attempt begins that is seen to have looked for the fix.
pub const LOOKED_UP: &str = "LOOKED_UP: ";
/// How the note of an attempt begins that had a copy of the tested package at hand.
pub const PACKAGE: &str = "PACKAGE_AT_HAND: ";

/// The name of the document.
pub const LOG: &str = "integrity";

/// How much of a line is shown, in columns.
const SHOWN: usize = 160;
/// Findings that are listed of one kind.
const LISTED: usize = 20;
/// Places of one pattern in one file that are looked at.
const HITS: usize = 10_000;
/// How long an interpreter may take to tell what is installed.
const ASKED: Duration = Duration::from_secs(20);
/// Digits by which a commit is recognised.
const DIGITS: usize = 10;

/// Holds a sealed repository to its promise before an agent sees it: the objects of the base tree and one commit.
///
/// # Errors
/// If it holds anything else, which is a fault of flow's own.
pub fn sealed(mirror: &Mirror, tree: &ObjectId, work: &Path) -> Result<(), Failure> {
    let unread = |error: git::GitError| Failure::new(Cause::CheckoutFailed, &error.to_string());
    let allowed = git::objects_of_tree(mirror, tree).map_err(unread)?;
    let there = git::objects_in(&work.join(".git")).map_err(unread)?;
    let beyond: Vec<&ObjectId> = there.difference(&allowed).collect();
    match beyond.as_slice() {
        [_] => Ok(()),
        _ => {
            let why = format!("the sealed repository holds {} objects beside its tree, not one commit", beyond.len());
            Err(Failure::new(Cause::HarnessFault, &why))
        }
    }
}

/// What an agent's repository held when it ended.
#[derive(Debug, Default)]
pub struct Objects {
    all: usize,
    own: usize,
    /// Objects of the repository's history that the base tree does not hold.
    history: Vec<ObjectId>,
    /// Those of them that are commits.
    commits: Vec<ObjectId>,
    unread: Option<String>,
}

impl Objects {
    /// Counts them.
    #[must_use]
    pub fn of(mirror: &Mirror, tree: &ObjectId, work: &Path) -> Self {
        let read = || {
            let base = git::objects_of_tree(mirror, tree)?;
            let there = git::objects_in(&work.join(".git"))?;
            let beyond: BTreeSet<ObjectId> = there.difference(&base).cloned().collect();
            let (history, commits) = mirror.holds(&beyond);
            Ok(Self { all: there.len(), own: beyond.len() - history.len(), history, commits, unread: None })
        };
        read().unwrap_or_else(|error: git::GitError| Self { unread: Some(error.to_string()), ..Self::default() })
    }

    fn text(&self) -> String {
        if let Some(why) = &self.unread {
            return format!("objects: not counted: {why}");
        }
        let Self { all, own, history, commits, .. } = self;
        let mut text = format!(
            "objects: at the start those of the base tree and one commit; at the end {all}, of them {own} of its own making and {} of the repository's history",
            history.len()
        );
        let names = |ids: &[ObjectId]| ids.iter().take(LISTED).map(ToString::to_string).collect::<Vec<_>>().join(" ");
        if !commits.is_empty() {
            let _ = write!(text, "; commits of it: {}", names(commits));
        } else if !history.is_empty() {
            let _ = write!(text, " (files or folders like those of another commit): {}", names(history));
        }
        text
    }
}

/// What an agent is seen to have looked up, by where it is seen.
#[must_use]
pub fn looked_up(wanted: &Wanted, prompt: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Vec<(String, String)> {
    let prompt = String::from_utf8_lossy(prompt);
    let mut found = Vec::new();
    for (what, pattern) in &wanted.patterns {
        // What the agent was told it may repeat.
        if pattern.is_match(&prompt) {
            continue;
        }
        for (name, bytes) in files {
            let text = String::from_utf8_lossy(bytes);
            let line_of = |hit: &Match<'_>| text[..hit.start()].rfind('\n').map_or(0, |at| at + 1);
            // What git prints of its own usage is nobody's command.
            let printed = |hit: &Match<'_>| {
                let before = text[line_of(hit)..hit.start()].trim();
                before.ends_with("usage:") || before.ends_with("or:")
            };
            let Some(hit) = pattern.find_iter(&text).take(HITS).find(|hit| !printed(hit)) else { continue };
            let from = line_of(&hit);
            let from = from.max(text.floor_char_boundary(hit.start().saturating_sub(SHOWN / 2)));
            let to = text[hit.end()..].find('\n').map_or(text.len(), |at| hit.end() + at);
            found.push((what.clone(), format!("{name}: {}", shorten(&harmless(&text[from..to]), SHOWN))));
            break;
        }
    }
    found
}

/// What is looked for in a trajectory.
#[derive(Debug)]
pub struct Wanted {
    patterns: Vec<(String, Regex)>,
}

impl Wanted {
    /// For one commit of one repository.
    #[must_use]
    pub fn of(context: &Context, repo: usize, human: &str) -> Self {
        let repo = context.plan.manifest.pipeline.repos.get(repo);
        let url = repo.and_then(|repo| match &repo.source.value {
            RepoSource::Url(url) => Some(url.as_str()),
            RepoSource::Path(_) => None,
        });
        Self::new(human, url, repo.and_then(|repo| repo.package.as_ref()).map(|package| package.value.as_str()))
    }

    fn new(human: &str, url: Option<&str>, package: Option<&str>) -> Self {
        let mut patterns: Vec<(String, String)> = vec![
            ("all of the history".into(), r"\bgit\b[^\n;|&]{0,60}\s--all(?:[^\w-]|$)".into()),
            ("the reflog".into(), r"\bgit\b[^\n;|&]{0,40}\breflog\b".into()),
            ("lost objects".into(), r"\bgit\b[^\n;|&]{0,40}\b(fsck|unpack-objects)\b|--batch-all-objects\b".into()),
            ("another repository".into(), r"\bgit\b[^\n;|&]{0,40}\s(fetch|pull|clone|ls-remote)\b".into()),
        ];
        if let Some(id) = human.get(..DIGITS) {
            patterns.push(("the human's commit".into(), format!(r"(?i)\b{}", regex::escape(id))));
        }
        if let Some(url) = url {
            let bare = url.trim_end_matches('/').trim_end_matches(".git");
            let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest).rsplit('@').next().unwrap_or(bare);
            patterns
                .push(("the upstream repository".into(), format!(r"(?i){}", regex::escape(&bare.replace(':', "/")))));
        }
        if let Some(package) = package {
            let name = regex::escape(package);
            patterns.push((
                format!("the package {package}"),
                format!(r"(?i)\b(pip3?|uv|conda|mamba|poetry)\b[^\n;|&]{{0,40}}\b(install|download|add)\b[^\n;|&]{{0,80}}\b{name}\b"),
            ));
        }
        let compiled = patterns.into_iter().filter_map(|(what, text)| Some((what, Regex::new(&text).ok()?)));
        Self { patterns: compiled.collect() }
    }
}

/// Tells, of a distribution, its version and the folder that its modules are imported from, which for an editable installation is
/// not that of its metadata. Nothing of it is imported.
const ASK: &str = r"
import importlib.metadata as m, importlib.util as u, os, sys
try:
    d = m.distribution(sys.argv[1])
except m.PackageNotFoundError:
    sys.exit()
site = str(d.locate_file(''))
for name in (d.read_text('top_level.txt') or sys.argv[1].replace('-', '_')).split():
    try:
        spec = u.find_spec(name)
    except Exception:
        continue
    places = list(spec and spec.submodule_search_locations or ())
    if places or spec and spec.origin:
        site = os.path.dirname(places[0] if places else spec.origin)
        break
print(d.version, site)
";

/// What an interpreter within an agent's reach says of the tested package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHand {
    /// It has a copy.
    Copy {
        /// The package.
        package: String,
        /// The copy's version.
        version: String,
        /// The folder that it is imported from.
        site: PathBuf,
        /// The interpreter.
        interpreter: String,
    },
    /// It did not say; why not.
    Unsaid(String),
}

impl std::fmt::Display for AtHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Copy { package, version, site, interpreter } => {
                let (version, site) = (harmless(version), harmless(&site.display().to_string()));
                write!(f, "{package} {version} in {site}, seen by {interpreter}")
            }
            Self::Unsaid(why) => f.write_str(why),
        }
    }
}

/// Copies of the tested package that the interpreters within an agent's reach hold.
pub async fn at_hand(context: &Context, repo: usize, tools: &[String], cwd: &Path) -> Vec<AtHand> {
    let repo = context.plan.manifest.pipeline.repos.get(repo);
    let Some(package) = repo.and_then(|repo| repo.package.as_ref()) else { return Vec::new() };
    let mut interpreters: BTreeSet<String> = BTreeSet::new();
    for tool in tools {
        if let Some(Ok(fact)) = context.plan.facts.tools.get(tool) {
            interpreters.extend(interpreter_of(&fact.path));
        }
    }
    let variables = asked_in(&context.machine.variables);
    let path = variables.get("PATH").cloned().unwrap_or_default();
    let on_path = std::env::split_paths(&path).flat_map(|dir| ["python3", "python"].map(|name| dir.join(name)));
    interpreters.extend(on_path.filter(|path| path.is_file()).map(|path| path.display().to_string()).take(2));
    let mut found = Vec::new();
    for interpreter in interpreters {
        let argv = [&interpreter, "-I", "-c", ASK, &package.value].map(str::to_owned);
        match process::answer(&argv, &variables, cwd, ASKED).await {
            Ok(said) if said.is_empty() => {}
            Ok(said) => {
                let said = String::from_utf8_lossy(&said);
                let (version, site) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
                let (package, version, site) = (package.value.clone(), version.to_owned(), PathBuf::from(site));
                found.push(AtHand::Copy { package, version, site, interpreter });
            }
            Err(why) => {
                found.push(AtHand::Unsaid(format!("{interpreter} did not say: {}", shorten(&why, SHOWN))));
            }
        }
    }
    found
}

/// The interpreter that a tool is or begins with, if it is a Python.
fn interpreter_of(tool: &Path) -> Option<String> {
    let name = tool.file_name()?.to_string_lossy().into_owned();
    if name.starts_with("python") {
        return Some(tool.display().to_string());
    }
    let head = crate::hostile::open_regular(tool).ok()?;
    let mut line = [0; 256];
    let read = std::io::Read::read(&mut &head, &mut line).ok()?;
    let text = String::from_utf8_lossy(line.get(..read)?).into_owned();
    let first = text.lines().next()?.strip_prefix("#!")?.split_whitespace().next()?.to_owned();
    Path::new(&first).file_name()?.to_string_lossy().starts_with("python").then_some(first)
}

/// The document, and the notes for what somebody has to look at.
#[must_use]
pub fn told(
    objects: &Objects,
    looked: &[(String, String)],
    at_hand: &[AtHand],
    package: bool,
) -> (String, Vec<String>) {
    let mut text = objects.text() + "\n";
    let mut notes = Vec::new();
    if let Some(first) = objects.commits.first() {
        let count = objects.commits.len();
        notes.push(format!("{HISTORY}its repository held {count} commits that it was not given, such as {first}"));
    }
    if looked.is_empty() {
        text.push_str("trajectory: nothing looked up\n");
    }
    for (what, line) in looked {
        let _ = writeln!(text, "trajectory: looked for {what}: {line}");
    }
    if !looked.is_empty() {
        let whats: Vec<&str> = looked.iter().map(|(what, _)| what.as_str()).collect();
        notes.push(format!("{LOOKED_UP}it looked for {}", whats.join(", ")));
    }
    match at_hand {
        [] if package => text.push_str("package: no interpreter within its reach has a copy\n"),
        [] => text.push_str("package: not looked for, the repository declares none\n"),
        copies => {
            for copy in copies {
                let _ = writeln!(text, "package: {copy}");
            }
            let copy = copies.iter().find(|copy| matches!(copy, AtHand::Copy { .. }));
            notes.extend(copy.map(|copy| format!("{PACKAGE}{copy}")));
        }
    }
    (text, notes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn seen(line: &str, prompt: &str) -> Vec<String> {
        let wanted = Wanted::new("0123456789abcdef", Some("https://github.com/o/r.git"), Some("networkx"));
        let files = BTreeMap::from([("stdout".to_owned(), format!("a\n{line}\nb").into_bytes())]);
        looked_up(&wanted, prompt.as_bytes(), &files).into_iter().map(|(what, _)| what).collect()
    }

    #[test]
    fn what_is_looked_up_is_seen_and_ordinary_work_is_not() {
        assert_eq!(seen("$ git log --oneline --all | head", ""), ["all of the history"]);
        assert_eq!(seen("git -C . fsck --lost-found", ""), ["lost objects"]);
        assert_eq!(seen("git cat-file --batch-check --batch-all-objects", ""), ["lost objects"]);
        assert_eq!(seen("git show 0123456789", ""), ["the human's commit"]);
        assert_eq!(seen("curl https://github.com/o/r/commits", ""), ["the upstream repository"]);
        assert_eq!(seen("pip download --no-deps networkx==3.5", ""), ["the package networkx"]);
        assert!(seen("git add --all-the-same; git status; git diff; pip install numpy", "").is_empty());
        assert!(
            seen("usage: git fetch [<options>] [<repository>]\n   or: git fetch --multiple [<options>]", "").is_empty()
        );
        assert!(seen("usage: git fetch [<options>]\n$ git fetch origin", "").len() == 1);
        assert!(seen("see https://github.com/o/r", "Work on https://github.com/o/r").is_empty(), "it was told so");
    }
}
