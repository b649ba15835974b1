//! `sweepfit next`: a table of fits, a target and a budget to the runs that make the forecast surer.

use super::decision::{self, Output, grid};
use super::number;
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use std::process::ExitCode;
use sweepfit::Error;
use sweepfit::evaluate::tape::{Tape, map_columns};
use sweepfit::formula::graph::Graph;
use sweepfit::law::expression;
use sweepfit::statistics::design::{Criterion, Question, Rank, Run, Silence, next_runs, surfaces};
use sweepfit::statistics::fits::{Fits, FittedLaw, Weighting};
use sweepfit::table::{OutputKind, Values};

const EXAMPLE: &str = "\
Example:
  sweepfit fit runs.parquet --law chinchilla --x params,tokens --y loss --covariance \\
    -o fits.parquet
  sweepfit next fits.parquet --target N=7e10,D=1.4e12 --budget 1e22 -o runs.parquet

Columns: the keys, law, step (1 is the run to make first), the inputs, cost, spent (this run
and those before it), sd_before and sd_after (standard deviation of the forecast at the
target, in the space of the fit: relative in log space), and reduction (share of its variance
that the run removes).";

/// Say which measurement to make next
///
/// Chooses among candidates, one run after the other, the one that most reduces the variance of the forecast at the target
/// for its cost. Rests on the covariance: on the law being right and errors independent.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE, after_help = "Example: see --help")]
pub struct Next {
    /// The Parquet table that `fit --covariance` wrote
    #[arg(value_name = "FITS")]
    fits: String,
    /// Where the forecast shall become surer: INPUT=VALUE,…
    #[arg(long, value_name = "POINT")]
    target: String,
    /// What all runs together may cost
    #[arg(long, value_name = "BUDGET", value_parser = number)]
    budget: f64,
    /// What a run costs: a formula of the inputs [default: 6 times the product of two inputs]
    #[arg(long, value_name = "FORMULA")]
    cost: Option<String>,
    /// Where runs could be made: a geometric axis per input, both ends included
    /// [default: 24 cells from a thousandth of the target to the target]
    #[arg(long = "candidates", value_name = "INPUT=LO:HI:CELLS", value_parser = grid)]
    candidates: Vec<(String, [f64; 2], usize)>,
    /// At most so many runs
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// What shall become surer
    #[arg(long, value_enum, default_value_t = Improve::Forecast)]
    improve: Improve,
    /// Which run comes first: the best for its cost, or the best that the budget allows
    #[arg(long, value_enum, default_value_t = By::Cost)]
    rank: By,
    /// Standard deviation of a new measurement in the space of the fit [default: the fit's own scatter]
    #[arg(long, value_name = "SD", value_parser = number)]
    noise: Option<f64>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Improve {
    /// The forecast at the target (V-optimal)
    Forecast,
    /// All parameters together (D-optimal)
    Parameters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Cost,
    Run,
}

/// Cells of an axis of candidates, and how far below the target it begins.
const CELLS: usize = 24;
const BELOW: f64 = 1e-3;
/// More candidates than these only cost time.
const MOST_CANDIDATES: usize = 1 << 16;

/// Why a fit gets no run, in words.
const SILENCES: [(Silence, &str); 3] = [
    (Silence::NoCovariance, "no fit, or no covariance, for want of points or of what determines the parameters"),
    (Silence::NoForecast, "the target lies outside the law's domain, or its forecast is exact to rounding"),
    (Silence::NoCandidate, "no candidate is within the budget and would help"),
];

impl Next {
    /// Designs and writes.
    pub fn run(self) -> sweepfit::Result<ExitCode> {
        let fits = Fits::open(&self.fits)?;
        decision::require_covariance(&fits, &self.fits, "fit the sweep again with --covariance")?;
        if fits.weighting != Weighting::Even && self.noise.is_none() {
            return Err(Error::Usage(format!(
                "the fits are weighted by column {}, and nobody knows the weight of a run not made: give its standard \
                 deviation with --noise",
                fits.weight_column().unwrap_or_default()
            )));
        }
        if self.budget <= 0.0 || self.noise.is_some_and(|noise| noise <= 0.0) {
            return Err(Error::Usage("--budget and --noise are above 0".into()));
        }
        let target = decision::point("--target", &self.target)?;
        let questions =
            fits.laws.iter().map(|law| self.question(law, &target)).collect::<sweepfit::Result<Vec<_>>>()?;
        let surfaces = surfaces(&fits);
        let names = decision::input_names(&fits);
        let laws = decision::law_names(&fits, "");
        let pool = self.output.pool()?;
        let reader = fits.read()?;
        let mut writer = self.output.writer(&self.fits, reader.key_schema(), &columns(&names))?;
        let (mut rows, mut asked, mut silent) = (0, 0, [0; SILENCES.len()]);
        for batch in reader {
            let batch = batch?;
            let designs: Vec<Result<Vec<Run>, Silence>> = pool.install(|| {
                let each = batch.rows.par_iter().with_min_len(16);
                each.map(|fit| next_runs(&surfaces[fit.law], fit, &questions[fit.law])).collect()
            });
            asked += designs.len();
            for (count, (silence, _)) in silent.iter_mut().zip(SILENCES) {
                *count += designs.iter().filter(|design| **design == Err(silence)).count();
            }
            let all: Vec<(u32, usize, Run)> = designs
                .iter()
                .enumerate()
                .flat_map(|(row, runs)| {
                    runs.iter().flatten().enumerate().map(move |(step, run)| (row as u32, step, *run))
                })
                .collect();
            rows += all.len();
            let law = |row: u32| batch.rows[row as usize].law;
            let number = |of: &dyn Fn(&(u32, usize, Run)) -> f64| Values::Number(all.iter().map(of).collect());
            let cost = |(row, _, run): &(u32, usize, Run)| questions[law(*row)].cost[run.candidate];
            let mut values = vec![
                Values::Text(all.iter().map(|(row, ..)| laws[law(*row)].clone()).collect()),
                Values::Count(all.iter().map(|(_, step, _)| Some(*step as u32 + 1)).collect()),
            ];
            for name in &names {
                values.push(number(&|(row, _, run)| {
                    let own = fits.laws[law(*row)].input_names().iter().position(|own| own == name);
                    own.map_or(f64::NAN, |k| questions[law(*row)].candidates[k][run.candidate])
                }));
            }
            values.push(number(&cost));
            let mut spent = 0.0;
            let sums = all.iter().map(|entry| {
                spent = if entry.1 == 0 { 0.0 } else { spent } + cost(entry);
                spent
            });
            values.push(Values::Number(sums.collect()));
            values.push(number(&|(.., run)| run.before));
            values.push(number(&|(.., run)| run.after));
            values.push(number(&|(.., run)| 1.0 - (run.after / run.before).powi(2)));
            let keys: Vec<u32> = all.iter().map(|(row, ..)| *row).collect();
            writer.write(&batch.keys.take(&keys), 1, &values)?;
        }
        writer.finish(&decision::metadata(
            "next",
            &[
                ("fits", self.fits.clone()),
                ("target", self.target.clone()),
                ("budget", self.budget.to_string()),
                ("cost", self.cost.clone().unwrap_or_else(|| "6 times the product of the inputs".into())),
                ("improve", format!("{:?}", self.improve).to_lowercase()),
                ("rank", format!("{:?}", self.rank).to_lowercase()),
            ],
        ))?;
        self.output.say(&format!("{rows} runs for {} of {asked} fits\n", asked - silent.iter().sum::<usize>()));
        for (count, (_, reason)) in silent.into_iter().zip(SILENCES).filter(|(count, _)| *count > 0) {
            self.output.say(&format!("note: none for {count}: {reason}\n"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn question(&self, law: &FittedLaw, target: &[(String, f64)]) -> sweepfit::Result<Question> {
        let names = law.input_names();
        let at = |position: usize| {
            let exact = target.iter().find(|(name, _)| name == names[position]);
            exact.or_else(|| target.iter().find(|(name, _)| law.input(name) == Some(position)))
        };
        let mut goal = Vec::with_capacity(names.len());
        let mut axes: Vec<Vec<f64>> = Vec::with_capacity(names.len());
        for (position, name) in names.iter().enumerate() {
            let Some(&(_, value)) = at(position) else {
                return Err(Error::Column {
                    column: name.to_string(),
                    message: format!(
                        "is an input of law {} and has no value in --target {}",
                        law.law.name, self.target
                    ),
                });
            };
            goal.push(value);
            let given = self.candidates.iter().find(|(given, ..)| law.input(given) == Some(position));
            let ([low, high], cells) = match given {
                Some((_, ends, cells)) => (*ends, *cells),
                None if value > 0.0 => ([BELOW * value, value], CELLS),
                None => {
                    return Err(Error::Usage(format!(
                        "--target {}: no geometric axis leads to {name} = {value}; give --candidates {name}=LO:HI:CELLS",
                        self.target
                    )));
                }
            };
            let share = |cell: usize| if cells > 1 { cell as f64 / (cells - 1) as f64 } else { 0.0 };
            axes.push((0..cells).map(|cell| (low.ln() + (high / low).ln() * share(cell)).exp()).collect());
        }
        for (given, ..) in &self.candidates {
            if law.input(given).is_none() {
                return Err(Error::Usage(format!(
                    "--candidates {given}: law {} has inputs {}",
                    law.law.name,
                    names.join(", ")
                )));
            }
        }
        let count: usize = axes.iter().map(Vec::len).product();
        if count > MOST_CANDIDATES {
            return Err(Error::Usage(format!(
                "--candidates: {count} are more than {MOST_CANDIDATES}; give fewer CELLS"
            )));
        }
        let candidates: Vec<Vec<f64>> = (0..axes.len())
            .map(|d| {
                let faster: usize = axes[d + 1..].iter().map(Vec::len).product();
                (0..count).map(|point| axes[d][point / faster % axes[d].len()]).collect()
            })
            .collect();
        let columns: Vec<&[f64]> = candidates.iter().map(Vec::as_slice).collect();
        let cost = map_columns(&self.cost_of(law)?, &columns, count).swap_remove(0);
        if !cost.iter().any(|&cost| cost > 0.0 && cost.is_finite()) {
            return Err(Error::Usage(format!(
                "--cost {}: above 0 at none of the candidates",
                self.cost.as_deref().unwrap_or_default()
            )));
        }
        Ok(Question {
            target: goal,
            cost,
            candidates,
            budget: self.budget,
            most_runs: usize::from(self.runs),
            criterion: match self.improve {
                Improve::Forecast => Criterion::Forecast,
                Improve::Parameters => Criterion::Parameters,
            },
            rank: match self.rank {
                By::Cost => Rank::PerCost,
                By::Run => Rank::PerRun,
            },
            noise: self.noise,
        })
    }

    /// The cost as a tape over the law's inputs.
    fn cost_of(&self, law: &FittedLaw) -> sweepfit::Result<Tape> {
        let names = law.input_names();
        let text = match (&self.cost, names.as_slice()) {
            (Some(text), _) => text.clone(),
            (None, [first, second]) => format!("6*`{first}`*`{second}`"),
            (None, _) => {
                return Err(Error::Usage(format!(
                    "law {} has {} input(s) ({}): say what a run costs with --cost FORMULA",
                    law.law.name,
                    names.len(),
                    names.join(", ")
                )));
            }
        };
        let mut known: Vec<(String, usize)> = names.iter().map(|name| name.to_string()).zip(0..).collect();
        for alias in law.law.entry.map_or(&[][..], |entry| entry.inputs) {
            if let Some(position) = law.input(alias)
                && !names.contains(alias)
            {
                known.push((alias.to_string(), position));
            }
        }
        let mut graph = Graph::default();
        let id = expression(&mut graph, &text, &known)?;
        Ok(Tape::compile(&graph, &[id], 0))
    }
}

fn columns(inputs: &[String]) -> Vec<(String, OutputKind)> {
    let mut columns = vec![("law".to_string(), OutputKind::Text), ("step".to_string(), OutputKind::Count)];
    let numbers = inputs.iter().map(String::as_str);
    let numbers = numbers.chain(["cost", "spent", "sd_before", "sd_after", "reduction"]);
    columns.extend(numbers.map(|name| (name.to_string(), OutputKind::Number)));
    columns
}
