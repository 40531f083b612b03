//! Finding attempts: which ended under a key, which began and never ended, which were for the same thing under another key.
//!
//! In memory lies only *where* each line is. What it says is read from the record file when asked for, checked against the
//! line's own checksum and key, so that neither a stale index nor a changed file can give a wrong answer: a line that is not
//! where it should be is looked for in the whole file. Whether an attempt settles anything is not decided here.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Deserialize;

use super::index_cache::{self, FileState, Row, Rows};
use super::{Damage, RunLock, StoreError, records};
use crate::attempt::Ended;
use crate::key::ActionKey;
use crate::names::{AttemptId, Axes, RunId};

/// So many questions are answered by looking through all rows.
const FEW: usize = 48;
/// The derived file is written anew once so many lines had to be read beside it.
const WORTH_WRITING: usize = 64;

/// All attempts that the store's records hold.
#[derive(Debug)]
pub struct Index {
    root: PathBuf,
    pub(super) rows: Rows,
    /// Ended lines found since the load, by key: sorting the whole for each would cost more than it gives.
    pub(super) recent: HashMap<ActionKey, Vec<Row>>,
    /// Ended lines that this process wrote itself.
    pub(super) added: HashMap<ActionKey, Vec<Arc<Ended>>>,
    /// Of `recent` and `added`.
    pub(super) fresh: Fresh,
    own: Option<String>,
    /// Of `Rows::files`.
    by_name: HashMap<String, u32>,
    pub(super) near: ByNumber,
    pub(super) wide: ByNumber,
    /// What earlier runs settled, as far as somebody asked.
    pub(super) past: Mutex<super::points::Past>,
    /// What the candidates were called before that have another name now, with the words that say why that is taken for true.
    pub(super) renamed: Mutex<HashMap<String, Option<(String, String)>>>,
    pub(super) open: Mutex<HashMap<u32, Arc<File>>>,
    pub(super) damage: Mutex<Vec<Damage>>,
    folder: Option<(i64, i64)>,
    /// What lies among the record files and is none.
    odd: HashSet<PathBuf>,
}

/// The sorted rows by a number of theirs. A few questions look through all numbers, which costs less than the table that answers
/// many.
#[derive(Debug, Default)]
pub(super) struct ByNumber {
    asked: AtomicUsize,
    /// The numbers alone: looking through them reads a tenth of what the rows hold.
    numbers: OnceLock<Vec<u64>>,
    table: OnceLock<HashMap<u64, Vec<u32>>>,
}

impl ByNumber {
    /// The places of the rows whose number this is.
    pub(super) fn of(&self, rows: &[Row], number: fn(&Row) -> u64, wanted: u64) -> Vec<u32> {
        let few = self.asked.fetch_add(1, Ordering::Relaxed) < FEW;
        if few && self.table.get().is_none() {
            let numbers = self.numbers.get_or_init(|| rows.iter().map(number).collect());
            return (0..).zip(numbers).filter(|(_, number)| **number == wanted).map(|(at, _)| at).collect();
        }
        let table = self.table.get_or_init(|| {
            let mut by: HashMap<u64, Vec<u32>> = HashMap::new();
            for (at, row) in (0..).zip(rows) {
                by.entry(number(row)).or_default().push(at);
            }
            by
        });
        table.get(&wanted).cloned().unwrap_or_default()
    }
}

/// What was found or written since the load, by numbers of the rows: a run that executes much asks at each step, and must not look
/// through all that it has done.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    near: HashMap<u64, Vec<(i64, ActionKey, u64)>>,
    wide: HashMap<u64, Vec<(i64, ActionKey, u64)>>,
}

impl Fresh {
    fn put(&mut self, at: i64, key: ActionKey, near: u64, wide: u64) {
        self.near.entry(near).or_default().push((at, key, near));
        if wide != 0 {
            self.wide.entry(wide).or_default().push((at, key, near));
        }
    }

    fn put_ended(&mut self, ended: &Ended) {
        let (near, wide) = (near_hash(&ended.kind, &ended.axes), wide_hash(&ended.kind, &ended.axes));
        self.put(nanoseconds(ended.at), ended.key, near, wide);
    }

