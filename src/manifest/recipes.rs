//! Recipes: how an environment is built, by cases of what a tree holds.
//!
//! Builds what `shape` has checked, and reports what one recipe alone gets wrong. Which tree it is built from, and which case a
//! tree has, is the plan's business.

use std::collections::BTreeMap;

use super::build::{env, given, unique};
use super::flaw::{Draft, Report, suggest};
use super::holes::describes;
use super::images::{self, Image};
use super::node::{Node, Value};
use super::{Body, Env, GivenFile, Kind, Pipeline, Place, Spanned, Step, Template, argv};

/// The recipe that builds nothing.
pub(super) const INTERPRETER: &str = "interpreter";

/// How an environment is built.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: Spanned<String>,
    /// The cases, tried in this order; one without a condition if there are none.
    pub cases: Vec<Case>,
    /// Built files that are laid over a tested tree, as globs.
    pub overlay: Vec<Spanned<String>>,
    /// Where they are found, below the environment's folder; the packages of its Python if it is not said.
    pub overlay_root: Option<String>,
    /// Variables that whoever uses it is given.
    pub provides: Vec<(Spanned<String>, Spanned<Template>)>,
    /// What tells which environment it is; its installed distributions if it is not said.
    pub identity: Vec<Spanned<Template>>,
    /// Whether its `run` lines have no network in the base's build either.
    pub offline: bool,
    /// Files of the manifest's that its commands are given.
    pub files: Vec<GivenFile>,
    /// Environment of its processes.
    pub env: Env,
}

/// What is done where a tree holds a file.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file that the tree must hold; any tree will do if absent.
    pub exists: Option<Spanned<String>>,
    /// The container image that the environment is, or in which it is built.
    pub image: Option<Image>,
    /// Globs of the tree's files that it is built from, in gitignore's manner.
    pub from: Vec<Spanned<String>>,
    /// Commands that bring what the build needs, with a network; not done again for a patched tree.
    pub fetch: Vec<Vec<Spanned<Template>>>,
    /// Commands that build.
    pub run: Vec<Vec<Spanned<Template>>>,
}

impl Pipeline {
    /// Whether a recipe asks what a commit is called by the tags behind it.
    #[must_use]
    pub fn describes(&self) -> bool {
        self.recipes.values().any(describes)
    }
}

