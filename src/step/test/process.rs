//! One process of a test: a fresh home and tmp, a private file for its result, and what it left read back.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::digest::Digest;
use crate::host;
use crate::hostile;
use crate::measure::{self, Arm, Contract, Equal, ProcessEnd, Sample, Values};
use crate::outcome::{Cause, Failure};
use crate::process::{self, Exit, Slip};
use crate::step::container::Where;
use crate::step::context::{OUTPUT_LIMIT, fault};
use crate::step::environment::Built;
use crate::step::processes::{Command, MARK_FD};
use crate::step::sandbox::{Holding, Network};
use crate::step::secrets::redactor;
use crate::step::test::Session;
use crate::step::test::caches;
use crate::step::test::served::{self, Together};
use crate::step::test::session::Sitting;
use crate::step::test::window::Window;

/// What a process is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// To keep the base's results for `Measure`; its times are of no use.
    Reference,
    /// To measure, and to compare its results with the kept ones where the script does that itself.
    Measure,
    /// The same, and to fill the caches of its arm.
    Fill,
}

/// The exit code by which a script says that its results are not those that it kept of the base.
const NOT_EQUAL: i32 = 5;

/// What one process gave.
pub(super) struct Ran {
    pub(super) run: Result<Sample, Failure>,
    /// The numbers that it reports, where results are compared so.
    pub(super) values: Option<Values>,
    /// Why its results are not the base's, where the script says so.
    pub(super) not_equal: Option<String>,
    pub(super) end: process::End,
    pub(super) logs: Vec<(String, Option<Digest>)>,
}

