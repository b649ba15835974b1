//! `sweepfit fit`: arguments to a [`Request`], its report to stderr and to a file.

mod backend;
mod options;
mod report;

use super::metrics::{Fitted, Metrics, Outcome};
use super::place::{Named, refuse_over, refuse_shared};
use super::side_file::SideFile;
use super::{interruption, log};
use clap::{Args, ValueEnum};
use options::{bootstrap, bound, fixed, grid, select, size};
pub(super) use options::{loss, start};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use sweepfit::fit::pack::{NamedControl, Plan, Weighting, check_names};
use sweepfit::fit::spell::Spelling;
use sweepfit::fit::{self, Loss, Objective};
use sweepfit::formula::parse::parse_filter;
use sweepfit::law::{Law, Mapping, catalogue};
use sweepfit::pipeline::{self, Extras, Ledger, Report, Request, Rerun, Resampling, Watch};
use sweepfit::statistics::bootstrap::{Bootstrap, Scheme};
use sweepfit::statistics::selection::Criterion;
use sweepfit::table::{self, Memory, Parting, Selection, Source};
use sweepfit::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  # One curve per run and seed, a catalogue law
  sweepfit fit sweep.parquet --law saturating_power --x tokens --y loss \\
    --by run,seed -o fits.parquet

  # Any formula: a name that is a column is an input, every other is a parameter
  sweepfit fit runs/ --law 'loss ~ E + A*params^-alpha + B*tokens^-beta' \\
    --loss huber:1e-3 --where \"step > 1000 and split == 'val'\" -o fits.parquet

  # Several laws to every curve, some parameters bounded or fixed, CSV to stdout
  sweepfit fit sweep.parquet --law power --law saturating_power --x tokens --y loss \\
    --by run --bound E=0: --fix alpha=0.34 -o -

Exit status: 0 done (curves that could not be fitted are data and have a status), 1 done, but
--strict was given and a curve is neither converged nor at_bound, or --verify found a better
fit, 2 could not run, 3 done, but --fail-on-broken was given and new points of a curve lie off
its earlier fit.";

/// Fit every law asked for to every curve of a sweep
///
/// Reads tables of measurements, groups their rows into curves, fits every law to every curve, globally and without
/// starting values, and writes one row per curve and law: parameters, standard errors, status and statistics.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = "Examples: see --help")]
pub struct Fit {
    /// Parquet, CSV or Arrow IPC files, folders of them (key=value folders become columns), or globs
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<String>,

    /// A catalogue law (see `sweepfit laws`), a formula such as 'loss ~ E + A*x^-alpha', or 'NAME = FORMULA'; repeatable.
    /// `all` stands for every catalogue law whose inputs --x maps
    #[arg(long = "law", required = true, value_name = "LAW", help_heading = "What is fitted")]
    laws: Vec<String>,
    /// The response; may be left out where every law has a left side
    #[arg(long, value_name = "COL", help_heading = "What is fitted")]
    y: Option<String>,
    /// The inputs of catalogue laws, in the order that `sweepfit laws` shows; a law with fewer inputs takes the first ones
    #[arg(long, value_name = "COL,…", value_delimiter = ',', help_heading = "What is fitted")]
    x: Vec<String>,
    /// The key columns that tell curves apart; without them the whole input is one curve, or, where the columns hold
    /// lists, each row is one
    #[arg(long, value_name = "COL,…", value_delimiter = ',', help_heading = "What is fitted")]
    by: Vec<String>,
    /// Rows to keep: comparisons, `and or not`, arithmetic of columns, 'text', true, false
    #[arg(long = "where", value_name = "EXPR", help_heading = "What is fitted")]
    filter: Option<String>,
    /// A weight for every row
    #[arg(long, value_name = "COL", conflicts_with = "sigma", help_heading = "What is fitted")]
    weight: Option<String>,
    /// A standard deviation for every row, of the left side as written: weights 1/sigma^2, (y/sigma)^2 in log space
    #[arg(long, value_name = "COL", help_heading = "What is fitted")]
    sigma: Option<String>,
    /// Leave rows outside a law's domain out, and count them; otherwise they make their curve bad_domain
    #[arg(long, help_heading = "What is fitted")]
    drop_bad_rows: bool,

