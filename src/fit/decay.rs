//! Search where one parameter is searched and enters one exponential: `± A exp(± z u)` beside columns that it does not
//! touch. Most laws of one input are of this shape: a power of x with a floor, a decay in time.
//!
//! In: up to eight gathered curves with target and root of the weights. Out: per lane its basins, polished: the projected
//! objective is cheap enough here to follow each basin to its bottom by a few Gauss–Newton steps in the one parameter
//! (Kaufman 1975), so that the judge starts next to the minimum. Columns that nothing searched enters are projected out
//! once, which leaves one division per grid point.

use super::exact::open_level;
use super::lanes::{
    GROUP, add_product, at, dot, each, factorise, groups, groups_mut, solve_lower, solve_upper, triangle,
};
use super::problem::Grid;
use super::search::{DEPENDENT, MOST_BASINS};
use crate::evaluate::elementary::{exp_roughly, fused, log};
use crate::evaluate::tape::{LANES, Lane};
use crate::formula::graph::{Binary, Graph, Id, Node, Unary};

/// Passes over the points to polish a basin; the judge's full Newton steps do the rest.
const PASSES: usize = 3;
/// Longest period, in cells, of a grid whose exponentials are squared, and most squarings from one to the next.
pub const LONGEST_PERIOD: usize = 4;
pub const MOST_OCTAVES: usize = 3;
/// The exact objective is trusted with a relative step of at most so much.
const NEAR: f64 = 0.1;
/// A relative step this small ends the polishing.
const POLISHED: f64 = 1e-7;

/// The exponential among a projection's basis functions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decay {
    /// Its position among the basis functions.
    pub column: usize,
    /// u: an input of the model.
    pub input: usize,
    /// The basis function is `sign * exp(rate * z * u)`.
    sign: f64,
    rate: f64,
}

impl Decay {
    /// The exponential, if it is all that the one searched parameter enters. `columns`: the basis functions and, last, the
    /// offset; `axes`: the axes that each depends on.
    pub fn find(graph: &Graph, columns: &[Id], axes: &[Vec<usize>]) -> Option<Decay> {
        let mut searched = (0..columns.len()).filter(|&column| !axes[column].is_empty());
        let column = searched.next().filter(|&column| axes[column] == [0] && column + 1 < columns.len())?;
        if searched.next().is_some() {
            return None;
        }
        let (mut sign, mut node) = (1.0, graph.node(columns[column]));
        if let Node::Unary(Unary::Negate, inner) = node {
            (sign, node) = (-1.0, graph.node(inner));
        }
        let Node::Unary(Unary::Exp, exponent) = node else { return None };
        let (rate, input) = rate_of(graph, exponent)?;
        Some(Decay { column, input, sign, rate })
    }
}

/// `rate` and the input of `rate * parameter * input`.
fn rate_of(graph: &Graph, id: Id) -> Option<(f64, usize)> {
    match graph.node(id) {
        Node::Unary(Unary::Negate, inner) => rate_of(graph, inner).map(|(rate, input)| (-rate, input)),
        Node::Binary(Binary::Multiply, a, b) => match (graph.node(a), graph.node(b)) {
            (Node::Parameter(_), Node::Input(k)) | (Node::Input(k), Node::Parameter(_)) => Some((1.0, k as usize)),
            (Node::Constant(bits), _) => rate_of(graph, b).map(|(rate, input)| (rate * f64::from_bits(bits), input)),
            (_, Node::Constant(bits)) => rate_of(graph, a).map(|(rate, input)| (rate * f64::from_bits(bits), input)),
            _ => None,
        },
        _ => None,
    }
}

/// Eight gathered curves, aimed: arrays of `points * LANES`.
pub struct Aimed<'a> {
    pub u: &'a [f64],
    pub root: &'a [f64],
    /// Target less offset, times the root of the weight.
    pub target: &'a [f64],
    /// The columns that nothing searched enters, times the root of the weight.
    pub constants: &'a [Vec<f64>],
}

