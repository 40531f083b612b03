//! Built environments as they lie in the store, `envs/<folder>`: what was built in `out`, what was brought for it in `downloads`,
//! and `complete.json`, which is written last. Without it there is no environment, whatever else lies there.
//!
//! Knows how one is sealed and found again, and whether it lost files since; builds nothing and removes nothing but that last file.

use std::collections::BTreeSet;
use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::hostile;
use crate::key::ActionKey;
use crate::store::{Store, write_durable};
use crate::text::counted;

/// The last file.
const COMPLETE: &str = "complete.json";
/// The largest of those, in bytes.
const COMPLETE_BYTES: u64 = 4 << 20;
/// Digits of a key that name a folder.
const DIGITS: usize = 40;
/// The file whose time says when it was used last.
const USED: &str = "used";
/// How much of a path is told, in characters.
const NAMED: usize = 80;
/// The most files of one environment: of more no seal can be promised.
const MOST: u64 = 5_000_000;
/// The largest interpreter, in bytes.
const PROGRAM: u64 = 1 << 30;

/// What the last file of an environment says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// Where it was built. It holds this path, so it is of no use anywhere else.
    pub place: PathBuf,
    /// Which environment it is.
    pub identity: Vec<String>,
    /// Its files.
    pub files: u64,
    /// What they take of the disk, in bytes.
    pub bytes: u64,
    /// What they hold. An older one does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Holds>,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
    /// Its Python, if it has one.
    pub python: Option<Python>,
    /// Whether it is used within an image, where links lead elsewhere.
    pub boxed: bool,
}

/// The Python of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// Where it is, below what was built.
    pub at: PathBuf,
    /// Which program that is: the path that it leads to outside of the environment, or the digest of its content.
    pub is: String,
}

impl Python {
    /// Of what was built; nothing where it has none. Of an image's program, which is not here, the path in the image.
    pub(super) fn of(out: &Path) -> Option<Self> {
        let at = ["bin/python", "bin/python3"].map(PathBuf::from);
        let at = at.into_iter().find(|at| std::fs::symlink_metadata(out.join(at)).is_ok())?;
        let real = out.join(&at).canonicalize();
        let is = match real {
            Ok(real) if out.canonicalize().is_ok_and(|out| real.starts_with(out)) => {
                let bytes = hostile::read_regular(&real, PROGRAM).ok().flatten();
                bytes.map_or_else(|| "unknown".to_owned(), |bytes| Digest::of(&bytes).to_string())
            }
            Ok(real) => real.display().to_string(),
            Err(_) => {
                std::fs::read_link(out.join(&at)).map_or_else(|_| "unknown".into(), |to| to.display().to_string())
            }
        };
        Some(Self { at, is })
    }
}

/// What the files of an environment hold, apart from what Python writes for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// The files that are no byte code.
    pub files: u64,
    /// The lengths of all of those, in bytes.
    pub bytes: u64,
    /// The files that are byte code.
    pub byte_code: u64,
}

/// The name of the folder of a key.
#[must_use]
pub fn folder_of(key: &ActionKey) -> String {
    key.to_string().chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect()
}

/// Where a folder of that name lies.
#[must_use]
pub fn place(store: &Store, folder: &str) -> PathBuf {
    let root = store.envs();
    // One store has one path, by whatever links it is come to. Where nothing was built yet its folder is not there.
    let canonical =
        root.canonicalize().or_else(|_| Ok(store.root.canonicalize()?.join(root.file_name().unwrap_or_default())));
    canonical.or_else(|_: io::Error| std::path::absolute(&root)).unwrap_or(root).join(folder)
}

/// Where a whole environment was built that lies in a folder too, if that is this very folder by another path.
#[must_use]
pub(super) fn otherwise_called(place: &Path) -> Option<PathBuf> {
    let bytes = hostile::read_regular(&place.join(COMPLETE), COMPLETE_BYTES).ok()??;
    let complete: Complete = serde_json::from_slice(&bytes).ok()?;
    let id = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    (complete.place != place && id(&complete.place).is_some() && id(&complete.place) == id(place))
        .then_some(complete.place)
}

