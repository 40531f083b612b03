//! What heads every report: how often the A/A control came out as false, of how many vetted commits the rates speak, and what a
//! person ruled.
//!
//! A pure function of the plan and of results. Measures nothing.

use serde::Serialize;

use crate::class::Class;
use crate::manifest::Kind::Classify;
use crate::manifest::Pipeline;
use crate::measure::others::{Alarms, PointRules, alarms};
use crate::measure::protocol::Profile;
use crate::measure::stats::wilson;
use crate::measure::{Kind, MetricSpec};
use crate::plan::{Job, Plan};
use crate::report::detail::measured;
use crate::report::jobs::{self, JobResult};
use crate::report::standing::standing;
use crate::store::{Index, Store};
use crate::text::{counted, wrap};

/// What the A/A control of a campaign came to: base against base, where every difference that is found is false.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// `calibrated`, `UNCALIBRATED`, or `exact` where nothing of time is measured.
    pub state: &'static str,
    /// How many controls the manifest asks for.
    pub controls: usize,
    /// How many of them were measured.
    pub measured: usize,
    /// How many of those came out as a difference.
    pub false_verdicts: usize,
    /// How many of them the machine was too noisy to decide: they cannot be false, and show no quiet machine either. Absent where
    /// that was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecided: Option<usize>,
    /// Their share; absent where none was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Its Wilson interval at 95 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wilson: Option<[f64; 2]>,
    /// The share that the profile promises not to exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promised: Option<f64>,
}

/// Whether a class says that two trees differ in speed.
#[must_use]
pub fn differs(class: Class) -> bool {
    matches!(class, Class::SuccessImprovement | Class::SuccessRegression | Class::Mixed)
}

impl Calibration {
    /// What is known of so many controls.
    #[must_use]
    pub fn new(timed: bool, controls: usize, measured: usize, false_verdicts: usize, promised: Option<f64>) -> Self {
        let interval = wilson(false_verdicts, measured);
        let holds = interval.is_some_and(|[low, _]| promised.is_none_or(|promised| low <= promised));
        let state = match (timed, holds) {
            (false, _) => "exact",
            (true, true) => "calibrated",
            (true, false) => "UNCALIBRATED",
        };
        let rate = (measured > 0).then(|| false_verdicts as f64 / measured as f64);
        Self { state, controls, measured, false_verdicts, undecided: None, rate, wilson: interval, promised }
    }

    /// Of a plan: every control that it has, as the store knows them.
    #[must_use]
    pub fn of(plan: &Plan, store: &Store, index: &Index) -> Self {
        Self::from_results(plan, &controls(plan, store, index))
    }

    /// The same of results that were looked at.
    #[must_use]
    pub fn from_results(plan: &Plan, results: &[JobResult]) -> Self {
        let measured =
            |result: &&JobResult| !result.open && result.class.is_some_and(|class| class.usable() || differs(class));
        let false_verdict = |result: &&JobResult| result.class.is_some_and(differs);
        let measured: Vec<&JobResult> = results.iter().filter(measured).collect();
        let wrong = measured.iter().copied().filter(|result| false_verdict(result)).count();
        let undecided = measured.iter().filter(|result| result.class == Some(Class::Inconclusive)).count();
        let of = Self::new(
            timed(&plan.manifest.pipeline),
            results.len(),
            measured.len(),
            wrong,
            promised_by(&plan.manifest.pipeline),
        );
        Self { undecided: Some(undecided), ..of }
    }

