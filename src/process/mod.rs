//! Running other programs: under a supervisor that survives flow, or plainly in a process group of their own.
//!
//! An attempt that costs money, holds a slot or may leave daemons behind runs under a **supervisor**: flow re-executed with one
//! thread, which captures and redacts the output, keeps the time limit, kills every descendant at the end, writes `end.json`
//! and only then frees the locks it was given. It needs flow for nothing but the pipe between them: when that closes, flow is
//! dead and the tree is killed. Cheap commands are started directly ([`spawn_plain`]).
//!
//! This room says how a process ended, never what that means for an action: `step` does. It knows no store, no manifest and no
//! slot; a lock is a descriptor to it. What it cannot reach: processes that another daemon starts on a child's behalf (a job of
//! cron), since these are nobody's descendants; but for a container that a [`Removal`] names.

mod answer;
mod apart;
mod capture;
mod cgroup;
mod client;
mod confine;
mod cores;
mod egress;
mod end;
mod families;
mod hold;
mod launch;
mod mounts;
mod names;
mod order;
mod orphans;
mod plain;
mod reached;
mod relay;
mod removal;
mod serve;
mod service_log;
mod spec;
mod supervisor;
mod system;
mod table;
mod tree;

pub use answer::{ANSWER_LIMIT, answer, answer_in_confidence, answer_to};
pub use cgroup::groups;
pub use client::{SuperviseError, Supervised};
pub use confine::{Confine, Files, Part, Sandbox};
pub use cores::{held_to, keep_to, own_cores};
pub use egress::{Egress, Host, HostError};
pub use end::{By, End, Exit, read_end};
pub use hold::{own_networks, sandboxed};
pub use launch::{ATTEMPT_MARK, SUPERVISOR_MARK};
pub use order::{Client, Order, PORT_WAIT, Ready, SERVE_FD, Served, Serving, Slip, Trouble, hole};
pub use orphans::{OrphanError, Pid, kill_marked, marked, own as own_processes, supervisor_is_stopped};
pub use plain::{Plain, spawn_plain};
pub use reached::{HostUse, Reached, RefusedName};
pub use removal::ask_shortly;
pub use serve::serve_main;
pub use spec::{Extra, Removal, Secret, Source, Spec};
pub use supervisor::supervise_main;
