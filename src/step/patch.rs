//! The `patch` step: flow's own diff of an agent's work tree against the base tree, whatever the agent did with git.
//!
//! Never reads a file the agent wrote for a patch. A protected path refuses the whole; ignored paths are dropped and listed.

use crate::attempt::LimitUse;
use crate::git;
use crate::key::Value;
use crate::names::ObjectId;
use crate::outcome::{Cause, Failure};
use crate::plan::{PatchAsk, Role};
use crate::step::Draft;
use crate::step::context::Context;
use crate::step::done::{Done, Inputs};

/// What the attempts of this kind mean.
pub(super) const FORMAT: u16 = 2;

/// The patch's largest size where the step says none, in bytes.
pub const LIMIT: u64 = 2 * 1024 * 1024;

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: &PatchAsk) -> Draft<'a> {
    draft.input("base tree", &Role::Checkout, "tree");
    draft.input("work tree", &Role::Agent, "tree");
    if !ask.protect.is_empty() {
        draft.push("protect", Value::List(ask.protect.clone()));
    }
    if !ask.ignore.is_empty() {
        draft.push("ignore", Value::List(ask.ignore.clone()));
    }
    draft
}

/// Takes the patch; blocking.
pub fn run(context: &Context, repo: usize, ask: &PatchAsk, inputs: &Inputs) -> Done {
    match take(context, repo, ask, inputs) {
        Ok(done) => done,
        Err(failure) => Done::failed(failure),
    }
}

fn take(context: &Context, repo: usize, ask: &PatchAsk, inputs: &Inputs) -> Result<Done, Failure> {
    let fault = |error: git::GitError| Failure::of_flow(Cause::HarnessFault, &error.to_string());
    let mirror = context.mirror(repo)?;
    let base = ObjectId::new(inputs.text(&Role::Checkout, "tree")?);
    let whole = context.changes(inputs.blob(&Role::Agent, "changes")?)?;
    let ignore = context.globs(&ask.ignore)?;
    let (changes, dropped) = whole.without(&|path| ignore.is_match(path.as_path()));
    let mut done = Done::succeeded();
    for path in dropped {
        done.notes.push(format!("ignored: {path}"));
    }
    let refused = |done: Done, cause, evidence: &str| {
        Ok(Done { outcome: crate::outcome::Outcome::Failed(Failure::new(cause, evidence)), ..done })
    };
    if changes.is_empty() {
        let why = match done.notes.is_empty() {
            true => "the work tree is the base tree",
            false => "nothing is left but changes of ignored paths",
        };
        return refused(done, Cause::NoPatch, why);
    }
    let protect = context.globs(&ask.protect)?;
    let touched: Vec<String> =
        changes.paths().filter(|path| protect.is_match(path.as_path())).map(ToString::to_string).collect();
    let diff = git::diff(&mirror, &base, &changes, &context.blobs()).map_err(fault)?;
    let patch = context.put(&diff.bytes)?;
    done.logs.insert("patch".into(), patch);
    let limit = ask.limit.unwrap_or(LIMIT);
    let used = diff.bytes.len() as u64;
    done.limits.insert("limit".into(), LimitUse { limit, used, met: used > limit });
    if let Some(path) = changes.leaving_link() {
        return refused(
            done,
            Cause::BadTree,
            &format!("the link {path} leads out of the tree: what it leads to is in no patch"),
        );
    }
    if let Some(first) = touched.first() {
        let more = if touched.len() > 1 { format!(" and {} more", touched.len() - 1) } else { String::new() };
        return refused(done, Cause::Protected, &format!("touches the protected path {first}{more}"));
    }
    if used > limit {
        return refused(done, Cause::PatchTooLarge, &format!("{used} bytes, the limit is {limit}"));
    }
    if git::only_blank_space(&mirror, &base, &changes, &context.blobs()).map_err(fault)? {
        return refused(done, Cause::EmptyEdit, "only blank space differs from the base tree");
    }
    let tree = git::tree_id(&mirror, &base, &changes).map_err(fault)?;
    done.output("patch", Value::Blob(patch));
    done.output("tree", Value::text(tree.as_str()));
    done.output("changes", Value::Blob(context.put(&changes.encode())?));
    let (added, removed) =
        diff.files.iter().fold((0, 0), |(added, removed), file| (added + file.added, removed + file.removed));
    done.output("size", Value::text(format!("{} files, +{added} -{removed}", diff.files.len())));
    Ok(done)
}
