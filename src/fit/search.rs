//! Search on the CPU: the projection's residual at every grid point, and the basins among them.
//!
//! In: up to eight curves of a problem. Out: for each its distinct basins, best first, as coordinates of the model's own
//! chart. A basin is a grid point lower than all its neighbours, so that a curve with two valleys is seen to have two.
//!
//! A basis function that depends on one axis is computed once per cell, and so is its scalar product with every other such
//! function of the same axis: on Chinchilla's 256 points only the product of its two power terms is left per point.

use super::decay::{self, Aimed, Decay, Ends, Exact};
use super::exact;
use super::lanes::{Gathered, at, dot, each, factorise, solve_lower, solve_upper, triangle};
use super::model::Model;
use super::problem::{Grid, Problem};
use super::{Proposals, Space};
use crate::evaluate::elementary;
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Lane, POINTS, REPEATED, Scratch, repeat};

/// Most basins kept per curve.
pub const MOST_BASINS: usize = 8;
/// Most points of a list kept per curve: they have no neighbours, and several of the best lie in one valley.
const MOST_LISTED: usize = 24;
/// An end of the axis is worth a descent if its residual is at most this many times the best: clean data pay nothing.
pub const PLAUSIBLE: f64 = 4.0;
/// A basis function that is this nearly a combination of the others (squared sine of the angle) is left out.
pub const DEPENDENT: f64 = 1e-12;

/// Memory of the search, reused from pack to pack.
#[derive(Debug, Default)]
pub struct Workspace {
    gathered: Gathered,
    scratch: Scratch,
    /// Roots of the weights; of the weights in the projection's space.
    root: Vec<f64>,
    root_weight: Vec<f64>,
    target: Vec<f64>,
    /// Columns by cell (functions of one axis) or once (constant and two-axis functions, the latter rewritten per point).
    columns: Vec<Vec<f64>>,
    /// The column of ones times the root of the weight has been taken off every other column, and off the target, where it
    /// is a column itself: how much of it, like `columns`, and of the target.
    shares: Vec<Vec<Lane>>,
    target_share: Lane,
    /// Scalar products by cell where at most one axis is involved.
    products: Vec<Vec<Lane>>,
    residual: Vec<Lane>,
    solution: Vec<Lane>,
    coordinates: Vec<Lane>,
    decay: decay::Workspace,
    exact: exact::Memory,
}

kernel!(
    /// Searches `curves` (1 to 8) and appends their proposals, in the order given, to `proposals`.
    pub fn search, fn search_kernel(problem: &Problem, curves: &[usize], workspace: &mut Workspace, proposals: &mut Proposals) = search_generic;
);

#[inline(always)]
fn search_generic<const SET: u8>(
    problem: &Problem,
    curves: &[usize],
    workspace: &mut Workspace,
    proposals: &mut Proposals,
) {
    workspace.gathered.gather(problem, curves);
    aim::<SET>(problem.model, workspace);
    let decay = problem.model.programs.decay.as_ref().filter(|_| problem.grid.listed.is_none());
    let doubtful = match decay {
        Some(decay) => search_decay::<SET>(problem, decay, curves, workspace),
        None => [true; LANES],
    };
    if doubtful.contains(&true) {
        if decay.is_some() {
            aim::<SET>(problem.model, workspace);
        }
        tabulate::<SET>(problem, curves, workspace);
        project::<SET>(problem, curves, workspace);
        if exact::is_looked_at(problem.model, problem.loss, &problem.grid) {
            look_exactly::<SET>(problem, curves, workspace);
        }
    }
    for (lane, &curve) in curves.iter().enumerate() {
        match decay {
            Some(decay) if !doubtful[lane] => {
                propose_decay(problem, decay, workspace, lane, &mut proposals.coordinates);
            }
            _ => {
                for point in basins(problem, &|point| workspace.residual[point][lane]) {
                    propose_point(problem, curve, workspace, lane, point, &mut proposals.coordinates);
                }
            }
        }
        proposals.offsets.push(proposals.coordinates.len() / problem.model.len());
    }
}

