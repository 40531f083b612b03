//! The manifest as it was in other versions of its project: each read and planned anew, without the machine and without the store.
//!
//! A version that differs from another one in no file that was asked for has the same plan and is not planned again. What a tool
//! answers, what a device is, is not known of the past: how they are *declared* stands for it here, so that a difference of two
//! plans is always one of files. What the difference means is for others to tell.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::git::{GitError, PastCommit, Project};
use crate::manifest::{Manifest, Tool, Version, read_version};
use crate::names::ObjectId;
use crate::plan::expand::expand;
use crate::plan::points::count;
use crate::plan::{CommitFact, Facts, Intake, Plan, SourceFact, ToolFact};

/// How a line of a tool's identity begins that says what its program is.
pub const PROGRAM: &str = "program ";
/// Versions that are planned at most to answer one question.
const PLANS: usize = 500;
/// Actions of a version that is planned.
const ACTIONS: u64 = 200_000;
/// Commits between a manifest of today and its name in the past.
const RENAMES: usize = 20_000;

/// What was resolved of a commit, by the repository's name and its id as the manifest writes it.
pub type Resolved = HashMap<(String, String), CommitFact>;

/// What is not read from the project's files.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Variables of flow's own environment.
    pub variables: std::collections::BTreeMap<String, String>,
    /// What was resolved of commits.
    pub resolved: Resolved,
    /// The only commit that is of interest, by the beginning of its id.
    pub only: Option<String>,
}

impl Terms {
    /// What a plan of today knows.
    #[must_use]
    pub fn of(plan: &Plan, only: Option<String>) -> Self {
        let mut resolved = Resolved::new();
        for (repo_at, repo) in plan.manifest.pipeline.repos.iter().enumerate() {
            for (at, commit) in repo.commits.iter().enumerate() {
                if let Some(Ok(fact)) = plan.facts.commits.get(&(repo_at, at)) {
                    resolved.insert((repo.name.value.to_string(), commit.id.value.clone()), fact.clone());
                }
            }
        }
        Self { variables: plan.facts.variables.clone(), resolved, only }
    }
}

/// A version of the manifest, planned.
#[derive(Debug)]
pub struct Snapshot {
    /// The commit; `None` for the work tree.
    pub commit: Option<PastCommit>,
    /// The manifest's path, absolute.
    pub manifest: PathBuf,
    /// The plan; of a version with flaws, the first of them.
    pub plan: Result<Plan, String>,
    /// The files that the plan took.
    pub intake: Intake,
    /// The files that it depends on, relative to the project.
    pub asked: BTreeSet<PathBuf>,
}

/// The past of a manifest.
pub struct Past {
    project: Arc<Project>,
    terms: Terms,
    known: HashMap<ObjectId, Arc<Snapshot>>,
    plans: usize,
}

impl Past {
    /// Of a project.
    #[must_use]
    pub fn new(project: Arc<Project>, terms: Terms) -> Self {
        Self { project, terms, known: HashMap::new(), plans: 0 }
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &Arc<Project> {
        &self.project
    }

    /// Whether no further version will be planned.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.plans >= PLANS
    }

    /// The work tree's version of a manifest.
    pub fn work_tree(&mut self, manifest: &Path) -> Arc<Snapshot> {
        Arc::new(self.plan(manifest, Version::default()))
    }

    /// A commit's version of a manifest that lies at this path there.
    pub fn at(&mut self, manifest: &Path, commit: &PastCommit) -> Arc<Snapshot> {
        if let Some(known) = self.known.get(&commit.id) {
            return known.clone();
        }
        let made = Arc::new(self.plan(manifest, Version::of_commit(self.project.clone(), commit.clone())));
        self.known.insert(commit.id.clone(), made.clone());
        made
    }

