//! What one attempt of an action did: it succeeded, or it failed for a cause that has an owner.
//!
//! Says nothing of quality: that is `class`. A failure cannot be built without a cause and a line of evidence.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Whose fault an end is, and so who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The coding agent, its model included.
    Agent,
    /// The provider of the model: credentials, quota, rate limits.
    Provider,
    /// The machine, the installed tools, the repository's place.
    Environment,
    /// The test script or the commit it tests.
    Test,
    /// flow itself, or whoever stopped it.
    Harness,
    /// Whoever set an amount in the manifest.
    Person,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Provider => "provider",
            Self::Environment => "environment",
            Self::Test => "test",
            Self::Harness => "harness",
            Self::Person => "person",
        })
    }
}

/// What a cause shuts for others: what is sure to meet them too is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shuts {
    /// Nothing.
    Nothing,
    /// The candidate: its agent is broken in the same way for every commit.
    Candidate,
    /// The lane of the provider that the candidate's model names.
    Lane,
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $owner:ident, $settles:literal, $counts:literal, $shuts:ident, $next:literal;)+) => {
        /// Why an attempt or a step ended without success. The list is closed; each row says who owns it, whether it settles
        /// the action (it is the action's own doing and would come again), whether it counts towards `attempts`, what it shuts
        /// for others, and what to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Cause {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Cause {
            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name, as printed and stored.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// Who owns it.
            #[must_use]
            pub fn owner(self) -> Owner {
                match self { $(Self::$name => Owner::$owner),+ }
            }

            /// Whether an attempt that ended so speaks for its action.
            #[must_use]
            pub fn settles(self) -> bool {
                match self { $(Self::$name => $settles),+ }
            }

            /// Whether such an attempt counts towards the step's `attempts`.
            #[must_use]
            pub fn counts(self) -> bool {
                match self { $(Self::$name => $counts),+ }
            }

            /// What else cannot go on once an attempt ended so.
            #[must_use]
            pub fn shuts(self) -> Shuts {
                match self { $(Self::$name => Shuts::$shuts),+ }
            }

            /// What to do about it, in words.
            #[must_use]
            pub fn next_action(self) -> &'static str {
                match self { $(Self::$name => $next),+ }
            }
        }
    };
}

