//! What the parts of the store promise together: damage is a miss, lines never precede their blobs, indexes never lie.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use super::*;
use crate::attempt::{Ended, LimitUse, Line, Started};
use crate::digest::Digest;
use crate::key::{ActionKey, Value};
use crate::names::{AttemptId, Axes, RunId};
use crate::outcome::Outcome;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    (dir, store)
}

fn key(n: u32) -> ActionKey {
    ActionKey(Digest::of(&n.to_le_bytes()))
}

fn axes(n: u32) -> Axes {
    let pairs =
        [("repo", "vllm".to_owned()), ("commit", format!("{n:040x}")), ("candidate", "trae-sonnet45".to_owned())];
    Axes(pairs.into_iter().map(|(a, v)| (a.to_owned(), v)).collect())
}

fn ended(run: &str, n: u32) -> Ended {
    Ended {
        attempt: AttemptId::new(format!("{run}-{n}")),
        run: RunId::from(run),
        adopts: None,
        key: key(n),
        kind: "command".into(),
        step: "agent".into(),
        axes: axes(n),
        at: Timestamp::from_second(1_790_000_000 + i64::from(n)).unwrap(),
        began: None,
        pipeline: None,
        reserved: None,
        wall_ms: 12_345,
        outcome: Outcome::Succeeded,
        outputs: BTreeMap::from([("tree".to_owned(), Value::Blob(Digest::of(b"tree")))]),
        logs: BTreeMap::from([("stdout".to_owned(), Digest::of(b"o")), ("stderr".to_owned(), Digest::of(b"e"))]),
        limits: BTreeMap::from([("timeout".to_owned(), LimitUse { limit: 600_000, used: 12_345, met: false })]),
        notes: Vec::new(),
        process: None,
        read_by: None,
        usage: None,
        slots: Vec::new(),
        sandbox: None,
    }
}

fn started(run: &str, n: u32) -> Started {
    let e = ended(run, n);
    let (attempt, kind, step) = (e.attempt, e.kind, e.step);
    let host = "h".into();
    Started {
        attempt,
        run: e.run,
        key: e.key,
        kind,
        step,
        axes: e.axes,
        at: e.at,
        slots: Vec::new(),
        host,
        pipeline: None,
        reserved: None,
    }
}

fn write_run(store: &Store, run: &str, numbers: impl IntoIterator<Item = u32>) -> std::path::PathBuf {
    let writer = RecordWriter::create(&store.root, &RunId::from(run), Arc::clone(&store.cas)).unwrap();
    for n in numbers {
        writer.append(&Line::Started(started(run, n))).unwrap();
        writer.append(&Line::Ended(ended(run, n))).unwrap();
    }
    writer.commit().unwrap();
    writer.path().to_owned()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn blobs_are_seen_at_once_but_named_only_when_durable() {
    let (dir, store) = store();
    let cas = &store.cas;
    let digest = cas.put(b"content").unwrap();
    assert!(cas.has(&digest) && !cas.path(&digest).exists());
    assert_eq!(cas.get(&digest, 100).unwrap().unwrap(), b"content");
    assert!(Cas::open(&store.root).get(&digest, 100).unwrap().is_none());
    assert_eq!((cas.put(b"content").unwrap(), cas.pending()), (digest, 1));
    let copy = dir.path().join("copy");
    assert!(cas.copy_to(&digest, &copy).unwrap());
    cas.sync().unwrap();
    assert_eq!(cas.pending(), 0);
    assert_eq!(fs::read(cas.path(&digest)).unwrap(), b"content");
    assert!(fs::metadata(cas.path(&digest)).unwrap().permissions().readonly());
    assert_eq!((cas.put(b"content").unwrap(), cas.pending()), (digest, 0));
    assert_eq!(cas.put_file(&copy).unwrap(), digest);
    assert!(matches!(cas.get(&digest, 6), Err(StoreError::TooLarge { .. })));
    assert!(matches!(cas.put_as(&digest, b"other"), Err(StoreError::OtherDigest { .. })));
    assert!(cas.put_file(dir.path()).is_err());
    fs::write(&copy, vec![7; 3 << 20]).unwrap();
    let large = cas.put_file(&copy).unwrap();
    assert!(cas.copy_to(&large, &dir.path().join("again")).unwrap());
    assert!(cas.copy_to(&large, &copy).is_err(), "never over a file");
    drop(store);
    let root = dir.path().join("cache");
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0, "what was not committed is taken back");
}

