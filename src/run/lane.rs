//! A provider's lane: whether one more of its agents may be begun now. A state machine without a clock, a process or a lot of
//! its own, so that all it can come to can be tested.
//!
//! Open, it bounds how many work at once and what they use a minute. A failure that is sure to meet every other agent too
//! closes it; a question to the provider, or one agent that tries, opens it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::backoff::{doubled, spread};
use crate::agent::refusal;
use crate::manifest::PerMinute;
use crate::outcome::Cause;

/// The first and the longest wait between two questions to a provider whose lane is closed.
const QUESTIONS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// The same where only an agent can try, and where it was refused in spite of a good answer.
const TRIALS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// How often a lane that was narrowed grows by one.
const GROWS: Duration = Duration::from_secs(30);
/// Complaints that come together count as one.
const TOGETHER: Duration = Duration::from_secs(10);
/// For so long an answer of `expires` is taken for true.
const FRESH: Duration = Duration::from_secs(60);

/// What an agent uses a minute, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Calls.
    pub requests: Option<f64>,
    /// Tokens.
    pub tokens: Option<f64>,
}

/// Whether an agent may be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Go,
    /// As soon as another has ended, or the lane grows.
    Full,
    /// The provider has to be asked first.
    Ask,
    /// The lane is closed, or one tries for all.
    Shut,
    /// It could not be done before the credential expires at this time.
    Expires(Timestamp),
}

/// What an agent's end says of its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The provider served it.
    Good,
    /// The provider asked for patience: its credential is good.
    Patience,
    /// Nothing can come of another call.
    Shut(Cause, String),
    /// It never came to a call, or was stopped.
    Nothing,
}

/// What became of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It closed.
    Closed,
    /// One agent may try.
    HalfOpened,
    /// It is open again.
    Opened,
    /// So many at once, for a while.
    Narrowed(usize),
}

/// Why a lane is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shut {
    /// The cause.
    pub cause: Cause,
    /// The line that shows it.
    pub evidence: String,
    /// Since when.
    pub since: Instant,
    /// How often it was tried since.
    pub tries: u32,
    /// When it is tried again.
    pub next: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Health {
    /// The provider was not asked yet in this run.
    Unproven,
    Open,
    Closed(Shut),
    /// One agent, once it is begun, tries for all.
    HalfOpen {
        trial: Option<usize>,
        shut: Shut,
    },
}

#[derive(Debug)]
struct Narrow {
    width: usize,
    /// As wide as it was.
    full: usize,
    since: Instant,
    grows: Instant,
}

/// What is asked of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether it would take a call, and until when the credential is good.
    All,
    /// Until when the credential is good.
    Expiry,
}

/// A lane.
#[derive(Debug)]
pub struct Lane {
    width: Option<usize>,
    per_minute: PerMinute,
    /// Whether somebody can be asked: else only an agent can try.
    asks: bool,
    expires: bool,
    health: Health,
    opened: Option<Instant>,
    /// How often it had been tried in vain when it last opened: one that closes again at once was not mended.
    vain: u32,
    /// Whether an agent was refused though the provider had said yes: its word is worth no more than none, and every further
    /// question costs an agent.
    misled: bool,
    running: BTreeMap<usize, (Instant, Rate)>,
    narrow: Option<Narrow>,
    asking: bool,
    /// What `expires` said last, and when.
    until: Option<(Option<Timestamp>, Instant)>,
}

impl Lane {
    /// A lane so wide, for what the provider allows a minute. `asks` says whether it has a probe or an expiry, `expires`
    /// whether it has an expiry.
    #[must_use]
    pub fn new(width: Option<u32>, per_minute: PerMinute, asks: bool, expires: bool) -> Self {
        Self {
            width: width.map(|width| width as usize),
            per_minute,
            asks,
            expires,
            health: if asks { Health::Unproven } else { Health::Open },
            opened: None,
            vain: 0,
            misled: false,
            running: BTreeMap::new(),
            narrow: None,
            asking: false,
            until: None,
        }
    }

    /// Whether `--jobs` leaves its agents to it.
    #[must_use]
    pub fn has_width(&self) -> bool {
        self.width.is_some()
    }

    /// Why it is closed, if it is.
    #[must_use]
    pub fn shut(&self) -> Option<&Shut> {
        match &self.health {
            Health::Closed(shut) | Health::HalfOpen { shut, .. } => Some(shut),
            Health::Unproven | Health::Open => None,
        }
    }

    /// Whether an answer is waited for.
    #[must_use]
    pub fn asking(&self) -> bool {
        self.asking
    }