    /// The version of a parent, given that of its child. Where no file that the child's plan asked for differs, it is the child's.
    ///
    /// # Errors
    /// If the repository cannot be read.
    pub fn before(
        &mut self,
        child: (&PastCommit, &Arc<Snapshot>),
        parent: &PastCommit,
    ) -> Result<Arc<Snapshot>, GitError> {
        if let Some(known) = self.known.get(&parent.id) {
            return Ok(known.clone());
        }
        let (commit, snapshot) = child;
        if self.project.changed(&parent.tree, &commit.tree, &snapshot.asked)?.is_empty() {
            self.known.insert(parent.id.clone(), snapshot.clone());
            return Ok(snapshot.clone());
        }
        let manifest =
            self.name_before(commit, &snapshot.manifest, parent)?.unwrap_or_else(|| snapshot.manifest.clone());
        Ok(self.at(&manifest, parent))
    }

    /// Where a manifest lay in a parent; `None` if it was not there.
    fn name_before(&self, commit: &PastCommit, path: &Path, parent: &PastCommit) -> Result<Option<PathBuf>, GitError> {
        let root = self.project.root();
        let Ok(within) = path.strip_prefix(root) else { return Ok(None) };
        if !matches!(self.project.at(&parent.tree, within, &mut |_| {})?, crate::git::Held::Nothing) {
            return Ok(Some(path.to_owned()));
        }
        Ok(self.project.old_name(&parent.tree, &commit.tree, within)?.map(|old| root.join(old)))
    }

    /// Where a manifest of today lay in a commit, by the renames from `head` back to it; its path of today if that is not known.
    ///
    /// # Errors
    /// If the repository cannot be read.
    pub fn name_at(&self, today: &Path, head: &PastCommit, commit: &PastCommit) -> Result<PathBuf, GitError> {
        let root = self.project.root();
        let there = |tree: &ObjectId| {
            let within = today.strip_prefix(root).unwrap_or(today);
            Ok::<_, GitError>(!matches!(self.project.at(tree, within, &mut |_| {})?, crate::git::Held::Nothing))
        };
        if there(&commit.tree)? {
            return Ok(today.to_owned());
        }
        let mut line = Newest::new(head.clone(), today.to_owned());
        for _ in 0..RENAMES {
            let Some((at, path)) = line.next() else { break };
            if at.id == commit.id {
                return Ok(path);
            }
            for parent in &at.parents {
                let parent = self.project.commit(parent)?;
                let name = self.name_before(&at, &path, &parent)?.unwrap_or_else(|| path.clone());
                line.push(&at, parent, name);
            }
        }
        Ok(today.to_owned())
    }

    fn plan(&mut self, path: &Path, version: Version) -> Snapshot {
        self.plans += 1;
        let root = self.project.root().to_owned();
        let shown = path.strip_prefix(&root).unwrap_or(path);
        let mut intake = Intake::of(version.clone());
        let plan = match read_version(path, shown, version.clone()) {
            Ok(manifest) => self.expand(manifest, &mut intake),
            Err(flaws) => {
                Err(flaws.flaws().first().map_or_else(|| flaws.to_string(), |flaw| flaw.message().to_owned()))
            }
        };
        let asked = version.asked();
        let asked = asked.iter().filter_map(|path| Some(path.strip_prefix(&root).ok()?.to_owned())).collect();
        let lacking = version.lacking();
        // A file that is not here to be read is another thing than none.
        let plan = match lacking.first() {
            Some(path) => {
                let path = path.strip_prefix(&root).unwrap_or(path);
                Err(format!("what {} was then is not in this clone", path.display()))
            }
            None => plan,
        };
        Snapshot { commit: version.commit().cloned(), manifest: path.to_owned(), plan, intake, asked }
    }

    fn expand(&self, mut manifest: Manifest, intake: &mut Intake) -> Result<Plan, String> {
        if let Some(only) = &self.terms.only {
            for repo in &mut manifest.pipeline.repos {
                repo.commits.retain(|commit| same_commit(&commit.id.value, only));
            }
        }
        let actions = count(&manifest.pipeline);
        if actions > ACTIONS {
            return Err(format!("it has {actions} actions: more than {ACTIONS} are not compared"));
        }
        let facts = self.facts(&manifest, intake);
        Ok(expand(Arc::new(manifest), facts, intake))
    }

