//! Starting a child in its sandbox, or in as much of it as this kernel permits.
//!
//! Says what was held; what serves its hosts starts when the child runs.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

use super::apart;
use super::confine::{Confine, Part};
use super::egress::{self, Opened};
use super::launch::{Launch, LaunchError, launch};
use super::relay::Relay;
use super::spec::Secret;
use super::system::wait_for;

/// Whether a child can have files and a network of its own on this machine, as `network` needs: one is made, and ends at once.
///
/// # Errors
/// Why not.
pub fn own_networks() -> io::Result<()> {
    extern "C" fn ends(_: *mut c_void) -> c_int {
        0
    }
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    let make = |flags: c_int| {
        let mut stack = Vec::<u128>::with_capacity(4096);
        // SAFETY: the child has memory of its own and does nothing but end, on a stack whose end is within the allocation.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
            libc::clone(ends, top, flags | libc::SIGCHLD, ptr::null_mut())
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        wait_for(pid);
        Ok(())
    };
    match make(own) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => make(own | libc::CLONE_NEWUSER),
        done => done,
    }
}

/// What a child cannot be held to on this machine, by part, and why; nothing where it can be held to all.
#[must_use]
pub fn sandboxed() -> Vec<(Part, String)> {
    let own = own_networks().err().map(|error| error.to_string());
    let mounts = [Part::Files, Part::Devices, Part::Network].map(|part| Some((part, own.clone()?)));
    mounts.into_iter().flatten().chain(apart::lacking().map(|why| (Part::Processes, why.to_owned()))).collect()
}

/// A child that has executed its program.
pub(super) struct Held {
    pub(super) leader: libc::pid_t,
    /// What it is held to.
    pub(super) confine: Option<Confine>,
    opened: Vec<Opened>,
}

/// Starts it. Without what this kernel refuses, unless all is required.
pub(super) fn launch_held(what: Launch<'_>, mut confine: Option<Confine>) -> Result<Held, LaunchError> {
    loop {
        let asked = confine.as_ref().filter(|confine| !confine.is_idle());
        match (try_launch(what, asked), confine) {
            (Err(LaunchError::Confine { part, source }), Some(less)) if !less.required => {
                confine = Some(less.without(part, &source));
            }
            (begun, confine) => return begun.map(|(leader, opened)| Held { leader, confine, opened }),
        }
    }
}

fn try_launch(what: Launch<'_>, confine: Option<&Confine>) -> Result<(libc::pid_t, Vec<Opened>), LaunchError> {
    let refused = |(part, source)| LaunchError::Confine { part, source };
    let Some(confine) = confine else { return Ok((launch(&what)?, Vec::new())) };
    let ready = confine.ready().map_err(refused)?;
    if ready.egress.is_none() {
        return Ok((launch(&Launch { confine: Some(&ready), ..what })?, Vec::new()));
    }
    let no_network = |error: io::Error| refused((Part::Network, error));
    let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.map_err(|error| no_network(error.into()))?;
    let leader = launch(&Launch { confine: Some(&ready), doors: Some(theirs.as_fd()), ..what })?;
    match egress::receive(ours.as_fd()) {
        Ok(opened) => Ok((leader, opened)),
        Err(error) => {
            stop(leader);
            Err(no_network(error))
        }
    }
}

fn stop(leader: libc::pid_t) {
    let _ = kill(Pid::from_raw(leader), Signal::SIGKILL);
    let _ = wait_for(leader);
}

impl Held {
    /// Begins to serve its hosts, where it has some.
    ///
    /// # Errors
    /// If that cannot be done: the child is stopped then.
    pub(super) fn serve(&mut self, secrets: &[Secret]) -> io::Result<Option<Relay>> {
        let Some(egress) = self.confine.as_ref().and_then(|confine| confine.egress.as_ref()) else { return Ok(None) };
        let secrets = secrets.iter().map(|secret| secret.value.clone());
        let relay = Relay::start(std::mem::take(&mut self.opened), egress, secrets);
        relay.map(Some).inspect_err(|_| stop(self.leader))
    }
}
