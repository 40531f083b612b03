//! Files near a manifest that define what it forgot to import: for advice only.

use std::path::{Path, PathBuf};

use super::flaw::Report;
use crate::hostile;

/// Where such files lie: in a folder named after what they define, or beside the manifest.
const PLACES: &[&str] = &["", "pipelines/", "../", "../pipelines/"];
/// How many files of a folder are looked into, and how many bytes one may have.
const FILES: usize = 200;
const BYTES: u64 = 1 << 20;

/// The file that defines something by this name, as an import in the manifest would say it.
pub(super) fn defining(what: &str, name: &str, report: &Report) -> Option<String> {
    // Files of a commit are not listed.
    if report.version.commit().is_some() {
        return None;
    }
    let dir = report.dir()?;
    let places = PLACES.iter().map(|place| format!("{place}{what}s")).chain([String::new()]);
    { places }.find_map(|place| {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(dir.join(&place)).ok()?.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "kdl"));
        files.sort();
        let found = files.into_iter().take(FILES).find(|path| says(path, what, name))?;
        Some(Path::new(&place).join(found.file_name()?).display().to_string())
    })
}

fn says(path: &Path, what: &str, name: &str) -> bool {
    let Ok(Some(bytes)) = hostile::read_regular(path, BYTES) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(what) && words.next().is_some_and(|word| word.trim_matches('"') == name)
    })
}
