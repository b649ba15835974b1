//! Every catalogue law gets its own parameters back when the GPU searches.

use crate::recovery::{all, recover_wide_kaplan};
use libtest_mimic::Failed;
use sweepfit::fit::gpu::Gpu;

/// Curves per law: a software adapter is some twenty times slower than the CPU's own search.
const CURVES: usize = 16;

pub fn every_law_recovers_its_own_parameters(gpu: &Gpu) -> Result<(), Failed> {
    let (table, failures) = all(CURVES, gpu);
    println!("{table}");
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("{table}\n{} failures:\n{}", failures.len(), failures.join("\n")).into())
}

pub fn kaplan_recovers_its_parameters_from_their_whole_box(gpu: &Gpu) -> Result<(), Failed> {
    let row = recover_wide_kaplan(3 * CURVES, gpu);
    match row.is_recovered() {
        true => Ok(()),
        false => Err(format!("{}\n{}", row.line(), row.failures.join("\n")).into()),
    }
}
