//! What images an engine has, and how it is told to bring one.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Engine, Kind, client};
use crate::process::{ANSWER_LIMIT, answer};

/// An image that an engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it calls the image by itself: whatever becomes of its names, this stays the same image.
    pub id: String,
    /// Its digest, `sha256:…`; of one that was built here and has none, its id.
    pub digest: String,
}

impl Engine {
    /// The image that it has under a name.
    ///
    /// # Errors
    /// What it said instead: that it has none, mostly.
    pub async fn image(&self, name: &str, variables: &BTreeMap<String, String>) -> Result<Found, String> {
        let format = match self.kind {
            Kind::Podman => "{{.Id}} {{.Digest}}",
            Kind::Docker => "{{.Id}}{{range .RepoDigests}} {{.}}{{end}}",
            Kind::Apptainer => {
                return Err("apptainer keeps no images: write `name@sha256:…` or a `.sif` file".to_owned());
            }
        };
        let argv = self.argv(&["image", "inspect", "--format", format, name]);
        let said = answer(&argv, &client(variables), Path::new("/"), ANSWER_LIMIT).await?;
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().next().unwrap_or_default();
        found(line, name).ok_or_else(|| format!("it says `{line}` of the image {name}"))
    }

    /// How it is told to bring an image; `into` is the file where apptainer puts it.
    #[must_use]
    pub fn pull(&self, name: &str, into: &Path) -> Vec<String> {
        match self.kind {
            Kind::Podman | Kind::Docker => self.argv(&["pull", "--quiet", name]),
            Kind::Apptainer => {
                let (into, name) = (into.display().to_string(), format!("docker://{name}"));
                self.argv(&["pull", "--force", &into, &name])
            }
        }
    }
}

/// What a line says: an id, and digests, each alone or after a name and `@`.
fn found(line: &str, name: &str) -> Option<Found> {
    let mut words = line.split_whitespace();
    let id = words.next()?.to_owned();
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex(id.trim_start_matches("sha256:")) {
        return None;
    }
    let is_digest = |word: &str| word.strip_prefix("sha256:").is_some_and(hex);
    let mut digests: Vec<(&str, &str)> = words.map(|word| word.split_once('@').unwrap_or(("", word))).collect();
    digests.retain(|(_, digest)| is_digest(digest));
    // One image may have come from several places: the one that is asked for tells.
    let own = digests.iter().find(|(from, _)| !from.is_empty() && name.contains(from));
    let digest = own.or(digests.first()).map(|(_, digest)| (*digest).to_owned());
    let digest = digest.unwrap_or_else(|| format!("sha256:{}", id.trim_start_matches("sha256:")));
    Some(Found { id, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_told_by_its_digest_and_by_its_id_where_it_has_none() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let of = |line: &str| found(line, "docker.io/library/python:3.12").map(|found| (found.id, found.digest));
        assert_eq!(of(&format!("{a} sha256:{b}")), Some((a.clone(), format!("sha256:{b}"))));
        assert_eq!(of(&format!("sha256:{a}")), Some((format!("sha256:{a}"), format!("sha256:{a}"))));
        let several = format!("sha256:{a} other/thing@sha256:{a} python@sha256:{b}");
        assert_eq!(of(&several), Some((format!("sha256:{a}"), format!("sha256:{b}"))));
        assert_eq!(of("<no value>"), None);
        assert_eq!(of(""), None);
    }
}
