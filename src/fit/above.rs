//! Search above the floor: laws `f = E + A exp(g)` whose g is linear in most of the other parameters, such as broken power
//! laws. In y, only E and A are linear, and every exponent has to be searched; in log |y − E| the exponents are linear, too,
//! and what is searched is E and the breaks.
//!
//! In: a curve of a problem. Out: its proposals. E runs over distances from the data, below them with A > 0 and above them
//! with A < 0; the breaks run over cells of their grids. Scalar products of columns are tabulated per cell, so that a
//! combination costs one small system; from its best distance E then settles by Gauss and Newton's steps
//! ([`super::settle`]), since a floor that is off by a percent hides a break. To first order the residual of log |y − E| is
//! that of y divided by |y − E|: the weights make up for it. Exponents are held at their box where the solution leaves it.
//!
//! A sharp break shows in few cells, and basins of the grid do not tell basins of the objective. Therefore a crowd of
//! cells, the best places for every sharpness, is polished by a few steps on the exact objective before basins are told
//! apart.

use super::appeal::tabulate;
use super::judge::{Round, polish};
use super::lanes::{Gathered, each};
use super::model::{Coordinate, Projection};
use super::problem::Problem;
use super::settle::{self, Curve, MOST_LINEAR, Settled, Start};
use super::symmetry::Symmetry;
use super::{Proposals, Space};
use crate::evaluate::tape::{LANES, Lane, Scratch, Tape};
use crate::formula::graph::{Graph, Id, Unary};
use crate::formula::separate::{Separation, separate};
use rayon::prelude::*;

/// Cells of a break's place and of its sharpness where one break is searched, and where two are.
const CELLS_OF_ONE: [usize; 2] = [32, 16];
const CELLS_OF_TWO: [usize; 2] = [12, 6];
/// Most cells that are polished, for one break and for two; how they are sifted.
const CROWD: [usize; 2] = [64, 256];
const ROUNDS: [Round; 2] = [Round { steps: 20, kept: 88 }, Round { steps: 80, kept: 16 }];
/// Distances of E from the data, as shares of their range, geometric.
const DISTANCES: usize = 12;
const NEAREST: f64 = 1e-4;
const FARTHEST: f64 = 10.0;
/// Axes of the ordinary projection up to which that is searched on a good product grid.
const SEARCHABLE: usize = 3;

/// The amplitude is a logarithm here, and has no box.
const OPEN: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// How a law looks above its floor.
#[derive(Debug, Clone)]
pub struct Above {
    floor: usize,
    amplitude: usize,
    /// Parameters that are linear in log |y − E|, the amplitude among them.
    linear: Vec<usize>,
    /// The block that each one's basis function depends on.
    block: Vec<Option<usize>>,
    /// Per block: positions in [`Projection::nonlinear`].
    axes: Vec<Vec<usize>>,
    /// The basis functions.
    basis: Tape,
}

/// An [`Above`] whose basis functions are nodes of a graph yet to be lifted.
pub struct Draft {
    pub basis: Vec<Id>,
    floor: usize,
    amplitude: usize,
    linear: Vec<usize>,
    block: Vec<Option<usize>>,
    axes: Vec<Vec<usize>>,
}

