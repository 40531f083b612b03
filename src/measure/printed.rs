//! Reads metrics by their patterns from what a test process printed: its standard output, else its standard error.
//!
//! Whatever stands there may have been printed by the tested tree: such a sample is forgeable.

use super::contract::{Contract, ProcessEnd, STDOUT_MAX, Sample, failed, fits, no_result};
use super::metric::MetricSpec;
use super::signature;
use crate::outcome::Failure;

/// The sample of a process that ended with an exit code.
pub(super) fn read(end: &ProcessEnd<'_>, exit: i32, metrics: &[MetricSpec]) -> Result<Sample, Failure> {
    if exit != 0 {
        return Err(failed(end, exit, None));
    }
    let mut sample = Sample { wall_ms: end.wall_ms, forgeable: Contract::Text.forgeable(), ..Sample::default() };
    let (stdout, stderr) = (signature::tail(end.stdout, STDOUT_MAX), signature::tail(end.stderr, STDOUT_MAX));
    for metric in metrics {
        let name = &metric.name;
        let Some(pattern) = &metric.pattern else {
            return Err(no_result(&format!("the metric `{name}` has no pattern, and the test prints its result"), end));
        };
        let Some(found) = pattern.last(&stdout).or_else(|| pattern.last(&stderr)) else {
            let text = format!("exit 0, but no line matches the pattern of the metric `{name}`: {pattern}");
            return Err(no_result(&text, end));
        };
        let Some(number) = found.parse::<f64>().ok().filter(|number| number.is_finite()) else {
            let found: String = found.chars().take(80).collect();
            let text = format!("the pattern of the metric `{name}` found `{found}`, which is no number: {pattern}");
            return Err(no_result(&text, end));
        };
        sample.metrics.insert(name.clone(), fits(metric, number)?);
    }
    Ok(sample)
}
