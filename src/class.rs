//! Classes: what the experiment says of a job. The list is closed; one ordered precedence decides.
//!
//! Pure: it reads how the steps upstream ended and what the measurement came to, and nothing else. Each class that is not a
//! success has a stage, an owner and a next action in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::outcome::{Cause, Owner};

/// The number of the rules below: an ingredient of every classify action, so that a changed rule classifies everything anew.
pub const RULES: u16 = 9;

macro_rules! classes {
    ($($name:ident = $text:literal, $stage:literal, $owner:expr, $retry:literal, $next:literal;)+) => {
        /// The verdict on a job.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each is documented by its row: stage, owner, next action")]
        pub enum Class {
            $(#[serde(rename = $text)] $name,)+
        }

        impl Class {
            /// Every class, successes first.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name, as printed and stored.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The stage of the pipeline it speaks of.
            #[must_use]
            pub fn stage(self) -> &'static str {
                match self { $(Self::$name => $stage),+ }
            }

            /// Whose doing it is; `None` for a result.
            #[must_use]
            pub fn owner(self) -> Option<Owner> {
                match self { $(Self::$name => $owner),+ }
            }

            /// Whether running it again without a change may give something else.
            #[must_use]
            pub fn retries(self) -> bool {
                match self { $(Self::$name => $retry),+ }
            }

            /// What to do, in words.
            #[must_use]
            pub fn next_action(self) -> &'static str {
                match self { $(Self::$name => $next),+ }
            }
        }
    };
}

use Owner::{Agent, Environment, Harness, Test};

