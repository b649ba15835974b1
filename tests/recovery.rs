//! Every catalogue law gets its own parameters back, on the CPU. The table is printed: `--nocapture` shows it.
//!
//! `SWEEPFIT_CURVES` sets the curves per law and `SWEEPFIT_LAWS` takes the named ones only.

#[path = "support/recovery.rs"]
mod recovery;

use sweepfit::fit::cpu::Cpu;

#[test]
fn every_law_recovers_its_own_parameters() {
    let (table, failures) = recovery::all(40, &Cpu);
    println!("{table}");
    assert!(failures.is_empty(), "{table}\n{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn kaplan_recovers_its_parameters_from_their_whole_box() {
    let row = recovery::recover_wide_kaplan(200, &Cpu);
    assert!(row.counted > 100 && row.is_recovered(), "{}\n{}", row.line(), row.failures.join("\n"));
}
