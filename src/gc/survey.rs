//! What lies in a store that may be taken away, with its size and when it was used last, in the order in which it goes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::named::unnamed;
use super::{Kind, Thing};
use crate::attempt::Ended;
use crate::digest::Digest;
use crate::names::RunId;
use crate::step::environment::kept;
use crate::store::{Index, RunLock, Store, StoreError};

/// The most records of environments that are read to tell whose they are: the newest.
const RECORDS: usize = 20_000;

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// What may go, the first to go first: what is of no use, then what was not used for longest.
    pub things: Vec<Thing>,
    /// What the whole store takes, in bytes.
    pub total: u64,
}

/// Looks through a store.
///
/// # Errors
/// If the records or the folders of contents cannot be read.
pub fn survey(store: &Store) -> Result<Survey, StoreError> {
    survey_without(store, None)
}

/// The same as if the records of a run were gone.
pub(super) fn survey_without(store: &Store, without: Option<&RunId>) -> Result<Survey, StoreError> {
    let mut things = contents(store, without)?;
    things.extend(temporaries(store, without)?);
    things.extend(environments(store)?);
    things.extend(below(&store.assets(), Kind::Asset));
    things.extend(packs(&store.packs()));
    things.extend(mirrors(&store.mirrors()));
    let inflated = store.inflated();
    let size = Size::of(&inflated, None);
    if size.bytes > 0 {
        things.push(thing(Kind::Inflated, "index/inflated".into(), size, vec![inflated]));
    }
    // By name where nothing else tells them apart: the order is the same each time.
    things.sort_by(|a, b| {
        let of = |thing: &Thing| (thing.kind.is_made_again(), thing.used, thing.kind, thing.bytes);
        of(a).cmp(&of(b)).then_with(|| a.name.cmp(&b.name))
    });
    // The environments are the largest by far, and say their size themselves.
    let envs: u64 = things
        .iter()
        .filter(|thing| thing.kind == Kind::Environment)
        .map(|thing| thing.bytes)
        .fold(0, u64::saturating_add);
    let total = Size::of(&store.root, Some(&store.envs())).bytes.saturating_add(envs);
    Ok(Survey { things, total })
}

fn thing(kind: Kind, name: String, size: Size, paths: Vec<PathBuf>) -> Thing {
    Thing { kind, name, bytes: size.bytes, used: size.used, of: None, made_ms: None, stays: None, paths }
}

/// What something takes, and when it was last read or written as the file system tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) bytes: u64,
    used: Option<SystemTime>,
}

impl Size {
    fn add(&mut self, meta: &Metadata) {
        self.bytes = self.bytes.saturating_add(meta.blocks().saturating_mul(512));
        if meta.is_file() {
            self.used = self.used.max(meta.accessed().ok()).max(meta.modified().ok());
        }
    }

    /// Of a path with all below it, but what lies under `but`. What cannot be read counts nothing.
    fn of(path: &Path, but: Option<&Path>) -> Self {
        let mut left = usize::MAX;
        Self::within(path, but, &mut left)
    }

    /// The same of as many entries as are left to be looked at.
    pub(super) fn within(path: &Path, but: Option<&Path>, left: &mut usize) -> Self {
        let mut size = Self::default();
        let mut seen = HashSet::new();
        let mut paths = vec![path.to_owned()];
        while let Some(path) = paths.pop() {
            if *left == 0 {
                break;
            }
            *left -= 1;
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if but == Some(&path) || (meta.nlink() > 1 && meta.is_file() && !seen.insert((meta.dev(), meta.ino()))) {
                continue;
            }
            size.add(&meta);
            if meta.is_dir() {
                paths.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
        }
        size
    }
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    // A link in place of one of the store's folders leads elsewhere: what is there is not the store's.
    if !std::fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir()) {
        return Vec::new();
    }
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = found.collect();
    found.sort();
    found
}

/// The contents that nothing names.
fn contents(store: &Store, without: Option<&RunId>) -> Result<Vec<Thing>, StoreError> {
    let mut there = HashSet::new();
    for shard in entries(&store.root.join("cas/v1")) {
        let head = name_of(&shard);
        there.extend(
            entries(&shard).iter().filter_map(|path| format!("{head}{}", name_of(path)).parse::<Digest>().ok()),
        );
    }
    let unnamed = unnamed(store, &there, without)?;
    let of = |digest: Digest| {
        let path = store.cas.path(&digest);
        thing(Kind::Unnamed, digest.to_string(), Size::of(&path, None), vec![path])
    };
    Ok(unnamed.into_iter().map(of).collect())
}

