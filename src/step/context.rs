//! What every step works with: the plan, the store, the machine, a place of its own, and processes under a supervisor.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tokio::sync::{mpsc, watch};

use crate::container::Engines;
use crate::digest::Digest;
use crate::git::{self, Mirror};
use crate::manifest::{Base, Template};
use crate::names::AttemptId;
use crate::outcome::{Cause, Failure};
use crate::plan::tools::{SourceFact, source_stat, tool_stat};
use crate::plan::{HOLE, Plan};
use crate::store::Store;

/// Blobs larger than this are not read into memory.
pub const LARGEST_BLOB: u64 = 1 << 30;
/// Bytes kept of each captured stream where the step has no `limit`.
pub const OUTPUT_LIMIT: u64 = 16 * 1024 * 1024;

/// How long fetching a repository may take.
pub const FETCH: Duration = Duration::from_secs(2 * 3600);

/// What of the machine steps need to know.
#[derive(Clone, Debug)]
pub struct Machine {
    /// flow's own program.
    pub flow: PathBuf,
    /// The machine's name.
    pub host: String,
    /// The variables of flow's own environment, for secrets and `PATH`.
    pub variables: BTreeMap<String, String>,
}

/// What all steps share.
pub struct Context {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The store.
    pub store: Arc<Store>,
    /// The machine.
    pub machine: Machine,
    /// Where each repository of the manifest comes from.
    pub sources: Vec<git::Source>,
    /// Who runs what is to run in an image.
    pub engines: Engines,
}

/// How far a run is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It goes on.
    No,
    /// Processes get a polite signal, then die.
    Polite,
    /// Processes die at once.
    Now,
}

/// What an action at work tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The action's number in the plan.
    pub node: usize,
    /// What its processes printed last: a line without secrets and control characters.
    pub line: String,
    /// How long it has been at work, in milliseconds.
    pub wall_ms: u64,
}

/// Where one attempt works.
pub struct Place {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its folder: everything it writes is in it, and it is removed afterwards.
    pub dir: PathBuf,
    /// Locks that a supervisor has to hold on to.
    pub locks: Vec<RawFd>,
    /// The slots it holds, as (kind, name).
    pub slots: Vec<(String, String)>,
    /// Cores of these slots.
    pub cores: Vec<u32>,
    /// Tells when to stop.
    pub stop: watch::Receiver<Stop>,
    /// Hears how far it is.
    pub told: mpsc::UnboundedSender<Progress>,
}

impl Context {
    /// Opens the repository of an index. A mirror that is not there, for all that was asked of it before is on record, is made.
    ///
    /// # Errors
    /// If it cannot be had or read.
    pub fn mirror(&self, repo: usize) -> Result<Mirror, Failure> {
        let source = self.sources.get(repo).ok_or_else(|| fault("no such repository in the plan"))?;
        let mirrors = self.store.mirrors();
        let failed = |error: git::GitError| Failure::new(Cause::CheckoutFailed, &error.to_string());
        match Mirror::open(&mirrors, source).map_err(failed)? {
            Some(mirror) => Ok(mirror),
            None => Mirror::prepare(&mirrors, source, FETCH).map_err(failed),
        }
    }

    /// The manifest's base rule in git's terms.
    #[must_use]
    pub fn base_rule(&self, base: &Base) -> git::BaseRule {
        match base {
            Base::Parent(n) => git::BaseRule::Parent(*n),
            Base::Id(id) => git::BaseRule::Commit(id.clone()),
        }
    }

    /// The store's blobs as git's room wants them.
    #[must_use]
    pub fn blobs(&self) -> StoreBlobs<'_> {
        StoreBlobs(&self.store)
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Failure> {
        self.store.cas.put(bytes).map_err(|error| fault(&error.to_string()))
    }

