//! Steps: definitions, `like`, and a pipeline's amendments, applied to groups of raw children before anything is built.
//!
//! Gives the steps in the order of their definitions. Whether they fit together is `check`'s business.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::beside::human_builds;
use super::build::{env, exists, unique};
use super::caches::caches;
use super::flaw::{Draft, Report, suggest};
use super::grammar::In;
use super::measured::{checks, equal, guards, metrics};
use super::node::{Node, Value};
use super::second::second_sessions;
use super::shape;
use super::types::split_source;
use super::{
    AgentBody, Body, ClassifyBody, CommandBody, EnvironmentBody, Hold, Input, InputFrom, Kind, Output, PatchBody,
    Place, SandboxChoice, SandboxDecl, Spanned, Step, TestBody, argv, network, recipes, services,
};
use crate::measure::Protocol;
use crate::measure::protocol::Profile;
use crate::names::StepName;

/// A step while its children are still nodes.
#[derive(Clone, Debug)]
struct Raw<'a> {
    name: Spanned<StepName>,
    kind: Kind,
    children: Vec<Node<'a>>,
}

/// Reads all steps: those of the files, those of the pipeline, and the pipeline's amendments.
pub(super) fn read<'a>(top: &[Node<'a>], pipeline: Node<'a>, tools: &Tools<'_>, report: &Report) -> Vec<Step> {
    let own: Vec<Node<'a>> = pipeline.all("step").collect();
    let defines = |node: &&Node<'_>| node.prop("uses").is_some() || node.prop("like").is_some();
    for node in top.iter().filter(|node| !defines(node)) {
        report.add(
            Draft::new("stray-amendment", node.place(), "this step has neither `uses` nor `like`")
                .label("defines nothing")
                .help("say what it `uses`; amendments of other steps stand in the pipeline"),
        );
    }
    let definitions: Vec<Node<'a>> = top.iter().chain(&own).filter(defines).copied().collect();
    let amendments: Vec<Node<'a>> = own.iter().filter(|node| !defines(node)).copied().collect();
    unique(definitions.iter().copied(), "step", report);
    unique(amendments.iter().copied(), "the amendment of step", report);

    let mut raws = resolve(&definitions, report);
    let names: Vec<String> = definitions.iter().filter_map(|node| Some(node.text()?.value)).collect();
    let mut by_name: BTreeMap<&str, Node<'a>> = BTreeMap::new();
    for amendment in &amendments {
        let Some(name) = amendment.arg(0).and_then(Value::str) else { continue };
        by_name.insert(name, *amendment);
        if !names.iter().any(|known| known == name) {
            let help = suggest(name, names.iter().map(String::as_str), "step");
            report.add(
                Draft::new(
                    "unknown-step",
                    amendment.arg(0).map_or(amendment.place(), Value::place),
                    format!("there is no step `{name}` to amend"),
                )
                .label("not defined")
                .help(match help.strip_suffix('?') {
                    Some(asks) => format!("{asks}? Else, a new step says what it `uses`"),
                    None => format!("{help}; a new step says what it `uses`"),
                }),
            );
            shape::check(amendment.children(), In::AnyStep, report);
        }
    }
    copy_likes(&definitions, &mut raws, &by_name);
    for raw in raws.values_mut() {
        if let Some(amendment) = by_name.get(raw.name.value.as_str()) {
            shape::check(amendment.children(), In::Step(raw.kind), report);
            amend(raw, *amendment, report);
        }
    }
    let mut steps = Vec::new();
    for name in &names {
        // Removed from the map, so that a name defined twice is built once.
        if let Some(raw) = raws.remove(name.as_str()).filter(|raw| !raw.children.iter().any(|c| c.name() == "remove")) {
            steps.extend(build(&raw, tools, report));
        }
    }
    second_sessions(human_builds(recipes::bases(steps, report), report), report)
}

