//! `sweepfit allocate`: a table of fits, or raw measurements, and budgets to a table of compute-optimal allocations.

use super::decision::{self, Output};
use super::{level, number};
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use std::sync::Arc;
use sweepfit::evaluate::tape::{Tape, map_columns};
use sweepfit::formula::graph::Graph;
use sweepfit::formula::parse::parse_filter;
use sweepfit::law::expression;
use sweepfit::statistics::allocation::{Allocation, Allocator, Estimate};
use sweepfit::statistics::fits::{Draws, FitBatch, Fits, Fitted};
use sweepfit::statistics::frontier::{Frontier, Measured};
use sweepfit::statistics::{allocation, frontier};
use sweepfit::table::{self, Event, OutputKind, ReadOptions, Selection, Source, Values};
use sweepfit::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  # The best model for two budgets, from a fitted law; what 20 tokens per parameter and a
  # given size would cost in loss
  sweepfit fit runs.parquet --law chinchilla --x params,tokens --y loss --covariance \\
    -o fits.parquet
  sweepfit allocate fits.parquet --flops 1e24,1e25 --rule D=20*N --rule N=7e10 -o plan.parquet

  # From raw isoFLOP measurements, without a law
  sweepfit allocate runs.parquet --method isoflop --x params,tokens --y loss \\
    --flops 1e24 -o plan.parquet

Columns: the keys, law, flops, then under their column names both inputs, predicted, ratio
(second input over the first) and <input>_exponent (d log input / d log budget), each with
_lo and _hi; regret per rule: what following it adds to the predicted value (regret for one
rule, regret_1, regret_2, … in the order given for several). Where law is chinchilla and the
cost k*N*D, also G of the closed form N = G*(flops/k)^a, D = (flops/k)^b/G, a and b being
the exponents.";

/// Divide a budget between the two inputs of a law
///
/// For every fit and budget the inputs of least predicted loss among those that cost the budget, with intervals.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = "Examples: see --help")]
pub struct Allocate {
    /// The Parquet table that `fit --covariance` wrote; the measurements themselves with --method isoflop or envelope
    #[arg(value_name = "FITS", required = true)]
    inputs: Vec<String>,
    /// Budgets, in the unit of the cost
    #[arg(long, value_name = "BUDGET,…", required = true, value_delimiter = ',', value_parser = budget)]
    flops: Vec<f64>,
    /// What a pair of inputs costs: a formula of both, under their columns' names or a built-in law's own
    /// [default: 6 times their product]
    #[arg(long, value_name = "FORMULA")]
    cost: Option<String>,
    /// A rule whose regret is reported: one input as a formula of the other, or a value; repeatable
    /// [default: 20 of the second input for each of the first]
    #[arg(long = "rule", value_name = "INPUT=FORMULA")]
    rules: Vec<String>,
    /// The level of the intervals
    #[arg(long, value_name = "LEVEL", default_value = "0.95", value_parser = level)]
    level: f64,
    /// Intervals from draws of the parameters: FITS's keys, law, replicate and a column per parameter
    #[arg(long, value_name = "FILE")]
    draws: Option<String>,
    /// Take fits without covariances, and leave out the intervals that would need them
    #[arg(long, conflicts_with = "draws")]
    no_intervals: bool,

    /// Where the optimum comes from: the fitted law, or raw measurements
    #[arg(long, value_enum, default_value_t = Method::Law, help_heading = "From raw measurements")]
    method: Method,
    /// Both inputs of the measurements
    #[arg(long, value_name = "COL,COL", value_delimiter = ',', help_heading = "From raw measurements")]
    x: Vec<String>,
    /// Their loss
    #[arg(long, value_name = "COL", help_heading = "From raw measurements")]
    y: Option<String>,
    /// The key columns; a frontier for each key
    #[arg(long, value_name = "COL,…", value_delimiter = ',', help_heading = "From raw measurements")]
    by: Vec<String>,
    /// Rows to keep
    #[arg(long = "where", value_name = "EXPR", help_heading = "From raw measurements")]
    filter: Option<String>,
    /// The column of budgets, where it is not to be computed by --cost
    #[arg(long, value_name = "COL", help_heading = "From raw measurements")]
    budget: Option<String>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The least value of the fitted law along the cost
    Law,
    /// A parabola per budget, then straight lines in log-log
    Isoflop,
    /// The runs that no cheaper one equals, then straight lines in log-log
    Envelope,
}

