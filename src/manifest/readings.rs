//! Builds the reading part of an adapter from nodes that `shape` has checked.
//!
//! Reports what makes no sense together: a reader of two files, a file that is not kept, figures without a convention.

use kdl::KdlValue;

use super::Keep;
use super::flaw::{Draft, Report, list, suggest};
use super::node::{Node, Value};
use crate::agent::{
    Cached, Condition, ErrorReader, Finder, Finished, Format, Pattern, Pointer, ReadingTable, Signature, Take,
    UsageReader,
};
use crate::outcome::Cause;

/// The files of every attempt.
const ALWAYS: &[&str] = &["stdout", "stderr"];

/// The files that an adapter keeps.
pub(super) fn keep(agent: Node<'_>, report: &Report) -> Vec<Keep> {
    super::build::unique(agent.all("keep"), "keep", report);
    let mut kept = Vec::new();
    for node in agent.all("keep") {
        let (Some(name), Some(path)) = (node.text(), node.arg(1)) else { continue };
        if ALWAYS.contains(&name.value.as_str()) || ["trajectory", "setup"].contains(&name.value.as_str()) {
            report.add(
                Draft::new("taken-name", name.place, format!("`{}` is kept anyway", name.value))
                    .label("has a meaning of its own")
                    .help("choose another name"),
            );
            continue;
        }
        let text = path.str().unwrap_or_default();
        let places = [("{out}/", false), ("{home}/", true)];
        let found = places.iter().find_map(|(prefix, home)| Some((text.strip_prefix(prefix)?, *home)));
        let sound = |glob: &str| {
            let climbs = glob.split('/').any(|part| part.is_empty() || part == "." || part == "..");
            !climbs && globset::Glob::new(glob).is_ok()
        };
        match found {
            Some((glob, home)) if sound(glob) => kept.push(Keep { name: name.value, home, glob: glob.to_owned() }),
            _ => report.add(
                Draft::new("bad-glob", path.place(), format!("`{text}` names no file of the agent's"))
                    .label("not within its folders")
                    .help("begin it with {out}/ or {home}/: \"{home}/.codex/sessions/**/rollout-*.jsonl\""),
            ),
        }
    }
    kept
}

/// How the outcome and the usage of an adapter are read.
pub(super) fn table(agent: Node<'_>, report: &Report) -> ReadingTable {
    let mut table = ReadingTable::default();
    let names = agent.all("keep").filter_map(Node::text).map(|name| name.value);
    let mut files: Vec<String> = ALWAYS.iter().map(ToString::to_string).chain(names).collect();
    if agent.child("trajectory").is_some() {
        files.push("trajectory".into());
    }
    let reader = Reader { files, report };
    table.free = agent.child("free").is_some();
    if let Some(node) = agent.child("reading") {
        without_finished(node, report);
        let all = |name| node.all(name);
        let whole = |node: Node<'_>| node.prop("exit").and_then(Value::whole);
        table.finished = all("finished")
            .filter_map(|node| Some(Finished { finder: reader.finder(node)?, exit: whole(node) }))
            .collect();
        table.errors = all("error")
            .filter_map(|node| {
                let cause = node.prop("cause").and_then(Value::str).and_then(cause);
                let says = node.prop("says").and_then(Value::str).map(str::to_owned);
                Some(ErrorReader { finder: reader.finder(node)?, cause, says })
            })
            .collect();
        table.stuck = all("stuck").filter_map(|node| reader.finder(node)).collect();
        table.models = all("model").filter_map(|node| reader.finder(node)).collect();
        table.message = all("message").filter_map(|node| reader.finder(node)).collect();
        table.usage = all("usage").filter_map(|node| reader.usage(node)).collect();
        half_usage(node, &table.usage, report);
        table.signatures = all("signature").flat_map(signatures).collect();
    }
    // The short form of what the adapters of flow's own do.
    let lines = agent.child("usage").and_then(|node| node.prop("lines")?.text());
    table.usage.extend(lines.and_then(|marker| reported(marker.value)));
    table
}

/// Reports a table by which no attempt succeeds, and notes one that leaves that to the exit code.
fn without_finished(node: Node<'_>, report: &Report) {
    if node.child("finished").is_some() {
        return;
    }
    let add = "add `finished json=…`, `finished jsonl=…` or `finished text=…`";
    match node.child("error") {
        Some(error) => report.add(
            Draft::new(
                "no-finished",
                node.place(),
                "by this `reading` no attempt succeeds: nothing says when one has finished",
            )
            .label("has no `finished`")
            .other(error.place(), "an end without an error is UNKNOWN")
            .help(format!("{add}; without `error` too the exit code alone is believed")),
        ),
        None => report.notice(
            node.place(),
            format!("`reading` says neither `finished` nor `error`: the exit code alone is believed; {add}"),
        ),
    }
}

