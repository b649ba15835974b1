//! What is said of a fit: status, parameters in the user's terms, standard errors, condition, information criteria.
//!
//! In: the winning [`End`]s of up to eight curves. Out: their entries of the [`Verdicts`].

use super::appeal;
use super::descend::{End, SINGULAR};
use super::judge::Verdicts;
use super::lanes::{
    Lanes, at, dot, each, factorise, largest_eigenvalue, pair, solve_lower, solve_upper, triangle, zeros,
};
use super::objective::{Evaluation, LaneLoss, Workspace, add, evaluate, total_squares};
use super::orthogonal::inverse_gram;
use super::problem::Problem;
use super::{Loss, Space, Status};
use crate::evaluate::elementary::fused;
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Lane, POINTS};

/// A scaled pivot below this has lost half its digits to the squared condition number: the Jacobian itself is asked.
const SQUARED: f64 = 1e-8;
/// A column of the Jacobian this nearly a combination of the others (sine of the angle) is one to working precision.
const DEPENDENT: f64 = 1e-14;
/// The same where there is noise of a percent and more; in between, where the noise would move a combination of parameters by
/// [`UNTOLD`] times what changes the whole response.
const DEPENDENT_IN_NOISE: f64 = 1e-7;
const UNTOLD: f64 = 1e5;

/// Memory of [`describe`], reused from pack to pack.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// At the ends described.
    here: Evaluation,
    /// Predictions and slopes of [`invert_carefully`].
    outputs: Vec<f64>,
}

kernel!(
    /// Writes parameters and statistics of up to eight curves.
    pub(super) fn describe, fn describe_kernel(problem: &Problem, unit_weights: bool, pack: &[&End], first: usize, workspace: &mut Workspace, memory: &mut Memory, verdicts: &mut Verdicts) = describe_generic;
);

