//! Pack: raw columns to a [`Problem`].
//!
//! In: a [`Plan`] (a law compiled and the user's controls) and a [`CurveBatch`]. Out: derived inputs, response and weights
//! without the rows that are left out, the verdict on curves that cannot be fitted, and every curve's box and grid. Knows
//! no files and no device.

use super::cpu::Cpu;
use super::decay;
use super::inner;
use super::judge::judge;
use super::model::{Coordinate, Model};
use super::problem::{Grid, Problem};
use super::symmetry::{self, Symmetry};
use super::{Backend, Objective, Space, Status};
use crate::curves::CurveBatch;
use crate::error::{Error, Result, nearest};
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Tape, map_columns};
use crate::formula::graph::{Binary, Graph, Id, Node, Unary};
use crate::law::Law;
use crate::law::role::{Range, Role, SIGNED_INNERMOST, Spacing, Span};

/// The user's say over one parameter; empty where nothing was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Control {
    pub fixed: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    /// Ends and cells of the search grid.
    pub grid: Option<(f64, f64, usize)>,
    /// Values to start from instead of a grid; they lift the default box.
    pub starts: Vec<f64>,
}

/// A [`Control`] with the parameter's name, as typed.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedControl {
    pub parameter: String,
    pub control: Control,
}

/// What is said behind the name of a column that is infinite somewhere.
pub const INFINITE: &str = " is infinite";

/// Where the weights come from; the index is a column of the [`CurveBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighting {
    Even,
    Weight(usize),
    /// Standard deviations of the left side as written: weights 1/σ² in linear space, (y/σ)² in log space.
    Sigma(usize),
}

/// One law, ready to fit any batch.
#[derive(Debug)]
pub struct Plan {
    pub law: Law,
    pub model: Model,
    pub objective: Objective,
    pub weighting: Weighting,
    pub drop_bad_rows: bool,
    /// See [`Problem::robust_errors`].
    pub robust_errors: bool,
    /// A column of the [`CurveBatch`] whose values [`Packed::carried`] shall hold.
    pub carry: Option<usize>,
    /// One per free parameter.
    pub controls: Vec<Control>,
    /// One per parameter of the law.
    pub fixed: Vec<Option<f64>>,
    /// The batch's column for every column of the law.
    columns: Vec<usize>,
    /// t, then the model's inputs, then the subjects of roles and the left side where σ needs it.
    derive: Tape,
    /// Whose range the box of a free parameter depends on.
    subjects: Vec<Option<usize>>,
    /// Whether every curve has the same box and grid.
    one_box: bool,
    /// Where σ asks for it.
    left_side: Option<usize>,
    /// Cells per axis and listed points, the same for every curve.
    cells: Vec<usize>,
    listed: Option<Vec<u16>>,
    /// Per input of the model: what stands for log 0 where the law takes a zero there.
    zeros: Vec<Option<f64>>,
    /// Values of every axis whose role asks for no range: the same for every curve, in the projection's coordinates.
    fixed_axes: Vec<Option<Vec<f64>>>,
    /// See [`Problem::given`].
    given: Vec<Vec<f64>>,
    /// The plan of the inner law, where it is the easier one to search.
    inner: Option<Box<Plan>>,
    symmetries: Vec<Symmetry>,
}

/// A packed batch and what was left out on the way.
#[derive(Debug)]
pub struct Packed<'a> {
    pub problem: Problem<'a>,
    /// One value for every row of the problem, from the column that [`Plan::carry`] names; empty without.
    pub carried: Vec<f64>,
    /// Rows with a null or NaN in a column that the law reads, or of weight zero.
    pub missing_rows: usize,
    /// Rows outside the law's domain that `--drop-bad-rows` left out.
    pub dropped_rows: usize,
    /// The first curve that holds a row outside the domain, and what is wrong with it.
    pub first_bad: Option<(usize, String)>,
}

/// Cells of a geometric or uniform axis when one or two parameters are searched: a ratio of 1.6 between exponents, which
/// found the global optimum of every curve of the learning-curve data base.
const CELLS: usize = 16;
/// How far, as a logarithm, the ratio of such an axis may be moved.
const NEAR_RATIO: f64 = 0.03;
/// Cells of an axis with both signs.
const SIGNED_CELLS: usize = 24;
/// Cells of an axis whose useful stretch moves with another axis.
const POWER_RATE_CELLS: usize = 96;
/// Cells of the place of a break: a sharp one shows in few of them.
const BREAK_CELLS: usize = 32;
/// Cells of a rate that is a share of a larger term, and of a crossing of two terms.
const SHARE_CELLS: usize = 128;
/// Cells of a quotient of exponents, whose box is twice as wide.
const RATIO_CELLS: usize = 32;
/// Most functions that are taken off a law, one around the other, to find one that is easier to search.
const MOST_FUNCTIONS: usize = 3;
/// Most points of a product grid.
const MOST_POINTS: usize = 8192;
/// Cells per axis of a three-dimensional product grid.
const CELLS_OF_THREE: usize = 12;
/// Points and cells per axis where a product grid is not affordable.
const LISTED_POINTS: usize = 4096;
const LISTED_CELLS: usize = 64;

