//! The table of fits, read again: laws, parameters, covariances, and draws of parameters.
//!
//! In: the Parquet file that `fit` wrote. Out: [`Fits`], its laws bound as they were fitted, and batch by batch one
//! [`Fitted`] per row. What the file says about itself comes from its `sweepfit.*` metadata, numbers from its columns.
//!
//! Draws of parameters (`--draws FILE`) lie in a table of their own, in the order of the fits: the key columns, `law`
//! (text), `replicate` (u32, from 0) and one f64 column per parameter under its name in the table of fits; null parameters
//! say that the replicate could not be fitted.

use crate::error::{Error, Result};
use crate::fit::judge::Verdicts;
use crate::fit::lanes::{at, triangle};
use crate::fit::pack::{self, Control, NamedControl, Plan};
use crate::fit::{Loss, Objective, Space};
use crate::formula::graph::Node;
use crate::law::{Law, Mapping, catalogue};
use crate::pipeline::{self, parameter_column};
use crate::table::rows::{Identity, Joiner, RowReader, RowSelection, Rows, metadata};
use crate::table::{KeySchema, Keys, Source};
use serde_json::Value;
use std::collections::BTreeMap;

/// A table of fits.
#[derive(Debug)]
pub struct Fits {
    pub source: Source,
    /// In the order in which each key's rows come.
    pub laws: Vec<FittedLaw>,
    /// The key columns.
    pub keys: Vec<String>,
    pub objective: Objective,
    pub weighting: Weighting,
    /// The filter that the rows of the sweep passed; empty where there was none.
    pub filter: String,
    /// Whether rows outside a law's domain were left out.
    pub drop_bad_rows: bool,
    /// Whether the table holds covariances.
    pub has_covariance: bool,
    /// Whether the table holds the laws' weights of evidence.
    pub has_evidence: bool,
}

/// A law as it was fitted.
#[derive(Debug, Clone)]
pub struct FittedLaw {
    pub law: Law,
    /// Positions in [`Law::columns`] of the columns that the right side uses.
    pub inputs: Vec<usize>,
    /// The parameters' columns.
    pub columns: Vec<String>,
    /// What the user said about parameters.
    pub controls: Vec<NamedControl>,
}

/// Where the weights of the fit came from, by column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weighting {
    Even,
    Weight(String),
    Sigma(String),
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Position in [`Fits::laws`].
    pub law: usize,
    /// Per parameter of the law, fixed ones included; NaN without a fit.
    pub parameters: Vec<f64>,
    /// Their covariance, a packed lower triangle; none where it is not known.
    pub covariance: Option<Vec<f64>>,
    /// Points less estimated parameters; NaN where nothing is left over.
    pub freedom: f64,
    /// Variance, in the fitting space, of a measurement of weight 1; NaN where it is not known.
    pub noise: f64,
    /// The law's weight among the laws of its curve; NaN without.
    pub evidence: f64,
    /// Sets of parameters, one after the other; empty without draws.
    pub draws: Vec<f64>,
}

/// Some consecutive rows of the table.
#[derive(Debug, Clone)]
pub struct FitBatch {
    pub keys: Keys,
    pub rows: Vec<Fitted>,
}

impl FitBatch {
    /// Some of the rows.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> FitBatch {
        let at: Vec<u32> = rows.clone().map(|row| row as u32).collect();
        FitBatch { keys: self.keys.take(&at), rows: self.rows[rows].to_vec() }
    }
}

impl Fitted {
    /// The fit of one curve, straight from its verdict; none where there is no fit.
    pub fn of(plan: &Plan, law: usize, verdicts: &Verdicts, curve: usize) -> Option<Fitted> {
        if !verdicts.status[curve].has_parameters() {
            return None;
        }
        let free = &plan.model.free;
        let value = |j: usize| {
            let found = |at: usize| verdicts.parameters[curve * free.len() + at];
            plan.fixed[j].or_else(|| free.iter().position(|&free| free == j).map(found)).unwrap_or(f64::NAN)
        };
        let freedom = Some(pipeline::freedom(plan, verdicts, curve)).filter(|freedom| *freedom > 0.0);
        let freedom = freedom.unwrap_or(f64::NAN);
        let known_sigma = matches!(plan.weighting, pack::Weighting::Sigma(_));
        let (points, objective) = (f64::from(verdicts.points[curve]), verdicts.objective[curve]);
        Some(Fitted {
            law,
            parameters: (0..plan.law.parameters.len()).map(value).collect(),
            covariance: Some(pipeline::covariance(plan, verdicts, curve)).filter(|packed| !packed.is_empty()),
            freedom,
            noise: noise(known_sigma, plan.objective.loss, objective, verdicts.rmse[curve], points, freedom),
            evidence: f64::NAN,
            draws: Vec::new(),
        })
    }
}

