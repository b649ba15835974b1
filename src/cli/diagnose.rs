//! `sweepfit diagnose`: curves to what shape they have and how well that is known; runs of two inputs to what binds them.

use super::decision::{self, Output};
use super::{level, number};
use clap::Args;
use std::collections::BTreeMap;
use std::sync::Arc;
use sweepfit::formula::parse::parse_filter;
use sweepfit::statistics::diagnosis::{Candidates, Diagnosis, SHAPES};
use sweepfit::statistics::resources::{Binding, bindings};
use sweepfit::table::{self, Batch, Event, Keys, OutputKind, ReadOptions, Selection, Source, Values};
use sweepfit::{Error, Result, curves::CurveBatch};

const EXAMPLES: &str = "\
Examples:
  # Is it a power law, is there a floor, where is the elbow: one row per run
  sweepfit diagnose sweep.parquet --x tokens --y loss --by run -o diagnosis.parquet

  # Which resource binds: one row per measurement, from Chinchilla's law
  sweepfit diagnose runs.parquet --x params,tokens --y loss --by suite -o binding.parquet

Columns for one input: the keys, points, left_out, shape (power, logarithmic, exponential,
saturating_power, saturating_exponential, broken_power or cannot_tell), words, daicc_<law>
(AICc above the least; a break is looked for only where simpler laws miss something), trend
and curvature of log y in log x with their p, exponent, floor and elbow with _lo and _hi,
exponent_after, next_doubling (relative change of y), near_floor (x at which y is within 10%
of it), runs, runs_expected and runs_p of residual signs, influence (change of the exponent
without influence_x, in standard errors), scatter, decades, reach (share of the measured
range by which a forecast goes beyond it).

Columns for two inputs: the keys, both inputs, the response, <input>_share (of the residual
terms), <input>_gain (fall of the response when the input doubles), binds.";

/// Say what a curve is: power law or not, floor, elbow, and what a forecast rests on
///
/// Every candidate law is fitted in log space. A law with more parameters has to earn them; where two fit alike the answer
/// is cannot_tell.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = "Examples: see --help")]
pub struct Diagnose {
    /// Parquet, CSV or Arrow IPC files, folders of them, or globs
    #[arg(required = true, value_name = "DATA")]
    inputs: Vec<String>,
    /// The input of the curves; or both inputs of runs, parameters first
    #[arg(long, value_name = "COL[,COL]", value_delimiter = ',', required = true)]
    x: Vec<String>,
    /// The response
    #[arg(long, value_name = "COL")]
    y: String,
    /// The key columns that tell curves apart
    #[arg(long, value_name = "COL,…", value_delimiter = ',')]
    by: Vec<String>,
    /// Rows to keep
    #[arg(long = "where", value_name = "EXPR")]
    filter: Option<String>,
    /// Where a forecast is wanted [default: ten times the largest input of each curve]
    #[arg(long, value_name = "X", value_parser = number)]
    target: Option<f64>,
    /// The level of the intervals
    #[arg(long, value_name = "LEVEL", default_value = "0.95", value_parser = level)]
    level: f64,
    #[command(flatten)]
    output: Output,
}

/// So many curves are told in words on stderr.
const TOLD: usize = 8;

impl Diagnose {
    /// Diagnoses and writes.
    pub fn run(&self) -> Result<()> {
        let (source, selection) = self.open()?;
        let pool = self.output.pool()?;
        let options = ReadOptions { threads: pool.current_num_threads(), ..ReadOptions::default() };
        let reader = table::read(&source, &selection, &options)?;
        let schema = reader.key_schema().clone();
        let columns = if self.x.len() == 1 { shape_columns() } else { self.binding_columns() };
        let mut writer = self.output.writer(&self.inputs[0], &schema, &columns)?;
        let candidates = Candidates::new()?;
        let mut tally = Tally::default();
        for event in reader {
            match event? {
                Event::Restarted => {
                    writer = self.output.writer(&self.inputs[0], &schema, &columns)?;
                    tally = Tally::default();
                }
                Event::Batch(batch) if self.x.len() == 1 => {
                    let (usable, left_out) = usable(&batch.curves);
                    let found = pool.install(|| candidates.diagnose(&usable, self.level, self.target))?;
                    tally.take(&batch.keys, &found);
                    writer.write(&batch.keys, 1, shape_values(&found, &left_out))?;
                }
                Event::Batch(batch) => {
                    let (keys, values) = pool.install(|| self.binding(&batch, &mut tally))?;
                    writer.write(&batch.keys.take(&keys), 1, &values)?;
                }
            }
        }
        writer.finish(&decision::metadata(
            "diagnose",
            &[
                ("inputs", self.inputs.join(" ")),
                ("x", self.x.join(",")),
                ("y", self.y.clone()),
                ("level", self.level.to_string()),
                ("target", self.target.map_or("ten times the largest input".into(), |target| target.to_string())),
            ],
        ))?;
        self.output.say(&tally.report());
        Ok(())
    }

