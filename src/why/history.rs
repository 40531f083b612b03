//! The versions of a manifest in its project's history, and what each would run again relative to the one before.
//!
//! A version is a commit in which some file that the manifest depends on is another than in each of its parents.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::git::{GitError, PastCommit};
use crate::key::Change;
use crate::manifest::Kind;
use crate::plan::Plan;
use crate::step::{known, read_as};
use crate::text::{counted, wrap};
use crate::why::between::{Again, Differs, compare};
use crate::why::change::Shown;
use crate::why::past::{Newest, Past, Snapshot};
use crate::why::spot::spot;
use crate::why::text::{change_lines, printable};
use crate::why::toolfiles::stirred;

/// Commits that are looked through at most.
const COMMITS: usize = 20_000;
/// Changes of a version that are told.
const CAUSES: usize = 6;

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

/// What a version would run again, relative to the one before, if that one was run. Counts of actions by step are in the order of
/// the steps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rerun {
    /// What has a reason of its own.
    pub steps: Vec<(String, usize)>,
    /// Those of these steps of which fewer may run: actions that turn out to read the same are executed once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub may_share: Vec<String>,
    /// What may run besides: it follows, had met a limit that is raised, or is served by a rule of `reuse`.
    pub at_most: Vec<(String, usize)>,
    /// How many of all have a reason of their own.
    pub roots: usize,
    /// How many of all are new.
    pub new: usize,
    /// How many actions are in the older version only.
    pub gone: usize,
    /// How many actions have other limits.
    pub limits: usize,
    /// Of how many of them one is raised.
    pub raised: usize,
    /// How many agents' attempts are read by another table.
    pub reread: usize,
    /// How many actions wait for other gates.
    pub gates: usize,
    /// How many agents an earlier draw may stand for.
    pub reusable: usize,
    /// How many actions use tools whose own files differ, or that are declared otherwise: they may answer the same.
    pub tools: usize,
    /// What changed, by where it was changed; the first to blame first.
    pub causes: Vec<Cause>,
}

/// A change, and the actions whose own it is.
#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    /// The first of the actions.
    pub action: String,
    /// How many there are.
    pub actions: usize,
    /// What of the first one changed.
    pub change: Shown,
    /// The file, relative to the project.
    pub path: Option<String>,
    /// The line in it, from 1.
    pub line: Option<usize>,
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
    let mut dirty = uncommitted(&top, &snapshot, &root);
    let tools = tools_of(past, &top, Some(&head), None)?;
    dirty.extend(paths_of(&tools));
    dirty.sort();
    dirty.dedup();
    if !dirty.is_empty() {
        history.versions.push(version(None, &top, Some((&snapshot, tools)), dirty));
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
            same |= past.project().changed(&parent.tree, &commit.tree, &snapshot.asked)?.is_empty()
                && tools_of(past, &snapshot, Some(&parent), Some(&commit))?.is_empty();
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
        let mut names: Vec<String> = paths.iter().map(|path| printable(&path.to_string_lossy())).collect();
        let tools = tools_of(past, &snapshot, before.as_ref().map(|(parent, _)| parent), Some(&commit))?;
        names.extend(paths_of(&tools));
        names.sort();
        names.dedup();
        let older = before.filter(|(parent, older)| older.plan.is_ok() || there(past, older, parent));
        let older = older.as_ref().map(|(_, older)| (older, tools));
        history.versions.push(version(Some(&commit), &snapshot, older, names));
    }
    history.more = Some(format!("only the last {COMMITS} commits were looked through"));
    Ok(history)
}

/// Tools of a version whose own files differ from an older commit's.
fn tools_of(
    past: &Past,
    snapshot: &Snapshot,
    old: Option<&PastCommit>,
    new: Option<&PastCommit>,
) -> Result<BTreeMap<String, PathBuf>, GitError> {
    let (Ok(plan), Some(old)) = (&snapshot.plan, old) else { return Ok(BTreeMap::new()) };
    stirred(past.project(), plan, &old.tree, new.map(|new| &new.tree))
}

