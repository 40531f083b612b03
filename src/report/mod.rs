//! What came of it: the results of jobs, read from the store alone, and tables of them.

pub mod jobs;
pub mod marks;
pub mod table;