impl Plan {
    /// Compiles `law` for `objective` under the user's controls. `columns` names the columns of the batches to come.
    ///
    /// # Errors
    /// [`Error::Usage`] for controls that contradict each other or leave nothing to fit.
    pub fn new(
        law: Law,
        objective: Objective,
        named: &[NamedControl],
        weighting: Weighting,
        drop_bad_rows: bool,
        columns: &[String],
    ) -> Result<Plan> {
        let mut controls = vec![Control::default(); law.parameters.len()];
        for NamedControl { parameter, control } in named {
            if let Some(j) = law.parameters.iter().position(|name| name == parameter) {
                merge(parameter, &mut controls[j], control)?;
            }
        }
        for (name, control) in law.parameters.iter().zip(&controls) {
            check(name, control)?;
        }
        let fixed: Vec<Option<f64>> = controls.iter().map(|control| control.fixed).collect();
        let constrained: Vec<bool> = controls
            .iter()
            .map(|c| c.lower.is_some() || c.upper.is_some() || c.grid.is_some() || !c.starts.is_empty())
            .collect();
        let mut model = Model::compile(&law, objective.space, &fixed, &constrained);
        if model.is_empty() {
            return Err(Error::Usage(format!("law {}: every parameter is fixed, nothing is left to fit", law.name)));
        }
        let controls: Vec<Control> = model.free.iter().map(|&j| controls[j].clone()).collect();

        let response = match objective.space {
            Space::Log => model.raw.unary(Unary::Log, law.response),
            Space::Linear => law.response,
        };
        let mut outputs = vec![response];
        outputs.extend(model.inputs.iter().map(|input| input.source));
        let mut subject = |j: usize| {
            let id = model.roles[j].subject().filter(|_| needs_span(&model, j))?;
            outputs.push(id);
            Some(outputs.len() - 1)
        };
        let subjects: Vec<Option<usize>> = (0..model.len()).map(&mut subject).collect();
        let left_side = matches!(weighting, Weighting::Sigma(_)).then_some(outputs.len());
        outputs.extend(left_side.map(|_| law.response));
        let derive = Tape::compile(&model.raw, &outputs, 0);
        let position = |name: &String| {
            columns.iter().position(|column| column == name).expect("the pipeline reads every column that a law uses")
        };
        let (cells, listed) = lattice(&model, &controls);
        let fixed_axes = fixed_axes(&model, &controls, &cells);
        let zeros = (0..model.inputs.len()).map(|k| zero_of_power(&model, &controls, k)).collect();
        let axes = model.projection.nonlinear.len();
        let mut under = (axes > 1 && law.entry.is_none()).then(|| inner::inner(&law)).flatten();
        let mut inner = None;
        for _ in 0..MOST_FUNCTIONS {
            let Some(law) = under.take() else { break };
            let own = Model::compile(&law, objective.space, &fixed, &constrained).projection.nonlinear.len();
            if own < axes {
                // Rows outside the inner law's domain are no reason to have no start.
                inner = Some(Box::new(Plan::new(law, objective, named, weighting, true, columns)?));
                break;
            }
            under = inner::inner(&law);
        }
        Ok(Plan {
            given: given(&controls),
            inner,
            symmetries: symmetry::find(&model, &controls),
            zeros,
            fixed_axes,
            one_box: subjects.iter().all(Option::is_none) && model.origin.iter().all(Option::is_none),
            columns: law.columns.iter().map(position).collect(),
            derive,
            subjects,
            left_side,
            cells,
            listed,
            law,
            model,
            objective,
            weighting,
            drop_bad_rows,
            robust_errors: false,
            carry: None,
            controls,
            fixed,
        })
    }