#[inline(always)]
fn describe_generic<const SET: u8>(
    problem: &Problem,
    unit_weights: bool,
    pack: &[&End],
    first: usize,
    workspace: &mut Workspace,
    memory: &mut Memory,
    verdicts: &mut Verdicts,
) {
    let model = problem.model;
    let p = model.len();
    let end = |lane: usize| pack[lane.min(pack.len() - 1)];
    let mut z = zeros(p);
    for j in 0..p {
        z[j] = each!(|lane| end(lane).z[j]);
    }
    let Memory { here, outputs } = memory;
    here.resize(p);
    let mut total = [0.0; LANES];
    let curves: [usize; LANES] = std::array::from_fn(|lane| end(lane).curve);
    let settled = pack.iter().all(|end| !end.settled.is_empty());
    if !settled {
        workspace.gathered.gather(problem, &curves);
        let tape = if problem.loss == Loss::Squares { &model.programs.slope } else { &model.programs.curvature };
        evaluate::<SET>(problem, &LaneLoss::of(problem.loss), tape, &z, workspace, here);
        total = total_squares::<SET>(&workspace.gathered);
    }
    for lane in 0..LANES {
        if let [objective, squares, about_mean, gauss @ ..] = &end(lane).settled[..] {
            (here.objective[lane], here.squares[lane], total[lane]) = (*objective, *squares, *about_mean);
            for (entry, &known) in here.gauss.iter_mut().zip(gauss) {
                entry[lane] = known;
            }
        }
    }
    let meat = problem.robust_errors.then(|| gradient_scatter::<SET>(problem, &z, workspace));
    let explained = weighted_squares::<SET>(problem, here, &z, workspace);

    let decoded = decode::<SET>(problem, pack, &z, workspace);
    // Pinned parameters leave the system: unit row and column.
    let mut free = zeros(p);
    for j in 0..p {
        free[j] = each!(|i| f64::from(u8::from(end(i).pinned >> j & 1 == 0)));
    }
    let mut curvature = zeros(triangle(p));
    for k in 0..triangle(p) {
        curvature[k] =
            each!(|i| here.gauss[k][i] + if problem.loss == Loss::Squares { 0.0 } else { here.second[k][i] });
    }
    let (mut inverse, mut sharpness) = inverse::<SET>(&curvature, &free);
    let least = if problem.loss == Loss::Squares {
        if settled && sharpness[..pack.len()].iter().any(|&pivot| pivot <= SQUARED) {
            workspace.gathered.gather(problem, &curves);
        }
        for lane in 0..pack.len() {
            if sharpness[lane] <= SQUARED {
                sharpness[lane] = invert_carefully(
                    problem,
                    end(lane),
                    here.objective[lane],
                    lane,
                    &z,
                    workspace,
                    outputs,
                    &mut inverse,
                );
            }
        }
        sharpness
    } else {
        let full: Lanes = (0..triangle(p)).map(|k| each!(|i| here.gauss[k][i] + here.robust[k][i])).collect();
        self::inverse::<SET>(&full, &free).1
    };
    let variance = spread_to_parameters::<SET>(&decoded, &inverse, &free);
    let condition = condition::<SET>(&decoded, &here.gauss, &variance, &free);
    let variance = match meat {
        Some(meat) => spread_to_parameters::<SET>(&decoded, &sandwich(&inverse, &meat, p), &free),
        None => variance,
    };
    for (lane, end) in pack.iter().enumerate() {
        let slot = end.curve - first;
        let n = verdicts.points[slot] as usize;
        let pinned = end.pinned.count_ones() as usize;
        let estimated = p - pinned;
        let objective = here.objective[lane];
        let rank_deficient = least[lane] <= if problem.loss == Loss::Squares { 0.0 } else { SINGULAR };
        let status = if !objective.is_finite() || (0..p).any(|j| !decoded.theta[j][lane].is_finite()) {
            Status::NonFinite
        } else if rank_deficient {
            Status::Degenerate
        } else if !end.converged {
            Status::IterationLimit
        } else if pinned > 0 {
            Status::AtBound
        } else {
            Status::Converged
        };
        verdicts.status[slot] = status;
        if objective.is_finite() {
            verdicts.objective[slot] = objective;
            verdicts.rmse[slot] = (here.squares[lane] / n as f64).sqrt();
            verdicts.r2[slot] = if total[lane] > 0.0 { 1.0 - explained[lane] / total[lane] } else { f64::NAN };
        }
        if !status.has_parameters() {
            verdicts.basins[slot] = 0;
            verdicts.basin_gap[slot] = f64::NAN;
            continue;
        }
        verdicts.pinned[slot] = end.pinned;
        verdicts.condition[slot] = condition[lane];
        let freedom = (n - estimated) as f64;
        let noise = match problem.robust_errors {
            true => n as f64 / freedom,
            false if unit_weights => 1.0,
            false => 2.0 * objective / freedom,
        };
        // Under Huber a start that stopped on the way may stand where the Hessian has no inverse.
        let invertible = sharpness[lane] > if problem.loss == Loss::Squares { 0.0 } else { SINGULAR };
        let determined = n > estimated && invertible;
        for j in 0..p {
            verdicts.parameters[slot * p + j] = decoded.theta[j][lane];
            let known = determined && free[j][lane] != 0.0;
            let error = (variance[at(j, j)][lane] * noise).sqrt();
            verdicts.standard_errors[slot * p + j] = if known { error } else { f64::NAN };
        }
        if determined {
            let into = &mut verdicts.covariance[slot * triangle(p)..][..triangle(p)];
            for (entry, variance) in into.iter_mut().zip(&variance) {
                *entry = variance[lane] * noise;
            }
        }
        if objective > 0.0 {
            let k = (estimated + 1) as f64;
            [verdicts.aicc[slot], verdicts.bic[slot]] = information_criteria(objective, n as f64, k);
        }
    }
}

