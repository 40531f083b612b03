//! Finished agents of runs that died for which nobody asks any more, because what they were given is another since: they get
//! their end, with what they used. What a later run of the manifest may still ask for is left.

use super::*;
use crate::run::execute::{alive, discard, place_of};
use crate::step::secrets::remove_private;
use crate::store::StoreError;

impl Dispatcher {
    /// Writes their ends, once all is over that could have adopted them.
    pub(super) fn end_orphans(&mut self) {
        if self.options.pure || self.draining.is_some() || self.broken.is_some() {
            return;
        }
        if let Err(error) = self.write_ends() {
            self.tell(Event::Notice { text: format!("what runs that died left is not cleared: {error}") });
        }
    }

    fn write_ends(&mut self) -> Result<(), StoreError> {
        let context = self.context.clone();
        let mut ended = 0;
        for orphan in self.orphans()? {
            // Another run may ask for it at this moment, or have ended it since this one looked.
            let Some(lock) = context.store.locks.try_lock(&orphan.key)? else { continue };
            self.index.refresh()?;
            if !self.index.unfinished()?.iter().any(|open| open.attempt == orphan.attempt) {
                continue;
            }
            let end = interrupted(&context.store, &orphan, &self.run);
            self.index.add(Arc::new(end.clone()));
            self.write(Line::Ended(end), Token::Orphan { attempt: orphan.attempt, lock });
            ended += 1;
        }
        if ended > 0 {
            let what = if ended == 1 { "1 agent".to_owned() } else { format!("{ended} agents") };
            let text = format!(
                "{what} of runs that died had finished, but what it was given has changed since: what it used is on the ledger, \
                 what it left is removed"
            );
            self.tell(Event::Notice { text });
        }
        Ok(())
    }

    /// The agents of dead runs of this pipeline that no action of the plan asks for, nor may ask for in a run that wants more.
    fn orphans(&self) -> Result<Vec<Started>, StoreError> {
        let plan = self.plan();
        let agents: Vec<usize> = (0..plan.nodes.len()).filter(|node| plan.kind(*node) == Kind::Agent).collect();
        let mut orphans = Vec::new();
        for started in self.index.unfinished()? {
            let own = started.kind == Kind::Agent.word()
                && started.pipeline.as_ref() == Some(&plan.manifest.pipeline.name.value)
                && started.run != self.run;
            if !own || alive(&self.context.store, &started.run)? {
                continue;
            }
            let key = |node: &usize| self.states.key(*node);
            let same = |node: &&usize| {
                plan.nodes[**node].axes == started.axes && plan.step(**node).name.value.as_str() == started.step
            };
            // Under another name a candidate has the same keys, so that without its point all have to be known.
            let known = match agents.iter().find(same) {
                Some(node) => key(node).is_some(),
                None => agents.iter().all(|node| key(node).is_some()),
            };
            if known && !agents.iter().any(|node| key(node) == Some(started.key)) {
                orphans.push(started);
            }
        }
        Ok(orphans)
    }

    /// The end of one is on disk: nothing is left to be read.
    pub(super) fn clear_orphan(&self, attempt: &AttemptId) {
        remove_private(&self.context.machine, attempt.as_str());
        discard(&self.context.store, &place_of(&self.context.store, attempt));
    }
}