    /// Lays a batch out for this law.
    pub fn pack(&self, batch: &CurveBatch) -> Packed<'_> {
        let model = &self.model;
        let raw: Vec<&[f64]> = self.columns.iter().map(|&column| batch.columns[column].as_slice()).collect();
        let mut derived = map_columns(&self.derive, &raw, batch.rows());
        for (column, zero) in derived[1..].iter_mut().zip(&self.zeros) {
            if let Some(zero) = zero {
                column.iter_mut().filter(|value| **value == f64::NEG_INFINITY).for_each(|value| *value = *zero);
            }
        }
        let mut weights = self.weights(batch, &derived);
        let mut carried = self.carry.map(|column| batch.columns[column].clone());
        let mut left_out = LeftOut::default();
        // The usual batch has nothing to leave out: one look at whole columns spares a look at every row.
        let offsets = if self.is_clean(&raw, &derived, weights.as_deref()) {
            batch.offsets.clone()
        } else {
            self.sieve(batch, &raw, &mut derived, [&mut weights, &mut carried], &mut left_out)
        };
        let rows = offsets[offsets.len() - 1];
        let subjects = derived.split_off(1 + model.inputs.len());
        let inputs = derived.split_off(1);
        let parameters = model.len();
        let mut problem = Problem {
            model,
            loss: self.objective.loss,
            robust_errors: self.robust_errors,
            inputs,
            centres: Vec::with_capacity(batch.len() * model.inputs.len()),
            response: derived.swap_remove(0),
            weight: weights.unwrap_or_else(|| vec![1.0; rows]),
            status: Vec::with_capacity(batch.len()),
            lower: Vec::with_capacity(batch.len() * parameters),
            upper: Vec::with_capacity(batch.len() * parameters),
            grid: Grid {
                cells: self.cells.clone(),
                values: Vec::with_capacity(batch.len() * self.cells.iter().sum::<usize>()),
                listed: self.listed.clone(),
            },
            given: &self.given,
            starts: self.inner.as_ref().map_or_else(Vec::new, |inner| inner.answers(batch)),
            symmetries: &self.symmetries,
            offsets,
        };
        // Whether the first curve is without a box, where all curves have that of the first.
        let mut first_no_box = None;
        for curve in 0..batch.len() {
            let rows = problem.rows(curve);
            let bad = left_out.bad_curves.get(curve) == Some(&true);
            let status = if bad { Some(Status::BadDomain) } else { problem.unfittable(rows.clone()) };
            problem.status.push(status);
            self.centre(&mut problem, rows.clone());
            let subject = |slot: usize| &subjects[slot - 1 - model.inputs.len()][rows.clone()];
            let no_box = match first_no_box {
                Some(no_box) => {
                    problem.repeat_first_box();
                    no_box
                }
                None => self.lay_grid(&mut problem, |slot| Range::of(subject(slot).iter().copied())),
            };
            if self.one_box {
                first_no_box = Some(no_box);
            }
            let started = problem.starts.get(curve).is_some_and(Option::is_some);
            if no_box && !started && problem.status[curve].is_none() {
                problem.status[curve] = Some(Status::Degenerate);
            }
        }
        let LeftOut { missing_rows, dropped_rows, first_bad, .. } = left_out;
        Packed { problem, carried: carried.unwrap_or_default(), missing_rows, dropped_rows, first_bad }
    }

    /// The free parameters that a fit of its own gives to every curve; None where it has none.
    fn answers(&self, batch: &CurveBatch) -> Vec<Option<Vec<f64>>> {
        let Packed { problem, .. } = self.pack(batch);
        let proposals = Cpu.propose(&problem).expect("a search on the CPU does not fail");
        let found = judge(&problem, &proposals, false);
        let p = problem.model.len();
        let answer = |curve: usize| found.parameters[curve * p..(curve + 1) * p].to_vec();
        (0..batch.len()).map(|curve| found.status[curve].has_parameters().then(|| answer(curve))).collect()
    }

    /// Takes the rows that are left out, and curves with a row outside the domain, out of `derived`, weights and what is carried; returns
    /// the offsets of what remains.
    fn sieve(
        &self,
        batch: &CurveBatch,
        raw: &[&[f64]],
        derived: &mut [Vec<f64>],
        [weights, carried]: [&mut Option<Vec<f64>>; 2],
        left_out: &mut LeftOut,
    ) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(batch.len() + 1);
        let mut kept: Vec<usize> = Vec::with_capacity(batch.rows());
        offsets.push(0);
        for curve in 0..batch.len() {
            let mut bad = false;
            for row in batch.offsets[curve]..batch.offsets[curve + 1] {
                match self.judge_row(row, raw, derived, weights) {
                    Row::Good => kept.push(row),
                    Row::Missing => left_out.missing_rows += 1,
                    Row::Bad if self.drop_bad_rows => left_out.dropped_rows += 1,
                    Row::Bad => {
                        bad = true;
                        if left_out.first_bad.is_none() {
                            left_out.first_bad = Some((curve, self.explain(row, raw, derived, weights)));
                        }
                    }
                }
            }
            if bad {
                kept.truncate(offsets[curve]);
            }
            left_out.bad_curves.push(bad);
            offsets.push(kept.len());
        }
        for column in derived.iter_mut().chain(weights).chain(carried) {
            // Rows only move towards the front, in their order.
            for (place, &row) in kept.iter().enumerate() {
                column[place] = column[row];
            }
            column.truncate(kept.len());
        }
        offsets
    }

    fn weights(&self, batch: &CurveBatch, derived: &[Vec<f64>]) -> Option<Vec<f64>> {
        match self.weighting {
            Weighting::Even => None,
            Weighting::Weight(column) => Some(batch.columns[column].clone()),
            Weighting::Sigma(column) => {
                let left_side = &derived[self.left_side.expect("a plan with σ derives the left side")];
                let weight = |(&sigma, &y): (&f64, &f64)| match self.objective.space {
                    // A sign that survives marks σ ≤ 0 as outside the domain.
                    _ if sigma <= 0.0 => -1.0,
                    Space::Linear => 1.0 / (sigma * sigma),
                    Space::Log => (y / sigma) * (y / sigma),
                };
                Some(batch.columns[column].iter().zip(left_side).map(weight).collect())
            }
        }
    }

    /// Whether every row of the batch is good.
    fn is_clean(&self, raw: &[&[f64]], derived: &[Vec<f64>], weights: Option<&[f64]>) -> bool {
        let finite = |values: &[f64]| {
            let mut all = true;
            all_finite(values, &mut all);
            all
        };
        raw.iter().all(|column| finite(column))
            && derived[..=self.model.inputs.len()].iter().all(|column| finite(column))
            && weights.is_none_or(|weights| finite(weights) && weights.iter().all(|&weight| weight > 0.0))
    }

    #[inline(always)]
    fn judge_row(&self, row: usize, raw: &[&[f64]], derived: &[Vec<f64>], weights: &Option<Vec<f64>>) -> Row {
        let weight = weights.as_ref().map_or(1.0, |weights| weights[row]);
        if raw.iter().any(|column| column[row].is_nan()) || weight.is_nan() || weight == 0.0 {
            return Row::Missing;
        }
        let finite = derived[..=self.model.inputs.len()].iter().all(|column| column[row].is_finite());
        let measured = raw.iter().all(|column| column[row].is_finite());
        if finite && measured && weight > 0.0 && weight.is_finite() { Row::Good } else { Row::Bad }
    }

    fn explain(&self, row: usize, raw: &[&[f64]], derived: &[Vec<f64>], weights: &Option<Vec<f64>>) -> String {
        for (name, column) in self.law.columns.iter().zip(raw) {
            if column[row].is_infinite() {
                return format!("{name}{INFINITE}");
            }
        }
        if weights.as_ref().is_some_and(|weights| !(weights[row] > 0.0 && weights[row].is_finite())) {
            return match self.weighting {
                Weighting::Sigma(_) => "σ is not positive".to_string(),
                _ => "the weight is negative or infinite".to_string(),
            };
        }
        let values: Vec<String> =
            self.law.columns.iter().zip(raw).map(|(name, column)| format!("{name} = {}", column[row])).collect();
        let what = if derived[0][row].is_finite() { "the law is not defined" } else { "the response has no logarithm" };
        format!("{what} at {}", values.join(", "))
    }

    fn centre(&self, problem: &mut Problem, rows: std::ops::Range<usize>) {
        for (k, input) in self.model.inputs.iter().enumerate() {
            let column = &mut problem.inputs[k][rows.clone()];
            let mut centre = 0.0;
            if input.centred {
                subtract_smallest(column, self.zeros[k], &mut centre);
            }
            problem.centres.push(centre);
        }
    }

    /// Writes the newest curve's box and grid; true where a searched parameter has no box on this curve.
    fn lay_grid(&self, problem: &mut Problem, mut range: impl FnMut(usize) -> Range) -> bool {
        let model = &self.model;
        let inputs = model.inputs.len();
        let origin = |centres: &[f64], j: usize| model.origin[j].map_or(0.0, |k| centres[centres.len() - inputs + k]);
        let mut spans = Vec::with_capacity(model.len());
        for (j, control) in self.controls.iter().enumerate() {
            let mut default = || match self.subjects[j] {
                _ if model.roles[j].subject().is_none() => model.roles[j].span(Range::NONE),
                Some(slot) => model.roles[j].span(range(slot)),
                None => None,
            };
            let default = if needs_span(model, j) { default() } else { None };
            spans.push(default);
            let coordinate = model.coordinates[j];
            let boxed = control.starts.is_empty() && self.has_default_box(j);
            let low = control.lower.or_else(|| default.filter(|_| boxed).map(|span| span.low));
            let high = control.upper.or_else(|| default.filter(|_| boxed).map(|span| span.high));
            let encode = |end: Option<f64>, open: f64| {
                end.map_or(open, |end| encode_bound(coordinate, end + origin(&problem.centres, j), open))
            };
            problem.lower.push(encode(low, f64::NEG_INFINITY));
            problem.upper.push(encode(high, f64::INFINITY));
        }
        let mut no_box = false;
        for (axis, &j) in model.projection.nonlinear.iter().enumerate() {
            let coordinate = model.projection.coordinates[j];
            let cells = self.cells[axis];
            let first = problem.grid.values.len();
            let own = || axis_values(&self.controls[j], spans[j], cells);
            match &self.fixed_axes[axis] {
                Some(values) => problem.grid.values.extend(values),
                None => match own() {
                    Some(values) => {
                        let origin = origin(&problem.centres, j);
                        problem.grid.values.extend(values.into_iter().map(|theta| coordinate.encode(theta + origin)))
                    }
                    None => no_box = true,
                },
            }
            problem.grid.values.resize(first + cells, 0.0);
            for value in &mut problem.grid.values[first..] {
                if !value.is_finite() {
                    (*value, no_box) = (0.0, true);
                }
            }
        }
        no_box
    }

    /// Whether a parameter's role bounds the solution, not only the search: amplitudes, closed forms and parameters whose
    /// part in the formula shows no pattern are free.
    fn has_default_box(&self, j: usize) -> bool {
        has_default_box(&self.model, j)
    }

    /// Cells of every axis of the search grid, in the order of [`super::model::Projection::nonlinear`].
    pub fn grid_cells(&self) -> &[usize] {
        &self.cells
    }

    /// How many points of the grid are tried per curve; 1 where nothing has to be searched.
    pub fn grid_points(&self) -> usize {
        match &self.listed {
            Some(listed) => listed.len() / self.cells.len(),
            None => self.cells.iter().product(),
        }
    }

    /// The box of free parameter `j` in words, for the metadata.
    pub fn describe_box(&self, j: usize) -> String {
        let control = &self.controls[j];
        let default = if !control.starts.is_empty() || !self.has_default_box(j) {
            "unbounded"
        } else {
            self.model.roles[j].describe()
        };
        let mut text = match (control.lower, control.upper) {
            (None, None) => default.to_string(),
            (low, high) => {
                let end = |end: Option<f64>| end.map_or(format!("default of {default}"), |end| end.to_string());
                format!("[{}, {}]", end(low), end(high))
            }
        };
        if let Some((low, high, cells)) = control.grid {
            text += &format!(", grid [{low}, {high}] with {cells} cells");
        }
        if !control.starts.is_empty() {
            text += &format!(", started from {:?}", control.starts);
        }
        text
    }
}