/// The faster way for laws with one exponential of the one searched parameter; true for curves that it leaves to the other.
#[inline(always)]
fn search_decay<const SET: u8>(
    problem: &Problem,
    decay: &Decay,
    curves: &[usize],
    workspace: &mut Workspace,
) -> [bool; LANES] {
    let model = problem.model;
    let programs = &model.programs;
    // The constant columns, then the offset, which the target is freed of.
    let others = programs.columns.len() - 1;
    workspace.columns.resize_with(others.max(workspace.columns.len()), Vec::new);
    for (place, column) in (0..=others).filter(|&column| column != decay.column).enumerate() {
        if column == others && programs.columns[column].constant_output(0) == Some(0.0) {
            continue;
        }
        let mut values = std::mem::take(&mut workspace.columns[place]);
        values.resize(workspace.gathered.stride, 0.0);
        fill_column::<SET>(problem, curves, workspace, column, &[0], &mut values);
        if column == others {
            for (target, &offset) in workspace.target.iter_mut().zip(&values) {
                *target -= offset;
            }
        }
        workspace.columns[place] = values;
    }
    let Workspace { gathered, root, root_weight, target, columns, decay: memory, .. } = workspace;
    let stride = gathered.stride;
    let aimed = Aimed {
        u: &gathered.inputs[decay.input * stride..][..stride],
        root: &root_weight[..stride],
        target: &target[..stride],
        constants: &columns[..others - 1],
    };
    let unit = least_positive(if model.space == Space::Log { &root[..stride] } else { &root_weight[..stride] });
    let ends = ends_are_tried(model, &problem.grid).then_some(Ends { plausible: PLAUSIBLE, unit });
    // A robust fit begins elsewhere than at the least squares.
    let exact = exact::is_behind_a_proxy(model, problem.loss)
        .then(|| Exact { response: &gathered.response[..stride], root: &root[..stride] });
    memory.search::<SET>(decay, &problem.grid, curves, &aimed, ends, exact)
}

/// Appends what [`search_decay`] found of a lane.
fn propose_decay(problem: &Problem, decay: &Decay, workspace: &Workspace, lane: usize, coordinates: &mut Vec<f64>) {
    let projection = &problem.model.projection;
    let (memory, length) = (&workspace.decay, 1 + projection.linear.len());
    for basin in 0..memory.found[lane] {
        let solution = &memory.solution[basin * length..][..length];
        propose(problem, coordinates, |own| {
            own[projection.nonlinear[0]] = solution[0][lane];
            let mut constants = &solution[2..];
            for (l, &j) in projection.linear.iter().enumerate() {
                own[j] = if l == decay.column {
                    solution[1][lane]
                } else {
                    let (first, rest) = constants.split_first().expect("one per constant column");
                    constants = rest;
                    first[lane]
                };
            }
        });
    }
}

/// Target and square-root weights in the projection's space.
#[inline(always)]
fn aim<const SET: u8>(model: &Model, workspace: &mut Workspace) {
    let Workspace { gathered, root, root_weight, target, .. } = workspace;
    // Plain loops: an iterator's closure that is left out of line would lose the vector instructions.
    let stride = gathered.stride;
    for values in [&mut *root, root_weight, target] {
        values.resize(stride, 0.0);
    }
    let (t, w) = (&gathered.response[..stride], &gathered.weight[..stride]);
    let (root, target, root_weight) = (&mut root[..stride], &mut target[..stride], &mut root_weight[..stride]);
    // Even weights, and the zeros of points that fill a lane up, are their own roots, which are dear.
    let mut plain = true;
    for i in 0..stride {
        plain &= w[i] * w[i] == w[i];
        root[i] = w[i];
    }
    if !plain {
        for root in &mut *root {
            *root = root.sqrt();
        }
    }
    match (model.space, model.projection.space) {
        (Space::Log, Space::Linear) => {
            // w/y²: to first order the residual of the logarithm.
            for i in 0..stride {
                target[i] = elementary::exp::<SET>(t[i]);
                root_weight[i] = root[i] / target[i];
            }
        }
        (Space::Linear, Space::Log) => {
            // Rows that have no logarithm stay out of the proxy; the exact objective sees them.
            for i in 0..stride {
                target[i] = if t[i] > 0.0 { elementary::log::<SET>(t[i]) } else { 0.0 };
                root_weight[i] = if t[i] > 0.0 { root[i] * t[i] } else { 0.0 };
            }
        }
        _ => {
            target.copy_from_slice(t);
            root_weight.copy_from_slice(root);
        }
    }
    for (target, &root) in target.iter_mut().zip(&*root_weight) {
        *target *= root;
    }
}

