//! Marks beside a result, in words. `docs/verdicts.md` says more of each.

/// Every mark of a job, and what it means. `{}` is what stands behind the mark's name: a metric.
pub const MARKS: [(&str, &str); 31] = [
    ("SAME_AS_HUMAN", "the patched tree is the one that the human's own change makes"),
    ("CONFIRMED", "a second session came to the same"),
    ("UNCONFIRMED", "no second session bears this verdict out"),
    ("NOT_REPRODUCED", "a second session came to the opposite, or to no difference: neither ratio stands"),
    ("FORGEABLE", "the tested tree could have written the result itself"),
    ("UNCHECKED", "no result was compared: whether the patched tree computes the same is not known"),
    (
        "UNCLOCKED",
        "flow's own clock cannot bear the gain out: it is the word of the test's script, which runs beside the tested code",
    ),
    (
        "NOT_BUILT",
        "the patch changes compiled sources, or files that say how they are built, that no build is made of: what was measured is the base's compiled code",
    ),
    ("BINARY", "the patch brings compiled files: what they are made of, and whether it is its sources, cannot be told"),
    ("SUBMODULES", "the human's commit moves submodules, which are not part of what is measured"),
    ("A/A", "both arms are the base tree: any effect is an error of the measurement"),
    ("POST-HOC", "judged by another smallest effect than was declared before it was measured"),
    ("NOT-EXACT", "the count `{}` differed between runs of one tree"),
    ("SIGN-FLIP-DISAGREES", "the permutation test does not confirm the interval"),
    ("BOOTSTRAP-DISAGREES", "a bootstrap of the blocks does not bear the verdict out"),
    ("HUMAN-FAILED", "the human's tree could not be measured, or computes something else: nothing is said against it"),
    ("CHECK-IGNORED", "a check of the repository's own fails in the base already, or now and then: it was left out"),
    ("EXTENDED", "its blocks are of more than one session: a later one continued what an earlier one could not settle"),
    (
        "CACHES_KEPT",
        "each tree's processes began with what its own warm-ups had left in its compile caches: a patch could have left itself answers there",
    ),
    ("GUARD-UNDECIDED", "whether the guard `{}` got worse cannot be said"),
    ("GUARD-REGRESSED", "the guard `{}` got worse"),
    ("LEAK", "the agent was shown lines of the human's change"),
    ("HISTORY", "the agent's repository held commits that it had not been given"),
    ("LOOKED_UP", "the agent is seen to have looked for the fix"),
    ("PACKAGE_AT_HAND", "an installed copy of the tested package was within the agent's reach"),
    ("EGRESS_OPEN", "the agent's network was open: it could have looked anything up"),
    ("NO_SANDBOX", "the kernel did not hold the processes of `{}` to their own files and network"),
    ("WRITE_OPEN", "its test's processes could all write to one folder: a patch could have left itself answers there"),
    ("REUSED", "the draw is of another version of the agent, or of another environment"),
    (
        "NONDETERMINISTIC",
        "the step `{}` came out otherwise when it was executed again under the same key; the earlier attempt speaks",
    ),
    ("OVER_LIMIT", "its attempt used more than today's limit"),
];

/// What a mark means; `None` for one this flow does not know.
#[must_use]
pub fn meaning(mark: &str) -> Option<String> {
    let (name, about) = mark.split_once(' ').unwrap_or((mark, ""));
    let (_, meaning) = MARKS.iter().find(|(known, _)| *known == name)?;
    Some(meaning.replace("{}", about))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_told_with_its_metric() {
        assert_eq!(meaning("GUARD-REGRESSED memory").as_deref(), Some("the guard `memory` got worse"));
        assert_eq!(meaning("LEAK").as_deref(), Some("the agent was shown lines of the human's change"));
        assert_eq!(meaning("SHINY"), None);
    }
}
