//! Judge: the one audited path that decides, in f64, for every backend.
//!
//! In: a problem and the proposals of a backend. Out: per curve the status, the parameters and their statistics. Every proposal
//! descends to its minimum (`descend`), what does not settle gets more care (`appeal`, `retrial`), the best end of a curve wins
//! and is described (`describe`).

use super::above;
use super::appeal;
use super::cpu::CURVES_PER_TASK;
use super::descend::{self, End, Start, descend};
pub use super::describe::information_criteria;
use super::describe::{self, describe};
use super::lanes::triangle;
use super::objective;
use super::problem::Problem;
use super::retrial;
use super::{Loss, Proposals, Status};
use crate::evaluate::tape::LANES;
use rayon::prelude::*;

/// Evaluations per start; robust fits of flat valleys need some hundred.
const MOST_STEPS: usize = 400;
/// Two polished starts are told apart by this share of a coordinate.
const NEARBY: f64 = 1e-2;
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
    Verdicts::joined(&parts)
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

    fn joined(parts: &[Verdicts]) -> Verdicts {
        fn all<T: Copy>(parts: &[Verdicts], own: impl Fn(&Verdicts) -> &Vec<T>) -> Vec<T> {
            parts.iter().map(|part| own(part).as_slice()).collect::<Vec<_>>().concat()
        }
        Verdicts {
            status: all(parts, |part| &part.status),
            points: all(parts, |part| &part.points),
            parameters: all(parts, |part| &part.parameters),
            standard_errors: all(parts, |part| &part.standard_errors),
            covariance: all(parts, |part| &part.covariance),
            objective: all(parts, |part| &part.objective),
            rmse: all(parts, |part| &part.rmse),
            r2: all(parts, |part| &part.r2),
            aicc: all(parts, |part| &part.aicc),
            bic: all(parts, |part| &part.bic),
            basins: all(parts, |part| &part.basins),
            basin_gap: all(parts, |part| &part.basin_gap),
            condition: all(parts, |part| &part.condition),
            pinned: all(parts, |part| &part.pinned),
        }
    }
}

/// One round of [`polish`]: evaluations per start, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub steps: usize,
    pub kept: usize,
}

/// Memory of the judge, reused from pack to pack.
#[derive(Debug, Default)]
struct Workspace {
    objective: objective::Workspace,
    descent: descend::Memory,
    description: describe::Memory,
    appeal: appeal::Workspace,
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
        verdicts.basins[slot] = 1;
        // As a rule there is one.
        if group.len() > 1 {
            let others = distinct(group, winner);
            verdicts.basins[slot] += others.len() as u32;
            if let Some(second) = others.first() {
                verdicts.basin_gap[slot] =
                    (second.objective - winner.objective) / winner.objective.max(f64::MIN_POSITIVE);
            }
        }
        best.push(winner);
    }
    best.sort_by_key(|end| problem.points(end.curve));
    for pack in best.chunks(LANES) {
        let Workspace { objective, description, .. } = workspace;
        describe(problem, unit_weights, pack, first, objective, description, &mut verdicts);
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
        hear(&tilted, &above::propose(&tilted, above, &Proposals::none(tilted.len())), &all, workspace, &mut found);
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
    ends.reserve(starts.len());
    for pack in starts.chunks(LANES) {
        let Workspace { objective, descent, .. } = workspace;
        descend(problem, proposals, pack, MOST_STEPS, objective, descent, ends);
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
                    let Workspace { objective, descent, .. } = workspace;
                    descend(problem, &left, pack, round.steps, objective, descent, &mut ends);
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

#[cfg(test)]
mod tests {
    use super::super::lanes::{Gathered, each};
    use super::super::{Loss, Space};
    use super::*;
    use crate::curves::CurveBatch;
    use crate::evaluate::tape::{Lane, POINTS, Scratch};
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
            let mut gathered = Gathered::default();
            let mut scratch = Scratch::default();
            gathered.gather(problem, &pack);
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
                tape.prepare::<{ crate::evaluate::instruction_set::AVX512 }>(&mut scratch, &z);
                for first in (0..gathered.points).step_by(POINTS) {
                    let points = POINTS.min(gathered.points - first);
                    tape.run::<{ crate::evaluate::instruction_set::AVX512 }>(
                        &mut scratch,
                        &gathered.inputs,
                        gathered.stride,
                        first,
                        points,
                    );
                    for slot in 0..tape.outputs() {
                        let output = tape.output(slot, &scratch, &gathered.inputs, gathered.stride, first, points);
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
