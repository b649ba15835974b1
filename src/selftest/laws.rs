//! Each law of the catalogue on the device: values and derivatives point by point, then whole fits of generated curves.
//!
//! Values are held against f64 within what the operators' tolerances allow; proposals and judged answers against the
//! CPU's own fit of the same curves.

use super::bound::{Analysis, Bounded};
use super::curves::curves;
use super::{Check, Measure, Worst};
use crate::error::Result;
use crate::evaluate::reference::{Precision, Reference};
use crate::fit::cpu::Cpu;
use crate::fit::dense::solve_positive;
use crate::fit::gpu::Gpu;
use crate::fit::judge::{Verdicts, judge};
use crate::fit::model::Model;
use crate::fit::pack::{Plan, Weighting};
use crate::fit::problem::Problem;
use crate::fit::{Backend, Loss, Objective, Proposals, Space, Status};
use crate::formula::graph::{Graph, Id};
use crate::law::catalogue::{CATALOGUE, Entry};
use crate::law::{Law, Mapping};

/// Curves of each law.
const CURVES: usize = 24;
/// A law's proposals are wrong if they lie farther than this from their optima, in standard errors, by the median: single
/// descents in f32 end anywhere in a flat valley, or in a neighbouring one, from where the judge goes on.
const PROPOSAL: f64 = 0.05;
/// Relative difference of parameters and objectives after the judge.
const ANSWER: f64 = 1e-6;
/// Beyond this condition number of a fit f32 may lose its way: such curves say nothing about the device.
const CONDITION: f64 = 1e4;

/// Noisy curves seldom determine laws of more parameters, and then say nothing about the device: only values are checked.
pub const MOST_PARAMETERS: usize = 6;

/// Checks every law.
pub fn run(gpu: &Gpu, take: &mut dyn FnMut(Check)) -> Result<()> {
    for entry in CATALOGUE {
        let (mut values, mut proposals, mut answers) = (Worst::default(), Vec::new(), Worst::default());
        for space in [Space::Log, Space::Linear] {
            let plan = plan(entry, space);
            let batch = curves(&plan, CURVES, 1);
            let packed = plan.pack(&batch);
            check_values(gpu, &packed.problem, &mut values)?;
            if entry.parameters.len() <= MOST_PARAMETERS {
                check_fits(gpu, &packed.problem, &mut proposals, &mut answers)?;
            }
        }
        take(values.check(Measure::Values, entry.name, true, 1.0));
        if entry.parameters.len() > MOST_PARAMETERS {
            continue;
        }
        take(Worst::median(proposals).check(Measure::Proposal, entry.name, true, PROPOSAL));
        take(answers.check(Measure::Answer, entry.name, false, ANSWER));
    }
    Ok(())
}

/// A law of the catalogue over columns named as its inputs, and the response behind them.
pub fn plan(entry: &Entry, space: Space) -> Plan {
    let mut columns: Vec<String> = entry.inputs.iter().map(|input| format!("column_{input}")).collect();
    let x = columns.clone();
    columns.push("response".to_string());
    let law = Law::bind(entry.name, &columns, Mapping { x: &x, y: Some("response") });
    let law = law.expect("every law of the catalogue binds to its own inputs");
    let objective = Objective { space, loss: Loss::Squares };
    Plan::new(law, objective, &[], Weighting::Even, false, &columns).expect("no controls, no contradictions")
}

/// The law's functions, as the kernels call them, at every row of the problem and near its optimum.
fn check_values(gpu: &Gpu, problem: &Problem, worst: &mut Worst) -> Result<()> {
    let model = problem.model;
    let cpu = judge(problem, &Cpu.propose(problem)?, false);
    let mut own = vec![model.prediction];
    own.extend(&model.gradient);
    let mut projected = model.projection.basis.clone();
    projected.push(model.projection.offset);
    for (nodes, charts) in [(own, &model.coordinates), (projected, &model.projection.coordinates)] {
        let mut points: Vec<Vec<f32>> = Vec::new();
        for curve in (0..problem.len()).filter(|&curve| cpu.status[curve].has_parameters()) {
            let z = optimum(problem, &cpu, curve);
            let z = z.iter().zip(&model.coordinates).zip(charts).map(|((z, own), chart)| match own == chart {
                true => *z as f32,
                false => chart.encode(own.decode(*z)) as f32,
            });
            let z: Vec<f32> = z.collect();
            for row in problem.rows(curve) {
                let inputs = problem.inputs.iter().map(|column| column[row] as f32);
                points.push(inputs.chain(z.iter().copied()).collect());
            }
        }
        compare_values(gpu, &model.graph, &nodes, model.inputs.len(), &points, worst)?;
    }
    Ok(())
}