    /// One line or two, for the head of a report; nothing where all counts are exact.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let percent = |share: f64| format!("{:.1}\u{a0}%", 100.0 * share);
        let said = match (self.state, self.rate, self.wilson) {
            ("exact", ..) => return String::new(),
            (_, Some(rate), Some([low, high])) => {
                let promised = self.promised.map_or_else(String::new, |promised| {
                    let within = if self.state == "calibrated" { "which includes" } else { "which is above" };
                    format!(", {within} what is promised, at most {}", percent(promised))
                });
                let undecided = match self.undecided {
                    None | Some(0) => String::new(),
                    Some(count) => format!(", {count} undecided"),
                };
                let mark = if self.state == "calibrated" { "A/A control" } else { "UNCALIBRATED: A/A control" };
                format!(
                    "{mark}: {} of {} came out as a difference{undecided}: {} false verdicts, 95\u{a0}% interval {} to {}{promised}",
                    self.false_verdicts,
                    match self.measured {
                        1 => "1 pair of equal trees".to_owned(),
                        pairs => format!("{pairs} pairs of equal trees"),
                    },
                    percent(rate),
                    percent(low),
                    percent(high)
                )
            }
            _ if self.controls > 0 => {
                format!("UNCALIBRATED: none of {} was measured yet", counted(self.controls, "A/A control"))
            }
            _ => "UNCALIBRATED: how often this machine calls equal trees different is not known; `calibrate` in the pipeline, \
                  or `flow calibrate MANIFEST`, measures it"
                .to_owned(),
        };
        format!("{}\n", wrap(&said, width).join("\n  "))
    }
}

/// The results of all A/A controls of a plan.
#[must_use]
pub fn controls(plan: &Plan, store: &Store, index: &Index) -> Vec<JobResult> {
    look(plan, store, index, |job| job.control)
}

/// The results of the jobs that a person ruled, whether or not a run is about them.
#[must_use]
pub fn ruled(plan: &Plan, store: &Store, index: &Index) -> Vec<JobResult> {
    let rulings = &plan.manifest.pipeline.rulings;
    look(plan, store, index, |job| rulings.iter().any(|ruling| ruling.job.value == job.id.as_str()))
}

fn look(plan: &Plan, store: &Store, index: &Index, is: impl Fn(&Job) -> bool) -> Vec<JobResult> {
    let (jobs, wanted) = those(plan, is);
    if jobs.is_empty() {
        return Vec::new();
    }
    jobs::results(plan, &standing(plan, store, index, &wanted), &jobs, &wanted)
}

/// Some jobs, and their actions.
fn those(plan: &Plan, is: impl Fn(&Job) -> bool) -> (Vec<usize>, Vec<bool>) {
    let jobs: Vec<usize> = (0..plan.jobs.len()).filter(|job| is(&plan.jobs[*job])).collect();
    let mut wanted = vec![false; plan.nodes.len()];
    for node in jobs.iter().flat_map(|job| &plan.jobs[*job].nodes) {
        wanted[*node] = true;
    }
    (jobs, wanted)
}

/// What the rules of others make of the runs of a plan's A/A controls.
#[must_use]
pub fn others(plan: &Plan, store: &Store, index: &Index) -> Vec<Alarms> {
    let (jobs, wanted) = those(plan, |job| job.control);
    let ends = standing(plan, store, index, &wanted).ends;
    let of = |job: &usize| {
        let classify = plan.jobs[*job].nodes.iter().find(|node| plan.kind(**node) == Classify)?;
        Some(PointRules::of(&measured(plan, *classify, &ends, store)?))
    };
    alarms(&jobs.iter().filter_map(of).collect::<Vec<_>>())
}

/// The same in lines, for people. Nothing where no rule had the runs for it.
#[must_use]
pub fn others_text(alarms: &[Alarms], width: usize) -> String {
    let said = alarms.iter().filter(|rule| rule.pairs > 0).map(|rule| {
        let [low, high] = wilson(rule.alarms, rule.pairs).unwrap_or([0.0, 1.0]);
        let percent = |share: f64| format!("{:.1}\u{a0}%", 100.0 * share);
        let rate = rule.alarms as f64 / rule.pairs as f64;
        let said = format!(
            "{}: {} of {}, {} ({} to {})",
            rule.rule,
            rule.alarms,
            rule.pairs,
            percent(rate),
            percent(low),
            percent(high)
        );
        format!("  {}\n", wrap(&said, width.saturating_sub(2)).join("\n    "))
    });
    let lines: String = said.collect();
    if lines.is_empty() {
        lines
    } else {
        format!("\nthe same runs by the rules of others, a difference where there is none\n{lines}")
    }
}

