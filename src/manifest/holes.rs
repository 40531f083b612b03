//! Checks the holes of templates: each name must be one that is known where the template stands.
//!
//! Fills nothing: values belong to the plan and the run.

use std::collections::BTreeSet;

use super::flaw::{Draft, Report, list, nearest, suggest};
use super::read::read_file;
use super::template::BadTemplate;
use super::{Agent, Body, Env, InputFrom, Pipeline, Place, Recipe, SecretSource, Spanned, Step, Template, secret_name};

/// The largest prompt, in bytes.
const PROMPT_BYTES: u64 = 4 << 20;
/// From so many bytes on the system refuses an argument.
const LONGEST_ARGUMENT: usize = 128 << 10;
/// What is known of every commit.
const COMMIT: &[&str] = &["commit.id", "commit.id8", "commit.base", "commit.subject"];
/// What is known of a commit in recipes alone: it tells which commit a tree is of, and no agent may learn that from its tree.
const DESCRIBED: &[&str] = &["commit.describe", "commit.version"];
/// What an adapter's argv may use beside the common names.
pub(super) const AGENT: &[&str] =
    &["args", "prompt", "prompt-text", "config", "human-change", "model", "work", "out", "home", "flow"];

pub(super) type Known = BTreeSet<String>;

/// Checks all templates of a pipeline.
pub(super) fn all(pipeline: &Pipeline, report: &Report) {
    let secrets = pipeline.secrets().map(|secret| secret.name.value.clone()).collect();
    let checker = Checker { pipeline, report, common: common(pipeline), secrets };
    for repo in &pipeline.repos {
        let columns = repo.commits.iter().flat_map(|commit| commit.columns.keys());
        let mut known: Known = COMMIT.iter().map(ToString::to_string).chain(["repo.name".to_owned()]).collect();
        known.extend(columns.map(|column| format!("commit.{column}")));
        for tests in &repo.tests {
            checker.template(&tests.dir, &Known::new());
            checker.template(&tests.name, &known);
            checker.columns(&tests.name, Some(repo.name.value.as_str()));
            checker.only(repo, &tests.only);
        }
    }
    for tool in &pipeline.tools {
        checker.template(&tool.path, &Known::new());
        let known: Known = ["prefix".to_owned()].into();
        for probe in &tool.probes {
            for value in &probe.value {
                checker.template(&Spanned { value: value.clone(), place: probe.place }, &known);
            }
        }
        tool.watch.iter().chain(&tool.source).for_each(|path| checker.template(path, &known));
    }
    // An axis would make one agent many; it is taken by steps.
    let axes: BTreeSet<&str> = pipeline.axes.iter().map(|axis| axis.name.value.as_str()).collect();
    let mut plain = checker.common.clone();
    plain.retain(|name| !axes.contains(name.as_str()));
    for agent in pipeline.agents.values() {
        checker.agent(agent, &plain);
    }
    for candidate in &pipeline.candidates {
        checker.candidate(candidate, &plain);
    }
    for provider in pipeline.providers.values() {
        checker.provider(provider);
    }
    checker.twins();
    for recipe in pipeline.recipes.values() {
        checker.recipe(recipe, &plain);
    }
    for step in &pipeline.steps {
        checker.step(step);
    }
}

fn common(pipeline: &Pipeline) -> Known {
    let mut known = Known::new();
    if !pipeline.repos.is_empty() {
        known.extend(COMMIT.iter().map(ToString::to_string).chain(["repo.name".to_owned()]));
    }
    if !pipeline.candidates.is_empty() {
        known.extend(["candidate.name", "candidate.model", "sample"].map(str::to_owned));
    }
    known.extend(pipeline.tools.iter().map(|tool| format!("tool.{}", tool.name.value)));
    known.extend(pipeline.assets.iter().map(|asset| format!("asset.{}", asset.name.value)));
    known.extend(pipeline.axes.iter().map(|axis| axis.name.value.clone()));
    for commit in pipeline.repos.iter().flat_map(|repo| &repo.commits) {
        known.extend(commit.columns.keys().map(|column| format!("commit.{column}")));
    }
    known
}

/// The names in the holes of a step's own templates.
pub(super) fn of_step(step: &Step) -> Vec<String> {
    let mut templates: Vec<&Template> = env_templates(&step.env).map(|template| &template.value).collect();
    templates.extend(step.holds.iter().map(|hold| &hold.count.value));
    match &step.body {
        Body::Agent(agent) => templates.extend(agent.prompt.iter().map(|(path, _)| &path.value)),
        Body::Test(test) => {
            let served = test.services.iter().flat_map(|service| &service.run);
            templates.extend(test.run.iter().chain(test.checks.iter().flatten()).chain(served).map(|arg| &arg.value));
        }
        Body::Command(command) => {
            templates.extend(command.run.iter().map(|arg| &arg.value));
            templates.extend(command.outputs.iter().filter_map(|output| Some(&output.publish.as_ref()?.0.value)));
            templates.extend(command.inputs.iter().filter_map(|input| match &input.from {
                InputFrom::File(path, _) => Some(&path.value),
                InputFrom::Output { .. } => None,
            }));
        }
        _ => {}
    }
    templates.into_iter().flat_map(|template| template.holes().map(str::to_owned)).collect()
}

