//! What actions at work tell of themselves, for who watches.

use jiff::Timestamp;

use super::*;

impl Dispatcher {
    /// Tells how far an action is, unless it is over. Not an event of the journal: nothing follows from it.
    pub(super) fn pass_on(&mut self, Progress { node, line, wall_ms }: Progress) {
        if !matches!(self.states.get(node), State::Running) {
            return;
        }
        let (axes, step) = (self.plan().nodes[node].axes.clone(), self.plan().step(node).name.value.to_string());
        let told = Told { event: Event::ActionProgress { node, axes, step, line, wall_ms }, at: Timestamp::now() };
        for observer in &mut self.observers {
            observer.see(&told);
        }
    }
}