impl Draft {
    /// Looks at a prediction above its floor; None where that saves no axis. `chart` takes logarithms as coordinates.
    pub fn of(
        graph: &mut Graph,
        prediction: Id,
        floor: usize,
        amplitudes: &[usize],
        projection: &Projection,
        coordinates: &[Coordinate],
        chart: impl Fn(&mut Graph, Id) -> (Id, Vec<Coordinate>),
    ) -> Option<Draft> {
        let &[amplitude] = &amplitudes.iter().copied().filter(|&j| j != floor).collect::<Vec<_>>()[..] else {
            return None;
        };
        let (parameter, zero) = (graph.parameter(floor), graph.constant(0.0));
        let term = graph.substitute(&[prediction], |_, id| (id == parameter).then_some(zero))[0];
        let value = graph.unary(Unary::Log, term);
        let (value, own) = chart(graph, value);
        let Separation { linear, basis, offset } = separate(graph, value, u64::MAX);
        let searched: Vec<usize> =
            projection.nonlinear.iter().copied().filter(|j| !linear.contains(j) && graph.uses(value, *j)).collect();
        let saves = projection.nonlinear.len() > SEARCHABLE && searched.len() + 1 < projection.nonlinear.len();
        let plain = |j: &usize| own[*j] == coordinates[*j] && own[*j] == projection.coordinates[*j];
        let fits = linear.len() <= MOST_LINEAR
            && own[amplitude] == Coordinate::Log
            && coordinates[amplitude] == Coordinate::Identity
            && linear.contains(&amplitude)
            && linear.iter().filter(|&&j| j != amplitude).chain(&searched).all(plain)
            && graph.constant_value(offset) == Some(0.0);
        if !(saves && fits) {
            return None;
        }
        let mut sets: Vec<u64> = Vec::new();
        let all = searched.iter().fold(0u64, |set, j| set | 1 << j);
        for &id in &basis {
            let own = graph.parameters(id) & all;
            if own != 0 && !sets.contains(&own) {
                sets.push(own);
            }
        }
        let disjoint = sets.iter().enumerate().all(|(i, a)| sets[..i].iter().all(|b| a & b == 0));
        if !disjoint || sets.is_empty() || sets.len() > 2 {
            return None;
        }
        let block = basis.iter().map(|&id| sets.iter().position(|&set| set == graph.parameters(id) & all)).collect();
        let axes = sets
            .iter()
            .map(|set| (0..projection.nonlinear.len()).filter(|&a| set >> projection.nonlinear[a] & 1 == 1).collect())
            .collect();
        Some(Draft { basis, floor, amplitude, linear, block, axes })
    }

    /// The finished look, with the basis functions as nodes of `graph`.
    pub fn finish(self, graph: &Graph, basis: &[Id], parameters: usize) -> Above {
        let Draft { floor, amplitude, linear, block, axes, .. } = self;
        Above { floor, amplitude, linear, block, axes, basis: Tape::compile(graph, basis, parameters) }
    }
}

impl Above {
    /// The parameter that is the floor.
    pub fn floor(&self) -> usize {
        self.floor
    }
}

/// Proposals for every open curve of a problem whose model has an [`Above`]; `others`, found by the ordinary projection, are of
/// the crowd.
pub fn propose(problem: &Problem, above: &Above, others: &Proposals) -> Proposals {
    let found: Vec<Vec<f64>> = (0..problem.len())
        .into_par_iter()
        .map_init(Default::default, |(gathered, scratch, memory): &mut (Gathered, Scratch, settle::Memory), curve| {
            match problem.status[curve] {
                None => Search::new(problem, above, curve, gathered, scratch).proposals(memory),
                Some(_) => Vec::new(),
            }
        })
        .collect();
    let mut crowd = Proposals { offsets: vec![0], coordinates: Vec::new() };
    let p = problem.model.len();
    for coordinates in found {
        crowd.coordinates.extend(coordinates);
        crowd.offsets.push(crowd.coordinates.len() / p);
    }
    polish(problem, &crowd.joined(others, p), &ROUNDS)
}

/// A small dense vector and matrix.
type Vector = [f64; MOST_LINEAR];
type Matrix = [[f64; MOST_LINEAR]; MOST_LINEAR];

/// The best that was found at one combination of cells.
#[derive(Debug, Clone, Copy)]
struct Best {
    residual: f64,
    distance: f64,
    sign: f64,
}

/// One curve.
struct Search<'a> {
    problem: &'a Problem<'a>,
    above: &'a Above,
    curve: usize,
    /// Response, and the square root of its weight over what a change of log f by one changes it by.
    y: Vec<f64>,
    root: Vec<f64>,
    lowest: f64,
    highest: f64,
    /// Per block: cells per axis that are tried, as cells of the problem's grid.
    picks: Vec<Vec<Vec<usize>>>,
    /// Per linear parameter: its column at every cell of its block, one after the other.
    columns: Vec<Vec<f64>>,
}

