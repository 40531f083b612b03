//! A version of a project's files: those of the work tree, or those of a commit. All that a manifest names is read through it.
//!
//! Of a commit only what lies in the project is the commit's; what lies outside it or in a submodule is read as it is today. Remembers what was
//! asked for, so that it can be told on which files a plan depends. Decides nothing about what the files say.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::node::clean;
use crate::git::{Held, PastCommit, Project};
use crate::hostile::open_regular;

/// A version of a project's files. Copies are the same version.
#[derive(Clone, Debug, Default)]
pub struct Version(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The commit; `None` for the work tree.
    of: Option<(Arc<Project>, PastCommit)>,
    /// Every path that was asked for, absolute.
    asked: Mutex<BTreeSet<PathBuf>>,
    /// Those of them that the commit has, and whose content is not here.
    lacking: Mutex<BTreeSet<PathBuf>>,
}

impl Version {
    /// The files of a commit.
    #[must_use]
    pub fn of_commit(project: Arc<Project>, commit: PastCommit) -> Self {
        Self(Arc::new(Inner { of: Some((project, commit)), ..Inner::default() }))
    }

    /// The commit; `None` for the work tree.
    #[must_use]
    pub fn commit(&self) -> Option<&PastCommit> {
        self.0.of.as_ref().map(|(_, commit)| commit)
    }

    /// Every path that was asked for so far, without `..`, whether something was there or not.
    #[must_use]
    pub fn asked(&self) -> BTreeSet<PathBuf> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of them that the commit has and that cannot be read: of a clone without all of its objects, or of a damaged one.
    #[must_use]
    pub fn lacking(&self) -> BTreeSet<PathBuf> {
        self.0.lacking.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lacks(&self, path: &Path) {
        self.0.lacking.lock().unwrap_or_else(PoisonError::into_inner).insert(clean(path));
    }

    fn ask(&self, path: &Path) {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(clean(path));
    }

    /// What the commit has at a path; `None` for what is read from the disk: the path is not the project's, or this is the work
    /// tree.
    fn held(&self, path: &Path) -> io::Result<Option<(&Project, Held)>> {
        let Some((project, commit)) = &self.0.of else { return Ok(None) };
        let path = clean(path);
        let Ok(within) = path.strip_prefix(project.root()) else { return Ok(None) };
        let held = project.at(&commit.tree, within, &mut |path| self.ask(&project.root().join(path)));
        let held = held.map_err(|error| {
            self.lacks(&path);
            io::Error::other(error)
        })?;
        // What a submodule holds is in another repository: it is read as it is today.
        Ok((held != Held::Submodule).then_some((project, held)))
    }

    /// Reads a regular file of at most so many bytes.
    ///
    /// # Errors
    /// If it is not there, is no regular file, is longer, or cannot be read.
    pub fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        self.ask(path);
        let odd = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {} MiB", most >> 20));
        match self.held(path)? {
            Some((project, Held::File(id))) => match project.content(&id, most) {
                Ok(bytes) => {
                    let path = clean(path);
                    Ok(project.written(path.strip_prefix(project.root()).unwrap_or(&path), &id, bytes))
                }
                Err(crate::git::GitError::TooMuch { .. }) => Err(too_large()),
                read => read.map_err(|error| {
                    self.lacks(path);
                    io::Error::other(error)
                }),
            },
            Some((_, Held::Nothing)) => Err(io::ErrorKind::NotFound.into()),
            Some((_, Held::Folder)) => Err(io::ErrorKind::IsADirectory.into()),
            Some((_, Held::Submodule)) => Err(odd("it lies in a submodule")),
            Some((_, Held::Odd(why))) => Err(odd(why)),
            None => {
                let meta = path.metadata()?;
                // Said before it is opened, in words; that no pipe takes its place meanwhile is seen to below.
                if !meta.is_file() {
                    return Err(if meta.is_dir() {
                        io::ErrorKind::IsADirectory.into()
                    } else {
                        odd("it is not a regular file")
                    });
                }
                let mut bytes = Vec::new();
                open_regular(path)?.take(most + 1).read_to_end(&mut bytes)?;
                if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
            }
        }
    }

    /// Whether a regular file is there.
    #[must_use]
    pub fn is_file(&self, path: &Path) -> bool {
        self.ask(path);
        match self.held(path) {
            Ok(Some((_, held))) => matches!(held, Held::File(_)),
            Ok(None) => path.is_file(),
            Err(_) => false,
        }
    }

    /// Whether a folder is there.
    #[must_use]
    pub fn is_dir(&self, path: &Path) -> bool {
        self.ask(path);
        match self.held(path) {
            Ok(Some((_, held))) => held == Held::Folder,
            Ok(None) => path.is_dir(),
            Err(_) => false,
        }
    }

    /// Whether anything is there.
    #[must_use]
    pub fn exists(&self, path: &Path) -> bool {
        self.ask(path);
        match self.held(path) {
            Ok(Some((_, held))) => held != Held::Nothing,
            Ok(None) => path.exists(),
            Err(_) => true,
        }
    }

    /// The path without links, as far as it leads to something.
    #[must_use]
    pub fn real(&self, path: &Path) -> PathBuf {
        let Some((project, commit)) = &self.0.of else {
            return path.canonicalize().unwrap_or_else(|_| clean(path));
        };
        let mut last = None;
        let path = clean(path);
        if let Ok(within) = path.strip_prefix(project.root()) {
            let mut visit = |path: &Path| {
                self.ask(&project.root().join(path));
                last = Some(project.root().join(path));
            };
            let _ = project.at(&commit.tree, within, &mut visit);
            return last.unwrap_or(path);
        }
        path.canonicalize().unwrap_or(path)
    }

    /// Some of the names in a folder, sorted.
    #[must_use]
    pub fn names(&self, folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = match &self.0.of {
            Some((project, commit)) if clean(folder).starts_with(project.root()) => {
                let folder = clean(folder);
                project.names(&commit.tree, folder.strip_prefix(project.root()).unwrap_or(&folder))
            }
            _ => {
                let entries = folder.read_dir().into_iter().flatten().flatten().take(1000);
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
            }
        };
        names.truncate(1000);
        names.sort();
        names
    }
}
