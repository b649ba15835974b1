//! Judge: the one audited path that decides, in f64, for every backend.
//!
//! In: a problem and the proposals of a backend. Out: per curve the status, the parameters and their statistics. From each
//! proposal a damped Newton iteration on the exact objective runs eight starts at a time; the best end point of a curve
//! wins. The last steps are full Newton steps with the exact Hessian, accepted on the norm of the gradient: the objective
//! itself stalls at the square root of the rounding.

use super::above;
use super::appeal;
use super::cpu::CURVES_PER_TASK;
use super::lanes::{
    Gathered, Lanes, add_dots, at, dot, each, factorise, largest_eigenvalue, pair, solve_lower, solve_scaled,
    solve_upper, triangle, zeros,
};
use super::orthogonal::inverse_gram;
use super::problem::Problem;
use super::retrial;
use super::symmetry;
use super::{Loss, Proposals, Space, Status};
use crate::evaluate::elementary::{self, fused};
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{BLOCK, LANES, Lane, POINTS, REPEATED, Scratch, Tape, repeat};
use rayon::prelude::*;
use smallvec::SmallVec;

/// `converged`: the last step is at most this share of max(|z|, scale) in every coordinate.
pub const STEP_TOLERANCE: f64 = 1e-9;
/// Steps this small hand over from damped steps to full Newton steps.
const HAND_OVER: f64 = 1e-1;
/// Over a step this short the second derivatives are taken to stay: what that leaves of the next step is as small a share of it.
const SHORT_STEP: f64 = 1e-3;
/// Evaluations per start; robust fits of flat valleys need some hundred.
const MOST_STEPS: usize = 400;
/// Two polished starts are told apart by this share of a coordinate.
const NEARBY: f64 = 1e-2;
/// Plain steps before the amplitudes are solved again at every trial point.
const PATIENCE: usize = 6;
/// Failed Newton steps (the gradient grew) after which a start is given up as it stands.
const MOST_FAILURES: usize = 40;
/// Rounding of the residuals of a perfect fit, as a share of the size of the response.
const ROUNDED: f64 = 8.0 * f64::EPSILON;
/// A scaled pivot below this makes a matrix singular to working precision.
const SINGULAR: f64 = 1e-14;
/// A scaled pivot below this has lost half its digits to the squared condition number: the Jacobian itself is asked.
const SQUARED: f64 = 1e-8;
/// A column of the Jacobian this nearly a combination of the others (sine of the angle) is one to working precision.
const DEPENDENT: f64 = 1e-14;
/// The same where there is noise of a percent and more; in between, where the noise would move a combination of parameters by
/// [`UNTOLD`] times what changes the whole response.
const DEPENDENT_IN_NOISE: f64 = 1e-7;
const UNTOLD: f64 = 1e5;
/// Largest relative change of a searched parameter in one step.
const LEAP: f64 = 0.7;
/// A last step that promises to lower the objective by at most this share leaves the statistics as they are.
const NOTHING: f64 = 1e-12;
/// Two end points are one basin if their objectives agree to this share and their coordinates to [`SAME_PLACE`].
const SAME_DEPTH: f64 = 1e-7;
const SAME_PLACE: f64 = 1e-3;

/// The verdicts on all curves of a problem, structure of arrays. NaN stands for null.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdicts {
    pub status: Vec<Status>,
    pub points: Vec<u32>,
    /// Free parameter j of curve i at `i * p + j`; θ, not z.
    pub parameters: Vec<f64>,
    pub standard_errors: Vec<f64>,
    /// Covariance of the free parameters of curve i, a packed lower triangle (see [`super::lanes::at`]) at
    /// `i * triangle(p)`; zero for pinned parameters, NaN where it is not determined.
    pub covariance: Vec<f64>,
    pub objective: Vec<f64>,
    pub rmse: Vec<f64>,
    pub r2: Vec<f64>,
    pub aicc: Vec<f64>,
    pub bic: Vec<f64>,
    /// Distinct local minima seen; 0 where there was no fit.
    pub basins: Vec<u32>,
    pub basin_gap: Vec<f64>,
    pub condition: Vec<f64>,
    /// Bit j: free parameter j is held by its box.
    pub pinned: Vec<u64>,
}

/// Decides on every curve. `unit_weights` says that the weights are 1/σ² of known σ, so that s² = 1.
pub fn judge(problem: &Problem, proposals: &Proposals, unit_weights: bool) -> Verdicts {
    let tasks: Vec<usize> = (0..problem.len()).step_by(CURVES_PER_TASK).collect();
    let parts: Vec<Verdicts> = tasks
        .par_iter()
        .map_init(Workspace::default, |workspace, &first| {
            judge_curves(problem, proposals, unit_weights, first..problem.len().min(first + CURVES_PER_TASK), workspace)
        })
        .collect();
    let mut all = Verdicts::default();
    for part in parts {
        all.append(part);
    }
    all
}

