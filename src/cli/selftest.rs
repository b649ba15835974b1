//! `sweepfit selftest`: the self-test on an adapter of this machine, as a table or as JSON.

use super::print;
use arrow::temporal_conversions::timestamp_s_to_datetime;
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use sweepfit::Result;
use sweepfit::fit::gpu::{Adapter, Gpu};
use sweepfit::selftest::{self, Check, Measure};

const EXAMPLES: &str = "\
Examples:
  sweepfit selftest
  sweepfit selftest --adapter llvmpipe --json > selftest.json

Exit status: 0 the device computes what it should, 1 it gives wrong answers, 2 could not run.";

/// Check that a GPU computes what it should: every operator and every law, against f64 on the CPU
///
/// Takes the adapter that `fit --backend gpu` would take; a software adapter only where --adapter names it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Selftest {
    /// The adapter to test: any part of its name, case ignored [default: the best hardware GPU]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Selftest {
    /// Runs the checks and prints each as it is done; the exit code is 1 where one did not pass.
    pub fn run(self) -> Result<ExitCode> {
        let start = Instant::now();
        let gpu = Gpu::open(self.adapter.as_deref())?;
        if !self.json {
            print(&heading(gpu.adapter()))?;
        }
        let mut last = None;
        let mut printed = Ok(());
        let checks = selftest::run(&gpu, &mut |check| {
            if !self.json && printed.is_ok() {
                let title = if last == Some(is_operator(check)) { String::new() } else { title(check) };
                printed = print(&(title + &line(check)));
                last = Some(is_operator(check));
            }
        })?;
        printed?;
        print(&match self.json {
            true => format!("{:#}\n", report(gpu.adapter(), &checks, start.elapsed().as_secs_f64())),
            false => verdict(&checks, start.elapsed().as_secs_f64()),
        })?;
        Ok(if checks.iter().all(Check::passed) { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn heading(adapter: &Adapter) -> String {
    format!(
        "adapter: {}\nbackend: {}, {}\ndriver:  {}\nsweepfit {}, {} UTC\n",
        adapter.name,
        adapter.backend,
        adapter.kind,
        if adapter.driver.is_empty() { "not told" } else { &adapter.driver },
        env!("CARGO_PKG_VERSION"),
        now(),
    )
}

fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).ok().and_then(timestamp_s_to_datetime).map_or(String::new(), |time| time.to_string())
}

fn is_operator(check: &Check) -> bool {
    check.measure == Measure::Operator
}

/// What stands above the first operator and the first law.
fn title(check: &Check) -> String {
    let columns = format!("{:>12} {:>12} {:>12}", "largest", "ideal f32", "allowed");
    match is_operator(check) {
        true => format!("\n{:<38}{columns}   in ulp of f32\n", "operator"),
        false => format!("\n{:<38}{columns}\n", "law"),
    }
}

fn line(check: &Check) -> String {
    let subject = match is_operator(check) {
        true => check.subject.clone(),
        false => format!("{:<28}{}", check.subject, check.measure.name()),
    };
    let single = check.single.map_or("-".to_string(), figure);
    let verdict = match (is_operator(check), check.passed()) {
        (true, true) => "ok".to_string(),
        (false, true) => format!("ok  {}", check.measure.unit()),
        (_, false) if check.samples == 0 => "WRONG  nothing could be compared".to_string(),
        (_, false) => format!("WRONG  {}", check.place),
    };
    format!("{subject:<38}{:>12} {single:>12} {:>12}   {verdict}\n", figure(check.worst), figure(check.tolerance))
}

fn figure(number: f64) -> String {
    match number {
        0.0 => "0".to_string(),
        _ if (0.01..1000.0).contains(&number) => format!("{number:.2}"),
        _ => format!("{number:.1e}"),
    }
}

fn verdict(checks: &[Check], seconds: f64) -> String {
    let wrong: Vec<String> = checks
        .iter()
        .filter(|check| !check.passed())
        .map(|check| format!("{} ({})", check.subject, check.measure.name()))
        .collect();
    match wrong.is_empty() {
        true => format!("\n{} checks passed in {seconds:.1} s\n", checks.len()),
        false => format!(
            "\n{} of {} checks found wrong answers: {}\nDo not fit on this adapter: use --backend cpu, or another driver.\n",
            wrong.len(),
            checks.len(),
            wrong.join(", ")
        ),
    }
}

fn report(adapter: &Adapter, checks: &[Check], seconds: f64) -> Value {
    let check = |check: &Check| {
        json!({
            "measure": check.measure.name(),
            "subject": check.subject,
            "largest_error": finite(check.worst),
            "ideal_f32": check.single.map(finite),
            "tolerance": check.tolerance,
            "unit": check.measure.unit(),
            "compared": check.samples,
            "passed": check.passed(),
            "place": check.place,
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "date": now(),
        "adapter": {
            "name": adapter.name,
            "backend": adapter.backend,
            "kind": adapter.kind,
            "driver": adapter.driver,
        },
        "passed": checks.iter().all(Check::passed),
        "seconds": seconds,
        "checks": checks.iter().map(check).collect::<Vec<_>>(),
    })
}

/// JSON has no infinity: a refused or meaningless value is null there, and has not passed.
fn finite(number: f64) -> Value {
    if number.is_finite() { json!(number) } else { Value::Null }
}