    /// Where residuals are taken: log y - log f, or y - f
    #[arg(long, value_name = "SPACE", value_enum, default_value_t = Space::Log, help_heading = "How it is fitted")]
    space: Space,
    /// `squares`, or `huber:DELTA`: squares up to DELTA and linear beyond; `huber` alone means huber:1e-3
    #[arg(long, value_name = "LOSS", value_parser = loss, default_value = "squares", help_heading = "How it is fitted")]
    loss: Loss,
    /// Hold a parameter between two ends, of which one may be empty; repeatable
    #[arg(long, value_name = "P=LO:HI", value_parser = bound, help_heading = "How it is fitted")]
    bound: Vec<NamedControl>,
    /// Give a parameter a value that is not fitted; repeatable
    #[arg(long, value_name = "P=V", value_parser = fixed, help_heading = "How it is fitted")]
    fix: Vec<NamedControl>,
    /// Search a parameter on these cells, both ends included: geometric where LO > 0, else uniform; repeatable
    #[arg(long, value_name = "P=LO:HI:CELLS", value_parser = grid, help_heading = "How it is fitted")]
    grid: Vec<NamedControl>,
    /// Search a parameter from these values only, without its default box; repeatable
    #[arg(long, value_name = "P=V[,V…]", value_parser = start, help_heading = "How it is fitted")]
    start: Vec<NamedControl>,

    /// Where the search runs: `gpu` never falls back, `auto` takes a hardware GPU for work that is worth it
    #[arg(long, value_enum, default_value_t = backend::Choice::Auto, help_heading = "Where it runs")]
    backend: backend::Choice,
    /// The adapter to take: any part of its name, case ignored; the only way to run on a software adapter
    #[arg(long, value_name = "NAME", help_heading = "Where it runs")]
    adapter: Option<String>,
    /// Threads to fit with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Where it runs")]
    threads: Option<u16>,

    /// Compare the laws on each curve: by `aicc` or `bic`, or by the error on the share FRACTION of the points at the largest
    /// scale (inputs multiplied) after a fit to the others [FRACTION: 0.3]. Adds best, evidence and holdout_rmse
    #[arg(long, value_name = "aicc|bic|holdout[:FRACTION]", value_parser = select, help_heading = "Which law, how sure")]
    select: Option<Criterion>,
    /// Standard errors: `classical` from the curvature and the scatter of the residuals, `robust` from the sandwich
    /// estimate, which lets every point have a scatter of its own and suits the Huber loss
    #[arg(long = "se", value_name = "HOW", value_enum, default_value_t = Errors::Classical, help_heading = "Which law, how sure")]
    errors: Errors,
    /// Also write <parameter>_lo and <parameter>_hi, intervals of this level: by Student's t with n - p degrees of freedom,
    /// or with --bootstrap between percentiles [default with --bootstrap: 0.95]
    #[arg(long, value_name = "LEVEL", value_parser = super::level, help_heading = "Which law, how sure")]
    level: Option<f64>,
    /// The ends of intervals: `plain`, value ± t·se or the percentiles; without --bootstrap `log`, value·exp(±t·se/|value|),
    /// for amplitudes of terms whose exponents are uncertain; with it `expanded`, percentiles further out as few points ask
    #[arg(long, value_name = "ENDS", value_enum, default_value_t = Intervals::Plain, help_heading = "Which law, how sure")]
    intervals: Intervals,
    /// Fit every curve B times again: `pairs` draws rows with replacement, `fractional` weights them at random, `wild` turns
    /// the signs of residuals, `residual` exchanges them. Adds <parameter>_lo, _hi, _boot_se, boot_fitted, boot_at_bound
    #[arg(long, value_name = "B[:SCHEME]", value_parser = bootstrap, help_heading = "Which law, how sure")]
    bootstrap: Option<(u32, Scheme)>,
    /// Where each replicate starts: from a search of its own, or, faster, from the curve's best fit
    #[arg(long, value_name = "START", value_enum, requires = "bootstrap", help_heading = "Which law, how sure")]
    bootstrap_start: Option<BootstrapStart>,
    /// Resample whole groups of rows with one value in this column, such as the checkpoints of one run
    #[arg(long, value_name = "COL", requires = "bootstrap", help_heading = "Which law, how sure")]
    cluster: Option<String>,
    /// The seed of the replicates [default: 0]
    #[arg(long, value_name = "S", requires = "bootstrap", help_heading = "Which law, how sure")]
    seed: Option<u64>,
    /// Also write the parameters of every replicate, for `predict` and `allocate`
    #[arg(long, value_name = "FILE", requires = "bootstrap", help_heading = "Which law, how sure")]
    draws: Option<String>,

