//! Numbers that a script reports as its result: read from JSON, kept as one list and a shape, compared one by one.
//!
//! The text is a process's own and so hostile: its depth, its length and how many numbers it holds are bounded. Python writes
//! `NaN` and `Infinity`, which JSON does not know: both are read.

use serde::{Deserialize, Serialize};

use crate::digest::Hasher;

/// The largest text that is read, in bytes.
pub const VALUES_MAX: usize = 32 * 1024 * 1024;
/// The most numbers.
pub const COUNT_MAX: usize = 4 * 1024 * 1024;
/// The deepest nesting.
const DEPTH_MAX: usize = 64;

/// The numbers of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    shape: String,
    numbers: Vec<f64>,
}

/// What one process's numbers come to beside the base's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// How many there are.
    pub count: u64,
    /// A digest of how they are nested.
    pub shape: String,
    /// How they differ from the base's first run, in words; absent if they are close, and of that run itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub differs: Option<String>,
}

impl Values {
    /// Reads JSON of numbers: one number, or lists and objects of them, nested as one likes. `"NaN"`, `"Infinity"` and
    /// `"-Infinity"` are numbers too, with quotes or without. `true` and `false` are 1 and 0.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > VALUES_MAX {
            return Err(format!("the values are longer than {VALUES_MAX} bytes"));
        }
        let mut reader = Reader { text, at: 0, shape: Hasher::default(), numbers: Vec::new() };
        reader.value(0)?;
        reader.blank();
        if reader.at < text.len() {
            return Err(reader.wrong("the end"));
        }
        Ok(Self { shape: reader.shape.finish().short(), numbers: reader.numbers })
    }

    /// What they come to, compared with nothing.
    #[must_use]
    pub fn alone(&self) -> Numbers {
        Numbers { count: self.numbers.len() as u64, shape: self.shape.clone(), differs: None }
    }

    /// What they come to beside the base's: each `a` of these and `b` of the base's are close if they are the same or both NaN,
    /// or `|a-b| <= atol + rtol*|b|`.
    #[must_use]
    pub fn beside(&self, base: &Self, rtol: f64, atol: f64) -> Numbers {
        Numbers { differs: self.differs(base, rtol, atol), ..self.alone() }
    }

    fn differs(&self, base: &Self, rtol: f64, atol: f64) -> Option<String> {
        if self.numbers.len() != base.numbers.len() {
            return Some(format!("{} numbers and {}", base.numbers.len(), self.numbers.len()));
        }
        if self.shape != base.shape {
            return Some(format!("{} numbers each, nested in another way", base.numbers.len()));
        }
        let close = |a: f64, b: f64| match a.is_finite() && b.is_finite() {
            true => (a - b).abs() <= atol + rtol * b.abs(),
            // A tolerance that is a part of infinity would let everything pass.
            false => a == b || (a.is_nan() && b.is_nan()),
        };
        let pairs = || self.numbers.iter().zip(&base.numbers);
        let apart = pairs().filter(|(a, b)| !close(**a, **b)).count();
        let (at, (a, b)) = pairs().enumerate().find(|(_, (a, b))| !close(**a, **b))?;
        let all = self.numbers.len();
        Some(format!("number {} is {b} and {a}; {apart} of {all} are farther apart than {atol} + {rtol} of it", at + 1))
    }
}