/// What was built.
#[must_use]
pub fn out(place: &Path) -> PathBuf {
    place.join("out")
}

/// The image that apptainer brought for it.
#[must_use]
pub fn image(place: &Path) -> PathBuf {
    place.join("image.sif")
}

/// What was brought for it.
#[must_use]
pub fn downloads(place: &Path) -> PathBuf {
    place.join("downloads")
}

/// What the last file of an environment says; nothing where it is not whole, or was built in another place.
#[must_use]
pub fn complete(store: &Store, folder: &str) -> Option<Complete> {
    if folder.len() != DIGITS || !folder.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let place = place(store, folder);
    let bytes = hostile::read_regular(&place.join(COMPLETE), COMPLETE_BYTES).ok()??;
    let complete: Complete = serde_json::from_slice(&bytes).ok()?;
    // An interpreter that was moved away takes every environment with it that was made by it.
    let gone = |python: &Python| {
        let link = out(&place).join(&python.at);
        !(link.exists() || complete.boxed && link.is_symlink())
    };
    (complete.place == place && !complete.python.as_ref().is_some_and(gone)).then_some(complete)
}

/// Notes that an environment is used now: the one that was not for longest goes first when room is made. Not worth a failure.
pub fn note_use(place: &Path) {
    let path = place.join(USED);
    let file = std::fs::File::options().create(true).append(true).open(path);
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

/// When an environment was used last; when it was built, if never.
#[must_use]
pub fn used(place: &Path) -> Option<SystemTime> {
    let at = |name: &str| std::fs::symlink_metadata(place.join(name)).ok()?.modified().ok();
    at(USED).max(at(COMPLETE))
}

/// What lies in some folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    files: u64,
    /// What they take of the disk, in bytes.
    taken: u64,
    holds: Holds,
}

impl Counted {
    fn add(&mut self, path: &Path, meta: &Metadata) {
        let regular = meta.is_file();
        self.files += 1;
        self.taken += if regular { meta.blocks().saturating_mul(512) } else { 0 };
        if path.extension().is_some_and(|ending| ending == "pyc") {
            self.holds.byte_code += 1;
        } else {
            self.holds.files += 1;
            self.holds.bytes += if regular { meta.len() } else { 0 };
        }
    }
}

/// Counts what lies in some folders. Links are not followed.
///
/// # Errors
/// If there is something that cannot be kept, such as a path that is longer than the system takes.
pub(super) fn count<'a>(folders: impl IntoIterator<Item = &'a PathBuf>) -> io::Result<Counted> {
    let mut counted = Counted::default();
    folders.into_iter().try_for_each(|folder| walk(folder, &mut counted, &|_, _| Ok(())))?;
    Ok(counted)
}

/// Counts what an environment is made of, and says each of its files and folders, a folder after its files.
fn all(place: &Path, each: &dyn Fn(&Path, &Metadata) -> io::Result<()>) -> io::Result<Counted> {
    let mut counted = Counted::default();
    walk(&out(place), &mut counted, each)?;
    walk(&downloads(place), &mut counted, each)?;
    if let Ok(meta) = std::fs::symlink_metadata(image(place)) {
        counted.add(&image(place), &meta);
        each(&image(place), &meta)?;
    }
    Ok(counted)
}

fn walk(root: &Path, counted: &mut Counted, each: &dyn Fn(&Path, &Metadata) -> io::Result<()>) -> io::Result<()> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let of = |error| told(root, &folder, &error);
        for entry in listed(&folder).map_err(of)? {
            let entry = entry.map_err(of)?;
            let path = entry.path();
            let of = |error| told(root, &path, &error);
            let meta = entry.metadata().map_err(of)?;
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            counted.add(&path, &meta);
            if counted.files > MOST {
                let why = format!("more than {MOST} files were built");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            each(&path, &meta).map_err(of)?;
        }
        each(&folder, &std::fs::symlink_metadata(&folder).map_err(of)?).map_err(of)?;
    }
    Ok(())
}