/// Rows that are allocated side by side by one task.
const ROWS: usize = 64;

fn budget(text: &str) -> std::result::Result<f64, String> {
    let budget = number(text)?;
    if budget > 0.0 { Ok(budget) } else { Err("a budget is above 0, as in 1e24".into()) }
}

impl Allocate {
    /// Allocates and writes.
    pub fn run(&self) -> Result<()> {
        match self.method {
            Method::Law => self.by_law(),
            Method::Isoflop => self.by_measurements(frontier::Method::Isoflop),
            Method::Envelope => self.by_measurements(frontier::Method::Envelope),
        }
    }

    /// Looks whether it could be done, without allocating.
    pub fn check(&self) -> Result<()> {
        match self.method {
            Method::Law => {
                let (_, fits) = self.fits()?;
                self.allocators(&fits)?;
                if let Some(path) = &self.draws {
                    Draws::open(path, &fits)?;
                }
            }
            Method::Isoflop | Method::Envelope => drop(Source::open(&self.inputs)?),
        }
        self.output.check()
    }

    /// The table of fits, and its path.
    fn fits(&self) -> Result<(&String, Fits)> {
        let raw_only = [(!self.x.is_empty(), "--x"), (self.y.is_some(), "--y"), (self.budget.is_some(), "--budget")];
        if let Some((_, option)) = raw_only.iter().find(|(given, _)| *given) {
            return Err(Error::Usage(format!("{option} is for raw measurements: add --method isoflop or envelope")));
        }
        let [path] = self.inputs.as_slice() else {
            return Err(Error::Usage("allocate takes one table of fits; allocate others apart".into()));
        };
        let fits = Fits::open(path)?;
        if !self.no_intervals && self.draws.is_none() {
            decision::require_covariance(&fits, path, decision::REPAIR)?;
        }
        Ok((path, fits))
    }

    fn by_law(&self) -> Result<()> {
        let (path, fits) = self.fits()?;
        let laws = self.allocators(&fits)?;
        let pool = self.output.pool()?;
        let mut draws = self.draws.as_ref().map(|path| Draws::open(path, &fits)).transpose()?;
        let reader = fits.read()?;
        let names = input_columns(&fits, &laws);
        let has_scale = laws.iter().flatten().any(Allocator::has_closed_form);
        let table = Table { inputs: &names, rules: self.rules(), has_scale };
        let mut writer = self.output.writer(path, reader.key_schema(), &table.columns())?;
        let (mut count, mut lost, mut unfollowed) = (0, 0, vec![0; self.rules()]);
        for batch in reader {
            let batch = batch?;
            for first in (0..batch.rows.len()).step_by(4096) {
                let mut part = batch.slice(first..batch.rows.len().min(first + 4096));
                if let Some(draws) = &mut draws {
                    draws.join(&mut part)?;
                }
                let (keys, rows) = pool.install(|| self.allocate(&fits, &laws, &part));
                lost += rows.iter().filter(|row| !row.allocation.predicted[0].is_finite()).count();
                for allocation in rows.iter().map(|row| &row.allocation).filter(|own| own.predicted[0].is_finite()) {
                    let regrets = unfollowed.iter_mut().zip(&allocation.regret);
                    regrets.for_each(|(count, regret)| *count += usize::from(!regret.is_finite()));
                }
                count += rows.len();
                writer.write(&part.keys.take(&keys), 1, table.fill(&rows))?;
            }
        }
        if let Some(draws) = &mut draws {
            draws.finish()?;
        }
        writer.finish(&self.metadata(&[("fits", path.clone())]))?;
        self.output.say(&format!("{count} allocations\n"));
        if lost > 0 {
            self.output.say(&format!(
                "note: {lost} are null: no fit, or no lowest point along the cost with inputs between 1e-9 and 1e40 (a law \
                 may keep falling towards one end, a cost may not rise with both inputs)\n"
            ));
        }
        for (rule, count) in self.rules.iter().zip(unfollowed).filter(|(_, count)| *count > 0) {
            self.output.say(&format!("note: {count} budgets cannot be spent by the rule {rule}: no regret\n"));
        }
        Ok(())
    }