/// Memory of the search, and its results.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Whether a cell's exponential is a power of that of the cell one period before.
    squared: Vec<bool>,
    /// Σ t², the constants projected out.
    total: Lane,
    /// Of the constants, scaled to unit columns: factor of the Gram matrix, scales, the solved target.
    factor: Vec<Lane>,
    scale: Vec<Lane>,
    solved: Vec<Lane>,
    /// Per cell: z, Σ e², Σ e t, the residual, then Σ e c for every constant.
    z: Vec<Lane>,
    squares: Vec<Lane>,
    products: Vec<Lane>,
    residual: Vec<Lane>,
    constants: Vec<Lane>,
    /// Of one pass: Σ e c and Σ d c, scaled and solved.
    along: Vec<Lane>,
    across: Vec<Lane>,
    right: Vec<Lane>,
    /// Bit i of entry c: cell c is the bottom of a basin of lane i.
    bottoms: Vec<u8>,
    /// Basins per lane, and their cells, best first.
    pub found: [usize; LANES],
    cells: [[usize; MOST_BASINS]; LANES],
    /// Per basin: z, the amplitude, the constants' coordinates; z is NaN where nothing is proposed after all.
    pub solution: Vec<Lane>,
    anew: Anew,
}

/// What the squares of t − log f are taken of, where those of the target are a proxy; as long as the arrays of [`Aimed`].
pub struct Exact<'a> {
    /// t
    pub response: &'a [f64],
    /// Roots of the weights.
    pub root: &'a [f64],
}

/// Memory for curves that are aimed anew, as [`Aimed`].
#[derive(Debug, Default)]
struct Anew {
    root: Vec<f64>,
    target: Vec<f64>,
    constants: Vec<Vec<f64>>,
}

impl Anew {
    fn resize(&mut self, length: usize, constants: usize) {
        self.constants.resize_with(constants.max(self.constants.len()), Vec::new);
        for values in [&mut self.root, &mut self.target].into_iter().chain(&mut self.constants) {
            values.resize(length, 0.0);
        }
    }
}

/// When the first and the last cell are proposed beside the basins, although the projected residuals slope away from them:
/// where the exact objective may slope the other way.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The residual is at most so many times the best.
    pub plausible: f64,
    /// The least that a relative residual of one contributes to the root of the residual, over the points of a lane.
    pub unit: Lane,
}

/// What a pass over the points at one z per lane gives, the constants projected out.
struct Pass {
    /// Σ e², Σ e t, Σ e d, Σ d², Σ d t; d the slope of e.
    ee: Lane,
    et: Lane,
    ed: Lane,
    dd: Lane,
    dt: Lane,
    residual: Lane,
}

/// Of a pass: how the projected objective P falls away.
struct Valley {
    amplitude: Lane,
    /// The amplitude changes by −amplitude times this for every unit of z.
    tilt: Lane,
    /// −½ dP/dz over the amplitude, and the squared length of what a step in z changes, the amplitudes following.
    slope: Lane,
    length: Lane,
}

impl Pass {
    #[inline(always)]
    fn valley(&self) -> Valley {
        let Pass { ee, et, ed, dd, dt, .. } = self;
        let amplitude = each!(|i| if ee[i] > 0.0 { et[i] / ee[i] } else { 0.0 });
        let tilt = each!(|i| if ee[i] > 0.0 { ed[i] / ee[i] } else { 0.0 });
        let slope = each!(|i| dt[i] - amplitude[i] * ed[i]);
        let length = each!(|i| dd[i] - tilt[i] * ed[i]);
        Valley { amplitude, tilt, slope, length }
    }
}

impl Workspace {
    /// Searches all cells and polishes every basin; under `ends` the first and last cell are proposed too, as they stand, and
    /// under `exact` the best basin is moved towards the minimum of that. True for lanes whose residuals leave open which cells
    /// are basins of what is `exact`: they get no basin.
    #[inline(always)]
    pub fn search<const SET: u8>(
        &mut self,
        decay: &Decay,
        grid: &Grid,
        curves: &[usize],
        aimed: &Aimed,
        ends: Option<Ends>,
        exact: Option<Exact>,
    ) -> [bool; LANES] {
        self.project_constants::<SET>(aimed);
        self.tabulate::<SET>(decay, grid, curves, aimed);
        self.compare::<SET>(aimed);
        let doubtful = match &exact {
            Some(exact) => {
                let weights = dot::<SET>(exact.root, exact.root);
                std::array::from_fn(|lane| lane < curves.len() && self.is_doubtful(lane, weights[lane]))
            }
            None => [false; LANES],
        };
        for lane in 0..LANES {
            let searched = lane < curves.len() && !doubtful[lane];
            self.found[lane] = if searched { self.list(lane, ends.map(|ends| ends.plausible)) } else { 0 };
        }
        let rounds = self.found.iter().copied().fold(0, usize::max);
        self.solution.clear();
        // What the exact objective will move need not be the proxy's bottom to the last digit.
        let passes = if exact.is_some() { PASSES - 1 } else { PASSES };
        for basin in 0..rounds {
            self.polish::<SET>(decay, aimed, basin, passes, ends.as_ref());
        }
        if let Some(exact) = exact.filter(|_| rounds > 0) {
            self.sharpen::<SET>(decay, aimed, &exact);
        }
        doubtful
    }