/// The definitions by name, with their kinds; `like` ones still without the copied children.
fn resolve<'a>(definitions: &[Node<'a>], report: &Report) -> BTreeMap<String, Raw<'a>> {
    let mut raws: BTreeMap<String, Raw<'a>> = BTreeMap::new();
    for node in definitions {
        let Some(name) = node.text() else { continue };
        if let (Some(_), Some(like)) = (node.prop("uses"), node.prop("like")) {
            report.add(
                Draft::new("two-sources", like.place(), "a step has `uses` or `like`, not both")
                    .label("one of them")
                    .help("`like` copies the kind too: leave `uses` out"),
            );
        }
        let kind = kind_of(*node, definitions, report);
        shape::check(node.children(), kind.map_or(In::AnyStep, In::Step), report);
        for stray in node.all("remove") {
            report.add(
                Draft::new("stray-remove", stray.place(), "`remove` stands in an amendment")
                    .label("removes what is defined here")
                    .help("leave the whole step out"),
            );
        }
        let Some(kind) = kind else { continue };
        let children = node.children().filter(|child| child.name() != "remove").collect();
        let name = Spanned { value: StepName::new(name.value), place: name.place };
        raws.entry(name.value.to_string()).or_insert(Raw { name, kind, children });
    }
    raws
}

fn kind_of(node: Node<'_>, definitions: &[Node<'_>], report: &Report) -> Option<Kind> {
    if let Some(uses) = node.prop("uses") {
        let word = uses.str()?;
        return Kind::ALL.into_iter().find(|kind| kind.word() == word);
    }
    let like = node.prop("like")?;
    let wanted = like.str()?;
    let named = |node: &&Node<'_>| node.arg(0).and_then(Value::str) == Some(wanted);
    let Some(other) = definitions.iter().find(named) else {
        let names = definitions.iter().filter_map(|node| node.arg(0)?.str());
        report.add(
            Draft::new("unknown-step", like.place(), format!("there is no step `{wanted}` to be like"))
                .label("not defined")
                .help(suggest(wanted, names, "step")),
        );
        return None;
    };
    if other.prop("like").is_some() {
        report.add(
            Draft::new("like-chain", like.place(), format!("`{wanted}` is itself like another step"))
                .label("no chain of `like`")
                .help("name the step that both are like"),
        );
        return None;
    }
    let word = other.prop("uses")?.str()?;
    Kind::ALL.into_iter().find(|kind| kind.word() == word)
}

/// Gives each `like` step the children of the other one, after the amendments of that.
fn copy_likes<'a>(
    definitions: &[Node<'a>],
    raws: &mut BTreeMap<String, Raw<'a>>,
    amendments: &BTreeMap<&str, Node<'a>>,
) {
    for node in definitions {
        let (Some(name), Some(like)) = (node.arg(0).and_then(Value::str), node.prop("like").and_then(Value::str))
        else {
            continue;
        };
        let Some(other) = raws.get(like) else { continue };
        let mut children = other.children.clone();
        if let Some(amendment) = amendments.get(like) {
            children = replace(children, amendment.children());
        }
        if let Some(raw) = raws.get_mut(name) {
            // What was removed there is not removed here.
            children.retain(|child| child.name() != "remove");
            raw.children = replace(children, std::mem::take(&mut raw.children).into_iter());
        }
    }
}

fn amend<'a>(raw: &mut Raw<'a>, amendment: Node<'a>, report: &Report) {
    if let Some(protect) = amendment.child("protect").filter(|_| raw.children.iter().any(|c| c.name() == "protect")) {
        report.notice(
            protect.place(),
            format!("step `{}`: these paths replace those that were protected", raw.name.value),
        );
    }
    raw.children = replace(std::mem::take(&mut raw.children), amendment.children());
}

/// Replaces children as groups: by node name, `set`, `pass` and `secret` by their variable.
fn replace<'a>(old: Vec<Node<'a>>, new: impl Iterator<Item = Node<'a>>) -> Vec<Node<'a>> {
    let new: Vec<Node<'a>> = new.collect();
    let mut all: Vec<Node<'a>> =
        old.into_iter().filter(|child| !new.iter().any(|other| group(*other) == group(*child))).collect();
    all.extend(new);
    all
}

fn group<'a>(node: Node<'a>) -> (&'a str, Option<&'a str>) {
    match node.name() {
        // One variable has one source, however it was said before.
        "set" | "pass" | "secret" => ("set", node.arg(0).and_then(Value::str)),
        name => (name, None),
    }
}

fn names(node: Option<&Node<'_>>) -> Vec<Spanned<StepName>> {
    let texts = node.map(|node| node.texts()).unwrap_or_default();
    texts.into_iter().map(|text| Spanned { value: StepName::new(text.value), place: text.place }).collect()
}

