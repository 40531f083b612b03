//! The versions of a manifest in its project's history, and what each would run again relative to the one before.
//!
//! A version is a commit in which some file that the manifest depends on is another than in each of its parents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::git::{GitError, PastCommit};
use crate::plan::Plan;
use crate::text::wrap;
use crate::why::between::{Differs, compare};
use crate::why::change::Shown;
use crate::why::origin::Origin;
use crate::why::past::{Newest, Past, Snapshot};
use crate::why::spot::spot;
use crate::why::text::{change_lines, origin_place, printable};

/// Commits that are looked through at most.
const COMMITS: usize = 20_000;

/// The history of a manifest.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// The manifest's path, relative to the project.
    pub manifest: String,
    /// Its versions, the newest first.
    pub versions: Vec<VersionSaid>,
    /// Why there may be older versions than are listed; absent if these are all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
}

/// A version of a manifest.
#[derive(Clone, Debug, Serialize)]
pub struct VersionSaid {
    /// The commit; null for what is not committed.
    pub commit: Option<String>,
    /// When its author made it.
    pub date: Option<Timestamp>,
    /// Its author.
    pub author: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
    /// The files that changed in it, of those that the manifest depends on.
    pub paths: Vec<String>,
    /// What it would run again; null if one of the two versions cannot be planned, or there is none before.
    pub again: Option<Rerun>,
    /// Why it cannot be said, or that it is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What a version would run again, relative to the one before.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rerun {
    /// How many actions of each step run again for a reason of their own or because they follow, in the order of the steps.
    pub steps: Vec<(String, usize)>,
    /// How many of all have a reason of their own.
    pub roots: usize,
    /// How many of all are new.
    pub new: usize,
    /// How many actions are in the older version only.
    pub gone: usize,
    /// How many actions have other limits.
    pub limits: usize,
    /// The first change to blame, and the action that it was found in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<First>,
}

/// A first change.
#[derive(Clone, Debug, Serialize)]
pub struct First {
    /// The action.
    pub action: String,
    /// What of it changed, and where.
    pub change: Shown,
}

/// Lists at most so many versions of the manifest at a path.
///
/// # Errors
/// If the repository cannot be read, or has no commit.
pub fn history(past: &mut Past, manifest: &Path, most: usize) -> Result<History, GitError> {
    let root = past.project().root().to_owned();
    let shown = manifest.strip_prefix(&root).unwrap_or(manifest).display().to_string();
    let mut history = History { manifest: shown, versions: Vec::new(), more: None };
    let top = past.work_tree(manifest);
    let Some(head) = past.project().head()? else {
        history.more = Some("the project has no commit yet".to_owned());
        return Ok(history);
    };
    let snapshot = past.at(manifest, &head);
    let dirty = uncommitted(&top, &snapshot, &root);
    if !dirty.is_empty() {
        history.versions.push(version(None, &top, Some(&snapshot), dirty));
    }
    let mut line = Newest::new(head, snapshot);
    for _ in 0..COMMITS {
        let Some((commit, snapshot)) = line.next() else { return Ok(history) };
        if history.versions.len() >= most {
            history.more = Some("older versions are listed with a larger -n".to_owned());
            return Ok(history);
        }
        if past.is_spent() {
            history.more = Some("no more versions are planned at once".to_owned());
            return Ok(history);
        }
        let mut before = None;
        let mut same = false;
        for parent in &commit.parents {
            let parent = past.project().commit(parent)?;
            let older = past.before((&commit, &snapshot), &parent)?;
            same |= past.project().changed(&parent.tree, &commit.tree, &snapshot.asked)?.is_empty();
            if before.is_none() {
                before = Some((parent.clone(), older.clone()));
            }
            line.push(&commit, parent, older);
        }
        let nothing = snapshot.plan.is_err() && !there(past, &snapshot, &commit);
        if same || nothing {
            continue;
        }
        if commit.cut && before.is_none() {
            history.more = Some("the history here is shallow: what is older is not known".to_owned());
        }
        let paths = match &before {
            Some((parent, older)) => {
                let asked = snapshot.asked.union(&older.asked).cloned().collect();
                past.project().changed(&parent.tree, &commit.tree, &asked)?
            }
            None => Vec::new(),
        };
        let names = paths.iter().map(|path| printable(&path.to_string_lossy())).collect();
        let older = before.filter(|(parent, older)| older.plan.is_ok() || there(past, older, parent));
        history.versions.push(version(Some(&commit), &snapshot, older.as_ref().map(|(_, older)| older), names));
    }
    history.more = Some(format!("only the last {COMMITS} commits were looked through"));
    Ok(history)
}

/// Whether a commit has the manifest at all.
fn there(past: &Past, snapshot: &Snapshot, commit: &PastCommit) -> bool {
    let within = snapshot.manifest.strip_prefix(past.project().root()).unwrap_or(&snapshot.manifest);
    !matches!(past.project().at(&commit.tree, within, &mut |_| {}), Ok(crate::git::Held::Nothing))
}

/// The files that a manifest depends on and that are not as a commit has them.
#[must_use]
pub fn uncommitted(top: &Snapshot, head: &Snapshot, root: &Path) -> Vec<String> {
    let version = |snapshot: &Snapshot| snapshot.plan.as_ref().ok().map(|plan| plan.manifest.version.clone());
    let (Some(new), Some(old)) = (version(top), version(head)) else {
        return if top.plan.is_ok() || head.plan.is_ok() {
            vec![top.manifest.display().to_string()]
        } else {
            Vec::new()
        };
    };
    let asked = top.asked.union(&head.asked).map(|path| root.join(path));
    let differs = asked.filter(|path| !crate::why::spot::same_content(&new, &old, path));
    differs.map(|path| printable(&path.strip_prefix(root).unwrap_or(&path).to_string_lossy())).collect()
}

