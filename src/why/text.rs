//! Explanations as text: a section for what the jobs share and one for each job, a line a step, below it what changed.
//!
//! Readable without colour at 80 columns. What a blob or a probe says is hostile until its control characters are spelt out.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value as Json;

use crate::event::Disagreement;
use crate::text::{harmless, shorten, wrap};
use crate::units::human_span;
use crate::why::attempts::{ComparedSaid, Disagreed};
use crate::why::change::Shown;
use crate::why::explain::{EXECUTES, Explanation, StepSaid};
use crate::why::known::Known;
use crate::why::narrow::in_columns;
use crate::why::origin::Origin;

/// How much of a value of a key is shown.
const VALUE: usize = 50;

/// An explanation as text in lines of `width` columns. With `all`, also the steps of jobs in which nothing happens, every difference
/// wherever it is, and what changed on lines as long as they are.
#[must_use]
pub fn why(said: &Explanation, all: bool, width: usize) -> String {
    let mut text = String::new();
    let sections = sections(said);
    let served = if said.between.is_some() { "same" } else { "hit" };
    let quiet = |section: &&Section<'_>| {
        section.steps.iter().all(|step| {
            step.state == served && step.because.is_none() && step.known.is_none() && step.disagreements.is_empty()
        })
    };
    let all = all || sections.iter().all(|section| quiet(&section));
    let mut told: HashSet<String> = HashSet::new();
    let names = sections.iter().flat_map(|section| &section.steps).map(|step| step.step.len()).max().unwrap_or(0);
    for section in &sections {
        if !text.is_empty() {
            text.push('\n');
        }
        if !all && quiet(&section) {
            let quiet = format!(
                "{}: {}",
                section.heading(),
                match section.steps.len() {
                    1 => format!("1 step, {served}"),
                    count => format!("{count} steps, all {served}"),
                }
            );
            text.push_str(&format!("{}\n", wrap(&quiet, width - 4).join("\n    ")));
            continue;
        }
        text.push_str(&format!("{}\n", wrap(&section.heading(), width - 4).join("\n    ")));
        for step in &section.steps {
            text.push_str(&of_step(step, names, said.run.is_some(), all, width, &mut told));
        }
    }
    for line in refused(said).iter().flat_map(|line| wrap(&printable(line), width - 4)).enumerate() {
        let (at, line) = line;
        text.push_str(&format!("{}{line}\n", if at == 0 { "\n" } else { "    " }));
    }
    for line in summary(said, &sections).lines() {
        text.push_str(&format!("{}\n", wrap(line, width).join("\n")));
    }
    text.push_str(&said.comes_to);
    text
}

struct Section<'a> {
    point: &'a str,
    sharers: usize,
    steps: Vec<&'a StepSaid>,
}

impl Section<'_> {
    fn heading(&self) -> String {
        let point = if self.point.is_empty() { "everything" } else { self.point };
        match self.sharers {
            1 => point.to_owned(),
            n => format!("{point} (shared by {n} jobs)"),
        }
    }
}

/// Actions by their point, each once: a job's own behind what it shares.
fn sections(said: &Explanation) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for job in &said.jobs {
        let mut seen: Vec<&str> = Vec::new();
        for step in &job.steps {
            let at = sections.iter().position(|section| section.point == step.point).unwrap_or_else(|| {
                sections.push(Section { point: &step.point, sharers: 0, steps: Vec::new() });
                sections.len() - 1
            });
            let section = &mut sections[at];
            if !seen.contains(&step.point.as_str()) {
                seen.push(&step.point);
                section.sharers += 1;
            }
            if !section.steps.iter().any(|known| known.step == step.step) {
                section.steps.push(step);
            }
        }
    }
    sections
}

