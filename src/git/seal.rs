//! Makes a sealed repository: one tree, one parentless commit, and nothing of the past or the future.
//!
//! Knows nothing of the files in the work tree beyond their stat, which the index needs.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use git2::{Index, IndexEntry, IndexTime, Indexer, ObjectType, Oid};
use miniz_oxide::deflate::compress_to_vec_zlib;
use sha1::{Digest as _, Sha1};

use super::error::GitError;
use super::merge::tree_path;
use super::mirror::Mirror;
use super::objects::{each_line, ids_of_tree, private, public};
use crate::names::ObjectId;

const CONFIG: &str =
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n";

/// Makes `dest/.git`, where `dest` holds the tree's files already: exactly the tree's objects and one parentless commit whose
/// id is a function of the tree, branch `main` on it, and an index that matches. The pack is made once per tree and kept in
/// `packs`.
///
/// # Errors
/// Missing objects, a `dest/.git` that is there already, a full disk.
pub fn seal(mirror: &Mirror, tree: &ObjectId, packs: &Path, dest: &Path) -> Result<ObjectId, GitError> {
    let root = private(tree)?;
    let commit = commit_bytes(tree);
    let id = Oid::hash_object(ObjectType::Commit, &commit).map_err(GitError::libgit2("hashing the base commit"))?;
    fs::create_dir_all(packs).map_err(GitError::io(packs))?;
    let (pack, idx) = (packs.join(format!("{tree}.pack")), packs.join(format!("{tree}.idx")));
    if !whole(&pack, &idx) {
        make_pack(mirror, root, &commit, packs, &pack, &idx)?;
    }

    let git = dest.join(".git");
    let inner = git.join("objects/pack");
    fs::create_dir(&git).map_err(GitError::io(&git))?;
    for dir in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "hooks"] {
        let dir = git.join(dir);
        fs::create_dir_all(&dir).map_err(GitError::io(&dir))?;
    }
    for (from, suffix) in [(&pack, "pack"), (&idx, "idx")] {
        // A copy, never a hard link: the agent could write through it into every later repository.
        let to = inner.join(format!("pack-{tree}.{suffix}"));
        fs::copy(from, &to).map_err(GitError::io(&to))?;
    }
    let files = [
        ("HEAD", "ref: refs/heads/main\n".to_owned()),
        ("config", CONFIG.to_owned()),
        ("refs/heads/main", format!("{id}\n")),
    ];
    for (name, text) in files {
        let path = git.join(name);
        fs::write(&path, text).map_err(GitError::io(&path))?;
    }
    write_index(mirror, root, dest, &git.join("index"))?;
    Ok(public(id))
}

/// The one commit: everything in it but the tree is fixed.
fn commit_bytes(tree: &ObjectId) -> Vec<u8> {
    let who = "flow <flow@localhost> 0 +0000";
    format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nbase\n").into_bytes()
}

/// Whether a cached pack and its index are there, untorn, and belong together: an index ends in the checksum that its pack
/// ends in, and its own.
fn whole(pack: &Path, idx: &Path) -> bool {
    let tail = |path: &Path, from_end: i64| -> io::Result<[u8; 20]> {
        let mut bytes = [0; 20];
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-from_end))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    matches!((tail(pack, 20), tail(idx, 40)), (Ok(a), Ok(b)) if a == b)
}

