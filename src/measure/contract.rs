//! Test contracts: what one ended test process says, read into a sample or into a failure with a cause.
//!
//! Of two contracts each has a form of its own. `flow`: the result is JSON in the private file that `$FLOW_RESULT` named, never on standard output; exit 0
//! measured, 3 another package was imported, 4 the target is missing. `isobench`: the result is the last line of standard
//! output that is a JSON object; exit 1 with `target_resolved: false`, exit 3 where the optimised path was not taken; every
//! such sample is marked forgeable, for any code of the tested tree can print a line. A third, `text`, is not asked for by name: it
//! is that of a test whose metrics all have patterns. The numbers are read from what it prints, only exit 0 is good, and every
//! such sample is forgeable too.
//!
//! A sample needs both: exit 0 and a whole result. Runs nothing, compares nothing, judges no speed. Outputs are hostile:
//! every read is bounded, and nothing read here may panic. The caller redacts secrets before it hands outputs in, because
//! failures quote them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::metric::{Better, Kind, MetricSpec};
use super::printed;
use super::signature::{self, Signature};
use super::values::{Numbers, Values};
use crate::outcome::{Cause, Failure};

/// The largest result file that is read, in bytes.
pub const RESULT_MAX: usize = 1024 * 1024;
/// How much of the end of standard output the `isobench` contract looks through, in bytes.
pub const STDOUT_MAX: usize = 256 * 1024;
/// How many of a script's own samples are kept, so that the largest result stays below `result::BLOB_MAX`; they are for
/// people.
pub const SAMPLES_MAX: usize = 256;
/// The longest digest that a script may report, in bytes.
pub const DIGEST_MAX: usize = 256;
/// The largest count: up to here an `f64` holds every whole number.
pub const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// How a test script reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    /// flow's own: JSON in the file that `$FLOW_RESULT` names.
    Flow,
    /// ISO-Bench's: the last JSON line of standard output.
    Isobench,
    /// A tool's that prints for people: each metric by its pattern.
    Text,
}

impl Contract {
    /// The metric that a test of this contract has where the manifest names none: `time_s` in seconds, or `avg_ms` in
    /// milliseconds; of both less is better. What is read by patterns always names its metrics.
    #[must_use]
    pub fn default_metric(self) -> MetricSpec {
        MetricSpec::time(match self {
            Self::Flow | Self::Text => "time_s",
            Self::Isobench => "avg_ms",
        })
    }

    /// The contract of a test with these metrics: another than `self` where all of them are read by patterns.
    #[must_use]
    pub fn of(self, metrics: &[MetricSpec]) -> Self {
        let all = !metrics.is_empty() && metrics.iter().all(|metric| metric.pattern.is_some());
        if all { Self::Text } else { self }
    }

    /// Whether code of the tested tree can put a result in the script's place unseen.
    #[must_use]
    pub fn forgeable(self) -> bool {
        matches!(self, Self::Isobench | Self::Text)
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flow => "flow",
            Self::Isobench => "isobench",
            Self::Text => "text",
        })
    }
}

/// The text names no contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no contract: `flow`, `isobench` and `text` are")]
pub struct BadContract(String);

impl FromStr for Contract {
    type Err = BadContract;

    fn from_str(text: &str) -> Result<Self, BadContract> {
        match text {
            "flow" => Ok(Self::Flow),
            "isobench" => Ok(Self::Isobench),
            "text" => Ok(Self::Text),
            _ => Err(BadContract(text.chars().take(80).collect())),
        }
    }
}

/// Names of `imported` that are looked at.
const IMPORTED_MAX: usize = 1000;

/// How a test process ended and what it left.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnd<'a> {
    /// Its exit code, where it ended with one.
    pub exit: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// Whether flow stopped it because it reached the step's `timeout`.
    pub timed_out: bool,
    /// How long it ran by flow's own clock, in milliseconds.
    pub wall_ms: u64,
    /// How many processes the kernel killed for want of memory while it ran, on the whole machine; nothing where it does not tell.
    pub oom_kills: Option<u64>,
    /// Its standard output, or at least the last `STDOUT_MAX` bytes of it.
    pub stdout: &'a [u8],
    /// Its standard error, or at least the last `signature::TAIL` bytes of it.
    pub stderr: &'a [u8],
    /// The content of the private file that `$FLOW_RESULT` named, if the process wrote one.
    pub result: Option<&'a [u8]>,
}

