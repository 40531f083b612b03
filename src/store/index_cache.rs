//! The rows of the index, and the derived file `index/attempts.v3` that spares a load from reading every record.
//!
//! The file is worth nothing: it is believed only if its own digest agrees and each record file is what it was, and even
//! then every line it points to is checked when it is read. So any doubt is answered by `None`.

use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{StoreError, files};
use crate::digest::Digest;
use crate::key::ActionKey;

const MAGIC: &[u8; 16] = b"flow index v3\n\0\0";
/// More than ten million attempts would need.
const MAX_FILE: u64 = 2 << 30;

/// A record file as it was when it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileState {
    /// Within `records/v1`.
    pub(super) name: String,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: (i64, i64),
    /// How far it was read, in bytes and lines; less than `size` if the last line was not finished.
    pub(super) offset: u64,
    pub(super) count: u64,
    pub(super) torn: bool,
    /// Its run is over and was when it was read last. Not kept in the file.
    pub(super) closed: bool,
}

impl FileState {
    pub(super) fn of(name: String, meta: &Metadata) -> Self {
        Self { name, ino: meta.ino(), size: meta.len(), mtime: (meta.mtime(), meta.mtime_nsec()), ..Self::default() }
    }

    /// Whether `now` can be this file with, at most, more lines.
    pub(super) fn became(&self, now: &Self) -> bool {
        self.same_as(now) || self.ino == now.ino && now.size > self.size
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        (self.ino, self.size, self.mtime) == (other.ino, other.size, other.mtime)
    }
}

/// Where a line is, and what is needed to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: ActionKey,
    /// Nanoseconds since 1970.
    pub(super) at: i64,
    /// Of the kind and the axes.
    pub(super) near: u64,
    /// Of the kind and the commit; 0 without a commit.
    pub(super) wide: u64,
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
    /// The kind of its step, as `kind_code` gives it.
    pub(super) kind: u32,
    /// The attempt's id.
    pub(super) name: Name,
}

/// A text within `Names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    start: u32,
    len: u32,
}

/// All attempt ids, one behind the other: 60,000 small allocations fewer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names(String);

impl Names {
    pub(super) fn get(&self, name: Name) -> &str {
        let start = name.start as usize;
        self.0.get(start..start + name.len as usize).unwrap_or("")
    }
}

/// All rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) files: Vec<FileState>,
    /// Ended lines by key, then time, then attempt.
    pub(super) sorted: Vec<Row>,
    /// Ended lines not sorted in yet.
    pub(super) tail: Vec<Row>,
    /// Started lines without an end.
    pub(super) started: Vec<Row>,
    /// File, line, what is wrong with it.
    pub(super) damage: Vec<(u32, u64, String)>,
    pub(super) names: Names,
}

impl Rows {
    pub(super) fn intern(&mut self, text: &str) -> Name {
        let name = Name { start: u32::try_from(self.names.0.len()).unwrap_or(u32::MAX), len: text.len() as u32 };
        self.names.0.push_str(text);
        name
    }

    pub(super) fn name(&self, row: &Row) -> &str {
        self.names.get(row.name)
    }

    /// The sorted rows of a key.
    pub(super) fn of(&self, key: &ActionKey) -> &[Row] {
        let from = self.sorted.partition_point(|r| r.key < *key);
        let len = self.sorted[from..].iter().take_while(|r| r.key == *key).count();
        &self.sorted[from..from + len]
    }

    pub(super) fn merge_tail(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        self.sorted.append(&mut self.tail);
        let names = &self.names;
        self.sorted
            .sort_by(|a, b| (a.key, a.at).cmp(&(b.key, b.at)).then_with(|| names.get(a.name).cmp(names.get(b.name))));
    }
}

