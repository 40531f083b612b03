//! The program `flow`: a supervisor, or one that runs services, where flow has started itself as one; else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, since every supervised process waits for it.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "supervise") {
        return flow::process::supervise_main();
    }
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "serve") {
        return flow::process::serve_main();
    }
    flow::cli::main()
}
