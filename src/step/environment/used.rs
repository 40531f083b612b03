//! A built environment for whoever runs in it: its programs, its variables, and the built files that are laid over a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::git::{Changes, TreePath};
use crate::hostile;
use crate::outcome::{Cause, Failure};
use crate::plan::{Ask, Found, ImageAsk, RecipeAsk, Role, TreeOf, Trees};
use crate::step::container::Boxed;
use crate::step::context::{Context, fault, glob_set};
use crate::step::done::Inputs;
use crate::step::environment::image::boxed;
use crate::step::environment::kept::Python;
use crate::step::environment::{FOLDER, StoreTrees, is_binary, kept};

/// The most files that are laid over one tree.
const MOST: usize = 100_000;

/// Where Python looks first.
const PYTHONPATH: &str = "PYTHONPATH";

/// An environment that was built.
#[derive(Clone, Debug)]
pub struct Built<'a> {
    /// Its folder.
    pub out: PathBuf,
    /// The image that its processes run in.
    pub boxed: Option<Boxed>,
    program: Option<Python>,
    recipe: &'a RecipeAsk,
}

impl<'a> Built<'a> {
    /// The environment that an action reads in a role; nothing where it reads none, or one that is a mere interpreter.
    ///
    /// # Errors
    /// If it is gone from the store, or has lost files.
    pub fn of(context: &'a Context, node: usize, inputs: &Inputs, role: &Role) -> Result<Option<Self>, Failure> {
        let Some(up) = context.plan.linked(node, role) else { return Ok(None) };
        let Ask::Environment(ask) = &context.plan.nodes[up].ask else { return Ok(None) };
        let Some(recipe) = &ask.recipe else { return Ok(None) };
        let folder = inputs.text(role, FOLDER)?;
        let whole = tokio::task::block_in_place(|| kept::whole(&context.store, folder));
        let (place, complete) = whole.map_err(|why| Failure::new(Cause::BlobLost, &why))?;
        kept::note_use(&place);
        let out = kept::out(&place);
        let mut boxed = image_of(context, node, inputs, role, recipe)?.map(|image| boxed(context, image, &place));
        if let Some(boxed) = &mut boxed {
            if let Some(why) = boxed.changed() {
                return Err(Failure::new(Cause::EnvironmentFailed, &why));
            }
            boxed.programs = Some(out.join("bin")).filter(|bin| bin.is_dir());
        }
        Ok(Some(Self { out, boxed, program: complete.python, recipe }))
    }

    /// Its Python, if it has one.
    #[must_use]
    pub fn python(&self) -> Option<PathBuf> {
        self.program.as_ref().map(|python| self.out.join(&python.at))
    }

    /// Which program that is; of an environment without one, nothing.
    #[must_use]
    pub fn program(&self) -> Option<(&Path, &str)> {
        self.program.as_ref().map(|python| (python.at.as_path(), python.is.as_str()))
    }

    /// The variables of a process that runs in it, given the tree that it works on, and whether built files are laid over that.
    ///
    /// # Errors
    /// If a template of the recipe names what is not known here.
    pub fn variables(&self, context: &Context, tree: &Path, laid: bool) -> Result<Vec<(String, String)>, Failure> {
        let mut given = BTreeMap::new();
        let path =
            context.machine.variables.get("PATH").cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let bin = self.out.join("bin");
        // In an image they are put before its own.
        if bin.is_dir() && self.boxed.is_none() {
            given.insert("PATH".to_owned(), format!("{}:{path}", bin.display()));
        }
        if self.out.join("pyvenv.cfg").is_file() {
            given.insert("VIRTUAL_ENV".to_owned(), self.out.display().to_string());
        }
        if laid && !self.recipe.overlay.is_empty() {
            given.insert(PYTHONPATH.to_owned(), tree.display().to_string());
        }
        let places = |name: &str| match name {
            "out" => Some(self.out.display().to_string()),
            "tree" => Some(tree.display().to_string()),
            _ => None,
        };
        for (name, value) in &self.recipe.provides {
            let filled = context.fill(std::slice::from_ref(value), &places)?;
            for value in filled {
                // Python takes what it finds first: behind something else the tree would not be what is tested.
                let hides = name == PYTHONPATH
                    && given.contains_key(PYTHONPATH)
                    && !value.split(':').any(|part| Path::new(part).starts_with(tree));
                let value = if hides { format!("{}:{value}", tree.display()) } else { value };
                given.insert(name.clone(), value);
            }
        }
        Ok(given.into_iter().collect())
    }

    /// The paths of some changes that its built files could have.
    ///
    /// # Errors
    /// If the recipe's globs are none.
    pub fn laid_at(&self, changes: &Changes) -> Result<BTreeSet<TreePath>, Failure> {
        let globs = glob_set(&self.recipe.overlay).map_err(|error| fault(&error.to_string()))?;
        Ok(changes.paths().filter(|path| globs.is_match(path.as_path())).cloned().collect())
    }

