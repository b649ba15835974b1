//! Settle: the floor and the linear parameters of a law that is searched above its floor (see [`super::above`]), at many
//! places of its breaks, eight places at a time.
//!
//! In: a curve, the columns of its linear parameters, and for every place which of the columns are its own and a floor to
//! begin with. Out: where Gauss and Newton's steps of the floor end, the linear parameters solved at each. The solution is by
//! orthogonalisation (the modified process of Gram and Schmidt), not by normal equations, so that a break of a
//! hundred-thousandth of the floor still shows. A lane whose place has settled takes up the next one.

use super::lanes::each;
use crate::evaluate::elementary::{self, fused};
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Lane};

/// Most linear parameters: a constant, two exponents of one break, one more of another.
pub const MOST_LINEAR: usize = 6;
/// Steps of the floor, quarterings of a step, the factor by which it changes the distance from the data at most, and the
/// relative gain below which it has settled.
const STEPS: usize = 12;
const QUARTERINGS: usize = 4;
const FACTOR: f64 = 4.0;
const ENOUGH: f64 = 1e-3;
/// A column this nearly a combination of those before it (sine of the angle) is passed over.
const DEPENDENT: f64 = 1e-15;

/// One curve.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    pub y: &'a [f64],
    /// The square root of a point's weight over what a change of log f by one changes its y by.
    pub root: &'a [f64],
    /// The box of the floor, and those of the linear parameters.
    pub floor: (f64, f64),
    pub boxes: &'a [(f64, f64)],
    /// Per linear parameter its columns, one after the other.
    pub columns: &'a [Vec<f64>],
}

/// Where a place begins: a floor below all y, or above them, and which column each linear parameter has there.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    pub floor: f64,
    pub columns: [usize; MOST_LINEAR],
}

/// Where it ends.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    pub residual: f64,
    pub floor: f64,
    pub solution: [f64; MOST_LINEAR],
}

/// Reused from curve to curve. Columns hold one [`Lane`] a point.
#[derive(Debug, Default)]
pub struct Memory {
    columns: Vec<Vec<Lane>>,
    /// Weighted columns, then what the floor moves; orthogonal in the end.
    reduced: Vec<Vec<Lane>>,
    weight: Vec<Lane>,
    target: Vec<Lane>,
    right: Vec<Lane>,
    solution: [Lane; MOST_LINEAR],
}

/// A place on its way.
#[derive(Debug, Clone, Copy)]
struct Way {
    start: usize,
    settled: Settled,
    step: f64,
    steps: usize,
    quarterings: usize,
}

kernel!(
    /// Appends, for every start, where it settles; None where its residual is not finite.
    pub fn settle, fn settle_kernel(curve: &Curve, starts: &[Start], memory: &mut Memory, settled: &mut Vec<Option<Settled>>) = settle_generic;
);

#[inline(always)]
fn settle_generic<const SET: u8>(
    curve: &Curve,
    starts: &[Start],
    memory: &mut Memory,
    settled: &mut Vec<Option<Settled>>,
) {
    let first = settled.len();
    settled.resize(first + starts.len(), None);
    let Some(any) = starts.first() else { return };
    let lowest = curve.y.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = curve.y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let edge = |floor: f64| if floor < lowest { lowest } else { highest };
    memory.lay(curve);
    let mut ways: [Option<Way>; LANES] = [None; LANES];
    let mut trial = [any.floor; LANES];
    (0..LANES).for_each(|lane| memory.load(curve, any, lane));
    let mut next = 0;
    loop {
        for lane in 0..LANES {
            if ways[lane].is_none() && next < starts.len() {
                let begin =
                    Settled { residual: f64::INFINITY, floor: starts[next].floor, solution: [0.0; MOST_LINEAR] };
                ways[lane] = Some(Way { start: next, settled: begin, step: 0.0, steps: 0, quarterings: 0 });
                trial[lane] = begin.floor;
                memory.load(curve, &starts[next], lane);
                next += 1;
            }
        }
        if ways.iter().all(Option::is_none) {
            return;
        }
        let (residual, step) = fit::<SET>(curve, &trial, memory);
        for lane in 0..LANES {
            let Some(way) = &mut ways[lane] else { continue };
            let known = way.settled.residual;
            if residual[lane] < known {
                let solution = std::array::from_fn(|l| memory.solution[l][lane]);
                way.settled = Settled { residual: residual[lane], floor: trial[lane], solution };
                (way.step, way.quarterings) = (step[lane], 0);
                // The first fit is no step.
                if known.is_finite() {
                    let gained = known - residual[lane];
                    way.steps = if gained <= ENOUGH * residual[lane] { STEPS } else { way.steps + 1 };
                }
            } else {
                (way.step, way.quarterings) = (0.25 * way.step, way.quarterings + 1);
            }
            let found = way.settled.residual.is_finite();
            if !found || way.steps == STEPS || way.quarterings == QUARTERINGS {
                settled[first + way.start] = found.then_some(way.settled);
                ways[lane] = None;
                continue;
            }
            let distance = edge(way.settled.floor) - way.settled.floor;
            let share = (distance - way.step) / distance;
            let reached = edge(way.settled.floor) - distance * share.clamp(1.0 / FACTOR, FACTOR);
            trial[lane] = reached.max(curve.floor.0).min(curve.floor.1);
        }
    }
}

