//! What the actions of earlier runs were settled with, whoever had executed it: by point, step and key.
//!
//! Told by the journals, and read by whoever knows them; here it is only kept and looked up. It decides nothing: a miss is
//! compared with it.

use std::path::PathBuf;
use std::sync::Arc;

use super::index::{Index, fnv};
use crate::key::ActionKey;
use crate::names::{Axes, RunId};

/// So many runs are looked back at.
const RUNS: usize = 32;
/// So many rows are held, of all runs together.
const ROWS: usize = 1_000_000;

/// That an action was settled, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Settled {
    /// Of its axes: see `axes_number`.
    pub axes: u64,
    /// Of its step's name: see `name_number`.
    pub step: u64,
    /// Of its axes without the candidate.
    pub bare: u64,
    /// Its key.
    pub key: ActionKey,
}

impl Settled {
    /// Of an action.
    #[must_use]
    pub fn new(step: &str, axes: &Axes, key: ActionKey) -> Self {
        Self { axes: axes_number(axes), step: name_number(step), bare: bare_number(axes), key }
    }
}

/// A number for axes.
#[must_use]
pub fn axes_number(axes: &Axes) -> u64 {
    fnv(axes.0.iter().flat_map(|(axis, value)| [axis.as_str(), value.as_str()]))
}

/// A number for axes, whatever their candidate; 0 without one.
#[must_use]
pub fn bare_number(axes: &Axes) -> u64 {
    if axes.get("candidate").is_none() {
        return 0;
    }
    let others = axes.0.iter().filter(|(axis, _)| *axis != "candidate");
    fnv(others.flat_map(|(axis, value)| [axis.as_str(), value.as_str()]))
}

/// A number for a step's name.
#[must_use]
pub fn name_number(name: &str) -> u64 {
    fnv([name].into_iter())
}

/// An earlier run.
#[derive(Debug)]
pub struct Earlier {
    /// Its id.
    pub run: RunId,
    /// Where its manifest lies, as the system knows that file; `None` if it is there no longer.
    pub manifest: Option<PathBuf>,
    rows: Vec<Settled>,
}

impl Earlier {
    /// Of a run whose rows are sorted.
    #[must_use]
    pub fn new(run: RunId, manifest: Option<PathBuf>, rows: Vec<Settled>) -> Self {
        Self { run, manifest, rows }
    }

    /// What was settled at some axes.
    #[must_use]
    pub fn at(&self, axes: u64) -> &[Settled] {
        let from = self.rows.partition_point(|row| row.axes < axes);
        let len = self.rows[from..].iter().take_while(|row| row.axes == axes).count();
        &self.rows[from..from + len]
    }

    /// How many actions of a step's name had a key.
    #[must_use]
    pub fn sharing(&self, step: u64, key: &ActionKey) -> usize {
        self.rows.iter().filter(|row| row.step == step && row.key == *key).count()
    }

    /// What was settled at axes that are the same but for the candidate.
    pub fn beside(&self, bare: u64) -> impl Iterator<Item = &Settled> {
        self.rows.iter().filter(move |row| bare != 0 && row.bare == bare)
    }
}

/// The runs that were looked back at.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Those not read yet, the oldest first, once somebody asked.
    next: Option<Vec<RunId>>,
    read: Vec<Arc<Earlier>>,
    rows: usize,
}

impl Index {
    /// An earlier run by how far back it lies, 0 for the newest but this process's own. `begun` gives all runs in their order,
    /// `read` what one of them settled. `None` beyond the last, and beyond what is looked back at.
    pub fn earlier(
        &self,
        back: usize,
        begun: impl FnOnce() -> Vec<RunId>,
        read: impl Fn(&RunId) -> Earlier,
    ) -> Option<Arc<Earlier>> {
        let mut past = self.past.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if past.next.is_none() {
            let mut all = begun();
            all.retain(|run| !self.is_own(run));
            past.next = Some(all);
        }
        while past.read.len() <= back {
            if past.read.len() >= RUNS || past.rows >= ROWS {
                return None;
            }
            let earlier = read(&past.next.as_mut()?.pop()?);
            past.rows += earlier.rows.len();
            past.read.push(Arc::new(earlier));
        }
        past.read.get(back).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn axes(candidate: &str) -> Axes {
        Axes([("candidate", candidate), ("sample", "1")].map(|(a, b)| (a.to_owned(), b.to_owned())).into())
    }

    #[test]
    fn it_is_found_by_its_axes_and_beside_another_candidate() {
        let key = |text: &str| ActionKey(Digest::of(text.as_bytes()));
        let mut rows = vec![Settled::new("a", &axes("x"), key("1")), Settled::new("b", &axes("x"), key("2"))];
        rows.push(Settled::new("a", &axes("y"), key("1")));
        rows.sort_unstable();
        let earlier = Earlier::new(RunId::from("r"), None, rows);
        assert_eq!(earlier.at(axes_number(&axes("x"))).len(), 2);
        assert_eq!(earlier.at(axes_number(&axes("z"))).len(), 0);
        assert_eq!(earlier.beside(bare_number(&axes("z"))).count(), 3);
        assert_eq!(earlier.beside(0).count(), 0);
    }
}
