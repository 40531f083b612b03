//! Text for people: tables, lines cut and wrapped on word ends, output of strangers made harmless.
//!
//! Widths are those of a terminal. Knows no colour and does not ask how wide the terminal is.

use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A command as a message names it: its words up to the first that is more than a word, such as a script for a shell.
#[must_use]
pub fn called(argv: &[String]) -> String {
    let plain = argv.iter().take_while(|word| !word.contains(char::is_whitespace)).cloned();
    let mut words: Vec<String> = plain.collect();
    if words.len() < argv.len() {
        words.push("…".to_owned());
    }
    words.join(" ")
}

/// The text on one line of at most `width` columns: cut at the end of a word, and marked so. Digests are shortened first, since
/// nobody reads 64 digits.
#[must_use]
pub fn shorten(text: &str, width: usize) -> String {
    let text = short_digests(text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.width() <= width {
        return line;
    }
    let mut cut = String::new();
    for word in line.split(' ') {
        if cut.width() + word.width() + 2 > width {
            break;
        }
        if !cut.is_empty() {
            cut.push(' ');
        }
        cut.push_str(word);
    }
    // A first word that fills most of the line is cut where the line ends.
    if cut.width() < width / 3 {
        cut = columns(&line, width.saturating_sub(1)).to_owned();
    }
    cut.push('…');
    cut
}

/// The text in lines of at most `width` columns, broken between words; a longer word has a line of its own. At a no-break space no
/// line is broken: it becomes a space.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let breaks = |c: char| c.is_whitespace() && c != '\u{a0}';
    for word in text.split(breaks).filter(|word| !word.is_empty()) {
        let line = lines.last().map_or(0, |line| line.width());
        if line > 0 && line + 1 + word.width() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word.replace('\u{a0}', " "));
        }
    }
    lines
}

/// Every `sha256:` with 64 digits shortened to eight.
#[must_use]
pub fn short_digests(text: &str) -> String {
    let mut short = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("sha256:") {
        let digits = at + "sha256:".len();
        let end = digits + rest[digits..].bytes().take_while(u8::is_ascii_hexdigit).count();
        if end - digits == 64 {
            short.push_str(&rest[..digits + 8]);
            short.push('…');
        } else {
            short.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    short + rest
}

/// Output of a program that may be hostile, made harmless for a terminal: control characters but line ends and tabs are spelled
/// out, and so is what would turn the direction of writing.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\r' if characters.peek() == Some(&'\n') => {}
            c if c.is_ascii_control() => {
                clean.push('^');
                clean.push(char::from((c as u8) ^ 0x40));
            }
            c if c.is_control() || turns(c) => {
                let _ = write!(clean, "\\u{{{:x}}}", u32::from(c));
            }
            c => clean.push(c),
        }
    }
    clean
}

/// Words as a line for a shell, quoted where they need it.
#[must_use]
pub fn shell(words: impl IntoIterator<Item = String>) -> String {
    // An option and its value need no quotes, which `=` alone would get.
    let plain = |word: &str| {
        word.starts_with("--") && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:+,%".contains(c))
    };
    let quoted = words.into_iter().map(|word| match shlex::try_quote(&word) {
        _ if plain(&word) => word.clone(),
        Ok(quoted) => quoted.into_owned(),
        // Only a NUL cannot be quoted, and no argument holds one.
        Err(_) => word.clone(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `1 job`, `2 jobs`.
#[must_use]
pub fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// Characters that show other text than what is there.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The beginning of a text that fits into so many columns.
fn columns(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return &text[..at];
        }
    }
    text
}

/// Rows of cells under a heading.
#[derive(Debug, Default)]
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new(), right: Vec::new() }
    }

    /// Sets columns of figures flush right.
    #[must_use]
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right.extend(columns);
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, a line a row; a trailing column that no row fills is left out.
    #[must_use]
    pub fn text(&self) -> String {
        let mut columns = self.heading.len();
        while columns > 1 && self.rows.iter().all(|row| row.get(columns - 1).is_none_or(String::is_empty)) {
            columns -= 1;
        }
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.heading]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in [&self.heading].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let room = " ".repeat(width - cell.width());
                if self.right.contains(&column) {
                    line.push_str(&room);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&room);
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_on_word_ends_and_digests_shortened() {
        assert_eq!(shorten("one two three", 13), "one two three");
        assert_eq!(shorten("one two three", 12), "one two…");
        assert_eq!(shorten("abcdefghijkl", 6), "abcde…");
        assert_eq!(shorten("a\n b", 9), "a b");
        let digest = format!("is sha256:{}, not sha256:12", "ab".repeat(32));
        assert_eq!(shorten(&digest, 80), "is sha256:abababab…, not sha256:12");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""]);
    }

    #[test]
    fn output_of_strangers_cannot_command_a_terminal() {
        assert_eq!(harmless("a\x1b[2J\r\nb\tc\r\u{9b}\u{202e}ä"), "a^[[2J\nb\tc^M\\u{9b}\\u{202e}ä");
    }

    #[test]
    fn tables_align_figures_right_and_leave_out_empty_trailing_columns() {
        let mut table = Table::new(&["a", "n", "z"]).right([1]);
        table.row(vec!["xx".into(), "7".into(), String::new()]);
        table.row(vec!["y".into(), "12".into(), String::new()]);
        assert_eq!(table.text(), "a    n\nxx   7\ny   12\n");
    }
}
