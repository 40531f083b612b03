//! Checks that what a candidate gives reaches its agent, that the agent gets what it uses, and that no two are the same.
//!
//! An extension of `holes` for candidates; reads no file.

use std::collections::BTreeSet;

use super::flaw::{Draft, suggest};
use super::holes::{AGENT, Checker, Known, env_signature, env_templates, of_step};
use super::providers::keyed_signature;
use super::{Agent, Body, Candidate, Place, Spanned, Template};

impl Checker<'_> {
    pub(super) fn candidate(&self, candidate: &Candidate, plain: &Known) {
        let Some(agent) = self.pipeline.agents.get(&candidate.agent.value) else { return };
        let name = &candidate.name.value;
        let mut known = plain.clone();
        known.extend(AGENT.iter().filter(|word| **word != "args").map(ToString::to_string));
        known.extend(candidate.files.iter().map(|file| format!("file.{}", file.name.value)));
        for arg in &candidate.args {
            self.template(arg, &known);
            self.columns(arg, None);
        }
        for file in &candidate.files {
            self.template(&file.path, plain);
            self.columns(&file.path, None);
        }
        self.env(&candidate.env, plain);
        let templates = || {
            agent
                .run
                .iter()
                .chain(&agent.stdin)
                .chain(&candidate.args)
                .map(|arg| &arg.value)
                .chain(env_templates(&agent.env).map(|t| &t.value))
        };
        let used: BTreeSet<&str> = templates().flat_map(Template::holes).collect();
        let unused = |what: &str, place: Place, help: String| {
            self.report.add(
                Draft::new("unused", place, format!("agent `{}` never uses {what}", agent.name.value))
                    .label("would not reach the agent")
                    .help(help),
            );
        };
        for file in &candidate.files {
            let hole = format!("file.{}", file.name.value);
            if !used.contains(hole.as_str()) {
                let files: Vec<&str> = used.iter().filter_map(|name| name.strip_prefix("file.")).collect();
                unused(&format!("`{{{hole}}}`"), file.name.place, suggest(&file.name.value, files, "file"));
            }
        }
        if let Some(config) = candidate.config.as_ref().filter(|_| !used.contains("config")) {
            unused("`{config}`", config.file.place, "use \"{config}\" in its `run`, or leave the config out".into());
        }
        if let Some(first) = candidate.args.first().filter(|_| !used.contains("args")) {
            unused("`{args}`", first.place, "use \"{args}\" in its `run`, or leave the args out".into());
        }
        let lacks = |hole: &str, there: bool, help: &str| {
            if used.contains(hole) && !there {
                self.report.add(
                    Draft::new("missing-part", candidate.name.place, format!("`{name}` has no {hole}"))
                        .label(format!("agent `{}` uses `{{{hole}}}`", agent.name.value))
                        .help(help),
                );
            }
        };
        // One that could not be read has been reported.
        let unread =
            ["duplicate-key", "bad-config", "missing-file", "unknown-ending"].iter().any(|code| self.report.has(code));
        lacks("config", unread || candidate.config.is_some(), "add `config \"file.yaml\"` to the candidate");
        lacks("model", candidate.model.is_some(), "add `model \"…\"` to the candidate");
        let prompts =
            self.pipeline.steps.iter().any(|step| matches!(&step.body, Body::Agent(body) if body.prompt.is_some()));
        for hole in ["prompt", "prompt-text"] {
            lacks(hole, prompts, "add `prompt file=\"…\"` to the agent step");
        }
        self.secrets(candidate, agent);
    }

    /// Secrets that a config asks for must be declared.
    fn secrets(&self, candidate: &Candidate, agent: &Agent) {
        let Some(config) = &candidate.config else { return };
        let steps = self.pipeline.steps.iter().filter(|step| matches!(step.body, Body::Agent(_))).map(|step| &step.env);
        let envs = steps.chain([&candidate.env, &agent.env]).chain(self.provider_env(candidate));
        let known: BTreeSet<&str> = envs.flat_map(|env| &env.secret).map(|secret| secret.name.value.as_str()).collect();
        let text = config.value.to_string();
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for after in text.split("{secret.").skip(1) {
            let Some((name, _)) = after.split_once('}') else { continue };
            if !known.contains(name) && told.insert(name) {
                self.report.add(
                    Draft::new(
                        "unknown-secret",
                        config.file.place,
                        format!("the config uses `{{secret.{name}}}`, which is not declared"),
                    )
                    .label("in this file")
                    .help(format!(
                        "add `secret {name}` to the candidate or to its provider; {}",
                        suggest(name, known.iter().copied(), "secret")
                    )),
                );
            }
        }
    }

    /// Two candidates that are the same in all that their keys hold.
    pub(super) fn twins(&self) {
        let steps = self.pipeline.steps.iter().filter(|step| matches!(step.body, Body::Agent(_)));
        let named = steps.flat_map(of_step).any(|hole| hole == "candidate.name");
        let mut seen: Vec<(String, &Candidate)> = Vec::new();
        for candidate in &self.pipeline.candidates {
            let Some(agent) = self.pipeline.agents.get(&candidate.agent.value) else { continue };
            let mut parts: Vec<String> =
                agent.run.iter().chain(&agent.stdin).chain(&candidate.args).map(|arg| arg.value.to_string()).collect();
            parts.extend(env_signature(&agent.env));
            parts.extend(env_signature(&candidate.env));
            parts.extend(self.provider_env(candidate).into_iter().flat_map(keyed_signature));
            parts.extend(
                candidate
                    .files
                    .iter()
                    .map(|file| format!("{} {}/{}", file.name.value, file.dir.display(), file.path.value)),
            );
            if named || parts.iter().any(|part| part.contains("{candidate.name}")) {
                parts.push(candidate.name.value.to_string());
            }
            let text = |text: Option<&Spanned<String>>| text.map(|text| text.value.clone());
            let config = candidate.config.as_ref().map(|config| config.value.to_string());
            let sign =
                format!("{parts:?} {:?} {:?} {config:?}", text(agent.version.as_ref()), text(candidate.model.as_ref()));
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == sign) {
                self.report.add(
                    Draft::new(
                        "twin",
                        candidate.name.place,
                        format!("`{}` is the same as `{}`", candidate.name.value, first.name.value),
                    )
                    .label("nothing that is keyed differs")
                    .other(first.name.place, "the same as this")
                    .help(format!("for a second draw write `samples 2` in `{}`", first.name.value)),
                );
            } else {
                seen.push((sign, candidate));
            }
        }
    }
}