/// What one process measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Each declared metric's value, in the script's unit.
    pub metrics: BTreeMap<String, f64>,
    /// The script's own timed calls, in its unit, at most `SAMPLES_MAX` of them: for people, in no verdict.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub samples: Vec<f64>,
    /// What the script says its results digest to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
    /// A figure of how good its results are, such as an accuracy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// What the numbers that it reports come to beside the base's, where that is how results are compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub numbers: Option<Numbers>,
    /// How long the window that the script marked as timed was open by flow's own clock, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window_ms: Option<f64>,
    /// How many windows the script marked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub windows: Option<usize>,
    /// Whether it ran to fill its arm's compile caches: what it counted is not what a later process counts.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub fills: bool,
    /// How long the process ran by flow's own clock, in milliseconds.
    pub wall_ms: u64,
    /// The exit code.
    pub exit: i32,
    /// Whether the tested tree could have written this result itself.
    pub forgeable: bool,
}

/// Reads what a test process left. `metrics` are the test's, the primary one first; empty stands for the contract's default.
///
/// # Errors
/// The failure, with its cause and a line of evidence, of a process that did not measure all of `metrics`.
pub fn read(contract: Contract, end: &ProcessEnd<'_>, metrics: &[MetricSpec]) -> Result<Sample, Failure> {
    let default = [contract.default_metric()];
    let metrics = if metrics.is_empty() { &default } else { metrics };
    let exit = exit_of(end)?;
    match contract {
        Contract::Flow => read_flow(end, exit, metrics),
        Contract::Isobench => read_isobench(end, exit, metrics),
        Contract::Text => printed::read(end, exit, metrics),
    }
    .map_err(|failure| failure.exit(Some(exit)))
}

/// The exit code of a process that ended by itself.
fn exit_of(end: &ProcessEnd<'_>) -> Result<i32, Failure> {
    let last = signature::last_line(end.stderr).map(|line| format!("; its last line: {line}")).unwrap_or_default();
    if end.timed_out {
        let text = format!("stopped at the timeout after {} ms{last}", end.wall_ms);
        return Err(Failure::new(Cause::TestTimeout, &text));
    }
    if let Some(signal) = end.signal {
        if let Some(found) = signature::of_abort(end.stderr) {
            return Err(Failure::new(found.cause, &format!("killed by signal {signal}: {}", found.line)));
        }
        // Who sends a SIGKILL, if flow did not, is nearly always the kernel when memory ran out; it counts whom it kills so.
        let (cause, who) = match (signal, end.oom_kills) {
            (9, Some(0)) => {
                (Cause::Exception, ", not by the kernel for want of memory: by a process of its own, or somebody here")
            }
            (9, _) => (Cause::Oom, ""),
            _ => (Cause::Exception, ""),
        };
        return Err(Failure::new(cause, &format!("killed by signal {signal}{who}{last}")));
    }
    end.exit.ok_or_else(|| Failure::new(Cause::HarnessFault, "it is not known how the test process ended"))
}

fn read_flow(end: &ProcessEnd<'_>, exit: i32, metrics: &[MetricSpec]) -> Result<Sample, Failure> {
    let object = end.result.map(parse_object);
    let told = object.as_ref().and_then(|o| o.as_ref().ok()).and_then(told);
    let error = told.as_ref().map(|t| t.name.as_str());
    let say = || evidence(told.as_ref(), end);
    if exit == 3 || error == Some("WRONG_PACKAGE") {
        return Err(Failure::new(Cause::WrongPackage, &say()));
    }
    if exit == 4 || error == Some("TARGET_NOT_RESOLVED") {
        return Err(Failure::new(Cause::TargetNotResolved, &say()));
    }
    if exit != 0 {
        return Err(failed(end, exit, told.as_ref()));
    }
    match object {
        None => Err(no_result("exit 0, but nothing was written to $FLOW_RESULT", end)),
        Some(Err(why)) => Err(no_result(&format!("the file that $FLOW_RESULT names {why}"), end)),
        Some(Ok(object)) => {
            tells_no_error(told.as_ref())?;
            let values = object.get("metrics").and_then(Json::as_object);
            let values = values.ok_or_else(|| no_result("the result has no `metrics`", end))?;
            agrees_on_direction(&object, metrics)?;
            sample(Contract::Flow, &object, values, end.wall_ms, metrics)
        }
    }
}

/// Where a script says that it imported what it tested, by name: `imported` of its result. Paths are as it wrote them.
#[must_use]
pub fn imported(end: &ProcessEnd<'_>) -> BTreeMap<String, String> {
    let object = end.result.and_then(|bytes| parse_object(bytes).ok());
    let said = object.as_ref().and_then(|object| object.get("imported")?.as_object());
    let path = |(name, path): (&String, &Json)| Some((name.clone(), path.as_str()?.to_owned()));
    said.into_iter().flatten().take(IMPORTED_MAX).filter_map(path).collect()
}