    /// Fit K random curves again by a dense search in f64 that shares nothing with the fit's own, and report how far the
    /// fits were off: in the summary, the metadata and, under --strict, the exit status
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true, help_heading = "What comes out")]
    verify: usize,
    /// Also write the covariance of each fit's parameters, which `predict`, `allocate` and `next` need
    #[arg(long, help_heading = "What comes out")]
    covariance: bool,
    /// What the run may take, for example 4GiB: rows that do not lie together and would need more are grouped by way of a
    /// file, in two more readings. Keys of all curves and batches in flight always take their share
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Every night")]
    memory: Option<u64>,
    /// The folder of that file, which has no name and goes with the process [default: the folder of OUT]
    #[arg(long, value_name = "DIR", requires = "memory", help_heading = "Every night")]
    spill: Option<PathBuf>,
    /// The Parquet table of an earlier run of the same job, or its folder of parts, written with --fingerprint: curves whose
    /// rows are what they were are carried over as they are, changed and new ones are fitted. May be OUT itself
    #[arg(long, value_name = "FITS", help_heading = "Every night")]
    since: Option<String>,
    /// Where a curve had a fit of this law in --since and has only grown since, test its new points against that fit. Adds
    /// `broke`, the p-value, and `broke_adjusted`, adjusted for all curves tested; the worst stand in the summary
    #[arg(long, value_name = "LAW", requires = "since", help_heading = "Every night")]
    watch_law: Option<String>,
    /// The rate of false discoveries up to which a curve counts as broken
    #[arg(long, value_name = "RATE", default_value_t = 0.05, requires = "watch_law", help_heading = "Every night")]
    watch_rate: f64,
    /// Exit with 3 if a curve is broken
    #[arg(long, requires = "watch_law", help_heading = "Every night")]
    fail_on_broken: bool,
    /// Also write the column `fingerprint`, by which --since knows curves again; --since writes it, too
    #[arg(long, help_heading = "Every night")]
    fingerprint: bool,
    /// Keep finished work in a ledger beside OUT, and go on behind the one that a run of the same command left there when
    /// it died or was stopped. OUT comes out byte for byte as if nothing had happened. A ledger of other inputs, options
    /// or of another version is refused
    #[arg(long, help_heading = "Every night")]
    resume: bool,
    /// The file that --resume keeps finished work in [default: .OUT.ledger beside OUT]; needed where OUT lies in a store
    #[arg(long, value_name = "FILE", requires = "resume", help_heading = "Every night")]
    ledger: Option<PathBuf>,
    /// Where the ledger of --resume or the fits of --since are of other inputs, options or another version, or the fits are
    /// not there, say so and fit everything instead of refusing: for jobs that nobody watches
    #[arg(long, help_heading = "Every night")]
    or_begin_anew: bool,

    /// Exit with 1 if a curve is neither converged nor at_bound, or if --verify found a better fit
    #[arg(long, help_heading = "What comes out")]
    strict: bool,
    /// Also write the summary as JSON: methods, counts, timings by stage
    #[arg(long, value_name = "FILE.json", help_heading = "What comes out")]
    summary: Option<PathBuf>,
    /// Write what the run did in Prometheus' text format, whether it went well or not
    #[arg(long, value_name = "FILE.prom", help_heading = "What comes out")]
    metrics: Option<PathBuf>,
    /// Print the job file that this command line means, for `sweepfit run`, and fit nothing
    #[arg(long, help_heading = "What comes out")]
    pub(super) print_job: bool,
    /// Say nothing but errors
    #[arg(short, long, help_heading = "What comes out")]
    quiet: bool,
    /// Write OUT as a folder of Parquet files, one folder COL=VALUE for every value of this column: a key, law or status
    #[arg(long, value_name = "COL", help_heading = "What comes out")]
    partition_by: Option<String>,
    /// Write OUT as a folder of Parquet files of at most N rows [default with --partition-by: 10000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "What comes out")]
    part_rows: Option<u32>,
    /// The file to write: Parquet, CSV where it ends in .csv, Arrow IPC in .arrow; `-` for CSV on stdout
    #[arg(short, long, value_name = "OUT", help_heading = "What comes out")]
    output: String,
}

