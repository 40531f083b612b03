//! Where objects come from: a local repository, a mirror of a URL, or a mirror made of a fast-import stream.
//!
//! A [`Mirror`] is an object database and no more: no config, no refs, no attributes of the repository are read, so that
//! nothing in it can change what flow does. Nothing is ever written to it but by [`Mirror::prepare`].

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use git2::Odb;

use super::error::GitError;
use super::program::{Git, without_userinfo};
use crate::digest::Digest;
use crate::hostile::open_regular;

/// Where a repository comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A clone or a bare repository on this machine; only its objects are read, in place.
    Local(PathBuf),
    /// What `git clone` takes.
    Url(String),
    /// A file with a `git fast-import` stream.
    Stream(PathBuf),
}

/// An object database to read from. `Send` and `Sync`; a thread that reads much opens its own by [`Mirror::reopen`].
pub struct Mirror {
    path: PathBuf,
    objects: PathBuf,
    pub(super) odb: Odb<'static>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Empties libgit2's search paths once: diffs would otherwise obey the config of whoever runs flow.
pub(super) fn forget_user_config() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use git2::ConfigLevel::{Global, ProgramData, System, XDG};
        for level in [System, Global, XDG, ProgramData] {
            // SAFETY: libgit2's global options are written here only, under `Once`, and every use of libgit2 in flow goes
            // through a function that has called this one before, so that no other thread reads them meanwhile.
            let _ = unsafe { git2::opts::set_search_path(level, "") };
        }
    });
}

impl Mirror {
    /// Opens what can be opened without fetching: a local repository in place, or a mirror made earlier under `mirrors`.
    /// Nothing if it has to be fetched first.
    ///
    /// # Errors
    /// A local path that is no repository, a stream that cannot be read, a mirror that cannot be opened.
    pub fn open(mirrors: &Path, source: &Source) -> Result<Option<Self>, GitError> {
        if let Source::Local(path) = source {
            return Self::at(path).map(Some);
        }
        let place = mirrors.join(place_of(source)?);
        if place.is_dir() { Self::at(&place).map(Some) } else { Ok(None) }
    }

    /// Makes the mirror, or brings that of a URL up to date, within `limit`. For a local repository the same as
    /// [`Mirror::open`]. Any number of processes may call it at once.
    ///
    /// # Errors
    /// What `git` says, a reached limit, and what [`Mirror::open`] gives.
    pub fn prepare(mirrors: &Path, source: &Source, limit: Duration) -> Result<Self, GitError> {
        let deadline = Instant::now() + limit;
        let (verb, of) = match source {
            Source::Local(path) => return Self::at(path),
            Source::Url(url) => ("fetch", without_userinfo(url)),
            Source::Stream(path) => ("fast-import", path.display().to_string()),
        };
        fs::create_dir_all(mirrors).map_err(GitError::io(mirrors))?;
        let mirrors = &mirrors.canonicalize().map_err(GitError::io(mirrors))?;
        let name = place_of(source)?;
        let place = mirrors.join(&name);
        let git = Git { verb, of: &of, cwd: mirrors, deadline, limit };
        let _lock = lock(&mirrors.join(format!("{name}.lock")), &git)?;
        match source {
            Source::Url(url) if place.is_dir() => {
                let dir = format!("--git-dir={name}");
                // A URL's own remote is not kept in the mirror's config: it may hold a password.
                git.run(
                    &[&dir, "fetch", "--quiet", "--prune", "--force", "--no-tags", "--", url, "+refs/*:refs/*"],
                    None,
                )?;
            }
            Source::Stream(_) if place.is_dir() => {}
            _ => {
                let temp = Temp::make(mirrors, &name)?;
                git.run(&["init", "--quiet", "--bare", "--template=", "--", &temp.name], None)?;
                let dir = format!("--git-dir={}", temp.name);
                match source {
                    Source::Stream(path) => {
                        let stream = open_regular(path).map_err(GitError::io(path))?;
                        git.run(&[&dir, "fast-import", "--quiet"], Some(stream))?;
                        if place_of(source)? != name {
                            return Err(GitError::StreamChanged { path: path.clone() });
                        }
                    }
                    Source::Url(url) => {
                        git.run(&[&dir, "fetch", "--quiet", "--no-tags", "--", url, "+refs/*:refs/*"], None)?;
                    }
                    Source::Local(_) => {}
                }
                fs::rename(mirrors.join(&temp.name), &place).map_err(GitError::io(&place))?;
            }
        }
        Self::at(&place)
    }

    /// Whether a source answers within `limit`: of a URL the far end is asked and nothing is fetched, a path is opened.
    ///
    /// # Errors
    /// What `git` says, a reached limit, a path that is no repository, a stream that cannot be read.
    pub fn reach(source: &Source, limit: Duration) -> Result<(), GitError> {
        match source {
            Source::Local(path) => Self::at(path).map(|_| ()),
            Source::Stream(path) => open_regular(path).map(|_| ()).map_err(GitError::io(path)),
            Source::Url(url) => {
                let git = Git {
                    verb: "ls-remote",
                    of: &without_userinfo(url),
                    cwd: Path::new("/"),
                    deadline: Instant::now() + limit,
                    limit,
                };
                git.run(&["ls-remote", "--quiet", "--", url, "HEAD"], None)
            }
        }
    }

