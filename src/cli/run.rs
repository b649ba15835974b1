//! `sweepfit run`: the steps of a job file, one after the other.
//!
//! Every step is a subcommand whose options stand in a table; the job is read and all its values are parsed before the
//! first step begins. A step that fails stops those that would read what it was to write, and no others.

mod keys;
mod places;
mod print;

use super::metrics::{Metrics, Outcome, worse};
use super::place::refuse_over;
use super::side_file::SideFile;
use super::{Arguments, Command, interruption, log};
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches};
use places::Places;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use sweepfit::job::{Job, Kind, Step};
use sweepfit::{Error, Result};

const EXAMPLES: &str = "\
Example:
  # nightly.toml: every option of a subcommand is a key of its table
  metrics = \"/var/lib/node_exporter/sweepfit.prom\"

  [[fit]]
  inputs = \"s3://warehouse/runs/day=${DAY}/\"
  law = [\"saturating_power\", \"power\"]
  x = \"tokens\"
  y = \"loss\"
  by = [\"run\", \"seed\"]
  select = \"bic\"
  covariance = true
  output = \"${OUT:-/srv/fits}/fits.parquet\"

  [[predict]]
  fits = \"${OUT:-/srv/fits}/fits.parquet\"
  at = \"tokens=1e12\"
  output = \"${OUT:-/srv/fits}/forecast.parquet\"

  sweepfit run nightly.toml --check && sweepfit run nightly.toml

`sweepfit fit … --print-job` prints the table that a command line means.

Exit status: the worst of the steps' (0 done, 1 done but --strict found failures, 2 a step could
not run).";

/// Subcommands that may be steps.
const STEPS: [&str; 5] = ["fit", "predict", "allocate", "diagnose", "next"];

/// Run the steps of a job file, or check them
///
/// A job is TOML: one table [[fit]], [[predict]], [[allocate]], [[diagnose]] or [[next]] per step, run in the order of the
/// file. Keys are the options of the subcommand without their dashes; ${VARIABLE} and ${VARIABLE:-default} are substituted.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = "Example: see --help")]
pub struct Run {
    /// The job file; `-` for standard input
    #[arg(value_name = "JOB.toml")]
    job: String,
    /// Only look whether everything is there and right: options, columns, formulas, inputs, places for the outputs
    #[arg(long)]
    check: bool,
    /// Write what the job did in Prometheus' text format, whether it went well or not
    #[arg(long, value_name = "FILE.prom")]
    metrics: Option<PathBuf>,
}

/// A step whose values are known to be right.
struct Planned<'a> {
    step: &'a Step,
    command: Command,
    /// Its inputs and outputs.
    places: Places,
    /// Earlier steps that write what it reads.
    after: Vec<usize>,
}

/// What may stand in a job, and the parser behind it.
struct Language {
    parser: clap::Command,
    whole: Kind,
    kinds: Vec<Kind>,
}

impl Language {
    fn new() -> Language {
        let mut parser = Arguments::command();
        parser.build();
        let kinds = STEPS.map(|name| keys::kind(subcommand(&parser, name))).to_vec();
        let whole = keys::whole(subcommand(&parser, "run"));
        Language { parser, whole, kinds }
    }
}

fn subcommand<'a>(parser: &'a clap::Command, name: &str) -> &'a clap::Command {
    parser.find_subcommand(name).expect("the names are those of subcommands")
}

impl Run {
    /// Runs or checks the job.
    pub fn run(mut self) -> Result<ExitCode> {
        interruption::watch();
        let language = Language::new();
        let job = read(&self.job, &language)?;
        self.take_options_of(&job, &language)?;
        let steps = plan(&job, &language)?;
        if self.check {
            return check(&job, &steps);
        }
        if let Some(metrics) = &self.metrics {
            refuse_over(&[&self.job], &[("--metrics", &metrics.to_string_lossy())])?;
        }
        let file = self.metrics.as_deref().map(|path| SideFile::create(path, "--metrics")).transpose()?;
        let mut metrics = Metrics::start();
        let code = run(&job, &steps, &mut metrics);
        if let Some(file) = file {
            file.write(&metrics.text())?;
        }
        Ok(ExitCode::from(code))
    }

