//! What git and the records tell where the manifest's own versions do not: of a file that stands as it was committed though the
//! manifest does not, and of an edit that a record was made with and nobody committed.

use std::collections::HashSet;
use std::path::Path;

use crate::git::Held;
use crate::key::Change;
use crate::why::action::{Action, value};
use crate::why::blame::is_younger;
use crate::why::gap::{self, Found, Mark};
use crate::why::origin::{Said, Since, Traced, Tracer};
use crate::why::past::content_of;
use crate::why::spot::Spot;
use crate::why::whence::Whence;

/// The largest file that is looked into for a line, in bytes.
const LARGEST: u64 = 4 << 20;

impl Tracer {
    /// What is known of the only file that an ingredient is the content of, if it stands as it was committed.
    pub(super) fn by_clean_file(
        &self,
        whence: &Whence,
        role: &str,
        since: Option<&Since>,
        why: &str,
    ) -> Option<Traced> {
        let [file] = &whence.files[..] else { return None };
        self.by_file(file, &Mark::Content { comments: role != "config" }, since, why)
    }

    /// The commit that brought a mark to a file, if the newest commit has it; none is named that is older than the record. `None`
    /// if the mark is not committed. `why` the manifest does not tell.
    pub(super) fn by_file(&self, file: &Path, mark: &Mark, since: Option<&Since>, why: &str) -> Option<Traced> {
        let project = self.past.project();
        let (head, _) = self.head.as_ref()?;
        let within = file.strip_prefix(project.root()).ok()?;
        let Held::File(id) = project.at(&head.tree, within, &mut |_| {}).ok()? else { return None };
        match mark {
            Mark::Line(line) => {
                let text = String::from_utf8_lossy(&project.content(&id, LARGEST).ok()?).into_owned();
                text.lines().find(|known| known == line)?;
            }
            _ => {
                let (_, here) = content_of(&self.top.plan.as_ref().ok()?.manifest.version, file)?;
                let same = project.has_content(&id, &here) || project.is_written(within, &id, &here);
                same.then_some(())?;
            }
        }
        let shown = crate::text::harmless(&within.to_string_lossy());
        Some(match gap::follow(project, head, within, mark, &HashSet::new()) {
            Ok(Found::By(commit, path)) if since.is_some_and(|since| is_younger(&commit, since)) => {
                let line = gap::line(project, &commit, &path, mark);
                let spot = Spot { path: project.root().join(path), line, said: None };
                Traced::To(self.origin(Some(&commit), Some(spot)))
            }
            Ok(Found::Unknown(why)) => Traced::No(why),
            _ => Traced::No(format!("not known: {shown} stands there as it was committed, and {why}")),
        })
    }

    /// Why no commit made a difference: the one that was checked out when the record was made says already what is said now, so
    /// that the record has something which that commit had not.
    pub(super) fn taken_back(
        &mut self,
        since: &Since,
        action: &Action,
        change: &Change,
        (whence, now): (&Whence, &Said),
    ) -> Option<String> {
        let Said::Is(is) = now else { return None };
        let git = since.git.clone()?;
        let foreign = self.top.plan.as_ref().ok().and_then(|plan| self.foreign(plan, whence));
        if *is != change.new || is == &change.old || foreign.is_some() {
            return None;
        }
        let commit = self.past.project().commit(git.commit.as_ref()?).ok()?;
        let (head, _) = self.head.clone()?;
        let path = self.past.name_at(&self.top.manifest, &head, &commit).ok()?;
        let snapshot = self.past.at(&path, &commit);
        let then = self.called_in(&snapshot, action);
        let plan = snapshot.plan.as_ref().ok()?;
        if value(plan, then.exactly(plan)?, &change.ingredient) != *is {
            return None;
        }
        let root = self.past.project().root();
        let places = whence.places.iter().filter_map(|place| Some(&plan.manifest.files.get(place.file)?.path));
        let mut files = whence.files.iter().chain(places).filter_map(|path| path.strip_prefix(root).ok());
        let edited = files.any(|path| git.dirty.iter().any(|dirty| Path::new(dirty) == path));
        Some(match edited {
            true => "not in git: an edit that was never committed was taken back".to_owned(),
            false => "not known: the manifest said so already when the record was made".to_owned(),
        })
    }
}

/// Whether an ingredient is what a tool is, and not what a file says.
pub(super) fn is_of_a_tool(role: &str) -> bool {
    role == "interpreter" || role.starts_with("tool ") || role.starts_with("source ")
}
