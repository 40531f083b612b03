//! The questions that the index answers, each line of an answer read from its record file and checked.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::index::{Index, near_hash};
use super::index_cache::Row;
use super::{Damage, StoreError, records};
use crate::attempt::{Ended, Line, Started};
use crate::key::ActionKey;
use crate::names::Axes;

/// Record files held open for reading.
const OPEN_FILES: usize = 64;

impl Index {
    /// The attempts that ended under a key, in the order of their ends, then of their ids.
    ///
    /// # Errors
    /// If a record file cannot be read. A line that is damaged is left out and said.
    pub fn attempts(&self, key: &ActionKey) -> Result<Vec<Arc<Ended>>, StoreError> {
        let mut all: Vec<Arc<Ended>> = self.added.get(key).cloned().unwrap_or_default();
        for row in self.rows.of(key).iter().chain(self.recent.get(key).into_iter().flatten()) {
            if let Some(Line::Ended(ended)) = self.line(row, true)? {
                all.push(Arc::new(ended));
            }
        }
        all.sort_by(|a, b| (a.at, &a.attempt).cmp(&(b.at, &b.attempt)));
        // Two ends of one attempt: the earlier holds.
        let mut seen = HashSet::new();
        all.retain(|e| seen.insert(e.attempt.clone()));
        Ok(all)
    }

    /// Whether any attempt ended under a key. Reads nothing.
    #[must_use]
    pub fn knows(&self, key: &ActionKey) -> bool {
        !self.rows.of(key).is_empty() || self.recent.contains_key(key) || self.added.contains_key(key)
    }

    /// The attempts that began and of which no end is recorded: under way, or left by a run that died.
    ///
    /// # Errors
    /// If a record file cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Started>, StoreError> {
        let mut all = Vec::new();
        for row in &self.rows.started {
            if let Some(Line::Started(started)) = self.line(row, false)? {
                all.push(started);
            }
        }
        all.sort_by(|a, b| (a.at, &a.attempt).cmp(&(b.at, &b.attempt)));
        Ok(all)
    }

    /// The keys under which attempts of this kind ended for the same axes, the newest first: against these a miss is explained.
    #[must_use]
    pub fn nearest_candidates(&self, kind: &str, axes: &Axes) -> Vec<ActionKey> {
        let wanted = near_hash(kind, axes);
        let near = self.near.get_or_init(|| {
            let mut near: HashMap<u64, Vec<u32>> = HashMap::new();
            for (i, row) in (0..).zip(&self.rows.sorted) {
                near.entry(row.near).or_default().push(i);
            }
            near
        });
        let mut found: Vec<_> = near
            .get(&wanted)
            .into_iter()
            .flatten()
            .map(|&i| &self.rows.sorted[i as usize])
            .map(|r| (r.at, r.key))
            .collect();
        found.extend(self.recent.values().flatten().filter(|r| r.near == wanted).map(|r| (r.at, r.key)));
        let own = self.added.values().flatten().filter(|e| e.kind == kind && e.axes == *axes);
        found.extend(own.map(|e| (i64::try_from(e.at.as_nanosecond()).unwrap_or(i64::MAX), e.key)));
        found.sort_by(|a, b| b.cmp(a));
        let mut seen = HashSet::new();
        found.into_iter().map(|(_, key)| key).filter(|key| seen.insert(*key)).collect()
    }

    /// How many ended lines are known.
    #[must_use]
    pub fn len(&self) -> usize {
        let recent: usize = self.recent.values().map(Vec::len).sum();
        let added: usize = self.added.values().map(Vec::len).sum();
        self.rows.sorted.len() + recent + added
    }

    /// Whether nothing has ended yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was found damaged since the last call: to be said aloud.
    #[must_use]
    pub fn take_damage(&self) -> Vec<Damage> {
        std::mem::take(&mut self.damage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The line of a row, that of an end or of a start, from the record file itself.
    fn line(&self, row: &Row, end: bool) -> Result<Option<Line>, StoreError> {
        let path = self.path(&self.rows.files[row.file as usize].name);
        let mut bytes = vec![0; row.len as usize];
        let read = self.open_file(row.file, &path).and_then(|file| file.read_exact_at(&mut bytes, row.offset));
        match read {
            Ok(()) => {
                if let Some(line) = self.expected(row, end, &bytes) {
                    return Ok(Some(line));
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => {}
            Err(e) => return Err(StoreError::io("read", &path)(e)),
        }
        // Not there: the file was changed under the index.
        let mut found = None;
        if path.exists() {
            records::scan(&path, 0, 0, |_, _, line| {
                if let (None, Ok(line)) = (&found, line) {
                    found = self.expected(row, end, line);
                }
            })?;
        }
        if found.is_none() {
            let why = format!(
                "the line of attempt {} at byte {} is damaged or gone; it counts as not recorded",
                self.rows.name(row),
                row.offset
            );
            self.say([Damage { path, line: None, why }]);
        }
        Ok(found)
    }

    /// The line these bytes are, if it is the one of the row.
    fn expected(&self, row: &Row, end: bool, bytes: &[u8]) -> Option<Line> {
        let line = records::decode(bytes).ok()?;
        let (key, attempt) = match &line {
            Line::Started(started) => (&started.key, &started.attempt),
            Line::Ended(ended) => (&ended.key, &ended.attempt),
        };
        (matches!(line, Line::Ended(_)) == end && *key == row.key && attempt.as_str() == self.rows.name(row))
            .then_some(line)
    }

    fn open_file(&self, file: u32, path: &Path) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&file) {
            return Ok(Arc::clone(file));
        }
        if open.len() >= OPEN_FILES {
            open.clear();
        }
        let opened = Arc::new(File::open(path)?);
        open.insert(file, Arc::clone(&opened));
        Ok(opened)
    }
}
