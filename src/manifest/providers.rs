//! Providers of models and the commands of `on`: built from nodes that `shape` has checked, and checked against the candidates.
//!
//! Runs nothing and reads no secret: what a provider says is asked while a run works.

use std::collections::{BTreeMap, BTreeSet};

use super::argv::argv;
use super::flaw::{Draft, Report, suggest};
use super::holes::{Checker, Known, env_signature};
use super::node::{Node, Value};
use super::{
    Candidate, Env, Expires, ExpiresSource, Moment, On, PerMinute, Pipeline, Provider, SecretFrom, Spanned, Template,
    build, network,
};
use crate::names::ProviderName;

/// Builds the providers of all files; of two of one name, which is a flaw, the last.
pub(super) fn providers(nodes: &[Node<'_>], report: &Report) -> BTreeMap<ProviderName, Provider> {
    let built = nodes.iter().filter_map(|&node| provider(node, report));
    built.map(|provider| (provider.name.value.clone(), provider)).collect()
}

fn provider(node: Node<'_>, report: &Report) -> Option<Provider> {
    let name = node.text()?;
    let mut env = build::env(node.children(), report);
    env.secret.iter_mut().for_each(|secret| secret.of_provider = true);
    let per_minute = node.child("per-minute");
    let limit = |name: &str| per_minute?.prop(name)?.whole();
    if let Some(empty) = per_minute.filter(|node| node.entries().next().is_none()) {
        report.add(
            Draft::new("missing-property", empty.place(), "`per-minute` says nothing")
                .label("incomplete")
                .help("it is written: per-minute requests=50 tokens=400000"),
        );
    }
    Some(Provider {
        name: Spanned { value: name.value.as_str().into(), place: name.place },
        lane: node.child("lane").and_then(|node| node.arg(0)?.whole()),
        env,
        probe: node.child("probe").map(|probe| argv(probe, report)),
        expires: node.child("expires").and_then(|node| expires(node, report)),
        network: node.child("network").map(|node| network::hosts(node, report)),
        per_minute: PerMinute { requests: limit("requests"), tokens: limit("tokens") },
    })
}

fn expires(node: Node<'_>, report: &Report) -> Option<Expires> {
    let pointer = node.prop("pointer").and_then(Value::text);
    if let Some(pointer) = pointer.as_ref().filter(|pointer| !pointer.value.starts_with('/')) {
        report.add(
            Draft::new("bad-pointer", pointer.place, format!("`{}` is no JSON pointer", pointer.value))
                .label("begins with `/`")
                .help("write the names of the members, each after a `/`: pointer=\"/Credentials/Expiration\""),
        );
    }
    let command = argv(node, report);
    let source = match (node.prop("file"), command.is_empty()) {
        (Some(file), true) => ExpiresSource::File(file.template()?, node.scope.dir.clone()),
        (None, false) => ExpiresSource::Command(command),
        (Some(_), false) => {
            report.add(
                Draft::new("two-sources", node.place(), "`expires` is told by a command or by a file, not by both")
                    .label("one source")
                    .help("keep one of the two"),
            );
            return None;
        }
        (None, true) => {
            report.add(
                Draft::new("missing-argument", node.place(), "`expires` lacks its command or its file")
                    .label("incomplete")
                    .help(
                        "it is written: expires \"aws\" \"configure\" \"export-credentials\" pointer=\"/Expiration\"",
                    ),
            );
            return None;
        }
    };
    Some(Expires { source, pointer: pointer.map(|pointer| pointer.value) })
}

/// The provider that a candidate's `model` names.
pub(super) fn of_model(model: Node<'_>) -> Option<Spanned<ProviderName>> {
    let name = model.prop("provider")?.text()?;
    Some(Spanned { value: name.value.as_str().into(), place: name.place })
}

/// A candidate's `canary`.
pub(super) fn canary(node: Node<'_>) -> Option<Spanned<u32>> {
    Some(Spanned { value: node.arg(0)?.whole()?, place: node.place() })
}

/// Builds an `on`.
pub(super) fn on(node: Node<'_>, report: &Report) -> Option<On> {
    let moment = |text: Spanned<String>| match text.value.as_str() {
        "lane-closed" => Some(Moment::LaneClosed),
        "breaker" => Some(Moment::Breaker),
        "run-finished" => Some(Moment::RunFinished),
        _ => None,
    };
    let command = argv(node.child("command")?, report);
    Some(On { moments: node.texts().into_iter().filter_map(moment).collect(), command })
}

/// Checks that the providers that candidates name are declared, and notes a model that names none where none is named at all.
pub(super) fn check(pipeline: &Pipeline, report: &Report) {
    network::check(pipeline, report);
    let none_named = pipeline.candidates.iter().all(|candidate| candidate.provider.is_none());
    let model = pipeline.candidates.iter().find_map(|candidate| candidate.model.as_ref());
    if let (true, Some(model), Some(provider)) = (none_named, model, pipeline.providers.keys().next()) {
        report.notice(
            model.place,
            format!(
                "no candidate names a provider: `model \"{}\" provider={provider}` gives it that one's key and lane",
                model.value
            ),
        );
    }
    for provider in pipeline.candidates.iter().filter_map(|candidate| candidate.provider.as_ref()) {
        if !pipeline.providers.contains_key(&provider.value) {
            let known = pipeline.providers.keys().map(ProviderName::as_str);
            let help = if pipeline.providers.is_empty() {
                format!("declare it at the top of a file: provider {} {{ lane 4 }}", provider.value)
            } else {
                suggest(provider.value.as_str(), known, "provider")
            };
            report.add(
                Draft::new("unknown-provider", provider.place, format!("there is no provider `{}`", provider.value))
                    .label("not declared")
                    .help(help),
            );
        }
    }
}

/// Keeps the providers that a candidate names. Called after all are checked.
pub(super) fn keep_used(pipeline: &mut Pipeline) {
    let used: BTreeSet<ProviderName> = pipeline
        .candidates
        .iter()
        .filter_map(|candidate| candidate.provider.as_ref())
        .map(|provider| provider.value.clone())
        .collect();
    pipeline.providers.retain(|name, _| used.contains(name));
}

/// What of an environment is keyed, to tell candidates apart.
pub(super) fn keyed_signature(env: &Env) -> Vec<String> {
    env_signature(&Env { secret: Vec::new(), ..env.clone() })
}

impl Checker<'_> {
    /// A provider is asked before any commit is at hand: its texts know flow's own variables alone.
    pub(super) fn provider(&self, provider: &Provider) {
        self.env(&provider.env, &Known::new());
        if let Some(Expires { source: ExpiresSource::File(path, _), .. }) = &provider.expires {
            self.template(path, &Known::new());
        }
    }

    /// What the provider of a candidate gives its agents.
    pub(super) fn provider_env(&self, candidate: &Candidate) -> Option<&Env> {
        let name = candidate.provider.as_ref()?;
        self.pipeline.providers.get(&name.value).map(|provider| &provider.env)
    }
}

impl Pipeline {
    /// The provider of a candidate, by the candidate's index.
    #[must_use]
    pub fn provider_of(&self, candidate: usize) -> Option<&Provider> {
        self.providers.get(&self.candidates.get(candidate)?.provider.as_ref()?.value)
    }

    /// Every secret that is declared, wherever.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretFrom> {
        let agents = self.agents.values().map(|agent| &agent.env);
        let envs = agents.chain(self.candidates.iter().map(|candidate| &candidate.env));
        let envs = envs.chain(self.steps.iter().map(|step| &step.env));
        let envs = envs.chain(self.providers.values().map(|provider| &provider.env)).flat_map(|env| &env.secret);
        envs.chain(self.assets.iter().flat_map(|asset| &asset.secret))
    }
}

/// Fills a template in which only `{var.NAME}` may stand.
///
/// # Errors
/// The name of a variable that is not set.
pub fn fill_variables(template: &Template, variables: &BTreeMap<String, String>) -> Result<String, String> {
    template.fill(|hole| {
        let name = hole.strip_prefix("var.").unwrap_or(hole);
        variables.get(name).cloned().ok_or_else(|| format!("the variable {name} is not set"))
    })
}
