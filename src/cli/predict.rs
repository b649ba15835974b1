//! `sweepfit predict`: a table of fits and points to a table of predictions.

use super::decision::{self, Output};
use super::level;
use clap::Args;
use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use sweepfit::statistics::calibration::{Calibrated, calibrate, require_curves};
use sweepfit::statistics::fits::{Draws, FitBatch, Fits, Fitted, FittedLaw};
use sweepfit::statistics::forecast::{Answer, Forecaster, Points};
use sweepfit::table::rows::{Identity, Joiner, RowReader, RowSelection};
use sweepfit::table::{OutputKind, ReadOptions, Source, Values};
use sweepfit::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  # Every fit at two points
  sweepfit fit sweep.parquet --law saturating_power --x tokens --y loss --by run \\
    --covariance -o fits.parquet
  sweepfit predict fits.parquet --at tokens=1e11 --at tokens=1e12 -o forecast.parquet

  # Every fit at the rows of a table that have its key; intervals calibrated on the sweep
  sweepfit predict fits.parquet --at held_out.parquet --calibrate sweep.parquet \\
    -o forecast.parquet

Columns: the keys, law, the inputs, predicted, mean_lo, mean_hi (the law), new_lo, new_hi
(a new measurement); observed and relative_error where the table of points holds the
response. Where FITS has a column `evidence`, rows of law `average` hold the laws'
weighted average.";

/// Predict from fits, with intervals for the law and for a new measurement
///
/// Intervals are made in the space of the fit, by the delta method with Student's t, or from draws of the parameters.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = "Examples: see --help")]
pub struct Predict {
    /// The Parquet table that `fit --covariance` wrote
    #[arg(value_name = "FITS")]
    fits: String,
    /// Where to predict: a point such as "N=7e9,D=1e12" (columns, or a built-in law's own names), repeatable; or a table
    /// with the inputs as columns, joined to the fits on the key columns that it holds
    #[arg(long, value_name = "POINT|TABLE", required = true)]
    at: Vec<String>,
    /// The level of the intervals
    #[arg(long, value_name = "LEVEL", default_value = "0.95", value_parser = level)]
    level: f64,
    /// Intervals from draws of the parameters: FITS's keys, law, replicate and a column per parameter
    #[arg(long, value_name = "FILE")]
    draws: Option<String>,
    /// Widen or narrow the intervals by rolling cut-offs over the curves of the sweep behind FITS, and report the coverage
    #[arg(long, value_name = "DATA", num_args = 1..)]
    calibrate: Vec<String>,
    /// Take fits without covariances, and leave out the intervals that would need them
    #[arg(long, conflicts_with_all = ["draws", "calibrate"])]
    no_intervals: bool,
    #[command(flatten)]
    output: Output,
}

/// Rows of output that are made at a time.
const ROWS: usize = 1 << 17;
/// Fits whose draws are held at a time.
const FITS_WITH_DRAWS: usize = 256;

