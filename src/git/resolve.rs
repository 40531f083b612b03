//! From the id that a list of commits names to the two trees that a job is about.

use git2::{ErrorCode, ObjectType, Oid};

use super::error::GitError;
use super::mirror::Mirror;
use super::objects::public;
use crate::names::ObjectId;

/// Which commit a human commit is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BaseRule {
    /// Its parent of this number, counted from 1.
    Parent(u32),
    /// A commit named outright, by 8 to 40 hex digits.
    Commit(String),
}

/// A human commit and its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The human commit.
    pub human: ObjectId,
    /// The commit that the agent starts from.
    pub base: ObjectId,
    /// The tree of the base.
    pub base_tree: ObjectId,
    /// The tree of the human commit.
    pub human_tree: ObjectId,
    /// The first line of the human commit's message, at most 200 characters.
    pub subject: String,
}

/// What is read of a commit.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) id: Oid,
    pub(super) tree: Oid,
    pub(super) parents: Vec<Oid>,
    pub(super) subject: String,
    /// The name of its author, at most 100 characters.
    pub(super) author: String,
    /// When its author made it, in seconds since 1970.
    pub(super) authored: i64,
    /// When it was committed, in seconds since 1970.
    pub(super) committed: i64,
}

impl Mirror {
    /// Resolves a human commit, named by 8 to 40 hex digits, and its base.
    ///
    /// # Errors
    /// [`GitError::NotAnId`], [`GitError::Missing`], [`GitError::Ambiguous`], [`GitError::WrongKind`], [`GitError::NoParent`].
    pub fn resolve(&self, human: &str, base: &BaseRule) -> Result<Resolved, GitError> {
        let human = self.commit(self.commit_id(human)?)?;
        let base = match base {
            BaseRule::Commit(id) => self.commit_id(id)?,
            BaseRule::Parent(n) => {
                let index = usize::try_from(*n).ok().and_then(|n| n.checked_sub(1));
                *index.and_then(|i| human.parents.get(i)).ok_or_else(|| GitError::NoParent {
                    id: public(human.id),
                    parent: *n,
                    has: human.parents.len(),
                })?
            }
        };
        let base = self.commit(base)?;
        // A mirror that lacks a tree (shallow, partial) is better known now than after a lease.
        for tree in [human.tree, base.tree] {
            let (_, kind) = self.header(tree)?;
            if kind != ObjectType::Tree {
                return Err(GitError::WrongKind { id: public(tree), found: kind.to_string(), wanted: "tree" });
            }
        }
        Ok(Resolved {
            human: public(human.id),
            base: public(base.id),
            base_tree: public(base.tree),
            human_tree: public(human.tree),
            subject: human.subject,
        })
    }

    /// The one commit whose id begins with `digits`; an annotated tag's id stands for its commit.
    fn commit_id(&self, digits: &str) -> Result<Oid, GitError> {
        let fits = (8..=40).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !fits {
            return Err(GitError::NotAnId { id: digits.chars().take(80).collect() });
        }
        self.find_commit(digits)
    }

    /// The same for as few as 4 hex digits.
    pub(super) fn find_commit(&self, digits: &str) -> Result<Oid, GitError> {
        let digits = digits.to_ascii_lowercase();
        let missing = || GitError::Missing { id: digits.clone(), repository: self.path().to_owned() };
        let short = Oid::from_str(&digits).map_err(|_| missing())?;
        let found = match self.odb.exists_prefix(short, digits.len()) {
            Ok(id) => id,
            Err(e) if e.code() == ErrorCode::NotFound => return Err(missing()),
            Err(e) if e.code() == ErrorCode::Ambiguous => self.only_commit(&digits)?,
            Err(e) => return Err(self.unread(short, &e)),
        };
        self.peel(found)
    }

    /// The one commit among objects that begin with the same digits: blobs and trees are not meant.
    fn only_commit(&self, digits: &str) -> Result<Oid, GitError> {
        let mut same = std::collections::BTreeSet::new();
        self.odb
            .foreach(|id| {
                if id.to_string().starts_with(digits) {
                    same.insert(*id);
                }
                true
            })
            .map_err(GitError::libgit2(format!("listing the objects of {}", self.path().display())))?;
        same.retain(|id| matches!(self.header(*id), Ok((_, ObjectType::Commit))));
        match (same.len(), same.first()) {
            (1, Some(id)) => Ok(*id),
            (0, _) => Err(GitError::Missing { id: digits.to_owned(), repository: self.path().to_owned() }),
            (candidates, _) => {
                Err(GitError::Ambiguous { id: digits.to_owned(), repository: self.path().to_owned(), candidates })
            }
        }
    }

    /// The commit behind an id: itself, or what an annotated tag points to.
    pub(super) fn peel(&self, mut id: Oid) -> Result<Oid, GitError> {
        for _ in 0..5 {
            let (_, kind) = self.header(id)?;
            if kind != ObjectType::Tag {
                break;
            }
            let raw = self.raw(id, ObjectType::Tag, "tag")?;
            id = field(&raw, b"object ").ok_or_else(|| damaged(id))?;
        }
        Ok(id)
    }

    pub(super) fn commit(&self, id: Oid) -> Result<Commit, GitError> {
        let raw = self.raw(id, ObjectType::Commit, "commit")?;
        let tree = field(&raw, b"tree ").ok_or_else(|| damaged(id))?;
        let (head, message) = match raw.windows(2).position(|w| w == b"\n\n") {
            Some(end) => (&raw[..end], &raw[end + 2..]),
            None => (&raw[..], &b""[..]),
        };
        let mut parents = Vec::new();
        let mut lines = head.split(|b| *b == b'\n').skip(1).peekable();
        while let Some(parent) = lines.peek().and_then(|line| field(line, b"parent ")) {
            parents.push(parent);
            lines.next();
        }
        let (author, authored) =
            lines.next().and_then(|line| line.strip_prefix(b"author ")).map(person).unwrap_or_default();
        let (_, committed) =
            lines.next().and_then(|line| line.strip_prefix(b"committer ")).map(person).unwrap_or_default();
        let first = message.split(|b| *b == b'\n').find(|l| !l.trim_ascii().is_empty()).unwrap_or_default();
        let subject = one_line(first, 200);
        Ok(Commit { id, tree, parents, subject, author, authored, committed })
    }
}

/// What a stranger wrote on one line, without control characters, in at most so many others.
fn one_line(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

/// The name and the time of `Name <mail> seconds zone`.
fn person(line: &[u8]) -> (String, i64) {
    let open = line.iter().position(|b| *b == b'<').unwrap_or(line.len());
    let close = line.iter().rposition(|b| *b == b'>').map_or(line.len(), |at| at + 1);
    let time = std::str::from_utf8(&line[close..]).ok().and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    (one_line(&line[..open], 100), time.unwrap_or(0))
}

/// The id after `name` at the beginning of a commit, a tag, or one of their lines.
fn field(raw: &[u8], name: &[u8]) -> Option<Oid> {
    let digits = raw.strip_prefix(name)?.get(..40)?;
    Oid::from_str(std::str::from_utf8(digits).ok()?).ok()
}

fn damaged(id: Oid) -> GitError {
    GitError::Damaged { id: public(id), why: "it names no object".to_owned() }
}
