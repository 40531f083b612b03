//! Events on their way to those who watch: told in the order in which they came about, none before the record that it speaks of
//! is durable.
//!
//! Without this a job's class could be told before the attempt that says it, and a reader of the journal would meet effects
//! before their causes. Does not decide what is durable: the dispatcher says so.

use std::collections::VecDeque;

use crate::event::Told;

/// An event that waits for its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

enum Hold {
    Free,
    Follows,
    Waiting,
    Dropped,
}

/// Events not told yet.
#[derive(Default)]
pub struct Outbox {
    first: u64,
    queue: VecDeque<(Told, Hold)>,
    lost: bool,
}

impl Outbox {
    /// Adds an event that may be told as soon as those before it are.
    pub fn push(&mut self, told: Told) {
        self.queue.push_back((told, Hold::Free));
    }

    /// Adds an event that is told only if no record before it was lost.
    pub fn follow(&mut self, told: Told) {
        self.queue.push_back((told, Hold::Follows));
    }

    /// Adds an event that waits for its record.
    pub fn hold(&mut self, told: Told) -> Ticket {
        self.queue.push_back((told, Hold::Waiting));
        Ticket(self.first + self.queue.len() as u64 - 1)
    }

    /// The record of an event is durable, or never will be: then it is not told.
    pub fn release(&mut self, ticket: Ticket, durable: bool) {
        let index = ticket.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some((_, hold)) = index.and_then(|index| self.queue.get_mut(index)) {
            *hold = if durable { Hold::Free } else { Hold::Dropped };
        }
    }

    /// No record that is waited for will become durable any more.
    pub fn abandon(&mut self) {
        for (_, hold) in self.queue.iter_mut().filter(|(_, hold)| matches!(hold, Hold::Waiting)) {
            *hold = Hold::Dropped;
        }
    }

    /// The next event that may be told.
    pub fn pop(&mut self) -> Option<Told> {
        while let Some((_, hold)) = self.queue.front() {
            if matches!(hold, Hold::Waiting) {
                return None;
            }
            self.first += 1;
            match self.queue.pop_front() {
                Some((told, Hold::Free)) => return Some(told),
                Some((told, Hold::Follows)) if !self.lost => return Some(told),
                Some((_, Hold::Dropped)) => self.lost = true,
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::Event;

    fn note(text: &str) -> Told {
        Told { event: Event::Notice { text: text.into() }, at: Timestamp::UNIX_EPOCH }
    }

    fn told(outbox: &mut Outbox) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(Told { event: Event::Notice { text }, .. }) = outbox.pop() {
            all.push(text);
        }
        all
    }

    #[test]
    fn what_waits_keeps_what_follows_it_and_what_is_lost_is_not_told() {
        let mut outbox = Outbox::default();
        outbox.push(note("a"));
        let b = outbox.hold(note("b"));
        outbox.push(note("c"));
        let d = outbox.hold(note("d"));
        outbox.push(note("e"));
        assert_eq!(told(&mut outbox), ["a"]);
        outbox.release(d, false);
        assert!(told(&mut outbox).is_empty());
        outbox.release(b, true);
        assert_eq!(told(&mut outbox), ["b", "c", "e"]);
        // The record of `d` was lost, and with it whatever rests on it.
        outbox.follow(note("f"));
        outbox.push(note("g"));
        outbox.hold(note("h"));
        outbox.abandon();
        outbox.push(note("i"));
        assert_eq!(told(&mut outbox), ["g", "i"]);
    }
}