/// Holds the device's values of `nodes` against f64; a point is its inputs and then its coordinates.
fn compare_values(
    gpu: &Gpu,
    graph: &Graph,
    nodes: &[Id],
    inputs: usize,
    points: &[Vec<f32>],
    worst: &mut Worst,
) -> Result<()> {
    let coordinates = points.first().map_or(0, Vec::len) - inputs;
    let found = gpu.evaluate(graph, nodes, (inputs, coordinates), &points.concat())?;
    let analysis = Analysis::new(graph, nodes);
    let mut single = Reference::new(graph, nodes, Precision::Single);
    for (i, point) in points.iter().enumerate() {
        let point: Vec<f64> = point.iter().map(|&value| f64::from(value)).collect();
        let (u, z) = point.split_at(inputs);
        let expected = analysis.at(u, z);
        if !found.trusted[i] {
            if expected.iter().all(|bounded| bounded.tame) {
                worst.take(f64::INFINITY, || format!("refused at inputs {u:?}, coordinates {z:?}"));
            }
            continue;
        }
        let columns: Vec<[f64; 1]> = u.iter().map(|&value| [value]).collect();
        single.evaluate(&columns, z, 1);
        for (k, &Bounded { value, error, .. }) in expected.iter().enumerate() {
            // A bound that overflows in a branch not taken says nothing.
            if error.is_nan() {
                continue;
            }
            let share = |found: f64| {
                let off = (found - value).abs();
                if off <= error { off / error.max(f64::MIN_POSITIVE) } else { off / error }
            };
            let device = f64::from(found.values[i * nodes.len() + k]);
            worst.take(share(device), || {
                format!("output {k} is {device:e}, in f64 {value:e}, at inputs {u:?}, coordinates {z:?}")
            });
            worst.take_single(share(single.output(k)[0]));
        }
    }
    Ok(())
}

/// A judged curve's parameters as coordinates.
fn optimum(problem: &Problem, verdicts: &Verdicts, curve: usize) -> Vec<f64> {
    let (p, inputs) = (problem.model.len(), problem.model.inputs.len());
    let centres = &problem.centres[curve * inputs..(curve + 1) * inputs];
    problem.model.encode(&verdicts.parameters[curve * p..(curve + 1) * p], centres)
}

/// Fits every curve on the device and on the CPU.
fn check_fits(gpu: &Gpu, problem: &Problem, proposed: &mut Vec<Worst>, answers: &mut Worst) -> Result<()> {
    let p = problem.model.len();
    let proposals = gpu.propose(problem)?;
    let ours = judge(problem, &proposals, false);
    let theirs = judge(problem, &Cpu.propose(problem)?, false);
    for curve in 0..problem.len() {
        let settled = theirs.status[curve] == Status::Converged && theirs.condition[curve] < CONDITION;
        // Rarely the device finds a lower valley than the CPU's search; then it cannot be blamed for its answer.
        let better = ours.objective[curve] < theirs.objective[curve] * (1.0 - ANSWER);
        if !settled || better {
            continue;
        }
        let label = |what: &str| {
            let space = if problem.model.space == Space::Log { "log" } else { "linear" };
            let (f, g) = (ours.objective[curve], theirs.objective[curve]);
            format!("{what} of curve {curve} in {space} space, objective {f:e}, on the CPU {g:e}")
        };
        let near = nearest(problem, &proposals, &theirs, curve);
        let mut one = Worst::default();
        one.take(near.device, || label("proposal"));
        one.take_single(near.single);
        proposed.push(one);
        let range = curve * p..(curve + 1) * p;
        let parameters = ours.parameters[range.clone()].iter().zip(&theirs.parameters[range]);
        let objectives = (&ours.objective[curve], &theirs.objective[curve]);
        let apart = parameters.chain([objectives]).map(|(a, b)| (a - b).abs() / b.abs());
        answers.take(apart.fold(0.0, |worst, off| if off > worst || off.is_nan() { off } else { worst }), || {
            label("answer")
        });
    }
    Ok(())
}

/// Distances from an optimum in standard errors: sqrt(ΔᵀHΔ/s²), which no single parameter exceeds.
struct Distances {
    /// Of the nearest proposal.
    device: f64,
    /// Of where ideal f32 arithmetic sees the optimum.
    single: f64,
}

fn nearest(problem: &Problem, proposals: &Proposals, verdicts: &Verdicts, curve: usize) -> Distances {
    let (model, p) = (problem.model, problem.model.len());
    let optimum = optimum(problem, verdicts, curve);
    let (curvature, _) = normal_equations(problem, curve, &optimum, Precision::Double);
    let variance = 2.0 * verdicts.objective[curve] / (problem.points(curve) - p) as f64;
    let distance = |z: &[f64]| {
        let off: Vec<f64> = z.iter().zip(&optimum).map(|(a, b)| a - b).collect();
        let square: f64 = (0..p * p).map(|k| off[k / p] * curvature[k] * off[k % p]).sum();
        (square / variance).sqrt()
    };
    let range = proposals.offsets[curve] * p..proposals.offsets[curve + 1] * p;
    let device = proposals.coordinates[range].chunks_exact(p).map(distance).fold(f64::INFINITY, f64::min);
    Distances { device, single: distance(&seen_in_single(problem, curve, &optimum, model)) }
}

