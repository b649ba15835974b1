//! Appeal: the careful way to a minimum, for starts that the judge's fast descent could not settle.
//!
//! In: a curve of a problem and a point. Out: a point near a minimum, from which the judge descends once more; the verdict
//! stays with the judge. Steps are Levenberg and Marquardt's, but by orthogonalisation (Householder), which does not square
//! the condition number, and eight dampings are tried at once, one per lane. Coordinates in which h
//! is linear, amplitudes in linear space, are never damped: they are solved exactly at every trial point (variable projection
//! in Kaufman's form, 1975).

use super::lanes::{Gathered, each};
use super::orthogonal::{Triangle, least_squares};
use super::problem::Problem;
use super::{Loss, Space};
use crate::evaluate::instruction_set::kernel;
use crate::evaluate::tape::{LANES, Lane, POINTS, Scratch, Tape};

/// When an approach ends.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After so many rounds.
    pub rounds: usize,
    /// After a step of at most this share of every coordinate.
    pub step: f64,
}

/// Smaller steps are left to the judge.
pub const USUAL: Patience = Patience { rounds: 300, step: 1e-8 };
/// Dampings tried in one round, as multiples of the last that helped.
const DAMPINGS: [f64; LANES] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3];
/// No damping helps beyond this one: the gradient is rounding.
const MOST_DAMPING: f64 = 1e16;
/// The share of a step after which the second derivative along it is taken.
const PROBE: f64 = 0.1;
/// A bend of more than this share of its step is not believed.
const MOST_BEND: f64 = 1.5;

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

/// Moves `z` towards a minimum of the exact objective within the curve's box, and leaves it where nothing can be improved or
/// patience ends. Returns the objective there, infinite where there is none. `project`: solve linear coordinates at every
/// trial point where that is possible, else step in all coordinates alike.
pub fn approach(
    problem: &Problem,
    curve: usize,
    z: &mut [f64],
    project: bool,
    patience: Patience,
    workspace: &mut Workspace,
) -> f64 {
    let model = problem.model;
    let p = model.len();
    let bounds = |j: usize| (problem.lower[curve * p + j], problem.upper[curve * p + j]);
    let exact = project && !model.solved.is_empty() && problem.loss == Loss::Squares;
    workspace.gathered.gather(problem, &[curve]);
    let mut first = best(problem, curve, &vec![z.to_vec(); LANES], exact, workspace);
    if first.is_none() {
        even_out(problem, curve, z, workspace);
        first = best(problem, curve, &vec![z.to_vec(); LANES], exact, workspace);
    }
    let Some((_, mut here)) = first else { return f64::INFINITY };
    let mut damping = 1e-2;
    let mut reach = vec![0.0f64; p];
    for _ in 0..patience.rounds {
        let held: Vec<bool> = (0..p)
            .map(|j| {
                let descent: f64 = here.jacobian[j].iter().zip(&here.residual).map(|(j, r)| j * r).sum();
                let (lower, upper) = bounds(j);
                here.z[j] <= lower && descent <= 0.0 || here.z[j] >= upper && descent >= 0.0
            })
            .collect();
        let solved = |j: usize| exact && model.solved.contains(&j);
        let stepped: Vec<usize> = (0..p).filter(|&j| !held[j] && !solved(j)).collect();
        if stepped.is_empty() {
            break;
        }
        // The solved ones first: what is left of the other columns is what those cannot make up for.
        let mut columns: Vec<Vec<f64>> = (0..p)
            .filter(|&j| !held[j] && solved(j))
            .chain(stepped.iter().copied())
            .map(|j| here.jacobian[j].clone())
            .collect();
        let first = columns.len() - stepped.len();
        let mut residual = here.residual.clone();
        let mut triangle = Triangle::default();
        triangle.make(&mut columns, &mut residual, first);
        let rank = triangle.rank_of(first);
        for (k, &j) in stepped.iter().enumerate() {
            let own = &columns[first + k];
            reach[j] = reach[j].max(own[rank.min(own.len())..].iter().map(|x| x * x).sum::<f64>().sqrt());
        }
        let reduced: Vec<Vec<f64>> =
            columns[first..].iter().map(|column| column[rank.min(column.len())..].to_vec()).collect();
        let reduced_residual = residual[rank.min(residual.len())..].to_vec();
        let scales: Vec<Vec<f64>> = DAMPINGS
            .iter()
            .map(|share| stepped.iter().map(|&j| (damping * share).sqrt() * reach[j]).collect())
            .collect();
        let mut steps: Vec<Vec<f64>> =
            scales.iter().map(|scale| least_squares(&reduced, &reduced_residual, scale)).collect();
        if !exact && problem.loss == Loss::Squares {
            bend(problem, curve, &here, &stepped, &scales, &mut steps, workspace);
        }
        let trials: Vec<Vec<f64>> = steps
            .iter()
            .map(|step| {
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
                if moved <= patience.step {
                    break;
                }
            }
            None if damping >= MOST_DAMPING => break,
            None => damping *= DAMPINGS[LANES - 1] / DAMPINGS[0],
        }
    }
    z.copy_from_slice(&here.z);
    here.objective
}

