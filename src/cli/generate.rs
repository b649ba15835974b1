//! `sweepfit generate`: arguments to a [`Sweep`], batches to a file.

use crate::cli::place::refuse_shared;
use crate::cli::{assignment, number};
use clap::Args;
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::Instant;
use sweepfit::error::nearest;
use sweepfit::formula::parse::{Kind, parse_formula};
use sweepfit::generate::typical::Typical;
use sweepfit::generate::{Axis, Draw, Generated, Noise, Sweep};
use sweepfit::law::{Law, Mapping, catalogue};
use sweepfit::table::sweep::SweepWriter;
use sweepfit::{Error, Result};

/// Rows generated at a time: enough to keep every core busy, little enough not to be felt in memory.
const BATCH_ROWS: usize = 1 << 18;

const EXAMPLE: &str = "\
Example:
  sweepfit generate --law saturating_power --curves 100000 --points 8:64 \\
    --x tokens=1e6:1e10 --y loss --param E=1.5:2.5 --param A=50:500 \\
    --param alpha=0.1:0.6 --noise 0.02 --truth truth.parquet -o sweep.parquet
  sweepfit fit sweep.parquet --law saturating_power --x tokens --y loss \\
    --by curve -o fits.parquet";

/// Write a synthetic sweep with known truth: any law, any size, seeded
///
/// Curve i depends on the seed and i alone, so that a longer sweep begins with the shorter one.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Generate {
    /// A catalogue law or a formula; a formula's left side, if any, must be a plain column
    #[arg(long, value_name = "LAW")]
    law: String,
    /// How many curves
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    curves: u64,
    /// Points of a curve, or fewest and most (uniform between)
    #[arg(long, value_name = "N|LO:HI", default_value = "32", value_parser = points)]
    points: (usize, usize),
    /// An input and its range, both ends included, geometric where LO > 0; with CELLS an axis of a product grid.
    /// Repeatable, in the law's order. A catalogue law's inputs default to four decades under their own names
    #[arg(long, value_name = "COL=LO:HI[:CELLS]", value_parser = axis)]
    x: Vec<(String, Axis)>,
    /// Name of the response [default: the formula's left side, else y]
    #[arg(long, value_name = "COL")]
    y: Option<String>,
    /// A true parameter: uniform, log-uniform or fixed; repeatable. A parameter left out is drawn as its role in the law
    /// suggests, over the inputs of the curve: see `sweepfit laws NAME`
    #[arg(long = "param", value_name = "P=LO:HI[:log] | P=V", value_parser = draw)]
    parameters: Vec<(String, Draw)>,
    /// Standard deviation of the noise on every point, in the space that --space says
    #[arg(long, value_name = "SD", default_value_t = 0.01)]
    noise: f64,
    /// Where the noise is added: to log y (SD is then relative) or to y
    #[arg(long, value_name = "SPACE", default_value = "log", value_parser = ["log", "linear"])]
    space: String,
    /// Name of the key column, a string such as c00000042
    #[arg(long, value_name = "COL", default_value = "curve")]
    key: String,
    /// Sweeps of different seeds are independent
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Rows in a row group of the Parquet file
    #[arg(long, value_name = "ROWS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    row_group: u64,
    /// Also write the true parameters, one row per curve
    #[arg(long, value_name = "FILE.parquet")]
    truth: Option<PathBuf>,
    /// Threads to generate with [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The Parquet file to write
    #[arg(short, long, value_name = "OUT.parquet")]
    output: PathBuf,
}

