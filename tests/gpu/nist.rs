//! NIST's certified answers on both backends, side by side.

use crate::support::nist::report;
use libtest_mimic::Failed;
use sweepfit::fit::gpu::Gpu;

/// Problems whose certified minimum the search finds without starting values; 24 on both backends here, but devices round
/// differently.
const FOUND_WITHOUT_START: usize = 22;

pub fn certified_values_are_reached_from_both_starts(gpu: &Gpu) -> Result<(), Failed> {
    let adapter = &gpu.adapter().name;
    let (table, failures, reached) =
        report(&[("cpu", &["--backend", "cpu"]), ("gpu", &["--backend", "gpu", "--adapter", adapter])]);
    println!(
        "digits of parameters, residual sum of squares, standard errors\n{table}\nwithout start: {reached:?} of 27"
    );
    if !failures.is_empty() || reached.iter().any(|&reached| reached < FOUND_WITHOUT_START) {
        return Err(format!("{failures:#?}; without start {reached:?} of 27").into());
    }
    Ok(())
}