fn has_default_box(model: &Model, j: usize) -> bool {
    !model.amplitudes.contains(&j) && !model.is_closed_form() && !model.roles[j].is_unbounded()
}

/// Whether the span of a parameter's role is asked for: by its box or by its axis.
fn needs_span(model: &Model, j: usize) -> bool {
    has_default_box(model, j) || model.projection.nonlinear.contains(&j)
}

/// Every combination of the user's starting values, in the order given; none unless every parameter has one.
fn given(controls: &[Control]) -> Vec<Vec<f64>> {
    let mut points = vec![Vec::new()];
    for control in controls {
        let extended = |point: &Vec<f64>| {
            let point = point.clone();
            control.starts.iter().map(move |&start| [point.as_slice(), &[start]].concat())
        };
        points = points.iter().flat_map(extended).collect();
    }
    points
}

/// A power of zero is zero where the exponent is positive: a finite stand-in for `log 0` that makes `exp(p log 0)` vanish
/// for every `p` of the box. None where input `k` is no logarithm or serves anything but powers with such exponents.
fn zero_of_power(model: &Model, controls: &[Control], k: usize) -> Option<f64> {
    let Node::Unary(Unary::Log, _) = model.raw.node(model.inputs[k].source) else { return None };
    let graph = &model.graph;
    let order = graph.reachable(&[model.prediction]);
    let parents = |id: Id| order.iter().copied().filter(move |&parent| graph.children(parent).any(|child| child == id));
    let input = order.iter().copied().find(|&id| graph.node(id) == Node::Input(k as u32))?;
    let mut smallest = f64::INFINITY;
    for product in parents(input) {
        let Node::Binary(Binary::Multiply, a, b) = graph.node(product) else { return None };
        let Node::Parameter(j) = graph.node(if a == input { b } else { a }) else { return None };
        let j = j as usize;
        let default =
            model.roles[j].span(Range::NONE).filter(|_| model.roles[j].subject().is_none()).map(|span| span.low);
        let low = controls[j].lower.or(default.filter(|_| controls[j].starts.is_empty()))?;
        let powers = leads_to_powers(graph, &order, product);
        if low <= 0.0 || !powers {
            return None;
        }
        smallest = smallest.min(low);
    }
    // e^-800 is zero in f64.
    smallest.is_finite().then(|| -800.0 / smallest)
}