causes! {
    /// The commit is not in the repository.
    CommitMissing = "COMMIT_MISSING", Environment, false, true, Nothing, "fetch the commit into the repository, or take it off the list";
    /// The base tree could not be read or written.
    CheckoutFailed = "CHECKOUT_FAILED", Environment, false, true, Nothing, "read the log: a damaged mirror, or a disk that cannot be read";
    /// A recipe failed or its interpreter did not answer.
    EnvironmentFailed = "ENVIRONMENT_FAILED", Environment, false, true, Nothing, "read the log of the environment step";
    /// An asset could not be had, or is not what the manifest says.
    AssetFailed = "ASSET_FAILED", Environment, false, true, Nothing, "see that its server answers and that its digest is right, and run the same command again";
    /// The patched tree's build fails, twice, and that of the base does not.
    BuildError = "BUILD_ERROR", Agent, true, true, Nothing, "none for this draw: the patched tree cannot be built, and the base can";
    /// A declared tool changed while an attempt used it.
    ToolChanged = "TOOL_CHANGED", Environment, false, false, Candidate, "do not change tools under a run; run again";
    /// The agent's process ended with a code other than 0.
    Crashed = "CRASHED", Agent, true, true, Nothing, "read the agent's log";
    /// The agent was killed by a signal it did not get from flow.
    Killed = "KILLED", Environment, false, true, Nothing, "read the agent's log; the system may have run out of memory";
    /// The agent sent the model a conversation without the output of one of its tool calls.
    ToolOutputMissing = "TOOL_OUTPUT_MISSING", Agent, true, true, Nothing, "a bug of the agent: run a version that mends it, and say `reuse except cause=TOOL_OUTPUT_MISSING`";
    /// The same on a wire that calls it a tool result.
    ToolResultMissing = "TOOL_RESULT_MISSING", Agent, true, true, Nothing, "a bug of the agent: run a version that mends it, and say `reuse except cause=TOOL_RESULT_MISSING`";
    /// The agent reported a tool's failure without a word.
    EmptyErrorContent = "EMPTY_ERROR_CONTENT", Agent, true, true, Nothing, "a bug of the agent: run a version that mends it";
    /// The conversation outgrew the model's window.
    ContextLength = "CONTEXT_LENGTH", Agent, true, true, Nothing, "none for this draw: the agent filled the model's window";
    /// The model's reply was cut at its own limit.
    OutputLimit = "OUTPUT_LIMIT", Agent, true, true, Nothing, "raise the agent's limit of output tokens in its config";
    /// The agent could not parse what the model said.
    JsonParse = "JSON_PARSE", Agent, true, true, Nothing, "read the trajectory; a larger limit of output tokens often helps";
    /// The agent reached its own limit of steps.
    MaxSteps = "MAX_STEPS", Agent, true, true, Nothing, "raise the agent's own limit of steps in its config";
    /// The agent reached its own limit of cost.
    CostLimit = "COST_LIMIT", Agent, true, true, Nothing, "raise the agent's own limit of cost in its config";
    /// It failed, and no signature knows how.
    Unknown = "UNKNOWN", Agent, true, true, Nothing, "read `flow log JOB agent`, and add a `signature` to the adapter: no agent runs again for it";
    /// The account has nothing left.
    QuotaExceeded = "QUOTA_EXCEEDED", Provider, false, false, Lane, "add credit to the provider's account, or wait for its quota";
    /// Credentials that were good are not any more.
    CredentialsExpired = "CREDENTIALS_EXPIRED", Provider, false, false, Lane, "log in to the provider again, or mend what its secret is taken from";
    /// What the manifest asks its provider by did not say yes.
    ProbeFailed = "PROBE_FAILED", Provider, false, false, Lane, "read what the provider's `probe` or `expires` says: mend the login, the account or the network";
    /// The provider does not know the key.
    InvalidApiKey = "INVALID_API_KEY", Provider, false, false, Lane, "correct the provider's secret";
    /// The provider does not offer the model to this account.
    ModelNotFound = "MODEL_NOT_FOUND", Provider, false, false, Candidate, "correct the candidate's `model`, or ask the provider for access to it";
    /// Its lane closed while it worked: it was stopped.
    LaneClosed = "LANE_CLOSED", Provider, false, false, Nothing, "mend what closed the lane, and run the same command again";
    /// The provider asked for patience.
    RateLimited = "RATE_LIMITED", Provider, false, true, Nothing, "lower the provider's `lane` or `per-minute`";
    /// The provider has no room.
    Overloaded = "OVERLOADED", Provider, false, true, Nothing, "run the same command again later";
    /// The provider failed.
    ServerError = "SERVER_ERROR", Provider, false, true, Nothing, "run the same command again later";
    /// The way to the provider broke.
    Connection = "CONNECTION", Provider, false, true, Nothing, "look at the network between here and the provider";
    /// The agent refused its configuration or its arguments.
    AgentConfig = "AGENT_CONFIG", Environment, false, false, Candidate, "correct the candidate's config or the adapter's argv";
    /// The agent's own installation lacks a module, or a program it starts.
    MissingModule = "MISSING_MODULE", Environment, false, false, Candidate, "repair the agent's installation; `flow doctor` tells more";
    /// A pipe between the agent and its own tools broke.
    BrokenPipe = "BROKEN_PIPE", Harness, false, true, Nothing, "run the same command again";
    /// The agent reached the step's `timeout`.
    Timeout = "TIMEOUT", Agent, true, true, Nothing, "raise `timeout` on the step if the agent was still working";
    /// More output or more files than the limit allows.
    OverLimit = "OVER_LIMIT", Agent, true, true, Nothing, "raise the step's `limit` if so much is to be expected";
    /// The program could not be started at all.
    NotStarted = "NOT_STARTED", Environment, false, true, Nothing, "install the program, or correct its path in the manifest";
    /// A secret that a candidate or a step declares is not to be had.
    SecretMissing = "SECRET_MISSING", Environment, false, false, Lane, "mend what the secret is taken from: its variable, its file or its command";
    /// A secret of a provider is not to be had, and nothing says that a login ran out.
    CredentialsMissing = "CREDENTIALS_MISSING", Environment, false, false, Lane, "mend what the provider's secret is taken from (its variable, its file or its command), or log in again";
    /// The work tree or the patch holds the value of a secret.
    HoldsSecret = "HOLDS_SECRET", Agent, true, true, Nothing, "treat the key as exposed and renew it; the draw stands: `samples` of the candidate draws another";
    /// The work tree holds what no git tree can: a device, a name with `..`, too many files.
    BadTree = "BAD_TREE", Agent, true, true, Nothing, "read the evidence: the agent left something that is not a source tree";
    /// The patch touches protected paths.
    Protected = "PROTECTED", Agent, true, true, Nothing, "none for this draw; `protect` in the manifest says which paths are refused";
    /// The patch is larger than the patch step's `limit`.
    PatchTooLarge = "PATCH_TOO_LARGE", Agent, true, true, Nothing, "raise `limit` on the patch step if patches that large are wanted";
    /// The work tree equals the base tree.
    NoPatch = "NO_PATCH", Agent, true, true, Nothing, "read the agent's log: it ended without changing a file";
    /// Only blank space changed.
    EmptyEdit = "EMPTY_EDIT", Agent, true, true, Nothing, "none: the agent changed only blank space";
    /// Lines of the human's change stand in the prompt or in the tree that the agent would have seen.
    LeakedAnswer = "LEAKED_ANSWER", Test, false, false, Nothing, "take the human's change out of the prompt or out of what is installed, or correct the commit's base; `leaks record` on the agent step runs it all the same";
    /// The commit has no test script.
    NoTestScript = "NO_TEST_SCRIPT", Test, true, true, Nothing, "write the commit's test script where `tests dir=… name=…` looks for it";
    /// The test says that its target is not in the tree.
    TargetNotResolved = "TARGET_NOT_RESOLVED", Test, true, true, Nothing, "correct the module or symbol that the test script names";
    /// The test says that the optimised path was not taken.
    OptPathNotHit = "OPT_PATH_NOT_HIT", Test, true, true, Nothing, "correct the test's workload so that it reaches the optimised path";
    /// The test measured nothing because another package was imported.
    WrongPackage = "WRONG_PACKAGE", Environment, true, true, Nothing, "remove the installed package from the interpreter, so that the tree's own is imported";
    /// A file of the tested tree makes a shim start another program than the one that was probed.
    OtherProgram = "OTHER_PROGRAM", Test, true, true, Nothing, "name the program itself as the tool, not a version manager's shim";
    /// The test could not import what it tests.
    ImportError = "IMPORT_ERROR", Test, true, true, Nothing, "read the test's log: a module is missing or broken";
    /// The test ended with a `TypeError`.
    TypeError = "TYPE_ERROR", Test, true, true, Nothing, "read the test's log: the target's signature differs from what the script calls";
    /// The test ended with an `AttributeError`.
    AttributeError = "ATTRIBUTE_ERROR", Test, true, true, Nothing, "read the test's log: a name is gone from the package";
    /// The test ended with a `RuntimeError`.
    RuntimeError = "RUNTIME_ERROR", Test, true, true, Nothing, "read the test's log";
    /// The test ended with an `AssertionError`.
    Assertion = "ASSERTION", Test, true, true, Nothing, "read the test's log: its own check failed";
    /// The test ran out of memory.
    Oom = "OOM", Test, true, true, Nothing, "give the test more memory, or a smaller workload";
    /// The test met an error of the GPU's driver or runtime.
    CudaError = "CUDA_ERROR", Test, true, true, Nothing, "read the test's log: an error of the GPU";
    /// A process of the test reached the step's `timeout`.
    TestTimeout = "TEST_TIMEOUT", Test, true, true, Nothing, "raise `timeout` on the test step if the workload needs longer";
    /// A service of the test was not ready in time, or ended before it was.
    ServerStartup = "SERVER_STARTUP", Test, true, true, Nothing, "read the service's stream in the step's log; raise `timeout` of the `service` if it was still loading";
    /// The port of a service of the test is somebody else's.
    PortTaken = "PORT_TAKEN", Environment, false, true, Nothing, "end what listens on the port that the evidence names, or take `port` out of the `service`: flow then finds a free one";
    /// The compile caches of one tree are larger than flow keeps.
    CachesTooLarge = "CACHES_TOO_LARGE", Test, true, true, Nothing, "take the cache that is so large out of `caches`, or let the test compile less: the evidence says the limit";
    /// The test ended with any other error.
    Exception = "EXCEPTION", Test, true, true, Nothing, "read the test's log";
    /// The test ended well but reported no result that can be read.
    NoResult = "NO_RESULT", Test, true, true, Nothing, "make the script report its metric as its contract says";
    /// Two runs of the base disagree.
    Nondeterministic = "NONDETERMINISTIC", Test, true, true, Nothing, "make the test's result a function of its seed: docs/tests.md says how";
    /// The patched tree's results differ from the base's.
    WrongResult = "WRONG_RESULT", Agent, true, true, Nothing, "none for this draw: the patch changes what the code computes";
    /// A process of the patched tree changed the base tree or the test script.
    Tampered = "TAMPERED", Agent, true, true, Nothing, "read the patch: it changes what it is measured with";
    /// A command of the manifest's own ended with a code other than 0.
    CommandFailed = "COMMAND_FAILED", Test, true, true, Nothing, "read the command's log";
    /// A command ended well without a declared output file.
    OutputMissing = "OUTPUT_MISSING", Test, true, true, Nothing, "make the command write each `output` it declares";
    /// The machine was disturbed in more blocks of a measurement than may be dropped.
    MachineDisturbed = "MACHINE_DISTURBED", Environment, false, true, Nothing, "end what disturbs the machine, which the evidence names, and run again; `guard` on the test step says what is borne";
    /// Somebody stopped the run, or flow or the machine died.
    Interrupted = "INTERRUPTED", Harness, false, false, Nothing, "run the same command again";
    /// A blob that a record names is gone from the store, or was damaged.
    BlobLost = "BLOB_LOST", Harness, false, false, Nothing, "run the same command again: what made it is made anew";
    /// A disk or a quota was full while flow did its own part. It is no attempt: an hour of a full disk leaves nothing open for good.
    DiskFull = "DISK_FULL", Environment, false, false, Nothing, "free some space on the disk that the evidence names, by `flow gc` say, and run the same command again";
    /// flow could not do its own part.
    HarnessFault = "HARNESS_FAULT", Harness, false, true, Nothing, "read the evidence; if it is not the disk, report a bug of flow";
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One line that shows a failure: never empty, never longer than 500 characters, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Evidence(String);

/// How a provider says how long to wait, in small letters: a length of time follows.
pub const WAIT_WORDS: [&str; 7] =
    ["retry after", "retry-after", "retry_after", "retrydelay", "try again in", "try again after", "retry in"];
/// The longest evidence, in bytes, and how much of it the words are that ask for a wait, where they stand further behind.
const LONGEST: usize = 500;
const ASKING: usize = 80;

impl Evidence {
    /// The text on one line; `(no output)` for nothing. Of a text too long to be kept, the words that ask for a wait are kept too:
    /// the wait is read from them.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let words = || text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
        let (mut line, whole) = first_words(words(), LONGEST);
        if !whole {
            let all = words().collect::<Vec<_>>().join(" ");
            let small = all.to_ascii_lowercase();
            let last = WAIT_WORDS.iter().filter_map(|lead| small.rfind(lead)).max();
            line = match last.filter(|at| at + ASKING > LONGEST) {
                Some(at) => {
                    let asks = first_words(all[at..].split(' '), ASKING).0;
                    format!("{}… {asks}", first_words(words(), LONGEST - ASKING).0)
                }
                None => line,
            };
            line.push('…');
        }
        if line.is_empty() {
            line.push_str("(no output)");
        }
        Self(line)
    }

    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As many words as fit, and whether these are all.
fn first_words<'a>(words: impl Iterator<Item = &'a str>, most: usize) -> (String, bool) {
    let mut line = String::new();
    for word in words {
        if line.len() + word.len() > most {
            return (line, false);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    (line, true)
}

/// A failure: always with a cause and evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// The exit code of the process that failed, where one ended with a code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<i32>,
    /// The line that shows it.
    pub evidence: Evidence,
    /// The blob of the full log, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log: Option<Digest>,
}

impl Failure {
    /// A failure without a process. A tree that could not be written because the disk is full is [`Cause::DiskFull`].
    #[must_use]
    pub fn new(cause: Cause, evidence: &str) -> Self {
        if cause == Cause::CheckoutFailed {
            return Self::of_flow(cause, evidence);
        }
        Self { cause, exit: None, evidence: Evidence::new(evidence), log: None }
    }

    /// A failure of flow's own part: `cause`, unless the words of the system say that the disk is full. For what flow itself met
    /// alone: the text of an agent or a test could say anything.
    #[must_use]
    pub fn of_flow(cause: Cause, evidence: &str) -> Self {
        let full = ["No space left on device", "Disk quota exceeded"].iter().any(|words| evidence.contains(words));
        let cause = if full { Cause::DiskFull } else { cause };
        Self { cause, exit: None, evidence: Evidence::new(evidence), log: None }
    }

    /// With the exit code of the process.
    #[must_use]
    pub fn exit(mut self, code: Option<i32>) -> Self {
        self.exit = code;
        self
    }

    /// With the blob of the full log.
    #[must_use]
    pub fn log(mut self, log: Option<Digest>) -> Self {
        self.log = log;
        self
    }
}

/// What an attempt did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it was to do; its outputs are there.
    Succeeded,
    /// It did not. It may have left outputs all the same: a timed-out agent's work tree is one.
    Failed(Failure),
}

