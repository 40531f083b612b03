//! What attempts cost: dated prices, the cost of one attempt, and sums of which a part may be unknown.
//!
//! Pure: the cost of an attempt is computed from its tokens, today's prices and the time at which it began. It is never stored
//! and in no key, so that a corrected price corrects every figure of the past and runs nothing again.

mod amount;
mod cost;
mod price;

pub use amount::{Amount, Tokens, Totals};
pub use cost::{Cost, TOO_MUCH, cost};
pub use price::{Pattern, Price, Prices, Rate};
