//! Brute force: one curve's best fit by a dense search in f64 that shares nothing with the fit's own search and judge.
//!
//! In: one curve of a packed [`Problem`]. Out: the lowest objective found and its coordinates. The searched coordinates are
//! tried on a lattice many times finer than the fit's grid, the linear ones solved by orthogonalisation at every point; the
//! best point of every part of the lattice is polished by plain Levenberg–Marquardt on the exact objective, one start at a
//! time. Values come from the reference evaluator, not from the tapes.

use crate::evaluate::reference::{Precision, Reference};
use crate::fit::dense::{least_squares, solve_positive};
use crate::fit::problem::Problem;
use crate::fit::{Loss, Space};
use crate::random::Stream;

/// Points per axis of the lattice with one, two and three searched coordinates.
const CELLS: [usize; 3] = [481, 91, 33];
/// Random points where there are more.
const POINTS: usize = 1 << 15;
/// Parts per axis, each of which sends its best point to be polished.
const PARTS: [usize; 3] = [24, 6, 4];
/// The same for random points, which are cut along no axis.
const RANDOM_PARTS: usize = 64;
/// Steps of one descent.
const STEPS: usize = 400;
/// A descent has ended when this many steps in a row gained less than [`GAIN`] of the objective.
const PATIENCE: usize = 4;
const GAIN: f64 = 1e-13;

/// The best point found.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    pub objective: f64,
    /// Coordinates of the model's own chart.
    pub z: Vec<f64>,
}

/// The best fit of `curve`, which has to be open; None where no point has a finite objective.
pub fn search(problem: &Problem, curve: usize) -> Option<Minimum> {
    let mut curve = Curve::new(problem, curve);
    let mut best: Option<Minimum> = None;
    for start in curve.starts() {
        let end = curve.polish(start);
        if end.objective.is_finite() && best.as_ref().is_none_or(|best| end.objective < best.objective) {
            best = Some(end);
        }
    }
    best
}

/// One curve, and the functions that are evaluated on it.
struct Curve<'a> {
    problem: &'a Problem<'a>,
    index: usize,
    columns: Vec<&'a [f64]>,
    response: &'a [f64],
    weight: &'a [f64],
    lower: &'a [f64],
    upper: &'a [f64],
    /// The prediction, then its gradient.
    law: Reference,
    /// The prediction alone.
    prediction: Reference,
    /// The projection's basis functions, then its offset.
    basis: Reference,
    /// What the projection aims at, and the root of its weights.
    target: Vec<f64>,
    root: Vec<f64>,
}

/// The objective's value and derivatives at one point.
struct Measured {
    objective: f64,
    /// Downhill.
    slope: Vec<f64>,
    /// Σ w JJᵀ over residuals in Huber's zone (all of them under squares), and Σ w δ/|r| JJᵀ over those outside.
    inside: Vec<f64>,
    outside: Vec<f64>,
}

