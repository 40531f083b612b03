//! Signatures: what the text of an agent's error means. flow's own table, tried after the adapter's.
//!
//! The order matters: quota before rate limit, expired before invalid key, overloaded before server error. A signature is
//! matched against an error's text, its white space collapsed, and never against a whole log: a survived retry would hit.

use std::fmt;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::outcome::{Cause, Shuts};

/// The largest compiled pattern, in bytes.
const LARGEST: usize = 1 << 20;

/// A regular expression and the text it was written as.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pattern(Regex);

/// A text that is no regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(String);

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// If it is none, or too large.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(LARGEST).build().map(Self).map_err(|error| {
            // The engine draws the place over several lines; its last one says what is wrong.
            let said = error.to_string();
            BadPattern(said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
        })
    }

    /// The engine.
    #[must_use]
    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Self, BadPattern> {
        Self::new(&text)
    }
}

/// A pattern and what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The cause.
    pub cause: Cause,
    /// The pattern.
    pub pattern: Pattern,
}

/// Whether a reading can give a cause: those that flow itself finds stay what they are, whatever a table says.
#[must_use]
pub fn readable(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::Crashed
            | Cause::Killed
            | Cause::ToolOutputMissing
            | Cause::ToolResultMissing
            | Cause::EmptyErrorContent
            | Cause::ContextLength
            | Cause::OutputLimit
            | Cause::JsonParse
            | Cause::MaxSteps
            | Cause::CostLimit
            | Cause::Unknown
            | Cause::QuotaExceeded
            | Cause::CredentialsExpired
            | Cause::InvalidApiKey
            | Cause::ModelNotFound
            | Cause::RateLimited
            | Cause::Overloaded
            | Cause::ServerError
            | Cause::Connection
            | Cause::AgentConfig
            | Cause::MissingModule
            | Cause::BrokenPipe
            | Cause::Timeout
            | Cause::NotStarted
    )
}

/// flow's own signatures, in the order in which they are tried.
pub(super) const BUILT_IN: &[(Cause, &str)] = &[
    (Cause::ToolOutputMissing, "No tool output found for [a-z ]*call|tool_call_ids did not have response messages"),
    (
        Cause::ToolResultMissing,
        "`?tool_use`? ids were found without `?tool_result`? blocks|API Error: 400 due to tool use concurrency issues",
    ),
    (Cause::EmptyErrorContent, "content cannot be empty if `?is_error`? is true"),
    (
        Cause::QuotaExceeded,
        "insufficient_quota|exceeded your current quota|(?i:credit balance is too low)|Quota exceeded\\. Check your plan|billing_hard_limit_reached",
    ),
    (
        Cause::CredentialsExpired,
        "ExpiredToken|security token included in the request is (?:expired|invalid)|Token has expired and refresh failed|SSO session .{0,80}expired|UnauthorizedSSOTokenError|Unable to locate credentials|NoCredentialsError|OAuth token has expired",
    ),
    (
        Cause::InvalidApiKey,
        "invalid_api_key|Incorrect API key provided|invalid x-api-key|authentication_error|Invalid API key|Missing credentials\\. Please pass|Not logged in . Please run /login|401 Unauthorized|Error code: 401|AuthenticationError",
    ),
    (
        Cause::ModelNotFound,
        "model_not_found|not_found_error|does not exist or you do not have access|issue with the selected model|\\bNotFoundError",
    ),
    (
        Cause::ContextLength,
        "context_length_exceeded|[Pp]rompt is too long|maximum context length|exceeds the context window|ran out of room in the model's context window|ContextWindowExceededError|has hit a token limit|[Ii]nput is too long for requested model",
    ),
    (
        Cause::OutputLimit,
        "Incomplete response returned, reason: max_output_tokens|exceeded the \\d+ output token maximum",
    ),
    (
        Cause::RateLimited,
        "rate_limit_exceeded|rate_limit_error|Rate limit reached|429 Too Many Requests|Error code: 429|Request rejected \\(429\\)|RateLimitError|ThrottlingException|TooManyRequestsException",
    ),
    (
        Cause::Overloaded,
        "overloaded_error|server_overloaded|Error code: (?:529|503)|API Error: (?:529|503)|status 503|(?i:currently overloaded)|experiencing high demand|ServiceUnavailable",
    ),
    (
        Cause::MaxSteps,
        "exceeded maximum steps without completion|error_max_turns|Reached maximum number of turns|\\bLimitsExceeded\\b",
    ),
    (Cause::CostLimit, "error_max_budget_usd|Reached maximum budget"),
    (Cause::Timeout, "\\bTimeExceeded\\b"),
    (
        Cause::JsonParse,
        "(?:Expecting (?:value|property name|',' delimiter|':' delimiter)|Unterminated string starting at|Extra data|Invalid control character at|Invalid \\\\escape).{0,80}line \\d+ column \\d+|JSONDecodeError|failed to parse function arguments|EOF while parsing|RepeatedFormatError",
    ),
    (Cause::BrokenPipe, "BrokenPipeError|\\[Errno 32\\]|Broken pipe|\\bEPIPE\\b"),
    (
        Cause::Connection,
        "Connection error\\.|ECONNRESET|ECONNREFUSED|stream disconnected before completion|Unable to connect to API|error sending request|APIConnectionError|incomplete chunked read|APITimeoutError|Request timed out",
    ),
    (
        Cause::ServerError,
        "Error code: 5\\d\\d|API Error: 5\\d\\d|server_error|api_error|InternalServerError|unexpected status 5\\d\\d",
    ),
    (
        Cause::AgentConfig,
        "No such option|unexpected argument|unrecognized arguments|Error calculating cost for model|Input must be provided either through stdin|\\bConfigError\\b|Config file not found|error: unknown option '|LLM Provider NOT provided",
    ),
    (
        Cause::MissingModule,
        "No module named |ImportError: cannot import name|cannot execute: required file not found|command not found|(?:^|[ /])(?:sh|bash|dash|env|node)[^ ]*: (?:line )?(?:\\d+: )?[^ ]+: (?:not found|No such file or directory)|Cannot find module '",
    ),
    (Cause::Crashed, "Traceback \\(most recent call last\\)|thread '.*' panicked"),
];

