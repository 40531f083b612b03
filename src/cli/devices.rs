//! The devices that a run would hold and this machine does not have.

use crate::cli::open::Opened;
use crate::plan::Missing;
use crate::report::standing::standing;

impl Opened {
    /// The devices that wanted actions hold and that are not there. What is served holds none. A step that measures time says it
    /// by itself, as its key needs the device; this is of the others too, such as one that counts.
    #[must_use]
    pub fn lacking_devices(&self, wanted: &[bool]) -> Vec<Missing> {
        let plan = self.plan();
        let lacking = |node: &usize| {
            let held = plan.nodes[*node].holds.iter();
            let absent = |kind: &str| plan.facts.devices.get(kind)?.as_ref().err().cloned();
            held.filter_map(|(kind, _)| absent(kind.as_str())).next()
        };
        let among = (0..plan.nodes.len()).filter(|node| wanted[*node]);
        let found: Vec<(usize, Missing)> = among.filter_map(|node| Some((node, lacking(&node)?))).collect();
        if found.is_empty() {
            return Vec::new();
        }
        let ends = standing(plan, &self.store, &self.index, wanted).ends;
        let begins = found.into_iter().filter(|(node, _)| ends[*node].settled().is_none());
        begins.map(|(_, missing)| missing).collect()
    }
}