/// The exit status where a curve is broken and --fail-on-broken was given.
const BROKEN: u8 = 3;

/// The level of bootstrap intervals where none is given.
const USUAL_LEVEL: f64 = 0.95;

/// Where residuals are taken, as an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Space {
    Log,
    Linear,
}

/// How standard errors are estimated, as an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Errors {
    Classical,
    Robust,
}

/// What the ends of intervals are, as an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Intervals {
    Plain,
    Log,
    Expanded,
}

/// Where replicates start, as an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BootstrapStart {
    Search,
    Best,
}

impl From<Space> for fit::Space {
    fn from(space: Space) -> fit::Space {
        match space {
            Space::Log => fit::Space::Log,
            Space::Linear => fit::Space::Linear,
        }
    }
}

impl Fit {
    /// Fits, reports, and says by the exit code whether all went well.
    pub fn run(&self) -> Result<Outcome> {
        interruption::watch();
        self.refuse_shared_places()?;
        let file = self.metrics.as_deref().map(|path| SideFile::create(path, "--metrics")).transpose()?;
        let (mut metrics, started) = (Metrics::start(), Instant::now());
        let outcome = self.fit();
        metrics.step("fit", &outcome, started.elapsed());
        if let Some(file) = file {
            let written = file.write(&metrics.text());
            // Where the run failed, too, that is what has to be told.
            if outcome.is_ok() {
                written?;
            }
        }
        outcome
    }

    /// Looks whether it could be done: opens inputs and outputs, and says which columns and parameters the laws have.
    pub fn check(&self) -> Result<String> {
        self.refuse_shared_places()?;
        let (request, said) = self.request()?;
        for (path, option) in [(&self.summary, "--summary"), (&self.metrics, "--metrics")] {
            path.as_deref().map(|path| SideFile::create(path, option)).transpose()?;
        }
        let anew = pipeline::Run::check(request)?;
        Ok(said + &begun_anew(&anew))
    }

    /// Every file that is written has a place of its own, and what is read stays as it is. Only the table itself may take the place
    /// of the fits of --since, and is held against the input's files when these are known.
    fn refuse_shared_places(&self) -> Result<()> {
        let side = |path: &'_ Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let (ledger, summary, metrics) = (side(&self.ledger), side(&self.summary), side(&self.metrics));
        let beside = [
            ("--draws", self.draws.as_deref()),
            ("--ledger", ledger.as_deref()),
            ("--summary", summary.as_deref()),
            ("--metrics", metrics.as_deref()),
        ];
        let beside: Vec<Named> = beside.into_iter().filter_map(|(option, path)| Some((option, path?))).collect();
        let read: Vec<&str> = self.inputs.iter().chain(&self.since).map(String::as_str).collect();
        refuse_over(&read, &beside)?;
        refuse_shared(&[&[("-o", self.output.as_str())], &beside[..]].concat())
    }