impl Memory {
    /// Makes room for a curve.
    fn lay(&mut self, curve: &Curve) {
        let (n, count) = (curve.y.len(), curve.boxes.len());
        self.columns.resize_with(count.max(self.columns.len()), Vec::new);
        self.reduced.resize_with((count + 1).max(self.reduced.len()), Vec::new);
        let own = [&mut self.weight, &mut self.target, &mut self.right];
        for values in self.columns.iter_mut().chain(&mut self.reduced).chain(own) {
            values.resize(n, [0.0; LANES]);
        }
    }

    /// Puts the columns of a place into a lane.
    fn load(&mut self, curve: &Curve, start: &Start, lane: usize) {
        let n = curve.y.len();
        for (l, column) in curve.columns.iter().enumerate() {
            let values = &column[start.columns[l] * n..][..n];
            for (place, &value) in self.columns[l].iter_mut().zip(values) {
                place[lane] = value;
            }
        }
    }
}

/// Solves the linear parameters at eight floors: the residuals, infinite where they are not numbers, and the steps by which
/// the floors should move.
#[inline(always)]
fn fit<const SET: u8>(curve: &Curve, floor: &Lane, memory: &mut Memory) -> (Lane, Lane) {
    let (n, count) = (curve.y.len(), curve.boxes.len());
    let Memory { columns, reduced, weight, target, right, solution } = memory;
    let sign = each!(|i| if curve.y[0] > floor[i] { 1.0 } else { -1.0 });
    for point in 0..n {
        let (y, root) = (curve.y[point], curve.root[point]);
        let above = each!(|i| (y - floor[i]).abs());
        weight[point] = each!(|i| above[i] * root);
        target[point] = each!(|i| elementary::log::<SET>(above[i]) * above[i] * root);
    }
    // One in `free` where a linear parameter is free, else zero and its value in `held`.
    let (mut free, mut held) = ([[1.0; LANES]; MOST_LINEAR], [[0.0; LANES]; MOST_LINEAR]);
    for _ in 0..=count {
        right[..n].copy_from_slice(&target[..n]);
        for l in 0..count {
            let (open, value) = (free[l], held[l]);
            for point in 0..n {
                let (w, b, known) = (weight[point], columns[l][point], right[point]);
                let weighted = each!(|i| w[i] * b[i]);
                right[point] = each!(|i| fused::<SET>(-value[i], weighted[i], known[i]));
                reduced[l][point] = each!(|i| open[i] * weighted[i]);
            }
        }
        // What the floor moves: d log|y - E| = -dE/(y - E).
        for point in 0..n {
            let root = curve.root[point];
            reduced[count][point] = each!(|i| sign[i] * root);
        }
        // Column k is U_k0 q_0 + … + q_k; `upper[m][k]` holds U.
        let mut upper = [[[0.0; LANES]; MOST_LINEAR]; MOST_LINEAR];
        let mut share = [[0.0; LANES]; MOST_LINEAR];
        let mut whole = [[0.0; LANES]; MOST_LINEAR + 1];
        for k in 0..=count {
            whole[k] = product::<SET>(&reduced[k][..n], &reduced[k][..n]);
        }
        let mut step = [0.0; LANES];
        let mut residual = [0.0; LANES];
        for k in 0..=count {
            let (before, after) = reduced.split_at_mut(k + 1);
            let own = &before[k][..n];
            let left = product::<SET>(own, own);
            let smallest = each!(|i| DEPENDENT * DEPENDENT * whole[k][i]);
            let inverse = each!(|i| if left[i] > smallest[i] { 1.0 / left[i] } else { 0.0 });
            let along = product::<SET>(own, &right[..n]);
            let along = each!(|i| along[i] * inverse[i]);
            if k == count {
                residual = product::<SET>(&right[..n], &right[..n]);
                step = along;
                break;
            }
            take_off::<SET>(&mut right[..n], own, &along);
            share[k] = along;
            for m in k + 1..=count {
                let other = &mut after[m - k - 1][..n];
                let common = product::<SET>(own, other);
                let common = each!(|i| common[i] * inverse[i]);
                take_off::<SET>(other, own, &common);
                if m < count {
                    upper[m][k] = common;
                }
            }
        }
        for k in (0..count).rev() {
            let mut value = share[k];
            for m in k + 1..count {
                let (u, x) = (upper[m][k], solution[m]);
                value = each!(|i| fused::<SET>(-u[i], x[i], value[i]));
            }
            solution[k] = value;
        }
        let mut left = false;
        for l in 0..count {
            let (lower, most) = curve.boxes[l];
            for i in 0..LANES {
                if free[l][i] == 0.0 {
                    solution[l][i] = held[l][i];
                } else if solution[l][i] < lower || solution[l][i] > most {
                    (free[l][i], held[l][i]) = (0.0, solution[l][i].max(lower).min(most));
                    left = true;
                }
            }
        }
        if !left {
            return (each!(|i| if residual[i].is_finite() { residual[i] } else { f64::INFINITY }), step);
        }
    }
    ([f64::INFINITY; LANES], [0.0; LANES])
}