    /// One allocator per law of two inputs.
    fn allocators(&self, fits: &Fits) -> Result<Vec<Option<Allocator>>> {
        let mut laws = Vec::with_capacity(fits.laws.len());
        for fitted in &fits.laws {
            let names = fitted.input_names();
            let [first, second] = names[..] else {
                if fits.laws.len() > 1 {
                    self.output.say(&format!(
                        "note: law {} has {} input(s) and is left out: a budget is divided between two\n",
                        fitted.law.name,
                        names.len()
                    ));
                    laws.push(None);
                    continue;
                }
                laws.push(Some(Allocator::new(fitted, fits.objective.space, "1", &[])?));
                continue;
            };
            let cost = self.cost.clone().unwrap_or_else(|| format!("6*`{first}`*`{second}`"));
            let rules = match self.rules.as_slice() {
                [] => vec![format!("{} = 20*`{first}`", quoted(second))],
                rules => rules.to_vec(),
            };
            self.output.say(&format!("{}: cost {cost}, ratio {second}/{first}\n", fitted.law.name));
            laws.push(Some(Allocator::new(fitted, fits.objective.space, &cost, &rules)?));
        }
        if laws.iter().all(Option::is_none) {
            return Err(Error::Usage("no law of the table has two inputs to divide a budget between".into()));
        }
        Ok(laws)
    }

    /// How many regrets there are.
    fn rules(&self) -> usize {
        self.rules.len().max(1)
    }

    fn allocate(&self, fits: &Fits, laws: &[Option<Allocator>], part: &FitBatch) -> (Vec<u32>, Vec<Row>) {
        let names = decision::law_names(fits, "");
        let budgets = &self.flops;
        let asked: Vec<(u32, f64)> = (0..part.rows.len())
            .filter(|&row| laws[part.rows[row].law].is_some())
            .flat_map(|row| budgets.iter().map(move |&budget| (row as u32, budget)))
            .collect();
        let mut rows: Vec<Option<Allocation>> = vec![None; asked.len()];
        for (law, allocator) in laws.iter().enumerate() {
            let Some(allocator) = allocator else { continue };
            let mine: Vec<usize> = (0..asked.len()).filter(|&at| part.rows[asked[at].0 as usize].law == law).collect();
            let found: Vec<Allocation> = mine
                .par_chunks(ROWS)
                .flat_map_iter(|mine| {
                    let fitted: Vec<&Fitted> = mine.iter().map(|&at| &part.rows[asked[at].0 as usize]).collect();
                    let budgets: Vec<f64> = mine.iter().map(|&at| asked[at].1).collect();
                    allocator.allocate(&fitted, &budgets, self.level)
                })
                .collect();
            for (at, found) in mine.into_iter().zip(found) {
                rows[at] = Some(found);
            }
        }
        let rows = rows.into_iter().zip(&asked).map(|(allocation, &(row, budget))| Row {
            law: names[part.rows[row as usize].law].clone(),
            group: part.rows[row as usize].law,
            budget,
            allocation: allocation.expect("every law that is asked has an allocator"),
        });
        (asked.iter().map(|&(row, _)| row).collect(), rows.collect())
    }