classes! {
    SuccessImprovement = "SUCCESS_IMPROVEMENT", "patched", None, false, "none: the patch is faster, and whatever was compared of its results is the base's";
    SuccessNeutral = "SUCCESS_NEUTRAL", "patched", None, false, "none: the patch is measurably no faster and no slower";
    SuccessRegression = "SUCCESS_REGRESSION", "patched", None, false, "none: the patch is slower";
    Mixed = "MIXED", "patched", None, false, "read the metrics: one gained and a guard lost";
    Inconclusive = "INCONCLUSIVE", "patched", None, false, "go on with `flow extend JOB`, or raise the bound that was reached, `blocks max` or `time max`: the interval is too wide to say";
    Suspect = "SUSPECT", "patched", Some(Agent), false, "read the patch: what was measured cannot be believed; it waits for a `ruling` of a person";
    AgentNoPatch = "AGENT_NO_PATCH", "agent", Some(Agent), false, "none for this draw: the agent ended without changing a file";
    AgentTimeout = "AGENT_TIMEOUT", "agent", Some(Agent), false, "raise `timeout` on the agent step if it was still working";
    AgentMaxSteps = "AGENT_MAX_STEPS", "agent", Some(Agent), false, "raise the agent's own limit of steps";
    AgentError = "AGENT_ERROR", "agent", Some(Agent), false, "read `flow log JOB agent`";
    PatchInvalid = "PATCH_INVALID", "patch", Some(Agent), false, "read the evidence: what the agent left cannot be a patch";
    PatchEmptyEdit = "PATCH_EMPTY_EDIT", "patch", Some(Agent), false, "none for this draw: only blank space changed";
    PatchProtected = "PATCH_PROTECTED", "patch", Some(Agent), false, "none for this draw: the patch touches protected paths";
    PatchedBuildError = "PATCHED_BUILD_ERROR", "rebuild", Some(Agent), false, "none for this draw: the patched tree cannot be built, and the base can";
    PatchedImportError = "PATCHED_IMPORT_ERROR", "patched", Some(Agent), false, "none for this draw: the patched tree cannot be imported";
    PatchedTypeError = "PATCHED_TYPE_ERROR", "patched", Some(Agent), false, "read `flow log JOB patched`";
    PatchedAttributeError = "PATCHED_ATTRIBUTE_ERROR", "patched", Some(Agent), false, "read `flow log JOB patched`";
    PatchedRuntimeError = "PATCHED_RUNTIME_ERROR", "patched", Some(Agent), false, "read `flow log JOB patched`";
    PatchedAssertion = "PATCHED_ASSERTION", "patched", Some(Agent), false, "read `flow log JOB patched`";
    PatchedOom = "PATCHED_OOM", "patched", Some(Agent), false, "the patched tree needs more memory than there is";
    PatchedCudaError = "PATCHED_CUDA_ERROR", "patched", Some(Agent), false, "read `flow log JOB patched`";
    PatchedTimeout = "PATCHED_TIMEOUT", "patched", Some(Agent), false, "raise `timeout` on the patched step if the patch may be that slow";
    PatchedServerStartup = "PATCHED_SERVER_STARTUP", "patched", Some(Agent), false, "read the service's stream in `flow log JOB patched`: the server comes up on the base and not with the patch";
    PatchedException = "PATCHED_EXCEPTION", "patched", Some(Agent), false, "read `flow log JOB patched`";
    PatchedWrongResult = "PATCHED_WRONG_RESULT", "patched", Some(Agent), false, "none for this draw: the patch changes what is computed; where last digits may differ, say `equal close` on the test step";
    NoTestScript = "NO_TEST_SCRIPT", "baseline", Some(Test), false, "write the commit's test script";
    TargetNotResolved = "TARGET_NOT_RESOLVED", "baseline", Some(Test), false, "correct the target that the test script names, or take the commit off the list";
    OptPathNotHit = "OPT_PATH_NOT_HIT", "baseline", Some(Test), false, "make the test's workload reach the optimised path";
    ServerStartup = "SERVER_STARTUP", "baseline", Some(Test), false, "read the service's stream in `flow log JOB baseline`: it does not come up on the base; raise its `timeout` if it was still loading";
    TestImportError = "TEST_IMPORT_ERROR", "baseline", Some(Environment), false, "install what the test needs, or take the other copy of the package out of the interpreter";
    BaselineImportError = "BASELINE_IMPORT_ERROR", "baseline", Some(Test), false, "make the base importable in this environment, or take the commit off the list";
    BaselineTypeError = "BASELINE_TYPE_ERROR", "baseline", Some(Test), false, "read `flow log JOB baseline`: the script does not fit the base";
    BaselineAttributeError = "BASELINE_ATTRIBUTE_ERROR", "baseline", Some(Test), false, "read `flow log JOB baseline`: the script does not fit the base";
    BaselineRuntimeError = "BASELINE_RUNTIME_ERROR", "baseline", Some(Test), false, "read `flow log JOB baseline`";
    BaselineAssertion = "BASELINE_ASSERTION", "baseline", Some(Test), false, "read `flow log JOB baseline`";
    BaselineOom = "BASELINE_OOM", "baseline", Some(Test), false, "give the test more memory, or a smaller workload";
    BaselineCudaError = "BASELINE_CUDA_ERROR", "baseline", Some(Environment), false, "read `flow log JOB baseline`";
    BaselineTimeout = "BASELINE_TIMEOUT", "baseline", Some(Test), false, "raise `timeout` on the baseline step";
    BaselineException = "BASELINE_EXCEPTION", "baseline", Some(Test), false, "read `flow log JOB baseline`";
    BaselineNondeterministic = "BASELINE_NONDETERMINISTIC", "baseline", Some(Test), false, "fix the test's seed: two runs of the base disagree";
    EnvironmentFailed = "ENVIRONMENT_FAILED", "build", Some(Environment), true, "read `flow log JOB build`";
    CommitMissing = "COMMIT_MISSING", "checkout", Some(Environment), true, "fetch the commit, or take it off the list";
    CheckoutFailed = "CHECKOUT_FAILED", "checkout", Some(Environment), true, "read `flow log JOB checkout`";
    HarnessFailed = "HARNESS_FAILED", "harness", Some(Harness), true, "read the evidence, and report it if flow is to blame";
    NotRun = "NOT_RUN", "harness", Some(Harness), true, "run the same command again";
}

impl Class {
    /// Whether the measurement came to a result: SUCCESS_*, and what is extended rather than drawn again.
    #[must_use]
    pub fn usable(self) -> bool {
        matches!(self, Self::SuccessImprovement | Self::SuccessNeutral | Self::SuccessRegression | Self::Inconclusive)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How one step upstream ended, as far as a class can depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It succeeded.
    Succeeded,
    /// Its action is settled by a failure. `base_arm`: the failing process ran the base tree.
    Failed {
        /// Why.
        cause: Cause,
        /// For a test: whether it was the base that failed.
        base_arm: bool,
    },
    /// It was not run, for a cause that lies in the manifest (no test script).
    Skipped(Cause),
    /// It was not run because of a step upstream that speaks for itself.
    Blocked,
    /// Nothing is settled yet: unsettled, exhausted, interrupted.
    Open,
    /// The pipeline has no such step.
    Absent,
}

impl StepEnd {
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Failed { cause, .. } | Self::Skipped(cause) => Some(*cause),
            _ => None,
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}

/// What the measurement of the patched tree came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Faster beyond the smallest effect that matters.
    Improvement,
    /// Slower beyond it.
    Regression,
    /// Equivalent within it.
    Neutral,
    /// Cannot be said.
    Inconclusive,
    /// The primary metric and a guard contradict each other.
    Mixed,
    /// What was measured cannot be.
    Doubted,
}

