//! The words of a command: a program and its arguments, each a word of its own. No shell splits them.

use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::{Spanned, Template};

/// The words of a command of a provider, a secret or `on`. A program with a `/` in its path is relative to the file that says it,
/// as every path is.
pub(super) fn argv(node: Node<'_>, report: &Report) -> Vec<String> {
    one_word_each(node, report);
    let mut words: Vec<String> = node.texts().into_iter().map(|word| word.value).collect();
    if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
        *program = node.scope.path(program).display().to_string();
    }
    words
}

/// The words of an agent's or a step's `run`.
pub(super) fn run(node: Node<'_>, report: &Report) -> Vec<Spanned<Template>> {
    one_word_each(node, report);
    node.templates()
}

/// Reports a whole command line where the program should stand. A program whose path has a blank in it is one if it is there.
fn one_word_each(node: Node<'_>, report: &Report) {
    let Some(first) = node.arg(0) else { return };
    let Some(text) = first.str().filter(|text| text.trim().contains(char::is_whitespace)) else { return };
    if report.version.is_file(&node.scope.path(text)) {
        return;
    }
    let words: Vec<String> =
        text.split_whitespace().map(|word| format!("\"{}\"", word.trim_matches(['"', '\'']))).collect();
    let rest = node.args().skip(1).filter_map(Value::str).map(|word| format!("{word:?}"));
    let written: Vec<String> = words.into_iter().chain(rest).collect();
    let name = node.name();
    let help = match text.contains(['|', '>', '<', '&', ';', '$', '`', '\'', '"']) {
        true => format!("there is no shell: name one, {name} \"sh\" \"-c\" \"…\", or write one word each"),
        false => format!("there is no shell: write one word each, {name} {}", written.join(" ")),
    };
    report.add(
        Draft::new("command-line", first.place(), format!("`{name}` takes a program here, not a whole command line"))
            .label("no such program")
            .help(help),
    );
}
