//! What the commits of a pipeline are: their bases, and what those are called by the tags behind them.
//!
//! What was recorded is not asked again, so that what is stored needs no repository.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::git::{self, Described, Mirror, Source, Tags};
use crate::key::Value;
use crate::manifest::{Pipeline, Place};
use crate::names::ObjectId;
use crate::plan::expand::protected;
use crate::plan::{CheckoutAsk, CommitFact, Missing};
use crate::run::prepare::{FETCHES, Wishes};
use crate::step::checkout;
use crate::step::context::FETCH;
use crate::store::files::write_derived;
use crate::store::{Index, Store};

/// Commits by (index of repository, index of commit).
type Commits = BTreeMap<(usize, usize), Result<CommitFact, Missing>>;

/// What is asked of the repositories of a pipeline.
pub(super) struct Asking<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) sources: &'a [Source],
    pub(super) store: &'a Store,
    pub(super) index: &'a Index,
    pub(super) wishes: &'a Wishes,
}

impl Asking<'_> {
    /// What its commits are, with their bases.
    pub(super) fn commits(&self, notices: &mut Vec<String>) -> Commits {
        let Self { pipeline, sources, store, index, wishes } = *self;
        let protect = protected(pipeline);
        let mut facts = BTreeMap::new();
        for (repo_index, repo) in pipeline.repos.iter().enumerate() {
            let mut mirror: Option<Result<Mirror, Missing>> = None;
            let mut fresh = false;
            for (commit_index, commit) in repo.commits.iter().enumerate() {
                let ask =
                    CheckoutAsk { human: commit.id.value.clone(), base: commit.base.clone(), protect: protect.clone() };
                if let Some(fact) = recorded(&ask, index) {
                    facts.insert((repo_index, commit_index), Ok(fact));
                    continue;
                }
                let source = &sources[repo_index];
                let opened = mirror.get_or_insert_with(|| open(source, &repo.source.place, store, wishes, notices));
                let mut fact = match opened {
                    Ok(mirror) => resolve(mirror, repo.name.value.as_str(), &ask, commit.id.place),
                    Err(missing) => Err(missing.clone()),
                };
                if fact.is_err() && wishes.fetch && !fresh && matches!(source, Source::Url(_)) && opened.is_ok() {
                    // The mirror may be older than the list.
                    fresh = true;
                    if let Ok(newer) = Mirror::prepare(&store.mirrors(), source, FETCH) {
                        fact = resolve(&newer, repo.name.value.as_str(), &ask, commit.id.place);
                        mirror = Some(Ok(newer));
                    }
                }
                facts.insert((repo_index, commit_index), fact);
            }
            // Nobody opened it: the next run that has to would meet a path that was mistyped.
            if mirror.is_none()
                && !repo.commits.is_empty()
                && let Source::Local(path) | Source::Stream(path) = &sources[repo_index]
                && !path.exists()
            {
                let name = &repo.name.value;
                notices.push(format!("repository {name} is not at {}; what is stored needs none", path.display()));
            }
        }
        facts
    }

    /// What the bases are called by the tags behind them, where a recipe asks for that: what was told before stands where a repository
    /// is not here, and where it is as long as its tags are the same.
    pub(super) fn described(
        &self,
        commits: &Commits,
        notices: &mut Vec<String>,
    ) -> BTreeMap<(usize, usize), Result<Described, Missing>> {
        let Self { pipeline, sources, store, wishes, .. } = *self;
        let mut facts = BTreeMap::new();
        if !pipeline.describes() {
            return facts;
        }
        for (repo_index, repo) in pipeline.repos.iter().enumerate() {
            let source = &sources[repo_index];
            let here = matches!(Mirror::open(&store.mirrors(), source), Ok(Some(_)));
            let mut tags: Option<Result<(Mirror, Tags), Missing>> = None;
            for (commit_index, commit) in repo.commits.iter().enumerate() {
                let at = (repo_index, commit_index);
                // What is not resolved has been told of.
                let Some(Ok(fact)) = commits.get(&at) else { continue };
                let memory = Memory::of(store, source, &fact.base);
                let told = memory.read();
                if let Some(told) = &told
                    && !here
                {
                    facts.insert(at, Ok(told.described.clone()));
                    continue;
                }
                let opened = tags.get_or_insert_with(|| {
                    let mirror = open(source, &repo.source.place, store, wishes, notices)?;
                    let tags = mirror.tags().map_err(|error| unread(&error, repo.source.place))?;
                    Ok((mirror, tags))
                });
                let described = match opened {
                    Err(missing) => Err(missing.clone()),
                    Ok((mirror, tags)) => match told.filter(|told| told.tags == tags.digest) {
                        Some(told) => Ok(told.described),
                        None => {
                            let described = mirror.describe(&ObjectId::new(fact.base.as_str()), tags);
                            let described = described.map_err(|error| unread(&error, commit.id.place));
                            if let Ok(described) = &described {
                                memory.write(Told { tags: tags.digest, described: described.clone() });
                            }
                            described
                        }
                    },
                };
                facts.insert(at, described);
            }
        }
        facts
    }
}