    /// Lays its built files over a tree where the tree has none, in place of compiled files that it has, and of those that were
    /// `brought`: a patch that brings what is to be built would be measured in something that nobody can read.
    ///
    /// # Errors
    /// If it has none of those that the recipe names, or the disk refuses.
    pub fn lay_over(&self, tree: &Path, brought: &BTreeSet<TreePath>) -> Result<(), Failure> {
        if self.recipe.overlay.is_empty() {
            return Ok(());
        }
        let (root, names) = overlaid(self.recipe, &self.out)?;
        let failed = |path: &Path, error: &io::Error| fault(&format!("{}: {error}", path.display()));
        for name in &names {
            let is_own = brought.iter().any(|path| path.as_path() == name) || is_compiled(&tree.join(name));
            if is_own {
                hostile::remove_all(&tree.join(name)).map_err(|error| failed(&tree.join(name), &error))?;
            }
            lay(&root, name, tree).map_err(|error| failed(&tree.join(name), &error))?;
        }
        Ok(())
    }
}

/// The built files of an environment that a recipe lays over trees, and the folder that they are relative to.
///
/// # Errors
/// If there is none, or too many.
pub(super) fn overlaid(recipe: &RecipeAsk, out: &Path) -> Result<(PathBuf, Vec<PathBuf>), Failure> {
    let globs = glob_set(&recipe.overlay).map_err(|error| fault(&error.to_string()))?;
    let root = match &recipe.overlay_root {
        Some(root) => out.join(root.trim_start_matches('/')),
        None => packages(out).into_iter().next().unwrap_or_else(|| out.to_owned()),
    };
    let mut names = Vec::new();
    let walk = WalkBuilder::new(&root).standard_filters(false).sort_by_file_name(Ord::cmp).build();
    for entry in walk {
        // What is not there has no files.
        let Ok(entry) = entry else { continue };
        let Ok(name) = entry.path().strip_prefix(&root) else { continue };
        if entry.file_type().is_some_and(|kind| kind.is_file()) && globs.is_match(name) {
            names.push(name.to_owned());
        }
        if names.len() > MOST {
            let evidence = format!("`overlay` matches more than {MOST} files");
            return Err(Failure::new(Cause::EnvironmentFailed, &evidence));
        }
    }
    if names.is_empty() {
        let at = root.strip_prefix(out).unwrap_or(&root).display().to_string();
        let at = if at.is_empty() { "{out}".to_owned() } else { format!("{{out}}/{at}") };
        let evidence = format!("none of the files that `overlay` of recipe {} names was built below {at}", recipe.name);
        return Err(Failure::new(Cause::EnvironmentFailed, &evidence));
    }
    Ok((root, names))
}

/// Whether a file of a tree is compiled code: what was built is laid over it, or nothing of the build would be measured.
fn is_compiled(path: &Path) -> bool {
    let mut begin = Vec::new();
    let Ok(file) = hostile::open_regular(path) else { return false };
    file.take(16).read_to_end(&mut begin).is_ok() && is_binary(&path.to_string_lossy(), &begin)
}

/// The image of an environment: that of the case which the tree has, by today's recipe.
fn image_of<'a>(
    context: &Context,
    node: usize,
    inputs: &Inputs,
    role: &Role,
    recipe: &'a RecipeAsk,
) -> Result<Option<&'a ImageAsk>, Failure> {
    if !recipe.is_boxed() {
        return Ok(None);
    }
    let number = match recipe.cases.as_slice() {
        [only] if only.exists.is_none() => 0,
        cases => {
            let commit = context.plan.nodes[node].point.commit;
            let (repo, _) = commit.ok_or_else(|| fault("an environment without a commit"))?;
            let changes = match role {
                Role::Rebuilt => Some(inputs.blob(&Role::Patch, "changes")?),
                Role::HumanBuilt => Some(inputs.blob(&Role::Checkout, "human change")?),
                _ => None,
            };
            let tree = TreeOf { repo, base: inputs.text(&Role::Checkout, "tree")?, changes };
            let trees = StoreTrees::new(&context.store, context.sources.clone(), true);
            let found = tokio::task::block_in_place(|| trees.find(tree, cases));
            match found.map_err(|why| Failure::new(Cause::CheckoutFailed, &why))? {
                Found::Case { case, .. } => case,
                Found::NoCase => return Err(fault("an environment that was built by no case of its recipe")),
            }
        }
    };
    Ok(recipe.cases.get(number).and_then(|case| case.image.as_ref()))
}

/// The folders of an environment in which Python packages lie.
pub(super) fn packages(out: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in ["lib", "lib64"].map(|lib| out.join(lib)) {
        // `lib64` of a venv is a link to `lib`.
        if std::fs::symlink_metadata(&lib).is_ok_and(|meta| meta.is_dir()) {
            let versions = std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
            found.extend(versions.map(|path| path.join("site-packages")).filter(|path| path.is_dir()));
        }
    }
    found.sort();
    found
}

/// The distributions that are installed in an environment, `name-version`, sorted.
pub(super) fn distributions(out: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    for folder in packages(out) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".dist-info").or_else(|| name.strip_suffix(".egg-info")) {
                found.insert(name.to_owned());
            }
        }
    }
    found.into_iter().collect()
}

/// Lays one file over a tree, unless the tree has it, or has something else where its folders would be.
fn lay(root: &Path, name: &Path, tree: &Path) -> io::Result<()> {
    let mut folder = tree.to_owned();
    for part in name.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        match std::fs::symlink_metadata(&folder) {
            Ok(meta) if meta.is_dir() => {}
            // A link of the tree is never followed out of it.
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::create_dir(&folder)?,
            Err(error) => return Err(error),
        }
    }
    let to = tree.join(name);
    if std::fs::symlink_metadata(&to).is_ok() {
        return Ok(());
    }
    hostile::copy_file(&root.join(name), &to).map(drop)
}
