//! The assets of a plan: what each is, which actions use it, and where its files are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Ask, EnvAsk};
use crate::digest::Digest;
use crate::key::ActionKey;
use crate::manifest::{Asset, AssetSource, Template};

/// How the hole of an asset begins.
pub const HOLE: &str = "asset.";
/// Digits of a digest that name a folder.
const DIGITS: usize = 40;

/// What a declared asset turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetFact {
    /// What it is: the ingredient. Never where it lies.
    pub identity: String,
    /// Where it is used from.
    pub at: AssetAt,
}

/// Where an asset is used from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssetAt {
    /// In place, and how its files stood when the plan was made.
    Place {
        /// The file or folder.
        path: PathBuf,
        /// Its stat.
        stat: String,
    },
    /// In the store, in the folder of that name.
    Store {
        /// The folder.
        folder: String,
        /// Its file, where it is one file.
        file: Option<String>,
    },
}

impl AssetFact {
    /// Of an asset that is fetched; nothing for one that is read in place.
    #[must_use]
    pub fn fetched(asset: &Asset) -> Option<Self> {
        let (identity, file) = match &asset.source.value {
            AssetSource::Path(_) => return None,
            AssetSource::Url { url, sha256 } => (format!("sha256:{sha256}"), Some(file_of(url))),
            AssetSource::Hub { repo, revision } => (format!("{repo} {revision}"), None),
        };
        // A file's name is part of where it lies: programs tell by it what a file is.
        let named = format!("asset {identity} {}", file.as_deref().unwrap_or_default());
        let folder = Digest::of(named.as_bytes()).hex()[..DIGITS].to_owned();
        Some(Self { identity, at: AssetAt::Store { folder, file } })
    }

    /// Where its files are, given where the store keeps assets.
    #[must_use]
    pub fn path(&self, assets: &Path) -> PathBuf {
        match &self.at {
            AssetAt::Place { path, .. } => path.clone(),
            AssetAt::Store { folder, file } => {
                let data = assets.join(folder).join("data");
                file.as_ref().map_or(data.clone(), |file| data.join(file))
            }
        }
    }

    /// The key whose lock whoever fetches it holds.
    #[must_use]
    pub fn lock(folder: &str) -> Option<ActionKey> {
        format!("{folder:0<64}").parse().ok().map(ActionKey)
    }
}

/// The name of the file that a URL gives.
fn file_of(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name: String = path.rsplit('/').next().unwrap_or_default().chars().take(100).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) { "file".to_owned() } else { name }
}

impl Ask {
    /// The assets that it names, in its arguments and variables, each once.
    #[must_use]
    pub fn assets(&self) -> BTreeSet<&str> {
        let mut templates: Vec<&Template> = Vec::new();
        match self {
            Self::Environment(ask) => {
                if let Some(recipe) = &ask.recipe {
                    templates.extend(recipe.cases.iter().flat_map(|case| case.fetch.iter().chain(&case.run)).flatten());
                    templates.extend(recipe.identity.iter().chain(recipe.provides.iter().map(|(_, value)| value)));
                }
            }
            Self::Agent(ask) => templates.extend(ask.argv.iter().chain(&ask.stdin)),
            Self::Test(ask) => templates.extend(ask.argv.iter().chain(ask.checks.iter().flatten())),
            Self::Command(ask) => templates.extend(&ask.argv),
            Self::Checkout(_) | Self::Patch(_) | Self::Classify(_) => {}
        }
        templates.extend(self.env().into_iter().flat_map(|env: &EnvAsk| env.places.values()));
        templates.into_iter().flat_map(Template::holes).filter_map(|hole| hole.strip_prefix(HOLE)).collect()
    }
}
