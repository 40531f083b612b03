//! What builds need of memory and disk: one does not begin while the machine has less than that beside those under way.
//!
//! What is claimed is taken from what is free even where a build has used it already: who asks for room asks for more than the
//! least, and nobody is let in on what another one will need yet.

use std::path::Path;

use super::*;
use crate::event::Held;
use crate::host;
use crate::units::human_size;

/// What a build needs, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claim {
    memory: u64,
    disk: u64,
}

/// Whether there is room for an action.
pub(super) enum Room {
    /// There is, or it says nothing of its needs, or the machine does not tell.
    Enough,
    /// Not while others are at work; what is lacking.
    Wait(SlotKind),
    /// Not even with nobody else at work.
    Never(Held),
}

impl Dispatcher {
    fn claim_of(&self, node: usize) -> Claim {
        let step = self.plan().step(node);
        let size = |size: &Option<crate::manifest::Spanned<u64>>| size.as_ref().map_or(0, |size| size.value);
        Claim { memory: size(&step.memory), disk: size(&step.disk) }
    }

    /// Looks whether a build has what it needs.
    pub(super) fn room(&self, node: usize) -> Room {
        let wanted = self.claim_of(node);
        let sum = |part: fn(&Claim) -> u64| self.claims.values().map(part).fold(0, u64::saturating_add);
        let lacks = |wanted: u64, there: Option<u64>, claimed: u64| {
            there.filter(|there| wanted > 0 && there.saturating_sub(claimed) < wanted)
        };
        let root = &self.context.store.root;
        let memory = || lacks(wanted.memory, host::available_memory(Path::new("/")), sum(|claim| claim.memory));
        let disk = || lacks(wanted.disk, host::free_disk(root), sum(|claim| claim.disk));
        let (what, cause, wants, there, of) = if let Some(there) = (wanted.memory > 0).then(memory).flatten() {
            ("memory", Cause::EnvironmentFailed, wanted.memory, there, "available on this machine".to_owned())
        } else if let Some(there) = (wanted.disk > 0).then(disk).flatten() {
            ("disk", Cause::DiskFull, wanted.disk, there, format!("free where {} lies", root.display()))
        } else {
            return Room::Enough;
        };
        if self.states.running() > 0 {
            return Room::Wait(what.into());
        }
        let (wants, there) = (human_size(wants), human_size(there));
        Room::Never(Held {
            owner: cause.owner(),
            evidence: format!("the build wants {wants} of {what}, and {there} are {of}"),
            cause: Some(cause.name().into()),
            next: format!("free some {what}, or correct `{what}` of the step"),
        })
    }

    /// Notes what an action that begins claims.
    pub(super) fn claim(&mut self, node: usize) {
        let claim = self.claim_of(node);
        if claim.memory > 0 || claim.disk > 0 {
            self.claims.insert(node, claim);
        }
    }
}