/// Whether a product reaches the prediction through exponentials only, perhaps with other terms beside it in the exponent.
fn leads_to_powers(graph: &Graph, order: &[Id], id: Id) -> bool {
    let mut parents = order.iter().copied().filter(|&parent| graph.children(parent).any(|child| child == id));
    parents.all(|parent| match graph.node(parent) {
        Node::Unary(Unary::Exp, _) => true,
        Node::Binary(Binary::Add, _, _) => leads_to_powers(graph, order, parent),
        Node::Binary(Binary::Subtract, minuend, _) if minuend == id => leads_to_powers(graph, order, parent),
        _ => false,
    })
}

enum Row {
    Good,
    Missing,
    Bad,
}

/// What packing left out, on the way.
#[derive(Default)]
struct LeftOut {
    missing_rows: usize,
    dropped_rows: usize,
    first_bad: Option<(usize, String)>,
    /// One per curve, or none at all where nothing was left out.
    bad_curves: Vec<bool>,
}

kernel!(
    /// Whether every value is a finite number.
    fn all_finite, fn all_finite_kernel(values: &[f64], all: &mut bool) = all_finite_generic;
);

#[inline(always)]
fn all_finite_generic<const SET: u8>(values: &[f64], all: &mut bool) {
    for part in values.chunks(4096) {
        // Without a way out of the loop, so that it takes many values at a time.
        let mut finite = true;
        for value in part {
            finite &= value.is_finite();
        }
        if !finite {
            *all = false;
            return;
        }
    }
    *all = true;
}

kernel!(
    /// Subtracts the smallest value from a column and says which it was. A zero's stand-in lies too far out to start from.
    fn subtract_smallest, fn subtract_smallest_kernel(column: &mut [f64], stand_in: Option<f64>, smallest: &mut f64) = subtract_smallest_generic;
);

