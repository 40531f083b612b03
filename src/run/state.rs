//! Where each action of a run stands. States move in one function, [`States::set`], which also keeps the counts that people see.

use crate::event::Counts;
use crate::key::ActionKey;
use crate::step::{End, Ends};

/// Where an action stands.
#[derive(Clone, Debug)]
pub enum State {
    /// Some action upstream has not ended.
    Waiting,
    /// Its key is known and nothing serves it; a gate has not ended.
    Gated,
    /// It can be executed as soon as there is room.
    Ready,
    /// It could be executed, but its provider's lane, its candidate's first jobs or the time since its last failure keep it.
    Held,
    /// Another action of this run has the same key and goes first.
    Sharing {
        /// That one.
        with: usize,
    },
    /// Somebody else runs its key: another process, or a supervisor of a run that died.
    Contended,
    /// It is being executed.
    Running,
    /// It is over for this run.
    Over {
        /// How.
        end: End,
        /// Who did it.
        by: By,
    },
}

/// Who brought about the end of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An attempt of this run.
    Executed,
    /// An attempt that was there.
    Cached,
    /// A draw of another version of the agent, or in another environment.
    Reused,
    /// Another action of this run with the same key.
    Shared(usize),
    /// Nobody: it was not executed.
    Nobody,
}

/// All states of a run.
#[derive(Debug)]
pub struct States {
    states: Vec<State>,
    keys: Vec<Option<ActionKey>>,
    pending: End,
    running: usize,
    over: usize,
    counts: Counts,
}

impl States {
    /// All waiting.
    #[must_use]
    pub fn new(actions: usize) -> Self {
        Self {
            states: vec![State::Waiting; actions],
            keys: vec![None; actions],
            pending: End::Pending,
            running: 0,
            over: 0,
            counts: Counts::default(),
        }
    }

    /// Where an action stands.
    #[must_use]
    pub fn get(&self, node: usize) -> &State {
        &self.states[node]
    }

    /// The key of an action, once it is known.
    #[must_use]
    pub fn key(&self, node: usize) -> Option<ActionKey> {
        self.keys[node]
    }

    /// Notes the key of an action.
    pub fn set_key(&mut self, node: usize, key: ActionKey) {
        self.keys[node] = Some(key);
    }

    /// How many are being executed.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Whether all are over.
    #[must_use]
    pub fn all_over(&self) -> bool {
        self.over == self.states.len()
    }

    /// Notes an attempt that settled nothing.
    pub fn lost_attempt(&mut self) {
        self.counts.attempts_lost += 1;
    }

    /// What became of those that are over.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Moves an action: the only place where states change. What is over stays over.
    pub fn set(&mut self, node: usize, to: State) {
        debug_assert!(!matches!(self.states[node], State::Over { .. }), "action {node} is over already");
        if matches!(self.states[node], State::Over { .. }) {
            return;
        }
        if matches!(self.states[node], State::Running) {
            self.running -= 1;
        }
        match &to {
            State::Running => self.running += 1,
            State::Over { end, by } => {
                self.over += 1;
                self.counts.total += 1;
                let count = match (by, end) {
                    (By::Executed, _) => &mut self.counts.executed,
                    (By::Cached | By::Shared(_), _) => &mut self.counts.cached,
                    (By::Reused, _) => &mut self.counts.reused,
                    (By::Nobody, End::Skipped(_)) => &mut self.counts.skipped,
                    (By::Nobody, _) => &mut self.counts.blocked,
                };
                *count += 1;
                if *by == By::Executed && end.settled().is_none_or(|ended| ended.outcome.failure().is_some()) {
                    self.counts.failed += 1;
                    self.counts.unsettled += usize::from(end.settled().is_none());
                }
            }
            _ => {}
        }
        self.states[node] = to;
    }
}

impl Ends for States {
    fn end(&self, node: usize) -> &End {
        match &self.states[node] {
            State::Over { end, .. } => end,
            _ => &self.pending,
        }
    }
}