    /// Whether a cell that is no basin's nor next to one's may be the lowest of what the residuals are a proxy of.
    fn is_doubtful(&self, lane: usize, weight: f64) -> bool {
        let residual = |cell: usize| self.residual[cell][lane];
        let best = (0..self.z.len()).map(residual).fold(f64::INFINITY, f64::min);
        let level = open_level(best, weight);
        let is_bottom = |cell: &usize| self.bottoms[*cell] >> lane & 1 == 1;
        (0..self.z.len()).any(|cell| {
            residual(cell).is_finite()
                && residual(cell) <= level
                && !(cell.saturating_sub(1)..self.z.len().min(cell + 2)).any(|cell| is_bottom(&cell))
        })
    }

    #[inline(always)]
    fn project_constants<const SET: u8>(&mut self, aimed: &Aimed) {
        let constants = aimed.constants;
        let count = constants.len();
        for (lanes, length) in [
            (&mut self.factor, triangle(count)),
            (&mut self.scale, count),
            (&mut self.solved, count),
            (&mut self.along, count),
            (&mut self.across, count),
            (&mut self.right, count),
        ] {
            lanes.resize(length, [0.0; LANES]);
        }
        for l in 0..count {
            for m in 0..=l {
                self.factor[at(l, m)] = dot::<SET>(&constants[l], &constants[m]);
            }
            let norm = self.factor[at(l, l)];
            self.scale[l] = each!(|i| if norm[i] > 0.0 { 1.0 / norm[i].sqrt() } else { 0.0 });
            let with_target = dot::<SET>(&constants[l], aimed.target);
            self.solved[l] = each!(|i| with_target[i] * self.scale[l][i]);
        }
        for l in 0..count {
            for m in 0..=l {
                let product = self.factor[at(l, m)];
                self.factor[at(l, m)] = each!(|i| product[i] * self.scale[l][i] * self.scale[m][i]);
            }
        }
        factorise::<SET>(&mut self.factor, count, DEPENDENT);
        solve_lower::<SET>(&self.factor, &mut self.solved);
    }

    /// Sums over the points for every cell.
    #[inline(always)]
    fn tabulate<const SET: u8>(&mut self, decay: &Decay, grid: &Grid, curves: &[usize], aimed: &Aimed) {
        let cells = grid.cells[0];
        let count = aimed.constants.len();
        self.z.clear();
        for cell in 0..cells {
            self.z.push(each!(|i| grid.value(curves[i.min(curves.len() - 1)], 0, cell)));
        }
        for (sums, length) in
            [(&mut self.squares, cells), (&mut self.products, cells), (&mut self.constants, cells * count)]
        {
            sums.clear();
            sums.resize(length, [0.0; LANES]);
        }
        let (period, octaves) = octaves(&self.z);
        self.squared.clear();
        for cell in 0..cells {
            self.squared.push(cell >= period && is_multiple(&self.z[cell], &self.z[cell - period], octaves));
        }
        let mut powers = [[0.0; GROUP]; LONGEST_PERIOD];
        for (group, ((u, root), target)) in
            groups(aimed.u).iter().zip(groups(aimed.root)).zip(groups(aimed.target)).enumerate()
        {
            for cell in 0..cells {
                // In an array of its own, which stays in registers.
                let mut power;
                if self.squared[cell] {
                    power = powers[cell % period];
                    for _ in 0..octaves {
                        for power in &mut power {
                            *power *= *power;
                        }
                    }
                } else {
                    power = exponential::<SET>(decay.rate, &self.z[cell], u);
                }
                powers[cell % period] = power;
                let mut e = [0.0; GROUP];
                for k in 0..GROUP {
                    e[k] = power[k] * root[k];
                }
                add_product::<SET>(&mut self.squares[cell], &e, &e);
                add_product::<SET>(&mut self.products[cell], &e, target);
                for l in 0..count {
                    add_product::<SET>(&mut self.constants[cell * count + l], &e, &groups(&aimed.constants[l])[group]);
                }
            }
        }
    }