impl Generate {
    /// Writes the sweep.
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        if let Some(truth) = &self.truth {
            refuse_shared(&[("-o", &self.output.to_string_lossy()), ("--truth", &truth.to_string_lossy())])?;
        }
        let sweep = self.sweep()?;
        let columns = sweep.law.columns.clone();
        self.refuse_shared_names(&columns, &sweep.law.parameters)?;
        let metadata = self.metadata(&sweep);
        let row_group = self.row_group as usize;
        let mut data = SweepWriter::create(&self.output, &self.key, &columns, row_group, &metadata)?;
        let mut truth = match &self.truth {
            Some(path) => Some(SweepWriter::create(path, &self.key, &sweep.law.parameters, row_group, &metadata)?),
            None => None,
        };
        let mut rows = 0;
        stream(&sweep, self.curves, self.threads, |first, Generated { curves, truth: parameters }| {
            rows += curves.rows();
            let keys: Vec<String> = (first..first + curves.len() as u64).map(key).collect();
            if let Some(truth) = &mut truth {
                let each: Vec<usize> = (0..=curves.len()).collect();
                truth.write(&keys, &each, parameters)?;
            }
            data.write(&keys, &curves.offsets, curves.columns)
        })?;
        data.finish()?;
        truth.map_or(Ok(()), SweepWriter::finish)?;
        if !self.quiet {
            self.report(&sweep, rows, start);
        }
        Ok(())
    }

    /// The recipe that the arguments describe.
    fn sweep(&self) -> Result<Sweep> {
        let mut x = self.x.clone();
        let y = self.response()?;
        if let Some(entry) = catalogue::find(self.law.trim()) {
            if x.is_empty() {
                let decades = Axis::four_decades(entry);
                x = entry.inputs.iter().map(|input| (input.to_string(), decades)).collect();
            } else if x.len() != entry.inputs.len() {
                return Err(Error::Usage(format!(
                    "law {} has inputs {}: give one --x for each, in this order",
                    entry.name,
                    entry.inputs.join(", ")
                )));
            }
        } else if x.is_empty() && !self.law.chars().all(|c| c.is_alphanumeric() || c == '_') {
            // A single word is a slip in a catalogue name, which binding explains better.
            return Err(Error::Usage(format!("name the inputs of `{}` with --x COL=LO:HI", self.law)));
        }
        let names: Vec<String> = x.iter().map(|(name, _)| name.clone()).collect();
        let mut columns = names.clone();
        columns.push(y.clone());
        refuse_duplicates("--x, --y", &columns)?;
        let gridded = x.iter().filter(|(_, axis)| axis.cells.is_some()).count();
        if gridded != 0 && gridded != x.len() {
            return Err(Error::Usage("--x: give CELLS to every input (a product grid) or to none".into()));
        }
        let law = Law::bind(&self.law, &columns, Mapping { x: &names, y: Some(&y) })?;
        if law.inputs().contains(&y.as_str()) {
            return Err(Error::Usage(format!(
                "--y {y} stands on the right side of `{}`, too: choose another",
                law.name
            )));
        }
        if let Some(unused) = names.iter().find(|name| !law.columns.contains(name)) {
            return Err(Error::Usage(format!("--x {unused}: law `{}` does not use it; leave it out", law.name)));
        }
        let axis_of = |column: &String| x.iter().find(|(name, _)| name == column).map(|(_, axis)| *axis);
        let axes = law.columns.iter().map(axis_of).collect();
        let noise = if self.space == "log" { Noise::Log(self.noise) } else { Noise::Linear(self.noise) };
        if !(self.noise.is_finite() && self.noise >= 0.0) {
            return Err(Error::Usage(format!("--noise {}: give a standard deviation of 0 or more", self.noise)));
        }
        let draws = self.draws(&law)?;
        Ok(Sweep { law, axes, draws, points: self.points, noise, seed: self.seed })
    }

    /// The response's name: the formula's left side or --y, which must agree.
    fn response(&self) -> Result<String> {
        let left = match catalogue::find(self.law.trim()) {
            Some(_) => None,
            None => parse_formula(&self.law).ok().and_then(|formula| formula.left),
        };
        match (left.map(|left| left.kind), &self.y) {
            (None, y) => Ok(y.clone().unwrap_or_else(|| "y".into())),
            (Some(Kind::Name(left)), y) if y.as_ref().is_none_or(|y| *y == left) => Ok(left),
            (Some(Kind::Name(left)), _) => {
                Err(Error::Usage(format!("--y and the left side `{left}` differ: leave one of them out")))
            }
            (Some(_), _) => Err(Error::Usage(format!(
                "the left side of `{}` is not a plain column: generate solves no equations, write `COLUMN ~ …`",
                self.law
            ))),
        }
    }

    /// One draw per parameter of the law.
    fn draws(&self, law: &Law) -> Result<Vec<Draw>> {
        let given: Vec<String> = self.parameters.iter().map(|(name, _)| name.clone()).collect();
        refuse_duplicates("--param", &given)?;
        if let Some(unknown) = given.iter().find(|name| !law.parameters.contains(name)) {
            let hint = nearest(unknown, law.parameters.iter().map(String::as_str))
                .map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(Error::Usage(format!(
                "--param {unknown}: law `{}` has parameters {}{hint}",
                law.name,
                law.parameters.join(", ")
            )));
        }
        let draw_of = |name: &String| self.parameters.iter().find(|(given, _)| given == name).map(|(_, draw)| *draw);
        let unknown = Typical::new(law).unknown();
        let missing: Vec<&str> = unknown.into_iter().map(|j| law.parameters[j].as_str()).collect();
        let missing: Vec<&str> = missing.into_iter().filter(|name| !given.iter().any(|given| given == name)).collect();
        if !missing.is_empty() {
            return Err(Error::Usage(format!(
                "law `{}` has parameters of which no range is typical: {}; give each --param NAME=LO:HI or NAME=VALUE, or, \
                 where it is an input, --x NAME=LO:HI",
                law.name,
                missing.join(", ")
            )));
        }
        Ok(law.parameters.iter().map(|name| draw_of(name).unwrap_or(Draw::Typical)).collect())
    }

    /// Files in which two columns would have one name.
    fn refuse_shared_names(&self, columns: &[String], parameters: &[String]) -> Result<()> {
        let with_key = |names: &[String]| [names, std::slice::from_ref(&self.key)].concat();
        refuse_duplicates("--key and columns", &with_key(columns))?;
        if self.truth.is_some() {
            refuse_duplicates("--key and parameters", &with_key(parameters))?;
        }
        Ok(())
    }

    /// What a reader of the file needs to make it again.
    fn metadata(&self, sweep: &Sweep) -> Vec<(String, String)> {
        let list = |names: Vec<String>| names.join(" ");
        let axes = self.x.iter().map(|(name, axis)| {
            let cells = axis.cells.map_or(String::new(), |cells| format!(":{cells}"));
            format!("{name}={}:{}{cells}", axis.low, axis.high)
        });
        let draws = self.parameters.iter().map(|(name, draw)| match draw {
            Draw::Fixed(value) => format!("{name}={value}"),
            Draw::Uniform(low, high) => format!("{name}={low}:{high}"),
            Draw::LogUniform(low, high) => format!("{name}={low}:{high}:log"),
            Draw::Typical => name.clone(),
        });
        let entries = [
            ("version", env!("CARGO_PKG_VERSION").to_string()),
            ("law", sweep.law.name.clone()),
            ("formula", sweep.law.formula.clone()),
            ("curves", self.curves.to_string()),
            ("points", format!("{}:{}", self.points.0, self.points.1)),
            ("x", list(axes.collect())),
            ("param", list(draws.collect())),
            ("noise", self.noise.to_string()),
            ("space", self.space.clone()),
            ("seed", self.seed.to_string()),
        ];
        entries.into_iter().map(|(key, value)| (format!("sweepfit.generate.{key}"), value)).collect()
    }

    fn report(&self, sweep: &Sweep, rows: usize, start: Instant) {
        let truth = self.truth.as_deref().map_or(String::new(), |path| format!(", truth in {}", path.display()));
        super::log::say(&format!(
            "generated {} curves, {rows} rows in {}{truth} ({:.2} s)\n",
            self.curves,
            self.output.display(),
            start.elapsed().as_secs_f64()
        ));
        if std::io::stderr().is_terminal() && !super::log::is_json() {
            let law = match sweep.law.entry {
                Some(entry) => {
                    format!("{} --x {} --y {}", entry.name, sweep.law.inputs().join(","), sweep.law.response_text)
                }
                None => format!("'{} ~ {}'", sweep.law.response_text, sweep.law.formula),
            };
            let (input, key) = (self.output.display(), &self.key);
            super::log::say(&format!("fit it: sweepfit fit {input} --law {law} --by {key} -o fits.parquet\n"));
        }
    }
}