impl Predict {
    /// Predicts and writes.
    pub fn run(self) -> Result<ExitCode> {
        let fits = Fits::open(&self.fits)?;
        if !self.no_intervals && self.draws.is_none() {
            decision::require_covariance(&fits, &self.fits, decision::REPAIR)?;
        }
        let targets = Targets::open(&self.at, &fits)?;
        let mut forecaster = Forecaster::new(&fits, &targets.points, self.level)?;
        targets.require_known(&fits)?;
        let pool = self.output.pool()?;
        let calibrated = match self.calibrate.as_slice() {
            [] => Vec::new(),
            inputs => {
                let options = ReadOptions { threads: pool.current_num_threads(), ..ReadOptions::default() };
                let calibrated = pool.install(|| calibrate(&fits, inputs, self.level, &options))?;
                require_curves(&calibrated)?;
                forecaster.factors = calibrated.iter().map(|law| law.factor).collect();
                calibrated
            }
        };
        self.output.say(&self.report(&fits, &calibrated, &targets));
        let mut draws = self.draws.as_ref().map(|path| Draws::open(path, &fits)).transpose()?;
        let table = Table::new(&fits, &targets, &forecaster);
        let reader = fits.read()?;
        let mut writer = self.output.writer(&self.fits, reader.key_schema(), &table.columns())?;
        let mut tally = Tally::default();
        for batch in reader {
            let batch = batch?;
            let laws = fits.laws.len();
            let at_once = if draws.is_some() { FITS_WITH_DRAWS } else { ROWS / targets.usual_points().max(1) };
            let at_once = at_once.next_multiple_of(laws);
            for first in (0..batch.rows.len()).step_by(at_once) {
                let mut part = batch.slice(first..batch.rows.len().min(first + at_once));
                if let Some(draws) = &mut draws {
                    draws.join(&mut part)?;
                }
                let (keys, values) = pool.install(|| table.fill(&part, &mut tally))?;
                writer.write(&part.keys.take(&keys), 1, &values)?;
            }
        }
        if let Some(draws) = &mut draws {
            draws.finish()?;
        }
        targets.require_matches(tally.rows)?;
        writer.finish(&self.metadata(&fits, &calibrated))?;
        self.output.say(&tally.report(self.level));
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, fits: &Fits, calibrated: &[Calibrated], targets: &Targets) -> String {
        let mut text = String::new();
        if let Some(joined) = &targets.joined {
            text += &format!("note: points are joined to fits on {}\n", joined.keys.join(", "));
        }
        for (law, found) in fits.laws.iter().zip(calibrated) {
            text += &format!("{}: {}\n", law.law.name, describe(found, self.level));
        }
        text
    }

    fn metadata(&self, fits: &Fits, calibrated: &[Calibrated]) -> Vec<(String, String)> {
        let factors = fits.laws.iter().zip(calibrated);
        let factors: Vec<String> =
            factors.map(|(law, found)| format!("{}: {}", law.law.name, describe(found, self.level))).collect();
        let intervals = match (&self.draws, self.no_intervals) {
            (_, true) => "none".to_string(),
            (Some(draws), _) => format!("percentiles of the draws in {draws}"),
            (None, _) => "delta method in the fitting space, Student's t".to_string(),
        };
        decision::metadata(
            "predict",
            &[
                ("fits", self.fits.clone()),
                ("at", self.at.join(" ")),
                ("level", self.level.to_string()),
                ("intervals", intervals),
                ("calibration", factors.join("\n")),
            ],
        )
    }
}

fn describe(found: &Calibrated, level: f64) -> String {
    if found.curves == 0 {
        return "no curve was long enough to calibrate on; intervals are as the fit gives them".into();
    }
    let promise = found
        .promised
        .map_or(String::new(), |share| format!("; so few curves can promise no more than {:.0}%", 100.0 * share));
    format!(
        "calibrated on {} curves, {} points beyond cut-offs: factor {:.3}; {:.0}% intervals covered {:.1}% before and \
         {:.1}% after, on curves that took no part in their factor{promise}",
        found.curves,
        found.points,
        found.factor,
        100.0 * level,
        100.0 * found.before,
        100.0 * found.after
    )
}

/// Where to predict.
struct Targets {
    points: Points,
    /// Rows of the points by key, and how keys are compared; none where every fit meets every point.
    joined: Option<Joined>,
    all: Vec<u32>,
}

/// Points by their keys.
struct Joined {
    rows: HashMap<Identity, Vec<u32>>,
    /// The key columns that points and fits share.
    keys: Vec<String>,
    joiner: Joiner,
}

impl Targets {
    fn open(at: &[String], fits: &Fits) -> Result<Targets> {
        let is_table = |text: &&String| Path::new(text).exists();
        // A glob has to be looked for, and so has what looks like a file.
        let looks_like_table = |text: &&String| is_table(text) || !text.contains('=') && text.contains(['.', '*', '/']);
        match (at, at.iter().find(looks_like_table), at.iter().find(|text| !text.contains('='))) {
            ([path], Some(_), _) => Targets::table(path, fits),
            (_, Some(path), _) => Err(Error::Usage(format!(
                "--at {path}: a table of points stands alone; add further points to it as rows"
            ))),
            (_, None, Some(text)) => Err(Error::Usage(format!(
                "--at {text}: neither a table that is there nor a point such as {}=1",
                decision::input_names(fits).join("=1,")
            ))),
            (_, None, None) => Targets::listed(at),
        }
    }