/// For every lane its smallest positive value: of the roots of the weights, the smallest size of what a relative residual of one is in a
/// projection in the other space than the model's.
#[inline(always)]
fn least_positive(values: &[f64]) -> Lane {
    let mut least = [f64::INFINITY; LANES];
    for values in values.chunks_exact(LANES) {
        least = each!(|i| if values[i] > 0.0 && values[i] < least[i] { values[i] } else { least[i] });
    }
    least
}

/// Computes the columns (basis functions, then the offset) and the scalar products that one axis determines.
#[inline(always)]
fn tabulate<const SET: u8>(problem: &Problem, curves: &[usize], workspace: &mut Workspace) {
    let model = problem.model;
    let programs = &model.programs;
    let count = programs.columns.len();
    workspace.columns.resize_with(count.max(workspace.columns.len()), Vec::new);
    for column in 0..count {
        let cells = match programs.axes[column][..] {
            [axis] => problem.grid.cells[axis],
            _ => 1,
        };
        let stride = workspace.gathered.stride;
        let mut values = std::mem::take(&mut workspace.columns[column]);
        values.resize(cells * stride, 0.0);
        if programs.axes[column].len() <= 1 {
            let mut position = vec![0; problem.grid.axes()];
            for cell in 0..cells {
                if let [axis] = programs.axes[column][..] {
                    position[axis] = cell;
                }
                fill_column::<SET>(
                    problem,
                    curves,
                    workspace,
                    column,
                    &position,
                    &mut values[cell * stride..][..stride],
                );
            }
        }
        workspace.columns[column] = values;
    }
    centre::<SET>(problem, workspace);
    // Vectors of the scalar products: the columns, then the target.
    workspace.products.resize_with(triangle(count + 1).max(workspace.products.len()), Vec::new);
    let stride = workspace.gathered.stride;
    for i in 0..=count {
        for j in 0..=i {
            let mut products = std::mem::take(&mut workspace.products[at(i, j)]);
            products.clear();
            if let Some(axis) = shared_axis(&programs.axes, i, j) {
                let cells = axis.map_or(1, |axis| problem.grid.cells[axis]);
                for cell in 0..cells {
                    products.push(dot::<SET>(
                        vector(workspace, &programs.axes, i, cell, stride),
                        vector(workspace, &programs.axes, j, cell, stride),
                    ));
                }
            }
            workspace.products[at(i, j)] = products;
        }
    }
}

/// Takes what is constant off the target and the columns that are tabulated, where a constant is a column itself. Columns that are
/// constants but for a small part (an exponent near zero, a term beside a much larger one) then keep their digits in the
/// scalar products.
#[inline(always)]
fn centre<const SET: u8>(problem: &Problem, workspace: &mut Workspace) {
    let programs = &problem.model.programs;
    let Workspace { gathered, root_weight, target, columns, shares, target_share, .. } = workspace;
    let stride = gathered.stride;
    shares.resize_with(programs.columns.len().max(shares.len()), Vec::new);
    let Some((constant, _)) = programs.constant else { return };
    *target_share = take_off::<SET>(&mut target[..stride], &root_weight[..stride]);
    for (column, shares) in shares.iter_mut().enumerate().take(programs.columns.len()) {
        shares.clear();
        if column != constant {
            // A plain loop: an iterator's closure that is left out of line would lose the vector instructions.
            for values in columns[column].chunks_exact_mut(stride) {
                shares.push(take_off::<SET>(values, &root_weight[..stride]));
            }
        }
    }
}

