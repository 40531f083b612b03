//! The questions that the index answers, each line of an answer read from its record file and checked.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::index::{Index, kind_code, near_hash, wide_hash};
use super::index_cache::Row;
use super::{Damage, StoreError, records};
use crate::attempt::{Ended, Line, Started};
use crate::hostile::open_regular;
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
        Ok(in_order(all))
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
        let near = self.near.of(&self.rows.sorted, |row| row.near, wanted);
        self.newest(&near, self.fresh.near(wanted), &|_| true)
    }

    /// The keys under which attempts of this kind ended for the same commit at points that are none of today's, the newest
    /// first: what a candidate that has another name now did under its old one. `is_today` knows points by `near_hash`.
    #[must_use]
    pub fn strays(&self, kind: &str, axes: &Axes, is_today: &dyn Fn(u64) -> bool) -> Vec<ActionKey> {
        let wanted = wide_hash(kind, axes);
        if wanted == 0 {
            return Vec::new();
        }
        let wide = self.wide.of(&self.rows.sorted, |row| row.wide, wanted);
        self.newest(&wide, self.fresh.wide(wanted), &|near| !is_today(near))
    }

    /// What a candidate was called before, with the words that say why that is taken for true; found once. `find` gives `None`
    /// where nothing can be said yet.
    pub fn old_name(
        &self,
        candidate: &str,
        find: impl FnOnce() -> Option<Option<(String, String)>>,
    ) -> Option<(String, String)> {
        let known = || self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known().get(candidate) {
            return name.clone();
        }
        let found = find()?;
        known().insert(candidate.to_owned(), found.clone());
        found
    }

    /// The keys of some sorted rows and of what is fresh, as far as their `near` is wanted: the newest first.
    fn newest(&self, sorted: &[u32], fresh: &[(i64, ActionKey, u64)], wanted: &dyn Fn(u64) -> bool) -> Vec<ActionKey> {
        let sorted = sorted.iter().map(|&at| &self.rows.sorted[at as usize]).map(|row| (row.at, row.key, row.near));
        let mut found: Vec<_> = sorted.chain(fresh.iter().copied()).filter(|(_, _, near)| wanted(*near)).collect();
        found.sort_by(|a, b| b.cmp(a));
        let mut seen = HashSet::new();
        found.into_iter().map(|(_, key, _)| key).filter(|key| seen.insert(*key)).collect()
    }

    /// The attempts of some kinds that ended, and with `held` those of any kind that held slots: the newest `most` of each
    /// kind, in no order. Those whose ids are `known` already are left out unread.
    ///
    /// # Errors
    /// If a record file cannot be read.
    pub fn of_kinds(
        &self,
        kinds: &[&str],
        held: bool,
        most: usize,
        known: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Arc<Ended>>, StoreError> {
        let codes: Vec<u32> = kinds.iter().map(|kind| kind_code(kind, false)).collect();
        let wanted = |code: u32| codes.contains(&(code & !1)) || held && code & 1 == 1;
        let rows = self.rows.sorted.iter().chain(self.recent.values().flatten()).filter(|row| wanted(row.kind));
        // Of each kind the newest: what is older than all of them is passed over without being kept.
        let mut by_kind: HashMap<u32, BinaryHeap<Reverse<Aged<'_>>>> = HashMap::new();
        for row in rows {
            let newest = by_kind.entry(row.kind & !1).or_default();
            if newest.len() < most {
                newest.push(Reverse(Aged(row)));
            } else if let Some(mut oldest) = newest.peek_mut().filter(|oldest| oldest.0.0.at < row.at) {
                *oldest = Reverse(Aged(row));
            }
        }
        let own = self.added.values().flatten().filter(|e| wanted(kind_code(&e.kind, !e.slots.is_empty())));
        let mut all: Vec<Arc<Ended>> = own.filter(|e| !known(e.attempt.as_str())).cloned().collect();
        let rows = by_kind.into_values().flatten().map(|Reverse(Aged(row))| row);
        for row in rows.filter(|row| !known(self.rows.name(row))) {
            if let Some(Line::Ended(ended)) = self.line(row, true)? {
                all.push(Arc::new(ended));
            }
        }
        Ok(in_order(all))
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
        let opened = Arc::new(open_regular(path)?);
        open.insert(file, Arc::clone(&opened));
        Ok(opened)
    }
}

/// A row by its age.
struct Aged<'a>(&'a Row);

impl Ord for Aged<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.at.cmp(&other.0.at)
    }
}

impl PartialOrd for Aged<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Aged<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.at == other.0.at
    }
}

impl Eq for Aged<'_> {}

/// Ends in the order of their times, then of their attempts' ids. Of two ends of one attempt the earlier holds.
fn in_order(mut all: Vec<Arc<Ended>>) -> Vec<Arc<Ended>> {
    all.sort_by(|a, b| (a.at, &a.attempt).cmp(&(b.at, &b.attempt)));
    let mut seen = HashSet::new();
    all.retain(|e| seen.insert(e.attempt.clone()));
    all
}
