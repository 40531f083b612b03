//! What the processes of an agent and of a test are held to: their own folders, the devices of their slots, for a test no
//! network, and for an agent the hosts that the manifest names. The kernel's part is `process`.
//!
//! Where the manifest names none, the network of an agent that calls a model is open. The job says so by a mark.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::git;
use crate::manifest::{SandboxChoice, SandboxDecl};
use crate::plan::Ask;
use crate::process::{Confine, Egress, Files, Host, Part};
use crate::step::Draft;
use crate::step::context::{Context, Place};

/// Test scripts that are hidden at most.
const SCRIPTS: usize = 100_000;

/// What one process is to be held to.
pub struct Holding<'a> {
    /// What the manifest says.
    pub decl: &'a SandboxDecl,
    /// Its own folders within the place.
    pub own: Vec<PathBuf>,
    /// What it sees of the store beside the place: a built environment.
    pub see: Vec<PathBuf>,
    /// What of the place is hidden from it.
    pub hidden: Vec<PathBuf>,
    /// Whether the tests are hidden from it: what it is to be measured by, it must not know.
    pub unseen_tests: bool,
    /// What network it has.
    pub network: Network<'a>,
}

/// What a process may reach by its network.
#[derive(Clone, Copy)]
pub enum Network<'a> {
    /// Nothing but itself.
    None,
    /// Nothing but itself, and no service of this machine that lies in a file.
    Sealed,
    /// These hosts.
    Only(&'a [Host]),
    /// Everything, and why.
    Open(&'static str),
}

/// The document that says which hosts an agent reached.
pub const REACHED: &str = "network";

impl Context {
    /// What the kernel is asked for, given all that the process is started with.
    pub(super) fn confine(
        &self,
        place: &Place,
        holding: &Holding<'_>,
        argv: &[String],
        private: Option<&Path>,
    ) -> Confine {
        if holding.decl.choice == SandboxChoice::Off {
            let off = |part| (part, "the manifest says `sandbox off`".to_owned());
            let open = [Part::Files, Part::Devices, Part::Network].map(off);
            return Confine { open: BTreeMap::from(open), ..Confine::default() };
        }
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut own = holding.own.clone();
        own.extend(["home", "tmp"].map(|name| place.dir.join(name)));
        let mut write: Vec<PathBuf> =
            own.iter().chain(&holding.decl.write).map(PathBuf::as_path).chain(private).map(real).collect();
        write.dedup();
        let needed = self.needed(argv, &write);
        let store = real(&self.store.root);
        let mut hide = vec![store.clone()];
        hide.extend(self.sources.iter().filter_map(|source| {
            let path = real(match source {
                git::Source::Local(path) | git::Source::Stream(path) => path,
                git::Source::Url(_) => return None,
            });
            // A project that holds its own store and tools is not hidden from them, only its history is.
            let holds = store.starts_with(&path) || needed.iter().any(|need| need.starts_with(&path));
            Some(if holds { path.join(".git") } else { path })
        }));
        hide.extend(holding.hidden.iter().map(|path| real(path)));
        if holding.unseen_tests {
            hide.extend(self.tests(&needed, &store));
        }
        let in_tmp = |path: &Path| path.starts_with("/tmp") || path.starts_with("/var/tmp");
        let free = !in_tmp(&store) && !needed.iter().any(|path| in_tmp(path));
        let (mut open, mut egress) = (BTreeMap::new(), None);
        match holding.network {
            Network::None | Network::Sealed => {}
            Network::Only(hosts) => egress = Some(Egress { hosts: hosts.to_vec(), dir: place.dir.join("net") }),
            Network::Open(why) => drop(open.insert(Part::Network, why.to_owned())),
        }
        Confine {
            files: Some(Files {
                see: std::iter::once(&place.dir).chain(&holding.see).map(|path| real(path)).collect(),
                write,
                hide,
                stands: Vec::new(),
                tmp: free.then(|| place.dir.join("tmp")),
                devices: place.slots.iter().any(|(kind, _)| kind == "gpu"),
                unserved: matches!(holding.network, Network::Sealed),
            }),
            offline: matches!(holding.network, Network::None | Network::Sealed),
            egress,
            required: holding.decl.choice == SandboxChoice::Require,
            open,
        }
    }

    /// Where the test scripts lie: their folder, or each of them where something else is needed there.
    fn tests(&self, needed: &[PathBuf], store: &Path) -> Vec<PathBuf> {
        let scripts = self.plan.nodes.iter().filter_map(|node| match &node.ask {
            Ask::Test(ask) if ask.script.is_some() => ask.script_path.canonicalize().ok(),
            _ => None,
        });
        let mut hidden = BTreeSet::new();
        for script in scripts.take(SCRIPTS) {
            let Some(folder) = script.parent() else { continue };
            let needs = store.starts_with(folder) || needed.iter().any(|need| need.starts_with(folder));
            hidden.insert(if needs { script } else { folder.to_owned() });
        }
        hidden.into_iter().collect()
    }

    /// The paths of this machine that a process is started with: its arguments, its tools, flow itself.
    fn needed(&self, argv: &[String], write: &[PathBuf]) -> Vec<PathBuf> {
        let mut needed: Vec<PathBuf> =
            argv.iter().filter_map(|part| Some(PathBuf::from(&part[part.find('/')?..]))).collect();
        let store = &self.store.root;
        needed.extend(write.iter().cloned());
        needed.retain(|path| !path.starts_with(store));
        needed.push(self.machine.flow.clone());
        let tools = self.plan.facts.tools.values().filter_map(|fact| fact.as_ref().ok());
        for tool in tools {
            needed.push(tool.path.clone());
            needed.extend(tool.path.canonicalize());
            needed.extend(tool.source.iter().map(|source| source.dir.clone()));
        }
        needed
    }
}

/// Only what makes a result another one is in a key: that nothing is held. What could not be held is on record.
pub(super) fn draft(draft: &mut Draft<'_>, decl: &SandboxDecl) {
    if decl.choice == SandboxChoice::Off {
        draft.text("sandbox", "off");
    }
}