    /// The actions that work.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        self.running.keys().copied()
    }

    /// Whether one more agent may be begun, which uses `rate` and takes `expected` as far as that is known.
    #[must_use]
    pub fn gate(&self, rate: Rate, expected: Option<Duration>, now: Instant, clock: Timestamp) -> Gate {
        match &self.health {
            Health::Unproven => return Gate::Ask,
            Health::Closed(_) | Health::HalfOpen { trial: Some(_), .. } => return Gate::Shut,
            Health::HalfOpen { trial: None, .. } | Health::Open => {}
        }
        if self.stale(now) {
            return Gate::Ask;
        }
        let until = self.until.and_then(|(until, _)| until).filter(|_| self.expires);
        if let Some(until) = until.filter(|until| ends_after(clock, expected, *until)) {
            return Gate::Expires(until);
        }
        if self.room(now) == Some(0) || self.beyond(rate) { Gate::Full } else { Gate::Go }
    }

    /// How many more would fit by number; `None` for any.
    #[must_use]
    pub fn room(&self, now: Instant) -> Option<usize> {
        if self.stale(now) {
            return Some(0);
        }
        match &self.health {
            Health::Unproven | Health::Closed(_) | Health::HalfOpen { trial: Some(_), .. } => Some(0),
            Health::HalfOpen { trial: None, .. } => Some(1),
            Health::Open => {
                let narrow = self.narrow.as_ref().map(|narrow| narrow.width);
                let width = match (self.width, narrow) {
                    (Some(width), Some(narrow)) => Some(width.min(narrow)),
                    (width, narrow) => width.or(narrow),
                };
                width.map(|width| width.saturating_sub(self.running.len()))
            }
        }
    }

    /// Whether its expiry has to be asked for.
    fn stale(&self, now: Instant) -> bool {
        self.expires && self.until.is_none_or(|(_, asked)| now.saturating_duration_since(asked) >= FRESH)
    }

    /// Whether nobody may be begun before the provider was asked, which nobody does yet.
    #[must_use]
    pub fn must_ask(&self, now: Instant) -> bool {
        !self.asking
            && match &self.health {
                Health::Unproven => true,
                Health::Open | Health::HalfOpen { .. } => self.stale(now),
                Health::Closed(_) => false,
            }
    }

    /// Whether another of this rate would go beyond what the provider allows a minute. One may always work.
    fn beyond(&self, rate: Rate) -> bool {
        let sum = |of: fn(&Rate) -> Option<f64>| {
            self.running.values().filter_map(|(_, rate)| of(rate)).sum::<f64>() + of(&rate).unwrap_or(0.0)
        };
        #[expect(clippy::cast_precision_loss, reason = "a limit a minute is far below 2^52")]
        let over = |limit: Option<u64>, used: f64| limit.is_some_and(|limit| used > limit as f64);
        !self.running.is_empty()
            && (over(self.per_minute.requests, sum(|rate| rate.requests))
                || over(self.per_minute.tokens, sum(|rate| rate.tokens)))
    }

    /// An agent begins.
    pub fn begin(&mut self, node: usize, rate: Rate, now: Instant) {
        self.running.insert(node, (now, rate));
        if let Health::HalfOpen { trial: trial @ None, .. } = &mut self.health {
            *trial = Some(node);
        }
    }

    /// An agent ended. What one says that was begun before the lane last opened, or in another run, closes nothing.
    pub fn end(&mut self, node: usize, word: Word, now: Instant, lot: f64) -> Option<Turn> {
        let (began, _) = self.running.remove(&node)?;
        let trial = matches!(self.health, Health::HalfOpen { trial: Some(trial), .. } if trial == node);
        match word {
            Word::Shut(cause, evidence) => {
                self.misled |= trial && self.asks;
                let old = self.opened.is_some_and(|opened| began < opened) && !trial;
                (!old && (trial || matches!(self.health, Health::Open))).then(|| self.close(cause, evidence, now, lot))
            }
            Word::Nothing => {
                if let Health::HalfOpen { trial: by, .. } = &mut self.health
                    && trial
                {
                    // It tried nothing: another may.
                    *by = None;
                }
                None
            }
            Word::Good | Word::Patience if trial => {
                self.misled = false;
                Some(self.open(now))
            }
            Word::Good => None,
            Word::Patience => self.narrowed(now).map(Turn::Narrowed),
        }
    }

    fn open(&mut self, now: Instant) -> Turn {
        self.vain = self.shut().map_or(0, |shut| shut.tries);
        self.health = Health::Open;
        self.opened = Some(now);
        Turn::Opened
    }

    fn close(&mut self, cause: Cause, evidence: String, now: Instant, lot: f64) -> Turn {
        let (first, longest) = if self.asks && !self.misled { QUESTIONS } else { TRIALS };
        let (since, tries) = match (self.shut(), self.opened) {
            (Some(shut), _) => (shut.since, shut.tries.saturating_add(1)),
            (None, Some(opened)) if now.saturating_duration_since(opened) < longest => {
                (now, self.vain.saturating_add(1))
            }
            (None, _) => (now, 0),
        };
        let next = now + spread(doubled(first, tries, longest), lot);
        self.health = Health::Closed(Shut { cause, evidence, since, tries, next });
        Turn::Closed
    }

    /// Half as many for a while, unless that has just been done.
    fn narrowed(&mut self, now: Instant) -> Option<usize> {
        if self.narrow.as_ref().is_some_and(|narrow| now.saturating_duration_since(narrow.since) < TOGETHER) {
            return None;
        }
        // The one that complains has just been taken out.
        let now_running = self.running.len() + 1;
        let current = self.narrow.as_ref().map_or(now_running, |narrow| narrow.width.min(now_running));
        let full = self.narrow.as_ref().map_or(now_running, |narrow| narrow.full).max(self.width.unwrap_or(0));
        let width = (current / 2).max(1);
        if width >= full {
            return None;
        }
        self.narrow = Some(Narrow { width, full, since: now, grows: now + GROWS });
        Some(width)
    }

    /// Time passes: a narrowed lane grows, and where nobody can be asked an agent may try.
    pub fn pass(&mut self, now: Instant) -> Option<Turn> {
        while let Some(narrow) = self.narrow.as_mut().filter(|narrow| narrow.grows <= now) {
            narrow.width += 1;
            narrow.grows += GROWS;
            if narrow.width >= narrow.full {
                self.narrow = None;
            }
        }
        match &self.health {
            Health::Closed(shut) if !self.asks && shut.next <= now => {
                self.health = Health::HalfOpen { trial: None, shut: shut.clone() };
                Some(Turn::HalfOpened)
            }
            _ => None,
        }
    }

    /// What is to be asked now, if anything; `wanted` says whether an agent waits. The answer must be brought to `told`.
    pub fn question(&mut self, wanted: bool, now: Instant) -> Option<Question> {
        if self.asking || !wanted {
            return None;
        }
        let question = match &self.health {
            Health::Unproven => Question::All,
            Health::Closed(shut) if self.asks && shut.next <= now => Question::All,
            Health::Open | Health::HalfOpen { .. } if self.stale(now) => Question::Expiry,
            _ => return None,
        };
        self.asking = true;
        Some(question)
    }

    /// The answer: good until a time if one was told, or why not.
    pub fn told(
        &mut self,
        question: Question,
        answer: Result<Option<Timestamp>, String>,
        now: Instant,
        lot: f64,
    ) -> Option<Turn> {
        self.asking = false;
        match answer {
            Ok(until) => {
                self.until = Some((until, now));
                match (&self.health, question) {
                    (Health::Unproven, _) => {
                        self.health = Health::Open;
                        None
                    }
                    (Health::Closed(shut), Question::All) => {
                        self.health = Health::HalfOpen { trial: None, shut: shut.clone() };
                        Some(Turn::HalfOpened)
                    }
                    _ => None,
                }
            }
            Err(why) => {
                let again = matches!(self.health, Health::Closed(_));
                let cause = self.shut().map_or_else(|| refusal(&why), |shut| shut.cause);
                let turn = self.close(cause, why, now, lot);
                (!again).then_some(turn)
            }
        }
    }

    /// When something changes though nobody begins or ends; `wanted` says whether an agent waits.
    #[must_use]
    pub fn next(&self, wanted: bool) -> Option<Instant> {
        let closed = match &self.health {
            Health::Closed(shut) => Some(shut.next),
            Health::Open | Health::HalfOpen { .. } if self.expires => self.until.map(|(_, asked)| asked + FRESH),
            _ => None,
        };
        let grows = self.narrow.as_ref().map(|narrow| narrow.grows);
        [closed.filter(|_| !self.asking), grows].into_iter().flatten().filter(|_| wanted).min()
    }
}

/// Whether something that takes so long would end after a time. What is not known is not held against it, but what has
/// expired has.
fn ends_after(clock: Timestamp, expected: Option<Duration>, until: Timestamp) -> bool {
    let left = until.duration_since(clock);
    Duration::try_from(left).map_or(true, |left| left.is_zero() || expected.is_some_and(|expected| expected > left))
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
