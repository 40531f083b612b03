//! Why an action would run or did run: forecasts for a plan, explanations of them by comparing key records, and the same of a
//! run by its journal.

pub mod action;
pub mod against;
pub mod attempts;
pub mod between;
mod blame;
pub mod causes;
pub mod change;
mod clean;
pub mod estimate;
pub mod explain;
pub mod forecast;
mod gap;
pub mod history;
pub mod inside;
pub mod known;
pub mod later;
pub mod narrow;
pub mod origin;
pub mod past;
pub mod plan;
pub mod ran;
pub mod room;
pub mod running;
pub mod slot_hours;
pub mod spot;
pub mod text;
pub mod toolfiles;
pub mod traced;
mod walk;
pub mod whence;
pub mod wiring;