/// Whether a recipe asks what a commit is called by the tags behind it.
pub(super) fn describes(recipe: &Recipe) -> bool {
    let lines = recipe.cases.iter().flat_map(|case| case.fetch.iter().chain(&case.run)).flatten();
    let texts = lines.chain(&recipe.identity).chain(recipe.files.iter().map(|file| &file.path));
    let mut texts = texts.chain(env_templates(&recipe.env));
    texts.any(|text| text.value.holes().any(|hole| DESCRIBED.contains(&hole)))
}

pub(super) fn env_templates(env: &Env) -> impl Iterator<Item = &Spanned<Template>> {
    env.set.iter().map(|(_, value)| value)
}

/// An environment without its places.
pub(super) fn env_signature(env: &Env) -> Vec<String> {
    let mut lines: Vec<String> =
        env.set.iter().map(|(name, value)| format!("set {}={}", name.value, value.value)).collect();
    lines.extend(env.pass.iter().map(|pass| format!("pass {} {} {}", pass.name.value, pass.hash, pass.optional)));
    lines.extend(env.secret.iter().map(|secret| {
        let from = match &secret.source {
            SecretSource::Variable => String::new(),
            SecretSource::File(path) => path.display().to_string(),
            SecretSource::Command(argv) => argv.join("\0"),
        };
        format!("secret {} {from}", secret.name.value)
    }));
    lines.sort();
    lines
}

/// Checks templates against what is known.
pub(super) struct Checker<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) report: &'a Report,
    common: Known,
    /// The names of all secrets that are declared.
    secrets: BTreeSet<String>,
}