/// How every step upstream of a classify step ended, by kind and role.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The checkout.
    pub checkout: StepEnd,
    /// The environments of base and patched tree, the worse of them.
    pub environment: StepEnd,
    /// The gate.
    pub baseline: StepEnd,
    /// The agent.
    pub agent: StepEnd,
    /// The patch.
    pub patch: StepEnd,
    /// The measurement.
    pub patched: StepEnd,
    /// What it came to, where it succeeded.
    pub effect: Option<Effect>,
}

/// A class and whether it is provisional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// Something upstream is not settled: the class may change.
    pub open: bool,
}

/// One rule of the precedence: the first that says something decides.
type Rule = fn(&Ends) -> Option<Class>;

/// The precedence, first to last. An earlier stage that failed is never hidden by a later one; what is wrong with commit,
/// environment or test comes before what the agent did, because nothing it did could be judged.
const PRECEDENCE: &[Rule] =
    &[by_checkout, by_environment, by_baseline, by_open, by_patch_and_agent, by_build, by_patched, by_effect];

/// The class of a job.
#[must_use]
pub fn classify(ends: &Ends) -> Verdict {
    let class = PRECEDENCE.iter().find_map(|rule| rule(ends)).unwrap_or(Class::NotRun);
    let open = matches!(class, Class::NotRun)
        || [&ends.checkout, &ends.environment, &ends.baseline].iter().any(|end| end.is_open());
    Verdict { class, open }
}

fn by_checkout(ends: &Ends) -> Option<Class> {
    ends.checkout.cause().map(|cause| match cause {
        Cause::CommitMissing => Class::CommitMissing,
        Cause::HarnessFault | Cause::DiskFull | Cause::Interrupted => Class::HarnessFailed,
        _ => Class::CheckoutFailed,
    })
}

fn by_environment(ends: &Ends) -> Option<Class> {
    ends.environment.cause().filter(|cause| *cause != Cause::BuildError).map(|cause| match cause {
        Cause::HarnessFault | Cause::DiskFull => Class::HarnessFailed,
        _ => Class::EnvironmentFailed,
    })
}

fn by_baseline(ends: &Ends) -> Option<Class> {
    base_failure(ends.baseline.cause()?)
}

fn by_open(ends: &Ends) -> Option<Class> {
    let all = [&ends.checkout, &ends.environment, &ends.baseline, &ends.agent, &ends.patch, &ends.patched];
    all.iter().any(|end| end.is_open()).then_some(Class::NotRun)
}

fn by_patch_and_agent(ends: &Ends) -> Option<Class> {
    let agent = ends.agent.cause();
    let by_agent = |otherwise| match agent {
        Some(Cause::Timeout) => Class::AgentTimeout,
        Some(Cause::MaxSteps) => Class::AgentMaxSteps,
        Some(Cause::HoldsSecret | Cause::BadTree | Cause::OverLimit) => Class::PatchInvalid,
        Some(_) => Class::AgentError,
        None => otherwise,
    };
    match ends.patch.cause() {
        Some(Cause::NoPatch) => Some(by_agent(Class::AgentNoPatch)),
        Some(Cause::EmptyEdit) => Some(by_agent(Class::PatchEmptyEdit)),
        Some(Cause::Protected) => Some(Class::PatchProtected),
        Some(Cause::HarnessFault | Cause::DiskFull) => Some(Class::HarnessFailed),
        Some(_) => Some(Class::PatchInvalid),
        None if ends.patch == StepEnd::Blocked => agent.map(|_| by_agent(Class::AgentError)),
        None => None,
    }
}

fn by_build(ends: &Ends) -> Option<Class> {
    (ends.environment.cause() == Some(Cause::BuildError)).then_some(Class::PatchedBuildError)
}

fn by_patched(ends: &Ends) -> Option<Class> {
    match &ends.patched {
        StepEnd::Failed { cause, base_arm: true } => base_failure(*cause),
        StepEnd::Failed { cause, base_arm: false } | StepEnd::Skipped(cause) => Some(match cause {
            Cause::WrongResult => Class::PatchedWrongResult,
            Cause::Tampered => Class::Suspect,
            Cause::ImportError => Class::PatchedImportError,
            Cause::TypeError => Class::PatchedTypeError,
            // The target was in the base and is gone: the patch took it away.
            Cause::AttributeError | Cause::TargetNotResolved => Class::PatchedAttributeError,
            Cause::RuntimeError => Class::PatchedRuntimeError,
            Cause::Assertion => Class::PatchedAssertion,
            Cause::Oom => Class::PatchedOom,
            Cause::CudaError => Class::PatchedCudaError,
            Cause::TestTimeout => Class::PatchedTimeout,
            Cause::OptPathNotHit => Class::OptPathNotHit,
            Cause::Nondeterministic => Class::BaselineNondeterministic,
            Cause::NoTestScript => Class::NoTestScript,
            Cause::WrongPackage => Class::TestImportError,
            Cause::ServerStartup => Class::PatchedServerStartup,
            Cause::EnvironmentFailed => Class::EnvironmentFailed,
            Cause::HarnessFault | Cause::DiskFull => Class::HarnessFailed,
            _ => Class::PatchedException,
        }),
        _ => None,
    }
}