fn build(raw: &Raw<'_>, tools: &Tools<'_>, report: &Report) -> Option<Step> {
    let find = |name: &str| raw.children.iter().find(|child| child.name() == name);
    let all = |name: &'static str| raw.children.iter().copied().filter(move |child| child.name() == name);
    let env = env(raw.children.iter().copied(), report);
    let body = match raw.kind {
        Kind::Checkout => Body::Checkout,
        Kind::Environment => Body::Environment(environment(raw, tools, report)),
        Kind::Agent => Body::Agent(AgentBody {
            prompt: find("prompt").and_then(|node| {
                let path = node.prop("file")?.template()?;
                exists(&path, *node, report);
                Some((path, node.scope.dir.clone()))
            }),
            show: find("show").map(|node| node.texts()).unwrap_or_default(),
            leaks_recorded: find("leaks").and_then(|node| node.arg(0)?.str()) == Some("record"),
        }),
        Kind::Patch => Body::Patch(PatchBody {
            protect: find("protect").map(|node| node.texts()).unwrap_or_default(),
            ignore: find("ignore").map(|node| node.texts()).unwrap_or_default(),
        }),
        Kind::Test => Body::Test(Box::new(TestBody {
            against: names(find("against")).into_iter().next(),
            metrics: metrics(find("metrics").copied(), all("metric"), report),
            metric_places: all("metrics").chain(all("metric")).flat_map(Node::entries).map(Value::place).collect(),
            protocol: find("protocol").map_or_else(|| Protocol::new(Profile::Screen), |node| protocol(*node)),
            aa: find("aa").is_some(),
            human: find("with").map(|node| node.place()),
            human_build: None,
            second: find("second-session").map(|node| node.place()),
            again: None,
            run: find("run").map(|node| argv::run(*node, report)).unwrap_or_default(),
            equal: find("equal").and_then(|node| equal(*node, report)),
            checks: checks(all("check"), report),
            guards: find("guard").map(|node| guards(*node)).unwrap_or_default(),
            caches: find("caches").map(|node| caches(*node, &env, report)).unwrap_or_default(),
            services: services::services(all("service"), report),
        })),
        Kind::Classify => Body::Classify(ClassifyBody {
            judge_min_effect: find("judge").and_then(|node| node.prop("min-effect")?.percent()),
        }),
        Kind::Command => Body::Command(command(raw, report)),
    };
    Some(Step {
        name: raw.name.clone(),
        body,
        needs: once(names(find("needs")), report),
        after: once(names(find("after")), report),
        each: find("each").map(|node| node.texts()).unwrap_or_default(),
        axes: Vec::new(),
        holds: find("holds").map(|node| holds(*node)).unwrap_or_default(),
        timeout: find("timeout").and_then(|node| node.arg(0)?.span()),
        attempts: find("attempts").and_then(|node| {
            let value = node.arg(0)?;
            Some(Spanned { value: value.whole()?, place: value.place() })
        }),
        memory: find("memory").and_then(|node| node.arg(0)?.size()),
        disk: find("disk").and_then(|node| node.arg(0)?.size()),
        limit: find("limit").and_then(|node| node.arg(0)?.size()),
        env,
        sandbox: sandbox(raw, report),
    })
}

fn sandbox(raw: &Raw<'_>, report: &Report) -> SandboxDecl {
    let find = |name: &str| raw.children.iter().find(|child| child.name() == name);
    let choice = match find("sandbox").and_then(|node| node.arg(0)?.str()) {
        Some("require") => SandboxChoice::Require,
        Some("off") => SandboxChoice::Off,
        Some(_) | None => SandboxChoice::Auto,
    };
    let writes = || raw.children.iter().filter(|child| child.name() == "write");
    if let (Some(write), SandboxChoice::Off) = (writes().next(), choice) {
        report.add(
            Draft::new("write-without-sandbox", write.place(), "`write` opens a sandbox, and this step has none")
                .label("means nothing here")
                .help("leave out `sandbox off`, or this"),
        );
    }
    let paths = writes().flat_map(|node| node.args().collect::<Vec<_>>()).filter_map(|arg| Some(arg.path()?.value));
    let network = find("network").map(|node| network::hosts(*node, report));
    if let (Some(network), SandboxChoice::Off) = (&network, choice) {
        report.add(
            Draft::new(
                "network-without-sandbox",
                network.place,
                "`network` is held by a sandbox, and this step has none",
            )
            .label("would not be held")
            .help("leave out `sandbox off`, or this"),
        );
    }
    let network = network.map(|network| network.value).unwrap_or_default();
    SandboxDecl { choice, write: paths.collect(), network }
}