/// Generates curves on a pool of its own (0 threads: all cores) and hands them in order to `take` on this thread, one batch
/// ahead at most.
pub(super) fn stream(
    sweep: &Sweep,
    curves: u64,
    threads: usize,
    mut take: impl FnMut(u64, Generated) -> Result<()>,
) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::Usage(format!("--threads {threads}: {error}")))?;
    let batch = (BATCH_ROWS / sweep.points.1.max(1)).clamp(1, BATCH_ROWS) as u64;
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        scope.spawn(move || {
            for first in (0..curves).step_by(batch as usize) {
                let count = batch.min(curves - first) as usize;
                let generated = pool.install(|| sweep.batch(first, count));
                // The receiver is gone only where writing has failed, which is reported there.
                let failed = generated.is_err();
                if sender.send((first, generated)).is_err() || failed {
                    return;
                }
            }
        });
        for (first, generated) in receiver {
            take(first, generated?)?;
        }
        Ok(())
    })
}

/// Eight digits keep the keys of ten million curves equally long and in order as text.
pub(super) fn key(index: u64) -> String {
    format!("c{index:08}")
}

fn refuse_duplicates(what: &str, names: &[String]) -> Result<()> {
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(name) => Err(Error::Usage(format!("{what}: \"{name}\" is named twice; rename one of them"))),
        None => Ok(()),
    }
}