    /// The residual of every cell, less what is common to all, and where it is lowest.
    #[inline(always)]
    fn compare<const SET: u8>(&mut self, aimed: &Aimed) {
        let count = aimed.constants.len();
        let mut total = dot::<SET>(aimed.target, aimed.target);
        for part in &self.solved {
            total = each!(|i| fused::<SET>(-part[i], part[i], total[i]));
        }
        self.total = total;
        self.residual.clear();
        for cell in 0..self.z.len() {
            for l in 0..count {
                let sum = self.constants[cell * count + l];
                self.along[l] = each!(|i| sum[i] * self.scale[l][i]);
            }
            solve_lower::<SET>(&self.factor, &mut self.along);
            let (ee, et) = self.project_out::<SET>(self.squares[cell], self.products[cell]);
            self.residual.push(left_over::<SET>(&total, &self.squares[cell], &ee, &et));
        }
        self.bottoms.clear();
        for cell in 0..self.z.len() {
            let own = &self.residual[cell];
            let open = [f64::INFINITY; LANES];
            let before = if cell > 0 { &self.residual[cell - 1] } else { &open };
            let behind = self.residual.get(cell + 1).unwrap_or(&open);
            let mut bits = 0u8;
            for i in 0..LANES {
                bits |= u8::from(own[i].is_finite() && own[i] < before[i] && own[i] <= behind[i]) << i;
            }
            self.bottoms.push(bits);
        }
    }

    /// Σ e² and Σ e t less what the constants take, of which `along` holds the solved products with e.
    #[inline(always)]
    fn project_out<const SET: u8>(&self, mut ee: Lane, mut et: Lane) -> (Lane, Lane) {
        for (along, solved) in self.along.iter().zip(&self.solved) {
            ee = each!(|i| fused::<SET>(-along[i], along[i], ee[i]));
            et = each!(|i| fused::<SET>(-along[i], solved[i], et[i]));
        }
        (ee, et)
    }

    /// Lists the basins of a lane, best first, and returns how many there are.
    fn list(&mut self, lane: usize, ends: Option<f64>) -> usize {
        let residual = |cell: usize| self.residual[cell][lane];
        let cells = &mut self.cells[lane];
        let mut count = 0;
        for cell in (0..self.z.len()).filter(|&cell| self.bottoms[cell] >> lane & 1 == 1) {
            // Insertion: few basins, and of equal ones the first cell comes first.
            let place = (0..count).find(|&known| residual(cell) < residual(cells[known])).unwrap_or(count);
            count = (count + 1).min(MOST_BASINS);
            if place < count {
                cells[place..count].rotate_right(1);
                cells[place] = cell;
            }
        }
        if let Some(plausible) = ends.filter(|_| count > 0) {
            let level = plausible * residual(cells[0]);
            for end in [0, self.z.len() - 1] {
                if count < MOST_BASINS && !cells[..count].contains(&end) && residual(end) <= level {
                    cells[count] = end;
                    count += 1;
                }
            }
        }
        count
    }