impl<'a> Search<'a> {
    fn new(
        problem: &'a Problem,
        above: &'a Above,
        curve: usize,
        gathered: &mut Gathered,
        scratch: &mut Scratch,
    ) -> Search<'a> {
        let rows = problem.rows(curve);
        let (response, weight) = (&problem.response[rows.clone()], &problem.weight[rows]);
        let y: Vec<f64> = match problem.model.space {
            Space::Log => response.iter().map(|t| t.exp()).collect(),
            Space::Linear => response.to_vec(),
        };
        let root = weight.iter().zip(&y).map(|(w, y)| match problem.model.space {
            Space::Log => w.sqrt() / y,
            Space::Linear => w.sqrt(),
        });
        let root = root.collect();
        let fewest = if above.axes.len() == 1 { CELLS_OF_ONE } else { CELLS_OF_TWO };
        let picks: Vec<Vec<Vec<usize>>> = above
            .axes
            .iter()
            .map(|axes| {
                let pick = |&axis: &usize| {
                    let most = fewest[usize::from(!is_place(problem, axis))];
                    evenly(problem.grid.cells[axis], most)
                };
                axes.iter().map(pick).collect()
            })
            .collect();
        gathered.gather(problem, &[curve]);
        let mut search = Search {
            problem,
            above,
            curve,
            lowest: y.iter().copied().fold(f64::INFINITY, f64::min),
            highest: y.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            y,
            root,
            picks,
            columns: Vec::new(),
        };
        search.columns = search.tabulate(gathered, scratch);
        search
    }

    /// How many combinations of cells a block has.
    fn cells(&self, block: usize) -> usize {
        self.picks.get(block).map_or(1, |axes| axes.iter().map(Vec::len).product())
    }

    /// Whether the two blocks may change places, cell by cell.
    fn exchangeable(&self) -> bool {
        let searched = &self.problem.model.projection.nonlinear;
        let [one, other] = &self.above.axes[..] else { return false };
        let exchanged = |pairs: &[(usize, usize)]| {
            one.len() == other.len()
                && one.iter().zip(other).all(|(&a, &b)| {
                    let (a, b) = (searched[a], searched[b]);
                    pairs.contains(&(a, b)) || pairs.contains(&(b, a))
                })
        };
        self.picks[0] == self.picks[1]
            && self
                .problem
                .symmetries
                .iter()
                .any(|symmetry| matches!(symmetry, Symmetry::Exchange { pairs, .. } if exchanged(pairs)))
    }

    /// The coordinates of a block's cell.
    fn place(&self, block: usize, mut cell: usize, z: &mut impl FnMut(usize, f64)) {
        let Some(axes) = self.above.axes.get(block) else { return };
        for (&axis, picks) in axes.iter().zip(&self.picks[block]).rev() {
            let value = self.problem.grid.value(self.curve, axis, picks[cell % picks.len()]);
            z(self.problem.model.projection.nonlinear[axis], value);
            cell /= picks.len();
        }
    }

    fn tabulate(&self, gathered: &Gathered, scratch: &mut Scratch) -> Vec<Vec<f64>> {
        let Above { linear, block, basis, axes, .. } = self.above;
        let n = self.y.len();
        let mut columns: Vec<Vec<f64>> = linear.iter().map(|_| Vec::new()).collect();
        let mut outputs = Vec::new();
        for own in 0..axes.len() {
            let cells = self.cells(own);
            for first in (0..cells).step_by(LANES) {
                let mut z: Vec<Lane> = vec![[0.0; LANES]; self.problem.model.len()];
                for lane in 0..LANES {
                    for other in 0..axes.len() {
                        let cell = if other == own { (first + lane).min(cells - 1) } else { 0 };
                        self.place(other, cell, &mut |j, value| z[j][lane] = value);
                    }
                }
                tabulate(basis, &z, gathered, scratch, &mut outputs);
                let output = |l: usize, lane: usize| {
                    let stride = gathered.stride;
                    let values = outputs[l * stride + lane..(l + 1) * stride].iter().step_by(LANES);
                    values.take(n).copied().collect::<Vec<f64>>()
                };
                for (l, column) in columns.iter_mut().enumerate() {
                    match block[l] {
                        Some(block) if block == own => {
                            (0..LANES.min(cells - first)).for_each(|lane| column.extend(output(l, lane)));
                        }
                        None if column.is_empty() => column.extend(output(l, 0)),
                        _ => {}
                    }
                }
            }
        }
        columns
    }

    fn column(&self, l: usize, cells: [usize; 2]) -> &[f64] {
        let n = self.y.len();
        let cell = self.above.block[l].map_or(0, |block| cells[block]);
        &self.columns[l][cell * n..(cell + 1) * n]
    }

    /// E at a distance on the side of `sign`, inside its box; None where it reaches into the data.
    fn floor(&self, sign: f64, distance: f64) -> Option<f64> {
        let at = self.curve * self.problem.model.len() + self.above.floor;
        let range = self.highest - self.lowest;
        let floor = if sign > 0.0 { self.lowest - distance * range } else { self.highest + distance * range };
        let floor = floor.max(self.problem.lower[at]).min(self.problem.upper[at]);
        (if sign > 0.0 { floor < self.lowest } else { floor > self.highest }).then_some(floor)
    }

    /// log |y − E| and its weights.
    fn target(&self, floor: f64) -> (Vec<f64>, Vec<f64>) {
        let above = |y: &f64| (y - floor).abs();
        let target = self.y.iter().map(|y| above(y).ln()).collect();
        let weight = self.y.iter().zip(&self.root).map(|(y, root)| (above(y) * root).powi(2)).collect();
        (target, weight)
    }

    /// The residual of the linear parameters' best values and these, inside their boxes.
    fn solve(&self, matrix: &Matrix, right: &Vector, squares: f64) -> (f64, Vector) {
        let count = self.above.linear.len();
        let p = self.problem.model.len();
        let mut held: [Option<f64>; MOST_LINEAR] = [None; MOST_LINEAR];
        let mut solution = [0.0; MOST_LINEAR];
        for _ in 0..count {
            solution = least_squares(count, matrix, right, &held);
            let mut left = false;
            for l in 0..count {
                let j = self.above.linear[l];
                if j == self.above.amplitude || held[l].is_some() {
                    continue;
                }
                let (lower, upper) = (self.problem.lower[self.curve * p + j], self.problem.upper[self.curve * p + j]);
                if solution[l] < lower || solution[l] > upper {
                    held[l] = Some(solution[l].max(lower).min(upper));
                    left = true;
                }
            }
            if !left {
                break;
            }
        }
        let mut residual = squares;
        for l in 0..count {
            residual -= 2.0 * right[l] * solution[l];
            for m in 0..count {
                residual += solution[l] * matrix[l][m] * solution[m];
            }
        }
        (if residual.is_finite() { residual.max(0.0) } else { f64::INFINITY }, solution)
    }

    /// The best distance at every combination of cells: the second block's cells run fastest.
    fn best(&self) -> Vec<Best> {
        let (first, second) = (self.cells(0), self.cells(1));
        let nothing = Best { residual: f64::INFINITY, distance: 0.0, sign: 1.0 };
        let mut best = vec![nothing; first * second];
        let (count, block) = (self.above.linear.len(), &self.above.block);
        for sign in [1.0, -1.0] {
            for step in 0..DISTANCES {
                let distance = NEAREST * (FARTHEST / NEAREST).powf(step as f64 / (DISTANCES - 1) as f64);
                let Some(floor) = self.floor(sign, distance) else { continue };
                let (target, weight) = self.target(floor);
                let squares = product(&weight, &target, &target);
                // Scalar products by cell: of the first block, of the second, or of both.
                let cells = |l: usize, m: Option<usize>| {
                    let blocks = [block[l], m.and_then(|m| block[m])];
                    [0, 1].map(|b| if blocks.contains(&Some(b)) { self.cells(b) } else { 1 })
                };
                let table = |l: usize, m: Option<usize>| -> ([usize; 2], Vec<f64>) {
                    let [a, b] = cells(l, m);
                    let mut values = Vec::with_capacity(a * b);
                    for i in 0..a {
                        for j in 0..b {
                            let other = m.map_or(&target[..], |m| self.column(m, [i, j]));
                            values.push(product(&weight, self.column(l, [i, j]), other));
                        }
                    }
                    ([a, b], values)
                };
                let products: Vec<Vec<_>> = (0..count).map(|l| (0..=l).map(|m| table(l, Some(m))).collect()).collect();
                let rights: Vec<_> = (0..count).map(|l| table(l, None)).collect();
                let entry = |(sizes, values): &([usize; 2], Vec<f64>), i: usize, j: usize| {
                    values[i.min(sizes[0] - 1) * sizes[1] + j.min(sizes[1] - 1)]
                };
                for i in 0..first {
                    // Of two breaks that may change places, the first block's comes first.
                    for j in (if self.exchangeable() { i } else { 0 })..second {
                        let (mut matrix, mut right) = ([[0.0; MOST_LINEAR]; MOST_LINEAR], [0.0; MOST_LINEAR]);
                        for l in 0..count {
                            right[l] = entry(&rights[l], i, j);
                            for m in 0..=l {
                                matrix[l][m] = entry(&products[l][m], i, j);
                                matrix[m][l] = matrix[l][m];
                            }
                        }
                        let (residual, _) = self.solve(&matrix, &right, squares);
                        let known = &mut best[i * second + j];
                        if residual < known.residual {
                            *known = Best { residual, distance, sign };
                        }
                    }
                }
            }
        }
        best
    }

    /// The floor and the linear parameters at every combination of cells, from its best distance.
    fn settled(&self, best: &[Best], memory: &mut settle::Memory) -> Vec<Option<Settled>> {
        let (second, p) = (self.cells(1), self.problem.model.len());
        let bounds = |j: usize| (self.problem.lower[self.curve * p + j], self.problem.upper[self.curve * p + j]);
        let own_box = |&j: &usize| if j == self.above.amplitude { OPEN } else { bounds(j) };
        let boxes: Vec<(f64, f64)> = self.above.linear.iter().map(own_box).collect();
        let floor = bounds(self.above.floor);
        let curve = Curve { y: &self.y, root: &self.root, floor, boxes: &boxes, columns: &self.columns };
        let (mut points, mut starts) = (Vec::new(), Vec::new());
        for (point, best) in best.iter().enumerate().filter(|(_, best)| best.residual.is_finite()) {
            let Some(floor) = self.floor(best.sign, best.distance) else { continue };
            let cells = [point / second, point % second];
            let mut columns = [0; MOST_LINEAR];
            for (column, block) in columns.iter_mut().zip(&self.above.block) {
                *column = block.map_or(0, |block| cells[block]);
            }
            points.push(point);
            starts.push(Start { floor, columns });
        }
        let mut found = Vec::with_capacity(starts.len());
        settle::settle(&curve, &starts, memory, &mut found);
        let mut settled = vec![None; best.len()];
        points.into_iter().zip(found).for_each(|(point, found)| settled[point] = found);
        settled
    }

    /// The coordinates of the curve's crowd, best first.
    fn proposals(&self, memory: &mut settle::Memory) -> Vec<f64> {
        let best = self.best();
        let second = self.cells(1);
        let sizes: Vec<usize> = self.picks.iter().flatten().map(Vec::len).collect();
        let settled = self.settled(&best, memory);
        let residual = |point: usize| settled[point].map_or(f64::INFINITY, |settled| settled.residual);
        let axes = self.above.axes.iter().flatten();
        let places: Vec<bool> = axes.map(|&axis| is_place(self.problem, axis)).collect();
        let mut found: Vec<usize> = (0..best.len())
            .filter(|&point| residual(point).is_finite() && is_lowest_place(&sizes, &places, point, &residual))
            .collect();
        found.sort_by(|&a, &b| residual(a).total_cmp(&residual(b)).then(a.cmp(&b)));
        found.truncate(CROWD[self.above.axes.len() - 1]);
        let model = self.problem.model;
        let mut coordinates = Vec::with_capacity(found.len() * model.len());
        for point in found {
            let Some(Settled { floor, solution, .. }) = settled[point] else { continue };
            let sign = if floor < self.lowest { 1.0 } else { -1.0 };
            let cells = [point / second, point % second];
            let mut z = vec![0.0; model.len()];
            z[self.above.floor] = floor;
            for block in 0..self.above.axes.len() {
                self.place(block, cells[block], &mut |j, value| z[j] = value);
            }
            for (l, &j) in self.above.linear.iter().enumerate() {
                z[j] = if j == self.above.amplitude { sign * solution[l].exp() } else { solution[l] };
            }
            if z.iter().all(|z| z.is_finite()) {
                coordinates.extend(z);
            }
        }
        coordinates
    }
}