/// The inverse of JᵀWJ of one lane, from J itself; into the triangles `inverse`. Returns the smallest scaled pivot, zero for
/// rank deficiency.
fn invert_carefully(
    problem: &Problem,
    end: &End,
    objective: f64,
    lane: usize,
    z: &[Lane],
    workspace: &mut Workspace,
    outputs: &mut Vec<f64>,
    inverse: &mut [Lane],
) -> f64 {
    let p = problem.model.len();
    let Workspace { gathered, scratch, .. } = workspace;
    appeal::tabulate(&problem.model.programs.slope, z, gathered, scratch, outputs);
    let rows = problem.rows(end.curve);
    let (response, weight) = (&problem.response[rows.clone()], &problem.weight[rows]);
    let unit = if problem.model.space == Space::Log { 1.0 } else { 0.0 };
    let size: f64 = response.iter().zip(weight).map(|(t, w)| w * (t * t + unit)).sum();
    let told = ((2.0 * objective / size).sqrt() / UNTOLD).clamp(DEPENDENT, DEPENDENT_IN_NOISE);
    let free: Vec<usize> = (0..p).filter(|j| end.pinned >> j & 1 == 0).collect();
    let mut columns: Vec<Vec<f64>> = free
        .iter()
        .map(|j| {
            let slopes = outputs[(1 + j) * gathered.stride + lane..].iter().step_by(LANES);
            slopes.zip(weight).map(|(slope, w)| slope * w.sqrt()).collect()
        })
        .collect();
    let (found, sine) = inverse_gram(&mut columns);
    for (a, &j) in free.iter().enumerate() {
        for (b, &k) in free[..=a].iter().enumerate() {
            inverse[at(j, k)][lane] = found[at(a, b)];
        }
    }
    if sine > told { sine * sine } else { 0.0 }
}

/// AICc and BIC of a positive objective, `n` points and `k` parameters, the scale of the noise included; AICc is NaN where
/// its correction takes more points.
pub fn information_criteria(objective: f64, n: f64, k: f64) -> [f64; 2] {
    let fit = n * (2.0 * objective / n).ln();
    let aicc = if n > k + 1.0 { fit + 2.0 * k + 2.0 * k * (k + 1.0) / (n - k - 1.0) } else { f64::NAN };
    [aicc, fit + k * n.ln()]
}

/// Σ (w ψ(r))² J Jᵀ, packed: how the gradient scatters over the points, each with the variance that its own residual shows.
#[inline(always)]
fn gradient_scatter<const SET: u8>(problem: &Problem, z: &[Lane], workspace: &mut Workspace) -> Lanes {
    let p = problem.model.len();
    let tape = &problem.model.programs.slope;
    let Workspace { gathered, scratch, pull, weighted, .. } = workspace;
    let mut scatter = zeros(triangle(p));
    let reach = match problem.loss {
        Loss::Squares => f64::INFINITY,
        Loss::Huber { delta } => delta,
    };
    tape.prepare::<SET>(scratch, z);
    for first in (0..gathered.points).step_by(POINTS) {
        let points = POINTS.min(gathered.points - first);
        tape.run::<SET>(scratch, &gathered.inputs, gathered.stride, first, points);
        let output = |slot: usize| tape.output(slot, scratch, &gathered.inputs, gathered.stride, first, points);
        let length = points * LANES;
        let block = first * LANES..first * LANES + length;
        let rows = output(0).iter().zip(&gathered.response[block.clone()]).zip(&gathered.weight[block]);
        for (pull, ((h, t), w)) in pull.iter_mut().zip(rows) {
            let slope = w * (t - h).clamp(-reach, reach);
            *pull = slope * slope;
        }
        for j in 0..p {
            for (weighted, (&slope, &pull)) in weighted.iter_mut().zip(output(1 + j).iter().zip(&pull[..length])) {
                *weighted = slope * pull;
            }
            for k in 0..=j {
                add(&mut scatter[at(j, k)], dot::<SET>(&weighted[..length], output(1 + k)));
            }
        }
    }
    scatter
}

/// B M B of packed symmetric matrices.
#[inline(always)]
fn sandwich(bread: &[Lane], meat: &[Lane], p: usize) -> Lanes {
    let mut half = zeros(p * p);
    for j in 0..p {
        for k in 0..p {
            for m in 0..p {
                let (bread, meat, sum) = (bread[pair(j, m)], meat[pair(m, k)], half[j * p + k]);
                half[j * p + k] = each!(|i| sum[i] + bread[i] * meat[i]);
            }
        }
    }
    let mut result = zeros(triangle(p));
    for j in 0..p {
        for k in 0..=j {
            for m in 0..p {
                let (half, bread, sum) = (half[j * p + m], bread[pair(m, k)], result[at(j, k)]);
                result[at(j, k)] = each!(|i| sum[i] + half[i] * bread[i]);
            }
        }
    }
    result
}

