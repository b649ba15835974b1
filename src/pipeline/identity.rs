//! What makes two runs the same, as named texts: whatever changes a byte of the output.
//!
//! In: a [`Request`]. Out: what the methods card says, and beyond it the version of every input, the columns read and the
//! processor's instructions, whose last bits may differ. Threads are not among it: they change nothing.

use super::Request;
use super::card::{law_card, methods};
use crate::error::Result;
use crate::evaluate::instruction_set::InstructionSet;

/// What this run is.
///
/// # Errors
/// An input whose version cannot be asked for.
pub(super) fn of(request: &Request) -> Result<Vec<(String, String)>> {
    let mut run = methods(request);
    let mut entry = |name: &str, value: String| run.push((name.to_string(), value));
    for fit in &request.fits {
        entry(&format!("law {}", fit.law().name), law_card(fit).to_string());
    }
    entry("columns", request.selection.numbers.join(", "));
    entry("draws", request.draws().unwrap_or_default().to_string());
    if let Some(since) = &request.rerun.since {
        let files = since.files().iter().map(|file| file.display().to_string()).collect::<String>();
        entry("since", format!("{files}: {}", since.versions()?.join(", ")));
    }
    entry("verify", request.verify.to_string());
    entry("instructions", InstructionSet::detect().name().to_string());
    for (file, version) in request.source.files().iter().zip(request.source.versions()?) {
        entry(&format!("input {}", file.display()), version);
    }
    Ok(run)
}