    /// Points given one by one.
    fn listed(texts: &[String]) -> Result<Targets> {
        let mut points = Points::default();
        for (row, text) in texts.iter().enumerate() {
            let values = decision::point("--at", text)?;
            if row == 0 {
                points.names = values.iter().map(|(name, _)| name.clone()).collect();
                points.columns = vec![Vec::new(); values.len()];
            }
            for (name, column) in points.names.iter().zip(&mut points.columns) {
                let value = values.iter().find(|(given, _)| given == name);
                let value = value.filter(|_| values.len() == points.names.len()).ok_or_else(|| {
                    Error::Usage(format!("--at {text}: give every point the same inputs ({})", points.names.join(", ")))
                })?;
                column.push(value.1);
            }
        }
        Ok(Targets { points, joined: None, all: (0..texts.len() as u32).collect() })
    }

    /// Points from a table, with the keys that it shares with the fits.
    fn table(path: &str, fits: &Fits) -> Result<Targets> {
        let source = Source::open(&[path.to_string()])?;
        let has = |name: &str| source.columns().iter().any(|column| column.name == name);
        let keys: Vec<String> = fits.keys.iter().filter(|key| has(key)).cloned().collect();
        let mut names: Vec<String> = Vec::new();
        for law in &fits.laws {
            let aliases = law.law.entry.map_or(&[][..], |entry| entry.inputs);
            let own = law.law.columns.iter().map(String::as_str);
            for name in own.chain(aliases.iter().copied()).chain(fits.weight_column()) {
                if has(name) && !names.iter().any(|known| known == name) {
                    names.push(name.to_string());
                }
            }
        }
        let selection = RowSelection { keys: keys.clone(), numbers: names.clone(), ..RowSelection::default() };
        let joiner = Joiner::new(&fits.source, &source, &keys)?;
        let mut points = Points { columns: vec![Vec::new(); names.len()], names };
        let mut rows_of: HashMap<Identity, Vec<u32>> = HashMap::new();
        let mut count = 0u32;
        for rows in RowReader::open(&source, &selection)? {
            let rows = rows?;
            for identity in joiner.identities(&rows.keys)? {
                rows_of.entry(identity).or_default().push(count);
                count += 1;
            }
            for (column, more) in points.columns.iter_mut().zip(rows.numbers) {
                column.extend(more);
            }
        }
        let joined = (!keys.is_empty()).then_some(Joined { rows: rows_of, keys, joiner });
        Ok(Targets { points, joined, all: (0..count).collect() })
    }

    /// How many points a fit usually meets.
    fn usual_points(&self) -> usize {
        match &self.joined {
            Some(joined) => self.all.len().div_ceil(joined.rows.len().max(1)),
            None => self.all.len(),
        }
    }

    /// Of points given one by one every name has to mean something, and each something else.
    fn require_known(&self, fits: &Fits) -> Result<()> {
        let means = |name: &str| {
            let is = |law: &FittedLaw| law.input(name).is_some() || law.law.columns.iter().any(|own| own == name);
            fits.laws.iter().any(is) || fits.weight_column() == Some(name)
        };
        if let Some(name) = self.points.names.iter().find(|name| !means(name)) {
            return Err(Error::Usage(format!(
                "--at: {name} is neither an input of a law in the table ({}) nor its response or weight",
                decision::input_names(fits).join(", ")
            )));
        }
        for law in &fits.laws {
            for (k, name) in self.points.names.iter().enumerate() {
                let same = |other: &&String| law.input(other).is_some() && law.input(other) == law.input(name);
                if let Some(other) = self.points.names[..k].iter().find(same) {
                    return Err(Error::Usage(format!("--at: {other} and {name} are one input of {}", law.law.name)));
                }
            }
        }
        Ok(())
    }

