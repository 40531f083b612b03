//! Secrets, and a filter that takes them out of streams before a byte is stored.
//!
//! Finds a value as it is and in the encodings in which programs commonly log it: JSON strings (once and twice escaped),
//! percent-encoding, base64 at each alignment, hex; of a value that is JSON, also its fields alone; of a whole text also within colours
//! and escapes. Does not find it compressed, encrypted, split over lines by a program or
//! typed with changes. Where values come from is the caller's business.

use std::fmt;
use std::hint::black_box;
use std::io::{self, Read};
use std::sync::Arc;

pub use shapes::{holds_key, without_keys};
use veil::Unveiled;

mod shapes;
mod spellings;
mod veil;

/// Values shorter than this are likely to stand in innocent text.
const SHORT: usize = 6;

/// The beginning of a secret that stands at the very end of a text is taken out from so many bytes on.
const CUT_OFF: usize = 8;
/// A credential has at least so many bytes, and one of nothing but letters of one case at least so many.
const LEAST: usize = 8;
const LEAST_WORD: usize = 16;

/// So much of a stream is looked at at once, in bytes.
const WINDOW: usize = 1 << 20;

/// A field of a secret that is JSON accuses a tree from so many bytes on: a shorter one may be a region or a kind.
const ACCUSING: usize = 16;

/// A named value that must not be stored, logged or shown. Has no `Display` and no `Serialize`.
pub struct Secret {
    name: String,
    value: Vec<u8>,
}

impl Secret {
    /// A secret. Line ends around the value are no part of it.
    #[must_use]
    pub fn new(name: impl Into<String>, mut value: Vec<u8>) -> Self {
        while value.last().is_some_and(|c| matches!(c, b'\n' | b'\r')) {
            value.pop();
        }
        Self { name: name.into(), value }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, for the one place that hands it to a child.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.value
    }

    /// Whether it is so short that redacting it will mangle innocent text.
    #[must_use]
    pub fn too_short(&self) -> bool {
        self.value.len() < SHORT
    }

    /// Why it can be no credential, as the end of a sentence that begins with its name: taking such a value out of what is kept
    /// would take innocent words with it, and accuse a tree that holds them.
    #[must_use]
    pub fn too_plain(&self) -> Option<String> {
        let length = self.value.len();
        let plain = |case: fn(&u8) -> bool| self.value.iter().all(case);
        if length < LEAST {
            Some(format!("is only {length} bytes long, too short for a credential"))
        } else if length < LEAST_WORD && (plain(u8::is_ascii_lowercase) || plain(u8::is_ascii_uppercase)) {
            Some("is a plain word, no credential".to_owned())
        } else {
            None
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Keeps the optimiser from dropping a write that nobody reads: best effort, as copies elsewhere are out of reach.
    black_box(bytes);
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.value);
    }
}

/// One text that gives a secret away.
struct Form {
    bytes: Vec<u8>,
    /// Of `Forms::names`.
    name: usize,
    /// Too short to accuse a tree of.
    short: bool,
}

impl Drop for Form {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

#[derive(Default)]
struct Forms {
    names: Vec<String>,
    short: Vec<String>,
    /// Longest first, so that the first that matches covers most.
    all: Vec<Form>,
    longest: usize,
    /// Indices into `all` by first byte.
    by_first: Vec<Vec<u32>>,
}

enum Here {
    /// No form begins at this byte.
    Nothing,
    /// The form of this index does.
    Match(usize),
    /// More bytes are needed to tell.
    Undecided,
}

impl Forms {
    fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut forms = Self::default();
        for secret in secrets {
            let name = forms.names.len();
            forms.names.push(secret.name.clone());
            if secret.too_short() {
                forms.short.push(secret.name.clone());
            }
            let mut add = |secret: &Secret, accuses: bool| {
                for bytes in spellings::spellings(secret) {
                    if !forms.all.iter().any(|f| f.bytes == bytes) {
                        forms.all.push(Form { short: !accuses || bytes.len() < SHORT, bytes, name });
                    }
                }
            };
            add(secret, true);
            for field in spellings::fields(secret) {
                add(&field, field.expose().len() >= ACCUSING);
            }
        }
        forms.all.sort_by_key(|form| std::cmp::Reverse(form.bytes.len()));
        forms.longest = forms.all.first().map_or(0, |f| f.bytes.len());
        forms.by_first = vec![Vec::new(); 256];
        for (i, form) in (0u32..).zip(&forms.all) {
            forms.by_first[usize::from(form.bytes[0])].push(i);
        }
        forms
    }

