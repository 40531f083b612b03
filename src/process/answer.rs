//! Asking a program one short question: a probe of a tool, a secret from a password manager, a command that tells somebody.
//!
//! Only its standard output counts, bounded. When it takes too long it is killed with all that it started, as far as that can be
//! found: its group, its descendants, and what has its mark in the environment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::launch::ATTEMPT_MARK;
use super::orphans::kill_marked;
use crate::redact::{Redactor, Secret};

/// How long one question may take in a run: a probe, the command of a secret, of an expiry or of `on`.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;
/// How much of the end of what it complained of is kept, in bytes; of its last line, in characters.
const COMPLAINT: usize = 64 * 1024;
const SHOWN: usize = 500;
/// How long its output is read after its own end, should something that it left behind hold the pipe.
const LEFT_BEHIND: Duration = Duration::from_secs(2);
/// How long what it started may take to die.
const DYING: Duration = Duration::from_secs(2);
/// The shortest part of an answer that is looked for in a complaint, in bytes.
const TELLING: usize = 6;

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
    answer_to(None, argv, env, cwd, limit, &[]).await
}

/// The same for a program that is given something to read. Whether it reads it is its own business.
/// Of `known` secrets none is in its complaint.
///
/// # Errors
/// As `answer`.
pub async fn answer_to(
    input: Option<Vec<u8>>,
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &Path,
    limit: Duration,
    known: &[Secret],
) -> Result<Vec<u8>, String> {
    ask(input, argv, env, cwd, limit).await.map_err(|refusal| refusal.text(known))
}

/// The same for a program that deals with secrets: nothing of what it printed, nor of the secrets that are known, is in its
/// complaint.
///
/// # Errors
/// As `answer`.
pub async fn answer_in_confidence(
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &Path,
    limit: Duration,
    known: &[Secret],
) -> Result<Vec<u8>, String> {
    ask(None, argv, env, cwd, limit).await.map_err(|mut refusal| {
        let mut hidden = parts(&std::mem::take(&mut refusal.said));
        hidden.extend(known.iter().map(|secret| Secret::new(secret.name(), secret.expose().to_vec())));
        refusal.text(&hidden)
    })
}

/// What of an answer gives it away: all of it, its lines, and its words.
fn parts(said: &[u8]) -> Vec<Secret> {
    let said = &said[..said.len().min(COMPLAINT)];
    let within = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=_-.~".contains(byte) || !byte.is_ascii();
    let words = said.split(|byte| !within(byte));
    let lines = said.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut all: Vec<&[u8]> = std::iter::once(said.trim_ascii()).chain(lines).chain(words).collect();
    all.retain(|part| part.len() >= TELLING);
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|part| Secret::new("that it printed", part.to_vec())).collect()
}

/// Why there is no answer.
struct Refusal {
    why: String,
    /// The end of its standard error.
    complained: Vec<u8>,
    /// What it had said all the same.
    said: Vec<u8>,
}

impl Refusal {
    fn of(why: impl Into<String>) -> Self {
        Self { why: why.into(), complained: Vec::new(), said: Vec::new() }
    }

    fn text(&self, hidden: &[Secret]) -> String {
        let complained = Redactor::new(hidden).clean(&self.complained);
        let complained = String::from_utf8_lossy(&complained);
        match complained.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
            Some(line) => format!("{}: {}", self.why, line.chars().take(SHOWN).collect::<String>()),
            None => self.why.clone(),
        }
    }
}