/// Bends straight steps along the valley that they leave: adds half the geodesic acceleration (Transtrum and Sethna 2012), the
/// damped step that makes up for the second derivative of h along each step, which a second evaluation tells.
fn bend(
    problem: &Problem,
    curve: usize,
    here: &Place,
    stepped: &[usize],
    scales: &[Vec<f64>],
    steps: &mut [Vec<f64>],
    workspace: &mut Workspace,
) {
    let probe = |lane: usize| {
        let mut z = here.z.clone();
        for (k, &j) in stepped.iter().enumerate() {
            z[j] += PROBE * steps[lane][k];
        }
        z
    };
    let probes: Vec<Vec<f64>> = (0..LANES).map(probe).collect();
    let z: Vec<Lane> = (0..here.z.len()).map(|j| each!(|lane| probes[lane][j])).collect();
    let Workspace { gathered, scratch, outputs } = workspace;
    tabulate(&problem.model.programs.slope, &z, gathered, scratch, outputs);
    let rows = problem.rows(curve);
    let (t, w) = (&problem.response[rows.clone()], &problem.weight[rows]);
    let columns: Vec<Vec<f64>> = stepped.iter().map(|&j| here.jacobian[j].clone()).collect();
    for (lane, step) in steps.iter_mut().enumerate() {
        let second: Vec<f64> = (0..t.len())
            .map(|point| {
                let there = w[point].sqrt() * (t[point] - outputs[point * LANES + lane]);
                let straight: f64 = columns.iter().zip(&*step).map(|(column, step)| column[point] * step).sum();
                -2.0 / PROBE * ((here.residual[point] - there) / PROBE - straight)
            })
            .collect();
        if second.iter().any(|value| !value.is_finite()) {
            continue;
        }
        let acceleration = least_squares(&columns, &second, &scales[lane]);
        let size = |values: &[f64]| {
            values.iter().zip(&scales[lane]).map(|(value, scale)| (value * scale).powi(2)).sum::<f64>().sqrt()
        };
        if size(&acceleration) <= MOST_BEND * size(step) {
            step.iter_mut().zip(&acceleration).for_each(|(step, bend)| *step += 0.5 * bend);
        }
    }
}

/// Where a start in linear space overflows, solves the coordinates in which log f is linear anew, with all points counting
/// alike. The search weighs them by y², so that two large values may decide what the law is at all the others.
fn even_out(problem: &Problem, curve: usize, z: &mut [f64], workspace: &mut Workspace) {
    let model = problem.model;
    let projection = &model.projection;
    if (model.space, projection.space) != (Space::Linear, Space::Log) {
        return;
    }
    let chart = |j: usize, z: f64| projection.coordinates[j].encode(model.coordinates[j].decode(z));
    let point: Vec<Lane> = (0..model.len()).map(|j| [chart(j, z[j]); LANES]).collect();
    let Workspace { gathered, scratch, outputs } = workspace;
    let rows = problem.rows(curve);
    let used: Vec<usize> = (0..rows.len()).filter(|&row| problem.response[rows.start + row] > 0.0).collect();
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for tape in &model.programs.columns {
        tabulate(tape, &point, gathered, scratch, outputs);
        columns.push(used.iter().map(|&row| outputs[row * LANES]).collect());
    }
    let offset = columns.pop().expect("the offset comes last");
    if columns.iter().chain([&offset]).flatten().any(|value| !value.is_finite()) {
        return;
    }
    let target: Vec<f64> =
        used.iter().zip(&offset).map(|(&row, offset)| problem.response[rows.start + row].ln() - offset).collect();
    for (&j, value) in projection.linear.iter().zip(least_squares(&columns, &target, &[])) {
        z[j] = model.coordinates[j].encode(projection.coordinates[j].decode(value));
    }
}

/// The lane of the lowest finite objective among eight points, and the place there. With `exact` those in which
/// h is linear are solved at every point first.
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
                solve_linear(problem, curve, &mut place, w);
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

