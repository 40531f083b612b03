//! What came of it: the results of jobs, read from the store alone, and tables of them.

pub mod attempts;
pub mod composite;
pub mod detail;
pub mod detail_text;
pub mod flips;
pub mod given;
pub mod held;
pub mod human;
pub mod jobs;
pub mod marks;
pub mod spent;
pub mod standing;
pub mod status;
pub mod status_text;
pub mod table;