    /// Time, key and `near` of what has this `near`.
    pub(super) fn near(&self, wanted: u64) -> &[(i64, ActionKey, u64)] {
        self.near.get(&wanted).map_or(&[], Vec::as_slice)
    }

    /// The same by `wide`.
    pub(super) fn wide(&self, wanted: u64) -> &[(i64, ActionKey, u64)] {
        self.wide.get(&wanted).map_or(&[], Vec::as_slice)
    }
}

fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

/// What the index needs of a line.
#[derive(Deserialize)]
struct Head {
    line: String,
    attempt: AttemptId,
    key: ActionKey,
    kind: String,
    axes: Axes,
    at: Timestamp,
    #[serde(default)]
    slots: Vec<String>,
}

impl Index {
    /// Reads what all record files hold, by way of the derived file where that is true to them.
    ///
    /// # Errors
    /// If a record file cannot be read at all. Damage within one is no error: see `take_damage`.
    pub fn load(root: &Path) -> Result<Self, StoreError> {
        let mut index = Self {
            root: root.to_owned(),
            rows: index_cache::read(root).unwrap_or_default(),
            recent: HashMap::new(),
            added: HashMap::new(),
            fresh: Fresh::default(),
            own: None,
            by_name: HashMap::new(),
            near: ByNumber::default(),
            wide: ByNumber::default(),
            past: Mutex::default(),
            renamed: Mutex::default(),
            open: Mutex::default(),
            damage: Mutex::default(),
            folder: None,
            odd: HashSet::new(),
        };
        let listed = index.list()?;
        let mut fresh = 0;
        // A file that only grew keeps its rows. If any other is not what it was, all are read anew: it is rare.
        if !index.rows.files.iter().all(|f| listed.get(&f.name).is_some_and(|now| f.became(now))) {
            index.rows = Rows::default();
            fresh = WORTH_WRITING;
        }
        index.by_name = (0..).zip(&index.rows.files).map(|(at, file)| (file.name.clone(), at)).collect();
        for (name, now) in listed {
            fresh += index.read_tail(&name, now)?;
        }
        index.settle_rows();
        if fresh >= WORTH_WRITING {
            // Derived: without it the next load is slower, no more. A store that is only read keeps none.
            let _ = index_cache::write(root, &index.rows);
        }
        for file in &index.rows.files {
            index.judge_torn(file)?;
        }
        let known = index.rows.damage.iter().filter_map(|(file, line, why)| {
            let name = &index.rows.files.get(*file as usize)?.name;
            Some(Damage { path: index.path(name), line: Some(*line), why: why.clone() })
        });
        let known: Vec<_> = known.collect();
        index.say(known);
        Ok(index)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join("records/v1").join(name)
    }