/// Kills a group unless it is known to have ended.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn ask(
    input: Option<Vec<u8>>,
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &Path,
    limit: Duration,
) -> Result<Vec<u8>, Refusal> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let [program, arguments @ ..] = argv else { return Err(Refusal::of("there is no program")) };
    let mark = format!("answer-{}-{}", std::process::id(), ASKED.fetch_add(1, Ordering::Relaxed));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .env("LANG", "C.UTF-8")
        .env(ATTEMPT_MARK, &mark)
        .current_dir(cwd)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Refusal::of(error.to_string()))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Refusal::of("its output cannot be read"));
    };
    let stdin = child.stdin.take();
    let give = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            let _ = stdin.write_all(&input).await;
        }
    };
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let ended = {
        let talk = async {
            let (whole, (), ()) = tokio::join!(whole(stdout, &mut said), end_of(stderr, &mut complained), give);
            whole
        };
        let mut talk = std::pin::pin!(talk);
        let both = async {
            tokio::select! {
                whole = &mut talk => {
                    whole?;
                    child.wait().await.map_err(|error| error.to_string())
                }
                status = child.wait() => {
                    if let Ok(whole) = tokio::time::timeout(LEFT_BEHIND, &mut talk).await {
                        whole?;
                    }
                    status.map_err(|error| error.to_string())
                }
            }
        };
        let late =
            || format!("no answer within {} s, which is its limit: it was killed with all it started", limit.as_secs());
        tokio::time::timeout(limit, both).await.unwrap_or_else(|_| Err(late()))
    };
    match ended {
        Ok(status) => {
            // Its id may be another's by now.
            group.0 = None;
            answered(status, said, complained)
        }
        Err(why) => {
            group.kill();
            let _ = tokio::task::spawn_blocking(move || kill_marked(&mark, DYING, false)).await;
            Err(Refusal::of(why))
        }
    }
}

fn answered(status: ExitStatus, said: Vec<u8>, complained: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    if status.success() {
        return Ok(said);
    }
    let silent = complained.trim_ascii().is_empty();
    let why = if silent {
        format!(
            "{status}: it said nothing on its standard error, and what it prints besides is not shown, as it may be a secret"
        )
    } else {
        status.to_string()
    };
    Err(Refusal { why, complained, said })
}

/// Reads all of a stream, which may not be longer than an answer.
async fn whole(mut stream: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> Result<(), String> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut piece).await.map_err(|error| error.to_string())? {
            0 => return Ok(()),
            n => into.extend_from_slice(&piece[..n]),
        }
        if into.len() as u64 > LONGEST {
            return Err(format!("it said more than {LONGEST} bytes"));
        }
    }
}

/// Reads the end of a stream. A flood is read on and dropped: nobody is kept waiting by a full pipe.
async fn end_of(mut stream: impl AsyncRead + Unpin, into: &mut Vec<u8>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut piece).await {
        into.extend_from_slice(&piece[..n]);
        if into.len() > 2 * COMPLAINT {
            into.drain(..into.len() - COMPLAINT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn asked(script: &str, limit: u64, known: &[Secret]) -> Result<String, String> {
        let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        let argv = ["sh", "-c", script].map(str::to_owned);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let said = answer_in_confidence(&argv, &env, Path::new("/"), Duration::from_secs(limit), known);
        runtime.block_on(said).map(|said| String::from_utf8(said).unwrap())
    }

    #[test]
    fn a_complaint_tells_nothing_of_what_was_printed_nor_of_other_secrets() {
        let known = [Secret::new("OTHER", b"hunter2-hunter2".to_vec())];
        let script = r#"echo '{"token": "tok-12345678", "a": 1}'; echo 'bad tok-12345678 and hunter2-hunter2 given' >&2; exit 4"#;
        let why = asked(script, 60, &known).unwrap_err();
        assert_eq!(why, "exit status: 4: bad [secret that it printed] and [secret OTHER] given");
        let long = asked("head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; exit 1", 60, &[]).unwrap_err();
        assert!(long.len() < SHOWN + 50, "{}", long.len());
    }

    #[test]
    fn a_daemon_that_holds_the_pipe_keeps_nobody_waiting() {
        let began = Instant::now();
        assert_eq!(asked("printf said; sleep 20 &", 60, &[]).unwrap(), "said");
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn at_its_limit_a_program_dies_with_what_it_started_in_other_sessions_too() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("pid");
        let script = format!(
            "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600' & printf half; sleep 600",
            told.display()
        );
        let why = asked(&script, 2, &[]).unwrap_err();
        assert_eq!(why, "no answer within 2 s, which is its limit: it was killed with all it started");
        let pid: i32 = std::fs::read_to_string(&told).unwrap().trim().parse().unwrap();
        assert!(super::super::table::scan().unwrap().iter().all(|process| process.pid != pid || !process.alive));
    }
}