/// Reports figures that no `usage` finds: one that finds half may stand behind another, as what is left when that finds nothing.
fn half_usage(node: Node<'_>, usage: &[UsageReader], report: &Report) {
    let finds = |reader: &UsageReader, name: &str, pointers: &[Pointer]| match &reader.finder.format {
        Format::Text { pattern: Some(pattern) } => pattern.regex().capture_names().flatten().any(|group| group == name),
        Format::Text { pattern: None } => false,
        Format::Json | Format::Jsonl { .. } => !pointers.is_empty(),
    };
    let input = usage.iter().any(|reader| finds(reader, "input", &reader.input));
    let output = usage.iter().any(|reader| finds(reader, "output", &reader.output));
    let (Some(first), true) = (node.child("usage"), input != output) else { return };
    let lacking = if input { "output" } else { "input" };
    report.add(
        Draft::new("no-figures", first.place(), format!("no `usage` finds the {lacking} tokens"))
            .label("incomplete")
            .help(format!("add `{lacking}`, or what a job costs is never known")),
    );
}

/// Lines of the output that begin with a marker and hold what was used.
fn reported(prefix: String) -> Option<UsageReader> {
    let pointer = |text: &str| Pointer::parse(text).ok().map(|pointer| vec![pointer]);
    Some(UsageReader {
        finder: Finder {
            file: "stdout".into(),
            format: Format::Jsonl { prefix },
            conditions: Vec::new(),
            at: Vec::new(),
        },
        take: Take::Last,
        unique: None,
        cached: Cached::Beside,
        input: pointer("/input")?,
        output: pointer("/output")?,
        cache_read: pointer("/cache_read")?,
        cache_write: pointer("/cache_write")?,
        calls: Pointer::parse("/calls").ok(),
        none_is_zero: false,
        misses: Vec::new(),
    })
}

fn cause(name: &str) -> Option<Cause> {
    Cause::ALL.iter().copied().find(|cause| cause.name() == name)
}

fn signatures(node: Node<'_>) -> Vec<Signature> {
    let Some(cause) = node.arg(0).and_then(Value::str).and_then(cause) else { return Vec::new() };
    let patterns = node.args().skip(1).filter_map(Value::str).filter_map(|text| Pattern::new(text).ok());
    patterns.map(|pattern| Signature { cause, pattern }).collect()
}

fn pointers(node: Option<Node<'_>>) -> Vec<Pointer> {
    let texts = node.into_iter().flat_map(Node::args).filter_map(Value::str);
    texts.filter_map(|text| Pointer::parse(text).ok()).collect()
}

struct Reader<'a> {
    files: Vec<String>,
    report: &'a Report,
}

