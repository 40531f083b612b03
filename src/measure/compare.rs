//! Comparing results: whether base runs agree with each other, and whether the patched tree computes what the base does.
//!
//! Comes before any speed is believed. Looks at no metric but exact counts. Arrays of numbers are compared one process at a time,
//! by `values`, for they are too many to be kept: a sample holds what that came to.

use serde::{Deserialize, Serialize};

use super::contract::Sample;
use super::equal::Equal;
use super::metric::{Kind, MetricSpec};
use super::values::Numbers;
use crate::outcome::{Cause, Failure};

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

/// Whether runs of the base have one result by the rule. Where some report one and some do not, they disagree.
#[must_use]
pub fn base_agrees(base: &[Sample], rule: Equal) -> Agreement {
    let Some(reference) = base.iter().find_map(|s| told(s, rule)) else {
        return Agreement::Unchecked;
    };
    match first_other(base, &reference, rule) {
        None => Agreement::Agree { reference: reference.text() },
        Some(other) => Agreement::Disagree { evidence: format!("two runs of the base: {other}") },
    }
}

/// Whether the counts among `metrics` are the same in every run of one tree, as a count must be. Runs that filled its caches
/// compiled what the others found.
#[must_use]
pub fn counts_agree(runs: &[Sample], metrics: &[MetricSpec]) -> Agreement {
    let mut shown = Vec::new();
    for metric in metrics.iter().filter(|m| m.kind == Kind::Count) {
        let mut values = runs.iter().filter(|s| !s.fills).filter_map(|s| s.metrics.get(&metric.name).copied());
        let Some(first) = values.next() else { continue };
        if let Some(other) = values.find(|v| v.total_cmp(&first).is_ne()) {
            let evidence = format!("the count `{}` differs between runs of one tree: {first} and {other}", metric.name);
            return Agreement::Disagree { evidence };
        }
        shown.push(format!("{}={first}", metric.name));
    }
    if shown.is_empty() { Agreement::Unchecked } else { Agreement::Agree { reference: shown.join(" ") } }
}

/// Whether the counts that must be the same in both trees are: the work that was done. Every run is looked at
/// but those that filled their caches.
///
/// # Errors
/// What differs.
pub fn same_work(base: &[Sample], patched: &[Sample], metrics: &[MetricSpec]) -> Result<(), String> {
    for metric in metrics.iter().filter(|metric| metric.equal) {
        let value = |run: &Sample| run.metrics.get(&metric.name).copied().filter(|_| !run.fills);
        let Some(first) = base.iter().find_map(value) else { continue };
        if let Some(other) = patched.iter().filter_map(value).find(|v| v.total_cmp(&first).is_ne()) {
            return Err(format!(
                "the counter `{}` is {first} in the base and {other} in the patched tree",
                metric.name
            ));
        }
    }
    Ok(())
}

/// Compares the patched tree's results with the base's, which are taken to agree.
///
/// A patched run that leaves out what the base reports differs: to drop the evidence is no way past the comparison. Where the
/// base reports nothing, nothing is checked.
#[must_use]
pub fn compare(base: &[Sample], patched: &[Sample], rule: Equal) -> Comparison {
    let Some(reference) = base.iter().find_map(|s| told(s, rule)) else {
        return Comparison::Unchecked;
    };
    if patched.is_empty() {
        return Comparison::Unchecked;
    }
    match first_other(patched, &reference, rule) {
        None => Comparison::Same,
        Some(other) => Comparison::Differs { evidence: format!("the base's and the patched tree's: {other}") },
    }
}