fn of_step(step: &StepSaid, names: usize, ran: bool, all: bool, width: usize, told: &mut HashSet<String>) -> String {
    let key = step.key.map_or_else(|| " ".repeat(12), |key| key.0.short());
    let mut head = format!("  {:names$}  {:9}  {key}", step.step, step.state);
    let tail = match (&step.served_by, &step.shared_with) {
        (_, Some(with)) => format!("as {}", printable(with)),
        (Some(by), None) if matches!(step.state, "hit" | "reused") => {
            format!("{}, {}", by.attempt, ago(by.age().as_secs()))
        }
        (Some(by), None) => {
            let took = by.wall_ms.map(|ms| format!(" in {}", human_span(Duration::from_millis(ms))));
            format!("{}{}", by.outcome, took.unwrap_or_default())
        }
        _ => String::new(),
    };
    // Where both do not fit, what served it has lines of its own.
    let fits = head.chars().count() + 2 + tail.chars().count() <= width;
    if fits {
        head.push_str("  ");
        head.push_str(&tail);
    }
    let mut text = format!("{}\n", head.trim_end());
    if !fits {
        wrap(&tail, width - 6).iter().for_each(|line| text.push_str(&format!("      {line}\n")));
    }
    let mut line = |indent: usize, line: &str| {
        text.push_str(&" ".repeat(indent));
        text.push_str(&if all { printable(line) } else { cut(&printable(line), width - indent) });
        text.push('\n');
    };
    if let Some(running) = &step.running {
        line(6, &format!("run {} executes it now, begun {}", running.run, ago(running.since_s.unsigned_abs())));
    }
    // What lets an earlier draw stand is told with it: what it read may be of an earlier run.
    let tells = step.root || step.state == "reused";
    for change in &step.changes {
        let mut said = change_lines(change, width - 6);
        // What jobs have in common is shown once.
        let fresh = all || !tells || change.diff.is_none() || told.insert(format!("{change:?}"));
        if let (false, Some(last)) = (fresh, said.last_mut()) {
            last.push_str(if last.ends_with(':') { " as above" } else { "  (as above)" });
        }
        said.iter().for_each(|said| line(6, said));
        let origin = origin_lines(change.origin.as_ref(), change.unexplained.as_deref(), width);
        if !origin.is_empty() && (all || told.insert(format!("{} {origin:?}", change.ingredient))) {
            origin.iter().for_each(|said| line(8, said));
        }
        // What a step read from another that was executed is told there.
        let fresh = fresh && (all || tells);
        let columns = if all { usize::MAX } else { width - 8 };
        for difference in change.diff.iter().filter(|_| fresh).flat_map(|diff| in_columns(diff, columns)) {
            line(8, &difference);
        }
    }
    for said in step.compared.iter().filter(|_| step.root).flat_map(|compared| compared_lines(compared, width)) {
        line(6, &said);
    }
    for attempt in &step.attempts {
        line(6, &format!("attempt {}, {}: {}", attempt.attempt, ago(attempt.age().as_secs()), attempt.outcome));
        if let Some(evidence) = &attempt.evidence {
            line(8, evidence);
        }
    }
    for said in origin_lines(step.origin.as_ref(), None, width) {
        line(6, &said);
    }
    if let Some(because) = &step.because {
        for said in wrap(&printable(because), width - 6) {
            line(6, &said);
        }
    }
    for said in &step.disagreements {
        for said in disagreed(said, width - 6) {
            line(6, &said);
        }
    }
    if let Some(known) = &step.known {
        of_known(known, width).iter().for_each(|said| line(6, said));
    }
    if !step.root && !step.cut_off && !step.follows.is_empty() {
        let verb = if ran { "followed" } else { "follows" };
        let ups: Vec<&str> = step.follows.iter().map(|up| up.rsplit(' ').next().unwrap_or(up)).collect();
        line(6, &format!("{verb} {}", ups.join(", ")));
    }
    if let Some((by, evidence)) = step.served_by.as_ref().and_then(|by| Some((by, by.evidence.as_ref()?))) {
        line(6, &if step.state == "hit" { format!("{}: {evidence}", by.outcome) } else { evidence.clone() });
    }
    text
}

/// What a step was compared with, in lines.
fn compared_lines(compared: &ComparedSaid, width: usize) -> Vec<String> {
    let with = &compared.with;
    let of = with.manifest.as_ref().map(|manifest| format!(" of {manifest}")).unwrap_or_default();
    let when = compared.age_s.map(|age| format!(", {}", ago(age.unsigned_abs()))).unwrap_or_default();
    let mut said = vec![format!("compared with what run {}{of} had{when}", with.run)];
    said.extend(with.renamed.clone());
    said.iter().flat_map(|line| wrap(&printable(line), width - 6)).collect()
}