impl Checker<'_> {
    pub(super) fn template(&self, template: &Spanned<Template>, known: &Known) {
        for hole in template.value.holes() {
            self.hole(hole, template.place, known);
        }
    }

    /// Whether tools may be named where these names are known: not in a tool's own probe, nor in the name of a test script.
    fn may_hold_tools(&self, known: &Known) -> bool {
        !known.contains("prefix") && (known.contains("candidate.name") || self.pipeline.candidates.is_empty())
    }

    fn hole(&self, hole: &str, place: Place, known: &Known) {
        if let Some(name) = hole.strip_prefix("var.").filter(|name| !name.is_empty()) {
            // What is filled in here stands in a key record, on disk and in what `why` prints.
            if secret_name(name) || self.secrets.contains(name) {
                self.report.add(
                    Draft::new("passed-secret", place, format!("`{{{hole}}}` would store a secret"))
                        .label(if secret_name(name) { "a secret, by its name" } else { "a secret of this manifest" })
                        .help(format!("write `secret {name}`, and let the agent read the variable; a config may say \"{{secret.{name}}}\"")),
                );
            }
            return;
        }
        if known.contains(hole) {
            return;
        }
        let help = if DESCRIBED.contains(&hole) {
            "only the commands, the variables and the files of a `recipe` know it: it tells which commit a tree is of"
                .into()
        } else if let Some(column) = hole.strip_prefix("commit.") {
            let names: Vec<&str> = known.iter().filter_map(|name| name.strip_prefix("commit.")).collect();
            suggest(column, names, "name after `commit.`")
        } else if known.is_empty() {
            "only `{var.NAME}`, a variable of flow's own environment, may stand here".into()
        } else if let Some(tool) = hole.strip_prefix("tool.").filter(|_| self.may_hold_tools(known)) {
            let near = nearest(hole, known.iter().map(String::as_str).filter(|name| name.starts_with("tool.")));
            let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? else "));
            format!("{near}declare it in the pipeline: tool {tool} \"{tool}\" {{ probe \"--version\" }}")
        } else {
            // `{in.x}` was meant to be an input, whatever else is known.
            let head = hole.split_once('.').map_or("", |(head, _)| head);
            let same = |name: &&str| !head.is_empty() && name.split_once('.').is_some_and(|(other, _)| other == head);
            let all = || known.iter().map(String::as_str);
            if all().any(|name| same(&name)) {
                suggest(hole, all().filter(same), "name")
            } else {
                suggest(hole, all(), "name")
            }
        };
        self.report.add(
            Draft::new("unknown-hole", place, format!("`{{{hole}}}` is not known here"))
                .label("unknown name in braces")
                .help(format!("{help}; a plain brace is written `{{{{`")),
        );
    }

    /// A column that is used must be there for every commit: an absent one is never read as "".
    pub(super) fn columns(&self, template: &Spanned<Template>, repo: Option<&str>) {
        for column in template.value.holes().filter_map(|hole| hole.strip_prefix("commit.")) {
            let repos =
                self.pipeline.repos.iter().filter(|other| repo.is_none_or(|name| other.name.value.as_str() == name));
            let commits: Vec<_> = repos.flat_map(|repo| &repo.commits).collect();
            let lacking: Vec<_> = commits.iter().filter(|commit| !commit.columns.contains_key(column)).collect();
            let builtin = COMMIT.iter().chain(DESCRIBED).any(|name| name.strip_prefix("commit.") == Some(column));
            // A column that no commit has is an unknown name.
            if builtin || lacking.len() == commits.len() {
                continue;
            }
            if let Some(first) = lacking.first() {
                self.report.add(
                    Draft::new(
                        "missing-column",
                        template.place,
                        format!("{} of {} commits have no `{column}`", lacking.len(), commits.len()),
                    )
                    .label("used here")
                    .help(format!(
                        "give it for each, first for {}: {}",
                        first.id.value,
                        self.report.position(first.id.place)
                    )),
                );
            }
        }
    }

    fn only(&self, repo: &super::Repo, only: &[Spanned<String>]) {
        for id in only {
            let listed = repo
                .commits
                .iter()
                .any(|commit| commit.id.value.starts_with(&id.value) || id.value.starts_with(&commit.id.value));
            if !listed && !repo.commits.is_empty() {
                self.report.add(
                    Draft::new(
                        "unknown-commit",
                        id.place,
                        format!("`{}` has no commit `{}`", repo.name.value, id.value),
                    )
                    .label("not listed in `commits`")
                    .help("mend the id, or list the commit"),
                );
            }
        }
    }

    pub(super) fn env(&self, env: &Env, known: &Known) {
        for template in env_templates(env) {
            self.template(template, known);
            self.columns(template, None);
        }
    }

    fn agent(&self, agent: &Agent, plain: &Known) {
        let mut known = plain.clone();
        known.extend(AGENT.iter().map(ToString::to_string));
        // Any file may be named: a candidate that does not give it has none.
        let templates = agent.run.iter().chain(&agent.stdin);
        let files = templates.flat_map(|arg| arg.value.holes()).filter(|hole| hole.starts_with("file."));
        known.extend(files.map(str::to_owned));
        for arg in agent.run.iter().chain(&agent.stdin) {
            self.template(arg, &known);
            self.columns(arg, None);
            if arg.value.holes().any(|hole| hole == "args") && arg.value.sole_hole().is_none() {
                self.report.add(
                    Draft::new("args-within", arg.place, "`{args}` stands for several arguments")
                        .label("must be an argument of its own")
                        .help("write \"{args}\" as one argument"),
                );
            }
        }
        self.env(&agent.env, plain);
    }

    fn recipe(&self, recipe: &Recipe, plain: &Known) {
        let with = |more: &[&str]| {
            let mut known = plain.clone();
            known.extend(more.iter().map(ToString::to_string));
            known
        };
        let mut plain_building = plain.clone();
        if !self.pipeline.repos.is_empty() {
            plain_building.extend(DESCRIBED.iter().map(ToString::to_string));
        }
        let mut building = plain_building.clone();
        building.extend(["out", "downloads", "interpreter"].map(str::to_owned));
        building.extend(recipe.files.iter().map(|file| format!("file.{}", file.name.value)));
        for file in &recipe.files {
            self.template(&file.path, &plain_building);
            self.columns(&file.path, None);
        }
        let lines = recipe.cases.iter().flat_map(|case| case.fetch.iter().chain(&case.run)).flatten();
        for arg in lines.chain(&recipe.identity) {
            self.template(arg, &building);
            self.columns(arg, None);
        }
        let using = with(&["out", "tree"]);
        recipe.provides.iter().for_each(|(_, value)| self.template(value, &using));
        self.env(&recipe.env, &plain_building);
    }

    fn step(&self, step: &Step) {
        self.env(&step.env, &self.common);
        for hold in &step.holds {
            self.template(&hold.count, &self.common);
            self.columns(&hold.count, None);
        }
        let mut known = self.common.clone();
        match &step.body {
            Body::Test(test) => {
                known.extend(["script", "interpreter", "result"].map(str::to_owned));
                let ports = test.services.iter().map(|service| format!("service.{}.port", service.name.value));
                let with_ports = |known: &Known, own: bool| {
                    let own = own.then(|| "service.port".to_owned());
                    known.iter().cloned().chain(ports.clone()).chain(own).collect::<Known>()
                };
                let running = with_ports(&known, test.services.len() == 1);
                test.run.iter().for_each(|arg| self.template(arg, &running));
                test.run.iter().for_each(|arg| self.columns(arg, None));
                known.remove("result");
                let serving = with_ports(&known, true);
                for arg in test.services.iter().flat_map(|service| &service.run) {
                    self.template(arg, &serving);
                    self.columns(arg, None);
                }
                test.checks.iter().flatten().for_each(|arg| self.template(arg, &known));
                test.checks.iter().flatten().for_each(|arg| self.columns(arg, None));
            }
            Body::Command(command) => {
                known.extend(command.inputs.iter().map(|input| format!("in.{}", input.name.value)));
                known.extend(command.outputs.iter().map(|output| format!("out.{}", output.name.value)));
                command.run.iter().for_each(|arg| self.template(arg, &known));
                let files = command.inputs.iter().filter_map(|input| match &input.from {
                    InputFrom::File(path, _) => Some(path),
                    InputFrom::Output { .. } => None,
                });
                let published = command.outputs.iter().filter_map(|output| Some(&output.publish.as_ref()?.0));
                files.chain(published).for_each(|path| self.template(path, &self.common));
            }
            Body::Agent(body) => {
                for show in &body.show {
                    let column = format!("commit.{}", show.value);
                    if !self.common.contains(&column) {
                        let names: Vec<&str> =
                            self.common.iter().filter_map(|name| name.strip_prefix("commit.")).collect();
                        self.report.add(
                            Draft::new(
                                "unknown-column",
                                show.place,
                                format!("no commit has a column `{}`", show.value),
                            )
                            .label("unknown column")
                            .help(suggest(&show.value, names, "column")),
                        );
                    } else if let Ok(used) = Template::parse(&format!("{{{column}}}")) {
                        self.columns(&Spanned { value: used, place: show.place }, None);
                    }
                }
                if let Some((path, dir)) = &body.prompt {
                    self.template(path, &self.common);
                    self.columns(path, None);
                    self.prompt(path, &dir.join(path.value.to_string()), &body.show);
                }
            }
            _ => {}
        }
    }

    /// The text of a prompt that is named without holes.
    fn prompt(&self, path: &Spanned<Template>, full: &std::path::Path, show: &[Spanned<String>]) {
        if path.value.holes().next().is_some() {
            return;
        }
        // A missing file has been reported where the path was read.
        let Ok(text) = read_file(self.report, full, PROMPT_BYTES) else { return };
        let as_argument =
            |agent: &Agent| agent.run.iter().any(|arg| arg.value.holes().any(|hole| hole == "prompt-text"));
        if text.len() >= LONGEST_ARGUMENT
            && let Some(agent) = self.pipeline.agents.values().find(|agent| as_argument(agent))
        {
            let message = format!("{} bytes are too many for the argument `{{prompt-text}}`", text.len());
            self.report.add(
                Draft::new("prompt-too-long", path.place, message)
                    .label(format!("an argument of `{}`", agent.name.value))
                    .help("the system takes 131071 at most: shorten it, or have the adapter give it as `stdin \"{prompt}\"`"),
            );
        }
        let file = self.report.add_file(
            full.to_owned(),
            self.report.shown(path.place.file, &path.value.to_string()),
            text.as_str().into(),
        );
        let place = |at: usize, len: usize| Place { file, offset: at, len };
        let find = |name: &str| text.find(&format!("{{{name}}}")).unwrap_or(0);
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(error) => {
                let at = match &error {
                    BadTemplate::Open(at) | BadTemplate::Close(at) => place(*at, 1),
                    BadTemplate::Name(name) => place(find(name), name.len() + 2),
                };
                self.report.add(
                    Draft::new("bad-template", at, error.to_string())
                        .label("a prompt is a template")
                        .help("write `{{` and `}}` for braces in the text"),
                );
                return;
            }
        };
        let mut known: Known = ["repo.name", "candidate.name", "candidate.model"].map(str::to_owned).into();
        known.extend(show.iter().map(|column| format!("commit.{}", column.value)));
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for hole in template.holes().filter(|hole| !known.contains(*hole)) {
            if !told.insert(hole) {
                continue;
            }
            let help = match hole.strip_prefix("commit.") {
                Some(column) => {
                    format!("a commit's columns reach a prompt only if shown: add `show {column}` to the agent step")
                }
                None => format!(
                    "a prompt knows {}; a plain brace is written `{{{{`",
                    list(known.iter().map(String::as_str))
                ),
            };
            self.report.add(
                Draft::new(
                    "unknown-hole",
                    place(find(hole), hole.len() + 2),
                    format!("`{{{hole}}}` is not known in a prompt"),
                )
                .label("unknown name in braces")
                .help(help),
            );
        }
    }
}
