//! Git: mirrors, trees as their difference from a base, sealed repositories, and flow's own diff.
//!
//! Objects are read by git2 through object databases alone, so that no repository's config, hooks, attributes or filters are
//! ever obeyed; the `git` program only fills mirrors. Everything here blocks. It knows nothing of steps, keys or the store:
//! content goes to and comes from whatever implements [`Blobs`].

mod apply;
mod changes;
mod checkout;
mod describe;
mod diff;
mod dir;
mod error;
mod ignore;
mod merge;
mod mirror;
mod objects;
mod patch_text;
mod path;
mod program;
mod project;
mod references;
mod renames;
mod resolve;
mod seal;
mod select;
mod survey;
mod take;
mod write;

pub use apply::{ApplyError, apply_to_dir};
pub use changes::{BadChanges, Blobs, Changes, Entry};
pub use describe::{Described, Tags};
pub use diff::{Diff, FileStat, FileStatus, diff, only_blank_space};
pub use error::GitError;
pub use merge::{Between, changes_between, tree_id};
pub use mirror::{Mirror, Source};
pub use objects::{objects_in, objects_of_tree};
pub use path::{BadPath, TreePath};
pub use project::{Held, PastCommit, Project};
pub use resolve::{BaseRule, Resolved};
pub use seal::seal;
pub use select::{Selected, select};
pub use survey::{Survey, survey};
pub use take::{TakeError, TakeLimits, Taken, take};
pub use write::{Written, overlay, write_files, write_tree};
