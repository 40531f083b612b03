//! Other versions of a manifest: those of commits of its project.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::fault::Fault;
use crate::cli::open;
use crate::cli::output;
use crate::git::{GitError, PastCommit, Project};
use crate::manifest::{Manifest, Version, read_version};
use crate::why::past::{Past, Terms};

/// A manifest's project, and where the manifest lies in it.
pub struct Within {
    /// The project.
    pub project: Arc<Project>,
    /// The manifest's path of today, without links.
    pub manifest: PathBuf,
}

impl Within {
    /// The project of a manifest; the file itself need not be there today. `None` if it lies in no repository.
    #[must_use]
    pub fn of(manifest: &Path) -> Option<Self> {
        let full = real(manifest);
        let project = Project::of(full.parent()?)?;
        Some(Self { project: Arc::new(project), manifest: full })
    }

    /// The same.
    ///
    /// # Errors
    /// If it lies in no repository.
    pub fn needed(manifest: &Path) -> Result<Self, Fault> {
        let full = real(manifest);
        let none = || {
            Fault::hint(
                2,
                format!("{} lies in no git repository", manifest.display()),
                "versions are commits: `git init` the project's folder and commit the manifest",
            )
        };
        let opened = Project::open(full.parent().ok_or_else(none)?);
        let project = opened.map_err(|error| {
            Fault::hint(
                2,
                error.to_string(),
                "versions are commits: `git fsck` tells what is wrong with the repository",
            )
        })?;
        Ok(Self { project: Arc::new(project.ok_or_else(none)?), manifest: full })
    }

    /// The commit that a text names.
    ///
    /// # Errors
    /// If it names none.
    pub fn revision(&self, text: &str) -> Result<PastCommit, Fault> {
        self.project.revision(text).map_err(|error| {
            Fault::hint(
                2,
                error.to_string(),
                "give a commit's id, a branch, a tag, HEAD, or one of them with ~2 behind it",
            )
        })
    }

    /// The first digits of a commit and its subject, without what is a secret.
    #[must_use]
    pub fn called(&self, commit: &PastCommit) -> String {
        called(commit, &self.manifest)
    }

    /// Where the manifest lay in a commit.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub fn name_at(&self, past: &Past, commit: &PastCommit) -> Result<PathBuf, Fault> {
        let head = self.project.head().map_err(unreadable)?;
        match head {
            Some(head) => past.name_at(&self.manifest, &head, commit).map_err(unreadable),
            None => Ok(self.manifest.clone()),
        }
    }

    /// Reads the manifest as it was in a commit.
    ///
    /// # Errors
    /// Every flaw of it.
    pub fn read_at(&self, commit: &PastCommit) -> Result<Manifest, Fault> {
        let past = Past::new(self.project.clone(), Terms::default());
        let path = self.name_at(&past, commit)?;
        let shown = path.strip_prefix(self.project.root()).unwrap_or(&path);
        let version = Version::of_commit(self.project.clone(), commit.clone());
        if !version.exists(&path) {
            return Err(Fault::hint(
                2,
                format!("{} is not in {}", shown.display(), self.called(commit)),
                format!("`flow history {}` lists the commits that have it", shown.display()),
            ));
        }
        read_version(&path, shown, version).map_err(|flaws| {
            // The file of today may be without it.
            output::say(&format!("note: as of {}", self.called(commit)));
            Fault::drawn(2, flaws)
        })
    }
}

/// That the project's repository cannot be read.
#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
pub fn unreadable(error: GitError) -> Fault {
    Fault::hint(3, format!("the project's history cannot be read: {error}"), "`git fsck` tells what is wrong with it")
}

/// Reads a manifest: that of the work tree, or as it was in a revision.
///
/// # Errors
/// Every flaw of it, or if the text names no commit.
pub fn read(manifest: &Path, at: Option<&str>) -> Result<Manifest, Fault> {
    let Some(at) = at else { return open::read(manifest) };
    let within = Within::needed(manifest)?;
    within.read_at(&within.revision(at)?)
}

/// The first digits of a commit and its subject, as it is named on one line. The manifest says what of that is a secret.
#[must_use]
pub fn called(commit: &PastCommit, manifest: &Path) -> String {
    let id = commit.id.as_str();
    let id = id.get(..8).unwrap_or(id);
    match subject(commit, manifest) {
        Some(subject) => format!("{id} ({})", crate::text::shorten(&subject, 40)),
        None => id.to_owned(),
    }
}

/// The subject of a commit without what is a secret, by a manifest as it is today; `None` if that cannot be told.
#[must_use]
pub fn subject(commit: &PastCommit, manifest: &Path) -> Option<String> {
    let manifest = open::read(manifest).ok();
    Some(open::todays_secrets(manifest.as_ref()).ok()?.shown_text(&commit.subject))
}

/// The path without links, as far as it leads to something.
fn real(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in full.ancestors() {
        if let (Ok(there), Ok(rest)) = (above.canonicalize(), full.strip_prefix(above)) {
            return if rest.as_os_str().is_empty() { there } else { there.join(rest) };
        }
    }
    full
}
