//! Record files: `records/v1/<run>.jsonl`, one line when an attempt starts and one when it ends, written by that run alone.
//!
//! Every line ends with a checksum of itself in its last field, so that a flipped digit is a damaged line and not another
//! fact. A line is never durable before the blobs that were put before it was appended. What the lines mean together is the
//! index's business.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::{Cas, Damage, StoreError, files};
use crate::attempt::Line;
use crate::digest::Digest;
use crate::hostile::open_regular;
use crate::names::RunId;

/// The longest line that is written or read.
pub const MAX_LINE: usize = 4 << 20;

const SUM: &[u8] = b",\"sum\":\"";
/// The field, 16 digits, and `"}`.
const SUM_LEN: usize = SUM.len() + 18;

/// Where a run's records lie.
#[must_use]
pub fn path_of(root: &Path, run: &RunId) -> PathBuf {
    root.join("records/v1").join(format!("{run}.jsonl"))
}

/// One line with its checksum and its line end.
pub(super) fn encode(line: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).unwrap_or_else(|e| unreachable!("a record line is plain data: {e}"));
    bytes.pop();
    let sum = sum_of(&bytes);
    bytes.extend_from_slice(SUM);
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(b"\"}\n");
    bytes
}

fn sum_of(bytes: &[u8]) -> [u8; 16] {
    let digest = Digest::of(bytes);
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_mut(2).zip(digest.as_bytes()) {
        pair.copy_from_slice(&[
            b"0123456789abcdef"[usize::from(byte >> 4)],
            b"0123456789abcdef"[usize::from(byte & 15)],
        ]);
    }
    text
}

/// Whether a line, without its line end, is as it was written.
pub(super) fn is_whole(line: &[u8]) -> bool {
    let Some(at) = line.len().checked_sub(SUM_LEN) else { return false };
    let (body, tail) = line.split_at(at);
    tail.strip_prefix(SUM).and_then(|t| t.strip_suffix(b"\"}")).is_some_and(|sum| sum == sum_of(body))
}

/// Reads one line, without its line end.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn decode(line: &[u8]) -> Result<Line, String> {
    if !is_whole(line) {
        return Err("the line does not agree with its checksum; its attempt counts as not recorded".to_owned());
    }
    // By what the writer puts first: serde would copy the whole line before it knows which of the two it is, which takes
    // longer than all the rest.
    let read = if line.starts_with(b"{\"line\":\"ended\",") {
        serde_json::from_slice(line).map(Line::Ended)
    } else if line.starts_with(b"{\"line\":\"started\",") {
        serde_json::from_slice(line).map(Line::Started)
    } else {
        serde_json::from_slice(line)
    };
    read.map_err(|e| format!("the line cannot be read, a newer flow may have written it: {e}"))
}

/// Writes the record file of one run. Shared between threads: lines may be appended while a commit is under way.
#[derive(Debug)]
pub struct RecordWriter {
    path: PathBuf,
    cas: Arc<Cas>,
    waiting: Mutex<Waiting>,
    disk: Mutex<Disk>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    appended: u64,
}

#[derive(Debug)]
struct Disk {
    file: File,
    /// Bytes and lines that are durable.
    len: u64,
    lines: u64,
    /// Whether the folder's entry is.
    named: bool,
    broken: Option<String>,
}