/// Whether some commit is measured by time: only then can a verdict be false by chance.
#[must_use]
pub fn timed(pipeline: &Pipeline) -> bool {
    let of = |metrics: &[MetricSpec]| metrics.is_empty() || metrics.iter().any(|metric| metric.kind == Kind::Time);
    let tests = || pipeline.repos.iter().flat_map(|repo| &repo.tests);
    let bodies = pipeline.steps.iter().filter_map(|step| match &step.body {
        crate::manifest::Body::Test(test) if !test.aa => Some(&test.metrics),
        _ => None,
    });
    let mut bodies = bodies.peekable();
    bodies.peek().is_some()
        && bodies.any(|metrics| if metrics.is_empty() { tests().any(|t| of(&t.metrics)) } else { of(metrics) })
}

/// What the profile of the measured patches promises: it is that of the controls.
#[must_use]
pub fn promised_by(pipeline: &Pipeline) -> Option<f64> {
    let of = |step: &crate::manifest::Step| match &step.body {
        crate::manifest::Body::Test(test) if test.against.is_some() => Some(test.protocol.profile),
        _ => None,
    };
    Some(match pipeline.steps.iter().find_map(of)? {
        Profile::Screen => 0.057,
        Profile::Headline => 0.008,
        Profile::Fixed => 0.05,
    })
}

/// Of how many vetted commits the rates speak: `of 31 vetted commits; 68 of the list are out`. Nothing where none was vetted.
#[must_use]
pub fn vetted(pipeline: &Pipeline) -> Option<String> {
    let lists = || pipeline.repos.iter().filter_map(|repo| repo.vetted.as_ref());
    lists().next()?;
    let sum = |of: fn(&crate::manifest::Vetted) -> usize| lists().map(of).sum::<usize>();
    let (vetted, out, unknown) = (sum(|list| list.vetted), sum(|list| list.out), sum(crate::manifest::Vetted::unknown));
    let unknown = if unknown == 0 { String::new() } else { format!(", {unknown} not vetted yet") };
    Some(format!("of {}; {out} of the list are out{unknown}", counted(vetted, "vetted commit")))
}

/// What a person said of jobs, each beside what flow says of it.
#[must_use]
pub fn rulings(pipeline: &Pipeline, results: &[JobResult], width: usize) -> String {
    let mut text = String::new();
    for ruling in &pipeline.rulings {
        let job = &ruling.job.value;
        let class = results.iter().find(|result| result.job.as_str() == job).and_then(|result| result.class);
        let by_flow = class.map_or("nothing yet", Class::name);
        let said = match ruling.verdict {
            Some(verdict) => format!("{job}: {} by a person, {by_flow} by flow: {}", verdict.name(), ruling.because),
            None => format!("{job}: taken out by a person, {by_flow} by flow: {}", ruling.because),
        };
        text.push_str(&format!("  {}\n", wrap(&said, width.saturating_sub(2)).join("\n    ")));
    }
    if text.is_empty() { text } else { format!("\nrulings\n{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_held_against_the_interval_and_not_against_chance() {
        let of = |measured, wrong| Calibration::new(true, measured, measured, wrong, Some(0.057)).state;
        assert_eq!(of(0, 0), "UNCALIBRATED");
        assert_eq!(of(10, 1), "calibrated", "one of ten is no proof of more than 5.7 %");
        assert_eq!(of(10, 5), "UNCALIBRATED");
        assert_eq!(of(200, 10), "calibrated");
        assert_eq!(of(200, 40), "UNCALIBRATED");
        assert_eq!(Calibration::new(false, 0, 0, 0, None).text(80), "", "exact counts are never false");
    }

    #[test]
    fn the_rate_is_told_with_its_interval() {
        let text = Calibration::new(true, 10, 10, 0, Some(0.057)).text(400);
        let said = "A/A control: 0 of 10 pairs of equal trees came out as a difference: 0.0 % false verdicts, 95 % interval 0.0 % to 27.8 %, which includes what is promised, at most 5.7 %\n";
        assert_eq!(text, said);
    }
}