impl Reader<'_> {
    fn finder(&self, node: Node<'_>) -> Option<Finder> {
        let named: Vec<(&str, Value<'_>)> =
            ["json", "jsonl", "text"].into_iter().filter_map(|kind| Some((kind, node.prop(kind)?))).collect();
        let &[(kind, file)] = named.as_slice() else {
            let message = format!("`{}` reads one file: `json=`, `jsonl=` or `text=` names it", node.name());
            let code = if named.is_empty() { "missing-property" } else { "two-sources" };
            self.report.add(
                Draft::new(code, node.place(), message).label("one of them").help(format!("such as {}=…", "jsonl")),
            );
            return None;
        };
        let name = file.str()?;
        if !self.files.iter().any(|known| known == name) {
            let help = match name {
                "trajectory" => "say which file it is: `trajectory \"trajectory.json\"` in the agent".to_owned(),
                _ => format!(
                    "{}; or `keep {name} \"{{out}}/…\"` in the agent",
                    suggest(name, self.files.iter().map(String::as_str), "file")
                ),
            };
            self.report.add(
                Draft::new("unknown-file", file.place(), format!("no file `{name}` is kept of an attempt"))
                    .label("not kept")
                    .help(help),
            );
        }
        self.only(node, "match", kind == "text", "only a text is searched");
        self.only(node, "prefix", kind == "jsonl", "only lines of `jsonl=` have one");
        for child in node.children().filter(|_| kind == "text") {
            self.report.add(
                Draft::new("wrong-format", child.place(), format!("a text has no `{}`", child.name()))
                    .label("for JSON")
                    .help("a text is searched by `match=\"…\"`"),
            );
        }
        let text = |name: &str| node.prop(name).and_then(Value::str);
        let format = match kind {
            "json" => Format::Json,
            "jsonl" => Format::Jsonl { prefix: text("prefix").unwrap_or_default().to_owned() },
            _ => Format::Text { pattern: text("match").and_then(|text| Pattern::new(text).ok()) },
        };
        let conditions = node.children().filter(|child| matches!(child.name(), "where" | "unless"));
        let conditions = conditions.filter_map(|child| {
            let values = child.args().skip(1).map(|value| json(value.raw())).collect();
            let at = Pointer::parse(child.arg(0)?.str()?).ok()?;
            Some(Condition { at, values, not: child.name() == "unless" })
        });
        Some(Finder { file: name.to_owned(), format, conditions: conditions.collect(), at: pointers(node.child("at")) })
    }

    fn only(&self, node: Node<'_>, prop: &str, may: bool, why: &str) {
        if let Some(value) = node.prop(prop).filter(|_| !may) {
            let draft = Draft::new("wrong-format", value.place(), format!("`{prop}=` has no meaning here"));
            self.report.add(draft.label("would do nothing").help(why));
        }
    }

    fn usage(&self, node: Node<'_>) -> Option<UsageReader> {
        let finder = self.finder(node)?;
        let figures = |name| pointers(node.child(name));
        let cached = node.prop("cached").and_then(Value::str);
        let tells = match &finder.format {
            Format::Text { pattern } => {
                let has = |name: &str| {
                    pattern.as_ref().is_some_and(|pattern| pattern.regex().capture_names().flatten().any(|n| n == name))
                };
                let named = pattern.iter().flat_map(|pattern| pattern.regex().capture_names().flatten());
                let odd: Vec<&str> = named.filter(|name| !GROUPS.contains(name)).collect();
                let groups = "match=\"(?<input>[0-9.]+k?) sent, (?<output>[0-9.]+k?) received\"";
                if !odd.is_empty() {
                    let message = format!("no figure is called {}", list(odd.iter().copied()));
                    let draft = Draft::new("unknown-group", node.place(), message).label("a group that says nothing");
                    self.report.add(draft.help(format!("groups are named {}: {groups}", list(GROUPS.iter().copied()))));
                } else if !has("input") && !has("output") {
                    let draft = Draft::new("no-figures", node.place(), "this `usage` finds no figures");
                    self.report.add(draft.label("no groups").help(format!("name groups of its pattern: {groups}")));
                }
                has("cache_read") || has("cache_write")
            }
            _ => {
                if node.child("input").is_none() && node.child("output").is_none() {
                    let draft = Draft::new("no-figures", node.place(), "this `usage` finds no figures");
                    self.report.add(draft.label("incomplete").help("add `input \"/input_tokens\"` and `output \"…\"`"));
                }
                node.child("cache-read").is_some() || node.child("cache-write").is_some()
            }
        };
        if tells && cached.is_none() {
            self.report.add(
                Draft::new("missing-property", node.place(), "`usage` does not say how cached tokens count")
                    .label("needs `cached=`")
                    .help(
                        "cached=inside if `input` holds them, as with OpenAI; cached=beside if not, as with Anthropic",
                    ),
            );
        }
        Some(UsageReader {
            finder,
            take: if node.prop("take").and_then(Value::str) == Some("sum") { Take::Sum } else { Take::Last },
            unique: figures("unique").pop(),
            cached: if cached == Some("inside") { Cached::Inside } else { Cached::Beside },
            input: figures("input"),
            output: figures("output"),
            cache_read: figures("cache-read"),
            cache_write: figures("cache-write"),
            calls: figures("calls").pop(),
            none_is_zero: node.prop("none").is_some(),
            misses: node
                .child("misses")
                .into_iter()
                .flat_map(Node::args)
                .filter_map(Value::str)
                .filter_map(cause)
                .collect(),
        })
    }
}

/// The groups of a pattern that hold figures.
const GROUPS: &[&str] = &["input", "output", "cache_read", "cache_write"];

fn json(value: &KdlValue) -> serde_json::Value {
    match value {
        KdlValue::String(text) => text.as_str().into(),
        KdlValue::Integer(number) => i64::try_from(*number).map_or(serde_json::Value::Null, Into::into),
        KdlValue::Float(number) => (*number).into(),
        KdlValue::Bool(flag) => (*flag).into(),
        KdlValue::Null => serde_json::Value::Null,
    }
}