fn once(names: Vec<Spanned<StepName>>, report: &Report) -> Vec<Spanned<StepName>> {
    let mut seen: Vec<Spanned<StepName>> = Vec::new();
    for name in names {
        if let Some(first) = seen.iter().find(|other| other.value == name.value) {
            report.add(
                Draft::new("duplicate-name", name.place, format!("`{}` stands here twice", name.value))
                    .label("again here")
                    .other(first.place, "first here")
                    .help("leave one out"),
            );
        } else {
            seen.push(name);
        }
    }
    seen
}

/// The declared tools by name.
pub(super) struct Tools<'a> {
    all: Vec<&'a str>,
    /// Those that an interpreter which is not named may be: those that no agent runs, and all where agents run each of them.
    spare: Vec<&'a str>,
    /// The recipes of which it was said that they have to choose: a copied step has that of the other.
    doubtful: RefCell<Vec<Place>>,
    /// The names of the recipes that are declared.
    recipes: Vec<&'a str>,
    /// Those of them whose environments are images, or are built in one: no tool of this machine is their interpreter.
    boxed: Vec<&'a str>,
}

impl<'a> Tools<'a> {
    /// Those of some nodes, given the adapters that may run them.
    pub(super) fn of(tools: &[Node<'a>], agents: &[Node<'a>], recipes: &[Node<'a>]) -> Self {
        let runs = agents.iter().flat_map(|agent| agent.all("run")).flat_map(Node::templates);
        let acting: Vec<String> =
            runs.flat_map(|template| template.value.holes().map(str::to_owned).collect::<Vec<_>>()).collect();
        let all: Vec<&str> = tools.iter().filter_map(|tool| tool.arg(0)?.str()).collect();
        let acts = |name: &str| acting.iter().any(|hole| hole.strip_prefix("tool.") == Some(name));
        let spare: Vec<&str> = all.iter().copied().filter(|name| !acts(name)).collect();
        // One that runs agents too is as good an interpreter as any, where there is no other.
        let boxed = recipes.iter().filter(|recipe| super::images::is_boxed(**recipe));
        let boxed = boxed.filter_map(|recipe| recipe.arg(0)?.str()).collect();
        let recipes = recipes.iter().filter_map(|recipe| recipe.arg(0)?.str()).collect();
        let spare = if spare.is_empty() { all.clone() } else { spare };
        Self { spare, all, doubtful: RefCell::default(), recipes, boxed }
    }
}

fn environment(raw: &Raw<'_>, tools: &Tools<'_>, report: &Report) -> EnvironmentBody {
    let Some(node) = raw.children.iter().find(|child| child.name() == "recipe") else {
        report.add(
            Draft::new("missing-node", raw.name.place, format!("the environment `{}` has no `recipe`", raw.name.value))
                .label("needs a `recipe`")
                .help("add `recipe interpreter`"),
        );
        return EnvironmentBody::default();
    };
    let named = node.text().filter(|name| recipes::known(name, &tools.recipes, report));
    let recipe = named.filter(|name| name.value != recipes::INTERPRETER);
    EnvironmentBody { tool: interpreter(raw, *node, tools, report), recipe, base: None, human: false }
}

/// The tool that is the interpreter of an environment.
fn interpreter(raw: &Raw<'_>, recipe: Node<'_>, tools: &Tools<'_>, report: &Report) -> Option<Spanned<String>> {
    let known = &tools.all;
    if let Some(tool) = recipe.prop("tool") {
        let text = tool.text();
        if let Some(name) = text.as_ref().filter(|name| !known.contains(&name.value.as_str())) {
            report.add(
                Draft::new("unknown-tool", tool.place(), format!("there is no tool `{}`", name.value))
                    .label("not declared")
                    .help(suggest(&name.value, known.iter().copied(), "tool")),
            );
        }
        return text;
    }
    if recipe.arg(0).and_then(Value::str).is_some_and(|name| tools.boxed.contains(&name)) {
        return None;
    }
    match tools.spare.as_slice() {
        [] => None,
        [one] => Some(Spanned { value: (*one).to_owned(), place: recipe.place() }),
        _ if tools.doubtful.borrow().contains(&recipe.place()) => None,
        several => {
            tools.doubtful.borrow_mut().push(recipe.place());
            let name = recipe.arg(0).and_then(Value::str).unwrap_or(recipes::INTERPRETER);
            report.add(
                Draft::new(
                    "ambiguous-tool",
                    recipe.place(),
                    format!("which tool is the interpreter of `{}`?", raw.name.value),
                )
                .label(format!("{} are declared", super::flaw::list(several.iter().copied())))
                .help(format!(
                    "say it in your pipeline: step {} {{ recipe {name} tool={} }}",
                    raw.name.value,
                    several.first().unwrap_or(&"python")
                )),
            );
            None
        }
    }
}

fn protocol(node: Node<'_>) -> Protocol {
    let profile = node.text().and_then(|profile| profile.value.parse().ok()).unwrap_or(Profile::Screen);
    let default = Protocol::new(profile);
    Protocol {
        blocks_max: node.child("blocks").and_then(|node| node.prop("max")?.whole()).unwrap_or(default.blocks_max),
        time_max_ms: node.child("time").and_then(|node| node.prop("max")?.span()).map(|span| millis(span.value)),
        seed: node.child("seed").and_then(|node| node.arg(0)?.whole()).unwrap_or(default.seed),
        ..default
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn holds(node: Node<'_>) -> Vec<Hold> {
    let hold = |value: Value<'_>| {
        let kind = Spanned { value: value.key()?.into(), place: value.place() };
        let count = match value.whole::<u32>() {
            Some(n) => super::Template::literal(&n.to_string()),
            None => value.template()?.value,
        };
        Some(Hold { kind, count: Spanned { value: count, place: value.place() } })
    };
    node.entries().filter_map(hold).collect()
}

fn command(raw: &Raw<'_>, report: &Report) -> CommandBody {
    let all = |name: &'static str| raw.children.iter().copied().filter(move |child| child.name() == name);
    let run: Vec<_> = all("run").flat_map(|run| argv::run(run, report)).collect();
    if run.is_empty() {
        report.add(
            Draft::new("missing-node", raw.name.place, format!("the command `{}` has no `run`", raw.name.value))
                .label("runs nothing")
                .help("add its argv: run \"prog\" \"{in.a}\" \"{out.b}\""),
        );
    }
    unique(all("input"), "input", report);
    unique(all("output"), "output", report);
    let outputs: Vec<Output> = all("output").filter_map(|node| output(node, report)).collect();
    let mut files: BTreeMap<&str, Place> = BTreeMap::new();
    for output in &outputs {
        if let Some(first) = files.insert(&output.file.value, output.file.place) {
            report.add(
                Draft::new(
                    "duplicate-name",
                    output.file.place,
                    format!("two outputs are the file `{}`", output.file.value),
                )
                .label("again here")
                .other(first, "first here")
                .help("give each a file of its own"),
            );
        }
    }
    CommandBody { run, inputs: all("input").filter_map(|node| input(node, report)).collect(), outputs }
}

fn input(node: Node<'_>, report: &Report) -> Option<Input> {
    let name = node.text()?;
    let from = match (node.arg(1), node.prop("from")) {
        (Some(path), None) => {
            let path = path.template()?;
            exists(&path, node, report);
            InputFrom::File(path, node.scope.dir.clone())
        }
        (None, Some(from)) => {
            let (step, output) = split_source(from.str()?)?;
            InputFrom::Output {
                step: Spanned { value: StepName::new(step), place: from.place() },
                output: output.to_owned(),
            }
        }
        _ => {
            report.add(
                Draft::new("two-sources", name.place, format!("the input `{}` is a path or `from=`", name.value))
                    .label("one source")
                    .help("write `input a \"a.txt\"` or `input a from=step.output`"),
            );
            return None;
        }
    };
    Some(Input { name, from })
}

fn output(node: Node<'_>, report: &Report) -> Option<Output> {
    let file = node.arg(1)?.text()?;
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    if !std::path::Path::new(&file.value).components().all(plain) {
        report.add(
            Draft::new("bad-output", file.place, format!("`{}` leaves the place of the attempt", file.value))
                .label("must be a plain relative path")
                .help("name a file there, such as \"out.txt\"; `publish` puts a copy elsewhere"),
        );
    }
    let publish = node.prop("publish").and_then(Value::template).map(|path| (path, node.scope.dir.clone()));
    Some(Output { name: node.text()?, file, publish })
}
