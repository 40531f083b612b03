//! Noisy metrics: warm-ups, then block by block until the course says that it is over or the time is up. A block in which the
//! machine was disturbed is dropped, whatever it measured, and its place in the schedule is taken again.

use std::time::{Duration, Instant};

use crate::measure::guard::{self, Block};
use crate::measure::protocol::{cold, warm_ups};
use crate::measure::{Arm, Course, Guarded, Note, Protocol, Run, Stop};
use crate::outcome::{Cause, Failure, Outcome};
use crate::step::test::Session;
use crate::step::test::session::{Sitting, Took};
use crate::step::test::watch::Watch;
use crate::text::counted;

impl Session<'_> {
    /// Runs what there is to run, and says why no more was; nothing where a process failed or the results differ, which
    /// comparing them will tell.
    pub(super) async fn looks(&self, sitting: &mut Sitting) -> Result<Option<Stop>, Failure> {
        let primary = self.ask.metrics.first().cloned().unwrap_or_else(|| self.ask.contract.default_metric());
        let mut course = Course::new(self.ask.protocol, &primary, self.with_human());
        let value = |run: &Run| Some((run.turn.arm, *run.sample.metrics.get(&primary.name)?));
        if let Err(stop) = self.replay(&mut course, &value) {
            return Ok(Some(stop));
        }
        if !self.warm_up(sitting).await? {
            return Ok(None);
        }
        let mut watch = Watch::new(self);
        let limits = self.ask.guards;
        sitting.guarded = Some(Guarded { limits, pinned: watch.pinned(), blocks: Vec::new() });
        let mut longest_block = Duration::ZERO;
        loop {
            if sitting.human_failed.is_some() {
                course.give_up(Arm::Human);
            }
            let turns = match course.next() {
                Ok(turns) => turns,
                Err(stop) => return Ok(Some(stop)),
            };
            if self.time_is_up(sitting.began.elapsed(), longest_block) {
                return Ok(Some(Stop::TimeMax));
            }
            let began = Instant::now();
            let from = sitting.runs.len();
            let watched = watch.begin().await;
            let (mut failed, human) = (false, sitting.human_failed.is_none());
            for turn in turns {
                if turn.arm == Arm::Human && sitting.human_failed.is_some() {
                    continue;
                }
                if let Took::Failed = self.turn(sitting, turn).await? {
                    failed = true;
                    break;
                }
            }
            let seen = watch.end(watched).await;
            longest_block = longest_block.max(began.elapsed());
            let broken = guard::broken(&limits, &seen);
            let disturbed = !broken.is_empty();
            if let Some(guarded) = &mut sitting.guarded {
                guarded.blocks.push(Block { block: course.blocks(), seen, broken });
            }
            if disturbed {
                sitting.drop_block(from, human);
            }
            if sitting.done.outcome.failure().is_some() || (failed && !disturbed) {
                return Ok(None);
            }
            if !disturbed {
                course.took(&sitting.runs[from..].iter().filter_map(value).collect::<Vec<_>>());
            }
            let all: Vec<Run> = self.before().iter().chain(&sitting.runs).cloned().collect();
            match self.compared(&all) {
                Ok(result) if result.notes.contains(&Note::HumanFailed) => course.give_up(Arm::Human),
                Ok(_) => {}
                Err(_) => {
                    let blocks = course.blocks();
                    sitting.done.notes.push(format!("stopped after block {blocks}: the results differ"));
                    return Ok(None);
                }
            }
            if self.too_disturbed(sitting)? {
                return Ok(None);
            }
        }
    }

    /// Whether more blocks were dropped than may be; `done` then says so. What was seen is kept as a log.
    fn too_disturbed(&self, sitting: &mut Sitting) -> Result<bool, Failure> {
        let Some(guarded) = &sitting.guarded else { return Ok(false) };
        let (dropped, borne) = (guarded.dropped(), self.ask.guards.dropped);
        if dropped <= borne as usize {
            return Ok(false);
        }
        let of = counted(guarded.blocks.len(), "block");
        let were = if dropped == 1 { "was" } else { "were" };
        let evidence = format!("{dropped} of {of} {were} dropped, {borne} may be: {}", guarded.reasons());
        let log = self.context.keep(guarded.log().as_bytes())?;
        sitting.done.logs.extend(log.map(|log| ("guards".to_owned(), log)));
        sitting.done.outcome = Outcome::Failed(Failure::new(Cause::MachineDisturbed, &evidence).log(log));
        Ok(true)
    }

    /// Takes in the blocks of the measurement that this one continues, with the looks of today's limits.
    fn replay(&self, course: &mut Course, value: &dyn Fn(&Run) -> Option<(Arm, f64)>) -> Result<(), Stop> {
        loop {
            let block = course.blocks();
            let of_block = |run: &&Run| run.turn.counts() && run.turn.block == block;
            let values: Vec<(Arm, f64)> = self.before().iter().filter(of_block).filter_map(value).collect();
            if values.is_empty() {
                return Ok(());
            }
            course.next()?;
            course.took(&values);
        }
    }

    /// Runs and throws away until every arm is warm; false where a process failed.
    async fn warm_up(&self, sitting: &mut Sitting) -> Result<bool, Failure> {
        let name = match self.ask.metrics.first() {
            Some(metric) => metric.name.clone(),
            None => self.ask.contract.default_metric().name,
        };
        // Caches are filled by a warm-up, whatever the protocol says.
        let least = self.ask.protocol.warmup.max(u32::from(!self.ask.caches.is_empty()));
        let protocol = Protocol { warmup: least, ..self.ask.protocol };
        loop {
            let values = |arm: Arm| {
                let own = sitting.runs.iter().filter(|run| run.turn.arm == arm);
                own.filter_map(|run| run.sample.metrics.get(&name).copied()).collect::<Vec<f64>>()
            };
            let given_up = |arm: Arm| arm == Arm::Human && sitting.human_failed.is_some();
            let wanted = |arm: &Arm| !given_up(*arm) && cold(&protocol, &values(*arm));
            let arms: Vec<Arm> = self.arms().into_iter().filter(wanted).collect();
            if arms.is_empty() {
                return Ok(true);
            }
            for turn in warm_ups(&protocol, &arms) {
                if let Took::Failed = self.turn(sitting, turn).await? {
                    return Ok(false);
                }
            }
        }
    }

    fn time_is_up(&self, elapsed: Duration, block: Duration) -> bool {
        let before = Duration::from_millis(self.earlier.as_ref().map_or(0, |earlier| earlier.spent_ms));
        self.ask.protocol.time_max_ms.is_some_and(|max| before + elapsed + block > Duration::from_millis(max))
    }
}