fn version(
    commit: Option<&PastCommit>,
    new: &Snapshot,
    old: Option<&Arc<Snapshot>>,
    paths: Vec<String>,
) -> VersionSaid {
    let (again, because) = match (&new.plan, old.map(|old| &old.plan)) {
        (Err(flaw), _) => (None, Some(format!("it cannot be planned: {flaw}"))),
        (Ok(_), None) => (None, Some("the first version".to_owned())),
        (Ok(_), Some(Err(flaw))) => (None, Some(format!("the version before cannot be planned: {flaw}"))),
        (Ok(new), Some(Ok(old))) => (Some(rerun(old, new)), None),
    };
    VersionSaid {
        commit: commit.map(|commit| commit.id.to_string()),
        date: commit.map(|commit| commit.date),
        author: commit.map(|commit| commit.author.clone()),
        subject: commit.map(|commit| commit.subject.clone()),
        paths,
        again,
        because: because.map(|because| printable(&because)),
    }
}

fn rerun(old: &Plan, new: &Plan) -> Rerun {
    let all = compare(old, new);
    let mut steps: BTreeMap<usize, usize> = BTreeMap::new();
    let mut rerun = Rerun::default();
    for (node, differs) in all.iter().enumerate() {
        if differs.is_touched() {
            *steps.entry(new.nodes[node].step).or_default() += 1;
        }
        rerun.roots += usize::from(differs.is_root());
        rerun.new += usize::from(differs.old.is_none());
        rerun.limits += usize::from(!differs.limits.is_empty());
    }
    let kept: std::collections::HashSet<usize> = all.iter().filter_map(|differs| differs.old).collect();
    rerun.gone = old.nodes.len() - kept.len();
    let name = |step: usize| new.manifest.pipeline.steps[step].name.value.to_string();
    rerun.steps = steps.into_iter().map(|(step, count)| (name(step), count)).collect();
    let first = |has: &dyn Fn(&Differs) -> bool| all.iter().position(has);
    let at = first(&|differs| !differs.changes.is_empty()).or_else(|| first(&|differs| !differs.limits.is_empty()));
    rerun.first = at.and_then(|node| {
        let differs = &all[node];
        let change = differs.changes.first().or(differs.limits.first())?;
        let mut shown = Shown::plain(change);
        let root = old_root(new);
        let found = spot((new, Some(node)), Some((old, differs.old)), &change.ingredient);
        shown.origin = found.map(|spot| Origin {
            commit: None,
            author: None,
            date: None,
            subject: None,
            path: Some(printable(&spot.path.strip_prefix(&root).unwrap_or(&spot.path).to_string_lossy())),
            line: spot.line,
            age_s: None,
            uncommitted_then: false,
            also: Vec::new(),
            and_more: 0,
        });
        Some(First { action: new.title(node), change: shown })
    });
    rerun
}

/// The folder that paths are shown from.
fn old_root(plan: &Plan) -> std::path::PathBuf {
    let file = plan.manifest.files.first();
    let Some(file) = file else { return std::path::PathBuf::new() };
    // Its name is its path within the project.
    let up = Path::new(&file.name).components().count();
    file.path.ancestors().nth(up).map(Path::to_owned).unwrap_or_default()
}

impl History {
    /// As text: a version a paragraph.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        for version in &self.versions {
            let head = match &version.commit {
                Some(commit) => {
                    let date = version.date.map(|date| date.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
                    let by = version.author.as_deref().unwrap_or_default();
                    let subject = version.subject.as_deref().unwrap_or_default();
                    format!("{}  {date}  {by}: {subject}", commit.get(..8).unwrap_or(commit))
                }
                None => format!("uncommitted: {}", version.paths.join(", ")),
            };
            text.push_str(&format!("{}\n", crate::text::shorten(&head, width)));
            for line in version.lines(width.saturating_sub(10)) {
                text.push_str(&format!("          {line}\n"));
            }
        }
        if self.versions.is_empty() {
            text.push_str(&format!("{} was never committed\n", printable(&self.manifest)));
        }
        if let Some(more) = &self.more {
            text.push_str(&format!("\n{more}\n"));
        }
        text
    }
}

impl VersionSaid {
    fn lines(&self, width: usize) -> Vec<String> {
        let Some(again) = &self.again else {
            return wrap(self.because.as_deref().unwrap_or_default(), width);
        };
        let mut lines = Vec::new();
        if again.steps.is_empty() {
            let gone = (again.gone > 0).then(|| format!("; {} actions are no longer there", again.gone));
            lines.push(format!("re-runs nothing{}", gone.unwrap_or_default()));
        } else {
            let steps: Vec<String> = again.steps.iter().map(|(step, count)| format!("{count} {step}")).collect();
            let new = if again.new > 0 { format!(" ({} of them new)", again.new) } else { String::new() };
            lines.extend(wrap(&format!("re-runs {}{new}", steps.join(", ")), width));
        }
        if again.limits > 0 {
            lines.push(format!("other limits of {} actions: only what had met them runs again", again.limits));
        }
        if let Some(First { change, .. }) = &again.first {
            lines.extend(change_lines(change, width));
            lines.extend(change.origin.as_ref().map(|origin| format!("at {}", origin_place(origin))));
        }
        lines
    }
}
