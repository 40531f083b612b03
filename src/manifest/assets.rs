//! Assets: files and folders that processes need and that are no part of any tree: models, data sets.
//!
//! Says where they come from; fetches nothing.

use std::path::PathBuf;

use super::build::{env, unique};
use super::flaw::{Draft, Report};
use super::node::{Node, Value};
use super::{SecretFrom, Spanned};
use crate::digest::Digest;

/// An asset.
#[derive(Clone, Debug)]
pub struct Asset {
    /// `{asset.NAME}`.
    pub name: Spanned<String>,
    /// Where it comes from.
    pub source: Spanned<AssetSource>,
    /// What its server wants to be shown.
    pub secret: Vec<SecretFrom>,
}

/// Where an asset comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssetSource {
    /// A file or folder of this machine, read in place.
    Path(PathBuf),
    /// A file by its URL, and the digest that it must have.
    Url {
        /// The URL.
        url: String,
        /// The digest.
        sha256: Digest,
    },
    /// A repository of Hugging Face at one revision.
    Hub {
        /// `org/model`.
        repo: String,
        /// 40 hex digits.
        revision: String,
    },
}

/// Builds the assets.
pub(super) fn assets(nodes: &[Node<'_>], report: &Report) -> Vec<Asset> {
    unique(nodes.iter().copied(), "asset", report);
    nodes.iter().filter_map(|node| asset(*node, report)).collect()
}

fn asset(node: Node<'_>, report: &Report) -> Option<Asset> {
    let name = node.text()?;
    let flaw = |code: &'static str, what: String, help: &str| {
        report.add(Draft::new(code, name.place, what).label("where from?").help(help.to_owned()));
    };
    let text = |prop: &str| node.prop(prop).and_then(Value::text);
    let (path, url, hub) = (node.arg(1).and_then(Value::path), text("url"), text("hf"));
    let secret = env(node.children(), report).secret;
    let example = "write a path, or url=\"https://…\" sha256=\"…\", or hf=\"org/model\" revision=\"…\"";
    let source = match (path, url, hub) {
        (Some(path), None, None) => Spanned { value: AssetSource::Path(path.value), place: path.place },
        (None, Some(url), None) => {
            if let Some(what) = shows(&url.value) {
                // It would stand in records, logs and reports.
                report.hide(url.place);
                report.add(
                    Draft::new("secret-in-url", url.place, format!("the URL of asset `{}` holds {what}", name.value))
                        .label("is stored and shown as it stands")
                        .help(format!(
                            "leave it out and write `secret NAME`: asset {} url=\"…\" sha256=\"…\" {{ secret HOST_TOKEN }}; flow shows it to that server alone, as `Authorization: Bearer`",
                            name.value
                        )),
                );
                return None;
            }
            if !(url.value.starts_with("https://") || url.value.starts_with("http://")) {
                flaw(
                    "bad-url",
                    format!("`{}` is fetched by no server that flow asks", url.value),
                    "http and https are",
                );
                return None;
            }
            let Some(sha256) = text("sha256").and_then(|sha256| sha256.value.parse().ok()) else {
                flaw(
                    "no-digest",
                    format!("asset `{}` does not say what its file is", name.value),
                    "add sha256=\"…\", 64 lower-case hex digits, as `sha256sum FILE` prints them",
                );
                return None;
            };
            Spanned { value: AssetSource::Url { url: url.value, sha256 }, place: url.place }
        }
        (None, None, Some(hub)) => {
            let plain = |part: &str| {
                !part.is_empty()
                    && !part.starts_with('.')
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            if !hub.value.split_once('/').is_some_and(|(org, model)| plain(org) && plain(model)) {
                flaw("bad-hub", format!("`{}` is no repository of Hugging Face", hub.value), "write hf=\"org/model\"");
                return None;
            }
            let digits =
                |text: &str| text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let Some(revision) = text("revision").filter(|revision| digits(&revision.value)) else {
                flaw(
                    "no-revision",
                    format!("asset `{}` does not say which commit of `{}` it is", name.value, hub.value),
                    "add revision=\"…\", the 40 hex digits of a commit: a branch or a tag moves",
                );
                return None;
            };
            let value = AssetSource::Hub { repo: hub.value, revision: revision.value };
            Spanned { value, place: hub.place }
        }
        (None, None, None) => {
            flaw("no-source", format!("asset `{}` comes from nowhere", name.value), example);
            return None;
        }
        _ => {
            flaw("two-sources", format!("asset `{}` comes from two places", name.value), example);
            return None;
        }
    };
    Some(Asset { name, source, secret })
}

/// What of a URL is for nobody's eyes: a user, or a part of its query that reads like a password or a signature.
fn shows(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@')) {
        return Some("a user or a password".to_owned());
    }
    let query = rest.split_once(['?', '#'])?.1;
    let wholly = ["sig", "key", "auth", "authorization", "pw", "pwd", "pass", "sas", "jwt", "hmac", "policy"];
    let partly = ["signature", "token", "secret", "password", "passwd", "credential", "apikey", "api-key", "accesskey"];
    let names = query.split(['&', ';', '?', '#']).filter_map(|pair| Some(pair.split_once('=')?.0));
    names.map(|name| name.to_lowercase().replace('_', "-")).find_map(|name| {
        let is = wholly.contains(&name.as_str()) || partly.iter().any(|part| name.contains(part));
        let shown: String = crate::text::harmless(&name).chars().take(40).collect();
        is.then(|| format!("`{shown}=`, which reads like a secret"))
    })
}
