//! Slots and lanes of one run: all of what an action holds or nothing. Slots are leased from the whole host, lanes are counted
//! within the run.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use crate::container;
use crate::names::{AttemptId, SlotKind};
use crate::plan::Plan;
use crate::process;
use crate::slots::{Holder, Lease, SlotDir, SlotError, SlotName};
use crate::store::KeyLock;

/// How long orphans of a slot's last holder may take to die.
const ORPHANS: std::time::Duration = std::time::Duration::from_secs(20);

struct Slot {
    kind: String,
    name: String,
    cores: Vec<u32>,
    /// What is locked on the host.
    locks: Vec<SlotName>,
    busy: bool,
}

struct Lane {
    kind: String,
    width: u32,
    used: u32,
}

/// The slots and lanes of a manifest.
pub struct Leases {
    dir: Option<SlotDir>,
    store: PathBuf,
    slots: Vec<Slot>,
    lanes: Vec<Lane>,
    /// The cores that no slot names; none where none does, or where none is left.
    rest: Vec<u32>,
    /// Variables of flow's own environment, by which engines are found.
    variables: BTreeMap<String, String>,
}

/// What an action holds.
#[derive(Debug, Default)]
pub struct Granted {
    slots: Vec<usize>,
    names: Vec<(String, String)>,
    lanes: Vec<(usize, u32)>,
    lease: Option<Lease>,
}

/// Why an action cannot hold what it wants now.
#[derive(Debug)]
pub enum Taken {
    /// It holds all of it.
    Granted(Granted),
    /// Other actions of this run have too much of this.
    Here(SlotKind),
    /// Another run on this host has it.
    Elsewhere,
}

impl Granted {
    /// Nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slots as `kind/name`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.names.iter().map(|(kind, name)| format!("{kind}/{name}")).collect()
    }

    /// The slots as (kind, name).
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.names.clone()
    }

    /// The descriptors that a supervisor has to hold on to: those of the slots and of the key.
    #[must_use]
    pub fn descriptors(&self, key: &KeyLock) -> Vec<RawFd> {
        let slots = self.lease.iter().flat_map(Lease::fds).map(|fd| fd.as_raw_fd());
        slots.chain([key.fd().as_raw_fd()]).collect()
    }
}

