//! How long a step has been at work, and how long each of its builds took.
//!
//! Each has the step's `timeout` for itself: a patch that takes all of it leaves none the less to whoever is built to tell whose
//! fault that is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time of a step that builds once or several times.
pub(super) struct Clock {
    /// When the step began.
    pub(super) began: Instant,
    /// When the build at work began, and what the longest before it took.
    build: Mutex<(Instant, Duration)>,
}

impl Clock {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { began: now, build: Mutex::new((now, Duration::ZERO)) }
    }

    fn build(&self) -> MutexGuard<'_, (Instant, Duration)> {
        self.build.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another build begins.
    pub(super) fn next(&self) {
        let longest = self.longest();
        *self.build() = (Instant::now(), longest);
    }

    /// What the build at work has taken.
    pub(super) fn taken(&self) -> Duration {
        self.build().0.elapsed()
    }

    /// What the longest of the builds took.
    pub(super) fn longest(&self) -> Duration {
        let (since, longest) = *self.build();
        longest.max(since.elapsed())
    }
}
