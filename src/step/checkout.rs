//! The `checkout` step: resolves a human commit and its base. Nothing is written until somebody needs files.

use crate::git::{GitError, TakeLimits};
use crate::key::{KeyRecord, Value};
use crate::manifest::Base;
use crate::outcome::{Cause, Failure};
use crate::plan::CheckoutAsk;
use crate::step::context::Context;
use crate::step::done::Done;

/// What the attempts of this kind mean.
const FORMAT: u16 = 1;

/// The output that lists the submodules which the human's commit moves, if any: they are no part of the human change.
pub const SUBMODULES: &str = "submodules";
/// The most of them that are listed.
const MOST_SUBMODULES: usize = 100;

/// The key record of a checkout: it needs nothing upstream.
#[must_use]
pub fn record(ask: &CheckoutAsk) -> KeyRecord {
    let mut record = KeyRecord::new("checkout", FORMAT);
    record.push("human commit", Value::text(&ask.human));
    match &ask.base {
        Base::Parent(1) => {}
        Base::Parent(n) => record.push("base rule", Value::text(format!("parent {n}"))),
        Base::Id(id) => record.push("base rule", Value::text(id)),
    }
    if !ask.protect.is_empty() {
        record.push("protect", Value::List(ask.protect.clone()));
    }
    record
}

/// Resolves the commit; blocking.
pub fn run(context: &Context, repo: usize, ask: &CheckoutAsk) -> Done {
    match resolve(context, repo, ask) {
        Ok(done) => done,
        Err(failure) => Done::failed(failure),
    }
}

fn resolve(context: &Context, repo: usize, ask: &CheckoutAsk) -> Result<Done, Failure> {
    let mirror = context.mirror(repo)?;
    let failed = |error: GitError| {
        let cause =
            if matches!(error, GitError::Missing { .. }) { Cause::CommitMissing } else { Cause::CheckoutFailed };
        Failure::new(cause, &error.to_string())
    };
    let resolved = mirror.resolve(&ask.human, &context.base_rule(&ask.base)).map_err(failed)?;
    let whole = crate::git::changes_between(
        &mirror,
        &resolved.base_tree,
        &resolved.human_tree,
        &context.blobs(),
        &TakeLimits::default(),
    )
    .map_err(failed)?;
    let protect = context.globs(&ask.protect)?;
    let (change, dropped) = whole.changes.without(&|path| protect.is_match(path.as_path()));
    let human_tree = crate::git::tree_id(&mirror, &resolved.base_tree, &change).map_err(failed)?;
    let mut done = Done::succeeded();
    done.output("human", Value::text(resolved.human.as_str()));
    done.output("base", Value::text(resolved.base.as_str()));
    done.output("tree", Value::text(resolved.base_tree.as_str()));
    done.output("subject", Value::text(&resolved.subject));
    done.output("human tree", Value::text(human_tree.as_str()));
    done.output("human change", Value::Blob(context.put(&change.encode())?));
    if !whole.submodules.is_empty() {
        let paths = whole.submodules.iter().take(MOST_SUBMODULES).map(ToString::to_string);
        done.output(SUBMODULES, Value::List(paths.collect()));
    }
    for path in &whole.submodules {
        done.notes.push(format!("a submodule, not in the human change: {path}"));
    }
    for path in dropped {
        done.notes.push(format!("protected, not in the human change: {path}"));
    }
    Ok(done)
}