    fn by_measurements(&self, method: frontier::Method) -> Result<()> {
        let [first, second] = self.x.as_slice() else {
            return Err(Error::Usage(format!("--method {}: name both inputs with --x COL,COL", method.name())));
        };
        let Some(y) = &self.y else {
            return Err(Error::Usage(format!("--method {}: name the loss with --y COL", method.name())));
        };
        if self.draws.is_some() || !self.rules.is_empty() {
            return Err(Error::Usage(
                "--draws and --rule need a fitted law: leave them out, or leave --method out".into(),
            ));
        }
        let filter =
            self.filter.as_ref().map(|text| Ok::<_, Error>((text.clone(), parse_filter(text)?))).transpose()?;
        let source = Source::open(&self.inputs)?;
        let mut numbers = vec![first.clone(), second.clone(), y.clone()];
        numbers.extend(self.budget.clone());
        let cost = self.cost_of_columns(first, second)?;
        let options = ReadOptions::default();
        let reader = table::read(&source, &Selection { keys: self.by.clone(), numbers, filter }, &options)?;
        let names = vec![[first.clone(), second.clone()]];
        let table = Table { inputs: &names, rules: 0, has_scale: false };
        let schema = reader.key_schema().clone();
        let mut writer = self.output.writer(&self.inputs[0], &schema, &table.columns())?;
        let (mut few, mut keys_seen) = (0, 0);
        let name: Arc<str> = Arc::from(method.name());
        for event in reader {
            let batch = match event? {
                Event::Batch(batch) => batch,
                Event::Restarted => {
                    writer = self.output.writer(&self.inputs[0], &schema, &table.columns())?;
                    (few, keys_seen) = (0, 0);
                    continue;
                }
            };
            let columns: Vec<&[f64]> = batch.curves.columns.iter().map(Vec::as_slice).collect();
            let computed = match &self.budget {
                Some(_) => columns[3].to_vec(),
                None => map_columns(&cost, &columns[..2], batch.curves.rows()).swap_remove(0),
            };
            let measured = Measured { inputs: [columns[0], columns[1]], loss: columns[2], cost: &computed };
            let frontiers = Frontier::of(&batch.curves, measured, method);
            few += frontiers.iter().filter(|frontier| frontier.optima < 3).count();
            keys_seen += frontiers.len();
            let rows: Vec<Row> = frontiers
                .iter()
                .flat_map(|frontier| self.flops.iter().map(move |&budget| (frontier, budget)))
                .map(|(frontier, budget)| Row {
                    law: name.clone(),
                    group: 0,
                    budget,
                    allocation: frontier.allocation(budget, self.level),
                })
                .collect();
            writer.write(&batch.keys, self.flops.len(), table.fill(&rows))?;
        }
        writer.finish(&self.metadata(&[("inputs", self.inputs.join(" ")), ("bias", method.bias().to_string())]))?;
        self.output.say(&format!("note: {}\n", method.bias()));
        self.output.say("note: the predicted value is a straight line in log-log, without a floor\n");
        if few > 0 {
            self.output.say(&format!(
                "note: {few} of {keys_seen} frontiers have fewer than three optima, and so no interval (fewer than two: no \
                 line)\n"
            ));
        }
        Ok(())
    }

    /// The cost as a tape over the two columns.
    fn cost_of_columns(&self, first: &str, second: &str) -> Result<Tape> {
        let names = [(first.to_string(), 0), (second.to_string(), 1)];
        let cost = self.cost.clone().unwrap_or_else(|| format!("6*`{first}`*`{second}`"));
        let mut graph = Graph::default();
        let id = expression(&mut graph, &cost, &names)?;
        Ok(Tape::compile(&graph, &[id], 0))
    }

