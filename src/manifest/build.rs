//! Builds the parts of a pipeline from nodes that `shape` has checked: repositories, candidates, agents, slots, tools, axes.
//!
//! Reports what one part alone can get wrong: a missing file, a name given twice. How parts fit together is `check`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::flaw::{Draft, Report, suggest};
use super::grammar::In;
use super::node::{Node, Value};
use super::read::{Top, missing, read_file};
use super::{
    Agent, Axis, Candidate, Config, Env, GivenFile, Lane, Pass, Pipeline, Repo, RepoSource, Reuse, SecretFrom,
    SecretSource, Slot, Spanned, Template, Tests, Tool, argv, assets, campaign, commits, config, goals, measured,
    money, providers, readings, recipes, types,
};
use crate::agent::Tables;
use crate::measure::Contract;
use crate::outcome::Cause;

/// The largest axis file, in bytes.
const AXIS_BYTES: u64 = 64 << 20;
/// Names that templates use for other things.
const TAKEN: &[&str] = &[
    "repo",
    "commit",
    "candidate",
    "sample",
    "var",
    "tool",
    "in",
    "out",
    "file",
    "args",
    "prompt",
    "config",
    "model",
    "work",
    "home",
    "flow",
    "human-change",
    "script",
    "interpreter",
    "result",
    "prefix",
    "secret",
    "downloads",
    "tree",
];

/// Builds all but the steps.
pub(super) fn pipeline(node: Node<'_>, top: &Top<'_>, report: &Report) -> Option<Pipeline> {
    let agents: BTreeMap<String, Agent> =
        top.agents.iter().filter_map(|&node| agent(node, report)).map(|a| (a.name.value.clone(), a)).collect();
    unique(top.agents.iter().copied(), "agent", report);
    unique(top.providers.iter().copied(), "provider", report);
    unique(top.tools.iter().copied(), "tool", report);
    for name in ["repo", "candidate", "axis"] {
        unique(node.all(name), name, report);
    }
    let slots = node.child("slots");
    let slots = || slots.into_iter().flat_map(Node::children);
    for name in ["gpu", "cpu"] {
        unique(slots().filter(|slot| slot.name() == name), name, report);
    }
    unique(slots().filter(|slot| slot.name() == "lane"), "lane", report);
    Some(Pipeline {
        name: node.text().unwrap_or_else(|| Spanned { value: "unnamed".into(), place: node.place() }),
        repos: node.all("repo").filter_map(|node| repo(node, report)).collect(),
        candidates: node.all("candidate").filter_map(|node| candidate(node, report)).collect(),
        agents,
        providers: providers::providers(&top.providers, report),
        on: node.all("on").filter_map(|node| providers::on(node, report)).collect(),
        goals: node.child("goals").map(|node| goals::goals(node, report)).unwrap_or_default(),
        calibrate: campaign::calibrate(node, report),
        rulings: node.child("rulings").map(|node| campaign::rulings(node, report)).unwrap_or_default(),
        slots: slots().filter_map(slot).collect(),
        lanes: slots().filter_map(lane).collect(),
        assets: assets::assets(&top.assets, report),
        recipes: recipes::recipes(&top.recipes, report),
        tools: top.tools.iter().filter_map(|&node| tool(node)).collect(),
        axes: node.all("axis").filter_map(|node| axis(node, report)).collect(),
        prices: money::prices(&top.prices, report),
        budget: node.child("budget").and_then(|node| money::budget(node, report)),
        confirm: node.child("confirm").and_then(|node| node.arg(0)?.money()),
        steps: Vec::new(),
    })
}

/// Reports nodes of one first argument.
pub(super) fn unique<'a>(nodes: impl Iterator<Item = Node<'a>>, what: &str, report: &Report) {
    let mut seen: BTreeMap<&str, Value<'a>> = BTreeMap::new();
    for value in nodes.filter_map(|node| node.arg(0)) {
        let Some(name) = value.str() else { continue };
        if let Some(first) = seen.get(name) {
            report.add(
                Draft::new("duplicate-name", value.place(), format!("{what} `{name}` is declared twice"))
                    .label("again here")
                    .other(first.place(), "first here")
                    .help("rename one of them, or leave it out"),
            );
        } else {
            seen.insert(name, value);
        }
    }
}

