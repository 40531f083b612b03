//! A session: processes one after the other, results compared before any speed is believed, and the samples stored.
//!
//! Which process is next, and when enough were run, is said by `measure`; the loop is in `looks`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::attempt::LimitUse;
use crate::key::Value;
use crate::measure::protocol::{Profile, warm_ups};
use crate::measure::{self, Arm, Equal, Guarded, Note, Run, Stop, TestResult, Turn, Values};
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::Role;
use crate::redact::Secret;
use crate::step::done::Done;
use crate::step::pristine::Pristine;
use crate::step::test::caches::Caches;
use crate::step::test::checks::Reference;
use crate::step::test::process::{Mode, Ran};
use crate::step::test::{ASKED, CONTINUES, Session};

/// What stands for the reference where a test reports no digest.
const UNCHECKED: &str = "unchecked";

/// How often the base is asked again before a patched tree's result is called wrong.
const AGAIN: usize = 3;

/// What a session has come to so far.
pub(super) struct Sitting {
    pub(super) began: Instant,
    pub(super) runs: Vec<Run>,
    pub(super) done: Done,
    /// Why nothing is said of the human's tree, where it could not be measured.
    pub(super) human_failed: Option<Failure>,
    /// What the script kept of the base's results, where it compares them itself.
    pub(super) reference: Reference,
    /// What the warm-ups left in their arms' caches.
    pub(super) caches: Caches,
    /// The numbers that the base's first process reported, where results are compared so.
    numbers: Option<Values>,
    /// Those of processes that ran before it, and which runs they belong to.
    early: Vec<(usize, Values)>,
    /// Facts that must stand beside every figure.
    pub(super) notes: BTreeSet<Note>,
    /// What was seen of the machine in each block.
    pub(super) guarded: Option<Guarded>,
    pub(super) pristine: Pristine,
    pub(super) secrets: Vec<Secret>,
    pub(super) processes: usize,
    longest_ms: u64,
}

impl Sitting {
    /// Throws the runs of a block away, from the first of them on: the machine was disturbed. That a process of it failed says
    /// nothing then, unless it is of a kind that no disturbance brings about; `human` is whether the human's tree was still there
    /// when it began.
    pub(super) fn drop_block(&mut self, from: usize, human: bool) {
        let stands =
            |failure: &Failure| matches!(failure.cause, Cause::WrongResult | Cause::Tampered | Cause::Nondeterministic);
        self.runs[from..].iter_mut().for_each(|run| run.turn.dropped = true);
        if self.done.outcome.failure().is_some_and(|failure| !stands(failure)) {
            self.done.outcome = Outcome::Succeeded;
            self.done.outputs.remove("failed arm");
        }
        if human && self.human_failed.as_ref().is_some_and(|failure| !stands(failure)) {
            self.human_failed = None;
        }
    }
}

/// How a turn went.
pub(super) enum Took {
    /// It measured something.
    Sample,
    /// The human's tree could not be measured; the others can.
    GivenUp,
    /// The session has failed: `done` says how.
    Failed,
}