    fn metadata(&self, more: &[(&str, String)]) -> Vec<(String, String)> {
        let budgets: Vec<String> = self.flops.iter().map(ToString::to_string).collect();
        let entries = [
            ("method", format!("{:?}", self.method).to_lowercase()),
            ("flops", budgets.join(",")),
            ("cost", self.cost.clone().unwrap_or_else(|| "6 times the product of the inputs".into())),
            ("rules", if self.rules.is_empty() { "20 per unit of the first".into() } else { self.rules.join("\n") }),
            ("level", self.level.to_string()),
        ];
        decision::metadata("allocate", &[&entries[..], more].concat())
    }
}

/// A name as formulas write it.
fn quoted(name: &str) -> String {
    format!("`{name}`")
}

/// The input columns of each law that divides a budget.
fn input_columns(fits: &Fits, laws: &[Option<Allocator>]) -> Vec<[String; 2]> {
    let names =
        fits.laws.iter().zip(laws).map(|(fitted, allocator)| match (fitted.input_names().as_slice(), allocator) {
            ([first, second], Some(_)) => [first.to_string(), second.to_string()],
            _ => [String::new(), String::new()],
        });
    names.collect()
}

/// One row of the output.
struct Row {
    law: Arc<str>,
    /// Which pair of inputs it has.
    group: usize,
    budget: f64,
    allocation: Allocation,
}

/// The columns of the output.
struct Table<'a> {
    /// The names of the inputs, by group.
    inputs: &'a [[String; 2]],
    rules: usize,
    /// Whether G of a closed form is written.
    has_scale: bool,
}

impl Table<'_> {
    /// The inputs of all groups, each once.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.inputs.iter().flatten().map(String::as_str).filter(|name| !name.is_empty()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn columns(&self) -> Vec<(String, OutputKind)> {
        let names = self.names();
        let mut columns = vec![("law".to_string(), OutputKind::Text), ("flops".to_string(), OutputKind::Number)];
        let exponents = names.iter().map(|name| format!("{name}_exponent"));
        let estimates = names.iter().map(ToString::to_string);
        for name in estimates.chain(["predicted".into(), "ratio".into()]).chain(exponents) {
            columns.extend(["", "_lo", "_hi"].map(|end| (format!("{name}{end}"), OutputKind::Number)));
        }
        let regret = |rule: usize| if self.rules == 1 { "regret".into() } else { format!("regret_{}", rule + 1) };
        columns.extend((0..self.rules).map(|rule| (regret(rule), OutputKind::Number)));
        if self.has_scale {
            columns.extend(["G", "G_lo", "G_hi"].map(|name| (name.to_string(), OutputKind::Number)));
        }
        columns
    }

    fn fill(&self, rows: &[Row]) -> Vec<Values> {
        let mut values = vec![
            Values::Text(rows.iter().map(|row| row.law.clone()).collect()),
            Values::Number(rows.iter().map(|row| row.budget).collect()),
        ];
        let mut estimate = |of: &dyn Fn(&Row) -> allocation::Estimate| {
            for end in 0..3 {
                values.push(Values::Number(rows.iter().map(|row| of(row)[end]).collect()));
            }
        };
        let names = self.names();
        let own = |row: &Row, name: &str, of: &[Estimate; 2]| {
            let position = self.inputs[row.group].iter().position(|own| own == name);
            position.map_or([f64::NAN; 3], |position| of[position])
        };
        for name in &names {
            estimate(&|row| own(row, name, &row.allocation.inputs));
        }
        estimate(&|row| row.allocation.predicted);
        estimate(&|row| row.allocation.ratio);
        for name in &names {
            estimate(&|row| own(row, name, &row.allocation.exponents));
        }
        for rule in 0..self.rules {
            values.push(Values::Number(rows.iter().map(|row| row.allocation.regret[rule]).collect()));
        }
        if self.has_scale {
            let end = |end: usize| Values::Number(rows.iter().map(|row| row.allocation.scale[end]).collect());
            values.extend((0..3).map(end));
        }
        values
    }
}