#[inline(always)]
fn subtract_smallest_generic<const SET: u8>(column: &mut [f64], stand_in: Option<f64>, smallest: &mut f64) {
    let ignored = stand_in.unwrap_or(f64::NAN);
    let (groups, rest) = column.as_chunks::<LANES>();
    let mut least = [f64::INFINITY; LANES];
    for group in groups {
        for i in 0..LANES {
            least[i] = if group[i] < least[i] && group[i] != ignored { group[i] } else { least[i] };
        }
    }
    let least = least.iter().chain(rest).copied().filter(|&value| value != ignored).fold(f64::INFINITY, f64::min);
    *smallest = if least.is_finite() { least } else { 0.0 };
    for value in column {
        *value -= *smallest;
    }
}

fn encode_bound(coordinate: Coordinate, bound: f64, open: f64) -> f64 {
    let encoded = coordinate.encode(bound);
    // A bound at or below zero does not bind a parameter that is positive anyway.
    if encoded.is_finite() { encoded } else { open }
}

/// Values of every axis whose role asks for no range, in the projection's coordinates.
fn fixed_axes(model: &Model, controls: &[Control], cells: &[usize]) -> Vec<Option<Vec<f64>>> {
    let axis = |(&j, &cells): (&usize, &usize)| {
        let shared = model.roles[j].subject().is_none();
        let values = if shared { axis_values(&controls[j], model.roles[j].span(Range::NONE), cells) } else { None };
        let coordinate = model.projection.coordinates[j];
        let own = controls[j].starts.is_empty() && controls[j].grid.is_none();
        let squared = own && model.programs.decay.is_some() && coordinate == Coordinate::Identity;
        let values = if squared { values.map(in_octaves) } else { values };
        values.map(|values| values.into_iter().map(|theta| coordinate.encode(theta)).collect())
    };
    model.projection.nonlinear.iter().zip(cells).map(axis).collect()
}

/// Moves the inner values of a geometric axis a little, so that every one is another of them, doubled once or more: of exponentials all
/// but the first few are then squares (see `decay`). An axis that is not geometric, or far from such ratios, stays as it is.
fn in_octaves(values: Vec<f64>) -> Vec<f64> {
    let [low, .., high] = values[..] else { return values };
    let last = values.len() - 1;
    let ratio = (high / low).powf(1.0 / last as f64);
    let geometric = |(cell, value): (usize, &f64)| (value / (low * ratio.powi(cell as i32)) - 1.0).abs() < 1e-9;
    if !(low > 0.0 && values.iter().enumerate().all(geometric)) {
        return values;
    }
    for period in 1..=decay::LONGEST_PERIOD {
        for octaves in 1..=decay::MOST_OCTAVES {
            let step = (octaves as f64 / period as f64).exp2();
            let at = |cell: usize| {
                let first = low * (octaves as f64 * (cell % period) as f64 / period as f64).exp2();
                first * (octaves as f64 * (cell / period) as f64).exp2()
            };
            let reaches = at(last - 1) < high && high < at(last) * NEAR_RATIO.exp();
            if (step / ratio).ln().abs() < NEAR_RATIO && reaches {
                return (0..last).map(at).chain([high]).collect();
            }
        }
    }
    values
}

/// The values of one axis, ascending; None where the curve gives the role no range.
fn axis_values(control: &Control, default: Option<Span>, cells: usize) -> Option<Vec<f64>> {
    if !control.starts.is_empty() {
        let mut starts = control.starts.clone();
        starts.sort_by(f64::total_cmp);
        return Some(starts);
    }
    if let Some((low, high, cells)) = control.grid {
        let spacing = if low > 0.0 { Spacing::Geometric } else { Spacing::Uniform };
        return Some(spread(Span { low, high, spacing }, cells));
    }
    let span = match (control.lower, control.upper, default) {
        (None, None, default) => default?,
        (low, high, default) => {
            let low = low.or(default.map(|span| span.low))?;
            let high = high.or(default.map(|span| span.high))?;
            let spacing = match default.map(|span| span.spacing) {
                Some(Spacing::Signed) if low == -high => Spacing::Signed,
                Some(Spacing::Uniform) => Spacing::Uniform,
                Some(Spacing::GeometricFrom(origin)) if low > origin => Spacing::GeometricFrom(origin),
                _ if low > 0.0 => Spacing::Geometric,
                _ => Spacing::Uniform,
            };
            if low > high {
                return None;
            }
            Span { low, high, spacing }
        }
    };
    Some(spread(span, cells))
}

fn spread(span: Span, cells: usize) -> Vec<f64> {
    let Span { low, high, spacing } = span;
    let at = |cell: usize, count: usize| if count > 1 { cell as f64 / (count - 1) as f64 } else { 0.5 };
    let geometric = |low: f64, high: f64, t: f64| {
        if t == 0.0 {
            low
        } else if t == 1.0 {
            high
        } else {
            low * (high / low).powf(t)
        }
    };
    match spacing {
        Spacing::Uniform => (0..cells).map(|cell| low + (high - low) * at(cell, cells)).collect(),
        Spacing::Geometric => (0..cells).map(|cell| geometric(low, high, at(cell, cells))).collect(),
        Spacing::GeometricFrom(origin) => {
            let distance = |cell: usize| geometric(low - origin, high - origin, at(cell, cells));
            (0..cells).map(|cell| origin + distance(cell)).collect()
        }
        Spacing::Signed => {
            let half = cells / 2;
            let size = |cell: usize| geometric(high * SIGNED_INNERMOST, high, at(cell, half));
            let zero = if cells % 2 == 1 { &[0.0][..] } else { &[] };
            let negative = (0..half).rev().map(|cell| -size(cell));
            negative.chain(zero.iter().copied()).chain((0..half).map(size)).collect()
        }
    }
}

