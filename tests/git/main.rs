//! What flow does with repositories, against real ones made with the `git` program.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod bytes;
mod mirrors;
mod patches;
mod taking;
mod world;
mod writing;