/// Builds the recipes by name.
pub(super) fn recipes(nodes: &[Node<'_>], report: &Report) -> BTreeMap<String, Recipe> {
    unique(nodes.iter().copied(), "recipe", report);
    let built = nodes.iter().filter_map(|node| recipe(*node, report));
    built.map(|recipe| (recipe.name.value.clone(), recipe)).collect()
}

fn recipe(node: Node<'_>, report: &Report) -> Option<Recipe> {
    let name = node.text()?;
    if name.value == INTERPRETER {
        report.add(
            Draft::new("taken-name", name.place, "a recipe cannot be called `interpreter`")
                .label("has a meaning of its own")
                .help("choose another name"),
        );
    }
    unique(node.all("file"), "file", report);
    let common = case(node, report);
    let join = |node: Node<'_>| {
        let own = case(node, report);
        Case {
            exists: node.prop("exists").and_then(Value::text),
            image: own.image.or_else(|| common.image.clone()),
            from: common.from.iter().cloned().chain(own.from).collect(),
            fetch: common.fetch.iter().cloned().chain(own.fetch).collect(),
            run: common.run.iter().cloned().chain(own.run).collect(),
        }
    };
    let mut cases: Vec<Case> = node.all("when").map(join).collect();
    if let Some(open) = cases.iter().position(|case| case.exists.is_none()).filter(|at| at + 1 < cases.len()) {
        let place = node.all("when").nth(open + 1).map_or(node.place(), Node::place);
        report.add(
            Draft::new("unreached", place, "this case is never reached: the one before it is for every tree")
                .label("never reached")
                .help("put the `when` without `exists` last"),
        );
    }
    if cases.is_empty() {
        cases.push(common);
    }
    for case in &cases {
        let lacks = |what: &str, why: &str, example: &str| {
            report.add(
                Draft::new("missing-node", name.place, format!("recipe `{}` {why}", name.value))
                    .label(format!("needs `{what}`"))
                    .help(format!("write {example}")),
            );
        };
        // An image is an environment as it is; what builds in it says of what.
        if case.image.is_some() && case.from.is_empty() && case.run.is_empty() && case.fetch.is_empty() {
            continue;
        }
        if case.from.is_empty() {
            lacks(
                "from",
                "does not say which files of the tree it is built from",
                "from \"pyproject.toml\" \"src/**\"",
            );
            break;
        }
        if case.run.is_empty() {
            lacks("run", "has nothing to run", "run \"{interpreter}\" \"-m\" \"venv\" \"{out}\"");
            break;
        }
    }
    let overlay = node.child("overlay");
    matches(&cases, overlay, report);
    if let Some(overlay) = overlay.filter(|_| cases.iter().all(|case| case.run.is_empty() && case.image.is_some())) {
        report.add(
            Draft::new(
                "nothing-built",
                overlay.place(),
                "`overlay` lays built files over a tree, and nothing is built",
            )
            .label("of what?")
            .help("add `from` and `run` lines, which run inside the image, or leave `overlay` out"),
        );
    }
    let of_machine = |template: &&Spanned<Template>| template.value.holes().any(|hole| hole.starts_with("tool."));
    let boxed = cases.iter().filter(|case| case.image.is_some());
    let lines = boxed.flat_map(|case| case.fetch.iter().chain(&case.run)).flatten();
    if let Some(template) = lines.into_iter().find(of_machine) {
        report.add(
            Draft::new(
                "tool-in-image",
                template.place,
                "a declared tool is a program of this machine, and not of the image",
            )
            .label("is not in the image")
            .help("write the program's name as the image has it"),
        );
    }
    Some(Recipe {
        cases,
        overlay: overlay.map(Node::texts).unwrap_or_default(),
        overlay_root: overlay.and_then(|node| Some(node.prop("root")?.str()?.to_owned())),
        provides: node.all("provides").filter_map(|node| Some((node.text()?, node.arg(1)?.template()?))).collect(),
        identity: node.child("identity").map(|node| argv::run(node, report)).unwrap_or_default(),
        offline: node.child("offline").is_some(),
        files: node.all("file").filter_map(|node| given(node, report)).collect(),
        env: env(node.children(), report),
        name,
    })
}

/// Reports what no path of a tree looks like, and where built files cannot lie.
fn matches(cases: &[Case], overlay: Option<Node<'_>>, report: &Report) {
    let laid: Vec<Spanned<String>> = overlay.map(Node::texts).unwrap_or_default();
    let globs = cases.iter().flat_map(|case| &case.from).chain(&laid).map(|glob| (glob, false));
    let files = cases.iter().filter_map(|case| case.exists.as_ref()).map(|file| (file, true));
    let mut told: Vec<Place> = Vec::new();
    for (asked, is_file) in globs.chain(files) {
        let text = asked.value.as_str();
        let above = text.split('/').any(|part| part == "..");
        let prefixed = !is_file && text.starts_with("./") || is_file && text.starts_with('/');
        let odd = text.is_empty() || text.contains(char::is_control);
        let help = match (hole(text), above) {
            (Some(hole), _) => format!("`{hole}` is not filled in here: write the path as the tree has it"),
            _ if odd => "write a path of the tree".to_owned(),
            (None, true) => "what lies outside of the tree is given as `file NAME \"path\"`".to_owned(),
            (None, false) => format!("write \"{}\"", text.trim_start_matches("./").trim_start_matches('/').trim()),
        };
        let wrong = text != text.trim() || prefixed || above || odd || hole(text).is_some();
        if wrong && !told.contains(&asked.place) {
            told.push(asked.place);
            report.add(
                Draft::new("never-matches", asked.place, format!("`{text}` never matches a file of the tree"))
                    .label("no path of the tree looks like this")
                    .help(help),
            );
        }
    }
    let Some(root) = overlay.and_then(|node| node.prop("root")).and_then(Value::text) else { return };
    let text = root.value.as_str();
    let above = text.split('/').any(|part| part == "..");
    if above || text.starts_with('/') || text.contains(['{', '}']) || text.contains(char::is_control) {
        report.add(
            Draft::new("bad-root", root.place, format!("`{text}` is no folder below `{{out}}`"))
                .label("built files do not lie here")
                .help("write it as it is within `{out}`, such as root=\"ext\"; without `root` it is the packages of its Python, or `{out}` itself"),
        );
    }
}

