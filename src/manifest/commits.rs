//! Reads lists of commits: inline, `human [base | parent=N]` lines, JSONL and CSV tables.
//!
//! Does not ask git: whether a commit exists, and what its subject is, `run` finds out.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value as Json;

use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::read::{missing, read_file};
use super::types::commit_flaw;
use super::{Base, Commit, Pipeline, Place, Spanned, Tests, config};

/// The largest table, in bytes.
const TABLE_BYTES: u64 = 64 << 20;
/// The largest file of lines, in bytes.
const LINES_BYTES: u64 = 4 << 20;

impl Pipeline {
    /// The tests of a commit, by the indices of its repository and its own: the first declaration whose `only` holds it, or
    /// that is for all.
    #[must_use]
    pub fn tests_of(&self, repo: usize, commit: usize) -> Option<&Tests> {
        let repo = self.repos.get(repo)?;
        let id = repo.commits.get(commit)?.id.value.as_str();
        let same = |only: &Spanned<String>| id.starts_with(&only.value) || only.value.starts_with(id);
        repo.tests.iter().find(|tests| tests.only.is_empty() || tests.only.iter().any(same))
    }
}

/// Reads what a `commits` node says.
pub(super) fn read(node: Node<'_>, report: &Report) -> Vec<Commit> {
    let sources: Vec<Value<'_>> = ["file", "table"].iter().filter_map(|name| node.prop(name)).collect();
    let mut commits: Vec<Commit> = node.all("commit").filter_map(|node| inline(node, report)).collect();
    let many = sources.len() + usize::from(node.children().next().is_some());
    if many > 1 {
        let place = sources.last().map_or(node.place(), |value| value.place());
        report.add(
            Draft::new("two-sources", place, "commits come from a file, a table or children: one of them")
                .label("one source")
                .help("keep one; another list can be another `repo`"),
        );
        return commits;
    }
    if let Some(source) = sources.first() {
        let table = source.key() == Some("table");
        commits = from_file(*source, table, report).unwrap_or_default();
    }
    if commits.is_empty() && report.is_clean() {
        report.add(Draft::new("no-commits", node.place(), "there are no commits").label("names none").help(
            "write `commits file=\"commits.txt\"`, `commits table=\"tasks.jsonl\"` or `commits { commit \"…\" }`",
        ));
    }
    twice(&commits, report);
    commits
}

fn inline(node: Node<'_>, report: &Report) -> Option<Commit> {
    let id = node.text().filter(|id| commit_flaw(&id.value).is_none())?;
    let base = node.prop("base").and_then(Value::text).map(|base| base.value);
    let parent = node.prop("parent");
    if let (Some(_), Some(parent)) = (&base, parent) {
        two_bases(parent.place(), report);
    }
    let base = base.map_or_else(|| Base::Parent(parent.and_then(Value::whole).unwrap_or(1)), Base::Id);
    Some(Commit { id, base, columns: BTreeMap::new() })
}

fn two_bases(place: Place, report: &Report) {
    report.add(
        Draft::new("two-bases", place, "a commit has a base or a number of its parent, not both")
            .label("one of them")
            .help("keep one of the two"),
    );
}

fn from_file(source: Value<'_>, table: bool, report: &Report) -> Option<Vec<Commit>> {
    let written = source.str()?;
    let path = source.path()?;
    let limit = if table { TABLE_BYTES } else { LINES_BYTES };
    let text = match read_file(report, &path.value, limit) {
        Ok(text) => text,
        Err(problem) => {
            missing(report, path.place, written, &path.value, &problem);
            return None;
        }
    };
    let file = report.add_file(path.value.clone(), report.shown(path.place.file, written), text.as_str().into());
    let ending = path.value.extension().and_then(|ending| ending.to_str());
    if !table && matches!(ending, Some("jsonl" | "ndjson" | "csv")) && !is_list(&text) {
        report.add(
            Draft::new("table-as-lines", path.place, format!("`{written}` holds a table, not `human base` lines"))
                .label("a table")
                .help(format!("write `commits table=\"{written}\"`")),
        );
        return None;
    }
    if !table {
        return Some(lines(&text, file, report));
    }
    match ending {
        Some("jsonl" | "ndjson") => Some(jsonl(&text, file, report)),
        Some("csv") => Some(csv(&text, file, report)),
        _ => {
            report.add(
                Draft::new("unknown-ending", path.place, format!("`{written}` is neither `.jsonl` nor `.csv`"))
                    .label("what is it?")
                    .help("a table is read by its ending; `human base` lines are `file=`"),
            );
            None
        }
    }
}

