//! What is done when a tree is dead for what it had a daemon start: a container is nobody's descendant.
//!
//! The programs that are asked here have a moment each. They do not touch what the tree did.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::end::{End, Exit};
use super::spec::{Removal, Spec};

/// How long each program may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How much of an answer is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Ends and removes what a spec names. Whether it is gone is in the end: its slot must not be used beside it.
pub(super) fn remove(spec: &Spec, end: &mut End) {
    let Some(Removal { name, kill, remove, look }) = &spec.removal else { return };
    // A client that was killed says nothing of what it had started; nor does one that lost its daemon.
    if !matches!(end.exit, Exit::Code(0)) {
        let _ = ask_shortly(kill, &spec.env, LIMIT);
    }
    let until = Instant::now() + LIMIT;
    let gone = loop {
        match ask_shortly(remove, &spec.env, LIMIT) {
            Some((true, _)) => break true,
            Some((false, _)) if matches!(ask_shortly(look, &spec.env, LIMIT), Some((false, _))) => break true,
            // A daemon that removes it by itself just now refuses to be told.
            Some((false, _)) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            _ => break false,
        }
    };
    if !gone {
        let fault = format!("the container {name} cannot be removed, and may still run");
        end.fault = Some(end.fault.take().map_or(fault.clone(), |first| format!("{first}; {fault}")));
    }
}

/// Whether a program ends well, and what it prints; nothing if it cannot be started or takes longer than it may. Blocks.
#[must_use]
pub fn ask_shortly(argv: &[String], env: &[(String, String)], limit: Duration) -> Option<(bool, String)> {
    let (program, arguments) = argv.split_first()?;
    let (reader, writer) = io::pipe().ok()?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env.iter().map(|(name, value)| (name, value))).current_dir("/");
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().ok()?;
    // It holds the other end of the pipe.
    drop(command);
    let group = Pid::from_raw(i32::try_from(child.id()).ok()?);
    let began = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if began.elapsed() < limit => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
                return None;
            }
        }
    };
    // Whoever it left behind may hold the pipe: what is in it now is the answer.
    let said = File::from(std::os::fd::OwnedFd::from(reader));
    let _ = nix::fcntl::fcntl(&said, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK));
    let mut answer = Vec::new();
    let _ = said.take(LONGEST).read_to_end(&mut answer);
    Some((ended, String::from_utf8_lossy(&answer).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_and_one_that_takes_too_long_is_killed() {
        let ask = |script: &str, limit: u64| {
            let argv = ["/bin/sh", "-c", script].map(str::to_owned);
            ask_shortly(&argv, &[("A".into(), "b".into())], Duration::from_millis(limit))
        };
        assert_eq!(ask("echo $A", 10_000), Some((true, "b\n".to_owned())));
        assert_eq!(ask("exit 3", 10_000), Some((false, String::new())));
        assert_eq!(ask("while :; do :; done", 50), None);
        assert_eq!(ask_shortly(&["/no/such".to_owned()], &[], LIMIT), None);
    }
}
