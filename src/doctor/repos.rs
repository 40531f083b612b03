//! Repositories: whether they answer, whether their commits and bases are here, and what of their trees a plain checkout lacks.

use std::collections::BTreeSet;

use super::ask::{Ask, Found};
use super::{Finding, Level};
use crate::git::{self, BaseRule, Mirror, Source};
use crate::manifest::{Base, Manifest, Repo, RepoSource};
use crate::names::ObjectId;
use crate::plan::{CommitFact, Missing};

/// What git says where the way to a far end is broken, and not its name.
const NETWORK: &[&str] = &[
    "Could not resolve host",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "No route to host",
    "Connection refused",
    "Connection timed out",
    "Failed to connect",
    "Could not connect",
    "no answer within",
];

/// How much the base trees hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Size {
    /// Distinct base trees.
    pub(super) trees: usize,
    /// Bytes of the largest.
    pub(super) largest: u64,
    /// Bytes of all.
    pub(super) sum: u64,
    /// Bytes of their distinct contents.
    pub(super) distinct: u64,
    /// Whether all were looked at.
    pub(super) whole: bool,
}

impl Size {
    /// Of two repositories.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            trees: self.trees + other.trees,
            largest: self.largest.max(other.largest),
            sum: self.sum.saturating_add(other.sum),
            distinct: self.distinct.saturating_add(other.distinct),
            whole: self.whole && other.whole,
        }
    }
}

fn repo(ask: &Ask, index: usize) -> Option<(&Manifest, &Repo)> {
    let manifest = ask.question.manifest.as_deref()?;
    Some((manifest, manifest.pipeline.repos.get(index)?))
}

/// Asks whether a repository answers.
pub(super) fn reach(ask: &Ask, index: usize, source: &Source) -> Found {
    let Some((manifest, repo)) = repo(ask, index) else { return Found::default() };
    let name = repo.name.value.as_str();
    let mirrors = ask.question.store.join("mirrors");
    let mirrored = matches!(Mirror::open(&mirrors, source), Ok(Some(_)));
    let line = match (Mirror::reach(source, ask.left()), source) {
        (Ok(()), Source::Local(path)) => Finding::ok("repository", name, format!("{}, read in place", path.display())),
        (Ok(()), _) if mirrored => Finding::ok("repository", name, "it answers, and is mirrored in the store"),
        (Ok(()), Source::Stream(path)) => {
            Finding::ok("repository", name, format!("{}, not yet mirrored", path.display()))
        }
        (Ok(()), Source::Url(_)) => Finding::ok("repository", name, "it answers; `flow run` fetches it"),
        (Err(error), Source::Url(_)) if mirrored => {
            let what = format!("it does not answer, but is mirrored in the store: {error}");
            let fix = "nothing, as long as all commits are in the mirror";
            Finding::bad(Level::Warn, "repository", name, what, fix)
        }
        (Err(error), _) => {
            let said = error.to_string();
            let fix = if NETWORK.iter().any(|words| said.contains(words)) {
                format!(
                    "look at the network from here (name service, proxy, VPN), or give a local clone with --repo {name}=PATH"
                )
            } else {
                format!("correct its place, or give a local clone with --repo {name}=PATH")
            };
            Finding::bad(ask.level(Level::Fail), "repository", name, error.to_string(), fix)
        }
    };
    Found::line(if line.level == Level::Ok { line } else { line.at(manifest, repo.source.place) })
}