#[test]
fn a_flipped_byte_in_a_blob_is_one_miss_said_aloud() {
    let (_dir, store) = store();
    let digest = store.cas.put(b"content").unwrap();
    store.cas.sync().unwrap();
    flip(&store.cas.path(&digest), 3);
    assert!(store.cas.get(&digest, 100).unwrap().is_none());
    let damage = store.cas.take_damage();
    assert_eq!(damage.len(), 1);
    assert!(damage[0].to_string().contains("moved to"), "{}", damage[0]);
    assert_eq!(fs::read_dir(store.root.join("corrupt")).unwrap().count(), 1);
    assert!(!store.cas.has(&digest));
    // One that was cut short is found by whoever puts the same again.
    store.cas.put(b"content").unwrap();
    store.cas.sync().unwrap();
    fs::remove_file(store.cas.path(&digest)).unwrap();
    fs::write(store.cas.path(&digest), "con").unwrap();
    store.cas.put(b"content").unwrap();
    store.cas.sync().unwrap();
    assert_eq!(store.cas.get(&digest, 100).unwrap().unwrap(), b"content");
}

#[test]
fn threads_put_and_read_the_same_blobs_while_groups_commit() {
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..200u32 {
                    let digest = store.cas.put(&n.to_le_bytes()).unwrap();
                    assert!(store.cas.has(&digest));
                    assert_eq!(store.cas.get(&digest, 9).unwrap().unwrap(), n.to_le_bytes());
                    if n % 20 == 0 {
                        store.cas.sync().unwrap();
                    }
                }
            });
        }
    });
    store.cas.sync().unwrap();
    assert!(store.cas.take_damage().is_empty());
    assert_eq!(fs::read_dir(store.root.join("tmp")).unwrap().count(), 0);
}

#[test]
fn lines_follow_their_blobs() {
    let (_dir, store) = store();
    let run = RunId::from("r1");
    let writer = RecordWriter::create(&store.root, &run, Arc::clone(&store.cas)).unwrap();
    assert!(matches!(RecordWriter::create(&store.root, &run, Arc::clone(&store.cas)), Err(StoreError::Exists { .. })));
    let digest = store.cas.put(b"output").unwrap();
    assert_eq!(writer.append(&Line::Ended(ended("r1", 1))).unwrap(), 1);
    assert_eq!(writer.append(&Line::Ended(ended("r1", 2))).unwrap(), 2);
    assert_eq!(fs::metadata(writer.path()).unwrap().len(), 0);
    assert_eq!(writer.commit().unwrap(), 2);
    assert!(store.cas.path(&digest).exists());
    assert_eq!(read_records(writer.path()).unwrap().lines.len(), 2);
    // A blob that is lost stops every later line: it may name the blob.
    let lost = store.cas.put(b"lost").unwrap();
    for temp in fs::read_dir(store.root.join("tmp")).unwrap() {
        fs::remove_file(temp.unwrap().path()).unwrap();
    }
    writer.append(&Line::Ended(ended("r1", 3))).unwrap();
    assert!(writer.commit().is_err());
    assert!(writer.commit().is_err(), "and says so again");
    assert!(!store.cas.path(&lost).exists());
    assert_eq!(read_records(writer.path()).unwrap().lines.len(), 2);
}

#[test]
fn a_run_that_executed_nothing_leaves_no_records() {
    let (_dir, store) = store();
    let path = write_run(&store, "r0", []);
    assert!(!path.exists());
}

#[test]
fn torn_and_damaged_lines_cost_only_themselves() {
    let (_dir, store) = store();
    let path = write_run(&store, "r1", 0..3);
    let whole = fs::read(&path).unwrap();
    // In memory where that is possible: ext4 flushes a file that is cut and written again, thousands of times here.
    let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = memory.path().join("r1.jsonl");
    // Every place at which a crash can cut.
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let records = read_records(&path).unwrap();
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
        assert_eq!((records.lines.len(), records.damage.len()), (lines, 0));
        assert_eq!(records.torn.is_some(), records.offset != cut as u64);
        // The rest comes.
        fs::write(&path, &whole).unwrap();
        let rest = read_records_from(&path, &records);
        assert_eq!(records.lines.len() + rest.lines.len(), 6);
        assert_eq!((rest.count, rest.offset), (6, whole.len() as u64));
    }
    // Every bit that can flip, one in each byte: at most two lines go (a lost line end joins two), none changes.
    let sound = read_records(&path).unwrap().lines;
    assert_eq!(sound.len(), 6);
    for at in (0..whole.len()).step_by(3) {
        flip(&path, at);
        let records = read_records(&path).unwrap();
        assert!(records.lines.len() >= 4 && records.damage.len() + usize::from(records.torn.is_some()) > 0, "{at}");
        assert!(records.lines.iter().all(|line| sound.contains(line)));
        fs::write(&path, &whole).unwrap();
    }
    fs::write(&path, [&vec![b'x'; records::MAX_LINE * 2], &b"\n"[..], &whole].concat()).unwrap();
    let records = read_records(&path).unwrap();
    assert_eq!((records.lines, records.damage.len()), (sound, 1));
    assert_eq!(records.damage[0].line, Some(1));
}

