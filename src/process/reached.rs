//! What an agent reached by its network: each allowed host, and the names that it asked for in vain.
//!
//! Holds figures and names, never a byte of what was said.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::egress::Host;
use super::names::Refused;
use crate::units::human_size;

/// Names in the list of the refused; the rest is counted.
const NAMES: usize = 200;
/// Names that a line of text has.
const SHOWN: usize = 12;

/// What was reached, and what was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Each allowed host, also those that were not called.
    pub hosts: Vec<HostUse>,
    /// The names that are not allowed and were asked for, in the order of their first time; 200 of them at most.
    pub refused: Vec<RefusedName>,
    /// Questions for still other names.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused_more: u64,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostUse {
    /// Name and port.
    pub host: Host,
    /// Connections that it took.
    pub connections: u64,
    /// Connections that did not come about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Why the last of those did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes that it was sent.
    pub bytes_out: u64,
    /// Bytes that came from it.
    pub bytes_in: u64,
    /// When it was first called; absent if never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// When the last byte passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

/// A name that was asked for and is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedName {
    /// The name.
    pub name: String,
    /// How often it was looked up. The two questions for its old and its new kind of address are one.
    pub times: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Reached {
    /// One line, without what was not called.
    #[must_use]
    pub fn text(&self) -> String {
        let mut said: Vec<String> = self.hosts.iter().filter_map(HostUse::text).collect();
        if said.is_empty() {
            said.push("no allowed host was called".to_owned());
        }
        let mut names: Vec<String> =
            self.refused.iter().take(SHOWN).map(|refused| format!("{} x{}", refused.name, refused.times)).collect();
        let more = self.refused.len().saturating_sub(SHOWN);
        match (more, self.refused_more) {
            (0, 0) => {}
            (more, 0) => names.push(format!("{more} more names")),
            (more, _) => names.push(format!("more than {more} more names")),
        }
        if !names.is_empty() {
            said.push(format!("refused: {}", names.join(", ")));
        }
        said.join("; ")
    }
}

impl HostUse {
    fn text(&self) -> Option<String> {
        let plural = if self.connections == 1 { "connection" } else { "connections" };
        let failed = self.why.as_deref().filter(|_| self.failed > 0);
        let failed = failed.map(|why| format!("{} failed ({why})", self.failed));
        match (self.connections, failed) {
            (0, None) => None,
            (0, Some(failed)) => Some(format!("{} {failed}", self.host)),
            (count, failed) => Some(format!(
                "{} {count} {plural}, {} out, {} in{}",
                self.host,
                human_size(self.bytes_out),
                human_size(self.bytes_in),
                failed.map_or_else(String::new, |failed| format!(", {failed}")),
            )),
        }
    }
}

/// The same while it is written.
#[derive(Debug)]
pub(super) struct Log {
    hosts: Vec<HostUse>,
    /// Each name with the questions for A, for AAAA and for others.
    refused: Vec<(String, [u64; 3])>,
    more: u64,
    /// What no name may hold, in lower case and without points.
    secrets: Vec<String>,
}

/// What stands for a name that holds a secret.
const SECRET: &str = "(a name that holds a secret)";
/// Shorter secrets are not looked for: they are in too many names.
const SHORTEST: usize = 6;

fn bare(text: &str) -> String {
    text.chars().filter(|c| *c != '.').map(|c| c.to_ascii_lowercase()).collect()
}

impl Log {
    pub(super) fn new(hosts: &[Host], secrets: impl Iterator<Item = String>) -> Self {
        let unused = |host: &Host| HostUse {
            host: host.clone(),
            connections: 0,
            failed: 0,
            why: None,
            bytes_out: 0,
            bytes_in: 0,
            first: None,
            last: None,
        };
        let secrets = secrets.map(|secret| bare(&secret)).filter(|secret| secret.len() >= SHORTEST);
        Self { hosts: hosts.iter().map(unused).collect(), refused: Vec::new(), more: 0, secrets: secrets.collect() }
    }

    fn touch(&mut self, host: usize, change: impl FnOnce(&mut HostUse)) {
        if let Some(entry) = self.hosts.get_mut(host) {
            let now = Timestamp::now();
            entry.first.get_or_insert(now);
            entry.last = Some(now);
            change(entry);
        }
    }

    pub(super) fn connected(&mut self, host: usize) {
        self.touch(host, |entry| entry.connections += 1);
    }

    pub(super) fn failed(&mut self, host: usize, why: String) {
        self.touch(host, |entry| {
            entry.failed += 1;
            entry.why = Some(why);
        });
    }

    pub(super) fn sent(&mut self, host: usize, bytes: u64) {
        self.touch(host, |entry| entry.bytes_out += bytes);
    }

    pub(super) fn came(&mut self, host: usize, bytes: u64) {
        self.touch(host, |entry| entry.bytes_in += bytes);
    }

    pub(super) fn refused(&mut self, refused: Refused) {
        let kind = match refused.kind {
            1 => 0,
            28 => 1,
            _ => 2,
        };
        let plain = bare(&refused.name);
        let holds = self.secrets.iter().any(|secret| plain.contains(secret));
        let name = if holds { SECRET.to_owned() } else { refused.name };
        let mut new = false;
        match self.refused.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times[kind] += 1,
            None => new = true,
        }
        if new && self.refused.len() < NAMES {
            let mut times = [0; 3];
            times[kind] = 1;
            self.refused.push((name, times));
        } else if new {
            self.more += 1;
        }
    }

    /// What it came to.
    pub(super) fn reached(&self) -> Reached {
        let times = |times: &[u64; 3]| times.iter().copied().max().unwrap_or_default();
        let refused = self.refused.iter().map(|(name, kinds)| RefusedName { name: name.clone(), times: times(kinds) });
        Reached { hosts: self.hosts.clone(), refused: refused.collect(), refused_more: self.more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(log: &mut Log, name: &str, kind: u16) {
        log.refused(Refused { name: name.to_owned(), kind });
    }

    #[test]
    fn a_line_tells_what_was_called_and_what_was_refused() {
        let hosts = ["api.example.com", "127.0.0.1:4000", "pypi.org"].map(|host| host.parse().unwrap());
        let mut log = Log::new(&hosts, std::iter::empty());
        assert_eq!(log.reached().text(), "no allowed host was called");
        for _ in 0..2 {
            log.connected(0);
        }
        log.sent(0, 1536);
        log.came(0, 3 << 20);
        log.failed(1, "connection refused".into());
        for kind in [1, 28, 1, 28, 65] {
            ask(&mut log, "example.org", kind);
        }
        assert_eq!(
            log.reached().text(),
            "api.example.com 2 connections, 1.5 KiB out, 3.0 MiB in; 127.0.0.1:4000 1 failed (connection refused); refused: example.org x2"
        );
        let json = serde_json::to_string(&log.reached()).unwrap();
        assert_eq!(serde_json::from_str::<Reached>(&json).unwrap(), log.reached());
    }

    #[test]
    fn a_flood_of_names_is_counted_and_a_secret_in_one_is_not_kept() {
        let mut log = Log::new(&[], ["sk-AbCdEf123".to_owned()].into_iter());
        ask(&mut log, "sk-abc.def123.example.org", 1);
        for n in 0..1000 {
            ask(&mut log, &format!("n{n}.example.org"), 1);
        }
        let reached = log.reached();
        assert_eq!((reached.refused.len(), reached.refused_more), (NAMES, 801));
        assert_eq!(reached.refused[0].name, SECRET);
        assert!(reached.text().ends_with("more than 188 more names"), "{}", reached.text());
    }
}