pub(super) fn points(text: &str) -> std::result::Result<(usize, usize), String> {
    let count = |text: &str| text.parse::<usize>().ok().filter(|&n| n > 0);
    let ends = match text.split_once(':') {
        Some((low, high)) => count(low).zip(count(high)),
        None => count(text).map(|n| (n, n)),
    };
    ends.filter(|(low, high)| low <= high).ok_or_else(|| "give a number of points, or LO:HI with LO <= HI".into())
}

fn axis(text: &str) -> std::result::Result<(String, Axis), String> {
    let (name, value) = assignment(text)?;
    let parts: Vec<&str> = value.split(':').collect();
    let (low, high, cells) = match parts[..] {
        [low, high] => (number(low)?, number(high)?, None),
        [low, high, cells] => {
            let cells = cells.parse().ok().filter(|&cells| cells > 0).ok_or("CELLS must be a whole number above 0")?;
            (number(low)?, number(high)?, Some(cells))
        }
        _ => return Err("give COL=LO:HI or COL=LO:HI:CELLS".into()),
    };
    if low > high {
        return Err(format!("LO {low} is above HI {high}"));
    }
    Ok((name, Axis { low, high, cells }))
}

fn draw(text: &str) -> std::result::Result<(String, Draw), String> {
    let (name, value) = assignment(text)?;
    let parts: Vec<&str> = value.split(':').collect();
    let draw = match parts[..] {
        [value] => Draw::Fixed(number(value)?),
        [low, high] => Draw::Uniform(number(low)?, number(high)?),
        [low, high, "log"] => Draw::LogUniform(number(low)?, number(high)?),
        _ => return Err("give P=LO:HI, P=LO:HI:log or P=VALUE".into()),
    };
    match draw {
        Draw::Uniform(low, high) | Draw::LogUniform(low, high) if low > high => {
            Err(format!("LO {low} is above HI {high}"))
        }
        Draw::LogUniform(low, _) if low <= 0.0 => Err(format!("LO {low} has no logarithm: leave out :log")),
        _ => Ok((name, draw)),
    }
}
