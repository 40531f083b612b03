//! Asking a program one short question: a probe of a tool, a secret from a password manager, a command that tells somebody.
//!
//! Only its standard output counts, bounded; it is killed with its group when it takes too long.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The longest answer, in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What a program, started in `cwd`, says on its standard output. It gets the given environment, with `LANG=C.UTF-8`.
///
/// # Errors
/// Why there is no answer, in words: it cannot be started, took too long, said too much, or ended with a code other than 0.
pub async fn answer(
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &Path,
    limit: Duration,
) -> Result<Vec<u8>, String> {
    answer_to(None, argv, env, cwd, limit).await
}

/// The same for a program that is given something to read. Whether it reads it is its own business.
///
/// # Errors
/// As `answer`.
pub async fn answer_to(
    input: Option<Vec<u8>>,
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &Path,
    limit: Duration,
) -> Result<Vec<u8>, String> {
    let [program, arguments @ ..] = argv else { return Err("there is no program".into()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .env("LANG", "C.UTF-8")
        .current_dir(cwd)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let group = child.id();
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("its output cannot be read".into());
    };
    let stdin = child.stdin.take();
    let give = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            let _ = stdin.write_all(&input).await;
        }
    };
    let talk = async {
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(LONGEST + 1), stderr.take(64 * 1024));
        let both = tokio::join!(stdout.read_to_end(&mut said), stderr.read_to_end(&mut complained), give);
        both.0.map_err(|error| error.to_string())?;
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if said.len() as u64 > LONGEST {
            return Err(format!("it said more than {LONGEST} bytes"));
        }
        if status.success() {
            return Ok(said);
        }
        let complaint = String::from_utf8_lossy(&complained);
        Err(format!("{status}: {}", complaint.lines().last().unwrap_or("no message").trim()))
    };
    let result = tokio::time::timeout(limit, talk).await;
    result.unwrap_or_else(|_| {
        if let Some(group) = group.and_then(|group| i32::try_from(group).ok()) {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
        }
        Err(format!("no answer within {} s", limit.as_secs()))
    })
}