    /// Options of the job as a whole hold where the command line does not say otherwise.
    fn take_options_of(&mut self, job: &Job, language: &Language) -> Result<()> {
        let mut arguments = job.options.arguments("run");
        arguments.push(self.job.clone());
        let parsed = parse(job, &job.options, language, "run", &arguments)?;
        if let Command::Run(run) = parsed.command {
            self.metrics = self.metrics.take().or(run.metrics);
        }
        if job.options.values("log-format").next().is_some() {
            log::set(parsed.log_format);
        }
        Ok(())
    }
}

/// The job that a command line of `fit` means.
pub fn print_job(matches: &ArgMatches) -> Result<()> {
    let language = Language::new();
    super::print(&print::job(subcommand(&language.parser, "fit"), matches))
}

fn read(path: &str, language: &Language) -> Result<Job> {
    let failed = |message: String| Error::Input { file: path.into(), message };
    let bytes = match path {
        "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        }
        path => std::fs::read(path),
    };
    let bytes = bytes.map_err(|error| failed(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        failed(format!("is not text in UTF-8 (byte {}); a job file is TOML", error.utf8_error().valid_up_to()))
    })?;
    let name = if path == "-" { "standard input" } else { path };
    Job::parse(name, &text, &language.whole, &language.kinds, &|name| std::env::var(name).ok())
}

/// The arguments of a step through the parser of the command line.
fn parse(job: &Job, step: &Step, language: &Language, name: &str, arguments: &[String]) -> Result<Arguments> {
    let matches = language.parser.clone().try_get_matches_from(arguments);
    let parsed = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
    parsed.map_err(|error| keys::located(job, step, subcommand(&language.parser, name), &error))
}

fn plan<'a>(job: &'a Job, language: &Language) -> Result<Vec<Planned<'a>>> {
    let mut steps: Vec<Planned> = Vec::with_capacity(job.steps.len());
    for step in &job.steps {
        let name = &language.kinds[step.kind].name;
        let command = parse(job, step, language, name, &step.arguments(name))?.command;
        let places = Places::of(step, name);
        for earlier in &steps {
            places
                .refuse_clash(&earlier.places, &earlier.step.title)
                .map_err(|(span, message)| job.error(&span, &message))?;
        }
        let after = (0..steps.len()).filter(|&earlier| places.read_from(&steps[earlier].places)).collect();
        steps.push(Planned { step, command, places, after });
    }
    Ok(steps)
}

/// Looks at every step, so that one look shows all that is wrong.
fn check(job: &Job, steps: &[Planned]) -> Result<ExitCode> {
    let mut wrong = 0;
    for planned in steps {
        let outcome = match planned.after.as_slice() {
            [] => planned.command.check(),
            // What it reads is not there yet, or is that of an earlier run.
            [.., maker] => planned.places.writable().map(|()| {
                format!("reads what {} writes; its columns are looked at when it runs\n", steps[*maker].step.title)
            }),
        };
        match outcome {
            Ok(said) => log::say(&format!("{}: in order\n{said}", job.place(planned.step))),
            Err(error) => {
                wrong += 1;
                log::error(&at(job, planned.step, error));
            }
        }
    }
    let steps = steps.len();
    log::say(&match wrong {
        0 => format!("{}: {steps} of {steps} steps in order; nothing was run\n", job.file),
        _ => format!("{}: {wrong} of {steps} steps cannot run\n", job.file),
    });
    Ok(ExitCode::from(if wrong > 0 { 2 } else { 0 }))
}

/// Runs the steps; the worst of their exit codes.
fn run(job: &Job, steps: &[Planned], metrics: &mut Metrics) -> u8 {
    let mut codes: Vec<u8> = Vec::with_capacity(steps.len());
    for planned in steps {
        let started = Instant::now();
        // A step that looks at the flag says so itself.
        interruption::nobody_looks();
        let outcome = match planned.after.iter().find(|&&earlier| codes[earlier] == 2) {
            _ if interruption::flag_is_set() => Err(Error::Interrupted),
            Some(&earlier) => Err(Error::Usage(format!(
                "not run, since {} could not, whose output it reads",
                steps[earlier].step.title
            ))),
            None => planned.command.execute(),
        };
        let code = outcome.as_ref().map_or(2, Outcome::code);
        metrics.step(&planned.step.title, &outcome, started.elapsed());
        if let Err(error) = outcome {
            log::error(&at(job, planned.step, error));
        }
        codes.push(code);
    }
    codes.into_iter().fold(0, worse)
}

/// Says which step an error stopped.
fn at(job: &Job, step: &Step, error: Error) -> Error {
    Error::Step { step: job.place(step), source: Box::new(error) }
}