/// Σ w r²; the objective already holds it under squares.
#[inline(always)]
fn weighted_squares<const SET: u8>(
    problem: &Problem,
    here: &Evaluation,
    z: &[Lane],
    workspace: &mut Workspace,
) -> Lane {
    if problem.loss == Loss::Squares {
        return each!(|i| 2.0 * here.objective[i]);
    }
    let mut evaluation = Evaluation::new(problem.model.len());
    evaluate::<SET>(problem, &LaneLoss::Squares, &problem.model.programs.slope, z, workspace, &mut evaluation);
    each!(|i| 2.0 * evaluation.objective[i])
}

/// Decoded parameters and how they depend on the coordinates: θ_j = plain_j K_j.
struct Decoded {
    theta: Lanes,
    /// ∂θ_j/∂z_i at `j * p + i`.
    slopes: Lanes,
}

#[inline(always)]
fn decode<const SET: u8>(problem: &Problem, pack: &[&End], z: &[Lane], workspace: &mut Workspace) -> Decoded {
    let model = problem.model;
    let p = model.len();
    let programs = &model.programs;
    let (mut plain, mut slope) = (zeros(p), zeros(p));
    for j in 0..p {
        plain[j] = each!(|i| model.coordinates[j].decode(z[j][i]));
        slope[j] = each!(|i| model.coordinates[j].slope(plain[j][i]));
    }
    let inputs = model.inputs.len();
    let centres: Vec<f64> = (0..inputs)
        .flat_map(|k| each!(|lane| problem.centres[pack[lane.min(pack.len() - 1)].curve * inputs + k]))
        .collect();
    programs.scale.prepare::<SET>(&mut workspace.scratch, &plain);
    programs.scale.run::<SET>(&mut workspace.scratch, &centres, LANES, 0, 1);
    let output = |slot: usize| {
        let values = programs.scale.output(slot, &workspace.scratch, &centres, LANES, 0, 1);
        each!(|i| values[i])
    };
    let mut scale = zeros(p);
    scale.fill([1.0; LANES]);
    let mut slopes = zeros(p * p);
    for (position, &j) in programs.scaled.iter().enumerate() {
        scale[j] = output(position);
    }
    for j in 0..p {
        slopes[j * p + j] = each!(|i| slope[j][i] * scale[j][i]);
    }
    for (slot, &(position, i)) in programs.scale_slopes.iter().enumerate() {
        let j = programs.scaled[position];
        let derivative = output(programs.scaled.len() + slot);
        let known = slopes[j * p + i];
        slopes[j * p + i] = each!(|lane| known[lane] + plain[j][lane] * derivative[lane] * slope[i][lane]);
    }
    let origin = |j: usize, i: usize| model.origin[j].map_or(0.0, |k| centres[k * LANES + i]);
    let mut theta = zeros(p);
    for j in 0..p {
        theta[j] = each!(|i| plain[j][i] * scale[j][i] - origin(j, i));
    }
    Decoded { theta, slopes }
}

/// The inverse of a packed symmetric matrix over the free coordinates (1 in `free`, pinned ones 0), and the smallest scaled
/// pivot.
#[inline(always)]
fn inverse<const SET: u8>(matrix: &[Lane], free: &[Lane]) -> (Lanes, Lane) {
    let p = free.len();
    let mut scale = zeros(p);
    for j in 0..p {
        let own = matrix[at(j, j)];
        scale[j] = each!(|i| if own[i] > 0.0 { free[j][i] / own[i].sqrt() } else { 0.0 });
    }
    let mut factor = zeros(triangle(p));
    for j in 0..p {
        for k in 0..=j {
            let (entry, unit) = (matrix[at(j, k)], if j == k { 1.0 } else { 0.0 });
            factor[at(j, k)] = each!(|i| {
                let scaled = entry[i] * scale[j][i] * scale[k][i];
                if free[j][i] * free[k][i] > 0.0 { scaled } else { unit }
            });
        }
    }
    let least = factorise::<SET>(&mut factor, p, SINGULAR);
    let mut inverse = zeros(triangle(p));
    let mut column = zeros(p);
    for k in 0..p {
        column.fill([0.0; LANES]);
        column[k] = [1.0; LANES];
        solve_lower::<SET>(&factor, &mut column);
        solve_upper::<SET>(&factor, &mut column);
        for j in k..p {
            inverse[at(j, k)] = each!(|i| column[j][i] * scale[j][i] * scale[k][i]);
        }
    }
    (inverse, least)
}