fn unread(error: &git::GitError, place: Place) -> Missing {
    Missing::undescribed(&error.to_string(), place)
}

/// What a base was called, and by which tags.
#[derive(Serialize, Deserialize)]
struct Told {
    tags: Digest,
    described: Described,
}

/// Where that is remembered. Derived: what is not there is asked for again.
struct Memory(PathBuf);

impl Memory {
    fn of(store: &Store, source: &Source, base: &str) -> Self {
        let name = Digest::of(format!("{source:?}\n{base}").as_bytes());
        Self(store.root.join("index/described").join(name.to_string()))
    }

    fn read(&self) -> Option<Told> {
        let bytes = crate::hostile::read_regular(&self.0, 10_000).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn write(&self, told: Told) {
        if let Some(dir) = self.0.parent()
            && std::fs::create_dir_all(dir).is_ok()
            && let Ok(bytes) = serde_json::to_vec(&told)
        {
            let _ = write_derived(&self.0, &bytes);
        }
    }
}

/// What an earlier run resolved: no repository needs to be opened for it.
fn recorded(ask: &CheckoutAsk, index: &Index) -> Option<CommitFact> {
    let key = checkout::record(ask).key();
    let attempts = index.attempts(&key).ok()?;
    let settled = attempts.iter().find(|ended| ended.outcome.settles())?;
    let text = |name: &str| settled.outputs.get(name).and_then(Value::as_text).map(str::to_owned);
    let (base, base_tree) = (text("base")?, text("tree"));
    Some(CommitFact { human: text("human")?, base, base_tree, subject: text("subject")? })
}

fn open(
    source: &Source,
    place: &Place,
    store: &Store,
    wishes: &Wishes,
    notices: &mut Vec<String>,
) -> Result<Mirror, Missing> {
    let name = match source {
        Source::Url(url) => url.clone(),
        Source::Local(path) | Source::Stream(path) => path.display().to_string(),
    };
    let missing = |what: String| Missing {
        what,
        hint: "correct the repository's place, or give a local clone with --repo NAME=PATH".into(),
        place: Some(*place),
        fatal: true,
    };
    match Mirror::open(&store.mirrors(), source) {
        Ok(Some(mirror)) => Ok(mirror),
        // A stream costs a second and no network: a plan may make its mirror too.
        Ok(None) if wishes.fetch || matches!(source, Source::Stream(_)) => {
            if matches!(source, Source::Url(_)) {
                notices.push(format!("fetched {name}"));
            }
            Mirror::prepare(&store.mirrors(), source, FETCH)
                .map_err(|error| missing(format!("the repository {name} cannot be had: {error}")))
        }
        Ok(None) => Err(Missing {
            hint: format!("{FETCHES}; a local clone can be given with --repo NAME=PATH"),
            ..missing(format!("the repository {name} is not fetched yet"))
        }),
        Err(error) => Err(missing(format!("the repository {name} cannot be read: {error}"))),
    }
}

fn resolve(mirror: &Mirror, repo: &str, ask: &CheckoutAsk, place: Place) -> Result<CommitFact, Missing> {
    let base = match &ask.base {
        crate::manifest::Base::Parent(n) => git::BaseRule::Parent(*n),
        crate::manifest::Base::Id(id) => git::BaseRule::Commit(id.clone()),
    };
    match mirror.resolve(&ask.human, &base) {
        Ok(resolved) => Ok(CommitFact {
            human: resolved.human.as_str().to_owned(),
            base: resolved.base.as_str().to_owned(),
            base_tree: Some(resolved.base_tree.as_str().to_owned()),
            subject: resolved.subject,
        }),
        Err(error) => Err(Missing {
            // Where flow keeps its mirror tells nobody which repository is meant.
            what: error.to_string().replace(&mirror.path().display().to_string(), &format!("the repository {repo}")),
            hint: "correct the commit's id, fetch it into the repository, or take it off the list".into(),
            place: Some(place),
            fatal: true,
        }),
    }
}