/// What in a text looks like a hole that is to be filled; `{a,b}` of a glob does not.
fn hole(text: &str) -> Option<&str> {
    let begins = text.match_indices('{').map(|(at, _)| at);
    begins.filter_map(|at| Some(&text[at..=at + text[at..].find('}')?])).find(|hole| {
        hole.len() > 2 && hole[1..hole.len() - 1].chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    })
}

fn case(node: Node<'_>, report: &Report) -> Case {
    let lines = |name: &'static str| node.all(name).map(|line| argv::run(line, report)).collect();
    Case {
        exists: None,
        image: node.child("image").and_then(|node| images::image(node, report)),
        from: node.all("from").flat_map(Node::texts).collect(),
        fetch: lines("fetch"),
        run: lines("run"),
    }
}

/// Reports a step's recipe that nobody declares.
pub(super) fn known(name: &Spanned<String>, declared: &[&str], report: &Report) -> bool {
    let is = name.value == INTERPRETER || declared.contains(&name.value.as_str());
    if !is {
        let all = declared.iter().copied().chain([INTERPRETER]);
        report.add(
            Draft::new("unknown-recipe", name.place, format!("there is no recipe `{}`", name.value))
                .label("not declared")
                .help(format!("{}; a file of recipes is brought by `import`", suggest(&name.value, all, "recipe"))),
        );
    }
    is
}

/// Says of each environment of a patched tree which step builds the base's: the one with the same recipe that needs no patch.
pub(super) fn bases(mut steps: Vec<Step>, report: &Report) -> Vec<Step> {
    let kind = |name: &str| steps.iter().find(|step| step.name.value.as_str() == name).map(Step::kind);
    let patched: Vec<bool> =
        steps.iter().map(|step| step.needs.iter().any(|need| kind(need.value.as_str()) == Some(Kind::Patch))).collect();
    let recipe = |step: &Step| match &step.body {
        Body::Environment(body) => body.recipe.as_ref().map(|recipe| recipe.value.clone()),
        _ => None,
    };
    let found: Vec<Option<Spanned<_>>> = steps
        .iter()
        .zip(&patched)
        .map(|(step, of_patch)| {
            let wanted = recipe(step).filter(|_| *of_patch)?;
            let base = steps
                .iter()
                .zip(&patched)
                .find(|(other, of_patch)| !**of_patch && recipe(other).as_ref() == Some(&wanted));
            let place: Place = step.name.place;
            match base {
                Some((base, _)) => Some(Spanned { value: base.name.value.clone(), place }),
                None => {
                    report.add(
                        Draft::new(
                            "missing-step",
                            place,
                            format!(
                                "`{}` builds patched trees, and no step builds the base's by `{wanted}`",
                                step.name.value
                            ),
                        )
                        .label("from whose downloads?")
                        .help(format!("add one: step build uses=environment {{ needs checkout; recipe {wanted} }}")),
                    );
                    None
                }
            }
        })
        .collect();
    for (step, base) in steps.iter_mut().zip(found) {
        if let Body::Environment(body) = &mut step.body {
            body.base = base;
        }
    }
    steps
}