/// Two attempts that came out otherwise, and what differs in them, in lines.
#[must_use]
pub fn disagreed(said: &Disagreed, width: usize) -> Vec<String> {
    let mut lines = wrap(&printable(&disagreement(&said.said)), width);
    for shown in &said.differs {
        lines.extend(change_lines(shown, width - 2).iter().map(|line| format!("  {line}")));
        lines.extend(shown.diff.iter().flat_map(|diff| diff.lines()).map(|line| format!("    {}", printable(line))));
    }
    lines
}

/// Two attempts that came out otherwise, in words.
#[must_use]
pub fn disagreement(said: &Disagreement) -> String {
    let outputs = said.outputs.join(", ");
    match said.expected {
        true => format!("drawn again by {}, which came out otherwise in: {outputs}; the first draw speaks", said.later),
        false => format!(
            "NONDETERMINISTIC: {} came out otherwise under the same key, in: {outputs}; {} speaks",
            said.later, said.earlier
        ),
    }
}

/// What a key holds, what not, and how old the answers of tools are.
fn of_known(known: &Known, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let width = known.ingredients.iter().map(|held| held.ingredient.chars().count()).max().unwrap_or(0);
    if !known.ingredients.is_empty() {
        lines.push("what decides it, in its key:".to_owned());
    }
    for held in &known.ingredients {
        let value = side(&held.value);
        lines.push(format!("  {:width$}  {}", printable(&held.ingredient), shorten(&value, VALUE)));
    }
    if !known.not_in_key.is_empty() {
        lines.push("what may matter and is not in its key:".to_owned());
    }
    for beside in &known.not_in_key {
        let said = wrap(&printable(&format!("{}: {}", beside.what, beside.because)), columns - 10);
        lines.extend(said.iter().enumerate().map(|(at, said)| format!("  {}{said}", if at > 0 { "  " } else { "" })));
    }
    for probe in &known.probes {
        let asked = match probe.age_s {
            Some(seconds) => format!("asked {}", ago(seconds.unsigned_abs())),
            None => "asked at an unknown time".to_owned(),
        };
        let again = if probe.watches { "it or what it watches changes" } else { "its program or packages change" };
        let said = format!("tool {}: {asked}, and again when {again}", probe.tool);
        lines.extend(wrap(&printable(&said), columns - 6));
    }
    lines
}

