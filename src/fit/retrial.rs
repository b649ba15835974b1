//! Retrial: a second search for curves that a law fits almost to the rounding, and not quite.
//!
//! Such data hold no noise: their optimum fits them to the rounding, and hides from the ordinary search. A break under a
//! floor may move log y by a millionth and nothing at all from there to the local minimum that is found in its place; what
//! two terms of which one is hardly there leave of the response is less than sums of its squares can tell. In: a problem and
//! where its curves' descents ended. Out: other starts, for the judge to descend from. Data with noise never come here.
//!
//! *Tilted weights*, for laws searched above a floor. Whatever the weights of data without noise, their optimum is the same.
//! Divided by how far they stand above the floor, the points far down a decay count as much as the first ones, log |y − E| is
//! fitted and not log y, and what was hidden is large. The problem so weighted is searched and judged like any other. What
//! is still stuck in a winding valley has local minima there that other weights do not have, and is *shaken*: it descends with
//! weights tilted a little and as they are by turns.
//!
//! *Orthogonal projection*, for product grids: residuals by Householder's reflections see what normal equations, which square
//! the condition number, do not.

use super::appeal::{self, Patience, approach, tabulate};
use super::lanes::{Gathered, each};
use super::orthogonal::Triangle;
use super::problem::Problem;
use super::search::{basins, propose};
use super::{Proposals, Space};
use crate::evaluate::tape::{LANES, Lane, Scratch};

/// Root mean square of the residuals, as a share of the response, up to which data count as free of noise.
pub const NOISELESS: f64 = 1e-4;
/// By which powers of the height above the floor residuals are divided, one after the other: the mildest first, since it
/// leaves more to the points that say most of the floor itself.
pub const TILTS: [f64; 3] = [0.5, 0.75, 1.0];
/// The power of a shake, how many there are, and when a descent of one ends: later than others, in valleys so slow.
const SHAKE: f64 = 0.25;
const SHAKES: usize = 120;
const PATIENCE: Patience = Patience { rounds: 200, step: 1e-12 };
/// Least height above the floor that is told from none, as a share of the response.
const LEAST_HEIGHT: f64 = 1e-8;

/// The problem of these curves, each with its floor, with weights tilted by `power`.
pub fn tilted<'a>(problem: &Problem<'a>, curves: &[(usize, f64)], power: f64) -> Problem<'a> {
    let mut tilted = problem.emptied();
    for &(curve, floor) in curves {
        let rows = problem.rows(curve);
        let heights: Vec<f64> = problem.response[rows.clone()]
            .iter()
            .map(|t| match problem.model.space {
                Space::Log => (1.0 - floor * (-t).exp()).abs(),
                Space::Linear => (t - floor).abs(),
            })
            .collect();
        let most = heights.iter().copied().fold(0.0, f64::max);
        let weight = problem.weight[rows.clone()].iter().zip(heights);
        tilted.weight.extend(weight.map(|(w, height)| w * (height / most).max(LEAST_HEIGHT).powf(-2.0 * power)));
        tilted.response.extend_from_slice(&problem.response[rows.clone()]);
        for (target, source) in tilted.inputs.iter_mut().zip(&problem.inputs) {
            target.extend_from_slice(&source[rows.clone()]);
        }
        tilted.close(problem, curve);
    }
    tilted
}

/// Moves `z` on by turns with tilted and plain weights, until the plain objective is at most `enough`.
pub fn shake(
    problem: &Problem,
    curve: usize,
    floor: usize,
    enough: f64,
    z: &mut [f64],
    workspace: &mut appeal::Workspace,
) {
    for _ in 0..SHAKES {
        let tilted = tilted(problem, &[(curve, z[floor])], SHAKE);
        approach(&tilted, 0, z, true, PATIENCE, workspace);
        if approach(problem, curve, z, true, PATIENCE, workspace) <= enough {
            return;
        }
    }
}

/// Whether [`search_again`] applies to a problem.
pub fn is_searched_again(problem: &Problem) -> bool {
    let projection = &problem.model.projection;
    let grid = &problem.grid;
    grid.listed.is_none() && !projection.nonlinear.is_empty() && projection.space == problem.model.space
}

/// The basins of the curves' product grids, by the residuals that an orthogonal projection leaves.
pub fn search_again(problem: &Problem, curves: &[usize]) -> Proposals {
    let mut proposals = Proposals { offsets: vec![0], coordinates: Vec::new() };
    let mut memory = (Gathered::default(), Scratch::default(), Vec::new());
    for curve in 0..problem.len() {
        if curves.contains(&curve) {
            search_curve(problem, curve, &mut memory, &mut proposals.coordinates);
        }
        proposals.offsets.push(proposals.coordinates.len() / problem.model.len());
    }
    proposals
}