    /// What begins at the front of `rest`, behind which nothing comes if `last`.
    fn at(&self, rest: &[u8], last: bool) -> Here {
        for &i in &self.by_first[usize::from(rest[0])] {
            let form = &self.all[i as usize].bytes;
            if rest.starts_with(form) {
                return Here::Match(i as usize);
            }
            // A longer form may yet come: it has to be waited for, or the result would hang on where chunks end. Of one that was
            // cut off by the end, most of a secret may be there.
            if form.len() > rest.len() && form.starts_with(rest) {
                match last {
                    false => return Here::Undecided,
                    true if rest.len() >= CUT_OFF => return Here::Match(i as usize),
                    true => {}
                }
            }
        }
        Here::Nothing
    }
}

/// Takes secrets out of one stream, across the borders of its chunks.
pub struct Redactor {
    forms: Arc<Forms>,
    /// Bytes that may be the beginning of a secret.
    held: Vec<u8>,
    /// How many of the next bytes belong to a secret that was already announced.
    cover: usize,
}

impl Redactor {
    /// A filter for these secrets. Empty values are passed over.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self { forms: Arc::new(Forms::new(secrets)), held: Vec::new(), cover: 0 }
    }

    /// A filter for the same secrets and another stream.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self { forms: Arc::clone(&self.forms), held: Vec::new(), cover: 0 }
    }

    /// The names of secrets so short that redacting them will mangle innocent text: worth a warning.
    #[must_use]
    pub fn too_short(&self) -> &[String] {
        &self.forms.short
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.forms.all.is_empty()
    }

    /// Filters a chunk. What may be the beginning of a secret is held back until more comes.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.forms.all.is_empty() {
            out.extend_from_slice(chunk);
        } else if self.held.is_empty() {
            let done = self.filter(chunk, false, out);
            self.held.extend_from_slice(&chunk[done..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(chunk);
            let done = self.filter(&held, false, out);
            wipe(&mut held[..done]);
            held.drain(..done);
            self.held = held;
        }
    }

    /// Filters what was held back: the stream has ended.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.held);
        self.filter(&held, true, out);
        wipe(&mut held);
    }

    /// Filters a whole text at once; of a stream under way, nothing is touched. Also takes out what is a secret only to whoever reads
    /// the text without its colours, control characters and escapes.
    #[must_use]
    pub fn clean(&self, whole: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(whole.len());
        let mut fresh = self.fresh();
        fresh.push(whole, &mut out);
        fresh.finish(&mut out);
        self.clean_veiled(out)
    }

    /// The same for a text that is shown: what looks like a key goes too, though nobody declared it.
    #[must_use]
    pub fn shown(&self, text: &[u8]) -> Vec<u8> {
        if self.is_idle() { without_keys(text) } else { without_keys(&self.clean(text)) }
    }

    /// The same of text.
    #[must_use]
    pub fn shown_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.shown(text.as_bytes())).into_owned()
    }

    fn clean_veiled(&self, text: Vec<u8>) -> Vec<u8> {
        if self.forms.all.is_empty() {
            return text;
        }
        let Some(seen) = Unveiled::of(&text) else { return text };
        let (mut out, mut from, mut at) = (Vec::with_capacity(text.len()), 0, 0);
        while at < seen.bytes.len() {
            let Here::Match(form) = self.forms.at(&seen.bytes[at..], true) else {
                at += 1;
                continue;
            };
            let form = &self.forms.all[form];
            let place = seen.place(at, form.bytes.len().min(seen.bytes.len() - at));
            if place.start >= from {
                out.extend_from_slice(&text[from..place.start]);
                out.extend_from_slice(format!("[secret {}]", self.forms.names[form.name]).as_bytes());
            }
            from = from.max(place.end);
            at += 1;
        }
        out.extend_from_slice(&text[from..]);
        out
    }

    /// How many bytes of a cut-off tail may belong to a secret that begins before them, with what has to be looked at to tell
    /// where the next one begins.
    #[must_use]
    pub fn margin(&self) -> usize {
        self.forms.longest.saturating_mul(2)
    }

    /// Filters the end of a text whose beginning is gone. The first [`margin`](Self::margin) bytes are dropped: a part of a
    /// secret could stand there.
    #[must_use]
    pub fn clean_tail(&self, tail: &[u8]) -> Vec<u8> {
        let (before, rest) = tail.split_at(self.margin().min(tail.len()));
        let (mut dropped, mut out) = (Vec::new(), Vec::with_capacity(rest.len()));
        let mut fresh = self.fresh();
        fresh.push(before, &mut dropped);
        fresh.push(rest, &mut out);
        fresh.finish(&mut out);
        out
    }

    /// The name of a secret that stands in `bytes`. Those too short to be told from innocent text do not count.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        if self.forms.all.is_empty() {
            return None;
        }
        (0..bytes.len()).find_map(|at| {
            let candidates = &self.forms.by_first[usize::from(bytes[at])];
            let hit = candidates.iter().map(|&i| &self.forms.all[i as usize]);
            hit.filter(|f| !f.short).find(|f| bytes[at..].starts_with(&f.bytes)).map(|f| &*self.forms.names[f.name])
        })
    }

    /// The same of a stream of any length, of which a window is held.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn found_in_stream(&self, mut stream: impl Read) -> io::Result<Option<&str>> {
        let overlap = self.forms.longest.saturating_sub(1);
        let mut window = vec![0; overlap + WINDOW];
        let mut held = 0;
        let found = loop {
            let end = match stream.read(&mut window[held..]) {
                Ok(0) => break Ok(None),
                Ok(read) => held + read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            };
            let found = self.found_in(&window[..end]);
            if found.is_some() {
                break Ok(found);
            }
            // The beginning of one may stand at the end.
            held = overlap.min(end);
            window.copy_within(end - held..end, 0);
        };
        wipe(&mut window);
        found
    }

    /// Writes out what can be decided of `bytes` and returns how many that were. Where matches overlap, all of what they
    /// cover goes, under the first one's name.
    fn filter(&mut self, bytes: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        if self.forms.all.is_empty() {
            return 0;
        }
        let mut plain = 0;
        for at in 0..bytes.len() {
            match self.forms.at(&bytes[at..], last) {
                Here::Nothing => {}
                Here::Undecided => {
                    if self.cover == 0 {
                        out.extend_from_slice(&bytes[plain..at]);
                    }
                    return at;
                }
                Here::Match(i) => {
                    let form = &self.forms.all[i];
                    if self.cover == 0 {
                        out.extend_from_slice(&bytes[plain..at]);
                        out.extend_from_slice(format!("[secret {}]", self.forms.names[form.name]).as_bytes());
                    }
                    self.cover = self.cover.max(form.bytes.len());
                }
            }
            if self.cover > 0 {
                self.cover -= 1;
                plain = at + 1;
            }
        }
        out.extend_from_slice(&bytes[plain..]);
        bytes.len()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({:?})", self.forms.names)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(value: &str) -> Redactor {
        Redactor::new(&[Secret::new("KEY", value.into())])
    }

    fn text(redactor: &Redactor, input: &str) -> String {
        String::from_utf8(redactor.clean(input.as_bytes())).unwrap()
    }

    #[test]
    fn what_is_plain_again_to_a_reader_is_found() {
        let redactor = one("sk-0123456789abcdef");
        for veiled in [
            "sk-01\u{1b}[0m23456789abcdef",
            "sk-01\u{1b}[38;5;1m2345\u{1b}[0m6789abcdef",
            "sk-01\u{1b}]0;title\u{7}23456789abcdef",
            "sk-01\u{0}234\u{8}56789abcdef",
            r"\u0073k-0123456789abcdef",
            r"sk-01\\u0032\u003345\u001b6789abcdef",
        ] {
            assert_eq!(
                text(&redactor, &format!("a\u{1b}[1m b {veiled} c\r\n")),
                "a\u{1b}[1m b [secret KEY] c\r\n",
                "{veiled:?}"
            );
        }
        let twice = "sk-0123456789\rabcdef and sk-0123456789abcdef";
        assert_eq!(text(&redactor, twice), "[secret KEY] and [secret KEY]");
    }

    proptest! {
        #[test]
        fn what_holds_no_secret_stays_as_it_is(bytes: Vec<u8>) {
            prop_assert_eq!(one("sk-0123456789abcdef").clean(&bytes), bytes);
        }

        #[test]
        fn nothing_between_its_letters_hides_a_secret(at in 1usize..19, veil in "[\u{1}-\u{8}\u{e}-\u{1a}\u{7f}]{1,5}|\u{1b}\\[[0-9;]{0,6}m") {
            let value = "sk-0123456789abcdef";
            let veiled = format!("x{}{veil}{}y", &value[..at], &value[at..]);
            prop_assert_eq!(text(&one(value), &veiled), "x[secret KEY]y");
        }
    }

    #[test]
    fn encodings_are_found() {
        let redactor = one("sk-é\"x/y z+1\n");
        for form in [
            "sk-é\"x/y z+1",
            r#"sk-é\"x/y z+1"#,
            r#"sk-\u00e9\"x/y z+1"#,
            r#"sk-é\\\"x/y z+1"#,
            r#"sk-é\"x\/y z+1"#,
            "sk-%C3%A9%22x%2Fy%20z%2B1",
            "sk-%c3%a9%22x%2fy%20z%2b1",
            "sk-%C3%A9%22x/y+z%2B1",
            "736b2dc3a922782f79207a2b31",
        ] {
            assert_eq!(text(&redactor, &format!("a{form}b")), "a[secret KEY]b", "{form}");
            assert_eq!(redactor.found_in(form.as_bytes()), Some("KEY"));
        }
        assert_eq!(redactor.found_in(b"sk-"), None);
    }

    #[test]
    fn base64_is_found_at_each_alignment() {
        // python: base64.b64encode(prefix + b"hunter2-hunter2" + b"??")
        let redactor = one("hunter2-hunter2");
        for (encoded, left) in [
            ("aHVudGVyMi1odW50ZXIyPz8=", "[secret KEY]Pz8="),
            ("IWh1bnRlcjItaHVudGVyMj8/", "IW[secret KEY]j8/"),
            ("ISFodW50ZXIyLWh1bnRlcjI/Pw==", "ISF[secret KEY]I/Pw=="),
        ] {
            assert_eq!(text(&redactor, encoded), left, "{encoded}");
        }
    }

    #[test]
    fn overlaps_leave_nothing_of_either() {
        let redactor = Redactor::new(&[Secret::new("A", b"abcdef".to_vec()), Secret::new("B", b"defghi".to_vec())]);
        assert_eq!(text(&redactor, "xabcdefghix"), "x[secret A]x");
        assert_eq!(text(&redactor, "defghiabcdef"), "[secret B][secret A]");
    }

    #[test]
    fn short_ones_are_redacted_but_accuse_nobody() {
        let redactor = Redactor::new(&[Secret::new("PIN", b"12345".to_vec()), Secret::new("NONE", Vec::new())]);
        assert_eq!(redactor.too_short(), ["PIN", "NONE"]);
        assert_eq!(text(&redactor, "12345"), "[secret PIN]");
        assert_eq!(redactor.found_in(b"12345"), None);
        assert_eq!(format!("{:?}", Secret::new("PIN", b"12345".to_vec())), "Secret(PIN)");
    }

    #[test]
    fn fields_of_a_secret_that_is_json_are_found_alone() {
        let value = r#"{"Version": 1, "AccessKeyId": "ASIA1234567890EXAMPL", "nested": [{"SecretAccessKey": "wJalr/XUtnFEMI+K7MDENG"}], "Region": "eu-north-1", "kind": "short"}"#;
        let redactor = one(value);
        assert_eq!(text(&redactor, "id ASIA1234567890EXAMPL."), "id [secret KEY].");
        assert_eq!(text(&redactor, "wJalr%2FXUtnFEMI%2BK7MDENG"), "[secret KEY]");
        assert_eq!(text(&redactor, "short Version"), "short Version");
        assert_eq!(redactor.found_in(b"key = wJalr/XUtnFEMI+K7MDENG"), Some("KEY"));
        assert_eq!(redactor.found_in(b"region = eu-north-1"), None, "that accuses nobody");
    }

    #[test]
    fn lines_of_a_key_are_found_alone() {
        let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
        let redactor = one(&format!("-----BEGIN KEY-----\n{line}\n-----END KEY-----\n"));
        assert_eq!(text(&redactor, &format!("  {line}")), "  [secret KEY]");
    }

    /// `cargo test --release --lib measure -- --ignored --nocapture`
    #[test]
    #[ignore = "measures; asserts nothing"]
    fn measure_a_log() {
        let names = ["A", "B", "C"];
        let redactor =
            Redactor::new(&names.map(|n| Secret::new(n, format!("sk-ant-{n}/9f8e7d6c5b4a39281706f5e4").into())));
        let log = "2026-11-21T03:04:05Z INFO request sk-1234 finished: {\"tokens\": 1234, \"path\": \"/a/b\"}\n"
            .repeat(200_000);
        let clock = std::time::Instant::now();
        let mut out = Vec::new();
        let mut stream = redactor.fresh();
        log.as_bytes().chunks(64 * 1024).for_each(|chunk| stream.push(chunk, &mut out));
        stream.finish(&mut out);
        eprintln!("redact {} MiB with {} forms: {:?}", log.len() >> 20, redactor.forms.all.len(), clock.elapsed());
        let clock = std::time::Instant::now();
        assert_eq!(redactor.found_in(log.as_bytes()), None);
        eprintln!("search them: {:?}", clock.elapsed());
    }

    proptest! {
        #[test]
        fn splits_make_no_difference(
            secrets in prop::collection::vec("[ab]{6,9}", 0..4),
            pieces in prop::collection::vec("[abc]{0,7}|[abc]{30}", 0..20),
            picks in prop::collection::vec(0usize..4, 0..20),
        ) {
            let named: Vec<_> =
                (0..).zip(&secrets).map(|(i, v): (u32, _)| Secret::new(format!("K{i}"), v.clone().into())).collect();
            let redactor = Redactor::new(&named);
            let mut chunks = pieces;
            for (i, pick) in picks.iter().enumerate() {
                if let (Some(secret), true) = (secrets.get(*pick), i < chunks.len()) {
                    let (head, tail) = secret.split_at(i % 6);
                    chunks[i].push_str(head);
                    chunks.insert(i + 1, tail.to_owned());
                }
            }
            let whole = redactor.clean(chunks.concat().as_bytes());
            let mut out = Vec::new();
            let mut stream = redactor.fresh();
            for chunk in &chunks {
                stream.push(chunk.as_bytes(), &mut out);
            }
            stream.finish(&mut out);
            prop_assert_eq!(&out, &whole);
            prop_assert_eq!(redactor.found_in(&out), None);
            if redactor.found_in(chunks.concat().as_bytes()).is_none() {
                prop_assert_eq!(out, chunks.concat().into_bytes());
            }
        }
    }
}
