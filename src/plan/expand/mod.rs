//! From manifest to plan: every step at every point of its axes, with its templates filled and its files taken.

mod agents;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::digest::Digest;
use crate::manifest::{
    Agent, Body, Case, Env, InputFrom, Manifest, Pipeline, Recipe, SandboxDecl, Spanned, Step, Template, Tests, clean,
};
use crate::measure::{self, Contract};
use crate::names::SlotKind;
use crate::plan::binding::{Bound, bind};
use crate::plan::graph::Graph;
use crate::plan::points::{axes_of, draw_of, ordered_points};
use crate::plan::scope::{Scope, tools_in};
use crate::plan::whole::{jobs, refuse_shared_places};
use crate::plan::{
    AgentAsk, Ask, CaseAsk, CheckoutAsk, ClassifyAsk, CommandAsk, EnvAsk, EnvironmentAsk, Facts, ImageAsk, Intake,
    Link, Missing, Node, PatchAsk, Plan, Point, RecipeAsk, Role, ServiceAsk, TestAsk,
};

/// Makes the plan. What the machine lacks is noted in the actions that need it.
#[must_use]
pub fn expand(manifest: Arc<Manifest>, facts: Facts, intake: &mut Intake) -> Plan {
    let bound = bind(&manifest.pipeline);
    let mut nodes = Vec::new();
    {
        let pipeline = &manifest.pipeline;
        let mut expander =
            Expander { manifest: &manifest, facts: &facts, bound: &bound, intake, places: HashMap::new() };
        for (step, point) in ordered_points(pipeline) {
            let index = nodes.len();
            let node = expander.node(step, point);
            expander.places.insert((node.step, node.point.clone()), index);
            nodes.push(node);
        }
    }
    refuse_shared_places(&mut nodes);
    let graph = Graph::of(&nodes);
    let dependents = graph.as_ref().map_or_else(|| vec![Vec::new(); nodes.len()], Graph::dependents);
    let jobs = if graph.is_some() { jobs(&manifest.pipeline, &nodes, &dependents) } else { Vec::new() };
    let mut plan = Plan {
        manifest,
        facts,
        nodes,
        jobs,
        dependents,
        points: OnceLock::new(),
        axes: OnceLock::new(),
        trees: OnceLock::new(),
    };
    set_heights(&mut plan, &|_| 1.0);
    plan
}

/// Recomputes the critical path by expected durations in seconds.
pub fn set_heights(plan: &mut Plan, seconds: &dyn Fn(usize) -> f64) {
    if let Some(graph) = Graph::of(&plan.nodes) {
        for (node, height) in plan.nodes.iter_mut().zip(graph.heights(seconds)) {
            node.height = height;
        }
    }
}

/// Paths that no patch of this pipeline may touch: they do not belong to a human's change either.
#[must_use]
pub fn protected(pipeline: &Pipeline) -> Vec<String> {
    let mut globs: Vec<String> = Vec::new();
    for step in &pipeline.steps {
        if let Body::Patch(patch) = &step.body {
            for glob in &patch.protect {
                if !globs.contains(&glob.value) {
                    globs.push(glob.value.clone());
                }
            }
        }
    }
    globs
}

struct Expander<'a> {
    manifest: &'a Manifest,
    facts: &'a Facts,
    bound: &'a [Bound],
    intake: &'a mut Intake,
    places: HashMap<(usize, Point), usize>,
}

