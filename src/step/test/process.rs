//! One process of a test: a fresh home and tmp, a private file for its result, and what it left read back.

use std::path::Path;

use crate::digest::Digest;
use crate::hostile;
use crate::measure::{self, Arm, ProcessEnd, Sample};
use crate::outcome::{Cause, Failure};
use crate::process::{self, Exit};
use crate::step::context::{OUTPUT_LIMIT, fault};
use crate::step::processes::Command;
use crate::step::sandbox::Holding;
use crate::step::secrets::redactor;
use crate::step::test::Session;

/// What one process gave.
pub(super) struct Ran {
    pub(super) run: Result<Sample, Failure>,
    pub(super) end: process::End,
    pub(super) logs: [(&'static str, Option<Digest>); 2],
}

impl Session<'_> {
    pub(super) fn argv(&self, result: &Path) -> Result<Vec<String>, Failure> {
        let script = self.script()?;
        let tool = self.ask.tool.as_ref().and_then(|tool| self.context.plan.facts.tools.get(tool));
        let interpreter = match tool {
            Some(Ok(fact)) => Some(fact.path.clone()),
            _ => None,
        };
        if self.ask.argv.is_empty() {
            return Ok(interpreter.into_iter().chain([script]).map(|path| path.display().to_string()).collect());
        }
        let places = |name: &str| match name {
            "script" => Some(script.display().to_string()),
            "result" => Some(result.display().to_string()),
            "interpreter" => interpreter.as_ref().map(|path| path.display().to_string()),
            _ => None,
        };
        self.context.fill(&self.ask.argv, &places)
    }

    pub(super) async fn once(
        &self,
        number: usize,
        arm: Arm,
        secrets: &[crate::redact::Secret],
    ) -> Result<Ran, Failure> {
        // A folder of its own: what a process leaves there, the next one does not find.
        let folder = Path::new("results").join(format!("{number}-{:016x}", nonce()));
        let results = self.context.folder(self.place, &folder.display().to_string())?;
        let result = results.join("result.json");
        let label = format!("run-{number}");
        for private in ["home", "tmp"] {
            // Nothing that one process caches may reach the next: each starts with an empty home and an empty tmp.
            let dir = self.place.dir.join(private);
            hostile::remove_all(&dir).map_err(|error| fault(&format!("{}: {error}", dir.display())))?;
        }
        let end = self
            .context
            .supervised(
                self.place,
                Command {
                    argv: self.argv(&result)?,
                    stdin: None,
                    env: &self.ask.env,
                    extra: vec![("FLOW_RESULT".into(), result.display().to_string())],
                    secrets,
                    cwd: self.tree(arm)?,
                    label: label.clone(),
                    timeout: self.ask.timeout,
                    limit: OUTPUT_LIMIT,
                    private: None,
                    aside: None,
                    group: false,
                    durable: false,
                    sandbox: Some(Holding {
                        decl: &self.ask.sandbox,
                        own: vec![self.tree(arm)?, results.clone()],
                        unseen_tests: false,
                        network: None,
                    }),
                },
            )
            .await?;
        if let Exit::Interrupted { .. } = end.exit {
            return Err(Failure::new(Cause::Interrupted, "stopped before its end"));
        }
        if let Exit::NotStarted { why } = &end.exit {
            return Err(Failure::new(Cause::NotStarted, why));
        }
        tokio::task::block_in_place(|| {
            let redactor = redactor(secrets);
            let stream =
                |end: &str| self.context.stream(self.place, &format!("{label}.{end}"), OUTPUT_LIMIT, &redactor);
            let (stdout, stderr) = (stream("out"), stream("err"));
            let name = folder.join("result.json");
            let reported = hostile::read_below(&self.place.dir, &name, OUTPUT_LIMIT).ok().flatten();
            let reported = reported.map(|bytes| redactor.clean(&bytes));
            hostile::remove_all(&results).map_err(|error| fault(&format!("{}: {error}", results.display())))?;
            let ended = ProcessEnd {
                exit: if let Exit::Code(code) = end.exit { Some(code) } else { None },
                signal: if let Exit::Signal(signal) = end.exit { Some(signal) } else { None },
                timed_out: matches!(end.exit, Exit::TimedOut { .. }),
                wall_ms: end.wall_ms,
                stdout: &stdout,
                stderr: &stderr,
                result: reported.as_deref(),
            };
            let run = measure::read(self.ask.contract, &ended, &self.ask.metrics);
            let logs = [("stdout", self.context.keep(&stdout)?), ("stderr", self.context.keep(&stderr)?)];
            Ok(Ran { run, end, logs })
        })
    }
}

/// A number nobody can guess, for the name of a result file.
fn nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
