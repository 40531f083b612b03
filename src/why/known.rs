//! The other direction: what the key of an action holds, which known influences it does not hold, and how old the answers of
//! its tools are. So whoever is told that nothing runs again can judge whether that is right.
//!
//! Names secrets and variables, never their values.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Json;

use crate::key::KeyRecord;
use crate::manifest::Template;
use crate::measure::protocol::Profile;
use crate::plan::{Ask, Plan};
use crate::units::{human_size, human_span};
use crate::why::attempts::age;
use crate::why::change::json;

/// What determines an action, and what does not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Known {
    /// What its key is made of, in blame order.
    pub ingredients: Vec<Held>,
    /// What may matter and is in no key.
    pub not_in_key: Vec<Beside>,
    /// When its tools answered their probes.
    pub probes: Vec<Probe>,
}

/// One ingredient.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// The role.
    pub ingredient: String,
    /// Its value: a text, a list, or `sha256:…`.
    pub value: Json,
}

/// A known influence that is in no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// What.
    pub what: String,
    /// What that means.
    pub because: &'static str,
}

/// An answer that is an ingredient, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The tool.
    pub tool: String,
    /// When it answered; unknown of answers that an older flow remembered.
    pub asked: Option<Timestamp>,
    /// How long that is ago, in seconds.
    pub age_s: Option<i64>,
    /// Whether folders are watched beside the program: else a change of what it loads is not seen.
    pub watches: bool,
}

/// The ingredients of a record, without what is not in it.
#[must_use]
pub fn held(record: &KeyRecord) -> Vec<Held> {
    let held = |ingredient: &crate::key::Ingredient| Held {
        ingredient: ingredient.role.clone(),
        value: json(&ingredient.value),
    };
    record.ingredients.iter().map(held).collect()
}

/// What is known of an action of a plan. Without its record, as long as its inputs are not known, nothing is said of its key.
#[must_use]
pub fn known(plan: &Plan, node: usize, record: Option<&KeyRecord>, now: Timestamp) -> Known {
    Known {
        ingredients: record.map(held).unwrap_or_default(),
        not_in_key: beside(plan, node),
        probes: probes(plan, node, now),
    }
}

fn beside(plan: &Plan, node: usize) -> Vec<Beside> {
    let (step, ask) = (plan.step(node), &plan.nodes[node].ask);
    let mut found = Vec::new();
    let mut say = |what: String, because| found.push(Beside { what, because });
    if let Some(env) = ask.env() {
        for secret in &env.secrets {
            say(format!("secret {}", secret.name.value), "read anew at each attempt, never stored");
        }
        for name in env.unhashed.keys().chain(env.unset.iter().map(|(name, _)| name)) {
            say(format!("variable {name}"), "passed with `hash=#false`");
        }
    }
    const LIMIT: &str = "raised, it runs again only what had met it";
    if let Some(timeout) = &step.timeout {
        say(format!("timeout {}", human_span(timeout.value)), LIMIT);
    }
    if let Some(limit) = &step.limit {
        say(format!("limit {}", human_size(limit.value)), LIMIT);
    }
    if let Some(attempts) = &step.attempts {
        say(format!("attempts {}", attempts.value), "how often it is tried before a person is asked");
    }
    match ask {
        Ask::Agent(ask) => {
            say("failure tables".into(), "they say how an attempt is read; read anew at once when they change");
            if !ask.free {
                say("prices".into(), "what was paid is worked out anew when they change");
                say("what answers to the model's name".into(), "a provider may change it without a word");
            }
            if !ask.sandbox.network.is_empty() {
                let hosts: Vec<String> = ask.sandbox.network.iter().map(ToString::to_string).collect();
                say(format!("network {}", hosts.join(", ")), "what it may reach; each attempt says what was held");
            }
            say("time and load of the machine".into(), "an agent that is short of time may do less");
        }
        Ask::Test(ask) => {
            let timed = plan.compares(node) && !ask.counts_only();
            if timed && ask.protocol.profile != Profile::Fixed {
                say(format!("blocks max {}", ask.protocol.most()), LIMIT);
            }
            if let Some(time) = ask.protocol.time_max_ms.filter(|_| timed) {
                say(format!("time max {}", human_span(std::time::Duration::from_millis(time))), LIMIT);
            }
            if !ask.counts_only() {
                say(
                    "time and load of the machine".into(),
                    "both trees are measured in turn, so that it hits both alike",
                );
            }
            if ask.device.is_some() {
                say("driver, clocks and heat of the device".into(), "the key holds its model alone");
            }
        }
        _ => {}
    }
    let argv: &[Template] = match ask {
        Ask::Agent(ask) => &ask.argv,
        Ask::Test(ask) => &ask.argv,
        Ask::Command(ask) => &ask.argv,
        _ => &[],
    };
    for name in ask.tools() {
        let probed =
            plan.manifest.pipeline.tools.iter().any(|tool| tool.name.value == *name && !tool.probes.is_empty());
        if probed {
            say(
                format!("the files of tool {name}"),
                "what its probes answer counts, and its `source` where it has one",
            );
        }
    }
    for path in argv.iter().skip(1).filter(|arg| arg.holes().next().is_none()).map(ToString::to_string) {
        if path.contains('/') && std::path::Path::new(&path).is_absolute() {
            say(
                format!("what is in {path}"),
                "an argument counts by its name; a file given as `file` or `input` by its content",
            );
        }
    }
    if !argv.is_empty() {
        say("PATH".into(), "where programs are found; what is found counts where it is a declared tool");
    }
    // A hole was filled by a tool or by flow itself.
    if let Some(program) = argv.first().filter(|first| first.holes().next().is_none()) {
        say(format!("the program {program}"), "no declared `tool`: another version of it is not seen");
    }
    found
}

fn probes(plan: &Plan, node: usize, now: Timestamp) -> Vec<Probe> {
    let named = plan.nodes[node].ask.tools();
    let declared = &plan.manifest.pipeline.tools;
    let probe = |name: &String| {
        let fact = plan.facts.tools.get(name)?.as_ref().ok()?;
        let watches = declared.iter().any(|tool| tool.name.value == *name && !tool.watch.is_empty());
        Some(Probe { tool: name.clone(), asked: fact.asked, age_s: fact.asked.map(|asked| age(asked, now)), watches })
    };
    named.into_iter().filter_map(probe).collect()
}
