//! The `test` step: runs a script in fresh processes, base and patched tree in turn on one leased slot, compares results
//! before speed, and keeps the samples. What they mean is said by `classify`.
//!
//! Scripts come from the manifest, never from the tested tree. Results are read from a private file whose name is made after
//! the patch was frozen, or from stdout where the contract says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::attempt::LimitUse;
use crate::digest::Digest;
use crate::git;
use crate::hostile;
use crate::key::Value;
use crate::measure::{self, Arm, Equal, Kind, ProcessEnd, Run, Sample, TestResult, Turn};
use crate::names::ObjectId;
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{Ask, Role, TestAsk};
use crate::process::{self, Exit};
use crate::step::context::{Context, OUTPUT_LIMIT, Place, fault};
use crate::step::done::{Done, Inputs};
use crate::step::pristine::{Pristine, Touched};
use crate::step::processes::{Command, identity};
use crate::step::secrets::redactor;
use crate::step::{Draft, End};

/// What the attempts of this kind mean. From 2 on a result is one of trees, script and results that no other process of the
/// attempt had changed.
pub(super) const FORMAT: u16 = 2;

pub(super) fn draft<'a>(mut draft: Draft<'a>, ask: &TestAsk) -> Draft<'a> {
    match ask.script {
        Some(script) => draft.push("script", Value::Blob(script)),
        None if ask.runs_script() => draft.stop(End::Skipped(Cause::NoTestScript)),
        None => {}
    }
    draft.text("contract", ask.contract.to_string());
    if !ask.argv.is_empty() {
        draft.push("argv", Value::List(ask.argv.iter().map(ToString::to_string).collect()));
    }
    draft.env(&ask.env);
    let facts = &draft.plan.facts;
    draft.tools(facts, &ask.tools);
    draft.input("base tree", &Role::Checkout, "tree");
    if ask.aa {
        draft.text("arms", "base and base");
    } else {
        draft.input("tree", &Role::Patch, "tree");
    }
    draft.input("base build", &Role::Environment, "identity");
    draft.input("build", &Role::Rebuilt, "identity");
    draft.input("reference", &Role::Baseline, "reference");
    draft.push("metrics", Value::List(ask.metrics.iter().map(ToString::to_string).collect()));
    if compares(&draft, ask) && !ask.counts_only() {
        draft.text("profile", ask.protocol.profile.to_string());
        draft.text("block", format!("{:?}", ask.protocol.shape).to_lowercase());
        draft.text("seed", ask.protocol.seed.to_string());
        // Elsewhere a limit; there it says what is measured.
        let fixed = ask.protocol.profile == measure::protocol::Profile::Fixed;
        if fixed && ask.protocol.blocks_max != measure::Protocol::new(ask.protocol.profile).blocks_max {
            draft.text("blocks", ask.protocol.blocks_max.to_string());
        }
    }
    draft.record.push_some("device", ask.device.as_ref().map(Value::text));
    draft
}

fn compares(draft: &Draft<'_>, ask: &TestAsk) -> bool {
    ask.aa || draft.plan.linked(draft.node, &Role::Patch).is_some()
}

/// Measures.
pub async fn run(context: &Context, node: usize, inputs: &Inputs, place: &Place) -> Done {
    let (Ask::Test(ask), Some((repo, _))) = (&context.plan.nodes[node].ask, context.plan.nodes[node].point.commit)
    else {
        return Done::failed(fault("a test step without a commit"));
    };
    let session = Session { context, ask, inputs, place, repo };
    match session.measure().await {
        Ok(done) => done,
        Err(failure) => Done::failed(failure),
    }
}

struct Session<'a> {
    context: &'a Context,
    ask: &'a TestAsk,
    inputs: &'a Inputs,
    place: &'a Place,
    repo: usize,
}

