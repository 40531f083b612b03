//! The store: whether it can be written, what kind of file system it lies on, and whether there is room for a run.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;

use super::ask::{Ask, Found};
use super::machine::{nearest, writable};
use super::repos::Size;
use super::{Finding, Level, Question};
use crate::units::human_size;

/// What lies in the store and is written by every run.
const WRITTEN: [&str; 6] = ["cas/v1", "records/v1", "runs", "index", "locks", "tmp"];
/// Below this no run is worth beginning, in bytes.
const LEAST: u64 = 256 << 20;
/// What a packed tree has of its files, at a guess.
const PACKED: u64 = 3;
/// Work trees of one job at once: an agent's, or the two arms of a test.
const TREES: u64 = 2;

/// Kinds of file systems that lie on other machines.
const FAR: &[(i64, &str)] = &[
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x6573_5546, "FUSE"),
];
/// Kinds that do not last.
const BRIEF: &[(i64, &str, &str)] = &[
    (0x0102_1994, "tmpfs", "it is gone when the machine starts again"),
    (0x8584_58f6, "ramfs", "it is gone when the machine starts again"),
    (0x794c_7630, "overlay", "in a container it is gone with the container"),
];

/// Where the store lies or would lie.
pub(super) fn place(ask: &Ask) -> Found {
    let root = &ask.question.store;
    let there = nearest(root);
    let shown = root.display().to_string();
    let elsewhere = "name another folder with --cache DIR or FLOW_CACHE";
    let mut found = Found::default();
    let folders: Vec<PathBuf> = if there == *root {
        let parts = WRITTEN.map(|part| root.join(part)).into_iter().filter(|part| part.exists());
        std::iter::once(root.clone()).chain(parts).collect()
    } else {
        vec![there.clone()]
    };
    let refused = folders.iter().find_map(|folder| writable(folder).err().map(|error| (folder, error)));
    let no_folder = folders.iter().find(|folder| !folder.is_dir());
    found.lines.push(match (no_folder, refused) {
        (Some(file), _) => {
            Finding::bad(Level::Fail, "store", "", format!("{} is no folder", file.display()), elsewhere)
        }
        (None, Some((folder, error))) => {
            let what = format!("{} cannot be written: {error}", folder.display());
            Finding::bad(Level::Fail, "store", "", what, format!("make it writable, or {elsewhere}"))
        }
        (None, None) if there == *root => Finding::ok("store", "", shown),
        (None, None) => Finding::ok("store", "", format!("{shown}, which the first run makes")),
    });
    match statfs(&there).map(|stat| stat.filesystem_type().0) {
        Ok(kind) => {
            // Some are negative as the system tells them.
            let kind = kind & 0xffff_ffff;
            if let Some((_, name)) = FAR.iter().find(|(far, _)| *far == kind) {
                let what = format!("it lies on {name}, which may be far away: slow, and its locks may not hold");
                let fix = format!("keep it on a disk of this machine: {elsewhere}");
                found.lines.push(Finding::bad(Level::Warn, "store", "file system", what, fix));
            } else if let Some((_, name, why)) = BRIEF.iter().find(|(brief, ..)| *brief == kind) {
                let what = format!("it lies on {name}: {why}");
                let fix = format!("keep what was paid for on a disk: {elsewhere}");
                found.lines.push(Finding::bad(Level::Warn, "store", "file system", what, fix));
            }
        }
        Err(error) => found.lines.push(unknown_kind(error)),
    }
    found.free = statvfs(&there).ok().map(|stat| stat.blocks_available().saturating_mul(stat.fragment_size()));
    found
}

fn unknown_kind(error: Errno) -> Finding {
    let what = format!("the kind of its file system is not told: {error}");
    Finding::bad(Level::Unknown, "store", "file system", what, "look with `df -T`")
}

/// Whether there is room for a run.
pub(super) fn room(question: &Question, free: Option<u64>, size: Option<&Size>) -> Option<Finding> {
    let Some(free) = free else {
        return Some(Finding::bad(Level::Unknown, "disk", "", "what is free is not told", "look with `df`"));
    };
    let shown = human_size(free);
    let make = "make room, or name a folder on a larger disk with --cache DIR or FLOW_CACHE";
    if free < LEAST {
        return Some(Finding::bad(Level::Fail, "disk", "", format!("{shown} are free"), make));
    }
    if question.manifest.as_ref().is_none_or(|manifest| manifest.pipeline.repos.is_empty()) {
        return Some(Finding::ok("disk", "", format!("{shown} are free")));
    }
    let Some(size) = size.filter(|size| size.trees > 0) else {
        let why = match size {
            None => "while no repository is in the store",
            Some(_) => "while none of the commits is found in the repositories",
        };
        let what = format!("{shown} are free; what a run needs is unknown {why}");
        return Some(Finding::bad(Level::Unknown, "disk", "", what, "ask again when that is so"));
    };
    let jobs = question.jobs as u64;
    let trees = size.largest.saturating_mul(TREES).saturating_mul(jobs);
    let packs = size.sum / PACKED;
    let need = trees.saturating_add(packs).saturating_add(size.distinct);
    let what = format!(
        "{shown} are free, about {} are needed: {TREES} x {jobs} work trees of at most {} each, base trees packed: {} (a third of {}), and their contents once ({}){}",
        human_size(need),
        human_size(size.largest),
        size.trees,
        human_size(size.sum),
        human_size(size.distinct),
        if size.whole { "" } else { "; not all trees were looked at" },
    );
    Some(if free < need {
        Finding::bad(Level::Fail, "disk", "", what, format!("{make}; or fewer at once, with --jobs"))
    } else if free < need.saturating_mul(2) {
        Finding::bad(Level::Warn, "disk", "", what, make)
    } else {
        Finding::ok("disk", "", what)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::manifest;
    use crate::step::context::Machine;

    fn question() -> Question {
        let text = "flow 1\npipeline p {\n repo r \"x\" { commits { commit \"12345678\" } }\n step checkout uses=checkout\n}\n";
        let manifest = manifest::read_text("m.kdl", text, std::path::Path::new("/")).unwrap();
        Question {
            machine: Machine { flow: PathBuf::new(), host: String::new(), variables: BTreeMap::new() },
            manifest: Some(Arc::new(manifest)),
            store: PathBuf::from("/cache"),
            slots: PathBuf::from("/slots"),
            repos: BTreeMap::new(),
            jobs: 4,
            limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn need_is_held_against_what_is_free() {
        let mib = 1 << 20;
        // 8 work trees of 100 MiB, a third of 300 MiB, and 100 MiB: 1000 MiB.
        let size = Size { trees: 3, largest: 100 * mib, sum: 300 * mib, distinct: 100 * mib, whole: true };
        let level = |free: u64| room(&question(), Some(free), Some(&size)).unwrap();
        assert_eq!(level(3000 * mib).level, Level::Ok);
        assert_eq!(level(1500 * mib).level, Level::Warn);
        let full = level(900 * mib);
        assert_eq!(full.level, Level::Fail);
        assert!(full.what.contains("about 1.0 GiB are needed: 2 x 4 work trees"), "{}", full.what);
        assert!(full.fix.unwrap().contains("--jobs"));
        assert_eq!(room(&question(), Some(mib), None).unwrap().level, Level::Fail);
        assert_eq!(room(&question(), Some(3000 * mib), None).unwrap().level, Level::Unknown);
        assert_eq!(room(&question(), None, None).unwrap().level, Level::Unknown);
    }
}