fn repo(node: Node<'_>, report: &Report) -> Option<Repo> {
    let name = node.text()?;
    let source = node.arg(1)?;
    let text = source.str()?;
    let host = text.split_once(':').map(|(host, _)| host);
    let url = text.contains("://") || host.is_some_and(|host| host.contains('@') && !host.contains('/'));
    let value = if url { RepoSource::Url(text.to_owned()) } else { RepoSource::Path(node.scope.path(text)) };
    let mut commits = node.child("commits").map(|node| commits::read(node, report)).unwrap_or_default();
    let vetted = node.child("vetted").and_then(|node| campaign::vetted(node, &mut commits, report));
    Some(Repo {
        name: Spanned { value: name.value.as_str().into(), place: name.place },
        source: Spanned { value, place: source.place() },
        commits,
        vetted,
        tests: node.all("tests").filter_map(|node| tests(node, report)).collect(),
        package: node.child("package").and_then(|node| node.text()),
    })
}

fn tests(node: Node<'_>, report: &Report) -> Option<Tests> {
    let dir = node.prop("dir")?.template()?;
    // What a variable stands for is the plan's business: `check` needs none.
    if let Ok(name) = dir.value.fill(|_| Err::<String, ()>(()))
        && let path = node.scope.path(&name)
        && !report.version.is_dir(&path)
    {
        let problem = if report.version.exists(&path) { "it is not a folder" } else { "there is no such folder" };
        missing(report, dir.place, &name, &path, problem);
    }
    Some(Tests {
        dir,
        base: node.scope.dir.clone(),
        name: node.prop("name")?.template()?,
        contract: match node.prop("contract").and_then(Value::str) {
            Some("isobench") => Contract::Isobench,
            _ => Contract::Flow,
        },
        only: node.child("only").map(Node::texts).unwrap_or_default(),
        metrics: measured::metrics(node.child("metrics"), node.all("metric"), report),
        metric_places: node
            .all("metrics")
            .chain(node.all("metric"))
            .flat_map(Node::entries)
            .map(Value::place)
            .collect(),
    })
}

fn candidate(node: Node<'_>, report: &Report) -> Option<Candidate> {
    let name = node.text()?;
    unique(node.all("file"), "file", report);
    let env = env(node.children(), report);
    Some(Candidate {
        name: Spanned { value: name.value.as_str().into(), place: name.place },
        agent: node.prop("agent")?.text()?,
        model: node.child("model").and_then(Node::text),
        provider: node.child("model").and_then(providers::of_model),
        canary: node.child("canary").and_then(providers::canary),
        config: node.child("config").and_then(|node| candidate_config(node, report)),
        samples: node.child("samples").and_then(|node| node.arg(0)?.whole()).unwrap_or(1),
        reuse: node.child("reuse").map(|node| reuse(node, report)).unwrap_or_default(),
        reuse_place: node.child("reuse").map(Node::place),
        files: node.all("file").filter_map(|node| given(node, report)).collect(),
        args: node.child("args").map(Node::templates).unwrap_or_default(),
        expect: node.child("expect").map(|node| money::expect(node, report)),
        env,
    })
}

fn reuse(node: Node<'_>, report: &Report) -> Reuse {
    let word = node.arg(0).and_then(Value::str);
    let causes: Vec<Value<'_>> = node.props("cause").collect();
    let run = node.prop("run").and_then(Value::text);
    let said = usize::from(word.is_some()) + usize::from(run.is_some());
    if said != 1 || causes.is_empty() == (word == Some("except")) {
        report.add(
            Draft::new("bad-reuse", node.place(), "`reuse` says which earlier draws stand in one of four ways")
                .label("not one of them")
                .help("write `reuse usable`, `reuse except cause=\"TOOL_OUTPUT_MISSING\"`, `reuse run=\"RUN\"` or `reuse strict`"),
        );
    }
    let mut except = Vec::new();
    for value in causes {
        let Some(name) = value.str() else { continue };
        match Cause::ALL.iter().find(|cause| cause.name() == name) {
            Some(cause) => except.push(*cause),
            None => report.add(
                Draft::new("unknown-cause", value.place(), format!("there is no cause `{name}`"))
                    .label("unknown")
                    .help(suggest(name, Cause::ALL.iter().map(|cause| cause.name()), "cause")),
            ),
        }
    }
    match (word, run) {
        (Some("strict"), _) => Reuse::Strict,
        (Some("usable"), _) => Reuse::Usable,
        (Some("except"), _) => Reuse::Except(except),
        (_, Some(run)) => Reuse::Run(run.value),
        _ => Reuse::Environment,
    }
}

