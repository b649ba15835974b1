//! The command line: one file per subcommand, each turning typed arguments into a validated request.

mod devices;
mod generate;

use clap::{Parser, Subcommand};
use sweepfit::Result;

/// Fits scaling laws and learning curves in bulk, on any GPU and on the CPU.
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Devices(devices::Devices),
    Generate(generate::Generate),
}

impl Arguments {
    /// Runs the subcommand.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Devices(devices) => devices.run(),
            Command::Generate(generate) => generate.run(),
        }
    }
}

/// `NAME=VALUE` of an option.
fn assignment(text: &str) -> std::result::Result<(String, &str), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_string(), value.trim())),
        _ => Err("give NAME=VALUE".into()),
    }
}

/// A finite number of an option.
fn number(text: &str) -> std::result::Result<f64, String> {
    let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| format!("\"{text}\" is not a number"))
}