/// Looks for the commits of a repository and their bases, and through the trees of the bases.
pub(super) fn commits(ask: &Ask, index: usize, source: &Source) -> Found {
    let Some((manifest, repo)) = repo(ask, index) else { return Found::default() };
    let name = repo.name.value.as_str();
    let mut found = Found::default();
    let mirror = match Mirror::open(&ask.question.store.join("mirrors"), source) {
        Ok(Some(mirror)) => mirror,
        other => {
            let what = match other {
                Ok(_) => {
                    format!("whether its {} commits are there is told when it is in the store", repo.commits.len())
                }
                Err(_) => format!("its {} commits cannot be looked for", repo.commits.len()),
            };
            let first = if matches!(source, Source::Stream(_)) { "plan" } else { "run" };
            let fix = format!("ask again after `flow {first}`, or give a clone with --repo {name}=PATH");
            for (commit, asked) in repo.commits.iter().enumerate() {
                let missing = lacking(&what, "", asked.id.place);
                found.facts.commits.insert((index, commit), Err(missing));
            }
            found.facts.said.insert(what.clone());
            found.lines.push(Finding::bad(Level::Unknown, "commits", name, what, fix));
            return found;
        }
    };
    let mut trees: BTreeSet<ObjectId> = BTreeSet::new();
    let (mut absent, mut looked) = (Vec::new(), 0);
    let tags = manifest.pipeline.describes().then(|| mirror.tags());
    for (number, commit) in repo.commits.iter().enumerate() {
        if ask.late() {
            break;
        }
        looked += 1;
        let base = match &commit.base {
            Base::Parent(n) => BaseRule::Parent(*n),
            Base::Id(id) => BaseRule::Commit(id.clone()),
        };
        let fact = match mirror.resolve(&commit.id.value, &base) {
            Ok(resolved) => {
                trees.insert(resolved.base_tree.clone());
                if let Some(tags) = &tags {
                    let described = match tags {
                        Ok(tags) => mirror.describe(&resolved.base, tags).map_err(|error| error.to_string()),
                        Err(error) => Err(error.to_string()),
                    };
                    let described = described.map_err(|why| Missing::undescribed(&why, commit.id.place));
                    found.facts.described.insert((index, number), described);
                }
                Ok(CommitFact {
                    human: resolved.human.as_str().to_owned(),
                    base: resolved.base.as_str().to_owned(),
                    base_tree: Some(resolved.base_tree.as_str().to_owned()),
                    subject: resolved.subject,
                })
            }
            Err(error) => {
                let mirror = mirror.path().display().to_string();
                let what = error.to_string().replace(&mirror, &format!("the repository {name}"));
                found.facts.said.insert(what.clone());
                absent.push((commit, what.clone()));
                Err(lacking(&what, "", commit.id.place))
            }
        };
        found.facts.commits.insert((index, number), fact);
    }
    let all = repo.commits.len();
    found.lines.push(match absent.first() {
        Some((commit, why)) => {
            let what = format!("{} of {looked} are not there with their bases; the first: {why}", absent.len());
            let url = matches!(repo.source.value, RepoSource::Url(_)) && matches!(source, Source::Url(_));
            let (level, fix) = if mirror.is_shallow() {
                (
                    Level::Fail,
                    format!("`git -C {} fetch --unshallow`: the clone lacks history", mirror.path().display()),
                )
            } else if url {
                (Level::Warn, "`flow run` fetches once more; if they are not there then, take them off the list".into())
            } else {
                (Level::Fail, "fetch them into the repository, correct their ids, or take them off the list".into())
            };
            Finding::bad(level, "commits", name, what, fix).at(manifest, commit.id.place)
        }
        None if looked < all => {
            let what = format!("{looked} of {all} are there with their bases; the others were not looked for in time");
            Finding::bad(Level::Unknown, "commits", name, what, "give it more time with --limit")
        }
        None if all == 1 => Finding::ok("commits", name, "the one commit is there with its base"),
        None => Finding::ok("commits", name, format!("all {all} are there with their bases")),
    });
    let trees: Vec<ObjectId> = trees.into_iter().collect();
    match git::survey(&mirror, &trees, ask.until) {
        Ok(survey) => {
            if !survey.submodules.is_empty() {
                let what =
                    format!("its base trees hold submodules, which stay empty: {}", survey.submodules.join(", "));
                let fix = "take commits whose tests need them off the list, or install what they hold in the tests' environment";
                found.lines.push(Finding::bad(Level::Warn, "submodules", name, what, fix));
            }
            if !survey.lfs.is_empty() {
                let what =
                    format!("its base trees keep files in git LFS, which stay pointers: see {}", survey.lfs.join(", "));
                let fix = "take commits whose tests read such files off the list";
                found.lines.push(Finding::bad(Level::Warn, "LFS", name, what, fix));
            }
            let git::Survey { largest, sum, distinct, whole, trees, .. } = survey;
            found.size = Some(Size { trees, largest, sum, distinct, whole });
        }
        Err(error) => {
            let what = format!("its base trees cannot be read: {error}");
            found.lines.push(Finding::bad(
                Level::Fail,
                "commits",
                name,
                what,
                "clone it anew: objects are missing or damaged",
            ));
        }
    }
    found
}

fn lacking(what: &str, hint: &str, place: crate::manifest::Place) -> Missing {
    Missing { what: what.to_owned(), hint: hint.to_owned(), place: Some(place), fatal: true }
}
