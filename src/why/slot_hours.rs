//! How long the slots are held by the measurements that a plan would execute, for each profile: from one measured sample a
//! commit, for the cap decides what the night costs.
//!
//! A process of a server takes ten minutes and one of a small function a second, so nothing is guessed: a commit whose gate was
//! not measured is told as such.

use std::time::Duration;

use serde::Serialize;

use crate::manifest::Kind;
use crate::measure::protocol::{LOOKS, Profile, Protocol, WARMUP_CAP};
use crate::plan::{Ask, Plan, Role, TestAsk};
use crate::store::Index;
use crate::text::{counted, wrap};
use crate::units::human_span;
use crate::why::forecast::Forecast;

/// The two runs of a gate.
const GATE_RUNS: u64 = 2;

/// What the measurements of a plan hold slots for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlotHours {
    /// How many measurements of time would be executed.
    pub measurements: usize,
    /// Of how many of them one process of the base was measured before.
    pub sampled: usize,
    /// Whether some of them keep compile caches: the sample is of a process that filled them, and others take less.
    pub caches: bool,
    /// By profile.
    pub profiles: Vec<ProfileHours>,
}

/// The same by one profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileHours {
    /// Its name.
    pub profile: String,
    /// Whether the manifest's steps are measured by it.
    pub chosen: bool,
    /// The least, if each is settled at the first look, in hours.
    pub least_h: f64,
    /// The most, if each goes to the bound, in hours.
    pub most_h: f64,
}

/// Of the measurements of time among the forecasts that would execute; nothing where there is none.
#[must_use]
pub fn slot_hours(plan: &Plan, forecasts: &[Forecast], index: &Index) -> Option<SlotHours> {
    let asked =
        forecasts.iter().filter(|said| said.state.executes()).filter_map(|said| match &plan.nodes[said.node].ask {
            Ask::Test(ask) if compares(plan, said.node, ask) && !ask.counts_only() => Some((said.node, ask.as_ref())),
            _ => None,
        });
    let asked: Vec<(usize, &TestAsk)> = asked.collect();
    if asked.is_empty() {
        return None;
    }
    let sampled: Vec<(&TestAsk, u64)> =
        asked.iter().filter_map(|(node, ask)| Some((*ask, sample_ms(plan, *node, index)?))).collect();
    let of = |profile: Profile| {
        let hours = |most: bool| -> f64 {
            let ms = |(ask, ms): &(&TestAsk, u64)| processes(ask, profile, most).saturating_mul(*ms);
            sampled.iter().map(|sample| ms(sample) as f64).sum::<f64>() / 3_600_000.0
        };
        let chosen = asked.iter().any(|(_, ask)| ask.protocol.profile == profile);
        ProfileHours { profile: profile.to_string(), chosen, least_h: hours(false), most_h: hours(true) }
    };
    let profiles = [Profile::Screen, Profile::Headline, Profile::Fixed].map(of).to_vec();
    let caches = asked.iter().any(|(_, ask)| !ask.caches.is_empty());
    Some(SlotHours { caches, measurements: asked.len(), sampled: sampled.len(), profiles })
}

fn compares(plan: &Plan, node: usize, ask: &TestAsk) -> bool {
    ask.aa || plan.linked(node, &Role::Patch).is_some()
}

/// How many processes a measurement takes: each arm's warm-ups and its share of the blocks.
fn processes(ask: &TestAsk, profile: Profile, most: bool) -> u64 {
    if ask.again && !most {
        // A second session measures only what came out as faster or slower.
        return 0;
    }
    let own = ask.protocol;
    let protocol = if own.profile == profile { own } else { Protocol { shape: own.shape, ..Protocol::new(profile) } };
    let blocks = match (profile, most) {
        (Profile::Fixed, _) | (_, true) => protocol.most(),
        (_, false) => protocol.most().min(LOOKS[0]),
    };
    let warm = if own.warmup == 0 { 0 } else { u64::from(if most { WARMUP_CAP } else { own.warmup.max(2) }) };
    let arms = if ask.human && !ask.aa { 3 } else { 2 };
    arms * (warm + u64::from(blocks) * protocol.runs_per_arm() as u64)
}

/// How long one process of the base took when it was last measured.
fn sample_ms(plan: &Plan, node: usize, index: &Index) -> Option<u64> {
    let gate = plan.linked(node, &Role::Baseline)?;
    let step = plan.step(gate).name.value.as_str();
    let keys = index.nearest_candidates(Kind::Test.word(), &plan.nodes[gate].axes);
    let measured = keys.iter().find_map(|key| {
        let attempts = index.attempts(key).ok()?;
        attempts.iter().rev().find(|ended| ended.step == step && ended.outcome.failure().is_none()).cloned()
    })?;
    Some(measured.limits.get("timeout").map_or(measured.wall_ms / GATE_RUNS, |limit| limit.used))
}

impl SlotHours {
    /// A few lines for people.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let what = counted(self.measurements, "measurement");
        let span = |hours: f64| human_span(Duration::from_secs_f64(hours * 3600.0));
        let mut said = match self.sampled {
            0 => format!("slots: how long {what} hold them is unknown: no process of these commits was measured yet"),
            _ => {
                let each = self.profiles.iter().map(|of| {
                    let chosen = if of.chosen { " (this manifest's)" } else { "" };
                    let range = match of.least_h >= of.most_h {
                        true => span(of.most_h),
                        false => format!("{} to {}", span(of.least_h), span(of.most_h)),
                    };
                    format!("{} {range}{chosen}", of.profile)
                });
                format!("slots: {what} hold them for, in all, {}", each.collect::<Vec<_>>().join("; "))
            }
        };
        if self.sampled > 0 && self.sampled < self.measurements {
            let rest = self.measurements - self.sampled;
            said.push_str(&format!("; {rest} not counted, for no process of their commits was measured yet"));
        }
        if self.caches && self.sampled > 0 {
            said.push_str("; less where processes find their compile caches filled");
        }
        format!("{}\n", wrap(&said, width).join("\n    "))
    }
}
