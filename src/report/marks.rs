//! Marks beside a result, in words.

/// What a mark means; `None` for one this flow does not know.
#[must_use]
pub fn meaning(mark: &str) -> Option<String> {
    let (name, about) = mark.split_once(' ').unwrap_or((mark, ""));
    Some(match name {
        "SAME_AS_HUMAN" => "the patched tree is the one that the human's own change makes".to_owned(),
        "FORGEABLE" => "the tested tree could have written the result itself".to_owned(),
        "UNCHECKED" => "no result was compared: whether the patched tree computes the same is not known".to_owned(),
        "A/A" => "both arms are the base tree: any effect is an error of the measurement".to_owned(),
        "NOT-EXACT" => format!("the count `{about}` differed between runs of one tree"),
        "SIGN-FLIP-DISAGREES" => "the permutation test does not confirm the interval".to_owned(),
        "GUARD-REGRESSED" => format!("the guard `{about}` got worse"),
        "LEAK" => "the agent was shown lines of the human's change".to_owned(),
        "REUSED" => "the draw is of another version of the agent, or of another environment".to_owned(),
        "OVER_LIMIT" => "its attempt used more than today's limit".to_owned(),
        _ => return None,
    })
}
