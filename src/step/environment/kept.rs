//! Built environments as they lie in the store, `envs/<folder>`: what was built in `out`, what was brought for it in `downloads`,
//! and `complete.json`, which is written last. Without it there is no environment, whatever else lies there.
//!
//! Knows how one is sealed and found again; builds nothing and removes nothing but what is half there.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::hostile;
use crate::key::ActionKey;
use crate::store::{Store, write_durable};

/// The last file.
const COMPLETE: &str = "complete.json";
/// The largest of those, in bytes.
const COMPLETE_BYTES: u64 = 4 << 20;
/// Digits of a key that name a folder.
const DIGITS: usize = 40;
/// The file whose time says when it was used last.
const USED: &str = "used";
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
        !link.exists() && !(complete.boxed && link.is_symlink())
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

/// Makes what was built read-only and writes the last file. Nobody may be at work there.
///
/// # Errors
/// If the disk refuses; there is no environment then.
pub(super) fn seal(place: &Path, mut complete: Complete) -> io::Result<Complete> {
    (complete.files, complete.bytes) = (0, 0);
    for part in [out(place), downloads(place)] {
        close(&part, &mut complete)?;
    }
    if let Ok(meta) = std::fs::symlink_metadata(image(place)) {
        complete.files += 1;
        complete.bytes += meta.blocks().saturating_mul(512);
        read_only(&image(place), &meta)?;
    }
    // What the last file promises must not be lost when the machine goes down.
    syncfs(std::fs::File::open(place)?).map_err(io::Error::from)?;
    let bytes = serde_json::to_vec_pretty(&complete)?;
    write_durable(&place.join(COMPLETE), &bytes).map_err(io::Error::other)?;
    Ok(complete)
}

/// Takes the right to write from a folder and all below it, and counts its files. Links are not followed.
fn close(folder: &Path, complete: &mut Complete) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, meta) = (entry.path(), entry.metadata()?);
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            complete.files += 1;
            if complete.files > MOST {
                return Err(io::Error::other(format!("more than {MOST} files were built")));
            }
            if meta.is_file() {
                complete.bytes += meta.blocks().saturating_mul(512);
                read_only(&path, &meta)?;
            }
        }
        read_only(&folder, &std::fs::symlink_metadata(&folder)?)?;
    }
    Ok(())
}

fn read_only(path: &Path, meta: &std::fs::Metadata) -> io::Result<()> {
    let mode = meta.permissions().mode();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode((mode & 0o777 & !0o222) | 0o400))
}
