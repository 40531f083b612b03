//! The images of a plan: which one each is, where that is known.

use crate::manifest::ImageSource;

/// An image that an environment is, or is built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageAsk {
    /// Which.
    pub source: ImageSource,
    /// The program within it that runs test scripts.
    pub interpreter: String,
}

/// What an image turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFact {
    /// Which it is: the ingredient. Never its name, nor by whom it is run.
    pub identity: String,
    /// What an engine is told to bring and to run.
    pub runs: String,
    /// The stat of a file, to tell whether it is another one since.
    pub stat: Option<String>,
    /// Why nobody knows which it is: what is made of it fails.
    pub trouble: Option<String>,
}

impl ImageFact {
    /// Of an image that says itself which it is; nothing for another.
    #[must_use]
    pub fn written(source: &ImageSource) -> Option<Self> {
        match source {
            ImageSource::Digest { sha256, .. } => {
                let identity = format!("sha256:{}", sha256.hex());
                Some(Self { identity, runs: source.to_string(), stat: None, trouble: None })
            }
            ImageSource::Tag(_) | ImageSource::File(_) => None,
        }
    }

    /// Of one that nobody could tell.
    #[must_use]
    pub fn untold(source: &ImageSource, why: String) -> Self {
        Self { identity: format!("unresolved {source}"), runs: source.to_string(), stat: None, trouble: Some(why) }
    }
}
