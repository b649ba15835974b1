//! From starts to minima: a damped Newton iteration on the exact objective, eight starts at a time.
//!
//! In: a problem and a pack of [`Start`]s. Out: where they ended. Damped steps come first where a start is far; the last ones are full
//! Newton steps with the exact Hessian, accepted on the norm of the gradient: the objective itself stalls at the square root of
//! the rounding.

use super::lanes::{at, dot, each, factorise, pair, solve_lower, solve_scaled, solve_upper, triangle};
use super::objective::{Evaluation, LaneLoss, Workspace, counts, evaluate, response_size, total_squares};
use super::problem::Problem;
use super::symmetry;
use super::{Loss, Proposals, Space};
use crate::evaluate::elementary::{self, fused};
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Lane, POINTS};
use smallvec::SmallVec;

/// `converged`: the last step is at most this share of max(|z|, scale) in every coordinate.
pub const STEP_TOLERANCE: f64 = 1e-9;
/// Steps this small hand over from damped steps to full Newton steps.
const HAND_OVER: f64 = 1e-1;
/// Over a step this short the second derivatives are taken to stay: what that leaves of the next step is as small a share of it.
const SHORT_STEP: f64 = 1e-3;
/// Plain steps before the amplitudes are solved again at every trial point.
const PATIENCE: usize = 6;
/// Failed Newton steps (the gradient grew) after which a start is given up as it stands.
const MOST_FAILURES: usize = 40;
/// Rounding of the residuals of a perfect fit, as a share of the size of the response.
const ROUNDED: f64 = 8.0 * f64::EPSILON;
/// A scaled pivot below this makes a matrix singular to working precision.
pub(super) const SINGULAR: f64 = 1e-14;
/// Largest relative change of a searched parameter in one step.
const LEAP: f64 = 0.7;
/// A last step that promises to lower the objective by at most this share leaves the statistics as they are.
const NOTHING: f64 = 1e-12;
/// Numbers that an [`End`] holds without an allocation: all of a law of three parameters.
const SHORT: usize = 9;

/// One start on its way to a minimum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub curve: usize,
    /// Position among the proposals.
    pub proposal: usize,
    /// Not the best proposal of its curve: as a rule farther from a minimum, and a long way beside others' short ones.
    pub later: bool,
    /// Next to a minimum of the objective itself: a robust fit need not begin with a wide zone.
    pub near: bool,
}

/// Where a start ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub curve: usize,
    pub z: SmallVec<[f64; SHORT]>,
    pub objective: f64,
    /// Objective that rounding alone leaves in a perfect fit: half the square of the residuals' rounding.
    pub rounding: f64,
    pub converged: bool,
    pub pinned: u64,
    /// What [`describe`] needs of the last point evaluated, where the last step is too small to show in it: objective, Σ r²,
    /// Σ w (t − mean)², the Gauss–Newton triangle. Else empty.
    pub settled: SmallVec<[f64; SHORT]>,
}

impl End {
    /// The squared size of the response: see [`response_size`].
    pub fn squared_size(&self) -> f64 {
        self.rounding / ROUNDED.powi(2)
    }
}

/// Memory of [`descend`], reused from pack to pack; per coordinate.
#[derive(Debug, Default)]
pub(super) struct Memory {
    z: Vec<Lane>,
    lower: Vec<Lane>,
    upper: Vec<Lane>,
    trial: Vec<Lane>,
    along: Vec<Lane>,
    scale: Vec<Lane>,
    /// The gradient in units of the scale, and the step.
    slope: Vec<Lane>,
    step: Vec<Lane>,
    matrix: Vec<Lane>,
    /// 1, or 0 where a bound holds the coordinate.
    free: Vec<Lane>,
    here: Evaluation,
    there: Evaluation,
    better: Evaluation,
    /// Basis functions, goal and weights of [`follow_valley`].
    valley: Vec<f64>,
}

