//! From which stretches of the manifest, and from which files that it names, an ingredient of an action comes.
//!
//! Follows the manifest's own places, so that an amended step is found where it is amended and an import where it is imported.
//! Does not say which of them changed.

use std::path::PathBuf;

use crate::manifest::{Agent, Body, Env, InputFrom, Place, Recipe, Spanned, Step, Template, Tool};
use crate::plan::scope::Scope;
use crate::plan::{Ask, Plan};

/// Where an ingredient comes from.
#[derive(Clone, Debug, Default)]
pub struct Whence {
    /// Files whose content it is, absolute.
    pub files: Vec<PathBuf>,
    /// A tool's own files and folders, absolute: its program, and what it watches or is installed from.
    pub programs: Vec<PathBuf>,
    /// Places in the manifest's files, the most telling first.
    pub places: Vec<Place>,
    /// Words of which one stands on a line that says it, where no place is known.
    pub words: &'static [&'static str],
    /// What of this machine decides it beside the manifest, as a sentence about what may have changed.
    pub machine: Option<String>,
}

/// Where an ingredient comes from; `None` if it is an output of an action upstream.
#[must_use]
pub fn whence(plan: &Plan, node: usize, role: &str) -> Option<Whence> {
    let step = plan.step(node);
    let seeker = Seeker { plan, node, step };
    let mut found = Whence::default();
    if let Some(limit) = role.strip_prefix("limit ") {
        let place = if limit.starts_with("service ") {
            None
        } else if limit == "timeout" {
            step.timeout.as_ref().map(|value| value.place)
        } else {
            step.limit.as_ref().map(|value| value.place)
        };
        found.places.extend(place);
        found.words = if limit == "timeout" || limit.starts_with("service ") { &["timeout"] } else { &["limit"] };
        return Some(found);
    }
    if role == "format" {
        found.machine = Some("flow itself keys this kind of step otherwise".to_owned());
        return Some(found);
    }
    let known = match &plan.nodes[node].ask {
        Ask::Checkout(_) => seeker.checkout(role, &mut found),
        Ask::Environment(ask) => seeker.environment(role, ask.tool.as_deref(), &mut found),
        Ask::Agent(_) => seeker.agent(role, &mut found),
        Ask::Patch(_) => seeker.patch(role, &mut found),
        Ask::Test(ask) => {
            if role == "script" {
                found.files.push(ask.script_path.clone());
            }
            seeker.test(role, &mut found)
        }
        Ask::Classify(_) => seeker.classify(role, &mut found),
        Ask::Command(_) => seeker.command(role, &mut found),
    };
    if !known {
        if is_from_upstream(step, role) {
            return None;
        }
        found.words = match role {
            "comparison" => &["equal", "compare"],
            "checks" => &["check"],
            "sandbox" => &["sandbox", "write"],
            _ => &[],
        };
    }
    Some(found)
}

/// Whether an ingredient of that name holds an output or an end of another action.
fn is_from_upstream(step: &Step, role: &str) -> bool {
    match step.body {
        Body::Checkout => false,
        // Of the tree those that the recipe names, which is seen to where what is read is.
        Body::Environment(_) => {
            matches!(role, "files" | "downloads" | "tree without a case" | "patch without a case")
        }
        Body::Agent(_) => matches!(role, "human commit" | "tree" | "human tree" | "environment"),
        Body::Patch(_) => matches!(role, "base tree" | "work tree"),
        Body::Test(_) => {
            let own = role.strip_suffix(" key").unwrap_or(role);
            matches!(own, "base build" | "build" | "human build")
                || matches!(role, "base tree" | "tree" | "human tree" | "reference" | "first session")
        }
        Body::Classify(_) => role.starts_with("end of ") || matches!(role, "result" | "second result" | "patch"),
        Body::Command(_) => role.starts_with("in "),
    }
}

struct Seeker<'a> {
    plan: &'a Plan,
    node: usize,
    step: &'a Step,
}

