//! A text as a terminal or a JSON reader would take it: without colours, control characters and escapes of plain letters, and with
//! where each of its bytes came from. A secret that is written with such things within is plain again to whoever reads it.

/// The longest escape sequence that is passed over, in bytes.
const SEQUENCE: usize = 256;

/// A text unveiled.
pub(super) struct Unveiled {
    pub(super) bytes: Vec<u8>,
    /// For each byte where in the veiled text it begins; one more at the end.
    starts: Vec<usize>,
    /// For each byte where what stands for it ends.
    ends: Vec<usize>,
}

impl Unveiled {
    /// `None` if nothing veils the text.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        let veils = |at: usize| is_dropped(text[at]) || escaped(&text[at..]).is_some();
        (0..text.len()).find(|at| veils(*at))?;
        let mut seen = Self { bytes: Vec::with_capacity(text.len()), starts: Vec::new(), ends: Vec::new() };
        let mut at = 0;
        while at < text.len() {
            let (byte, length) = match (text[at], escaped(&text[at..])) {
                (0x1b, _) => (None, sequence(&text[at..])),
                (byte, _) if is_dropped(byte) => (None, 1),
                (_, Some((byte, length))) => (Some(byte), length),
                (byte, None) => (Some(byte), 1),
            };
            if let Some(byte) = byte.filter(|byte| !is_dropped(*byte)) {
                seen.bytes.push(byte);
                seen.starts.push(at);
                seen.ends.push(at + length);
            }
            at += length;
        }
        Some(seen)
    }

    /// Where in the veiled text some bytes stand.
    pub(super) fn place(&self, at: usize, length: usize) -> std::ops::Range<usize> {
        self.starts[at]..self.ends[at + length - 1]
    }
}

fn is_dropped(byte: u8) -> bool {
    (byte < 0x20 && !matches!(byte, b'\n' | b'\t')) || byte == 0x7f
}

/// How many bytes an escape sequence has that begins here.
fn sequence(text: &[u8]) -> usize {
    let end = |ends: fn(&u8) -> bool| text.iter().take(SEQUENCE).skip(2).position(ends).map_or(2, |at| at + 3);
    match text.get(1) {
        Some(b'[') => end(|byte| (0x40..=0x7e).contains(byte)),
        Some(b']') => end(|byte| matches!(byte, 0x07 | 0x5c)),
        Some(_) => 2,
        None => 1,
    }
}

/// The plain letter that `\u0041` stands for, behind any number of backslashes, and how long that is.
fn escaped(text: &[u8]) -> Option<(u8, usize)> {
    let slashes = text.iter().take(8).take_while(|byte| **byte == b'\\').count();
    let rest = text.get(slashes..slashes + 5).filter(|rest| slashes > 0 && rest[0] == b'u')?;
    let code = u32::from_str_radix(std::str::from_utf8(&rest[1..]).ok()?, 16).ok()?;
    let byte = u8::try_from(code).ok().filter(|byte| byte.is_ascii())?;
    Some((byte, slashes + 5))
}
