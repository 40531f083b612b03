//! What a test step asks for at one point: its script, and how it is measured.

use super::expand::{Expander, keep};
use super::*;
use crate::manifest::{Body, Pipeline, Tests, clean};
use crate::plan::scope::{Scope, tools_in};

impl Expander<'_> {
    pub(super) fn test(&mut self, step: usize, decl: &Step, point: &Point, missing: &mut Vec<Missing>) -> Ask {
        let manifest = self.manifest;
        let pipeline = &manifest.pipeline;
        let like = self.bound[step].like.map_or(decl, |like| &pipeline.steps[like]);
        let (Body::Test(body), Body::Test(shape)) = (&decl.body, &like.body) else {
            unreachable!("`against` names a test step, and this is one")
        };
        let tests = point.commit.and_then(|(repo, commit)| tests_for(pipeline, repo, commit));
        let (script_path, script) = tests.and_then(|tests| self.script(tests, point, missing)).unwrap_or_default();
        let contract = tests.map_or(Contract::Flow, |tests| tests.contract);
        let metrics = [&shape.metrics, &body.metrics]
            .into_iter()
            .find(|metrics| !metrics.is_empty())
            .cloned()
            .or_else(|| tests.map(|tests| tests.metrics.clone()).filter(|metrics| !metrics.is_empty()))
            .unwrap_or_else(|| vec![contract.default_metric()]);
        let argv = self.argv(point, if body.run.is_empty() { &shape.run } else { &body.run }, missing);
        let tools = tools_in(&argv);
        self.want_tools(&tools, missing);
        let environment = self.bound[step].links.iter().find(|(role, _)| *role == Role::Environment);
        let of_environment = environment.and_then(|(_, up)| match &pipeline.steps[*up].body {
            Body::Environment(environment) => environment.tool.as_ref().map(|tool| tool.value.clone()),
            _ => None,
        });
        let acts = |name: &str| {
            let runs = pipeline.agents.values().flat_map(|agent| &agent.run);
            runs.flat_map(|template| template.value.holes()).any(|hole| hole.strip_prefix("tool.") == Some(name))
        };
        let spare: Vec<_> = pipeline.tools.iter().filter(|tool| !acts(&tool.name.value)).collect();
        // One that runs agents too is as good an interpreter as any, where there is no other.
        let only_tool = match (spare.as_slice(), pipeline.tools.as_slice()) {
            ([tool], _) => Some(tool.name.value.clone()),
            ([], [tool]) => Some(tool.name.value.clone()),
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
            protocol: shape.protocol,
            aa: body.aa,
            tool: of_environment.or(only_tool),
            tools,
            env,
            timeout: decl.timeout.as_ref().map(|timeout| timeout.value),
            device,
        }))
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
        if found.1.is_none() && !dir.is_dir() {
            missing.push(Missing {
                what: format!("the folder of test scripts {} is not there", dir.display()),
                hint: "put the scripts there, or correct `tests dir=`".into(),
                place: Some(tests.dir.place),
                fatal: true,
            });
        }
        Some(found)
    }
}

/// The tests of a commit: the first declaration whose `only` holds it, or that is for all.
fn tests_for(pipeline: &Pipeline, repo: usize, commit: usize) -> Option<&Tests> {
    let repo = &pipeline.repos[repo];
    let id = &repo.commits[commit].id.value;
    repo.tests.iter().find(|tests| {
        tests.only.is_empty() || tests.only.iter().any(|only| id.starts_with(&only.value) || only.value.starts_with(id))
    })
}
