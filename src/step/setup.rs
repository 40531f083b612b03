//! What an agent was given, in one readable document that is kept with each of its attempts.
//!
//! Holds no secret: a config is told with its `{secret.NAME}` unfilled, of secrets and of what is passed unhashed the names
//! alone stand there.

use serde_json::json;

use crate::plan::AgentAsk;

/// The document, as JSON over several lines. `argv` is that of the attempt; `config` the text of the config as the manifest
/// has it.
#[must_use]
pub fn document(ask: &AgentAsk, argv: &[String], config: Option<&str>) -> Vec<u8> {
    let mut told = json!({
        "argv": argv,
        "environment": {
            "set": ask.env.hashed,
            "passed": ask.env.unhashed.keys().collect::<Vec<_>>(),
            "secrets": ask.env.secrets.iter().map(|secret| &secret.name.value).collect::<Vec<_>>(),
        },
    });
    if let Some(model) = &ask.model {
        told["model"] = json!(model);
    }
    if let Some(prompt) = &ask.prompt {
        told["prompt"] = json!(format!("sha256:{prompt}"));
    }
    if let (Some((value, _, path)), Some(config)) = (&ask.config, config) {
        told["config"] = json!({
            "file": path.file_name().map(|name| name.to_string_lossy()),
            "parsed": format!("sha256:{value}"),
            "text": config,
        });
    }
    let files = ask.files.iter().filter_map(|(name, digest)| Some((name, format!("sha256:{}", (*digest)?))));
    told["files"] =
        files.collect::<std::collections::BTreeMap<_, _>>().into_iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    serde_json::to_vec_pretty(&told).unwrap_or_default()
}