impl Verdicts {
    fn unfitted(problem: &Problem, curves: std::ops::Range<usize>) -> Verdicts {
        let (count, p) = (curves.len(), problem.model.len());
        let null = vec![f64::NAN; count];
        Verdicts {
            status: curves.clone().map(|curve| problem.status[curve].unwrap_or(Status::NonFinite)).collect(),
            points: curves.map(|curve| problem.points(curve) as u32).collect(),
            parameters: vec![f64::NAN; count * p],
            standard_errors: vec![f64::NAN; count * p],
            covariance: vec![f64::NAN; count * triangle(p)],
            objective: null.clone(),
            rmse: null.clone(),
            r2: null.clone(),
            aicc: null.clone(),
            bic: null.clone(),
            basins: vec![0; count],
            basin_gap: null.clone(),
            condition: null,
            pinned: vec![0; count],
        }
    }

    /// Fits that another stage vouches for: parameters of as many curves as `pinned` has entries, and nothing else.
    pub fn unjudged(parameters: Vec<f64>, pinned: Vec<u64>) -> Verdicts {
        let (count, p) = (pinned.len(), parameters.len() / pinned.len().max(1));
        let null = vec![f64::NAN; count];
        let status = |curve: usize| match (&parameters[curve * p..(curve + 1) * p], pinned[curve]) {
            (own, _) if own.iter().any(|value| !value.is_finite()) => Status::NonFinite,
            (_, 0) => Status::Converged,
            _ => Status::AtBound,
        };
        Verdicts {
            status: (0..count).map(status).collect(),
            points: vec![0; count],
            standard_errors: vec![f64::NAN; count * p],
            covariance: vec![f64::NAN; count * triangle(p)],
            objective: null.clone(),
            rmse: null.clone(),
            r2: null.clone(),
            aicc: null.clone(),
            bic: null.clone(),
            basins: vec![0; count],
            basin_gap: null.clone(),
            condition: null,
            parameters,
            pinned,
        }
    }

    /// Takes the parameters of a curve that has `p` free ones back, and what rests on them; how close the law comes stays.
    pub fn refuse(&mut self, curve: usize, p: usize, status: Status) {
        self.status[curve] = status;
        self.parameters[curve * p..(curve + 1) * p].fill(f64::NAN);
        self.standard_errors[curve * p..(curve + 1) * p].fill(f64::NAN);
        self.covariance[curve * triangle(p)..(curve + 1) * triangle(p)].fill(f64::NAN);
        for values in [&mut self.aicc, &mut self.bic, &mut self.basin_gap, &mut self.condition] {
            values[curve] = f64::NAN;
        }
        self.basins[curve] = 0;
        self.pinned[curve] = 0;
    }

    fn append(&mut self, mut other: Verdicts) {
        self.status.append(&mut other.status);
        self.points.append(&mut other.points);
        self.parameters.append(&mut other.parameters);
        self.standard_errors.append(&mut other.standard_errors);
        self.covariance.append(&mut other.covariance);
        self.objective.append(&mut other.objective);
        self.rmse.append(&mut other.rmse);
        self.r2.append(&mut other.r2);
        self.aicc.append(&mut other.aicc);
        self.bic.append(&mut other.bic);
        self.basins.append(&mut other.basins);
        self.basin_gap.append(&mut other.basin_gap);
        self.condition.append(&mut other.condition);
        self.pinned.append(&mut other.pinned);
    }
}

/// One round of [`polish`]: evaluations per start, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub steps: usize,
    pub kept: usize,
}

/// Numbers that an [`End`] holds without an allocation: all of a law of three parameters.
const SHORT: usize = 9;

/// One start on its way to a minimum.
#[derive(Debug, Clone, Copy)]
struct Start {
    curve: usize,
    /// Position among the proposals.
    proposal: usize,
    /// Not the best proposal of its curve: as a rule farther from a minimum, and a long way beside others' short ones.
    later: bool,
    /// Next to a minimum of the objective itself: a robust fit need not begin with a wide zone.
    near: bool,
}

/// Where a start ended.
#[derive(Debug, Clone)]
struct End {
    curve: usize,
    z: SmallVec<[f64; SHORT]>,
    objective: f64,
    /// Objective that rounding alone leaves in a perfect fit: half the square of the residuals' rounding.
    rounding: f64,
    converged: bool,
    pinned: u64,
    /// What [`describe`] needs of the last point evaluated, where the last step is too small to show in it: objective, Σ r²,
    /// Σ w (t − mean)², the Gauss–Newton triangle. Else empty.
    settled: SmallVec<[f64; SHORT]>,
}

impl End {
    /// The squared size of the response: see [`response_size`].
    fn squared_size(&self) -> f64 {
        self.rounding / ROUNDED.powi(2)
    }
}

fn judge_curves(
    problem: &Problem,
    proposals: &Proposals,
    unit_weights: bool,
    curves: std::ops::Range<usize>,
    workspace: &mut Workspace,
) -> Verdicts {
    let first = curves.start;
    let mut verdicts = Verdicts::unfitted(problem, curves.clone());
    let open: Vec<usize> = curves.filter(|&curve| problem.status[curve].is_none()).collect();
    let mut ends: Vec<End> = Vec::new();
    hear(problem, proposals, &open, workspace, &mut ends);
    retry(problem, workspace, &mut ends);
    let mut best: Vec<&End> = Vec::with_capacity(ends.len());
    for group in ends.chunk_by(|a, b| a.curve == b.curve) {
        let Some(winner) = choose(group) else { continue };
        let slot = winner.curve - first;
        let others = distinct(group, winner);
        verdicts.basins[slot] = 1 + others.len() as u32;
        if let Some(second) = others.first() {
            verdicts.basin_gap[slot] = (second.objective - winner.objective) / winner.objective.max(f64::MIN_POSITIVE);
        }
        best.push(winner);
    }
    best.sort_by_key(|end| problem.points(end.curve));
    for pack in best.chunks(LANES) {
        describe(problem, unit_weights, pack, first, workspace, &mut verdicts);
    }
    verdicts
}

