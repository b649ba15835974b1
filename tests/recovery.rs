//! Every catalogue law gets its own parameters back, on the CPU. The table is printed: `--nocapture` shows it.
//!
//! `SWEEPFIT_CURVES` sets the curves per law and `SWEEPFIT_LAWS` takes the named ones only.

#[path = "support/recovery.rs"]
mod recovery;

use sweepfit::fit::cpu::Cpu;
use sweepfit::law::catalogue::find;

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

/// The laws of which enough draws are beyond f64 for a share of 99% to mean something.
#[test]
fn draws_beyond_f64_are_fitted_to_the_rounding() {
    let rows = [("broken_saturating_power", 600), ("bnsl2", 500), ("kaplan", 1000)].map(|(law, curves)| {
        let row = recovery::recover(find(law).expect("a catalogue law"), curves, 2, &Cpu);
        println!("{}", row.line());
        row
    });
    for row in rows {
        assert!(row.draws - row.counted > 10 && row.is_good(), "{}\n{}", row.line(), row.failures.join("\n"));
    }
}