/// What lies in a folder, also where a build took the right to read it.
fn listed(folder: &Path) -> io::Result<std::fs::ReadDir> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
            std::fs::read_dir(folder)
        }
        listed => listed,
    }
}

/// An error of a path, of which not more is told than is read.
fn told(root: &Path, path: &Path, error: &io::Error) -> io::Error {
    let name = path.strip_prefix(root.parent().unwrap_or(root)).unwrap_or(path).display().to_string();
    let name = match name.char_indices().nth(NAMED) {
        Some((at, _)) => format!("{}… ({} bytes)", &name[..at], name.len()),
        None => name,
    };
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// Whether an error is of what a build left, and not of the disk: a path too long, too many files.
pub(super) fn is_of_what_was_built(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidData)
}

/// What was found whole in this process: a whole one is not counted again for each process that runs in it.
static WHOLE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// An environment that is about to be used. One that lost files is none any more: it is built again when it is asked for next.
///
/// # Errors
/// In words, if it is gone, or has lost something.
pub(super) fn whole(store: &Store, folder: &str) -> Result<(PathBuf, Complete), String> {
    let Some(complete) = complete(store, folder) else {
        return Err(format!("the environment {folder} is gone from the store"));
    };
    let place = place(store, folder);
    let known = || WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
    if known().contains(&place) {
        return Ok((place, complete));
    }
    let lost = match all(&place, &|_, _| Ok(())) {
        Ok(counted) => complete.lacks(counted),
        Err(error) => Some(error.to_string()),
    };
    let Some(lost) = lost else {
        known().insert(place.clone());
        return Ok((place, complete));
    };
    // Without its last file it is absent.
    let _ = std::fs::remove_file(place.join(COMPLETE));
    Err(format!("the environment {folder} was changed since it was built: {lost}"))
}

impl Complete {
    /// What the files of today are not, in words; nothing if they are those that were built, by number and length. Byte code that
    /// Python wrote since, where no sandbox kept it from that, is no change.
    fn lacks(&self, today: Counted) -> Option<String> {
        let words = |files: u64| counted(usize::try_from(files).unwrap_or(usize::MAX), "file");
        let Some(then) = self.holds else {
            let more = today.files.checked_sub(self.files).is_some_and(|more| more <= today.holds.byte_code);
            return (!more).then(|| format!("it had {}, and has {}", words(self.files), words(today.files)));
        };
        let now = today.holds;
        let same = (now.files, now.bytes) == (then.files, then.bytes) && now.byte_code >= then.byte_code;
        let words = |holds: Holds| {
            let byte_code = if now.byte_code < then.byte_code { holds.byte_code } else { 0 };
            format!("{}, {} bytes", words(holds.files + byte_code), holds.bytes)
        };
        (!same).then(|| format!("it had {}, and has {}", words(then), words(now)))
    }
}

/// Makes what was built read-only and writes the last file. Nobody may be at work there.
///
/// # Errors
/// If the disk refuses; there is no environment then.
pub(super) fn seal(place: &Path, mut complete: Complete) -> io::Result<Complete> {
    let close = |path: &Path, meta: &Metadata| match meta.is_file() || meta.is_dir() {
        true => std::fs::set_permissions(path, Permissions::from_mode((meta.mode() & 0o777 & !0o222) | 0o400)),
        false => Ok(()),
    };
    let counted = all(place, &close)?;
    (complete.files, complete.bytes, complete.holds) = (counted.files, counted.taken, Some(counted.holds));
    // What the last file promises must not be lost when the machine goes down.
    syncfs(std::fs::File::open(place)?).map_err(io::Error::from)?;
    let bytes = serde_json::to_vec_pretty(&complete)?;
    write_durable(&place.join(COMPLETE), &bytes).map_err(io::Error::other)?;
    Ok(complete)
}
