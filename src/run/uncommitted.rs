//! How the files of a run stand in the project's repository: which commit is checked out, and which of them are not as it has them.
//!
//! Kept with a run, so that its readers know whether somebody else can make it again. In no key.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::event::GitState;
use crate::git::{Held, PastCommit, Project};
use crate::manifest::{Tool, clean};
use crate::plan::tools::source_paths;
use crate::plan::{Intake, Plan};

/// Dirty files that are named.
const DIRTY: usize = 50;

/// Files of one source tree that are held against the commit.
const SOURCES: usize = 5_000;
/// The largest file that is read for it, in bytes.
const LARGEST: u64 = 256 << 20;

/// How a plan's manifest and files stand in their project's repository. `None` if the manifest lies in none, or that cannot be read.
#[must_use]
pub fn git_state(plan: &Plan, intake: &Intake) -> Option<GitState> {
    let manifest = &plan.manifest;
    let project = Project::of(manifest.files.first()?.path.parent()?)?;
    let mut seen = Seen { head: project.head().ok()?, project: &project, state: GitState::default() };
    // What was taken is what the run uses, whatever a file holds by now.
    let mut taken: BTreeMap<PathBuf, &[u8]> = intake.files().map(|(path, bytes)| (clean(path), bytes)).collect();
    taken.extend(manifest.files.iter().map(|file| (file.path.clone(), file.text.as_bytes())));
    for path in manifest.version.asked() {
        let here: Option<Cow<'_, [u8]>> = match taken.get(&path) {
            Some(bytes) => Some(Cow::Borrowed(*bytes)),
            None => manifest.version.read(&path, LARGEST).ok().map(Cow::Owned),
        };
        seen.file(&path, here.as_deref())?;
    }
    for path in taken.keys().filter(|path| !path.starts_with(project.root())) {
        seen.outside(path);
    }
    for tool in used(plan) {
        seen.tool(tool, plan)?;
    }
    let Seen { head, mut state, .. } = seen;
    state.commit = head.map(|commit| commit.id);
    Some(state)
}

/// The declared tools that actions of the plan use.
fn used(plan: &Plan) -> Vec<&Tool> {
    let names: HashSet<&String> = plan.nodes.iter().flat_map(|node| node.ask.tools()).collect();
    plan.manifest.pipeline.tools.iter().filter(|tool| names.contains(&tool.name.value)).collect()
}

/// What is known so far.
struct Seen<'a> {
    project: &'a Project,
    head: Option<PastCommit>,
    state: GitState,
}

impl Seen<'_> {
    /// Holds a file against the commit; `None` if that cannot be read.
    fn file(&mut self, path: &Path, here: Option<&[u8]>) -> Option<()> {
        let Ok(within) = path.strip_prefix(self.project.root()) else { return Some(()) };
        let there = self.committed(within)?;
        let same = match (here, &there) {
            (Some(here), Held::File(there)) => {
                self.project.has_content(there, here) || self.project.is_written(within, there, here)
            }
            (Some(here), Held::Submodule) => {
                self.head.as_ref().is_some_and(|head| in_submodule(self.project, head, path, here))
            }
            (None, Held::File(_)) => false,
            (here, _) => here.is_none(),
        };
        if !same {
            self.dirty(within, here);
        }
        Some(())
    }

    fn committed(&self, within: &Path) -> Option<Held> {
        match &self.head {
            Some(commit) => self.project.at(&commit.tree, within, &mut |_| {}).ok(),
            None => Some(Held::Nothing),
        }
    }

    fn dirty(&mut self, within: &Path, here: Option<&[u8]>) {
        let name = within.display().to_string();
        if self.state.dirty.len() < DIRTY && !self.state.dirty.contains(&name) {
            self.state.as_used.insert(name.clone(), here.map(Digest::of));
            self.state.dirty.push(name);
        }
    }

    fn outside(&mut self, path: &Path) {
        let name = path.display().to_string();
        if self.state.outside.len() < DIRTY && !self.state.outside.contains(&name) {
            self.state.outside.push(name);
        }
    }

    /// A tool's program and its source tree. A program that is found by its name, or that is installed elsewhere, is the machine's:
    /// what its probes answer, or the digest of its bytes, says which it is.
    fn tool(&mut self, tool: &Tool, plan: &Plan) -> Option<()> {
        let Some(Ok(fact)) = plan.facts.tools.get(&tool.name.value) else { return Some(()) };
        let written = tool.path.value.to_string();
        let program = clean(&fact.path);
        if written.contains('/') {
            let real = std::fs::canonicalize(&program).unwrap_or_else(|_| program.clone());
            match program.strip_prefix(self.project.root()) {
                Ok(within) if matches!(self.committed(within)?, Held::File(_)) => {
                    let here = read(&program);
                    self.file(&program, here.as_deref())?;
                }
                Ok(_) if tool.probes.is_empty() && real.starts_with(self.project.root()) => self.outside(&program),
                Err(_) if Path::new(&written).is_relative() && tool.probes.is_empty() => self.outside(&program),
                _ => {}
            }
        }
        let Some(dir) = fact.source.as_ref().map(|source| clean(&source.dir)) else { return Some(()) };
        // A tree that is a repository of its own is held against its own commit.
        let Some(own) = Project::of(&dir) else {
            self.outside(&dir);
            return Some(());
        };
        let (Ok(head), Ok(entries)) = (own.head(), source_paths(&dir)) else { return Some(()) };
        for path in entries.into_iter().take(SOURCES) {
            let Ok(within) = path.strip_prefix(own.root()) else { continue };
            let Some(here) = read(&path) else { continue };
            let there = head.as_ref().map(|head| own.at(&head.tree, within, &mut |_| {}));
            let same = match there {
                Some(Ok(Held::File(there))) => own.has_content(&there, &here) || own.is_written(within, &there, &here),
                Some(Ok(Held::Submodule) | Err(_)) => true,
                _ => false,
            };
            match path.strip_prefix(self.project.root()) {
                _ if same => {}
                Ok(within) if own.root() == self.project.root() => self.dirty(within, Some(&here)),
                _ => self.outside(&path),
            }
        }
        Some(())
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::hostile::open_regular(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether a file of a submodule is as the project's commit means it: the commit that it names is checked out there and has it so.
fn in_submodule(project: &Project, head: &PastCommit, path: &Path, here: &[u8]) -> bool {
    let sub = path.parent().and_then(Project::of).filter(|sub| sub.root() != project.root());
    let Some((sub, Ok(Some(commit)))) = sub.map(|sub| {
        let head = sub.head();
        (sub, head)
    }) else {
        return false;
    };
    let (Ok(at), Ok(within)) = (sub.root().strip_prefix(project.root()), path.strip_prefix(sub.root())) else {
        return false;
    };
    let meant = project.submodule(&head.tree, at).ok().flatten();
    meant.is_some_and(|meant| meant == commit.id)
        && matches!(sub.at(&commit.tree, within, &mut |_| {}), Ok(Held::File(id)) if sub.has_content(&id, here))
}