/// Writes the derived file.
pub(super) fn write(root: &Path, rows: &Rows) -> Result<(), StoreError> {
    let mut out = Vec::with_capacity(1024 + rows.sorted.len() * 80 + rows.names.0.len());
    out.extend_from_slice(MAGIC);
    let number = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_le_bytes());
    let text = |out: &mut Vec<u8>, text: &str| {
        number(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    };
    number(&mut out, rows.files.len() as u64);
    for f in &rows.files {
        text(&mut out, &f.name);
        let (seconds, nanos) = f.mtime;
        for n in [f.ino, f.size, seconds as u64, nanos as u64, f.offset, f.count, u64::from(f.torn)] {
            number(&mut out, n);
        }
    }
    for list in [&rows.sorted, &rows.started] {
        number(&mut out, list.len() as u64);
        for row in list {
            out.extend_from_slice(row.key.0.as_bytes());
            for n in [row.at as u64, row.near, row.wide, row.offset] {
                number(&mut out, n);
            }
            for n in [row.file, row.len, row.kind, row.name.start, row.name.len] {
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
    }
    number(&mut out, rows.damage.len() as u64);
    for (file, line, why) in &rows.damage {
        number(&mut out, u64::from(*file));
        number(&mut out, *line);
        text(&mut out, why);
    }
    text(&mut out, &rows.names.0);
    let digest = Digest::of(&out);
    out.extend_from_slice(digest.as_bytes());
    files::write_derived(&root.join("index/attempts.v3"), &out)
}

/// Reads the derived file, if it is whole.
pub(super) fn read(root: &Path) -> Option<Rows> {
    let bytes = files::read_bounded(&root.join("index/attempts.v3"), MAX_FILE).ok()??;
    let body = bytes.len().checked_sub(32)?;
    let (body, digest) = bytes.split_at(body);
    if Digest::of(body).as_bytes() != digest {
        return None;
    }
    let mut take = Take { rest: body.strip_prefix(MAGIC)? };
    let mut rows = Rows::default();
    for _ in 0..take.number()? {
        let name = take.text()?;
        let [ino, size, seconds, nanos, offset, count, torn] = take.numbers()?;
        let mtime = (seconds as i64, nanos as i64);
        rows.files.push(FileState { name, ino, size, mtime, offset, count, torn: torn != 0, closed: false });
    }
    rows.sorted = take.rows(rows.files.len())?;
    rows.started = take.rows(rows.files.len())?;
    for _ in 0..take.number()? {
        let [file, line] = take.numbers()?;
        rows.damage.push((u32::try_from(file).ok()?, line, take.text()?));
    }
    rows.names = Names(take.text()?);
    take.rest.is_empty().then_some(rows)
}

struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(head)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut all = [0; N];
        for n in &mut all {
            *n = self.number()?;
        }
        Some(all)
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        String::from_utf8(self.bytes(len)?.to_vec()).ok()
    }

    fn rows(&mut self, files: usize) -> Option<Vec<Row>> {
        const LEN: usize = 32 + 4 * 8 + 5 * 4;
        let count = usize::try_from(self.number()?).ok()?;
        let bytes = self.bytes(count.checked_mul(LEN)?)?;
        let long = |b: &[u8], r: Range<usize>| b[r].try_into().ok().map(u64::from_le_bytes);
        let short = |b: &[u8], r: Range<usize>| b[r].try_into().ok().map(u32::from_le_bytes);
        let row = |b: &[u8]| {
            let file = short(b, 64..68)?;
            (usize::try_from(file).ok()? < files).then_some(())?;
            Some(Row {
                key: ActionKey(Digest::from_bytes(b[..32].try_into().ok()?)),
                at: long(b, 32..40)? as i64,
                near: long(b, 40..48)?,
                wide: long(b, 48..56)?,
                offset: long(b, 56..64)?,
                file,
                len: short(b, 68..72)?,
                kind: short(b, 72..76)?,
                name: Name { start: short(b, 76..80)?, len: short(b, 80..84)? },
            })
        };
        // Collected into an `Option`, the list would grow step by step: nobody tells such a collector how long it gets.
        let mut rows = Vec::with_capacity(count);
        for bytes in bytes.chunks_exact(LEN) {
            rows.push(row(bytes)?);
        }
        Some(rows)
    }
}