/// An explanation in one line a step, each action once.
#[must_use]
pub fn short(said: &Explanation, width: usize) -> String {
    let mut text = String::new();
    for section in sections(said) {
        for step in section.steps {
            let first = step.changes.first().map(|change| printable(&change.ingredient));
            let more = match step.changes.len() {
                0 | 1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let unlike =
                if step.disagreements.iter().any(|said| !said.said.expected) { "  NONDETERMINISTIC" } else { "" };
            let why = match (&first, &step.because, step.follows.as_slice()) {
                (Some(first), ..) if step.root || step.state == "reused" => format!("{first}{more}{}", brought(step)),
                (_, Some(because), _) => format!("{}{}", printable(because), brought(step)),
                (_, _, [up, ..]) => format!("after {}", up.rsplit(' ').next().unwrap_or(up)),
                _ => step.shared_with.as_ref().map(|with| format!("as {with}")).unwrap_or_default(),
            };
            let head = format!("{} {}", section.point, step.step);
            text.push_str(
                cut(format!("{}  {}{unlike}  {why}", head.trim_start(), step.state).trim_end(), width).as_str(),
            );
            text.push('\n');
        }
    }
    text
}

/// What brought the changes of a step, or the step itself, in a word: the first, and how many others there are.
fn brought(step: &StepSaid) -> String {
    let origins: Vec<&Origin> =
        step.changes.iter().filter_map(|change| change.origin.as_ref()).chain(&step.origin).collect();
    // Of a first change that nobody is named for no other commit is the cause.
    let first = step.changes.first().map_or(step.origin.as_ref(), |change| change.origin.as_ref());
    let Some(first) = first else { return String::new() };
    let mut all: Vec<Option<&str>> = Vec::new();
    for origin in origins.iter().flat_map(|origin| std::iter::once(*origin).chain(&origin.also)) {
        if !all.contains(&origin.commit.as_deref()) {
            all.push(origin.commit.as_deref());
        }
    }
    let more: usize = origins.iter().map(|origin| origin.and_more).max().unwrap_or(0);
    let others = all.iter().filter(|commit| commit.is_some() && **commit != first.commit.as_deref()).count() + more;
    let edited = first.commit.is_some() && all.contains(&None);
    let others = match others {
        0 => String::new(),
        1 => " and another".to_owned(),
        count => format!(" and {count} others"),
    };
    match first.commit.as_deref() {
        Some(commit) => {
            let edited = if edited { ", and uncommitted" } else { "" };
            format!(", by {}{others}{edited}", commit.get(..8).unwrap_or(commit))
        }
        None if others.is_empty() => ", uncommitted".to_owned(),
        None => ", uncommitted and committed".to_owned(),
    }
}

/// That a run would not start, and without what, in lines.
fn refused(said: &Explanation) -> Vec<String> {
    let Some((first, more)) = said.missing.split_first() else { return Vec::new() };
    let mut lines = vec![format!("a run would not start: {}: {}", first.what, first.hint)];
    if !more.is_empty() {
        lines.push(format!("and {} more that this machine lacks: `flow plan` lists them", more.len()));
    }
    lines
}

fn summary(said: &Explanation, sections: &[Section<'_>]) -> String {
    let steps: Vec<&&StepSaid> = sections.iter().flat_map(|section| &section.steps).collect();
    let executed = |step: &&&&StepSaid| EXECUTES.contains(&step.state);
    let count = steps.iter().filter(executed).count();
    let (done, none) = match (&said.run, &said.between) {
        (Some(_), _) if steps.len() == 1 => ("was executed", "nothing was executed"),
        (Some(_), _) => ("were executed", "nothing was executed"),
        (None, Some(_)) => ("differ", "no step differs"),
        (None, None) if !said.missing.is_empty() => ("would be executed if it had that", "nothing would be executed"),
        (None, None) => ("would be executed", "nothing would be executed"),
    };
    if count == 0 {
        return format!("\n{none}\n");
    }
    let plural = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let cut = steps.iter().filter(|step| step.cut_off).count();
    let then = if cut > 0 {
        &format!("\n{}: what they read came out as before", plural(cut, "step") + " cut off early")
    } else if said.run.is_none() && said.between.is_none() && steps.iter().any(|step| step.state == "follows") {
        "\nwhat only follows is served after all if what it reads comes out the same"
    } else if said.between.is_some() && steps.iter().any(|step| step.state == "follows") {
        "\nwhat only follows is the same after all if what it reads comes out the same"
    } else {
        ""
    };
    // A root is a cause; how many steps it sets going by itself is said where that is not one.
    let roots = match count.saturating_sub(said.consequences) {
        begun if begun == said.roots || begun == 0 => plural(said.roots, "root"),
        begun => format!("{} of {begun} steps", plural(said.roots, "root")),
    };
    format!(
        "\n{roots}, {}: {count} of {} {done}{then}\n",
        plural(said.consequences, "consequence"),
        plural(steps.len(), "step")
    )
}

/// Who brought a change, when and where, in lines.
pub fn origin_lines(origin: Option<&Origin>, unexplained: Option<&str>, width: usize) -> Vec<String> {
    let Some(origin) = origin else {
        return unexplained.map(|why| wrap(&printable(why), width - 8)).unwrap_or_default();
    };
    let place = origin_place(origin);
    let mut also: Vec<String> = origin.also.iter().flat_map(|other| origin_lines(Some(other), None, width)).collect();
    if origin.and_more > 0 {
        also.push(format!("and by {} more", crate::text::counted(origin.and_more, "commit")));
    }
    let Some(commit) = &origin.commit else {
        let edited = origin.age_s.map(|age| format!(", edited {}", ago(age.unsigned_abs()))).unwrap_or_default();
        also.insert(
            0,
            match origin.never_committed {
                true => format!("uncommitted then, and never committed so: {place}"),
                false => format!("uncommitted{edited}: {place}"),
            },
        );
        return also;
    };
    let date = origin.date.map(|date| format!(", {}", date.strftime("%Y-%m-%d"))).unwrap_or_default();
    let by = origin.author.as_deref().unwrap_or_default();
    let subject = origin.subject.as_deref().unwrap_or_default();
    let then = if origin.uncommitted_then { "uncommitted then, committed since " } else { "" };
    let id = commit.get(..8).unwrap_or(commit);
    let mut lines = vec![format!("{then}by {id}{date}, {by}: {subject}"), format!("   {place}")];
    lines.append(&mut also);
    lines
}

/// Who brought a change and where, on one line.
#[must_use]
pub fn origin_in_short(origin: &Origin) -> String {
    let place = origin_place(origin);
    match &origin.commit {
        None if origin.never_committed => format!("uncommitted then, and never committed so: {place}"),
        None => format!("uncommitted: {place}"),
        Some(commit) => {
            let then = if origin.uncommitted_then { "uncommitted then, committed since " } else { "" };
            let by = origin.author.as_deref().unwrap_or_default();
            let subject = origin.subject.as_deref().unwrap_or_default();
            format!("{then}by {}, {by}: {subject}; {place}", commit.get(..8).unwrap_or(commit))
        }
    }
}

/// The file and the line of an origin.
#[must_use]
pub fn origin_place(origin: &Origin) -> String {
    match (&origin.path, origin.line) {
        (Some(path), Some(line)) => format!("{path}:{line}"),
        (Some(path), None) => path.clone(),
        (None, _) => "somewhere in the manifest's files".to_owned(),
    }
}

/// `3.0 m` would be odd here: the largest unit alone.
fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "min"),
        3600..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

/// A change in words: `script: sha256:1a2b… -> sha256:3c4d…`, on two lines where one is too narrow, its name alone where what
/// differs says all.
#[must_use]
pub fn change_lines(change: &Shown, width: usize) -> Vec<String> {
    let name = printable(&change.ingredient);
    let long = |side: &Json| side.is_array() || side.as_str().is_some_and(|text| text.contains('\n'));
    if change.diff.is_some() && (long(&change.old) || long(&change.new)) {
        return vec![format!("{name}:")];
    }
    let (old, new) = (side(&change.old), side(&change.new));
    let line = format!("{name}: {old} -> {new}");
    if line.chars().count() <= width {
        return vec![line];
    }
    let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
    let room = width.saturating_sub(name.chars().count() + 2);
    let (old, new) = if same > room / 2 { (from(&old, same - 10), from(&new, same - 10)) } else { (old, new) };
    let indent = " ".repeat((name.chars().count() + 2).saturating_sub(3).max(1));
    vec![cut(&format!("{name}: {old}"), width), cut(&format!("{indent}-> {new}"), width)]
}

/// One side of a change on one line, a blob by its first digits.
fn side(value: &Json) -> String {
    match value {
        Json::Null => "(none)".to_owned(),
        Json::Array(list) => {
            let elements: Vec<&str> = list.iter().filter_map(Json::as_str).collect();
            printable(&elements.join(" "))
        }
        Json::String(text) => match text.strip_prefix("sha256:") {
            Some(digits) if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                format!("sha256:{}", &digits[..12])
            }
            _ if text.is_empty() => "\"\"".to_owned(),
            _ => printable(text),
        },
        other => other.to_string(),
    }
}

fn from(text: &str, skip: usize) -> String {
    format!("…{}", text.chars().skip(skip).collect::<String>())
}

/// The text in at most so many columns.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The text on one line of a terminal, harmless.
#[must_use]
pub fn printable(text: &str) -> String {
    harmless(text).replace('\t', "    ").replace('\n', " | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> Shown {
        Shown {
            ingredient: "device".into(),
            old: old.into(),
            new: new.into(),
            diff: None,
            origin: None,
            unexplained: None,
        }
    }

    #[test]
    fn a_long_change_shows_where_it_differs() {
        assert_eq!(change_lines(&shown("a", "b"), 40), ["device: a -> b"]);
        let (old, new) = (format!("{}1", "x".repeat(60)), format!("{}2", "x".repeat(60)));
        assert_eq!(change_lines(&shown(&old, &new), 40), ["device: …xxxxxxxxxx1", "     -> …xxxxxxxxxx2"]);
    }

    #[test]
    fn what_is_shown_cannot_write_on_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c\td"), "a^[[2Jb\\u{202e}c    d");
    }
}