impl Expander<'_> {
    fn node(&mut self, step: usize, point: Point) -> Node {
        let decl = &self.manifest.pipeline.steps[step];
        let mut missing = Vec::new();
        let links = self.bound[step]
            .links
            .iter()
            .filter_map(|(role, up)| Some(Link { role: role.clone(), node: self.at(*up, &point)? }))
            .collect();
        let gates = self.bound[step].gates.iter().filter_map(|up| self.at(*up, &point)).collect();
        let ask = self.ask(step, decl, &point, &mut missing);
        let like = self.bound[step].like.map_or(decl, |like| &self.manifest.pipeline.steps[like]);
        let holds = self.holds(if decl.holds.is_empty() { like } else { decl }, &point, &mut missing);
        let axes = axes_of(&self.manifest.pipeline, &point);
        if let Some(Err(lacking)) = point.commit.and_then(|commit| self.facts.commits.get(&commit)) {
            missing.push(lacking.clone());
        }
        let lacking = ask.assets().into_iter().filter_map(|name| self.facts.assets.get(name)?.as_ref().err());
        missing.extend(lacking.cloned());
        missing.dedup();
        Node { step, point, axes, links, gates, ask, holds, missing, height: 0.0 }
    }

    /// The action of an upstream step that belongs to a point.
    fn at(&self, step: usize, point: &Point) -> Option<usize> {
        let decl = &self.manifest.pipeline.steps[step];
        let has = |axis: &str| decl.axes.iter().any(|own| own == axis);
        let narrowed = Point {
            commit: point.commit.filter(|_| has("commit") || has("repo")),
            candidate: point.candidate.filter(|_| has("candidate")),
            sample: point.sample.filter(|_| has("candidate")),
            own: point
                .own
                .iter()
                .copied()
                .filter(|(axis, _)| has(&self.manifest.pipeline.axes[*axis].name.value))
                .collect(),
        };
        self.places.get(&(step, narrowed)).copied()
    }

    fn holds(&self, decl: &Step, point: &Point, missing: &mut Vec<Missing>) -> Vec<(SlotKind, u32)> {
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        let mut holds = Vec::new();
        for hold in &decl.holds {
            let pipeline = &self.manifest.pipeline;
            let slots = pipeline.slots.iter().filter(|slot| slot.kind.value == hold.kind.value).count();
            let lanes: u32 =
                pipeline.lanes.iter().filter(|lane| lane.name.value == hold.kind.value).map(|lane| lane.width).sum();
            let there = u32::try_from(slots).unwrap_or(u32::MAX).saturating_add(lanes);
            let lacking = |what: String, hint: &str| Missing {
                what,
                hint: hint.into(),
                place: Some(hold.count.place),
                fatal: false,
            };
            match scope.text(&hold.count) {
                Err(lack) => missing.push(lack),
                Ok(text) => match text.trim().parse::<u32>() {
                    Ok(count) if count <= there => {
                        if count > 0 {
                            holds.push((hold.kind.value.clone(), count));
                        }
                    }
                    Ok(count) => missing.push(lacking(
                        format!("{count} of {} are asked for and `slots` declares {there}", hold.kind.value),
                        "declare more slots, or take the commit off the list",
                    )),
                    Err(_) => missing.push(lacking(
                        format!("`{text}` is not a number of {}", hold.kind.value),
                        "a count is a whole number",
                    )),
                },
            }
        }
        holds
    }

    fn ask(&mut self, step: usize, decl: &Step, point: &Point, missing: &mut Vec<Missing>) -> Ask {
        let pipeline = &self.manifest.pipeline;
        match &decl.body {
            Body::Checkout => {
                let commit = point.commit.map(|(repo, commit)| &pipeline.repos[repo].commits[commit]);
                Ask::Checkout(CheckoutAsk {
                    human: commit.map(|commit| commit.id.value.clone()).unwrap_or_default(),
                    base: commit.map_or(crate::manifest::Base::Parent(1), |commit| commit.base.clone()),
                    protect: protected(pipeline),
                })
            }
            Body::Environment(environment) => {
                let tool = environment.tool.as_ref().map(|tool| tool.value.clone());
                self.want_tools(tool.as_slice(), missing);
                let named = environment.recipe.as_ref().and_then(|name| pipeline.recipes.get(&name.value));
                let recipe = named.map(|recipe| self.recipe(recipe, decl, point, missing));
                Ask::Environment(Box::new(EnvironmentAsk { tool, recipe, human: environment.human }))
            }
            Body::Agent(_) => self.agent(decl, point, missing),
            Body::Patch(patch) => Ask::Patch(PatchAsk {
                protect: patch.protect.iter().map(|glob| glob.value.clone()).collect(),
                ignore: patch.ignore.iter().map(|glob| glob.value.clone()).collect(),
                limit: decl.limit.as_ref().map(|limit| limit.value),
            }),
            Body::Test(_) => self.test(step, decl, point, missing),
            Body::Classify(classify) => Ask::Classify(ClassifyAsk {
                judge_min_effect: classify.judge_min_effect.as_ref().map(|effect| effect.value),
            }),
            Body::Command(_) => self.command(decl, point, missing),
        }
    }

    fn want_tools(&self, tools: &[String], missing: &mut Vec<Missing>) {
        for tool in tools {
            if let Some(Err(lacking)) = self.facts.tools.get(tool) {
                missing.push(lacking.clone());
            }
        }
    }

    fn env(&self, point: &Point, envs: &[&Env], missing: &mut Vec<Missing>) -> EnvAsk {
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        keep(scope.env(envs), missing).unwrap_or_default()
    }

    fn argv(&self, point: &Point, argv: &[Spanned<Template>], missing: &mut Vec<Missing>) -> Vec<Template> {
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        argv.iter().filter_map(|template| keep(scope.fill(template), missing)).collect()
    }

    /// Takes a file whose path is a template; `None` if it is not there.
    fn file(
        &mut self,
        path: &Spanned<Template>,
        dir: &Path,
        point: &Point,
        missing: &mut Vec<Missing>,
    ) -> Option<(PathBuf, Option<Digest>)> {
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        let path_text = keep(scope.text(path), missing)?;
        let full = dir.join(path_text);
        match self.intake.file(&full) {
            Ok(digest) => Some((full, digest)),
            Err(error) => {
                missing.push(Missing {
                    what: format!("`{}` cannot be read: {error}", full.display()),
                    hint: "make it a readable file".into(),
                    place: Some(path.place),
                    fatal: true,
                });
                None
            }
        }
    }

    /// The same for a file that has to be there.
    fn needed_file(
        &mut self,
        path: &Spanned<Template>,
        dir: &Path,
        point: &Point,
        missing: &mut Vec<Missing>,
    ) -> Option<Digest> {
        let (full, digest) = self.file(path, dir, point, missing)?;
        if digest.is_none() {
            missing.push(Missing {
                what: format!("there is no file `{}`", full.display()),
                hint: "write the file, or correct its path in the manifest".into(),
                place: Some(path.place),
                fatal: true,
            });
        }
        digest
    }

    fn recipe(&mut self, recipe: &Recipe, decl: &Step, point: &Point, missing: &mut Vec<Missing>) -> RecipeAsk {
        let mut files = BTreeMap::new();
        for file in &recipe.files {
            if let Some(digest) = self.needed_file(&file.path, &file.dir, point, missing) {
                files.insert(file.name.value.clone(), digest);
            }
        }
        let texts = |list: &[Spanned<String>]| list.iter().map(|text| text.value.clone()).collect::<Vec<_>>();
        let mut lines = |argvs: &[Vec<Spanned<Template>>]| -> Vec<Vec<Template>> {
            argvs.iter().map(|argv| self.argv(point, argv, missing)).collect()
        };
        let case = |case: &Case| CaseAsk {
            exists: case.exists.as_ref().map(|path| path.value.clone()),
            image: case
                .image
                .as_ref()
                .map(|image| ImageAsk { source: image.source.value.clone(), interpreter: image.interpreter.clone() }),
            from: texts(&case.from),
            fetch: lines(&case.fetch),
            run: lines(&case.run),
        };
        let cases: Vec<CaseAsk> = recipe.cases.iter().map(case).collect();
        let images = cases.iter().filter_map(|case| self.facts.images.get(&case.image.as_ref()?.source));
        missing.extend(images.filter_map(|fact| fact.as_ref().err().cloned()));
        let identity = self.argv(point, &recipe.identity, missing);
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        let provided = |(name, value): &(Spanned<String>, Spanned<Template>)| {
            keep(scope.fill(value), missing).map(|value| (name.value.clone(), value))
        };
        let provides = recipe.provides.iter().filter_map(provided).collect();
        let argvs = cases.iter().flat_map(|case| case.fetch.iter().chain(&case.run)).flatten().chain(&identity);
        let tools = tools_in(&argvs.cloned().collect::<Vec<_>>());
        self.want_tools(&tools, missing);
        RecipeAsk {
            name: recipe.name.value.clone(),
            overlay: texts(&recipe.overlay),
            overlay_root: recipe.overlay_root.clone(),
            provides,
            identity,
            offline: recipe.offline,
            files,
            env: self.env(point, &[&recipe.env, &decl.env], missing),
            tools,
            cases,
        }
    }

    fn test(&mut self, step: usize, decl: &Step, point: &Point, missing: &mut Vec<Missing>) -> Ask {
        let manifest = self.manifest;
        let pipeline = &manifest.pipeline;
        let like = self.bound[step].like.map_or(decl, |like| &pipeline.steps[like]);
        let (Body::Test(body), Body::Test(shape)) = (&decl.body, &like.body) else {
            unreachable!("`against` names a test step, and this is one")
        };
        let tests = point.commit.and_then(|(repo, commit)| pipeline.tests_of(repo, commit));
        let (script_path, script) = tests.and_then(|tests| self.script(tests, point, missing)).unwrap_or_default();
        let contract = tests.map_or(Contract::Flow, |tests| tests.contract);
        let metrics = [&shape.metrics, &body.metrics]
            .into_iter()
            .find(|metrics| !metrics.is_empty())
            .cloned()
            .or_else(|| tests.map(|tests| tests.metrics.clone()).filter(|metrics| !metrics.is_empty()))
            .unwrap_or_else(|| vec![contract.default_metric()]);
        let contract = contract.of(&metrics);
        let equal = shape.equal.as_ref().or(body.equal.as_ref()).map(|equal| equal.value).unwrap_or_default();
        let checks: Vec<_> = body.checks.iter().map(|check| self.argv(point, check, missing)).collect();
        let argv = self.argv(point, if body.run.is_empty() { &shape.run } else { &body.run }, missing);
        let services: Vec<ServiceAsk> = body
            .services
            .iter()
            .map(|service| ServiceAsk {
                name: service.name.value.clone(),
                argv: self.argv(point, &service.run, missing),
                ready: service.ready.clone(),
                port: service.port,
                timeout: service.timeout,
            })
            .collect();
        let mut tools = tools_in(&argv);
        tools.extend(services.iter().flat_map(|service| tools_in(&service.argv)));
        tools.extend(checks.iter().flat_map(|check| tools_in(check)));
        tools.sort_unstable();
        tools.dedup();
        self.want_tools(&tools, missing);
        let environment = self.bound[step].links.iter().find(|(role, _)| *role == Role::Environment);
        let of_environment = environment.and_then(|(_, up)| match &pipeline.steps[*up].body {
            Body::Environment(environment) => environment.tool.as_ref().map(|tool| tool.value.clone()),
            _ => None,
        });
        let boxed = environment.is_some_and(|(_, up)| match &pipeline.steps[*up].body {
            Body::Environment(body) => {
                let recipe = body.recipe.as_ref().and_then(|name| pipeline.recipes.get(&name.value));
                recipe.is_some_and(|recipe| recipe.cases.iter().all(|case| case.image.is_some()))
            }
            _ => false,
        });
        let acts = |name: &str| {
            let runs = pipeline.agents.values().flat_map(|agent| &agent.run);
            runs.flat_map(|template| template.value.holes()).any(|hole| hole.strip_prefix("tool.") == Some(name))
        };
        let mut spare = pipeline.tools.iter().filter(|tool| !acts(&tool.name.value));
        let only_tool = match (spare.next(), spare.next()) {
            (Some(tool), None) => Some(tool.name.value.clone()),
            _ => None,
        };
        let timed = metrics.iter().any(|metric| metric.kind == measure::Kind::Time);
        let held = like.holds.first().or(decl.holds.first()).map(|hold| hold.kind.value.to_string());
        let device = match held.filter(|_| timed).and_then(|kind| self.facts.devices.get(&kind)) {
            Some(Ok(device)) => Some(device.clone()),
            Some(Err(lacking)) => {
                missing.push(lacking.clone());
                None
            }
            None => None,
        };
        let env = if std::ptr::eq(like, decl) {
            self.env(point, &[&decl.env], missing)
        } else {
            self.env(point, &[&like.env, &decl.env], missing)
        };
        Ask::Test(Box::new(TestAsk {
            script,
            script_path,
            contract,
            argv,
            metrics,
            equal,
            checks,
            protocol: self.protocol(&shape.protocol, point, body.again.is_some()),
            guards: body.guards,
            aa: body.aa,
            asked: false,
            again: body.again.is_some(),
            human: body.human.is_some(),
            tool: of_environment.or(only_tool).filter(|_| !boxed),
            sandbox: if decl.sandbox == SandboxDecl::default() { &like.sandbox } else { &decl.sandbox }.clone(),
            caches: body.caches.clone(),
            services,
            tools,
            env,
            timeout: decl.timeout.as_ref().map(|timeout| timeout.value),
            device,
        }))
    }

    /// Each A/A control of a commit is a measurement of its own, with a seed of its own; so is a second session.
    fn protocol(&self, protocol: &measure::Protocol, point: &Point, again: bool) -> measure::Protocol {
        let draw = draw_of(&self.manifest.pipeline, point).unwrap_or(0) + u64::from(again);
        measure::Protocol { seed: protocol.seed.wrapping_add(draw), ..*protocol }
    }

    /// A commit's test script; `None` if it has none. A folder that is not there holds no script of any commit: that is the
    /// machine's lack and not the commits'.
    fn script(
        &mut self,
        tests: &Tests,
        point: &Point,
        missing: &mut Vec<Missing>,
    ) -> Option<(PathBuf, Option<Digest>)> {
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        let dir = clean(&tests.base.join(keep(scope.text(&tests.dir), missing)?));
        let found = self.file(&tests.name, &dir, point, missing)?;
        if found.1.is_none() && !self.intake.is_dir(&dir) {
            missing.push(Missing {
                what: format!("the folder of test scripts {} is not there", dir.display()),
                hint: "put the scripts there, or correct `tests dir=`".into(),
                place: Some(tests.dir.place),
                fatal: true,
            });
        }
        Some(found)
    }

    fn command(&mut self, decl: &Step, point: &Point, missing: &mut Vec<Missing>) -> Ask {
        let Body::Command(body) = &decl.body else { unreachable!("asked for a command step") };
        let mut files = BTreeMap::new();
        for input in &body.inputs {
            if let InputFrom::File(path, dir) = &input.from
                && let Some(digest) = self.needed_file(path, dir, point, missing)
            {
                files.insert(input.name.value.clone(), digest);
            }
        }
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        let mut publish = BTreeMap::new();
        for output in &body.outputs {
            if let Some((path, dir)) = &output.publish
                && let Some(text) = keep(scope.text(path), missing)
            {
                let climbs = |text: &str| text.split('/').any(|part| part == "..") || text.starts_with('/');
                if climbs(&text) && !climbs(&path.value.to_string()) {
                    missing.push(Missing {
                        what: format!("`{text}` leaves the folder that `{}` names", path.value),
                        hint: "a value of an axis may not hold `..`".into(),
                        place: Some(path.place),
                        fatal: true,
                    });
                }
                publish.insert(output.name.value.clone(), dir.join(text));
            }
        }
        let argv = self.argv(point, &body.run, missing);
        let tools = tools_in(&argv);
        self.want_tools(&tools, missing);
        Ask::Command(Box::new(CommandAsk {
            argv,
            files,
            outputs: body.outputs.iter().map(|output| (output.name.value.clone(), output.file.value.clone())).collect(),
            publish,
            tools,
            env: self.env(point, &[&decl.env], missing),
            timeout: decl.timeout.as_ref().map(|timeout| timeout.value),
        }))
    }
}

fn keep<T>(result: Result<T, Missing>, missing: &mut Vec<Missing>) -> Option<T> {
    result.map_err(|lacking| missing.push(lacking)).ok()
}
