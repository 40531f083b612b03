//! Python environments of tools: which packages run out of a folder of the user's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::hostile::read_regular;

/// Entries of a folder of packages that are looked at.
const ENTRIES: usize = 20_000;
/// The longest file that tells where a package is, in bytes.
const LONGEST: u64 = 256 << 10;

/// A package that is installed editable: its code is a folder elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Editable {
    /// Its name, as far as the installation tells.
    pub(super) name: String,
    /// The folder, where it is told.
    pub(super) from: Option<PathBuf>,
}

/// The environments that a program belongs to: the one it lies in, that of the interpreter which its first line names, and where
/// a link leads.
pub(super) fn environments(program: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let interpreter = interpreter(program);
    let behind = program.canonicalize().ok().filter(|_| interpreter.is_some());
    for path in [Some(program.to_owned()), interpreter, behind].into_iter().flatten() {
        let Some(prefix) = path.parent().and_then(Path::parent) else { continue };
        if !found.iter().any(|known| known == prefix) && !packages(prefix).is_empty() {
            found.push(prefix.to_owned());
        }
    }
    found
}

/// The interpreter that a script's first line names, by path.
pub(super) fn interpreter(program: &Path) -> Option<PathBuf> {
    use std::io::Read as _;
    let mut first = Vec::new();
    crate::hostile::open_regular(program).ok()?.take(4096).read_to_end(&mut first).ok()?;
    let line = first.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let words = String::from_utf8_lossy(line);
    let path = PathBuf::from(words.split_whitespace().next()?);
    (path.is_absolute() && path.file_name().is_some_and(|name| name != "env")).then_some(path)
}

/// The folders of packages below a prefix.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in ["lib", "lib64"] {
        for entry in fs::read_dir(prefix.join(lib)).into_iter().flatten().flatten().take(ENTRIES) {
            if entry.file_name().to_string_lossy().starts_with("python3") {
                let folders = ["site-packages", "dist-packages"].map(|name| entry.path().join(name));
                found.extend(folders.into_iter().filter(|folder| folder.is_dir()));
            }
        }
    }
    // `lib64` is a link to `lib` in most environments.
    let mut seen = BTreeSet::new();
    found.retain(|folder| seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())));
    found
}

/// The editable packages of an environment.
pub(super) fn editables(prefix: &Path) -> Vec<Editable> {
    let mut found: BTreeSet<Editable> = BTreeSet::new();
    for folder in packages(prefix) {
        let mut marks: Vec<Editable> = Vec::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().take(ENTRIES) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(package) = name.strip_suffix(".dist-info") {
                found.extend(of_dist_info(package, &entry.path()));
            } else if let Some(package) = name.strip_suffix(".egg-link") {
                let text = read(&entry.path()).unwrap_or_default();
                let from = text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(PathBuf::from);
                found.insert(Editable { name: package.to_owned(), from });
            } else if let Some(rest) = name.strip_prefix("__editable__.").and_then(|rest| rest.strip_suffix(".pth")) {
                let text = read(&entry.path()).unwrap_or_default();
                let from = text.lines().map(str::trim).find(|line| line.starts_with('/')).map(PathBuf::from);
                marks.push(Editable { name: without_version(rest).to_owned(), from });
            }
        }
        // Most such marks belong to a package whose `direct_url.json` says more.
        for mark in marks {
            let same = |name: &str| name.replace('_', "-").eq_ignore_ascii_case(&mark.name.replace('_', "-"));
            if !found.iter().any(|known| same(&known.name)) {
                found.insert(mark);
            }
        }
    }
    found.into_iter().collect()
}

fn of_dist_info(package: &str, folder: &Path) -> Option<Editable> {
    let value: serde_json::Value = serde_json::from_str(&read(&folder.join("direct_url.json"))?).ok()?;
    if value.pointer("/dir_info/editable") != Some(&serde_json::Value::Bool(true)) {
        return None;
    }
    let url = value.get("url").and_then(serde_json::Value::as_str)?;
    let from = url.strip_prefix("file://").map(|path| PathBuf::from(decoded(path)));
    Some(Editable { name: without_version(package).to_owned(), from })
}

/// `trae_agent-0.1.0` without its version.
fn without_version(package: &str) -> &str {
    package.split_once('-').map_or(package, |(name, _)| name)
}

/// A path of a URL with `%20` and the like read.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.filter(|_| first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read(path: &Path) -> Option<String> {
    let bytes = read_regular(path, LONGEST).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn every_way_to_install_a_folder_is_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let packages = dir.path().join("lib/python3.12/site-packages");
        let url = r#"{"dir_info": {"editable": true}, "url": "file:///opt/my%20agent"}"#;
        write(&packages.join("trae_agent-0.1.0.dist-info/direct_url.json"), url);
        write(&packages.join("__editable__.trae_agent-0.1.0.pth"), "/opt/my agent\n");
        write(&packages.join("__editable__.other-2.pth"), "import __editable___other_finder; …\n");
        write(&packages.join("old.egg-link"), "/opt/old\n.\n");
        write(&packages.join("plain-1.dist-info/direct_url.json"), r#"{"dir_info": {}, "url": "file:///opt/plain"}"#);
        write(&packages.join("broken-1.dist-info/direct_url.json"), "{");
        let named = |name: &str, from: Option<&str>| Editable { name: name.into(), from: from.map(PathBuf::from) };
        assert_eq!(
            editables(dir.path()),
            [named("old", Some("/opt/old")), named("other", None), named("trae_agent", Some("/opt/my agent"))]
        );
    }

    #[test]
    fn a_script_belongs_to_the_environment_of_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let venv = dir.path().join("venv");
        fs::create_dir_all(venv.join("lib/python3.12/site-packages")).unwrap();
        let script = dir.path().join("bin/agent");
        write(&script, &format!("#!{}/bin/python -E\n", venv.display()));
        assert_eq!(environments(&script), [venv]);
        write(&script, "#!/usr/bin/env python3\n");
        assert_eq!(environments(&script), [] as [PathBuf; 0]);
    }
}
