//! The command line: one file per subcommand, each turning typed arguments into a validated request.

mod allocate;
mod bench;
mod decision;
mod devices;
mod diagnose;
mod fit;
mod generate;
mod interruption;
mod laws;
mod next;
mod predict;
mod selftest;

use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use sweepfit::{Error, Result};

/// Fits scaling laws and learning curves in bulk, on any GPU and on the CPU.
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Fit(Box<fit::Fit>),
    Laws(laws::Laws),
    Devices(devices::Devices),
    Generate(Box<generate::Generate>),
    Selftest(selftest::Selftest),
    Predict(Box<predict::Predict>),
    Allocate(Box<allocate::Allocate>),
    Diagnose(Box<diagnose::Diagnose>),
    Next(Box<next::Next>),
    Bench(Box<bench::Bench>),
}

impl Arguments {
    /// Runs the subcommand.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Fit(fit) => fit.run(),
            Command::Laws(laws) => laws.run().map(|()| ExitCode::SUCCESS),
            Command::Devices(devices) => devices.run().map(|()| ExitCode::SUCCESS),
            Command::Generate(generate) => generate.run().map(|()| ExitCode::SUCCESS),
            Command::Selftest(selftest) => selftest.run(),
            Command::Predict(predict) => predict.run(),
            Command::Allocate(allocate) => allocate.run(),
            Command::Diagnose(diagnose) => diagnose.run(),
            Command::Next(next) => next.run(),
            Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Mesa's Vulkan layer that puts the desktop's GPU first asks for a display, and complains on stderr where there is none, as
/// under cron. Adapters are ranked here, so it is not needed. Called before there is a second thread.
pub fn keep_drivers_quiet() {
    #[expect(unsafe_code, reason = "the environment is changed while the process has one thread")]
    // SAFETY: nothing else reads or writes the environment yet.
    unsafe {
        std::env::set_var("NODEVICE_SELECT", "1");
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

/// A level of confidence: between 0 and 1.
fn level(text: &str) -> std::result::Result<f64, String> {
    let level = number(text)?;
    if level > 0.0 && level < 1.0 { Ok(level) } else { Err("give a share between 0 and 1, as in 0.95".into()) }
}

/// Says something on stderr; whoever has closed it does not want to hear it.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Prints results; a reader that has seen enough, as `head`, is no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Output { file: "standard output".into(), message: format!("cannot be written: {error}") })
        }
        _ => Ok(()),
    }
}
