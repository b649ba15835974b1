//! Curves laid out for one model: what every backend reads.
//!
//! Ragged structure of arrays in f64. Made by [`super::pack`]; knows nothing of keys, files or devices.

use super::model::Model;
use super::symmetry::Symmetry;
use super::{Loss, Status};

/// Curves packed for one model.
#[derive(Debug)]
pub struct Problem<'a> {
    pub model: &'a Model,
    pub loss: Loss,
    /// Whether standard errors come from the sandwich H⁻¹ M H⁻¹ n/(n − p), M = Σ (w ψ)² J Jᵀ, and not from H⁻¹ s².
    pub robust_errors: bool,
    /// First row of every curve and, last, the number of rows; length curves + 1. Rows left out are gone already; a settled
    /// curve may have none.
    pub offsets: Vec<usize>,
    /// One per [`Model::inputs`], rows long; centred where the model says so.
    pub inputs: Vec<Vec<f64>>,
    /// The centre of input k of curve i at `i * inputs + k`; 0 where not centred.
    pub centres: Vec<f64>,
    /// t: the left side, its logarithm in log space.
    pub response: Vec<f64>,
    /// One per row; all positive.
    pub weight: Vec<f64>,
    /// What is already known of a curve (too few points, bad domain, degenerate); None where it is to be fitted.
    pub status: Vec<Option<Status>>,
    /// Box of coordinate j of curve i at `i * model.len() + j`, in the model's own chart; infinite where open.
    pub lower: Vec<f64>,
    pub upper: Vec<f64>,
    pub grid: Grid,
    /// The user's own starting points, the same for every curve: values of all free parameters, θ, not z. Empty unless every
    /// free parameter has one.
    pub given: &'a [Vec<f64>],
    /// A start of every curve's own, θ of all free parameters, where the law's inner law has been fitted (see
    /// [`super::inner`]); empty where there is none for any curve.
    pub starts: Vec<Option<Vec<f64>>>,
    /// Which of several spellings of one curve is reported.
    pub symmetries: &'a [Symmetry],
}

/// The points at which the nonlinear coordinates of the projection are tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Cells of every axis, in the order of [`super::model::Projection::nonlinear`].
    pub cells: Vec<usize>,
    /// Values of cell c of axis a of curve i at `i * cells.sum() + cells[..a].sum() + c`, ascending along an axis, in
    /// coordinates of the projection's chart.
    pub values: Vec<f64>,
    /// None: every combination of cells is tried, the last axis fastest. Some: only these, one cell index per axis each
    /// (spread evenly over the box); such points have no neighbours.
    pub listed: Option<Vec<u16>>,
}

impl Grid {
    /// How many axes there are.
    pub fn axes(&self) -> usize {
        self.cells.len()
    }

    /// How many points are tried per curve.
    pub fn points(&self) -> usize {
        match &self.listed {
            Some(listed) => listed.len() / self.axes(),
            None => self.cells.iter().product(),
        }
    }

    /// The cell of `point` on `axis`.
    pub fn cell(&self, point: usize, axis: usize) -> usize {
        match &self.listed {
            Some(listed) => listed[point * self.axes() + axis] as usize,
            None => point / self.cells[axis + 1..].iter().product::<usize>() % self.cells[axis],
        }
    }

    /// Length of one curve's stretch of [`Grid::values`].
    pub fn stride(&self) -> usize {
        self.cells.iter().sum()
    }

    /// The coordinate of `cell` of `axis` for `curve`.
    pub fn value(&self, curve: usize, axis: usize, cell: usize) -> f64 {
        self.values[curve * self.stride() + self.cells[..axis].iter().sum::<usize>() + cell]
    }
}

impl<'a> Problem<'a> {
    /// A problem of the same model, loss and shape of grid, without a curve.
    pub fn emptied(&self) -> Problem<'a> {
        Problem {
            offsets: vec![0],
            inputs: vec![Vec::new(); self.inputs.len()],
            centres: Vec::new(),
            response: Vec::new(),
            weight: Vec::new(),
            status: Vec::new(),
            lower: Vec::new(),
            upper: Vec::new(),
            starts: Vec::new(),
            grid: Grid { cells: self.grid.cells.clone(), values: Vec::new(), listed: self.grid.listed.clone() },
            ..*self
        }
    }

    /// Makes the rows appended since the last curve one more, whose box, grid, centres and start are those of `curve` of
    /// `source`, a problem of the same model and shape of grid.
    pub fn close(&mut self, source: &Problem, curve: usize) {
        let (p, inputs, stride) = (self.model.len(), self.model.inputs.len(), self.grid.stride());
        let copy = |target: &mut Vec<f64>, source: &[f64], each: usize| {
            target.extend_from_slice(&source[curve * each..(curve + 1) * each]);
        };
        copy(&mut self.centres, &source.centres, inputs);
        copy(&mut self.lower, &source.lower, p);
        copy(&mut self.upper, &source.upper, p);
        copy(&mut self.grid.values, &source.grid.values, stride);
        self.starts.extend(source.starts.get(curve).cloned());
        self.offsets.push(self.response.len());
        let status = self.unfittable(self.rows(self.status.len()));
        self.status.push(status);
    }

    /// Gives the newest curve the box and the grid of the first.
    pub(super) fn repeat_first_box(&mut self) {
        let (parameters, cells) = (self.model.len(), self.grid.stride());
        self.lower.extend_from_within(..parameters);
        self.upper.extend_from_within(..parameters);
        self.grid.values.extend_from_within(..cells);
    }

    /// Whether one Newton step leads from anywhere to the optimum of every curve.
    pub fn is_one_step(&self) -> bool {
        let open = |bounds: &[f64]| bounds.iter().all(|bound| bound.is_infinite());
        self.model.is_linear() && self.loss == Loss::Squares && open(&self.lower) && open(&self.upper)
    }

    /// How many curves there are.
    pub fn len(&self) -> usize {
        self.status.len()
    }

    /// Whether there is no curve.
    pub fn is_empty(&self) -> bool {
        self.status.is_empty()
    }

    /// Rows of a curve.
    pub fn rows(&self, curve: usize) -> std::ops::Range<usize> {
        self.offsets[curve]..self.offsets[curve + 1]
    }

    /// Why rows that would make a curve cannot be fitted, if so.
    pub fn unfittable(&self, rows: std::ops::Range<usize>) -> Option<Status> {
        let constant = |values: &[f64]| values.iter().all(|&value| value == values[0]);
        if rows.len() < self.model.len() {
            Some(Status::TooFewPoints)
        } else if constant(&self.response[rows.clone()])
            || self.inputs.iter().all(|input| constant(&input[rows.clone()]))
        {
            Some(Status::Degenerate)
        } else {
            None
        }
    }

    /// Points used of a curve.
    pub fn points(&self, curve: usize) -> usize {
        self.offsets[curve + 1] - self.offsets[curve]
    }
}