    /// Follows every lane's basin of number `basin` to its bottom and appends its solution.
    #[inline(always)]
    fn polish<const SET: u8>(
        &mut self,
        decay: &Decay,
        aimed: &Aimed,
        basin: usize,
        passes: usize,
        ends: Option<&Ends>,
    ) {
        let count = aimed.constants.len();
        let last = self.z.len() - 1;
        let (mut z, mut low, mut high, mut level) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let mut open = [true; LANES];
        let mut corner = [0.0; LANES];
        // 1 where the first cell is proposed as it stands, −1 where the last one is, 0 at a bottom.
        let mut inward = [0.0; LANES];
        for i in 0..LANES {
            open[i] = basin < self.found[i];
            let cell = if open[i] { self.cells[i][basin] } else { 0 };
            corner[i] = self.z[cell][i];
            // A cell that is no bottom was proposed as it stands.
            let bottom = self.bottoms[cell] >> i & 1 == 1;
            let (before, behind) = if bottom { (cell.saturating_sub(1), last.min(cell + 1)) } else { (cell, cell) };
            inward[i] = match bottom {
                true => 0.0,
                false if cell == 0 => 1.0,
                false => -1.0,
            };
            (low[i], high[i]) = (self.z[before][i], self.z[behind][i]);
            level[i] = self.residual[cell][i];
            z[i] = corner[i];
            if before < cell && cell < behind {
                // The bottom of the parabola through the three cells, numbered −1, 0, 1.
                let (left, right) = (self.residual[before][i] - level[i], self.residual[behind][i] - level[i]);
                let position = 0.5 * (left - right) / (left + right);
                let bent = 0.5 * (high[i] - 2.0 * z[i] + low[i]) * position * position;
                let start = z[i] + 0.5 * (high[i] - low[i]) * position + bent;
                z[i] = if start > low[i] && start < high[i] { start } else { z[i] };
            }
        }
        let first = self.solution.len();
        self.solution.resize(first + 2 + count, [0.0; LANES]);
        // Two more: a lane that went astray goes back to its cell.
        for pass in 0..passes + 2 {
            if !open.contains(&true) {
                break;
            }
            let sums = self.pass::<SET>(decay, aimed, &z);
            // The parabola's bottom may lie a little higher than its cell; the step from there tells. Rounding may lift the
            // bottom of a perfect fit a little.
            let astray: [bool; LANES] = std::array::from_fn(|i| {
                let as_low = sums.residual[i] <= level[i] * (1.0 + 1e-9);
                pass > 0 && open[i] && z[i] != corner[i] && !as_low
            });
            let Valley { amplitude, tilt, slope, length } = sums.valley();
            if let Some(ends) = ends {
                // A relative residual q counts q in the projection and q + 3/2 q² + … in the exact objective's slope; the
                // difference is at most 2 max|q| times residual times length. Where that cannot turn the slope round, the
                // descent from an end would only lead to the basin that is proposed anyway.
                for i in 0..LANES {
                    let doubt = 4.0 * (sums.residual[i] / ends.unit[i]).powi(2) * length[i];
                    if open[i] && slope[i] * amplitude[i] * inward[i] > 0.0 && slope[i] * slope[i] > doubt {
                        (open[i], self.solution[first][i]) = (false, f64::NAN);
                    }
                }
            }
            let step = each!(|i| {
                let wanted = slope[i] / (amplitude[i] * length[i]);
                // A NaN, of a basis that has lost its influence, fails both comparisons and stays.
                let reached = z[i] + wanted;
                let reached = if reached > low[i] { reached } else { low[i] };
                let reached = if reached < high[i] { reached } else { high[i] };
                if wanted.is_finite() { reached - z[i] } else { 0.0 }
            });
            let moved = self.follow::<SET>(&amplitude, &tilt, &step);
            for i in 0..LANES {
                if !open[i] {
                    continue;
                }
                if astray[i] {
                    (z[i], low[i], high[i]) = (corner[i], corner[i], corner[i]);
                    continue;
                }
                z[i] += step[i];
                self.solution[first][i] = z[i];
                self.solution[first + 1][i] = decay.sign * moved[i];
                for l in 0..count {
                    self.solution[first + 2 + l][i] = self.right[l][i] * self.scale[l][i];
                }
                open[i] = pass + 1 < passes && step[i].abs() > POLISHED * z[i].abs();
            }
        }
    }

    /// The amplitude after a step in z; in `right` are then the constants' coordinates, in units of the scale.
    #[inline(always)]
    fn follow<const SET: u8>(&mut self, amplitude: &Lane, tilt: &Lane, step: &Lane) -> Lane {
        let moved = each!(|i| amplitude[i] * (1.0 - tilt[i] * step[i]));
        // By index: the bounds that are checked keep the compiler from taking the same lane of several constants together.
        for l in 0..self.right.len() {
            let (solved, along, across) = (self.solved[l], self.along[l], self.across[l]);
            self.right[l] = each!(|i| solved[i] - along[i] * moved[i] - across[i] * amplitude[i] * step[i]);
        }
        solve_upper::<SET>(&self.factor, &mut self.right);
        moved
    }