/// Descends from all proposals of these curves and from the user's own starts, and with more care where that settles none;
/// adds the ends to those known, by curve and the lowest first.
fn hear(problem: &Problem, proposals: &Proposals, curves: &[usize], workspace: &mut Workspace, ends: &mut Vec<End>) {
    let curves = curves.iter().copied();
    let starts = curves
        .clone()
        .flat_map(|curve| {
            let best = proposals.offsets[curve];
            let start = move |proposal| Start { curve, proposal, later: proposal > best, near: false };
            (best..proposals.offsets[curve + 1]).map(start)
        })
        .collect();
    descend_all(problem, proposals, starts, workspace, ends);
    let (starts, given) = given(problem, curves.clone());
    descend_all(problem, &given, starts, workspace, ends);
    rank(ends);
    let (starts, approached) = appeal(problem, proposals, curves, ends, &mut workspace.appeal);
    descend_all(problem, &approached, starts, workspace, ends);
    rank(ends);
}

/// Searches once more where the data hold no noise and their optimum has not been found: see [`retrial`].
fn retry(problem: &Problem, workspace: &mut Workspace, ends: &mut Vec<End>) {
    let of = |ends: &[End], wanted: fn(&End) -> bool| -> Vec<End> {
        let chosen = ends.chunk_by(|a, b| a.curve == b.curve).filter_map(choose);
        chosen.filter(|end| wanted(end) && is_noiseless(end)).cloned().collect()
    };
    let Some(above) = &problem.model.above else {
        // As a rule there is nothing to do.
        if ends.iter().all(|end| end.converged) || !retrial::is_searched_again(problem) {
            return;
        }
        let again: Vec<usize> = of(ends, |end| !end.converged).iter().map(|end| end.curve).collect();
        if !again.is_empty() {
            hear(problem, &retrial::search_again(problem, &again), &again, workspace, ends);
        }
        return;
    };
    let hidden = |ends: &[End]| of(ends, |end| end.objective > end.rounding);
    for power in retrial::TILTS {
        let again = hidden(ends);
        if again.is_empty() {
            return;
        }
        let curves: Vec<(usize, f64)> = again.iter().map(|end| (end.curve, end.z[above.floor()])).collect();
        let tilted = retrial::tilted(problem, &curves, power);
        let mut found = Vec::new();
        let all: Vec<usize> = (0..tilted.len()).collect();
        hear(&tilted, &above::propose(&tilted, above), &all, workspace, &mut found);
        let best = found.chunk_by(|a, b| a.curve == b.curve).filter_map(choose);
        hear_each(problem, best.map(|end| (curves[end.curve].0, end.z.to_vec())).collect(), workspace, ends);
    }
    let shaken = hidden(ends).into_iter().map(|mut end| {
        retrial::shake(problem, end.curve, above.floor(), end.rounding, &mut end.z, &mut workspace.appeal);
        (end.curve, end.z.into_vec())
    });
    hear_each(problem, shaken.collect(), workspace, ends);
}

/// Descends from one start each of some curves, in their order.
fn hear_each(problem: &Problem, starts: Vec<(usize, Vec<f64>)>, workspace: &mut Workspace, ends: &mut Vec<End>) {
    let (mut curves, mut proposals) = (Vec::new(), Proposals { offsets: vec![0], coordinates: Vec::new() });
    for (curve, z) in starts {
        proposals.offsets.resize(curve + 1, curves.len());
        curves.push(curve);
        proposals.coordinates.extend(z);
    }
    proposals.offsets.resize(problem.len() + 1, curves.len());
    hear(problem, &proposals, &curves, workspace, ends);
}

/// Whether what is left of the data is too small for noise.
fn is_noiseless(end: &End) -> bool {
    2.0 * end.objective <= retrial::NOISELESS.powi(2) * end.squared_size()
}

/// Descends from every start, in packs of like length and like ways to go, which waste no lanes.
fn descend_all(
    problem: &Problem,
    proposals: &Proposals,
    mut starts: Vec<Start>,
    workspace: &mut Workspace,
    ends: &mut Vec<End>,
) {
    starts.sort_by_key(|start| (start.later, problem.points(start.curve)));
    for pack in starts.chunks(LANES) {
        descend(problem, proposals, pack, MOST_STEPS, workspace, ends);
    }
}