/// What one process gave.
struct Ran {
    run: Result<Sample, Failure>,
    end: process::End,
    logs: [(&'static str, Option<Digest>); 2],
}

impl Session<'_> {
    fn compares(&self) -> bool {
        self.ask.aa || self.inputs.has(&Role::Patch)
    }

    fn schedule(&self) -> Vec<Turn> {
        if !self.compares() {
            return measure::gate();
        }
        let kind = if self.ask.counts_only() { Kind::Count } else { Kind::Time };
        measure::schedule(&self.ask.protocol, kind)
    }

    async fn measure(&self) -> Result<Done, Failure> {
        let tools: Vec<String> = self.ask.tools.iter().chain(&self.ask.tool).cloned().collect();
        if let Some(failure) = self.context.changed_tool(&tools) {
            return Err(failure);
        }
        tokio::task::block_in_place(|| self.materialise())?;
        let secrets = self.context.secrets(&self.ask.env.secrets).await?;
        let mut done = Done::succeeded();
        if let Some((arm, failure)) = self.other_program(&tools).await? {
            done.output("failed arm", Value::text(arm.to_string()));
            done.outcome = Outcome::Failed(failure);
            return Ok(done);
        }
        let mut pristine = self.pristine()?;
        let mut runs: Vec<Run> = Vec::new();
        let mut longest = 0;
        let started = Instant::now();
        let mut last_block_began = (0, Duration::ZERO);
        for (number, turn) in self.schedule().into_iter().enumerate() {
            if turn.block != last_block_began.0 {
                if self.compared(&runs).is_err() {
                    done.notes.push(format!(
                        "stopped after {} of {} blocks: the results differ",
                        turn.block,
                        self.ask.protocol.blocks()
                    ));
                    break;
                }
                let block_took = started.elapsed().saturating_sub(last_block_began.1);
                if self.time_is_up(started.elapsed(), block_took) {
                    done.notes.push(format!("stopped after {} blocks: the time limit was reached", turn.block));
                    break;
                }
                last_block_began = (turn.block, started.elapsed());
            }
            let ran = self.once(number, turn.arm, &secrets).await?;
            longest = longest.max(ran.end.wall_ms);
            for (name, log) in ran.logs {
                if let Some(log) = log {
                    done.logs.insert(format!("{} {name}", turn.arm), log);
                }
            }
            match self.put_back(&mut pristine, turn.arm)?.map_or(ran.run, Err) {
                Ok(sample) => runs.push(Run { turn, sample }),
                Err(failure) => {
                    let log = done.logs.get(&format!("{} stderr", turn.arm)).copied();
                    done.output("failed arm", Value::text(turn.arm.to_string()));
                    done.outcome = Outcome::Failed(failure.log(log));
                    break;
                }
            }
        }
        if let Some(failure) = self.context.changed_tool(&tools) {
            return Err(failure);
        }
        if let Some(timeout) = self.ask.timeout {
            let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let met = done.outcome.failure().is_some_and(|failure| failure.cause == Cause::TestTimeout);
            done.limits.insert("timeout".into(), LimitUse { limit, used: longest, met });
        }
        if done.outcome.failure().is_none() {
            self.conclude(&runs, &mut done)?;
        }
        Ok(done)
    }

    fn pristine(&self) -> Result<Pristine, Failure> {
        let arms: &[Arm] = if self.compares() { &[Arm::Base, Arm::Patched] } else { &[Arm::Base] };
        let trees: Vec<(Arm, PathBuf)> =
            arms.iter().map(|arm| Ok((*arm, self.tree(*arm)?))).collect::<Result<_, Failure>>()?;
        let script = self.ask.script.map(|_| self.script()).transpose()?;
        Pristine::of(&trees, script.as_deref()).map_err(|error| gone(&error))
    }

    /// After a process: its own tree is put back if it changed it; what it changed of others is a failure of its own.
    fn put_back(&self, pristine: &mut Pristine, arm: Arm) -> Result<Option<Failure>, Failure> {
        if !self.place.dir.join("results").is_dir() {
            return Err(fault("the attempt's place was removed while it was measured"));
        }
        match tokio::task::block_in_place(|| pristine.after(arm)).map_err(|error| gone(&error))? {
            Touched::Nothing => Ok(None),
            Touched::Others(what) if arm == Arm::Patched && !self.ask.aa => {
                let evidence = format!("a process of the patched tree changed {what}");
                Ok(Some(Failure::new(Cause::Tampered, &evidence)))
            }
            Touched::Others(what) => {
                Ok(Some(Failure::new(Cause::Exception, &format!("a process of the {arm} tree changed {what}"))))
            }
            Touched::OwnTree => {
                tokio::task::block_in_place(|| {
                    let dir = self.tree(arm)?;
                    crate::hostile::remove_all(&dir).map_err(|error| gone(&error))?;
                    self.write_arm(arm)?;
                    pristine.renew(arm).map_err(|error| gone(&error))
                })?;
                Ok(None)
            }
        }
    }

    /// A shim may start another program in a tree that says so (`.python-version`): what the key calls the interpreter would
    /// then not be what is measured. Asked anew in each tree, of scripts only: a program is itself wherever it is started.
    async fn other_program(&self, tools: &[String]) -> Result<Option<(Arm, Failure)>, Failure> {
        let facts = &self.context.plan.facts;
        let shims = tools.iter().filter_map(|tool| facts.tools.get(tool)?.as_ref().ok()).filter(|fact| fact.script);
        for fact in shims {
            let arms: &[Arm] = if self.compares() { &[Arm::Base, Arm::Patched] } else { &[Arm::Base] };
            for arm in arms {
                let tree = self.tree(*arm)?;
                let said = identity(&fact.path, &fact.probes, &self.context.machine.variables, &tree).await;
                if said.as_ref().ok() != Some(&fact.identity) {
                    let said = said.unwrap_or_else(|why| why);
                    let evidence = format!("in the {arm} tree {} is another program: {said}", fact.path.display());
                    return Ok(Some((*arm, Failure::new(Cause::OtherProgram, &evidence))));
                }
            }
        }
        Ok(None)
    }

    fn time_is_up(&self, elapsed: Duration, block: Duration) -> bool {
        self.ask.protocol.time_max_ms.is_some_and(|max| elapsed + block > Duration::from_millis(max))
    }

    /// Writes the tree of one arm.
    fn write_arm(&self, arm: Arm) -> Result<(), Failure> {
        let failed = |error: git::GitError| Failure::new(Cause::CheckoutFailed, &error.to_string());
        let mirror = self.context.mirror(self.repo)?;
        let base = ObjectId::new(self.inputs.text(&Role::Checkout, "tree")?);
        let patched = arm == Arm::Patched && self.inputs.has(&Role::Patch) && !self.ask.aa;
        let changes = match patched {
            true => self.context.changes(self.inputs.blob(&Role::Patch, "changes")?)?,
            false => git::Changes::default(),
        };
        let (blobs, cache) = (self.context.blobs(), self.context.store.inflated());
        git::write_tree(&mirror, &base, &changes, &blobs, &self.tree(arm)?, Some(&cache)).map_err(failed)?;
        Ok(())
    }

    fn materialise(&self) -> Result<(), Failure> {
        self.write_arm(Arm::Base)?;
        if self.compares() {
            self.write_arm(Arm::Patched)?;
        }
        if let Some(script) = self.ask.script {
            let path = self.script()?;
            let bytes = self.context.get(&script)?;
            std::fs::write(&path, bytes).map_err(|error| fault(&format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// The two trees' paths are equally long and alike, so that neither arm is favoured by its path.
    fn tree(&self, arm: Arm) -> Result<PathBuf, Failure> {
        self.context.folder(
            self.place,
            match arm {
                Arm::Base => "tree-a",
                Arm::Patched => "tree-b",
            },
        )
    }

    fn script(&self) -> Result<PathBuf, Failure> {
        let name = self.ask.script_path.file_name().map_or_else(|| "test".into(), std::ffi::OsStr::to_os_string);
        Ok(self.context.folder(self.place, "script")?.join(name))
    }

    fn argv(&self, result: &Path) -> Result<Vec<String>, Failure> {
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

    async fn once(&self, number: usize, arm: Arm, secrets: &[crate::redact::Secret]) -> Result<Ran, Failure> {
        let results = self.context.folder(self.place, "results")?;
        let result = results.join(format!("{number}-{:016x}.json", nonce()));
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
            let name = Path::new("results").join(result.file_name().unwrap_or_default());
            let reported = hostile::read_below(&self.place.dir, &name, OUTPUT_LIMIT).ok().flatten();
            let reported = reported.map(|bytes| redactor.clean(&bytes));
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

    /// The result of the runs so far, or why they have none. What differs now cannot agree later: no time is spent on the speed
    /// of a wrong result.
    fn compared(&self, runs: &[Run]) -> Result<TestResult, Failure> {
        let reference = match self.inputs.has(&Role::Baseline) {
            true => Some(self.inputs.text(&Role::Baseline, "reference")?).filter(|text| *text != UNCHECKED),
            false => None,
        };
        let ask = self.ask;
        measure::conclude(ask.contract, ask.protocol, &ask.metrics, Equal::Digest, runs.to_vec(), reference).map_err(
            |failure| match failure.cause {
                // In A/A both trees are the base: whatever differs is the test's doing.
                Cause::WrongResult if ask.aa => Failure::new(Cause::Nondeterministic, failure.evidence.as_str()),
                _ => failure,
            },
        )
    }

    /// Compares results before any speed is believed, and stores the samples.
    fn conclude(&self, runs: &[Run], done: &mut Done) -> Result<(), Failure> {
        let ask = self.ask;
        match self.compared(runs) {
            Ok(mut result) => {
                if ask.aa {
                    result.notes.insert(measure::Note::SameTree);
                }
                let own = result.reference.clone().unwrap_or_else(|| UNCHECKED.to_owned());
                done.output("reference", Value::text(own));
                done.output("result", Value::Blob(self.context.put(&result.encode())?));
            }
            Err(failure) => {
                let arm = if failure.cause == Cause::WrongResult { Arm::Patched } else { Arm::Base };
                done.output("failed arm", Value::text(arm.to_string()));
                done.outcome = Outcome::Failed(failure);
            }
        }
        Ok(())
    }
}

/// What is wrong with a place that cannot be looked at.
fn gone(error: &std::io::Error) -> Failure {
    fault(&format!("the attempt's place cannot be read: {error}"))
}

/// What stands for the reference where a test reports no digest.
const UNCHECKED: &str = "unchecked";

/// A number nobody can guess, for the name of a result file.
fn nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