/// Cells per axis, and the points where the product of all cells would be too many.
fn lattice(model: &Model, controls: &[Control]) -> (Vec<usize>, Option<Vec<u16>>) {
    let axes = model.projection.nonlinear.len();
    let own = |j: usize| match &controls[j] {
        control if !control.starts.is_empty() => Some(control.starts.len()),
        Control { grid: Some((_, _, cells)), .. } => Some(*cells),
        _ => None,
    };
    let sharp = model.projection.nonlinear.iter().any(|&j| model.roles[j] == Role::Sharpness);
    let product: Vec<usize> = model
        .projection
        .nonlinear
        .iter()
        .map(|&j| {
            own(j).unwrap_or(match model.roles[j] {
                _ if axes >= 3 => CELLS_OF_THREE,
                Role::Location(_) if sharp => BREAK_CELLS,
                Role::Exponent | Role::SignedRate(_) | Role::Coefficient(_) | Role::Free => SIGNED_CELLS,
                Role::Ratio => RATIO_CELLS,
                Role::PowerRate { rises: true, .. } => POWER_RATE_CELLS,
                Role::PowerRate { rises: false, .. } | Role::Crossing(_) => SHARE_CELLS,
                _ => CELLS,
            })
        })
        .collect();
    let points = product.iter().try_fold(1usize, |product, &cells| product.checked_mul(cells));
    if points.is_some_and(|points| points <= MOST_POINTS) {
        return (product, None);
    }
    let cells: Vec<usize> = model.projection.nonlinear.iter().map(|&j| own(j).unwrap_or(LISTED_CELLS)).collect();
    // The additive recurrence of the generalised golden ratio (Roberts 2018): even in any number of dimensions.
    let ratio = (0..64).fold(2.0f64, |x, _| (1.0 + x).powf(1.0 / (axes as f64 + 1.0)));
    let mut listed = Vec::with_capacity(LISTED_POINTS * axes);
    for point in 0..LISTED_POINTS {
        for (axis, &cells) in cells.iter().enumerate() {
            let position = (0.5 + (point + 1) as f64 * ratio.powi(-(axis as i32 + 1))).fract();
            listed.push(((position * cells as f64) as usize).min(cells - 1) as u16);
        }
    }
    (cells, Some(listed))
}

fn merge(name: &str, into: &mut Control, more: &Control) -> Result<()> {
    once(name, "--fix", &mut into.fixed, more.fixed)?;
    once(name, "the lower end of --bound", &mut into.lower, more.lower)?;
    once(name, "the upper end of --bound", &mut into.upper, more.upper)?;
    once(name, "--grid", &mut into.grid, more.grid)?;
    into.starts.extend(&more.starts);
    Ok(())
}

/// Takes over what is given once, or twice alike.
fn once<T: Copy + PartialEq + std::fmt::Debug>(
    name: &str,
    what: &str,
    known: &mut Option<T>,
    given: Option<T>,
) -> Result<()> {
    match (*known, given) {
        (Some(known), Some(given)) if known != given => {
            Err(Error::Usage(format!("{what} of {name} is given twice, as {known:?} and as {given:?}: keep one")))
        }
        (_, given) => {
            *known = given.or(*known);
            Ok(())
        }
    }
}

fn check(name: &str, control: &Control) -> Result<()> {
    let usage = |message: String| Err(Error::Usage(message));
    if let (Some(low), Some(high)) = (control.lower, control.upper)
        && low > high
    {
        return usage(format!(
            "--bound {name}={low}:{high} has its ends the wrong way round: write {name}={high}:{low}"
        ));
    }
    if let Some(value) = control.fixed
        && (control.lower.is_some() || control.upper.is_some() || control.grid.is_some() || !control.starts.is_empty())
    {
        return usage(format!("--fix {name}={value} stands beside a --bound, --grid or --start of {name}: keep one"));
    }
    if control.grid.is_some() && !control.starts.is_empty() {
        return usage(format!("--grid and --start are both given for {name}: keep one"));
    }
    let inside =
        |value: f64| control.lower.is_none_or(|low| value >= low) && control.upper.is_none_or(|high| value <= high);
    if let Some(start) = control.starts.iter().find(|start| !inside(**start)) {
        return usage(format!("--start {name}={start} lies outside its --bound"));
    }
    Ok(())
}

