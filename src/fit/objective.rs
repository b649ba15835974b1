//! The exact objective of the judge and its derivatives, eight points at a time.
//!
//! In: up to eight curves, gathered, and one point each. Out: an [`Evaluation`] of each: value, gradient, curvature.

use super::lanes::{Gathered, add_dots, at, dot, each, triangle};
use super::problem::Problem;
use super::{Loss, Space};
use crate::evaluate::elementary::fused;
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{BLOCK, LANES, Lane, POINTS, REPEATED, Scratch, Tape, repeat};

/// Memory of the evaluations, reused from pack to pack, and the curves that they see.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub gathered: Gathered,
    pub scratch: Scratch,
    /// Of one block: residual r, r where it counts, w ψ(r), and the curvature weights inside and outside of Huber's zone.
    residual: Vec<f64>,
    counted: Vec<f64>,
    pub pull: Vec<f64>,
    inside: Vec<f64>,
    outside: Vec<f64>,
    /// A column of the Jacobian times one of these weights.
    pub weighted: Vec<f64>,
    /// Σ w ψ(r) times every derivative, over one block.
    pulled: Vec<Lane>,
}

/// The objective and its derivatives at one point per lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Evaluation {
    pub objective: Lane,
    /// Σ r² over the points used, unweighted.
    pub squares: Lane,
    /// −∂objective/∂z
    pub descent: Vec<Lane>,
    /// Σ w ψ'(r) J Jᵀ: Gauss–Newton.
    pub gauss: Vec<Lane>,
    /// Σ w ψ(r)/r J Jᵀ over the points outside Huber's quadratic zone: what reweighted least squares would add.
    pub robust: Vec<Lane>,
    /// −Σ w ψ(r) ∂²h
    pub second: Vec<Lane>,
}

impl Evaluation {
    pub fn new(p: usize) -> Evaluation {
        let mut evaluation = Evaluation::default();
        evaluation.resize(p);
        evaluation
    }

    pub fn resize(&mut self, p: usize) {
        self.descent.resize(p, [0.0; LANES]);
        for triangles in [&mut self.gauss, &mut self.robust, &mut self.second] {
            triangles.resize(triangle(p), [0.0; LANES]);
        }
    }

    /// Takes over lane values of `other` where `take` says so.
    #[inline(always)]
    pub fn accept(&mut self, other: &Evaluation, take: &[bool; LANES]) {
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
pub(super) enum LaneLoss {
    Squares,
    Huber(Lane),
}

impl LaneLoss {
    pub fn of(loss: Loss) -> LaneLoss {
        match loss {
            Loss::Squares => LaneLoss::Squares,
            Loss::Huber { delta } => LaneLoss::Huber([delta; LANES]),
        }
    }
}

kernel!(
    /// Evaluates objective, gradient and curvature at `z`; `tape` is the model's slope or curvature program.
    pub(super) fn evaluate(
        problem: &Problem,
        loss: &LaneLoss,
        tape: &Tape,
        z: &[Lane],
        workspace: &mut Workspace,
        into: &mut Evaluation,
    ) = evaluate_generic;
);

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
pub(super) fn add(sum: &mut Lane, part: Lane) {
    *sum = each!(|i| sum[i] + part[i]);
}

/// What a coordinate has to move the prediction by to count: the weighted size of the response, of one in log space.
#[inline(always)]
pub(super) fn response_size<const SET: u8>(problem: &Problem, gathered: &Gathered) -> Lane {
    let mut sum = [0.0; LANES];
    for (t, w) in gathered.response[..gathered.stride].chunks_exact(LANES).zip(gathered.weight.chunks_exact(LANES)) {
        let unit = if problem.model.space == Space::Log { 1.0 } else { 0.0 };
        sum = each!(|i| fused::<SET>(w[i], t[i] * t[i] + unit, sum[i]));
    }
    each!(|i| sum[i].sqrt())
}

/// Points used, per lane.
#[inline(always)]
pub(super) fn counts(gathered: &Gathered) -> Lane {
    let mut counts = [0.0; LANES];
    for w in gathered.weight[..gathered.stride].chunks_exact(LANES) {
        counts = each!(|i| counts[i] + if w[i] > 0.0 { 1.0 } else { 0.0 });
    }
    counts
}

/// Σ w (t − mean)², the mean weighted.
#[inline(always)]
pub(super) fn total_squares<const SET: u8>(gathered: &Gathered) -> Lane {
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