/// Whether the first line of a text is of a list: it begins with a commit's id.
fn is_list(text: &str) -> bool {
    let line = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).find(|line| !line.is_empty());
    line.and_then(|line| line.split_whitespace().next()).is_none_or(|id| commit_flaw(id).is_none())
}

/// The lines of a text with their offsets.
fn offsets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut offset = 0;
    text.split('\n').map(move |line| {
        let at = offset;
        offset += line.len() + 1;
        (at, line)
    })
}

fn lines(text: &str, file: usize, report: &Report) -> Vec<Commit> {
    let mut commits = Vec::new();
    for (offset, line) in offsets(text) {
        let said = line.split('#').next().unwrap_or_default();
        let mut words = said.split_whitespace().map(|word| {
            let at = word.as_ptr() as usize - line.as_ptr() as usize;
            Spanned { value: word, place: Place { file, offset: offset + at, len: word.len() } }
        });
        let Some(id) = words.next() else { continue };
        let base = words.next();
        if let Some(extra) = words.next() {
            report.add(
                Draft::new("bad-line", extra.place, "a line is `human [base | parent=N]`")
                    .label("one word too many")
                    .help("a comment begins with `#`"),
            );
        }
        if bad_id(&id, report) {
            continue;
        }
        let base = match base {
            None => Some(Base::Parent(1)),
            Some(word) => match word.value.strip_prefix("parent=") {
                Some(number) => parent(number, word.place, report),
                None if bad_id(&word, report) => None,
                None => Some(Base::Id(word.value.to_owned())),
            },
        };
        let Some(base) = base else { continue };
        let id = Spanned { value: id.value.to_owned(), place: id.place };
        commits.push(Commit { id, base, columns: BTreeMap::new() });
    }
    commits
}

fn parent(number: &str, place: Place, report: &Report) -> Option<Base> {
    match number.parse::<u32>() {
        Ok(n) if (1..=100).contains(&n) => Some(Base::Parent(n)),
        _ => {
            report.add(
                Draft::new("bad-parent", place, format!("`{number}` is no number of a parent"))
                    .label("a number from 1")
                    .help("parents are counted from 1, as in `commit^1`"),
            );
            None
        }
    }
}

fn bad_id(word: &Spanned<&str>, report: &Report) -> bool {
    let Some((message, help)) = commit_flaw(word.value) else { return false };
    report.add(Draft::new("bad-commit", word.place, message).label("not a commit id").help(help));
    true
}

fn jsonl(text: &str, file: usize, report: &Report) -> Vec<Commit> {
    let mut commits = Vec::new();
    for (offset, line) in offsets(text) {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            continue;
        }
        let place = Place { file, offset, len: line.trim_end().len() };
        let object = match config::parse_json(trimmed) {
            Ok(Json::Object(object)) => object,
            Ok(_) => {
                row_flaw(place, "a row of the table is a JSON object".into(), report);
                continue;
            }
            Err(problem) => {
                row_flaw(place, format!("this row is no JSON: {}", problem.message), report);
                continue;
            }
        };
        let mut row = BTreeMap::new();
        for (column, value) in object {
            let said = match value {
                // Nothing is said: the commit lacks the column.
                Json::Null => continue,
                Json::String(text) if config::kept_number(&text).is_none() => text,
                Json::Number(_) | Json::String(_) if matches!(column.as_str(), "human" | "base") => {
                    report.add(
                        Draft::new("commit-as-number", place, format!("`{column}` is a number; a commit id is a text"))
                            .label("in this row")
                            .help("put the id in quotes"),
                    );
                    continue;
                }
                Json::String(number) => config::kept_number(&number).unwrap_or_default().to_owned(),
                other => other.to_string(),
            };
            row.insert(column, said);
        }
        commits.extend(from_row(row, place, report));
    }
    commits
}