/// Variance, in the fitting space, of a measurement of weight 1.
fn noise(known_sigma: bool, loss: Loss, objective: f64, rmse: f64, points: f64, freedom: f64) -> f64 {
    match loss {
        _ if known_sigma => 1.0,
        Loss::Squares => 2.0 * objective / freedom,
        // Huber's objective is no sum of squares.
        Loss::Huber { .. } => rmse * rmse * points / freedom,
    }
}

impl FittedLaw {
    /// The names of the columns that the right side uses.
    pub fn input_names(&self) -> Vec<&str> {
        self.inputs.iter().map(|&k| self.law.columns[k].as_str()).collect()
    }

    /// The position among the inputs of what a user calls `name`: the column, or the catalogue's name for it.
    pub fn input(&self, name: &str) -> Option<usize> {
        let by_column = self.inputs.iter().position(|&k| self.law.columns[k] == name);
        by_column.or_else(|| {
            let entry = self.law.entry?;
            let position = entry.inputs.iter().position(|input| *input == name)?;
            // A catalogue law binds its inputs before anything else, in the catalogue's order.
            self.inputs.iter().position(|&k| k == position)
        })
    }
}

impl Fits {
    /// Opens a table of fits and binds its laws.
    ///
    /// # Errors
    /// A file that is no table of fits, or one whose metadata this version does not understand.
    pub fn open(path: &str) -> Result<Fits> {
        let source = Source::open(&[path.to_string()])?;
        let file = source.files().first().cloned().unwrap_or_default();
        let failed = |message: String| Error::Input { file: file.clone(), message };
        let metadata = metadata(&source);
        let entry = |key: &str| metadata.get(&format!("sweepfit.{key}")).map(String::as_str);
        let Some(cards) = entry("laws") else {
            return Err(failed(
                "is no table of fits: it lacks the `sweepfit.*` metadata that `sweepfit fit … -o fits.parquet` writes \
                 (CSV and Arrow IPC have no room for it)"
                    .into(),
            ));
        };
        let foreign =
            |what: &str| failed(format!("its metadata says nothing usable about {what}; fit the sweep again"));
        let cards: Vec<Value> = serde_json::from_str(cards).map_err(|_| foreign("the laws"))?;
        let mut bound = Vec::with_capacity(cards.len());
        for card in &cards {
            let law = bind(card).ok_or_else(|| foreign("the laws"))??;
            bound.push((law, controls(card)));
        }
        let names: Vec<(&str, &[String])> =
            bound.iter().map(|(law, _)| (law.name.as_str(), law.parameters.as_slice())).collect();
        let columns: Vec<Vec<String>> = bound
            .iter()
            .map(|(law, _)| law.parameters.iter().map(|p| parameter_column(&names, &law.name, p)).collect())
            .collect();
        let laws = bound.iter().zip(columns).map(|((law, controls), columns)| FittedLaw {
            inputs: inputs(law),
            law: law.clone(),
            columns,
            controls: controls.clone(),
        });
        let list = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(String::from).collect();
        let space = match entry("space") {
            Some("log") => Space::Log,
            Some("linear") => Space::Linear,
            _ => return Err(foreign("the space")),
        };
        let loss = match entry("loss").map(|loss| loss.split_once(':').unwrap_or((loss, ""))) {
            Some(("squares", _)) => Loss::Squares,
            Some(("huber", delta)) => Loss::Huber { delta: delta.parse().map_err(|_| foreign("the loss"))? },
            _ => return Err(foreign("the loss")),
        };
        let weighting = match entry("weighting").map(|text| text.split_once(' ').unwrap_or((text, ""))) {
            Some(("even", _)) => Weighting::Even,
            Some(("weight", column)) => Weighting::Weight(column.to_string()),
            Some(("sigma", column)) => Weighting::Sigma(column.to_string()),
            _ => return Err(foreign("the weighting")),
        };
        let has = |name: &str| source.columns().iter().any(|column| column.name == name);
        Ok(Fits {
            laws: laws.collect(),
            keys: list(entry("by").unwrap_or_default()),
            objective: Objective { space, loss },
            weighting,
            filter: entry("where").unwrap_or_default().to_string(),
            drop_bad_rows: entry("bad_rows") == Some("left out"),
            has_covariance: has("covariance"),
            has_evidence: has("evidence"),
            source,
        })
    }