/// Leaves of `values` what is at right angles to `unit`, and nothing where that is rounding; returns how much of it was in them.
#[inline(always)]
fn take_off<const SET: u8>(values: &mut [f64], unit: &[f64]) -> Lane {
    let (product, square, whole) = (dot::<SET>(values, unit), dot::<SET>(unit, unit), dot::<SET>(values, values));
    let share = each!(|k| if square[k] > 0.0 { product[k] / square[k] } else { 0.0 });
    let shares = repeat(&share);
    for (values, unit) in values.chunks_mut(REPEATED).zip(unit.chunks(REPEATED)) {
        for ((value, &unit), &share) in values.iter_mut().zip(unit).zip(&shares) {
            *value -= share * unit;
        }
    }
    let left = dot::<SET>(values, values);
    let kept = each!(|k| if left[k] <= DEPENDENT * whole[k] { 0.0 } else { 1.0 });
    if kept.contains(&0.0) {
        for values in values.chunks_exact_mut(LANES) {
            for k in 0..LANES {
                values[k] *= kept[k];
            }
        }
    }
    share
}

/// Column `index` at `cell` of its axis; the target behind the last column.
#[inline(always)]
fn vector<'a>(workspace: &'a Workspace, axes: &[Vec<usize>], index: usize, cell: usize, stride: usize) -> &'a [f64] {
    match axes.get(index) {
        None => &workspace.target[..stride],
        Some(own) => &workspace.columns[index][if own.len() == 1 { cell * stride } else { 0 }..][..stride],
    }
}

/// Some(None): no axis; Some(Some(axis)): one axis; None: several.
#[inline(always)]
fn shared_axis(axes: &[Vec<usize>], i: usize, j: usize) -> Option<Option<usize>> {
    let empty = &[][..];
    let own = |index: usize| axes.get(index).map_or(empty, |own| own.as_slice());
    match (own(i), own(j)) {
        ([], []) => Some(None),
        ([axis], []) | ([], [axis]) => Some(Some(*axis)),
        ([a], [b]) if a == b => Some(Some(*a)),
        _ => None,
    }
}

/// Evaluates one column, times the square-root weight, with the axes at the cells `position`.
#[inline(always)]
fn fill_column<const SET: u8>(
    problem: &Problem,
    curves: &[usize],
    workspace: &mut Workspace,
    column: usize,
    position: &[usize],
    values: &mut [f64],
) {
    let model = problem.model;
    let Workspace { gathered, scratch, root_weight, coordinates, .. } = workspace;
    let tape = &model.programs.columns[column];
    coordinates.clear();
    coordinates.resize(model.len(), [0.0; LANES]);
    for (axis, &j) in model.projection.nonlinear.iter().enumerate() {
        coordinates[j] = each!(|lane| problem.grid.value(curves[lane.min(curves.len() - 1)], axis, position[axis]));
    }
    tape.prepare::<SET>(scratch, coordinates);
    for first in (0..gathered.points).step_by(POINTS) {
        let points = POINTS.min(gathered.points - first);
        tape.run::<SET>(scratch, &gathered.inputs, gathered.stride, first, points);
        let output = tape.output(0, scratch, &gathered.inputs, gathered.stride, first, points);
        let block = first * LANES..(first + points) * LANES;
        for ((value, &output), &root) in values[block.clone()].iter_mut().zip(output).zip(&root_weight[block]) {
            *value = output * root;
        }
    }
}