/// Whether a point is lower than its neighbours along the axes that are places, the others standing still.
fn is_lowest_place(sizes: &[usize], places: &[bool], point: usize, residual: &impl Fn(usize) -> f64) -> bool {
    let own = residual(point);
    let mut stride = 1;
    for (&size, &place) in sizes.iter().zip(places).rev() {
        let cell = point / stride % size;
        if place && (cell > 0 && residual(point - stride) <= own || cell + 1 < size && residual(point + stride) < own) {
            return false;
        }
        stride *= size;
    }
    true
}

/// Whether an axis is the place of a break.
fn is_place(problem: &Problem, axis: usize) -> bool {
    problem.model.roles[problem.model.projection.nonlinear[axis]].subject().is_some()
}

/// At most `most` of `cells`, evenly, both ends included.
fn evenly(cells: usize, most: usize) -> Vec<usize> {
    let count = cells.min(most);
    (0..count).map(|i| if count > 1 { i * (cells - 1) / (count - 1) } else { cells / 2 }).collect()
}

/// Σ w a b
fn product(w: &[f64], a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let chunks = || w.chunks_exact(LANES).zip(a.chunks_exact(LANES)).zip(b.chunks_exact(LANES));
    for ((w, a), b) in chunks() {
        sums = each!(|i| sums[i] + w[i] * a[i] * b[i]);
    }
    let rest = w.len() / LANES * LANES;
    let tail: f64 = (rest..w.len()).map(|i| w[i] * a[i] * b[i]).sum();
    sums.iter().sum::<f64>() + tail
}