    /// Reads the rows, in batches that never divide a key's laws.
    ///
    /// # Errors
    /// Columns that a table of fits has and this one has not.
    pub fn read(&self) -> Result<FitReader<'_>> {
        let mut numbers: Vec<String> = Vec::new();
        for name in self.laws.iter().flat_map(|law| &law.columns) {
            if !numbers.contains(name) {
                numbers.push(name.clone());
            }
        }
        let parameters: BTreeMap<String, usize> = numbers.iter().cloned().zip(0..).collect();
        numbers.extend(parameters.keys().map(|name| format!("{name}_se")));
        // The errors' order is that of the sorted names.
        let errors = parameters.keys().enumerate().map(|(at, name)| (name.clone(), parameters.len() + at)).collect();
        let first = numbers.len();
        numbers.extend(["points", "objective", "rmse"].map(String::from));
        if self.has_evidence {
            numbers.push("evidence".into());
        }
        let lists = if self.has_covariance { vec!["covariance".to_string()] } else { Vec::new() };
        let texts = vec!["law".to_string()];
        let selection = RowSelection { keys: self.keys.clone(), texts, numbers, lists, group: self.laws.len() };
        Ok(FitReader { fits: self, reader: RowReader::open(&self.source, &selection)?, parameters, errors, first })
    }

    /// The plans by which the laws were fitted, for curves whose columns are named `columns`.
    ///
    /// # Errors
    /// Controls that the metadata records and this version refuses.
    pub fn plans(&self, columns: &[String]) -> Result<Vec<Plan>> {
        let place = |name: &String| columns.iter().position(|column| column == name).unwrap_or(usize::MAX);
        let weighting = match &self.weighting {
            Weighting::Even => pack::Weighting::Even,
            Weighting::Weight(name) => pack::Weighting::Weight(place(name)),
            Weighting::Sigma(name) => pack::Weighting::Sigma(place(name)),
        };
        let plan = |fitted: &FittedLaw| {
            let law = fitted.law.clone();
            Plan::new(law, self.objective, &fitted.controls, weighting, self.drop_bad_rows, columns)
        };
        self.laws.iter().map(plan).collect()
    }

    /// The columns of a sweep that the laws and their weights read.
    pub fn sweep_columns(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.laws.iter().flat_map(|law| &law.law.columns).map(String::as_str).chain(self.weight_column()) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_string());
            }
        }
        names
    }

    /// The weight column, σ or none.
    pub fn weight_column(&self) -> Option<&str> {
        match &self.weighting {
            Weighting::Even => None,
            Weighting::Weight(column) | Weighting::Sigma(column) => Some(column),
        }
    }
}

/// Batches of rows of a table of fits.
pub struct FitReader<'a> {
    fits: &'a Fits,
    reader: RowReader,
    /// Where each parameter column lies among the numbers.
    parameters: BTreeMap<String, usize>,
    errors: BTreeMap<String, usize>,
    /// Where the statistics begin.
    first: usize,
}

