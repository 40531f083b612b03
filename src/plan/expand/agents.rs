//! What an agent's action asks for: prompt, config, files and argv, with the candidate's over the adapter's.

use std::collections::BTreeMap;

use super::*;

impl Expander<'_> {
    pub(super) fn agent(&mut self, decl: &Step, point: &Point, missing: &mut Vec<Missing>) -> Ask {
        let manifest = self.manifest;
        let pipeline = &manifest.pipeline;
        let (Some(candidate), Body::Agent(body)) =
            (point.candidate.map(|index| &pipeline.candidates[index]), &decl.body)
        else {
            return Ask::Agent(Box::new(AgentAsk { sample: 1, ..AgentAsk::default() }));
        };
        let adapter: Option<&Agent> = pipeline.agents.get(&candidate.agent.value);
        let mut files = BTreeMap::new();
        for given in &candidate.files {
            let digest = if given.optional {
                self.file(&given.path, &given.dir, point, missing).and_then(|(_, digest)| digest)
            } else {
                self.needed_file(&given.path, &given.dir, point, missing)
            };
            files.insert(given.name.value.clone(), digest);
        }
        let config = candidate.config.as_ref().map(|config| {
            let value = serde_json::to_vec(&config.value).unwrap_or_default();
            (self.intake.bytes(value), self.intake.bytes(config.bytes.to_vec()), config.file.value.clone())
        });
        let args = self.argv(point, &candidate.args, missing);
        let mut argv = Vec::new();
        for template in adapter.map(|adapter| adapter.run.as_slice()).unwrap_or_default() {
            if template.value.sole_hole() == Some("args") {
                argv.extend(args.iter().cloned());
            } else {
                argv.extend(self.argv(point, std::slice::from_ref(template), missing));
            }
        }
        let stdin = adapter.and_then(|adapter| adapter.stdin.as_ref());
        let stdin = self.argv(point, stdin.map(std::slice::from_ref).unwrap_or_default(), missing).pop();
        // What nothing of the adapter's asks for is not laid out for it, so that no edit of it draws it again.
        let asks = |part: &Template| part.holes().any(|hole| matches!(hole, "prompt" | "prompt-text"));
        let prompt = body.prompt.as_ref().filter(|_| argv.iter().chain(&stdin).any(asks));
        let prompt = prompt.and_then(|(path, dir)| {
            let digest = self.needed_file(path, dir, point, missing)?;
            self.rendered_prompt(digest, path, &body.show, point, missing)
        });
        let tools = tools_in(&argv);
        self.want_tools(&tools, missing);
        let mut envs = vec![&decl.env, &candidate.env];
        let mut sandbox = decl.sandbox.clone();
        if let Some(provider) = point.candidate.and_then(|candidate| pipeline.provider_of(candidate)) {
            envs.insert(0, &provider.env);
            sandbox.network.extend(provider.network.iter().flat_map(|network| network.value.iter().cloned()));
        }
        sandbox.network.sort();
        sandbox.network.dedup();
        if let Some(adapter) = adapter {
            envs.insert(0, &adapter.env);
        }
        Ask::Agent(Box::new(AgentAsk {
            sample: point.sample.unwrap_or(1),
            prompt,
            config,
            model: candidate.model.as_ref().map(|model| model.value.clone()),
            leaks_recorded: body.leaks_recorded,
            sandbox,
            human_change: argv.iter().chain(&stdin).any(|part| part.holes().any(|hole| hole == "human-change")),
            argv,
            stdin,
            files,
            version: adapter.and_then(|adapter| adapter.version.as_ref()).map(|version| version.value.clone()),
            env: self.env(point, &envs, missing),
            tools,
            timeout: decl.timeout.as_ref().map(|timeout| timeout.value),
            limit: decl.limit.as_ref().map(|limit| limit.value),
            trajectory: adapter.and_then(|adapter| adapter.trajectory.as_ref()).map(|file| file.value.clone()),
            free: adapter.is_some_and(|adapter| adapter.free),
            keep: adapter.map(|adapter| adapter.keep.clone()).unwrap_or_default(),
            reading: adapter.map(|adapter| adapter.reading.clone()).unwrap_or_default(),
        }))
    }

    fn rendered_prompt(
        &mut self,
        digest: Digest,
        path: &Spanned<Template>,
        show: &[Spanned<String>],
        point: &Point,
        missing: &mut Vec<Missing>,
    ) -> Option<Digest> {
        let text = String::from_utf8_lossy(self.intake.get(&digest)?).into_owned();
        let refuse = |what: String| Missing {
            what,
            hint: "correct the prompt's file".into(),
            place: Some(path.place),
            fatal: true,
        };
        let template = match Template::parse(&text) {
            Ok(template) => Spanned { value: template, place: path.place },
            Err(error) => {
                missing.push(refuse(format!("the prompt `{}` is no template: {error}", path.value)));
                return None;
            }
        };
        let built_in = ["id", "id8", "base", "subject"];
        for column in template.value.holes().filter_map(|hole| hole.strip_prefix("commit.")) {
            if !built_in.contains(&column) && !show.iter().any(|shown| shown.value == column) {
                missing.push(refuse(format!(
                    "the prompt `{}` uses `{{commit.{column}}}`, which is not shown",
                    path.value
                )));
            }
        }
        let scope = Scope { manifest: self.manifest, facts: self.facts, point };
        let rendered = keep(scope.text(&template), missing)?;
        Some(self.intake.bytes(rendered.into_bytes()))
    }
}
