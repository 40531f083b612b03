//! A unified diff in few columns: a line that is taken away and the one that takes its place are shown from where they part.
//!
//! Shows no more than a part of long lines; the document has them whole.

use std::collections::VecDeque;

use crate::why::text::printable;

/// What is said of lines that look alike.
const UNSEEN: &str = "  (in its end, or in what is not seen)";
/// How much of what two lines have in common is left before they part, in columns.
const LEFT: usize = 16;

/// The lines of a diff for a terminal of so many columns. They may still be longer: whoever prints them cuts them off.
#[must_use]
pub fn in_columns(diff: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = diff.lines().map(printable).collect();
    let mut gone: VecDeque<usize> = VecDeque::new();
    let mut came = false;
    for at in 0..lines.len() {
        match lines[at].chars().next() {
            Some('-') => {
                if came {
                    gone.clear();
                }
                came = false;
                gone.push_back(at);
            }
            Some('+') => {
                came = true;
                if let Some(other) = gone.pop_front() {
                    let (old, new) = apart(&lines[other], &lines[at], columns);
                    lines[other] = old;
                    lines[at] = new;
                }
            }
            _ => gone.clear(),
        }
    }
    lines
}

fn apart(old: &str, new: &str, columns: usize) -> (String, String) {
    if old.get(1..) == new.get(1..) {
        return (
            old.to_owned(),
            format!("{}{UNSEEN}", new.chars().take(columns.saturating_sub(UNSEEN.len())).collect::<String>()),
        );
    }
    let same = old.chars().skip(1).zip(new.chars().skip(1)).take_while(|(a, b)| a == b).count();
    // What they part in can be seen where it is.
    if same + LEFT < columns || same <= LEFT {
        return (old.to_owned(), new.to_owned());
    }
    let from = |line: &str| {
        let rest: String = line.chars().skip(1 + same - LEFT).collect();
        format!("{}…{rest}", &line[..1])
    };
    (from(old), from(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_shown_from_where_they_part() {
        let long = "x".repeat(100);
        let diff =
            format!("@@ -1,3 +1,3 @@\n-{long} old words\n-short\n+{long} new words\n+shorter\n {long}\n-{long}\n");
        let shown = in_columns(&diff, 72);
        let (old, new) = (&shown[1], &shown[3]);
        assert_eq!(old, &format!("-…{} old words", "x".repeat(15)));
        assert_eq!(new, &format!("+…{} new words", "x".repeat(15)));
        assert_eq!((shown[2].as_str(), shown[4].as_str()), ("-short", "+shorter"));
        assert_eq!(shown[6].chars().count(), 101, "what nothing takes the place of stays");
    }

    #[test]
    fn lines_that_look_alike_are_said_to_differ() {
        let shown = in_columns("-one\r\n+one\n", 72);
        assert_eq!(shown, ["-one", "+one  (in its end, or in what is not seen)"]);
    }

    #[test]
    fn any_lines_are_taken() {
        for diff in ["", "-\n+\n", "+é\n-é\n", "-ééé\n+ééé\n", "---\n+++\n"] {
            assert_eq!(in_columns(diff, 4).len(), diff.lines().count());
        }
        let wide = "é".repeat(50);
        assert_eq!(in_columns(&format!("-{wide}a\n+{wide}b\n"), 40)[1], format!("+…{}b", "é".repeat(16)));
    }
}