/// What attempts and processes that are over left behind.
fn temporaries(store: &Store, without: Option<&RunId>) -> Result<Vec<Thing>, StoreError> {
    let index = Index::load(&store.root)?;
    let open: HashSet<String> = index
        .unfinished()?
        .into_iter()
        .filter(|started| Some(&started.run) != without)
        .map(|started| started.attempt.to_string())
        .collect();
    let mut found = Vec::new();
    for path in entries(&store.places()) {
        let name = name_of(&path);
        let owner = name.rsplit_once('-').map(|(owner, _)| RunId::new(owner));
        // What a finished agent left is paid for, and still to be read.
        let needed =
            open.contains(&name) || owner.is_some_and(|owner| RunLock::is_alive(&store.root, &owner).unwrap_or(true));
        if !needed {
            found.push(thing(Kind::Temporary, format!("tmp/places/{name}"), Size::of(&path, None), vec![path]));
        }
    }
    let places = store.places();
    let left = entries(&store.root.join("tmp")).into_iter().filter(|path| *path != places);
    let made = |folder: PathBuf, prefix: &'static str| {
        entries(&folder).into_iter().filter(move |path| name_of(path).starts_with(prefix))
    };
    let left = left.chain(made(store.mirrors(), ".making-")).chain(made(store.packs(), "tmp-"));
    for path in left {
        let name = path.strip_prefix(&store.root).unwrap_or(&path).display().to_string();
        found.push(thing(Kind::Temporary, name, Size::of(&path, None), vec![path]));
    }
    Ok(found)
}

/// The environments; what one takes is what it says of itself, where it is whole. Of whom it is the records tell.
fn environments(store: &Store) -> Result<Vec<Thing>, StoreError> {
    let folders = entries(&store.envs());
    if folders.is_empty() {
        return Ok(Vec::new());
    }
    let mut built = HashMap::new();
    for ended in Index::load(&store.root)?.of_kinds(&["environment"], false, RECORDS, &|_| false)? {
        if ended.outcome.failure().is_none() {
            // The first that was built there counts: others found it.
            built.entry(kept::folder_of(&ended.key)).or_insert_with(|| told(&ended));
        }
    }
    let of = |path: PathBuf| {
        let folder = name_of(&path);
        let complete = kept::complete(store, &folder);
        let bytes = complete.as_ref().map_or_else(|| Size::of(&path, None).bytes, |complete| complete.bytes);
        let (of, made_ms) = (built.get(&folder).cloned(), complete.map(|complete| complete.wall_ms));
        let used = kept::used(&path);
        Thing { kind: Kind::Environment, name: folder, of, made_ms, bytes, used, stays: None, paths: vec![path] }
    };
    Ok(folders.into_iter().map(of).collect())
}

/// What a record says an action was for: its step, and its commit and candidate where it had them.
fn told(ended: &Ended) -> String {
    let axes = &ended.axes;
    let repo = axes.get("repo").map(|repo| format!("{repo}/")).unwrap_or_default();
    let commit = axes.get("commit").map(|commit| format!(" {repo}{}", commit.get(..8).unwrap_or(commit)));
    let candidate = axes.get("candidate").map(|name| format!("/{name}")).unwrap_or_default();
    let pipeline = ended.pipeline.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    format!("{}{}{candidate}{pipeline}", ended.step, commit.unwrap_or_default())
}

/// What the environments that are whole take, each, in bytes.
#[must_use]
pub fn environment_sizes(store: &Store) -> Vec<u64> {
    let of = |path: PathBuf| kept::complete(store, &name_of(&path)).map(|complete| complete.bytes);
    entries(&store.envs()).into_iter().filter_map(of).collect()
}

/// Things that each are one entry of a folder.
fn below(folder: &Path, kind: Kind) -> Vec<Thing> {
    // What is noted says it better than the times of its files, which whoever looks through them changes too.
    let noted = |path: &Path| std::fs::symlink_metadata(path.join("used")).ok()?.modified().ok();
    let of = |path: PathBuf| {
        let size = Size::of(&path, None);
        let used = noted(&path).or(size.used);
        thing(kind, name_of(&path), Size { used, ..size }, vec![path])
    };
    entries(folder).into_iter().map(of).collect()
}

/// The packs, each with its index.
fn packs(folder: &Path) -> Vec<Thing> {
    let mut packs: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in entries(folder) {
        let name = name_of(&path);
        if let Some(tree) = name.strip_suffix(".pack").or_else(|| name.strip_suffix(".idx")) {
            packs.entry(tree.to_owned()).or_default().push(path);
        }
    }
    let of = |(tree, paths): (String, Vec<PathBuf>)| {
        let mut size = Size::default();
        for one in paths.iter().map(|path| Size::of(path, None)) {
            size.bytes += one.bytes;
            size.used = size.used.max(one.used);
        }
        thing(Kind::Pack, tree, size, paths)
    };
    packs.into_iter().map(of).collect()
}

/// The mirrors. That one was read is seen by the times of its files, which the system writes down once a day.
fn mirrors(folder: &Path) -> Vec<Thing> {
    let mut found = below(folder, Kind::Mirror);
    found.retain(|thing| thing.name.ends_with(".git"));
    found
}
