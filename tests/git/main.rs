//! What flow does with repositories, against real ones made with the `git` program.

#![allow(missing_docs, unreachable_pub)]

mod bytes;
mod mirrors;
mod patches;
mod taking;
mod world;
mod writing;
