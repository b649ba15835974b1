//! What the subcommands that read fits share: their output, points on the command line, names of inputs.

use super::number;
use clap::Args;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::path::Path;
use std::sync::Arc;
use sweepfit::statistics::fits::Fits;
use sweepfit::table::{KeySchema, OutputKind, Writer};
use sweepfit::{Error, Result};

/// Where the table goes, and what is said on the way.
#[derive(Args, Debug)]
pub struct Output {
    /// Threads to work with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The file to write: Parquet, CSV where it ends in .csv, Arrow IPC in .arrow; `-` for CSV on stdout
    #[arg(short, long, value_name = "OUT")]
    output: String,
}

impl Output {
    pub fn say(&self, text: &str) {
        if !self.quiet {
            super::say(text);
        }
    }

    /// Threads to work on; the result does not depend on their number.
    pub fn pool(&self) -> Result<ThreadPool> {
        let threads = self.threads.map_or(0, usize::from);
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|error| {
            Error::Usage(format!("cannot start {threads} threads ({error}); try fewer with --threads"))
        })
    }

    /// Opens the output; `input` is the table that must not be overwritten.
    pub fn writer(&self, input: &str, keys: &KeySchema, columns: &[(String, OutputKind)]) -> Result<Writer> {
        let same = |a: &str, b: &str| {
            let place = |path: &str| std::fs::canonicalize(Path::new(path)).ok();
            place(a).is_some() && place(a) == place(b)
        };
        if same(&self.output, input) {
            let message = "is the input, too; choose another place with -o".to_string();
            return Err(Error::Output { file: input.into(), message });
        }
        Writer::create(&self.output, keys, columns)
    }
}

/// `NAME=VALUE,…` of an option.
pub fn point(option: &str, text: &str) -> Result<Vec<(String, f64)>> {
    let wrong = |message: String| Error::Usage(format!("{option} {text}: {message}"));
    let mut values: Vec<(String, f64)> = Vec::new();
    for part in text.split(',') {
        let (name, value) =
            part.split_once('=').ok_or_else(|| wrong("give INPUT=VALUE,…, as in N=7e9,D=1e12".into()))?;
        let (name, value) = (name.trim().to_string(), number(value).map_err(wrong)?);
        if values.iter().any(|(known, _)| *known == name) {
            return Err(wrong(format!("{name} is given twice")));
        }
        values.push((name, value));
    }
    Ok(values)
}

/// The columns that the laws take in, each once.
pub fn input_names(fits: &Fits) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in fits.laws.iter().flat_map(|law| law.input_names()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_string());
        }
    }
    names
}

/// The laws' names and, last, another one.
pub fn law_names(fits: &Fits, last: &str) -> Vec<Arc<str>> {
    fits.laws.iter().map(|law| law.law.name.as_str()).chain([last]).map(Arc::from).collect()
}

/// What to do where covariances are missing.
pub const REPAIR: &str =
    "fit the sweep with --covariance, give --draws, or leave the intervals out with --no-intervals";

/// Standard errors alone do not say how errors of parameters go together; only a single one needs no covariance.
pub fn require_covariance(fits: &Fits, path: &str, repair: &str) -> Result<()> {
    let several = |law: &&sweepfit::statistics::fits::FittedLaw| {
        let fixed = law.controls.iter().filter(|control| control.control.fixed.is_some()).count();
        law.law.parameters.len() - fixed > 1
    };
    match fits.laws.iter().find(several) {
        Some(law) if !fits.has_covariance => Err(Error::Input {
            file: path.into(),
            message: format!(
                "has no column \"covariance\", without which nobody knows how the errors of the parameters of {} go together: \
                 {repair}",
                law.law.name
            ),
        }),
        _ => Ok(()),
    }
}

/// The metadata of a table that `subcommand` made.
pub fn metadata(subcommand: &str, entries: &[(&str, String)]) -> Vec<(String, String)> {
    let version = ("sweepfit.version".to_string(), env!("CARGO_PKG_VERSION").to_string());
    let entries = entries.iter().map(|(key, value)| (format!("sweepfit.{subcommand}.{key}"), value.clone()));
    [version].into_iter().chain(entries).collect()
}

/// `INPUT=LO:HI:CELLS`: a geometric axis.
pub fn grid(text: &str) -> std::result::Result<(String, [f64; 2], usize), String> {
    let usage = "give INPUT=LO:HI:CELLS with 0 < LO <= HI, as in N=1e8:1e10:16";
    let (name, value) = super::assignment(text).map_err(|_| usage)?;
    let [low, high, cells] = value.split(':').collect::<Vec<_>>()[..] else { return Err(usage.into()) };
    let (low, high) = (number(low)?, number(high)?);
    let cells = cells.trim().parse::<usize>().ok().filter(|cells| *cells > 0).ok_or(usage)?;
    if low > 0.0 && low <= high { Ok((name, [low, high], cells)) } else { Err(usage.into()) }
}
