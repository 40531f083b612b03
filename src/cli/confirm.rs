//! `confirm`: asks before a run may spend more than the manifest's amount.

use std::io::{BufRead, IsTerminal, Write};

use crate::cli::fault::Fault;
use crate::cli::open::Opened;
use crate::cli::output;
use crate::manifest::Pipeline;
use crate::units::human_usd;
use crate::why::estimate::Estimate;
use crate::why::forecast::forecast_with;

/// Asks, if the run may cost more than `confirm` allows. `retry` says which actions are tried again though their attempts are
/// used up.
///
/// # Errors
/// If the answer is no, or nobody is there to give one: nothing was run then.
pub fn confirm(opened: &Opened, wanted: &[bool], retry: &[bool]) -> Result<(), Fault> {
    let forecasts = match opened.plan().manifest.pipeline.confirm {
        Some(_) => forecast_with(opened.plan(), &opened.store, &opened.index, wanted, retry),
        None => return Ok(()),
    };
    let estimate = opened.estimate(&forecasts)?;
    let Some(asks) = asks(&opened.plan().manifest.pipeline, &estimate) else { return Ok(()) };
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Fault::hint(2, asks, "nothing was run: look at `flow plan`, then add --yes, or raise `confirm`"));
    }
    for line in estimate.text().lines() {
        output::say(line);
    }
    let mut err = std::io::stderr().lock();
    // If nobody can read the question, nobody answers it either.
    let _ = write!(err, "{asks}. Go on? [y/N] ").and_then(|()| err.flush());
    drop(err);
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Fault::hint(2, "not confirmed: nothing was run", "--yes answers before it is asked")),
    }
}

/// Why a run of so much would be asked about; `None` if it would not be.
#[must_use]
pub fn asks(pipeline: &Pipeline, estimate: &Estimate) -> Option<String> {
    let limit = pipeline.confirm.as_ref()?.value;
    let unknown = estimate.cost.unknown_attempts > 0;
    // What the budget has left is the most that a run can spend, whatever is known of it.
    let most = estimate.left().filter(|_| unknown).unwrap_or(estimate.most());
    let sure = !unknown || estimate.left().is_some();
    if estimate.candidates.is_empty() || sure && most <= limit {
        return None;
    }
    let may = match sure {
        true => format!("this run may spend {}", human_usd(most)),
        false => format!("what this run may spend is not known: {}", estimate.cost.why()),
    };
    Some(format!("{may}, and `confirm` asks above {}", human_usd(limit)))
}