/// Refuses controls that name no parameter of any law.
///
/// # Errors
/// [`Error::Usage`] with the nearest parameter name.
pub fn check_names(controls: &[NamedControl], laws: &[Law]) -> Result<()> {
    let known: Vec<&str> = laws.iter().flat_map(|law| law.parameters.iter().map(String::as_str)).collect();
    for NamedControl { parameter, .. } in controls {
        if !known.contains(&parameter.as_str()) {
            let hint = nearest(parameter, known.iter().copied())
                .map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(Error::Usage(format!(
                "no law has a parameter {parameter}{hint} (parameters: {})",
                known.join(", ")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Loss;
    use crate::law::Mapping;

    fn plan(formula: &str, space: Space, controls: &[NamedControl]) -> Plan {
        let columns = ["x", "y"].map(String::from).to_vec();
        let law = Law::bind(formula, &columns, Mapping { x: &columns[..1], y: Some("y") }).expect(formula);
        Plan::new(law, Objective { space, loss: Loss::Squares }, controls, Weighting::Even, false, &columns)
            .expect(formula)
    }

    fn batch(curves: &[&[(f64, f64)]]) -> CurveBatch {
        let mut offsets = vec![0];
        let mut columns = vec![Vec::new(), Vec::new()];
        for curve in curves {
            for (x, y) in *curve {
                columns[0].push(*x);
                columns[1].push(*y);
            }
            offsets.push(columns[0].len());
        }
        CurveBatch { offsets, columns }
    }

    #[test]
    fn curves_that_cannot_be_fitted_are_settled_and_leave_their_neighbours_alone() {
        let plan = plan("saturating_power", Space::Log, &[]);
        let nan = f64::NAN;
        let packed_batch = batch(&[
            &[(1.0, 3.0), (2.0, 2.0), (4.0, 1.5), (8.0, 1.2)],
            &[(1.0, 3.0), (2.0, 0.0), (4.0, 1.5), (8.0, 1.2)],
            &[(1.0, 3.0), (nan, 2.0), (4.0, 1.5)],
            &[(1.0, 3.0), (2.0, 3.0), (4.0, 3.0)],
            &[(2.0, 3.0), (2.0, 2.0), (2.0, 1.0)],
            &[],
            &[(0.0, 3.0), (2.0, 2.0), (4.0, 1.5), (8.0, 1.2)],
        ]);
        let packed = plan.pack(&packed_batch);
        let expected = [
            None,
            Some(Status::BadDomain),
            Some(Status::TooFewPoints),
            Some(Status::Degenerate),
            Some(Status::Degenerate),
            Some(Status::TooFewPoints),
            Some(Status::BadDomain),
        ];
        assert_eq!(packed.problem.status, expected);
        assert_eq!(packed.missing_rows, 1);
        let (curve, reason) = packed.first_bad.expect("curve 1 is outside the domain");
        assert_eq!((curve, reason.as_str()), (1, "the response has no logarithm at x = 2, y = 0"));
        assert_eq!(packed.problem.inputs[0][..4], [0.0, 2f64.ln(), 4f64.ln(), 8f64.ln()]);
    }

    #[test]
    fn grids_hold_both_ends_of_the_box() {
        let plan = plan("saturating_power", Space::Log, &[]);
        let data = batch(&[&[(1.0, 3.0), (2.0, 2.0), (4.0, 1.5), (8.0, 1.2)]]);
        let problem = plan.pack(&data).problem;
        assert_eq!((problem.grid.value(0, 0, 0), problem.grid.value(0, 0, 15)), (0.005, 8.0));
        assert_eq!((problem.lower[2], problem.upper[2]), (0.005, 8.0));
        assert_eq!(problem.lower[0], f64::NEG_INFINITY);
    }

    #[test]
    fn a_zero_is_taken_where_the_exponent_is_positive() {
        let data = batch(&[&[(0.0, 3.0), (1.0, 2.0), (4.0, 1.5), (8.0, 1.2), (9.0, 1.1)]]);
        for (formula, status) in [
            ("E + A*exp(-g*x^d)", None),
            ("E + A*x^p", Some(Status::BadDomain)),
            ("E + A*x^-alpha", Some(Status::BadDomain)),
            ("E + A*x^2", None),
        ] {
            assert_eq!(plan(formula, Space::Linear, &[]).pack(&data).problem.status, [status], "{formula}");
        }
        let positive = Control { lower: Some(0.1), upper: Some(3.0), ..Control::default() };
        let bounded = plan("E + A*x^p", Space::Linear, &[NamedControl { parameter: "p".into(), control: positive }]);
        assert_eq!(bounded.pack(&data).problem.status, [None]);
    }

    #[test]
    fn contradictory_controls_are_refused() {
        let columns = ["x", "y"].map(String::from).to_vec();
        let bind = || Law::bind("power", &columns, Mapping { x: &columns[..1], y: Some("y") }).expect("power");
        let control = |control| vec![NamedControl { parameter: "p".into(), control }];
        for (controls, message) in [
            (control(Control { lower: Some(2.0), upper: Some(1.0), ..Control::default() }), "write p=1:2"),
            (control(Control { fixed: Some(1.0), starts: vec![2.0], ..Control::default() }), "keep one"),
        ] {
            let objective = Objective { space: Space::Log, loss: Loss::Squares };
            let error = Plan::new(bind(), objective, &controls, Weighting::Even, false, &columns).expect_err(message);
            assert!(error.to_string().contains(message), "{error}");
        }
        let named = [NamedControl { parameter: "P".into(), control: Control::default() }];
        assert!(check_names(&named, &[bind()]).expect_err("no P").to_string().contains("did you mean p?"));
    }
}