/// Evaluates the columns that depend on several axes, these being at the cells `position`.
#[inline(always)]
fn fill_point<const SET: u8>(problem: &Problem, curves: &[usize], workspace: &mut Workspace, position: &[usize]) {
    let programs = &problem.model.programs;
    let stride = workspace.gathered.stride;
    for column in (0..programs.columns.len()).filter(|&column| programs.axes[column].len() > 1) {
        let mut values = std::mem::take(&mut workspace.columns[column]);
        fill_column::<SET>(problem, curves, workspace, column, position, &mut values[..stride]);
        if programs.constant.is_some() {
            workspace.shares[column][0] = take_off::<SET>(&mut values[..stride], &workspace.root_weight[..stride]);
        }
        workspace.columns[column] = values;
    }
}

/// Solves for the linear coordinates at every grid point.
#[inline(always)]
fn project<const SET: u8>(problem: &Problem, curves: &[usize], workspace: &mut Workspace) {
    let programs = &problem.model.programs;
    let count = programs.columns.len();
    let linear = count - 1;
    let stride = workspace.gathered.stride;
    let points = problem.grid.points();
    workspace.residual.clear();
    workspace.solution.clear();
    let mut position = vec![0; problem.grid.axes()];
    let mut gram = vec![[0.0; LANES]; triangle(count + 1)];
    let mut factor = vec![[0.0; LANES]; triangle(linear)];
    let mut right = vec![[0.0; LANES]; linear];
    let mut scale = vec![[0.0; LANES]; linear];
    for point in 0..points {
        for (axis, cell) in position.iter_mut().enumerate() {
            *cell = problem.grid.cell(point, axis);
        }
        fill_point::<SET>(problem, curves, workspace, &position);
        for i in 0..=count {
            for j in 0..=i {
                gram[at(i, j)] = match shared_axis(&programs.axes, i, j) {
                    Some(axis) => workspace.products[at(i, j)][axis.map_or(0, |axis| position[axis])],
                    None => {
                        let cell = |index: usize| match programs.axes.get(index).map(Vec::as_slice) {
                            Some([axis]) => position[*axis],
                            _ => 0,
                        };
                        let a = vector(workspace, &programs.axes, i, cell(i), stride);
                        dot::<SET>(a, vector(workspace, &programs.axes, j, cell(j), stride))
                    }
                };
            }
        }
        // The offset is the last column, the target stands behind it: t' = t − offset.
        let (offset, target) = (linear, count);
        for i in 0..linear {
            let norm = gram[at(i, i)];
            scale[i] = each!(|k| if norm[k] > 0.0 { 1.0 / norm[k].sqrt() } else { 0.0 });
            let (with_target, with_offset) = (gram[at(target, i)], gram[at(offset, i)]);
            right[i] = each!(|k| (with_target[k] - with_offset[k]) * scale[i][k]);
            for j in 0..i {
                let product = gram[at(i, j)];
                factor[at(i, j)] = each!(|k| product[k] * scale[i][k] * scale[j][k]);
            }
            factor[at(i, i)] = each!(|k| if norm[k] > 0.0 { 1.0 } else { 0.0 });
        }
        let (tt, to, oo) = (gram[at(target, target)], gram[at(target, offset)], gram[at(offset, offset)]);
        let mut residual = each!(|k| tt[k] - 2.0 * to[k] + oo[k]);
        factorise::<SET>(&mut factor, linear, DEPENDENT);
        solve_lower::<SET>(&factor, &mut right);
        for part in &right {
            residual = each!(|k| elementary::fused::<SET>(-part[k], part[k], residual[k]));
        }
        solve_upper::<SET>(&factor, &mut right);
        for (part, scale) in right.iter_mut().zip(&scale) {
            *part = each!(|k| part[k] * scale[k]);
        }
        if let Some((constant, value)) = programs.constant {
            let taken = taken_off::<SET>(&programs.axes, &workspace.shares, constant, &position, &right);
            let (own, whole) = (right[constant], workspace.target_share);
            right[constant] = each!(|k| own[k] + (whole[k] - taken[k]) / value);
        }
        workspace.solution.extend_from_slice(&right);
        // Rounding may leave a perfect fit slightly negative; what is not finite never wins.
        workspace.residual.push(each!(|k| if residual[k].is_finite() { residual[k].max(0.0) } else { f64::INFINITY }));
    }
}