impl Session<'_> {
    /// The program and its arguments. A script of ISO-Bench that compares its results itself is told so by its own options.
    fn argv(&self, arm: Arm, result: &Path, mode: Mode, reference: Option<&str>) -> Result<Vec<String>, Failure> {
        if self.ask.argv.is_empty() {
            let script = self.script()?.display().to_string();
            let mut argv: Vec<String> = self.interpreter(arm).into_iter().chain([script]).collect();
            if let (Some(reference), Contract::Isobench) = (reference, self.ask.contract) {
                let option = if mode == Mode::Reference { "--reference" } else { "--eqcheck" };
                argv.extend([option, "--prefix", reference].map(str::to_owned));
            }
            return Ok(argv);
        }
        let places = |name: &str| match name {
            "result" => Some(result.display().to_string()),
            other => self.port_of(other, None).or_else(|| self.stands_for(arm, other)),
        };
        self.context.fill(&self.ask.argv, &places)
    }

    fn interpreter(&self, arm: Arm) -> Option<String> {
        let built = self.built(arm).ok().flatten();
        if let Some(python) = built.as_ref().and_then(Built::python) {
            return Some(python.display().to_string());
        }
        if let Some(boxed) = built.and_then(|built| built.boxed) {
            return Some(boxed.interpreter);
        }
        match self.ask.tool.as_ref().and_then(|tool| self.context.plan.facts.tools.get(tool)) {
            Some(Ok(fact)) => Some(fact.path.display().to_string()),
            _ => None,
        }
    }

    /// Where an arm's processes run.
    pub(super) fn inside(&self, arm: Arm) -> Result<Where, Failure> {
        Ok(self.built(arm)?.and_then(|built| built.boxed).map_or(Where::Here, Where::Image))
    }

    /// What a hole stands for whatever is run.
    pub(super) fn stands_for(&self, arm: Arm, name: &str) -> Option<String> {
        match name {
            "script" => self.script().ok().map(|path| path.display().to_string()),
            "interpreter" => self.interpreter(arm),
            _ => None,
        }
    }

    /// What a process of an arm is held to, given what else it writes to.
    pub(super) fn holding(&self, arm: Arm, mut own: Vec<PathBuf>) -> Result<Holding<'_>, Failure> {
        own.push(self.tree(arm)?);
        let hidden = self.hidden_caches();
        Ok(Holding {
            decl: &self.ask.sandbox,
            own,
            see: self.built(arm)?.map(|built| built.out).into_iter().collect(),
            hidden,
            unseen_tests: false,
            network: Network::None,
        })
    }

    /// Nothing that one process caches may reach the next: each starts with an empty home and an empty tmp. Caches that are kept
    /// are laid out anew.
    pub(super) fn clean(&self) -> Result<(), Failure> {
        for private in ["home", "tmp", caches::FOLDER] {
            let dir = self.place.dir.join(private);
            hostile::remove_all(&dir).map_err(|error| fault(&format!("{}: {error}", dir.display())))?;
        }
        Ok(())
    }

    pub(super) async fn once(&self, sitting: &Sitting, arm: Arm, mode: Mode) -> Result<Ran, Failure> {
        let (number, secrets) = (sitting.processes, sitting.secrets.as_slice());
        // A folder of its own: what a process leaves there, the next one does not find.
        let folder = Path::new("results").join(format!("{number}-{:016x}", nonce()));
        let results = self.context.folder(self.place, &folder.display().to_string())?;
        let result = results.join("result.json");
        let values = results.join("values");
        let label = format!("run-{number}");
        self.clean()?;
        tokio::task::block_in_place(|| self.lay_caches(&sitting.caches, arm, mode))?;
        let mut window = Window::new().map_err(|error| fault(&format!("a pipe: {error}")))?;
        let mut extra = vec![
            ("FLOW_RESULT".to_owned(), result.display().to_string()),
            ("FLOW_MARK".to_owned(), MARK_FD.to_string()),
        ];
        extra.extend(self.built_variables(arm)?);
        extra.extend(self.cache_variables());
        let mut kept = None;
        match self.ask.equal {
            Equal::Close { .. } => extra.push(("FLOW_VALUES".to_owned(), values.display().to_string())),
            Equal::Script => {
                let name = tokio::task::block_in_place(|| self.write_reference(&sitting.reference))?;
                let word = if mode == Mode::Reference { "reference" } else { "check" };
                extra.push(("FLOW_MODE".to_owned(), word.to_owned()));
                extra.push(("FLOW_REFERENCE".to_owned(), name.clone()));
                kept = Some(name);
            }
            Equal::Digest | Equal::Score { .. } => {}
        }
        let mut own = vec![results.clone(), self.place.dir.join("reference")];
        own.extend(self.cache_folders());
        let Together { argv, mut slip, timeout } =
            self.together(arm, self.argv(arm, &result, mode, kept.as_deref())?)?;
        let command = Command {
            argv,
            stdin: None,
            env: &self.ask.env,
            extra,
            secrets,
            cwd: self.tree(arm)?,
            mark: Some(window.descriptor().map_err(|error| fault(&format!("a pipe: {error}")))?),
            serve: slip.as_ref().map(Slip::descriptor),
            label: label.clone(),
            timeout,
            limit: OUTPUT_LIMIT,
            private: None,
            aside: None,
            group: false,
            inside: self.inside(arm)?,
            durable: false,
            sandbox: Some(self.holding(arm, own)?),
        };
        let oom_kills = || tokio::task::block_in_place(|| host::oom_kills(Path::new("/")));
        let killed_before = oom_kills();
        let mut end = window.during(self.context.supervised(self.place, command)).await?;
        if let Exit::Interrupted { .. } = end.exit {
            return Err(Failure::new(Cause::Interrupted, "stopped before its end"));
        }
        if let Exit::NotStarted { why } = &end.exit {
            return Err(Failure::new(Cause::NotStarted, why));
        }
        let served = slip.as_mut().and_then(Slip::answer);
        served::end_of(&mut end, served.as_ref());
        let oom_kills = oom_kills().zip(killed_before).map(|(now, before)| now.saturating_sub(before));
        tokio::task::block_in_place(|| {
            let redactor = redactor(secrets);
            let stream =
                |end: &str| self.context.stream(self.place, &format!("{label}.{end}"), OUTPUT_LIMIT, &redactor);
            let (stdout, stderr) = (stream("out"), stream("err"));
            let name = folder.join("result.json");
            let reported = hostile::read_below(&self.place.dir, &name, OUTPUT_LIMIT).ok().flatten();
            let reported = reported.map(|bytes| redactor.clean(&bytes));
            let ended = ProcessEnd {
                exit: if let Exit::Code(code) = end.exit { Some(code) } else { None },
                signal: if let Exit::Signal(signal) = end.exit { Some(signal) } else { None },
                timed_out: matches!(end.exit, Exit::TimedOut { .. }),
                wall_ms: end.wall_ms,
                oom_kills,
                stdout: &stdout,
                stderr: &stderr,
                result: reported.as_deref(),
            };
            let read = || measure::read(self.ask.contract, &ended, &self.ask.metrics);
            self.late.fetch_or(served::is_late(served.as_ref()), Ordering::Relaxed);
            let mut run = served::judged(served.as_ref(), &redactor, read)?;
            if let Ok(sample) = &mut run {
                sample.window_ms = window.open_ms();
                sample.windows = sample.window_ms.map(|_| window.count());
                sample.fills = mode == Mode::Fill;
            }
            if run.is_ok()
                && let Some(failure) = self.imported_elsewhere(arm, &ended)?
            {
                run = Err(failure);
            }
            if run.is_err() {
                // What fails for want of its environment is nobody's fault but that one's.
                self.built(arm)?;
            }
            let mut values_read = None;
            if let (Ok(_), Equal::Close { .. }) = (&run, self.ask.equal) {
                match self.values(&ended, &folder.join("values")) {
                    Ok(read) => values_read = read,
                    Err(failure) => run = Err(failure),
                }
            }
            hostile::remove_all(&results).map_err(|error| fault(&format!("{}: {error}", results.display())))?;
            let not_equal = self.not_equal(&ended, &run);
            let mut logs = self.service_logs(served.as_ref(), &redactor)?;
            logs.push(("stdout".to_owned(), self.context.keep(&stdout)?));
            logs.push(("stderr".to_owned(), self.context.keep(&stderr)?));
            Ok(Ran { run, values: values_read, not_equal, end, logs })
        })
    }
}

