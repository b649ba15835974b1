//! Where the search runs: `--backend` and `--adapter` to one open device per law.
//!
//! `cpu` and `gpu` are taken at their word; `auto` weighs the work and says in one line what it took, and why.

use clap::ValueEnum;
use std::sync::Arc;
use sweepfit::fit::Loss;
use sweepfit::fit::fallback::Fallback;
use sweepfit::fit::gpu::Gpu;
use sweepfit::fit::pack::Plan;
use sweepfit::pipeline::Device;
use sweepfit::table::Source;
use sweepfit::{Error, Result};

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// A hardware GPU for dear work, where there is one, else the CPU
    Auto,
    /// All of it on the CPU
    Cpu,
    /// The search on a GPU or on the adapter named
    Gpu,
}

/// The devices taken.
pub struct Devices {
    /// One per law.
    pub each: Vec<Device>,
    /// What `auto` took, and why.
    pub note: Option<String>,
}

/// Seconds of work on the CPU from which a GPU pays for being opened and fed.
const DEAR: f64 = 10.0;
/// Points evaluated per second and thread by the CPU's search, within a factor of three on machines of today.
const POINTS_PER_SECOND: f64 = 1e8;
/// Evaluations of every point that follow the search: the descent from a basin or two, and its derivatives.
const DESCENT: f64 = 60.0;
/// The same under the Huber loss, whose descents are long.
const ROBUST_DESCENT: f64 = 600.0;
/// Bytes that a row of text takes, where a file does not say how many rows it has.
const BYTES_OF_A_ROW: u64 = 32;

/// Opens the device of every law; every curve is fitted `times` over.
///
/// # Errors
/// [`Error::Device`] where `gpu` is wanted and there is none.
pub fn choose(choice: Choice, adapter: Option<&str>, plans: &[&Plan], source: &Source, times: f64) -> Result<Devices> {
    let all = |device: Device, note| Devices { each: vec![device; plans.len()], note };
    match choice {
        Choice::Cpu if adapter.is_some() => {
            Err(Error::Usage("--adapter names a GPU and --backend cpu uses none: leave one of them out".into()))
        }
        Choice::Cpu => Ok(all(Device::cpu(), None)),
        Choice::Gpu => Ok(all(open(adapter)?, None)),
        Choice::Auto => {
            // Not --threads, on which the result must not depend.
            let cores = super::all_cores() as f64;
            let rows = times * rows(source) as f64;
            let seconds: Vec<f64> =
                plans.iter().map(|&plan| rows * evaluations(plan) / (POINTS_PER_SECOND * cores)).collect();
            let total: f64 = seconds.iter().sum();
            if total < DEAR {
                return Ok(all(Device::cpu(), Some(on_cpu(plans, total))));
            }
            Ok(match open(adapter) {
                Ok(gpu) => {
                    let name = gpu.adapter.clone().unwrap_or_default();
                    let gpu = Device { backend: Arc::new(Fallback::behind(gpu.backend)), ..gpu };
                    let device = |plan: &Plan| if plan.model.is_closed_form() { Device::cpu() } else { gpu.clone() };
                    let note = format!("{name} searches: the CPU would need about {total:.0} s");
                    Devices { each: plans.iter().copied().map(device).collect(), note: Some(note) }
                }
                Err(error) => all(Device::cpu(), Some(format!("the CPU searches: {error}"))),
            })
        }
    }
}

fn open(adapter: Option<&str>) -> Result<Device> {
    let gpu = Gpu::open(adapter)?;
    let adapter = Some(gpu.adapter().to_string());
    Ok(Device { backend: Arc::new(gpu), name: "gpu", adapter })
}

fn on_cpu(plans: &[&Plan], seconds: f64) -> String {
    if plans.iter().all(|plan| plan.model.is_closed_form()) {
        return "the CPU fits: a closed form needs no search".to_string();
    }
    let seconds = if seconds < 1.0 { "less than a second".to_string() } else { format!("about {seconds:.0} s") };
    format!("the CPU searches: {seconds} of work does not pay for a GPU")
}

/// Evaluations per point of the data that a law takes on the CPU; a closed form takes none worth counting.
fn evaluations(plan: &Plan) -> f64 {
    if plan.model.is_closed_form() && plan.objective.loss == Loss::Squares {
        return 0.0;
    }
    let descent = if plan.objective.loss == Loss::Squares { DESCENT } else { ROBUST_DESCENT };
    plan.grid_points() as f64 + descent
}

fn rows(source: &Source) -> u64 {
    source.rows().unwrap_or_else(|| source.bytes() / BYTES_OF_A_ROW)
}