/// How much of a constant was taken off the columns, the offset last, times their coordinates.
#[inline(always)]
fn taken_off<const SET: u8>(
    axes: &[Vec<usize>],
    shares: &[Vec<Lane>],
    constant: usize,
    position: &[usize],
    solution: &[Lane],
) -> Lane {
    let share = |column: usize| shares[column][if let [axis] = axes[column][..] { position[axis] } else { 0 }];
    let mut taken = share(solution.len());
    for l in (0..solution.len()).filter(|&l| l != constant) {
        let (share, part) = (share(l), solution[l]);
        taken = each!(|k| elementary::fused::<SET>(part[k], share[k], taken[k]));
    }
    taken
}

/// Where a curve's residuals leave open which grid points are basins of what they are a proxy of, looks at that: replaces
/// residual and solution of every point that may be the lowest.
#[inline(always)]
fn look_exactly<const SET: u8>(problem: &Problem, curves: &[usize], workspace: &mut Workspace) {
    let programs = &problem.model.programs;
    let (points, linear) = (problem.grid.points(), programs.columns.len() - 1);
    let stride = workspace.gathered.stride;
    let weights = dot::<SET>(&workspace.root[..stride], &workspace.root[..stride]);
    // Bit i: of lane i.
    let mut open = vec![0u8; points];
    for lane in 0..curves.len() {
        let residual = |point: usize| workspace.residual[point][lane];
        let bottoms = bottoms(&problem.grid, &residual);
        let Some(&best) = bottoms.first() else { continue };
        let level = exact::open_level(residual(best), weights[lane]);
        let is_open = |point: usize| residual(point).is_finite() && residual(point) <= level;
        let beside = |point: usize| bottoms.iter().any(|&bottom| are_neighbours(&problem.grid, point, bottom));
        if (0..points).any(|point| is_open(point) && !beside(point)) {
            (0..points).filter(|&point| is_open(point)).for_each(|point| open[point] |= 1 << lane);
        }
    }
    let mut memory = std::mem::take(&mut workspace.exact);
    let mut position = vec![0; problem.grid.axes()];
    for point in (0..points).filter(|&point| open[point] != 0) {
        for (axis, cell) in position.iter_mut().enumerate() {
            *cell = problem.grid.cell(point, axis);
        }
        fill_point::<SET>(problem, curves, workspace, &position);
        let cell = |index: usize| if let [axis] = programs.axes[index][..] { position[axis] } else { 0 };
        let column = |index: usize| vector(workspace, &programs.axes, index, cell(index), stride);
        let columns: Vec<&[f64]> = (0..linear).map(column).collect();
        let seen = exact::Seen { columns: &columns, offset: column(linear), root: &workspace.root[..stride] };
        let mut solution = workspace.solution[point * linear..(point + 1) * linear].to_vec();
        // The columns are less what is constant in them; so is the coordinate of the constant, for as long.
        let taken = |solution: &[Lane]| {
            programs.constant.map(|(constant, value)| {
                (constant, value, taken_off::<SET>(&programs.axes, &workspace.shares, constant, &position, solution))
            })
        };
        if let Some((constant, value, taken)) = taken(&solution) {
            solution[constant] = each!(|i| solution[constant][i] + taken[i] / value);
        }
        let residual = exact::minimise::<SET>(&seen, &mut solution, &mut memory);
        if let Some((constant, value, taken)) = taken(&solution) {
            solution[constant] = each!(|i| solution[constant][i] - taken[i] / value);
        }
        for lane in (0..curves.len()).filter(|lane| open[point] >> lane & 1 == 1) {
            workspace.residual[point][lane] = residual[lane];
            for (l, own) in solution.iter().enumerate() {
                workspace.solution[point * linear + l][lane] = own[lane];
            }
        }
    }
    workspace.exact = memory;
}

/// Whether two points of a product grid are at most a cell apart on every axis.
fn are_neighbours(grid: &Grid, one: usize, other: usize) -> bool {
    (0..grid.axes()).all(|axis| grid.cell(one, axis).abs_diff(grid.cell(other, axis)) <= 1)
}

