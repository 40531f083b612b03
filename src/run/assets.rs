//! What the declared assets of a manifest are: told from the manifest, or read from this machine. Fetches nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use ignore::WalkBuilder;

use crate::digest::Digest;
use crate::hostile;
use crate::manifest::{AssetSource, Pipeline};
use crate::plan::{AssetAt, AssetFact, Missing};
use crate::step::assets::stat;
use crate::store::Store;
use crate::store::files::write_derived;

/// What each declared asset is.
#[must_use]
pub fn facts(pipeline: &Pipeline, store: &Store) -> BTreeMap<String, Result<AssetFact, Missing>> {
    let fact = |asset: &crate::manifest::Asset| match (&asset.source.value, AssetFact::fetched(asset)) {
        (_, Some(fact)) => Ok(fact),
        (AssetSource::Path(path), None) => in_place(path, store).map_err(|error| Missing {
            what: format!("the asset {} cannot be read: {}: {error}", asset.name.value, path.display()),
            hint: "put it there, or correct its path".into(),
            place: Some(asset.source.place),
            fatal: true,
        }),
        (_, None) => Err(Missing {
            what: format!("the asset {} has no source", asset.name.value),
            hint: "say where it comes from".into(),
            place: Some(asset.source.place),
            fatal: true,
        }),
    };
    pipeline.assets.iter().map(|asset| (asset.name.value.clone(), fact(asset))).collect()
}

/// One that is read in place. As long as its stat is the same, its content is not read again.
fn in_place(path: &Path, store: &Store) -> io::Result<AssetFact> {
    let stat = stat(path)?;
    let known =
        store.root.join("index/assets").join(Digest::of(format!("{}\n{stat}", path.display()).as_bytes()).hex());
    let remembered = hostile::read_regular(&known, 200).ok().flatten().and_then(|text| String::from_utf8(text).ok());
    let identity = match remembered.filter(|text| text.starts_with("sha256:")) {
        Some(identity) => identity,
        None => {
            let identity = format!("sha256:{}", content(path)?);
            if std::fs::create_dir_all(store.root.join("index/assets")).is_ok() {
                // Derived: one that is not written down is read again.
                let _ = write_derived(&known, identity.as_bytes());
            }
            identity
        }
    };
    Ok(AssetFact { identity, at: AssetAt::Place { path: path.to_owned(), stat } })
}

/// The digest of a file, or of the listing of a folder: names, modes and digests; links by where they lead.
fn content(path: &Path) -> io::Result<Digest> {
    if path.is_file() {
        return Digest::of_file(path);
    }
    let mut listing = String::new();
    let root = path.canonicalize()?;
    for entry in WalkBuilder::new(path).standard_filters(false).sort_by_file_name(Ord::cmp).build() {
        let entry = entry.map_err(io::Error::other)?;
        let name = entry.path().strip_prefix(path).unwrap_or(entry.path()).display().to_string();
        let kind = entry.file_type();
        if kind.is_some_and(|kind| kind.is_file()) {
            let _ = writeln!(listing, "{name:?} {}", Digest::of_file(entry.path())?);
        } else if kind.is_some_and(|kind| kind.is_symlink()) {
            let mut to = std::fs::read_link(entry.path())?;
            if to.is_absolute() {
                // Where the folder lies is no part of what it is.
                to = entry
                    .path()
                    .canonicalize()?
                    .strip_prefix(&root)
                    .map(|below| Path::new("/").join(below))
                    .unwrap_or(to);
            }
            let _ = writeln!(listing, "{name:?} -> {to:?}");
        }
    }
    Ok(Digest::of(listing.as_bytes()))
}