    /// Moves every lane's best basin by one Gauss–Newton step of squares of t − log f, of which the search has seen a proxy
    /// only: the same least squares with weights and a response of the curve f that was found.
    #[inline(always)]
    fn sharpen<const SET: u8>(&mut self, decay: &Decay, aimed: &Aimed, exact: &Exact) {
        let count = aimed.constants.len();
        let (z, found) = (self.solution[0], self.solution[1]);
        let mut anew = std::mem::take(&mut self.anew);
        anew.resize(aimed.u.len(), count);
        let amplitudes = spread(&each!(|i| decay.sign * found[i]));
        let whole = |values| groups(values).iter();
        let rows = whole(aimed.u).zip(whole(aimed.root)).zip(whole(aimed.target));
        let rows = rows.zip(whole(exact.response).zip(whole(exact.root))).enumerate();
        for (group, (((u, root), target), (t, own_root))) in rows {
            let e = exponential::<SET>(decay.rate, &z, u);
            let mut found = [0.0; GROUP];
            let mut unit = [0.0; GROUP];
            for k in 0..GROUP {
                unit[k] = if root[k] > 0.0 { 1.0 / root[k] } else { 0.0 };
                found[k] = amplitudes[k] * e[k];
            }
            for (l, constant) in aimed.constants.iter().enumerate() {
                let (own, constant) = (spread(&self.solution[2 + l]), &groups(constant)[group]);
                for k in 0..GROUP {
                    found[k] += own[k] * constant[k] * unit[k];
                }
            }
            let (mut new_root, mut new_target, mut share) = ([0.0; GROUP], [0.0; GROUP], [0.0; GROUP]);
            for k in 0..GROUP {
                // exp t = √w / root: what is missing of it in the target is the offset.
                let curve = found[k] + (own_root[k] - target[k]) * unit[k];
                // A point without weight only fills the lane up: the curve there need not have a logarithm.
                let weight = if own_root[k] > 0.0 { own_root[k] / curve } else { 0.0 };
                let response = found[k] + curve * (t[k] - log::<SET>(curve));
                share[k] = unit[k] * weight;
                new_root[k] = weight;
                new_target[k] = if own_root[k] > 0.0 { weight * response } else { 0.0 };
            }
            groups_mut(&mut anew.root)[group] = new_root;
            groups_mut(&mut anew.target)[group] = new_target;
            for (new, constant) in anew.constants.iter_mut().zip(aimed.constants) {
                let (mut scaled, constant) = (share, &groups(constant)[group]);
                for k in 0..GROUP {
                    scaled[k] *= constant[k];
                }
                groups_mut(new)[group] = scaled;
            }
        }
        let sharper = Aimed { u: aimed.u, root: &anew.root, target: &anew.target, constants: &anew.constants[..count] };
        self.project_constants::<SET>(&sharper);
        let Valley { amplitude, tilt, slope, length } = self.pass::<SET>(decay, &sharper, &z).valley();
        let step = each!(|i| slope[i] / (amplitude[i] * length[i]));
        let moved = self.follow::<SET>(&amplitude, &tilt, &step);
        for i in 0..LANES {
            // What the proxy has not brought near enough stays.
            let near = step[i].abs() <= NEAR * z[i].abs() && (0..count).all(|l| self.right[l][i].is_finite());
            if near && moved[i].is_finite() {
                self.solution[0][i] = z[i] + step[i];
                self.solution[1][i] = decay.sign * moved[i];
                for l in 0..count {
                    self.solution[2 + l][i] = self.right[l][i] * self.scale[l][i];
                }
            }
        }
        self.anew = anew;
    }

