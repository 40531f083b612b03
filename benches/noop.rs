//! What flow itself costs: trivial `command` steps, cold and with nothing to do, beside the same processes started bare.
//!
//!     cargo bench --bench noop              142 chains of 6 steps
//!     cargo bench --bench noop -- 1000      another number of chains
//!
//! Prints milliseconds of wall clock and of processor, and the ratios. Nothing is asserted: compare ratios of one run only.
#![allow(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The steps of one chain.
const STEPS: usize = 6;
/// How often what is repeatable is repeated; the fastest counts.
const TIMES: usize = 5;

fn main() {
    let chains: usize = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(142);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), chains);
    let actions = chains * STEPS;
    println!("{actions} steps, {chains} chains of {STEPS}; the fastest of {TIMES} where it can be repeated");

    let bare = fastest(|| time(|| spawn(dir.path(), actions)));
    row("bare processes, one after the other", bare, bare);
    let cold = time(|| flow(dir.path(), "run"));
    row("cold run", cold, bare);
    row("no-op run", fastest(|| time(|| flow(dir.path(), "run"))), bare);
    row("plan with nothing to do", fastest(|| time(|| flow(dir.path(), "plan"))), bare);
}

/// Chains without a repository: each step copies its input.
fn write(dir: &Path, chains: usize) {
    let names: Vec<String> = (0..chains).map(|n| format!("\"{n}\"")).collect();
    let mut steps = String::from(
        "    step s0 uses=command { input a \"in/{n}\"; run \"cp\" \"{in.a}\" \"{out.o}\"; output o \"o\" }\n",
    );
    for step in 1..STEPS {
        let up = step - 1;
        steps.push_str(&format!(
            "    step s{step} uses=command {{ needs s{up}; run \"cp\" \"{{in.s{up}}}\" \"{{out.o}}\"; output o \"o\" }}\n"
        ));
    }
    let manifest = format!("flow 1\npipeline chains {{\n    axis n {}\n{steps}}}\n", names.join(" "));
    std::fs::write(dir.join("m.kdl"), manifest).unwrap();
    std::fs::create_dir(dir.join("in")).unwrap();
    for n in 0..chains {
        std::fs::write(dir.join(format!("in/{n}")), n.to_string()).unwrap();
    }
}

fn spawn(dir: &Path, times: usize) {
    for _ in 0..times {
        assert!(Command::new("cp").args(["in/0", "copy"]).current_dir(dir).status().unwrap().success());
    }
}

fn flow(dir: &Path, verb: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.args([verb, "m.kdl"]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
}

/// Wall clock, and processor time of all children that ended meanwhile.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn time(work: impl FnOnce()) -> Cost {
    let (before, began) = (children(), Instant::now());
    work();
    Cost { wall: began.elapsed(), cpu: children() - before }
}

fn fastest(mut measure: impl FnMut() -> Cost) -> Cost {
    (0..TIMES).map(|_| measure()).min_by_key(|cost| cost.wall).unwrap()
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

fn row(what: &str, cost: Cost, bare: Cost) {
    let ms = |span: Duration| span.as_secs_f64() * 1000.0;
    let ratio = cost.wall.as_secs_f64() / bare.wall.as_secs_f64();
    println!("{what:<38} {:>9.1} ms  {:>9.1} ms of processor  {ratio:>6.2}x bare", ms(cost.wall), ms(cost.cpu));
}