/// Reads one value and notes how it is nested.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    shape: Hasher,
    numbers: Vec<f64>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("the values are nested deeper than {DEPTH_MAX}"));
        }
        self.blank();
        match self.text.get(self.at) {
            Some(b'[') => self.list(depth),
            Some(b'{') => self.object(depth),
            Some(b'"') => {
                let text = self.quoted()?.to_vec();
                self.number(&text)
            }
            _ => {
                let from = self.at;
                let part = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
                while self.text.get(self.at).is_some_and(part) {
                    self.at += 1;
                }
                self.number(&self.text[from..self.at])
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        self.shape.update(b"[");
        if !self.takes(b']') {
            loop {
                self.value(depth + 1)?;
                if self.takes(b']') {
                    break;
                }
                self.needs(b',')?;
            }
        }
        self.shape.update(b"]");
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        self.shape.update(b"{");
        if !self.takes(b'}') {
            loop {
                self.blank();
                let key = self.quoted()?.to_vec();
                self.shape.update(&(key.len() as u64).to_le_bytes());
                self.shape.update(&key);
                self.needs(b':')?;
                self.value(depth + 1)?;
                if self.takes(b'}') {
                    break;
                }
                self.needs(b',')?;
            }
        }
        self.shape.update(b"}");
        Ok(())
    }

    /// What stands between quotes, as it is written: two names that are written differently are two.
    fn quoted(&mut self) -> Result<&[u8], String> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err(self.wrong("a name in quotes"));
        }
        let from = self.at + 1;
        let mut at = from;
        while let Some(byte) = self.text.get(at) {
            match byte {
                b'"' => {
                    self.at = at + 1;
                    return Ok(&self.text[from..at]);
                }
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        Err(self.wrong("the closing quotes"))
    }

    fn number(&mut self, text: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let number = match text {
            "NaN" | "nan" => Some(f64::NAN),
            "Infinity" | "inf" => Some(f64::INFINITY),
            "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
            "true" => Some(1.0),
            "false" => Some(0.0),
            // Rust would take more words than these.
            text if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else { return Err(self.wrong("a number")) };
        if self.numbers.len() == COUNT_MAX {
            return Err(format!("the values are more than {COUNT_MAX} numbers"));
        }
        self.shape.update(b"n");
        self.numbers.push(number);
        Ok(())
    }

    fn blank(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        self.blank();
        let there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn needs(&mut self, byte: u8) -> Result<(), String> {
        if self.takes(byte) { Ok(()) } else { Err(self.wrong(&format!("`{}`", char::from(byte)))) }
    }

    fn wrong(&self, wanted: &str) -> String {
        format!("the values are no JSON of numbers: {wanted} was to stand at byte {}", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Values {
        Values::parse(text.as_bytes()).unwrap()
    }

    fn apart(base: &str, other: &str) -> Option<String> {
        values(other).beside(&values(base), 1e-3, 0.0).differs
    }

    #[test]
    fn close_numbers_are_the_same_and_the_first_that_is_not_is_told() {
        assert_eq!(apart("[1.0, [2, 3]]", "[1.0001,[2,3.001]]"), None);
        let told = apart("[1.0, 2.0, 3.0]", "[1.0, 2.1, 3.1]").unwrap();
        assert_eq!(told, "number 2 is 2 and 2.1; 2 of 3 are farther apart than 0 + 0.001 of it");
        assert!(apart("0", "1e-300").is_some(), "nothing is near zero but with atol");
        assert_eq!(values("1e-300").beside(&values("0"), 0.0, 1e-9).differs, None);
    }

    #[test]
    fn what_is_no_number_is_the_same_as_itself_alone() {
        let odd = "[NaN, \"NaN\", Infinity, -Infinity, \"-Infinity\"]";
        assert_eq!(apart(odd, odd), None);
        for (base, other) in [("[NaN]", "[1]"), ("[1]", "[NaN]"), ("[Infinity]", "[1]"), ("[1]", "[Infinity]")] {
            assert!(apart(base, other).is_some(), "{base} {other}");
        }
        assert!(apart("[Infinity]", "[-Infinity]").is_some());
        assert_eq!(apart("[0.0]", "[-0.0]"), None);
    }

    #[test]
    fn shapes_must_agree() {
        assert!(apart("[1,2]", "[1,2,3]").unwrap().contains("2 numbers and 3"));
        for (base, other) in [("[[1,2],[3]]", "[[1],[2,3]]"), ("[1]", "1"), ("{\"a\":1}", "{\"b\":1}"), ("[]", "{}")] {
            assert!(apart(base, other).unwrap().contains("nested"), "{base} {other}");
        }
        assert_eq!(apart("[]", "[]"), None);
    }

    #[test]
    fn what_is_no_json_of_numbers_is_refused() {
        let deep = "[".repeat(100_000);
        for text in ["", "[", "[1,]", "[1 2]", "null", "\"x\"", "{1:2}", "{\"a\"}", "1 2", "[infinity]", "\"\\", &deep]
        {
            assert!(Values::parse(text.as_bytes()).is_err(), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Values::parse(&text);
        }

        #[test]
        fn every_list_is_close_to_itself(list in proptest::collection::vec(any::<f64>(), 0..20)) {
            let text = serde_json::to_string(&list.iter().map(|n| if n.is_finite() { serde_json::json!(n) } else { serde_json::json!(format!("{n}").replace("inf", "Infinity")) }).collect::<Vec<_>>()).unwrap();
            let read = values(&text);
            prop_assert_eq!(read.beside(&read, 0.0, 0.0).differs, None);
        }
    }
}