fn search_curve(
    problem: &Problem,
    curve: usize,
    (gathered, scratch, outputs): &mut (Gathered, Scratch, Vec<f64>),
    coordinates: &mut Vec<f64>,
) {
    let model = problem.model;
    let (projection, grid) = (&model.projection, &problem.grid);
    gathered.gather(problem, &[curve]);
    let rows = problem.rows(curve);
    let root: Vec<f64> = problem.weight[rows.clone()].iter().map(|w| w.sqrt()).collect();
    let response = &problem.response[rows];
    let linear = projection.linear.len();
    let points = grid.points();
    let mut residuals = Vec::with_capacity(points);
    let mut solutions = vec![0.0; points * linear];
    for first in (0..points).step_by(LANES) {
        let mut z: Vec<Lane> = vec![[0.0; LANES]; model.len()];
        for (axis, &j) in projection.nonlinear.iter().enumerate() {
            z[j] = each!(|lane| grid.value(curve, axis, grid.cell((first + lane).min(points - 1), axis)));
        }
        // The basis functions, then the offset, of eight points of the grid.
        let columns: Vec<Vec<f64>> = model
            .programs
            .columns
            .iter()
            .map(|tape| {
                tabulate(tape, &z, gathered, scratch, outputs);
                outputs.clone()
            })
            .collect();
        for point in first..points.min(first + LANES) {
            let own = |column: &[f64]| -> Vec<f64> {
                column[point - first..].iter().step_by(LANES).zip(&root).map(|(x, root)| x * root).collect()
            };
            let mut columns: Vec<Vec<f64>> = columns.iter().map(|column| own(column)).collect();
            let offset = columns.pop().expect("the offset comes last");
            let mut right: Vec<f64> =
                response.iter().zip(&root).zip(&offset).map(|((t, root), offset)| t * root - offset).collect();
            let mut triangle = Triangle::default();
            triangle.make(&mut columns, &mut right, linear);
            triangle.solve(&columns, &right, &mut solutions[point * linear..][..linear]);
            let left: f64 = right[triangle.rank_of(linear)..].iter().map(|r| r * r).sum();
            residuals.push(if left.is_finite() { left } else { f64::INFINITY });
        }
    }
    for point in basins(problem, &|point| residuals[point]) {
        propose(problem, coordinates, |own| {
            for (&j, &value) in projection.linear.iter().zip(&solutions[point * linear..][..linear]) {
                own[j] = value;
            }
            for (axis, &j) in projection.nonlinear.iter().enumerate() {
                own[j] = grid.value(curve, axis, grid.cell(point, axis));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::cpu::Cpu;
    use crate::fit::judge::{Verdicts, judge};
    use crate::fit::pack::{Packed, Plan, Weighting};
    use crate::fit::{Backend, Loss, Objective};
    use crate::generate::{Noise, Sweep};
    use crate::law::catalogue::find;

    /// Packs generated curve `index` of a law without noise, as it is searched, for `check`.
    fn with_curve(law: &str, points: usize, index: u64, check: impl FnOnce(Packed)) {
        let sweep = Sweep::typical(find(law).expect(law), (points, points), Noise::Log(0.0), 1);
        let batch = sweep.batch(index, 1).expect("a finite curve").curves;
        let columns = sweep.law.columns.clone();
        let law = sweep.law.representative().map_or(sweep.law.clone(), |(searched, _)| searched);
        let objective = Objective { space: Space::Log, loss: Loss::Squares };
        let plan = Plan::new(law, objective, &[], Weighting::Even, false, &columns).expect(&columns[0]);
        check(plan.pack(&batch));
    }

    fn fit(problem: &Problem) -> Verdicts {
        judge(problem, &Cpu.propose(problem).expect("the CPU does not fail"), false)
    }

    /// Curves whose second break lies far down the decay: without a retrial they end at residuals of 1e-6 to 6e-10.
    #[test]
    fn a_break_far_down_a_decay_is_found() {
        for index in [82, 447, 600, 675, 1001] {
            with_curve("bnsl2", 32, index, |packed| {
                let found = fit(&packed.problem);
                assert!(found.status[0].has_parameters() && found.rmse[0] < 1e-12, "{index}: {:?}", found.rmse);
            });
        }
    }

    /// Curves whose terms of finite size are 1e-7, 1e-10 and 1e-13 of the others: without a retrial they are degenerate.
    #[test]
    fn a_term_that_is_hardly_there_is_found() {
        for index in [1500, 2288, 3672] {
            with_curve("kaplan", 64, index, |packed| {
                let found = fit(&packed.problem);
                assert!(found.status[0].has_parameters() && found.rmse[0] < 1e-12, "{index}: {:?}", found.status);
            });
        }
    }

    #[test]
    fn a_tilt_divides_residuals_by_the_height_above_the_floor() {
        with_curve("bnsl2", 32, 0, |Packed { problem, .. }| {
            let floor = 0.5 * problem.response.iter().map(|t| t.exp()).fold(f64::INFINITY, f64::min);
            let tilted = tilted(&problem, &[(0, floor)], 1.0);
            assert_eq!(
                (&tilted.response, &tilted.inputs, &tilted.lower),
                (&problem.response, &problem.inputs, &problem.lower)
            );
            assert_eq!(tilted.status, [None]);
            let height = |row: usize| 1.0 - floor / problem.response[row].exp();
            for row in 1..32 {
                let expected = (height(0) / height(row)).powi(2);
                assert!((tilted.weight[row] / tilted.weight[0] / expected - 1.0).abs() < 1e-9, "{:?}", tilted.weight);
            }
        });
    }
}
