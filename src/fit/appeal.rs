//! Appeal: the careful way to a minimum, for starts that the judge's fast descent could not settle.
//!
//! In: a curve of a problem and a point. Out: a point near a minimum, from which the judge descends once more; the verdict
//! stays with the judge. Steps are Levenberg and Marquardt's, but by orthogonalisation (Householder), which does not square
//! the condition number, and eight dampings are tried at once, one per lane. In linear space the amplitudes are never
//! damped: they are solved exactly at every trial point (variable projection in Kaufman's form, 1975).

use super::lanes::{Gathered, each};
use super::problem::Problem;
use super::{Loss, Space};
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Lane, POINTS, Scratch, Tape};

/// Rounds per start.
const MOST_ROUNDS: usize = 300;
/// Dampings tried in one round, as multiples of the last that helped.
const DAMPINGS: [f64; LANES] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3];
/// No damping helps beyond this one: the gradient is rounding.
const MOST_DAMPING: f64 = 1e16;
/// Relative steps this small are left to the judge.
const SETTLED: f64 = 1e-8;
/// A column this nearly a combination of the others (sine of the angle) is left out of a step.
const DEPENDENT: f64 = 1e-13;

/// Memory of the approach, reused from start to start.
#[derive(Debug, Default)]
pub struct Workspace {
    gathered: Gathered,
    scratch: Scratch,
    /// h and ∂h/∂z_j of the eight trial points: `slot * stride + point * LANES + lane`.
    outputs: Vec<f64>,
}

kernel!(
    /// Writes all outputs of `tape` at `z` over the gathered points, one output after the other.
    pub fn tabulate, fn tabulate_kernel(tape: &Tape, z: &[Lane], gathered: &Gathered, scratch: &mut Scratch, outputs: &mut Vec<f64>) = tabulate_generic;
);

#[inline(always)]
fn tabulate_generic<const SET: u8>(
    tape: &Tape,
    z: &[Lane],
    gathered: &Gathered,
    scratch: &mut Scratch,
    outputs: &mut Vec<f64>,
) {
    outputs.resize(tape.outputs() * gathered.stride, 0.0);
    tape.prepare::<SET>(scratch, z);
    for first in (0..gathered.points).step_by(POINTS) {
        let points = POINTS.min(gathered.points - first);
        tape.run::<SET>(scratch, &gathered.inputs, gathered.stride, first, points);
        for slot in 0..tape.outputs() {
            let output = tape.output(slot, scratch, &gathered.inputs, gathered.stride, first, points);
            outputs[slot * gathered.stride + first * LANES..][..points * LANES].copy_from_slice(output);
        }
    }
}

/// A point with what the next step needs.
#[derive(Debug, Clone)]
struct Place {
    z: Vec<f64>,
    objective: f64,
    /// √w r, reweighted outside of Huber's zone.
    residual: Vec<f64>,
    /// The Jacobian with the same row weights, one column per coordinate.
    jacobian: Vec<Vec<f64>>,
}

