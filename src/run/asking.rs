//! Asking a provider: whether it would take a call, and until when its credential is good.
//!
//! Runs the manifest's own commands, each within a limit, and hands on what they say of themselves without the provider's secrets.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::lane::Question;
use crate::manifest::{Expires, ExpiresSource, Provider, fill_variables};
use crate::outcome::Evidence;
use crate::process;
use crate::step::Context;
use crate::step::secrets::{at_hand, redactor};
use crate::text::called;

/// The largest file that says when a credential expires.
const LARGEST: u64 = 1024 * 1024;
/// A number from here on is a time in seconds since 1970; less is a number of seconds that are left.
const EPOCH: i64 = 1_000_000_000;
/// A number from here on is a time in milliseconds since 1970.
const EPOCH_MS: i64 = 1_000_000_000_000;

/// Asks. `Ok` holds the time at which the credential expires, where one was told.
///
/// # Errors
/// What refused, in words without a secret.
pub async fn ask(context: Arc<Context>, provider: Provider, question: Question) -> Result<Option<Timestamp>, String> {
    let secrets = match context.secrets(&provider.env.secret).await {
        Ok(secrets) => secrets,
        Err(failure) => return Err(failure.evidence.as_str().to_owned()),
    };
    let mut env = context.machine.variables.clone();
    for (name, value) in &provider.env.set {
        env.insert(name.value.clone(), fill_variables(&value.value, &context.machine.variables)?);
    }
    for secret in &secrets {
        env.insert(secret.name().to_owned(), String::from_utf8_lossy(secret.expose()).into_owned());
    }
    let known = at_hand(&context.machine, &provider.env.secret, &secrets);
    let clean = |text: String| {
        let text = redactor(&known).clean(text.as_bytes());
        Evidence::new(&String::from_utf8_lossy(&text)).as_str().to_owned()
    };
    let run = async |argv: &[String]| {
        let said = process::answer_in_confidence(argv, &env, Path::new("."), process::ANSWER_LIMIT, &known).await;
        said.map_err(|why| clean(format!("`{}`: {why}", called(argv))))
    };
    if let (Question::All, Some(probe)) = (question, &provider.probe) {
        run(probe).await?;
    }
    let Some(Expires { source, pointer }) = &provider.expires else { return Ok(None) };
    let (said, whose) = match source {
        ExpiresSource::Command(argv) => (run(argv).await?, format!("what `{}` said", called(argv))),
        ExpiresSource::File(path, dir) => {
            let path = dir.join(fill_variables(&path.value, &context.machine.variables)?);
            let shown = path.display().to_string();
            match crate::store::read_bounded(&path, LARGEST) {
                Ok(Some(bytes)) => (bytes, shown),
                Ok(None) => return Err(format!("{shown}: there is no such file")),
                Err(error) => return Err(clean(format!("{shown}: {error}"))),
            }
        }
    };
    let text = String::from_utf8_lossy(&said);
    expiry(&text, pointer.as_deref(), Timestamp::now()).map(Some).map_err(|why| clean(format!("{whose} {why}")))
}

/// Reads a time: as such, in seconds or milliseconds since 1970, or in seconds from `now` on. With a pointer the text is JSON
/// and the time is where it points.
///
/// # Errors
/// Why there is none, as the rest of a sentence that begins with what was read. Never quotes it: it may hold a credential.
pub fn expiry(text: &str, pointer: Option<&str>, now: Timestamp) -> Result<Timestamp, String> {
    let found = match pointer {
        None => text.trim().to_owned(),
        Some(pointer) => {
            let value: serde_json::Value = serde_json::from_str(text).map_err(|_| "is no JSON".to_owned())?;
            match value.pointer(pointer) {
                Some(serde_json::Value::String(text)) => text.trim().to_owned(),
                Some(serde_json::Value::Number(number)) => number.to_string(),
                Some(_) => return Err(format!("has no time at `{pointer}`")),
                None => return Err(format!("has nothing at `{pointer}`")),
            }
        }
    };
    let no_time = || "is no time such as 2026-06-01T12:00:00Z, nor a number of seconds".to_owned();
    if let Some(number) = found.parse::<f64>().ok().filter(|number| number.is_finite()) {
        #[expect(clippy::cast_possible_truncation, reason = "what is too large saturates and is refused below")]
        let number = number as i64;
        let time = match number {
            EPOCH_MS.. => Timestamp::from_millisecond(number),
            EPOCH.. => Timestamp::from_second(number),
            _ => now.checked_add(jiff::SignedDuration::from_secs(number)),
        };
        return time.map_err(|_| no_time());
    }
    // The cache of an older AWS CLI says UTC.
    let found = found.strip_suffix("UTC").map_or_else(|| found.clone(), |time| format!("{time}Z"));
    found.parse().map_err(|_| no_time())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_a_time_is_read() {
        let now: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        let noon: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        for (text, pointer) in [
            ("2026-06-01T12:00:00Z\n", None),
            ("2026-06-01T12:00:00UTC", None),
            ("2026-06-01T14:00:00+02:00", None),
            ("2026-06-01T12:00:00+00:00", None),
            ("7200", None),
            ("1780315200", None),
            ("1780315200000", None),
            (r#"{"Version":1,"Expiration":"2026-06-01T12:00:00+00:00"}"#, Some("/Expiration")),
            (r#"{"claudeAiOauth":{"expiresAt":1780315200000}}"#, Some("/claudeAiOauth/expiresAt")),
            (r#"{"expires_in":7200}"#, Some("/expires_in")),
        ] {
            assert_eq!(expiry(text, pointer, now), Ok(noon), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_and_never_quoted() {
        let now = Timestamp::now();
        for (text, pointer) in [
            ("", None),
            ("sk-secret", None),
            ("{}", None),
            ("sk-secret", Some("/a")),
            (r#"{"a":"sk-secret"}"#, Some("/a")),
            (r#"{"a":null}"#, Some("/a")),
            (r#"{"a":["sk-secret"]}"#, Some("/a")),
            ("1e300", None),
            ("NaN", None),
        ] {
            let why = expiry(text, pointer, now).unwrap_err();
            assert!(!why.contains("sk-secret"), "{why}");
        }
    }
}