impl RecordWriter {
    /// Creates the record file of a run.
    ///
    /// # Errors
    /// `Exists` if there is one.
    pub fn create(root: &Path, run: &RunId, cas: Arc<Cas>) -> Result<Self, StoreError> {
        let path = path_of(root, run);
        let file = File::options().write(true).create_new(true).open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists { path: path.clone() },
            _ => StoreError::io("create", &path)(e),
        })?;
        let disk = Disk { file, len: 0, lines: 0, named: false, broken: None };
        Ok(Self { path, cas, waiting: Mutex::default(), disk: Mutex::new(disk) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, which is on disk only after a commit. Gives its number, from 1.
    ///
    /// # Errors
    /// If it is longer than a reader would take.
    pub fn append(&self, line: &Line) -> Result<u64, StoreError> {
        let bytes = encode(line);
        if bytes.len() > MAX_LINE {
            return Err(StoreError::TooLarge {
                path: self.path.clone(),
                len: bytes.len() as u64,
                max: MAX_LINE as u64,
            });
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.lines.push_back(bytes);
        waiting.appended += 1;
        Ok(waiting.appended)
    }

    /// Makes every line durable that was appended before this call, after the blobs that were put before it. Gives the number
    /// of the last durable line.
    ///
    /// # Errors
    /// If that fails. After a full disk the lines are kept and a later commit may succeed; after a lost write each fails.
    pub fn commit(&self) -> Result<u64, StoreError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &disk.broken {
            return Err(StoreError::Broken { path: self.path.clone(), why: why.clone() });
        }
        let (count, bytes) = {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            (waiting.lines.len(), waiting.lines.iter().flatten().copied().collect::<Vec<_>>())
        };
        // Also without a line: the caller may want its blobs durable.
        self.cas.sync()?;
        if count == 0 {
            return Ok(disk.lines);
        }
        self.write(&mut disk, &bytes)?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.lines.drain(..count);
        disk.lines += count as u64;
        Ok(disk.lines)
    }

    fn write(&self, disk: &mut Disk, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(e) = disk.file.write_all(bytes) {
            // What a full disk left of a line has to go, or the next one would be glued to it.
            let back = disk.file.set_len(disk.len).and_then(|()| disk.file.seek(SeekFrom::Start(disk.len)));
            if let Err(e) = back {
                disk.broken = Some(e.to_string());
            }
            return Err(StoreError::io("write", &self.path)(e));
        }
        if let Err(e) = disk.file.sync_data() {
            disk.broken = Some(e.to_string());
            return Err(StoreError::io("sync", &self.path)(e));
        }
        disk.len += bytes.len() as u64;
        if let (false, Some(dir)) = (disk.named, self.path.parent()) {
            files::sync_dir(dir).inspect_err(|e| disk.broken = Some(e.to_string()))?;
            disk.named = true;
        }
        Ok(())
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        // A run that executed nothing leaves no file: there are more of those than of any other.
        let disk = self.disk.get_mut().unwrap_or_else(PoisonError::into_inner);
        if disk.lines == 0 && disk.file.metadata().is_ok_and(|m| m.len() == 0) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What a record file holds.
#[derive(Debug, Default)]
pub struct Records {
    /// The lines that can be believed, in order.
    pub lines: Vec<Line>,
    /// Those that cannot.
    pub damage: Vec<Damage>,
    /// An unfinished last line: the rest may come, if the run is alive; damage, if it is not. It is not within `offset`.
    pub torn: Option<Damage>,
    /// Where to read on.
    pub offset: u64,
    /// How many lines lie before `offset`.
    pub count: u64,
}

/// Reads a record file. Damage is never an error; one that is gone is empty.
///
/// # Errors
/// If the file cannot be read at all.
pub fn read_records(path: &Path) -> Result<Records, StoreError> {
    read_from(path, 0, 0)
}

/// Reads the tail of a record file: `offset` and `count` of an earlier reading say from where.
///
/// # Errors
/// If the file cannot be read at all.
pub fn read_from(path: &Path, offset: u64, count: u64) -> Result<Records, StoreError> {
    let mut records = Records::default();
    let end =
        scan(path, offset, count, |_, number, bytes| match bytes.map_or_else(|why| Err(why.to_owned()), decode) {
            Ok(line) => records.lines.push(line),
            Err(why) => records.damage.push(Damage { path: path.to_owned(), line: Some(number), why }),
        })?;
    (records.torn, records.offset, records.count) = (end.torn, end.offset, end.count);
    Ok(records)
}

/// How far a scan came.
#[derive(Debug)]
pub(super) struct End {
    pub(super) torn: Option<Damage>,
    pub(super) offset: u64,
    pub(super) count: u64,
}

/// Gives each complete line, without its line end, with its offset and number; or why there is none to give.
pub(super) fn scan(
    path: &Path,
    offset: u64,
    count: u64,
    mut each: impl FnMut(u64, u64, Result<&[u8], &'static str>),
) -> Result<End, StoreError> {
    let mut file = match open_regular(path) {
        Ok(file) => file,
        // A run that executed nothing takes its empty file away, at any moment after it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound && offset == 0 => {
            return Ok(End { torn: None, offset, count });
        }
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    file.seek(SeekFrom::Start(offset)).map_err(StoreError::io("read", path))?;
    let mut end = End { torn: None, offset, count };
    let mut buffer = vec![0; 256 * 1024];
    // Of `buffer`, what holds bytes not given out yet. `lost`: bytes dropped of a line that is too long.
    let (mut from, mut to, mut lost) = (0, 0, 0u64);
    loop {
        if from > 0 {
            buffer.copy_within(from..to, 0);
            (from, to) = (0, to - from);
        }
        if to >= MAX_LINE {
            lost += to as u64;
            to = 0;
        } else if to == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let n = match file.read(&mut buffer[to..]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(StoreError::io("read", path)(e)),
        };
        if n == 0 {
            break;
        }
        let mut look = to;
        to += n;
        while let Some(at) = buffer[look..to].iter().position(|b| *b == b'\n') {
            let stop = look + at;
            let line = &buffer[from..stop];
            end.count += 1;
            let whole = if lost > 0 || line.len() > MAX_LINE { Err("the line is too long") } else { Ok(line) };
            each(end.offset, end.count, whole);
            end.offset += lost + (stop + 1 - from) as u64;
            (from, look, lost) = (stop + 1, stop + 1, 0);
        }
    }
    if to > from || lost > 0 {
        let why = "the last line is not finished; its attempt counts as not recorded".to_owned();
        end.torn = Some(Damage { path: path.to_owned(), line: Some(end.count + 1), why });
    }
    Ok(end)
}