fn read_records_from(path: &Path, before: &Records) -> Records {
    records::read_from(path, before.offset, before.count).unwrap()
}

fn found(index: &Index, n: u32) -> Vec<String> {
    index.attempts(&key(n)).unwrap().iter().map(|e| e.attempt.to_string()).collect()
}

#[test]
fn the_index_finds_what_ended_what_did_not_and_what_is_near() {
    let (_dir, store) = store();
    write_run(&store, "r1", 0..100);
    let writer = RecordWriter::create(&store.root, &RunId::from("r2"), Arc::clone(&store.cas)).unwrap();
    writer.append(&Line::Started(started("r2", 5))).unwrap();
    writer.append(&Line::Ended(Ended { key: key(1000), at: Timestamp::now(), ..ended("r2", 7) })).unwrap();
    writer.commit().unwrap();
    for from_cache in [false, true] {
        let index = Index::load(&store.root).unwrap();
        assert!(store.root.join("index/attempts.v3").exists(), "{from_cache}");
        assert_eq!((index.len(), found(&index, 5)), (101, vec!["r1-5".to_owned()]));
        assert_eq!(index.unfinished().unwrap(), [started("r2", 5)]);
        assert_eq!(index.nearest_candidates("command", &axes(7)), [key(1000), key(7)]);
        assert!(index.nearest_candidates("agent", &axes(7)).is_empty());
        assert_eq!(index.attempts(&key(5)).unwrap()[0].as_ref(), &ended("r1", 5));
        assert!(index.attempts(&key(555)).unwrap().is_empty() && !index.knows(&key(555)));
    }
    // What a live run adds is seen; so is a run that appears; an adopted end closes the start.
    let mut index = Index::load(&store.root).unwrap();
    index.refresh().unwrap();
    writer.append(&Line::Ended(Ended { key: key(5), ..ended("r2", 8) })).unwrap();
    writer.commit().unwrap();
    write_run(&store, "r3", [2000]);
    let adopting = RecordWriter::create(&store.root, &RunId::from("r4"), Arc::clone(&store.cas)).unwrap();
    adopting.append(&Line::Ended(Ended { adopts: Some(RunId::from("r2")), ..ended("r2", 5) })).unwrap();
    adopting.commit().unwrap();
    index.refresh().unwrap();
    assert_eq!(found(&index, 5), ["r1-5", "r2-5", "r2-8"]);
    assert_eq!(found(&index, 2000), ["r3-2000"]);
    assert!(index.unfinished().unwrap().is_empty());
    index.own(&RunId::from("r5"));
    index.add(Arc::new(ended("r5", 5)));
    write_run(&store, "r5", [5]);
    index.refresh().unwrap();
    assert_eq!(found(&index, 5), ["r1-5", "r2-5", "r5-5", "r2-8"]);
    assert!(index.take_damage().is_empty());
    drop((writer, adopting));
}

#[test]
fn a_stale_or_false_cache_never_answers() {
    let (_dir, store) = store();
    let path = write_run(&store, "r1", 0..100);
    write_run(&store, "r2", 200..300);
    let whole = fs::read(&path).unwrap();
    let stale = Index::load(&store.root).unwrap();
    // The cache itself is damaged, at any place.
    let cache = store.root.join("index/attempts.v3");
    for at in [3, 40, 5000] {
        flip(&cache, at);
        assert_eq!(found(&Index::load(&store.root).unwrap(), 50), ["r1-50"]);
    }
    fs::write(&cache, "short").unwrap();
    assert_eq!(Index::load(&store.root).unwrap().len(), 200);
    // A digit changes under an index that is in memory, and under one that is loaded.
    let at = whole.windows(5).position(|w| w == b"12345").unwrap();
    let mut bytes = whole.clone();
    bytes[at] = b'9';
    fs::write(&path, &bytes).unwrap();
    assert!(found(&stale, 0).is_empty());
    assert_eq!(stale.take_damage().len(), 1);
    let index = Index::load(&store.root).unwrap();
    assert!(found(&index, 0).is_empty() && found(&index, 1) == ["r1-1"]);
    assert_eq!(index.take_damage()[0].line, Some(2));
    assert_eq!(Index::load(&store.root).unwrap().take_damage().len(), 1, "said by each load");
    // A line is gone from the middle: others are found where they are now.
    let mut lines: Vec<_> = whole.split_inclusive(|b| *b == b'\n').collect();
    lines.drain(20..22);
    fs::write(&path, lines.concat()).unwrap();
    assert!(found(&stale, 10).is_empty());
    assert_eq!(found(&stale, 99), ["r1-99"]);
    let mut refreshed = Index::load(&store.root).unwrap();
    assert_eq!(refreshed.len(), 199);
    fs::remove_file(&path).unwrap();
    refreshed.refresh().unwrap();
    assert_eq!((refreshed.len(), Index::load(&store.root).unwrap().len()), (100, 100));
}

