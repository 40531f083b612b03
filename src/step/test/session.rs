//! A session: the processes of a schedule one after the other, results compared before any speed is believed, and the samples
//! stored.

use std::time::{Duration, Instant};

use crate::attempt::LimitUse;
use crate::key::Value;
use crate::measure::{self, Arm, Equal, Kind, Run, TestResult, Turn};
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::Role;
use crate::step::done::Done;
use crate::step::test::Session;

/// What stands for the reference where a test reports no digest.
const UNCHECKED: &str = "unchecked";

impl Session<'_> {
    pub(super) fn compares(&self) -> bool {
        self.ask.aa || self.inputs.has(&Role::Patch)
    }

    fn schedule(&self) -> Vec<Turn> {
        if !self.compares() {
            return measure::gate();
        }
        let kind = if self.ask.counts_only() { Kind::Count } else { Kind::Time };
        measure::schedule(&self.ask.protocol, kind)
    }

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

    fn time_is_up(&self, elapsed: Duration, block: Duration) -> bool {
        self.ask.protocol.time_max_ms.is_some_and(|max| elapsed + block > Duration::from_millis(max))
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
