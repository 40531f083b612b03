//! What flow itself costs: trivial `command` steps, cold and with nothing to do, beside the same processes started bare.
//!
//!     cargo bench --bench noop              142 chains of 6 steps
//!     cargo bench --bench noop -- 1000      another number of chains
//!
//! Prints milliseconds of wall clock and of processor, and the ratios. Nothing is asserted: compare ratios of one run only.
#![allow(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

mod support;

use std::path::Path;
use std::process::Command;

use support::{fastest, flow, number_or, row, time};

/// The steps of one chain.
const STEPS: usize = 6;
/// How often what is repeatable is repeated; the fastest counts.
const TIMES: usize = 5;

fn main() {
    let chains = number_or(142);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), chains);
    let actions = chains * STEPS;
    println!("{actions} steps, {chains} chains of {STEPS}; the fastest of {TIMES} where it can be repeated");

    let bare = fastest(TIMES, || spawn(dir.path(), actions));
    let row = |what, cost| row(what, cost, Some((bare, "bare")));
    row("bare processes, one after the other", bare);
    row("cold run", time(|| flow(dir.path(), &["run", "m.kdl"])));
    row("no-op run", fastest(TIMES, || flow(dir.path(), &["run", "m.kdl"])));
    row("plan with nothing to do", fastest(TIMES, || flow(dir.path(), &["plan", "m.kdl"])));
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