impl Seeker<'_> {
    fn checkout(&self, role: &str, found: &mut Whence) -> bool {
        match role {
            "human commit" | "base rule" => {
                found.places.extend(self.row());
                true
            }
            "protect" => {
                self.protected(found);
                true
            }
            _ => false,
        }
    }

    fn environment(&self, role: &str, tool: Option<&str>, found: &mut Whence) -> bool {
        match role {
            "interpreter" => {
                if let Some(tool) = tool.and_then(|name| self.tool(name)) {
                    tool_places(tool, found);
                }
                true
            }
            "recipe" | "identified by" => {
                found.places.extend(self.recipe().map(|recipe| recipe.name.place));
                true
            }
            "image" | "image interpreter" => {
                let images = self.recipe().into_iter().flat_map(|recipe| &recipe.cases);
                found.places.extend(images.filter_map(|case| Some(case.image.as_ref()?.source.place)));
                true
            }
            "platform" => {
                found.machine = Some("this is another operating system or processor".to_owned());
                true
            }
            _ => {
                let Some(recipe) = self.recipe() else { return false };
                if let Some(file) = role.strip_prefix("file ") {
                    for given in recipe.files.iter().filter(|given| given.name.value == file) {
                        found.files.extend(self.filled(&given.path, &given.dir));
                        found.places.push(given.path.place);
                    }
                    return true;
                }
                self.env(role, &[&recipe.env, &self.step.env], found) || self.tools(role, found)
            }
        }
    }

    /// The recipe by which the step builds.
    fn recipe(&self) -> Option<&Recipe> {
        let Body::Environment(body) = &self.step.body else { return None };
        self.plan.manifest.pipeline.recipes.get(&body.recipe.as_ref()?.value)
    }

    fn agent(&self, role: &str, found: &mut Whence) -> bool {
        let pipeline = &self.plan.manifest.pipeline;
        let point = &self.plan.nodes[self.node].point;
        let (Some(candidate), Body::Agent(body)) =
            (point.candidate.map(|index| &pipeline.candidates[index]), &self.step.body)
        else {
            return false;
        };
        let adapter: Option<&Agent> = pipeline.agents.get(&candidate.agent.value);
        match role {
            "prompt" => {
                if let Some((path, dir)) = &body.prompt {
                    found.files.extend(self.filled(path, dir));
                    found.places.push(path.place);
                }
                found.places.extend(body.show.iter().map(|shown| shown.place));
                found.places.extend(self.row());
            }
            "config" | "config notation" => {
                if let Some(config) = &candidate.config {
                    found.files.push(config.file.value.clone());
                    found.places.push(config.file.place);
                }
            }
            "model" => found.places.extend(candidate.model.as_ref().map(|model| model.place)),
            "argv" => {
                found.places.extend(candidate.args.iter().map(|word| word.place));
                found.places.extend(adapter.iter().flat_map(|adapter| &adapter.run).map(|word| word.place));
                found.places.push(candidate.agent.place);
                self.templates(candidate.args.iter().chain(adapter.iter().flat_map(|adapter| &adapter.run)), found);
            }
            "stdin" => found.places.extend(adapter.and_then(|adapter| adapter.stdin.as_ref()).map(|file| file.place)),
            "version" => {
                found.places.extend(adapter.and_then(|adapter| adapter.version.as_ref()).map(|version| version.place));
                found.places.push(candidate.agent.place);
            }
            "sample" => found.places.push(candidate.name.place),
            _ => {
                if let Some(file) = role.strip_prefix("file ") {
                    for given in candidate.files.iter().filter(|given| given.name.value == file) {
                        found.files.extend(self.filled(&given.path, &given.dir));
                        found.places.push(given.path.place);
                    }
                    return true;
                }
                let provider = point.candidate.and_then(|index| pipeline.provider_of(index));
                let mut envs = vec![&candidate.env, &self.step.env];
                envs.extend(provider.map(|provider| &provider.env));
                envs.extend(adapter.map(|adapter| &adapter.env));
                return self.env(role, &envs, found) || self.tools(role, found);
            }
        }
        true
    }

    fn patch(&self, role: &str, found: &mut Whence) -> bool {
        let Body::Patch(body) = &self.step.body else { return false };
        match role {
            "protect" => found.places.extend(body.protect.iter().map(|glob| glob.place)),
            "ignore" => found.places.extend(body.ignore.iter().map(|glob| glob.place)),
            _ => return false,
        }
        found.words = if role == "protect" { &["protect"] } else { &["ignore"] };
        true
    }

    fn test(&self, role: &str, found: &mut Whence) -> bool {
        let Body::Test(body) = &self.step.body else { return false };
        let pipeline = &self.plan.manifest.pipeline;
        let tests = self.plan.nodes[self.node].point.commit.and_then(|(repo, at)| pipeline.tests_of(repo, at));
        // What a gate is measured by stands in the step whose `against` names it.
        let like = pipeline.steps.iter().find(|other| match &other.body {
            Body::Test(other) => other.against.as_ref().is_some_and(|name| name.value == self.step.name.value),
            _ => false,
        });
        match role {
            "script" => {
                found.places.extend(tests.iter().flat_map(|tests| [tests.name.place, tests.dir.place]));
            }
            "contract" => {
                found.places.extend(tests.iter().map(|tests| tests.name.place));
                found.words = &["contract"];
            }
            "argv" => {
                let shape = like.and_then(|like| match &like.body {
                    Body::Test(body) => Some(body),
                    _ => None,
                });
                let words = || body.run.iter().chain(shape.iter().flat_map(|shape| &shape.run));
                found.places.extend(words().map(|word| word.place));
                self.templates(words(), found);
                found.words = &["run"];
            }
            "metrics" => {
                let stated = tests.map(|tests| &tests.metric_places);
                // Metrics of the step replace those of the tests; where it says none any more, these come to count.
                found.places.extend(body.metric_places.iter().chain(stated.into_iter().flatten()).copied());
                found.words = &["metric", "metrics"];
            }
            "caches" => {
                found.places.extend(body.caches.iter().map(|cache| cache.variable.place));
                found.words = &["caches"];
            }
            "services" => {
                let words = || body.services.iter().flat_map(|service| &service.run);
                found.places.extend(body.services.iter().map(|service| service.name.place));
                found.places.extend(words().map(|word| word.place));
                self.templates(words(), found);
                found.words = &["service"];
            }
            "profile" | "block" | "looks" | "blocks" => found.words = &["protocol"],
            "human tree" => found.words = &["with"],
            "seed" => found.words = &["seed"],
            "arms" => found.words = &["aa"],
            "device" => found.machine = Some("this is another device".to_owned()),
            _ => {
                let mut envs = vec![&self.step.env];
                envs.extend(like.map(|like| &like.env));
                return self.env(role, &envs, found) || self.tools(role, found);
            }
        }
        true
    }

    fn classify(&self, role: &str, found: &mut Whence) -> bool {
        let Body::Classify(body) = &self.step.body else { return false };
        match role {
            "judge" => {
                found.places.extend(body.judge_min_effect.as_ref().map(|effect| effect.place));
                found.words = &["judge"];
                true
            }
            "sessions" => {
                found.words = &["second-session", "protocol"];
                true
            }
            "rules" => {
                found.machine = Some("flow itself classifies by other rules".to_owned());
                true
            }
            _ => false,
        }
    }

    fn command(&self, role: &str, found: &mut Whence) -> bool {
        let Body::Command(body) = &self.step.body else { return false };
        match role {
            "argv" => {
                found.places.extend(body.run.iter().map(|word| word.place));
                self.templates(body.run.iter(), found);
            }
            "outputs" => {
                found.places.extend(body.outputs.iter().flat_map(|output| [output.file.place, output.name.place]));
            }
            _ => {
                if let Some(name) = role.strip_prefix("in ") {
                    let mut taken = false;
                    for input in body.inputs.iter().filter(|input| input.name.value == name) {
                        if let InputFrom::File(path, dir) = &input.from {
                            found.files.extend(self.filled(path, dir));
                            found.places.push(path.place);
                            taken = true;
                        }
                    }
                    return taken;
                }
                return self.env(role, &[&self.step.env], found) || self.tools(role, found);
            }
        }
        true
    }

    /// A variable by the environments that may give it, the strongest first.
    fn env(&self, role: &str, envs: &[&Env], found: &mut Whence) -> bool {
        let Some(name) = role.strip_prefix("env ") else { return false };
        for env in envs {
            for (variable, value) in env.set.iter().filter(|(variable, _)| variable.value == name) {
                found.places.extend([value.place, variable.place]);
                self.templates(std::iter::once(value), found);
            }
            for pass in env.pass.iter().filter(|pass| pass.name.value == name) {
                found.places.push(pass.name.place);
                found.machine = Some(format!("the variable {name}, which is passed on, had another value"));
            }
        }
        found.words = &["set", "pass"];
        true
    }

    fn tools(&self, role: &str, found: &mut Whence) -> bool {
        let Some(name) = role.strip_prefix("tool ").or_else(|| role.strip_prefix("source ")) else { return false };
        if let Some(tool) = self.tool(name) {
            tool_places(tool, found);
        }
        if role.starts_with("source ") {
            found.machine = Some(format!("the source tree of tool {name} changed"));
        }
        true
    }

    fn tool(&self, name: &str) -> Option<&Tool> {
        self.plan.manifest.pipeline.tools.iter().find(|tool| tool.name.value == name)
    }

    /// Says that variables of this machine have a part in some templates.
    fn templates<'t>(&self, templates: impl Iterator<Item = &'t Spanned<Template>>, found: &mut Whence) {
        let holes = templates.flat_map(|template| template.value.holes());
        if let Some(variable) = holes.filter_map(|hole| hole.strip_prefix("var.")).next() {
            found.machine = Some(format!("the variable {variable} had another value"));
        }
    }

    /// The commit's row in its list.
    fn row(&self) -> Option<Place> {
        let (repo, at) = self.plan.nodes[self.node].point.commit?;
        Some(self.plan.manifest.pipeline.repos[repo].commits[at].id.place)
    }

    fn protected(&self, found: &mut Whence) {
        for step in &self.plan.manifest.pipeline.steps {
            if let Body::Patch(patch) = &step.body {
                found.places.extend(patch.protect.iter().map(|glob| glob.place));
            }
        }
        found.words = &["protect"];
    }

    fn filled(&self, path: &Spanned<Template>, dir: &std::path::Path) -> Option<PathBuf> {
        let plan = self.plan;
        let scope = Scope { manifest: &plan.manifest, facts: &plan.facts, point: &plan.nodes[self.node].point };
        Some(crate::manifest::clean(&dir.join(scope.text(path).ok()?)))
    }
}

fn tool_places(tool: &Tool, found: &mut Whence) {
    found.places.extend([tool.path.place, tool.name.place]);
    found.places.extend(tool.probes.iter().map(|probe| probe.place));
    found.programs.extend(tool_files(tool));
    let name = &tool.name.value;
    found.machine = Some(if tool.probes.is_empty() {
        format!("the program of tool {name} changed")
    } else {
        format!("the probe of tool {name} answered otherwise")
    });
}

/// A tool's own files and folders, absolute: its program, and what it watches or is installed from.
#[must_use]
pub fn tool_files(tool: &Tool) -> Vec<PathBuf> {
    let program = Some(&tool.path).filter(|path| path.value.to_string().contains('/'));
    let own = program.into_iter().chain(&tool.watch).chain(&tool.source);
    own.map(|path| crate::manifest::clean(&tool.dir.join(path.value.to_string()))).collect()
}