fn read_isobench(end: &ProcessEnd<'_>, exit: i32, metrics: &[MetricSpec]) -> Result<Sample, Failure> {
    let found = last_object(end.stdout, metrics.first().map_or("", |m| &m.name));
    let object = found.as_ref().ok().and_then(Option::as_ref);
    let told = object.and_then(told);
    let is = |name: &str, value: &Json| object.and_then(|o| o.get(name)) == Some(value);
    if is("target_resolved", &Json::Bool(false)) {
        return Err(Failure::new(Cause::TargetNotResolved, &evidence(told.as_ref(), end)));
    }
    let named = told.as_ref().is_some_and(|t| t.name == "OPT_PATH_NOT_TRIGGERED");
    if exit == 3 || is("error_code", &Json::from(3)) || named || is("opt_path_hit", &Json::Bool(false)) {
        let said = told.as_ref().map_or_else(|| "`opt_path_hit` is false, or exit 3".to_owned(), ToString::to_string);
        return Err(Failure::new(Cause::OptPathNotHit, &said));
    }
    if exit != 0 {
        return Err(failed(end, exit, told.as_ref()));
    }
    match &found {
        Err(why) => Err(no_result(why, end)),
        Ok(None) => Err(no_result("exit 0, but no line of standard output is a JSON object", end)),
        Ok(Some(object)) => {
            tells_no_error(told.as_ref())?;
            sample(Contract::Isobench, object, object, end.wall_ms, metrics)
        }
    }
}

/// The sample of a process that ended with 0 and left an object.
fn sample(
    contract: Contract,
    object: &Map<String, Json>,
    values: &Map<String, Json>,
    wall_ms: u64,
    metrics: &[MetricSpec],
) -> Result<Sample, Failure> {
    let refuse = |text: String| Failure::new(Cause::NoResult, &text);
    let mut read = BTreeMap::new();
    for metric in metrics {
        let name = &metric.name;
        let value = values.get(name).ok_or_else(|| refuse(format!("the result has no metric `{name}`")))?;
        let Some(number) = value.as_f64().filter(|n| n.is_finite()) else {
            return Err(refuse(format!("the metric `{name}` is not a finite number: {}", brief(value))));
        };
        read.insert(name.clone(), fits(metric, number)?);
    }
    let digest = match object.get("digest") {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) if !text.is_empty() && text.len() <= DIGEST_MAX => Some(text.clone()),
        Some(other) => return Err(refuse(format!("the result's digest is none: {}", brief(other)))),
    };
    let own = object.get("samples").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let samples = own.iter().filter_map(Json::as_f64).filter(|n| n.is_finite()).take(SAMPLES_MAX).collect();
    let score = match object.get("score") {
        None | Some(Json::Null) => None,
        Some(score) => match score.as_f64().filter(|n| n.is_finite()) {
            Some(number) => Some(number),
            None => return Err(refuse(format!("the result's score is no finite number: {}", brief(score)))),
        },
    };
    Ok(Sample { metrics: read, samples, digest, score, wall_ms, forgeable: contract.forgeable(), ..Sample::default() })
}

/// The number, if it can be a value of the metric.
pub(super) fn fits(metric: &MetricSpec, number: f64) -> Result<f64, Failure> {
    let (fits, want) = match metric.kind {
        Kind::Time => (number > 0.0 && number.is_finite(), "above 0"),
        Kind::Count => ((0.0..=COUNT_MAX).contains(&number) && number.fract() == 0.0, "a whole number of at least 0"),
    };
    if fits {
        // Adding 0.0 makes -0 and 0 one count.
        return Ok(number + 0.0);
    }
    let text = format!("the metric `{}` is {number}, which is not {want}", metric.name);
    Err(Failure::new(Cause::NoResult, &text))
}

/// The numbers that a process reports as its result: those of the private file that `$FLOW_VALUES` named, else the `values` of
/// the result itself. `None` if it reports none.
///
/// # Errors
/// NO_RESULT if there is something that cannot be read as numbers.
pub fn values(contract: Contract, end: &ProcessEnd<'_>, file: Option<&[u8]>) -> Result<Option<Values>, Failure> {
    let refuse = |text: String| Failure::new(Cause::NoResult, &text);
    if let Some(text) = file {
        return Values::parse(text).map(Some).map_err(refuse);
    }
    let object = match contract {
        Contract::Flow => end.result.and_then(|bytes| parse_object(bytes).ok()),
        Contract::Isobench => last_object(end.stdout, "").ok().flatten(),
        Contract::Text => None,
    };
    let Some(values) = object.as_ref().and_then(|object| object.get("values")).filter(|values| !values.is_null())
    else {
        return Ok(None);
    };
    Values::parse(values.to_string().as_bytes()).map(Some).map_err(refuse)
}

