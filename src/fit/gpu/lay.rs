//! A problem's curves as the kernels read them: f32, interleaved rows, scaled so that nothing overflows.
//!
//! In: a [`Problem`] and the curves of one chunk. Out: [`Laid`] arrays, and the way back from f32 coordinates. Targets and
//! weights of a proxy projection are computed here in f64. Knows no device.

use super::program::{Layout, constant_basis};
use crate::evaluate::wgsl::LARGEST;
use crate::fit::model::Coordinate;
use crate::fit::problem::Problem;
use crate::fit::replicates::{Replication, Scheme};
use crate::fit::{Loss, Space};
use rayon::prelude::*;

/// What dividing y by a curve's own scale does to a coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaling {
    Untouched,
    /// z / scale
    Divided,
    /// z − log scale
    Shifted,
}

/// The curves of one chunk in the kernels' layout.
#[derive(Debug, Default)]
pub struct Laid {
    /// First row, rows, bits of Huber's δ, its own place.
    pub curves: Vec<[u32; 4]>,
    pub rows: Vec<f32>,
    pub grid: Vec<f32>,
    pub bounds: Vec<f32>,
    /// y of every curve was divided by this.
    pub scales: Vec<f64>,
}

/// Lays curves of one problem out.
pub struct Layer<'a> {
    pub problem: &'a Problem<'a>,
    pub layout: Layout,
    scaling: Vec<Scaling>,
    scales_response: bool,
}

/// Smallest residual, beside the largest response, that is more than rounding in f32.
const RESOLVED: f64 = 1e-6;
/// Curves that one thread lays out at a time.
const PIECE: usize = 256;

impl<'a> Layer<'a> {
    /// Decides what can be scaled in this problem's model.
    pub fn new(problem: &'a Problem<'a>) -> Self {
        let model = problem.model;
        let projection = &model.projection;
        let mut scaling = vec![Scaling::Untouched; model.len()];
        let of = |coordinate| match coordinate {
            Coordinate::Identity => Scaling::Divided,
            Coordinate::Log => Scaling::Shifted,
        };
        match projection.space {
            Space::Linear if model.graph.constant_value(projection.offset) == Some(0.0) => {
                for &j in &projection.linear {
                    scaling[j] = of(model.coordinates[j]);
                }
            }
            // log f moves by a constant with this coordinate.
            Space::Log => {
                if let Some((l, 1.0)) = constant_basis(model) {
                    let j = projection.linear[l];
                    scaling[j] = match projection.coordinates[j] {
                        Coordinate::Identity => Scaling::Shifted,
                        Coordinate::Log => of(model.coordinates[j]),
                    };
                }
            }
            Space::Linear => {}
        }
        let scales_response = scaling.iter().any(|&scaling| scaling != Scaling::Untouched);
        Layer { problem, layout: Layout::new(model, &problem.grid), scaling, scales_response }
    }

    /// Whether the response of a curve lies in the projection's domain: a logarithm needs y > 0.
    pub fn has_projection(&self, curve: usize) -> bool {
        let model = self.problem.model;
        let needs_logarithm = model.projection.space == Space::Log && model.space == Space::Linear;
        !needs_logarithm || self.problem.response[self.problem.rows(curve)].iter().all(|&y| y > 0.0)
    }

