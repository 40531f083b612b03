//! What the benches measure with: wall clock and processor time of children, the fastest of several, as rows with a ratio.
#![allow(dead_code, unreachable_pub, reason = "no bench uses all of it, and a bench is no library")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The number that the bench was given, or a usual one.
pub fn number_or(usual: usize) -> usize {
    std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(usual)
}

/// Runs flow in a folder, without a terminal.
pub fn flow(dir: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "flow {args:?}");
}

/// Wall clock, and processor time of all children that ended meanwhile.
#[derive(Clone, Copy)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
}

pub fn time(work: impl FnOnce()) -> Cost {
    let (before, began) = (children(), Instant::now());
    work();
    Cost { wall: began.elapsed(), cpu: children() - before }
}

/// The one of the least wall clock.
pub fn fastest(times: usize, mut work: impl FnMut()) -> Cost {
    (0..times).map(|_| time(&mut work)).min_by_key(|cost| cost.wall).unwrap()
}

fn children() -> Duration {
    // SAFETY: the call fills a struct of plain numbers, which is valid when zeroed.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let span = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    span(usage.ru_utime) + span(usage.ru_stime)
}

/// A row of the result, with the ratio to another cost where there is one.
pub fn row(what: &str, cost: Cost, to: Option<(Cost, &str)>) {
    let ms = |span: Duration| span.as_secs_f64() * 1000.0;
    let ratio = to.map(|(other, name)| format!("{:>6.2}x {name}", cost.wall.as_secs_f64() / other.wall.as_secs_f64()));
    let (wall, cpu) = (ms(cost.wall), ms(cost.cpu));
    println!("{what:<38} {wall:>9.1} ms  {cpu:>9.1} ms of processor  {}", ratio.unwrap_or_default());
}

/// Runs git with no one's configuration, and gives what it printed.
pub fn git(dir: &Path, args: &[&str], input: Option<&str>) -> String {
    let path = dir.with_extension("stream");
    std::fs::write(&path, input.unwrap_or_default()).unwrap();
    let mut command = Command::new("git");
    command.args(args).current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.stdin(std::fs::File::open(path).unwrap()).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