/// All comparisons in their order: first the base runs with each other, in their counts too, and with the `reference` of an
/// earlier step, so that a test without one result is never the agent's fault; then the patched runs with the base's.
///
/// # Errors
/// NONDETERMINISTIC where base runs disagree, WRONG_RESULT where patched ones differ.
pub fn check(
    base: &[Sample],
    patched: &[Sample],
    reference: Option<&str>,
    rule: Equal,
    metrics: &[MetricSpec],
) -> Result<Comparison, Failure> {
    let nondeterministic = |evidence: &str| Err(Failure::new(Cause::Nondeterministic, evidence));
    match base_agrees(base, rule) {
        Agreement::Disagree { evidence } => return nondeterministic(&evidence),
        Agreement::Agree { reference: now } if reference.is_some_and(|before| before != now) => {
            let before = reference.unwrap_or_default();
            return nondeterministic(&format!("the base's result was {before} before and is {now} now"));
        }
        Agreement::Unchecked if reference.is_some() => {
            let before = reference.unwrap_or_default();
            return nondeterministic(&format!("the base's result was {before} before and there is none now"));
        }
        Agreement::Agree { .. } | Agreement::Unchecked => {}
    }
    if let Agreement::Disagree { evidence } = counts_agree(base, metrics) {
        return nondeterministic(&evidence);
    }
    let wrong = |evidence: &str| Failure::new(Cause::WrongResult, evidence);
    if let Err(evidence) = same_work(base, patched, metrics) {
        return Err(wrong(&evidence));
    }
    match compare(base, patched, rule) {
        Comparison::Differs { evidence } => Err(wrong(&evidence)),
        fine => Ok(fine),
    }
}

/// What one run reports, as far as the rule asks.
enum Told<'a> {
    Digest(&'a str),
    Numbers(&'a Numbers),
    Score(f64),
    Checked,
}

impl Told<'_> {
    /// What a later step holds its own base runs against. Numbers that may wobble are not in it.
    fn text(&self) -> String {
        match self {
            Self::Digest(digest) => (*digest).to_owned(),
            Self::Numbers(numbers) => format!("{} numbers of shape {}", numbers.count, numbers.shape),
            Self::Score(_) => "a score".to_owned(),
            Self::Checked => "checked by the script".to_owned(),
        }
    }
}

fn told(run: &Sample, rule: Equal) -> Option<Told<'_>> {
    match rule {
        Equal::Digest => run.digest.as_deref().map(Told::Digest),
        Equal::Close { .. } => run.numbers.as_ref().map(Told::Numbers),
        Equal::Score { .. } => run.score.map(Told::Score),
        // A process that its script found different has no sample.
        Equal::Script => Some(Told::Checked),
    }
}

/// How the first run that is another one differs, in words.
fn first_other(runs: &[Sample], reference: &Told<'_>, rule: Equal) -> Option<String> {
    runs.iter().find_map(|run| match (reference, told(run, rule)) {
        (Told::Digest(one), Some(Told::Digest(other))) => {
            (*one != other).then(|| format!("the digests {one} and {other}"))
        }
        (Told::Numbers(_), Some(Told::Numbers(other))) => other.differs.clone(),
        (Told::Score(one), Some(Told::Score(other))) => rule.scores_differ(*one, other),
        (Told::Checked, Some(_)) => None,
        (Told::Digest(one), _) => Some(format!("{one} and without a digest")),
        (Told::Numbers(_), _) => Some("one is without `values`".to_owned()),
        (Told::Score(one), _) => Some(format!("the score {one} and none")),
        (Told::Checked, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(digest: Option<&str>) -> Sample {
        Sample {
            metrics: [("ops".to_owned(), digest.map_or(0.0, |d| d.len() as f64))].into(),
            digest: digest.map(str::to_owned),
            ..Sample::default()
        }
    }

    #[test]
    fn digests_decide() {
        let (a, b, none) = (run(Some("a")), run(Some("b")), run(None));
        let two = |x: &Sample, y: &Sample| [x.clone(), y.clone()];
        assert_eq!(base_agrees(&two(&a, &a), Equal::Digest), Agreement::Agree { reference: "a".into() });
        assert!(matches!(base_agrees(&two(&a, &b), Equal::Digest), Agreement::Disagree { .. }));
        assert!(matches!(base_agrees(&two(&none, &b), Equal::Digest), Agreement::Disagree { .. }));
        assert_eq!(base_agrees(&two(&none, &none), Equal::Digest), Agreement::Unchecked);
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
        assert_eq!(cause(check(&moving, &b, None, Equal::Digest, &[])), Cause::Nondeterministic);
        assert_eq!(cause(check(&a, &a, Some("b"), Equal::Digest, &[])), Cause::Nondeterministic);
        assert_eq!(cause(check(&a, &b, Some("a"), Equal::Digest, &[])), Cause::WrongResult);
        assert_eq!(check(&a, &a, Some("a"), Equal::Digest, &[]), Ok(Comparison::Same));
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