/// The inverse curvature in the user's parameters: S C Sᵀ, packed; zero for pinned parameters.
#[inline(always)]
fn spread_to_parameters<const SET: u8>(decoded: &Decoded, inverse: &[Lane], free: &[Lane]) -> Lanes {
    let p = free.len();
    let mut half = zeros(p * p);
    for j in 0..p {
        for k in 0..p {
            let mut sum = [0.0; LANES];
            for m in 0..p {
                let (slope, part) = (decoded.slopes[j * p + m], inverse[pair(m, k)]);
                sum = each!(|i| fused::<SET>(slope[i], part[i], sum[i]));
            }
            half[j * p + k] = each!(|i| if free[j][i] > 0.0 { sum[i] } else { 0.0 });
        }
    }
    let mut result = zeros(triangle(p));
    for j in 0..p {
        for k in 0..=j {
            let mut sum = [0.0; LANES];
            for m in 0..p {
                let (part, slope) = (half[j * p + m], decoded.slopes[k * p + m]);
                sum = each!(|i| fused::<SET>(part[i], slope[i], sum[i]));
            }
            result[at(j, k)] = each!(|i| if free[k][i] > 0.0 { sum[i] } else { 0.0 });
        }
    }
    result
}

/// The 2-norm condition number of the Jacobian with unit columns, in the user's parameters: the square root of the largest
/// eigenvalues of the correlation matrix and of its inverse, each taken from the matrix that determines it well.
#[inline(always)]
fn condition<const SET: u8>(decoded: &Decoded, gauss: &[Lane], variance: &[Lane], free: &[Lane]) -> Lane {
    let p = free.len();
    // ∂z/∂θ: the slopes are triangular up to the order of parameters, since scales depend on unscaled parameters only.
    let mut inverse_slopes = zeros(p * p);
    for j in 0..p {
        let own = decoded.slopes[j * p + j];
        for i in 0..p {
            let (other, slope) = (decoded.slopes[i * p + i], decoded.slopes[j * p + i]);
            inverse_slopes[j * p + i] = if i == j {
                each!(|lane| 1.0 / own[lane])
            } else {
                each!(|lane| -slope[lane] / (own[lane] * other[lane]))
            };
        }
    }
    let mut half = zeros(p * p);
    for j in 0..p {
        for k in 0..p {
            let mut sum = [0.0; LANES];
            for m in 0..p {
                let (part, slope) = (gauss[pair(j, m)], inverse_slopes[m * p + k]);
                sum = each!(|i| fused::<SET>(part[i], slope[i], sum[i]));
            }
            half[j * p + k] = sum;
        }
    }
    let mut gram = zeros(triangle(p));
    for j in 0..p {
        for k in 0..=j {
            let mut sum = [0.0; LANES];
            for m in 0..p {
                let (slope, part) = (inverse_slopes[m * p + j], half[m * p + k]);
                sum = each!(|i| fused::<SET>(slope[i], part[i], sum[i]));
            }
            gram[at(j, k)] = sum;
        }
    }
    let mut norms = zeros(p);
    for j in 0..p {
        let own = gram[at(j, j)];
        norms[j] = each!(|i| own[i].sqrt());
    }
    let mut correlation = zeros(triangle(p));
    let mut precision = zeros(triangle(p));
    for j in 0..p {
        for k in 0..=j {
            // Pinned parameters: a unit row, whose eigenvalue 1 changes neither extreme.
            let unit = if j == k { 1.0 } else { 0.0 };
            let (product, variance) = (gram[at(j, k)], variance[at(j, k)]);
            correlation[at(j, k)] = each!(|i| {
                let scaled = product[i] / (norms[j][i] * norms[k][i]);
                if free[j][i] * free[k][i] > 0.0 { scaled } else { unit }
            });
            precision[at(j, k)] = each!(|i| {
                let scaled = variance[i] * norms[j][i] * norms[k][i];
                if free[j][i] * free[k][i] > 0.0 { scaled } else { unit }
            });
        }
    }
    let largest = largest_eigenvalue::<SET>(&mut correlation, p);
    let smallest = largest_eigenvalue::<SET>(&mut precision, p);
    each!(|i| (largest[i] * smallest[i]).sqrt())
}