    /// Looks whether it could be done, without diagnosing.
    pub fn check(&self) -> Result<()> {
        let (source, selection) = self.open()?;
        table::read(&source, &selection, &ReadOptions { threads: 1, ..ReadOptions::default() })?;
        self.output.check()
    }

    /// The measurements, and which of their columns are wanted.
    fn open(&self) -> Result<(Source, Selection)> {
        if !(1..=2).contains(&self.x.len()) {
            return Err(Error::Usage("--x: name one input, or two for Chinchilla's law".into()));
        }
        if self.target.is_some_and(|target| target <= 0.0) {
            return Err(Error::Usage("--target: inputs are above 0".into()));
        }
        let filter =
            self.filter.as_ref().map(|text| Ok::<_, Error>((text.clone(), parse_filter(text)?))).transpose()?;
        let source = Source::open(&self.inputs)?;
        let numbers: Vec<String> = self.x.iter().chain([&self.y]).cloned().collect();
        Ok((source, Selection { keys: self.by.clone(), numbers, filter }))
    }

    fn binding_columns(&self) -> Vec<(String, OutputKind)> {
        let mut names: Vec<String> = self.x.iter().chain([&self.y]).cloned().collect();
        names.extend(self.x.iter().map(|name| format!("{name}_share")));
        names.extend(self.x.iter().map(|name| format!("{name}_gain")));
        let mut columns: Vec<_> = names.into_iter().map(|name| (name, OutputKind::Number)).collect();
        columns.push(("binds".into(), OutputKind::Text));
        columns
    }

    fn binding(&self, batch: &Batch, tally: &mut Tally) -> Result<(Vec<u32>, Vec<Values>)> {
        let (curves, left_out) = usable(&batch.curves);
        let found = bindings(&curves)?;
        let rows = |curve: usize| curves.offsets[curve]..curves.offsets[curve + 1];
        let keys: Vec<u32> = (0..curves.len()).flat_map(|curve| rows(curve).map(move |_| curve as u32)).collect();
        let mut values: Vec<Values> = curves.columns.iter().map(|column| Values::Number(column.clone())).collect();
        let number = |of: &dyn Fn(&Binding) -> f64| Values::Number(found.iter().map(of).collect());
        values.extend([number(&|b| b.shares[0]), number(&|b| b.shares[1])]);
        values.extend([number(&|b| b.gains[0]), number(&|b| b.gains[1])]);
        let names: Vec<Arc<str>> =
            self.x.iter().map(|name| Arc::from(name.as_str())).chain([Arc::from("unknown")]).collect();
        let binds = found.iter().map(|binding| names[binding.binds().unwrap_or(2)].clone()).collect::<Vec<_>>();
        for name in &binds {
            let what = if **name == *"unknown" { "without a fit".to_string() } else { format!("bound by {name}") };
            *tally.counts.entry(what).or_default() += 1;
        }
        tally.left_out += left_out.iter().map(|&rows| u64::from(rows)).sum::<u64>();
        values.push(Values::Text(binds));
        Ok((keys, values))
    }
}