impl FitReader<'_> {
    /// The names and types of the key columns.
    pub fn key_schema(&self) -> &KeySchema {
        self.reader.key_schema()
    }

    fn batch(&self, mut rows: Rows) -> Result<FitBatch> {
        let covariances = rows.lists.pop();
        let fitted = (0..rows.keys.len()).map(|row| {
            let name = &rows.texts[0][row];
            let known = self.fits.laws.iter().position(|law| law.law.name == *name);
            let law = known.ok_or_else(|| Error::Input {
                file: self.fits.source.files()[0].clone(),
                message: format!("law \"{name}\" ({}) is not among those of its metadata", rows.keys.describe(row)),
            })?;
            let number = |at: usize| rows.numbers[at][row];
            let columns = &self.fits.laws[law].columns;
            let parameters: Vec<f64> = columns.iter().map(|name| number(self.parameters[name])).collect();
            let errors: Vec<f64> = columns.iter().map(|name| number(self.errors[name])).collect();
            // Fixed and pinned parameters have no error; nothing has one where no point is left over.
            let estimated = errors.iter().filter(|error| error.is_finite()).count();
            let (points, objective, rmse) = (number(self.first), number(self.first + 1), number(self.first + 2));
            let freedom = if estimated == 0 { f64::NAN } else { points - estimated as f64 };
            let known_sigma = matches!(self.fits.weighting, Weighting::Sigma(_));
            let noise = noise(known_sigma, self.fits.objective.loss, objective, rmse, points, freedom);
            let stored = covariances.as_ref().map(|lists| lists[row].clone());
            let covariance = match stored {
                Some(stored) if stored.len() == triangle(parameters.len()) => Some(stored),
                Some(_) => None,
                // With a single estimated parameter the standard error says all.
                None if estimated == 1 => {
                    let mut alone = vec![0.0; triangle(parameters.len())];
                    for (j, error) in errors.iter().enumerate().filter(|(_, error)| error.is_finite()) {
                        alone[at(j, j)] = error * error;
                    }
                    Some(alone)
                }
                None => None,
            };
            let evidence = if self.fits.has_evidence { number(self.first + 3) } else { f64::NAN };
            Ok(Fitted { law, parameters, covariance, freedom, noise, evidence, draws: Vec::new() })
        });
        let fitted = fitted.collect::<Result<Vec<_>>>()?;
        Ok(FitBatch { rows: fitted, keys: rows.keys })
    }
}

impl Iterator for FitReader<'_> {
    type Item = Result<FitBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.reader.next()?;
        Some(rows.and_then(|rows| self.batch(rows)))
    }
}

/// Positions of the columns that the right side uses.
fn inputs(law: &Law) -> Vec<usize> {
    let used = law.graph.reachable(&[law.prediction]);
    let is_used = |k: &usize| used.iter().any(|&id| law.graph.node(id) == Node::Input(*k as u32));
    (0..law.columns.len()).filter(is_used).collect()
}