/// Follows a crowd of starts for a few steps each, and those that lie best and apart for more, and so on; the best of every
/// curve are kept.
pub fn polish(problem: &Problem, crowd: &Proposals, rounds: &[Round]) -> Proposals {
    let kept: Vec<Vec<f64>> = (0..problem.len())
        .into_par_iter()
        .map_init(Workspace::default, |workspace, curve| {
            let p = problem.model.len();
            let own = crowd.offsets[curve] * p..crowd.offsets[curve + 1] * p;
            let mut kept = crowd.coordinates[own].to_vec();
            for round in rounds {
                let left = Proposals { offsets: Vec::new(), coordinates: kept };
                let start = |proposal| Start { curve, proposal, later: false, near: false };
                let starts: Vec<Start> = (0..left.coordinates.len() / p).map(start).collect();
                let mut ends: Vec<End> = Vec::with_capacity(starts.len());
                for pack in starts.chunks(LANES) {
                    descend(problem, &left, pack, round.steps, workspace, &mut ends);
                }
                rank(&mut ends);
                kept = apart(&ends, round.kept).into_iter().flat_map(|end| end.z.iter().copied()).collect();
            }
            kept
        })
        .collect();
    let mut proposals = Proposals { offsets: vec![0], coordinates: Vec::new() };
    for coordinates in kept {
        proposals.coordinates.extend(coordinates);
        proposals.offsets.push(proposals.coordinates.len() / problem.model.len());
    }
    proposals
}

/// The best of one curve's ends, lowest first, no two of them near each other.
fn apart(ends: &[End], most: usize) -> Vec<&End> {
    let mut kept: Vec<&End> = Vec::with_capacity(most);
    for end in ends.iter().filter(|end| end.objective.is_finite()) {
        let apart = |known: &&End| {
            end.z.iter().zip(&known.z).any(|(a, b)| (a - b).abs() > NEARBY * a.abs().max(b.abs()).max(NEARBY))
        };
        if kept.len() < most && kept.iter().all(apart) {
            kept.push(end);
        }
    }
    kept
}

/// The user's own starting points on every curve, and where the inner law of a curve ended.
fn given(problem: &Problem, curves: impl Iterator<Item = usize>) -> (Vec<Start>, Proposals) {
    let (mut starts, mut proposals) = (Vec::new(), Proposals::default());
    if problem.given.is_empty() && problem.starts.is_empty() {
        return (starts, proposals);
    }
    let inputs = problem.inputs.len();
    for curve in curves {
        let own = problem.starts.get(curve).and_then(Option::as_ref);
        for theta in problem.given.iter().chain(own) {
            let z = problem.model.encode(theta, &problem.centres[curve * inputs..][..inputs]);
            // A start of the wrong sign for a parameter that only ever stands in a logarithm is none.
            if z.iter().all(|z| z.is_finite()) {
                starts.push(Start { curve, proposal: starts.len(), later: false, near: false });
                proposals.coordinates.extend(z);
            }
        }
    }
    (starts, proposals)
}

/// Takes every start of a curve that the fast descent did not settle towards a minimum with more care, for another descent
/// from there.
fn appeal(
    problem: &Problem,
    proposals: &Proposals,
    curves: impl Iterator<Item = usize> + Clone,
    ends: &[End],
    workspace: &mut appeal::Workspace,
) -> (Vec<Start>, Proposals) {
    let p = problem.model.len();
    let (mut starts, mut approached) = (Vec::new(), Proposals::default());
    // As a rule there is nothing to do: every curve has ends, and all have come to a minimum.
    if ends.iter().all(|end| end.converged)
        && ends.chunk_by(|a, b| a.curve == b.curve).count() == curves.clone().count()
    {
        return (starts, approached);
    }
    for curve in curves {
        let group =
            &ends[ends.partition_point(|end| end.curve < curve)..ends.partition_point(|end| end.curve <= curve)];
        let lowest = choose(group);
        if lowest.is_some_and(|end| end.converged) {
            continue;
        }
        let mut take = |mut z: Vec<f64>, project: bool| {
            appeal::approach(problem, curve, &mut z, project, appeal::USUAL, workspace);
            starts.push(Start { curve, proposal: starts.len(), later: false, near: true });
            approached.coordinates.extend(z);
        };
        // A valley is followed further from where the descent left it; a robust objective may be flat there.
        if let Some(lowest) = lowest.filter(|_| problem.loss == Loss::Squares) {
            take(lowest.z.to_vec(), true);
        }
        for proposal in proposals.offsets[curve]..proposals.offsets[curve + 1] {
            take(proposals.coordinates[proposal * p..][..p].to_vec(), true);
        }
        let (own, points) = given(problem, std::iter::once(curve));
        for start in own {
            for project in [true, false] {
                take(points.coordinates[start.proposal * p..][..p].to_vec(), project);
            }
        }
    }
    (starts, approached)
}

/// By curve, the lowest first.
fn rank(ends: &mut [End]) {
    ends.sort_by(|a, b| a.curve.cmp(&b.curve).then(a.objective.total_cmp(&b.objective)));
}

/// The lowest of one curve's ends, None where none is finite; among ends whose objectives differ by rounding a converged one
/// is preferred to one that stopped on the way.
fn choose(ends: &[End]) -> Option<&End> {
    let lowest = ends.first().filter(|end| end.objective.is_finite())?;
    let level = lowest.objective * (1.0 + 1e-12) + (8.0 * lowest.objective * lowest.rounding).sqrt() + lowest.rounding;
    Some(ends.iter().take_while(|end| end.objective <= level).find(|end| end.converged).unwrap_or(lowest))
}

/// Local minima other than the winner's, one per place, best first.
fn distinct<'a>(ends: &'a [End], winner: &'a End) -> Vec<&'a End> {
    let mut kept: Vec<&End> = vec![winner];
    for end in ends.iter().filter(|end| end.converged) {
        let same = |known: &&End| {
            let depth = (end.objective - known.objective).abs() <= SAME_DEPTH * known.objective.abs() + known.rounding;
            let place =
                end.z.iter().zip(&known.z).all(|(a, b)| (a - b).abs() <= SAME_PLACE * a.abs().max(b.abs()).max(1e-6));
            depth || place
        };
        if !kept.iter().any(same) {
            kept.push(end);
        }
    }
    kept.split_off(1)
}

