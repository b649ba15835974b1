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
mod log;
mod metrics;
mod next;
mod place;
mod predict;
mod run;
mod selftest;
mod side_file;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use metrics::Outcome;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use sweepfit::{Error, Result};

/// Fits scaling laws and learning curves in bulk, on any GPU and on the CPU.
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    /// How messages are written to stderr: `json` is one object per line, for programs that read along
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = log::Format::Text, global = true,
          help_heading = "Messages")]
    log_format: log::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Fit(Box<fit::Fit>),
    Run(run::Run),
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

/// Reads the command line, runs the subcommand, says what went wrong; the exit code.
pub fn main() -> ExitCode {
    keep_drivers_quiet();
    let parsed = Arguments::command().try_get_matches();
    let parsed = parsed.and_then(|matches| Arguments::from_arg_matches(&matches).map(|arguments| (arguments, matches)));
    let (arguments, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() && asks_for_json(std::env::args_os()) => {
            log::set(log::Format::Json);
            log::usage(&error);
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    log::set(arguments.log_format);
    match arguments.command.run(&matches) {
        Ok(code) => code,
        Err(error) => {
            log::error(&error);
            ExitCode::from(2)
        }
    }
}

/// Whether a command line that cannot be parsed asks for messages in JSON.
fn asks_for_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    arguments.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json")
        || arguments.iter().any(|argument| argument == "--log-format=json")
}

impl Command {
    /// Runs the subcommand.
    fn run(self, matches: &ArgMatches) -> Result<ExitCode> {
        match self {
            Command::Fit(fit) if fit.print_job => {
                let (_, matches) = matches.subcommand().expect("this one");
                run::print_job(matches).map(|()| ExitCode::SUCCESS)
            }
            Command::Run(run) => run.run(),
            Command::Laws(laws) => laws.run().map(|()| ExitCode::SUCCESS),
            Command::Devices(devices) => devices.run().map(|()| ExitCode::SUCCESS),
            Command::Generate(generate) => generate.run().map(|()| ExitCode::SUCCESS),
            Command::Selftest(selftest) => selftest.run(),
            Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
            step => step.execute().map(|outcome| ExitCode::from(outcome.code())),
        }
    }

    /// Runs a subcommand that may be a step of a job.
    fn execute(&self) -> Result<Outcome> {
        match self {
            Command::Fit(fit) => fit.run(),
            Command::Predict(predict) => predict.run().map(|()| Outcome::Done),
            Command::Allocate(allocate) => allocate.run().map(|()| Outcome::Done),
            Command::Diagnose(diagnose) => diagnose.run().map(|()| Outcome::Done),
            Command::Next(next) => next.run().map(|()| Outcome::Done),
            other => unreachable!("{other:?} is no step"),
        }
    }

    /// Looks whether a step could run, and says what it would do; reads no rows and writes nothing.
    fn check(&self) -> Result<String> {
        match self {
            Command::Fit(fit) => fit.check(),
            Command::Predict(predict) => predict.check().map(|()| String::new()),
            Command::Allocate(allocate) => allocate.check().map(|()| String::new()),
            Command::Diagnose(diagnose) => diagnose.check().map(|()| String::new()),
            Command::Next(next) => next.check().map(|()| String::new()),
            other => unreachable!("{other:?} is no step"),
        }
    }
}

/// Mesa's Vulkan layer that puts the desktop's GPU first asks for a display, and complains on stderr where there is none, as
/// under cron. Adapters are ranked here, so it is not needed. Called before there is a second thread.
fn keep_drivers_quiet() {
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