/// Σ a b
#[inline(always)]
fn product<const SET: u8>(a: &[Lane], b: &[Lane]) -> Lane {
    // Four sums, each waiting for its own last addition only.
    let mut sums = [[0.0; LANES]; 4];
    let whole = a.len() / 4 * 4;
    for point in (0..whole).step_by(4) {
        for part in 0..4 {
            let (x, y, sum) = (&a[point + part], &b[point + part], sums[part]);
            sums[part] = each!(|i| fused::<SET>(x[i], y[i], sum[i]));
        }
    }
    for point in whole..a.len() {
        let (x, y, sum) = (&a[point], &b[point], sums[0]);
        sums[0] = each!(|i| fused::<SET>(x[i], y[i], sum[i]));
    }
    each!(|i| (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]))
}

/// Subtracts `share` times `own` from `values`.
#[inline(always)]
fn take_off<const SET: u8>(values: &mut [Lane], own: &[Lane], share: &Lane) {
    for (value, own) in values.iter_mut().zip(own) {
        for i in 0..LANES {
            value[i] = fused::<SET>(-share[i], own[i], value[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::orthogonal::least_squares;

    const POINTS: usize = 20;
    const FLOOR: f64 = 1.5;
    const SLOPE: f64 = 0.4;

    /// y = FLOOR + sign · exp(0.3 − SLOPE log x^power), and columns: of ones, and of −log x^power for powers from 0.6 to 1.4.
    fn curve(sign: f64) -> (Vec<f64>, Vec<Vec<f64>>) {
        let log = |i: usize| 0.4 * i as f64;
        let power = |k: usize| 0.6 + 0.04 * k as f64;
        let y = (0..POINTS).map(|i| FLOOR + sign * (0.3 - SLOPE * log(i).powf(power(10))).exp()).collect();
        let slopes = (0..=20).flat_map(|k| (0..POINTS).map(move |i| -log(i).powf(power(k)))).collect();
        (y, vec![vec![1.0; POINTS], slopes])
    }

    fn settled(y: &[f64], columns: &[Vec<f64>], slope: (f64, f64), start: f64) -> Vec<Settled> {
        let root = vec![1.0; POINTS];
        let boxes = [(f64::NEG_INFINITY, f64::INFINITY), slope];
        let open = (f64::NEG_INFINITY, f64::INFINITY);
        let curve = Curve { y, root: &root, floor: open, boxes: &boxes, columns };
        let starts: Vec<Start> = (0..=20).map(|k| Start { floor: start, columns: [0, k, 0, 0, 0, 0] }).collect();
        let mut found = Vec::new();
        settle(&curve, &starts, &mut Memory::default(), &mut found);
        found.into_iter().map(|found| found.expect("finite")).collect()
    }

    #[test]
    fn every_place_settles_and_the_true_one_on_the_truth() {
        for sign in [1.0, -1.0] {
            let (y, columns) = curve(sign);
            let found = settled(&y, &columns, (0.005, 8.0), FLOOR - 0.1 * sign);
            let best = (0..found.len()).min_by(|&a, &b| found[a].residual.total_cmp(&found[b].residual));
            assert_eq!(best, Some(10), "{found:?}");
            let Settled { residual, floor, solution } = found[10];
            assert!(residual < 1e-12 && (floor - FLOOR).abs() < 1e-6, "{residual:e} {floor}");
            assert!((solution[0] - 0.3).abs() + (solution[1] - SLOPE).abs() < 1e-5, "{solution:?}");
            // Every place: the linear parameters and the residual are the least squares at its floor.
            for (k, place) in found.iter().enumerate() {
                let above: Vec<f64> = y.iter().map(|y| (y - place.floor).abs()).collect();
                let right: Vec<f64> = above.iter().map(|a| a * a.ln()).collect();
                let own = [&columns[0][..], &columns[1][k * POINTS..][..POINTS]];
                let own = own.map(|column| column.iter().zip(&above).map(|(b, w)| w * b).collect::<Vec<f64>>());
                let solution = least_squares(&own, &right, &[]);
                let error = |i: usize| right[i] - own[0][i] * solution[0] - own[1][i] * solution[1];
                let squares: f64 = (0..POINTS).map(|i| error(i).powi(2)).sum();
                assert!((place.residual - squares).abs() < 1e-12 * (1.0 + squares), "{k}: {place:?}, {squares}");
                assert!((place.solution[1] - solution[1]).abs() < 1e-9, "{k}: {place:?}, {solution:?}");
            }
        }
    }

    #[test]
    fn a_box_holds_what_would_leave_it() {
        let (y, columns) = curve(1.0);
        for Settled { residual, floor, solution } in settled(&y, &columns, (0.2, 0.2), FLOOR - 0.1) {
            assert!(solution[1] == 0.2 && residual.is_finite(), "{residual} {floor} {solution:?}");
        }
    }
}