/// Memory of the judge, reused from pack to pack.
#[derive(Debug, Default)]
struct Workspace {
    gathered: Gathered,
    scratch: Scratch,
    /// Of one block: residual r, r where it counts, w ψ(r), and the curvature weights inside and outside of Huber's zone.
    residual: Vec<f64>,
    counted: Vec<f64>,
    pull: Vec<f64>,
    inside: Vec<f64>,
    outside: Vec<f64>,
    /// A column of the Jacobian times one of these weights.
    weighted: Vec<f64>,
    /// Σ w ψ(r) times every derivative, over one block.
    pulled: Vec<Lane>,
    /// Basis functions, goal and weights of [`follow_valley`].
    valley: Vec<f64>,
    /// Predictions and slopes of [`invert_carefully`].
    outputs: Vec<f64>,
    descent: Descent,
    /// At the ends that [`describe`] describes.
    described: Evaluation,
    appeal: appeal::Workspace,
}

/// Memory of [`descend`], per coordinate.
#[derive(Debug, Default)]
struct Descent {
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
}

impl Descent {
    fn resize(&mut self, p: usize) {
        let Descent { z, lower, upper, trial, along, scale, slope, step, matrix, free, here, there, better } = self;
        for lanes in [z, lower, upper, trial, along, scale, slope, step, free] {
            lanes.resize(p, [0.0; LANES]);
        }
        matrix.resize(triangle(p), [0.0; LANES]);
        for evaluation in [here, there, better] {
            evaluation.resize(p);
        }
    }
}

/// The objective and its derivatives at one point per lane.
#[derive(Debug, Clone, Default)]
struct Evaluation {
    objective: Lane,
    /// Σ r² over the points used, unweighted.
    squares: Lane,
    /// −∂objective/∂z
    descent: Vec<Lane>,
    /// Σ w ψ'(r) J Jᵀ: Gauss–Newton.
    gauss: Vec<Lane>,
    /// Σ w ψ(r)/r J Jᵀ over the points outside Huber's quadratic zone: what reweighted least squares would add.
    robust: Vec<Lane>,
    /// −Σ w ψ(r) ∂²h
    second: Vec<Lane>,
}

impl Evaluation {
    fn new(p: usize) -> Evaluation {
        let mut evaluation = Evaluation::default();
        evaluation.resize(p);
        evaluation
    }

    fn resize(&mut self, p: usize) {
        self.descent.resize(p, [0.0; LANES]);
        for triangles in [&mut self.gauss, &mut self.robust, &mut self.second] {
            triangles.resize(triangle(p), [0.0; LANES]);
        }
    }

    /// Takes over lane values of `other` where `take` says so.
    #[inline(always)]
    fn accept(&mut self, other: &Evaluation, take: &[bool; LANES]) {
        let merge = |mine: &mut Lane, theirs: &Lane| {
            for i in 0..LANES {
                mine[i] = if take[i] { theirs[i] } else { mine[i] };
            }
        };
        merge(&mut self.objective, &other.objective);
        merge(&mut self.squares, &other.squares);
        for (mine, theirs) in [
            (&mut self.descent, &other.descent),
            (&mut self.gauss, &other.gauss),
            (&mut self.robust, &other.robust),
            (&mut self.second, &other.second),
        ] {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                merge(mine, theirs);
            }
        }
    }
}

/// The loss, with a zone of its own for every lane: robust fits narrow it step by step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum LaneLoss {
    Squares,
    Huber(Lane),
}

impl LaneLoss {
    fn of(loss: Loss) -> LaneLoss {
        match loss {
            Loss::Squares => LaneLoss::Squares,
            Loss::Huber { delta } => LaneLoss::Huber([delta; LANES]),
        }
    }
}

kernel!(
    fn evaluate(
        problem: &Problem,
        loss: &LaneLoss,
        tape: &Tape,
        z: &[Lane],
        workspace: &mut Workspace,
        into: &mut Evaluation,
    ) = evaluate_generic;
);