    /// Lays a chunk's curves out. A curve with a value that f32 cannot hold gets no rows.
    pub fn lay(&self, chunk: &[u32]) -> Laid {
        let Layout { coordinates, stride, grid_stride, .. } = self.layout;
        let mut offsets = Vec::with_capacity(chunk.len() + 1);
        offsets.push(0);
        for &curve in chunk {
            offsets.push(offsets[offsets.len() - 1] + self.problem.points(curve as usize));
        }
        let rows = offsets[chunk.len()];
        let mut laid = Laid {
            curves: vec![[0; 4]; chunk.len()],
            rows: vec![0.0; rows * stride],
            grid: vec![0.0; chunk.len() * grid_stride],
            bounds: vec![0.0; chunk.len() * coordinates * 2],
            scales: vec![1.0; chunk.len()],
        };
        let mut pieces = Vec::with_capacity(chunk.len().div_ceil(PIECE));
        let mut left =
            (&mut laid.curves[..], &mut laid.rows[..], &mut laid.grid[..], &mut laid.bounds[..], &mut laid.scales[..]);
        for first in (0..chunk.len()).step_by(PIECE) {
            let last = (first + PIECE).min(chunk.len());
            let count = last - first;
            let (curves, curves_left) = left.0.split_at_mut(count);
            let (rows, rows_left) = left.1.split_at_mut((offsets[last] - offsets[first]) * stride);
            let (grid, grid_left) = left.2.split_at_mut(count * grid_stride);
            let (bounds, bounds_left) = left.3.split_at_mut(count * coordinates * 2);
            let (scales, scales_left) = left.4.split_at_mut(count);
            left = (curves_left, rows_left, grid_left, bounds_left, scales_left);
            pieces.push((first, curves, rows, grid, bounds, scales));
        }
        pieces.into_par_iter().for_each(|(first, curves, rows, grid, bounds, scales)| {
            let base = offsets[first];
            for i in 0..curves.len() {
                let curve = chunk[first + i] as usize;
                let (start, end) = (offsets[first + i], offsets[first + i + 1]);
                scales[i] = self.scale(curve);
                let fits = self.lay_rows(curve, scales[i], &mut rows[(start - base) * stride..(end - base) * stride])
                    & self.lay_grid(curve, &mut grid[i * grid_stride..(i + 1) * grid_stride]);
                self.lay_bounds(curve, scales[i], &mut bounds[i * coordinates * 2..(i + 1) * coordinates * 2]);
                let points = if fits { end - start } else { 0 };
                let delta = self.delta(curve, scales[i]);
                curves[i] = [start as u32, points as u32, delta.to_bits(), (first + i) as u32];
            }
        });
        laid
    }

    /// The largest |y| of a curve where y may be scaled, else 1.
    fn scale(&self, curve: usize) -> f64 {
        if !self.scales_response {
            return 1.0;
        }
        let response = &self.problem.response[self.problem.rows(curve)];
        let largest = match self.problem.model.space {
            Space::Linear => response.iter().fold(0.0, |largest: f64, y| largest.max(y.abs())),
            Space::Log => response.iter().fold(f64::NEG_INFINITY, |largest, &t| largest.max(t)).exp(),
        };
        if largest.is_normal() { largest } else { 1.0 }
    }

    /// Huber's threshold in the curve's scaled units; at least what f32 can tell from 0 beside the largest response.
    fn delta(&self, curve: usize, scale: f64) -> f32 {
        let Loss::Huber { delta } = self.problem.loss else { return 0.0 };
        let response = &self.problem.response[self.problem.rows(curve)];
        let largest = |of: &dyn Fn(f64) -> f64| response.iter().fold(0.0, |largest: f64, &t| largest.max(of(t).abs()));
        let (delta, largest) = match self.problem.model.space {
            Space::Log => (delta, largest(&|t| t - scale.ln())),
            Space::Linear => (delta / scale, largest(&|y| y / scale)),
        };
        delta.max(RESOLVED * largest) as f32
    }

    /// Writes a curve's rows; false where f32 cannot hold one of its numbers.
    fn lay_rows(&self, curve: usize, scale: f64, rows: &mut [f32]) -> bool {
        let problem = self.problem;
        let Layout { inputs, stride, proxy, .. } = self.layout;
        let range = problem.rows(curve);
        let mut fits = true;
        let mut put = |slot: &mut f32, value: f64| {
            fits &= value.abs() < LARGEST;
            *slot = value as f32;
        };
        for (k, column) in problem.inputs.iter().enumerate() {
            for (row, &value) in rows.chunks_exact_mut(stride).zip(&column[range.clone()]) {
                put(&mut row[k], value);
            }
        }
        let response = &problem.response[range.clone()];
        let weight = &problem.weight[range];
        // Only the ratios of weights matter to the optimum.
        let heaviest = weight.iter().copied().fold(0.0, f64::max);
        let space = problem.model.space;
        let log_scale = scale.ln();
        for ((row, &t), &w) in rows.chunks_exact_mut(stride).zip(response).zip(weight) {
            let root = (w / heaviest).sqrt();
            let t = if space == Space::Linear { t / scale } else { t - log_scale };
            put(&mut row[inputs], t);
            put(&mut row[inputs + 1], root);
            if proxy {
                // d log y = dy / y, so that the proxy's residuals agree with the fit's to first order.
                let (target, root) = match space {
                    Space::Log => {
                        let y = t.exp();
                        (y, root / y)
                    }
                    Space::Linear => (t.ln(), root * t),
                };
                put(&mut row[inputs + 2], target);
                put(&mut row[inputs + 3], root);
            }
        }
        fits
    }