#[test]
fn an_unfinished_line_is_damage_once_its_run_is_dead() {
    let (_dir, store) = store();
    let path = write_run(&store, "r1", 0..2);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"line\":\"en").unwrap();
    let alive = RunLock::take(&store.root, &RunId::from("r1")).unwrap();
    assert!(Index::load(&store.root).unwrap().take_damage().is_empty());
    drop(alive);
    let index = Index::load(&store.root).unwrap();
    assert_eq!(index.take_damage()[0].line, Some(5));
    assert_eq!(index.len(), 2);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "flow-test"])
        .arg(dir.path())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        eprintln!("skipped: no tmpfs can be mounted here, so that no disk can be filled");
        return;
    }
    let store = Store::open(dir.path()).unwrap();
    let writer = RecordWriter::create(&store.root, &RunId::from("r1"), Arc::clone(&store.cas)).unwrap();
    writer.append(&Line::Ended(ended("r1", 1))).unwrap();
    writer.commit().unwrap();
    let error = store.cas.put(&vec![1; 1 << 20]).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(fs::read_dir(store.root.join("tmp")).unwrap().count(), 0);
    // Fill it to the last byte, then append.
    let mut filler = fs::File::create(dir.path().join("filler")).unwrap();
    while filler.write(&[0; 512]).is_ok() {}
    for n in 2..20 {
        writer.append(&Line::Ended(ended("r1", n))).unwrap();
    }
    let error = writer.commit().unwrap_err();
    assert!(error.is_full(), "{error}");
    let records = read_records(writer.path()).unwrap();
    assert!(records.lines.len() == 1 && records.torn.is_none());
    // Room is made, and nothing was lost.
    drop(filler);
    fs::remove_file(dir.path().join("filler")).unwrap();
    assert_eq!(writer.commit().unwrap(), 19);
    assert_eq!(read_records(writer.path()).unwrap().lines.len(), 19);
    drop((writer, store));
    std::process::Command::new("umount").arg(dir.path()).status().unwrap();
}

/// `cargo test --release --lib measure -- --ignored --nocapture`
#[test]
#[ignore = "measures; asserts nothing"]
fn measure_60000_attempts() {
    let (_dir, store) = store();
    let clock = Instant::now();
    for part in 0..20 {
        write_run(&store, &format!("20261121T0304{part:02}Z-1a2b"), part * 3000..(part + 1) * 3000);
    }
    eprintln!("write 60,000 attempts, 20 commits: {:?}", clock.elapsed());
    let bytes: u64 =
        fs::read_dir(store.root.join("records/v1")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    for what in ["load without cache", "load from cache", "load from cache again"] {
        let clock = Instant::now();
        let mut index = Index::load(&store.root).unwrap();
        eprintln!("{what}: {:?} ({} MiB of records)", clock.elapsed(), bytes >> 20);
        let clock = Instant::now();
        let found: usize = (0..60_000).map(|n| index.attempts(&key(n)).unwrap().len()).sum();
        eprintln!("  look up and read {found}: {:?}", clock.elapsed());
        let clock = Instant::now();
        index.refresh().unwrap();
        eprintln!("  first refresh: {:?}", clock.elapsed());
        let clock = Instant::now();
        index.refresh().unwrap();
        eprintln!("  second refresh: {:?}", clock.elapsed());
        let clock = Instant::now();
        let _ = index.nearest_candidates("command", &axes(77));
        eprintln!("  first nearest: {:?}", clock.elapsed());
    }
    let clock = Instant::now();
    let digests: Vec<_> = (0..2000u32).map(|n| store.cas.put(&vec![n as u8; 700 + n as usize]).unwrap()).collect();
    eprintln!("put 2,000 blobs: {:?}", clock.elapsed());
    let clock = Instant::now();
    store.cas.sync().unwrap();
    eprintln!("sync them: {:?}", clock.elapsed());
    let clock = Instant::now();
    digests.iter().for_each(|d| drop(store.cas.get(d, 1 << 20).unwrap().unwrap()));
    eprintln!("get them: {:?}", clock.elapsed());
}