/// Evaluates objective, gradient and curvature at `z`; `tape` is the model's slope or curvature program.
#[inline(always)]
fn evaluate_generic<const SET: u8>(
    problem: &Problem,
    loss: &LaneLoss,
    tape: &Tape,
    z: &[Lane],
    workspace: &mut Workspace,
    into: &mut Evaluation,
) {
    let p = problem.model.len();
    let second_order = tape.outputs() > 1 + p;
    let Workspace { gathered, scratch, residual, counted, pull, inside, outside, weighted, pulled, .. } = workspace;
    for buffer in [&mut *residual, counted, pull, inside, outside, weighted] {
        buffer.resize(BLOCK, 0.0);
    }
    let zero = [0.0; LANES];
    into.objective = zero;
    into.squares = zero;
    into.descent.fill(zero);
    into.gauss.fill(zero);
    into.robust.fill(zero);
    into.second.fill(zero);
    tape.prepare::<SET>(scratch, z);
    for first in (0..gathered.points).step_by(POINTS) {
        let points = POINTS.min(gathered.points - first);
        tape.run::<SET>(scratch, &gathered.inputs, gathered.stride, first, points);
        let output = |slot: usize| tape.output(slot, scratch, &gathered.inputs, gathered.stride, first, points);
        let length = points * LANES;
        let block = first * LANES..first * LANES + length;
        let (t, w) = (&gathered.response[block.clone()], &gathered.weight[block]);
        let h = output(0);
        let (residual, counted) = (&mut residual[..length], &mut counted[..length]);
        let (pull, inside, outside) = (&mut pull[..length], &mut inside[..length], &mut outside[..length]);
        let weighted = &mut weighted[..length];
        for i in 0..length {
            residual[i] = t[i] - h[i];
            counted[i] = if w[i] > 0.0 { residual[i] } else { 0.0 };
        }
        add(&mut into.squares, dot::<SET>(counted, counted));
        match loss {
            LaneLoss::Squares => {
                for i in 0..length {
                    pull[i] = w[i] * residual[i];
                }
            }
            LaneLoss::Huber(delta) => {
                let zone = repeat(delta);
                for start in (0..length).step_by(REPEATED) {
                    for at in start..length.min(start + REPEATED) {
                        let (r, delta) = (residual[at], zone[at - start]);
                        let psi = if r > delta { delta } else { r };
                        let psi = if psi < -delta { -delta } else { psi };
                        let far = r.abs() > delta;
                        pull[at] = w[at] * psi;
                        inside[at] = if far { 0.0 } else { w[at] };
                        outside[at] = if far { w[at] * delta / r.abs() } else { 0.0 };
                        // So that half the sum of pull times this is the loss.
                        residual[at] = 2.0 * r - psi;
                    }
                }
            }
        }
        let sum = dot::<SET>(pull, residual);
        into.objective = each!(|i| fused::<SET>(0.5, sum[i], into.objective[i]));
        let curvature = if *loss == LaneLoss::Squares { w } else { &*inside };
        for j in 0..p {
            let jacobian = output(1 + j);
            let columns = |k: usize| output(1 + k);
            for ((weighted, &jacobian), &curvature) in weighted.iter_mut().zip(jacobian).zip(curvature) {
                *weighted = jacobian * curvature;
            }
            add_dots::<SET>(weighted, columns, &mut into.gauss[at(j, 0)..=at(j, j)]);
            if *loss != LaneLoss::Squares {
                for ((weighted, &jacobian), &outside) in weighted.iter_mut().zip(jacobian).zip(&*outside) {
                    *weighted = jacobian * outside;
                }
                add_dots::<SET>(weighted, columns, &mut into.robust[at(j, 0)..=at(j, j)]);
            }
        }
        // The gradient, then the second derivatives, which the pull weighs alike.
        let curved: &[usize] = if second_order { &problem.model.programs.curved } else { &[] };
        pulled.clear();
        pulled.resize(p + curved.len(), zero);
        add_dots::<SET>(pull, |k| output(1 + k), pulled);
        for (descent, &part) in into.descent.iter_mut().zip(&*pulled) {
            add(descent, part);
        }
        for (&position, part) in curved.iter().zip(&pulled[p..]) {
            add(&mut into.second[position], each!(|i| -part[i]));
        }
    }
}

#[inline(always)]
fn add(sum: &mut Lane, part: Lane) {
    *sum = each!(|i| sum[i] + part[i]);
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
    fn descend, fn descend_kernel(problem: &Problem, proposals: &Proposals, pack: &[Start], most_steps: usize, workspace: &mut Workspace, ends: &mut Vec<End>) = descend_generic;
);

