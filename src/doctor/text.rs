//! A report as text: a line for each finding, and below it what to do.

use std::fmt::Write as _;

use super::{Level, Report};
use crate::text::wrap;

/// Columns of the level's word.
const LEVEL: usize = 9;
/// The most columns of what was looked at.
const NAMES: usize = 28;

/// A report for people, so many columns wide.
#[must_use]
pub fn text(report: &Report, width: usize) -> String {
    let name = |line: &super::Finding| format!("{} {}", line.check, line.subject).trim_end().to_owned();
    let names = report.lines.iter().map(|line| name(line).chars().count()).max().unwrap_or(0).min(NAMES) + 2;
    let room = width.saturating_sub(LEVEL + names).max(24);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match &report.pipeline {
        Some(pipeline) => writeln!(text, "{pipeline} on {}\n", report.host),
        None => writeln!(text, "{}\n", report.host),
    };
    for line in &report.lines {
        let title = name(line);
        let mut first = format!("{:LEVEL$}{title:names$}", line.level.word());
        if title.chars().count() > NAMES {
            let _ = writeln!(text, "{}", first.trim_end());
            first = " ".repeat(LEVEL + names);
        }
        for said in wrap(&line.what, room) {
            let _ = writeln!(text, "{first}{said}");
            first = " ".repeat(LEVEL + names);
        }
        let Some(fix) = &line.fix else { continue };
        let at = line.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
        for (index, said) in wrap(&format!("{fix}{at}"), room.saturating_sub(5)).into_iter().enumerate() {
            let mark = if index == 0 { "fix: " } else { "     " };
            let _ = writeln!(text, "{first}{mark}{said}");
        }
    }
    let counts: Vec<String> = Level::ALL
        .iter()
        .filter_map(|level| report.counts.get(level.word()).map(|count| format!("{count} {}", level.word())))
        .collect();
    let _ = writeln!(text, "\n{}", counts.join(", "));
    text
}