    fn require_matches(&self, rows: u64) -> Result<()> {
        match &self.joined {
            Some(joined) if rows == 0 && !joined.rows.is_empty() => Err(Error::Usage(format!(
                "--at: no row of the table has the key of a fit (compared: {})",
                joined.keys.join(", ")
            ))),
            _ => Ok(()),
        }
    }
}

/// The table of predictions.
struct Table<'a> {
    fits: &'a Fits,
    targets: &'a Targets,
    forecaster: &'a Forecaster,
    /// Names of the input columns, and for each law the points' column of each.
    inputs: Vec<(String, Vec<Option<usize>>)>,
    averages: bool,
}

impl<'a> Table<'a> {
    fn new(fits: &'a Fits, targets: &'a Targets, forecaster: &'a Forecaster) -> Table<'a> {
        let names = decision::input_names(fits);
        let place = |law: usize, name: &String| {
            let position = fits.laws[law].input_names().iter().position(|own| own == name)?;
            forecaster.input_column(law, position)
        };
        let inputs = names.into_iter().map(|name| {
            let places = (0..fits.laws.len()).map(|law| place(law, &name)).collect();
            (name, places)
        });
        Table { fits, targets, forecaster, inputs: inputs.collect(), averages: fits.has_evidence }
    }

    fn columns(&self) -> Vec<(String, OutputKind)> {
        let mut columns = vec![("law".to_string(), OutputKind::Text)];
        let observed: &[&str] = if self.forecaster.knows_observed() { &["observed", "relative_error"] } else { &[] };
        let answers = ["predicted", "mean_lo", "mean_hi", "new_lo", "new_hi"];
        let numbers = self.inputs.iter().map(|(name, _)| name.as_str()).chain(answers).chain(observed.iter().copied());
        columns.extend(numbers.map(|name| (name.to_string(), OutputKind::Number)));
        columns
    }

    /// The rows of a part of the fits: the row of the part whose key each has, and the values.
    fn fill(&self, part: &FitBatch, tally: &mut Tally) -> Result<(Vec<u32>, Vec<Values>)> {
        let laws = self.fits.laws.len();
        let identities = match &self.targets.joined {
            Some(joined) => Some(joined.joiner.identities(&part.keys)?),
            None => None,
        };
        let points_of = |row: usize| match (&self.targets.joined, &identities) {
            (Some(joined), Some(identities)) => joined.rows.get(&identities[row]).map_or(&[][..], Vec::as_slice),
            _ => self.targets.all.as_slice(),
        };
        let questions: Vec<(u32, u32)> =
            (0..part.rows.len()).flat_map(|row| points_of(row).iter().map(move |&point| (row as u32, point))).collect();
        let mut answers = self.forecaster.answer(&part.rows, &self.targets.points, &questions);
        let mut law: Vec<usize> = questions.iter().map(|&(row, _)| part.rows[row as usize].law).collect();
        let mut asked = questions;
        if self.averages {
            let complete = |group: &[Fitted]| group.iter().map(|row| row.law).eq(0..laws);
            if !part.rows.chunks(laws).all(complete) {
                return Err(Error::Usage(
                    "laws are averaged by their evidence, and here a key lacks the row of a law: give the whole table of fits"
                        .into(),
                ));
            }
            (asked, law, answers) = self.with_averages(part, asked, answers, laws);
        }
        let names: Vec<std::sync::Arc<str>> = decision::law_names(self.fits, "average");
        let mut values = vec![Values::Text(law.iter().map(|&law| names[law].clone()).collect())];
        for (_, places) in &self.inputs {
            // The average has the inputs of all.
            let place = |law: usize| places.get(law).copied().flatten().or(places.iter().flatten().next().copied());
            let value = |(&law, &(_, point)): (&usize, &(u32, u32))| {
                place(law).map_or(f64::NAN, |place| self.targets.points.columns[place][point as usize])
            };
            values.push(Values::Number(law.iter().zip(&asked).map(value).collect()));
        }
        let mut number = |of: &dyn Fn(&Answer) -> f64| values.push(Values::Number(answers.iter().map(of).collect()));
        number(&|answer| answer.predicted);
        number(&|answer| answer.mean[0]);
        number(&|answer| answer.mean[1]);
        number(&|answer| answer.new[0]);
        number(&|answer| answer.new[1]);
        if self.forecaster.knows_observed() {
            number(&|answer| answer.observed);
            number(&|answer| answer.predicted / answer.observed - 1.0);
        }
        let has_fit = |row: usize| part.rows[row].parameters.iter().all(|value| value.is_finite());
        for ((answer, &law), &(row, _)) in answers.iter().zip(&law).zip(&asked) {
            let row = row as usize;
            // Of an average the key's first law is on record, and any of them will do.
            let fitted = if law == laws { (row..row + laws).any(has_fit) } else { has_fit(row) };
            tally.take(answer, fitted);
        }
        Ok((asked.iter().map(|&(row, _)| row).collect(), values))
    }

    /// Rows of the average behind those of each key's laws.
    fn with_averages(
        &self,
        part: &FitBatch,
        questions: Vec<(u32, u32)>,
        answers: Vec<Answer>,
        laws: usize,
    ) -> (Vec<(u32, u32)>, Vec<usize>, Vec<Answer>) {
        let (mut asked, mut law, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for group in questions
            .iter()
            .copied()
            .zip(answers)
            .collect::<Vec<_>>()
            .chunk_by(|((a, _), _), ((b, _), _)| *a as usize / laws == *b as usize / laws)
        {
            for ((row, point), answer) in group {
                asked.push((*row, *point));
                law.push(part.rows[*row as usize].law);
                all.push(*answer);
            }
            let first = group[0].0.0 as usize / laws * laws;
            let points = group.len() / laws;
            for at in 0..points {
                let each: Vec<Answer> = (0..laws).map(|law| group[law * points + at].1).collect();
                asked.push((first as u32, group[at].0.1));
                law.push(laws);
                all.push(self.forecaster.average(&part.rows[first..first + laws], &each));
            }
        }
        (asked, law, all)
    }
}

/// What came out.
#[derive(Debug, Default)]
struct Tally {
    rows: u64,
    /// Predictions of fits without parameters, and others that are not finite.
    without_fit: u64,
    out_of_domain: u64,
    /// Predictions without an interval.
    bare: u64,
    observed: u64,
    covered: u64,
    /// Rows with an interval and an observation.
    judged: u64,
}

impl Tally {
    fn take(&mut self, answer: &Answer, fitted: bool) {
        self.rows += 1;
        self.without_fit += u64::from(!fitted);
        self.out_of_domain += u64::from(fitted && !answer.predicted.is_finite());
        self.bare += u64::from(answer.predicted.is_finite() && !answer.new[0].is_finite());
        self.observed += u64::from(answer.observed.is_finite());
        if answer.observed.is_finite() && answer.new[0].is_finite() {
            self.judged += 1;
            self.covered += u64::from(answer.new[0] <= answer.observed && answer.observed <= answer.new[1]);
        }
    }

    fn report(&self, level: f64) -> String {
        let mut text = format!("{} predictions\n", self.rows);
        for (rows, reason) in [
            (self.without_fit, "the curve could not be fitted (see status in FITS)"),
            (self.out_of_domain, "the point lies outside the law's domain"),
        ] {
            if rows > 0 {
                text += &format!("note: {rows} are null: {reason}\n");
            }
        }
        if self.bare > 0 {
            text += &format!("note: {} have no interval for a new measurement\n", self.bare);
        }
        if self.judged > 0 {
            text += &format!(
                "{:.0}% intervals for a new measurement hold {} of {} observed values ({:.1}%)\n",
                100.0 * level,
                self.covered,
                self.judged,
                100.0 * self.covered as f64 / self.judged as f64
            );
        }
        text
    }
}