#[inline(always)]
fn descend_generic<const SET: u8>(
    problem: &Problem,
    proposals: &Proposals,
    pack: &[Start],
    most_steps: usize,
    workspace: &mut Workspace,
    ends: &mut Vec<End>,
) {
    let model = problem.model;
    let p = model.len();
    let lane_start = |lane: usize| pack[lane.min(pack.len() - 1)];
    let curves: [usize; LANES] = std::array::from_fn(|lane| lane_start(lane).curve);
    workspace.gathered.gather(problem, &curves);
    let mut memory = std::mem::take(&mut workspace.descent);
    memory.resize(p);
    let Descent { z, lower, upper, trial, along, scale, slope, step, matrix, free, here, there, better } = &mut memory;
    for j in 0..p {
        z[j] = each!(|lane| proposals.coordinates[lane_start(lane).proposal * p + j]);
        lower[j] = each!(|lane| problem.lower[curves[lane] * p + j]);
        upper[j] = each!(|lane| problem.upper[curves[lane] * p + j]);
        z[j] = each!(|i| z[j][i].max(lower[j][i]).min(upper[j][i]));
    }
    let size = response_size::<SET>(problem, &workspace.gathered);
    let mut loss = LaneLoss::of(problem.loss);
    let robust = problem.loss != Loss::Squares;
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
            let reach = each!(|i| 1.0 / (2.0 * here.objective[i]).sqrt());
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
                let far = round == 0 && !near;
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
                follow_valley::<SET>(problem, free, (lower, upper), z, along, workspace);
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
        let mut z: SmallVec<[f64; SHORT]> = (0..p).map(|j| z[j][lane]).collect();
        symmetry::canonical(problem.symmetries, &mut z, &mut pinned);
        ends.push(End {
            curve: start.curve,
            z,
            objective: if here.objective[lane].is_finite() { here.objective[lane] } else { f64::INFINITY },
            rounding: (ROUNDED * size[lane]).powi(2),
            converged: converged[lane],
            pinned,
            settled: if settled[lane] {
                let sums = [here.objective[lane], here.squares[lane], total[lane]];
                sums.into_iter().chain(here.gauss.iter().map(|entry| entry[lane])).collect()
            } else {
                SmallVec::new()
            },
        });
    }
    workspace.descent = memory;
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
) {
    let model = problem.model;
    let projection = &model.projection;
    let linear = &projection.linear;
    let plain = |j: &usize| projection.coordinates[*j] == model.coordinates[*j];
    if projection.space != Space::Linear || linear.is_empty() || !linear.iter().all(plain) {
        return;
    }
    let Workspace { gathered, scratch, valley, .. } = workspace;
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

/// What a coordinate has to move the prediction by to count: the weighted size of the response, of one in log space.
#[inline(always)]
fn response_size<const SET: u8>(problem: &Problem, gathered: &Gathered) -> Lane {
    let mut sum = [0.0; LANES];
    for (t, w) in gathered.response[..gathered.stride].chunks_exact(LANES).zip(gathered.weight.chunks_exact(LANES)) {
        let unit = if problem.model.space == Space::Log { 1.0 } else { 0.0 };
        sum = each!(|i| fused::<SET>(w[i], t[i] * t[i] + unit, sum[i]));
    }
    each!(|i| sum[i].sqrt())
}

/// Points used, per lane.
#[inline(always)]
fn counts(gathered: &Gathered) -> Lane {
    let mut counts = [0.0; LANES];
    for w in gathered.weight[..gathered.stride].chunks_exact(LANES) {
        counts = each!(|i| counts[i] + if w[i] > 0.0 { 1.0 } else { 0.0 });
    }
    counts
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

kernel!(
    /// Writes parameters and statistics of up to eight curves.
    fn describe, fn describe_kernel(problem: &Problem, unit_weights: bool, pack: &[&End], first: usize, workspace: &mut Workspace, verdicts: &mut Verdicts) = describe_generic;
);

#[inline(always)]
fn describe_generic<const SET: u8>(
    problem: &Problem,
    unit_weights: bool,
    pack: &[&End],
    first: usize,
    workspace: &mut Workspace,
    verdicts: &mut Verdicts,
) {
    let model = problem.model;
    let p = model.len();
    let end = |lane: usize| pack[lane.min(pack.len() - 1)];
    let mut z = zeros(p);
    for j in 0..p {
        z[j] = each!(|lane| end(lane).z[j]);
    }
    let mut here = std::mem::take(&mut workspace.described);
    here.resize(p);
    let mut total = [0.0; LANES];
    let curves: [usize; LANES] = std::array::from_fn(|lane| end(lane).curve);
    let settled = pack.iter().all(|end| !end.settled.is_empty());
    if !settled {
        workspace.gathered.gather(problem, &curves);
        let tape = if problem.loss == Loss::Squares { &model.programs.slope } else { &model.programs.curvature };
        evaluate::<SET>(problem, &LaneLoss::of(problem.loss), tape, &z, workspace, &mut here);
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
    let explained = weighted_squares::<SET>(problem, &here, &z, workspace);

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
                sharpness[lane] =
                    invert_carefully(problem, end(lane), here.objective[lane], lane, &z, workspace, &mut inverse);
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
    workspace.described = here;
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
    inverse: &mut [Lane],
) -> f64 {
    let p = problem.model.len();
    let Workspace { gathered, scratch, outputs, .. } = workspace;
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

/// Σ w (t − mean)², the mean weighted.
#[inline(always)]
fn total_squares<const SET: u8>(gathered: &Gathered) -> Lane {
    let rows = || gathered.response[..gathered.stride].chunks_exact(LANES).zip(gathered.weight.chunks_exact(LANES));
    let (mut sum, mut weight) = ([0.0; LANES], [0.0; LANES]);
    for (t, w) in rows() {
        sum = each!(|i| fused::<SET>(w[i], t[i], sum[i]));
        weight = each!(|i| weight[i] + w[i]);
    }
    let mean = each!(|i| sum[i] / weight[i]);
    let mut total = [0.0; LANES];
    for (t, w) in rows() {
        total = each!(|i| fused::<SET>(w[i] * (t[i] - mean[i]), t[i] - mean[i], total[i]));
    }
    total
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::CurveBatch;
    use crate::fit::cpu::Cpu;
    use crate::fit::pack::{Plan, Weighting};
    use crate::fit::{Backend, Objective};
    use crate::generate::{Generated, Noise, Sweep};
    use crate::law::catalogue::{CATALOGUE, Entry};

    /// Share of noisy curves that has to converge.
    const SETTLED: f64 = 0.97;
    /// The same of laws that short noisy curves often do not determine: a break sharper than the distance of the points or
    /// smaller than the noise, an exponential in a power that has become a step; and, under Huber, points that spread so far that
    /// fewer than parameters lie in the quadratic zone.
    const SETTLED_HARD: f64 = 0.85;
    const HARD: [&str; 3] = ["broken_power", "stretched_exponential", "power2"];
    /// Decades of the response over which a fit in linear space still sees all points.
    const MOST_DECADES: f64 = 4.0;
    /// Laws of more parameters have such valleys on most short curves.
    const MOST_PARAMETERS: usize = 5;

    /// Curves of 12 to 40 points of a catalogue law, and its plan.
    fn sweep(
        entry: &'static Entry,
        objective: Objective,
        noise: f64,
        curves: usize,
    ) -> (Plan, CurveBatch, Vec<Vec<f64>>) {
        let sweep = Sweep::typical(entry, (12, 40), Noise::Log(noise), 11);
        let Generated { curves, truth } = sweep.batch(0, curves).expect(entry.name);
        let columns = sweep.law.columns.clone();
        let plan = Plan::new(sweep.law, objective, &[], Weighting::Even, false, &columns).expect(entry.name);
        (plan, curves, truth)
    }

    fn fit(plan: &Plan, batch: &CurveBatch) -> Verdicts {
        let packed = plan.pack(batch);
        let proposals = Cpu.propose(&packed.problem).expect("the CPU does not fail");
        judge(&packed.problem, &proposals, false)
    }

    /// Decades that the response of a curve spans.
    fn decades(batch: &CurveBatch, curve: usize) -> f64 {
        let y = &batch.columns[batch.columns.len() - 1][batch.offsets[curve]..batch.offsets[curve + 1]];
        let ends = y.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &y| (low.min(y), high.max(y)));
        (ends.1 / ends.0).log10()
    }

    #[test]
    fn noisy_curves_converge_under_every_objective() {
        for entry in CATALOGUE.iter().filter(|entry| entry.alias.is_none() && entry.parameters.len() <= MOST_PARAMETERS)
        {
            for space in [Space::Log, Space::Linear] {
                for loss in [Loss::Squares, Loss::Huber { delta: 1e-3 }] {
                    let (plan, batch, _) = sweep(entry, Objective { space, loss }, 0.01, 60);
                    let verdicts = fit(&plan, &batch);
                    // In linear space the last point or two of a curve over ever more decades decide alone.
                    let most = if space == Space::Linear { MOST_DECADES } else { f64::INFINITY };
                    let told: Vec<Status> = (0..batch.len())
                        .filter(|&curve| decades(&batch, curve) <= most)
                        .map(|curve| verdicts.status[curve])
                        .collect();
                    let settled = told.iter().filter(|s| matches!(s, Status::Converged | Status::AtBound)).count();
                    let hard = HARD.contains(&entry.name);
                    let least = if hard { SETTLED_HARD } else { SETTLED };
                    assert!(
                        settled as f64 >= least * told.len() as f64,
                        "{} {space:?} {loss:?}: {settled} of {}",
                        entry.name,
                        told.len()
                    );
                }
            }
        }
    }

    #[test]
    fn tapes_say_what_the_graph_says() {
        for entry in CATALOGUE {
            let objective = Objective { space: Space::Log, loss: Loss::Squares };
            let (plan, batch, truth) = sweep(entry, objective, 0.0, 68);
            let packed = plan.pack(&batch);
            let problem = &packed.problem;
            let model = problem.model;
            let programs = &model.programs;
            let pack: Vec<usize> = (60..68).collect();
            let mut workspace = Workspace::default();
            workspace.gathered.gather(problem, &pack);
            let inputs = model.inputs.len();
            let z: Vec<Lane> = (0..model.len())
                .map(|j| {
                    each!(|lane| {
                        let mut theta: Vec<f64> = truth.iter().map(|values| values[pack[lane]]).collect();
                        if entry.name == "broken_power" {
                            theta[4] = 0.01;
                        }
                        model.encode(&theta, &problem.centres[pack[lane] * inputs..][..inputs])[j]
                    })
                })
                .collect();
            let roots: Vec<_> = [model.prediction]
                .iter()
                .chain(&model.gradient)
                .copied()
                .chain(programs.curved.iter().map(|&k| model.hessian[k]))
                .collect();
            for (name, tape) in [("slope", &programs.slope), ("curvature", &programs.curvature)] {
                let gathered = &workspace.gathered;
                tape.prepare::<{ crate::evaluate::instruction_set::AVX512 }>(&mut workspace.scratch, &z);
                for first in (0..gathered.points).step_by(POINTS) {
                    let points = POINTS.min(gathered.points - first);
                    tape.run::<{ crate::evaluate::instruction_set::AVX512 }>(
                        &mut workspace.scratch,
                        &gathered.inputs,
                        gathered.stride,
                        first,
                        points,
                    );
                    for slot in 0..tape.outputs() {
                        let output =
                            tape.output(slot, &workspace.scratch, &gathered.inputs, gathered.stride, first, points);
                        for point in 0..points {
                            for lane in 0..LANES {
                                let row: Vec<f64> = (0..inputs)
                                    .map(|k| gathered.inputs[k * gathered.stride + (first + point) * LANES + lane])
                                    .collect();
                                let at: Vec<f64> = z.iter().map(|z| z[lane]).collect();
                                let expected = model.graph.evaluate(roots[slot], &row, &at);
                                let found = output[point * LANES + lane];
                                assert!(
                                    (found - expected).abs() <= 1e-9 * (1.0 + expected.abs()),
                                    "{} {name} output {slot} point {point} lane {lane}: {found}, graph {expected}; inputs {row:?} z {at:?}",
                                    entry.name
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