    /// Whether the repository says that it lacks the history behind some of its commits.
    #[must_use]
    pub fn is_shallow(&self) -> bool {
        self.objects.parent().is_some_and(|dir| dir.join("shallow").exists())
    }

    /// Where the repository lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same objects through a handle of its own.
    ///
    /// # Errors
    /// If the repository has gone.
    pub fn reopen(&self) -> Result<Self, GitError> {
        Ok(Self { path: self.path.clone(), objects: self.objects.clone(), odb: self.database()? })
    }

    /// Opens the objects of the repository at `path`.
    pub(super) fn at(path: &Path) -> Result<Self, GitError> {
        let objects = objects_dir(path)?;
        let odb = open_odb(&objects)?;
        Ok(Self { path: path.to_owned(), objects, odb })
    }

    /// A fresh handle on the objects.
    pub(super) fn database(&self) -> Result<Odb<'static>, GitError> {
        open_odb(&self.objects)
    }
}

/// The database of one `objects` directory, alternates included.
fn open_odb(objects: &Path) -> Result<Odb<'static>, GitError> {
    forget_user_config();
    let text = objects.to_str().ok_or_else(|| GitError::NotARepository {
        path: objects.to_owned(),
        why: "libgit2 takes UTF-8 paths only".to_owned(),
    })?;
    let open = || {
        let odb = Odb::new()?;
        odb.add_disk_alternate(text)?;
        Ok(odb)
    };
    open().map_err(GitError::libgit2(format!("opening {text}")))
}

/// The `objects` directory of a bare repository, a clone or a linked work tree.
fn objects_dir(path: &Path) -> Result<PathBuf, GitError> {
    let (_, common) = git_dirs(path)?;
    let objects = common.join("objects");
    objects.canonicalize().map_err(GitError::io(&objects))
}

/// The folder that holds a work tree's own `HEAD`, and the one that holds the objects and the references of all its work trees.
pub(super) fn git_dirs(path: &Path) -> Result<(PathBuf, PathBuf), GitError> {
    let refuse = |why: &str| GitError::NotARepository { path: path.to_owned(), why: why.to_owned() };
    let pointer = |file: &Path| -> Option<PathBuf> {
        let mut text = String::new();
        open_regular(file).ok()?.take(8192).read_to_string(&mut text).ok()?;
        let line = text.lines().next()?.trim();
        Some(PathBuf::from(line.strip_prefix("gitdir:").map_or(line, str::trim)))
    };
    // A pipe in place of one of these would be waited for without end.
    let odd = |file: &Path| file.metadata().is_ok_and(|meta| !meta.is_file());
    let dot = path.join(".git");
    let git_dir = if dot.is_dir() {
        dot
    } else if dot.is_file() {
        path.join(pointer(&dot).ok_or_else(|| refuse("its `.git` file cannot be read"))?)
    } else {
        path.to_owned()
    };
    if odd(&git_dir.join("commondir")) {
        return Err(refuse("its `commondir` is not a regular file"));
    }
    let common = pointer(&git_dir.join("commondir")).map_or_else(|| git_dir.clone(), |to| git_dir.join(to));
    if !common.join("HEAD").exists() || !common.join("objects").is_dir() {
        return Err(refuse("it holds no `HEAD` and no `objects`"));
    }
    for name in ["objects/info/alternates", "packed-refs", "shallow", "config"] {
        if odd(&common.join(name)) {
            return Err(refuse(&format!("its `{name}` is not a regular file")));
        }
    }
    if odd(&git_dir.join("HEAD")) {
        return Err(refuse("its `HEAD` is not a regular file"));
    }
    Ok((git_dir, common))
}

/// The directory name of a mirror: it follows from the URL, or from the stream's bytes.
fn place_of(source: &Source) -> Result<String, GitError> {
    let digest = match source {
        Source::Url(url) => Digest::of(url.as_bytes()),
        Source::Stream(path) | Source::Local(path) => Digest::of_file(path).map_err(GitError::io(path))?,
    };
    Ok(format!("{}.git", &digest.hex()[..16]))
}

/// Takes the lock of one mirror, waiting until the call's deadline. It is freed when the file is dropped, or its process dies.
fn lock(path: &Path, git: &Git<'_>) -> Result<File, GitError> {
    let file = File::options().create(true).append(true).open(path).map_err(GitError::io(path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() >= git.deadline => return Err(git.timed_out()),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            Err(fs::TryLockError::Error(source)) => return Err(GitError::io(path)(source)),
        }
    }
}

/// The directory that a mirror is made in before it is renamed; removed when dropped.
struct Temp<'a> {
    mirrors: &'a Path,
    name: String,
}

impl<'a> Temp<'a> {
    /// Names a place for the mirror `name`, whose lock is held, and sweeps what an earlier, killed attempt left.
    fn make(mirrors: &'a Path, name: &str) -> Result<Self, GitError> {
        let prefix = format!(".making-{name}");
        for entry in fs::read_dir(mirrors).map_err(GitError::io(mirrors))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { mirrors, name: format!("{prefix}-{}", std::process::id()) })
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.mirrors.join(&self.name));
    }
}