    fn fit(&self) -> Result<Outcome> {
        let summary = self.summary.as_deref().map(|path| SideFile::create(path, "--summary")).transpose()?;
        let (report, source) = match self.attempt(Vec::new()) {
            // Found only where the content of a batch is compared with what the ledger says of it.
            Err(Error::Earlier { file, message, .. }) if self.or_begin_anew && self.ledger()? == Some(file.clone()) => {
                Ledger::drop_at(&file)?;
                self.attempt(vec![format!("{} {message}", file.display())])
            }
            attempted => attempted,
        }?;
        if let Some(summary) = summary {
            summary.write(&format!("{:#}\n", report.to_json()))?;
        }
        if !self.quiet {
            let text = report::text(&report, self.drop_bad_rows);
            log::tell("summary", text.trim_end(), json!({ "summary": report.to_json() }), &text);
        }
        let failed = self.strict && (report.failures() > 0 || report.disagreements() > 0);
        if failed {
            // An error, which -q does not silence: nothing else would say why the exit status is 1.
            report::broken_by_strict(&report, self.drop_bad_rows).iter().for_each(|line| log::fail("strict", line));
        }
        let broken = self.fail_on_broken && report.watched.as_ref().is_some_and(|watched| !watched.broken.is_empty());
        let code = if broken { BROKEN } else { u8::from(failed) };
        let bytes_written = [Some(&self.output), self.draws.as_ref()].into_iter().flatten();
        let bytes_written = bytes_written.map(|out| table::length_of(out)).sum();
        let fitted = Fitted { report, bytes_read: source.bytes_read(), bytes_written };
        Ok(Outcome::Fitted(code, Box::new(fitted)))
    }

    /// One run, and its input; `anew` says why it begins anew, where it does for a reason known before.
    fn attempt(&self, anew: Vec<String>) -> Result<(Report, Source)> {
        let (mut request, said) = self.request()?;
        request.rerun.anew.extend(anew);
        let (rows, source) = (request.source.rows(), request.source.clone());
        let run = pipeline::Run::open(request)?;
        self.say(&said);
        self.say(&begun_anew(run.anew()));
        let watch = report::Watch::start(rows, self.quiet);
        let ran = run.finish(&mut |progress| watch.show(progress));
        watch.end();
        match (&ran, self.ledger()?) {
            (Err(Error::Earlier { .. }), _) | (_, None) | (Ok(_), _) => {}
            (Err(_), Some(ledger)) => self
                .say(&format!("note: finished work is kept in {}: the same command goes on there\n", ledger.display())),
        }
        Ok((ran?, source))
    }

