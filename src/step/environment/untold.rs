//! What a build was trusted with and must not tell: the secrets of its recipe, and the passwords in the URLs that it is passed.
//!
//! They are taken out of what is kept of its output. What it builds is not changed: where a secret lies in there, the build has
//! failed, for patched trees' builds, tests and agents read all of it. Does not look into what is compressed.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::hostile;
use crate::plan::{EnvAsk, RecipeAsk};
use crate::redact::{Redactor, Secret};
use crate::step::context::Context;
use crate::step::secrets::{at_hand, redactor};

/// All that is taken out of what a build prints, given the secrets that it was given. Those that it was not given may lie where it
/// looks.
pub(super) fn known(context: &Context, recipe: &RecipeAsk, given: &[Secret]) -> Vec<Secret> {
    let mut known = at_hand(&context.machine, &recipe.env.secrets, given);
    known.extend(of_urls(&recipe.env));
    known
}

/// Whether a text holds a URL with a user or a password in it.
pub(super) fn names_a_user(text: &str) -> bool {
    users(text).next().is_some()
}

/// What stands before the host of each URL in a text.
fn users(text: &str) -> impl Iterator<Item = &str> {
    let host = |rest: &str| rest.find(['/', '?', '#', ' ']).unwrap_or(rest.len());
    text.split("://").skip(1).filter_map(move |rest| Some(rest[..host(rest)].rsplit_once('@')?.0))
}

/// The users and passwords in the URLs that a recipe passes on, as they stand there and as they are meant.
fn of_urls(env: &EnvAsk) -> Vec<Secret> {
    let mut found = Vec::new();
    for (name, value) in env.unhashed.iter().chain(&env.hashed) {
        for user in users(value) {
            let password = user.split_once(':').map(|(_, password)| password);
            // A name alone may be a token, or `git`.
            let name_alone = password.is_none();
            for text in [Some(user), password].into_iter().flatten() {
                let both = [text.as_bytes().to_vec(), meant(text)].map(|value| Secret::new(name, value));
                found.extend(both.into_iter().filter(|secret| !name_alone || secret.too_plain().is_none()));
            }
        }
    }
    // A short one alone would take innocent words with it.
    found.retain(|secret| !secret.too_short());
    found
}

/// A part of a URL without its escapes.
fn meant(text: &str) -> Vec<u8> {
    let (bytes, mut meant, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok()).flatten();
        meant.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    meant
}

/// A file in some folders that holds one of these secrets, in its content, its name or where it links to, and the secret's name.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn left_in(folders: &[PathBuf], secrets: &[Secret]) -> io::Result<Option<(PathBuf, String)>> {
    let redactor = redactor(secrets);
    if redactor.is_idle() {
        return Ok(None);
    }
    let mut folders = folders.to_vec();
    while let Some(folder) = folders.pop() {
        let of = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
        readable(&folder, 0o700).map_err(of)?;
        for entry in std::fs::read_dir(&folder).map_err(of)? {
            let entry = entry.map_err(of)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(of)?);
            let found = match redactor.found_in(entry.file_name().as_encoded_bytes()) {
                Some(name) => Some(name.to_owned()),
                None if kind.is_dir() => {
                    folders.push(path.clone());
                    None
                }
                None => held(&redactor, &path, kind)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?,
            };
            if let Some(name) = found {
                return Ok(Some((path, name)));
            }
        }
    }
    Ok(None)
}

fn held(redactor: &Redactor, path: &Path, kind: std::fs::FileType) -> io::Result<Option<String>> {
    if kind.is_symlink() {
        let target = std::fs::read_link(path)?;
        return Ok(redactor.found_in(target.as_os_str().as_encoded_bytes()).map(str::to_owned));
    }
    if !kind.is_file() {
        // A socket or a pipe holds nothing.
        return Ok(None);
    }
    readable(path, 0o600)?;
    Ok(redactor.found_in_stream(hostile::open_regular(path)?)?.map(str::to_owned))
}

/// Gives flow the right to read what a build may have closed to it.
fn readable(path: &Path, right: u32) -> io::Result<()> {
    let mode = std::fs::symlink_metadata(path)?.permissions().mode();
    if mode & right == right {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777 | right))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_users_of_urls_are_found_as_they_stand_there_and_as_they_are_meant() {
        let env = EnvAsk {
            unhashed: [
                ("INDEX".to_owned(), "https://bob:hun%40ter2@a.example/simple https://b.example/x@y".to_owned()),
                ("GIT".to_owned(), "git+https://tok-4711-4711@c.example?ref=a@b".to_owned()),
            ]
            .into(),
            ..EnvAsk::default()
        };
        let secrets = of_urls(&env);
        let clean = |text: &str| String::from_utf8(redactor(&secrets).clean(text.as_bytes())).unwrap();
        assert_eq!(clean("hun@ter2 and hun%40ter2"), "[secret INDEX] and [secret INDEX]");
        assert_eq!(clean("https://tok-4711-4711@c"), "https://[secret GIT]@c");
        assert_eq!(clean("bob, x@y, a@b and simple stay"), "bob, x@y, a@b and simple stay");
    }

    #[test]
    fn a_secret_is_found_in_a_file_of_any_length_in_a_name_and_in_a_link() {
        let secrets = [Secret::new("TOKEN", b"s3cr3t-value-4711".to_vec())];
        let found = |make: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("below")).unwrap();
            make(&dir.path().join("below"));
            left_in(&[dir.path().to_owned()], &secrets).unwrap().map(|(_, name)| name)
        };
        assert_eq!(found(&|dir| std::fs::write(dir.join("a.bin"), "s3cr3t-value-471").unwrap()), None);
        for at in [0, (1 << 20) - 9, (1 << 20) + 5, 5 << 20] {
            let text = [vec![0_u8; at], b"s3cr3t-value-4711".to_vec(), vec![1; 100]].concat();
            let is = found(&|dir| {
                std::fs::write(dir.join("a.bin"), &text).unwrap();
                std::fs::set_permissions(dir.join("a.bin"), std::fs::Permissions::from_mode(0o0)).unwrap();
            });
            assert_eq!(is.as_deref(), Some("TOKEN"), "{at}");
        }
        assert!(found(&|dir| std::fs::write(dir.join("x-s3cr3t-value-4711"), "").unwrap()).is_some());
        assert!(found(&|dir| std::os::unix::fs::symlink("/s3cr3t-value-4711", dir.join("a")).unwrap()).is_some());
    }
}
