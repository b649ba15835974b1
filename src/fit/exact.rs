//! The exact objective over the grid, where its proxy leaves open which grid points are basins.
//!
//! In log space a law such as `E + A*x^-alpha` is projected in linear space with weights w/y². A residual ρ of the logarithm
//! counts as 1 − e^−ρ there: what the proxy says of a grid point is off by a share of the order of ρ. On clean data that moves
//! no basin. On noisy ones the proxy may slope down where the objective rises, hide its lowest valley, and give linear
//! coordinates from which a descent leaves the valley that it was to begin in.
//!
//! In: tabulated columns of up to eight curves at one grid point and the proxy's solution there. Out: the least of the exact
//! objective with the searched coordinates held, and where it is, by a few damped Gauss–Newton steps in the linear ones.

use super::lanes::{at, each, solve_scaled, triangle};
use super::model::Model;
use super::problem::Grid;
use super::search::DEPENDENT;
use super::{Loss, Space};
use crate::evaluate::elementary::{fused, log};
use crate::evaluate::tape::{LANES, Lane};

/// By how many root mean squares of ρ the proxy's residuals may be off, as shares of themselves: their skewness, on curves of
/// measurements.
pub const DOUBT: f64 = 3.0;
/// Below this share of the response log f is continued as a straight line, so that every point of a grid has an objective.
pub const CLIPPED: f64 = 0.02;
/// Steps at one grid point, and the share of the objective that one has to promise.
pub const STEPS: usize = 8;
pub const NEGLIGIBLE: f64 = 1e-3;

/// Whether the objective is squares of the logarithm of what is projected as it stands.
pub fn is_behind_a_proxy(model: &Model, loss: Loss) -> bool {
    loss == Loss::Squares && model.space == Space::Log && model.projection.space == Space::Linear
}

/// Whether grid points are looked at exactly: on a product grid, where neighbours tell basins.
pub fn is_looked_at(model: &Model, loss: Loss, grid: &Grid) -> bool {
    is_behind_a_proxy(model, loss) && grid.listed.is_none()
}

/// The residual of the proxy up to which a grid point may be the exact objective's lowest, `best` being the lowest of the
/// proxy's and `weight` the sum of the weights.
#[inline(always)]
pub fn open_level(best: f64, weight: f64) -> f64 {
    let doubt = DOUBT * (best / weight).sqrt();
    if doubt < 1.0 { best * (1.0 + doubt) / (1.0 - doubt) } else { f64::INFINITY }
}

/// Up to eight curves at one grid point: arrays of `points * LANES`.
#[derive(Debug)]
pub struct Seen<'a> {
    /// What the linear coordinates multiply, and what is added, times the root of the proxy's weight: √w/y.
    pub columns: &'a [&'a [f64]],
    pub offset: &'a [f64],
    /// √w
    pub root: &'a [f64],
}

/// Memory of [`minimise`], reused from point to point.
#[derive(Debug, Default)]
pub struct Memory {
    matrix: Vec<Lane>,
    slope: Vec<Lane>,
    step: Vec<Lane>,
    trial: Vec<Lane>,
}

/// Moves every lane's linear coordinates towards the least Σ w (log y − log f)²; returns what that sum is there.
#[inline(always)]
pub fn minimise<const SET: u8>(seen: &Seen, solution: &mut [Lane], memory: &mut Memory) -> Lane {
    let count = solution.len();
    let Memory { matrix, slope, step, trial } = memory;
    for (lanes, length) in
        [(&mut *matrix, triangle(count)), (&mut *slope, count), (&mut *step, count), (&mut *trial, count)]
    {
        lanes.resize(length, [0.0; LANES]);
    }
    trial.copy_from_slice(solution);
    let mut best = [f64::INFINITY; LANES];
    let mut open = [true; LANES];
    for _ in 0..STEPS {
        let here = measure::<SET>(seen, trial, matrix, slope);
        step.copy_from_slice(slope);
        solve_scaled::<SET>(matrix, step, DEPENDENT);
        let mut promised = [0.0; LANES];
        for (step, slope) in step.iter().zip(&*slope) {
            promised = each!(|i| fused::<SET>(step[i], slope[i], promised[i]));
        }
        for i in 0..LANES {
            let better = here[i] < best[i];
            if better && open[i] {
                best[i] = here[i];
                (0..count).for_each(|l| solution[l][i] = trial[l][i]);
            }
            // Where a step led nowhere, half of it may.
            for l in 0..count {
                let (from, reached) = (solution[l][i], trial[l][i]);
                trial[l][i] = if better { from + step[l][i] } else { 0.5 * (from + reached) };
            }
            open[i] &= !(better && promised[i] <= NEGLIGIBLE * here[i]);
        }
        if !open.contains(&true) {
            break;
        }
    }
    best
}

/// Σ w ρ² at a trial point, its Gauss–Newton matrix and its slope downhill.
#[inline(always)]
fn measure<const SET: u8>(seen: &Seen, trial: &[Lane], matrix: &mut [Lane], slope: &mut [Lane]) -> Lane {
    let mut sum = [0.0; LANES];
    matrix.fill(sum);
    slope.fill(sum);
    for (point, root) in seen.root.as_chunks::<LANES>().0.iter().enumerate() {
        let of = |column: &[f64]| -> Lane { column.as_chunks().0[point] };
        let mut prediction = of(seen.offset);
        for (column, own) in seen.columns.iter().zip(trial) {
            let column = of(column);
            prediction = each!(|i| fused::<SET>(own[i], column[i], prediction[i]));
        }
        // What fills a lane up has no weight.
        let share = each!(|i| if root[i] > 0.0 { prediction[i] / root[i] } else { 1.0 });
        let clipped = each!(|i| if share[i] > CLIPPED { share[i] } else { CLIPPED });
        let inverse = each!(|i| 1.0 / clipped[i]);
        let rho = each!(|i| -log::<SET>(clipped[i]) - (share[i] - clipped[i]) * inverse[i]);
        let pull = each!(|i| root[i] * rho[i]);
        sum = each!(|i| fused::<SET>(pull[i], pull[i], sum[i]));
        for (l, column) in seen.columns.iter().enumerate() {
            let column = of(column);
            let own = each!(|i| column[i] * inverse[i]);
            slope[l] = each!(|i| fused::<SET>(own[i], pull[i], slope[l][i]));
            for (m, column) in seen.columns[..=l].iter().enumerate() {
                let column = of(column);
                let other = each!(|i| column[i] * inverse[i]);
                let entry = matrix[at(l, m)];
                matrix[at(l, m)] = each!(|i| fused::<SET>(own[i], other[i], entry[i]));
            }
        }
    }
    sum
}
