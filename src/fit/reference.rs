//! A dense search in f64, against which the answers of a backend are held.
//!
//! In: a plan whose grid is dense ([`Plan::denser`]), some curves and, where it is known, the truth. Out: the lowest
//! optimum from every basin of that grid and from the truth; then how far other answers are from it.

use super::cpu::Cpu;
use super::judge::{Verdicts, judge};
use super::pack::{Plan, Weighting};
use super::{Backend, Proposals, Status};
use crate::curves::CurveBatch;
use crate::error::Result;

/// An objective that is higher than the reference's by more than this share is another optimum, not rounding.
pub const SAME_OPTIMUM: f64 = 1e-6;
/// A grid of about so many points misses no basin that a sweep has shown so far, and takes a few milliseconds a curve.
const DENSE_POINTS: usize = 20_000;
/// More parts between two cells of one axis than this find nothing new.
const MOST_PARTS: usize = 16;

/// How far answers are from the reference.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Disagreement {
    /// Curves that the reference could fit.
    pub curves: usize,
    /// Of those: there is an answer to compare.
    pub answered: usize,
    /// Of those: the answer is missing, or its objective is higher by more than [`SAME_OPTIMUM`].
    pub worse: usize,
    /// Of those: the answer's objective is lower by more than that.
    pub better: usize,
    /// Largest excess of an answer's objective over the reference's, as a share of it; 0 where none is higher.
    pub objective: f64,
    /// Largest |θ − θ_ref|/max(|θ_ref|, standard error) of any parameter on curves that converged on both sides.
    pub parameters: f64,
}

/// A plan's grid made so dense that a few thousand points are tried, whatever the number of axes.
pub fn dense(plan: Plan) -> Plan {
    let points = |parts: usize| plan.grid_cells().iter().map(|cells| (cells - 1) * parts + 1).product::<usize>();
    let parts = (1..=MOST_PARTS).rev().find(|&parts| points(parts) <= DENSE_POINTS).unwrap_or(1);
    plan.denser(parts)
}

/// Fits `curves` by the plan as it is; `truth` holds a value per curve for every parameter of the law.
///
/// # Errors
/// None of its own: [`Backend::propose`] of the CPU does not fail.
pub fn answers(plan: &Plan, curves: &CurveBatch, truth: Option<&[Vec<f64>]>) -> Result<Verdicts> {
    let packed = plan.pack(curves);
    let problem = &packed.problem;
    let (model, inputs) = (&plan.model, plan.model.inputs.len());
    let found = Cpu.propose(problem)?;
    let mut proposals = Proposals { offsets: vec![0], coordinates: Vec::new() };
    for curve in 0..problem.len() {
        let own = found.offsets[curve] * model.len()..found.offsets[curve + 1] * model.len();
        proposals.coordinates.extend_from_slice(&found.coordinates[own]);
        if let (Some(truth), None) = (truth, problem.status[curve]) {
            let theta: Vec<f64> = model.free.iter().map(|&j| truth[j][curve]).collect();
            let z = model.encode(&theta, &problem.centres[curve * inputs..(curve + 1) * inputs]);
            if z.iter().all(|z| z.is_finite()) {
                proposals.coordinates.extend(z);
            }
        }
        proposals.offsets.push(proposals.coordinates.len() / model.len());
    }
    Ok(judge(problem, &proposals, matches!(plan.weighting, Weighting::Sigma(_))))
}

/// Holds statuses, objectives and free parameters (`p` per curve) against the reference.
pub fn compare(status: &[Status], objective: &[f64], parameters: &[f64], reference: &Verdicts) -> Disagreement {
    let mut found = Disagreement::default();
    let p = reference.parameters.len() / reference.status.len().max(1);
    for (curve, status_ref) in reference.status.iter().enumerate() {
        if !status_ref.has_parameters() {
            continue;
        }
        found.curves += 1;
        if !status[curve].has_parameters() {
            found.worse += 1;
            continue;
        }
        found.answered += 1;
        let (ours, theirs) = (objective[curve], reference.objective[curve]);
        // Both are zero where the fit is perfect to the last bit.
        let excess = if ours == theirs { 0.0 } else { (ours - theirs) / theirs.max(f64::MIN_POSITIVE) };
        found.worse += usize::from(excess > SAME_OPTIMUM);
        found.better += usize::from(excess < -SAME_OPTIMUM);
        found.objective = found.objective.max(excess);
        if status[curve] == Status::Converged && *status_ref == Status::Converged {
            for j in curve * p..(curve + 1) * p {
                let (theta, error) = (reference.parameters[j], reference.standard_errors[j]);
                // f64::max passes over the NaN of an unknown error.
                let scale = theta.abs().max(error);
                found.parameters = found.parameters.max((parameters[j] - theta).abs() / scale);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Objective, Space};
    use crate::law::{Law, Mapping};
    use crate::workload::Workload;

    fn plan(law: &Law, objective: Objective) -> Plan {
        Plan::new(law.clone(), objective, &[], Weighting::Even, false, &law.columns).expect("a plan")
    }

    #[test]
    fn a_denser_grid_keeps_the_ends_and_the_cells_of_the_plan() {
        let columns = ["x", "y"].map(String::from);
        let law = Law::bind("saturating_power", &columns, Mapping { x: &columns[..1], y: Some("y") }).expect("a law");
        let objective = Objective { space: Space::Linear, loss: crate::fit::Loss::Squares };
        let batch =
            CurveBatch { offsets: vec![0, 4], columns: vec![vec![1.0, 2.0, 4.0, 8.0], vec![4.0, 3.0, 2.5, 2.25]] };
        let (coarse, fine) = (plan(&law, objective), plan(&law, objective).denser(3));
        let (coarse, fine) = (coarse.pack(&batch).problem.grid, fine.pack(&batch).problem.grid);
        assert_eq!(fine.cells, [(coarse.cells[0] - 1) * 3 + 1]);
        for (cell, value) in coarse.values.iter().enumerate() {
            assert!((fine.values[3 * cell] - value).abs() < 1e-12 * value.abs().max(1.0), "cell {cell}");
        }
    }

    #[test]
    fn answers_agree_with_the_reference_and_a_shifted_answer_does_not() {
        let workload = Workload::named("W3").expect("a workload");
        let sweep = workload.sweep(5).expect("a sweep");
        let generated = sweep.batch(0, 4).expect("curves");
        let usual = plan(&sweep.law, workload.objective);
        let packed = usual.pack(&generated.curves);
        let ours = judge(&packed.problem, &Cpu.propose(&packed.problem).expect("proposals"), false);
        let reference =
            answers(&dense(plan(&sweep.law, workload.objective)), &generated.curves, Some(&generated.truth));
        let reference = reference.expect("the CPU does not fail");
        let found = compare(&ours.status, &ours.objective, &ours.parameters, &reference);
        assert_eq!((found.curves, found.worse), (4, 0), "{found:?}");
        assert!(found.parameters < 1e-6, "{found:?}");
        let shifted: Vec<f64> = ours.parameters.iter().map(|theta| theta * 1.01).collect();
        let higher: Vec<f64> = ours.objective.iter().map(|objective| objective * 1.001).collect();
        let found = compare(&ours.status, &higher, &shifted, &reference);
        assert!(found.worse == 4 && found.parameters > 1e-3 && found.objective > 9e-4, "{found:?}");
        let lost = vec![Status::NonFinite; 4];
        let found = compare(&lost, &higher, &shifted, &reference);
        assert_eq!((found.worse, found.answered), (4, 0));
    }
}