/// Rows whose numbers are all positive and finite, ascending in the first column; and how many were left out, per curve.
fn usable(batch: &CurveBatch) -> (CurveBatch, Vec<u32>) {
    let mut kept = CurveBatch { offsets: vec![0], columns: vec![Vec::new(); batch.columns.len()] };
    let mut left_out = Vec::with_capacity(batch.len());
    for curve in 0..batch.len() {
        let all = batch.offsets[curve]..batch.offsets[curve + 1];
        let good = |row: &usize| batch.columns.iter().all(|column| column[*row] > 0.0 && column[*row].is_finite());
        let mut rows: Vec<usize> = all.clone().filter(good).collect();
        left_out.push((all.len() - rows.len()) as u32);
        rows.sort_by(|&a, &b| batch.columns[0][a].total_cmp(&batch.columns[0][b]));
        for (into, from) in kept.columns.iter_mut().zip(&batch.columns) {
            into.extend(rows.iter().map(|&row| from[row]));
        }
        kept.offsets.push(kept.columns[0].len());
    }
    (kept, left_out)
}

fn shape_columns() -> Vec<(String, OutputKind)> {
    let mut columns: Vec<(String, OutputKind)> = vec![
        ("points".into(), OutputKind::Count),
        ("left_out".into(), OutputKind::Count),
        ("shape".into(), OutputKind::Text),
        ("words".into(), OutputKind::Text),
    ];
    columns.extend(SHAPES.iter().map(|law| (format!("daicc_{law}"), OutputKind::Number)));
    let names = [
        "trend",
        "trend_p",
        "curvature",
        "curvature_p",
        "exponent",
        "exponent_lo",
        "exponent_hi",
        "exponent_after",
        "floor",
        "floor_lo",
        "floor_hi",
        "elbow",
        "elbow_lo",
        "elbow_hi",
        "next_doubling",
        "near_floor",
        "runs",
        "runs_expected",
        "runs_p",
        "influence",
        "influence_x",
        "scatter",
        "decades",
        "reach",
    ];
    columns.extend(names.map(|name| (name.to_string(), OutputKind::Number)));
    columns
}

fn shape_values(found: &[Diagnosis], left_out: &[u32]) -> Vec<Values> {
    let mut values = vec![
        Values::Count(found.iter().map(|d| Some(d.points)).collect()),
        Values::Count(left_out.iter().copied().map(Some).collect()),
        Values::Text(found.iter().map(|d| Arc::from(d.shape)).collect()),
        Values::Text(found.iter().map(|d| Arc::from(d.words.as_str())).collect()),
    ];
    let mut number = |of: &dyn Fn(&Diagnosis) -> f64| values.push(Values::Number(found.iter().map(of).collect()));
    for law in 0..SHAPES.len() {
        number(&|d| d.above[law]);
    }
    for at in 0..2 {
        number(&|d| d.trend[at]);
    }
    for at in 0..2 {
        number(&|d| d.curvature[at]);
    }
    for at in 0..3 {
        number(&|d| d.exponent[at]);
    }
    number(&|d| d.exponent_after);
    for at in 0..3 {
        number(&|d| d.floor[at]);
    }
    for at in 0..3 {
        number(&|d| d.elbow[at]);
    }
    number(&|d| d.next_doubling);
    number(&|d| d.near_floor);
    for at in 0..3 {
        number(&|d| d.runs[at]);
    }
    for at in 0..2 {
        number(&|d| d.influence[at]);
    }
    number(&|d| d.scatter);
    number(&|d| d.decades);
    number(&|d| d.reach);
    values
}

/// What was found.
#[derive(Debug, Default)]
struct Tally {
    counts: BTreeMap<String, u64>,
    told: Vec<String>,
    left_out: u64,
}

impl Tally {
    fn take(&mut self, keys: &Keys, found: &[Diagnosis]) {
        for (curve, diagnosis) in found.iter().enumerate() {
            *self.counts.entry(diagnosis.shape.to_string()).or_default() += 1;
            if self.told.len() <= TOLD {
                self.told.push(format!("{}: {}", keys.describe(curve), diagnosis.words));
            }
        }
    }

    fn report(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let mut text = if self.told.len() <= TOLD { self.told.join("\n") + "\n" } else { String::new() };
        text = text.trim_start().to_string();
        if self.left_out > 0 {
            text += &format!("note: {} rows are not positive and were left out\n", self.left_out);
        }
        text + &if counts.is_empty() { "nothing to diagnose".to_string() } else { counts.join(", ") } + "\n"
    }
}