fn by_effect(ends: &Ends) -> Option<Class> {
    if ends.patched != StepEnd::Succeeded {
        return None;
    }
    Some(match ends.effect? {
        Effect::Improvement => Class::SuccessImprovement,
        Effect::Regression => Class::SuccessRegression,
        Effect::Neutral => Class::SuccessNeutral,
        Effect::Inconclusive => Class::Inconclusive,
        Effect::Mixed => Class::Mixed,
        Effect::Doubted => Class::Suspect,
    })
}

fn base_failure(cause: Cause) -> Option<Class> {
    Some(match cause {
        Cause::NoTestScript => Class::NoTestScript,
        Cause::TargetNotResolved => Class::TargetNotResolved,
        Cause::OptPathNotHit => Class::OptPathNotHit,
        Cause::WrongPackage => Class::TestImportError,
        Cause::ServerStartup => Class::ServerStartup,
        Cause::EnvironmentFailed => Class::EnvironmentFailed,
        Cause::ImportError => Class::BaselineImportError,
        Cause::TypeError => Class::BaselineTypeError,
        Cause::AttributeError => Class::BaselineAttributeError,
        Cause::RuntimeError => Class::BaselineRuntimeError,
        Cause::Assertion => Class::BaselineAssertion,
        Cause::Oom => Class::BaselineOom,
        Cause::CudaError => Class::BaselineCudaError,
        Cause::TestTimeout => Class::BaselineTimeout,
        Cause::Nondeterministic => Class::BaselineNondeterministic,
        Cause::HarnessFault | Cause::DiskFull => Class::HarnessFailed,
        _ => Class::BaselineException,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end() -> impl Strategy<Value = StepEnd> {
        let cause = (0..Cause::ALL.len()).prop_map(|i| Cause::ALL[i]);
        prop_oneof![
            Just(StepEnd::Succeeded),
            (cause.clone(), any::<bool>()).prop_map(|(cause, base_arm)| StepEnd::Failed { cause, base_arm }),
            cause.prop_map(StepEnd::Skipped),
            Just(StepEnd::Blocked),
            Just(StepEnd::Open),
            Just(StepEnd::Absent),
        ]
    }

    fn ends() -> impl Strategy<Value = Ends> {
        let effect = prop_oneof![
            Just(Effect::Improvement),
            Just(Effect::Regression),
            Just(Effect::Neutral),
            Just(Effect::Inconclusive),
            Just(Effect::Mixed),
            Just(Effect::Doubted)
        ];
        (end(), end(), end(), end(), end(), end(), effect).prop_map(
            |(checkout, environment, baseline, agent, patch, patched, effect)| {
                let effect = (patched == StepEnd::Succeeded).then_some(effect);
                Ends { checkout, environment, baseline, agent, patch, patched, effect }
            },
        )
    }

    proptest! {
        /// Total: every combination has a class. Unique: it is the first rule's, whatever the later ones would say.
        #[test]
        fn the_precedence_is_total_and_the_first_rule_decides(ends in ends()) {
            let verdict = classify(&ends);
            let first = PRECEDENCE.iter().find_map(|rule| rule(&ends));
            prop_assert_eq!(verdict.class, first.unwrap_or(Class::NotRun));
        }

        /// Only a patched step that succeeded makes a success, and only a patch that is one.
        #[test]
        fn no_success_without_a_measured_patch(ends in ends()) {
            let verdict = classify(&ends);
            if verdict.class.name().starts_with("SUCCESS_") {
                prop_assert_eq!(&ends.patched, &StepEnd::Succeeded);
                prop_assert!(ends.patch.cause().is_none());
                prop_assert!(ends.baseline.cause().is_none());
            }
        }

        /// What is not settled never looks settled.
        #[test]
        fn an_open_measurement_is_open(mut ends in ends()) {
            ends.patched = StepEnd::Open;
            ends.effect = None;
            let verdict = classify(&ends);
            prop_assert!(!verdict.class.usable());
        }
    }

    #[test]
    fn every_failure_has_a_stage_and_a_next_action() {
        let mut names = std::collections::BTreeSet::new();
        for class in Class::ALL {
            assert!(names.insert(class.name()));
            assert!(!class.stage().is_empty() && !class.next_action().is_empty());
            let result = class.usable() || *class == Class::Mixed;
            assert_eq!(class.owner().is_none(), result, "{class}");
        }
    }
}
