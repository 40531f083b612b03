//! The `environment` step: a declared tool that was probed when the plan was made, or what a recipe builds from some files of a tree.
//!
//! An environment is built in the folder where it is used, for what is built holds its path. It is there once its last file is
//! written, which says so, and absent before. What a build is made of is in its key; what it comes to is its identity.

mod build;
mod clock;
mod control;
mod image;
pub mod kept;
mod told;
mod trees;
mod unbuilt;
mod untold;
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
        of_recipe(&mut draft, recipe, ask.human);
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

fn of_recipe(draft: &mut Draft<'_>, recipe: &RecipeAsk, human: bool) {
    let known = match recipe.cases.as_slice() {
        [only] if only.exists.is_none() => Some(0),
        _ => None,
    };
    let (found, own) = match recipe.is_for_any_tree() {
        true => (None, false),
        false => files(draft, recipe, human),
    };
    let case = found.as_ref().map_or(known, |found| match found {
        Found::Case { case, .. } => Some(*case),
        Found::NoCase => None,
    });
    let mut taken = None;
    if let Some(case) = case.and_then(|case| recipe.cases.get(case)) {
        let lines = case.lines();
        let lines_are_none = lines.is_empty();
        draft.record.push_some("recipe", (!lines_are_none).then_some(Value::List(lines)));
        if let Some(image) = &case.image {
            let identity = image.fact(&draft.plan.facts).identity;
            draft.text("image", identity);
            if image.interpreter != PYTHON {
                draft.text("image interpreter", &image.interpreter);
            }
        }
        if own && !lines_are_none {
            // It is built offline, from what was brought for its base: what comes of that, an environment or a failure, is of no
            // use to a tree that is some other commit's base.
            draft.input("downloads", &Role::Environment, FOLDER);
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
        Some(Found::NoCase) => {
            draft.input("tree without a case", &Role::Checkout, "tree");
            draft.input("patch without a case", &Role::Patch, "tree");
        }
        None => {}
    }
    let facts = &draft.plan.facts;
    draft.tools(facts, &recipe.tools);
    if !recipe.identity.is_empty() {
        draft.push("identified by", Value::List(recipe.identity.iter().map(ToString::to_string).collect()));
    }
}

/// The files of the tree that it is built from, once the tree is known, and whether that is a patch's own making: others than the
/// base's, and not the human's.
fn files(draft: &mut Draft<'_>, recipe: &RecipeAsk, human: bool) -> (Option<Found>, bool) {
    let patched = human || draft.plan.linked(draft.node, &Role::Patch).is_some();
    let base = draft.read("files", &Role::Checkout, "tree");
    let changes = match (human, patched) {
        (true, _) => draft.read("files", &Role::Checkout, "human change"),
        (false, true) => draft.read("files", &Role::Patch, "changes"),
        (false, false) => None,
    };
    let (Some(base), false) = (base, patched && changes.is_none()) else { return (None, false) };
    let (Some((repo, _)), Some(base)) = (draft.plan.nodes[draft.node].point.commit, base.as_text()) else {
        return (None, false);
    };
    let tree = TreeOf { repo, base, changes: changes.as_ref().and_then(Value::as_blob) };
    let find = |tree| match draft.plan.trees.get() {
        Some(trees) => trees.find(tree, &recipe.cases),
        None => Err("the repositories are not open".to_owned()),
    };
    let both = find(tree).and_then(|found| {
        let own = patched && find(TreeOf { changes: None, ..tree })? != found;
        Ok((found, own))
    });
    match both {
        Ok((found, own)) => {
            let own = own && !human && {
                let tree = draft.read("files", &Role::Patch, "tree");
                tree.is_none() || tree != draft.read("files", &Role::Checkout, "human tree")
            };
            (Some(found), own)
        }
        Err(why) => {
            draft.stop(End::open(why));
            (None, false)
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