/// A result that tells of an error is none, whatever numbers stand beside it.
fn tells_no_error(told: Option<&Told>) -> Result<(), Failure> {
    match told {
        None => Ok(()),
        Some(told) => Err(Failure::new(Cause::NoResult, &format!("exit 0, but the result tells of an error: {told}"))),
    }
}

/// A script that says in which direction its metric is better must say what the manifest says: a speed-up read upside down
/// would be a wrong verdict that nobody sees.
fn agrees_on_direction(object: &Map<String, Json>, metrics: &[MetricSpec]) -> Result<(), Failure> {
    let (Some(lower), Some(primary)) = (object.get("lower_is_better").and_then(Json::as_bool), metrics.first()) else {
        return Ok(());
    };
    if lower == (primary.better == Better::Lower) {
        return Ok(());
    }
    let text = format!(
        "the result says lower_is_better={lower}, but `{}` is declared with better={}",
        primary.name, primary.better
    );
    Err(Failure::new(Cause::NoResult, &text))
}

/// What a result itself tells of an error.
pub(super) struct Told {
    /// The name of the error, or its text.
    name: String,
    /// More of it.
    more: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.more.is_empty() { f.write_str(&self.name) } else { write!(f, "{}: {}", self.name, self.more) }
    }
}

fn told(object: &Map<String, Json>) -> Option<Told> {
    let text = |name: &str| object.get(name).and_then(Json::as_str).filter(|t| !t.trim().is_empty());
    let name = text("error_name").or_else(|| text("error")).or_else(|| text("error_message"))?;
    let mut more: Vec<String> = ["error", "error_message", "message", "target"]
        .into_iter()
        .filter_map(text)
        .filter(|t| *t != name)
        .map(str::to_owned)
        .collect();
    if let Some(module) = text("attempted_module") {
        let symbol = text("attempted_symbol").map(|s| format!(".{s}")).unwrap_or_default();
        more.push(format!("(target {module}{symbol})"));
    }
    Some(Told { name: name.to_owned(), more: more.join(" ") })
}

/// A line for an end whose cause is known already: what the result tells, else the last line of standard error.
fn evidence(told: Option<&Told>, end: &ProcessEnd<'_>) -> String {
    told.map(ToString::to_string).or_else(|| signature::last_line(end.stderr)).unwrap_or_default()
}

/// The failure of a process that ended with a code of no contract: by its traceback, else by the error its result names.
pub(super) fn failed(end: &ProcessEnd<'_>, exit: i32, told: Option<&Told>) -> Failure {
    if let Some(Signature { cause, line }) = signature::of_stderr(end.stderr) {
        return Failure::new(cause, &line);
    }
    if let Some(told) = told {
        let line = told.to_string();
        return Failure::new(signature::cause_of(&told.name, &line), &line);
    }
    let line = signature::last_line(end.stderr).or_else(|| signature::last_line(end.stdout));
    let line = line.unwrap_or_else(|| format!("exit {exit} without any output"));
    Failure::new(Cause::Exception, &line)
}

/// NO_RESULT, with what standard error shows, if it shows an error.
pub(super) fn no_result(why: &str, end: &ProcessEnd<'_>) -> Failure {
    let shows = signature::of_stderr(end.stderr).map(|s| format!("; standard error: {}", s.line)).unwrap_or_default();
    Failure::new(Cause::NoResult, &format!("{why}{shows}"))
}

fn parse_object(bytes: &[u8]) -> Result<Map<String, Json>, String> {
    if bytes.len() > RESULT_MAX {
        return Err(format!("is larger than {RESULT_MAX} bytes"));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("is not one JSON object: {error}"))
}

/// The last line of standard output that is a JSON object. A later line that was meant to be the result and cannot be read
/// (`NaN` is no JSON, though Python prints it) is an error: an earlier object must not stand in for it.
fn last_object(stdout: &[u8], primary: &str) -> Result<Option<Map<String, Json>>, String> {
    let text = signature::tail(stdout, STDOUT_MAX);
    let quoted = format!("\"{primary}\"");
    for line in text.lines().rev().map(str::trim).filter(|line| line.starts_with('{')) {
        match serde_json::from_str(line) {
            Ok(object) => return Ok(Some(object)),
            Err(error) if line.contains(&quoted) => {
                return Err(format!("the result line is no JSON ({error}): {}", cut(line)));
            }
            Err(_) => {}
        }
    }
    Ok(None)
}

fn brief(value: &Json) -> String {
    cut(&value.to_string())
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}