    pub(super) fn say(&self, damage: impl IntoIterator<Item = Damage>) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).extend(damage);
    }

    /// An unfinished line is damage once nobody is left to finish it.
    fn judge_torn(&self, file: &FileState) -> Result<(), StoreError> {
        if let (true, Some(run)) = (file.torn, file.name.strip_suffix(".jsonl"))
            && !RunLock::is_alive(&self.root, &RunId::from(run))?
        {
            let why = "the last line is not finished; its attempt counts as not recorded".to_owned();
            self.say([Damage { path: self.path(&file.name), line: Some(file.count + 1), why }]);
        }
        Ok(())
    }

    /// The record files that are there now.
    fn list(&mut self) -> Result<HashMap<String, FileState>, StoreError> {
        let dir = self.root.join("records/v1");
        let mut found = HashMap::new();
        let io = |e| StoreError::io("list", &dir)(e);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(io(e)),
        };
        let meta = fs::metadata(&dir).map_err(io)?;
        // A folder that changed a moment ago may change again without its time changing: then it is listed again.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        self.folder = (now - meta.mtime() > 2).then(|| (meta.mtime(), meta.mtime_nsec()));
        for entry in entries {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.ends_with(".jsonl") && self.own.as_ref() != Some(&name) {
                match fs::metadata(entry.path()) {
                    Ok(meta) if !meta.is_file() => self.odd(entry.path()),
                    Ok(meta) => drop(found.insert(name.clone(), FileState::of(name, &meta))),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(io(e)),
                }
            }
        }
        Ok(found)
    }

    /// Something that is no record file: never opened, since reading a pipe or a device may never end. Said once.
    fn odd(&mut self, path: PathBuf) {
        let why = "it is no regular file, and is left alone; remove it".to_owned();
        if self.odd.insert(path.clone()) {
            self.say([Damage { path, line: None, why }]);
        }
    }

    /// Reads what a file holds beyond what is known. Gives the number of lines.
    fn read_tail(&mut self, name: &str, now: FileState) -> Result<usize, StoreError> {
        let file = match self.by_name.get(name) {
            Some(&file) => file,
            None => {
                let file = self.rows.files.len() as u32;
                self.rows.files.push(FileState { name: name.to_owned(), ..FileState::default() });
                self.by_name.insert(name.to_owned(), file);
                file
            }
        };
        let at = file as usize;
        if self.rows.files[at].same_as(&now) {
            return Ok(0);
        }
        let path = self.path(name);
        let (offset, count) = (self.rows.files[at].offset, self.rows.files[at].count);
        let rows = &mut self.rows;
        let end = records::scan(&path, offset, count, |offset, number, line| {
            let head = line.map_err(str::to_owned).and_then(|line| {
                if records::is_whole(line) {
                    serde_json::from_slice::<Head>(line).map_err(|e| format!("the line cannot be read: {e}"))
                } else {
                    Err("the line does not agree with its checksum; its attempt counts as not recorded".to_owned())
                }
            });
            match (head, line) {
                (Ok(head), Ok(line)) => {
                    let row = Row {
                        key: head.key,
                        at: nanoseconds(head.at),
                        near: near_hash(&head.kind, &head.axes),
                        wide: wide_hash(&head.kind, &head.axes),
                        file,
                        offset,
                        len: line.len() as u32,
                        kind: kind_code(&head.kind, !head.slots.is_empty()),
                        name: rows.intern(head.attempt.as_str()),
                    };
                    if head.line == "ended" { rows.tail.push(row) } else { rows.started.push(row) }
                }
                (Err(why), _) => rows.damage.push((file, number, why)),
                (Ok(_), Err(_)) => {}
            }
        })?;
        let lines = end.count - count;
        self.rows.files[at] = FileState { offset: end.offset, count: end.count, torn: end.torn.is_some(), ..now };
        Ok(usize::try_from(lines).unwrap_or(usize::MAX))
    }

    /// Takes the tail into the sorted rows and forgets the starts that have ended.
    fn settle_rows(&mut self) {
        self.rows.merge_tail();
        let started = std::mem::take(&mut self.rows.started);
        let left = started.into_iter().filter(|s| !self.has_ended(s)).collect();
        self.rows.started = left;
    }

    fn has_ended(&self, start: &Row) -> bool {
        let name = self.rows.name(start);
        self.rows
            .of(&start.key)
            .iter()
            .chain(self.recent.get(&start.key).into_iter().flatten())
            .any(|row| self.rows.name(row) == name)
            || self.added.get(&start.key).is_some_and(|all| all.iter().any(|e| e.attempt.as_str() == name))
    }

    /// From now on the record file of `run` is not read: this process writes it and tells of each line by `add`.
    pub fn own(&mut self, run: &RunId) {
        self.own = Some(format!("{run}.jsonl"));
    }

    /// Whether this process writes the records of a run.
    #[must_use]
    pub fn is_own(&self, run: &RunId) -> bool {
        self.own.as_deref().and_then(|own| own.strip_suffix(".jsonl")) == Some(run.as_str())
    }

    /// Adds an attempt that this process has ended.
    pub fn add(&mut self, ended: Arc<Ended>) {
        self.rows.started.retain(|s| s.key != ended.key || self.rows.names.get(s.name) != ended.attempt.as_str());
        self.fresh.put_ended(&ended);
        self.added.entry(ended.key).or_default().push(ended);
    }

    /// Reads what other runs have written since. Cheap when nothing was: one look at the folder, one at each live file.
    ///
    /// # Errors
    /// If a record file cannot be read at all.
    pub fn refresh(&mut self) -> Result<(), StoreError> {
        let dir = self.root.join("records/v1");
        let meta = fs::metadata(&dir).ok();
        let unchanged = self.folder.is_some() && meta.map(|m| (m.mtime(), m.mtime_nsec())) == self.folder;
        let listed = if unchanged { self.live()? } else { Some(self.list()?) };
        let mut known = self.rows.files.iter().filter(|f| self.own.as_ref() != Some(&f.name));
        let sound = listed
            .as_ref()
            .is_some_and(|listed| unchanged || known.all(|f| listed.get(&f.name).is_some_and(|now| f.became(now))));
        let Some(listed) = listed.filter(|_| sound) else {
            // Something was removed or rewritten: nothing that is known can be built upon.
            let new = Self::load(&self.root)?;
            let (own, added, odd) = (self.own.take(), std::mem::take(&mut self.added), std::mem::take(&mut self.odd));
            let mut fresh = Fresh::default();
            added.values().flatten().for_each(|ended| fresh.put_ended(ended));
            *self = Self { own, added, fresh, odd, ..new };
            return Ok(());
        };
        let before = self.rows.damage.len();
        for (name, now) in listed {
            self.read_tail(&name, now)?;
        }
        let new: Vec<_> = self.rows.damage[before..].to_vec();
        self.say(new.into_iter().map(|(f, line, why)| Damage {
            path: self.path(&self.rows.files[f as usize].name),
            line: Some(line),
            why,
        }));
        for row in std::mem::take(&mut self.rows.tail) {
            self.fresh.put(row.at, row.key, row.near, row.wide);
            self.recent.entry(row.key).or_default().push(row);
        }
        self.settle_rows();
        Ok(())
    }

    /// The files whose runs are under way, or were at the last look. `None` if one of them shrank or is another.
    fn live(&mut self) -> Result<Option<HashMap<String, FileState>>, StoreError> {
        let mut found = HashMap::new();
        for at in 0..self.rows.files.len() {
            let file = &self.rows.files[at];
            if file.closed || self.own.as_ref() == Some(&file.name) {
                continue;
            }
            // Asked before the file is read: what a run wrote before it died is then within this last reading.
            let run = RunId::from(file.name.trim_end_matches(".jsonl"));
            let alive = RunLock::is_alive(&self.root, &run)?;
            let path = self.path(&file.name);
            let now = match fs::metadata(&path) {
                Ok(meta) => FileState::of(file.name.clone(), &meta),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(StoreError::io("look at", &path)(e)),
            };
            if !file.became(&now) {
                return Ok(None);
            }
            if now.same_as(file) {
                self.rows.files[at].closed = !alive;
            } else {
                found.insert(now.name.clone(), now);
            }
        }
        Ok(Some(found))
    }
}

/// A number for a kind and its axes.
#[must_use]
pub fn near_hash(kind: &str, axes: &Axes) -> u64 {
    let axes = axes.0.iter().flat_map(|(axis, value)| [axis.as_str(), value.as_str()]);
    fnv([kind].into_iter().chain(axes))
}

/// A number for a kind and a commit, whatever else the axes are; 0 without a commit. An environment is most often one for all
/// commits, recorded at the one that came first: of it the kind alone counts.
pub(super) fn wide_hash(kind: &str, axes: &Axes) -> u64 {
    match axes.get("commit") {
        Some(_) if kind == "environment" => fnv([kind].into_iter()),
        Some(commit) => fnv([kind, commit].into_iter()),
        None => 0,
    }
}

/// A number for a kind of step and whether it held slots: by it attempts are found without being read.
pub(super) fn kind_code(kind: &str, held: bool) -> u32 {
    let kind = fnv([kind].into_iter()) as u32;
    kind & !1 | u32::from(held)
}

/// FNV-1a over texts: the same on every machine.
pub(super) fn fnv<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