    /// What stands for the machine.
    fn facts(&self, manifest: &Manifest, intake: &mut Intake) -> Facts {
        let pipeline = &manifest.pipeline;
        let mut facts =
            Facts { variables: self.terms.variables.clone(), platform: "this machine".to_owned(), ..Facts::default() };
        for tool in &pipeline.tools {
            facts.tools.insert(tool.name.value.clone(), Ok(self.declared(manifest, tool, intake)));
        }
        for slot in &pipeline.slots {
            let kind = slot.kind.value.to_string();
            facts.devices.insert(kind.clone(), Ok(kind));
        }
        for (repo_at, repo) in pipeline.repos.iter().enumerate() {
            for (at, commit) in repo.commits.iter().enumerate() {
                let name = (repo.name.value.to_string(), commit.id.value.clone());
                if let Some(fact) = self.terms.resolved.get(&name) {
                    facts.commits.insert((repo_at, at), Ok(fact.clone()));
                }
            }
        }
        facts
    }

    /// A tool as it is declared, in place of what it answers.
    fn declared(&self, manifest: &Manifest, tool: &Tool, intake: &mut Intake) -> ToolFact {
        let written = tool.path.value.to_string();
        let mut identity = written.clone();
        if written.contains('/')
            && let Ok(dir) = tool.dir.strip_prefix(self.project.root())
        {
            let within = crate::manifest::clean(&dir.join(&written));
            identity = within.display().to_string();
            // Without a probe its program is what counts, and that may be in git.
            let program = self.project.root().join(&within);
            let content = Some(&program).filter(|_| tool.probes.is_empty() && !within.starts_with(".."));
            if let Some((digest, _)) = content.and_then(|program| content_of(&manifest.version, program)) {
                identity.push_str(&format!("\n{PROGRAM}{digest}"));
            }
        }
        for probe in &tool.probes {
            let words: Vec<String> = probe.value.iter().map(ToString::to_string).collect();
            identity.push_str(&format!("\nprobe {}", words.join(" ")));
        }
        let source = tool.source.as_ref().map(|source| SourceFact {
            dir: PathBuf::new(),
            listing: intake.bytes(source.value.to_string().into_bytes()),
            stat: String::new(),
        });
        ToolFact {
            path: PathBuf::new(),
            identity,
            stat: String::new(),
            probes: Vec::new(),
            asked: None,
            source,
            script: false,
        }
    }
}

/// Whether two ids as they are written mean one commit: a manifest may say fewer digits.
#[must_use]
pub fn same_commit(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// Commits from the newest to the oldest, each after all of its children that were pushed, each with something that goes along.
pub struct Newest<T> {
    heap: std::collections::BinaryHeap<(jiff::Timestamp, usize)>,
    waiting: HashMap<usize, (PastCommit, T)>,
    seen: std::collections::HashSet<ObjectId>,
}

impl<T> Newest<T> {
    /// From a commit on.
    #[must_use]
    pub fn new(first: PastCommit, with: T) -> Self {
        let mut line = Self { heap: Default::default(), waiting: HashMap::new(), seen: Default::default() };
        line.put(first.committed, first, with);
        line
    }

    /// Adds a parent of a commit that was taken, unless it was added before. A clock that was wrong does not put it before its
    /// child.
    pub fn push(&mut self, child: &PastCommit, parent: PastCommit, with: T) {
        self.put(parent.committed.min(child.committed), parent, with);
    }

    fn put(&mut self, at: jiff::Timestamp, commit: PastCommit, with: T) {
        if self.seen.insert(commit.id.clone()) {
            // Of equal times the one that was added first.
            let number = usize::MAX - self.seen.len();
            self.heap.push((at, number));
            self.waiting.insert(number, (commit, with));
        }
    }
}

impl<T> Iterator for Newest<T> {
    type Item = (PastCommit, T);

    fn next(&mut self) -> Option<Self::Item> {
        let (_, number) = self.heap.pop()?;
        self.waiting.remove(&number)
    }
}

/// The digest of what a version has at a path; `None` if that is nothing.
#[must_use]
pub fn content_of(version: &Version, path: &Path) -> Option<(Digest, Vec<u8>)> {
    let bytes = version.read(path, 16 << 20).ok()?;
    Some((Digest::of(&bytes), bytes))
}