impl Memory {
    fn resize(&mut self, p: usize) {
        let Memory { z, lower, upper, trial, along, scale, slope, step, matrix, free, here, there, better, .. } = self;
        for lanes in [z, lower, upper, trial, along, scale, slope, step, free] {
            lanes.resize(p, [0.0; LANES]);
        }
        matrix.resize(triangle(p), [0.0; LANES]);
        for evaluation in [here, there, better] {
            evaluation.resize(p);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    /// Levenberg–Marquardt: the step has to lower the objective.
    Damped,
    /// Full Newton: the step has to lower the gradient.
    Newton,
    Done,
}

kernel!(
    /// Follows up to eight starts to their minima.
    pub(super) fn descend, fn descend_kernel(problem: &Problem, proposals: &Proposals, pack: &[Start], most_steps: usize, workspace: &mut Workspace, memory: &mut Memory, ends: &mut Vec<End>) = descend_generic;
);

#[inline(always)]
fn descend_generic<const SET: u8>(
    problem: &Problem,
    proposals: &Proposals,
    pack: &[Start],
    most_steps: usize,
    workspace: &mut Workspace,
    memory: &mut Memory,
    ends: &mut Vec<End>,
) {
    let model = problem.model;
    let p = model.len();
    let lane_start = |lane: usize| pack[lane.min(pack.len() - 1)];
    let curves: [usize; LANES] = std::array::from_fn(|lane| lane_start(lane).curve);
    workspace.gathered.gather(problem, &curves);
    memory.resize(p);
    let Memory { z, lower, upper, trial, along, scale, slope, step, matrix, free, here, there, better, valley } =
        memory;
    for j in 0..p {
        z[j] = each!(|lane| proposals.coordinates[lane_start(lane).proposal * p + j]);
        lower[j] = each!(|lane| problem.lower[curves[lane] * p + j]);
        upper[j] = each!(|lane| problem.upper[curves[lane] * p + j]);
        z[j] = each!(|i| z[j][i].max(lower[j][i]).min(upper[j][i]));
    }
    let size = response_size::<SET>(problem, &workspace.gathered);
    let mut loss = LaneLoss::of(problem.loss);
    let robust = problem.loss != Loss::Squares;
    // A full step leads to the optimum however far it is.
    let straight = model.is_linear() && !robust;
    // A start of the search is next to a minimum as a rule: full Newton steps from the first on, wherever they apply.
    let first = if robust { &model.programs.slope } else { &model.programs.curvature };
    evaluate::<SET>(problem, &loss, first, z, workspace, here);
    let mut second_known: [bool; LANES] = std::array::from_fn(|i| !robust && here.objective[i].is_finite());
    lift_floor::<SET>(problem, &loss, z, upper, workspace, here);

    let mut mode: [Mode; LANES] = std::array::from_fn(|i| match second_known[i] {
        _ if i >= pack.len() || !here.objective[i].is_finite() => Mode::Done,
        true => Mode::Newton,
        false => Mode::Damped,
    });
    let mut converged = [false; LANES];
    // Whether the last evaluation says all that there is to say about the end.
    let mut settled = [false; LANES];
    let plain = !robust && !problem.robust_errors && problem.symmetries.is_empty();
    let mut failures = [0usize; LANES];
    let mut damping: Lane = [if robust { 1e-1 } else { 1e-3 }; LANES];
    let mut hand_over = [HAND_OVER; LANES];
    let mut narrow = [false; LANES];
    if let (Loss::Huber { delta }, LaneLoss::Huber(zone)) = (problem.loss, &mut loss) {
        // Begin with a zone that holds most residuals and narrow it: a narrow zone far from the optimum holds too few
        // points to show any curvature (Madsen and Nielsen 1993 solve L1 problems so).
        let counts = counts(&workspace.gathered);
        *zone = each!(|i| {
            let wide = 2.0 * (here.squares[i] / counts[i]).sqrt();
            if wide > delta && !lane_start(i).near { wide } else { delta }
        });
        evaluate::<SET>(problem, &loss, &model.programs.slope, z, workspace, here);
    }
    trial.copy_from_slice(z);
    for round in 0..most_steps {
        if mode.iter().all(|&mode| mode == Mode::Done) {
            break;
        }
        if let (Loss::Huber { delta }, LaneLoss::Huber(zone)) = (problem.loss, &mut loss)
            && narrow.contains(&true)
        {
            *zone = each!(|i| if narrow[i] { (zone[i] * 0.25).max(delta) } else { zone[i] });
            evaluate::<SET>(problem, &loss, &model.programs.slope, z, workspace, there);
            here.accept(there, &narrow);
            second_known = std::array::from_fn(|i| second_known[i] && !narrow[i]);
            narrow = [false; LANES];
        }
        // Newton lanes need second derivatives at where they stand.
        if (0..LANES).any(|i| mode[i] == Mode::Newton && !second_known[i]) {
            evaluate::<SET>(problem, &loss, &model.programs.curvature, z, workspace, there);
            let take = std::array::from_fn(|i| mode[i] == Mode::Newton && !second_known[i]);
            here.accept(there, &take);
            second_known = std::array::from_fn(|i| second_known[i] || take[i]);
        }
        for j in 0..p {
            let descent = here.descent[j];
            free[j] = each!(|i| {
                let below = z[j][i] <= lower[j][i] && descent[i] <= 0.0;
                let above = z[j][i] >= upper[j][i] && descent[i] >= 0.0;
                if below || above { 0.0 } else { 1.0 }
            });
        }
        let mut promised;
        let mut relative;
        loop {
            let newton = each!(|i| if mode[i] == Mode::Newton { 1.0 } else { 0.0 });
            let damped = each!(|i| if mode[i] == Mode::Damped { 1.0 } else { 0.0 });
            let reach = if damped.contains(&1.0) { each!(|i| 1.0 / (2.0 * here.objective[i]).sqrt()) } else { damped };
            // Unit scaling by the curvature that is always there.
            for j in 0..p {
                let (gauss, outer) = (here.gauss[at(j, j)], here.robust[at(j, j)]);
                scale[j] = each!(|i| {
                    let sum = gauss[i] + outer[i];
                    if sum > 0.0 { 1.0 / sum.sqrt() } else { 0.0 }
                });
                if model.projection.nonlinear.contains(&j) {
                    // A damped step is of the size of the residuals, in units of the scale: where a searched parameter has
                    // lost its influence (a sharpness below the distance of the points) that would throw it across its box.
                    scale[j] = each!(|i| {
                        let reach = room(z[j][i], lower[j][i], upper[j][i]) * reach[i];
                        if damped[i] > 0.0 && reach < scale[j][i] { reach } else { scale[j][i] }
                    });
                }
            }
            let share = each!(|i| if newton[i] > 0.0 { 0.0 } else { (30.0 * damping[i]).min(1.0) });
            for j in 0..p {
                for k in 0..=j {
                    let (gauss, outer, second) = (here.gauss[at(j, k)], here.robust[at(j, k)], here.second[at(j, k)]);
                    let unit = if j == k { 1.0 } else { 0.0 };
                    matrix[at(j, k)] = each!(|i| {
                        let second = if newton[i] > 0.0 { second[i] } else { 0.0 };
                        let diagonal = if newton[i] > 0.0 { 0.0 } else { unit * damping[i] };
                        let curvature = gauss[i] + share[i] * outer[i] + second;
                        let entry = curvature * scale[j][i] * scale[k][i] + diagonal;
                        if free[j][i] * free[k][i] > 0.0 { entry } else { unit }
                    });
                }
                let descent = here.descent[j];
                slope[j] = each!(|i| if free[j][i] > 0.0 { descent[i] * scale[j][i] } else { 0.0 });
            }
            let least = factorise::<SET>(matrix, p, 0.0);
            step.copy_from_slice(slope);
            solve_lower::<SET>(matrix, step);
            solve_upper::<SET>(matrix, step);
            promised = [0.0; LANES];
            for (step, slope) in step.iter().zip(&*slope) {
                promised = each!(|i| promised[i] + 0.5 * step[i] * (damping[i] * step[i] + slope[i]));
            }
            let shrink = shrink(problem, step, scale, z, lower, upper);
            relative = [0.0f64; LANES];
            for j in 0..p {
                let most = if model.amplitudes.contains(&j) { f64::INFINITY } else { 1.0 };
                trial[j] = each!(|i| {
                    let reached = z[j][i] + step[j][i] * scale[j][i] * shrink[i];
                    let reached = if reached < lower[j][i] { lower[j][i] } else { reached };
                    if reached > upper[j][i] { upper[j][i] } else { reached }
                });
                relative = each!(|i| {
                    // What a parameter inside a function counts in must not grow as its influence fades.
                    let weighty = size[i] * scale[j][i];
                    let weighty = if weighty < most { weighty } else { most };
                    let unit = if z[j][i].abs() > weighty { z[j][i].abs() } else { weighty };
                    let unit = if unit > f64::MIN_POSITIVE { unit } else { f64::MIN_POSITIVE };
                    let share = (trial[j][i] - z[j][i]).abs() / unit;
                    if share > relative[i] || share.is_nan() { share } else { relative[i] }
                });
            }
            let mut retry = false;
            for i in 0..LANES {
                if mode[i] != Mode::Newton {
                    continue;
                }
                let indefinite = least[i] <= SINGULAR;
                // What is far from its minimum begins with damped steps.
                let near = relative[i] <= HAND_OVER;
                let far = round == 0 && !near && !straight;
                if indefinite || far {
                    mode[i] = Mode::Damped;
                    retry = true;
                }
                if indefinite && round > 0 {
                    failures[i] += 1;
                    damping[i] = damping[i].max(1e-3);
                    hand_over[i] = (hand_over[i] * 0.1).max(1e-7);
                }
            }
            if !retry {
                break;
            }
        }
        for j in 0..p {
            trial[j] = each!(|i| if mode[i] == Mode::Done { z[j][i] } else { trial[j][i] });
        }
        // A step this small needs no evaluation: its end is the minimum, and what it changes is below the rounding.
        let mut gain = [0.0; LANES];
        for (step, slope) in step.iter().zip(&*slope) {
            gain = each!(|i| fused::<SET>(0.5 * step[i], slope[i], gain[i]));
        }
        for i in 0..LANES {
            if mode[i] == Mode::Newton && relative[i] <= STEP_TOLERANCE {
                converged[i] = true;
                settled[i] = plain && gain[i] <= NOTHING * here.objective[i];
                mode[i] = Mode::Done;
                for j in 0..p {
                    z[j][i] = trial[j][i];
                }
            }
        }
        if mode.iter().all(|&mode| mode == Mode::Done) {
            break;
        }
        // Whether a lane keeps them is its own affair, whatever the others need.
        let newton = |i: usize| mode[i] == Mode::Newton;
        let short = |i: usize| problem.loss == Loss::Squares && relative[i] <= SHORT_STEP;
        let kept: [bool; LANES] = std::array::from_fn(|i| newton(i) && short(i) && second_known[i]);
        let with_second = (0..LANES).any(|i| newton(i) && !kept[i]);
        let tape = if with_second { &model.programs.curvature } else { &model.programs.slope };
        evaluate::<SET>(problem, &loss, tape, trial, workspace, there);
        for (there, here) in there.second.iter_mut().zip(&here.second) {
            *there = each!(|i| if kept[i] { here[i] } else { there[i] });
        }
        if round >= PATIENCE && mode.contains(&Mode::Damped) {
            along.copy_from_slice(trial);
            if model.solved.is_empty() {
                follow_valley::<SET>(problem, free, (lower, upper), z, along, workspace, valley);
            } else {
                solve_linear::<SET>(problem, free, (lower, upper), along, there);
            }
            evaluate::<SET>(problem, &loss, tape, along, workspace, better);
            // Far from a valley the promise is poor; a trial that cannot be evaluated is worse than any that can.
            let take: [bool; LANES] = std::array::from_fn(|i| {
                mode[i] == Mode::Damped && (better.objective[i] < there.objective[i] || there.objective[i].is_nan())
            });
            for j in 0..p {
                trial[j] = each!(|i| if take[i] { along[j][i] } else { trial[j][i] });
            }
            there.accept(better, &take);
        }
        let (before, after) = (norm(here, scale, free), norm(there, scale, free));
        let mut take = [false; LANES];
        for i in 0..LANES {
            match mode[i] {
                Mode::Done => {}
                Mode::Damped => {
                    let lower_now = there.objective[i] < here.objective[i];
                    if lower_now {
                        take[i] = true;
                        // A model that promised much more than came (large residuals make Gauss–Newton overshoot to and
                        // fro) deserves no more trust.
                        let gain = (here.objective[i] - there.objective[i]) / promised[i];
                        let factor = if gain > 0.5 {
                            0.1
                        } else if gain > 0.25 {
                            0.5
                        } else {
                            2.0
                        };
                        damping[i] = (damping[i] * factor).max(1e-12);
                    } else {
                        damping[i] *= 8.0;
                    }
                    let stalled = !lower_now && (relative[i] <= STEP_TOLERANCE || damping[i] > 1e12);
                    let wide = matches!((problem.loss, &loss), (Loss::Huber { delta }, LaneLoss::Huber(zone)) if zone[i] > delta);
                    if wide && (relative[i] <= HAND_OVER && lower_now || stalled) {
                        narrow[i] = true;
                    } else if relative[i] <= hand_over[i] && lower_now || stalled {
                        mode[i] = Mode::Newton;
                    }
                    if stalled {
                        failures[i] += 1;
                        damping[i] = 1e-3;
                    }
                }
                Mode::Newton => {
                    let rounding = 16.0 * f64::EPSILON * size[i];
                    let smaller = after[i] <= before[i].max(rounding);
                    let sane = there.objective[i] <= here.objective[i] * (1.0 + 1e-6) + f64::MIN_POSITIVE;
                    if smaller && sane || there.objective[i] < here.objective[i] * (1.0 - 1e-3) {
                        take[i] = true;
                    } else {
                        mode[i] = Mode::Damped;
                        if round > 0 {
                            damping[i] = (damping[i] * 4.0).clamp(1e-6, 1.0);
                            hand_over[i] = (hand_over[i] * 0.1).max(1e-7);
                            failures[i] += 1;
                        }
                    }
                }
            }
            if failures[i] > MOST_FAILURES && mode[i] != Mode::Done {
                mode[i] = Mode::Done;
            }
            if take[i] {
                second_known[i] = with_second || kept[i];
            }
        }
        for j in 0..p {
            z[j] = each!(|i| if take[i] { trial[j][i] } else { z[j][i] });
        }
        here.accept(there, &take);
    }
    let total = if settled.contains(&true) { total_squares::<SET>(&workspace.gathered) } else { [0.0; LANES] };
    for (lane, start) in pack.iter().enumerate() {
        let mut pinned = 0u64;
        for j in 0..p {
            let on_bound = z[j][lane] <= lower[j][lane] || z[j][lane] >= upper[j][lane];
            pinned |= u64::from(on_bound && free[j][lane] == 0.0) << j;
        }
        let mut z = of_lane([], z, lane);
        symmetry::canonical(problem.symmetries, &mut z, &mut pinned);
        ends.push(End {
            curve: start.curve,
            z,
            objective: if here.objective[lane].is_finite() { here.objective[lane] } else { f64::INFINITY },
            rounding: (ROUNDED * size[lane]).powi(2),
            converged: converged[lane],
            pinned,
            settled: if settled[lane] {
                of_lane([here.objective[lane], here.squares[lane], total[lane]], &here.gauss, lane)
            } else {
                SmallVec::new()
            },
        });
    }
}

/// Some numbers, then those of one lane.
#[inline(always)]
fn of_lane<const N: usize>(first: [f64; N], lanes: &[Lane], lane: usize) -> SmallVec<[f64; SHORT]> {
    let mut numbers = SmallVec::from_elem(0.0, N + lanes.len());
    numbers[..N].copy_from_slice(&first);
    for (number, of) in numbers[N..].iter_mut().zip(lanes) {
        *number = of[lane];
    }
    numbers
}

/// Lets the amplitudes of a damped trial point in log space follow the valley: with the searched parameters moved, they are
/// solved so that the curve comes closest to what the step promised, `h + J δ`. A floor and an amplitude that nearly cancel (a decay
/// with a small exponent) have to move far and together, along a valley that a straight step leaves at once.
#[inline(always)]
fn follow_valley<const SET: u8>(
    problem: &Problem,
    free: &[Lane],
    bounds: (&[Lane], &[Lane]),
    z: &[Lane],
    trial: &mut [Lane],
    workspace: &mut Workspace,
    valley: &mut Vec<f64>,
) {
    let model = problem.model;
    let projection = &model.projection;
    let linear = &projection.linear;
    let plain = |j: &usize| projection.coordinates[*j] == model.coordinates[*j];
    if projection.space != Space::Linear || linear.is_empty() || !linear.iter().all(plain) {
        return;
    }
    let Workspace { gathered, scratch, .. } = workspace;
    let stride = gathered.stride;
    let count = linear.len();
    // Columns: the basis functions, then the goal less the offset; all times the root of the weight.
    valley.resize(((count + 2) * stride).max(valley.len()), 0.0);
    let (columns, rest) = valley.split_at_mut(count * stride);
    let (goal, rest) = rest.split_at_mut(stride);
    let root = &mut rest[..stride];
    model.programs.slope.prepare::<SET>(scratch, z);
    for first in (0..gathered.points).step_by(POINTS) {
        let points = POINTS.min(gathered.points - first);
        model.programs.slope.run::<SET>(scratch, &gathered.inputs, stride, first, points);
        let output = |slot: usize| model.programs.slope.output(slot, scratch, &gathered.inputs, stride, first, points);
        let block = first * LANES..(first + points) * LANES;
        let goal = &mut goal[block.clone()];
        goal.copy_from_slice(output(0));
        for j in 0..model.len() {
            let step = each!(|i| trial[j][i] - z[j][i]);
            for (goal, slope) in goal.chunks_exact_mut(LANES).zip(output(1 + j).chunks_exact(LANES)) {
                for i in 0..LANES {
                    goal[i] = fused::<SET>(slope[i], step[i], goal[i]);
                }
            }
        }
        for ((goal, root), &w) in goal.iter_mut().zip(&mut root[block.clone()]).zip(&gathered.weight[block]) {
            *root = w.sqrt() * elementary::exp::<SET>(-*goal);
            *goal = elementary::exp::<SET>(*goal);
        }
    }
    for (l, tape) in model.programs.columns.iter().enumerate() {
        tape.prepare::<SET>(scratch, trial);
        for first in (0..gathered.points).step_by(POINTS) {
            let points = POINTS.min(gathered.points - first);
            tape.run::<SET>(scratch, &gathered.inputs, stride, first, points);
            let output = tape.output(0, scratch, &gathered.inputs, stride, first, points);
            let block = first * LANES..(first + points) * LANES;
            if l == count {
                for ((goal, &offset), &root) in goal[block.clone()].iter_mut().zip(output).zip(&root[block]) {
                    *goal = (*goal - offset) * root;
                }
            } else {
                let column = &mut columns[l * stride..][block.clone()];
                for ((column, &basis), &root) in column.iter_mut().zip(output).zip(&root[block]) {
                    *column = basis * root;
                }
            }
        }
    }
    let column = |l: usize| &columns[l * stride..][..stride];
    let mut gram = vec![[0.0; LANES]; triangle(count)];
    let mut solution = vec![[0.0; LANES]; count];
    for l in 0..count {
        for m in 0..=l {
            gram[at(l, m)] = dot::<SET>(column(l), column(m));
        }
        solution[l] = dot::<SET>(column(l), goal);
    }
    let least = solve_scaled::<SET>(&mut gram, &mut solution, SINGULAR);
    for i in 0..LANES {
        let free = linear.iter().all(|&j| free[j][i] > 0.0);
        let finite = solution.iter().all(|part| part[i].is_finite());
        if free && finite && least[i] > SINGULAR {
            for (l, &j) in linear.iter().enumerate() {
                trial[j][i] = solution[l][i].max(bounds.0[j][i]).min(bounds.1[j][i]);
            }
        }
    }
}

/// Solves the coordinates of a trial point in which h is linear for the data, exactly: one Gauss–Newton step in them alone.
#[inline(always)]
fn solve_linear<const SET: u8>(
    problem: &Problem,
    free: &[Lane],
    bounds: (&[Lane], &[Lane]),
    along: &mut [Lane],
    there: &Evaluation,
) {
    let model = problem.model;
    let linear = &model.solved;
    let count = linear.len();
    if count == 0 || count == model.len() {
        return;
    }
    let mut matrix = vec![[0.0; LANES]; triangle(count)];
    for (a, &j) in linear.iter().enumerate() {
        for (b, &k) in linear[..=a].iter().enumerate() {
            let (gauss, outer) = (there.gauss[pair(j, k)], there.robust[pair(j, k)]);
            // Held coordinates leave the system: a zero row moves nothing.
            matrix[at(a, b)] = each!(|i| if free[j][i] * free[k][i] > 0.0 { gauss[i] + outer[i] } else { 0.0 });
        }
    }
    let mut step: Vec<Lane> = linear.iter().map(|&j| there.descent[j]).collect();
    solve_scaled::<SET>(&mut matrix, &mut step, SINGULAR);
    for (a, &j) in linear.iter().enumerate() {
        along[j] = each!(|i| (along[j][i] + step[a][i]).max(bounds.0[j][i]).min(bounds.1[j][i]));
    }
}

/// How far a searched parameter may go in one step: [`LEAP`] of itself, or of half its box where that holds zero.
#[inline(always)]
fn room(z: f64, lower: f64, upper: f64) -> f64 {
    if lower > 0.0 { LEAP * z } else { LEAP * 0.5 * (upper - lower) }
}

/// The share of a step that keeps every searched parameter within its room.
#[inline(always)]
fn shrink(problem: &Problem, step: &[Lane], scale: &[Lane], z: &[Lane], lower: &[Lane], upper: &[Lane]) -> Lane {
    let mut shrink = [1.0; LANES];
    for &j in &problem.model.projection.nonlinear {
        for i in 0..LANES {
            let wanted = (step[j][i] * scale[j][i]).abs();
            let share = room(z[j][i], lower[j][i], upper[j][i]) / wanted;
            shrink[i] = if share < shrink[i] { share } else { shrink[i] };
        }
    }
    shrink
}

/// Largest component of the gradient over the free coordinates, in units of the curvature.
#[inline(always)]
fn norm(evaluation: &Evaluation, scale: &[Lane], free: &[Lane]) -> Lane {
    let mut largest = [0.0; LANES];
    for (j, descent) in evaluation.descent.iter().enumerate() {
        largest = each!(|i| {
            let component = if free[j][i] > 0.0 { (descent[i] * scale[j][i]).abs() } else { 0.0 };
            // A NaN is the largest of all.
            if component > largest[i] || component.is_nan() { component } else { largest[i] }
        });
    }
    largest
}

/// Where a start in log space predicts something that has no logarithm, blends it with a flat curve at the geometric mean
/// of the response until it does not: the floor rises, the amplitudes shrink.
#[inline(always)]
fn lift_floor<const SET: u8>(
    problem: &Problem,
    loss: &LaneLoss,
    z: &mut [Lane],
    upper: &[Lane],
    workspace: &mut Workspace,
    here: &mut Evaluation,
) {
    let model = problem.model;
    let (Space::Log, Some(floor)) = (model.space, model.floor) else { return };
    if here.objective.iter().all(|objective| objective.is_finite()) {
        return;
    }
    let gathered = &workspace.gathered;
    let (mut sum, mut weight) = ([0.0; LANES], [0.0; LANES]);
    for (t, w) in gathered.response[..gathered.stride].chunks_exact(LANES).zip(gathered.weight.chunks_exact(LANES)) {
        sum = each!(|i| sum[i] + w[i] * t[i]);
        weight = each!(|i| weight[i] + w[i]);
    }
    let level = each!(|i| elementary::exp::<SET>(sum[i] / weight[i]));
    let original = z.to_vec();
    let mut there = here.clone();
    for share in [0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999] {
        let missing: [bool; LANES] = std::array::from_fn(|i| !here.objective[i].is_finite());
        if !missing.contains(&true) {
            return;
        }
        for &j in &model.amplitudes {
            let goal = if j == floor { level } else { [0.0; LANES] };
            z[j] = each!(|i| {
                if missing[i] {
                    (original[j][i] + share * (goal[i] - original[j][i])).min(upper[j][i])
                } else {
                    z[j][i]
                }
            });
        }
        evaluate::<SET>(problem, loss, &model.programs.slope, z, workspace, &mut there);
        here.accept(&there, &missing);
    }
}