impl Session<'_> {
    pub(super) async fn measure(&self) -> Result<Done, Failure> {
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
        let mut sitting = Sitting {
            began: Instant::now(),
            runs: Vec::new(),
            done,
            human_failed: None,
            reference: Reference::new(),
            caches: Caches::default(),
            numbers: None,
            early: Vec::new(),
            notes: BTreeSet::new(),
            guarded: None,
            pristine: self.pristine()?,
            secrets,
            processes: 0,
            longest_ms: 0,
        };
        let stopped = match self.prepare(&mut sitting).await? {
            true => self.all_turns(&mut sitting).await?,
            false => None,
        };
        self.ask_the_base_again(&mut sitting).await?;
        if let Some(failure) = self.context.changed_tool(&tools) {
            return Err(failure);
        }
        self.note_limits(&mut sitting, stopped);
        if sitting.done.outcome.failure().is_none() {
            self.conclude(&mut sitting, stopped)?;
        }
        Ok(sitting.done)
    }

    /// Runs every process that is needed, and says why no more were; nothing of a gate.
    async fn all_turns(&self, sitting: &mut Sitting) -> Result<Option<Stop>, Failure> {
        let caches = !self.ask.caches.is_empty();
        if !self.compares() {
            self.turns(sitting, measure::gate(caches)).await?;
            return Ok(None);
        }
        if self.ask.counts_only() {
            let arms = self.arms();
            // Counts need no warm-up; caches need to be filled.
            let mut turns = if caches { warm_ups(&self.ask.protocol, &arms) } else { Vec::new() };
            turns.extend(measure::protocol::exact(&arms));
            self.turns(sitting, turns).await?;
            return Ok(Some(Stop::Settled));
        }
        self.looks(sitting).await
    }

    /// Before a wrong result is the agent's fault the base runs some more: a test that wobbles now and then shows it first there
    /// or here by chance.
    async fn ask_the_base_again(&self, sitting: &mut Sitting) -> Result<(), Failure> {
        let wrong = |failure: &Failure| failure.cause == Cause::WrongResult;
        let blamed = match sitting.done.outcome.failure() {
            // A script that compares by itself has its word in the outcome already; so has a check, which was asked twice.
            Some(failure) => self.ask.equal == Equal::Script && !sitting.runs.is_empty() && wrong(failure),
            None => self.compared(&sitting.runs).err().as_ref().is_some_and(wrong),
        };
        if self.ask.aa || !blamed {
            return Ok(());
        }
        let turn = Turn { arm: Arm::Base, block: 0, warmup: true, dropped: false };
        self.turns(sitting, vec![turn; AGAIN]).await
    }

    /// Runs these turns, as far as they go.
    async fn turns(&self, sitting: &mut Sitting, turns: Vec<Turn>) -> Result<(), Failure> {
        for turn in turns {
            if turn.arm == Arm::Human && sitting.human_failed.is_some() {
                continue;
            }
            if let Took::Failed = self.turn(sitting, turn).await? {
                break;
            }
        }
        Ok(())
    }

    /// Runs one turn.
    pub(super) async fn turn(&self, sitting: &mut Sitting, turn: Turn) -> Result<Took, Failure> {
        let mode = self.mode(&mut sitting.caches, turn);
        let mut ran = self.ran(sitting, turn.arm, mode).await?;
        let not_up = ran.run.as_ref().err().filter(|failure| failure.cause == Cause::ServerStartup).cloned();
        if let Some(first) = not_up {
            // One start in a dozen may fail by chance. What the first changed is found out once it was put back.
            match self.put_back(&mut sitting.pristine, turn.arm)? {
                Some(failure) => ran.run = Err(failure),
                None => {
                    ran = self.ran(sitting, turn.arm, mode).await?;
                    if ran.run.is_ok() {
                        let (arm, why) = (turn.arm, first.evidence.as_str());
                        sitting
                            .done
                            .notes
                            .push(format!("a service of the {arm} tree came up at the second try: {why}"));
                    }
                }
            }
        }
        if let Some(why) = ran.not_equal {
            ran.run = Err(match turn.arm {
                Arm::Base => {
                    Failure::new(Cause::Nondeterministic, &format!("the base's results are not its own: {why}"))
                }
                Arm::Patched if self.ask.aa => Failure::new(Cause::Nondeterministic, &why),
                Arm::Patched | Arm::Human => Failure::new(Cause::WrongResult, &why),
            });
        }
        let (arm, failure) = match (self.put_back(&mut sitting.pristine, turn.arm)?, ran.run) {
            // A human's change that spoils the other trees cannot be measured beside them: the test's to mend.
            (Some(failure), _) => (if turn.arm == Arm::Human { Arm::Base } else { turn.arm }, failure),
            (None, Ok(sample)) => {
                sitting.runs.push(Run { turn, sample });
                self.compare_numbers(sitting, turn.arm, ran.values);
                return Ok(Took::Sample);
            }
            (None, Err(failure)) if turn.arm == Arm::Human => {
                sitting.human_failed = Some(failure);
                return Ok(Took::GivenUp);
            }
            (None, Err(failure)) => (turn.arm, failure),
        };
        let stream = if failure.cause == Cause::ServerStartup { "service" } else { "stderr" };
        let log = sitting.done.logs.get(&format!("{} {stream}", turn.arm)).copied();
        sitting.done.output("failed arm", Value::text(arm.to_string()));
        sitting.done.outcome = Outcome::Failed(failure.log(log));
        Ok(Took::Failed)
    }

    /// Runs one process and keeps what it printed.
    pub(super) async fn ran(&self, sitting: &mut Sitting, arm: Arm, mode: Mode) -> Result<Ran, Failure> {
        let mut ran = self.once(sitting, arm, mode).await?;
        sitting.processes += 1;
        sitting.longest_ms = sitting.longest_ms.max(ran.end.wall_ms);
        sitting.done.held(&ran.end);
        for (name, log) in &ran.logs {
            if let Some(log) = log {
                sitting.done.logs.insert(format!("{arm} {name}"), *log);
            }
        }
        if mode == Mode::Fill
            && ran.run.is_ok()
            && let Err(failure) = tokio::task::block_in_place(|| self.keep_caches(sitting, arm))?
        {
            ran.run = Err(failure);
        }
        Ok(ran)
    }

    /// Holds the numbers of the last run against those of the base's first, and forgets them: all of a session's are too many.
    fn compare_numbers(&self, sitting: &mut Sitting, arm: Arm, values: Option<Values>) {
        let (Equal::Close { rtol, atol }, Some(values)) = (self.ask.equal, values) else { return };
        let at = sitting.runs.len() - 1;
        match &sitting.numbers {
            Some(base) => sitting.runs[at].sample.numbers = Some(values.beside(base, rtol, atol)),
            None if arm == Arm::Base => {
                sitting.runs[at].sample.numbers = Some(values.alone());
                for (early, others) in sitting.early.drain(..) {
                    sitting.runs[early].sample.numbers = Some(others.beside(&values, rtol, atol));
                }
                sitting.numbers = Some(values);
            }
            None => sitting.early.push((at, values)),
        }
    }

    /// What was used of each limit, and which of them ended it.
    fn note_limits(&self, sitting: &mut Sitting, stopped: Option<Stop>) {
        let limits = &mut sitting.done.limits;
        if let Some(timeout) = self.ask.timeout {
            let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let met = sitting.done.outcome.failure().is_some_and(|failure| failure.cause == Cause::TestTimeout);
            limits.insert("timeout".into(), LimitUse { limit, used: sitting.longest_ms, met });
        }
        let late = self.late.load(Ordering::Relaxed)
            && sitting.done.outcome.failure().is_some_and(|failure| failure.cause == Cause::ServerStartup);
        for service in self.ask.services.iter().filter(|_| late) {
            let limit = u64::try_from(service.timeout.as_millis()).unwrap_or(u64::MAX);
            limits.insert(format!("service {}", service.name), LimitUse { limit, used: limit, met: true });
        }
        let Some(stopped) = stopped.filter(|_| !self.ask.counts_only()) else { return };
        let (before_ms, before) = self.earlier.as_ref().map_or((0, 0), |earlier| (earlier.spent_ms, earlier.blocks));
        let protocol = &self.ask.protocol;
        if protocol.profile != Profile::Fixed {
            let last = sitting.runs.iter().rev().find(|run| run.turn.counts());
            let used = last.map_or(before, |run| u64::from(run.turn.block) + 1);
            let met = stopped == Stop::BlocksMax;
            limits.insert("blocks max".into(), LimitUse { limit: u64::from(protocol.most()), used, met });
        }
        if let Some(limit) = protocol.time_max_ms {
            let used = u64::try_from(sitting.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(before_ms);
            limits.insert("time max".into(), LimitUse { limit, used, met: stopped == Stop::TimeMax });
        }
    }

    /// The result of the runs so far, or why they have none. What differs now cannot agree later: no time is spent on the speed
    /// of a wrong result.
    pub(super) fn compared(&self, runs: &[Run]) -> Result<TestResult, Failure> {
        let reference = match self.inputs.has(&Role::Baseline) {
            true => Some(self.inputs.text(&Role::Baseline, "reference")?).filter(|text| *text != UNCHECKED),
            false => None,
        };
        let ask = self.ask;
        measure::conclude(ask.contract, ask.protocol, &ask.metrics, ask.equal, runs.to_vec(), reference).map_err(
            |failure| match failure.cause {
                // In A/A both trees are the base: whatever differs is the test's doing.
                Cause::WrongResult if ask.aa => Failure::new(Cause::Nondeterministic, failure.evidence.as_str()),
                _ => failure,
            },
        )
    }

    /// The runs of the measurement that this one continues.
    pub(super) fn before(&self) -> &[Run] {
        self.earlier.as_ref().map_or(&[], |earlier| &earlier.runs)
    }

    /// Compares results before any speed is believed, and stores the samples.
    fn conclude(&self, sitting: &mut Sitting, stopped: Option<Stop>) -> Result<(), Failure> {
        let (ask, done) = (self.ask, &mut sitting.done);
        let runs: Vec<Run> = self.before().iter().chain(&sitting.runs).cloned().collect();
        match self.compared(&runs) {
            Ok(mut result) => {
                result.stopped = stopped;
                result.guarded = sitting.guarded.take();
                let before = self.earlier.as_ref().and_then(|earlier| earlier.guarded.as_ref());
                if let (Some(guarded), Some(before)) = (&mut result.guarded, before) {
                    guarded.blocks.splice(..0, before.blocks.iter().cloned());
                }
                result.notes.extend(sitting.notes.iter().copied());
                if let Some(earlier) = &self.earlier {
                    result.notes.insert(measure::Note::Extended);
                    done.output(CONTINUES, Value::text(earlier.attempt.clone()));
                    if ask.asked {
                        done.output(ASKED, Value::text(format!("{} blocks", ask.protocol.most())));
                    }
                }
                self.note_caches(&sitting.caches, &mut result, done);
                if ask.aa {
                    result.notes.insert(measure::Note::SameTree);
                }
                if ask.human && self.human_unbuilt() {
                    result.notes.insert(measure::Note::HumanFailed);
                    done.notes.push("the human's tree was given up: it could not be built".to_owned());
                }
                if let Some(failure) = &sitting.human_failed {
                    result.notes.insert(measure::Note::HumanFailed);
                    done.notes.push(format!("the human's tree was given up: {}", failure.evidence.as_str()));
                } else if result.notes.contains(&measure::Note::HumanFailed) && !self.human_unbuilt() {
                    done.notes.push("the human's tree was given up: its result is not the base's".to_owned());
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