    fn lay_grid(&self, curve: usize, grid: &mut [f32]) -> bool {
        let stride = self.layout.grid_stride;
        let values = &self.problem.grid.values[curve * stride..(curve + 1) * stride];
        let mut fits = true;
        for (slot, &value) in grid.iter_mut().zip(values) {
            fits &= value.abs() < LARGEST;
            *slot = value as f32;
        }
        fits
    }

    fn lay_bounds(&self, curve: usize, scale: f64, bounds: &mut [f32]) {
        let coordinates = self.layout.coordinates;
        for j in 0..coordinates {
            let at = curve * coordinates + j;
            let ends = [self.problem.lower[at], self.problem.upper[at]];
            for (slot, end) in bounds[2 * j..2 * j + 2].iter_mut().zip(ends) {
                // An open end is where f32 stops being trusted.
                *slot = self.to_scaled(j, end, scale).clamp(-LARGEST, LARGEST) as f32;
            }
        }
    }

    /// The rows of one laid curve as replicates are made from them; nothing where f32 cannot hold one of the numbers.
    pub fn lay_sources(&self, replication: &Replication, laid: &Laid, frame: usize, curve: usize) -> Option<Vec<f32>> {
        let Layout { stride, .. } = self.layout;
        let [first, points, ..] = laid.curves[frame].map(|word| word as usize);
        let rows = self.problem.rows(curve);
        if points != rows.len() {
            return None;
        }
        let scale = laid.scales[frame];
        let heaviest = self.problem.weight[rows.clone()].iter().copied().fold(0.0, f64::max);
        let (moved, unit) = match self.problem.model.space {
            Space::Linear => (0.0, scale),
            Space::Log => (scale.ln(), 1.0),
        };
        // A residual of unit weight is divided by the root of its row's weight, which is relative to the heaviest.
        let unit_residual = if replication.scheme == Scheme::Residual { unit * heaviest.sqrt() } else { unit };
        let mut sources = Vec::with_capacity(points * self.layout.source_stride());
        for (k, row) in rows.enumerate() {
            sources.extend_from_slice(&laid.rows[(first + k) * stride..(first + k + 1) * stride]);
            sources.push(replication.group[row] as f32);
            if replication.scheme.moves_responses() {
                sources.push(((replication.fitted[row] - moved) / unit) as f32);
                sources.push((replication.residual[row] / unit_residual) as f32);
            } else {
                sources.extend([0.0; 2]);
            }
        }
        sources.iter().all(|value| value.abs() < LARGEST as f32).then_some(sources)
    }

    fn to_scaled(&self, j: usize, z: f64, scale: f64) -> f64 {
        match self.scaling[j] {
            Scaling::Untouched => z,
            Scaling::Divided => z / scale,
            Scaling::Shifted => z - scale.ln(),
        }
    }

    /// A coordinate of the kernels back in the model's chart, inside the curve's box.
    pub fn restore(&self, curve: usize, j: usize, z: f32, scale: f64) -> f64 {
        let z = f64::from(z);
        let restored = match self.scaling[j] {
            Scaling::Untouched => z,
            Scaling::Divided => z * scale,
            Scaling::Shifted => z + scale.ln(),
        };
        let at = curve * self.layout.coordinates + j;
        restored.clamp(self.problem.lower[at], self.problem.upper[at])
    }
}
