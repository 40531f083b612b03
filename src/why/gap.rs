//! Which commit brought a line or a file, where the manifest's own versions do not tell: between two that can be planned lie others
//! that cannot, or the manifest is younger than what it names.
//!
//! Follows one file through the commits, by its content alone. What that does not tell is not guessed: a commit that never touched
//! the file is not blamed for it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::git::{GitError, Held, PastCommit, Project};
use crate::names::ObjectId;

/// Commits that are looked at for one change.
const COMMITS: usize = 10_000;
/// The largest file that is compared line by line, in bytes.
const LARGEST: u64 = 4 << 20;

/// What is followed in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// All of it; with whether comments count.
    Content {
        /// They do.
        comments: bool,
    },
    /// This line.
    Line(String),
    /// That there is no such file.
    Gone,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// This commit brought it, to the file at this path.
    By(PastCommit, PathBuf),
    /// It is there already in a version where it was to be absent.
    Older,
    /// It cannot be told, and why.
    Unknown(String),
}

/// Follows a file from a commit back, until what is looked for is not in any parent. `stops` are commits that are known not to have it.
///
/// # Errors
/// If the repository cannot be read.
pub(super) fn follow(
    project: &Project,
    from: &PastCommit,
    path: &Path,
    mark: &Mark,
    stops: &HashSet<ObjectId>,
) -> Result<Found, GitError> {
    let (mut commit, mut path) = (from.clone(), path.to_owned());
    for _ in 0..COMMITS {
        let short = || commit.id.as_str().get(..8).unwrap_or_default().to_owned();
        let mut carried = None;
        let mut unread = false;
        for parent in &commit.parents {
            let parent = project.commit(parent)?;
            let older = if project.at(&parent.tree, &path, &mut |_| {})? == Held::Nothing && *mark != Mark::Gone {
                project.old_name(&parent.tree, &commit.tree, &path).unwrap_or_default()
            } else {
                Some(path.clone())
            };
            let Some(older) = older else { continue };
            match same(project, (&commit, &path), (&parent, &older), mark) {
                Ok(true) => {
                    carried = Some((parent, older));
                    break;
                }
                Ok(false) => {}
                Err(_) => unread = true,
            }
        }
        match carried {
            Some((parent, _)) if stops.contains(&parent.id) => return Ok(Found::Older),
            Some(next) => (commit, path) = next,
            None if unread => {
                let why = format!("not known: what {} had before {} is not here", path.display(), short());
                return Ok(Found::Unknown(why));
            }
            None if commit.cut => {
                return Ok(Found::Unknown(format!(
                    "not known: the history here begins with {}, which has it already",
                    short()
                )));
            }
            None => return Ok(Found::By(commit, path)),
        }
    }
    Ok(Found::Unknown("not known: it is older than all that was looked at".to_owned()))
}

/// The line of what a commit brought to a file, from 1: the first that none of its parents has.
pub(super) fn line(project: &Project, commit: &PastCommit, path: &Path, mark: &Mark) -> Option<usize> {
    let text = |commit: &PastCommit, path: &Path| match project.at(&commit.tree, path, &mut |_| {}) {
        Ok(Held::File(id)) => Some(String::from_utf8_lossy(&project.content(&id, LARGEST).ok()?).into_owned()),
        _ => None,
    };
    let new = text(commit, path)?;
    if let Mark::Line(line) = mark {
        return new.lines().position(|known| known == line).map(|at| at + 1);
    }
    let mut old = HashSet::new();
    for parent in &commit.parents {
        let parent = project.commit(parent).ok()?;
        let older = match project.at(&parent.tree, path, &mut |_| {}) {
            Ok(Held::Nothing) => project.old_name(&parent.tree, &commit.tree, path).ok()??,
            _ => path.to_owned(),
        };
        old.extend(text(&parent, &older)?.lines().map(str::to_owned));
    }
    let says = |line: &str| *mark == (Mark::Content { comments: true }) || !comment(line);
    let at = new.lines().position(|line| says(line) && !old.contains(line));
    Some(at.map_or(1, |at| at + 1))
}

/// Whether a parent has it too.
fn same(
    project: &Project,
    (commit, path): (&PastCommit, &Path),
    (parent, older): (&PastCommit, &Path),
    mark: &Mark,
) -> Result<bool, GitError> {
    let held = |commit: &PastCommit, path: &Path| project.at(&commit.tree, path, &mut |_| {});
    let (new, old) = (held(commit, path)?, held(parent, older)?);
    if (&new, &old) == (&Held::Folder, &Held::Folder) {
        return Ok(project.folder(&commit.tree, path)? == project.folder(&parent.tree, older)?);
    }
    if new == old {
        return Ok(true);
    }
    let (Held::File(new), Held::File(old)) = (&new, &old) else { return Ok(false) };
    let text = |id: &ObjectId| Ok::<_, GitError>(String::from_utf8_lossy(&project.content(id, LARGEST)?).into_owned());
    match mark {
        Mark::Content { comments: true } | Mark::Gone => Ok(false),
        Mark::Content { comments: false } => {
            let (new, old) = (text(new)?, text(old)?);
            Ok(telling(&new).eq(telling(&old)))
        }
        Mark::Line(line) => Ok(text(old)?.lines().any(|known| known == line)),
    }
}

/// The lines that are neither empty nor comments.
fn telling(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !comment(line))
}

/// Whether a line of a config says nothing.
pub(super) fn comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#') || line.starts_with("//")
}