impl Leases {
    /// The slots of a plan, to be locked in `dir`.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn open(plan: &Plan, dir: &Path, store: &Path) -> Result<Self, String> {
        let pipeline = &plan.manifest.pipeline;
        let slots: Vec<Slot> = pipeline
            .slots
            .iter()
            .map(|slot| {
                let (kind, name) = (slot.kind.value.to_string(), slot.name.value.clone());
                // Two manifests that call one device by two names must still meet: cores are locked one by one, a GPU by
                // what its driver calls it.
                let device = plan.facts.devices.get(&format!("{kind}/{name}")).and_then(|fact| fact.as_ref().ok());
                let mut ids: Vec<(&str, String)> = slot.cores.iter().map(|core| ("core", core.to_string())).collect();
                if kind != "cpu" || ids.is_empty() {
                    ids.push((&kind, device.unwrap_or(&name).clone()));
                }
                let locks: Result<Vec<SlotName>, _> = ids.iter().map(|(kind, id)| SlotName::new(kind, id)).collect();
                let locks = locks.map_err(|error| error.to_string())?;
                Ok(Slot { kind: kind.clone(), name, cores: slot.cores.clone(), locks, busy: false })
            })
            .collect::<Result<_, String>>()?;
        let lanes = pipeline
            .lanes
            .iter()
            .map(|lane| Lane { kind: lane.name.value.to_string(), width: lane.width, used: 0 })
            .collect();
        let open = || {
            let dir = SlotDir::open(dir)?;
            slots.iter().try_for_each(|slot| dir.probe(&slot.locks))?;
            Ok(dir)
        };
        let dir = match slots.is_empty() {
            true => None,
            false => Some(open().map_err(|error: SlotError| error.to_string())?),
        };
        let kept: Vec<u32> = slots.iter().flat_map(|slot| slot.cores.clone()).collect();
        let mut rest = if kept.is_empty() { Vec::new() } else { process::own_cores() };
        rest.retain(|core| !kept.contains(core));
        Ok(Self { dir, store: store.to_owned(), slots, lanes, rest, variables: plan.facts.variables.clone() })
    }

    /// Takes what an action holds, all or nothing; none of the slots to `avoid` (`kind/name`) where there are enough others of
    /// their kind.
    ///
    /// # Errors
    /// If the locks cannot be used, or orphans of a slot's last holder cannot be killed.
    pub fn take(&mut self, plan: &Plan, node: usize, attempt: &AttemptId, avoid: &[String]) -> Result<Taken, String> {
        let mut granted = Granted::default();
        let mut choices: Vec<Vec<usize>> = vec![Vec::new()];
        for (kind, count) in &plan.nodes[node].holds {
            let wanted = *count as usize;
            let of_kind = |slot: &Slot| slot.kind == kind.as_str();
            if self.slots.iter().any(of_kind) {
                let of_kind: Vec<usize> = (0..self.slots.len()).filter(|i| of_kind(&self.slots[*i])).collect();
                let avoided = |slot: &Slot| avoid.contains(&format!("{}/{}", slot.kind, slot.name));
                let others: Vec<usize> = of_kind.iter().copied().filter(|i| !avoided(&self.slots[*i])).collect();
                let allowed = if others.len() >= wanted { others } else { of_kind };
                let free: Vec<usize> = allowed.into_iter().filter(|i| !self.slots[*i].busy).collect();
                if free.len() < wanted {
                    return Ok(Taken::Here(kind.clone()));
                }
                // With another run's leases unknown, each window of free slots is worth a try.
                let windows: Vec<Vec<usize>> = free.windows(wanted).map(<[usize]>::to_vec).collect();
                choices = choices
                    .iter()
                    .flat_map(|chosen| windows.iter().map(move |window| [chosen.as_slice(), window].concat()))
                    .collect();
            } else {
                let Some(index) = self.lanes.iter().position(|lane| lane.kind == kind.as_str()) else {
                    return Err(format!("`{kind}` is not declared in `slots`"));
                };
                if self.lanes[index].width - self.lanes[index].used < *count {
                    return Ok(Taken::Here(kind.clone()));
                }
                granted.lanes.push((index, *count));
            }
        }
        for chosen in choices {
            if chosen.is_empty() {
                self.mark(&mut granted, chosen);
                return Ok(Taken::Granted(granted));
            }
            if let Some(lease) = self.lease(&chosen, attempt)? {
                granted.lease = Some(lease);
                self.mark(&mut granted, chosen);
                return Ok(Taken::Granted(granted));
            }
        }
        Ok(Taken::Elsewhere)
    }

    fn lease(&self, chosen: &[usize], attempt: &AttemptId) -> Result<Option<Lease>, String> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let locks: Vec<SlotName> = chosen.iter().flat_map(|slot| self.slots[*slot].locks.clone()).collect();
        let Some(mut lease) = dir.try_lease(&locks).map_err(|error| error.to_string())? else { return Ok(None) };
        for left in lease.unclean.iter().filter_map(|left| left.holder.as_ref()) {
            // Its supervisor died before it could end its processes: they may still be on the device.
            container::end_all(&left.place, left.attempt.as_str(), &self.variables, ORPHANS)
                .map_err(|error| error.to_string())?;
        }
        let place = self.store.join("tmp/places").join(attempt.as_str());
        let holder = Holder { attempt: attempt.clone(), pid: std::process::id(), store: self.store.clone(), place };
        lease.occupy(&holder).map_err(|error| error.to_string())?;
        Ok(Some(lease))
    }

    fn mark(&mut self, granted: &mut Granted, chosen: Vec<usize>) {
        for (lane, count) in &granted.lanes {
            self.lanes[*lane].used += count;
        }
        for slot in &chosen {
            self.slots[*slot].busy = true;
            granted.names.push((self.slots[*slot].kind.clone(), self.slots[*slot].name.clone()));
        }
        granted.slots = chosen;
    }

    /// The cores that an action may use: those of its slots, or all that no slot has. Empty means any.
    #[must_use]
    pub fn cores(&self, granted: &Granted) -> Vec<u32> {
        let own: Vec<u32> = granted.slots.iter().flat_map(|slot| self.slots[*slot].cores.clone()).collect();
        if !own.is_empty() {
            return own;
        }
        self.rest.clone()
    }

    /// Keeps this process, and the supervisors that it starts from now on, off the cores that slots name: what is measured there
    /// would be measured with them. Where slots name no cores, or all there are, everything stays as it is.
    pub fn stand_aside(&self) {
        process::keep_to(&self.rest);
    }

    /// Gives back what an action held.
    pub fn give_back(&mut self, granted: Granted) {
        for slot in granted.slots {
            self.slots[slot].busy = false;
        }
        for (lane, count) in granted.lanes {
            self.lanes[lane].used -= count;
        }
        if let Some(lease) = granted.lease {
            // The locks are given up even if a slot's text cannot be cleared; the next holder then looks for orphans once.
            let _ = lease.release();
        }
    }
}