/// Solves the coordinates in which h is linear for the data, the others held; unweighted residuals follow.
fn solve_linear(problem: &Problem, curve: usize, place: &mut Place, w: &[f64]) {
    let model = problem.model;
    let p = model.len();
    let root: Vec<f64> = w.iter().map(|w| w.sqrt()).collect();
    let weighted = |values: &[f64]| -> Vec<f64> { values.iter().zip(&root).map(|(x, root)| x * root).collect() };
    let columns: Vec<Vec<f64>> = model.solved.iter().map(|&j| weighted(&place.jacobian[j])).collect();
    if columns.iter().flatten().any(|x| !x.is_finite()) {
        return;
    }
    let step = least_squares(&columns, &weighted(&place.residual), &[]);
    for (k, &j) in model.solved.iter().enumerate() {
        let reached = (place.z[j] + step[k]).max(problem.lower[curve * p + j]).min(problem.upper[curve * p + j]);
        let moved = reached - place.z[j];
        place.z[j] = reached;
        for (residual, slope) in place.residual.iter_mut().zip(&place.jacobian[j]) {
            *residual -= slope * moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::CurveBatch;
    use crate::fit::Objective;
    use crate::fit::pack::{Control, NamedControl, Plan, Weighting};
    use crate::law::{Law, Mapping};

    /// A plan for `formula` over x and y with starting values for all its parameters.
    fn plan(formula: &str, space: Space, loss: Loss, starts: &[(&str, f64)]) -> Plan {
        let columns = ["x", "y"].map(String::from);
        let law = Law::bind(formula, &columns, Mapping { x: &columns[..1], y: Some("y") }).expect(formula);
        let start = |&(name, start): &(&str, f64)| NamedControl {
            parameter: name.to_string(),
            control: Control { starts: vec![start], ..Control::default() },
        };
        let named: Vec<NamedControl> = starts.iter().map(start).collect();
        Plan::new(law, Objective { space, loss }, &named, Weighting::Even, false, &columns).expect(formula)
    }

    /// Approaches the noiseless curve of `truth` over `x` from the starting values; the parameters reached.
    fn approached(plan: &Plan, truth: &[f64], x: &[f64]) -> Vec<f64> {
        let y = x.iter().map(|&x| plan.law.graph.evaluate(plan.law.prediction, &[x, f64::NAN], truth)).collect();
        let packed = plan.pack(&CurveBatch { offsets: vec![0, x.len()], columns: vec![x.to_vec(), y] });
        let problem = &packed.problem;
        let mut z = problem.model.encode(&problem.given[0], &problem.centres);
        approach(problem, 0, &mut z, true, USUAL, &mut Workspace::default());
        problem.model.decode(&z, &problem.centres)
    }

    fn assert_near(found: &[f64], truth: &[f64], tolerance: f64) {
        for (a, b) in found.iter().zip(truth) {
            assert!((a / b - 1.0).abs() <= tolerance, "{found:?}, truth {truth:?}");
        }
    }

    #[test]
    fn three_exponentials_are_told_apart() {
        let formula = "b1*exp(-b2*x) + b3*exp(-b4*x) + b5*exp(-b6*x)";
        let starts = [("b1", 1.2), ("b2", 0.3), ("b3", 5.6), ("b4", 5.5), ("b5", 6.5), ("b6", 7.6)];
        let x: Vec<f64> = (0..24).map(|i| 0.05 * f64::from(i)).collect();
        let truth = [0.0951, 1.0, 0.8607, 3.0, 1.5576, 5.0];
        assert_near(&approached(&plan(formula, Space::Linear, Loss::Squares, &starts), &truth, &x), &truth, 1e-4);
    }

    #[test]
    fn a_parameter_keeps_its_sign_where_it_can() {
        let starts = [("a", 1.0), ("s", 10.0), ("m", 500.0)];
        let x: Vec<f64> = (0..35).map(|i| 400.0 + 3.0 * f64::from(i)).collect();
        let truth = [1.55, 4.09, 451.5];
        let plan = plan("(a/s)*exp(-0.5*((x - m)/s)^2)", Space::Linear, Loss::Squares, &starts);
        assert_near(&approached(&plan, &truth, &x), &truth, 1e-6);
    }

    #[test]
    fn every_objective_is_approached() {
        let x: Vec<f64> = (0..20).map(|i| 10.0 * 1.6f64.powi(i)).collect();
        let truth = [1.7, 8.0, 0.4];
        for space in [Space::Log, Space::Linear] {
            for loss in [Loss::Squares, Loss::Huber { delta: 1e-3 }] {
                let plan = plan("E + A*x^-alpha", space, loss, &[("E", 1.0), ("A", 3.0), ("alpha", 0.1)]);
                assert_near(&approached(&plan, &truth, &x), &truth, 1e-4);
            }
        }
    }
}
