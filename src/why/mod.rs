//! Why an action would run or did run: forecasts for a plan, explanations by comparing key records.

pub mod forecast;
pub mod render;