fn candidate_config(node: Node<'_>, report: &Report) -> Option<Config> {
    config::read(node, report)
}

pub(super) fn given(node: Node<'_>, report: &Report) -> Option<GivenFile> {
    let path = node.arg(1)?;
    let template = path.template()?;
    let optional = node.prop("optional").and_then(Value::flag).unwrap_or(false);
    if !optional {
        exists(&template, node, report);
    }
    Some(GivenFile { name: node.text()?, path: template, dir: node.scope.dir.clone(), optional })
}

/// Reports a file that is named without holes and is not there.
pub(super) fn exists(path: &Spanned<Template>, node: Node<'_>, report: &Report) {
    if path.value.holes().next().is_some() {
        return;
    }
    let Ok(text) = path.value.fill(|_| Err::<String, ()>(())) else { return };
    let full = node.scope.path(&text);
    if !report.version.is_file(&full) {
        let problem = if report.version.exists(&full) { "it is not a regular file" } else { "there is no such file" };
        missing(report, path.place, &text, &full, problem);
    }
}

/// Builds an environment from the `set`, `pass` and `secret` among some nodes.
pub(super) fn env<'a>(nodes: impl Iterator<Item = Node<'a>>, report: &Report) -> Env {
    let mut env = Env::default();
    let mut seen: BTreeMap<String, super::Place> = BTreeMap::new();
    for node in nodes.filter(|node| matches!(node.name(), "set" | "pass" | "secret")) {
        let Some(name) = node.text() else { continue };
        if let Some(&first) = seen.get(&name.value) {
            report.add(
                Draft::new("duplicate-name", name.place, format!("the variable `{}` is given twice", name.value))
                    .label("again here")
                    .other(first, "first here")
                    .help("a variable comes from one place: keep one of the two"),
            );
            continue;
        }
        seen.insert(name.value.clone(), name.place);
        match node.name() {
            "set" => {
                let Some(value) = node.arg(1) else { continue };
                if let Some(why) = value.str().and_then(|text| config::literal_secret(&name.value, text)) {
                    report.hide(value.place());
                    report.add(
                        Draft::new("literal-secret", name.place, format!("`set {}` holds {why}", name.value))
                            .label("written out")
                            .help(format!(
                                "write `secret {0}` and set the variable, or `secret {0} file=\"…\"`; and renew the key if this file was shared",
                                name.value
                            )),
                    );
                }
                let Some(template) = value.template() else { continue };
                env.set.push((name, template));
            }
            "pass" => {
                let hash = node.prop("hash").and_then(Value::flag).unwrap_or(true);
                if hash && config::secret_name(&name.value) {
                    // What is hashed stands in a key record, on disk and in what `why` prints.
                    report.add(
                        Draft::new("passed-secret", name.place, format!("`pass {}` would store a secret", name.value))
                            .label("a secret, by its name")
                            .help(format!("write `secret {0}`; or, if it is none, `pass {0} hash=#false`", name.value)),
                    );
                }
                let optional = node.prop("optional").and_then(Value::flag).unwrap_or(false);
                env.pass.push(Pass { name, hash, optional });
            }
            _ => {
                let file = node.prop("file").and_then(Value::path);
                let command = node.child("command").map(|command| argv::argv(command, report));
                let source = match (file, command) {
                    (Some(file), Some(_)) => {
                        report.add(
                            Draft::new("two-sources", file.place, "a secret comes from a file or a command, not both")
                                .label("one source")
                                .help("keep one of the two"),
                        );
                        continue;
                    }
                    (Some(file), None) => SecretSource::File(file.value),
                    (None, Some(argv)) => SecretSource::Command(argv),
                    (None, None) => SecretSource::Variable,
                };
                env.secret.push(SecretFrom { name, source, of_provider: false });
            }
        }
    }
    env
}