/// Solves the normal equations, scaled to a unit diagonal; parameters that are held, or that are combinations of others,
/// stay where they are.
fn least_squares(count: usize, matrix: &Matrix, right: &Vector, held: &[Option<f64>; MOST_LINEAR]) -> Vector {
    const DEPENDENT: f64 = 1e-12;
    let mut scale = [0.0; MOST_LINEAR];
    for l in 0..count {
        scale[l] = if held[l].is_none() && matrix[l][l] > 0.0 { 1.0 / matrix[l][l].sqrt() } else { 0.0 };
    }
    let mut root: Matrix = [[0.0; MOST_LINEAR]; MOST_LINEAR];
    let mut solution = [0.0; MOST_LINEAR];
    for i in 0..count {
        for j in 0..=i {
            let known: f64 = (0..j).map(|m| root[i][m] * root[j][m]).sum();
            let left = matrix[i][j] * scale[i] * scale[j] - known;
            root[i][j] = if i != j {
                if root[j][j] > 0.0 { left / root[j][j] } else { 0.0 }
            } else if left > DEPENDENT {
                left.sqrt()
            } else {
                0.0
            };
        }
        let fixed: f64 = (0..count).map(|m| held[m].map_or(0.0, |value| matrix[i][m] * value)).sum();
        let known: f64 = (0..i).map(|m| root[i][m] * solution[m]).sum();
        let left = (right[i] - fixed) * scale[i] - known;
        solution[i] = if root[i][i] > 0.0 { left / root[i][i] } else { 0.0 };
    }
    for i in (0..count).rev() {
        let known: f64 = (i + 1..count).map(|m| root[m][i] * solution[m]).sum();
        solution[i] = if root[i][i] > 0.0 { (solution[i] - known) / root[i][i] } else { 0.0 };
    }
    for l in 0..count {
        solution[l] = held[l].unwrap_or(solution[l] * scale[l]);
    }
    solution
}