    /// Reads a blob that a record names.
    ///
    /// # Errors
    /// If it is gone or damaged.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        self.store
            .cas
            .get(digest, LARGEST_BLOB)
            .map_err(|error| fault(&error.to_string()))?
            .ok_or_else(|| blob_lost(digest))
    }

    /// How a blob begins; nothing if it is gone.
    #[must_use]
    pub fn begin_of(&self, digest: &Digest) -> Vec<u8> {
        self.store.cas.begin(digest, 16)
    }

    /// Reads changes that a record names.
    ///
    /// # Errors
    /// If they are gone or damaged.
    pub fn changes(&self, digest: Digest) -> Result<git::Changes, Failure> {
        git::Changes::decode(&self.get(&digest)?).map_err(|error| fault(&error.to_string()))
    }

    /// Globs in gitignore's manner: one with a `/` other than at its end is anchored at the tree's root, another matches at
    /// any depth; one that names a folder holds all within it.
    ///
    /// # Errors
    /// If one is no glob; the reader has refused those.
    pub fn globs(&self, globs: &[String]) -> Result<GlobSet, Failure> {
        glob_set(globs).map_err(|error| fault(&error.to_string()))
    }

    /// A folder within a place, made if it is not there.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn folder(&self, place: &Place, name: &str) -> Result<PathBuf, Failure> {
        let path = place.dir.join(name);
        std::fs::create_dir_all(&path).map_err(|error| fault(&format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// Fills the holes that stand for places of the attempt; tools by their paths on this machine.
    ///
    /// # Errors
    /// If a name is not known.
    pub fn fill(&self, argv: &[Template], places: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>, Failure> {
        let value = |name: &str| {
            if let Some(tool) = name.strip_prefix("tool.")
                && let Some(Ok(fact)) = self.plan.facts.tools.get(tool)
            {
                return Ok(fact.path.display().to_string());
            }
            if let Some(asset) = name.strip_prefix(HOLE)
                && let Some(Ok(fact)) = self.plan.facts.assets.get(asset)
            {
                return Ok(fact.path(&self.store.assets()).display().to_string());
            }
            if name == "flow" {
                return Ok(self.machine.flow.display().to_string());
            }
            places(name).ok_or_else(|| fault(&format!("`{{{name}}}` stands for nothing here")))
        };
        argv.iter().map(|template| template.fill(value)).collect()
    }

    /// The first tool that is no longer what it was when the plan was made: its executable or its source tree.
    #[must_use]
    pub fn changed_tool(&self, tools: &[String]) -> Option<Failure> {
        tools.iter().find_map(|tool| match self.plan.facts.tools.get(tool) {
            Some(Ok(fact)) => {
                let same = |source: &SourceFact| source_stat(&source.dir).is_ok_and(|stat| stat == source.stat);
                let changed = if tool_stat(&fact.path) == fact.stat {
                    fact.source.as_ref().filter(|source| !same(source)).map(|source| &source.dir)
                } else {
                    Some(&fact.path)
                };
                let what = changed?.display();
                Some(Failure::new(Cause::ToolChanged, &format!("{what} changed since the run was planned")))
            }
            _ => None,
        })
    }
}

/// The store no longer has what a record names.
#[must_use]
pub fn blob_lost(digest: &Digest) -> Failure {
    Failure::new(Cause::BlobLost, &format!("blob {digest} is gone from the store, or was damaged"))
}

/// A fault of flow's own, or of the disk.
#[must_use]
pub fn fault(evidence: &str) -> Failure {
    Failure::of_flow(Cause::HarnessFault, evidence)
}

/// See [`Context::globs`].
///
/// # Errors
/// If one is no glob.
pub fn glob_set(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let body = glob.trim_start_matches('/').trim_end_matches('/');
        let anchored = glob.trim_end_matches('/').contains('/');
        let root = if anchored { body.to_owned() } else { format!("**/{body}") };
        for pattern in [root.clone(), format!("{root}/**")] {
            set.add(GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build()?);
        }
    }
    set.build()
}

/// The store as a place for blobs of changes.
pub struct StoreBlobs<'a>(&'a Store);

impl git::Blobs for StoreBlobs<'_> {
    fn put(&self, bytes: &[u8]) -> std::io::Result<Digest> {
        self.0.cas.put(bytes).map_err(std::io::Error::other)
    }

    fn get(&self, digest: &Digest) -> std::io::Result<Option<Vec<u8>>> {
        self.0.cas.get(digest, LARGEST_BLOB).map_err(std::io::Error::other)
    }
}