fn agent(node: Node<'_>, report: &Report) -> Option<Agent> {
    Some(Agent {
        name: node.text()?,
        run: node.child("run").map(|run| argv::run(run, report)).unwrap_or_default(),
        stdin: node.child("stdin").and_then(|node| node.arg(0)?.template()),
        version: node.child("version").and_then(Node::text),
        env: env(node.children(), report),
        trajectory: node.child("trajectory").and_then(Node::text),
        free: node.child("free").is_some(),
        keep: readings::keep(node, report),
        reading: Arc::new(Tables::new(
            readings::table(node, report),
            node.child("run").map(Node::templates).into_iter().flatten().map(|word| word.value.to_string()),
        )),
    })
}

fn slot(node: Node<'_>) -> Option<Slot> {
    if node.name() == "lane" || In::Slots.form(node.name()).is_none() {
        return None;
    }
    let cores = node.prop("cores").and_then(Value::str).map(types::parse_cores);
    let cores = cores.and_then(Result::ok).unwrap_or_default();
    let kind = Spanned { value: node.name().into(), place: node.place() };
    Some(Slot {
        kind,
        name: node.text()?,
        cores,
        hourly: node.prop("hourly").and_then(|hourly| Some(hourly.money()?.value)),
    })
}

fn lane(node: Node<'_>) -> Option<Lane> {
    let name = node.text().filter(|_| node.name() == "lane")?;
    let name = Spanned { value: name.value.as_str().into(), place: name.place };
    Some(Lane { name, width: node.arg(1)?.whole()? })
}

fn tool(node: Node<'_>) -> Option<Tool> {
    Some(Tool {
        name: node.text()?,
        path: node.arg(1)?.template()?,
        dir: node.scope.dir.clone(),
        probes: node
            .all("probe")
            .map(|probe| Spanned {
                place: probe.place(),
                value: probe.templates().into_iter().map(|template| template.value).collect(),
            })
            .collect(),
        watch: node.all("watch").flat_map(Node::templates).collect(),
        source: node.child("source").and_then(|node| node.arg(0)?.template()),
    })
}

fn axis(node: Node<'_>, report: &Report) -> Option<Axis> {
    let name = node.text()?;
    if TAKEN.contains(&name.value.as_str()) {
        report.add(
            Draft::new("taken-name", name.place, format!("an axis cannot be called `{}`", name.value))
                .label("has a meaning of its own")
                .help("choose another name"),
        );
    }
    let mut values: Vec<(String, super::Place)> =
        node.args().skip(1).filter_map(Value::text).map(|text| (text.value, text.place)).collect();
    match (node.prop("file"), values.is_empty()) {
        (Some(file), false) => report.add(
            Draft::new("two-sources", file.place(), "an axis has its values as arguments or in a file, not both")
                .label("one source")
                .help("keep one of the two"),
        ),
        (Some(file), true) => {
            let path = file.path()?;
            match read_file(report, &path.value, AXIS_BYTES) {
                Err(problem) => missing(report, path.place, file.str()?, &path.value, &problem),
                Ok(text) => {
                    let shown = report.shown(path.place.file, file.str()?);
                    let index = report.add_file(path.value, shown, text.as_str().into());
                    let mut offset = 0;
                    for line in text.split('\n') {
                        let value = line.trim();
                        if !value.is_empty() && !value.starts_with('#') {
                            let place = super::Place { file: index, offset, len: line.len() };
                            values.push((value.to_owned(), place));
                        }
                        offset += line.len() + 1;
                    }
                    if values.is_empty() {
                        report.add(
                            Draft::new("no-values", path.place, format!("axis `{}` has no values", name.value))
                                .label("an empty file")
                                .help("write one value a line"),
                        );
                    }
                }
            }
        }
        (None, true) => report.add(
            Draft::new("no-values", name.place, format!("axis `{}` has no values", name.value))
                .label("nothing to go over")
                .help("write `axis n \"1\" \"2\"` or `axis n file=\"n.txt\"`"),
        ),
        (None, false) => {}
    }
    let mut seen: BTreeMap<&str, super::Place> = BTreeMap::new();
    for (value, place) in &values {
        if let Some(first) = seen.get(value.as_str()) {
            report.add(
                Draft::new("duplicate-name", *place, format!("axis `{}` has the value `{value}` twice", name.value))
                    .label("again here")
                    .other(*first, "first here")
                    .help("leave one out"),
            );
        }
        seen.insert(value, *place);
    }
    Some(Axis { name, values: values.into_iter().map(|(value, _)| value).collect() })
}