impl Session<'_> {
    /// Where the script says that it imported something which is neither of its tree nor, as a compiled part, of its environment:
    /// what was measured then is not what was built.
    fn imported_elsewhere(&self, arm: Arm, ended: &ProcessEnd<'_>) -> Result<Option<Failure>, Failure> {
        let imported = measure::contract::imported(ended);
        let mut said = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        if arm == Arm::Base {
            said.extend(imported.keys().cloned());
        } else if let Some(name) = said.iter().find(|name| !imported.contains_key(*name)) {
            // The script is the same in both.
            let evidence =
                format!("a process of the {arm} tree does not say where it imported {name} from, and the base's did");
            return Ok(Some(Failure::new(Cause::Tampered, &evidence)));
        }
        drop(said);
        if imported.is_empty() {
            return Ok(None);
        }
        let tree = self.tree(arm)?;
        let built = self.built(arm)?.map(|built| built.out);
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let within = |path: &Path, folder: &Path| path.starts_with(folder) || real(path).starts_with(real(folder));
        let compiled = |path: &Path| path.extension().is_some_and(|ending| ending == "so" || ending == "pyd");
        let elsewhere = imported.iter().find(|(_, path)| {
            let path = tree.join(path);
            let of_build = built.as_ref().is_some_and(|out| compiled(&path) && within(&path, out));
            !within(&path, &tree) && !of_build
        });
        Ok(elsewhere.map(|(name, path)| {
            let cause = if built.is_some() { Cause::EnvironmentFailed } else { Cause::WrongPackage };
            Failure::new(cause, &format!("{name} was imported from {path}, which is not of the tested {arm} tree"))
        }))
    }

    /// The numbers that a process reports.
    fn values(&self, ended: &ProcessEnd<'_>, file: &Path) -> Result<Option<Values>, Failure> {
        let most = u64::try_from(measure::values::VALUES_MAX).unwrap_or(u64::MAX);
        let file = hostile::read_below(&self.place.dir, file, most)
            .map_err(|error| Failure::new(Cause::NoResult, &format!("its $FLOW_VALUES cannot be read: {error}")))?;
        measure::contract::values(self.ask.contract, ended, file.as_deref())
    }

    /// Where the script compares its results itself: why they are not the base's.
    fn not_equal(&self, ended: &ProcessEnd<'_>, run: &Result<Sample, Failure>) -> Option<String> {
        if self.ask.equal != Equal::Script {
            return None;
        }
        let last = || measure::signature::last_line(ended.stderr).map(|line| format!(": {line}")).unwrap_or_default();
        match run {
            _ if ended.exit == Some(NOT_EQUAL) => {
                Some(format!("the script says that they differ (exit {NOT_EQUAL}){}", last()))
            }
            Err(failure) if failure.cause == Cause::Assertion => Some(failure.evidence.as_str().to_owned()),
            _ => None,
        }
    }
}

/// A number nobody can guess, for the name of a result file.
fn nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
