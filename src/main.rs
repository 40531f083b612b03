//! The program `flow`: for now only what it re-executes itself for.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, since every supervised process waits for it.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "supervise") {
        return flow::process::supervise_main();
    }
    ExitCode::SUCCESS
}
