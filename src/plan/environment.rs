//! What an environment step is asked to build, and the files of a tree that it is built from.
//!
//! Plain data, and the word by which a key asks which files a tree has: whoever has the repositories answers it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::{EnvAsk, Facts, ImageAsk, ImageFact};
use crate::digest::Digest;
use crate::manifest::Template;

/// Make this environment.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentAsk {
    /// The tool that is the interpreter, if the manifest declares one.
    pub tool: Option<String>,
    /// How it is built; nothing is if absent.
    pub recipe: Option<RecipeAsk>,
}

/// A recipe with every template filled but for the places of an attempt.
#[derive(Clone, Debug, Default)]
pub struct RecipeAsk {
    /// Its name, for messages. In no key.
    pub name: String,
    /// Its cases, in their order.
    pub cases: Vec<CaseAsk>,
    /// Built files that are laid over a tree, as globs.
    pub overlay: Vec<String>,
    /// Where they are found, below the environment's folder.
    pub overlay_root: Option<String>,
    /// Variables for whoever uses it.
    pub provides: Vec<(String, Template)>,
    /// The command that tells which environment it is.
    pub identity: Vec<Template>,
    /// Whether its `run` lines have no network.
    pub offline: bool,
    /// Files that its commands are given, by role.
    pub files: BTreeMap<String, Digest>,
    /// Environment of its processes.
    pub env: EnvAsk,
    /// Tools named in its commands.
    pub tools: Vec<String>,
}

/// What is done for trees that hold a file.
#[derive(Clone, Debug, Default)]
pub struct CaseAsk {
    /// The file; any tree will do if absent.
    pub exists: Option<String>,
    /// The image that the environment is, or in which it is built.
    pub image: Option<ImageAsk>,
    /// Globs of the files that it is built from.
    pub from: Vec<String>,
    /// Commands that bring what it needs.
    pub fetch: Vec<Vec<Template>>,
    /// Commands that build.
    pub run: Vec<Vec<Template>>,
}

impl RecipeAsk {
    /// Whether its environments are images, or are built in one.
    #[must_use]
    pub fn is_boxed(&self) -> bool {
        self.cases.iter().any(|case| case.image.is_some())
    }

    /// Whether nobody has to look at a tree to know what is done.
    #[must_use]
    pub fn is_for_any_tree(&self) -> bool {
        matches!(self.cases.as_slice(), [only] if only.exists.is_none() && only.from.is_empty())
    }
}

impl ImageAsk {
    /// What it turned out to be; what it says of itself where nobody was asked.
    #[must_use]
    pub fn fact(&self, facts: &Facts) -> ImageFact {
        match facts.images.get(&self.source) {
            Some(Ok(fact)) => fact.clone(),
            _ => ImageFact::written(&self.source)
                .unwrap_or_else(|| ImageFact::untold(&self.source, "nobody was asked for it".to_owned())),
        }
    }
}

impl CaseAsk {
    /// Its commands, one a line, as they stand in the key.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |word: &str, argv: &Vec<Template>| {
            let words: Vec<String> = argv.iter().map(ToString::to_string).collect();
            format!("{word} {}", crate::text::shell(words))
        };
        let fetch = self.fetch.iter().map(|argv| line("fetch", argv));
        fetch.chain(self.run.iter().map(|argv| line("run", argv))).collect()
    }
}

/// A tree that is asked about: a base, and the changes over it, as a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeOf<'a> {
    /// The repository, by index.
    pub repo: usize,
    /// The base's git tree id.
    pub base: &'a str,
    /// What is laid over it.
    pub changes: Option<Digest>,
}

/// What a recipe finds in a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// The case that fits, by index, and the listing of the files that it is built from, as a blob.
    Case {
        /// Which.
        case: usize,
        /// A line a file: mode, git id and path.
        listing: Digest,
    },
    /// None of its cases fits.
    NoCase,
}

/// Who knows which files a tree has.
pub trait Trees: Debug + Send + Sync {
    /// Which case of a recipe fits a tree, and the files that it is built from.
    ///
    /// # Errors
    /// In words, if the repository cannot be read.
    fn find(&self, tree: TreeOf<'_>, cases: &[CaseAsk]) -> Result<Found, String>;
}
