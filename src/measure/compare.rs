//! Comparing results: whether base runs agree with each other, and whether the patched tree computes what the base does.
//!
//! Comes before any speed is believed. Knows one rule so far, equal digests; looks at no metric but exact counts.

use serde::{Deserialize, Serialize};

use super::contract::Sample;
use super::metric::{Kind, MetricSpec};
use crate::outcome::{Cause, Failure};

/// By which rule two results are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equal {
    /// The digests that the script reports are the same text.
    #[default]
    Digest,
}

impl std::fmt::Display for Equal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest => f.pad("digest"),
        }
    }
}

/// Whether the patched tree's results are the base's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Comparison {
    /// They are.
    Same,
    /// They are not.
    Differs {
        /// What differs.
        evidence: String,
    },
    /// There is nothing to compare.
    Unchecked,
}

/// Whether runs of the base have one result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// All have this one.
    Agree {
        /// The result's digest.
        reference: String,
    },
    /// Two differ.
    Disagree {
        /// What differs.
        evidence: String,
    },
    /// There is nothing to compare: no run, or none reports a digest.
    Unchecked,
}

/// Whether runs of one tree have one digest. Where some report one and some do not, they disagree.
#[must_use]
pub fn base_agrees(base: &[Sample]) -> Agreement {
    let Some(reference) = base.iter().find_map(|s| s.digest.as_deref()) else {
        return Agreement::Unchecked;
    };
    match first_other(base, reference) {
        None => Agreement::Agree { reference: reference.to_owned() },
        Some(other) => Agreement::Disagree { evidence: format!("two runs of the base: {reference} and {other}") },
    }
}

/// Whether the counts among `metrics` are the same in every run of one tree, as a count must be.
#[must_use]
pub fn counts_agree(runs: &[Sample], metrics: &[MetricSpec]) -> Agreement {
    let mut shown = Vec::new();
    for metric in metrics.iter().filter(|m| m.kind == Kind::Count) {
        let mut values = runs.iter().filter_map(|s| s.metrics.get(&metric.name).copied());
        let Some(first) = values.next() else { continue };
        if let Some(other) = values.find(|v| v.total_cmp(&first).is_ne()) {
            let evidence = format!("the count `{}` differs between runs of one tree: {first} and {other}", metric.name);
            return Agreement::Disagree { evidence };
        }
        shown.push(format!("{}={first}", metric.name));
    }
    if shown.is_empty() { Agreement::Unchecked } else { Agreement::Agree { reference: shown.join(" ") } }
}

/// Compares the patched tree's results with the base's, which are taken to agree.
///
/// A patched run that leaves out the digest which the base reports differs: to drop the evidence is no way past the
/// comparison. Where the base reports none, nothing is checked.
#[must_use]
pub fn compare(base: &[Sample], patched: &[Sample], rule: Equal) -> Comparison {
    let Equal::Digest = rule;
    let Some(reference) = base.iter().find_map(|s| s.digest.as_deref()) else {
        return Comparison::Unchecked;
    };
    if patched.is_empty() {
        return Comparison::Unchecked;
    }
    match first_other(patched, reference) {
        None => Comparison::Same,
        Some(other) => {
            Comparison::Differs { evidence: format!("the base's result is {reference}, the patched {other}") }
        }
    }
}

/// Both comparisons in their order: first the base runs with each other and with the `reference` of an earlier step, so that
/// a test without one result is never the agent's fault; then the patched runs with the base's.
///
/// # Errors
/// NONDETERMINISTIC where base runs disagree, WRONG_RESULT where patched ones differ.
pub fn check(base: &[Sample], patched: &[Sample], reference: Option<&str>, rule: Equal) -> Result<Comparison, Failure> {
    match base_agrees(base) {
        Agreement::Disagree { evidence } => return Err(Failure::new(Cause::Nondeterministic, &evidence)),
        Agreement::Agree { reference: now } if reference.is_some_and(|before| before != now) => {
            let text = format!("the base's result was {} before and is {now} now", reference.unwrap_or_default());
            return Err(Failure::new(Cause::Nondeterministic, &text));
        }
        Agreement::Unchecked if reference.is_some() => {
            let text = format!("the base's result was {} before and there is none now", reference.unwrap_or_default());
            return Err(Failure::new(Cause::Nondeterministic, &text));
        }
        Agreement::Agree { .. } | Agreement::Unchecked => {}
    }
    match compare(base, patched, rule) {
        Comparison::Differs { evidence } => Err(Failure::new(Cause::WrongResult, &evidence)),
        fine => Ok(fine),
    }
}

/// The first digest that is another one, in words.
fn first_other<'a>(samples: &'a [Sample], reference: &str) -> Option<&'a str> {
    let other = samples.iter().find(|s| s.digest.as_deref() != Some(reference))?;
    Some(other.digest.as_deref().unwrap_or("without a digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(digest: Option<&str>) -> Sample {
        Sample {
            metrics: [("ops".to_owned(), digest.map_or(0.0, |d| d.len() as f64))].into(),
            samples: Vec::new(),
            digest: digest.map(str::to_owned),
            wall_ms: 1,
            exit: 0,
            forgeable: false,
        }
    }

    #[test]
    fn digests_decide() {
        let (a, b, none) = (run(Some("a")), run(Some("b")), run(None));
        let two = |x: &Sample, y: &Sample| [x.clone(), y.clone()];
        assert_eq!(base_agrees(&two(&a, &a)), Agreement::Agree { reference: "a".into() });
        assert!(matches!(base_agrees(&two(&a, &b)), Agreement::Disagree { .. }));
        assert!(matches!(base_agrees(&two(&none, &b)), Agreement::Disagree { .. }));
        assert_eq!(base_agrees(&two(&none, &none)), Agreement::Unchecked);
        assert_eq!(compare(&two(&a, &a), &two(&a, &a), Equal::Digest), Comparison::Same);
        assert!(matches!(compare(&two(&a, &a), &two(&a, &b), Equal::Digest), Comparison::Differs { .. }));
        assert!(matches!(compare(&two(&a, &a), &two(&a, &none), Equal::Digest), Comparison::Differs { .. }));
        assert_eq!(compare(&two(&none, &none), &two(&a, &b), Equal::Digest), Comparison::Unchecked);
        assert_eq!(compare(&two(&a, &a), &[], Equal::Digest), Comparison::Unchecked);
    }

    #[test]
    fn the_base_is_asked_first() {
        let (a, b) = ([run(Some("a"))], [run(Some("b"))]);
        let cause = |r: Result<Comparison, Failure>| r.unwrap_err().cause;
        let moving = [a.clone(), b.clone()].concat();
        assert_eq!(cause(check(&moving, &b, None, Equal::Digest)), Cause::Nondeterministic);
        assert_eq!(cause(check(&a, &a, Some("b"), Equal::Digest)), Cause::Nondeterministic);
        assert_eq!(cause(check(&a, &b, Some("a"), Equal::Digest)), Cause::WrongResult);
        assert_eq!(check(&a, &a, Some("a"), Equal::Digest), Ok(Comparison::Same));
    }

    #[test]
    fn counts_are_exact() {
        let specs = [MetricSpec::count("ops")];
        let (one, two) = (run(Some("a")), run(Some("bb")));
        assert_eq!(counts_agree(&[one.clone(), one.clone()], &specs), Agreement::Agree { reference: "ops=1".into() });
        assert!(matches!(counts_agree(&[one.clone(), two], &specs), Agreement::Disagree { .. }));
        assert_eq!(counts_agree(&[one], &[MetricSpec::time("ops")]), Agreement::Unchecked);
    }
}