/// Moves `z` towards a minimum of the exact objective within the curve's box, and leaves it where nothing can be improved.
/// `project`: solve amplitudes at every trial point where that is possible, else step in all coordinates alike.
pub fn approach(problem: &Problem, curve: usize, z: &mut [f64], project: bool, workspace: &mut Workspace) {
    let model = problem.model;
    let p = model.len();
    let bounds = |j: usize| (problem.lower[curve * p + j], problem.upper[curve * p + j]);
    let exact = project && model.space == Space::Linear && problem.loss == Loss::Squares;
    workspace.gathered.gather(problem, &[curve]);
    let Some(mut here) = best(problem, curve, &vec![z.to_vec(); LANES], exact, workspace).map(|(_, place)| place)
    else {
        return;
    };
    let mut damping = 1e-2;
    let mut reach = vec![0.0f64; p];
    for _ in 0..MOST_ROUNDS {
        let held: Vec<bool> = (0..p)
            .map(|j| {
                let descent: f64 = here.jacobian[j].iter().zip(&here.residual).map(|(j, r)| j * r).sum();
                let (lower, upper) = bounds(j);
                here.z[j] <= lower && descent <= 0.0 || here.z[j] >= upper && descent >= 0.0
            })
            .collect();
        let solved = |j: usize| exact && model.amplitudes.contains(&j);
        let stepped: Vec<usize> = (0..p).filter(|&j| !held[j] && !solved(j)).collect();
        if stepped.is_empty() {
            break;
        }
        // The amplitudes first: what is left of the other columns is what amplitudes cannot make up for.
        let mut columns: Vec<Vec<f64>> = (0..p)
            .filter(|&j| !held[j] && solved(j))
            .chain(stepped.iter().copied())
            .map(|j| here.jacobian[j].clone())
            .collect();
        let first = columns.len() - stepped.len();
        let mut residual = here.residual.clone();
        let rank = triangularise(&mut columns, &mut residual, first);
        for (k, &j) in stepped.iter().enumerate() {
            let own = &columns[first + k];
            reach[j] = reach[j].max(own[rank.min(own.len())..].iter().map(|x| x * x).sum::<f64>().sqrt());
        }
        let reduced: Vec<Vec<f64>> =
            columns[first..].iter().map(|column| column[rank.min(column.len())..].to_vec()).collect();
        let reduced_residual = residual[rank.min(residual.len())..].to_vec();
        let trials: Vec<Vec<f64>> = DAMPINGS
            .iter()
            .map(|share| {
                let scale: Vec<f64> = stepped.iter().map(|&j| (damping * share).sqrt() * reach[j]).collect();
                let step = damped(&reduced, &reduced_residual, &scale);
                let mut trial = here.z.clone();
                for (k, &j) in stepped.iter().enumerate() {
                    let (lower, upper) = bounds(j);
                    trial[j] = (here.z[j] + step[k]).max(lower).min(upper);
                }
                trial
            })
            .collect();
        let crosses = |lane: usize| stepped.iter().any(|&j| trials[lane][j] * here.z[j] < 0.0);
        let found =
            best(problem, curve, &trials, exact, workspace).filter(|(_, there)| there.objective < here.objective);
        // A parameter keeps its sign where it can: its twin of the other sign may be as good a minimum, but is not the one
        // that the start asked for.
        let found = match found {
            Some((lane, _)) if crosses(lane) => {
                let tame: Vec<Vec<f64>> =
                    (0..LANES).map(|i| if crosses(i) { here.z.clone() } else { trials[i].clone() }).collect();
                best(problem, curve, &tame, exact, workspace)
                    .filter(|(_, there)| there.objective < here.objective)
                    .or(found)
            }
            other => other,
        };
        match found {
            Some((lane, there)) => {
                damping *= DAMPINGS[lane];
                let moved =
                    stepped.iter().map(|&j| (there.z[j] - here.z[j]).abs() / there.z[j].abs().max(f64::MIN_POSITIVE));
                let moved = moved.fold(0.0, f64::max);
                here = there;
                if moved <= SETTLED {
                    break;
                }
            }
            None if damping >= MOST_DAMPING => break,
            None => damping *= DAMPINGS[LANES - 1] / DAMPINGS[0],
        }
    }
    z.copy_from_slice(&here.z);
}

/// The lane of the lowest finite objective among eight points, and the place there. With `exact` the amplitudes are
/// solved at every point first.
fn best(
    problem: &Problem,
    curve: usize,
    points: &[Vec<f64>],
    exact: bool,
    workspace: &mut Workspace,
) -> Option<(usize, Place)> {
    let model = problem.model;
    let p = model.len();
    let Workspace { gathered, scratch, outputs } = workspace;
    let z: Vec<Lane> = (0..p).map(|j| each!(|i| points[i][j])).collect();
    tabulate(&model.programs.slope, &z, gathered, scratch, outputs);
    let rows = problem.rows(curve);
    let (t, w) = (&problem.response[rows.clone()], &problem.weight[rows]);
    let output = |slot: usize, lane: usize| {
        outputs[slot * gathered.stride + lane..][..t.len() * LANES - lane].iter().step_by(LANES)
    };
    (0..LANES)
        .filter_map(|lane| {
            let mut place = Place {
                z: points[lane].clone(),
                objective: 0.0,
                residual: t.iter().zip(output(0, lane)).map(|(t, h)| t - h).collect(),
                jacobian: (0..p).map(|j| output(1 + j, lane).copied().collect()).collect(),
            };
            if exact {
                solve_amplitudes(problem, curve, &mut place, w);
            }
            let mut objective = 0.0;
            for point in 0..t.len() {
                let r = place.residual[point];
                let share = match problem.loss {
                    Loss::Squares => 1.0,
                    Loss::Huber { delta } if r.abs() <= delta => 1.0,
                    Loss::Huber { delta } => delta / r.abs(),
                };
                // w huber(r), and w r² / 2 where the share is one.
                objective += w[point] * share * r.abs() * (r.abs() - 0.5 * share * r.abs());
                let root = (w[point] * share).sqrt();
                place.residual[point] *= root;
                for column in &mut place.jacobian {
                    column[point] *= root;
                }
            }
            let finite = objective.is_finite() && place.jacobian.iter().flatten().all(|slope| slope.is_finite());
            place.objective = objective;
            finite.then_some((lane, place))
        })
        .min_by(|a, b| a.1.objective.total_cmp(&b.1.objective))
}

