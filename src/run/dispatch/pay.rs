//! The budget at work: an agent begins only if what it may cost is still there.

use super::*;
use crate::run::budget::Verdict;

/// How often agents that wait for others to tell their cost ask again: what other runs do is not told to this one.
pub(super) const ASK_BUDGET: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// What is reserved for an action, nothing for one that costs nothing. `None` if it cannot begin now: then it waits, or is
    /// over.
    pub(super) fn afford(&mut self, node: usize, key: &ActionKey) -> Option<Reserved> {
        let Some(purse) = &mut self.purse else { return Some(Reserved::default()) };
        let context = self.context.clone();
        let (states, wanted) = (&self.states, &self.options.wanted);
        let open = || {
            let is = |node: &usize| wanted[*node] && (!states.end(*node).is_over() || states.end(*node).is_open());
            (0..wanted.len()).filter(is).collect()
        };
        match purse.ask(&context.plan, node, key, &context.store, &mut self.index, &open) {
            Ok(Verdict::Pay(reserved)) => return Some(reserved),
            Ok(Verdict::Wait) => self.unpaid.push(node),
            Ok(Verdict::Busy) => {
                self.states.set(node, State::Contended);
                self.contended.push(node);
            }
            Ok(Verdict::Reached(held, event)) => {
                if let Some(event) = event {
                    self.tell(*event);
                }
                self.records.remove(&node);
                self.over(node, End::open(held));
            }
            Err(error) => self.break_off(error.to_string()),
        }
        None
    }

    /// An action that asked does not begin after all.
    pub(super) fn not_paid(&mut self) {
        if let Some(purse) = &mut self.purse {
            purse.gave_up();
        }
    }

    /// Lets those ask again that wait for others to tell their cost.
    pub(super) fn ask_budget(&mut self) {
        for node in std::mem::take(&mut self.unpaid) {
            self.make_ready(node);
        }
    }
}