    /// One pass over the points at `z`; leaves the constants' solved products in `along` and `across`.
    #[inline(always)]
    fn pass<const SET: u8>(&mut self, decay: &Decay, aimed: &Aimed, z: &Lane) -> Pass {
        let zero = [0.0; LANES];
        let (mut ee, mut ed, mut et, mut dd, mut dt) = (zero, zero, zero, zero, zero);
        self.along.fill(zero);
        self.across.fill(zero);
        for (group, ((u, root), target)) in
            groups(aimed.u).iter().zip(groups(aimed.root)).zip(groups(aimed.target)).enumerate()
        {
            let mut e = exponential::<SET>(decay.rate, z, u);
            let mut d = [0.0; GROUP];
            for k in 0..GROUP {
                e[k] *= root[k];
                d[k] = decay.rate * u[k] * e[k];
            }
            add_product::<SET>(&mut ee, &e, &e);
            add_product::<SET>(&mut ed, &e, &d);
            add_product::<SET>(&mut et, &e, target);
            add_product::<SET>(&mut dd, &d, &d);
            add_product::<SET>(&mut dt, &d, target);
            for (l, constant) in aimed.constants.iter().enumerate() {
                add_product::<SET>(&mut self.along[l], &e, &groups(constant)[group]);
                add_product::<SET>(&mut self.across[l], &d, &groups(constant)[group]);
            }
        }
        for ((scale, along), across) in self.scale.iter().zip(&mut self.along).zip(&mut self.across) {
            *along = each!(|i| along[i] * scale[i]);
            *across = each!(|i| across[i] * scale[i]);
        }
        solve_lower::<SET>(&self.factor, &mut self.along);
        solve_lower::<SET>(&self.factor, &mut self.across);
        let whole = ee;
        (ee, et) = self.project_out::<SET>(ee, et);
        for ((along, across), solved) in self.along.iter().zip(&self.across).zip(&self.solved) {
            ed = each!(|i| fused::<SET>(-along[i], across[i], ed[i]));
            dd = each!(|i| fused::<SET>(-across[i], across[i], dd[i]));
            dt = each!(|i| fused::<SET>(-across[i], solved[i], dt[i]));
        }
        let residual = left_over::<SET>(&self.total, &whole, &ee, &et);
        ee = each!(|i| if ee[i] > DEPENDENT * whole[i] { ee[i] } else { 0.0 });
        Pass { ee, et, ed, dd, dt, residual }
    }
}

/// The sum of squares that the exponential leaves of `total`; an exponential that is nearly a combination of the constants
/// takes nothing.
#[inline(always)]
fn left_over<const SET: u8>(total: &Lane, whole: &Lane, ee: &Lane, et: &Lane) -> Lane {
    each!(|i| {
        let taken = if ee[i] > DEPENDENT * whole[i] { et[i] * et[i] / ee[i] } else { 0.0 };
        let left = total[i] - taken;
        // Rounding may leave a perfect fit slightly negative; what is not finite never wins.
        let left = if left > 0.0 { left } else { 0.0 };
        if taken.is_finite() && total[i].is_finite() { left } else { f64::INFINITY }
    })
}

/// How many cells before a cell is the one whose z, doubled so many times, is its own; judged by the first such pair. The grid of an
/// exponent is laid so (see `pack`): all but the first few exponentials are squares of squares.
#[inline(always)]
fn octaves(z: &[Lane]) -> (usize, usize) {
    let periods = (1..=LONGEST_PERIOD).filter(|&period| period < z.len());
    let mut candidates = periods.flat_map(|period| (1..=MOST_OCTAVES).map(move |octaves| (period, octaves)));
    candidates.find(|&(period, octaves)| is_multiple(&z[period], &z[0], octaves)).unwrap_or((1, 1))
}

/// Whether `z` is `other`, doubled so many times, in every lane.
#[inline(always)]
fn is_multiple(z: &Lane, other: &Lane, octaves: usize) -> bool {
    let factor = (1u64 << octaves) as f64;
    (0..LANES).all(|i| z[i] == factor * other[i])
}

/// `exp(rate z u)`, point by point.
#[inline(always)]
fn exponential<const SET: u8>(rate: f64, z: &Lane, u: &[f64; GROUP]) -> [f64; GROUP] {
    let mut e = spread(&each!(|i| rate * z[i]));
    for k in 0..GROUP {
        e[k] = exp_roughly::<SET>(e[k] * u[k]);
    }
    e
}

/// A value per lane at every point of a group.
#[inline(always)]
fn spread(lane: &Lane) -> [f64; GROUP] {
    let mut spread = [0.0; GROUP];
    for part in spread.as_chunks_mut::<LANES>().0 {
        *part = *lane;
    }
    spread
}
