//! Which contents of a store are named: by a record line, by the files of a run, or by a content that is named itself.
//!
//! Whatever reads as a digest names one: a content too many is kept, none too few. Damaged lines name theirs too.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::digest::Digest;
use crate::hostile::open_regular;
use crate::names::RunId;
use crate::store::{Store, StoreError};

/// Of so many digits is a digest.
const DIGITS: usize = 64;
/// How much is read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// Those of the contents that nothing names. `without` is a run that counts as forgotten.
///
/// # Errors
/// If a file that names contents cannot be read: then nothing is known to be unnamed.
pub(super) fn unnamed(
    store: &Store,
    there: &HashSet<Digest>,
    without: Option<&RunId>,
) -> Result<HashSet<Digest>, StoreError> {
    let mut unnamed = there.clone();
    let mut deep = Vec::new();
    let records = store.root.join("records");
    let runs = store.root.join("runs");
    let forgotten = |path: &Path| {
        without.is_some_and(|run| {
            path.starts_with(runs.join(run.as_str())) || path == crate::store::records::path_of(&store.root, run)
        })
    };
    for folder in [records, runs.clone(), store.root.join("index/readings"), store.root.join("index/trees")] {
        for path in files(&folder)?.into_iter().filter(|path| !forgotten(path)) {
            let mut found = HashSet::new();
            digests(&path, &mut |digest| {
                found.insert(digest);
            })?;
            let logs = logs(&path);
            for digest in found {
                if unnamed.remove(&digest) && !logs.contains(&digest) {
                    deep.push(digest);
                }
            }
        }
    }
    while let Some(digest) = deep.pop() {
        digests(&store.cas.path(&digest), &mut |named| {
            if unnamed.remove(&named) {
                deep.push(named);
            }
        })?;
    }
    Ok(unnamed)
}

/// All files below a folder. Links are none.
fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("list", &folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &folder))?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// The contents that the lines of a record file name as logs alone: what a process printed names nothing, whatever it looks like.
fn logs(path: &Path) -> HashSet<Digest> {
    let (mut logs, mut others) = (HashSet::new(), HashSet::new());
    let Ok(text) = std::fs::read(path) else { return logs };
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(Value::Object(mut line)) = serde_json::from_slice::<Value>(line) else { continue };
        let texts = |value: Value| -> Vec<Digest> {
            let Value::Object(map) = value else { return Vec::new() };
            map.into_iter().filter_map(|(_, value)| value.as_str()?.parse().ok()).collect()
        };
        logs.extend(line.remove("logs").map(texts).unwrap_or_default());
        let outputs = line.get("outputs").map(ToString::to_string).unwrap_or_default();
        others.extend(line.get("key").and_then(Value::as_str).and_then(|key| key.parse::<Digest>().ok()));
        scan(outputs.as_bytes(), &mut Run::default(), &mut |digest| {
            others.insert(digest);
        });
    }
    logs.retain(|digest| !others.contains(digest));
    logs
}

/// Gives each digest that a file holds. One that is gone holds none.
fn digests(path: &Path, each: &mut dyn FnMut(Digest)) -> Result<(), StoreError> {
    let mut file: File = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let mut piece = vec![0; PIECE];
    let mut run = Run::default();
    loop {
        let n = match file.read(&mut piece) {
            Ok(0) => {
                run.end(each);
                return Ok(());
            }
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        scan(&piece[..n], &mut run, each);
    }
}

/// Digits that follow each other, across pieces.
#[derive(Default)]
struct Run {
    digits: Vec<u8>,
    len: usize,
}

impl Run {
    fn end(&mut self, each: &mut dyn FnMut(Digest)) {
        if self.len == DIGITS
            && let Ok(text) = std::str::from_utf8(&self.digits)
            && let Ok(digest) = text.parse()
        {
            each(digest);
        }
        self.digits.clear();
        self.len = 0;
    }
}

fn scan(bytes: &[u8], run: &mut Run, each: &mut dyn FnMut(Digest)) {
    for byte in bytes {
        if matches!(byte, b'0'..=b'9' | b'a'..=b'f') {
            run.len = run.len.saturating_add(1);
            if run.len <= DIGITS {
                run.digits.push(*byte);
            }
        } else if run.len > 0 {
            run.end(each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_wherever_they_stand() {
        let one = Digest::of(b"1");
        let mut found = Vec::new();
        let mut run = Run::default();
        let text = format!("{{\"a\":\"{one}\",\"b\":\"{one}0\",\"c\":\"{}\"}} {one}", &one.hex()[1..]);
        let (head, tail) = text.as_bytes().split_at(30);
        for part in [head, tail] {
            scan(part, &mut run, &mut |digest| found.push(digest));
        }
        run.end(&mut |digest| found.push(digest));
        assert_eq!(found, [one, one]);
    }
}