fn csv(text: &str, file: usize, report: &Report) -> Vec<Commit> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let headers: Vec<String> = match reader.headers() {
        Ok(headers) => headers.iter().map(str::to_owned).collect(),
        Err(error) => {
            row_flaw(Place { file, offset: 0, len: 0 }, format!("the table's first line: {error}"), report);
            return Vec::new();
        }
    };
    let first = Place { file, offset: 0, len: text.find('\n').unwrap_or(text.len()) };
    for (i, header) in headers.iter().enumerate() {
        if headers.iter().take(i).any(|other| other == header) {
            row_flaw(first, format!("the column `{header}` stands in the table twice"), report);
            return Vec::new();
        }
    }
    if !headers.iter().any(|header| header == "human") {
        row_flaw(first, "the table has no column `human`".into(), report);
        return Vec::new();
    }
    let mut commits = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let offset = record.position().map_or(0, |p| usize::try_from(p.byte()).unwrap_or(0));
                let rest = text.get(offset..).unwrap_or_default();
                let skipped = rest.len() - rest.trim_start().len();
                let len = rest.trim_start().find('\n').unwrap_or(rest.len() - skipped);
                let place = Place { file, offset: offset + skipped, len };
                // An empty cell says nothing, like null.
                let cells = headers.iter().cloned().zip(record.iter().map(str::to_owned));
                commits.extend(from_row(cells.filter(|(_, cell)| !cell.is_empty()).collect(), place, report));
            }
            Err(error) => {
                let offset = error.position().map_or(0, |p| usize::try_from(p.byte()).unwrap_or(0));
                let rest = text.get(offset..).unwrap_or_default();
                let place = Place { file, offset, len: rest.find('\n').unwrap_or(rest.len()) };
                row_flaw(place, format!("this row does not fit: {error}"), report);
            }
        }
    }
    commits
}

fn row_flaw(place: Place, message: String, report: &Report) {
    report.add(
        Draft::new("bad-row", place, message)
            .label("in this row")
            .help("each row gives `human`, maybe `base` or `parent`, and columns of your own"),
    );
}

fn from_row(mut row: BTreeMap<String, String>, place: Place, report: &Report) -> Option<Commit> {
    let Some(human) = row.remove("human") else {
        row_flaw(place, "this row has no `human`".into(), report);
        return None;
    };
    if bad_id(&Spanned { value: human.as_str(), place }, report) {
        return None;
    }
    let contradicts = |column: &str, said: &str, is: &str| {
        report.add(
            Draft::new("contradiction", place, format!("`{column}` is `{said}`, but the human commit is `{is}`"))
                .label("in this row")
                .help(format!("`{{commit.{column}}}` is made from `human`: leave the column out or mend it")),
        );
    };
    // A shortened id names the same commit.
    if let Some(id) = row.remove("id")
        && (id.len() < 7 || !human.starts_with(&id))
    {
        contradicts("id", &id, &human);
    }
    if let Some(id8) = row.remove("id8")
        && human.get(..8) != Some(id8.as_str())
    {
        contradicts("id8", &id8, &human);
    }
    let base = match (row.remove("base"), row.remove("parent")) {
        (Some(_), Some(_)) => {
            two_bases(place, report);
            return None;
        }
        (Some(base), None) if bad_id(&Spanned { value: base.as_str(), place }, report) => return None,
        (Some(base), None) => Base::Id(base),
        (None, Some(number)) => parent(&number, place, report)?,
        (None, None) => Base::Parent(1),
    };
    Some(Commit { id: Spanned { value: human, place }, base, columns: row })
}

fn twice(commits: &[Commit], report: &Report) {
    let mut seen: HashMap<&str, &Commit> = HashMap::with_capacity(commits.len());
    for commit in commits {
        let id = commit.id.value.as_str();
        let Some(id8) = id.get(..8) else { continue };
        if let Some(first) = seen.get(id8) {
            let other = first.id.value.as_str();
            let same = id.starts_with(other) || other.starts_with(id);
            let (message, help) = if same {
                (format!("the commit `{id}` is listed twice"), "leave one out; `samples` draws one job several times")
            } else {
                (
                    format!("`{id}` and `{other}` have the same first eight digits"),
                    "jobs are named by them: put one of the two into a `repo` of its own",
                )
            };
            report.add(
                Draft::new("duplicate-commit", commit.id.place, message)
                    .label("again here")
                    .other(first.id.place, "first here")
                    .help(help),
            );
        } else {
            seen.insert(id8, commit);
        }
    }
}
