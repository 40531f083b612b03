//! The supervisor: a process of its own with one thread that runs one child and outlives flow.
//!
//! Its stdin is the life line: a [`Spec`], then `t` (stop politely) or `k` (kill now), and its end means that flow is dead. Its
//! stdout takes one line, the [`End`], when all is over. In this order: the tree is dead, the output is in its files, `end.json`
//! is in place, the line is sent, the locks are freed. Every descendant is found, since as a subreaper it adopts those whose
//! parents die; it is done when the kernel says that it has no child left.
//!
//! This is its frame; what happens between the start and the end is `tree`. It does as little as it can before the child runs,
//! and has no idea what the child is for.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::time::Duration;

use super::end::{End, Exit};
use super::launch::IGNORED;
use super::removal;
use super::spec::Spec;
use super::system::close_on_exec;
use super::tree::Tree;
use crate::hostile;

/// The whole of `flow supervise`: reads the spec from descriptor 0, runs it, and answers on descriptor 1.
///
/// The code says whether the supervisor did its part, not how the child ended: 0 after an end was told, 2 if there was no spec.
#[must_use]
pub fn supervise_main() -> ExitCode {
    // SAFETY: at the start of a process these two are its own, and nothing else in it uses them; nobody answers by printing.
    let (control, answer) = unsafe { (File::from_raw_fd(0), File::from_raw_fd(1)) };
    stand_apart();
    let Ok(spec) = Spec::receive(&control) else { return ExitCode::from(2) };
    for lock in &spec.inherit {
        close_on_exec(*lock);
    }

    match Tree::start(&spec, control) {
        Err(end) => tell(*end, &spec, answer),
        Ok(mut tree) => {
            let mut end = tree.run();
            removal::remove(&spec, &mut end);
            let all_dead = end.survivors == 0;
            tell(end, &spec, answer);
            // What does not die may still use what the locks stand for: a second run must not measure beside it.
            while !all_dead && tree.reap() {
                tree.kill();
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
    ExitCode::SUCCESS
}

/// Out of reach of the terminal and of polite signals: only flow's pipe, or SIGKILL, ends a supervisor.
fn stand_apart() {
    // It is the leader of a session already if flow's client started it.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // SAFETY: sets dispositions and blocks a signal, before there is any thread or child. SIGCHLD may have been inherited as
    // ignored, which would make the kernel forget our children's ends.
    unsafe {
        for signal in IGNORED {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Puts the end in its place, tells flow, and frees the locks.
fn tell(mut end: End, spec: &Spec, mut answer: File) {
    let by_itself = !matches!(end.exit, Exit::Interrupted { .. } | Exit::NotStarted { .. });
    for private in spec.private.iter().chain(spec.aside.iter().filter(|_| !by_itself)) {
        let Err(e) = hostile::remove_all(private) else { continue };
        let fault = format!("cannot remove {}, which holds secrets: {e}", private.display());
        end.fault = Some(end.fault.map_or(fault.clone(), |first| format!("{first}; {fault}")));
    }
    if let Err(e) = end.write(&spec.end, spec.durable) {
        let fault = format!("cannot write {}: {e}", spec.end.display());
        end.fault = Some(end.fault.map_or(fault.clone(), |first| format!("{first}; {fault}")));
    }
    // flow may be dead: then this fails, and the file speaks.
    let _ = answer.write_all(&end.line());
    if end.survivors == 0 {
        for lock in &spec.inherit {
            let _ = nix::unistd::close(*lock);
        }
    }
    // `answer` closes here: flow, which reads until then, finds the locks free.
}
