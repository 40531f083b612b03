//! What is run before anything is measured: the script in the base once more, to keep its results where it compares them itself,
//! and the repository's own checks in the base and in the patched tree.

use std::path::Path;

use crate::hostile;
use crate::key::Value;
use crate::measure::{Arm, Equal, Note};
use crate::outcome::{Cause, Failure, Outcome};
use crate::process::Exit;
use crate::step::context::{OUTPUT_LIMIT, fault};
use crate::step::processes::Command;
use crate::step::test::Session;
use crate::step::test::process::Mode;
use crate::step::test::session::Sitting;

/// The folder of what a script keeps of the base's results, and the name that it is given there.
const FOLDER: &str = "reference";
const NAME: &str = "r";
/// The most files of a reference, and the most bytes of all of them.
const FILES_MAX: usize = 64;
const BYTES_MAX: u64 = 64 << 20;

/// The files that a script kept of the base's results, by name.
pub(super) type Reference = Vec<(String, Vec<u8>)>;

/// What a check came to in one tree.
enum Passed {
    Yes,
    /// It did not, and how.
    No(String),
    /// It changed what is not its own.
    Spoilt(Failure),
}

impl Session<'_> {
    /// What comes before the first sample; false where it failed, and `done` says how.
    pub(super) async fn prepare(&self, sitting: &mut Sitting) -> Result<bool, Failure> {
        if self.ask.equal == Equal::Script && !self.keep_reference(sitting).await? {
            return Ok(false);
        }
        if !self.compares() || self.ask.aa {
            return Ok(true);
        }
        for (number, _) in self.ask.checks.iter().enumerate() {
            if !self.check(sitting, number).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets the script keep its results of the base.
    async fn keep_reference(&self, sitting: &mut Sitting) -> Result<bool, Failure> {
        let ran = self.ran(sitting, Arm::Base, Mode::Reference).await?;
        let failure = match self.put_back(&mut sitting.pristine, Arm::Base)? {
            Some(failure) => Some(failure),
            None if ran.end.exit == Exit::Code(0) => None,
            // A process that only keeps its results need not report any.
            None => Some(ran.run.err().unwrap_or_else(|| Failure::new(Cause::NoResult, "no reference was kept"))),
        };
        let failure = match failure {
            Some(failure) => failure,
            None => match tokio::task::block_in_place(|| self.read_reference()) {
                Ok(reference) => {
                    sitting.reference = reference;
                    return Ok(true);
                }
                Err(why) => Failure::new(Cause::NoResult, &why),
            },
        };
        let log = sitting.done.logs.get("base stderr").copied();
        sitting.done.output("failed arm", Value::text(Arm::Base.to_string()));
        sitting.done.outcome = Outcome::Failed(failure.log(log));
        Ok(false)
    }

    fn read_reference(&self) -> Result<Reference, String> {
        let dir = self.place.dir.join(FOLDER);
        let none =
            || "the script kept no results of the base: with FLOW_MODE=reference it writes $FLOW_REFERENCE".to_owned();
        let entries = std::fs::read_dir(&dir).map_err(|_| none())?;
        let mut names: Vec<String> = Vec::new();
        for entry in entries.take(FILES_MAX + 1) {
            let name = entry.map_err(|error| error.to_string())?.file_name();
            names.push(name.into_string().map_err(|name| format!("{} is no name of a reference", name.display()))?);
        }
        names.sort_unstable();
        if names.is_empty() {
            return Err(none());
        }
        if names.len() > FILES_MAX {
            return Err(format!("the script kept more than {FILES_MAX} files of the base's results"));
        }
        let mut room = BYTES_MAX;
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let path = Path::new(FOLDER).join(&name);
            let bytes = hostile::read_below(&self.place.dir, &path, room)
                .map_err(|error| format!("what the script kept of the base cannot be read: {name}: {error}"))?
                .ok_or_else(none)?;
            room = room.saturating_sub(bytes.len() as u64);
            files.push((name, bytes));
        }
        Ok(files)
    }

    /// Writes the base's results anew, so that no process finds what another one made of them. The name that a script is given.
    pub(super) fn write_reference(&self, reference: &Reference) -> Result<String, Failure> {
        let dir = self.place.dir.join(FOLDER);
        let failed = |error: std::io::Error| fault(&format!("{}: {error}", dir.display()));
        hostile::remove_all(&dir).map_err(failed)?;
        std::fs::create_dir_all(&dir).map_err(failed)?;
        for (name, bytes) in reference {
            std::fs::write(dir.join(name), bytes).map_err(failed)?;
        }
        Ok(dir.join(NAME).display().to_string())
    }

    /// One of the repository's own checks; false where the session is over. What fails in the patched tree is asked once more in
    /// both: a check that fails now and then is nobody's fault.
    async fn check(&self, sitting: &mut Sitting, number: usize) -> Result<bool, Failure> {
        let mut said = Vec::new();
        for arm in [Arm::Base, Arm::Patched, Arm::Patched, Arm::Base] {
            let passed = match self.passes(sitting, arm, number).await? {
                Passed::Spoilt(failure) => {
                    sitting.done.output("failed arm", Value::text(arm.to_string()));
                    sitting.done.outcome = Outcome::Failed(failure);
                    return Ok(false);
                }
                Passed::Yes => None,
                Passed::No(how) => Some(how),
            };
            said.push(passed);
            match said.as_slice() {
                [Some(how)] => {
                    sitting.ignored(&format!("it fails in the base: {how}"));
                    return Ok(true);
                }
                [None, None] => return Ok(true),
                [None, Some(how), None] | [None, Some(how), Some(_), Some(_)] => {
                    sitting.ignored(&format!("it fails now and then: {how}"));
                    return Ok(true);
                }
                _ => {}
            }
        }
        let how = said.into_iter().flatten().next().unwrap_or_default();
        let evidence = format!("passes in the base and fails in the patched tree: {how}");
        let log = sitting.done.logs.get("patched check").copied();
        sitting.done.output("failed arm", Value::text(Arm::Patched.to_string()));
        sitting.done.outcome = Outcome::Failed(Failure::new(Cause::WrongResult, &evidence).log(log));
        Ok(false)
    }

    /// Runs a check in a tree.
    async fn passes(&self, sitting: &mut Sitting, arm: Arm, number: usize) -> Result<Passed, Failure> {
        let label = format!("check-{}", sitting.processes);
        self.context.folder(self.place, "results")?;
        sitting.processes += 1;
        self.clean()?;
        let argv = self.context.fill(&self.ask.checks[number], &|name| self.stands_for(arm, name))?;
        let what = argv.join(" ");
        let command = Command {
            argv,
            stdin: None,
            env: &self.ask.env,
            extra: self.built_variables(arm)?,
            secrets: &sitting.secrets,
            cwd: self.tree(arm)?,
            mark: None,
            serve: None,
            label: label.clone(),
            timeout: self.ask.timeout,
            limit: OUTPUT_LIMIT,
            private: None,
            aside: None,
            group: false,
            inside: self.inside(arm)?,
            durable: false,
            sandbox: Some(self.holding(arm, Vec::new())?),
        };
        let end = self.context.supervised(self.place, command).await?;
        sitting.done.held(&end);
        match &end.exit {
            Exit::Interrupted { .. } => return Err(Failure::new(Cause::Interrupted, "stopped before its end")),
            Exit::NotStarted { why } => return Err(Failure::new(Cause::NotStarted, why)),
            _ => {}
        }
        let redactor = crate::step::secrets::redactor(&sitting.secrets);
        let stream = |end: &str| self.context.stream(self.place, &format!("{label}.{end}"), OUTPUT_LIMIT, &redactor);
        let (stdout, stderr) = (stream("out"), stream("err"));
        let both = [stdout.as_slice(), stderr.as_slice()].concat();
        if let Some(log) = self.context.keep(&both)? {
            sitting.done.logs.insert(format!("{arm} check"), log);
        }
        if let Some(failure) = self.put_back(&mut sitting.pristine, arm)? {
            return Ok(Passed::Spoilt(failure));
        }
        if end.exit == Exit::Code(0) {
            return Ok(Passed::Yes);
        }
        let how = match end.exit {
            Exit::Code(code) => format!("exit {code}"),
            Exit::TimedOut { .. } => "the timeout".to_owned(),
            _ => "a signal".to_owned(),
        };
        let last = crate::measure::signature::last_line(&both).map(|line| format!(": {line}")).unwrap_or_default();
        Ok(Passed::No(format!("`{what}` ended with {how}{last}")))
    }
}

impl Sitting {
    /// Notes a check that says nothing.
    fn ignored(&mut self, why: &str) {
        self.notes.insert(Note::CheckIgnored);
        self.done.notes.push(format!("a check was left out: {why}"));
    }
}
