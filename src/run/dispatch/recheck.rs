//! What becomes of an attempt of which the key has an earlier one that settled it: the earlier one speaks, and where they
//! disagree that is told.

use super::*;
use crate::run::recheck::{disagreement, disagreements, is_pure};

impl Dispatcher {
    /// The attempt that spoke for a key before this run executed it again, as it reads today.
    pub(super) fn earlier(&self, node: usize, key: &ActionKey) -> Option<Arc<Ended>> {
        let attempts = self.index.attempts(key).ok()?;
        let tables = self.plan().tables(node);
        attempts.iter().map(|ended| self.context.store.today(ended, tables)).find(|ended| ended.outcome.settles())
    }

    /// The mark of an action that should be a function of its key, and of which attempts came out otherwise.
    pub(super) fn otherwise(&self, node: usize, key: &ActionKey) -> Option<String> {
        let attempts =
            Some(key).filter(|_| is_pure(self.plan().kind(node))).and_then(|key| self.index.attempts(key).ok())?;
        let unlike = attempts.len() > 1 && !disagreements(attempts.iter().map(AsRef::as_ref)).is_empty();
        unlike.then(|| format!("NONDETERMINISTIC {}", self.plan().step(node).name.value))
    }

    /// Compares an attempt with the earlier one of its key.
    pub(super) fn compare(&mut self, node: usize, earlier: &Ended, later: &Ended) {
        let outputs = disagreement(earlier, later);
        if outputs.is_empty() {
            return;
        }
        let disagreement = Disagreement {
            axes: later.axes.clone(),
            step: later.step.clone(),
            key: later.key,
            earlier: earlier.attempt.clone(),
            later: later.attempt.clone(),
            outputs,
            expected: !is_pure(self.plan().kind(node)),
        };
        if !disagreement.expected {
            self.disagreements.push(disagreement.clone());
        }
        self.tell_if_durable(Event::Disagrees(disagreement));
    }

    /// An action that was executed to see whether it comes out the same: whatever came of it, the earlier attempt speaks on.
    pub(super) fn rechecked(&mut self, node: usize, earlier: Arc<Ended>, later: &Ended) {
        self.rechecked += 1;
        self.records.remove(&node);
        if let Some(failure) = later.outcome.failure().filter(|_| !later.outcome.settles()) {
            let (title, cause) = (self.plan().title(node), failure.cause);
            let text = format!("{title} could not be executed again: {cause}: {}", failure.evidence.as_str());
            self.tell_if_durable(Event::Notice { text });
        }
        self.compare(node, &earlier, later);
        self.states.set(node, State::Over { end: End::Settled(earlier), by: By::Executed });
        self.fresh.push(Reverse(node));
    }
}