fn paths_of(tools: &BTreeMap<String, PathBuf>) -> impl Iterator<Item = String> + '_ {
    tools.values().map(|path| printable(&path.to_string_lossy()))
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
    old: Option<(&Arc<Snapshot>, BTreeMap<String, PathBuf>)>,
    paths: Vec<String>,
) -> VersionSaid {
    let (old, tools) = old.unzip();
    let (again, because) = match (&new.plan, old.map(|old| &old.plan)) {
        (Err(flaw), _) => (None, Some(format!("it cannot be planned: {flaw}"))),
        (Ok(_), None) => (None, Some("the first version".to_owned())),
        (Ok(_), Some(Err(flaw))) => (None, Some(format!("the version before cannot be planned: {flaw}"))),
        (Ok(new), Some(Ok(old))) => (Some(rerun(old, new, &tools.unwrap_or_default())), None),
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

fn rerun(old: &Plan, new: &Plan, tools: &BTreeMap<String, PathBuf>) -> Rerun {
    let all = compare(old, new, tools);
    let (mut steps, mut at_most) = (BTreeMap::new(), BTreeMap::new());
    let mut rerun = Rerun::default();
    let wanted: HashSet<usize> = new.jobs.iter().flat_map(|job| job.nodes.iter().copied()).collect();
    let mut alike: HashSet<(usize, Vec<u8>)> = HashSet::new();
    let mut may_share: BTreeMap<usize, ()> = BTreeMap::new();
    // What no job needs is not run.
    for (node, differs) in all.iter().enumerate().filter(|(node, _)| wanted.contains(node)) {
        let step = new.nodes[node].step;
        let reads = !read_as(new, node).is_empty() && new.kind(node) != Kind::Agent;
        if differs.again() == Again::Yes && reads && !alike.insert((step, known(new, node).encode())) {
            may_share.insert(step, ());
        }
        let counted: Option<&mut BTreeMap<usize, usize>> = match differs.again() {
            Again::Yes => Some(&mut steps),
            Again::AtMost => Some(&mut at_most),
            Again::No => None,
        };
        if let Some(counted) = counted {
            *counted.entry(step).or_default() += 1;
        }
        rerun.roots += usize::from(differs.is_root());
        rerun.new += usize::from(differs.old.is_none());
        rerun.limits += usize::from(!differs.limits.is_empty());
        rerun.raised += usize::from(differs.raised);
        rerun.reread += usize::from(differs.reading.is_some());
        rerun.tools += usize::from(differs.unsure || !differs.tools.is_empty());
        rerun.gates += usize::from(differs.gates);
        rerun.reusable += usize::from(differs.reusable && !differs.changes.is_empty());
    }
    let kept: HashSet<usize> = all.iter().filter_map(|differs| differs.old).collect();
    rerun.gone = old.nodes.len() - kept.len();
    let name = |step: usize| new.manifest.pipeline.steps[step].name.value.to_string();
    let named = |steps: BTreeMap<usize, usize>| steps.into_iter().map(|(step, count)| (name(step), count)).collect();
    rerun.may_share = may_share.into_keys().map(name).collect();
    (rerun.steps, rerun.at_most) = (named(steps), named(at_most));
    rerun.causes = causes(old, new, &all);
    rerun
}

/// Changes by where they were made: one line of a prompt is one cause, whatever it is rendered to.
fn causes(old: &Plan, new: &Plan, all: &[Differs]) -> Vec<Cause> {
    let root = old_root(new);
    let mut causes: Vec<Cause> = Vec::new();
    let mut places = HashMap::new();
    // What had no effect on any key comes behind.
    let keyed = all.iter().enumerate().flat_map(|(node, differs)| differs.changes.iter().map(move |c| (node, c)));
    let unkeyed = all
        .iter()
        .enumerate()
        .flat_map(|(node, differs)| differs.reading.iter().chain(&differs.limits).map(move |change| (node, change)));
    for (node, change) in keyed.chain(unkeyed) {
        let change = match change.ingredient.as_str() {
            // The whole of a table says less than its place.
            "reading" => Change { old: None, new: None, ..change.clone() },
            _ => change.clone(),
        };
        let shown = Shown::plain(&change);
        if let Some(at) = places.get(&change).copied() {
            let cause: &mut Cause = &mut causes[at];
            cause.actions += 1;
            continue;
        }
        let found = spot((new, Some(node)), Some((old, all[node].old)), &change.ingredient);
        let path = found
            .as_ref()
            .map(|spot| printable(&spot.path.strip_prefix(&root).unwrap_or(&spot.path).to_string_lossy()));
        let line = found.as_ref().and_then(|spot| spot.line);
        let alike = |cause: &Cause| {
            path.is_some() && cause.change.ingredient == change.ingredient && (&cause.path, cause.line) == (&path, line)
        };
        let at = causes.iter().position(alike).unwrap_or_else(|| {
            causes.push(Cause { action: new.title(node), actions: 0, change: shown, path, line });
            causes.len() - 1
        });
        causes[at].actions += 1;
        places.insert(change, at);
    }
    causes
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
        let list = |steps: &[(String, usize)], firm: bool| {
            let said = steps.iter().map(|(step, count)| {
                let fewer = firm && again.may_share.contains(step);
                format!("{}{count} {step}", if fewer { "up to " } else { "" })
            });
            said.collect::<Vec<_>>().join(", ")
        };
        let new = if again.new > 0 { format!(" ({} new)", counted(again.new, "action")) } else { String::new() };
        let gone =
            if again.gone > 0 { format!("; {} no longer there", counted(again.gone, "action")) } else { String::new() };
        let mut said = match (again.steps.as_slice(), again.at_most.as_slice()) {
            ([], []) => vec![format!("re-runs nothing{gone}")],
            ([], most) => vec![format!("re-runs at most {}{new}{gone}", list(most, false))],
            (steps, []) => vec![format!("re-runs {}{new}{gone}", list(steps, true))],
            (steps, most) => {
                vec![format!(
                    "re-runs {}{new}, and at most {}, which only follow{gone}",
                    list(steps, true),
                    list(most, false)
                )]
            }
        };
        if again.raised > 0 {
            said.push(format!(
                "limits of {} raised: only what had met them runs again",
                counted(again.raised, "action")
            ));
        }
        if again.limits > again.raised {
            let lowered = counted(again.limits - again.raised, "action");
            said.push(format!("limits of {lowered} lowered: what used more is served all the same"));
        }
        if again.reread > 0 {
            let agents = counted(again.reread, "agent");
            said.push(format!(
                "read by another table, {agents}: none runs again for that, and how it ended may be told otherwise"
            ));
        }
        if again.gates > 0 {
            said.push(format!("other gates of {}: what one had held up may run", counted(again.gates, "action")));
        }
        if again.tools > 0 {
            let actions = counted(again.tools, "action");
            said.push(format!(
                "a tool of {actions} differs in its own files or its declaration: it may answer the same"
            ));
        }
        if again.reusable > 0 {
            said.push(format!("an earlier draw may stand for {}, by `reuse`", counted(again.reusable, "agent")));
        }
        let mut lines: Vec<String> = said.iter().flat_map(|said| wrap(said, width)).collect();
        for cause in again.causes.iter().take(CAUSES) {
            match cause.change.ingredient.as_str() {
                "reading" => lines.push("reading: another table".to_owned()),
                _ => lines.extend(change_lines(&cause.change, width)),
            }
            let place = match (&cause.path, cause.line) {
                (Some(path), Some(line)) => format!("at {path}:{line}"),
                (Some(path), None) => format!("at {path}, which is gone"),
                (None, _) => continue,
            };
            let of = if cause.actions > 1 { format!(", of {} actions", cause.actions) } else { String::new() };
            lines.push(format!("  {place}{of}"));
        }
        if again.causes.len() > CAUSES {
            lines.push(format!("and {} more changes: see --json", again.causes.len() - CAUSES));
        }
        lines
    }
}