/// Whether the ends of the one axis are proposed beside the basins: the residuals of a proxy may slope down to one end
/// where the exact objective has a valley at the other too.
pub fn ends_are_tried(model: &Model, grid: &Grid) -> bool {
    model.projection.space != model.space && grid.axes() == 1 && grid.listed.is_none()
}

/// The grid points that are lower than all their neighbours, best first; of a list every point with a residual.
fn bottoms(grid: &Grid, residual: &impl Fn(usize) -> f64) -> Vec<usize> {
    let is_bottom = |&point: &usize| {
        residual(point).is_finite() && (grid.listed.is_some() || is_lowest(&grid.cells, point, residual))
    };
    let mut found: Vec<usize> = (0..grid.points()).filter(is_bottom).collect();
    found.sort_by(|&a, &b| residual(a).total_cmp(&residual(b)).then(a.cmp(&b)));
    found
}

/// The best grid points that are lower than all their neighbours, and the ends of the one axis where they are plausible.
pub fn basins(problem: &Problem, residual: &impl Fn(usize) -> f64) -> Vec<usize> {
    let grid = &problem.grid;
    let mut found = bottoms(grid, residual);
    found.truncate(if grid.listed.is_some() { MOST_LISTED } else { MOST_BASINS });
    if ends_are_tried(problem.model, grid)
        && let Some(&best) = found.first()
    {
        let level = PLAUSIBLE * residual(best);
        for end in [0, grid.points() - 1] {
            if !found.contains(&end) && residual(end) <= level && found.len() < MOST_BASINS {
                found.push(end);
            }
        }
    }
    found
}

/// Whether a point of a product grid is lower than all its neighbours; of a flat stretch the first point counts.
fn is_lowest(cells: &[usize], point: usize, residual: &impl Fn(usize) -> f64) -> bool {
    let own = residual(point);
    // Every direction is a base-3 digit per axis: same, back, on.
    (1..3usize.pow(cells.len() as u32)).all(|direction| {
        let (mut neighbour, mut stride, mut digits) = (point, 1, direction);
        for &count in cells.iter().rev() {
            let cell = point / stride % count;
            match digits % 3 {
                1 if cell == 0 => return true,
                2 if cell + 1 == count => return true,
                1 => neighbour -= stride,
                2 => neighbour += stride,
                _ => {}
            }
            (stride, digits) = (stride * count, digits / 3);
        }
        let value = residual(neighbour);
        if neighbour < point { own < value } else { own <= value }
    })
}

/// Appends the coordinates of a grid point.
fn propose_point(
    problem: &Problem,
    curve: usize,
    workspace: &Workspace,
    lane: usize,
    point: usize,
    coordinates: &mut Vec<f64>,
) {
    let projection = &problem.model.projection;
    propose(problem, coordinates, |own| {
        for (l, &j) in projection.linear.iter().enumerate() {
            own[j] = workspace.solution[point * projection.linear.len() + l][lane];
        }
        for (axis, &j) in projection.nonlinear.iter().enumerate() {
            own[j] = problem.grid.value(curve, axis, problem.grid.cell(point, axis));
        }
    });
}

/// Appends the coordinates that `fill` writes in the projection's chart, converted to the model's own; none if they have
/// no counterpart there.
pub fn propose(problem: &Problem, coordinates: &mut Vec<f64>, fill: impl FnOnce(&mut [f64])) {
    let model = problem.model;
    let start = coordinates.len();
    coordinates.resize(start + model.len(), 0.0);
    let own = &mut coordinates[start..];
    fill(own);
    for (j, z) in own.iter_mut().enumerate() {
        let known = model.projection.coordinates[j];
        if known != model.coordinates[j] {
            *z = model.coordinates[j].encode(known.decode(*z));
        }
    }
    if own.iter().any(|z| !z.is_finite()) {
        coordinates.truncate(start);
    }
}