/// How somebody whom only a login is asked about says that there is none any more. Of an agent's output this would be too little.
const NO_LOGIN: &str = "(?i)\\b(?:session|login|token|credentials?|key|ticket|sso)\\b[^.;]{0,60}\\bexpired|\\bexpired[^.;]{0,20}\\b(?:session|login|token|credentials?|key)\\b|\\bnot (?:logged|signed) in\\b|\\b(?:re-?authenticate|log in again|login again|sign in again)\\b";

/// What a provider's own words mean that would take no call.
#[must_use]
pub fn refusal(text: &str) -> Cause {
    let known = built_in(text).map(|(cause, _)| cause).filter(|cause| cause.shuts() == Shuts::Lane);
    known.or_else(|| no_login(text).then_some(Cause::CredentialsExpired)).unwrap_or(Cause::ProbeFailed)
}

/// Whether what a probe, or the command of a secret, says is that somebody has to log in again.
#[must_use]
pub fn no_login(text: &str) -> bool {
    static WORDS: OnceLock<Option<Regex>> = OnceLock::new();
    let words = WORDS.get_or_init(|| Regex::new(NO_LOGIN).ok());
    words.as_ref().is_some_and(|words| words.is_match(text))
        || built_in(text).is_some_and(|(cause, _)| cause == Cause::CredentialsExpired)
}

/// What a text means by flow's own table, and where in it that is said.
pub(super) fn built_in(text: &str) -> Option<(Cause, std::ops::Range<usize>)> {
    built_in_among(text, |_| true)
}

/// The same of the causes that may be.
pub(super) fn built_in_among(text: &str, may_be: impl Fn(Cause) -> bool) -> Option<(Cause, std::ops::Range<usize>)> {
    static TABLE: OnceLock<Vec<(Cause, Regex)>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        // Whether each can be compiled is tested below.
        BUILT_IN.iter().filter_map(|(cause, text)| Some((*cause, Regex::new(text).ok()?))).collect()
    });
    table
        .iter()
        .filter(|(cause, _)| may_be(*cause))
        .find_map(|(cause, regex)| Some((*cause, regex.find(text)?.range())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_signature_compiles_and_gives_a_cause_that_a_reading_may_give() {
        for (cause, text) in BUILT_IN {
            Pattern::new(text).unwrap();
            assert!(readable(*cause), "{cause}");
        }
    }

    #[test]
    fn the_order_tells_what_is_permanent_from_what_passes() {
        let cause = |text: &str| built_in(text).map(|(cause, _)| cause);
        let quota = "Error code: 429 - {'error': {'code': 'insufficient_quota'}}";
        assert_eq!(cause(quota), Some(Cause::QuotaExceeded));
        assert_eq!(cause("Error code: 429 - {'code': 'rate_limit_exceeded'}"), Some(Cause::RateLimited));
        assert_eq!(cause("litellm.InternalServerError: AnthropicError - overloaded_error"), Some(Cause::Overloaded));
        assert_eq!(cause("Error code: 403 - {'__type': 'ExpiredTokenException'}"), Some(Cause::CredentialsExpired));
        assert_eq!(cause("ModuleNotFoundError: No module named 'docker'"), Some(Cause::MissingModule));
        assert_eq!(cause("/bin/sh: 1: trae-cli: not found"), Some(Cause::MissingModule));
        assert_eq!(cause("bash: line 1: codex: command not found"), Some(Cause::MissingModule));
        assert_eq!(cause("env: node: No such file or directory"), Some(Cause::MissingModule));
        let own = "Traceback (most recent call last) x FileNotFoundError: [Errno 2] No such file or directory: 'x'";
        assert_eq!(cause(own), Some(Cause::Crashed), "a file that the agent misses is no missing program");
        assert_eq!(cause("it went home"), None);
    }

    #[test]
    fn a_probe_that_says_that_the_login_is_over_is_believed_in_its_own_words() {
        for text in
            ["the session has expired", "Your token is expired", "expired credentials", "You are not logged in."]
        {
            assert_eq!(refusal(text), Cause::CredentialsExpired, "{text}");
        }
        for text in ["No such file or directory", "curl: (7) Failed to connect", "the licence of the editor expired"] {
            assert_eq!(refusal(text), Cause::ProbeFailed, "{text}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_or_too_large_is_refused() {
        assert!(Pattern::new("(").is_err());
        assert!(Pattern::new("(?:a{1000}){1000}").is_err());
    }
}