/// Solves the amplitudes for the data, the other coordinates held; unweighted residuals follow.
fn solve_amplitudes(problem: &Problem, curve: usize, place: &mut Place, w: &[f64]) {
    let model = problem.model;
    let p = model.len();
    let root: Vec<f64> = w.iter().map(|w| w.sqrt()).collect();
    let weighted = |values: &[f64]| -> Vec<f64> { values.iter().zip(&root).map(|(x, root)| x * root).collect() };
    let columns: Vec<Vec<f64>> = model.amplitudes.iter().map(|&j| weighted(&place.jacobian[j])).collect();
    if columns.iter().flatten().any(|x| !x.is_finite()) {
        return;
    }
    let step = damped(&columns, &weighted(&place.residual), &[]);
    for (k, &j) in model.amplitudes.iter().enumerate() {
        let reached = (place.z[j] + step[k]).max(problem.lower[curve * p + j]).min(problem.upper[curve * p + j]);
        let moved = reached - place.z[j];
        place.z[j] = reached;
        for (residual, slope) in place.residual.iter_mut().zip(&place.jacobian[j]) {
            *residual -= slope * moved;
        }
    }
}

/// The least-squares solution of `columns · x = right`, with one more row `scale[k]` for every unknown (none where `scale` is
/// empty). Unknowns that the rows do not determine are 0.
fn damped(columns: &[Vec<f64>], right: &[f64], scale: &[f64]) -> Vec<f64> {
    let unknowns = columns.len();
    let mut columns: Vec<Vec<f64>> = columns.to_vec();
    let mut right = right.to_vec();
    for (k, &own) in scale.iter().enumerate() {
        for (l, column) in columns.iter_mut().enumerate() {
            column.push(if k == l { own } else { 0.0 });
        }
        right.push(0.0);
    }
    let mut pivots = Vec::with_capacity(unknowns);
    let mut row = 0;
    for k in 0..unknowns {
        if reflect(&mut columns, &mut right, k, row) {
            pivots.push((k, row));
            row += 1;
        }
    }
    let mut solution = vec![0.0; unknowns];
    for &(k, row) in pivots.iter().rev() {
        let known: f64 = pivots.iter().filter(|(l, _)| *l > k).map(|(l, _)| columns[*l][row] * solution[*l]).sum();
        solution[k] = (right[row] - known) / columns[k][row];
    }
    solution
}

/// Eliminates the first `count` columns; returns how many rows they fill. The rows below are the rest's part that those
/// columns cannot make up for.
fn triangularise(columns: &mut [Vec<f64>], right: &mut [f64], count: usize) -> usize {
    let mut row = 0;
    for k in 0..count {
        row += usize::from(reflect(columns, right, k, row));
    }
    row
}

/// Householder's reflection that leaves column `k` zero below `row`, applied to the columns behind it and the right side.
/// False, and nothing done, where what is left of the column is rounding.
fn reflect(columns: &mut [Vec<f64>], right: &mut [f64], k: usize, row: usize) -> bool {
    let whole = columns[k].iter().map(|x| x * x).sum::<f64>().sqrt();
    if row >= columns[k].len() {
        return false;
    }
    let norm = columns[k][row..].iter().map(|x| x * x).sum::<f64>().sqrt();
    if norm.is_nan() || norm <= DEPENDENT * whole {
        return false;
    }
    let (before, rest) = columns.split_at_mut(k + 1);
    let own = &mut before[k];
    let image = if own[row] > 0.0 { -norm } else { norm };
    own[row] -= image;
    let direction = own[row..].to_vec();
    let half = 0.5 * direction.iter().map(|x| x * x).sum::<f64>();
    let mirror = |values: &mut [f64]| {
        let share = direction.iter().zip(values.iter()).map(|(a, b)| a * b).sum::<f64>() / half;
        for (value, direction) in values.iter_mut().zip(&direction) {
            *value -= share * direction;
        }
    };
    for column in rest {
        mirror(&mut column[row..]);
    }
    mirror(&mut right[row..]);
    own[row] = image;
    own[row + 1..].fill(0.0);
    true
}