    /// What is asked, valid as far as it can be told without reading rows; and what to tell the user before the run.
    fn request(&self) -> Result<(Request, String)> {
        let filter = match &self.filter {
            Some(text) => Some((text.clone(), parse_filter(text)?)),
            None => None,
        };
        let source = Source::open(&self.inputs)?;
        refuse_overwriting(&source, &self.output, "-o")?;
        let laws = self.bind(&source)?;
        self.refuse_incomparable(&laws)?;
        let resampling = self.resampling(&source)?;
        let mut said = report::names(&laws);
        said += &self.ignored(&laws);
        let numbers = self.numbers(&laws);
        let planned = self.plans(laws, &numbers)?;
        let plans: Vec<&Plan> = planned.iter().map(|(plan, _)| &**plan).collect();
        let times = 1.0 + self.bootstrap.map_or(0.0, |(replicates, _)| f64::from(replicates));
        let devices = backend::choose(self.backend, self.adapter.as_deref(), &plans, &source, times)?;
        said += &devices.note.map_or(String::new(), |note| format!("note: {note}\n"));
        let fits = planned.into_iter().zip(devices.each);
        let fits: Vec<pipeline::Fit> =
            fits.map(|((plan, spelling), device)| pipeline::Fit { plan, spelling, device }).collect();
        let watch = self.watch(&fits)?;
        let mut anew = Vec::new();
        let since = match self.since() {
            Err(Error::Earlier { file, message, .. }) if self.or_begin_anew => {
                anew.push(format!("{} {message}", file.display()));
                None
            }
            since => since?,
        };
        let request = Request {
            source,
            selection: Selection { keys: self.by.clone(), numbers, filter },
            fits,
            extras: Extras {
                covariance: self.covariance,
                level: self.level.or(resampling.as_ref().map(|_| USUAL_LEVEL)),
                intervals: self.intervals()?,
                resampling,
                select: self.select,
                watch: watch.is_some(),
                fingerprint: self.fingerprint || self.since.is_some(),
            },
            out: self.output.clone(),
            parts: self.parts()?,
            verify: self.verify,
            memory: self.memory()?,
            rerun: Rerun { ledger: self.ledger()?, or_begin_anew: self.or_begin_anew, anew, since, watch },
            threads: self.threads.map_or_else(all_cores, usize::from),
            interrupted: interruption::flag(),
        };
        Ok((request, said))
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            log::say(text);
        }
    }

    /// Binds every law to the input's columns, in the order of --law.
    fn bind(&self, source: &Source) -> Result<Vec<Law>> {
        let columns: Vec<String> = source.columns().iter().map(|column| column.name.clone()).collect();
        let mapping = Mapping { x: &self.x, y: self.y.as_deref() };
        let mut laws: Vec<Law> = Vec::new();
        for text in &self.laws {
            if text.trim() == "all" {
                for entry in catalogue::CATALOGUE.iter().filter(|entry| entry.inputs.len() <= self.x.len()) {
                    if !self.laws.iter().any(|law| law.trim() == entry.name) {
                        laws.push(Law::bind(entry.name, &columns, mapping)?);
                    }
                }
                continue;
            }
            let law = Law::bind(text, &columns, mapping)?;
            if laws.iter().any(|other| other.name == law.name) {
                return Err(Error::Usage(format!(
                    "--law: two laws are called \"{0}\", and rows of the output could not be told apart: leave one out, \
                     or write --law 'NAME = {0}'",
                    law.name
                )));
            }
            laws.push(law);
        }
        if laws.is_empty() {
            return Err(Error::Usage("--law all: no law has its inputs mapped; name them with --x COL,…".into()));
        }
        Ok(laws)
    }

    /// The law that is watched.
    fn watch(&self, fits: &[pipeline::Fit]) -> Result<Option<Watch>> {
        let Some(name) = &self.watch_law else { return Ok(None) };
        let Some(law) = fits.iter().position(|fit| fit.law().name == name.trim()) else {
            let names: Vec<&str> = fits.iter().map(|fit| fit.law().name.as_str()).collect();
            let names = names.join(", ");
            return Err(Error::Usage(format!(
                "--watch-law {name} is not fitted; give one of the laws of --law: {names}"
            )));
        };
        if self.loss != Loss::Squares {
            return Err(Error::Usage(
                "--watch-law compares sums of squares, and --loss huber minimises another sum; leave one of them out"
                    .into(),
            ));
        }
        if !(self.watch_rate > 0.0 && self.watch_rate < 1.0) {
            return Err(Error::Usage(format!("--watch-rate {} is not between 0 and 1", self.watch_rate)));
        }
        Ok(Some(Watch { law, rate: self.watch_rate }))
    }

    /// How OUT is parted, where it is.
    fn parts(&self) -> Result<Option<Parting>> {
        const USUAL_ROWS: u32 = 10_000_000;
        let wanted = match (&self.partition_by, self.part_rows) {
            (Some(_), _) => "--partition-by",
            (None, Some(_)) => "--part-rows",
            (None, None) => return Ok(None),
        };
        if self.output == "-" {
            return Err(Error::Usage(format!(
                "{wanted} makes a folder of files, which -o - has no room for: name one"
            )));
        }
        let rows = self.part_rows.unwrap_or(USUAL_ROWS) as usize;
        Ok(Some(Parting { by: self.partition_by.clone(), rows }))
    }

    /// How much memory the run may take, and where rows go that do not fit.
    fn memory(&self) -> Result<Option<Memory>> {
        let Some(bytes) = self.memory else { return Ok(None) };
        let beside = || match Path::new(&self.output).parent() {
            _ if table::is_url(&self.output) => std::env::temp_dir(),
            Some(folder) if self.output != "-" && !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let folder = self.spill.clone().unwrap_or_else(beside);
        if !folder.is_dir() {
            let message = "is no folder; make it first, or name another with --spill".to_string();
            return Err(Error::Output { file: folder, message });
        }
        Ok(Some(Memory { bytes, folder }))
    }

    /// The fits of an earlier run.
    fn since(&self) -> Result<Option<Source>> {
        let Some(since) = &self.since else { return Ok(None) };
        if !table::exists(since)? {
            return Err(Error::Earlier {
                file: since.into(),
                message: "is not there".to_string(),
                repair: "in the first night, write fits with --fingerprint instead of --since, or let such runs begin anew \
                         with --or-begin-anew",
            });
        }
        Source::open(std::slice::from_ref(since)).map(Some)
    }

    /// Where finished work is kept.
    fn ledger(&self) -> Result<Option<PathBuf>> {
        let device = || std::fs::metadata(&self.output).is_ok_and(|found| !found.is_file() && !found.is_dir());
        match &self.ledger {
            _ if !self.resume => Ok(None),
            Some(ledger) if ledger.to_str().is_some_and(table::is_url) => Err(Error::Usage(format!(
                "--ledger {}: a ledger is appended to after every batch, which stores cannot do; name a file here",
                ledger.display()
            ))),
            Some(ledger) => Ok(Some(ledger.clone())),
            None if self.output == "-" || table::is_url(&self.output) || device() => Err(Error::Usage(format!(
                "--resume keeps a ledger beside the output, and {} is no file here: name one with --ledger, or another \
                 output with -o",
                self.output
            ))),
            None => Ok(Some(Ledger::path_of(Path::new(&self.output)))),
        }
    }

    /// The bootstrap asked for.
    fn resampling(&self, source: &Source) -> Result<Option<Resampling>> {
        let Some((replicates, scheme)) = self.bootstrap else { return Ok(None) };
        if let Some(cluster) = &self.cluster {
            source.column(cluster)?;
            if scheme == Scheme::Residual {
                return Err(Error::Usage(
                    "--cluster resamples groups of rows and --bootstrap B:residual exchanges residuals between rows: take \
                     pairs, fractional or wild"
                        .into(),
                ));
            }
        }
        if let Some(draws) = &self.draws {
            if draws == "-" || *draws == self.output {
                return Err(Error::Usage(format!("--draws {draws}: name a file of its own, as in draws.parquet")));
            }
            refuse_overwriting(source, draws, "--draws")?;
        }
        let search = self.bootstrap_start != Some(BootstrapStart::Best);
        let bootstrap = Bootstrap { replicates, scheme, seed: self.seed.unwrap_or(0), search };
        Ok(Some(Resampling { bootstrap, cluster: self.cluster.clone(), draws: self.draws.clone() }))
    }

    /// What the ends of intervals are, where there are any of that kind.
    fn intervals(&self) -> Result<pipeline::Intervals> {
        match (self.intervals, self.level, self.bootstrap) {
            (Intervals::Plain, ..) => Ok(pipeline::Intervals::Plain),
            (Intervals::Log, Some(_), None) => Ok(pipeline::Intervals::Log),
            (Intervals::Expanded, _, Some(_)) => Ok(pipeline::Intervals::Expanded),
            (Intervals::Log, ..) => Err(Error::Usage(
                "--intervals log is for intervals by Student's t: give --level, and no --bootstrap".into(),
            )),
            (Intervals::Expanded, ..) => Err(Error::Usage(
                "--intervals expanded is for percentiles: give --bootstrap, or take plain or log".into(),
            )),
        }
    }

    /// Scores of different quantities cannot be compared.
    fn refuse_incomparable(&self, laws: &[Law]) -> Result<()> {
        let first = &laws[0];
        match laws.iter().find(|law| law.response_text != first.response_text) {
            Some(other) if self.select.is_some() => Err(Error::Usage(format!(
                "--select compares laws of one left side: {} has `{}` and {} has `{}`; fit them apart",
                first.name, first.response_text, other.name, other.response_text
            ))),
            _ => Ok(()),
        }
    }

    /// The numeric columns that have to be read.
    fn numbers(&self, laws: &[Law]) -> Vec<String> {
        let mut numbers: Vec<String> = Vec::new();
        let weights = self.weight.iter().chain(&self.sigma);
        for name in laws.iter().flat_map(|law| &law.columns).chain(weights) {
            if !numbers.contains(name) {
                numbers.push(name.clone());
            }
        }
        numbers
    }

    fn plans(&self, laws: Vec<Law>, numbers: &[String]) -> Result<Vec<(Arc<Plan>, Option<Spelling>)>> {
        let controls = [self.bound.as_slice(), &self.fix, &self.grid, &self.start].concat();
        check_names(&controls, &laws)?;
        let column = |name: &String| numbers.iter().position(|number| number == name).expect("asked for above");
        let weighting = match (&self.weight, &self.sigma) {
            (Some(weight), _) => Weighting::Weight(column(weight)),
            (_, Some(sigma)) => Weighting::Sigma(column(sigma)),
            (None, None) => Weighting::Even,
        };
        let objective = Objective { space: self.space.into(), loss: self.loss };
        let plan = |law, controls: &[NamedControl]| {
            let mut plan = Plan::new(law, objective, controls, weighting, self.drop_bad_rows, numbers)?;
            plan.robust_errors = self.errors == Errors::Robust;
            // Labels are read behind the numbers.
            plan.carry = self.cluster.as_ref().map(|_| numbers.len());
            Ok(plan)
        };
        pipeline::Fit::plan(laws, &controls, plan)
    }

    /// A note on --x where formulas do not heed it.
    fn ignored(&self, laws: &[Law]) -> String {
        let formulas: Vec<String> =
            laws.iter().filter(|law| law.entry.is_none()).map(|law| format!("`{}`", law.name)).collect();
        if self.x.is_empty() || formulas.is_empty() {
            return String::new();
        }
        format!("note: --x is ignored by {}: a formula names its columns itself\n", formulas.join(", "))
    }
}

/// Says why nothing is gone on from.
fn begun_anew(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("note: beginning anew: {reason}\n")).collect()
}

/// An output in the place of an input would take the sweep away.
fn refuse_overwriting(source: &Source, out: &str, option: &str) -> Result<()> {
    let place = |path: &Path| match path.to_str().filter(|text| table::is_url(text)) {
        Some(url) => Some(PathBuf::from(url)),
        None => std::fs::canonicalize(path).ok(),
    };
    let Some(out) = place(Path::new(out)) else { return Ok(()) };
    let is_input = |file: &PathBuf| place(file).is_some_and(|file| file.starts_with(&out));
    match source.files().iter().find(|file| is_input(file)) {
        Some(file) => Err(Error::Output {
            file: file.clone(),
            message: format!("is an input, too; choose another place with {option}, outside the folders of the input"),
        }),
        None => Ok(()),
    }
}

pub(super) fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
