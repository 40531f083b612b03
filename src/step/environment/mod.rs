//! The `environment` step: a declared tool that was probed when the plan was made, or what a recipe builds from some files of a tree.
//!
//! An environment is built in the folder where it is used, for what is built holds its path. It is there once its last file is
//! written, which says so, and absent before. What a build is made of is in its key; what it comes to is its identity.

mod build;
mod image;
pub mod kept;
mod told;
mod trees;
mod unbuilt;
mod used;

use crate::key::{ActionKey, Value};
use crate::manifest::PYTHON;
use crate::outcome::{Cause, Failure};
use crate::plan::{EnvironmentAsk, Found, RecipeAsk, Role, TreeOf};
use crate::step::context::{Context, Place};
use crate::step::done::{Done, Inputs};
use crate::step::{Draft, End};

pub use trees::StoreTrees;
pub use unbuilt::{is_binary, unbuilt};
pub use used::Built;

/// What the attempts of this kind mean.
pub(super) const FORMAT: u16 = 1;

/// The output that names the folder of a built environment.
pub const FOLDER: &str = "folder";
/// The output that tells which environment it is.
pub const IDENTITY: &str = "identity";

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: &EnvironmentAsk) -> Draft<'a> {
    if let Some(recipe) = &ask.recipe {
        of_recipe(&mut draft, recipe);
    }
    let facts = &draft.plan.facts;
    if let Some(Ok(fact)) = ask.tool.as_ref().and_then(|tool| facts.tools.get(tool)) {
        let identity = fact.identity.clone();
        draft.text("interpreter", identity);
    }
    let platform = facts.platform.clone();
    draft.text("platform", platform);
    draft
}

fn of_recipe(draft: &mut Draft<'_>, recipe: &RecipeAsk) {
    let known = match recipe.cases.as_slice() {
        [only] if only.exists.is_none() => Some(0),
        _ => None,
    };
    let found = match recipe.is_for_any_tree() {
        true => None,
        false => files(draft, recipe),
    };
    let case = found.as_ref().map_or(known, |found| match found {
        Found::Case { case, .. } => Some(*case),
        Found::NoCase => None,
    });
    let mut taken = None;
    if let Some(case) = case.and_then(|case| recipe.cases.get(case)) {
        let lines = case.lines();
        draft.record.push_some("recipe", (!lines.is_empty()).then_some(Value::List(lines)));
        if let Some(image) = &case.image {
            let identity = image.fact(&draft.plan.facts).identity;
            draft.text("image", identity);
            if image.interpreter != PYTHON {
                draft.text("image interpreter", &image.interpreter);
            }
        }
        taken = Some(case);
    }
    draft.env(&recipe.env);
    for (name, digest) in &recipe.files {
        draft.push(&format!("file {name}"), Value::Blob(*digest));
    }
    match found {
        // An image that is taken as it is has nothing of the tree.
        Some(Found::Case { .. }) if taken.is_some_and(|case| case.from.is_empty()) => {}
        Some(Found::Case { listing, .. }) => draft.push("files", Value::Blob(listing)),
        Some(Found::NoCase) => draft.input("tree without a case", &Role::Checkout, "tree"),
        None => {}
    }
    let facts = &draft.plan.facts;
    draft.tools(facts, &recipe.tools);
    if !recipe.identity.is_empty() {
        draft.push("identified by", Value::List(recipe.identity.iter().map(ToString::to_string).collect()));
    }
}

/// The files of the tree that it is built from, once the tree is known.
fn files(draft: &mut Draft<'_>, recipe: &RecipeAsk) -> Option<Found> {
    let patched = draft.plan.linked(draft.node, &Role::Patch).is_some();
    let base = draft.read("files", &Role::Checkout, "tree");
    let changes = if patched { draft.read("files", &Role::Patch, "changes") } else { None };
    let base = base?;
    if patched && changes.is_none() {
        return None;
    }
    let (repo, _) = draft.plan.nodes[draft.node].point.commit?;
    let tree = TreeOf { repo, base: base.as_text()?, changes: changes.as_ref().and_then(Value::as_blob) };
    let found = match draft.plan.trees.get() {
        Some(trees) => trees.find(tree, &recipe.cases),
        None => Err("the repositories are not open".to_owned()),
    };
    match found {
        Ok(found) => Some(found),
        Err(why) => {
            draft.stop(End::open(why));
            None
        }
    }
}

/// Makes it, or says what the interpreter is.
pub async fn run(
    context: &Context,
    node: usize,
    ask: &EnvironmentAsk,
    key: Option<ActionKey>,
    inputs: &Inputs,
    place: &Place,
) -> Done {
    match (&ask.recipe, key) {
        (Some(recipe), Some(key)) => build::run(context, node, ask, recipe, key, inputs, place).await,
        (Some(_), None) => Done::failed(Failure::new(Cause::HarnessFault, "an environment without a key")),
        (None, _) => interpreter(context, ask.tool.as_deref()),
    }
}

/// Says what the interpreter is.
fn interpreter(context: &Context, tool: Option<&str>) -> Done {
    let mut done = Done::succeeded();
    let identity = match tool.map(|tool| context.plan.facts.tools.get(tool)) {
        None => "none".to_owned(),
        Some(Some(Ok(fact))) => fact.identity.clone(),
        Some(_) => return Done::failed(Failure::new(Cause::EnvironmentFailed, "the interpreter is not there")),
    };
    done.output(IDENTITY, Value::text(identity));
    done
}