/// Writes pack and index into `packs`, the index last: where it is, the pack is.
fn make_pack(mirror: &Mirror, root: Oid, commit: &[u8], packs: &Path, pack: &Path, idx: &Path) -> Result<(), GitError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let temp = packs.join(format!("tmp-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let _ = fs::remove_dir_all(&temp);
    fs::create_dir(&temp).map_err(GitError::io(&temp))?;
    let made = fill_pack(mirror, root, commit, &temp).and_then(|name| {
        for (suffix, to) in [("pack", pack), ("idx", idx)] {
            let from = temp.join(format!("pack-{name}.{suffix}"));
            fs::rename(&from, to).map_err(GitError::io(&from))?;
        }
        Ok(())
    });
    let _ = fs::remove_dir_all(&temp);
    made
}

/// A pack of whole, deflated objects. No deltas: searching for them takes libgit2 four times as long as all the rest.
fn fill_pack(mirror: &Mirror, root: Oid, commit: &[u8], temp: &Path) -> Result<String, GitError> {
    let of = |e: git2::Error| GitError::libgit2(format!("packing tree {root}"))(e);
    let ids = ids_of_tree(mirror, root)?;
    let count = u32::try_from(ids.len() + 1).unwrap_or(u32::MAX);
    let mut indexer = Indexer::new(None, temp, 0o444, false).map_err(of)?;
    let mut hash = Sha1::new();
    let mut send = |bytes: &[u8]| -> Result<(), GitError> {
        hash.update(bytes);
        indexer.write_all(bytes).map_err(GitError::io(temp))
    };
    send(&[b"PACK", &2_u32.to_be_bytes()[..], &count.to_be_bytes()].concat())?;
    send(&packed(1, commit))?;
    for (id, kind) in ids {
        let piece = match kind {
            ObjectType::Tree => packed(2, &mirror.raw(id, ObjectType::Tree, "tree")?),
            _ => packed(3, &mirror.blob(id)?),
        };
        send(&piece)?;
    }
    let sum = hash.finalize();
    indexer.write_all(&sum).map_err(GitError::io(temp))?;
    indexer.commit().map_err(of)
}

/// One object as a pack holds it: kind and length, then the deflated bytes.
fn packed(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut size = bytes.len();
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is meant")]
    let mut low = |bits: u32| {
        let part = (size & ((1 << bits) - 1)) as u8;
        size >>= bits;
        (part, size > 0)
    };
    let (part, mut more) = low(4);
    let mut out = vec![kind << 4 | part | if more { 0x80 } else { 0 }];
    while more {
        let (part, next) = low(7);
        out.push(part | if next { 0x80 } else { 0 });
        more = next;
    }
    out.extend_from_slice(&compress_to_vec_zlib(bytes, 1));
    out
}

/// An index whose stat fields are those of the files in `dest`, so that the agent's first `git status` reads no file.
fn write_index(mirror: &Mirror, root: Oid, dest: &Path, path: &Path) -> Result<(), GitError> {
    let of = |e: git2::Error| GitError::libgit2(format!("writing {}", path.display()))(e);
    let mut index = Index::open(path).map_err(of)?;
    each_line(mirror, root, &mut Vec::new(), &mut 0, &mut |name, line| {
        let stat = dest
            .join(tree_path(name)?.as_path())
            .symlink_metadata()
            .ok()
            .filter(|_| line.mode != super::objects::GITLINK);
        let stat = stat.as_ref();
        // The format has 32 bits for each of these, and git compares no more.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as git does")]
        let entry = IndexEntry {
            ctime: IndexTime::new(stat.map_or(0, |s| s.ctime() as i32), stat.map_or(0, |s| s.ctime_nsec() as u32)),
            mtime: IndexTime::new(stat.map_or(0, |s| s.mtime() as i32), stat.map_or(0, |s| s.mtime_nsec() as u32)),
            dev: stat.map_or(0, |s| s.dev() as u32),
            ino: stat.map_or(0, |s| s.ino() as u32),
            mode: if line.is_file() { if line.executable() { 0o100_755 } else { 0o100_644 } } else { line.mode },
            uid: stat.map_or(0, |s| s.uid()),
            gid: stat.map_or(0, |s| s.gid()),
            file_size: stat.map_or(0, |s| s.size() as u32),
            id: line.id,
            flags: 0,
            flags_extended: 0,
            path: name.to_vec(),
        };
        index.add(&entry).map_err(of)
    })?;
    index.write().map_err(of)
}