/// The law of a card, bound as it was; `None` where the card says too little.
fn bind(card: &Value) -> Option<Result<Law>> {
    let text = |key: &str| card[key].as_str();
    let texts = |key: &str| -> Option<Vec<String>> {
        card[key].as_array()?.iter().map(|value| value.as_str().map(String::from)).collect()
    };
    let (name, formula, response) = (text("name")?, text("formula")?, text("response")?);
    let (inputs, columns) = (texts("inputs")?, texts("columns")?);
    let parameters: Vec<&str> =
        card["parameters"].as_array()?.iter().map(|parameter| parameter["name"].as_str()).collect::<Option<_>>()?;
    let plain = columns.iter().any(|column| column == response).then_some(response);
    let mapping = Mapping { x: &inputs, y: plain };
    let entry = catalogue::find(name).filter(|entry| entry.formula == formula && entry.inputs.len() == inputs.len());
    let law = match (entry, plain) {
        (Some(entry), _) => Law::bind(entry.name, &columns, mapping),
        (None, Some(_)) => Law::bind(formula, &columns, mapping),
        (None, None) => Law::bind(&format!("{response} ~ {formula}"), &columns, mapping),
    };
    match law {
        Ok(law) if law.parameters == parameters => Some(Ok(Law { name: name.to_string(), ..law })),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

/// What the user said about the parameters of a law.
fn controls(card: &Value) -> Vec<NamedControl> {
    let named = card["parameters"].as_array().into_iter().flatten().filter_map(|parameter| {
        let control = &parameter["control"];
        let starts = control["starts"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let grid = control["grid"].as_array().and_then(|grid| match grid.as_slice() {
            [low, high, cells] => Some((low.as_f64()?, high.as_f64()?, cells.as_u64()? as usize)),
            _ => None,
        });
        let control = Control {
            fixed: parameter["fixed"].as_f64(),
            lower: control["lower"].as_f64(),
            upper: control["upper"].as_f64(),
            grid,
            starts,
        };
        let parameter = parameter["name"].as_str()?.to_string();
        (control != Control::default()).then_some(NamedControl { parameter, control })
    });
    named.collect()
}

/// Draws of parameters, read beside the fits.
pub struct Draws {
    path: String,
    reader: RowReader,
    joiner: Joiner,
    /// Where each law's parameters lie among the numbers.
    places: Vec<Vec<usize>>,
    laws: Vec<String>,
    /// The batch that is being taken in, the identities of its rows, and the next row.
    current: Option<(Rows, Vec<Identity>, usize)>,
}

impl Draws {
    /// Opens the draws that belong to `fits`.
    ///
    /// # Errors
    /// A table without the columns that draws have.
    pub fn open(path: &str, fits: &Fits) -> Result<Draws> {
        let source = Source::open(&[path.to_string()])?;
        source.column("replicate").map_err(|error| error.of_table(path))?;
        let mut numbers: Vec<String> = Vec::new();
        let places = fits.laws.iter().map(|law| {
            let place = |name: &String| {
                numbers.iter().position(|known| known == name).unwrap_or_else(|| {
                    numbers.push(name.clone());
                    numbers.len() - 1
                })
            };
            law.columns.iter().map(place).collect()
        });
        let places = places.collect();
        let texts = vec!["law".to_string()];
        let selection = RowSelection { keys: fits.keys.clone(), texts, numbers, ..RowSelection::default() };
        Ok(Draws {
            path: path.to_string(),
            joiner: Joiner::new(&fits.source, &source, &fits.keys).map_err(|error| error.of_table(path))?,
            reader: RowReader::open(&source, &selection).map_err(|error| error.of_table(path))?,
            places,
            laws: fits.laws.iter().map(|law| law.law.name.clone()).collect(),
            current: None,
        })
    }

    /// Gives the rows of a batch their draws.
    ///
    /// # Errors
    /// What reading refuses.
    pub fn join(&mut self, batch: &mut FitBatch) -> Result<()> {
        let identities = self.joiner.identities(&batch.keys)?;
        for (row, identity) in batch.rows.iter_mut().zip(identities) {
            row.draws.clear();
            while self.fill()? {
                let Some((rows, theirs, next)) = &mut self.current else { break };
                if theirs[*next] != identity || rows.texts[0][*next] != self.laws[row.law] {
                    break;
                }
                let drawn = self.places[row.law].iter().map(|&place| rows.numbers[place][*next]);
                let before = row.draws.len();
                row.draws.extend(drawn);
                if row.draws[before..].iter().any(|value| !value.is_finite()) {
                    row.draws.truncate(before);
                }
                *next += 1;
            }
        }
        Ok(())
    }

    /// Says whether all draws found their fit.
    ///
    /// # Errors
    /// Draws that belong to no fit, or come in another order than the fits.
    pub fn finish(&mut self) -> Result<()> {
        if !self.fill()? {
            return Ok(());
        }
        let place = self.current.as_ref().map_or(String::new(), |(rows, _, next)| {
            format!("{}, law {}", rows.keys.describe(*next), rows.texts[0][*next])
        });
        Err(Error::Input {
            file: self.path.clone().into(),
            message: format!(
                "its draws do not follow the fits: those of {place} have no fit, or come in another order; draw again \
                 with --draws beside this table of fits"
            ),
        })
    }

    /// Whether there is a next draw.
    fn fill(&mut self) -> Result<bool> {
        while self.current.as_ref().is_none_or(|(rows, _, next)| *next >= rows.keys.len()) {
            let Some(rows) = self.reader.next() else { return Ok(false) };
            let rows = rows?;
            let identities = self.joiner.identities(&rows.keys)?;
            self.current = Some((rows, identities, 0));
        }
        Ok(true)
    }
}