impl Outcome {
    /// The failure, if it is one.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Succeeded => None,
            Self::Failed(failure) => Some(failure),
        }
    }

    /// A failure with the log that a person looks into first: standard error, else standard output.
    #[must_use]
    pub fn with_log(self, logs: &BTreeMap<String, Digest>) -> Self {
        let log = logs.get("stderr").or_else(|| logs.get("stdout")).copied();
        match self {
            Self::Succeeded => Self::Succeeded,
            Self::Failed(failure) => Self::Failed(failure.log(log)),
        }
    }

    /// The cause's name, or `SUCCEEDED`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.failure().map_or("SUCCEEDED", |f| f.cause.name())
    }

    /// Whether it speaks for its action.
    #[must_use]
    pub fn settles(&self) -> bool {
        self.failure().is_none_or(|f| f.cause.settles())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_attempt_whatever_flow_was_at() {
        let full = "index/packs/x.idx: No space left on device (os error 28)";
        for cause in [Cause::CheckoutFailed, Cause::HarnessFault] {
            assert_eq!(Failure::of_flow(cause, full).cause, Cause::DiskFull);
            assert_eq!(Failure::of_flow(cause, "x: Input/output error (os error 5)").cause, cause);
        }
        assert_eq!(Failure::new(Cause::CheckoutFailed, full).cause, Cause::DiskFull);
        assert_eq!(Failure::new(Cause::Crashed, full).cause, Cause::Crashed, "what an agent says is its own");
        assert!(!Cause::DiskFull.counts() && !Cause::DiskFull.settles());
    }

    #[test]
    fn evidence_is_one_bounded_line_and_never_empty() {
        assert_eq!(Evidence::new(" \n\t\x1b ").as_str(), "(no output)");
        assert_eq!(Evidence::new("a\n b\x07c").as_str(), "a b c");
        assert!(Evidence::new(&"word ".repeat(1000)).as_str().len() < 510);
        assert!(Evidence::new(&"x".repeat(5000)).as_str().chars().count() < 510);
        let long =
            format!("429 Too Many Requests: {} \"retryDelay\": \"45s\" {}", "limits ".repeat(90), "x ".repeat(300));
        let kept = Evidence::new(&long);
        assert!(kept.as_str().starts_with("429 Too") && kept.as_str().contains("retryDelay\": \"45s\""), "{kept:?}");
        assert!(kept.as_str().len() < 510, "{kept:?}");
    }

    #[test]
    fn names_of_causes_are_unique_and_read_back() {
        for cause in Cause::ALL {
            let text = serde_json::to_string(cause).unwrap();
            assert_eq!(text, format!("\"{}\"", cause.name()));
            assert_eq!(serde_json::from_str::<Cause>(&text).unwrap(), *cause);
            assert!(!cause.next_action().is_empty());
        }
    }
}
