//! Every catalogue law gets its own parameters back, on the CPU. The table is printed: `--nocapture` shows it.
//!
//! `SWEEPFIT_CURVES` sets the curves per law, `SWEEPFIT_LAW` takes one law only.

#[path = "support/recovery.rs"]
mod recovery;

use recovery::{Row, recover};
use sweepfit::fit::cpu::Cpu;
use sweepfit::law::catalogue::CATALOGUE;

#[test]
fn every_law_recovers_its_own_parameters() {
    let curves = std::env::var("SWEEPFIT_CURVES").map_or(100, |text| text.parse().expect("a number of curves"));
    let only = std::env::var("SWEEPFIT_LAW").ok();
    println!("{}", Row::heading());
    let mut failures = Vec::new();
    for entry in
        CATALOGUE.iter().filter(|entry| only.as_ref().is_none_or(|only| only.split(',').any(|o| o == entry.name)))
    {
        let started = std::time::Instant::now();
        let row = recover(entry, curves, 1, &Cpu);
        println!("{} {:.2}s", row.line(), started.elapsed().as_secs_f64());
        if !row.is_good() {
            failures.extend(row.failures);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