/// Where a descent in ideal f32 arithmetic would end: one Gauss–Newton step in it from the optimum.
fn seen_in_single(problem: &Problem, curve: usize, optimum: &[f64], model: &Model) -> Vec<f64> {
    let rounded: Vec<f64> = optimum.iter().map(|&z| Precision::Single.round(z)).collect();
    let (curvature, mut step) = normal_equations(problem, curve, &rounded, Precision::Single);
    if !solve_positive(&curvature, &mut step) {
        return vec![f64::NAN; model.len()];
    }
    rounded.iter().zip(step).map(|(z, step)| Precision::Single.round(z + step)).collect()
}

/// JᵀWJ and JᵀWr at `z`.
fn normal_equations(problem: &Problem, curve: usize, z: &[f64], precision: Precision) -> (Vec<f64>, Vec<f64>) {
    let (model, p) = (problem.model, problem.model.len());
    let mut outputs = vec![model.prediction];
    outputs.extend(&model.gradient);
    let mut reference = Reference::new(&model.graph, &outputs, precision);
    let rows = problem.rows(curve);
    let columns: Vec<&[f64]> = problem.inputs.iter().map(|column| &column[rows.clone()]).collect();
    reference.evaluate(&columns, z, rows.len());
    let (mut curvature, mut slope) = (vec![0.0; p * p], vec![0.0; p]);
    for (point, row) in rows.enumerate() {
        let w = problem.weight[row];
        let r = precision.round(precision.round(problem.response[row]) - reference.output(0)[point]);
        for i in 0..p {
            let g = reference.output(1 + i)[point];
            slope[i] += w * r * g;
            for j in 0..p {
                curvature[i * p + j] += w * g * reference.output(1 + j)[point];
            }
        }
    }
    (curvature, slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::instruction_set::BASELINE;
    use crate::evaluate::tape::{LANES, POINTS, Scratch};

    /// The bounds are f32's; the tape's operators are within two units of f64's last place, and 2^-29 lies between.
    const TAPE: f64 = 4.0 / (1u64 << 29) as f64;

    /// Values and derivatives of the tape in every lane at `points` rows, one column per output.
    fn run_tape(problem: &Problem, curve: usize, z: &[f64]) -> Vec<Vec<f64>> {
        let tape = &problem.model.programs.slope;
        let rows = problem.rows(curve);
        let points = rows.len().min(POINTS);
        let used = problem.inputs.iter().flat_map(|column| &column[rows.start..rows.start + points]);
        let inputs: Vec<f64> = used.flat_map(|&u| [u; LANES]).collect();
        let mut scratch = Scratch::default();
        tape.prepare::<BASELINE>(&mut scratch, &z.iter().map(|&z| [z; LANES]).collect::<Vec<_>>());
        tape.run::<BASELINE>(&mut scratch, &inputs, points * LANES, 0, points);
        let output = |slot| tape.output(slot, &scratch, &inputs, points * LANES, 0, points);
        (0..tape.outputs()).map(|slot| output(slot).iter().step_by(LANES).copied().collect()).collect()
    }

    #[test]
    fn tape_and_ideal_single_precision_keep_the_bound_of_every_law() {
        for entry in CATALOGUE {
            for space in [Space::Log, Space::Linear] {
                let plan = plan(entry, space);
                let batch = curves(&plan, CURVES, 1);
                let mut problem = plan.pack(&batch).problem;
                let cpu = judge(&problem, &Cpu.propose(&problem).expect("the CPU searches"), false);
                // f32 exactly, so that all three start from the same numbers.
                problem.inputs.iter_mut().flatten().for_each(|u| *u = Precision::Single.round(*u));
                let mut outputs = vec![plan.model.prediction];
                outputs.extend(&plan.model.gradient);
                let analysis = Analysis::new(&plan.model.graph, &outputs);
                let mut single = Reference::new(&plan.model.graph, &outputs, Precision::Single);
                let mut compared = 0;
                for curve in (0..problem.len()).filter(|&curve| cpu.status[curve].has_parameters()) {
                    let z: Vec<f64> =
                        optimum(&problem, &cpu, curve).into_iter().map(|z| Precision::Single.round(z)).collect();
                    let tape = run_tape(&problem, curve, &z);
                    for (point, row) in problem.rows(curve).enumerate().take(tape[0].len()) {
                        let u: Vec<f64> = problem.inputs.iter().map(|column| column[row]).collect();
                        let columns: Vec<[f64; 1]> = u.iter().map(|&u| [u]).collect();
                        single.evaluate(&columns, &z, 1);
                        for (k, bounded) in analysis.at(&u, &z).into_iter().enumerate() {
                            if !bounded.tame {
                                continue;
                            }
                            let label = format!("{} {space:?} output {k} at {u:?}, {z:?}", entry.name);
                            let off = |found: f64| (found - bounded.value).abs();
                            let (ideal, taped) = (single.output(k)[0], tape[k][point]);
                            assert!(off(ideal) <= bounded.error, "{label}: in f32 {ideal}, {bounded:?}");
                            assert!(off(taped) <= TAPE * bounded.error, "{label}: on the tape {taped}, {bounded:?}");
                            compared += 1;
                        }
                    }
                }
                assert!(compared > 1000, "{} {space:?}: {compared} values were compared", entry.name);
            }
        }
    }
}
