//! Whose fault a failed build of a patched tree is.
//!
//! It says nothing of the patch by itself: a disk, a compiler or an index may have failed. So the base is built beside it in the same
//! way, and the patched tree once more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::outcome::{Cause, Failure};
use crate::plan::{CaseAsk, TreeOf};
use crate::step::environment::build::{Builder, Log, Site};

/// The most files of one build that are looked at to tell what it wrote.
const MOST: usize = 1_000_000;

impl Builder<'_> {
    /// Builds a patched tree; where that fails the base in the same way, and the patched tree once more.
    pub(super) async fn patched(
        &self,
        tree: TreeOf<'_>,
        case: &CaseAsk,
        site: &Site<'_>,
        notes: &mut Vec<String>,
        log: &mut Log,
    ) -> Result<(), Failure> {
        let Err(first) = self.once(case, site, log).await else { return Ok(()) };
        if matches!(first.cause, Cause::Interrupted | Cause::HarnessFault | Cause::NotStarted) {
            return Err(first);
        }
        let filled = self.taken(site);
        // Nothing of what a patch left is there for who is built after it, and none of the room that it took.
        self.emptied(&site.out)?;
        self.fresh(&site.src)?;
        log.text.push_str("\nthe build failed; the base is built in the same way, to tell whose fault that is\n");
        let base = TreeOf { changes: None, ..tree };
        let base_case = self.case(base)?;
        let src = self.place.dir.join("base");
        tokio::task::block_in_place(|| self.write(base, base_case, &src, false))?;
        let out = self.fresh(&self.place.dir.join("control"))?;
        // A patch may have chosen another case, and by it another image: the base is built in its own.
        let image = match base_case.image == case.image {
            true => site.image.clone(),
            false => self.image(base_case, &self.place.dir, log, notes).await?,
        };
        let downloads = match site.fetches {
            true => self.fresh(&self.place.dir.join("brought"))?,
            false => site.downloads.clone(),
        };
        let Site { fetches, secrets, known, .. } = *site;
        let control = Site { src, out, downloads, fetches, secrets, known, tree: base, image };
        if let Err(failure) = self.once(base_case, &control, log).await {
            if matches!(failure.cause, Cause::Interrupted | Cause::DiskFull) {
                return Err(failure);
            }
            let how = if site.fetches { "anew" } else { "without a network" };
            let hint = match site.fetches || !base_case.fetch.is_empty() {
                true => "",
                false => "; what it needs of a network is brought by `fetch` lines",
            };
            let evidence = format!("the base cannot be rebuilt {how} either{hint}: {}", failure.evidence.as_str());
            return Err(Failure::new(Cause::EnvironmentFailed, &evidence));
        }
        let usual = self.taken(&control);
        log.text.push_str("\nthe base's build passes; the patched tree once more\n");
        self.emptied(&control.out)?;
        if site.fetches {
            self.fresh(&site.downloads)?;
        }
        tokio::task::block_in_place(|| self.write(tree, case, &site.src, false))?;
        match self.once(case, site, log).await {
            Ok(()) => {
                notes.push(format!("its first build failed, the second did not: {}", first.evidence.as_str()));
                Ok(())
            }
            Err(again) if again.cause == Cause::EnvironmentFailed => {
                Err(Failure::new(Cause::BuildError, again.evidence.as_str()).exit(again.exit))
            }
            // The disk held what the base's build writes, and not what this one does, twice.
            Err(again) if again.cause == Cause::DiskFull && filled.min(self.taken(site)) / 2 > usual => {
                let [took, usual] = [filled, usual].map(crate::units::human_size);
                let evidence = format!(
                    "its build fills the disk: it wrote {took}, the base's {usual}: {}",
                    again.evidence.as_str()
                );
                Err(Failure::new(Cause::BuildError, &evidence))
            }
            Err(other) => Err(other),
        }
    }

    /// What a build has written so far, in bytes of the disk.
    fn taken(&self, site: &Site<'_>) -> u64 {
        let places = [site.out.clone(), site.src.clone(), self.place.dir.join("home"), self.place.dir.join("tmp")];
        tokio::task::block_in_place(|| {
            let entries = places.iter().flat_map(|place| WalkBuilder::new(place).standard_filters(false).build());
            let taken = |entry: ignore::DirEntry| Some(entry.metadata().ok()?.blocks().saturating_mul(512));
            entries.take(MOST).filter_map(|entry| taken(entry.ok()?)).fold(0, u64::saturating_add)
        })
    }

    /// Empties a place that was built into, and whatever processes of a build may write to besides.
    fn emptied(&self, out: &Path) -> Result<(), Failure> {
        let beside = ["home", "tmp"].map(|name| self.place.dir.join(name));
        beside.iter().map(PathBuf::as_path).chain([out]).try_for_each(|path| self.fresh(path).map(drop))
    }
}