impl<'a> Curve<'a> {
    fn new(problem: &'a Problem<'a>, index: usize) -> Curve<'a> {
        let model = problem.model;
        let rows = problem.rows(index);
        let (response, weight) = (&problem.response[rows.clone()], &problem.weight[rows.clone()]);
        let mut outputs = vec![model.prediction];
        outputs.extend(&model.gradient);
        let mut projected = model.projection.basis.clone();
        projected.push(model.projection.offset);
        let aim = |(&t, &w): (&f64, &f64)| match (model.space, model.projection.space) {
            // To first order the residual of a logarithm is that of the value over the value.
            (Space::Log, Space::Linear) => (t.exp(), w.sqrt() / t.exp()),
            (Space::Linear, Space::Log) if t > 0.0 => (t.ln(), w.sqrt() * t),
            (Space::Linear, Space::Log) => (0.0, 0.0),
            _ => (t, w.sqrt()),
        };
        let (target, root) = response.iter().zip(weight).map(aim).unzip();
        let p = model.len();
        Curve {
            problem,
            index,
            columns: problem.inputs.iter().map(|column| &column[rows.clone()]).collect(),
            response,
            weight,
            lower: &problem.lower[index * p..(index + 1) * p],
            upper: &problem.upper[index * p..(index + 1) * p],
            prediction: Reference::new(&model.graph, &outputs[..1], Precision::Double),
            law: Reference::new(&model.graph, &outputs, Precision::Double),
            basis: Reference::new(&model.graph, &projected, Precision::Double),
            target,
            root,
        }
    }

    /// The best point of every part of the lattice.
    fn starts(&mut self) -> Vec<Vec<f64>> {
        let axes = self.problem.grid.axes();
        let mut best: Vec<Option<Minimum>> = Vec::new();
        let mut offer = |part: usize, found: Option<Minimum>| {
            best.resize(best.len().max(part + 1), None);
            if let Some(found) = found
                && best[part].as_ref().is_none_or(|known| found.objective < known.objective)
            {
                best[part] = Some(found);
            }
        };
        if axes <= CELLS.len() {
            let (cells, parts) = (CELLS[axes.max(1) - 1], PARTS[axes.max(1) - 1]);
            for point in 0..cells.pow(axes as u32) {
                let cell = |axis: usize| point / cells.pow(axis as u32) % cells;
                let part = (0..axes).fold(0, |part, axis| part * parts + cell(axis) * parts / cells);
                let position: Vec<f64> = (0..axes).map(|axis| cell(axis) as f64 / (cells - 1) as f64).collect();
                offer(part, self.project(&position));
            }
        } else {
            let mut stream = Stream::new(0, 0);
            for point in 0..POINTS {
                let position: Vec<f64> = (0..axes).map(|_| stream.unit()).collect();
                offer(point % RANDOM_PARTS, self.project(&position));
            }
        }
        best.into_iter().flatten().map(|minimum| minimum.z).collect()
    }

    /// Solves the linear coordinates with the searched ones at `position`, 0..=1 along each axis of the grid.
    fn project(&mut self, position: &[f64]) -> Option<Minimum> {
        let (model, grid) = (self.problem.model, &self.problem.grid);
        let projection = &model.projection;
        let points = self.response.len();
        let mut z = vec![0.0; model.len()];
        for (axis, &j) in projection.nonlinear.iter().enumerate() {
            let cells = grid.cells[axis];
            z[j] = between(|cell| grid.value(self.index, axis, cell), cells, position[axis]);
        }
        self.basis.evaluate(&self.columns, &z, points);
        let count = projection.linear.len();
        let weighted = |k: usize| self.basis.output(k).iter().zip(&self.root).map(|(value, root)| value * root);
        let mut columns: Vec<Vec<f64>> = (0..count).map(|l| weighted(l).collect()).collect();
        let goal = self.target.iter().zip(&self.root).map(|(target, root)| target * root);
        let mut left: Vec<f64> = goal.zip(weighted(count)).map(|(goal, offset)| goal - offset).collect();
        for (&j, value) in projection.linear.iter().zip(least_squares(&mut columns, &mut left)) {
            z[j] = value;
        }
        for (j, z) in z.iter_mut().enumerate() {
            if projection.coordinates[j] != model.coordinates[j] {
                *z = model.coordinates[j].encode(projection.coordinates[j].decode(*z));
            }
            *z = z.max(self.lower[j]).min(self.upper[j]);
        }
        if z.iter().any(|z| !z.is_finite()) {
            return None;
        }
        let objective = self.objective(&z);
        if objective.is_finite() { Some(Minimum { objective, z }) } else { self.flatten(z) }
    }

    /// A point in log space that predicts something without a logarithm, moved towards a flat curve until it does not.
    fn flatten(&mut self, z: Vec<f64>) -> Option<Minimum> {
        let model = self.problem.model;
        let (Space::Log, Some(floor)) = (model.space, model.floor) else { return None };
        let total: f64 = self.weight.iter().sum();
        let level = (self.response.iter().zip(self.weight).map(|(t, w)| t * w).sum::<f64>() / total).exp();
        [0.2, 0.5, 0.8, 0.95, 0.99].into_iter().find_map(|share| {
            let mut z = z.clone();
            for &j in &model.amplitudes {
                let goal = if j == floor { level } else { 0.0 };
                z[j] = (z[j] + share * (goal - z[j])).max(self.lower[j]).min(self.upper[j]);
            }
            let objective = self.objective(&z);
            objective.is_finite().then_some(Minimum { objective, z })
        })
    }

    fn objective(&mut self, z: &[f64]) -> f64 {
        self.prediction.evaluate(&self.columns, z, self.response.len());
        let rows = self.response.iter().zip(self.prediction.output(0)).zip(self.weight);
        let sum: f64 = rows.map(|((t, h), w)| w * loss(self.problem.loss, t - h)).sum();
        if sum.is_nan() { f64::INFINITY } else { sum }
    }

    fn measure(&mut self, z: &[f64]) -> Measured {
        let p = z.len();
        self.law.evaluate(&self.columns, z, self.response.len());
        let (mut objective, mut slope) = (0.0, vec![0.0; p]);
        let (mut inside, mut outside) = (vec![0.0; p * p], vec![0.0; p * p]);
        for point in 0..self.response.len() {
            let (r, w) = (self.response[point] - self.law.output(0)[point], self.weight[point]);
            objective += w * loss(self.problem.loss, r);
            let (pull, curvature) = match self.problem.loss {
                Loss::Huber { delta } if r.abs() > delta => (w * delta / r.abs(), &mut outside),
                _ => (w, &mut inside),
            };
            for i in 0..p {
                let g = self.law.output(1 + i)[point];
                slope[i] += pull * r * g;
                for j in 0..=i {
                    curvature[i * p + j] += pull * g * self.law.output(1 + j)[point];
                }
            }
        }
        for half in [&mut inside, &mut outside] {
            for i in 0..p {
                for j in 0..i {
                    half[j * p + i] = half[i * p + j];
                }
            }
        }
        Measured { objective: if objective.is_nan() { f64::INFINITY } else { objective }, slope, inside, outside }
    }

    /// Levenberg–Marquardt inside the box, from `z` to where nothing more is gained.
    fn polish(&mut self, mut z: Vec<f64>) -> Minimum {
        let p = z.len();
        let mut here = self.measure(&z);
        let (mut damping, mut idle) = (1e-2, 0);
        for _ in 0..STEPS {
            let free: Vec<usize> = (0..p)
                .filter(|&j| {
                    let outward =
                        z[j] <= self.lower[j] && here.slope[j] <= 0.0 || z[j] >= self.upper[j] && here.slope[j] >= 0.0;
                    !outward && here.inside[j * p + j] + here.outside[j * p + j] > 0.0
                })
                .collect();
            // Newton's curvature of a residual beyond Huber's threshold is 0, the reweighted one is too much: the more a
            // step is damped, the more of it counts.
            let share = f64::min(1.0, 10.0 * damping);
            let n = free.len();
            let mut matrix = vec![0.0; n * n];
            for (a, &i) in free.iter().enumerate() {
                for (b, &j) in free.iter().enumerate() {
                    matrix[a * n + b] = here.inside[i * p + j] + share * here.outside[i * p + j];
                }
                matrix[a * n + a] += damping * (here.inside[i * p + i] + here.outside[i * p + i]);
            }
            let mut step: Vec<f64> = free.iter().map(|&j| here.slope[j]).collect();
            let mut gained = None;
            if n > 0 && solve_positive(&matrix, &mut step) {
                let mut trial = z.clone();
                for (&j, step) in free.iter().zip(&step) {
                    trial[j] = (z[j] + step).max(self.lower[j]).min(self.upper[j]);
                }
                let there = self.measure(&trial);
                if there.objective < here.objective {
                    gained = Some((here.objective - there.objective) / here.objective);
                    (z, here) = (trial, there);
                }
            }
            match gained {
                Some(gain) => {
                    damping = f64::max(0.2 * damping, 1e-14);
                    idle = if gain < GAIN { idle + 1 } else { 0 };
                }
                None => damping *= 5.0,
            }
            if idle == PATIENCE || damping > 1e12 || n == 0 {
                break;
            }
        }
        Minimum { objective: here.objective, z }
    }
}

fn loss(loss: Loss, r: f64) -> f64 {
    match loss {
        Loss::Huber { delta } if r.abs() > delta => delta * (r.abs() - 0.5 * delta),
        _ => 0.5 * r * r,
    }
}

/// The value at `position`, 0..=1, of an axis given by `cells` of its values: by ratio between two of one sign.
fn between(value: impl Fn(usize) -> f64, cells: usize, position: f64) -> f64 {
    let place = position * (cells - 1) as f64;
    let cell = (place as usize).min(cells.saturating_sub(2));
    let (share, low, high) = (place - cell as f64, value(cell), value((cell + 1).min(cells - 1)));
    match low * high > 0.0 {
        true => low * (high / low).powf(share),
        false => low + share * (high - low),
    }
}
